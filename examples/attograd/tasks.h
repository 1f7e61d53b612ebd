/* The toy tasks: sequences drawn at random, and the answers a model should
 * learn to give. Most can be solved (or provably not) by one attention layer
 * with W_q, W_k and W_v alone; one trains a small transformer. */
#ifndef AG_EXAMPLES_TASKS_H
#define AG_EXAMPLES_TASKS_H

#include <attograd.h>

/* What a task trains: see layer_model.c and transformer_model.c. */
typedef enum ag_model_name { AG_MODEL_LAYER, AG_MODEL_TRANSFORMER } ag_model_name;

typedef enum ag_metric {
    AG_ACCURACY, /* the share of answers that are right */
    AG_MSE,
    AG_EXACT /* the share of sequences with every answer right, each generated
              * from the question and the answers generated before it */
} ag_metric;

typedef enum ag_optimizer_kind { AG_USE_ADAM, AG_USE_SGD, AG_USE_ADAMW } ag_optimizer_kind;

/* What the result should be: value between low and high after steps. A failure
 * is a task that this layer cannot do; reason says why, in whole sentences. */
typedef struct ag_promise {
    double low, high;
    int64_t steps;
    bool failure;
    const char *reason;
    double known_loss; /* a loss worth a line in the picture, or 0 .. */
    const char *known; /* .. and what it is the loss of */
} ag_promise;

/* Where inputs are few, some are held out: never learnt from, and the only ones
 * that are evaluated. Where there are many, every sequence is new anyway. */
typedef enum ag_split { AG_TO_LEARN, AG_HELD_OUT } ag_split;

/* One sequence. x [tokens, width] is all zeros before it is drawn. */
typedef struct ag_sequence {
    int64_t tokens, width;
    ag_split split;
    double *x;       /* the tokens as vectors of features .. */
    int64_t *ids;    /* .. or as numbers: [tokens] */
    int64_t *labels; /* a class for each answer .. */
    double *targets; /* .. or a number */
} ag_sequence;

enum { AG_MOST_TOKENS = 64, AG_MOST_BLOCKS = 8 }; /* of any task */

typedef struct ag_task {
    const char *name, *goes_in, *comes_out;
    ag_model_name model;
    int64_t tokens;
    int64_t features; /* of a token, without its position */
    bool positions;   /* a one-hot position follows the features */
    int64_t answers;  /* an answer at each of so many last tokens */
    int64_t d_k, d_v;
    double scale;          /* of the scores; 0: 1 / sqrt(d_k) */
    double init_deviation; /* of the matrices' first numbers; 0: 1 / sqrt(width) */
    bool from_zero;        /* W_k and W_v start as zeros: all weights equal, all outputs 0 */
    ag_normalizer normalizer;
    ag_transformer_options transformer;
    ag_metric metric;
    double target;
    int optimizer; /* an ag_optimizer_kind */
    double adam_lr, sgd_lr;
    int64_t sgd_steps;
    double beta2;               /* of Adam and AdamW; 0: 0.98 */
    double weight_decay;        /* of AdamW; 0: its default */
    double clip;                /* the largest norm of all gradients together; 0: any */
    int64_t evaluate_every;     /* steps; 0: 25 */
    int64_t batch, fresh, last; /* sequences of a step, an evaluation, the last evaluation */
    ag_promise promise;
    const ag_promise *without_positions;
    void (*draw)(ag_random *random, ag_sequence *sequence);
    void (*token_name)(const ag_sequence *sequence, int64_t token, char *text, size_t size);
    /* In which order a picture has the tokens as columns; NULL: as they stand. */
    void (*column_order)(const ag_sequence *sequence, int64_t *order);
    int64_t inputs; /* how many different ones there are, if few; .. */
    int64_t (*input)(const ag_sequence *sequence); /* .. and which one this is */
} ag_task;

int ag_task_count(void);
const ag_task *ag_task_at(int i);
const ag_task *ag_task_find(const char *name); /* NULL if there is none */

/* The size of a token. Without positions a constant 1 takes their place. */
int64_t ag_task_width(const ag_task *task, bool positions);

/* How many tokens there are before the second answer: all that is known when a
 * model begins to answer. */
int64_t ag_task_question(const ag_task *task);

/* What it is evaluated on: "test sequences" if they were held out, "fresh sequences"
 * if there are so many that all are new. */
const char *ag_task_evaluated(const ag_task *task);

/* "accuracy", "mse" or "exact" */
const char *ag_task_metric(const ag_task *task);
bool ag_task_reached(const ag_task *task, double value); /* value is the target or better */

/* Whether the target is the least that is asked for; otherwise it is the most. */
bool ag_task_wants_more(const ag_task *task);
const ag_promise *ag_task_promise(const ag_task *task, bool positions);

/* Sequences side by side: x [sequences, tokens, width] or ids [sequences, tokens],
 * labels or targets [sequences, answers]. */
typedef struct ag_batch {
    const ag_task *task;
    bool positions;
    ag_split split;
    int64_t sequences, width;
    double *x, *targets;
    int64_t *ids, *labels;
} ag_batch;

/* False if there is no memory. */
bool ag_batch_new(ag_batch *batch, const ag_task *task, bool positions, int64_t sequences);
void ag_batch_free(ag_batch *batch);

/* Fills the batch with fresh sequences. */
void ag_batch_draw(ag_batch *batch, ag_split split, ag_random *random);
ag_sequence ag_batch_sequence(const ag_batch *batch, int64_t i);

#endif
