/* Faults of the operations that work on rows: softmax, the norms, cross-entropy, attention. Each
 * repeats the right rule with a part left out or wrong. */
#include "mutants.h"

#include <math.h>

static ag_var input(const ag_node *node, int i)
{
    return ag_node_input(node, i);
}

static bool needs(const ag_node *node, int i)
{
    return ag_node_needs(node, i);
}

static ag_var row_sum(ag_var x)
{
    return ag_sum(x, -1, AG_KEEP_DIM);
}

static ag_var row_mean(ag_var x)
{
    return ag_mean(x, -1, AG_KEEP_DIM);
}

/* ---- softmax: dx = p (dp - sum of p dp); log-softmax: dx = dy - p sum of dy ---- */

static void softmax_uncentred(const ag_node *node, ag_var dp, ag_var *dx)
{
    dx[0] = ag_mul(ag_node_output(node), dp);
}

static void softmax_no_p(const ag_node *node, ag_var dp, ag_var *dx)
{
    dx[0] = ag_sub(dp, row_sum(ag_mul(ag_node_output(node), dp)));
}

static void softmax_plain_sum(const ag_node *node, ag_var dp, ag_var *dx)
{
    dx[0] = ag_mul(ag_node_output(node), ag_sub(dp, row_sum(dp)));
}

static void softmax_mean(const ag_node *node, ag_var dp, ag_var *dx)
{
    ag_var p = ag_node_output(node);
    dx[0] = ag_mul(p, ag_sub(dp, row_mean(ag_mul(p, dp))));
}

/* As if each p had its own x: p (1 - p) dp, the diagonal alone. */
static void softmax_diagonal(const ag_node *node, ag_var dp, ag_var *dx)
{
    ag_var p = ag_node_output(node);
    dx[0] = ag_mul(ag_mul(p, ag_shift(ag_neg(p), 1.0)), dp);
}

static void log_softmax_uncentred(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

static void log_softmax_of_y(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_sub(dy, ag_mul(ag_node_output(node), row_sum(dy)));
}

static void log_softmax_mean(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_sub(dy, ag_mul(ag_exp(ag_node_output(node)), row_mean(dy)));
}

static void log_softmax_uniform(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_sub(dy, row_mean(dy));
}

/* ---- The norms: dx = r (g - mean g - h mean(g h)), for RMS without mean g ---- */

/* Which part is wrong. */
typedef enum norm_fault {
    NO_CENTRING,  /* mean g */
    NO_ALONG_H,   /* h mean(g h) */
    NO_SPREAD,    /* r */
    NO_GAIN,      /* g = dy */
    NO_EPSILON,   /* in r */
    ONE_FEWER,    /* r from the sum over d - 1 */
    GAIN_OF_X,    /* dgain = dy x for dy h */
    GAIN_UNSUMMED /* dgain and dbias of the first row */
} norm_fault;

static double spread_factor(ag_var x, norm_fault fault)
{
    ag_shape shape = ag_shape_of(x);
    double d = (double)shape.dims[shape.rank - 1];
    return fault == ONE_FEWER ? d / (d - 1.0) : 1.0;
}

/* With gain (and, if centred, bias), and the default epsilon: other nodes keep to their rule. */
static void norm(const ag_node *node, bool centred, norm_fault fault, ag_var dy, ag_var *dx)
{
    ag_right_rule(node, dy, dx);
    if (ag_node_input_count(node) != (centred ? 3 : 2))
        return;
    ag_var given = input(node, 0), x = centred ? ag_sub(given, row_mean(given)) : given;
    ag_var variance = ag_scale(row_mean(ag_square(x)), spread_factor(x, fault));
    ag_var r = ag_rsqrt(ag_shift(variance, fault == NO_EPSILON ? 0.0 : 1e-5)), h = ag_mul(x, r);
    ag_var g = fault == NO_GAIN ? dy : ag_mul(dy, input(node, 1)), left = g;
    if (centred && fault != NO_CENTRING)
        left = ag_sub(left, row_mean(g));
    if (fault != NO_ALONG_H)
        left = ag_sub(left, ag_mul(h, row_mean(ag_mul(g, h))));
    if (needs(node, 0))
        dx[0] = fault == NO_SPREAD ? left : ag_mul(left, r);
    if (needs(node, 1) && fault == GAIN_OF_X)
        dx[1] = ag_sum_to(ag_mul(dy, given), ag_shape_of(input(node, 1)));
    for (int i = 1; fault == GAIN_UNSUMMED && i < (centred ? 3 : 2); i++)
        if (needs(node, i))
            dx[i] = ag_first_of(i == 1 ? ag_mul(dy, h) : dy, ag_shape_of(input(node, i)));
}

#define NORM(name, fault)                                                     \
    static void layer_norm_##name(const ag_node *node, ag_var dy, ag_var *dx) \
    {                                                                         \
        norm(node, true, fault, dy, dx);                                      \
    }                                                                         \
    static void rms_norm_##name(const ag_node *node, ag_var dy, ag_var *dx)   \
    {                                                                         \
        norm(node, false, fault, dy, dx);                                     \
    }

NORM(no_along_h, NO_ALONG_H)
NORM(no_spread, NO_SPREAD)
NORM(no_gain, NO_GAIN)
NORM(no_epsilon, NO_EPSILON)
NORM(one_fewer, ONE_FEWER)
NORM(gain_of_x, GAIN_OF_X)
NORM(unsummed, GAIN_UNSUMMED)

static void layer_norm_no_centring(const ag_node *node, ag_var dy, ag_var *dx)
{
    norm(node, true, NO_CENTRING, dy, dx);
}

/* ---- cross-entropy: dx = w (p - [c = t]) dloss ---- */

/* How many rows there are, and how many of them count. */
static void count_rows(const ag_node *node, double *rows, double *counted)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    const ag_tensor *labels = ag_node_input_value(node, 1);
    *rows = *counted = (double)ag_tensor_count(labels);
    for (int64_t i = 0; options->ignore && i < ag_tensor_count(labels); i++)
        *counted -= ag_tensor_at(labels, i) == (double)options->ignore_index;
}

