/* What once fooled the gradient checker: right gradients that failed, wrong ones that passed, and
 * functions that should have got a verdict of their own. The names say what was wrong. */
#include "spoilt.h"

#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *f64(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var leaf(ag_context *ctx, int64_t count, const double *values)
{
    return ag_require_gradient(ag_constant(ctx, AG_SHAPE(count), values));
}

static const ag_gradcheck_method methods[] = { AG_GRADCHECK_BOTH, AG_GRADCHECK_DIFFERENCES,
                                               AG_GRADCHECK_COMPLEX };

/* The check of a function of one vector. */
static ag_gradcheck_report check(ag_function f, void *user, int64_t count, const double *values,
                                 ag_gradcheck_options options)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, count, values);
    ag_gradcheck_report report;
    ag_gradcheck(ctx, f, user, &x, 1, &options, &report);
    double after[8];
    ag_error_clear(ctx);
    cr_expect(ag_read(x, after) && !memcmp(after, values, (size_t)count * sizeof *values),
              "the inputs are put back");
    ag_context_free(ctx);
    return report;
}

#define FUNCTION(name, result)                                              \
    static ag_var name(ag_context *ctx, const ag_var *x, int n, void *user) \
    {                                                                       \
        (void)ctx, (void)n, (void)user;                                     \
        return result;                                                      \
    }

static ag_var total(ag_var x)
{
    return ag_sum(x, AG_ALL, 0);
}

/* ---- The end of a domain ---- */

FUNCTION(power_and_a_half, total(ag_pow(x[0], 1.5)))

/* Next to 0 differences converge like sqrt h, which does not show below the noise. */
Test(checker_faults, slow_convergence_hidden_by_noise)
{
    for (int i = 0; i < 5; i++)
        for (uint64_t seed = 0; seed < 8; seed++) {
            double values[] = { 0.0, 0.1 + i };
            ag_gradcheck_options options = { .seed = seed, .method = AG_GRADCHECK_DIFFERENCES };
            ag_gradcheck_report report = check(power_and_a_half, NULL, 2, values, options);
            cr_expect_eq(report.failures, 0, "%d, seed %d", i, (int)seed);
        }
}

/* erf(x0) with the rounding of numbers near 10,000 and, at the end of its domain, x1^1.5. */
FUNCTION(noise_and_an_end,
         ag_add(total(ag_shift(ag_shift(ag_erf(x[0]), 1e4), -1e4)), total(ag_pow(x[1], 1.5))))

/* On every line through all inputs one half is outside of the domain. */
Test(checker_faults, noise_that_could_not_be_measured_counted_as_none)
{
    ag_context *ctx = f64();
    ag_var x[] = { leaf(ctx, 3, (double[]){ 0.3, 0.7, -0.4 }), leaf(ctx, 2, (double[]){ 0, 0.5 }) };
    ag_gradcheck_report report;
    ag_gradcheck(ctx, noise_and_an_end, NULL, x, 2, NULL, &report);
    cr_expect(report.failures == 0 && report.inconclusive < 5, "%lld", (long long)report.failures);
    ag_context_free(ctx);
}

FUNCTION(square_root, ag_sqrt(x[0]))

Test(checker_faults, an_infinite_derivative_is_not_wrong)
{
    for (int m = 0; m < 3; m++) {
        ag_gradcheck_report report = check(square_root, NULL, 2, (double[]){ 0, 0.5 },
                                           (ag_gradcheck_options){ .method = methods[m] });
        cr_expect_eq(report.verdict, AG_VERDICT_INCONCLUSIVE);
        cr_expect_eq(report.inconclusive, 1);
    }
}

/* ---- Coarse functions ---- */

static ag_var coarse(ag_context *ctx, const ag_var *x, int n, void *user)
{
    double offset = *(const double *)user;
    (void)ctx, (void)n;
    return ag_shift(ag_shift(ag_erf(x[0]), offset), -offset);
}

