/* The attention weights of one sequence, drawn with characters. */
#ifndef AG_EXAMPLES_HEATMAP_H
#define AG_EXAMPLES_HEATMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define AG_TOKEN_NAME 16

/* weights[i * tokens + j]: how much token i (a row) attends to token j. */
typedef struct ag_heatmap {
    int64_t tokens;
    const double *weights;
    char (*names)[AG_TOKEN_NAME];
    int64_t first_answer; /* the rows before it were never asked for anything */
} ag_heatmap;

/* Whether stdout is a terminal whose lines can be written over (TERM is set,
 * and not "dumb"); and whether it may have colours and bold type (no NO_COLOR). */
bool ag_terminal(void);
bool ag_terminal_colour(void);

/* The columns of stdout's terminal; 80 if it does not say. */
int ag_terminal_width(void);

/* The largest absolute weight: what the darkest cell stands for; 1 if all are 0. */
double ag_heatmap_largest(const ag_heatmap *map);

/* As a matrix, or where that would be too wide, the last row alone. With
 * shades of Unicode if the locale has them; in colour if asked for. */
void ag_heatmap_draw(const ag_heatmap *map, FILE *file, bool colour);

#endif
