/* What a training says while it runs and at its end: a line on a terminal
 * that is written over, plain lines elsewhere, or JSON; and the files of --out. */
#ifndef AG_EXAMPLES_REPORT_H
#define AG_EXAMPLES_REPORT_H

#include "settings.h"
#include "svg.h"

typedef struct ag_evaluation {
    int64_t step;
    double loss, value;
    int64_t different; /* inputs among those evaluated, where the task numbers them */
} ag_evaluation;

typedef struct ag_report {
    const ag_settings *settings;
    FILE *log; /* train.jsonl, or NULL */
    bool live; /* lines are written over */
    int64_t params;
    double started, shown, seconds;
    ag_evaluation last;
    int64_t steps_to_target;
    int failed_stdout, failed_log; /* errno of the first line that could not be written */
    ag_curve training, fresh;
} ag_report;

/* Makes the folder of --out and its train.jsonl. False if that cannot be,
 * which was said on stderr. */
bool ag_report_open(ag_report *report, const ag_settings *settings);

void ag_report_start(ag_report *report, int64_t params);
void ag_report_step(ag_report *report, int64_t step, double loss);
void ag_report_evaluation(ag_report *report, const ag_evaluation *evaluation);

/* The result, the picture in the terminal, and for a task that cannot be done, why. */
void ag_report_result(ag_report *report, const ag_heatmap *map);

/* loss.svg and attention.svg, if there is --out. False if they cannot be written. */
bool ag_report_pictures(const ag_report *report, const ag_heatmap *map);

/* Whether the result is what the task promises; if not, says so on stderr. */
bool ag_report_promise_kept(const ag_report *report);

/* False if a line to stdout or to the log could not be written, which is said
 * on stderr. */
bool ag_report_written(ag_report *report);
void ag_report_close(ag_report *report);

/* Ends a live line, so that a message can follow. */
void ag_report_interrupt(const ag_report *report);

/* The path of a file in the folder of --out; false if it would be too long. */
bool ag_report_path(const ag_report *report, const char *name, char *path, size_t size);

/* Seconds of a clock that only runs forwards. */
double ag_report_now(void);

/* "1,024" into text, which is returned. */
char *ag_report_count(int64_t n, char *text, size_t size);

#endif
