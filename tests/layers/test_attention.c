/* Self-attention: its parameters, what each token sees, and its gradients. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void expect_error(ag_context *ctx, ag_error error, const char *where)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", where, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    ag_error_clear(ctx);
}

static ag_attention new_layer(ag_params *params, const char *name, ag_attention_options options)
{
    ag_attention attn;
    cr_assert(ag_attention_init(&attn, params, name, &options));
    return attn;
}

static ag_var normal(ag_context *ctx, uint64_t number, ag_shape shape)
{
    ag_random random = ag_random_stream(1, "test", number);
    return ag_normal(ctx, &random, shape);
}

static double at(ag_var v, int64_t k)
{
    return ag_tensor_at(ag_value(v), k);
}

static int64_t count(ag_var v)
{
    return ag_shape_count(ag_shape_of(v));
}

static void expect_shape(ag_var v, ag_shape shape)
{
    char got[64], wanted[64];
    cr_expect(ag_shape_equal(ag_shape_of(v), shape), "%s is %s, not %s", ag_name(v),
              ag_shape_text(ag_shape_of(v), got, sizeof got),
              ag_shape_text(shape, wanted, sizeof wanted));
}

static const ag_normalizer NORMALIZERS[] = { AG_SOFTMAX, AG_SIGMOID, AG_RELU, AG_LINEAR };
enum { N_NORMALIZERS = 4 };

/* ---- Parameters ---- */

Test(attention, exactly_three_matrices_by_default)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_attention attn =
        new_layer(params, "attn", (ag_attention_options){ .d_in = 6, .d_k = 4, .d_v = 3 });
    cr_assert_eq(ag_params_count(params), 3);
    cr_expect_str_eq(ag_name(ag_params_at(params, 0)), "attn.w_q");
    cr_expect_str_eq(ag_name(ag_params_at(params, 1)), "attn.w_k");
    cr_expect_str_eq(ag_name(ag_params_at(params, 2)), "attn.w_v");
    cr_expect_eq(ag_params_size(params), 6 * 4 + 6 * 4 + 6 * 3);
    cr_expect_eq(attn.options.heads, 1);
    cr_expect_eq(attn.options.scale, 0.5, "1 / sqrt(d_k)");
    cr_expect(ag_is_none(attn.w_o) && ag_is_none(attn.b_q) && ag_is_none(attn.b_o));
    ag_context_free(ctx);
}

Test(attention, biases_and_projection_when_asked_for)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_attention attn = new_layer(
        params, "a",
        (ag_attention_options){
            .d_in = 6, .d_k = 4, .d_v = 3, .heads = 2, .d_out = 5, .bias = true, .scale = 1 });
    cr_expect_eq(ag_params_count(params), 8);
    cr_expect_eq(attn.options.scale, 1);
    expect_shape(attn.w_q, AG_SHAPE(6, 8));
    expect_shape(attn.w_k, AG_SHAPE(6, 8));
    expect_shape(attn.w_v, AG_SHAPE(6, 6));
    expect_shape(attn.w_o, AG_SHAPE(6, 5));
    expect_shape(attn.b_q, AG_SHAPE(8));
    expect_shape(attn.b_k, AG_SHAPE(8));
    expect_shape(attn.b_v, AG_SHAPE(6));
    expect_shape(attn.b_o, AG_SHAPE(5));
    cr_expect_eq(ag_params_find(params, "a.w_o").index, attn.w_o.index);
    ag_context_free(ctx);
}

Test(attention, a_failed_init_changes_nothing)
{
    static const struct {
        const char *what;
        ag_attention_options options;
        ag_error error;
    } cases[] = {
        { "no d_in", { .d_k = 1, .d_v = 1 }, AG_ERR_ARGUMENT },
        { "no d_k", { .d_in = 1, .d_v = 1 }, AG_ERR_ARGUMENT },
        { "no d_v", { .d_in = 1, .d_k = 1 }, AG_ERR_ARGUMENT },
        { "d_k < 0", { .d_in = 1, .d_k = -1, .d_v = 1 }, AG_ERR_ARGUMENT },
        { "heads < 0", { .d_in = 1, .d_k = 1, .d_v = 1, .heads = -1 }, AG_ERR_ARGUMENT },
        { "d_out < 0", { .d_in = 1, .d_k = 1, .d_v = 1, .d_out = -1 }, AG_ERR_ARGUMENT },
        { "scale inf", { .d_in = 1, .d_k = 1, .d_v = 1, .scale = INFINITY }, AG_ERR_ARGUMENT },
        { "scale nan", { .d_in = 1, .d_k = 1, .d_v = 1, .scale = NAN }, AG_ERR_ARGUMENT },
        { "normalizer 9",
          { .d_in = 1, .d_k = 1, .d_v = 1, .normalizer = (ag_normalizer)9 },
          AG_ERR_ARGUMENT },
        { "init 99",
          { .d_in = 1, .d_k = 1, .d_v = 1, .init = { .kind = (ag_init_kind)99 } },
          AG_ERR_ARGUMENT },
        { "too many heads",
          { .d_in = 1, .d_k = 4, .d_v = 1, .heads = INT64_MAX / 2 },
          AG_ERR_MEMORY },
        { "too much memory", { .d_in = 1, .d_k = 1, .d_v = INT64_MAX / 2 }, AG_ERR_MEMORY },
        { "a name that is taken",
          { .d_in = 1, .d_k = 1, .d_v = 1, .bias = true },
          AG_ERR_ARGUMENT },
    };
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_params_add(params, "attn", "b_v", AG_SHAPE(1), (ag_init){ .kind = AG_INIT_ZEROS });
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ag_attention attn;
        cr_expect_not(ag_attention_init(&attn, params, "attn", &cases[i].options));
        expect_error(ctx, cases[i].error, cases[i].what);
        cr_expect_eq(ag_params_count(params), 1, "%s", cases[i].what);
        cr_expect(ag_is_none(attn.w_q), "%s", cases[i].what);
        ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(1, 1)), NULL);
        expect_error(ctx, AG_ERR_ARGUMENT, "forward of a layer that failed");
    }
    ag_attention attn;
    const ag_attention_options good = { .d_in = 1, .d_k = 1, .d_v = 1 };
    ag_attention_init(NULL, params, "attn", &good);
    expect_error(ctx, AG_ERR_ARGUMENT, "no layer");
    ag_attention_init(&attn, params, NULL, &good);
    expect_error(ctx, AG_ERR_ARGUMENT, "no name");
    ag_attention_init(&attn, params, "attn", NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "no options");
    cr_expect_not(ag_attention_init(&attn, NULL, "attn", &good));
    cr_expect(ag_attention_init(&attn, params, "attn", &good), "the names are free again");
    ag_context_free(ctx);
}

