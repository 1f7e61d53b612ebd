/* Attention as one operation. Of one head, q [s, d], k [t, d], v [t, d_v]:
 *
 *   forward    S = scale q k^T      masked: -inf
 *              P = softmax of each row of S
 *              y = P v
 *   backward   dv = P^T dy
 *              dP = dy v^T
 *              dS = P (dP - sum of each row of P dP)
 *              dq = scale dS k
 *              dk = scale dS^T q
 *
 * The forward kernel and the fused rule never hold S or P as a whole: they go through them in
 * tiles, and forward keeps only two numbers of each row, its largest score and one over the
 * sum of exponentials, from which backward computes P again. See tensor/kernels/attention.inc.
 */
#include "internal.h"

#include <math.h>

/* Inputs: q, k, v, and lengths if they are given. */
enum { Q, K, V, LENGTHS };

/* ---- What it is composed of ---- */

ag_var ag_split_heads(ag_var x, int64_t heads)
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

ag_var ag_join_heads(ag_var x, int64_t heads)
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

/* first .. first + n - 1 */
static ag_var count_from(ag_context *context, int64_t first, int64_t n)
{
    return ag_slice(ag_arange(context, first + n), 0, first, AG_END, 1);
}

/* [s, t], 1 where j > i + t - s. In order to count in whole numbers from 0 on, s is added. */
static ag_var after_query(ag_context *context, int64_t s, int64_t t)
{
    ag_var last = count_from(context, t, s); /* i + t */
    return ag_greater(count_from(context, s, t), ag_reshape(last, AG_SHAPE(s, 1)));
}

/* [.., 1, t], 1 where j >= lengths, that is j + 1 > lengths. */
static ag_var beyond_length(ag_var lengths, int64_t t, int64_t heads)
{
    ag_shape shape = ag_shape_of(lengths);
    for (int ones = heads == 1 ? 2 : 3; ones > 0 && shape.rank >= 0; ones--)
        shape.dims[shape.rank++] = 1;
    return ag_greater(count_from(lengths.context, 1, t), ag_reshape(lengths, shape));
}

ag_var ag_mask_keys(ag_var scores, const ag_key_mask *mask, int64_t heads, double value)
{
    ag_shape shape = ag_shape_of(scores);
    if (shape.rank < 2)
        return scores; /* an error on the way here */
    int64_t s = shape.dims[shape.rank - 2], t = shape.dims[shape.rank - 1];
    if (!ag_is_none(mask->lengths))
        scores = ag_masked_fill(scores, beyond_length(mask->lengths, t, heads), value);
    if (mask->causal)
        scores = ag_masked_fill(scores, after_query(scores.context, s, t), value);
    return scores;
}

/* ---- Forward ---- */

static double scale_of(const ag_node *node)
{
    const ag_attend_options *options = ag_node_options(node);
    const ag_tensor *q = ag_node_input_value(node, Q);
    int64_t d = q->dims[q->rank - 1] / options->heads;
    return options->scale != 0 || d == 0 ? options->scale : 1 / sqrt((double)d);
}

/* Fails with "reason: q .., k .., v ..". */
static bool fail_shapes(const ag_node *node, const char *reason)
{
    char q[96], k[96], v[96];
    return ag_node_fail(node, AG_ERR_SHAPE, "%s: queries %s, keys %s, values %s", reason,
                        ag_node_describe(node, Q, q, sizeof q),
                        ag_node_describe(node, K, k, sizeof k),
                        ag_node_describe(node, V, v, sizeof v));
}

static bool same_leading_axes(const ag_tensor *a, const ag_tensor *b)
{
    return ag_shape_equal(ag_shape_make(a->rank - 2, a->dims), ag_shape_make(b->rank - 2, b->dims));
}

