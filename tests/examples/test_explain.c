/* attograd explain: that each matrix is what its formula says, computed here
 * once more with plain loops, and each gradient what the differences say. */
#include "program.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

typedef struct matrix {
    int rows, columns;
    double x[MOST];
} matrix;

/* ---- Reading the JSON ---- */

static const char *find(const char *text, const char *part)
{
    const char *at = strstr(text, part);
    cr_assert(at != NULL, "no %s in: %s", part, text);
    return at + strlen(part);
}

/* Behind "name":{ .. "key": */
static const char *member(const char *json, const char *name, const char *key)
{
    char part[64];
    snprintf(part, sizeof part, "\"%s\":{", name);
    const char *object = find(json, part);
    snprintf(part, sizeof part, "\"%s\":", key);
    const char *at = find(object, part);
    cr_assert(strchr(object, '}') > at, "%s has no %s", name, key);
    return at;
}

/* [[1,2],[3,4]] */
static matrix read_matrix(const char *at)
{
    matrix m = { 0, 0, { 0 } };
    int count = 0;
    cr_assert(*at == '[', "no matrix: %.40s", at);
    at++;
    while (*at == '[' || *at == ',') {
        at += *at == ',';
        cr_assert(*at == '[', "no row: %.40s", at);
        do {
            char *end;
            cr_assert(count < MOST);
            m.x[count++] = strtod(at + 1, &end);
            cr_assert(end != at + 1, "no number: %.40s", at);
            at = end;
        } while (*at == ',');
        cr_assert(*at == ']', "no end of a row: %.40s", at);
        at++;
        m.rows++;
    }
    m.columns = count / m.rows;
    return m;
}

static matrix value(const char *json, const char *name)
{
    return read_matrix(member(json, name, "value"));
}

/* ---- The formulas, with plain loops ---- */

static double *entry(matrix *m, int row, int column)
{
    return &m->x[row * m->columns + column];
}

static matrix transpose(matrix m)
{
    matrix t = { m.columns, m.rows, { 0 } };
    for (int i = 0; i < m.rows; i++)
        for (int j = 0; j < m.columns; j++)
            *entry(&t, j, i) = *entry(&m, i, j);
    return t;
}

static matrix product(matrix a, matrix b)
{
    matrix c = { a.rows, b.columns, { 0 } };
    cr_assert(a.columns == b.rows);
    for (int i = 0; i < a.rows; i++)
        for (int j = 0; j < b.columns; j++)
            for (int k = 0; k < a.columns; k++)
                *entry(&c, i, j) += *entry(&a, i, k) * *entry(&b, k, j);
    return c;
}

static matrix combine(matrix a, double factor, matrix b)
{
    cr_assert(a.rows == b.rows && a.columns == b.columns);
    for (int i = 0; i < a.rows * a.columns; i++)
        a.x[i] += factor * b.x[i];
    return a;
}

static matrix softmax_of_columns(matrix a)
{
    for (int j = 0; j < a.columns; j++) {
        double sum = 0;
        for (int i = 0; i < a.rows; i++)
            sum += exp(*entry(&a, i, j));
        for (int i = 0; i < a.rows; i++)
            *entry(&a, i, j) = exp(*entry(&a, i, j)) / sum;
    }
    return a;
}

/* dA_ij = sum_k dA'_kj A'_kj (1[k = i] - A'_ij), by the definition of the derivative. */
static matrix softmax_backward(matrix p, matrix dp)
{
    matrix d = { p.rows, p.columns, { 0 } };
    for (int j = 0; j < p.columns; j++)
        for (int i = 0; i < p.rows; i++)
            for (int k = 0; k < p.rows; k++)
                *entry(&d, i, j) +=
                    *entry(&dp, k, j) * *entry(&p, k, j) * ((k == i) - *entry(&p, i, j));
    return d;
}

static void expect_near(const char *what, matrix got, matrix wanted, double tolerance)
{
    cr_assert(got.rows == wanted.rows && got.columns == wanted.columns,
              "%s is [%d,%d], not [%d,%d]", what, got.rows, got.columns, wanted.rows,
              wanted.columns);
    for (int i = 0; i < got.rows * got.columns; i++)
        cr_expect(fabs(got.x[i] - wanted.x[i]) <= tolerance, "%s entry %d: %.17g, not %.17g", what,
                  i, got.x[i], wanted.x[i]);
}

