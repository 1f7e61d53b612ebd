/* Functions of complex numbers x + i y, for a y that may be as small as 1e-30: the imaginary
 * part of the result is y f'(x) with full relative precision, because no formula here adds it
 * to, or subtracts it from, anything of another size. Where the real function decides, by a sign or
 * by which is larger, the real part decides. */
#ifndef AG_KERNELS_COMPLEX_FUNCTIONS_H
#define AG_KERNELS_COMPLEX_FUNCTIONS_H

#include <complex.h>
#include <math.h>

/* x + i y; written as a sum, an infinite x would make y NaN. */
static inline double complex complex_of(double x, double y)
{
    union {
        double parts[2];
        double complex number;
    } both = { { x, y } };
    return both.number;
}

/* Outside of the real function's domain it is NaN, too. */
static inline double complex logarithm_c128(double complex z)
{
    return creal(z) < 0 ? complex_of(NAN, NAN) : clog(z);
}

static inline double complex complex_sqrt(double complex z)
{
    return creal(z) < 0 ? complex_of(NAN, NAN) : csqrt(z);
}

static inline double complex exponential_c128(double complex z)
{
    return creal(z) == -INFINITY ? complex_of(0, 0) : cexp(z);
}

/* log(1 + z) = log((1 + x)^2 + y^2) / 2 + i arg(1 + z) */
static inline double complex log_of_one_plus_c128(double complex z)
{
    double x = creal(z), y = cimag(z);
    return complex_of(0.5 * log1p(x * (2 + x) + y * y), atan2(y, 1 + x));
}

static inline double complex sine_c128(double complex z)
{
    return csin(z);
}

static inline double complex cosine_c128(double complex z)
{
    return ccos(z);
}

/* The library's works with (sinh x cosh x + i sin y cos y) / (sinh^2 x + cos^2 y), where
 * 1 - tanh^2 x would cancel. */
static inline double complex tanh_value_c128(double complex z)
{
    return ctanh(z);
}

/* Of two forms that are the same the one without overflow. */
static inline double complex sigmoid_value_c128(double complex z)
{
    if (creal(z) >= 0)
        return 1 / (1 + exponential_c128(-z));
    double complex e = exponential_c128(z);
    return e / (1 + e);
}

static inline double complex softplus_value_c128(double complex z)
{
    if (creal(z) <= 0)
        return log_of_one_plus_c128(exponential_c128(z));
    return z + log_of_one_plus_c128(exponential_c128(-z));
}

static inline double complex silu_value_c128(double complex z)
{
    return z * sigmoid_value_c128(z);
}

/* z (1 + tanh u) / 2 = z sigmoid(2 u) with u = sqrt(2 / pi) (z + 0.044715 z^3) */
static inline double complex gelu_tanh_value_c128(double complex z)
{
    const double a = 0.79788456080286535588, c = 0.044715;
    return z * sigmoid_value_c128(2 * a * (z * (1 + c * (z * z))));
}

/* r^p (cos p t + i sin p t), r and t the polar coordinates; real numbers below 0 are left to the
 * sign: (-z)^p = (-1)^p z^p for whole p. */
static inline double complex pow_value_c128(double complex z, double p)
{
    double sign = 1;
    if (p == 0)
        return 1;
    if (creal(z) < 0) {
        sign = p != floor(p) ? NAN : fmod(p, 2) == 0 ? 1 : -1;
        z = -z;
    }
    double length = pow(hypot(creal(z), cimag(z)), p), angle = p * atan2(cimag(z), creal(z));
    return complex_of(sign * length * cos(angle), sign * length * sin(angle));
}

/* Equal ones have half a share each, as in the gradient. */
static inline double complex complex_maximum(double complex a, double complex b)
{
    if (creal(a) == creal(b))
        return complex_of(creal(a), 0.5 * cimag(a) + 0.5 * cimag(b));
    return creal(a) > creal(b) || isnan(creal(a)) ? a : b;
}

static inline double complex complex_minimum(double complex a, double complex b)
{
    if (creal(a) == creal(b))
        return complex_of(creal(a), 0.5 * cimag(a) + 0.5 * cimag(b));
    return creal(a) < creal(b) || isnan(creal(a)) ? a : b;
}

#endif