/* ---- Forward by hand ---- */

/* The weight of a score, or 0 where masked, from the definitions. */
static void weights_by_hand(ag_normalizer normalizer, const double *scores, const bool *masked,
                            int n, double *weights)
{
    double largest = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++)
        if (!masked[j])
            largest = fmax(largest, scores[j]);
    for (int j = 0; j < n; j++) {
        if (masked[j])
            weights[j] = 0;
        else if (normalizer == AG_SOFTMAX)
            weights[j] = exp(scores[j] - largest);
        else if (normalizer == AG_SIGMOID)
            weights[j] = 1 / (1 + exp(log(n) - scores[j]));
        else if (normalizer == AG_RELU)
            weights[j] = fmax(scores[j], 0) / n;
        else
            weights[j] = scores[j];
        sum += weights[j];
    }
    for (int j = 0; j < n && normalizer == AG_SOFTMAX && sum > 0; j++)
        weights[j] /= sum;
}

enum { HAND_T = 4, HAND_IN = 3, HAND_K = 2, HAND_V = 2 };

/* One sequence of HAND_T tokens, all steps written as loops. */
static void attention_by_hand(const ag_attention *attn, ag_var x, bool causal, double *weights,
                              double *out)
{
    double q[HAND_T][HAND_K] = { 0 }, k[HAND_T][HAND_K] = { 0 }, v[HAND_T][HAND_V] = { 0 };
    for (int i = 0; i < HAND_T; i++)
        for (int p = 0; p < HAND_IN; p++)
            for (int c = 0; c < 2; c++) {
                q[i][c] += at(x, i * HAND_IN + p) * at(attn->w_q, p * HAND_K + c);
                k[i][c] += at(x, i * HAND_IN + p) * at(attn->w_k, p * HAND_K + c);
                v[i][c] += at(x, i * HAND_IN + p) * at(attn->w_v, p * HAND_V + c);
            }
    for (int i = 0; i < HAND_T; i++) {
        double scores[HAND_T];
        bool masked[HAND_T];
        for (int j = 0; j < HAND_T; j++) {
            scores[j] = attn->options.scale * (q[i][0] * k[j][0] + q[i][1] * k[j][1]);
            masked[j] = causal && j > i;
        }
        weights_by_hand(attn->options.normalizer, scores, masked, HAND_T, weights + i * HAND_T);
        for (int c = 0; c < HAND_V; c++) {
            out[i * HAND_V + c] = 0;
            for (int j = 0; j < HAND_T; j++)
                out[i * HAND_V + c] += weights[i * HAND_T + j] * v[j][c];
        }
    }
}

Test(attention, each_normalizer_by_hand)
{
    for (int i = 0; i < 2 * N_NORMALIZERS; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 4 });
        bool causal = i >= N_NORMALIZERS;
        ag_attention attn = new_layer(ag_params_new(ctx), "attn",
                                      (ag_attention_options){ .d_in = HAND_IN,
                                                              .d_k = HAND_K,
                                                              .d_v = HAND_V,
                                                              .causal = causal,
                                                              .normalizer = NORMALIZERS[i % 4] });
        ag_var x = normal(ctx, 1, AG_SHAPE(HAND_T, HAND_IN));
        double weights[HAND_T * HAND_T], out[HAND_T * HAND_V];
        attention_by_hand(&attn, x, causal, weights, out);
        ag_attention_trace t;
        ag_var y = ag_attention_forward(&attn, x, &t);
        cr_assert(ag_is_valid(y), "%s", ag_error_message(ctx));
        for (int k = 0; k < HAND_T * HAND_T; k++)
            cr_expect_float_eq(at(t.weights, k), weights[k], 1e-14,
                               "case %d, weight %d: %g, not %g", i, k, at(t.weights, k),
                               weights[k]);
        for (int k = 0; k < HAND_T * HAND_V; k++)
            cr_expect_float_eq(at(y, k), out[k], 1e-14, "case %d, output %d", i, k);
        ag_context_free(ctx);
    }
}

