/* The attention operation: its kernel and fused rule against the composed form, for many
 * sizes, masks, views and threads, and what it refuses. */
#include "../../autograd/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One call: q [n, s, h d], k [n, t, h d], v [n, t, h d_v]. */
typedef struct attend_case {
    int64_t n, s, t, heads, d, d_v;
    bool causal;
    bool lengths;   /* of all kinds, 0 and t among them */
    double enlarge; /* of q; 0 stands for 1 */
} attend_case;

/* The definition, from other operations. */
static ag_var composed(ag_var q, ag_var k, ag_var v, const ag_attend_options *o)
{
    ag_shape shape = ag_shape_of(q);
    double d = (double)(shape.dims[shape.rank - 1] / o->heads);
    ag_key_mask mask = { .causal = o->causal, .lengths = o->lengths };
    q = ag_split_heads(q, o->heads);
    k = ag_split_heads(k, o->heads);
    v = ag_split_heads(v, o->heads);
    ag_var scores = ag_scale(ag_matmul(q, ag_transpose(k, -2, -1)), d > 0 ? 1 / sqrt(d) : 1);
    ag_var p = ag_softmax(ag_mask_keys(scores, &mask, o->heads, -INFINITY), -1);
    return ag_join_heads(ag_matmul(p, v), o->heads);
}

static ag_var lengths_of(ag_context *ctx, int64_t n, int64_t t)
{
    int64_t lengths[64];
    for (int64_t i = 0; i < n; i++)
        lengths[i] = i % 4 == 0 ? t : i % 4 == 1 ? 0 : i % 4 == 2 ? t / 2 : (t > 0 ? 1 : 0);
    return ag_indices(ctx, AG_SHAPE(n), lengths);
}

static ag_var numbers(ag_context *ctx, ag_random *random, ag_shape shape, double enlarge)
{
    ag_var x = ag_normal(ctx, random, shape);
    ag_tensor *value = ag_value_mutable(x);
    for (int64_t i = 0; enlarge != 0 && i < ag_tensor_count(value); i++)
        ag_tensor_put(value, i, enlarge * ag_tensor_at(value, i));
    return ag_require_gradient(x);
}

typedef struct attend_operands {
    ag_var x[3], dy;
    ag_attend_options options;
} attend_operands;

static attend_operands operands_of(ag_context *ctx, const attend_case *c)
{
    ag_random random = ag_random_stream(1, "attend", (uint64_t)(c->s * 1000 + c->t));
    attend_operands o = { .options = { .heads = c->heads, .causal = c->causal } };
    o.x[0] = numbers(ctx, &random, AG_SHAPE(c->n, c->s, c->heads * c->d), c->enlarge);
    o.x[1] = numbers(ctx, &random, AG_SHAPE(c->n, c->t, c->heads * c->d), 0);
    o.x[2] = numbers(ctx, &random, AG_SHAPE(c->n, c->t, c->heads * c->d_v), 0);
    o.dy = ag_normal(ctx, &random, AG_SHAPE(c->n, c->s, c->heads * c->d_v));
    if (c->lengths)
        o.options.lengths = lengths_of(ctx, c->n, c->t);
    return o;
}

static double largest(const ag_tensor *x)
{
    double largest = 0;
    for (int64_t i = 0; i < ag_tensor_count(x); i++)
        largest = fmax(largest, fabs(ag_tensor_at(x, i)));
    return largest;
}

static void compare(const ag_tensor *got, const ag_tensor *want, double allowed, const char *what,
                    const attend_case *c)
{
    cr_assert(got && want, "%s is missing", what);
    cr_assert(ag_tensor_same_shape(got, want), "%s", what);
    double size = largest(want) + 1 + c->enlarge; /* some are 0 but for rounding */
    for (int64_t i = 0; i < ag_tensor_count(want); i++) {
        double a = ag_tensor_at(got, i), b = ag_tensor_at(want, i);
        cr_assert(fabs(a - b) <= allowed * size,
                  "%s at %lld is %.17g, not %.17g: n %lld, %lld queries, %lld keys, %lld heads of "
                  "%lld and %lld%s%s",
                  what, (long long)i, a, b, (long long)c->n, (long long)c->s, (long long)c->t,
                  (long long)c->heads, (long long)c->d, (long long)c->d_v,
                  c->causal ? ", causal" : "", c->lengths ? ", lengths" : "");
    }
}

