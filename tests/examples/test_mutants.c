/* attograd check --mutants: every operation has mutants, every one is noticed, and one that is
 * not noticed is reported. */
#include "program.h"
#include "../../examples/attograd/cases.h"
#include "../../examples/attograd/mutants.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(mutants, every_operation_with_a_gradient_has_enough)
{
    for (int i = 0; i < ag_op_count(); i++) {
        const ag_op *op = ag_op_at(i);
        int count = ag_mutant_count(op->name);
        if (op->vjp)
            cr_expect(count >= AG_FEWEST_MUTANTS, "%s has %d mutants", op->name, count);
        else
            cr_expect_eq(count, 0, "%s has no rule to spoil", op->name);
    }
    cr_expect(ag_mutant_count(NULL) > 700);
    cr_expect_eq(ag_mutant_count("no such operation"), 0);
    cr_expect(!ag_mutant_at(-1).op && !ag_mutant_at(ag_mutant_count(NULL)).op);
}

Test(mutants, are_all_different)
{
    for (int i = 0; i < ag_mutant_count(NULL); i++) {
        ag_mutant a = ag_mutant_at(i);
        cr_assert(ag_op_find(a.op) && ag_op_find(a.op)->vjp && a.name && a.rule, "%s", a.op);
        for (int k = i - 1; k >= 0; k--) {
            ag_mutant b = ag_mutant_at(k);
            if (strcmp(a.op, b.op))
                break;
            cr_expect(strcmp(a.name, b.name) || a.input != b.input, "%s: %s twice", a.op, a.name);
        }
    }
}

/* The inputs whose gradients a rule was asked for: the table must name these and no others. */
static unsigned asked;

static void asking(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 0; i < ag_node_input_count(node); i++)
        asked |= (unsigned)ag_node_needs(node, i) << i;
    ag_right_rule(node, dy, dx);
}

Test(mutants, of_every_input_that_gets_a_gradient)
{
    for (int i = 0; i < ag_op_count(); i++) {
        const char *name = ag_op_at(i)->name;
        unsigned spoilt = 0;
        ag_gradcheck_report report;
        ag_mutant mutant;
        asked = 0;
        for (int k = 0; k < ag_op_case_count(); k++)
            for (int second = 0; second < 2 && ag_op_at(i)->vjp; second++)
                if (!strcmp(ag_op_case_at(k)->covers, name))
                    ag_op_case_check(ag_op_case_at(k), second, 0, 1, asking, &report);
        for (int k = 0; (mutant = ag_mutant_at(k)).op; k++)
            if (mutant.input >= 0 && !strcmp(mutant.op, name))
                spoilt |= 1u << mutant.input;
        cr_expect_eq(asked, spoilt, "%s: inputs 0x%x, mutants of 0x%x", name, asked, spoilt);
    }
}

/* ---- All are noticed; what is left out as equivalent is not ---- */

typedef struct lines {
    char *text;
    size_t size;
    int status;
} lines;

static lines run(const ag_mutant *mutants, int n, bool json)
{
    lines result = { .text = NULL };
    FILE *file = open_memstream(&result.text, &result.size);
    cr_assert(file);
    result.status = ag_mutants_run(mutants, n, 1, json, file);
    fclose(file);
    return result;
}

Test(mutants, all_are_noticed)
{
    int n = ag_mutant_count(NULL);
    ag_mutant *mutants = malloc((size_t)n * sizeof *mutants);
    cr_assert(mutants);
    for (int i = 0; i < n; i++)
        mutants[i] = ag_mutant_at(i);
    lines result = run(mutants, n, false);
    char expected[96];
    snprintf(expected, sizeof expected, "\n%d mutants, %d killed, 0 survived, 0 refused; seed 1; ",
             n, n);
    cr_expect_eq(result.status, 0);
    cr_expect(strstr(result.text, expected), "%s", result.text);
    cr_expect(!strstr(result.text, "SURVIVED"));
    free(result.text);
    free(mutants);
}

/* A factor of 1 + 1e-6 is seen in every case, not in one of an operation's; unless the case would
 * not even see that this input's gradient is missing, because there it is 0 or nobody asks. */
