/* What the files of the gradient checker share. */
#ifndef AG_AUTOGRAD_GRADCHECK_H
#define AG_AUTOGRAD_GRADCHECK_H

#include "difference.h"
#include "internal.h"

/* A function under check, L = sum_i c_i y_i of its result y. The entries of all inputs
 * are counted through: those of input i from first[i] on. */
typedef struct ag_check {
    ag_context *context;
    ag_function f;
    void *user;
    const ag_var *inputs;
    int n;
    const int64_t *only; /* the entry that is checked alone; NULL: all of them */
    bool follow;         /* a failure is followed to the operation that is to blame */
    ag_gradcheck_options options;
    ag_gradcheck_report *report;

    int64_t entries;
    const int64_t *first; /* n + 1 of them */
    uint32_t *versions;   /* of the n inputs */
    double *before;       /* the entries as they were given */
    double *signs;        /* of the entries in the direction that was drawn last */

    int64_t results;   /* entries of y */
    double *cotangent; /* c */
    double *y;         /* where the inputs were given */
    uint64_t branches; /* there */
    bool single;       /* some of it is f32, and so is the gradient .. */
    bool in_f32;       /* .. and is computed with in f32 */
    double noise;      /* the rounding error of y, as a part of its size */
    double *floors;    /* bound / |derivative| of the entries so far */
    int64_t n_floors;
    const double *usual, *recorded; /* dL by every entry, by fused rules and recorded ones */
    double *rounding;               /* of these: their spread where last bits differ .. */
    bool rounding_is_sure;          /* .. in more than a few places */
    double *numeric, *bounds;       /* the derivatives found, and how far off they may be */
    ag_tensor *twins;               /* the inputs as c128 */
    bool has_complex_form;          /* and f takes them */
} ag_check;

/* The entries from .. to - 1 move together, each by +-t; a single one by t. */
typedef struct ag_direction {
    int64_t from, to;
} ag_direction;

/* Ends the check with a verdict that is about the function as a whole. The first one stays.
 * Returns false. */
bool ag_check_stop(ag_check *check, ag_verdict verdict, const char *format, ...) AG_PRINTF(3, 4);

/* count numbers that live as long as the check; NULL with the error recorded. */
double *ag_check_numbers(ag_check *check, int64_t count);

/* ---- The function (gradcheck_function.c) -------------------------------- */

/* Calls f where the inputs are now. False if there is no f64 result: the check has stopped. */
bool ag_check_call(ag_check *check, ag_var *y);

/* Keeps inputs, result, cotangent and branches as they are now; tells whether f gives the
 * same bits twice and leaves its inputs alone. */
bool ag_check_settle(ag_check *check);

/* Whether it still gives the same bits where the inputs were given, after so many calls. */
bool ag_check_is_repeatable(ag_check *check);

/* Calls f where it may fail, such as where a logarithm with a check of its own finds a number below
 * 0, or with complex inputs: then there is no result, and no callback hears of it. False if the
 * check has stopped, because memory ran out. */
bool ag_check_try(ag_check *check, ag_var *y);

/* Whether the inputs are, bit for bit, where they were given, or moved by t along a direction; if
 * not, the check has stopped, and who changes them is told: "the function". */
bool ag_check_inputs_are_kept(ag_check *check, const ag_direction *direction, double t,
                              const char *who);

/* The entries of a direction by +-t from where they were given. */
void ag_check_move(ag_check *check, const ag_direction *direction, double t);

/* Every entry to one of its neighbours, relatively 2 DBL_EPSILON away; and all of them back. */
void ag_check_jiggle(ag_check *check, uint64_t number);
void ag_check_put_back(ag_check *check);

void ag_check_draw_signs(ag_check *check, uint64_t number);
double ag_direction_sign(const ag_check *check, const ag_direction *direction, int64_t entry);

/* ---- Lines through the inputs (gradcheck_lines.c) ----------------------- */

/* The derivative of L along a direction. Again: with other steps, and more of them. */
typedef struct ag_measurement {
    bool found, kink;
    bool at_kink;              /* or at a jump, where there is nothing to be found */
    ag_derivative at;          /* without a kink */
    ag_derivative left, right; /* with one */
    double bend; /* and how far the derivatives by each entry of y differ: sum |c_i (r_i - l_i)| */
} ag_measurement;

/* False if the check has stopped. The inputs are put back. */
bool ag_check_measure(ag_check *check, const ag_direction *direction, bool again,
                      ag_measurement *measurement);

