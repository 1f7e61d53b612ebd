/* The loops of elementwise operations; see elementwise.inc. */
#ifndef AG_KERNELS_ELEMENTWISE_H
#define AG_KERNELS_ELEMENTWISE_H

#include "../internal.h"

/* y[i] = f(a[i * strides[0]], b[i * strides[1]]) for i in 0 .. n - 1, where
 * a and b are operands[0] and operands[1]. A unary function reads only a. y
 * may be an operand itself, element on element, but not overlap it otherwise. */
typedef void ag_elementwise_loop(int64_t n, const void *const *operands, const int64_t *strides,
                                 void *y, double parameter);

/* NULL in the table for c128: functions without a complex form, and fused backward rules. */
typedef struct ag_elementwise_kernels {
    ag_elementwise_loop *unary[AG_UNARY_COUNT];
    ag_elementwise_loop *binary[AG_BINARY_COUNT];
    ag_elementwise_loop *accumulate; /* y[i] += a[i * strides[0]] */

    /* y[i] = gelu(y[i]) and slope[i] = gelu'(y[i]) of the y[i] before */
    void (*gelu_with_slope)(int64_t n, void *y, void *slope);
} ag_elementwise_kernels;

#endif
