/* Matrix products against three plain loops in double, for every instruction
 * set that this processor has. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tensor/internal.h"

static const char *const isas[] = { "generic", "avx2", "avx512" };
enum { ISAS = 3, NARROW = 3 };

/* NULL where this build or processor does not have the instruction set. */
static ag_context *context_for(const char *isa, int threads)
{
    setenv("AG_ISA", isa, 1);
    ag_context *context = ag_context_new(&(ag_context_options){ .seed = 7, .threads = threads });
    if (ag_status(context) == AG_ERR_ARGUMENT) {
        ag_context_free(context);
        return NULL;
    }
    cr_assert_eq(ag_status(context), AG_OK, "%s", ag_error_message(context));
    return context;
}

enum { PLAIN, TRANSPOSED, FLIPPED, SLICED, BROADCAST, LAYOUTS };

/* A [batch, rows, columns] tensor of random numbers in one of the layouts. */
static ag_tensor random_operand(ag_context *context, ag_random *random, ag_dtype dtype, int layout,
                                int64_t batch, int64_t rows, int64_t columns)
{
    ag_shape shape = AG_SHAPE(batch, rows, columns);
    if (layout == TRANSPOSED)
        shape = AG_SHAPE(batch, columns, rows);
    if (layout == SLICED)
        shape = AG_SHAPE(batch, rows + 1, 2 * columns + 3);
    if (layout == BROADCAST)
        shape = AG_SHAPE(1, 1, columns);
    ag_tensor *base = ag_tensor_new(context, AG_STEP, dtype, shape);
    ag_random_fill_normal(context, random, base, 0, 1);
    ag_tensor view = *base;
    if (layout == TRANSPOSED)
        ag_tensor_transpose(context, base, 1, 2, &view);
    if (layout == FLIPPED) {
        ag_tensor_flip(context, base, 1, &view);
        ag_tensor_flip(context, &view, 2, &view);
    }
    if (layout == SLICED) {
        ag_tensor_slice(context, base, 1, 1, AG_END, 1, &view);
        ag_tensor_slice(context, &view, 2, 3, AG_END, 2, &view);
    }
    if (layout == BROADCAST)
        ag_tensor_broadcast(context, base, AG_SHAPE(batch, rows, columns), &view);
    cr_assert_eq(ag_status(context), AG_OK, "%s", ag_error_message(context));
    return view;
}

static double element(const ag_tensor *x, int64_t batch, int64_t i, int64_t j)
{
    return ag_tensor_get(x, (int64_t[]){ x->dims[0] == 1 ? 0 : batch, i, j });
}

static void check_product(const ag_tensor *a, const ag_tensor *b, const ag_tensor *y,
                          const char *isa)
{
    int64_t k = a->dims[2];
    double epsilon = y->dtype == AG_F32 ? 0x1p-24 : 0x1p-53;
    for (int64_t batch = 0; batch < y->dims[0]; batch++)
        for (int64_t i = 0; i < y->dims[1]; i++)
            for (int64_t j = 0; j < y->dims[2]; j++) {
                double sum = 0, size = 0;
                for (int64_t p = 0; p < k; p++) {
                    double term = element(a, batch, i, p) * element(b, batch, p, j);
                    sum += term;
                    size += fabs(term);
                }
                double error = fabs(element(y, batch, i, j) - sum);
                cr_assert(error <= (double)(k + 2) * epsilon * size,
                          "%s %s [%d,%d,%d] x [.,.,%d] at %d,%d,%d: off by %g", isa,
                          ag_dtype_name(y->dtype), (int)y->dims[0], (int)y->dims[1], (int)k,
                          (int)y->dims[2], (int)batch, (int)i, (int)j, error);
            }
}

static void check_size(ag_context *context, ag_random *random, ag_dtype dtype, int layouts,
                       int64_t batch, int64_t m, int64_t k, int64_t n)
{
    ag_tensor a = random_operand(context, random, dtype, layouts % LAYOUTS, batch, m, k);
    ag_tensor b = random_operand(context, random, dtype, layouts / LAYOUTS, batch, k, n);
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(batch, m, n));
    ag_tensor_fill(context, y, NAN); /* nothing may be left over or added to */
    cr_assert(ag_compute_matmul(context, &a, &b, NULL, y));
    check_product(&a, &b, y, ag_context_isa(context));
    ag_memory_reset_step(context);
}

