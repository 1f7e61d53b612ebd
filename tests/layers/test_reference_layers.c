/* The layers, the optimisers and gradient clipping against numbers computed in f64 by another
 * program. */
#include "../../layers/layers.h"
#include "../reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

/* ---- Self-attention ---- */

static const char *const normalizers[] = { "softmax", "sigmoid", "relu", "linear" };

/* The masks of reference/generate.py. Row m of attention_lengths.npy holds the lengths of mask
 * m; a length of 0 and the additive mask make rows in which everything is masked. */
static const struct {
    const char *name;
    bool causal, lengths, additive;
} masks[] = {
    { "no mask", false, false, false },
    { "causal", true, false, false },
    { "lengths", false, true, false },
    { "additive", false, false, true },
    { "causal and lengths", true, true, false },
    { "causal, lengths and additive", true, true, true },
};

/* A layer and an input, in four sizes. Files are called attention_NAME_*.npy. */
typedef struct layer_case {
    const char *name;
    int64_t heads;
    bool full; /* biases and output projection */
    bool batch;
    double scale;
    int mask_count, mask[6];
    int additive_index[6]; /* of a mask, among those with an additive one; -1 without */
} layer_case;

/* One layer under one normaliser and one mask: everything that is in play. */
typedef struct scene {
    const layer_case *layer;
    ag_normalizer normalizer;
    int column, mask;
    ag_context *ctx;
    ag_attention attention;
    ag_var x, additive;
    char text[160];
} scene;

static const ag_tensor *read_part(const scene *s, const char *part)
{
    return ag_reference_read(s->ctx, "attention_%s_%s", s->layer->name, part);
}

/* The result of this normaliser and this mask. */
static ag_tensor result_part(const scene *s, const char *part)
{
    ag_tensor row = ag_reference_part(read_part(s, part), 0, s->normalizer);
    return ag_reference_part(&row, 0, s->column);
}

static void start(scene *s)
{
    const layer_case *layer = s->layer;
    snprintf(s->text, sizeof s->text, "attention %s, %s, %s", layer->name,
             normalizers[s->normalizer], masks[s->mask].name);
    s->ctx = ag_reference_context();
    bool made = ag_attention_init(&s->attention, ag_params_new(s->ctx), "attn",
                                  &(ag_attention_options){ .d_in = 6,
                                                           .d_k = 4,
                                                           .d_v = 5,
                                                           .heads = layer->heads,
                                                           .d_out = layer->full ? 3 : 0,
                                                           .bias = layer->full,
                                                           .causal = masks[s->mask].causal,
                                                           .scale = layer->scale,
                                                           .normalizer = s->normalizer });
    cr_assert(made, "%s: %s", s->text, ag_error_message(s->ctx));
    s->x = ag_require_gradient(ag_from_tensor(s->ctx, read_part(s, "x")));
    s->additive = AG_NONE;
    if (masks[s->mask].additive)
        s->additive = ag_from_tensor(s->ctx, read_part(s, "additive"));
}

static ag_var forward(scene *s, ag_attention_trace *trace)
{
    ag_attention_mask mask = { .lengths = AG_NONE, .additive = s->additive };
    if (masks[s->mask].lengths) {
        const ag_tensor *all = ag_reference_read(s->ctx, "attention_lengths");
        ag_tensor lengths = ag_reference_part(all, 0, s->mask);
        if (!s->layer->batch)
            lengths = ag_reference_part(&lengths, 0, 0);
        mask.lengths = ag_from_tensor(s->ctx, &lengths);
    }
    bool masked = masks[s->mask].lengths || masks[s->mask].additive;
    return masked ? ag_attention_forward_masked(&s->attention, s->x, &mask, trace)
                  : ag_attention_forward(&s->attention, s->x, trace);
}

/* Gives the parameters their values and lists the gradients that are wanted; returns how many. */
static int prepare(scene *s, ag_tensor *wants, ag_reference_gradient *gradients)
{
    const ag_attention *a = &s->attention;
    const struct {
        const char *value, *gradient;
        ag_var v;
    } all[] = { { "x", "dx", s->x },       { "w_q", "dw_q", a->w_q }, { "w_k", "dw_k", a->w_k },
                { "w_v", "dw_v", a->w_v }, { "w_o", "dw_o", a->w_o }, { "b_q", "db_q", a->b_q },
                { "b_k", "db_k", a->b_k }, { "b_v", "db_v", a->b_v }, { "b_o", "db_o", a->b_o } };
    int n = s->layer->full ? 9 : 4;
    for (int i = 0; i < n; i++) {
        ag_tensor_copy(s->ctx, ag_value_mutable(all[i].v), read_part(s, all[i].value));
        wants[i] = result_part(s, all[i].gradient);
        gradients[i] = (ag_reference_gradient){ all[i].value, all[i].v, &wants[i] };
    }
    return n;
}

