/* Runs commands as a user's shell would. */
#ifndef AG_TEST_SHELL_H
#define AG_TEST_SHELL_H

#include "program.h"

/* A command for sh, and what came of it; to be freed with ag_test_run_free. */
ag_test_run ag_test_shell(const char *command);

#endif
