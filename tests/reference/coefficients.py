"""Finds the polynomials of the library's own functions.

Each polynomial takes the values of a smooth function at the Chebyshev nodes of
an interval, which comes within a small factor of the best polynomial of that
degree. It is found with 60 digits; its coefficients are then rounded to the
type that will compute with them, and the error of the rounded polynomial,
relative to the function that it serves, is printed beside it.

    python3 tests/reference/coefficients.py > tensor/kernels/coefficients.h

needs mpmath.
"""

from mpmath import cos, erf, erfc, exp, log, lu_solve, matrix, mp, mpf, pi, sin, sqrt, tanh

mp.dps = 60
GELU_MIDDLE = mpf("0.388811022043")  # where the constant of gelu_terms_f32 is nearly a float

HEADER = """\
/* Coefficients of the polynomials in functions.inc, the highest power first.
 * Written by tests/reference/coefficients.py; beside each: how far the function
 * made of it is from the true one, were its arithmetic exact. */
#ifndef AG_KERNELS_COEFFICIENTS_H
#define AG_KERNELS_COEFFICIENTS_H
"""

FOOTER = "\n#endif"


def interpolate(f, a, b, n):
    """The n coefficients, the constant first."""
    nodes = [(a + b) / 2 + (b - a) / 2 * cos(pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    powers, values = matrix(n, n), matrix(n, 1)
    for i, x in enumerate(nodes):
        values[i] = f(x)
        for j in range(n):
            powers[i, j] = x**j
    solution = lu_solve(powers, values)
    return [solution[j] for j in range(n)]


def rounded(x, bits):
    with mp.workprec(bits):
        return +x


def horner(coefficients, x):
    value = mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def polynomial(name, f, share, interval, n, ctype):
    """Prints the polynomial of n terms for f; share(x) is how much a relative
    error of f at x counts in the function that is made of it."""
    bits = 24 if ctype == "float" else 53
    a, b = map(mpf, interval)
    coefficients = [rounded(c, bits) for c in interpolate(f, a, b, n)]
    points = [a + (b - a) * (i + mpf(1) / 3) / 1000 for i in range(1000)]
    error = max(abs((horner(coefficients, x) / f(x) - 1) * share(x)) for x in points)
    digits, suffix = (9, "f") if ctype == "float" else (17, "")
    print(f"\n/* {float(interval[0]):g} .. {float(interval[1]):g}, 2^{mp.nstr(log(error, 2), 3)} */")
    print(f"static const {ctype} {name}[] = {{")
    for c in reversed(coefficients):
        print(f"    {mp.nstr(c, digits, strip_zeros=False, min_fixed=1, max_fixed=0)}{suffix},")
    print("};")


def exp_rest(r):
    """exp r = 1 + r + r^2 exp_rest(r)"""
    if abs(r) < mpf(10) ** -20:
        return mpf(1) / 2
    return (exp(r) - 1 - r) / r**2


def log_rest(z):
    """log((1 + s) / (1 - s)) = 2 s + s z log_rest(z), z = s^2"""
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) / s - 2) / z


def tanh_rest(z):
    """tanh x = x + x z tanh_rest(z), z = x^2"""
    x = sqrt(z)
    return (tanh(x) / x - 1) / z


def erf_rest(z):
    """erf x = x + x erf_rest(z), z = x^2"""
    x = sqrt(z)
    return erf(x) / x - 1


def tail(t, middle):
    """erfc(x / sqrt 2) / 2 = exp(-x^2 / 2) tail(t) / (x + middle), t = (x - middle) / (x + middle)"""
    x = middle * (1 + t) / (1 - t)
    return exp(x * x / 2) * erfc(x / sqrt(mpf(2))) / 2 * (x + middle)


def tail_of_share(u):
    """tail(t, 4) as a function of u = s - GELU_MIDDLE, s = x / (x + 4) = (1 + t) / 2"""
    return tail(2 * (u + GELU_MIDDLE) - 1, 4)


def sine(z):
    """sin(pi/2 r) = r sine(z), z = r^2"""
    r = sqrt(z)
    return sin(pi / 2 * r) / r


def cosine(z):
    return cos(pi / 2 * sqrt(z))


def main():
    print(HEADER, end="")
    half = log(mpf(2)) / 2 * mpf("1.001")
    exp_share = lambda r: r**2 * exp_rest(r) / exp(r)
    third = (3 - 2 * sqrt(mpf(2))) ** 2 * mpf("1.001")  # s = (sqrt 2 - 1) / (sqrt 2 + 1)
    log_share = lambda z: z * log_rest(z) / 2
    tanh_share = lambda z: z * tanh_rest(z)
    all_of_it = lambda x: 1

    def tail_of(middle, end):
        interval = (-1, (mpf(end) - middle) / (mpf(end) + middle))
        return lambda t: tail(t, middle), all_of_it, interval

    polynomial("exp_terms_f64", exp_rest, exp_share, (-half, half), 10, "double")
    polynomial("exp_terms_f32", exp_rest, exp_share, (-half, half), 5, "float")
    polynomial("gelu_exp_terms_f32", exp_rest, exp_share, (-half, half), 6, "float")
    polynomial("wide_exp2_terms_f32", lambda f: mpf(2) ** f, all_of_it, ("-0.501", "0.501"), 7, "double")
    polynomial("log_terms_f32", log_rest, log_share, (0, third), 3, "float")
    polynomial("log_terms_f64", log_rest, log_share, (0, third), 7, "double")
    polynomial("tanh_terms_f32", tanh_rest, tanh_share, (0, "0.3025"), 5, "float")
    polynomial("tanh_terms_f64", tanh_rest, tanh_share, (0, "0.3025"), 12, "double")
    polynomial("erf_terms_f32", erf_rest, erf_rest, (0, 1), 7, "double")
    polynomial("erf_terms_f64", erf_rest, erf_rest, (0, 1), 13, "double")
    polynomial("tail_terms_f32", *tail_of(4, "14.6"), 11, "double")
    gelu_end = mpf("14.6") / mpf("18.6")
    interval = (-GELU_MIDDLE, gelu_end - GELU_MIDDLE)
    polynomial("gelu_terms_f32", tail_of_share, all_of_it, interval, 11, "float")
    polynomial("tail_terms_f64", *tail_of(5, 39), 24, "double")
    polynomial("sin_terms_f32", sine, all_of_it, (0, "0.2501"), 5, "double")
    polynomial("cos_terms_f32", cosine, all_of_it, (0, "0.2501"), 5, "double")
    print(FOOTER)


main()
