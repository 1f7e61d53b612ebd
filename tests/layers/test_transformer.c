/* The transformer and its block: parameters, how they start, what a token sees,
 * what is refused, threads, memory, and which weights decay. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_error(ag_context *ctx, ag_error error, const char *words)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", words, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    cr_expect(strstr(ag_error_message(ctx), words), "'%s' has no '%s'", ag_error_message(ctx),
              words);
    ag_error_clear(ctx);
}

static const ag_transformer_options SMALL = {
    .vocab = 7, .max_tokens = 9, .d_model = 8, .heads = 2, .blocks = 2
};

static ag_transformer new_model(ag_params *params, ag_transformer_options options)
{
    ag_transformer model;
    cr_assert(ag_transformer_init(&model, params, "", &options));
    return model;
}

static ag_var random_tokens(ag_context *ctx, uint64_t number, ag_shape shape, int64_t vocab)
{
    ag_random random = ag_random_stream(1, "tokens", number);
    ag_tensor *tokens = ag_tensor_new(ctx, AG_STEP, AG_I64, shape);
    ag_random_fill_integer(ctx, &random, tokens, vocab);
    return ag_from_tensor(ctx, tokens);
}

/* ---- Parameters ---- */

Test(transformer, sizes)
{
    static const struct {
        ag_transformer_options options;
        int64_t size;
    } cases[] = {
        { { .vocab = 10, .max_tokens = 8, .d_model = 16, .heads = 1, .blocks = 1 }, 3696 },
        { { .vocab = 16, .max_tokens = 16, .d_model = 32, .heads = 2, .blocks = 1 }, 14176 },
        { { .vocab = 128, .max_tokens = 64, .d_model = 64, .heads = 4, .blocks = 2 }, 120064 },
        { { .vocab = 65, .max_tokens = 64, .d_model = 128, .heads = 4, .blocks = 4 }, 816128 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ag_context *ctx = ag_context_new(NULL);
        ag_params *params = ag_params_new(ctx);
        new_model(params, cases[i].options);
        cr_expect_eq(ag_params_size(params), cases[i].size);
        ag_context_free(ctx);
    }
}

Test(transformer, names)
{
    static const char *const names[] = { "tokens.w",
                                         "positions.w",
                                         "block.0.norm_1.gain",
                                         "block.0.norm_1.bias",
                                         "block.0.attn.w_q",
                                         "block.0.attn.w_k",
                                         "block.0.attn.w_v",
                                         "block.0.attn.w_o",
                                         "block.0.norm_2.gain",
                                         "block.0.norm_2.bias",
                                         "block.0.ff.w_1",
                                         "block.0.ff.b_1",
                                         "block.0.ff.w_2",
                                         "block.0.ff.b_2",
                                         "norm.gain",
                                         "norm.bias",
                                         "unembedding.w" };
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_transformer_options options = SMALL;
    options.blocks = 1;
    ag_transformer model = new_model(params, options);
    cr_assert_eq(ag_params_count(params), 17);
    for (int i = 0; i < 17; i++)
        cr_expect_str_eq(ag_name(ag_params_at(params, i)), names[i]);
    cr_expect_eq(model.options.d_ff, 32);
    options.norm = AG_RMS_NORM;
    cr_assert(ag_transformer_init(&model, params, "second", &options));
    cr_expect_eq(ag_params_count(params), 17 + 14, "an RMS norm has no bias");
    cr_expect(!ag_is_none(ag_params_find(params, "second.block.0.attn.w_o")));
    ag_context_free(ctx);
}

static double deviation(const ag_params *params, const char *name)
{
    double squares = 0;
    const ag_tensor *w = ag_value(ag_params_find(params, name));
    for (int64_t k = 0; k < ag_tensor_count(w); k++)
        squares += ag_tensor_at(w, k) * ag_tensor_at(w, k);
    return sqrt(squares / (double)ag_tensor_count(w));
}

Test(transformer, how_it_starts)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 2 });
    ag_params *params = ag_params_new(ctx);
    new_model(params, (ag_transformer_options){
                          .vocab = 64, .max_tokens = 64, .d_model = 64, .heads = 4, .blocks = 8 });
    static const char *const usual[] = { "tokens.w",         "positions.w",      "unembedding.w",
                                         "block.7.attn.w_q", "block.7.attn.w_v", "block.7.ff.w_1" };
    for (int i = 0; i < 6; i++)
        cr_expect_float_eq(deviation(params, usual[i]), 0.02, 0.001, "%s", usual[i]);
    cr_expect_float_eq(deviation(params, "block.3.attn.w_o"), 0.02 / 4, 0.0003);
    cr_expect_float_eq(deviation(params, "block.3.ff.w_2"), 0.02 / 4, 0.0003);
    cr_expect_eq(deviation(params, "block.0.norm_1.gain"), 1);
    cr_expect_eq(deviation(params, "norm.bias"), 0);
    cr_expect_eq(deviation(params, "block.0.ff.b_1"), 0);
    ag_context_free(ctx);
}

