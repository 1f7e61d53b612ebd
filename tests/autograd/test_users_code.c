/* Functions of the user's that misbehave: forwards, rules, callbacks and checked
 * functions that reset, rename, unbalance, reach out of bounds or write where
 * they should not. Each is an error or has no effect; nothing lies or crashes. */
#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *f64(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var leaf(ag_context *ctx)
{
    return ag_require_gradient(ag_constant(ctx, AG_SHAPE(3), (double[]){ 1, 2, 3 }));
}

static void same(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void pass(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

/* ---- forward ---- */

static void resetting(ag_node *node)
{
    ag_tape_reset(ag_node_context(node));
    same(node);
}

static void unbalancing(ag_node *node)
{
    ag_no_grad_begin(ag_node_context(node));
    same(node);
}

static ag_tensor foreign;

static void reaching_out(ag_node *node)
{
    ag_node_set_view(node, &foreign);
}

static void expect_forward_error(void (*forward)(ag_node *), ag_error error, const char *words)
{
    const ag_op op = { .name = "mine", .forward = forward, .vjp = pass };
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    cr_expect(!ag_is_valid(ag_apply(&op, &x, 1, NULL)));
    cr_expect(ag_status(ctx) == error && strstr(ag_error_message(ctx), words), "%s",
              ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(ag_requires_gradient(ag_square(x)), "it is still recorded");
    cr_expect(ag_item(ag_sum(x, AG_ALL, 0)) == 6.0);
    ag_context_free(ctx);
}

Test(users_code, forward_that_resets)
{
    expect_forward_error(resetting, AG_ERR_STATE, "tape_reset: called from inside of");
}

Test(users_code, forward_that_unbalances_no_grad)
{
    expect_forward_error(unbalancing, AG_ERR_STATE, "mine: began or ended a no-grad region");
}

Test(users_code, view_that_reaches_out)
{
    static double others[4];
    const char *words = "the view";
    foreign = (ag_tensor){ others, AG_F64, 1, { 3 }, { 1 } };
    expect_forward_error(reaching_out, AG_ERR_ARGUMENT, words);
    foreign.rank = 20;
    expect_forward_error(reaching_out, AG_ERR_ARGUMENT, words);

    ag_context *ctx = f64(); /* of an input, but too long */
    ag_var x = leaf(ctx);
    const ag_op op = { .name = "mine", .forward = reaching_out };
    foreign = *ag_value(x);
    foreign.dims[0] = 1000000;
    cr_expect(!ag_is_valid(ag_apply(&op, &x, 1, NULL)));
    cr_expect(strstr(ag_error_message(ctx), "reaches beyond"), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    foreign.dims[0] = 2;
    cr_expect(ag_is_valid(ag_apply(&op, &x, 1, NULL)));
    ag_context_free(ctx);
}

Test(users_code, the_librarys_operations_are_called_by_their_functions)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    for (int i = 0; i < ag_op_count(); i++) {
        cr_expect(!ag_is_valid(ag_apply(ag_op_at(i), &x, 1, &foreign)));
        cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT, "%s", ag_op_at(i)->name);
        ag_error_clear(ctx);
    }
    ag_context_free(ctx);
}

Test(users_code, number_of_inputs)
{
    const ag_op op = { .name = "mine", .forward = same, .n_inputs = 2 };
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    cr_expect(!ag_is_valid(ag_apply(&op, &x, 1, NULL)));
    cr_expect_str_eq(ag_error_message(ctx), "mine: takes 2 inputs, not 1");
    ag_context_free(ctx);
}

/* ---- Rules ---- */

static void ending_no_grad(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_no_grad_end(ag_node_context(node));
    dx[0] = dy;
}

static void calling_backward(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_backward(ag_sum(ag_square(ag_node_input(node, 0)), AG_ALL, 0));
    dx[0] = dy;
}

static void expect_rule_error(void (*rule)(const ag_node *, ag_var, ag_var *), const char *words)
{
    const ag_op op = { .name = "mine", .forward = same, .vjp = rule };
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    cr_expect(!ag_backward(ag_sum(ag_apply(&op, &x, 1, NULL), AG_ALL, 0)));
    cr_expect(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(ag_gradient(x) == NULL);
    cr_expect(ag_requires_gradient(ag_square(x)), "it is still recorded");
    ag_context_free(ctx);
}

Test(users_code, rules)
{
    expect_rule_error(ending_no_grad, "mine: began or ended a no-grad region");
    expect_rule_error(calling_backward, "backward: called from inside of");
}

/* An input that gets no gradient may ask for one all the same. */
Test(users_code, constant_inputs)
{
    const ag_op op = { .name = "mine", .forward = same, .vjp = pass, .constant_inputs = 1u << 1 };
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), y = leaf(ctx);
    cr_expect(ag_backward(ag_sum(ag_apply(&op, (ag_var[]){ x, y }, 2, NULL), AG_ALL, 0)), "%s",
              ag_error_message(ctx));
    cr_expect(ag_gradient(x) != NULL && ag_gradient(y) == NULL);
    cr_expect(!ag_requires_gradient(ag_apply(&op, (ag_var[]){ ag_detach(x), y }, 2, NULL)));
    ag_context_free(ctx);
}

/* ---- on_error ---- */

static void meddling(ag_error error, const char *message, void *user)
{
    (void)error, (void)message;
    ag_context **ctx = user;
    ag_error_clear(*ctx);
    ag_tape_reset(*ctx);
}

Test(users_code, callback_that_meddles)
{
    ag_context *ctx = NULL;
    ctx = ag_context_new(
        &(ag_context_options){ .dtype = AG_F64, .on_error = meddling, .on_error_user = &ctx });
    ag_var x = leaf(ctx);
    ag_var at = ag_indices(ctx, AG_SHAPE(1), (int64_t[]){ 9 });
    cr_expect(!ag_is_valid(ag_gather_rows(x, at)));
    cr_expect(ag_status(ctx) == AG_ERR_INDEX, "the error stays");
    ag_error_clear(ctx);
    cr_expect(ag_is_valid(x) && ag_item(ag_sum(x, AG_ALL, 0)) == 6.0, "and so does the step");
    ag_context_free(ctx);
}

/* ---- Functions under ag_gradcheck ---- */

static ag_var renaming(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    ag_set_name(x[0], "a name that would be gone");
    return ag_tanh(x[0]);
}

static ag_var walking(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    ag_var y = ag_tanh(x[0]);
    ag_backward(ag_sum(y, AG_ALL, 0));
    return y;
}

Test(users_code, checked_functions)
{
    ag_context *ctx = f64();
    ag_var x = ag_set_name(leaf(ctx), "x");
    cr_expect(ag_gradcheck(ctx, renaming, NULL, &x, 1, NULL, NULL));
    cr_expect_str_eq(ag_name(x), "x");
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck(ctx, walking, NULL, &x, 1, NULL, &report));
    cr_expect(strstr(report.message, "ag_grad may be"), "%s", report.message);
    ag_error_clear(ctx);
    cr_expect(ag_gradient(x) == NULL);
    ag_context_free(ctx);
}

/* What was recorded before a check can still be differentiated after it. */
static ag_var tanh_of(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_tanh(x[0]);
}

Test(users_code, check_in_the_middle_of_a_step)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), loss = ag_sum(ag_square(x), AG_ALL, 0);
    cr_expect(ag_gradcheck(ctx, tanh_of, NULL, &x, 1, NULL, NULL));
    cr_expect(ag_backward(loss), "%s", ag_error_message(ctx));
    cr_expect(ag_gradcheck(ctx, tanh_of, NULL, &x, 1, &(ag_gradcheck_options){ .seed = 7 }, NULL));
    cr_expect(!ag_gradcheck(ctx, tanh_of, NULL, &x, 1, &(ag_gradcheck_options){ .resolution = -1 },
                            NULL));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}

