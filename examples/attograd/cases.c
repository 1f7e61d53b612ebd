/* All cases: each of the tables in first order, then in second. */
#include "cases.h"

#include <stdlib.h>
#include <string.h>

int ag_case_first_count(void)
{
    return ag_op_case_count() + ag_layer_case_count();
}

int ag_case_count(void)
{
    return 2 * ag_case_first_count();
}

/* Case i as a place in the tables; *second says which order. */
static int place_of(int i, bool *second)
{
    *second = i >= ag_case_first_count();
    return i % ag_case_first_count();
}

/* The operation's case at this place, or NULL: then it is the layer's. */
static const ag_op_case *op_at(int place)
{
    return ag_op_case_at(place);
}

static const ag_layer_case *layer_at(int place)
{
    return ag_layer_case_at(place - ag_op_case_count());
}

const char *ag_case_name(int i)
{
    bool second;
    int place = place_of(i, &second);
    return op_at(place) ? op_at(place)->name : layer_at(place)->name;
}

const char *ag_case_kind(int i)
{
    bool second;
    return op_at(place_of(i, &second)) ? "op" : "layer";
}

bool ag_case_is_second(int i)
{
    return i >= ag_case_first_count();
}

bool ag_case_has_gradient(int i)
{
    bool second;
    const ag_op_case *op = op_at(place_of(i, &second));
    return !op || !op->no_gradient;
}

int ag_case_find(const char *name)
{
    for (int i = 0; i < ag_case_first_count(); i++)
        if (!strcmp(ag_case_name(i), name))
            return i;
    return -1;
}

void ag_case_list(FILE *file)
{
    for (int i = 0; i < ag_case_first_count(); i++)
        fprintf(file, "%s%s", i ? ", " : "", ag_case_name(i));
    fputc('\n', file);
}

/* ---- Setting one up ---- */

void ag_case_open(int i, uint64_t seed, ag_dtype dtype, ag_case_setup *setup)
{
    bool second;
    int place = place_of(i, &second);
    if (op_at(place))
        ag_op_case_open(op_at(place), 0, seed, dtype, setup);
    else
        ag_layer_case_open(layer_at(place), seed, dtype, setup);
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

void ag_case_note(ag_case_result *result, const ag_gradcheck_report *report)
{
    bool first = result->entries == 0;
    result->entries += report->entries;
    result->failures += report->failures;
    result->inconclusive += report->inconclusive;
    result->kinks += report->kinks;
    result->floor = report->floor > result->floor ? report->floor : result->floor;
    if (seriousness(report->verdict) > seriousness(result->verdict))
        result->verdict = report->verdict;
    if (report->message[0] && !result->message[0])
        snprintf(result->message, sizeof result->message, "%s", report->message);
    if (report->entries == 0 || (!first && !(report->worst > result->worst)))
        return;
    result->worst = report->worst;
    int used = snprintf(result->at, sizeof result->at, "input %d%s%.40s [", report->input,
                        report->name[0] ? " " : "", report->name);
    for (int i = 0; i < report->rank; i++)
        used += snprintf(result->at + used, sizeof result->at - (size_t)used, i ? ",%lld" : "%lld",
                         (long long)report->index[i]);
    snprintf(result->at + used, sizeof result->at - (size_t)used, "]");
    if (report->failures > 0)
        snprintf(result->detail, sizeof result->detail,
                 "got %.10g%s, want %.10g +- %.2g, ratio %.9g; looks like: %s", report->analytic,
                 report->recorded ? " (recorded)" : "", report->numeric, report->bound,
                 report->ratio, report->suspect);
}

void ag_case_check(ag_case_setup *setup, bool second, const ag_gradcheck_options *options,
                   ag_case_result *result)
{
    ag_gradcheck_report report;
    (second ? ag_gradcheck_second : ag_gradcheck)(setup->context, setup->f, setup->user,
                                                  setup->inputs, setup->n, options, &report);
    ag_case_note(result, &report);
}

void ag_case_run(int i, uint64_t seed, ag_case_result *result)
{
    bool second;
    int place = place_of(i, &second);
    *result = (ag_case_result){ .name = ag_case_name(i),
                                .kind = ag_case_kind(i),
                                .verdict = AG_VERDICT_PASS };
    if (op_at(place))
        ag_op_case_run(op_at(place), second, seed, result);
    else
        ag_layer_case_run(layer_at(place), second, seed, result);
}
