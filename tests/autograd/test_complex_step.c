/* Gradient checks by complex steps: what they see that differences do not, when they stand back,
 * and that nobody notices that the inputs were complex for a while. */
#include "spoilt.h"

#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ag_context *new_context(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var numbers(ag_context *ctx, uint64_t seed, double scale, int64_t rows, int64_t columns)
{
    ag_random random = ag_random_stream(seed, "step", (uint64_t)(rows * columns));
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(rows, columns)));
    ag_tensor *value = ag_value_mutable(x);
    for (int64_t k = 0; k < rows * columns; k++)
        ag_tensor_put(value, k, scale * ag_tensor_at(value, k));
    return x;
}

/* ---- Power ---- */

static ag_gradcheck_report check_attention(int seeds, double enlarge, double factor,
                                           ag_gradcheck_method method)
{
    return ag_test_check_attention((ag_test_attention){ seeds, enlarge, factor, 1.0, method });
}

Test(complex_step, one_part_in_1e11_is_seen)
{
    int64_t of_w_q = 20 * AG_TEST_WIDTH * AG_TEST_WIDTH;
    ag_gradcheck_report sum = check_attention(20, 1.0, 1.0 + 1e-11, AG_GRADCHECK_COMPLEX);
    cr_expect(100 * sum.failures >= 99 * of_w_q, "%lld of %lld", (long long)sum.failures,
              (long long)of_w_q);
    cr_expect(sum.failures <= of_w_q, "and nothing else");
    cr_expect(sum.floor < 1e-12, "%g", sum.floor);
}

Test(complex_step, no_false_alarm)
{
    for (double enlarge = 1.0; enlarge < 40.0; enlarge *= 3.0) {
        ag_gradcheck_report sum = check_attention(20, enlarge, 1.0, AG_GRADCHECK_COMPLEX);
        cr_expect_eq(sum.failures, 0, "%lld at %g", (long long)sum.failures, enlarge);
    }
}

Test(complex_step, says_no_less_than_differences)
{
    ag_gradcheck_report apart = check_attention(3, 17.0, 1.0, AG_GRADCHECK_DIFFERENCES);
    ag_gradcheck_report both = check_attention(3, 17.0, 1.0, AG_GRADCHECK_BOTH);
    cr_expect(apart.failures == 0 && both.failures == 0);
    cr_expect(apart.inconclusive > 20 && both.inconclusive <= apart.inconclusive, "%lld, %lld",
              (long long)apart.inconclusive, (long long)both.inconclusive);
}

/* ---- Where there is none ---- */

static ag_var with_erf(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_erf(ag_tanh(x[0]));
}

static void count_errors(ag_error error, const char *message, void *user)
{
    (void)error, (void)message;
    ++*(int *)user;
}

Test(complex_step, differences_stand_in_where_there_is_no_complex_form)
{
    int errors = 0;
    ag_context *ctx = ag_context_new(&(ag_context_options){
        .dtype = AG_F64, .on_error = count_errors, .on_error_user = &errors });
    ag_var x = numbers(ctx, 1, 0.5, 2, 3);
    int64_t length = ag_tape_length(ctx);
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, with_erf, NULL, &x, 1, NULL, &report), "%s", report.message);
    cr_expect_str_eq(report.no_complex_form, "erf");
    cr_expect(report.method == AG_GRADCHECK_DIFFERENCES && isnan(report.complex_step));
    cr_expect_eq(errors, 0, "it is no error");
    ag_gradcheck_options options = { .method = AG_GRADCHECK_COMPLEX };
    cr_expect(!ag_gradcheck(ctx, with_erf, NULL, &x, 1, &options, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_ERROR);
    cr_expect_str_eq(report.message, "erf has no complex form");
    cr_expect(ag_status(ctx) == AG_OK && ag_tape_length(ctx) == length);
    options.method = (ag_gradcheck_method)7;
    cr_expect(!ag_gradcheck(ctx, with_erf, NULL, &x, 1, &options, &report));
    cr_expect_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}

