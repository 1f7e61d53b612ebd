/* Results of checks, for people and for programs. */
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- For people ---- */

void ag_case_print_head(FILE *file)
{
    fprintf(file,
            "floor: a gradient that is off by this part would be seen in half of the entries\n"
            "worst: the largest disagreement, in units of the bound there; above 1 fails\n"
            "inconcl.: entries whose bound is too wide to say much: saturated functions\n\n"
            "%-12s %-35s %7s %8s %6s %6s\n",
            "verdict", "case", "entries", "inconcl.", "floor", "worst");
}

/* "pass", "FAIL", "FAIL: not finite": a failure is to be found by one word. */
static const char *verdict_text(const ag_case_result *result, char text[32])
{
    const char *name = ag_verdict_name(result->verdict);
    if (!ag_case_failed(result))
        return name;
    if (result->verdict == AG_VERDICT_FAIL)
        return "FAIL";
    snprintf(text, 32, "FAIL: %s", name);
    return text;
}

/* The command that runs the case again. */
static void replay(const char *name, uint64_t seed, char *text, size_t size)
{
    snprintf(text, size, "./run check %s --seed %" PRIu64, name, seed);
}

/* Where it is worst matters if something is not as it should be. A long verdict takes room from
 * the name's column, so that the numbers stay below each other. */
void ag_case_print_text(const ag_case_result *result, const char *name, uint64_t seed, FILE *file)
{
    char text[32], again[128];
    int used = fprintf(file, "%-12s ", verdict_text(result, text));
    fprintf(file, "%-*s %7" PRId64, used < 48 ? 48 - used : 0, name, result->entries);
    if (result->message[0])
        fprintf(file, "  %s\n", result->message);
    else if (result->entries == 0)
        fprintf(file, "  has no gradient\n");
    else
        fprintf(file, " %8" PRId64 " %6.0e %6.0e\n", result->inconclusive, result->floor,
                result->worst);
    if (result->detail[0])
        fprintf(file, "  %s: %s\n", result->at, result->detail);
    replay(name, seed, again, sizeof again);
    if (ag_case_failed(result))
        fprintf(file, "  again: %s\n", again);
}

/* ---- For programs ---- */

/* Strings in JSON; a message may hold a quote. */
static void print_string(const char *key, const char *text, FILE *file)
{
    fprintf(file, "\"%s\":\"", key);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        fputc((unsigned char)*text < ' ' ? ' ' : *text, file);
    }
    fputs("\",", file);
}

void ag_case_print_json(const ag_case_result *result, const char *name, uint64_t seed, FILE *file)
{
    char again[128];
    replay(name, seed, again, sizeof again);
    fputc('{', file);
    print_string("case", name, file);
    fprintf(file,
            "\"kind\":\"%s\",\"entries\":%" PRId64 ",\"failures\":%" PRId64
            ",\"inconclusive\":%" PRId64 ",\"kinks\":%" PRId64 ",\"floor\":%.3e,",
            result->kind, result->entries, result->failures, result->inconclusive, result->kinks,
            result->floor);
    if (result->worst < 1e300) /* neither NaN nor infinite */
        fprintf(file, "\"worst\":%.3e,", result->worst);
    else
        fputs("\"worst\":null,", file);
    print_string("at", result->at, file);
    print_string("detail", result->detail, file);
    print_string("message", result->message, file);
    print_string("replay", again, file);
    fprintf(file, "\"seed\":%" PRIu64 ",\"verdict\":\"%s\"}\n", seed,
            ag_verdict_name(result->verdict));
}

/* ---- All together ---- */

static void add_unsure(ag_case_total *total, const ag_case_result *result)
{
    int length = (int)strcspn(result->name, "/"), k = 0;
    char name[sizeof total->unsure[0].name];
    snprintf(name, sizeof name, "%.*s", length, result->name);
    while (k < total->n_unsure && strcmp(total->unsure[k].name, name))
        k++;
    if (k == AG_MOST_UNSURE)
        return;
    ag_unsure *unsure = &total->unsure[k];
    if (k == total->n_unsure) {
        *unsure = (ag_unsure){ .cases = 0 };
        memcpy(unsure->name, name, sizeof name);
        total->n_unsure++;
    }
    unsure->cases++;
    unsure->inconclusive += result->inconclusive;
    unsure->entries += result->entries;
}

static void add_floor(ag_case_total *total, int method, double floor)
{
    if (total->n_floors[method] == total->room[method]) {
        int room = 2 * total->room[method] + 64;
        double *larger = realloc(total->floors[method], (size_t)room * sizeof *larger);
        if (!larger)
            return; /* one less in the median */
        total->floors[method] = larger;
        total->room[method] = room;
    }
    total->floors[method][total->n_floors[method]++] = floor;
}

void ag_case_total_add(ag_case_total *total, const ag_case_result *result)
{
    total->cases++;
    total->failed += ag_case_failed(result);
    total->entries += result->entries;
    total->inconclusive += result->inconclusive;
    if (result->inconclusive > 0)
        add_unsure(total, result);
    if (result->floor > 0.0)
        add_floor(total, result->differences, result->floor);
}

void ag_case_total_free(ag_case_total *total)
{
    free(total->floors[0]);
    free(total->floors[1]);
    *total = (ag_case_total){ 0 };
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_floors(const ag_case_total *total, FILE *file)
{
    static const char *const methods[] = { "by complex steps", "by differences alone" };
    for (int method = 0; method < 2; method++) {
        int n = total->n_floors[method];
        if (n == 0)
            continue;
        double *floors = total->floors[method];
        qsort(floors, (size_t)n, sizeof *floors, ascending);
        fprintf(file, "floors %s: %d case%s, median %.0e, largest %.0e\n", methods[method], n,
                n == 1 ? "" : "s", floors[n / 2], floors[n - 1]);
    }
}

/* Which cases have inconclusive entries, in lines of at most 80 columns. */
static void print_unsure(const ag_case_total *total, FILE *file)
{
    int column = fprintf(file, "inconclusive entries, of all in these cases:");
    for (int k = 0; k < total->n_unsure; k++) {
        const ag_unsure *unsure = &total->unsure[k];
        char text[96];
        int length = snprintf(text, sizeof text, " %s %" PRId64 " of %" PRId64 " (%d case%s)%s",
                              unsure->name, unsure->inconclusive, unsure->entries, unsure->cases,
                              unsure->cases == 1 ? "" : "s", k + 1 < total->n_unsure ? "," : "");
        if (column + length > 80) {
            fprintf(file, "\n ");
            column = 1;
        }
        column += length;
        fputs(text, file);
    }
    fputc('\n', file);
}

void ag_case_total_print(const ag_case_total *total, double seconds, bool json, FILE *file)
{
    if (!json && total->cases > 1)
        print_floors(total, file);
    if (!json && total->n_unsure > 0)
        print_unsure(total, file);
    fprintf(file,
            json ? "{\"event\":\"done\",\"cases\":%d,\"passed\":%d,\"failed\":%d,"
                   "\"entries\":%" PRId64 ",\"inconclusive\":%" PRId64 ",\"seed\":%" PRIu64
                   ",\"seconds\":%.3f}\n"
                 : "%d cases: %d passed, %d failed; %" PRId64 " entries, %" PRId64
                   " inconclusive; seed %" PRIu64 "; %.2f s\n",
            total->cases, total->cases - total->failed, total->failed, total->entries,
            total->inconclusive, total->seed, seconds);
}
