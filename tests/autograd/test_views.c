/* A view and its contiguous copy hold the same numbers, so every operation must
 * give the same results and gradients for both, bit for bit: no computation may
 * depend on how its operands lie in memory. And views share their source's data. */
#include "../../examples/attograd/cases.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef enum view_kind {
    TRANSPOSED, /* the axes in the opposite order */
    SLICED,     /* every second element of each axis, from the second on */
    FLIPPED,    /* each axis backwards */
    REPEATED,   /* the first axis broadcast from size 1: stride 0 */
    SPREAD,     /* the same with the last axis */
    CHAINED,    /* a flip of a slice of a transpose */
    VIEW_KINDS
} view_kind;

static const char *const view_names[] = { "transposed", "sliced", "flipped",
                                          "repeated",   "spread", "chained" };

static ag_shape reversed(ag_shape shape)
{
    ag_shape result = { .rank = shape.rank };
    for (int i = 0; i < shape.rank; i++)
        result.dims[i] = shape.dims[shape.rank - 1 - i];
    return result;
}

/* The shape of a source whose view of this kind has the given shape. */
static ag_shape source_shape(view_kind kind, ag_shape shape)
{
    for (int i = 0; i < shape.rank && (kind == SLICED || kind == CHAINED); i++)
        shape.dims[i] = 2 * shape.dims[i] + 1;
    if (kind == REPEATED && shape.rank > 0)
        shape.dims[0] = 1;
    if (kind == SPREAD && shape.rank > 0)
        shape.dims[shape.rank - 1] = 1;
    return kind == TRANSPOSED || kind == CHAINED ? reversed(shape) : shape;
}

static ag_var transpose_all(ag_var x)
{
    int order[AG_MAX_RANK], rank = ag_shape_of(x).rank;
    for (int i = 0; i < rank; i++)
        order[i] = rank - 1 - i;
    return ag_permute(x, order, rank);
}

static ag_var make_view(view_kind kind, ag_var source, ag_shape shape)
{
    if (kind == REPEATED || kind == SPREAD)
        return ag_broadcast_to(source, shape);
    ag_var v = kind == TRANSPOSED || kind == CHAINED ? transpose_all(source) : source;
    for (int i = 0; i < shape.rank && (kind == SLICED || kind == CHAINED); i++)
        v = ag_slice(v, i, 1, AG_END, 2);
    for (int i = 0; i < shape.rank && (kind == FLIPPED || kind == CHAINED); i++)
        v = ag_flip(v, i);
    return v;
}

static ag_var copy_of(ag_context *ctx, ag_var v)
{
    return ag_from_tensor(ctx, ag_value(v));
}

static void expect_same(const ag_tensor *a, const ag_tensor *b, const char *what)
{
    cr_assert(a && b, "%s: nothing to compare", what);
    cr_assert_eq(a->dtype, b->dtype, "%s", what);
    cr_assert(ag_shape_equal(ag_tensor_shape(a), ag_tensor_shape(b)), "%s: shapes", what);
    for (int64_t k = 0; k < ag_tensor_count(a); k++) {
        double x = ag_tensor_at(a, k), y = ag_tensor_at(b, k);
        cr_assert(!memcmp(&x, &y, sizeof x), "%s: entry %lld is %.17g and %.17g", what,
                  (long long)k, x, y);
    }
}

/* ---- Any function of any inputs ---- */

typedef struct subject {
    const char *name;
    ag_function f;
    bool no_gradient;
    int n;
    ag_shape shapes[AG_CASE_INPUTS];
    bool positive[AG_CASE_INPUTS];
} subject;

/* sources[i], its view views[i] and the copy of that, copies[i]. */
static void make_inputs(ag_context *ctx, const subject *s, view_kind kind, ag_var *sources,
                        ag_var *views, ag_var *copies)
{
    ag_random random = ag_random_stream(3, s->name, (uint64_t)kind);
    for (int i = 0; i < s->n; i++) {
        ag_shape shape = source_shape(kind, s->shapes[i]);
        sources[i] = ag_uniform(ctx, &random, shape, s->positive[i] ? 0.3 : -2.0, 2.0);
        views[i] = make_view(kind, ag_require_gradient(sources[i]), s->shapes[i]);
        copies[i] = ag_require_gradient(copy_of(ctx, views[i]));
    }
}

