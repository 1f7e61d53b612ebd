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
#include "walk.h"

#include <string.h>

/* ---- Tensors that a slot owns ---- */

ag_tensor *ag_walk_new_gradient(ag_context *context, ag_lifetime lifetime, const ag_tensor *value)
{
    ag_tensor *g = ag_memory_new(context, lifetime, sizeof *g);
    return g && ag_tensor_allocate_like(context, lifetime, value, g) ? g : NULL;
}

/* Memory for the gradient of a node. */
static void *room_for(struct ag_walk *walk, ag_node *node, bool at_home)
{
    if (!at_home)
        return ag_memory_new(walk->context, AG_STEP, ag_tensor_bytes(&node->value));
    if (!node->gradient)
        node->gradient = ag_walk_new_gradient(walk->context, AG_KEEP, &node->value);
    return node->gradient ? node->gradient->data : NULL;
}

/* The slot of to += x, which has to's shape. */
static bool add_tensor(struct ag_walk *walk, ag_node *to, const ag_tensor *x)
{
    ag_slot *s = ag_walk_slot(walk, to);
    ag_tensor sum;
    if (!s->full)
        s->data = room_for(walk, to, s->at_home);
    if (!s->data)
        return false;
    ag_tensor_put_over(&sum, s->data, &to->value);
    if (s->full)
        return ag_compute_accumulate(walk->context, x, &sum);
    s->full = true;
    if (!ag_tensor_is_contiguous(x))
        return ag_tensor_copy(walk->context, &sum, x);
    memcpy(sum.data, x->data, ag_tensor_bytes(x));
    return true;
}

/* The same where x is the whole buffer of a variable that nobody will read again. */
static bool give_buffer(struct ag_walk *walk, ag_node *to, const ag_tensor *buffer)
{
    ag_slot *s = ag_walk_slot(walk, to);
    if (s->full || s->at_home) {
        ag_tensor x;
        ag_tensor_put_over(&x, buffer->data, &to->value);
        bool added = add_tensor(walk, to, &x);
        ag_memory_recycle(walk->context, x.data, ag_tensor_bytes(&x));
        return added;
    }
    s->data = buffer->data;
    s->full = true;
    return true;
}

/* ---- One node ---- */

/* The slot that input i contributes to; NULL if its gradient is not asked for. */
static ag_slot *needed_slot(const struct ag_walk *walk, const ag_node *node, int i)
{
    ag_slot *s = ag_walk_slot(walk, node->inputs[i].node);
    return s && s->needed && !ag_input_is_constant(node, i) ? s : NULL;
}

/* Says why a rule's result is not the gradient of input i. Returns false. */
static bool refuse_contribution(const ag_node *node, int i, ag_var dx)
{
    char text[160], got[160];
    ag_node *result = ag_node_find(dx);
    if (node->self.context->error)
        return false;
    if (!result || dx.context != node->self.context)
        return ag_node_fail(node, AG_ERR_STATE, "the backward rule gave no gradient for %s",
                            ag_node_describe(node, i, text, sizeof text));
    bool same_dtype = result->value.dtype == node->inputs[i].node->value.dtype;
    return ag_node_fail(node, same_dtype ? AG_ERR_SHAPE : AG_ERR_DTYPE,
                        "the backward rule gave %s %s as gradient of %s",
                        ag_dtype_name(result->value.dtype),
                        ag_shape_text(ag_tensor_shape(&result->value), got, sizeof got),
                        ag_node_describe(node, i, text, sizeof text));
}

/* The result for input i, which must have its shape and dtype; NULL with an error recorded. */
static ag_node *contribution(const ag_node *node, int i, ag_var dx)
{
    const ag_tensor *input = &node->inputs[i].node->value;
    ag_node *result = ag_node_find(dx);
    bool good = result && dx.context == node->self.context && !dx.context->error &&
                result->value.dtype == input->dtype && ag_tensor_same_shape(&result->value, input);
    if (!good)
        refuse_contribution(node, i, dx);
    return good ? result : NULL;
}

static bool refuse_changed(const ag_node *node, const ag_node *changed, const char *how)
{
    char text[160];
    return ag_fail(node->self.context, AG_ERR_STATE, "backward: %s was changed after %s had %s it",
                   ag_describe(changed->self, text, sizeof text), node->op->name, how);
}

static bool values_unchanged(const ag_node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i].node->base->version != node->inputs[i].version)
            return refuse_changed(node, node->inputs[i].node, "used");
    return node->base->version == node->made_at || refuse_changed(node, node, "made");
}

/* Calls the rule; false with an error recorded. */
static bool call_rule(struct ag_walk *walk, const ag_node *node, ag_var dy, ag_var *dx)
{
    bool fused = !walk->recording && node->op->vjp_fused && node->value.dtype != AG_C128;
    if (!values_unchanged(node))
        return false;
    for (int i = 0; i < node->n_inputs; i++)
        dx[i] = AG_NONE;
    ag_tape_lock lock = { 0 };
    if (node->users_op) /* the library's own rules keep to the rules */
        lock = ag_tape_lock_now(walk->tape);
    (fused ? node->op->vjp_fused : node->op->vjp)(node, dy, dx);
    if (node->users_op)
        ag_tape_unlock(walk->context, node->op->name, lock);
    return !walk->context->error;
}

static bool record_node(struct ag_walk *walk, const ag_node *node, ag_slot *dy, ag_var *dx)
{
    if (!call_rule(walk, node, dy->variable->self, dx))
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        ag_slot *s = needed_slot(walk, node, i);
        if (!s)
            continue;
        ag_node *result = contribution(node, i, dx[i]);
        if (result && s->full)
            result = ag_node_find(ag_add(s->variable->self, dx[i]));
        if (!result)
            return false;
        s->variable = result;
        s->full = true;
    }
    return !walk->context->error;
}

