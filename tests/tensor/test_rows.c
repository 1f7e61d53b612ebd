/* Softmax, cross-entropy, gather and scatter against plain loops in f64. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../../tensor/internal.h"

static const ag_dtype FLOATS[2] = { AG_F32, AG_F64 };

static ag_tensor *normal(ag_context *ctx, ag_random *random, ag_dtype dtype, ag_shape shape,
                         double deviation)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape);
    cr_assert_not_null(x, "%s", ag_error_message(ctx));
    cr_assert(ag_random_fill_normal(ctx, random, x, 0, deviation));
    return x;
}

static ag_tensor *from_values(ag_context *ctx, ag_dtype dtype, ag_shape shape, const double *values)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape);
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        ag_tensor_put(x, k, values[k]);
    return x;
}

static ag_tensor *like(ag_context *ctx, const ag_tensor *x)
{
    return ag_tensor_new(ctx, AG_STEP, x->dtype, ag_tensor_shape(x));
}

static bool same_bits(const ag_tensor *a, const ag_tensor *b)
{
    return memcmp(a->data, b->data, (size_t)ag_tensor_count(a) * ag_dtype_size(a->dtype)) == 0;
}

static double logsumexp(const ag_tensor *x, int64_t first, int64_t n)
{
    double m = -INFINITY, s = 0;
    for (int64_t j = 0; j < n; j++)
        m = fmax(m, ag_tensor_at(x, first + j));
    for (int64_t j = 0; j < n; j++)
        s += exp(ag_tensor_at(x, first + j) - m);
    return m + log(s);
}

static void near(double got, double want, double tolerance, const char *what)
{
    cr_assert(fabs(got - want) <= tolerance * (1 + fabs(want)), "%s: %.17g, not %.17g", what, got,
              want);
}

/* All three forms, and both backwards, for a few rows of n. */
static void check_softmax(ag_context *ctx, ag_random *random, ag_dtype dtype, int64_t rows,
                          int64_t n)
{
    double tolerance = dtype == AG_F32 ? 4e-6 : 1e-13;
    ag_tensor *x = normal(ctx, random, dtype, AG_SHAPE(rows, n), 3);
    ag_tensor *dy = normal(ctx, random, dtype, AG_SHAPE(rows, n), 1);
    ag_tensor *p = like(ctx, x), *l = like(ctx, x), *dp = like(ctx, x), *dl = like(ctx, x);
    ag_tensor *s = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(rows));
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, p));
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOG_SOFTMAX, x, l));
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, s));
    cr_assert(ag_compute_softmax_backward(ctx, AG_ROWS_SOFTMAX, p, dy, dp));
    cr_assert(ag_compute_softmax_backward(ctx, AG_ROWS_LOG_SOFTMAX, l, dy, dl));
    for (int64_t i = 0; i < rows; i++) {
        double lse = logsumexp(x, i * n, n), dot = 0, sum = 0;
        near(ag_tensor_at(s, i), lse, tolerance, "logsumexp");
        for (int64_t k = i * n; k < (i + 1) * n; k++) {
            dot += exp(ag_tensor_at(x, k) - lse) * ag_tensor_at(dy, k);
            sum += ag_tensor_at(dy, k);
        }
        for (int64_t k = i * n; k < (i + 1) * n; k++) {
            double log_p = ag_tensor_at(x, k) - lse, prob = exp(log_p), d = ag_tensor_at(dy, k);
            near(ag_tensor_at(p, k), prob, tolerance, "softmax");
            near(ag_tensor_at(l, k), log_p, tolerance, "log-softmax");
            near(ag_tensor_at(dp, k), prob * (d - dot), tolerance, "softmax backward");
            near(ag_tensor_at(dl, k), d - prob * sum, tolerance, "log-softmax backward");
        }
    }
    ag_memory_reset_step(ctx);
}

Test(rows, softmax)
{
    static const int64_t lengths[] = { 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 65, 1000, 5000 };
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "softmax", 0);
    for (int i = 0; i < 15; i++)
        for (int d = 0; d < 2; d++)
            check_softmax(ctx, &random, FLOATS[d], i % 3 + 1, lengths[i]);
    check_softmax(ctx, &random, AG_F32, 700, 13);
    check_softmax(ctx, &random, AG_F64, 0, 4);
    check_softmax(ctx, &random, AG_F64, 1, 0 + 1);
    ag_context_free(ctx);
}

