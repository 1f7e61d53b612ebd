/* Lines for people, lines for programs, and pictures. */
#include "report.h"
#include "files.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_SIZE 4096

double ag_report_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

char *ag_report_count(int64_t n, char *text, size_t size)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%" PRId64, n);
    size_t used = 0;
    for (int i = 0; i < length && used + 2 < size; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

/* "reverse without positions" */
static const char *run_name(const ag_report *r, char *text, size_t size)
{
    const ag_task *task = r->settings->task;
    bool bag = task->positions && !r->settings->positions;
    snprintf(text, size, "%s%s", task->name, bag ? " without positions" : "");
    return text;
}

/* ---- The folder of --out ---- */

bool ag_report_path(const ag_report *r, const char *name, char *path, size_t size)
{
    int length = snprintf(path, size, "%s/%s", r->settings->out, name);
    if (length > 0 && (size_t)length < size)
        return true;
    fprintf(stderr, "attograd train: --out: the path is too long\n");
    return false;
}

/* Makes the folder and those it lies in. */
static bool make_folder(const char *path)
{
    char part[PATH_SIZE];
    size_t length = strlen(path);
    if (length >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (size_t i = 1; i <= length; i++)
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0777) != 0 && errno != EEXIST)
                return false;
        }
    return true;
}

static bool cannot_write(const char *path, int reason)
{
    fprintf(stderr, "attograd train: --out: cannot write %s: %s\n", path, strerror(reason));
    return false;
}

/* The folder, and every file that will be in it. */
static bool prepare_folder(ag_report *r)
{
    static const char *const names[] = { "train.jsonl", "loss.svg", "attention.svg",
                                         "w_q.npy",     "w_k.npy",  "w_v.npy" };
    const char *folder = r->settings->out;
    if (!make_folder(folder)) {
        fprintf(stderr, "attograd train: --out: cannot make the folder %s: %s\n", folder,
                strerror(errno));
        return false;
    }
    char path[PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!ag_report_path(r, names[i], path, sizeof path) ||
            !ag_file_can_be_written("attograd train: --out", path))
            return false;
    if (!ag_report_path(r, names[0], path, sizeof path))
        return false;
    r->log = fopen(path, "w");
    return r->log || cannot_write(path, errno);
}

bool ag_report_open(ag_report *r, const ag_settings *settings)
{
    *r = (ag_report){ .settings = settings,
                      .steps_to_target = -1,
                      .last = { .value = NAN, .loss = NAN } };
    r->live = !settings->json && ag_terminal();
    return !settings->out || prepare_folder(r);
}

/* Sends out what was said, and notes the first time that this fails. */
static void flush(ag_report *r)
{
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && !r->failed_stdout)
        r->failed_stdout = errno ? errno : EIO;
    if (r->log && (fflush(r->log) != 0 || ferror(r->log)) && !r->failed_log)
        r->failed_log = errno ? errno : EIO;
}

bool ag_report_written(ag_report *r)
{
    flush(r);
    if (r->failed_stdout)
        fprintf(stderr, "attograd train: cannot write to standard output: %s\n",
                strerror(r->failed_stdout));
    if (r->failed_log)
        fprintf(stderr, "attograd train: --out: cannot write train.jsonl: %s\n",
                strerror(r->failed_log));
    return !r->failed_stdout && !r->failed_log;
}

void ag_report_close(ag_report *r)
{
    if (r->log)
        fclose(r->log);
    r->log = NULL;
}

/* ---- JSON: one object a line ---- */

/* A number, or null where JSON has none. */
static const char *number(double x, char *text)
{
    if (isfinite(x))
        snprintf(text, 32, "%.9g", x);
    else
        strcpy(text, "null");
    return text;
}

static void emit(ag_report *r, const char *line)
{
    if (r->settings->json)
        puts(line);
    if (r->log)
        fprintf(r->log, "%s\n", line);
    flush(r);
}

