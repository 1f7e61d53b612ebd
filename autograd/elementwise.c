/* Arithmetic, element by element. y is the result, dy its gradient.
 *
 * A broadcast operand was used once for each element that it was repeated to,
 * so its gradient is the sum over these: ag_unbroadcast.
 */
#include "internal.h"

static bool needs(const ag_node *node, int i)
{
    return ag_node_needs(node, i);
}

static ag_var apply_two(const ag_op *op, ag_var a, ag_var b)
{
    return ag_run(op, (ag_var[]){ a, b }, 2, NULL);
}

/* ---- y = a + b        da = dy    db = dy ---- */

static void add_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_ADD);
}

static void add_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 0; i < 2; i++)
        if (needs(node, i))
            dx[i] = ag_unbroadcast(dy, ag_node_input(node, i));
}

const ag_op ag_op_add = { .name = "add", .forward = add_forward, .vjp = add_vjp };

ag_var ag_add(ag_var a, ag_var b)
{
    return apply_two(&ag_op_add, a, b);
}

/* ---- y = a - b        da = dy    db = -dy ---- */

static void sub_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_SUB);
}

static void sub_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(dy, ag_node_input(node, 0));
    if (needs(node, 1))
        dx[1] = ag_neg(ag_unbroadcast(dy, ag_node_input(node, 1)));
}

static void sub_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(dy, ag_node_input(node, 0));
    if (needs(node, 1))
        dx[1] = ag_fused_unary(AG_UNARY_NEG, 0, ag_unbroadcast(dy, ag_node_input(node, 1)));
}

const ag_op ag_op_sub = {
    .name = "sub", .forward = sub_forward, .vjp = sub_vjp, .vjp_fused = sub_vjp_fused
};

ag_var ag_sub(ag_var a, ag_var b)
{
    return apply_two(&ag_op_sub, a, b);
}

/* ---- y = a b          da = dy b    db = dy a ---- */

static void mul_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_MUL);
}

static void mul_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var a = ag_node_input(node, 0), b = ag_node_input(node, 1);
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(ag_mul(dy, b), a);
    if (needs(node, 1))
        dx[1] = ag_unbroadcast(ag_mul(dy, a), b);
}

static void mul_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var a = ag_node_input(node, 0), b = ag_node_input(node, 1);
    if (needs(node, 1))
        dx[1] = ag_unbroadcast(ag_fused_binary(AG_BINARY_MUL, dy, a), b);
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(ag_fused_binary_onto(AG_BINARY_MUL, b, dy), a);
}

const ag_op ag_op_mul = {
    .name = "mul", .forward = mul_forward, .vjp = mul_vjp, .vjp_fused = mul_vjp_fused
};

ag_var ag_mul(ag_var a, ag_var b)
{
    return apply_two(&ag_op_mul, a, b);
}

/* ---- y = a / b        da = dy / b    db = -dy y / b ---- */

static void div_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_DIV);
}

static void div_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var a = ag_node_input(node, 0), b = ag_node_input(node, 1), y = ag_node_output(node);
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(ag_div(dy, b), a);
    if (needs(node, 1))
        dx[1] = ag_neg(ag_unbroadcast(ag_div(ag_mul(dy, y), b), b));
}

const ag_op ag_op_div = { .name = "div", .forward = div_forward, .vjp = div_vjp };

ag_var ag_div(ag_var a, ag_var b)
{
    return apply_two(&ag_op_div, a, b);
}

/* ---- y = max(a, b)    da = w dy    db = (1 - w) dy
 *      with w = 1 where a > b, 1/2 where a = b, 0 where a < b; minimum alike ---- */

static void choice_vjp(const ag_node *node, ag_var w, ag_var dy, ag_var *dx)
{
    ag_var wa = ag_mul(w, dy);
    if (needs(node, 0))
        dx[0] = ag_unbroadcast(wa, ag_node_input(node, 0));
    if (needs(node, 1))
        dx[1] = ag_unbroadcast(ag_sub(dy, wa), ag_node_input(node, 1));
}

