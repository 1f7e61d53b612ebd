/* attograd train: a model learns a task. */
#include "commands.h"
#include "model.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATE_EVERY = 25 };

typedef struct training {
    const ag_settings *settings;
    const ag_task *task;
    ag_context *context;
    ag_model model;
    ag_optimizer *optimizer;
    ag_batch batch; /* for learning, and, of the same size, for evaluation */
    ag_report *report;
} training;

static bool begin(training *t, const ag_settings *s, ag_report *report)
{
    *t = (training){ .settings = s, .task = s->task, .report = report };
    t->context = ag_context_new(&(ag_context_options){
        .dtype = s->dtype, .seed = s->seed.value, .threads = (int)s->threads });
    if (!ag_model_init(&t->model, t->context, s))
        return false;
    t->optimizer = ag_model_optimizer(&t->model, s);
    if (!ag_batch_new(&t->batch, s->task, s->positions, s->batch))
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for a batch");
    return ag_status(t->context) == AG_OK;
}

/* A stream of random numbers of its own for each purpose and step. */
static ag_random stream(const training *t, const char *purpose, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", t->task->name, purpose);
    return ag_random_stream(t->settings->seed.value, name, (uint64_t)step);
}

/* Says where a loss that is no number comes from. Returns false. */
static bool stop_at_nonfinite(const training *t, int64_t step, double loss)
{
    char text[128];
    const char *is = isnan(loss) ? "not a number" : "infinite";
    ag_var first = ag_first_nonfinite(t->context);
    if (!*ag_op_name(first)) /* a parameter: what is drawn is finite */
        return ag_fail(t->context, AG_ERR_ARGUMENT,
                       "the loss is %s at step %lld: the optimizer made %s not finite; "
                       "a smaller --lr may help",
                       is, (long long)step, ag_describe(first, text, sizeof text));
    return ag_fail(t->context, AG_ERR_ARGUMENT,
                   "the loss is %s at step %lld: the first operation to give a result that is "
                   "not finite was %s, in %s; a smaller --lr may help",
                   is, (long long)step, ag_op_name(first), ag_describe(first, text, sizeof text));
}

/* Loss and metric on sequences that were never learnt from, a batch at a time.
 * False if the loss is no number. */
static bool evaluate(training *t, int64_t step)
{
    int64_t count = step == t->settings->steps ? t->task->last : t->task->fresh;
    ag_random random = stream(t, "fresh", step);
    ag_score sum = { 0 };
    for (int64_t done = 0; done < count;) {
        int64_t left = count - done;
        int64_t n = left < t->batch.sequences ? left : t->batch.sequences;
        ag_batch_draw(&t->batch, &random);
        ag_score score = ag_model_score(&t->model, &t->batch, n);
        sum.loss += (double)n * score.loss;
        sum.value += (double)n * score.value;
        if (!isfinite(sum.loss))
            return stop_at_nonfinite(t, step, sum.loss);
        ag_tape_reset(t->context);
        done += n;
    }
    ag_report_evaluation(t->report, step, sum.loss / (double)count, sum.value / (double)count);
    return true;
}

static bool train(training *t)
{
    ag_report_start(t->report, ag_params_size(t->model.params));
    for (int64_t step = 1; step <= t->settings->steps; step++) {
        ag_random random = stream(t, "train", step);
        ag_batch_draw(&t->batch, &random);
        ag_var loss = ag_model_loss(&t->model, &t->batch);
        double number = ag_item(loss);
        if (ag_status(t->context) == AG_OK && !isfinite(number))
            return stop_at_nonfinite(t, step, number);
        ag_backward(loss);
        ag_optimizer_step(t->optimizer);
        ag_tape_reset(t->context);
        if (ag_status(t->context) != AG_OK)
            return false;
        ag_report_step(t->report, step, number);
        if ((step % EVALUATE_EVERY == 0 || step == t->settings->steps) && !evaluate(t, step))
            return false;
        if (t->report->failed_stdout || t->report->failed_log)
            return false;
    }
    return ag_status(t->context) == AG_OK;
}

/* The weights with which the model looks at one more sequence, and the layer
 * they are of; false if there is no memory. */
static bool look(training *t, ag_heatmap *map, const ag_attention **layer)
{
    int64_t tokens = t->task->tokens;
    double *weights = malloc((size_t)(tokens * tokens) * sizeof *weights);
    *map = (ag_heatmap){ .tokens = tokens,
                         .weights = weights,
                         .names = malloc((size_t)tokens * sizeof *map->names),
                         .first_answer = tokens - t->task->answers };
    if (!weights || !map->names)
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for a picture");
    ag_random random = stream(t, "shown", 0);
    ag_batch_draw(&t->batch, &random);
    ag_sequence sequence = ag_batch_sequence(&t->batch, 0);
    for (int64_t i = 0; i < tokens; i++)
        t->task->token_name(&sequence, i, map->names[i], AG_TOKEN_NAME);
    ag_look seen = ag_model_look(&t->model, &t->batch);
    *layer = seen.layer;
    for (int64_t k = 0; k < tokens * tokens; k++)
        weights[k] = ag_tensor_at(ag_value(seen.weights), k);
    ag_tape_reset(t->context);
    return ag_status(t->context) == AG_OK;
}

static bool write_matrices(const training *t, const ag_attention *layer)
{
    const struct {
        const char *name;
        ag_var matrix;
    } files[] = { { "w_q.npy", layer->w_q }, { "w_k.npy", layer->w_k }, { "w_v.npy", layer->w_v } };
    for (int i = 0; t->settings->out && i < 3; i++) {
        char path[4096];
        if (!ag_report_path(t->report, files[i].name, path, sizeof path) ||
            !ag_npy_write(t->context, path, ag_value(files[i].matrix)))
            return false;
    }
    return true;
}

/* Trains, shows, writes; false after anything that is not as it should be. */
static bool run(training *t)
{
    if (!train(t))
        return false;
    ag_heatmap map;
    const ag_attention *layer = NULL;
    bool good = look(t, &map, &layer);
    if (good) {
        ag_report_result(t->report, &map);
        good = ag_report_pictures(t->report, &map) && write_matrices(t, layer);
    }
    free((void *)map.weights);
    free(map.names);
    return good && (!t->settings->expect || ag_report_promise_kept(t->report));
}

int ag_cmd_train(int argc, char **argv)
{
    static ag_report report;
    ag_settings settings;
    if (!ag_settings_read(argc, argv, &settings))
        return 2;
    if (!ag_report_open(&report, &settings))
        return 1;
    training t;
    bool good = begin(&t, &settings, &report) && run(&t);
    if (!t.context || ag_status(t.context) != AG_OK) {
        ag_report_interrupt(&report);
        fprintf(stderr, "attograd train: %s\n",
                t.context ? ag_error_message(t.context) : "no memory");
    }
    good = ag_report_written(&report) && good;
    ag_report_close(&report);
    ag_batch_free(&t.batch);
    ag_context_free(t.context);
    return good ? 0 : 1;
}