/* A row's bits do not depend on the rows that are computed with it. */
static void check_alone(ag_context *ctx, ag_random *random, ag_dtype dtype, int64_t n)
{
    enum { ROWS = 37 };
    size_t size = (size_t)n * ag_dtype_size(dtype);
    ag_tensor *x = normal(ctx, random, dtype, AG_SHAPE(ROWS, n), 3), *y = like(ctx, x), *dx, one;
    ag_tensor *y_one = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(1, n)), *dx_one;
    dx = like(ctx, x);
    dx_one = like(ctx, y_one);
    for (int kind = AG_ROWS_SOFTMAX; kind <= AG_ROWS_LOG_SOFTMAX; kind++) {
        cr_assert(ag_compute_softmax(ctx, (ag_softmax_kind)kind, x, y));
        cr_assert(ag_compute_softmax_backward(ctx, (ag_softmax_kind)kind, y, x, dx));
        for (int64_t i = 0; i < ROWS; i++) {
            cr_assert(ag_tensor_slice(ctx, x, 0, i, i + 1, 1, &one));
            cr_assert(ag_compute_softmax(ctx, (ag_softmax_kind)kind, &one, y_one));
            cr_assert(ag_compute_softmax_backward(ctx, (ag_softmax_kind)kind, y_one, &one, dx_one));
            cr_assert(memcmp((char *)y->data + (size_t)i * size, y_one->data, size) == 0,
                      "%s %d of row %d of %d", ag_dtype_name(dtype), kind, (int)i, (int)n);
            cr_assert(memcmp((char *)dx->data + (size_t)i * size, dx_one->data, size) == 0,
                      "%s %d backward of row %d of %d", ag_dtype_name(dtype), kind, (int)i, (int)n);
        }
    }
    ag_memory_reset_step(ctx);
}

Test(rows, neighbours_do_not_change_a_bit)
{
    static const int64_t lengths[] = {
        1, 2, 3, 4, 5, 7, 8, 10, 16, 17, 33, 64, 65, 513, 1024, 1025
    };
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(3, "alone", 0);
    for (int i = 0; i < 16; i++)
        for (int d = 0; d < 2; d++)
            check_alone(ctx, &random, FLOATS[d], lengths[i]);
    ag_context_free(ctx);
}

Test(rows, empty_rows)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 0));
    ag_tensor *y = like(ctx, x), *s = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3));
    cr_expect(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, y));
    cr_expect(ag_compute_softmax(ctx, AG_ROWS_LOG_SOFTMAX, x, y));
    cr_expect(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, s));
    cr_expect_eq(ag_tensor_at(s, 2), -INFINITY);
    cr_expect(ag_compute_softmax_backward(ctx, AG_ROWS_SOFTMAX, x, x, y));
    ag_context_free(ctx);
}

Test(rows, huge_scores)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int d = 0; d < 2; d++)
        for (int64_t n = 2; n < 80; n += 7)
            for (double size = 80000; size < 1e31; size = size < 1e6 ? 1e30 : 1e32) {
                ag_tensor *x = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1, n));
                ag_tensor *p = like(ctx, x), *l = like(ctx, x);
                ag_tensor *s = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(1));
                ag_tensor_fill(ctx, x, -size);
                ag_tensor_put(x, 0, size);
                ag_tensor_put(x, n - 1, size);
                double largest = ag_tensor_at(x, 0);
                cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, p));
                cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOG_SOFTMAX, x, l));
                cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, s));
                for (int64_t k = 0; k < n; k++) {
                    bool top = k == 0 || k == n - 1;
                    cr_expect_eq(ag_tensor_at(p, k), top ? 0.5 : 0);
                    near(ag_tensor_at(l, k), (top ? 0 : -2 * size) - log(2), 1e-7, "log-softmax");
                }
                near(ag_tensor_at(s, 0), largest + log(2), 1e-7, "logsumexp");
            }
    ag_context_free(ctx);
}

/* Masked rows, rows with a few -inf, rows with NaN or +inf; row lengths that
 * fill vectors and that do not. */