static void zero_rule(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_scale(dy, 0.0);
}

/* At small steps it stands still, and looked as if its derivative were 0. */
Test(checker_faults, a_function_that_stands_still)
{
    for (double offset = 1e6; offset < 1e13; offset *= 10.0) {
        ag_gradcheck_report report;
        ag_context *ctx = f64();
        ag_var x = leaf(ctx, 3, (double[]){ 0.3, 0.7, -0.4 });
        ag_gradcheck(ctx, coarse, &offset, &x, 1, NULL, &report);
        cr_expect_eq(report.failures, 0, "%g", offset);
        cr_expect(ag_try_rule(ctx, ag_op_find("erf"), zero_rule));
        ag_gradcheck(ctx, coarse, &offset, &x, 1, NULL, &report);
        cr_expect_eq(report.verdict, AG_VERDICT_FAIL, "%g", offset);
        ag_context_free(ctx);
    }
}

FUNCTION(softmax_in_f32, ag_cast(ag_softmax(ag_scale(ag_cast(x[0], AG_F32), 20), 0), AG_F64))
FUNCTION(logsumexp_in_f32, ag_cast(ag_logsumexp(ag_scale(ag_cast(x[0], AG_F32), 20), 0, 0), AG_F64))

Test(checker_faults, f32_inside_rounds_more_than_f64)
{
    const double values[] = { 0.3, 0.9, 1.5 };
    cr_expect_eq(check(softmax_in_f32, NULL, 3, values, (ag_gradcheck_options){ 0 }).failures, 0);
    cr_expect_eq(check(logsumexp_in_f32, NULL, 3, values, (ag_gradcheck_options){ 0 }).failures, 0);
}

static ag_var scaled_erf(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_scale(ag_erf(x[0]), *(const double *)user);
}

FUNCTION(of_large_numbers, ag_erf(ag_scale(x[0], 1e-160)))

Test(checker_faults, squares_that_overflow)
{
    double scale = 1e200, large[] = { 7e159 };
    ag_gradcheck_report report =
        check(scaled_erf, &scale, 3, (double[]){ 0.3, 0.7, -0.4 }, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_PASS);
    report = check(of_large_numbers, NULL, 1, large, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_PASS);
}

/* ---- Kinks ---- */

FUNCTION(relu_network, ag_tanh(ag_matmul(ag_relu(ag_affine(x[0], x[1], x[2])), x[3])))
FUNCTION(erf_network, ag_erf(ag_matmul(ag_relu(ag_affine(x[0], x[1], x[2])), x[3])))

/* A row of zeros and no bias: all of its hidden numbers are 0, at the kink of ReLU. */
static ag_verdict check_network(ag_function f, uint64_t seed, int directions, ag_rule rule)
{
    ag_context *ctx = f64();
    ag_random random = ag_random_stream(seed, "network", 0);
    ag_gradcheck_report report;
    ag_var x[] = { ag_normal(ctx, &random, AG_SHAPE(3, 4)), ag_normal(ctx, &random, AG_SHAPE(4, 6)),
                   ag_zeros(ctx, AG_SHAPE(6)), ag_normal(ctx, &random, AG_SHAPE(6, 2)) };
    for (int64_t k = 0; k < 4; k++)
        ag_tensor_put(ag_value_mutable(x[0]), k, 0.0);
    for (int i = 0; i < 4; i++)
        ag_require_gradient(x[i]);
    ag_try_rule(ctx, ag_op_find("tanh"), rule);
    ag_gradcheck(ctx, f, NULL, x, 4,
                 &(ag_gradcheck_options){ .seed = seed, .directions = directions }, &report);
    ag_context_free(ctx);
    return report.verdict;
}

static void slightly_wrong(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_node_op(node)->vjp(node, dy, dx);
    dx[0] = ag_scale(dx[0], 1.01);
}

