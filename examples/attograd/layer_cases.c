/* The gradient-check cases of the layers: with respect to every parameter and
 * to the input, near initial values, after training, and with saturated scores. */
#include "cases.h"
#include "layer_subject.h"

#include <math.h>
#include <stdlib.h>

enum { BATCH = 2, TOKENS = 4, SYMBOLS = 4 };

#define ATTENTION(...) .attention = { .d_in = 5, .d_k = 3, .d_v = 4, __VA_ARGS__ }
#define FEED_FORWARD(...) .feed_forward = { .d = 3, .d_ff = 5, __VA_ARGS__ }
#define BLOCK(...) .block = { .d = 4, .d_ff = 6, __VA_ARGS__ }
#define TRANSFORMER(...)                                                                          \
    .transformer = {                                                                              \
        .vocab = SYMBOLS, .max_tokens = TOKENS, .d_model = 4, .blocks = 2, .d_ff = 5, __VA_ARGS__ \
    }

/* clang-format off */
static const ag_layer_case cases[] = {
    { "linear", .linear = { .d_in = 3, .d_out = 4 } },
    { "linear/bias", .linear = { .d_in = 3, .d_out = 4, .bias = true } },
    { "attention", ATTENTION(.heads = 1) },
    { "attention/unscaled", ATTENTION(.scale = 1.0) },
    { "attention/causal", ATTENTION(.causal = true) },
    { "attention/lengths", ATTENTION(.heads = 1), .mask = AG_MASK_LENGTHS },
    { "attention/additive", ATTENTION(.heads = 1), .mask = AG_MASK_ADDITIVE },
    { "attention/infinite", ATTENTION(.heads = 2), .mask = AG_MASK_INFINITE },
    { "attention/sigmoid", ATTENTION(.normalizer = AG_SIGMOID) },
    { "attention/sigmoid-causal", ATTENTION(.normalizer = AG_SIGMOID, .causal = true) },
    { "attention/sigmoid-lengths", ATTENTION(.normalizer = AG_SIGMOID), .mask = AG_MASK_LENGTHS },
    { "attention/relu", ATTENTION(.normalizer = AG_RELU) },
    { "attention/relu-causal", ATTENTION(.normalizer = AG_RELU, .causal = true) },
    { "attention/relu-lengths", ATTENTION(.normalizer = AG_RELU), .mask = AG_MASK_LENGTHS },
    { "attention/none", ATTENTION(.normalizer = AG_LINEAR) },
    { "attention/none-causal", ATTENTION(.normalizer = AG_LINEAR, .causal = true) },
    { "attention/none-additive", ATTENTION(.normalizer = AG_LINEAR), .mask = AG_MASK_ADDITIVE },
    { "attention/heads", ATTENTION(.heads = 3) },
    { "attention/full", ATTENTION(.heads = 2, .bias = true, .d_out = 3, .causal = true), .mask = AG_MASK_LENGTHS },
    { "attention/trained", .attention = { .d_in = SYMBOLS + TOKENS, .d_k = 6, .d_v = SYMBOLS }, .trained = 120 },
    { "attention/saturated", ATTENTION(.heads = 1), .enlarge = 6.0 },
    { "attention/trained-saturated", .attention = { .d_in = SYMBOLS + TOKENS, .d_k = 6, .d_v = SYMBOLS }, .trained = 120, .enlarge = 3.0 },
    { "attention/cross", ATTENTION(.d_memory = 2), .memory = 3 },
    { "attention/cross-causal", ATTENTION(.heads = 2, .causal = true), .memory = TOKENS - 1 },
    { "attention/cross-lengths", ATTENTION(.heads = 2, .d_out = 3, .bias = true), .memory = TOKENS + 1, .mask = AG_MASK_LENGTHS },
    { "attention/cross-additive", ATTENTION(.heads = 2), .memory = 3, .mask = AG_MASK_ADDITIVE },
    { "attention/cross-infinite", ATTENTION(.d_memory = 2), .memory = 3, .mask = AG_MASK_INFINITE },
    { "attention/cross-sigmoid", ATTENTION(.normalizer = AG_SIGMOID), .memory = 3 },
    { "attention/cross-saturated", ATTENTION(.heads = 2), .memory = 3, .enlarge = 4.0 },
    { "embedding", .embedding = { .count = SYMBOLS + 1, .d = 3 } },
    { "embedding/positions", .embedding = { .count = TOKENS + 2, .d = 3 }, .positions = true },
    { "norm", .norm = { .d = 5 } },
    { "norm/rms", .norm = { .d = 5, .kind = AG_RMS_NORM } },
    { "norm/epsilon", .norm = { .d = 4, .epsilon = 0.5 } },
    { "norm/trained", .norm = { .d = 5 }, .trained = 50 },
    { "norm/trained-rms", .norm = { .d = 5, .kind = AG_RMS_NORM }, .trained = 50, .enlarge = 6.0 },
    { "feed_forward", FEED_FORWARD(.activation = AG_GELU) },
    { "feed_forward/gelu_tanh", FEED_FORWARD(.activation = AG_GELU_TANH) },
    { "feed_forward/relu", FEED_FORWARD(.activation = AG_RELU_ACTIVATION) },
    { "feed_forward/silu", FEED_FORWARD(.activation = AG_SILU, .no_bias = true) },
    { "feed_forward/trained", FEED_FORWARD(.activation = AG_GELU), .trained = 50 },
    { "feed_forward/saturated", FEED_FORWARD(.activation = AG_GELU), .trained = 50, .enlarge = 6.0 },
    { "block", BLOCK(.heads = 1) },
    { "block/heads", BLOCK(.heads = 2, .residual_scale = 0.5) },
    { "block/causal", BLOCK(.heads = 2, .causal = true) },
    { "block/rms", BLOCK(.heads = 2, .norm = AG_RMS_NORM, .activation = AG_SILU) },
    { "block/lengths", BLOCK(.heads = 2), .mask = AG_MASK_LENGTHS },
    { "block/additive", BLOCK(.heads = 1, .causal = true), .mask = AG_MASK_ADDITIVE },
    { "block/trained", BLOCK(.heads = 2, .causal = true), .trained = 50 },
    { "block/saturated", BLOCK(.heads = 2), .enlarge = 4.0 },
    { "transformer", TRANSFORMER(.heads = 1) },
    { "transformer/bidirectional", TRANSFORMER(.heads = 2, .bidirectional = true), .mask = AG_MASK_LENGTHS },
    { "transformer/trained", TRANSFORMER(.heads = 2, .activation = AG_GELU_TANH), .trained = 100 },
    { "transformer/saturated", TRANSFORMER(.heads = 2, .norm = AG_RMS_NORM), .trained = 100, .enlarge = 2.5 },
};
/* clang-format on */

