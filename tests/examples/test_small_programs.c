/* The small programs of examples/: each ends well and says what it should. */
#include "program.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs it: nothing on stderr, exit status 0. */
static ag_test_run run_program(const char *name)
{
    char command[1024];
    snprintf(command, sizeof command, AG_TEST_BUILD "/examples/%s", name);
    ag_test_run run = ag_test_shell(command);
    cr_assert(run.status == 0, "%s ended with %d: %s", name, run.status, run.errors);
    cr_expect(!*run.errors, "%s said: %s", name, run.errors);
    cr_expect(!strstr(run.output, "nan"), "%s printed: %s", name, run.output);
    return run;
}

/* The number after the last occurrence of text. */
static double number_after(const char *output, const char *text)
{
    const char *last = NULL;
    for (const char *at = strstr(output, text); at; at = strstr(at + 1, text))
        last = at;
    cr_assert(last != NULL, "no '%s' in: %s", text, output);
    return strtod(last + strlen(text), NULL);
}

Test(small_programs, first_attention_learns_to_look_at_the_mirror_image)
{
    ag_test_run run = run_program("first_attention");
    cr_expect(number_after(run.output, "accuracy") >= 0.99, "%s", run.output);
    cr_expect(number_after(run.output, "step ") == 100, "%s", run.output);
    const char *at = strstr(run.output, "mirror image.\n");
    cr_assert(at != NULL, "%s", run.output);
    char *next = (char *)strchr(at, '\n');
    for (int row = 0; row < 6; row++)
        for (int column = 0; column < 6; column++) {
            double weight = strtod(next, &next);
            cr_expect(column == 5 - row ? weight > 0.9 : weight < 0.1, "[%d,%d] is %g", row, column,
                      weight);
        }
    ag_test_run_free(&run);
}

Test(small_programs, own_operation_tells_the_right_rule_from_the_wrong_one)
{
    ag_test_run run = run_program("own_operation");
    cr_expect(strstr(run.output, "[[12.0000  3.0000  0.7500]\n [ 0.7500  3.0000 12.0000]]"), "%s",
              run.output);
    cr_expect(strstr(run.output, "\n3 x^2 dy:\nPASS: 6 entries;"), "%s", run.output);
    cr_expect(strstr(run.output, "\n2 x^2 dy:\nFAIL: 6 entries, 6 wrong;"), "%s", run.output);
    cr_expect(strstr(run.output, "ratio 0.666666"), "%s", run.output);
    cr_expect(strstr(run.output, "\nthe gradient of 3 x^2 dy:\nPASS: 6 entries;"), "%s",
              run.output);
    ag_test_run_free(&run);
}

Test(small_programs, second_order_agrees_with_differences)
{
    ag_test_run run = run_program("second_order");
    cr_expect(strstr(run.output, "They agree"), "%s", run.output);
    cr_expect(number_after(run.output, "the largest difference is ") < 1e-8, "%s", run.output);
    char *next = strstr(run.output, "differences of gradients\n");
    cr_assert(next != NULL, "%s", run.output);
    next = strchr(next, '\n');
    for (int i = 0; i < 4; i++) {
        double gradient = strtod(next, &next);
        double exact = strtod(next, &next), numeric = strtod(next, &next);
        cr_expect(gradient != 0 && exact != 0 && exact - numeric < 1e-7 && numeric - exact < 1e-7,
                  "row %d: %g %g %g", i, gradient, exact, numeric);
    }
    ag_test_run_free(&run);
}

/* What a reader can take in at one sitting. */
Test(small_programs, none_is_longer_than_80_lines)
{
    static const char *const names[] = { "first_attention", "own_operation", "second_order" };
    for (int i = 0; i < 3; i++) {
        char path[1024];
        int lines = 0;
        snprintf(path, sizeof path, AG_TEST_SOURCE "/examples/%s.c", names[i]);
        char *text = ag_test_read(path, NULL);
        cr_assert(text != NULL, "cannot read %s", path);
        for (const char *c = text; *c; c++)
            lines += *c == '\n';
        cr_expect(lines <= 80, "%s.c has %d lines", names[i], lines);
        free(text);
    }
}
