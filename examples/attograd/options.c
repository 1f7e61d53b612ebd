/* The command line: each word is an option, an option's value, or a plain word. */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the reading is: the command's name stands in front of each complaint. */
typedef struct reader {
    const char *command;
    const ag_option *options;
    int n;
} reader;

static bool complain(const reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool complain(const reader *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "attograd %s: ", r->command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return false;
}

char *ag_options_list(const char *const *choices, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; choices[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", choices[i]);
    return text;
}

/* The option that word names, up to its end or its '='. */
static const ag_option *find(const reader *r, const char *word)
{
    size_t length = strcspn(word, "=");
    for (int i = 0; i < r->n; i++)
        if (strlen(r->options[i].name) == length && !strncmp(r->options[i].name, word, length))
            return &r->options[i];
    return NULL;
}

static bool unknown_option(const reader *r, const char *word)
{
    char list[512] = "none";
    size_t used = 0;
    for (int i = 0; i < r->n && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 r->options[i].name);
    return complain(r, "unknown option '%s'; the options are: %s", word, list);
}

static bool read_integer(const reader *r, const ag_option *option, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end)
        return complain(r, "%s takes a whole number, not '%s'", option->name, text);
    if (errno == ERANGE || value < option->min || value > option->max)
        return complain(r, "%s %s is out of range; valid: %" PRId64 " to %" PRId64, option->name,
                        text, option->min, option->max);
    *(int64_t *)option->value = value;
    return true;
}

static bool read_seed(const reader *r, const ag_option *option, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end)
        return complain(r, "%s takes a whole number, not '%s'", option->name, text);
    /* strtoull reads -1 as 2^64 - 1 */
    if (errno == ERANGE || strchr(text, '-') || value > UINT64_MAX)
        return complain(r, "%s %s is out of range; valid: 0 to %" PRIu64, option->name, text,
                        UINT64_MAX);
    *(ag_seed *)option->value = (ag_seed){ value, true };
    return true;
}

static bool read_number(const reader *r, const ag_option *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end)
        return complain(r, "%s takes a number, not '%s'", option->name, text);
    if (!(value > 0) || !isfinite(value))
        return complain(r, "%s %s is out of range; valid: finite numbers above 0", option->name,
                        text);
    *(double *)option->value = value;
    return true;
}

static bool read_choice(const reader *r, const ag_option *option, const char *text)
{
    for (int i = 0; option->choices[i]; i++)
        if (!strcmp(option->choices[i], text)) {
            *(int *)option->value = i;
            return true;
        }
    char list[256];
    return complain(r, "%s cannot be '%s'; valid: %s", option->name, text,
                    ag_options_list(option->choices, list, sizeof list));
}

static bool read_value(const reader *r, const ag_option *option, const char *text)
{
    if (!*text)
        return complain(r, "%s needs a value", option->name);
    switch (option->kind) {
    case AG_OPTION_INTEGER:
        return read_integer(r, option, text);
    case AG_OPTION_SEED:
        return read_seed(r, option, text);
    case AG_OPTION_NUMBER:
        return read_number(r, option, text);
    case AG_OPTION_CHOICE:
        return read_choice(r, option, text);
    case AG_OPTION_TEXT:
        *(const char **)option->value = text;
        return true;
    case AG_OPTION_FLAG:
        break;
    }
    return complain(r, "%s takes no value", option->name);
}

/* Reads the option at argv[i]; returns how many words it took, 0 after a mistake. */
static int read_option(const reader *r, int argc, char **argv, int i)
{
    const ag_option *option = find(r, argv[i]);
    const char *equals = strchr(argv[i], '=');
    if (!option) {
        unknown_option(r, argv[i]);
        return 0;
    }
    if (equals)
        return read_value(r, option, equals + 1) ? 1 : 0;
    if (option->kind == AG_OPTION_FLAG) {
        *(bool *)option->value = true;
        return 1;
    }
    /* a value may begin with a dash (-1), but not be an option itself */
    if (i + 1 == argc || !strncmp(argv[i + 1], "--", 2)) {
        complain(r, "%s needs a value", option->name);
        return 0;
    }
    return read_value(r, option, argv[i + 1]) ? 2 : 0;
}

int ag_options_read(int argc, char **argv, const ag_option *options, int n, const char **words,
                    int max_words, const char *usage)
{
    reader r = { argv[0], options, n };
    int found = 0;
    for (int i = 1; i < argc;) {
        if (argv[i][0] == '-') {
            int taken = read_option(&r, argc, argv, i);
            if (!taken)
                return -1;
            i += taken;
        } else if (found < max_words) {
            words[found++] = argv[i++];
        } else {
            complain(&r, "one word too many: '%s'; usage: %s", argv[i], usage);
            return -1;
        }
    }
    return found;
}
