/* Rules tried in the place of operations' own: where they are used, how they are put back, and
 * that nothing else changes; and what a rule can see of what has arrived at its inputs. */
#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *f64(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var leaf(ag_context *ctx)
{
    return ag_require_gradient(ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ 1, -2, 3, 0.5, 2, 0 }));
}

static ag_var softmax(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_softmax(x[0], -1);
}

/* ---- A student's rules for softmax ---- */

static void right(const ag_node *node, ag_var dp, ag_var *dx)
{
    ag_var p = ag_node_output(node), pdp = ag_mul(p, dp);
    dx[0] = ag_sub(pdp, ag_mul(p, ag_sum(pdp, -1, AG_KEEP_DIM)));
}

static void wrong(const ag_node *node, ag_var dp, ag_var *dx)
{
    dx[0] = ag_mul(ag_node_output(node), dp);
}

static void times_three(const ag_node *node, ag_var dy, ag_var *dx)
{
    cr_expect_str_eq(ag_node_op(node)->name, ag_op_name(ag_node_output(node)));
    ag_node_op(node)->vjp(node, dy, dx);
    dx[0] = ag_scale(dx[0], 3.0);
}

static ag_gradcheck_report check(ag_context *ctx)
{
    ag_gradcheck_report report;
    ag_var x = leaf(ctx);
    ag_gradcheck(ctx, softmax, NULL, &x, 1, NULL, &report);
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    return report;
}

Test(try_rule, a_check_judges_the_rule_that_is_tried)
{
    ag_context *ctx = f64();
    const ag_op *op = ag_op_find("softmax");
    cr_expect(ag_try_rule(ctx, op, right));
    cr_expect(check(ctx).passed);
    cr_expect(ag_try_rule(ctx, op, wrong));
    cr_expect_eq(check(ctx).verdict, AG_VERDICT_FAIL);
    cr_expect(ag_try_rule(ctx, op, NULL));
    cr_expect(check(ctx).passed);
    cr_expect(ag_try_rule(ctx, op, times_three), "a second time");
    ag_gradcheck_report report = check(ctx);
    cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
    cr_expect_float_eq(report.ratio, 3.0, 1e-9);
    cr_expect_str_eq(report.suspect, "factor 3");
    ag_context_free(ctx);
}

/* ---- Where it is used ---- */

/* The gradient of sum(c p) by x: the usual one, and the one that is recorded. */
static void gradients(ag_context *ctx, double *usual, double *recorded)
{
    ag_var x = leaf(ctx), g;
    ag_var c = ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ 1, 2, 3, -1, 0, 4 });
    ag_var loss = ag_sum(ag_mul(c, ag_softmax(x, -1)), AG_ALL, 0);
    cr_expect(ag_grad(loss, &x, 1, &g, AG_CREATE_GRAPH));
    cr_expect(ag_requires_gradient(g));
    ag_read(g, recorded);
    cr_expect(ag_backward(loss));
    for (int i = 0; i < 6; i++)
        usual[i] = ag_tensor_at(ag_gradient(x), i);
}

static void expect_factor(ag_context *ctx, ag_context *other, double factor)
{
    double usual[6], recorded[6], others[6], others_recorded[6];
    gradients(ctx, usual, recorded);
    gradients(other, others, others_recorded);
    for (int i = 0; i < 6; i++) {
        cr_expect_float_eq(usual[i], factor * others[i], 1e-15);
        cr_expect_float_eq(recorded[i], factor * others_recorded[i], 1e-15);
    }
}

Test(try_rule, fused_and_recorded_use_in_one_context_alone)
{
    ag_context *ctx = f64(), *other = f64();
    cr_expect(ag_op_find("softmax")->vjp_fused, "there is a fused rule to stand in for");
    expect_factor(ctx, other, 1.0);
    ag_try_rule(ctx, ag_op_find("softmax"), times_three);
    expect_factor(ctx, other, 3.0);
    ag_tape_reset(ctx);
    expect_factor(ctx, other, 3.0);
    ag_try_rule(ctx, ag_op_find("softmax"), NULL);
    expect_factor(ctx, other, 1.0);
    ag_context_free(ctx);
    ag_context_free(other);
}

