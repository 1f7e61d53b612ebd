/* Attention. With one token a row, X [.., s, d_in]; in self-attention the memory M is X:
 *
 *   project     Q = X W_q,  K = M W_k,  V = M W_v
 *   score       S_ij = scale q_i . k_j              how much token i cares for token j
 *   mask        S_ij += additive_ij; where token i may not look at token j, A_ij will be 0
 *   normalise   A_i = normalizer(S_i), row by row
 *   mix         O_i = sum_j A_ij v_j
 *   join        the heads' outputs side by side [.., s, h d_v], times W_o if there is one
 *
 * Backward has no line here: each of these steps is made of operations that
 * know their own. From dO it runs the list upwards:
 *
 *   dA = dO V^T    dV = A^T dO    dS by the normaliser's rule, 0 where masked
 *   dQ = scale dS K    dK = scale dS^T Q
 *   dW_q = X^T dQ    dW_k = M^T dK    dW_v = M^T dV    dX = dQ W_q^T    dM = dK W_k^T + dV W_v^T
 *
 * With h heads, Q, K and V carry an axis h before their rows and all of it runs per head.
 * Where the normaliser is softmax and nobody asks for the steps, score to mix are the one
 * operation ag_attend, which gives the same without ever holding S or A. */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char forward_name[] = "attention_forward";

/* ---- The steps ---- */

/* S = scale Q K^T */
static ag_var score(ag_var q, ag_var k, double scale)
{
    return ag_scale(ag_matmul(q, ag_transpose(k, -2, -1)), scale);
}

