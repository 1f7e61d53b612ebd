/* What the layers have in common: the checks around init and forward. */
#include "internal.h"

#include <stdio.h>

bool ag_layer_done(ag_params *params, int count)
{
    if (ag_status(params->context) == AG_OK)
        return true;
    ag_params_truncate(params, count);
    return false;
}

bool ag_layer_name(ag_context *context, const char *prefix, const char *part,
                   char text[AG_LAYER_NAME])
{
    int length = snprintf(text, AG_LAYER_NAME, "%s%s%s", prefix, *prefix ? "." : "", part);
    if (length >= 0 && length < AG_LAYER_NAME)
        return true;
    return ag_fail(context, AG_ERR_ARGUMENT, "%.40s..: the name of a layer is too long", prefix);
}

bool ag_layer_takes(const char *operation, ag_var parameter, ag_var x, int64_t d)
{
    if (!parameter.context)
        return ag_fail(x.context, AG_ERR_ARGUMENT, "%s: the layer was not initialised", operation);
    ag_context *context = parameter.context;
    const ag_node *node = ag_node_require(context, operation, x);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    bool same_dtype = ag_dtypes_agree(value->dtype, ag_dtype_of(parameter));
    if (same_dtype && value->rank >= 1 && value->dims[value->rank - 1] == d)
        return true;
    char x_text[160], text[160];
    ag_describe(x, x_text, sizeof x_text);
    ag_describe(parameter, text, sizeof text);
    if (!same_dtype)
        return ag_fail(context, AG_ERR_DTYPE, "%s: %s is %s, %s is %s", operation, x_text,
                       ag_dtype_name(value->dtype), text, ag_dtype_name(ag_dtype_of(parameter)));
    return ag_fail(context, AG_ERR_SHAPE, "%s: the last axis of %s does not fit %s", operation,
                   x_text, text);
}

ag_var ag_layer_refused(ag_var parameter, ag_var x)
{
    return ag_poisoned(parameter.context ? parameter.context : x.context);
}
