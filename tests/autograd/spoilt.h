/* Right functions with wrong gradients, for tests of the checker. */
#ifndef AG_TEST_SPOILT_H
#define AG_TEST_SPOILT_H

#include <attograd.h>

/* Forward of operations that give what they get, so that only their rules are of interest. */
void ag_test_same_forward(ag_node *node);

/* y = x with a rule that is off by a factor: dx = factor dy. The operation's name is "spoil". */
ag_var ag_test_spoil(ag_var x, double factor);

enum { AG_TEST_TOKENS = 8, AG_TEST_WIDTH = 8 }; /* so that all four inputs have 64 entries */

/* Attention of random tokens, y = softmax(x W_q (x W_k)^T / sqrt 8) x W_v, checked at points drawn
 * from seeds 0 .. seeds - 1. */
typedef struct ag_test_attention {
    int seeds;
    double enlarge; /* W_q and W_k are enlarged by this, the scores by its square: 1 is as layers
                       begin, and a large one saturates the softmax */
    double factor;  /* that the gradient by W_q is off by */
    double scale;   /* of the result */
    ag_gradcheck_method method;
} ag_test_attention;

/* The function of x, W_q, W_k, W_v [8, 8] each; user is an ag_test_attention. And such inputs. */
ag_var ag_test_attend(ag_context *ctx, const ag_var *x, int n, void *user);
void ag_test_draw(ag_context *ctx, uint64_t seed, double enlarge, ag_var *x);

/* The counts are the sums over the seeds, the floors the largest. Every check must come to a
 * verdict about its entries. */
ag_gradcheck_report ag_test_check_attention(ag_test_attention attention);

#endif
