/* A report as a sentence and as JSON. */
#include "gradcheck.h"

#include <math.h>
#include <string.h>

/* ---- As a sentence ---- */

void ag_check_print_place(const ag_gradcheck_report *report, FILE *file)
{
    if (report->input < 0) {
        fprintf(file, "entries %lld to %lld together", (long long)report->from,
                (long long)report->to - 1);
        return;
    }
    fprintf(file, "input %d%s%s [", report->input, report->name[0] ? " " : "", report->name);
    for (int i = 0; i < report->rank; i++)
        fprintf(file, i ? ",%lld" : "%lld", (long long)report->index[i]);
    fputc(']', file);
}

/* "input 0 x [2,5] got .., want .. +- .., ratio .." */
static void print_worst(const ag_gradcheck_report *report, FILE *file)
{
    int digits = report->method == AG_GRADCHECK_COMPLEX ? 16 : 10;
    ag_check_print_place(report, file);
    fprintf(file, " got %.*g%s, want %.*g +- %.2g, ratio ", digits, report->analytic,
            report->recorded ? " (recorded)" : "", digits, report->numeric, report->bound);
    if (isfinite(report->ratio))
        fprintf(file, "%.*g", digits - 1, report->ratio);
    else
        fputc('-', file);
    if (report->method == AG_GRADCHECK_COMPLEX)
        fprintf(file, " by complex step");
    else if (!isnan(report->complex_step))
        fprintf(file, ", %.10g by complex step", report->complex_step);
}

static void print_suspect(const ag_gradcheck_report *report, FILE *file)
{
    if (report->suspect[0])
        fprintf(file, "; looks like: %s", report->suspect);
}

/* Where nothing moves, a gradient of zero is right, and the check says little. */
static void print_insensitive(const ag_gradcheck_report *report, FILE *file)
{
    long long entries = report->entries, insensitive = report->insensitive;
    if (insensitive > 0)
        fprintf(file, "; %lld of %lld %s move nothing", insensitive, entries,
                report->by_directions ? "directions" : "entries");
    if (insensitive == entries && !report->message[0])
        fputs(entries > 0 ? ", so only zeros were compared" : "; nothing was compared", file);
}

void ag_gradcheck_print(const ag_gradcheck_report *report, FILE *file)
{
    if (!report || !file)
        return;
    for (const char *c = ag_verdict_name(report->verdict); *c; c++)
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, file);
    fprintf(file, ": %lld %s", (long long)report->entries,
            report->by_directions ? "directions" : "entries");
    if (report->failures > 0)
        fprintf(file, ", %lld wrong", (long long)report->failures);
    if (report->inconclusive > 0)
        fprintf(file, ", %lld inconclusive", (long long)report->inconclusive);
    if (report->kinks > 0)
        fprintf(file, ", %lld at a kink", (long long)report->kinks);
    if (report->contradictions > 0)
        fprintf(file, ", %lld where complex steps contradict", (long long)report->contradictions);
    print_insensitive(report, file);
    if (report->message[0])
        fprintf(file, "; %s", report->message);
    if (report->entries > 0) {
        fprintf(file, "; worst: ");
        print_worst(report, file);
    }
    if (report->no_complex_form[0])
        fprintf(file, "; without complex steps: %s has no complex form", report->no_complex_form);
    print_suspect(report, file);
    if (report->op[0])
        fprintf(file, "; wrong by itself: node %lld %s", (long long)report->node, report->op);
    if (report->floor > 0.0)
        fprintf(file, "; sees relative errors of %.1e", report->floor);
    fputc('\n', file);
}

void ag_node_fault_print(const ag_node_fault *fault, FILE *file)
{
    if (!fault || !file)
        return;
    fprintf(file, "node %lld %s, ", (long long)fault->node, fault->op);
    print_worst(&fault->report, file);
    print_suspect(&fault->report, file);
    fputc('\n', file);
}

/* ---- As JSON ---- */

/* The bytes of the character in UTF-8 that begins there; 0 if there is none. */
static int character_at(const unsigned char *text)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    int n = *text < 0x80 ? 1 : *text < 0xC0 ? 0 : *text < 0xE0 ? 2 : *text < 0xF0 ? 3 : 4;
    uint32_t code = n == 1 ? *text : *text & (0x7Fu >> n);
    if (*text >= 0xF8)
        return 0;
    for (int i = 1; i < n; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3Fu);
    }
    return code >= smallest[n] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF) ? n : 0;
}

