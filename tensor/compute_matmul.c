/* Matrix products of whole tensors: cut into tiles of the result, which are
 * independent of each other and shared out to the threads. The arithmetic is
 * in kernels/matmul.inc.
 *
 * The gradient of a weight matrix is a long sum for a small result: with tiles alone
 * every thread would read all of an operand. The kernels cut k into pieces, whose sums
 * they add one after another,
 *
 *   c = piece 0 + start,  c = c + piece 1,  c = c + piece 2, ..
 *
 * so the threads may compute the pieces each for itself, and add them in that order
 * when they are there: the bits are those of one thread. */
#include <string.h>

#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

/* Below this many multiplications, waking threads costs more than it gains. */
#define PARALLEL_FROM (1 << 19)

enum {
    SMALL_SCRATCH = 16 << 10, /* bytes; that much lies on the stack */
    LARGE_TILE = 128 * 256,   /* rows times columns: smaller ones are less efficient */
    LARGE_RESULT = 512 << 10, /* bytes: adding pieces of larger ones costs too much */
    MOST_SUMS = 64 << 10, /* bytes of pieces that wait to be added, unless each thread needs more */
    ADD_AT_ONCE = 4 << 10, /* numbers of each piece */
};

typedef struct matmul_job {
    const ag_matmul_kernels *kernels;
    const ag_matmul_way *way;
    size_t size;         /* bytes of an element */
    int64_t m, k;        /* rows of one product, terms of its sums */
    ag_matmul_tile tile; /* the first tile of the first piece */
    int batch_axes;
    int64_t batch[AG_MAX_RANK]; /* sizes of the batch axes */
    int64_t a_strides[AG_MAX_RANK], b_strides[AG_MAX_RANK];
    int64_t start_strides[AG_MAX_RANK]; /* of the start's matrix along the batch axes */
    int64_t n;                          /* columns of one product */
    int64_t products, row_tiles, column_tiles, tiles, tasks;
    char *scratch; /* scratch_bytes for each thread */
    size_t scratch_bytes;

    int64_t pieces;     /* of k, if the threads share them; otherwise 1 */
    int64_t first, end; /* those being computed */
    int64_t waiting;    /* the most that wait in sums */
    char *sums;         /* of each piece from first + 1 on; first goes to c itself */
    ag_elementwise_loop *accumulate;
} matmul_job;

/* To element i, j and then by offset. */
static void advance(ag_matrix *matrix, int64_t i, int64_t j, int64_t offset, size_t size)
{
    offset += i * matrix->row + j * matrix->column;
    if (matrix->data)
        matrix->data = (const char *)matrix->data + offset * (int64_t)size;
}

/* The sums of a piece, which lie like the elements of c. */
static char *sums_of(const matmul_job *job, int64_t piece)
{
    return job->sums + (piece - job->first - 1) * job->m * job->n * (int64_t)job->size;
}

/* Makes t, a tile of piece 0, one of another piece. */
static void choose_piece(const matmul_job *job, int64_t piece, ag_matmul_tile *t)
{
    int64_t p = piece * t->k;
    advance(&t->a, 0, p, 0, job->size);
    advance(&t->b, p, 0, 0, job->size);
    t->k = ag_min(t->k, job->k - p);
    if (piece == 0)
        return;
    t->start[0].data = t->start[1].data = NULL;
    if (piece == job->first)
        t->start[1] = (ag_matrix){ t->c, t->c_row, t->c_column };
    else
        t->c = sums_of(job, piece);
}

/* Tile by tile: the column tiles of a row tile, the row tiles of a product, the
 * products. start[0] is the same for all products; start[1] is a matrix for each. */
static void run_tile(const matmul_job *job, int64_t index, void *scratch)
{
    ag_matmul_tile t = job->tile;
    if (job->pieces > 1) {
        choose_piece(job, job->first + index / job->tiles, &t);
        index %= job->tiles;
    }
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
    job->way->tile(&t, scratch);
}

/* A task is a range of tiles, as long as the other tasks'. */
static void run_task(void *argument, int64_t task, int worker)
{
    const matmul_job *job = argument;
    int64_t tiles = job->tiles * (job->end - job->first), end = tiles * (task + 1) / job->tasks;
    for (int64_t tile = tiles * task / job->tasks; tile < end; tile++)
        run_tile(job, tile, job->scratch + (size_t)worker * job->scratch_bytes);
}