/* y, dq, dk and dv by the kernels, by the rule of operations, and of the composed form. */
static void check(ag_dtype dtype, const attend_case *c)
{
    static const char *const names[] = { "dq", "dk", "dv" };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    attend_operands o = operands_of(ctx, c);
    ag_var fused[3], rule[3], whole[3];
    ag_var y = ag_attend(o.x[0], o.x[1], o.x[2], &o.options);
    ag_var want = composed(o.x[0], o.x[1], o.x[2], &o.options);
    ag_grad_from(y, o.dy, o.x, 3, fused, 0);
    ag_grad_from(y, o.dy, o.x, 3, rule, AG_CREATE_GRAPH);
    ag_grad_from(want, o.dy, o.x, 3, whole, 0);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    double allowed = dtype == AG_F64 ? 1e-12 : 2e-6 * sqrt((double)(c->t + c->s) / 8 + 2);
    compare(ag_value(y), ag_value(want), allowed, "y", c);
    for (int i = 0; i < 3; i++) {
        compare(ag_value(fused[i]), ag_value(whole[i]), allowed, names[i], c);
        compare(ag_value(rule[i]), ag_value(whole[i]), allowed, names[i], c);
    }
    ag_context_free(ctx);
}

static void check_masks(const attend_case *sizes)
{
    for (int mask = 0; mask < 4; mask++) {
        attend_case c = *sizes;
        c.causal = mask & 1;
        c.lengths = mask & 2;
        check(AG_F64, &c);
        check(AG_F32, &c);
    }
}

/* ---- Sizes ---- */

Test(attend, small_sizes)
{
    static const int64_t sizes[] = { 0, 1, 2, 3, 5, 8, 13, 17 };
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            check_masks(&(attend_case){ 4, sizes[i], sizes[j], 1, 3, 5, .causal = false });
            check_masks(&(attend_case){ 1, sizes[i], sizes[j], 2, 8, 4, .causal = false });
        }
}

Test(attend, sizes_of_heads)
{
    static const int64_t sizes[] = { 0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65 };
    for (int i = 0; i < 14; i++) {
        check_masks(&(attend_case){ 4, 9, 9, 1, sizes[i], sizes[13 - i], .causal = false });
        check_masks(&(attend_case){ 2, 20, 7, 3, sizes[i], sizes[(i + 5) % 14], .causal = false });
    }
}

Test(attend, edges_of_tiles)
{
    static const int64_t sizes[] = { 11, 12, 24, 25, 31, 32,  33,  63,
                                     64, 65, 95, 96, 97, 127, 128, 129 };
    for (int i = 0; i < 16; i++) {
        check_masks(&(attend_case){ 1, sizes[i], sizes[i], 1, 16, 16, .causal = false });
        check_masks(&(attend_case){ 4, sizes[i], sizes[15 - i], 1, 4, 20, .causal = false });
    }
}

Test(attend, several_blocks)
{
    static const int64_t sizes[] = { 191, 192, 193, 255, 256, 257, 300, 385 };
    for (int i = 0; i < 8; i++) {
        check_masks(&(attend_case){ 1, sizes[i], sizes[i], 1, 8, 8, .causal = false });
        check_masks(&(attend_case){ 2, sizes[i], sizes[7 - i], 1, 5, 3, .causal = false });
    }
}