/* ---- Forward ---- */

/* The definition, from the parts. */
Test(transformer, is_the_sum_of_its_parts)
{
    for (int i = 0; i < 2; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 3 });
        ag_transformer_options options = SMALL;
        options.bidirectional = i == 1;
        ag_transformer model = new_model(ag_params_new(ctx), options);
        ag_var tokens = random_tokens(ctx, 1, AG_SHAPE(3, 5), 7);
        ag_var x = ag_add(ag_embedding_forward(&model.tokens, tokens),
                          ag_slice(model.positions.w, 0, 0, 5, 1));
        for (int b = 0; b < 2; b++) {
            const ag_block *block = &model.blocks[b];
            cr_expect_eq(block->attention.options.causal, i == 0);
            x = ag_add(x, ag_attention_forward(&block->attention,
                                               ag_norm_forward(&block->norm_1, x), NULL));
            x = ag_add(x, ag_feed_forward_forward(&block->feed_forward,
                                                  ag_norm_forward(&block->norm_2, x)));
        }
        ag_var want = ag_matmul(ag_norm_forward(&model.norm, x), model.unembedding.w);
        ag_var got = ag_transformer_forward(&model, tokens);
        cr_assert(ag_is_valid(got), "%s", ag_error_message(ctx));
        cr_assert(ag_shape_equal(ag_shape_of(got), AG_SHAPE(3, 5, 7)));
        for (int64_t k = 0; k < 3 * 5 * 7; k++)
            cr_expect_float_eq(ag_tensor_at(ag_value(got), k), ag_tensor_at(ag_value(want), k),
                               1e-14);
        ag_context_free(ctx);
    }
}

Test(transformer, any_leading_axes)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_transformer model = new_model(ag_params_new(ctx), SMALL);
    const ag_shape shapes[] = { AG_SHAPE(1),    AG_SHAPE(9),    AG_SHAPE(0),      AG_SHAPE(2, 0),
                                AG_SHAPE(0, 4), AG_SHAPE(4, 9), AG_SHAPE(2, 1, 3) };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        ag_shape want = shapes[i];
        want.dims[want.rank++] = 7;
        ag_var y = ag_transformer_forward(&model, random_tokens(ctx, i, shapes[i], 7));
        cr_expect(ag_shape_equal(ag_shape_of(y), want), "%d: %s", (int)i, ag_error_message(ctx));
    }
    ag_context_free(ctx);
}

static bool same_row(ag_var a, ag_var b, int64_t row)
{
    const int64_t n = SMALL.vocab;
    const double *x = ag_value(a)->data, *y = ag_value(b)->data;
    return !memcmp(x + row * n, y + row * n, (size_t)n * sizeof(double));
}

