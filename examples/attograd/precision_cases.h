/* The kernels that are compared with slow ones, and at which sizes. */
#ifndef AG_EXAMPLES_PRECISION_CASES_H
#define AG_EXAMPLES_PRECISION_CASES_H

#include "cases.h"

enum { AG_PRECISION_INPUTS = 4 };

/* Stands for the size in the dims of inputs. */
#define AG_PRECISION_N (-1)

/* Which numbers the size runs through, all of them around the edges of what loops are cut into. */
typedef enum ag_precision_sizes {
    AG_SIZES_SMALL,  /* 1 .. 33, and 64 and 128 +- 1 */
    AG_SIZES_MEDIUM, /* and 256 +- 1 */
    AG_SIZES_EDGES,  /* and 512 and 1024 +- 1 */
    AG_SIZES_LONG,   /* and 4096 and 16384 +- 1 */
    AG_SIZES_TALL,   /* 1 .. 33, 64 +- 1, and more rows than a tile of a product has */
    AG_SIZES_SHARED, /* 65536 +- 1, which threads share */
    AG_SIZES_HALF    /* 800 +- 1: rows of products that threads share */
} ag_precision_sizes;

/* Whether results are differences of numbers that are nearly equal, and where such numbers show. */
typedef enum ag_precision_terms {
    AG_TERMS_ALIKE,    /* no */
    AG_TERMS_CANCEL,   /* of the size of the tensor's largest number */
    AG_TERMS_ELSEWHERE /* of the size of another tensor's: dP - sum P dP in the gradients of Q, K */
} ag_precision_terms;

/* A function of inputs whose sizes depend on one number. */
typedef struct ag_precision_case {
    const char *name;   /* the operation's, and after a slash what is special */
    const char *covers; /* the operation of the table, or of an optimiser */
    ag_function f;
    int n;
    ag_case_input inputs[AG_PRECISION_INPUTS];
    ag_precision_sizes sizes;
    double limit; /* so many bounds may a number be off */
    ag_precision_terms terms;
} ag_precision_case;

/* The table (precision_table.c). */
const ag_precision_case *ag_precision_case_at(int i);

/* ---- Operands (precision_operands.c) ---- */

enum { AG_PRECISION_SIZES = 64 };
int ag_precision_list_sizes(ag_precision_sizes kind, int64_t *sizes);

/* A case at a size, and its numbers, each of which is an f32. */
typedef struct ag_precision_subject {
    const ag_precision_case *p;
    int64_t size;
    double *inputs[AG_PRECISION_INPUTS], *dy;
} ag_precision_subject;

void ag_precision_open(const ag_precision_case *p, int64_t size, uint64_t seed,
                       ag_precision_subject *s);
void ag_precision_close(ag_precision_subject *s);
ag_shape ag_precision_shape(const ag_precision_subject *s, int i);

/* How operands lie in memory. */
typedef enum ag_precision_view {
    AG_VIEW_DENSE,
    AG_VIEW_TRANSPOSED,
    AG_VIEW_REVERSED, /* along every axis */
    AG_VIEW_STEPPED,  /* every other one along every axis */
    AG_VIEWS
} ag_precision_view;

/* A variable of a shape as a view of a leaf that asks for a gradient. */
ag_var ag_precision_seen_as(ag_context *ctx, ag_precision_view kind, ag_shape shape);

/* Sets a new variable, which nothing has been computed from yet, each number moved up or down by
 * a rounding of eps; 0 moves nothing. */
void ag_precision_put(ag_var x, const double *numbers, double eps, ag_random *signs);

#endif
