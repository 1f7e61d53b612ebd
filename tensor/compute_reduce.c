/* Computations along axes: sums, maxima, argmax, cumulative sums.
 *
 * A tensor whose axes are walked in row-major order is, for any run of axes in
 * its middle, a block [outer, n, inner], n being that run. Every computation
 * here works on such blocks, as columns of [n, inner] that lie side by side;
 * where inner is 1 the columns are rows that are dense in memory.
 *
 * A reduction over several runs takes the last one first. A long run is summed
 * in pieces, and the pieces' sums are reduced again: so the error stays small,
 * and a sum of everything has work for several threads. What is added to what
 * depends on the shape alone, not on strides or threads.
 */
#include <string.h>

#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

/* The longest piece: elements of a row, rows of a column. */
#define PIECE_ROW AG_READ_ELEMENTS
#define PIECE_COLUMN 256

/* Columns that are walked together, so that their results stay in the cache. */
#define TILE 512

/* ---- Reading tensors of any strides ---- */

/* Axis i and the next are walked as one where strides[i] = strides[i + 1] dims[i + 1]. */
ag_reader ag_reader_over(const ag_tensor *x)
{
    ag_reader reader = { .data = x->data, .size = ag_dtype_size(x->dtype) };
    for (int i = 0; i < x->rank; i++) {
        int last = reader.rank - 1;
        if (x->dims[i] == 1)
            continue;
        if (last >= 0 && reader.strides[last] == x->strides[i] * x->dims[i]) {
            reader.dims[last] *= x->dims[i];
            reader.strides[last] = x->strides[i];
        } else {
            reader.dims[reader.rank] = x->dims[i];
            reader.strides[reader.rank++] = x->strides[i];
        }
    }
    if (reader.rank == 0) {
        reader.rank = 1;
        reader.dims[0] = reader.strides[0] = 1;
    }
    reader.dense = reader.rank == 1 && reader.strides[0] == 1;
    return reader;
}

/* Elements of size bytes; strides in elements. */
static void copy_run(size_t size, int64_t n, const char *from, int64_t from_stride, char *to,
                     int64_t to_stride)
{
    if (from_stride == 1 && to_stride == 1)
        memcpy(to, from, (size_t)n * size);
    else if (size == 4)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + 4 * i * to_stride, from + 4 * i * from_stride, 4);
    else if (size == 16)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + 16 * i * to_stride, from + 16 * i * from_stride, 16);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy(to + 8 * i * to_stride, from + 8 * i * from_stride, 8);
}

/* rows rows of n along the last two axes. Where elements lie side by side
 * across the rows they are read that way, so that memory is read in its order. */
static void copy_block(const ag_reader *reader, int64_t offset, int64_t rows, int64_t n, char *to)
{
    const int64_t *strides = reader->strides + reader->rank - 1, size = (int64_t)reader->size;
    const char *from = reader->data + offset * size;
    int64_t across = rows > 1 ? strides[-1] : 0;
    if (across == 1 && strides[0] != 1)
        for (int64_t j = 0; j < n; j++)
            copy_run(reader->size, rows, from + j * strides[0] * size, 1, to + j * size, n);
    else
        for (int64_t i = 0; i < rows; i++)
            copy_run(reader->size, n, from + i * across * size, strides[0], to + i * n * size, 1);
}

void ag_reader_copy(const ag_reader *reader, int64_t start, int64_t count, void *to_)
{
    const int last = reader->rank - 1;
    int64_t index[AG_MAX_RANK], offset = 0;
    char *to = to_;
    for (int i = last; i >= 0 && count > 0; i--) {
        index[i] = start % reader->dims[i];
        start /= reader->dims[i];
        offset += index[i] * reader->strides[i];
    }
    while (count > 0) {
        int64_t n = ag_min(count, reader->dims[last] - index[last]), rows = 1;
        if (last > 0 && n == reader->dims[last])
            rows = ag_min(count / n, reader->dims[last - 1] - index[last - 1]);
        copy_block(reader, offset, rows, n, to);
        to += (size_t)(rows * n) * reader->size;
        count -= rows * n;
        /* the last axis starts anew, those before it count up */
        offset -= index[last] * reader->strides[last];
        index[last] = 0;
        for (int i = last - 1; i >= 0; i--, rows = 1) {
            offset += rows * reader->strides[i];
            index[i] += rows;
            if (index[i] < reader->dims[i])
                break;
            offset -= index[i] * reader->strides[i];
            index[i] = 0;
        }
    }
}

