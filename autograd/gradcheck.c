/* Gradient checks: is the backward rule the derivative of the forward call?
 *
 * The function's result y is reduced to one number L = sum_i c_i y_i with random
 * c (a plain sum would hide every mistake in a softmax, whose results always
 * sum to 1). The derivative of L by each entry of each input is taken from differences,
 * which say themselves how exact they are (difference.c), and the gradient from
 * backward has to lie within that interval. No tolerance is involved, so that the scale of L does
 * not matter, and a gradient that is missing is found however small it is.
 */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_RESOLUTION 1e-6
/* What the gradient itself may be off by. */
#define BACKWARD_ROUNDINGS 32.0 /* units of eps times the terms that it is a sum of .. */
#define ROUNDING_SAFETY 8.0     /* .. and its spread, as measured, times this .. */
#define SINGLE_ROUNDINGS 4.0    /* .. or so many units of f32's eps */
#define STEP_SAFETY 2.0         /* a complex step has rounding errors like the gradient's */
#define JIGGLES 8

/* ---- The gradients that are checked ---- */

/* The result asks for no gradient: does it depend on the inputs all the same? */
static bool stop_unconnected(ag_check *check)
{
    double t = 0.125, movement = check->entries > 0 ? ag_check_movement(check, t) : 0.0;
    ag_fail(check->context, AG_ERR_STATE,
            "gradcheck: no gradient leads from the result to the inputs");
    if (movement > 0.0)
        return ag_check_stop(
            check, AG_VERDICT_UNCONNECTED,
            "no gradient leads from the result to the inputs, but the result moves "
            "by %.3g when they move by %g",
            movement, t);
    return ag_check_stop(check, AG_VERDICT_UNCONNECTED,
                         "the result does not depend on anything that asks for a gradient");
}

/* The gradients of L by the engine, in one of the two ways, as one array. */
static double *analytic_gradients(ag_check *check, unsigned flags)
{
    ag_context *context = check->context;
    double *flat = ag_check_numbers(check, check->entries);
    ag_var *gradients = ag_memory_new(context, AG_STEP, (size_t)check->n * sizeof *gradients), y;
    ag_tape_mark mark = ag_tape_mark_now(context);
    if (flat && gradients && ag_check_call(check, &y)) {
        if (!ag_requires_gradient(y))
            stop_unconnected(check);
        else
            ag_grad_from(y, ag_gradcheck_cotangent(check->options.seed, y), check->inputs, check->n,
                         gradients, flags);
    }
    for (int i = 0; i < check->n && !context->error && !check->report->message[0]; i++)
        for (int64_t k = check->first[i]; k < check->first[i + 1]; k++)
            flat[k] = ag_tensor_at(ag_value(gradients[i]), k - check->first[i]);
    if (context->error)
        ag_check_stop(check, AG_VERDICT_ERROR, "%s", context->message);
    ag_tape_rewind(context, mark);
    return check->report->message[0] ? NULL : flat;
}

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

/* Whether the interval is narrow against what the derivative is a sum of. */
static bool is_narrow(const ag_check *check, const ag_measurement *m, const interval *numeric,
                      double analytic)
{
    double scale = m->kink ? fmax(m->left.scale, m->right.scale) : m->at.scale;
    if (scale == 0.0) /* not a bit of the result moves */
        return analytic == 0.0;
    return numeric->bound <= check->options.resolution * fmax(scale, fabs(numeric->middle));
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
    ag_judgement judgement = { .verdict = AG_VERDICT_INCONCLUSIVE,
                               .analytic = analytic,
                               .numeric = NAN,
                               .bound = INFINITY,
                               .method = AG_GRADCHECK_DIFFERENCES,
                               .complex_step = NAN };
    if (!isfinite(analytic))
        judgement.verdict = AG_VERDICT_FAIL;
    if (!m->found)
        return judgement;
    interval numeric = interval_of(check, direction, m);
    double allowed = check->options.tolerance * fmax(fabs(analytic), fabs(numeric.middle));
    judgement.numeric = numeric.middle;
    judgement.h = m->kink ? fmin(m->left.step, m->right.step) : m->at.step;
    judgement.bound = (numeric.high - numeric.low) / 2.0 + allowed;
    judgement.narrow = is_narrow(check, m, &numeric, analytic);
    double gap = fabs(analytic - numeric.middle);
    if (m->kink && gap > judgement.bound && gap <= judgement.bound + 2.0 * m->bend)
        return judgement; /* several kinks at once, which may cancel in the derivatives of L */
    if (!(gap <= judgement.bound))
        judgement.verdict = AG_VERDICT_FAIL;
    else if (judgement.narrow)
        judgement.verdict = m->kink ? AG_VERDICT_KINK : AG_VERDICT_PASS;
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
        const double *gradient = analytic_gradients(check, flags);
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
    judgement.bound = STEP_SAFETY * rounding_along(check, direction, scale) + step->error +
                      check->options.tolerance * fmax(fabs(analytic), fabs(step->value));
    judgement.narrow = judgement.bound <= check->options.resolution * step->scale;
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
    } else if (judgement->verdict != AG_VERDICT_FAIL ||
               (step->verdict == AG_VERDICT_PASS && !judgement->narrow))
        judgement->verdict = AG_VERDICT_INCONCLUSIVE;
}

