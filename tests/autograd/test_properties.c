/* What must hold for any numbers and any shapes, tried on many random ones: rank
 * 0 to 5, sizes 0 to 5. Where a rule is known by hand it is written as the plain
 * loop that it stands for. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIALS = 300, MAX_RANK = 5 };

static ag_context *new_context(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

static int64_t pick(ag_random *random, int64_t end)
{
    return ag_random_integer(random, end);
}

/* Empty now and then, not mostly. */
static int64_t pick_size(ag_random *random)
{
    return pick(random, 12) == 0 ? 0 : 1 + pick(random, 5);
}

static ag_shape pick_shape(ag_random *random, int min_rank)
{
    ag_shape shape = { .rank = min_rank + (int)pick(random, MAX_RANK + 1 - min_rank) };
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = pick_size(random);
    return shape;
}

/* A shape that broadcasts to the given one: leading axes dropped, sizes made 1. */
static ag_shape pick_operand(ag_random *random, ag_shape shape)
{
    int dropped = (int)pick(random, shape.rank + 1);
    ag_shape result = { .rank = shape.rank - dropped };
    for (int i = 0; i < result.rank; i++)
        result.dims[i] = pick(random, 3) == 0 ? 1 : shape.dims[i + dropped];
    return result;
}

static ag_var draw(ag_context *ctx, ag_random *random, ag_shape shape)
{
    return ag_require_gradient(ag_normal(ctx, random, shape));
}

static double at(ag_var v, int64_t k)
{
    return ag_tensor_at(ag_value(v), k);
}

static int64_t count(ag_var v)
{
    return ag_shape_count(ag_shape_of(v));
}

/* The place in an operand of shape small that element k of large is made from. */
static int64_t source_place(ag_shape large, ag_shape small, int64_t k)
{
    int64_t index[AG_MAX_RANK] = { 0 }, place = 0;
    for (int i = large.rank - 1; i >= 0; k /= large.dims[i--])
        index[i] = k % large.dims[i];
    for (int i = 0; i < small.rank; i++) {
        int64_t own = index[i + large.rank - small.rank];
        place = place * small.dims[i] + (small.dims[i] == 1 ? 0 : own);
    }
    return place;
}

static void expect_near(double a, double b, double size, const char *what)
{
    cr_assert(fabs(a - b) <= 1e-13 * (1.0 + size), "%s: %.17g and %.17g", what, a, b);
}

static void expect_same_bits(const ag_tensor *a, const ag_tensor *b, const char *what)
{
    cr_assert(a && b && ag_shape_equal(ag_tensor_shape(a), ag_tensor_shape(b)), "%s", what);
    for (int64_t k = 0; k < ag_tensor_count(a); k++) {
        double x = ag_tensor_at(a, k), y = ag_tensor_at(b, k);
        cr_assert(!memcmp(&x, &y, sizeof x), "%s: entry %lld: %g and %g", what, (long long)k, x, y);
    }
}

static void expect_ok(ag_context *ctx)
{
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
}

/* ---- Broadcasting ---- */

/* The part of da that element k of y contributes. */
typedef enum binary { ADD, MUL, WHERE, BINARIES } binary;

static ag_var apply_binary(binary kind, ag_var condition, ag_var a, ag_var b)
{
    return kind == ADD ? ag_add(a, b) : kind == MUL ? ag_mul(a, b) : ag_where(condition, a, b);
}

static double slope(binary kind, bool chosen, double other)
{
    return kind == ADD ? 1.0 : kind == MUL ? other : chosen ? 1.0 : 0.0;
}

static void check_binary(ag_context *ctx, ag_random *random, binary kind)
{
    ag_shape target = pick_shape(random, 0);
    ag_var condition =
        ag_greater(ag_normal(ctx, random, pick_operand(random, target)), ag_scalar(ctx, 0));
    ag_var x[2];
    for (int i = 0; i < 2; i++)
        x[i] = draw(ctx, random, pick_operand(random, target));
    ag_var y = apply_binary(kind, condition, x[0], x[1]);
    ag_var dy = ag_normal(ctx, random, ag_shape_of(y));
    ag_backward_from(y, dy);
    expect_ok(ctx);
    ag_shape shapes[2] = { ag_shape_of(x[0]), ag_shape_of(x[1]) }, shape = ag_shape_of(y);
    for (int i = 0; i < 2; i++) {
        const ag_tensor *gradient = ag_gradient(x[i]);
        cr_assert(gradient && ag_shape_equal(ag_tensor_shape(gradient), shapes[i]), "shape");
        double *sum = calloc((size_t)count(x[i]) + 1, sizeof *sum);
        for (int64_t k = 0; k < count(y); k++) {
            bool first = kind != WHERE ||
                         at(condition, source_place(shape, ag_shape_of(condition), k)) != 0.0;
            double other = at(x[1 - i], source_place(shape, shapes[1 - i], k));
            sum[source_place(shape, shapes[i], k)] +=
                at(dy, k) * slope(kind, first == (i == 0), other);
        }
        for (int64_t k = 0; k < count(x[i]); k++)
            expect_near(ag_tensor_at(gradient, k), sum[k], 100, "broadcast gradient");
        free(sum);
    }
}

