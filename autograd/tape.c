/* The tape: nodes, the handles that stand for them, and applying an operation. */
#include "walk.h"

#include <stdarg.h>
#include <string.h>

/* ---- The list of nodes ---- */

AG_SELDOM static bool add_block(ag_context *context, ag_node_list *list)
{
    if (list->count >= AG_PARAMETER_BIT - AG_NODES_PER_BLOCK)
        return ag_fail(context, AG_ERR_MEMORY, "tape: more than 2^31 variables");
    if (list->n_blocks == list->room) {
        uint32_t room = list->room ? 2 * list->room : 64;
        ag_node **blocks = ag_memory_new(context, AG_KEEP, room * sizeof *blocks);
        if (!blocks)
            return false;
        if (list->n_blocks > 0)
            memcpy(blocks, list->blocks, list->n_blocks * sizeof *blocks);
        list->blocks = blocks;
        list->room = room;
    }
    ag_node *block = ag_memory_new(context, AG_KEEP, AG_NODES_PER_BLOCK * sizeof *block);
    if (!block)
        return false;
    list->blocks[list->n_blocks++] = block;
    return true;
}

/* One by one, because memset takes longer than all the rest of making a node. */
static void clear(ag_node *node)
{
    node->op = NULL;
    node->inputs = NULL;
    node->options = NULL;
    node->n_inputs = 0;
    node->version = node->made_at = 0;
    node->base = node;
    node->gradient = node->saved = NULL;
    node->promised_to = NULL;
    node->name = NULL;
    node->has_gradient = node->requires_gradient = node->retains_gradient = false;
    node->owns_data = node->backward_done = node->users_op = node->is_complex = false;
    node->value.data = NULL;
}

ag_node *ag_list_push(ag_context *context, ag_node_list *list, uint32_t flag)
{
    if (list->count == list->n_blocks * AG_NODES_PER_BLOCK && !add_block(context, list))
        return NULL;
    ag_node *node = ag_list_at(list, list->count);
    clear(node);
    node->self = (ag_var){ context, list->count | flag, context->tape->generation };
    list->count++;
    return node;
}

ag_tape *ag_tape_of(ag_context *context)
{
    return context && !context->error ? ag_tape_make(context) : NULL;
}

ag_tape *ag_tape_make(ag_context *context)
{
    if (!context->tape) {
        ag_tape *tape = ag_memory_new(context, AG_KEEP, sizeof *tape);
        if (!tape)
            return NULL;
        memset(tape, 0, sizeof *tape);
        tape->generation = 1;
        context->tape = tape;
    }
    return context->tape;
}

void ag_tape_truncate(ag_tape *tape, uint32_t count)
{
    if (count < tape->step.count)
        tape->step.count = count;
    tape->generation++;
}

void ag_tape_reset(ag_context *context)
{
    if (!context || context->in_callback)
        return;
    ag_tape *tape = context->tape;
    if (tape && (tape->walk || tape->locked)) {
        ag_fail(context, AG_ERR_STATE, "tape_reset: called from inside of %s",
                tape->walk ? "a backward rule"
                           : "an operation, or a function that is being checked");
        return;
    }
    if (tape)
        ag_tape_truncate(tape, 0);
    ag_memory_reset_step(context);
}

ag_tape_lock ag_tape_lock_now(ag_tape *tape)
{
    ag_tape_lock lock = { tape->no_grad, tape->locked_below };
    tape->locked++;
    tape->locked_below = tape->step.count;
    return lock;
}

void ag_tape_unlock(ag_context *context, const char *operation, ag_tape_lock lock)
{
    ag_tape *tape = context->tape;
    tape->locked--;
    tape->locked_below = lock.below;
    if (tape->no_grad != lock.no_grad)
        ag_fail(context, AG_ERR_STATE, "%s: began or ended a no-grad region and left it so",
                operation);
    tape->no_grad = lock.no_grad;
}

ag_tape_mark ag_tape_mark_now(ag_context *context)
{
    return (ag_tape_mark){ context->tape->step.count, ag_memory_mark_step(context) };
}

void ag_tape_rewind(ag_context *context, ag_tape_mark mark)
{
    ag_tape_truncate(context->tape, mark.count);
    ag_memory_rewind_step(context, mark.memory);
}

