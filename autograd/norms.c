/* Norms of rows, over the last axis, with d its size.
 *
 *   layer norm   forward    h = (x - mean x) r,   r = 1 / sqrt(mean (x - mean x)^2 + epsilon)
 *                           y = h gain + bias
 *                backward   g = dy gain
 *                           dx = r (g - mean g - h mean(g h))
 *
 *   RMS norm     forward    h = x r,              r = 1 / sqrt(mean x^2 + epsilon)
 *                           y = h gain
 *                backward   dx = r (g - h mean(g h))
 *
 *   both                    dgain = dy h,  dbias = dy,  summed over all rows
 *
 * The two means in dx are there because every x_j moves the mean and the
 * spread of its row: what is left of g has no part along the row of ones and
 * none along h, the two directions in which x may move without moving h.
 *
 * Layer norm: Ba, Kiros, Hinton 2016; RMS norm: Zhang, Sennrich 2019.
 */
#include "internal.h"

#include <math.h>

/* Inputs: x, and then gain and bias as far as they are given. */
typedef struct norm_options {
    double epsilon;
    bool gain, bias;
} norm_options;

static int gain_input(const ag_node *node)
{
    const norm_options *options = ag_node_options(node);
    return options->gain ? 1 : -1;
}

static int bias_input(const ag_node *node)
{
    const norm_options *options = ag_node_options(node);
    return options->bias ? (options->gain ? 2 : 1) : -1;
}

/* ---- Forward ---- */

/* Input i of x's dtype, [d]. */
static bool check_row(const ag_node *node, const ag_tensor *x, int i, const char *what)
{
    char x_text[160], text[160];
    const ag_tensor *row = ag_node_input_value(node, i);
    if (!ag_node_same_dtype(node, 0, i))
        return false;
    if (row->rank == 1 && row->dims[0] == x->dims[x->rank - 1])
        return true;
    return ag_node_fail(node, AG_ERR_SHAPE, "%s %s does not fit the last axis of %s", what,
                        ag_node_describe(node, i, text, sizeof text),
                        ag_node_describe(node, 0, x_text, sizeof x_text));
}

static bool check_operands(const ag_node *node)
{
    char text[160];
    const ag_tensor *x = ag_node_float_input(node, 0);
    int gain = gain_input(node), bias = bias_input(node);
    if (!x)
        return false;
    if (x->rank < 1)
        return ag_node_fail(node, AG_ERR_SHAPE, "%s has no axis",
                            ag_node_describe(node, 0, text, sizeof text));
    return (gain < 0 || check_row(node, x, gain, "gain")) &&
           (bias < 0 || check_row(node, x, bias, "bias"));
}

/* *dense = input i, and given points to it; NULL for an absent input. */
static bool dense_input(const ag_node *node, int i, ag_tensor *dense, const ag_tensor **given)
{
    const ag_tensor *value = ag_node_input_value(node, i);
    *given = value ? dense : NULL;
    return !value || ag_tensor_dense(ag_node_context(node), value, dense);
}

static void norm_forward(ag_node *node, ag_norm_rows kind)
{
    const norm_options *options = ag_node_options(node);
    ag_tensor rows[3];
    const ag_tensor *x, *gain, *bias;
    if (!check_operands(node) || !dense_input(node, 0, &rows[0], &x) ||
        !dense_input(node, gain_input(node), &rows[1], &gain) ||
        !dense_input(node, bias_input(node), &rows[2], &bias))
        return;
    int64_t count = ag_shape_count(ag_shape_make(x->rank - 1, x->dims));
    ag_tensor *y = ag_node_output_like(node, x);
    ag_tensor *statistics =
        y ? ag_node_save(node, x->dtype, AG_SHAPE(count, AG_NORM_STATISTICS)) : NULL;
    if (statistics)
        ag_compute_norm(ag_node_context(node), kind, options->epsilon, x, gain, bias, y,
                        statistics);
}

/* ---- Backward ---- */

static ag_var row_mean(ag_var x)
{
    return ag_mean(x, -1, AG_KEEP_DIM);
}

/* r of the formulas, from x or x - mean x. */
static ag_var reciprocal_spread(const ag_node *node, ag_var x)
{
    const norm_options *options = ag_node_options(node);
    return ag_rsqrt(ag_shift(row_mean(ag_square(x)), options->epsilon));
}

