/* kill_table: one list of faults, judged by this library's checker and by the rules of others.
 *
 * Each row is a wrong gradient (or a right one that should pass), each column a way to judge it,
 * and a cell says in how many of ten random points it was refused; "+2?" adds that in two more the
 * judge did not know, which only this library's can say. The exit status is 1 if this library's
 * checker lets a wrong one pass, entry by entry, or refuses a right one.
 *
 * The rules of others are those of their defaults, written down here from what they do. a is the
 * derivative by backward, n the difference (L(x + h u) - L(x - h u)) / 2h along u:
 *
 *   PyTorch gradcheck  each entry; h = 1e-6; |a - n| <= 1e-5 + 1e-3 |n|
 *     its fast mode    u of positive numbers, |u| = 1; h = 1e-6; |a - n| <= 1e-5 sum u + 1e-3 |n|
 *   JAX check_grads    u of normal numbers; h = 1e-4; |a - n| <= r + r |n|, r = 1e-5, in f32 2e-3
 *   KANN               in f32; u of positive numbers; h = 1e-5; ||a| - |n|| < 0.01 (|a| + |n|), or
 *                      |a - n| is at most |L(x + h u) + L(x - h u) - 2 L(x)| / 2h
 */
#include <attograd.h>

#include "../examples/attograd/mutants.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 8, ENTRIES = WIDTH * WIDTH, POINTS = 10, MOST = 4096 };

/* ---- The functions: a loss of one input ---- */

/* What is wrong with the gradient of the input. */
typedef enum fault { AS_IT_IS, TIMES, ONE_ENTRY } fault;

typedef struct experiment {
    const char *what;
    bool right;                                  /* it should pass */
    ag_var (*loss)(ag_var x, ag_random *random); /* of x, which is W_q in attention */
    int64_t rows, columns;                       /* of x */
    fault fault;
    double amount, scale, enlarge; /* of the fault, the loss, x */
    const char *op, *mutant;       /* or a rule that is wrong */
    bool single;                   /* all in f32 */
    uint64_t seed;
} experiment;

static void same_forward(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void fault_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    const experiment *e = ag_node_options(node);
    dx[0] = e->fault == TIMES ? ag_scale(dy, e->amount) : dy;
    if (e->fault != ONE_ENTRY)
        return;
    ag_var factor = ag_full(dy.context, ag_shape_of(dy), 1.0);
    ag_tensor_put(ag_value_mutable(factor), 3, e->amount);
    dx[0] = ag_mul(dy, factor);
}

static const ag_op fault_op = { .name = "fault",
                                .forward = same_forward,
                                .vjp = fault_vjp,
                                .options_size = sizeof(experiment),
                                .complex_form = true };

/* Normal numbers as a factor of each result: the cotangent is never uniform. */
static ag_var weighted(ag_var y, ag_random *random)
{
    return ag_dot(y, ag_normal(y.context, random, ag_shape_of(y)));
}

/* sum of c softmax(x W_q (x W_k)^T / sqrt d) x W_v */
static ag_var attention(ag_var w_q, ag_random *random)
{
    ag_context *ctx = w_q.context;
    const ag_shape shape = AG_SHAPE(WIDTH, WIDTH);
    ag_var x = ag_normal(ctx, random, shape);
    ag_var w_k = ag_scale(ag_normal(ctx, random, shape), 1.0 / sqrt(WIDTH));
    ag_var v = ag_scale(ag_matmul(x, ag_normal(ctx, random, shape)), 1.0 / sqrt(WIDTH));
    ag_var k = ag_matmul(x, w_k);
    ag_var scores = ag_scale(ag_matmul(ag_matmul(x, w_q), ag_transpose(k, 0, 1)), 1 / sqrt(WIDTH));
    return weighted(ag_matmul(ag_softmax(scores, -1), v), random);
}

static ag_var of_layer_norm(ag_var x, ag_random *random)
{
    ag_context *ctx = x.context;
    ag_var gain = ag_full(ctx, AG_SHAPE(WIDTH), 1.0), bias = ag_zeros(ctx, AG_SHAPE(WIDTH));
    return weighted(ag_layer_norm(x, gain, bias, 0), random);
}

static ag_var of_gelu(ag_var x, ag_random *random)
{
    return weighted(ag_gelu(x), random);
}

static ag_var of_tanh(ag_var x, ag_random *random)
{
    return weighted(ag_tanh(x), random);
}

