/* ag_backward puts gradients into variables, ag_grad makes new variables of
 * them; both begin with the same walk over the tape (walk.c). */
#include "walk.h"

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
    for (uint32_t i = 0; i < walk->n_parameters; i++) {
        ag_node *node = ag_list_at(&walk->tape->parameters, i);
        walk->parameters[i].needed = walk->parameters[i].kept = true;
        walk->parameters[i].at_home = !node->has_gradient;
    }
}

/* Headers for the gradients of this step's variables, whose numbers the slots hold. */
static bool make_room(struct ag_walk *walk)
{
    for (uint32_t i = 0; i < walk->n_step; i++) {
        ag_node *node = ag_list_at(&walk->tape->step, i);
        if (!walk->step[i].full || !walk->step[i].kept || node->has_gradient)
            continue;
        ag_tensor *g = ag_memory_new(walk->context, AG_STEP, sizeof *g);
        if (!g)
            return false;
        ag_tensor_put_over(g, walk->step[i].data, &node->value);
        node->gradient = g;
    }
    return true;
}

/* A gradient that was absent has its numbers in place. */
static void put_gradient(struct ag_walk *walk, ag_node *node, ag_slot *s)
{
    ag_tensor given;
    if (!s->full || !s->kept)
        return;
    if (node->has_gradient) {
        ag_tensor_put_over(&given, s->data, &node->value);
        ag_compute_accumulate(walk->context, &given, node->gradient);
        ag_memory_recycle(walk->context, s->data, ag_tensor_bytes(&given));
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
    bool same_dtype = given && given->value.dtype == root->value.dtype;
    if (given && (!same_dtype || !ag_shape_equal(ag_shape_of(y), ag_shape_of(cotangent))))
        ag_fail(y.context, same_dtype ? AG_ERR_SHAPE : AG_ERR_DTYPE,
                "%s: the cotangent of %s is %s %s, not %s", operation,
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

/* Where the step is now, so that what fails can leave it so. */
static ag_tape_mark mark_before(ag_var y)
{
    return ag_tape_of(y.context) ? ag_tape_mark_now(y.context) : (ag_tape_mark){ 0 };
}

/* Inside of a rule or a checked function the caller will forget it all anyway,
 * and with an error from before nothing was begun. */
static void undo(ag_var y, ag_tape_mark mark)
{
    const ag_tape *tape = y.context ? y.context->tape : NULL;
    if (tape && !tape->walk && !tape->locked && mark.count > 0)
        ag_tape_rewind(y.context, mark);
}

static bool walk_into_variables(ag_var y, ag_var cotangent, bool scalar)
{
    char text[160];
    struct ag_walk walk;
    ag_node *root = check_root("backward", y, cotangent, scalar);
    if (!root)
        return false;
    if (y.context->tape->locked)
        return ag_fail(y.context, AG_ERR_STATE,
                       "backward: called from inside of an operation, a rule or a function that "
                       "is being checked; ag_grad may be");
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
    ag_node *given = ag_node_find(cotangent);
    if (!given || !ag_walk_begin(&walk, y.context, root, false))
        return false;
    walk.releases = true;
    ask_for_all(&walk);
    if (!ag_walk_set_root(&walk, root, given) || !ag_walk_run(&walk) || !make_room(&walk))
        return false;
    put_gradients(&walk);
    ag_walk_end(&walk);
    root->backward_done = root->op != NULL;
    return true;
}

/* A backward that fails leaves the step as it was. */
static bool backward(ag_var y, ag_var cotangent, bool scalar)
{
    ag_tape_mark mark = mark_before(y);
    if (walk_into_variables(y, cotangent, scalar))
        return true;
    undo(y, mark);
    return false;
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
        ag_slot *s = ag_walk_slot(walk, ag_node_behind(inputs[i]));
        if (s)
            s->needed = s->kept = true;
    }
    for (uint32_t i = 0; i < walk->n_step; i++) {
        const ag_node *node = ag_list_at(&walk->tape->step, i);
        for (int k = 0; node->requires_gradient && k < node->n_inputs; k++)
            if (!ag_input_is_constant(node, k) && ag_walk_needs(walk, node->inputs[k].node))
                walk->step[i].needed = true;
    }
}

/* A variable of its own for each input: one that is asked for twice, or whose
 * gradient is the cotangent itself, gets another handle. */
static ag_var gradient_variable(struct ag_walk *walk, ag_var input, const ag_node *cotangent)
{
    ag_slot *s = ag_walk_slot(walk, ag_node_behind(input));
    ag_tensor *zeros, gradient;
    if (s && s->full && walk->recording) {
        bool given = s->given || s->variable == cotangent;
        ag_var v = s->variable->self;
        s->given = true;
        return given ? ag_reshape(v, ag_shape_of(v)) : v;
    }
    if (s && s->full) {
        bool given = s->given;
        s->given = true;
        ag_tensor_put_over(&gradient, s->data, ag_value(input));
        return given ? ag_from_tensor(walk->context, &gradient)
                     : ag_leaf(walk->context, &gradient, false);
    }
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

static bool new_gradients(ag_var y, ag_var cotangent, bool scalar, const ag_var *inputs, int n,
                          ag_var *gradients, unsigned flags)
{
    struct ag_walk walk;
    ag_node *root = check_root("grad", y, cotangent, scalar);
    if (flags & ~(unsigned)AG_CREATE_GRAPH)
        ag_fail(y.context, AG_ERR_ARGUMENT, "grad: unknown flags %u", flags);
    if (!root || !check_inputs(y.context, inputs, n, gradients))
        return false;
    if (scalar)
        cotangent = ones_like(y);
    ag_node *given = ag_node_find(cotangent);
    if (!given || !ag_walk_begin(&walk, y.context, root, flags & AG_CREATE_GRAPH))
        return false;
    ask_for(&walk, inputs, n);
    if (!ag_walk_set_root(&walk, root, given) || !ag_walk_run(&walk))
        return false;
    for (int i = 0; i < n; i++)
        gradients[i] = gradient_variable(&walk, inputs[i], given);
    ag_walk_end(&walk);
    return !y.context->error;
}

/* gradients may be the array of the inputs itself. */
static bool grad(ag_var y, ag_var cotangent, bool scalar, const ag_var *inputs, int n,
                 ag_var *gradients, unsigned flags)
{
    ag_tape_mark mark = mark_before(y);
    if (new_gradients(y, cotangent, scalar, inputs, n, gradients, flags))
        return true;
    undo(y, mark);
    for (int i = 0; gradients && i < n; i++)
        gradients[i] = ag_poisoned(y.context);
    return false;
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
