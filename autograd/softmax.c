/* Softmax and its logarithm, over one axis.
 *
 *   softmax      forward    p_i = exp(x_i - max_j x_j) / sum_j exp(x_j - max_j x_j)
 *                backward   dx_i = p_i (dp_i - sum_j p_j dp_j)
 *
 *   log-softmax  forward    y_i = x_i - log sum_j exp x_j
 *                backward   dx_i = dy_i - exp(y_i) sum_j dy_j
 *
 * The sum in the backward rules is there because every x_i moves every result:
 * p_i rises with x_i, and all the others fall to make room.
 *
 * A row of which every x is -inf gives p = 0. The operations work on the last
 * axis; another axis is swapped there and back.
 */
#include "internal.h"

static void rows_forward(ag_node *node, ag_softmax_kind kind)
{
    ag_context *context = ag_node_context(node);
    const ag_tensor *x = ag_node_float_input(node, 0);
    ag_tensor dense, *y = x ? ag_node_output_like(node, x) : NULL;
    if (y && ag_tensor_dense(context, x, &dense))
        ag_compute_softmax(context, kind, &dense, y);
}

static void rows_vjp_fused(const ag_node *node, ag_softmax_kind kind, ag_var dy, ag_var *dx)
{
    ag_tensor *result, dense;
    ag_var y = ag_node_output(node);
    dx[0] = ag_empty_like(y, &result);
    if (result && ag_tensor_dense(y.context, ag_value(dy), &dense))
        ag_compute_softmax_backward(y.context, kind, ag_value(y), &dense, result);
}

/* ---- softmax ---- */

static void softmax_forward(ag_node *node)
{
    rows_forward(node, AG_ROWS_SOFTMAX);
}

static void softmax_vjp(const ag_node *node, ag_var dp, ag_var *dx)
{
    ag_var p = ag_node_output(node);
    dx[0] = ag_mul(p, ag_sub(dp, ag_sum(ag_mul(p, dp), -1, AG_KEEP_DIM)));
}

static void softmax_vjp_fused(const ag_node *node, ag_var dp, ag_var *dx)
{
    rows_vjp_fused(node, AG_ROWS_SOFTMAX, dp, dx);
}

const ag_op ag_op_softmax = { .name = "softmax",
                              .forward = softmax_forward,
                              .vjp = softmax_vjp,
                              .vjp_fused = softmax_vjp_fused };

/* ---- log-softmax ---- */

static void log_softmax_forward(ag_node *node)
{
    rows_forward(node, AG_ROWS_LOG_SOFTMAX);
}

static void log_softmax_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var p = ag_exp(ag_node_output(node));
    dx[0] = ag_sub(dy, ag_mul(p, ag_sum(dy, -1, AG_KEEP_DIM)));
}

static void log_softmax_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    rows_vjp_fused(node, AG_ROWS_LOG_SOFTMAX, dy, dx);
}

const ag_op ag_op_log_softmax = { .name = "log_softmax",
                                  .forward = log_softmax_forward,
                                  .vjp = log_softmax_vjp,
                                  .vjp_fused = log_softmax_vjp_fused };

/* ---- along any axis ---- */

static ag_var along_axis(const ag_op *op, ag_var x, int axis)
{
    ag_node *node = ag_node_require(x.context, op->name, x);
    int rank = node ? node->value.rank : 0;
    axis = node ? ag_axis_of(x, op->name, axis, rank) : -1;
    if (axis < 0)
        return ag_poisoned(x.context);
    if (axis == rank - 1)
        return ag_run(op, &x, 1, NULL);
    ag_var swapped = ag_transpose(x, axis, -1);
    return ag_transpose(ag_run(op, &swapped, 1, NULL), axis, -1);
}

ag_var ag_softmax(ag_var x, int axis)
{
    return along_axis(&ag_op_softmax, x, axis);
}

ag_var ag_log_softmax(ag_var x, int axis)
{
    return along_axis(&ag_op_log_softmax, x, axis);
}
