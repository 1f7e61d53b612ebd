/* attograd vcurve: the curves are what theory says, and the text, the picture and the numbers
 * can be read. */
#include "program.h"
#include "../../examples/attograd/cases.h"
#include "../../examples/attograd/vcurve.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ag_vcurve *measured(const char *name, int64_t entry)
{
    static ag_vcurve curve;
    int status;
    cr_assert(ag_vcurve_measure(&curve, ag_case_find(name), entry, &status), "%s", name);
    return &curve;
}

static double error_at(const ag_vcurve *c, int dtype, int order, int step)
{
    return ag_vcurve_error(c, c->quotients[dtype][order / 2 - 1][step]);
}

/* Half the step: an error of order p is 2^p times smaller. Steps are halved every two places. */
Test(vcurve, truncation_falls_as_the_order_says)
{
    ag_vcurve *c = measured("attention", AG_V_MOST_BENT);
    for (int order = 2; order <= 8; order += 2) {
        int place = order == 8 ? 8 : 10;
        double gain = log2(error_at(c, 1, order, place) / error_at(c, 1, order, place + 2));
        cr_expect(fabs(gain - order) < 0.7, "order %d: 2^%g", order, gain);
    }
}

/* A thousandth of the step: a thousand times the rounding error, give or take chance. */
Test(vcurve, rounding_grows_as_the_step_shrinks)
{
    ag_vcurve *c = measured("attention", AG_V_MOST_BENT);
    for (int dtype = 0; dtype < 2; dtype++) {
        double sums[2] = { 0 };
        int place = dtype ? 40 : 16;
        for (int i = 0; i < 8; i++) {
            sums[0] += log2(error_at(c, dtype, 8, place + i));
            sums[1] += log2(error_at(c, dtype, 8, place + i + 20));
        }
        double growth = (sums[1] - sums[0]) / 8.0;
        cr_expect(growth > 7.0 && growth < 13.0, "%s: 2^%g", ag_v_dtypes[dtype], growth);
    }
    cr_expect(error_at(c, 0, 8, 30) > 1e6 * error_at(c, 1, 8, 30), "f32 is far worse than f64");
}

Test(vcurve, the_checker_chose_well)
{
    static const char *const names[] = { "attention", "tanh", "layer_norm", "transformer" };
    for (int i = 0; i < 4; i++) {
        ag_vcurve *c = measured(names[i], AG_V_MOST_BENT);
        double best = INFINITY, error = ag_vcurve_error(c, c->numeric);
        double bound = c->bound / fabs(c->gradient);
        for (int k = 0; k < AG_V_STEPS; k++)
            best = fmin(best, error_at(c, 1, 2, k));
        cr_expect_eq(c->verdict, AG_VERDICT_PASS);
        cr_expect(error <= bound && bound < 1e-10, "%s: %g, bound %g", names[i], error, bound);
        cr_expect(error < best, "%s: order 2 is never as good", names[i]);
        cr_expect(c->step < c->border && c->step > 1e-3 * c->border, "%s: %g, border %g", names[i],
                  c->step, c->border);
    }
}

/* Linear: there is no truncation, and no border to draw. */
Test(vcurve, without_a_bend)
{
    ag_vcurve *c = measured("matmul", 0);
    cr_expect(c->border == 0.0 && c->entry == 0, "border %g", c->border);
    cr_expect_str_eq(c->place, "input 0 [0,0]");
}

/* ---- Kinks ---- */

/* Where steps reach across a kink no order is of use, and below that all are exact. */
Test(vcurve, across_a_kink_is_no_truncation)
{
    static const char *const names[] = { "relu", "abs", "max", "maximum", "minimum" };
    for (int i = 0; i < 5; i++) {
        ag_vcurve *c = measured(names[i], AG_V_MOST_BENT);
        ag_v_band bands[3];
        cr_assert(c->kink > 0.0 && c->kink < 1.0, "%s: %g", names[i], c->kink);
        cr_expect_eq(c->border, 0.0, "%s: no truncation, but above %g", names[i], c->border);
        cr_assert_eq(ag_vcurve_bands(c, bands), 2);
        cr_expect(bands[1].cause == AG_V_KINK && bands[1].from == bands[0].to);
        for (int k = 0; k < AG_V_STEPS; k++) {
            double error = error_at(c, 1, 8, k);
            if (c->steps[k] > 1e-6)
                cr_expect(c->steps[k] < c->kink ? error < 1e-9 : error > 1e-6,
                          "%s: error %g at %g, kink from %g on", names[i], error, c->steps[k],
                          c->kink);
        }
    }
}

