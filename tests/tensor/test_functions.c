/* The library's own exp, log, sin and their relatives against the C library's in
 * long double, for every instruction set that this processor has. In f32 at every
 * 4099th float (tests/exhaustive.c takes them all), in f64 at random numbers of
 * all sizes; in both around the points where a formula changes. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tensor/internal.h"

typedef struct function {
    const char *name;
    bool is_slope; /* kind is an ag_binary, whose second operand is 1 */
    int kind;
    long double (*value)(long double x);
    double bound_f32, bound_f64; /* in ulp of the result .. */
    double floor_f32, floor_f64; /* .. or of this, if the result is smaller */
} function;

static const long double SQRT_TAU = 2.50662827463100050241576528481104525L;

static long double sigmoid(long double x)
{
    return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x));
}

static long double softplus(long double x)
{
    return fmaxl(x, 0) + log1pl(expl(-fabsl(x)));
}

static long double normal_below(long double x)
{
    return 0.5L * erfcl(-x / sqrtl(2));
}

static long double gelu(long double x)
{
    return isinf(x) ? fmaxl(x, 0) : x * normal_below(x);
}

static long double gelu_inner(long double x)
{
    return 4 / SQRT_TAU * (x + (long double)0.044715 * x * x * x);
}

static long double gelu_tanh(long double x)
{
    return isinf(x) ? fmaxl(x, 0) : x * sigmoid(gelu_inner(x));
}

static long double silu(long double x)
{
    return isinf(x) ? fmaxl(x, 0) : x * sigmoid(x);
}

static long double gelu_slope(long double x)
{
    return isinf(x) ? x > 0 : normal_below(x) + x * expl(-0.5L * x * x) / SQRT_TAU;
}

static long double gelu_tanh_slope(long double x)
{
    long double u = gelu_inner(x), rise = 4 / SQRT_TAU * (1 + 3 * (long double)0.044715 * x * x);
    return isinf(u) ? x > 0 : sigmoid(u) + x * rise * sigmoid(u) * sigmoid(-u);
}

static long double silu_slope(long double x)
{
    return isinf(x) ? x > 0 : sigmoid(x) + x * sigmoid(x) * sigmoid(-x);
}

/* gelu_tanh in f64 rounds 2 u before it takes exp of it, which multiplies that
 * error by 2 u; the ends of silu's left tail round exp to a subnormal number. */
static const function functions[] = {
    { "exp", false, AG_UNARY_EXP, expl, 1.5, 1.5, 0, 0 },
    { "log", false, AG_UNARY_LOG, logl, 1, 1, 0, 0 },
    { "sin", false, AG_UNARY_SIN, sinl, 0.6, 1, 0, 0 },
    { "cos", false, AG_UNARY_COS, cosl, 0.6, 1, 0, 0 },
    { "tanh", false, AG_UNARY_TANH, tanhl, 2, 1.5, 0, 0 },
    { "erf", false, AG_UNARY_ERF, erfl, 0.6, 1.5, 0, 0 },
    { "erfc", false, AG_UNARY_ERFC, erfcl, 0.6, 7, 0, 0 },
    { "sigmoid", false, AG_UNARY_SIGMOID, sigmoid, 0.6, 2.5, 0, 0 },
    { "softplus", false, AG_UNARY_SOFTPLUS, softplus, 2, 2, 0, 0 },
    { "gelu", false, AG_UNARY_GELU, gelu, 2, 7, 0, 0 },
    { "gelu_tanh", false, AG_UNARY_GELU_TANH, gelu_tanh, 0.6, 2000, 0, 0 },
    { "silu", false, AG_UNARY_SILU, silu, 0.6, 3, 0, 0x1p-1012 },
    { "gelu'", true, AG_BINARY_GELU_BACKWARD, gelu_slope, 2.5, 8, 0x1p-1, 0x1p-2 },
    { "gelu_tanh'", true, AG_BINARY_GELU_TANH_BACKWARD, gelu_tanh_slope, 0.6, 8, 0x1p-6, 0x1p-2 },
    { "silu'", true, AG_BINARY_SILU_BACKWARD, silu_slope, 0.6, 8, 0x1p-6, 0x1p-2 },
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static const char *const isas[] = { "generic", "avx2", "avx512", "neon" };
enum { ISAS = 4 };

/* NULL where this build or processor does not have the instruction set. */
static ag_context *context_for(const char *isa)
{
    setenv("AG_ISA", isa, 1);
    ag_context *context = ag_context_new(NULL);
    if (ag_status(context) == AG_ERR_ARGUMENT) {
        ag_context_free(context);
        return NULL;
    }
    return context;
}

/* ---- Errors ---- */

static long double ulp_of(ag_dtype dtype, long double x, double floor)
{
    int exponent;
    long double size = fmaxl(fabsl(x), (long double)floor);
    frexpl(size, &exponent);
    return dtype == AG_F32 ? ldexpl(1, exponent < -125 ? -149 : exponent - 24)
                           : ldexpl(1, exponent < -1021 ? -1074 : exponent - 53);
}

/* In ulp; 0 if y is what the true value rounds to, inf where one of them is NaN. */
static double error_of(ag_dtype dtype, double y, long double y_true, double floor)
{
    double rounded = dtype == AG_F32 ? (double)(float)y_true : (double)y_true;
    if (isnan(y) || isnan(rounded))
        return isnan(y) && isnan(rounded) ? 0 : INFINITY;
    if (y == rounded)
        return 0;
    return (double)(fabsl((long double)y - y_true) / ulp_of(dtype, y_true, floor));
}

typedef struct largest {
    double error, at;
} largest;

enum { MANY = 4096 };

/* Fewer numbers where no processor computes in long double. */
#if LDBL_MANT_DIG > 64
enum { FLOAT_STEP = 1009 * 1009, DOUBLE_BLOCKS = 1 };
#else
enum { FLOAT_STEP = 4099, DOUBLE_BLOCKS = 64 };
#endif

/* f at the first n of x, which has MANY places. */
static void compare(ag_context *context, const function *f, const ag_tensor *x, int n,
                    largest *worst)
{
    ag_tensor *one = ag_tensor_new(context, AG_STEP, x->dtype, AG_SHAPE(MANY));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, x->dtype, AG_SHAPE(MANY));
    ag_tensor_fill(context, one, 1);
    if (f->is_slope)
        cr_assert(ag_compute_binary(context, (ag_binary)f->kind, x, one, y));
    else
        cr_assert(ag_compute_unary(context, (ag_unary)f->kind, 0, x, y));
    double floor = x->dtype == AG_F32 ? f->floor_f32 : f->floor_f64;
    for (int i = 0; i < n; i++) {
        double at = ag_tensor_at(x, i);
        double error = error_of(x->dtype, ag_tensor_at(y, i), f->value((long double)at), floor);
        if (error > worst->error)
            *worst = (largest){ error, at };
    }
    ag_memory_recycle(context, one->data, ag_tensor_bytes(one));
    ag_memory_recycle(context, y->data, ag_tensor_bytes(y));
}

