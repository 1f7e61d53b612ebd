/* attograd, the tensor floor: what has numbers.
 *
 * The order of this page is the order in which one meets things:
 *   1  the context: every call belongs to one, there are no globals
 *   2  errors: the first one is kept, nothing aborts
 *   3  shapes and tensors
 *   4  views, which copy nothing
 *   5  reading, writing, printing
 *   6  random numbers
 *
 * Most programs need only 1 and 2 from here and the variables of autograd.h;
 * tensors are what lies inside of a variable.
 */
#ifndef AG_TENSOR_H
#define AG_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
#include <initializer_list>
extern "C" {
#endif

#if defined(__GNUC__)
#define AG_API __attribute__((visibility("default")))
#define AG_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define AG_API
#define AG_PRINTF(text, first)
#endif

#define AG_VERSION "0.1.0"
#define AG_MAX_RANK 8

AG_API const char *ag_version(void); /* of the library that runs: "0.1.0" */

typedef struct ag_context ag_context;

/* ---- 1  The context ---------------------------------------------------- */

/* f32 to train, f64 to check gradients, i64 for indices and labels. c128, two f64 (real
 * part, imaginary part), is what a gradient check by complex steps computes with. */
typedef enum ag_dtype { AG_DEFAULT_DTYPE = 0, AG_F32, AG_F64, AG_I64, AG_C128 } ag_dtype;

typedef enum ag_error {
    AG_OK = 0,
    AG_ERR_MEMORY,   /* memory ran out, or a size overflows */
    AG_ERR_SHAPE,    /* ranks or sizes do not fit */
    AG_ERR_DTYPE,    /* the operation does not take this dtype */
    AG_ERR_INDEX,    /* an axis, index or label is out of range */
    AG_ERR_ARGUMENT, /* NULL, an unknown option, a value out of range */
    AG_ERR_STATE,    /* the right call at the wrong time: a stale variable, backward twice */
    AG_ERR_IO,       /* a file cannot be opened, read or written */
    AG_ERR_FORMAT,   /* a file does not hold what it says */
    AG_ERR_THREAD    /* a thread cannot be started */
} ag_error;

/* Called at the moment an error happens: a place for a breakpoint. While it
 * runs, ag_error_clear and ag_tape_reset do nothing. */
typedef void (*ag_error_callback)(ag_error error, const char *message, void *user);

/* Where memory comes from. allocate returns NULL when there is none, and
 * memory aligned like malloc's otherwise. Both or neither must be given. */
typedef struct ag_allocator {
    void *(*allocate)(size_t bytes, void *user);
    void (*release)(void *memory, void *user);
    void *user;
} ag_allocator;

/* The zero value of every member is its default. */
typedef struct ag_context_options {
    ag_dtype dtype;         /* of new variables: AG_F32 (default) or AG_F64 */
    uint64_t seed;          /* of every random number; default 0 */
    int threads;            /* 1 to 256, the calling one included; default 1 */
    ag_allocator allocator; /* default malloc and free */
    ag_error_callback on_error;
    void *on_error_user;
} ag_context_options;

/* options may be NULL. Returns NULL only when there is no memory for the
 * context itself. Wrong options, and threads that cannot be started, give a
 * context that already holds that error; every function here takes a NULL
 * context and does nothing with it. A context is used by one thread at a time. */
AG_API ag_context *ag_context_new(const ag_context_options *options);

/* Frees the context and all that lives in it. */
AG_API void ag_context_free(ag_context *context);

/* The last line of a main: prints the first error to stderr, if there was
 * one, frees the context, returns 0 without and 1 with an error (or NULL). */
AG_API int ag_context_finish(ag_context *context);

AG_API ag_dtype ag_context_dtype(const ag_context *context);
AG_API uint64_t ag_context_seed(const ag_context *context);
AG_API int ag_context_threads(const ag_context *context);

/* The instruction set that the kernels use: "generic", "avx2", "avx512", "neon" */
AG_API const char *ag_context_isa(const ag_context *context);

/* What a context holds, in bytes and calls since it was made. */
typedef struct ag_memory_usage {
    size_t kept;          /* bytes in use that stay until the context ends */
    size_t step;          /* bytes in use that the next ag_tape_reset frees */
    size_t step_peak;     /* the largest that step has been */
    size_t reserved;      /* bytes taken from the allocator */
    uint64_t allocations; /* calls to the allocator */
} ag_memory_usage;

AG_API ag_memory_usage ag_context_memory(const ag_context *context);

/* ---- 2  Errors --------------------------------------------------------- */

/* The first error stays until it is cleared. Until then every operation does
 * nothing and returns a poisoned variable, so a program needs to ask once per
 * step, not once per call. */
AG_API ag_error ag_status(const ag_context *context);

/* One sentence: the operation, the variables, the shapes. "" without error. */
AG_API const char *ag_error_message(const ag_context *context);
AG_API void ag_error_clear(ag_context *context);

/* "AG_ERR_SHAPE" and so on. */
AG_API const char *ag_error_name(ag_error error);

/* Records an error, for operations and layers of your own. Only the first is
 * kept. Always returns false. */
AG_API bool ag_fail(ag_context *context, ag_error error, const char *format, ...) AG_PRINTF(3, 4);

/* ---- 3  Shapes and tensors --------------------------------------------- */

typedef struct ag_shape {
    int rank;
    int64_t dims[AG_MAX_RANK];
} ag_shape;

/* Copies rank dims. A rank beyond AG_MAX_RANK or below 0 makes a shape that
 * every operation refuses. */
AG_API ag_shape ag_shape_make(int rank, const int64_t *dims);

/* AG_SHAPE(2, 3) is a matrix of two rows, AG_SCALAR has rank 0. */
#ifdef __cplusplus
#define AG_SHAPE(...) ag_shape_list({ __VA_ARGS__ })
#else
#define AG_SHAPE(...)                                                          \
    ag_shape_make((int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
                  (int64_t[]){ __VA_ARGS__ })
#endif
#define AG_SCALAR ag_shape_make(0, NULL)

/* The number of elements: the product of the dims, 1 for rank 0; at most INT64_MAX, and 0 if a
 * size is negative. */
AG_API int64_t ag_shape_count(ag_shape shape);
AG_API bool ag_shape_equal(ag_shape a, ag_shape b);

/* "[2,3]" into text, which is returned. */
AG_API char *ag_shape_text(ag_shape shape, char *text, size_t size);

/* The shape that a and b broadcast to: aligned at the last axis, sizes equal
 * or 1. False if they do not fit. */
AG_API bool ag_shape_broadcast(ag_shape a, ag_shape b, ag_shape *result);

/* Numbers: element (i, j, ..) is data[i * strides[0] + j * strides[1] + ..],
 * of dtype. A stride may be 0 (broadcast) or negative (flipped). The struct
 * owns nothing: it may be copied, changed and thrown away. */
typedef struct ag_tensor {
    void *data;
    ag_dtype dtype;
    int rank;
    int64_t dims[AG_MAX_RANK];
    int64_t strides[AG_MAX_RANK]; /* in elements */
} ag_tensor;

/* How long the memory of a tensor lives. */
typedef enum ag_lifetime {
    AG_STEP = 0, /* until ag_tape_reset */
    AG_KEEP      /* until the context ends */
} ag_lifetime;

/* A tensor of zeros, contiguous, row-major. NULL on error.
 * AG_ERR_MEMORY, AG_ERR_SHAPE (rank, negative size), AG_ERR_DTYPE. */
AG_API ag_tensor *ag_tensor_new(ag_context *context, ag_lifetime lifetime, ag_dtype dtype,
                                ag_shape shape);

AG_API size_t ag_dtype_size(ag_dtype dtype);      /* bytes: 4, 8, 8, 16 */
AG_API const char *ag_dtype_name(ag_dtype dtype); /* "f32", "f64", "i64", "c128" */
AG_API ag_shape ag_tensor_shape(const ag_tensor *tensor);
AG_API int64_t ag_tensor_count(const ag_tensor *tensor);
AG_API bool ag_tensor_is_contiguous(const ag_tensor *tensor);

/* The element at index (rank numbers), as a double: of c128 the real part. NaN for a NULL
 * tensor or an index out of range. */
AG_API double ag_tensor_get(const ag_tensor *tensor, const int64_t *index);

/* Sets one element, of c128 with the imaginary part 0; false if the tensor is NULL or the
 * index out of range. */
AG_API bool ag_tensor_set(ag_tensor *tensor, const int64_t *index, double value);

/* The k-th element in row-major order; NaN or false out of range. */
AG_API double ag_tensor_at(const ag_tensor *tensor, int64_t k);
AG_API bool ag_tensor_put(ag_tensor *tensor, int64_t k, double value);

/* to = from, element by element, with broadcasting of from and conversion of
 * dtype. Where they overlap in memory the result is as if from had been
 * copied first. AG_ERR_SHAPE. AG_ERR_DTYPE: from c128 to another dtype. */
AG_API bool ag_tensor_copy(ag_context *context, ag_tensor *to, const ag_tensor *from);
AG_API bool ag_tensor_fill(ag_context *context, ag_tensor *tensor, double value);

/* ---- 4  Views: they share the data and copy nothing -------------------- */

/* Axis i of view is axis order[i] of x. AG_ERR_INDEX if order is no permutation. */
AG_API bool ag_tensor_permute(ag_context *context, const ag_tensor *x, const int *order,
                              ag_tensor *view);

/* Swaps two axes; negative ones count from the end. */
AG_API bool ag_tensor_transpose(ag_context *context, const ag_tensor *x, int axis_a, int axis_b,
                                ag_tensor *view);

/* Elements start, start + step, .. below stop of one axis. Negative start and
 * stop count from the end, AG_END is the end; both are clamped as in Python.
 * step >= 1 (see ag_tensor_flip). */
#define AG_END INT64_MAX
AG_API bool ag_tensor_slice(ag_context *context, const ag_tensor *x, int axis, int64_t start,
                            int64_t stop, int64_t step, ag_tensor *view);

/* The axis backwards. */
AG_API bool ag_tensor_flip(ag_context *context, const ag_tensor *x, int axis, ag_tensor *view);

/* NumPy broadcasting: new axes in front, sizes of 1 repeated with stride 0. */
AG_API bool ag_tensor_broadcast(ag_context *context, const ag_tensor *x, ag_shape shape,
                                ag_tensor *view);

/* The same elements in row-major order under another shape; one size may be
 * -1 and is worked out. A view where the strides allow it; where they do not,
 * view gets a contiguous copy with the lifetime AG_STEP. */
AG_API bool ag_tensor_reshape(ag_context *context, const ag_tensor *x, ag_shape shape,
                              ag_tensor *view);

/* ---- 5  Reading, writing, printing ------------------------------------- */

/* Readable for matrices; long axes are shortened to their ends. */
AG_API void ag_tensor_print(const ag_tensor *tensor, FILE *file);

/* NumPy's .npy, versions 1 to 3, row- or column-major, any byte order. Floats
 * of 8 and 4 bytes keep their dtype, halves become f32; integers and booleans
 * become i64. NULL on error: AG_ERR_IO, AG_ERR_FORMAT, AG_ERR_MEMORY. */
AG_API ag_tensor *ag_npy_read(ag_context *context, const char *path, ag_lifetime lifetime);

/* Version 1, row-major, little-endian. The file appears whole or not at all.
 * AG_ERR_DTYPE: c128. */
AG_API bool ag_npy_write(ag_context *context, const char *path, const ag_tensor *tensor);

/* ---- 6  Random numbers ------------------------------------------------- */

/* Counter-based: Philox 4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel
 * random numbers: as easy as 1, 2, 3", SC 2011. The number at a position
 * depends on (seed, stream, position) alone, not on who asked first, nor on
 * how many threads ask. Each call below takes one position. */
typedef struct ag_random {
    uint64_t seed, stream, position;
} ag_random;

/* A generator with its own stream of numbers for each (seed, name, number). */
AG_API ag_random ag_random_stream(uint64_t seed, const char *name, uint64_t number);
AG_API uint64_t ag_random_bits(ag_random *random);
AG_API double ag_random_uniform(ag_random *random);               /* [0, 1), 53 bits */
AG_API double ag_random_normal(ag_random *random);                /* mean 0, variance 1 */
AG_API int64_t ag_random_integer(ag_random *random, int64_t end); /* 0 .. end - 1; 0 if end < 1 */

/* A permutation of 0 .. n - 1, every one equally likely. Takes n positions. */
AG_API void ag_random_permutation(ag_random *random, int64_t n, int64_t *result);

/* Fill a tensor: its k-th element gets the k-th number of the stream.
 * AG_ERR_ARGUMENT: NULL, low > high, a negative deviation, end < 1, or one that
 * is not finite. AG_ERR_DTYPE: uniform and normal need floats. AG_ERR_SHAPE: a
 * tensor that repeats elements (stride 0). */
AG_API bool ag_random_fill_uniform(ag_context *context, ag_random *random, ag_tensor *tensor,
                                   double low, double high);
AG_API bool ag_random_fill_normal(ag_context *context, ag_random *random, ag_tensor *tensor,
                                  double mean, double deviation);
AG_API bool ag_random_fill_integer(ag_context *context, ag_random *random, ag_tensor *tensor,
                                   int64_t end);

#ifdef __cplusplus
}

inline ag_shape ag_shape_list(std::initializer_list<int64_t> dims)
{
    return ag_shape_make((int)dims.size(), dims.begin());
}
#endif

#endif
