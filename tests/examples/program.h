/* Runs commands, the built program attograd above all, as a user's shell would. */
#ifndef AG_TEST_PROGRAM_H
#define AG_TEST_PROGRAM_H

typedef struct ag_test_run {
    int status;            /* exit status; -1 if it did not end by itself */
    char *output, *errors; /* what it wrote to stdout and to stderr */
} ag_test_run;

/* A command for sh, and what came of it. */
ag_test_run ag_test_shell(const char *command);

/* attograd with these words. redirect, if not NULL, takes stdout elsewhere ("> /dev/full"). */
ag_test_run ag_test_program(const char *words, const char *redirect);
void ag_test_run_free(ag_test_run *run);

/* A new folder below /tmp into path, and its removal with all that is in it. */
void ag_test_folder(char *path, unsigned long size);
void ag_test_folder_remove(const char *path);

/* A whole file, ended by '\0'; NULL if it cannot be read. */
char *ag_test_read(const char *path, unsigned long *size);

#endif
