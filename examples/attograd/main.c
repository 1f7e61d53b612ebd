/* attograd: trains a self-attention layer on toy tasks, shows what it
 * computes, and checks its gradients. */
#include "commands.h"
#include "options.h"

#include <attograd.h>

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int version(int argc, char **argv)
{
    if (ag_options_read(argc, argv, NULL, 0, NULL, 0, "attograd version") < 0)
        return 2;
    ag_context *context = ag_context_new(NULL);
    printf("attograd %s, kernels: %s, default dtype: %s\n", AG_VERSION, ag_context_isa(context),
           ag_dtype_name(ag_context_dtype(context)));
    return ag_context_finish(context);
}

static int help(int argc, char **argv);

static const struct {
    const char *word, *form, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "tasks", "tasks [--json]", "what can be learnt: a line for each task", ag_cmd_tasks },
    { "train", "train TASK [options]", "learn a task: most take W_q, W_k, W_v alone",
      ag_cmd_train },
    { "explain", "explain [--seed S] [--json]", "one layer, forwards and backwards, in numbers",
      ag_cmd_explain },
    { "check", "check [CASE] [options]", "the gradient check of every operation and layer",
      ag_cmd_check },
    { "vcurve", "vcurve [CASE] [options]", "a numeric derivative's error against its step",
      ag_cmd_vcurve },
    { "version", "version", "the version, and the instruction set in use", version },
    { "help", "help", "this page", help },
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int print_help(void)
{
    printf("usage:\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  attograd %-32s %s\n", commands[i].form, commands[i].what);
    printf("  attograd %-32s %s\n", "check --mutants [OP] [options]",
           "whether the checks notice rules that are wrong");
    printf("\n"
           "options of train, each with a default that suits the task (with sgd, those of\n"
           "adding and regression are not tuned and often miss the target):\n"
           "  --steps N --seed S --batch N --lr X --threads N\n"
           "  --optimizer adam|sgd|adamw   --normalizer softmax|sigmoid|relu|none\n"
           "  --dtype f32|f64              --no-positions: the order of tokens is not shown\n"
           "  --out DIR     write train.jsonl, loss.svg, attention.svg, w_q.npy, w_k.npy, w_v.npy\n"
           "                (of a transformer: those of the block that attention.svg shows)\n"
           "  --json        one JSON object a line, and nothing else\n"
           "  --expect      exit status 1 unless the result is what the task promises\n"
           "\n"
           "options of check; CASE is what a case's name begins with, up to a slash or its\n"
           "end: softmax means softmax/first and softmax/first/second too. One that begins\n"
           "with a slash means all cases whose names end so: /second, /layouts, /kernels, ..\n"
           "  --list        names the cases, their kind and suffix, and checks nothing\n"
           "  --seed S      of all that is random; after a FAIL stands how to run it again\n"
           "  --json        one JSON object a line, and nothing else\n"
           "  --mutants     whether the checks notice rules that are wrong; of the operation\n"
           "                OP, or of all\n"
           "\n"
           "options of vcurve; CASE is a whole name without suffix: one of check --list with\n"
           "an empty last column; attention if there is none:\n"
           "  --entry K     of the inputs, counted from 0; else the one that bends most\n"
           "  --out FILE    a picture (SVG) instead of the text\n"
           "  --csv FILE    every number\n");
    return 0;
}

static int help(int argc, char **argv)
{
    int words = ag_options_read(argc, argv, NULL, 0, NULL, 0, "attograd help");
    return words < 0 ? 2 : print_help();
}

/* "attograd train --help" */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    return false;
}

static int unknown_command(const char *word)
{
    fprintf(stderr, "attograd: unknown command '%s'; the commands are: ", word);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stderr, "%s%s", i ? ", " : "", commands[i].word);
    fputc('\n', stderr);
    return 2;
}

static int run(int argc, char **argv)
{
    if (argc == 0)
        return print_help();
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
        argv[0] = "help";
    if (!strcmp(argv[0], "--version"))
        argv[0] = "version";
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].word, argv[0]))
            return asks_for_help(argc, argv) ? print_help() : commands[i].run(argc, argv);
    return unknown_command(argv[0]);
}

/* Gives the descriptors 0 to 2 something to stand for, so that no file that is
 * opened later becomes one of them. Returns whether stdout was open. */
static bool open_standard_descriptors(void)
{
    bool open_stdout = true;
    for (int descriptor = 0; descriptor <= 2; descriptor++)
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF) {
            open_stdout = open_stdout && descriptor != STDOUT_FILENO;
            if (open("/dev/null", O_RDWR) < 0) /* takes the lowest one that is free */
                return false;
        }
    return open_stdout;
}

int main(int argc, char **argv)
{
    if (!open_standard_descriptors()) {
        fprintf(stderr, "attograd: cannot write to standard output: it is closed\n");
        return 1;
    }
    setlocale(LC_CTYPE, "");  /* which characters a terminal has */
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of writing, reported below */
    int status = run(argc - 1, argv + 1);
    errno = 0;
    bool unwritten = ferror(stdout);
    if ((fflush(stdout) != 0 || unwritten) && status == 0) {
        fprintf(stderr, "attograd: cannot write to standard output: %s\n",
                strerror(errno ? errno : EIO));
        return 1;
    }
    return status;
}
