/* Scalable vector graphics, written as text. All pictures bring their own
 * light background, so that they can be read on a dark page as well. */
#include "svg.h"

#include <math.h>

#define INK AG_SVG_INK
#define QUIET AG_SVG_QUIET
#define GRID AG_SVG_GRID

void ag_svg_begin(FILE *file, double width, double height, const char *title)
{
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\""
            " viewBox=\"0 0 %g %g\" role=\"img\"\n"
            " font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\""
            " font-size=\"13\" fill=\"" INK "\">\n<title>%s</title>\n"
            "<rect width=\"100%%\" height=\"100%%\" rx=\"6\" fill=\"#ffffff\"/>\n"
            "<text x=\"%g\" y=\"30\" font-size=\"17\" font-weight=\"600\""
            " text-anchor=\"middle\">%s</text>\n",
            width, height, width, height, title, width / 2, title);
}

bool ag_svg_end(FILE *file)
{
    fputs("</svg>\n", file);
    return fflush(file) == 0 && !ferror(file);
}

void ag_svg_line(FILE *file, double x1, double y1, double x2, double y2, const char *style)
{
    fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
            style);
}

/* ---- The curve ---- */

void ag_curve_add(ag_curve *curve, double x, double y)
{
    if (curve->stride == 0)
        curve->stride = 1;
    if (curve->count == AG_CURVE_POINTS) {
        for (int i = 0; i < AG_CURVE_POINTS / 2; i++) {
            curve->x[i] = curve->x[2 * i];
            curve->y[i] = curve->y[2 * i];
        }
        curve->count = AG_CURVE_POINTS / 2;
        curve->stride *= 2;
    }
    if (curve->seen++ % curve->stride != 0)
        return;
    curve->x[curve->count] = x;
    curve->y[curve->count++] = y;
}

/* From data to places in the picture. Heights are logarithms on a logarithmic axis. */
typedef struct axes {
    double left, right, top, bottom;
    double x_max, y_min, y_max;
    bool logarithmic;
} axes;

static double place_x(const axes *a, double x)
{
    return a->left + (a->right - a->left) * x / a->x_max;
}

static double place_y(const axes *a, double y)
{
    double height = a->logarithmic ? log10(fmax(y, 1e-12)) : y;
    return a->bottom - (a->bottom - a->top) * (height - a->y_min) / (a->y_max - a->y_min);
}

static void stretch(axes *a, double y)
{
    double height = a->logarithmic ? log10(fmax(y, 1e-12)) : y;
    a->y_min = fmin(a->y_min, height);
    a->y_max = fmax(a->y_max, height);
}

/* 1, 2 or 5 times a power of ten, so that range holds about n of them. */
static double nice_step(double range, int n)
{
    double rough = range / n, power = pow(10, floor(log10(rough)));
    double factor = rough / power;
    return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
}

static axes axes_of(const ag_loss_picture *p)
{
    axes a = { .left = 84, .right = 696, .top = 72, .bottom = 366, .x_max = 1 };
    a.logarithmic = p->logarithmic;
    a.y_min = a.logarithmic ? INFINITY : 0;
    a.y_max = -INFINITY;
    const ag_curve *curves[] = { p->training, p->fresh };
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < curves[c]->count; i++) {
            a.x_max = fmax(a.x_max, curves[c]->x[i]);
            stretch(&a, curves[c]->y[i]);
        }
    if (p->known_loss > 0)
        stretch(&a, p->known_loss);
    if (a.logarithmic) {
        a.y_min = floor(a.y_min);
        a.y_max = ceil(a.y_max);
    } else {
        a.y_max *= 1.05;
    }
    if (!(a.y_max > a.y_min))
        a.y_max = a.y_min + 1;
    return a;
}

static void draw_tick_y(FILE *file, const axes *a, double y)
{
    double at = place_y(a, y);
    ag_svg_line(file, a->left, at, a->right, at, "stroke=\"" GRID "\"");
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"" QUIET "\">%g</text>\n",
            a->left - 9, at + 4.5, y);
}

