/* Shapes, elements, copies and views. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static ag_context *ctx;

/* Sizes beyond this are never there, so that no test asks the system for them. */
static void *modest_allocate(size_t bytes, void *user)
{
    (void)user;
    return bytes > (size_t)1 << 30 ? NULL : malloc(bytes);
}

static void modest_release(void *memory, void *user)
{
    (void)user;
    free(memory);
}

static void begin(void)
{
    ctx = ag_context_new(
        &(ag_context_options){ .allocator = { modest_allocate, modest_release, NULL } });
}

static void end(void)
{
    ag_context_free(ctx);
}

TestSuite(shape, .init = begin, .fini = end);
TestSuite(tensor, .init = begin, .fini = end);
TestSuite(view, .init = begin, .fini = end);

static void expect(bool result, ag_error error, const char *words)
{
    cr_assert_not(result, "%s", words);
    cr_assert_eq(ag_status(ctx), error, "%s: %s", ag_error_name(ag_status(ctx)), words);
    cr_assert(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
}

/* 0, 1, 2, .. */
static ag_tensor *counted(ag_dtype dtype, ag_shape shape)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape);
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        ag_tensor_put(x, k, (double)k);
    return x;
}

static void expect_values(const ag_tensor *x, ag_shape shape, const double *values)
{
    cr_assert(ag_shape_equal(ag_tensor_shape(x), shape));
    for (int64_t k = 0; k < ag_shape_count(shape); k++)
        cr_assert_eq(ag_tensor_at(x, k), values[k], "element %lld is %g", (long long)k,
                     ag_tensor_at(x, k));
}

/* ---- Shapes ------------------------------------------------------------ */

Test(shape, making_and_counting)
{
    ag_shape shape = AG_SHAPE(2, 3, 4);
    cr_assert_eq(shape.rank, 3);
    cr_assert_eq(shape.dims[0], 2);
    cr_assert_eq(shape.dims[2], 4);
    cr_assert_eq(ag_shape_count(shape), 24);
    cr_assert_eq(ag_shape_count(AG_SCALAR), 1);
    cr_assert_eq(ag_shape_count(AG_SHAPE(3, 0)), 0);
    cr_assert_eq(ag_shape_count(AG_SHAPE(0, INT64_MAX)), 0);
    cr_assert(ag_shape_equal(shape, AG_SHAPE(2, 3, 4)));
    cr_assert_not(ag_shape_equal(shape, AG_SHAPE(2, 3)));
    cr_assert_not(ag_shape_equal(shape, AG_SHAPE(2, 3, 5)));
    cr_assert(ag_shape_equal(AG_SCALAR, AG_SCALAR));
}

Test(shape, text)
{
    char text[64];
    cr_assert_str_eq(ag_shape_text(AG_SHAPE(2, 3), text, sizeof text), "[2,3]");
    cr_assert_str_eq(ag_shape_text(AG_SCALAR, text, sizeof text), "[]");
    cr_assert_str_eq(ag_shape_text(AG_SHAPE(-1), text, sizeof text), "[-1]");
    char guarded[8] = "xxxxxxx";
    for (size_t size = 1; size <= 6; size++) { /* room for less than all of it */
        ag_shape_text(AG_SHAPE(12, 34), guarded, size);
        cr_assert_lt(strlen(guarded), size);
        cr_assert_eq(guarded[6], 'x');
    }
    guarded[0] = 'y';
    ag_shape_text(AG_SHAPE(12, 34), guarded, 0);
    cr_assert_eq(guarded[0], 'y');
}

Test(shape, broadcast)
{
    ag_shape result;
    cr_assert(ag_shape_broadcast(AG_SHAPE(4, 1, 3), AG_SHAPE(2, 1), &result));
    cr_assert(ag_shape_equal(result, AG_SHAPE(4, 2, 3)));
    cr_assert(ag_shape_broadcast(AG_SCALAR, AG_SHAPE(2, 5), &result));
    cr_assert(ag_shape_equal(result, AG_SHAPE(2, 5)));
    cr_assert(ag_shape_broadcast(AG_SHAPE(0), AG_SHAPE(1), &result));
    cr_assert(ag_shape_equal(result, AG_SHAPE(0)), "1 gives way to 0");
    cr_assert_not(ag_shape_broadcast(AG_SHAPE(2), AG_SHAPE(0), &result));
    cr_assert_not(ag_shape_broadcast(AG_SHAPE(2, 3), AG_SHAPE(2), &result));
    cr_assert_not(ag_shape_broadcast(ag_shape_make(9, NULL), AG_SHAPE(2), &result));
    cr_assert_not(ag_shape_broadcast(ag_shape_make(-1, NULL), AG_SHAPE(2), &result));
}

