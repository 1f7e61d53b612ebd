/* A V curve in 80 columns, and as numbers. */
#include "vcurve.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { COLUMNS = 64, IN_A_DECADE = 4, MOST_ROWS = 24, TABLE_EVERY = 6 };

static const char order_marks[] = "2468";

/* ---- In words ---- */

static const char *kind_of_error(const ag_vcurve *curve)
{
    return curve->relative ? "relative error" : "absolute error";
}

/* The checker's bound in the units of the curve. */
static double bound_of(const ag_vcurve *curve)
{
    return curve->relative ? curve->bound / fabs(curve->gradient) : curve->bound;
}

void ag_vcurve_print_summary(const ag_vcurve *curve)
{
    printf("%s: dL / d %s = %.10g (entry %" PRId64 " of 0 to %" PRId64 ")\n", curve->name,
           curve->place, curve->gradient, curve->entry, curve->entries - 1);
    printf("order 8 in f64: rounding: about %.0e / h", curve->rounding);
    if (curve->border > 0.0)
        printf("; above h = %.2g truncation dominates\n", curve->border);
    else
        printf("; there is no truncation to be seen\n");
    if (curve->kink > 0.0)
        printf("order 8 reaches x +- 4 h: above h = %.2g that is across a kink\n", curve->kink);
    if (curve->step > 0.0)
        printf("the checker: h = %.3g, %s %.1e, bound %.1e: %s\n", curve->step,
               kind_of_error(curve), ag_vcurve_error(curve, curve->numeric), bound_of(curve),
               ag_verdict_name(curve->verdict));
    else
        printf("the checker: no step; %s\n", ag_verdict_name(curve->verdict));
}

/* ---- The picture ---- */

typedef struct canvas {
    int top, rows; /* the first row stands for errors of 10^top, the next for a tenth of that .. */
    char cells[MOST_ROWS][COLUMNS + 1];
} canvas;

static int column_of(double h)
{
    return COLUMNS - 2 + (int)lround(IN_A_DECADE * log10(h));
}

/* Errors beyond the canvas lie on its edge. */
static int row_of(const canvas *c, double error)
{
    double row = c->top - log10(error);
    return row < 0.0 ? 0 : row > c->rows - 1 ? c->rows - 1 : (int)lround(row);
}

static void put(canvas *c, double h, double error, char mark)
{
    int column = column_of(h);
    if (!isnan(error) && column >= 0 && column < COLUMNS)
        c->cells[row_of(c, error)][column] = mark;
}

/* The bound, and the chosen step below it. */
static void put_choice(canvas *c, const ag_vcurve *curve)
{
    int column = column_of(curve->step);
    if (!(curve->step > 0.0) || column < 0 || column >= COLUMNS)
        return;
    int row = row_of(c, bound_of(curve));
    for (int i = row + 1; i < c->rows; i++)
        c->cells[i][column] = '|';
    c->cells[row][column] = '+';
}

static void print_canvas(const canvas *c)
{
    for (int i = 0; i < c->rows; i++) {
        int length = COLUMNS;
        while (length > 0 && c->cells[i][length - 1] == ' ')
            length--;
        printf("  1e%+03d |%.*s\n", c->top - i, length, c->cells[i]);
    }
    printf("        +");
    for (int i = 0; i < COLUMNS; i++)
        putchar((COLUMNS - 2 - i) % IN_A_DECADE == 0 ? '+' : '-');
    putchar('\n');
}

/* Where in a line of blanks a word may stand; it ends before COLUMNS. */
static void write_at(char *line, int column, const char *word)
{
    size_t length = strlen(word);
    if (column < 0)
        column = 0;
    if ((size_t)column + length > COLUMNS + 6)
        column = COLUMNS + 6 - (int)length;
    memcpy(line + column, word, length);
}

static void print_labels(void)
{
    char line[COLUMNS + 8], label[16];
    memset(line, ' ', sizeof line);
    for (int power = -15; power <= 0; power += 3) {
        snprintf(label, sizeof label, "1e%+03d", power);
        write_at(line, column_of(pow(10, power)) - 2, label);
    }
    int length = COLUMNS + 6;
    while (line[length - 1] == ' ')
        length--;
    printf("         %.*s\n", length, line);
}

/* A name in the middle of line[from .. to - 1], or none if there is no room for it. */
static void name_band(char *line, int from, int to, ag_v_cause cause)
{
    static const char *const names[][3] = { { " rounding ", " round. ", "" },
                                            { " truncation ", " trunc. ", "" },
                                            { " across a kink ", " kink ", "" } };
    int k = 0;
    while ((int)strlen(names[cause][k]) > to - from)
        k++;
    int length = (int)strlen(names[cause][k]);
    memcpy(line + (from + to - length) / 2, names[cause][k], (size_t)length);
}

