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

/* slot += x, for a slot that is full. */
static bool accumulate(struct ag_walk *walk, ag_slot *s, const ag_tensor *x)
{
    ag_tensor sum;
    ag_tensor_put_over(&sum, s->data, x);
    return ag_compute_accumulate(walk->context, x, &sum);
}

ag_tensor *ag_walk_new_gradient(ag_context *context, ag_lifetime lifetime, const ag_tensor *value)
{
    ag_tensor *g = ag_memory_new(context, lifetime, sizeof *g);
    return g && ag_tensor_allocate_like(context, lifetime, value, g) ? g : NULL;
}

/* Memory for the gradient of a slot that is empty. */
static void *room_for(struct ag_walk *walk, ag_slot *s, const ag_tensor *x)
{
    if (!s->home)
        return ag_memory_new(walk->context, AG_STEP, ag_tensor_bytes(x));
    if (!s->home->gradient)
        s->home->gradient = ag_walk_new_gradient(walk->context, AG_KEEP, x);
    return s->home->gradient ? s->home->gradient->data : NULL;
}

/* slot += x, by copy. */
static bool add_tensor(struct ag_walk *walk, ag_slot *s, const ag_tensor *x)
{
    ag_tensor copy;
    if (s->full)
        return accumulate(walk, s, x);
    s->data = room_for(walk, s, x);
    if (!s->data)
        return false;
    ag_tensor_put_over(&copy, s->data, x);
    s->full = true;
    return ag_tensor_copy(walk->context, &copy, x);
}

/* slot += x, where x's buffer has no other owner any more. */
static bool give_tensor(struct ag_walk *walk, ag_slot *s, const ag_tensor *x)
{
    if (s->full || s->home) {
        bool added = add_tensor(walk, s, x);
        ag_memory_recycle(walk->context, x->data, ag_tensor_bytes(x));
        return added;
    }
    s->data = x->data;
    s->full = true;
    return true;
}

/* ---- One node ---- */

/* The slot that input i contributes to; NULL if its gradient is not asked for. */
static ag_slot *needed_slot(const struct ag_walk *walk, const ag_node *node, int i)
{
    ag_slot *s = ag_walk_slot(walk, node->inputs[i]);
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
    bool same_dtype = result->value.dtype == ag_node_behind(node->inputs[i])->value.dtype;
    return ag_node_fail(node, same_dtype ? AG_ERR_SHAPE : AG_ERR_DTYPE,
                        "the backward rule gave %s %s as gradient of %s",
                        ag_dtype_name(result->value.dtype),
                        ag_shape_text(ag_tensor_shape(&result->value), got, sizeof got),
                        ag_node_describe(node, i, text, sizeof text));
}

/* A rule's result must have its input's shape and dtype. */
static bool check_contribution(const ag_node *node, int i, ag_var dx)
{
    const ag_node *result = ag_node_find(dx), *input = ag_node_behind(node->inputs[i]);
    bool good = result && dx.context == node->self.context && !dx.context->error &&
                result->value.dtype == input->value.dtype &&
                ag_tensor_same_shape(&result->value, &input->value);
    return good || refuse_contribution(node, i, dx);
}

static bool values_unchanged(const ag_node *node)
{
    char text[160];
    for (int i = 0; i < node->n_inputs; i++) {
        if (ag_node_behind(node->inputs[i])->base->version != node->versions[i])
            return ag_fail(node->self.context, AG_ERR_STATE,
                           "backward: %s was changed after %s had used it",
                           ag_describe(node->inputs[i], text, sizeof text), node->op->name);
    }
    if (node->base->version != node->made_at)
        return ag_fail(node->self.context, AG_ERR_STATE,
                       "backward: %s was changed after %s had made it",
                       ag_describe(node->self, text, sizeof text), node->op->name);
    return true;
}

/* Calls the rule; false with an error recorded. */
static bool call_rule(struct ag_walk *walk, const ag_node *node, ag_var dy, ag_var *dx)
{
    bool fused = !walk->recording && node->op->vjp_fused;
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
    for (int i = 0; i < node->n_inputs; i++)
        if (needed_slot(walk, node, i) && !check_contribution(node, i, dx[i]))
            return false;
    return !walk->context->error;
}

static bool record_node(struct ag_walk *walk, const ag_node *node, ag_var dy, ag_var *dx)
{
    if (!call_rule(walk, node, dy, dx))
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        ag_slot *s = needed_slot(walk, node, i);
        if (!s)
            continue;
        s->var = s->full ? ag_add(s->var, dx[i]) : dx[i];
        s->full = true;
    }
    return !walk->context->error;
}

/* The variable made by a rule (first .. count - 1) that owns the whole buffer of
 * dx, so that it can be given away; NULL if there is none. */
static ag_node *owner_of(const ag_tape *tape, uint32_t first, ag_var dx)
{
    ag_node *result = ag_node_behind(dx);
    const ag_tensor *x = &result->value;
    if (result->owns_data) /* but not if it is of before: dx may be any variable */
        return dx.index >= first && !(dx.index & AG_PARAMETER_BIT) ? result : NULL;
    for (uint32_t i = first; i < tape->step.count; i++) {
        ag_node *node = ag_list_at(&tape->step, i);
        if (node->owns_data && node->value.data == x->data)
            return ag_tensor_is_contiguous(x) && ag_tensor_bytes(x) == ag_tensor_bytes(&node->value)
                       ? node
                       : NULL;
    }
    return NULL;
}

/* Adds the contributions. Those that own their buffers give it to the slot,
 * after all others have been read, since they may be views of the same one. */
static bool distribute(struct ag_walk *walk, const ag_node *node, uint32_t first, ag_var *dx)
{
    for (int i = 0; i < node->n_inputs; i++) {
        ag_slot *s = needed_slot(walk, node, i);
        ag_node *owner = s ? owner_of(walk->tape, first, dx[i]) : NULL;
        if (owner && !owner->promised) {
            owner->promised = true; /* to this input; no other one gets it */
            continue;
        }
        if (s && !add_tensor(walk, s, &ag_node_behind(dx[i])->value))
            return false;
        dx[i] = AG_NONE;
    }
    for (int i = 0; i < node->n_inputs; i++) {
        if (!dx[i].context)
            continue;
        if (!give_tensor(walk, needed_slot(walk, node, i), &ag_node_behind(dx[i])->value))
            return false;
        owner_of(walk->tape, first, dx[i])->owns_data = false;
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
            ag_memory_recycle(walk->context, made->value.data, ag_tensor_bytes(&made->value));
    }
    if (node->users_op) /* its rule may have kept handles: they get an old generation */
        ag_tape_truncate(tape, first);
    else
        tape->step.count = first;
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
    bool done = call_rule(walk, node, dy->self, dx) && distribute(walk, node, first, dx);
    walk->tape->no_grad--;
    if (!done)
        return false;
    forget(walk, node, first);
    if (!s->kept)
        *s = (ag_slot){ .needed = s->needed };
    return true;
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

bool ag_walk_set_root(struct ag_walk *walk, ag_node *root, ag_var cotangent)
{
    ag_slot *s = ag_walk_slot(walk, root->self);
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
        good = dx && (walk->recording ? record_node(walk, node, s->var, dx)
                                      : compute_node(walk, node, s, dx));
        if (dx && dx != few)
            ag_memory_recycle(walk->context, dx, (size_t)node->n_inputs * sizeof(ag_var));
    }
    walk->tape->walk = outer;
    return good;
}