static void check_attention(const layer_case *layer, ag_normalizer normalizer, int column)
{
    scene s = {
        .layer = layer, .normalizer = normalizer, .column = column, .mask = layer->mask[column]
    };
    start(&s);
    ag_tensor wants[9];
    ag_reference_gradient gradients[9];
    int n = prepare(&s, wants, gradients);
    ag_attention_trace trace;
    ag_var out = forward(&s, &trace);
    ag_tensor want = result_part(&s, "out");
    ag_reference_expect(s.text, ag_value(out), &want);
    if (layer->heads == 1) {
        want = result_part(&s, "weights");
        char text[192];
        snprintf(text, sizeof text, "%s, weights", s.text);
        ag_reference_expect(text, ag_value(trace.weights), &want);
    }
    ag_var cotangent = ag_from_tensor(s.ctx, read_part(&s, "cotangent"));
    ag_reference_expect_gradients(s.text, out, cotangent, gradients, n);
    ag_reference_finish(s.ctx);
}

/* The additive mask may itself be something that learns, as a bias of positions does. */
static void check_additive(const layer_case *layer, ag_normalizer normalizer, int column)
{
    scene s = {
        .layer = layer, .normalizer = normalizer, .column = column, .mask = layer->mask[column]
    };
    start(&s);
    ag_tensor wants[9];
    ag_reference_gradient gradients[9];
    prepare(&s, wants, gradients);
    ag_require_gradient(s.additive);
    ag_var out = forward(&s, NULL);
    ag_tensor row = ag_reference_part(read_part(&s, "dadditive"), 0, normalizer);
    ag_tensor want = ag_reference_part(&row, 0, layer->additive_index[column]);
    ag_var cotangent = ag_from_tensor(s.ctx, read_part(&s, "cotangent"));
    ag_reference_expect_gradients(s.text, out, cotangent,
                                  &(ag_reference_gradient){ "additive", s.additive, &want }, 1);
    ag_reference_finish(s.ctx);
}

/* scale 0 is the default, 1 / sqrt(d_k) = 0.5 */
static const layer_case one_head = {
    "one", 1, false, true, 0, 6, { 0, 1, 2, 3, 4, 5 }, { -1, -1, -1, 0, -1, 1 }
};
static const layer_case one_head_rank2 = {
    "one_rank2", 1, false, false, 1, 2, { 0, 5 }, { -1, 0 }
};
static const layer_case three_heads = {
    "heads", 3, true, true, 0, 6, { 0, 1, 2, 3, 4, 5 }, { -1, -1, -1, 0, -1, 1 }
};
static const layer_case three_heads_rank2 = { "heads_rank2", 3, true,     false,
                                              0.3,           2, { 0, 5 }, { -1, 0 } };

static void check_layers(ag_normalizer normalizer)
{
    const layer_case *const layers[] = { &one_head, &one_head_rank2, &three_heads,
                                         &three_heads_rank2 };
    for (int i = 0; i < 4; i++)
        for (int column = 0; column < layers[i]->mask_count; column++)
            check_attention(layers[i], normalizer, column);
}

Test(reference_layers, attention_softmax)
{
    check_layers(AG_SOFTMAX);
}

Test(reference_layers, attention_sigmoid)
{
    check_layers(AG_SIGMOID);
}

Test(reference_layers, attention_relu)
{
    check_layers(AG_RELU);
}

Test(reference_layers, attention_linear)
{
    check_layers(AG_LINEAR);
}

Test(reference_layers, attention_additive_mask_has_a_gradient)
{
    const layer_case *const layers[] = { &one_head, &one_head_rank2, &three_heads,
                                         &three_heads_rank2 };
    for (int kind = AG_SOFTMAX; kind <= AG_LINEAR; kind++)
        for (int i = 0; i < 4; i++)
            for (int column = 0; column < layers[i]->mask_count; column++)
                if (layers[i]->additive_index[column] >= 0)
                    check_additive(layers[i], (ag_normalizer)kind, column);
}

/* ---- The transformer and its parts ---- */

enum { MAX_GRADIENTS = 32 };

