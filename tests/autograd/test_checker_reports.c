/* What a gradient check says: that the report is about what fails, names the range and the kind of
 * the fault, and tells where nothing was compared; as a sentence and as JSON. */
#include "../json.h"
#include "spoilt.h"

#include <attograd.h>
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static ag_context *new_context(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static ag_var numbers(ag_context *ctx, uint64_t seed, int64_t count)
{
    ag_random random = ag_random_stream(seed, "reports", 0);
    return ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(count)));
}

typedef void print_function(const ag_gradcheck_report *report, FILE *file);

static void printed(print_function *print, const ag_gradcheck_report *report, char *text,
                    size_t size)
{
    FILE *file = tmpfile();
    print(report, file);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

static void expect_words(const ag_gradcheck_report *report, const char *words)
{
    char text[2048];
    printed(ag_gradcheck_print, report, text, sizeof text);
    cr_expect(strstr(text, words), "'%s' should say '%s'", text, words);
    cr_expect(!strstr(text, "ratio nan") && !strstr(text, "ratio -nan"), "%s", text);
}

/* ---- Where nothing moves ---- */

/* relu(x^2 - 100), which is 0 for |x| <= 10, with a rule that is off by a factor. */
static ag_var dead_region(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_relu(ag_shift(ag_square(ag_test_spoil(x[0], *(double *)user)), -100.0));
}

static ag_var empty(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_slice(ag_square(x[0]), 0, 0, 0, 1);
}

static ag_var squares(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_square(x[0]);
}

Test(checker_reports, a_dead_region)
{
    for (int method = AG_GRADCHECK_BOTH; method <= AG_GRADCHECK_COMPLEX; method++) {
        ag_context *ctx = new_context();
        ag_var x = numbers(ctx, 1, 9);
        double factor = -1.0;
        ag_gradcheck_options options = { .method = (ag_gradcheck_method)method };
        ag_gradcheck_report report;
        cr_expect(ag_gradcheck(ctx, dead_region, &factor, &x, 1, &options, &report));
        cr_expect_eq(report.insensitive, 9);
        expect_words(&report, "9 of 9 entries move nothing, so only zeros were compared");
        expect_words(&report, "ratio -");

        for (int64_t k = 0; k < 6; k++) /* alive: 12^2 > 100 */
            ag_tensor_put(ag_value_mutable(x), k, 12.0 + (double)k);
        cr_expect(!ag_gradcheck(ctx, dead_region, &factor, &x, 1, &options, &report));
        cr_expect(report.insensitive == 3 && report.failures == 6);
        expect_words(&report, "FAIL: 9 entries, 6 wrong; 3 of 9 entries move nothing; worst: ");
        ag_context_free(ctx);
    }
}

Test(checker_reports, nothing_to_compare)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 1, 3), none = numbers(ctx, 1, 0);
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, empty, NULL, &x, 1, NULL, &report), "%s", report.message);
    cr_expect(report.entries == 3 && report.insensitive == 3);
    expect_words(&report, "3 of 3 entries move nothing, so only zeros were compared");
    cr_expect(ag_gradcheck(ctx, squares, NULL, &none, 1, NULL, &report), "%s", report.message);
    cr_expect(report.entries == 0 && report.insensitive == 0);
    expect_words(&report, "PASS: 0 entries; nothing was compared\n");
    cr_expect(
        ag_gradcheck(ctx, empty, NULL, &x, 1, &(ag_gradcheck_options){ .directions = 2 }, &report));
    expect_words(&report, "2 of 2 directions move nothing, so only zeros were compared");
    ag_context_free(ctx);
}

/* At the bottom of 1 + x^2 the derivative is 0, by complex steps without a term, but the result
 * moves. */
static ag_var bottom(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_shift(ag_square(x[0]), 1.0);
}

static ag_var kink(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_relu(x[0]);
}

