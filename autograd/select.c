/* Choosing and looking up: where, masked fill, cast, rows of a table. */
#include "internal.h"

/* ---- y = condition ? a : b      da = condition ? dy : 0    db = condition ? 0 : dy ---- */

static void where_forward(ag_node *node)
{
    char left[160], right[160], text[160];
    const ag_tensor *condition = ag_node_input_value(node, 0);
    const ag_tensor *a = ag_node_input_value(node, 1), *b = ag_node_input_value(node, 2);
    ag_shape shape;
    if (!ag_node_same_dtype(node, 1, 2))
        return;
    if (!ag_shape_broadcast(ag_tensor_shape(a), ag_tensor_shape(b), &shape) ||
        !ag_shape_broadcast(shape, ag_tensor_shape(condition), &shape)) {
        ag_node_fail(node, AG_ERR_SHAPE, "shapes do not broadcast: %s, %s and %s",
                     ag_node_describe(node, 0, text, sizeof text),
                     ag_node_describe(node, 1, left, sizeof left),
                     ag_node_describe(node, 2, right, sizeof right));
        return;
    }
    ag_tensor *y = ag_node_new_output(node, a->dtype, shape);
    if (y)
        ag_compute_where(ag_node_context(node), condition, a, b, y);
}

static void where_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var condition = ag_node_input(node, 0), zero = ag_scalar_like(dy, 0.0);
    if (ag_node_needs(node, 1))
        dx[1] = ag_unbroadcast(ag_where(condition, dy, zero), ag_node_input(node, 1));
    if (ag_node_needs(node, 2))
        dx[2] = ag_unbroadcast(ag_where(condition, zero, dy), ag_node_input(node, 2));
}

const ag_op ag_op_where = { .name = "where",
                            .forward = where_forward,
                            .vjp = where_vjp,
                            .constant_inputs = 1u << 0,
                            .branches = ag_branches_by_sign };

ag_var ag_where(ag_var condition, ag_var a, ag_var b)
{
    return ag_run(&ag_op_where, (ag_var[]){ condition, a, b }, 3, NULL);
}

/* ---- y = mask ? value : x       dx = mask ? 0 : dy ---- */

static void masked_fill_forward(ag_node *node)
{
    char text[160], mask_text[160];
    const ag_tensor *x = ag_node_input_value(node, 0), *mask = ag_node_input_value(node, 1);
    ag_shape both;
    if (!ag_shape_broadcast(ag_tensor_shape(x), ag_tensor_shape(mask), &both) ||
        !ag_shape_equal(both, ag_tensor_shape(x))) {
        ag_node_fail(node, AG_ERR_SHAPE, "the mask %s does not broadcast to %s",
                     ag_node_describe(node, 1, mask_text, sizeof mask_text),
                     ag_node_describe(node, 0, text, sizeof text));
        return;
    }
    ag_tensor *y = ag_node_output_like(node, x);
    if (y)
        ag_compute_masked_fill(ag_node_context(node), x, mask,
                               *(const double *)ag_node_options(node), y);
}

static void masked_fill_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (ag_node_needs(node, 0))
        dx[0] = ag_masked_fill(dy, ag_node_input(node, 1), 0.0);
}

static void masked_fill_branches(const ag_node *node)
{
    ag_branches_note_signs(node, ag_input_value(node, 1));
}

const ag_op ag_op_masked_fill = { .name = "masked_fill",
                                  .forward = masked_fill_forward,
                                  .vjp = masked_fill_vjp,
                                  .constant_inputs = 1u << 1,
                                  .branches = masked_fill_branches,
                                  .options_size = sizeof(double) };

ag_var ag_masked_fill(ag_var x, ag_var mask, double value)
{
    return ag_run(&ag_op_masked_fill, (ag_var[]){ x, mask }, 2, &value);
}

/* ---- cast                       dx = dy, cast back ---- */

static void cast_forward(ag_node *node)
{
    char text[160];
    ag_dtype dtype = *(const ag_dtype *)ag_node_options(node);
    const ag_tensor *x = ag_node_input_value(node, 0);
    if (ag_dtype_size(dtype) == 0) {
        ag_node_fail(node, AG_ERR_DTYPE, "%s to an unknown dtype",
                     ag_node_describe(node, 0, text, sizeof text));
        return;
    }
    if (x->dtype == AG_C128 && dtype != AG_C128) { /* its imaginary part would be lost */
        ag_node_refuse_complex(node);
        return;
    }
    ag_tensor *y = ag_node_new_output(node, dtype, ag_tensor_shape(x));
    if (y)
        ag_tensor_copy(ag_node_context(node), y, x);
}

static void cast_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_cast(dy, ag_node_input_value(node, 0)->dtype);
}

/* Rounding to integers is a decision; rounding to f32 is noise. */
static void cast_branches(const ag_node *node)
{
    if (node->value.dtype == AG_I64)
        ag_branches_by_result(node);
}

const ag_op ag_op_cast = { .name = "cast",
                           .forward = cast_forward,
                           .vjp = cast_vjp,
                           .options_size = sizeof(ag_dtype),
                           .branches = cast_branches };

ag_var ag_cast(ag_var x, ag_dtype dtype)
{
    ag_node *node = ag_node_find(x);
    if (dtype == AG_DEFAULT_DTYPE)
        dtype = ag_context_dtype(x.context);
    if (node && !x.context->error && node->value.dtype == dtype)
        return x;
    return ag_run(&ag_op_cast, &x, 1, &dtype);
}

/* ---- gather_rows        y_k = table_(i_k) [+ z_k]       dtable_r = sum of dy_k with i_k = r
 *                                                      dz = dy, summed where z was broadcast
 *      scatter_add_rows   y_r = sum of x_k with i_k = r   dx_k = dy_(i_k) ---- */

