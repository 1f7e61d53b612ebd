/* attograd train, run as a user would: each task keeps its promise, the JSON
 * is as documented, the files are there, and nothing depends on threads. */
#include "../../examples/attograd/tasks.h"
#include "program.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Under a sanitizer everything is many times slower: fewer seeds. */
#if defined(__SANITIZE_ADDRESS__)
enum { SEEDS = 1 };
#else
enum { SEEDS = 5 };
#endif

typedef struct result {
    char task[32], metric[32], reached[8], reached_at[32], dtype[8];
    double value, target, seconds;
    int64_t steps, params, seed, threads;
} result;

static ag_test_run run(const char *words)
{
    char all[512];
    snprintf(all, sizeof all, "train %s", words);
    return ag_test_program(all, NULL);
}

/* The last line of the output, taken apart; every member must be in its place. */
static result last_line(const char *output)
{
    result r;
    int end = 0;
    const char *done = strstr(output, "{\"event\":\"done\"");
    cr_assert(done != NULL, "no last line in: %s", output);
    int found = sscanf(done,
                       "{\"event\":\"done\",\"task\":\"%31[a-z]\",\"metric\":\"%31[a-z]\","
                       "\"value\":%lf,\"target\":%lf,\"reached\":%7[a-z],\"steps\":%" SCNd64
                       ",\"steps_to_target\":%31[0-9nul],\"params\":%" SCNd64
                       ",\"seconds\":%lf,\"seed\":%" SCNd64 ",\"threads\":%" SCNd64
                       ",\"dtype\":\"%7[f0-9]\"}\n%n",
                       r.task, r.metric, &r.value, &r.target, r.reached, &r.steps, r.reached_at,
                       &r.params, &r.seconds, &r.seed, &r.threads, r.dtype, &end);
    cr_assert(found == 12 && done[end] == '\0', "the last line is: %s", done);
    return r;
}

/* The lines before it are evaluations, each 25 steps and after the last one. */
static void expect_evaluations(const char *output, int64_t steps)
{
    int64_t step = 0;
    while (!strncmp(output, "{\"event\":\"eval\"", 15)) {
        int64_t at;
        double loss, value;
        int end = 0;
        int found = sscanf(
            output, "{\"event\":\"eval\",\"step\":%" SCNd64 ",\"loss\":%lf,\"value\":%lf}\n%n", &at,
            &loss, &value, &end);
        cr_assert(found == 3 && end > 0, "a line is: %s", output);
        step = step + 25 < steps ? step + 25 : steps;
        cr_assert(at == step && isfinite(loss) && isfinite(value));
        output += end;
    }
    cr_expect(step == steps, "the last evaluation is at step %d", (int)step);
    cr_expect(!strncmp(output, "{\"event\":\"done\"", 15), "a line is: %s", output);
}

/* The task keeps its promise for each seed, within so many steps. */
static void expect_promise(const char *words, double low, double high, int64_t steps)
{
    for (int seed = 1; seed <= SEEDS; seed++) {
        char all[128];
        snprintf(all, sizeof all, "%s --seed %d --json --expect", words, seed);
        ag_test_run ran = run(all);
        cr_assert(ran.status == 0, "%s: status %d, %s", all, ran.status, ran.errors);
        result r = last_line(ran.output);
        expect_evaluations(ran.output, steps);
        cr_expect(r.value >= low && r.value <= high, "%s: %g", all, r.value);
        cr_expect(r.steps == steps && r.seed == seed, "%s", all);
        ag_test_run_free(&ran);
    }
}

Test(train, reverse)
{
    expect_promise("reverse", 0.99, 1, 150);
}

Test(train, reverse_with_sgd)
{
    expect_promise("reverse --optimizer sgd", 0.99, 1, 400);
}

Test(train, reverse_without_positions_fails_honestly)
{
    expect_promise("reverse --no-positions", 0.20, 0.28, 600);
    ag_test_run ran = run("reverse --no-positions --expect");
    cr_expect(ran.status == 0 && strstr(ran.output, "honest failure"), "%s", ran.output);
    cr_expect(strstr(ran.output, "0.236"), "the bound is not named");
    cr_expect(strstr(ran.output, "was not reached"));
    ag_test_run_free(&ran);
}

Test(train, lookup)
{
    expect_promise("lookup", 0.99, 1, 300);
}

Test(train, nearest)
{
    expect_promise("nearest", 0.99, 1, 400);
}

Test(train, adding)
{
    expect_promise("adding", 0, 1e-3, 300);
}

Test(train, majority)
{
    expect_promise("majority", 0.99, 1, 500);
}

Test(train, regression)
{
    expect_promise("regression", 0.5, 0.536 * 1.05, 400);
}

Test(train, parity_fails_honestly)
{
    expect_promise("parity", 0.44, 0.56, 1000);
    ag_test_run ran = run("parity --expect");
    cr_expect(ran.status == 0 && strstr(ran.output, "honest failure"), "%s", ran.output);
    ag_test_run_free(&ran);
}

