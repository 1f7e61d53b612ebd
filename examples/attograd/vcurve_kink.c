/* Where the steps of a V curve reach across a kink: there no order helps, and the error is no
 * truncation.
 *
 * At a kink the slope dL/dx jumps. Between two places that are halved again and again, always
 * keeping the half in which the slope changes more, a jump stays while any other change shrinks
 * with the distance. */
#include "cases.h"
#include "vcurve.h"

#include <math.h>

enum { FIRST_LOOK = 10, LAST_LOOK = 30 }; /* halvings */

/* One entry and the function, in f64. */
typedef struct line {
    const ag_case_setup *setup;
    ag_var input;
    int64_t k; /* the entry's place in it */
} line;

/* dL/dx where the entry is moved by t; NaN if the function failed. */
static double slope_at(const line *l, double t)
{
    const ag_case_setup *setup = l->setup;
    double before = ag_tensor_at(ag_value(l->input), l->k), slope = NAN;
    ag_tensor_put(ag_value_mutable(l->input), l->k, before + t);
    ag_var g, y = setup->f(setup->context, setup->inputs, setup->n, setup->user);
    if (ag_grad_from(y, ag_gradcheck_cotangent(0, y), &l->input, 1, &g, 0))
        slope = ag_tensor_at(ag_value(g), l->k);
    ag_tensor_put(ag_value_mutable(l->input), l->k, before);
    return slope;
}

/* Two places, and the slopes there. */
typedef struct span {
    double a, b, at_a, at_b;
} span;

static double change_of(const span *s)
{
    return fabs(s->at_b - s->at_a);
}

static void halve(const line *l, span *s)
{
    double middle = 0.5 * (s->a + s->b), slope = slope_at(l, middle);
    if (fabs(slope - s->at_a) > fabs(s->at_b - slope)) {
        s->b = middle;
        s->at_b = slope;
    } else {
        s->a = middle;
        s->at_a = slope;
    }
}

/* Whether the slope jumps in the span, which is narrowed down to where it does. Ten halvings leave
 * a thousandth of a change that is smooth, and far more at a pole; a jump stays, or is split once
 * by a place exactly on the kink, where a rule gives a slope between. */
static bool find_jump(const line *l, span *s)
{
    double first = change_of(s), size = fabs(s->at_a) + fabs(s->at_b);
    if (!(first > 1e-6 * size))
        return false;
    for (int i = 0; i < FIRST_LOOK; i++)
        halve(l, s);
    double look = change_of(s);
    if (!(look > first / 128.0) || !(look > 1e-6 * size))
        return false;
    for (int i = FIRST_LOOK; i < LAST_LOOK; i++)
        halve(l, s);
    double last = change_of(s);
    return last > 0.2 * look && last < 5.0 * look;
}

/* How far the nearest jump is to one side, up to four times the largest step. */
static double distance(const line *l, const ag_vcurve *curve, double side)
{
    span s = { .at_b = slope_at(l, 0.0) };
    for (int i = AG_V_STEPS - 1; i >= 0; i--) {
        double t = 4.0 * curve->steps[i];
        if (t < 4.0 / 8192.0 && i > 0)
            continue;
        span here = { s.b, side * t, s.at_b, slope_at(l, side * t) };
        s = here;
        if (find_jump(l, &here))
            return fabs(here.b);
    }
    return INFINITY;
}

double ag_vcurve_kink(const ag_vcurve *curve, const ag_case_setup *setup, ag_var input, int64_t k)
{
    line l = { setup, input, k };
    double nearest = fmin(distance(&l, curve, -1.0), distance(&l, curve, 1.0));
    return isfinite(nearest) ? nearest / 4.0 : 0.0;
}
