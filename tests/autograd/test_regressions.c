/* Faults that were found in other engines, each as a test of this one. The
 * names say what goes wrong. */
#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *f64(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var leaf(ag_context *ctx, double value)
{
    return ag_require_gradient(ag_scalar(ctx, value));
}

static double gradient_item(ag_var v)
{
    const ag_tensor *g = ag_gradient(v);
    return g ? ag_tensor_at(g, 0) : NAN;
}

/* A recursive backward without an order visits y = a + a wrongly: 6, not 4. */
Test(regressions, diamond)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 3.0);
    ag_var a = ag_scale(x, 2.0);
    cr_assert(ag_backward(ag_add(a, a)));
    cr_expect(gradient_item(x) == 4.0, "%g", gradient_item(x));
    ag_context_free(ctx);
}

/* The same in a residual connection: 21, not 18. */
Test(regressions, residual)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 3.0);
    ag_var h = ag_scale(x, 3.0);
    cr_assert(ag_backward(ag_add(h, ag_scale(h, 5.0))));
    cr_expect(gradient_item(x) == 18.0, "%g", gradient_item(x));
    ag_context_free(ctx);
}

/* x feeds queries, keys and values: its gradient is the sum of three. */
Test(regressions, shared_query_key_value)
{
    ag_context *ctx = f64();
    ag_random random = ag_random_stream(1, "shared", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 4)));
    ag_var parts[3], gradients[3], all;
    for (int i = 0; i < 3; i++) /* three variables with x's value, and x itself through shift */
        parts[i] = ag_require_gradient(ag_from_tensor(ctx, ag_value(x)));
    ag_var shared = ag_shift(x, 0.0);
    ag_var apart =
        ag_matmul(ag_softmax(ag_matmul(parts[0], ag_transpose(parts[1], 0, 1)), -1), parts[2]);
    ag_var joint = ag_matmul(ag_softmax(ag_matmul(shared, ag_transpose(shared, 0, 1)), -1), shared);
    ag_var c = ag_normal(ctx, &random, AG_SHAPE(3, 4));
    cr_assert(ag_grad_from(apart, c, parts, 3, gradients, 0));
    cr_assert(ag_grad_from(joint, c, &x, 1, &all, 0));
    for (int64_t k = 0; k < 12; k++) {
        double sum = 0.0;
        for (int i = 0; i < 3; i++)
            sum += ag_tensor_at(ag_value(gradients[i]), k);
        cr_expect(fabs(sum - ag_tensor_at(ag_value(all), k)) < 1e-13);
    }
    ag_context_free(ctx);
}

/* A tracked intermediate that also feeds a metric off the loss's path: an
 * engine that counts pending uses waits for ever and leaves no gradient. */
Test(regressions, side_branch)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 3.0);
    ag_var h = ag_square(x);
    ag_var metric = ag_scale(h, 100.0);
    ag_var loss = ag_scale(h, 2.0);
    ag_var later = ag_exp(h);
    cr_assert(ag_backward(loss));
    cr_expect(gradient_item(x) == 12.0, "%g", gradient_item(x));
    cr_expect(ag_gradient(metric) == NULL && ag_gradient(later) == NULL);
    ag_context_free(ctx);
}

/* No recursion, no fixed queue: depth is nothing special. */
Test(regressions, deep_chain)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 1.0), y = x;
    for (int i = 0; i < 100000; i++)
        y = ag_shift(y, 1e-5);
    cr_assert(ag_backward(y), "%s", ag_error_message(ctx));
    cr_expect(gradient_item(x) == 1.0);
    cr_expect(fabs(ag_item(y) - 2.0) < 1e-9);
    ag_context_free(ctx);
}

/* 200 doublings share every value twice: without a memory of what was done the
 * walk would take 2^200 steps. */
Test(regressions, ladder_of_diamonds)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 1.0), y = x;
    for (int i = 0; i < 200; i++)
        y = ag_scale(ag_add(y, y), 0.5);
    cr_assert(ag_backward(y));
    cr_expect(gradient_item(x) == 1.0);
    ag_context_free(ctx);
}

/* A maximum that starts at -10000 gives an all-zero row for such scores. */
Test(regressions, huge_scores)
{
    for (int f = 0; f < 2; f++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = f ? AG_F64 : AG_F32 });
        double scores[] = { -80000.0, -81000.0, -90000.0, 80000.0, 79000.0, -80000.0 };
        ag_var s = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2, 3), scores));
        ag_var v = ag_constant(ctx, AG_SHAPE(3, 1), (double[]){ 5.0, 7.0, 9.0 });
        ag_var out = ag_matmul(ag_softmax(s, -1), v);
        cr_expect(ag_tensor_at(ag_value(out), 0) == 5.0);
        cr_expect(ag_tensor_at(ag_value(out), 1) == 5.0);
        cr_assert(ag_backward_from(out, ag_constant(ctx, AG_SHAPE(2, 1), (double[]){ 1, 2 })));
        for (int64_t k = 0; k < 6; k++)
            cr_expect(ag_tensor_at(ag_gradient(s), k) == 0.0);
        ag_context_free(ctx);
    }
}

