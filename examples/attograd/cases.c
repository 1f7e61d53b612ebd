/* All cases, part by part: the tables of operations and layers in first order, in second, .. */
#include "cases.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef enum part { FIRST, SECOND, BACKWARD, SUBSETS, LAYOUTS, TIES, KERNELS, PARTS } part;

static const char *const suffixes[PARTS] = { "",         "/second", "/backward", "/subsets",
                                             "/layouts", "/ties",   "/kernels" };

int ag_case_first_count(void)
{
    return ag_op_case_count() + ag_layer_case_count();
}

/* Whether the part has something to say about the case at this place of the tables: there is no
 * proper subset of one input, which is all that a lookup has. */
static bool takes(part p, int place)
{
    const ag_op_case *op = ag_op_case_at(place);
    const ag_layer_case *layer = ag_layer_case_at(place - ag_op_case_count());
    if (p != BACKWARD && p != SUBSETS)
        return true;
    if (layer)
        return p == BACKWARD || layer->embedding.d == 0 || layer->positions;
    return op && !op->no_gradient && (p == BACKWARD || op->n > 1);
}

static int places_of(part p)
{
    return p == LAYOUTS   ? ag_op_case_count()
           : p == TIES    ? ag_tie_case_count()
           : p == KERNELS ? ag_precision_case_count()
                          : ag_case_first_count();
}

int ag_case_count(void)
{
    int count = 0;
    for (int p = FIRST; p < PARTS; p++)
        for (int place = 0; place < places_of((part)p); place++)
            count += takes((part)p, place);
    return count;
}

/* Case i as a place in a part; of the last part, if there is no such case. */
static part part_of(int i, int *place)
{
    for (int p = FIRST; p < PARTS; p++)
        for (*place = 0; *place < places_of((part)p); ++*place)
            if (takes((part)p, *place) && i-- == 0)
                return (part)p;
    return KERNELS;
}

/* The operation's case at this place of a part, NULL if it is another one. */
static const ag_op_case *op_at(part p, int place)
{
    return p == TIES || p == KERNELS ? NULL : ag_op_case_at(place);
}

static const ag_layer_case *layer_at(part p, int place)
{
    return p == TIES || p == KERNELS ? NULL : ag_layer_case_at(place - ag_op_case_count());
}

const char *ag_case_name(int i)
{
    int place;
    part p = part_of(i, &place);
    if (op_at(p, place))
        return op_at(p, place)->name;
    return p == TIES      ? ag_tie_case_name(place)
           : p == KERNELS ? ag_precision_case_name(place)
                          : layer_at(p, place)->name;
}

const char *ag_case_suffix(int i)
{
    int place;
    return suffixes[part_of(i, &place)];
}

const char *ag_case_kind(int i)
{
    int place;
    part p = part_of(i, &place);
    return layer_at(p, place) ? "layer" : "op";
}

bool ag_case_has_gradient(int i)
{
    int place;
    part p = part_of(i, &place);
    return !op_at(p, place) || !op_at(p, place)->no_gradient;
}

const char *ag_case_first_without(void)
{
    for (int i = 0; i < ag_op_count(); i++) {
        bool covered = false;
        for (int k = 0; k < ag_op_case_count(); k++)
            covered = covered || !strcmp(ag_op_case_at(k)->covers, ag_op_at(i)->name);
        if (!covered)
            return ag_op_at(i)->name;
    }
    return NULL;
}

int ag_case_find(const char *name)
{
    for (int i = 0; i < ag_case_first_count(); i++)
        if (!strcmp(ag_case_name(i), name))
            return i;
    return -1;
}

/* ---- Setting one up ---- */

void ag_case_open(int i, uint64_t seed, ag_dtype dtype, ag_case_setup *setup)
{
    int place;
    part p = part_of(i, &place);
    if (op_at(p, place))
        ag_op_case_open(op_at(p, place), 0, seed, dtype, setup);
    else
        ag_layer_case_open(layer_at(p, place), seed, dtype, setup);
}

void ag_case_close(ag_case_setup *setup)
{
    ag_context_free(setup->context);
    free(setup->user);
    *setup = (ag_case_setup){ 0 };
}

/* ---- Checking one ---- */

/* Of verdicts on the same case the most serious one counts. */
static int seriousness(ag_verdict verdict)
{
    return verdict == AG_VERDICT_PASS           ? 0
           : verdict == AG_VERDICT_KINK         ? 1
           : verdict == AG_VERDICT_INCONCLUSIVE ? 2
           : verdict == AG_VERDICT_FAIL         ? 3
                                                : 4;
}

bool ag_case_failed(const ag_case_result *result)
{
    return seriousness(result->verdict) > 2;
}

void ag_case_complain(ag_case_result *result, const char *format, ...)
{
    va_list arguments;
    result->verdict = AG_VERDICT_FAIL;
    if (result->message[0])
        return;
    va_start(arguments, format);
    vsnprintf(result->message, sizeof result->message, format, arguments);
    va_end(arguments);
}

