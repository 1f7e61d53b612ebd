/* Self-attention. With one token a row, X [.., t, d_in]:
 *
 *   project     Q = X W_q,  K = X W_k,  V = X W_v
 *   score       S_ij = scale q_i . k_j              how much token i cares for token j
 *   mask        S_ij += additive_ij; where token i may not look at token j, A_ij will be 0
 *   normalise   A_i = normalizer(S_i), row by row
 *   mix         O_i = sum_j A_ij v_j
 *   join        the heads' outputs side by side [.., t, h d_v], times W_o if there is one
 *
 * Backward has no line here: each of these steps is made of operations that
 * know their own. From dO it runs the list upwards:
 *
 *   dA = dO V^T    dV = A^T dO    dS by the normaliser's rule, 0 where masked
 *   dQ = scale dS K    dK = scale dS^T Q
 *   dW_q = X^T dQ    dW_k = X^T dK    dW_v = X^T dV    dX = dQ W_q^T + dK W_k^T + dV W_v^T
 *
 * With h heads, Q, K and V carry an axis h before t and all of it runs per head. */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char forward_name[] = "attention_forward";

/* ---- The steps ---- */

/* [.., t, h d] -> [.., h, t, d]; nothing to do for one head. */
static ag_var split_heads(ag_var x, int64_t heads)
{
    if (heads == 1)
        return x;
    ag_shape shape = ag_shape_of(x);
    if (shape.rank < 2)
        return x; /* an error on the way here */
    shape.dims[shape.rank] = shape.dims[shape.rank - 1] / heads;
    shape.dims[shape.rank - 1] = heads;
    shape.rank++;
    return ag_transpose(ag_reshape(x, shape), -3, -2);
}

/* Q = X W_q + b_q, and likewise K and V. */
static ag_var project(ag_var x, ag_var w, ag_var b, int64_t heads)
{
    return split_heads(ag_affine(x, w, b), heads);
}

/* S = scale Q K^T */
static ag_var score(ag_var q, ag_var k, double scale)
{
    return ag_scale(ag_matmul(q, ag_transpose(k, -2, -1)), scale);
}

/* [t, t], 1 where key j comes after query i. */
static ag_var after_query(ag_context *context, int64_t t)
{
    ag_var token = ag_arange(context, t);
    return ag_greater(token, ag_reshape(token, AG_SHAPE(t, 1)));
}

/* [.., 1, t], 1 where key j is not among the first lengths tokens: j + 1 > lengths. */
static ag_var beyond_length(ag_var lengths, int64_t t, int64_t heads)
{
    ag_shape shape = ag_shape_of(lengths);
    for (int ones = heads == 1 ? 2 : 3; ones > 0 && shape.rank >= 0; ones--)
        shape.dims[shape.rank++] = 1;
    ag_var place = ag_slice(ag_arange(lengths.context, t + 1), 0, 1, AG_END, 1);
    return ag_greater(place, ag_reshape(lengths, shape));
}

/* A masked score becomes whatever its normaliser turns into a weight of 0. */
static ag_var mask_scores(const ag_attention_options *options, ag_var scores, int64_t t,
                          const ag_attention_mask *mask)
{
    double fill = options->normalizer == AG_LINEAR ? 0 : -INFINITY;
    if (mask && !ag_is_none(mask->additive)) {
        ag_var minus_infinity = ag_full(scores.context, AG_SCALAR, -INFINITY);
        ag_var masked = ag_equal(mask->additive, minus_infinity);
        scores = ag_masked_fill(ag_add(scores, mask->additive), masked, fill);
    }
    if (mask && !ag_is_none(mask->lengths))
        scores = ag_masked_fill(scores, beyond_length(mask->lengths, t, options->heads), fill);
    if (options->causal)
        scores = ag_masked_fill(scores, after_query(scores.context, t), fill);
    return scores;
}

/* Each row of t scores to weights. log t is the library's own, so that it has
 * the same bits on every platform. */
static ag_var normalize(ag_var scores, int64_t t, ag_normalizer normalizer)
{
    const double n = (double)t;
    switch (normalizer) {
    case AG_SOFTMAX:
        return ag_softmax(scores, -1);
    case AG_SIGMOID:
        return ag_sigmoid(ag_sub(scores, ag_log(ag_scalar(scores.context, n))));
    case AG_RELU:
        return ag_scale(ag_relu(scores), 1 / n);
    case AG_LINEAR:
        break;
    }
    return scores;
}

/* [.., h, t, d] -> [.., t, h d], the opposite of split_heads. */
static ag_var join_heads(ag_var x, int64_t heads)
{
    if (heads == 1)
        return x;
    ag_shape shape = ag_shape_of(x);
    if (shape.rank < 3)
        return x; /* an error on the way here */
    shape.rank--;
    shape.dims[shape.rank - 2] = shape.dims[shape.rank - 1];
    shape.dims[shape.rank - 1] = heads * shape.dims[shape.rank];
    return ag_reshape(ag_transpose(x, -3, -2), shape);
}

