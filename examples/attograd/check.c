/* attograd check: the gradient check of every operation and every layer. */
#include "cases.h"
#include "commands.h"
#include "mutants.h"
#include "options.h"
#include "report.h"

#include <inttypes.h>
#include <string.h>

/* What a case is called: "softmax/first/second" checks softmax/first in second order. */
static void full_name(int i, char *text, size_t size)
{
    snprintf(text, size, "%s%s", ag_case_name(i), ag_case_suffix(i));
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
    ag_case_list(stderr);
    return 2;
}

static void print_head(void)
{
    printf("floor: a gradient that is off by this part would be seen in half of the entries\n"
           "worst: the largest disagreement, in units of the bound there; above 1 fails\n"
           "inconcl.: entries whose bound is too wide to say much: saturated functions\n\n"
           "%-12s %-35s %7s %8s %6s %6s\n",
           "verdict", "case", "entries", "inconcl.", "floor", "worst");
}

/* Where it is worst matters if something is not as it should be. */
static void print_text(const ag_case_result *result, int i)
{
    char name[64];
    full_name(i, name, sizeof name);
    printf("%-12s %-35s %7lld", ag_case_failed(result) ? "FAIL" : ag_verdict_name(result->verdict),
           name, (long long)result->entries);
    if (result->message[0])
        printf("  %s\n", result->message);
    else if (result->entries == 0)
        printf("  has no gradient\n");
    else
        printf(" %8lld %6.0e %6.0e\n", (long long)result->inconclusive, result->floor,
               result->worst);
    if (result->detail[0])
        printf("  %s %s\n", result->at, result->detail);
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
    ag_seed seed = { 1, false };
    const ag_option options[] = {
        { "--seed", AG_OPTION_SEED, &seed, 0, 0, NULL },
        { "--json", AG_OPTION_FLAG, &json, 0, 0, NULL },
        { "--mutants", AG_OPTION_FLAG, &mutants, 0, 0, NULL },
    };
    int words = ag_options_read(argc, argv, options, 3, &asked, 1,
                                "attograd check [CASE] [--seed S] [--json], or "
                                "check --mutants [OP] [--json]");
    if (words < 0)
        return 2;
    if (mutants)
        return ag_mutants_check(asked, json);
    int count = 0, failed = 0;
    int64_t entries = 0, inconclusive = 0;
    double start = ag_report_now();
    if (ag_case_first_without()) {
        fprintf(stderr, "attograd check: the operation %s has no case\n", ag_case_first_without());
        return 1;
    }
    for (int i = 0; i < ag_case_count(); i++) {
        if (words == 1 && !asked_for(asked, i))
            continue;
        if (count++ == 0 && !json)
            print_head();
        ag_case_result result;
        ag_case_run(i, seed.value, &result);
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
               "\"inconclusive\":%lld,\"seed\":%" PRIu64 ",\"seconds\":%.3f}\n",
               count, count - failed, failed, (long long)entries, (long long)inconclusive,
               seed.value, seconds);
    else
        printf("%d cases: %d passed, %d failed; %lld entries, %lld inconclusive; seed %" PRIu64
               "; %.2f s\n",
               count, count - failed, failed, (long long)entries, (long long)inconclusive,
               seed.value, seconds);
    return failed > 0;
}