Test(attention, trace_has_every_step_with_its_name)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_attention_options options = { .d_in = 6, .d_k = 4, .d_v = 3 };
    ag_attention one = new_layer(params, "attn", options);
    ag_attention_trace t;
    ag_var y = ag_attention_forward(&one, normal(ctx, 1, AG_SHAPE(2, 5, 6)), &t);
    expect_shape(y, AG_SHAPE(2, 5, 3));
    expect_shape(t.q, AG_SHAPE(2, 5, 4));
    expect_shape(t.k, AG_SHAPE(2, 5, 4));
    expect_shape(t.v, AG_SHAPE(2, 5, 3));
    expect_shape(t.scores, AG_SHAPE(2, 5, 5));
    expect_shape(t.weights, AG_SHAPE(2, 5, 5));
    expect_shape(t.mixed, AG_SHAPE(2, 5, 3));
    cr_expect_str_eq(ag_name(t.q), "attn.q");
    cr_expect_str_eq(ag_name(t.k), "attn.k");
    cr_expect_str_eq(ag_name(t.v), "attn.v");
    cr_expect_str_eq(ag_name(t.scores), "attn.scores");
    cr_expect_str_eq(ag_name(t.weights), "attn.weights");
    cr_expect_str_eq(ag_name(t.mixed), "attn.mixed");

    options.heads = 2;
    options.d_out = 7;
    ag_attention two = new_layer(params, "two", options);
    y = ag_attention_forward(&two, normal(ctx, 1, AG_SHAPE(2, 5, 6)), &t);
    expect_shape(y, AG_SHAPE(2, 5, 7));
    expect_shape(t.q, AG_SHAPE(2, 2, 5, 4));
    expect_shape(t.v, AG_SHAPE(2, 2, 5, 3));
    expect_shape(t.weights, AG_SHAPE(2, 2, 5, 5));
    expect_shape(t.mixed, AG_SHAPE(2, 2, 5, 3));
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(attention, any_leading_axes_and_sizes)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_attention_options options = { .d_in = 3, .d_k = 2, .d_v = 4, .causal = true };
    for (int i = 0; i < 2 * N_NORMALIZERS; i++) {
        char name[] = { 'a', (char)('0' + i), '\0' };
        options.normalizer = NORMALIZERS[i % 4];
        options.heads = 1 + i / 4;
        const int64_t d = 4 * options.heads;
        ag_attention attn = new_layer(params, name, options);
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(5, 3)), NULL),
                     AG_SHAPE(5, d));
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(1, 3)), NULL),
                     AG_SHAPE(1, d));
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(0, 3)), NULL),
                     AG_SHAPE(0, d));
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(0, 5, 3)), NULL),
                     AG_SHAPE(0, 5, d));
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(2, 0, 3)), NULL),
                     AG_SHAPE(2, 0, d));
        expect_shape(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(2, 1, 2, 5, 3)), NULL),
                     AG_SHAPE(2, 1, 2, 5, d));
        cr_expect_eq(ag_status(ctx), AG_OK, "%d: %s", i, ag_error_message(ctx));
    }
    ag_context_free(ctx);
}

/* ---- What a token sees ---- */

/* x with everything from token first on replaced; x is [b, t, d]. */
static ag_var change_tokens(ag_context *ctx, ag_var x, int64_t first)
{
    ag_shape shape = ag_shape_of(x);
    ag_var changed = ag_from_tensor(ctx, ag_value(x));
    ag_tensor *value = ag_value_mutable(changed);
    for (int64_t b = 0; b < shape.dims[0]; b++)
        for (int64_t i = first; i < shape.dims[1]; i++)
            for (int64_t c = 0; c < shape.dims[2]; c++)
                ag_tensor_set(value, (int64_t[]){ b, i, c }, 7.5 - (double)(b + 3 * i + c));
    return changed;
}

/* The first tokens of sequence b of two results have the same bits. */
static void expect_same_tokens(ag_var y, ag_var z, int64_t b, int64_t tokens)
{
    ag_shape shape = ag_shape_of(y);
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t c = 0; c < shape.dims[2]; c++) {
            double one = ag_tensor_get(ag_value(y), (int64_t[]){ b, i, c });
            double two = ag_tensor_get(ag_value(z), (int64_t[]){ b, i, c });
            cr_expect_eq(memcmp(&one, &two, sizeof one), 0, "sequence %d, token %d: %.17g, %.17g",
                         (int)b, (int)i, one, two);
        }
}

static bool differ(ag_var y, ag_var z)
{
    for (int64_t k = 0; k < count(y); k++)
        if (at(y, k) != at(z, k))
            return true;
    return false;
}

Test(attention, causal_outputs_do_not_know_later_tokens)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 2 });
    ag_params *params = ag_params_new(ctx);
    for (int i = 0; i < 2 * N_NORMALIZERS; i++) {
        char name[] = { 'a', (char)('0' + i), '\0' };
        ag_attention attn = new_layer(params, name,
                                      (ag_attention_options){ .d_in = 5,
                                                              .d_k = 4,
                                                              .d_v = 3,
                                                              .heads = 1 + i / 4,
                                                              .causal = true,
                                                              .normalizer = NORMALIZERS[i % 4] });
        ag_var x = normal(ctx, 3, AG_SHAPE(2, 9, 5));
        ag_var y = ag_attention_forward(&attn, x, NULL);
        for (int64_t tokens = 1; tokens < 9; tokens++) {
            ag_var z = ag_attention_forward(&attn, change_tokens(ctx, x, tokens), NULL);
            cr_assert(ag_is_valid(z), "%s", ag_error_message(ctx));
            expect_same_tokens(y, z, 0, tokens);
            expect_same_tokens(y, z, 1, tokens);
            cr_expect(differ(y, z), "the later tokens do matter to themselves");
        }
    }
    ag_context_free(ctx);
}