Test(checker_faults, several_kinks_at_one_point)
{
    int known = 0;
    for (uint64_t seed = 0; seed < 20; seed++)
        for (int directions = 0; directions <= 4; directions += 4) {
            ag_verdict verdict = check_network(relu_network, seed, directions, NULL);
            cr_expect_neq(verdict, AG_VERDICT_FAIL, "seed %d", (int)seed);
            known += verdict == AG_VERDICT_KINK;
            verdict = check_network(erf_network, seed, directions, NULL);
            cr_expect_neq(verdict, AG_VERDICT_FAIL, "seed %d, erf", (int)seed);
        }
    cr_expect(known > 20, "%d", known);
}

/* The kinks of all entries together make the interval of a direction wide. */
Test(checker_faults, a_wrong_gradient_in_the_interval_of_a_direction)
{
    int failed = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        ag_verdict verdict = check_network(relu_network, seed, 4, slightly_wrong);
        cr_expect(verdict == AG_VERDICT_FAIL || verdict == AG_VERDICT_INCONCLUSIVE, "%s",
                  ag_verdict_name(verdict));
        failed += check_network(relu_network, seed, 0, slightly_wrong) == AG_VERDICT_FAIL;
    }
    cr_expect_eq(failed, 20, "entry by entry: %d", failed);
}

/* max of five equal numbers, and a tanh that has nothing to do with it. */
FUNCTION(tie_and_tanh, ag_add(ag_max(ag_exp(x[0]), 0, 0), ag_tanh(ag_scale(x[1], 8))))

Test(checker_faults, last_bits_that_break_a_tie)
{
    for (int m = 0; m < 3; m++) {
        ag_context *ctx = f64();
        ag_var x[] = { ag_require_gradient(ag_full(ctx, AG_SHAPE(5), 0.3)),
                       ag_require_gradient(ag_full(ctx, AG_SHAPE(4), 1.0)) };
        ag_gradcheck_options options = { .method = methods[m] };
        ag_gradcheck_report report;
        ag_gradcheck(ctx, tie_and_tanh, NULL, x, 2, &options, &report);
        cr_expect(report.verdict == AG_VERDICT_KINK && report.kinks == 5, "%s, %lld",
                  ag_verdict_name(report.verdict), (long long)report.failures);
        ag_context_free(ctx);
    }
}

/* As seen from x = 0 nothing happens on the left side, and so that side was believed. */
FUNCTION(one_sided_kink,
         ag_where(ag_greater(x[0], ag_zeros(ctx, AG_SHAPE(2))), x[0], ag_zeros(ctx, AG_SHAPE(2))))
FUNCTION(one_sided_jump, ag_where(ag_greater(x[0], ag_zeros(ctx, AG_SHAPE(2))), ag_shift(x[0], 5.0),
                                  ag_zeros(ctx, AG_SHAPE(2))))

Test(checker_faults, kinks_and_jumps_that_are_seen_from_one_side_only)
{
    for (int m = 0; m < 3; m++) {
        ag_gradcheck_options options = { .method = methods[m] };
        ag_gradcheck_report report = check(one_sided_kink, NULL, 2, (double[]){ 0, 0.5 }, options);
        cr_expect(report.verdict == AG_VERDICT_KINK && report.kinks == 1);
        report = check(one_sided_jump, NULL, 2, (double[]){ 0, 0.5 }, options);
        cr_expect(report.verdict == AG_VERDICT_INCONCLUSIVE && report.inconclusive == 1);
    }
}

FUNCTION(inner, ag_square(x[0]))

static ag_var with_a_check(ag_context *ctx, const ag_var *x, int n, void *user)
{
    ag_gradcheck_report report;
    ag_var y = ag_require_gradient(ag_full(ctx, AG_SHAPE(2), 0.3));
    (void)n, (void)user;
    cr_expect(ag_gradcheck(ctx, inner, NULL, &y, 1, NULL, &report));
    return ag_relu(x[0]);
}

