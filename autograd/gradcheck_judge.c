/* The verdict about one entry or direction, from what differences and complex steps say of it. */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* What the gradient itself may be off by. */
#define BACKWARD_ROUNDINGS 32.0 /* units of eps times the terms that it is a sum of .. */
#define ROUNDING_SAFETY 8.0     /* .. and its spread, as measured, times this .. */
#define SINGLE_ROUNDINGS 4.0    /* .. or so many units of f32's eps */
#define WIDE 4.0                /* a bound that is wide is less sure, too: so many times it */
#define STEP_SAFETY 2.0         /* a complex step has rounding errors like the gradient's */

/* ---- Judging ---- */

/* The rounding error of the gradient along a direction; scale: of what it is a sum. */
static double rounding_along(const ag_check *check, const ag_direction *direction, double scale)
{
    double spread = 0.0;
    if (check->single)
        return SINGLE_ROUNDINGS * FLT_EPSILON * scale;
    for (int64_t k = direction->from; k < direction->to; k++)
        spread = hypot(spread, check->rounding[k]);
    return ROUNDING_SAFETY * spread + BACKWARD_ROUNDINGS * DBL_EPSILON * scale;
}

/* What the user's tolerance allows besides the bound. */
static double allowance(const ag_check *check, double analytic, double numeric)
{
    double tolerance = check->options.tolerance;
    return tolerance > 0.0 ? tolerance * fmax(fabs(analytic), fabs(numeric)) : 0.0;
}

/* The numeric derivative as an interval: from the left and the right of a kink it has two ends. */
typedef struct interval {
    double low, high, middle, bound;
} interval;

static interval interval_of(const ag_check *check, const ag_direction *direction,
                            const ag_measurement *m)
{
    if (!m->kink) {
        double bound = m->at.error + rounding_along(check, direction, m->at.scale);
        return (interval){ m->at.value - bound, m->at.value + bound, m->at.value, bound };
    }
    const ag_derivative *l = &m->left, *r = &m->right;
    double bound =
        fmax(l->error, r->error) + rounding_along(check, direction, fmax(l->scale, r->scale));
    return (interval){ fmin(l->value, r->value) - bound, fmax(l->value, r->value) + bound,
                       0.5 * (l->value + r->value), bound };
}

/* Of what the derivative is a sum. */
static double scale_of(const ag_measurement *m)
{
    return m->kink ? fmax(m->left.scale, m->right.scale) : m->at.scale;
}

/* Whether the interval is narrow against what the derivative is a sum of. */
static bool is_narrow(const ag_check *check, const ag_measurement *m, const interval *numeric,
                      double analytic)
{
    double scale = scale_of(m);
    if (scale == 0.0) /* not a bit of the result moves */
        return analytic == 0.0;
    return numeric->bound <= check->options.resolution * fmax(scale, fabs(numeric->middle));
}

/* Along a direction through many entries the interval is as wide as all their kinks together, and
 * what lies in it need not be right. */
static bool is_small_kink(const ag_check *check, const ag_measurement *m, const interval *numeric)
{
    double scale = fmax(m->left.scale, m->right.scale);
    return numeric->high - numeric->low <= check->options.resolution * scale;
}

/* The gradient along a direction. */
static double along(const ag_check *check, const ag_direction *direction, const double *gradient)
{
    double sum = 0.0;
    for (int64_t k = direction->from; k < direction->to; k++)
        sum += ag_direction_sign(check, direction, k) * gradient[k];
    return sum;
}

static ag_judgement judge(const ag_check *check, const ag_direction *direction,
                          const ag_measurement *m, const double *gradient)
{
    double analytic = along(check, direction, gradient);
    bool one = direction->to - direction->from == 1;
    ag_judgement judgement = { .verdict = AG_VERDICT_INCONCLUSIVE,
                               .analytic = analytic,
                               .numeric = NAN,
                               .bound = INFINITY,
                               .method = AG_GRADCHECK_DIFFERENCES,
                               .complex_step = NAN };
    if (isnan(analytic))
        judgement.verdict = AG_VERDICT_FAIL;
    if (!m->found) /* or infinite, as that of sqrt(x) at 0 */
        return judgement;
    interval numeric = interval_of(check, direction, m);
    double allowed = allowance(check, analytic, numeric.middle);
    judgement.numeric = numeric.middle;
    judgement.h = m->kink ? fmin(m->left.step, m->right.step) : m->at.step;
    judgement.bound = (numeric.high - numeric.low) / 2.0 + allowed;
    judgement.narrow = is_narrow(check, m, &numeric, analytic);
    double gap = fabs(analytic - numeric.middle);
    if (m->kink && gap > judgement.bound && gap <= judgement.bound + 2.0 * m->bend)
        return judgement; /* several kinks at once, which may cancel in the derivatives of L */
    if (!(gap <= (judgement.narrow ? 1.0 : WIDE) * judgement.bound))
        judgement.verdict = AG_VERDICT_FAIL;
    else if (judgement.narrow && !m->kink)
        judgement.verdict = AG_VERDICT_PASS;
    else if (judgement.narrow && (one || is_small_kink(check, m, &numeric)))
        judgement.verdict = AG_VERDICT_KINK;
    return judgement;
}