/* Few heads of many keys are cut, and the gradients of the queries added up. */
Test(attend, stretches_of_keys)
{
    static const int64_t sizes[] = { 1023, 1024, 1025, 1537, 2100 };
    for (int i = 0; i < 5; i++) {
        check_masks(&(attend_case){ 1, 40, sizes[i], 1, 4, 4, .causal = false });
        check_masks(&(attend_case){ 1, sizes[i], 1100, 1, 2, 3, .causal = false });
    }
    check_masks(&(attend_case){ 4, 30, 1200, 1, 4, 4, .causal = false });
}

Test(attend, random_sizes)
{
    ag_random random = ag_random_stream(2, "sizes", 0);
    for (int i = 0; i < 150; i++) {
        attend_case c = { .n = 1 + (int64_t)(ag_random_uniform(&random) * 4) };
        c.s = (int64_t)(ag_random_uniform(&random) * 150);
        c.t = (int64_t)(ag_random_uniform(&random) * 150);
        c.heads = 1 + (int64_t)(ag_random_uniform(&random) * 3);
        c.d = 1 + (int64_t)(ag_random_uniform(&random) * 40);
        c.d_v = 1 + (int64_t)(ag_random_uniform(&random) * 40);
        check_masks(&c);
    }
}

/* ---- Large scores ---- */

Test(attend, large_scores)
{
    for (double enlarge = 10; enlarge <= 1e6; enlarge *= 10) {
        check(AG_F64,
              &(attend_case){ 1, 140, 140, 1, 16, 16, .causal = false, .enlarge = enlarge });
        check(AG_F64, &(attend_case){ 1, 140, 300, 1, 16, 16, .causal = true, .enlarge = enlarge });
    }
}

/* Scores of +-80,000 in f32, exactly so: all weight on the first, or on the last, key, or
 * half on each of two. */
