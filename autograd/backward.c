/* Backward: one walk over the tape from its end.
 *
 * Each node has a slot for its gradient. The walk begins with the cotangent in
 * the root's slot. It visits the nodes in the opposite order to that in which
 * they ran; when it comes to a node, all uses of its value lie behind, so its
 * slot holds the whole gradient dy. The node's rule turns dy into a
 * contribution dx for each input, which is added to that input's slot. A node
 * whose slot is empty did not reach the root, and is passed over.
 *
 * There are two ways to hold a gradient:
 *   - recording (AG_CREATE_GRAPH): as a variable, and the rules' operations
 *     stay on the tape, so that gradients can be differentiated again;
 *   - otherwise: as a tensor. What a rule recorded is forgotten when it
 *     returns, and its buffers are used again.
 *
 * The results are put into the variables at the very end, so a backward that
 * fails half way has changed nothing.
 */
#include "internal.h"

#include <string.h>

typedef struct slot {
    ag_tensor *tensor; /* not recording: contiguous, its memory is the slot's own */
    ag_var var;        /* recording */
    bool full;
    bool needed; /* does it depend on a variable whose gradient is asked for? */
    bool kept;   /* is it asked for itself? */
} slot;

struct ag_walk {
    ag_context *context;
    ag_tape *tape;
    slot *step, *parameters;
    uint32_t n_step, n_parameters; /* the nodes up to the root, and all parameters */
    bool recording;
};

static slot *slot_of(const struct ag_walk *walk, ag_var v)
{
    uint32_t i = v.index & ~AG_PARAMETER_BIT;
    if (v.index & AG_PARAMETER_BIT)
        return i < walk->n_parameters ? &walk->parameters[i] : NULL;
    return i < walk->n_step ? &walk->step[i] : NULL;
}

bool ag_walk_needs(const struct ag_walk *walk, ag_var v)
{
    slot *s = slot_of(walk, v);
    return s && s->needed;
}

/* ---- Tensors that a slot owns ---- */

static size_t data_bytes(const ag_tensor *x)
{
    return (size_t)ag_tensor_count(x) * ag_dtype_size(x->dtype);
}

/* Header and memory of a gradient like value. */
static ag_tensor *new_gradient(ag_context *context, ag_lifetime lifetime, const ag_tensor *value)
{
    ag_tensor *g = ag_memory_new(context, lifetime, sizeof *g);
    if (!g || !ag_tensor_allocate(context, lifetime, value->dtype, ag_tensor_shape(value), g))
        return NULL;
    return g;
}

static void recycle_gradient(ag_context *context, ag_tensor *g)
{
    ag_memory_recycle(context, g->data, data_bytes(g));
    ag_memory_recycle(context, g, sizeof *g);
}

/* slot += x, by copy. */
static bool add_tensor(struct ag_walk *walk, slot *s, const ag_tensor *x)
{
    if (s->full)
        return ag_compute_accumulate(walk->context, x, s->tensor);
    s->tensor = new_gradient(walk->context, AG_STEP, x);
    s->full = s->tensor && ag_tensor_copy(walk->context, s->tensor, x);
    return s->full;
}

/* slot += x, where x's buffer has no other owner any more. */
static bool give_tensor(struct ag_walk *walk, slot *s, const ag_tensor *x)
{
    if (s->full) {
        bool added = ag_compute_accumulate(walk->context, x, s->tensor);
        ag_memory_recycle(walk->context, x->data, data_bytes(x));
        return added;
    }
    s->tensor = ag_memory_new(walk->context, AG_STEP, sizeof *s->tensor);
    if (!s->tensor)
        return false;
    *s->tensor = ag_tensor_over(x->data, x->dtype, ag_tensor_shape(x));
    s->full = true;
    return true;
}

/* ---- One node ---- */

