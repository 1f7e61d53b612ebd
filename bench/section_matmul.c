/* Matrix products through ag_matmul, beside OpenBLAS. */
#include "bench.h"
#include "peer.h"

#include <attograd.h>

#include <math.h>
#include <string.h>

/* ---- OpenBLAS, with each of its kernels that this processor runs ---- */

enum { CORES = 5 };

typedef struct openblas {
    int n;
    bench_peer peers[CORES];
    char kernels[CORES][24]; /* the name that it gives them */
    char about[BENCH_ANSWER + 16];
} openblas;

/* A name that it does not know, or kernels that it was built without, give others. */
static void add_openblas(openblas *all, const char *core)
{
    bench_peer *peer = &all->peers[all->n];
    char *kernels = all->kernels[all->n];
    if (!bench_peer_start(peer, bench_openblas_child, (void *)core) || !bench_peer_greet(peer)) {
        if (all->n == 0)
            snprintf(all->about, sizeof all->about, "absent: %s", peer->about);
        return;
    }
    sscanf(peer->about, "%23s", kernels);
    snprintf(all->about, sizeof all->about, "%s", peer->about + strlen(kernels) + 1);
    for (int i = 0; i < all->n; i++)
        if (!strcmp(all->kernels[i], kernels)) {
            bench_peer_stop(peer);
            return;
        }
    all->n++;
}

static void start_openblas(openblas *all)
{
    static const char *const cores[CORES] = { "SkylakeX", "SapphireRapids", "Cooperlake", "Zen",
                                              "Haswell" };
    *all = (openblas){ .n = 0 };
    for (int i = 0; i < CORES; i++)
        add_openblas(all, cores[i]);
}

static void stop_openblas(openblas *all)
{
    for (int i = 0; i < all->n; i++)
        bench_peer_stop(&all->peers[i]);
}

/* ---- One product ---- */

typedef struct product {
    ag_context *context;
    ag_dtype dtype;
    int64_t m, k, n;
    ag_var a, b;
} product;

static void multiply(void *subject)
{
    product *p = subject;
    ag_matmul(p->a, p->b);
    ag_tape_reset(p->context);
}

static ag_var new_matrix(const product *p, int64_t rows, int64_t columns)
{
    ag_var matrix = ag_parameter(p->context, "", p->dtype, AG_SHAPE(rows, columns));
    ag_random random = ag_random_stream(1, "bench.matmul", 0);
    ag_random_fill_uniform(p->context, &random, ag_value_mutable(matrix), 1, 2);
    return matrix;
}

static double work(const product *p)
{
    return 2.0 * (double)p->m * (double)p->k * (double)p->n;
}

static void begin(product *p)
{
    p->context = ag_context_new(NULL);
    p->a = new_matrix(p, p->m, p->k);
    p->b = new_matrix(p, p->k, p->n);
    ag_no_grad_begin(p->context);
}

static bool end(product *p)
{
    bool good = p->context && ag_status(p->context) == AG_OK;
    if (!good)
        fprintf(stderr, "attograd bench: matmul: %s\n",
                p->context ? ag_error_message(p->context) : "no memory");
    ag_context_free(p->context);
    return good;
}

/* ---- attograd, a square of equal work, and OpenBLAS, in turns ---- */

typedef struct comparison {
    bench_times own, square, openblas; /* square: where one was asked for */
    const char *kernels;               /* the fastest of OpenBLAS */
} comparison;

static bench_plan plan_of(const bench_run *run)
{
    return run->settings->quick ? (bench_plan){ 5, 0.005, 2 } : (bench_plan){ 11, 0.02, 10 };
}

static void pick_fastest(comparison *c, const openblas *all, const bench_entrant *entrants)
{
    c->kernels = NULL;
    c->openblas = (bench_times){ .n = 0 };
    for (int i = 0; i < all->n; i++) {
        bench_times times = entrants[i].times;
        if (times.n == 0 || (c->openblas.n && times.median >= c->openblas.median))
            continue;
        c->openblas = times;
        c->kernels = all->kernels[i];
    }
}

static bool compare(const bench_run *run, openblas *all, product *p, product *square,
                    comparison *result)
{
    bench_plan plan = plan_of(run);
    bench_loop loops[2] = { { multiply, p, 0 }, { multiply, square, 0 } };
    bench_entrant entrants[2 + CORES];
    bench_peer_turn turns[CORES];
    for (int i = 0; i < 2; i++)
        entrants[i] = (bench_entrant){ .sample = bench_sample_loop, .subject = &loops[i] };
    int own = square ? 2 : 1;
    for (int i = 0; i < all->n; i++) {
        turns[i].peer = &all->peers[i];
        snprintf(turns[i].request, sizeof turns[i].request, "%s %d %d %d", ag_dtype_name(p->dtype),
                 (int)p->m, (int)p->k, (int)p->n);
        entrants[own + i] = (bench_entrant){ .sample = bench_peer_sample, .subject = &turns[i] };
    }
    begin(p);
    if (square)
        begin(square);
    bench_take_turns(entrants, own + all->n, &plan);
    result->own = entrants[0].times;
    result->square = square ? entrants[1].times : (bench_times){ .n = 0 };
    pick_fastest(result, all, &entrants[own]);
    bool good = end(p);
    return (!square || end(square)) && good;
}