/* The gradient that reached a source, seen through the view of it. */
static ag_tensor through_view(ag_var source, ag_var view)
{
    const ag_tensor *gradient = ag_gradient(source), *value = ag_value(source);
    ag_tensor seen = *ag_value(view);
    seen.data = (char *)gradient->data + ((char *)seen.data - (char *)value->data);
    return seen;
}

static void compare_gradients(ag_context *ctx, const subject *s, view_kind kind, const char *what,
                              ag_var from_views, ag_var from_copies, const ag_var *sources,
                              const ag_var *views, const ag_var *copies)
{
    ag_var from_view[AG_CASE_INPUTS], from_copy[AG_CASE_INPUTS];
    ag_random random = ag_random_stream(4, s->name, 0);
    ag_shape shape = ag_shape_of(from_views);
    ag_var source = ag_uniform(ctx, &random, source_shape(kind, shape), -1.0, 1.0);
    ag_var cotangent = make_view(kind, source, shape);
    for (unsigned flags = 0; flags <= AG_CREATE_GRAPH; flags += AG_CREATE_GRAPH) {
        ag_grad_from(from_views, cotangent, views, s->n, from_view, flags);
        ag_grad_from(from_copies, copy_of(ctx, cotangent), copies, s->n, from_copy, flags);
        for (int i = 0; i < s->n; i++)
            expect_same(ag_value(from_view[i]), ag_value(from_copy[i]), what);
    }
    ag_backward_from(from_views, cotangent);
    ag_backward_from(from_copies, copy_of(ctx, cotangent));
    for (int i = 0; i < s->n && kind != REPEATED && kind != SPREAD; i++) {
        ag_tensor seen = through_view(sources[i], views[i]);
        expect_same(&seen, ag_gradient(copies[i]), what);
    }
}

static void check(ag_dtype dtype, const subject *s, view_kind kind)
{
    char what[128];
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_var sources[AG_CASE_INPUTS], views[AG_CASE_INPUTS], copies[AG_CASE_INPUTS];
    snprintf(what, sizeof what, "%s of %s views in %s", s->name, view_names[kind],
             ag_dtype_name(dtype));
    make_inputs(ctx, s, kind, sources, views, copies);
    ag_var y = s->f(ctx, views, s->n, NULL), z = s->f(ctx, copies, s->n, NULL);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s: %s", what, ag_error_message(ctx));
    expect_same(ag_value(y), ag_value(z), what);
    if (!s->no_gradient)
        compare_gradients(ctx, s, kind, what, y, z, sources, views, copies);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s: %s", what, ag_error_message(ctx));
    ag_context_free(ctx);
}

Test(views, every_operation_of_the_table)
{
    for (int i = 0; i < ag_op_case_count(); i++) {
        const ag_op_case *op = ag_op_case_at(i);
        subject s = { .name = op->name, .f = op->f, .no_gradient = op->no_gradient, .n = op->n };
        for (int k = 0; k < op->n; k++) {
            s.shapes[k] = ag_shape_make(op->inputs[k].rank, op->inputs[k].dims);
            s.positive[k] = op->inputs[k].domain == AG_POSITIVE;
        }
        for (int kind = 0; op->f && kind < VIEW_KINDS; kind++)
            check(AG_F64, &s, kind);
    }
}

/* ---- Sizes beyond a vector, a tile and a block of the kernels ---- */

#define F(name, result)                                                       \
    static ag_var f_##name(ag_context *c, const ag_var *x, int n, void *user) \
    {                                                                         \
        (void)c, (void)n, (void)user;                                         \
        return result;                                                        \
    }

