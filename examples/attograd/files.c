/* A file is written beside its place and then renamed. */
#include "files.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096

static bool cannot_write(const char *who, const char *path, int reason)
{
    fprintf(stderr, "%s: cannot write %s: %s\n", who, path, strerror(reason ? reason : EIO));
    return false;
}

/* The name under which a file is written until it is whole. */
static bool path_beside(const char *path, char *beside)
{
    int length = snprintf(beside, PATH_SIZE, "%s.tmp-%ld", path, (long)getpid());
    if (length < PATH_SIZE)
        return true;
    errno = ENAMETOOLONG;
    return false;
}

/* What is no file (a terminal, /dev/null) is written to as it is: then beside is path itself. */
static FILE *open_beside(const char *path, char *beside)
{
    struct stat found;
    bool special = stat(path, &found) == 0 && !S_ISREG(found.st_mode);
    if (special)
        return snprintf(beside, PATH_SIZE, "%s", path) < PATH_SIZE ? fopen(path, "w") : NULL;
    return path_beside(path, beside) ? fopen(beside, "wx") : NULL;
}

static void remove_beside(const char *path, const char *beside)
{
    if (strcmp(path, beside) != 0)
        unlink(beside);
}

bool ag_file_can_be_written(const char *who, const char *path)
{
    char beside[PATH_SIZE];
    FILE *file = open_beside(path, beside);
    if (!file)
        return cannot_write(who, path, errno);
    fclose(file);
    remove_beside(path, beside);
    return true;
}

bool ag_file_write(const char *who, const char *path, ag_write_function *write, const void *what)
{
    char beside[PATH_SIZE];
    FILE *file = open_beside(path, beside);
    if (!file)
        return cannot_write(who, path, errno);
    errno = 0;
    bool written = write(file, what);
    int reason = errno;
    if (fclose(file) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written && (!strcmp(path, beside) || rename(beside, path) == 0))
        return true;
    reason = written ? errno : reason;
    remove_beside(path, beside);
    return cannot_write(who, path, reason);
}
