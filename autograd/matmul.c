/* Matrix products, and the affine maps that layers are made of.
 *
 *   matmul   forward    C = A B        [.., m, k] x [.., k, n] -> [.., m, n]
 *            backward   dA = dC B^T    [.., m, n] x [.., n, k]
 *                       dB = A^T dC    [.., k, m] x [.., m, n]
 *
 *   affine   forward    Y = X W + b + R          [.., k] x [k, n] -> [.., n]
 *            backward   dX = dY W^T
 *                       dW = X^T dY              over all rows
 *                       db = sum of dY's rows
 *                       dR = dY
 *
 * Leading axes broadcast; the gradient of a broadcast operand is summed over
 * them. The most frequent case, many rows times one matrix, [.., m, k] x [k, n],
 * is computed as a single product of all rows.
 */
#include "internal.h"

/* x with axes of size 1 in front, which broadcast, up to a rank; room is for a view of it. */
static const ag_tensor *with_rank(const ag_tensor *x, int rank, ag_tensor *room)
{
    if (x->rank == rank)
        return x;
    room->data = x->data;
    room->dtype = x->dtype;
    room->rank = rank;
    for (int axis = 0, own = x->rank - rank; axis < rank; axis++, own++) {
        room->dims[axis] = own < 0 ? 1 : x->dims[own];
        room->strides[axis] = own < 0 ? 0 : x->strides[own];
    }
    return room;
}

/* C = A B + start; the leading axes broadcast to C's. */
static bool multiply(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                     const ag_matmul_start *start, ag_tensor *c)
{
    ag_tensor a_room, b_room;
    return ag_compute_matmul(context, with_rank(a, c->rank, &a_room),
                             with_rank(b, c->rank, &b_room), start, c);
}

/* ---- matmul ---- */

/* The sizes of the product; -1 instead of their number with the error recorded. */
static int product_dims(const ag_node *node, const ag_tensor *a, const ag_tensor *b, int64_t *dims)
{
    const char *reason = NULL;
    int batch = 0;
    if (!ag_node_same_dtype(node, 0, 1))
        return -1;
    if (a->rank < 2 || b->rank < 2)
        reason = "operands need rank 2 or more (see ag_dot for vectors)";
    else if (a->dims[a->rank - 1] != b->dims[b->rank - 2])
        reason = "inner sizes differ";
    else if ((batch = ag_broadcast_dims(a->rank - 2, a->dims, b->rank - 2, b->dims, dims)) < 0)
        reason = "leading axes do not broadcast";
    if (reason) {
        ag_node_fail_operands(node, AG_ERR_SHAPE, reason, 0, " times ", 1);
        return -1;
    }
    dims[batch] = a->dims[a->rank - 2];
    dims[batch + 1] = b->dims[b->rank - 1];
    return batch + 2;
}

static void matmul_forward(ag_node *node)
{
    int64_t dims[AG_MAX_RANK];
    const ag_tensor *a = ag_node_float_input(node, 0), *b = ag_node_float_input(node, 1);
    int rank = a && b ? product_dims(node, a, b, dims) : -1;
    ag_tensor *c = rank < 0 ? NULL : ag_node_output_dims(node, a->dtype, rank, dims);
    if (c)
        multiply(node->self.context, a, b, NULL, c);
}