/* A row in which all is masked is zeros, not NaN, and so is its gradient. */
Test(regressions, fully_masked_row)
{
    ag_context *ctx = f64();
    ag_random random = ag_random_stream(1, "masked", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(2, 3)));
    ag_var mask = ag_indices(ctx, AG_SHAPE(2, 3), (int64_t[]){ 1, 1, 1, 0, 1, 0 });
    ag_var p = ag_softmax(ag_masked_fill(x, mask, -INFINITY), -1), g;
    for (int64_t k = 0; k < 3; k++)
        cr_expect(ag_tensor_at(ag_value(p), k) == 0.0);
    ag_var c = ag_normal(ctx, &random, AG_SHAPE(2, 3));
    for (unsigned flags = 0; flags <= AG_CREATE_GRAPH; flags += AG_CREATE_GRAPH) {
        cr_assert(ag_grad_from(p, c, &x, 1, &g, flags));
        for (int64_t k = 0; k < 3; k++)
            cr_expect(ag_tensor_at(ag_value(g), k) == 0.0);
        cr_expect(ag_tensor_at(ag_value(g), 4) == 0.0, "masked in a row that is not");
        cr_expect(ag_tensor_at(ag_value(g), 3) != 0.0);
    }
    ag_context_free(ctx);
}

/* A backward that transposes axes 0 and 1 is wrong for a batch. */
Test(regressions, batched_matmul)
{
    ag_context *ctx = f64();
    ag_random random = ag_random_stream(1, "batch", 0);
    ag_var a = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(2, 3, 4)));
    ag_var b = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(2, 4, 5)));
    ag_var c = ag_normal(ctx, &random, AG_SHAPE(2, 3, 5));
    cr_assert(ag_backward_from(ag_matmul(a, b), c));
    for (int64_t i = 0; i < 2; i++)
        for (int64_t p = 0; p < 4; p++)
            for (int64_t m = 0; m < 3; m++) { /* da_mp = sum_n dc_mn b_pn */
                double want = 0.0;
                for (int64_t n = 0; n < 5; n++)
                    want += ag_tensor_get(ag_value(c), (int64_t[]){ i, m, n }) *
                            ag_tensor_get(ag_value(b), (int64_t[]){ i, p, n });
                double got = ag_tensor_get(ag_gradient(a), (int64_t[]){ i, m, p });
                cr_expect(fabs(got - want) < 1e-14);
            }
    ag_context_free(ctx);
}

/* Every operation that a transformer needs has a backward rule. */
Test(regressions, no_operation_without_a_rule)
{
    const char *without[] = { "sign", "equal", "greater", "argmax" };
    for (int i = 0; i < ag_op_count(); i++) {
        bool expected = true;
        for (int k = 0; k < 4; k++)
            expected = expected && strcmp(ag_op_at(i)->name, without[k]) != 0;
        cr_expect((ag_op_at(i)->vjp != NULL) == expected, "%s", ag_op_at(i)->name);
    }
}

/* A leaf without a gradient buffer: absent, not a crash and not zero. */
Test(regressions, gradient_of_a_constant)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 2.0), k = ag_scalar(ctx, 5.0);
    cr_assert(ag_backward(ag_mul(x, k)));
    cr_expect(gradient_item(x) == 5.0);
    cr_expect(ag_gradient(k) == NULL);
    cr_expect(ag_status(ctx) == AG_OK);
    ag_context_free(ctx);
}

/* A second backward would double every gradient in silence. */
Test(regressions, backward_twice)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 3.0), loss = ag_square(x);
    cr_assert(ag_backward(loss));
    cr_expect(!ag_backward(loss));
    cr_expect(ag_status(ctx) == AG_ERR_STATE);
    cr_expect(strstr(ag_error_message(ctx), "already"), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(gradient_item(x) == 6.0);
    ag_context_free(ctx);
}

/* Softmax is invariant to a shift of its scores, so a plain sum of its results
 * has the gradient 0, and the checker must not use one. */
Test(regressions, uniform_cotangent_hides_softmax)
{
    ag_context *ctx = f64();
    ag_random random = ag_random_stream(1, "softmax", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 4)));
    cr_assert(ag_backward(ag_sum(ag_softmax(x, -1), AG_ALL, 0)));
    for (int64_t k = 0; k < 12; k++)
        cr_expect(fabs(ag_tensor_at(ag_gradient(x), k)) < 1e-15);
    ag_context_free(ctx);
}
