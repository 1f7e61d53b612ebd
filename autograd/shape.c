/* Operations that only move numbers. The backward rule of each is the opposite
 * move: where an element went to several places, their gradients are added;
 * where it was left out, its gradient is 0. */
#include "internal.h"

#include <string.h>

/* ---- permute          dx = dy, permuted back ---- */

typedef struct permute_options {
    int order[AG_MAX_RANK];
} permute_options;

static void permute_forward(ag_node *node)
{
    const permute_options *options = ag_node_options(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor view;
    if (ag_tensor_permute(ag_node_context(node), x, options->order, &view))
        ag_node_set_view(node, &view);
}

static void permute_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    const permute_options *options = ag_node_options(node);
    int back[AG_MAX_RANK], rank = ag_shape_of(dy).rank;
    for (int i = 0; i < rank; i++)
        back[options->order[i]] = i;
    dx[0] = ag_permute(dy, back, rank);
}

const ag_op ag_op_permute = { .name = "permute",
                              .forward = permute_forward,
                              .vjp = permute_vjp,
                              .options_size = sizeof(permute_options) };

ag_var ag_permute(ag_var x, const int *order, int n)
{
    char text[160];
    permute_options options = { { 0 } };
    ag_node *node = ag_node_require(x.context, "permute", x);
    if (!node)
        return ag_poisoned(x.context);
    if (n != node->value.rank || (n > 0 && !order)) {
        ag_fail(x.context, AG_ERR_INDEX, "permute: an order of %d axes for %s", n,
                ag_describe(x, text, sizeof text));
        return ag_poisoned(x.context);
    }
    for (int i = 0; i < n; i++) {
        options.order[i] = ag_axis_of(x, "permute", order[i], n);
        if (options.order[i] < 0)
            return ag_poisoned(x.context);
    }
    return ag_run(&ag_op_permute, &x, 1, &options);
}

ag_var ag_transpose(ag_var x, int axis_a, int axis_b)
{
    int order[AG_MAX_RANK];
    ag_node *node = ag_node_require(x.context, "transpose", x);
    int rank = node ? node->value.rank : 0;
    int a = node ? ag_axis_of(x, "transpose", axis_a, rank) : -1;
    int b = a < 0 ? -1 : ag_axis_of(x, "transpose", axis_b, rank);
    if (b < 0)
        return ag_poisoned(x.context);
    for (int i = 0; i < rank; i++)
        order[i] = i == a ? b : i == b ? a : i;
    return ag_permute(x, order, rank);
}

/* ---- reshape          dx = dy, in x's shape ---- */

static void reshape_forward(ag_node *node)
{
    const ag_shape *shape = ag_node_options(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor view;
    if (!ag_tensor_reshape(ag_node_context(node), x, *shape, &view))
        return;
    ag_node_set_view(node, &view);
    node->owns_data = view.data != x->data; /* it was copied */
}

static void reshape_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_reshape(dy, ag_shape_of(ag_node_input(node, 0)));
}

const ag_op ag_op_reshape = { .name = "reshape",
                              .forward = reshape_forward,
                              .vjp = reshape_vjp,
                              .options_size = sizeof(ag_shape) };

ag_var ag_reshape(ag_var x, ag_shape shape)
{
    return ag_run(&ag_op_reshape, &x, 1, &shape);
}

ag_var ag_squeeze(ag_var x, int axis)
{
    char text[160];
    ag_node *node = ag_node_require(x.context, "squeeze", x);
    axis = node ? ag_axis_of(x, "squeeze", axis, node->value.rank) : -1;
    if (axis < 0)
        return ag_poisoned(x.context);
    if (node->value.dims[axis] != 1) {
        ag_fail(x.context, AG_ERR_SHAPE, "squeeze: axis %d of %s does not have size 1", axis,
                ag_describe(x, text, sizeof text));
        return ag_poisoned(x.context);
    }
    return ag_reshape(x, ag_shape_reduced(ag_tensor_shape(&node->value), 1u << axis, false));
}

ag_var ag_unsqueeze(ag_var x, int axis)
{
    char text[160];
    ag_node *node = ag_node_require(x.context, "unsqueeze", x);
    int rank = node ? node->value.rank : 0;
    axis = node ? ag_axis_of(x, "unsqueeze", axis, rank + 1) : -1;
    if (axis < 0)
        return ag_poisoned(x.context);
    if (rank == AG_MAX_RANK) {
        ag_fail(x.context, AG_ERR_SHAPE, "unsqueeze: %s has all the axes there can be",
                ag_describe(x, text, sizeof text));
        return ag_poisoned(x.context);
    }
    ag_shape shape = { .rank = rank + 1 };
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = i == axis ? 1 : node->value.dims[i < axis ? i : i - 1];
    return ag_reshape(x, shape);
}

/* ---- slice            dx = dy in the places it came from, 0 elsewhere ---- */

typedef struct slice_options {
    int axis;
    int64_t start, stop, step;
    int64_t size; /* of x's axis: what unslice restores */
} slice_options;

static void slice_forward(ag_node *node)
{
    const slice_options *s = ag_node_options(node);
    ag_tensor view;
    if (ag_tensor_slice(ag_node_context(node), ag_node_input_value(node, 0), s->axis, s->start,
                        s->stop, s->step, &view))
        ag_node_set_view(node, &view);
}

static void slice_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_run(&ag_op_unslice, &dy, 1, ag_node_options(node));
}

const ag_op ag_op_slice = { .name = "slice",
                            .forward = slice_forward,
                            .vjp = slice_vjp,
                            .options_size = sizeof(slice_options) };