static void expect_bound(ag_context *context, const function *f, ag_dtype dtype, largest worst)
{
    double bound = dtype == AG_F32 ? f->bound_f32 : f->bound_f64;
    cr_log_info("%s %s %-10s %.3f ulp at %.17g", ag_context_isa(context), ag_dtype_name(dtype),
                f->name, worst.error, worst.at);
    cr_expect(worst.error <= bound, "%s %s: %s is off by %.3f ulp at %.17g",
              ag_context_isa(context), ag_dtype_name(dtype), f->name, worst.error, worst.at);
}

/* ---- Where to look ---- */

/* Ends of ranges, and where formulas change: each with its neighbours. */
static const double special_points[] = {
    0,      0x1p-149,   0x1p-126,  0x1p-1074,  0x1p-1022,  0x1p-24,   0x1p-53,   0.41421356,
    0.55,   0.5,        1,         1.41421356, 0.70710678, 0.8813736, 1.2784645, 0.7517916,
    2,      3.14159265, 1.5707963, 5.5,        9.19,       10.05,     13.2,      14.5,
    17.3,   26.5,       27.22,     36.7,       38.5,       40,        88.72,     87.3,
    103.97, 105,        709.78,    708.4,      745.13,     746,       1000,      1e5,
    1e10,   1e22,       1e30,      3.4e38,     0x1p127,    1e100,     1e300,     INFINITY,
};

static void check_special_points(ag_context *context, const function *f, ag_dtype dtype,
                                 largest *worst)
{
    ag_tensor *x = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(MANY));
    for (size_t i = 0; i < sizeof special_points / sizeof *special_points; i++) {
        int n = 0;
        for (int sign = -1; sign <= 1; sign += 2)
            for (int up = -1; up <= 1; up += 2) {
                double at = sign * special_points[i];
                for (int step = 0; step < 100; step++) {
                    ag_tensor_put(x, n++, at);
                    at = dtype == AG_F32 ? (double)nextafterf((float)at, (float)up * INFINITY)
                                         : nextafter(at, up * (double)INFINITY);
                }
            }
        ag_tensor_put(x, n++, NAN);
        compare(context, f, x, n, worst);
    }
}

