/* How much the gradient checker sees, and that it raises no false alarm: at initial and
 * saturated points, next to kinks and on them, at any scale of the loss. */
#include "spoilt.h"

#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Attention whose gradient by W_q can be spoiled, by differences ---- */

enum { OF_W_Q = AG_TEST_TOKENS * AG_TEST_WIDTH, ENTRIES = 4 * OF_W_Q };

static ag_gradcheck_report check_attention(int seeds, double enlarge, double factor, double scale)
{
    return ag_test_check_attention(
        (ag_test_attention){ seeds, enlarge, factor, scale, AG_GRADCHECK_DIFFERENCES });
}

/* 102,400 entries, as layers begin, as they are after training, and saturated. */
Test(checker_power, no_false_alarm)
{
    static const double enlarge[] = { 1.0, 3.0, 8.0, 17.0, 36.0 };
    for (int i = 0; i < 5; i++) {
        ag_gradcheck_report sum = check_attention(80, enlarge[i], 1.0, 1.0);
        printf(
            "scores enlarged %4g times: %lld entries, %lld fail, %lld inconclusive, floor %.0e\n",
            enlarge[i] * enlarge[i], (long long)sum.entries, (long long)sum.failures,
            (long long)sum.inconclusive, sum.floor);
        cr_expect_eq(sum.entries, 80 * ENTRIES);
        cr_expect_eq(sum.failures, 0, "%lld at %g", (long long)sum.failures, enlarge[i]);
        cr_expect(enlarge[i] > 3.0 || sum.inconclusive < sum.entries / 100);
    }
}

Test(checker_power, one_part_in_a_thousand_million_is_seen)
{
    int64_t of_w_q = 20 * OF_W_Q;
    ag_gradcheck_report sum = check_attention(20, 1.0, 1.0 + 1e-9, 1.0);
    printf("off by a factor of 1 + 1e-9: %lld of %lld entries fail\n", (long long)sum.failures,
           (long long)of_w_q);
    cr_expect(100 * sum.failures >= 99 * of_w_q, "%lld of %lld", (long long)sum.failures,
              (long long)of_w_q);
    cr_expect(sum.failures <= of_w_q, "and nothing else");
    cr_expect(sum.floor < 1e-11);
}

/* The loss is multiplied by powers of ten, not of two: the last bits differ. */
Test(checker_power, the_scale_of_the_loss_does_not_matter)
{
    for (double scale = 1e-12; scale < 1e13; scale *= 1e3) {
        ag_gradcheck_report right = check_attention(2, 1.0, 1.0, scale);
        cr_expect(right.failures == 0 && right.inconclusive == 0);
        ag_gradcheck_report wrong = check_attention(2, 1.0, 1.0 + 1e-6, scale);
        cr_expect(wrong.failures == 2 * OF_W_Q, "%g: %lld", scale, (long long)wrong.failures);
    }
}

Test(checker_power, zero_and_negated_gradients_of_a_saturated_softmax)
{
    for (double scale = 1e-12; scale < 1e13; scale *= 1e12)
        for (double factor = 0.0; factor >= -1.0; factor -= 1.0) {
            ag_gradcheck_report sum = check_attention(3, 17.0, factor, scale);
            printf("loss times %g, gradient by W_q times %2g: %lld of %d entries fail\n", scale,
                   factor, (long long)sum.failures, 3 * OF_W_Q);
            cr_expect(sum.failures > 0, "factor %g at %g", factor, scale);
        }
}

/* ---- Kinks ---- */

/* *user is the factor that the gradient by the second input is off by. */
static ag_var network(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    ag_var h = ag_matmul(x[0], ag_test_spoil(x[1], *(const double *)user));
    ag_var bent = ag_max(ag_abs(ag_add(h, ag_sin(h))), -1, AG_KEEP_DIM);
    return ag_add(ag_mul(ag_relu(h), ag_tanh(h)), ag_add(bent, ag_relu(h)));
}

/* One of the hidden numbers lies at the distance from the kinks of ReLU and |x|; if tied, all
 * four of a row do, so that the maximum is tied as well. */
