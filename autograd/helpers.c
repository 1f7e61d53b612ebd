/* Helpers of the operations: what several forward calls or rules share. */
#include "walk.h"

/* ---- In forward ---- */

char *ag_node_describe(const ag_node *node, int i, char *text, size_t size)
{
    return ag_describe(ag_node_input(node, i), text, size);
}

const ag_tensor *ag_node_refuse_input(const ag_node *node, int i)
{
    char text[160];
    ag_node_fail(node, AG_ERR_DTYPE, "%s is %s, not f32 or f64",
                 ag_node_describe(node, i, text, sizeof text),
                 ag_dtype_name(ag_input_value(node, i)->dtype));
    return NULL;
}

bool ag_node_refuse_complex(const ag_node *node)
{
    ag_node_context(node)->tape->not_complex = node->op->name;
    return ag_node_fail(node, AG_ERR_DTYPE, "has no complex form");
}

ag_tensor *ag_node_output_like(ag_node *node, const ag_tensor *x)
{
    if (!ag_tensor_allocate_like(node->self.context, AG_STEP, x, &node->value))
        return NULL;
    node->owns_data = true;
    return &node->value;
}

ag_tensor *ag_node_output_dims(ag_node *node, ag_dtype dtype, int rank, const int64_t *dims)
{
    if (!ag_tensor_allocate_dims(node->self.context, AG_STEP, dtype, rank, dims, &node->value))
        return NULL;
    node->owns_data = true;
    return &node->value;
}

void ag_node_unary(ag_node *node, ag_unary kind, double parameter)
{
    const ag_tensor *x = ag_node_float_input(node, 0);
    if (x && x->dtype == AG_C128 && !ag_unary_has_complex_form(kind)) {
        ag_node_refuse_complex(node);
        return;
    }
    ag_tensor *y = x ? ag_node_output_like(node, x) : NULL;
    if (y)
        ag_compute_unary(ag_node_context(node), kind, parameter, x, y);
}

ag_tensor *ag_node_save(ag_node *node, ag_dtype dtype, ag_shape shape)
{
    ag_context *context = ag_node_context(node);
    ag_tensor *saved = ag_memory_new(context, AG_STEP, sizeof *saved);
    if (!saved || !ag_tensor_allocate(context, AG_STEP, dtype, shape, saved))
        return NULL;
    return node->saved = saved;
}

const ag_tensor *ag_node_saved(const ag_node *node)
{
    return node->saved;
}

void ag_node_release_saved(const ag_node *node)
{
    ag_node *mutable = ag_node_behind(node->self);
    ag_context *context = node->self.context;
    if (!context->tape->walk || !context->tape->walk->releases || !node->saved)
        return;
    ag_memory_recycle(context, node->saved->data, ag_tensor_bytes(node->saved));
    mutable->saved = NULL;
}

bool ag_node_fail_operands(const ag_node *node, ag_error error, const char *reason, int i,
                           const char *joint, int j)
{
    char left[160], right[160];
    return ag_node_fail(node, error, "%s: %s%s%s", reason,
                        ag_node_describe(node, i, left, sizeof left), joint,
                        ag_node_describe(node, j, right, sizeof right));
}

bool ag_node_refuse_dtypes(const ag_node *node, int i, int j)
{
    char left[160], right[160];
    const ag_tensor *a = ag_input_value(node, i), *b = ag_input_value(node, j);
    return ag_node_fail(node, AG_ERR_DTYPE, "dtypes differ: %s is %s, %s is %s",
                        ag_node_describe(node, i, left, sizeof left), ag_dtype_name(a->dtype),
                        ag_node_describe(node, j, right, sizeof right), ag_dtype_name(b->dtype));
}

/* A new output of the shape that a and b broadcast to. */
static ag_tensor *broadcast_output(ag_node *node, const ag_tensor *a, const ag_tensor *b)
{
    int64_t dims[AG_MAX_RANK];
    if (ag_tensor_same_shape(a, b))
        return ag_node_output_like(node, a);
    int rank = ag_broadcast_dims(a->rank, a->dims, b->rank, b->dims, dims);
    if (rank >= 0)
        return ag_node_output_dims(node, a->dtype, rank, dims);
    ag_node_fail_operands(node, AG_ERR_SHAPE, "shapes do not broadcast", 0, " and ", 1);
    return NULL;
}

/* Two of one dtype; only a comparison takes whole numbers. */
static bool check_dtypes(const ag_node *node, ag_binary kind)
{
    bool compares = kind == AG_BINARY_EQUAL || kind == AG_BINARY_GREATER;
    if (!compares && (!ag_node_float_input(node, 0) || !ag_node_float_input(node, 1)))
        return false;
    return ag_node_same_dtype(node, 0, 1);
}

void ag_node_binary(ag_node *node, ag_binary kind)
{
    const ag_tensor *a = ag_input_value(node, 0), *b = ag_input_value(node, 1);
    bool usual = a->dtype == b->dtype && a->dtype != AG_I64;
    ag_tensor *y = usual || check_dtypes(node, kind) ? broadcast_output(node, a, b) : NULL;
    if (y)
        ag_compute_binary(node->self.context, kind, a, b, y);
}

