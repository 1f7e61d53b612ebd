/* Faults of the operations that choose, reduce or move entries about. */
#include "mutants.h"

static ag_var input(const ag_node *node, int i)
{
    return ag_node_input(node, i);
}

static bool needs(const ag_node *node, int i)
{
    return ag_node_needs(node, i);
}

static ag_shape shape_of(const ag_node *node, int i)
{
    return ag_shape_of(input(node, i));
}

static void just_dy(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

/* The right rule, divided by how often the smaller of input and output goes into the other. */
static void mean_for_sum(const ag_node *node, ag_var dy, ag_var *dx)
{
    double in = (double)ag_shape_count(shape_of(node, 0));
    double out = (double)ag_shape_count(ag_shape_of(dy));
    ag_right_rule(node, dy, dx);
    dx[0] = ag_scale(dx[0], in < out ? in / out : out / in);
}

/* ---- Choosing ---- */

static void where_inverted(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var zero = ag_scalar(dy.context, 0.0);
    if (needs(node, 1))
        dx[1] = ag_sum_to(ag_where(input(node, 0), zero, dy), shape_of(node, 1));
    if (needs(node, 2))
        dx[2] = ag_sum_to(ag_where(input(node, 0), dy, zero), shape_of(node, 2));
}

static void where_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var zero = ag_scalar(dy.context, 0.0);
    if (needs(node, 1))
        dx[1] = ag_first_of(ag_where(input(node, 0), dy, zero), shape_of(node, 1));
    if (needs(node, 2))
        dx[2] = ag_first_of(ag_where(input(node, 0), zero, dy), shape_of(node, 2));
}

static void both_chosen(const ag_node *node, ag_var dy, ag_var *dx)
{
    for (int i = 1; i < 3; i++)
        if (needs(node, i))
            dx[i] = ag_sum_to(dy, shape_of(node, i));
}

static void mask_inverted(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    dx[0] = ag_sub(dy, dx[0]);
}

static void cast_sign(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (ag_dtype_of(dy) == AG_F32)
        dx[0] = ag_neg(dx[0]);
}

/* 1 for the last of the indices that are equal, else 0, for rows like those of g. */
static ag_var last_of_each(const ag_node *node, ag_var g)
{
    const ag_tensor *indices = ag_node_input_value(node, 1);
    ag_shape shape = ag_tensor_shape(indices);
    int64_t count = ag_tensor_count(indices);
    while (shape.rank < ag_shape_of(g).rank)
        shape.dims[shape.rank++] = 1;
    ag_var last = ag_full(g.context, shape, 1.0);
    for (int64_t k = 0; k < count; k++)
        for (int64_t later = k + 1; later < count; later++)
            if (ag_tensor_at(indices, k) == ag_tensor_at(indices, later))
                ag_tensor_put(ag_value_mutable(last), k, 0.0);
    return last;
}

static void gather_overwrites(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, ag_mul(dy, last_of_each(node, dy)), dx);
    if (needs(node, 2))
        dx[2] = ag_sum_to(dy, shape_of(node, 2));
}

static void gather_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (needs(node, 2))
        dx[2] = ag_first_of(dy, shape_of(node, 2));
}

static void scatter_to_last(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    dx[0] = ag_mul(dx[0], last_of_each(node, dx[0]));
}

/* ---- Reducing ---- */

/* dy with the one axis back that was reduced; absent if it was not one. */
static ag_var with_axis(const ag_node *node, ag_var dy)
{
    ag_shape in = shape_of(node, 0), out = ag_shape_of(dy);
    int axis = 0;
    if (out.rank != in.rank - 1)
        return AG_NONE;
    while (axis < out.rank && out.dims[axis] == in.dims[axis])
        axis++;
    return ag_unsqueeze(dy, axis);
}

/* dy to the first entry alone of those that were reduced. */
static void only_the_first(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var wide = with_axis(node, dy);
    ag_right_rule(node, dy, dx);
    if (ag_is_none(wide))
        return;
    ag_shape in = shape_of(node, 0), kept = ag_shape_of(wide);
    int axis = 0;
    while (axis < in.rank && in.dims[axis] == kept.dims[axis])
        axis++;
    if (axis == in.rank) /* one entry: it is the first */
        return;
    ag_var rest = ag_scale(ag_slice(dx[0], axis, 1, AG_END, 1), 0.0);
    dx[0] = ag_concat((ag_var[]){ wide, rest }, 2, axis);
}

/* dy to every entry of x. */
static void every_entry(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var wide = with_axis(node, dy);
    if (ag_is_none(wide))
        ag_right_rule(node, dy, dx);
    else
        dx[0] = ag_broadcast_to(wide, shape_of(node, 0));
}

/* dy to every entry but the largest. */
static void losers(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var right = AG_NONE;
    ag_right_rule(node, dy, &right);
    every_entry(node, dy, dx);
    if (!ag_is_none(with_axis(node, dy)))
        dx[0] = ag_sub(dx[0], right);
}

