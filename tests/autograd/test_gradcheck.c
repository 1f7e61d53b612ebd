/* The check of the checker: right rules pass, wrong ones do not, whatever the
 * scale of the loss. */
#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

/* ---- Operations whose backward rules are spoiled in one way each ---- */

static void softmax_forward(ag_node *node)
{
    ag_node_set_view(node, ag_value(ag_softmax(ag_node_input(node, 0), -1)));
}

static void matmul_forward(ag_node *node)
{
    ag_var y = ag_matmul(ag_node_input(node, 0), ag_node_input(node, 1));
    ag_node_set_view(node, ag_value(y));
}

static void add_forward(ag_node *node)
{
    ag_var y = ag_add(ag_node_input(node, 0), ag_node_input(node, 1));
    ag_node_set_view(node, ag_value(y));
}

static ag_var softmax_rule(const ag_node *node, ag_var dp)
{
    ag_var p = ag_node_output(node);
    return ag_mul(p, ag_sub(dp, ag_sum(ag_mul(p, dp), -1, AG_KEEP_DIM)));
}

static void right(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = softmax_rule(node, dy);
}

static void negated(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_neg(softmax_rule(node, dy));
}

static void doubled(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(softmax_rule(node, dy), 2.0);
}

static void slightly_large(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(softmax_rule(node, dy), 1.0 + 1e-4);
}

static void zero(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(softmax_rule(node, dy), 0.0);
}

static void term_dropped(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(ag_node_output(node), dy);
}

static void transposed(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_transpose(softmax_rule(node, dy), 0, 1);
}

static void one_entry_wrong(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var good = softmax_rule(node, dy);
    ag_var where = ag_constant(ag_node_context(node), AG_SHAPE(4, 4), (double[16]){ [9] = 1e-4 });
    dx[0] = ag_add(good, ag_mul(good, where));
}

/* The right shape, but the gradient of the first row only. */
static void reduction_missing(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (ag_node_needs(node, 0))
        dx[0] = dy;
    if (ag_node_needs(node, 1))
        dx[1] = ag_reshape(ag_slice(dy, 0, 0, 1, 1), ag_shape_of(ag_node_input(node, 1)));
}

/* The gradient in the result's shape instead of the operand's. */
static void reduction_forgotten(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dx[1] = dy;
}

static void matmul_transposed(const ag_node *node, ag_var dc, ag_var *dx)
{
    ag_var a = ag_node_input(node, 0), b = ag_node_input(node, 1);
    if (ag_node_needs(node, 0))
        dx[0] = ag_matmul(dc, b); /* without the transpose, which square matrices let pass */
    if (ag_node_needs(node, 1))
        dx[1] = ag_matmul(ag_transpose(a, 0, 1), dc);
}

static void matmul_second_missing(const ag_node *node, ag_var dc, ag_var *dx)
{
    ag_var b = ag_node_input(node, 1);
    dx[0] = ag_matmul(dc, ag_transpose(b, 0, 1));
    dx[1] = ag_scale(b, 0.0);
}

static const ag_op spoiled[] = {
    { .name = "right", .forward = softmax_forward, .vjp = right },
    { .name = "negated", .forward = softmax_forward, .vjp = negated },
    { .name = "doubled", .forward = softmax_forward, .vjp = doubled },
    { .name = "slightly_large", .forward = softmax_forward, .vjp = slightly_large },
    { .name = "zero", .forward = softmax_forward, .vjp = zero },
    { .name = "term_dropped", .forward = softmax_forward, .vjp = term_dropped },
    { .name = "transposed", .forward = softmax_forward, .vjp = transposed },
    { .name = "one_entry_wrong", .forward = softmax_forward, .vjp = one_entry_wrong },
    { .name = "reduction_missing", .forward = add_forward, .vjp = reduction_missing },
    { .name = "reduction_forgotten", .forward = add_forward, .vjp = reduction_forgotten },
    { .name = "matmul_transposed", .forward = matmul_forward, .vjp = matmul_transposed },
    { .name = "matmul_second_missing", .forward = matmul_forward, .vjp = matmul_second_missing },
};
enum { SPOILED = sizeof spoiled / sizeof spoiled[0] };

typedef struct experiment {
    const ag_op *op;
    double scale; /* of the result */
} experiment;

