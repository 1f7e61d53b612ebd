/* Layer norm and RMS norm: numbers of another program, rows far from 0, the gradients of gain
 * and bias, sizes, views, threads, and what they refuse. */
#include "../../tensor/internal.h"
#include "../reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* A norm of x with whatever of gain and bias is given. */
static ag_var norm(bool rms, ag_var x, ag_var gain, ag_var bias, double epsilon)
{
    return rms ? ag_rms_norm(x, gain, epsilon) : ag_layer_norm(x, gain, bias, epsilon);
}

/* ---- Against numbers computed by another program ---- */

static void check_reference(const char *name, bool rms, bool gain, bool bias, double epsilon)
{
    ag_context *ctx = ag_reference_context();
    ag_var x = ag_reference_input(ctx, "norm_x");
    ag_var g = gain ? ag_reference_input(ctx, "norm_gain") : AG_NONE;
    ag_var b = bias ? ag_reference_input(ctx, "norm_bias") : AG_NONE;
    ag_reference_gradient gradients[3] = { { "x", x, ag_reference_read(ctx, "norm_%s_dx", name) } };
    int n = 1;
    if (gain)
        gradients[n++] =
            (ag_reference_gradient){ "gain", g, ag_reference_read(ctx, "norm_%s_dgain", name) };
    if (bias)
        gradients[n++] =
            (ag_reference_gradient){ "bias", b, ag_reference_read(ctx, "norm_%s_dbias", name) };
    ag_var y = norm(rms, x, g, b, epsilon);
    ag_reference_expect(name, ag_value(y), ag_reference_read(ctx, "norm_%s_y", name));
    ag_var cotangent = ag_reference_constant(ctx, "norm_cotangent");
    ag_reference_expect_gradients(name, y, cotangent, gradients, n);
    ag_reference_finish(ctx);
}

Test(norms, against_reference)
{
    check_reference("layer", false, true, true, 0);
    check_reference("layer_plain", false, false, false, 0);
    check_reference("layer_epsilon", false, true, true, 0.3);
    check_reference("rms", true, true, false, 0);
    check_reference("rms_plain", true, false, false, 0);
}

/* ---- Rows far from 0 ---- */

/* In f32, the norm of a row around mean must be that of the very numbers of the row: what the
 * mean loses by rounding must not be lost to the result. */
static void check_mean(int64_t n, double mean)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(3, "row", (uint64_t)n);
    ag_var x = ag_shift(ag_normal(ctx, &random, AG_SHAPE(3, n)), mean);
    ag_var y = ag_layer_norm(x, AG_NONE, AG_NONE, 0);
    for (int64_t i = 0; i < 3; i++) {
        double sum = 0, squares = 0;
        for (int64_t j = 0; j < n; j++)
            sum += ag_tensor_at(ag_value(x), i * n + j);
        for (int64_t j = 0; j < n; j++)
            squares += pow(ag_tensor_at(ag_value(x), i * n + j) - sum / (double)n, 2);
        double r = 1 / sqrt(squares / (double)n + 1e-5);
        for (int64_t j = 0; j < n; j++) {
            double want = (ag_tensor_at(ag_value(x), i * n + j) - sum / (double)n) * r;
            double got = ag_tensor_at(ag_value(y), i * n + j);
            cr_assert_float_eq(got, want, 1e-6 * (1 + fabs(want)), "n %d, mean %g: %.9g, not %.9g",
                               (int)n, mean, got, want);
        }
    }
    ag_context_free(ctx);
}

Test(norms, rows_of_any_mean)
{
    static const int64_t sizes[] = { 2, 3, 5, 8, 16, 17, 33, 48, 64, 100, 384, 1000 };
    for (int i = 0; i < 12; i++)
        for (double mean = 1; mean < 2e6; mean *= 10)
            check_mean(sizes[i], mean);
}

