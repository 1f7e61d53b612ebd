/* The norm layers: layer norm and RMS norm with their parameters. The formulas
 * are those of the operations, in autograd/norms.c. */
#include "internal.h"

#include <math.h>

bool ag_norm_init(ag_norm *norm, ag_params *params, const char *name,
                  const ag_norm_options *options)
{
    if (norm)
        *norm = (ag_norm){ .gain = AG_NONE };
    if (!ag_layer_can_start(params, "norm_init", norm, name, options))
        return false;
    ag_norm made = { .options = *options };
    const ag_norm_options *o = options;
    if (o->d < 1)
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "norm_init: %s: d is %lld, but must be at least 1", name, (long long)o->d);
    if (o->kind != AG_LAYER_NORM && o->kind != AG_RMS_NORM)
        return ag_fail(params->context, AG_ERR_ARGUMENT, "norm_init: %s: there is no norm %d", name,
                       (int)o->kind);
    if (!(o->epsilon >= 0) || !isfinite(o->epsilon))
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "norm_init: %s: epsilon is %g, but must be a finite number from 0 on", name,
                       o->epsilon);
    int count = ag_params_count(params);
    const ag_init ones = { AG_INIT_CONSTANT, 1 }, zeros = { .kind = AG_INIT_ZEROS };
    made.gain = ag_params_add(params, name, "gain", AG_SHAPE(o->d), ones);
    if (o->kind == AG_LAYER_NORM)
        made.bias = ag_params_add(params, name, "bias", AG_SHAPE(o->d), zeros);
    if (!ag_layer_done(params, count))
        return false;
    *norm = made;
    return true;
}

ag_var ag_norm_forward(const ag_norm *norm, ag_var x)
{
    ag_var gain = norm ? norm->gain : AG_NONE;
    if (!ag_layer_takes("norm_forward", gain, x, norm ? norm->options.d : 0))
        return ag_layer_refused(gain, x);
    if (norm->options.kind == AG_RMS_NORM)
        return ag_rms_norm(x, gain, norm->options.epsilon);
    return ag_layer_norm(x, gain, norm->bias, norm->options.epsilon);
}