Test(tensor_matmul, small_sizes_in_every_layout)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        ag_random random = ag_random_stream(1, "matmul", 0);
        for (int layouts = 0; layouts < LAYOUTS * LAYOUTS; layouts++)
            for (int round = 0; round < 20; round++) {
                ag_dtype dtype = round % 2 ? AG_F32 : AG_F64;
                int64_t batch = ag_random_integer(&random, 4);
                int64_t m = ag_random_integer(&random, 30), k = ag_random_integer(&random, 40);
                int64_t n = ag_random_integer(&random, 70);
                check_size(context, &random, dtype, layouts, batch, m, k, n);
            }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* One less, as many, one more than each block size, for every axis. */
Test(tensor_matmul, sizes_at_block_edges)
{
    static const int64_t rows[] = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 95, 96, 97, 193 };
    static const int64_t depths[] = { 1, 255, 256, 257, 513 };
    static const int64_t columns[] = { 1,  4,  7,  8,  15, 16, 17, 31,  32, 33,
                                       47, 48, 49, 64, 65, 96, 97, 511, 513 };
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        ag_random random = ag_random_stream(2, "matmul", 0);
        int layouts = 0;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) {
                check_size(context, &random, AG_F32, layouts++ % 25, 1, rows[i], 19, columns[j]);
                check_size(context, &random, AG_F64, layouts++ % 25, 1, rows[i], 19, columns[j]);
            }
        for (size_t p = 0; p < sizeof depths / sizeof *depths; p++) {
            check_size(context, &random, AG_F32, layouts++ % 25, 1, 25, depths[p], 70);
            check_size(context, &random, AG_F64, layouts++ % 25, 1, 25, depths[p], 70);
        }
        for (int layout = 0; layout < LAYOUTS * LAYOUTS;
             layout++) /* packed and over several pieces */
            check_size(context, &random, layout % 2 ? AG_F32 : AG_F64, layout, 1, 101, 521, 115);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

Test(tensor_matmul, nothing_times_nothing)
{
    ag_context *context = ag_context_new(NULL);
    ag_tensor *a = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(2, 3, 0));
    ag_tensor *b = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(2, 0, 40));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(2, 3, 40));
    ag_tensor_fill(context, y, NAN);
    cr_assert(ag_compute_matmul(context, a, b, NULL, y));
    for (int64_t i = 0; i < ag_tensor_count(y); i++)
        cr_assert_eq(ag_tensor_at(y, i), 0.0, "a sum of no terms is 0");
    ag_tensor *none = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(2, 0, 0));
    ag_tensor *empty = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(2, 0, 40));
    cr_assert(ag_compute_matmul(context, none, b, NULL, empty));
    cr_assert_eq(ag_context_finish(context), 0);
}

/* [2, 1, 3, m, k] x [1, 4, 3, k, n]: each has an axis that the other repeats. */
Test(tensor_matmul, batch_axes_broadcast)
{
    ag_context *context = ag_context_new(NULL);
    ag_random random = ag_random_stream(3, "matmul", 0);
    ag_tensor *a = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(2, 1, 3, 5, 7));
    ag_tensor *b = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(1, 4, 3, 7, 6));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(2, 4, 3, 5, 6));
    ag_random_fill_normal(context, &random, a, 0, 1);
    ag_random_fill_normal(context, &random, b, 0, 1);
    cr_assert(ag_compute_matmul(context, a, b, NULL, y));
    for (int64_t at = 0; at < ag_tensor_count(y); at++) {
        int64_t j = at % 6, i = at / 6 % 5, z = at / 30 % 3, w = at / 90 % 4, v = at / 360;
        double sum = 0;
        for (int64_t p = 0; p < 7; p++)
            sum += ag_tensor_get(a, (int64_t[]){ v, 0, z, i, p }) *
                   ag_tensor_get(b, (int64_t[]){ 0, w, z, p, j });
        cr_assert_float_eq(ag_tensor_at(y, at), sum, 1e-13, "element %d", (int)at);
    }
    cr_assert_eq(ag_context_finish(context), 0);
}