Test(attend, scores_of_80000)
{
    enum { T = 300 };
    ag_context *ctx = ag_context_new(NULL);
    for (int kind = 0; kind < 3; kind++) {
        double keys[T], values[T];
        for (int j = 0; j < T; j++) {
            keys[j] = -400;
            values[j] = j;
        }
        keys[kind == 0 ? 0 : T - 1] = 400;
        keys[kind == 2 ? 7 : T - 1] = kind == 0 ? -400 : 400;
        ag_var q = ag_require_gradient(ag_full(ctx, AG_SHAPE(5, 1), 200));
        ag_var k = ag_require_gradient(ag_constant(ctx, AG_SHAPE(T, 1), keys));
        ag_var v = ag_require_gradient(ag_constant(ctx, AG_SHAPE(T, 1), values));
        ag_var y = ag_attend(q, k, v, NULL);
        double want = kind == 0 ? 0 : kind == 1 ? T - 1 : (T - 1 + 7) / 2.0;
        for (int i = 0; i < 5; i++)
            cr_expect_eq(ag_tensor_at(ag_value(y), i), want, "%d: %g", kind,
                         ag_tensor_at(ag_value(y), i));
        cr_expect(ag_backward_from(y, y), "%s", ag_error_message(ctx));
        cr_expect(ag_tensor_all_finite(ag_gradient(q)) && ag_tensor_all_finite(ag_gradient(k)));
        cr_expect_eq(ag_tensor_at(ag_gradient(v), T - 1),
                     kind == 0 ? 0 : (kind == 1 ? 5 : 2.5) * want);
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* ---- The exponentials of scores ---- */

enum { EXPONENTIALS = 4096 };

/* exp x_j by the kernels' own exp of numbers below 0: one query 1 with the keys x, whose
 * largest score is 0 and sum of exponentials 1, has dv_j = P_j dy = exp(x_j - 0) / 1. */
static const ag_tensor *exponentials(ag_context *ctx, const double *x)
{
    const ag_shape column = AG_SHAPE(EXPONENTIALS, 1);
    ag_var k = ag_constant(ctx, column, x), dv = ag_zeros(ctx, column);
    ag_var one = ag_full(ctx, AG_SHAPE(1, 1), 1);
    ag_var statistics = ag_constant(ctx, AG_SHAPE(2), (double[]){ 0, 1 });
    const ag_attention_call call = {
        .heads = 1, .scale = 1, .q = ag_value(one), .k = ag_value(k), .v = ag_value(k)
    };
    const ag_attention_gradients gradients = { .v = ag_value_mutable(dv) };
    cr_assert(ag_compute_attention_backward(ctx, &call, ag_value(one), ag_value(statistics),
                                            ag_value(one), &gradients),
              "%s", ag_error_message(ctx));
    return ag_value(dv);
}

/* Within 2 ulp, but 0 where the result is hardly a normal number. */
static void check_exponentials(ag_context *ctx, const double *x)
{
    const bool f32 = ag_context_dtype(ctx) == AG_F32;
    const double ulp = f32 ? 0x1p-23 : 0x1p-52, least = (f32 ? -125 : -1021) * log(2);
    const ag_tensor *y = exponentials(ctx, x);
    for (int i = 0; i < EXPONENTIALS; i++) {
        int exponent;
        const double want = x[i] < least ? 0 : exp(x[i]), got = ag_tensor_at(y, i);
        frexp(want, &exponent); /* 2^(exponent - 1) <= want */
        cr_assert(fabs(got - want) <= 2 * ldexp(ulp, exponent - 1),
                  "exp(%.17g) is %.17g, not %.17g", x[i], got, want);
    }
    ag_tape_reset(ctx);
}

/* Every 677th float from -0 to -200. */
Test(attend, exponentials_in_f32)
{
    ag_context *ctx = ag_context_new(NULL);
    double x[EXPONENTIALS];
    float from = -0.0f, to = -200;
    uint32_t bits, last;
    memcpy(&bits, &from, sizeof bits);
    memcpy(&last, &to, sizeof last);
    while (bits < last) {
        for (int i = 0; i < EXPONENTIALS; i++, bits += 677) {
            float number;
            memcpy(&number, &bits, sizeof number);
            x[i] = (double)fmaxf(number, to);
        }
        check_exponentials(ctx, x);
    }
    cr_expect_eq(ag_context_finish(ctx), 0);
}

Test(attend, exponentials_in_f64)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(6, "exponentials", 0);
    double x[EXPONENTIALS];
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < EXPONENTIALS; j++)
            x[j] = -750 * pow(ag_random_uniform(&random), 1 + 4 * (i % 5));
        check_exponentials(ctx, x);
    }
    cr_expect_eq(ag_context_finish(ctx), 0);
}

Test(attend, exponentials_of_infinity_and_nan)
{
    for (int dtype = AG_F32; dtype <= AG_F64; dtype++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = (ag_dtype)dtype });
        double x[EXPONENTIALS];
        for (int i = 0; i < EXPONENTIALS; i++)
            x[i] = i % 3 == 0 ? -INFINITY : i % 3 == 1 ? -1e30 : NAN;
        const ag_tensor *y = exponentials(ctx, x);
        for (int i = 0; i < EXPONENTIALS; i++)
            cr_expect(i % 3 == 2 ? isnan(ag_tensor_at(y, i)) : ag_tensor_at(y, i) == 0, "%d", i);
        ag_context_free(ctx);
    }
}

/* ---- Rows in which everything is masked ---- */

Test(attend, nothing_to_see)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(3, "nothing", 0);
    ag_var q = numbers(ctx, &random, AG_SHAPE(2, 9, 4), 0);
    ag_var k = numbers(ctx, &random, AG_SHAPE(2, 5, 4), 0);
    ag_var v = numbers(ctx, &random, AG_SHAPE(2, 5, 4), 0);
    ag_var lengths = ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 5, 0 });
    /* causal: the first 4 queries come before all keys; the second sequence is empty */
    ag_var y = ag_attend(q, k, v, &(ag_attend_options){ .causal = true, .lengths = lengths });
    cr_assert(ag_backward_from(y, ag_full(ctx, AG_SHAPE(2, 9, 4), 1)), "%s", ag_error_message(ctx));
    for (int64_t i = 0; i < 72; i++) {
        bool sees = i >= 16 && i < 36;
        cr_expect_eq(ag_tensor_at(ag_value(y), i) != 0, sees, "y %d", (int)i);
        cr_expect(sees || ag_tensor_at(ag_gradient(q), i) == 0, "dq %d", (int)i);
    }
    for (int64_t i = 20; i < 40; i++) {
        cr_expect_eq(ag_tensor_at(ag_gradient(k), i), 0);
        cr_expect_eq(ag_tensor_at(ag_gradient(v), i), 0);
    }
    ag_context_free(ctx);
}