/* A masked score becomes whatever its normaliser turns into a weight of 0. */
static ag_var mask_scores(const ag_attention_options *options, ag_var scores,
                          const ag_attention_mask *mask)
{
    double fill = options->normalizer == AG_LINEAR ? 0 : -INFINITY;
    if (mask && !ag_is_none(mask->additive)) {
        ag_var minus_infinity = ag_full(scores.context, AG_SCALAR, -INFINITY);
        ag_var masked = ag_equal(mask->additive, minus_infinity);
        scores = ag_masked_fill(ag_add(scores, mask->additive), masked, fill);
    }
    ag_key_mask keys = { .causal = options->causal, .lengths = mask ? mask->lengths : AG_NONE };
    return ag_mask_keys(scores, &keys, options->heads, fill);
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
static bool refuse(ag_var w, ag_var x, ag_error error, const char *why)
{
    char x_text[160], w_text[160];
    return ag_fail(x.context, error, "%s: %s does not go with %s: %s", forward_name,
                   ag_describe(x, x_text, sizeof x_text), ag_describe(w, w_text, sizeof w_text),
                   why);
}

/* x [.., tokens, d] of the dtype of the parameter w [d, ..]. */
static bool check_tokens(const ag_attention *attention, ag_var w, ag_var x)
{
    const ag_node *node = ag_node_require(w.context, forward_name, x);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (!ag_dtypes_agree(value->dtype, ag_dtype_of(w)))
        return refuse(w, x, AG_ERR_DTYPE, "their dtypes differ");
    if (value->rank < 2 || value->dims[value->rank - 1] != ag_shape_of(w).dims[0])
        return refuse(w, x, AG_ERR_SHAPE,
                      w.index == attention->w_q.index ? "x should be [.., tokens, d_in]"
                                                      : "memory should be [.., tokens, d_memory]");
    if (attention->options.heads > 1 && value->rank == AG_MAX_RANK)
        return refuse(w, x, AG_ERR_SHAPE, "no axis is left for the heads");
    return true;
}

/* The scores of x with memory: [.., s, t], for several heads [.., h, s, t]. */
static ag_shape scores_shape(ag_shape x, ag_shape memory, int64_t heads)
{
    int64_t s = x.dims[x.rank - 2], t = memory.dims[memory.rank - 2];
    if (heads > 1)
        x.dims[x.rank++ - 2] = heads;
    x.dims[x.rank - 2] = s;
    x.dims[x.rank - 1] = t;
    return x;
}

/* x and memory have the same leading axes. */
static bool check_leading_axes(ag_var x, ag_var memory)
{
    char x_text[160], text[160];
    ag_shape a = ag_shape_of(x), b = ag_shape_of(memory);
    if (ag_shape_equal(ag_shape_make(a.rank - 2, a.dims), ag_shape_make(b.rank - 2, b.dims)))
        return true;
    return ag_fail(x.context, AG_ERR_SHAPE,
                   "%s: the leading axes of %s and of the memory %s differ", forward_name,
                   ag_describe(x, x_text, sizeof x_text), ag_describe(memory, text, sizeof text));
}

/* lengths: i64, the leading axes of memory, each 0 .. t. */
static bool check_lengths(ag_context *context, ag_var lengths, ag_shape memory)
{
    const ag_node *node = ag_node_require(context, forward_name, lengths);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (value->dtype != AG_I64) {
        return ag_fail(context, AG_ERR_DTYPE, "%s: lengths should be i64, not %s", forward_name,
                       ag_dtype_name(value->dtype));
    }
    int64_t t = memory.dims[memory.rank - 2];
    ag_shape leading = ag_shape_make(memory.rank - 2, memory.dims);
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

/* additive: of x's dtype, broadcast to the scores. */
static bool check_additive(ag_context *context, ag_var additive, ag_dtype dtype, ag_shape scores)
{
    const ag_node *node = ag_node_require(context, forward_name, additive);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    if (!ag_dtypes_agree(value->dtype, dtype)) {
        return ag_fail(context, AG_ERR_DTYPE, "%s: the additive mask is %s, but x is %s",
                       forward_name, ag_dtype_name(value->dtype), ag_dtype_name(dtype));
    }
    ag_shape together;
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

static bool check_forward(const ag_attention *attention, const ag_attention_input *input)
{
    if (!attention || !attention->w_q.context || attention->options.heads < 1) {
        return ag_fail(input->x.context, AG_ERR_ARGUMENT, "%s: the layer was not initialised",
                       forward_name);
    }
    const ag_attention_mask *mask = input->mask;
    ag_context *context = attention->w_q.context;
    if (!check_tokens(attention, attention->w_q, input->x) ||
        !check_tokens(attention, attention->w_k, input->memory) ||
        !check_leading_axes(input->x, input->memory))
        return false;
    ag_shape x = ag_shape_of(input->x), memory = ag_shape_of(input->memory);
    if (mask && !ag_is_none(mask->lengths) && !check_lengths(context, mask->lengths, memory))
        return false;
    return !mask || ag_is_none(mask->additive) ||
           check_additive(context, mask->additive, ag_dtype_of(input->x),
                          scores_shape(x, memory, attention->options.heads));
}

/* ---- The layer ---- */

/* The steps from score to join, one by one. */
static ag_var attend_in_steps(const ag_attention *attention, ag_var q, ag_var k, ag_var v,
                              const ag_attention_mask *mask, ag_attention_trace *trace)
{
    const ag_attention_options *options = &attention->options;
    const int64_t heads = options->heads;
    const ag_shape shape = ag_shape_of(k);
    const int64_t t = shape.rank < 2 ? 0 : shape.dims[shape.rank - 2];
    ag_attention_trace step;
    step.q = ag_split_heads(q, heads);
    step.k = ag_split_heads(k, heads);
    step.v = ag_split_heads(v, heads);
    step.scores = mask_scores(options, score(step.q, step.k, options->scale), mask);
    step.weights = normalize(step.scores, t, options->normalizer);
    step.mixed = ag_matmul(step.weights, step.v);
    if (trace) {
        name_trace(attention, &step);
        *trace = step;
    }
    return ag_join_heads(step.mixed, heads);
}

/* The same steps in one, where nobody wants to see what lies between them. */
static ag_var attend_at_once(const ag_attention *attention, ag_var q, ag_var k, ag_var v,
                             const ag_attention_mask *mask)
{
    const ag_attention_options *o = &attention->options;
    return ag_attend(q, k, v,
                     &(ag_attend_options){ .heads = o->heads,
                                           .scale = o->scale,
                                           .causal = o->causal,
                                           .lengths = mask ? mask->lengths : AG_NONE });
}

static bool in_one(const ag_attention *attention, const ag_attention_mask *mask,
                   const ag_attention_trace *trace)
{
    return !trace && attention->options.normalizer == AG_SOFTMAX &&
           (!mask || ag_is_none(mask->additive));
}

ag_var ag_attention_forward_add(const ag_attention *attention, const ag_attention_input *input,
                                ag_attention_trace *trace)
{
    if (trace)
        *trace = (ag_attention_trace){ .q = AG_NONE };
    if (!check_forward(attention, input)) {
        bool known = attention && attention->w_q.context;
        return ag_poisoned(known ? attention->w_q.context : input->x.context);
    }
    const ag_attention_mask *mask = input->mask;
    ag_var q = ag_affine(input->x, attention->w_q, attention->b_q);
    ag_var k = ag_affine(input->memory, attention->w_k, attention->b_k);
    ag_var v = ag_affine(input->memory, attention->w_v, attention->b_v);
    ag_var out = in_one(attention, mask, trace) ? attend_at_once(attention, q, k, v, mask)
                                                : attend_in_steps(attention, q, k, v, mask, trace);
    const bool projects = attention->options.d_out > 0;
    if (ag_is_none(input->residual))
        return projects ? ag_affine(out, attention->w_o, attention->b_o) : out;
    return projects ? ag_affine_add(out, attention->w_o, attention->b_o, input->residual)
                    : ag_add(input->residual, out);
}

ag_var ag_attention_forward_cross(const ag_attention *attention, ag_var x, ag_var memory,
                                  const ag_attention_mask *mask, ag_attention_trace *trace)
{
    return ag_attention_forward_add(
        attention, &(ag_attention_input){ .x = x, .memory = memory, .mask = mask }, trace);
}

ag_var ag_attention_forward_masked(const ag_attention *attention, ag_var x,
                                   const ag_attention_mask *mask, ag_attention_trace *trace)
{
    return ag_attention_forward_cross(attention, x, x, mask, trace);
}

ag_var ag_attention_forward(const ag_attention *attention, ag_var x, ag_attention_trace *trace)
{
    return ag_attention_forward_cross(attention, x, x, NULL, trace);
}

static bool check_options(ag_context *context, const char *name, const ag_attention_options *o)
{
    static const char init_name[] = "attention_init";
    if (o->d_in < 1 || o->d_k < 1 || o->d_v < 1) {
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: d_in is %lld, d_k %lld, d_v %lld, but all must be at least 1",
                       init_name, name, (long long)o->d_in, (long long)o->d_k, (long long)o->d_v);
    }
    if (o->heads < 0 || o->d_out < 0 || o->d_memory < 0) {
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: heads is %lld, d_out %lld, d_memory %lld: negative", init_name,
                       name, (long long)o->heads, (long long)o->d_out, (long long)o->d_memory);
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
    a->w_k = ag_params_add(params, name, "w_k", AG_SHAPE(o->d_memory, keys), o->init);
    a->w_v = ag_params_add(params, name, "w_v", AG_SHAPE(o->d_memory, values), o->init);
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
    made.options.d_memory = options->d_memory > 0 ? options->d_memory : options->d_in;
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
