/* The derivative of a function of one number from its values alone, with a bound
 * on its error. Gradient checks take it along lines through the inputs. */
#ifndef AG_AUTOGRAD_DIFFERENCE_H
#define AG_AUTOGRAD_DIFFERENCE_H

#include <stdbool.h>
#include <stdint.h>

/* What one evaluation of the function L at t found. */
typedef struct ag_probe {
    double t;
    double change;     /* L(t) - L(0) */
    double movement;   /* what that is a sum of: the sum of its terms' sizes */
    double size;       /* of what was rounded to get there, as the root of a sum of squares .. */
    double total;      /* .. and as a sum: L may be off by epsilon total, all one way */
    uint64_t branches; /* equal where the same piece of a piecewise function was taken */
    bool usable;       /* all was finite */
} ag_probe;

/* Evaluates at probe->t and sets the rest. False: the function failed, and all ends. */
typedef bool ag_probe_function(void *user, ag_probe *probe);

enum { AG_LINE_PROBES = 256 };

typedef struct ag_line {
    ag_probe_function *evaluate;
    void *user;
    double first_step; /* the largest tried: the ladder goes down from here in halves */
    double noise;      /* L's rounding error, as measured, as a part of size; infinite: unknown */
    double epsilon;    /* of the dtype that L is computed in; 0 means DBL_EPSILON */
    double slack;      /* |L'| times the rounding error of x + t u */
    uint64_t branches; /* those at t = 0 */
    bool thorough;     /* also tries steps that look too small to be of use */
    bool failed;       /* evaluate returned false */
    int count;         /* of probes: no t is evaluated twice */
    ag_probe probes[AG_LINE_PROBES];
} ag_line;

/* From which side of t = 0 the probes come. */
typedef enum ag_side { AG_SIDE_BOTH, AG_SIDE_RIGHT, AG_SIDE_LEFT } ag_side;

/* L'(0) is within error of value. */
typedef struct ag_derivative {
    double value, error;
    double scale; /* the sum of the sizes of the terms that L'(0) is a sum of */
    double step;
    ag_side side;
} ag_derivative;

/* The derivative from one side or both, where all probes have the same branches: those
 * at 0 if like_zero is set, otherwise those of the probe next to it. False if no
 * step of the ladder is small enough for that, or evaluate failed. */
bool ag_derivative_from(ag_line *line, ag_side side, bool like_zero, ag_derivative *derivative);

/* The same from both sides or, next to a kink, from the side that is away from it. */
bool ag_derivative_at(ag_line *line, ag_derivative *derivative);

/* Whether other branches are taken on one side or both as near to 0 as the ladder reaches: then the
 * kink, or jump, is at 0. */
bool ag_is_at_kink(ag_line *line);

/* The rounding error of L near 0 as a part of size, from how far the differences
 * L(t) - L(-t) at eight tiny t are from lying on a line; unit is a typical size
 * of the inputs. False if it cannot be told, because of kinks, or evaluate failed. */
bool ag_measure_noise(ag_probe_function *evaluate, void *user, double unit, double *noise,
                      bool *failed);

/* The same from the eight t at smallest, 2 smallest, .. alone. */
bool ag_measure_noise_at(ag_probe_function *evaluate, void *user, double smallest, double *noise,
                         bool *failed);

#endif
