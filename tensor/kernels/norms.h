/* Layer norm and RMS norm of rows; see norms.inc. */
#ifndef AG_KERNELS_NORMS_H
#define AG_KERNELS_NORMS_H

#include "../internal.h"

/* Some rows of x [rows, n]; y like x. */
typedef struct ag_norm_forward {
    int64_t rows, n;
    const void *x, *gain, *bias; /* gain and bias [n] */
    double epsilon;
    void *y, *statistics; /* statistics [rows, AG_NORM_STATISTICS] */
} ag_norm_forward;

/* Their way back. What is not asked for is NULL. */
typedef struct ag_norm_backward {
    int64_t rows, n;
    const void *x, *gain, *statistics, *dy;
    void *dx;
    void *dgain, *dbias; /* [n]; the rows' sums are added to what they hold */
} ag_norm_backward;

/* By ag_norm_rows. */
typedef struct ag_norm_kernels {
    void (*forward[2])(const ag_norm_forward *job);
    void (*backward[2])(const ag_norm_backward *job);
} ag_norm_kernels;

#endif
