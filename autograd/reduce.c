/* Reductions over any axes, and the cumulative sum. y is the result, dy its
 * gradient; dy^ is dy with the reduced axes kept as 1, so that it broadcasts
 * back over x. */
#include "internal.h"

typedef struct reduce_options {
    unsigned axes; /* a set: bit i for axis i */
    bool keep;
} reduce_options;

static reduce_options options_of(const ag_node *node)
{
    return *(const reduce_options *)ag_node_options(node);
}

static ag_var reduce(const ag_op *op, ag_var x, const int *axes, int n, unsigned flags)
{
    reduce_options options = { .keep = flags & AG_KEEP_DIM };
    ag_node *node = ag_node_require(x.context, op->name, x);
    if (flags & ~(unsigned)AG_KEEP_DIM)
        ag_fail(x.context, AG_ERR_ARGUMENT, "%s: unknown flags %u", op->name, flags);
    if (!node || x.context->error || !ag_axes_set(x, op->name, axes, n, &options.axes))
        return ag_poisoned(x.context);
    return ag_run(op, &x, 1, &options);
}

/* In forward: allocates the output of a reduction of input 0. */
static ag_tensor *reduced_output(ag_node *node, const ag_tensor **x)
{
    reduce_options options = options_of(node);
    *x = ag_node_float_input(node, 0);
    if (!*x)
        return NULL;
    ag_shape shape = ag_shape_reduced(ag_tensor_shape(*x), options.axes, options.keep);
    return ag_node_new_output(node, (*x)->dtype, shape);
}

/* v, shaped like the node's output, with the reduced axes as 1. */
static ag_var with_axes_kept(const ag_node *node, ag_var v)
{
    ag_shape shape = ag_shape_of(ag_node_input(node, 0));
    return ag_reshape(v, ag_shape_reduced(shape, options_of(node).axes, true));
}

/* ---- y = sum of x     dx = dy^ ---- */

static void sum_forward(ag_node *node)
{
    const ag_tensor *x;
    ag_tensor *y = reduced_output(node, &x);
    if (y)
        ag_compute_reduce(ag_node_context(node), AG_REDUCE_SUM, x, options_of(node).axes, y);
}

static void sum_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_broadcast_to(with_axes_kept(node, dy), ag_shape_of(ag_node_input(node, 0)));
}

const ag_op ag_op_sum = {
    .name = "sum", .forward = sum_forward, .vjp = sum_vjp, .options_size = sizeof(reduce_options)
};

ag_var ag_sum_over(ag_var x, const int *axes, int n, unsigned flags)
{
    return reduce(&ag_op_sum, x, axes, n, flags);
}

ag_var ag_sum(ag_var x, int axis, unsigned flags)
{
    return ag_sum_over(x, &axis, 1, flags);
}

/* ---- mean: the sum, divided by how many there are ---- */

ag_var ag_mean_over(ag_var x, const int *axes, int n, unsigned flags)
{
    ag_var sum = ag_sum_over(x, axes, n, flags);
    double count = (double)ag_shape_count(ag_shape_of(x));
    double results = (double)ag_shape_count(ag_shape_of(sum));
    return ag_scale(sum, results / count);
}

ag_var ag_mean(ag_var x, int axis, unsigned flags)
{
    return ag_mean_over(x, &axis, 1, flags);
}

/* ---- y = max of x     dx = w dy^ / sum of w, with w = 1 where x = y^, else 0 ---- */

static void max_forward(ag_node *node)
{
    const ag_tensor *x;
    char text[160];
    ag_tensor *y = reduced_output(node, &x);
    if (!y)
        return;
    if (ag_tensor_count(x) == 0 && ag_tensor_count(y) > 0)
        ag_node_fail(node, AG_ERR_SHAPE, "of no elements: %s",
                     ag_node_describe(node, 0, text, sizeof text));
    else
        ag_compute_reduce(ag_node_context(node), AG_REDUCE_MAX, x, options_of(node).axes, y);
}

static void max_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0), y = with_axes_kept(node, ag_node_output(node));
    ag_var w = ag_equal(x, y);
    ag_var winners = ag_sum_to(w, ag_shape_of(y));
    dx[0] = ag_mul(w, ag_div(with_axes_kept(node, dy), winners));
}

static void max_branches(const ag_node *node)
{
    const ag_tensor *x = ag_input_value(node, 0);
    ag_tensor y;
    if (ag_tensor_reshape(ag_node_context(node), &node->value,
                          ag_shape_reduced(ag_tensor_shape(x), options_of(node).axes, true), &y))
        ag_branches_note_winners(node, x, &y);
}

const ag_op ag_op_max = { .name = "max",
                          .forward = max_forward,
                          .vjp = max_vjp,
                          .options_size = sizeof(reduce_options),
                          .branches = max_branches };

ag_var ag_max_over(ag_var x, const int *axes, int n, unsigned flags)
{
    return reduce(&ag_op_max, x, axes, n, flags);
}

ag_var ag_max(ag_var x, int axis, unsigned flags)
{
    return ag_max_over(x, &axis, 1, flags);
}

/* ---- y = log sum exp x     dx = softmax(x) dy^ ---- */

