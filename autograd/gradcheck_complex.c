/* The derivative by a complex step:
 *
 *   f(x + i h u) = f(x) + i h f'(x) u - h^2 f''(x) u u / 2 - ..,
 *
 *   so   f'(x) u = Im f(x + i h u) / h
 *
 * up to a part h^2 = 1e-60. Nothing is subtracted, so nothing is lost, and no step has to be found:
 * the derivative has as many right digits as f itself. (Squire, Trapp, "Using complex variables to
 * estimate derivatives of real functions", SIAM Review 40, 1998.)
 *
 * For the time of a call of f the inputs themselves become c128: f, and the layers that it may be
 * made of, hold handles to them. Where f has no complex form, some operation refuses.
 */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define STEP 1e-30
#define TINY_STEP 1e-170 /* its square is 0 */
#define OTHER_STEP 1e-10 /* at the second look, times the first */
#define SAME_RESULT 1e-6 /* real parts and the f64 result may differ by this, relatively */

static double h_of(const ag_check *check)
{
    return check->options.complex_h != 0.0 ? check->options.complex_h : STEP;
}

/* The inputs as c128, or, after an odd number of calls, as f64. */
static void exchange(ag_check *check)
{
    for (int i = 0; i < check->n; i++) {
        ag_node *node = ag_node_find(check->inputs[i]);
        ag_tensor value = node->value;
        node->value = check->twins[i];
        check->twins[i] = value;
    }
}

static bool make_twins(ag_check *check)
{
    ag_context *context = check->context;
    check->twins = ag_memory_new(context, AG_STEP, (size_t)check->n * sizeof *check->twins);
    for (int i = 0; check->twins && i < check->n; i++) {
        const ag_tensor *x = &ag_node_find(check->inputs[i])->value;
        if (!ag_tensor_allocate(context, AG_STEP, AG_C128, ag_tensor_shape(x), &check->twins[i]) ||
            !ag_tensor_copy(context, &check->twins[i], x))
            break;
    }
    return !context->error || ag_check_stop(check, AG_VERDICT_ERROR, "%s", context->message);
}

/* Imaginary parts t u; 0 takes them away again. */
static void set_imaginary(ag_check *check, const ag_direction *direction, double t)
{
    int input = 0;
    for (int64_t k = direction->from; k < direction->to; k++) {
        while (k >= check->first[input + 1])
            input++;
        ag_complex *x = check->twins[input].data;
        x[k - check->first[input]].im = t * ag_direction_sign(check, direction, k);
    }
}

/* Whether y is what f gave for f64, by the same branches: or else this is another function. */
static bool is_the_same_function(const ag_check *check, const ag_tensor *y)
{
    double size = 0.0;
    if (check->context->tape->watch.branches != check->branches ||
        ag_tensor_count(y) != check->results)
        return false;
    for (int64_t i = 0; i < check->results; i++)
        size = fmax(size, fabs(check->y[i]));
    for (int64_t i = 0; i < check->results; i++)
        if (!(fabs(ag_tensor_at(y, i) - check->y[i]) <= SAME_RESULT * size + DBL_MIN))
            return false;
    return true;
}

static void read_step(const ag_check *check, const ag_tensor *y, double t, ag_complex_step *step)
{
    *step = (ag_complex_step){ .found = is_the_same_function(check, y) };
    for (int64_t i = 0; i < check->results && step->found; i++) {
        double term = check->cotangent[i] * (ag_tensor_imaginary_at(y, i) / t);
        step->value += term;
        step->scale += fabs(term);
    }
    step->error = (double)check->results * DBL_MIN / fabs(t); /* what underflows */
    step->found = step->found && isfinite(step->scale);
}

/* Calls f with the inputs as the twins are now. False if the check has stopped. */
static bool call_complex(ag_check *check, double t, ag_complex_step *step)
{
    ag_context *context = check->context;
    ag_tape_mark mark = ag_tape_mark_now(context);
    ag_var y;
    *step = (ag_complex_step){ .found = false };
    context->tape->not_complex = NULL;
    ag_branches_watch(context);
    exchange(check);
    bool going = ag_check_try(check, &y);
    if (ag_is_valid(y))
        read_step(check, ag_value(y), t, step); /* y may be an input */
    exchange(check);
    ag_tape_rewind(context, mark);
    return going;
}

bool ag_check_settle_complex(ag_check *check)
{
    ag_gradcheck_report *report = check->report;
    ag_complex_step step;
    if (check->options.method == AG_GRADCHECK_DIFFERENCES)
        return true;
    if (!make_twins(check) || !call_complex(check, h_of(check), &step))
        return false;
    check->has_complex_form = step.found;
    if (step.found)
        return true;
    const char *operation = check->context->tape->not_complex;
    snprintf(report->no_complex_form, sizeof report->no_complex_form, "%s",
             operation ? operation : "the function");
    if (check->options.method == AG_GRADCHECK_COMPLEX)
        return ag_check_stop(check, AG_VERDICT_ERROR, "%s has no complex form",
                             report->no_complex_form);
    return true;
}

static bool take_step(ag_check *check, const ag_direction *direction, double t,
                      ag_complex_step *step)
{
    set_imaginary(check, direction, t);
    bool going = call_complex(check, t, step);
    set_imaginary(check, direction, 0.0);
    return going;
}

/* Where several entries move, products of them have a real part -h^2: at a kink that is enough for
 * another branch, unless it is too small for a number. */
bool ag_check_step(ag_check *check, const ag_direction *direction, ag_complex_step *step)
{
    *step = (ag_complex_step){ .found = false };
    if (!check->has_complex_form)
        return true;
    if (!take_step(check, direction, h_of(check), step))
        return false;
    if (step->found || check->options.complex_h != 0.0)
        return true;
    return take_step(check, direction, TINY_STEP, step);
}

bool ag_check_step_again(ag_check *check, const ag_direction *direction, ag_complex_step *step)
{
    ag_complex_step other;
    if (!take_step(check, direction, OTHER_STEP * h_of(check), &other))
        return false;
    step->found = step->found && other.found;
    step->error = other.error + 2.0 * fabs(step->value - other.value);
    return true;
}