/* With the right rule tried for every operation, in fused use too, all is as it was: memory
 * that a rule made is given back, and handles that it kept are refused. */
static ag_var kept;

static void keeping(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_node_op(node)->vjp(node, dy, dx);
    kept = dx[0];
}

static ag_var some_loss(ag_context *ctx, ag_var x)
{
    ag_var w = ag_full(ctx, AG_SHAPE(3, 3), 0.3);
    ag_var h = ag_affine_gelu(ag_layer_norm(ag_tanh(x), AG_NONE, AG_NONE, 0), w, AG_NONE);
    return ag_sum(ag_mul(ag_softmax(h, -1), ag_maximum(x, ag_abs(h))), AG_ALL, 0);
}

Test(try_rule, every_operations_own_rule)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx), y = leaf(ctx);
    cr_expect(ag_backward(some_loss(ctx, x)));
    for (int i = 0; i < ag_op_count(); i++)
        if (ag_op_at(i)->vjp)
            cr_expect(ag_try_rule(ctx, ag_op_at(i), keeping));
    ag_var loss = some_loss(ctx, y), twice = ag_scale(loss, 2.0);
    cr_expect(ag_backward(loss), "%s", ag_error_message(ctx));
    cr_expect(!ag_is_valid(kept));
    for (int i = 0; i < 6; i++)
        cr_expect_float_eq(ag_tensor_at(ag_gradient(y), i), ag_tensor_at(ag_gradient(x), i), 1e-14);
    cr_expect(ag_backward(twice));
    for (int i = 0; i < 6; i++)
        cr_expect_float_eq(ag_tensor_at(ag_gradient(y), i), 3 * ag_tensor_at(ag_gradient(x), i),
                           1e-13);
    ag_context_free(ctx);
}

static void forward_same(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void pass(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = dy;
}

Test(try_rule, an_operation_of_the_users)
{
    const ag_op mine = { .name = "mine", .forward = forward_same, .vjp = pass };
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    cr_expect(ag_try_rule(ctx, &mine, times_three));
    cr_expect(ag_backward(ag_sum(ag_apply(&mine, &x, 1, NULL), AG_ALL, 0)));
    cr_expect_eq(ag_tensor_at(ag_gradient(x), 4), 3.0);
    ag_context_free(ctx);
}

/* ---- What arrived ---- */

static double arrived[8];
static int calls;

static void watching(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var before = ag_node_arrived(node, 0);
    arrived[calls++] = ag_is_none(before) ? NAN : ag_tensor_at(ag_value(before), 0);
    ag_node_op(node)->vjp(node, dy, dx);
    cr_expect(ag_is_none(ag_node_arrived(node, -1)) && ag_is_none(ag_node_arrived(node, 1)));
}

/* x is used by exp, by sin (watched), and by two more after it. */
static ag_var watched(ag_var x)
{
    ag_var first = ag_exp(x), y = ag_sin(x), two = ag_scale(x, 2.0), three = ag_scale(x, 3.0);
    return ag_sum(ag_add(ag_add(first, y), ag_add(two, three)), AG_ALL, 0);
}

static void expect_arrived(ag_context *ctx, ag_var x, unsigned flags)
{
    ag_var g;
    calls = 0;
    ag_try_rule(ctx, ag_op_find("sin"), watching);
    ag_try_rule(ctx, ag_op_find("scale"), watching);
    cr_expect(ag_grad(watched(x), &x, 1, &g, flags), "%s", ag_error_message(ctx));
    cr_expect_eq(calls, 3);
    cr_expect(isnan(arrived[0]), "the last use comes first");
    cr_expect(arrived[1] == 3.0 && arrived[2] == 5.0);
    double x_0 = ag_tensor_at(ag_value(x), 0);
    cr_expect_float_eq(ag_tensor_at(ag_value(g), 0), exp(x_0) + cos(x_0) + 5.0, 1e-14);
}

Test(try_rule, what_arrived)
{
    ag_context *ctx = f64();
    ag_var p = ag_parameter(ctx, "p", AG_F64, AG_SHAPE(3));
    expect_arrived(ctx, leaf(ctx), 0);
    expect_arrived(ctx, leaf(ctx), AG_CREATE_GRAPH);
    expect_arrived(ctx, p, 0);
    calls = 0; /* a parameter's gradient is gathered in its own memory */
    cr_expect(ag_backward(watched(p)));
    cr_expect(isnan(arrived[0]) && arrived[1] == 3.0 && arrived[2] == 5.0);
    cr_expect_eq(ag_tensor_at(ag_gradient(p), 0), 7.0);
    calls = 0;
    cr_expect(ag_backward(watched(p)));
    cr_expect(isnan(arrived[0]), "of this backward, not of earlier ones");
    cr_expect_eq(ag_tensor_at(ag_gradient(p), 0), 14.0);
    cr_expect(ag_is_none(ag_node_arrived(NULL, 0)));
    ag_context_free(ctx);
}

/* ---- Rules that are no good, and calls that are refused ---- */

static void short_of_shape(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_sum(dy, 0, 0);
}

static void nothing(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node, (void)dy, (void)dx;
}

static void unbalanced(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_no_grad_end(ag_node_context(node));
    dx[0] = dy;
}

static void trying(const ag_node *node, ag_var dy, ag_var *dx)
{
    cr_expect(!ag_try_rule(ag_node_context(node), ag_node_op(node), NULL));
    dx[0] = dy;
}

static void expect_error(ag_rule rule, ag_error error, const char *words)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx);
    cr_expect(ag_try_rule(ctx, ag_op_find("tanh"), rule));
    cr_expect(!ag_backward(ag_sum(ag_tanh(x), AG_ALL, 0)));
    cr_expect(ag_status(ctx) == error && strstr(ag_error_message(ctx), words), "%s",
              ag_error_message(ctx));
    ag_error_clear(ctx);
    cr_expect(ag_gradient(x) == NULL);
    cr_expect(ag_try_rule(ctx, ag_op_find("tanh"), NULL));
    cr_expect(ag_backward(ag_sum(ag_tanh(x), AG_ALL, 0)), "and then all is well");
    ag_context_free(ctx);
}

