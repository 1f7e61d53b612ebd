/* The function under check: calling it, moving its inputs, and how its result moves. */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define LARGEST_STEP 0.125 /* relative to the size of the inputs, which counts as at least 1 */
#define NOISE_LINES 4

bool ag_check_stop(ag_check *check, ag_verdict verdict, const char *format, ...)
{
    ag_gradcheck_report *report = check->report;
    if (report->message[0])
        return false;
    report->verdict = verdict;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->message, sizeof report->message, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- Calling it ---- */

/* Of size between 1/2 and 3/2 and either sign, so that no entry of y is lost. */
ag_var ag_gradcheck_cotangent(uint64_t seed, ag_var y)
{
    ag_tensor *value;
    if (!ag_node_require(y.context, "gradcheck_cotangent", y))
        return ag_poisoned(y.context);
    ag_var cotangent = ag_empty_like(y, &value);
    ag_random random = ag_random_stream(seed, "gradcheck", 0);
    for (int64_t i = 0; value && i < ag_tensor_count(value); i++) {
        double u = ag_random_uniform(&random);
        ag_tensor_put(value, i, u < 0.5 ? -0.5 - 2.0 * u : 2.0 * u - 0.5);
    }
    return cotangent;
}

bool ag_check_call(ag_check *check, ag_var *y)
{
    char text[160];
    check->report->calls++;
    *y = check->f(check->context, check->inputs, check->n, check->user);
    if (check->context->error)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    if (!ag_is_valid(*y))
        return ag_check_stop(check, AG_VERDICT_ERROR, "the function gave no result");
    if (ag_dtype_of(*y) == AG_F64)
        return true;
    ag_fail(check->context, AG_ERR_DTYPE, "gradcheck: the result %s is %s; check in f64",
            ag_describe(*y, text, sizeof text), ag_dtype_name(ag_dtype_of(*y)));
    return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
}

static double *entries_of(const ag_check *check, int input)
{
    return ag_node_find(check->inputs[input])->value.data;
}

static bool inputs_are_unchanged(ag_check *check)
{
    for (int i = 0; i < check->n; i++) {
        const double *now = entries_of(check, i), *before = check->before + check->first[i];
        for (int64_t k = 0; k < check->first[i + 1] - check->first[i]; k++)
            if (memcmp(&now[k], &before[k], sizeof *now))
                return ag_check_stop(check, AG_VERDICT_CHANGES_INPUT,
                                     "the function changes its input %d %s: entry %lld was %.17g "
                                     "and is %.17g",
                                     i, ag_name(check->inputs[i]), (long long)k, before[k], now[k]);
    }
    return true;
}

/* The same call once more must give the same bits. */
static bool result_is_the_same(ag_check *check)
{
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    ag_var y;
    bool called = ag_check_call(check, &y);
    if (called && ag_tensor_count(ag_value(y)) != check->results)
        ag_check_stop(check, AG_VERDICT_NOT_DETERMINISTIC,
                      "two calls give results of %lld and of %lld elements",
                      (long long)check->results, (long long)ag_tensor_count(ag_value(y)));
    for (int64_t i = 0; called && !check->report->message[0] && i < check->results; i++) {
        double again = ag_tensor_at(ag_value(y), i);
        if (memcmp(&again, &check->y[i], sizeof again))
            ag_check_stop(
                check, AG_VERDICT_NOT_DETERMINISTIC,
                "two calls with the same inputs differ: entry %lld of the result is %.17g "
                "and then %.17g",
                (long long)i, check->y[i], again);
    }
    ag_tape_rewind(check->context, mark);
    return !check->report->message[0];
}

static bool result_is_finite(ag_check *check)
{
    for (int64_t i = 0; i < check->results; i++)
        if (!isfinite(check->y[i]))
            return ag_check_stop(check, AG_VERDICT_NOT_FINITE,
                                 "the result of the function is not finite: its entry %lld is %g",
                                 (long long)i, check->y[i]);
    return true;
}

double *ag_check_numbers(ag_check *check, int64_t count)
{
    return ag_memory_new(check->context, AG_STEP, (size_t)count * sizeof(double));
}

static bool keep_result(ag_check *check)
{
    ag_branches_watch(check->context, true);
    ag_var y;
    if (!ag_check_call(check, &y))
        return false;
    check->branches = check->context->tape->branches;
    check->single = check->context->tape->seen_f32;
    check->results = ag_tensor_count(ag_value(y));
    ag_var cotangent = ag_gradcheck_cotangent(check->options.seed, y);
    check->y = ag_check_numbers(check, check->results);
    check->cotangent = ag_check_numbers(check, check->results);
    if (!check->y || !check->cotangent || !ag_is_valid(cotangent))
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int64_t i = 0; i < check->results; i++) {
        check->y[i] = ag_tensor_at(ag_value(y), i);
        check->cotangent[i] = ag_tensor_at(ag_value(cotangent), i);
    }
    return true;
}

