/* With stdout and stderr in files of a new folder. */
#include "shell.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

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