/* A row of equal numbers has no spread: h is 0, not a number divided by 0. */
Test(norms, a_row_of_equal_numbers)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var bias = ag_constant(ctx, AG_SHAPE(7), (double[]){ 1, 2, 3, 4, 5, 6, 7 });
    ag_var x = ag_require_gradient(ag_full(ctx, AG_SHAPE(2, 7), 0.1));
    ag_var y = ag_layer_norm(x, AG_NONE, bias, 1e-30);
    for (int64_t k = 0; k < 14; k++)
        cr_expect_float_eq(ag_tensor_at(ag_value(y), k), (double)(k % 7 + 1), 1e-6);
    cr_expect(ag_backward_from(y, y));
    cr_expect(ag_tensor_all_finite(ag_gradient(x)));
    ag_context_free(ctx);
}

/* ---- Gain and bias: fused against composed, for many rows ---- */

static void compare(ag_var leaf, ag_var composed, double allowed, double size, const char *what)
{
    const ag_tensor *fused = ag_gradient(leaf), *rule = ag_value(composed);
    cr_assert(fused && rule, "%s", what);
    for (int64_t k = 0; k < ag_tensor_count(rule); k++) {
        double a = ag_tensor_at(fused, k), b = ag_tensor_at(rule, k);
        cr_assert(fabs(a - b) <= allowed * (fabs(b) + size), "%s of %s, entry %d: %.17g and %.17g",
                  what, ag_name(leaf), (int)k, a, b);
    }
}

/* The sums are over rows, so their terms, of about 1, add up like a walk of that many steps. */
static void check_sums(ag_dtype dtype, bool rms, int64_t rows, int64_t n)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_random random = ag_random_stream(4, "sums", (uint64_t)(1000 * rows + n));
    ag_var inputs[3] = { ag_normal(ctx, &random, AG_SHAPE(rows, n)),
                         ag_normal(ctx, &random, AG_SHAPE(n)),
                         ag_normal(ctx, &random, AG_SHAPE(n)) };
    static const char *const names[] = { "x", "gain", "bias" };
    const int count = rms ? 2 : 3;
    for (int i = 0; i < count; i++)
        ag_set_name(ag_require_gradient(inputs[i]), names[i]);
    ag_var y = norm(rms, inputs[0], inputs[1], inputs[2], 0), gradients[3];
    ag_var dy = ag_normal(ctx, &random, AG_SHAPE(rows, n));
    ag_grad_from(y, dy, inputs, count, gradients, AG_CREATE_GRAPH);
    ag_backward_from(y, dy);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    double allowed = dtype == AG_F64 ? 1e-13 : 2e-6;
    compare(inputs[1], gradients[1], allowed, 4 * sqrt((double)rows + 1), rms ? "rms" : "layer");
    if (!rms)
        compare(inputs[2], gradients[2], allowed, 4 * sqrt((double)rows + 1), "layer");
    ag_context_free(ctx);
}

Test(norms, gradients_of_gain_and_bias)
{
    static const int64_t sizes[] = { 1, 3, 16, 33, 384 };
    static const int64_t rows[] = { 0, 1, 3, 4, 5, 127, 128, 129, 255, 300, 1025 };
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 11; k++)
            for (int kind = 0; kind < 4; kind++)
                check_sums(kind & 1 ? AG_F32 : AG_F64, kind & 2, rows[k], sizes[i]);
}