bool ag_check_settle(ag_check *check)
{
    check->before = ag_check_numbers(check, check->entries);
    check->signs = ag_check_numbers(check, check->entries);
    if (!check->before || !check->signs)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int i = 0; i < check->n; i++) {
        int64_t count = check->first[i + 1] - check->first[i];
        if (count > 0)
            memcpy(check->before + check->first[i], entries_of(check, i),
                   (size_t)count * sizeof(double));
        check->versions[i] = ag_node_find(check->inputs[i])->base->version;
    }
    return keep_result(check) && inputs_are_unchanged(check) && result_is_the_same(check) &&
           result_is_finite(check);
}

bool ag_check_settle_again(ag_check *check)
{
    return result_is_the_same(check);
}

/* ---- Moving its inputs ---- */

/* A line through the inputs, x + t u: u_k is the sign of entry k in the direction's range. */
typedef struct path {
    ag_check *check;
    const ag_direction *direction;
} path;

double ag_direction_sign(const ag_check *check, const ag_direction *direction, int64_t entry)
{
    return direction->to - direction->from == 1 ? 1.0 : check->signs[entry];
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void ag_check_move(ag_check *check, const ag_direction *direction, double t)
{
    for (int i = 0; i < check->n; i++) {
        int64_t first = check->first[i];
        int64_t from = larger(direction->from, first);
        int64_t to = smaller(direction->to, check->first[i + 1]);
        if (from >= to)
            continue;
        double *x = entries_of(check, i);
        for (int64_t k = from; k < to; k++)
            x[k - first] = check->before[k] + t * ag_direction_sign(check, direction, k);
        ag_node_find(check->inputs[i])->base->version++;
    }
}

void ag_check_jiggle(ag_check *check, uint64_t number)
{
    ag_check_draw_signs(check, number);
    for (int i = 0; i < check->n; i++) {
        double *x = check->first[i + 1] > check->first[i] ? entries_of(check, i) : NULL;
        for (int64_t k = check->first[i]; k < check->first[i + 1]; k++)
            x[k - check->first[i]] = check->before[k] * (1.0 + 2.0 * DBL_EPSILON * check->signs[k]);
        ag_node_find(check->inputs[i])->base->version++;
    }
}

/* Nothing that saw other values is left, so the versions are what they were too. */
void ag_check_put_back(ag_check *check)
{
    for (int i = 0; i < check->n; i++) {
        int64_t count = check->first[i + 1] - check->first[i];
        if (count > 0)
            memcpy(entries_of(check, i), check->before + check->first[i],
                   (size_t)count * sizeof(double));
        ag_node_find(check->inputs[i])->base->version = check->versions[i];
    }
}

/* ---- How its result moves ---- */

/* L(t) - L(0) = sum_i c_i (y_i(t) - y_i(0)): differences first, so that what does not
 * move adds no rounding. */
static void compare_results(const ag_check *check, const ag_tensor *y, ag_probe *probe)
{
    double squares = 0.0;
    for (int64_t i = 0; i < check->results; i++) {
        double c = check->cotangent[i], now = ag_tensor_at(y, i), move = c * (now - check->y[i]);
        probe->change += move;
        probe->movement += fabs(move);
        squares += c * now * c * now;
        probe->total += fabs(c * now);
    }
    probe->size = sqrt(squares);
    probe->usable = isfinite(probe->change) && isfinite(squares);
}

static bool probe_function(void *user, ag_probe *probe)
{
    const path *p = user;
    ag_check *check = p->check;
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    ag_var y;
    ag_check_move(check, p->direction, probe->t);
    ag_branches_watch(check->context, true);
    bool called = ag_check_call(check, &y);
    probe->branches = check->context->tape->branches;
    if (called && ag_tensor_count(ag_value(y)) == check->results)
        compare_results(check, ag_value(y), probe);
    ag_tape_rewind(check->context, mark);
    return called;
}

/* A power of two near the size of the entries that move, and at least 1. */
static double unit_of(const ag_check *check, const ag_direction *direction)
{
    double squares = 0.0, count = (double)(direction->to - direction->from);
    for (int64_t k = direction->from; k < direction->to; k++)
        squares += check->before[k] * check->before[k];
    double unit = 1.0, size = sqrt(squares / count);
    while (unit < size && isfinite(size))
        unit *= 2.0;
    return unit;
}

/* |L'| times the rounding error of x + t u, if the gradient is about right. */
static double slack_of(const ag_check *check, const ag_direction *direction)
{
    double squares = 0.0;
    for (int64_t k = direction->from; k < direction->to; k++) {
        double move = check->before[k] * check->usual[k];
        squares += move * move;
    }
    return isfinite(squares) ? DBL_EPSILON * sqrt(squares) : 0.0;
}

/* sum_i |c_i (y_i(h) + y_i(-h) - 2 y_i(0))| / h: the sum of the kinks, none of which cancels
 * another of another result. */
static bool measure_bend(ag_check *check, const ag_direction *direction, double h, double *bend)
{
    bool going = true;
    ag_tape_mark outer = ag_tape_mark_now(check->context);
    double *bends = ag_check_numbers(check, check->results);
    if (!bends)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int side = 0; side < 2 && going; side++) {
        ag_tape_mark mark = ag_tape_mark_now(check->context);
        ag_var y;
        ag_check_move(check, direction, side ? -h : h);
        going = ag_check_call(check, &y);
        for (int64_t i = 0; going && i < check->results; i++) {
            double move = ag_tensor_at(ag_value(y), i) - check->y[i];
            bends[i] = side ? bends[i] + move : move;
        }
        ag_tape_rewind(check->context, mark);
    }
    *bend = 0.0;
    for (int64_t i = 0; going && i < check->results; i++)
        *bend += fabs(check->cotangent[i] * bends[i]) / h;
    ag_tape_rewind(check->context, outer);
    return going;
}