/* "input 1 w [2,0]" */
static void describe_place(const ag_gradcheck_report *report, char *text, size_t size)
{
    int used = snprintf(text, size, "input %d%s%.40s [", report->input, report->name[0] ? " " : "",
                        report->name);
    for (int i = 0; i < report->rank; i++)
        used += snprintf(text + used, size - (size_t)used, i ? ",%lld" : "%lld",
                         (long long)report->index[i]);
    snprintf(text + used, size - (size_t)used, "]");
}

/* What is wrong: with the Hessian as a whole, with the entry that is worst, or with both. */
static void describe_failure(const ag_gradcheck_report *report, ag_case_result *result)
{
    char *text = result->detail;
    size_t size = sizeof result->detail, used = 0;
    bool asymmetric = !(report->asymmetry <= 1.0), entry = !asymmetric || report->worst > 1.0;
    text[0] = '\0';
    if (asymmetric)
        used = (size_t)snprintf(text, size, "u'Hv - v'Hu is %.2g times what is allowed%s",
                                report->asymmetry, entry ? "; " : "");
    if (entry)
        snprintf(text + used, size - used, "got %.10g%s, want %.10g +- %.2g, ratio %.9g%s%s",
                 report->analytic, report->recorded ? " (recorded)" : "", report->numeric,
                 report->bound, report->ratio, report->suspect[0] ? "; looks like: " : "",
                 report->suspect);
    else
        snprintf(result->at, sizeof result->at, "the Hessian H");
}

void ag_case_note(ag_case_result *result, const ag_gradcheck_report *report)
{
    bool first = result->entries == 0, failed = report->failures > 0;
    bool had_failed = result->detail[0] != '\0';
    double worst = report->asymmetry > 1.0 ? fmax(report->asymmetry, report->worst) : report->worst;
    result->entries += report->entries;
    result->failures += report->failures;
    result->inconclusive += report->inconclusive;
    result->kinks += report->kinks;
    result->differences = result->differences || report->no_complex_form[0];
    result->floor = report->floor > result->floor ? report->floor : result->floor;
    if (seriousness(report->verdict) > seriousness(result->verdict))
        result->verdict = report->verdict;
    if (report->message[0] && !result->message[0])
        snprintf(result->message, sizeof result->message, "%s", report->message);
    if (report->contradictions > 0)
        ag_case_complain(result,
                         "complex steps and differences contradict each other in %lld entries: "
                         "a complex form is wrong",
                         (long long)report->contradictions);
    if (report->entries == 0)
        return;
    bool worse = first || !(worst <= result->worst);
    if (worse)
        result->worst = worst;
    /* Where something is wrong goes before where it is nearly so. */
    if (failed == had_failed ? !worse : had_failed)
        return;
    describe_place(report, result->at, sizeof result->at);
    if (failed)
        describe_failure(report, result);
}

void ag_case_check(ag_case_setup *setup, bool second, const ag_gradcheck_options *options,
                   ag_case_result *result)
{
    ag_gradcheck_report report;
    (second ? ag_gradcheck_second : ag_gradcheck)(setup->context, setup->f, setup->user,
                                                  setup->inputs, setup->n, options, &report);
    ag_case_note(result, &report);
}

static void run_backward(int i, uint64_t seed, ag_case_result *result)
{
    ag_case_setup setup;
    ag_case_open(i, seed, AG_F64, &setup);
    ag_backward_case_run(&setup, seed, result);
    ag_case_close(&setup);
}

static void run_op(part p, const ag_op_case *op, uint64_t seed, ag_case_result *result)
{
    if (p == LAYOUTS)
        ag_layout_case_run(op, seed, result);
    else if (p == SUBSETS)
        ag_subset_op_run(op, seed, result);
    else
        ag_op_case_run(op, p == SECOND, seed, result);
}

static void run_layer(part p, const ag_layer_case *layer, uint64_t seed, ag_case_result *result)
{
    if (p == SUBSETS)
        ag_subset_layer_run(layer, seed, result);
    else
        ag_layer_case_run(layer, p == SECOND, seed, result);
}

void ag_case_run(int i, uint64_t seed, ag_case_result *result)
{
    int place;
    part p = part_of(i, &place);
    *result = (ag_case_result){ .name = ag_case_name(i),
                                .kind = ag_case_kind(i),
                                .verdict = AG_VERDICT_PASS };
    if (p == BACKWARD)
        run_backward(i, seed, result);
    else if (p == TIES)
        ag_tie_case_run(place, result);
    else if (p == KERNELS)
        ag_precision_case_run(place, seed, result);
    else if (op_at(p, place))
        run_op(p, op_at(p, place), seed, result);
    else
        run_layer(p, layer_at(p, place), seed, result);
}