static void check_floats(ag_context *context, const function *f)
{
    largest worst = { 0, 0 };
    ag_tensor *x = ag_tensor_new(context, AG_STEP, AG_F32, AG_SHAPE(MANY));
    for (uint64_t bits = 0; bits < (uint64_t)1 << 32;) {
        for (int i = 0; i < MANY; i++, bits += FLOAT_STEP) {
            uint32_t low = (uint32_t)bits;
            memcpy((float *)x->data + i, &low, sizeof low);
        }
        compare(context, f, x, MANY, &worst);
    }
    check_special_points(context, f, AG_F32, &worst);
    expect_bound(context, f, AG_F32, worst);
}

/* Half of them within -50 .. 50, the others of any exponent. */
static void check_doubles(ag_context *context, const function *f)
{
    largest worst = { 0, 0 };
    ag_random random = ag_random_stream(1, f->name, 0);
    ag_tensor *x = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(MANY));
    for (int block = 0; block < DOUBLE_BLOCKS; block++) {
        for (int i = 0; i < MANY; i++) {
            double at = 100 * ag_random_uniform(&random) - 50;
            if (i % 2 == 0)
                at = ldexp(at, (int)ag_random_integer(&random, 2100) - 1070);
            else if (i % 4 == 1)
                at = ldexp(at, (int)ag_random_integer(&random, 9) - 8);
            ag_tensor_put(x, i, at);
        }
        compare(context, f, x, MANY, &worst);
    }
    check_special_points(context, f, AG_F64, &worst);
    expect_bound(context, f, AG_F64, worst);
}

static void check_all(const char *isa, void (*check)(ag_context *, const function *))
{
    ag_context *context = context_for(isa);
    for (int i = 0; context && i < FUNCTIONS; i++) {
        check(context, &functions[i]);
        ag_memory_reset_step(context);
    }
    cr_expect(!context || ag_context_finish(context) == 0);
}

Test(functions, many_floats)
{
    for (int s = 0; s < ISAS; s++)
        check_all(isas[s], check_floats);
}

Test(functions, many_doubles)
{
    for (int s = 0; s < ISAS; s++)
        check_all(isas[s], check_doubles);
}

/* ---- Every place of a loop, and every stride, gives the same bits ---- */

static void check_places(ag_context *context, const function *f, ag_dtype dtype)
{
    enum { N = 101 };
    ag_random random = ag_random_stream(2, f->name, 0);
    ag_tensor *base = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(N, 3)), view, *y[2];
    ag_random_fill_normal(context, &random, base, 0, 3);
    if (f->kind == AG_UNARY_LOG && !f->is_slope)
        cr_assert(ag_compute_unary(context, AG_UNARY_ABS, 0, base, base));
    cr_assert(ag_tensor_slice(context, base, 1, 1, 2, 1, &view));
    ag_tensor *x = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(N, 1));
    ag_tensor *one = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(N, 1));
    cr_assert(ag_tensor_copy(context, x, &view));
    ag_tensor_fill(context, one, 1);
    const ag_tensor *from[2] = { x, &view };
    for (int k = 0; k < 2; k++) {
        y[k] = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(N, 1));
        if (f->is_slope)
            cr_assert(ag_compute_binary(context, (ag_binary)f->kind, from[k], one, y[k]));
        else
            cr_assert(ag_compute_unary(context, (ag_unary)f->kind, 0, from[k], y[k]));
    }
    cr_expect(memcmp(y[0]->data, y[1]->data, N * ag_dtype_size(dtype)) == 0, "%s %s: %s of a view",
              ag_context_isa(context), ag_dtype_name(dtype), f->name);
    for (int64_t i = 0; i < N; i++) { /* alone: not in a vector loop */
        ag_tensor x_i, one_i, *y_i = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(1, 1));
        cr_assert(ag_tensor_slice(context, x, 0, i, i + 1, 1, &x_i));
        cr_assert(ag_tensor_slice(context, one, 0, i, i + 1, 1, &one_i));
        if (f->is_slope)
            cr_assert(ag_compute_binary(context, (ag_binary)f->kind, &x_i, &one_i, y_i));
        else
            cr_assert(ag_compute_unary(context, (ag_unary)f->kind, 0, &x_i, y_i));
        cr_expect_eq(ag_tensor_at(y_i, 0), ag_tensor_at(y[0], i), "%s %s: %s at %d alone",
                     ag_context_isa(context), ag_dtype_name(dtype), f->name, (int)i);
    }
    ag_memory_reset_step(context);
}

Test(functions, every_place_gives_the_same_bits)
{
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s]);
        for (int i = 0; context && i < FUNCTIONS; i++) {
            check_places(context, &functions[i], AG_F32);
            check_places(context, &functions[i], AG_F64);
        }
        cr_expect(!context || ag_context_finish(context) == 0);
    }
}

/* ---- Powers ---- */

