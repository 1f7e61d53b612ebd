/* attograd explain: one self-attention layer, forwards and backwards, in numbers.
 *
 * The values come from the layer and the gradients from ag_backward. Each is
 * held against the formula that the page prints, evaluated by the engine in
 * the tutorial's notation, and each gradient against finite differences: an
 * entry of that very matrix is moved, whether it is given or computed, and
 * what comes after it is computed again. */
#include "commands.h"
#include "explain.h"
#include "heatmap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Beyond what rounding and the step of the differences explain. */
#define LARGEST_ALLOWED 1e-8

const char *const ag_matrix_names[MATRICES] = { "I", "W_q", "W_k", "W_v", "Q",
                                                "K", "V",   "A",   "A'",  "O" };

const char *const ag_value_formulas[MATRICES] = {
    [INPUTS] = "",  [W_Q] = "",
    [W_K] = "",     [W_V] = "",
    [Q] = "W_q I",  [K] = "W_k I",
    [V] = "W_v I",  [SCORES] = "K^T Q",
    [OUT] = "V A'", [WEIGHTS] = "softmax of each column of A",
};

const char *const ag_gradient_formulas[MATRICES] = {
    [OUT] = "O - Y",      [V] = "dO A'^T",
    [WEIGHTS] = "V^T dO", [SCORES] = "A' * (dA' - the sum of each column of A' * dA')",
    [Q] = "K dA",         [K] = "Q dA^T",
    [W_Q] = "dQ I^T",     [W_K] = "dK I^T",
    [W_V] = "dV I^T",     [INPUTS] = "W_q^T dQ + W_k^T dK + W_v^T dV",
};

const int ag_backward_order[MATRICES] = { OUT, V, WEIGHTS, SCORES, Q, K, W_Q, W_K, W_V, INPUTS };

/* ---- Matrices of columns, and variables ---- */

double ag_entry(const ag_matrix *m, int row, int column)
{
    return m->x[row * m->columns + column];
}

static ag_matrix read_variable(const ag_tensor *tensor)
{
    ag_matrix m = { 0, 0, { 0 } };
    if (!tensor || tensor->rank != 2 || ag_tensor_count(tensor) > TOKENS * TOKENS)
        return m; /* an error on the way here */
    m.rows = (int)tensor->dims[0];
    m.columns = (int)tensor->dims[1];
    for (int i = 0; i < m.rows * m.columns; i++)
        m.x[i] = ag_tensor_at(tensor, i);
    return m;
}

ag_matrix ag_transposed(const ag_matrix *m)
{
    ag_matrix t = { m->columns, m->rows, { 0 } };
    for (int row = 0; row < m->rows; row++)
        for (int column = 0; column < m->columns; column++)
            t.x[column * t.columns + row] = ag_entry(m, row, column);
    return t;
}

/* What the library holds as rows. */
static ag_matrix read_rows(const ag_tensor *tensor)
{
    ag_matrix rows = read_variable(tensor);
    return ag_transposed(&rows);
}

static ag_var variable(ag_context *context, const ag_matrix *m)
{
    return ag_constant(context, AG_SHAPE(m->rows, m->columns), m->x);
}

/* The same as rows, for the library. */
static ag_var row_variable(ag_context *context, const ag_matrix *m)
{
    ag_matrix rows = ag_transposed(m);
    return variable(context, &rows);
}

static void all_variables(ag_context *context, const ag_matrix *from, ag_var *to)
{
    for (int i = 0; i < MATRICES; i++)
        to[i] = variable(context, &from[i]);
}

static double largest_difference(const ag_matrix *a, const ag_matrix *b)
{
    double largest = a->rows == b->rows && a->columns == b->columns ? 0 : INFINITY;
    for (int i = 0; i < a->rows * a->columns; i++)
        if (!(fabs(a->x[i] - b->x[i]) <= largest)) /* a NaN counts */
            largest = fabs(a->x[i] - b->x[i]);
    return largest;
}

/* ---- The formulas, as the page prints them ---- */

static ag_var t(ag_var m)
{
    return ag_transpose(m, 0, 1);
}

static ag_var value_formula(int which, const ag_var *m)
{
    switch (which) {
    case Q:
        return ag_matmul(m[W_Q], m[INPUTS]);
    case K:
        return ag_matmul(m[W_K], m[INPUTS]);
    case V:
        return ag_matmul(m[W_V], m[INPUTS]);
    case SCORES:
        return ag_matmul(t(m[K]), m[Q]);
    case WEIGHTS:
        return ag_softmax(m[SCORES], 0);
    case OUT:
        return ag_matmul(m[V], m[WEIGHTS]);
    default:
        return m[which];
    }
}

