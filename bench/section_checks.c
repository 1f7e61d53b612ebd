/* What a gradient check takes, beside the gradient that it checks. One thread, f64. */
#include "bench.h"

#include <attograd.h>

#include <math.h>

enum { VOCABULARY = 64, TOKENS = 16, MOST_INPUTS = 32 };

/* A transformer, some tokens, and how it is checked. */
typedef struct subject {
    const char *what;
    int64_t d;
    int heads, blocks;
    ag_gradcheck_options options;
    ag_context *context;
    ag_params *params;
    ag_transformer transformer;
    ag_var inputs[MOST_INPUTS];
    int n;
    ag_gradcheck_report report;
} subject;

static ag_var loss(ag_context *context, const ag_var *inputs, int n, void *user)
{
    const subject *s = user;
    int64_t tokens[TOKENS], labels[TOKENS];
    (void)inputs, (void)n; /* the transformer holds them itself */
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = 7 * i % VOCABULARY;
        labels[i] = 11 * i % VOCABULARY;
    }
    ag_var x = ag_indices(context, AG_SHAPE(1, TOKENS), tokens);
    ag_var y = ag_indices(context, AG_SHAPE(1, TOKENS), labels);
    return ag_cross_entropy(ag_transformer_forward(&s->transformer, x), y);
}

static bool begin(subject *s)
{
    s->context = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 1 });
    s->params = ag_params_new(s->context);
    ag_transformer_init(&s->transformer, s->params, "",
                        &(ag_transformer_options){ .vocab = VOCABULARY,
                                                   .max_tokens = TOKENS,
                                                   .d_model = s->d,
                                                   .heads = s->heads,
                                                   .blocks = s->blocks });
    s->n = ag_params_count(s->params);
    for (int i = 0; i < s->n && i < MOST_INPUTS; i++)
        s->inputs[i] = ag_params_at(s->params, i);
    return ag_status(s->context) == AG_OK && s->n <= MOST_INPUTS;
}

static bool end(subject *s)
{
    bool good = s->context && ag_status(s->context) == AG_OK && s->report.entries > 0 &&
                s->report.failures == 0;
    if (!good)
        fprintf(stderr, "attograd bench: checks: %s: %s\n", s->what,
                s->context ? s->report.message : "no memory");
    ag_context_free(s->context);
    return good;
}

static void differentiate(void *user)
{
    subject *s = user;
    ag_backward(loss(s->context, s->inputs, s->n, s));
    ag_params_clear_gradients(s->params);
    ag_tape_reset(s->context);
}

static void check(void *user)
{
    subject *s = user;
    ag_gradcheck(s->context, loss, s, s->inputs, s->n, &s->options, &s->report);
}

static const bench_column columns[] = {
    { "what", "what", 26, true },         { "parameters", "parameters", 10, false },
    { "compared", "compared", 8, false }, { "ms", "check_ms", 14, false },
    { "steps", "steps", 7, false },       { "calls", "calls", 7, false },
    { "digits", "digits", 6, false },
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static bool measure(bench_run *run, subject *s)
{
    bench_plan plan =
        run->settings->quick ? (bench_plan){ 3, 0.02, 2 } : (bench_plan){ 7, 0.1, 10 };
    if (begin(s)) {
        bench_loop loops[2] = { { check, s, 0 }, { differentiate, s, 0 } };
        bench_entrant entrants[2] = { { .sample = bench_sample_loop, .subject = &loops[0] },
                                      { .sample = bench_sample_loop, .subject = &loops[1] } };
        bench_take_turns(entrants, 2, &plan);
        bench_put_text(&run->out, s->what);
        bench_put_integer(&run->out, ag_params_size(s->params));
        bench_put_integer(&run->out, s->report.entries);
        bench_put_time(&run->out, entrants[0].times, 1e3);
        bench_put_number(&run->out, entrants[0].times.median / entrants[1].times.median);
        bench_put_integer(&run->out, s->report.calls);
        bench_put_number(&run->out, -log10(s->report.floor));
    }
    return end(s);
}

bool bench_section_checks(bench_run *run)
{
    subject subjects[] = {
        { .what = "2 blocks, 4 directions",
          .d = 64,
          .heads = 4,
          .blocks = 2,
          .options = { .directions = 4 } },
        { .what = "1 small block, every entry", .d = 8, .heads = 2, .blocks = 1 },
    };
    int n = run->settings->quick ? 1 : 2;
    bool good = true;
    bench_table_begin(
        &run->out, "checks",
        "of transformers, 16 tokens, f64, one thread; steps: times a forward and backward; "
        "digits: seen",
        columns, COLUMNS);
    for (int i = 0; i < n && good; i++)
        good = measure(run, &subjects[i]);
    bench_table_end(&run->out);
    return good;
}