static ag_var loss(ag_context *ctx, const ag_var *x, int n, void *user)
{
    const experiment *e = user;
    ag_random random = ag_random_stream(e->seed, "kill table", 0);
    (void)ctx, (void)n;
    return ag_scale(e->loss(ag_apply(&fault_op, x, 1, e), &random), e->scale);
}

/* The right rule for a p that was kept in f32. */
static void softmax_of_f32(const ag_node *node, ag_var dp, ag_var *dx)
{
    ag_var p = ag_cast(ag_cast(ag_node_output(node), AG_F32), AG_F64);
    dx[0] = ag_mul(p, ag_sub(dp, ag_sum(ag_mul(p, dp), -1, AG_KEEP_DIM)));
}

/* 1 / sqrt 8, as somebody typed it. */
static void scale_of_five_digits(const ag_node *node, ag_var dy, ag_var *dx)
{
    double factor = *(const double *)ag_node_options(node);
    dx[0] = ag_scale(dy, fabs(factor - 0.35355) < 1e-5 ? 0.35355 : factor);
}

/* The rule of an experiment with a wrong one: one of these, or a mutant by its name. */
static ag_rule rule_of(const experiment *e)
{
    ag_mutant mutant;
    if (!strcmp(e->mutant, "kept in f32"))
        return softmax_of_f32;
    if (!strcmp(e->mutant, "0.35355"))
        return scale_of_five_digits;
    for (int i = 0; (mutant = ag_mutant_at(i)).op; i++)
        if (!strcmp(mutant.op, e->op) && !strcmp(mutant.name, e->mutant))
            return mutant.rule;
    return NULL;
}

/* ---- What the rules of others compare ---- */

typedef struct point {
    const experiment *e;
    ag_context *ctx;
    ag_var x;
    int64_t n;
    bool unsure; /* the judge could not tell */
    double value[MOST], gradient[MOST], direction[MOST];
} point;

static void enter(point *p, const experiment *e)
{
    *p = (point){ .e = e };
    p->ctx = ag_context_new(&(ag_context_options){ .dtype = e->single ? AG_F32 : AG_F64 });
    ag_random random = ag_random_stream(e->seed, "kill table input", 0);
    p->x = ag_require_gradient(ag_normal(p->ctx, &random, AG_SHAPE(e->rows, e->columns)));
    p->n = e->rows * e->columns;
    ag_read(p->x, p->value);
    for (int64_t k = 0; k < p->n; k++)
        p->value[k] *= e->enlarge;
    ag_assign(p->x, p->value);
    if (e->op)
        ag_try_rule(p->ctx, ag_op_find(e->op), rule_of(e));
}

static void find_gradient(point *p)
{
    ag_var g, y = loss(p->ctx, &p->x, 1, (void *)(uintptr_t)p->e);
    if (ag_grad(y, &p->x, 1, &g, 0))
        ag_read(g, p->gradient);
}

/* The loss at x + t direction. */
static double loss_at(point *p, double t)
{
    double moved[MOST];
    for (int64_t k = 0; k < p->n; k++)
        moved[k] = p->value[k] + t * p->direction[k];
    ag_var x = ag_zeros(p->ctx, AG_SHAPE(p->e->rows, p->e->columns));
    ag_assign(x, moved);
    return ag_item(loss(p->ctx, &x, 1, (void *)(uintptr_t)p->e));
}

static double numeric_along(point *p, double step)
{
    return (loss_at(p, step) - loss_at(p, -step)) / (2.0 * step);
}

static double analytic_along(const point *p)
{
    double sum = 0.0;
    for (int64_t k = 0; k < p->n; k++)
        sum += p->direction[k] * p->gradient[k];
    return sum;
}

/* Positive numbers; their vector has length 1 if so wanted. The sum of them. */
static double draw_positive(point *p, bool unit)
{
    double squares = 0.0, sum = 0.0;
    ag_random random = ag_random_stream(p->e->seed, "kill table direction", 0);
    for (int64_t k = 0; k < p->n; k++) {
        p->direction[k] = ag_random_uniform(&random);
        squares += p->direction[k] * p->direction[k];
    }
    for (int64_t k = 0; k < p->n; k++) {
        p->direction[k] /= unit ? sqrt(squares) : 1.0;
        sum += p->direction[k];
    }
    return sum;
}

/* ---- The rules: true if the gradient is refused ---- */

static bool pytorch_slow(point *p)
{
    find_gradient(p);
    for (int64_t k = 0; k < p->n; k++) {
        ag_tape_reset(p->ctx);
        memset(p->direction, 0, sizeof p->direction);
        p->direction[k] = 1.0;
        double numeric = numeric_along(p, 1e-6);
        if (!(fabs(p->gradient[k] - numeric) <= 1e-5 + 1e-3 * fabs(numeric)))
            return true;
    }
    return false;
}