Test(attention, padding_does_not_matter)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 2 });
    ag_params *params = ag_params_new(ctx);
    for (int i = 0; i < 2 * N_NORMALIZERS; i++) {
        char name[] = { 'a', (char)('0' + i), '\0' };
        ag_attention attn = new_layer(params, name,
                                      (ag_attention_options){ .d_in = 5,
                                                              .d_k = 4,
                                                              .d_v = 3,
                                                              .heads = 1 + i / 4,
                                                              .normalizer = NORMALIZERS[i % 4] });
        ag_attention_mask mask = { .lengths =
                                       ag_indices(ctx, AG_SHAPE(3), (int64_t[]){ 9, 4, 6 }) };
        ag_var x = normal(ctx, 3, AG_SHAPE(3, 9, 5)), changed = change_tokens(ctx, x, 6);
        ag_attention_trace t, other;
        for (int traced = 0; traced < 2; traced++) {
            ag_var y = ag_attention_forward_masked(&attn, x, &mask, traced ? &t : NULL);
            ag_var z = ag_attention_forward_masked(&attn, changed, &mask, traced ? &other : NULL);
            cr_assert(ag_is_valid(z), "%s", ag_error_message(ctx));
            expect_same_tokens(y, z, 1, 4);
            expect_same_tokens(y, z, 2, 6);
        }
        ag_var y = ag_attention_forward_masked(&attn, x, &mask, NULL);
        cr_expect(differ(y, ag_attention_forward(&attn, x, NULL)), "the mask does something");
        double real = 0;
        for (int64_t row = 0; row < (1 + i / 4) * 9; row++) { /* of sequence 1 */
            int64_t first = ((1 + i / 4) * 9 + row) * 9;
            for (int64_t j = 0; j < 9; j++) {
                real += fabs(at(t.weights, first + j));
                cr_expect(j < 4 || at(t.weights, first + j) == 0, "padded key %d", (int)j);
            }
        }
        cr_expect_gt(real, 0);
    }
    ag_context_free(ctx);
}

Test(attention, lengths_of_one_sequence_are_a_scalar)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_attention attn = new_layer(ag_params_new(ctx), "attn",
                                  (ag_attention_options){ .d_in = 2, .d_k = 2, .d_v = 2 });
    ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SCALAR, (int64_t[]){ 2 }) };
    ag_attention_trace t;
    ag_attention_forward_masked(&attn, normal(ctx, 1, AG_SHAPE(3, 2)), &mask, &t);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    for (int i = 0; i < 3; i++) {
        cr_expect_gt(at(t.weights, 3 * i + 1), 0);
        cr_expect_eq(at(t.weights, 3 * i + 2), 0);
    }
    ag_context_free(ctx);
}

Test(attention, additive_mask_is_added_after_scaling)
{
    for (int i = 0; i < N_NORMALIZERS; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 6 });
        ag_attention attn = new_layer(
            ag_params_new(ctx), "attn",
            (ag_attention_options){
                .d_in = 3, .d_k = 2, .d_v = 2, .scale = 0.25, .normalizer = NORMALIZERS[i] });
        const double bias[9] = { 0.5, -1, -INFINITY, 0, 2, -INFINITY, -INFINITY, 1, 0 };
        ag_attention_mask mask = { .additive = ag_constant(ctx, AG_SHAPE(3, 3), bias) };
        ag_var x = normal(ctx, 2, AG_SHAPE(3, 3));
        ag_attention_trace plain, t;
        ag_attention_forward(&attn, x, &plain);
        ag_attention_forward_masked(&attn, x, &mask, &t);
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        for (int row = 0; row < 3; row++) {
            double scores[3], weights[3];
            bool masked[3];
            for (int j = 0; j < 3; j++) {
                masked[j] = isinf(bias[3 * row + j]);
                scores[j] = at(plain.scores, 3 * row + j) + bias[3 * row + j];
            }
            weights_by_hand(NORMALIZERS[i], scores, masked, 3, weights);
            for (int j = 0; j < 3; j++)
                cr_expect_float_eq(at(t.weights, 3 * row + j), weights[j], 1e-14, "%d: [%d,%d]", i,
                                   row, j);
        }
        ag_context_free(ctx);
    }
}

Test(attention, a_fully_masked_row_is_zero_and_so_is_its_gradient)
{
    for (int i = 0; i < N_NORMALIZERS; i++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 6 });
        ag_attention attn = new_layer(
            ag_params_new(ctx), "attn",
            (ag_attention_options){ .d_in = 3, .d_k = 2, .d_v = 2, .normalizer = NORMALIZERS[i] });
        ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 0, 3 }) };
        ag_var x = ag_require_gradient(normal(ctx, 2, AG_SHAPE(2, 4, 3)));
        ag_attention_trace t;
        ag_var y = ag_attention_forward_masked(&attn, x, &mask, &t);
        ag_backward_from(y, normal(ctx, 5, AG_SHAPE(2, 4, 2)));
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        for (int k = 0; k < 4 * 4; k++)
            cr_expect_eq(at(t.weights, k), 0);
        for (int k = 0; k < 4 * 2; k++)
            cr_expect_eq(at(y, k), 0);
        double rest = 0;
        for (int k = 0; k < 2 * 4 * 3; k++) {
            double g = ag_tensor_at(ag_gradient(x), k);
            cr_expect(isfinite(g));
            if (k < 4 * 3)
                cr_expect_eq(g, 0, "%d: %g", k, g);
            else
                rest += fabs(g);
        }
        cr_expect_gt(rest, 0);
        for (int k = 0; k < 6; k++)
            cr_expect(isfinite(ag_tensor_at(ag_gradient(attn.w_q), k)));
        ag_context_free(ctx);
    }
}