Test(properties, gradients_of_broadcast_operands)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(1, "broadcast", 0);
    for (int trial = 0; trial < TRIALS; trial++) {
        check_binary(ctx, &random, trial % BINARIES);
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* ---- Backward: linear, without side effects, the same twice ---- */

/* A function with many kinds of rules, fused ones among them; x [a, b]. */
static ag_var mixture(ag_var x, ag_var w)
{
    ag_var h = ag_gelu(ag_matmul(x, w));
    ag_var p = ag_softmax(ag_matmul(h, ag_transpose(h, 0, 1)), -1);
    ag_var y = ag_add(ag_tanh(ag_matmul(p, h)), ag_mul(h, ag_sigmoid(ag_flip(h, 0))));
    return ag_add(ag_cumsum(y, 0), ag_mul(y, ag_logsumexp(y, 1, AG_KEEP_DIM)));
}

typedef struct subject {
    ag_var x, w, y;
} subject;

static subject new_subject(ag_context *ctx, uint64_t number)
{
    ag_random random = ag_random_stream(2, "mixture", number);
    int64_t a = 1 + pick(&random, 6), b = 1 + pick(&random, 6), c = 1 + pick(&random, 6);
    subject s = { .x = draw(ctx, &random, AG_SHAPE(a, b)) };
    s.w = draw(ctx, &random, AG_SHAPE(b, c));
    s.y = mixture(s.x, s.w);
    return s;
}

Test(properties, backward_is_linear_in_the_cotangent)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(3, "cotangents", 0);
    for (uint64_t trial = 0; trial < 100; trial++) {
        subject s = new_subject(ctx, trial);
        ag_var u = ag_normal(ctx, &random, ag_shape_of(s.y)), gu[2];
        ag_var v = ag_normal(ctx, &random, ag_shape_of(s.y)), gv[2], sum[2];
        double a = ag_random_normal(&random), b = ag_random_normal(&random);
        ag_var both = ag_add(ag_scale(u, a), ag_scale(v, b)), inputs[2] = { s.x, s.w };
        for (unsigned flags = 0; flags <= AG_CREATE_GRAPH; flags += AG_CREATE_GRAPH) {
            ag_grad_from(s.y, u, inputs, 2, gu, flags);
            ag_grad_from(s.y, v, inputs, 2, gv, flags);
            ag_grad_from(s.y, both, inputs, 2, sum, flags);
            expect_ok(ctx);
            for (int i = 0; i < 2; i++)
                for (int64_t k = 0; k < count(inputs[i]); k++)
                    expect_near(at(sum[i], k), a * at(gu[i], k) + b * at(gv[i], k), 1e3, "linear");
        }
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* A sum over the bytes of all variables whose handles are made so far. */
static uint64_t fingerprint(ag_context *ctx, uint32_t n, ag_var any)
{
    uint64_t hash = 14695981039346656037u;
    for (uint32_t i = 0; i < n; i++) {
        ag_var v = { ctx, i, any.generation };
        cr_assert(ag_is_valid(v));
        const ag_tensor *x = ag_value(v);
        for (int64_t k = 0; k < ag_tensor_count(x); k++) {
            double number = ag_tensor_at(x, k);
            uint64_t bits;
            memcpy(&bits, &number, sizeof bits);
            hash = (hash ^ bits) * 1099511628211u;
        }
    }
    return hash;
}

Test(properties, backward_leaves_every_value_as_it_is)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(4, "cotangent", 0);
    for (uint64_t trial = 0; trial < 100; trial++) {
        subject s = new_subject(ctx, trial);
        ag_retain_gradient(s.y);
        ag_var dy = ag_normal(ctx, &random, ag_shape_of(s.y)), g;
        if (trial % 2)
            dy = ag_flip(dy, 0);
        uint32_t n = (uint32_t)ag_tape_length(ctx);
        uint64_t before = fingerprint(ctx, n, s.x);
        cr_assert(ag_grad_from(s.y, dy, &s.w, 1, &g, 0));
        cr_assert_eq(fingerprint(ctx, n, s.x), before, "ag_grad wrote to a value");
        cr_assert(ag_grad_from(s.y, dy, &s.w, 1, &g, AG_CREATE_GRAPH));
        cr_assert_eq(fingerprint(ctx, n, s.x), before, "recording wrote to a value");
        cr_assert(ag_backward_from(s.y, dy));
        cr_assert_eq(fingerprint(ctx, n, s.x), before, "ag_backward wrote to a value");
        expect_same_bits(ag_gradient(s.y), ag_value(dy), "the cotangent is the root's gradient");
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

Test(properties, backward_gives_the_same_bits_again)
{
    ag_context *ctx = new_context(), *fresh = NULL;
    for (uint64_t trial = 0; trial < 100; trial++) {
        if (trial % 10 == 0) {
            ag_context_free(fresh);
            fresh = new_context();
        }
        subject s = new_subject(ctx, trial), again = new_subject(fresh, trial);
        ag_backward(ag_sum(s.y, AG_ALL, 0));
        ag_backward(ag_sum(again.y, AG_ALL, 0));
        expect_same_bits(ag_gradient(s.x), ag_gradient(again.x), "x");
        expect_same_bits(ag_gradient(s.w), ag_gradient(again.w), "w");
        ag_tape_reset(ctx);
        ag_tape_reset(fresh);
    }
    ag_context_free(ctx);
    ag_context_free(fresh);
}

/* ---- Reductions over random sets of axes, against loops ---- */

typedef struct reduced {
    double sum, max, sum_exp;
    int64_t n;
} reduced;

static void check_reduction(ag_context *ctx, ag_random *random)
{
    ag_var x = draw(ctx, random, pick_shape(random, 0));
    ag_shape shape = ag_shape_of(x), kept = shape;
    int axes[MAX_RANK], n = 0;
    for (int i = 0; i < shape.rank; i++)
        if (pick(random, 2)) {
            axes[n++] = pick(random, 2) ? i : i - shape.rank;
            kept.dims[i] = 1;
        }
    reduced *r = calloc((size_t)ag_shape_count(kept) + 1, sizeof *r);
    for (int64_t k = 0; k < ag_shape_count(kept); k++)
        r[k].max = -INFINITY;
    for (int64_t k = 0; k < count(x); k++) {
        reduced *one = &r[source_place(shape, kept, k)];
        one->sum += at(x, k);
        one->max = fmax(one->max, at(x, k));
        one->sum_exp += exp(at(x, k));
        one->n++;
    }
    bool keep = pick(random, 2);
    ag_var sum = ag_sum_over(x, axes, n, keep ? AG_KEEP_DIM : 0);
    ag_var mean = ag_mean_over(x, axes, n, keep ? AG_KEEP_DIM : 0);
    ag_var lse = ag_logsumexp_over(x, axes, n, keep ? AG_KEEP_DIM : 0);
    bool has_max = count(x) > 0 || ag_shape_count(kept) == 0;
    ag_var max = has_max ? ag_max_over(x, axes, n, keep ? AG_KEEP_DIM : 0) : sum;
    expect_ok(ctx);
    cr_assert_eq(count(sum), ag_shape_count(kept));
    cr_assert_eq(ag_shape_of(sum).rank, keep ? shape.rank : shape.rank - n);
    cr_assert(!keep || ag_shape_equal(ag_shape_of(lse), kept));
    for (int64_t k = 0; k < count(sum); k++) {
        expect_near(at(sum, k), r[k].sum, 10, "sum");
        if (r[k].n > 0) {
            expect_near(at(mean, k), r[k].sum / (double)r[k].n, 10, "mean");
            expect_near(at(lse, k), log(r[k].sum_exp), 10, "logsumexp");
            cr_assert_eq(at(max, k), r[k].max, "max");
        } else {
            cr_assert(isnan(at(mean, k)) && at(lse, k) == -INFINITY, "of nothing");
        }
    }
    ag_var dy = ag_normal(ctx, random, ag_shape_of(lse)), g;
    ag_grad_from(lse, dy, &x, 1, &g, 0);
    for (int64_t k = 0; k < count(x); k++) {
        int64_t to = source_place(shape, kept, k);
        expect_near(at(g, k), at(dy, to) * exp(at(x, k)) / r[to].sum_exp, 10, "logsumexp's rule");
    }
    expect_ok(ctx);
    free(r);
}

Test(properties, reductions_against_loops)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(5, "reductions", 0);
    for (int trial = 0; trial < TRIALS; trial++) {
        check_reduction(ctx, &random);
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* All eight axes, of which none or some are reduced. */
Test(properties, logsumexp_of_the_largest_rank)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(9, "rank 8", 0);
    ag_var x = draw(ctx, &random, AG_SHAPE(2, 1, 3, 1, 1, 1, 1, 2)),
           one = ag_full(ctx, AG_SCALAR, 1), g;
    for (int n = 0; n <= AG_MAX_RANK; n++) {
        ag_var y = ag_logsumexp_over(x, (int[]){ 3, 0, 7, 1, 2, 6, 5, 4 }, n, 0);
        ag_grad_from(y, ag_broadcast_to(one, ag_shape_of(y)), &x, 1, &g, 0);
        expect_ok(ctx); /* the weights of each row sum to 1 */
        expect_near(ag_item(ag_sum(g, AG_ALL, 0)), (double)count(y), 1, "softmax");
    }
    ag_context_free(ctx);
}

/* ---- There and back ---- */

/* x cut into pieces along an axis and joined again; or into slices and stacked. */
static ag_var cut_and_join(ag_random *random, ag_var x, int axis, bool stacked)
{
    ag_var parts[8];
    int64_t size = ag_shape_of(x).dims[axis];
    int n = 0;
    for (int64_t start = 0, stop; start < size || n == 0; start = stop) {
        stop = stacked ? start + 1 : start + pick(random, size + 1 - start);
        if (n == 7)
            stop = size;
        parts[n] = ag_slice(x, axis, start, stop, 1);
        if (stacked && size > 0)
            parts[n] = ag_squeeze(parts[n], axis);
        n++;
        if (size == 0)
            break;
    }
    return stacked && size > 0 ? ag_stack(parts, n, axis) : ag_concat(parts, n, axis);
}

static ag_var permute_and_back(ag_random *random, ag_var x)
{
    int order[AG_MAX_RANK], back[AG_MAX_RANK], rank = ag_shape_of(x).rank;
    int64_t drawn[AG_MAX_RANK];
    ag_random_permutation(random, rank, drawn);
    for (int i = 0; i < rank; i++) {
        order[i] = (int)drawn[i];
        back[order[i]] = i;
    }
    return ag_permute(ag_permute(x, order, rank), back, rank);
}

/* Through a shape of random factors, from a view that may need a copy. */
static ag_var reshape_and_back(ag_random *random, ag_var x)
{
    ag_shape shape = ag_shape_of(x), middle = { .rank = 1, .dims = { count(x) } };
    for (int64_t f = 5; f > 1; f--)
        if (count(x) > 0 && middle.dims[0] % f == 0 && pick(random, 2)) {
            middle.dims[0] /= f;
            middle.dims[middle.rank++] = f;
        }
    if (count(x) > 0)
        middle.dims[pick(random, middle.rank)] = -1;
    ag_var v = permute_and_back(random, x);
    ag_var flipped = ag_flip(ag_reshape(ag_flip(v, 0), middle), 0);
    return ag_flip(ag_reshape(ag_flip(flipped, 0), shape), 0);
}

Test(properties, round_trips_keep_every_bit)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(6, "trips", 0);
    for (int trial = 0; trial < TRIALS; trial++) {
        ag_var x = draw(ctx, &random, pick_shape(&random, 1)), g;
        int axis = (int)pick(&random, ag_shape_of(x).rank), back = axis - ag_shape_of(x).rank;
        ag_var trips[] = {
            cut_and_join(&random, x, axis, false),
            cut_and_join(&random, x, axis, true),
            permute_and_back(&random, x),
            reshape_and_back(&random, x),
            ag_flip(ag_flip(x, axis), back),
            ag_squeeze(ag_unsqueeze(x, axis), axis),
            ag_sum_to(ag_broadcast_to(x, ag_shape_of(x)), ag_shape_of(x)),
        };
        for (size_t i = 0; i < sizeof trips / sizeof trips[0]; i++) {
            expect_ok(ctx);
            ag_var dy = ag_normal(ctx, &random, ag_shape_of(x));
            ag_grad_from(trips[i], dy, &x, 1, &g, 0);
            expect_ok(ctx);
            expect_same_bits(ag_value(trips[i]), ag_value(x), "value");
            expect_same_bits(ag_value(g), ag_value(dy), "gradient");
        }
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* ---- Adjoints: <A x, r> = <x, A^T r> ---- */

static double inner(ag_var a, ag_var b)
{
    double sum = 0;
    for (int64_t k = 0; k < count(a); k++)
        sum += at(a, k) * at(b, k);
    return sum;
}

Test(properties, scatter_is_the_adjoint_of_gather)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(7, "gather", 0);
    for (int trial = 0; trial < TRIALS; trial++) {
        ag_shape shape = pick_shape(&random, 1), where = pick_shape(&random, 0);
        shape.rank = shape.rank > 3 ? 3 : shape.rank;
        where.rank = where.rank > 3 ? 3 : where.rank;
        shape.dims[0] += shape.dims[0] == 0;
        ag_tensor *drawn = ag_tensor_new(ctx, AG_STEP, AG_I64, where);
        ag_random_fill_integer(ctx, &random, drawn, shape.dims[0]);
        ag_var table = draw(ctx, &random, shape), indices = ag_from_tensor(ctx, drawn), g;
        ag_var rows = ag_gather_rows(table, indices),
               r = ag_normal(ctx, &random, ag_shape_of(rows));
        ag_var back = ag_scatter_add_rows(r, indices, shape.dims[0]);
        ag_grad_from(rows, r, &table, 1, &g, 0);
        expect_ok(ctx);
        cr_assert(ag_shape_equal(ag_shape_of(back), shape));
        expect_near(inner(rows, r), inner(table, back), 1e3, "adjoint");
        expect_same_bits(ag_value(g), ag_value(back), "gather's rule");
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* gather_rows_add is gather_rows and add, bit for bit, its gradients too. */
Test(properties, gather_rows_add_is_gather_rows_and_add)
{
    static const int64_t counts[] = { 0, 1, 5 };
    for (int round = 0; round < 6; round++) {
        ag_context *ctx = ag_context_new(NULL);
        ag_random random = ag_random_stream(6, "gather", (uint64_t)round);
        int64_t n = counts[round / 2], places[10];
        for (int i = 0; i < 10; i++)
            places[i] = ag_random_integer(&random, 4);
        ag_var indices = ag_indices(ctx, AG_SHAPE(2, n), places);
        ag_var table = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 3)));
        ag_var leaf = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 2 * n)));
        ag_var z = ag_slice(ag_transpose(leaf, 0, 1), 0, 0, AG_END, 2); /* [n, 3], spread */
        if (round % 2)
            z = ag_sum(z, 0, 0); /* [3] */
        ag_var inputs[] = { table, leaf }, a[2], b[2];
        ag_var y = ag_gather_rows_add(table, indices, z),
               w = ag_add(ag_gather_rows(table, indices), z);
        ag_var c = ag_normal(ctx, &random, ag_shape_of(y));
        ag_grad_from(y, c, inputs, 2, a, 0);
        ag_grad_from(w, c, inputs, 2, b, 0);
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        const ag_tensor *pairs[][2] = { { ag_value(y), ag_value(w) },
                                        { ag_value(a[0]), ag_value(b[0]) },
                                        { ag_value(a[1]), ag_value(b[1]) } };
        for (int i = 0; i < 3; i++)
            for (int64_t k = 0; k < ag_tensor_count(pairs[i][0]); k++)
                cr_expect_eq(ag_tensor_at(pairs[i][0], k), ag_tensor_at(pairs[i][1], k));
        ag_context_free(ctx);
    }
}

