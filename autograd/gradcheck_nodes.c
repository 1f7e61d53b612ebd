/* Which operation is wrong: the rule of every node that a function runs is checked by itself,
 * with the operands that it has there.
 *
 * A node's function is its operation alone, y = op(inputs), of copies of its inputs' values
 * that lie in memory as these do (transposed, if they are), and where one variable is two inputs
 * of the node it is two inputs of the copy. Then its rule is checked like any function's gradient.
 */
#include "gradcheck.h"

#include <string.h>

#define FEW_ENTRIES 64 /* more than these are moved together, in so many directions */
#define DIRECTIONS 4

typedef struct node_call {
    const ag_node *node;
    ag_var *inputs; /* of the node, or of its copy */
    int *leaf_of;   /* which leaf stands for input i; -1: the input itself, a constant here */
    ag_var *leaves; /* f64, contiguous */
    int (*back)[AG_MAX_RANK]; /* the order that brings a leaf's axes to where the input's are */
    int n_leaves;
} node_call;

/* The node's operation once more, on the leaves. */
static ag_var run_copy(ag_context *context, const ag_var *leaves, int n, void *user)
{
    node_call *call = user;
    (void)n;
    for (int i = 0; i < call->node->n_inputs; i++) {
        int leaf = call->leaf_of[i];
        if (leaf >= 0)
            call->inputs[i] =
                ag_permute(leaves[leaf], call->back[leaf], ag_value(leaves[leaf])->rank);
    }
    return context->error ? ag_poisoned(context) : ag_run_again(call->node, call->inputs);
}

/* The axes of x from the longest stride to the shortest. */
static void order_of(const ag_tensor *x, int *order)
{
    for (int i = 0; i < x->rank; i++) {
        int place = i;
        for (; place > 0 && x->strides[order[place - 1]] < x->strides[i]; place--)
            order[place] = order[place - 1];
        order[place] = i;
    }
}

/* A leaf with the numbers of x, its axes in the order in which they lie in memory. */
static ag_var copy_leaf(ag_context *context, const ag_tensor *x, int *back)
{
    int order[AG_MAX_RANK];
    ag_tensor moved, copy;
    order_of(x, order);
    for (int i = 0; i < x->rank; i++)
        back[order[i]] = i;
    if (!ag_tensor_permute(context, x, order, &moved) ||
        !ag_tensor_allocate(context, AG_STEP, AG_F64, ag_tensor_shape(&moved), &copy) ||
        !ag_tensor_copy(context, &copy, &moved))
        return ag_poisoned(context);
    return ag_require_gradient(ag_leaf(context, &copy, true));
}

/* The first input that is the same variable as input i; -1 if there is none before it. */
static int find_earlier(const ag_node *node, int i)
{
    for (int k = 0; k < i; k++)
        if (node->inputs[k].node == node->inputs[i].node)
            return k;
    return -1;
}

static bool copy_inputs(ag_context *context, node_call *call)
{
    size_t n = (size_t)call->node->n_inputs;
    call->inputs = ag_memory_new(context, AG_STEP, n * sizeof *call->inputs);
    call->leaf_of = ag_memory_new(context, AG_STEP, n * sizeof *call->leaf_of);
    call->leaves = ag_memory_new(context, AG_STEP, n * sizeof *call->leaves);
    call->back = ag_memory_new(context, AG_STEP, n * sizeof *call->back);
    if (!call->inputs || !call->leaf_of || !call->leaves || !call->back)
        return false;
    for (int i = 0; i < call->node->n_inputs; i++) {
        const ag_tensor *x = ag_input_value(call->node, i);
        int earlier = find_earlier(call->node, i);
        call->inputs[i] = ag_node_input(call->node, i);
        if (x->dtype != AG_F64 || ag_input_is_constant(call->node, i)) {
            call->leaf_of[i] = -1;
        } else if (earlier >= 0 && call->leaf_of[earlier] >= 0) {
            call->leaf_of[i] = call->leaf_of[earlier];
        } else {
            call->leaf_of[i] = call->n_leaves;
            call->leaves[call->n_leaves] = copy_leaf(context, x, call->back[call->n_leaves]);
            call->n_leaves++;
        }
    }
    return !context->error;
}