/* Everything that is known of the derivative along a direction. */
typedef struct evidence {
    ag_measurement differences;
    bool by_differences; /* they were taken */
    ag_complex_step step;
} evidence;

/* A complex step says nothing at a kink, but differences do. */
static bool gather_evidence(ag_check *check, const ag_direction *direction, evidence *e)
{
    bool kink = false;
    *e = (evidence){ .by_differences = check->options.method != AG_GRADCHECK_COMPLEX };
    if (!ag_check_step(check, direction, &e->step))
        return false;
    if (e->by_differences && !ag_check_measure(check, direction, false, &e->differences))
        return false;
    if (e->step.found && (!e->by_differences || !e->differences.found) &&
        !ag_check_at_kink(check, direction, &kink))
        return false;
    e->step.found = e->step.found && !kink && !e->differences.kink;
    if (e->by_differences || e->step.found)
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
    if (e->step.found && e->by_differences)
        judge_together(judgement, &step);
    else if (e->step.found)
        *judgement = step;
    return true;
}

/* By both ways to the gradient; the recorded one is judged where it has other bits. */
static bool check_direction(ag_check *check, const ag_direction *direction, ag_judgement *judgement)
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

static void check_entries(ag_check *check)
{
    ag_judgement judgement;
    int64_t from = check->only ? *check->only : 0;
    int64_t to = check->only ? *check->only + 1 : check->entries;
    for (int64_t k = from; k < to; k++) {
        ag_direction entry = { k, k + 1 };
        if (!check_direction(check, &entry, &judgement))
            return;
        ag_check_note(check, &entry, &judgement);
        check->numeric[k] = judgement.numeric;
        check->bounds[k] = judgement.bound;
    }
}

static double badness(const ag_judgement *judgement)
{
    bool failed = judgement->verdict == AG_VERDICT_FAIL;
    return failed ? fabs(judgement->analytic - judgement->numeric) / judgement->bound : 0.0;
}

/* A direction that fails is cut in halves, down to one entry that fails by itself, or to the
 * shortest range that does. */
static bool find_guilty(ag_check *check, ag_direction direction, ag_judgement judgement)
{
    while (direction.to - direction.from > 1) {
        int64_t middle = direction.from + (direction.to - direction.from) / 2;
        ag_direction left = { direction.from, middle }, right = { middle, direction.to };
        ag_judgement of_left, of_right;
        if (!check_direction(check, &left, &of_left) || !check_direction(check, &right, &of_right))
            return false;
        bool go_left = badness(&of_left) >= badness(&of_right);
        if ((go_left ? of_left : of_right).verdict != AG_VERDICT_FAIL)
            break;
        direction = go_left ? left : right;
        judgement = go_left ? of_left : of_right;
    }
    ag_check_blame(check, &direction, &judgement);
    return true;
}

static void check_directions(ag_check *check)
{
    ag_judgement judgement;
    for (int i = 0; i < check->options.directions && check->entries > 0; i++) {
        ag_direction all = { 0, check->entries };
        ag_check_draw_signs(check, (uint64_t)i);
        if (!check_direction(check, &all, &judgement))
            return;
        bool first_failure = judgement.verdict == AG_VERDICT_FAIL && check->report->failures == 0;
        ag_check_note(check, &all, &judgement);
        if (first_failure && !find_guilty(check, all, judgement))
            return;
    }
}

/* The gradient where no or all inputs and results of operations differ in their last bits. NULL if
 * the check has stopped. */
