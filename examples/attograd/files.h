/* Files that are written whole or not at all. */
#ifndef AG_EXAMPLES_FILES_H
#define AG_EXAMPLES_FILES_H

#include <stdbool.h>
#include <stdio.h>

/* Writes what to a file; false, with errno set, if that failed. */
typedef bool ag_write_function(FILE *file, const void *what);

/* Writes beside the file's place and renames: there is the old file or the new one, never
 * half of one. False with a line on stderr, which begins with who. */
bool ag_file_write(const char *who, const char *path, ag_write_function *write, const void *what);

/* Whether that could be done: a file can be made beside it, and it is not a folder. The same
 * line if not. */
bool ag_file_can_be_written(const char *who, const char *path);

#endif