static ag_var run_spoiled(ag_context *context, const ag_var *x, int n, void *user)
{
    const experiment *e = user;
    (void)context;
    return ag_scale(ag_apply(e->op, x, n, NULL), e->scale);
}

/* Checks one of the operations at a loss of some scale. */
static ag_gradcheck_report check_spoiled(const ag_op *op, double scale)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(3, "gradcheck", 0);
    bool adds = op->forward == add_forward, softmax = op->forward == softmax_forward;
    ag_var x[2] = {
        ag_set_name(ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 4))), "x"),
        ag_require_gradient(ag_normal(ctx, &random, adds ? AG_SHAPE(4) : AG_SHAPE(4, 4))),
    };
    experiment e = { op, scale };
    ag_gradcheck_report report;
    ag_gradcheck(ctx, run_spoiled, &e, x, softmax ? 1 : 2, NULL, &report);
    ag_context_free(ctx);
    return report;
}

Test(gradcheck, passes_a_right_rule_at_any_scale)
{
    for (double scale = 1e-12; scale < 1e13; scale *= 1e3) {
        ag_gradcheck_report report = check_spoiled(&spoiled[0], scale);
        cr_expect(report.passed, "scale %g: ratio %.12g, %s", scale, report.ratio, report.message);
        cr_expect(report.entries == 16);
        cr_expect(report.worst < 1.0);
    }
}

Test(gradcheck, catches_every_wrong_rule_at_any_scale)
{
    for (int i = 1; i < SPOILED; i++)
        for (double scale = 1e-12; scale < 1e13; scale *= 1e3) {
            ag_gradcheck_report report = check_spoiled(&spoiled[i], scale);
            cr_expect(!report.passed, "%s at scale %g", spoiled[i].name, scale);
            cr_expect(report.failures > 0 || report.message[0]);
        }
}

/* What the report says must help to find the mistake. */
Test(gradcheck, names_the_entry_and_the_ratio)
{
    ag_gradcheck_report report = check_spoiled(&spoiled[1], 1.0); /* negated */
    cr_expect(fabs(report.ratio + 1.0) < 1e-8);
    cr_expect(report.failures == 16);
    cr_expect(!strcmp(report.name, "x"));

    report = check_spoiled(&spoiled[2], 1.0); /* doubled */
    cr_expect(fabs(report.ratio - 2.0) < 1e-8);

    report = check_spoiled(&spoiled[3], 1.0); /* slightly large */
    cr_expect(fabs(report.ratio - 1.0001) < 1e-7);
    cr_expect(report.worst > 10.0, "far outside of what is allowed: %g", report.worst);

    report = check_spoiled(&spoiled[7], 1.0); /* one entry wrong */
    cr_expect(report.failures == 1);
    cr_expect(report.rank == 2 && report.index[0] == 2 && report.index[1] == 1);

    report = check_spoiled(&spoiled[9], 1.0); /* reduction forgotten */
    cr_expect(strstr(report.message, "reduction_forgotten"), "%s", report.message);
    cr_expect(strstr(report.message, "[4,4]") && strstr(report.message, "[4]"));
}

static void printed(const ag_gradcheck_report *report, char *text, size_t size)
{
    FILE *file = tmpfile();
    ag_gradcheck_print(report, file);
    rewind(file);
    size_t n = fread(text, 1, size - 1, file);
    text[n] = '\0';
    fclose(file);
}

Test(gradcheck, prints_a_line)
{
    char text[512];
    ag_gradcheck_report report = check_spoiled(&spoiled[7], 1.0);
    printed(&report, text, sizeof text);
    cr_expect(strstr(text, "FAIL: 16 entries, 1 wrong; worst: input 0 x [2,1]"), "%s", text);
    report = check_spoiled(&spoiled[0], 1.0);
    printed(&report, text, sizeof text);
    cr_expect(strstr(text, "PASS: 16 entries;"), "%s", text);
}

