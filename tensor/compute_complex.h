/* The computations of compute_*.c on AG_C128: see there and compute_complex.c. Shapes have been
 * checked, and so have labels and indices. Of the gradients' statistics nothing is written. */
#ifndef AG_COMPUTE_COMPLEX_H
#define AG_COMPUTE_COMPLEX_H

#include "internal.h"

bool ag_complex_matmul(const ag_tensor *a, const ag_tensor *b, const ag_matmul_start *start,
                       ag_tensor *y);
bool ag_complex_reduce(ag_reduce kind, const ag_tensor *x, unsigned axes, ag_tensor *y);
bool ag_complex_argmax(const ag_tensor *x, int axis, ag_tensor *y);
bool ag_complex_cumsum(const ag_tensor *x, int axis, ag_tensor *y);
bool ag_complex_softmax(ag_softmax_kind kind, const ag_tensor *x, ag_tensor *y);
bool ag_complex_cross_entropy(const ag_tensor *logits, const int64_t *labels, const int64_t *ignore,
                              ag_tensor *losses);
bool ag_complex_norm(ag_norm_rows kind, double epsilon, const ag_tensor *x, const ag_tensor *gain,
                     const ag_tensor *bias, ag_tensor *y);
bool ag_complex_attention(ag_context *context, const ag_attention_call *call, ag_tensor *y);
bool ag_complex_scatter_add_rows(const ag_tensor *rows, const int64_t *indices, int64_t count,
                                 ag_tensor *y);
bool ag_complex_all_finite(const ag_tensor *x);

#endif