/* ---- Making tensors ---------------------------------------------------- */

Test(tensor, dtypes)
{
    cr_assert_eq(ag_dtype_size(AG_F32), 4u);
    cr_assert_eq(ag_dtype_size(AG_F64), 8u);
    cr_assert_eq(ag_dtype_size(AG_I64), 8u);
    cr_assert_eq(ag_dtype_size((ag_dtype)99), 0u);
    cr_assert_str_eq(ag_dtype_name(AG_F32), "f32");
    cr_assert_str_eq(ag_dtype_name(AG_F64), "f64");
    cr_assert_str_eq(ag_dtype_name(AG_I64), "i64");
    cr_assert(ag_dtype_name((ag_dtype)99));
}

Test(tensor, every_rank)
{
    ag_dtype dtypes[] = { AG_F32, AG_F64, AG_I64 };
    for (int rank = 0; rank <= AG_MAX_RANK; rank++)
        for (int d = 0; d < 3; d++) {
            ag_shape shape = { .rank = rank, .dims = { 2, 1, 3, 1, 2, 1, 2, 2 } };
            ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtypes[d], shape);
            cr_assert(x);
            cr_assert(ag_shape_equal(ag_tensor_shape(x), shape));
            cr_assert_eq(ag_tensor_count(x), ag_shape_count(shape));
            cr_assert(ag_tensor_is_contiguous(x));
            for (int64_t k = 0; k < ag_tensor_count(x); k++)
                cr_assert_eq(ag_tensor_at(x, k), 0);
        }
}

Test(tensor, empty)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 0, 2));
    cr_assert(x);
    cr_assert_eq(ag_tensor_count(x), 0);
    cr_assert(ag_tensor_is_contiguous(x));
    cr_assert(isnan(ag_tensor_at(x, 0)));
    cr_assert(ag_tensor_fill(ctx, x, 1));
    cr_assert(ag_tensor_copy(ctx, x, x));
}

Test(tensor, wrong_shapes_and_dtypes)
{
    ag_dtype f64 = AG_F64;
    expect(ag_tensor_new(ctx, AG_STEP, f64, ag_shape_make(9, NULL)), AG_ERR_SHAPE, "rank 9");
    expect(ag_tensor_new(ctx, AG_STEP, f64, ag_shape_make(-1, NULL)), AG_ERR_SHAPE, "rank -1");
    expect(ag_tensor_new(ctx, AG_STEP, f64, AG_SHAPE(2, -3)), AG_ERR_SHAPE, "[2,-3]");
    expect(ag_tensor_new(ctx, AG_STEP, f64, AG_SHAPE(0, -3)), AG_ERR_SHAPE, "negative");
    expect(ag_tensor_new(ctx, AG_STEP, (ag_dtype)99, AG_SHAPE(2)), AG_ERR_DTYPE, "dtype");
}

Test(tensor, sizes_that_overflow)
{
    const ag_shape shapes[] = {
        AG_SHAPE(INT64_MAX),
        AG_SHAPE(INT64_MAX / 8 + 1),
        AG_SHAPE(INT64_MAX, INT64_MAX),
        AG_SHAPE(4294967296, 4294967296),
        AG_SHAPE(4294967296, 2147483648, 2),
        AG_SHAPE(0, 4294967296, 4294967296),
        AG_SHAPE(1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 16),
        AG_SHAPE(INT64_MAX / 8),
        AG_SHAPE(INT64_MAX / 8 - 100000),
        AG_SHAPE(1 << 20, 1 << 20),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t step = ag_context_memory(ctx).step;
        expect(ag_tensor_new(ctx, AG_KEEP, AG_F64, shapes[i]), AG_ERR_MEMORY, "");
        cr_assert_eq(ag_context_memory(ctx).step, step);
    }
}