int ag_layer_case_count(void)
{
    return (int)(sizeof cases / sizeof cases[0]);
}

const ag_layer_case *ag_layer_case_at(int i)
{
    return i >= 0 && i < ag_layer_case_count() ? &cases[i] : NULL;
}

/* The size of x's last axis; 0 for a layer that takes tokens. */
static int64_t size_of_x(const ag_layer_case *layer)
{
    if (layer->embedding.d)
        return layer->positions ? layer->embedding.d : 0;
    return layer->attention.d_in + layer->linear.d_in + layer->norm.d + layer->feed_forward.d +
           layer->block.d;
}

static bool is_additive(const ag_layer_case *layer)
{
    return layer->mask == AG_MASK_ADDITIVE || layer->mask == AG_MASK_INFINITE;
}

/* Some of them several times, one of them never. */
static ag_var tokens_of(ag_context *ctx)
{
    return ag_indices(ctx, AG_SHAPE(BATCH, TOKENS), (int64_t[]){ 0, 2, 2, 1, 2, 0, 1, 1 });
}

/* Minus infinity where an odd query looks at the first key. */
static ag_var with_masked_keys(ag_var scores)
{
    int64_t masked[TOKENS * TOKENS] = { 0 }, keys = ag_shape_of(scores).dims[1];
    for (int i = 1; i < TOKENS; i += 2)
        masked[i * keys] = 1;
    return ag_masked_fill(scores, ag_indices(scores.context, AG_SHAPE(TOKENS, keys), masked),
                          -INFINITY);
}

/* inputs: x if there is one, the additive mask or the memory if there is one, and then
 * the parameters, which the layer holds itself. */
static ag_var forward(ag_context *ctx, const ag_var *inputs, int n, void *user)
{
    ag_layer_subject *s = user;
    const ag_layer_case *layer = s->layer;
    ag_attention_mask mask = { .lengths = AG_NONE };
    (void)n;
    if (layer->mask == AG_MASK_LENGTHS) /* the second sequence has no real token at all */
        mask.lengths = ag_indices(ctx, AG_SHAPE(BATCH), (int64_t[]){ TOKENS - 1, 0 });
    if (is_additive(layer))
        mask.additive = layer->mask == AG_MASK_INFINITE ? with_masked_keys(inputs[1]) : inputs[1];
    if (layer->attention.d_in) {
        ag_var memory = layer->memory ? inputs[1 + is_additive(layer)] : inputs[0];
        return ag_attention_forward_cross(&s->attention, inputs[0], memory, &mask, NULL);
    }
    if (layer->linear.d_in)
        return ag_linear_forward(&s->linear, inputs[0]);
    if (layer->embedding.d)
        return layer->positions ? ag_embedding_add_positions(&s->embedding, inputs[0])
                                : ag_embedding_forward(&s->embedding, tokens_of(ctx));
    if (layer->norm.d)
        return ag_norm_forward(&s->norm, inputs[0]);
    if (layer->feed_forward.d)
        return ag_feed_forward_forward(&s->feed_forward, inputs[0]);
    if (layer->block.d)
        return ag_block_forward(&s->block, inputs[0], &mask, NULL);
    return ag_transformer_forward_masked(&s->transformer, tokens_of(ctx), &mask, NULL);
}

