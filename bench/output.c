#include "output.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- Numbers as text ---- */

/* Digits with a comma before every third one from the right. */
static char *grouped(const char *digits, char *text, size_t size)
{
    size_t length = strlen(digits), used = 0;
    for (size_t i = 0; i < length && used + 2 < size; i++) {
        if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-')
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

char *bench_number_text(double value, char *text, size_t size)
{
    char digits[400];
    double a = fabs(value);
    if (a >= 99.95) {
        snprintf(digits, sizeof digits, "%.0f", value);
        return grouped(digits, text, size);
    }
    snprintf(text, size, "%.*f", a >= 9.995 ? 1 : a >= 0.1 ? 2 : 4, value);
    return text;
}

/* ---- Cells ---- */

static const bench_column *column(const bench_output *out)
{
    return &out->columns[out->at];
}

static void print_string(FILE *file, const char *text)
{
    fputc('"', file);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', file);
        if ((unsigned char)*c < 0x20)
            fprintf(file, "\\u%04x", (unsigned)*c);
        else
            fputc(*c, file);
    }
    fputc('"', file);
}

/* The key of the next member of a row's object; begins the object before the first. */
static void print_key(bench_output *out, const char *suffix)
{
    if (out->at == 0 && !*suffix)
        fprintf(out->file, "%s\n    { ", out->rows ? "," : "");
    else
        fputs(", ", out->file);
    fprintf(out->file, "\"%s%s\": ", column(out)->key, suffix);
}

/* A line of the table is readable as soon as it is measured. */
static void next_cell(bench_output *out)
{
    if (++out->at < out->n)
        return;
    fputs(out->json ? " }" : "\n", out->file);
    fflush(out->file);
    out->at = 0;
    out->rows++;
}

static void print_cell(const bench_output *out, const char *text)
{
    const bench_column *c = column(out);
    if (!c->title || (c->width == 0 && !*text))
        return;
    if (out->at > 0)
        fputs("  ", out->file);
    fprintf(out->file, "%*s", c->text ? -c->width : c->width, text);
}

void bench_put_text(bench_output *out, const char *text)
{
    if (out->json) {
        print_key(out, "");
        print_string(out->file, text);
    } else {
        print_cell(out, text);
    }
    next_cell(out);
}

void bench_put_integer(bench_output *out, int64_t value)
{
    char digits[32], text[48];
    snprintf(digits, sizeof digits, "%" PRId64, value);
    if (out->json) {
        print_key(out, "");
        fputs(digits, out->file);
    } else {
        print_cell(out, grouped(digits, text, sizeof text));
    }
    next_cell(out);
}

void bench_put_absent(bench_output *out)
{
    if (out->json) {
        print_key(out, "");
        fputs("null", out->file);
    } else {
        print_cell(out, column(out)->text ? "" : "-");
    }
    next_cell(out);
}

void bench_put_number(bench_output *out, double value)
{
    char text[400];
    if (!isfinite(value)) {
        bench_put_absent(out);
        return;
    }
    if (out->json) {
        print_key(out, "");
        fprintf(out->file, "%.6g", value);
    } else {
        print_cell(out, bench_number_text(value, text, sizeof text));
    }
    next_cell(out);
}

static void put_spread(bench_output *out, double median, double low, double high)
{
    char number[400], text[440];
    if (out->json) {
        print_key(out, "");
        fprintf(out->file, "%.6g", median);
        print_key(out, "_low");
        fprintf(out->file, "%.6g", low);
        print_key(out, "_high");
        fprintf(out->file, "%.6g", high);
    } else {
        snprintf(text, sizeof text, "%s +-%2.0f%%",
                 bench_number_text(median, number, sizeof number), 50 * (high - low) / median);
        print_cell(out, text);
    }
    next_cell(out);
}

void bench_put_time(bench_output *out, bench_times times, double factor)
{
    if (times.n == 0)
        bench_put_absent(out);
    else
        put_spread(out, factor * times.median, factor * times.low, factor * times.high);
}

void bench_put_rate(bench_output *out, bench_times times, double work)
{
    if (times.n == 0)
        bench_put_absent(out);
    else /* the fast quartile of the times is the high one of the rate */
        put_spread(out, work / times.median, work / times.high, work / times.low);
}

/* ---- Tables ---- */

void bench_output_begin(bench_output *out)
{
    if (out->json)
        fputc('{', out->file);
}

void bench_output_end(bench_output *out)
{
    if (out->json)
        fputs("\n}\n", out->file);
}

void bench_note(bench_output *out, const char *key, const char *text)
{
    if (!out->json) {
        fprintf(out->file, "%s%s: %s\n", out->tables++ ? "\n" : "", key, text);
        return;
    }
    fprintf(out->file, "%s\n  \"%s\": ", out->tables++ ? "," : "", key);
    print_string(out->file, text);
}

void bench_table_begin(bench_output *out, const char *key, const char *title,
                       const bench_column *columns, int n)
{
    out->columns = columns;
    out->n = n;
    out->at = out->rows = 0;
    if (out->json) {
        fprintf(out->file, "%s\n  \"%s\": [", out->tables++ ? "," : "", key);
        return;
    }
    fprintf(out->file, "%s%s: %s\n\n", out->tables++ ? "\n" : "", key, title);
    for (; out->at < n; out->at++)
        print_cell(out, column(out)->title);
    fputc('\n', out->file);
    out->at = 0;
}

void bench_table_end(bench_output *out)
{
    if (out->json)
        fputs("\n  ]", out->file);
}