Test(tensor, nothing_happens_after_an_error)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(2, 3)), view = { 0 };
    ag_fail(ctx, AG_ERR_STATE, "earlier");
    cr_assert_null(ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(2)));
    cr_assert_not(ag_tensor_fill(ctx, x, 9));
    cr_assert_not(ag_tensor_copy(ctx, x, x));
    cr_assert_not(ag_tensor_permute(ctx, x, (int[]){ 1, 0 }, &view));
    cr_assert_not(ag_tensor_transpose(ctx, x, 0, 1, &view));
    cr_assert_not(ag_tensor_slice(ctx, x, 0, 0, 1, 1, &view));
    cr_assert_not(ag_tensor_flip(ctx, x, 0, &view));
    cr_assert_not(ag_tensor_broadcast(ctx, x, AG_SHAPE(2, 3), &view));
    cr_assert_not(ag_tensor_reshape(ctx, x, AG_SHAPE(6), &view));
    cr_assert_null(view.data);
    cr_assert_eq(ag_tensor_at(x, 5), 5);
    cr_assert_str_eq(ag_error_message(ctx), "earlier");
}

/* ---- Elements ---------------------------------------------------------- */

Test(tensor, elements_by_index_and_by_place)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3, 4)), y;
    cr_assert_eq(ag_tensor_get(x, (int64_t[]){ 1, 2, 3 }), 23);
    cr_assert(ag_tensor_set(x, (int64_t[]){ 1, 0, 2 }, -1));
    cr_assert_eq(ag_tensor_at(x, 14), -1);
    cr_assert(ag_tensor_permute(ctx, x, (int[]){ 2, 0, 1 }, &y));
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < 2; j++)
            for (int64_t k = 0; k < 3; k++) {
                double value = ag_tensor_get(x, (int64_t[]){ j, k, i });
                cr_assert_eq(ag_tensor_get(&y, (int64_t[]){ i, j, k }), value);
                cr_assert_eq(ag_tensor_at(&y, i * 6 + j * 3 + k), value);
            }
    cr_assert(ag_tensor_put(&y, 23, 50));
    cr_assert_eq(ag_tensor_get(x, (int64_t[]){ 1, 2, 3 }), 50);
    ag_tensor *scalar = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SCALAR);
    cr_assert(ag_tensor_set(scalar, NULL, 2.5));
    cr_assert_eq(ag_tensor_get(scalar, NULL), 2.5);
}

Test(tensor, elements_that_are_not_there)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3));
    const int64_t wrong[][2] = { { 2, 0 }, { 0, 3 }, { -1, 0 }, { 0, INT64_MIN } };
    for (int i = 0; i < 4; i++) {
        cr_assert(isnan(ag_tensor_get(x, wrong[i])));
        cr_assert_not(ag_tensor_set(x, wrong[i], 9));
    }
    const int64_t places[] = { -1, 6, INT64_MAX, INT64_MIN };
    for (int i = 0; i < 4; i++) {
        cr_assert(isnan(ag_tensor_at(x, places[i])));
        cr_assert_not(ag_tensor_put(x, places[i], 9));
    }
    cr_assert(isnan(ag_tensor_get(x, NULL)));
    cr_assert(isnan(ag_tensor_get(NULL, wrong[0])));
    cr_assert(isnan(ag_tensor_at(NULL, 0)));
    cr_assert_not(ag_tensor_set(NULL, wrong[0], 1));
    cr_assert_not(ag_tensor_put(NULL, 0, 1));
    cr_assert_eq(ag_tensor_count(NULL), 0);
    cr_assert_not(ag_tensor_is_contiguous(NULL));
    cr_assert_lt(ag_tensor_shape(NULL).rank, 0, "a shape that is refused");
    expect_values(x, AG_SHAPE(2, 3), (double[]){ 0, 1, 2, 3, 4, 5 });
}

