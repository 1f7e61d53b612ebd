/* attograd explain --json: all matrices of the page in one object, each a list
 * of rows, with their formulas and the differences that were found. */
#include "explain.h"

#include <inttypes.h>

static void print_matrix(const char *key, const ag_matrix *m)
{
    printf("\"%s\":[", key);
    for (int row = 0; row < m->rows; row++)
        for (int column = 0; column < m->columns; column++)
            printf("%s%.17g%s",
                   column ? ","
                   : row  ? ",["
                          : "[",
                   ag_entry(m, row, column), column + 1 == m->columns ? "]" : "");
    printf("]");
}

static void print_value(const ag_explanation *e, int which)
{
    printf("\"%s\":{\"formula\":\"%s\",", ag_matrix_names[which], ag_value_formulas[which]);
    print_matrix("value", &e->value[which]);
    printf(",\"formula_disagreement\":%.3g}", e->value_gap[which]);
}

static void print_gradient(const ag_explanation *e, int which)
{
    printf("\"d%s\":{\"formula\":\"%s\",", ag_matrix_names[which], ag_gradient_formulas[which]);
    print_matrix("value", &e->gradient[which]);
    printf(",");
    print_matrix("finite_differences", &e->numeric[which]);
    printf(",\"formula_disagreement\":%.3g,\"disagreement\":%.3g}", e->gradient_gap[which],
           e->numeric_gap[which]);
}

void ag_explain_json(const ag_explanation *e)
{
    printf("{\"notation\":\"one token a column\",\"seed\":");
    if (e->seed.given)
        printf("%" PRIu64, e->seed.value);
    else
        printf("null");
    printf(",\"loss\":%.17g,\"loss_after_a_step\":%.17g,\"learning_rate\":%.17g,\"h\":%.17g,",
           e->loss, e->loss_after, e->lr, e->step);
    print_matrix("Y", &e->target);
    printf(",\"values\":{");
    for (int i = 0; i < MATRICES; i++) {
        printf("%s", i ? "," : "");
        print_value(e, i);
    }
    printf("},\"gradients\":{");
    for (int i = 0; i < MATRICES; i++) {
        printf("%s", i ? "," : "");
        print_gradient(e, ag_backward_order[i]);
    }
    printf("},\"largest_disagreement\":%.3g}\n", e->largest);
}