const void *ag_reader_get(const ag_reader *reader, int64_t start, int64_t count, void *buffer)
{
    if (reader->dense)
        return reader->data + start * (int64_t)reader->size;
    ag_reader_copy(reader, start, count, buffer);
    return buffer;
}

/* ---- Blocks [outer, n, inner] ---- */

/* The work on one block is cut into units: one of outer, one piece of n, one
 * tile of inner. */
typedef struct block_job {
    const ag_row_kernels *kernels;
    ag_reduce kind;
    ag_reader x;
    char *y;
    int64_t n, inner;
    int64_t piece, pieces, tile, tiles;
    int64_t units, units_per_task;
} block_job;

/* One unit: x [outer, n, inner] at [i, row .. row + rows, column .. column + columns]. */
typedef struct unit {
    int64_t i, piece, row, rows, column, columns;
} unit;

static const ag_row_kernels *row_kernels(const ag_context *context, ag_dtype dtype)
{
    return context->kernels->rows[ag_kernels_type(dtype)];
}

static void block_cut(block_job *job, int64_t outer, int64_t n, int64_t inner, int64_t piece)
{
    job->n = n;
    job->inner = inner;
    job->piece = ag_min(piece, n);
    job->pieces = ag_blocks(n, job->piece);
    job->tile = ag_min(TILE, inner);
    job->tiles = ag_blocks(inner, job->tile);
    job->units = outer * job->pieces * job->tiles;
    job->units_per_task = ag_rows_per_task(job->piece * job->tile, AG_TASK_ELEMENTS);
}

static unit block_unit(const block_job *job, int64_t number)
{
    unit u;
    u.column = number % job->tiles * job->tile;
    u.columns = ag_min(job->tile, job->inner - u.column);
    number /= job->tiles;
    u.piece = number % job->pieces;
    u.row = u.piece * job->piece;
    u.rows = ag_min(job->piece, job->n - u.row);
    u.i = number / job->pieces;
    return u;
}

/* How many rows of the unit block_rows brings at once. It does not depend on
 * strides, so neither does the order of a sum. */
static int64_t rows_at_once(const unit *u)
{
    return AG_READ_ELEMENTS / u->columns;
}

/* rows rows of the unit from its row first on, *stride apart. */
static const void *block_rows(const block_job *job, const unit *u, int64_t first, int64_t rows,
                              void *buffer, int64_t *stride)
{
    int64_t start = (u->i * job->n + u->row + first) * job->inner + u->column;
    *stride = job->inner;
    if (job->x.dense || u->columns == job->inner)
        return ag_reader_get(&job->x, start, rows * job->inner, buffer);
    *stride = u->columns;
    size_t bytes = (size_t)u->columns * job->x.size;
    for (int64_t i = 0; i < rows; i++)
        ag_reader_copy(&job->x, start + i * job->inner, u->columns, (char *)buffer + i * bytes);
    return buffer;
}

/* ---- Sum and maximum ---- */

/* inner = 1: rows. Rows that are one piece are taken several at once. */
static void reduce_rows_task(void *job_, int64_t task, int worker)
{
    const block_job *job = job_;
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    int64_t number = task * job->units_per_task;
    int64_t end = ag_min(job->units, number + job->units_per_task);
    (void)worker;
    while (number < end) {
        unit u = block_unit(job, number);
        int64_t count = job->pieces == 1 ? ag_min(AG_READ_ELEMENTS / job->n, end - number) : 1;
        const void *x = ag_reader_get(&job->x, u.i * job->n + u.row, count * u.rows, buffer);
        job->kernels->reduce_rows[job->kind](count, u.rows, x, job->y + number * job->x.size);
        number += count;
    }
}