bool ag_check_measure(ag_check *check, const ag_direction *direction, bool again, ag_measurement *m)
{
    path p = { check, direction };
    ag_line line = { .evaluate = probe_function,
                     .user = &p,
                     .first_step = (again ? 0.75 : 1.0) * LARGEST_STEP * unit_of(check, direction),
                     .thorough = again,
                     .noise = check->noise,
                     .epsilon = check->single ? FLT_EPSILON : DBL_EPSILON,
                     .slack = slack_of(check, direction),
                     .branches = check->branches };
    *m = (ag_measurement){ 0 };
    m->found = ag_derivative_at(&line, &m->at);
    if (!m->found && !line.failed) {
        bool left = ag_derivative_from(&line, AG_SIDE_LEFT, false, &m->left);
        bool right = ag_derivative_from(&line, AG_SIDE_RIGHT, false, &m->right);
        m->found = m->kink = left && right;
        if (m->kink)
            line.failed =
                !measure_bend(check, direction, fmin(m->left.step, m->right.step), &m->bend);
    }
    ag_check_put_back(check);
    return !line.failed;
}

bool ag_check_branches(ag_check *check, const ag_direction *direction, double t, uint64_t *branches)
{
    path p = { check, direction };
    ag_probe probe = { .t = t * unit_of(check, direction) };
    bool called = probe_function(&p, &probe);
    *branches = probe.branches;
    ag_check_put_back(check);
    return called;
}

static ag_direction all_entries(const ag_check *check)
{
    return (ag_direction){ 0, check->entries };
}

bool ag_check_measure_noise(ag_check *check)
{
    double squares = 0.0, noise;
    int lines = 0;
    ag_direction all = all_entries(check);
    path p = { check, &all };
    bool failed = false;
    for (int i = 0; i < NOISE_LINES && !failed && check->entries > 0; i++) {
        ag_check_draw_signs(check, (uint64_t)i);
        double unit = unit_of(check, &all);
        bool found = check->single ? /* closer than 2^-22 f32 has no numbers */
                         ag_measure_noise_at(probe_function, &p, unit / (1 << 22), &noise, &failed)
                                   : ag_measure_noise(probe_function, &p, unit, &noise, &failed);
        if (!found)
            continue;
        squares += noise * noise;
        lines++;
    }
    if (check->entries > 0)
        ag_check_put_back(check);
    check->noise = lines > 0 ? sqrt(squares / lines) : 0.0;
    return !failed;
}

void ag_check_draw_signs(ag_check *check, uint64_t number)
{
    ag_random random = ag_random_stream(check->options.seed, "directions", number);
    for (int64_t k = 0; k < check->entries; k++)
        check->signs[k] = ag_random_uniform(&random) < 0.5 ? -1.0 : 1.0;
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