Test(checker_reports, a_derivative_of_zero_is_not_insensitive)
{
    ag_context *ctx = new_context();
    ag_var x = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(3)));
    ag_gradcheck_report report;
    cr_expect(ag_gradcheck(ctx, bottom, NULL, &x, 1, NULL, &report));
    cr_expect_eq(report.insensitive, 0);
    cr_expect_eq(report.complex_step, 0.0);
    cr_expect(ag_gradcheck(ctx, kink, NULL, &x, 1, NULL, &report)); /* from one side it does */
    cr_expect(report.kinks == 3 && report.insensitive == 0);
    ag_context_free(ctx);
}

/* ---- Directions ---- */

Test(checker_reports, what_was_located_stays)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        ag_context *ctx = new_context();
        ag_var x[4];
        ag_gradcheck_report report;
        ag_test_attention attention = { .factor = -1.0, .scale = 1.0 };
        ag_gradcheck_options options = { .seed = seed, .directions = 4 };
        ag_test_draw(ctx, seed, 1.0, x);
        cr_expect(!ag_gradcheck(ctx, ag_test_attend, &attention, x, 4, &options, &report));
        cr_expect(report.failures == 4 && report.input == 1, "seed %d: %lld to %lld", (int)seed,
                  (long long)report.from, (long long)report.to);
        cr_expect_eq(report.to - report.from, 1);
        cr_expect_eq(report.from, 64 + 8 * report.index[0] + report.index[1]);
        ag_context_free(ctx);
    }
}

/* dx = dy + what the options hold for each entry. */
typedef struct addition {
    int64_t from, to;
    double amount;
} addition;

static void added_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    double amounts[64] = { 0.0 };
    const addition *a = ag_node_options(node);
    for (int64_t k = a->from; k < a->to; k++)
        amounts[k] = a->amount;
    dx[0] = ag_add(dy, ag_constant(ag_node_context(node), AG_SHAPE(64), amounts));
}

static const ag_op added = { .name = "added",
                             .forward = ag_test_same_forward,
                             .vjp = added_vjp,
                             .options_size = sizeof(addition),
                             .complex_form = true };

static ag_var with_addition(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx;
    return ag_apply(&added, x, n, user);
}

static ag_gradcheck_report check_addition(addition a, ag_gradcheck_options options)
{
    ag_context *ctx = new_context();
    ag_var x = ag_set_name(numbers(ctx, 3, 64), "x");
    ag_gradcheck_report report;
    cr_expect_not(ag_gradcheck(ctx, with_addition, &a, &x, 1, &options, &report));
    ag_context_free(ctx);
    return report;
}

Test(checker_reports, nan_is_located)
{
    ag_gradcheck_report report =
        check_addition((addition){ 37, 38, NAN }, (ag_gradcheck_options){ .directions = 3 });
    cr_expect(report.input == 0 && report.index[0] == 37 && isnan(report.analytic), "%lld to %lld",
              (long long)report.from, (long long)report.to);
    cr_expect_eq(report.worst, INFINITY);
    expect_words(&report, "input 0 x [37] got");
}

/* Entries 16 to 31 are each within the tolerance, and only where their sum cancels, but not what is
 * added to them, are they wrong together. */
Test(checker_reports, a_range_that_fails_together)
{
    int ranges = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        ag_context *ctx = new_context();
        ag_var x = ag_set_name(numbers(ctx, 3, 64), "x");
        addition a = { 16, 32, 0.04 };
        ag_gradcheck_options options = { .seed = seed, .directions = 1, .tolerance = 0.1 };
        ag_gradcheck_report report;
        bool passed = ag_gradcheck(ctx, with_addition, &a, &x, 1, &options, &report);
        ag_context_free(ctx);
        if (passed || report.to - report.from == 64)
            continue;
        cr_expect(report.from % 2 == 0 && report.from < 32 && report.to > 16);
        cr_expect(report.to - report.from > 1 && report.to - report.from < 64);
        cr_expect_eq(report.input, -1);
        char words[64];
        snprintf(words, sizeof words, "worst: entries %d to %d together got", (int)report.from,
                 (int)report.to - 1);
        expect_words(&report, words);
        ranges++;
    }
    cr_expect(ranges > 0, "no seed shows one");
}

