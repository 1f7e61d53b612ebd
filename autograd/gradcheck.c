/* Gradient checks: is the backward rule the derivative of the forward call?
 *
 * The function's result y is reduced to one number L = sum_i c_i y_i with random
 * c (a plain sum would hide every mistake in a softmax, whose results always
 * sum to 1). Each entry of each input is then moved by +-h and +-2h, and the
 * difference quotient of L is compared with the gradient from backward.
 *
 * Rounding moves L by about eps sum_i |c_i y_i|, and so the quotient by that
 * over h: an allowance of this size, which follows the scale of the function,
 * is all that an entry gets besides the relative tolerance. There is no
 * absolute one, so a gradient that is missing is found however small it is.
 */
#include "internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define DEFAULT_TOLERANCE 1e-6
#define DEFAULT_STEP (1.0 / 8192.0)
#define ROUNDINGS 8.0 /* how often L may have been rounded at its full scale */

typedef struct check {
    ag_context *context;
    ag_function f;
    void *user;
    const ag_var *inputs;
    int n;
    ag_gradcheck_options options;
    ag_gradcheck_report *report;
    double scale; /* sum of |c_i y_i| where the inputs are now */
} check;

static double fail_evaluation(check *c, const char *reason)
{
    if (!c->report->message[0])
        snprintf(c->report->message, sizeof c->report->message, "%s",
                 c->context->error ? c->context->message : reason);
    return NAN;
}

/* c_i: between 1/2 and 3/2 in size, of either sign, so that none is lost. */
static ag_var random_cotangent(const check *c, ag_var y)
{
    ag_tensor *value;
    ag_var cotangent = ag_empty_like(y, &value);
    ag_random random = ag_random_stream(c->options.seed, "gradcheck", 0);
    for (int64_t i = 0; value && i < ag_tensor_count(value); i++) {
        double u = ag_random_uniform(&random);
        ag_tensor_put(value, i, u < 0.5 ? -0.5 - 2.0 * u : 2.0 * u - 0.5);
    }
    return cotangent;
}

static ag_var call(check *c)
{
    char text[160];
    ag_var y = c->f(c->context, c->inputs, c->n, c->user);
    if (c->context->error || !ag_is_valid(y)) {
        fail_evaluation(c, "the function gave no result");
        return ag_poisoned(c->context);
    }
    if (ag_dtype_of(y) != AG_F64) {
        ag_fail(c->context, AG_ERR_DTYPE, "gradcheck: the result %s is %s; check in f64",
                ag_describe(y, text, sizeof text), ag_dtype_name(ag_dtype_of(y)));
        fail_evaluation(c, "");
        return ag_poisoned(c->context);
    }
    return y;
}

/* L where the inputs are now; *scale is sum |c_i y_i|. */
static double evaluate(check *c, double *scale)
{
    ag_tape_mark mark = ag_tape_mark_now(c->context);
    double loss = NAN;
    *scale = 0.0;
    ag_var y = call(c);
    if (ag_is_valid(y)) {
        ag_var cotangent = random_cotangent(c, y);
        loss = 0.0;
        for (int64_t i = 0; i < ag_tensor_count(ag_value(y)); i++) {
            double term = ag_tensor_at(ag_value(y), i) * ag_tensor_at(ag_value(cotangent), i);
            loss += term;
            *scale += fabs(term);
        }
        if (!isfinite(loss))
            loss = fail_evaluation(c, "the result of the function is not finite");
    }
    ag_tape_rewind(c->context, mark);
    return loss;
}

/* The derivative of L by *x; noise bounds its rounding error. */
static double difference(check *c, ag_node *leaf, double *x, double *noise)
{
    double before = *x, h = c->options.step, loss[5], scale = c->scale, s;
    uint32_t version = leaf->base->version;
    while (h < c->options.step * fabs(before))
        h *= 2.0; /* a power of two times the step: x + h is then close to exact */
    for (int k = -2; k <= 2; k++) {
        if (k == 0)
            continue;
        *x = before + k * h;
        leaf->base->version++;
        loss[k + 2] = evaluate(c, &s);
        scale = s > scale ? s : scale;
    }
    *x = before;
    leaf->base->version = version; /* nothing that saw another value is left */
    *noise = ROUNDINGS * DBL_EPSILON * scale / h;
    return (8.0 * (loss[3] - loss[1]) - (loss[4] - loss[0])) / (12.0 * h);
}

