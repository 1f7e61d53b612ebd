/* The program and what it should refuse: an exit status, and one line on
 * stderr that says what would have been right. */
#include "program.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int lines(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

/* The words are refused with the status, in one line that holds each part. */
static void expect_refused(const char *words, const char *redirect, int status, const char *part,
                           const char *other_part)
{
    ag_test_run run = ag_test_program(words, redirect);
    cr_expect(run.status == status, "'%s' ended with %d, not %d", words, run.status, status);
    cr_expect(lines(run.errors) == 1, "'%s' said: %s", words, run.errors);
    cr_expect(strstr(run.errors, part), "'%s' said: %s", words, run.errors);
    cr_expect(strstr(run.errors, other_part), "'%s' said: %s", words, run.errors);
    cr_expect(!run.output || !*run.output, "'%s' printed: %s", words, run.output);
    ag_test_run_free(&run);
}

Test(bad_input, unknown_words)
{
    expect_refused("trian reverse", NULL, 2, "unknown command 'trian'",
                   "tasks, train, explain, check, vcurve, version, help");
    expect_refused("train revers", NULL, 2, "unknown task 'revers'",
                   "reverse, lookup, nearest, adding, majority, regression, parity, sort");
    expect_refused("train ''", NULL, 2, "unknown task ''", "reverse, lookup");
    expect_refused("train", NULL, 2, "which task?", "reverse, lookup");
    expect_refused("train reverse lookup", NULL, 2, "one word too many: 'lookup'",
                   "train TASK [options]");
    expect_refused("train reverse reverse", NULL, 2, "one word too many", "usage");
    expect_refused("tasks reverse", NULL, 2, "one word too many", "tasks [--json]");
    expect_refused("version now", NULL, 2, "one word too many", "attograd version");
    expect_refused("help me", NULL, 2, "one word too many", "attograd help");
}

Test(bad_input, unknown_options)
{
    expect_refused("train reverse --step 5", NULL, 2, "unknown option '--step'",
                   "--steps, --seed, --batch, --lr, --optimizer, --normalizer, --no-positions, "
                   "--threads, --dtype, --out, --json, --expect");
    expect_refused("train reverse --stepsize=5", NULL, 2, "unknown option '--stepsize=5'", "--lr");
    expect_refused("train reverse -s 5", NULL, 2, "unknown option '-s'", "--steps");
    expect_refused("train reverse -", NULL, 2, "unknown option '-'", "--steps");
    expect_refused("tasks --jsn", NULL, 2, "unknown option '--jsn'", "--json");
    expect_refused("version --json", NULL, 2, "unknown option '--json'", "none");
}

Test(bad_input, values)
{
    expect_refused("train reverse --steps", NULL, 2, "--steps", "needs a value");
    expect_refused("train reverse --steps --json", NULL, 2, "--steps", "needs a value");
    expect_refused("train reverse --steps=", NULL, 2, "--steps", "needs a value");
    expect_refused("train reverse --out=", NULL, 2, "--out", "needs a value");
    expect_refused("train reverse --steps ten", NULL, 2, "--steps", "whole number, not 'ten'");
    expect_refused("train reverse --steps 1.5", NULL, 2, "--steps", "whole number, not '1.5'");
    expect_refused("train reverse --steps 0", NULL, 2, "--steps 0", "1 to 100000000");
    expect_refused("train reverse --steps -1", NULL, 2, "--steps -1", "1 to 100000000");
    expect_refused("train reverse --steps 99999999999999999999", NULL, 2, "--steps", "range");
    expect_refused("train reverse --seed -1", NULL, 2, "--seed -1", "0 to 18446744073709551615");
    expect_refused("train reverse --seed 18446744073709551616", NULL, 2, "--seed", "range");
    expect_refused("train reverse --seed one", NULL, 2, "--seed", "whole number, not 'one'");
    expect_refused("train reverse --batch 0", NULL, 2, "--batch 0", "1 to 65536");
    expect_refused("train reverse --threads 0", NULL, 2, "--threads 0", "1 to 256");
    expect_refused("train reverse --threads 257", NULL, 2, "--threads 257", "1 to 256");
    expect_refused("train reverse --lr fast", NULL, 2, "--lr", "a number, not 'fast'");
    expect_refused("train reverse --lr 0", NULL, 2, "--lr 0", "above 0");
    expect_refused("train reverse --lr=-1e-2", NULL, 2, "--lr -1e-2", "above 0");
    expect_refused("train reverse --lr nan", NULL, 2, "--lr nan", "finite");
    expect_refused("train reverse --lr inf", NULL, 2, "--lr inf", "finite");
    expect_refused("train reverse --json=yes", NULL, 2, "--json", "takes no value");
    expect_refused("train reverse --optimizer rmsprop", NULL, 2, "--optimizer", "adam, sgd, adamw");
    expect_refused("train reverse --normalizer linear", NULL, 2, "--normalizer",
                   "softmax, sigmoid, relu, none");
    expect_refused("train reverse --dtype f16", NULL, 2, "--dtype", "f32, f64");
    expect_refused("train lookup --no-positions", NULL, 2, "no positions", "reverse, parity");
}

