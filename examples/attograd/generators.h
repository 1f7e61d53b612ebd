/* The generators of the tasks. Each draws one sequence: its tokens into x,
 * which arrives full of zeros, and its answers. Each has a function that names
 * a token in a few characters. */
#ifndef AG_EXAMPLES_GENERATORS_H
#define AG_EXAMPLES_GENERATORS_H

#include "tasks.h"

enum { LOOKUP_ITEMS = 8, LOOKUP_KEYS = 16, LOOKUP_VALUES = 16 };
enum { NEAREST_ITEMS = 8, NEAREST_SIZE = 8, NEAREST_VALUES = 16 };
enum { REGRESSION_EXAMPLES = 10, REGRESSION_SIZE = 5 };

void ag_draw_reverse(ag_random *random, ag_sequence *s);
void ag_draw_lookup(ag_random *random, ag_sequence *s);
void ag_draw_nearest(ag_random *random, ag_sequence *s);
void ag_draw_adding(ag_random *random, ag_sequence *s);
void ag_draw_majority(ag_random *random, ag_sequence *s);
void ag_draw_parity(ag_random *random, ag_sequence *s);
void ag_draw_regression(ag_random *random, ag_sequence *s);

void ag_name_digit(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_item(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_neighbour(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_summand(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_bit(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_example(const ag_sequence *s, int64_t t, char *text, size_t size);

#endif