static ag_var winner(ag_var larger, ag_var smaller)
{
    return ag_add(ag_greater(larger, smaller), ag_scale(ag_equal(larger, smaller), 0.5));
}

static void maximum_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_MAXIMUM);
}

static void maximum_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    choice_vjp(node, winner(ag_node_input(node, 0), ag_node_input(node, 1)), dy, dx);
}

const ag_op ag_op_maximum = { .name = "maximum",
                              .forward = maximum_forward,
                              .vjp = maximum_vjp,
                              .branches = ag_branches_by_order };

ag_var ag_maximum(ag_var a, ag_var b)
{
    return apply_two(&ag_op_maximum, a, b);
}

static void minimum_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_MINIMUM);
}

static void minimum_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    choice_vjp(node, winner(ag_node_input(node, 1), ag_node_input(node, 0)), dy, dx);
}

const ag_op ag_op_minimum = { .name = "minimum",
                              .forward = minimum_forward,
                              .vjp = minimum_vjp,
                              .branches = ag_branches_by_order };

ag_var ag_minimum(ag_var a, ag_var b)
{
    return apply_two(&ag_op_minimum, a, b);
}

/* ---- With a number c: y = c x, dx = c dy;    y = x + c, dx = dy;
 *      y = x^c, dx = c x^(c - 1) dy, which is 0 for c = 0 ---- */

static double number(const ag_node *node)
{
    return *(const double *)ag_node_options(node);
}

static void scale_forward(ag_node *node)
{
    ag_node_unary(node, AG_UNARY_SCALE, number(node));
}

static void scale_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(dy, number(node));
}

static void scale_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_unary_onto(AG_UNARY_SCALE, number(node), dy);
}

const ag_op ag_op_scale = { .name = "scale",
                            .forward = scale_forward,
                            .vjp = scale_vjp,
                            .vjp_fused = scale_vjp_fused,
                            .options_size = sizeof(double) };

ag_var ag_scale(ag_var x, double factor)
{
    return ag_run(&ag_op_scale, &x, 1, &factor);
}

static void shift_forward(ag_node *node)
{
    ag_node_unary(node, AG_UNARY_SHIFT, number(node));
}

static void shift_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

const ag_op ag_op_shift = {
    .name = "shift", .forward = shift_forward, .vjp = shift_vjp, .options_size = sizeof(double)
};

ag_var ag_shift(ag_var x, double summand)
{
    return ag_run(&ag_op_shift, &x, 1, &summand);
}

static void pow_forward(ag_node *node)
{
    ag_node_unary(node, AG_UNARY_POW, number(node));
}

static void pow_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    double c = number(node);
    ag_var x = ag_node_input(node, 0);
    dx[0] = ag_mul(dy, c == 0.0 ? ag_scalar_like(x, 0.0) : ag_scale(ag_pow(x, c - 1.0), c));
}

const ag_op ag_op_pow = {
    .name = "pow", .forward = pow_forward, .vjp = pow_vjp, .options_size = sizeof(double)
};

ag_var ag_pow(ag_var x, double exponent)
{
    return ag_run(&ag_op_pow, &x, 1, &exponent);
}

/* ---- Comparisons: no gradient ---- */

static void equal_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_EQUAL);
}

const ag_op ag_op_equal = { .name = "equal",
                            .forward = equal_forward,
                            .branches = ag_branches_by_result };

ag_var ag_equal(ag_var a, ag_var b)
{
    return apply_two(&ag_op_equal, a, b);
}

static void greater_forward(ag_node *node)
{
    ag_node_binary(node, AG_BINARY_GREATER);
}

const ag_op ag_op_greater = { .name = "greater",
                              .forward = greater_forward,
                              .branches = ag_branches_by_result };

ag_var ag_greater(ag_var a, ag_var b)
{
    return apply_two(&ag_op_greater, a, b);
}
