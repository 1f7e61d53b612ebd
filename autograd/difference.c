/* Differences on a ladder of steps h, h / 2, h / 4, ..
 *
 * Two difference quotients with the same probes, of orders p and p - 2 (central) or
 * p - 1 (one-sided), differ by about the error of the lower one. The same quotient
 * at 2 h, h and h / 2 shows whether it converges. So the truncation error at h is bounded by
 *
 *   2 max(|D_high - D_low|,  |D(h) - D(h / 2)|,  |D(2 h) - D(h)| / 16) + R,
 *
 * R the rest of a series that converges slowly, as next to sqrt(t). No single one of the three
 * would do: where the function is steeper than h resolves, any of them can be small by chance.
 *
 * The rounding error has three parts, each a number over h: what is seen to scatter at
 * tiny steps, SAFETY times its standard deviation; what may hide, because a result near 1
 * does not show that it moved by less than epsilon; and, if small steps did not move a bit of L
 * though larger ones did, the smallest move that was seen, for so coarse are L's own steps. The
 * truncation error falls and the rounding error rises as h gets smaller; the h where their sum is
 * smallest is taken.
 */
#include "difference.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define SAFETY 6.0 /* rounding errors in units of their measured standard deviation */
#define RUNGS 46   /* down to 2^-45 of the first step */
#define MAX_POINTS 8
#define THOROUGH (1.0 / (1 << 20)) /* how small steps have to be, relative to the first */

/* A difference quotient: D = sum_i weights_i L(offsets_i h) / h. */
typedef struct stencil {
    int points;
    double offsets[MAX_POINTS], high[MAX_POINTS], low[MAX_POINTS];
} stencil;

/* Orders 8 and 6. */
static const stencil central = {
    .points = 8,
    .offsets = { 1, -1, 2, -2, 3, -3, 4, -4 },
    .high = { 4. / 5, -4. / 5, -1. / 5, 1. / 5, 4. / 105, -4. / 105, -1. / 280, 1. / 280 },
    .low = { 3. / 4, -3. / 4, -3. / 20, 3. / 20, 1. / 60, -1. / 60, 0, 0 },
};

/* Orders 6 and 5; L(0) drops out, because probes give L(t) - L(0). */
static const stencil right = {
    .points = 6,
    .offsets = { 1, 2, 3, 4, 5, 6 },
    .high = { 6, -15. / 2, 20. / 3, -15. / 4, 6. / 5, -1. / 6 },
    .low = { 5, -5, 10. / 3, -5. / 4, 1. / 5, 0 },
};

/* The function at t, from what is known already if it is. NULL if it failed. */
static const ag_probe *probe_at(ag_line *line, double t)
{
    for (int i = 0; i < line->count; i++)
        if (line->probes[i].t == t)
            return &line->probes[i];
    if (line->failed || line->count == AG_LINE_PROBES)
        return NULL;
    ag_probe *probe = &line->probes[line->count];
    *probe = (ag_probe){ .t = t };
    line->failed = !line->evaluate(line->user, probe);
    line->count += !line->failed;
    return line->failed ? NULL : probe;
}

/* One rung of the ladder. */
typedef struct rung {
    bool usable;
    double h, high, low;
    double noise; /* bound on the rounding error of high */
    double scale;
} rung;

static double sum_of_weights(const stencil *s)
{
    double sum = 0.0;
    for (int i = 0; i < s->points; i++)
        sum += fabs(s->high[i]);
    return sum;
}

static rung climb(ag_line *line, const stencil *s, double direction, double h,
                  const uint64_t *branches)
{
    rung r = { .h = h };
    double squares = 0.0, size = 0.0, total = 0.0;
    for (int i = 0; i < s->points; i++) {
        const ag_probe *p = probe_at(line, direction * s->offsets[i] * h);
        if (!p || !p->usable || p->branches != *branches)
            return r;
        r.high += s->high[i] * p->change / (direction * h);
        r.low += s->low[i] * p->change / (direction * h);
        squares += s->high[i] * s->high[i];
        size = fmax(size, p->size);
        total = fmax(total, p->total);
        r.scale = fmax(r.scale, p->movement / (fabs(s->offsets[i]) * h));
    }
    double scattered = SAFETY * sqrt(squares) * (line->noise * size + line->slack);
    double epsilon = line->epsilon > 0.0 ? line->epsilon : DBL_EPSILON;
    double hidden = sum_of_weights(s) * epsilon * total;
    r.noise = isfinite(line->noise) ? (scattered + hidden) / h : INFINITY;
    r.usable = true;
    return r;
}