static void check_values(const char *json)
{
    matrix in = value(json, "I"), q = value(json, "Q"), k = value(json, "K"), v = value(json, "V");
    matrix a = value(json, "A"), p = value(json, "A'");
    cr_expect(in.columns == 4);
    expect_near("Q", q, product(value(json, "W_q"), in), 1e-14);
    expect_near("K", k, product(value(json, "W_k"), in), 1e-14);
    expect_near("V", v, product(value(json, "W_v"), in), 1e-14);
    expect_near("A", a, product(transpose(k), q), 1e-14);
    expect_near("A'", p, softmax_of_columns(a), 1e-14);
    expect_near("O", value(json, "O"), product(v, p), 1e-14);
}

static void check_gradients(const char *json)
{
    matrix in = value(json, "I"), q = value(json, "Q"), k = value(json, "K"), v = value(json, "V");
    matrix p = value(json, "A'"), out = value(json, "O"), d_out = value(json, "dO");
    matrix d_p = value(json, "dA'"), d_a = value(json, "dA");
    matrix dq = value(json, "dQ"), dk = value(json, "dK"), dv = value(json, "dV");
    matrix d_in = product(transpose(value(json, "W_q")), dq);
    d_in = combine(d_in, 1, product(transpose(value(json, "W_k")), dk));
    d_in = combine(d_in, 1, product(transpose(value(json, "W_v")), dv));
    expect_near("dO", d_out, combine(out, -1, read_matrix(find(json, "\"Y\":"))), 1e-14);
    expect_near("dV", dv, product(d_out, transpose(p)), 1e-14);
    expect_near("dA'", d_p, product(transpose(v), d_out), 1e-14);
    expect_near("dA", d_a, softmax_backward(p, d_p), 1e-14);
    expect_near("dQ", dq, product(k, d_a), 1e-14);
    expect_near("dK", dk, product(q, transpose(d_a)), 1e-14);
    expect_near("dW_q", value(json, "dW_q"), product(dq, transpose(in)), 1e-14);
    expect_near("dW_k", value(json, "dW_k"), product(dk, transpose(in)), 1e-14);
    expect_near("dW_v", value(json, "dW_v"), product(dv, transpose(in)), 1e-14);
    expect_near("dI", value(json, "dI"), d_in, 1e-14);
}

static const char *const values[] = { "I", "W_q", "W_k", "W_v", "Q", "K", "V", "A", "A'", "O" };
static const char *const gradients[] = { "dO", "dV",   "dA'",  "dA",   "dQ",
                                         "dK", "dW_q", "dW_k", "dW_v", "dI" };

static void check_disagreements(const char *json)
{
    double largest = 0;
    for (int i = 0; i < 10; i++) {
        matrix numeric = read_matrix(member(json, gradients[i], "finite_differences"));
        expect_near(gradients[i], numeric, value(json, gradients[i]), 1e-8);
        double said = strtod(member(json, gradients[i], "disagreement"), NULL);
        cr_expect(said < 1e-8, "%s disagrees by %g", gradients[i], said);
        largest = fmax(largest, said);
        cr_expect(strtod(member(json, gradients[i], "formula_disagreement"), NULL) < 1e-14);
        cr_expect(strtod(member(json, values[i], "formula_disagreement"), NULL) < 1e-14);
    }
    cr_expect(largest > 0, "differences are never exact");
    cr_expect(strtod(find(json, "\"largest_disagreement\":"), NULL) == largest);
}

static char *explain_json(const char *words)
{
    ag_test_run run = ag_test_program(words, NULL);
    cr_assert(run.status == 0, "'%s' ended with %d: %s", words, run.status, run.errors);
    cr_expect(!*run.errors, "%s", run.errors);
    free(run.errors);
    return run.output;
}

Test(explain, every_formula_and_every_difference_agrees)
{
    char words[64] = "explain --json";
    for (int seed = -1; seed < 20; seed++) {
        if (seed >= 0)
            snprintf(words, sizeof words, "explain --json --seed %d", seed);
        char *json = explain_json(words);
        check_values(json);
        check_gradients(json);
        check_disagreements(json);
        double loss = strtod(find(json, "\"loss\":"), NULL);
        cr_expect(strtod(find(json, "\"loss_after_a_step\":"), NULL) < loss, "%s", words);
        free(json);
    }
}