Test(train, expect_is_strict)
{
    ag_test_run ran = run("reverse --steps 30 --json --expect");
    cr_expect(ran.status == 1 && strstr(ran.errors, "did not keep its promise"), "%s", ran.errors);
    result r = last_line(ran.output);
    cr_expect(!strcmp(r.reached, "false") && !strcmp(r.reached_at, "null") && r.target == 0.99);
    cr_expect(r.steps == 30);
    expect_evaluations(ran.output, 30);
    ag_test_run_free(&ran);
    /* reached, but later than promised */
    ran = run("reverse --lr 4e-3 --steps 600 --json --expect");
    r = last_line(ran.output);
    cr_expect(!strcmp(r.reached, "true") && atoi(r.reached_at) > 150, "%s", r.reached_at);
    cr_expect(ran.status == 1, "status %d", ran.status);
    ag_test_run_free(&ran);
    /* that it has not been learnt after one step is no failure yet */
    ran = run("parity --steps 1 --expect");
    cr_expect(ran.status == 1 && strstr(ran.errors, "after at least 1000 steps"), "%s", ran.errors);
    ag_test_run_free(&ran);
}

Test(train, json_says_what_was_asked_for)
{
    ag_test_run ran = run("adding --steps=3 --seed=9 --batch=5 --lr=0.5 --threads=2 --dtype=f64 "
                          "--optimizer=adamw --normalizer=sigmoid --json");
    result r = last_line(ran.output);
    cr_expect(!strcmp(r.task, "adding") && !strcmp(r.metric, "mse") && !strcmp(r.dtype, "f64"));
    cr_expect(r.steps == 3 && r.seed == 9 && r.threads == 2 && r.params == 51);
    expect_evaluations(ran.output, 3);
    ag_test_run_free(&ran);
}

Test(train, other_normalizers_learn_as_well)
{
    static const char *const words[] = { "reverse --normalizer sigmoid --steps 250 --json",
                                         "reverse --normalizer relu --steps 400 --json",
                                         "reverse --normalizer none --steps 400 --json" };
    for (int i = 0; i < 3; i++) {
        ag_test_run ran = run(words[i]);
        result r = last_line(ran.output);
        cr_expect(r.value >= 0.99, "%s: %g", words[i], r.value);
        ag_test_run_free(&ran);
    }
}

/* Everything up to the member "seconds", which is all that may differ. */
static void cut(char *output)
{
    char *seconds = strstr(output, ",\"seconds\"");
    cr_assert(seconds != NULL);
    *seconds = '\0';
}

static void expect_same_bits(const char *words, const char *other_words)
{
    char folder[2][64], all[256], path[128];
    char *matrix[2][3], *output[2];
    unsigned long size[2][3];
    static const char *const names[] = { "w_q", "w_k", "w_v" };
    for (int i = 0; i < 2; i++) {
        ag_test_folder(folder[i], sizeof folder[i]);
        snprintf(all, sizeof all, "%s --json --out %s", i ? other_words : words, folder[i]);
        ag_test_run ran = run(all);
        cr_assert(ran.status == 0, "%s", ran.errors);
        output[i] = ran.output;
        free(ran.errors);
        cut(output[i]);
        for (int m = 0; m < 3; m++) {
            snprintf(path, sizeof path, "%s/%s.npy", folder[i], names[m]);
            matrix[i][m] = ag_test_read(path, &size[i][m]);
            cr_assert(matrix[i][m] != NULL, "%s", path);
        }
        ag_test_folder_remove(folder[i]);
    }
    cr_expect(!strcmp(output[0], output[1]), "'%s' and '%s' differ", words, other_words);
    for (int m = 0; m < 3; m++) {
        cr_expect(size[0][m] == size[1][m] && !memcmp(matrix[0][m], matrix[1][m], size[0][m]),
                  "%s of '%s' and '%s' differ", names[m], words, other_words);
        free(matrix[0][m]);
        free(matrix[1][m]);
    }
    free(output[0]);
    free(output[1]);
}

Test(train, same_bits_again_and_with_two_threads)
{
    expect_same_bits("reverse --steps 50", "reverse --steps 50");
    expect_same_bits("reverse --steps 50", "reverse --steps 50 --threads 2");
    expect_same_bits("adding --steps 50 --dtype f64", "adding --steps 50 --dtype f64 --threads 2");
    expect_same_bits("regression --steps 50", "regression --steps 50 --threads 3");
}

Test(train, another_seed_gives_other_numbers)
{
    ag_test_run one = run("reverse --steps 1 --json"),
                two = run("reverse --steps 1 --seed 2 --json");
    cr_expect(last_line(one.output).value != last_line(two.output).value);
    ag_test_run_free(&one);
    ag_test_run_free(&two);
    ag_test_run largest = run("reverse --steps 1 --json --seed 18446744073709551615");
    cr_expect(strstr(largest.output, "\"seed\":18446744073709551615,"), "%s", largest.output);
    ag_test_run_free(&largest);
}

