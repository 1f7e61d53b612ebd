/* attograd check: the gradient check of every operation and every layer. */
#include "check.h"
#include "case_names.h"
#include "commands.h"
#include "mutants.h"
#include "options.h"
#include "report.h"

static int unknown_case(const char *asked)
{
    char names[256];
    fprintf(stderr,
            "attograd check: unknown case '%s'; did you mean %s? check --list names all cases\n",
            asked, ag_case_suggest(asked, false, names, sizeof names));
    return 2;
}

static int list_cases(const char *asked, bool json)
{
    return ag_case_print_list(asked, json, stdout) > 0 ? 0 : unknown_case(asked);
}

static int check_cases(const char *asked, uint64_t seed, bool json)
{
    static ag_case_total total;
    double start = ag_report_now();
    total.seed = seed;
    if (ag_case_first_without()) {
        fprintf(stderr, "attograd check: the operation %s has no case\n", ag_case_first_without());
        return 1;
    }
    for (int i = 0; i < ag_case_count(); i++) {
        char name[AG_CASE_NAME_SIZE];
        ag_case_result result;
        if (asked && !ag_case_asked_for(i, asked))
            continue;
        if (total.cases == 0 && !json)
            ag_case_print_head(stdout);
        ag_case_run(i, seed, &result);
        (json ? ag_case_print_json : ag_case_print_text)(&result, ag_case_full_name(i, name), seed,
                                                         stdout);
        fflush(stdout);
        ag_case_total_add(&total, &result);
    }
    if (total.cases == 0)
        return unknown_case(asked);
    ag_case_total_print(&total, ag_report_now() - start, json, stdout);
    int failed = total.failed;
    ag_case_total_free(&total);
    return failed > 0;
}

int ag_cmd_check(int argc, char **argv)
{
    bool json = false, mutants = false, list = false;
    const char *asked = NULL;
    ag_seed seed = { 1, false };
    const ag_option options[] = {
        { "--seed", AG_OPTION_SEED, &seed, 0, 0, NULL },
        { "--json", AG_OPTION_FLAG, &json, 0, 0, NULL },
        { "--list", AG_OPTION_FLAG, &list, 0, 0, NULL },
        { "--mutants", AG_OPTION_FLAG, &mutants, 0, 0, NULL },
    };
    int words = ag_options_read(argc, argv, options, 4, &asked, 1,
                                "attograd check [CASE] [--seed S] [--json] [--list], or "
                                "check --mutants [OP] [--seed S] [--json]");
    if (words < 0)
        return 2;
    if (mutants && list) {
        fprintf(stderr, "attograd check: --list is of cases; --mutants lists what it spoils\n");
        return 2;
    }
    return mutants ? ag_mutants_check(asked, seed.value, json)
           : list  ? list_cases(asked, json)
                   : check_cases(asked, seed.value, json);
}
