/* Small matrices, drawn side by side with characters. */
#ifndef AG_EXAMPLES_EXPLAIN_MATRIX_H
#define AG_EXAMPLES_EXPLAIN_MATRIX_H

#include "explain.h"

/* As many decimals as show the numbers exactly, between 2 and 4. */
int ag_matrix_decimals(const ag_matrix *m);

/* x, but 0 where it would be shown as "-0.00". */
double ag_number_shown(double x, int decimals);

/* Lines that are written to in any order, then printed. */
enum { LINES = 8, LINE_LENGTH = 120 };
typedef struct ag_canvas {
    char line[LINES][LINE_LENGTH];
    int right; /* the next matrix begins here */
} ag_canvas;

void ag_canvas_begin(ag_canvas *c);

/* Prints it, without empty lines and without blanks at the ends of the others. */
void ag_canvas_end(const ag_canvas *c);

/* Each column of the matrix is a vector called head_1, head_2, ..; row j
 * belongs to tail_j. Either may be NULL. */
typedef struct ag_column_names {
    const char *head, *tail;
} ag_column_names;

/* Draws m to the right of what is there: its title in line 0, the names of its
 * columns in line 1, its rows below. */
void ag_canvas_matrix(ag_canvas *c, const char *title, const char *name, const ag_matrix *m,
                      ag_column_names of);

#endif
