/* OpenBLAS as a peer. It reads the environment when it is loaded, which is why each
 * core type is a process of its own. */
#include "peer.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111 }; /* cblas.h */

typedef void sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                   const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef void dgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                   const double *a, int lda, const double *b, int ldb, double beta, double *c,
                   int ldc);

typedef struct product {
    sgemm *f32;
    dgemm *f64;
    bool is_f64;
    int m, k, n;
    void *a, *b, *c;
} product;

static void multiply(void *subject)
{
    const product *p = subject;
    if (p->is_f64)
        p->f64(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, p->m, p->n, p->k, 1, p->a, p->k, p->b, p->n,
               0, p->c, p->n);
    else
        p->f32(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, p->m, p->n, p->k, 1, p->a, p->k, p->b, p->n,
               0, p->c, p->n);
}

/* n numbers of the product's type, near 1. */
static void *new_matrix(const product *p, int n)
{
    void *matrix = malloc((size_t)n * (p->is_f64 ? sizeof(double) : sizeof(float)));
    for (int i = 0; matrix && i < n; i++) {
        double x = 1 + (i % 7) / 8.0;
        if (p->is_f64)
            ((double *)matrix)[i] = x;
        else
            ((float *)matrix)[i] = (float)x;
    }
    return matrix;
}

static bool new_matrices(product *p, const char *dtype, int m, int k, int n)
{
    free(p->a);
    free(p->b);
    free(p->c);
    p->is_f64 = !strcmp(dtype, "f64");
    p->m = m;
    p->k = k;
    p->n = n;
    p->a = new_matrix(p, m * k);
    p->b = new_matrix(p, k * n);
    p->c = new_matrix(p, m * n);
    return p->a && p->b && p->c;
}

static void answer_requests(product *p)
{
    bench_loop loop = { .run = multiply, .subject = p };
    char line[BENCH_ANSWER], last[BENCH_ANSWER] = "", dtype[4];
    int m, k, n;
    double seconds;
    while (fgets(line, sizeof line, stdin)) {
        bool good = sscanf(line, "%3s %d %d %d %lf", dtype, &m, &k, &n, &seconds) == 5;
        if (good && strcmp(line, last) != 0) { /* another product: calls are counted anew */
            good = new_matrices(p, dtype, m, k, n);
            loop.calls = 0;
            strcpy(last, line);
        }
        if (good)
            printf("ok %.9g\n", bench_sample_loop(&loop, seconds));
        else
            printf("no memory, or no such request\n");
        fflush(stdout);
    }
}

/* A function of a library. Standard C has no cast from an object's pointer. */
static void find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
}

void bench_openblas_child(void *core)
{
    product p = { .f32 = NULL };
    char *(*core_name)(void) = NULL, *(*configuration)(void) = NULL;
    setenv("OPENBLAS_CORETYPE", core, 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW);
    if (library) {
        find(library, "cblas_sgemm", &p.f32);
        find(library, "cblas_dgemm", &p.f64);
        find(library, "openblas_get_corename", &core_name);
        find(library, "openblas_get_config", &configuration);
    }
    if (!p.f32 || !p.f64 || !core_name || !configuration) {
        printf("no libopenblas.so.0 is not there\n");
        return;
    }
    printf("ok %s %.150s\n", core_name(), configuration());
    fflush(stdout);
    answer_requests(&p);
}