/* ---- The worst entry ---- */

static void opposite_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    dx[0] = ag_mul(dy, ag_constant(ag_node_context(node), AG_SHAPE(2), (double[]){ 1.0, -1.0 }));
}

/* |x_0| twice, with two subgradients that are right, but not in their sum where that cancels in L;
 * and a wrong rule by x_1, though less far beyond its bound. */
static ag_var kinks_and_factor(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)n, (void)user;
    ag_var both = ag_abs(ag_add(x[0], ag_zeros(ctx, AG_SHAPE(2))));
    return ag_concat((ag_var[]){ both, ag_test_spoil(x[1], 1.15) }, 2, 0);
}

Test(checker_reports, what_fails_is_worse_than_what_is_inconclusive)
{
    int shown = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        ag_context *ctx = new_context();
        ag_var x[2] = { ag_require_gradient(ag_zeros(ctx, AG_SHAPE(1))), numbers(ctx, 5, 3) };
        ag_gradcheck_options options = { .seed = seed, .tolerance = 0.1 };
        ag_gradcheck_report report, first;
        cr_assert(ag_try_rule(ctx, ag_op_find("abs"), opposite_vjp));
        ag_gradcheck_entry(ctx, kinks_and_factor, NULL, x, 2, 0, &options, &first);
        cr_expect(!ag_gradcheck(ctx, kinks_and_factor, NULL, x, 2, &options, &report));
        cr_expect(report.failures == 3 && report.input == 1, "input %d", report.input);
        cr_expect_str_eq(report.suspect, "factor 1.15");
        shown += first.verdict == AG_VERDICT_INCONCLUSIVE && first.worst > report.worst;
        ag_context_free(ctx);
    }
    cr_expect(shown > 0, "no seed shows it");
}

/* ---- Suspects ---- */

static ag_var with_factor(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    return ag_tanh(ag_test_spoil(x[0], *(const double *)user));
}

static void expect_suspect(double factor, double tolerance, const char *suspect)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 7, 12);
    ag_gradcheck_report report;
    ag_gradcheck_options options = { .tolerance = tolerance };
    cr_expect(!ag_gradcheck(ctx, with_factor, &factor, &x, 1, &options, &report));
    cr_expect_str_eq(report.suspect, suspect, "a factor of %.12g: '%s'", factor, report.suspect);
    ag_context_free(ctx);
}

Test(checker_reports, a_factor_near_1)
{
    expect_suspect(1.0 + 2e-10, 0.0, "factor 1 + 2e-10");
    expect_suspect(1.0 - 3e-7, 0.0, "factor 1 - 3e-07");
    expect_suspect(1.01, 0.0, "factor 1.01");
}

/* Within wide bounds several hypotheses fit. */
Test(checker_reports, the_nearest_suspect)
{
    expect_suspect(-1.0, 1.0, "sign");
    expect_suspect(0.0, 0.9, "zero");
    expect_suspect(0.5, 0.4, "factor 0.5");
    expect_suspect(-2.0, 1.4, "factor -2");
}

Test(checker_reports, one_entry_within_wide_bounds)
{
    ag_gradcheck_report report =
        check_addition((addition){ 7, 8, 2.0 }, (ag_gradcheck_options){ .tolerance = 0.5 });
    cr_expect_eq(report.failures, 1);
    cr_expect_str_eq(report.suspect, "1 of 64 entries");
}

/* ---- Nodes ---- */

static ag_var masked(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)n;
    ag_var mask = ag_constant(ctx, AG_SHAPE(4), (double[]){ 0, 0, 1, 0 });
    ag_var scores = ag_masked_fill(x[0], ag_greater(mask, ag_zeros(ctx, AG_SHAPE(4))), -INFINITY);
    return ag_softmax(ag_test_spoil(scores, *(const double *)user), -1);
}

