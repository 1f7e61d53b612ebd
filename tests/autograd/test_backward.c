/* What backward promises: gradients along every path, accumulation, orders,
 * a picture of the tape, and that a failure changes nothing. */
#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *f64(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static double gradient_at(ag_var v, int64_t k)
{
    const ag_tensor *g = ag_gradient(v);
    return g ? ag_tensor_at(g, k) : NAN;
}

Test(backward, a_parameter_used_twice)
{
    ag_context *ctx = f64();
    ag_var w = ag_parameter(ctx, "w", AG_F64, AG_SCALAR);
    ag_assign(w, (double[]){ 3.0 });
    cr_assert(ag_backward(ag_mul(ag_exp(w), w))); /* e^w (1 + w) */
    cr_expect(fabs(gradient_at(w, 0) - 4.0 * exp(3.0)) < 1e-12);
    ag_context_free(ctx);
}

Test(backward, accumulates_over_losses_until_cleared)
{
    ag_context *ctx = f64();
    ag_var w = ag_parameter(ctx, "w", AG_F64, AG_SHAPE(2));
    ag_assign(w, (double[]){ 1.0, 2.0 });
    cr_expect(ag_gradient(w) == NULL);
    cr_assert(ag_backward(ag_sum(ag_square(w), AG_ALL, 0)));
    ag_tape_reset(ctx);
    cr_assert(ag_backward(ag_sum(ag_scale(w, 10.0), AG_ALL, 0)));
    cr_expect(gradient_at(w, 0) == 12.0 && gradient_at(w, 1) == 14.0);
    ag_clear_gradient(w);
    cr_expect(ag_gradient(w) == NULL);
    cr_assert(ag_backward(ag_sum(ag_scale(w, 10.0), AG_ALL, 0)));
    cr_expect(gradient_at(w, 0) == 10.0);
    ag_context_free(ctx);
}

Test(backward, two_losses_share_a_trunk)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_scalar(ctx, 2.0));
    ag_var trunk = ag_square(x);
    cr_assert(ag_backward(ag_scale(trunk, 3.0)));
    cr_assert(ag_backward(ag_exp(trunk)));
    cr_expect(fabs(gradient_at(x, 0) - (12.0 + 4.0 * exp(4.0))) < 1e-11);
    ag_context_free(ctx);
}

/* One rule may return the same variable, or views of it, for several inputs. */
static void first_forward(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void sharing_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 0; i < ag_node_input_count(node); i++)
        dx[i] = i % 2 ? ag_flip(dy, 0) : dy;
}

Test(backward, one_gradient_for_several_inputs)
{
    static const ag_op sharing = { .name = "sharing",
                                   .forward = first_forward,
                                   .vjp = sharing_rule };
    ag_context *ctx = f64();
    ag_var a = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(3)));
    ag_var b = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(3)));
    ag_var y = ag_apply(&sharing, (ag_var[]){ a, a, b, b, a }, 5, NULL);
    cr_assert(ag_backward_from(y, ag_constant(ctx, AG_SHAPE(3), (double[]){ 1, 2, 4 })));
    const double want_a[] = { 6, 6, 9 }, want_b[] = { 5, 4, 5 }; /* 2 dy + flip dy, dy + flip dy */
    for (int64_t k = 0; k < 3; k++) {
        cr_expect(gradient_at(a, k) == want_a[k], "a: %g", gradient_at(a, k));
        cr_expect(gradient_at(b, k) == want_b[k], "b: %g", gradient_at(b, k));
    }
    ag_context_free(ctx);
}

Test(backward, retained_gradients_of_intermediates)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2), (double[]){ 1.0, 2.0 }));
    ag_var h = ag_retain_gradient(ag_square(x)), other = ag_scale(h, 2.0);
    ag_var loss = ag_sum(ag_add(h, other), AG_ALL, 0);
    cr_assert(ag_backward(loss));
    cr_expect(gradient_at(h, 0) == 3.0 && gradient_at(h, 1) == 3.0);
    cr_expect(ag_gradient(other) == NULL, "only what was asked for is kept");
    cr_expect(gradient_at(x, 1) == 12.0);
    ag_context_free(ctx);
}

Test(backward, needs_something_to_differentiate)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_scalar(ctx, 2.0));
    cr_expect(!ag_backward(ag_detach(ag_square(x))));
    cr_expect(ag_status(ctx) == AG_ERR_STATE);
    ag_error_clear(ctx);
    cr_expect(!ag_backward(ag_broadcast_to(x, AG_SHAPE(3))));
    cr_expect(ag_status(ctx) == AG_ERR_SHAPE);
    cr_expect(strstr(ag_error_message(ctx), "[3]"), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(ag_gradient(x) == NULL);
    ag_context_free(ctx);
}