/* [.., n] -> [rows, n]: all rows under each other. */
static ag_var all_rows(ag_var x)
{
    ag_shape shape = ag_shape_of(x);
    if (shape.rank < 1)
        return x; /* an error on the way here */
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

/* ---- affine ----
 *
 * The inputs are x, w, and, where the options say so, b and the residual R. */

typedef struct affine_options {
    bool bias, residual;
} affine_options;

static int bias_input(const ag_node *node)
{
    const affine_options *options = ag_node_options(node);
    return options->bias ? 2 : -1;
}

static int residual_input(const ag_node *node)
{
    const affine_options *options = ag_node_options(node);
    return options->residual ? 2 + options->bias : -1;
}

/* The value of an input that may be absent. */
static const ag_tensor *value_or_null(const ag_node *node, int i)
{
    return i < 0 ? NULL : ag_node_input_value(node, i);
}

static bool fail_summand(const ag_node *node, const char *what, int i)
{
    char x[96], w[96], summand[96];
    return ag_node_fail(node, AG_ERR_SHAPE, "the %s does not fit: %s times %s plus %s", what,
                        ag_node_describe(node, 0, x, sizeof x),
                        ag_node_describe(node, 1, w, sizeof w),
                        ag_node_describe(node, i, summand, sizeof summand));
}

/* Whether r is [.., n] with the leading axes of x. */
static bool fits_rows(const ag_tensor *r, const ag_tensor *x, int64_t n)
{
    bool fits = r->rank == x->rank && r->dims[r->rank - 1] == n;
    for (int axis = 0; fits && axis < r->rank - 1; axis++)
        fits = r->dims[axis] == x->dims[axis];
    return fits;
}

static bool check_affine(const ag_node *node)
{
    int bias = bias_input(node), residual = residual_input(node);
    const ag_tensor *x = ag_node_float_input(node, 0), *w = ag_node_float_input(node, 1);
    const ag_tensor *b = value_or_null(node, bias), *r = value_or_null(node, residual);
    if (!x || !w)
        return false;
    for (int i = 1; i < ag_node_input_count(node); i++)
        if (!ag_node_same_dtype(node, 0, i))
            return false;
    if (x->rank < 1 || w->rank != 2)
        return ag_node_fail_operands(node, AG_ERR_SHAPE, "needs rows [.., k] and a matrix [k, n]",
                                     0, " times ", 1);
    if (x->dims[x->rank - 1] != w->dims[0])
        return ag_node_fail_operands(node, AG_ERR_SHAPE, "inner sizes differ", 0, " times ", 1);
    if (b && (b->rank != 1 || b->dims[0] != w->dims[1]))
        return fail_summand(node, "bias", bias);
    return !r || fits_rows(r, x, w->dims[1]) || fail_summand(node, "residual", residual);
}

/* A matrix over the data of x. */
static void put_matrix(ag_tensor *matrix, const ag_tensor *x, int64_t rows, int64_t columns,
                       int64_t row_stride, int64_t column_stride)
{
    matrix->data = x->data;
    matrix->dtype = x->dtype;
    matrix->rank = 2;
    matrix->dims[0] = rows;
    matrix->dims[1] = columns;
    matrix->strides[0] = row_stride;
    matrix->strides[1] = column_stride;
}

/* x, or a vector as the only row of a matrix; room is for that. */
static ag_tensor *at_least_a_matrix(ag_tensor *x, ag_tensor *room)
{
    if (x->rank != 1)
        return x;
    put_matrix(room, x, 1, x->dims[0], x->dims[0], x->strides[0]);
    return room;
}

/* Y = X W + b + R into y, of that shape. */
static bool compute_affine(const ag_node *node, ag_tensor *y)
{
    ag_tensor x_room, y_room, r_room;
    ag_tensor *x = &node->inputs[0].node->value, *w = &node->inputs[1].node->value;
    ag_matmul_start start = { .row = value_or_null(node, bias_input(node)) };
    int residual = residual_input(node);
    if (residual >= 0)
        start.matrix = at_least_a_matrix(&node->inputs[residual].node->value, &r_room);
    return multiply(node->self.context, at_least_a_matrix(x, &x_room), w, &start,
                    at_least_a_matrix(y, &y_room));
}

/* The same in a new output; NULL with an error recorded. */
static ag_tensor *affine_output(ag_node *node)
{
    if (!check_affine(node))
        return NULL;
    const ag_tensor *x = ag_input_value(node, 0), *w = ag_input_value(node, 1);
    int64_t dims[AG_MAX_RANK];
    for (int axis = 0; axis < x->rank - 1; axis++)
        dims[axis] = x->dims[axis];
    dims[x->rank - 1] = w->dims[1];
    ag_tensor *y = ag_node_output_dims(node, x->dtype, x->rank, dims);
    return y && compute_affine(node, y) ? y : NULL;
}

static void affine_forward(ag_node *node)
{
    affine_output(node);
}

static void affine_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0), w = ag_node_input(node, 1), rows = all_rows(dy);
    int bias = bias_input(node), residual = residual_input(node);
    if (ag_node_needs(node, 0))
        dx[0] = ag_reshape(ag_matmul(rows, ag_transpose(w, 0, 1)), ag_shape_of(x));
    if (ag_node_needs(node, 1))
        dx[1] = ag_matmul(ag_transpose(all_rows(x), 0, 1), rows);
    if (ag_node_needs(node, bias))
        dx[bias] = ag_sum(rows, 0, 0);
    if (ag_node_needs(node, residual))
        dx[residual] = dy;
}

