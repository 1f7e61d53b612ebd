/* The program bench: its settings and its sections. */
#ifndef AG_BENCH_BENCH_H
#define AG_BENCH_BENCH_H

#include "output.h"
#include "peak.h"

#include <stdbool.h>

enum {
    BENCH_PEAK = 1 << 0,
    BENCH_MATMUL = 1 << 1,
    BENCH_MODELS = 1 << 2,
    BENCH_OVERHEAD = 1 << 3,
    BENCH_THREADS = 1 << 4,
    BENCH_GROWTH = 1 << 5,
    BENCH_CHECKS = 1 << 6,
    BENCH_ALL = (1 << 7) - 1
};

typedef struct bench_settings {
    bool help, json, quick;
    unsigned sections; /* which ones */
    const char *model; /* the only one to be trained; NULL for all */
} bench_settings;

/* False, with a line on stderr, for what is not an option. */
bool bench_settings_read(int argc, char **argv, bench_settings *settings);
void bench_print_usage(FILE *file);

/* Whether this model is to be trained. */
bool bench_wants_model(const bench_settings *settings, const char *name);

/* What every section needs. */
typedef struct bench_run {
    const bench_settings *settings;
    bench_output out;
    bench_peak peak;
    const char *isa; /* in use by the library */
    int cores;
} bench_run;

/* Each measures one section and puts its tables out. False, with a line on
 * stderr, if the library reports an error; that a peer is absent is none. */
bool bench_section_peak(bench_run *run);
bool bench_section_matmul(bench_run *run);
bool bench_section_models(bench_run *run);
bool bench_section_overhead(bench_run *run);
bool bench_section_threads(bench_run *run);
bool bench_section_growth(bench_run *run);
bool bench_section_checks(bench_run *run);

#endif
