/* Matrix products of whole tensors: cut into tiles of the result, which are
 * independent of each other and shared out to the threads. The arithmetic is
 * in kernels/matmul.inc. */
#include <string.h>

#include "internal.h"
#include "kernels/kernels.h"

/* Below this many multiplications, waking threads costs more than it gains. */
#define PARALLEL_FROM (1 << 19)

enum {
    SMALL_SCRATCH = 16 << 10, /* bytes; that much lies on the stack */
    LARGE_TILE = 128 * 128,   /* rows times columns: smaller ones are less efficient */
};

typedef struct matmul_job {
    const ag_matmul_kernels *kernels;
    size_t size;         /* bytes of an element */
    int64_t m;           /* rows of one product */
    ag_matmul_tile tile; /* the first tile */
    int batch_axes;
    int64_t batch[AG_MAX_RANK]; /* sizes of the batch axes */
    int64_t a_strides[AG_MAX_RANK], b_strides[AG_MAX_RANK];
    int64_t start_strides[AG_MAX_RANK]; /* of the start's matrix along the batch axes */
    int64_t n;                          /* columns of one product */
    int64_t products, row_tiles, column_tiles, tiles, tasks;
    char *scratch; /* scratch_bytes for each thread */
    size_t scratch_bytes;
} matmul_job;

/* To element i, j and then by offset. */
static void advance(ag_matrix *matrix, int64_t i, int64_t j, int64_t offset, size_t size)
{
    offset += i * matrix->row + j * matrix->column;
    if (matrix->data)
        matrix->data = (const char *)matrix->data + offset * (int64_t)size;
}

/* Tile by tile: the column tiles of a row tile, the row tiles of a product, the
 * products. start[0] is the same for all products; start[1] is a matrix for each. */
static void run_tile(const matmul_job *job, int64_t index, void *scratch)
{
    ag_matmul_tile t = job->tile;
    int64_t i = 0, j = 0, product = index;
    if (job->tiles > job->products) {
        j = index % job->column_tiles * t.n;
        i = index / job->column_tiles % job->row_tiles * t.m;
        product = index / job->column_tiles / job->row_tiles;
    }
    int64_t rest = product;
    int64_t a = 0, b = 0, start = 0;
    for (int axis = job->batch_axes - 1; axis >= 0; axis--) {
        int64_t at = rest % job->batch[axis];
        rest /= job->batch[axis];
        a += at * job->a_strides[axis];
        b += at * job->b_strides[axis];
        start += at * job->start_strides[axis];
    }
    advance(&t.a, i, 0, a, job->size);
    advance(&t.b, 0, j, b, job->size);
    advance(&t.start[0], i, j, 0, job->size);
    advance(&t.start[1], i, j, start, job->size);
    int64_t c = product * job->m * job->n + i * t.c_row + j * t.c_column;
    t.c = (char *)t.c + c * (int64_t)job->size;
    t.m = ag_min(t.m, job->m - i);
    t.n = ag_min(t.n, job->n - j);
    job->kernels->tile(&t, scratch);
}

/* A task is a range of tiles, as long as the other tasks'. */
static void run_task(void *argument, int64_t task, int worker)
{
    const matmul_job *job = argument;
    int64_t end = job->tiles * (task + 1) / job->tasks;
    for (int64_t tile = job->tiles * task / job->tasks; tile < end; tile++)
        run_tile(job, tile, job->scratch + (size_t)worker * job->scratch_bytes);
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
    ag_matrix *a = &job->tile.a, *start = &job->tile.start[1];
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
        job->tile.start[0] = (ag_matrix){ row->data, 0, row->strides[0] };
    if (!matrix)
        return;
    int rows = matrix->rank - 2, columns = matrix->rank - 1;
    job->tile.start[1] =
        (ag_matrix){ matrix->data, matrix->strides[rows], matrix->strides[columns] };
    for (int axis = 0; axis < rows; axis++)
        job->start_strides[axis] = matrix->strides[axis];
}

static void describe(matmul_job *job, const ag_tensor *a, const ag_tensor *b, const ag_tensor *y)
{
    int rows = y->rank - 2, columns = y->rank - 1;
    job->m = y->dims[rows];
    job->n = y->dims[columns];
    job->tile.k = a->dims[columns];
    job->tile.a = (ag_matrix){ a->data, a->strides[rows], a->strides[columns] };
    job->tile.b = (ag_matrix){ b->data, b->strides[rows], b->strides[columns] };
    job->tile.c = y->data;
    job->tile.c_row = job->n;
    job->tile.c_column = 1;
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
}

