/* The faults that every operation can have, and the list of all mutants. */
#include "mutants.h"

#include <string.h>

void ag_right_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_node_op(node)->vjp(node, dy, dx);
}

ag_var ag_first_of(ag_var g, ag_shape shape)
{
    ag_shape wide = ag_shape_of(g);
    for (int axis = 0; axis < wide.rank; axis++) {
        int own = axis - (wide.rank - shape.rank);
        if (own < 0 || shape.dims[own] != wide.dims[axis])
            g = ag_slice(g, axis, 0, 1, 1);
    }
    return ag_reshape(g, shape);
}

/* The most that an operation with mutants has. */
enum { MOST_INPUTS = 4 };

/* ---- Faults in the gradient of one input: dx[i] as it would be then ---- */

static ag_var sign(const ag_node *node, int i, const ag_var *dx)
{
    (void)node;
    return ag_neg(dx[i]);
}

static ag_var doubled(const ag_node *node, int i, const ag_var *dx)
{
    (void)node;
    return ag_scale(dx[i], 2.0);
}

static ag_var slight(const ag_node *node, int i, const ag_var *dx)
{
    (void)node;
    return ag_scale(dx[i], 1.0 + 1e-6);
}

static ag_var zero(const ag_node *node, int i, const ag_var *dx)
{
    (void)node;
    return ag_scale(dx[i], 0.0);
}

static ag_var transposed(const ag_node *node, int i, const ag_var *dx)
{
    ag_shape shape = ag_shape_of(dx[i]);
    (void)node;
    if (shape.rank < 2)
        return shape.rank == 1 ? ag_flip(dx[i], 0) : dx[i];
    return ag_reshape(ag_transpose(dx[i], -1, -2), shape);
}

static ag_var rolled(const ag_node *node, int i, const ag_var *dx)
{
    ag_shape shape = ag_shape_of(dx[i]);
    ag_var flat = ag_reshape(dx[i], AG_SHAPE(-1));
    ag_var parts[] = { ag_slice(flat, 0, 1, AG_END, 1), ag_slice(flat, 0, 0, 1, 1) };
    (void)node;
    return ag_reshape(ag_concat(parts, 2, 0), shape);
}

/* The last entry that is not 0 anyway becomes 0. */
static ag_var dropped(const ag_node *node, int i, const ag_var *dx)
{
    const ag_tensor *value = ag_value(dx[i]);
    ag_var kept = ag_full(ag_node_context(node), ag_shape_of(dx[i]), 1.0);
    int64_t last = ag_tensor_count(value) - 1;
    while (last > 0 && ag_tensor_at(value, last) == 0.0)
        last--;
    ag_tensor_put(ag_value_mutable(kept), last, 0.0);
    return ag_mul(dx[i], ag_cast(kept, ag_dtype_of(dx[i])));
}

static bool same_variable(ag_var a, ag_var b)
{
    return a.index == b.index && a.generation == b.generation;
}

/* dx[i] is going to be added to what is there: less all that, only dx[i] is left. */
static ag_var overwrites(const ag_node *node, int i, const ag_var *dx)
{
    ag_var arrived = ag_node_arrived(node, i);
    ag_var alone = ag_is_none(arrived) ? dx[i] : ag_sub(dx[i], arrived);
    for (int k = 0; k < i; k++)
        if (ag_node_needs(node, k) && same_variable(ag_node_input(node, k), ag_node_input(node, i)))
            alone = ag_sub(alone, dx[k]);
    return alone;
}

static void spoil(const ag_node *node, ag_var dy, ag_var *dx, int i,
                  ag_var (*fault)(const ag_node *node, int i, const ag_var *dx))
{
    ag_right_rule(node, dy, dx);
    if (ag_node_needs(node, i))
        dx[i] = fault(node, i, dx);
}

/* A rule does not say which input it should spoil, so there is one for each. */
#define RULE(fault, i)                                                  \
    static void fault##_##i(const ag_node *node, ag_var dy, ag_var *dx) \
    {                                                                   \
        spoil(node, dy, dx, i, fault);                                  \
    }
#define RULES(fault) RULE(fault, 0) RULE(fault, 1) RULE(fault, 2) RULE(fault, 3)
#define EACH(fault)                                \
    {                                              \
        fault##_0, fault##_1, fault##_2, fault##_3 \
    }