/* "<---- rounding ----|-- truncation -->" */
static void print_regions(const ag_vcurve *curve)
{
    ag_v_band bands[3];
    char line[COLUMNS];
    int n = ag_vcurve_bands(curve, bands), start = 0;
    memset(line, '-', sizeof line);
    for (int i = 0; i < n; i++) {
        int end = i + 1 < n ? column_of(bands[i].to) : COLUMNS - 1;
        end = end < start ? start : end > COLUMNS - 1 ? COLUMNS - 1 : end;
        if (end - start > 1)
            name_band(line, start + 1, end, bands[i].cause);
        line[end] = '|';
        start = end;
    }
    line[0] = '<';
    line[COLUMNS - 1] = '>';
    printf("         %.*s\n", COLUMNS, line);
}

/* Lower orders go on top: they differ most from one another where steps are large. */
static void draw(const ag_vcurve *curve, int dtype, int top, int rows)
{
    canvas c = { .top = top, .rows = rows };
    memset(c.cells, ' ', sizeof c.cells);
    for (int order = AG_V_ORDERS - 1; order >= 0; order--)
        for (int i = 0; i < AG_V_STEPS; i++)
            put(&c, curve->steps[i], ag_vcurve_error(curve, curve->quotients[dtype][order][i]),
                order_marks[order]);
    for (int i = 0; curve->has_complex && dtype == AG_V_DTYPES - 1 && i < AG_V_STEPS; i++)
        put(&c, curve->steps[i], ag_vcurve_error(curve, curve->complex_quotients[i]), 'c');
    if (dtype == AG_V_DTYPES - 1)
        put_choice(&c, curve);
    print_canvas(&c);
    print_labels();
}

/* ---- The numbers ---- */

static void print_number(double error)
{
    if (isnan(error))
        printf(" %7s", "-");
    else
        printf(" %7.1e", error);
}

static void print_table(const ag_vcurve *curve)
{
    printf("\n%7s %7s %31s\n%7s", "", ag_v_dtypes[0], ag_v_dtypes[1], "h");
    for (int d = 0; d < AG_V_DTYPES; d++)
        for (int order = 0; order < AG_V_ORDERS; order++)
            printf(order == 0 ? " order %d" : " %7d", AG_V_ORDER(order));
    putchar('\n');
    for (int i = 0; i < AG_V_STEPS; i += TABLE_EVERY) {
        printf("%7.1e", curve->steps[i]);
        for (int d = 0; d < AG_V_DTYPES; d++)
            for (int order = 0; order < AG_V_ORDERS; order++)
                print_number(ag_vcurve_error(curve, curve->quotients[d][order][i]));
        putchar('\n');
    }
}

void ag_vcurve_print(const ag_vcurve *curve)
{
    printf("\n%s of orders 2, 4, 6, 8 in f64%s\n"
           "against the step h; + is the checker's bound, above the step that it chose\n\n",
           kind_of_error(curve), curve->has_complex ? " and of complex steps, c," : "");
    draw(curve, 1, 1, 18);
    print_regions(curve);
    printf("\nthe same in f32\n\n");
    draw(curve, 0, 1, 10);
    print_table(curve);
}

/* ---- CSV ---- */

static void write_line(FILE *file, const ag_vcurve *curve, const char *dtype, const char *method,
                       double step, double quotient)
{
    double error = ag_vcurve_error(curve, quotient);
    if (isfinite(quotient))
        fprintf(file, "%s,%s,%.17g,%.17g,%.6e\n", dtype, method, step, quotient, error);
}

bool ag_vcurve_write_csv(FILE *file, const void *what)
{
    const ag_vcurve *curve = what;
    char method[16];
    fprintf(file, "dtype,method,step,derivative,%s_error\n",
            curve->relative ? "relative" : "absolute");
    for (int d = 0; d < AG_V_DTYPES; d++)
        for (int order = 0; order < AG_V_ORDERS; order++) {
            snprintf(method, sizeof method, "order %d", AG_V_ORDER(order));
            for (int i = 0; i < AG_V_STEPS; i++)
                write_line(file, curve, ag_v_dtypes[d], method, curve->steps[i],
                           curve->quotients[d][order][i]);
        }
    for (int i = 0; curve->has_complex && i < AG_V_STEPS; i++)
        write_line(file, curve, "c128", "complex step", curve->steps[i],
                   curve->complex_quotients[i]);
    if (curve->step > 0.0)
        write_line(file, curve, "f64", "chosen", curve->step, curve->numeric);
    fprintf(file, "f64,backward,,%.17g,0\n", curve->gradient);
    return fflush(file) == 0 && !ferror(file);
}
