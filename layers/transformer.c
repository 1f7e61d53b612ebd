/* The transformer and its block. In each block a token first gathers from the
 * others (attention), then thinks by itself (feed-forward), and adds what it
 * found to what it was:
 *
 *   h = x + attention(norm_1(x))
 *   y = h + feed_forward(norm_2(h))
 *
 * Through the sums, every gradient also reaches every x directly: dx = dh +
 * what comes back through attention and norm. That is why deep stacks of
 * blocks learn. */
#include "internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

/* ---- The block ---- */

/* d in so many heads; false with the error recorded. */
static bool check_heads(ag_context *context, const char *operation, const char *name, int64_t d,
                        int64_t heads)
{
    if (d < 1 || heads < 0)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: a token has %lld numbers and there are %lld heads, but they must "
                       "be at least 1 and 0",
                       operation, name, (long long)d, (long long)heads);
    if (heads > 0 && d % heads != 0)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: %lld numbers of a token do not divide into %lld heads", operation,
                       name, (long long)d, (long long)heads);
    return true;
}

static bool init_norm(ag_norm *norm, ag_params *params, const char *prefix, const char *part,
                      int64_t d, ag_norm_kind kind)
{
    char name[AG_LAYER_NAME];
    return ag_layer_name(params->context, prefix, part, name) &&
           ag_norm_init(norm, params, name, &(ag_norm_options){ .d = d, .kind = kind });
}

static bool init_attention(ag_block *block, ag_params *params, const char *prefix)
{
    char name[AG_LAYER_NAME];
    const ag_block_options *o = &block->options;
    const int64_t d_head = o->d / o->heads;
    return ag_layer_name(params->context, prefix, "attn", name) &&
           ag_attention_init(&block->attention, params, name,
                             &(ag_attention_options){ .d_in = o->d,
                                                      .d_k = d_head,
                                                      .d_v = d_head,
                                                      .heads = o->heads,
                                                      .d_out = o->d,
                                                      .causal = o->causal,
                                                      .init = o->init });
}

static bool init_feed_forward(ag_block *block, ag_params *params, const char *prefix)
{
    char name[AG_LAYER_NAME];
    const ag_block_options *o = &block->options;
    return ag_layer_name(params->context, prefix, "ff", name) &&
           ag_feed_forward_init(
               &block->feed_forward, params, name,
               &(ag_feed_forward_options){
                   .d = o->d, .d_ff = o->d_ff, .activation = o->activation, .init = o->init });
}

/* w = factor w, at the start. */
static bool scale_start(ag_var w, double factor)
{
    ag_tensor *value = factor == 1 ? NULL : ag_value_mutable(w);
    return factor == 1 ||
           (value && ag_compute_unary(w.context, AG_UNARY_SCALE, factor, value, value));
}

bool ag_block_init(ag_block *block, ag_params *params, const char *name,
                   const ag_block_options *options)
{
    if (block)
        *block = (ag_block){ .options = { 0 } };
    if (!ag_layer_can_start(params, "block_init", block, name, options) ||
        !check_heads(params->context, "block_init", name, options->d, options->heads))
        return false;
    if (!isfinite(options->residual_scale))
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "block_init: %s: residual_scale is %g, not finite", name,
                       options->residual_scale);
    ag_block made = { .options = *options };
    ag_block_options *o = &made.options;
    o->heads = o->heads > 0 ? o->heads : 1;
    o->residual_scale = o->residual_scale != 0 ? o->residual_scale : 1;
    int count = ag_params_count(params);
    bool done = init_norm(&made.norm_1, params, name, "norm_1", o->d, o->norm) &&
                init_attention(&made, params, name) &&
                init_norm(&made.norm_2, params, name, "norm_2", o->d, o->norm) &&
                init_feed_forward(&made, params, name) &&
                scale_start(made.attention.w_o, o->residual_scale) &&
                scale_start(made.feed_forward.w_2, o->residual_scale);
    if (!ag_layer_done(params, count) || !done)
        return false;
    o->d_ff = made.feed_forward.options.d_ff;
    *block = made;
    return true;
}