static bool pytorch_fast(point *p)
{
    find_gradient(p);
    double sum = draw_positive(p, true), numeric = numeric_along(p, 1e-6);
    return !(fabs(analytic_along(p) - numeric) <= 1e-5 * sum + 1e-3 * fabs(numeric));
}

static bool jax(point *p)
{
    ag_random random = ag_random_stream(p->e->seed, "kill table direction", 1);
    double tolerance = p->e->single ? 2e-3 : 1e-5;
    find_gradient(p);
    for (int64_t k = 0; k < p->n; k++)
        p->direction[k] = ag_random_normal(&random);
    double numeric = numeric_along(p, 1e-4);
    return !(fabs(analytic_along(p) - numeric) <= tolerance + tolerance * fabs(numeric));
}

static bool kann(point *p)
{
    const double step = 1e-5;
    find_gradient(p);
    draw_positive(p, false);
    double at = (float)loss_at(p, 0), up = (float)loss_at(p, step), down = (float)loss_at(p, -step);
    double analytic = analytic_along(p), numeric = (up - down) / (2.0 * step);
    double second = fabs(up + down - 2.0 * at) / (2.0 * step);
    double relative = fabs(fabs(analytic) - fabs(numeric)) / (fabs(analytic) + fabs(numeric));
    return relative >= 0.01 && fabs(analytic - numeric) > second;
}

static bool attograd(point *p, ag_gradcheck_options options)
{
    ag_gradcheck_report report;
    options.seed = p->e->seed;
    ag_gradcheck(p->ctx, loss, (void *)(uintptr_t)p->e, &p->x, 1, &options, &report);
    p->unsure = report.verdict == AG_VERDICT_INCONCLUSIVE;
    return report.verdict == AG_VERDICT_FAIL;
}

static bool every_entry(point *p)
{
    return attograd(p, (ag_gradcheck_options){ 0 });
}

static bool differences(point *p)
{
    return attograd(p, (ag_gradcheck_options){ .method = AG_GRADCHECK_DIFFERENCES });
}

static bool directions(point *p)
{
    return attograd(p, (ag_gradcheck_options){ .directions = 8 });
}

typedef struct judge {
    const char *name;
    bool (*refuses)(point *p);
    bool ours, single, slow; /* this library's; computes in f32; takes one entry after the other */
} judge;

static const judge judges[] = {
    { "attograd", every_entry, .ours = true, .slow = true },
    { "differences", differences, .ours = true, .slow = true },
    { "8 directions", directions, .ours = true },
    { .name = "PyTorch", .refuses = pytorch_slow },
    { .name = "fast mode", .refuses = pytorch_fast },
    { .name = "JAX", .refuses = jax },
    { "KANN", kann, .single = true },
};
enum { JUDGES = sizeof judges / sizeof judges[0] };

/* ---- The faults ---- */

#define ATTENTION .loss = attention, .rows = WIDTH, .columns = WIDTH
#define LARGE .loss = of_tanh, .rows = 64, .columns = 64

