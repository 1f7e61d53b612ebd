/* Variables: making leaves, and looking into any variable. */
#include "internal.h"

#include <math.h>
#include <string.h>

/* ---- New leaves ---- */

/* A leaf of this step with uninitialised memory; *value is its tensor. */
static ag_var new_leaf(ag_context *context, ag_dtype dtype, ag_shape shape, ag_tensor **value)
{
    ag_tensor tensor;
    *value = NULL;
    if (!ag_tape_of(context) || !ag_tensor_allocate(context, AG_STEP, dtype, shape, &tensor))
        return ag_poisoned(context);
    ag_var v = ag_leaf(context, &tensor, true);
    ag_node *node = ag_node_find(v);
    *value = node ? &node->value : NULL;
    return v;
}

/* v, if it could be filled; else it is forgotten. */
static ag_var kept_if(bool filled, ag_var v)
{
    if (filled)
        return v;
    if (ag_is_valid(v))
        ag_tape_truncate(v.context->tape, v.index);
    return ag_poisoned(v.context);
}

ag_var ag_full(ag_context *context, ag_shape shape, double value)
{
    ag_tensor *x;
    ag_var v = new_leaf(context, ag_context_dtype(context), shape, &x);
    return kept_if(x && ag_tensor_fill(context, x, value), v);
}

ag_var ag_zeros(ag_context *context, ag_shape shape)
{
    return ag_full(context, shape, 0.0);
}

ag_var ag_scalar(ag_context *context, double value)
{
    return ag_full(context, AG_SCALAR, value);
}

ag_var ag_uniform(ag_context *context, ag_random *random, ag_shape shape, double low, double high)
{
    ag_tensor *x;
    ag_var v = new_leaf(context, ag_context_dtype(context), shape, &x);
    return kept_if(x && ag_random_fill_uniform(context, random, x, low, high), v);
}

ag_var ag_normal(ag_context *context, ag_random *random, ag_shape shape)
{
    ag_tensor *x;
    ag_var v = new_leaf(context, ag_context_dtype(context), shape, &x);
    return kept_if(x && ag_random_fill_normal(context, random, x, 0.0, 1.0), v);
}

ag_var ag_arange(ag_context *context, int64_t end)
{
    ag_tensor *x;
    ag_var v = new_leaf(context, AG_I64, AG_SHAPE(end), &x);
    for (int64_t i = 0; x && i < end; i++)
        ((int64_t *)x->data)[i] = i;
    return v;
}

/* A leaf of dtype from a dense array of another. */
static ag_var leaf_from(ag_context *context, const char *operation, ag_dtype dtype,
                        const ag_tensor *source)
{
    if (!context || context->error)
        return ag_poisoned(context);
    size_t bytes = 0;
    if (source && !ag_shape_bytes(context, source->dtype, ag_tensor_shape(source), &bytes))
        return ag_poisoned(context);
    if (!source || (!source->data && bytes > 0)) {
        ag_fail(context, AG_ERR_ARGUMENT, "%s: the values are NULL", operation);
        return ag_poisoned(context);
    }
    ag_tensor *x;
    ag_var v = new_leaf(context, dtype, ag_tensor_shape(source), &x);
    return kept_if(x && ag_tensor_copy(context, x, source), v);
}

/* An array of the caller's as a tensor; its shape is checked first. */
static bool over_array(ag_context *context, ag_dtype dtype, ag_shape shape, const void *values,
                       ag_tensor *tensor)
{
    size_t bytes;
    if (!context || context->error || !ag_shape_bytes(context, dtype, shape, &bytes))
        return false;
    *tensor = ag_tensor_over((void *)(uintptr_t)values, dtype, shape);
    return true;
}

ag_var ag_constant(ag_context *context, ag_shape shape, const double *values)
{
    ag_tensor source;
    if (!over_array(context, AG_F64, shape, values, &source))
        return ag_poisoned(context);
    return leaf_from(context, "constant", context->dtype, &source);
}

ag_var ag_indices(ag_context *context, ag_shape shape, const int64_t *values)
{
    ag_tensor source;
    if (!over_array(context, AG_I64, shape, values, &source))
        return ag_poisoned(context);
    return leaf_from(context, "indices", AG_I64, &source);
}

ag_var ag_from_tensor(ag_context *context, const ag_tensor *tensor)
{
    return leaf_from(context, "from_tensor", tensor ? tensor->dtype : AG_F32, tensor);
}