static void norm_vjp(const ag_node *node, ag_norm_rows kind, ag_var dy, ag_var *dx)
{
    const bool centred = kind == AG_ROWS_LAYER_NORM;
    const int gain = gain_input(node), bias = bias_input(node);
    if (ag_node_needs(node, bias))
        dx[bias] = ag_unbroadcast(dy, ag_node_input(node, bias));
    if (!ag_node_needs(node, 0) && !ag_node_needs(node, gain))
        return;
    ag_var x = ag_node_input(node, 0);
    if (centred)
        x = ag_sub(x, row_mean(x));
    ag_var r = reciprocal_spread(node, x), h = ag_mul(x, r);
    if (ag_node_needs(node, gain))
        dx[gain] = ag_unbroadcast(ag_mul(dy, h), ag_node_input(node, gain));
    if (!ag_node_needs(node, 0))
        return;
    ag_var g = gain < 0 ? dy : ag_mul(dy, ag_node_input(node, gain));
    ag_var along_h = ag_mul(h, row_mean(ag_mul(g, h)));
    if (centred)
        g = ag_sub(g, row_mean(g));
    dx[0] = ag_mul(r, ag_sub(g, along_h));
}

static void norm_vjp_fused(const ag_node *node, ag_norm_rows kind, ag_var dy, ag_var *dx)
{
    ag_context *context = ag_node_context(node);
    const int gain_at = gain_input(node);
    ag_tensor rows[2], dense;
    const ag_tensor *x, *gain;
    ag_norm_gradients gradients;
    if (dense_input(node, 0, &rows[0], &x) && dense_input(node, gain_at, &rows[1], &gain) &&
        ag_tensor_dense(context, ag_value(dy), &dense) &&
        ag_new_gradient(node, 0, dx, &gradients.x) &&
        ag_new_gradient(node, gain_at, dx, &gradients.gain) &&
        ag_new_gradient(node, bias_input(node), dx, &gradients.bias))
        ag_compute_norm_backward(context, kind, x, gain, ag_node_saved(node), &dense, &gradients);
}

/* ---- The operations ---- */

static void layer_norm_forward(ag_node *node)
{
    norm_forward(node, AG_ROWS_LAYER_NORM);
}

static void layer_norm_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    norm_vjp(node, AG_ROWS_LAYER_NORM, dy, dx);
}

static void layer_norm_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    norm_vjp_fused(node, AG_ROWS_LAYER_NORM, dy, dx);
}

const ag_op ag_op_layer_norm = { .name = "layer_norm",
                                 .forward = layer_norm_forward,
                                 .vjp = layer_norm_vjp,
                                 .vjp_fused = layer_norm_vjp_fused,
                                 .options_size = sizeof(norm_options) };

static void rms_norm_forward(ag_node *node)
{
    norm_forward(node, AG_ROWS_RMS_NORM);
}

static void rms_norm_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    norm_vjp(node, AG_ROWS_RMS_NORM, dy, dx);
}

static void rms_norm_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    norm_vjp_fused(node, AG_ROWS_RMS_NORM, dy, dx);
}

const ag_op ag_op_rms_norm = { .name = "rms_norm",
                               .forward = rms_norm_forward,
                               .vjp = rms_norm_vjp,
                               .vjp_fused = rms_norm_vjp_fused,
                               .options_size = sizeof(norm_options) };

static ag_var norm(const ag_op *op, ag_var x, ag_var gain, ag_var bias, double epsilon)
{
    norm_options options = { .epsilon = epsilon == 0 ? 1e-5 : epsilon,
                             .gain = !ag_is_none(gain),
                             .bias = !ag_is_none(bias) };
    ag_var inputs[3] = { x };
    int n = 1;
    if (options.gain)
        inputs[n++] = gain;
    if (options.bias)
        inputs[n++] = bias;
    if (!(options.epsilon > 0) || !isfinite(options.epsilon))
        ag_fail(x.context, AG_ERR_ARGUMENT,
                "%s: epsilon is %g, but must be a finite number above 0", op->name, epsilon);
    return ag_run(op, inputs, n, &options);
}

ag_var ag_layer_norm(ag_var x, ag_var gain, ag_var bias, double epsilon)
{
    return norm(&ag_op_layer_norm, x, gain, bias, epsilon);
}

ag_var ag_rms_norm(ag_var x, ag_var gain, double epsilon)
{
    return norm(&ag_op_rms_norm, x, gain, AG_NONE, epsilon);
}