Test(try_rule, rules_that_are_no_good)
{
    expect_error(short_of_shape, AG_ERR_SHAPE, "tanh: the backward rule gave f64 [3]");
    expect_error(nothing, AG_ERR_STATE, "tanh: the backward rule gave no gradient");
    expect_error(unbalanced, AG_ERR_STATE, "tanh: began or ended a no-grad region");
    expect_error(trying, AG_ERR_STATE, "try_rule: called from inside of a backward rule");
}

static void expect_refused(ag_context *ctx, const ag_op *op, const char *words)
{
    cr_expect(!ag_try_rule(ctx, op, right));
    cr_expect_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    cr_expect(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    cr_expect(!ag_try_rule(ctx, ag_op_find("softmax"), wrong), "nothing is done after an error");
    ag_error_clear(ctx);
    cr_expect(check(ctx).passed);
}

Test(try_rule, refused)
{
    ag_context *ctx = f64();
    cr_expect(!ag_try_rule(NULL, ag_op_find("softmax"), right));
    expect_refused(ctx, NULL, "try_rule: there is no such operation");
    expect_refused(ctx, ag_op_find("sofmax"), "try_rule: there is no such operation");
    expect_refused(ctx, &(ag_op){ .vjp = right }, "try_rule: there is no such operation");
    expect_refused(ctx, ag_op_find("argmax"), "try_rule: argmax has no gradient");
    cr_expect(ag_try_rule(ctx, ag_op_find("exp"), NULL), "there is nothing to put back");
    ag_context_free(ctx);
}

Test(try_rule, operations_are_found_by_name)
{
    for (int i = 0; i < ag_op_count(); i++)
        cr_expect_eq(ag_op_find(ag_op_at(i)->name), ag_op_at(i));
    cr_expect(ag_op_find(NULL) == NULL && ag_op_find("") == NULL && ag_node_op(NULL) == NULL);
}
