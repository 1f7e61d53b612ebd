/* Joining several variables along an axis. */
#include "internal.h"

/* ---- concat           dx_i = the part of dy that x_i became ---- */

/* The joined shape; false with the error recorded. */
static bool concat_shape(const ag_node *node, int axis, ag_shape *shape)
{
    char first[160], other[160];
    const ag_tensor *x = ag_node_input_value(node, 0);
    *shape = ag_tensor_shape(x);
    for (int i = 1; i < ag_node_input_count(node); i++) {
        const ag_tensor *y = ag_node_input_value(node, i);
        bool fits = y->rank == x->rank;
        for (int k = 0; fits && k < x->rank; k++)
            fits = k == axis || y->dims[k] == x->dims[k];
        if (!fits)
            return ag_node_fail(node, AG_ERR_SHAPE, "shapes do not fit along axis %d: %s and %s",
                                axis, ag_node_describe(node, 0, first, sizeof first),
                                ag_node_describe(node, i, other, sizeof other));
        if (!ag_node_same_dtype(node, 0, i))
            return false;
        if (shape->dims[axis] > INT64_MAX - y->dims[axis])
            return ag_node_fail(node, AG_ERR_MEMORY, "the joined axis is too long");
        shape->dims[axis] += y->dims[axis];
    }
    return true;
}

static void concat_forward(ag_node *node)
{
    int axis = *(const int *)ag_node_options(node);
    ag_context *context = ag_node_context(node);
    ag_shape shape;
    if (!concat_shape(node, axis, &shape))
        return;
    ag_tensor *y = ag_node_new_output(node, ag_node_input_value(node, 0)->dtype, shape), part;
    int64_t start = 0;
    for (int i = 0; y && i < ag_node_input_count(node); i++) {
        const ag_tensor *x = ag_node_input_value(node, i);
        if (!ag_tensor_slice(context, y, axis, start, start + x->dims[axis], 1, &part) ||
            !ag_tensor_copy(context, &part, x))
            return;
        start += x->dims[axis];
    }
}

static void concat_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    int axis = *(const int *)ag_node_options(node);
    int64_t start = 0;
    for (int i = 0; i < ag_node_input_count(node); i++) {
        int64_t size = ag_node_input_value(node, i)->dims[axis];
        if (ag_node_needs(node, i))
            dx[i] = ag_slice(dy, axis, start, start + size, 1);
        start += size;
    }
}

const ag_op ag_op_concat = {
    .name = "concat", .forward = concat_forward, .vjp = concat_vjp, .options_size = sizeof(int)
};

ag_var ag_concat(const ag_var *x, int n, int axis)
{
    if (!x || n < 1)
        return AG_NONE;
    ag_node *node = ag_node_find(x[0]);
    if (node && !x[0].context->error) {
        axis = ag_axis_of(x[0], "concat", axis, node->value.rank);
        if (axis < 0)
            return ag_poisoned(x[0].context);
    }
    return ag_run(&ag_op_concat, x, n, &axis);
}

/* x[i] can be stacked with x[0]: valid, and of its shape. */
static bool stacks(ag_context *context, const ag_var *x, int i)
{
    char first[160], other[160];
    if (!ag_node_require(context, "stack", x[i]))
        return false;
    if (ag_shape_equal(ag_shape_of(x[i]), ag_shape_of(x[0])))
        return true;
    return ag_fail(context, AG_ERR_SHAPE, "stack: shapes differ: %s and %s",
                   ag_describe(x[0], first, sizeof first), ag_describe(x[i], other, sizeof other));
}

/* A new axis in each, then joined along it. */
ag_var ag_stack(const ag_var *x, int n, int axis)
{
    ag_context *context = NULL;
    for (int i = 0; x && i < n && !context; i++)
        context = x[i].context;
    if (!context)
        return AG_NONE;
    for (int i = 0; i < n; i++)
        if (!stacks(context, x, i))
            return ag_poisoned(context);
    axis = ag_axis_of(x[0], "stack", axis, ag_shape_of(x[0]).rank + 1);
    ag_var *parts = axis < 0 ? NULL : ag_memory_new(context, AG_STEP, (size_t)n * sizeof *parts);
    if (!parts)
        return ag_poisoned(context);
    for (int i = 0; i < n; i++)
        parts[i] = ag_unsqueeze(x[i], axis);
    return ag_concat(parts, n, axis);
}
