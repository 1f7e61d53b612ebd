/* attograd check: a line a case, JSON in the promised form, exit status. */
#include "program.h"
#include "../../examples/attograd/cases.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int lines_in(const char *text)
{
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

Test(check, all_cases_pass)
{
    ag_test_run run = ag_test_program("check", NULL);
    cr_expect_eq(run.status, 0);
    cr_expect(!strstr(run.output, "FAIL"));
    cr_expect_eq(lines_in(run.output), ag_case_count() + 6, "a head, a line a case, a sum");
    char last[64];
    snprintf(last, sizeof last, "%d cases: %d passed, 0 failed", ag_case_count(), ag_case_count());
    cr_expect(strstr(run.output, last), "%s", run.output);
    ag_test_run_free(&run);
}

/* Each line is exactly what was promised, with nothing before, between or after. */
static void expect_case_line(char *line)
{
    char name[128], kind[8], worst[32], at[128], verdict[16];
    int entries = -1, failures = -1, inconclusive = -1, kinks = -1, used = 0;
    double floor = -1;
    int read = sscanf(line,
                      "{\"case\":\"%127[^\"]\",\"kind\":\"%7[^\"]\",\"entries\":%d,\"failures\":%d,"
                      "\"inconclusive\":%d,\"kinks\":%d,\"floor\":%lf,\"worst\":%31[^,],"
                      "\"at\":\"%127[^\"]\",\"message\":\"\",\"verdict\":\"%15[^\"]\"}%n",
                      name, kind, &entries, &failures, &inconclusive, &kinks, &floor, worst, at,
                      verdict, &used);
    cr_expect(read == 10 && line[used] == '\0', "%s", line);
    cr_expect(!strcmp(kind, "op") || !strcmp(kind, "layer"), "%s", line);
    cr_expect(!strcmp(verdict, inconclusive > 0 ? "inconclusive" : "pass"), "%s", line);
    bool kernels = strstr(name, "/kernels") != NULL; /* no derivatives, so no floor */
    cr_expect(entries > inconclusive && failures == 0 && kinks == 0, "%s", line);
    cr_expect(atof(worst) <= (kernels ? 8.0 : 1.0), "%s", line);
    cr_expect(kernels || (floor > 0.0 && floor < 1e-6), "%s", line);
}

/* Of a part that compares bits: there is no worst entry, and so no place for it. */
static void expect_exact_line(char *line)
{
    char name[128], kind[8];
    int entries = -1, used = 0;
    int read = sscanf(line,
                      "{\"case\":\"%127[^\"]\",\"kind\":\"%7[^\"]\",\"entries\":%d,\"failures\":0,"
                      "\"inconclusive\":0,\"kinks\":0,\"floor\":0.000e+00,\"worst\":0.000e+00,"
                      "\"at\":\"\",\"message\":\"\",\"verdict\":\"pass\"}%n",
                      name, kind, &entries, &used);
    cr_expect(read == 3 && line[used] == '\0' && entries > 0, "%s", line);
}

Test(check, json_of_one_operation)
{
    ag_test_run run = ag_test_program("check softmax --json", NULL);
    cr_expect_eq(run.status, 0);
    int cases = 0, counted = -1, passed = -1, failed = -1, used = 0;
    int entries = -1, inconclusive = -1;
    double seconds = -1;
    char *next, *line = run.output;
    for (; (next = strchr(line, '\n')); line = next + 1) {
        *next = '\0';
        if (!strncmp(line, "{\"case\"", 7)) {
            (strstr(line, "/backward\"") ? expect_exact_line : expect_case_line)(line);
            cases++;
        } else {
            int read = sscanf(line,
                              "{\"event\":\"done\",\"cases\":%d,\"passed\":%d,\"failed\":%d,"
                              "\"entries\":%d,\"inconclusive\":%d,\"seed\":1,\"seconds\":%lf}%n",
                              &counted, &passed, &failed, &entries, &inconclusive, &seconds, &used);
            cr_expect(read == 6 && entries > inconclusive && line[used] == '\0', "%s", line);
        }
    }
    cr_expect(*line == '\0', "the output ends with a line");
    cr_expect(
        cases == 14 && counted == 14 && passed == 14 && failed == 0 && seconds >= 0,
        "softmax, softmax/first and softmax/masked, in two orders, back by other ways, and in "
        "other layouts, and the kernels of two: %d",
        cases);
    ag_test_run_free(&run);
}

/* What JSON calls a case is what the command line calls it. */
Test(check, one_case_in_second_order)
{
    ag_test_run run = ag_test_program("check softmax/first/second --json", NULL);
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.output, "{\"case\":\"softmax/first/second\","), "%s", run.output);
    cr_expect_eq(lines_in(run.output), 2);
    ag_test_run_free(&run);
}

/* The same seed gives the same lines, another seed other numbers; the default is 1. */
Test(check, seed)
{
    ag_test_run one = ag_test_program("check attention/trained", "| head -9");
    ag_test_run again = ag_test_program("check attention/trained --seed 1", "| head -9");
    ag_test_run other =
        ag_test_program("check attention/trained --seed 18446744073709551615", NULL);
    cr_expect_str_eq(one.output, again.output);
    cr_expect(strncmp(one.output, other.output, strlen(one.output)) != 0);
    cr_expect_eq(other.status, 0);
    cr_expect(strstr(other.output, "seed 18446744073709551615;"), "%s", other.output);
    cr_expect_eq(lines_in(other.output), 10);
    ag_test_run_free(&one);
    ag_test_run_free(&again);
    ag_test_run_free(&other);
    ag_test_run bad = ag_test_program("check --seed -1", NULL);
    cr_expect(bad.status == 2 && lines_in(bad.errors) == 1, "%s", bad.errors);
    ag_test_run_free(&bad);
}

Test(check, operations_without_a_gradient)
{
    ag_test_run run = ag_test_program("check argmax", NULL);
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.output, "has no gradient"));
    ag_test_run_free(&run);
}

Test(check, unknown_case_and_option)
{
    ag_test_run run = ag_test_program("check sofmax", NULL);
    cr_expect_eq(run.status, 2);
    cr_expect_eq(lines_in(run.errors), 1);
    cr_expect(strstr(run.errors, "unknown case 'sofmax'") && strstr(run.errors, "softmax/masked"));
    cr_expect_str_empty(run.output);
    ag_test_run_free(&run);
    run = ag_test_program("check --jsn", NULL);
    cr_expect_eq(run.status, 2);
    cr_expect(strstr(run.errors, "--json"), "%s", run.errors);
    ag_test_run_free(&run);
}

/* A case that does not hold makes the verdict: one whose function gives no result. */
static ag_var nothing(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)x, (void)n, (void)user;
    return AG_NONE;
}

Test(check, a_case_can_fail)
{
    const ag_op_case wrong = {
        .name = "wrong", .covers = "add", .f = nothing, .n = 1, .inputs = { { AG_ANY, 1, { 3 } } }
    };
    ag_case_result result = { .name = "wrong", .verdict = AG_VERDICT_PASS };
    ag_op_case_run(&wrong, false, 1, &result);
    cr_expect(ag_case_failed(&result));
    cr_expect(strstr(result.message, "no result"), "%s", result.message);
}

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
    for (int i = 0; i < ag_precision_case_count(); i++) {
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
