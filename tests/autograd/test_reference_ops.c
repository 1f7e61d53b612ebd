/* Operations against numbers computed in f64 by another program: values, gradients with a
 * cotangent that is not uniform, and for functions of one operand the second derivative. */
#include "../../autograd/autograd.h"
#include "../reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

/* ---- The comparison itself ---- */

Test(reference_ops, comparison_refuses_what_differs)
{
    ag_context *ctx = ag_reference_context();
    const ag_tensor *want = ag_reference_read(ctx, "softmax_some_y");
    ag_tensor *got = ag_tensor_new(ctx, AG_KEEP, AG_F64, ag_tensor_shape(want));
    char text[512];
    ag_tensor_copy(ctx, got, want);
    cr_expect(ag_reference_agrees(got, want, text, sizeof text));
    cr_expect_not(ag_reference_agrees(NULL, want, text, sizeof text));
    ag_tensor part = ag_reference_part(got, 0, 0);
    cr_expect_not(ag_reference_agrees(&part, want, text, sizeof text));

    const double wrong[] = { ag_tensor_at(want, 7) * (1 + 1e-9), NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 4; i++) {
        ag_tensor_put(got, 7, wrong[i]);
        cr_expect_not(ag_reference_agrees(got, want, text, sizeof text), "%g passed", wrong[i]);
    }
    ag_tensor_put(got, 7, ag_tensor_at(want, 7) * (1 + 1e-13));
    cr_expect(ag_reference_agrees(got, want, text, sizeof text));
    ag_reference_finish(ctx);
}

/* ---- Functions along an axis ---- */

/* Files NAME_y and NAME_dx hold the results along axis 0, 1, 2. */
static void check_axes(const char *name, const char *x_name, ag_var (*f)(ag_var x, int axis),
                       const char *cotangent_name)
{
    for (int axis = 0; axis < 3; axis++) {
        ag_context *ctx = ag_reference_context();
        ag_var x = ag_reference_input(ctx, x_name);
        ag_var cotangent = ag_reference_constant(ctx, cotangent_name);
        ag_tensor y = ag_reference_part(ag_reference_read(ctx, "%s_y", name), 0, axis);
        ag_tensor dx = ag_reference_part(ag_reference_read(ctx, "%s_dx", name), 0, axis);
        char text[64];
        snprintf(text, sizeof text, "%s, axis %d", name, axis);
        ag_var result = f(x, axis - 3 * (axis % 2)); /* axis 1 under its other name, -2 */
        ag_reference_expect(text, ag_value(result), &y);
        ag_reference_expect_gradients(text, result, cotangent,
                                      &(ag_reference_gradient){ "x", x, &dx }, 1);
        ag_reference_finish(ctx);
    }
}

Test(reference_ops, softmax_with_masked_entries)
{
    check_axes("softmax_some", "softmax_some_x", ag_softmax, "softmax_cotangent");
}

Test(reference_ops, softmax_with_masked_lines)
{
    check_axes("softmax_full", "softmax_full_x", ag_softmax, "softmax_cotangent");
}

Test(reference_ops, softmax_huge_scores)
{
    check_axes("softmax_huge", "softmax_huge_x", ag_softmax, "softmax_cotangent");
}

Test(reference_ops, log_softmax_with_masked_entries)
{
    check_axes("log_softmax_some", "softmax_some_x", ag_log_softmax, "softmax_cotangent");
}

Test(reference_ops, log_softmax_huge_scores)
{
    check_axes("log_softmax_huge", "softmax_huge_x", ag_log_softmax, "softmax_cotangent");
}

Test(reference_ops, cumsum)
{
    check_axes("cumsum", "cumsum_x", ag_cumsum, "cumsum_cotangent");
}

/* Reductions: the axis is gone from y, and the cotangent is the first slice along it. */
static void check_reduction(const char *name, const char *x_name,
                            ag_var (*f)(ag_var x, int axis, unsigned flags),
                            const char *cotangent_name)
{
    for (int axis = 0; axis < 3; axis++) {
        ag_context *ctx = ag_reference_context();
        ag_var x = ag_reference_input(ctx, x_name);
        ag_tensor c = ag_reference_part(ag_reference_read(ctx, "%s", cotangent_name), axis, 0);
        ag_tensor dx = ag_reference_part(ag_reference_read(ctx, "%s_dx", name), 0, axis);
        char text[64];
        snprintf(text, sizeof text, "%s, axis %d", name, axis);
        ag_var result = f(x, axis, 0);
        ag_reference_expect(text, ag_value(result), ag_reference_read(ctx, "%s_y%d", name, axis));
        ag_reference_expect_gradients(text, result, ag_from_tensor(ctx, &c),
                                      &(ag_reference_gradient){ "x", x, &dx }, 1);
        ag_reference_finish(ctx);
    }
}

Test(reference_ops, logsumexp_with_masked_entries)
{
    check_reduction("logsumexp_some", "softmax_some_x", ag_logsumexp, "softmax_cotangent");
}

