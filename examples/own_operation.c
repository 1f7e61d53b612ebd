/* An operation of one's own, with its backward rule, and a check that can tell
 * a right rule from a wrong one.
 *
 *   forward    y = x^3
 *   backward   dx = 3 x^2 dy */
#include <attograd.h>

static void cube_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, x->dtype, ag_tensor_shape(x));
    for (int64_t i = 0; y && i < ag_tensor_count(x); i++) {
        double value = ag_tensor_at(x, i);
        ag_tensor_put(y, i, value * value * value);
    }
}

/* The rule is written with the library's operations, so that it can itself be
 * differentiated. */
static void cube_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0);
    dx[0] = ag_mul(ag_scale(ag_square(x), 3), dy);
}

/* The same with a mistake that is easily made. */
static void wrong_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0);
    dx[0] = ag_mul(ag_scale(ag_square(x), 2), dy);
}

static const ag_op cube = { .name = "cube", .forward = cube_forward, .vjp = cube_vjp };
static const ag_op wrong = { .name = "wrong", .forward = cube_forward, .vjp = wrong_vjp };

/* What is checked: any function of any variables. user says which operation. */
static ag_var apply(ag_context *ctx, const ag_var *inputs, int n, void *user)
{
    (void)ctx;
    return ag_apply(*(const ag_op **)user, inputs, n, NULL);
}

int main(void)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ -2, -1, -0.5, 0.5, 1, 2 });
    ag_require_gradient(ag_set_name(x, "x"));

    ag_var y = ag_apply(&cube, &x, 1, NULL);
    ag_backward(ag_sum(y, AG_ALL, 0));
    ag_print(x, stdout);
    ag_print(ag_set_name(y, "x^3"), stdout);
    printf("its gradient, 3 x^2:\n");
    ag_tensor_print(ag_gradient(x), stdout);

    const ag_op *right_op = &cube, *wrong_op = &wrong;
    ag_gradcheck_report report;
    ag_gradcheck(ctx, apply, &right_op, &x, 1, NULL, &report);
    printf("\n3 x^2 dy:\n");
    ag_gradcheck_print(&report, stdout);
    ag_gradcheck(ctx, apply, &wrong_op, &x, 1, NULL, &report);
    printf("\n2 x^2 dy:\n");
    ag_gradcheck_print(&report, stdout);
    ag_gradcheck_second(ctx, apply, &right_op, &x, 1, NULL, &report);
    printf("\nthe gradient of 3 x^2 dy:\n");
    ag_gradcheck_print(&report, stdout);
    return ag_context_finish(ctx);
}