static void emit_evaluation(ag_report *r, const ag_evaluation *e)
{
    char line[256], a[32], b[32];
    snprintf(line, sizeof line,
             "{\"event\":\"eval\",\"step\":%" PRId64 ",\"loss\":%s,\"value\":%s}", e->step,
             number(e->loss, a), number(e->value, b));
    emit(r, line);
}

static void emit_done(ag_report *r)
{
    const ag_settings *s = r->settings;
    char line[512], value[32], target[32], seconds[32], reached_at[32] = "null";
    if (r->steps_to_target >= 0)
        snprintf(reached_at, sizeof reached_at, "%" PRId64, r->steps_to_target);
    snprintf(line, sizeof line,
             "{\"event\":\"done\",\"task\":\"%s\",\"metric\":\"%s\",\"value\":%s,\"target\":%s,"
             "\"reached\":%s,\"steps\":%" PRId64 ",\"steps_to_target\":%s,\"params\":%" PRId64
             ",\"seconds\":%s,\"seed\":%" PRIu64 ",\"threads\":%" PRId64 ",\"dtype\":\"%s\"}",
             s->task->name, ag_task_metric(r->settings->task), number(r->last.value, value),
             number(s->task->target, target),
             ag_task_reached(s->task, r->last.value) ? "true" : "false", r->last.step, reached_at,
             r->params, number(r->seconds, seconds), s->seed.value, s->threads,
             ag_dtype_name(s->dtype));
    emit(r, line);
}

/* ---- Lines for people ---- */

static void show_line(ag_report *r, int64_t step, double loss)
{
    double seconds = ag_report_now() - r->started, speed = (double)step / fmax(seconds, 1e-9);
    char line[256], text[32], value[32] = "-", left[32] = "";
    if (!isnan(r->last.value))
        snprintf(value, sizeof value, "%.4g", r->last.value);
    if (r->live)
        snprintf(left, sizeof left, "  %.1f s left", (double)(r->settings->steps - step) / speed);
    snprintf(line, sizeof line, "step %5" PRId64 "  loss %-9.4g  %s %-8s  %s steps/s%s", step, loss,
             ag_task_metric(r->settings->task), value,
             ag_report_count((int64_t)speed, text, sizeof text), left);
    if (r->live) /* a line that wraps could not be written over */
        printf("\r%.*s\033[K", ag_terminal_width() - 1, line);
    else
        puts(line);
    flush(r);
    r->shown = ag_report_now();
}

void ag_report_interrupt(const ag_report *r)
{
    if (r->live)
        putchar('\n');
    fflush(stdout);
}

void ag_report_start(ag_report *r, int64_t params)
{
    r->params = params;
    r->started = r->shown = ag_report_now();
    if (r->settings->json)
        return;
    const ag_settings *s = r->settings;
    char name[64];
    printf("%s: %s, lr %.4g, batch %" PRId64 ", seed %" PRIu64 "\n", run_name(r, name, sizeof name),
           ag_settings_optimizer(s), s->lr, s->batch, s->seed.value);
    flush(r);
}

void ag_report_step(ag_report *r, int64_t step, double loss)
{
    ag_curve_add(&r->training, (double)step, loss);
    if (r->live && ag_report_now() - r->shown > 0.05)
        show_line(r, step, loss);
}

void ag_report_evaluation(ag_report *r, const ag_evaluation *e)
{
    r->last = *e;
    r->seconds = ag_report_now() - r->started;
    if (r->steps_to_target < 0 && ag_task_reached(r->settings->task, e->value))
        r->steps_to_target = e->step;
    ag_curve_add(&r->fresh, (double)e->step, e->loss);
    emit_evaluation(r, e);
    if (!r->settings->json)
        show_line(r, e->step, e->loss);
}

