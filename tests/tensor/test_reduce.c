/* Sums, maxima, argmax and cumulative sums against plain loops over indices. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../../tensor/internal.h"

static const ag_dtype FLOATS[2] = { AG_F32, AG_F64 };

/* A tensor of this shape whose axes lie in a random order, some of them with
 * gaps, some backwards, some repeated with stride 0; filled at random. */
static ag_tensor random_view(ag_context *ctx, ag_random *random, ag_dtype dtype, ag_shape shape)
{
    int64_t order[AG_MAX_RANK], size = 1, offset = 0;
    ag_tensor view = { .dtype = dtype, .rank = shape.rank };
    ag_random_permutation(random, shape.rank, order);
    for (int i = 0; i < shape.rank; i++) {
        int64_t axis = order[i], kind = ag_random_integer(random, 8);
        view.dims[axis] = shape.dims[axis];
        view.strides[axis] = kind == 0 ? 0 : kind == 1 ? -size : kind == 2 ? 2 * size : size;
        if (kind == 1 && shape.dims[axis] > 0)
            offset += size * (shape.dims[axis] - 1);
        size *= kind == 0 ? 1 : kind == 2 ? 2 * shape.dims[axis] : shape.dims[axis];
    }
    ag_tensor *base = ag_tensor_new(ctx, AG_STEP, dtype, AG_SHAPE(size));
    cr_assert_not_null(base, "%s", ag_error_message(ctx));
    ag_random_fill_normal(ctx, random, base, 0, 1);
    view.data = (char *)base->data + offset * (int64_t)ag_dtype_size(dtype);
    return view;
}

static ag_tensor *copy_of(ag_context *ctx, const ag_tensor *x)
{
    ag_tensor *copy = ag_tensor_new(ctx, AG_STEP, x->dtype, ag_tensor_shape(x));
    cr_assert(ag_tensor_copy(ctx, copy, x));
    return copy;
}

static bool same_bits(const ag_tensor *a, const ag_tensor *b)
{
    return memcmp(a->data, b->data, (size_t)ag_tensor_count(a) * ag_dtype_size(a->dtype)) == 0;
}

static ag_shape kept_shape(ag_shape shape, unsigned axes)
{
    ag_shape kept = AG_SCALAR;
    for (int i = 0; i < shape.rank; i++)
        if (!(axes >> i & 1))
            kept.dims[kept.rank++] = shape.dims[i];
    return kept;
}

/* The place in the kept axes of the k-th element of shape. */
static int64_t kept_place(ag_shape shape, unsigned axes, int64_t k)
{
    int64_t place = 0, size = 1;
    for (int i = shape.rank - 1; i >= 0; i--) {
        if (!(axes >> i & 1)) {
            place += k % shape.dims[i] * size;
            size *= shape.dims[i];
        }
        k /= shape.dims[i];
    }
    return place;
}

static void check_reduce(ag_context *ctx, const ag_tensor *x, unsigned axes)
{
    ag_shape shape = ag_tensor_shape(x), kept = kept_shape(shape, axes);
    ag_tensor *dense = copy_of(ctx, x);
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, x->dtype, kept);
    ag_tensor *y_dense = ag_tensor_new(ctx, AG_STEP, x->dtype, kept);
    ag_tensor *sums = ag_tensor_new(ctx, AG_STEP, AG_F64, kept);
    ag_tensor *sizes = ag_tensor_new(ctx, AG_STEP, AG_F64, kept);
    ag_tensor *maxima = ag_tensor_new(ctx, AG_STEP, AG_F64, kept);
    ag_tensor *carries = ag_tensor_new(ctx, AG_STEP, AG_F64, kept);
    double *sum = sums->data, *lost = carries->data, *size = sizes->data, *maximum = maxima->data;
    char text[100];
    ag_shape_text(shape, text, sizeof text);
    ag_tensor_fill(ctx, maxima, -INFINITY);
    for (int64_t k = 0; k < ag_tensor_count(x); k++) {
        double value = ag_tensor_at(x, k);
        int64_t place = kept_place(shape, axes, k);
        double summand = value - lost[place], next = sum[place] + summand; /* Kahan's sum */
        lost[place] = (next - sum[place]) - summand;
        sum[place] = next;
        size[place] += fabs(value);
        maximum[place] = fmax(maximum[place], value);
    }
    double tolerance = x->dtype == AG_F32 ? 1e-5 : 2e-14;
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, x, axes, y));
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, dense, axes, y_dense));
    cr_assert(same_bits(y, y_dense), "%s axes %x: a view's sum", text, axes);
    for (int64_t k = 0; k < ag_tensor_count(y); k++)
        cr_assert_leq(fabs(ag_tensor_at(y, k) - sum[k]), tolerance * (size[k] + fabs(sum[k])),
                      "%s axes %x at %d: %.17g, not %.17g", text, axes, (int)k, ag_tensor_at(y, k),
                      sum[k]);
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_MAX, x, axes, y));
    for (int64_t k = 0; k < ag_tensor_count(y); k++)
        cr_assert_eq(ag_tensor_at(y, k), maximum[k], "max %s axes %x at %d", text, axes, (int)k);
    ag_memory_reset_step(ctx);
}

