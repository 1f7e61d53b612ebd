/* The gradient checks again with operands that lie otherwise in memory: transposed, sliced and
 * reversed along every axis, broadcast, of size 1 and 0, one variable for all operands, and
 * operands that overlap. */
#include "cases.h"

typedef enum layout {
    TRANSPOSED,
    SLICED,
    REVERSED,
    BROADCAST,
    SAME,
    OVERLAP,
    SIZE_1,
    SIZE_0,
    LAYOUTS
} layout;

static const char *const layout_names[] = { "transposed",   "sliced",  "reversed", "broadcast",
                                            "same operand", "overlap", "size 1",   "size 0" };

typedef struct layout_call {
    const ag_op_case *op;
    layout kind;
} layout_call;

/* Whether all operands show one leaf. */
static bool has_one_leaf(layout kind)
{
    return kind == SAME || kind == OVERLAP;
}

/* ---- The views ---- */

static ag_shape shape_of(const ag_case_input *input)
{
    return ag_shape_make(input->rank, input->dims);
}

/* The shape of the leaf that is seen as an operand of the case's shape. */
static ag_shape leaf_shape(layout kind, const ag_case_input *input)
{
    ag_shape shape = shape_of(input);
    int last = input->rank - 1;
    for (int i = 0; i < input->rank; i++)
        if (kind == TRANSPOSED)
            shape.dims[i] = input->dims[last - i];
        else if (kind == SLICED)
            shape.dims[i] = 2 * input->dims[i] + 1;
        else if (kind == SIZE_1 || kind == SIZE_0)
            shape.dims[i] = kind == SIZE_1;
    if (last >= 0 && kind == BROADCAST)
        shape.dims[0] = 1;
    return shape;
}

/* Operand i of the case as a view of its leaf. */
static ag_var view_of(layout kind, ag_var leaf, const ag_case_input *input, int i)
{
    int order[4] = { 3, 2, 1, 0 };
    if (kind == OVERLAP) { /* begins at number i of the leaf */
        int64_t count = ag_shape_count(shape_of(input));
        return ag_reshape(ag_slice(leaf, 0, i, i + count, 1), shape_of(input));
    }
    if (kind == TRANSPOSED && input->rank > 0)
        return ag_permute(leaf, order + 4 - input->rank, input->rank);
    if (kind == BROADCAST)
        return ag_broadcast_to(leaf, shape_of(input));
    for (int axis = 0; axis < input->rank; axis++)
        if (kind == SLICED)
            leaf = ag_slice(leaf, axis, 1, AG_END, 2);
        else if (kind == REVERSED)
            leaf = ag_flip(leaf, axis);
    return leaf;
}

static void views_of(const layout_call *call, const ag_var *leaves, ag_var *x)
{
    for (int i = 0; i < call->op->n; i++)
        x[i] =
            view_of(call->kind, leaves[has_one_leaf(call->kind) ? 0 : i], &call->op->inputs[i], i);
}

/* The case's function of views of the leaves. */
static ag_var call_of_views(ag_context *ctx, const ag_var *leaves, int n, void *user)
{
    const layout_call *call = user;
    ag_var x[AG_CASE_INPUTS];
    (void)n;
    views_of(call, leaves, x);
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
    ag_var view = view_of(kind, leaf, input, 0);
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

/* Numbers that are good for every operand of the case. */
static ag_domain common_domain(const ag_op_case *op)
{
    static const ag_domain strict[] = { AG_SEPARATE, AG_POSITIVE, AG_NONZERO, AG_DYADIC };
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < op->n; i++)
            if (op->inputs[i].domain == strict[k])
                return strict[k];
    return AG_ANY;
}

/* The shape of one variable that may stand for all operands: that of an operand or another one.
 * False if the operation takes none of them. */
static bool common_shape(const ag_op_case *op, ag_shape *shape)
{
    const ag_shape others[] = { AG_SHAPE(4), AG_SHAPE(4, 4), AG_SHAPE(2, 4, 4), AG_SHAPE(3, 3, 3) };
    bool found = false;
    for (int i = 0; i < op->n + 4 && !found; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        *shape = i < op->n ? shape_of(&op->inputs[i]) : others[i - op->n];
        ag_var x = ag_require_gradient(ag_full(ctx, *shape, 0.5));
        ag_var same[AG_CASE_INPUTS] = { x, x, x, x };
        found = ag_is_valid(op->f(ctx, same, op->n, NULL));
        ag_context_free(ctx);
    }
    return found;
}

/* Whether there is something to check. A broadcast operand has ties, and the cases of SEPARATE
 * want none. */
