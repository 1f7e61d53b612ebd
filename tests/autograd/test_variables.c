/* Variables: making them, looking into them, changing them, and what becomes of
 * their gradients and their handles. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

static void expect_values(ag_var v, int n, const double *values)
{
    cr_assert_not_null(ag_value(v));
    cr_assert_eq(ag_tensor_count(ag_value(v)), n);
    for (int i = 0; i < n; i++)
        cr_expect_eq(ag_tensor_at(ag_value(v), i), values[i], "entry %d", i);
}

static void expect_gradient(ag_var v, int n, const double *values)
{
    cr_assert_not_null(ag_gradient(v), "a gradient is absent");
    cr_assert_eq(ag_tensor_count(ag_gradient(v)), n);
    for (int i = 0; i < n; i++)
        cr_expect_eq(ag_tensor_at(ag_gradient(v), i), values[i], "entry %d: %g", i,
                     ag_tensor_at(ag_gradient(v), i));
}

static void expect_error(ag_context *ctx, ag_error error, const char *words)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s", ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    cr_expect(strstr(ag_error_message(ctx), words), "'%s' is not in: %s", words,
              ag_error_message(ctx));
    ag_error_clear(ctx);
}

/* x as a leaf that asks for its gradient. */
static ag_var leaf(ag_context *ctx, int64_t n, const double *values)
{
    return ag_require_gradient(ag_constant(ctx, AG_SHAPE(n), values));
}

/* ---- Making ---- */

Test(variables, creation)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(1, "x", 0), same = random;
    expect_values(ag_zeros(ctx, AG_SHAPE(2, 2)), 4, (double[]){ 0, 0, 0, 0 });
    expect_values(ag_full(ctx, AG_SHAPE(3), 1.5), 3, (double[]){ 1.5, 1.5, 1.5 });
    expect_values(ag_scalar(ctx, -2), 1, (double[]){ -2 });
    expect_values(ag_arange(ctx, 4), 4, (double[]){ 0, 1, 2, 3 });
    expect_values(ag_arange(ctx, 0), 0, NULL);
    expect_values(ag_constant(ctx, AG_SHAPE(1, 2), (double[]){ 3, 4 }), 2, (double[]){ 3, 4 });
    expect_values(ag_constant(ctx, AG_SHAPE(0, 2), NULL), 0, NULL);
    expect_values(ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 7, -7 }), 2, (double[]){ 7, -7 });
    cr_expect_eq(ag_shape_of(ag_scalar(ctx, 1)).rank, 0);
    cr_expect_eq(ag_dtype_of(ag_arange(ctx, 2)), AG_I64);
    cr_expect_eq(ag_dtype_of(ag_zeros(ctx, AG_SCALAR)), AG_F64);
    ag_var u = ag_uniform(ctx, &random, AG_SHAPE(100), 2, 3),
           n = ag_normal(ctx, &random, AG_SHAPE(3));
    for (int64_t i = 0; i < 100; i++)
        cr_expect(ag_tensor_at(ag_value(u), i) >= 2 && ag_tensor_at(ag_value(u), i) < 3);
    ag_var v = ag_uniform(ctx, &same, AG_SHAPE(100), 2, 3), m = ag_normal(ctx, &same, AG_SHAPE(3));
    cr_expect_eq(memcmp(ag_value(u)->data, ag_value(v)->data, 100 * sizeof(double)), 0);
    cr_expect_eq(memcmp(ag_value(n)->data, ag_value(m)->data, 3 * sizeof(double)), 0);
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    cr_expect_not(ag_requires_gradient(u));
    ag_context_free(ctx);
}

Test(variables, from_tensor_copies_and_keeps_the_dtype)
{
    ag_context *ctx = ag_context_new(NULL);
    double numbers[] = { 1, 2, 3, 4, 5, 6 };
    ag_tensor x = { numbers, AG_F64, 2, { 3, 2 }, { 1, 3 } }; /* a transposed view */
    ag_var v = ag_from_tensor(ctx, &x);
    numbers[0] = 100;
    expect_values(v, 6, (double[]){ 1, 4, 2, 5, 3, 6 });
    cr_expect_eq(ag_dtype_of(v), AG_F64, "in a context of f32");
    cr_expect(ag_tensor_is_contiguous(ag_value(v)));
    ag_context_free(ctx);
}

