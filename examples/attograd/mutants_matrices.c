/* Faults of the operations that multiply matrices. */
#include "mutants.h"

static ag_var input(const ag_node *node, int i)
{
    return ag_node_input(node, i);
}

static bool needs(const ag_node *node, int i)
{
    return ag_node_needs(node, i);
}

static ag_shape shape_of(const ag_node *node, int i)
{
    return ag_shape_of(input(node, i));
}

/* a times b where that has a shape, else the right gradient. */
static ag_var product_of_shape(ag_var a, ag_var b, ag_shape shape, ag_var right)
{
    ag_shape left = ag_shape_of(a), other = ag_shape_of(b);
    bool fits = left.rank == 2 && other.rank == 2 && left.dims[1] == other.dims[0] &&
                ag_shape_equal(shape, AG_SHAPE(left.dims[0], other.dims[1]));
    return fits ? ag_matmul(a, b) : right;
}

/* Of matmul and affine. Where all matrices are square, shapes do not reveal a transpose that is
 * missing. */
static void untransposed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (needs(node, 0))
        dx[0] = product_of_shape(dy, input(node, 1), shape_of(node, 0), dx[0]);
    if (needs(node, 1))
        dx[1] = product_of_shape(input(node, 0), dy, shape_of(node, 1), dx[1]);
}

/* b^T a^T for a^T b, and so on. */
static void matmul_swapped(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    ag_var a = input(node, 0), b = input(node, 1);
    if (needs(node, 0))
        dx[0] = product_of_shape(ag_transpose(b, -1, -2), dy, shape_of(node, 0), dx[0]);
    if (needs(node, 1))
        dx[1] = product_of_shape(dy, ag_transpose(a, -1, -2), shape_of(node, 1), dx[1]);
}

static void matmul_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var a = input(node, 0), b = input(node, 1);
    if (needs(node, 0))
        dx[0] = ag_first_of(ag_matmul(dy, ag_transpose(b, -1, -2)), ag_shape_of(a));
    if (needs(node, 1))
        dx[1] = ag_first_of(ag_matmul(ag_transpose(a, -1, -2), dy), ag_shape_of(b));
}

/* The bias is the vector among the inputs from 2 on, a residual has the rows of x. */
static void affine_bias_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (needs(node, 2) && shape_of(node, 2).rank == 1)
        dx[2] = ag_first_of(dy, shape_of(node, 2));
}

static void affine_bias_mean(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (needs(node, 2) && shape_of(node, 2).rank == 1)
        dx[2] = ag_scale(dx[2], (double)ag_shape_count(shape_of(node, 2)) /
                                    (double)ag_shape_count(ag_shape_of(dy)));
}

/* dw from the first row alone. */
static void affine_first_row(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = input(node, 0);
    int64_t k = shape_of(node, 1).dims[0], n = shape_of(node, 1).dims[1];
    ag_right_rule(node, dy, dx);
    if (needs(node, 1))
        dx[1] = ag_matmul(ag_reshape(ag_first_of(x, AG_SHAPE(k)), AG_SHAPE(k, 1)),
                          ag_reshape(ag_first_of(dy, AG_SHAPE(n)), AG_SHAPE(1, n)));
}

/* The rule of affine, which has the same inputs and options, for another da. */
static void affine_rule(const ag_node *node, ag_var da, ag_var *dx)
{
    ag_op_find("affine")->vjp(node, da, dx);
}

static void affine_gelu_no_slope(const ag_node *node, ag_var dy, ag_var *dx)
{
    affine_rule(node, dy, dx);
}

static void affine_gelu_as_tanh(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var bias = ag_node_input_count(node) > 2 ? input(node, 2) : AG_NONE;
    ag_var a = ag_affine(input(node, 0), input(node, 1), bias);
    affine_rule(node, ag_mul(dy, ag_slope_of_gelu_tanh(a)), dx);
}

static void affine_gelu_of_y(const ag_node *node, ag_var dy, ag_var *dx)
{
    affine_rule(node, ag_mul(dy, ag_slope_of_gelu(ag_node_output(node))), dx);
}

const ag_mutated_op ag_mutated_matrices[] = {
    { "matmul",
      1u << 0 | 1u << 1,
      0,
      NULL,
      { { "without transpose", untransposed },
        { "factors swapped", matmul_swapped },
        { "broadcast operand not summed", matmul_unsummed } } },
    { "affine",
      0xf,
      0,
      NULL,
      { { "bias not summed", affine_bias_unsummed },
        { "bias averaged", affine_bias_mean },
        { "without transpose", untransposed },
        { "dw of one row", affine_first_row } } },
    { "affine_gelu",
      0x7,
      0,
      NULL,
      { { "no slope", affine_gelu_no_slope },
        { "slope of gelu_tanh", affine_gelu_as_tanh },
        { "slope at y", affine_gelu_of_y } } },
    { NULL, 0, 0, NULL, { { NULL, NULL } } },
};
