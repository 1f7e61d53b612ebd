/* Computations row by row: softmax, cross-entropy, gathering and scattering rows.
 *
 * Rows are independent of each other, so tasks are blocks of rows. Labels and
 * indices are all checked before anything is written. */
#include <string.h>

#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

static const ag_row_kernels *row_kernels(const ag_context *context, ag_dtype dtype)
{
    return context->kernels->rows[ag_kernels_type(dtype)];
}

/* Row i of a tensor whose rows have n elements. */
static void *row(const ag_tensor *x, int64_t i, int64_t n)
{
    return (char *)x->data + i * n * (int64_t)ag_dtype_size(x->dtype);
}

/* ---- Softmax and cross-entropy ---- */

typedef struct rows_job {
    const ag_row_kernels *kernels;
    ag_softmax_kind kind;
    int64_t rows, n, rows_per_task;
    const ag_tensor *x, *y, *dy; /* y and dy: of backward */
    const int64_t *labels, *ignore;
    const ag_tensor *kept; /* of cross-entropy */
    double factor;
    ag_tensor *result;
} rows_job;

/* Sets rows, n and rows_per_task for the rows along x's last axis. */
static void rows_cut(rows_job *job, const ag_tensor *x)
{
    job->rows = 1;
    for (int i = 0; i + 1 < x->rank; i++)
        job->rows *= x->dims[i];
    job->n = x->rank > 0 ? x->dims[x->rank - 1] : 1;
    bool small = job->rows * job->n <= AG_TASK_EXPS;
    job->rows_per_task = small ? job->rows : ag_rows_per_task(job->n, AG_TASK_EXPS);
}

static void rows_run(ag_context *context, rows_job *job, ag_task *run)
{
    if (job->rows <= job->rows_per_task)
        run(job, 0, 0);
    else
        ag_parallel(context, ag_blocks(job->rows, job->rows_per_task), run, job);
}

static void softmax_task(void *job_, int64_t task, int worker)
{
    const rows_job *job = job_;
    int64_t first = task * job->rows_per_task;
    int64_t rows = ag_min(job->rows_per_task, job->rows - first);
    int64_t y_n = job->kind == AG_ROWS_LOGSUMEXP ? 1 : job->n;
    (void)worker;
    job->kernels->softmax[job->kind](rows, job->n, row(job->x, first, job->n),
                                     row(job->result, first, y_n));
}

bool ag_compute_softmax(ag_context *context, ag_softmax_kind kind, const ag_tensor *x, ag_tensor *y)
{
    if (x->dtype == AG_C128)
        return ag_complex_softmax(kind, x, y);
    rows_job job = { .kernels = row_kernels(context, x->dtype), .kind = kind };
    job.x = x;
    job.result = y;
    rows_cut(&job, x);
    rows_run(context, &job, softmax_task);
    return true;
}

static void softmax_backward_task(void *job_, int64_t task, int worker)
{
    const rows_job *job = job_;
    int64_t first = task * job->rows_per_task;
    int64_t rows = ag_min(job->rows_per_task, job->rows - first);
    (void)worker;
    job->kernels->softmax_backward[job->kind](rows, job->n, row(job->y, first, job->n),
                                              row(job->dy, first, job->n),
                                              row(job->result, first, job->n));
}

bool ag_compute_softmax_backward(ag_context *context, ag_softmax_kind kind, const ag_tensor *y,
                                 const ag_tensor *dy, ag_tensor *dx)
{
    rows_job job = { .kernels = row_kernels(context, y->dtype), .kind = kind };
    if (kind == AG_ROWS_LOGSUMEXP)
        return ag_fail(context, AG_ERR_ARGUMENT, "logsumexp: there is no fused backward rule");
    job.y = y;
    job.dy = dy;
    job.result = dx;
    rows_cut(&job, y);
    rows_run(context, &job, softmax_backward_task);
    return true;
}

static bool check_labels(ag_context *context, const rows_job *job)
{
    for (int64_t i = 0; i < job->rows; i++) {
        int64_t label = job->labels[i];
        if ((label >= 0 && label < job->n) || (job->ignore && label == *job->ignore))
            continue;
        if (job->n == 0)
            return ag_fail(context, AG_ERR_INDEX,
                           "cross_entropy: label %lld at [%lld], but there are no classes",
                           (long long)label, (long long)i);
        return ag_fail(context, AG_ERR_INDEX,
                       "cross_entropy: label %lld at [%lld] is not in 0 .. %lld", (long long)label,
                       (long long)i, (long long)(job->n - 1));
    }
    return true;
}

static void cross_entropy_task(void *job_, int64_t task, int worker)
{
    const rows_job *job = job_;
    int64_t first = task * job->rows_per_task;
    int64_t rows = ag_min(job->rows_per_task, job->rows - first);
    (void)worker;
    job->kernels->cross_entropy(rows, job->n, row(job->x, first, job->n), job->labels + first,
                                job->ignore, row(job->result, first, 1), row(job->kept, first, 2));
}

bool ag_compute_cross_entropy(ag_context *context, const ag_tensor *logits, const ag_tensor *labels,
                              const int64_t *ignore, ag_tensor *losses, ag_tensor *kept)
{
    rows_job job = { .kernels = row_kernels(context, logits->dtype), .ignore = ignore };
    job.x = logits;
    job.labels = labels->data;
    job.result = losses;
    job.kept = kept;
    rows_cut(&job, logits);
    if (!check_labels(context, &job))
        return false;
    if (logits->dtype == AG_C128)
        return ag_complex_cross_entropy(logits, job.labels, ignore, losses);
    rows_run(context, &job, cross_entropy_task);
    return true;
}

