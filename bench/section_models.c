/* Training steps of the models. */
#include "bench.h"
#include "models.h"

static const bench_column columns[] = {
    { "model", "model", 8, true },
    { "parameters", "parameters", 10, false },
    { "who", "who", 17, true },
    { "threads", "threads", 7, false },
    { "us a step", "step_us", 15, false },
    { "GFLOP/s", "gflops", 8, false },
    { "% peak", "peak_percent", 6, false },
    { "step bytes", "step_peak_bytes", 12, false },
    { "allocs", "allocations_per_step", 6, false },
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static void put_row(bench_run *run, const bench_model *m, int threads, bench_times times,
                    bench_step_memory memory)
{
    double rate = bench_model_work(m) / times.median;
    bench_output *out = &run->out;
    bench_put_text(out, m->name);
    bench_put_integer(out, m->parameters);
    bench_put_text(out, "attograd");
    bench_put_integer(out, threads);
    bench_put_time(out, times, 1e6);
    bench_put_number(out, rate / 1e9);
    bench_put_number(out, 100 * rate / (threads * run->peak.f32));
    bench_put_integer(out, (int64_t)memory.peak);
    bench_put_integer(out, (int64_t)memory.allocations);
}

static bool measure(bench_run *run, const bench_model *m, int threads)
{
    bench_training training;
    bool good = bench_training_begin(&training, m, threads);
    if (good) {
        bench_times times =
            bench_time(bench_training_step, &training, &(bench_plan){ 11, 0.1, 10 });
        bench_step_memory memory = bench_training_memory(&training);
        good = bench_training_good(&training);
        if (good)
            put_row(run, m, threads, times, memory);
    }
    bench_training_end(&training);
    return good;
}

bool bench_section_models(bench_run *run)
{
    int last = run->settings->quick ? BENCH_MODEL_COUNT - 1 : BENCH_MODEL_COUNT;
    bench_table_begin(&run->out, "models", "training steps", columns, COLUMNS);
    bool good = true;
    for (int i = 0; good && i < last; i++)
        good = measure(run, &bench_models[i], 1) &&
               (run->cores == 1 || measure(run, &bench_models[i], run->cores));
    bench_table_end(&run->out);
    return good;
}
