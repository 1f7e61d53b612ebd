/* Drawing matrices side by side with characters. */
#include "explain_matrix.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int ag_matrix_decimals(const ag_matrix *m)
{
    for (int decimals = 2; decimals < 4; decimals++) {
        bool exact = true;
        for (int i = 0; i < m->rows * m->columns; i++) {
            double scaled = m->x[i] * pow(10, decimals);
            exact = exact && fabs(scaled - round(scaled)) < 1e-9;
        }
        if (exact)
            return decimals;
    }
    return 4;
}

double ag_number_shown(double x, int decimals)
{
    return fabs(x) < 0.5 * pow(10, -decimals) ? 0 : x;
}

static void put(ag_canvas *c, int line, int column, const char *format, ...) AG_PRINTF(4, 5);

static void put(ag_canvas *c, int line, int column, const char *format, ...)
{
    char text[LINE_LENGTH];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (int i = 0; text[i] && column + i < LINE_LENGTH; i++)
        c->line[line][column + i] = text[i];
    int end = column + (int)strlen(text);
    c->right = end > c->right ? end : c->right;
}

void ag_canvas_begin(ag_canvas *c)
{
    memset(c->line, ' ', sizeof c->line);
    c->right = 0;
}

void ag_canvas_end(const ag_canvas *c)
{
    for (int i = 0; i < LINES; i++) {
        int length = LINE_LENGTH;
        while (length > 0 && c->line[i][length - 1] == ' ')
            length--;
        if (length > 0)
            printf("%.*s\n", length, c->line[i]);
    }
}

static int width_of(const ag_matrix *m, int decimals, const char *head)
{
    int width = head ? (int)strlen(head) + 2 : 0;
    for (int i = 0; i < m->rows * m->columns; i++) {
        int length = snprintf(NULL, 0, "%.*f", decimals, ag_number_shown(m->x[i], decimals));
        width = length > width ? length : width;
    }
    return width + 1;
}

void ag_canvas_matrix(ag_canvas *c, const char *title, const char *name, const ag_matrix *m,
                      ag_column_names of)
{
    int decimals = ag_matrix_decimals(m), width = width_of(m, decimals, of.head);
    int left = c->right + 2, inside = left + (*name ? 7 : 0) + 1;
    if (title)
        put(c, 0, inside + 1, "%s", title);
    if (*name)
        put(c, 2, left, "%4s =", name);
    for (int column = 0; of.head && column < m->columns; column++) {
        int length = (int)strlen(of.head) + 2;
        put(c, 1, inside + (column + 1) * width - length, "%s_%d", of.head, column + 1);
    }
    int right = inside + m->columns * width;
    for (int row = 0; row < m->rows; row++) {
        put(c, 2 + row, inside - 1, "[");
        for (int column = 0; column < m->columns; column++)
            put(c, 2 + row, inside + column * width, "%*.*f", width, decimals,
                ag_number_shown(ag_entry(m, row, column), decimals));
        put(c, 2 + row, right, " ]");
        if (of.tail)
            put(c, 2 + row, right + 4, "%s_%d", of.tail, row + 1);
    }
}