Test(variables, parameters_stay)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var p = ag_parameter(ctx, "p", AG_DEFAULT_DTYPE, AG_SHAPE(2));
    ag_var q = ag_parameter(ctx, NULL, AG_F64, AG_SCALAR);
    expect_values(p, 2, (double[]){ 0, 0 });
    cr_expect(ag_dtype_of(p) == AG_F32 && ag_dtype_of(q) == AG_F64);
    cr_expect(ag_requires_gradient(p) && ag_requires_gradient(q));
    ag_assign(p, (double[]){ 5, 6 });
    ag_backward(ag_sum(p, AG_ALL, 0));
    ag_tape_reset(ctx);
    expect_values(p, 2, (double[]){ 5, 6 });
    expect_gradient(p, 2, (double[]){ 1, 1 });
    cr_expect_str_eq(ag_name(p), "p");
    cr_expect_str_eq(ag_name(q), "");
    cr_expect_eq(ag_tape_length(ctx), 0);
    ag_context_free(ctx);
}

/* ---- Looking ---- */

Test(variables, names_and_descriptions)
{
    char text[64], tiny[6], name[] = "x";
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(2, 3)), name);
    name[0] = 'y';
    cr_expect_str_eq(ag_name(x), "x", "the text is copied");
    cr_expect_str_eq(ag_describe(x, text, sizeof text), "x [2,3]");
    cr_expect_str_eq(ag_describe(ag_scalar(ctx, 1), text, sizeof text), "input#1 []");
    cr_expect_str_eq(ag_describe(ag_neg(x), text, sizeof text), "neg#2 [2,3]");
    ag_var p = ag_parameter(ctx, NULL, AG_F32, AG_SHAPE(4));
    cr_expect_str_eq(ag_describe(p, text, sizeof text), "parameter#0 [4]");
    cr_expect_str_eq(ag_describe(ag_set_name(p, "layer.w"), text, sizeof text), "layer.w [4]");
    cr_expect_str_eq(ag_describe(x, tiny, sizeof tiny), "x [2,");
    cr_expect_eq(ag_describe(x, tiny, 0), tiny);
    cr_expect_str_eq(ag_name(ag_set_name(x, NULL)), "");
    cr_expect_str_eq(ag_op_name(x), "");
    cr_expect_str_eq(ag_op_name(ag_neg(x)), "neg");
    cr_expect(strlen(ag_describe(AG_NONE, text, sizeof text)) > 0);
    cr_expect_str_eq(ag_name(AG_NONE), "");
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(variables, item)
{
    ag_context *ctx = ag_context_new(NULL);
    cr_expect_eq(ag_item(ag_scalar(ctx, 2.5)), 2.5);
    cr_expect_eq(ag_item(ag_full(ctx, AG_SHAPE(1, 1), 4)), 4);
    cr_expect_eq(ag_item(ag_arange(ctx, 1)), 0);
    cr_expect(isnan(ag_item(ag_zeros(ctx, AG_SHAPE(2)))));
    expect_error(ctx, AG_ERR_SHAPE, "item: ");
    cr_expect(isnan(ag_item(ag_zeros(ctx, AG_SHAPE(0)))));
    expect_error(ctx, AG_ERR_SHAPE, "[0]");
    ag_context_free(ctx);
}

/* ---- Changing ---- */

Test(variables, assign)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_zeros(ctx, AG_SHAPE(2)), i = ag_arange(ctx, 2);
    cr_expect(ag_assign(x, (double[]){ 1, 2 }));
    expect_values(x, 2, (double[]){ 1, 2 });
    cr_expect(ag_assign(i, (double[]){ 9, -3 }));
    expect_values(i, 2, (double[]){ 9, -3 });
    cr_expect(ag_assign(ag_zeros(ctx, AG_SHAPE(0)), NULL));
    cr_expect_not(ag_assign(ag_neg(x), (double[]){ 1, 2 }));
    expect_error(ctx, AG_ERR_STATE, "neg#");
    cr_expect_null(ag_value_mutable(ag_neg(x)));
    expect_error(ctx, AG_ERR_STATE, "value_mutable: ");
    ag_context_free(ctx);
}

