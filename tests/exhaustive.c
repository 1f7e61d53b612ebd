/* exhaustive [--one-in N] [NAME ..]   every function of one argument in f32, at every float
 *
 * With --one-in only each N-th block of 4,096 neighbours is tried: a sample. Prints the largest
 * error of each in ulp and where it is, and fails if one is above its bound in the table below.
 * AG_ISA chooses the instruction set that is tested. What is true is taken from the same function
 * in f64 of the best instruction set, which test_functions.c holds against the C library's, and for
 * sin and cos from the C library itself: in f64 both are far closer than an ulp of f32. */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tensor/internal.h"

typedef enum symmetry { NONE, EVEN, ODD } symmetry;

typedef struct function {
    const char *name;
    bool is_slope; /* kind is an ag_binary, whose second operand is 1 */
    int kind;
    symmetry symmetry;
    double bound; /* in ulp of the result .. */
    double floor; /* .. or of this, if the result is smaller: where slopes cross 0 */
} function;

static const function functions[] = {
    { "exp", false, AG_UNARY_EXP, NONE, 1.5, 0 },
    { "log", false, AG_UNARY_LOG, NONE, 1, 0 },
    { "sin", false, AG_UNARY_SIN, ODD, 0.6, 0 },
    { "cos", false, AG_UNARY_COS, EVEN, 0.6, 0 },
    { "tanh", false, AG_UNARY_TANH, ODD, 2, 0 },
    { "erf", false, AG_UNARY_ERF, ODD, 0.6, 0 },
    { "erfc", false, AG_UNARY_ERFC, NONE, 0.6, 0 },
    { "sigmoid", false, AG_UNARY_SIGMOID, NONE, 0.6, 0 },
    { "softplus", false, AG_UNARY_SOFTPLUS, NONE, 2, 0 },
    { "gelu", false, AG_UNARY_GELU, NONE, 2, 0 },
    { "gelu_tanh", false, AG_UNARY_GELU_TANH, NONE, 0.6, 0 },
    { "silu", false, AG_UNARY_SILU, NONE, 0.6, 0 },
    { "gelu'", true, AG_BINARY_GELU_BACKWARD, NONE, 2.5, 0x1p-1 },
    { "gelu_tanh'", true, AG_BINARY_GELU_TANH_BACKWARD, NONE, 0.6, 0x1p-6 },
    { "silu'", true, AG_BINARY_SILU_BACKWARD, NONE, 0.6, 0x1p-6 },
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

/* A worker's block of numbers and the two contexts that compute with them. */
enum { BLOCK = 4096, BLOCKS_PER_TAKE = 256 };

typedef struct worker {
    const function *f;
    ag_context *tested, *best;
    ag_tensor *x, *y, *y_mirrored, *one;
    ag_tensor *x_true, *y_true, *one_true;
    float error, at; /* the largest so far, in ulp, and where it is */
} worker;

static _Atomic uint32_t next_block;
static uint32_t one_in = 1;

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^e, where 2^e <= |x| < 2^(e+1) */
static double power_below(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= (uint64_t)0x7ff << 52;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 0 for what is rounded to the nearest. Written without branches, for the vectoriser. */
static inline float error_in_ulps(float y, double y_true, double floor)
{
    float rounded = (float)y_true;
    double size = power_below(y_true);
    size = size < floor ? floor : size;
    float error = (float)(fabs((double)y - y_true) / (size * 0x1p-23));
    error = error >= 0 ? error : INFINITY;
    return (y == rounded) | ((y != y) & (rounded != rounded)) ? 0 : error;
}

static void compute(ag_context *context, const function *f, const ag_tensor *x,
                    const ag_tensor *one, ag_tensor *y)
{
    if (f->is_slope)
        ag_compute_binary(context, (ag_binary)f->kind, x, one, y);
    else
        ag_compute_unary(context, (ag_unary)f->kind, 0, x, y);
}

static void compute_true(worker *w)
{
    const double *x = w->x_true->data;
    double *y = w->y_true->data;
    if (w->f->is_slope || (w->f->kind != AG_UNARY_SIN && w->f->kind != AG_UNARY_COS))
        compute(w->best, w->f, w->x_true, w->one_true, w->y_true);
    else
        for (int i = 0; i < BLOCK; i++)
            y[i] = w->f->kind == AG_UNARY_SIN ? sin(x[i]) : cos(x[i]);
}

static void note_errors(worker *w)
{
    enum { LANES = 16 };
    const float *x = w->x->data, *y = w->y->data;
    const double *y_true = w->y_true->data, floor = fmax(w->f->floor, (double)FLT_MIN);
    float error[BLOCK], largest[LANES] = { 0 };
    for (int i = 0; i < BLOCK; i++)
        error[i] = error_in_ulps(y[i], y_true[i], floor);
    for (int i = 0; i < BLOCK; i += LANES)
        for (int l = 0; l < LANES; l++)
            largest[l] = error[i + l] > largest[l] ? error[i + l] : largest[l];
    for (int l = 0; l < LANES; l++)
        for (int i = l; i < BLOCK && largest[l] > w->error; i += LANES)
            if (error[i] == largest[l]) {
                w->error = error[i];
                w->at = x[i];
            }
}

/* f(-x) must be f(x) or -f(x), to the bit, where a symmetry is known: then only
 * positive numbers need a comparison. */
static void check_mirrored(worker *w)
{
    float *x = w->x->data, *y = w->y->data, *mirrored = w->y_mirrored->data;
    for (int i = 0; i < BLOCK; i++)
        x[i] = -x[i];
    compute(w->tested, w->f, w->x, w->one, w->y_mirrored);
    int wrong = 0;
    for (int i = 0; i < BLOCK; i++) {
        float expected = w->f->symmetry == ODD ? -y[i] : y[i];
        wrong |= !(mirrored[i] == expected || (mirrored[i] != mirrored[i] && y[i] != y[i]));
    }
    for (int i = 0; i < BLOCK && wrong; i++)
        if (mirrored[i] != (w->f->symmetry == ODD ? -y[i] : y[i]) && y[i] == y[i]) {
            w->error = INFINITY;
            w->at = x[i];
            return;
        }
}

static void check_block(worker *w, uint32_t first)
{
    float *x = w->x->data;
    double *x_true = w->x_true->data;
    for (uint32_t i = 0; i < BLOCK; i++) {
        x[i] = float_of(first + i);
        x_true[i] = (double)x[i];
    }
    compute(w->tested, w->f, w->x, w->one, w->y);
    compute_true(w);
    note_errors(w);
    if (w->f->symmetry != NONE)
        check_mirrored(w);
}

static void *check_blocks(void *worker_)
{
    worker *w = worker_;
    uint32_t end = (w->f->symmetry == NONE ? 1u << 20 : 1u << 19) / BLOCKS_PER_TAKE;
    for (;;) {
        uint32_t take = atomic_fetch_add(&next_block, 1);
        if (take >= end)
            return NULL;
        for (uint32_t i = 0; i < BLOCKS_PER_TAKE; i++) {
            uint32_t block = take * BLOCKS_PER_TAKE + i;
            if (block % one_in == 0)
                check_block(w, block * BLOCK);
        }
    }
}

static ag_tensor *ones(ag_context *context, ag_dtype dtype)
{
    ag_tensor *x = ag_tensor_new(context, AG_KEEP, dtype, AG_SHAPE(BLOCK));
    ag_tensor_fill(context, x, 1);
    return x;
}

static ag_context *context_of(const char *isa)
{
    if (isa)
        setenv("AG_ISA", isa, 1);
    else
        unsetenv("AG_ISA");
    ag_context *context = ag_context_new(NULL);
    if (ag_status(context) != AG_OK)
        exit(ag_context_finish(context));
    return context;
}

static void worker_begin(worker *w, const char *isa)
{
    w->tested = context_of(isa);
    w->best = context_of(NULL);
    w->x = ones(w->tested, AG_F32);
    w->y = ones(w->tested, AG_F32);
    w->y_mirrored = ones(w->tested, AG_F32);
    w->one = ones(w->tested, AG_F32);
    w->x_true = ones(w->best, AG_F64);
    w->y_true = ones(w->best, AG_F64);
    w->one_true = ones(w->best, AG_F64);
}

enum { WORKERS = 2 };

/* Prints one line; false if the bound does not hold. */
static bool check_function(const function *f, worker *workers)
{
    pthread_t threads[WORKERS];
    atomic_store(&next_block, 0);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].f = f;
        workers[i].error = -1;
        if (pthread_create(&threads[i], NULL, check_blocks, &workers[i]) != 0)
            exit(2);
    }
    const worker *worst = &workers[0];
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        if (workers[i].error > worst->error)
            worst = &workers[i];
    }
    bool good = (double)worst->error <= f->bound;
    printf("%-11s %7.3f ulp at %-15.9g %s\n", f->name, (double)worst->error, (double)worst->at,
           good ? "" : "ABOVE ITS BOUND");
    fflush(stdout);
    return good;
}