static double largest(double a, double b, double c)
{
    return fmax(a, fmax(b, c));
}

/* Where halving the step takes less than half of the error away, as next to sqrt(t), the rest is a
 * geometric series: |D(h) - D(h / 2)| / (1 - q), q its ratio. Differences below the noise say
 * nothing about q; then it is what larger steps showed. */
static double slow_convergence(double before, double now, double noise, double *q)
{
    if (now > noise) {
        *q = now < before ? now / before : 0.0;
        if (now >= before)
            return INFINITY; /* it does not converge */
    }
    return *q > 0.5 ? fmax(now, noise) / (1.0 - *q) : 0.0;
}

/* What a rung says, given its neighbours. */
static ag_derivative conclude(const rung *coarse, const rung *middle, const rung *fine,
                              ag_side side, double *q)
{
    double before = fabs(coarse->high - middle->high), now = fabs(middle->high - fine->high);
    double truncation = 2.0 * largest(fabs(middle->high - middle->low), now, before / 16.0) +
                        slow_convergence(before, now, middle->noise + fine->noise, q);
    return (ag_derivative){ middle->high, truncation + middle->noise, middle->scale, middle->h,
                            side };
}

/* The one with the smallest error, unless a finer one contradicts it: a narrow bump next to 0
 * is seen by small steps only. */
static bool choose(const ag_derivative *all, int n, ag_derivative *derivative)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (all[i].error < all[best].error)
            best = i;
    for (int i = best + 1; i < n; i++)
        if (fabs(all[i].value - all[best].value) > all[i].error + all[best].error)
            return choose(all + best + 1, n - best - 1, derivative);
    if (n > 0)
        *derivative = all[best];
    return n > 0 && isfinite(derivative->error);
}

/* How coarse the steps are that L itself is made of: the smallest move that was seen, if L stood
 * still at the nearest probe; 0 if not. Only where the same branches were taken. */
static double quantum(const ag_line *line, uint64_t branches)
{
    double nearest = INFINITY, there = 0.0, smallest = INFINITY;
    for (int i = 0; i < line->count; i++) {
        const ag_probe *p = &line->probes[i];
        if (!p->usable || p->branches != branches)
            continue;
        if (fabs(p->t) < nearest || (fabs(p->t) == nearest && p->movement > 0.0)) {
            nearest = fabs(p->t);
            there = p->movement;
        }
        smallest = p->movement > 0.0 ? fmin(smallest, p->movement) : smallest;
    }
    return there == 0.0 && isfinite(smallest) ? smallest : 0.0;
}

bool ag_derivative_from(ag_line *line, ag_side side, bool like_zero, ag_derivative *derivative)
{
    const stencil *s = side == AG_SIDE_BOTH ? &central : &right;
    double direction = side == AG_SIDE_LEFT ? -1.0 : 1.0, h = line->first_step, least = INFINITY;
    double q = 0.0;
    rung coarse = { 0 }, middle = { 0 };
    ag_derivative all[RUNGS];
    uint64_t branches = line->branches;
    int n = 0;
    for (int i = 0; i < RUNGS && !line->failed; i++, h /= 2.0) {
        if (!like_zero) {
            const ag_probe *nearest = probe_at(line, direction * h);
            branches = nearest ? nearest->branches : branches;
        }
        rung fine = climb(line, s, direction, h, &branches);
        if (coarse.usable && middle.usable && fine.usable) {
            all[n] = conclude(&coarse, &middle, &fine, side, &q);
            least = fmin(least, all[n++].error);
            if (middle.noise > 2.0 * least && !(line->thorough && h > THOROUGH * line->first_step))
                break; /* it only gets larger */
        }
        coarse = middle;
        middle = fine;
    }
    for (int i = 0; i < n; i++)
        all[i].error += sum_of_weights(s) * quantum(line, branches) / all[i].step;
    return !line->failed && choose(all, n, derivative);
}