/* Adds the waiting pieces to some of the elements of c. */
static void add_pieces(void *argument, int64_t task, int worker)
{
    (void)worker;
    const matmul_job *job = argument;
    int64_t at = task * ADD_AT_ONCE, n = ag_min(ADD_AT_ONCE, job->m * job->n - at);
    int64_t bytes = at * (int64_t)job->size, stride = 1;
    for (int64_t piece = job->first + 1; piece < job->end; piece++) {
        const void *sums = sums_of(job, piece) + bytes;
        job->accumulate(n, &sums, &stride, (char *)job->tile.c + bytes, 0);
    }
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
    job->tile.k = job->k = a->dims[columns];
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

/* Whether so many tiles keep the threads busy to the end. */
static bool are_even(int64_t tiles, int threads)
{
    return tiles % threads == 0 || tiles >= 4 * (int64_t)threads;
}

/* Tiles as large as is good for the caches. If there are fewer of them than tasks
 * they are cut, the longer side first: as long as they are large, or until each
 * thread has as many as the others. */
static void cut_into_tiles(matmul_job *job, int64_t tasks, int threads)
{
    const ag_matmul_kernels *kernels = job->kernels;
    int64_t rows = ag_min(job->m, kernels->tile_rows);
    int64_t columns = ag_min(job->n, kernels->tile_columns);
    while (tasks > 1) {
        int64_t tiles = job->products * ag_blocks(job->m, rows) * ag_blocks(job->n, columns);
        tiles *= job->waiting + 1;
        if (tiles >= tasks || (are_even(tiles, threads) && rows * columns <= LARGE_TILE))
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

/* The threads share the pieces of k where a sum is long and the results are few. The first of
 * the pieces that are computed together goes to c, the others wait. */
static void cut_into_pieces(matmul_job *job, int64_t tasks, int threads)
{
    int64_t depth = job->way->depth, bytes = job->m * job->n * (int64_t)job->size;
    bool cut = tasks > 1 && job->products == 1 && job->k > depth &&
               job->k >= 2 * (job->m + job->n) && bytes <= LARGE_RESULT;
    job->pieces = cut ? ag_blocks(job->k, depth) : 1;
    job->tile.k = cut ? depth : job->k;
    int64_t together = (1 + MOST_SUMS / bytes) / threads * threads;
    together = ag_min(job->pieces, together < threads ? threads : together);
    job->waiting = cut ? together - 1 : 0;
}

static void run_all(ag_context *context, matmul_job *job, int64_t most_tasks)
{
    for (job->first = 0; job->first < job->pieces; job->first = job->end) {
        job->end = ag_min(job->first + 1 + job->waiting, job->pieces);
        job->tasks = ag_min(job->tiles * (job->end - job->first), most_tasks);
        ag_parallel(context, job->tasks, run_task, job);
        if (job->pieces > 1)
            ag_parallel(context, ag_blocks(job->m * job->n, ADD_AT_ONCE), add_pieces, job);
    }
}

bool ag_compute_matmul(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                       const ag_matmul_start *start, ag_tensor *y)
{
    if (y->dtype == AG_C128)
        return ag_complex_matmul(a, b, start, y);
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
    bool narrow = job.n <= job.kernels->narrow_columns;
    job.way = narrow ? &job.kernels->narrow : &job.kernels->wide;
    if (!narrow && job.kernels->better_transposed(&job.tile))
        transpose(&job);
    double work = (double)count * (double)job.k;
    int64_t tasks = count_tasks(context->threads, work);
    cut_into_pieces(&job, tasks, context->threads);
    cut_into_tiles(&job, tasks, context->threads);

    size_t bytes = job.way->scratch(&job.tile);
    job.scratch_bytes = (bytes + AG_ALIGNMENT - 1) / AG_ALIGNMENT * AG_ALIGNMENT;
    size_t packed = job.scratch_bytes * (size_t)(tasks > 1 ? context->threads : 1);
    size_t all = packed + (size_t)(job.waiting * count) * job.size;
    job.scratch = all <= SMALL_SCRATCH ? small : ag_memory_new(context, AG_STEP, all);
    if (job.scratch == NULL)
        return false;
    job.sums = job.scratch + packed;
    job.accumulate = context->kernels->elementwise[ag_kernels_type(y->dtype)]->accumulate;
    if (job.tiles == 1 && job.pieces == 1)
        job.way->tile(&job.tile, job.scratch);
    else
        run_all(context, &job, tasks);
    if (job.scratch != small)
        ag_memory_recycle(context, job.scratch, all);
    return true;
}
