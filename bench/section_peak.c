/* What the processor could do at most. */
#include "bench.h"

enum { COPIED = 128 << 20 }; /* bytes: more than the caches hold */

static void put_row(bench_output *out, const char *what, const char *unit, bench_times times,
                    double work)
{
    bench_put_text(out, what);
    bench_put_rate(out, times, work / 1e9);
    bench_put_number(out, work / 1e9 / times.best);
    bench_put_text(out, unit);
}

bool bench_section_peak(bench_run *run)
{
    static const bench_column columns[] = {
        { "of one core", "what", 17, true },
        { "median", "median_1e9_per_s", 14, false },
        { "fastest", "fastest_1e9_per_s", 8, false },
        { "unit", "unit", 0, true },
    };
    const bench_peak *peak = &run->peak;
    bench_table_begin(&run->out, "peak", "what the processor can do; per cents refer to 'fastest'",
                      columns, 4);
    put_row(&run->out, "multiply-add f32", "GFLOP/s", peak->f32_times, peak->fma->operations_f32);
    put_row(&run->out, "multiply-add f64", "GFLOP/s", peak->f64_times, peak->fma->operations_f64);
    put_row(&run->out, "memcpy of 128 MiB", "GB/s, bytes read plus bytes written",
            bench_copy_times(COPIED, &(bench_plan){ 9, 0.02, 2 }), 2.0 * COPIED);
    bench_table_end(&run->out);
    return true;
}