/* Padding may hold anything. */
Test(attend, padding_is_not_read)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(4, "padding", 0);
    ag_var x = numbers(ctx, &random, AG_SHAPE(1, 40, 8), 0);
    for (int64_t i = 33 * 8; i < 40 * 8; i++)
        ag_tensor_put(ag_value_mutable(x), i, i % 2 ? NAN : INFINITY);
    ag_var q = ag_slice(x, 1, 0, 33, 1), lengths = ag_indices(ctx, AG_SHAPE(1), (int64_t[]){ 33 });
    ag_var y = ag_attend(q, x, x, &(ag_attend_options){ .heads = 2, .lengths = lengths });
    cr_expect(ag_tensor_all_finite(ag_value(y)));
    cr_expect(ag_backward_from(y, y), "%s", ag_error_message(ctx));
    cr_expect(ag_tensor_all_finite(ag_gradient(x)));
    ag_context_free(ctx);
}

/* NaN and infinity among what is seen are not hidden. */
Test(attend, not_a_number)
{
    for (int kind = 0; kind < 4; kind++) {
        ag_context *ctx = ag_context_new(NULL);
        ag_random random = ag_random_stream(5, "nan", 0);
        ag_var x[3];
        for (int i = 0; i < 3; i++)
            x[i] = numbers(ctx, &random, AG_SHAPE(20, 8), 0);
        ag_tensor_put(ag_value_mutable(x[kind % 3]), 19 * 8, kind == 3 ? INFINITY : NAN);
        const ag_tensor *y = ag_value(ag_attend(x[0], x[1], x[2], NULL));
        for (int64_t i = 0; i < 20; i++)
            cr_expect_eq(isnan(ag_tensor_at(y, i * 8)), kind % 3 != 0 || i == 19, "%d %d", kind,
                         (int)i);
        ag_context_free(ctx);
    }
}

/* ---- Views ---- */

/* Operands of every stride give, bit for bit, what their contiguous copies give. */
static void check_views(bool copies, double *results)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(6, "views", 0);
    ag_var together = numbers(ctx, &random, AG_SHAPE(2, 3, 50, 48), 0); /* q, k and v in one */
    ag_var turned = numbers(ctx, &random, AG_SHAPE(16, 50, 3, 2), 0);
    ag_var dy = ag_normal(ctx, &random, AG_SHAPE(2, 1, 50, 1));
    ag_var q = ag_slice(together, 3, 0, 16, 1), k = ag_slice(together, 3, 16, 32, 1);
    ag_var v = ag_flip(ag_permute(turned, (int[]){ 3, 2, 1, 0 }, 4), 2);
    q = ag_flip(q, 3);
    dy = ag_broadcast_to(dy, AG_SHAPE(2, 3, 50, 16));
    if (copies)
        q = ag_contiguous(q), k = ag_contiguous(k), v = ag_contiguous(v), dy = ag_contiguous(dy);
    ag_var lengths = ag_flip(ag_indices(ctx, AG_SHAPE(2, 3), (int64_t[]){ 9, 0, 3, 50, 49, 2 }), 1);
    ag_var y =
        ag_attend(q, k, v, &(ag_attend_options){ .heads = 2, .causal = true, .lengths = lengths });
    cr_assert(ag_backward_from(y, dy), "%s", ag_error_message(ctx));
    ag_read(y, results);
    for (int64_t i = 0; i < 2 * 3 * 50 * 48; i++)
        results[4800 + i] = ag_tensor_at(ag_gradient(together), i);
    for (int64_t i = 0; i < 4800; i++)
        results[4800 + 14400 + i] = ag_tensor_at(ag_gradient(turned), i);
    ag_context_free(ctx);
}