static void check_special_row(ag_context *ctx, ag_dtype dtype, int64_t n)
{
    static const double special[] = { NAN, INFINITY };
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(1, n));
    ag_tensor *p = like(ctx, x), *l = like(ctx, x), *d = like(ctx, x), *dy = like(ctx, x);
    ag_tensor *s = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(1));
    ag_tensor_fill(ctx, x, -INFINITY);
    ag_tensor_fill(ctx, dy, 2);
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, p));
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOG_SOFTMAX, x, l));
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, s));
    cr_expect_eq(ag_tensor_at(s, 0), -INFINITY);
    cr_assert(ag_compute_softmax_backward(ctx, AG_ROWS_SOFTMAX, p, dy, d));
    for (int64_t k = 0; k < n; k++) {
        cr_expect_eq(ag_tensor_at(p, k), 0);
        cr_expect_eq(ag_tensor_at(l, k), -INFINITY);
        cr_expect_eq(ag_tensor_at(d, k), 0);
    }
    cr_assert(ag_compute_softmax_backward(ctx, AG_ROWS_LOG_SOFTMAX, l, dy, d));
    cr_expect_eq(ag_tensor_at(d, n - 1), 2);
    ag_tensor_put(x, n / 2, 5);
    cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, p));
    for (int64_t k = 0; k < n; k++)
        cr_expect_eq(ag_tensor_at(p, k), k == n / 2);
    for (int i = 0; i < 2; i++)
        for (int64_t at = 0; at < n; at++) {
            ag_tensor_fill(ctx, x, 1);
            ag_tensor_put(x, at, special[i]);
            cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, p));
            cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOG_SOFTMAX, x, l));
            cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, s));
            cr_expect(i == 0 ? isnan(ag_tensor_at(s, 0)) : ag_tensor_at(s, 0) == INFINITY);
            for (int64_t k = 0; k < n; k++)
                cr_assert(isnan(ag_tensor_at(p, k)) && isnan(ag_tensor_at(l, k)));
        }
    ag_memory_reset_step(ctx);
}

Test(rows, masked_and_infinite_rows)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int d = 0; d < 2; d++)
        for (int64_t n = 1; n < 70; n += n < 5 ? 1 : 16)
            check_special_row(ctx, FLOATS[d], n);
    ag_context_free(ctx);
}

static void check_cross_entropy(ag_context *ctx, ag_random *random, ag_dtype dtype, int64_t rows,
                                int64_t n, const int64_t *ignore)
{
    double tolerance = dtype == AG_F32 ? 4e-6 : 1e-13;
    ag_tensor *x = normal(ctx, random, dtype, AG_SHAPE(rows, n), 3), *dx = like(ctx, x);
    ag_tensor *labels = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(rows));
    ag_tensor *losses = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(rows));
    ag_tensor *kept = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(rows, 2));
    int64_t *label = labels->data;
    for (int64_t i = 0; i < rows; i++)
        label[i] = ignore && i % 3 == 1 ? *ignore : ag_random_integer(random, n);
    ag_tensor_fill(ctx, dx, 99);
    cr_assert(ag_compute_cross_entropy(ctx, x, labels, ignore, losses, kept));
    cr_assert(ag_compute_cross_entropy_backward(ctx, x, labels, ignore, kept, 0.25, dx));
    for (int64_t i = 0; i < rows; i++) {
        bool ignored = ignore && label[i] == *ignore;
        double lse = logsumexp(x, i * n, n);
        near(ag_tensor_at(losses, i), ignored ? 0 : lse - ag_tensor_at(x, i * n + label[i]),
             tolerance, "cross-entropy");
        for (int64_t j = 0; j < n; j++) {
            double want = 0.25 * (exp(ag_tensor_at(x, i * n + j) - lse) - (j == label[i]));
            near(ag_tensor_at(dx, i * n + j), ignored ? 0 : want, tolerance, "its backward");
        }
    }
    ag_memory_reset_step(ctx);
}

Test(rows, cross_entropy)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "cross_entropy", 0);
    const int64_t outside = -100, inside = 2;
    for (int d = 0; d < 2; d++) {
        for (int64_t n = 1; n < 100; n += n < 4 ? 1 : 15) {
            check_cross_entropy(ctx, &random, FLOATS[d], 7, n, NULL);
            check_cross_entropy(ctx, &random, FLOATS[d], 7, n, &outside);
        }
        check_cross_entropy(ctx, &random, FLOATS[d], 9, 5, &inside);
        check_cross_entropy(ctx, &random, FLOATS[d], 2, 10000, NULL);
        check_cross_entropy(ctx, &random, FLOATS[d], 0, 3, NULL);
    }
    ag_context_free(ctx);
}

