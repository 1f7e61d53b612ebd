/* The gradients that are checked, and what rounding does to them. */
#include "gradcheck.h"

#include <math.h>
#include <string.h>

#define JIGGLES 8       /* at first .. */
#define MORE_JIGGLES 24 /* .. and so many more before a gradient is said to be wrong */
#define LAST_BITS 1e-6  /* relative: other branches that were taken move a gradient by more */

/* ---- Both ways to the gradient ---- */

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
double *ag_check_gradients(ag_check *check, unsigned flags)
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

/* A rule may be as little deterministic as a function, and change its inputs. */
static double *repeatable_gradients(ag_check *check, unsigned flags)
{
    double *once = ag_check_gradients(check, flags);
    const double *twice = once ? ag_check_gradients(check, flags) : NULL;
    if (!twice || !ag_check_inputs_are_kept(check, NULL, 0.0, "the gradient of the function"))
        return NULL;
    for (int64_t k = 0; k < check->entries; k++)
        if (memcmp(&once[k], &twice[k], sizeof *once)) {
            ag_check_stop(check, AG_VERDICT_NOT_DETERMINISTIC,
                          "backward twice gives other bits: entry %lld of the gradient is %.17g "
                          "and then %.17g",
                          (long long)k, once[k], twice[k]);
            return NULL;
        }
    return once;
}

bool ag_check_find_gradients(ag_check *check)
{
    check->usual = repeatable_gradients(check, 0);
    check->recorded = check->usual ? repeatable_gradients(check, AG_CREATE_GRAPH) : NULL;
    return check->recorded != NULL;
}

/* ---- Their rounding ---- */

/* The gradient where no or all inputs and results of operations differ in their last bits. NULL if
 * the check has stopped. */
static const double *watched_gradients(ag_check *check, unsigned flags, ag_random *jiggle,
                                       uint64_t *branches)
{
    ag_branches_watch(check->context);
    check->context->tape->watch.jiggle = jiggle;
    const double *gradient = ag_check_gradients(check, flags);
    *branches = check->context->tape->watch.branches;
    check->context->tape->watch.jiggle = NULL;
    return gradient;
}

/* How much the gradient's entries scatter where the inputs and everything computed from them differ
 * in the last bits: where backward subtracts numbers that are nearly equal, as 1 - y^2 in a
 * saturated tanh, that is more than a rounding or two. Last bits also decide between equal numbers,
 * in max or ReLU: what moves much then is not looked at. */
static bool measure_spread(ag_check *check, unsigned flags, const double *gradient, bool again)
{
    int first = again ? JIGGLES : 0, end = again ? JIGGLES + MORE_JIGGLES : JIGGLES;
    uint64_t usual, branches;
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    double *spread = ag_check_numbers(check, check->entries);
    double *count = ag_check_numbers(check, check->entries);
    if (!spread || !count)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int64_t k = 0; k < check->entries; k++)
        spread[k] = count[k] = 0.0;
    bool going = watched_gradients(check, flags, NULL, &usual) != NULL;
    for (int i = first; i < end && going; i++) {
        ag_memory_mark memory = ag_memory_mark_step(check->context);
        ag_random random = ag_random_stream(check->options.seed, "jiggle", (uint64_t)i);
        ag_check_jiggle(check, (uint64_t)i);
        const double *moved = watched_gradients(check, flags, &random, &branches);
        for (int64_t k = 0; moved && k < check->entries; k++) {
            double move = moved[k] - gradient[k];
            if (branches != usual && !(fabs(move) <= LAST_BITS * fabs(gradient[k])))
                continue;
            spread[k] = hypot(spread[k], move);
            count[k]++;
        }
        going = moved != NULL;
        ag_memory_rewind_step(check->context, memory);
    }
    ag_check_put_back(check);
    for (int64_t k = 0; k < check->entries; k++)
        if (count[k] > 0.0)
            check->rounding[k] = fmax(check->rounding[k], spread[k] / sqrt(count[k]));
    ag_tape_rewind(check->context, mark);
    return going;
}

/* The larger of what both ways to the gradient show: what a fused rule rounds inside of its kernel
 * is seen where the same is composed of operations. */
bool ag_check_measure_rounding(ag_check *check)
{
    bool again = check->rounding != NULL;
    if (!again)
        check->rounding = ag_check_numbers(check, check->entries);
    if (!check->rounding)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    for (int64_t k = 0; k < check->entries && !again; k++)
        check->rounding[k] = 0.0;
    check->rounding_is_sure = again;
    return measure_spread(check, 0, check->usual, again) &&
           measure_spread(check, AG_CREATE_GRAPH, check->recorded, again);
}