Test(explain, json_is_one_object_on_one_line)
{
    char *json = explain_json("explain --json");
    int depth = 0;
    for (const char *c = json; *c; c++) {
        depth += (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
        cr_expect(depth > 0 || c[1] == '\n' || c[1] == '\0', "ends too early: %s", c);
    }
    cr_expect(depth == 0 && strchr(json, '\n') == json + strlen(json) - 1);
    cr_expect(strstr(json, "\"seed\":null"), "%s", json);
    cr_expect(!strstr(json, "nan") && !strstr(json, "inf"));
    free(json);
}

Test(explain, the_seed_decides)
{
    char *a = explain_json("explain --seed 3"), *b = explain_json("explain --seed 3");
    char *c = explain_json("explain --seed 4"), *d = explain_json("explain");
    cr_expect(!strcmp(a, b), "twice the same seed, two results");
    cr_expect(strcmp(a, c) && strcmp(a, d), "two seeds, one result");
    char *largest = explain_json("explain --json --seed 18446744073709551615");
    cr_expect(strstr(largest, "\"seed\":18446744073709551615"), "%s", largest);
    free(largest);
    free(a), free(b), free(c), free(d);
}

/* The order in which a reader meets things, and what must be said of each. */
Test(explain, the_page_tells_each_step_in_order)
{
    static const char *const parts[] = { "FORWARD",
                                         "q_i = W_q a_i",
                                         "Q = W_q I",
                                         "k_i = W_k a_i",
                                         "K = W_k I",
                                         "v_i = W_v a_i",
                                         "V = W_v I",
                                         "alpha_ij = q_i . k_j",
                                         "A = K^T Q",
                                         "alpha_12 = q_1 . k_2 = 1.50*1.00 - 0.25*(-0.25) = 1.5625",
                                         "A' = softmax of each column of A",
                                         "= 4.7707 / 14.8662 = 0.3209",
                                         "O = V A'",
                                         "COLUMNS AND ROWS",
                                         "X = I^T",
                                         "Q = X attn.w_q",
                                         "scores = Q K^T",
                                         "softmax of rows",
                                         "BACKWARD",
                                         "dO = O - Y",
                                         "finite differences",
                                         "dV = dO A'^T",
                                         "dA' = V^T dO",
                                         "dA = A' * (dA' -",
                                         "dQ = K dA",
                                         "dK = Q dA^T",
                                         "dW_q = dQ I^T",
                                         "dW_k = dK I^T",
                                         "dW_v = dV I^T",
                                         "dI = W_q^T dQ + W_k^T dK + W_v^T dV",
                                         "DO THEY AGREE?",
                                         "largest of all:" };
    char *page = explain_json("explain");
    const char *at = page;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        at = find(at, parts[i]);
    cr_expect(strtod(at, NULL) < 1e-8, "%s", at);
    cr_expect(!strstr(page, "nan") && !strstr(page, "\033"), "not on a terminal: no colours");
    int width = 0;
    for (const char *c = page; *c; c++) {
        width = *c == '\n' ? 0 : width + 1;
        cr_expect(width <= 100, "a line is too long: %.100s", c - 100);
    }
    free(page);
}

static void expect_refused(const char *words, const char *part)
{
    ag_test_run run = ag_test_program(words, NULL);
    const char *end = strchr(run.errors, '\n');
    cr_expect(run.status == 2, "'%s' ended with %d", words, run.status);
    cr_expect(end && !end[1], "'%s' said: %s", words, run.errors);
    cr_expect(strstr(run.errors, part), "'%s' said: %s", words, run.errors);
    cr_expect(!*run.output, "'%s' printed: %s", words, run.output);
    ag_test_run_free(&run);
}

Test(explain, bad_options)
{
    expect_refused("explain --sed 1", "unknown option '--sed'; the options are: --seed, --json");
    expect_refused("explain --seed", "--seed needs a value");
    expect_refused("explain --seed one", "whole number, not 'one'");
    expect_refused("explain --seed -1", "0 to 18446744073709551615");
    expect_refused("explain --json=1", "takes no value");
    expect_refused("explain softmax", "usage: attograd explain [--seed S] [--json]");
    ag_test_run run = ag_test_program("explain", "> /dev/full");
    cr_expect(run.status == 1 && strstr(run.errors, "cannot write to standard output"));
    ag_test_run_free(&run);
}