Test(attend, views)
{
    static double results[2][4800 + 14400 + 4800];
    check_views(false, results[0]);
    check_views(true, results[1]);
    cr_expect(!memcmp(results[0], results[1], sizeof results[0]));
}

/* One tensor as queries, keys and values. */
Test(attend, one_tensor_thrice)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(7, "thrice", 0);
    ag_var x = numbers(ctx, &random, AG_SHAPE(2, 37, 12), 0), g[2];
    ag_attend_options options = { .heads = 3, .causal = true };
    ag_var dy = ag_normal(ctx, &random, AG_SHAPE(2, 37, 12));
    ag_grad_from(ag_attend(x, x, x, &options), dy, &x, 1, &g[0], 0);
    ag_grad_from(composed(x, x, x, &options), dy, &x, 1, &g[1], 0);
    compare(ag_value(g[0]), ag_value(g[1]), 1e-12, "dx",
            &(attend_case){ 2, 37, 37, 3, 4, 4, .causal = false });
    ag_context_free(ctx);
}

/* ---- Threads, and gradients alone ---- */

enum { MOST_BYTES = 1 << 21 };

/* y and the gradients that are asked for, one behind the other; where they end. */
static size_t run(const attend_case *c, ag_dtype dtype, int threads, int asked, char *bytes)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype, .threads = threads });
    attend_operands o = operands_of(ctx, c);
    for (int i = 0; i < 3; i++)
        if (!(asked >> i & 1))
            o.x[i] = ag_detach(o.x[i]);
    ag_var y = ag_attend(o.x[0], o.x[1], o.x[2], &o.options);
    cr_assert(ag_backward_from(y, o.dy), "%s", ag_error_message(ctx));
    size_t at = 0;
    for (int i = -1; i < 3; i++) {
        const ag_tensor *x = i < 0 ? ag_value(y) : asked >> i & 1 ? ag_gradient(o.x[i]) : NULL;
        cr_assert(!x || at + ag_tensor_bytes(x) <= MOST_BYTES);
        if (x)
            memcpy(bytes + at, x->data, ag_tensor_bytes(x));
        at += x ? ag_tensor_bytes(x) : 0;
    }
    ag_context_free(ctx);
    return at;
}

static const attend_case cases_for_threads[] = {
    { 1, 1100, 1100, 1, 16, 16, .causal = true },
    { 2, 1025, 1100, 1, 8, 8, .causal = false },
    { 3, 130, 1024, 1, 8, 16, .causal = false },
    { 4, 200, 200, 3, 16, 16, .causal = true, .lengths = true },
    { 2, 100, 64, 5, 17, 9, .lengths = true },
};

Test(attend, any_number_of_threads)
{
    static char want[MOST_BYTES], got[MOST_BYTES];
    for (int i = 0; i < 5; i++)
        for (int dtype = AG_F32; dtype <= AG_F64; dtype++) {
            size_t bytes = run(&cases_for_threads[i], (ag_dtype)dtype, 1, 7, want);
            for (int threads = 1; threads < 6; threads++) {
                cr_expect_eq(run(&cases_for_threads[i], (ag_dtype)dtype, threads, 7, got), bytes);
                cr_expect(!memcmp(want, got, bytes), "%d, %d threads", i, threads);
            }
        }
}

