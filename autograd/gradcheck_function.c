/* The function under check: calling it, and moving its inputs. */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

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

/* Forgets an error, unless memory ran out: then the check has stopped. */
static bool forgive(ag_check *check)
{
    ag_context *context = check->context;
    char message[sizeof context->message];
    bool memory = context->error == AG_ERR_MEMORY;
    memcpy(message, context->message, sizeof message);
    ag_error_clear(context);
    if (!memory)
        return true;
    ag_fail(context, AG_ERR_MEMORY, "%s", message);
    return ag_check_stop(check, AG_VERDICT_ERROR, "%s", message);
}

bool ag_check_try(ag_check *check, ag_var *y)
{
    ag_context *context = check->context;
    ag_error_callback on_error = context->on_error;
    int no_grad = context->tape->no_grad;
    context->on_error = NULL;
    check->report->calls++;
    *y = check->f(context, check->inputs, check->n, check->user);
    context->on_error = on_error;
    if (!context->error)
        return true;
    context->tape->no_grad = no_grad;
    *y = AG_NONE;
    return forgive(check);
}

static double *entries_of(const ag_check *check, int input)
{
    return ag_node_find(check->inputs[input])->value.data;
}

/* The numbers of one input from .. to - 1 are moved by t. */
static bool input_is_kept(ag_check *check, int i, const ag_direction *moved, double t,
                          const char *who)
{
    const double *now = entries_of(check, i);
    for (int64_t k = check->first[i]; k < check->first[i + 1]; k++) {
        bool is_moved = moved && k >= moved->from && k < moved->to;
        double x = check->before[k];
        x = is_moved ? x + t * ag_direction_sign(check, moved, k) : x;
        if (memcmp(&now[k - check->first[i]], &x, sizeof x))
            return ag_check_stop(check, AG_VERDICT_CHANGES_INPUT,
                                 "%s changes its input %d%s%s: entry %lld was %.17g and is %.17g",
                                 who, i, *ag_name(check->inputs[i]) ? " " : "",
                                 ag_name(check->inputs[i]), (long long)(k - check->first[i]), x,
                                 now[k - check->first[i]]);
    }
    return true;
}

bool ag_check_inputs_are_kept(ag_check *check, const ag_direction *moved, double t, const char *who)
{
    for (int i = 0; i < check->n; i++)
        if (!input_is_kept(check, i, moved, t, who))
            return false;
    return true;
}

bool ag_check_is_repeatable(ag_check *check)
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
    ag_branches_watch(check->context);
    ag_var y;
    if (!ag_check_call(check, &y))
        return false;
    check->branches = check->context->tape->watch.branches;
    check->single = check->context->tape->watch.seen_f32;
    check->in_f32 = check->context->tape->watch.in_f32;
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
    return keep_result(check) && ag_check_inputs_are_kept(check, NULL, 0.0, "the function") &&
           ag_check_is_repeatable(check) && result_is_finite(check);
}

/* ---- Moving its inputs ---- */

static double draw_sign(ag_random *random)
{
    return ag_random_uniform(random) < 0.5 ? -1.0 : 1.0;
}

void ag_check_draw_signs(ag_check *check, uint64_t number)
{
    ag_random random = ag_random_stream(check->options.seed, "directions", number);
    for (int64_t k = 0; k < check->entries; k++)
        check->signs[k] = draw_sign(&random);
}

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

/* The direction that was drawn last stays. */
void ag_check_jiggle(ag_check *check, uint64_t number)
{
    ag_random random = ag_random_stream(check->options.seed, "directions", number);
    for (int i = 0; i < check->n; i++) {
        double *x = check->first[i + 1] > check->first[i] ? entries_of(check, i) : NULL;
        for (int64_t k = check->first[i]; k < check->first[i + 1]; k++)
            x[k - check->first[i]] =
                check->before[k] * (1.0 + 2.0 * DBL_EPSILON * draw_sign(&random));
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
