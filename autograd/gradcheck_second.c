/* Second order: the gradients of a function are a function too, and are checked as one. And
 * the matrix H of second derivatives is symmetric, whatever the function: u' H v = v' H u. A
 * recorded rule that is not the derivative of anything breaks that. */
#include "gradcheck.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define PAIRS 2                 /* of directions u, v */
#define PLACES 6                /* around the inputs */
#define ASYMMETRY 1e-9          /* allowed relative to the terms of both products .. */
#define SAFETY 8.0              /* .. besides so many times the measured rounding .. */
#define HIDDEN_ROUNDINGS 4096.0 /* .. and so many roundings of the gradient's terms */

typedef struct gradient_function {
    ag_function f;
    void *user;
    uint64_t seed;
} gradient_function;

/* inputs -> d/d inputs of sum(c f(inputs)), joined into one vector. */
static ag_var gradients_of(ag_context *context, const ag_var *inputs, int n, void *user)
{
    const gradient_function *g = user;
    ag_var *gradients = ag_memory_new(context, AG_STEP, (size_t)n * sizeof *gradients);
    ag_var y = gradients ? g->f(context, inputs, n, g->user) : AG_NONE;
    if (!ag_is_valid(y) || !ag_grad_from(y, ag_gradcheck_cotangent(g->seed + 1, y), inputs, n,
                                         gradients, AG_CREATE_GRAPH))
        return ag_poisoned(context);
    for (int i = 0; i < n; i++)
        gradients[i] = ag_reshape(gradients[i], AG_SHAPE(ag_shape_count(ag_shape_of(inputs[i]))));
    /* A gradient that does not depend on the inputs has the derivative 0. */
    ag_var joined = ag_concat(gradients, n, 0);
    for (int i = 0; i < n; i++)
        joined = ag_add(joined, ag_scale(ag_sum(inputs[i], AG_ALL, 0), 0.0));
    return joined;
}

/* ---- Symmetry ---- */

/* The recorded gradients of a function, and two directions through its inputs. */
typedef struct hessian {
    ag_check check;
    ag_var *gradients, *u, *v, *products;
} hessian;

/* Constants of size 1/2 to 3/2 and either sign, of the shapes of the inputs. */
static void draw_direction(const hessian *h, uint64_t seed, ag_var *direction)
{
    const ag_check *check = &h->check;
    for (int i = 0; i < check->n; i++)
        direction[i] =
            ag_gradcheck_cotangent(seed * (uint64_t)check->n + (uint64_t)i, check->inputs[i]);
}

/* v' (H u) = sum of v times the gradient of (gradient' u); *size is the sum of the terms' sizes. */
static double product(const hessian *h, const ag_var *u, const ag_var *v, double *size)
{
    const ag_check *check = &h->check;
    ag_var along = ag_scalar_like(h->gradients[0], 0.0);
    double sum = 0.0;
    for (int i = 0; i < check->n; i++)
        along = ag_add(along, ag_sum(ag_mul(h->gradients[i], u[i]), AG_ALL, 0));
    if (!ag_requires_gradient(along)) /* the gradients are constants */
        return 0.0;
    if (!ag_grad(along, check->inputs, check->n, h->products, 0))
        return NAN;
    for (int i = 0; i < check->n; i++)
        for (int64_t k = 0; k < ag_tensor_count(ag_value(v[i])); k++) {
            double term =
                ag_tensor_at(ag_value(v[i]), k) * ag_tensor_at(ag_value(h->products[i]), k);
            sum += term;
            *size += fabs(term);
        }
    return sum;
}

/* The sum of |v_k p_k|. */
static double size_of_terms(ag_var v, ag_var p)
{
    double sum = 0.0;
    for (int64_t k = 0; k < ag_tensor_count(ag_value(v)); k++)
        sum += fabs(ag_tensor_at(ag_value(v), k) * ag_tensor_at(ag_value(p), k));
    return sum;
}

/* u' H v - v' H u where the inputs are now; *hidden is what may be lost where numbers of the size
 * of the gradient cancel, as 1 - p does where p is nearly 1. */
static double asymmetry(const hessian *h, uint64_t seed, uint64_t pair, double *size,
                        double *hidden)
{
    const ag_check *check = &h->check;
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    check->report->calls++;
    ag_var y = check->f(check->context, check->inputs, check->n, check->user);
    double gap = NAN;
    *size = *hidden = 0.0;
    if (ag_is_valid(y) && ag_grad_from(y, ag_gradcheck_cotangent(seed + 1, y), check->inputs,
                                       check->n, h->gradients, AG_CREATE_GRAPH)) {
        draw_direction(h, seed + 2 * pair, h->u);
        draw_direction(h, seed + 2 * pair + 1, h->v);
        gap = product(h, h->u, h->v, size) - product(h, h->v, h->u, size);
        for (int i = 0; i < check->n; i++)
            *hidden += size_of_terms(h->u[i], h->gradients[i]) * HIDDEN_ROUNDINGS * DBL_EPSILON;
    }
    ag_tape_rewind(check->context, mark);
    return gap;
}

