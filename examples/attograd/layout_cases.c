/* The gradient checks again with operands that lie otherwise in memory: transposed, sliced,
 * reversed, broadcast, of size 1 and 0, and one variable for several operands. And what a
 * pass forward and back may not do: change what it was given, give other bits the second time. */
#include "cases.h"

#include <stdlib.h>
#include <string.h>

typedef enum layout {
    TRANSPOSED,
    SLICED,
    REVERSED,
    BROADCAST,
    SAME,
    SIZE_1,
    SIZE_0,
    LAYOUTS
} layout;

static const char *const layout_names[] = { "transposed", "sliced", "reversed", "broadcast",
                                            "same",       "size 1", "size 0" };

typedef struct layout_call {
    const ag_op_case *op;
    layout kind;
} layout_call;

/* ---- The views ---- */

/* The shape of the leaf that is seen as an operand of the case's shape. */
static ag_shape leaf_shape(layout kind, const ag_case_input *input)
{
    ag_shape shape = ag_shape_make(input->rank, input->dims);
    int last = input->rank - 1;
    for (int i = 0; i < input->rank; i++)
        if (kind == TRANSPOSED)
            shape.dims[i] = input->dims[last - i];
        else if (kind == SIZE_1 || kind == SIZE_0)
            shape.dims[i] = kind == SIZE_1;
    if (last >= 0 && kind == SLICED)
        shape.dims[last] = 2 * shape.dims[last] + 1;
    if (last >= 0 && kind == BROADCAST)
        shape.dims[0] = 1;
    return shape;
}

static ag_var view_of(layout kind, ag_var leaf, const ag_case_input *input)
{
    int order[4] = { 3, 2, 1, 0 };
    if (input->rank == 0)
        return leaf;
    if (kind == TRANSPOSED)
        return ag_permute(leaf, order + 4 - input->rank, input->rank);
    if (kind == SLICED)
        return ag_slice(leaf, -1, 1, AG_END, 2);
    if (kind == REVERSED)
        return ag_flip(leaf, -1);
    if (kind == BROADCAST)
        return ag_broadcast_to(leaf, ag_shape_make(input->rank, input->dims));
    return leaf;
}

/* The case's function of views of the leaves. */
static ag_var call_of_views(ag_context *ctx, const ag_var *leaves, int n, void *user)
{
    const layout_call *call = user;
    ag_var x[AG_CASE_INPUTS];
    (void)n;
    for (int i = 0; i < call->op->n; i++)
        x[i] =
            call->kind == SAME ? leaves[0] : view_of(call->kind, leaves[i], &call->op->inputs[i]);
    return call->op->f(ctx, x, call->op->n, NULL);
}

/* ---- Numbers ---- */

/* Gives leaf numbers such that its view has those that the case would draw. Where the numbers
 * of a leaf go is seen by numbering them. */
static void fill(ag_var leaf, layout kind, const ag_case_input *input, ag_random *random)
{
    ag_context *ctx = leaf.context;
    ag_tensor *numbers = ag_value_mutable(leaf);
    for (int64_t k = 0; numbers && k < ag_tensor_count(numbers); k++)
        ag_tensor_put(numbers, k, (double)k);
    ag_var view = view_of(kind, leaf, input);
    if (!ag_is_valid(view) || ag_tensor_count(ag_value(view)) == 0)
        return;
    ag_var drawn = ag_zeros(ctx, ag_shape_of(view)), places = ag_zeros(ctx, ag_shape_of(view));
    ag_op_case_draw(drawn, input->domain, random);
    for (int64_t k = 0; k < ag_tensor_count(ag_value(view)); k++)
        ag_tensor_put(ag_value_mutable(places), k, ag_tensor_at(ag_value(view), k));
    for (int64_t k = 0; k < ag_tensor_count(numbers); k++)
        ag_tensor_put(numbers, k, 0.37); /* what the view does not show */
    for (int64_t k = 0; k < ag_tensor_count(ag_value(places)); k++)
        ag_tensor_put(numbers, (int64_t)ag_tensor_at(ag_value(places), k),
                      ag_tensor_at(ag_value(drawn), k));
}

