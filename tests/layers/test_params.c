/* The list of parameters, initialisers, and the norm of the gradients. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

static const ag_init ZEROS = { .kind = AG_INIT_ZEROS };
static const ag_init LECUN = { .kind = AG_INIT_LECUN_NORMAL };

static void expect_error(ag_context *ctx, ag_error error, const char *where)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", where, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    ag_error_clear(ctx);
}

Test(params, list_is_ordered_and_named)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    cr_assert_not_null(params);
    cr_expect_eq(ag_params_count(params), 0);
    ag_var w = ag_params_add(params, "block.0", "w", AG_SHAPE(3, 4), LECUN);
    ag_var b = ag_params_add(params, "", "b", AG_SHAPE(4), ZEROS);
    ag_var c = ag_params_add(params, NULL, "c", AG_SCALAR, ZEROS);
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    cr_expect_eq(ag_params_count(params), 3);
    cr_expect_eq(ag_params_size(params), 12 + 4 + 1);
    cr_expect_str_eq(ag_name(w), "block.0.w");
    cr_expect_str_eq(ag_name(b), "b");
    cr_expect_eq(ag_params_at(params, 0).index, w.index);
    cr_expect_eq(ag_params_at(params, 2).index, c.index);
    cr_expect_eq(ag_params_find(params, "block.0.w").index, w.index);
    cr_expect(ag_is_none(ag_params_find(params, "block.0")));
    cr_expect(ag_is_none(ag_params_find(params, NULL)));
    cr_expect(ag_requires_gradient(w));
    cr_expect_eq(ag_dtype_of(w), AG_F32);
    ag_tape_reset(ctx);
    cr_expect(ag_is_valid(w), "a parameter outlives the step");
    ag_context_free(ctx);
}

Test(params, the_list_grows)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "p%d", i);
        ag_params_add(params, NULL, name, AG_SHAPE(1),
                      (ag_init){ .kind = AG_INIT_CONSTANT, .value = i });
    }
    cr_assert_eq(ag_params_count(params), 100, "%s", ag_error_message(ctx));
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "p%d", i);
        cr_expect_eq(ag_item(ag_params_find(params, name)), i);
        cr_expect_str_eq(ag_name(ag_params_at(params, i)), name);
    }
    ag_context_free(ctx);
}

Test(params, what_is_refused_leaves_the_list_alone)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_params_add(params, "a", "w", AG_SHAPE(2), ZEROS);

    cr_expect_not(ag_is_valid(ag_params_add(params, "a", "w", AG_SHAPE(2), ZEROS)));
    cr_expect_not_null(strstr(ag_error_message(ctx), "a.w"));
    expect_error(ctx, AG_ERR_ARGUMENT, "a name twice");
    ag_params_add(params, "a", NULL, AG_SHAPE(2), ZEROS);
    expect_error(ctx, AG_ERR_ARGUMENT, "no name");
    ag_params_add(params, "a", "", AG_SHAPE(2), ZEROS);
    expect_error(ctx, AG_ERR_ARGUMENT, "an empty name");
    ag_params_add(params, "a", "x", AG_SHAPE(2), (ag_init){ .kind = (ag_init_kind)99 });
    expect_error(ctx, AG_ERR_ARGUMENT, "an unknown initialiser");
    ag_params_add(params, "a", "x", AG_SHAPE(2), (ag_init){ .kind = (ag_init_kind)-1 });
    expect_error(ctx, AG_ERR_ARGUMENT, "an unknown initialiser below 0");
    ag_params_add(params, "a", "x", AG_SHAPE(2), (ag_init){ AG_INIT_CONSTANT, NAN });
    expect_error(ctx, AG_ERR_ARGUMENT, "a constant that is no number");
    ag_params_add(params, "a", "x", AG_SHAPE(2), (ag_init){ AG_INIT_NORMAL, -1 });
    expect_error(ctx, AG_ERR_ARGUMENT, "a negative deviation");
    ag_params_add(params, "a", "x", AG_SHAPE(2, -1), ZEROS);
    expect_error(ctx, AG_ERR_SHAPE, "a negative size");
    ag_params_add(params, "a", "x", AG_SHAPE(INT64_MAX, 4), ZEROS);
    expect_error(ctx, AG_ERR_MEMORY, "a size that overflows");
    ag_params_at(params, 1);
    expect_error(ctx, AG_ERR_INDEX, "an index past the end");
    ag_params_at(params, -1);
    expect_error(ctx, AG_ERR_INDEX, "an index before the start");

    cr_expect_eq(ag_params_count(params), 1);
    cr_expect(ag_is_valid(ag_params_add(params, "a", "x", AG_SHAPE(2), ZEROS)));
    ag_context_free(ctx);
}

Test(params, nothing_happens_without_a_list_or_after_an_error)
{
    cr_expect_null(ag_params_new(NULL));
    cr_expect(ag_is_none(ag_params_add(NULL, "a", "w", AG_SHAPE(2), ZEROS)));
    cr_expect(ag_is_none(ag_params_at(NULL, 0)));
    cr_expect(ag_is_none(ag_params_find(NULL, "w")));
    cr_expect_eq(ag_params_count(NULL), 0);
    cr_expect_eq(ag_params_size(NULL), 0);
    cr_expect_eq(ag_params_gradient_norm(NULL), 0);
    cr_expect(isnan(ag_params_clip_gradients(NULL, 1)));
    ag_params_clear_gradients(NULL);

    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_fail(ctx, AG_ERR_STATE, "planted");
    cr_expect_not(ag_is_valid(ag_params_add(params, "a", "w", AG_SHAPE(2), ZEROS)));
    cr_expect_null(ag_params_new(ctx));
    cr_expect_eq(ag_params_count(params), 0);
    cr_expect_str_eq(ag_error_message(ctx), "planted");
    ag_context_free(ctx);
}

typedef struct moments {
    double mean, variance, largest;
} moments;

static moments moments_of(ag_var v)
{
    const ag_tensor *x = ag_value(v);
    double n = (double)ag_tensor_count(x), sum = 0, squares = 0, largest = 0;
    for (int64_t i = 0; i < ag_tensor_count(x); i++) {
        double a = ag_tensor_at(x, i);
        sum += a;
        squares += a * a;
        largest = fmax(largest, fabs(a));
    }
    return (moments){ sum / n, squares / n - (sum / n) * (sum / n), largest };
}

Test(init, each_kind_has_its_variance_and_bound)
{
    const double in = 150, out = 250;
    const struct {
        const char *name;
        ag_init init;
        double variance, bound; /* bound 0: none */
    } cases[] = {
        { "zeros", { AG_INIT_ZEROS, 0 }, 0, 0 },
        { "lecun", { AG_INIT_LECUN_NORMAL, 0 }, 1 / in, 0 },
        { "normal", { AG_INIT_NORMAL, 0.3 }, 0.09, 0 },
        { "uniform", { AG_INIT_UNIFORM, 0.3 }, 0.03, 0.3 },
        { "xavier_normal", { AG_INIT_XAVIER_NORMAL, 0 }, 2 / (in + out), 0 },
        { "xavier_uniform", { AG_INIT_XAVIER_UNIFORM, 0 }, 2 / (in + out), sqrt(6 / (in + out)) },
        { "he_normal", { AG_INIT_HE_NORMAL, 0 }, 2 / in, 0 },
        { "he_uniform", { AG_INIT_HE_UNIFORM, 0 }, 2 / in, sqrt(6 / in) },
    };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 3 });
    ag_params *params = ag_params_new(ctx);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ag_var v = ag_params_add(params, NULL, cases[i].name, AG_SHAPE(2, 150, 250), cases[i].init);
        cr_assert(ag_is_valid(v), "%s", ag_error_message(ctx));
        moments m = moments_of(v);
        /* 75,000 numbers: five deviations of the mean, and of the variance */
        double spread = sqrt(cases[i].variance / 75000);
        cr_expect_leq(fabs(m.mean), 5 * spread, "%s: mean %g", cases[i].name, m.mean);
        cr_expect_leq(fabs(m.variance - cases[i].variance), 0.026 * cases[i].variance,
                      "%s: variance %g", cases[i].name, m.variance);
        if (cases[i].bound > 0) {
            cr_expect_leq(m.largest, cases[i].bound * (1 + 1e-6), "%s", cases[i].name);
            cr_expect_geq(m.largest, cases[i].bound * 0.99, "%s", cases[i].name);
        }
    }
    ag_var c = ag_params_add(params, NULL, "c", AG_SHAPE(5), (ag_init){ AG_INIT_CONSTANT, 2.5 });
    cr_expect_eq(ag_tensor_at(ag_value(c), 4), 2.5);
    ag_var vector = ag_params_add(params, NULL, "vector", AG_SHAPE(10000), LECUN);
    cr_expect_leq(fabs(moments_of(vector).variance - 1e-4), 1e-5, "a vector's fan is its size");
    cr_expect(ag_is_valid(ag_params_add(params, NULL, "empty", AG_SHAPE(0, 3), LECUN)));
    cr_expect(ag_is_valid(ag_params_add(params, NULL, "number", AG_SCALAR, LECUN)));
    ag_context_free(ctx);
}