/* A batch whose b is one matrix is computed as one product: rows that follow
 * each other, rows that do not, and one row per entry at any distance. */
Test(tensor_matmul, one_matrix_for_the_whole_batch)
{
    ag_context *context = ag_context_new(NULL);
    ag_random random = ag_random_stream(4, "matmul", 0);
    for (int layout = 0; layout < LAYOUTS; layout++)
        for (int64_t m = 1; m <= 5; m += 4) {
            ag_tensor a = random_operand(context, &random, AG_F64, layout, 9, m, 13);
            ag_tensor b = random_operand(context, &random, AG_F64, PLAIN, 1, 13, 21);
            ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(9, m, 21));
            cr_assert(ag_compute_matmul(context, &a, &b, NULL, y));
            check_product(&a, &b, y, "any");
        }
    cr_assert_eq(ag_context_finish(context), 0);
}

/* The result for the threads, as bytes that the caller frees. */
static void *bits_with_threads(const char *isa, int threads, ag_dtype dtype, int layouts,
                               int64_t batch, int64_t m, int64_t k, int64_t n)
{
    ag_context *context = context_for(isa, threads);
    if (!context)
        return NULL;
    ag_random random = ag_random_stream(5, "matmul", 0);
    ag_tensor a = random_operand(context, &random, dtype, layouts % LAYOUTS, batch, m, k);
    ag_tensor b = random_operand(context, &random, dtype, layouts / LAYOUTS, batch, k, n);
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(batch, m, n));
    cr_assert(ag_compute_matmul(context, &a, &b, NULL, y));
    size_t bytes = (size_t)ag_tensor_count(y) * ag_dtype_size(dtype);
    void *bits = malloc(bytes);
    memcpy(bits, y->data, bytes);
    cr_assert_eq(ag_context_finish(context), 0);
    return bits;
}

Test(tensor_matmul, same_bits_for_any_number_of_threads)
{
    static const int64_t sizes[][4] = {
        { 1, 300, 270, 130 }, { 40, 33, 31, 29 }, { 3, 97, 60, 600 }, { 1, 65, 2100, 64 }
    };
    for (int s = 0; s < ISAS; s++)
        for (int c = 0; c < 8; c++) {
            const int64_t *z = sizes[c / 2];
            ag_dtype dtype = c % 2 ? AG_F32 : AG_F64;
            size_t bytes = (size_t)(z[0] * z[1] * z[3]) * ag_dtype_size(dtype);
            void *one = bits_with_threads(isas[s], 1, dtype, c, z[0], z[1], z[2], z[3]);
            for (int threads = 2; one && threads <= 3; threads++) {
                void *more = bits_with_threads(isas[s], threads, dtype, c, z[0], z[1], z[2], z[3]);
                cr_assert_eq(memcmp(one, more, bytes), 0, "%s, %d threads", isas[s], threads);
                free(more);
            }
            free(one);
        }
}

enum { FROM_ZERO, FROM_A_ROW, FROM_A_ROW_AND_A_MATRIX, ONTO_ITSELF, STARTS };

/* x^T g for long x and g, as for the gradient of a weight, as bytes that the caller frees. */
static void *long_sums(const char *isa, int threads, ag_dtype dtype, int start,
                       const int64_t *sizes)
{
    ag_context *context = context_for(isa, threads);
    if (!context)
        return NULL;
    int64_t m = sizes[0], k = sizes[1], n = sizes[2];
    int layout = (int)(m + k + n) % LAYOUTS;
    ag_random random = ag_random_stream(11, "matmul", 0);
    ag_tensor a = random_operand(context, &random, dtype, TRANSPOSED, 1, m, k);
    ag_tensor b = random_operand(context, &random, dtype, layout, 1, k, n);
    ag_tensor x = random_operand(context, &random, dtype, (layout + start) % LAYOUTS, 1, m, n);
    ag_tensor *row = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(n));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(1, m, n));
    ag_random_fill_normal(context, &random, row, 0, 1);
    ag_random_fill_normal(context, &random, y, 0, 1);
    ag_matmul_start added = { 0 };
    if (start == FROM_A_ROW || start == FROM_A_ROW_AND_A_MATRIX)
        added.row = row;
    if (start == FROM_A_ROW_AND_A_MATRIX)
        added.matrix = &x;
    if (start == ONTO_ITSELF)
        added.matrix = y;
    cr_assert(ag_compute_matmul(context, &a, &b, &added, y));
    void *bits = malloc(ag_tensor_bytes(y));
    memcpy(bits, y->data, ag_tensor_bytes(y));
    cr_assert_eq(ag_context_finish(context), 0);
    return bits;
}

