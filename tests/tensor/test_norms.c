/* Layer norm and RMS norm of rows, and their gradients, against plain loops in f64. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <math.h>

static ag_tensor *normal(ag_context *ctx, ag_random *random, ag_dtype dtype, ag_shape shape)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape);
    cr_assert_not_null(x, "%s", ag_error_message(ctx));
    cr_assert(ag_random_fill_normal(ctx, random, x, 0.5, 1));
    return x;
}

static ag_tensor *like(ag_context *ctx, const ag_tensor *x)
{
    return x ? ag_tensor_new(ctx, AG_STEP, x->dtype, ag_tensor_shape(x)) : NULL;
}

static double at_or(const ag_tensor *x, int64_t k, double otherwise)
{
    return x ? ag_tensor_at(x, k) : otherwise;
}

static void near(const ag_tensor *got, int64_t k, double want, const char *what)
{
    double tolerance = got->dtype == AG_F32 ? 2e-5 : 1e-12;
    cr_assert(fabs(ag_tensor_at(got, k) - want) <= tolerance * (1 + fabs(want)),
              "%s, entry %d of [%d,%d]: %.17g, not %.17g", what, (int)k, (int)got->dims[0],
              (int)got->dims[got->rank - 1], ag_tensor_at(got, k), want);
}

/* Everything that is in play for one shape; gain, bias and gradients may be NULL. */
typedef struct scene {
    ag_norm_rows kind;
    int64_t rows, n;
    ag_tensor *x, *gain, *bias, *dy, *y, *statistics;
    ag_norm_gradients gradients;
} scene;

/* h of row i by the definition; returns 1 / sqrt(.. + epsilon). */
static double row_by_hand(const scene *s, int64_t i, double epsilon, double *h)
{
    double mean = 0, squares = 0;
    for (int64_t j = 0; j < s->n && s->kind == AG_ROWS_LAYER_NORM; j++)
        mean += ag_tensor_at(s->x, i * s->n + j) / (double)s->n;
    for (int64_t j = 0; j < s->n; j++) {
        h[j] = ag_tensor_at(s->x, i * s->n + j) - mean;
        squares += h[j] * h[j];
    }
    double r = 1 / sqrt(squares / (double)s->n + epsilon);
    for (int64_t j = 0; j < s->n; j++)
        h[j] *= r;
    return r;
}

static void expect_row(const scene *s, int64_t i, double epsilon, double *dgain, double *dbias)
{
    double h[1024], g[1024], sum_g = 0, sum_gh = 0, r = row_by_hand(s, i, epsilon, h);
    for (int64_t j = 0; j < s->n; j++) {
        double dy = ag_tensor_at(s->dy, i * s->n + j);
        g[j] = dy * at_or(s->gain, j, 1);
        sum_g += g[j];
        sum_gh += g[j] * h[j];
        dgain[j] += dy * h[j];
        dbias[j] += dy;
        near(s->y, i * s->n + j, h[j] * at_or(s->gain, j, 1) + at_or(s->bias, j, 0), "y");
    }
    double mean_g = s->kind == AG_ROWS_LAYER_NORM ? sum_g / (double)s->n : 0;
    for (int64_t j = 0; s->gradients.x && j < s->n; j++)
        near(s->gradients.x, i * s->n + j, r * (g[j] - mean_g - h[j] * sum_gh / (double)s->n),
             "dx");
}

