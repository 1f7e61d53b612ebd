/* The attention weights of one sequence, drawn with characters. */
#ifndef AG_EXAMPLES_HEATMAP_H
#define AG_EXAMPLES_HEATMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define AG_TOKEN_NAME 16

/* weights[i * tokens + j]: how much token i (a row) attends to the token in column j. */
typedef struct ag_heatmap {
    int64_t tokens;
    double *weights;
    char (*rows)[AG_TOKEN_NAME], (*columns)[AG_TOKEN_NAME]; /* what they are called */
    int64_t first_row;                                      /* the rows before it are not drawn */
    bool last_row_answers; /* the others that are drawn were never asked for anything */
    char note[80];         /* a line to stand below the title, or nothing */
} ag_heatmap;

/* Whether stdout is a terminal whose lines can be written over (TERM is set,
 * and not "dumb"); and whether it may have colours and bold type (no NO_COLOR). */
bool ag_terminal(void);
bool ag_terminal_colour(void);

/* The columns of stdout's terminal; 80 if it does not say. */
int ag_terminal_width(void);

/* The largest absolute weight that is drawn: what the darkest cell stands for; 1 if
 * all are 0. */
double ag_heatmap_largest(const ag_heatmap *map);

/* As a matrix, or where that would be too wide, the last row alone. With
 * shades of Unicode if the locale has them; in colour if asked for. */
void ag_heatmap_draw(const ag_heatmap *map, FILE *file, bool colour);

#endif
