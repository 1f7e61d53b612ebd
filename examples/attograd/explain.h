/* The tutorial's example, computed forwards and backwards.
 *
 * Everything here is in the tutorial's notation: one token a column. The
 * library holds the transpose of each of these matrices. */
#ifndef AG_EXAMPLES_EXPLAIN_H
#define AG_EXAMPLES_EXPLAIN_H

#include "options.h"

#include <attograd.h>

enum { TOKENS = 4, D_IN = 3, D_K = 2, D_V = 2 };

/* The matrices, in an order in which each is made from earlier ones. */
enum { INPUTS, W_Q, W_K, W_V, Q, K, V, SCORES, WEIGHTS, OUT, MATRICES };

/* The order in which backward comes to them. */
extern const int ag_backward_order[MATRICES];

typedef struct ag_matrix {
    int rows, columns;
    double x[TOKENS * TOKENS]; /* row by row */
} ag_matrix;

typedef struct ag_explanation {
    ag_seed seed; /* of the numbers; not given: the page's own */
    ag_matrix target;

    ag_matrix value[MATRICES];    /* from the layer's trace */
    ag_matrix gradient[MATRICES]; /* from ag_backward */
    ag_matrix numeric[MATRICES];  /* finite differences with this step */
    double step;

    /* The largest differences: the layer's value from that of the printed
     * formula, the gradient from that of its formula, and from numeric. */
    double value_gap[MATRICES], gradient_gap[MATRICES], numeric_gap[MATRICES];
    double largest; /* of them all */

    double loss, loss_plus, loss_minus; /* with the first entry of W_q moved by +-step */
    double lr, loss_after;              /* of one step of gradient descent */
} ag_explanation;

/* "I", "W_q", .. */
extern const char *const ag_matrix_names[MATRICES];

/* "W_q I", .. of the value ("" where it is given) and of the gradient. */
extern const char *const ag_value_formulas[MATRICES];
extern const char *const ag_gradient_formulas[MATRICES];

double ag_entry(const ag_matrix *m, int row, int column);
ag_matrix ag_transposed(const ag_matrix *m);

/* The pages: explain_print.c. */
void ag_explain_print(const ag_explanation *e, bool bold);
void ag_explain_json(const ag_explanation *e);

#endif
