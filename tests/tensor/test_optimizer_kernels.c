/* Optimiser updates against their formulas, and sums over all elements. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../../tensor/internal.h"

static const ag_dtype FLOATS[2] = { AG_F32, AG_F64 };
static const int64_t SIZES[] = { 0, 1, 3, 31, 64, 65, 32768, 32769, 100001 };

static ag_tensor *normal(ag_context *ctx, ag_random *random, ag_dtype dtype, int64_t n)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(n));
    cr_assert_not_null(x, "%s", ag_error_message(ctx));
    cr_assert(ag_random_fill_normal(ctx, random, x, 0, 1));
    return x;
}

static ag_tensor *doubles(ag_context *ctx, const ag_tensor *x)
{
    ag_tensor *copy = ag_tensor_new(ctx, AG_STEP, AG_F64, ag_tensor_shape(x));
    cr_assert(ag_tensor_copy(ctx, copy, x));
    return copy;
}

static void expect_near(const ag_tensor *got, const double *want, double tolerance)
{
    for (int64_t k = 0; k < ag_tensor_count(got); k++)
        cr_assert(fabs(ag_tensor_at(got, k) - want[k]) <= tolerance * (fabs(want[k]) + 1),
                  "at %d: %.17g, not %.17g", (int)k, ag_tensor_at(got, k), want[k]);
}

static void check_sgd(ag_context *ctx, ag_dtype dtype, int64_t n, double momentum)
{
    ag_random random = ag_random_stream(1, "sgd", (uint64_t)n);
    ag_tensor *p = normal(ctx, &random, dtype, n), *g = normal(ctx, &random, dtype, n);
    ag_tensor *u = momentum > 0 ? normal(ctx, &random, dtype, n) : NULL;
    double *p_want = doubles(ctx, p)->data, *u_want = u ? doubles(ctx, u)->data : NULL;
    double tolerance = dtype == AG_F32 ? 1e-5 : 1e-14;
    for (int step = 0; step < 3; step++) {
        for (int64_t k = 0; k < n; k++) {
            double gradient = ag_tensor_at(g, k);
            if (u)
                gradient = u_want[k] = momentum * u_want[k] + gradient;
            p_want[k] -= 0.3 * gradient;
        }
        cr_assert(ag_compute_sgd(ctx, p, g, u, 0.3, momentum));
    }
    expect_near(p, p_want, tolerance);
    if (u)
        expect_near(u, u_want, tolerance);
    ag_memory_reset_step(ctx);
}

Test(optimizer_kernels, sgd)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int s = 0; s < 9; s++)
        for (int d = 0; d < 2; d++) {
            check_sgd(ctx, FLOATS[d], SIZES[s], 0);
            check_sgd(ctx, FLOATS[d], SIZES[s], 0.9);
        }
    ag_context_free(ctx);
}

/* As it is usually written: p (1 - lr wd), then sqrt(v) / sqrt(correction2). */
static void check_adam(ag_context *ctx, ag_dtype dtype, int64_t n, double weight_decay)
{
    ag_random random = ag_random_stream(1, "adam", (uint64_t)n);
    ag_tensor *p = normal(ctx, &random, dtype, n);
    ag_tensor *m = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(n));
    ag_tensor *v = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(n));
    double *p_want = doubles(ctx, p)->data, *m_want = doubles(ctx, m)->data;
    double *v_want = doubles(ctx, v)->data;
    double tolerance = dtype == AG_F32 ? 1e-5 : 1e-14;
    for (int t = 1; t <= 5; t++) {
        ag_tensor *g = normal(ctx, &random, dtype, n);
        ag_adam_step step = {
            .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = weight_decay
        };
        step.correction1 = 1 - pow(0.9, t);
        step.correction2 = 1 - pow(0.999, t);
        for (int64_t k = 0; k < n; k++) {
            double gradient = ag_tensor_at(g, k);
            m_want[k] = 0.9 * m_want[k] + (1 - 0.9) * gradient;
            v_want[k] = 0.999 * v_want[k] + (1 - 0.999) * gradient * gradient;
            p_want[k] *= 1 - 1e-2 * weight_decay;
            p_want[k] -= 1e-2 / step.correction1 * m_want[k] /
                         (sqrt(v_want[k]) / sqrt(step.correction2) + 1e-8);
        }
        cr_assert(ag_compute_adam(ctx, p, g, m, v, &step));
    }
    expect_near(p, p_want, tolerance);
    expect_near(m, m_want, tolerance);
    expect_near(v, v_want, tolerance);
    ag_memory_reset_step(ctx);
}

