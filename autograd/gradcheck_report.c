/* What a gradient check says. */
#include "gradcheck.h"

#include <math.h>
#include <stdlib.h>

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

/* The range that a direction moves, and if that is one entry, which of which input. */
static void place_of(const ag_check *check, const ag_direction *direction,
                     ag_gradcheck_report *report)
{
    int input = 0;
    int64_t k = direction->from;
    report->from = direction->from;
    report->to = direction->to;
    report->input = -1;
    report->name[0] = '\0';
    report->rank = 0;
    if (direction->to - direction->from > 1)
        return;
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

static void log_entry(const ag_check *check, const ag_direction *direction, const ag_judgement *j)
{
    ag_gradcheck_report where;
    FILE *file = check->options.log;
    place_of(check, direction, &where);
    fprintf(file, "  ");
    ag_check_print_place(&where, file);
    fprintf(file, "%s: got %.15g, want %.15g +- %.2g\n", j->recorded ? " (recorded)" : "",
            j->analytic, j->numeric, j->bound);
}

static double badness_of(const ag_judgement *j)
{
    double gap = fabs(j->analytic - j->numeric), badness = gap == 0.0 ? 0.0 : gap / j->bound;
    if (!isnan(badness))
        return badness;
    return j->verdict == AG_VERDICT_FAIL ? INFINITY : 0.0; /* one of the two is not a number */
}

bool ag_check_is_worse(const ag_judgement *a, const ag_judgement *b)
{
    bool failed = a->verdict == AG_VERDICT_FAIL, other = b->verdict == AG_VERDICT_FAIL;
    return failed == other ? badness_of(a) > badness_of(b) : failed;
}

void ag_check_blame(ag_check *check, const ag_direction *direction, const ag_judgement *j)
{
    ag_gradcheck_report *report = check->report;
    place_of(check, direction, report);
    report->worst = badness_of(j);
    report->analytic = j->analytic;
    report->numeric = j->numeric;
    report->ratio = j->analytic / j->numeric;
    report->bound = j->bound;
    report->step = j->h;
    report->recorded = j->recorded;
    report->method = j->method;
    report->complex_step = j->complex_step;
}

void ag_check_note(ag_check *check, const ag_direction *direction, const ag_judgement *j)
{
    ag_gradcheck_report *report = check->report;
    bool failed = j->verdict == AG_VERDICT_FAIL;
    if (failed && check->options.log)
        log_entry(check, direction, j);
    if (j->bound < fabs(j->numeric))
        check->floors[check->n_floors++] = j->bound / fabs(j->numeric);
    report->entries++;
    report->failures += failed;
    report->inconclusive += j->verdict == AG_VERDICT_INCONCLUSIVE;
    report->kinks += j->verdict == AG_VERDICT_KINK;
    report->insensitive += j->still;
    report->contradictions += j->contradiction;
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
    report->by_directions = check->options.directions > 0;
    if (report->message[0])
        return;
    if (report->failures > 0 && !report->by_directions && !check->only)
        ag_check_name_suspect(check);
    report->verdict = report->failures > 0       ? AG_VERDICT_FAIL
                      : report->inconclusive > 0 ? AG_VERDICT_INCONCLUSIVE
                      : report->kinks > 0        ? AG_VERDICT_KINK
                                                 : AG_VERDICT_PASS;
}