static ag_gradcheck_report check_kink(uint64_t seeds, double distance, bool tied, double factor,
                                      ag_gradcheck_method method)
{
    ag_gradcheck_report sum = { .verdict = AG_VERDICT_PASS };
    for (uint64_t seed = 0; seed < seeds; seed++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_random random = ag_random_stream(seed, "kink", 0);
        ag_var x[2] = { ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 4))),
                        ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 4))) };
        for (int64_t k = 0; k < 4; k++) {
            double sign = k % 2 ? -1.0 : 1.0;
            ag_tensor_put(ag_value_mutable(x[0]), k, k == 0);
            ag_tensor_put(ag_value_mutable(x[1]), k,
                          sign * (tied || k == 0 ? distance : 0.5 + 0.3 * (double)k));
        }
        ag_gradcheck_report report;
        ag_gradcheck_options options = { .seed = seed, .method = method };
        ag_gradcheck(ctx, network, &factor, x, 2, &options, &report);
        sum.entries += report.entries;
        sum.failures += report.failures;
        sum.inconclusive += report.inconclusive;
        sum.kinks += report.kinks;
        ag_context_free(ctx);
    }
    return sum;
}

static const double distances[] = { 1e-2, 1e-3, 1e-4,  1e-5,  1e-6,  1e-7,
                                    1e-8, 1e-9, 1e-10, 1e-12, 1e-14, 0.0 };
enum { DISTANCES = sizeof distances / sizeof distances[0] };

Test(checker_power, no_false_alarm_at_any_distance_from_a_kink)
{
    for (int i = 0; i < DISTANCES; i++) {
        double d = distances[i];
        ag_gradcheck_report sum = check_kink(30, d, false, 1.0, AG_GRADCHECK_DIFFERENCES);
        printf("%5g from a kink: %lld entries, %lld fail, %lld inconclusive, %lld at the kink\n", d,
               (long long)sum.entries, (long long)sum.failures, (long long)sum.inconclusive,
               (long long)sum.kinks);
        cr_expect_eq(sum.failures, 0, "%g", d);
        cr_expect(sum.inconclusive <= sum.entries / 100, "%g: %lld", d,
                  (long long)sum.inconclusive);
        cr_expect(d == 0.0 ? sum.kinks > 0 : sum.kinks == 0, "%g: %lld", d, (long long)sum.kinks);
        for (int tied = 0; tied < 2; tied++) {
            ag_gradcheck_report both = check_kink(10, d, tied, 1.0, AG_GRADCHECK_BOTH);
            cr_expect(both.failures == 0 && both.entries == 320, "%g, both methods", d);
        }
        cr_expect_eq(check_kink(20, d, true, 1.0, AG_GRADCHECK_DIFFERENCES).failures, 0, "%g", d);
    }
}

Test(checker_power, wrong_gradients_at_any_distance_from_a_kink)
{
    static const double factors[] = { 0.0, -1.0, 1.0 + 1e-6 };
    for (int i = 0; i < DISTANCES; i++)
        for (int f = 0; f < 3; f++)
            for (int m = AG_GRADCHECK_BOTH; m <= AG_GRADCHECK_DIFFERENCES; m++) {
                ag_gradcheck_report sum =
                    check_kink(4, distances[i], false, factors[f], (ag_gradcheck_method)m);
                cr_expect(sum.failures > sum.entries / 3, "%g, times %.7g: %lld", distances[i],
                          factors[f], (long long)sum.failures);
            }
}

/* At a kink everything between the two derivatives is a subgradient, and nothing else. */
static ag_var relu_times(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_relu(ag_test_spoil(x[0], *(const double *)user));
}

static ag_var abs_times(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_shift(ag_abs(ag_shift(ag_test_spoil(x[0], *(const double *)user), -0.5)), 1.0);
}

Test(checker_power, subgradients_at_a_kink)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_gradcheck_report report;
    ag_var zero = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(1)));
    ag_var half = ag_require_gradient(ag_full(ctx, AG_SHAPE(1), 0.5));
    double right = 1.0;
    cr_expect(ag_gradcheck(ctx, relu_times, &right, &zero, 1, NULL, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_KINK);
    cr_expect_eq(report.kinks, 1);
    cr_expect(ag_gradcheck(ctx, abs_times, &right, &half, 1, NULL, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_KINK);
    ag_context_free(ctx);
}

/* ---- Verdicts about the function itself ---- */

static ag_var counting(ag_context *ctx, const ag_var *x, int n, void *user)
{
    int *calls = user;
    (void)ctx, (void)n;
    return ag_scale(ag_tanh(x[0]), ++*calls % 2 ? 1.0 : 1.0 + 1e-15);
}

static ag_var drifting(ag_context *ctx, const ag_var *x, int n, void *user)
{
    int *calls = user;
    (void)ctx, (void)n;
    return ag_scale(ag_tanh(x[0]), ++*calls < 12 ? 1.0 : 2.0);
}

static ag_var writing(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    ag_var y = ag_tanh(x[0]);
    ag_tensor_put(ag_value_mutable(x[0]), 1, 0.25);
    return y;
}

static ag_var detached(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_tanh(ag_detach(x[0]));
}

static ag_var dividing(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_reciprocal(ag_shift(x[0], -0.5));
}

static void expect_verdict(ag_function f, ag_verdict verdict, const char *evidence)
{
    int calls = 0;
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_require_gradient(ag_full(ctx, AG_SHAPE(3), 0.5));
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck(ctx, f, &calls, &x, 1, NULL, &report));
    cr_expect_eq(report.verdict, verdict, "%s: %s", ag_verdict_name(report.verdict),
                 report.message);
    cr_expect(strstr(report.message, evidence), "'%s' should say '%s'", report.message, evidence);
    ag_context_free(ctx);
}