/* L = 1/2 sum (O - Y)^2 */
static ag_var loss_formula(ag_var out, ag_var target)
{
    return ag_scale(ag_sum(ag_square(ag_sub(out, target)), AG_ALL, 0), 0.5);
}

static ag_var gradient_formula(int which, const ag_var *m, const ag_var *d, ag_var target)
{
    ag_var sums;
    switch (which) {
    case OUT:
        return ag_sub(m[OUT], target);
    case V:
        return ag_matmul(d[OUT], t(m[WEIGHTS]));
    case WEIGHTS:
        return ag_matmul(t(m[V]), d[OUT]);
    case SCORES:
        sums = ag_sum(ag_mul(m[WEIGHTS], d[WEIGHTS]), 0, AG_KEEP_DIM);
        return ag_mul(m[WEIGHTS], ag_sub(d[WEIGHTS], sums));
    case Q:
        return ag_matmul(m[K], d[SCORES]);
    case K:
        return ag_matmul(m[Q], t(d[SCORES]));
    case W_Q:
        return ag_matmul(d[Q], t(m[INPUTS]));
    case W_K:
        return ag_matmul(d[K], t(m[INPUTS]));
    case W_V:
        return ag_matmul(d[V], t(m[INPUTS]));
    default:
        return ag_add(ag_add(ag_matmul(t(m[W_Q]), d[Q]), ag_matmul(t(m[W_K]), d[K])),
                      ag_matmul(t(m[W_V]), d[V]));
    }
}

/* ---- The layer, forwards and backwards ---- */

static void set_parameter(ag_var parameter, const ag_matrix *columns)
{
    ag_matrix rows = ag_transposed(columns);
    ag_assign(parameter, rows.x);
}

/* Reads what the layer computed, and what backward left beside it. */
static void read_trace(ag_explanation *e, const ag_var *m)
{
    for (int i = Q; i < MATRICES; i++)
        e->value[i] = read_rows(ag_value(m[i]));
    for (int i = 0; i < MATRICES; i++)
        e->gradient[i] = read_rows(ag_gradient(m[i]));
}

static void run_layer(ag_explanation *e, ag_context *context)
{
    ag_params *params = ag_params_new(context);
    ag_attention attn;
    ag_attention_init(&attn, params, "attn",
                      &(ag_attention_options){ .d_in = D_IN, .d_k = D_K, .d_v = D_V, .scale = 1 });
    set_parameter(attn.w_q, &e->value[W_Q]);
    set_parameter(attn.w_k, &e->value[W_K]);
    set_parameter(attn.w_v, &e->value[W_V]);

    ag_var x = ag_require_gradient(row_variable(context, &e->value[INPUTS]));
    ag_attention_trace trace;
    ag_var out = ag_attention_forward(&attn, x, &trace);
    const ag_var m[MATRICES] = { x,       attn.w_q, attn.w_k,     attn.w_v,      trace.q,
                                 trace.k, trace.v,  trace.scores, trace.weights, out };
    for (int i = Q; i < MATRICES; i++)
        ag_retain_gradient(m[i]);
    ag_var loss = loss_formula(out, row_variable(context, &e->target));
    ag_backward(loss);
    e->loss = ag_item(loss);
    read_trace(e, m);

    ag_optimizer_step(ag_sgd_new(params, &(ag_sgd_options){ .lr = e->lr }));
    out = ag_attention_forward(&attn, x, NULL);
    e->loss_after = ag_item(loss_formula(out, row_variable(context, &e->target)));
    ag_tape_reset(context);
}

/* ---- Checks ---- */

static void check_formulas(ag_explanation *e, ag_context *context)
{
    ag_var m[MATRICES], d[MATRICES], target = variable(context, &e->target);
    all_variables(context, e->value, m);
    all_variables(context, e->gradient, d);
    for (int i = 0; i < MATRICES; i++) {
        ag_matrix value = read_variable(ag_value(value_formula(i, m)));
        ag_matrix gradient = read_variable(ag_value(gradient_formula(i, m, d, target)));
        e->value_gap[i] = largest_difference(&value, &e->value[i]);
        e->gradient_gap[i] = largest_difference(&gradient, &e->gradient[i]);
    }
    ag_tape_reset(context);
}