/* Backward through what was computed from a value that is no longer there. */
static void expect_refused(ag_context *ctx, ag_var loss, ag_var kept, const char *name)
{
    cr_expect_not(ag_backward(loss));
    expect_error(ctx, AG_ERR_STATE, name);
    cr_expect_null(ag_gradient(kept), "nothing is accumulated");
    ag_var g;
    cr_expect_not(ag_grad(loss, &kept, 1, &g, 0));
    cr_expect_not(ag_is_valid(g));
    expect_error(ctx, AG_ERR_STATE, "was changed");
}

Test(variables, a_change_between_forward_and_backward_is_refused)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var w = ag_parameter(ctx, "w", AG_F32, AG_SHAPE(2));
    ag_var p = ag_parameter(ctx, "p", AG_F32, AG_SHAPE(2));
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(2)), "x");
    ag_var loss = ag_sum(ag_mul(ag_mul(p, w), x), AG_ALL, 0);
    ag_assign(w, (double[]){ 1, 2 });
    expect_refused(ctx, loss, p, "w [2]");
    loss = ag_sum(ag_mul(ag_mul(p, w), x), AG_ALL, 0);
    ag_value_mutable(x); /* a leaf without a gradient counts too */
    expect_refused(ctx, loss, p, "x [2]");
    loss = ag_sum(ag_mul(ag_mul(p, w), x), AG_ALL, 0);
    ag_var parts[] = { p, p, w, x }; /* more inputs than a node has room for */
    ag_var joined = ag_sum(ag_concat(parts, 4, 0), AG_ALL, 0);
    cr_expect(ag_backward(loss), "%s", ag_error_message(ctx));
    ag_clear_gradient(p);
    ag_clear_gradient(w);
    ag_assign(x, (double[]){ 1, 1 });
    expect_refused(ctx, joined, p, "x [2]");
    ag_context_free(ctx);
}

/* A view has no value of its own: what changes its source changes it. */
Test(variables, a_change_behind_a_view_is_refused)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var p = ag_parameter(ctx, "p", AG_F32, AG_SHAPE(2));
    ag_var x = ag_set_name(ag_full(ctx, AG_SHAPE(2), 3), "x");
    ag_var loss = ag_sum(ag_mul(p, ag_flip(x, 0)), AG_ALL, 0);
    ag_assign(x, (double[]){ 1, 2 });
    expect_refused(ctx, loss, p, "flip#");

    loss = ag_sum(ag_mul(p, ag_slice(ag_flip(ag_detach(x), 0), 0, 0, 2, 1)), AG_ALL, 0);
    ag_assign(x, (double[]){ 3, 4 });
    expect_refused(ctx, loss, p, "slice#");

    ag_var shared = ag_detach(x);
    loss = ag_sum(ag_mul(p, x), AG_ALL, 0);
    ag_assign(shared, (double[]){ 5, 6 });
    expect_refused(ctx, loss, p, "x [2]");

    loss = ag_sum(ag_mul(p, ag_contiguous(ag_broadcast_to(x, AG_SHAPE(2, 2)))), AG_ALL, 0);
    ag_assign(x, (double[]){ 7, 8 }); /* the copy still has the old one */
    cr_expect(ag_backward(loss), "%s", ag_error_message(ctx));
    expect_gradient(p, 2, (double[]){ 10, 12 });
    ag_context_free(ctx);
}

Test(variables, detach)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = leaf(ctx, 2, (double[]){ 2, 3 });
    ag_var y = ag_square(x), d = ag_detach(y);
    cr_expect_eq(ag_value(d)->data, ag_value(y)->data, "it copies nothing");
    cr_expect_not(ag_requires_gradient(d));
    cr_expect_str_eq(ag_op_name(d), "");
    ag_backward(ag_dot(d, x));
    expect_gradient(x, 2, (double[]){ 4, 9 }); /* not 3 x^2 */
    ag_context_free(ctx);
}

