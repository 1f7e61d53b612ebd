/* One attention layer: W_q, W_k and W_v, and nothing else that learns. W_v leads
 * straight to the logits: the output at a token is the prediction. */
#include "model.h"

static bool init(ag_model *model, const ag_settings *settings)
{
    const ag_task *task = model->task;
    ag_init normal = { AG_INIT_NORMAL, task->init_deviation };
    ag_attention *layer = &model->layer;
    ag_attention_init(
        layer, model->params, "attn",
        &(ag_attention_options){ .d_in = ag_task_width(task, settings->positions),
                                 .d_k = task->d_k,
                                 .d_v = task->d_v,
                                 .scale = task->scale,
                                 .init = task->init_deviation > 0 ? normal : (ag_init){ 0 },
                                 .normalizer = (ag_normalizer)settings->normalizer });
    if (task->from_zero) {
        ag_tensor_fill(model->context, ag_value_mutable(layer->w_k), 0.0);
        ag_tensor_fill(model->context, ag_value_mutable(layer->w_v), 0.0);
    }
    return ag_status(model->context) == AG_OK;
}

static ag_var tokens_of(const ag_model *model, const ag_batch *batch, int64_t n)
{
    return ag_constant(model->context, AG_SHAPE(n, model->task->tokens, batch->width), batch->x);
}

static ag_var predict(const ag_model *model, const ag_batch *batch, int64_t n)
{
    const ag_task *task = model->task;
    ag_var out = ag_attention_forward(&model->layer, tokens_of(model, batch, n), NULL);
    return task->answers == task->tokens ? out : ag_slice(out, 1, -task->answers, AG_END, 1);
}

static ag_var answer(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    (void)model, (void)batch, (void)n;
    return ag_argmax(prediction, -1);
}

static ag_look look(const ag_model *model, const ag_batch *batch)
{
    ag_attention_trace trace;
    ag_attention_forward(&model->layer, tokens_of(model, batch, 1), &trace);
    return (ag_look){ .weights = trace.weights, .layer = &model->layer, .block = -1 };
}

const ag_model_kind ag_layer_model = {
    .init = init, .predict = predict, .answer = answer, .look = look
};