Test(attend, only_what_is_asked_for)
{
    static char want[MOST_BYTES], got[MOST_BYTES];
    for (int i = 0; i < 5; i++) {
        const attend_case *c = &cases_for_threads[i];
        const size_t size = sizeof(float) * (size_t)(c->n * c->heads);
        const size_t parts[] = { size * (size_t)(c->s * c->d_v), size * (size_t)(c->s * c->d),
                                 size * (size_t)(c->t * c->d), size * (size_t)(c->t * c->d_v) };
        run(c, AG_F32, 2, 7, want);
        for (int asked = 1; asked < 7; asked++) {
            run(c, AG_F32, 2, asked, got);
            size_t in_want = 0, in_got = 0;
            for (int k = 0; k < 4; k++) {
                bool there = k == 0 || asked >> (k - 1) & 1;
                cr_expect(!there || !memcmp(want + in_want, got + in_got, parts[k]),
                          "case %d, asked %d, part %d", i, asked, k);
                in_want += parts[k];
                in_got += there ? parts[k] : 0;
            }
        }
    }
}

/* ---- Memory ---- */

/* No matrix of all pairs is ever held. */
Test(attend, memory_grows_with_the_length)
{
    size_t peaks[2];
    for (int k = 0; k < 2; k++) {
        const int64_t t = k ? 4096 : 2048;
        ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = 1 });
        attend_operands o = operands_of(ctx, &(attend_case){ 1, t, t, 1, 8, 8, .causal = true });
        ag_var y = ag_attend(o.x[0], o.x[1], o.x[2], &o.options);
        cr_assert(ag_backward_from(y, o.dy), "%s", ag_error_message(ctx));
        peaks[k] = ag_context_memory(ctx).step_peak;
        ag_context_free(ctx);
    }
    cr_expect_lt(peaks[1], 2 * peaks[0] + 100000, "%zu and %zu", peaks[0], peaks[1]);
    cr_expect_lt(peaks[1], (size_t)4096 * 4096, "%zu", peaks[1]);
}

/* A context that has so many bytes and no more. */
typedef struct budget {
    size_t left;
    int live;
} budget;

static void *allocate(size_t bytes, void *user)
{
    budget *b = user;
    void *memory = bytes <= b->left ? malloc(bytes) : NULL;
    b->left -= memory ? bytes : 0;
    b->live += memory != NULL;
    return memory;
}

static void release(void *memory, void *user)
{
    ((budget *)user)->live -= memory != NULL;
    free(memory);
}

/* Wherever memory runs out, there is an error and no gradient. */
Test(attend, memory_runs_out)
{
    int failures = 0;
    bool done = false;
    for (size_t bytes = 600000; !done; bytes += 8000) {
        budget b = { .left = bytes };
        ag_context *ctx =
            ag_context_new(&(ag_context_options){ .allocator = { allocate, release, &b } });
        cr_assert(ctx);
        attend_operands o =
            operands_of(ctx, &(attend_case){ 1, 1100, 1100, 1, 8, 8, .causal = true });
        ag_var y = ag_attend(o.x[0], o.x[1], o.x[2], &o.options);
        done = ag_backward_from(y, o.dy);
        cr_assert_eq(ag_status(ctx), done ? AG_OK : AG_ERR_MEMORY, "%s", ag_error_message(ctx));
        failures += !done;
        if (!done) {
            ag_error_clear(ctx);
            for (int i = 0; i < 3; i++)
                cr_assert(!ag_is_valid(o.x[i]) || !ag_gradient(o.x[i]));
        }
        ag_context_free(ctx);
        cr_assert_eq(b.live, 0);
    }
    cr_expect_gt(failures, 20, "%d", failures);
}

Test(attend, second_steps_allocate_nothing)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .threads = 2 });
    uint64_t allocations = 0;
    for (int step = 0; step < 4; step++) {
        attend_operands o =
            operands_of(ctx, &(attend_case){ 1, 1100, 1100, 1, 8, 8, .causal = true });
        ag_var y = ag_attend(o.x[0], o.x[1], o.x[2], &o.options);
        cr_assert(ag_backward_from(y, o.dy), "%s", ag_error_message(ctx));
        ag_tape_reset(ctx);
        cr_expect(step < 2 || allocations == ctx->allocations);
        allocations = ctx->allocations;
    }
    ag_context_free(ctx);
}