ag_var ag_slice(ag_var x, int axis, int64_t start, int64_t stop, int64_t step)
{
    ag_node *node = ag_node_require(x.context, "slice", x);
    axis = node ? ag_axis_of(x, "slice", axis, node->value.rank) : -1;
    if (axis < 0)
        return ag_poisoned(x.context);
    slice_options options = { axis, start, stop, step, node->value.dims[axis] };
    return ag_run(&ag_op_slice, &x, 1, &options);
}

/* The opposite of slice: zeros with x in the places of the slice. */
static void unslice_forward(ag_node *node)
{
    const slice_options *s = ag_node_options(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_context *context = ag_node_context(node);
    ag_shape shape = ag_tensor_shape(x);
    shape.dims[s->axis] = s->size;
    ag_tensor *y = ag_node_new_output(node, x->dtype, shape), places;
    if (!y)
        return;
    memset(y->data, 0, ag_tensor_bytes(y));
    if (ag_tensor_slice(context, y, s->axis, s->start, s->stop, s->step, &places))
        ag_tensor_copy(context, &places, x);
}

static void unslice_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_run(&ag_op_slice, &dy, 1, ag_node_options(node));
}

const ag_op ag_op_unslice = { .name = "unslice",
                              .forward = unslice_forward,
                              .vjp = unslice_vjp,
                              .options_size = sizeof(slice_options) };

/* ---- flip             dx = dy, flipped ---- */

static void flip_forward(ag_node *node)
{
    ag_tensor view;
    if (ag_tensor_flip(ag_node_context(node), ag_node_input_value(node, 0),
                       *(const int *)ag_node_options(node), &view))
        ag_node_set_view(node, &view);
}

static void flip_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_flip(dy, *(const int *)ag_node_options(node));
}

const ag_op ag_op_flip = {
    .name = "flip", .forward = flip_forward, .vjp = flip_vjp, .options_size = sizeof(int)
};

ag_var ag_flip(ag_var x, int axis)
{
    ag_node *node = ag_node_require(x.context, "flip", x);
    axis = node ? ag_axis_of(x, "flip", axis, node->value.rank) : -1;
    return axis < 0 ? ag_poisoned(x.context) : ag_run(&ag_op_flip, &x, 1, &axis);
}

/* ---- broadcast_to     dx = dy, summed to x's shape
 *      sum_to           dx = dy, broadcast to x's shape ---- */

static void broadcast_to_forward(ag_node *node)
{
    char text[160], shape_text[128];
    const ag_shape *shape = ag_node_options(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_shape both;
    ag_tensor view;
    if (!ag_shape_broadcast(ag_tensor_shape(x), *shape, &both) || !ag_shape_equal(both, *shape))
        ag_node_fail(node, AG_ERR_SHAPE, "%s does not broadcast to %s",
                     ag_node_describe(node, 0, text, sizeof text),
                     ag_shape_text(*shape, shape_text, sizeof shape_text));
    else if (ag_tensor_broadcast(ag_node_context(node), x, *shape, &view))
        ag_node_set_view(node, &view);
}

static void broadcast_to_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_unbroadcast(dy, ag_node_input(node, 0));
}

const ag_op ag_op_broadcast_to = { .name = "broadcast_to",
                                   .forward = broadcast_to_forward,
                                   .vjp = broadcast_to_vjp,
                                   .options_size = sizeof(ag_shape) };

ag_var ag_broadcast_to(ag_var x, ag_shape shape)
{
    return ag_run(&ag_op_broadcast_to, &x, 1, &shape);
}

static void sum_to_forward(ag_node *node)
{
    char text[160], shape_text[128];
    const ag_shape *shape = ag_node_options(node);
    const ag_tensor *x = ag_node_float_input(node, 0);
    ag_shape both;
    if (!x)
        return;
    if (!ag_shape_broadcast(ag_tensor_shape(x), *shape, &both) ||
        !ag_shape_equal(both, ag_tensor_shape(x))) {
        ag_node_fail(node, AG_ERR_SHAPE, "%s is no broadcast of %s",
                     ag_node_describe(node, 0, text, sizeof text),
                     ag_shape_text(*shape, shape_text, sizeof shape_text));
        return;
    }
    unsigned axes = 0;
    for (int i = 0; i < x->rank; i++) {
        int j = i - (x->rank - shape->rank);
        if (j < 0 || shape->dims[j] != x->dims[i])
            axes |= 1u << i;
    }
    ag_tensor *y = ag_node_new_output(node, x->dtype, *shape);
    if (y)
        ag_compute_reduce(ag_node_context(node), AG_REDUCE_SUM, x, axes, y);
}

static void sum_to_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_broadcast_to(dy, ag_shape_of(ag_node_input(node, 0)));
}

const ag_op ag_op_sum_to = {
    .name = "sum_to", .forward = sum_to_forward, .vjp = sum_to_vjp, .options_size = sizeof(ag_shape)
};

ag_var ag_sum_to(ag_var x, ag_shape shape)
{
    return ag_run(&ag_op_sum_to, &x, 1, &shape);
}

/* ---- contiguous       dx = dy ---- */

static void contiguous_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor dense;
    if (!ag_tensor_dense(ag_node_context(node), x, &dense))
        return;
    ag_node_set_view(node, &dense);
    node->owns_data = dense.data != x->data;
}

static void contiguous_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

const ag_op ag_op_contiguous = { .name = "contiguous",
                                 .forward = contiguous_forward,
                                 .vjp = contiguous_vjp };

ag_var ag_contiguous(ag_var x)
{
    ag_node *node = ag_node_find(x);
    if (node && !x.context->error && ag_tensor_is_contiguous(&node->value))
        return x;
    return ag_run(&ag_op_contiguous, &x, 1, NULL);
}