/* The first number of parameter name, made after others. */
static double first_number(uint64_t seed, const char *name, int others)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = seed });
    ag_params *params = ag_params_new(ctx);
    for (int i = 0; i < others; i++) {
        char other[16];
        snprintf(other, sizeof other, "other%d", i);
        ag_params_add(params, NULL, other, AG_SHAPE(7, 3), LECUN);
    }
    double number =
        ag_tensor_at(ag_value(ag_params_add(params, "l", name, AG_SHAPE(4, 4), LECUN)), 0);
    ag_context_free(ctx);
    return number;
}

Test(init, depends_on_seed_and_name_not_on_order)
{
    double number = first_number(1, "w", 0);
    cr_expect_eq(first_number(1, "w", 3), number);
    cr_expect_neq(first_number(2, "w", 0), number);
    cr_expect_neq(first_number(1, "v", 0), number);
}

/* loss = 3 a_0 + 4 b, so the gradients are (3, 0) and 4; c has none. */
static ag_params *with_gradients(ag_context *ctx)
{
    ag_params *params = ag_params_new(ctx);
    ag_var a = ag_params_add(params, NULL, "a", AG_SHAPE(2), LECUN);
    ag_var b = ag_params_add(params, NULL, "b", AG_SCALAR, LECUN);
    ag_params_add(params, NULL, "c", AG_SHAPE(3), LECUN);
    ag_var weights = ag_constant(ctx, AG_SHAPE(2), (double[]){ 3, 0 });
    ag_backward(ag_add(ag_dot(a, weights), ag_scale(b, 4)));
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    return params;
}