int ag_axis_of(ag_var x, const char *operation, int axis, int rank)
{
    char text[160];
    if (axis >= -rank && axis < rank)
        return axis < 0 ? axis + rank : axis;
    ag_fail(x.context, AG_ERR_INDEX, "%s: %s has no axis %d", operation,
            ag_describe(x, text, sizeof text), axis);
    return -1;
}

bool ag_axes_set(ag_var x, const char *operation, const int *axes, int n, unsigned *set)
{
    char text[160];
    int rank = ag_shape_of(x).rank;
    *set = 0;
    if (n < 0 || (n > 0 && !axes))
        return ag_fail(x.context, AG_ERR_ARGUMENT, "%s: the axes are NULL", operation);
    if (n == 1 && axes[0] == AG_ALL) {
        *set = (1u << rank) - 1;
        return true;
    }
    for (int i = 0; i < n; i++) {
        int axis = ag_axis_of(x, operation, axes[i], rank);
        if (axis < 0)
            return false;
        if (*set >> axis & 1)
            return ag_fail(x.context, AG_ERR_INDEX, "%s: axis %d of %s is named twice", operation,
                           axis, ag_describe(x, text, sizeof text));
        *set |= 1u << axis;
    }
    return true;
}

ag_shape ag_shape_reduced(ag_shape shape, unsigned set, bool keep)
{
    ag_shape result = { .rank = 0 };
    for (int i = 0; i < shape.rank; i++) {
        if (!(set >> i & 1))
            result.dims[result.rank++] = shape.dims[i];
        else if (keep)
            result.dims[result.rank++] = 1;
    }
    return result;
}

/* ---- In backward rules ---- */

ag_var ag_empty_like(ag_var x, ag_tensor **value)
{
    const ag_node *like = ag_node_find(x);
    ag_node *node =
        like && !x.context->error ? ag_list_push(x.context, &x.context->tape->step, 0) : NULL;
    *value = node ? ag_node_output_like(node, &like->value) : NULL;
    return *value ? node->self : ag_poisoned(x.context);
}

bool ag_new_gradient(const ag_node *node, int i, ag_var *dx, ag_tensor **gradient)
{
    *gradient = NULL;
    if (!ag_node_needs(node, i))
        return true;
    dx[i] = ag_empty_like(ag_node_input(node, i), gradient);
    return *gradient != NULL;
}

/* Of a variable that there is: where a result could be made, its operands exist. */
static const ag_tensor *value_of(ag_var v)
{
    return &ag_node_behind(v)->value;
}

ag_var ag_fused_binary(ag_binary kind, ag_var a, ag_var b)
{
    ag_tensor *y;
    ag_var v = ag_empty_like(a, &y);
    if (y)
        ag_compute_binary(a.context, kind, value_of(a), value_of(b), y);
    return v;
}

ag_var ag_fused_unary(ag_unary kind, double parameter, ag_var x)
{
    ag_tensor *y;
    ag_var v = ag_empty_like(x, &y);
    if (y)
        ag_compute_unary(x.context, kind, parameter, value_of(x), y);
    return v;
}

/* Where dy's numbers can be overwritten: in its own buffer, which goes with it.
 * Otherwise in a new variable. */
static ag_var room_onto(ag_var dy, ag_tensor **dx)
{
    ag_node *node = ag_node_find(dy);
    if (!node || !node->owns_data || !ag_tensor_is_contiguous(&node->value))
        return ag_empty_like(dy, dx);
    *dx = &node->value;
    return dy;
}

static ag_var binary_onto(ag_binary kind, const ag_tensor *saved, ag_var dy)
{
    ag_tensor *dx;
    ag_var v = room_onto(dy, &dx);
    if (dx)
        ag_compute_binary(dy.context, kind, saved, value_of(dy), dx);
    return v;
}

ag_var ag_fused_binary_onto(ag_binary kind, ag_var saved, ag_var dy)
{
    return binary_onto(kind, value_of(saved), dy);
}

ag_var ag_fused_mul_onto(const ag_tensor *saved, ag_var dy)
{
    return binary_onto(AG_BINARY_MUL, saved, dy);
}

ag_var ag_fused_unary_onto(ag_unary kind, double parameter, ag_var dy)
{
    ag_tensor *dx;
    ag_var v = room_onto(dy, &dx);
    if (dx)
        ag_compute_unary(dy.context, kind, parameter, value_of(dy), dx);
    return v;
}

ag_var ag_scalar_like(ag_var x, double value)
{
    ag_tensor tensor;
    const ag_tensor *like = ag_value(x);
    if (!like || !ag_tensor_allocate(x.context, AG_STEP, like->dtype, AG_SCALAR, &tensor) ||
        !ag_tensor_put(&tensor, 0, value))
        return ag_poisoned(x.context);
    return ag_leaf(x.context, &tensor, true);
}

AG_SELDOM static ag_var sum_to_operand(ag_var g, ag_var operand)
{
    return ag_sum_to(g, ag_shape_of(operand));
}

ag_var ag_unbroadcast(ag_var g, ag_var operand)
{
    const ag_node *from = ag_node_find(g);
    bool same = from && ag_tensor_same_shape(&from->value, value_of(operand));
    return same ? g : sum_to_operand(g, operand);
}
