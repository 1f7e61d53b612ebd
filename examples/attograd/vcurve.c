/* attograd vcurve: what a numeric derivative is worth at each step. */
#include "vcurve.h"
#include "case_names.h"
#include "commands.h"
#include "files.h"
#include "options.h"

#include <inttypes.h>
#include <string.h>

#define USAGE "attograd vcurve [CASE] [--out FILE.svg] [--csv FILE.csv] [--entry K]"

typedef struct settings {
    int place; /* of the case */
    int64_t entry;
    const char *out, *csv;
} settings;

/* The place of the case in *place; false after a mistake, which was reported. */
static bool find_case(const char *name, int *place)
{
    *place = ag_case_find(name);
    if (*place < 0) {
        char names[256];
        fprintf(stderr,
                "attograd vcurve: unknown case '%s'; did you mean %s? check --list names all "
                "cases: those without suffix\n",
                name, ag_case_suggest(name, true, names, sizeof names));
        return false;
    }
    if (ag_case_has_gradient(*place))
        return true;
    fprintf(stderr, "attograd vcurve: %s has no gradient, so there is no error to show\n", name);
    return false;
}

static bool read_settings(int argc, char **argv, settings *s)
{
    const char *name = "attention";
    *s = (settings){ .entry = AG_V_MOST_BENT };
    const ag_option options[] = {
        { "--out", AG_OPTION_TEXT, &s->out, 0, 0, NULL },
        { "--csv", AG_OPTION_TEXT, &s->csv, 0, 0, NULL },
        { "--entry", AG_OPTION_INTEGER, &s->entry, INT64_MIN + 1, INT64_MAX, NULL },
    };
    return ag_options_read(argc, argv, options, 3, &name, 1, USAGE) >= 0 &&
           find_case(name, &s->place);
}

#define OUT "attograd vcurve: --out"
#define CSV "attograd vcurve: --csv"

/* Before anything is computed. */
static bool can_write(const settings *s)
{
    return (!s->out || ag_file_can_be_written(OUT, s->out)) &&
           (!s->csv || ag_file_can_be_written(CSV, s->csv));
}

int ag_cmd_vcurve(int argc, char **argv)
{
    static ag_vcurve curve;
    settings s;
    int status;
    if (!read_settings(argc, argv, &s))
        return 2;
    if (!can_write(&s))
        return 1;
    if (!ag_vcurve_measure(&curve, s.place, s.entry, &status))
        return status;
    if (s.out && !ag_file_write(OUT, s.out, ag_svg_vcurve, &curve))
        return 1;
    if (s.csv && !ag_file_write(CSV, s.csv, ag_vcurve_write_csv, &curve))
        return 1;
    ag_vcurve_print_summary(&curve);
    if (!s.out)
        ag_vcurve_print(&curve);
    return 0;
}