Test(bad_input, of_a_v_curve)
{
    expect_refused("vcurve sofmax", NULL, 2, "unknown case 'sofmax'", "did you mean softmax");
    expect_refused("vcurve argmax", NULL, 2, "argmax", "has no gradient");
    expect_refused("vcurve tanh --entry 12", NULL, 2, "--entry 12", "valid: 0 to 11");
    expect_refused("vcurve tanh --entry -1", NULL, 2, "--entry -1", "valid: 0 to 11");
    expect_refused("vcurve tanh --entry x", NULL, 2, "--entry", "whole number, not 'x'");
    expect_refused("vcurve tanh --out", NULL, 2, "--out", "needs a value");
    expect_refused("vcurve tanh cos", NULL, 2, "one word too many: 'cos'", "[--entry K]");
    expect_refused("vcurve tanh --out /dev/null/x.svg", NULL, 1, "--out: cannot write",
                   "/dev/null/x.svg");
    expect_refused("vcurve tanh --csv /tmp", NULL, 1, "--csv: cannot write /tmp", "directory");
    expect_refused("vcurve tanh --out /dev/full", NULL, 1, "--out: cannot write", "space");
    expect_refused("vcurve tanh", "> /dev/full", 1, "cannot write to standard output", "space");
}

Test(bad_input, a_folder_that_cannot_be_written_is_said_before_training)
{
    expect_refused("train reverse --json --out /dev/null/x", NULL, 1, "cannot make the folder",
                   "/dev/null/x");
    expect_refused("train reverse --json --out /dev/null", NULL, 1, "cannot",
                   "/dev/null/train.jsonl");
    expect_refused("train reverse --json --out /proc", NULL, 1, "cannot", "/proc/train.jsonl");
}

Test(bad_input, output_that_cannot_be_written)
{
    expect_refused("tasks", "> /dev/full", 1, "cannot write to standard output", "space");
    expect_refused("help", "> /dev/full", 1, "cannot write to standard output", "space");
    expect_refused("version", "> /dev/full", 1, "cannot write to standard output", "space");
    expect_refused("train reverse", "> /dev/full", 1, "cannot write to standard output", "space");
    expect_refused("train reverse --json", "> /dev/full", 1, "cannot write to standard output",
                   "space");
}

/* Nothing is opened in its place: lines meant for stdout would end up in a file. */
Test(bad_input, standard_output_that_is_closed)
{
    char folder[64], words[192], path[128];
    ag_test_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/out", folder);
    snprintf(words, sizeof words, "train reverse --out %s", path);
    expect_refused(words, ">&-", 1, "cannot write to standard output", "closed");
    cr_expect(access(path, F_OK) != 0, "%s was made", path);
    ag_test_folder_remove(folder);
    expect_refused("version", ">&-", 1, "cannot write to standard output", "closed");
    expect_refused("trian", "<&-", 2, "unknown command", "trian");
    ag_test_run run = ag_test_program("version", "<&- 2>&-");
    cr_expect(run.status == 0 && strstr(run.output, "attograd"), "said: %s", run.output);
    ag_test_run_free(&run);
}

