/* Attention of whole tensors: cut into heads, and long heads into blocks of queries (forward)
 * or stretches of keys (backward), which are independent of each other. The arithmetic is in
 * kernels/attention.inc.
 *
 * The gradient of a query is a sum over all keys. Where a head's keys are cut, each stretch
 * has its own such sums, and they are added up at the end. Where things are cut depends on
 * the sizes alone, and so do the bits. */
#include <string.h>

#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

/* Below this many multiplications, waking threads costs more than it gains. */
#define PARALLEL_FROM (1 << 18)

/* Backward makes at least so many tasks, if that leaves each so many keys. */
enum { LEAST_TASKS = 4, LEAST_KEYS = 256 };

/* Small tasks are taken several at a time, of about so many multiplications together. */
#define TAKEN_AT_ONCE (1 << 15)

typedef struct attention_job {
    const ag_attention_kernels *kernels;
    const ag_attention_call *call;
    size_t size; /* bytes of an element */
    int64_t sequences;
    ag_attention_head head;          /* all but the data of q, k and v */
    int64_t parts, part;             /* of a head, and how many queries or keys a part has */
    const ag_tensor *y, *statistics; /* forward writes to them, backward reads them */
    const ag_tensor *dy;
    const ag_attention_gradients *gradients;
    ag_tensor partial; /* [parts, as dq]; no data where a head has one part */
    ag_task *run;      /* a task */
    int64_t tasks, at_once;
    char *scratch; /* scratch_bytes for each thread */
    size_t scratch_bytes;
} attention_job;

/* The data of x at an offset; NULL without data. */
static void *at(const attention_job *job, const ag_tensor *x, int64_t offset)
{
    return x && x->data ? (char *)x->data + offset * (int64_t)job->size : NULL;
}

static int64_t rows_of(const ag_tensor *x)
{
    return x->dims[x->rank - 2];
}

static attention_job job_over(const ag_context *context, const ag_attention_call *call)
{
    const ag_tensor *q = call->q, *v = call->v;
    attention_job job = { .kernels = context->kernels->attention[ag_kernels_type(q->dtype)],
                          .call = call };
    job.size = ag_dtype_size(q->dtype);
    job.sequences = ag_shape_count(ag_shape_make(q->rank - 2, q->dims));
    ag_attention_head *head = &job.head;
    head->s = rows_of(q);
    head->t = rows_of(call->k);
    head->d = q->dims[q->rank - 1] / call->heads;
    head->d_v = v->dims[v->rank - 1] / call->heads;
    head->shift = call->causal ? head->t - head->s : AG_SEES_ALL;
    head->scale = call->scale;
    return job;
}

static void run_some(void *job_, int64_t group, int worker)
{
    const attention_job *job = job_;
    int64_t task = group * job->at_once, end = ag_min(job->tasks, task + job->at_once);
    for (; task < end; task++)
        job->run(job_, task, worker);
}

/* Scratch is a few matrices of blocks of queries and of some or all keys. Where these are far
 * too large for any memory, even their sizes would not fit into an integer. */
static bool scratch_has_a_size(ag_context *context, const ag_attention_head *head)
{
    double rows = (double)head->t + 1024, columns = (double)head->d + (double)head->d_v + 1024;
    if (rows * columns < 0x1p50)
        return true;
    return ag_fail(context, AG_ERR_MEMORY,
                   "attend: too much memory for %lld keys of %lld numbers and values of %lld",
                   (long long)head->t, (long long)head->d, (long long)head->d_v);
}

/* Runs all tasks; scratch bytes are what a thread needs. */
static bool run_tasks(ag_context *context, attention_job *job, ag_task *run, size_t bytes)
{
    const ag_attention_head *head = &job->head;
    const int64_t heads = job->sequences * job->call->heads;
    const double work = (double)head->s * (double)head->t * (double)head->d; /* of a head */
    job->run = run;
    job->tasks = heads * job->parts;
    job->at_once = work >= TAKEN_AT_ONCE ? 1 : (int64_t)(TAKEN_AT_ONCE / (work + 1));
    const int64_t groups = ag_blocks(job->tasks, job->at_once);
    int threads = groups > 1 && work * (double)heads >= PARALLEL_FROM ? context->threads : 1;
    job->scratch_bytes = (bytes + AG_ALIGNMENT - 1) / AG_ALIGNMENT * AG_ALIGNMENT;
    size_t all = job->scratch_bytes * (size_t)threads;
    job->scratch = ag_memory_new(context, AG_STEP, all);
    if (!job->scratch)
        return false;
    if (threads > 1)
        ag_parallel(context, groups, run_some, job);
    else
        for (int64_t group = 0; group < groups; group++)
            run_some(job, group, 0);
    ag_memory_recycle(context, job->scratch, all);
    return true;
}