/* The mean over all rows; other nodes keep to their rule. */
static bool is_plain(const ag_node *node)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    return !options->ignore && options->reduction == AG_MEAN;
}

static void cross_entropy_no_target(const ag_node *node, ag_var dloss, ag_var *dx)
{
    double rows, counted;
    count_rows(node, &rows, &counted);
    ag_right_rule(node, dloss, dx);
    if (is_plain(node))
        dx[0] = ag_scale(ag_mul(ag_softmax(input(node, 0), -1), dloss), 1.0 / rows);
}

static void cross_entropy_sum(const ag_node *node, ag_var dloss, ag_var *dx)
{
    double rows, counted;
    count_rows(node, &rows, &counted);
    ag_right_rule(node, dloss, dx);
    dx[0] = ag_scale(dx[0], is_plain(node) ? rows : 1.0);
}

static void cross_entropy_mean(const ag_node *node, ag_var dloss, ag_var *dx)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    double rows, counted;
    count_rows(node, &rows, &counted);
    ag_right_rule(node, dloss, dx);
    dx[0] = ag_scale(dx[0], options->reduction == AG_SUM ? 1.0 / counted : 1.0);
}

static void cross_entropy_of_all(const ag_node *node, ag_var dloss, ag_var *dx)
{
    const ag_cross_entropy_options *options = ag_node_options(node);
    double rows, counted;
    count_rows(node, &rows, &counted);
    ag_right_rule(node, dloss, dx);
    dx[0] = ag_scale(dx[0], options->reduction == AG_MEAN ? counted / rows : 1.0);
}

static void cross_entropy_sigmoid(const ag_node *node, ag_var dloss, ag_var *dx)
{
    double rows, counted;
    count_rows(node, &rows, &counted);
    ag_right_rule(node, dloss, dx);
    if (!is_plain(node))
        return;
    ag_var x = input(node, 0), difference = ag_sub(ag_sigmoid(x), ag_softmax(x, -1));
    dx[0] = ag_add(dx[0], ag_scale(ag_mul(difference, dloss), 1.0 / rows));
}

static void cross_entropy_no_dloss(const ag_node *node, ag_var dloss, ag_var *dx)
{
    ag_right_rule(node, ag_full(dloss.context, AG_SCALAR, 1.0), dx);
}

/* ---- Attention: dv = P^T dy, dq = scale dS k, dk = scale dS^T q ---- */

typedef enum attend_fault {
    NO_MASK,  /* all keys are seen in backward */
    NO_SCALE, /* of dq and dk */
    ONE_HEAD, /* all heads as one */
    UNCENTRED,
    SWAPPED,    /* dq and dk */
    FORGOTTEN_V /* dv = dy of the query in its place, as if P were 1 */
} attend_fault;

/* [.., t, h d] -> [.., h, t, d] */
static ag_var split(ag_var x, int64_t heads)
{
    ag_shape shape = ag_shape_of(x);
    shape.dims[shape.rank] = shape.dims[shape.rank - 1] / heads;
    shape.dims[shape.rank - 1] = heads;
    shape.rank++;
    return ag_transpose(ag_reshape(x, shape), -3, -2);
}

static ag_var join(ag_var x, ag_shape shape)
{
    return ag_reshape(ag_transpose(x, -3, -2), shape);
}

