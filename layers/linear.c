/* The linear layer y = x W + b, and what every layer needs: checks of its arguments. */
#include "internal.h"

bool ag_layer_can_start(const ag_params *params, const char *operation, const void *layer,
                        const char *name, const void *options)
{
    if (!params || ag_status(params->context) != AG_OK)
        return false;
    const char *missing = !layer ? "layer" : !name ? "name" : !options ? "options" : NULL;
    if (missing)
        return ag_fail(params->context, AG_ERR_ARGUMENT, "%s: %s is NULL", operation, missing);
    return true;
}

bool ag_linear_init(ag_linear *linear, ag_params *params, const char *name,
                    const ag_linear_options *options)
{
    if (linear)
        *linear = (ag_linear){ .w = AG_NONE, .b = AG_NONE };
    if (!ag_layer_can_start(params, "linear_init", linear, name, options))
        return false;
    const ag_linear_options o = *options;
    if (o.d_in < 1 || o.d_out < 1) {
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "linear_init: %s: d_in is %lld and d_out %lld, but both must be at least 1",
                       name, (long long)o.d_in, (long long)o.d_out);
    }
    int count = ag_params_count(params);
    ag_linear made = { .options = o };
    made.w = ag_params_add(params, name, "w", AG_SHAPE(o.d_in, o.d_out), o.init);
    if (o.bias) {
        made.b =
            ag_params_add(params, name, "b", AG_SHAPE(o.d_out), (ag_init){ .kind = AG_INIT_ZEROS });
    }
    if (ag_status(params->context) != AG_OK) {
        ag_params_truncate(params, count);
        return false;
    }
    *linear = made;
    return true;
}

ag_var ag_linear_forward(const ag_linear *linear, ag_var x)
{
    if (!linear || !linear->w.context) {
        ag_fail(x.context, AG_ERR_ARGUMENT, "linear_forward: the layer was not initialised");
        return ag_poisoned(x.context);
    }
    ag_context *context = linear->w.context;
    if (!ag_node_require(context, "linear_forward", x))
        return ag_poisoned(context);
    ag_shape shape = ag_shape_of(x);
    if (shape.rank < 1 || shape.dims[shape.rank - 1] != linear->options.d_in) {
        char x_text[128], w_text[128];
        ag_fail(context, AG_ERR_SHAPE, "linear_forward: the last axis of %s does not fit %s",
                ag_describe(x, x_text, sizeof x_text),
                ag_describe(linear->w, w_text, sizeof w_text));
        return ag_poisoned(context);
    }
    return ag_affine(x, linear->w, linear->b);
}