Test(checker_reports, a_node_that_cannot_be_judged_is_no_fault)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 2, 4);
    double factor = 1.0;
    cr_expect_eq(ag_gradcheck_nodes(ctx, masked, &factor, &x, 1, NULL, NULL, 0), 0);
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_gradcheck_report report;
    factor = -1.0; /* an operation whose operands are infinite, so this is no fault of a node .. */
    cr_expect(!ag_gradcheck(ctx, masked, &factor, &x, 1, NULL, &report));
    cr_expect(report.verdict == AG_VERDICT_FAIL && report.op[0] == '\0', "%s", report.op);
    cr_expect_eq(report.insensitive, 1); /* .. but one entry is masked */
    ag_context_free(ctx);
}

/* ---- Seed and calls ---- */

static ag_var counting(ag_context *ctx, const ag_var *x, int n, void *user)
{
    (void)ctx, (void)n;
    ++*(int64_t *)user;
    return ag_tanh(x[0]);
}

static ag_var counting_detached(ag_context *ctx, const ag_var *x, int n, void *user)
{
    return ag_detach(counting(ctx, x, n, user));
}

Test(checker_reports, seed_and_calls)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 2, 5);
    ag_gradcheck_options options = { .seed = UINT64_MAX };
    ag_gradcheck_report report;
    int64_t calls = 0;
    cr_expect(ag_gradcheck(ctx, counting, &calls, &x, 1, &options, &report));
    cr_expect(report.seed == UINT64_MAX && report.calls == calls, "%d, %d", (int)report.calls,
              (int)calls);
    calls = 0;
    cr_expect(ag_gradcheck_second(ctx, counting, &calls, &x, 1, &options, &report));
    cr_expect(report.seed == UINT64_MAX && report.calls == calls, "%d, %d", (int)report.calls,
              (int)calls);
    calls = 0;
    cr_expect_not(ag_gradcheck_second(ctx, counting_detached, &calls, &x, 1, &options, &report));
    cr_expect_eq(report.calls, calls, "%d, %d", (int)report.calls, (int)calls);
    ag_context_free(ctx);
}

/* ---- Errors ---- */

Test(checker_reports, within_no_grad_it_is_unconnected)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 2, 5);
    ag_gradcheck_report report;
    ag_no_grad_begin(ctx);
    cr_expect(!ag_gradcheck(ctx, squares, NULL, &x, 1, NULL, &report));
    cr_expect(report.verdict == AG_VERDICT_UNCONNECTED && ag_status(ctx) == AG_ERR_STATE);
    int64_t calls = 0;
    cr_expect(!ag_gradcheck(ctx, counting, &calls, &x, 1, NULL, &report));
    cr_expect(report.verdict == AG_VERDICT_ERROR && calls == 0 && report.calls == 0);
    ag_context_free(ctx);
}

static void expect_refused(ag_gradcheck_options options)
{
    ag_context *ctx = new_context();
    ag_var x = numbers(ctx, 2, 5);
    ag_gradcheck_report report;
    cr_expect(!ag_gradcheck(ctx, squares, NULL, &x, 1, &options, &report));
    cr_expect(report.verdict == AG_VERDICT_ERROR && ag_status(ctx) == AG_ERR_ARGUMENT);
    ag_context_free(ctx);
}

Test(checker_reports, options_out_of_range)
{
    expect_refused((ag_gradcheck_options){ .tolerance = -1e-9 });
    expect_refused((ag_gradcheck_options){ .tolerance = NAN });
    expect_refused((ag_gradcheck_options){ .resolution = -1.0 });
    expect_refused((ag_gradcheck_options){ .directions = -1 });
    expect_refused((ag_gradcheck_options){ .complex_h = 2.0 });
    expect_refused((ag_gradcheck_options){ .method = (ag_gradcheck_method)3 });
}

/* ---- JSON ---- */

static void expect_json(const ag_gradcheck_report *report, const char *part)
{
    char text[4096];
    printed(ag_gradcheck_print_json, report, text, sizeof text);
    const char *end = *text == '{' ? ag_test_json_end(text) : NULL, *line = strchr(text, '\n');
    cr_expect(end && !*end && line && line + 1 == end, "no JSON in a line: %s", text);
    cr_expect(strstr(text, part), "'%s' should hold '%s'", text, part);
}

