/* The feed-forward layer: what a token makes of what attention has brought it.
 *
 *   forward    a = x W_1 + b_1     h = activation(a)     y = h W_2 + b_2
 *   backward   dW_2 = h^T dy       db_2 = dy             dh = dy W_2^T
 *              da = activation'(a) dh
 *              dW_1 = x^T da       db_1 = da             dx = da W_1^T
 *
 * (the biases' gradients summed over all tokens). Backward is that of the
 * operations it is made of. */
#include "internal.h"

static bool check_options(ag_context *context, const char *name, const ag_feed_forward_options *o)
{
    if (o->d < 1 || o->d_ff < 0)
        return ag_fail(
            context, AG_ERR_ARGUMENT,
            "feed_forward_init: %s: d is %lld, d_ff %lld, but they must be at least 1 and 0", name,
            (long long)o->d, (long long)o->d_ff);
    if (o->d > INT64_MAX / 4)
        return ag_fail(context, AG_ERR_MEMORY, "feed_forward_init: %s: d is %lld, too large", name,
                       (long long)o->d);
    if (o->activation < AG_GELU || o->activation > AG_SILU)
        return ag_fail(context, AG_ERR_ARGUMENT, "feed_forward_init: %s: there is no activation %d",
                       name, (int)o->activation);
    return true;
}

bool ag_feed_forward_init(ag_feed_forward *layer, ag_params *params, const char *name,
                          const ag_feed_forward_options *options)
{
    if (layer)
        *layer = (ag_feed_forward){ .w_1 = AG_NONE };
    if (!ag_layer_can_start(params, "feed_forward_init", layer, name, options) ||
        !check_options(params->context, name, options))
        return false;
    ag_feed_forward made = { .options = *options };
    ag_feed_forward_options *o = &made.options;
    if (o->d_ff == 0)
        o->d_ff = 4 * o->d;
    const ag_init zeros = { .kind = AG_INIT_ZEROS };
    int count = ag_params_count(params);
    made.w_1 = ag_params_add(params, name, "w_1", AG_SHAPE(o->d, o->d_ff), o->init);
    if (!o->no_bias)
        made.b_1 = ag_params_add(params, name, "b_1", AG_SHAPE(o->d_ff), zeros);
    made.w_2 = ag_params_add(params, name, "w_2", AG_SHAPE(o->d_ff, o->d), o->init);
    if (!o->no_bias)
        made.b_2 = ag_params_add(params, name, "b_2", AG_SHAPE(o->d), zeros);
    if (!ag_layer_done(params, count))
        return false;
    *layer = made;
    return true;
}

static ag_var activate(ag_activation activation, ag_var a)
{
    switch (activation) {
    case AG_GELU:
        return ag_gelu(a);
    case AG_GELU_TANH:
        return ag_gelu_tanh(a);
    case AG_RELU_ACTIVATION:
        return ag_relu(a);
    case AG_SILU:
        break;
    }
    return ag_silu(a);
}

ag_var ag_feed_forward_hidden(const ag_feed_forward *layer, ag_var x)
{
    if (layer->options.activation == AG_GELU)
        return ag_affine_gelu(x, layer->w_1, layer->b_1);
    return activate(layer->options.activation, ag_affine(x, layer->w_1, layer->b_1));
}

ag_var ag_feed_forward_forward(const ag_feed_forward *layer, ag_var x)
{
    ag_var w_1 = layer ? layer->w_1 : AG_NONE;
    if (!ag_layer_takes("feed_forward_forward", w_1, x, layer ? layer->options.d : 0))
        return ag_layer_refused(w_1, x);
    return ag_affine(ag_feed_forward_hidden(layer, x), layer->w_2, layer->b_2);
}