Test(rows, cross_entropy_with_infinite_logits)
{
    static const double values[] = { 0, -INFINITY, 0, -INFINITY, -INFINITY, -INFINITY };
    ag_context *ctx = ag_context_new(NULL);
    for (int d = 0; d < 2; d++) {
        ag_tensor *x = from_values(ctx, FLOATS[d], AG_SHAPE(2, 3), values), *dx = like(ctx, x);
        ag_tensor *losses = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(2));
        ag_tensor *kept = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(2, 2));
        ag_tensor *labels = from_values(ctx, AG_I64, AG_SHAPE(2), (double[]){ 1, 0 });
        cr_assert(ag_compute_cross_entropy(ctx, x, labels, NULL, losses, kept));
        cr_expect_eq(ag_tensor_at(losses, 0), INFINITY);
        cr_expect_eq(ag_tensor_at(losses, 1), INFINITY);
        ag_tensor_put(labels, 0, 2);
        cr_assert(ag_compute_cross_entropy(ctx, x, labels, NULL, losses, kept));
        near(ag_tensor_at(losses, 0), log(2), 1e-7, "cross-entropy beside -inf");
        cr_assert(ag_compute_cross_entropy_backward(ctx, x, labels, NULL, kept, 1, dx));
        cr_expect_eq(ag_tensor_at(dx, 0), 0.5);
        cr_expect_eq(ag_tensor_at(dx, 1), 0);
        cr_expect_eq(ag_tensor_at(dx, 2), -0.5);
    }
    ag_context_free(ctx);
}

static void expect_refused(ag_context *ctx, bool done, const char *message, const ag_tensor *y)
{
    cr_expect(!done);
    cr_expect_eq(ag_status(ctx), AG_ERR_INDEX);
    cr_expect_str_eq(ag_error_message(ctx), message);
    for (int64_t k = 0; k < ag_tensor_count(y); k++)
        cr_expect_eq(ag_tensor_at(y, k), 7, "a refused call must not write");
    ag_error_clear(ctx);
}

Test(rows, labels_out_of_range)
{
    ag_context *ctx = ag_context_new(NULL);
    const int64_t ignore = -100;
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(5, 10)), *dx = like(ctx, x);
    ag_tensor *none = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(5, 0));
    ag_tensor *losses = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(5));
    ag_tensor *kept = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(5, 2));
    ag_tensor *labels = from_values(ctx, AG_I64, AG_SHAPE(5), (double[]){ 0, 9, 3, 12, -1 });
    ag_tensor_fill(ctx, dx, 7);
    ag_tensor_fill(ctx, losses, 7);
    const char *message = "cross_entropy: label 12 at [3] is not in 0 .. 9";
    expect_refused(ctx, ag_compute_cross_entropy(ctx, x, labels, NULL, losses, kept), message,
                   losses);
    expect_refused(ctx, ag_compute_cross_entropy_backward(ctx, x, labels, NULL, kept, 1, dx),
                   message, dx);
    ag_tensor_put(labels, 3, -100);
    message = "cross_entropy: label -1 at [4] is not in 0 .. 9";
    expect_refused(ctx, ag_compute_cross_entropy(ctx, x, labels, &ignore, losses, kept), message,
                   losses);
    message = "cross_entropy: label 0 at [0], but there are no classes";
    expect_refused(ctx, ag_compute_cross_entropy(ctx, none, labels, NULL, losses, kept), message,
                   losses);
    ag_context_free(ctx);
}

/* x [n0, n1, n2] with its axes in another order in memory and the first one
 * backwards, if view; else dense. */
static ag_tensor shuffled(ag_context *ctx, ag_random *random, ag_dtype dtype, const int64_t *n,
                          bool view)
{
    ag_tensor *base = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(n[2], n[0], n[1]));
    ag_tensor x, flipped;
    if (dtype == AG_I64)
        ag_random_fill_integer(ctx, random, base, 1000000);
    else
        ag_random_fill_normal(ctx, random, base, 0, 1);
    if (!view) {
        cr_assert(ag_tensor_reshape(ctx, base, ag_shape_make(3, n), &x));
        return x;
    }
    cr_assert(ag_tensor_permute(ctx, base, (int[]){ 1, 2, 0 }, &x));
    cr_assert(ag_tensor_flip(ctx, &x, 0, &flipped));
    return flipped;
}

static void check_gather_scatter(ag_context *ctx, ag_random *random, ag_dtype dtype,
                                 const int64_t *n, bool view)
{
    int64_t v = n[0], inner = n[1] * n[2];
    ag_tensor table = shuffled(ctx, random, dtype, n, view), indices;
    ag_tensor *base = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(3, 7));
    ag_random_fill_integer(ctx, random, base, v);
    cr_assert(ag_tensor_transpose(ctx, base, 0, 1, &indices));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(7, 3, n[1], n[2]));
    cr_assert(ag_compute_gather_rows(ctx, &table, &indices, y));
    for (int64_t k = 0; k < 21; k++)
        for (int64_t j = 0; j < inner; j++)
            cr_assert_eq(ag_tensor_at(y, k * inner + j),
                         ag_tensor_at(&table, (int64_t)ag_tensor_at(&indices, k) * inner + j));
    if (dtype == AG_I64)
        return;
    ag_tensor rows = shuffled(ctx, random, dtype, (int64_t[]){ 21, n[1], n[2] }, view);
    ag_tensor *sums = ag_tensor_new(ctx, AG_STEP, dtype, ag_tensor_shape(&table));
    ag_tensor *want = ag_tensor_new(ctx, AG_STEP, dtype, ag_tensor_shape(&table));
    ag_tensor_fill(ctx, sums, 99);
    cr_assert(ag_compute_scatter_add_rows(ctx, &rows, &indices, sums));
    for (int64_t k = 0; k < 21; k++)
        for (int64_t j = 0; j < inner; j++) {
            int64_t at = (int64_t)ag_tensor_at(&indices, k) * inner + j;
            ag_tensor_put(want, at, ag_tensor_at(want, at) + ag_tensor_at(&rows, k * inner + j));
        }
    cr_assert(same_bits(sums, want), "added in ascending order, so equal to the last bit");
}

