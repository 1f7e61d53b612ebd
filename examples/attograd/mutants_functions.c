/* Faults of the operations that work element by element. */
#include "mutants.h"

static ag_var input(const ag_node *node, int i)
{
    return ag_node_input(node, i);
}

static bool needs(const ag_node *node, int i)
{
    return ag_node_needs(node, i);
}

static double number(const ag_node *node)
{
    return *(const double *)ag_node_options(node);
}

/* A broadcast operand gets the first of the gradients that it should get the sum of. */
static void give_first(const ag_node *node, int i, ag_var g, ag_var *dx)
{
    if (needs(node, i))
        dx[i] = ag_first_of(g, ag_shape_of(input(node, i)));
}

/* ---- Arithmetic ---- */

static void add_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    give_first(node, 0, dy, dx);
    give_first(node, 1, dy, dx);
}

static void sub_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    give_first(node, 0, dy, dx);
    give_first(node, 1, ag_neg(dy), dx);
}

static void mul_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    give_first(node, 0, ag_mul(dy, input(node, 1)), dx);
    give_first(node, 1, ag_mul(dy, input(node, 0)), dx);
}

static void mul_by_itself(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 0; i < 2; i++)
        if (needs(node, i))
            dx[i] = ag_sum_to(ag_mul(dy, input(node, i)), ag_shape_of(input(node, i)));
}

static void div_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var b = input(node, 1), y = ag_node_output(node);
    give_first(node, 0, ag_div(dy, b), dx);
    give_first(node, 1, ag_neg(ag_div(ag_mul(dy, y), b)), dx);
}

static void div_by_b(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (needs(node, 1)) /* -a / b for -a / b^2 */
        dx[1] = ag_mul(dx[1], input(node, 1));
}

static void div_without_a(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var b = input(node, 1);
    ag_right_rule(node, dy, dx);
    if (needs(node, 1))
        dx[1] = ag_neg(ag_sum_to(ag_div(dy, ag_square(b)), ag_shape_of(b)));
}

/* dy to the operand that lost. */
static void loser(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var y = ag_node_output(node);
    for (int i = 0; i < 2; i++)
        if (needs(node, i)) {
            ag_var won = ag_equal(y, ag_broadcast_to(input(node, i), ag_shape_of(y)));
            dx[i] = ag_sum_to(ag_sub(dy, ag_mul(won, dy)), ag_shape_of(input(node, i)));
        }
}

/* dy to both. */
static void both(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 0; i < 2; i++)
        if (needs(node, i))
            dx[i] = ag_sum_to(dy, ag_shape_of(input(node, i)));
}