static bool shapes_agree(const ag_op_case *op)
{
    for (int i = 1; i < op->n; i++)
        if (!ag_shape_equal(ag_shape_make(op->inputs[i].rank, op->inputs[i].dims),
                            ag_shape_make(op->inputs[0].rank, op->inputs[0].dims)))
            return false;
    return true;
}

/* A broadcast operand has ties, and the cases of SEPARATE want none. */
static bool applies(const ag_op_case *op, layout kind)
{
    for (int i = 0; i < op->n; i++)
        if (kind == BROADCAST && op->inputs[i].domain == AG_SEPARATE)
            return false;
    return kind != SAME || (op->n > 1 && shapes_agree(op));
}

/* ---- Forward: a view gives what its copy gives, bit for bit ---- */

static void compare_with_copies(ag_context *ctx, const ag_var *leaves, layout_call *call,
                                ag_case_result *result)
{
    ag_var copies[AG_CASE_INPUTS];
    for (int i = 0; i < call->op->n; i++) {
        ag_var view =
            call->kind == SAME ? leaves[0] : view_of(call->kind, leaves[i], &call->op->inputs[i]);
        ag_var copy = ag_zeros(ctx, ag_shape_of(view));
        for (int64_t k = 0; k < ag_tensor_count(ag_value(view)); k++)
            ag_tensor_put(ag_value_mutable(copy), k, ag_tensor_at(ag_value(view), k));
        copies[i] = ag_require_gradient(copy);
    }
    ag_var of_views = call_of_views(ctx, leaves, call->op->n, call);
    ag_var of_copies = call->op->f(ctx, copies, call->op->n, NULL);
    if (ag_status(ctx) == AG_OK && !ag_case_same_bits(ag_value(of_views), ag_value(of_copies)))
        ag_case_complain(result, "%s: the result differs from that of copies",
                         layout_names[call->kind]);
}

static void check_layout(const ag_op_case *op, layout kind, uint64_t seed, ag_case_result *result)
{
    layout_call call = { op, kind };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(seed, op->name, 100 + (uint64_t)kind);
    ag_var leaves[AG_CASE_INPUTS];
    for (int i = 0; i < op->n; i++) {
        leaves[i] = ag_require_gradient(ag_zeros(ctx, leaf_shape(kind, &op->inputs[i])));
        fill(leaves[i], kind, &op->inputs[i], &random);
    }
    ag_var y = call_of_views(ctx, leaves, op->n, &call);
    ag_error status = ag_status(ctx);
    if ((kind == SIZE_1 || kind == SIZE_0) && status != AG_OK) {
        if (status != AG_ERR_SHAPE && status != AG_ERR_INDEX) /* the case wants other sizes */
            ag_case_complain(result, "%s: %s", layout_names[kind], ag_error_message(ctx));
    } else {
        compare_with_copies(ctx, leaves, &call, result);
        ag_gradcheck_report report;
        int inputs = kind == SAME ? 1 : op->n;
        bool empty_mean = kind == SIZE_0 && ag_tensor_count(ag_value(y)) > 0; /* 0 / 0 */
        if (ag_requires_gradient(y) && !empty_mean) {
            ag_gradcheck(ctx, call_of_views, &call, leaves, inputs,
                         &(ag_gradcheck_options){ .seed = seed }, &report);
            ag_case_note(result, &report);
        }
    }
    ag_context_free(ctx);
}

void ag_layout_case_run(const ag_op_case *op, uint64_t seed, ag_case_result *result)
{
    for (int kind = 0; kind < LAYOUTS; kind++)
        if (applies(op, (layout)kind))
            check_layout(op, (layout)kind, seed, result);
}
