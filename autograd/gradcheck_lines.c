/* How the result moves along a line through the inputs, x + t u: the derivative there, and the
 * rounding error. */
#include "gradcheck.h"

#include <float.h>
#include <math.h>

#define LARGEST_STEP 0.125 /* relative to the size of the inputs, which counts as at least 1 */
#define NOISE_LINES 4
#define NOISE_ENTRIES 16

/* u_k is the sign of entry k in the direction's range. */
typedef struct path {
    ag_check *check;
    const ag_direction *direction;
} path;

/* sqrt(sum_i (c_i y_i)^2), in a way that no square overflows, or is lost. */
static double size_of(const ag_check *check, const ag_tensor *y, double largest)
{
    double squares = 0.0;
    for (int64_t i = 0; i < check->results && largest > 0.0; i++) {
        double part = check->cotangent[i] * ag_tensor_at(y, i) / largest;
        squares += part * part;
    }
    return largest * sqrt(squares);
}

/* L(t) - L(0) = sum_i c_i (y_i(t) - y_i(0)): differences first, so that what does not
 * move adds no rounding. */
static void compare_results(const ag_check *check, const ag_tensor *y, ag_probe *probe)
{
    double largest = 0.0;
    for (int64_t i = 0; i < check->results; i++) {
        double c = check->cotangent[i], now = ag_tensor_at(y, i), move = c * (now - check->y[i]);
        probe->change += move;
        probe->movement += fabs(move);
        probe->total += fabs(c * now);
        largest = fmax(largest, fabs(c * now));
    }
    probe->size = size_of(check, y, largest);
    probe->usable = isfinite(probe->change) && isfinite(probe->total);
}

static bool probe_function(void *user, ag_probe *probe)
{
    const path *p = user;
    ag_check *check = p->check;
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    ag_var y;
    ag_check_move(check, p->direction, probe->t);
    ag_branches_watch(check->context);
    bool going = ag_check_try(check, &y);
    probe->branches = check->context->tape->watch.branches;
    if (going && ag_is_valid(y) && ag_tensor_count(ag_value(y)) == check->results)
        compare_results(check, ag_value(y), probe);
    ag_tape_rewind(check->context, mark);
    return going && ag_check_inputs_are_kept(check, p->direction, probe->t, "the function");
}

/* A power of two near the size of the entries that move, and at least 1. */
static double unit_of(const ag_check *check, const ag_direction *direction)
{
    double unit = 1.0, size = 0.0;
    for (int64_t k = direction->from; k < direction->to; k++)
        size = hypot(size, check->before[k]);
    size /= sqrt((double)(direction->to - direction->from));
    while (unit < size && isfinite(size))
        unit *= 2.0;
    return unit;
}

/* |L'| times the rounding error of x + t u, if the gradient is about right. */
static double slack_of(const ag_check *check, const ag_direction *direction)
{
    double size = 0.0;
    for (int64_t k = direction->from; k < direction->to; k++)
        size = hypot(size, check->before[k] * check->usual[k]);
    return isfinite(size) ? DBL_EPSILON * size : 0.0;
}

/* sum_i |c_i (y_i(h) + y_i(-h) - 2 y_i(0))| / h: the sum of the kinks, none of which cancels
 * another of another result. */
static bool measure_bend(ag_check *check, const ag_direction *direction, double h, double *bend)
{
    bool going = true, usable = true;
    ag_tape_mark outer = ag_tape_mark_now(check->context);
    double *bends = ag_check_numbers(check, check->results);
    if (!bends)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int side = 0; side < 2 && going; side++) {
        ag_tape_mark mark = ag_tape_mark_now(check->context);
        ag_var y;
        ag_check_move(check, direction, side ? -h : h);
        going = ag_check_try(check, &y);
        usable =
            usable && going && ag_is_valid(y) && ag_tensor_count(ag_value(y)) == check->results;
        for (int64_t i = 0; usable && i < check->results; i++) {
            double move = ag_tensor_at(ag_value(y), i) - check->y[i];
            bends[i] = side ? bends[i] + move : move;
        }
        ag_tape_rewind(check->context, mark);
    }
    *bend = usable ? 0.0 : INFINITY;
    for (int64_t i = 0; usable && i < check->results; i++)
        *bend += fabs(check->cotangent[i] * bends[i]) / h;
    ag_tape_rewind(check->context, outer);
    return going;
}