/* Changing a token changes what comes after it, and, if it may be seen, what came before. */
Test(transformer, what_a_token_sees)
{
    for (int kind = 0; kind < 3; kind++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 4 });
        ag_transformer_options options = SMALL;
        options.bidirectional = kind > 0;
        ag_transformer model = new_model(ag_params_new(ctx), options);
        ag_var first = ag_indices(ctx, AG_SHAPE(6), (int64_t[]){ 1, 2, 3, 4, 5, 6 });
        ag_var second = ag_indices(ctx, AG_SHAPE(6), (int64_t[]){ 1, 2, 3, 0, 5, 6 });
        ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SCALAR, (int64_t[]){ 3 }) };
        const ag_attention_mask *used = kind == 2 ? &mask : NULL;
        ag_var a = ag_transformer_forward_masked(&model, first, used, NULL);
        ag_var b = ag_transformer_forward_masked(&model, second, used, NULL);
        cr_assert(ag_is_valid(b), "%s", ag_error_message(ctx));
        for (int64_t i = 0; i < 6; i++) {
            bool sees = kind == 0 ? i >= 3 : kind == 1 || i == 3;
            cr_expect_eq(!same_row(a, b, i), sees, "kind %d, token %d", kind, (int)i);
        }
        ag_context_free(ctx);
    }
}

Test(transformer, traces_of_all_blocks)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_transformer model = new_model(ag_params_new(ctx), SMALL);
    ag_attention_trace traces[2];
    ag_transformer_forward_masked(&model, random_tokens(ctx, 1, AG_SHAPE(3, 4), 7), NULL, traces);
    for (int i = 0; i < 2; i++)
        cr_expect(ag_shape_equal(ag_shape_of(traces[i].weights), AG_SHAPE(3, 2, 4, 4)));
    cr_expect_str_eq(ag_name(traces[1].weights), "block.1.attn.weights");
    ag_transformer_forward_masked(&model, AG_NONE, NULL, traces);
    cr_expect(ag_is_none(traces[0].weights) && ag_is_none(traces[1].weights));
    ag_context_free(ctx);
}

/* ---- What is refused ---- */

Test(transformer, init_is_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    static const struct {
        ag_transformer_options options;
        ag_error error;
        const char *words;
    } cases[] = {
        { { .max_tokens = 9, .d_model = 8, .blocks = 1 }, AG_ERR_ARGUMENT, "vocab is 0" },
        { { .vocab = 7, .d_model = 8, .blocks = 1 }, AG_ERR_ARGUMENT, "max_tokens 0" },
        { { .vocab = 7, .max_tokens = 9, .blocks = 1 }, AG_ERR_ARGUMENT, "0 numbers" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8 }, AG_ERR_ARGUMENT, "blocks 0" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = 1, .heads = 3 },
          AG_ERR_ARGUMENT,
          "transformer_init: m: 8 numbers of a token do not divide into 3 heads" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = 1, .heads = -1 },
          AG_ERR_ARGUMENT,
          "-1 heads" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = 1, .heads = 16 },
          AG_ERR_ARGUMENT,
          "16 heads" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = 1, .d_ff = -1 },
          AG_ERR_ARGUMENT,
          "d_ff -1" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = 1, .norm = (ag_norm_kind)5 },
          AG_ERR_ARGUMENT,
          "no norm 5" },
        { { .vocab = 7,
            .max_tokens = 9,
            .d_model = 8,
            .blocks = 1,
            .activation = (ag_activation)9 },
          AG_ERR_ARGUMENT,
          "no activation 9" },
        { { .vocab = 7, .max_tokens = 9, .d_model = 8, .blocks = INT64_MAX },
          AG_ERR_MEMORY,
          "too many" },
        { { .vocab = 7, .max_tokens = 9, .d_model = INT64_MAX, .blocks = 1 }, AG_ERR_MEMORY, "" },
    };
    ag_transformer model;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_not(ag_transformer_init(&model, params, "m", &cases[i].options));
        expect_error(ctx, cases[i].error, cases[i].words);
        cr_expect_eq(ag_params_count(params), 0, "%s", cases[i].words);
        cr_expect_null(model.blocks);
        ag_transformer_forward(&model, random_tokens(ctx, 1, AG_SHAPE(2), 7));
        expect_error(ctx, AG_ERR_ARGUMENT, "transformer_forward: the layer was not initialised");
    }
    cr_expect_not(ag_transformer_init(NULL, params, "m", &SMALL));
    expect_error(ctx, AG_ERR_ARGUMENT, "transformer_init: layer is NULL");
    cr_expect_not(ag_transformer_init(&model, params, NULL, &SMALL));
    expect_error(ctx, AG_ERR_ARGUMENT, "transformer_init: name is NULL");
    cr_expect_not(ag_transformer_init(&model, params, "m", NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "transformer_init: options is NULL");
    cr_expect_not(ag_transformer_init(&model, NULL, "m", &SMALL));
    char name[400];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    cr_expect_not(ag_transformer_init(&model, params, name, &SMALL));
    expect_error(ctx, AG_ERR_ARGUMENT, "nn..: the name of a layer is too long");
    ag_params_add(params, "m", "unembedding.w", AG_SHAPE(1), (ag_init){ .kind = AG_INIT_ZEROS });
    cr_expect_not(ag_transformer_init(&model, params, "m", &SMALL));
    expect_error(ctx, AG_ERR_ARGUMENT, "m.unembedding.w");
    cr_expect_eq(ag_params_count(params), 1, "the others were taken back");
    ag_context_free(ctx);
}

