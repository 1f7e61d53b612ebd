/* attograd explain as a page to be read: each step's formula, its numbers in
 * columns, and how one of them came about. Fits into 90 columns. */
#include "explain_matrix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const ag_column_names value_names[MATRICES] = {
    [INPUTS] = { "a", NULL }, [Q] = { "q", NULL },      [K] = { "k", NULL },   [V] = { "v", NULL },
    [SCORES] = { "q", "k" },  [WEIGHTS] = { "b", "v" }, [OUT] = { "b", NULL },
};

static const ag_column_names gradient_names[MATRICES] = {
    [INPUTS] = { "da", NULL }, [Q] = { "dq", NULL },    [K] = { "dk", NULL },
    [V] = { "dv", NULL },      [SCORES] = { "q", "k" }, [WEIGHTS] = { "b", "v" },
    [OUT] = { "db", NULL },
};

static void print_value(const ag_explanation *e, int which)
{
    ag_canvas c;
    ag_canvas_begin(&c);
    ag_canvas_matrix(&c, NULL, ag_matrix_names[which], &e->value[which], value_names[which]);
    ag_canvas_end(&c);
}

/* ---- How one entry came about ---- */

/* " + 0.50*0.25" to the end of text; the sign of the left number joins the terms. */
static void add_term(char *text, size_t size, double left, int left_decimals, double right,
                     int right_decimals)
{
    size_t used = strlen(text);
    left = ag_number_shown(left, left_decimals);
    right = ag_number_shown(right, right_decimals);
    const char *sign = left < 0 ? (used ? " - " : "-") : (used ? " + " : "");
    snprintf(text + used, size - used, right < 0 ? "%s%.*f*(%.*f)" : "%s%.*f*%.*f", sign,
             left_decimals, fabs(left), right_decimals, right);
}

/* "entry = sum", and the sum in numbers, on the same line where there is room. */
static void print_work(const char *entry, const char *sum, const char *numbers, double result,
                       int decimals)
{
    int length = printf("   %s = %s", entry, sum);
    int more = (int)strlen(numbers) + decimals + 9;
    if (length + more > 88)
        printf("\n   %*s", (int)strlen(entry), "");
    printf(" = %s = %.*f\n", numbers, decimals, ag_number_shown(result, decimals));
}

/* The entry of a product: a row of the left matrix times a column of the right one. */
static void work_product(const char *entry, const char *sum, ag_matrix left, int row,
                         ag_matrix right, int column, const ag_matrix *result)
{
    char numbers[256] = "";
    double total = 0;
    for (int i = 0; i < left.columns; i++) {
        double l = ag_entry(&left, row, i), r = ag_entry(&right, i, column);
        add_term(numbers, sizeof numbers, l, ag_matrix_decimals(&left), r,
                 ag_matrix_decimals(&right));
        total += l * r;
    }
    print_work(entry, sum, numbers, total, ag_matrix_decimals(result));
}

/* ---- Forward ---- */

static void heading(const char *text, bool bold)
{
    printf(bold ? "\n\033[1m%s\033[0m\n" : "\n%s\n", text);
}

static void print_given(const ag_explanation *e, bool bold)
{
    ag_canvas c;
    heading("SELF-ATTENTION IN NUMBERS", bold);
    printf(
        "\nFour inputs a_1 .. a_4 are the columns of I. W_q, W_k and W_v are all that learns. For\n"
        "each input there is an output b_i, and a target y_i that says what it should be.\n\n");
    ag_canvas_begin(&c);
    ag_canvas_matrix(&c, NULL, "I", &e->value[INPUTS], value_names[INPUTS]);
    ag_canvas_matrix(&c, NULL, "Y", &e->target, (ag_column_names){ "y", NULL });
    ag_canvas_end(&c);
    printf("\n");
    ag_canvas_begin(&c);
    for (int i = W_Q; i <= W_V; i++)
        ag_canvas_matrix(&c, NULL, ag_matrix_names[i], &e->value[i],
                         (ag_column_names){ NULL, NULL });
    ag_canvas_end(&c);
}

