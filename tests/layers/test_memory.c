/* A training loop takes memory in its first steps, then none; and each time
 * that it takes some, there may be none. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <stdlib.h>

static ag_optimizer *new_optimizer(ag_params *params, int kind)
{
    if (kind == 0)
        return ag_sgd_new(params, &(ag_sgd_options){ .lr = 1e-2, .momentum = 0.9 });
    if (kind == 1)
        return ag_adam_new(params, &(ag_adam_options){ .lr = 1e-2 });
    return ag_adamw_new(params, &(ag_adam_options){ .lr = 1e-2 });
}

static void training_step(ag_context *ctx, const ag_attention *attn, ag_params *params,
                          ag_optimizer *optimizer, int step)
{
    ag_random random = ag_random_stream(1, "batch", (uint64_t)step);
    ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(4), (int64_t[]){ 9, 3, 0, 7 }) };
    mask.additive = ag_normal(ctx, &random, AG_SHAPE(9, 9));
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(4, 9, 6));
    ag_attention_trace trace;
    ag_var y = ag_attention_forward_masked(attn, x, &mask, &trace);
    ag_backward(ag_mean_squared_error(y, x));
    ag_params_clip_gradients(params, 1);
    ag_optimizer_step(optimizer);
    ag_tape_reset(ctx);
}

Test(memory, a_training_loop_stops_allocating)
{
    for (int kind = 0; kind < 3; kind++) {
        ag_context *ctx = ag_context_new(NULL);
        ag_params *params = ag_params_new(ctx);
        ag_attention attn;
        ag_attention_init(&attn, params, "attn",
                          &(ag_attention_options){ .d_in = 6,
                                                   .d_k = 4,
                                                   .d_v = 4,
                                                   .heads = 2,
                                                   .d_out = 6,
                                                   .bias = true,
                                                   .causal = true });
        ag_optimizer *optimizer = new_optimizer(params, kind);
        ag_memory_usage early = { 0 };
        for (int step = 1; step <= 50; step++) {
            training_step(ctx, &attn, params, optimizer, step);
            if (step == 5)
                early = ag_context_memory(ctx);
        }
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        ag_memory_usage late = ag_context_memory(ctx);
        cr_expect_gt(early.allocations, 0);
        cr_expect_eq(late.allocations, early.allocations, "optimiser %d", kind);
        cr_expect_eq(late.kept, early.kept, "optimiser %d: nothing is kept for good", kind);
        cr_expect_eq(late.step_peak, early.step_peak, "optimiser %d", kind);
        cr_expect_eq(late.step, 0);
        ag_context_free(ctx);
    }
}

/* What a training step of a small language model may hold beyond parameters, gradients and
 * optimiser state: what PyTorch 1.13 takes for the same. */
typedef struct model_size {
    int64_t batch, tokens, vocab, d, heads, blocks;
    size_t bytes;
} model_size;

static const model_size model_sizes[] = {
    { 4, 64, 128, 64, 4, 2, 3200000 },
    { 64, 32, 64, 64, 4, 2, 21600000 },
    { 12, 64, 65, 128, 4, 4, 30600000 },
};

Test(memory, a_transformers_step_is_lean_and_stops_allocating)
{
    for (size_t k = 0; k < sizeof model_sizes / sizeof *model_sizes; k++) {
        const model_size *m = &model_sizes[k];
        ag_context *ctx = ag_context_new(NULL);
        ag_params *params = ag_params_new(ctx);
        ag_transformer model;
        ag_transformer_init(&model, params, "",
                            &(ag_transformer_options){ .vocab = m->vocab,
                                                       .max_tokens = m->tokens,
                                                       .d_model = m->d,
                                                       .heads = m->heads,
                                                       .blocks = m->blocks });
        ag_optimizer *optimizer = ag_adamw_new(params, &(ag_adam_options){ .lr = 1e-3 });
        int64_t *ids = calloc((size_t)(m->batch * m->tokens), sizeof *ids);
        ag_memory_usage early = { 0 };
        for (int step = 0; step < 4; step++) {
            ag_var tokens = ag_indices(ctx, AG_SHAPE(m->batch, m->tokens), ids);
            ag_backward(ag_cross_entropy(ag_transformer_forward(&model, tokens), tokens));
            ag_optimizer_step(optimizer);
            ag_tape_reset(ctx);
            if (step == 1)
                early = ag_context_memory(ctx);
        }
        ag_memory_usage late = ag_context_memory(ctx);
        cr_expect_leq(late.step_peak, m->bytes, "d %d, %zu bytes", (int)m->d, late.step_peak);
        cr_expect_eq(late.allocations, early.allocations);
        cr_expect_eq(ag_context_finish(ctx), 0);
        free(ids);
    }
}

