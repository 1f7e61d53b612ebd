#include "spoilt.h"

#include <criterion/criterion.h>
#include <math.h>

/* ---- y = x ---- */

void ag_test_same_forward(ag_node *node)
{
    ag_node_set_view(node, ag_node_input_value(node, 0));
}

static void factor_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_scale(dy, *(const double *)ag_node_options(node));
}

static const ag_op spoil = { .name = "spoil",
                             .forward = ag_test_same_forward,
                             .vjp = factor_vjp,
                             .options_size = sizeof(double),
                             .complex_form = true };

ag_var ag_test_spoil(ag_var x, double factor)
{
    return ag_apply(&spoil, &x, 1, &factor);
}

/* ---- Attention ---- */

enum { TOKENS = AG_TEST_TOKENS, WIDTH = AG_TEST_WIDTH };

ag_var ag_test_attend(ag_context *ctx, const ag_var *x, int n, void *user)
{
    const ag_test_attention *a = user;
    (void)ctx, (void)n;
    ag_var q = ag_matmul(x[0], ag_test_spoil(x[1], a->factor));
    ag_var k = ag_matmul(x[0], x[2]), v = ag_matmul(x[0], x[3]);
    ag_var scores = ag_scale(ag_matmul(q, ag_transpose(k, 0, 1)), 1.0 / sqrt(WIDTH));
    return ag_scale(ag_matmul(ag_softmax(scores, -1), v), a->scale);
}

/* Normal numbers, the weights over sqrt 8. */
void ag_test_draw(ag_context *ctx, uint64_t seed, double enlarge, ag_var *x)
{
    const double sizes[] = { 1.0, enlarge / sqrt(WIDTH), enlarge / sqrt(WIDTH), 1.0 / sqrt(WIDTH) };
    ag_random random = ag_random_stream(seed, "power", 0);
    for (int i = 0; i < 4; i++) {
        x[i] = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(TOKENS, WIDTH)));
        ag_tensor *value = ag_value_mutable(x[i]);
        for (int64_t k = 0; k < TOKENS * WIDTH; k++)
            ag_tensor_put(value, k, sizes[i] * ag_tensor_at(value, k));
    }
}

ag_gradcheck_report ag_test_check_attention(ag_test_attention attention)
{
    ag_gradcheck_report sum = { .verdict = AG_VERDICT_PASS };
    for (int seed = 0; seed < attention.seeds; seed++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_gradcheck_options options = { .seed = (uint64_t)seed, .method = attention.method };
        ag_gradcheck_report report;
        ag_var x[4];
        ag_test_draw(ctx, (uint64_t)seed, attention.enlarge, x);
        ag_gradcheck(ctx, ag_test_attend, &attention, x, 4, &options, &report);
        cr_expect(!report.message[0] && !report.no_complex_form[0], "%s", report.message);
        sum.entries += report.entries;
        sum.failures += report.failures;
        sum.inconclusive += report.inconclusive;
        sum.floor = fmax(sum.floor, report.floor);
        ag_context_free(ctx);
    }
    return sum;
}