static bool check_indices(const ag_node *node)
{
    char text[160];
    const ag_tensor *indices = ag_node_input_value(node, 1);
    if (indices->dtype == AG_I64)
        return true;
    return ag_node_fail(node, AG_ERR_DTYPE, "the indices %s are %s, not i64",
                        ag_node_describe(node, 1, text, sizeof text),
                        ag_dtype_name(indices->dtype));
}

/* The shape of the rows, one for each index; false with the error recorded. */
static bool gathered_shape(const ag_node *node, ag_shape *shape)
{
    char text[160], index_text[160];
    const ag_tensor *table = ag_node_input_value(node, 0), *indices = ag_node_input_value(node, 1);
    if (!check_indices(node))
        return false;
    *shape = ag_tensor_shape(indices);
    if (table->rank < 1 || shape->rank + table->rank - 1 > AG_MAX_RANK)
        return ag_node_fail(node, AG_ERR_SHAPE, "rows of %s at %s",
                            ag_node_describe(node, 0, text, sizeof text),
                            ag_node_describe(node, 1, index_text, sizeof index_text));
    for (int i = 1; i < table->rank; i++)
        shape->dims[shape->rank++] = table->dims[i];
    return true;
}

/* Whether z, if there is one, can be added to what is gathered. */
static bool check_summand(const ag_node *node, ag_shape shape)
{
    char text[160], z_text[160];
    ag_shape both;
    if (ag_node_input_count(node) < 3)
        return true;
    if (!ag_node_float_input(node, 0) || !ag_node_same_dtype(node, 0, 2))
        return false;
    const ag_tensor *z = ag_node_input_value(node, 2);
    if (ag_shape_broadcast(ag_tensor_shape(z), shape, &both) && ag_shape_equal(both, shape))
        return true;
    return ag_node_fail(node, AG_ERR_SHAPE, "%s does not broadcast to the rows %s",
                        ag_node_describe(node, 2, z_text, sizeof z_text),
                        ag_shape_text(shape, text, sizeof text));
}

static void gather_rows_forward(ag_node *node)
{
    ag_shape shape;
    ag_tensor *y = NULL;
    ag_context *context = ag_node_context(node);
    if (gathered_shape(node, &shape) && check_summand(node, shape))
        y = ag_node_new_output(node, ag_node_input_value(node, 0)->dtype, shape);
    if (!y || !ag_compute_gather_rows(context, ag_node_input_value(node, 0),
                                      ag_node_input_value(node, 1), y))
        return;
    if (ag_node_input_count(node) == 3)
        ag_compute_binary(context, AG_BINARY_ADD, y, ag_node_input_value(node, 2), y);
}

static void gather_rows_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    int64_t v = ag_node_input_value(node, 0)->dims[0];
    if (ag_node_needs(node, 0))
        dx[0] = ag_scatter_add_rows(dy, ag_node_input(node, 1), v);
    if (ag_node_needs(node, 2))
        dx[2] = ag_unbroadcast(dy, ag_node_input(node, 2));
}

const ag_op ag_op_gather_rows = { .name = "gather_rows",
                                  .forward = gather_rows_forward,
                                  .vjp = gather_rows_vjp };

ag_var ag_gather_rows(ag_var table, ag_var indices)
{
    return ag_run(&ag_op_gather_rows, (ag_var[]){ table, indices }, 2, NULL);
}

ag_var ag_gather_rows_add(ag_var table, ag_var indices, ag_var z)
{
    return ag_run(&ag_op_gather_rows, (ag_var[]){ table, indices, z }, 3, NULL);
}

static void scatter_add_rows_forward(ag_node *node)
{
    char text[160], index_text[160];
    int64_t v = *(const int64_t *)ag_node_options(node);
    const ag_tensor *rows = ag_node_float_input(node, 0), *indices = ag_node_input_value(node, 1);
    if (!rows || !check_indices(node))
        return;
    ag_shape leading = ag_shape_make(indices->rank, rows->dims);
    if (indices->rank > rows->rank || !ag_shape_equal(leading, ag_tensor_shape(indices))) {
        ag_node_fail(node, AG_ERR_SHAPE, "the leading axes of %s are not those of %s",
                     ag_node_describe(node, 0, text, sizeof text),
                     ag_node_describe(node, 1, index_text, sizeof index_text));
        return;
    }
    if (rows->rank - indices->rank + 1 > AG_MAX_RANK) {
        ag_node_fail(node, AG_ERR_SHAPE, "the result would have rank %d",
                     rows->rank - indices->rank + 1);
        return;
    }
    ag_shape shape = { .rank = 1, .dims = { v } };
    for (int i = indices->rank; i < rows->rank; i++)
        shape.dims[shape.rank++] = rows->dims[i];
    ag_tensor *y = ag_node_new_output(node, rows->dtype, shape);
    if (y)
        ag_compute_scatter_add_rows(ag_node_context(node), rows, indices, y);
}

static void scatter_add_rows_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (ag_node_needs(node, 0))
        dx[0] = ag_gather_rows(dy, ag_node_input(node, 1));
}

const ag_op ag_op_scatter_add_rows = { .name = "scatter_add_rows",
                                       .forward = scatter_add_rows_forward,
                                       .vjp = scatter_add_rows_vjp,
                                       .options_size = sizeof(int64_t) };

ag_var ag_scatter_add_rows(ag_var rows, ag_var indices, int64_t v)
{
    return ag_run(&ag_op_scatter_add_rows, (ag_var[]){ rows, indices }, 2, &v);
}
