/* A V curve as a picture: both axes logarithmic, and of the same extent in every picture. */
#include "svg.h"
#include "vcurve.h"

#include <math.h>

#define LEFT 84.0
#define RIGHT 736.0
#define TOP 132.0
#define BOTTOM 456.0
#define STRIP 36.0 /* above the plot, for the names of the regions */

enum { LARGEST_ERROR = 1, SMALLEST_ERROR = -16, SMALLEST_STEP = -15 }; /* powers of ten */

static const char *const colours[AG_V_ORDERS] = { "#b35900", "#2b8a3e", "#7048c6", "#0b4a9e" };
static const char complex_style[] = "stroke=\"#c2185b\" stroke-width=\"2.5\"";

static double place_x(double h)
{
    double share = 1.0 - log10(h) / (SMALLEST_STEP - 0.1);
    return LEFT + (RIGHT - LEFT) * share;
}

/* Errors beyond the picture, and 0, lie on its edge. */
static double place_y(double error)
{
    double power = error > 0.0 ? log10(error) : SMALLEST_ERROR;
    power = fmin(fmax(power, SMALLEST_ERROR), LARGEST_ERROR);
    return TOP + (BOTTOM - TOP) * (LARGEST_ERROR - power) / (LARGEST_ERROR - SMALLEST_ERROR);
}

/* 10 to a power of at most two digits, into text, which is returned. */
static const char *power_text(int power, char text[32])
{
    static const char *const digits[] = { "⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹" };
    int size = power < 0 ? -power : power;
    snprintf(text, 32, "10%s%s%s", power < 0 ? "⁻" : "", size > 9 ? digits[size / 10 % 10] : "",
             digits[size % 10]);
    return text;
}

/* ---- What lies behind the curves ---- */

static void draw_band(FILE *file, double from, double to, const char *fill)
{
    fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
            from, TOP - STRIP, to - from, BOTTOM - TOP + STRIP, fill);
}

/* Text that stays readable on top of curves: a white edge first, then the ink. */
static void draw_haloed(FILE *file, const char *place, const char *anchor, const char *text)
{
    static const char *const passes[] = { "stroke=\"#ffffff\" stroke-width=\"4\" "
                                          "stroke-linejoin=\"round\" fill=\"#ffffff\"",
                                          "fill=\"" AG_SVG_INK "\"" };
    for (int pass = 0; pass < 2; pass++)
        fprintf(file, "<text %s text-anchor=\"%s\" font-size=\"12\" %s>%s</text>\n", place, anchor,
                passes[pass], text);
}

enum { NARROW = 66 }; /* a band without room for its name above the plot */

/* In two lines above the plot; where the band is narrow, upwards from its foot. */
static void draw_band_name(FILE *file, double from, double to, const char *first,
                           const char *second)
{
    double x = (from + to) / 2;
    if (to - from > NARROW) {
        fprintf(file,
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"12\">%s</text>\n"
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"12\">%s</text>\n",
                x, TOP - STRIP + 15, first, x, TOP - STRIP + 29, second);
    } else if (to - from > 15) {
        char place[96], name[64];
        snprintf(place, sizeof place, "transform=\"translate(%.1f %.1f) rotate(-90)\"", x + 4,
                 BOTTOM - 8);
        snprintf(name, sizeof name, "%s %s", first, second);
        draw_haloed(file, place, "start", name);
    }
}

static const struct {
    const char *fill, *first, *second;
} regions[] = { [AG_V_ROUNDING] = { "#eef3f9", "rounding dominates", "(order 8 in f64)" },
                [AG_V_TRUNCATION] = { "#fdf3e4", "truncation", "dominates" },
                [AG_V_KINK] = { "#f8e6ee", "across", "a kink" } };

static double clamp_x(double x)
{
    return fmin(fmax(x, LEFT), RIGHT);
}

static void draw_regions(FILE *file, const ag_vcurve *curve, bool names)
{
    ag_v_band bands[3];
    int n = ag_vcurve_bands(curve, bands);
    for (int i = 0; i < n; i++) {
        double from = i == 0 ? LEFT : clamp_x(place_x(bands[i].from));
        double to = i + 1 == n ? RIGHT : clamp_x(place_x(bands[i].to));
        ag_v_cause cause = bands[i].cause;
        if (names)
            draw_band_name(file, from, to, regions[cause].first, regions[cause].second);
        else
            draw_band(file, from, to, regions[cause].fill);
    }
}

/* Whether a name stands upwards at the right. */
static bool last_band_is_narrow(const ag_vcurve *curve)
{
    ag_v_band bands[3];
    int n = ag_vcurve_bands(curve, bands);
    return n > 1 && RIGHT - clamp_x(place_x(bands[n - 1].from)) <= NARROW;
}