static bool applies(const ag_op_case *op, layout kind)
{
    for (int i = 0; i < op->n; i++)
        if (kind == BROADCAST && op->inputs[i].domain == AG_SEPARATE)
            return false;
    return !has_one_leaf(kind) || op->n > 1;
}

/* The leaves, and how many they are; 0 if there is no shape for them. */
static int make_leaves(ag_context *ctx, const layout_call *call, ag_random *random, ag_var *leaves)
{
    const ag_op_case *op = call->op;
    ag_shape shape;
    if (call->kind == SAME && !common_shape(op, &shape))
        return 0;
    if (call->kind == OVERLAP) {
        shape = AG_SHAPE(0);
        for (int i = 0; i < op->n; i++)
            if (shape.dims[0] < ag_shape_count(shape_of(&op->inputs[i])) + i)
                shape.dims[0] = ag_shape_count(shape_of(&op->inputs[i])) + i;
    }
    if (has_one_leaf(call->kind)) {
        leaves[0] = ag_require_gradient(ag_zeros(ctx, shape));
        ag_op_case_draw(leaves[0], common_domain(op), random);
        return 1;
    }
    for (int i = 0; i < op->n; i++) {
        leaves[i] = ag_require_gradient(ag_zeros(ctx, leaf_shape(call->kind, &op->inputs[i])));
        fill(leaves[i], call->kind, &op->inputs[i], random);
    }
    return op->n;
}

/* ---- Forward: a view gives what its copy gives, bit for bit ---- */

static void compare_with_copies(ag_context *ctx, const ag_var *leaves, layout_call *call,
                                ag_case_result *result)
{
    ag_var views[AG_CASE_INPUTS], copies[AG_CASE_INPUTS];
    views_of(call, leaves, views);
    for (int i = 0; i < call->op->n; i++) {
        ag_var copy = ag_zeros(ctx, ag_shape_of(views[i]));
        for (int64_t k = 0; k < ag_tensor_count(ag_value(views[i])); k++)
            ag_tensor_put(ag_value_mutable(copy), k, ag_tensor_at(ag_value(views[i]), k));
        copies[i] = ag_require_gradient(copy);
    }
    ag_var of_views = call_of_views(ctx, leaves, call->op->n, call);
    ag_var of_copies = call->op->f(ctx, copies, call->op->n, NULL);
    if (ag_status(ctx) != AG_OK)
        ag_case_complain(result, "%s: %s", layout_names[call->kind], ag_error_message(ctx));
    else if (!ag_case_same_bits(ag_value(of_views), ag_value(of_copies)))
        ag_case_complain(result, "%s: the result differs from that of copies",
                         layout_names[call->kind]);
}

/* Some operations have no result for some sizes, or take no variable for all their operands: the
 * case says so, and then it must be so. */
static bool is_refused(ag_context *ctx, const layout_call *call, int leaves, ag_case_result *result)
{
    static const unsigned bits[LAYOUTS] = {
        [SAME] = AG_REFUSES_SAME, [SIZE_1] = AG_REFUSES_SIZE_1, [SIZE_0] = AG_REFUSES_SIZE_0
    };
    bool declared = call->op->refuses & bits[call->kind];
    bool refused = leaves == 0 || ag_status(ctx) == AG_ERR_SHAPE || ag_status(ctx) == AG_ERR_INDEX;
    const char *name = layout_names[call->kind];
    if (declared && !refused)
        ag_case_complain(result, "%s: not refused, as the case says", name);
    else if (!declared && leaves == 0)
        ag_case_complain(result, "%s: refused", name);
    else if (ag_status(ctx) != AG_OK && !(declared && refused))
        ag_case_complain(result, "%s: %s", name, ag_error_message(ctx));
    return leaves == 0 || ag_status(ctx) != AG_OK;
}

static void check_layout(const ag_op_case *op, layout kind, uint64_t seed, ag_case_result *result)
{
    layout_call call = { op, kind };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(seed, op->name, 100 + (uint64_t)kind);
    ag_var leaves[AG_CASE_INPUTS];
    int n = make_leaves(ctx, &call, &random, leaves);
    ag_var y = n > 0 ? call_of_views(ctx, leaves, n, &call) : AG_NONE;
    if (!is_refused(ctx, &call, n, result)) {
        compare_with_copies(ctx, leaves, &call, result);
        ag_gradcheck_report report;
        bool of_nothing = kind == SIZE_0 && ag_tensor_count(ag_value(y)) > 0; /* such as 0 / 0 */
        if (ag_requires_gradient(y) && !of_nothing) {
            ag_gradcheck(ctx, call_of_views, &call, leaves, n,
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
