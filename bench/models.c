#include "models.h"

#include <stdio.h>
#include <stdlib.h>

/* clang-format off */
const bench_model bench_models[BENCH_MODEL_COUNT] = {
    { "tiny",      8,   8,  10,  16, 1, 1,      3696 },
    { "small",    32,  16,  16,  32, 2, 1,     14176 },
    { "toy GPT",   4,  64, 128,  64, 4, 2,    120064 },
    { "mid",      64,  32,  64,  64, 4, 2,    109824 },
    { "char",     12,  64,  65, 128, 4, 4,    816128 },
    { "gpt-256",  16, 256,  65, 384, 6, 6,  10786560 },
};
/* clang-format on */

double bench_model_work(const bench_model *m)
{
    double tokens = (double)(m->batch * m->tokens);
    return 6 * (double)m->parameters * tokens +
           12 * (double)m->blocks * (double)m->tokens * (double)m->d * tokens;
}

/* The context's allocator: malloc, counted. */
static void *count_and_allocate(size_t bytes, void *user)
{
    bench_training *training = user;
    training->allocations++;
    return malloc(bytes);
}

static void release(void *memory, void *user)
{
    (void)user;
    free(memory);
}

static bool draw_batch(bench_training *t)
{
    int64_t n = t->model->batch * t->model->tokens;
    t->tokens = malloc((size_t)n * sizeof *t->tokens);
    t->labels = malloc((size_t)n * sizeof *t->labels);
    if (!t->tokens || !t->labels)
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for a batch");
    ag_random random = ag_random_stream(1, "bench.batch", 0);
    for (int64_t i = 0; i < n; i++) {
        t->tokens[i] = ag_random_integer(&random, t->model->vocab);
        t->labels[i] = ag_random_integer(&random, t->model->vocab);
    }
    return true;
}

bool bench_training_good(const bench_training *t)
{
    if (t->context && ag_status(t->context) == AG_OK)
        return true;
    fprintf(stderr, "attograd bench: %s: %s\n", t->model->name,
            t->context ? ag_error_message(t->context) : "no memory");
    return false;
}

bool bench_training_begin(bench_training *t, const bench_model *m, int threads)
{
    *t = (bench_training){ .model = m };
    t->context = ag_context_new(&(ag_context_options){
        .seed = 1, .threads = threads, .allocator = { count_and_allocate, release, t } });
    t->params = ag_params_new(t->context);
    ag_transformer_init(&t->transformer, t->params, "",
                        &(ag_transformer_options){ .vocab = m->vocab,
                                                   .max_tokens = m->tokens,
                                                   .d_model = m->d,
                                                   .heads = m->heads,
                                                   .blocks = m->blocks });
    t->adamw = ag_adamw_new(t->params, &(ag_adam_options){ .lr = 1e-4 });
    if (draw_batch(t) && ag_params_size(t->params) != m->parameters)
        ag_fail(t->context, AG_ERR_STATE, "%lld parameters instead of %lld",
                (long long)ag_params_size(t->params), (long long)m->parameters);
    return bench_training_good(t);
}

void bench_training_end(bench_training *t)
{
    ag_context_free(t->context);
    free(t->tokens);
    free(t->labels);
    *t = (bench_training){ .context = NULL };
}

void bench_training_step(void *training)
{
    bench_training *t = training;
    const bench_model *m = t->model;
    ag_var tokens = ag_indices(t->context, AG_SHAPE(m->batch, m->tokens), t->tokens);
    ag_var labels = ag_indices(t->context, AG_SHAPE(m->batch, m->tokens), t->labels);
    ag_var loss = ag_cross_entropy(ag_transformer_forward(&t->transformer, tokens), labels);
    ag_backward(loss);
    ag_optimizer_step(t->adamw);
    ag_tape_reset(t->context);
}

bench_step_memory bench_training_memory(bench_training *t)
{
    uint64_t before = t->allocations;
    bench_training_step(t);
    return (bench_step_memory){ .peak = ag_context_memory(t->context).step_peak,
                                .allocations = t->allocations - before };
}
