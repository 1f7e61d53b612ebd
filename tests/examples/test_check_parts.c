/* Whether the parts of attograd check find what they are there for. */
#include "../../examples/attograd/cases.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---- What the layouts find ---- */

/* x^2 by a loop that takes its operand to be contiguous, unless it would read beyond it. */
static void blind_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, AG_F64, ag_tensor_shape(x));
    bool forwards = true;
    for (int i = 0; i < x->rank; i++)
        forwards = forwards && x->strides[i] > 0;
    for (int64_t k = 0; y && k < ag_tensor_count(x); k++) {
        double value = forwards ? ((double *)x->data)[k] : ag_tensor_at(x, k);
        ag_tensor_put(y, k, value * value);
    }
}

static void square_forward(ag_node *node)
{
    ag_node_set_view(node, ag_value(ag_square(ag_node_input(node, 0))));
}

static void square_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(ag_mul(dy, ag_node_input(node, 0)), 2.0);
}

/* The same, but it doubles the gradient that it was given in place. */
static void writing_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_tensor *given = ag_value_mutable(dy);
    for (int64_t k = 0; given && k < ag_tensor_count(given); k++)
        ag_tensor_put(given, k, 2.0 * ag_tensor_at(given, k));
    dx[0] = ag_mul(dy, ag_node_input(node, 0));
}

static const ag_op impure[] = {
    { .name = "blind", .forward = blind_forward, .vjp = square_vjp },
    { .name = "writing", .forward = square_forward, .vjp = writing_vjp },
    { .name = "pure", .forward = square_forward, .vjp = square_vjp },
};

static ag_var blind(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)user;
    return ag_apply(&impure[0], x, n, NULL);
}

static ag_var writing(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)user;
    return ag_apply(&impure[1], x, n, NULL);
}

static ag_var pure(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)user;
    return ag_apply(&impure[2], x, n, NULL);
}

static ag_case_result run_part(ag_function f, bool layouts)
{
    const ag_op_case op = {
        .name = "impure", .covers = "square", .f = f, .n = 1, .inputs = { { AG_ANY, 2, { 2, 3 } } }
    };
    ag_case_result result = { .name = "impure", .verdict = AG_VERDICT_PASS };
    ag_case_setup setup;
    ag_op_case_open(&op, 0, 1, AG_F64, &setup);
    if (layouts)
        ag_layout_case_run(&op, 1, &result);
    else
        ag_backward_case_run(&setup, 1, &result);
    ag_case_close(&setup);
    return result;
}

Test(check, layouts_find_what_contiguous_operands_hide)
{
    ag_case_result result = run_part(blind, true);
    cr_expect(ag_case_failed(&result));
    cr_expect(strstr(result.message, "transposed"), "%s", result.message);
    result = run_part(writing, false);
    cr_expect(ag_case_failed(&result));
    cr_expect(strstr(result.message, "backward"), "%s", result.message);
    for (int layouts = 0; layouts < 2; layouts++) {
        result = run_part(pure, layouts);
        cr_expect(!ag_case_failed(&result), "%s", result.message);
    }
}

/* Fast kernels against slow ones: at every size, dtype and instruction set that there is. */
Test(check, kernels_of_all_instruction_sets)
{
    setenv("AG_ISA", "generic", 1);
    for (int i = 0; i < ag_precision_case_count(); i += 5) {
        ag_case_result result = { .verdict = AG_VERDICT_PASS };
        ag_precision_case_run(i, 4, &result);
        cr_expect(!ag_case_failed(&result), "%s: %s", ag_precision_case_name(i), result.message);
        cr_expect(result.entries > 500 && result.worst <= 8.0);
    }
    cr_expect_str_eq(getenv("AG_ISA"), "generic", "the choice is put back");
    cr_expect_null(ag_precision_case_name(-1));
}

/* One that is wrong names the entry, both values and what the gradient looks like. */
static void copy_forward(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void negate_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_neg(dy);
}

static ag_var negated(ag_context *ctx, const ag_var *x, int n, void *user)
{
    static const ag_op op = { .name = "negated", .forward = copy_forward, .vjp = negate_vjp };
    (void)ctx, (void)user;
    return ag_tanh(ag_apply(&op, x, n, NULL));
}

Test(check, a_case_that_fails_says_how)
{
    const ag_op_case wrong = {
        .name = "wrong", .covers = "neg", .f = negated, .n = 1, .inputs = { { AG_ANY, 1, { 3 } } }
    };
    ag_case_result result = { .name = "wrong", .verdict = AG_VERDICT_PASS };
    ag_op_case_run(&wrong, false, 1, &result);
    cr_expect(ag_case_failed(&result) && result.verdict == AG_VERDICT_FAIL);
    cr_expect(strstr(result.at, "input 0 ["), "%s", result.at);
    cr_expect(strstr(result.detail, "ratio -1") && strstr(result.detail, "looks like: sign"), "%s",
              result.detail);
}
