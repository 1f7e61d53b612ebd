/* Elementwise operations against formulas in double, for every instruction set
 * that this processor has: values, special values, views, threads. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tensor/internal.h"

static const char *const isas[] = { "generic", "avx2", "avx512" };
enum { ISAS = 3 };

/* NULL where this build or processor does not have the instruction set. */
static ag_context *context_for(const char *isa, int threads)
{
    setenv("AG_ISA", isa, 1);
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = threads });
    if (ag_status(context) == AG_ERR_ARGUMENT) {
        ag_context_free(context);
        return NULL;
    }
    cr_assert_eq(ag_status(context), AG_OK, "%s", ag_error_message(context));
    return context;
}

static double logistic(double x)
{
    return x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double normal_below(double x)
{
    return 0.5 * erfc(-x / sqrt(2));
}

static double gelu_inner(double x)
{
    return 2 * sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
}

/* clang-format off */
static double unary(ag_unary kind, double x, double p)
{
    switch (kind) {
    case AG_UNARY_NEG: return -x;
    case AG_UNARY_SQUARE: return x * x;
    case AG_UNARY_SQRT: return sqrt(x);
    case AG_UNARY_RSQRT: return 1 / sqrt(x);
    case AG_UNARY_RECIPROCAL: return 1 / x;
    case AG_UNARY_EXP: return exp(x);
    case AG_UNARY_LOG: return log(x);
    case AG_UNARY_SIN: return sin(x);
    case AG_UNARY_COS: return cos(x);
    case AG_UNARY_TANH: return tanh(x);
    case AG_UNARY_ERF: return erf(x);
    case AG_UNARY_ERFC: return erfc(x);
    case AG_UNARY_SIGMOID: return logistic(x);
    case AG_UNARY_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case AG_UNARY_RELU: return x > 0 ? x : 0;
    case AG_UNARY_GELU: return x * normal_below(x);
    case AG_UNARY_GELU_TANH: return x * logistic(gelu_inner(x));
    case AG_UNARY_SILU: return x * logistic(x);
    case AG_UNARY_ABS: return fabs(x);
    case AG_UNARY_SIGN: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case AG_UNARY_SCALE: return x * p;
    case AG_UNARY_SHIFT: return x + p;
    case AG_UNARY_POW: return pow(x, p);
    case AG_UNARY_COUNT: break;
    }
    cr_assert_fail("no reference for operation %d", (int)kind);
    return NAN;
}

static double binary(ag_binary kind, double a, double b)
{
    double s = logistic(a), u = logistic(gelu_inner(a));
    double inner_slope = 2 * sqrt(2 / 3.14159265358979323846) * (1 + 3 * 0.044715 * a * a);
    switch (kind) {
    case AG_BINARY_ADD: return a + b;
    case AG_BINARY_SUB: return a - b;
    case AG_BINARY_MUL: return a * b;
    case AG_BINARY_DIV: return a / b;
    case AG_BINARY_MAXIMUM: return a > b ? a : b;
    case AG_BINARY_MINIMUM: return a < b ? a : b;
    case AG_BINARY_EQUAL: return a == b;
    case AG_BINARY_GREATER: return a > b;
    case AG_BINARY_TANH_BACKWARD: return (1 - a * a) * b;
    case AG_BINARY_SIGMOID_BACKWARD: return a * (1 - a) * b;
    case AG_BINARY_RELU_BACKWARD: return a > 0 ? b : 0;
    case AG_BINARY_GELU_BACKWARD:
        return (normal_below(a) + a * exp(-0.5 * a * a) / sqrt(2 * 3.14159265358979323846)) * b;
    case AG_BINARY_GELU_TANH_BACKWARD:
        return (u + a * u * logistic(-gelu_inner(a)) * inner_slope) * b;
    case AG_BINARY_SILU_BACKWARD: return (s + a * s * logistic(-a)) * b;
    case AG_BINARY_COUNT: break;
    }
    cr_assert_fail("no reference for operation %d", (int)kind);
    return NAN;
}
/* clang-format on */

/* f32 in ulp of the result, f64 (whose reference rounds as well) more loosely;
 * near zero crossings relative to 1. */
static bool close_to(double value, double expected, ag_dtype dtype, double ulps)
{
    if (isnan(expected) || isinf(expected))
        return isnan(expected) ? isnan(value) : value == expected;
    double epsilon = dtype == AG_F32 ? 0x1p-24 : 0x1p-53;
    double smallest = dtype == AG_F32 ? 0x1p-149 : 0x1p-1074;
    return fabs(value - expected) <= 2 * ulps * (epsilon * fabs(expected) + smallest);
}

enum { POINTS = 61 };

/* Both signs, small, ordinary and large; 0 in the middle. */
static ag_tensor *points(ag_context *context, ag_dtype dtype)
{
    ag_tensor *x = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(POINTS));
    for (int i = 1; i <= POINTS / 2; i++) {
        double size = 1e-4 * pow(1.7, i); /* to 817 */
        ag_tensor_put(x, POINTS / 2 + i, size);
        ag_tensor_put(x, POINTS / 2 - i, -size);
    }
    return x;
}

