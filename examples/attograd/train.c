/* attograd train: a model learns a task. */
#include "commands.h"
#include "model.h"
#include "picture.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATE_EVERY = 25 }; /* where the task does not say */

typedef struct training {
    const ag_settings *settings;
    const ag_task *task;
    ag_context *context;
    ag_model model;
    ag_optimizer *optimizer;
    ag_batch batch; /* for learning, and, of the same size, for evaluation */
    bool *seen;     /* which inputs an evaluation has drawn, where the task numbers them */
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
    if (s->task->inputs > 0 && !(t->seen = calloc((size_t)s->task->inputs, sizeof *t->seen)))
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for marks of inputs");
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

/* How many of the first n inputs of the batch were not marked as seen, and marks
 * them; 0 if the task does not number its inputs. */
static int64_t count_new(training *t, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; t->seen && i < n; i++) {
        ag_sequence sequence = ag_batch_sequence(&t->batch, i);
        int64_t input = t->task->input(&sequence);
        count += !t->seen[input];
        t->seen[input] = true;
    }
    return count;
}

/* Loss and metric on sequences that were never learnt from, a batch at a time.
 * False if the loss is no number. */
static bool evaluate(training *t, int64_t step)
{
    int64_t count = step == t->settings->steps ? t->task->last : t->task->fresh;
    ag_random random = stream(t, "fresh", step);
    ag_evaluation sum = { .step = step };
    if (t->seen)
        memset(t->seen, 0, (size_t)t->task->inputs * sizeof *t->seen);
    for (int64_t done = 0; done < count;) {
        int64_t left = count - done;
        int64_t n = left < t->batch.sequences ? left : t->batch.sequences;
        ag_batch_draw(&t->batch, AG_HELD_OUT, &random);
        ag_score score = ag_model_score(&t->model, &t->batch, n);
        sum.loss += (double)n * score.loss;
        sum.value += (double)n * score.value;
        sum.different += count_new(t, n);
        if (!isfinite(sum.loss))
            return stop_at_nonfinite(t, step, sum.loss);
        ag_tape_reset(t->context);
        done += n;
    }
    sum.loss /= (double)count;
    sum.value /= (double)count;
    ag_report_evaluation(t->report, &sum);
    return true;
}

static bool train(training *t)
{
    const int64_t every = t->task->evaluate_every > 0 ? t->task->evaluate_every : EVALUATE_EVERY;
    ag_report_start(t->report, ag_params_size(t->model.params));
    for (int64_t step = 1; step <= t->settings->steps; step++) {
        ag_random random = stream(t, "train", step);
        ag_batch_draw(&t->batch, AG_TO_LEARN, &random);
        ag_var loss = ag_model_loss(&t->model, &t->batch);
        double number = ag_item(loss);
        if (ag_status(t->context) == AG_OK && !isfinite(number))
            return stop_at_nonfinite(t, step, number);
        ag_backward(loss);
        if (t->task->clip > 0)
            ag_params_clip_gradients(t->model.params, t->task->clip);
        ag_optimizer_step(t->optimizer);
        ag_tape_reset(t->context);
        if (ag_status(t->context) != AG_OK)
            return false;
        ag_report_step(t->report, step, number);
        if ((step % every == 0 || step == t->settings->steps) && !evaluate(t, step))
            return false;
        if (t->report->failed_stdout || t->report->failed_log)
            return false;
    }
    return ag_status(t->context) == AG_OK;
}

/* What the model attends to in one more sequence, and the layer that does; false
 * with an error in the context. */
static bool look(training *t, ag_heatmap *map, const ag_attention **layer)
{
    if (!ag_picture_new(map, t->task))
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for a picture");
    ag_random random = stream(t, "shown", 0);
    ag_batch_draw(&t->batch, AG_HELD_OUT, &random);
    ag_look seen = ag_model_look(&t->model, &t->batch);
    if (ag_status(t->context) != AG_OK)
        return false;
    ag_picture_fill(map, &t->batch, &seen);
    *layer = seen.layer;
    ag_tape_reset(t->context);
    return true;
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
    ag_picture_free(&map);
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
    free(t.seen);
    ag_context_free(t.context);
    return good ? 0 : 1;
}
