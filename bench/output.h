/* What is measured is told once, cell by cell, and comes out as a table or as JSON. */
#ifndef AG_BENCH_OUTPUT_H
#define AG_BENCH_OUTPUT_H

#include "measure.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct bench_column {
    const char *title; /* in the table; NULL: not shown there */
    const char *key;   /* in JSON, with the unit */
    int width;         /* in the table: 0 for text that goes on to the end of the line */
    bool text;         /* left-aligned */
} bench_column;

/* Zero but for file and json at the start. */
typedef struct bench_output {
    FILE *file;
    bool json;
    const bench_column *columns;
    int n, at; /* columns in all, and the next one of this row */
    int tables, rows;
} bench_output;

void bench_output_begin(bench_output *out);
void bench_output_end(bench_output *out);

/* A line of its own: what a peer is, or why it is absent. JSON: a string. */
void bench_note(bench_output *out, const char *key, const char *text);

/* JSON: a member key of the object, an array with an object for each row. The
 * title is for the table only. */
void bench_table_begin(bench_output *out, const char *key, const char *title,
                       const bench_column *columns, int n);
void bench_table_end(bench_output *out);

/* The cells of a row, in the order of the columns; the last one ends the row. */
void bench_put_text(bench_output *out, const char *text);
void bench_put_integer(bench_output *out, int64_t value);
void bench_put_number(bench_output *out, double value); /* absent unless finite */
void bench_put_absent(bench_output *out);

/* factor * time, or work / time with bench_put_rate, as median and quartiles: in the
 * table "95.3 +-1%", half the distance of the quartiles in per cent of the
 * median; in JSON the members key, key_low and key_high. Absent if n is 0. */
void bench_put_time(bench_output *out, bench_times times, double factor);
void bench_put_rate(bench_output *out, bench_times times, double work);

/* 95.31, 1,603, 0.0123: three to four digits that count, thousands apart. */
char *bench_number_text(double value, char *text, size_t size);

#endif
