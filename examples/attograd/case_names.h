/* Which cases a word on the command line asks for, and what was meant by one that asks for none. */
#ifndef AG_EXAMPLES_CASE_NAMES_H
#define AG_EXAMPLES_CASE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define AG_CASE_NAME_SIZE 64

/* What a case is called in full, with its suffix, into text, which is returned:
 * "softmax/first/second" is softmax/first in second order. */
char *ag_case_full_name(int i, char text[AG_CASE_NAME_SIZE]);

/* Whether asked means case i: its full name; a beginning of it that ends before a slash ("softmax"
 * means softmax/first/second too); or its suffix ("/second"). */
bool ag_case_asked_for(int i, const char *asked);

/* How many letters have to be put in, left out or replaced to make one word of the other. */
int ag_edit_distance(const char *a, const char *b);

/* "softmax, max or matmul": the three names nearest to asked, or the suffixes if it begins with a
 * slash, into text, which is returned. in_first_order: plain names, without suffix. */
char *ag_case_suggest(const char *asked, bool in_first_order, char *text, size_t size);

/* A line for each case that is asked for, or for all if asked is NULL: name, kind, suffix. Returns
 * their number. */
int ag_case_print_list(const char *asked, bool json, FILE *file);

#endif