/* "attn.q" from "attn.w_q". */
static void name_step(const ag_attention *attention, ag_var v, const char *name)
{
    const char *w_q = ag_name(attention->w_q);
    size_t length = strlen(w_q), ending = strlen("w_q");
    char text[256];
    snprintf(text, sizeof text, "%.*s%s", (int)(length > ending ? length - ending : 0), w_q, name);
    ag_set_name(v, text);
}

static void name_trace(const ag_attention *attention, const ag_attention_trace *trace)
{
    name_step(attention, trace->q, "q");
    name_step(attention, trace->k, "k");
    name_step(attention, trace->v, "v");
    name_step(attention, trace->scores, "scores");
    if (trace->weights.index != trace->scores.index) /* without a normaliser they are the same */
        name_step(attention, trace->weights, "weights");
    name_step(attention, trace->mixed, "mixed");
}

/* ---- Checks before the first step ---- */

/* Records "attention_forward: x [5,4] does not go with attn.w_q [3,4]: why". */
static bool refuse_x(const ag_attention *attention, ag_var x, ag_error error, const char *why)
{
    char x_text[160], w_text[160];
    return ag_fail(x.context, error, "%s: %s does not go with %s: %s", forward_name,
                   ag_describe(x, x_text, sizeof x_text),
                   ag_describe(attention->w_q, w_text, sizeof w_text), why);
}

/* x [.., t, d_in] of the parameters' dtype. */
static bool check_x(const ag_attention *attention, ag_var x)
{
    const ag_node *node = ag_node_require(attention->w_q.context, forward_name, x);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (value->dtype != ag_dtype_of(attention->w_q))
        return refuse_x(attention, x, AG_ERR_DTYPE, "their dtypes differ");
    if (value->rank < 2 || value->dims[value->rank - 1] != attention->options.d_in)
        return refuse_x(attention, x, AG_ERR_SHAPE, "x should be [.., tokens, d_in]");
    if (attention->options.heads > 1 && value->rank == AG_MAX_RANK)
        return refuse_x(attention, x, AG_ERR_SHAPE, "no axis is left for the heads");
    return true;
}

/* lengths: i64, the leading axes of x, each 0 .. t. */
static bool check_lengths(ag_context *context, ag_var lengths, ag_shape x)
{
    const ag_node *node = ag_node_require(context, forward_name, lengths);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (value->dtype != AG_I64) {
        return ag_fail(context, AG_ERR_DTYPE, "%s: lengths should be i64, not %s", forward_name,
                       ag_dtype_name(value->dtype));
    }
    int64_t t = x.dims[x.rank - 2];
    ag_shape leading = ag_shape_make(x.rank - 2, x.dims);
    if (!ag_shape_equal(ag_tensor_shape(value), leading)) {
        char got[128], wanted[128];
        return ag_fail(context, AG_ERR_SHAPE, "%s: lengths %s should have x's leading axes %s",
                       forward_name, ag_shape_text(ag_tensor_shape(value), got, sizeof got),
                       ag_shape_text(leading, wanted, sizeof wanted));
    }
    int64_t count = ag_tensor_count(value);
    for (int64_t i = 0; i < count; i++) {
        double length = ag_tensor_at(value, i);
        if (length < 0 || length > (double)t) {
            return ag_fail(context, AG_ERR_INDEX, "%s: length %.0f at %lld is outside 0 .. %lld",
                           forward_name, length, (long long)i, (long long)t);
        }
    }
    return true;
}

/* additive: of x's dtype, broadcast to the scores [.., h, t, t]. */
static bool check_additive(ag_context *context, ag_var additive, ag_var x, int64_t heads)
{
    const ag_node *node = ag_node_require(context, forward_name, additive);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (value->dtype != ag_dtype_of(x)) {
        return ag_fail(context, AG_ERR_DTYPE, "%s: the additive mask is %s, but x is %s",
                       forward_name, ag_dtype_name(value->dtype), ag_dtype_name(ag_dtype_of(x)));
    }
    ag_shape shape = ag_shape_of(x), scores = shape, together;
    int64_t t = shape.dims[shape.rank - 2];
    if (heads > 1) {
        scores.rank++;
        scores.dims[scores.rank - 3] = heads;
    }
    scores.dims[scores.rank - 2] = t;
    scores.dims[scores.rank - 1] = t;
    if (!ag_shape_broadcast(ag_tensor_shape(value), scores, &together) ||
        !ag_shape_equal(together, scores)) {
        char text[128], wanted[128];
        return ag_fail(context, AG_ERR_SHAPE,
                       "%s: the additive mask %s does not broadcast to the scores %s", forward_name,
                       ag_describe(additive, text, sizeof text),
                       ag_shape_text(scores, wanted, sizeof wanted));
    }
    return true;
}

static bool check_forward(const ag_attention *attention, ag_var x, const ag_attention_mask *mask)
{
    if (!attention || !attention->w_q.context || attention->options.heads < 1) {
        return ag_fail(x.context, AG_ERR_ARGUMENT, "%s: the layer was not initialised",
                       forward_name);
    }
    ag_context *context = attention->w_q.context;
    if (!check_x(attention, x))
        return false;
    if (mask && !ag_is_none(mask->lengths) &&
        !check_lengths(context, mask->lengths, ag_shape_of(x)))
        return false;
    return !mask || ag_is_none(mask->additive) ||
           check_additive(context, mask->additive, x, attention->options.heads);
}

