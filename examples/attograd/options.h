/* Reading the words of a command line: "--name value", "--name=value", flags
 * and plain words. A mistake becomes one line on stderr that says what would
 * have been right. */
#ifndef AG_EXAMPLES_OPTIONS_H
#define AG_EXAMPLES_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum ag_option_kind {
    AG_OPTION_FLAG,    /* bool: true when given; no value */
    AG_OPTION_INTEGER, /* int64_t: min to max */
    AG_OPTION_SEED,    /* ag_seed: 0 to 2^64 - 1 */
    AG_OPTION_NUMBER,  /* double: above 0 and finite */
    AG_OPTION_CHOICE,  /* int: the place of the value in choices, a list ended by NULL */
    AG_OPTION_TEXT     /* const char *: anything but nothing */
} ag_option_kind;

typedef struct ag_seed {
    uint64_t value;
    bool given;
} ag_seed;

typedef struct ag_option {
    const char *name; /* with its dashes */
    ag_option_kind kind;
    void *value; /* where it goes; left alone when the option is not given */
    int64_t min, max;
    const char *const *choices;
} ag_option;

/* argv[0] is the command's own word. Up to max_words plain words go to words,
 * in order; their number is returned, or -1 after a mistake. usage ends the
 * line about a word too many. */
int ag_options_read(int argc, char **argv, const ag_option *options, int n, const char **words,
                    int max_words, const char *usage);

/* "a, b, c" of a list ended by NULL into text, which is returned. */
char *ag_options_list(const char *const *choices, char *text, size_t size);

#endif
