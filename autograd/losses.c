/* Losses: one number that says how wrong an answer is. */
#include "internal.h"

#include <string.h>

/* ---- Cross-entropy from logits x [.., classes] and labels t [..]
 *
 *   forward    loss = sum_i w_i (log sum_c exp x_ic - x_i,t_i)
 *   backward   dx_ic = w_i (p_ic - [c = t_i]) dloss,    p_i = softmax x_i
 *
 * with w_i = 0 for ignored rows, otherwise 1 for the sum and 1 / (rows that
 * count) for the mean.
 */

/* The label of rows that are left out, or NULL. */
static const int64_t *ignored(const ag_cross_entropy_options *options)
{
    return options->ignore ? &options->ignore_index : NULL;
}

/* w of a row that counts; 0 if there is none. */
static double row_weight(const ag_cross_entropy_options *options, const ag_tensor *labels)
{
    int64_t rows = ag_tensor_count(labels), n = 0;
    for (int64_t i = 0; i < rows; i++)
        n += !options->ignore || ((const int64_t *)labels->data)[i] != options->ignore_index;
    if (n == 0)
        return 0.0;
    return options->reduction == AG_SUM ? 1.0 : 1.0 / (double)n;
}

static bool check_operands(const ag_node *node)
{
    char text[160], label_text[160];
    const ag_tensor *x = ag_node_float_input(node, 0), *labels = ag_node_input_value(node, 1);
    if (!x)
        return false;
    if (labels->dtype != AG_I64)
        return ag_node_fail(node, AG_ERR_DTYPE, "the labels %s are %s, not i64",
                            ag_node_describe(node, 1, label_text, sizeof label_text),
                            ag_dtype_name(labels->dtype));
    if (x->rank < 1 ||
        !ag_shape_equal(ag_shape_make(x->rank - 1, x->dims), ag_tensor_shape(labels)))
        return ag_node_fail(node, AG_ERR_SHAPE,
                            "logits %s need labels of that shape without its last axis, not %s",
                            ag_node_describe(node, 0, text, sizeof text),
                            ag_node_describe(node, 1, label_text, sizeof label_text));
    return true;
}

/* Both operands as dense rows. */
static bool dense_operands(const ag_node *node, ag_tensor *x, ag_tensor *labels)
{
    ag_context *context = ag_node_context(node);
    if (!ag_tensor_dense(context, ag_node_input_value(node, 0), x) ||
        !ag_tensor_dense(context, ag_node_input_value(node, 1), labels))
        return false;
    int64_t rows = ag_tensor_count(labels), classes = x->dims[x->rank - 1];
    *x = ag_tensor_over(x->data, x->dtype, AG_SHAPE(rows, classes));
    *labels = ag_tensor_over(labels->data, labels->dtype, AG_SHAPE(rows));
    return true;
}

static void cross_entropy_forward(ag_node *node)
{
    ag_context *context = ag_node_context(node);
    ag_tensor x, labels, losses, *kept, *y;
    const ag_cross_entropy_options *options = ag_node_options(node);
    if (!check_operands(node) || !dense_operands(node, &x, &labels) ||
        !ag_tensor_allocate(context, AG_STEP, x.dtype, ag_tensor_shape(&labels), &losses))
        return;
    kept = ag_node_save(node, x.dtype, AG_SHAPE(labels.dims[0], 2));
    if (!kept || !ag_compute_cross_entropy(context, &x, &labels, ignored(options), &losses, kept))
        return;
    y = ag_node_new_output(node, x.dtype, AG_SCALAR);
    if (!y || !ag_compute_reduce(context, AG_REDUCE_SUM, &losses, 1u, y))
        return;
    double weight = row_weight(options, &labels);
    ag_complex loss = { ag_tensor_at(y, 0) * weight, ag_tensor_imaginary_at(y, 0) * weight };
    ag_tensor_put_complex(y, 0, weight > 0.0 ? loss : (ag_complex){ 0.0, 0.0 });
    ag_memory_recycle(context, losses.data, (size_t)labels.dims[0] * ag_dtype_size(x.dtype));
}

/* w_i [c = t_i] and w_i as constants, [.., classes] and [.., 1]. */
static bool target_weights(const ag_node *node, ag_var *targets, ag_var *weights)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    ag_context *context = ag_node_context(node);
    ag_shape shape = ag_shape_of(ag_node_input(node, 0));
    ag_shape column = ag_shape_reduced(shape, 1u << (shape.rank - 1), true);
    ag_tensor x, labels, t, w;
    if (!dense_operands(node, &x, &labels) ||
        !ag_tensor_allocate(context, AG_STEP, x.dtype, shape, &t) ||
        !ag_tensor_allocate(context, AG_STEP, x.dtype, column, &w))
        return false;
    memset(t.data, 0, ag_tensor_bytes(&t));
    double weight = row_weight(options, &labels);
    for (int64_t i = 0; i < labels.dims[0]; i++) {
        int64_t label = ((const int64_t *)labels.data)[i];
        bool counts = !options->ignore || label != options->ignore_index;
        ag_tensor_put(&w, i, counts ? weight : 0.0);
        if (counts)
            ag_tensor_put(&t, i * x.dims[1] + label, weight);
    }
    *targets = ag_leaf(context, &t, true);
    *weights = ag_leaf(context, &w, true);
    return true;
}