static bool is_wanted(const function *f, int n, char **names)
{
    bool wanted = n == 0;
    for (int i = 0; i < n; i++)
        wanted = wanted || strcmp(names[i], f->name) == 0;
    return wanted;
}

int main(int argc, char **argv)
{
    worker workers[WORKERS] = { 0 };
    const char *value = getenv("AG_ISA");
    char *isa = value ? strcpy(malloc(strlen(value) + 1), value) : NULL;
    int checked = 0, wrong = 0;
    if (argc > 2 && strcmp(argv[1], "--one-in") == 0) {
        one_in = (uint32_t)strtoul(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (one_in == 0)
        return 2;
    for (int i = 0; i < WORKERS; i++)
        worker_begin(&workers[i], isa);
    free(isa);
    printf("f32, %s kernels\n", ag_context_isa(workers[0].tested));
    for (int i = 0; i < FUNCTIONS; i++) {
        if (!is_wanted(&functions[i], argc - 1, argv + 1))
            continue;
        wrong += !check_function(&functions[i], workers);
        checked++;
    }
    for (int i = 0; i < WORKERS; i++) {
        wrong += ag_context_finish(workers[i].tested) != 0;
        wrong += ag_context_finish(workers[i].best) != 0;
    }
    return wrong > 0 || checked == 0;
}