/* A rule's result must have its input's shape and dtype. */
static bool check_contribution(const ag_node *node, int i, ag_var dx)
{
    char text[160], got[160];
    if (node->self.context->error)
        return false;
    ag_node *result = ag_node_find(dx);
    if (!result || dx.context != node->self.context)
        return ag_node_fail(node, AG_ERR_STATE, "the backward rule gave no gradient for %s",
                            ag_node_describe(node, i, text, sizeof text));
    const ag_tensor *x = ag_node_input_value(node, i);
    if (result->value.dtype != x->dtype ||
        !ag_shape_equal(ag_tensor_shape(&result->value), ag_tensor_shape(x)))
        return ag_node_fail(node, AG_ERR_SHAPE, "the backward rule gave %s %s as gradient of %s",
                            ag_dtype_name(result->value.dtype),
                            ag_shape_text(ag_tensor_shape(&result->value), got, sizeof got),
                            ag_node_describe(node, i, text, sizeof text));
    return true;
}

static bool inputs_unchanged(const ag_node *node)
{
    char text[160];
    for (int i = 0; i < node->n_inputs; i++) {
        ag_node *input = ag_node_find(node->inputs[i]);
        if (!input || input->version != node->versions[i])
            return ag_fail(node->self.context, AG_ERR_STATE,
                           "backward: %s was changed after %s had used it",
                           ag_describe(node->inputs[i], text, sizeof text), node->op->name);
    }
    return true;
}

/* Calls the rule; false with an error recorded. */
static bool call_rule(struct ag_walk *walk, const ag_node *node, ag_var dy, ag_var *dx)
{
    bool fused = !walk->recording && node->op->vjp_fused;
    if (!inputs_unchanged(node))
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        dx[i] = AG_NONE;
    (fused ? node->op->vjp_fused : node->op->vjp)(node, dy, dx);
    for (int i = 0; i < node->n_inputs; i++)
        if (ag_walk_needs(walk, node->inputs[i]) && !check_contribution(node, i, dx[i]))
            return false;
    return !walk->context->error;
}

static bool record_node(struct ag_walk *walk, const ag_node *node, ag_var dy, ag_var *dx)
{
    if (!call_rule(walk, node, dy, dx))
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        slot *s = slot_of(walk, node->inputs[i]);
        if (!s->needed)
            continue;
        s->var = s->full ? ag_add(s->var, dx[i]) : dx[i];
        s->full = true;
    }
    return !walk->context->error;
}

/* The variable among first .. count - 1, made by a rule, that owns x's whole
 * buffer, so that it can be given away; NULL if there is none. */
static ag_node *owner_of(const ag_tape *tape, uint32_t first, const ag_tensor *x)
{
    for (uint32_t i = first; i < tape->step.count; i++) {
        ag_node *node = ag_list_at(&tape->step, i);
        if (node->owns_data && node->value.data == x->data)
            return ag_tensor_is_contiguous(x) && data_bytes(x) == data_bytes(&node->value) ? node
                                                                                           : NULL;
    }
    return NULL;
}

/* Adds the contributions. Those that own their buffers give it to the slot,
 * after all others have been read, since they may be views of the same one. */
static bool distribute(struct ag_walk *walk, const ag_node *node, uint32_t first, ag_var *dx)
{
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < node->n_inputs; i++) {
            slot *s = slot_of(walk, node->inputs[i]);
            if (!s->needed || ag_is_none(dx[i]))
                continue;
            const ag_tensor *x = &ag_node_find(dx[i])->value;
            ag_node *owner = owner_of(walk->tape, first, x);
            if (pass == 0 && owner && !owner->promised) {
                owner->promised = true; /* to this input; no other one gets it */
                continue;
            }
            if (!(pass == 0 ? add_tensor(walk, s, x) : give_tensor(walk, s, x)))
                return false;
            if (pass == 1)
                owner->owns_data = false;
            dx[i] = AG_NONE;
        }
    return true;
}

