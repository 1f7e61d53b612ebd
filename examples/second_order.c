/* The second derivative along a direction, without ever building the Hessian.
 *
 * g = dL/dw is itself something that was computed from w, so g . v can be
 * differentiated once more: d(g . v)/dw = H v, where H is the matrix of second
 * derivatives of L. The same from differences of gradients:
 * H v ~ (g(w + h v) - g(w - h v)) / 2h. */
#include <attograd.h>

enum { EXAMPLES = 6, SIZE = 4 };

/* A loss with a bend: the mean of log(1 + exp(-t (x . w))), t = 1 or -1. */
static ag_var loss_of(ag_context *ctx, ag_var w)
{
    ag_random random = ag_random_stream(7, "examples", 0); /* the same ones each time */
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(EXAMPLES, SIZE));
    ag_var t = ag_constant(ctx, AG_SHAPE(EXAMPLES, 1), (double[]){ 1, -1, 1, 1, -1, -1 });
    return ag_mean(ag_softplus(ag_neg(ag_mul(t, ag_matmul(x, w)))), AG_ALL, 0);
}

static const double start[SIZE] = { 0.5, -1, 0.25, 1.5 };
static const double direction[SIZE] = { 1, 2, -1, 0.5 };

/* The gradient at start + shift direction, into g. */
static void gradient_at(ag_context *ctx, ag_var w, double shift, double *g)
{
    double moved[SIZE];
    for (int i = 0; i < SIZE; i++)
        moved[i] = start[i] + shift * direction[i];
    ag_assign(w, moved);
    ag_var gradient;
    ag_grad(loss_of(ctx, w), &w, 1, &gradient, 0);
    for (int i = 0; i < SIZE; i++)
        g[i] = ag_tensor_at(ag_value(gradient), i);
}

int main(void)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var w = ag_parameter(ctx, "w", AG_DEFAULT_DTYPE, AG_SHAPE(SIZE, 1));
    ag_var v = ag_constant(ctx, AG_SHAPE(SIZE, 1), direction);
    ag_assign(w, start);

    ag_var loss = loss_of(ctx, w), g, hv;
    ag_grad(loss, &w, 1, &g, AG_CREATE_GRAPH); /* g is recorded ..            */
    ag_grad(ag_dot(g, v), &w, 1, &hv, 0);      /* .. so it can be differentiated */
    printf("loss %.6f\n", ag_item(loss));

    const double h = 1e-5;
    double plus[SIZE], minus[SIZE];
    gradient_at(ctx, w, h, plus);
    gradient_at(ctx, w, -h, minus);

    double largest = 0;
    printf("\n   gradient           H v   differences of gradients\n");
    for (int i = 0; i < SIZE; i++) {
        double exact = ag_tensor_at(ag_value(hv), i), numeric = (plus[i] - minus[i]) / (2 * h);
        double gap = exact > numeric ? exact - numeric : numeric - exact;
        largest = gap > largest ? gap : largest;
        printf("%11.8f   %11.8f   %11.8f\n", ag_tensor_at(ag_value(g), i), exact, numeric);
    }
    printf("\n%s: the largest difference is %.1e\n",
           largest < 1e-8 ? "They agree" : "They do not agree", largest);
    return ag_context_finish(ctx);
}
