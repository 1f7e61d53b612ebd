/* The same training steps with one thread, two, four, .. up to one for each core. */
#include "bench.h"
#include "models.h"

enum { MAX_COUNTS = 10 }; /* 1, 2, 4, .. 256 and one between */

static const bench_column columns[] = {
    { "model", "model", 8, true },
    { "threads", "threads", 7, false },
    { "us a step", "step_us", 16, false },
    { "speed-up", "speedup", 8, false },
};

static int thread_counts(int cores, int *counts)
{
    int n = 0;
    for (int threads = 1; threads < cores; threads *= 2)
        counts[n++] = threads;
    counts[n++] = cores;
    return n;
}

static void put_rows(bench_run *run, const bench_model *m, const bench_entrant *entrants,
                     const int *counts, int n)
{
    for (int i = 0; i < n; i++) {
        bench_put_text(&run->out, m->name);
        bench_put_integer(&run->out, counts[i]);
        bench_put_time(&run->out, entrants[i].times, 1e6);
        bench_put_number(&run->out, entrants[0].times.median / entrants[i].times.median);
    }
}

static bool measure(bench_run *run, const bench_model *m)
{
    bench_plan plan =
        run->settings->quick ? (bench_plan){ 5, 0.05, 2 } : (bench_plan){ 11, 0.1, 8 };
    int counts[MAX_COUNTS], n = thread_counts(run->cores, counts);
    bench_training trainings[MAX_COUNTS];
    bench_loop loops[MAX_COUNTS];
    bench_entrant entrants[MAX_COUNTS];
    bool good = true;
    for (int i = 0; i < n; i++) {
        good = bench_training_begin(&trainings[i], m, counts[i]) && good;
        loops[i] = (bench_loop){ bench_training_step, &trainings[i], 0 };
        entrants[i] = (bench_entrant){ .sample = bench_sample_loop, .subject = &loops[i] };
    }
    if (good) {
        bench_take_turns(entrants, n, &plan);
        put_rows(run, m, entrants, counts, n);
    }
    for (int i = 0; i < n; i++) {
        good = good && bench_training_good(&trainings[i]);
        bench_training_end(&trainings[i]);
    }
    return good;
}

bool bench_section_threads(bench_run *run)
{
    bool good = true;
    bench_table_begin(&run->out, "threads", "training steps; speed-up: over one thread", columns,
                      4);
    for (int i = 0; good && i < (run->settings->quick ? BENCH_MODEL_COUNT - 1 : BENCH_MODEL_COUNT);
         i++)
        good = !bench_wants_model(run->settings, bench_models[i].name) ||
               measure(run, &bench_models[i]);
    bench_table_end(&run->out);
    return good;
}
