/* From the command line to settings: what is not given comes from the task. */
#include "settings.h"

#include <string.h>

static const char *const optimizers[] = { "adam", "sgd", "adamw", NULL };
static const char *const normalizers[] = { "softmax", "sigmoid", "relu", "none", NULL };
static const char *const dtypes[] = { "f32", "f64", NULL };

static void list_tasks(FILE *file)
{
    for (int i = 0; i < ag_task_count(); i++)
        fprintf(file, "%s%s", i ? ", " : "", ag_task_at(i)->name);
    fputc('\n', file);
}

static bool find_task(int words, const char *word, ag_settings *s)
{
    s->task = words == 1 ? ag_task_find(word) : NULL;
    if (s->task)
        return true;
    if (words == 1)
        fprintf(stderr, "attograd train: unknown task '%s'; the tasks are: ", word);
    else
        fprintf(stderr, "attograd train: which task? The tasks are: ");
    list_tasks(stderr);
    return false;
}

/* Members that are still -1 or 0 were not given. */
static void complete(ag_settings *s)
{
    if (s->optimizer < 0)
        s->optimizer = s->task->optimizer;
    bool sgd = s->optimizer == AG_USE_SGD;
    const ag_promise *promise = ag_task_promise(s->task, s->positions);
    if (s->steps == 0)
        s->steps = sgd ? s->task->sgd_steps : promise->steps;
    if (s->lr == 0)
        s->lr = sgd ? s->task->sgd_lr : s->task->adam_lr;
    if (s->batch == 0)
        s->batch = s->task->batch;
    if (s->normalizer < 0)
        s->normalizer = (int)s->task->normalizer;
}

/* --no-positions was given. Returns false. */
static bool no_positions_there(const ag_task *task)
{
    const char *comma = "";
    fprintf(stderr, "attograd train: --no-positions: task '%s' %s; those with: ", task->name,
            task->model == AG_MODEL_TRANSFORMER
                ? "trains a transformer, which has no positions that can be left out"
                : "has no positions");
    for (int i = 0; i < ag_task_count(); i++)
        if (ag_task_at(i)->positions) {
            fprintf(stderr, "%s%s", comma, ag_task_at(i)->name);
            comma = ", ";
        }
    fputc('\n', stderr);
    return false;
}

bool ag_settings_read(int argc, char **argv, ag_settings *s)
{
    int dtype = 0;
    bool no_positions = false;
    *s = (ag_settings){ .seed = { 1, false }, .threads = 1, .optimizer = -1, .normalizer = -1 };
    const ag_option options[] = {
        { "--steps", AG_OPTION_INTEGER, &s->steps, 1, 100000000, NULL },
        { "--seed", AG_OPTION_SEED, &s->seed, 0, 0, NULL },
        { "--batch", AG_OPTION_INTEGER, &s->batch, 1, 65536, NULL },
        { "--lr", AG_OPTION_NUMBER, &s->lr, 0, 0, NULL },
        { "--optimizer", AG_OPTION_CHOICE, &s->optimizer, 0, 0, optimizers },
        { "--normalizer", AG_OPTION_CHOICE, &s->normalizer, 0, 0, normalizers },
        { "--no-positions", AG_OPTION_FLAG, &no_positions, 0, 0, NULL },
        { "--threads", AG_OPTION_INTEGER, &s->threads, 1, 256, NULL },
        { "--dtype", AG_OPTION_CHOICE, &dtype, 0, 0, dtypes },
        { "--out", AG_OPTION_TEXT, &s->out, 0, 0, NULL },
        { "--json", AG_OPTION_FLAG, &s->json, 0, 0, NULL },
        { "--expect", AG_OPTION_FLAG, &s->expect, 0, 0, NULL },
    };
    const char *word = NULL;
    int words = ag_options_read(argc, argv, options, sizeof options / sizeof options[0], &word, 1,
                                "attograd train TASK [options]");
    if (words < 0 || !find_task(words, word, s))
        return false;
    if (no_positions && !s->task->positions)
        return no_positions_there(s->task);
    if (s->task->model == AG_MODEL_TRANSFORMER && s->normalizer > AG_SOFTMAX) {
        fprintf(
            stderr,
            "attograd train: --normalizer %s: task '%s' trains a transformer, whose weights are "
            "always a softmax\n",
            normalizers[s->normalizer], s->task->name);
        return false;
    }
    s->dtype = dtype ? AG_F64 : AG_F32;
    s->positions = s->task->positions && !no_positions;
    complete(s);
    return true;
}

const char *ag_settings_optimizer(const ag_settings *s)
{
    return optimizers[s->optimizer];
}