Test(optimizer_kernels, adam)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int s = 0; s < 9; s++)
        for (int d = 0; d < 2; d++) {
            check_adam(ctx, FLOATS[d], SIZES[s], 0);
            check_adam(ctx, FLOATS[d], SIZES[s], 0.3);
        }
    ag_context_free(ctx);
}

/* A first gradient of 0 divides 0 by epsilon, and moves nothing. */
Test(optimizer_kernels, adam_with_zero_gradient)
{
    ag_context *ctx = ag_context_new(NULL);
    const ag_adam_step step = { .lr = 0.1,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .epsilon = 1e-8,
                                .correction1 = 0.1,
                                .correction2 = 0.001 };
    for (int d = 0; d < 2; d++) {
        ag_tensor *p = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1));
        ag_tensor *g = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1));
        ag_tensor *m = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1));
        ag_tensor *v = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1));
        ag_tensor_put(p, 0, 3);
        cr_assert(ag_compute_adam(ctx, p, g, m, v, &step));
        cr_expect_eq(ag_tensor_at(p, 0), 3);
    }
    ag_context_free(ctx);
}

Test(optimizer_kernels, sum_of_squares_and_finiteness)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "squares", 0);
    for (int s = 0; s < 9; s++)
        for (int d = 0; d < 2; d++) {
            ag_tensor *x = normal(ctx, &random, FLOATS[d], SIZES[s]), flipped;
            double sum = 0;
            for (int64_t k = 0; k < SIZES[s]; k++)
                sum += pow(ag_tensor_at(x, k), 2);
            cr_expect_leq(fabs(ag_compute_sum_of_squares(x) - sum), 1e-11 * sum);
            cr_assert(ag_tensor_flip(ctx, x, 0, &flipped));
            cr_expect_leq(fabs(ag_compute_sum_of_squares(&flipped) - sum), 1e-11 * sum);
            cr_expect(ag_tensor_all_finite(x));
            for (int64_t at = 0; at < SIZES[s]; at += 1 + SIZES[s] / 7) {
                double before = ag_tensor_at(x, at);
                ag_tensor_put(x, at, at % 3 == 0 ? NAN : at % 3 == 1 ? INFINITY : -INFINITY);
                cr_expect(!ag_tensor_all_finite(x));
                cr_expect(!ag_tensor_all_finite(&flipped));
                ag_tensor_put(x, at, before);
            }
        }
    ag_tensor *integers = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(4));
    cr_expect(ag_tensor_all_finite(integers));
    /* beyond the range of f32 */
    ag_tensor *large = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(4));
    ag_tensor_fill(ctx, large, 0x1p100);
    cr_expect_eq(ag_compute_sum_of_squares(large), 0x1p202);
    ag_context_free(ctx);
}

Test(optimizer_kernels, threads_do_not_change_a_bit)
{
    enum { N = 100001 };
    static float first[N], second[N];
    const ag_adam_step step = { .lr = 0.1,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .epsilon = 1e-8,
                                .weight_decay = 0.1,
                                .correction1 = 0.1,
                                .correction2 = 0.001 };
    for (int threads = 1; threads <= 3; threads++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = threads });
        ag_random random = ag_random_stream(1, "threads", 0);
        ag_tensor *p = normal(ctx, &random, AG_F32, N), *g = normal(ctx, &random, AG_F32, N);
        ag_tensor *m = normal(ctx, &random, AG_F32, N), *v = normal(ctx, &random, AG_F32, N);
        float *v_data = v->data;
        for (int k = 0; k < N; k++)
            v_data[k] *= v_data[k];
        cr_assert(ag_compute_sgd(ctx, p, g, m, 0.1, 0.9));
        cr_assert(ag_compute_adam(ctx, p, g, m, v, &step));
        memcpy(threads == 1 ? first : second, p->data, sizeof first);
        if (threads > 1)
            cr_expect(memcmp(first, second, sizeof first) == 0, "%d threads", threads);
        ag_context_free(ctx);
    }
}