Test(backward, refuses_what_was_changed_since)
{
    ag_context *ctx = f64();
    ag_var w = ag_parameter(ctx, "w", AG_F64, AG_SCALAR);
    ag_var v = ag_parameter(ctx, "v", AG_F64, AG_SCALAR);
    ag_var loss = ag_add(ag_square(w), ag_square(v));
    ag_value_mutable(w);
    cr_expect(!ag_backward(loss));
    cr_expect(ag_status(ctx) == AG_ERR_STATE);
    cr_expect(strstr(ag_error_message(ctx), "w []"), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(ag_gradient(w) == NULL && ag_gradient(v) == NULL, "nothing has changed");
    ag_context_free(ctx);
}

static void failing_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = dy;
    ag_node_fail(node, AG_ERR_STATE, "on purpose");
}

static void silent_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node, (void)dy, (void)dx;
}

/* The failing node comes last in the walk, when most is done already. */
static void expect_unchanged(void (*rule)(const ag_node *, ag_var, ag_var *), const char *reason)
{
    ag_op op = { .name = "broken", .forward = first_forward, .vjp = rule };
    ag_context *ctx = f64();
    ag_var w = ag_parameter(ctx, "w", AG_F64, AG_SHAPE(2));
    cr_assert(ag_backward(ag_sum(ag_shift(w, 1.0), AG_ALL, 0)));
    ag_var y = ag_mul(ag_exp(ag_apply(&op, &w, 1, NULL)), w);
    cr_expect(!ag_backward(ag_sum(y, AG_ALL, 0)));
    cr_expect(strstr(ag_error_message(ctx), reason), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(gradient_at(w, 0) == 1.0 && gradient_at(w, 1) == 1.0);
    ag_context_free(ctx);
}

Test(backward, that_fails_changes_nothing)
{
    expect_unchanged(failing_rule, "broken: on purpose");
    expect_unchanged(silent_rule, "broken: the backward rule gave no gradient for w [2]");
}

/* A rule is not asked for what nobody wants. */
static void counting_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    int **count = (int **)(uintptr_t)ag_node_options(node);
    for (int i = 0; i < 2; i++)
        if (ag_node_needs(node, i)) {
            (*count)[i]++;
            dx[i] = dy;
        }
}

Test(backward, asks_only_for_what_is_needed)
{
    static const ag_op counting = { .name = "counting",
                                    .forward = first_forward,
                                    .vjp = counting_rule,
                                    .options_size = sizeof(int *) };
    int counts[2] = { 0, 0 }, *count = counts;
    ag_context *ctx = f64();
    ag_var a = ag_require_gradient(ag_scalar(ctx, 1.0)), b = ag_scalar(ctx, 1.0), g;
    ag_var y = ag_apply(&counting, (ag_var[]){ a, b }, 2, &count);
    cr_assert(ag_backward(y));
    cr_expect(counts[0] == 1 && counts[1] == 0);
    ag_var c = ag_require_gradient(ag_scalar(ctx, 1.0));
    y = ag_apply(&counting, (ag_var[]){ ag_scale(a, 2.0), ag_scale(c, 3.0) }, 2, &count);
    cr_assert(ag_grad(y, &c, 1, &g, 0));
    cr_expect(counts[0] == 1 && counts[1] == 1, "%d %d", counts[0], counts[1]);
    cr_expect(ag_item(g) == 3.0);
    ag_context_free(ctx);
}

/* ---- ag_grad and higher orders ---- */

Test(backward, derivatives_of_x_to_the_5th)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_scalar(ctx, 2.0)), y = ag_pow(x, 5.0);
    const double want[] = { 80, 160, 240, 240, 120, 0 };
    for (int order = 0; order < 6; order++) {
        cr_assert(ag_grad(y, &x, 1, &y, AG_CREATE_GRAPH), "%s", ag_error_message(ctx));
        cr_expect(fabs(ag_item(y) - want[order]) < 1e-10, "order %d: %g", order + 1, ag_item(y));
    }
    cr_expect(ag_gradient(x) == NULL, "ag_grad accumulates nothing");
    ag_context_free(ctx);
}

