/* What the tensor floor offers to the floors above it, but not to users. */
#ifndef AG_TENSOR_INTERNAL_H
#define AG_TENSOR_INTERNAL_H

#include "tensor.h"

/* What seldom runs stays a function of its own, so that the usual way past it is short. */
#if defined(__GNUC__)
#define AG_SELDOM __attribute__((noinline))
#else
#define AG_SELDOM
#endif

/* ---- The context (context.c) ------------------------------------------- */

/* A stack of chunks. Memory is taken from the front and never given back one
 * by one; see memory.c. */
typedef struct ag_arena {
    struct ag_chunk *first, *current;
    char *next;  /* memory of current that is not yet taken */
    size_t left; /* bytes there */
    size_t in_use;
} ag_arena;

/* Buffers of the step arena that can be used again, by size class. */
#define AG_SIZE_CLASSES 256
typedef struct ag_free_buffer {
    struct ag_free_buffer *next;
} ag_free_buffer;

struct ag_context {
    ag_dtype dtype;
    uint64_t seed;
    int threads;
    ag_allocator allocator;
    ag_error_callback on_error;
    void *on_error_user;

    ag_arena keep, step;
    ag_free_buffer *free_buffers[AG_SIZE_CLASSES];
    bool any_free; /* whether one of these may be other than NULL */
    size_t step_peak, reserved;
    uint64_t allocations;

    ag_error error;
    char message[512];
    bool in_callback; /* on_error is running */

    const struct ag_kernels *kernels; /* of the instruction set in use */
    struct ag_pool *pool;             /* threads.c; NULL for one thread */
    struct ag_tape *tape;             /* belongs to the floor above, lives in keep */
};

/* Adds to the message of the error that was just recorded. */
void ag_error_append(ag_context *context, const char *format, ...) AG_PRINTF(2, 3);

/* ---- Memory (memory.c) ------------------------------------------------- */

#define AG_ALIGNMENT 64

/* bytes of uninitialised memory, aligned to AG_ALIGNMENT; never NULL for 0
 * bytes. NULL with AG_ERR_MEMORY recorded. */
void *ag_memory_new(ag_context *context, ag_lifetime lifetime, size_t bytes);

/* Gives a buffer of the step arena back before the step ends: a later
 * ag_memory_new(AG_STEP) of a similar size may get it. */
void ag_memory_recycle(ag_context *context, void *memory, size_t bytes);

/* Frees the whole step arena, for the next step to use. */
void ag_memory_reset_step(ag_context *context);

/* Frees what the step arena gave out since the mark. */
typedef struct ag_memory_mark {
    struct ag_chunk *chunk;
    size_t left, in_use;
} ag_memory_mark;
ag_memory_mark ag_memory_mark_step(const ag_context *context);
void ag_memory_rewind_step(ag_context *context, ag_memory_mark mark);

/* All chunks back to the allocator. */
void ag_memory_free_all(ag_context *context);

/* ---- Tensors (tensor.c) ------------------------------------------------ */

/* What variables and gradients are made of, and those that a program can ask for. */
static inline bool ag_dtype_is_real(ag_dtype dtype)
{
    return dtype == AG_F32 || dtype == AG_F64;
}

static inline bool ag_dtype_is_float(ag_dtype dtype)
{
    return ag_dtype_is_real(dtype) || dtype == AG_C128;
}

/* Bytes of an element of a tensor that there is. */
static inline size_t ag_item_size(ag_dtype dtype)
{
    return dtype == AG_F32 ? 4 : dtype == AG_C128 ? 16 : 8;
}

/* An element of c128, laid out like C's double complex. */
typedef struct ag_complex {
    double re, im;
} ag_complex;

/* The imaginary part of the k-th element; 0 for a real tensor, NaN out of range. */
double ag_tensor_imaginary_at(const ag_tensor *tensor, int64_t k);

/* Sets both parts; a real tensor takes the real one. False out of range. */
bool ag_tensor_put_complex(ag_tensor *tensor, int64_t k, ag_complex value);

/* The number of bytes of a dense tensor; false (AG_ERR_SHAPE for a wrong
 * rank or size, AG_ERR_MEMORY where it overflows) with the error recorded. */
bool ag_shape_bytes(ag_context *context, ag_dtype dtype, ag_shape shape, size_t *bytes);

/* The sizes that a and b broadcast to, as in ag_shape_broadcast; -1 instead of the rank if they
 * do not fit. Sizes that are handed on are not copied: reading a struct as a whole soon after
 * its members were written one by one stalls the processor. */
int ag_broadcast_dims(int a_rank, const int64_t *a, int b_rank, const int64_t *b, int64_t *dims);

