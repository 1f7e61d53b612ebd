/* attograd check --mutants: every mutant is checked until a case notices it. */
#include "cases.h"
#include "mutants.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>

/* What became of a mutant. */
typedef struct outcome {
    const ag_op_case *by; /* the case that noticed; NULL if none did */
    bool second;
    ag_gradcheck_report report;
    int checks;
} outcome;

static bool notices(const ag_gradcheck_report *report)
{
    return report->verdict != AG_VERDICT_PASS && report->verdict != AG_VERDICT_KINK &&
           report->verdict != AG_VERDICT_INCONCLUSIVE;
}

/* The cases of the mutant's operation at one point, in one order. */
static bool check_cases(const ag_mutant *mutant, int point, bool second, outcome *result)
{
    for (int i = 0; i < ag_op_case_count(); i++) {
        const ag_op_case *op = ag_op_case_at(i);
        if (strcmp(op->covers, mutant->op))
            continue;
        ag_op_case_check(op, second, point, 1, mutant->rule, &result->report);
        result->checks++;
        if (!notices(&result->report))
            continue;
        result->by = op;
        result->second = second;
        return true;
    }
    return false;
}

static outcome judge(const ag_mutant *mutant)
{
    outcome result = { .by = NULL };
    for (int second = 0; second < 2; second++)
        for (int point = 0; point < ag_op_case_points(second); point++)
            if (check_cases(mutant, point, second, &result))
                return result;
    return result;
}

/* "input 1 [2,0]" */
static void describe_place(const ag_gradcheck_report *report, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "input %d [", report->input);
    for (int i = 0; i < report->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld",
                                 (long long)report->index[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

/* "sign of input 1" */
static void describe_mutant(const ag_mutant *mutant, char *text, size_t size)
{
    if (mutant->input < 0)
        snprintf(text, size, "%s", mutant->name);
    else
        snprintf(text, size, "%s, input %d", mutant->name, mutant->input);
}

static void print_text(const ag_mutant *mutant, const outcome *result, FILE *file)
{
    char name[64], place[64];
    const ag_gradcheck_report *report = &result->report;
    describe_mutant(mutant, name, sizeof name);
    fprintf(file, "%-8s  %-16s  %-32s  ", result->by ? "killed" : "SURVIVED", mutant->op, name);
    if (!result->by) {
        fprintf(file, "%d checks see nothing\n", result->checks);
        return;
    }
    fprintf(file, "%s%s", result->by->name, result->second ? "/second" : "");
    if (report->verdict != AG_VERDICT_FAIL) {
        fprintf(file, ": %s: %s\n", ag_verdict_name(report->verdict), report->message);
        return;
    }
    describe_place(report, place, sizeof place);
    fprintf(file, " at %s: %.9g for %.9g\n", place, report->analytic, report->numeric);
}

static void print_json(const ag_mutant *mutant, const outcome *result, FILE *file)
{
    char place[64];
    fprintf(file, "{\"op\":\"%s\",\"mutant\":\"%s\",\"input\":", mutant->op, mutant->name);
    fprintf(file, mutant->input < 0 ? "null" : "%d", mutant->input);
    fprintf(file, ",\"checks\":%d,\"killed\":%s", result->checks, result->by ? "true" : "false");
    if (result->by) {
        fprintf(file, ",\"case\":\"%s%s\",\"verdict\":\"%s\"", result->by->name,
                result->second ? "/second" : "", ag_verdict_name(result->report.verdict));
        if (result->report.verdict == AG_VERDICT_FAIL) {
            describe_place(&result->report, place, sizeof place);
            fprintf(file, ",\"at\":\"%s\"", place);
        }
    }
    fprintf(file, "}\n");
}

int ag_mutants_run(const ag_mutant *mutants, int n, bool json, FILE *file)
{
    int killed = 0;
    double start = ag_report_now();
    for (int i = 0; i < n; i++) {
        outcome result = judge(&mutants[i]);
        (json ? print_json : print_text)(&mutants[i], &result, file);
        fflush(file);
        killed += result.by != NULL;
    }
    double seconds = ag_report_now() - start;
    fprintf(file,
            json ? "{\"event\":\"done\",\"mutants\":%d,\"killed\":%d,\"survived\":%d,"
                   "\"seconds\":%.3f}\n"
                 : "%d mutants, %d killed, %d survived; %.2f s\n",
            n, killed, n - killed, seconds);
    return killed < n;
}

/* ---- The command ---- */

static int unknown_operation(const char *asked)
{
    fprintf(stderr, "attograd check: no operation '%s' has a gradient; those that have: ", asked);
    bool first = true;
    for (int i = 0; i < ag_op_count(); i++)
        if (ag_op_at(i)->vjp) {
            fprintf(stderr, "%s%s", first ? "" : ", ", ag_op_at(i)->name);
            first = false;
        }
    fputc('\n', stderr);
    return 2;
}

/* Whether every operation with a gradient has enough mutants; says which has not. */
static bool all_have_mutants(void)
{
    bool good = true;
    for (int i = 0; i < ag_op_count(); i++) {
        const ag_op *op = ag_op_at(i);
        int count = ag_mutant_count(op->name);
        if (!op->vjp || count >= AG_FEWEST_MUTANTS)
            continue;
        fprintf(stderr, "attograd check: the operation %s has %d mutants; at least %d are needed\n",
                op->name, count, AG_FEWEST_MUTANTS);
        good = false;
    }
    return good;
}

int ag_mutants_check(const char *asked, bool json)
{
    int n = 0;
    ag_mutant mutant, *mutants = malloc((size_t)ag_mutant_count(NULL) * sizeof *mutants);
    const ag_op *op = ag_op_find(asked);
    if (asked && (!op || !op->vjp)) {
        free(mutants);
        return unknown_operation(asked);
    }
    for (int i = 0; mutants && (mutant = ag_mutant_at(i)).op; i++)
        if (!asked || !strcmp(mutant.op, asked))
            mutants[n++] = mutant;
    bool complete = all_have_mutants();
    int status = ag_mutants_run(mutants, n, json, stdout);
    free(mutants);
    return complete && n > 0 ? status : 1;
}