F(add, ag_add(x[0], x[1]))
F(mul, ag_mul(x[0], x[1]))
F(div, ag_div(x[0], x[1]))
F(maximum, ag_maximum(x[0], x[1]))
F(exp, ag_exp(x[0]))
F(log, ag_log(x[0]))
F(tanh, ag_tanh(x[0]))
F(gelu, ag_gelu(x[0]))
F(gelu_tanh, ag_gelu_tanh(x[0]))
F(silu, ag_silu(x[0]))
F(softplus, ag_softplus(x[0]))
F(sin, ag_sin(x[0]))
F(pow, ag_pow(x[0], 1.7))
F(where, ag_where(ag_greater(x[0], x[1]), x[0], x[1]))
F(sum_first, ag_sum(x[0], 0, 0))
F(sum_last, ag_sum(x[0], -1, AG_KEEP_DIM))
F(sum_all, ag_sum(x[0], AG_ALL, 0))
F(mean_outer, ag_mean_over(x[0], (int[]){ 0, 2 }, 2, 0))
F(max_all, ag_max(x[0], AG_ALL, 0))
F(max_first, ag_max(x[0], 0, 0))
F(logsumexp_first, ag_logsumexp(x[0], 0, 0))
F(cumsum_first, ag_cumsum(x[0], 0))
F(cumsum_last, ag_cumsum(x[0], -1))
F(argmax, ag_argmax(x[0], 0))
F(matmul, ag_matmul(x[0], x[1]))
F(affine, ag_affine(x[0], x[1], x[2]))
F(affine_add, ag_affine_add(x[0], x[1], x[2], x[3]))
F(softmax_first, ag_softmax(x[0], 0))
F(softmax_last, ag_softmax(x[0], -1))
F(log_softmax_last, ag_log_softmax(x[0], -1))
F(concat, ag_concat((ag_var[]){ x[0], x[1], x[0] }, 3, -1))
F(reshape, ag_reshape(x[0], AG_SHAPE(-1)))

#define SHAPE(rank, ...) \
    {                    \
        rank,            \
        {                \
            __VA_ARGS__  \
        }                \
    }
#define ONE(name, ...)                              \
    {                                               \
#name, f_##name, false, 1, { __VA_ARGS__ }, \
        {                                           \
            false                                   \
        }                                           \
    }
#define TWO(name, ...)                              \
    {                                               \
#name, f_##name, false, 2, { __VA_ARGS__ }, \
        {                                           \
            false                                   \
        }                                           \
    }

/* clang-format off */
static const subject large[] = {
    TWO(add, SHAPE(2, 67, 41), SHAPE(2, 67, 41)),
    TWO(mul, SHAPE(3, 5, 33, 17), SHAPE(2, 33, 1)),
    TWO(mul, SHAPE(2, 300, 70), SHAPE(2, 300, 70)), /* several tasks */
    TWO(maximum, SHAPE(2, 67, 41), SHAPE(1, 41)),
    TWO(where, SHAPE(2, 67, 41), SHAPE(2, 67, 1)),
    { "div", f_div, false, 2, { SHAPE(2, 19, 41), SHAPE(2, 19, 41) }, { false, true } },
    ONE(exp, SHAPE(2, 67, 41)), ONE(tanh, SHAPE(2, 67, 41)), ONE(gelu, SHAPE(2, 67, 41)),
    ONE(gelu_tanh, SHAPE(2, 67, 41)), ONE(silu, SHAPE(2, 67, 41)), ONE(softplus, SHAPE(2, 67, 41)),
    ONE(sin, SHAPE(2, 67, 41)),
    { "log", f_log, false, 1, { SHAPE(2, 67, 41) }, { true } },
    { "pow", f_pow, false, 1, { SHAPE(2, 67, 41) }, { true } },
    ONE(sum_first, SHAPE(2, 700, 9)), ONE(sum_last, SHAPE(2, 9, 2100)),
    ONE(sum_all, SHAPE(3, 7, 300, 11)), ONE(mean_outer, SHAPE(3, 30, 7, 33)),
    ONE(max_all, SHAPE(2, 70, 33)), ONE(max_first, SHAPE(2, 70, 33)),
    ONE(logsumexp_first, SHAPE(2, 70, 33)),
    ONE(cumsum_first, SHAPE(2, 70, 33)), ONE(cumsum_last, SHAPE(2, 7, 2100)),
    { "argmax", f_argmax, true, 1, { SHAPE(2, 70, 33) }, { false } },
    TWO(matmul, SHAPE(2, 37, 65), SHAPE(2, 65, 33)),
    TWO(matmul, SHAPE(2, 1, 65), SHAPE(2, 65, 33)),
    TWO(matmul, SHAPE(2, 37, 300), SHAPE(2, 300, 1)),
    TWO(matmul, SHAPE(3, 5, 13, 29), SHAPE(2, 29, 17)), /* all rows in one product */
    TWO(matmul, SHAPE(3, 5, 13, 29), SHAPE(3, 5, 29, 17)),
    TWO(matmul, SHAPE(4, 2, 1, 13, 29), SHAPE(3, 3, 29, 17)),
    TWO(matmul, SHAPE(2, 13, 29), SHAPE(3, 3, 29, 17)),
    TWO(matmul, SHAPE(2, 130, 520), SHAPE(2, 520, 140)),
    { "affine", f_affine, false, 3,
      { SHAPE(3, 3, 13, 29), SHAPE(2, 29, 17), SHAPE(1, 17) }, { false } },
    { "affine_add", f_affine_add, false, 4,
      { SHAPE(3, 3, 5, 65), SHAPE(2, 65, 33), SHAPE(1, 33), SHAPE(3, 3, 5, 33) }, { false } },
    { "affine_add", f_affine_add, false, 4,
      { SHAPE(2, 70, 300), SHAPE(2, 300, 70), SHAPE(1, 70), SHAPE(2, 70, 70) }, { false } },
    ONE(softmax_first, SHAPE(2, 70, 33)), ONE(softmax_last, SHAPE(2, 33, 300)),
    ONE(log_softmax_last, SHAPE(2, 33, 300)),
    TWO(concat, SHAPE(2, 33, 20), SHAPE(2, 33, 7)),
    ONE(reshape, SHAPE(3, 9, 20, 11)),
};
/* clang-format on */