static double gradient_at(ag_params *params, const char *name, int64_t k)
{
    return ag_tensor_at(ag_gradient(ag_params_find(params, name)), k);
}

Test(gradient_norm, counts_absent_gradients_as_zero)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = with_gradients(ctx);
    cr_expect_eq(ag_params_gradient_norm(params), 5);
    ag_params_clear_gradients(params);
    cr_expect_eq(ag_params_gradient_norm(params), 0);
    cr_expect_null(ag_gradient(ag_params_find(params, "a")), "cleared is absent");
    ag_context_free(ctx);
}

Test(gradient_norm, clipping_scales_only_what_is_too_long)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_params *params = with_gradients(ctx);
    cr_expect_eq(ag_params_clip_gradients(params, 10), 5);
    cr_expect_eq(gradient_at(params, "a", 0), 3, "short gradients are not made longer");
    cr_expect_eq(ag_params_clip_gradients(params, 5), 5);
    cr_expect_eq(gradient_at(params, "a", 0), 3, "exactly at the limit nothing changes");
    cr_expect_eq(ag_params_clip_gradients(params, 2.5), 5);
    cr_expect_eq(gradient_at(params, "a", 0), 1.5);
    cr_expect_eq(gradient_at(params, "a", 1), 0);
    cr_expect_eq(gradient_at(params, "b", 0), 2);
    cr_expect_null(ag_gradient(ag_params_find(params, "c")));
    ag_context_free(ctx);
}

Test(gradient_norm, clipping_refuses_what_it_cannot_do)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = with_gradients(ctx);
    ag_params_clip_gradients(params, 0);
    expect_error(ctx, AG_ERR_ARGUMENT, "a limit of 0");
    ag_params_clip_gradients(params, NAN);
    expect_error(ctx, AG_ERR_ARGUMENT, "a limit that is no number");
    cr_expect_eq(gradient_at(params, "a", 0), 3);

    ag_var a = ag_params_find(params, "a");
    ag_backward(ag_dot(a, ag_full(ctx, AG_SHAPE(2), INFINITY)));
    ag_params_clip_gradients(params, 1);
    expect_error(ctx, AG_ERR_ARGUMENT, "an infinite norm");
    cr_expect_eq(gradient_at(params, "b", 0), 4, "nothing is changed");
    ag_context_free(ctx);
}
