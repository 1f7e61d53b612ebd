/* attograd check: a line a case, JSON in the promised form, exit status. */
#include "../json.h"
#include "program.h"
#include "../../examples/attograd/case_names.h"
#include "../../examples/attograd/check.h"

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

static void expect_narrow(const char *text)
{
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        cr_expect(length <= 80, "%zu columns: %.*s", length, (int)length, line);
        line += length + (line[length] == '\n');
    }
}

/* Whether a case's derivatives are compared with numeric ones, so that it has a floor. */
static bool has_floor(const char *name)
{
    return !strstr(name, "/kernels") && !strstr(name, "/backward") && !strstr(name, "/subsets") &&
           !strstr(name, "/ties");
}

/* Each line is exactly what was promised, with nothing before, between or after. */
static void expect_case_line(const char *line)
{
    char name[128], kind[8], worst[32], rest[512];
    int entries = -1, failures = -1, inconclusive = -1, kinks = -1, used = 0;
    double floor = -1;
    int read = sscanf(line,
                      "{\"case\":\"%127[^\"]\",\"kind\":\"%7[^\"]\",\"entries\":%d,\"failures\":%d,"
                      "\"inconclusive\":%d,\"kinks\":%d,\"floor\":%lf,\"worst\":%31[^,],"
                      "\"at\":\"%n",
                      name, kind, &entries, &failures, &inconclusive, &kinks, &floor, worst, &used);
    cr_assert(read == 8 && used > 0, "%s", line);
    cr_expect(ag_test_json_end(line) && !*ag_test_json_end(line), "%s", line);
    snprintf(
        rest, sizeof rest,
        "\",\"detail\":\"\",\"message\":\"\",\"replay\":\"./run check %s --seed 1\",\"seed\":1,"
        "\"verdict\":\"%s\"}",
        name, inconclusive > 0 ? "inconclusive" : "pass");
    cr_expect_str_eq(strchr(line + used, '"'), rest);
    cr_expect(!strcmp(kind, "op") || !strcmp(kind, "layer"), "%s", line);
    cr_expect(entries > inconclusive && failures == 0 && kinks == 0, "%s", line);
    cr_expect(atof(worst) <= (strstr(name, "/kernels") ? 8.0 : 1.0), "%s", line);
    cr_expect(!has_floor(name) || (floor > 0.0 && floor < 1e-6), "%s", line);
}

/* How many cases a word asks for. */
static int asked_for(const char *word)
{
    int count = 0;
    for (int i = 0; i < ag_case_count(); i++)
        count += ag_case_asked_for(i, word);
    return count;
}