Test(attention, without_a_mask_permuting_tokens_permutes_outputs)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 6 });
    ag_params *params = ag_params_new(ctx);
    const int64_t order[] = { 3, 0, 4, 1, 2 };
    ag_var indices = ag_indices(ctx, AG_SHAPE(5), order);
    for (int i = 0; i < N_NORMALIZERS; i++) {
        char name[] = { 'a', (char)('0' + i), '\0' };
        ag_attention attn = new_layer(
            params, name,
            (ag_attention_options){
                .d_in = 3, .d_k = 2, .d_v = 4, .heads = 2, .normalizer = NORMALIZERS[i] });
        ag_var x = normal(ctx, 2, AG_SHAPE(5, 3));
        ag_var y = ag_gather_rows(ag_attention_forward(&attn, x, NULL), indices);
        ag_var z = ag_attention_forward(&attn, ag_gather_rows(x, indices), NULL);
        cr_assert(ag_is_valid(z) && ag_is_valid(y), "%s", ag_error_message(ctx));
        for (int64_t k = 0; k < count(y); k++)
            cr_expect_float_eq(at(y, k), at(z, k), 1e-14);
    }
    ag_context_free(ctx);
}

/* A layer with the columns of one head of another. */
static ag_attention head_of(const ag_attention *attn, ag_params *params, const char *name,
                            int64_t head)
{
    ag_attention_options options = attn->options;
    options.heads = 1;
    ag_attention single = new_layer(params, name, options);
    const ag_var from[] = { attn->w_q, attn->w_k, attn->w_v };
    const ag_var to[] = { single.w_q, single.w_k, single.w_v };
    for (int i = 0; i < 3; i++) {
        ag_context *ctx = to[i].context;
        int64_t d = ag_shape_of(to[i]).dims[1];
        ag_tensor columns;
        ag_tensor_slice(ctx, ag_value(from[i]), 1, head * d, (head + 1) * d, 1, &columns);
        ag_tensor_copy(ctx, ag_value_mutable(to[i]), &columns);
    }
    return single;
}

Test(attention, heads_are_single_layers_side_by_side)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 8 });
    ag_params *params = ag_params_new(ctx);
    ag_attention attn = new_layer(
        params, "attn",
        (ag_attention_options){ .d_in = 5, .d_k = 4, .d_v = 3, .heads = 3, .causal = true });
    ag_var x = normal(ctx, 2, AG_SHAPE(2, 6, 5)), outs[3];
    ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 6, 4 }),
                               .additive = normal(ctx, 3, AG_SHAPE(6, 6)) };
    const char *names[] = { "h0", "h1", "h2" };
    for (int h = 0; h < 3; h++) {
        ag_attention single = head_of(&attn, params, names[h], h);
        outs[h] = ag_attention_forward_masked(&single, x, &mask, NULL);
    }
    ag_var joined = ag_concat(outs, 3, -1);
    ag_var y = ag_attention_forward_masked(&attn, x, &mask, NULL);
    cr_assert(ag_is_valid(y) && ag_is_valid(joined), "%s", ag_error_message(ctx));
    expect_shape(y, AG_SHAPE(2, 6, 9));
    for (int64_t k = 0; k < count(y); k++)
        cr_expect_float_eq(at(y, k), at(joined, k), 1e-14, "at %d", (int)k);
    ag_context_free(ctx);
}

/* Rows of w, and b as one row more. */
static void assign_with_row(ag_var to, ag_var w, ag_var b)
{
    ag_tensor *value = ag_value_mutable(to);
    for (int64_t k = 0; k < count(to); k++)
        ag_tensor_put(value, k, k < count(w) ? at(w, k) : at(b, k - count(w)));
}

Test(attention, a_bias_is_the_weight_of_an_input_that_is_one)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 8 });
    ag_params *params = ag_params_new(ctx);
    ag_attention_options options = { .d_in = 3, .d_k = 2, .d_v = 2, .d_out = 4, .bias = true };
    options.normalizer = AG_SIGMOID; /* softmax does not see b_k: it shifts a whole row */
    ag_attention attn = new_layer(params, "attn", options);
    const ag_var biases[] = { attn.b_q, attn.b_k, attn.b_v, attn.b_o };
    for (uint64_t i = 0; i < 4; i++)
        ag_tensor_copy(ctx, ag_value_mutable(biases[i]),
                       ag_value(normal(ctx, 10 + i, ag_shape_of(biases[i]))));
    options.d_in = 4;
    options.d_out = 0;
    options.bias = false;
    ag_attention plain = new_layer(params, "plain", options);
    assign_with_row(plain.w_q, attn.w_q, attn.b_q);
    assign_with_row(plain.w_k, attn.w_k, attn.b_k);
    assign_with_row(plain.w_v, attn.w_v, attn.b_v);

    ag_var x = normal(ctx, 2, AG_SHAPE(5, 3));
    ag_var with_one = ag_concat((ag_var[]){ x, ag_full(ctx, AG_SHAPE(5, 1), 1) }, 2, -1);
    ag_var y = ag_attention_forward(&attn, x, NULL);
    ag_var z = ag_add(ag_matmul(ag_attention_forward(&plain, with_one, NULL), attn.w_o), attn.b_o);
    cr_assert(ag_is_valid(y) && ag_is_valid(z), "%s", ag_error_message(ctx));
    for (int64_t k = 0; k < count(z); k++)
        cr_expect_float_eq(at(y, k), at(z, k), 1e-14);
    ag_context_free(ctx);
}

/* ---- Refusals ---- */