Test(checker_faults, a_check_inside_of_a_check)
{
    ag_gradcheck_report report =
        check(with_a_check, NULL, 2, (double[]){ 0, 0.5 }, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_KINK);
}

/* ---- Complex steps ---- */

FUNCTION(itself, x[0])
FUNCTION(itself_again, ag_contiguous(x[0]))

Test(checker_faults, a_function_that_returns_its_input)
{
    const double values[] = { 0.3, 0.7, -0.4 };
    for (int m = 0; m < 3; m++) {
        ag_gradcheck_options options = { .method = methods[m] };
        cr_expect(check(itself, NULL, 3, values, options).passed);
        cr_expect(check(itself_again, NULL, 3, values, options).passed);
    }
}

FUNCTION(times_its_sum, ag_scale(x[0], ag_item(total(ag_detach(x[0])))))

/* A number that leaves the graph loses its imaginary part. */
Test(checker_faults, numbers_that_are_read)
{
    ag_gradcheck_report report = check(times_its_sum, NULL, 2, (double[]){ 0.3, 0.7 },
                                       (ag_gradcheck_options){ .method = AG_GRADCHECK_COMPLEX });
    cr_expect_eq(report.verdict, AG_VERDICT_ERROR);
    cr_expect_str_eq(report.message, "item has no complex form");
    report = check(times_its_sum, NULL, 2, (double[]){ 0.3, 0.7 }, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
}

Test(checker_faults, a_tolerance_made_complex_steps_inconclusive)
{
    for (int m = 0; m < 3; m++) {
        ag_gradcheck_options options = { .method = methods[m], .tolerance = 1e-3 };
        cr_expect(check(inner, NULL, 2, (double[]){ 0.3, 0.7 }, options).passed);
    }
    ag_gradcheck_options infinite = { .tolerance = INFINITY };
    ag_gradcheck_report report = check(inner, NULL, 2, (double[]){ 0.3, 0.7 }, infinite);
    cr_expect_eq(report.verdict, AG_VERDICT_ERROR);
}

/* sin x, but for complex numbers the imaginary part is twice what it should be. */
static void two_sines(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, x->dtype, ag_tensor_shape(x));
    for (int64_t k = 0; y && k < ag_tensor_count(x); k++) {
        double re = ag_tensor_at(x, k), *parts = (double *)y->data + 2 * k;
        const double *given = (const double *)x->data + 2 * k;
        if (x->dtype == AG_F64)
            ag_tensor_put(y, k, sin(re));
        else
            parts[0] = sin(re), parts[1] = 2.0 * given[1] * cos(re);
    }
}

static void sine_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_cos(ag_node_input(node, 0)));
}

static const ag_op two_faced = {
    .name = "two-faced", .forward = two_sines, .vjp = sine_vjp, .complex_form = true
};

FUNCTION(two_faced_of, ag_apply(&two_faced, x, 1, NULL))

Test(checker_faults, a_wrong_complex_form_is_told_apart_from_doubt)
{
    ag_gradcheck_report report =
        check(two_faced_of, NULL, 2, (double[]){ 0.3, 0.7 }, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_INCONCLUSIVE);
    cr_expect_eq(report.contradictions, 2);
}

/* ---- Bad functions ---- */

static void count_errors(ag_error error, const char *message, void *user)
{
    (void)error, (void)message;
    ++*(int *)user;
}

/* Refuses numbers below 0. */
static ag_var particular(ag_context *ctx, const ag_var *x, int n, void *user)
{
    const ag_tensor *value = ag_value(x[0]);
    (void)n, (void)user;
    cr_assert(value != NULL, "it is not called while an error waits");
    if (ag_tensor_at(value, 0) < 0.0) {
        ag_fail(ctx, AG_ERR_ARGUMENT, "below 0");
        return AG_NONE;
    }
    return ag_square(x[0]);
}