static void draw_axes(FILE *file, const ag_vcurve *curve)
{
    char text[32];
    for (int power = SMALLEST_ERROR; power <= LARGEST_ERROR; power++) {
        double y = place_y(pow(10, power));
        ag_svg_line(file, LEFT, y, RIGHT, y, "stroke=\"#d8dee6\" stroke-width=\"0.6\"");
        if (power % 2 == 0)
            fprintf(file,
                    "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"" AG_SVG_QUIET
                    "\">%s</text>\n",
                    LEFT - 9, y + 4.5, power_text(power, text));
    }
    for (int power = SMALLEST_STEP; power <= 0; power++) {
        double x = place_x(pow(10, power));
        ag_svg_line(file, x, BOTTOM, x, BOTTOM + (power % 3 ? 3 : 6),
                    "stroke=\"" AG_SVG_QUIET "\"");
        if (power % 3 == 0)
            fprintf(file,
                    "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"" AG_SVG_QUIET
                    "\">%s</text>\n",
                    x, BOTTOM + 21, power_text(power, text));
    }
    ag_svg_line(file, LEFT, BOTTOM, RIGHT, BOTTOM, "stroke=\"" AG_SVG_QUIET "\"");
    fprintf(file,
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">step h (x moves by ± h, ± 2h, ..)"
            "</text>\n"
            "<text transform=\"translate(24 %.1f) rotate(-90)\" text-anchor=\"middle\">"
            "%s error of the derivative</text>\n",
            (LEFT + RIGHT) / 2, BOTTOM + 44, (TOP + BOTTOM) / 2,
            curve->relative ? "relative" : "absolute");
}

/* ---- The curves ---- */

static void style_of(int dtype, int order, char style[96])
{
    snprintf(style, 96, "stroke=\"%s\" %s", colours[order],
             dtype ? "stroke-width=\"2\"" : "stroke-width=\"1.2\" stroke-opacity=\"0.6\"");
}

static void draw_curve(FILE *file, const ag_vcurve *curve, const double *quotients,
                       const char *style)
{
    fprintf(file, "<polyline fill=\"none\" stroke-linejoin=\"round\" %s points=\"", style);
    for (int i = 0; i < AG_V_STEPS; i++) {
        double error = ag_vcurve_error(curve, quotients[i]);
        if (!isnan(error))
            fprintf(file, " %.1f,%.1f", place_x(curve->steps[i]), place_y(error));
    }
    fputs("\"/>\n", file);
}

static void draw_curves(FILE *file, const ag_vcurve *curve)
{
    char style[96];
    for (int d = 0; d < AG_V_DTYPES; d++)
        for (int order = 0; order < AG_V_ORDERS; order++) {
            style_of(d, order, style);
            draw_curve(file, curve, curve->quotients[d][order], style);
        }
    if (curve->has_complex)
        draw_curve(file, curve, curve->complex_quotients, complex_style);
}

/* ---- The checker's choice ---- */

static const char choice[] = "stroke=\"" AG_SVG_INK "\" stroke-width=\"1.5\"";

/* The bound as a bar, down from which a line leads to the step. */
static void draw_choice(FILE *file, const ag_vcurve *curve)
{
    if (!(curve->step > 0.0))
        return;
    double scale = curve->relative ? fabs(curve->gradient) : 1.0, bound = curve->bound / scale;
    double x = place_x(curve->step), y = place_y(bound);
    ag_svg_line(file, x, y, x, BOTTOM, choice);
    ag_svg_line(file, x - 7, y, x + 7, y, "stroke=\"" AG_SVG_INK "\" stroke-width=\"2.5\"");
    fprintf(file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"" AG_SVG_INK "\"/>\n", x,
            place_y(ag_vcurve_error(curve, curve->numeric)));
    bool room = RIGHT - x > (last_band_is_narrow(curve) ? 130 : 90);
    const char *anchor = room ? "start" : "end";
    char place[48], text[48];
    for (int line = 0; line < 2; line++) {
        snprintf(place, sizeof place, "x=\"%.1f\" y=\"%.1f\"", room ? x + 8 : x - 8,
                 BOTTOM - 23 + 15 * line);
        snprintf(text, sizeof text, line ? "bound %.0e" : "h = %.3g", line ? bound : curve->step);
        draw_haloed(file, place, anchor, text);
    }
}

static void draw_legend(FILE *file, const ag_vcurve *curve)
{
    char style[96];
    for (int d = 0; d < AG_V_DTYPES; d++) {
        double y = d ? 52 : 74;
        fprintf(file, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", LEFT, y + 4.5, ag_v_dtypes[d]);
        for (int order = 0; order < AG_V_ORDERS; order++) {
            double x = LEFT + 36 + 92 * order;
            style_of(d, order, style);
            ag_svg_line(file, x, y, x + 22, y, style);
            fprintf(file, "<text x=\"%.1f\" y=\"%.1f\">order %d</text>\n", x + 28, y + 4.5,
                    AG_V_ORDER(order));
        }
    }
    double x = LEFT + 424;
    ag_svg_line(file, x + 11, 46, x + 11, 58, choice);
    ag_svg_line(file, x + 4, 46, x + 18, 46, "stroke=\"" AG_SVG_INK "\" stroke-width=\"2.5\"");
    fprintf(file, "<text x=\"%.1f\" y=\"56.5\">the checker's step and bound</text>\n", x + 28);
    if (curve->has_complex) {
        ag_svg_line(file, x, 74, x + 22, 74, complex_style);
        fprintf(file, "<text x=\"%.1f\" y=\"78.5\">complex step</text>\n", x + 28);
    }
}

bool ag_svg_vcurve(FILE *file, const void *what)
{
    const ag_vcurve *curve = what;
    char title[192];
    snprintf(title, sizeof title, "%s: numeric derivatives by %s", curve->name, curve->place);
    ag_svg_begin(file, 760, 520, title);
    draw_regions(file, curve, false);
    draw_axes(file, curve);
    draw_curves(file, curve);
    draw_regions(file, curve, true);
    draw_choice(file, curve);
    draw_legend(file, curve);
    return ag_svg_end(file);
}