Test(vcurve, what_is_smooth_has_no_kink)
{
    static const char *const names[] = { "tanh", "matmul",    "reciprocal",  "log",
                                         "pow",  "attention", "transformer", "layer_norm" };
    for (int i = 0; i < 8; i++) {
        ag_vcurve *c = measured(names[i], AG_V_MOST_BENT);
        cr_expect_eq(c->kink, 0.0, "%s: %g", names[i], c->kink);
    }
}

/* Both: it bends, and further away there is a kink. */
Test(vcurve, a_bend_and_a_kink)
{
    ag_vcurve *c = measured("feed_forward/relu", AG_V_MOST_BENT);
    cr_expect(c->kink > 0.0 && c->border == 0.0);
    ag_vcurve both = { .border = 0.01, .kink = 0.1 };
    ag_v_band bands[3];
    cr_assert_eq(ag_vcurve_bands(&both, bands), 3);
    cr_expect(bands[1].cause == AG_V_TRUNCATION && bands[1].from == 0.01 && bands[1].to == 0.1);
}

/* One in four of the cases that have a gradient: neighbours are alike. */
Test(vcurve, a_sample_of_all_cases)
{
    for (int i = 0; i < ag_case_first_count(); i += 4) {
        if (!ag_case_has_gradient(i))
            continue;
        ag_vcurve *c = measured(ag_case_name(i), AG_V_MOST_BENT);
        cr_expect(c->step > 0.0 && isfinite(c->gradient), "%s", ag_case_name(i));
        cr_expect(!c->has_complex || isfinite(ag_vcurve_error(c, c->complex_quotients[50])));
    }
}

static void expect_narrow(const char *text)
{
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        cr_expect(length <= 80, "%zu columns: %.*s", length, (int)length, line);
        line += length + (line[length] == '\n');
    }
}

Test(vcurve, text)
{
    ag_test_run run = ag_test_program("vcurve", NULL);
    cr_expect_eq(run.status, 0);
    expect_narrow(run.output);
    cr_expect(strstr(run.output, "attention: dL / d attn.w_q [") == run.output, "%s", run.output);
    cr_expect(strstr(run.output, "- rounding -") && strstr(run.output, "the same in f32"));
    cr_expect(strstr(run.output, " order 2       4       6       8 order 2 "), "%s", run.output);
    ag_test_run_free(&run);
    run = ag_test_program("vcurve attention/full --entry 3", NULL);
    expect_narrow(run.output);
    ag_test_run_free(&run);
    run = ag_test_program("vcurve minimum", NULL);
    expect_narrow(run.output);
    cr_expect(strstr(run.output, "that is across a kink\n") && strstr(run.output, " rounding -") &&
                  strstr(run.output, "|- kink ->\n") && !strstr(run.output, "truncation dom"),
              "%s", run.output);
    ag_test_run_free(&run);
}