Test(checker_faults, a_function_that_fails_elsewhere)
{
    int errors = 0;
    ag_context *ctx = ag_context_new(&(ag_context_options){
        .dtype = AG_F64, .on_error = count_errors, .on_error_user = &errors });
    ag_var x = leaf(ctx, 1, (double[]){ 0.01 });
    ag_gradcheck_report report;
    ag_gradcheck_options options = { .method = AG_GRADCHECK_DIFFERENCES };
    cr_expect(ag_gradcheck(ctx, particular, NULL, &x, 1, &options, &report), "%s", report.message);
    cr_expect(errors == 0 && ag_status(ctx) == AG_OK);
    x = leaf(ctx, 1, (double[]){ -0.01 });
    cr_expect(!ag_gradcheck(ctx, particular, NULL, &x, 1, &options, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_ERROR);
    cr_expect_str_eq(report.message, "below 0");
    ag_context_free(ctx);
}

static void random_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    static int calls;
    (void)node;
    dx[0] = ag_scale(dy, 1.0 + 1e-10 * ++calls);
}

static void writing_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_tensor x = *ag_node_input_value(node, 0);
    ag_tensor_put(&x, 0, ag_tensor_at(&x, 0) + 0.5);
    dx[0] = ag_scale(dy, 1.0);
}

static const ag_op random_rule = { .name = "random",
                                   .forward = ag_test_same_forward,
                                   .vjp = random_vjp };
static const ag_op writing_rule = { .name = "writing",
                                    .forward = ag_test_same_forward,
                                    .vjp = writing_vjp };

static ag_var applied(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx;
    return ag_tanh(ag_apply(user, x, n, NULL));
}

Test(checker_faults, rules_that_are_random_or_write)
{
    const double values[] = { 0.3, 0.7 };
    ag_gradcheck_report report =
        check(applied, (void *)&random_rule, 2, values, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_NOT_DETERMINISTIC);
    cr_expect(strstr(report.message, "backward twice gives other bits: entry 0"), "%s",
              report.message);
    report = check(applied, (void *)&writing_rule, 2, values, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_CHANGES_INPUT);
    cr_expect(strstr(report.message, "the gradient of the function changes its input 0: entry 0"),
              "%s", report.message);
}

/* Writes only where the checker has moved it. */
static ag_var limiting(ag_context *ctx, const ag_var *x, int n, void *user)
{
    ag_tensor value = *ag_value(x[0]);
    (void)ctx, (void)n, (void)user;
    if (ag_tensor_at(&value, 0) > 0.31)
        ag_tensor_put(&value, 0, 0.31);
    return ag_square(x[0]);
}

Test(checker_faults, a_function_that_writes_elsewhere)
{
    ag_gradcheck_report report =
        check(limiting, NULL, 2, (double[]){ 0.3, 0.7 }, (ag_gradcheck_options){ 0 });
    cr_expect_eq(report.verdict, AG_VERDICT_CHANGES_INPUT);
}

FUNCTION(product, ag_mul(x[0], x[1]))

Test(checker_faults, inputs_that_share_memory)
{
    ag_context *ctx = f64();
    ag_var a = leaf(ctx, 4, (double[]){ 1, 2, 3, 4 });
    ag_var x[] = { a, ag_require_gradient(ag_detach(a)) };
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck(ctx, product, NULL, x, 2, NULL, &report));
    cr_expect(ag_status(ctx) == AG_ERR_ARGUMENT && strstr(report.message, "are the same memory"),
              "%s", report.message);
    ag_context_free(ctx);
}

FUNCTION(detached, ag_square(ag_detach(x[0])))

Test(checker_faults, second_order_of_what_is_not_connected)
{
    ag_context *ctx = f64();
    ag_var x = leaf(ctx, 2, (double[]){ 0.3, 0.7 });
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck_second(ctx, detached, NULL, &x, 1, NULL, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_UNCONNECTED);
    ag_context_free(ctx);
}
