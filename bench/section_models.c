/* Training steps of the models, beside PyTorch. */
#include "bench.h"
#include "models.h"
#include "peer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum {
    COUNTS = 2,       /* of threads: one, and one for each core */
    KINDS = 2,        /* of PyTorch: eager and compiled */
    BEGIN_LIMIT = 150 /* seconds in which a model has to be compiled */
};

static const char *const kind_names[KINDS] = { "PyTorch eager", "PyTorch compiled" };

/* All who take turns. With two counts, torch[0] and [1] are eager, [2] and [3]
 * compiled, and likewise their entrants behind attograd's. */
typedef struct field {
    int counts, threads[COUNTS];
    int peers;
    bench_training own[COUNTS];
    bench_loop loops[COUNTS];
    bench_peer torch[KINDS * COUNTS];
    bench_peer_turn turns[KINDS * COUNTS];
    bench_entrant entrants[COUNTS + KINDS * COUNTS];
} field;

/* ---- PyTorch ---- */

static void start_torch(field *f, const bench_run *run)
{
    for (int i = 0; i < f->peers; i++) {
        bench_torch torch = { .compiled = i >= f->counts,
                              .threads = f->threads[i % f->counts],
                              .isa = run->isa };
        bench_peer_start(&f->torch[i], bench_torch_child, &torch);
    }
    for (int i = 0; i < f->peers; i++)
        bench_peer_greet(&f->torch[i]);
}

/* All at the same time, because compiling takes long and nothing is timed yet. */
static void begin_torch(field *f, const bench_model *m)
{
    char request[BENCH_ANSWER], answer[BENCH_ANSWER];
    snprintf(request, sizeof request,
             "begin %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64, m->batch,
             m->tokens, m->vocab, m->d, m->heads, m->blocks);
    for (int i = 0; i < f->peers; i++)
        bench_peer_send(&f->torch[i], request);
    for (int i = 0; i < f->peers; i++) {
        bench_peer *peer = &f->torch[i];
        if (!bench_peer_receive(peer, BEGIN_LIMIT, answer) ||
            strtoll(answer, NULL, 10) == m->parameters)
            continue;
        bench_peer_stop(peer);
        snprintf(peer->about, sizeof peer->about, "it has %.20s parameters", answer);
    }
}

/* ---- Rows ---- */