int64_t ag_tape_length(const ag_context *context)
{
    return context && context->tape ? (int64_t)context->tape->step.count : 0;
}

/* ---- Handles ---- */

ag_var ag_poisoned(ag_context *context)
{
    return (ag_var){ context, AG_POISONED, 0 };
}

ag_node *ag_node_require(ag_context *context, const char *operation, ag_var v)
{
    if (!context || context->error)
        return NULL;
    ag_node *node = ag_node_find(v);
    if (!v.context)
        ag_fail(context, AG_ERR_ARGUMENT, "%s: a variable is absent", operation);
    else if (v.context != context)
        ag_fail(context, AG_ERR_ARGUMENT, "%s: a variable belongs to another context", operation);
    else if (v.index == AG_POISONED)
        ag_fail(context, AG_ERR_ARGUMENT,
                "%s: a variable is the result of an operation that had failed", operation);
    else if (!node)
        ag_fail(context, AG_ERR_STATE, "%s: a variable belongs to a step that was reset",
                operation);
    else
        return node;
    return NULL;
}

ag_var ag_leaf(ag_context *context, const ag_tensor *value, bool owns_data)
{
    ag_tape *tape = ag_tape_of(context);
    ag_node *node = tape ? ag_list_push(context, &tape->step, 0) : NULL;
    if (!node)
        return ag_poisoned(context);
    node->value = *value;
    node->owns_data = owns_data;
    return node->self;
}

/* ---- Applying an operation ---- */

/* The nodes behind the handles, inside of the new node where they fit. Backward will
 * come here if a gradient can flow on to one of them. */
static bool save_inputs(ag_context *context, ag_node *node, const ag_var *inputs, int n)
{
    bool differentiable = node->op->vjp && context->tape->no_grad == 0, complex = false;
    ag_input *saved = node->few_inputs;
    if (n > AG_FEW_INPUTS)
        saved = ag_memory_new(context, AG_STEP, (size_t)n * sizeof *saved);
    for (int i = 0; saved && i < n; i++) {
        ag_node *input = inputs[i].context == context ? ag_node_find(inputs[i]) : NULL;
        if (!input)
            return ag_node_require(context, node->op->name, inputs[i]); /* says what is wrong */
        saved[i] = (ag_input){ input, input->base->version };
        complex |= input->value.dtype == AG_C128;
        if (differentiable && input->requires_gradient && !ag_input_is_constant(node, i))
            node->requires_gradient = true;
    }
    node->inputs = saved;
    node->n_inputs = n;
    node->is_complex = complex;
    return saved;
}

static bool save_options(ag_context *context, ag_node *node, const void *options)
{
    size_t size = node->op->options_size;
    if (size == 0)
        return true;
    void *room = size <= AG_SMALL_OPTIONS ? node->small_options.bytes
                                          : ag_memory_new(context, AG_STEP, size);
    if (room)
        memcpy(room, options, size);
    node->options = room;
    return room;
}

static ag_context *first_context(const ag_var *inputs, int n)
{
    for (int i = 0; i < n; i++)
        if (inputs[i].context)
            return inputs[i].context;
    return NULL;
}

/* The input, or what it is a view of, in whose data the output lies; the node
 * itself if there is none. */
static ag_node *base_of(ag_node *node)
{
    const char *data = node->value.data;
    for (int i = 0; i < node->n_inputs && !node->owns_data; i++) {
        ag_node *base = node->inputs[i].node->base;
        const char *first = base->value.data;
        if (data >= first && data < first + ag_tensor_bytes(&base->value))
            return base;
    }
    return node;
}

bool ag_node_will_need(const ag_node *node)
{
    return node->requires_gradient;
}

/* Messages of the floor below know shapes, but no names. */
static void name_operands(const ag_node *node)
{
    char text[160];
    ag_context *context = node->self.context;
    if (strstr(context->message, ag_node_describe(node, 0, text, sizeof text)))
        return;
    for (int i = 0; i < node->n_inputs && i < AG_FEW_INPUTS; i++)
        ag_error_append(context, "%s%s",
                        i ? ", " : " (operands: ", ag_node_describe(node, i, text, sizeof text));
    ag_error_append(context, "%s)", node->n_inputs > AG_FEW_INPUTS ? ", .." : "");
}