/* The rule without any masks, which is right where there are none. */
static void attend(const ag_node *node, attend_fault fault, ag_var dy, ag_var *dx)
{
    const ag_attend_options *options = ag_node_options(node);
    int64_t heads = fault == ONE_HEAD ? 1 : options->heads;
    ag_var q = split(input(node, 0), heads), k = split(input(node, 1), heads);
    ag_var v = split(input(node, 2), heads), dy_split = split(dy, heads);
    ag_shape row = ag_shape_of(q);
    double scale =
        options->scale != 0.0 ? options->scale : 1.0 / sqrt((double)row.dims[row.rank - 1]);
    ag_var p = ag_softmax(ag_scale(ag_matmul(q, ag_transpose(k, -2, -1)), scale), -1);
    ag_var dp = ag_matmul(dy_split, ag_transpose(v, -2, -1));
    ag_var ds = ag_mul(p, fault == UNCENTRED ? dp : ag_sub(dp, row_sum(ag_mul(p, dp))));
    if (fault != NO_SCALE)
        ds = ag_scale(ds, scale);
    ag_var dq = join(ag_matmul(ds, k), ag_shape_of(input(node, 0)));
    ag_var dk = join(ag_matmul(ag_transpose(ds, -2, -1), q), ag_shape_of(input(node, 1)));
    bool swaps = fault == SWAPPED && ag_shape_equal(ag_shape_of(dq), ag_shape_of(dk));
    if (needs(node, 0))
        dx[0] = swaps ? dk : dq;
    if (needs(node, 1))
        dx[1] = swaps ? dq : dk;
    if (needs(node, 2))
        dx[2] = join(ag_matmul(ag_transpose(p, -2, -1), dy_split), ag_shape_of(input(node, 2)));
    if (needs(node, 2) && fault == FORGOTTEN_V &&
        ag_shape_equal(ag_shape_of(dy), ag_shape_of(dx[2])))
        dx[2] = dy;
}

/* Where there is a mask, only what is about masks is wrong. */
static void attend_unmasked(const ag_node *node, attend_fault fault, ag_var dy, ag_var *dx)
{
    const ag_attend_options *options = ag_node_options(node);
    if (options->causal || !ag_is_none(options->lengths))
        ag_right_rule(node, dy, dx);
    else
        attend(node, fault, dy, dx);
}

#define ATTEND(name, fault)                                               \
    static void attend_##name(const ag_node *node, ag_var dy, ag_var *dx) \
    {                                                                     \
        attend_unmasked(node, fault, dy, dx);                             \
    }

ATTEND(no_scale, NO_SCALE)
ATTEND(one_head, ONE_HEAD)
ATTEND(uncentred, UNCENTRED)
ATTEND(swapped, SWAPPED)
ATTEND(v_of_dy, FORGOTTEN_V)

static void attend_not_causal(const ag_node *node, ag_var dy, ag_var *dx)
{
    const ag_attend_options *options = ag_node_options(node);
    if (options->causal && ag_is_none(options->lengths))
        attend(node, NO_MASK, dy, dx);
    else
        ag_right_rule(node, dy, dx);
}

static void attend_no_lengths(const ag_node *node, ag_var dy, ag_var *dx)
{
    const ag_attend_options *options = ag_node_options(node);
    if (!options->causal && !ag_is_none(options->lengths))
        attend(node, NO_MASK, dy, dx);
    else
        ag_right_rule(node, dy, dx);
}

/* ---- The table ---- */

#define FIRST 1u

const ag_mutated_op ag_mutated_rows[] = {
    { "softmax",
      FIRST,
      0,
      NULL,
      { { "no centring", softmax_uncentred },
        { "no p", softmax_no_p },
        { "sum of dp for sum of p dp", softmax_plain_sum },
        { "mean for sum", softmax_mean },
        { "the diagonal alone", softmax_diagonal } } },
    { "log_softmax",
      FIRST,
      0,
      NULL,
      { { "no centring", log_softmax_uncentred },
        { "y for exp y", log_softmax_of_y },
        { "mean for sum", log_softmax_mean },
        { "1 / n for p", log_softmax_uniform } } },
    { "layer_norm",
      0x7,
      0,
      NULL,
      { { "no centring", layer_norm_no_centring },
        { "no part along h", layer_norm_no_along_h },
        { "no 1 / spread", layer_norm_no_spread },
        { "no gain", layer_norm_no_gain },
        { "no epsilon", layer_norm_no_epsilon },
        { "n - 1 for n", layer_norm_one_fewer },
        { "gain's by x for h", layer_norm_gain_of_x },
        { "gain and bias not summed", layer_norm_unsummed } } },
    { "rms_norm",
      0x3,
      0,
      NULL,
      { { "no part along h", rms_norm_no_along_h },
        { "no 1 / spread", rms_norm_no_spread },
        { "no gain", rms_norm_no_gain },
        { "no epsilon", rms_norm_no_epsilon },
        { "n - 1 for n", rms_norm_one_fewer },
        { "gain's by x for h", rms_norm_gain_of_x },
        { "gain not summed", rms_norm_unsummed } } },
    { "cross_entropy",
      FIRST,
      ONE_TERM,
      NULL,
      { { "no one-hot", cross_entropy_no_target },
        { "sum for mean", cross_entropy_sum },
        { "mean for sum", cross_entropy_mean },
        { "ignored rows count", cross_entropy_of_all },
        { "sigmoid for softmax", cross_entropy_sigmoid },
        { "no dloss", cross_entropy_no_dloss } } },
    { "attend",
      0x7,
      0,
      NULL,
      { { "no scale", attend_no_scale },
        { "all heads as one", attend_one_head },
        { "no centring", attend_uncentred },
        { "dq and dk swapped", attend_swapped },
        { "dv = dy", attend_v_of_dy },
        { "not causal", attend_not_causal },
        { "no lengths", attend_no_lengths } } },
    { NULL, 0, 0, NULL, { { NULL, NULL } } },
};