/* The place in the leaf is one in the input. */
static void translate(const node_call *call, ag_node_fault *fault)
{
    int64_t index[AG_MAX_RANK];
    int leaf = fault->report.input;
    if (leaf < 0)
        return;
    for (int i = 0; i < fault->report.rank; i++)
        index[i] = fault->report.index[call->back[leaf][i]];
    memcpy(fault->report.index, index, sizeof index);
    for (int i = call->node->n_inputs - 1; i >= 0; i--)
        if (call->leaf_of[i] == leaf)
            fault->report.input = i;
    snprintf(fault->report.name, sizeof fault->report.name, "%s",
             ag_name(ag_node_input(call->node, fault->report.input)));
}

/* Whether the node's own rule fails. Where it cannot be judged, because the result holds an
 * infinity or for want of sharp numbers, that is no fault of the rule. */
static bool rule_fails(ag_context *context, const ag_node *node,
                       const ag_gradcheck_options *options, ag_node_fault *fault)
{
    ag_tape_mark mark = ag_tape_mark_now(context);
    node_call call = { .node = node };
    int64_t entries = 0;
    ag_gradcheck_options own = { .tolerance = options->tolerance, .seed = options->seed };
    if (options->method == AG_GRADCHECK_DIFFERENCES) /* complex steps are not for every node */
        own.method = AG_GRADCHECK_DIFFERENCES;
    fault->node = (int64_t)node->self.index;
    snprintf(fault->op, sizeof fault->op, "%s", node->op->name);
    if (copy_inputs(context, &call)) {
        for (int i = 0; i < call.n_leaves; i++)
            entries += ag_tensor_count(ag_value(call.leaves[i]));
        own.directions = entries > FEW_ENTRIES ? DIRECTIONS : 0;
        if (entries > 0)
            ag_check_function(context, run_copy, &call, call.leaves, call.n_leaves, &own,
                              &fault->report, false);
        translate(&call, fault);
    }
    ag_tape_rewind(context, mark);
    return fault->report.verdict == AG_VERDICT_FAIL;
}

int ag_check_nodes_from(ag_context *context, uint32_t from, const ag_gradcheck_options *options,
                        ag_node_fault *faults, int room)
{
    int found = 0;
    uint32_t end = context->tape->step.count;
    for (uint32_t i = from; i < end && !context->error; i++) {
        const ag_node *node = ag_list_at(&context->tape->step, i);
        ag_node_fault fault = { .node = -1 };
        if (!node->op || !node->op->vjp || !node->requires_gradient ||
            node->value.dtype != AG_F64 || !rule_fails(context, node, options, &fault))
            continue;
        fault.node -= from;
        if (options->log)
            ag_node_fault_print(&fault, options->log);
        if (found < room)
            faults[found] = fault;
        found++;
    }
    return context->error ? -1 : found;
}

int ag_gradcheck_nodes(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                       const ag_gradcheck_options *options, ag_node_fault *faults, int room)
{
    static const ag_gradcheck_options usual = { 0 };
    if (!context || !ag_tape_of(context))
        return -1;
    if (!f || n < 1 || !inputs || (room > 0 && !faults)) {
        ag_fail(context, AG_ERR_ARGUMENT, "gradcheck_nodes: a function and inputs are needed");
        return -1;
    }
    ag_tape_mark mark = ag_tape_mark_now(context);
    ag_tape_lock lock = ag_tape_lock_now(context->tape);
    ag_var y = f(context, inputs, n, user);
    if (!context->error && !ag_is_valid(y))
        ag_fail(context, AG_ERR_STATE, "gradcheck_nodes: the function gave no result");
    int found = context->error ? -1
                               : ag_check_nodes_from(context, mark.count,
                                                     options ? options : &usual, faults, room);
    ag_tape_unlock(context, "gradcheck_nodes", lock);
    ag_tape_rewind(context, mark);
    return context->error ? -1 : found;
}