static double peak_of(const bench_run *run, ag_dtype dtype)
{
    return dtype == AG_F64 ? run->peak.f64 : run->peak.f32;
}

/* OpenBLAS's rate, its kernels, and attograd's rate over its. */
static void put_openblas(bench_output *out, const comparison *c, double operations)
{
    bench_put_rate(out, c->openblas, operations / 1e9);
    bench_put_number(out, c->openblas.n ? c->openblas.median / c->own.median : NAN);
    if (c->kernels)
        bench_put_text(out, c->kernels);
    else
        bench_put_absent(out);
}

/* ---- Squares ---- */

static bool put_square(bench_run *run, openblas *all, ag_dtype dtype, int64_t n)
{
    product p = { .dtype = dtype, .m = n, .k = n, .n = n };
    comparison c;
    if (!compare(run, all, &p, NULL, &c))
        return false;
    double rate = work(&p) / c.own.median;
    bench_put_text(&run->out, ag_dtype_name(dtype));
    bench_put_integer(&run->out, n);
    bench_put_rate(&run->out, c.own, work(&p) / 1e9);
    bench_put_number(&run->out, 100 * rate / peak_of(run, dtype));
    put_openblas(&run->out, &c, work(&p));
    return true;
}

static bool measure_squares(bench_run *run, openblas *all)
{
    static const bench_column columns[] = {
        { "dtype", "dtype", 5, true },
        { "n", "n", 5, false },
        { "GFLOP/s", "gflops", 14, false },
        { "% peak", "peak_percent", 6, false },
        { "OpenBLAS", "openblas_gflops", 14, false },
        { "ratio", "times_openblas", 6, false },
        { "its kernels", "openblas_kernels", 0, true },
    };
    bench_table_begin(&run->out, "matmul",
                      "[n,n] x [n,n], one thread; ratio: attograd's rate over OpenBLAS's", columns,
                      7);
    bool good = true;
    for (int64_t n = 8; good && n <= 1024; n *= run->settings->quick ? 4 : 2)
        good = put_square(run, all, AG_F32, n);
    for (int64_t n = run->settings->quick ? 256 : 16; good && n <= 1024; n *= 4)
        good = put_square(run, all, AG_F64, n);
    bench_table_end(&run->out);
    return good;
}

/* ---- Other shapes ---- */

static bool put_shape(bench_run *run, openblas *all, int64_t m, int64_t k, int64_t n)
{
    product p = { .dtype = AG_F32, .m = m, .k = k, .n = n }, square = { .dtype = AG_F32 };
    square.m = square.k = square.n = (int64_t)lround(cbrt((double)(m * k * n)));
    comparison c;
    if (!compare(run, all, &p, &square, &c))
        return false;
    char text[64];
    snprintf(text, sizeof text, "%d x %d x %d", (int)m, (int)k, (int)n);
    bench_put_text(&run->out, text);
    bench_put_integer(&run->out, m);
    bench_put_integer(&run->out, k);
    bench_put_integer(&run->out, n);
    bench_put_rate(&run->out, c.own, work(&p) / 1e9);
    bench_put_integer(&run->out, square.n);
    bench_put_number(&run->out, work(&p) / c.own.median / (work(&square) / c.square.median));
    put_openblas(&run->out, &c, work(&p));
    return true;
}

static bool measure_shapes(bench_run *run, openblas *all)
{
    static const bench_column columns[] = {
        { "m x k x n", "shape", 15, true },
        { NULL, "m", 0, false },
        { NULL, "k", 0, false },
        { NULL, "n", 0, false },
        { "GFLOP/s", "gflops", 14, false },
        { "square", "square_n", 6, false },
        { "ratio", "times_square", 6, false },
        { "OpenBLAS", "openblas_gflops", 14, false },
        { "ratio", "times_openblas", 6, false },
        { "its kernels", "openblas_kernels", 0, true },
    };
    static const int odd[] = { 1, 3, 17, 65 };
    bench_table_begin(&run->out, "shapes",
                      "[m,k] x [k,n], f32; ratios of the rate to that of the square of equal work, "
                      "and to OpenBLAS's",
                      columns, 10);
    bool good = true;
    for (int i = run->settings->quick ? 2 : 0; good && i < 4; i++)
        good = put_shape(run, all, odd[i], 512, 512) && put_shape(run, all, 512, 512, odd[i]);
    if (!run->settings->quick)
        good = good && put_shape(run, all, 512, 17, 512) && put_shape(run, all, 65, 65, 65);
    bench_table_end(&run->out);
    return good;
}

bool bench_section_matmul(bench_run *run)
{
    openblas all;
    start_openblas(&all);
    bench_note(&run->out, "openblas", all.about);
    bool good = measure_squares(run, &all) && measure_shapes(run, &all);
    stop_openblas(&all);
    return good;
}