Test(views, large_sizes_in_both_dtypes)
{
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++)
        for (int kind = 0; kind < VIEW_KINDS; kind++) {
            check(AG_F32, &large[i], kind);
            check(AG_F64, &large[i], kind);
        }
}

/* ---- Operands of whole numbers ---- */

static ag_var integers_view(ag_context *ctx, view_kind kind, ag_shape shape, int64_t end)
{
    ag_shape wide = source_shape(kind, shape);
    ag_random random = ag_random_stream(5, "integers", (uint64_t)kind);
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_I64, wide);
    ag_random_fill_integer(ctx, &random, x, end);
    return make_view(kind, ag_from_tensor(ctx, x), shape);
}

static void expect_same_gradient(ag_context *ctx, ag_var y, ag_var z, ag_var x, const char *what)
{
    ag_var dy, dz;
    ag_random random = ag_random_stream(6, what, 0);
    ag_var cotangent = ag_uniform(ctx, &random, ag_shape_of(y), -1.0, 1.0);
    expect_same(ag_value(y), ag_value(z), what);
    ag_grad_from(y, cotangent, &x, 1, &dy, 0);
    ag_grad_from(z, cotangent, &x, 1, &dz, 0);
    expect_same(ag_value(dy), ag_value(dz), what);
}

Test(views, indices_labels_and_masks)
{
    for (int kind = 0; kind < VIEW_KINDS; kind++) {
        ag_context *ctx = ag_context_new(NULL);
        ag_random random = ag_random_stream(7, "table", 0);
        ag_var i = integers_view(ctx, kind, AG_SHAPE(6, 7), 5), c = copy_of(ctx, i);
        ag_var table = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(5, 3)));
        ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(6, 7, 5)));
        ag_var m = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(6, 7)));
        ag_var twice = ag_square(x); /* logits and rows that are views too */
        expect_same_gradient(ctx, ag_gather_rows(table, i), ag_gather_rows(table, c), table,
                             "gather_rows");
        expect_same_gradient(ctx, ag_scatter_add_rows(twice, i, 5),
                             ag_scatter_add_rows(twice, c, 5), x, "scatter_add_rows");
        expect_same_gradient(ctx, ag_cross_entropy(x, i), ag_cross_entropy(x, c), x,
                             "cross_entropy");
        expect_same_gradient(ctx, ag_masked_fill(m, i, 2), ag_masked_fill(m, c, 2), m,
                             "masked_fill");
        expect_same_gradient(ctx, ag_where(i, m, ag_square(m)), ag_where(c, m, ag_square(m)), m,
                             "where");
        expect_same(ag_value(ag_cast(i, AG_F64)), ag_value(ag_cast(c, AG_F64)), "cast");
        expect_same(ag_value(ag_equal(i, ag_flip(i, 0))), ag_value(ag_equal(c, ag_flip(c, 0))),
                    "equal");
        cr_expect_eq(ag_status(ctx), AG_OK, "%s: %s", view_names[kind], ag_error_message(ctx));
        ag_context_free(ctx);
    }
}