/* inner > 1: columns, walked row by row. */
static void reduce_columns_task(void *job_, int64_t task, int worker)
{
    const block_job *job = job_;
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    int64_t number = task * job->units_per_task;
    int64_t end = ag_min(job->units, number + job->units_per_task);
    (void)worker;
    for (; number < end; number++) {
        unit u = block_unit(job, number);
        int64_t at = (u.i * job->pieces + u.piece) * job->inner + u.column;
        void *y = job->y + at * (int64_t)job->x.size;
        job->kernels->reduce_rows[job->kind](u.columns, 0, y, y); /* the start value */
        int64_t step = rows_at_once(&u), stride;
        for (int64_t i = 0; i < u.rows; i += step) {
            int64_t rows = ag_min(step, u.rows - i);
            const void *x = block_rows(job, &u, i, rows, buffer, &stride);
            job->kernels->reduce_columns[job->kind](rows, u.columns, x, stride, y);
        }
    }
}

/* Neighbouring axes that are all reduced or all kept, as one. */
typedef struct axis_group {
    int64_t size;
    bool reduced;
} axis_group;

static int group_axes(const ag_tensor *x, unsigned axes, axis_group *groups)
{
    int n = 0;
    for (int i = 0; i < x->rank; i++) {
        bool reduced = axes >> i & 1;
        if (x->dims[i] == 1)
            continue;
        if (n > 0 && groups[n - 1].reduced == reduced)
            groups[n - 1].size *= x->dims[i];
        else
            groups[n++] = (axis_group){ x->dims[i], reduced };
    }
    return n;
}

static int last_reduced(const axis_group *groups, int n)
{
    while (n > 0 && !groups[n - 1].reduced)
        n--;
    return n - 1;
}

static int64_t groups_size(const axis_group *groups, int first, int end)
{
    int64_t size = 1;
    for (int i = first; i < end; i++)
        size *= groups[i].size;
    return size;
}

/* Reduces groups[at] of job->x, or its pieces. The result goes to y if it is
 * the final one, else into new memory; job->x becomes a reader over it. */
static bool reduce_group(ag_context *context, block_job *job, axis_group *groups, int n, int at,
                         ag_tensor *y, size_t *bytes)
{
    int64_t outer = groups_size(groups, 0, at), inner = groups_size(groups, at + 1, n);
    block_cut(job, outer, groups[at].size, inner, inner == 1 ? PIECE_ROW : PIECE_COLUMN);
    groups[at].size = job->pieces;
    groups[at].reduced = job->pieces > 1;
    int64_t count = outer * job->pieces * inner;
    bool final = last_reduced(groups, n) < 0;
    *bytes = (size_t)count * job->x.size;
    job->y = final ? y->data : ag_memory_new(context, AG_STEP, *bytes);
    if (!job->y)
        return false;
    ag_parallel(context, ag_blocks(job->units, job->units_per_task),
                inner == 1 ? reduce_rows_task : reduce_columns_task, job);
    ag_tensor result = ag_tensor_over(job->y, y->dtype, ag_shape_make(1, &count));
    job->x = ag_reader_over(&result);
    return true;
}

/* A few dense numbers that are reduced along rows or along columns, without tasks:
 * what is added to what is the same. False if x is not so. */
static bool reduce_few(const ag_row_kernels *kernels, ag_reduce kind, const ag_tensor *x,
                       const axis_group *groups, int n, ag_tensor *y)
{
    int64_t count = groups_size(groups, 0, n), last = groups[n - 1].size;
    if (count > AG_READ_ELEMENTS || n > 2 || !ag_tensor_is_contiguous(x))
        return false;
    int64_t first = n == 2 ? groups[0].size : 1;
    if (groups[n - 1].reduced) {
        kernels->reduce_rows[kind](first, last, x->data, y->data);
        return true;
    }
    if (n == 1 || first > PIECE_COLUMN || last > TILE)
        return false;
    kernels->reduce_rows[kind](last, 0, y->data, y->data);
    kernels->reduce_columns[kind](first, last, x->data, last, y->data);
    return true;
}