/* How far the gradient at 0 is from what its neighbours at a spacing of h / 2 suggest,
 * g_0 ~ (56 (g_1 + g_-1) - 28 (g_2 + g_-2) + 8 (g_3 + g_-3) - (g_4 + g_-4)) / 70. Differences with
 * that step cannot see a narrow bump of L next to 0, such as the last traces of a saturated
 * softmax, but the gradient sees it, and then it is not smooth. */
static bool measure_roughness(ag_check *check, const ag_direction *direction, double h,
                              unsigned flags, double *roughness)
{
    static const double weights[] = { -1., 56. / 70, -28. / 70, 8. / 70, -1. / 70 };
    bool going = true;
    double sum = 0.0;
    for (int i = -4; i <= 4 && going; i++) {
        ag_memory_mark memory = ag_memory_mark_step(check->context);
        ag_check_move(check, direction, 0.5 * i * h);
        const double *gradient = ag_check_gradients(check, flags);
        going = gradient != NULL;
        sum += going ? weights[abs(i)] * along(check, direction, gradient) : 0.0;
        ag_memory_rewind_step(check->context, memory);
    }
    ag_check_put_back(check);
    *roughness = 2.0 * fabs(sum);
    return going;
}

/* A measurement can be wrong by chance, where the function is steeper than the steps
 * resolve. So a failure must show with other steps as well, and the gradient must be as smooth
 * as the differences say that the function is. */
static bool judge_direction(ag_check *check, const ag_direction *direction, const double *gradient,
                            ag_measurement *m, ag_judgement *judgement)
{
    *judgement = judge(check, direction, m, gradient);
    if (judgement->verdict != AG_VERDICT_FAIL)
        return true;
    bool going = ag_check_measure(check, direction, true, m);
    *judgement = judge(check, direction, m, gradient);
    if (!going || judgement->verdict != AG_VERDICT_FAIL || !m->found || m->kink)
        return going;
    double roughness;
    unsigned flags = gradient == check->usual ? 0 : AG_CREATE_GRAPH;
    going = measure_roughness(check, direction, m->at.step, flags, &roughness);
    m->at.error += isfinite(roughness) ? roughness : 0.0;
    *judgement = judge(check, direction, m, gradient);
    return going;
}

/* ---- The complex step ---- */

static double size_along(const ag_direction *direction, const double *gradient)
{
    double size = 0.0;
    for (int64_t k = direction->from; k < direction->to; k++)
        size = hypot(size, gradient[k]); /* no square, which could underflow */
    return size;
}

static ag_judgement judge_step(const ag_check *check, const ag_direction *direction,
                               const ag_complex_step *step, const double *gradient)
{
    double analytic = along(check, direction, gradient), size = size_along(direction, gradient);
    double scale = fmax(step->scale, isfinite(size) ? size : 0.0),
           gap = fabs(analytic - step->value);
    ag_judgement judgement = { .verdict = AG_VERDICT_INCONCLUSIVE,
                               .analytic = analytic,
                               .numeric = step->value,
                               .method = AG_GRADCHECK_COMPLEX,
                               .complex_step = step->value };
    judgement.bound = STEP_SAFETY * rounding_along(check, direction, scale) + step->error;
    judgement.narrow = judgement.bound <= check->options.resolution * step->scale;
    judgement.bound += allowance(check, analytic, step->value);
    if (isinf(analytic) && judgement.bound > fabs(step->value))
        return judgement; /* as that of sqrt(x) at 0: another h gives another value */
    if (!(gap <= judgement.bound))
        judgement.verdict = AG_VERDICT_FAIL;
    else if (judgement.narrow || (step->scale == 0.0 && analytic == 0.0))
        judgement.verdict = AG_VERDICT_PASS;
    return judgement;
}

/* What differences (*judgement) and the complex step say together. The latter is much sharper, so
 * it decides, unless the two contradict each other: then one of them saw something else than the
 * function, a bump that steps could not resolve or a complex form that is not the function's. */
static void judge_together(ag_judgement *judgement, const ag_judgement *step)
{
    double gap = fabs(judgement->numeric - step->numeric);
    judgement->complex_step = step->numeric;
    if (isnan(judgement->numeric) || gap <= judgement->bound + step->bound) {
        if (step->verdict != AG_VERDICT_INCONCLUSIVE)
            *judgement = *step;
        return;
    }
    judgement->contradiction = judgement->narrow && step->narrow;
    if (judgement->verdict != AG_VERDICT_FAIL ||
        (step->verdict == AG_VERDICT_PASS && !judgement->narrow))
        judgement->verdict = AG_VERDICT_INCONCLUSIVE;
}