static void logsumexp_as_max(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = input(node, 0), wide = with_axis(node, dy),
           y = with_axis(node, ag_node_output(node));
    if (ag_is_none(wide))
        ag_right_rule(node, dy, dx);
    else
        dx[0] = ag_mul(wide, ag_greater(x, ag_shift(y, -1.0))); /* near the largest */
}

static ag_var all_flipped(ag_var x)
{
    for (int axis = ag_shape_of(x).rank - 1; axis >= 0; axis--)
        x = ag_flip(x, axis);
    return x;
}

/* The sums from the beginning: flips of the other axes cancel each other. */
static void cumsum_not_reversed(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, all_flipped(dy), dx);
    dx[0] = all_flipped(dx[0]);
}

static void cumsum_exclusive(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    dx[0] = ag_sub(dx[0], dy);
}

/* ---- Moving entries ---- */

static void permute_not_at_all(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_reshape(dy, shape_of(node, 0));
}

/* Three axes in a circle: twice backwards is once forwards. */
static void permute_forwards(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var back = AG_NONE;
    ag_right_rule(node, dy, &back);
    dx[0] = back;
    if (ag_shape_of(dy).rank == 3 && ag_shape_equal(ag_shape_of(dy), ag_shape_of(back)))
        ag_right_rule(node, back, dx);
}

static void broadcast_unsummed(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_first_of(dy, shape_of(node, 0));
}

/* The first two inputs get each other's part. */
static void concat_swapped(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (!needs(node, 0) || !needs(node, 1) || !ag_shape_equal(shape_of(node, 0), shape_of(node, 1)))
        return;
    ag_var first = dx[0];
    dx[0] = dx[1];
    dx[1] = first;
}

/* ---- The table ---- */

#define READS (1u << AG_FAULT_STALE | 1u << AG_FAULT_DRIFTED)
#define SIGNS (1u << AG_FAULT_SIGN | 1u << AG_FAULT_SIGN_FUSED | 1u << AG_FAULT_SIGN_RECORDED)
#define DRIFTS (1u << AG_FAULT_DRIFTED)
static const char linear[] = "the rule reads no values";
static const char pieces[] = "the rule reads only which piece the values are on";
static const char there_and_back[] =
    "the rule reads no values, and from f64 to f64 casts come in pairs, whose signs cancel";
static const char whole[] = "the rule reads whole numbers, which 1.001 does not move";

#define FIRST 1u

const ag_mutated_op ag_mutated_shapes[] = {
    { "where",
      1u << 1 | 1u << 2,
      DRIFTS,
      pieces,
      { { "condition inverted", where_inverted },
        { "broadcast operand not summed", where_unsummed },
        { "both chosen", both_chosen } } },
    { "masked_fill",
      FIRST,
      DRIFTS | ONE_TERM,
      pieces,
      { { "no mask", just_dy }, { "mask inverted", mask_inverted } } },
    { "cast",
      FIRST,
      READS | SIGNS | ONE_TERM,
      there_and_back,
      { { "sign, on the way to f32", cast_sign } } },
    { "sum",
      FIRST,
      READS | ONE_TERM,
      linear,
      { { "only to the first", only_the_first }, { "1 / n", mean_for_sum } } },
    { "max",
      FIRST,
      DRIFTS | ONE_TERM,
      pieces,
      { { "every entry", every_entry }, { "the losers", losers } } },
    { "logsumexp",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no softmax", every_entry }, { "the largest alone", logsumexp_as_max } } },
    { "cumsum",
      FIRST,
      READS,
      linear,
      { { "not reversed", cumsum_not_reversed }, { "without its own", cumsum_exclusive } } },
    { "permute",
      FIRST,
      READS | ONE_TERM,
      linear,
      { { "not permuted", permute_not_at_all }, { "permuted forwards", permute_forwards } } },
    { "reshape", FIRST, READS | ONE_TERM, linear, { { NULL, NULL } } },
    { "slice", FIRST, READS | ONE_TERM, linear, { { NULL, NULL } } },
    { "unslice", FIRST, READS | ONE_TERM, linear, { { NULL, NULL } } },
    { "flip", FIRST, READS | ONE_TERM, linear, { { "not flipped", just_dy } } },
    { "broadcast_to",
      FIRST,
      READS,
      linear,
      { { "not summed", broadcast_unsummed }, { "1 / n", mean_for_sum } } },
    { "sum_to", FIRST, READS | ONE_TERM, linear, { { "1 / n", mean_for_sum } } },
    { "contiguous", FIRST, READS | ONE_TERM, linear, { { NULL, NULL } } },
    { "concat", 0xf, READS | ONE_TERM, linear, { { "parts swapped", concat_swapped } } },
    { "gather_rows",
      1u << 0 | 1u << 2,
      DRIFTS,
      whole,
      { { "a repeated index overwrites", gather_overwrites },
        { "broadcast operand not summed", gather_unsummed } } },
    { "scatter_add_rows",
      FIRST,
      DRIFTS | ONE_TERM,
      whole,
      { { "only the last of a repeated index", scatter_to_last } } },
    { NULL, 0, 0, NULL, { { NULL, NULL } } },
};