static const bench_column columns[] = {
    { "model", "model", 8, true },
    { "parameters", "parameters", 10, false },
    { "who", "who", 16, true },
    { "threads", "threads", 7, false },
    { "us a step", "step_us", 16, false },
    { "times", "times_attograd", 5, false },
    { "GFLOP/s", "gflops", 7, false },
    { "% peak", "peak_percent", 6, false },
    { "step bytes", "step_peak_bytes", 11, false },
    { "allocs", "allocations_per_step", 6, false },
    { "", "note", 0, true },
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

/* The first cells of a row. own: attograd's time. */
static void put_times(bench_run *run, const bench_model *m, const char *who, int threads,
                      bench_times times, bench_times own)
{
    double rate = times.n ? bench_model_work(m) / times.median : NAN;
    bench_output *out = &run->out;
    bench_put_text(out, m->name);
    bench_put_integer(out, m->parameters);
    bench_put_text(out, who);
    bench_put_integer(out, threads);
    bench_put_time(out, times, 1e6);
    bench_put_number(out, times.n ? times.median / own.median : NAN);
    bench_put_number(out, rate / 1e9);
    bench_put_number(out, 100 * rate / (threads * run->peak.f32));
}

static void put_own(bench_run *run, field *f, int t, bench_times own)
{
    bench_step_memory memory = bench_training_memory(&f->own[t]);
    put_times(run, f->own[t].model, "attograd", f->threads[t], f->entrants[t].times, own);
    bench_put_integer(&run->out, (int64_t)memory.peak);
    bench_put_integer(&run->out, (int64_t)memory.allocations);
    bench_put_absent(&run->out);
}

/* The peer i, which ran at its best number of threads. */
static void put_torch(bench_run *run, field *f, const bench_model *m, int i, bench_times own)
{
    bench_times times = f->entrants[f->counts + i].times;
    bench_output *out = &run->out;
    char answer[BENCH_ANSWER], note[BENCH_ANSWER + 16];
    put_times(run, m, kind_names[i / f->counts], f->threads[i % f->counts], times, own);
    if (times.n && bench_peer_ask(&f->torch[i], "memory", BEGIN_LIMIT, answer))
        bench_put_integer(out, strtoll(answer, NULL, 10));
    else
        bench_put_absent(out);
    bench_put_absent(out);
    if (times.n) {
        bench_put_absent(out);
    } else {
        snprintf(note, sizeof note, "absent: %s", f->torch[i].about);
        bench_put_text(out, note);
    }
}

/* The fastest of the entrants from first on, one for each number of threads. */
static int fastest(const field *f, int first)
{
    int best = first;
    for (int i = first + 1; i < first + f->counts; i++)
        if (f->entrants[i].times.n &&
            (f->entrants[best].times.n == 0 ||
             f->entrants[i].times.median < f->entrants[best].times.median))
            best = i;
    return best;
}

static void put_rows(bench_run *run, field *f, const bench_model *m)
{
    bench_times own = f->entrants[fastest(f, 0)].times;
    for (int t = 0; t < f->counts; t++)
        put_own(run, f, t, own);
    for (int first = f->counts; first < f->counts + f->peers; first += f->counts)
        put_torch(run, f, m, fastest(f, first) - f->counts, own);
}

/* ---- One model ---- */

static void take_turns(const bench_run *run, field *f)
{
    bench_plan plan =
        run->settings->quick ? (bench_plan){ 5, 0.05, 2 } : (bench_plan){ 11, 0.15, 30 };
    for (int t = 0; t < f->counts; t++) {
        f->loops[t] = (bench_loop){ bench_training_step, &f->own[t], 0 };
        f->entrants[t] = (bench_entrant){ .sample = bench_sample_loop, .subject = &f->loops[t] };
    }
    for (int i = 0; i < f->peers; i++) {
        f->turns[i] = (bench_peer_turn){ &f->torch[i], "step" };
        f->entrants[f->counts + i] =
            (bench_entrant){ .sample = bench_peer_sample, .subject = &f->turns[i] };
    }
    bench_take_turns(f->entrants, f->counts + f->peers, &plan);
}

static bool measure(bench_run *run, field *f, const bench_model *m)
{
    bool good = true;
    for (int t = 0; t < f->counts; t++)
        good = bench_training_begin(&f->own[t], m, f->threads[t]) && good;
    if (good) {
        begin_torch(f, m);
        take_turns(run, f);
        put_rows(run, f, m);
    }
    for (int t = 0; t < f->counts; t++) {
        good = good && bench_training_good(&f->own[t]);
        bench_training_end(&f->own[t]);
    }
    return good;
}

bool bench_section_models(bench_run *run)
{
    const bool quick = run->settings->quick;
    field f = { .counts = run->cores > 1 ? COUNTS : 1, .threads = { 1, run->cores } };
    f.peers = (quick ? 1 : KINDS) * f.counts;
    start_torch(&f, run);
    bench_note(&run->out, "pytorch", f.torch[0].pid ? f.torch[0].about : "absent");
    bench_table_begin(&run->out, "models",
                      "training steps; times: the time over attograd's at its best number of "
                      "threads; PyTorch at its best",
                      columns, COLUMNS);
    bool good = true;
    for (int i = 0; good && i < (quick ? BENCH_MODEL_COUNT - 1 : BENCH_MODEL_COUNT); i++)
        good = !bench_wants_model(run->settings, bench_models[i].name) ||
               measure(run, &f, &bench_models[i]);
    bench_table_end(&run->out);
    for (int i = 0; i < f.peers; i++)
        bench_peer_stop(&f.torch[i]);
    return good;
}