/* ---- Writing into shared memory ---- */

/* exp's rule reads its result, which a detached variable shares. */
Test(users_code, result_overwritten_through_detach)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), y = ag_exp(x), d = ag_detach(y);
    ag_assign(d, (double[]){ 0, 0, 0 });
    cr_expect(!ag_backward(ag_sum(y, AG_ALL, 0)));
    cr_expect(ag_status(ctx) == AG_ERR_STATE);
    cr_expect(strstr(ag_error_message(ctx), "was changed after"), "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(users_code, gradients_of_one_input_asked_for_twice)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), w = leaf(ctx), g[2];
    for (unsigned flags = 0; flags <= AG_CREATE_GRAPH; flags += AG_CREATE_GRAPH) {
        cr_assert(ag_grad(ag_sum(ag_square(x), AG_ALL, 0), (ag_var[]){ x, x }, 2, g, flags));
        cr_expect(g[0].index != g[1].index);
        ag_set_name(g[0], "first");
        cr_expect_str_eq(ag_name(g[1]), "");
    }
    cr_assert(ag_grad(ag_sum(ag_square(x), AG_ALL, 0), (ag_var[]){ x, x }, 2, g, 0));
    ag_var later = ag_sum(ag_mul(w, g[1]), AG_ALL, 0);
    ag_assign(g[0], (double[]){ 0, 0, 0 });
    cr_assert(ag_backward(later), "%s", ag_error_message(ctx));
    cr_expect(ag_tensor_at(ag_gradient(w), 2) == 6.0);
    cr_expect(!ag_grad(later, &w, 1, g, 64));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}