static void draw_axes(FILE *file, const axes *a)
{
    if (a->logarithmic) {
        for (double power = a->y_min; power <= a->y_max; power++)
            draw_tick_y(file, a, pow(10, power));
    } else {
        double step = nice_step(a->y_max, 5);
        for (int i = 0; i * step <= a->y_max; i++)
            draw_tick_y(file, a, i * step);
    }
    double step = fmax(nice_step(a->x_max, 6), 1);
    for (int i = 0; i * step <= a->x_max; i++) {
        double at = place_x(a, i * step);
        ag_svg_line(file, at, a->bottom, at, a->bottom + 5, "stroke=\"" QUIET "\"");
        fprintf(file,
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"" QUIET "\">%g</text>\n",
                at, a->bottom + 20, i * step);
    }
    ag_svg_line(file, a->left, a->bottom, a->right, a->bottom, "stroke=\"" QUIET "\"");
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">training step</text>\n",
            (a->left + a->right) / 2, a->bottom + 42);
    fprintf(file,
            "<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">"
            "loss%s</text>\n",
            (a->top + a->bottom) / 2, a->logarithmic ? " (logarithmic)" : "");
}

static void draw_curve(FILE *file, const axes *a, const ag_curve *curve, const char *style)
{
    fprintf(file, "<polyline fill=\"none\" stroke-linejoin=\"round\" %s points=\"", style);
    for (int i = 0; i < curve->count; i++)
        fprintf(file, "%s%.1f,%.1f", i ? " " : "", place_x(a, curve->x[i]),
                place_y(a, curve->y[i]));
    fputs("\"/>\n", file);
}

static void draw_legend_entry(FILE *file, double x, const char *style, const char *text)
{
    ag_svg_line(file, x, 51, x + 24, 51, style);
    fprintf(file, "<text x=\"%.1f\" y=\"55.5\">%s</text>\n", x + 31, text);
}

bool ag_svg_loss(FILE *file, const ag_loss_picture *p)
{
    static const char training[] = "stroke=\"#9ec5f4\" stroke-width=\"1.5\"";
    static const char fresh[] = "stroke=\"#0b4a9e\" stroke-width=\"2.5\"";
    static const char known[] = "stroke=\"#b35900\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"";
    axes a = axes_of(p);
    ag_svg_begin(file, 720, 424, p->title);
    draw_axes(file, &a);
    draw_curve(file, &a, p->training, training);
    draw_curve(file, &a, p->fresh, fresh);
    for (int i = 0; i < p->fresh->count && p->fresh->count <= 60; i++)
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"#0b4a9e\"/>\n",
                place_x(&a, p->fresh->x[i]), place_y(&a, p->fresh->y[i]));
    draw_legend_entry(file, a.left, training, "training batch");
    draw_legend_entry(file, a.left + 130, fresh, p->evaluated);
    if (p->known_loss > 0) {
        double at = place_y(&a, p->known_loss);
        ag_svg_line(file, a.left, at, a.right, at, known);
        draw_legend_entry(file, a.left + 276, known, p->known);
    }
    return ag_svg_end(file);
}

/* ---- The heat map ---- */