Test(reduce, every_subset_of_axes)
{
    static const int64_t shapes[][5] = { { 3, 4, 2, 5, 3 },
                                         { 1, 7, 1, 33, 2 },
                                         { 17, 1, 2, 1, 31 },
                                         { 2, 3, 0, 2, 2 },
                                         { 5, 129, 1, 3, 1 } };
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "reduce", 0);
    for (int s = 0; s < 5; s++)
        for (int rank = 0; rank <= 5; rank++)
            for (unsigned axes = 0; axes < 1u << rank; axes++) {
                ag_tensor x = random_view(ctx, &random, FLOATS[(axes + s) % 2],
                                          ag_shape_make(rank, shapes[s] + (s % 2) * (5 - rank)));
                check_reduce(ctx, &x, axes);
            }
    ag_context_free(ctx);
}

Test(reduce, sizes_around_the_blocks)
{
    static const int64_t rows[] = { 1, 255, 256, 257, 513 }, columns[] = { 1, 31, 33, 511, 513 };
    static const int64_t lengths[] = { 1, 2, 15, 16, 17, 31, 32, 33, 4095, 4096, 4097, 100003 };
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(2, "reduce", 0);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++)
            for (unsigned axes = 1; axes < 4; axes++) {
                ag_tensor x =
                    random_view(ctx, &random, FLOATS[(i + j) % 2], AG_SHAPE(rows[i], columns[j]));
                check_reduce(ctx, &x, axes);
            }
    for (int i = 0; i < 12; i++)
        for (int d = 0; d < 2; d++) {
            ag_tensor x = random_view(ctx, &random, FLOATS[d], AG_SHAPE(lengths[i], 1 + i % 3));
            check_reduce(ctx, &x, 1 + (unsigned)i % 3);
        }
    ag_context_free(ctx);
}

/* A running sum in f32 stops at 2^24; this one must not. */
Test(reduce, long_sums_stay_exact)
{
    ag_context *ctx = ag_context_new(NULL);
    const int64_t n = (1 << 24) + 4096;
    ag_tensor *one = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(1));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(1));
    ag_tensor rows, columns;
    ag_tensor_fill(ctx, one, 1);
    cr_assert(ag_tensor_broadcast(ctx, one, AG_SHAPE(n), &rows));
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, &rows, 1, y));
    cr_expect_eq(ag_tensor_at(y, 0), (double)n);
    ag_tensor *y2 = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2));
    cr_assert(ag_tensor_broadcast(ctx, one, AG_SHAPE(n, 2), &columns));
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, &columns, 1, y2));
    cr_expect_eq(ag_tensor_at(y2, 1), (double)n);
    ag_context_free(ctx);
}

Test(reduce, nan_and_nothing)
{
    ag_context *ctx = ag_context_new(NULL);
    for (int d = 0; d < 2; d++)
        for (int64_t at = 0; at < 70; at++)
            for (unsigned axes = 1; axes < 4; axes++) {
                ag_tensor *x = ag_tensor_new(ctx, AG_STEP, FLOATS[d], AG_SHAPE(70, 70));
                ag_tensor *y =
                    ag_tensor_new(ctx, AG_STEP, FLOATS[d], kept_shape(AG_SHAPE(70, 70), axes));
                ag_tensor_put(x, at * 70 + at, NAN);
                ag_tensor_put(x, at * 70 + (at + 1) % 70, INFINITY);
                ag_tensor_put(x, (at + 1) % 70 * 70 + at, INFINITY);
                cr_assert(ag_compute_reduce(ctx, AG_REDUCE_MAX, x, axes, y));
                cr_assert(isnan(ag_tensor_at(y, axes == 3 ? 0 : at)), "NaN at %d", (int)at);
                ag_memory_reset_step(ctx);
            }
    ag_tensor *nothing = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 0));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3));
    ag_tensor_fill(ctx, y, 7);
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, nothing, 2, y));
    cr_expect_eq(ag_tensor_at(y, 2), 0);
    cr_assert(ag_compute_reduce(ctx, AG_REDUCE_MAX, nothing, 2, y));
    cr_expect_eq(ag_tensor_at(y, 2), -INFINITY);
    ag_context_free(ctx);
}