/* A part of a vector of all parameters, with the shape of one of them. */
static ag_tensor part_like(const ag_tensor *all, int64_t start, ag_var parameter)
{
    ag_tensor part = *ag_value(parameter);
    cr_assert_leq(start + ag_tensor_count(&part), ag_tensor_count(all), "too few parameters");
    part.data = (double *)all->data + start;
    return part;
}

/* Gives all parameters their values from NAME_parameters. */
static void read_parameters(ag_params *params, const char *name)
{
    ag_context *ctx = ag_params_at(params, 0).context;
    const ag_tensor *all = ag_reference_read(ctx, "%s_parameters", name);
    cr_assert_eq(ag_params_size(params), ag_tensor_count(all), "%s", name);
    int64_t start = 0;
    for (int i = 0; i < ag_params_count(params); i++) {
        ag_var p = ag_params_at(params, i);
        ag_tensor value = part_like(all, start, p);
        ag_tensor_copy(ctx, ag_value_mutable(p), &value);
        start += ag_tensor_count(&value);
    }
}

/* y, the gradients of all parameters and, unless it is absent, that of x. */
static void expect_layer(const char *name, ag_params *params, ag_var x, ag_var y)
{
    ag_context *ctx = y.context;
    cr_assert_eq(ag_status(ctx), AG_OK, "%s: %s", name, ag_error_message(ctx));
    ag_tensor wants[MAX_GRADIENTS];
    ag_reference_gradient gradients[MAX_GRADIENTS];
    const ag_tensor *all = ag_reference_read(ctx, "%s_gradients", name);
    int64_t start = 0;
    int n = 0;
    for (; n < ag_params_count(params); n++) {
        ag_var p = ag_params_at(params, n);
        wants[n] = part_like(all, start, p);
        gradients[n] = (ag_reference_gradient){ ag_name(p), p, &wants[n] };
        start += ag_tensor_count(&wants[n]);
    }
    if (!ag_is_none(x))
        gradients[n++] = (ag_reference_gradient){ "x", x, ag_reference_read(ctx, "%s_dx", name) };
    ag_reference_expect(name, ag_value(y), ag_reference_read(ctx, "%s_y", name));
    ag_var cotangent = ag_from_tensor(ctx, ag_reference_read(ctx, "%s_cotangent", name));
    ag_reference_expect_gradients(name, y, cotangent, gradients, n);
}

static ag_var read_x(ag_context *ctx, const char *name)
{
    return ag_require_gradient(ag_from_tensor(ctx, ag_reference_read(ctx, "%s_x", name)));
}

Test(reference_layers, feed_forward)
{
    static const char *const names[] = { [AG_GELU] = "feed_forward_gelu",
                                         [AG_GELU_TANH] = "feed_forward_gelu_tanh",
                                         [AG_RELU_ACTIVATION] = "feed_forward_relu",
                                         [AG_SILU] = "feed_forward_silu" };
    for (int i = 0; i < 4; i++) {
        ag_context *ctx = ag_reference_context();
        ag_params *params = ag_params_new(ctx);
        ag_feed_forward ff;
        ag_feed_forward_init(
            &ff, params, "ff",
            &(ag_feed_forward_options){ .d = 6, .d_ff = 7, .activation = (ag_activation)i });
        read_parameters(params, names[i]);
        ag_var x = read_x(ctx, names[i]);
        expect_layer(names[i], params, x, ag_feed_forward_forward(&ff, x));
        ag_reference_finish(ctx);
    }
}

Test(reference_layers, block_with_lengths)
{
    const char *name = "block_lengths";
    ag_context *ctx = ag_reference_context();
    ag_params *params = ag_params_new(ctx);
    ag_block block;
    ag_block_init(
        &block, params, "",
        &(ag_block_options){ .d = 6, .d_ff = 7, .norm = AG_RMS_NORM, .activation = AG_SILU });
    read_parameters(params, name);
    ag_var x = read_x(ctx, name);
    ag_attention_mask mask = { .lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 4, 2 }) };
    expect_layer(name, params, x, ag_block_forward(&block, x, &mask, NULL));
    ag_reference_finish(ctx);
}

Test(reference_layers, block_causal)
{
    const char *name = "block_causal";
    ag_context *ctx = ag_reference_context();
    ag_params *params = ag_params_new(ctx);
    ag_block block;
    ag_block_init(&block, params, "b",
                  &(ag_block_options){ .d = 6, .heads = 2, .d_ff = 7, .causal = true });
    read_parameters(params, name);
    ag_var x = read_x(ctx, name);
    expect_layer(name, params, x, ag_block_forward(&block, x, NULL, NULL));
    ag_reference_finish(ctx);
}