/* What a task is about: a head and a part of it. Threads start with the last tasks, and those
 * should be the longest. */
typedef struct task_place {
    int64_t sequence, head, part;
} task_place;

static task_place place_of(const attention_job *job, int64_t task)
{
    return (task_place){ .sequence = task / job->parts / job->call->heads,
                         .head = task / job->parts % job->call->heads,
                         .part = task % job->parts };
}

/* The matrix of one head of x [.., rows, heads columns], from a row on. */
static ag_matrix matrix_of(const attention_job *job, const ag_tensor *x, task_place place,
                           int64_t row)
{
    const int rows = x->rank - 2, columns = x->rank - 1;
    int64_t width = x->dims[columns] / job->call->heads, rest = place.sequence;
    int64_t offset = row * x->strides[rows] + place.head * width * x->strides[columns];
    for (int axis = rows - 1; axis >= 0; axis--) {
        offset += rest % x->dims[axis] * x->strides[axis];
        rest /= x->dims[axis];
    }
    return (ag_matrix){ at(job, x, offset), x->strides[rows], x->strides[columns] };
}

/* Where that head begins in contiguous x: rows are x's last axis apart. */
static void *rows_at(const attention_job *job, const ag_tensor *x, task_place place, int64_t row)
{
    if (!x || !x->data)
        return NULL;
    int64_t width = x->dims[x->rank - 1];
    int64_t first = place.sequence * rows_of(x) + row;
    return at(job, x, first * width + place.head * (width / job->call->heads));
}

/* The statistic of that number, of each query of that head, from a row on. */
static void *statistic_at(const attention_job *job, task_place place, int number, int64_t row)
{
    int64_t head = place.sequence * job->call->heads + place.head;
    int64_t first = (head * AG_ATTENTION_STATISTICS + number) * rows_of(job->call->q);
    return at(job, job->statistics, first + row);
}

/* The queries and keys from some on, and how many of the keys are no padding. */
static ag_attention_head head_at(const attention_job *job, task_place place, int64_t query,
                                 int64_t key)
{
    const ag_attention_call *call = job->call;
    ag_attention_head head = job->head;
    int64_t t = call->lengths ? call->lengths[place.sequence] : head.t;
    head.q = matrix_of(job, call->q, place, query);
    head.k = matrix_of(job, call->k, place, key);
    head.v = matrix_of(job, call->v, place, key);
    head.s -= query;
    head.t = t > key ? t - key : 0;
    head.shift += query - key;
    return head;
}

/* ---- Forward ---- */

static void forward_task(void *job_, int64_t task, int worker)
{
    const attention_job *job = job_;
    task_place place = place_of(job, task);
    int64_t first = place.part * job->part;
    ag_attention_forward_job part = { .head = head_at(job, place, first, 0) };
    part.head.s = ag_min(job->part, part.head.s);
    part.y = rows_at(job, job->y, place, first);
    part.y_row = job->y->dims[job->y->rank - 1];
    part.largest = statistic_at(job, place, 0, first);
    part.factors = statistic_at(job, place, 1, first);
    job->kernels->forward(&part, job->scratch + (size_t)worker * job->scratch_bytes);
}

bool ag_compute_attention(ag_context *context, const ag_attention_call *call, ag_tensor *y,
                          ag_tensor *statistics)
{
    if (y->dtype == AG_C128)
        return ag_complex_attention(context, call, y);
    attention_job job = job_over(context, call);
    if (!scratch_has_a_size(context, &job.head))
        return false;
    job.y = y;
    job.statistics = statistics;
    job.part = job.kernels->query_block;
    job.parts = ag_blocks(job.head.s, job.part);
    return run_tasks(context, &job, forward_task, job.kernels->forward_scratch(&job.head));
}