Test(mutants, a_slight_factor_is_seen_in_every_case)
{
    int seen = 0, blind = 0;
    ag_mutant mutant;
    for (int m = 0; (mutant = ag_mutant_at(m)).op; m++)
        for (int i = 0; i < ag_op_case_count(); i++) {
            const ag_op_case *op = ag_op_case_at(i);
            ag_gradcheck_report report;
            if (strcmp(mutant.name, "factor 1 + 1e-6") || strcmp(mutant.op, op->covers) ||
                op->no_gradient)
                continue;
            ag_op_case_check(op, false, 0, 1, mutant.rule, &report);
            if (report.verdict == AG_VERDICT_FAIL) {
                seen++;
                continue;
            }
            ag_rule zero = ag_mutant_of(mutant.op, AG_FAULT_ZERO, mutant.input).rule;
            ag_op_case_check(op, false, 0, 1, zero, &report);
            cr_expect_neq(report.verdict, AG_VERDICT_FAIL, "%s, input %d", op->name, mutant.input);
            blind++;
        }
    printf("a factor of 1 + 1e-6: seen in %d cases and inputs; %d where none is needed\n", seen,
           blind);
    cr_expect(seen > 150, "%d", seen);
}

Test(mutants, what_is_left_out_changes_nothing)
{
    int left_out = 0;
    for (int i = 0; i < ag_op_count(); i++)
        for (int f = 0; f < AG_FAULTS; f++) {
            const char *name = ag_op_at(i)->name, *why = ag_mutant_left_out(name, (ag_fault)f);
            if (!why || f == AG_FAULT_TERM)
                continue;
            ag_mutant mutant = ag_mutant_of(name, (ag_fault)f, 0);
            lines result = run(&mutant, 1, false);
            cr_expect(result.status == 1 && strlen(why) > 10, "not because %s: %s", why,
                      result.text);
            free(result.text);
            left_out++;
        }
    cr_expect(left_out > 30);
    cr_expect_null(ag_mutant_left_out("no such operation", AG_FAULT_STALE));
}

/* Where a dropped term is left out, each entry of dx is there or is not, but never a part of it
 * (but for rounding, which the check moves). */
static ag_rule forgetting;

static void comparing(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var less[4] = { AG_NONE, AG_NONE, AG_NONE, AG_NONE };
    forgetting(node, dy, less);
    ag_right_rule(node, dy, dx);
    for (int i = 0; i < ag_node_input_count(node); i++)
        for (int64_t k = 0; ag_node_needs(node, i) && k < ag_tensor_count(ag_value(dx[i])); k++) {
            double got = ag_tensor_at(ag_value(less[i]), k);
            double right = ag_tensor_at(ag_value(dx[i]), k);
            cr_expect(got == 0.0 || fabs(got / right - 1.0) < 1e-6, "%s: %g for %g",
                      ag_node_op(node)->name, got, right);
        }
}

Test(mutants, a_term_is_left_out_where_there_are_no_sums)
{
    int left_out = 0;
    ag_gradcheck_report report;
    for (int k = 0; k < ag_op_case_count(); k++) {
        const char *op = ag_op_case_at(k)->covers;
        if (!ag_mutant_left_out(op, AG_FAULT_TERM))
            continue;
        for (int input = 0; input < 4; input++) {
            forgetting = ag_mutant_of(op, AG_FAULT_TERM, input).rule;
            ag_op_case_check(ag_op_case_at(k), false, 0, 1, comparing, &report);
        }
        left_out++;
    }
    cr_expect(left_out > 40);
    cr_expect_null(ag_mutant_left_out("matmul", AG_FAULT_TERM));
}

/* ---- A survivor ---- */

static const ag_mutant right = { "softmax", "the right rule", 0, ag_right_rule };

Test(mutants, a_survivor_is_reported)
{
    ag_mutant both[] = { ag_mutant_of("softmax", AG_FAULT_SIGN, 0), right };
    lines result = run(both, 2, false);
    cr_expect_eq(result.status, 1);
    cr_expect(!strncmp(result.text, "killed    softmax", 17), "%s", result.text);
    cr_expect(strstr(result.text, "\nSURVIVED  softmax"), "%s", result.text);
    cr_expect(strstr(result.text, "\n2 mutants, 1 killed, 1 survived, 0 refused; "), "%s",
              result.text);
    free(result.text);

    result = run(both, 2, true);
    cr_expect_eq(result.status, 1);
    const char *survivor = "\n{\"op\":\"softmax\",\"mutant\":\"the right rule\",\"input\":0,"
                           "\"checks\":21,\"killed\":false,\"refused\":false}\n";
    cr_expect(strstr(result.text, survivor), "%s", result.text);
    cr_expect(strstr(result.text, "\"killed\":1,\"survived\":1,\"refused\":0,\"seed\":1,"), "%s",
              result.text);
    free(result.text);
}