/* The variable made by a rule (first .. count - 1) that owns the whole buffer of
 * result, so that it can be given away; NULL if there is none. */
static ag_node *owner_of(const ag_tape *tape, uint32_t first, ag_node *result)
{
    const ag_tensor *x = &result->value;
    if (result->owns_data) /* but not if it is of before: dx may be any variable */
        return result->self.index >= first && result->self.index < AG_PARAMETER_BIT ? result : NULL;
    for (uint32_t i = first; i < tape->step.count; i++) {
        ag_node *node = ag_list_at(&tape->step, i);
        if (node->owns_data && node->value.data == x->data)
            return ag_tensor_is_contiguous(x) && ag_tensor_bytes(x) == ag_tensor_bytes(&node->value)
                       ? node
                       : NULL;
    }
    return NULL;
}

/* Adds the contributions. Those that own their buffers only promise them to the input: they
 * give them away when all others have been read, since these may be views of the same one. */
static bool distribute(struct ag_walk *walk, const ag_node *node, uint32_t first, const ag_var *dx)
{
    for (int i = 0; i < node->n_inputs; i++) {
        if (!needed_slot(walk, node, i))
            continue;
        ag_node *result = contribution(node, i, dx[i]);
        if (!result)
            return false;
        ag_node *owner = owner_of(walk->tape, first, result);
        if (owner && !owner->promised_to)
            owner->promised_to = node->inputs[i].node;
        else if (!add_tensor(walk, node->inputs[i].node, &result->value))
            return false;
    }
    return true;
}

/* Keeps the promises and forgets what a rule recorded; the buffers it leaves are used again. */
static bool forget(struct ag_walk *walk, const ag_node *node, uint32_t first)
{
    ag_tape *tape = walk->tape;
    for (uint32_t i = first; i < tape->step.count; i++) {
        const ag_node *made = ag_list_at(&tape->step, i);
        if (made->promised_to && !give_buffer(walk, made->promised_to, &made->value))
            return false;
        if (made->owns_data && !made->promised_to)
            ag_memory_recycle(walk->context, made->value.data, ag_tensor_bytes(&made->value));
    }
    if (node->users_op) /* its rule may have kept handles: they get an old generation */
        ag_tape_truncate(tape, first);
    else
        tape->step.count = first;
    return true;
}

/* dy's buffer belongs to the variable that the rule sees, unless the gradient
 * is asked for: a rule may hand it on as dx. */
static bool compute_node(struct ag_walk *walk, const ag_node *node, ag_slot *s, ag_var *dx)
{
    uint32_t first = walk->tape->step.count;
    ag_node *dy = ag_list_push(walk->context, &walk->tape->step, 0);
    if (!dy)
        return false;
    ag_tensor_put_over(&dy->value, s->data, &node->value);
    dy->owns_data = !s->kept;
    walk->tape->no_grad++;
    bool done = call_rule(walk, node, dy->self, dx) && distribute(walk, node, first, dx) &&
                forget(walk, node, first);
    walk->tape->no_grad--;
    if (done && !s->kept)
        *s = (ag_slot){ .needed = s->needed };
    return done;
}

/* ---- The walk ---- */

bool ag_walk_begin(struct ag_walk *walk, ag_context *context, ag_node *root, bool recording)
{
    *walk = (struct ag_walk){ .context = context, .tape = context->tape, .recording = recording };
    walk->n_step = root->self.index & AG_PARAMETER_BIT ? 0 : root->self.index + 1;
    walk->n_parameters = walk->tape->parameters.count;
    size_t step = walk->n_step * sizeof(ag_slot);
    size_t parameters = walk->n_parameters * sizeof(ag_slot);
    walk->step = ag_memory_new(context, AG_STEP, step);
    walk->parameters = ag_memory_new(context, AG_STEP, parameters);
    if (!walk->step || !walk->parameters)
        return false;
    memset(walk->step, 0, step);
    memset(walk->parameters, 0, parameters);
    return true;
}

/* The walk's own memory is no longer needed. */
void ag_walk_end(struct ag_walk *walk)
{
    ag_memory_recycle(walk->context, walk->step, walk->n_step * sizeof(ag_slot));
    ag_memory_recycle(walk->context, walk->parameters, walk->n_parameters * sizeof(ag_slot));
}

bool ag_walk_set_root(struct ag_walk *walk, ag_node *root, ag_node *cotangent)
{
    ag_slot *s = ag_walk_slot(walk, root);
    if (!walk->recording)
        return add_tensor(walk, root, &cotangent->value);
    s->variable = cotangent;
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

/* A variable whose gradient is asked for may depend on no other such. */
static bool any_input_needed(const struct ag_walk *walk, const ag_node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (needed_slot(walk, node, i))
            return true;
    return false;
}

bool ag_walk_run(struct ag_walk *walk)
{
    struct ag_walk *outer = walk->tape->walk;
    bool good = true;
    walk->tape->walk = walk;
    for (uint32_t i = walk->n_step; good && i-- > 0;) {
        const ag_node *node = ag_list_at(&walk->tape->step, i);
        ag_slot *s = &walk->step[i];
        if (!s->full || !s->needed || !node->requires_gradient)
            continue;
        if (s->kept && !any_input_needed(walk, node))
            continue;
        ag_var few[AG_FEW_INPUTS], *dx = contributions(walk, node, few);
        good = dx &&
               (walk->recording ? record_node(walk, node, s, dx) : compute_node(walk, node, s, dx));
        if (dx && dx != few)
            ag_memory_recycle(walk->context, dx, (size_t)node->n_inputs * sizeof(ag_var));
    }
    walk->tape->walk = outer;
    return good;
}