/* Makes *tensor contiguous with uninitialised memory. */
bool ag_tensor_allocate(ag_context *context, ag_lifetime lifetime, ag_dtype dtype, ag_shape shape,
                        ag_tensor *tensor);
bool ag_tensor_allocate_dims(ag_context *context, ag_lifetime lifetime, ag_dtype dtype, int rank,
                             const int64_t *dims, ag_tensor *tensor);

/* The number of elements, and their bytes, were they contiguous. */
static inline int64_t ag_tensor_elements(const ag_tensor *x)
{
    int64_t count = 1;
    for (int i = 0; i < x->rank; i++)
        count *= x->dims[i];
    return count;
}

static inline size_t ag_tensor_bytes(const ag_tensor *x)
{
    return (size_t)ag_tensor_elements(x) * ag_item_size(x->dtype);
}

/* Whether a struct can be a tensor at all: rank, sizes, dtype and data. Anyone
 * may have made it. */
bool ag_tensor_is_valid(const ag_tensor *x);

/* The bytes from the first to behind the last element; needs an element. */
void ag_tensor_extent(const ag_tensor *x, uintptr_t *first, uintptr_t *end);

/* A contiguous tensor over given memory. */
ag_tensor ag_tensor_over(void *data, ag_dtype dtype, ag_shape shape);

/* The same in place, with the dtype and sizes of like. */
void ag_tensor_put_over(ag_tensor *tensor, void *data, const ag_tensor *like);

/* Makes *tensor contiguous, with uninitialised memory and the dtype and sizes of like. */
bool ag_tensor_allocate_like(ag_context *context, ag_lifetime lifetime, const ag_tensor *like,
                             ag_tensor *tensor);

static inline bool ag_tensor_same_shape(const ag_tensor *a, const ag_tensor *b)
{
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++)
        same = a->dims[i] == b->dims[i];
    return same;
}

/* Rounds towards zero; NaN gives 0, numbers out of range the nearest integer. */
int64_t ag_to_int64(double value);

/* *dense = x if x is contiguous, otherwise a copy in the step arena. */
bool ag_tensor_dense(ag_context *context, const ag_tensor *x, ag_tensor *dense);

/* Axis counted from the end if negative; -1 with AG_ERR_INDEX recorded as
 * "operation: ..". */
int ag_axis(ag_context *context, const char *operation, int axis, int rank);

/* ---- Threads (threads.c) ----------------------------------------------- */

/* Runs run(job, task, worker) for every task in 0 .. tasks - 1, on the
 * context's threads; worker is 0 .. threads - 1. Which worker runs a task is
 * left to chance, so a task must write only what is its own: then the result
 * does not depend on the number of threads. Returns when all are done. */
typedef void ag_task(void *job, int64_t task, int worker);
void ag_parallel(ag_context *context, int64_t tasks, ag_task *run, void *job);

/* Starts context->threads - 1 threads; false with AG_ERR_THREAD recorded. */
bool ag_pool_start(ag_context *context);
void ag_pool_stop(ag_context *context);

/* ---- Kernels: chosen once per context (kernels/dispatch.c) ------------- */

/* The best table for this processor, or the one AG_ISA names in the
 * environment; NULL with AG_ERR_ARGUMENT recorded where that is not possible. */
const struct ag_kernels *ag_kernels_choose(ag_context *context);

/* ---- Computations (compute_*.c) ---------------------------------------- */

/* The numbers behind the operations. Results y are contiguous and allocated
 * by the caller, with the right dtype and shape; operands may have any
 * strides. Shapes and dtypes have been checked. Computations are on f32 and
 * f64 unless noted. On c128 there is what forward calls need: no fused backward rules, no
 * optimisers, nothing saved for either. False only with an error recorded (memory, an
 * index). */

/* clang-format off */
typedef enum ag_unary {
    AG_UNARY_NEG, AG_UNARY_SQUARE, AG_UNARY_SQRT, AG_UNARY_RSQRT, AG_UNARY_RECIPROCAL,
    AG_UNARY_EXP, AG_UNARY_LOG, AG_UNARY_SIN, AG_UNARY_COS, AG_UNARY_TANH, AG_UNARY_ERF, AG_UNARY_ERFC,
    AG_UNARY_SIGMOID, AG_UNARY_SOFTPLUS, AG_UNARY_RELU, AG_UNARY_GELU, AG_UNARY_GELU_TANH,
    AG_UNARY_SILU, AG_UNARY_ABS, AG_UNARY_SIGN,
    AG_UNARY_SCALE, /* parameter x */
    AG_UNARY_SHIFT, /* x + parameter */
    AG_UNARY_POW,   /* x ^ parameter */
    AG_UNARY_COUNT
} ag_unary;
/* clang-format on */

/* Some functions cannot be computed of complex numbers. */
bool ag_unary_has_complex_form(ag_unary kind);

