/* bench: how fast attograd is on this machine, beside what the processor could
 * do and beside others. */
#include "bench.h"

#include <attograd.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Per cents refer to the peak of the instruction set that the library uses. */
static bool begin(bench_run *run)
{
    ag_context *context = ag_context_new(NULL);
    bool good = context && ag_status(context) == AG_OK;
    if (good)
        run->isa = ag_context_isa(context);
    else
        fprintf(stderr, "attograd bench: %s\n", context ? ag_error_message(context) : "no memory");
    ag_context_free(context);
    if (!good)
        return false;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    run->cores = cores < 1 ? 1 : cores > 256 ? 256 : (int)cores;
    run->peak = bench_peak_measure(run->isa, &(bench_plan){ 25, 0.02, 5 });
    return true;
}

/* "model name : .." of Linux on x86; "" elsewhere. */
static void processor_name(char *text, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    text[0] = '\0';
    while (file && fgets(line, sizeof line, file)) {
        const char *name = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !name)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(text, size, "%.*s", (int)(size - 1), name + 2);
        break;
    }
    if (file)
        fclose(file);
}

static void put_machine(bench_run *run)
{
    static const bench_column columns[] = {
        { "attograd", "attograd", 8, true },
        { "kernels", "isa", 8, true },
        { "cores", "cores", 5, false },
        { "processor", "processor", 0, true },
    };
    char name[128];
    processor_name(name, sizeof name);
    bench_table_begin(&run->out, "machine", "where this was measured", columns, 4);
    bench_put_text(&run->out, ag_version());
    bench_put_text(&run->out, run->isa);
    bench_put_integer(&run->out, run->cores);
    bench_put_text(&run->out, name);
    bench_table_end(&run->out);
}

static bool measure(bench_run *run)
{
    static const struct {
        unsigned section;
        bool (*measure)(bench_run *run);
    } sections[] = {
        { BENCH_PEAK, bench_section_peak },       { BENCH_MATMUL, bench_section_matmul },
        { BENCH_MODELS, bench_section_models },   { BENCH_OVERHEAD, bench_section_overhead },
        { BENCH_THREADS, bench_section_threads }, { BENCH_GROWTH, bench_section_growth },
        { BENCH_CHECKS, bench_section_checks },
    };
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (run->settings->sections & sections[i].section && !sections[i].measure(run))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    bench_settings settings;
    if (!bench_settings_read(argc, argv, &settings))
        return 2;
    if (settings.help) {
        bench_print_usage(stdout);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that ends is an error of writing to it */
    bench_run run = { .settings = &settings, .out = { .file = stdout, .json = settings.json } };
    if (!begin(&run))
        return 1;
    bench_output_begin(&run.out);
    put_machine(&run);
    bool good = measure(&run);
    bench_output_end(&run.out);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "attograd bench: cannot write to standard output\n");
        return 1;
    }
    return good ? 0 : 1;
}
