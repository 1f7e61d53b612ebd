/* The same cells as a table and as JSON. */
#include "bench/output.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_text(double value, const char *expected)
{
    char text[64];
    cr_expect_str_eq(bench_number_text(value, text, sizeof text), expected, "%g became %s, not %s",
                     value, text, expected);
}

Test(bench_output, numbers_have_three_digits_that_count)
{
    expect_text(0, "0.0000");
    expect_text(0.01234, "0.0123");
    expect_text(0.5, "0.50");
    expect_text(9.994, "9.99");
    expect_text(9.996, "10.0");
    expect_text(99.94, "99.9");
    expect_text(99.96, "100");
    expect_text(999.4, "999");
    expect_text(1234.5, "1,234");
    expect_text(1234567, "1,234,567");
    expect_text(-123, "-123");
    expect_text(-1234, "-1,234");
}

static const bench_column columns[] = {
    { "who", "who", 6, true }, { NULL, "hidden", 0, false },   { "count", "count", 7, false },
    { "us", "us", 12, false }, { "ratio", "ratio", 6, false }, { "", "note", 0, true },
};

static void put_rows(bench_output *out)
{
    const bench_times times = { .n = 3, .median = 2e-6, .low = 1.9e-6, .high = 2.1e-6 };
    bench_output_begin(out);
    bench_note(out, "peer", "a \"peer\"\\\t");
    bench_table_begin(out, "first", "a title", columns, 6);
    bench_put_text(out, "a");
    bench_put_integer(out, -5);
    bench_put_integer(out, 12345);
    bench_put_time(out, times, 1e6);
    bench_put_number(out, 0.75);
    bench_put_absent(out);
    bench_put_text(out, "b");
    bench_put_absent(out);
    bench_put_absent(out);
    bench_put_rate(out, times, 8);
    bench_put_number(out, NAN);
    bench_put_text(out, "why");
    bench_table_end(out);
    bench_table_begin(out, "second", "empty", columns, 1);
    bench_table_end(out);
    bench_output_end(out);
}

static void expect_output(bool json, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    bench_output out = { .file = open_memstream(&text, &size), .json = json };
    put_rows(&out);
    fclose(out.file);
    cr_expect_str_eq(text, expected, "%s", text);
    free(text);
}

Test(bench_output, table)
{
    expect_output(false, "peer: a \"peer\"\\\t\n"
                         "\n"
                         "first: a title\n"
                         "\n"
                         "who       count            us   ratio\n"
                         "a        12,345    2.00 +- 5%    0.75\n"
                         "b             -  4,000,000 +- 5%       -  why\n"
                         "\n"
                         "second: empty\n"
                         "\n"
                         "who   \n");
}

Test(bench_output, json)
{
    expect_output(
        true, "{\n"
              "  \"peer\": \"a \\\"peer\\\"\\\\\\u0009\",\n"
              "  \"first\": [\n"
              "    { \"who\": \"a\", \"hidden\": -5, \"count\": 12345, \"us\": 2, \"us_low\": 1.9, "
              "\"us_high\": 2.1, \"ratio\": 0.75, \"note\": null },\n"
              "    { \"who\": \"b\", \"hidden\": null, \"count\": null, \"us\": 4e+06, "
              "\"us_low\": 3.80952e+06, \"us_high\": 4.21053e+06, \"ratio\": null, "
              "\"note\": \"why\" }\n"
              "  ],\n"
              "  \"second\": [\n"
              "  ]\n"
              "}\n");
}
