/* Making the layer of a case, and putting other variables in the place of its parameters. */
#include "layer_subject.h"

bool ag_layer_subject_init(ag_layer_subject *s, ag_params *params)
{
    const ag_layer_case *layer = s->layer;
    if (layer->attention.d_in)
        return ag_attention_init(&s->attention, params, "attn", &layer->attention);
    if (layer->linear.d_in)
        return ag_linear_init(&s->linear, params, "linear", &layer->linear);
    if (layer->embedding.d)
        return ag_embedding_init(&s->embedding, params, "embedding", &layer->embedding);
    if (layer->norm.d)
        return ag_norm_init(&s->norm, params, "norm", &layer->norm);
    if (layer->feed_forward.d)
        return ag_feed_forward_init(&s->feed_forward, params, "ff", &layer->feed_forward);
    if (layer->block.d)
        return ag_block_init(&s->block, params, "block", &layer->block);
    return ag_transformer_init(&s->transformer, params, "", &layer->transformer);
}

/* ---- Other variables for parameters ---- */

/* Puts by where the parameter stands among the places; how many there were. */
static int replace(ag_var *const *places, int n, ag_var parameter, ag_var by)
{
    int found = 0;
    for (int i = 0; i < n; i++) {
        ag_var v = *places[i];
        if (v.context != parameter.context || v.index != parameter.index ||
            v.generation != parameter.generation)
            continue;
        *places[i] = by;
        found++;
    }
    return found;
}

static int in_attention(ag_attention *a, ag_var parameter, ag_var by)
{
    return replace(
        (ag_var *[]){ &a->w_q, &a->w_k, &a->w_v, &a->w_o, &a->b_q, &a->b_k, &a->b_v, &a->b_o }, 8,
        parameter, by);
}

static int in_norm(ag_norm *norm, ag_var parameter, ag_var by)
{
    return replace((ag_var *[]){ &norm->gain, &norm->bias }, 2, parameter, by);
}

static int in_feed_forward(ag_feed_forward *f, ag_var parameter, ag_var by)
{
    return replace((ag_var *[]){ &f->w_1, &f->b_1, &f->w_2, &f->b_2 }, 4, parameter, by);
}

static int in_block(ag_block *b, ag_var parameter, ag_var by)
{
    return in_norm(&b->norm_1, parameter, by) + in_norm(&b->norm_2, parameter, by) +
           in_attention(&b->attention, parameter, by) +
           in_feed_forward(&b->feed_forward, parameter, by);
}

static int in_transformer(ag_transformer *t, ag_var parameter, ag_var by)
{
    int found = replace((ag_var *[]){ &t->tokens.w, &t->positions.w, &t->unembedding.w }, 3,
                        parameter, by) +
                in_norm(&t->norm, parameter, by);
    for (int64_t i = 0; t->blocks && i < t->options.blocks; i++)
        found += in_block(&t->blocks[i], parameter, by);
    return found;
}

bool ag_layer_case_replace(ag_case_setup *setup, ag_var parameter, ag_var by)
{
    ag_layer_subject *s = setup->user;
    ag_var *const others[] = { &s->linear.w, &s->linear.b, &s->embedding.w };
    return in_attention(&s->attention, parameter, by) + in_norm(&s->norm, parameter, by) +
               in_feed_forward(&s->feed_forward, parameter, by) +
               in_block(&s->block, parameter, by) + in_transformer(&s->transformer, parameter, by) +
               replace(others, 3, parameter, by) ==
           1;
}