bool ag_compute_reduce(ag_context *context, ag_reduce kind, const ag_tensor *x, unsigned axes,
                       ag_tensor *y)
{
    if (x->dtype == AG_C128)
        return ag_complex_reduce(kind, x, axes, y);
    const ag_row_kernels *kernels = row_kernels(context, x->dtype);
    if (ag_tensor_count(x) == 0) {
        kernels->reduce_rows[kind](ag_tensor_count(y), 0, y->data, y->data);
        return true;
    }
    axis_group groups[AG_MAX_RANK];
    int n = group_axes(x, axes, groups), at = last_reduced(groups, n);
    if (n > 0 && reduce_few(kernels, kind, x, groups, n, y))
        return true;
    block_job job = { .kernels = kernels, .kind = kind, .x = ag_reader_over(x) };
    if (at < 0)
        ag_reader_copy(&job.x, 0, ag_tensor_count(x), y->data);
    void *partial = NULL;
    size_t partial_bytes = 0, bytes;
    for (; at >= 0; at = last_reduced(groups, n)) {
        bool done = reduce_group(context, &job, groups, n, at, y, &bytes);
        if (partial)
            ag_memory_recycle(context, partial, partial_bytes);
        if (!done)
            return false;
        partial = job.y;
        partial_bytes = bytes;
    }
    return true;
}

/* ---- Argmax and cumulative sum ---- */

static void block_over_axis(block_job *job, const ag_tensor *x, int axis)
{
    int64_t outer = 1, inner = 1;
    for (int i = 0; i < axis; i++)
        outer *= x->dims[i];
    for (int i = axis + 1; i < x->rank; i++)
        inner *= x->dims[i];
    block_cut(job, outer, x->dims[axis], inner, x->dims[axis]);
}

static void argmax_task(void *job_, int64_t task, int worker)
{
    const block_job *job = job_;
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    _Alignas(AG_ALIGNMENT) char best[TILE * sizeof(double)];
    int64_t number = task * job->units_per_task;
    int64_t end = ag_min(job->units, number + job->units_per_task);
    (void)worker;
    for (; number < end; number++) {
        unit u = block_unit(job, number);
        int64_t *y = (int64_t *)(void *)job->y + u.i * job->inner + u.column;
        int64_t step = rows_at_once(&u), stride;
        for (int64_t i = 0; i < u.rows; i += step) {
            int64_t rows = ag_min(step, u.rows - i);
            const void *x = block_rows(job, &u, i, rows, buffer, &stride);
            job->kernels->argmax(i, rows, u.columns, x, stride, best, y);
        }
    }
}

bool ag_compute_argmax(ag_context *context, const ag_tensor *x, int axis, ag_tensor *y)
{
    if (ag_tensor_count(y) == 0)
        return true;
    if (x->dims[axis] == 0)
        return ag_fail(context, AG_ERR_SHAPE, "argmax: axis %d has no elements", axis);
    if (x->dtype == AG_C128)
        return ag_complex_argmax(x, axis, y);
    block_job job = { .kernels = row_kernels(context, x->dtype), .y = y->data };
    job.x = ag_reader_over(x);
    block_over_axis(&job, x, axis);
    ag_parallel(context, ag_blocks(job.units, job.units_per_task), argmax_task, &job);
    return true;
}

/* The running sums are kept in f64. */
static void cumsum_task(void *job_, int64_t task, int worker)
{
    const block_job *job = job_;
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    int64_t number = task * job->units_per_task;
    int64_t end = ag_min(job->units, number + job->units_per_task);
    (void)worker;
    for (; number < end; number++) {
        unit u = block_unit(job, number);
        double sums[TILE] = { 0 };
        int64_t at = u.i * job->n * job->inner + u.column;
        int64_t step = rows_at_once(&u), stride;
        for (int64_t i = 0; i < u.rows; i += step) {
            int64_t rows = ag_min(step, u.rows - i);
            const void *x = block_rows(job, &u, i, rows, buffer, &stride);
            void *y = job->y + (at + i * job->inner) * (int64_t)job->x.size;
            job->kernels->cumsum(rows, u.columns, x, stride, sums, y, job->inner);
        }
    }
}

bool ag_compute_cumsum(ag_context *context, const ag_tensor *x, int axis, ag_tensor *y)
{
    if (x->dtype == AG_C128)
        return ag_complex_cumsum(x, axis, y);
    if (ag_tensor_count(x) == 0)
        return true;
    block_job job = { .kernels = row_kernels(context, x->dtype), .y = y->data };
    job.x = ag_reader_over(x);
    block_over_axis(&job, x, axis);
    ag_parallel(context, ag_blocks(job.units, job.units_per_task), cumsum_task, &job);
    return true;
}