static bool is_json(const char *text)
{
    const char *end = ag_test_json_end(text);
    return end && !*end;
}

Test(checker_reports, the_reader_of_json_is_strict)
{
    cr_expect(is_json("{\"a\":[1,-0.5e-07,null],\"b\":\"\\u0041\\\"\",\"c\":{},\"d\":[]}"));
    const char *const wrong[] = { "{\"a\":nan}", "{\"a\":-inf}", "{\"a\":01}",   "{\"a\":1,}",
                                  "{\"a\" 1}",   "[1 2]",        "\"\\x\"",      "\"\n\"",
                                  "{\"a\":1.}",  "{\"a\":+1}",   "{\"a\":1,5}x", "{a:1}" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_expect(!is_json(wrong[i]), "%s", wrong[i]);
}

Test(checker_reports, json)
{
    ag_gradcheck_report report = check_addition(
        (addition){ 37, 38, 0.5 },
        (ag_gradcheck_options){ .seed = UINT64_MAX, .method = AG_GRADCHECK_DIFFERENCES });
    expect_json(&report, "{\"verdict\":\"fail\",\"passed\":false,\"by_directions\":false,"
                         "\"entries\":64,\"failures\":1,\"inconclusive\":0,\"kinks\":0,"
                         "\"contradictions\":0,\"insensitive\":0,\"floor\":");
    expect_json(&report, ",\"input\":0,\"name\":\"x\",\"index\":[37],\"from\":37,\"to\":38,");
    expect_json(&report, ",\"method\":\"differences\",\"step\":0.");
    expect_json(&report, ",\"complex_step\":null,\"recorded\":false,\"node\":0,\"op\":\"added\","
                         "\"suspect\":\"1 of 64 entries\"");
    expect_json(&report, ",\"seed\":18446744073709551615,\"calls\":");
    char text[64];
    snprintf(text, sizeof text, ",\"got\":%.17g,", report.analytic);
    expect_json(&report, text);
}

Test(checker_reports, json_of_what_is_no_number)
{
    ag_gradcheck_report report =
        check_addition((addition){ 37, 38, NAN }, (ag_gradcheck_options){ 0 });
    expect_json(&report, ",\"worst\":null,\"input\":0,");
    expect_json(&report, ",\"got\":null,\"want\":");
    ag_context *ctx = new_context();
    ag_var none = numbers(ctx, 1, 0);
    ag_gradcheck(ctx, squares, NULL, &none, 1, NULL, &report);
    expect_json(&report, ",\"worst\":null,\"input\":null,\"name\":\"\",\"index\":[],\"from\":null,"
                         "\"to\":null,\"got\":null,\"want\":null,\"bound\":null,\"ratio\":null,"
                         "\"method\":\"\",\"step\":null,");
    cr_expect(!ag_gradcheck(ctx, NULL, NULL, &none, 1, NULL, &report));
    expect_json(&report, ",\"message\":\"gradcheck: a function and inputs are needed\"");
    ag_gradcheck_print_json(NULL, stdout);
    ag_gradcheck_print_json(&report, NULL);
    ag_context_free(ctx);
}

static void expect_name(const char *name, const char *written)
{
    char part[256];
    ag_gradcheck_report report = { .entries = 1 };
    snprintf(report.name, sizeof report.name, "%s", name);
    snprintf(part, sizeof part, ",\"name\":\"%s\",\"index\"", written);
    expect_json(&report, part);
}

Test(checker_reports, json_of_names)
{
    expect_name("a \"b\" \\ \n\x01", "a \\\"b\\\" \\\\ \\u000a\\u0001");
    expect_name("W\u2091 \u00b5\U0001F600", "W\u2091 \u00b5\U0001F600");
    expect_name("cut \xe2\x82", "cut \\ufffd\\ufffd");
    expect_name("\xc0\xaf\xed\xa0\x80\xff", "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd");
}
