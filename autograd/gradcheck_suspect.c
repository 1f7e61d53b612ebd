/* What a wrong gradient looks like: a guess that helps to find the mistake. */
#include "gradcheck.h"

#include <math.h>

/* The entries of the input that is to blame: what came from backward, what it should be. */
typedef struct picture {
    const double *got, *want, *bound;
    double tolerance; /* that is part of the bound */
    int64_t count;
} picture;

/* There is a gradient, but nothing to compare it with. */
static bool is_unknown(const picture *p, int64_t k)
{
    return isnan(p->want[k]) && isfinite(p->got[k]);
}

/* A hypothesis says what came instead of want. Its residual is the sum of how far it is off;
 * infinite if some entry is farther off than the bounds allow. */
typedef struct hypothesis {
    const char *name;
    double residual;
} hypothesis;

/* How far off want is. Where got is right, no farther than that, though a tolerance may allow more:
 * there a hypothesis has to be as right. */
static double slack(const picture *p, int64_t k)
{
    double gap = fabs(p->got[k] - p->want[k]);
    double allowed = p->tolerance * fmax(fabs(p->got[k]), fabs(p->want[k]));
    return gap <= p->bound[k] ? fmax(gap, p->bound[k] - allowed) : p->bound[k];
}

static void compare(const picture *p, int64_t k, double predicted, double allowed, hypothesis *h)
{
    double gap = fabs(p->got[k] - predicted);
    if (!is_unknown(p, k))
        h->residual += gap <= allowed ? gap : INFINITY;
}

/* got = factor want */
static hypothesis multiple(const char *name, const picture *p, double factor)
{
    hypothesis h = { .name = name };
    for (int64_t k = 0; k < p->count; k++)
        compare(p, k, factor * p->want[k], 2.0 * (1.0 + fabs(factor)) * slack(p, k), &h);
    return h;
}

/* The entry that is best known, relative to its size; -1 if each may be zero. */
static int64_t best_known(const picture *p)
{
    double least = INFINITY;
    int64_t best = -1;
    for (int64_t k = 0; k < p->count; k++)
        if (p->bound[k] / fabs(p->want[k]) < least) {
            least = p->bound[k] / fabs(p->want[k]);
            best = k;
        }
    return best;
}

/* A factor near 1 is told by how far from 1 it is. */
static void write_factor(double factor, char *text, size_t size)
{
    double more = factor - 1.0;
    if (fabs(more) < 1e-3)
        snprintf(text, size, "factor 1 %c %.2g", more < 0.0 ? '-' : '+', fabs(more));
    else
        snprintf(text, size, "factor %.9g", factor);
}

/* The factor that the entry which is best known has; one number alone has always one, and where
 * that entry is right there is none. */
static hypothesis some_multiple(const picture *p, char *text, size_t size)
{
    int64_t best = best_known(p);
    if (p->count < 2 || best < 0 || fabs(p->got[best] - p->want[best]) <= p->bound[best])
        return (hypothesis){ .residual = INFINITY };
    double factor = p->got[best] / p->want[best];
    write_factor(factor, text, size);
    return multiple(text, p, factor);
}

/* Matrices of n rows and columns, each of them transposed. */
static hypothesis transposed(const picture *p, const ag_tensor *x)
{
    hypothesis h = { .name = "transposed" };
    int64_t n = x->rank >= 2 ? x->dims[x->rank - 1] : 0;
    if (n < 2 || x->dims[x->rank - 2] != n)
        h.residual = INFINITY;
    for (int64_t k = 0; k < p->count && isfinite(h.residual); k++) {
        int64_t matrix = k / (n * n), row = k / n % n, column = k % n;
        int64_t other = (matrix * n + column) * n + row;
        if (!is_unknown(p, other))
            compare(p, k, p->want[other], 2.0 * (slack(p, k) + slack(p, other)), &h);
    }
    return h;
}

static int64_t count_wrong(const picture *p)
{
    int64_t wrong = 0;
    for (int64_t k = 0; k < p->count; k++)
        wrong += !is_unknown(p, k) && !(fabs(p->got[k] - p->want[k]) <= p->bound[k]);
    return wrong;
}

/* Of the hypotheses that fit, the simplest of those with about the smallest residual: within wide
 * bounds many fit. */
void ag_check_name_suspect(ag_check *check)
{
    ag_gradcheck_report *report = check->report;
    const ag_tensor *x = ag_value(check->inputs[report->input]);
    int64_t first = check->first[report->input];
    const double *got = report->recorded ? check->recorded : check->usual;
    picture p = { got + first, check->numeric + first, check->bounds + first,
                  check->options.tolerance, ag_tensor_count(x) };
    char text[sizeof report->suspect];
    const hypothesis all[] = { multiple("zero", &p, 0.0), multiple("sign", &p, -1.0),
                               some_multiple(&p, text, sizeof text), transposed(&p, x) };
    hypothesis best = all[0];
    for (size_t i = 1; i < sizeof all / sizeof all[0]; i++)
        if (all[i].residual < best.residual / 4.0)
            best = all[i];
    int64_t wrong = count_wrong(&p);
    if (isfinite(best.residual))
        snprintf(report->suspect, sizeof report->suspect, "%s", best.name);
    else if (wrong < p.count)
        snprintf(report->suspect, sizeof report->suspect, "%lld of %lld entries", (long long)wrong,
                 (long long)p.count);
    else
        snprintf(report->suspect, sizeof report->suspect, "missing or wrong term");
}