/* One that looks at its input's numbers and does not expect complex ones. */
static ag_var peeking(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    const double *values = ag_value(x[0])->data;
    return ag_scale(ag_sin(x[0]), values[1]);
}

/* And one that says that it has a complex form, but forgets the imaginary part. */
static void forgetful_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, AG_F64, ag_tensor_shape(x));
    for (int64_t k = 0; y && k < ag_tensor_count(x); k++)
        ag_tensor_put(y, k, 3.0 * ag_tensor_at(x, k));
}

static void forgetful_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_scale(dy, 3.0);
}

static const ag_op forgetful = {
    .name = "forgetful", .forward = forgetful_forward, .vjp = forgetful_vjp, .complex_form = true
};

static ag_var forgetting(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_add(ag_apply(&forgetful, x, 1, NULL), ag_sin(x[0]));
}

Test(complex_step, another_function_is_no_evidence)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 2, 1.0, 2, 3);
    ag_gradcheck_report report;
    ag_gradcheck(ctx, peeking, NULL, &x, 1, NULL, &report);
    cr_expect_str_eq(report.no_complex_form, "the function");
    cr_expect(!ag_gradcheck(ctx, forgetting, NULL, &x, 1, NULL, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_INCONCLUSIVE, "the two contradict each other");
    cr_expect(!isnan(report.complex_step) && report.method == AG_GRADCHECK_DIFFERENCES);
    ag_context_free(ctx);
}

/* ---- Kinks, and where h is not small against x ---- */

static ag_var bent(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_add(ag_relu(x[0]), ag_max(ag_tanh(x[0]), AG_ALL, 0));
}

static ag_var flat(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_pow(x[0], 1.5);
}

Test(complex_step, kinks_are_left_to_differences)
{
    for (int method = AG_GRADCHECK_BOTH; method <= AG_GRADCHECK_COMPLEX; method++) {
        ag_context *ctx = new_context();
        ag_gradcheck_report report;
        ag_gradcheck_options options = { .method = (ag_gradcheck_method)method };
        ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(3), (double[]){ 0.0, 0.7, -1.2 }));
        cr_expect(ag_gradcheck(ctx, bent, NULL, &x, 1, &options, &report), "%s", report.message);
        cr_expect(report.verdict == AG_VERDICT_KINK && report.kinks == 1);
        ag_context_free(ctx);
    }
}

Test(complex_step, a_step_that_is_not_small_is_noticed)
{
    ag_context *ctx = new_context();
    ag_gradcheck_report report;
    ag_gradcheck_options options = { .method = AG_GRADCHECK_COMPLEX };
    ag_var x = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(1)));
    ag_gradcheck(ctx, flat, NULL, &x, 1, &options, &report);
    cr_expect_neq(report.verdict, AG_VERDICT_FAIL, "%g, %g +- %g by %d", report.analytic,
                  report.numeric, report.bound, (int)report.method);
    ag_context_free(ctx);
}

/* ---- Second order, directions ---- */

static ag_var layer(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    ag_var h = ag_layer_norm(ag_matmul(x[0], x[1]), AG_NONE, AG_NONE, 0);
    return ag_attend(h, ag_silu(h), x[0], NULL);
}

Test(complex_step, second_order)
{
    ag_context *ctx = new_context();
    ag_var x[2] = { numbers(ctx, 1, 1.0, 4, 3), numbers(ctx, 2, 1.0, 3, 3) };
    ag_gradcheck_options options = { .method = AG_GRADCHECK_COMPLEX };
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck_second(ctx, layer, NULL, x, 2, &options, &report), "%s", report.message);
    cr_expect(report.method == AG_GRADCHECK_COMPLEX && report.floor < 1e-11, "%g", report.floor);
    ag_context_free(ctx);
}

