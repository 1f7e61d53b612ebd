/* The norm layers: their parameters and what they refuse. What the operations
 * compute is in autograd/test_norms.c. */
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

static ag_norm new_norm(ag_params *params, const char *name, ag_norm_options options)
{
    ag_norm norm;
    cr_assert(ag_norm_init(&norm, params, name, &options));
    return norm;
}

Test(norm, parameters)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_norm layer = new_norm(params, "layer", (ag_norm_options){ .d = 3 });
    ag_norm rms = new_norm(params, "rms", (ag_norm_options){ .d = 4, .kind = AG_RMS_NORM });
    cr_expect_eq(ag_params_count(params), 3);
    cr_expect_str_eq(ag_name(layer.gain), "layer.gain");
    cr_expect_str_eq(ag_name(layer.bias), "layer.bias");
    cr_expect_str_eq(ag_name(rms.gain), "rms.gain");
    cr_expect(ag_is_none(rms.bias));
    for (int64_t j = 0; j < 3; j++) {
        cr_expect_eq(ag_tensor_at(ag_value(layer.gain), j), 1);
        cr_expect_eq(ag_tensor_at(ag_value(layer.bias), j), 0);
        cr_expect_eq(ag_tensor_at(ag_value(rms.gain), j), 1);
    }
    ag_context_free(ctx);
}

static void expect_values(ag_var y, const double *values)
{
    cr_assert(ag_is_valid(y), "%s", ag_error_message(y.context));
    for (int64_t k = 0; k < ag_tensor_count(ag_value(y)); k++)
        cr_expect_float_eq(ag_tensor_at(ag_value(y), k), values[k], 1e-12);
}

Test(norm, by_hand)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_params *params = ag_params_new(ctx);
    ag_norm layer = new_norm(params, "layer", (ag_norm_options){ .d = 2, .epsilon = 3 });
    ag_norm rms =
        new_norm(params, "rms", (ag_norm_options){ .d = 2, .kind = AG_RMS_NORM, .epsilon = 24 });
    ag_assign(layer.gain, (double[]){ 2, 5 });
    ag_assign(layer.bias, (double[]){ 10, 20 });
    ag_assign(rms.gain, (double[]){ 2, 5 });
    ag_var x = ag_constant(ctx, AG_SHAPE(1, 2), (double[]){ 5, 7 });
    /* mean 6, variance 1: divided by sqrt 4 */
    expect_values(ag_norm_forward(&layer, x), (double[]){ 10 - 2 * 0.5, 20 + 5 * 0.5 });
    /* mean of squares 1: divided by sqrt 25 */
    x = ag_constant(ctx, AG_SHAPE(2), (double[]){ 1, -1 });
    expect_values(ag_norm_forward(&rms, x), (double[]){ 2 / 5.0, -5 / 5.0 });
    ag_context_free(ctx);
}

Test(norm, init_is_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    const ag_norm_options good = { .d = 2 };
    ag_norm norm;
    static const struct {
        ag_norm_options options;
        const char *words;
    } cases[] = {
        { { .d = 0 }, "norm_init: n: d is 0" },
        { { .d = -3 }, "d is -3" },
        { { .d = 2, .kind = (ag_norm_kind)2 }, "there is no norm 2" },
        { { .d = 2, .epsilon = -1e-5 }, "epsilon is -1e-05" },
        { { .d = 2, .epsilon = NAN }, "epsilon is" },
        { { .d = 2, .epsilon = INFINITY }, "epsilon is inf" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_not(ag_norm_init(&norm, params, "n", &cases[i].options));
        expect_error(ctx, AG_ERR_ARGUMENT, cases[i].words);
    }
    cr_expect_not(ag_norm_init(NULL, params, "n", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_init: layer is NULL");
    cr_expect_not(ag_norm_init(&norm, params, NULL, &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_init: name is NULL");
    cr_expect_not(ag_norm_init(&norm, params, "n", NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_init: options is NULL");
    cr_expect_not(ag_norm_init(&norm, NULL, "n", &good));
    cr_expect_eq(ag_params_count(params), 0);
    ag_params_add(params, "n", "bias", AG_SHAPE(1), (ag_init){ .kind = AG_INIT_ZEROS });
    cr_expect_not(ag_norm_init(&norm, params, "n", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "n.bias");
    cr_expect_eq(ag_params_count(params), 1, "the gain was taken back");
    ag_norm_forward(&norm, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_forward: the layer was not initialised");
    ag_context_free(ctx);
}

Test(norm, forward_is_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_norm norm = new_norm(ag_params_new(ctx), "n", (ag_norm_options){ .d = 2 });
    ag_norm_forward(&norm, ag_set_name(ag_zeros(ctx, AG_SHAPE(4, 3)), "x"));
    expect_error(ctx, AG_ERR_SHAPE,
                 "norm_forward: the last axis of x [4,3] does not fit n.gain [2]");
    ag_norm_forward(&norm, ag_scalar(ctx, 1));
    expect_error(ctx, AG_ERR_SHAPE, "norm_forward");
    ag_norm_forward(&norm, ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 1, 2 }));
    expect_error(ctx, AG_ERR_DTYPE, "is i64, n.gain [2] is f32");
    ag_norm_forward(&norm, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_forward");
    ag_norm_forward(&norm, ag_zeros(other, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "norm_forward");
    ag_norm_forward(NULL, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "not initialised");
    ag_norm_forward(NULL, AG_NONE);
    ag_var x = ag_zeros(ctx, AG_SHAPE(2));
    ag_tape_reset(ctx);
    ag_norm_forward(&norm, x);
    expect_error(ctx, AG_ERR_STATE, "norm_forward");
    ag_context_free(ctx);
    ag_context_free(other);
}