/* A rule that fails gives no gradient to be judged: that proves nothing. */
static void failing(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)dy, (void)dx;
    ag_node_fail(node, AG_ERR_STATE, "no rule");
}

Test(mutants, a_rule_that_fails)
{
    ag_mutant mutant = { "softmax", "fails", -1, failing };
    lines result = run(&mutant, 1, false);
    cr_expect_eq(result.status, 0, "there are enough others");
    cr_expect(!strncmp(result.text, "refused   softmax", 17), "%s", result.text);
    cr_expect(strstr(result.text, "softmax: error: softmax: no rule\n"), "%s", result.text);
    cr_expect(strstr(result.text, "\n1 mutants, 0 killed, 0 survived, 1 refused; "), "%s",
              result.text);
    free(result.text);
    result = run(&mutant, 1, true);
    cr_expect(strstr(result.text, ",\"killed\":false,\"refused\":true,\"case\":\"softmax\","
                                  "\"verdict\":\"error\"}\n"),
              "%s", result.text);
    free(result.text);
}

/* So many of an operation's that too few are left which are judged. */
Test(mutants, too_many_that_fail, .init = cr_redirect_stderr)
{
    int n = ag_mutant_count("tanh") - AG_FEWEST_MUTANTS + 1;
    ag_mutant *mutants = calloc((size_t)n, sizeof *mutants);
    cr_assert(mutants);
    for (int i = 0; i < n; i++)
        mutants[i] = (ag_mutant){ "tanh", "fails", -1, failing };
    for (int fewer = 0; fewer < 2; fewer++) {
        lines result = run(mutants, n - fewer, false);
        cr_expect_eq(result.status, fewer ? 0 : 1);
        free(result.text);
    }
    free(mutants);
    fflush(stderr);
    cr_assert_stderr_eq_str("attograd check: the operation tanh has 4 mutants that raise no error; "
                            "at least 5 are needed\n");
}

/* ---- An entry dropped ---- */

/* With this seed none of the last entries of max is the largest of its row: their gradient is 0. */
Test(mutants, an_entry_that_is_dropped_was_there)
{
    ag_mutant mutant = ag_mutant_of("max", AG_FAULT_DROPPED, 0);
    lines result = { .text = NULL };
    FILE *file = open_memstream(&result.text, &result.size);
    cr_assert(file);
    cr_expect_eq(ag_mutants_run(&mutant, 1, 9, false, file), 0);
    fclose(file);
    cr_expect(!strncmp(result.text, "killed ", 7), "%s", result.text);
    free(result.text);
}

/* ---- Wrong in one of two uses ---- */

/* d tanh(x) / dx by the usual way, or recorded. */
static double slope(ag_rule rule, double x, unsigned flags)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var v = ag_require_gradient(ag_scalar(ctx, x)), g;
    ag_try_rule(ctx, ag_op_find("tanh"), rule);
    cr_assert(ag_grad(ag_tanh(v), &v, 1, &g, flags), "%s", ag_error_message(ctx));
    double value = ag_item(g);
    ag_context_free(ctx);
    return value;
}

Test(mutants, wrong_in_one_use_alone)
{
    double right_slope = slope(NULL, 0.5, 0);
    ag_rule fused = ag_mutant_of("tanh", AG_FAULT_SIGN_FUSED, 0).rule;
    ag_rule recorded = ag_mutant_of("tanh", AG_FAULT_SIGN_RECORDED, 0).rule;
    cr_expect_float_eq(slope(fused, 0.5, 0), -right_slope, 1e-15);
    cr_expect_float_eq(slope(fused, 0.5, AG_CREATE_GRAPH), right_slope, 1e-15);
    cr_expect_float_eq(slope(recorded, 0.5, 0), right_slope, 1e-15);
    cr_expect_float_eq(slope(recorded, 0.5, AG_CREATE_GRAPH), -right_slope, 1e-15);
}