/* The threads share the pieces of the sum, so many of them at a time as there is room
 * for: but they are added in the same order. */
Test(tensor_matmul, long_sums_have_the_same_bits_for_any_number_of_threads)
{
    static const int64_t sizes[][3] = {
        { 64, 1024, 64 }, { 65, 1100, 33 }, { 1, 5001, 100 },
        { 100, 5001, 1 }, { 5, 20000, 3 },  { 128, 1537, 512 },
    };
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++)
        for (int s = 0; s < 2 * ISAS; s++) {
            const int64_t *z = sizes[c];
            ag_dtype dtype = s / ISAS ? AG_F32 : AG_F64;
            int start = ((int)c + s) % STARTS;
            void *one = long_sums(isas[s % ISAS], 1, dtype, start, z);
            for (int i = 0; one && i < 4; i++) {
                static const int threads[] = { 2, 3, 4, 7 };
                void *more = long_sums(isas[s % ISAS], threads[i], dtype, start, z);
                size_t bytes = (size_t)(z[0] * z[2]) * ag_dtype_size(dtype);
                cr_assert_eq(memcmp(one, more, bytes), 0, "%s %s [%d,%d] x [.,%d], %d threads",
                             isas[s % ISAS], ag_dtype_name(dtype), (int)z[0], (int)z[1], (int)z[2],
                             threads[i]);
                free(more);
            }
            free(one);
        }
}

/* An element is the same sum in the same order, whatever stands around it. */
Test(tensor_matmul, same_bits_for_views_and_for_parts)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        ag_random random = ag_random_stream(6, "matmul", 0);
        ag_tensor a = random_operand(context, &random, AG_F32, TRANSPOSED, 1, 50, 300);
        ag_tensor b = random_operand(context, &random, AG_F32, SLICED, 1, 300, 150);
        ag_tensor dense_a, dense_b, row;
        ag_tensor_dense(context, &a, &dense_a);
        ag_tensor_dense(context, &b, &dense_b);
        ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(1, 50, 150));
        ag_tensor *z = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(1, 50, 150));
        ag_tensor *y_row = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(1, 1, 150));
        ag_compute_matmul(context, &a, &b, NULL, y);
        ag_compute_matmul(context, &dense_a, &dense_b, NULL, z);
        cr_assert_eq(memcmp(y->data, z->data, 50 * 150 * sizeof(float)), 0, "%s", isas[s]);
        ag_tensor_slice(context, &a, 1, 31, 32, 1, &row);
        ag_compute_matmul(context, &row, &b, NULL, y_row);
        cr_assert_eq(memcmp((float *)y->data + 31 * 150, y_row->data, 150 * sizeof(float)), 0, "%s",
                     isas[s]);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* y + a b for the columns from first on, count of them: whether they have the bits of
 * those of the whole product. */
static void check_columns(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                          const ag_tensor *x, const ag_tensor *whole, int64_t first, int64_t count)
{
    int64_t m = whole->dims[1];
    ag_tensor part, part_x;
    ag_tensor_slice(context, b, 2, first, first + count, 1, &part);
    ag_tensor_slice(context, x, 2, first, first + count, 1, &part_x);
    ag_tensor *y = ag_tensor_new(context, AG_STEP, a->dtype, AG_SHAPE(1, m, count));
    cr_assert(ag_compute_matmul(context, a, &part, &(ag_matmul_start){ NULL, &part_x }, y));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < count; j++)
            cr_assert_eq(element(y, 0, i, j), element(whole, 0, i, first + j),
                         "%s %s, columns %d to %d: element %d, %d", ag_context_isa(context),
                         ag_dtype_name(a->dtype), (int)first, (int)(first + count), (int)i, (int)j);
}