Test(tensor, integers_from_doubles)
{
    const double from[] = { 2.9, -2.9, 1e30, -1e30, INFINITY, -INFINITY, NAN, 0x1p63, -0x1p63 };
    const int64_t to[] = { 2,         -2, INT64_MAX, INT64_MIN, INT64_MAX,
                           INT64_MIN, 0,  INT64_MAX, INT64_MIN };
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(9));
    ag_tensor *y = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(9));
    for (int i = 0; i < 9; i++) {
        ag_tensor_put(x, i, from[i]);
        ag_tensor_put(y, i, from[i]);
        cr_assert_eq(((int64_t *)x->data)[i], to[i], "%g", from[i]);
    }
    ag_tensor_fill(ctx, x, 77);
    cr_assert(ag_tensor_copy(ctx, x, y));
    cr_assert_eq(memcmp(x->data, to, sizeof to), 0);
}

/* ---- Copies ------------------------------------------------------------ */

Test(tensor, copy_between_all_dtypes)
{
    ag_dtype dtypes[] = { AG_F32, AG_F64, AG_I64 };
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++) {
            ag_tensor *from = counted(dtypes[a], AG_SHAPE(3, 4)), view;
            ag_tensor *to = ag_tensor_new(ctx, AG_STEP, dtypes[b], AG_SHAPE(4, 3));
            cr_assert(ag_tensor_transpose(ctx, from, 0, 1, &view));
            cr_assert(ag_tensor_copy(ctx, to, &view));
            expect_values(to, AG_SHAPE(4, 3), (double[]){ 0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11 });
        }
    ag_tensor *exact = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(1));
    ag_tensor *copy = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(1));
    *(int64_t *)exact->data = INT64_MAX - 1;
    cr_assert(ag_tensor_copy(ctx, copy, exact));
    cr_assert_eq(*(int64_t *)copy->data, INT64_MAX - 1);
}

Test(tensor, copy_broadcasts)
{
    ag_tensor *to = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2, 3));
    cr_assert(ag_tensor_copy(ctx, to, counted(AG_I64, AG_SHAPE(3))));
    expect_values(to, AG_SHAPE(2, 3), (double[]){ 0, 1, 2, 0, 1, 2 });
    cr_assert(ag_tensor_copy(ctx, to, counted(AG_F64, AG_SHAPE(2, 1))));
    expect_values(to, AG_SHAPE(2, 3), (double[]){ 0, 0, 0, 1, 1, 1 });
    cr_assert(ag_tensor_fill(ctx, to, -7));
    expect_values(to, AG_SHAPE(2, 3), (double[]){ -7, -7, -7, -7, -7, -7 });
    expect(ag_tensor_copy(ctx, to, counted(AG_F32, AG_SHAPE(2))), AG_ERR_SHAPE, "[2]");
    expect(ag_tensor_copy(ctx, to, counted(AG_F32, AG_SHAPE(1, 2, 3))), AG_ERR_SHAPE, "[1,2,3]");
    ag_tensor *row = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3));
    expect(ag_tensor_copy(ctx, row, to), AG_ERR_SHAPE, "[2,3]");
}

Test(tensor, fill_of_a_view_leaves_the_rest)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(3, 3)), column;
    cr_assert(ag_tensor_slice(ctx, x, 1, 1, 2, 1, &column));
    cr_assert(ag_tensor_fill(ctx, &column, 9));
    expect_values(x, AG_SHAPE(3, 3), (double[]){ 0, 9, 2, 3, 9, 5, 6, 9, 8 });
}

