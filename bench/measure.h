/* Time: what is compared takes turns, and each has the median of its samples. */
#ifndef AG_BENCH_MEASURE_H
#define AG_BENCH_MEASURE_H

#include <stdint.h>

double bench_now(void); /* seconds, of a clock that never goes back */

enum { BENCH_MAX_ROUNDS = 32 };

/* Seconds per call: the median of n samples, the quartiles, the fastest. n = 0:
 * nothing was measured. */
typedef struct bench_times {
    int n;
    double median, low, high, best;
} bench_times;

/* Sorts the n >= 1 samples. */
bench_times bench_summarize(double *samples, int n);

/* The value below which the share q of n >= 1 sorted samples lies, between two
 * of them by linear interpolation: position q (n - 1). */
double bench_quantile(const double *sorted, int n, double q);

/* One of those that take turns. sample runs for about so many seconds and
 * returns the seconds of one call, or a negative number if it cannot: then it is
 * not asked again, and times.n is 0. */
typedef struct bench_entrant {
    double (*sample)(void *subject, double seconds);
    void *subject;
    bench_times times;
} bench_entrant;

typedef struct bench_plan {
    int rounds;     /* at most BENCH_MAX_ROUNDS; a round is a sample of each entrant */
    double seconds; /* of one sample */
    double limit;   /* after so many seconds in all no round is begun, if there were three */
} bench_plan;

/* One round to warm up, then those that count: a, b, c, a, b, c, .. so that
 * whatever else the machine does meanwhile meets all of them. */
void bench_take_turns(bench_entrant *entrants, int n, const bench_plan *plan);

/* A function of this program, called so often that a sample takes its seconds.
 * How often is found out at the first sample. */
typedef struct bench_loop {
    void (*run)(void *subject);
    void *subject;
    int64_t calls;
} bench_loop;

double bench_sample_loop(void *loop, double seconds);

/* The times of run alone. */
bench_times bench_time(void (*run)(void *subject), void *subject, const bench_plan *plan);

#endif
