/* Gradient checks: is the backward rule the derivative of the forward call?
 *
 * The function's result y is reduced to one number L = sum_i c_i y_i with random
 * c (a plain sum would hide every mistake in a softmax, whose results always
 * sum to 1). The derivative of L by each entry of each input is taken from differences,
 * which say themselves how exact they are (difference.c), and from complex steps
 * (gradcheck_complex.c). The gradient from backward has to lie within that interval
 * (gradcheck_judge.c). No tolerance is involved, so that the scale of L does not
 * matter, and a gradient that is missing is found however small it is.
 */
#include "gradcheck.h"

#include <math.h>
#include <string.h>

#define DEFAULT_RESOLUTION 1e-6

/* ---- The check ---- */

/* Whether two inputs share memory: then moving one would move the other. */
static bool overlap(const ag_node *a, const ag_node *b)
{
    const double *x = a->value.data, *y = b->value.data;
    return a == b || (x < y + ag_tensor_count(&b->value) && y < x + ag_tensor_count(&a->value));
}

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
        if (node->op || !node->requires_gradient)
            return ag_fail(check->context, AG_ERR_STATE, "gradcheck: %s %s", text,
                           node->op ? "is the result of an operation, not a leaf"
                                    : "does not ask for a gradient");
        if (!ag_tensor_is_contiguous(&node->value))
            return ag_fail(check->context, AG_ERR_STATE,
                           "gradcheck: %s does not lie row by row in memory", text);
        for (int j = 0; j < i; j++)
            if (overlap(ag_node_find(check->inputs[j]), node))
                return ag_fail(check->context, AG_ERR_ARGUMENT,
                               "gradcheck: inputs %d and %d are the same memory, %s", j, i, text);
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
    ag_watch outer = check->context->tape->watch; /* of a check whose function this is part of */
    bool ready = ag_check_begin(check) && ag_check_find_gradients(check) &&
                 ag_check_measure_rounding(check) && ag_check_measure_noise(check) &&
                 ag_check_settle_complex(check);
    if (ready && check->options.directions > 0)
        ag_check_directions(check);
    else if (ready)
        ag_check_entries(check);
    if (ready && !check->report->message[0])
        ag_check_is_repeatable(check);
    if (check->context->error)
        ag_check_stop(check, AG_VERDICT_ERROR, "%s", check->context->message);
    if (check->before)
        ag_check_put_back(check);
    ag_check_conclude(check);
    check->context->tape->watch = outer;
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
    if (options->resolution > 0.0 && options->tolerance >= 0.0 && isfinite(options->tolerance) &&
        options->directions >= 0)
        return true;
    return ag_fail(check->context, AG_ERR_ARGUMENT,
                   "gradcheck: resolution %g must be above 0, tolerance %g finite and not below, "
                   "directions %d not below",
                   options->resolution, options->tolerance, options->directions);
}

/* The first node whose own rule fails; none if each is right by itself. */
static void locate(ag_check *check)
{
    ag_node_fault fault;
    ag_gradcheck_options options = { .seed = check->options.seed, .method = check->options.method };
    check->report->calls++;
    if (ag_gradcheck_nodes(check->context, check->f, check->user, check->inputs, check->n, &options,
                           &fault, 1) <= 0)
        return;
    check->report->node = fault.node;
    memcpy(check->report->op, fault.op, sizeof fault.op);
    if (check->report->by_directions)
        memcpy(check->report->suspect, fault.report.suspect, sizeof fault.report.suspect);
}

bool ag_gradcheck(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                  const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    return ag_check_function(context, f, user, inputs, n, options, report, true);
}

static bool start(ag_check *check, const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    ag_gradcheck_report unused;
    check->report = report ? report : &unused;
    memset(check->report, 0, sizeof *check->report);
    check->report->verdict = AG_VERDICT_ERROR;
    if (!check->context)
        return false;
    if (options)
        check->options = *options;
    check->report->seed = check->options.seed;
    if (check->only)
        check->options.directions = 0;
    if (check_options(check) && ag_tape_of(check->context) && check_inputs(check))
        run(check);
    if (check->follow && !check->context->error && check->report->verdict == AG_VERDICT_FAIL)
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
    ag_check check = {
        .context = context, .f = f, .user = user, .inputs = inputs, .n = n, .follow = follow
    };
    return start(&check, options, report);
}

bool ag_gradcheck_entry(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                        int64_t entry, const ag_gradcheck_options *options,
                        ag_gradcheck_report *report)
{
    ag_check check = {
        .context = context, .f = f, .user = user, .inputs = inputs, .n = n, .only = &entry
    };
    return start(&check, options, report);
}