Test(checker_power, functions_that_cannot_be_judged)
{
    expect_verdict(counting, AG_VERDICT_NOT_DETERMINISTIC, "entry 0 of the result is");
    expect_verdict(drifting, AG_VERDICT_NOT_DETERMINISTIC, "entry 0 of the result is");
    expect_verdict(writing, AG_VERDICT_CHANGES_INPUT, "entry 1 was 0.5 and is 0.25");
    expect_verdict(detached, AG_VERDICT_UNCONNECTED, "but the result moves by");
    expect_verdict(dividing, AG_VERDICT_NOT_FINITE, "entry 0 is inf");
}

/* ---- Directions ---- */

static ag_gradcheck_report check_directions(double factor)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x[4];
    ag_gradcheck_report report;
    ag_test_attention attention = { .factor = factor, .scale = 1.0 };
    ag_test_draw(ctx, 5, 1.0, x);
    ag_set_name(x[1], "w_q");
    ag_gradcheck(ctx, ag_test_attend, &attention, x, 4, &(ag_gradcheck_options){ .directions = 4 },
                 &report);
    ag_context_free(ctx);
    return report;
}

Test(checker_power, directions)
{
    ag_gradcheck_report report = check_directions(1.0);
    cr_expect(report.passed && report.by_directions && report.entries == 4, "%s", report.message);
    report = check_directions(1.0 + 1e-6);
    cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
    cr_expect(report.input == 1 && !strcmp(report.name, "w_q"), "input %d", report.input);
    cr_expect_float_eq(report.ratio, 1.0 + 1e-6, 1e-8);
}

/* ---- What a wrong gradient looks like ---- */

static void transpose_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_transpose(dy, 0, 1);
}

static void shift_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    dx[0] = ag_shift(dy, 0.1);
}

static void first_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    double one[9] = { 1.0 };
    dx[0] = ag_add(dy, ag_constant(ag_node_context(node), AG_SHAPE(3, 3), one));
}

static const ag_op faults[] = {
    { .name = "transposed", .forward = ag_test_same_forward, .vjp = transpose_vjp },
    { .name = "missing or wrong term", .forward = ag_test_same_forward, .vjp = shift_vjp },
    { .name = "1 of 9 entries", .forward = ag_test_same_forward, .vjp = first_vjp },
};

static ag_var with_fault(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx;
    return ag_tanh(ag_apply(user, x, n, NULL));
}

static ag_var with_factor(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_tanh(ag_test_spoil(x[0], *(const double *)user));
}

static void expect_suspect(ag_function f, void *user, const char *suspect)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(2, "suspect", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 3)));
    ag_gradcheck_report report;
    ag_gradcheck(ctx, f, user, &x, 1, NULL, &report);
    cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
    cr_expect_str_eq(report.suspect, suspect);
    ag_context_free(ctx);
}

Test(checker_power, suspects)
{
    double factor = -1.0;
    expect_suspect(with_factor, &factor, "sign");
    factor = 0.0;
    expect_suspect(with_factor, &factor, "zero");
    factor = 2.5;
    expect_suspect(with_factor, &factor, "factor 2.5");
    for (int i = 0; i < 3; i++)
        expect_suspect(with_fault, (void *)&faults[i], faults[i].name);
}

/* ---- Nodes by themselves ---- */

static int faults_of_attention(double factor, ag_node_fault *fault)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x[4];
    ag_test_attention attention = { .factor = factor, .scale = 1.0 };
    ag_test_draw(ctx, 5, 1.0, x);
    ag_set_name(x[1], "w_q");
    int found = ag_gradcheck_nodes(ctx, ag_test_attend, &attention, x, 4, NULL, fault, 1);
    cr_expect_eq(ag_tape_length(ctx), 4);
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
    return found;
}