Test(variables, only_leaves_may_ask)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(2)), "x");
    cr_expect_not(ag_is_valid(ag_require_gradient(ag_neg(x))));
    expect_error(ctx, AG_ERR_STATE, "require_gradient: neg#1 [2]");
    cr_expect_not(ag_is_valid(ag_require_gradient(ag_arange(ctx, 3))));
    expect_error(ctx, AG_ERR_DTYPE, "i64");
    cr_expect_eq(ag_require_gradient(x).index, x.index);
    cr_expect(ag_requires_gradient(x) && ag_requires_gradient(ag_neg(x)));
    cr_expect_not(ag_requires_gradient(ag_sign(x)), "it has no rule");
    cr_expect_not(ag_requires_gradient(ag_cast(x, AG_I64)));
    ag_context_free(ctx);
}

/* ---- No-grad regions ---- */

Test(variables, no_grad_regions_nest)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = leaf(ctx, 1, (double[]){ 2 });
    ag_no_grad_begin(ctx);
    ag_no_grad_begin(ctx);
    cr_expect_not(ag_requires_gradient(ag_square(x)));
    ag_no_grad_end(ctx);
    ag_var inside = ag_square(x);
    cr_expect_not(ag_requires_gradient(inside));
    ag_no_grad_end(ctx);
    cr_expect(ag_requires_gradient(ag_square(x)));
    cr_expect_not(ag_backward(inside));
    expect_error(ctx, AG_ERR_STATE, "depends on nothing that asks for a gradient");
    ag_no_grad_end(ctx);
    expect_error(ctx, AG_ERR_STATE, "no_grad_end");
    ag_backward(ag_mul(inside, x));
    expect_gradient(x, 1, (double[]){ 4 });
    ag_context_free(ctx);
}

Test(variables, no_grad_regions_stay_balanced_under_errors)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_no_grad_end(ctx);
    expect_error(ctx, AG_ERR_STATE, "no_grad_end");
    ag_fail(ctx, AG_ERR_STATE, "an error that is pending");
    ag_no_grad_begin(ctx);
    ag_error_clear(ctx);
    cr_expect_not(ag_requires_gradient(ag_square(leaf(ctx, 1, (double[]){ 2 }))));
    ag_fail(ctx, AG_ERR_STATE, "another one");
    ag_no_grad_end(ctx);
    ag_error_clear(ctx);
    cr_expect(ag_requires_gradient(ag_square(leaf(ctx, 1, (double[]){ 2 }))));
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

/* ---- Gradients ---- */

Test(variables, an_absent_gradient_is_not_zero)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = leaf(ctx, 2, (double[]){ 2, 3 }), unused = leaf(ctx, 2, (double[]){ 2, 3 }), g;
    ag_var loss = ag_sum(ag_scale(x, 0), AG_ALL, 0);
    cr_expect_null(ag_gradient(x));
    ag_backward(loss);
    expect_gradient(x, 2, (double[]){ 0, 0 });
    cr_expect_null(ag_gradient(unused));
    cr_expect_null(ag_gradient(loss), "only leaves keep theirs");
    ag_grad(loss, &unused, 1, &g, 0);
    expect_values(g, 2, (double[]){ 0, 0 });
    ag_clear_gradient(x);
    cr_expect_null(ag_gradient(x));
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(variables, gradients_accumulate_until_they_are_cleared)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var p = ag_parameter(ctx, "p", AG_F32, AG_SHAPE(2)), x = leaf(ctx, 2, (double[]){ 2, 3 });
    ag_assign(p, (double[]){ 10, 20 });
    ag_var both = ag_mul(p, x);
    ag_backward(ag_sum(both, AG_ALL, 0));
    ag_backward(ag_sum(ag_square(both), AG_ALL, 0)); /* a second loss over a shared part */
    expect_gradient(p, 2, (double[]){ 2 + 2 * 10 * 4, 3 + 2 * 20 * 9 });
    expect_gradient(x, 2, (double[]){ 10 + 2 * 2 * 100, 20 + 2 * 3 * 400 });
    ag_clear_gradient(p);
    ag_tape_reset(ctx);
    ag_backward(ag_sum(p, AG_ALL, 0));
    expect_gradient(p, 2, (double[]){ 1, 1 });
    ag_context_free(ctx);
}