/* At a kink, where a complex step finds what the conventions of the operations make of it, such as
 * a slope of 0 for ReLU at 0. If the gradient is that, each operation's share in it is a
 * subgradient; where several of them meet, their sum need not lie between the two derivatives. */
static void judge_kink(ag_judgement *judgement, const ag_judgement *step)
{
    judgement->complex_step = step->numeric;
    if (step->verdict != AG_VERDICT_PASS || isnan(judgement->numeric)) /* a jump, perhaps */
        return;
    bool outside = judgement->verdict == AG_VERDICT_FAIL;
    *judgement = *step;
    judgement->verdict = outside ? AG_VERDICT_INCONCLUSIVE : AG_VERDICT_KINK;
}

/* Whether every operation that f runs has a right rule by itself. */
static bool rules_are_right(ag_check *check, bool *right)
{
    ag_gradcheck_options options = { .seed = check->options.seed };
    *right = false;
    if (!check->follow)
        return true;
    check->report->calls++;
    int faults = ag_gradcheck_nodes(check->context, check->f, check->user, check->inputs, check->n,
                                    &options, NULL, 0);
    *right = faults == 0;
    return faults >= 0;
}

/* ---- All that is known ---- */

/* Everything that is known of the derivative along a direction. */
typedef struct evidence {
    ag_measurement differences;
    bool by_differences; /* they were taken */
    ag_complex_step step;
    bool kink;
} evidence;

/* Nothing was seen to move. */
static bool is_still(const evidence *e)
{
    bool by_differences = e->by_differences && e->differences.found;
    return (by_differences || e->step.found) &&
           !(by_differences && scale_of(&e->differences) != 0.0) &&
           !(e->step.found && e->step.scale != 0.0);
}

/* At a kink differences are taken, whatever was asked for. */
static bool gather_evidence(ag_check *check, const ag_direction *direction, evidence *e)
{
    *e = (evidence){ .by_differences = check->options.method != AG_GRADCHECK_COMPLEX };
    if (!ag_check_step(check, direction, &e->step))
        return false;
    if (e->by_differences && !ag_check_measure(check, direction, false, &e->differences))
        return false;
    if (e->step.found && (!e->by_differences || !e->differences.found) &&
        !ag_check_at_kink(check, direction, &e->kink))
        return false;
    e->kink = e->kink || e->differences.at_kink;
    if (e->by_differences || (e->step.found && !e->kink))
        return true;
    e->by_differences = true;
    return ag_check_measure(check, direction, false, &e->differences);
}

static bool judge_evidence(ag_check *check, const ag_direction *direction, const double *gradient,
                           evidence *e, ag_judgement *judgement)
{
    ag_judgement step;
    if (e->step.found) {
        step = judge_step(check, direction, &e->step, gradient);
        if (step.verdict == AG_VERDICT_FAIL && !ag_check_step_again(check, direction, &e->step))
            return false;
        step = judge_step(check, direction, &e->step, gradient);
    }
    if (e->by_differences &&
        !judge_direction(check, direction, gradient, &e->differences, judgement))
        return false;
    if (!e->by_differences)
        *judgement = step;
    else if (e->step.found && e->kink)
        judge_kink(judgement, &step);
    else if (e->step.found)
        judge_together(judgement, &step);
    bool right = false;
    if (e->kink && !e->step.found && judgement->verdict == AG_VERDICT_FAIL) {
        if (!rules_are_right(check, &right))
            return false;
        judgement->verdict = right ? AG_VERDICT_INCONCLUSIVE : AG_VERDICT_FAIL;
    }
    judgement->still = is_still(e);
    return true;
}

/* The recorded gradient is judged where it has other bits. */
static bool judge_both(ag_check *check, const ag_direction *direction, ag_judgement *judgement)
{
    evidence e;
    if (!gather_evidence(check, direction, &e) ||
        !judge_evidence(check, direction, check->usual, &e, judgement))
        return false;
    if (judgement->verdict == AG_VERDICT_FAIL ||
        along(check, direction, check->recorded) == judgement->analytic)
        return true;
    ag_judgement recorded;
    if (!judge_evidence(check, direction, check->recorded, &e, &recorded))
        return false;
    recorded.recorded = true;
    if (recorded.verdict == AG_VERDICT_FAIL)
        *judgement = recorded;
    return true;
}

bool ag_check_direction(ag_check *check, const ag_direction *direction, ag_judgement *judgement)
{
    if (!judge_both(check, direction, judgement))
        return false;
    if (judgement->verdict != AG_VERDICT_FAIL || check->rounding_is_sure)
        return true;
    return ag_check_measure_rounding(check) && judge_both(check, direction, judgement);
}
