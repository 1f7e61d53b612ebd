/* The same seed gives the same bits: twice, and with any number of threads. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <string.h>

enum { STEPS = 50, MAX_NUMBERS = 8192 };

typedef struct outcome {
    double loss[STEPS];
    int64_t n;
    double numbers[MAX_NUMBERS]; /* of all parameters, at the end */
} outcome;

/* Two layers, so that gradients meet on their way back. */
static ag_var model(const ag_attention *attn, const ag_linear *linear, ag_var x)
{
    ag_var hidden = ag_add(x, ag_attention_forward(attn, x, NULL));
    return ag_linear_forward(linear, ag_gelu(hidden));
}

static void train(int threads, uint64_t seed, ag_dtype dtype, outcome *result)
{
    ag_context *ctx =
        ag_context_new(&(ag_context_options){ .seed = seed, .threads = threads, .dtype = dtype });
    ag_params *params = ag_params_new(ctx);
    ag_attention attn;
    ag_attention_init(
        &attn, params, "attn",
        &(ag_attention_options){ .d_in = 24, .d_k = 16, .d_v = 12, .heads = 2, .causal = true });
    ag_linear linear;
    ag_linear_init(&linear, params, "out",
                   &(ag_linear_options){ .d_in = 24, .d_out = 10, .bias = true });
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 1e-2 });
    for (int step = 0; step < STEPS; step++) {
        ag_random random = ag_random_stream(seed, "batch", (uint64_t)step);
        ag_var x = ag_normal(ctx, &random, AG_SHAPE(16, 33, 24));
        ag_var labels = ag_argmax(ag_slice(x, -1, 0, 10, 1), -1);
        ag_var loss = ag_cross_entropy(model(&attn, &linear, x), labels);
        ag_backward(loss);
        ag_params_clip_gradients(params, 0.5);
        ag_optimizer_step(adam);
        result->loss[step] = ag_item(loss);
        ag_tape_reset(ctx);
    }
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    result->n = 0;
    for (int i = 0; i < ag_params_count(params); i++) {
        const ag_tensor *value = ag_value(ag_params_at(params, i));
        for (int64_t k = 0; k < ag_tensor_count(value); k++)
            result->numbers[result->n++] = ag_tensor_at(value, k);
    }
    cr_assert_leq(result->n, MAX_NUMBERS);
    ag_context_free(ctx);
}

static void expect_same_bits(const outcome *a, const outcome *b, const char *what)
{
    cr_expect_eq(a->n, b->n);
    for (int step = 0; step < STEPS; step++)
        cr_assert_eq(memcmp(&a->loss[step], &b->loss[step], sizeof(double)), 0,
                     "%s: the loss of step %d is %.17g or %.17g", what, step, a->loss[step],
                     b->loss[step]);
    cr_expect_eq(memcmp(a->numbers, b->numbers, (size_t)a->n * sizeof(double)), 0, "%s", what);
}

static outcome first, second;

static void check(ag_dtype dtype)
{
    train(1, 1, dtype, &first);
    cr_expect_lt(first.loss[STEPS - 1], 0.8 * first.loss[0], "it learns: %g, %g", first.loss[0],
                 first.loss[STEPS - 1]);
    train(1, 1, dtype, &second);
    expect_same_bits(&first, &second, "twice");
    train(2, 1, dtype, &second);
    expect_same_bits(&first, &second, "two threads");
    train(3, 1, dtype, &second);
    expect_same_bits(&first, &second, "three threads");
    train(1, 2, dtype, &second);
    cr_expect_neq(first.loss[0], second.loss[0], "another seed is another run");
}

Test(determinism, fifty_steps_in_f32)
{
    check(AG_F32);
}

Test(determinism, fifty_steps_in_f64)
{
    check(AG_F64);
}