/* Those of second order; check_cases runs all, one by one. */
Test(check, many_cases_pass)
{
    ag_test_run run = ag_test_program("check /second", NULL);
    cr_expect_eq(run.status, 0);
    cr_expect(!strstr(run.output, "FAIL"));
    int cases = asked_for("/second"), lines = lines_in(run.output) - cases;
    cr_expect(lines >= 9 && lines <= 20,
              "a head, a line a case, floors, what is inconclusive, a sum");
    cr_expect(strstr(run.output, "\nfloors by complex steps: ") &&
              strstr(run.output, "\nfloors by differences alone: "));
    cr_expect(strstr(run.output, "\ninconclusive entries, of all in these cases: "));
    char last[64];
    snprintf(last, sizeof last, "%d cases: %d passed, 0 failed", cases, cases);
    cr_expect(strstr(run.output, last), "%s", run.output);
    ag_test_run_free(&run);
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
            expect_case_line(line);
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
    int expected = asked_for("softmax"); /* also softmax/first/second, but not log_softmax */
    cr_expect(expected >= 10 && cases == expected && counted == expected && passed == expected &&
                  failed == 0 && seconds >= 0,
              "%d of %d", cases, expected);
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
    int fewest = asked_for("attention/trained") + 6;
    cr_expect(lines_in(other.output) >= fewest && lines_in(other.output) <= fewest + 4);
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

/* One line that names what may have been meant. */
static void expect_unknown(const char *words, const char *message)
{
    ag_test_run run = ag_test_program(words, NULL);
    cr_expect_eq(run.status, 2);
    cr_expect_eq(lines_in(run.errors), 1);
    cr_expect(strstr(run.errors, message), "%s", run.errors);
    cr_expect_str_empty(run.output);
    ag_test_run_free(&run);
}

Test(check, unknown_case_and_option)
{
    expect_unknown("check sofmax", "unknown case 'sofmax'; did you mean softmax, ");
    expect_unknown("check softmax/secnd", "did you mean softmax/second, ");
    expect_unknown("check /layuots", "did you mean /layouts, ");
    expect_unknown("check no-such-case --list", "unknown case 'no-such-case'");
    expect_unknown("check --jsn", "--json");
    expect_unknown("check --list --mutants", "--list is of cases");
}

Test(check, distance_between_words)
{
    cr_expect_eq(ag_edit_distance("", ""), 0);
    cr_expect_eq(ag_edit_distance("tanh", "tanh"), 0);
    cr_expect_eq(ag_edit_distance("sofmax", "softmax"), 1);
    cr_expect_eq(ag_edit_distance("kitten", "sitting"), 3);
    cr_expect_eq(ag_edit_distance("", "abs"), 3);
    cr_expect_eq(ag_edit_distance("abs", ""), 3);
    char text[128], small[8];
    ag_case_suggest("tanh/secondd", false, text, sizeof text);
    cr_expect(!strncmp(text, "tanh/second, ", 13), "%s", text);
    cr_expect_str_eq(ag_case_suggest("softmax", true, small, sizeof small), "softmax");
    char word[300];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    cr_expect(ag_edit_distance(word, "abs") == 299 && ag_edit_distance("abs", word) > 0);
}

/* A word that begins with a slash means all cases with that suffix. */
Test(check, suffix)
{
    int layouts = asked_for("/layouts");
    cr_expect(layouts > 100 && layouts < ag_case_count());
    ag_test_run run = ag_test_program("check /layouts", NULL);
    cr_expect_eq(run.status, 0);
    char last[64];
    snprintf(last, sizeof last, "\n%d cases: %d passed, 0 failed", layouts, layouts);
    cr_expect(strstr(run.output, last), "%s", run.output);
    cr_expect(strstr(run.output, " tanh/layouts ") && !strstr(run.output, "/second"));
    ag_test_run_free(&run);
}

Test(check, list)
{
    ag_test_run run = ag_test_program("check --list", NULL);
    cr_expect_eq(run.status, 0);
    cr_expect_eq(lines_in(run.output), ag_case_count());
    cr_expect(strstr(run.output, "\nsoftmax/first/second ") &&
              strstr(run.output, " op     /second\n"));
    cr_expect(strstr(run.output, "\nattention/causal ") && strstr(run.output, " layer\n"));
    ag_test_run_free(&run);
    run = ag_test_program("check tanh --list --json", NULL);
    const char *first = "{\"case\":\"tanh\",\"kind\":\"op\",\"suffix\":\"\"}\n";
    cr_expect(strstr(run.output, first) == run.output, "%s", run.output);
    cr_expect(strstr(run.output,
                     "{\"case\":\"tanh/kernels\",\"kind\":\"op\",\"suffix\":\"/kernels\"}\n"));
    ag_test_run_free(&run);
}

Test(check, help_says_what_case_means)
{
    const char *words[] = { "check --help", "vcurve --help" };
    for (int i = 0; i < 2; i++) {
        ag_test_run run = ag_test_program(words[i], NULL);
        cr_expect_eq(run.status, 0);
        cr_expect(strstr(run.output, "/second") && strstr(run.output, "--list") &&
                      strstr(run.output, "begins"),
                  "%s", run.output);
        expect_narrow(strstr(run.output, "options of check"));
        ag_test_run_free(&run);
    }
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

/* ---- What is printed of a failure ---- */

static char *printed(const ag_case_result *result, const char *name, bool json)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    cr_assert(file);
    (json ? ag_case_print_json : ag_case_print_text)(result, name, 9, file);
    fclose(file);
    return text;
}

static void expect_printed(const ag_case_result *result, const char *name, bool json,
                           const char *expected)
{
    char *text = printed(result, name, json);
    cr_expect(strstr(text, expected), "%s: %s", expected, text);
    free(text);
}

Test(check, a_failure_can_be_run_again)
{
    ag_case_result result = { .name = "tanh",
                              .kind = "op",
                              .verdict = AG_VERDICT_FAIL,
                              .entries = 4,
                              .failures = 1,
                              .worst = 3.5,
                              .at = "input 0 [1]",
                              .detail = "got 1, want 2" };
    expect_printed(&result, "tanh/second", false,
                   "FAIL         tanh/second                               4 "
                   "       0  0e+00  4e+00\n"
                   "  input 0 [1]: got 1, want 2\n"
                   "  again: ./run check tanh/second --seed 9\n");
    expect_printed(&result, "tanh/second", true,
                   "\"at\":\"input 0 [1]\",\"detail\":\"got 1, want 2\",\"message\":\"\","
                   "\"replay\":\"./run check tanh/second --seed 9\",\"seed\":9,"
                   "\"verdict\":\"fail\"}\n");
    result.verdict = AG_VERDICT_PASS;
    result.detail[0] = '\0';
    char *text = printed(&result, "tanh", false);
    cr_expect(!strstr(text, "again"), "%s", text);
    free(text);
}

/* What kind of failure it is stands in its line, and the columns stay where they are. */
Test(check, a_failure_says_its_kind)
{
    ag_case_result result = { .name = "log", .kind = "op", .message = "the result holds a NaN" };
    for (int v = AG_VERDICT_NOT_DETERMINISTIC; v <= AG_VERDICT_ERROR; v++) {
        char expected[64];
        result.verdict = (ag_verdict)v;
        snprintf(expected, sizeof expected, "FAIL: %s", ag_verdict_name(result.verdict));
        char *text = printed(&result, "log/layouts", false);
        cr_expect(!strncmp(text, expected, strlen(expected)), "%s", text);
        cr_expect(!strncmp(text + 49, "      0  the result", 19), "%s", text);
        free(text);
    }
}

/* ---- What is noted of several checks ---- */

static ag_gradcheck_report report_of(ag_verdict verdict, double worst, double asymmetry)
{
    return (ag_gradcheck_report){ .verdict = verdict,
                                  .entries = 6,
                                  .failures = verdict == AG_VERDICT_FAIL,
                                  .worst = worst,
                                  .rank = 1,
                                  .index = { 2 },
                                  .analytic = 1.5,
                                  .numeric = 3.0,
                                  .ratio = 0.5,
                                  .suspect = "factor 0.5",
                                  .asymmetry = asymmetry };
}

Test(check, an_asymmetric_hessian_is_called_so)
{
    ag_case_result result = { .verdict = AG_VERDICT_PASS };
    ag_gradcheck_report report = report_of(AG_VERDICT_FAIL, 0.3, 4e3);
    ag_case_note(&result, &report);
    cr_expect_str_eq(result.detail, "u'Hv - v'Hu is 4e+03 times what is allowed");
    cr_expect(strstr(result.at, "Hessian") && result.worst == 4e3, "%s", result.at);

    /* and where an entry is wrong too, that is said as well */
    result = (ag_case_result){ .verdict = AG_VERDICT_PASS };
    report.worst = 7.0;
    ag_case_note(&result, &report);
    cr_expect_str_eq(result.at, "input 0 [2]");
    cr_expect(strstr(result.detail, "u'Hv - v'Hu is 4e+03 times") &&
                  strstr(result.detail, "; got 1.5, want 3 "),
              "%s", result.detail);
}

/* Passing checks before and after, even such that come nearer to their bound. */
Test(check, a_failure_is_not_hidden_by_what_passes)
{
    ag_gradcheck_report passing = report_of(AG_VERDICT_PASS, 0.9, 0.0);
    ag_gradcheck_report failing = report_of(AG_VERDICT_FAIL, 0.5, 0.0);
    for (int order = 0; order < 2; order++) {
        ag_case_result result = { .verdict = AG_VERDICT_PASS };
        passing.index[0] = 1;
        ag_case_note(&result, order ? &failing : &passing);
        ag_case_note(&result, order ? &passing : &failing);
        cr_expect_eq(result.verdict, AG_VERDICT_FAIL);
        cr_expect_str_eq(result.at, "input 0 [2]");
        cr_expect(strstr(result.detail, "got 1.5, want 3 "), "%s", result.detail);
        cr_expect_eq(result.worst, 0.9);
    }
}

/* ---- The sum ---- */

Test(check, what_is_inconclusive_is_listed_by_name)
{
    ag_case_total total = { .seed = 3 };
    const char *names[] = { "attend", "attend/causal", "tanh", "attend" };
    for (int i = 0; i < 4; i++)
        ag_case_total_add(&total, &(ag_case_result){ .name = names[i],
                                                     .verdict = AG_VERDICT_INCONCLUSIVE,
                                                     .entries = 10,
                                                     .inconclusive = i + 1,
                                                     .differences = i == 2,
                                                     .floor = 1e-12 * (i + 1) });
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    cr_assert(file);
    ag_case_total_print(&total, 1.0, false, file);
    fclose(file);
    cr_expect_str_eq(text,
                     "floors by complex steps: 3 cases, median 2e-12, largest 4e-12\n"
                     "floors by differences alone: 1 case, median 3e-12, largest 3e-12\n"
                     "inconclusive entries, of all in these cases: attend 7 of 30 (3 cases),"
                     "\n  tanh 3 of 10 (1 case)\n"
                     "4 cases: 4 passed, 0 failed; 40 entries, 10 inconclusive; seed 3; 1.00 s\n");
    free(text);
    ag_case_total_free(&total);
}