Test(transformer, forward_is_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_transformer model = new_model(ag_params_new(ctx), SMALL);
    ag_var tokens = random_tokens(ctx, 1, AG_SHAPE(2, 3), 7);
    ag_transformer_forward(&model, ag_set_name(random_tokens(ctx, 1, AG_SHAPE(2, 10), 7), "x"));
    expect_error(ctx, AG_ERR_SHAPE,
                 "transformer_forward: x [2,10] should be [.., t] with t of at most 9");
    ag_transformer_forward(&model, ag_indices(ctx, AG_SCALAR, (int64_t[]){ 1 }));
    expect_error(ctx, AG_ERR_SHAPE, "transformer_forward");
    ag_transformer_forward(&model, random_tokens(ctx, 1, AG_SHAPE(1, 1, 1, 1, 1, 1, 1, 1), 7));
    expect_error(ctx, AG_ERR_SHAPE, "");
    ag_transformer_forward(&model, ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 0, 7 }));
    expect_error(ctx, AG_ERR_INDEX, "index 7 at [1]");
    ag_transformer_forward(&model, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_DTYPE, "");
    ag_transformer_forward(&model, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "transformer_forward");
    ag_transformer_forward(&model, random_tokens(other, 1, AG_SHAPE(2), 7));
    expect_error(ctx, AG_ERR_ARGUMENT, "transformer_forward");
    ag_transformer_forward(NULL, tokens);
    expect_error(ctx, AG_ERR_ARGUMENT, "not initialised");
    ag_transformer_forward(NULL, AG_NONE);
    ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 3, 4 }) };
    ag_transformer_forward_masked(&model, tokens, &mask, NULL);
    expect_error(ctx, AG_ERR_INDEX, "length 4");
    mask.lengths = ag_indices(ctx, AG_SHAPE(3), (int64_t[]){ 3, 3, 3 });
    ag_transformer_forward_masked(&model, tokens, &mask, NULL);
    expect_error(ctx, AG_ERR_SHAPE, "lengths [3]");
    cr_expect(ag_is_valid(ag_transformer_forward(&model, tokens)), "the context works on");
    ag_tape_reset(ctx);
    ag_transformer_forward(&model, tokens);
    expect_error(ctx, AG_ERR_STATE, "transformer_forward");
    ag_context_free(ctx);
    ag_context_free(other);
}