Test(attention, forward_names_what_does_not_fit)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_context *precise = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_attention attn =
        new_layer(ag_params_new(ctx), "attn",
                  (ag_attention_options){ .d_in = 3, .d_k = 2, .d_v = 2, .heads = 2 });
    ag_attention_trace t;
    cr_expect_not(ag_is_valid(ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(5, 4)), &t)));
    cr_expect(ag_is_none(t.q) && ag_is_none(t.mixed), "a failed call leaves the trace absent");
    cr_expect_not_null(strstr(ag_error_message(ctx), "attn.w_q [3,4]"), "%s",
                       ag_error_message(ctx));
    cr_expect_not_null(strstr(ag_error_message(ctx), "[5,4]"), "%s", ag_error_message(ctx));
    expect_error(ctx, AG_ERR_SHAPE, "size of a token");
    ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(3)), NULL);
    expect_error(ctx, AG_ERR_SHAPE, "rank 1");
    ag_attention_forward(&attn, ag_zeros(ctx, AG_SHAPE(1, 1, 1, 1, 1, 1, 2, 3)), NULL);
    expect_error(ctx, AG_ERR_SHAPE, "no axis left for the heads");
    ag_attention_forward(&attn, AG_NONE, NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "no x");
    ag_attention_forward(&attn, ag_zeros(other, AG_SHAPE(5, 3)), NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "x of another context");
    ag_attention_forward(&attn, ag_from_tensor(ctx, ag_value(ag_zeros(precise, AG_SHAPE(5, 3)))),
                         NULL);
    expect_error(ctx, AG_ERR_DTYPE, "x in f64 for parameters in f32");
    ag_var stale = ag_zeros(ctx, AG_SHAPE(5, 3));
    ag_tape_reset(ctx);
    ag_attention_forward(&attn, stale, NULL);
    expect_error(ctx, AG_ERR_STATE, "x of a past step");
    ag_attention_forward(NULL, ag_zeros(ctx, AG_SHAPE(5, 3)), NULL);
    expect_error(ctx, AG_ERR_ARGUMENT, "no layer");
    ag_attention_forward(NULL, AG_NONE, NULL);
    ag_fail(ctx, AG_ERR_IO, "planted");
    cr_expect_not(ag_is_valid(ag_attention_forward(&attn, AG_NONE, NULL)));
    expect_error(ctx, AG_ERR_IO, "the first error stays");
    cr_expect_eq(ag_status(other), AG_OK);
    ag_context_free(ctx);
    ag_context_free(other);
    ag_context_free(precise);
}

Test(attention, masks_are_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_attention attn =
        new_layer(ag_params_new(ctx), "attn",
                  (ag_attention_options){ .d_in = 3, .d_k = 2, .d_v = 2, .heads = 2 });
    ag_var x = ag_zeros(ctx, AG_SHAPE(2, 5, 3));
    const int64_t lengths[] = { 5, 6, 5, -1 };
    const struct {
        const char *what;
        ag_attention_mask mask;
        ag_error error;
    } cases[] = {
        { "too long", { .lengths = ag_indices(ctx, AG_SHAPE(2), lengths) }, AG_ERR_INDEX },
        { "negative", { .lengths = ag_indices(ctx, AG_SHAPE(2), lengths + 2) }, AG_ERR_INDEX },
        { "one for both", { .lengths = ag_indices(ctx, AG_SCALAR, lengths) }, AG_ERR_SHAPE },
        { "too many", { .lengths = ag_indices(ctx, AG_SHAPE(2, 2), lengths) }, AG_ERR_SHAPE },
        { "floats", { .lengths = ag_zeros(ctx, AG_SHAPE(2)) }, AG_ERR_DTYPE },
        { "other's lengths", { .lengths = ag_zeros(other, AG_SHAPE(2)) }, AG_ERR_ARGUMENT },
        { "size", { .additive = ag_zeros(ctx, AG_SHAPE(5, 4)) }, AG_ERR_SHAPE },
        { "no heads' axis", { .additive = ag_zeros(ctx, AG_SHAPE(3, 5, 5)) }, AG_ERR_SHAPE },
        { "grows x", { .additive = ag_zeros(ctx, AG_SHAPE(1, 2, 2, 5, 5)) }, AG_ERR_SHAPE },
        { "integers", { .additive = ag_indices(ctx, AG_SCALAR, lengths) }, AG_ERR_DTYPE },
        { "other's", { .additive = ag_zeros(other, AG_SCALAR) }, AG_ERR_ARGUMENT },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t before = ag_tape_length(ctx);
        cr_expect_not(ag_is_valid(ag_attention_forward_masked(&attn, x, &cases[i].mask, NULL)));
        expect_error(ctx, cases[i].error, cases[i].what);
        cr_expect_eq(ag_tape_length(ctx), before, "%s: nothing was computed", cases[i].what);
    }
    const ag_attention_mask good = { .additive = ag_zeros(ctx, AG_SHAPE(2, 1, 1, 5)) };
    cr_expect(ag_is_valid(ag_attention_forward_masked(&attn, x, &good, NULL)));
    ag_context_free(ctx);
    ag_context_free(other);
}

/* ---- Cross-attention ---- */

Test(attention, a_memory_of_other_tokens)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_params *params = ag_params_new(ctx);
    for (int i = 0; i < 2 * N_NORMALIZERS; i++) {
        char name[] = { 'a', (char)('0' + i), '\0' };
        ag_attention attn = new_layer(params, name,
                                      (ag_attention_options){ .d_in = 5,
                                                              .d_memory = 6,
                                                              .d_k = 4,
                                                              .d_v = 3,
                                                              .heads = 1 + i / 4,
                                                              .d_out = 2,
                                                              .normalizer = NORMALIZERS[i % 4] });
        expect_shape(attn.w_q, AG_SHAPE(5, 4 * (1 + i / 4)));
        expect_shape(attn.w_k, AG_SHAPE(6, 4 * (1 + i / 4)));
        expect_shape(attn.w_v, AG_SHAPE(6, 3 * (1 + i / 4)));
        ag_var x = normal(ctx, 3, AG_SHAPE(2, 3, 5)), memory = normal(ctx, 4, AG_SHAPE(2, 7, 6));
        ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 7, 4 }) };
        ag_attention_trace t;
        ag_var y = ag_attention_forward_cross(&attn, x, memory, &mask, NULL);
        ag_var z = ag_attention_forward_cross(&attn, x, memory, &mask, &t);
        expect_shape(y, AG_SHAPE(2, 3, 2));
        expect_shape(t.weights, i < 4 ? AG_SHAPE(2, 3, 7) : AG_SHAPE(2, 2, 3, 7));
        for (int64_t k = 0; k < count(y); k++)
            cr_expect_float_eq(at(y, k), at(z, k), 1e-13);
        z = ag_attention_forward_cross(&attn, x, change_tokens(ctx, memory, 4), &mask, NULL);
        cr_expect(differ(y, z));
        expect_same_tokens(y, z, 1, 3);
        mask.additive = normal(ctx, 5, AG_SHAPE(3, 7));
        cr_expect(differ(y, ag_attention_forward_cross(&attn, x, memory, &mask, NULL)));
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    }
    ag_context_free(ctx);
}

