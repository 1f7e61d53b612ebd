/* The list of what learns: an array of names and variables that grows by
 * doubling. All of it lives in the context until that ends, so a variable
 * handed out stays good for as long as there is anything to ask it. */
#include "internal.h"

#include <math.h>
#include <string.h>

ag_params *ag_params_new(ag_context *context)
{
    if (!context || ag_status(context) != AG_OK)
        return NULL;
    ag_params *params = ag_memory_new(context, AG_KEEP, sizeof *params);
    if (params)
        *params = (ag_params){ .context = context };
    return params;
}

/* Room for one more entry. */
static bool reserve(ag_params *params)
{
    if (params->count < params->capacity)
        return true;
    int capacity = params->capacity ? 2 * params->capacity : 16;
    ag_params_entry *entries =
        ag_memory_new(params->context, AG_KEEP, (size_t)capacity * sizeof *entries);
    if (!entries)
        return false;
    if (params->count > 0)
        memcpy(entries, params->entries, (size_t)params->count * sizeof *entries);
    params->entries = entries;
    params->capacity = capacity;
    return true;
}

/* "prefix.name", or "name" without a prefix. */
static char *join_name(ag_context *context, const char *prefix, const char *name)
{
    size_t before = prefix ? strlen(prefix) : 0, length = strlen(name);
    size_t dot = before > 0;
    char *text = ag_memory_new(context, AG_KEEP, before + dot + length + 1);
    if (!text)
        return NULL;
    if (before > 0) {
        memcpy(text, prefix, before);
        text[before] = '.';
    }
    memcpy(text + before + dot, name, length + 1);
    return text;
}

static int find(const ag_params *params, const char *name)
{
    for (int i = 0; i < params->count; i++)
        if (strcmp(params->entries[i].name, name) == 0)
            return i;
    return -1;
}

/* A variable with its first numbers, not yet in the list. */
static ag_var make_parameter(ag_context *context, const char *name, ag_shape shape, ag_init init)
{
    ag_var v = ag_parameter(context, name, AG_DEFAULT_DTYPE, shape);
    ag_tensor *value = ag_is_valid(v) ? ag_value_mutable(v) : NULL;
    return value && ag_init_fill(context, name, init, value) ? v : ag_poisoned(context);
}

ag_var ag_params_add(ag_params *params, const char *prefix, const char *name, ag_shape shape,
                     ag_init init)
{
    if (!params)
        return AG_NONE;
    ag_context *context = params->context;
    if (ag_status(context) != AG_OK)
        return ag_poisoned(context);
    if (!name || !*name) {
        ag_fail(context, AG_ERR_ARGUMENT, "params_add: a parameter needs a name");
        return ag_poisoned(context);
    }
    char *full = join_name(context, prefix, name);
    if (!full || !ag_init_check(context, full, init))
        return ag_poisoned(context);
    if (find(params, full) >= 0) {
        ag_fail(context, AG_ERR_ARGUMENT, "params_add: there is already a parameter called %s",
                full);
        return ag_poisoned(context);
    }
    if (!reserve(params))
        return ag_poisoned(context);
    ag_var v = make_parameter(context, full, shape, init);
    if (ag_is_valid(v))
        params->entries[params->count++] = (ag_params_entry){ full, v };
    return v;
}

void ag_params_truncate(ag_params *params, int count)
{
    params->count = count;
}

int ag_params_count(const ag_params *params)
{
    return params ? params->count : 0;
}

ag_var ag_params_at(const ag_params *params, int i)
{
    if (!params)
        return AG_NONE;
    if (i < 0 || i >= params->count) {
        ag_fail(params->context, AG_ERR_INDEX, "params_at: no parameter %d among %d", i,
                params->count);
        return ag_poisoned(params->context);
    }
    return params->entries[i].var;
}

ag_var ag_params_find(const ag_params *params, const char *name)
{
    int i = params && name ? find(params, name) : -1;
    return i < 0 ? AG_NONE : params->entries[i].var;
}

int64_t ag_params_size(const ag_params *params)
{
    int64_t size = 0;
    for (int i = 0; i < ag_params_count(params); i++)
        size += ag_shape_count(ag_shape_of(params->entries[i].var));
    return size;
}

void ag_params_clear_gradients(ag_params *params)
{
    for (int i = 0; i < ag_params_count(params); i++)
        ag_clear_gradient(params->entries[i].var);
}

/* norm = sqrt(sum over parameters and their elements of g^2), in f64. */
double ag_params_gradient_norm(const ag_params *params)
{
    double sum = 0;
    if (params && ag_status(params->context) != AG_OK)
        return NAN;
    for (int i = 0; i < ag_params_count(params); i++) {
        const ag_tensor *g = ag_gradient(params->entries[i].var);
        if (g)
            sum += ag_compute_sum_of_squares(g);
    }
    return sqrt(sum);
}

/* g = g max_norm / norm where norm > max_norm. */
double ag_params_clip_gradients(ag_params *params, double max_norm)
{
    if (!params || ag_status(params->context) != AG_OK)
        return NAN;
    if (!(max_norm > 0)) {
        ag_fail(params->context, AG_ERR_ARGUMENT,
                "params_clip_gradients: max_norm is %g, but must be above 0", max_norm);
        return NAN;
    }
    double norm = ag_params_gradient_norm(params);
    if (!isfinite(norm)) {
        ag_fail(params->context, AG_ERR_ARGUMENT,
                "params_clip_gradients: the norm of the gradients is %g", norm);
        return norm;
    }
    for (int i = 0; i < params->count && norm > max_norm; i++) {
        ag_tensor *g = ag_gradient_mutable(params->entries[i].var);
        if (g && !ag_compute_unary(params->context, AG_UNARY_SCALE, max_norm / norm, g, g))
            return NAN;
    }
    return norm;
}
