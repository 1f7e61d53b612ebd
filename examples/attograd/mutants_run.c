/* attograd check --mutants: every mutant is checked until a case notices it. */
#include "cases.h"
#include "mutants.h"
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What became of a mutant. */
typedef enum fate {
    SURVIVED,
    KILLED, /* a case has seen that its gradient is wrong */
    REFUSED /* it raised an error, so that no gradient was judged */
} fate;

static const char *const fate_names[] = { "SURVIVED", "killed", "refused" };

typedef struct outcome {
    fate fate;
    const ag_op_case *by; /* the case that decided; NULL if it survived */
    bool second;
    ag_gradcheck_report report;
    int checks;
} outcome;

static fate fate_of(const ag_gradcheck_report *report)
{
    switch (report->verdict) {
    case AG_VERDICT_PASS:
    case AG_VERDICT_KINK:
    case AG_VERDICT_INCONCLUSIVE:
        return SURVIVED;
    case AG_VERDICT_ERROR:
        return REFUSED;
    default:
        return KILLED;
    }
}

/* The cases of the mutant's operation at one point, in one order: whether one of them killed it. An
 * error is remembered, but another case may still tell more. */
static bool check_cases(const ag_mutant *mutant, int point, bool second, uint64_t seed,
                        outcome *result)
{
    for (int i = 0; i < ag_op_case_count(); i++) {
        const ag_op_case *op = ag_op_case_at(i);
        ag_gradcheck_report report;
        if (strcmp(op->covers, mutant->op))
            continue;
        ag_op_case_check(op, second, point, seed, mutant->rule, &report);
        result->checks++;
        fate seen = fate_of(&report);
        if (seen == SURVIVED || (seen == REFUSED && result->fate == REFUSED))
            continue;
        result->fate = seen;
        result->by = op;
        result->second = second;
        result->report = report;
        if (seen == KILLED)
            return true;
    }
    return false;
}

static outcome judge(const ag_mutant *mutant, uint64_t seed)
{
    outcome result = { .fate = SURVIVED };
    for (int second = 0; second < 2; second++)
        for (int point = 0; point < ag_op_case_points(second); point++)
            if (check_cases(mutant, point, second, seed, &result))
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
    fprintf(file, "%-8s  %-16s  %-34s  ", fate_names[result->fate], mutant->op, name);
    if (result->fate == SURVIVED) {
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
    fprintf(file, ",\"checks\":%d,\"killed\":%s,\"refused\":%s", result->checks,
            result->fate == KILLED ? "true" : "false", result->fate == REFUSED ? "true" : "false");
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

/* How many of each fate there are. */
typedef struct tally {
    int of[3];
} tally;

static void print_tally(const tally *t, int n, uint64_t seed, double seconds, bool json, FILE *file)
{
    fprintf(file,
            json ? "{\"event\":\"done\",\"mutants\":%d,\"killed\":%d,\"survived\":%d,"
                   "\"refused\":%d,\"seed\":%" PRIu64 ",\"seconds\":%.3f}\n"
                 : "%d mutants, %d killed, %d survived, %d refused; seed %" PRIu64 "; %.2f s\n",
            n, t->of[KILLED], t->of[SURVIVED], t->of[REFUSED], seed, seconds);
}

/* Whether an operation has enough mutants, besides those that were refused. */
static bool has_enough(const char *op, int refused)
{
    int count = ag_mutant_count(op) - refused;
    if (count >= AG_FEWEST_MUTANTS)
        return true;
    fprintf(stderr, "attograd check: the operation %s has %d mutants%s; at least %d are needed\n",
            op, count, refused > 0 ? " that raise no error" : "", AG_FEWEST_MUTANTS);
    return false;
}

int ag_mutants_run(const ag_mutant *mutants, int n, uint64_t seed, bool json, FILE *file)
{
    tally all = { { 0 } };
    int refused = 0; /* of the same operation, whose mutants stand together */
    bool enough = true;
    double start = ag_report_now();
    for (int i = 0; i < n; i++) {
        outcome result = judge(&mutants[i], seed);
        (json ? print_json : print_text)(&mutants[i], &result, file);
        fflush(file);
        all.of[result.fate]++;
        refused += result.fate == REFUSED;
        if (refused > 0 && (i + 1 == n || strcmp(mutants[i].op, mutants[i + 1].op))) {
            enough = has_enough(mutants[i].op, refused) && enough;
            refused = 0;
        }
    }
    print_tally(&all, n, seed, ag_report_now() - start, json, file);
    return all.of[SURVIVED] > 0 || !enough;
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
    for (int i = 0; i < ag_op_count(); i++)
        if (ag_op_at(i)->vjp)
            good = has_enough(ag_op_at(i)->name, 0) && good;
    return good;
}

int ag_mutants_check(const char *asked, uint64_t seed, bool json)
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
    int status = ag_mutants_run(mutants, n, seed, json, stdout);
    free(mutants);
    return complete && n > 0 ? status : 1;
}