/* ---- The layer ---- */

ag_var ag_attention_forward_masked(const ag_attention *attention, ag_var x,
                                   const ag_attention_mask *mask, ag_attention_trace *trace)
{
    if (trace)
        *trace = (ag_attention_trace){ .q = AG_NONE };
    if (!check_forward(attention, x, mask)) {
        bool known = attention && attention->w_q.context;
        return ag_poisoned(known ? attention->w_q.context : x.context);
    }
    const ag_attention_options *options = &attention->options;
    const ag_shape shape = ag_shape_of(x);
    const int64_t t = shape.dims[shape.rank - 2], heads = options->heads;

    ag_attention_trace step;
    step.q = project(x, attention->w_q, attention->b_q, heads);
    step.k = project(x, attention->w_k, attention->b_k, heads);
    step.v = project(x, attention->w_v, attention->b_v, heads);
    step.scores = mask_scores(options, score(step.q, step.k, options->scale), t, mask);
    step.weights = normalize(step.scores, t, options->normalizer);
    step.mixed = ag_matmul(step.weights, step.v);
    ag_var out = join_heads(step.mixed, heads);
    if (options->d_out > 0)
        out = ag_affine(out, attention->w_o, attention->b_o);
    if (trace) {
        name_trace(attention, &step);
        *trace = step;
    }
    return out;
}

ag_var ag_attention_forward(const ag_attention *attention, ag_var x, ag_attention_trace *trace)
{
    return ag_attention_forward_masked(attention, x, NULL, trace);
}

static bool check_options(ag_context *context, const char *name, const ag_attention_options *o)
{
    static const char init_name[] = "attention_init";
    if (o->d_in < 1 || o->d_k < 1 || o->d_v < 1) {
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: d_in is %lld, d_k %lld, d_v %lld, but all must be at least 1",
                       init_name, name, (long long)o->d_in, (long long)o->d_k, (long long)o->d_v);
    }
    if (o->heads < 0 || o->d_out < 0) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: %s: heads is %lld, d_out %lld: negative",
                       init_name, name, (long long)o->heads, (long long)o->d_out);
    }
    if (o->heads > INT64_MAX / (o->d_k > o->d_v ? o->d_k : o->d_v)) {
        return ag_fail(context, AG_ERR_MEMORY, "%s: %s: %lld heads are too many", init_name, name,
                       (long long)o->heads);
    }
    if (o->normalizer < AG_SOFTMAX || o->normalizer > AG_LINEAR) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: %s: there is no normalizer %d", init_name,
                       name, (int)o->normalizer);
    }
    if (!isfinite(o->scale)) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: %s: scale is %g, not finite", init_name, name,
                       o->scale);
    }
    return true;
}

/* The parameters, with those that are not asked for left absent. */
static void add_parameters(ag_attention *a, ag_params *params, const char *name)
{
    const ag_attention_options *o = &a->options;
    const int64_t keys = o->heads * o->d_k, values = o->heads * o->d_v;
    const ag_init zeros = { .kind = AG_INIT_ZEROS };
    a->w_q = ag_params_add(params, name, "w_q", AG_SHAPE(o->d_in, keys), o->init);
    a->w_k = ag_params_add(params, name, "w_k", AG_SHAPE(o->d_in, keys), o->init);
    a->w_v = ag_params_add(params, name, "w_v", AG_SHAPE(o->d_in, values), o->init);
    if (o->bias) {
        a->b_q = ag_params_add(params, name, "b_q", AG_SHAPE(keys), zeros);
        a->b_k = ag_params_add(params, name, "b_k", AG_SHAPE(keys), zeros);
        a->b_v = ag_params_add(params, name, "b_v", AG_SHAPE(values), zeros);
    }
    if (o->d_out > 0) {
        a->w_o = ag_params_add(params, name, "w_o", AG_SHAPE(values, o->d_out), o->init);
        if (o->bias)
            a->b_o = ag_params_add(params, name, "b_o", AG_SHAPE(o->d_out), zeros);
    }
}

bool ag_attention_init(ag_attention *attention, ag_params *params, const char *name,
                       const ag_attention_options *options)
{
    if (attention)
        *attention = (ag_attention){ .w_q = AG_NONE };
    if (!ag_layer_can_start(params, "attention_init", attention, name, options) ||
        !check_options(params->context, name, options))
        return false;
    ag_attention made = { .options = *options };
    made.options.heads = options->heads > 0 ? options->heads : 1;
    made.options.scale = options->scale != 0 ? options->scale : 1 / sqrt((double)options->d_k);
    int count = ag_params_count(params);
    add_parameters(&made, params, name);
    if (ag_status(params->context) != AG_OK) {
        ag_params_truncate(params, count);
        return false;
    }
    *attention = made;
    return true;
}