/* x [.., n] as a matrix of all its rows: a view if its strides allow it, else a copy. */
static bool rows_of(ag_context *context, const ag_tensor *x, ag_tensor *rows)
{
    int64_t count = 1, n = x->dims[x->rank - 1];
    for (int axis = 0; axis < x->rank - 1; axis++)
        count *= x->dims[axis];
    if (!ag_tensor_is_contiguous(x))
        return ag_tensor_reshape(context, x, AG_SHAPE(count, n), rows);
    put_matrix(rows, x, count, n, n, 1);
    return true;
}

static void put_transposed(ag_tensor *transposed, const ag_tensor *x)
{
    put_matrix(transposed, x, x->dims[1], x->dims[0], x->strides[1], x->strides[0]);
}

/* A new variable like another one, filled with the product of two matrices. */
static ag_var product_like(ag_var like, const ag_tensor *a, const ag_tensor *b)
{
    ag_tensor *value, rows;
    ag_var product = ag_empty_like(like, &value);
    if (value && rows_of(like.context, value, &rows))
        ag_compute_matmul(like.context, a, b, NULL, &rows);
    return product;
}

/* dW = X^T dY */
static ag_var weight_gradient(const ag_node *node, const ag_tensor *dy_rows)
{
    ag_context *context = ag_node_context(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor rows, columns;
    if (!rows_of(context, x, &rows))
        return ag_poisoned(context);
    put_transposed(&columns, &rows);
    ag_var dw = product_like(ag_node_input(node, 1), &columns, dy_rows);
    if (rows.data != x->data)
        ag_memory_recycle(context, rows.data, ag_tensor_bytes(&rows));
    return dw;
}

/* db = sum of dY's rows */
static ag_var bias_gradient(const ag_node *node, const ag_tensor *dy_rows)
{
    ag_tensor *sums;
    ag_var db = ag_empty_like(ag_node_input(node, bias_input(node)), &sums);
    if (sums)
        ag_compute_reduce(ag_node_context(node), AG_REDUCE_SUM, dy_rows, 1u << 0, sums);
    return db;
}

static void affine_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_context *context = ag_node_context(node);
    int bias = bias_input(node), residual = residual_input(node);
    ag_tensor rows, transposed;
    if (!rows_of(context, &ag_node_behind(dy)->value, &rows))
        return;
    put_transposed(&transposed, ag_input_value(node, 1));
    if (ag_node_needs(node, 0))
        dx[0] = product_like(ag_node_input(node, 0), &rows, &transposed);
    if (ag_node_needs(node, 1))
        dx[1] = weight_gradient(node, &rows);
    if (ag_node_needs(node, bias))
        dx[bias] = bias_gradient(node, &rows);
    if (ag_node_needs(node, residual))
        dx[residual] = dy;
}