static void check_unary(ag_context *context, ag_dtype dtype, ag_unary kind, double parameter)
{
    ag_tensor *x = points(context, dtype);
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(POINTS));
    cr_assert(ag_compute_unary(context, kind, parameter, x, y));
    for (int i = 0; i < POINTS; i++) {
        double at = ag_tensor_at(x, i), expected = unary(kind, at, parameter);
        if (dtype == AG_F32 && fabs(expected) > 3.5e38)
            expected = copysign(INFINITY, expected);
        double slack = 4; /* tails multiply the rounding of their exponent */
        if (kind == AG_UNARY_SILU)
            slack += fabs(at);
        if (kind == AG_UNARY_GELU || kind == AG_UNARY_GELU_TANH)
            slack += 2 * at * at * (1 + fabs(at));
        cr_assert(close_to(ag_tensor_at(y, i), expected, dtype, slack),
                  "%s %s unary %d of %g: %.9g, expected %.9g", ag_context_isa(context),
                  ag_dtype_name(dtype), (int)kind, at, ag_tensor_at(y, i), expected);
    }
}

Test(tensor_elementwise, unary_values)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        for (int kind = 0; kind < AG_UNARY_COUNT; kind++) {
            check_unary(context, AG_F32, kind, 3);
            check_unary(context, AG_F64, kind, -1.5);
        }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

static void check_binary(ag_context *context, ag_dtype dtype, ag_binary kind)
{
    ag_tensor *a = points(context, dtype), b;
    ag_tensor_flip(context, a, 0, &b);
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(POINTS));
    cr_assert(ag_compute_binary(context, kind, a, &b, y));
    for (int i = 0; i < POINTS; i++) {
        double at = ag_tensor_at(a, i), dy = ag_tensor_at(&b, i);
        double expected = binary(kind, at, dy), error = fabs(ag_tensor_at(y, i) - expected);
        bool slope = kind >= AG_BINARY_TANH_BACKWARD;
        double scale = slope ? fabs(dy) * fmax(1, fabs(expected / dy)) : fabs(expected);
        double bound = (slope ? 16 : 1) * scale * (dtype == AG_F32 ? 0x1p-23 : 0x1p-52);
        bool same = isnan(expected) ? isnan(ag_tensor_at(y, i)) : dy == 0 || error <= bound;
        cr_assert(same, "%s %s binary %d of %g, %g: %.9g, expected %.9g", ag_context_isa(context),
                  ag_dtype_name(dtype), (int)kind, at, dy, ag_tensor_at(y, i), expected);
    }
}

Test(tensor_elementwise, binary_values)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        for (int kind = 0; kind < AG_BINARY_COUNT; kind++) {
            check_binary(context, AG_F32, kind);
            check_binary(context, AG_F64, kind);
        }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

/* ---- Special values ---- */

/* f(x) for x at every place of a vector and of the rest of a loop. */
static double unary_of(ag_context *context, ag_dtype dtype, ag_unary kind, double x)
{
    ag_tensor *many = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(37));
    ag_tensor_fill(context, many, x);
    cr_assert(ag_compute_unary(context, kind, 0, many, many));
    for (int i = 1; i < 37; i++)
        cr_assert(close_to(ag_tensor_at(many, i), ag_tensor_at(many, 0), dtype, 2));
    return ag_tensor_at(many, 36);
}

static double binary_of(ag_context *context, ag_dtype dtype, ag_binary kind, double a, double b)
{
    ag_tensor *many_a = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(37));
    ag_tensor *many_b = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(37));
    ag_tensor_fill(context, many_a, a);
    ag_tensor_fill(context, many_b, b);
    cr_assert(ag_compute_binary(context, kind, many_a, many_b, many_b));
    double first = ag_tensor_at(many_b, 0), last = ag_tensor_at(many_b, 36);
    cr_assert(isnan(first) ? isnan(last) : first == last);
    return last;
}

typedef struct special {
    ag_unary kind;
    double x, expected;
} special;