static void check_power(ag_context *context, ag_dtype dtype, double p)
{
    largest worst = { 0, 0 };
    ag_random random = ag_random_stream(1, "pow", 0);
    ag_tensor *x = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(MANY));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(MANY));
    for (int i = 0; i < MANY; i++) {
        double at = 4 * ag_random_uniform(&random) - 1;
        ag_tensor_put(x, i, i % 2 ? at : ldexp(at, (int)ag_random_integer(&random, 256) - 128));
    }
    cr_assert(ag_compute_unary(context, AG_UNARY_POW, p, x, y));
    for (int i = 0; i < MANY; i++) {
        double at = ag_tensor_at(x, i);
        long double y_true = powl((long double)at, dtype == AG_F32 ? (long double)(float)p : p);
        double error = error_of(dtype, ag_tensor_at(y, i), y_true, 0);
        if (error > worst.error)
            worst = (largest){ error, at };
    }
    cr_expect(worst.error <= 2, "%s %s: pow(%.17g, %g) is off by %.3f ulp", ag_context_isa(context),
              ag_dtype_name(dtype), worst.at, p, worst.error);
    ag_memory_reset_step(context);
}

/* All pairs of these must be as C says. */
static void check_special_powers(ag_context *context, ag_dtype dtype)
{
    static const double values[] = { 0, -0.0, 1,    -1,    0.5,      -0.5,      2,  -2,
                                     3, -3,   1e30, -1e30, INFINITY, -INFINITY, NAN };
    enum { VALUES = sizeof values / sizeof *values };
    ag_tensor *x = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(VALUES));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, dtype, AG_SHAPE(VALUES));
    for (int k = 0; k < VALUES; k++)
        ag_tensor_put(x, k, values[k]);
    for (int p = 0; p < VALUES; p++) {
        cr_assert(ag_compute_unary(context, AG_UNARY_POW, values[p], x, y));
        for (int k = 0; k < VALUES; k++) {
            double got = ag_tensor_at(y, k), want = pow(values[k], values[p]);
            want = dtype == AG_F32 ? (double)(float)want : want;
            bool same =
                isnan(want) ? isnan(got) : fabs(got - want) <= 1e-6 * fabs(want) || got == want;
            cr_expect(same && (isnan(want) || signbit(got) == signbit(want)),
                      "%s %s: pow(%g, %g) = %g, not %g", ag_context_isa(context),
                      ag_dtype_name(dtype), values[k], values[p], got, want);
        }
    }
    ag_memory_reset_step(context);
}

Test(functions, powers)
{
    static const double powers[] = { 0,  1,  2,   3,    4,   5,   8,    -1, -2,
                                     -3, -4, 0.5, -0.5, 1.5, 0.1, -2.7, 33, 1e-3 };
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s]);
        for (int d = 0; context && d < 2; d++) {
            ag_dtype dtype = d ? AG_F64 : AG_F32;
            check_special_powers(context, dtype);
            for (size_t i = 0; i < sizeof powers / sizeof *powers; i++)
                check_power(context, dtype, powers[i]);
        }
        cr_expect(!context || ag_context_finish(context) == 0);
    }
}

/* ---- The sign of zero ---- */

Test(functions, of_zero)
{
    static const struct {
        ag_unary kind;
        double at_zero, at_minus_zero;
    } cases[] = {
        { AG_UNARY_SIN, 0.0, -0.0 },
        { AG_UNARY_TANH, 0.0, -0.0 },
        { AG_UNARY_ERF, 0.0, -0.0 },
        { AG_UNARY_GELU, 0.0, -0.0 },
        { AG_UNARY_GELU_TANH, 0.0, -0.0 },
        { AG_UNARY_SILU, 0.0, -0.0 },
        { AG_UNARY_EXP, 1, 1 },
        { AG_UNARY_COS, 1, 1 },
        { AG_UNARY_ERFC, 1, 1 },
    };
    for (int s = 0; s < ISAS; s++) {
        ag_context *context = context_for(isas[s]);
        for (int d = 0; context && d < 2; d++)
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                ag_tensor *x = ag_tensor_new(context, AG_STEP, d ? AG_F64 : AG_F32, AG_SHAPE(2));
                ag_tensor_put(x, 1, -0.0);
                cr_assert(ag_compute_unary(context, cases[i].kind, 0, x, x));
                double plus = ag_tensor_at(x, 0), minus = ag_tensor_at(x, 1);
                cr_expect(plus == cases[i].at_zero && !signbit(plus), "%d", (int)i);
                cr_expect(minus == cases[i].at_minus_zero &&
                              !signbit(minus) == !signbit(cases[i].at_minus_zero),
                          "%s %d", isas[s], (int)i);
            }
        cr_expect(!context || ag_context_finish(context) == 0);
    }
}