/* Forgets what a rule recorded; the buffers it leaves are used again. */
static void forget(struct ag_walk *walk, const ag_node *node, uint32_t first)
{
    ag_tape *tape = walk->tape;
    for (uint32_t i = first; i < tape->step.count; i++) {
        ag_node *made = ag_list_at(&tape->step, i);
        if (made->owns_data)
            ag_memory_recycle(walk->context, made->value.data, data_bytes(&made->value));
    }
    bool own = false; /* only a rule of the user's may have kept handles */
    for (int i = 0; i < ag_op_count() && !own; i++)
        own = node->op == ag_op_at(i);
    if (own)
        tape->step.count = first;
    else
        ag_tape_truncate(tape, first);
}

/* dy's buffer belongs to the variable that the rule sees, unless the gradient
 * is asked for: a rule may hand it on as dx. */
static bool compute_node(struct ag_walk *walk, const ag_node *node, slot *s, ag_var *dx)
{
    uint32_t first = walk->tape->step.count;
    ag_var dy = ag_leaf(walk->context, s->tensor, !s->kept);
    walk->tape->no_grad++;
    bool done =
        ag_is_valid(dy) && call_rule(walk, node, dy, dx) && distribute(walk, node, first, dx);
    walk->tape->no_grad--;
    if (!done)
        return false;
    forget(walk, node, first);
    if (!s->kept) {
        ag_memory_recycle(walk->context, s->tensor, sizeof *s->tensor);
        *s = (slot){ .needed = s->needed };
    }
    return true;
}

/* ---- The walk ---- */

static bool begin_walk(struct ag_walk *walk, ag_context *context, ag_node *root, bool recording)
{
    *walk = (struct ag_walk){ .context = context, .tape = context->tape, .recording = recording };
    walk->n_step = root->self.index & AG_PARAMETER_BIT ? 0 : root->self.index + 1;
    walk->n_parameters = walk->tape->parameters.count;
    size_t step = walk->n_step * sizeof(slot);
    size_t parameters = walk->n_parameters * sizeof(slot);
    walk->step = ag_memory_new(context, AG_STEP, step);
    walk->parameters = ag_memory_new(context, AG_STEP, parameters);
    if (!walk->step || !walk->parameters)
        return false;
    memset(walk->step, 0, step);
    memset(walk->parameters, 0, parameters);
    return true;
}

/* The walk's own memory is no longer needed. */
static void end_walk(struct ag_walk *walk)
{
    ag_memory_recycle(walk->context, walk->step, walk->n_step * sizeof(slot));
    ag_memory_recycle(walk->context, walk->parameters, walk->n_parameters * sizeof(slot));
}

static bool set_root(struct ag_walk *walk, ag_node *root, ag_var cotangent)
{
    slot *s = slot_of(walk, root->self);
    if (!walk->recording)
        return add_tensor(walk, s, &ag_node_find(cotangent)->value);
    s->var = cotangent;
    s->full = true;
    return true;
}

/* Room for one gradient per input: few inputs need no memory. */
static ag_var *contributions(struct ag_walk *walk, const ag_node *node, ag_var *few)
{
    if (node->n_inputs <= AG_FEW_INPUTS)
        return few;
    return ag_memory_new(walk->context, AG_STEP, (size_t)node->n_inputs * sizeof(ag_var));
}

static bool any_input_needed(const struct ag_walk *walk, const ag_node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (ag_walk_needs(walk, node->inputs[i]))
            return true;
    return false;
}

static bool walk_back(struct ag_walk *walk)
{
    struct ag_walk *outer = walk->tape->walk;
    bool good = true;
    walk->tape->walk = walk;
    for (uint32_t i = walk->n_step; good && i-- > 0;) {
        const ag_node *node = ag_list_at(&walk->tape->step, i);
        slot *s = &walk->step[i];
        if (!s->full || !node->requires_gradient || !any_input_needed(walk, node))
            continue;
        ag_var few[AG_FEW_INPUTS], *dx = contributions(walk, node, few);
        good = dx && (walk->recording ? record_node(walk, node, s->var, dx)
                                      : compute_node(walk, node, s, dx));
        if (dx && dx != few)
            ag_memory_recycle(walk->context, dx, (size_t)node->n_inputs * sizeof(ag_var));
    }
    walk->tape->walk = outer;
    return good;
}

/* ---- ag_backward: into the variables ---- */

