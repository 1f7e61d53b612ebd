/* docs/tutorial.md: its blocks of code are put together, compiled and run with
 * the commands shown there, and must print what is shown there. */
#include "program.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZERS "-fsanitize=address,undefined"
#else
#define SANITIZERS ""
#endif

/* The commands call cc: a script that adds what this build of the library
 * needs, and makes every warning an error. */
static void write_compiler(const char *folder)
{
    char path[128], command[160];
    snprintf(path, sizeof path, "%s/cc", folder);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL);
    fprintf(file, "#!/bin/sh\nPATH=${PATH#*:}\n"
                  "exec ${CC:-cc} -Wall -Wextra -Wpedantic -Werror " SANITIZERS " \"$@\"\n");
    fclose(file);
    snprintf(command, sizeof command, "chmod +x %s", path);
    cr_assert(system(command) == 0);
}

static ag_test_run run_commands(const char *folder, int number)
{
    char command[1024];
    snprintf(command, sizeof command,
             "cd %s && PATH=%s:$PATH PKG_CONFIG_PATH=" AG_TEST_BUILD "/meson-uninstalled "
             "LD_LIBRARY_PATH=" AG_TEST_BUILD " sh ./run.%d 2>&1",
             folder, folder, number);
    return ag_test_shell(command);
}

/* The next word, ended by '\0'; *text moves on. NULL at the end. */
static char *next_word(char **text)
{
    char *word = *text + strspn(*text, " \n");
    if (!*word)
        return NULL;
    *text = word + strcspn(word, " \n");
    if (**text)
        *(*text)++ = '\0';
    return word;
}

/* Words are equal, numbers nearly so: their last digit may differ by 2, as
 * rounding depends on the processor. */
static bool same_word(const char *shown, const char *printed)
{
    char *shown_end, *printed_end;
    double a = strtod(shown, &shown_end), b = strtod(printed, &printed_end);
    if (shown_end == shown || printed_end == printed || strcmp(shown_end, printed_end) != 0)
        return !strcmp(shown, printed);
    const char *point = strchr(shown, '.');
    int decimals = point ? (int)strspn(point + 1, "0123456789") : 0;
    return fabs(a - b) <= (point ? 2.1 * pow(10, -decimals) : 0);
}

static void expect_same(const char *path, char *shown, char *printed)
{
    for (;;) {
        char *a = next_word(&shown), *b = next_word(&printed);
        cr_assert(!a == !b, "%s: shown '%s', printed '%s'", path, a ? a : "", b ? b : "");
        if (!a)
            return;
        cr_expect(same_word(a, b), "%s: shown '%s', printed '%s'", path, a, b);
    }
}

/* Where the numbers vary: the same number of lines, beginning with the same words. */
static void expect_similar(const char *path, char *shown, char *printed)
{
    while (*shown || *printed) {
        size_t length = strcspn(shown, "\n"), word = strspn(shown, " ");
        word += strcspn(shown + word, " \n");
        cr_expect(!strncmp(shown, printed, word), "%s: shown '%.60s', printed '%.60s'", path, shown,
                  printed);
        shown += length + (shown[length] == '\n');
        printed += strcspn(printed, "\n");
        printed += *printed == '\n';
    }
}

/* Compares with output.N or varies.N, where there is one. */
static void check_output(const char *folder, int number, char *printed)
{
    char path[128];
    snprintf(path, sizeof path, "%s/output.%d", folder, number);
    char *shown = ag_test_read(path, NULL);
    if (shown) {
        expect_same(path, shown, printed);
    } else {
        snprintf(path, sizeof path, "%s/varies.%d", folder, number);
        shown = ag_test_read(path, NULL);
        cr_assert(shown != NULL, "the commands %d of the tutorial are not followed by an output",
                  number);
        expect_similar(path, shown, printed);
    }
    free(shown);
}

/* Whether the file is named in one of the pieces of commands. */
static bool compiled(const char *folder, const char *file)
{
    char command[256];
    snprintf(command, sizeof command, "grep -q 'cc .*%s' %s/run.*", file, folder);
    return system(command) == 0;
}

Test(tutorial, every_block_compiles_and_prints_what_is_shown)
{
    char folder[64], command[1024], path[128];
    ag_test_folder(folder, sizeof folder);
    write_compiler(folder);
    snprintf(command, sizeof command,
             "awk -v to=%s -f " AG_TEST_SOURCE "/tests/examples/tutorial.awk " AG_TEST_SOURCE
             "/docs/tutorial.md && cd %s && ls *.c",
             folder, folder);
    ag_test_run files = ag_test_shell(command);
    cr_assert(files.status == 0, "%s", files.errors);
    char *rest = files.output;
    for (char *file = next_word(&rest); file; file = next_word(&rest))
        cr_expect(compiled(folder, file), "nothing compiles %s", file);
    ag_test_run_free(&files);

    int number = 1;
    for (;; number++) {
        snprintf(path, sizeof path, "%s/run.%d", folder, number);
        FILE *file = fopen(path, "r");
        if (!file)
            break;
        fclose(file);
        ag_test_run run = run_commands(folder, number);
        cr_assert(run.status == 0, "the commands %d ended with %d: %s", number, run.status,
                  run.output);
        check_output(folder, number, run.output);
        ag_test_run_free(&run);
    }
    cr_expect(number > 1, "the tutorial runs nothing");
    ag_test_folder_remove(folder);
}

Test(tutorial, a_block_that_no_test_compiles_is_found)
{
    ag_test_run run =
        ag_test_shell("printf '```c\\nint x;\\n```\\n' | awk -v to=. -f " AG_TEST_SOURCE
                      "/tests/examples/tutorial.awk");
    cr_expect(run.status == 1, "status %d", run.status);
    cr_expect(strstr(run.errors, "no test compiles"), "%s", run.errors);
    ag_test_run_free(&run);
}