/* Each gradient alone is what it is together with the others. */
Test(norms, only_what_is_asked_for)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(5, "alone", 0);
    ag_tensor values[3];
    const ag_shape shapes[] = { AG_SHAPE(300, 16), AG_SHAPE(16), AG_SHAPE(16) };
    for (int i = 0; i < 3; i++) {
        ag_tensor *made = ag_tensor_new(ctx, AG_KEEP, AG_F32, shapes[i]);
        ag_random_fill_normal(ctx, &random, made, 0, 1);
        values[i] = *made;
    }
    float want[3][300 * 16];
    for (int asked = 7; asked > 0; asked--) {
        ag_var inputs[3];
        for (int i = 0; i < 3; i++) {
            inputs[i] = ag_from_tensor(ctx, &values[i]);
            if (asked >> i & 1)
                ag_require_gradient(inputs[i]);
        }
        ag_var y = ag_layer_norm(inputs[0], inputs[1], inputs[2], 0);
        cr_assert(ag_backward_from(y, y), "%s", ag_error_message(ctx));
        for (int i = 0; i < 3; i++) {
            const ag_tensor *g = ag_gradient(inputs[i]);
            cr_assert_eq(g != NULL, asked >> i & 1);
            if (asked == 7)
                memcpy(want[i], g->data, ag_tensor_bytes(g));
            cr_expect(!g || !memcmp(want[i], g->data, ag_tensor_bytes(g)), "%d of %d", i, asked);
        }
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* ---- Sizes, views, threads ---- */

Test(norms, empty_and_single)
{
    ag_context *ctx = ag_context_new(NULL);
    const ag_shape shapes[] = { AG_SHAPE(0),    AG_SHAPE(1),       AG_SHAPE(5),      AG_SHAPE(0, 4),
                                AG_SHAPE(3, 0), AG_SHAPE(2, 0, 3), AG_SHAPE(2, 3, 1) };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int rms = 0; rms < 2; rms++) {
            int64_t n = shapes[i].dims[shapes[i].rank - 1];
            ag_var x = ag_require_gradient(ag_full(ctx, shapes[i], 3));
            ag_var gain = ag_require_gradient(ag_full(ctx, AG_SHAPE(n), 2));
            ag_var bias = ag_require_gradient(ag_full(ctx, AG_SHAPE(n), 7));
            ag_var y = norm(rms, x, gain, bias, 0);
            cr_assert(ag_is_valid(y), "%s", ag_error_message(ctx));
            cr_expect(ag_shape_equal(ag_shape_of(y), shapes[i]));
            cr_expect(ag_backward_from(y, y), "%s", ag_error_message(ctx));
            double want = rms ? 2 : 7;
            for (int64_t k = 0; k < ag_tensor_count(ag_value(y)); k++)
                cr_expect_float_eq(ag_tensor_at(ag_value(y), k), want, 1e-4);
            cr_expect_eq(ag_tensor_count(ag_gradient(gain)), n);
            ag_tape_reset(ctx);
        }
    ag_context_free(ctx);
}

static void run(ag_dtype dtype, bool rms, bool views, int threads, double *numbers)
{
    enum { ROWS = 1300, N = 50 };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype, .threads = threads });
    ag_random random = ag_random_stream(6, "run", 0);
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(N, ROWS)),
           gain = ag_normal(ctx, &random, AG_SHAPE(N));
    ag_var bias = ag_normal(ctx, &random, AG_SHAPE(N));
    ag_var dy = ag_normal(ctx, &random, AG_SHAPE(ROWS, N));
    x = ag_transpose(ag_require_gradient(x), 0, 1);
    gain = ag_flip(ag_require_gradient(gain), 0);
    bias = ag_flip(ag_require_gradient(bias), 0);
    if (views)
        dy = ag_flip(ag_contiguous(ag_flip(dy, 0)), 0);
    else
        x = ag_contiguous(x), gain = ag_contiguous(gain), bias = ag_contiguous(bias);
    ag_retain_gradient(x), ag_retain_gradient(gain), ag_retain_gradient(bias);
    ag_var y = norm(rms, x, gain, bias, 0);
    cr_assert(ag_backward_from(y, dy), "%s", ag_error_message(ctx));
    cr_assert(ag_read(y, numbers));
    numbers += ROWS * N;
    const ag_tensor *gradients[] = { ag_gradient(x), ag_gradient(gain),
                                     rms ? NULL : ag_gradient(bias) };
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; gradients[i] && k < ag_tensor_count(gradients[i]); k++)
            *numbers++ = ag_tensor_at(gradients[i], k);
    ag_context_free(ctx);
}

Test(norms, views_and_threads_change_no_bit)
{
    static double want[2 * 1300 * 50 + 100], got[2 * 1300 * 50 + 100];
    for (int kind = 0; kind < 4; kind++) {
        ag_dtype dtype = kind & 1 ? AG_F64 : AG_F32;
        run(dtype, kind & 2, false, 1, want);
        run(dtype, kind & 2, true, 1, got);
        cr_expect(!memcmp(want, got, sizeof want), "views, %d", kind);
        for (int threads = 2; threads <= 3; threads++) {
            run(dtype, kind & 2, false, threads, got);
            cr_expect(!memcmp(want, got, sizeof want), "%d threads, %d", threads, kind);
        }
    }
}