static void cross_entropy_vjp(const ag_node *node, ag_var dloss, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0), targets, weights;
    if (!ag_node_needs(node, 0) || !target_weights(node, &targets, &weights))
        return;
    /* Whatever an ignored row holds, even a NaN, must not matter. */
    ag_var ignored_rows = ag_equal(weights, ag_scalar_like(weights, 0.0));
    ag_var p = ag_softmax(ag_masked_fill(x, ignored_rows, 0.0), -1);
    dx[0] = ag_mul(ag_sub(ag_mul(weights, p), targets), dloss);
}

static void cross_entropy_vjp_fused(const ag_node *node, ag_var dloss, ag_var *dx)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    ag_context *context = ag_node_context(node);
    ag_tensor x, labels, *result;
    if (!ag_node_needs(node, 0) || !dense_operands(node, &x, &labels))
        return;
    dx[0] = ag_empty_like(ag_node_input(node, 0), &result);
    if (!result)
        return;
    ag_tensor rows = ag_tensor_over(result->data, x.dtype, ag_tensor_shape(&x));
    ag_compute_cross_entropy_backward(context, &x, &labels, ignored(options), ag_node_saved(node),
                                      row_weight(options, &labels) * ag_item(dloss), &rows);
}

const ag_op ag_op_cross_entropy = { .name = "cross_entropy",
                                    .forward = cross_entropy_forward,
                                    .vjp = cross_entropy_vjp,
                                    .vjp_fused = cross_entropy_vjp_fused,
                                    .options_size = sizeof(ag_cross_entropy_options) };

ag_var ag_cross_entropy_with(ag_var logits, ag_var labels, const ag_cross_entropy_options *options)
{
    const ag_cross_entropy_options defaults = { 0 };
    if (!options)
        options = &defaults;
    if (options->reduction != AG_MEAN && options->reduction != AG_SUM)
        ag_fail(logits.context, AG_ERR_ARGUMENT, "cross_entropy: an unknown reduction");
    return ag_run(&ag_op_cross_entropy, (ag_var[]){ logits, labels }, 2, options);
}

ag_var ag_cross_entropy(ag_var logits, ag_var labels)
{
    return ag_cross_entropy_with(logits, labels, NULL);
}

/* ---- The others are compositions ---- */

/* Both operands of one shape; a mean over broadcast ones would hide a mistake. */
static bool same_shape(const char *operation, ag_var a, ag_var b)
{
    char left[160], right[160];
    ag_context *context = a.context ? a.context : b.context;
    if (!ag_node_require(context, operation, a) || !ag_node_require(context, operation, b))
        return false;
    if (ag_shape_equal(ag_shape_of(a), ag_shape_of(b)))
        return true;
    return ag_fail(context, AG_ERR_SHAPE, "%s: shapes differ: %s and %s", operation,
                   ag_describe(a, left, sizeof left), ag_describe(b, right, sizeof right));
}

ag_var ag_binary_cross_entropy(ag_var logits, ag_var targets, ag_reduction reduction)
{
    if (!same_shape("binary_cross_entropy", logits, targets))
        return ag_poisoned(logits.context ? logits.context : targets.context);
    if (reduction != AG_MEAN && reduction != AG_SUM) {
        ag_fail(logits.context, AG_ERR_ARGUMENT, "binary_cross_entropy: an unknown reduction");
        return ag_poisoned(logits.context);
    }
    ag_var if_one = ag_softplus(ag_neg(logits)), if_zero = ag_softplus(logits);
    ag_var not_target = ag_shift(ag_neg(targets), 1.0);
    ag_var losses = ag_add(ag_mul(targets, if_one), ag_mul(not_target, if_zero));
    return reduction == AG_SUM ? ag_sum(losses, AG_ALL, 0) : ag_mean(losses, AG_ALL, 0);
}

ag_var ag_mean_squared_error(ag_var x, ag_var target)
{
    if (!same_shape("mean_squared_error", x, target))
        return ag_poisoned(x.context ? x.context : target.context);
    return ag_mean(ag_square(ag_sub(x, target)), AG_ALL, 0);
}