Test(block, init_and_forward_are_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    const ag_block_options good = { .d = 4, .heads = 2 };
    ag_block block;
    static const struct {
        ag_block_options options;
        const char *words;
    } cases[] = {
        { { .heads = 1 }, "block_init: b: a token has 0 numbers" },
        { { .d = 4, .heads = 3 }, "4 numbers of a token do not divide into 3 heads" },
        { { .d = 4, .heads = -2 }, "-2 heads" },
        { { .d = 4, .residual_scale = NAN }, "residual_scale is" },
        { { .d = 4, .norm = (ag_norm_kind)7 }, "no norm 7" },
        { { .d = 4, .activation = (ag_activation)7 }, "no activation 7" },
        { { .d = 4, .init = { AG_INIT_UNIFORM, -1 } }, "negative" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_not(ag_block_init(&block, params, "b", &cases[i].options));
        expect_error(ctx, AG_ERR_ARGUMENT, cases[i].words);
        cr_expect_eq(ag_params_count(params), 0, "%s", cases[i].words);
        ag_block_forward(&block, ag_zeros(ctx, AG_SHAPE(2, 4)), NULL, NULL);
        expect_error(ctx, AG_ERR_ARGUMENT, "block_forward: the layer was not initialised");
    }
    cr_expect_not(ag_block_init(NULL, params, "b", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "block_init: layer is NULL");
    cr_assert(ag_block_init(&block, params, "b", &good));
    ag_block_forward(&block, ag_zeros(ctx, AG_SHAPE(2, 3)), NULL, NULL);
    expect_error(ctx, AG_ERR_SHAPE, "does not fit b.norm_1.gain [4]");
    ag_block_forward(&block, ag_zeros(ctx, AG_SHAPE(4)), NULL, NULL);
    expect_error(ctx, AG_ERR_SHAPE, "x should be [.., tokens, d_in]");
    ag_block_forward(NULL, ag_zeros(ctx, AG_SHAPE(2, 4)), NULL, NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "not initialised");
    ag_block_forward(&block, AG_NONE, NULL, NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "block_forward");
    ag_context_free(ctx);
}

/* residual_scale is a factor on what the initialiser gave. */
Test(block, residual_scale)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 5 });
    ag_block plain, scaled;
    ag_block_options options = { .d = 4 };
    ag_block_init(&plain, ag_params_new(ctx), "b", &options);
    options.residual_scale = 0.25;
    ag_block_init(&scaled, ag_params_new(ctx), "b", &options);
    const ag_var pairs[3][2] = { { plain.attention.w_o, scaled.attention.w_o },
                                 { plain.feed_forward.w_2, scaled.feed_forward.w_2 },
                                 { plain.feed_forward.w_1, scaled.feed_forward.w_1 } };
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; k < ag_tensor_count(ag_value(pairs[i][0])); k++)
            cr_expect_eq(ag_tensor_at(ag_value(pairs[i][1]), k),
                         ag_tensor_at(ag_value(pairs[i][0]), k) * (i < 2 ? 0.25 : 1));
    ag_context_free(ctx);
}

/* ---- Training ---- */

/* To name the token before this one. */
static double training_step(ag_context *ctx, const ag_transformer *model, ag_params *params,
                            ag_optimizer *optimizer, int step)
{
    const int64_t t = 9, batch = 16;
    ag_var tokens = random_tokens(ctx, (uint64_t)step, AG_SHAPE(batch, t), model->options.vocab);
    ag_var seen = ag_slice(tokens, 1, 1, t, 1), before = ag_slice(tokens, 1, 0, t - 1, 1);
    ag_var loss = ag_cross_entropy(ag_transformer_forward(model, seen), before);
    double value = ag_item(loss);
    ag_backward(loss);
    ag_params_clip_gradients(params, 1);
    ag_optimizer_step(optimizer);
    ag_tape_reset(ctx);
    cr_assert_eq(ag_status(ctx), AG_OK, "step %d: %s", step, ag_error_message(ctx));
    return value;
}

enum { STEPS = 60, NUMBERS = 2048 };