bool ag_compute_unary(ag_context *context, ag_unary kind, double parameter, const ag_tensor *x,
                      ag_tensor *y);

typedef enum ag_binary {
    AG_BINARY_ADD,
    AG_BINARY_SUB,
    AG_BINARY_MUL,
    AG_BINARY_DIV,
    AG_BINARY_MAXIMUM,
    AG_BINARY_MINIMUM,
    AG_BINARY_EQUAL,
    AG_BINARY_GREATER, /* 1 or 0; these two take i64 as well */
    /* fused backward rules: a is what the formula names first, b is dy */
    AG_BINARY_TANH_BACKWARD,      /* (1 - y^2) dy */
    AG_BINARY_SIGMOID_BACKWARD,   /* y (1 - y) dy */
    AG_BINARY_RELU_BACKWARD,      /* x > 0 ? dy : 0 */
    AG_BINARY_GELU_BACKWARD,      /* gelu'(x) dy */
    AG_BINARY_GELU_TANH_BACKWARD, /* gelu_tanh'(x) dy */
    AG_BINARY_SILU_BACKWARD,      /* silu'(x) dy */
    AG_BINARY_COUNT
} ag_binary;

/* a and b broadcast to y. */
bool ag_compute_binary(ag_context *context, ag_binary kind, const ag_tensor *a, const ag_tensor *b,
                       ag_tensor *y);

/* y = condition ? a : b, all broadcast to y; condition of any dtype. a, b, y
 * of any one dtype. */
bool ag_compute_where(ag_context *context, const ag_tensor *condition, const ag_tensor *a,
                      const ag_tensor *b, ag_tensor *y);

/* y = mask ? value : x, mask (any dtype) broadcast to y. */
bool ag_compute_masked_fill(ag_context *context, const ag_tensor *x, const ag_tensor *mask,
                            double value, ag_tensor *y);

/* y = y + x; y contiguous, x of y's shape with any strides. */
bool ag_compute_accumulate(ag_context *context, const ag_tensor *x, ag_tensor *y);

/* y = gelu(y) and slope = gelu'(y), of the y before; both contiguous, of one shape. */
bool ag_compute_gelu_with_slope(ag_context *context, ag_tensor *y, ag_tensor *slope);

/* What a matrix product is added to; each may be NULL. */
typedef struct ag_matmul_start {
    const ag_tensor *row;    /* [n], the same for all rows */
    const ag_tensor *matrix; /* of y's shape; may be y itself */
} ag_matmul_start;

/* y [.., m, n] = a [.., m, k] b [.., k, n] + row + matrix; a, b and y of one
 * rank >= 2, the leading axes of a and b broadcast to y's. k may be 0, start
 * NULL. */
bool ag_compute_matmul(ag_context *context, const ag_tensor *a, const ag_tensor *b,
                       const ag_matmul_start *start, ag_tensor *y);

/* Sum or maximum over the axes whose bit is set in axes (bit i: axis i of x);
 * y has the remaining sizes in order (or 1 for reduced ones: only its count
 * matters). The sum of nothing is 0, the maximum of nothing -inf; a NaN
 * anywhere makes the maximum NaN. */
typedef enum ag_reduce { AG_REDUCE_SUM, AG_REDUCE_MAX } ag_reduce;
bool ag_compute_reduce(ag_context *context, ag_reduce kind, const ag_tensor *x, unsigned axes,
                       ag_tensor *y);

/* Index of the first maximum (a NaN counts as larger than anything) along an
 * axis; y is i64. */
bool ag_compute_argmax(ag_context *context, const ag_tensor *x, int axis, ag_tensor *y);
bool ag_compute_cumsum(ag_context *context, const ag_tensor *x, int axis, ag_tensor *y);

/* Along the last axis of contiguous x. LOGSUMEXP: y has x's shape without it. */
typedef enum ag_softmax_kind {
    AG_ROWS_SOFTMAX,
    AG_ROWS_LOG_SOFTMAX,
    AG_ROWS_LOGSUMEXP
} ag_softmax_kind;
bool ag_compute_softmax(ag_context *context, ag_softmax_kind kind, const ag_tensor *x,
                        ag_tensor *y);

/* Along the last axis of contiguous tensors. softmax: dx = y (dy - sum y dy);
 * log-softmax: dx = dy - exp(y) sum dy. */
bool ag_compute_softmax_backward(ag_context *context, ag_softmax_kind kind, const ag_tensor *y,
                                 const ag_tensor *dy, ag_tensor *dx);

/* Along the last axis of contiguous x [.., n]:
 *   layer norm  h = (x - mean) / sqrt(variance + epsilon)
 *   RMS norm    h = x / sqrt(mean of x^2 + epsilon)
 *   either      y = h gain + bias
 * gain and bias are contiguous [n], or NULL for 1 and 0. What backward reads of
 * each row is written to statistics, contiguous [rows, AG_NORM_STATISTICS]. */
