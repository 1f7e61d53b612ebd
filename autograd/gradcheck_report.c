/* What a gradient check says. */
#include "gradcheck.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *ag_verdict_name(ag_verdict verdict)
{
    static const char *const names[] = {
        [AG_VERDICT_PASS] = "pass",
        [AG_VERDICT_FAIL] = "fail",
        [AG_VERDICT_INCONCLUSIVE] = "inconclusive",
        [AG_VERDICT_KINK] = "kink",
        [AG_VERDICT_NOT_DETERMINISTIC] = "not deterministic",
        [AG_VERDICT_NOT_FINITE] = "not finite",
        [AG_VERDICT_CHANGES_INPUT] = "changes input",
        [AG_VERDICT_UNCONNECTED] = "unconnected",
        [AG_VERDICT_ERROR] = "error",
    };
    return (unsigned)verdict < sizeof names / sizeof names[0] ? names[verdict] : "unknown";
}

/* ---- Noting an entry ---- */

/* Which entry of which input the k-th of all is. */
static void place_of(const ag_check *check, int64_t k, ag_gradcheck_report *report)
{
    int input = 0;
    while (k >= check->first[input + 1])
        input++;
    const ag_tensor *x = ag_value(check->inputs[input]);
    k -= check->first[input];
    report->input = input;
    report->rank = x->rank;
    snprintf(report->name, sizeof report->name, "%s", ag_name(check->inputs[input]));
    for (int i = x->rank - 1; i >= 0; i--) {
        report->index[i] = k % x->dims[i];
        k /= x->dims[i];
    }
}

static void log_entry(const ag_check *check, const ag_gradcheck_report *where,
                      const ag_judgement *j)
{
    FILE *file = check->options.log;
    if (where->input < 0)
        fprintf(file, "  direction");
    else
        fprintf(file, "  input %d %s [", where->input, where->name);
    for (int i = 0; where->input >= 0 && i < where->rank; i++)
        fprintf(file, i ? ",%lld" : "%lld", (long long)where->index[i]);
    fprintf(file, "%s%s: got %.17g, want %.17g +- %.2g\n", where->input < 0 ? "" : "]",
            j->recorded ? " (recorded)" : "", j->analytic, j->numeric, j->bound);
}

void ag_check_note(ag_check *check, const ag_direction *direction, const ag_judgement *j)
{
    ag_gradcheck_report *report = check->report, where = { .input = -1 };
    double gap = fabs(j->analytic - j->numeric), size = fabs(j->numeric);
    double badness = gap == 0.0 ? 0.0 : gap / j->bound;
    bool failed = j->verdict == AG_VERDICT_FAIL;
    if (direction->to - direction->from == 1)
        place_of(check, direction->from, &where);
    if (failed && check->options.log)
        log_entry(check, &where, j);
    if (j->bound < size)
        check->floors[check->n_floors++] = j->bound / size;
    report->entries++;
    report->failures += failed;
    report->inconclusive += j->verdict == AG_VERDICT_INCONCLUSIVE;
    report->kinks += j->verdict == AG_VERDICT_KINK;
    if (isnan(badness))
        badness = failed ? INFINITY : 0.0; /* no number to compare with, or none to compare */
    if (report->entries > 1 && !(badness > report->worst))
        return;
    report->worst = badness;
    report->input = where.input;
    report->rank = where.rank;
    memcpy(report->name, where.name, sizeof where.name);
    memcpy(report->index, where.index, sizeof where.index);
    report->analytic = j->analytic;
    report->numeric = j->numeric;
    report->ratio = j->analytic / j->numeric;
    report->bound = j->bound;
    report->recorded = j->recorded;
}

/* ---- The whole ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void ag_check_conclude(ag_check *check)
{
    ag_gradcheck_report *report = check->report;
    if (check->n_floors > 0) {
        qsort(check->floors, (size_t)check->n_floors, sizeof *check->floors, ascending);
        report->floor = check->floors[check->n_floors / 2];
        report->worst_floor = check->floors[check->n_floors - 1];
    }
    if (report->message[0])
        return;
    report->verdict = report->failures > 0       ? AG_VERDICT_FAIL
                      : report->inconclusive > 0 ? AG_VERDICT_INCONCLUSIVE
                      : report->kinks > 0        ? AG_VERDICT_KINK
                                                 : AG_VERDICT_PASS;
}

static void print_place(const ag_gradcheck_report *report, FILE *file)
{
    if (report->input < 0) {
        fprintf(file, "a direction");
        return;
    }
    fprintf(file, "input %d%s%s [", report->input, report->name[0] ? " " : "", report->name);
    for (int i = 0; i < report->rank; i++)
        fprintf(file, i ? ",%lld" : "%lld", (long long)report->index[i]);
    fputc(']', file);
}

void ag_gradcheck_print(const ag_gradcheck_report *report, FILE *file)
{
    if (!report || !file)
        return;
    for (const char *c = ag_verdict_name(report->verdict); *c; c++)
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, file);
    fprintf(file, ": %lld %s", (long long)report->entries,
            report->entries > 0 && report->input < 0 ? "directions" : "entries");
    if (report->failures > 0)
        fprintf(file, ", %lld wrong", (long long)report->failures);
    if (report->inconclusive > 0)
        fprintf(file, ", %lld inconclusive", (long long)report->inconclusive);
    if (report->kinks > 0)
        fprintf(file, ", %lld at a kink", (long long)report->kinks);
    if (report->message[0])
        fprintf(file, "; %s", report->message);
    if (report->entries > 0) {
        fprintf(file, "; worst: ");
        print_place(report, file);
        fprintf(file, " got %.10g%s, want %.10g +- %.2g, ratio %.9g", report->analytic,
                report->recorded ? " (recorded)" : "", report->numeric, report->bound,
                report->ratio);
    }
    if (report->floor > 0.0)
        fprintf(file, "; sees relative errors of %.1e", report->floor);
    fputc('\n', file);
}
