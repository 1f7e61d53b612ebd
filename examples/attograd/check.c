/* attograd check: the gradient check of every operation and every layer. */
#include "cases.h"
#include "commands.h"
#include "mutants.h"
#include "options.h"
#include "report.h"

#include <stdarg.h>
#include <string.h>

/* ---- All cases ---- */

/* The tables of operations and layers in first order, in second, the operations in other
 * layouts, and the kernels. */
typedef enum part { FIRST, SECOND, LAYOUTS, KERNELS, PARTS } part;

static const char *const part_suffix[] = { "", "/second", "/layouts", "/kernels" };

static int count_of(part p)
{
    return p == LAYOUTS   ? ag_op_case_count()
           : p == KERNELS ? ag_precision_case_count()
                          : ag_op_case_count() + ag_layer_case_count();
}

int ag_case_count(void)
{
    int count = 0;
    for (int p = 0; p < PARTS; p++)
        count += count_of((part)p);
    return count;
}

/* Case i as a place in a part. */
static part part_of(int i, int *place)
{
    int p = FIRST;
    for (*place = i; p < KERNELS && *place >= count_of((part)p); p++)
        *place -= count_of((part)p);
    return (part)p;
}

const char *ag_case_name(int i)
{
    int place, ops = ag_op_case_count();
    if (part_of(i, &place) == KERNELS)
        return ag_precision_case_name(place);
    return place < ops ? ag_op_case_at(place)->name : ag_layer_case_at(place - ops)->name;
}

const char *ag_case_kind(int i)
{
    int place;
    part p = part_of(i, &place);
    return p == KERNELS || place < ag_op_case_count() ? "op" : "layer";
}

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
}

void ag_case_run(int i, ag_case_result *result)
{
    int place, ops = ag_op_case_count();
    part p = part_of(i, &place);
    *result = (ag_case_result){ .name = ag_case_name(i),
                                .kind = ag_case_kind(i),
                                .verdict = AG_VERDICT_PASS };
    if (p == KERNELS)
        ag_precision_case_run(place, 1, result);
    else if (p == LAYOUTS)
        ag_layout_case_run(ag_op_case_at(place), 1, result);
    else if (place < ops)
        ag_op_case_run(ag_op_case_at(place), p == SECOND, result);
    else
        ag_layer_case_run(ag_layer_case_at(place - ops), p == SECOND, result);
}

/* ---- The command ---- */

/* What a case is called: "softmax/first/second" checks softmax/first in second order. */
static void full_name(int i, char *text, size_t size)
{
    int place;
    snprintf(text, size, "%s%s", ag_case_name(i), part_suffix[part_of(i, &place)]);
}

/* "softmax" asks for softmax, softmax/first, softmax/second and so on. */
static bool asked_for(const char *asked, int i)
{
    char name[64];
    size_t length = strlen(asked);
    full_name(i, name, sizeof name);
    return !strncmp(asked, name, length) && (name[length] == '\0' || name[length] == '/');
}

static int unknown_case(const char *asked)
{
    fprintf(stderr, "attograd check: unknown case '%s'; the cases are: ", asked);
    for (int i = 0; i < ag_op_case_count() + ag_layer_case_count(); i++)
        fprintf(stderr, "%s%s", i ? ", " : "", ag_case_name(i));
    fputc('\n', stderr);
    return 2;
}

static void print_head(void)
{
    printf("floor: the relative error of a gradient that is seen in half of the entries\n"
           "worst: the largest disagreement, in units of the bound there; above 1 fails\n"
           "incon.: entries where the bound is too wide to say much, as where a function is "
           "saturated\n\n"
           "%-12s  %-5s  %-38s %5s %5s  %7s  %7s\n",
           "verdict", "kind", "case", "entr.", "incon", "floor", "worst");
}

static void print_text(const ag_case_result *result, int i)
{
    char name[64];
    full_name(i, name, sizeof name);
    printf("%-12s  %-5s  %-38s %5lld",
           ag_case_failed(result) ? "FAIL" : ag_verdict_name(result->verdict), result->kind, name,
           (long long)result->entries);
    if (result->message[0])
        printf("  %s\n", result->message);
    else if (result->entries == 0)
        printf("  has no gradient\n");
    else
        printf(" %5lld  %7.0e  %7.0e at %s\n", (long long)result->inconclusive, result->floor,
               result->worst, result->at);
}

/* Strings in JSON; a message may hold a quote. */
static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < ' ' ? ' ' : *text);
    }
    putchar('"');
}

static void print_json(const ag_case_result *result, int i)
{
    char name[64];
    full_name(i, name, sizeof name);
    printf("{\"case\":");
    print_json_string(name);
    printf(",\"kind\":\"%s\",\"entries\":%lld,\"failures\":%lld,\"inconclusive\":%lld,"
           "\"kinks\":%lld,\"floor\":%.3e,\"worst\":",
           result->kind, (long long)result->entries, (long long)result->failures,
           (long long)result->inconclusive, (long long)result->kinks, result->floor);
    if (result->worst < 1e300) /* neither NaN nor infinite */
        printf("%.3e", result->worst);
    else
        printf("null");
    printf(",\"at\":");
    print_json_string(result->at);
    printf(",\"message\":");
    print_json_string(result->message);
    printf(",\"verdict\":\"%s\"}\n", ag_verdict_name(result->verdict));
}

int ag_cmd_check(int argc, char **argv)
{
    bool json = false, mutants = false;
    const char *asked = NULL;
    const ag_option options[] = { { "--json", AG_OPTION_FLAG, &json, 0, 0, NULL },
                                  { "--mutants", AG_OPTION_FLAG, &mutants, 0, 0, NULL } };
    int words = ag_options_read(argc, argv, options, 2, &asked, 1,
                                "attograd check [CASE] [--json], or check --mutants [OP] [--json]");
    if (words < 0)
        return 2;
    if (mutants)
        return ag_mutants_check(asked, json);
    int count = 0, failed = 0;
    int64_t entries = 0, inconclusive = 0;
    double start = ag_report_now();
    for (int i = 0; i < ag_case_count(); i++) {
        if (words == 1 && !asked_for(asked, i))
            continue;
        if (count++ == 0 && !json)
            print_head();
        ag_case_result result;
        ag_case_run(i, &result);
        (json ? print_json : print_text)(&result, i);
        fflush(stdout);
        failed += ag_case_failed(&result);
        entries += result.entries;
        inconclusive += result.inconclusive;
    }
    if (count == 0)
        return unknown_case(asked);
    double seconds = ag_report_now() - start;
    if (json)
        printf("{\"event\":\"done\",\"cases\":%d,\"passed\":%d,\"failed\":%d,\"entries\":%lld,"
               "\"inconclusive\":%lld,\"seconds\":%.3f}\n",
               count, count - failed, failed, (long long)entries, (long long)inconclusive, seconds);
    else
        printf("%d cases: %d passed, %d failed; %lld entries, %lld of them inconclusive; %.2f s\n",
               count, count - failed, failed, (long long)entries, (long long)inconclusive, seconds);
    return failed > 0;
}