/* Few columns go other ways than many, to the same sums, down to four of them. */
Test(tensor_matmul, same_bits_for_few_columns)
{
    for (int c = 0; c < ISAS * 8; c++) {
        ag_context *context = context_for(isas[c % ISAS], 1 + c % 2);
        if (!context)
            continue;
        ag_random random = ag_random_stream(9, "matmul", 0);
        ag_dtype dtype = c / ISAS % 2 ? AG_F32 : AG_F64;
        int layout = c / ISAS / 2;
        int64_t m = c % 5 == 0 ? 7 : 203, k = 300, n = 120;
        ag_tensor a = random_operand(context, &random, dtype, layout, 1, m, k);
        ag_tensor b = random_operand(context, &random, dtype, (layout + c) % LAYOUTS, 1, k, n);
        ag_tensor x = random_operand(context, &random, dtype, c % LAYOUTS, 1, m, n);
        ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(1, m, n));
        cr_assert(ag_compute_matmul(context, &a, &b, &(ag_matmul_start){ NULL, &x }, y));
        for (int64_t count = NARROW + 1; count <= 20; count++)
            check_columns(context, &a, &b, &x, y, 3 * count, count);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

static double rounded(ag_dtype dtype, double x)
{
    return dtype == AG_F32 ? (double)(float)x : x;
}

/* sum + a b, rounded once or twice. A sum or product of two f32 is rounded alike with
 * f64 in between. */
static double plus_product(bool fused, ag_dtype dtype, double sum, double a, double b)
{
    if (!fused) {
        volatile double product = rounded(dtype, a * b);
        return rounded(dtype, sum + product);
    }
    return dtype == AG_F32 ? (double)fmaf((float)a, (float)b, (float)sum) : fma(a, b, sum);
}

/* x + a b as narrow.inc says that it is summed. */
static double sum_in_parts(bool fused, double x, const ag_tensor *a, const ag_tensor *b, int64_t i,
                           int64_t j)
{
    int64_t k = a->dims[2], count = 64 / (int64_t)ag_dtype_size(a->dtype);
    for (int64_t first = 0; first < k; first += 1024) {
        double parts[16] = { 0 };
        for (int64_t p = first; p < k && p < first + 1024; p++)
            parts[p % count] = plus_product(fused, a->dtype, parts[p % count], element(a, 0, i, p),
                                            element(b, 0, p, j));
        for (int64_t half = count / 2; half >= 1; half /= 2)
            for (int64_t l = 0; l < half; l++)
                parts[l] = rounded(a->dtype, parts[l] + parts[l + half]);
        x = rounded(a->dtype, x + parts[0]);
    }
    return x;
}

/* Up to three columns are summed in parts, in every layout and instruction set alike. */
Test(tensor_matmul, narrow_products_are_summed_in_parts)
{
    static const int64_t sizes[][2] = { { 1, 40 }, { 37, 19 }, { 140, 64 }, { 67, 1500 } };
    for (int c = 0; c < ISAS * 2 * LAYOUTS * 4; c++) {
        ag_context *context = context_for(isas[c % ISAS], 1 + c % 2);
        if (!context)
            continue;
        ag_random random = ag_random_stream(12, "matmul", 0);
        ag_dtype dtype = c / ISAS % 2 ? AG_F32 : AG_F64;
        int layout = c / ISAS / 2 % LAYOUTS;
        int64_t m = sizes[c / ISAS / 2 / LAYOUTS][0], k = sizes[c / ISAS / 2 / LAYOUTS][1];
        for (int64_t n = 1; n <= NARROW; n++) {
            ag_tensor a = random_operand(context, &random, dtype, layout, 1, m, k);
            ag_tensor b = random_operand(context, &random, dtype, (layout + c) % LAYOUTS, 1, k, n);
            ag_tensor x = random_operand(context, &random, dtype, c % LAYOUTS, 1, m, n);
            ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(1, m, n));
            cr_assert(ag_compute_matmul(context, &a, &b, &(ag_matmul_start){ NULL, &x }, y));
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++)
                    cr_assert_eq(element(y, 0, i, j),
                                 sum_in_parts(c % ISAS > 0, element(&x, 0, i, j), &a, &b, i, j),
                                 "%s %s layout %d [%d,%d] x [.,%d] at %d, %d", isas[c % ISAS],
                                 ag_dtype_name(dtype), layout, (int)m, (int)k, (int)n, (int)i,
                                 (int)j);
        }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* Every height and width around the blocks for few rows, few columns and both, in
 * tiles that the threads cut. */
Test(tensor_matmul, few_rows_and_few_columns)
{
    static const int64_t few[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17 };
    static const int64_t many[] = { 15, 24, 63, 64, 79, 80, 81, 96, 97, 193, 2050 };
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 2);
        if (!context)
            continue;
        ag_random random = ag_random_stream(10, "matmul", 0);
        int layouts = 0;
        for (size_t i = 0; i < sizeof few / sizeof *few; i++)
            for (size_t j = 0; j < sizeof many / sizeof *many; j++)
                for (int kind = 0; kind < 2; kind++) {
                    ag_dtype dtype = kind ? AG_F32 : AG_F64;
                    int64_t k = j % 4 == 3 ? 259 : 18 + kind;
                    check_size(context, &random, dtype, layouts++ % 25, 1, few[i], k, many[j]);
                    check_size(context, &random, dtype, layouts++ % 25, 1, many[j], k, few[i]);
                }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* (1 + e)(1 - e) - 1 is -e^2 where products are not rounded, 0 where they are:
 * the fused tables must fuse, and the generic one must round alike everywhere. */
Test(tensor_matmul, products_are_fused_where_they_should_be)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        double e = 0x1p-13;
        float a_data[] = { 1, (float)(1 + e) }, b_data[] = { -1, (float)(1 - e) }, y_data[4];
        ag_tensor a = ag_tensor_over(a_data, AG_F32, AG_SHAPE(1, 2));
        ag_tensor b = ag_tensor_over(b_data, AG_F32, AG_SHAPE(2, 1)), columns;
        ag_tensor y = ag_tensor_over(y_data, AG_F32, AG_SHAPE(1, 4));
        cr_assert(ag_tensor_broadcast(context, &b, AG_SHAPE(2, 4), &columns));
        cr_assert(ag_compute_matmul(context, &a, &columns, NULL, &y));
        double expected = strcmp(isas[s], "generic") == 0 ? 0 : -e * e;
        cr_assert_eq((double)y_data[3], expected, "%s: %g", isas[s], (double)y_data[3]);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

Test(tensor_matmul, nan_and_infinity_reach_only_their_row)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        ag_tensor *a = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(5, 3));
        ag_tensor *b = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(3, 7));
        ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(5, 7));
        ag_tensor_fill(context, a, 1);
        ag_tensor_fill(context, b, 2);
        ag_tensor_put(a, 2 * 3, NAN);
        ag_tensor_put(a, 3 * 3, INFINITY);
        cr_assert(ag_compute_matmul(context, a, b, NULL, y));
        for (int64_t at = 0; at < 35; at++) {
            double value = ag_tensor_at(y, at);
            int64_t row = at / 7;
            cr_assert(row == 2 ? isnan(value) : value == (row == 3 ? (double)INFINITY : 6));
        }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

