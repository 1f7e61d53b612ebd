/* Elementwise operations on whole tensors: operands are broadcast to y, axes
 * that lie in memory like one are joined, and what remains is walked row by
 * row. The loop over a row is a kernel (kernels/elementwise.inc) or, for
 * choices and whole numbers, one of the loops below. */
#include "internal.h"
#include "kernels/kernels.h"

#include <math.h>

enum {
    MAX_OPERANDS = 3,
    BLOCK = 16384,             /* elements of one task */
    PARALLEL_FROM = 4 * BLOCK, /* below this, waking threads costs more than it gains */
};

typedef struct walk {
    ag_elementwise_loop *loop;
    double parameter;
    int64_t count;
    int rank; /* after joining; 0 for a single element */
    int64_t dims[AG_MAX_RANK];
    int operands;
    const char *data[MAX_OPERANDS];
    int64_t sizes[MAX_OPERANDS]; /* bytes of an element */
    int64_t strides[MAX_OPERANDS][AG_MAX_RANK];
    char *y;
    int64_t y_size;
} walk;

/* The stride of x along an axis of the result that x is broadcast to. */
static int64_t broadcast_stride(const ag_tensor *x, int rank, int axis)
{
    int own = axis - (rank - x->rank);
    return own < 0 || x->dims[own] == 1 ? 0 : x->strides[own];
}

/* Whether a step along axis i is, for every operand, as far as all of an axis
 * with these strides and this size. */
static bool joins(const walk *w, int i, const int64_t *strides, int64_t dim)
{
    for (int k = 0; k < w->operands; k++)
        if (w->strides[k][i] != strides[k] * dim)
            return false;
    return true;
}

/* Appends an axis to the walk, joined with the one before where that is possible. */
static void add_axis(walk *w, int64_t dim, const int64_t *strides)
{
    if (dim == 1)
        return;
    bool joined = w->rank > 0 && joins(w, w->rank - 1, strides, dim);
    if (joined)
        w->dims[w->rank - 1] *= dim;
    else
        w->dims[w->rank++] = dim;
    for (int k = 0; k < w->operands; k++)
        w->strides[k][w->rank - 1] = strides[k];
}

/* Tasks are blocks of y, which may begin and end within a row. */
static void run_block(void *job, int64_t task, int worker)
{
    (void)worker;
    const walk *w = job;
    int64_t at = task * BLOCK;
    int64_t end = w->count - at < BLOCK ? w->count : at + BLOCK;
    int64_t index[AG_MAX_RANK], offsets[MAX_OPERANDS] = { 0 }, inner[MAX_OPERANDS] = { 0 };
    int last = w->rank - 1;
    int64_t rest = at, length = last < 0 ? 1 : w->dims[last];
    for (int axis = last; axis >= 0; axis--) {
        index[axis] = rest % w->dims[axis];
        rest /= w->dims[axis];
        for (int k = 0; k < w->operands; k++)
            offsets[k] += index[axis] * w->strides[k][axis];
    }
    for (int k = 0; k < w->operands && last >= 0; k++)
        inner[k] = w->strides[k][last];

    while (at < end) {
        int64_t left = last < 0 ? 1 : length - index[last];
        int64_t n = left < end - at ? left : end - at;
        const void *operands[MAX_OPERANDS];
        for (int k = 0; k < w->operands; k++)
            operands[k] = w->data[k] + offsets[k] * w->sizes[k];
        w->loop(n, operands, inner, w->y + at * w->y_size, w->parameter);
        at += n;
        int64_t steps = n; /* to the next row: along the last axis, then carry */
        for (int axis = last; axis >= 0; axis--) {
            index[axis] += steps;
            for (int k = 0; k < w->operands; k++)
                offsets[k] += steps * w->strides[k][axis];
            if (index[axis] < w->dims[axis])
                break;
            index[axis] = 0;
            for (int k = 0; k < w->operands; k++)
                offsets[k] -= w->dims[axis] * w->strides[k][axis];
            steps = 1;
        }
    }
}

/* The stride by which x is walked in the order of y, which is contiguous: 1 if it
 * lies in memory as y does, 0 if it is a single number, -1 if neither is so. */
static int64_t flat_stride(const ag_tensor *x, const ag_tensor *y)
{
    bool same = x->rank == y->rank;
    for (int axis = 0; same && axis < x->rank; axis++)
        same = x->dims[axis] == y->dims[axis] && x->strides[axis] == y->strides[axis];
    return same ? 1 : ag_tensor_elements(x) == 1 ? 0 : -1;
}