const ag_op ag_op_affine = { .name = "affine",
                             .forward = affine_forward,
                             .vjp = affine_vjp,
                             .vjp_fused = affine_vjp_fused,
                             .options_size = sizeof(affine_options) };

ag_var ag_affine(ag_var x, ag_var w, ag_var b)
{
    affine_options options = { .bias = !ag_is_none(b) };
    return ag_run(&ag_op_affine, (ag_var[]){ x, w, b }, options.bias ? 3 : 2, &options);
}

ag_var ag_affine_add(ag_var x, ag_var w, ag_var b, ag_var residual)
{
    affine_options options = { .bias = !ag_is_none(b), .residual = true };
    if (!options.bias)
        return ag_run(&ag_op_affine, (ag_var[]){ x, w, residual }, 3, &options);
    return ag_run(&ag_op_affine, (ag_var[]){ x, w, b, residual }, 4, &options);
}

/* ---- affine_gelu ----
 *
 *   forward    A = X W + b    Y = gelu(A)    and, saved, S = gelu'(A)
 *   backward   dA = S dY, and with it the rule of affine
 *
 * ag_backward uses S up, and should it come here once more, from another loss, A and S are
 * computed once more. So is A where backward is to be recorded. */

static void affine_gelu_forward(ag_node *node)
{
    if (ag_input_value(node, 0)->dtype == AG_C128) {
        ag_node_refuse_complex(node);
        return;
    }
    ag_tensor *y = affine_output(node);
    if (!y)
        return;
    ag_context *context = ag_node_context(node);
    if (!ag_node_will_need(node)) {
        ag_compute_unary(context, AG_UNARY_GELU, 0, y, y);
        return;
    }
    ag_tensor *slope = ag_node_save(node, y->dtype, ag_tensor_shape(y));
    if (slope)
        ag_compute_gelu_with_slope(context, y, slope);
}

static void affine_gelu_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    int bias = bias_input(node);
    ag_var a = ag_affine(ag_node_input(node, 0), ag_node_input(node, 1),
                         bias < 0 ? AG_NONE : ag_node_input(node, bias));
    affine_vjp(node, ag_mul(dy, ag_gelu_slope(a)), dx);
}

/* S, as forward has computed it. */
static bool compute_slope(const ag_node *node, ag_tensor *slope)
{
    ag_context *context = ag_node_context(node);
    const ag_tensor *like = ag_value(ag_node_output(node));
    ag_tensor y;
    if (!ag_tensor_allocate_like(context, AG_STEP, like, slope) ||
        !ag_tensor_allocate_like(context, AG_STEP, like, &y) || !compute_affine(node, &y))
        return false;
    ag_compute_gelu_with_slope(context, &y, slope);
    ag_memory_recycle(context, y.data, ag_tensor_bytes(&y));
    return true;
}

static void affine_gelu_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_tensor again;
    const ag_tensor *slope = ag_node_saved(node);
    if (!slope && !compute_slope(node, &again))
        return;
    ag_var da = ag_fused_mul_onto(slope ? slope : &again, dy);
    if (!ag_is_valid(da))
        return;
    if (slope)
        ag_node_release_saved(node);
    else
        ag_memory_recycle(ag_node_context(node), again.data, ag_tensor_bytes(&again));
    affine_vjp_fused(node, da, dx);
}

const ag_op ag_op_affine_gelu = { .name = "affine_gelu",
                                  .forward = affine_gelu_forward,
                                  .vjp = affine_gelu_vjp,
                                  .vjp_fused = affine_gelu_vjp_fused,
                                  .options_size = sizeof(affine_options) };

ag_var ag_affine_gelu(ag_var x, ag_var w, ag_var b)
{
    affine_options options = { .bias = !ag_is_none(b) };
    return ag_run(&ag_op_affine_gelu, (ag_var[]){ x, w, b }, options.bias ? 3 : 2, &options);
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