Test(tensor_matmul, scratch_is_recycled)
{
    ag_context *context = ag_context_new(NULL);
    ag_tensor *a = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(200, 200));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(200, 200));
    cr_assert(ag_compute_matmul(context, a, a, NULL, y));
    ag_memory_usage before = ag_context_memory(context);
    for (int round = 0; round < 20; round++)
        cr_assert(ag_compute_matmul(context, a, a, NULL, y));
    ag_memory_usage after = ag_context_memory(context);
    cr_assert_eq(after.reserved, before.reserved);
    cr_assert_eq(after.step, before.step);
    cr_assert_eq(ag_context_finish(context), 0);
}

/* ---- What the product is added to ---- */

/* y [3, m, n] = a b + row + matrix, the row and the matrix in a layout each, or absent. */
static void check_start(ag_context *context, ag_random *random, ag_dtype dtype, int kind,
                        const int64_t sizes[3])
{
    int64_t m = sizes[0], k = sizes[1], n = sizes[2];
    ag_tensor a = random_operand(context, random, dtype, kind % LAYOUTS, 3, m, k);
    ag_tensor b = random_operand(context, random, dtype, kind / 4 % LAYOUTS, 1, k, n);
    ag_tensor rows = random_operand(context, random, dtype, kind / 2 % LAYOUTS, 1, 1, n);
    ag_tensor matrix = random_operand(context, random, dtype, kind / 3 % LAYOUTS, 3, m, n);
    ag_tensor row = { rows.data, dtype, 1, { n }, { rows.strides[2] } };
    ag_matmul_start start = { kind % 3 != 1 ? &row : NULL, kind % 3 != 2 ? &matrix : NULL };
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(3, m, n));
    ag_tensor *product = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(3, m, n));
    ag_tensor_fill(context, y, NAN);
    cr_assert(ag_compute_matmul(context, &a, &b, NULL, product));
    cr_assert(ag_compute_matmul(context, &a, &b, &start, y));
    double unit = dtype == AG_F32 ? 0x1p-24 : 0x1p-53;
    for (int64_t at = 0; at < ag_tensor_count(y); at++) {
        double sum = ag_tensor_at(product, at), size = sqrt((double)k) * 8;
        double r = start.row ? ag_tensor_at(&row, at % n) : 0;
        double s = start.matrix ? ag_tensor_at(&matrix, at) : 0;
        double error = fabs(ag_tensor_at(y, at) - (sum + r + s));
        cr_assert(error <= 8 * unit * (size + fabs(sum) + fabs(r) + fabs(s)),
                  "%s %s [%d,%d] x [.,%d], kind %d, entry %d: off by %g", ag_context_isa(context),
                  ag_dtype_name(dtype), (int)m, (int)k, (int)n, kind, (int)at, error);
    }
    ag_memory_reset_step(context);
}

