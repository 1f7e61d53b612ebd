/* The V curve: how far a numeric derivative is off, against the step it was taken with.
 * Large steps see the function's bends (truncation), small ones its last digits (rounding). */
#ifndef AG_EXAMPLES_VCURVE_H
#define AG_EXAMPLES_VCURVE_H

#include "cases.h"

enum { AG_V_ORDERS = 4, AG_V_DTYPES = 2, AG_V_STEPS = 101 };

/* What the curves belong to: f32 and f64, and orders 2, 4, 6, 8. */
extern const char *const ag_v_dtypes[AG_V_DTYPES];
#define AG_V_ORDER(k) (2 * (k) + 2)

/* A case's L = sum_i c_i y_i and its derivative by one entry of the inputs. Errors
 * are relative to that derivative, or absolute where it is 0. */
typedef struct ag_vcurve {
    const char *name;
    int64_t entry, entries; /* entry: counted through all inputs */
    char place[96];         /* "attn.w_q [0,1]" */
    double gradient;        /* from backward, in f64 */
    bool relative;

    double steps[AG_V_STEPS]; /* falling */
    double quotients[AG_V_DTYPES][AG_V_ORDERS][AG_V_STEPS];
    bool has_complex; /* whether there is a complex step: Im L(x + ih) / h */
    double complex_quotients[AG_V_STEPS];

    /* What the gradient checker made of the entry. */
    ag_verdict verdict;
    double numeric, bound, step;

    double
        rounding;  /* of order 8 in f64: the error is about this / h where rounding dominates .. */
    double border; /* .. below this step; above it truncation does. 0: it does so nowhere */
    double kink;   /* from this step on order 8 reaches across a kink. 0: it does so nowhere */
} ag_vcurve;

/* The error of a quotient; NaN if the function was not finite there. */
double ag_vcurve_error(const ag_vcurve *curve, double quotient);

/* The entry whose quotient of order 2 is worst at h = 1/8. */
#define AG_V_MOST_BENT INT64_MIN

/* Measures case i at an entry. False with a line on stderr, and the exit status in *status. */
bool ag_vcurve_measure(ag_vcurve *curve, int i, int64_t entry, int *status);

/* The smallest step h at which x +- 4 h lies across a kink, x being entry k of an input; 0 if there
 * is none up to the largest step (vcurve_kink.c). */
double ag_vcurve_kink(const ag_vcurve *curve, const ag_case_setup *setup, ag_var input, int64_t k);

/* What makes the error of order 8 in f64, from step to step. */
typedef enum ag_v_cause { AG_V_ROUNDING, AG_V_TRUNCATION, AG_V_KINK } ag_v_cause;
typedef struct ag_v_band {
    ag_v_cause cause;
    double from, to; /* 0 and INFINITY at the ends */
} ag_v_band;

/* Up to three bands, from small to large steps; their number. */
int ag_vcurve_bands(const ag_vcurve *curve, ag_v_band bands[3]);

/* For 80 columns: the curves, and every sixth step as numbers (vcurve_print.c). */
void ag_vcurve_print(const ag_vcurve *curve);

/* What was looked at, and what the checker chose. */
void ag_vcurve_print_summary(const ag_vcurve *curve);

/* Every quotient, a line each. False if it could not be written. */
bool ag_vcurve_write_csv(FILE *file, const void *curve);

/* As a picture (svg_vcurve.c). */
bool ag_svg_vcurve(FILE *file, const void *curve);

#endif
