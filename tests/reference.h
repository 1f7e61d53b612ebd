/* The numbers in tests/data/reference, and how results are held against them. They were computed
 * in f64 by another program (see reference/README.md). Everything here fails the running test
 * with a message of its own. */
#ifndef AG_TESTS_REFERENCE_H
#define AG_TESTS_REFERENCE_H

#include "../autograd/autograd.h"

/* A context that computes in f64; the other call expects that it holds no error and frees it. */
ag_context *ag_reference_context(void);
void ag_reference_finish(ag_context *context);

/* The tensor in NAME.npy, NAME given as for printf. It lives as long as the context. */
const ag_tensor *ag_reference_read(ag_context *context, const char *name, ...) AG_PRINTF(2, 3);

/* The same as a new variable that asks for no gradient, and as one that does. */
ag_var ag_reference_constant(ag_context *context, const char *name);
ag_var ag_reference_input(ag_context *context, const char *name);

/* The i-th slice along an axis, without that axis: a view. */
ag_tensor ag_reference_part(const ag_tensor *tensor, int axis, int64_t i);

/* True if shape and dtype are equal and every entry has
 *   |got - want| <= 1e-10 max(|want|, min(rms, 1)) + 1e-13,
 * rms being the root mean square of the finite entries of want. The last term is for gradients
 * that are exactly 0, but only after rounding errors have been added up: that of b_k under
 * softmax, which moves all scores of a row alike, is one. Infinities must be equal, a NaN never
 * agrees. If false, message names the first entry that differs. got may be NULL. */
bool ag_reference_agrees(const ag_tensor *got, const ag_tensor *want, char *message, size_t size);

/* Expects that. */
void ag_reference_expect(const char *name, const ag_tensor *got, const ag_tensor *want);

/* One input and what its gradient should be. */
typedef struct ag_reference_gradient {
    const char *name;
    ag_var input;
    const ag_tensor *want;
} ag_reference_gradient;

/* Expects these gradients of sum(cotangent * y) twice: from ag_grad_from with AG_CREATE_GRAPH,
 * which takes the composed backward rules, and from ag_backward_from, which takes fused ones
 * where there are any. case_name opens the messages. */
void ag_reference_expect_gradients(const char *case_name, ag_var y, ag_var cotangent,
                                   const ag_reference_gradient *gradients, int n);

#endif