static void print_projections(const ag_explanation *e)
{
    const ag_matrix *m = e->value;
    printf("\n1  Every input gives a query, a key and a value.\n");
    printf("\n   q_i = W_q a_i        all at once: Q = W_q I\n\n");
    print_value(e, Q);
    printf("\n");
    work_product("q_1[1]", "row 1 of W_q . a_1", m[W_Q], 0, m[INPUTS], 0, &m[Q]);
    printf("\n   k_i = W_k a_i        all at once: K = W_k I\n\n");
    print_value(e, K);
    printf("\n");
    work_product("k_2[1]", "row 1 of W_k . a_2", m[W_K], 0, m[INPUTS], 1, &m[K]);
    printf("\n   v_i = W_v a_i        all at once: V = W_v I\n\n");
    print_value(e, V);
    printf("\n");
    work_product("v_2[1]", "row 1 of W_v . a_2", m[W_V], 0, m[INPUTS], 1, &m[V]);
}

static void print_scores(const ag_explanation *e)
{
    const ag_matrix *m = e->value;
    printf("\n2  Query times key: how much does input i care for input j?\n"
           "\n   alpha_ij = q_i . k_j        all at once: A = K^T Q\n"
           "   Column i belongs to query i: alpha_ij stands in column i, row j.\n\n");
    print_value(e, SCORES);
    printf("\n");
    work_product("alpha_12", "q_1 . k_2", ag_transposed(&m[Q]), 0, m[K], 1, &m[SCORES]);
}

static void print_weights(const ag_explanation *e)
{
    const ag_matrix *a = &e->value[SCORES];
    int decimals = ag_matrix_decimals(a);
    double sum = 0;
    for (int j = 0; j < TOKENS; j++)
        sum += exp(ag_entry(a, j, 0));
    printf("\n3  Softmax turns the scores of each query into weights: positive, and 1 in all.\n"
           "\n   alpha'_ij = exp(alpha_ij) / (exp(alpha_i1) + .. + exp(alpha_i4))\n"
           "   all at once: A' = softmax of each column of A\n\n");
    print_value(e, WEIGHTS);
    printf("\n   alpha'_12 = exp(%.*f) / (", decimals, ag_entry(a, 1, 0));
    for (int j = 0; j < TOKENS; j++)
        printf("%sexp(%.*f)", j ? " + " : "", decimals,
               ag_number_shown(ag_entry(a, j, 0), decimals));
    printf(")\n             = %.4f / %.4f = %.4f\n", exp(ag_entry(a, 1, 0)), sum,
           exp(ag_entry(a, 1, 0)) / sum);
}

static void print_outputs(const ag_explanation *e)
{
    const ag_matrix *m = e->value;
    printf("\n4  Each output is a mixture of the values.\n"
           "\n   b_i = alpha'_i1 v_1 + .. + alpha'_i4 v_4        all at once: O = V A'\n\n");
    print_value(e, OUT);
    printf("\n");
    work_product("b_1[1]", "sum_j v_j[1] alpha'_1j", m[V], 0, m[WEIGHTS], 0, &m[OUT]);
    printf("\n5  How wrong is that?  L = 1/2 sum (O - Y)^2 = %.4f\n", e->loss);
}

static void print_rows(bool bold)
{
    heading("COLUMNS AND ROWS", bold);
    printf(
        "\nHere, as in the tutorial, a token is a column. In the library, and in most papers and\n"
        "programs, it is a row. Each matrix of one is the transpose of that of the other, and\n"
        "since (M N)^T = N^T M^T, the factors of each product change places:\n\n"
        "   here, in columns                     in the library, in rows\n"
        "   I                        [3,4]       X = I^T                         [4,3]\n"
        "   W_q                      [2,3]       attn.w_q = W_q^T                [3,2]\n"
        "   Q = W_q I                [2,4]       Q = X attn.w_q                  [4,2]\n"
        "   A = K^T Q                [4,4]       scores = Q K^T                  [4,4]\n"
        "   A' = softmax of columns  [4,4]       weights = softmax of rows       [4,4]\n"
        "   O = V A'                 [2,4]       out = weights V                 [4,2]\n"
        "   dW_q = dQ I^T            [2,3]       d attn.w_q = X^T dQ             [3,2]\n\n"
        "The numbers on this page come from the library's layer: what it computed as rows is\n"
        "shown as columns. Here its scores are not divided by sqrt(d_k), as they are by "
        "default.\n");
}