/* Both ways to the gradient are checked: by fused rules, and recorded. */
Test(gradcheck, compares_fused_and_recorded_rules)
{
    const ag_op wrong_fused = {
        .name = "wrong_fused", .forward = softmax_forward, .vjp = right, .vjp_fused = negated
    };
    const ag_op wrong_recorded = { .name = "wrong_recorded",
                                   .forward = softmax_forward,
                                   .vjp = term_dropped,
                                   .vjp_fused = right };
    const ag_op both_right = {
        .name = "both_right", .forward = softmax_forward, .vjp = right, .vjp_fused = right
    };
    ag_gradcheck_report report = check_spoiled(&wrong_fused, 1.0);
    cr_expect(!report.passed && !report.recorded && report.failures == 16);
    report = check_spoiled(&wrong_recorded, 1.0);
    cr_expect(!report.passed && report.recorded && report.entries == 16);
    cr_expect(check_spoiled(&both_right, 1.0).passed);
}

/* ---- Second order ---- */

/* A wrong derivative that only the second order can see: the forward and the
 * first derivative of x^3 are right, but the rule treats x as a constant. */
static void cube_forward(ag_node *node)
{
    ag_node_set_view(node, ag_value(ag_pow(ag_node_input(node, 0), 3.0)));
}

static void cube_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_scale(ag_square(ag_node_input(node, 0)), 3.0));
}

static void cube_frozen_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_detach(ag_node_input(node, 0));
    dx[0] = ag_mul(dy, ag_scale(ag_square(x), 3.0));
}

Test(gradcheck, second_order_sees_a_rule_that_cannot_be_differentiated)
{
    static const ag_op cube = { .name = "cube", .forward = cube_forward, .vjp = cube_rule };
    static const ag_op frozen = { .name = "frozen",
                                  .forward = cube_forward,
                                  .vjp = cube_frozen_rule };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(3, "second", 0);
    ag_var x = ag_require_gradient(ag_uniform(ctx, &random, AG_SHAPE(5), 0.5, 2.0));
    ag_gradcheck_report report;
    experiment e = { &cube, 1.0 };
    cr_expect(ag_gradcheck(ctx, run_spoiled, &e, &x, 1, NULL, &report));
    cr_expect(ag_gradcheck_second(ctx, run_spoiled, &e, &x, 1, NULL, &report));
    e.op = &frozen;
    cr_expect(ag_gradcheck(ctx, run_spoiled, &e, &x, 1, NULL, &report));
    cr_expect(!ag_gradcheck_second(ctx, run_spoiled, &e, &x, 1, NULL, &report));
    cr_expect(report.failures == 5);
    ag_context_free(ctx);
}

/* ---- What it does to its surroundings, and to bad input ---- */

static ag_var tanh_of(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)context, (void)n, (void)user;
    return ag_tanh(x[0]);
}

Test(gradcheck, leaves_inputs_and_tape_as_they_were)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(1, "x", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(7)));
    ag_var kept = ag_square(x);
    double before[7], kept_before[7];
    memcpy(before, ag_value(x)->data, sizeof before);
    memcpy(kept_before, ag_value(kept)->data, sizeof kept_before);
    int64_t length = ag_tape_length(ctx);
    size_t bytes = ag_context_memory(ctx).step;
    cr_expect(ag_gradcheck(ctx, tanh_of, NULL, &x, 1, NULL, NULL));
    cr_expect(!memcmp(before, ag_value(x)->data, sizeof before));
    cr_expect(!memcmp(kept_before, ag_value(kept)->data, sizeof kept_before));
    cr_expect(ag_tape_length(ctx) == length);
    cr_expect(ag_context_memory(ctx).step == bytes);
    cr_expect(ag_gradient(x) == NULL);
    cr_expect(ag_status(ctx) == AG_OK);
    ag_context_free(ctx);
}

Test(gradcheck, checks_a_parameter_too)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var w = ag_parameter(ctx, "w", AG_F64, AG_SHAPE(2, 2));
    ag_assign(w, (double[]){ 0.1, -0.4, 0.7, 2.0 });
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, tanh_of, NULL, &w, 1, NULL, &report), "%s", report.message);
    cr_expect(!strcmp(report.name, "w"));
    ag_context_free(ctx);
}

static ag_var constant(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)x, (void)n, (void)user;
    return ag_scalar(context, 3.0);
}

static ag_var nothing(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)context, (void)x, (void)n, (void)user;
    return AG_NONE;
}

static ag_var infinite(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)context, (void)n, (void)user;
    return ag_log(ag_scale(x[0], 0.0));
}

