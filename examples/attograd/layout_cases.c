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

static bool same_bits(const ag_tensor *a, const ag_tensor *b)
{
    for (int64_t k = 0; k < ag_tensor_count(a); k++) {
        double x = ag_tensor_at(a, k), y = ag_tensor_at(b, k);
        if (memcmp(&x, &y, sizeof x))
            return false;
    }
    return ag_tensor_count(a) == ag_tensor_count(b);
}

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
    if (ag_status(ctx) == AG_OK && !same_bits(ag_value(of_views), ag_value(of_copies)))
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

/* ---- Purity ---- */

enum { MOST_TENSORS = AG_CASE_INPUTS + 2 };

/* The bytes of tensors, to see whether they change. */
typedef struct snapshot {
    int n;
    const ag_tensor *tensors[MOST_TENSORS];
    double *copies[MOST_TENSORS];
} snapshot;

static void remember(snapshot *s, const ag_tensor *x)
{
    int64_t count = ag_tensor_count(x);
    double *copy = malloc((size_t)(count + 1) * sizeof *copy);
    for (int64_t k = 0; copy && k < count; k++)
        copy[k] = ag_tensor_at(x, k);
    s->tensors[s->n] = x;
    s->copies[s->n++] = copy;
}

static bool is_unchanged(const snapshot *s, int i)
{
    for (int64_t k = 0; s->copies[i] && k < ag_tensor_count(s->tensors[i]); k++) {
        double now = ag_tensor_at(s->tensors[i], k);
        if (memcmp(&now, &s->copies[i][k], sizeof now))
            return false;
    }
    return true;
}

/* Backward twice gives the same bits, and leaves inputs, result and cotangent alone. */
static void check_twice(ag_context *ctx, const ag_op_case *op, const ag_var *x, unsigned flags,
                        ag_case_result *result)
{
    ag_var first[AG_CASE_INPUTS], second[AG_CASE_INPUTS], y = op->f(ctx, x, op->n, NULL);
    if (!ag_is_valid(y) || !ag_requires_gradient(y))
        return;
    ag_random random = ag_random_stream(3, "cotangent", 0);
    ag_var dy = ag_normal(ctx, &random, ag_shape_of(y));
    snapshot before = { .n = 0 };
    for (int i = 0; i < op->n; i++)
        remember(&before, ag_value(x[i]));
    remember(&before, ag_value(y));
    remember(&before, ag_value(dy));
    ag_grad_from(y, dy, x, op->n, first, flags);
    ag_grad_from(y, dy, x, op->n, second, flags);
    if (ag_status(ctx) != AG_OK)
        ag_case_complain(result, "backward twice: %s", ag_error_message(ctx));
    for (int i = 0; i < op->n && ag_status(ctx) == AG_OK; i++)
        if (!same_bits(ag_value(first[i]), ag_value(second[i])))
            ag_case_complain(result, "backward gives other bits the second time");
    for (int i = 0; i < before.n; i++) {
        if (!is_unchanged(&before, i))
            ag_case_complain(result, "backward changes %s",
                             i < op->n    ? "an input"
                             : i == op->n ? "the result"
                                          : "the gradient that it is given");
        free(before.copies[i]);
    }
}

/* A gradient that is there is added to: twice the same loss gives exactly twice the gradient. */
static void check_accumulation(ag_context *ctx, const ag_op_case *op, const ag_var *x,
                               ag_case_result *result)
{
    snapshot once = { .n = 0 };
    for (int pass = 0; pass < 2; pass++) {
        ag_var y = op->f(ctx, x, op->n, NULL);
        if (!ag_is_valid(y) || !ag_requires_gradient(y))
            return;
        ag_backward(ag_sum(ag_mul(y, ag_sin(ag_detach(y))), AG_ALL, 0));
        for (int i = 0; pass == 0 && i < op->n; i++)
            if (ag_gradient(x[i]))
                remember(&once, ag_gradient(x[i]));
    }
    for (int i = 0; i < once.n; i++) {
        for (int64_t k = 0; once.copies[i] && k < ag_tensor_count(once.tensors[i]); k++)
            once.copies[i][k] *= 2.0;
        if (!is_unchanged(&once, i))
            ag_case_complain(result, "a second backward does not add to the gradient");
        free(once.copies[i]);
    }
}

static void check_purity(const ag_op_case *op, uint64_t seed, ag_case_result *result)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(seed, op->name, 200);
    ag_var x[AG_CASE_INPUTS];
    for (int i = 0; i < op->n; i++) {
        const ag_case_input *input = &op->inputs[i];
        x[i] = ag_require_gradient(ag_zeros(ctx, ag_shape_make(input->rank, input->dims)));
        ag_op_case_draw(x[i], input->domain, &random);
    }
    check_twice(ctx, op, x, 0, result);
    check_twice(ctx, op, x, AG_CREATE_GRAPH, result);
    check_accumulation(ctx, op, x, result);
    ag_context_free(ctx);
}

void ag_layout_case_run(const ag_op_case *op, uint64_t seed, ag_case_result *result)
{
    for (int kind = 0; kind < LAYOUTS; kind++)
        if (applies(op, (layout)kind))
            check_layout(op, (layout)kind, seed, result);
    check_purity(op, seed, result);
}