/* All parameters after some steps; returns the loss of the last one. */
static double train(int threads, ag_norm_kind norm, double *numbers, double *first_loss)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 6, .threads = threads });
    ag_params *params = ag_params_new(ctx);
    ag_transformer_options options = SMALL;
    options.norm = norm;
    ag_transformer model = new_model(params, options);
    ag_optimizer *adamw =
        ag_adamw_new(params, &(ag_adam_options){ .lr = 2e-2, .weight_decay = 0.1 });
    cr_assert(ag_transformer_decay_matrices_only(&model, adamw));
    double loss = 0;
    for (int step = 0; step < STEPS; step++) {
        loss = training_step(ctx, &model, params, adamw, step);
        if (step == 0)
            *first_loss = loss;
    }
    cr_assert_leq(ag_params_size(params), NUMBERS);
    for (int i = 0; i < ag_params_count(params); i++) {
        cr_assert(ag_read(ag_params_at(params, i), numbers));
        numbers += ag_tensor_count(ag_value(ag_params_at(params, i)));
    }
    ag_context_free(ctx);
    return loss;
}

Test(transformer, threads_and_repetition_change_no_bit)
{
    static double want[NUMBERS], got[NUMBERS];
    for (int norm = 0; norm < 2; norm++) {
        double before, after = train(1, (ag_norm_kind)norm, want, &before);
        cr_expect_lt(after, 0.7 * before, "it learns: %g, %g", before, after);
        for (int threads = 1; threads <= 3; threads++) {
            cr_expect_eq(train(threads, (ag_norm_kind)norm, got, &before), after);
            cr_expect(!memcmp(want, got, sizeof want), "%d threads, norm %d", threads, norm);
        }
    }
}

Test(transformer, a_training_loop_stops_allocating)
{
    for (int norm = 0; norm < 2; norm++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 7 });
        ag_params *params = ag_params_new(ctx);
        ag_transformer_options options = SMALL;
        options.norm = (ag_norm_kind)norm;
        ag_transformer model = new_model(params, options);
        ag_optimizer *adamw = ag_adamw_new(params, &(ag_adam_options){ .lr = 1e-2 });
        ag_memory_usage early = { 0 };
        for (int step = 1; step <= 50; step++) {
            training_step(ctx, &model, params, adamw, step);
            if (step == 5)
                early = ag_context_memory(ctx);
        }
        ag_memory_usage late = ag_context_memory(ctx);
        cr_expect_gt(early.allocations, 0);
        cr_expect_eq(late.allocations, early.allocations);
        cr_expect_eq(late.kept, early.kept, "nothing is kept for good");
        cr_expect_eq(late.step_peak, early.step_peak);
        cr_expect_eq(late.step, 0);
        ag_context_free(ctx);
    }
}

/* ---- Memory that runs out ---- */

typedef struct failing {
    int calls, fail_at, live;
} failing;

static void *failing_allocate(size_t bytes, void *user)
{
    failing *f = user;
    void *memory = f->calls++ >= f->fail_at ? NULL : malloc(bytes);
    f->live += memory != NULL;
    return memory;
}

static void failing_release(void *memory, void *user)
{
    failing *f = user;
    f->live -= memory != NULL;
    free(memory);
}

/* Init and one step of a model too large for one chunk; whether the failing call was reached. */
static bool step_without_memory(int fail_at)
{
    failing f = { .fail_at = fail_at };
    ag_context *ctx = ag_context_new(
        &(ag_context_options){ .allocator = { failing_allocate, failing_release, &f } });
    if (ctx) {
        ag_params *params = ag_params_new(ctx);
        ag_transformer model;
        bool made = ag_transformer_init(
            &model, params, "m",
            &(ag_transformer_options){
                .vocab = 300, .max_tokens = 64, .d_model = 128, .heads = 2, .blocks = 3 });
        cr_expect_eq(ag_params_count(params), made ? 41 : 0, "all parameters or none");
        ag_optimizer *adamw = ag_adamw_new(params, &(ag_adam_options){ .lr = 1e-2 });
        ag_var tokens = random_tokens(ctx, 1, AG_SHAPE(4, 64), 300);
        ag_backward(ag_cross_entropy(ag_transformer_forward(&model, tokens), tokens));
        cr_expect_eq(ag_optimizer_step(adamw), ag_status(ctx) == AG_OK);
        cr_expect_eq(ag_status(ctx), f.calls > fail_at ? AG_ERR_MEMORY : AG_OK, "call %d: %s",
                     fail_at, ag_error_message(ctx));
    }
    ag_context_free(ctx);
    cr_assert_eq(f.live, 0, "call %d leaves %d blocks", fail_at, f.live);
    return f.calls > fail_at;
}