static void place_of(const ag_tensor *x, int64_t k, int64_t *index)
{
    for (int i = x->rank - 1; i >= 0; i--) {
        index[i] = k % x->dims[i];
        k /= x->dims[i];
    }
}

/* An entry by one of the two ways; notes it in the report if it is the worst
 * so far. Returns whether it disagrees. */
static bool judge(check *c, int input, int64_t k, double analytic, bool recorded, double numeric,
                  double noise)
{
    ag_gradcheck_report *report = c->report;
    double size = fmax(fabs(analytic), fabs(numeric)), gap = fabs(analytic - numeric);
    double allowed = c->options.tolerance * size + noise;
    double badness = gap == 0.0 ? 0.0 : gap / allowed;
    bool wrong = !(badness <= 1.0); /* a NaN is wrong too */
    const ag_tensor *x = ag_value(c->inputs[input]);
    if (wrong && c->options.log)
        fprintf(c->options.log, "  input %d %s entry %lld%s: analytic %.10g, numeric %.10g\n",
                input, ag_name(c->inputs[input]), (long long)k, recorded ? " (recorded)" : "",
                analytic, numeric);
    bool first = report->entries == 0 && !recorded;
    if (!first && (isnan(report->worst) || badness <= report->worst))
        return wrong;
    report->worst = badness;
    report->input = input;
    snprintf(report->name, sizeof report->name, "%s", ag_name(c->inputs[input]));
    report->rank = x->rank;
    place_of(x, k, report->index);
    report->analytic = analytic;
    report->numeric = numeric;
    report->ratio = analytic / numeric;
    report->error = size > 0.0 ? gap / size : 0.0;
    report->recorded = recorded;
    return wrong;
}

static bool compare_input(check *c, int input, const ag_tensor *usual, const ag_tensor *recorded)
{
    ag_node *leaf = ag_node_find(c->inputs[input]);
    int64_t count = ag_tensor_count(&leaf->value);
    for (int64_t k = 0; k < count; k++) {
        double noise, *x = (double *)leaf->value.data + k;
        double numeric = difference(c, leaf, x, &noise);
        if (c->report->message[0])
            return false;
        double first = ag_tensor_at(usual, k), second = ag_tensor_at(recorded, k);
        bool wrong = judge(c, input, k, first, false, numeric, noise);
        if (second != first)
            wrong |= judge(c, input, k, second, true, numeric, noise);
        c->report->entries++;
        c->report->failures += wrong;
    }
    return true;
}

/* The gradients of L by the engine, in one of the two ways. */
static bool analytic_gradients(check *c, ag_var *gradients, unsigned flags)
{
    ag_var y = call(c);
    if (!ag_is_valid(y))
        return false;
    if (!ag_requires_gradient(y))
        ag_fail(c->context, AG_ERR_STATE,
                "gradcheck: the result does not depend on anything that asks for a gradient");
    else
        ag_grad_from(y, random_cotangent(c, y), c->inputs, c->n, gradients, flags);
    if (c->context->error)
        fail_evaluation(c, "");
    return !c->context->error;
}

static bool check_inputs(check *c)
{
    char text[160];
    if (!c->f || c->n < 1 || !c->inputs)
        return ag_fail(c->context, AG_ERR_ARGUMENT, "gradcheck: a function and inputs are needed");
    for (int i = 0; i < c->n; i++) {
        ag_node *node = ag_node_require(c->context, "gradcheck", c->inputs[i]);
        if (!node)
            return false;
        ag_describe(c->inputs[i], text, sizeof text);
        if (node->value.dtype != AG_F64)
            return ag_fail(c->context, AG_ERR_DTYPE, "gradcheck: %s is %s; check in f64", text,
                           ag_dtype_name(node->value.dtype));
        if (node->op || !node->requires_gradient || !ag_tensor_is_contiguous(&node->value))
            return ag_fail(c->context, AG_ERR_STATE,
                           "gradcheck: %s is not a leaf that asks for a gradient", text);
    }
    return true;
}

