/* How time and memory grow: attention with the number of tokens, a transformer
 * block with the size of a token. Forward and backward, one thread. */
#include "bench.h"

#include <attograd.h>

#include <math.h>

/* One layer and the input that it is given each time. */
typedef struct layer {
    ag_context *context;
    ag_params *params;
    ag_attention attention; /* or */
    ag_block block;
    bool is_block;
    ag_var x; /* [batch, tokens, d]; asks for a gradient, as in the middle of a model */
} layer;

static void begin(layer *l, int64_t batch, int64_t tokens, int64_t d)
{
    *l = (layer){ .context = ag_context_new(NULL) };
    l->params = ag_params_new(l->context);
    l->x = ag_params_add(l->params, "", "x", AG_SHAPE(batch, tokens, d),
                         (ag_init){ AG_INIT_NORMAL, 1 });
}

static bool end(layer *l)
{
    bool good = l->context && ag_status(l->context) == AG_OK;
    if (!good)
        fprintf(stderr, "attograd bench: growth: %s\n",
                l->context ? ag_error_message(l->context) : "no memory");
    ag_context_free(l->context);
    return good;
}

/* The cotangent is x: it is there, and costs nothing. */
static void step(void *subject)
{
    layer *l = subject;
    ag_var y = l->is_block ? ag_block_forward(&l->block, l->x, NULL, NULL)
                           : ag_attention_forward(&l->attention, l->x, NULL);
    ag_backward_from(y, l->x);
    ag_params_clear_gradients(l->params);
    ag_tape_reset(l->context);
}

static bench_times measure(const bench_run *run, layer *l)
{
    bench_plan plan =
        run->settings->quick ? (bench_plan){ 5, 0.02, 1 } : (bench_plan){ 9, 0.05, 5 };
    return bench_time(step, l, &plan);
}

/* The last cells of a row: time, rate, and the bytes of a step. */
static void put_measured(bench_run *run, const layer *l, bench_times times, double work,
                         double before)
{
    double rate = work / times.median;
    bench_put_time(&run->out, times, 1e6);
    bench_put_number(&run->out, before > 0 ? times.median / before : NAN);
    bench_put_number(&run->out, rate / 1e9);
    bench_put_number(&run->out, 100 * rate / run->peak.f32);
    bench_put_integer(&run->out, (int64_t)ag_context_memory(l->context).step_peak);
}

/* The columns that put_measured fills, behind the two that say what was measured. */
/* clang-format off */
#define MEASURED                              \
    { "us", "us", 16, false },                \
    { "growth", "times_row_before", 6, false }, \
    { "GFLOP/s", "gflops", 7, false },        \
    { "% peak", "peak_percent", 6, false },   \
    { "step bytes", "step_peak_bytes", 12, false }
/* clang-format on */
enum { COLUMNS = 7 };

/* ---- Attention by the number of tokens ---- */

enum { D = 64, MAX_TOKENS = 4096 };

/* 6 parameters tokens + 12 t d tokens: see bench_model_work. A causal mask
 * leaves half of the second part, which is not taken off here. */
static bool put_attention(bench_run *run, int64_t tokens, bool causal, double *before)
{
    layer l;
    begin(&l, 1, tokens, D);
    ag_attention_init(&l.attention, l.params, "attn",
                      &(ag_attention_options){ .d_in = D, .d_k = D, .d_v = D, .causal = causal });
    bench_times times = measure(run, &l);
    double t = (double)tokens, work = 6 * (3.0 * D * D) * t + 12 * t * D * t;
    if (ag_status(l.context) == AG_OK) {
        bench_put_integer(&run->out, tokens);
        bench_put_text(&run->out, causal ? "yes" : "no");
        put_measured(run, &l, times, work, *before);
    }
    *before = times.median;
    return end(&l);
}

static bool measure_attention(bench_run *run)
{
    static const bench_column columns[] = {
        { "tokens", "tokens", 6, false },
        { "causal", "causal", 6, true },
        MEASURED,
    };
    bench_table_begin(
        &run->out, "attention",
        "attention, one head, d = 64, forward and backward; growth: over the row before", columns,
        COLUMNS);
    bool good = true;
    int64_t most = run->settings->quick ? 1024 : MAX_TOKENS;
    for (int causal = 0; causal < 2; causal++) {
        double before = 0;
        for (int64_t tokens = 64; good && tokens <= most; tokens *= 2)
            good = put_attention(run, tokens, causal == 1, &before);
    }
    bench_table_end(&run->out);
    return good;
}

/* ---- A block by the size of a token ---- */

enum { BATCH = 4, TOKENS = 64 };

static bool put_block(bench_run *run, int64_t d, double *before)
{
    layer l;
    begin(&l, BATCH, TOKENS, d);
    l.is_block = true;
    ag_block_init(&l.block, l.params, "block",
                  &(ag_block_options){ .d = d, .heads = d / 16, .causal = true });
    bench_times times = measure(run, &l);
    double parameters = (double)(ag_params_size(l.params) - BATCH * TOKENS * d);
    double work = BATCH * TOKENS * (6 * parameters + 12.0 * TOKENS * (double)d);
    if (ag_status(l.context) == AG_OK) {
        bench_put_integer(&run->out, d);
        bench_put_integer(&run->out, d / 16);
        put_measured(run, &l, times, work, *before);
    }
    *before = times.median;
    return end(&l);
}

static bool measure_blocks(bench_run *run)
{
    static const bench_column columns[] = {
        { "d", "d", 6, false },
        { "heads", "heads", 6, false },
        MEASURED,
    };
    bench_table_begin(
        &run->out, "blocks",
        "a block, 4 sequences of 64 tokens, forward and backward; growth: over the row "
        "before",
        columns, COLUMNS);
    bool good = true;
    double before = 0;
    for (int64_t d = 16; good && d <= (run->settings->quick ? 128 : 512); d *= 2)
        good = put_block(run, d, &before);
    bench_table_end(&run->out);
    return good;
}

bool bench_section_growth(bench_run *run)
{
    return measure_attention(run) && measure_blocks(run);
}