/* An allocator that fails at one call, or from that call on, and counts what
 * is not given back. */
typedef struct failing {
    int calls, fail_at;
    bool once;
    int live;
} failing;

static void *failing_allocate(size_t bytes, void *user)
{
    failing *f = user;
    int call = f->calls++;
    if (f->once ? call == f->fail_at : call >= f->fail_at)
        return NULL;
    void *memory = malloc(bytes);
    f->live += memory != NULL;
    return memory;
}

static void failing_release(void *memory, void *user)
{
    failing *f = user;
    f->live -= memory != NULL;
    free(memory);
}

/* Two layers too large for one chunk of memory, and two steps of AdamW. */
static void train_a_little(ag_context *ctx)
{
    const ag_attention_options options = {
        .d_in = 64, .d_k = 256, .d_v = 256, .heads = 2, .d_out = 64, .bias = true
    };
    ag_params *params = ag_params_new(ctx);
    ag_attention first, second;
    int count = ag_params_count(params);
    bool made = ag_attention_init(&first, params, "first", &options);
    cr_expect_eq(ag_params_count(params), count + (made ? 8 : 0), "all parameters or none");
    made = ag_attention_init(&second, params, "second", &options);
    cr_expect(made || ag_params_count(params) <= 8, "all parameters or none");
    ag_optimizer *adam = ag_adamw_new(params, &(ag_adam_options){ .lr = 1e-2 });
    for (int step = 0; step < 2; step++) {
        ag_random random = ag_random_stream(1, "batch", (uint64_t)step);
        ag_var x = ag_normal(ctx, &random, AG_SHAPE(2, 12, 64));
        ag_var y = ag_attention_forward(&first, x, NULL);
        y = ag_attention_forward(&second, ag_add(x, y), NULL);
        ag_backward(ag_mean_squared_error(y, x));
        ag_params_clip_gradients(params, 1);
        bool stepped = ag_optimizer_step(adam);
        cr_expect_eq(stepped, ag_status(ctx) == AG_OK);
        ag_tape_reset(ctx);
    }
}

/* Whether the call that should fail was reached. */
static bool train_without_memory(int fail_at, bool once)
{
    failing f = { .fail_at = fail_at, .once = once };
    ag_context *ctx = ag_context_new(
        &(ag_context_options){ .allocator = { failing_allocate, failing_release, &f } });
    if (ctx)
        train_a_little(ctx);
    bool reached = f.calls > fail_at;
    if (ctx && (ag_status(ctx) != AG_OK || (reached && !once)))
        cr_expect_eq(ag_status(ctx), reached ? AG_ERR_MEMORY : AG_OK, "call %d: %s", fail_at,
                     ag_error_message(ctx));
    ag_context_free(ctx);
    cr_assert_eq(f.live, 0, "call %d leaves %d blocks", fail_at, f.live);
    return reached;
}

Test(memory, every_allocation_may_fail)
{
    int calls = 0;
    while (train_without_memory(calls, false))
        calls++;
    cr_expect_gt(calls, 5, "only %d allocations", calls);
    for (int i = 0; i < calls; i++)
        train_without_memory(i, true);
}