/* Every variable that asks for a gradient is needed; leaves and those named to
 * ag_retain_gradient keep theirs. */
static void ask_for_all(struct ag_walk *walk)
{
    for (uint32_t i = 0; i < walk->n_step; i++) {
        const ag_node *node = ag_list_at(&walk->tape->step, i);
        walk->step[i].needed = node->requires_gradient;
        walk->step[i].kept = node->requires_gradient && (!node->op || node->retains_gradient);
    }
    for (uint32_t i = 0; i < walk->n_parameters; i++)
        walk->parameters[i].needed = walk->parameters[i].kept = true;
}

/* Memory for the gradients of parameters, which outlives the step. */
static bool make_room(struct ag_walk *walk)
{
    for (uint32_t i = 0; i < walk->n_parameters; i++) {
        ag_node *node = ag_list_at(&walk->tape->parameters, i);
        if (walk->parameters[i].full && !node->gradient)
            node->gradient = new_gradient(walk->context, AG_KEEP, &node->value);
        if (walk->parameters[i].full && !node->gradient)
            return false;
    }
    return true;
}

static void put_gradient(struct ag_walk *walk, ag_node *node, slot *s)
{
    if (!s->full || !s->kept)
        return;
    if (!node->gradient) {
        node->gradient = s->tensor; /* of this step, like the node */
    } else {
        if (node->has_gradient)
            ag_compute_accumulate(walk->context, s->tensor, node->gradient);
        else
            memcpy(node->gradient->data, s->tensor->data, data_bytes(s->tensor));
        recycle_gradient(walk->context, s->tensor);
    }
    node->has_gradient = true;
}

static void put_gradients(struct ag_walk *walk)
{
    for (uint32_t i = 0; i < walk->n_step; i++)
        put_gradient(walk, ag_list_at(&walk->tape->step, i), &walk->step[i]);
    for (uint32_t i = 0; i < walk->n_parameters; i++)
        put_gradient(walk, ag_list_at(&walk->tape->parameters, i), &walk->parameters[i]);
}

/* Checks what may be differentiated and from where. */
static ag_node *check_root(const char *operation, ag_var y, ag_var cotangent, bool scalar)
{
    char text[160], other[160];
    ag_node *root = ag_node_require(y.context, operation, y);
    if (!root)
        return NULL;
    if (!ag_dtype_is_float(root->value.dtype))
        ag_fail(y.context, AG_ERR_DTYPE, "%s: %s is %s", operation,
                ag_describe(y, text, sizeof text), ag_dtype_name(root->value.dtype));
    else if (scalar && ag_tensor_count(&root->value) != 1)
        ag_fail(y.context, AG_ERR_SHAPE, "%s: %s does not have one element; give a cotangent",
                operation, ag_describe(y, text, sizeof text));
    ag_node *given = scalar ? NULL : ag_node_require(y.context, operation, cotangent);
    if (given && (given->value.dtype != root->value.dtype ||
                  !ag_shape_equal(ag_shape_of(y), ag_shape_of(cotangent))))
        ag_fail(y.context, AG_ERR_SHAPE, "%s: the cotangent of %s is %s %s, not %s", operation,
                ag_describe(y, text, sizeof text), ag_describe(cotangent, other, sizeof other),
                ag_dtype_name(given->value.dtype), ag_dtype_name(root->value.dtype));
    return y.context->error ? NULL : root;
}

/* The cotangent of a loss: ones in the shape of y. */
static ag_var ones_like(ag_var y)
{
    ag_tensor *value;
    ag_var ones = ag_empty_like(y, &value);
    return value && ag_tensor_fill(y.context, value, 1.0) ? ones : ag_poisoned(y.context);
}

