/* The toy tasks: sequences drawn at random, and the answers a layer should
 * learn to give. Each can be solved (or provably not) by one attention layer
 * with W_q, W_k and W_v alone. */
#ifndef AG_EXAMPLES_TASKS_H
#define AG_EXAMPLES_TASKS_H

#include <attograd.h>

typedef enum ag_metric { AG_ACCURACY, AG_MSE } ag_metric;

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

/* One sequence. x [tokens, width] is all zeros before it is drawn. */
typedef struct ag_sequence {
    int64_t tokens, width;
    double *x;
    int64_t *labels; /* a class for each answer .. */
    double *targets; /* .. or a number */
} ag_sequence;

typedef struct ag_task {
    const char *name, *goes_in, *comes_out;
    int64_t tokens;
    int64_t features; /* of a token, without its position */
    bool positions;   /* a one-hot position follows the features */
    int64_t answers;  /* an answer at each of so many last tokens */
    int64_t d_k, d_v;
    double scale;          /* of the scores; 0: 1 / sqrt(d_k) */
    double init_deviation; /* of the matrices' first numbers; 0: 1 / sqrt(width) */
    bool from_zero;        /* W_k and W_v start as zeros: all weights equal, all outputs 0 */
    ag_normalizer normalizer;
    ag_metric metric;
    double target;
    double adam_lr, sgd_lr;
    int64_t sgd_steps;
    int64_t batch, fresh, last; /* sequences of a step, an evaluation, the last evaluation */
    ag_promise promise;
    const ag_promise *without_positions;
    void (*draw)(ag_random *random, ag_sequence *sequence);
    void (*token_name)(const ag_sequence *sequence, int64_t token, char *text, size_t size);
} ag_task;

int ag_task_count(void);
const ag_task *ag_task_at(int i);
const ag_task *ag_task_find(const char *name); /* NULL if there is none */

/* The size of a token. Without positions a constant 1 takes their place. */
int64_t ag_task_width(const ag_task *task, bool positions);
const ag_promise *ag_task_promise(const ag_task *task, bool positions);

/* Sequences side by side: x [sequences, tokens, width], labels or targets
 * [sequences, answers]. */
typedef struct ag_batch {
    const ag_task *task;
    bool positions;
    int64_t sequences, width;
    double *x, *targets;
    int64_t *labels;
} ag_batch;

/* False if there is no memory. */
bool ag_batch_new(ag_batch *batch, const ag_task *task, bool positions, int64_t sequences);
void ag_batch_free(ag_batch *batch);

/* Fills the batch with fresh sequences. */
void ag_batch_draw(ag_batch *batch, ag_random *random);
ag_sequence ag_batch_sequence(const ag_batch *batch, int64_t i);

#endif