typedef enum ag_norm_rows { AG_ROWS_LAYER_NORM, AG_ROWS_RMS_NORM } ag_norm_rows;
enum { AG_NORM_STATISTICS = 3 };
bool ag_compute_norm(ag_context *context, ag_norm_rows kind, double epsilon, const ag_tensor *x,
                     const ag_tensor *gain, const ag_tensor *bias, ag_tensor *y,
                     ag_tensor *statistics);

/* Contiguous gradients; those that are not asked for are NULL. */
typedef struct ag_norm_gradients {
    ag_tensor *x, *gain, *bias;
} ag_norm_gradients;
bool ag_compute_norm_backward(ag_context *context, ag_norm_rows kind, const ag_tensor *x,
                              const ag_tensor *gain, const ag_tensor *statistics,
                              const ag_tensor *dy, const ag_norm_gradients *gradients);

/* Attention of heads that lie side by side in the last axis:
 *
 *   S_ij = scale q_i . k_j    P_i = softmax of the S_ij that query i sees    y_i = sum_j P_ij v_j
 *
 * q [.., s, h d], k [.., t, h d], v [.., t, h d_v], of any strides and the same
 * leading axes; y [.., s, h d_v] contiguous. Query i sees the keys j < lengths of
 * its sequence and, if causal, j <= i + t - s; where it sees none, P_i = 0. What
 * backward reads of each row is written to statistics [.., h, AG_ATTENTION_STATISTICS, s]. */
typedef struct ag_attention_call {
    int64_t heads;
    double scale;
    bool causal;
    const ag_tensor *q, *k, *v;
    const int64_t *lengths; /* of each sequence, 0 .. t; NULL: t */
} ag_attention_call;
enum { AG_ATTENTION_STATISTICS = 2 };
bool ag_compute_attention(ag_context *context, const ag_attention_call *call, ag_tensor *y,
                          ag_tensor *statistics);

/* Contiguous gradients; those that are not asked for are NULL. */
typedef struct ag_attention_gradients {
    ag_tensor *q, *k, *v;
} ag_attention_gradients;

/* y, statistics and dy are contiguous. */
bool ag_compute_attention_backward(ag_context *context, const ag_attention_call *call,
                                   const ag_tensor *y, const ag_tensor *statistics,
                                   const ag_tensor *dy, const ag_attention_gradients *gradients);

/* losses[i] = -log softmax(logits_i)[labels_i], 0 for rows with *ignore;
 * logits contiguous [rows, classes], labels contiguous i64 [rows], losses
 * [rows]. ignore may be NULL. AG_ERR_INDEX for a label out of range. kept [rows, 2]
 * is for the next function: the largest of each row's logits, and one over the
 * sum of their exponentials less that. */
bool ag_compute_cross_entropy(ag_context *context, const ag_tensor *logits, const ag_tensor *labels,
                              const int64_t *ignore, ag_tensor *losses, ag_tensor *kept);

/* dlogits_i = (softmax(logits_i) - onehot(labels_i)) factor, 0 for ignored rows. */
bool ag_compute_cross_entropy_backward(ag_context *context, const ag_tensor *logits,
                                       const ag_tensor *labels, const int64_t *ignore,
                                       const ag_tensor *kept, double factor, ag_tensor *dlogits);

/* y row k = table row indices_k; table [v, ..] and indices of any strides,
 * all dtypes. AG_ERR_INDEX for an index out of range. */
bool ag_compute_gather_rows(ag_context *context, const ag_tensor *table, const ag_tensor *indices,
                            ag_tensor *y);

/* y [v, ..] = 0, then y row indices_k += rows row k, k ascending. */
bool ag_compute_scatter_add_rows(ag_context *context, const ag_tensor *rows,
                                 const ag_tensor *indices, ag_tensor *y);

/* In f64, sequential over fixed blocks, so that it does not depend on threads. */
double ag_compute_sum_of_squares(const ag_tensor *x);
bool ag_tensor_all_finite(const ag_tensor *x);

/* Optimiser updates in place, all tensors contiguous and of one shape. */
bool ag_compute_sgd(ag_context *context, ag_tensor *p, const ag_tensor *g, ag_tensor *u, double lr,
                    double momentum); /* u NULL without momentum */

typedef struct ag_adam_step {
    double lr, beta1, beta2, epsilon, weight_decay; /* decoupled */
    double correction1, correction2;                /* 1 - beta^t */
} ag_adam_step;
bool ag_compute_adam(ag_context *context, ag_tensor *p, const ag_tensor *g, ag_tensor *m,
                     ag_tensor *v, const ag_adam_step *step);

#endif