static ag_line line_along(path *p, bool again)
{
    ag_check *check = p->check;
    return (ag_line){ .evaluate = probe_function,
                      .user = p,
                      .first_step =
                          (again ? 0.75 : 1.0) * LARGEST_STEP * unit_of(check, p->direction),
                      .thorough = again,
                      .noise = check->noise,
                      .epsilon = check->in_f32 ? FLT_EPSILON : DBL_EPSILON,
                      .slack = slack_of(check, p->direction),
                      .branches = check->branches };
}

bool ag_check_measure(ag_check *check, const ag_direction *direction, bool again, ag_measurement *m)
{
    path p = { check, direction };
    ag_line line = line_along(&p, again);
    *m = (ag_measurement){ 0 };
    m->found = ag_derivative_at(&line, &m->at);
    m->at_kink = (!m->found || m->at.side != AG_SIDE_BOTH) && ag_is_at_kink(&line);
    m->found = m->found && !m->at_kink;
    if (!m->found && !line.failed) {
        bool left = ag_derivative_from(&line, AG_SIDE_LEFT, false, &m->left);
        bool right = ag_derivative_from(&line, AG_SIDE_RIGHT, false, &m->right);
        m->found = m->kink = left && right;
        if (m->kink)
            line.failed =
                !measure_bend(check, direction, fmin(m->left.step, m->right.step), &m->bend);
    }
    ag_check_put_back(check);
    return !line.failed && ag_check_is_repeatable(check);
}

bool ag_check_at_kink(ag_check *check, const ag_direction *direction, bool *kink)
{
    path p = { check, direction };
    ag_line line = line_along(&p, false);
    *kink = ag_is_at_kink(&line);
    ag_check_put_back(check);
    return !line.failed;
}

static ag_direction all_entries(const ag_check *check)
{
    return (ag_direction){ 0, check->entries };
}

/* As a part of the size of the results; false if it cannot be told on this line. */
static bool noise_along(ag_check *check, const ag_direction *direction, double *noise, bool *failed)
{
    path p = { check, direction };
    double unit = unit_of(check, direction);
    bool found = check->single /* closer than 2^-22 f32 has no numbers */
                     ? ag_measure_noise_at(probe_function, &p, ldexp(unit, -22), noise, failed)
                     : ag_measure_noise(probe_function, &p, unit, noise, failed);
    ag_check_put_back(check);
    return found;
}

/* Where all entries move there may be no line on which f is smooth, because one of them is at a
 * kink or at the end of a domain. Then it is the largest of those along single entries. */
static double noise_of_entries(ag_check *check, bool *failed)
{
    double largest = -INFINITY;
    int64_t step = (check->entries + NOISE_ENTRIES - 1) / NOISE_ENTRIES;
    for (int64_t k = 0; k < check->entries && !*failed; k += step) {
        ag_direction entry = { k, k + 1 };
        double noise;
        if (noise_along(check, &entry, &noise, failed))
            largest = fmax(largest, noise);
    }
    return isfinite(largest) ? largest : INFINITY;
}

bool ag_check_measure_noise(ag_check *check)
{
    double squares = 0.0, noise;
    int lines = 0;
    ag_direction all = all_entries(check);
    bool failed = false;
    for (int i = 0; i < NOISE_LINES && !failed && check->entries > 0; i++) {
        ag_check_draw_signs(check, (uint64_t)i);
        if (!noise_along(check, &all, &noise, &failed))
            continue;
        squares += noise * noise;
        lines++;
    }
    check->noise = lines > 0 ? sqrt(squares / lines) : 0.0;
    if (lines == 0 && check->entries > 0 && !failed)
        check->noise = noise_of_entries(check, &failed);
    return !failed;
}

double ag_check_movement(ag_check *check, double t)
{
    ag_direction all = all_entries(check);
    path p = { check, &all };
    ag_probe probe = { .t = t };
    ag_check_draw_signs(check, 0);
    probe_function(&p, &probe);
    ag_check_put_back(check);
    return probe.movement;
}