/* Source and target share memory: as if the source had been copied first. */
Test(tensor, copy_of_overlapping_tensors)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(6)), a, b;
    ag_tensor_slice(ctx, x, 0, 0, 5, 1, &a);
    ag_tensor_slice(ctx, x, 0, 1, 6, 1, &b);
    cr_assert(ag_tensor_copy(ctx, &b, &a));
    expect_values(x, AG_SHAPE(6), (double[]){ 0, 0, 1, 2, 3, 4 });
    cr_assert(ag_tensor_copy(ctx, &a, &b));
    expect_values(x, AG_SHAPE(6), (double[]){ 0, 1, 2, 3, 4, 4 });

    ag_tensor_flip(ctx, x, 0, &a);
    cr_assert(ag_tensor_copy(ctx, x, &a));
    expect_values(x, AG_SHAPE(6), (double[]){ 4, 4, 3, 2, 1, 0 });

    ag_tensor *square = counted(AG_F32, AG_SHAPE(3, 3));
    ag_tensor_transpose(ctx, square, 0, 1, &a);
    cr_assert(ag_tensor_copy(ctx, square, &a));
    expect_values(square, AG_SHAPE(3, 3), (double[]){ 0, 3, 6, 1, 4, 7, 2, 5, 8 });
    ag_tensor_slice(ctx, square, 0, 2, 3, 1, &b); /* its last row into all of it */
    cr_assert(ag_tensor_copy(ctx, square, &b));
    expect_values(square, AG_SHAPE(3, 3), (double[]){ 2, 5, 8, 2, 5, 8, 2, 5, 8 });
    cr_assert(ag_tensor_copy(ctx, square, square));
    cr_assert_eq(ag_tensor_at(square, 8), 8);
}

Test(tensor, copy_of_nothing)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(2));
    expect(ag_tensor_copy(ctx, NULL, x), AG_ERR_ARGUMENT, "NULL");
    expect(ag_tensor_copy(ctx, x, NULL), AG_ERR_ARGUMENT, "NULL");
    expect(ag_tensor_fill(ctx, NULL, 1), AG_ERR_ARGUMENT, "NULL");
    ag_tensor broken = *x;
    broken.dtype = AG_DEFAULT_DTYPE;
    expect(ag_tensor_copy(ctx, x, &broken), AG_ERR_DTYPE, "default");
    expect(ag_tensor_copy(ctx, &broken, x), AG_ERR_DTYPE, "default");
    expect(ag_tensor_fill(ctx, &broken, 1), AG_ERR_DTYPE, "default");
}

Test(tensor, dense)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3)), view, dense;
    cr_assert(ag_tensor_dense(ctx, x, &dense));
    cr_assert_eq(dense.data, x->data, "nothing to copy");
    cr_assert(ag_tensor_transpose(ctx, x, 0, 1, &view));
    cr_assert(ag_tensor_dense(ctx, &view, &dense));
    cr_assert_neq(dense.data, x->data);
    cr_assert(ag_tensor_is_contiguous(&dense));
    expect_values(&dense, AG_SHAPE(3, 2), (double[]){ 0, 3, 1, 4, 2, 5 });
}

/* ---- Views ------------------------------------------------------------- */

Test(view, permute)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(2, 3)), y;
    cr_assert(ag_tensor_permute(ctx, x, (int[]){ 1, 0 }, &y));
    cr_assert_eq(y.data, x->data);
    expect_values(&y, AG_SHAPE(3, 2), (double[]){ 0, 3, 1, 4, 2, 5 });
    cr_assert_not(ag_tensor_is_contiguous(&y));
    cr_assert(ag_tensor_permute(ctx, &y, (int[]){ -1, -2 }, &y), "onto itself");
    expect_values(&y, AG_SHAPE(2, 3), (double[]){ 0, 1, 2, 3, 4, 5 });
    cr_assert(ag_tensor_permute(ctx, counted(AG_F64, AG_SCALAR), NULL, &y));
    expect(ag_tensor_permute(ctx, x, (int[]){ 0, 0 }, &y), AG_ERR_INDEX, "permute");
    expect(ag_tensor_permute(ctx, x, (int[]){ 0, -2 }, &y), AG_ERR_INDEX, "permute");
    expect(ag_tensor_permute(ctx, x, (int[]){ 0, 2 }, &y), AG_ERR_INDEX, "axis 2");
    expect(ag_tensor_permute(ctx, x, NULL, &y), AG_ERR_ARGUMENT, "NULL");
}

