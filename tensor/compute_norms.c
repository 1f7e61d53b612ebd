/* Layer norm and RMS norm of rows, and their gradients.
 *
 * Rows are independent of each other, but the gradients of gain and bias are
 * sums over all of them. These are cut into blocks of rows at fixed places:
 * each block has its own sums, and the blocks' sums are added at the end, in
 * an order that depends on the shape alone. */
#include <string.h>

#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

typedef struct norm_job {
    const ag_norm_kernels *kernels;
    ag_norm_rows kind;
    int64_t rows, n, rows_per_task;
    size_t size; /* bytes of an element */

    ag_norm_forward forward;   /* of all rows */
    ag_norm_backward backward; /* likewise; dgain and dbias are [blocks, n] */
    int64_t block;             /* rows of a block; a task has several */
} norm_job;

static norm_job job_over(const ag_context *context, ag_norm_rows kind, const ag_tensor *x)
{
    norm_job job = { .kernels = context->kernels->norms[ag_kernels_type(x->dtype)], .kind = kind };
    job.size = ag_dtype_size(x->dtype);
    job.n = x->dims[x->rank - 1];
    job.rows = ag_shape_count(ag_shape_make(x->rank - 1, x->dims));
    job.rows_per_task = ag_rows_per_task(job.n, AG_TASK_ELEMENTS);
    return job;
}

/* data moved on by so many elements; NULL stays. */
static void *onwards(const norm_job *job, const void *data, int64_t elements)
{
    return data ? (char *)(uintptr_t)data + (size_t)elements * job->size : NULL;
}

/* values if it is given, or n times value. */
static bool row_or_constant(ag_context *context, const ag_tensor *values, double value,
                            const ag_tensor *x, ag_tensor *row)
{
    if (values) {
        *row = *values;
        return true;
    }
    ag_shape shape = AG_SHAPE(x->dims[x->rank - 1]);
    return ag_tensor_allocate(context, AG_STEP, x->dtype, shape, row) &&
           ag_tensor_fill(context, row, value);
}

/* ---- Forward ---- */

static void forward_task(void *job_, int64_t task, int worker)
{
    const norm_job *job = job_;
    ag_norm_forward part = job->forward;
    int64_t first = task * job->rows_per_task;
    (void)worker;
    part.rows = ag_min(job->rows_per_task, job->rows - first);
    part.x = onwards(job, part.x, first * job->n);
    part.y = onwards(job, part.y, first * job->n);
    part.statistics = onwards(job, part.statistics, first * AG_NORM_STATISTICS);
    job->kernels->forward[job->kind](&part);
}

bool ag_compute_norm(ag_context *context, ag_norm_rows kind, double epsilon, const ag_tensor *x,
                     const ag_tensor *gain, const ag_tensor *bias, ag_tensor *y,
                     ag_tensor *statistics)
{
    if (x->dtype == AG_C128)
        return ag_complex_norm(kind, epsilon, x, gain, bias, y);
    norm_job job = job_over(context, kind, x);
    ag_tensor ones, zeros;
    if (!row_or_constant(context, gain, 1, x, &ones) ||
        !row_or_constant(context, bias, 0, x, &zeros))
        return false;
    job.forward = (ag_norm_forward){ .n = job.n,
                                     .x = x->data,
                                     .gain = ones.data,
                                     .bias = zeros.data,
                                     .epsilon = epsilon,
                                     .y = y->data,
                                     .statistics = statistics->data };
    ag_parallel(context, ag_blocks(job.rows, job.rows_per_task), forward_task, &job);
    return true;
}

/* ---- Backward ---- */

/* A block's sums are sums of at most LONGEST terms, and they are at most a
 * SHORTEST-th of x. */
enum { LONGEST_BLOCK = 128, SHORTEST_BLOCK = 16 };

static void backward_task(void *job_, int64_t task, int worker)
{
    const norm_job *job = job_;
    int64_t first = task * job->rows_per_task;
    int64_t end = ag_min(job->rows, first + job->rows_per_task);
    (void)worker;
    for (; first < end; first += job->block) {
        ag_norm_backward part = job->backward;
        int64_t sums = first / job->block * job->n;
        part.rows = ag_min(job->block, end - first);
        part.x = onwards(job, part.x, first * job->n);
        part.dy = onwards(job, part.dy, first * job->n);
        part.dx = onwards(job, part.dx, first * job->n);
        part.statistics = onwards(job, part.statistics, first * AG_NORM_STATISTICS);
        part.dgain = onwards(job, part.dgain, sums);
        part.dbias = onwards(job, part.dbias, sums);
        job->kernels->backward[job->kind](&part);
    }
}

/* Room for one vector of sums per block, zeroed: the result itself if one
 * vector is enough. */
static bool sums_begin(ag_context *context, int64_t blocks, ag_tensor *result, ag_tensor *sums)
{
    *sums = (ag_tensor){ .data = NULL };
    if (!result)
        return true;
    if (blocks <= 1)
        *sums = *result;
    else if (!ag_tensor_allocate(context, AG_STEP, result->dtype, AG_SHAPE(blocks, result->dims[0]),
                                 sums))
        return false;
    memset(sums->data, 0, ag_tensor_bytes(sums));
    return true;
}

static bool sums_end(ag_context *context, int64_t blocks, ag_tensor *sums, ag_tensor *result)
{
    if (!result || blocks <= 1)
        return true;
    bool done = ag_compute_reduce(context, AG_REDUCE_SUM, sums, 1u, result);
    ag_memory_recycle(context, sums->data, ag_tensor_bytes(sums));
    return done;
}

bool ag_compute_norm_backward(ag_context *context, ag_norm_rows kind, const ag_tensor *x,
                              const ag_tensor *gain, const ag_tensor *statistics,
                              const ag_tensor *dy, const ag_norm_gradients *gradients)
{
    norm_job job = job_over(context, kind, x);
    job.block = ag_min(job.rows_per_task, LONGEST_BLOCK);
    if (job.block < SHORTEST_BLOCK)
        job.block = SHORTEST_BLOCK;
    job.rows_per_task = ag_blocks(job.rows_per_task, job.block) * job.block;

    const int64_t blocks = ag_blocks(job.rows, job.block);
    ag_tensor ones, gain_sums, bias_sums;
    if (!row_or_constant(context, gain, 1, x, &ones) ||
        !sums_begin(context, blocks, gradients->gain, &gain_sums) ||
        !sums_begin(context, blocks, gradients->bias, &bias_sums))
        return false;
    job.backward = (ag_norm_backward){ .n = job.n,
                                       .x = x->data,
                                       .gain = ones.data,
                                       .statistics = statistics->data,
                                       .dy = dy->data,
                                       .dx = gradients->x ? gradients->x->data : NULL,
                                       .dgain = gain_sums.data,
                                       .dbias = bias_sums.data };
    ag_parallel(context, ag_blocks(job.rows, job.rows_per_task), backward_task, &job);
    return sums_end(context, blocks, &gain_sums, gradients->gain) &&
           sums_end(context, blocks, &bias_sums, gradients->bias);
}
