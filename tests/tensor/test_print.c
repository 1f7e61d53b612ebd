/* What ag_tensor_print writes, character by character. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static ag_context *ctx;

static void begin(void)
{
    ctx = ag_context_new(NULL);
}

static void end(void)
{
    ag_context_free(ctx);
}

TestSuite(print, .init = begin, .fini = end);

static void expect_text(const ag_tensor *x, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    ag_tensor_print(x, file);
    fclose(file);
    cr_assert_str_eq(text, expected, "\n%s", text);
    free(text);
}

static ag_tensor *tensor(ag_dtype dtype, ag_shape shape, const double *values)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape);
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        ag_tensor_put(x, k, values ? values[k] : (double)k);
    return x;
}

Test(print, scalars)
{
    expect_text(tensor(AG_F32, AG_SCALAR, (double[]){ 1.5 }), "1.5000\n");
    expect_text(tensor(AG_F64, AG_SCALAR, (double[]){ 0 }), "0.0000\n");
    expect_text(tensor(AG_I64, AG_SCALAR, (double[]){ -7 }), "-7\n");
}

Test(print, matrix)
{
    double values[] = { 0.5, -1.25, 3, 1, 0, 12 };
    const char *text = "[[ 0.5000 -1.2500  3.0000]\n"
                       " [ 1.0000  0.0000 12.0000]]\n";
    expect_text(tensor(AG_F32, AG_SHAPE(2, 3), values), text);
    expect_text(tensor(AG_F64, AG_SHAPE(2, 3), values), text);
}

Test(print, integers)
{
    expect_text(tensor(AG_I64, AG_SHAPE(2, 2), (double[]){ 1, -20, 300, 4 }), "[[  1 -20]\n"
                                                                              " [300   4]]\n");
    ag_tensor *x = tensor(AG_I64, AG_SHAPE(2), NULL);
    ((int64_t *)x->data)[0] = INT64_MAX; /* which no double holds */
    ((int64_t *)x->data)[1] = INT64_MIN;
    expect_text(x, "[ 9223372036854775807 -9223372036854775808]\n");
}

Test(print, three_axes)
{
    expect_text(tensor(AG_I64, AG_SHAPE(2, 2, 3), NULL), "[[[ 0  1  2]\n"
                                                         "  [ 3  4  5]]\n"
                                                         "\n"
                                                         " [[ 6  7  8]\n"
                                                         "  [ 9 10 11]]]\n");
}

Test(print, views)
{
    ag_tensor *x = tensor(AG_I64, AG_SHAPE(2, 3), NULL), view;
    cr_assert(ag_tensor_transpose(ctx, x, 0, 1, &view));
    expect_text(&view, "[[0 3]\n [1 4]\n [2 5]]\n");
    cr_assert(ag_tensor_flip(ctx, x, 1, &view));
    expect_text(&view, "[[2 1 0]\n [5 4 3]]\n");
    ag_tensor *one = tensor(AG_I64, AG_SHAPE(1), (double[]){ 7 });
    cr_assert(ag_tensor_broadcast(ctx, one, AG_SHAPE(2, 2), &view));
    expect_text(&view, "[[7 7]\n [7 7]]\n");
}

Test(print, not_finite)
{
    expect_text(tensor(AG_F32, AG_SHAPE(4), (double[]){ 1, NAN, INFINITY, -INFINITY }),
                "[1.0000    nan    inf   -inf]\n");
    expect_text(tensor(AG_F64, AG_SHAPE(2), (double[]){ -NAN, NAN }), "[nan nan]\n");
}

/* Numbers that four decimals would hide, or that need too much room. */
Test(print, wide_ranges)
{
    expect_text(tensor(AG_F64, AG_SHAPE(3), (double[]){ 1e-9, 0.25, 0 }),
                "[0.0000 0.2500 0.0000]\n");
    expect_text(tensor(AG_F64, AG_SHAPE(3), (double[]){ 1e-9, 0.0025, 0 }),
                "[ 1e-09 0.0025      0]\n");
    expect_text(tensor(AG_F64, AG_SHAPE(2), (double[]){ 123456, 1 }), "[1.235e+05         1]\n");
    expect_text(tensor(AG_F64, AG_SHAPE(2), (double[]){ 1e300, 5e-324 }),
                "[    1e+300 4.941e-324]\n");
    expect_text(tensor(AG_F64, AG_SHAPE(2), (double[]){ 99999, 0.0001 }),
                "[99999.0000     0.0001]\n");
}

Test(print, long_axes_show_their_ends)
{
    expect_text(tensor(AG_I64, AG_SHAPE(8), NULL), "[0 1 2 3 4 5 6 7]\n");
    expect_text(tensor(AG_I64, AG_SHAPE(9), NULL), "[0 1 2 .. 6 7 8]\n");
    expect_text(tensor(AG_I64, AG_SHAPE(100, 2), NULL), "[[  0   1]\n"
                                                        " [  2   3]\n"
                                                        " [  4   5]\n"
                                                        " ..\n"
                                                        " [194 195]\n"
                                                        " [196 197]\n"
                                                        " [198 199]]\n");
    expect_text(tensor(AG_I64, AG_SHAPE(1, 10, 10), NULL), "[[[ 0  1  2 ..  7  8  9]\n"
                                                           "  [10 11 12 .. 17 18 19]\n"
                                                           "  [20 21 22 .. 27 28 29]\n"
                                                           "  ..\n"
                                                           "  [70 71 72 .. 77 78 79]\n"
                                                           "  [80 81 82 .. 87 88 89]\n"
                                                           "  [90 91 92 .. 97 98 99]]]\n");
}

/* Only what is shown decides about the format. */
Test(print, what_is_left_out_does_not_matter)
{
    ag_tensor *x = tensor(AG_F32, AG_SHAPE(10), NULL);
    ag_tensor_put(x, 5, 1e30);
    expect_text(x, "[0.0000 1.0000 2.0000 .. 7.0000 8.0000 9.0000]\n");
}

Test(print, nothing)
{
    expect_text(NULL, "(null)\n");
    expect_text(tensor(AG_F32, AG_SHAPE(0), NULL), "[] shape [0]\n");
    expect_text(tensor(AG_F32, AG_SHAPE(0, 3), NULL), "[] shape [0,3]\n");
    ag_tensor_print(tensor(AG_F32, AG_SHAPE(2), NULL), NULL);
}

Test(print, broken_tensors)
{
    ag_tensor *x = tensor(AG_F32, AG_SHAPE(2), NULL), broken = *x;
    broken.rank = 9;
    expect_text(&broken, "(not a tensor)\n");
    broken.rank = -1;
    expect_text(&broken, "(not a tensor)\n");
    broken = *x;
    broken.dtype = AG_DEFAULT_DTYPE;
    expect_text(&broken, "(not a tensor)\n");
    broken = *x;
    broken.data = NULL;
    expect_text(&broken, "(not a tensor)\n");
    broken = *x;
    broken.dims[0] = -2;
    expect_text(&broken, "(not a tensor)\n");
}

Test(print, every_rank)
{
    char expected[2 * AG_MAX_RANK + 3] = "";
    for (int rank = 0; rank <= AG_MAX_RANK; rank++) {
        ag_shape shape = { .rank = rank, .dims = { 1, 1, 1, 1, 1, 1, 1, 1 } };
        memset(expected, '[', (size_t)rank);
        memset(expected + rank + 1, ']', (size_t)rank);
        expected[rank] = '0';
        strcpy(expected + 2 * rank + 1, "\n");
        expect_text(tensor(AG_I64, shape, NULL), expected);
    }
}