static const special specials[] = {
    { AG_UNARY_SIGMOID, 1e5, 1 },
    { AG_UNARY_SIGMOID, -1e5, 0 },
    { AG_UNARY_SIGMOID, INFINITY, 1 },
    { AG_UNARY_SIGMOID, -INFINITY, 0 },
    { AG_UNARY_SOFTPLUS, 1e5, 1e5 },
    { AG_UNARY_SOFTPLUS, -1e5, 0 },
    { AG_UNARY_SOFTPLUS, INFINITY, INFINITY },
    { AG_UNARY_SOFTPLUS, -INFINITY, 0 },
    { AG_UNARY_GELU, 1e5, 1e5 },
    { AG_UNARY_GELU, -1e5, 0 },
    { AG_UNARY_GELU, 1e30, 1e30 },
    { AG_UNARY_GELU, INFINITY, INFINITY },
    { AG_UNARY_GELU, -INFINITY, 0 },
    { AG_UNARY_GELU_TANH, 1e5, 1e5 },
    { AG_UNARY_GELU_TANH, -1e5, 0 },
    { AG_UNARY_GELU_TANH, 1e30, 1e30 },
    { AG_UNARY_GELU_TANH, INFINITY, INFINITY },
    { AG_UNARY_GELU_TANH, -INFINITY, 0 },
    { AG_UNARY_SILU, 1e5, 1e5 },
    { AG_UNARY_SILU, -1e5, 0 },
    { AG_UNARY_SILU, INFINITY, INFINITY },
    { AG_UNARY_SILU, -INFINITY, 0 },
    { AG_UNARY_RELU, INFINITY, INFINITY },
    { AG_UNARY_RELU, -INFINITY, 0 },
    { AG_UNARY_SIGN, 0, 0 },
    { AG_UNARY_SIGN, -INFINITY, -1 },
    { AG_UNARY_EXP, INFINITY, INFINITY },
    { AG_UNARY_EXP, -INFINITY, 0 },
    { AG_UNARY_EXP, 1e5, INFINITY },
    { AG_UNARY_EXP, -1e5, 0 },
    { AG_UNARY_EXP, 0, 1 },
    { AG_UNARY_LOG, 0, -INFINITY },
    { AG_UNARY_LOG, -1, NAN },
    { AG_UNARY_SQRT, -1, NAN },
    { AG_UNARY_RSQRT, 0, INFINITY },
    { AG_UNARY_TANH, 1e5, 1 },
};

Test(tensor_elementwise, special_values)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s], 1);
        if (!context)
            continue;
        for (int type = 0; type < 2; type++) {
            ag_dtype dtype = type ? AG_F64 : AG_F32;
            for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
                const special *t = &specials[i];
                double y = unary_of(context, dtype, t->kind, t->x);
                cr_assert(close_to(y, t->expected, dtype, 1), "%s %s unary %d of %g is %g", isas[s],
                          ag_dtype_name(dtype), (int)t->kind, t->x, y);
            }
            for (int kind = 0; kind < AG_UNARY_COUNT; kind++)
                cr_assert(kind == AG_UNARY_POW || isnan(unary_of(context, dtype, kind, NAN)),
                          "%s %s unary %d of NaN is not NaN", isas[s], ag_dtype_name(dtype), kind);
        }
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

Test(tensor_elementwise, nan_in_binary_operations)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *c = context_for(isas[s], 1);
        if (!c)
            continue;
        for (int type = 0; type < 2; type++) {
            ag_dtype dtype = type ? AG_F64 : AG_F32;
            cr_assert(isnan(binary_of(c, dtype, AG_BINARY_MAXIMUM, NAN, 1)));
            cr_assert(isnan(binary_of(c, dtype, AG_BINARY_MAXIMUM, 1, NAN)));
            cr_assert(isnan(binary_of(c, dtype, AG_BINARY_MINIMUM, NAN, 1)));
            cr_assert(isnan(binary_of(c, dtype, AG_BINARY_MINIMUM, 1, NAN)));
            cr_assert_eq(binary_of(c, dtype, AG_BINARY_EQUAL, NAN, NAN), 0.0);
            cr_assert_eq(binary_of(c, dtype, AG_BINARY_GREATER, NAN, 1), 0.0);
            for (int kind = AG_BINARY_GELU_BACKWARD; kind < AG_BINARY_COUNT; kind++) {
                cr_assert_eq(binary_of(c, dtype, kind, INFINITY, 3), 3.0, "%d", kind);
                cr_assert_eq(binary_of(c, dtype, kind, -INFINITY, 3), 0.0, "%d", kind);
                cr_assert_eq(binary_of(c, dtype, kind, 1e5, 3), 3.0, "%d", kind);
                cr_assert_eq(binary_of(c, dtype, kind, -1e5, 3), 0.0, "%d", kind);
                cr_assert(isnan(binary_of(c, dtype, kind, NAN, 3)), "%d", kind);
            }
        }
        cr_assert_eq(ag_context_finish(c), 0);
    }
}