/* ---- Backward ---- */

/* Zeros for the gradients of keys that are padding. */
static void clear_rows(const attention_job *job, const ag_tensor *x, task_place place, int64_t row,
                       int64_t end)
{
    if (!x)
        return;
    int64_t width = x->dims[x->rank - 1];
    for (; row < end; row++)
        memset(rows_at(job, x, place, row), 0, (size_t)(width / job->call->heads) * job->size);
}

static void backward_task(void *job_, int64_t task, int worker)
{
    const attention_job *job = job_;
    const ag_attention_gradients *gradients = job->gradients;
    task_place place = place_of(job, task);
    place.part = job->parts - 1 - place.part; /* the first keys are seen by most queries */
    int64_t first = place.part * job->part, end = ag_min(first + job->part, job->head.t);
    ag_attention_backward_job part = { .head = head_at(job, place, 0, first) };
    part.head.t = ag_min(part.head.t, end - first);
    part.y = rows_at(job, job->y, place, 0);
    part.dy = rows_at(job, job->dy, place, 0);
    part.y_row = job->y->dims[job->y->rank - 1];
    part.largest = statistic_at(job, place, 0, 0);
    part.factors = statistic_at(job, place, 1, 0);
    part.dq = rows_at(job, gradients->q, place, 0);
    if (job->partial.data) {
        int64_t numbers = ag_tensor_count(gradients->q);
        part.dq = (char *)part.dq - (char *)gradients->q->data + (char *)job->partial.data +
                  place.part * numbers * (int64_t)job->size;
    }
    part.dk = rows_at(job, gradients->k, place, first);
    part.dv = rows_at(job, gradients->v, place, first);
    part.dk_row = job->head.d * job->call->heads;
    part.dv_row = job->head.d_v * job->call->heads;
    clear_rows(job, gradients->k, place, first + part.head.t, end);
    clear_rows(job, gradients->v, place, first + part.head.t, end);
    job->kernels->backward(&part, job->scratch + (size_t)worker * job->scratch_bytes);
}

/* Few heads of many keys are cut. */
static void cut_keys(attention_job *job)
{
    int64_t heads = job->sequences * job->call->heads, t = job->head.t;
    int64_t block = job->kernels->key_block;
    int64_t parts = heads > 0 ? ag_min(ag_blocks(LEAST_TASKS, heads), t / LEAST_KEYS) : 1;
    job->part = parts > 1 ? ag_blocks(ag_blocks(t, parts), block) * block : t;
    job->parts = parts > 1 ? ag_blocks(t, job->part) : 1;
}

bool ag_compute_attention_backward(ag_context *context, const ag_attention_call *call,
                                   const ag_tensor *y, const ag_tensor *statistics,
                                   const ag_tensor *dy, const ag_attention_gradients *gradients)
{
    attention_job job = job_over(context, call);
    if (!scratch_has_a_size(context, &job.head))
        return false;
    job.y = y;
    job.statistics = statistics;
    job.dy = dy;
    job.gradients = gradients;
    cut_keys(&job);
    ag_tensor *dq = gradients->q;
    int64_t numbers = dq ? ag_tensor_count(dq) : 0;
    bool partial = dq && job.parts > 1;
    if (partial && !ag_tensor_allocate(context, AG_STEP, dq->dtype, AG_SHAPE(job.parts, numbers),
                                       &job.partial))
        return false;
    ag_attention_head part = job.head;
    part.t = job.part;
    if (!run_tasks(context, &job, backward_task, job.kernels->backward_scratch(&part)))
        return false;
    if (!partial)
        return true;
    ag_tensor sums = ag_tensor_over(dq->data, dq->dtype, AG_SHAPE(numbers));
    bool done = ag_compute_reduce(context, AG_REDUCE_SUM, &job.partial, 1u << 0, &sums);
    ag_memory_recycle(context, job.partial.data, ag_tensor_bytes(&job.partial));
    return done;
}
