/* Matrix products.
 *
 *   forward    C = A B        [.., m, k] x [.., k, n] -> [.., m, n]
 *   backward   dA = dC B^T    [.., m, n] x [.., n, k]
 *              dB = A^T dC    [.., k, m] x [.., m, n]
 *
 * Leading axes broadcast; the gradient of a broadcast operand is summed over
 * them. The most frequent case, many rows times one matrix, [.., m, k] x [k, n],
 * is computed as a single product of all rows.
 */
#include "internal.h"

/* x's matrix axes behind the leading axes of like, which x's broadcast to. */
static bool with_leading_axes(ag_context *context, const ag_tensor *x, const ag_tensor *like,
                              ag_tensor *view)
{
    ag_shape shape = ag_tensor_shape(like);
    shape.dims[shape.rank - 2] = x->dims[x->rank - 2];
    shape.dims[shape.rank - 1] = x->dims[x->rank - 1];
    return ag_tensor_broadcast(context, x, shape, view);
}

/* The shape of the product; false with the error recorded. */
static bool product_shape(const ag_node *node, const ag_tensor *a, const ag_tensor *b,
                          ag_shape *shape)
{
    if (!ag_node_same_dtype(node, 0, 1))
        return false;
    if (a->rank < 2 || b->rank < 2)
        return ag_node_fail_operands(node, AG_ERR_SHAPE,
                                     "operands need rank 2 or more (see ag_dot for vectors)", 0,
                                     " times ", 1);
    if (a->dims[a->rank - 1] != b->dims[b->rank - 2])
        return ag_node_fail_operands(node, AG_ERR_SHAPE, "inner sizes differ", 0, " times ", 1);
    ag_shape over_a = ag_shape_make(a->rank - 2, a->dims);
    ag_shape over_b = ag_shape_make(b->rank - 2, b->dims);
    if (!ag_shape_broadcast(over_a, over_b, shape))
        return ag_node_fail_operands(node, AG_ERR_SHAPE, "leading axes do not broadcast", 0,
                                     " times ", 1);
    shape->dims[shape->rank++] = a->dims[a->rank - 2];
    shape->dims[shape->rank++] = b->dims[b->rank - 1];
    return true;
}

static void matmul_forward(ag_node *node)
{
    ag_context *context = ag_node_context(node);
    const ag_tensor *a = ag_node_float_input(node, 0), *b = ag_node_float_input(node, 1);
    ag_shape shape;
    ag_tensor *c = NULL, a_view, b_view;
    if (a && b && product_shape(node, a, b, &shape))
        c = ag_node_new_output(node, a->dtype, shape);
    if (!c)
        return;
    if (a->rank > 2 && b->rank == 2 && ag_tensor_is_contiguous(a)) {
        int64_t k = a->dims[a->rank - 1], n = b->dims[1];
        int64_t rows = ag_shape_count(ag_shape_make(a->rank - 1, a->dims));
        ag_tensor a_rows = ag_tensor_over(a->data, a->dtype, AG_SHAPE(rows, k));
        ag_tensor c_rows = ag_tensor_over(c->data, c->dtype, AG_SHAPE(rows, n));
        ag_compute_matmul(context, &a_rows, b, NULL, &c_rows);
    } else if (with_leading_axes(context, a, c, &a_view) &&
               with_leading_axes(context, b, c, &b_view)) {
        ag_compute_matmul(context, &a_view, &b_view, NULL, c);
    }
}

/* [.., m, n] -> [.. m, n]: all rows under each other. */
static ag_var all_rows(ag_var x)
{
    ag_shape shape = ag_shape_of(x);
    int64_t rows = ag_shape_count(ag_shape_make(shape.rank - 1, shape.dims));
    return ag_reshape(x, AG_SHAPE(rows, shape.dims[shape.rank - 1]));
}

static void matmul_vjp(const ag_node *node, ag_var dc, ag_var *dx)
{
    ag_var a = ag_node_input(node, 0), b = ag_node_input(node, 1);
    if (ag_node_needs(node, 0))
        dx[0] = ag_unbroadcast(ag_matmul(dc, ag_transpose(b, -2, -1)), a);
    if (!ag_node_needs(node, 1))
        return;
    if (ag_shape_of(b).rank == 2 && ag_shape_of(a).rank > 2)
        dx[1] = ag_matmul(ag_transpose(all_rows(a), 0, 1), all_rows(dc));
    else
        dx[1] = ag_unbroadcast(ag_matmul(ag_transpose(a, -2, -1), dc), b);
}

const ag_op ag_op_matmul = { .name = "matmul", .forward = matmul_forward, .vjp = matmul_vjp };

ag_var ag_matmul(ag_var a, ag_var b)
{
    return ag_run(&ag_op_matmul, (ag_var[]){ a, b }, 2, NULL);
}

/* ---- dot and outer, from the operations above ---- */

/* Both operands, or a clear word about what they lack. */
static bool two_operands(const char *operation, ag_var a, ag_var b, bool same_shape)
{
    char left[160], right[160];
    ag_context *context = a.context ? a.context : b.context;
    if (!ag_node_require(context, operation, a) || !ag_node_require(context, operation, b))
        return false;
    ag_shape x = ag_shape_of(a), y = ag_shape_of(b);
    const char *reason = NULL;
    if (same_shape && !ag_shape_equal(x, y))
        reason = "shapes differ";
    else if (!same_shape && (x.rank != 1 || y.rank != 1))
        reason = "needs two vectors";
    if (!reason)
        return true;
    return ag_fail(context, AG_ERR_SHAPE, "%s: %s: %s and %s", operation, reason,
                   ag_describe(a, left, sizeof left), ag_describe(b, right, sizeof right));
}

ag_var ag_dot(ag_var a, ag_var b)
{
    if (!two_operands("dot", a, b, true))
        return ag_poisoned(a.context ? a.context : b.context);
    return ag_sum(ag_mul(a, b), AG_ALL, 0);
}

ag_var ag_outer(ag_var a, ag_var b)
{
    if (!two_operands("outer", a, b, false))
        return ag_poisoned(a.context ? a.context : b.context);
    return ag_mul(ag_unsqueeze(a, 1), b);
}