static bool backward(ag_var y, ag_var cotangent, bool scalar)
{
    char text[160];
    struct ag_walk walk;
    ag_node *root = check_root("backward", y, cotangent, scalar);
    if (!root)
        return false;
    if (!root->requires_gradient)
        return ag_fail(y.context, AG_ERR_STATE,
                       "backward: %s depends on nothing that asks for a gradient",
                       ag_describe(y, text, sizeof text));
    if (root->backward_done)
        return ag_fail(y.context, AG_ERR_STATE,
                       "backward: it was already run from %s; compute it again first",
                       ag_describe(y, text, sizeof text));
    if (scalar)
        cotangent = ones_like(y);
    if (!ag_is_valid(cotangent) || !begin_walk(&walk, y.context, root, false))
        return false;
    ask_for_all(&walk);
    if (!set_root(&walk, root, cotangent) || !walk_back(&walk) || !make_room(&walk))
        return false;
    put_gradients(&walk);
    end_walk(&walk);
    root->backward_done = root->op != NULL;
    return true;
}

bool ag_backward(ag_var loss)
{
    return backward(loss, AG_NONE, true);
}

bool ag_backward_from(ag_var y, ag_var cotangent)
{
    return backward(y, cotangent, false);
}

/* ---- ag_grad: as new variables ---- */

/* Only what lies between the inputs and the root is needed. */
static void ask_for(struct ag_walk *walk, const ag_var *inputs, int n)
{
    for (int i = 0; i < n; i++) {
        slot *s = slot_of(walk, inputs[i]);
        if (s)
            s->needed = s->kept = true;
    }
    for (uint32_t i = 0; i < walk->n_step; i++) {
        const ag_node *node = ag_list_at(&walk->tape->step, i);
        for (int k = 0; node->requires_gradient && k < node->n_inputs; k++)
            if (ag_walk_needs(walk, node->inputs[k]))
                walk->step[i].needed = true;
    }
}

static ag_var gradient_variable(struct ag_walk *walk, ag_var input)
{
    slot *s = slot_of(walk, input);
    ag_tensor *zeros;
    if (s && s->full)
        return walk->recording ? s->var : ag_leaf(walk->context, s->tensor, false);
    ag_var v = ag_empty_like(input, &zeros);
    return zeros && ag_tensor_fill(walk->context, zeros, 0.0) ? v : ag_poisoned(walk->context);
}

static bool check_inputs(ag_context *context, const ag_var *inputs, int n, ag_var *gradients)
{
    char text[160];
    if (n < 0 || (n > 0 && (!inputs || !gradients)))
        return ag_fail(context, AG_ERR_ARGUMENT, "grad: the inputs or gradients are NULL");
    for (int i = 0; i < n; i++) {
        ag_node *input = ag_node_require(context, "grad", inputs[i]);
        if (!input)
            return false;
        if (!input->requires_gradient)
            return ag_fail(context, AG_ERR_STATE, "grad: %s does not ask for a gradient",
                           ag_describe(inputs[i], text, sizeof text));
    }
    return true;
}

static bool grad(ag_var y, ag_var cotangent, bool scalar, const ag_var *inputs, int n,
                 ag_var *gradients, unsigned flags)
{
    struct ag_walk walk;
    for (int i = 0; gradients && i < n; i++)
        gradients[i] = ag_poisoned(y.context);
    ag_node *root = check_root("grad", y, cotangent, scalar);
    if (!root || !check_inputs(y.context, inputs, n, gradients))
        return false;
    if (scalar)
        cotangent = ones_like(y);
    if (!ag_is_valid(cotangent) || !begin_walk(&walk, y.context, root, flags & AG_CREATE_GRAPH))
        return false;
    ask_for(&walk, inputs, n);
    if (!set_root(&walk, root, cotangent) || !walk_back(&walk))
        return false;
    for (int i = 0; i < n; i++)
        gradients[i] = gradient_variable(&walk, inputs[i]);
    end_walk(&walk);
    return !y.context->error;
}

bool ag_grad(ag_var y, const ag_var *inputs, int n, ag_var *gradients, unsigned flags)
{
    return grad(y, AG_NONE, true, inputs, n, gradients, flags);
}

bool ag_grad_from(ag_var y, ag_var cotangent, const ag_var *inputs, int n, ag_var *gradients,
                  unsigned flags)
{
    return grad(y, cotangent, false, inputs, n, gradients, flags);
}