/* ---- The seed ---- */

Test(mutants, seed)
{
    ag_mutant mutant = ag_mutant_of("tanh", AG_FAULT_SIGN, 0);
    lines by_seed[2];
    for (int i = 0; i < 2; i++) {
        FILE *file = open_memstream(&by_seed[i].text, &by_seed[i].size);
        cr_assert(file);
        cr_expect_eq(ag_mutants_run(&mutant, 1, 8 + (uint64_t)i, false, file), 0);
        fclose(file);
    }
    size_t first = strcspn(by_seed[0].text, "\n");
    cr_expect(strncmp(by_seed[0].text, by_seed[1].text, first), "other numbers: %s",
              by_seed[0].text);
    for (int i = 0; i < 2; i++)
        free(by_seed[i].text);
    ag_test_run ran = ag_test_program("check --mutants tanh --seed 9", NULL);
    cr_expect(ran.status == 0 && strstr(ran.output, " 0 refused; seed 9; "), "%s", ran.output);
    ag_test_run_free(&ran);
    ran = ag_test_program("check --mutants tanh --seed 9 --json", NULL);
    cr_expect(ran.status == 0 && strstr(ran.output, ",\"seed\":9,"), "%s", ran.output);
    ag_test_run_free(&ran);
}

/* ---- The command ---- */

static int lines_in(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

Test(mutants, command)
{
    ag_test_run ran = ag_test_program("check --mutants layer_norm", NULL);
    cr_expect_eq(ran.status, 0);
    cr_expect_str_empty(ran.errors);
    cr_expect_eq(lines_in(ran.output), ag_mutant_count("layer_norm") + 1);
    cr_expect(strstr(ran.output, "killed    layer_norm        no centring"), "%s", ran.output);
    cr_expect(strstr(ran.output, " layer_norm at input 0 ["), "%s", ran.output);
    ag_test_run_free(&ran);
}

/* Each line is exactly what was promised. */
static void expect_line(const char *line)
{
    char mutant[64], input[8], name[64], at[64];
    int checks = 0, used = 0;
    int read = sscanf(line,
                      "{\"op\":\"matmul\",\"mutant\":\"%63[^\"]\",\"input\":%7[^,],\"checks\":%d,"
                      "\"killed\":true,\"refused\":false,\"case\":\"%63[^\"]\",\"verdict\":"
                      "\"fail\",\"at\":\"%63[^\"]\""
                      "}%n",
                      mutant, input, &checks, name, at, &used);
    cr_expect(read == 5 && line[used] == '\0', "%s", line);
    cr_expect(checks > 0 && !strncmp(name, "matmul", 6) && !strncmp(at, "input ", 6), "%s", line);
}

Test(mutants, json)
{
    ag_test_run ran = ag_test_program("check --mutants matmul --json", NULL);
    cr_expect_eq(ran.status, 0);
    int n = ag_mutant_count("matmul"), seen = 0, mutants, killed, survived, used = 0;
    double seconds;
    char *next, *line = ran.output;
    for (; (next = strchr(line, '\n')); line = next + 1) {
        *next = '\0';
        if (seen++ < n) {
            expect_line(line);
            continue;
        }
        int read = sscanf(line,
                          "{\"event\":\"done\",\"mutants\":%d,\"killed\":%d,\"survived\":%d,"
                          "\"refused\":0,\"seed\":1,\"seconds\":%lf}%n",
                          &mutants, &killed, &survived, &seconds, &used);
        cr_expect(read == 4 && line[used] == '\0', "%s", line);
        cr_expect(mutants == n && killed == n && survived == 0);
    }
    cr_expect_eq(seen, n + 1);
    ag_test_run_free(&ran);
}

Test(mutants, unknown_operation)
{
    const char *words[] = { "check --mutants sofmax", "check --mutants argmax" };
    for (int i = 0; i < 2; i++) {
        ag_test_run ran = ag_test_program(words[i], NULL);
        cr_expect_eq(ran.status, 2);
        cr_expect_str_empty(ran.output);
        cr_expect_eq(lines_in(ran.errors), 1);
        cr_expect(strstr(ran.errors, "has a gradient; those that have: add, sub,"), "%s",
                  ran.errors);
        ag_test_run_free(&ran);
    }
}