static const double *watched_gradients(ag_check *check, unsigned flags, ag_random *jiggle,
                                       uint64_t *branches)
{
    ag_branches_watch(check->context, true);
    check->context->tape->jiggle = jiggle;
    const double *gradient = analytic_gradients(check, flags);
    *branches = check->context->tape->branches;
    check->context->tape->jiggle = NULL;
    return gradient;
}

/* How much the gradient's entries scatter where the inputs and everything computed from them differ
 * in the last bits: where backward subtracts numbers that are nearly equal, as 1 - y^2 in a
 * saturated tanh, that is more than a rounding or two. */
static bool measure_spread(ag_check *check, unsigned flags, const double *gradient)
{
    uint64_t usual, branches;
    int count = 0;
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    double *spread = ag_check_numbers(check, check->entries);
    if (!spread)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int64_t k = 0; k < check->entries; k++)
        spread[k] = 0.0;
    bool going = watched_gradients(check, flags, NULL, &usual) != NULL;
    for (int i = 0; i < JIGGLES && going; i++) {
        ag_memory_mark memory = ag_memory_mark_step(check->context);
        ag_random random = ag_random_stream(check->options.seed, "jiggle", (uint64_t)i);
        ag_check_jiggle(check, (uint64_t)i);
        const double *moved = watched_gradients(check, flags, &random, &branches);
        bool same = branches == usual;
        for (int64_t k = 0; moved && same && k < check->entries; k++)
            spread[k] = hypot(spread[k], moved[k] - gradient[k]);
        count += same;
        going = moved != NULL;
        ag_memory_rewind_step(check->context, memory);
    }
    ag_check_put_back(check);
    for (int64_t k = 0; k < check->entries && count > 0; k++)
        check->rounding[k] = fmax(check->rounding[k], spread[k] / sqrt(count));
    ag_tape_rewind(check->context, mark);
    return going;
}

/* The larger of what both ways to the gradient show: what a fused rule rounds inside of its kernel
 * is seen where the same is composed of operations. */
static bool measure_rounding(ag_check *check)
{
    check->rounding = ag_check_numbers(check, check->entries);
    if (!check->rounding)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int64_t k = 0; k < check->entries; k++)
        check->rounding[k] = 0.0;
    return measure_spread(check, 0, check->usual) &&
           measure_spread(check, AG_CREATE_GRAPH, check->recorded);
}

/* ---- The check ---- */

static bool check_inputs(ag_check *check)
{
    char text[160];
    if (!check->f || check->n < 1 || !check->inputs)
        return ag_fail(check->context, AG_ERR_ARGUMENT,
                       "gradcheck: a function and inputs are needed");
    for (int i = 0; i < check->n; i++) {
        ag_node *node = ag_node_require(check->context, "gradcheck", check->inputs[i]);
        if (!node)
            return false;
        ag_describe(check->inputs[i], text, sizeof text);
        if (node->value.dtype != AG_F64)
            return ag_fail(check->context, AG_ERR_DTYPE, "gradcheck: %s is %s; check in f64", text,
                           ag_dtype_name(node->value.dtype));
        if (node->op || !node->requires_gradient || !ag_tensor_is_contiguous(&node->value))
            return ag_fail(check->context, AG_ERR_STATE,
                           "gradcheck: %s is not a leaf that asks for a gradient", text);
        for (int j = 0; j < i; j++)
            if (ag_node_find(check->inputs[j]) == node)
                return ag_fail(check->context, AG_ERR_ARGUMENT,
                               "gradcheck: inputs %d and %d are the same, %s", j, i, text);
    }
    return true;
}

static bool count_entries(ag_check *check)
{
    size_t n = (size_t)check->n;
    int64_t *first = ag_memory_new(check->context, AG_STEP, (n + 1) * sizeof *first);
    check->versions = ag_memory_new(check->context, AG_STEP, n * sizeof *check->versions);
    if (!first || !check->versions)
        return false;
    first[0] = 0;
    for (int i = 0; i < check->n; i++)
        first[i + 1] = first[i] + ag_tensor_count(ag_value(check->inputs[i]));
    check->first = first;
    check->entries = first[n];
    int64_t most = check->entries + check->options.directions;
    check->numeric = ag_check_numbers(check, check->entries);
    check->bounds = ag_check_numbers(check, check->entries);
    check->floors = ag_check_numbers(check, most);
    if (check->only && (*check->only < 0 || *check->only >= check->entries))
        return ag_fail(check->context, AG_ERR_ARGUMENT,
                       "gradcheck: entry %lld is out of range: the inputs have %lld entries",
                       (long long)*check->only, (long long)check->entries);
    return check->numeric && check->bounds && check->floors;
}