/* ---- Backward ---- */

/* The gradient and its finite differences side by side. */
static void print_gradient(const ag_explanation *e, int which, const char *words)
{
    char name[8];
    ag_canvas c;
    snprintf(name, sizeof name, "d%s", ag_matrix_names[which]);
    printf("\n%s = %s%s%s\n\n", name, ag_gradient_formulas[which], *words ? "        " : "", words);
    ag_canvas_begin(&c);
    const ag_column_names of = gradient_names[which];
    ag_canvas_matrix(&c, "ag_backward", name, &e->gradient[which],
                     (ag_column_names){ of.head, NULL });
    ag_canvas_matrix(&c, "finite differences", "", &e->numeric[which], of);
    ag_canvas_end(&c);
    printf("   largest difference between the two: %.1e\n", e->numeric_gap[which]);
}

static void print_difference_explained(const ag_explanation *e, bool bold)
{
    heading("BACKWARD", bold);
    printf(
        "\nFrom L back to I. dM is a matrix like M: how fast L changes with each entry of M. Each\n"
        "formula uses only what stands above it. On the left is what ag_backward left at that\n"
        "variable; on the right, finite differences: the entry is moved by h = 2^-18 either way,\n"
        "all that is computed from it is computed again, and L is seen to change. For W_q[1,1]:\n\n"
        "   (L(+h) - L(-h)) / 2h = (%.10f - %.10f) / %.4e = %.4f\n",
        e->loss_plus, e->loss_minus, 2 * e->step, ag_number_shown(e->numeric[W_Q].x[0], 4));
}

static void print_output_gradients(const ag_explanation *e)
{
    const ag_matrix *m = e->value, *d = e->gradient;
    char numbers[64];
    print_gradient(e, OUT, "");
    snprintf(numbers, sizeof numbers, e->target.x[0] < 0 ? "%.4f - (%.2f)" : "%.4f - %.2f",
             m[OUT].x[0], e->target.x[0]);
    print_work("db_1[1]", "b_1[1] - y_1[1]", numbers, d[OUT].x[0], 4);
    print_gradient(e, V, "v_j went into each b_i, alpha'_ij times");
    work_product("dv_2[1]", "sum_i db_i[1] alpha'_i2", d[OUT], 0, ag_transposed(&m[WEIGHTS]), 1,
                 &d[V]);
    print_gradient(e, WEIGHTS, "");
    work_product("dalpha'_12", "v_2 . db_1", ag_transposed(&m[V]), 1, d[OUT], 0, &d[WEIGHTS]);
}

/* The softmax: one weight more is the others less. */
static void print_score_gradient(const ag_explanation *e)
{
    const ag_matrix *p = &e->value[WEIGHTS], *dp = &e->gradient[WEIGHTS];
    double mean = 0;
    print_gradient(e, SCORES, "");
    for (int j = 0; j < TOKENS; j++)
        mean += ag_entry(p, j, 0) * ag_entry(dp, j, 0);
    printf(
        "   * is entry by entry. The weights of a column sum to 1, whatever the scores: what one\n"
        "   gains the others lose. So each entry of dA' counts by how much it exceeds the mean of\n"
        "   its column under the weights, and each column of dA sums to 0.\n"
        "   dalpha_12 = alpha'_12 (dalpha'_12 - sum_j alpha'_1j dalpha'_1j)\n"
        "             = %.4f*(%.4f %c %.4f) = %.4f\n",
        ag_entry(p, 1, 0), ag_number_shown(ag_entry(dp, 1, 0), 4), mean < 0 ? '+' : '-', fabs(mean),
        ag_number_shown(ag_entry(&e->gradient[SCORES], 1, 0), 4));
}

