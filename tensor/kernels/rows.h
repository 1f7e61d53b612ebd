/* Loops over rows: reductions, softmax, cross-entropy, optimiser updates.
 *
 * ag_row_kernels is the table of loops of one type and one instruction set;
 * rows.inc and softmax.inc hold them. Every pointer is to numbers of that type,
 * dense, unless it says otherwise. The reader below brings tensors of other strides into
 * that form, piece by piece.
 */
#ifndef AG_ROWS_H
#define AG_ROWS_H

#include "../internal.h"

typedef struct ag_row_kernels {
    /* y[i] = reduction of row i of x [rows, n]; by ag_reduce. Of n = 0 numbers
     * it is what a reduction starts from: 0 or -inf. */
    void (*reduce_rows[2])(int64_t rows, int64_t n, const void *x, void *y);

    /* y[j] = y[j] combined with x[0][j], x[1][j], ..; row i of x begins at x + i stride. */
    void (*reduce_columns[2])(int64_t rows, int64_t columns, const void *x, int64_t stride,
                              void *y);

    /* index[j] = row of the first maximum of column j so far, best[j] = its
     * value. first is the number of row x[0]; with 0 they start anew. */
    void (*argmax)(int64_t first, int64_t rows, int64_t columns, const void *x, int64_t stride,
                   void *best, int64_t *index);

    /* y[i][j] = sums[j] += x[i][j]; x and y have row strides of their own. */
    void (*cumsum)(int64_t rows, int64_t columns, const void *x, int64_t x_stride, double *sums,
                   void *y, int64_t y_stride);

    /* Row by row; by ag_softmax_kind. */
    void (*softmax[3])(int64_t rows, int64_t n, const void *x, void *y);
    void (*softmax_backward[2])(int64_t rows, int64_t n, const void *y, const void *dy, void *dx);

    /* labels have been checked; rows labelled *ignore give 0. Of each row the first
     * leaves two numbers in kept [rows, 2], from which the second begins. */
    void (*cross_entropy)(int64_t rows, int64_t n, const void *logits, const int64_t *labels,
                          const int64_t *ignore, void *losses, void *kept);
    void (*cross_entropy_backward)(int64_t rows, int64_t n, const void *logits,
                                   const int64_t *labels, const int64_t *ignore, const void *kept,
                                   double factor, void *dlogits);

    /* y += x */
    void (*accumulate)(int64_t n, const void *x, void *y);

    /* Optimiser updates; u is NULL without momentum. */
    void (*sgd)(int64_t n, void *p, const void *g, void *u, double lr, double momentum);
    void (*adam)(int64_t n, void *p, const void *g, void *m, void *v, const ag_adam_step *step);
} ag_row_kernels;

/* Reads the elements of a tensor of any strides in row-major order. */
typedef struct ag_reader {
    const char *data;
    size_t size; /* bytes of an element */
    bool dense;
    int rank; /* axes that can be walked as one have been joined */
    int64_t dims[AG_MAX_RANK], strides[AG_MAX_RANK];
} ag_reader;

ag_reader ag_reader_over(const ag_tensor *x);

/* Copies the elements start .. start + count - 1. */
void ag_reader_copy(const ag_reader *reader, int64_t start, int64_t count, void *to);

/* Those elements where they lie, if they lie side by side, or else copied
 * into buffer. */
const void *ag_reader_get(const ag_reader *reader, int64_t start, int64_t count, void *buffer);

/* How many elements a buffer for ag_reader_get holds. */
#define AG_READ_ELEMENTS 4096
#define AG_READ_BYTES (AG_READ_ELEMENTS * sizeof(double))

/* Where work is cut into tasks: about so many elements each, or an eighth as
 * many where an element costs an exp. The places depend on sizes alone. */
#define AG_TASK_ELEMENTS 32768
#define AG_TASK_EXPS 4096

static inline int64_t ag_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The number of blocks that n things fill, the last one perhaps in part. */
static inline int64_t ag_blocks(int64_t n, int64_t block)
{
    return n / block + (n % block != 0);
}

/* How many rows of n elements make a task. */
static inline int64_t ag_rows_per_task(int64_t n, int64_t elements)
{
    return n < elements && n > 0 ? elements / n : 1;
}

#endif