/* Names are the user's, and may have been cut short: what is no character becomes U+FFFD. */
static void print_text(const char *key, const char *text, FILE *file)
{
    fprintf(file, ",\"%s\":\"", key);
    for (const unsigned char *c = (const unsigned char *)text; *c;) {
        int n = character_at(c);
        if (n == 0)
            fputs("\\ufffd", file);
        else if (*c < 0x20)
            fprintf(file, "\\u%04x", (unsigned)*c);
        else
            fprintf(file, "%s%.*s", *c == '"' || *c == '\\' ? "\\" : "", n, (const char *)c);
        c += n > 0 ? n : 1;
    }
    fputc('"', file);
}

/* With a point, whatever the locale writes between 1 and 5 in 1.5. */
static void print_number(const char *key, double x, FILE *file)
{
    char text[64];
    if (!isfinite(x)) {
        fprintf(file, ",\"%s\":null", key);
        return;
    }
    snprintf(text, sizeof text, "%.17g", x);
    size_t whole = strspn(text, "-0123456789"), point = strcspn(text + whole, "e0123456789");
    fprintf(file, ",\"%s\":%.*s%s%s", key, (int)whole, text, point > 0 ? "." : "",
            text + whole + point);
}

static void print_count(const char *key, int64_t count, bool known, FILE *file)
{
    if (known)
        fprintf(file, ",\"%s\":%lld", key, (long long)count);
    else
        fprintf(file, ",\"%s\":null", key);
}

static void print_bool(const char *key, bool value, FILE *file)
{
    fprintf(file, ",\"%s\":%s", key, value ? "true" : "false");
}

static void print_index(const ag_gradcheck_report *report, FILE *file)
{
    fprintf(file, ",\"index\":[");
    for (int i = 0; i < report->rank; i++)
        fprintf(file, i ? ",%lld" : "%lld", (long long)report->index[i]);
    fputc(']', file);
}

/* Null for what was not found. */
static void print_json_worst(const ag_gradcheck_report *report, FILE *file)
{
    bool any = report->entries > 0;
    const char *methods[] = { "", "differences", "complex" };
    print_number("worst", any ? report->worst : NAN, file);
    print_count("input", report->input, any && report->input >= 0, file);
    print_text("name", report->name, file);
    print_index(report, file);
    print_count("from", report->from, any, file);
    print_count("to", report->to, any, file);
    print_number("got", any ? report->analytic : NAN, file);
    print_number("want", any ? report->numeric : NAN, file);
    print_number("bound", any ? report->bound : NAN, file);
    print_number("ratio", any ? report->ratio : NAN, file);
    print_text("method", methods[report->method], file);
    print_number("step", any ? report->step : NAN, file);
    print_number("complex_step", any ? report->complex_step : NAN, file);
    print_bool("recorded", report->recorded, file);
}

void ag_gradcheck_print_json(const ag_gradcheck_report *report, FILE *file)
{
    if (!report || !file)
        return;
    fprintf(file, "{\"verdict\":\"%s\"", ag_verdict_name(report->verdict));
    print_bool("passed", report->passed, file);
    print_bool("by_directions", report->by_directions, file);
    print_count("entries", report->entries, true, file);
    print_count("failures", report->failures, true, file);
    print_count("inconclusive", report->inconclusive, true, file);
    print_count("kinks", report->kinks, true, file);
    print_count("contradictions", report->contradictions, true, file);
    print_count("insensitive", report->insensitive, true, file);
    print_number("floor", report->floor, file);
    print_number("worst_floor", report->worst_floor, file);
    print_json_worst(report, file);
    print_count("node", report->node, report->op[0] != '\0', file);
    print_text("op", report->op, file);
    print_text("suspect", report->suspect, file);
    print_text("no_complex_form", report->no_complex_form, file);
    print_number("asymmetry", report->asymmetry, file);
    print_text("message", report->message, file);
    fprintf(file, ",\"seed\":%llu", (unsigned long long)report->seed);
    print_count("calls", report->calls, true, file);
    fprintf(file, "}\n");
}