static bool check_operands(const ag_node *node)
{
    const int64_t heads = ((const ag_attend_options *)ag_node_options(node))->heads;
    const ag_tensor *q = ag_node_float_input(node, Q), *k = ag_node_input_value(node, K);
    const ag_tensor *v = ag_node_input_value(node, V);
    if (!q || !ag_node_same_dtype(node, Q, K) || !ag_node_same_dtype(node, Q, V))
        return false;
    if (q->rank < 2 || k->rank < 2 || v->rank < 2)
        return fail_shapes(node, "rows [.., tokens, numbers] are needed");
    const int row = q->rank - 2, column = q->rank - 1;
    if (q->rank != k->rank || q->rank != v->rank || !same_leading_axes(q, k) ||
        !same_leading_axes(q, v))
        return fail_shapes(node, "leading axes differ");
    if (q->dims[column] != k->dims[column])
        return fail_shapes(node, "queries and keys differ in size");
    if (k->dims[row] != v->dims[row])
        return fail_shapes(node, "there are not as many values as keys");
    const int64_t most = q->dims[column] > v->dims[column] ? q->dims[column] : v->dims[column];
    if (heads > 1 && (heads > most || q->dims[column] % heads || v->dims[column] % heads))
        return fail_shapes(node, "the last axes do not divide into the heads");
    return heads == 1 || q->rank < AG_MAX_RANK ||
           fail_shapes(node, "no axis is left for the heads");
}

/* The lengths, side by side, each 0 .. t; NULL if there are none. */
static bool find_lengths(const ag_node *node, ag_tensor *dense, const int64_t **lengths)
{
    char text[96], q_text[96];
    const ag_tensor *value = ag_node_input_value(node, LENGTHS), *q = ag_node_input_value(node, Q);
    const ag_tensor *k = ag_node_input_value(node, K);
    const int64_t t = k->dims[k->rank - 2];
    *lengths = NULL;
    if (!value)
        return true;
    ag_node_describe(node, LENGTHS, text, sizeof text);
    if (value->dtype != AG_I64)
        return ag_node_fail(node, AG_ERR_DTYPE, "the lengths %s are %s, not i64", text,
                            ag_dtype_name(value->dtype));
    if (!ag_shape_equal(ag_tensor_shape(value), ag_shape_make(q->rank - 2, q->dims)))
        return ag_node_fail(node, AG_ERR_SHAPE, "the lengths %s should have the leading axes of %s",
                            text, ag_node_describe(node, Q, q_text, sizeof q_text));
    if (!ag_tensor_dense(ag_node_context(node), value, dense))
        return false;
    *lengths = dense->data;
    for (int64_t i = 0; i < ag_tensor_count(value); i++)
        if ((*lengths)[i] < 0 || (*lengths)[i] > t)
            return ag_node_fail(node, AG_ERR_INDEX,
                                "length %lld at %lld of %s is outside 0 .. %lld",
                                (long long)(*lengths)[i], (long long)i, text, (long long)t);
    return true;
}

/* The operands as the kernels want them; room is for the lengths. */
static bool make_call(const ag_node *node, ag_attention_call *call, ag_tensor *room)
{
    const ag_attend_options *options = ag_node_options(node);
    *call = (ag_attention_call){ .heads = options->heads,
                                 .scale = scale_of(node),
                                 .causal = options->causal,
                                 .q = ag_node_input_value(node, Q),
                                 .k = ag_node_input_value(node, K),
                                 .v = ag_node_input_value(node, V) };
    return find_lengths(node, room, &call->lengths);
}

static void attend_forward(ag_node *node)
{
    ag_attention_call call;
    ag_tensor room;
    if (!check_operands(node) || !make_call(node, &call, &room))
        return;
    const int row = call.q->rank - 2, column = call.q->rank - 1;
    ag_shape shape = ag_tensor_shape(call.q);
    int64_t rows = ag_shape_count(ag_shape_make(column, call.q->dims));
    shape.dims[row] = call.q->dims[row];
    shape.dims[column] = call.v->dims[column];
    ag_tensor *y = ag_node_new_output(node, call.q->dtype, shape);
    ag_tensor *statistics =
        y ? ag_node_save(node, y->dtype, AG_SHAPE(rows, call.heads, AG_ATTENTION_STATISTICS))
          : NULL;
    if (statistics)
        ag_compute_attention(ag_node_context(node), &call, y, statistics);
}