bool ag_check_begin(ag_check *check)
{
    return count_entries(check) && ag_check_settle(check);
}

static void run(ag_check *check)
{
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    ag_tape_lock lock = ag_tape_lock_now(check->context->tape);
    bool ready = ag_check_begin(check) && (check->usual = analytic_gradients(check, 0)) &&
                 (check->recorded = analytic_gradients(check, AG_CREATE_GRAPH)) &&
                 measure_rounding(check) && ag_check_measure_noise(check) &&
                 ag_check_settle_complex(check);
    if (ready && check->options.directions > 0)
        check_directions(check);
    else if (ready)
        check_entries(check);
    bool finished = ready && ag_check_settle_again(check) && !check->context->error;
    if (!finished)
        ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    ag_check_conclude(check);
    ag_branches_watch(check->context, false);
    ag_tape_unlock(check->context, "gradcheck", lock);
    ag_tape_rewind(check->context, mark);
}

static bool check_options(ag_check *check)
{
    ag_gradcheck_options *options = &check->options;
    if (options->resolution == 0.0)
        options->resolution = DEFAULT_RESOLUTION;
    if (options->complex_h != 0.0 && !(options->complex_h >= 1e-100 && options->complex_h <= 1.0))
        return ag_fail(check->context, AG_ERR_ARGUMENT,
                       "gradcheck: complex_h %g is out of range; valid: 1e-100 to 1",
                       options->complex_h);
    if ((unsigned)options->method > AG_GRADCHECK_COMPLEX)
        return ag_fail(check->context, AG_ERR_ARGUMENT, "gradcheck: an unknown method %d",
                       (int)options->method);
    if (options->resolution > 0.0 && options->tolerance >= 0.0 && options->directions >= 0)
        return true;
    return ag_fail(
        check->context, AG_ERR_ARGUMENT,
        "gradcheck: resolution %g must be above 0, tolerance %g and directions %d not below",
        options->resolution, options->tolerance, options->directions);
}

/* The first node whose own rule fails; none if each is right by itself. */
static void locate(ag_check *check)
{
    ag_node_fault fault;
    ag_gradcheck_options options = { .seed = check->options.seed, .method = check->options.method };
    if (ag_gradcheck_nodes(check->context, check->f, check->user, check->inputs, check->n, &options,
                           &fault, 1) <= 0)
        return;
    check->report->node = fault.node;
    memcpy(check->report->op, fault.op, sizeof fault.op);
    if (check->report->directions)
        memcpy(check->report->suspect, fault.report.suspect, sizeof fault.report.suspect);
}

bool ag_gradcheck(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                  const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    return ag_check_function(context, f, user, inputs, n, options, report, true);
}

static bool start(ag_check *check, const ag_gradcheck_options *options, ag_gradcheck_report *report,
                  bool follow)
{
    ag_gradcheck_report unused;
    check->report = report ? report : &unused;
    memset(check->report, 0, sizeof *check->report);
    check->report->verdict = AG_VERDICT_ERROR;
    if (!check->context)
        return false;
    if (options)
        check->options = *options;
    if (check->only)
        check->options.directions = 0;
    if (check_options(check) && ag_tape_of(check->context) && check_inputs(check))
        run(check);
    if (follow && !check->context->error && check->report->verdict == AG_VERDICT_FAIL)
        locate(check);
    if (check->context->error)
        ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    ag_verdict verdict = check->report->verdict;
    check->report->passed = verdict == AG_VERDICT_PASS || verdict == AG_VERDICT_KINK;
    return check->report->passed;
}

bool ag_check_function(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                       const ag_gradcheck_options *options, ag_gradcheck_report *report,
                       bool follow)
{
    ag_check check = { .context = context, .f = f, .user = user, .inputs = inputs, .n = n };
    return start(&check, options, report, follow);
}

bool ag_gradcheck_entry(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                        int64_t entry, const ag_gradcheck_options *options,
                        ag_gradcheck_report *report)
{
    ag_check check = {
        .context = context, .f = f, .user = user, .inputs = inputs, .n = n, .only = &entry
    };
    return start(&check, options, report, false);
}