static void expect_file(const char *folder, const char *name, const char *start, const char *end)
{
    char path[128];
    unsigned long size = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *text = ag_test_read(path, &size);
    cr_assert(text != NULL, "there is no %s", path);
    size_t tail = strlen(end);
    cr_expect(!strncmp(text, start, strlen(start)), "%s begins otherwise", name);
    cr_expect(size > tail && !memcmp(text + size - tail, end, tail), "%s ends otherwise", name);
    cr_expect(!strstr(text, "nan") && !strstr(text, "inf\""), "%s holds no number", name);
    free(text);
}

Test(train, files_of_out)
{
    char folder[64], words[128];
    ag_test_folder(folder, sizeof folder);
    for (int i = 0; i < ag_task_count(); i++) {
        snprintf(words, sizeof words, "%s --steps 30 --out %s/new/%s", ag_task_at(i)->name, folder,
                 ag_task_at(i)->name);
        ag_test_run ran = run(words);
        cr_assert(ran.status == 0, "%s: %s", words, ran.errors);
        snprintf(words, sizeof words, "%s/new/%s", folder, ag_task_at(i)->name);
        expect_file(words, "train.jsonl",
                    ag_task_at(i)->evaluate_every > 25 ? "{\"event\":\"eval\",\"step\":30,"
                                                       : "{\"event\":\"eval\",\"step\":25,",
                    "\"dtype\":\"f32\"}\n");
        expect_file(words, "loss.svg", "<svg ", "</svg>\n");
        expect_file(words, "attention.svg", "<svg ", "</svg>\n");
        expect_file(words, "w_q.npy", "\x93NUMPY", "");
        expect_file(words, "w_k.npy", "\x93NUMPY", "");
        expect_file(words, "w_v.npy", "\x93NUMPY", "");
        ag_test_run_free(&ran);
    }
    ag_test_folder_remove(folder);
}

/* Not on a terminal: whole lines, no colours, no moving of the cursor; and
 * only ASCII where the locale has nothing else. */
Test(train, plain_output)
{
    setenv("LC_ALL", "C", 1);
    ag_test_run ran = run("reverse");
    cr_expect(ran.status == 0 && !*ran.errors, "%s", ran.errors);
    cr_expect(!strncmp(ran.output, "reverse: adam, lr 0.01, batch 64, seed 1\n", 41), "%s",
              ran.output);
    cr_expect(strstr(ran.output, "step   150"), "%s", ran.output);
    cr_expect(strstr(ran.output, "on 1,024 fresh sequences"), "%s", ran.output);
    cr_expect(strstr(ran.output, "attention weights"), "%s", ran.output);
    for (const char *c = ran.output; *c; c++)
        cr_assert(*c == '\n' || (*c >= ' ' && *c <= '~'), "a byte is %d", *c);
    /* the anti-diagonal: the first row attends to the last column */
    const char *row = strchr(strstr(ran.output, "attention weights"), '\n');
    row = strchr(row + 1, '\n');
    cr_expect(!strncmp(strchr(row + 1, '\n') - 2, "@@", 2), "%s", ran.output);
    ag_test_run_free(&ran);
}

Test(train, tasks_are_listed)
{
    ag_test_run text = ag_test_program("tasks", NULL), json = ag_test_program("tasks --json", NULL);
    const char *line = json.output;
    cr_expect(text.status == 0 && json.status == 0);
    for (int i = 0; i < ag_task_count(); i++)
        cr_expect(strstr(text.output, ag_task_at(i)->goes_in), "%s", text.output);
    for (; *line; line = strchr(line, '\n') + 1) {
        char name[32], options[32];
        options[0] = '\0';
        cr_assert(sscanf(line, "{\"task\":\"%31[a-z]\",\"options\":\"%31[a-z-]", name, options) >=
                  1);
        cr_expect(ag_task_find(name) != NULL, "%s", line);
        cr_expect(*options == '\0' || !strcmp(options, "--no-positions"), "%s", line);
    }
    ag_test_run_free(&text);
    ag_test_run_free(&json);
}

Test(train, version_and_help)
{
    ag_test_run version = ag_test_program("version", NULL), help = ag_test_program("help", NULL);
    ag_test_run nothing = ag_test_program("", NULL);
    cr_expect(version.status == 0 && strstr(version.output, AG_VERSION), "%s", version.output);
    cr_expect(help.status == 0 && strstr(help.output, "train TASK"), "%s", help.output);
    cr_expect(nothing.status == 0 && !strcmp(nothing.output, help.output), "%s", nothing.output);
    ag_test_run_free(&version);
    ag_test_run_free(&help);
    ag_test_run_free(&nothing);
    static const char *const words[] = { "--help",       "-h",
                                         "train --help", "train -h",
                                         "tasks --help", "explain --help",
                                         "check --help", "version -h",
                                         "help --help",  "train reverse --steps 3 --help" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ag_test_run again = ag_test_program(words[i], NULL);
        cr_expect(again.status == 0 && strstr(again.output, "train TASK"), "%s: %s", words[i],
                  again.output);
        ag_test_run_free(&again);
    }
}