static void cross_entropy_backward_task(void *job_, int64_t task, int worker)
{
    const rows_job *job = job_;
    int64_t first = task * job->rows_per_task;
    int64_t rows = ag_min(job->rows_per_task, job->rows - first);
    (void)worker;
    job->kernels->cross_entropy_backward(rows, job->n, row(job->x, first, job->n),
                                         job->labels + first, job->ignore, row(job->kept, first, 2),
                                         job->factor, row(job->result, first, job->n));
}

bool ag_compute_cross_entropy_backward(ag_context *context, const ag_tensor *logits,
                                       const ag_tensor *labels, const int64_t *ignore,
                                       const ag_tensor *kept, double factor, ag_tensor *dlogits)
{
    rows_job job = { .kernels = row_kernels(context, logits->dtype), .ignore = ignore };
    job.x = logits;
    job.labels = labels->data;
    job.kept = kept;
    job.factor = factor;
    job.result = dlogits;
    rows_cut(&job, logits);
    if (!check_labels(context, &job))
        return false;
    rows_run(context, &job, cross_entropy_backward_task);
    return true;
}

/* ---- Gather and scatter ---- */

/* Row k of many belongs to row indices[k] of few. */
typedef struct index_job {
    const ag_row_kernels *kernels; /* of scatter only */
    ag_reader from;
    const int64_t *indices; /* dense */
    int64_t count;          /* of indices */
    int64_t n;              /* elements of a row */
    int64_t per_task;       /* gather: rows; scatter: columns */
    ag_tensor *y;
} index_job;

/* "[2,1]": where the k-th of the indices stands. */
static void index_place(const ag_tensor *indices, int64_t k, char *text, size_t size)
{
    ag_shape place = { .rank = indices->rank };
    for (int i = indices->rank - 1; i >= 0; i--) {
        place.dims[i] = k % indices->dims[i];
        k /= indices->dims[i];
    }
    ag_shape_text(place, text, size);
}

/* Makes job->indices dense and checks them against v rows. */
static bool index_job_begin(ag_context *context, const char *operation, index_job *job,
                            const ag_tensor *indices, int64_t v, ag_tensor *dense)
{
    char place[200];
    if (!ag_tensor_dense(context, indices, dense))
        return false;
    job->indices = dense->data;
    job->count = ag_tensor_count(indices);
    for (int64_t k = 0; k < job->count; k++) {
        if (job->indices[k] >= 0 && job->indices[k] < v)
            continue;
        index_place(indices, k, place, sizeof place);
        return ag_fail(context, AG_ERR_INDEX,
                       "%s: index %lld at %s is outside of a table of %lld rows", operation,
                       (long long)job->indices[k], place, (long long)v);
    }
    return true;
}

static int64_t row_size(const ag_tensor *x, int axes)
{
    int64_t n = 1;
    for (int i = axes; i < x->rank; i++)
        n *= x->dims[i];
    return n;
}

static void gather_task(void *job_, int64_t task, int worker)
{
    const index_job *job = job_;
    int64_t k = task * job->per_task, end = ag_min(job->count, k + job->per_task);
    (void)worker;
    for (; k < end; k++)
        ag_reader_copy(&job->from, job->indices[k] * job->n, job->n, row(job->y, k, job->n));
}

bool ag_compute_gather_rows(ag_context *context, const ag_tensor *table, const ag_tensor *indices,
                            ag_tensor *y)
{
    index_job job = { .from = ag_reader_over(table), .n = row_size(table, 1), .y = y };
    ag_tensor dense;
    if (!index_job_begin(context, "gather_rows", &job, indices, table->dims[0], &dense))
        return false;
    if (job.n == 0)
        return true;
    job.per_task = ag_rows_per_task(job.n, AG_TASK_ELEMENTS);
    ag_parallel(context, ag_blocks(job.count, job.per_task), gather_task, &job);
    return true;
}

/* A task does all rows, for some columns: so each sum has its order, k ascending. */
static void scatter_task(void *job_, int64_t task, int worker)
{
    const index_job *job = job_;
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    int64_t column = task * job->per_task, n = ag_min(job->per_task, job->n - column);
    size_t size = ag_dtype_size(job->y->dtype);
    (void)worker;
    for (int64_t i = 0; i < job->y->dims[0]; i++)
        memset((char *)row(job->y, i, job->n) + (size_t)column * size, 0, (size_t)n * size);
    for (int64_t k = 0; k < job->count; k++) {
        const void *x = ag_reader_get(&job->from, k * job->n + column, n, buffer);
        char *y = row(job->y, job->indices[k], job->n);
        job->kernels->accumulate(n, x, y + (size_t)column * size);
    }
}

/* Columns of a scatter's task, if there is work for more than one. */
#define SCATTER_COLUMNS 64

bool ag_compute_scatter_add_rows(ag_context *context, const ag_tensor *rows,
                                 const ag_tensor *indices, ag_tensor *y)
{
    index_job job = { .from = ag_reader_over(rows), .n = row_size(y, 1), .y = y };
    ag_tensor dense;
    if (!index_job_begin(context, "scatter_add_rows", &job, indices, y->dims[0], &dense))
        return false;
    if (job.n == 0)
        return true;
    if (y->dtype == AG_C128)
        return ag_complex_scatter_add_rows(rows, job.indices, job.count, y);
    job.kernels = row_kernels(context, y->dtype);
    bool large = (job.count + y->dims[0]) * job.n > AG_TASK_ELEMENTS;
    job.per_task = large ? SCATTER_COLUMNS : ag_min(job.n, AG_READ_ELEMENTS);
    ag_parallel(context, ag_blocks(job.n, job.per_task), scatter_task, &job);
    return true;
}
