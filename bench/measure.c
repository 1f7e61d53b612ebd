#include "measure.h"

#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- Statistics ---- */

double bench_quantile(const double *sorted, int n, double q)
{
    double position = q * (n - 1);
    int below = (int)position;
    if (below >= n - 1)
        return sorted[n - 1];
    return sorted[below] + (position - below) * (sorted[below + 1] - sorted[below]);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_times bench_summarize(double *samples, int n)
{
    qsort(samples, (size_t)n, sizeof *samples, compare);
    return (bench_times){
        .n = n,
        .median = bench_quantile(samples, n, 0.5),
        .low = bench_quantile(samples, n, 0.25),
        .high = bench_quantile(samples, n, 0.75),
        .best = samples[0],
    };
}

/* ---- Turns ---- */

enum { MAX_ENTRANTS = 16 };

void bench_take_turns(bench_entrant *entrants, int n, const bench_plan *plan)
{
    double samples[MAX_ENTRANTS][BENCH_MAX_ROUNDS];
    bool absent[MAX_ENTRANTS];
    int rounds = 0;
    for (int i = 0; i < n; i++)
        absent[i] = entrants[i].sample(entrants[i].subject, plan->seconds) < 0;
    double start = bench_now();
    while (rounds < plan->rounds && (rounds < 3 || bench_now() - start < plan->limit)) {
        for (int i = 0; i < n; i++) {
            if (absent[i])
                continue;
            samples[i][rounds] = entrants[i].sample(entrants[i].subject, plan->seconds);
            absent[i] = samples[i][rounds] < 0;
        }
        rounds++;
    }
    for (int i = 0; i < n; i++)
        entrants[i].times =
            absent[i] ? (bench_times){ .n = 0 } : bench_summarize(samples[i], rounds);
}

/* ---- Loops ---- */

static double seconds_of(const bench_loop *loop)
{
    double start = bench_now();
    for (int64_t i = 0; i < loop->calls; i++)
        loop->run(loop->subject);
    return bench_now() - start;
}

/* The first call may be slow, because it takes memory and fills the caches. */
static void calibrate(bench_loop *loop, double seconds)
{
    loop->calls = 1;
    double taken = seconds_of(loop);
    if (taken < seconds)
        taken = seconds_of(loop);
    while (taken < seconds / 4) {
        loop->calls *= 2;
        taken = seconds_of(loop);
    }
    loop->calls = (int64_t)((double)loop->calls * seconds / taken);
    if (loop->calls < 1)
        loop->calls = 1;
}

double bench_sample_loop(void *loop_, double seconds)
{
    bench_loop *loop = loop_;
    if (loop->calls == 0)
        calibrate(loop, seconds);
    return seconds_of(loop) / (double)loop->calls;
}

bench_times bench_time(void (*run)(void *subject), void *subject, const bench_plan *plan)
{
    bench_loop loop = { run, subject, 0 };
    bench_entrant entrant = { .sample = bench_sample_loop, .subject = &loop };
    bench_take_turns(&entrant, 1, plan);
    return entrant.times;
}
