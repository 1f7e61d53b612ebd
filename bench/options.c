/* The command line. */
#include "bench.h"
#include "models.h"

#include <string.h>

static const struct {
    const char *name, *what;
    unsigned section;
} sections[] = {
    { "peak", "multiply-adds and copying: what the processor could do", BENCH_PEAK },
    { "matmul", "matrix products by size and shape, beside OpenBLAS", BENCH_MATMUL },
    { "models", "training steps of six transformers, beside PyTorch", BENCH_MODELS },
    { "overhead", "what one small operation costs", BENCH_OVERHEAD },
    { "threads", "training steps with more threads", BENCH_THREADS },
    { "growth", "attention by tokens, a block by its width", BENCH_GROWTH },
    { "checks", "gradient checks of transformers", BENCH_CHECKS },
};
enum { SECTIONS = sizeof sections / sizeof sections[0] };

void bench_print_usage(FILE *file)
{
    fprintf(file, "usage: bench [--quick] [--json] [--only SECTION,..] [--model NAME] [--help]\n\n"
                  "  --quick   under a minute: fewer sizes and samples, no compiled peer\n"
                  "  --json    one JSON object on stdout instead of tables\n"
                  "  --only    some of the sections:\n");
    for (int i = 0; i < SECTIONS; i++)
        fprintf(file, "              %-9s %s\n", sections[i].name, sections[i].what);
    fprintf(file, "  --model   trains one of the models alone:");
    for (int i = 0; i < BENCH_MODEL_COUNT; i++)
        fprintf(file, "%s %s", i ? "," : "", bench_models[i].name);
    fprintf(file, "\n\nAG_BENCH_PYTHON names the Python that has torch (default python3).\n"
                  "AG_ISA names the instruction set: generic, avx2, avx512, neon.\n");
}

static bool refuse(const char *what, const char *word)
{
    fprintf(stderr, "attograd bench: %s '%s'\n", what, word);
    bench_print_usage(stderr);
    return false;
}

/* "peak,models": the bits of these. */
static bool read_sections(const char *list, unsigned *bits)
{
    const char *word = list;
    *bits = 0;
    for (;;) {
        size_t length = strcspn(word, ",");
        unsigned found = 0;
        for (int i = 0; i < SECTIONS; i++)
            if (strlen(sections[i].name) == length && !strncmp(sections[i].name, word, length))
                found = sections[i].section;
        if (!found)
            return refuse("--only: no such section in", list);
        *bits |= found;
        if (!word[length])
            return true;
        word += length + 1;
    }
}

static bool read_model(const char *name, bench_settings *s)
{
    for (int i = 0; i < BENCH_MODEL_COUNT; i++)
        if (!strcmp(bench_models[i].name, name)) {
            s->model = name;
            return true;
        }
    return refuse("--model: there is no model", name);
}

bool bench_wants_model(const bench_settings *settings, const char *name)
{
    return !settings->model || !strcmp(settings->model, name);
}

bool bench_settings_read(int argc, char **argv, bench_settings *s)
{
    *s = (bench_settings){ .sections = BENCH_ALL };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            s->help = true;
        else if (!strcmp(argv[i], "--json"))
            s->json = true;
        else if (!strcmp(argv[i], "--quick"))
            s->quick = true;
        else if (!strncmp(argv[i], "--only=", 7)) {
            if (!read_sections(argv[i] + 7, &s->sections))
                return false;
        } else if (!strcmp(argv[i], "--only")) {
            if (i + 1 == argc)
                return refuse("a list of sections is missing after", argv[i]);
            if (!read_sections(argv[++i], &s->sections))
                return false;
        } else if (!strcmp(argv[i], "--model")) {
            if (i + 1 == argc)
                return refuse("a model's name is missing after", argv[i]);
            if (!read_model(argv[++i], s))
                return false;
        } else
            return refuse("unknown option", argv[i]);
    }
    return true;
}
