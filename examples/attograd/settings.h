/* What "attograd train" is told: the task, and what differs from its defaults. */
#ifndef AG_EXAMPLES_SETTINGS_H
#define AG_EXAMPLES_SETTINGS_H

#include "options.h"
#include "tasks.h"

typedef struct ag_settings {
    const ag_task *task;
    int64_t steps, batch, threads;
    ag_seed seed;
    double lr;
    int optimizer;  /* an ag_optimizer_kind */
    int normalizer; /* an ag_normalizer */
    bool positions;
    ag_dtype dtype;
    const char *out; /* a folder, or NULL */
    bool json, expect;
} ag_settings;

/* From the words after "train"; false after a mistake, which was reported. */
bool ag_settings_read(int argc, char **argv, ag_settings *settings);

/* "adam", "sgd" or "adamw" */
const char *ag_settings_optimizer(const ag_settings *settings);

#endif