ag_var ag_block_forward(const ag_block *block, ag_var x, const ag_attention_mask *mask,
                        ag_attention_trace *trace)
{
    ag_var gain = block ? block->norm_1.gain : AG_NONE;
    if (trace)
        *trace = (ag_attention_trace){ .q = AG_NONE };
    if (!ag_layer_takes("block_forward", gain, x, block ? block->options.d : 0))
        return ag_layer_refused(gain, x);
    const ag_feed_forward *ff = &block->feed_forward;
    ag_var normed = ag_norm_forward(&block->norm_1, x);
    const ag_attention_input input = { .x = normed, .memory = normed, .residual = x, .mask = mask };
    ag_var h = ag_attention_forward_add(&block->attention, &input, trace);
    ag_var hidden = ag_feed_forward_hidden(ff, ag_norm_forward(&block->norm_2, h));
    return ag_affine_add(hidden, ff->w_2, ff->b_2, h);
}

/* ---- The transformer ---- */

static const char init_name[] = "transformer_init";
static const char forward_name[] = "transformer_forward";
static const ag_init start = { AG_INIT_NORMAL, 0.02 };

static bool check_options(ag_context *context, const char *name, const ag_transformer_options *o)
{
    if (o->vocab < 1 || o->max_tokens < 1 || o->blocks < 1)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "%s: %s: vocab is %lld, max_tokens %lld, blocks %lld, but all must be at "
                       "least 1",
                       init_name, name, (long long)o->vocab, (long long)o->max_tokens,
                       (long long)o->blocks);
    if (o->blocks > INT_MAX)
        return ag_fail(context, AG_ERR_MEMORY, "%s: %s: %lld blocks are too many", init_name, name,
                       (long long)o->blocks);
    return check_heads(context, init_name, name, o->d_model, o->heads);
}

static bool init_embedding(ag_embedding *embedding, ag_params *params, const char *prefix,
                           const char *part, int64_t count, int64_t d)
{
    char name[AG_LAYER_NAME];
    return ag_layer_name(params->context, prefix, part, name) &&
           ag_embedding_init(embedding, params, name,
                             &(ag_embedding_options){ .count = count, .d = d, .init = start });
}

static bool init_blocks(ag_transformer *model, ag_params *params, const char *prefix)
{
    const ag_transformer_options *o = &model->options;
    const ag_block_options options = { .d = o->d_model,
                                       .heads = o->heads,
                                       .d_ff = o->d_ff,
                                       .causal = !o->bidirectional,
                                       .norm = o->norm,
                                       .activation = o->activation,
                                       .init = start,
                                       .residual_scale = 1 / sqrt(2.0 * (double)o->blocks) };
    model->blocks =
        ag_memory_new(params->context, AG_KEEP, (size_t)o->blocks * sizeof *model->blocks);
    for (int64_t i = 0; model->blocks && i < o->blocks; i++) {
        char part[40], name[AG_LAYER_NAME];
        snprintf(part, sizeof part, "block.%lld", (long long)i);
        if (!ag_layer_name(params->context, prefix, part, name) ||
            !ag_block_init(&model->blocks[i], params, name, &options))
            return false;
    }
    return model->blocks != NULL;
}

static bool init_unembedding(ag_transformer *model, ag_params *params, const char *prefix)
{
    char name[AG_LAYER_NAME];
    const ag_transformer_options *o = &model->options;
    return ag_layer_name(params->context, prefix, "unembedding", name) &&
           ag_linear_init(
               &model->unembedding, params, name,
               &(ag_linear_options){ .d_in = o->d_model, .d_out = o->vocab, .init = start });
}