/* In units of what is allowed, the largest over pairs. Rounding is measured as the scatter
 * where the inputs differ in their last bits. */
static double measure_asymmetry(hessian *h, uint64_t seed)
{
    double worst = 0.0;
    for (uint64_t pair = 0; pair < PAIRS && !h->check.context->error; pair++) {
        double size, hidden, largest = 0.0, lost = 0.0, mean = 0.0, squares = 0.0;
        for (uint64_t k = 0; k < PLACES; k++) {
            ag_check_jiggle(&h->check, k);
            double gap = asymmetry(h, seed, pair, &size, &hidden);
            largest = fmax(largest, size);
            lost = fmax(lost, hidden);
            mean += gap / PLACES;
            squares += gap * gap / PLACES;
        }
        double scatter = sqrt(fmax(squares - mean * mean, 0.0));
        double allowed = ASYMMETRY * largest + SAFETY * scatter + lost;
        double units = mean == 0.0 ? 0.0 : fabs(mean) / allowed;
        if (!(units <= worst)) /* it may be NaN, which stays */
            worst = units;
    }
    ag_check_put_back(&h->check);
    return worst;
}

static void check_symmetry(const gradient_function *g, const ag_check *check,
                           ag_gradcheck_report *report)
{
    hessian h = { .check = *check };
    ag_gradcheck_report unused = { 0 };
    ag_tape_mark mark = ag_tape_mark_now(check->context);
    ag_tape_lock lock = ag_tape_lock_now(check->context->tape);
    ag_watch outer = check->context->tape->watch;
    size_t n = (size_t)check->n;
    ag_var *room = ag_memory_new(check->context, AG_STEP, 4 * n * sizeof *room);
    h.check.report = &unused;
    if (room && ag_check_begin(&h.check)) {
        h.gradients = room;
        h.u = room + n;
        h.v = h.u + n;
        h.products = h.v + n;
        report->asymmetry = measure_asymmetry(&h, g->seed);
        report->calls += unused.calls;
        if (!(report->asymmetry <= 1.0) && report->verdict != AG_VERDICT_FAIL) {
            report->verdict = AG_VERDICT_FAIL;
            report->failures++;
            snprintf(report->suspect, sizeof report->suspect, "second derivatives not symmetric");
        }
    } else if (unused.message[0]) {
        report->verdict = unused.verdict;
        memcpy(report->message, unused.message, sizeof report->message);
    }
    check->context->tape->watch = outer;
    ag_tape_unlock(check->context, "gradcheck", lock);
    ag_tape_rewind(check->context, mark);
}

/* Whether the result of f asks for no gradient. Then its gradients are zeros, and right, but a
 * check of them would say nothing. */
static bool is_unconnected(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                           int n, int64_t *calls)
{
    if (!context || context->error || !f || n < 1 || !inputs || !ag_tape_of(context))
        return false;
    for (int i = 0; i < n; i++)
        if (inputs[i].context != context || !ag_is_valid(inputs[i]))
            return false; /* the check says so */
    ag_tape_mark mark = ag_tape_mark_now(context);
    ag_tape_lock lock = ag_tape_lock_now(context->tape);
    ++*calls;
    ag_var y = f(context, inputs, n, user);
    bool unconnected = ag_is_valid(y) && !ag_requires_gradient(y);
    ag_tape_unlock(context, "gradcheck", lock);
    ag_tape_rewind(context, mark);
    return unconnected;
}

bool ag_gradcheck_second(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                         int n, const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    gradient_function g = { f, user, options ? options->seed : 0 };
    ag_check check = { .context = context, .f = f, .user = user, .inputs = inputs, .n = n };
    ag_gradcheck_report unused;
    report = report ? report : &unused;
    int64_t calls = 0;
    if (is_unconnected(context, f, user, inputs, n, &calls)) {
        ag_gradcheck(context, f, user, inputs, n, options, report);
        report->calls += calls;
        return report->passed;
    }
    if (!f)
        ag_fail(context, AG_ERR_ARGUMENT, "gradcheck: a function and inputs are needed");
    ag_gradcheck(context, gradients_of, &g, inputs, n, options, report);
    report->calls += calls;
    if (!context || context->error || report->message[0])
        return report->passed;
    check_symmetry(&g, &check, report);
    if (context->error) {
        report->verdict = AG_VERDICT_ERROR;
        snprintf(report->message, sizeof report->message, "%s", context->message);
    }
    report->passed = report->verdict == AG_VERDICT_PASS || report->verdict == AG_VERDICT_KINK;
    return report->passed;
}
