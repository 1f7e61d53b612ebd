/* Optimisers: what they remember of each parameter, and one step.
 *
 *   SGD     u = momentum u + g,  p = p - lr u
 *   Adam    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *           p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 *   AdamW   the same, and p = p - lr weight_decay p with the p from before
 *
 * t counts the updates of a parameter. One without a gradient is left out of a
 * step and keeps its u, or m, v and t. */
#include "internal.h"

#include <math.h>
#include <string.h>

/* What is remembered of one parameter: u, or m and v. NULL where not needed. */
typedef struct moments {
    ag_tensor *first, *second;
    int64_t steps;       /* of this parameter: t in Adam's formulas */
    double weight_decay; /* of this parameter; AdamW only */
} moments;

typedef enum method { METHOD_SGD, METHOD_ADAM, METHOD_ADAMW } method;

struct ag_optimizer {
    ag_params *params;
    method method;
    ag_sgd_options sgd;
    ag_adam_options adam;
    double lr;
    int64_t steps;
    int count, capacity; /* of state: the first parameters of params, in their order */
    moments *state;
};

/* ---- State ---- */

static bool reserve_state(ag_optimizer *optimizer, int count)
{
    if (count <= optimizer->capacity)
        return true;
    int capacity = count > 2 * optimizer->capacity ? count : 2 * optimizer->capacity;
    moments *state =
        ag_memory_new(optimizer->params->context, AG_KEEP, (size_t)capacity * sizeof *state);
    if (!state)
        return false;
    if (optimizer->count > 0)
        memcpy(state, optimizer->state, (size_t)optimizer->count * sizeof *state);
    optimizer->state = state;
    optimizer->capacity = capacity;
    return true;
}

/* Zeros like p. */
static ag_tensor *zeros_like(ag_var p)
{
    return ag_tensor_new(p.context, AG_KEEP, ag_dtype_of(p), ag_shape_of(p));
}

/* State for the parameters that came since the last call. */
static bool extend_state(ag_optimizer *optimizer)
{
    int count = optimizer->params->count;
    if (!reserve_state(optimizer, count))
        return false;
    bool adam = optimizer->method != METHOD_SGD;
    bool first = adam || optimizer->sgd.momentum > 0, second = adam;
    while (optimizer->count < count) {
        ag_var p = optimizer->params->entries[optimizer->count].var;
        moments made = { .weight_decay = optimizer->adam.weight_decay };
        if ((first && !(made.first = zeros_like(p))) || (second && !(made.second = zeros_like(p))))
            return false;
        optimizer->state[optimizer->count++] = made;
    }
    return true;
}

static ag_optimizer *new_optimizer(const ag_optimizer *start)
{
    ag_optimizer *optimizer = ag_memory_new(start->params->context, AG_KEEP, sizeof *optimizer);
    if (!optimizer)
        return NULL;
    *optimizer = *start;
    return extend_state(optimizer) ? optimizer : NULL;
}

/* ---- Making one ---- */

/* params are given and without an error, options are given, and lr is usable. */
static bool check_start(const ag_params *params, const char *operation, const void *options,
                        const double *lr)
{
    if (!params || ag_status(params->context) != AG_OK)
        return false;
    if (!options)
        return ag_fail(params->context, AG_ERR_ARGUMENT, "%s: options is NULL", operation);
    if (!(*lr > 0) || !isfinite(*lr)) {
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "%s: lr is %g, but must be a finite number above 0", operation, *lr);
    }
    return true;
}

/* 0 <= value < 1 */
static bool check_decay_rate(ag_context *context, const char *operation, const char *what,
                             double value)
{
    if (value >= 0 && value < 1)
        return true;
    return ag_fail(context, AG_ERR_ARGUMENT, "%s: %s is %g, outside [0, 1)", operation, what,
                   value);
}

ag_optimizer *ag_sgd_new(ag_params *params, const ag_sgd_options *options)
{
    static const char name[] = "sgd_new";
    if (!check_start(params, name, options, options ? &options->lr : NULL) ||
        !check_decay_rate(params->context, name, "momentum", options->momentum))
        return NULL;
    return new_optimizer(&(ag_optimizer){
        .params = params, .method = METHOD_SGD, .lr = options->lr, .sgd = *options });
}

/* Adam and AdamW: weight_decay is what is used, after its default. */
static ag_optimizer *new_adam(ag_params *params, method kind, const char *name,
                              const ag_adam_options *options, double weight_decay)
{
    ag_adam_options o = *options;
    o.beta1 = o.beta1 == 0 ? 0.9 : o.beta1;
    o.beta2 = o.beta2 == 0 ? 0.999 : o.beta2;
    o.epsilon = o.epsilon == 0 ? 1e-8 : o.epsilon;
    o.weight_decay = weight_decay;
    if (!check_decay_rate(params->context, name, "beta1", o.beta1) ||
        !check_decay_rate(params->context, name, "beta2", o.beta2))
        return NULL;
    if (!(o.epsilon > 0) || !isfinite(o.epsilon)) {
        ag_fail(params->context, AG_ERR_ARGUMENT,
                "%s: epsilon is %g, but must be a finite number above 0", name, o.epsilon);
        return NULL;
    }
    if (!isfinite(o.weight_decay)) {
        ag_fail(params->context, AG_ERR_ARGUMENT, "%s: weight_decay is %g, not finite", name,
                o.weight_decay);
        return NULL;
    }
    return new_optimizer(
        &(ag_optimizer){ .params = params, .method = kind, .lr = o.lr, .adam = o });
}