/* <A B, C> = <A, C B^T> = <B, A^T C>, the leading axes broadcast. */
Test(properties, adjoints_of_matmul)
{
    ag_context *ctx = new_context();
    ag_random random = ag_random_stream(8, "matmul", 0);
    for (int trial = 0; trial < TRIALS; trial++) {
        ag_shape lead = pick_shape(&random, 0);
        lead.rank = lead.rank > 3 ? 3 : lead.rank;
        ag_shape left = pick_operand(&random, lead), right = pick_operand(&random, lead);
        int64_t m = pick_size(&random), k = pick_size(&random), n = pick_size(&random);
        left.dims[left.rank++] = m;
        left.dims[left.rank++] = right.dims[right.rank++] = k;
        right.dims[right.rank++] = n;
        ag_var a = draw(ctx, &random, left), b = draw(ctx, &random, right), g[2];
        ag_var c = ag_matmul(a, b), r = ag_normal(ctx, &random, ag_shape_of(c));
        ag_grad_from(c, r, (ag_var[]){ a, b }, 2, g, 0);
        expect_ok(ctx);
        cr_assert(ag_shape_equal(ag_shape_of(g[0]), left));
        cr_assert(ag_shape_equal(ag_shape_of(g[1]), right));
        expect_near(inner(c, r), inner(a, g[0]), 1e3, "left");
        expect_near(inner(c, r), inner(b, g[1]), 1e3, "right");
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}