Test(rows, gather_and_scatter)
{
    static const int64_t shapes[][3] = { { 4, 3, 5 }, { 1, 1, 1 },    { 9, 1, 64 },  { 5, 65, 1 },
                                         { 3, 0, 2 }, { 30, 43, 47 }, { 3, 9, 1000 } };
    static const ag_dtype dtypes[] = { AG_F32, AG_F64, AG_I64 };
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "gather", 0);
    for (int s = 0; s < 7; s++)
        for (int d = 0; d < 3; d++)
            for (int view = 0; view < 2; view++) {
                check_gather_scatter(ctx, &random, dtypes[d], shapes[s], view);
                ag_memory_reset_step(ctx);
            }
    ag_context_free(ctx);
}

Test(rows, indices_out_of_range)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_tensor *table = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(10, 2));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 2, 2));
    ag_tensor *indices = from_values(ctx, AG_I64, AG_SHAPE(2, 3), (double[]){ 0, 9, 10, 3, 4, -1 });
    ag_tensor view;
    cr_assert(ag_tensor_transpose(ctx, indices, 0, 1, &view));
    ag_tensor_fill(ctx, y, 7);
    ag_tensor_fill(ctx, table, 7);
    const char *message = "gather_rows: index 10 at [2,0] is outside of a table of 10 rows";
    expect_refused(ctx, ag_compute_gather_rows(ctx, table, &view, y), message, y);
    message = "scatter_add_rows: index 10 at [2,0] is outside of a table of 10 rows";
    expect_refused(ctx, ag_compute_scatter_add_rows(ctx, y, &view, table), message, table);
    ag_tensor_put(indices, 2, 5);
    message = "gather_rows: index -1 at [2,1] is outside of a table of 10 rows";
    expect_refused(ctx, ag_compute_gather_rows(ctx, table, &view, y), message, y);
    ag_context_free(ctx);
}

/* Large enough for several tasks of each kind. */
static ag_tensor *computed(ag_context *ctx, int which)
{
    ag_random random = ag_random_stream(5, "rows", 0);
    ag_tensor *x = normal(ctx, &random, AG_F32, AG_SHAPE(300, 210), 3), *y = like(ctx, x);
    ag_tensor *labels = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(300));
    ag_tensor *losses = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(300));
    ag_tensor *kept = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(300, 2));
    ag_random_fill_integer(ctx, &random, labels, 17);
    if (which == 0)
        cr_assert(ag_compute_softmax(ctx, AG_ROWS_SOFTMAX, x, y));
    if (which == 1)
        cr_assert(ag_compute_softmax_backward(ctx, AG_ROWS_LOG_SOFTMAX, x, x, y));
    if (which == 2)
        cr_assert(ag_compute_cross_entropy(ctx, x, labels, NULL, losses, kept) &&
                  ag_compute_cross_entropy_backward(ctx, x, labels, NULL, kept, 0.1, y));
    if (which == 3)
        cr_assert(ag_compute_gather_rows(ctx, x, labels, y));
    if (which == 4)
        cr_assert(ag_compute_scatter_add_rows(ctx, x, labels, y));
    if (which == 5)
        cr_assert(ag_compute_cross_entropy(ctx, x, labels, NULL, losses, kept));
    if (which == 6)
        cr_assert(ag_compute_softmax(ctx, AG_ROWS_LOGSUMEXP, x, losses));
    return which < 5 ? y : losses;
}

Test(rows, threads_do_not_change_a_bit)
{
    ag_context *one = ag_context_new(NULL);
    for (int threads = 1; threads <= 3; threads++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = threads });
        for (int which = 0; which < 7; which++)
            cr_expect(same_bits(computed(one, which), computed(ctx, which)),
                      "%d threads, computation %d", threads, which);
        ag_context_free(ctx);
    }
    ag_context_free(one);
}
