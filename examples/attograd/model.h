/* What a task trains. The other files of the program see only what every kind
 * of model can do; what a kind is made of stands in a file of its own. */
#ifndef AG_EXAMPLES_MODEL_H
#define AG_EXAMPLES_MODEL_H

#include "settings.h"

typedef struct ag_model ag_model;

/* What a model attends to in one sequence: weights [.., tokens, tokens], the layer
 * that they are of, and where that is in a transformer. */
typedef struct ag_look {
    ag_var weights;
    const ag_attention *layer;
    int64_t block, head; /* block is -1 where the layer is the model */
} ag_look;

/* What a kind of model can do with the first n sequences of a batch. */
typedef struct ag_model_kind {
    bool (*init)(ag_model *model, const ag_settings *settings);

    /* What the model wants of its optimiser; may be NULL. */
    bool (*prepare)(const ag_model *model, const ag_settings *settings, ag_optimizer *optimizer);

    /* What the loss compares with the answers: logits [n, answers, classes] or
     * numbers [n, answers, 1]. */
    ag_var (*predict)(const ag_model *model, const ag_batch *batch, int64_t n);

    /* The classes it answers with when nothing but the question is known,
     * [n, answers]. prediction is that of predict. */
    ag_var (*answer)(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction);

    /* At the first sequence of the batch. */
    ag_look (*look)(const ag_model *model, const ag_batch *batch);
} ag_model_kind;

extern const ag_model_kind ag_layer_model, ag_transformer_model;

struct ag_model {
    const ag_model_kind *kind;
    const ag_task *task;
    ag_context *context;
    ag_params *params;
    ag_attention layer;         /* of ag_layer_model */
    ag_transformer transformer; /* of ag_transformer_model */
};

/* False with an error in the context. */
bool ag_model_init(ag_model *model, ag_context *context, const ag_settings *settings);
ag_optimizer *ag_model_optimizer(const ag_model *model, const ag_settings *settings);

/* The loss of all sequences of the batch. */
ag_var ag_model_loss(const ag_model *model, const ag_batch *batch);

/* The mean loss of the first n sequences, and the value of the task's metric.
 * Nothing is recorded. */
typedef struct ag_score {
    double loss, value;
} ag_score;
ag_score ag_model_score(const ag_model *model, const ag_batch *batch, int64_t n);

ag_look ag_model_look(const ag_model *model, const ag_batch *batch);

#endif
