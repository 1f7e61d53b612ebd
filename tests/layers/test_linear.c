/* The linear layer y = x W + b. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>

static void expect_error(ag_context *ctx, ag_error error, const char *where)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", where, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    ag_error_clear(ctx);
}

/* W = [[1, 2, 3], [4, 5, 6]], b = [10, 20, 30] */
static ag_linear known_layer(ag_context *ctx, ag_params *params, bool bias)
{
    ag_linear linear;
    ag_linear_init(&linear, params, "lin",
                   &(ag_linear_options){ .d_in = 2, .d_out = 3, .bias = bias });
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_assign(linear.w, (double[]){ 1, 2, 3, 4, 5, 6 });
    if (bias)
        ag_assign(linear.b, (double[]){ 10, 20, 30 });
    return linear;
}

static void expect_values(ag_var y, ag_shape shape, const double *values)
{
    cr_assert(ag_is_valid(y));
    cr_assert(ag_shape_equal(ag_shape_of(y), shape));
    for (int64_t i = 0; i < ag_shape_count(shape); i++)
        cr_expect_eq(ag_tensor_at(ag_value(y), i), values[i], "at %d", (int)i);
}

Test(linear, by_hand_for_any_leading_axes)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_linear linear = known_layer(ctx, params, true);
    const double x[] = { 1, 1, 0, 2, -1, 0, 3, 1 };
    const double y[] = { 15, 27, 39, 18, 30, 42, 9, 18, 27, 17, 31, 45 };
    expect_values(ag_linear_forward(&linear, ag_constant(ctx, AG_SHAPE(2), x)), AG_SHAPE(3), y);
    expect_values(ag_linear_forward(&linear, ag_constant(ctx, AG_SHAPE(4, 2), x)), AG_SHAPE(4, 3),
                  y);
    expect_values(ag_linear_forward(&linear, ag_constant(ctx, AG_SHAPE(2, 1, 2, 2), x)),
                  AG_SHAPE(2, 1, 2, 3), y);
    expect_values(ag_linear_forward(&linear, ag_zeros(ctx, AG_SHAPE(5, 0, 2))), AG_SHAPE(5, 0, 3),
                  y);
    ag_var columns = ag_constant(ctx, AG_SHAPE(2, 2), (double[]){ 1, 0, 1, 2 });
    expect_values(ag_linear_forward(&linear, ag_transpose(columns, 0, 1)), AG_SHAPE(2, 3), y);
    ag_context_free(ctx);
}

Test(linear, has_a_bias_only_when_asked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_linear linear = known_layer(ctx, params, false);
    cr_expect_eq(ag_params_count(params), 1);
    cr_expect(ag_is_none(linear.b));
    expect_values(ag_linear_forward(&linear, ag_constant(ctx, AG_SHAPE(2), (double[]){ 1, 1 })),
                  AG_SHAPE(3), (double[]){ 5, 7, 9 });
    ag_linear with;
    cr_expect(ag_linear_init(&with, params, "with",
                             &(ag_linear_options){ .d_in = 2, .d_out = 3, .bias = true }));
    cr_expect_eq(ag_params_count(params), 3);
    cr_expect_str_eq(ag_name(with.w), "with.w");
    cr_expect_str_eq(ag_name(with.b), "with.b");
    cr_expect_eq(ag_tensor_at(ag_value(with.b), 2), 0, "a bias starts at 0");
    ag_context_free(ctx);
}

Test(linear, a_failed_init_leaves_no_parameter)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    const ag_linear_options good = { .d_in = 2, .d_out = 3, .bias = true };
    ag_linear linear;
    cr_expect_not(ag_linear_init(&linear, params, "l", &(ag_linear_options){ .d_out = 3 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "no d_in");
    cr_expect_not(ag_linear_init(&linear, params, "l", &(ag_linear_options){ .d_in = 3 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "no d_out");
    cr_expect_not(ag_linear_init(&linear, params, NULL, &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "no name");
    cr_expect_not(ag_linear_init(&linear, params, "l", NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "no options");
    cr_expect_not(ag_linear_init(NULL, params, "l", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "no layer");
    cr_expect_not(ag_linear_init(&linear, NULL, "l", &good));
    cr_expect_eq(ag_params_count(params), 0);

    ag_params_add(params, "l", "b", AG_SHAPE(1), (ag_init){ .kind = AG_INIT_ZEROS });
    cr_expect_not(ag_linear_init(&linear, params, "l", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "the bias' name is taken");
    cr_expect_eq(ag_params_count(params), 1, "the weight was taken back");
    cr_expect(ag_is_none(ag_params_find(params, "l.w")));
    ag_linear_forward(&linear, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "forward of a layer that failed");
    ag_context_free(ctx);
}

Test(linear, forward_names_what_does_not_fit)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_linear linear = known_layer(ctx, params, true);
    cr_expect_not(ag_is_valid(ag_linear_forward(&linear, ag_zeros(ctx, AG_SHAPE(4, 3)))));
    cr_expect_not_null(strstr(ag_error_message(ctx), "lin.w [2,3]"), "%s", ag_error_message(ctx));
    cr_expect_not_null(strstr(ag_error_message(ctx), "[4,3]"), "%s", ag_error_message(ctx));
    expect_error(ctx, AG_ERR_SHAPE, "inner sizes");
    ag_linear_forward(&linear, ag_scalar(ctx, 1));
    expect_error(ctx, AG_ERR_SHAPE, "a scalar");
    ag_linear_forward(&linear, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "no x");
    ag_linear_forward(&linear, ag_zeros(other, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "x of another context");
    ag_linear_forward(&linear, ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 1, 2 }));
    expect_error(ctx, AG_ERR_DTYPE, "x of integers");
    ag_var x = ag_zeros(ctx, AG_SHAPE(2));
    ag_tape_reset(ctx);
    ag_linear_forward(&linear, x);
    expect_error(ctx, AG_ERR_STATE, "x of a past step");
    ag_linear_forward(NULL, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "no layer");
    ag_linear_forward(NULL, AG_NONE);
    ag_context_free(ctx);
    ag_context_free(other);
}

static ag_var run(ag_context *ctx, const ag_var *inputs, int n, void *linear)
{
    (void)ctx, (void)n;
    return ag_linear_forward(linear, inputs[0]);
}

Test(linear, gradients_of_x_w_and_b)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 5 });
    ag_params *params = ag_params_new(ctx);
    ag_linear linear;
    ag_linear_init(&linear, params, "lin",
                   &(ag_linear_options){ .d_in = 3, .d_out = 2, .bias = true });
    ag_random random = ag_random_stream(5, "x", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(2, 4, 3)));
    ag_var inputs[] = { x, linear.w, linear.b };
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, run, &linear, inputs, 3, NULL, &report), "worst %g at %s: %s",
              report.worst, report.name, report.message);
    cr_expect_eq(report.entries, 24 + 6 + 2);
    cr_expect(ag_gradcheck_second(ctx, run, &linear, inputs, 3, NULL, &report), "worst %g: %s",
              report.worst, report.message);
    ag_context_free(ctx);
}
