/* The program bench: what it refuses, and that its JSON is JSON. */
#include "../examples/program.h"
#include "../json.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Without peers: they are tested by themselves, and slow. */
static ag_test_run run_bench(const char *words)
{
    char command[512];
    snprintf(command, sizeof command,
             "AG_BENCH_PYTHON=/no/such/python " AG_TEST_BUILD "/bench/bench %s", words);
    return ag_test_shell(command);
}

static void expect_refused(const char *words, const char *part)
{
    ag_test_run run = run_bench(words);
    cr_expect_eq(run.status, 2, "'%s' ended with %d", words, run.status);
    cr_expect(strstr(run.errors, part), "'%s' said: %s", words, run.errors);
    cr_expect(strstr(run.errors, "usage: bench"), "'%s' said: %s", words, run.errors);
    cr_expect_str_eq(run.output, "");
    ag_test_run_free(&run);
}

Test(bench_program, wrong_words)
{
    expect_refused("--fast", "unknown option '--fast'");
    expect_refused("peak", "unknown option 'peak'");
    expect_refused("--quick=1", "unknown option '--quick=1'");
    expect_refused("--only", "missing after '--only'");
    expect_refused("--model", "missing after '--model'");
    expect_refused("--model huge", "no model 'huge'");
    expect_refused("--only ''", "no such section in ''");
    expect_refused("--only=", "no such section in ''");
    expect_refused("--only peaks", "no such section in 'peaks'");
    expect_refused("--only peak,", "no such section in 'peak,'");
    expect_refused("--only peak,,growth", "no such section in 'peak,,growth'");
    expect_refused("--help --fast", "unknown option '--fast'");
}

Test(bench_program, help)
{
    ag_test_run run = run_bench("--json --help");
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.output, "usage: bench"));
    cr_expect_str_eq(run.errors, "");
    ag_test_run_free(&run);
}

Test(bench_program, an_unknown_instruction_set_is_an_error)
{
    ag_test_run run = ag_test_shell("AG_ISA=none " AG_TEST_BUILD "/bench/bench --only peak");
    cr_expect_eq(run.status, 1);
    cr_expect(strstr(run.errors, "AG_ISA=none"), "%s", run.errors);
    ag_test_run_free(&run);
}

Test(bench_program, json_of_each_section)
{
    static const char *const sections[][2] = {
        { "peak", "\"median_1e9_per_s\": " },
        { "overhead", "\"operation_ns\": " },
        { "growth", "\"blocks\": [" },
        { "checks", "\"check_ms\": " },
    };
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        char words[64];
        snprintf(words, sizeof words, "--quick --json --only %s", sections[i][0]);
        ag_test_run run = run_bench(words);
        cr_expect_eq(run.status, 0, "%s: %s", sections[i][0], run.errors);
        const char *end = *run.output == '{' ? ag_test_json_end(run.output) : NULL;
        cr_expect(end && *end == '\0', "no JSON: %s", run.output);
        cr_expect(strstr(run.output, "\"machine\": ["), "%s", run.output);
        cr_expect(strstr(run.output, sections[i][1]), "%s", run.output);
        cr_expect_str_eq(run.errors, "");
        ag_test_run_free(&run);
    }
}

Test(bench_program, only_what_was_asked_for)
{
    ag_test_run run = run_bench("--quick --only overhead");
    cr_expect_eq(run.status, 0);
    cr_expect(strstr(run.output, "overhead: "));
    cr_expect(strstr(run.output, "absent"), "a peer that is not there is named");
    cr_expect_not(strstr(run.output, "peak: "));
    cr_expect_not(strstr(run.output, "models: "));
    ag_test_run_free(&run);
}