/* ---- What is refused ---- */

static void expect_error(ag_context *ctx, ag_var y, ag_error error, const char *words)
{
    cr_expect_not(ag_is_valid(y), "%s", words);
    cr_expect_eq(ag_status(ctx), error, "%s: %s", words, ag_error_message(ctx));
    cr_expect(strstr(ag_error_message(ctx), words), "'%s' has no '%s'", ag_error_message(ctx),
              words);
    ag_error_clear(ctx);
}

Test(norms, bad_input)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(2, 3)), "x");
    ag_var row = ag_set_name(ag_zeros(ctx, AG_SHAPE(3)), "row");
    ag_var long_row = ag_set_name(ag_zeros(ctx, AG_SHAPE(4)), "long");
    ag_var i = ag_set_name(ag_indices(ctx, AG_SHAPE(3), (int64_t[]){ 0, 1, 2 }), "i");
    ag_var d = ag_set_name(ag_cast(row, AG_F64), "d");
    ag_var scalar = ag_scalar(ctx, 1), stranger = ag_zeros(other, AG_SHAPE(3));
    expect_error(ctx, ag_layer_norm(x, long_row, row, 0), AG_ERR_SHAPE,
                 "layer_norm: gain long [4] does not fit the last axis of x [2,3]");
    expect_error(ctx, ag_layer_norm(x, row, x, 0), AG_ERR_SHAPE, "layer_norm: bias x [2,3]");
    expect_error(ctx, ag_layer_norm(x, AG_NONE, long_row, 0), AG_ERR_SHAPE, "bias long [4]");
    expect_error(ctx, ag_layer_norm(scalar, AG_NONE, AG_NONE, 0), AG_ERR_SHAPE, "has no axis");
    expect_error(ctx, ag_layer_norm(i, AG_NONE, AG_NONE, 0), AG_ERR_DTYPE, "i [3] is i64");
    expect_error(ctx, ag_layer_norm(x, d, AG_NONE, 0), AG_ERR_DTYPE, "d [3] is f64");
    expect_error(ctx, ag_layer_norm(x, row, i, 0), AG_ERR_DTYPE, "i [3] is i64");
    expect_error(ctx, ag_layer_norm(x, row, row, -1), AG_ERR_ARGUMENT, "layer_norm: epsilon is -1");
    expect_error(ctx, ag_layer_norm(x, row, row, NAN), AG_ERR_ARGUMENT, "epsilon is");
    expect_error(ctx, ag_layer_norm(x, row, row, INFINITY), AG_ERR_ARGUMENT, "epsilon is inf");
    expect_error(ctx, ag_layer_norm(AG_NONE, row, row, 0), AG_ERR_ARGUMENT, "layer_norm: ");
    expect_error(ctx, ag_layer_norm(x, stranger, AG_NONE, 0), AG_ERR_ARGUMENT, "layer_norm: ");
    cr_expect_not(ag_is_valid(ag_layer_norm(AG_NONE, AG_NONE, AG_NONE, 0)));
    expect_error(ctx, ag_rms_norm(x, long_row, 0), AG_ERR_SHAPE, "rms_norm: gain long [4]");
    expect_error(ctx, ag_rms_norm(x, row, -2), AG_ERR_ARGUMENT, "rms_norm: epsilon is -2");
    expect_error(ctx, ag_rms_norm(i, AG_NONE, 0), AG_ERR_DTYPE, "rms_norm: i [3] is i64");
    cr_expect(ag_is_valid(ag_rms_norm(x, row, 0)), "the context works on");
    ag_tape_reset(ctx);
    expect_error(ctx, ag_rms_norm(x, AG_NONE, 0), AG_ERR_STATE, "rms_norm: ");
    ag_context_free(ctx);
    ag_context_free(other);
}
