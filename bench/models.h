/* The models whose training step is timed. */
#ifndef AG_BENCH_MODELS_H
#define AG_BENCH_MODELS_H

#include <attograd.h>

typedef struct bench_model {
    const char *name;
    int64_t batch, tokens; /* sequences in a batch, tokens in a sequence */
    int64_t vocab, d, heads, blocks;
    int64_t parameters; /* what the model must have; see bench_training_begin */
} bench_model;

enum { BENCH_MODEL_COUNT = 6 };
extern const bench_model bench_models[BENCH_MODEL_COUNT];

/* Floating-point operations of a training step, by the usual estimate:
 *
 *   6 parameters tokens + 12 blocks t d tokens
 *
 * where tokens are those of the batch and t those of a sequence. A multiply-add is 2; forward
 * does one with each parameter and token, backward two; so do q k^T and weights v with t d. */
double bench_model_work(const bench_model *model);

/* A model in training, in a context of its own. */
typedef struct bench_training {
    const bench_model *model;
    ag_context *context;
    ag_params *params;
    ag_transformer transformer;
    ag_optimizer *adamw;
    int64_t *tokens, *labels; /* one batch, the same in each step */
    uint64_t allocations;     /* calls to the context's allocator so far */
} bench_training;

/* False, with a line on stderr, if anything is not as it should be. */
bool bench_training_begin(bench_training *training, const bench_model *model, int threads);
bool bench_training_good(const bench_training *training);
void bench_training_end(bench_training *training);

/* Forward, cross-entropy, backward, AdamW. training is a bench_training *. */
void bench_training_step(void *training);

/* What one step needs, beyond what is kept: parameters, gradients and optimiser. */
typedef struct bench_step_memory {
    size_t peak;          /* bytes */
    uint64_t allocations; /* calls to the allocator */
} bench_step_memory;

/* Of a training that is warm: it has made three steps. */
bench_step_memory bench_training_memory(bench_training *training);

#endif
