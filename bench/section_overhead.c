/* What one small operation costs: a chain of N sums, products and multiples of 16 numbers. */
#include "bench.h"
#include "peer.h"

#include <attograd.h>

#include <math.h>

enum { LENGTH = 1000, SIZE = 16 };

typedef struct chain {
    ag_context *context;
    ag_var x, y;
} chain;

static bool begin(chain *c)
{
    c->context = ag_context_new(NULL);
    c->x = ag_parameter(c->context, "x", AG_F32, AG_SHAPE(SIZE));
    c->y = ag_parameter(c->context, "y", AG_F32, AG_SHAPE(SIZE));
    ag_tensor_fill(c->context, ag_value_mutable(c->x), 0.5);
    ag_tensor_fill(c->context, ag_value_mutable(c->y), 0.5);
    return ag_status(c->context) == AG_OK;
}

static bool end(chain *c)
{
    bool good = c->context && ag_status(c->context) == AG_OK;
    if (!good)
        fprintf(stderr, "attograd bench: overhead: %s\n",
                c->context ? ag_error_message(c->context) : "no memory");
    ag_context_free(c->context);
    return good;
}

/* h stays between 0.5 and 1.5. */
static ag_var forward(const chain *c)
{
    ag_var h = c->x;
    for (int i = 0; i < LENGTH; i++)
        h = i % 3 == 0 ? ag_add(h, c->y) : i % 3 == 1 ? ag_mul(h, c->y) : ag_scale(h, 1.5);
    return h;
}

static void compute(void *subject)
{
    chain *c = subject;
    ag_no_grad_begin(c->context);
    forward(c);
    ag_no_grad_end(c->context);
    ag_tape_reset(c->context);
}

static void record(void *subject)
{
    chain *c = subject;
    forward(c);
    ag_tape_reset(c->context);
}

static void differentiate(void *subject)
{
    chain *c = subject;
    ag_backward_from(forward(c), ag_full(c->context, AG_SHAPE(SIZE), 1));
    ag_clear_gradient(c->x);
    ag_clear_gradient(c->y);
    ag_tape_reset(c->context);
}

static const bench_column columns[] = {
    { "who", "who", 16, true },
    { "what", "what", 34, true },
    { "ns an operation", "operation_ns", 16, false },
    { "times", "times_attograd", 5, false },
    { "", "note", 0, true },
};
enum { COLUMNS = sizeof columns / sizeof columns[0], OWN = 3 };

static void put_row(bench_output *out, const char *who, const char *what, bench_times times,
                    double own)
{
    bench_put_text(out, who);
    bench_put_text(out, what);
    bench_put_time(out, times, 1e9 / LENGTH);
    bench_put_number(out, times.n ? times.median / own : NAN);
}

static void put_rows(bench_run *run, const bench_entrant *entrants, const bench_peer *peer)
{
    static const char *const what[OWN] = { "checked, computed", "checked, computed, recorded",
                                           "the same, and differentiated" };
    bench_output *out = &run->out;
    bench_table_begin(out, "overhead", "a chain of 1,000 add, mul and scale of [16], f32", columns,
                      COLUMNS);
    double own = entrants[OWN - 1].times.median;
    for (int i = 0; i < OWN; i++) {
        put_row(out, "attograd", what[i], entrants[i].times, entrants[i].times.median);
        bench_put_absent(out);
    }
    put_row(out, "PyTorch eager", what[OWN - 1], entrants[OWN].times, own);
    char note[BENCH_ANSWER + 16];
    snprintf(note, sizeof note, "%s%s", entrants[OWN].times.n ? "" : "absent: ", peer->about);
    bench_put_text(out, note);
    bench_table_end(out);
}

bool bench_section_overhead(bench_run *run)
{
    static void (*const runs[OWN])(void *) = { compute, record, differentiate };
    bench_plan plan =
        run->settings->quick ? (bench_plan){ 5, 0.02, 2 } : (bench_plan){ 15, 0.05, 10 };
    bench_torch torch = { .threads = 1, .isa = run->isa };
    bench_peer peer;
    bench_peer_turn turn = { &peer, "chain 1000" };
    bench_loop loops[OWN];
    bench_entrant entrants[OWN + 1] = { [OWN] = { .sample = bench_peer_sample, .subject = &turn } };
    chain c;
    if (begin(&c)) {
        if (bench_peer_start(&peer, bench_torch_child, &torch))
            bench_peer_greet(&peer);
        for (int i = 0; i < OWN; i++) {
            loops[i] = (bench_loop){ runs[i], &c, 0 };
            entrants[i] = (bench_entrant){ .sample = bench_sample_loop, .subject = &loops[i] };
        }
        bench_take_turns(entrants, OWN + 1, &plan);
        put_rows(run, entrants, &peer);
        bench_peer_stop(&peer);
    }
    return end(&c);
}
