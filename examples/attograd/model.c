/* What all kinds of models have in common: the loss, the metric, the optimiser. */
#include "model.h"

bool ag_model_init(ag_model *model, ag_context *context, const ag_settings *settings)
{
    *model = (ag_model){ .kind = &ag_layer_model,
                         .task = settings->task,
                         .context = context,
                         .params = ag_params_new(context) };
    return model->kind->init(model, settings);
}

ag_optimizer *ag_model_optimizer(const ag_model *model, const ag_settings *settings)
{
    ag_adam_options adam = { .lr = settings->lr, .beta1 = 0.9, .beta2 = 0.98 };
    switch ((ag_optimizer_kind)settings->optimizer) {
    case AG_USE_SGD:
        return ag_sgd_new(model->params, &(ag_sgd_options){ .lr = settings->lr });
    case AG_USE_ADAMW:
        return ag_adamw_new(model->params, &adam);
    case AG_USE_ADAM:
        break;
    }
    return ag_adam_new(model->params, &adam);
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

/* The share of answers that are right. */
static double accuracy(ag_var given, ag_var right)
{
    return ag_item(ag_mean(ag_cast(ag_equal(given, right), AG_F64), AG_ALL, 0));
}

ag_score ag_model_score(const ag_model *model, const ag_batch *batch, int64_t n)
{
    ag_score score;
    ag_no_grad_begin(model->context);
    ag_var prediction = model->kind->predict(model, batch, n);
    ag_var right = right_answers(model, batch, n);
    score.value = score.loss = ag_item(loss_of(model, prediction, right));
    if (model->task->metric == AG_ACCURACY)
        score.value = accuracy(model->kind->answer(model, batch, n, prediction), right);
    ag_no_grad_end(model->context);
    return score;
}

ag_look ag_model_look(const ag_model *model, const ag_batch *batch)
{
    return model->kind->look(model, batch);
}