/* The gradients by fused rules stand in front, the recorded ones behind them. */
static void run(check *c)
{
    ag_tape_mark mark = ag_tape_mark_now(c->context);
    ag_var *usual = ag_memory_new(c->context, AG_STEP, 2 * (size_t)c->n * sizeof *usual);
    ag_tape_lock lock = ag_tape_lock_now(c->context->tape);
    if (usual && analytic_gradients(c, usual, 0) &&
        analytic_gradients(c, usual + c->n, AG_CREATE_GRAPH)) {
        evaluate(c, &c->scale);
        for (int i = 0; i < c->n && !c->report->message[0]; i++)
            compare_input(c, i, ag_value(usual[i]), ag_value(usual[c->n + i]));
    }
    ag_tape_unlock(c->context, "gradcheck", lock);
    ag_tape_rewind(c->context, mark);
}

bool ag_gradcheck(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                  const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    ag_gradcheck_report unused;
    check c = { .context = context, .f = f, .user = user, .inputs = inputs, .n = n };
    c.report = report ? report : &unused;
    memset(c.report, 0, sizeof *c.report);
    if (!context)
        return false;
    if (options)
        c.options = *options;
    if (c.options.tolerance == 0.0)
        c.options.tolerance = DEFAULT_TOLERANCE;
    if (c.options.step == 0.0)
        c.options.step = DEFAULT_STEP;
    if (!(c.options.tolerance > 0.0 && c.options.step > 0.0))
        ag_fail(context, AG_ERR_ARGUMENT, "gradcheck: tolerance %g and step %g must be above 0",
                c.options.tolerance, c.options.step);
    if (ag_tape_of(context) && check_inputs(&c))
        run(&c);
    if (context->error)
        fail_evaluation(&c, "");
    c.report->passed = !c.report->message[0] && c.report->failures == 0;
    return c.report->passed;
}

/* ---- Second order: the gradients of f are a function too ---- */

typedef struct gradient_function {
    ag_function f;
    void *user;
    uint64_t seed;
} gradient_function;

/* inputs -> d/d inputs of sum(c f(inputs)), joined into one vector. */
static ag_var gradients_of(ag_context *context, const ag_var *inputs, int n, void *user)
{
    const gradient_function *g = user;
    check c = { .context = context, .options = { .seed = g->seed + 1 } };
    ag_var *gradients = ag_memory_new(context, AG_STEP, (size_t)n * sizeof *gradients);
    ag_var y = gradients ? g->f(context, inputs, n, g->user) : AG_NONE;
    if (!ag_is_valid(y) ||
        !ag_grad_from(y, random_cotangent(&c, y), inputs, n, gradients, AG_CREATE_GRAPH))
        return ag_poisoned(context);
    for (int i = 0; i < n; i++)
        gradients[i] = ag_reshape(gradients[i], AG_SHAPE(ag_shape_count(ag_shape_of(inputs[i]))));
    /* A gradient that does not depend on the inputs has the derivative 0. */
    ag_var joined = ag_concat(gradients, n, 0);
    for (int i = 0; i < n; i++)
        joined = ag_add(joined, ag_scale(ag_sum(inputs[i], AG_ALL, 0), 0.0));
    return joined;
}

bool ag_gradcheck_second(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                         int n, const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    gradient_function g = { f, user, options ? options->seed : 0 };
    if (!f)
        ag_fail(context, AG_ERR_ARGUMENT, "gradcheck: a function and inputs are needed");
    return ag_gradcheck(context, gradients_of, &g, inputs, n, options, report);
}

/* ---- The report ---- */

void ag_gradcheck_print(const ag_gradcheck_report *report, FILE *file)
{
    if (!report || !file)
        return;
    fprintf(file, "%s: %lld entries", report->passed ? "PASS" : "FAIL", (long long)report->entries);
    if (report->message[0])
        fprintf(file, "; %s", report->message);
    if (report->failures > 0)
        fprintf(file, ", %lld wrong", (long long)report->failures);
    if (report->entries > 0) {
        fprintf(file, "; worst: input %d%s%s [", report->input, report->name[0] ? " " : "",
                report->name);
        for (int i = 0; i < report->rank; i++)
            fprintf(file, i ? ",%lld" : "%lld", (long long)report->index[i]);
        fprintf(file, "] analytic %.10g%s, numeric %.10g, ratio %.9g, relative error %.2g",
                report->analytic, report->recorded ? " (recorded)" : "", report->numeric,
                report->ratio, report->error);
    }
    fputc('\n', file);
}