/* x as its own memory is self-attention. */
Test(attention, x_as_its_own_memory)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_attention attn = new_layer(
        ag_params_new(ctx), "attn",
        (ag_attention_options){ .d_in = 5, .d_k = 4, .d_v = 3, .heads = 2, .causal = true });
    ag_var x = normal(ctx, 1, AG_SHAPE(2, 6, 5));
    ag_var y = ag_attention_forward(&attn, x, NULL);
    cr_expect_not(differ(y, ag_attention_forward_cross(&attn, x, x, NULL, NULL)));
    /* the last two of six tokens, to all of which they look */
    ag_var z = ag_attention_forward_cross(&attn, ag_slice(x, 1, 4, 6, 1), x, NULL, NULL);
    ag_var end = ag_slice(y, 1, 4, 6, 1);
    for (int64_t k = 0; k < count(z); k++)
        cr_expect_float_eq(at(z, k), at(end, k), 1e-6);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(attention, memories_are_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    ag_attention attn = new_layer(
        params, "attn",
        (ag_attention_options){ .d_in = 3, .d_memory = 4, .d_k = 2, .d_v = 2, .causal = true });
    ag_var x = ag_zeros(ctx, AG_SHAPE(2, 5, 3)), memory = ag_zeros(ctx, AG_SHAPE(2, 6, 4));
    const ag_attention_mask five = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 5, 7 }) };
    const ag_attention_mask square = { .additive = ag_zeros(ctx, AG_SHAPE(5, 5)) };
    const struct {
        const char *words;
        ag_var x, memory;
        const ag_attention_mask *mask;
        ag_error error;
    } cases[] = {
        { "memory should be [.., tokens, d_memory]", x, x, NULL, AG_ERR_SHAPE },
        { "x should be [.., tokens, d_in]", memory, memory, NULL, AG_ERR_SHAPE },
        { "leading axes", x, ag_zeros(ctx, AG_SHAPE(3, 6, 4)), NULL, AG_ERR_SHAPE },
        { "leading axes", x, ag_zeros(ctx, AG_SHAPE(6, 4)), NULL, AG_ERR_SHAPE },
        { "dtypes", x, ag_indices(ctx, AG_SHAPE(1, 1, 1), (int64_t[]){ 0 }), NULL, AG_ERR_DTYPE },
        { "", x, AG_NONE, NULL, AG_ERR_ARGUMENT },
        { "", x, ag_zeros(other, AG_SHAPE(2, 6, 4)), NULL, AG_ERR_ARGUMENT },
        { "length 7 at 1 is outside 0 .. 6", x, memory, &five, AG_ERR_INDEX },
        { "scores [2,5,6]", x, memory, &square, AG_ERR_SHAPE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t before = ag_tape_length(ctx);
        ag_attention_trace t;
        cr_expect_not(ag_is_valid(
            ag_attention_forward_cross(&attn, cases[i].x, cases[i].memory, cases[i].mask, &t)));
        cr_expect(ag_is_none(t.q));
        cr_expect_not_null(strstr(ag_error_message(ctx), cases[i].words), "%d: %s", (int)i,
                           ag_error_message(ctx));
        expect_error(ctx, cases[i].error, cases[i].words);
        cr_expect_eq(ag_tape_length(ctx), before, "%d: nothing was computed", (int)i);
    }
    cr_expect_not(ag_is_valid(ag_attention_forward(&attn, x, NULL)), "it needs a memory");
    expect_error(ctx, AG_ERR_SHAPE, "x is no memory");
    ag_attention_options wrong = { .d_in = 3, .d_k = 2, .d_v = 2, .d_memory = -1 };
    cr_expect_not(ag_attention_init(&attn, params, "wrong", &wrong));
    expect_error(ctx, AG_ERR_ARGUMENT, "negative d_memory");
    ag_context_free(ctx);
    ag_context_free(other);
}

/* In one operation or step by step, y and all gradients are the same but for rounding. */
static void compare_forms(ag_dtype dtype, ag_attention_options options, bool lengths)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype, .seed = 4 });
    ag_params *params = ag_params_new(ctx);
    ag_attention attn = new_layer(params, "attn", options);
    ag_var inputs[12] = { ag_require_gradient(normal(ctx, 1, AG_SHAPE(3, 21, options.d_in))) };
    int n = 1;
    for (int i = 0; i < ag_params_count(params); i++)
        inputs[n++] = ag_params_at(params, i);
    ag_attention_mask mask = { .lengths = AG_NONE };
    if (lengths)
        mask.lengths = ag_indices(ctx, AG_SHAPE(3), (int64_t[]){ 21, 0, 13 });
    ag_attention_trace t;
    ag_var y[2], g[2][12];
    for (int traced = 0; traced < 2; traced++) {
        y[traced] = ag_attention_forward_masked(&attn, inputs[0], &mask, traced ? &t : NULL);
        ag_grad_from(y[traced], normal(ctx, 2, ag_shape_of(y[traced])), inputs, n, g[traced], 0);
    }
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    const double allowed = dtype == AG_F64 ? 1e-12 : 1e-5;
    for (int64_t k = 0; k < count(y[0]); k++)
        cr_expect_float_eq(at(y[0], k), at(y[1], k), allowed);
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < count(g[0][i]); k++)
            cr_expect_float_eq(at(g[0][i], k), at(g[1][i], k), 10 * allowed, "%s, %d: %g, %g",
                               ag_name(inputs[i]), (int)k, at(g[0][i], k), at(g[1][i], k));
    ag_context_free(ctx);
}

