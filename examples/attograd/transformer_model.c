/* A small transformer that continues a sequence: at each token it says which one
 * comes next. It learns all answers of a sequence at once, each from the tokens
 * before it; when it answers by itself, it generates one after the other. */
#include "model.h"

static bool init(ag_model *model, const ag_settings *settings)
{
    (void)settings;
    return ag_transformer_init(&model->transformer, model->params, "", &model->task->transformer);
}

static bool prepare(const ag_model *model, const ag_settings *settings, ag_optimizer *optimizer)
{
    return settings->optimizer != AG_USE_ADAMW ||
           ag_transformer_decay_matrices_only(&model->transformer, optimizer);
}

static ag_var ids_of(const ag_model *model, const ag_batch *batch, int64_t n)
{
    return ag_indices(model->context, AG_SHAPE(n, model->task->tokens), batch->ids);
}

/* The logits at the last tokens, which answer. Nothing is asked of the others,
 * so they have no part in the loss. */
static ag_var predict(const ag_model *model, const ag_batch *batch, int64_t n)
{
    ag_var logits = ag_transformer_forward(&model->transformer, ids_of(model, batch, n));
    return ag_slice(logits, 1, -model->task->answers, AG_END, 1);
}

/* The question ends with the first token that answers. What the model thinks
 * most likely to come next is put behind it, and so on: the batch's own answers
 * are never seen. */
static ag_var answer(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    const int64_t answers = model->task->answers, question = ag_task_question(model->task);
    ag_var ids = ag_slice(ids_of(model, batch, n), 1, 0, question, 1);
    (void)prediction;
    for (int64_t k = 0; k < answers; k++) {
        ag_var logits = ag_transformer_forward(&model->transformer, ids);
        ag_var next = ag_argmax(ag_slice(logits, 1, -1, AG_END, 1), -1); /* [n, 1] */
        ids = ag_concat((ag_var[]){ ids, next }, 2, 1);
    }
    return ag_slice(ids, 1, question, AG_END, 1);
}

/* How much the answers attend to those tokens of the question that are what they
 * answer: weights [tokens, tokens] of one head, for the batch's first sequence. */
static double finds_answers(const ag_task *task, const ag_batch *batch, ag_var weights)
{
    const int64_t question = ag_task_question(task);
    double sum = 0;
    for (int64_t k = 0; k < task->answers; k++)
        for (int64_t j = 0; j < question; j++)
            if (batch->ids[j] == batch->labels[k])
                sum += ag_tensor_at(ag_value(weights), (question - 1 + k) * task->tokens + j);
    return sum;
}

/* Of all heads, the one that attends most to what it answers: other heads count,
 * or look at what was answered last. */
static ag_look look(const ag_model *model, const ag_batch *batch)
{
    const ag_transformer *transformer = &model->transformer;
    ag_attention_trace traces[AG_MOST_BLOCKS];
    ag_look best = { .block = -1 };
    double most = -1;
    ag_transformer_forward_masked(transformer, ids_of(model, batch, 1), NULL, traces);
    for (int64_t block = 0; block < transformer->options.blocks; block++)
        for (int64_t head = 0; head < transformer->options.heads; head++) {
            ag_var weights = ag_slice(traces[block].weights, -3, head, head + 1, 1);
            if (ag_status(model->context) != AG_OK)
                return best;
            double found = finds_answers(model->task, batch, weights);
            if (found > most)
                best = (ag_look){ weights, &transformer->blocks[block].attention, block, head };
            most = found > most ? found : most;
        }
    return best;
}

const ag_model_kind ag_transformer_model = {
    .init = init, .prepare = prepare, .predict = predict, .answer = answer, .look = look
};