/* Of two that contradict each other the one that looked closer is right. */
static bool is_better(const ag_derivative *a, const ag_derivative *b)
{
    if (fabs(a->value - b->value) > a->error + b->error)
        return a->step < b->step;
    return a->error < b->error;
}

bool ag_derivative_at(ag_line *line, ag_derivative *derivative)
{
    bool found = ag_derivative_from(line, AG_SIDE_BOTH, true, derivative);
    if (found && derivative->step * 64.0 > line->first_step)
        return true; /* nothing in the way */
    for (ag_side side = AG_SIDE_RIGHT; side <= AG_SIDE_LEFT && !line->failed; side++) {
        ag_derivative other;
        if (ag_derivative_from(line, side, true, &other) &&
            (!found || is_better(&other, derivative))) {
            *derivative = other;
            found = true;
        }
    }
    return found && !line->failed;
}

bool ag_is_at_kink(ag_line *line)
{
    double t = ldexp(line->first_step, 1 - RUNGS);
    const ag_probe *above = probe_at(line, t), *below = above ? probe_at(line, -t) : NULL;
    return below && (above->branches != line->branches || below->branches != line->branches);
}

/* L(t) - L(-t) = 2 L' t + O(t^3): with t = i smallest, i = 1 .. 8, the third-order term
 * is below 2^-57, and what is left after a fit of a line is rounding. A kink nearer
 * than the first probe leaves it a line; one between the probes does not, and shows in their
 * branches. */
bool ag_measure_noise_at(ag_probe_function *evaluate, void *user, double smallest, double *noise,
                         bool *failed)
{
    enum { PAIRS = 8 };
    const double middle = (PAIRS + 1) / 2.0;
    double difference[PAIRS + 1], size = 0.0, slope = 0.0, mean = 0.0, squares = 0.0, rest = 0.0;
    uint64_t right_branches = 0, left_branches = 0;
    for (int i = 1; i <= PAIRS; i++) {
        ag_probe right_of = { .t = i * smallest }, left_of = { .t = -right_of.t };
        *failed = !evaluate(user, &right_of) || !evaluate(user, &left_of);
        if (*failed || !right_of.usable || !left_of.usable)
            return false;
        if (i > 1 && (right_of.branches != right_branches || left_of.branches != left_branches))
            return false;
        right_branches = right_of.branches;
        left_branches = left_of.branches;
        difference[i] = right_of.change - left_of.change;
        size = fmax(size, fmax(right_of.size, left_of.size));
        mean += difference[i] / PAIRS;
        slope += (i - middle) * difference[i];
        squares += (i - middle) * (i - middle);
    }
    slope /= squares;
    for (int i = 1; i <= PAIRS; i++) {
        double residual = difference[i] - mean - slope * (i - middle);
        rest = hypot(rest, residual); /* no square, which could overflow */
    }
    /* each difference has the errors of two values; two degrees of freedom went into the line */
    *noise = size > 0.0 ? rest / sqrt(2 * (PAIRS - 2)) / size : 0.0;
    return true;
}

/* Where the function is so steep that the third-order term shows at one distance, it is gone at
 * a 64th of it; rounding stays. */
bool ag_measure_noise(ag_probe_function *evaluate, void *user, double unit, double *noise,
                      bool *failed)
{
    bool found = false;
    *failed = false;
    for (int exponent = -22; exponent >= -46 && !*failed; exponent -= 6) {
        double closer;
        if (!ag_measure_noise_at(evaluate, user, ldexp(unit, exponent), &closer, failed))
            continue;
        bool settled = found && closer > *noise / 4.0;
        *noise = settled ? fmax(*noise, closer) : closer;
        found = true;
        if (settled)
            return true;
    }
    return found && !*failed;
}