Test(attention, at_once_or_in_steps)
{
    for (int i = 0; i < 16; i++)
        compare_forms(i & 1 ? AG_F32 : AG_F64,
                      (ag_attention_options){ .d_in = 6,
                                              .d_k = 5,
                                              .d_v = 3,
                                              .heads = i & 2 ? 3 : 1,
                                              .bias = i & 2,
                                              .d_out = i & 2 ? 4 : 0,
                                              .scale = i & 2 ? 0.7 : 0,
                                              .causal = i & 4 },
                      i & 8);
}

/* ---- Gradients ---- */

typedef struct checked {
    const ag_attention *attn;
    ag_attention_mask mask;
    bool trains_additive; /* the last input is the additive mask */
} checked;

static ag_var run(ag_context *ctx, const ag_var *inputs, int n, void *user)
{
    (void)ctx;
    const checked *c = user;
    ag_attention_mask mask = c->mask;
    if (c->trains_additive)
        mask.additive = inputs[n - 1];
    return ag_attention_forward_masked(c->attn, inputs[0], &mask, NULL);
}

enum { MASK_NONE, MASK_CAUSAL, MASK_LENGTHS, MASK_ADDITIVE, MASK_ALL, N_MASKS };

/* x, all parameters and, where there is one, the additive mask. */
static void check_gradients(ag_normalizer normalizer, int kind, int64_t heads, bool second)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = 11 });
    ag_params *params = ag_params_new(ctx);
    ag_attention attn = new_layer(params, "attn",
                                  (ag_attention_options){
                                      .d_in = 3,
                                      .d_k = 2,
                                      .d_v = 2,
                                      .heads = heads,
                                      .d_out = heads > 1 ? 3 : 0,
                                      .bias = heads > 1,
                                      .causal = kind == MASK_CAUSAL || kind == MASK_ALL,
                                      .normalizer = normalizer,
                                      .init = { AG_INIT_NORMAL, 1 },
                                  });
    ag_var inputs[16];
    int n = 0;
    inputs[n++] = ag_require_gradient(normal(ctx, 2, AG_SHAPE(2, 4, 3)));
    for (int i = 0; i < ag_params_count(params); i++)
        inputs[n++] = ag_params_at(params, i);
    checked c = { .attn = &attn };
    if (kind == MASK_LENGTHS || kind == MASK_ALL)
        c.mask.lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 3, 0 });
    if (kind == MASK_ADDITIVE || kind == MASK_ALL) {
        c.trains_additive = true;
        inputs[n++] = ag_require_gradient(normal(ctx, 3, AG_SHAPE(4, 4)));
    }
    ag_gradcheck_report report;
    ag_gradcheck_options options = { .seed = 7 };
    if (second)
        ag_gradcheck_second(ctx, run, &c, inputs, n, &options, &report);
    else
        ag_gradcheck(ctx, run, &c, inputs, n, &options, &report);
    cr_expect(report.failures == 0 && !report.message[0],
              "normalizer %d, mask %d, heads %d: worst %g at %s: %g, numeric %g %s",
              (int)normalizer, kind, (int)heads, report.worst, report.name, report.analytic,
              report.numeric, report.message);
    cr_expect_geq(report.entries, 24 + 3 * 6);
    ag_context_free(ctx);
}

Test(attention, gradients_for_each_normalizer_and_mask)
{
    for (int i = 0; i < N_NORMALIZERS; i++)
        for (int kind = 0; kind < N_MASKS; kind++) {
            check_gradients(NORMALIZERS[i], kind, 1, false);
            check_gradients(NORMALIZERS[i], kind, 2, false);
        }
}

Test(attention, second_order_for_each_normalizer)
{
    for (int i = 0; i < N_NORMALIZERS; i++) {
        check_gradients(NORMALIZERS[i], MASK_NONE, 1, true);
        check_gradients(NORMALIZERS[i], MASK_ALL, 2, true);
    }
}

Test(attention, huge_scores_stay_finite)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_attention attn = new_layer(ag_params_new(ctx), "attn",
                                  (ag_attention_options){ .d_in = 1, .d_k = 1, .d_v = 1 });
    const double one = 1;
    ag_assign(attn.w_q, &one);
    ag_assign(attn.w_k, &one);
    ag_assign(attn.w_v, &one);
    ag_attention_trace t;
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2, 1), (double[]){ 283, -283 }));
    ag_var y = ag_attention_forward(&attn, x, &t);
    ag_backward(ag_sum(y, AG_ALL, 0));
    cr_expect_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    cr_expect_eq(at(t.scores, 0), 80089);
    cr_expect_eq(at(t.scores, 1), -80089);
    cr_expect_eq(at(y, 0), 283);
    cr_expect_eq(at(y, 1), -283);
    cr_expect_eq(ag_tensor_at(ag_gradient(x), 0), 1);
    cr_expect_eq(ag_tensor_at(ag_gradient(x), 1), 1);
    ag_context_free(ctx);
}
