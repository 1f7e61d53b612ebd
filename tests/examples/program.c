/* Through a shell, with stdout and stderr in files of a new folder. */
#include "program.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

void ag_test_folder(char *path, unsigned long size)
{
    snprintf(path, size, "/tmp/attograd-test-XXXXXX");
    cr_assert(mkdtemp(path) != NULL, "no folder for the test");
}

void ag_test_folder_remove(const char *path)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r '%s'", path);
    cr_assert(system(command) == 0, "%s", command);
}

char *ag_test_read(const char *path, unsigned long *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    size_t used = 0, room = 4096;
    char *text = malloc(room);
    while (text) {
        used += fread(text + used, 1, room - used - 1, file);
        if (used + 1 < room)
            break;
        char *larger = realloc(text, room *= 2);
        if (!larger)
            free(text);
        text = larger;
    }
    fclose(file);
    cr_assert(text != NULL, "no memory for %s", path);
    text[used] = '\0';
    if (size)
        *size = used;
    return text;
}

ag_test_run ag_test_shell(const char *command)
{
    char folder[64], whole[2048], path[128];
    ag_test_run run = { .status = -1 };
    ag_test_folder(folder, sizeof folder);
    snprintf(whole, sizeof whole, "{ %s\n} > %s/output 2> %s/errors", command, folder, folder);
    int ended = system(whole);
    if (ended != -1 && WIFEXITED(ended) && WEXITSTATUS(ended) < 126)
        run.status = WEXITSTATUS(ended);
    snprintf(path, sizeof path, "%s/output", folder);
    run.output = ag_test_read(path, NULL);
    snprintf(path, sizeof path, "%s/errors", folder);
    run.errors = ag_test_read(path, NULL);
    ag_test_folder_remove(folder);
    return run;
}

ag_test_run ag_test_program(const char *words, const char *redirect)
{
    char command[1024];
    snprintf(command, sizeof command, AG_TEST_BUILD "/examples/attograd %s %s", words,
             redirect ? redirect : "");
    return ag_test_shell(command);
}

void ag_test_run_free(ag_test_run *run)
{
    free(run->output);
    free(run->errors);
    *run = (ag_test_run){ 0 };
}