bool ag_transformer_init(ag_transformer *model, ag_params *params, const char *name,
                         const ag_transformer_options *options)
{
    if (model)
        *model = (ag_transformer){ .blocks = NULL };
    if (!ag_layer_can_start(params, init_name, model, name, options) ||
        !check_options(params->context, name, options))
        return false;
    ag_transformer made = { .options = *options };
    ag_transformer_options *o = &made.options;
    o->heads = o->heads > 0 ? o->heads : 1;
    int count = ag_params_count(params);
    bool done =
        init_embedding(&made.tokens, params, name, "tokens", o->vocab, o->d_model) &&
        init_embedding(&made.positions, params, name, "positions", o->max_tokens, o->d_model) &&
        init_blocks(&made, params, name) &&
        init_norm(&made.norm, params, name, "norm", o->d_model, o->norm) &&
        init_unembedding(&made, params, name);
    if (!ag_layer_done(params, count) || !done)
        return false;
    o->d_ff = made.blocks[0].options.d_ff;
    *model = made;
    return true;
}

/* tokens [.., t] with t <= max_tokens; what else can be wrong, the parts say. */
static bool check_tokens(const ag_transformer *model, ag_var tokens)
{
    char text[160];
    if (!model || !model->blocks)
        return ag_fail(tokens.context, AG_ERR_ARGUMENT, "%s: the layer was not initialised",
                       forward_name);
    ag_context *context = model->tokens.w.context;
    const ag_node *node = ag_node_require(context, forward_name, tokens);
    if (!node)
        return false;
    const ag_tensor *value = &node->value;
    const int64_t most = model->options.max_tokens;
    if (value->rank >= 1 && value->dims[value->rank - 1] <= most)
        return true;
    return ag_fail(context, AG_ERR_SHAPE, "%s: %s should be [.., t] with t of at most %lld",
                   forward_name, ag_describe(tokens, text, sizeof text), (long long)most);
}

ag_var ag_transformer_forward_masked(const ag_transformer *model, ag_var tokens,
                                     const ag_attention_mask *mask, ag_attention_trace *traces)
{
    for (int64_t i = 0; traces && model && i < model->options.blocks; i++)
        traces[i] = (ag_attention_trace){ .q = AG_NONE };
    if (!check_tokens(model, tokens))
        return ag_layer_refused(model ? model->tokens.w : AG_NONE, tokens);
    ag_var x = ag_embedding_with_positions(&model->tokens, &model->positions, tokens);
    for (int64_t i = 0; i < model->options.blocks; i++)
        x = ag_block_forward(&model->blocks[i], x, mask, traces ? &traces[i] : NULL);
    return ag_linear_forward(&model->unembedding, ag_norm_forward(&model->norm, x));
}

ag_var ag_transformer_forward(const ag_transformer *model, ag_var tokens)
{
    return ag_transformer_forward_masked(model, tokens, NULL, NULL);
}

/* ---- Weight decay ---- */

static bool no_decay(ag_optimizer *optimizer, ag_var parameter)
{
    return ag_is_none(parameter) || ag_optimizer_set_weight_decay(optimizer, parameter, 0);
}

static bool no_decay_in_norm(ag_optimizer *optimizer, const ag_norm *norm)
{
    return no_decay(optimizer, norm->gain) && no_decay(optimizer, norm->bias);
}

bool ag_transformer_decay_matrices_only(const ag_transformer *model, ag_optimizer *optimizer)
{
    if (!model || !model->blocks) /* AG_NONE, which no optimiser has, makes the error */
        return ag_optimizer_set_weight_decay(optimizer, AG_NONE, 0);
    bool done = no_decay(optimizer, model->tokens.w) && no_decay(optimizer, model->positions.w) &&
                no_decay_in_norm(optimizer, &model->norm);
    for (int64_t i = 0; done && i < model->options.blocks; i++) {
        const ag_block *block = &model->blocks[i];
        done = no_decay_in_norm(optimizer, &block->norm_1) &&
               no_decay_in_norm(optimizer, &block->norm_2) &&
               no_decay(optimizer, block->feed_forward.b_1) &&
               no_decay(optimizer, block->feed_forward.b_2);
    }
    return done;
}