/* ---- Backward ---- */

/* P [.., h, s, t] from q and k split into heads. */
static ag_var weights_of(const ag_node *node, ag_var q, ag_var k)
{
    const ag_attend_options *options = ag_node_options(node);
    ag_key_mask mask = { .causal = options->causal, .lengths = ag_node_input(node, LENGTHS) };
    ag_var scores = ag_scale(ag_matmul(q, ag_transpose(k, -2, -1)), scale_of(node));
    return ag_softmax(ag_mask_keys(scores, &mask, options->heads, -INFINITY), -1);
}

static void attend_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    const int64_t heads = ((const ag_attend_options *)ag_node_options(node))->heads;
    ag_var q = ag_split_heads(ag_node_input(node, Q), heads);
    ag_var k = ag_split_heads(ag_node_input(node, K), heads);
    ag_var v = ag_split_heads(ag_node_input(node, V), heads);
    ag_var p = weights_of(node, q, k);
    dy = ag_split_heads(dy, heads);
    if (ag_node_needs(node, V))
        dx[V] = ag_join_heads(ag_matmul(ag_transpose(p, -2, -1), dy), heads);
    if (!ag_node_needs(node, Q) && !ag_node_needs(node, K))
        return;
    ag_var dp = ag_matmul(dy, ag_transpose(v, -2, -1));
    ag_var ds = ag_mul(p, ag_sub(dp, ag_sum(ag_mul(p, dp), -1, AG_KEEP_DIM)));
    ds = ag_scale(ds, scale_of(node));
    if (ag_node_needs(node, Q))
        dx[Q] = ag_join_heads(ag_matmul(ds, k), heads);
    if (ag_node_needs(node, K))
        dx[K] = ag_join_heads(ag_matmul(ag_transpose(ds, -2, -1), q), heads);
}

static void attend_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_context *context = ag_node_context(node);
    ag_attention_call call;
    ag_tensor room, dense;
    ag_attention_gradients gradients;
    if (make_call(node, &call, &room) && ag_tensor_dense(context, ag_value(dy), &dense) &&
        ag_new_gradient(node, Q, dx, &gradients.q) && ag_new_gradient(node, K, dx, &gradients.k) &&
        ag_new_gradient(node, V, dx, &gradients.v))
        ag_compute_attention_backward(context, &call, ag_value(ag_node_output(node)),
                                      ag_node_saved(node), &dense, &gradients);
}

/* ---- The operation ---- */

const ag_op ag_op_attend = { .name = "attend",
                             .forward = attend_forward,
                             .vjp = attend_vjp,
                             .vjp_fused = attend_vjp_fused,
                             .options_size = sizeof(ag_attend_options),
                             .constant_inputs = 1u << LENGTHS };

ag_var ag_attend(ag_var q, ag_var k, ag_var v, const ag_attend_options *options)
{
    ag_attend_options own = options ? *options : (ag_attend_options){ .heads = 1 };
    int n = ag_is_none(own.lengths) ? 3 : 4;
    if (own.heads == 0)
        own.heads = 1;
    if (own.heads < 1)
        ag_fail(q.context, AG_ERR_ARGUMENT, "attend: heads is %lld, but must be at least 1",
                (long long)own.heads);
    if (!isfinite(own.scale))
        ag_fail(q.context, AG_ERR_ARGUMENT, "attend: scale is %g, but must be finite", own.scale);
    return ag_run(&ag_op_attend, (ag_var[]){ q, k, v, own.lengths }, n, &own);
}
