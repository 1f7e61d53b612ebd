/* What attograd check says of failures, and of all cases together. */
#include "program.h"
#include "../../examples/attograd/check.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