ag_optimizer *ag_adam_new(ag_params *params, const ag_adam_options *options)
{
    static const char name[] = "adam_new";
    if (!check_start(params, name, options, options ? &options->lr : NULL))
        return NULL;
    if (!(options->weight_decay <= 0)) {
        ag_fail(params->context, AG_ERR_ARGUMENT, "%s: weight_decay %g is for ag_adamw_new", name,
                options->weight_decay);
        return NULL;
    }
    return new_adam(params, METHOD_ADAM, name, options, 0);
}

ag_optimizer *ag_adamw_new(ag_params *params, const ag_adam_options *options)
{
    static const char name[] = "adamw_new";
    if (!check_start(params, name, options, options ? &options->lr : NULL))
        return NULL;
    double decay = options->weight_decay;
    return new_adam(params, METHOD_ADAMW, name, options, decay == 0 ? 0.01 : decay < 0 ? 0 : decay);
}

/* ---- A step ---- */

/* base^n by repeated squaring: pow of the C library may differ in its last bit
 * from one platform to the next. */
static double power(double base, int64_t n)
{
    double result = 1;
    for (; n > 0; n /= 2) {
        if (n % 2 == 1)
            result *= base;
        base *= base;
    }
    return result;
}

/* All that could go wrong is asked before anything is changed. */
static bool check_step(const ag_optimizer *optimizer)
{
    const ag_params *params = optimizer->params;
    int with_gradient = 0;
    for (int i = 0; i < params->count; i++) {
        ag_var p = params->entries[i].var;
        const ag_tensor *g = ag_gradient(p);
        if (!g)
            continue;
        const ag_tensor *value = ag_value(p);
        if (g->dtype != value->dtype || !ag_tensor_same_shape(g, value)) {
            char text[128], got[128];
            return ag_fail(params->context, AG_ERR_SHAPE,
                           "optimizer_step: the gradient of %s is %s %s",
                           ag_describe(p, text, sizeof text), ag_dtype_name(g->dtype),
                           ag_shape_text(ag_tensor_shape(g), got, sizeof got));
        }
        with_gradient++;
    }
    if (with_gradient == 0) {
        return ag_fail(params->context, AG_ERR_STATE,
                       "optimizer_step: no parameter has a gradient; call ag_backward first");
    }
    return true;
}

static bool update(ag_optimizer *optimizer, ag_var parameter, moments *state)
{
    ag_context *context = parameter.context;
    const ag_tensor *g = ag_gradient(parameter);
    ag_tensor *p = ag_value_mutable(parameter);
    if (!p)
        return false;
    if (optimizer->method == METHOD_SGD)
        return ag_compute_sgd(context, p, g, state->first, optimizer->lr, optimizer->sgd.momentum);
    const ag_adam_options *o = &optimizer->adam;
    state->steps++;
    const ag_adam_step step = {
        .lr = optimizer->lr,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .epsilon = o->epsilon,
        .weight_decay = state->weight_decay,
        .correction1 = 1 - power(o->beta1, state->steps),
        .correction2 = 1 - power(o->beta2, state->steps),
    };
    return ag_compute_adam(context, p, g, state->first, state->second, &step);
}

bool ag_optimizer_step(ag_optimizer *optimizer)
{
    if (!optimizer || ag_status(optimizer->params->context) != AG_OK)
        return false;
    if (!check_step(optimizer) || !extend_state(optimizer))
        return false;
    optimizer->steps++;
    for (int i = 0; i < optimizer->count; i++) {
        ag_var parameter = optimizer->params->entries[i].var;
        if (!ag_gradient(parameter))
            continue;
        if (!update(optimizer, parameter, &optimizer->state[i]))
            return false;
        ag_clear_gradient(parameter);
    }
    return true;
}

double ag_optimizer_lr(const ag_optimizer *optimizer)
{
    return optimizer ? optimizer->lr : NAN;
}

bool ag_optimizer_set_lr(ag_optimizer *optimizer, double lr)
{
    if (!optimizer || ag_status(optimizer->params->context) != AG_OK)
        return false;
    if (!(lr >= 0) || !isfinite(lr)) {
        return ag_fail(optimizer->params->context, AG_ERR_ARGUMENT,
                       "optimizer_set_lr: lr is %g, but must be at least 0", lr);
    }
    optimizer->lr = lr;
    return true;
}

/* The place of a parameter in the optimiser's list; -1 if it is not there. */
static int place_of(const ag_optimizer *optimizer, ag_var parameter)
{
    const ag_params *params = optimizer->params;
    for (int i = 0; i < params->count; i++) {
        ag_var p = params->entries[i].var;
        if (p.context == parameter.context && p.index == parameter.index &&
            p.generation == parameter.generation)
            return i;
    }
    return -1;
}

bool ag_optimizer_set_weight_decay(ag_optimizer *optimizer, ag_var parameter, double weight_decay)
{
    static const char name[] = "optimizer_set_weight_decay";
    if (!optimizer || ag_status(optimizer->params->context) != AG_OK)
        return false;
    char text[160];
    ag_context *context = optimizer->params->context;
    if (optimizer->method != METHOD_ADAMW)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: only AdamW decays weights", name);
    if (!(weight_decay >= 0) || !isfinite(weight_decay))
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: weight_decay is %g, but must be a finite number from 0 on", name,
                       weight_decay);
    int place = place_of(optimizer, parameter);
    if (place < 0)
        return ag_fail(
            context, AG_ERR_ARGUMENT, "%s: %s is not among the parameters of this optimiser", name,
            ag_is_valid(parameter) ? ag_describe(parameter, text, sizeof text) : "this variable");
    if (!extend_state(optimizer))
        return false;
    optimizer->state[place].weight_decay = weight_decay;
    return true;
}

int64_t ag_optimizer_steps(const ag_optimizer *optimizer)
{
    return optimizer ? optimizer->steps : 0;
}