/* Some steps of learning to reverse a sequence. */
static void train_attention(ag_context *ctx, ag_params *params, ag_layer_subject *s)
{
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 3e-2 });
    for (int step = 0; step < s->layer->trained; step++) {
        ag_random random = ag_random_stream(s->seed, "check.train", (uint64_t)step);
        double x[16][TOKENS][SYMBOLS + TOKENS] = { { { 0 } } };
        int64_t answer[16][TOKENS];
        for (int b = 0; b < 16; b++)
            for (int t = 0; t < TOKENS; t++) {
                int64_t symbol = ag_random_integer(&random, SYMBOLS);
                x[b][t][symbol] = x[b][t][SYMBOLS + t] = 1.0;
                answer[b][TOKENS - 1 - t] = symbol;
            }
        ag_var input = ag_constant(ctx, AG_SHAPE(16, TOKENS, SYMBOLS + TOKENS), &x[0][0][0]);
        ag_var labels = ag_indices(ctx, AG_SHAPE(16, TOKENS), &answer[0][0]);
        ag_backward(ag_cross_entropy(ag_attention_forward(&s->attention, input, NULL), labels));
        ag_optimizer_step(adam);
        ag_tape_reset(ctx);
    }
}

/* Some steps of learning to answer a random x with random numbers. */
static void train(ag_context *ctx, ag_params *params, ag_layer_subject *s)
{
    if (s->layer->attention.d_in) {
        train_attention(ctx, params, s);
        return;
    }
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 3e-2 });
    for (int step = 0; step < s->layer->trained; step++) {
        ag_random random = ag_random_stream(s->seed, "check.train", 0);
        ag_var x = ag_normal(ctx, &random, AG_SHAPE(BATCH, TOKENS, size_of_x(s->layer)));
        ag_var y = forward(ctx, &x, 1, s);
        ag_backward(ag_mean_squared_error(y, ag_normal(ctx, &random, ag_shape_of(y))));
        ag_optimizer_step(adam);
        ag_tape_reset(ctx);
    }
}

static void enlarge(ag_params *params, double factor)
{
    for (int i = 0; i < ag_params_count(params); i++) {
        ag_tensor *w = ag_value_mutable(ag_params_at(params, i));
        for (int64_t k = 0; w && k < ag_tensor_count(w); k++)
            ag_tensor_put(w, k, factor * ag_tensor_at(w, k));
    }
}

/* What the check moves: x if there is one, the additive mask or the memory, every parameter. */
static int gather_inputs(ag_context *ctx, ag_params *params, const ag_layer_subject *s,
                         ag_var *inputs)
{
    int n = 0;
    const ag_layer_case *layer = s->layer;
    const int64_t d = size_of_x(layer);
    ag_random random = ag_random_stream(s->seed, layer->name, 0);
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(BATCH, TOKENS, d));
    if (d > 0)
        inputs[n++] = ag_set_name(ag_require_gradient(x), "x");
    if (is_additive(layer)) {
        int64_t keys = layer->memory ? layer->memory : TOKENS;
        ag_var bias = ag_normal(ctx, &random, AG_SHAPE(TOKENS, keys));
        inputs[n++] = ag_set_name(ag_require_gradient(bias), "additive");
    }
    if (layer->memory) {
        ag_var memory =
            ag_normal(ctx, &random, AG_SHAPE(BATCH, layer->memory, s->attention.options.d_memory));
        inputs[n++] = ag_set_name(ag_require_gradient(memory), "memory");
    }
    if (n + ag_params_count(params) > AG_SETUP_INPUTS)
        ag_fail(ctx, AG_ERR_ARGUMENT, "check: room for %d inputs only", AG_SETUP_INPUTS);
    for (int i = 0; i < ag_params_count(params) && n < AG_SETUP_INPUTS; i++)
        inputs[n++] = ag_params_at(params, i);
    return n;
}

void ag_layer_case_open(const ag_layer_case *layer, uint64_t seed, ag_dtype dtype,
                        ag_case_setup *setup)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype, .seed = seed });
    ag_params *params = ag_params_new(ctx);
    ag_layer_subject *s = calloc(1, sizeof *s);
    *setup = (ag_case_setup){ .context = ctx, .f = forward, .user = s };
    if (!s) {
        ag_fail(ctx, AG_ERR_MEMORY, "check: no memory for a layer");
        return;
    }
    s->layer = layer;
    s->seed = seed;
    ag_layer_subject_init(s, params);
    if (layer->trained)
        train(ctx, params, s);
    if (layer->enlarge != 0.0)
        enlarge(params, layer->enlarge);
    setup->n = gather_inputs(ctx, params, s, setup->inputs);
    setup->leaves = setup->n - ag_params_count(params);
}

void ag_layer_case_run(const ag_layer_case *layer, bool second, uint64_t seed,
                       ag_case_result *result)
{
    ag_case_setup setup;
    ag_layer_case_open(layer, seed, AG_F64, &setup);
    ag_case_check(&setup, second, &(ag_gradcheck_options){ .seed = seed }, result);
    ag_case_close(&setup);
}