Test(vcurve, picture_and_numbers)
{
    char folder[64], words[256], path[128];
    ag_test_folder(folder, sizeof folder);
    snprintf(words, sizeof words, "vcurve tanh --out %s/v.svg --csv %s/v.csv", folder, folder);
    ag_test_run run = ag_test_program(words, NULL);
    cr_expect_eq(run.status, 0);
    ag_test_run_free(&run);
    snprintf(path, sizeof path, "%s/v.svg", folder);
    char *svg = ag_test_read(path, NULL);
    cr_assert(svg != NULL);
    cr_expect(!strncmp(svg, "<svg ", 5) && !strcmp(svg + strlen(svg) - 7, "</svg>\n"));
    cr_expect(!strstr(svg, "nan") && !strstr(svg, "inf"));
    cr_expect(strstr(svg, "step h") && strstr(svg, "relative error") && strstr(svg, "order 8"));
    free(svg);
    snprintf(path, sizeof path, "%s/v.csv", folder);
    char *csv = ag_test_read(path, NULL);
    cr_assert(csv != NULL);
    int lines = 0, numbers = 0, complex_steps = 0;
    double step, derivative, error;
    for (char *line = strtok(csv, "\n"); line; line = strtok(NULL, "\n")) {
        lines++;
        complex_steps += !strncmp(line, "c128,complex step,", 18);
        numbers += sscanf(line, "%*[^,],order %*d,%lf,%lf,%lf", &step, &derivative, &error) == 3;
    }
    cr_expect_eq(numbers, 2 * 4 * AG_V_STEPS);
    cr_expect(complex_steps > AG_V_STEPS / 2, "%d", complex_steps);
    cr_expect(lines == numbers + complex_steps + 3,
              "and the head, the checker's and backward's: %d", lines);
    free(csv);
    ag_test_folder_remove(folder);
}

static char *picture_of(const char *name)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    cr_assert(file && ag_svg_vcurve(file, measured(name, AG_V_MOST_BENT)));
    fclose(file);
    return text;
}

static int times(const char *text, const char *what)
{
    int count = 0;
    while ((text = strstr(text, what))) {
        count++;
        text++;
    }
    return count;
}

/* What lies on top of curves is drawn twice, a white edge first: not all programs know
 * paint-order. */
Test(vcurve, labels_have_an_edge_everywhere)
{
    char *svg = picture_of("attention");
    cr_expect(!strstr(svg, "paint-order"));
    cr_expect_eq(times(svg, ">bound "), 2);
    cr_expect(strstr(svg, "stroke=\"#ffffff\"") < strstr(svg, ">bound "));
    cr_expect(strstr(svg, "step h (x moves by ± h, ± 2h, ..)") && !strstr(svg, "in units of"));
    cr_expect(strstr(svg, ">truncation</text>") && strstr(svg, ">dominates</text>"));
    free(svg);
}

/* A band without room for its name has it upwards. */
Test(vcurve, names_of_bands_stay_within_them)
{
    char *svg = picture_of("minimum");
    cr_expect(strstr(svg, ">across</text>") && !strstr(svg, ">truncation</text>"));
    free(svg);
    svg = picture_of("abs");
    cr_expect(!strstr(svg, ">across</text>"));
    const char *name = strstr(svg, ">across a kink</text>");
    cr_expect(name != NULL && strstr(svg, "rotate(-90)\" text-anchor=\"start\"") < name);
    free(svg);
}

/* Before anything is computed it is known whether all can be written, and nothing is left behind.
 */
Test(vcurve, files_that_cannot_be_written)
{
    char folder[64], words[256], path[128];
    ag_test_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/v.svg", folder);
    snprintf(words, sizeof words, "vcurve tanh --out %s --csv %s/no/v.csv", path, folder);
    ag_test_run run = ag_test_program(words, NULL);
    cr_expect_eq(run.status, 1);
    cr_expect(strstr(run.errors, "attograd vcurve: --csv: cannot write ") == run.errors, "%s",
              run.errors);
    cr_expect_str_empty(run.output);
    cr_expect_null(ag_test_read(path, NULL), "no picture either");
    ag_test_run_free(&run);
    snprintf(words, sizeof words, "vcurve tanh --out %s --csv /dev/full", path);
    run = ag_test_program(words, NULL);
    cr_expect_eq(run.status, 1);
    cr_expect(strstr(run.errors, "--csv: cannot write /dev/full: No space left") != NULL, "%s",
              run.errors);
    cr_expect_str_empty(run.output);
    ag_test_run_free(&run);
    ag_test_folder_remove(folder);
}

Test(vcurve, unknown_case)
{
    ag_test_run run = ag_test_program("vcurve atention", NULL);
    cr_expect_eq(run.status, 2);
    cr_expect(strstr(run.errors, "unknown case 'atention'; did you mean attention, "), "%s",
              run.errors);
    cr_expect(times(run.errors, "\n") == 1 && !strstr(run.errors, "/second"));
    ag_test_run_free(&run);
}