Test(tensor_matmul, start_values)
{
    static const int64_t sizes[][3] = { { 5, 7, 9 },     { 1, 9, 33 },    { 12, 4, 32 },
                                        { 30, 300, 1 },  { 25, 0, 17 },   { 24, 600, 64 },
                                        { 150, 3, 20 },  { 13, 2000, 5 }, { 70, 9, 3 },
                                        { 130, 300, 1 }, { 3, 270, 200 } };
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        ag_random random = ag_random_stream(7, "matmul", 0);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int kind = 0; kind < 60; kind++)
                check_start(context, &random, kind % 2 ? AG_F32 : AG_F64, kind, sizes[i]);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* y = a b + y: the same bits as with a start of its own, for any threads. */
Test(tensor_matmul, start_from_itself)
{
    static const int64_t sizes[][3] = {
        { 200, 30, 70 }, { 33, 1500, 40 }, { 300, 300, 601 }, { 900, 700, 3 }
    };
    for (int c = 0; c < 12; c++) {
        ag_context *context = context_for(isas[2 - c % 3], 1 + c / 3 % 3);
        if (!context)
            continue;
        const int64_t *z = sizes[c / 3];
        ag_random random = ag_random_stream(8, "matmul", 0);
        ag_tensor a = random_operand(context, &random, AG_F32, c % 4, 1, z[0], z[1]);
        ag_tensor b = random_operand(context, &random, AG_F32, c % 3, 1, z[1], z[2]);
        ag_tensor x = random_operand(context, &random, AG_F32, PLAIN, 1, z[0], z[2]);
        ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(1, z[0], z[2]));
        cr_assert(ag_compute_matmul(context, &a, &b, &(ag_matmul_start){ NULL, &x }, y));
        cr_assert(ag_compute_matmul(context, &a, &b, &(ag_matmul_start){ NULL, &x }, &x));
        cr_assert_eq(memcmp(x.data, y->data, ag_tensor_bytes(y)), 0, "case %d", c);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}