Test(backward, hessian_vector_product)
{
    ag_context *ctx = f64();
    ag_var w = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2), (double[]){ 1.0, 2.0 }));
    ag_var v = ag_constant(ctx, AG_SHAPE(2), (double[]){ 3.0, -1.0 }), g, hv;
    ag_var a = ag_slice(w, 0, 0, 1, 1), b = ag_slice(w, 0, 1, 2, 1);
    ag_var loss = ag_sum(ag_mul(ag_square(a), b), AG_ALL, 0); /* H = [2b 2a; 2a 0] */
    cr_assert(ag_grad(loss, &w, 1, &g, AG_CREATE_GRAPH));
    cr_assert(ag_grad(ag_dot(g, v), &w, 1, &hv, 0));
    cr_expect(ag_tensor_at(ag_value(hv), 0) == 10.0);
    cr_expect(ag_tensor_at(ag_value(hv), 1) == 6.0);
    ag_context_free(ctx);
}

Test(backward, grad_gives_zeros_where_nothing_depends)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(2, 3)));
    ag_var y = ag_require_gradient(ag_scalar(ctx, 1.0)), g[2];
    cr_assert(ag_grad(ag_square(y), (ag_var[]){ x, y }, 2, g, 0));
    cr_expect(ag_shape_equal(ag_shape_of(g[0]), AG_SHAPE(2, 3)));
    cr_expect(ag_tensor_at(ag_value(g[0]), 5) == 0.0 && ag_item(g[1]) == 2.0);
    cr_expect(ag_grad(ag_square(y), (ag_var[]){ y }, 1, g, 0), "it may be called again");
    ag_context_free(ctx);
}

Test(backward, grad_of_an_intermediate)
{
    ag_context *ctx = f64();
    ag_var x = ag_require_gradient(ag_scalar(ctx, 3.0)), h = ag_square(x), g[2];
    cr_assert(ag_grad(ag_square(h), (ag_var[]){ h, x }, 2, g, 0));
    cr_expect(ag_item(g[0]) == 18.0 && ag_item(g[1]) == 108.0);
    ag_context_free(ctx);
}

/* ---- Pictures and flaws ---- */

static void dot_of(ag_var root, char *text, size_t size)
{
    FILE *file = tmpfile();
    cr_assert(ag_tape_write_dot(root, file));
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

Test(backward, graphviz_shows_names_shapes_and_gradients)
{
    char text[4096];
    ag_context *ctx = f64();
    ag_var w = ag_parameter(ctx, "attn.\"w\"", AG_F64, AG_SHAPE(2));
    ag_assign(w, (double[]){ 0.5, 3.0 });
    ag_var unrelated = ag_set_name(ag_scalar(ctx, 1.0), "unrelated");
    ag_var loss = ag_set_name(ag_sum(ag_square(w), AG_ALL, 0), "loss");
    dot_of(loss, text, sizeof text);
    cr_expect(strstr(text, "gradient absent"), "%s", text);
    cr_expect(strstr(text, "attn.\\\"w\\\" [2]"));
    cr_assert(ag_backward(loss));
    dot_of(loss, text, sizeof text);
    cr_expect(strstr(text, "digraph") && strstr(text, "value 0.5 3") &&
                  strstr(text, "gradient 1 6") && strstr(text, "loss []") && strstr(text, "p0 -> "),
              "%s", text);
    cr_expect(!strstr(text, "unrelated"));
    cr_expect(!ag_tape_write_dot(unrelated, NULL));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}

Test(backward, first_nonfinite_names_the_culprit)
{
    ag_context *ctx = f64();
    ag_var x = ag_constant(ctx, AG_SHAPE(2), (double[]){ -1.0, 4.0 });
    ag_var mask = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 1, 0 });
    ag_softmax(ag_masked_fill(x, mask, -INFINITY), -1);
    cr_expect(ag_is_none(ag_first_nonfinite(ctx)), "a mask is not a flaw");
    ag_var bad = ag_sqrt(x);
    ag_exp(ag_square(bad));
    ag_var found = ag_first_nonfinite(ctx);
    cr_expect(found.index == bad.index);
    cr_expect(!strcmp(ag_op_name(found), "sqrt"));
    ag_tape_reset(ctx);
    ag_var big = ag_exp(ag_full(ctx, AG_SHAPE(2), 1000.0));
    ag_sub(big, big);
    cr_expect(ag_first_nonfinite(ctx).index == big.index, "the infinity comes before the NaN");
    cr_expect(ag_is_none(ag_first_nonfinite(NULL)));
    ag_context_free(ctx);
}