static void check_argmax_and_cumsum(ag_context *ctx, const ag_tensor *x, int axis)
{
    ag_shape shape = ag_tensor_shape(x);
    int64_t n = shape.dims[axis], inner = 1;
    for (int i = axis + 1; i < shape.rank; i++)
        inner *= shape.dims[i];
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_I64, kept_shape(shape, 1u << axis));
    ag_tensor *sums = ag_tensor_new(ctx, AG_STEP, x->dtype, shape);
    double tolerance = x->dtype == AG_F32 ? 1e-7 : 1e-15;
    cr_assert(ag_compute_argmax(ctx, x, axis, y));
    cr_assert(ag_compute_cumsum(ctx, x, axis, sums));
    for (int64_t k = 0; k < ag_tensor_count(y); k++) {
        int64_t first = k / inner * n * inner + k % inner, best = 0;
        double largest = ag_tensor_at(x, first), sum = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            double value = ag_tensor_at(x, first + i * inner);
            if (value > largest || (isnan(value) && !isnan(largest))) {
                largest = value;
                best = i;
            }
            sum += value;
            size += fabs(value);
            double got = ag_tensor_at(sums, first + i * inner);
            cr_assert(isnan(sum) ? isnan(got) : fabs(got - sum) <= tolerance * size,
                      "cumsum %g, not %g", got, sum);
        }
        cr_assert_eq(((int64_t *)y->data)[k], best, "argmax at %d", (int)k);
    }
    ag_memory_reset_step(ctx);
}

Test(reduce, argmax_and_cumsum)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(3, "reduce", 0);
    static const int64_t shapes[][3] = { { 3, 4, 5 },    { 1, 1, 1 },    { 2, 4097, 1 },
                                         { 1, 65, 513 }, { 300, 2, 31 }, { 1, 9000, 1 } };
    for (int s = 0; s < 6; s++)
        for (int axis = 0; axis < 3; axis++)
            for (int d = 0; d < 2; d++) {
                ag_shape shape = ag_shape_make(3, shapes[s]);
                ag_tensor x = random_view(ctx, &random, FLOATS[d], shape);
                ag_tensor *ties = ag_tensor_new(ctx, AG_STEP, FLOATS[d], shape);
                for (int64_t k = 0; k < ag_tensor_count(ties); k++) {
                    int64_t value = ag_random_integer(&random, 6);
                    ag_tensor_put(ties, k, value == 0 ? NAN : (double)(value - 3));
                }
                ag_tensor kept = *ties;
                check_argmax_and_cumsum(ctx, &kept, axis);
                x = random_view(ctx, &random, FLOATS[d], shape);
                check_argmax_and_cumsum(ctx, &x, axis);
            }
    ag_tensor *nothing = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 0));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(3));
    cr_expect(!ag_compute_argmax(ctx, nothing, 1, y));
    cr_expect_eq(ag_status(ctx), AG_ERR_SHAPE);
    ag_context_free(ctx);
}

static ag_tensor *computed(ag_context *ctx, int which)
{
    static const unsigned axes[] = { 1, 2, 4, 5, 7 };
    ag_random random = ag_random_stream(4, "reduce", 0);
    ag_shape shape = AG_SHAPE(40, 60, 70);
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, shape), *y;
    ag_random_fill_normal(ctx, &random, x, 0, 1);
    if (which < 5) {
        y = ag_tensor_new(ctx, AG_STEP, AG_F32, kept_shape(shape, axes[which]));
        cr_assert(ag_compute_reduce(ctx, AG_REDUCE_SUM, x, axes[which], y));
    } else if (which < 8) {
        y = ag_tensor_new(ctx, AG_STEP, AG_F32, shape);
        cr_assert(ag_compute_cumsum(ctx, x, which - 5, y));
    } else {
        y = ag_tensor_new(ctx, AG_STEP, AG_I64, kept_shape(shape, 1u << (which - 8)));
        cr_assert(ag_compute_argmax(ctx, x, which - 8, y));
    }
    return y;
}

Test(reduce, threads_do_not_change_a_bit)
{
    ag_context *one = ag_context_new(NULL);
    for (int threads = 1; threads <= 3; threads++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = threads });
        for (int which = 0; which < 11; which++)
            cr_expect(same_bits(computed(one, which), computed(ctx, which)),
                      "%d threads, computation %d", threads, which);
        ag_context_free(ctx);
    }
    ag_context_free(one);
}

static void *no_memory(size_t bytes, void *user)
{
    (void)bytes;
    (void)user;
    return NULL;
}

Test(reduce, out_of_memory)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_tensor *one = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(1));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(1)), x;
    ag_allocator allocator = ctx->allocator;
    cr_assert(ag_tensor_broadcast(ctx, one, AG_SHAPE(1 << 26), &x));
    ctx->allocator.allocate = no_memory;
    ag_tensor_fill(ctx, y, 7);
    while (ag_memory_new(ctx, AG_STEP, 4096))
        ;
    ag_error_clear(ctx);
    cr_expect(!ag_compute_reduce(ctx, AG_REDUCE_SUM, &x, 1, y));
    cr_expect_eq(ag_status(ctx), AG_ERR_MEMORY);
    cr_expect_eq(ag_tensor_at(y, 0), 7);
    ctx->allocator = allocator;
    ag_context_free(ctx);
}