Test(checker_power, the_node_that_is_wrong)
{
    ag_node_fault fault;
    char text[512] = "";
    cr_expect_eq(faults_of_attention(1.0, &fault), 0);
    cr_expect_eq(faults_of_attention(-1.0, &fault), 1);
    cr_expect(fault.node == 0 && !strcmp(fault.op, "spoil"), "%lld %s", (long long)fault.node,
              fault.op);
    cr_expect_str_eq(fault.report.suspect, "sign");
    FILE *file = tmpfile();
    ag_node_fault_print(&fault, file);
    rewind(file);
    cr_expect(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    cr_expect(strstr(text, "node 0 spoil, input 0 w_q [") == text, "%s", text);
    cr_expect(strstr(text, "ratio -1 by complex step; looks like: sign\n"), "%s", text);
}

/* A failure is followed to the operation, in entries and in directions. */
Test(checker_power, a_failure_names_the_operation)
{
    for (int directions = 0; directions <= 2; directions += 2) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_random random = ag_random_stream(2, "suspect", 0);
        ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 3)));
        ag_gradcheck_report report;
        ag_gradcheck(ctx, with_fault, (void *)&faults[0], &x, 1,
                     &(ag_gradcheck_options){ .directions = directions }, &report);
        cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
        cr_expect(report.node == 0 && !strcmp(report.op, "transposed"), "%s", report.op);
        cr_expect_str_eq(report.suspect, "transposed");
        ag_context_free(ctx);
    }
}

/* The operands of the node are transposed, and one of them is used twice. */
static ag_var twisted(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    ag_var t = ag_transpose(x[0], 0, 1);
    return ag_add(ag_matmul(t, x[0]), ag_mul(t, t));
}

Test(checker_power, nodes_with_views_and_with_one_operand_twice)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(3, "twisted", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 3)));
    cr_expect_eq(ag_gradcheck_nodes(ctx, twisted, NULL, &x, 1, NULL, NULL, 0), 0);
    ag_context_free(ctx);
}

Test(checker_power, nodes_of_bad_input)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_require_gradient(ag_full(ctx, AG_SHAPE(3), 0.5));
    cr_expect_eq(ag_gradcheck_nodes(NULL, twisted, NULL, &x, 1, NULL, NULL, 0), -1);
    cr_expect_eq(ag_gradcheck_nodes(ctx, NULL, NULL, &x, 1, NULL, NULL, 0), -1);
    cr_expect_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    ag_error_clear(ctx);
    cr_expect_eq(ag_gradcheck_nodes(ctx, twisted, NULL, &x, 1, NULL, NULL, 1), -1);
    ag_node_fault_print(NULL, stdout);
    ag_context_free(ctx);
}

/* ---- Second order ---- */

/* x^2 / 2 in two variables, but the recorded rule gives x_0 + x_1 / 2 for the first: each gradient
 * has a derivative, but together they are no one's. */
static void half_square_forward(ag_node *node)
{
    ag_node_set_view(node, ag_value(ag_scale(ag_square(ag_node_input(node, 0)), 0.5)));
}

static void twisted_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    ag_var x = ag_node_input(node, 0);
    ag_var other = ag_mul(ag_detach(x), ag_scale(ag_cumsum(ag_sub(x, ag_detach(x)), 0), 0.5));
    dx[0] = ag_mul(dy, ag_add(x, other));
}

static const ag_op no_gradient_field = { .name = "no_gradient_field",
                                         .forward = half_square_forward,
                                         .vjp = twisted_vjp };

/* First derivatives are right where the rule is evaluated, so only the second order can see it. */
Test(checker_power, second_derivatives_that_are_not_symmetric)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(7, "second", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4)));
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, with_fault, (void *)&no_gradient_field, &x, 1, NULL, &report));
    cr_expect(
        !ag_gradcheck_second(ctx, with_fault, (void *)&no_gradient_field, &x, 1, NULL, &report));
    cr_expect_eq(report.verdict, AG_VERDICT_FAIL);
    cr_expect(report.asymmetry > 1e3, "%g", report.asymmetry);
    cr_expect(ag_gradcheck_second(
        ctx, twisted, NULL,
        (ag_var[]){ ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 3))) }, 1, NULL,
        &report));
    cr_expect(report.asymmetry < 1e-3, "%g", report.asymmetry);
    ag_context_free(ctx);
}