/* Only a user's function needs a lock: the library's own keep to the rules. */
static void run_forward(ag_node *node)
{
    ag_context *context = node->self.context;
    if (!node->users_op) {
        node->op->forward(node);
        return;
    }
    ag_tape_lock lock = ag_tape_lock_now(context->tape);
    node->op->forward(node);
    ag_tape_unlock(context, node->op->name, lock);
}

/* An operation that failed leaves no trace. */
static ag_var give_up(ag_context *context, ag_node *node)
{
    if (node->inputs)
        name_operands(node);
    ag_tape_truncate(context->tape, node->self.index);
    return ag_poisoned(context);
}

/* Whether an operand is f64 beside others that are c128. */
static bool is_mixed(const ag_node *node)
{
    bool real = false;
    for (int i = 0; node->is_complex && i < node->n_inputs; i++)
        real |= node->inputs[i].node->value.dtype == AG_F64;
    return real;
}

static ag_var apply(ag_context *context, const ag_op *op, const ag_var *inputs, int n,
                    const void *options, bool users_op);

/* The operation once more, on its operands with all f64 ones cast to c128; no gradient leads
 * back to those. */
AG_SELDOM static ag_var apply_promoted(ag_context *context, ag_node *node, const ag_var *inputs,
                                       int n, const void *options)
{
    const ag_op *op = node->op;
    bool users_op = node->users_op;
    uint32_t first = node->self.index;
    ag_var *promoted = ag_memory_new(context, AG_STEP, (size_t)n * sizeof *promoted);
    ag_tape_truncate(context->tape, first);
    for (int i = 0; promoted && i < n; i++)
        promoted[i] =
            ag_dtype_of(inputs[i]) == AG_F64 ? ag_cast(ag_detach(inputs[i]), AG_C128) : inputs[i];
    ag_var y = ag_poisoned(context);
    if (!context->error)
        y = apply(context, op, promoted, n, options, users_op);
    if (context->error)
        ag_tape_truncate(context->tape, first);
    return y;
}

static ag_var apply(ag_context *context, const ag_op *op, const ag_var *inputs, int n,
                    const void *options, bool users_op)
{
    ag_tape *tape = ag_tape_of(context);
    ag_node *node = tape ? ag_list_push(context, &tape->step, 0) : NULL;
    if (!node)
        return ag_poisoned(context);
    node->op = op;
    node->users_op = users_op;
    bool saved = save_inputs(context, node, inputs, n) && save_options(context, node, options);
    if (saved && is_mixed(node))
        return apply_promoted(context, node, inputs, n, options);
    if (saved && node->is_complex && users_op && !op->complex_form)
        ag_node_refuse_complex(node);
    else if (saved)
        run_forward(node);
    if (!context->error && !node->value.data)
        ag_fail(context, AG_ERR_STATE, "%s: forward made no output", op->name);
    if (tape->watch.on && !context->error)
        ag_branches_note(node);
    if (context->error)
        return give_up(context, node);
    node->base = base_of(node);
    node->made_at = node->base->version;
    node->requires_gradient = node->requires_gradient && ag_dtype_is_float(node->value.dtype);
    return node->self;
}

ag_var ag_run(const ag_op *op, const ag_var *inputs, int n, const void *options)
{
    ag_context *context = first_context(inputs, n);
    return context ? apply(context, op, inputs, n, options, false) : AG_NONE;
}

ag_var ag_run_again(const ag_node *node, const ag_var *inputs)
{
    ag_context *context = first_context(inputs, node->n_inputs);
    return apply(context, node->op, inputs, node->n_inputs, node->options, node->users_op);
}

static bool check_call(ag_context *context, const ag_op *op, int n, const void *options)
{
    if (!op || !op->name || !op->forward)
        return ag_fail(context, AG_ERR_ARGUMENT, "apply: an operation needs a name and a forward");
    for (int i = 0; i < ag_op_count(); i++)
        if (op == ag_op_at(i))
            return ag_fail(context, AG_ERR_ARGUMENT, "apply: %s is the library's own; call ag_%s",
                           op->name, op->name);
    if (op->options_size > 0 && !options)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: the options are NULL", op->name);
    if (op->n_inputs > 0 && n != op->n_inputs)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: takes %d inputs, not %d", op->name,
                       op->n_inputs, n);
    return true;
}