/* A folder has the name of one of the files. */
static void expect_folder_in_the_way(const char *name)
{
    char folder[64], words[128], path[128], said[192];
    ag_test_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert(mkdir(path, 0777) == 0);
    snprintf(words, sizeof words, "train reverse --json --out %s", folder);
    snprintf(said, sizeof said, "--out: cannot write %s: ", path);
    expect_refused(words, NULL, 1, said, "directory");
    ag_test_folder_remove(folder);
}

Test(bad_input, a_file_that_cannot_be_replaced_is_said_before_training)
{
    expect_folder_in_the_way("train.jsonl");
    expect_folder_in_the_way("loss.svg");
    expect_folder_in_the_way("attention.svg");
    expect_folder_in_the_way("w_q.npy");
    expect_folder_in_the_way("w_k.npy");
    expect_folder_in_the_way("w_v.npy");
}

/* A full disk under the log of --out. */
static void expect_full_disk(const char *name)
{
    char folder[64], words[128], path[128];
    ag_test_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert(symlink("/dev/full", path) == 0);
    snprintf(words, sizeof words, "train lookup --steps 30 --json --out %s", folder);
    ag_test_run run = ag_test_program(words, NULL);
    cr_expect(run.status == 1, "%s: status %d", name, run.status);
    cr_expect(lines(run.errors) == 1 && strstr(run.errors, name), "said: %s", run.errors);
    ag_test_run_free(&run);
    ag_test_folder_remove(folder);
}

Test(bad_input, a_full_disk)
{
    expect_full_disk("train.jsonl");
    /* no file above 512 bytes: a picture is not written in part */
    char folder[64], command[512], path[128];
    ag_test_folder(folder, sizeof folder);
    snprintf(command, sizeof command,
             "trap '' XFSZ; ulimit -f 1; " AG_TEST_BUILD
             "/examples/attograd train lookup --steps 1 --json --out %s",
             folder);
    ag_test_run run = ag_test_shell(command);
    cr_expect(run.status == 1, "status %d", run.status);
    cr_expect(lines(run.errors) == 1 && strstr(run.errors, "loss.svg: File too large"), "said: %s",
              run.errors);
    snprintf(path, sizeof path, "%s/loss.svg", folder);
    cr_expect(access(path, F_OK) != 0, "%s was made", path);
    ag_test_run_free(&run);
    ag_test_folder_remove(folder);
}

Test(bad_input, a_closed_pipe)
{
    ag_test_run run = ag_test_program("train reverse --json", "| true");
    cr_expect(strstr(run.errors, "cannot write to standard output"), "said: %s", run.errors);
    cr_expect(lines(run.errors) == 1, "said: %s", run.errors);
    free(run.output);
    free(run.errors);
}

Test(bad_input, loss_that_is_not_a_number)
{
    ag_test_run run = ag_test_program("train reverse --lr 1e30", NULL);
    cr_expect(run.status == 1, "status %d", run.status);
    cr_expect(lines(run.errors) == 1, "%s", run.errors);
    cr_expect(strstr(run.errors, "at step 2"), "%s", run.errors);
    cr_expect(strstr(run.errors, "attend"), "%s", run.errors);
    ag_test_run_free(&run);
    run = ag_test_program("train reverse --lr 1e300 --json", NULL);
    cr_expect(run.status == 1, "status %d", run.status);
    cr_expect(strstr(run.errors, "attn.w_q"), "%s", run.errors);
    cr_expect(!*run.output, "%s", run.output);
    ag_test_run_free(&run);
    /* the evaluation after the last step is the first to see it */
    run = ag_test_program("train adding --lr 1e30 --steps 1 --json", NULL);
    cr_expect(run.status == 1, "status %d", run.status);
    cr_expect(strstr(run.errors, "at step 1"), "%s", run.errors);
    ag_test_run_free(&run);
}
