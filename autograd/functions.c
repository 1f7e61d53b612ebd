/* Functions of one operand, element by element. Each room holds the formula,
 * the forward call and the backward rule; y is the result, dy its gradient. */
#include "internal.h"

#define SQRT_HALF 0.70710678118654752440
#define INV_SQRT_TAU 0.39894228040143267794 /* 1 / sqrt(2 pi) */
#define TWO_OVER_SQRT_PI 1.12837916709551257390
#define GELU_SLOPE 0.79788456080286535588 /* sqrt(2 / pi) */
#define GELU_CUBIC 0.044715

static ag_var input(const ag_node *node)
{
    return ag_node_input(node, 0);
}

static ag_var one_minus(ag_var x)
{
    return ag_shift(ag_neg(x), 1.0);
}

/* What all of them have in common: name_forward calls the kernel, and ag_name
 * applies the operation, whose rule is name_vjp. */
#define FORWARD(name, kind)                      \
    static void name##_forward(ag_node *node)    \
    {                                            \
        ag_node_unary(node, AG_UNARY_##kind, 0); \
    }

#define OPERATION(function, fused) BRANCHING_OPERATION(function, fused, NULL)

/* One that is made of pieces. */
#define BRANCHING_OPERATION(function, fused, how)      \
    const ag_op ag_op_##function = {                   \
        .name = #function,                             \
        .forward = function##_forward,                 \
        .vjp = function##_vjp,                         \
        .vjp_fused = fused,                            \
        .branches = how,                               \
    };                                                 \
    ag_var ag_##function(ag_var x)                     \
    {                                                  \
        return ag_run(&ag_op_##function, &x, 1, NULL); \
    }

/* ---- y = -x           dx = -dy ---- */

FORWARD(neg, NEG)

static void neg_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_neg(dy);
}

OPERATION(neg, NULL)

/* ---- y = x^2          dx = 2 x dy ---- */

FORWARD(square, SQUARE)

static void square_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(ag_mul(dy, input(node)), 2.0);
}

OPERATION(square, NULL)

/* ---- y = sqrt x       dx = dy / (2 y) ---- */

FORWARD(sqrt, SQRT)

static void sqrt_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(ag_div(dy, ag_node_output(node)), 0.5);
}

OPERATION(sqrt, NULL)

/* ---- y = 1 / sqrt x   dx = -y^3 dy / 2 ---- */

FORWARD(rsqrt, RSQRT)

static void rsqrt_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var y = ag_node_output(node);
    dx[0] = ag_scale(ag_mul(dy, ag_mul(y, ag_square(y))), -0.5);
}

OPERATION(rsqrt, NULL)

/* ---- y = 1 / x        dx = -y^2 dy ---- */

FORWARD(reciprocal, RECIPROCAL)

static void reciprocal_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_neg(ag_mul(dy, ag_square(ag_node_output(node))));
}

OPERATION(reciprocal, NULL)

/* ---- y = exp x        dx = y dy ---- */

FORWARD(exp, EXP)

static void exp_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_node_output(node));
}

OPERATION(exp, NULL)

/* ---- y = log x        dx = dy / x ---- */

FORWARD(log, LOG)

static void log_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_div(dy, input(node));
}

OPERATION(log, NULL)

/* ---- y = sin x        dx = cos(x) dy ---- */

FORWARD(sin, SIN)

static void sin_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_cos(input(node)));
}

OPERATION(sin, NULL)

/* ---- y = cos x        dx = -sin(x) dy ---- */

FORWARD(cos, COS)

static void cos_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_neg(ag_mul(dy, ag_sin(input(node))));
}

OPERATION(cos, NULL)

/* ---- y = tanh x       dx = (1 - y^2) dy ---- */

FORWARD(tanh, TANH)

static void tanh_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var y = ag_node_output(node);
    dx[0] = ag_mul(dy, ag_mul(one_minus(y), ag_shift(y, 1.0))); /* 1 - y^2 would cancel */
}

static void tanh_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_TANH_BACKWARD, ag_node_output(node), dy);
}

OPERATION(tanh, tanh_vjp_fused)

/* ---- y = erf x        dx = 2 / sqrt(pi) exp(-x^2) dy ---- */

FORWARD(erf, ERF)

static void erf_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var slope = ag_exp(ag_neg(ag_square(input(node))));
    dx[0] = ag_scale(ag_mul(dy, slope), TWO_OVER_SQRT_PI);
}

OPERATION(erf, NULL)

/* ---- y = erfc x = 1 - erf x      dx = -2 / sqrt(pi) exp(-x^2) dy ---- */