static void just_dy(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

static void shift_times_number(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(dy, number(node));
}

/* ---- dx = dy times a slope ---- */

#define SLOPE(name, slope)                                           \
    static void name(const ag_node *node, ag_var dy, ag_var *dx)     \
    {                                                                \
        ag_var x = ag_node_input(node, 0), y = ag_node_output(node); \
        (void)x, (void)y;                                            \
        dx[0] = ag_mul(dy, slope);                                   \
    }

#define SQRT_HALF 0.70710678118654752440
#define INV_SQRT_TAU 0.39894228040143267794
#define TWO_OVER_SQRT_PI 1.12837916709551257390
#define GELU_SLOPE 0.79788456080286535588
#define GELU_CUBIC 0.044715

static ag_var normal_below(ag_var x) /* P of gelu: half of erfc(-x / sqrt 2) */
{
    return ag_scale(ag_erfc(ag_scale(x, -SQRT_HALF)), 0.5);
}

static ag_var normal_density(ag_var x) /* its derivative p */
{
    return ag_scale(ag_exp(ag_scale(ag_square(x), -0.5)), INV_SQRT_TAU);
}

ag_var ag_slope_of_gelu(ag_var x)
{
    return ag_add(normal_below(x), ag_mul(x, normal_density(x)));
}

/* x s with s = sigmoid 2u, u = a (x + c x^3); the derivative is s + 2 x s (1 - s) u'. */
static ag_var slope_of_gelu_tanh(ag_var x, double cubic)
{
    ag_var xx = ag_square(x);
    ag_var u = ag_scale(ag_mul(x, ag_shift(ag_scale(xx, GELU_CUBIC), 1.0)), GELU_SLOPE);
    ag_var du = ag_scale(ag_shift(ag_scale(xx, cubic), 1.0), GELU_SLOPE);
    ag_var s = ag_sigmoid(ag_scale(u, 2.0)), r = ag_sigmoid(ag_scale(u, -2.0));
    return ag_add(s, ag_scale(ag_mul(x, ag_mul(ag_mul(s, r), du)), 2.0));
}

ag_var ag_slope_of_gelu_tanh(ag_var x)
{
    return slope_of_gelu_tanh(x, 3.0 * GELU_CUBIC);
}

/* s (1 - s) */
static ag_var sigmoid_slope(ag_var x)
{
    return ag_mul(ag_sigmoid(x), ag_sigmoid(ag_neg(x)));
}

SLOPE(pow_same_exponent, ag_scale(ag_pow(x, number(node)), number(node)))
SLOPE(pow_no_factor, ag_pow(x, number(node) - 1.0))
SLOPE(pow_next_factor, ag_scale(ag_pow(x, number(node) - 1.0), number(node) + 1.0))
SLOPE(square_no_two, x)
SLOPE(sqrt_no_half, ag_reciprocal(y))
SLOPE(rsqrt_y_squared, ag_scale(ag_square(y), -0.5))
SLOPE(reciprocal_no_square, ag_neg(y))
SLOPE(exp_of_nothing, x)
SLOPE(log_by_y, ag_reciprocal(y))
SLOPE(is_y, y)
SLOPE(minus_y, ag_neg(y))
SLOPE(tanh_no_square, ag_shift(ag_neg(y), 1.0))
SLOPE(tanh_of_x, ag_shift(ag_neg(ag_square(x)), 1.0))
SLOPE(erf_no_factor, ag_exp(ag_neg(ag_square(x))))
SLOPE(erf_no_square, ag_scale(ag_exp(ag_neg(x)), TWO_OVER_SQRT_PI))
SLOPE(erfc_no_factor, ag_neg(ag_exp(ag_neg(ag_square(x)))))
SLOPE(erfc_no_square, ag_scale(ag_exp(ag_neg(x)), -TWO_OVER_SQRT_PI))
SLOPE(sigmoid_plus, ag_mul(y, ag_shift(y, 1.0)))
SLOPE(softplus_of_minus, ag_sigmoid(ag_neg(x)))
SLOPE(relu_by_dy, ag_greater(dy, ag_scale(dy, 0.0)))
SLOPE(relu_leaky, ag_maximum(ag_sign(x), ag_scalar(x.context, 0.01)))
SLOPE(gelu_no_density, normal_below(x))
SLOPE(gelu_no_below, ag_mul(x, normal_density(x)))
SLOPE(gelu_as_tanh, ag_slope_of_gelu_tanh(x))
SLOPE(gelu_tanh_as_erf, ag_slope_of_gelu(x))
SLOPE(gelu_tanh_no_three, slope_of_gelu_tanh(x, GELU_CUBIC))
SLOPE(silu_no_second, ag_sigmoid(x))
SLOPE(silu_no_x, ag_add(ag_sigmoid(x), sigmoid_slope(x)))

/* ---- The table ---- */

#define READS (1u << AG_FAULT_STALE | 1u << AG_FAULT_DRIFTED)
#define DRIFTS (1u << AG_FAULT_DRIFTED)
static const char linear[] = "the rule reads no values";
static const char pieces[] = "the rule reads only which piece the values are on";

#define FIRST 1u
#define BOTH 3u

const ag_mutated_op ag_mutated_functions[] = {
    { "add", BOTH, READS, linear, { { "broadcast operand not summed", add_unsummed } } },
    { "sub", BOTH, READS, linear, { { "broadcast operand not summed", sub_unsummed } } },
    { "mul",
      BOTH,
      0,
      NULL,
      { { "broadcast operand not summed", mul_unsummed }, { "a for b", mul_by_itself } } },
    { "div",
      BOTH,
      0,
      NULL,
      { { "broadcast operand not summed", div_unsummed },
        { "db without the square", div_by_b },
        { "db without a", div_without_a } } },
    { "maximum", BOTH, DRIFTS, pieces, { { "winner inverted", loser }, { "both win", both } } },
    { "minimum", BOTH, DRIFTS, pieces, { { "winner inverted", loser }, { "both win", both } } },
    { "scale", FIRST, READS | ONE_TERM, linear, { { "no factor", just_dy } } },
    { "shift", FIRST, READS | ONE_TERM, linear, { { "times the summand", shift_times_number } } },
    { "pow",
      FIRST,
      ONE_TERM,
      NULL,
      { { "exponent off by one", pow_same_exponent },
        { "no factor", pow_no_factor },
        { "factor off by one", pow_next_factor } } },
    { "neg", FIRST, READS | ONE_TERM, linear, { { "no sign", just_dy } } },
    { "square", FIRST, ONE_TERM, NULL, { { "no 2", square_no_two } } },
    { "sqrt", FIRST, ONE_TERM, NULL, { { "no 1 / 2", sqrt_no_half } } },
    { "rsqrt", FIRST, ONE_TERM, NULL, { { "y^2 for y^3", rsqrt_y_squared } } },
    { "reciprocal", FIRST, ONE_TERM, NULL, { { "y for y^2", reciprocal_no_square } } },
    { "exp", FIRST, ONE_TERM, NULL, { { "x for y", exp_of_nothing } } },
    { "log", FIRST, ONE_TERM, NULL, { { "y for x", log_by_y } } },
    { "sin", FIRST, ONE_TERM, NULL, { { "sin for cos", is_y }, { "-sin for cos", minus_y } } },
    { "cos", FIRST, ONE_TERM, NULL, { { "-cos for -sin", minus_y } } },
    { "tanh", FIRST, ONE_TERM, NULL, { { "1 - y", tanh_no_square }, { "1 - x^2", tanh_of_x } } },
    { "erf",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no 2 / sqrt pi", erf_no_factor }, { "exp -x", erf_no_square } } },
    { "erfc",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no 2 / sqrt pi", erfc_no_factor }, { "exp -x", erfc_no_square } } },
    { "sigmoid", FIRST, ONE_TERM, NULL, { { "y (1 + y)", sigmoid_plus }, { "y", is_y } } },
    { "softplus", FIRST, ONE_TERM, NULL, { { "sigmoid -x", softplus_of_minus } } },
    { "relu",
      FIRST,
      DRIFTS | ONE_TERM,
      pieces,
      { { "no mask", just_dy }, { "mask of dy", relu_by_dy }, { "leaky", relu_leaky } } },
    { "gelu",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no x p(x)", gelu_no_density },
        { "no P(x)", gelu_no_below },
        { "slope of gelu_tanh", gelu_as_tanh } } },
    { "gelu_tanh",
      FIRST,
      ONE_TERM,
      NULL,
      { { "slope of gelu", gelu_tanh_as_erf }, { "x^2 for 3 x^2", gelu_tanh_no_three } } },
    { "silu",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no x s (1 - s)", silu_no_second }, { "s (1 - s) without x", silu_no_x } } },
    { "abs", FIRST, DRIFTS | ONE_TERM, pieces, { { "no sign", just_dy } } },
    { NULL, 0, 0, NULL, { { NULL, NULL } } },
};