/* The axes that stay, in order, and then the others; *inner is the product of
 * the latter's sizes. */
static int axes_last(ag_shape shape, unsigned axes, int *order, int64_t *inner)
{
    int n = 0;
    *inner = 1;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < shape.rank; i++)
            if ((int)(axes >> i & 1) == pass) {
                order[n++] = i;
                *inner *= pass ? shape.dims[i] : 1;
            }
    return n;
}

static void logsumexp_forward(ag_node *node)
{
    const ag_tensor *x;
    ag_context *context = ag_node_context(node);
    ag_tensor *y = reduced_output(node, &x);
    if (!y)
        return;
    int order[AG_MAX_RANK];
    int64_t inner;
    axes_last(ag_tensor_shape(x), options_of(node).axes, order, &inner);
    ag_tensor moved, rows, dense, flat = *y;
    if (!ag_tensor_permute(context, x, order, &moved) || !ag_tensor_dense(context, &moved, &dense))
        return;
    int64_t count = ag_tensor_count(y);
    rows = ag_tensor_over(dense.data, x->dtype, AG_SHAPE(count, inner));
    flat = ag_tensor_over(y->data, y->dtype, AG_SHAPE(count));
    ag_compute_softmax(context, AG_ROWS_LOGSUMEXP, &rows, &flat);
}

static void logsumexp_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var p = ag_softmax_over(ag_node_input(node, 0), options_of(node).axes);
    dx[0] = ag_mul(p, with_axes_kept(node, dy));
}

const ag_op ag_op_logsumexp = { .name = "logsumexp",
                                .forward = logsumexp_forward,
                                .vjp = logsumexp_vjp,
                                .options_size = sizeof(reduce_options) };

ag_var ag_logsumexp_over(ag_var x, const int *axes, int n, unsigned flags)
{
    return reduce(&ag_op_logsumexp, x, axes, n, flags);
}

ag_var ag_logsumexp(ag_var x, int axis, unsigned flags)
{
    return ag_logsumexp_over(x, &axis, 1, flags);
}

/* The axes are moved to the end, joined to rows, and moved back afterwards. */
ag_var ag_softmax_over(ag_var x, unsigned axes)
{
    ag_shape shape = ag_shape_of(x);
    int order[AG_MAX_RANK], back[AG_MAX_RANK];
    int64_t inner, outer = 1;
    if (!ag_is_valid(x))
        return ag_softmax(x, -1);
    axes_last(shape, axes, order, &inner);
    for (int i = 0; i < shape.rank; i++) {
        back[order[i]] = i;
        if (!(axes >> i & 1))
            outer *= shape.dims[i];
    }
    ag_var moved = ag_permute(x, order, shape.rank);
    ag_var p = ag_softmax(ag_reshape(moved, AG_SHAPE(outer, inner)), -1);
    return ag_permute(ag_reshape(p, ag_shape_of(moved)), back, shape.rank);
}

/* ---- y_i = x_0 + .. + x_i     dx_i = dy_i + .. + dy_last: the sum from the other end ---- */

static void cumsum_forward(ag_node *node)
{
    int axis = *(const int *)ag_node_options(node);
    const ag_tensor *x = ag_node_float_input(node, 0);
    ag_tensor *y = x ? ag_node_output_like(node, x) : NULL;
    if (y)
        ag_compute_cumsum(ag_node_context(node), x, axis, y);
}

static void cumsum_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    int axis = *(const int *)ag_node_options(node);
    dx[0] = ag_flip(ag_cumsum(ag_flip(dy, axis), axis), axis);
}

const ag_op ag_op_cumsum = {
    .name = "cumsum", .forward = cumsum_forward, .vjp = cumsum_vjp, .options_size = sizeof(int)
};

static ag_var along_axis(const ag_op *op, ag_var x, int axis)
{
    ag_node *node = ag_node_require(x.context, op->name, x);
    axis = node ? ag_axis_of(x, op->name, axis, node->value.rank) : -1;
    return axis < 0 ? ag_poisoned(x.context) : ag_run(op, &x, 1, &axis);
}

ag_var ag_cumsum(ag_var x, int axis)
{
    return along_axis(&ag_op_cumsum, x, axis);
}

/* ---- The index of the maximum: no gradient ---- */

static void argmax_forward(ag_node *node)
{
    int axis = *(const int *)ag_node_options(node);
    char text[160];
    const ag_tensor *x = ag_node_float_input(node, 0);
    if (!x)
        return;
    ag_shape shape = ag_shape_reduced(ag_tensor_shape(x), 1u << axis, false);
    if (x->dims[axis] == 0) {
        ag_node_fail(node, AG_ERR_SHAPE, "of no elements: %s",
                     ag_node_describe(node, 0, text, sizeof text));
        return;
    }
    ag_tensor *y = ag_node_new_output(node, AG_I64, shape);
    if (y)
        ag_compute_argmax(ag_node_context(node), x, axis, y);
}

const ag_op ag_op_argmax = { .name = "argmax",
                             .forward = argmax_forward,
                             .options_size = sizeof(int),
                             .branches = ag_branches_by_result };

ag_var ag_argmax(ag_var x, int axis)
{
    return along_axis(&ag_op_argmax, x, axis);
}
