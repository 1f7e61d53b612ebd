/* The feed-forward layer. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void expect_error(ag_context *ctx, ag_error error, const char *words)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", words, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    cr_expect(strstr(ag_error_message(ctx), words), "'%s' has no '%s'", ag_error_message(ctx),
              words);
    ag_error_clear(ctx);
}

Test(feed_forward, parameters)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_feed_forward ff;
    cr_assert(ag_feed_forward_init(&ff, params, "ff", &(ag_feed_forward_options){ .d = 3 }));
    static const char *const names[] = { "ff.w_1", "ff.b_1", "ff.w_2", "ff.b_2" };
    const ag_shape shapes[] = { AG_SHAPE(3, 12), AG_SHAPE(12), AG_SHAPE(12, 3), AG_SHAPE(3) };
    cr_assert_eq(ag_params_count(params), 4);
    for (int i = 0; i < 4; i++) {
        cr_expect_str_eq(ag_name(ag_params_at(params, i)), names[i]);
        cr_expect(ag_shape_equal(ag_shape_of(ag_params_at(params, i)), shapes[i]), "%s", names[i]);
    }
    cr_expect_eq(ff.options.d_ff, 12);
    cr_expect_eq(ag_tensor_at(ag_value(ff.b_1), 3), 0);
    cr_assert(ag_feed_forward_init(
        &ff, params, "bare", &(ag_feed_forward_options){ .d = 3, .d_ff = 5, .no_bias = true }));
    cr_expect_eq(ag_params_count(params), 6);
    cr_expect(ag_is_none(ff.b_1) && ag_is_none(ff.b_2));
    ag_context_free(ctx);
}

static double by_hand(ag_activation activation, double a)
{
    switch (activation) {
    case AG_GELU:
        return a * (1 + erf(a / sqrt(2))) / 2;
    case AG_GELU_TANH:
        return a * (1 + tanh(0.79788456080286535588 * (a + 0.044715 * a * a * a))) / 2;
    case AG_RELU_ACTIVATION:
        return a > 0 ? a : 0;
    case AG_SILU:
        break;
    }
    return a / (1 + exp(-a));
}

Test(feed_forward, each_activation_by_hand)
{
    for (int i = AG_GELU; i <= AG_SILU; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_feed_forward ff;
        ag_feed_forward_init(
            &ff, ag_params_new(ctx), "ff",
            &(ag_feed_forward_options){ .d = 1, .d_ff = 2, .activation = (ag_activation)i });
        ag_assign(ff.w_1, (double[]){ 2, -3 });
        ag_assign(ff.b_1, (double[]){ 0.5, 0.25 });
        ag_assign(ff.w_2, (double[]){ 7, 11 });
        ag_assign(ff.b_2, (double[]){ 0.125 });
        const double xs[] = { 0.7, -0.3, 2 };
        ag_var y = ag_feed_forward_forward(&ff, ag_constant(ctx, AG_SHAPE(3, 1), xs));
        for (int64_t k = 0; k < 3; k++) {
            double want = 7 * by_hand((ag_activation)i, 2 * xs[k] + 0.5) +
                          11 * by_hand((ag_activation)i, -3 * xs[k] + 0.25) + 0.125;
            cr_expect_float_eq(ag_tensor_at(ag_value(y), k), want, 1e-13, "activation %d", i);
            ag_var one = ag_constant(ctx, AG_SHAPE(1), &xs[k]);
            cr_expect_float_eq(ag_item(ag_feed_forward_forward(&ff, one)), want, 1e-13);
        }
        ag_context_free(ctx);
    }
}

Test(feed_forward, any_leading_axes)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_feed_forward ff;
    ag_feed_forward_init(&ff, ag_params_new(ctx), "ff", &(ag_feed_forward_options){ .d = 2 });
    const ag_shape shapes[] = { AG_SHAPE(2), AG_SHAPE(0, 2), AG_SHAPE(1, 2), AG_SHAPE(2, 0, 2),
                                AG_SHAPE(3, 1, 4, 2) };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        ag_var y = ag_feed_forward_forward(&ff, ag_zeros(ctx, shapes[i]));
        cr_expect(ag_shape_equal(ag_shape_of(y), shapes[i]), "%s", ag_error_message(ctx));
    }
    ag_context_free(ctx);
}

Test(feed_forward, init_is_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    const ag_feed_forward_options good = { .d = 2 };
    ag_feed_forward ff;
    static const struct {
        ag_feed_forward_options options;
        ag_error error;
        const char *words;
    } cases[] = {
        { { .d = 0 }, AG_ERR_ARGUMENT, "feed_forward_init: ff: d is 0" },
        { { .d = 2, .d_ff = -1 }, AG_ERR_ARGUMENT, "d_ff -1" },
        { { .d = 2, .activation = (ag_activation)4 }, AG_ERR_ARGUMENT, "no activation 4" },
        { { .d = 2, .init = { .kind = (ag_init_kind)99 } }, AG_ERR_ARGUMENT, "no initialiser" },
        { { .d = INT64_MAX / 2 }, AG_ERR_MEMORY, "too large" },
        { { .d = INT64_MAX / 8 }, AG_ERR_MEMORY, "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_not(ag_feed_forward_init(&ff, params, "ff", &cases[i].options));
        expect_error(ctx, cases[i].error, cases[i].words);
    }
    cr_expect_not(ag_feed_forward_init(NULL, params, "ff", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_init: layer is NULL");
    cr_expect_not(ag_feed_forward_init(&ff, params, NULL, &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_init: name is NULL");
    cr_expect_not(ag_feed_forward_init(&ff, params, "ff", NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_init: options is NULL");
    cr_expect_not(ag_feed_forward_init(&ff, NULL, "ff", &good));
    ag_params_add(params, "ff", "b_2", AG_SHAPE(1), (ag_init){ .kind = AG_INIT_ZEROS });
    cr_expect_not(ag_feed_forward_init(&ff, params, "ff", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "ff.b_2");
    cr_expect_eq(ag_params_count(params), 1, "the others were taken back");
    ag_feed_forward_forward(&ff, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_forward: the layer was not initialised");
    ag_context_free(ctx);
}

Test(feed_forward, forward_is_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_feed_forward ff;
    ag_feed_forward_init(&ff, ag_params_new(ctx), "ff", &(ag_feed_forward_options){ .d = 2 });
    ag_feed_forward_forward(&ff, ag_set_name(ag_zeros(ctx, AG_SHAPE(4, 3)), "x"));
    expect_error(ctx, AG_ERR_SHAPE, "the last axis of x [4,3] does not fit ff.w_1 [2,8]");
    ag_feed_forward_forward(&ff, ag_scalar(ctx, 1));
    expect_error(ctx, AG_ERR_SHAPE, "feed_forward_forward");
    ag_feed_forward_forward(&ff, ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 1, 2 }));
    expect_error(ctx, AG_ERR_DTYPE, "feed_forward_forward");
    ag_feed_forward_forward(&ff, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_forward");
    ag_feed_forward_forward(&ff, ag_zeros(other, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "feed_forward_forward");
    ag_feed_forward_forward(NULL, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "not initialised");
    ag_feed_forward_forward(NULL, AG_NONE);
    ag_context_free(ctx);
    ag_context_free(other);
}
