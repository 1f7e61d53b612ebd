/* What attograd check prints: a line a case, and at the end what all of them say together. */
#ifndef AG_EXAMPLES_CHECK_H
#define AG_EXAMPLES_CHECK_H

#include "cases.h"

/* One case's result in its place among the lines. name: in full. */
void ag_case_print_text(const ag_case_result *result, const char *name, uint64_t seed, FILE *file);
void ag_case_print_json(const ag_case_result *result, const char *name, uint64_t seed, FILE *file);

/* The lines above the cases. */
void ag_case_print_head(FILE *file);

/* What has inconclusive entries, by the first part of its name: "attend" for attend/causal/second.
 */
typedef struct ag_unsure {
    char name[32];
    int cases;
    int64_t inconclusive, entries; /* in these cases */
} ag_unsure;

enum { AG_MOST_UNSURE = 64 };

/* The whole run. */
typedef struct ag_case_total {
    uint64_t seed;
    int cases, failed;
    int64_t entries, inconclusive;
    int n_unsure;
    ag_unsure unsure[AG_MOST_UNSURE];
    /* floors: [0] of cases whose derivatives come by complex steps, [1] by differences alone */
    int n_floors[2], room[2];
    double *floors[2];
} ag_case_total;

/* Counts one result; ends with ag_case_total_free. */
void ag_case_total_add(ag_case_total *total, const ag_case_result *result);
void ag_case_total_free(ag_case_total *total);

/* The lines below the cases. */
void ag_case_total_print(const ag_case_total *total, double seconds, bool json, FILE *file);

#endif
