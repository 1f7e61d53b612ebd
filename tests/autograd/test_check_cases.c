/* Every operation of the table passes the gradient check, in first and second
 * order, near initial values and at trained and saturated points. */
#include "../../examples/attograd/precision_cases.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

Test(check_cases, every_operation_has_one)
{
    cr_expect_null(ag_case_first_without(), "%s has no check case", ag_case_first_without());
    cr_expect(ag_op_at(-1) == NULL && ag_op_at(ag_op_count()) == NULL);
}

/* .. and kernels that are compared with slow ones. */
Test(check_cases, every_operation_has_kernels)
{
    for (int i = 0; i < ag_op_count(); i++) {
        bool covered = false;
        for (int k = 0; k < ag_precision_case_count(); k++)
            covered = covered || !strcmp(ag_precision_case_at(k)->covers, ag_op_at(i)->name);
        cr_expect(covered, "the kernels of %s are not compared", ag_op_at(i)->name);
    }
    for (int k = 0; k < ag_precision_case_count(); k++)
        cr_expect(ag_precision_case_at(k)->limit <= 8.0 && ag_precision_case_at(k)->n > 0);
    cr_expect_null(ag_precision_case_at(-1));
}

/* A subset of the inputs of a case with one is none, and what has no gradient has no subsets. */
Test(check_cases, parts_have_something_to_compare)
{
    int counted = 0;
    for (int i = 0; i < ag_case_count(); i++) {
        bool bits = strstr("/backward/subsets/ties", ag_case_suffix(i)) && *ag_case_suffix(i);
        ag_case_result result;
        if (!bits)
            continue;
        ag_case_run(i, 2, &result);
        counted++;
        cr_expect(result.entries > 0, "%s%s", ag_case_name(i), ag_case_suffix(i));
    }
    cr_expect(counted > 250, "%d", counted);
}

Test(check_cases, names_are_unique)
{
    for (int i = 0; i < ag_op_case_count() + ag_layer_case_count(); i++)
        for (int k = 0; k < i; k++)
            cr_expect_str_neq(ag_case_name(i), ag_case_name(k));
}

/* A case must run the operation that it says it covers, or the test above is hollow. */
Test(check_cases, every_case_runs_its_operation)
{
    for (int k = 0; k < ag_op_case_count(); k++) {
        const ag_op_case *op = ag_op_case_at(k);
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_var inputs[AG_CASE_INPUTS], gradients[AG_CASE_INPUTS];
        for (int i = 0; i < op->n; i++)
            inputs[i] = ag_require_gradient(
                ag_full(ctx, ag_shape_make(op->inputs[i].rank, op->inputs[i].dims), 0.5));
        ag_var y = op->f(ctx, inputs, op->n, NULL);
        if (!op->no_gradient)
            ag_grad_from(y, y, inputs, op->n, gradients, AG_CREATE_GRAPH);
        cr_assert(ag_status(ctx) == AG_OK, "%s: %s", op->name, ag_error_message(ctx));
        bool found = false;
        for (uint32_t i = 0; i < (uint32_t)ag_tape_length(ctx); i++) {
            ag_var v = { ctx, i, inputs[0].generation };
            found = found || !strcmp(ag_op_name(v), op->covers);
        }
        cr_expect(found, "%s does not run %s", op->name, op->covers);
        ag_context_free(ctx);
    }
}

static void free_cases(struct criterion_test_params *params)
{
    cr_free(params->params);
}

/* An operation whose complex form is wrong is not right because nothing failed. */
Test(check_cases, contradictions_fail)
{
    ag_case_result result = { .name = "div", .verdict = AG_VERDICT_PASS };
    ag_gradcheck_report report = { .verdict = AG_VERDICT_INCONCLUSIVE, .entries = 4 };
    report.inconclusive = 2;
    ag_case_note(&result, &report);
    cr_expect(!ag_case_failed(&result));
    report.contradictions = 2;
    ag_case_note(&result, &report);
    cr_expect(ag_case_failed(&result) && strstr(result.message, "in 2 entries"), "%s",
              result.message);
}

ParameterizedTestParameters(check_cases, passes)
{
    int n = ag_case_count(), *cases = cr_malloc((size_t)n * sizeof *cases);
    for (int i = 0; i < n; i++)
        cases[i] = i;
    return cr_make_param_array(int, cases, (size_t)n, free_cases);
}

ParameterizedTest(int *i, check_cases, passes)
{
    ag_case_result result;
    ag_case_run(*i, 1, &result);
    cr_expect(!ag_case_failed(&result), "%s (%s): %s, worst %g at %s", result.name, result.kind,
              result.message, result.worst, result.at);
}