Test(reference_ops, logsumexp_with_masked_lines)
{
    check_reduction("logsumexp_full", "softmax_full_x", ag_logsumexp, "softmax_cotangent");
}

Test(reference_ops, logsumexp_huge_scores)
{
    check_reduction("logsumexp_huge", "softmax_huge_x", ag_logsumexp, "softmax_cotangent");
}

Test(reference_ops, max_shares_between_equal_winners)
{
    check_reduction("ties_max", "ties_a", ag_max, "ties_cotangent");
}

/* ---- Two operands ---- */

static void check_binary(const char *name, const char *const files[3], ag_var (*f)(ag_var, ag_var))
{
    ag_context *ctx = ag_reference_context();
    ag_var a = ag_reference_input(ctx, files[0]), b = ag_reference_input(ctx, files[1]);
    ag_var y = f(a, b);
    ag_reference_expect(name, ag_value(y), ag_reference_read(ctx, "%s_y", name));
    const ag_reference_gradient gradients[] = {
        { "a", a, ag_reference_read(ctx, "%s_da", name) },
        { "b", b, ag_reference_read(ctx, "%s_db", name) },
    };
    ag_reference_expect_gradients(name, y, ag_reference_constant(ctx, files[2]), gradients, 2);
    ag_reference_finish(ctx);
}

Test(reference_ops, maximum_and_minimum_share_ties)
{
    static const char *const files[] = { "ties_a", "ties_b", "ties_cotangent" };
    check_binary("ties_maximum", files, ag_maximum);
    check_binary("ties_minimum", files, ag_minimum);
}

Test(reference_ops, matmul_with_broadcast_batch)
{
    static const char *const files[] = { "matmul_a", "matmul_b", "matmul_cotangent" };
    check_binary("matmul", files, ag_matmul);
}

/* ---- One operand, element by element ---- */

/* a_i *= b_i */
static void multiply(ag_tensor *a, const ag_tensor *b)
{
    for (int64_t k = 0; k < ag_tensor_count(a); k++)
        ag_tensor_put(a, k, ag_tensor_at(a, k) * ag_tensor_at(b, k));
}

/* NAME.npy holds the rows f, f', f''. With cotangents c and d, y = f(x) has the gradient
 * g = c f'(x), and g has the gradient d c f''(x). */
static void check_unary(const char *name, ag_var (*f)(ag_var x), const char *x_name)
{
    ag_context *ctx = ag_reference_context();
    ag_var x = ag_reference_input(ctx, x_name);
    const ag_tensor *rows = ag_reference_read(ctx, "unary_%s", name);
    int64_t n = rows->dims[1];
    ag_tensor y = ag_reference_part(rows, 0, 0), dx = ag_reference_part(rows, 0, 1);
    ag_tensor ddx = ag_reference_part(rows, 0, 2);
    const ag_tensor *cotangents = ag_reference_read(ctx, "unary_cotangents");
    ag_tensor c = ag_reference_part(cotangents, 0, 0), d = ag_reference_part(cotangents, 0, 1);
    c.dims[0] = d.dims[0] = n;
    multiply(&dx, &c);
    multiply(&ddx, &c);
    multiply(&ddx, &d);

    ag_var result = f(x), g, h;
    ag_reference_expect(name, ag_value(result), &y);
    bool done = ag_grad_from(result, ag_from_tensor(ctx, &c), &x, 1, &g, AG_CREATE_GRAPH) &&
                ag_grad_from(g, ag_from_tensor(ctx, &d), &x, 1, &h, 0);
    cr_assert(done, "%s: %s", name, ag_error_message(ctx));
    char text[64];
    snprintf(text, sizeof text, "%s, second derivative,", name);
    ag_reference_expect(text, ag_value(h), &ddx);
    ag_reference_expect_gradients(name, result, ag_from_tensor(ctx, &c),
                                  &(ag_reference_gradient){ "x", x, &dx }, 1);
    ag_reference_finish(ctx);
}

Test(reference_ops, gelu)
{
    check_unary("gelu", ag_gelu, "unary_x");
}

Test(reference_ops, gelu_tanh)
{
    check_unary("gelu_tanh", ag_gelu_tanh, "unary_x");
}

Test(reference_ops, unary)
{
    check_unary("silu", ag_silu, "unary_x");
    check_unary("sigmoid", ag_sigmoid, "unary_x");
    check_unary("softplus", ag_softplus, "unary_x");
    check_unary("tanh", ag_tanh, "unary_x");
    check_unary("erf", ag_erf, "unary_x");
    check_unary("sin", ag_sin, "unary_x");
    check_unary("cos", ag_cos, "unary_x");
}

static ag_var pow_2_7(ag_var x)
{
    return ag_pow(x, 2.7);
}