Test(reference_layers, transformer)
{
    static const char *const names[] = { "transformer_causal", "transformer_bidirectional" };
    for (int i = 0; i < 2; i++) {
        ag_context *ctx = ag_reference_context();
        ag_params *params = ag_params_new(ctx);
        ag_transformer model;
        ag_transformer_init(&model, params, "",
                            &(ag_transformer_options){ .vocab = 5,
                                                       .max_tokens = 6,
                                                       .d_model = 6,
                                                       .heads = 3,
                                                       .blocks = 2,
                                                       .bidirectional = i == 1,
                                                       .norm = i ? AG_RMS_NORM : AG_LAYER_NORM,
                                                       .activation = i ? AG_GELU : AG_GELU_TANH });
        read_parameters(params, names[i]);
        ag_var tokens = ag_from_tensor(ctx, ag_reference_read(ctx, "transformer_tokens"));
        expect_layer(names[i], params, AG_NONE, ag_transformer_forward(&model, tokens));
        ag_reference_finish(ctx);
    }
}

/* ---- Optimisers ---- */

static ag_var add_parameter(ag_context *ctx, ag_params *params, const char *name,
                            const ag_tensor *value)
{
    ag_var p = ag_params_add(params, NULL, name, ag_tensor_shape(value),
                             (ag_init){ .kind = AG_INIT_ZEROS });
    ag_tensor_copy(ctx, ag_value_mutable(p), value);
    return p;
}

/* sum(c * p): a loss whose gradient by p is c. */
static ag_var weighted_sum(ag_var p, const ag_tensor *c)
{
    return ag_dot(p, ag_from_tensor(p.context, c));
}

/* Ten steps with given gradients; the parameters after each of them. */
static void check_optimizer(const char *name, ag_optimizer *(*make)(ag_params *params))
{
    ag_context *ctx = ag_reference_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = add_parameter(ctx, params, "p", ag_reference_read(ctx, "optimizer_p"));
    ag_var q = add_parameter(ctx, params, "q", ag_reference_read(ctx, "optimizer_q"));
    const ag_tensor *gradients_p = ag_reference_read(ctx, "optimizer_gradients_p");
    const ag_tensor *gradients_q = ag_reference_read(ctx, "optimizer_gradients_q");
    const ag_tensor *path_p = ag_reference_read(ctx, "optimizer_%s_p", name);
    const ag_tensor *path_q = ag_reference_read(ctx, "optimizer_%s_q", name);
    ag_optimizer *optimizer = make(params);
    for (int t = 0; t < 10; t++) {
        ag_tensor dp = ag_reference_part(gradients_p, 0, t);
        ag_tensor dq = ag_reference_part(gradients_q, 0, t);
        ag_backward(ag_add(weighted_sum(p, &dp), weighted_sum(q, &dq)));
        cr_assert(ag_optimizer_step(optimizer), "%s: %s", name, ag_error_message(ctx));
        ag_tensor want_p = ag_reference_part(path_p, 0, t);
        ag_tensor want_q = ag_reference_part(path_q, 0, t);
        char text[64];
        snprintf(text, sizeof text, "%s, step %d:", name, t + 1);
        ag_reference_expect(text, ag_value(p), &want_p);
        ag_reference_expect(text, ag_value(q), &want_q);
        ag_tape_reset(ctx);
    }
    ag_reference_finish(ctx);
}

static ag_optimizer *make_sgd(ag_params *params)
{
    return ag_sgd_new(params, &(ag_sgd_options){ .lr = 0.1 });
}

static ag_optimizer *make_momentum(ag_params *params)
{
    return ag_sgd_new(params, &(ag_sgd_options){ .lr = 0.05, .momentum = 0.9 });
}

static ag_optimizer *make_adam(ag_params *params)
{
    return ag_adam_new(params, &(ag_adam_options){ .lr = 0.02 });
}

static ag_optimizer *make_adam_set(ag_params *params)
{
    return ag_adam_new(
        params, &(ag_adam_options){ .lr = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3 });
}

static ag_optimizer *make_adamw(ag_params *params)
{
    return ag_adamw_new(params, &(ag_adam_options){ .lr = 0.02 });
}