Test(complex_step, directions)
{
    for (double factor = 1.0; factor < 1.0 + 2e-10; factor += 1e-10) {
        ag_context *ctx = new_context();
        ag_var x[4];
        for (int i = 0; i < 4; i++)
            x[i] = numbers(ctx, (uint64_t)i, i ? 0.4 : 1.0, AG_TEST_TOKENS, AG_TEST_WIDTH);
        ag_gradcheck_options options = { .directions = 3, .method = AG_GRADCHECK_COMPLEX };
        ag_gradcheck_report report;
        ag_test_attention attention = { .factor = factor, .scale = 1.0 };
        bool passed = ag_gradcheck(ctx, ag_test_attend, &attention, x, 4, &options, &report);
        cr_expect_eq(passed, factor == 1.0);
        cr_expect(passed || (report.input == 1 && fabs(report.ratio - factor) < 1e-11), "%d %.15g",
                  report.input, report.ratio);
        ag_context_free(ctx);
    }
}

/* ---- The inputs are put back ---- */

typedef struct heap {
    int64_t allocations, limit;
} heap;

static void *allocate(size_t bytes, void *user)
{
    heap *h = user;
    return h->allocations++ < h->limit ? malloc(bytes) : NULL;
}

static void release(void *memory, void *user)
{
    (void)user;
    free(memory);
}

/* With complex numbers it needs much more memory than any call before, or fails. */
static ag_var wide(ag_context *ctx, const ag_var *x, int n, void *user)
{
    const bool *errors = user;
    (void)n;
    ag_var y = ag_tanh(ag_shift(ag_mul(x[0], ag_full(ctx, AG_SHAPE(40, 3), 0.5)), 0.3));
    if (ag_dtype_of(x[0]) == AG_C128 && *errors)
        ag_fail(ctx, AG_ERR_STATE, "wide: no");
    else if (ag_dtype_of(x[0]) == AG_C128)
        ag_zeros(ctx, AG_SHAPE(1 << 20));
    return ag_matmul(y, ag_transpose(y, 0, 1));
}

/* Whether x is again the f64 leaf that it was. */
static bool is_as_before(ag_var x, const void *data, const double *before)
{
    ag_error_clear(x.context);
    const ag_tensor *value = ag_value(x);
    return value->dtype == AG_F64 && value->data == data &&
           !memcmp(value->data, before, 3 * sizeof *before) && ag_requires_gradient(x);
}

Test(complex_step, inputs_are_put_back)
{
    const double before[] = { -0.0, 1.0 / 3.0, -1e-310 };
    int refused = 0;
    bool errors = false, passed = false;
    for (int64_t limit = 0; limit < 400 && !passed; limit++) {
        heap h = { 0, limit };
        ag_context_options options = { .dtype = AG_F64, .allocator = { allocate, release, &h } };
        ag_context *ctx = ag_context_new(&options);
        ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(3), before));
        const void *data = ag_is_valid(x) ? ag_value(x)->data : NULL;
        ag_gradcheck_report report = { .verdict = AG_VERDICT_ERROR };
        if (data)
            passed = ag_gradcheck(ctx, wide, &errors, &x, 1, NULL, &report);
        refused += data && report.verdict == AG_VERDICT_ERROR;
        cr_expect(!data || passed || ag_status(ctx) == AG_ERR_MEMORY, "%s", report.message);
        cr_expect(!data || is_as_before(x, data, before));
        ag_context_free(ctx);
    }
    cr_expect(passed && refused > 0, "%d", refused);
}

Test(complex_step, inputs_are_put_back_after_an_error)
{
    const double before[] = { -0.0, 1.0 / 3.0, -1e-310 };
    bool errors = true;
    ag_context *ctx = new_context();
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(3), before));
    const void *data = ag_value(x)->data;
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, wide, &errors, &x, 1, NULL, &report), "%s", report.message);
    cr_expect_str_eq(report.no_complex_form, "the function");
    cr_expect_eq(ag_status(ctx), AG_OK);
    cr_expect(is_as_before(x, data, before));
    ag_context_free(ctx);
}