static const experiment experiments[] = {
    { "a right gradient", .right = true, ATTENTION },
    { "a right gradient, loss times 1e-6", .right = true, ATTENTION, .scale = 1e-6 },
    { "a right gradient, W_q times 100", .right = true, ATTENTION, .enlarge = 100.0 },
    { "a right gradient, all in f32", .right = true, ATTENTION, .single = true },
    { "dW_q times 1 + 9e-4", ATTENTION, .fault = TIMES, .amount = 1.0 + 9e-4 },
    { "dW_q times 1 + 1e-6", ATTENTION, .fault = TIMES, .amount = 1.0 + 1e-6 },
    { "dW_q times 1 + 1e-9", ATTENTION, .fault = TIMES, .amount = 1.0 + 1e-9 },
    { "dW_q times 1 + 1e-12", ATTENTION, .fault = TIMES, .amount = 1.0 + 1e-12 },
    { "dW_q zero", ATTENTION, .fault = TIMES },
    { "dW_q zero, loss times 1e-5", ATTENTION, .fault = TIMES, .scale = 1e-5 },
    { "dW_q zero, loss times 4e-6", ATTENTION, .fault = TIMES, .scale = 4e-6 },
    { "dW_q zero, loss times 1e-6", ATTENTION, .fault = TIMES, .scale = 1e-6 },
    { "dW_q negated", ATTENTION, .fault = TIMES, .amount = -1.0 },
    { "dW_q negated, loss times 1e-5", ATTENTION, .fault = TIMES, .amount = -1.0, .scale = 1e-5 },
    { "dW_q negated, loss times 4e-6", ATTENTION, .fault = TIMES, .amount = -1.0, .scale = 4e-6 },
    { "dW_q negated, loss times 1e-6", ATTENTION, .fault = TIMES, .amount = -1.0, .scale = 1e-6 },
    { "dW_q zero, W_q times 100", ATTENTION, .fault = TIMES, .enlarge = 100.0 },
    { "dW_q negated, W_q times 100", ATTENTION, .fault = TIMES, .amount = -1.0, .enlarge = 100.0 },
    { "1 entry of 64 off by 1 %", ATTENTION, .fault = ONE_ENTRY, .amount = 1.01 },
    { "1 entry of 64 doubled", ATTENTION, .fault = ONE_ENTRY, .amount = 2.0 },
    { "1 entry of 4,096 off by 3 %", LARGE, .fault = ONE_ENTRY, .amount = 1.03 },
    { "1 / sqrt 8 typed as 0.35355", ATTENTION, .op = "scale", .mutant = "0.35355" },
    { "softmax without centring", ATTENTION, .op = "softmax", .mutant = "no centring" },
    { "softmax kept in f32", ATTENTION, .op = "softmax", .mutant = "kept in f32" },
    { "layer norm by n - 1 for n", .loss = of_layer_norm, .rows = WIDTH, .columns = WIDTH,
      .op = "layer_norm", .mutant = "n - 1 for n" },
    { "layer norm without epsilon", .loss = of_layer_norm, .rows = WIDTH, .columns = WIDTH,
      .op = "layer_norm", .mutant = "no epsilon" },
    { "gelu with the slope of gelu_tanh", .loss = of_gelu, .rows = WIDTH, .columns = WIDTH,
      .op = "gelu", .mutant = "slope of gelu_tanh" },
};
enum { EXPERIMENTS = sizeof experiments / sizeof experiments[0] };

static int count_refused(experiment e, bool (*refuses)(point *p), int *unsure)
{
    int refused = 0;
    point p;
    e.scale = e.scale == 0.0 ? 1.0 : e.scale;
    e.enlarge = e.enlarge == 0.0 ? 1.0 : e.enlarge;
    for (e.seed = 0; e.seed < POINTS; e.seed++) {
        enter(&p, &e);
        refused += refuses(&p);
        *unsure += p.unsure;
        ag_context_free(p.ctx);
    }
    return refused;
}

/* Why a judge has no say; NULL if it has. */
static const char *excuse(const experiment *e, const judge *j)
{
    if (e->single && j->ours)
        return "asks for f64";
    if (j->slow && e->rows * e->columns > ENTRIES)
        return "takes long";
    return j->single && e->mutant && !strcmp(e->mutant, "kept in f32") ? "is in f32" : NULL;
}

/* False if a wrong gradient passed somewhere, or a right one was refused. */
static bool print_cell(const experiment *e, const judge *j)
{
    experiment own = *e;
    own.single |= j->single;
    const char *reason = excuse(e, j);
    char doubt[16] = "";
    int unsure = 0, refused = reason ? 0 : count_refused(own, j->refuses, &unsure);
    bool good = reason || refused == (e->right ? 0 : POINTS);
    if (unsure > 0)
        snprintf(doubt, sizeof doubt, "+%d?", unsure);
    if (reason)
        printf(" %12s |", reason);
    else
        printf(" %5d %-3s %2s |", refused, doubt, good ? "" : "**");
    fflush(stdout);
    return good || (!e->right && refused + unsure == POINTS);
}

int main(void)
{
    int missed = 0;
    printf(
        "In how many of %d points a gradient is refused. ** is not as it should be: a wrong one\n"
        "that was not refused everywhere, or a right one that was refused. +2?: in 2 more points "
        "the\n"
        "judge could not tell.\n\n| %-35s |",
        POINTS, "");
    for (int j = 0; j < JUDGES; j++)
        printf(" %12s |", judges[j].name);
    printf("\n|-------------------------------------|");
    for (int j = 0; j < JUDGES; j++)
        printf("-------------:|");
    printf("\n");
    for (int i = 0; i < EXPERIMENTS; i++) {
        printf("| %-35s |", experiments[i].what);
        for (int j = 0; j < JUDGES; j++)
            missed += !print_cell(&experiments[i], &judges[j]) && judges[j].refuses == every_entry;
        printf("\n");
    }
    return missed > 0;
}