/* A backward that is refused leaves the step as it was. */
Test(users_code, refused_backward_leaves_nothing)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), loss = ag_sum(ag_exp(x), AG_ALL, 0);
    ag_value_mutable(x);
    int64_t length = ag_tape_length(ctx);
    size_t bytes = ag_context_memory(ctx).step;
    for (int i = 0; i < 5; i++) {
        cr_expect(!ag_backward(loss));
        ag_error_clear(ctx);
    }
    cr_expect(ag_tape_length(ctx) == length && ag_context_memory(ctx).step == bytes);
    ag_context_free(ctx);
}

/* ---- Far from the middle ---- */

/* The fused and the recorded rule agree where 1 - tanh^2 and 1 + erf cancel. */
Test(users_code, fused_and_recorded_agree_in_the_tails)
{
    ag_var (*const functions[])(ag_var) = { ag_tanh, ag_sigmoid, ag_gelu, ag_gelu_tanh, ag_silu };
    const double points[] = { -10, -8, -6, 6, 8, 10 };
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(6), points)), fused, recorded;
    for (int i = 0; i < 5; i++) {
        ag_var y = functions[i](x), ones = ag_full(ctx, AG_SHAPE(6), 1.0);
        cr_assert(ag_grad_from(y, ones, &x, 1, &fused, 0));
        cr_assert(ag_grad_from(y, ones, &x, 1, &recorded, AG_CREATE_GRAPH));
        for (int64_t k = 0; k < 6; k++) {
            double a = ag_tensor_at(ag_value(fused), k), b = ag_tensor_at(ag_value(recorded), k);
            cr_expect(fabs(a - b) <= 1e-12 * fabs(a), "%s at %g: %g and %g", ag_op_name(y),
                      points[k], a, b);
        }
    }
    ag_context_free(ctx);
}

/* Confident and right: the loss is small, not 0. */
Test(users_code, binary_cross_entropy_of_confident_logits)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_constant(ctx, AG_SHAPE(2), (double[]){ 17, -17 });
    ag_var t = ag_constant(ctx, AG_SHAPE(2), (double[]){ 1, 0 });
    double want = 2 * log1p(exp(-17.0)), got = ag_item(ag_binary_cross_entropy(x, t, AG_SUM));
    cr_expect(fabs(got - want) < 1e-6 * want, "%g, not %g", got, want);
    ag_context_free(ctx);
}

/* What an ignored row holds does not matter. */
Test(users_code, ignored_row_that_is_not_a_number)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2, 2), (double[]){ 1, 2, NAN, 3 }));
    ag_var labels = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 0, -1 }), g;
    const ag_cross_entropy_options options = { .ignore = true, .ignore_index = -1 };
    ag_var loss = ag_cross_entropy_with(x, labels, &options);
    cr_expect(fabs(ag_item(loss) - log1p(exp(1.0))) < 1e-14);
    for (unsigned flags = 0; flags <= AG_CREATE_GRAPH; flags += AG_CREATE_GRAPH) {
        cr_assert(ag_grad(loss, &x, 1, &g, flags));
        cr_expect(ag_tensor_at(ag_value(g), 2) == 0.0 && ag_tensor_at(ag_value(g), 3) == 0.0);
        cr_expect(ag_tensor_at(ag_value(g), 1) > 0.5);
    }
    ag_context_free(ctx);
}

Test(users_code, values_read_back)
{
    ag_context *ctx = ag_context_new(NULL);
    double values[6];
    ag_var x = ag_transpose(ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ 1, 2, 3, 4, 5, 6 }), 0, 1);
    cr_assert(ag_read(x, values));
    cr_expect(values[1] == 4.0 && values[4] == 3.0);
    cr_expect(!ag_read(x, NULL));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}