static ag_matrix transposed(ag_matrix x)
{
    return (ag_matrix){ x.data, x.column, x.row };
}

/* c^T = b^T a^T: the same sums. */
static void transpose(matmul_job *job)
{
    ag_matmul_tile *t = &job->tile;
    ag_matrix a = t->a;
    t->a = transposed(t->b);
    t->b = transposed(a);
    for (int s = 0; s < 2; s++)
        t->start[s] = transposed(t->start[s]);
    int64_t m = job->m, c_row = t->c_row;
    job->m = job->n;
    job->n = m;
    t->c_row = t->c_column;
    t->c_column = c_row;
    for (int axis = 0; axis < job->batch_axes; axis++) {
        int64_t stride = job->a_strides[axis];
        job->a_strides[axis] = job->b_strides[axis];
        job->b_strides[axis] = stride;
    }
}

/* About equal parts of a size, no larger than part and multiples of step. */
static int64_t equal_part(int64_t size, int64_t part, int64_t step)
{
    return ag_min(size, ag_blocks(ag_blocks(size, ag_blocks(size, part)), step) * step);
}

/* Tiles as large as is good for the caches. If there are fewer of them than tasks
 * they are cut, the longer side first: as long as they are large, or until each
 * thread has one. */
static void cut_into_tiles(matmul_job *job, int64_t tasks, int threads)
{
    const ag_matmul_kernels *kernels = job->kernels;
    int64_t rows = ag_min(job->m, kernels->tile_rows);
    int64_t columns = ag_min(job->n, kernels->tile_columns);
    while (tasks > 1) {
        int64_t tiles = job->products * ag_blocks(job->m, rows) * ag_blocks(job->n, columns);
        if (tiles >= tasks || (tiles >= threads && rows * columns <= LARGE_TILE))
            break;
        if (rows >= columns && rows > kernels->row_step)
            rows = ag_blocks(rows, 2);
        else if (columns > kernels->column_step)
            columns = ag_blocks(columns, 2);
        else
            break;
    }
    job->tile.m = job->m == rows ? rows : equal_part(job->m, rows, kernels->row_step);
    job->tile.n = job->n == columns ? columns : equal_part(job->n, columns, kernels->column_step);
    job->row_tiles = job->m == rows ? 1 : ag_blocks(job->m, job->tile.m);
    job->column_tiles = job->n == columns ? 1 : ag_blocks(job->n, job->tile.n);
    job->tiles = job->products * job->row_tiles * job->column_tiles;
    job->tasks = ag_min(job->tiles, tasks);
}

/* As many tasks as keep threads busy to the end, but none too small to be worth it. */
static int64_t count_tasks(int threads, double work)
{
    if (threads == 1 || work < PARALLEL_FROM)
        return 1;
    int64_t most = 8 * (int64_t)threads, worthwhile = (int64_t)(work / PARALLEL_FROM);
    int64_t tasks = worthwhile < most ? worthwhile / threads * threads : most;
    return tasks < threads ? threads : tasks;
}

bool ag_compute_matmul(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                       const ag_matmul_start *start, ag_tensor *y)
{
    int64_t count = ag_tensor_count(y);
    if (count == 0)
        return true;
    _Alignas(AG_ALIGNMENT) char small[SMALL_SCRATCH];
    matmul_job job;
    job.kernels = context->kernels->matmul[ag_kernels_type(y->dtype)];
    job.size = ag_dtype_size(y->dtype);
    memset(job.tile.start, 0, sizeof job.tile.start);
    memset(job.start_strides, 0, sizeof job.start_strides);
    if (start)
        describe_start(&job, start);
    describe(&job, a, b, y);
    job.tile.m = job.m;
    job.tile.n = job.n;
    if (job.kernels->better_transposed(&job.tile))
        transpose(&job);
    double work = (double)count * (double)job.tile.k;
    cut_into_tiles(&job, count_tasks(context->threads, work), context->threads);

    size_t bytes = job.kernels->scratch(&job.tile);
    job.scratch_bytes = (bytes + AG_ALIGNMENT - 1) / AG_ALIGNMENT * AG_ALIGNMENT;
    size_t all = job.scratch_bytes * (size_t)(job.tasks > 1 ? context->threads : 1);
    job.scratch = all <= SMALL_SCRATCH ? small : ag_memory_new(context, AG_STEP, all);
    if (job.scratch == NULL)
        return false;
    if (job.tiles == 1)
        job.kernels->tile(&job.tile, job.scratch);
    else
        ag_parallel(context, job.tasks, run_task, &job);
    if (job.scratch != small)
        ag_memory_recycle(context, job.scratch, all);
    return true;
}