FORWARD(erfc, ERFC)

static void erfc_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var slope = ag_exp(ag_neg(ag_square(input(node))));
    dx[0] = ag_scale(ag_mul(dy, slope), -TWO_OVER_SQRT_PI);
}

OPERATION(erfc, NULL)

/* ---- y = 1 / (1 + exp -x)    dx = y (1 - y) dy ---- */

FORWARD(sigmoid, SIGMOID)

static void sigmoid_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var y = ag_node_output(node);
    dx[0] = ag_mul(dy, ag_mul(y, one_minus(y)));
}

static void sigmoid_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_SIGMOID_BACKWARD, ag_node_output(node), dy);
}

OPERATION(sigmoid, sigmoid_vjp_fused)

/* ---- y = log(1 + exp x)      dx = sigmoid(x) dy ---- */

FORWARD(softplus, SOFTPLUS)

static void softplus_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_sigmoid(input(node)));
}

OPERATION(softplus, NULL)

/* ---- y = max(x, 0)    dx = dy where x > 0, else 0 ---- */

FORWARD(relu, RELU)

static void relu_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = input(node), zero = ag_scalar_like(x, 0.0);
    dx[0] = ag_where(ag_greater(x, zero), dy, zero);
}

static void relu_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_RELU_BACKWARD, input(node), dy);
}

BRANCHING_OPERATION(relu, relu_vjp_fused, ag_branches_by_sign)

/* ---- y = x P(x)       dx = (P(x) + x p(x)) dy, with the normal distribution
 *      P(x) = erfc(-x / sqrt 2) / 2    p(x) = P'(x) = exp(-x^2 / 2) / sqrt(2 pi)
 *      Hendrycks, Gimpel 2016 ---- */

FORWARD(gelu, GELU)

ag_var ag_gelu_slope(ag_var x)
{
    ag_var P = ag_scale(ag_erfc(ag_scale(x, -SQRT_HALF)), 0.5);
    ag_var p = ag_scale(ag_exp(ag_scale(ag_square(x), -0.5)), INV_SQRT_TAU);
    return ag_add(P, ag_mul(x, p));
}

static void gelu_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_gelu_slope(input(node)));
}

static void gelu_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_GELU_BACKWARD, input(node), dy);
}

OPERATION(gelu, gelu_vjp_fused)

/* ---- y = x s          s = (1 + tanh u) / 2 = sigmoid 2u    u = a (x + c x^3)
 *      dx = (s + 2 x s r u') dy    r = 1 - s = sigmoid -2u    u' = a (1 + 3 c x^2) ---- */

FORWARD(gelu_tanh, GELU_TANH)

static void gelu_tanh_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = input(node), xx = ag_square(x);
    ag_var u = ag_scale(ag_mul(x, ag_shift(ag_scale(xx, GELU_CUBIC), 1.0)), GELU_SLOPE);
    ag_var du = ag_scale(ag_shift(ag_scale(xx, 3.0 * GELU_CUBIC), 1.0), GELU_SLOPE);
    ag_var s = ag_sigmoid(ag_scale(u, 2.0)), r = ag_sigmoid(ag_scale(u, -2.0));
    ag_var slope = ag_scale(ag_mul(ag_mul(s, r), du), 2.0);
    dx[0] = ag_mul(dy, ag_add(s, ag_mul(x, slope)));
}

static void gelu_tanh_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_GELU_TANH_BACKWARD, input(node), dy);
}

OPERATION(gelu_tanh, gelu_tanh_vjp_fused)

/* ---- y = x s          dx = (s + x s r) dy    s = sigmoid x    r = 1 - s = sigmoid -x ---- */

FORWARD(silu, SILU)

static void silu_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = input(node), s = ag_sigmoid(x), r = ag_sigmoid(ag_neg(x));
    dx[0] = ag_mul(dy, ag_add(s, ag_mul(x, ag_mul(s, r))));
}

static void silu_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_fused_binary_onto(AG_BINARY_SILU_BACKWARD, input(node), dy);
}

OPERATION(silu, silu_vjp_fused)

/* ---- y = |x|          dx = sign(x) dy ---- */

FORWARD(abs, ABS)

static void abs_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_sign(input(node)));
}

BRANCHING_OPERATION(abs, NULL, ag_branches_by_sign)

/* ---- y = sign x: no gradient ---- */

FORWARD(sign, SIGN)

const ag_op ag_op_sign = { .name = "sign",
                           .forward = sign_forward,
                           .branches = ag_branches_by_result };

ag_var ag_sign(ag_var x)
{
    return ag_run(&ag_op_sign, &x, 1, NULL);
}
