/* Matrix products of whole tensors: cut into tiles of the result, which are
 * independent of each other and shared out to the threads. The arithmetic is
 * in kernels/matmul.inc. */
#include "internal.h"
#include "kernels/kernels.h"

/* Below this many multiplications, waking threads costs more than it gains. */
#define PARALLEL_FROM (1 << 19)

typedef struct matmul_job {
    const ag_matmul_kernels *kernels;
    size_t size;     /* bytes of an element */
    int64_t m, n, k; /* of one product */
    ag_matrix a, b;  /* of the first product */
    char *y;
    int batch_axes;
    int64_t batch[AG_MAX_RANK]; /* sizes of the batch axes */
    int64_t a_strides[AG_MAX_RANK], b_strides[AG_MAX_RANK];
    ag_matrix start[2];                 /* the row, with a row stride of 0, and the matrix */
    int64_t start_strides[AG_MAX_RANK]; /* of the matrix along the batch axes */
    int64_t products, row_tiles, column_tiles;
    char *scratch; /* scratch_bytes for each thread */
    size_t scratch_bytes;
} matmul_job;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static const char *at(const void *data, int64_t offset, size_t size)
{
    return (const char *)data + offset * (int64_t)size;
}

/* Task by task: the column tiles of a row tile, the row tiles of a product,
 * the products. */
static void run_tile(void *argument, int64_t task, int worker)
{
    const matmul_job *job = argument;
    const ag_matmul_kernels *kernels = job->kernels;
    int64_t j = task % job->column_tiles * kernels->tile_columns;
    int64_t i = task / job->column_tiles % job->row_tiles * kernels->tile_rows;
    int64_t product = task / job->column_tiles / job->row_tiles;
    int64_t a_offset = i * job->a.row, b_offset = j * job->b.column;
    int64_t start_offset = i * job->start[1].row + j * job->start[1].column;
    int64_t rest = product;
    for (int axis = job->batch_axes - 1; axis >= 0; axis--) {
        int64_t index = rest % job->batch[axis];
        rest /= job->batch[axis];
        a_offset += index * job->a_strides[axis];
        b_offset += index * job->b_strides[axis];
        start_offset += index * job->start_strides[axis];
    }
    ag_matmul_tile tile = {
        .m = smaller(job->m - i, kernels->tile_rows),
        .n = smaller(job->n - j, kernels->tile_columns),
        .k = job->k,
        .a = job->a,
        .b = job->b,
        .start = { job->start[0], job->start[1] },
        .c = job->y + ((product * job->m + i) * job->n + j) * (int64_t)job->size,
        .c_row = job->n,
    };
    tile.a.data = at(job->a.data, a_offset, job->size);
    tile.b.data = at(job->b.data, b_offset, job->size);
    if (tile.start[0].data)
        tile.start[0].data = at(job->start[0].data, j * job->start[0].column, job->size);
    if (tile.start[1].data)
        tile.start[1].data = at(job->start[1].data, start_offset, job->size);
    kernels->tile(&tile, job->scratch + (size_t)worker * job->scratch_bytes);
}

/* Whether matrices of m rows that lie stride apart are one matrix of all their rows. */
static bool rows_follow(const ag_matrix *x, int64_t m, int64_t stride)
{
    return x->data == NULL || m == 1 || stride == m * x->row;
}

/* One product for all entries of a batch where b is the same matrix and the
 * rows of a follow each other: [8, 16, 32] [32, 4] is [128, 32] [32, 4]. */
static void fold_batch_into_rows(matmul_job *job)
{
    ag_matrix *a = &job->a, *start = &job->start[1];
    while (job->batch_axes > 0) {
        int axis = job->batch_axes - 1;
        bool folds = job->b_strides[axis] == 0 && rows_follow(a, job->m, job->a_strides[axis]) &&
                     rows_follow(start, job->m, job->start_strides[axis]);
        if (job->batch[axis] != 1 && !folds)
            return;
        if (job->m == 1) {
            a->row = job->a_strides[axis];
            start->row = job->start_strides[axis];
        }
        job->m *= job->batch[axis];
        job->batch_axes--;
    }
}

/* The stride along an axis that may be broadcast. */
static int64_t broadcast_stride(const ag_tensor *x, int axis)
{
    return x->dims[axis] == 1 ? 0 : x->strides[axis];
}

static void describe_start(matmul_job *job, const ag_matmul_start *start)
{
    const ag_tensor *row = start->row, *matrix = start->matrix;
    if (row)
        job->start[0] = (ag_matrix){ row->data, 0, row->strides[0] };
    if (!matrix)
        return;
    int rows = matrix->rank - 2, columns = matrix->rank - 1;
    job->start[1] = (ag_matrix){ matrix->data, matrix->strides[rows], matrix->strides[columns] };
    for (int axis = 0; axis < rows; axis++)
        job->start_strides[axis] = matrix->strides[axis];
}

static void describe(matmul_job *job, const ag_tensor *a, const ag_tensor *b, const ag_tensor *y)
{
    int rows = y->rank - 2, columns = y->rank - 1;
    job->m = y->dims[rows];
    job->n = y->dims[columns];
    job->k = a->dims[columns];
    job->a = (ag_matrix){ a->data, a->strides[rows], a->strides[columns] };
    job->b = (ag_matrix){ b->data, b->strides[rows], b->strides[columns] };
    job->y = y->data;
    job->batch_axes = rows;
    for (int axis = 0; axis < rows; axis++) {
        job->batch[axis] = y->dims[axis];
        job->a_strides[axis] = broadcast_stride(a, axis);
        job->b_strides[axis] = broadcast_stride(b, axis);
    }
    fold_batch_into_rows(job);
    job->products = 1;
    for (int axis = 0; axis < job->batch_axes; axis++)
        job->products *= job->batch[axis];
    job->row_tiles = (job->m - 1) / job->kernels->tile_rows + 1;
    job->column_tiles = (job->n - 1) / job->kernels->tile_columns + 1;
}

bool ag_compute_matmul(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                       const ag_matmul_start *start, ag_tensor *y)
{
    if (ag_tensor_count(y) == 0)
        return true;
    matmul_job job = { .kernels = context->kernels->matmul[ag_kernels_type(y->dtype)],
                       .size = ag_dtype_size(y->dtype) };
    if (start)
        describe_start(&job, start);
    describe(&job, a, b, y);
    int64_t tasks = job.products * job.row_tiles * job.column_tiles;
    double work = (double)ag_tensor_count(y) * (double)job.k;
    int threads = tasks > 1 && work >= PARALLEL_FROM ? context->threads : 1;

    size_t bytes = job.kernels->scratch(job.m, job.k);
    job.scratch_bytes = (bytes + AG_ALIGNMENT - 1) / AG_ALIGNMENT * AG_ALIGNMENT;
    size_t all = job.scratch_bytes * (size_t)threads;
    job.scratch = ag_memory_new(context, AG_STEP, all);
    if (job.scratch == NULL)
        return false;
    if (threads > 1)
        ag_parallel(context, tasks, run_tile, &job);
    else
        for (int64_t task = 0; task < tasks; task++)
            run_tile(&job, task, 0);
    ag_memory_recycle(context, job.scratch, all);
    return true;
}