static void say_result(const ag_report *r)
{
    const ag_task *task = r->settings->task;
    char name[64], fresh[32], steps[32], params[32];
    printf("%s%s: %s %.4g on %s %s\nafter %s steps in %.2f s, with %s parameters\n",
           r->live ? "\n" : "", run_name(r, name, sizeof name), ag_task_metric(r->settings->task),
           r->last.value, ag_report_count(task->last, fresh, sizeof fresh), ag_task_evaluated(task),
           ag_report_count(r->last.step, steps, sizeof steps), r->seconds,
           ag_report_count(r->params, params, sizeof params));
    const char *relation = ag_task_wants_more(task) ? "at least" : "at most";
    if (r->steps_to_target >= 0)
        printf("the target, %s %.4g, was first reached at step %" PRId64 "\n", relation,
               task->target, r->steps_to_target);
    else
        printf("the target, %s %.4g, was not reached\n", relation, task->target);
}

/* "5000 of 5000 test sequences are right, .." */
static void say_count(const ag_report *r)
{
    const int64_t all = r->settings->task->last;
    printf("\n%" PRId64 " of %" PRId64
           " test sequences are right from the first answer to the last; "
           "%" PRId64 " of them differ\n",
           (int64_t)llround(r->last.value * (double)all), all, r->last.different);
}

void ag_report_result(ag_report *r, const ag_heatmap *map)
{
    const ag_promise *promise = ag_task_promise(r->settings->task, r->settings->positions);
    emit_done(r);
    if (r->settings->json)
        return;
    say_result(r);
    putchar('\n');
    ag_heatmap_draw(map, stdout, ag_terminal_colour());
    if (promise->failure)
        printf("\nThis is an honest failure: accuracy is between %.2f and %.2f after %" PRId64
               " steps.\n%s\n",
               promise->low, promise->high, promise->steps, promise->reason);
    if (r->settings->task->metric == AG_EXACT)
        say_count(r);
}

bool ag_report_promise_kept(const ag_report *r)
{
    const ag_task *task = r->settings->task;
    const ag_promise *promise = ag_task_promise(task, r->settings->positions);
    int64_t steps = r->settings->optimizer == AG_USE_SGD ? task->sgd_steps : promise->steps;
    bool in_range = r->last.value >= promise->low && r->last.value <= promise->high;
    bool in_time = promise->failure ? r->last.step >= steps
                                    : r->steps_to_target >= 0 && r->steps_to_target <= steps;
    if (in_range && in_time)
        return true;
    fprintf(stderr,
            "attograd train: %s did not keep its promise: %s %.4g after %" PRId64
            " steps, expected %.4g to %.4g %s %" PRId64 " steps\n",
            task->name, ag_task_metric(r->settings->task), r->last.value, r->last.step,
            promise->low, promise->high, promise->failure ? "after at least" : "within", steps);
    return false;
}

/* ---- Pictures ---- */

typedef struct picture {
    const ag_report *report;
    const ag_heatmap *map;
} picture;

static bool draw_loss(FILE *file, const void *what)
{
    const ag_report *r = ((const picture *)what)->report;
    const ag_promise *promise = ag_task_promise(r->settings->task, r->settings->positions);
    char title[96], name[64];
    snprintf(title, sizeof title, "%s: the loss", run_name(r, name, sizeof name));
    ag_loss_picture loss = { .title = title,
                             .training = &r->training,
                             .fresh = &r->fresh,
                             .evaluated = ag_task_evaluated(r->settings->task),
                             .known_loss = promise->known_loss,
                             .known = promise->known,
                             .logarithmic = r->settings->task->target < 0.01 };
    return ag_svg_loss(file, &loss);
}

static bool draw_attention(FILE *file, const void *what)
{
    const picture *p = what;
    char title[96], name[64];
    snprintf(title, sizeof title, "%s: who attends to whom",
             run_name(p->report, name, sizeof name));
    return ag_svg_heatmap(file, p->map, title);
}

static bool write_picture(const ag_report *r, const ag_heatmap *map, const char *name,
                          ag_write_function *draw)
{
    char path[PATH_SIZE];
    return ag_report_path(r, name, path, sizeof path) &&
           ag_file_write("attograd train: --out", path, draw, &(picture){ r, map });
}

bool ag_report_pictures(const ag_report *r, const ag_heatmap *map)
{
    return !r->settings->out || (write_picture(r, map, "loss.svg", draw_loss) &&
                                 write_picture(r, map, "attention.svg", draw_attention));
}