Test(transformer, every_allocation_may_fail)
{
    int calls = 0;
    while (step_without_memory(calls))
        calls++;
    cr_expect_gt(calls, 4, "only %d allocations", calls);
}

/* ---- Weight decay ---- */

/* With gradients of 0, only the decay moves a parameter. */
Test(transformer, only_matrices_decay)
{
    for (int norm = 0; norm < 2; norm++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 8 });
        ag_params *params = ag_params_new(ctx);
        ag_transformer_options options = SMALL;
        options.norm = (ag_norm_kind)norm;
        ag_transformer model = new_model(params, options);
        ag_optimizer *adamw =
            ag_adamw_new(params, &(ag_adam_options){ .lr = 0.5, .weight_decay = 0.5 });
        cr_assert(ag_transformer_decay_matrices_only(&model, adamw), "%s", ag_error_message(ctx));
        ag_var loss = ag_scalar(ctx, 0);
        for (int i = 0; i < ag_params_count(params); i++) {
            ag_var p = ag_params_at(params, i);
            ag_tensor_fill(ctx, ag_value_mutable(p), 1);
            loss = ag_add(loss, ag_scale(ag_sum(p, AG_ALL, 0), 0));
        }
        cr_assert(ag_backward(loss) && ag_optimizer_step(adamw), "%s", ag_error_message(ctx));
        int decayed = 0;
        for (int i = 0; i < ag_params_count(params); i++) {
            ag_var p = ag_params_at(params, i);
            const char *name = ag_name(p), *last = strrchr(name, '.') + 1;
            bool table = !strcmp(name, "tokens.w") || !strcmp(name, "positions.w");
            bool matrix = last[0] == 'w' && !table;
            cr_expect_eq(ag_tensor_at(ag_value(p), 0), matrix ? 0.75 : 1, "%s", name);
            decayed += matrix;
        }
        cr_expect_eq(decayed, 2 * 6 + 1);
        ag_context_free(ctx);
    }
}

Test(transformer, decay_is_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx), *others = ag_params_new(ctx);
    ag_transformer model = new_model(params, SMALL), empty = { .blocks = NULL };
    ag_optimizer *adamw = ag_adamw_new(params, &(ag_adam_options){ .lr = 1 });
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 1 });
    ag_optimizer *stranger = ag_adamw_new(others, &(ag_adam_options){ .lr = 1 });
    cr_expect_not(ag_transformer_decay_matrices_only(&model, adam));
    expect_error(ctx, AG_ERR_ARGUMENT, "only AdamW");
    cr_expect_not(ag_transformer_decay_matrices_only(&model, stranger));
    expect_error(ctx, AG_ERR_ARGUMENT, "tokens.w [7,8] is not among the parameters");
    cr_expect_not(ag_transformer_decay_matrices_only(&empty, adamw));
    expect_error(ctx, AG_ERR_ARGUMENT, "");
    cr_expect_not(ag_transformer_decay_matrices_only(NULL, adamw));
    expect_error(ctx, AG_ERR_ARGUMENT, "");
    cr_expect_not(ag_transformer_decay_matrices_only(&model, NULL));
    cr_expect(ag_transformer_decay_matrices_only(&model, adamw));
    ag_context_free(ctx);
}