ag_var ag_require_gradient(ag_var leaf)
{
    ag_node *node = ag_node_require(leaf.context, "require_gradient", leaf);
    char text[160];
    if (!node)
        return ag_poisoned(leaf.context);
    if (node->op)
        ag_fail(leaf.context, AG_ERR_STATE, "require_gradient: %s is the result of an operation",
                ag_describe(leaf, text, sizeof text));
    else if (!ag_dtype_is_real(node->value.dtype))
        ag_fail(leaf.context, AG_ERR_DTYPE, "require_gradient: %s is %s",
                ag_describe(leaf, text, sizeof text), ag_dtype_name(node->value.dtype));
    if (leaf.context->error)
        return ag_poisoned(leaf.context);
    node->requires_gradient = true;
    return leaf;
}

ag_var ag_parameter(ag_context *context, const char *name, ag_dtype dtype, ag_shape shape)
{
    ag_tape *tape = ag_tape_of(context);
    if (!tape)
        return ag_poisoned(context);
    if (dtype == AG_DEFAULT_DTYPE)
        dtype = context->dtype;
    ag_tensor value;
    if (!ag_dtype_is_real(dtype))
        ag_fail(context, AG_ERR_DTYPE, "parameter: %s is %s, not f32 or f64", name ? name : "",
                ag_dtype_name(dtype));
    if (context->error || !ag_tensor_allocate(context, AG_KEEP, dtype, shape, &value))
        return ag_poisoned(context);
    memset(value.data, 0, ag_tensor_bytes(&value));
    ag_node *node = ag_list_push(context, &tape->parameters, AG_PARAMETER_BIT);
    if (!node)
        return ag_poisoned(context);
    node->value = value;
    node->owns_data = true;
    node->requires_gradient = true;
    ag_var v = node->self;
    return name ? ag_set_name(v, name) : v;
}

ag_var ag_detach(ag_var x)
{
    ag_node *node = ag_node_require(x.context, "detach", x);
    ag_var v = node ? ag_leaf(x.context, &node->value, false) : ag_poisoned(x.context);
    ag_node *detached = ag_node_find(v);
    if (detached)
        detached->base = node->base;
    return v;
}

/* ---- Looking in ---- */

bool ag_is_none(ag_var v)
{
    return !v.context;
}

bool ag_is_valid(ag_var v)
{
    return ag_node_find(v) != NULL;
}

const ag_tensor *ag_value(ag_var v)
{
    ag_node *node = ag_node_require(v.context, "value", v);
    return node ? &node->value : NULL;
}

ag_tensor *ag_value_mutable(ag_var leaf)
{
    char text[160];
    ag_node *node = ag_node_require(leaf.context, "value_mutable", leaf);
    if (node && node->op) {
        ag_fail(leaf.context, AG_ERR_STATE, "value_mutable: %s is the result of an operation",
                ag_describe(leaf, text, sizeof text));
        return NULL;
    }
    if (!node)
        return NULL;
    node->base->version++;
    return &node->value;
}

bool ag_assign(ag_var leaf, const double *values)
{
    ag_tensor source;
    ag_node *node = ag_node_require(leaf.context, "assign", leaf);
    if (!node)
        return false;
    if (!values && ag_tensor_count(&node->value) > 0)
        return ag_fail(leaf.context, AG_ERR_ARGUMENT, "assign: the values are NULL");
    ag_tensor *value = ag_value_mutable(leaf);
    return value && over_array(leaf.context, AG_F64, ag_tensor_shape(value), values, &source) &&
           ag_tensor_copy(leaf.context, value, &source);
}

/* The imaginary part would be lost, and a gradient check by complex steps with it. */
static bool refuse_complex(ag_var v, const char *call)
{
    v.context->tape->not_complex = call;
    return ag_fail(v.context, AG_ERR_DTYPE, "%s: has no complex form", call);
}

bool ag_read(ag_var v, double *values)
{
    ag_node *node = ag_node_require(v.context, "read", v);
    if (!node)
        return false;
    if (node->value.dtype == AG_C128)
        return refuse_complex(v, "read");
    int64_t count = ag_tensor_count(&node->value);
    if (!values && count > 0)
        return ag_fail(v.context, AG_ERR_ARGUMENT, "read: the values are NULL");
    ag_tensor target = ag_tensor_over(values, AG_F64, ag_tensor_shape(&node->value));
    return count == 0 || ag_tensor_copy(v.context, &target, &node->value);
}

const ag_tensor *ag_gradient(ag_var v)
{
    return ag_gradient_mutable(v);
}

