/* A cell is as wide as the longest token name; its shade says how large the
 * weight is, from nothing to the largest of the picture. Negative weights (of
 * linear attention) begin with a minus, or are red. */
#include "heatmap.h"

#include <langinfo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WIDEST 80 /* columns that every terminal has */

/* From 0 to the largest; the first is for weights too small to see. */
static const char *const ascii_shades[] = { " ", ".", ":", "-", "=", "+", "*", "#", "%", "@" };
static const char *const block_shades[] = { " ", "░", "▒", "▓", "█" };
/* numbers of xterm's 256 colours, from dark to bright */
static const int positive_colours[] = { 53, 54, 60, 24, 30, 36, 71, 113, 148, 226 };
static const int negative_colours[] = { 53, 52, 88, 124, 160, 196 };

typedef struct style {
    FILE *file;
    bool colour, blocks;
    int width; /* of a cell */
    double largest;
} style;

bool ag_terminal(void)
{
    const char *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

bool ag_terminal_colour(void)
{
    const char *no_colour = getenv("NO_COLOR");
    return ag_terminal() && !(no_colour && *no_colour);
}

int ag_terminal_width(void)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : WIDEST;
}

static double largest_from_row(const ag_heatmap *map, int64_t first)
{
    double largest = 0;
    for (int64_t i = first * map->tokens; i < map->tokens * map->tokens; i++)
        largest = fmax(largest, fabs(map->weights[i]));
    return largest > 0 ? largest : 1;
}

double ag_heatmap_largest(const ag_heatmap *map)
{
    return largest_from_row(map, map->first_row);
}

/* Which of n steps from 0 to 1 is nearest to share. */
static int level(double share, int n)
{
    int step = isfinite(share) ? (int)lround(share * (n - 1)) : 0;
    return step < 0 ? 0 : step >= n ? n - 1 : step;
}

static void draw_cell(const style *s, double weight)
{
    double share = fabs(weight) / s->largest;
    int first = 0;
    if (s->colour) {
        int code =
            weight < 0 ? negative_colours[level(share, 6)] : positive_colours[level(share, 10)];
        fprintf(s->file, "\033[48;5;%dm%*s\033[0m", code, s->width, "");
        return;
    }
    const char *shade = s->blocks ? block_shades[level(share, 5)] : ascii_shades[level(share, 10)];
    if (weight < 0 && *shade != ' ') {
        fputc('-', s->file);
        first = 1;
    }
    for (int i = first; i < s->width; i++)
        fputs(shade, s->file);
}

static size_t max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int longest_name(const ag_heatmap *map)
{
    size_t longest = 1;
    for (int64_t t = 0; t < map->tokens; t++)
        longest = max(longest, max(strlen(map->rows[t]), strlen(map->columns[t])));
    return (int)longest;
}

static void draw_matrix(const ag_heatmap *map, const style *s)
{
    fprintf(s->file, "  %*s ", s->width, "");
    for (int64_t j = 0; j < map->tokens; j++)
        fprintf(s->file, "%*s", s->width, map->columns[j]);
    fputc('\n', s->file);
    for (int64_t i = map->first_row; i < map->tokens; i++) {
        bool marked = map->last_row_answers && i == map->tokens - 1;
        fprintf(s->file, "%s %*s ", marked ? ">" : " ", s->width - 1, map->rows[i]);
        fputc(' ', s->file);
        for (int64_t j = 0; j < map->tokens; j++)
            draw_cell(s, map->weights[i * map->tokens + j]);
        fputc('\n', s->file);
    }
}

/* Tokens from first to end: names, shades, and the weights as numbers. */
static void draw_strip(const ag_heatmap *map, const style *s, int64_t first, int64_t end)
{
    const double *row = map->weights + (map->tokens - 1) * map->tokens;
    fputs("  ", s->file);
    for (int64_t j = first; j < end; j++)
        fprintf(s->file, "%*s", s->width, map->columns[j]);
    fputs("\n  ", s->file);
    for (int64_t j = first; j < end; j++) {
        fputc(' ', s->file);
        draw_cell(&(style){ s->file, s->colour, s->blocks, s->width - 1, s->largest }, row[j]);
    }
    fputs("\n  ", s->file);
    for (int64_t j = first; j < end; j++)
        fprintf(s->file, "%*.3f", s->width, row[j]);
    fputs("\n", s->file);
}

static void draw_legend(const style *s)
{
    fputs("  from 0 ", s->file);
    for (int i = 0; i <= 8; i++)
        draw_cell(&(style){ s->file, s->colour, s->blocks, 2, 1 }, i / 8.0);
    fprintf(s->file, " to %.3g\n", s->largest);
}

void ag_heatmap_draw(const ag_heatmap *map, FILE *file, bool colour)
{
    bool blocks = !strcmp(nl_langinfo(CODESET), "UTF-8");
    style s = { file, colour, blocks, longest_name(map) + 1, ag_heatmap_largest(map) };
    if ((map->tokens + 1) * s.width <= WIDEST) {
        fprintf(file, "attention weights of one sequence: rows attend to columns%s\n",
                map->last_row_answers ? "; row > answers" : "");
        if (*map->note)
            fprintf(file, "  %s\n", map->note);
        draw_matrix(map, &s);
    } else {
        fprintf(file, "attention weights of one sequence, of its last token, which answers\n");
        s.largest = largest_from_row(map, map->tokens - 1);
        s.width = s.width < 6 ? 6 : s.width;
        int64_t in_line = (WIDEST - 2) / s.width;
        for (int64_t first = 0; first < map->tokens; first += in_line)
            draw_strip(map, &s, first,
                       first + in_line < map->tokens ? first + in_line : map->tokens);
    }
    draw_legend(&s);
}
