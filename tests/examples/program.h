/* Runs the built program attograd as a user's shell would. */
#ifndef AG_TEST_PROGRAM_H
#define AG_TEST_PROGRAM_H

typedef struct ag_test_run {
    int status;            /* exit status; -1 if it did not end by itself */
    char *output, *errors; /* what it wrote to stdout and to stderr */
} ag_test_run;

/* attograd with these words, which a shell reads. redirect, if not NULL, is put
 * in place of capturing stdout ("> /dev/full"). */
ag_test_run ag_test_program(const char *words, const char *redirect);
void ag_test_run_free(ag_test_run *run);

/* A new folder below /tmp into path, and its removal with all that is in it. */
void ag_test_folder(char *path, unsigned long size);
void ag_test_folder_remove(const char *path);

/* A whole file, ended by '\0'; NULL if it cannot be read. */
char *ag_test_read(const char *path, unsigned long *size);

#endif
