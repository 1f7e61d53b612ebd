/* What all kinds of models have in common: the loss, the metric, the optimiser. */
#include "model.h"

bool ag_model_init(ag_model *model, ag_context *context, const ag_settings *settings)
{
    static const ag_model_kind *const kinds[] = {
        [AG_MODEL_LAYER] = &ag_layer_model, [AG_MODEL_TRANSFORMER] = &ag_transformer_model
    };
    *model = (ag_model){ .kind = kinds[settings->task->model],
                         .task = settings->task,
                         .context = context,
                         .params = ag_params_new(context) };
    return model->kind->init(model, settings);
}

static ag_optimizer *new_optimizer(const ag_model *model, const ag_settings *settings)
{
    const double beta2 = model->task->beta2;
    ag_adam_options adam = { .lr = settings->lr, .beta1 = 0.9, .beta2 = beta2 > 0 ? beta2 : 0.98 };
    switch ((ag_optimizer_kind)settings->optimizer) {
    case AG_USE_SGD:
        return ag_sgd_new(model->params, &(ag_sgd_options){ .lr = settings->lr });
    case AG_USE_ADAMW:
        adam.weight_decay = model->task->weight_decay;
        return ag_adamw_new(model->params, &adam);
    case AG_USE_ADAM:
        break;
    }
    return ag_adam_new(model->params, &adam);
}

ag_optimizer *ag_model_optimizer(const ag_model *model, const ag_settings *settings)
{
    ag_optimizer *optimizer = new_optimizer(model, settings);
    if (optimizer && model->kind->prepare)
        model->kind->prepare(model, settings, optimizer);
    return optimizer;
}

/* Labels [n, answers] or numbers [n, answers, 1]. */
static ag_var right_answers(const ag_model *model, const ag_batch *batch, int64_t n)
{
    if (model->task->metric == AG_MSE)
        return ag_constant(model->context, AG_SHAPE(n, model->task->answers, 1), batch->targets);
    return ag_indices(model->context, AG_SHAPE(n, model->task->answers), batch->labels);
}

static ag_var loss_of(const ag_model *model, ag_var prediction, ag_var right)
{
    return model->task->metric == AG_MSE ? ag_mean_squared_error(prediction, right)
                                         : ag_cross_entropy(prediction, right);
}

ag_var ag_model_loss(const ag_model *model, const ag_batch *batch)
{
    ag_var prediction = model->kind->predict(model, batch, batch->sequences);
    return loss_of(model, prediction, right_answers(model, batch, batch->sequences));
}

/* The share of answers that are right, or of sequences with all answers right:
 * given and right are [n, answers]. */
static double share_right(ag_metric metric, ag_var given, ag_var right)
{
    ag_var same = ag_cast(ag_equal(given, right), AG_F64);
    if (metric == AG_EXACT)
        same = ag_neg(ag_max(ag_neg(same), -1, 0)); /* the least: 1 only if all are */
    return ag_item(ag_mean(same, AG_ALL, 0));
}

ag_score ag_model_score(const ag_model *model, const ag_batch *batch, int64_t n)
{
    ag_score score;
    ag_no_grad_begin(model->context);
    ag_var prediction = model->kind->predict(model, batch, n);
    ag_var right = right_answers(model, batch, n);
    score.value = score.loss = ag_item(loss_of(model, prediction, right));
    if (model->task->metric != AG_MSE)
        score.value = share_right(model->task->metric,
                                  model->kind->answer(model, batch, n, prediction), right);
    ag_no_grad_end(model->context);
    return score;
}

ag_look ag_model_look(const ag_model *model, const ag_batch *batch)
{
    return model->kind->look(model, batch);
}