static ag_var resetting(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)n, (void)user;
    ag_tape_reset(context);
    return ag_tanh(x[0]);
}

static ag_var single(ag_context *context, const ag_var *x, int n, void *user)
{
    (void)context, (void)n, (void)user;
    return ag_cast(x[0], AG_F32);
}

/* Each of these fails with a reason, and never passes. */
static void expect_no_verdict(ag_function f, ag_dtype dtype, bool leaf, ag_error error,
                              const char *reason)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_var x = ag_full(ctx, AG_SHAPE(3), 0.5);
    if (leaf)
        ag_require_gradient(x);
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck(ctx, f, NULL, &x, 1, NULL, &report));
    cr_expect(!report.passed);
    cr_expect(strstr(report.message, reason), "'%s' should say '%s'", report.message, reason);
    cr_expect(ag_status(ctx) == error, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(gradcheck, says_why_there_is_no_verdict)
{
    expect_no_verdict(tanh_of, AG_F32, true, AG_ERR_DTYPE, "check in f64");
    expect_no_verdict(single, AG_F64, true, AG_ERR_DTYPE, "check in f64");
    expect_no_verdict(tanh_of, AG_F64, false, AG_ERR_STATE, "does not ask for a gradient");
    expect_no_verdict(constant, AG_F64, true, AG_ERR_STATE, "does not depend");
    expect_no_verdict(nothing, AG_F64, true, AG_OK, "no result");
    expect_no_verdict(infinite, AG_F64, true, AG_OK, "not finite");
    expect_no_verdict(resetting, AG_F64, true, AG_ERR_STATE, "tape_reset");
    expect_no_verdict(NULL, AG_F64, true, AG_ERR_ARGUMENT, "function");
}

Test(gradcheck, takes_no_inputs_for_a_mistake)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    cr_expect(!ag_gradcheck(ctx, tanh_of, NULL, NULL, 0, NULL, NULL));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT);
    cr_expect(!ag_gradcheck(NULL, tanh_of, NULL, NULL, 0, NULL, NULL));
    ag_gradcheck_print(NULL, stdout);
    ag_context_free(ctx);
}

/* ---- One entry ---- */

Test(gradcheck, one_entry)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(3, "gradcheck", 0);
    ag_var x = ag_set_name(ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 4))), "x");
    ag_gradcheck_report report;
    experiment right = { &spoiled[0], 1.0 }, wrong = { &spoiled[7], 1.0 };
    ag_gradcheck_options options = { .directions = 3 }; /* not looked at */
    cr_expect(ag_gradcheck_entry(ctx, run_spoiled, &right, &x, 1, 9, &options, &report));
    cr_expect(report.entries == 1 && report.input == 0 && !report.by_directions);
    cr_expect(report.index[0] == 2 && report.index[1] == 1);
    cr_expect(report.step > 0.0 && report.step < 1.0 && report.bound > 0.0);
    cr_expect(fabs(report.analytic - report.numeric) <= report.bound);

    ag_var y = run_spoiled(ctx, &x, 1, &right), g;
    ag_grad_from(y, ag_gradcheck_cotangent(0, y), &x, 1, &g, 0);
    cr_expect_eq(ag_tensor_at(ag_value(g), 9), report.analytic, "the same L");

    cr_expect(!ag_gradcheck_entry(ctx, run_spoiled, &wrong, &x, 1, 9, NULL, &report));
    cr_expect(report.verdict == AG_VERDICT_FAIL && report.failures == 1);
    cr_expect(ag_gradcheck_entry(ctx, run_spoiled, &wrong, &x, 1, 8, NULL, &report));
    for (int64_t entry = -1; entry <= 16; entry += 17) {
        cr_expect(!ag_gradcheck_entry(ctx, run_spoiled, &right, &x, 1, entry, NULL, &report));
        cr_expect(report.verdict == AG_VERDICT_ERROR && ag_status(ctx) == AG_ERR_ARGUMENT);
        cr_expect(strstr(ag_error_message(ctx), entry < 0 ? "entry -1" : "entry 16"), "%s",
                  ag_error_message(ctx));
        ag_error_clear(ctx);
    }
    cr_expect(!ag_is_valid(ag_gradcheck_cotangent(0, AG_NONE)));
    ag_context_free(ctx);
}
