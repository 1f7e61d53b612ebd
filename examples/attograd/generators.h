/* The generators of the tasks. Each draws one sequence: its tokens into x,
 * which arrives full of zeros, and its answers. Each has a function that names
 * a token in a few characters. */
#ifndef AG_EXAMPLES_GENERATORS_H
#define AG_EXAMPLES_GENERATORS_H

#include "tasks.h"

enum { LOOKUP_ITEMS = 8, LOOKUP_KEYS = 16, LOOKUP_VALUES = 16 };
enum { NEAREST_ITEMS = 8, NEAREST_SIZE = 8, NEAREST_VALUES = 16 };
enum { REGRESSION_EXAMPLES = 10, REGRESSION_SIZE = 5 };
enum { SORT_LENGTH = 6, SORT_DIGITS = 3, SORT_INPUTS = 729 }; /* 3^6 */
enum { SORT_TOKENS = 2 * SORT_LENGTH - 1 };

void ag_draw_reverse(ag_random *random, ag_sequence *s);
void ag_draw_lookup(ag_random *random, ag_sequence *s);
void ag_draw_nearest(ag_random *random, ag_sequence *s);
void ag_draw_adding(ag_random *random, ag_sequence *s);
void ag_draw_majority(ag_random *random, ag_sequence *s);
void ag_draw_parity(ag_random *random, ag_sequence *s);
void ag_draw_regression(ag_random *random, ag_sequence *s);
void ag_draw_sort(ag_random *random, ag_sequence *s);

void ag_name_digit(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_item(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_neighbour(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_summand(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_bit(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_example(const ag_sequence *s, int64_t t, char *text, size_t size);
void ag_name_id(const ag_sequence *s, int64_t t, char *text, size_t size);

void ag_order_sorted(const ag_sequence *s, int64_t *order);

/* Which of the SORT_INPUTS inputs this is, and whether it is held out. */
int64_t ag_sort_input(const ag_sequence *s);
bool ag_sort_held_out(int64_t input);

#endif