/* dy without the last entry of its last axis; dy itself if it is one number. */
static ag_var without_last(ag_var dy)
{
    ag_shape shape = ag_shape_of(dy);
    int64_t last = shape.rank > 0 ? shape.dims[shape.rank - 1] : 0;
    if (last == 0)
        return dy;
    ag_var kept = ag_full(dy.context, AG_SHAPE(last), 1.0);
    ag_tensor_put(ag_value_mutable(kept), last - 1, 0.0);
    return ag_mul(dy, ag_cast(kept, ag_dtype_of(dy)));
}

/* dx[i] is a sum over entries of dy, some of which are forgotten. */
static void forget_term(const ag_node *node, ag_var dy, ag_var *dx, int i)
{
    ag_var forgetful[MOST_INPUTS] = { AG_NONE };
    ag_right_rule(node, dy, dx);
    if (!ag_node_needs(node, i) || ag_node_input_count(node) > MOST_INPUTS)
        return;
    ag_right_rule(node, without_last(dy), forgetful);
    dx[i] = forgetful[i];
}

/* ---- Faults in one of the two uses of a rule ---- */

/* Whether what the rule computes is recorded: then what is made of its result asks for a gradient,
 * as the result does. */
static bool is_recorded(const ag_node *node)
{
    ag_var y = ag_node_output(node);
    return ag_requires_gradient(ag_reshape(y, ag_shape_of(y)));
}

static void spoil_if(const ag_node *node, ag_var dy, ag_var *dx, int i, bool recorded,
                     ag_var (*fault)(const ag_node *node, int i, const ag_var *dx))
{
    if (is_recorded(node) == recorded)
        spoil(node, dy, dx, i, fault);
    else
        ag_right_rule(node, dy, dx);
}

RULES(sign)
RULES(doubled)
RULES(slight)
RULES(zero)
RULES(transposed)
RULES(rolled)
RULES(dropped)
RULES(overwrites)

#define FORGETFUL(name, i)                                             \
    static void name##_##i(const ag_node *node, ag_var dy, ag_var *dx) \
    {                                                                  \
        forget_term(node, dy, dx, i);                                  \
    }
#define FORGETFUL_RULES(name) \
    FORGETFUL(name, 0) FORGETFUL(name, 1) FORGETFUL(name, 2) FORGETFUL(name, 3)

FORGETFUL_RULES(term)

#define IN_USE(fault, use, i, recorded)                                         \
    static void fault##_##use##_##i(const ag_node *node, ag_var dy, ag_var *dx) \
    {                                                                           \
        spoil_if(node, dy, dx, i, recorded, fault);                             \
    }
#define IN_BOTH(fault, i) IN_USE(fault, fused, i, false) IN_USE(fault, recorded, i, true)
#define RULES_BY_USE(fault) IN_BOTH(fault, 0) IN_BOTH(fault, 1) IN_BOTH(fault, 2) IN_BOTH(fault, 3)

RULES_BY_USE(sign)
RULES_BY_USE(slight)
RULES_BY_USE(zero)

/* ---- Faults in what the rule reads ---- */

/* The node's operands and its result; room for those that a mutant keeps. */
enum { MOST_VALUES = MOST_INPUTS + 1 };

static const ag_tensor *value_of(const ag_node *node, int i)
{
    int n = ag_node_input_count(node);
    return i < n ? ag_node_input_value(node, i) : ag_value(ag_node_output(node));
}

/* Puts other numbers in the place of tensor's: number k is that of place k + shift, times factor.
 */
static void put(const ag_tensor *tensor, const ag_tensor *numbers, int64_t shift, double factor)
{
    ag_tensor place = *tensor;
    int64_t count = ag_tensor_count(tensor);
    for (int64_t k = 0; k < count; k++)
        ag_tensor_put(&place, k, factor * ag_tensor_at(numbers, (k + shift) % count));
}

/* The right rule, which finds other values than those of forward. They are put back. */
static void misread(const ag_node *node, ag_var dy, ag_var *dx, int64_t shift, double factor)
{
    ag_var kept[MOST_VALUES];
    int n = ag_node_input_count(node) + 1;
    if (n > MOST_VALUES) {
        ag_right_rule(node, dy, dx);
        return;
    }
    for (int i = 0; i < n; i++)
        kept[i] = ag_from_tensor(ag_node_context(node), value_of(node, i));
    for (int i = 0; i < n; i++)
        put(value_of(node, i), ag_value(kept[i]), shift, factor);
    ag_right_rule(node, dy, dx);
    for (int i = 0; i < n; i++)
        put(value_of(node, i), ag_value(kept[i]), 0, 1.0);
}

static void stale(const ag_node *node, ag_var dy, ag_var *dx)
{
    misread(node, dy, dx, 1, 1.0);
}