static ag_optimizer *make_adamw_set(ag_params *params)
{
    return ag_adamw_new(
        params, &(ag_adam_options){
                    .lr = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.3 });
}

/* The weights of p decay, those of q do not. */
static ag_optimizer *make_adamw_masked(ag_params *params)
{
    ag_optimizer *adamw = make_adamw_set(params);
    cr_assert(ag_optimizer_set_weight_decay(adamw, ag_params_find(params, "q"), 0));
    return adamw;
}

static ag_optimizer *make_adamw_for_p(ag_params *params)
{
    ag_optimizer *adamw = ag_adamw_new(
        params, &(ag_adam_options){
                    .lr = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = -1 });
    cr_assert(ag_optimizer_set_weight_decay(adamw, ag_params_find(params, "p"), 0.3));
    return adamw;
}

static ag_optimizer *make_adamw_without_decay(ag_params *params)
{
    return ag_adamw_new(params, &(ag_adam_options){ .lr = 0.02, .weight_decay = -1 });
}

Test(reference_layers, sgd)
{
    check_optimizer("sgd", make_sgd);
    check_optimizer("momentum", make_momentum);
}

Test(reference_layers, adam)
{
    check_optimizer("adam", make_adam);
    check_optimizer("adam_set", make_adam_set);
}

Test(reference_layers, adamw)
{
    check_optimizer("adamw", make_adamw);
    check_optimizer("adamw_set", make_adamw_set);
    check_optimizer("adam", make_adamw_without_decay);
    check_optimizer("adamw_masked", make_adamw_masked);
    check_optimizer("adamw_masked", make_adamw_for_p);
}

/* ---- Clipping ---- */

Test(reference_layers, clip_by_global_norm)
{
    const double limits[] = { 1.5, 100 };
    for (int i = 0; i < 2; i++) {
        ag_context *ctx = ag_reference_context();
        ag_params *params = ag_params_new(ctx);
        const ag_tensor *dp = ag_reference_read(ctx, "clip_p");
        const ag_tensor *dq = ag_reference_read(ctx, "clip_q");
        ag_var p = add_parameter(ctx, params, "p", dp), q = add_parameter(ctx, params, "q", dq);
        ag_backward(ag_add(weighted_sum(p, dp), weighted_sum(q, dq)));
        double norm = ag_tensor_at(ag_reference_read(ctx, "clip_norm"), 0);
        cr_expect_float_eq(ag_params_gradient_norm(params), norm, 1e-12);
        cr_expect_float_eq(ag_params_clip_gradients(params, limits[i]), norm, 1e-12);
        cr_expect_float_eq(ag_params_gradient_norm(params), fmin(norm, limits[i]), 1e-12);
        ag_tensor want = ag_reference_part(ag_reference_read(ctx, "clip_p_result"), 0, i);
        ag_reference_expect("clipped p", ag_gradient(p), &want);
        want = ag_reference_part(ag_reference_read(ctx, "clip_q_result"), 0, i);
        ag_reference_expect("clipped q", ag_gradient(q), &want);
        ag_reference_finish(ctx);
    }
}

/* ---- Attention with a memory ---- */

/* Traced or not: by its steps or by the one operation. */
static void check_cross(const char *name, int64_t heads, bool masked, bool traced)
{
    ag_context *ctx = ag_reference_context();
    ag_params *params = ag_params_new(ctx);
    ag_attention attention;
    ag_attention_init(&attention, params, "attn",
                      &(ag_attention_options){ .d_in = 6,
                                               .d_memory = 5,
                                               .d_k = 3,
                                               .d_v = 2,
                                               .heads = heads,
                                               .d_out = 4,
                                               .bias = true,
                                               .causal = masked });
    ag_init zeros = { .kind = AG_INIT_ZEROS };
    ag_var memory = ag_params_add(params, "", "memory", AG_SHAPE(2, 4, 5), zeros);
    read_parameters(params, name);
    ag_var x = read_x(ctx, name);
    ag_attention_mask mask = { .lengths = AG_NONE };
    if (masked)
        mask.lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 4, 2 });
    ag_attention_trace trace;
    ag_var y = ag_attention_forward_cross(&attention, x, memory, &mask, traced ? &trace : NULL);
    expect_layer(name, params, x, y);
    ag_reference_finish(ctx);
}

Test(reference_layers, attention_with_a_memory)
{
    for (int traced = 0; traced < 2; traced++) {
        check_cross("cross_one", 1, false, traced);
        check_cross("cross_heads", 2, true, traced);
    }
}
