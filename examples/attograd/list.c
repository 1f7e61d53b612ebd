/* attograd tasks: what can be learnt, one line each. */
#include "commands.h"
#include "options.h"
#include "tasks.h"

#include <inttypes.h>

typedef struct line {
    const ag_task *task;
    bool positions;
} line;

static void result_text(const line *l, char *text, size_t size)
{
    const ag_promise *p = ag_task_promise(l->task, l->positions);
    if (p->failure)
        snprintf(text, size, "accuracy is between %.2f and %.2f after %" PRId64 " steps: it cannot",
                 p->low, p->high, p->steps);
    else if (l->task->metric == AG_EXACT)
        snprintf(text, size, "%" PRId64 " of %" PRId64 " test sequences within %" PRId64 " steps",
                 l->task->last, l->task->last, p->steps);
    else if (l->task->metric == AG_ACCURACY)
        snprintf(text, size, "accuracy >= %.2f within %" PRId64 " steps", p->low, p->steps);
    else
        snprintf(text, size, "mse <= %.4g within %" PRId64 " steps", p->high, p->steps);
}

static void print_text(const line *l)
{
    char name[64], result[96];
    snprintf(name, sizeof name, "%s%s", l->task->name,
             l->positions == l->task->positions ? "" : " --no-positions");
    result_text(l, result, sizeof result);
    printf("%-22s  %s -> %s: %s\n", name, l->task->goes_in, l->task->comes_out, result);
}

static void print_json(const line *l)
{
    const ag_task *t = l->task;
    const ag_promise *p = ag_task_promise(t, l->positions);
    printf("{\"task\":\"%s\",\"options\":\"%s\",\"in\":\"%s\",\"out\":\"%s\",\"metric\":\"%s\","
           "\"target\":%.9g,\"low\":%.9g,\"high\":%.9g,\"steps\":%" PRId64 "}\n",
           t->name, l->positions == t->positions ? "" : "--no-positions", t->goes_in, t->comes_out,
           ag_task_metric(t), t->target, p->low, p->high, p->steps);
}

int ag_cmd_tasks(int argc, char **argv)
{
    bool json = false;
    const ag_option options[] = { { "--json", AG_OPTION_FLAG, &json, 0, 0, NULL } };
    if (ag_options_read(argc, argv, options, 1, NULL, 0, "attograd tasks [--json]") < 0)
        return 2;
    for (int i = 0; i < ag_task_count(); i++) {
        const ag_task *task = ag_task_at(i);
        line lines[] = { { task, task->positions }, { task, false } };
        for (int k = 0; k < (task->without_positions ? 2 : 1); k++)
            (json ? print_json : print_text)(&lines[k]);
    }
    return 0;
}