Test(view, transpose)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3, 4)), y;
    cr_assert(ag_tensor_transpose(ctx, x, 0, -1, &y));
    cr_assert(ag_shape_equal(ag_tensor_shape(&y), AG_SHAPE(4, 3, 2)));
    cr_assert_eq(ag_tensor_get(&y, (int64_t[]){ 3, 1, 0 }), 7);
    cr_assert(ag_tensor_transpose(ctx, x, 1, 1, &y));
    cr_assert(ag_tensor_is_contiguous(&y));
    expect(ag_tensor_transpose(ctx, x, 3, 0, &y), AG_ERR_INDEX, "transpose");
    expect(ag_tensor_transpose(ctx, x, 0, -4, &y), AG_ERR_INDEX, "axis -4");
    expect(ag_tensor_transpose(ctx, counted(AG_F32, AG_SCALAR), 0, 0, &y), AG_ERR_INDEX, "rank 0");
}

/* Against what Python's x[start:stop:step] gives. */
Test(view, slice_as_in_python)
{
    const struct {
        int64_t start, stop, step, size, first;
    } cases[] = {
        { 0, AG_END, 1, 7, 0 },    { 2, 5, 1, 3, 2 },
        { 1, 7, 2, 3, 1 },         { 0, 7, 3, 3, 0 },
        { -3, AG_END, 1, 3, 4 },   { -3, -1, 1, 2, 4 },
        { 5, 2, 1, 0, 0 },         { 7, AG_END, 1, 0, 0 },
        { 100, 200, 1, 0, 0 },     { -100, 2, 1, 2, 0 },
        { 0, -100, 1, 0, 0 },      { INT64_MIN, AG_END, 1, 7, 0 },
        { 6, 7, INT64_MAX, 1, 6 }, { 0, AG_END, INT64_MAX, 1, 0 },
        { 0, 0, 1, 0, 0 },
    };
    ag_tensor *x = counted(AG_F64, AG_SHAPE(7)), y;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert(ag_tensor_slice(ctx, x, 0, cases[i].start, cases[i].stop, cases[i].step, &y));
        cr_assert_eq(y.dims[0], cases[i].size, "case %zu: %lld", i, (long long)y.dims[0]);
        for (int64_t k = 0; k < y.dims[0]; k++)
            cr_assert_eq(ag_tensor_at(&y, k), (double)(cases[i].first + k * cases[i].step));
    }
    expect(ag_tensor_slice(ctx, x, 0, 0, 1, 0, &y), AG_ERR_ARGUMENT, "step 0");
    expect(ag_tensor_slice(ctx, x, 0, 0, 1, -1, &y), AG_ERR_ARGUMENT, "step -1");
    expect(ag_tensor_slice(ctx, x, 1, 0, 1, 1, &y), AG_ERR_INDEX, "slice");
}

Test(view, slice_of_a_slice)
{
    ag_tensor *x = counted(AG_I64, AG_SHAPE(4, 5)), y;
    cr_assert(ag_tensor_slice(ctx, x, -1, 1, AG_END, 2, &y));
    cr_assert(ag_tensor_slice(ctx, &y, 0, 1, 3, 1, &y));
    expect_values(&y, AG_SHAPE(2, 2), (double[]){ 6, 8, 11, 13 });
    ag_tensor_put(&y, 3, -1);
    cr_assert_eq(ag_tensor_at(x, 13), -1, "a view shares its data");
}

Test(view, flip)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3)), y;
    cr_assert(ag_tensor_flip(ctx, x, 1, &y));
    expect_values(&y, AG_SHAPE(2, 3), (double[]){ 2, 1, 0, 5, 4, 3 });
    cr_assert(ag_tensor_flip(ctx, &y, -2, &y));
    expect_values(&y, AG_SHAPE(2, 3), (double[]){ 5, 4, 3, 2, 1, 0 });
    cr_assert(ag_tensor_slice(ctx, &y, 1, 1, 3, 1, &y));
    expect_values(&y, AG_SHAPE(2, 2), (double[]){ 4, 3, 1, 0 });
    cr_assert(ag_tensor_flip(ctx, counted(AG_F32, AG_SHAPE(0, 2)), 0, &y));
    cr_assert(ag_tensor_flip(ctx, counted(AG_F32, AG_SHAPE(0, 2)), 1, &y));
    expect(ag_tensor_flip(ctx, x, 2, &y), AG_ERR_INDEX, "flip");
}

