/* Branches: which piece of a piecewise function was taken.
 *
 * ReLU, |x|, max, comparisons and the like decide by their operands. While a
 * gradient check watches, every decision goes into one number: two evaluations
 * with the same number ran through the same formulas, with different numbers
 * they have a kink or a jump between them. A tie is a decision of its own.
 */
#include "internal.h"

#include <float.h>
#include <math.h>

void ag_branches_watch(ag_context *context)
{
    context->tape->watch = (ag_watch){ .on = true };
}

/* Whether results are operands, or numbers that they were compared with, and not rounded. */
static bool is_exact(const ag_op *op)
{
    return op->branches || op == &ag_op_reshape || op == &ag_op_contiguous || op == &ag_op_concat ||
           op == &ag_op_unslice || op == &ag_op_neg;
}

/* As if the operation had rounded another way (Parker 1997, "Monte Carlo arithmetic"). Results are
 * rounded relative to their size, but log-softmax is a difference of numbers of size 1. Not all by
 * the same amount, for what one operation does another could undo. */
static void jiggle(const ag_node *node, ag_random *random)
{
    double *y = node->value.data, size = node->op == &ag_op_log_softmax ? 1.0 : 0.0;
    if (!node->owns_data || node->value.dtype != AG_F64 || is_exact(node->op))
        return;
    for (int64_t i = 0; i < ag_tensor_count(&node->value); i++)
        if (isfinite(y[i]))
            y[i] += (6.0 * ag_random_uniform(random) - 3.0) * DBL_EPSILON * (y[i] + size);
}

void ag_branches_note(const ag_node *node)
{
    ag_tape *tape = ag_node_context(node)->tape;
    if (tape->watch.jiggle)
        jiggle(node, tape->watch.jiggle);
    if (node->value.dtype == AG_F32) {
        tape->watch.seen_f32 = true;
        tape->watch.in_f32 |= node->owns_data && node->op != &ag_op_cast && !is_exact(node->op);
    }
    if (node->op->branches)
        node->op->branches(node);
}

void ag_note_branch(ag_context *context, int64_t decision)
{
    if (!context || !context->tape || !context->tape->watch.on)
        return;
    uint64_t x = context->tape->watch.branches + (uint64_t)decision + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    context->tape->watch.branches = x ^ (x >> 31);
}

static int sign_of(double x)
{
    return isnan(x) ? 2 : (x > 0.0) - (x < 0.0);
}

void ag_branches_note_signs(const ag_node *node, const ag_tensor *x)
{
    for (int64_t i = 0; i < ag_tensor_count(x); i++)
        ag_note_branch(ag_node_context(node), sign_of(ag_tensor_at(x, i)));
}

void ag_branches_by_sign(const ag_node *node)
{
    ag_branches_note_signs(node, ag_input_value(node, 0));
}

void ag_branches_by_result(const ag_node *node)
{
    for (int64_t i = 0; i < ag_tensor_count(&node->value); i++)
        ag_note_branch(ag_node_context(node), ag_to_int64(ag_tensor_at(&node->value, i)));
}

/* kind(a, b) as wide as shape, in the dtype of a; its signs are the decisions. */
static void note_signs_of(const ag_node *node, ag_binary kind, const ag_tensor *a,
                          const ag_tensor *b, ag_shape shape)
{
    ag_tensor result;
    ag_context *context = ag_node_context(node);
    if (ag_tensor_allocate(context, AG_STEP, a->dtype, shape, &result) &&
        ag_compute_binary(context, kind, a, b, &result))
        ag_branches_note_signs(node, &result);
}

/* The sign of a - b tells which is larger; two infinities of one sign give NaN, a tie too. */
void ag_branches_by_order(const ag_node *node)
{
    note_signs_of(node, AG_BINARY_SUB, ag_input_value(node, 0), ag_input_value(node, 1),
                  ag_tensor_shape(&node->value));
}

void ag_branches_note_winners(const ag_node *node, const ag_tensor *x, const ag_tensor *y)
{
    note_signs_of(node, AG_BINARY_EQUAL, x, y, ag_tensor_shape(x));
}