Test(reference_ops, unary_positive)
{
    check_unary("exp", ag_exp, "unary_x_positive");
    check_unary("log", ag_log, "unary_x_positive");
    check_unary("sqrt", ag_sqrt, "unary_x_positive");
    check_unary("rsqrt", ag_rsqrt, "unary_x_positive");
    check_unary("reciprocal", ag_reciprocal, "unary_x_positive");
    check_unary("pow", pow_2_7, "unary_x_positive");
}

/* ---- Losses ---- */

/* The cotangent of every loss. */
#define LOSS_COTANGENT 0.7

static void check_cross_entropy(const char *scores, ag_reduction reduction, bool ignore)
{
    ag_context *ctx = ag_reference_context();
    char text[96], x_name[64];
    snprintf(text, sizeof text, "cross_entropy_%s_%s%s", scores,
             reduction == AG_MEAN ? "mean" : "sum", ignore ? "_ignore" : "");
    snprintf(x_name, sizeof x_name, "cross_entropy_%s_x", scores);
    ag_var x = ag_reference_input(ctx, x_name);
    ag_var labels =
        ag_reference_constant(ctx, ignore ? "cross_entropy_labels_ignore" : "cross_entropy_labels");
    ag_var loss =
        ag_cross_entropy_with(x, labels,
                              &(ag_cross_entropy_options){
                                  .ignore = ignore, .ignore_index = -100, .reduction = reduction });
    ag_reference_expect(text, ag_value(loss), ag_reference_read(ctx, "%s_y", text));
    const ag_reference_gradient dx = { "logits", x, ag_reference_read(ctx, "%s_dx", text) };
    ag_reference_expect_gradients(text, loss, ag_scalar(ctx, LOSS_COTANGENT), &dx, 1);
    ag_reference_finish(ctx);
}

Test(reference_ops, cross_entropy)
{
    for (int ignore = 0; ignore < 2; ignore++) {
        check_cross_entropy("normal", AG_MEAN, ignore);
        check_cross_entropy("normal", AG_SUM, ignore);
    }
}

Test(reference_ops, cross_entropy_huge_scores)
{
    for (int ignore = 0; ignore < 2; ignore++) {
        check_cross_entropy("huge", AG_MEAN, ignore);
        check_cross_entropy("huge", AG_SUM, ignore);
    }
}

static void check_binary_cross_entropy(ag_reduction reduction, bool targets_learn)
{
    ag_context *ctx = ag_reference_context();
    const char *kind = reduction == AG_MEAN ? "mean" : "sum";
    ag_var x = ag_reference_input(ctx, "binary_cross_entropy_x");
    ag_var t = ag_reference_constant(ctx, "binary_cross_entropy_t");
    if (targets_learn)
        t = ag_require_gradient(t);
    ag_var loss = ag_binary_cross_entropy(x, t, reduction);
    ag_reference_expect("binary_cross_entropy", ag_value(loss),
                        ag_reference_read(ctx, "binary_cross_entropy_%s_y", kind));
    const ag_reference_gradient gradients[] = {
        { "logits", x, ag_reference_read(ctx, "binary_cross_entropy_%s_dx", kind) },
        { "targets", t, ag_reference_read(ctx, "binary_cross_entropy_%s_dt", kind) },
    };
    ag_reference_expect_gradients("binary_cross_entropy", loss, ag_scalar(ctx, LOSS_COTANGENT),
                                  gradients, targets_learn ? 2 : 1);
    ag_reference_finish(ctx);
}

Test(reference_ops, binary_cross_entropy)
{
    check_binary_cross_entropy(AG_MEAN, false);
    check_binary_cross_entropy(AG_SUM, false);
}

Test(reference_ops, binary_cross_entropy_targets)
{
    check_binary_cross_entropy(AG_MEAN, true);
    check_binary_cross_entropy(AG_SUM, true);
}

/* ---- Attention ---- */

Test(reference_ops, attend)
{
    static const char *const masks[] = { "plain", "causal", "lengths", "both" };
    for (int mask = 0; mask < 4; mask++) {
        ag_context *ctx = ag_reference_context();
        ag_var q = ag_reference_input(ctx, "attend_q"), k = ag_reference_input(ctx, "attend_k");
        ag_var v = ag_reference_input(ctx, "attend_v");
        ag_attend_options options = { .heads = 2, .causal = mask % 2 == 1 };
        if (mask >= 2)
            options.lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 4, 2 });
        ag_var y = ag_attend(q, k, v, &options);
        ag_reference_expect(masks[mask], ag_value(y),
                            ag_reference_read(ctx, "attend_%s_y", masks[mask]));
        const ag_reference_gradient gradients[] = {
            { "q", q, ag_reference_read(ctx, "attend_%s_dq", masks[mask]) },
            { "k", k, ag_reference_read(ctx, "attend_%s_dk", masks[mask]) },
            { "v", v, ag_reference_read(ctx, "attend_%s_dv", masks[mask]) },
        };
        ag_var cotangent = ag_reference_constant(ctx, "attend_cotangent");
        ag_reference_expect_gradients(masks[mask], y, cotangent, gradients, 3);
        ag_reference_finish(ctx);
    }
}
