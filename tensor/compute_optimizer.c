/* What an optimiser does with whole tensors: updates in place, and the two
 * questions it asks of gradients, their size and whether they are finite. */
#include "compute_complex.h"
#include "internal.h"
#include "kernels/kernels.h"

/* ---- Updates, element by element ---- */

typedef struct update_job {
    const ag_row_kernels *kernels;
    int64_t count;
    size_t size; /* bytes of an element */
    char *p, *u, *m, *v;
    const char *g;
    double lr, momentum;
    const ag_adam_step *step;
} update_job;

static update_job update_begin(const ag_context *context, ag_tensor *p, const ag_tensor *g)
{
    update_job job = { .p = p->data, .g = g->data };
    job.kernels = context->kernels->rows[ag_kernels_type(p->dtype)];
    job.count = ag_tensor_count(p);
    job.size = ag_dtype_size(p->dtype);
    return job;
}

static void update_run(ag_context *context, update_job *job, ag_task *run)
{
    ag_parallel(context, ag_blocks(job->count, AG_TASK_ELEMENTS), run, job);
}

static void sgd_task(void *job_, int64_t task, int worker)
{
    const update_job *job = job_;
    int64_t first = task * AG_TASK_ELEMENTS, n = ag_min(AG_TASK_ELEMENTS, job->count - first);
    size_t at = (size_t)first * job->size;
    (void)worker;
    job->kernels->sgd(n, job->p + at, job->g + at, job->u ? job->u + at : NULL, job->lr,
                      job->momentum);
}

bool ag_compute_sgd(ag_context *context, ag_tensor *p, const ag_tensor *g, ag_tensor *u, double lr,
                    double momentum)
{
    update_job job = update_begin(context, p, g);
    job.u = u ? u->data : NULL;
    job.lr = lr;
    job.momentum = momentum;
    update_run(context, &job, sgd_task);
    return true;
}

static void adam_task(void *job_, int64_t task, int worker)
{
    const update_job *job = job_;
    int64_t first = task * AG_TASK_ELEMENTS, n = ag_min(AG_TASK_ELEMENTS, job->count - first);
    size_t at = (size_t)first * job->size;
    (void)worker;
    job->kernels->adam(n, job->p + at, job->g + at, job->m + at, job->v + at, job->step);
}

bool ag_compute_adam(ag_context *context, ag_tensor *p, const ag_tensor *g, ag_tensor *m,
                     ag_tensor *v, const ag_adam_step *step)
{
    update_job job = update_begin(context, p, g);
    job.m = m->data;
    job.v = v->data;
    job.step = step;
    update_run(context, &job, adam_task);
    return true;
}

/* ---- Over all elements ---- */

/* A running sum for each of LANES places, so that the compilers make vectors. */
#define LANES 16

#define SUM_SQUARES(name, T)                            \
    static double name(int64_t n, const T *x)           \
    {                                                   \
        double lane[LANES] = { 0 }, sum = 0;            \
        int64_t i = 0;                                  \
        for (; i + LANES <= n; i += LANES)              \
            for (int l = 0; l < LANES; l++)             \
                lane[l] += (double)x[i + l] * x[i + l]; \
        for (int l = 0; i + l < n; l++)                 \
            lane[l] += (double)x[i + l] * x[i + l];     \
        for (int l = 0; l < LANES; l++)                 \
            sum += lane[l];                             \
        return sum;                                     \
    }

SUM_SQUARES(sum_squares_f32, float)
SUM_SQUARES(sum_squares_f64, double)

/* The sums of pieces of AG_READ_ELEMENTS follow each other. */
double ag_compute_sum_of_squares(const ag_tensor *x)
{
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    ag_reader reader = ag_reader_over(x);
    int64_t count = ag_tensor_count(x);
    double sum = 0;
    for (int64_t i = 0; i < count; i += AG_READ_ELEMENTS) {
        int64_t n = ag_min(AG_READ_ELEMENTS, count - i);
        const void *piece = ag_reader_get(&reader, i, n, buffer);
        sum += x->dtype == AG_F32 ? sum_squares_f32(n, piece) : sum_squares_f64(n, piece);
    }
    return sum;
}

/* v - v is 0 for a finite v, else NaN. */
#define ALL_FINITE(name, T)                 \
    static bool name(int64_t n, const T *x) \
    {                                       \
        int wrong = 0;                      \
        for (int64_t i = 0; i < n; i++)     \
            wrong |= !(x[i] - x[i] == 0);   \
        return !wrong;                      \
    }

ALL_FINITE(all_finite_f32, float)
ALL_FINITE(all_finite_f64, double)

bool ag_tensor_all_finite(const ag_tensor *x)
{
    _Alignas(AG_ALIGNMENT) char buffer[AG_READ_BYTES];
    if (x->dtype == AG_I64)
        return true;
    if (x->dtype == AG_C128)
        return ag_complex_all_finite(x);
    ag_reader reader = ag_reader_over(x);
    int64_t count = ag_tensor_count(x);
    for (int64_t i = 0; i < count; i += AG_READ_ELEMENTS) {
        int64_t n = ag_min(AG_READ_ELEMENTS, count - i);
        const void *piece = ag_reader_get(&reader, i, n, buffer);
        if (!(x->dtype == AG_F32 ? all_finite_f32(n, piece) : all_finite_f64(n, piece)))
            return false;
    }
    return true;
}