static void check(ag_context *ctx, ag_dtype dtype, ag_norm_rows kind, int64_t rows, int64_t n,
                  unsigned present)
{
    const double epsilon = 1e-3;
    ag_random random = ag_random_stream(1, "norms", (uint64_t)(rows * 5000 + n));
    scene s = { .kind = kind, .rows = rows, .n = n };
    s.x = normal(ctx, &random, dtype, AG_SHAPE(rows, n));
    s.dy = normal(ctx, &random, dtype, AG_SHAPE(rows, n));
    s.gain = present & 1 ? normal(ctx, &random, dtype, AG_SHAPE(n)) : NULL;
    s.bias = present & 2 ? normal(ctx, &random, dtype, AG_SHAPE(n)) : NULL;
    s.y = like(ctx, s.x);
    s.statistics = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(rows, AG_NORM_STATISTICS));
    s.gradients = (ag_norm_gradients){ like(ctx, present & 4 ? s.x : NULL), like(ctx, s.gain),
                                       like(ctx, s.bias) };
    cr_assert(ag_compute_norm(ctx, kind, epsilon, s.x, s.gain, s.bias, s.y, s.statistics));
    cr_assert(ag_compute_norm_backward(ctx, kind, s.x, s.gain, s.statistics, s.dy, &s.gradients));
    double dgain[1024] = { 0 }, dbias[1024] = { 0 };
    for (int64_t i = 0; i < rows; i++)
        expect_row(&s, i, epsilon, dgain, dbias);
    for (int64_t j = 0; j < n; j++) {
        if (s.gain)
            near(s.gradients.gain, j, dgain[j], "dgain");
        if (s.bias)
            near(s.gradients.bias, j, dbias[j], "dbias");
    }
    ag_memory_reset_step(ctx);
}

Test(norms_of_rows, sizes_at_and_around_the_edges)
{
    static const int64_t sizes[] = { 0,  1,  2,  3,  4,  5,  7,  8,  9,  15,  16,  17,
                                     31, 32, 33, 48, 63, 64, 65, 96, 97, 128, 384, 1000 };
    static const int64_t rows[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    ag_context *ctx = ag_context_new(NULL);
    for (int i = 0; i < 24; i++)
        for (int k = 0; k < 10; k++)
            for (int kind = 0; kind < 4; kind++)
                check(ctx, kind & 1 ? AG_F64 : AG_F32, (ag_norm_rows)(kind / 2), rows[k], sizes[i],
                      7);
    ag_context_free(ctx);
}

/* 128 rows make a block of sums, unless they are long. */
Test(norms_of_rows, blocks_of_sums)
{
    static const int64_t rows[] = { 127, 128, 129, 256, 700 };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = 2 });
    for (int k = 0; k < 5; k++)
        for (int kind = 0; kind < 4; kind++) {
            check(ctx, kind & 1 ? AG_F64 : AG_F32, (ag_norm_rows)(kind / 2), rows[k], 3, 7);
            check(ctx, kind & 1 ? AG_F64 : AG_F32, (ag_norm_rows)(kind / 2), rows[k], 64, 7);
            check(ctx, kind & 1 ? AG_F64 : AG_F32, (ag_norm_rows)(kind / 2), rows[k], 700, 7);
        }
    ag_context_free(ctx);
}

Test(norms_of_rows, what_is_absent)
{
    ag_context *ctx = ag_context_new(NULL);
    for (unsigned present = 0; present < 8; present++)
        for (int kind = 0; kind < 2; kind++)
            check(ctx, AG_F32, (ag_norm_rows)kind, 6, 33, present);
    ag_context_free(ctx);
}

/* A NaN stays in its row, and in the sums. */
Test(norms_of_rows, a_nan_is_not_hidden)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int64_t n = 1; n < 70; n += 4)
        for (int kind = 0; kind < 2; kind++) {
            ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, n));
            ag_tensor *y = like(ctx, x);
            ag_tensor *statistics =
                ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, AG_NORM_STATISTICS));
            ag_tensor_fill(ctx, x, 1);
            ag_tensor_put(x, 2 * n - 1, NAN);
            ag_compute_norm(ctx, (ag_norm_rows)kind, 1e-5, x, NULL, NULL, y, statistics);
            for (int64_t k = 0; k < 3 * n; k++)
                cr_expect_eq(isnan(ag_tensor_at(y, k)) != 0, k / n == 1, "%d", (int)k);
            ag_memory_reset_step(ctx);
        }
    ag_context_free(ctx);
}