/* ---- What a view shows ---- */

/* The place in the source, which counts its elements, of element k of a view. */
static int64_t place_in_source(view_kind kind, ag_shape shape, int64_t k)
{
    ag_shape wide = source_shape(kind, shape);
    int64_t index[AG_MAX_RANK], place = 0;
    for (int i = shape.rank - 1; i >= 0; k /= shape.dims[i--]) {
        index[i] = k % shape.dims[i];
        if (kind == FLIPPED || kind == CHAINED)
            index[i] = shape.dims[i] - 1 - index[i];
        if (kind == SLICED || kind == CHAINED)
            index[i] = 1 + 2 * index[i];
    }
    for (int i = 0; i < shape.rank; i++) {
        int from = kind == TRANSPOSED || kind == CHAINED ? shape.rank - 1 - i : i;
        place = place * wide.dims[i] + (wide.dims[i] == 1 ? 0 : index[from]);
    }
    return place;
}

Test(views, show_the_right_elements)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_shape shape = AG_SHAPE(3, 2, 4);
    for (int kind = 0; kind < VIEW_KINDS; kind++) {
        ag_shape wide = source_shape(kind, shape);
        ag_var source = ag_reshape(ag_arange(ctx, ag_shape_count(wide)), wide);
        ag_var view = make_view(kind, source, shape);
        for (int64_t k = 0; k < ag_shape_count(shape); k++)
            cr_expect_eq(ag_tensor_at(ag_value(view), k), (double)place_in_source(kind, shape, k),
                         "%s: entry %lld", view_names[kind], (long long)k);
    }
    ag_context_free(ctx);
}

/* ---- Views share data ---- */

static bool inside(ag_var view, ag_var source)
{
    const ag_tensor *x = ag_value(source), *v = ag_value(view);
    const char *first = x->data, *at = v->data;
    return at >= first && at < first + (size_t)ag_tensor_count(x) * ag_dtype_size(x->dtype);
}

Test(views, share_data)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(8, "x", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4, 1, 6)));
    ag_var rows = ag_slice(ag_squeeze(x, 1), 0, 0, AG_END, 2); /* [2,6] with stride 12 */
    ag_var views[] = {
        rows,
        ag_unsqueeze(x, 0),
        ag_transpose(x, 0, 2),
        ag_permute(x, (int[]){ 2, 0, 1 }, 3),
        ag_slice(x, 2, 1, 5, 3),
        ag_flip(x, 0),
        ag_flip(ag_flip(x, 0), 2),
        ag_broadcast_to(x, AG_SHAPE(3, 4, 5, 6)),
        ag_reshape(x, AG_SHAPE(3, 8)),
        ag_reshape(x, AG_SHAPE(-1)),
        ag_reshape(rows, AG_SHAPE(2, 2, 3)),               /* splits an axis */
        ag_reshape(ag_transpose(x, 0, 2), AG_SHAPE(6, 4)), /* drops a size of 1 */
        ag_reshape(ag_flip(ag_reshape(x, AG_SHAPE(24)), 0), AG_SHAPE(4, 6)),
        ag_detach(x),
        ag_contiguous(x),
    };
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
        cr_expect(inside(views[i], x), "view %zu has data of its own", i);
    cr_expect_eq(ag_contiguous(x).index, x.index, "nothing to do");
    ag_context_free(ctx);
}

Test(views, reshape_copies_only_where_it_must)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_random random = ag_random_stream(9, "x", 0);
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(4, 6));
    ag_var forced[] = {
        ag_reshape(ag_transpose(x, 0, 1), AG_SHAPE(24)),
        ag_reshape(ag_slice(x, 1, 0, AG_END, 4), AG_SHAPE(2, 4)),
        ag_reshape(ag_flip(x, 1), AG_SHAPE(24)),
        ag_reshape(ag_broadcast_to(x, AG_SHAPE(2, 4, 6)), AG_SHAPE(8, 6)),
        ag_contiguous(ag_transpose(x, 0, 1)),
    };
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    for (size_t i = 0; i < sizeof forced / sizeof forced[0]; i++) {
        cr_expect_not(inside(forced[i], x), "copy %zu lies in the source", i);
        cr_expect(ag_tensor_is_contiguous(ag_value(forced[i])), "copy %zu", i);
    }
    ag_context_free(ctx);
}