/* From white to dark blue for share 0 to 1, or to dark red for 0 to -1. */
static void colour_of(double share, char *text, size_t size)
{
    static const double blues[4][3] = {
        { 247, 251, 255 }, { 158, 202, 225 }, { 49, 130, 189 }, { 8, 48, 107 }
    };
    static const double reds[4][3] = {
        { 255, 245, 240 }, { 252, 160, 125 }, { 222, 45, 38 }, { 103, 0, 13 }
    };
    const double(*scale)[3] = share < 0 ? reds : blues;
    double place = isfinite(share) ? 3 * fmin(fabs(share), 1) : 0;
    int i = place >= 3 ? 2 : (int)place;
    int rgb[3];
    for (int c = 0; c < 3; c++)
        rgb[c] = (int)lround(scale[i][c] + (place - i) * (scale[i + 1][c] - scale[i][c]));
    snprintf(text, size, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
}

static void draw_names(FILE *file, const ag_heatmap *map, double left, double top, double cell)
{
    double size = fmin(13, fmax(8, cell * 0.8));
    for (int64_t t = 0; t < map->tokens; t++) {
        double middle = ((double)t + 0.5) * cell;
        double row = middle - (double)map->first_row * cell;
        if (t >= map->first_row)
            fprintf(
                file,
                "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                left - 6, top + row + size * 0.35, size, map->rows[t]);
        fprintf(file,
                "<text transform=\"translate(%.1f %.1f) rotate(-90)\" font-size=\"%.1f\">"
                "%s</text>\n",
                left + middle + size * 0.35, top - 6, size, map->columns[t]);
    }
}

static void draw_cells(FILE *file, const ag_heatmap *map, double left, double top, double cell)
{
    double largest = ag_heatmap_largest(map);
    fputs("<g shape-rendering=\"crispEdges\">\n", file);
    for (int64_t i = map->first_row; i < map->tokens; i++)
        for (int64_t j = 0; j < map->tokens; j++) {
            double weight = map->weights[i * map->tokens + j];
            char colour[16];
            colour_of(weight / largest, colour, sizeof colour);
            fprintf(file,
                    "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\">"
                    "<title>%s to %s: %.3g</title></rect>\n",
                    left + (double)j * cell, top + (double)(i - map->first_row) * cell, cell, cell,
                    colour, map->rows[i], map->columns[j], weight);
        }
    fputs("</g>\n", file);
}

/* The bar of colours beside the map, from the smallest weight (0 if none is
 * negative) up to the largest. */
static void draw_scale(FILE *file, const ag_heatmap *map, double x, double top, double height)
{
    double largest = ag_heatmap_largest(map);
    bool negative = false;
    for (int64_t i = map->first_row * map->tokens; i < map->tokens * map->tokens; i++)
        negative = negative || map->weights[i] < 0;
    double low = negative ? -1 : 0;
    const int pieces = 50;
    for (int i = 0; i < pieces; i++) {
        char colour[16];
        colour_of(1 - (1 - low) * (i + 0.5) / pieces, colour, sizeof colour);
        fprintf(file, "<rect x=\"%.1f\" y=\"%.2f\" width=\"16\" height=\"%.2f\" fill=\"%s\"/>\n", x,
                top + height * i / pieces, height / pieces + 0.5, colour);
    }
    for (int i = 0; i <= 2; i++) {
        double share = 1 - (1 - low) * i / 2;
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" fill=\"" QUIET "\">%.2g</text>\n", x + 22,
                top + height * i / 2 + 4.5, share * largest);
    }
}

bool ag_svg_heatmap(FILE *file, const ag_heatmap *map, const char *title)
{
    const double left = 92, top = 136, side = 440, cell = side / (double)map->tokens;
    const double height = cell * (double)(map->tokens - map->first_row);
    ag_svg_begin(file, 640, top + height + 56, title);
    draw_cells(file, map, left, top, cell);
    fprintf(file,
            "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"none\" stroke=\"" QUIET
            "\"/>\n",
            left, top, side, height);
    draw_names(file, map, left, top, cell);
    fprintf(file, "<text x=\"%g\" y=\"58\" text-anchor=\"middle\">to this token (key)</text>\n",
            left + side / 2);
    fprintf(file,
            "<text transform=\"translate(24 %g) rotate(-90)\" text-anchor=\"middle\">"
            "from this token (query)</text>\n",
            top + height / 2);
    if (*map->note)
        fprintf(file,
                "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\" fill=\"" QUIET "\">%s</text>\n",
                left + side / 2, top + height + 26, map->note);
    draw_scale(file, map, left + side + 22, top, height);
    if (map->last_row_answers) {
        double width = fmax(1.5, fmin(3, cell / 6));
        fprintf(file,
                "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"none\""
                " stroke=\"#d1650a\" stroke-width=\"%g\"/>\n",
                left, top + height - cell, side, cell, width);
        fprintf(file,
                "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\" fill=\"#a34e00\">"
                "the answer is read from the last row</text>\n",
                left + side / 2, top + height + 26);
    }
    return ag_svg_end(file);
}