/* The common case, without a walk: one loop over everything, if there is not much
 * and every operand is walked by one stride. False if that is not so. */
static bool run_flat(ag_elementwise_loop *loop, double parameter, int operands,
                     const ag_tensor *const *tensors, ag_tensor *y)
{
    const void *data[MAX_OPERANDS];
    int64_t strides[MAX_OPERANDS], count = ag_tensor_elements(y);
    if (count >= PARALLEL_FROM)
        return false;
    for (int k = 0; k < operands; k++) {
        data[k] = tensors[k]->data;
        strides[k] = flat_stride(tensors[k], y);
        if (strides[k] < 0)
            return false;
    }
    loop(count, data, strides, y->data, parameter);
    return true;
}

/* Operands of any strides, or many numbers. */
AG_SELDOM static void run_walk(ag_context *context, ag_elementwise_loop *loop, double parameter,
                               int operands, const ag_tensor *const *tensors, ag_tensor *y)
{
    walk w = { .loop = loop,
               .parameter = parameter,
               .count = ag_tensor_count(y),
               .operands = operands,
               .y = y->data,
               .y_size = (int64_t)ag_dtype_size(y->dtype) };
    for (int k = 0; k < operands; k++) {
        w.data[k] = tensors[k]->data;
        w.sizes[k] = (int64_t)ag_dtype_size(tensors[k]->dtype);
    }
    for (int axis = 0; axis < y->rank; axis++) {
        int64_t strides[MAX_OPERANDS] = { 0 };
        for (int k = 0; k < operands; k++)
            strides[k] = broadcast_stride(tensors[k], y->rank, axis);
        add_axis(&w, y->dims[axis], strides);
    }
    int64_t tasks = (w.count + BLOCK - 1) / BLOCK;
    if (w.count >= PARALLEL_FROM)
        ag_parallel(context, tasks, run_block, &w);
    else
        for (int64_t task = 0; task < tasks; task++)
            run_block(&w, task, 0);
}

/* y = loop of the operands, which broadcast to y. */
static bool run(ag_context *context, ag_elementwise_loop *loop, double parameter, int operands,
                const ag_tensor *const *tensors, ag_tensor *y)
{
    if (!run_flat(loop, parameter, operands, tensors, y))
        run_walk(context, loop, parameter, operands, tensors, y);
    return true;
}

/* ---- Choices and comparisons of whole numbers ---- */

#define LOOP(name)                                                                            \
    static void name(int64_t n, const void *const *operands, const int64_t *strides, void *y, \
                     double parameter)

/* y = condition ? a : b for one pair of types; part: what decides. NaN is not 0. */
#define WHERE(name, C, part, T)                                                              \
    LOOP(name)                                                                               \
    {                                                                                        \
        (void)parameter;                                                                     \
        const C *condition = operands[0];                                                    \
        const T *a = operands[1], *b = operands[2];                                          \
        for (int64_t i = 0; i < n; i++)                                                      \
            ((T *)y)[i] =                                                                    \
                condition[i * strides[0]] part != 0 ? a[i * strides[1]] : b[i * strides[2]]; \
    }

#define COMPARE(name, operator)                                               \
    LOOP(name)                                                                \
    {                                                                         \
        (void)parameter;                                                      \
        const int64_t *a = operands[0], *b = operands[1];                     \
        for (int64_t i = 0; i < n; i++)                                       \
            ((int64_t *)y)[i] = a[i * strides[0]] operator b[i * strides[1]]; \
    }

WHERE(where_f32_f32, float, , float)
WHERE(where_f32_f64, float, , double)
WHERE(where_f32_i64, float, , int64_t)
WHERE(where_f32_c128, float, , ag_complex)
WHERE(where_f64_f32, double, , float)
WHERE(where_f64_f64, double, , double)
WHERE(where_f64_i64, double, , int64_t)
WHERE(where_f64_c128, double, , ag_complex)
WHERE(where_i64_f32, int64_t, , float)
WHERE(where_i64_f64, int64_t, , double)
WHERE(where_i64_i64, int64_t, , int64_t)
WHERE(where_i64_c128, int64_t, , ag_complex)
WHERE(where_c128_f32, ag_complex, .re, float)
WHERE(where_c128_f64, ag_complex, .re, double)
WHERE(where_c128_i64, ag_complex, .re, int64_t)
WHERE(where_c128_c128, ag_complex, .re, ag_complex)
COMPARE(equal_i64, ==)
COMPARE(greater_i64, >)

