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

/* Which entry of which input a direction moves; input is -1 if it moves more. */
static void place_of(const ag_check *check, const ag_direction *direction,
                     ag_gradcheck_report *report)
{
    int input = 0;
    int64_t k = direction->from;
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

static void log_entry(const ag_check *check, const ag_direction *direction, const ag_judgement *j)
{
    ag_gradcheck_report where;
    FILE *file = check->options.log;
    place_of(check, direction, &where);
    fprintf(file, "  ");
    print_place(&where, file);
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
    report->contradictions += j->contradiction;
    if (report->entries == 1 || badness_of(j) > report->worst)
        ag_check_blame(check, direction, j);
}

/* ---- What a wrong gradient looks like ---- */

/* The entries of the input that is to blame: what came from backward, what it should be. */
typedef struct picture {
    const double *got, *want, *bound;
    int64_t count;
} picture;

/* Whether got = factor want, entry by entry, as far as the bounds can tell. */
static bool is_multiple(const picture *p, double factor)
{
    for (int64_t k = 0; k < p->count; k++)
        if (!(fabs(p->got[k] - factor * p->want[k]) <= 2.0 * (1.0 + fabs(factor)) * p->bound[k]))
            return false;
    return true;
}

/* The ratio at the entry that is best known. */
static double factor_of(const picture *p)
{
    double best = INFINITY, factor = 0.0;
    for (int64_t k = 0; k < p->count; k++)
        if (p->bound[k] / fabs(p->want[k]) < best) {
            best = p->bound[k] / fabs(p->want[k]);
            factor = p->got[k] / p->want[k];
        }
    return factor;
}

/* Matrices of n rows and columns, each of them transposed. */
static bool is_transposed(const picture *p, int64_t n)
{
    for (int64_t k = 0; k < p->count; k++) {
        int64_t matrix = k / (n * n), row = k / n % n, column = k % n;
        int64_t other = (matrix * n + column) * n + row;
        if (!(fabs(p->got[k] - p->want[other]) <= 2.0 * (p->bound[k] + p->bound[other])))
            return false;
    }
    return true;
}

static int64_t count_right(const picture *p)
{
    int64_t right = 0;
    for (int64_t k = 0; k < p->count; k++)
        right += fabs(p->got[k] - p->want[k]) <= p->bound[k];
    return right;
}

static void name_suspect(ag_check *check)
{
    ag_gradcheck_report *report = check->report;
    const ag_tensor *x = ag_value(check->inputs[report->input]);
    int64_t first = check->first[report->input], right;
    const double *got = report->recorded ? check->recorded : check->usual;
    picture p = { got + first, check->numeric + first, check->bounds + first, ag_tensor_count(x) };
    int64_t n = x->rank >= 2 ? x->dims[x->rank - 1] : 0;
    double factor = factor_of(&p);
    if (is_multiple(&p, 0.0))
        snprintf(report->suspect, sizeof report->suspect, "zero");
    else if (is_multiple(&p, -1.0))
        snprintf(report->suspect, sizeof report->suspect, "sign");
    else if (p.count > 1 && is_multiple(&p, factor))
        snprintf(report->suspect, sizeof report->suspect, "factor %.9g", factor);
    else if (n > 1 && x->dims[x->rank - 2] == n && is_transposed(&p, n))
        snprintf(report->suspect, sizeof report->suspect, "transposed");
    else if ((right = count_right(&p)) > 0)
        snprintf(report->suspect, sizeof report->suspect, "%.0f of %.0f entries",
                 (double)(p.count - right), (double)p.count);
    else
        snprintf(report->suspect, sizeof report->suspect, "missing or wrong term");
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
    report->directions = check->options.directions > 0;
    if (report->message[0])
        return;
    if (report->failures > 0 && !report->directions && !check->only)
        name_suspect(check);
    report->verdict = report->failures > 0       ? AG_VERDICT_FAIL
                      : report->inconclusive > 0 ? AG_VERDICT_INCONCLUSIVE
                      : report->kinks > 0        ? AG_VERDICT_KINK
                                                 : AG_VERDICT_PASS;
}

void ag_gradcheck_print(const ag_gradcheck_report *report, FILE *file)
{
    if (!report || !file)
        return;
    for (const char *c = ag_verdict_name(report->verdict); *c; c++)
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, file);
    fprintf(file, ": %lld %s", (long long)report->entries,
            report->directions ? "directions" : "entries");
    if (report->failures > 0)
        fprintf(file, ", %lld wrong", (long long)report->failures);
    if (report->inconclusive > 0)
        fprintf(file, ", %lld inconclusive", (long long)report->inconclusive);
    if (report->kinks > 0)
        fprintf(file, ", %lld at a kink", (long long)report->kinks);
    if (report->contradictions > 0)
        fprintf(file, ", %lld where complex steps contradict", (long long)report->contradictions);
    if (report->message[0])
        fprintf(file, "; %s", report->message);
    if (report->entries > 0) {
        fprintf(file, "; worst: ");
        print_place(report, file);
        int digits = report->method == AG_GRADCHECK_COMPLEX ? 16 : 10;
        fprintf(file, " got %.*g%s, want %.*g +- %.2g, ratio %.*g", digits, report->analytic,
                report->recorded ? " (recorded)" : "", digits, report->numeric, report->bound,
                digits - 1, report->ratio);
        if (report->method == AG_GRADCHECK_COMPLEX)
            fprintf(file, " by complex step");
        else if (!isnan(report->complex_step))
            fprintf(file, ", %.10g by complex step", report->complex_step);
    }
    if (report->no_complex_form[0])
        fprintf(file, "; without complex steps: %s has no complex form", report->no_complex_form);
    if (report->suspect[0])
        fprintf(file, "; looks like: %s", report->suspect);
    if (report->op[0])
        fprintf(file, "; wrong by itself: node %lld %s", (long long)report->node, report->op);
    if (report->floor > 0.0)
        fprintf(file, "; sees relative errors of %.1e", report->floor);
    fputc('\n', file);
}
