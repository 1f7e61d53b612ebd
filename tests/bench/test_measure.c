/* The statistics of bench, and who is measured when. No time is asserted. */
#include "bench/measure.h"

#include <criterion/criterion.h>
#include <string.h>

Test(bench_measure, quantiles_lie_between_samples)
{
    const double sorted[] = { 1, 2, 4, 8 };
    cr_expect_eq(bench_quantile(sorted, 4, 0), 1);
    cr_expect_eq(bench_quantile(sorted, 4, 1), 8);
    cr_expect_eq(bench_quantile(sorted, 4, 0.5), 3);
    cr_expect_eq(bench_quantile(sorted, 4, 0.25), 1.75);
    cr_expect_eq(bench_quantile(sorted, 4, 0.75), 5);
    cr_expect_eq(bench_quantile(sorted, 1, 0.25), 1);
}

Test(bench_measure, median_quartiles_and_fastest)
{
    double odd[] = { 5, 1, 4, 2, 3 };
    bench_times times = bench_summarize(odd, 5);
    cr_expect(times.n == 5 && times.best == 1 && times.low == 2 && times.median == 3 &&
              times.high == 4);
    double even[] = { 8, 4, 2, 1 };
    times = bench_summarize(even, 4);
    cr_expect(times.n == 4 && times.best == 1 && times.low == 1.75 && times.median == 3 &&
              times.high == 5);
    double one[] = { 7 };
    times = bench_summarize(one, 1);
    cr_expect(times.n == 1 && times.best == 7 && times.low == 7 && times.median == 7 &&
              times.high == 7);
}

/* An entrant that writes its name when it is asked; from fail_at on it cannot. */
typedef struct runner {
    char name, *log;
    int asked, fail_at;
} runner;

static double sample(void *subject, double seconds)
{
    runner *r = subject;
    cr_expect_eq(seconds, 0.5, "the plan's");
    r->log[strlen(r->log)] = r->name;
    return r->asked++ == r->fail_at ? -1 : r->asked;
}

Test(bench_measure, entrants_take_turns_after_a_warm_up)
{
    char log[64] = "";
    runner a = { 'a', log, 0, -1 }, b = { 'b', log, 0, -1 };
    bench_entrant entrants[] = { { .sample = sample, .subject = &a },
                                 { .sample = sample, .subject = &b } };
    bench_take_turns(entrants, 2, &(bench_plan){ .rounds = 5, .seconds = 0.5, .limit = 100 });
    cr_expect_str_eq(log, "abababababab");
    cr_expect_eq(entrants[0].times.n, 5);
    cr_expect_eq(entrants[0].times.best, 2, "the first one does not count");
    cr_expect_eq(entrants[1].times.median, 4);
}

Test(bench_measure, one_that_cannot_is_absent_and_not_asked_again)
{
    char log[64] = "";
    runner a = { 'a', log, 0, 0 }, b = { 'b', log, 0, -1 }, c = { 'c', log, 0, 2 };
    bench_entrant entrants[] = { { .sample = sample, .subject = &a },
                                 { .sample = sample, .subject = &b },
                                 { .sample = sample, .subject = &c } };
    bench_take_turns(entrants, 3, &(bench_plan){ .rounds = 4, .seconds = 0.5, .limit = 100 });
    cr_expect_str_eq(log, "abcbcbcbb");
    cr_expect_eq(entrants[0].times.n, 0);
    cr_expect_eq(entrants[1].times.n, 4);
    cr_expect_eq(entrants[2].times.n, 0);
}

Test(bench_measure, after_the_limit_three_rounds_are_enough)
{
    char log[64] = "";
    runner a = { 'a', log, 0, -1 };
    bench_entrant entrant = { .sample = sample, .subject = &a };
    bench_take_turns(&entrant, 1, &(bench_plan){ .rounds = 30, .seconds = 0.5, .limit = 0 });
    cr_expect_str_eq(log, "aaaa");
    cr_expect_eq(entrant.times.n, 3);
}

static void count(void *subject)
{
    ++*(volatile int64_t *)subject;
}

Test(bench_measure, a_loop_calls_as_often_in_each_sample)
{
    int64_t calls = 0;
    bench_loop loop = { count, &calls, 0 };
    cr_expect_gt(bench_sample_loop(&loop, 1e-4), 0);
    cr_assert_gt(loop.calls, 0);
    int64_t before = calls, each = loop.calls;
    cr_expect_gt(bench_sample_loop(&loop, 1e-4), 0);
    cr_expect_eq(calls - before, each);
    cr_expect_eq(loop.calls, each);
}