/* L where one matrix is as it is given here, and what comes after it follows. */
static double loss_with(const ag_explanation *e, ag_context *context, int moved,
                        const ag_matrix *given)
{
    ag_var m[MATRICES];
    all_variables(context, e->value, m);
    m[moved] = variable(context, given);
    for (int i = 0; i < MATRICES; i++)
        if (i != moved)
            m[i] = value_formula(i, m);
    double loss = ag_item(loss_formula(m[OUT], variable(context, &e->target)));
    ag_tape_reset(context);
    return loss;
}

/* (L(x + h) - L(x - h)) / 2h, entry by entry. */
static void difference(ag_explanation *e, ag_context *context, int which)
{
    const ag_matrix *m = &e->value[which];
    e->numeric[which] = *m;
    for (int i = 0; i < m->rows * m->columns; i++) {
        ag_matrix plus = *m, minus = *m;
        plus.x[i] += e->step;
        minus.x[i] -= e->step;
        double loss_plus = loss_with(e, context, which, &plus);
        double loss_minus = loss_with(e, context, which, &minus);
        e->numeric[which].x[i] = (loss_plus - loss_minus) / (plus.x[i] - minus.x[i]);
        if (which == W_Q && i == 0) {
            e->loss_plus = loss_plus;
            e->loss_minus = loss_minus;
        }
    }
    e->numeric_gap[which] = largest_difference(&e->numeric[which], &e->gradient[which]);
}

static void find_largest(ag_explanation *e)
{
    e->largest = 0;
    for (int i = 0; i < MATRICES; i++)
        e->largest =
            fmax(e->largest, fmax(e->value_gap[i], fmax(e->gradient_gap[i], e->numeric_gap[i])));
}

/* ---- The command ---- */

/* Numbers that can be followed in one's head. */
static void give_numbers(ag_explanation *e)
{
    e->value[INPUTS] = (ag_matrix){ D_IN, TOKENS, { 1, 0, 1, 0, 0, 1, 1, -1, 0.5, 0.5, 0, 1 } };
    e->value[W_Q] = (ag_matrix){ D_K, D_IN, { 1, 0, 1, 0, 1, -0.5 } };
    e->value[W_K] = (ag_matrix){ D_K, D_IN, { 0.5, 1, 0, 1, -0.5, 0.5 } };
    e->value[W_V] = (ag_matrix){ D_V, D_IN, { 1, 0.5, 0, -0.5, 1, 1 } };
    e->target = (ag_matrix){ D_V, TOKENS, { 1, 0, 0.5, 0, 0, 1, 0, -0.5 } };
}

/* -1, -1/2, 0, 1/2 or 1 in place of each. */
static void draw(ag_random *random, ag_matrix *m)
{
    for (int i = 0; i < m->rows * m->columns; i++)
        m->x[i] = 0.5 * (double)(ag_random_integer(random, 5) - 2);
}

static void draw_numbers(ag_explanation *e)
{
    ag_random random = ag_random_stream(e->seed.value, "explain", 0);
    for (int i = INPUTS; i <= W_V; i++)
        draw(&random, &e->value[i]);
    draw(&random, &e->target);
}

static void compute(ag_explanation *e, ag_context *context)
{
    run_layer(e, context);
    check_formulas(e, context);
    for (int i = 0; i < MATRICES; i++)
        difference(e, context, i);
    find_largest(e);
}

int ag_cmd_explain(int argc, char **argv)
{
    ag_explanation e = { .step = 1.0 / (1 << 18), .lr = 0.01 };
    bool json = false;
    const ag_option options[] = {
        { "--seed", AG_OPTION_SEED, &e.seed, 0, 0, NULL },
        { "--json", AG_OPTION_FLAG, &json, 0, 0, NULL },
    };
    if (ag_options_read(argc, argv, options, 2, NULL, 0, "attograd explain [--seed S] [--json]") <
        0)
        return 2;
    ag_context *context = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    give_numbers(&e);
    if (e.seed.given)
        draw_numbers(&e);
    compute(&e, context);
    if (ag_context_finish(context) != 0)
        return 1;
    if (json)
        ag_explain_json(&e);
    else
        ag_explain_print(&e, ag_terminal_colour());
    if (e.largest < LARGEST_ALLOWED)
        return 0;
    fprintf(stderr, "attograd explain: gradients and differences disagree by %.1e\n", e.largest);
    return 1;
}
