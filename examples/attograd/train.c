/* attograd train: one attention layer, W_q, W_k and W_v, learns a task. */
#include "commands.h"
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATE_EVERY = 25 };

typedef struct training {
    const ag_settings *settings;
    const ag_task *task;
    ag_context *context;
    ag_params *params;
    ag_attention attention;
    ag_optimizer *optimizer;
    ag_batch batch; /* for learning, and, of the same size, for evaluation */
    ag_report *report;
} training;

static ag_optimizer *new_optimizer(ag_params *params, const ag_settings *s)
{
    ag_adam_options adam = { .lr = s->lr, .beta1 = 0.9, .beta2 = 0.98 };
    switch ((ag_optimizer_kind)s->optimizer) {
    case AG_USE_SGD:
        return ag_sgd_new(params, &(ag_sgd_options){ .lr = s->lr });
    case AG_USE_ADAMW:
        return ag_adamw_new(params, &adam);
    case AG_USE_ADAM:
        break;
    }
    return ag_adam_new(params, &adam);
}

static bool begin(training *t, const ag_settings *s, ag_report *report)
{
    *t = (training){ .settings = s, .task = s->task, .report = report };
    t->context = ag_context_new(&(ag_context_options){
        .dtype = s->dtype, .seed = s->seed.value, .threads = (int)s->threads });
    t->params = ag_params_new(t->context);
    ag_init normal = { AG_INIT_NORMAL, s->task->init_deviation };
    ag_attention_init(
        &t->attention, t->params, "attn",
        &(ag_attention_options){ .d_in = ag_task_width(s->task, s->positions),
                                 .d_k = s->task->d_k,
                                 .d_v = s->task->d_v,
                                 .scale = s->task->scale,
                                 .init = s->task->init_deviation > 0 ? normal : (ag_init){ 0 },
                                 .normalizer = (ag_normalizer)s->normalizer });
    if (s->task->from_zero) {
        ag_tensor_fill(t->context, ag_value_mutable(t->attention.w_k), 0.0);
        ag_tensor_fill(t->context, ag_value_mutable(t->attention.w_v), 0.0);
    }
    t->optimizer = new_optimizer(t->params, s);
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

/* The first n sequences of the batch as variables: x [n, tokens, d_in], and
 * answer, labels [n, answers] or numbers [n, answers, 1]. */
static void variables(const training *t, int64_t n, ag_var *x, ag_var *answer)
{
    const ag_batch *b = &t->batch;
    int64_t answers = ag_task_answers(t->task);
    *x = ag_constant(t->context, AG_SHAPE(n, t->task->tokens, b->width), b->x);
    if (t->task->metric == AG_ACCURACY)
        *answer = ag_indices(t->context, AG_SHAPE(n, answers), b->labels);
    else
        *answer = ag_constant(t->context, AG_SHAPE(n, answers, 1), b->targets);
}

/* W_v leads straight to the logits: the output is the prediction, at each
 * token or at the last one. */
static ag_var predict(const training *t, ag_var x)
{
    ag_var out = ag_attention_forward(&t->attention, x, NULL);
    return t->task->answers_at_all ? out : ag_slice(out, 1, -1, AG_END, 1);
}

static ag_var loss_of(const training *t, ag_var prediction, ag_var answer)
{
    return t->task->metric == AG_ACCURACY ? ag_cross_entropy(prediction, answer)
                                          : ag_mean_squared_error(prediction, answer);
}

/* The share of answers that are right, or the mean squared error. */
static double value_of(const training *t, ag_var prediction, ag_var answer, double loss)
{
    if (t->task->metric == AG_MSE)
        return loss;
    ag_var right = ag_equal(ag_argmax(prediction, -1), answer);
    return ag_item(ag_mean(ag_cast(right, AG_F64), AG_ALL, 0));
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
    double loss = 0, value = 0;
    ag_no_grad_begin(t->context);
    for (int64_t done = 0; done < count;) {
        int64_t left = count - done;
        int64_t n = left < t->batch.sequences ? left : t->batch.sequences;
        ag_var x, answer;
        ag_batch_draw(&t->batch, &random);
        variables(t, n, &x, &answer);
        ag_var prediction = predict(t, x);
        double batch_loss = ag_item(loss_of(t, prediction, answer));
        loss += (double)n * batch_loss;
        value += (double)n * value_of(t, prediction, answer, batch_loss);
        if (!isfinite(loss)) {
            ag_no_grad_end(t->context);
            return stop_at_nonfinite(t, step, loss);
        }
        ag_tape_reset(t->context);
        done += n;
    }
    ag_no_grad_end(t->context);
    ag_report_evaluation(t->report, step, loss / (double)count, value / (double)count);
    return true;
}

static bool train(training *t)
{
    ag_report_start(t->report, ag_params_size(t->params));
    for (int64_t step = 1; step <= t->settings->steps; step++) {
        ag_random random = stream(t, "train", step);
        ag_var x, answer;
        ag_batch_draw(&t->batch, &random);
        variables(t, t->batch.sequences, &x, &answer);
        ag_var loss = loss_of(t, predict(t, x), answer);
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

/* The weights with which the layer looks at one more sequence; false if there
 * is no memory. */
static bool look(training *t, ag_heatmap *map)
{
    int64_t tokens = t->task->tokens;
    double *weights = malloc((size_t)(tokens * tokens) * sizeof *weights);
    *map = (ag_heatmap){ .tokens = tokens,
                         .weights = weights,
                         .names = malloc((size_t)tokens * sizeof *map->names),
                         .last_row_answers = !t->task->answers_at_all };
    if (!weights || !map->names)
        return ag_fail(t->context, AG_ERR_MEMORY, "no memory for a picture");
    ag_random random = stream(t, "shown", 0);
    ag_batch_draw(&t->batch, &random);
    ag_sequence sequence = ag_batch_sequence(&t->batch, 0);
    for (int64_t i = 0; i < tokens; i++)
        t->task->token_name(&sequence, i, map->names[i], AG_TOKEN_NAME);
    ag_var x, answer;
    ag_attention_trace trace;
    variables(t, 1, &x, &answer);
    ag_attention_forward(&t->attention, x, &trace);
    for (int64_t k = 0; k < tokens * tokens; k++)
        weights[k] = ag_tensor_at(ag_value(trace.weights), k);
    ag_tape_reset(t->context);
    return ag_status(t->context) == AG_OK;
}

static bool write_matrices(const training *t)
{
    const struct {
        const char *name;
        ag_var matrix;
    } files[] = { { "w_q.npy", t->attention.w_q },
                  { "w_k.npy", t->attention.w_k },
                  { "w_v.npy", t->attention.w_v } };
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
    bool good = look(t, &map);
    if (good) {
        ag_report_result(t->report, &map);
        good = ag_report_pictures(t->report, &map) && write_matrices(t);
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