ag_var ag_apply(const ag_op *op, const ag_var *inputs, int n, const void *options)
{
    ag_context *context = inputs ? first_context(inputs, n) : NULL;
    if (!context)
        return AG_NONE;
    if (!check_call(context, op, n, options))
        return ag_poisoned(context);
    return apply(context, op, inputs, n, options, true);
}

/* ---- What an operation sees of its node ---- */

ag_context *ag_node_context(const ag_node *node)
{
    return node ? node->self.context : NULL;
}

int ag_node_input_count(const ag_node *node)
{
    return node ? node->n_inputs : 0;
}

ag_var ag_node_input(const ag_node *node, int i)
{
    if (!node || i < 0 || i >= node->n_inputs)
        return AG_NONE;
    return node->inputs[i].node->self;
}

const ag_tensor *ag_node_input_value(const ag_node *node, int i)
{
    return node && i >= 0 && i < node->n_inputs ? &node->inputs[i].node->value : NULL;
}

ag_var ag_node_output(const ag_node *node)
{
    return node ? node->self : AG_NONE;
}

const void *ag_node_options(const ag_node *node)
{
    return node ? node->options : NULL;
}

const ag_op *ag_node_op(const ag_node *node)
{
    return node ? node->op : NULL;
}

bool ag_node_needs(const ag_node *node, int i)
{
    if (!node || i < 0 || i >= node->n_inputs || ag_input_is_constant(node, i))
        return false;
    const struct ag_walk *walk = node->self.context->tape->walk;
    const ag_node *input = node->inputs[i].node;
    return walk ? ag_walk_needs(walk, input) : input->requires_gradient;
}

ag_var ag_node_arrived(const ag_node *node, int i)
{
    const struct ag_walk *walk = node ? node->self.context->tape->walk : NULL;
    if (!walk || i < 0 || i >= node->n_inputs)
        return AG_NONE;
    const ag_node *input = node->inputs[i].node;
    const ag_slot *s = ag_walk_slot(walk, input);
    ag_tensor sum;
    if (!s || !s->full)
        return AG_NONE;
    if (walk->recording)
        return s->variable->self;
    ag_tensor_put_over(&sum, s->data, &input->value);
    return ag_leaf(walk->context, &sum, false);
}

ag_tensor *ag_node_new_output(ag_node *node, ag_dtype dtype, ag_shape shape)
{
    if (node && dtype == AG_DEFAULT_DTYPE)
        dtype = node->self.context->dtype;
    if (!node || !ag_tensor_allocate(node->self.context, AG_STEP, dtype, shape, &node->value))
        return NULL;
    node->owns_data = true;
    return &node->value;
}

/* Whether all elements of a view lie in what source owns. */
static bool lies_within(const ag_tensor *view, const ag_node *source)
{
    uintptr_t first, end, start = (uintptr_t)source->base->value.data;
    if (view->dtype != source->value.dtype)
        return false;
    if (ag_tensor_count(view) == 0)
        return true;
    ag_tensor_extent(view, &first, &end);
    return first >= start && end <= start + ag_tensor_bytes(&source->base->value);
}

/* A view of an input, or of something that forward has made since. */
static bool check_view(const ag_node *node, const ag_tensor *view)
{
    const ag_node_list *step = &node->self.context->tape->step;
    if (!ag_tensor_is_valid(view))
        return ag_node_fail(node, AG_ERR_ARGUMENT, "the view is no tensor");
    for (int i = 0; i < node->n_inputs; i++)
        if (lies_within(view, node->inputs[i].node))
            return true;
    for (uint32_t i = node->self.index + 1; i < step->count; i++)
        if (lies_within(view, ag_list_at(step, i)))
            return true;
    return ag_node_fail(node, AG_ERR_ARGUMENT, "the view reaches beyond what it is a view of");
}

void ag_node_set_view(ag_node *node, const ag_tensor *view)
{
    if (!node || !view || (node->users_op && !check_view(node, view)))
        return;
    node->value = *view;
    node->owns_data = false;
}

bool ag_node_fail(const ag_node *node, ag_error error, const char *format, ...)
{
    if (!node)
        return false;
    char message[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return ag_fail(node->self.context, error, "%s: %s", node->op->name, message);
}