Test(view, broadcast)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(2, 1)), y;
    cr_assert(ag_tensor_broadcast(ctx, x, AG_SHAPE(2, 2, 3), &y));
    expect_values(&y, AG_SHAPE(2, 2, 3), (double[]){ 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1 });
    cr_assert_eq(y.data, x->data);
    cr_assert_not(ag_tensor_is_contiguous(&y));
    cr_assert(ag_tensor_broadcast(ctx, x, AG_SHAPE(2, 0), &y));
    cr_assert_eq(ag_tensor_count(&y), 0);
    expect(ag_tensor_broadcast(ctx, x, AG_SHAPE(3, 1), &y), AG_ERR_SHAPE, "[2,1]");
    expect(ag_tensor_broadcast(ctx, x, AG_SHAPE(2), &y), AG_ERR_SHAPE, "broadcast");
    expect(ag_tensor_broadcast(ctx, x, AG_SHAPE(2, -1), &y), AG_ERR_SHAPE, "");
    expect(ag_tensor_broadcast(ctx, x, ag_shape_make(9, NULL), &y), AG_ERR_SHAPE, "broadcast");
    expect(ag_tensor_broadcast(ctx, x, AG_SHAPE(INT64_MAX, 2, 9), &y), AG_ERR_MEMORY, "elements");
}

Test(view, reshape)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3, 4)), y;
    cr_assert(ag_tensor_reshape(ctx, x, AG_SHAPE(6, -1), &y));
    cr_assert_eq(y.data, x->data);
    cr_assert(ag_shape_equal(ag_tensor_shape(&y), AG_SHAPE(6, 4)));
    cr_assert(ag_tensor_reshape(ctx, x, AG_SHAPE(1, 24, 1), &y));
    cr_assert(ag_tensor_is_contiguous(&y));
    cr_assert(ag_tensor_reshape(ctx, counted(AG_F32, AG_SHAPE(1, 1)), AG_SCALAR, &y));
    cr_assert_eq(y.rank, 0);
    cr_assert(ag_tensor_reshape(ctx, counted(AG_F32, AG_SCALAR), AG_SHAPE(1, 1, 1), &y));
    cr_assert_eq(y.rank, 3);
    cr_assert(ag_tensor_reshape(ctx, counted(AG_F32, AG_SHAPE(0, 3)), AG_SHAPE(5, 0, 2), &y));
    cr_assert(ag_tensor_reshape(ctx, counted(AG_F32, AG_SHAPE(0, 3)), AG_SHAPE(-1, 3), &y));
    cr_assert_eq(y.dims[0], 0);
}

Test(view, reshape_that_does_not_fit)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3, 4)), y;
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(5, 5), &y), AG_ERR_SHAPE, "[2,3,4]");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(5, -1), &y), AG_ERR_SHAPE, "[5,-1]");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(-1, -1), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(-2, -12), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(0, -1), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(INT64_MAX, INT64_MAX), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(4294967296, 4294967296, 24), &y), AG_ERR_SHAPE, "");
    expect(ag_tensor_reshape(ctx, x, ag_shape_make(9, NULL), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, ag_shape_make(-1, NULL), &y), AG_ERR_SHAPE, "reshape");
    expect(ag_tensor_reshape(ctx, x, AG_SCALAR, &y), AG_ERR_SHAPE, "[]");
}

/* A view where the strides allow it, a copy where they do not. */
Test(view, reshape_of_views)
{
    ag_tensor *x = counted(AG_F64, AG_SHAPE(4, 6)), y, z;
    cr_assert(ag_tensor_slice(ctx, x, 1, 0, 4, 1, &y)); /* splitting an axis needs no copy */
    cr_assert(ag_tensor_reshape(ctx, &y, AG_SHAPE(2, 2, 2, 2), &z));
    cr_assert_eq(z.data, x->data);
    cr_assert_eq(ag_tensor_get(&z, (int64_t[]){ 1, 1, 1, 0 }), 20);
    cr_assert(ag_tensor_reshape(ctx, &y, AG_SHAPE(16), &z)); /* joining these does */
    cr_assert_neq(z.data, x->data);
    for (int64_t k = 0; k < 16; k++)
        cr_assert_eq(ag_tensor_at(&z, k), ag_tensor_at(&y, k));
    cr_assert(ag_tensor_flip(ctx, x, 0, &y));
    cr_assert(ag_tensor_flip(ctx, &y, 1, &y)); /* backwards throughout */
    cr_assert(ag_tensor_reshape(ctx, &y, AG_SHAPE(24), &z));
    cr_assert_eq(z.strides[0], -1);
}