static void print_projection_gradients(const ag_explanation *e)
{
    const ag_matrix *m = e->value, *d = e->gradient;
    print_gradient(e, Q, "");
    work_product("dq_1[1]", "sum_j k_j[1] dalpha_1j", m[K], 0, d[SCORES], 0, &d[Q]);
    print_gradient(e, K, "");
    work_product("dk_2[1]", "sum_i q_i[1] dalpha_i2", m[Q], 0, ag_transposed(&d[SCORES]), 1, &d[K]);
    print_gradient(e, W_Q, "every input adds its dq_i a_i^T");
    work_product("dW_q[1,1]", "sum_i dq_i[1] a_i[1]", d[Q], 0, ag_transposed(&m[INPUTS]), 0,
                 &d[W_Q]);
    print_gradient(e, W_K, "");
    work_product("dW_k[1,1]", "sum_i dk_i[1] a_i[1]", d[K], 0, ag_transposed(&m[INPUTS]), 0,
                 &d[W_K]);
    print_gradient(e, W_V, "");
    work_product("dW_v[1,1]", "sum_i dv_i[1] a_i[1]", d[V], 0, ag_transposed(&m[INPUTS]), 0,
                 &d[W_V]);
}

/* Row 1 of W^T times column 1 of d. */
static double path(const ag_matrix *w, const ag_matrix *d)
{
    double sum = 0;
    for (int i = 0; i < w->rows; i++)
        sum += ag_entry(w, i, 0) * ag_entry(d, i, 0);
    return sum;
}

static void print_input_gradient(const ag_explanation *e)
{
    const ag_matrix *m = e->value, *d = e->gradient;
    print_gradient(e, INPUTS, "three paths, added");
    double by_query = path(&m[W_Q], &d[Q]), by_key = path(&m[W_K], &d[K]);
    double by_value = path(&m[W_V], &d[V]);
    printf("   da_1[1] = %.4f by its query %c %.4f by its key %c %.4f by its value = %.4f\n",
           ag_number_shown(by_query, 4), by_key < 0 ? '-' : '+', fabs(by_key),
           by_value < 0 ? '-' : '+', fabs(by_value), ag_number_shown(d[INPUTS].x[0], 4));
}

/* Along the gradient, L falls by lr |dW|^2 for a small lr. */
static void print_step(const ag_explanation *e, bool bold)
{
    double squares = 0;
    for (int i = W_Q; i <= W_V; i++)
        for (int k = 0; k < e->gradient[i].rows * e->gradient[i].columns; k++)
            squares += e->gradient[i].x[k] * e->gradient[i].x[k];
    heading("AND THIS IS LEARNING", bold);
    printf(
        "\nOne step W - %.2f dW for each of W_q, W_k and W_v. The gradients say that L falls by\n"
        "%.2f (|dW_q|^2 + |dW_k|^2 + |dW_v|^2) = %.4f, if the step is small. It goes from %.4f\n"
        "to %.4f, by %.4f.\n",
        e->lr, e->lr, e->lr * squares, e->loss, e->loss_after,
        ag_number_shown(e->loss - e->loss_after, 4));
}

static void print_result(const ag_explanation *e, bool bold)
{
    heading("DO THEY AGREE?", bold);
    printf(
        "\nThe largest difference between any two entries: of ag_backward's gradient and of the\n"
        "formula beside it, evaluated; and of ag_backward's gradient and finite differences.\n\n"
        "         formula    differences\n");
    for (int i = 0; i < MATRICES; i++) {
        int which = ag_backward_order[i];
        printf("   d%-5s %-10.1e %.1e\n", ag_matrix_names[which], e->gradient_gap[which],
               e->numeric_gap[which]);
    }
    printf("\n   largest of all: %.1e\n", e->largest);
    print_step(e, bold);
}

void ag_explain_print(const ag_explanation *e, bool bold)
{
    print_given(e, bold);
    heading("FORWARD", bold);
    print_projections(e);
    print_scores(e);
    print_weights(e);
    print_outputs(e);
    print_rows(bold);
    print_difference_explained(e, bold);
    print_output_gradients(e);
    print_score_gradient(e);
    print_projection_gradients(e);
    print_input_gradient(e);
    print_result(e, bold);
}