static void drifted(const ag_node *node, ag_var dy, ag_var *dx)
{
    misread(node, dy, dx, 0, 1.001);
}

/* ---- All of them ---- */

static const struct {
    const char *name;
    ag_rule rules[MOST_INPUTS]; /* one for each input, or only the first, of the whole */
} faults[AG_FAULTS] = {
    [AG_FAULT_SIGN] = { "sign", EACH(sign) },
    [AG_FAULT_DOUBLED] = { "factor 2", EACH(doubled) },
    [AG_FAULT_SLIGHT] = { "factor 1 + 1e-6", EACH(slight) },
    [AG_FAULT_ZERO] = { "zero", EACH(zero) },
    [AG_FAULT_TRANSPOSED] = { "transposed", EACH(transposed) },
    [AG_FAULT_ROLLED] = { "off by one entry", EACH(rolled) },
    [AG_FAULT_DROPPED] = { "an entry dropped", EACH(dropped) },
    [AG_FAULT_TERM] = { "a term dropped", EACH(term) },
    [AG_FAULT_OVERWRITES] = { "+= as =", EACH(overwrites) },
    [AG_FAULT_STALE] = { "values of other entries", { stale } },
    [AG_FAULT_DRIFTED] = { "values times 1.001", { drifted } },
    [AG_FAULT_SIGN_FUSED] = { "sign, fused", EACH(sign_fused) },
    [AG_FAULT_SIGN_RECORDED] = { "sign, recorded", EACH(sign_recorded) },
    [AG_FAULT_SLIGHT_FUSED] = { "factor 1 + 1e-6, fused", EACH(slight_fused) },
    [AG_FAULT_SLIGHT_RECORDED] = { "factor 1 + 1e-6, recorded", EACH(slight_recorded) },
    [AG_FAULT_ZERO_FUSED] = { "zero, fused", EACH(zero_fused) },
    [AG_FAULT_ZERO_RECORDED] = { "zero, recorded", EACH(zero_recorded) },
};

static const ag_mutated_op *const tables[] = { ag_mutated_functions, ag_mutated_shapes,
                                               ag_mutated_matrices, ag_mutated_rows };
enum { TABLES = sizeof tables / sizeof tables[0] };

static const ag_mutated_op *row_of(const char *op)
{
    for (int t = 0; t < TABLES; t++)
        for (const ag_mutated_op *row = tables[t]; row->op; row++)
            if (!strcmp(row->op, op))
                return row;
    return NULL;
}

ag_mutant ag_mutant_of(const char *op, ag_fault fault, int input)
{
    bool whole = !faults[fault].rules[1];
    return (ag_mutant){ op, faults[fault].name, whole ? -1 : input,
                        faults[fault].rules[whole ? 0 : input] };
}

const char *ag_mutant_left_out(const char *op, ag_fault fault)
{
    const ag_mutated_op *row = row_of(op);
    if (!row || !(row->equivalent >> fault & 1))
        return NULL;
    return fault == AG_FAULT_TERM ? "no entry of dx is a sum over entries of dy" : row->because;
}

/* Mutant *i of a row; if it has fewer, *i becomes the number among those of the next. */
static bool find_in_row(const ag_mutated_op *row, int *i, ag_mutant *mutant)
{
    for (int fault = 0; fault < AG_FAULTS; fault++) {
        bool whole = !faults[fault].rules[1];
        for (int input = 0; input < MOST_INPUTS; input++) {
            bool exists = whole ? input == 0 : row->inputs >> input & 1;
            if (!exists || row->equivalent >> fault & 1 || (*i)-- > 0)
                continue;
            *mutant = ag_mutant_of(row->op, (ag_fault)fault, input);
            return true;
        }
    }
    for (int k = 0; row->own[k].name; k++)
        if ((*i)-- == 0) {
            *mutant = (ag_mutant){ row->op, row->own[k].name, -1, row->own[k].rule };
            return true;
        }
    return false;
}

ag_mutant ag_mutant_at(int i)
{
    ag_mutant mutant = { 0 };
    for (int t = 0; t < TABLES && i >= 0; t++)
        for (const ag_mutated_op *row = tables[t]; row->op; row++)
            if (find_in_row(row, &i, &mutant))
                return mutant;
    return mutant;
}

int ag_mutant_count(const char *op)
{
    int count = 0;
    ag_mutant mutant;
    for (int i = 0; (mutant = ag_mutant_at(i)).op; i++)
        count += !op || !strcmp(mutant.op, op);
    return count;
}