/* Random views of random tensors, reshaped at random: always the same elements. */
Test(view, reshape_keeps_the_order)
{
    ag_random r = ag_random_stream(1, "reshape", 0);
    int64_t order[5];
    int copies = 0;
    for (int round = 0; round < 2000; round++) {
        ag_tensor *x = counted(AG_I64, AG_SHAPE(2, 3, 4, 1, 2)), view, y;
        ag_random_permutation(&r, 5, order);
        int axes[5];
        for (int i = 0; i < 5; i++)
            axes[i] = round % 3 ? i : (int)order[i];
        cr_assert(ag_tensor_permute(ctx, x, axes, &view));
        if (round % 2)
            cr_assert(ag_tensor_flip(ctx, &view, (int)ag_random_integer(&r, 5), &view));
        ag_shape shape = { .rank = 0 };
        for (int64_t rest = 48; rest > 1 || shape.rank == 0;) { /* factors of 48 */
            int64_t factor = 1 + ag_random_integer(&r, rest);
            if (rest % factor || shape.rank == AG_MAX_RANK - 1)
                factor = rest;
            shape.dims[shape.rank++] = factor;
            rest /= factor;
        }
        cr_assert(ag_tensor_reshape(ctx, &view, shape, &y));
        copies += (char *)y.data < (char *)x->data || (char *)y.data >= (char *)x->data + 384;
        for (int64_t k = 0; k < 48; k++)
            cr_assert_eq(ag_tensor_at(&y, k), ag_tensor_at(&view, k));
        ag_memory_reset_step(ctx);
    }
    cr_assert(copies > 100 && copies < 1900, "%d", copies);
}

/* What fails leaves the view as it was; NULL is an error everywhere. */
Test(view, operands_that_are_null)
{
    ag_tensor *x = counted(AG_F32, AG_SHAPE(2, 3)), view = *x;
    for (int i = 0; i < 2; i++) {
        const ag_tensor *from = i ? x : NULL;
        ag_tensor *to = i ? NULL : &view;
        expect(ag_tensor_permute(ctx, from, (int[]){ 1, 0 }, to), AG_ERR_ARGUMENT, "permute");
        expect(ag_tensor_transpose(ctx, from, 0, 1, to), AG_ERR_ARGUMENT, "transpose");
        expect(ag_tensor_slice(ctx, from, 0, 0, 1, 1, to), AG_ERR_ARGUMENT, "slice");
        expect(ag_tensor_flip(ctx, from, 0, to), AG_ERR_ARGUMENT, "flip");
        expect(ag_tensor_broadcast(ctx, from, AG_SHAPE(2, 3), to), AG_ERR_ARGUMENT, "broadcast");
        expect(ag_tensor_reshape(ctx, from, AG_SHAPE(6), to), AG_ERR_ARGUMENT, "reshape");
    }
    expect(ag_tensor_slice(ctx, x, 5, 0, 1, 1, &view), AG_ERR_INDEX, "slice");
    expect(ag_tensor_reshape(ctx, x, AG_SHAPE(7), &view), AG_ERR_SHAPE, "reshape");
    cr_assert(ag_shape_equal(ag_tensor_shape(&view), AG_SHAPE(2, 3)));
}

Test(view, axes)
{
    cr_assert_eq(ag_axis(ctx, "test", 0, 3), 0);
    cr_assert_eq(ag_axis(ctx, "test", -1, 3), 2);
    cr_assert_eq(ag_axis(ctx, "test", -3, 3), 0);
    expect(ag_axis(ctx, "test", 3, 3) >= 0, AG_ERR_INDEX, "test: ");
    expect(ag_axis(ctx, "test", -4, 3) >= 0, AG_ERR_INDEX, "axis -4");
    expect(ag_axis(ctx, "test", 0, 0) >= 0, AG_ERR_INDEX, "rank 0");
}