/* ---- Views ---- */

/* A view that broadcasts to shape: axes in a random order in memory, some with
 * gaps, some backwards, some of size 1 or stride 0, some of the first missing. */
static ag_tensor random_view(ag_context *context, ag_random *random, ag_dtype dtype, ag_shape shape)
{
    int missing = (int)ag_random_integer(random, shape.rank + 1) / 2;
    ag_tensor view = { .dtype = dtype, .rank = shape.rank - missing };
    int64_t order[AG_MAX_RANK], size = 1, offset = 0;
    ag_random_permutation(random, view.rank, order);
    for (int i = 0; i < view.rank; i++) {
        int64_t axis = order[i], kind = ag_random_integer(random, 10);
        int64_t dim = kind == 0 ? 1 : shape.dims[axis + missing];
        view.dims[axis] = dim;
        view.strides[axis] = kind == 1 ? 0 : kind == 2 ? -size : kind == 3 ? 3 * size : size;
        if (kind == 2 && dim > 0)
            offset += size * (dim - 1);
        size *= kind == 1 ? 1 : kind == 3 ? 3 * dim : dim;
    }
    ag_tensor *base = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(size));
    cr_assert_not_null(base, "%s", ag_error_message(context));
    for (int64_t i = 0; i < size; i++)
        ag_tensor_put(base, i, (double)(ag_random_integer(random, 9) - 4));
    view.data = (char *)base->data + offset * (int64_t)ag_dtype_size(dtype);
    return view;
}

static ag_shape random_shape(ag_random *random)
{
    ag_shape shape = { .rank = (int)ag_random_integer(random, 5) };
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = ag_random_integer(random, 20) == 0 ? 0 : 1 + ag_random_integer(random, 9);
    return shape;
}

/* The element of x that element number at of a result of this shape reads. */
static double broadcast_element(const ag_tensor *x, ag_shape shape, int64_t at)
{
    int64_t index[AG_MAX_RANK];
    for (int axis = shape.rank - 1; axis >= 0; axis--) {
        int own = axis - (shape.rank - x->rank);
        if (own >= 0)
            index[own] = x->dims[own] == 1 ? 0 : at % shape.dims[axis];
        at /= shape.dims[axis];
    }
    return ag_tensor_get(x, index);
}

Test(tensor_elementwise, operands_of_any_strides)
{
    static const ag_dtype dtypes[] = { AG_F32, AG_F64, AG_I64 };
    ag_context *c = ag_context_new(NULL);
    ag_random random = ag_random_stream(1, "elementwise", 0);
    for (int round = 0; round < 3000; round++) {
        ag_shape shape = random_shape(&random);
        ag_dtype dtype = dtypes[round % 3];
        ag_tensor a = random_view(c, &random, dtype, shape);
        ag_tensor b = random_view(c, &random, dtype, shape);
        ag_tensor mask = random_view(c, &random, dtypes[round / 3 % 3], shape);
        ag_tensor *y[5];
        for (int i = 0; i < 5; i++)
            y[i] = ag_tensor_new(c, AG_STEP, dtype, shape);
        bool floats = dtype != AG_I64;
        cr_assert(ag_compute_binary(c, AG_BINARY_EQUAL, &a, &b, y[0]));
        cr_assert(ag_compute_binary(c, floats ? AG_BINARY_SUB : AG_BINARY_GREATER, &a, &b, y[1]));
        cr_assert(ag_compute_where(c, &mask, &a, &b, y[2]));
        cr_assert(ag_compute_masked_fill(c, &a, &mask, -7, y[3]));
        cr_assert(!floats || ag_compute_unary(c, AG_UNARY_SHIFT, 2, &a, y[4]));
        for (int64_t i = 0; i < ag_shape_count(shape); i++) {
            double p = broadcast_element(&a, shape, i), q = broadcast_element(&b, shape, i);
            double chosen = broadcast_element(&mask, shape, i);
            cr_assert_eq(ag_tensor_at(y[0], i), p == q ? 1.0 : 0.0);
            cr_assert_eq(ag_tensor_at(y[1], i), floats ? p - q : p > q ? 1.0 : 0.0);
            cr_assert_eq(ag_tensor_at(y[2], i), chosen != 0 ? p : q);
            cr_assert_eq(ag_tensor_at(y[3], i), chosen != 0 ? -7.0 : p);
            cr_assert_eq(ag_tensor_at(y[4], i), floats ? p + 2 : 0.0);
        }
        ag_memory_reset_step(c);
    }
    cr_assert_eq(ag_context_finish(c), 0);
}