/* Whether f takes other branches as close to the inputs as can be: there is a kink, of whose two
 * derivatives a complex step finds neither, but what the operations' conventions make of it; or a
 * jump. False if the check has stopped. */
bool ag_check_at_kink(ag_check *check, const ag_direction *direction, bool *kink);

/* Sets check->noise; it is infinite if it cannot be told. */
bool ag_check_measure_noise(ag_check *check);

/* How far L moves when all inputs move by +-t: evidence about a result without a gradient. */
double ag_check_movement(ag_check *check, double t);

/* ---- The complex step (gradcheck_complex.c) ----------------------------- */

typedef struct ag_complex_step {
    bool found;          /* f has a complex form here */
    double value, scale; /* sum_i c_i Im(y_i) / h and sum_i |c_i Im(y_i) / h| */
    double error;        /* what underflows, and how far another h leads, if it was asked for */
} ag_complex_step;

/* Finds out whether f has a complex form. False if the check has stopped. */
bool ag_check_settle_complex(ag_check *check);

/* The derivative of L along a direction, and how far it is from that with another h. False if the
 * check has stopped. */
bool ag_check_step(ag_check *check, const ag_direction *direction, ag_complex_step *step);
bool ag_check_step_again(ag_check *check, const ag_direction *direction, ag_complex_step *step);

/* ---- The gradients (gradcheck_gradients.c) ------------------------------ */

/* dL by every entry, by the engine: by fused rules, or with AG_CREATE_GRAPH by recorded ones. NULL
 * if the check has stopped. */
double *ag_check_gradients(ag_check *check, unsigned flags);

/* Sets check->usual and check->recorded, if backward gives the same bits twice and leaves the
 * inputs alone. */
bool ag_check_find_gradients(ag_check *check);

/* Sets check->rounding; a second call looks at more places. */
bool ag_check_measure_rounding(ag_check *check);

/* ---- Judging (gradcheck_judge.c) ---------------------------------------- */

/* An entry or a direction, judged. */
typedef struct ag_judgement {
    ag_verdict verdict;
    double analytic, numeric, bound;
    double h;                   /* of the differences; 0 if numeric does not come from them */
    ag_gradcheck_method method; /* that numeric comes from */
    double complex_step;        /* what the complex step says, NaN if it was not taken */
    bool narrow;                /* bound is small against what numeric is a sum of */
    bool contradiction;         /* differences and the complex step are narrow, and apart */
    bool recorded;
    bool still; /* not a bit of the result moves along it, so numeric is 0 */
} ag_judgement;

/* Both ways to the gradient along a direction. False if the check has stopped. */
bool ag_check_direction(ag_check *check, const ag_direction *direction, ag_judgement *judgement);

/* ---- All of them (gradcheck_entries.c) ---------------------------------- */

void ag_check_entries(ag_check *check);
void ag_check_directions(ag_check *check);

/* ---- The check (gradcheck.c) -------------------------------------------- */

/* Counts the entries, and settles. */
bool ag_check_begin(ag_check *check);

/* ag_gradcheck; if follow is set, a failure is followed to the node whose rule is wrong. */
bool ag_check_function(ag_context *context, ag_function f, void *user, const ag_var *inputs, int n,
                       const ag_gradcheck_options *options, ag_gradcheck_report *report,
                       bool follow);

/* ---- Nodes by themselves (gradcheck_nodes.c) ----------------------------- */

/* Checks the nodes of the tape from the given one on, as ag_gradcheck_nodes does. */
int ag_check_nodes_from(ag_context *context, uint32_t from, const ag_gradcheck_options *options,
                        ag_node_fault *faults, int room);

/* ---- The report (gradcheck_report.c, gradcheck_suspect.c, gradcheck_print.c) -------- */

/* Counts it, and logs it if it fails. */
void ag_check_note(ag_check *check, const ag_direction *direction, const ag_judgement *judgement);

/* Failures are worse than all else, otherwise the larger disagreement in units of its bound is. */
bool ag_check_is_worse(const ag_judgement *a, const ag_judgement *b);

/* What the report shows: the worst entry or direction, or what is to blame for its failure. */
void ag_check_blame(ag_check *check, const ag_direction *direction, const ag_judgement *judgement);

/* The verdict of the whole, from those of its entries. */
void ag_check_conclude(ag_check *check);

/* Sets the report's suspect: what the gradient by the input that is to blame looks like. */
void ag_check_name_suspect(ag_check *check);

/* "input 3 attn.w_v [2,0]", or "entries 17 to 40 together". */
void ag_check_print_place(const ag_gradcheck_report *report, FILE *file);

#endif