ag_tensor *ag_gradient_mutable(ag_var v)
{
    ag_node *node = ag_node_require(v.context, "gradient", v);
    return node && node->has_gradient ? node->gradient : NULL;
}

/* Works with an error pending too, so that no old gradient is added to later. */
void ag_clear_gradient(ag_var v)
{
    ag_node *node = ag_node_find(v);
    if (!node)
        ag_node_require(v.context, "clear_gradient", v);
    if (node)
        node->has_gradient = false;
}

ag_var ag_retain_gradient(ag_var v)
{
    ag_node *node = ag_node_require(v.context, "retain_gradient", v);
    if (!node)
        return ag_poisoned(v.context);
    node->retains_gradient = true;
    return v;
}

double ag_item(ag_var v)
{
    char text[160];
    ag_node *node = ag_node_require(v.context, "item", v);
    if (!node)
        return NAN;
    if (ag_tensor_count(&node->value) != 1) {
        ag_fail(v.context, AG_ERR_SHAPE, "item: %s does not have one element",
                ag_describe(v, text, sizeof text));
        return NAN;
    }
    if (node->value.dtype == AG_C128) {
        refuse_complex(v, "item");
        return NAN;
    }
    return ag_tensor_at(&node->value, 0);
}

ag_shape ag_shape_of(ag_var v)
{
    ag_node *node = ag_node_find(v);
    return node ? ag_tensor_shape(&node->value) : (ag_shape){ .rank = -1 };
}

ag_dtype ag_dtype_of(ag_var v)
{
    ag_node *node = ag_node_find(v);
    return node ? node->value.dtype : AG_DEFAULT_DTYPE;
}

bool ag_requires_gradient(ag_var v)
{
    ag_node *node = ag_node_find(v);
    return node && node->requires_gradient;
}

/* ---- Names ---- */

const char *ag_name(ag_var v)
{
    ag_node *node = ag_node_find(v);
    return node && node->name ? node->name : "";
}

const char *ag_op_name(ag_var v)
{
    ag_node *node = ag_node_find(v);
    return node && node->op ? node->op->name : "";
}

ag_var ag_set_name(ag_var v, const char *name)
{
    ag_node *node = ag_node_require(v.context, "set_name", v);
    if (!node)
        return ag_poisoned(v.context);
    const ag_tape *tape = v.context->tape;
    if (tape->locked && (v.index & AG_PARAMETER_BIT || v.index < tape->locked_below))
        return v; /* the text would not live as long as the variable */
    size_t size = strlen(name ? name : "") + 1;
    bool parameter = v.index & AG_PARAMETER_BIT;
    char *copy = ag_memory_new(v.context, parameter ? AG_KEEP : AG_STEP, size);
    if (!copy)
        return ag_poisoned(v.context);
    memcpy(copy, name ? name : "", size);
    node->name = copy;
    return v;
}

char *ag_describe(ag_var v, char *text, size_t size)
{
    char shape[128];
    ag_node *node = ag_node_find(v);
    if (!node) {
        snprintf(text, size, "an invalid variable");
        return text;
    }
    ag_shape_text(ag_tensor_shape(&node->value), shape, sizeof shape);
    unsigned i = v.index & ~AG_PARAMETER_BIT;
    const char *kind = node->op                     ? node->op->name
                       : v.index & AG_PARAMETER_BIT ? "parameter"
                                                    : "input";
    if (node->name && node->name[0])
        snprintf(text, size, "%s %s", node->name, shape);
    else
        snprintf(text, size, "%s#%u %s", kind, i, shape);
    return text;
}

void ag_print(ag_var v, FILE *file)
{
    char text[160];
    if (!file)
        return;
    ag_node *node = ag_node_find(v);
    fprintf(file, "%s%s", ag_describe(v, text, sizeof text), node ? " " : "\n");
    if (!node)
        return;
    fprintf(file, "%s\n", ag_dtype_name(node->value.dtype));
    ag_tensor_print(&node->value, file);
}

/* ---- No-grad regions ---- */

void ag_no_grad_begin(ag_context *context)
{
    /* An error that is pending must not unbalance the two calls. */
    ag_tape *tape = context ? ag_tape_make(context) : NULL;
    if (tape)
        tape->no_grad++;
}

void ag_no_grad_end(ag_context *context)
{
    if (!context)
        return;
    if (!context->tape || context->tape->no_grad == 0)
        ag_fail(context, AG_ERR_STATE, "no_grad_end: there is no region to end");
    else
        context->tape->no_grad--;
}
