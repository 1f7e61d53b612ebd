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