Test(variables, retained_gradients_are_those_of_ag_grad)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = leaf(ctx, 3, (double[]){ 0.5, -1, 2 });
    ag_var h = ag_retain_gradient(ag_tanh(x)), y = ag_retain_gradient(ag_mul(h, x)), g[2];
    ag_var loss = ag_retain_gradient(ag_sum(ag_mul(y, h), AG_ALL, 0));
    ag_grad(loss, (ag_var[]){ h, y }, 2, g, 0);
    cr_expect_null(ag_gradient(h), "ag_grad leaves nothing behind");
    ag_backward(loss);
    for (int64_t i = 0; i < 3; i++) {
        cr_expect_eq(ag_tensor_at(ag_gradient(h), i), ag_tensor_at(ag_value(g[0]), i));
        cr_expect_eq(ag_tensor_at(ag_gradient(y), i), ag_tensor_at(ag_value(g[1]), i));
    }
    expect_gradient(loss, 1, (double[]){ 1 });
    ag_backward(ag_sum(y, AG_ALL, 0)); /* accumulates here too */
    cr_expect_eq(ag_tensor_at(ag_gradient(y), 1), ag_tensor_at(ag_value(g[1]), 1) + 1);
    ag_context_free(ctx);
}

/* ---- Handles ---- */

Test(variables, stale_handles_are_recognised)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var old[10];
    for (int step = 0; step < 10; step++) {
        old[step] = ag_neg(ag_scalar(ctx, step));
        for (int i = 0; i <= step; i++) /* all have the index of the newest one */
            cr_expect_eq(ag_is_valid(old[i]), i == step);
        for (int i = 0; i < step; i++) {
            cr_expect_eq(old[i].index, old[step].index);
            cr_expect_null(ag_value(old[i]));
            expect_error(ctx, AG_ERR_STATE, "value: a variable belongs to a step that was reset");
            cr_expect_not(ag_is_valid(ag_add(old[step], old[i])));
            expect_error(ctx, AG_ERR_STATE, "add: ");
            cr_expect(isnan(ag_item(old[i])));
            ag_error_clear(ctx);
        }
        cr_expect_eq(ag_item(old[step]), -step, "errors leave the others as they are");
        ag_tape_reset(ctx);
    }
    cr_expect_not(ag_is_valid(old[9]), "before there is a new one");
    ag_context_free(ctx);
}

Test(variables, results_of_a_failed_call_leave_no_handle)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_zeros(ctx, AG_SHAPE(2)), y = ag_zeros(ctx, AG_SHAPE(3));
    int64_t length = ag_tape_length(ctx);
    ag_var bad = ag_add(x, y);
    ag_error_clear(ctx);
    cr_expect_eq(ag_tape_length(ctx), length);
    ag_var good = ag_neg(x);
    cr_expect(ag_is_valid(good) && !ag_is_valid(bad) && !ag_is_none(bad));
    ag_context_free(ctx);
}

/* ---- Two contexts on two threads ---- */

typedef struct worker {
    uint64_t seed;
    double w[4];
} worker;

static void *train(void *argument)
{
    worker *me = argument;
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = me->seed });
    ag_var w = ag_parameter(ctx, "w", AG_F32, AG_SHAPE(2, 2));
    ag_random random = ag_random_stream(me->seed, "x", 0);
    for (int step = 0; step < 200; step++) {
        ag_var x = ag_normal(ctx, &random, AG_SHAPE(8, 2));
        ag_backward(ag_mean_squared_error(ag_matmul(x, w), ag_flip(x, 1)));
        ag_tensor *value = ag_value_mutable(w);
        for (int64_t i = 0; value && i < 4; i++)
            ag_tensor_put(value, i, ag_tensor_at(value, i) - 0.1 * ag_tensor_at(ag_gradient(w), i));
        ag_clear_gradient(w);
        ag_tape_reset(ctx);
    }
    for (int64_t i = 0; i < 4 && ag_status(ctx) == AG_OK; i++)
        me->w[i] = ag_tensor_at(ag_value(w), i);
    ag_context_free(ctx);
    return NULL;
}

Test(variables, two_contexts_at_once)
{
    worker alone[2] = { { .seed = 1 }, { .seed = 2 } },
           together[2] = { { .seed = 1 }, { .seed = 2 } };
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        train(&alone[i]);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, train, &together[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(memcmp(alone, together, sizeof alone), 0, "each context is a world of its own");
    cr_expect_float_eq(alone[0].w[1], 1, 1e-2, "it learned to swap");
}