Test(tensor_elementwise, accumulate_adds_to_what_is_there)
{
    ag_context *c = ag_context_new(NULL);
    ag_tensor *x = ag_tensor_new(c, AG_STEP, AG_F32, AG_SHAPE(5, 7)), view;
    ag_tensor *y = ag_tensor_new(c, AG_STEP, AG_F32, AG_SHAPE(7, 5));
    for (int64_t i = 0; i < 35; i++) {
        ag_tensor_put(x, i, (double)i);
        ag_tensor_put(y, i, 1000);
    }
    ag_tensor_transpose(c, x, 0, 1, &view);
    cr_assert(ag_compute_accumulate(c, &view, y));
    cr_assert(ag_compute_accumulate(c, y, y));
    for (int64_t i = 0; i < 35; i++)
        cr_assert_eq(ag_tensor_at(y, i), 2 * (1000.0 + (double)(i % 5 * 7 + i / 5)));
    cr_assert_eq(ag_context_finish(c), 0);
}

Test(tensor_elementwise, nan_in_a_mask_is_not_0)
{
    ag_context *c = ag_context_new(NULL);
    double conditions[] = { NAN, 0, -0.0, 1e-310 };
    int64_t numbers[] = { 1, 2, 3, INT64_MAX }, results[4];
    ag_tensor mask = ag_tensor_over(conditions, AG_F64, AG_SHAPE(4));
    ag_tensor x = ag_tensor_over(numbers, AG_I64, AG_SHAPE(4));
    ag_tensor y = ag_tensor_over(results, AG_I64, AG_SHAPE(4));
    cr_assert(ag_compute_masked_fill(c, &x, &mask, 1e300, &y));
    cr_assert_eq(results[0], INT64_MAX);
    cr_assert_eq(results[1], 2);
    cr_assert_eq(results[2], 3);
    cr_assert_eq(results[3], INT64_MAX);
    numbers[0] = INT64_MAX - 1;
    x.dims[0] = y.dims[0] = 1;
    ag_tensor other = ag_tensor_over(&numbers[3], AG_I64, AG_SHAPE(1));
    cr_assert(ag_compute_binary(c, AG_BINARY_EQUAL, &x, &other, &y));
    cr_assert_eq(results[0], 0, "i64 must not be compared as doubles");
    cr_assert_eq(ag_context_finish(c), 0);
}

/* ---- Threads ---- */

static void *bits_with_threads(const char *isa, int threads, bool transposed)
{
    ag_context *c = context_for(isa, threads);
    if (!c)
        return NULL;
    ag_random random = ag_random_stream(2, "elementwise", 0);
    ag_tensor *base = ag_tensor_new(c, AG_STEP, AG_F32, AG_SHAPE(301, 301)), x = *base;
    ag_tensor *row = ag_tensor_new(c, AG_STEP, AG_F32, AG_SHAPE(301));
    ag_tensor *y = ag_tensor_new(c, AG_STEP, AG_F32, AG_SHAPE(301, 301));
    ag_random_fill_normal(c, &random, base, 0, 3);
    ag_random_fill_normal(c, &random, row, 0, 3);
    if (transposed)
        ag_tensor_transpose(c, base, 0, 1, &x);
    cr_assert(ag_compute_unary(c, AG_UNARY_GELU_TANH, 0, &x, y));
    cr_assert(ag_compute_binary(c, AG_BINARY_SILU_BACKWARD, y, row, y));
    cr_assert(ag_compute_accumulate(c, &x, y));
    void *bits = malloc(301 * 301 * sizeof(float));
    memcpy(bits, y->data, 301 * 301 * sizeof(float));
    cr_assert_eq(ag_context_finish(c), 0);
    return bits;
}

Test(tensor_elementwise, same_bits_for_any_number_of_threads)
{
    for (int s = 0; s < ISAS; s++)
        for (int transposed = 0; transposed < 2; transposed++) {
            void *one = bits_with_threads(isas[s], 1, transposed);
            for (int threads = 2; one && threads <= 3; threads++) {
                void *more = bits_with_threads(isas[s], threads, transposed);
                cr_assert_eq(memcmp(one, more, 301 * 301 * sizeof(float)), 0, "%s, %d threads",
                             isas[s], threads);
                free(more);
            }
            free(one);
        }
}