static ag_elementwise_loop *where_loop(ag_dtype condition, ag_dtype values)
{
    static ag_elementwise_loop *const loops[4][4] = {
        { where_f32_f32, where_f32_f64, where_f32_i64, where_f32_c128 },
        { where_f64_f32, where_f64_f64, where_f64_i64, where_f64_c128 },
        { where_i64_f32, where_i64_f64, where_i64_i64, where_i64_c128 },
        { where_c128_f32, where_c128_f64, where_c128_i64, where_c128_c128 },
    };
    return loops[condition - AG_F32][values - AG_F32];
}

/* ---- The computations ---- */

static const ag_elementwise_kernels *kernels_for(ag_context *context, ag_dtype dtype)
{
    return context->kernels->elementwise[ag_kernels_type(dtype)];
}

bool ag_unary_has_complex_form(ag_unary kind)
{
    return ag_elementwise_kernels_c128.unary[kind] != NULL;
}

bool ag_compute_unary(ag_context *context, ag_unary kind, double parameter, const ag_tensor *x,
                      ag_tensor *y)
{
    return run(context, kernels_for(context, y->dtype)->unary[kind], parameter, 1, &x, y);
}

bool ag_compute_binary(ag_context *context, ag_binary kind, const ag_tensor *a, const ag_tensor *b,
                       ag_tensor *y)
{
    ag_elementwise_loop *loop = kernels_for(context, y->dtype)->binary[kind];
    if (y->dtype == AG_I64)
        loop = kind == AG_BINARY_EQUAL ? equal_i64 : greater_i64;
    return run(context, loop, 0, 2, (const ag_tensor *[]){ a, b }, y);
}

bool ag_compute_where(ag_context *context, const ag_tensor *condition, const ag_tensor *a,
                      const ag_tensor *b, ag_tensor *y)
{
    return run(context, where_loop(condition->dtype, y->dtype), 0, 3,
               (const ag_tensor *[]){ condition, a, b }, y);
}

/* The value without its fraction, within the range of int64_t; 0 for NaN. */
static int64_t to_integer(double value)
{
    if (isnan(value))
        return 0;
    if (value >= 0x1p63)
        return INT64_MAX;
    return value <= -0x1p63 ? INT64_MIN : (int64_t)value;
}

bool ag_compute_masked_fill(ag_context *context, const ag_tensor *x, const ag_tensor *mask,
                            double value, ag_tensor *y)
{
    float f32 = (float)value;
    double f64 = value;
    ag_complex c128 = { value, 0.0 };
    int64_t i64 = to_integer(value);
    void *data = y->dtype == AG_F32    ? (void *)&f32
                 : y->dtype == AG_F64  ? (void *)&f64
                 : y->dtype == AG_C128 ? (void *)&c128
                                       : &i64;
    ag_tensor fill = ag_tensor_over(data, y->dtype, AG_SCALAR);
    return ag_compute_where(context, mask, &fill, x, y);
}

bool ag_compute_accumulate(ag_context *context, const ag_tensor *x, ag_tensor *y)
{
    return run(context, kernels_for(context, y->dtype)->accumulate, 0, 1, &x, y);
}

/* ---- gelu and its slope ---- */

typedef struct gelu_job {
    const ag_elementwise_kernels *kernels;
    char *y, *slope;
    int64_t count, size; /* elements, and bytes of one */
} gelu_job;

static void run_gelu_block(void *job, int64_t task, int worker)
{
    (void)worker;
    const gelu_job *j = job;
    int64_t at = task * BLOCK, n = j->count - at < BLOCK ? j->count - at : BLOCK;
    j->kernels->gelu_with_slope(n, j->y + at * j->size, j->slope + at * j->size);
}

bool ag_compute_gelu_with_slope(ag_context *context, ag_tensor *y, ag_tensor *slope)
{
    gelu_job job = { .kernels = kernels_for(context, y->dtype),
                     .y = y->data,
                     .slope = slope->data,
                     .count = ag_tensor_count(y),
                     .size = (int64_t)ag_dtype_size(y->dtype) };
    int64_t tasks = (job.count + BLOCK - 1) / BLOCK;
    if (job.count >= PARALLEL_FROM)
        ag_parallel(context, tasks, run_gelu_block, &job);
    else
        for (int64_t task = 0; task < tasks; task++)
            run_gelu_block(&job, task, 0);
    return true;
}
