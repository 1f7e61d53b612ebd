/* Operations with a fused backward rule have a composed one too, which is the
 * definition. ag_backward uses the fused one, ag_grad with AG_CREATE_GRAPH the
 * composed one: here the two are held against each other.
 *
 * They add the same terms in another way, and so may differ by the rounding of
 * the largest term, not of the result, which may be small where terms cancel.
 * Each case says how large its terms are. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct fused_case {
    const char *op;
    /* The result for x, whose rows are of the given kind of numbers. */
    ag_var (*apply)(ag_var x, ag_random *random);
    /* How large the terms of dx are, besides dx itself. */
    ag_var (*terms)(ag_var x, ag_var y, ag_var dy);
} fused_case;

/* ---- Element by element: dx = slope dy, with slopes of about 1 ---- */

#define ELEMENTWISE(name)                                   \
    static ag_var apply_##name(ag_var x, ag_random *random) \
    {                                                       \
        (void)random;                                       \
        return ag_##name(x);                                \
    }

ELEMENTWISE(tanh)
ELEMENTWISE(sigmoid)
ELEMENTWISE(relu)
ELEMENTWISE(gelu)
ELEMENTWISE(gelu_tanh)
ELEMENTWISE(silu)

static ag_var apply_sub(ag_var x, ag_random *random)
{
    (void)random;
    return ag_sub(ag_full(x.context, AG_SCALAR, 0.5), x);
}

static ag_var apply_scale(ag_var x, ag_random *random)
{
    (void)random;
    return ag_scale(x, -1.7);
}

/* x broadcast along a new axis, times a number for each of its places. */
static ag_var apply_mul(ag_var x, ag_random *random)
{
    ag_shape shape = ag_shape_of(x), column = { .rank = shape.rank + 1 };
    for (int i = 0; i < shape.rank; i++)
        column.dims[i + 1] = 1;
    column.dims[0] = 2;
    return ag_mul(ag_normal(x.context, random, column), x);
}

static ag_var mul_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)y;
    return ag_scale(ag_sum_to(ag_abs(dy), ag_shape_of(x)), 4.0); /* of four deviations */
}

static ag_var elementwise_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)x, (void)y;
    return ag_abs(dy);
}

/* ---- Rows ---- */

static ag_var apply_softmax(ag_var x, ag_random *random)
{
    (void)random;
    return ag_softmax(x, -1);
}

static ag_var softmax_terms(ag_var x, ag_var p, ag_var dp)
{
    (void)x;
    ag_var size = ag_abs(dp);
    return ag_mul(p, ag_add(size, ag_sum(ag_mul(p, size), -1, AG_KEEP_DIM)));
}

static ag_var apply_log_softmax(ag_var x, ag_random *random)
{
    (void)random;
    return ag_log_softmax(x, -1);
}

static ag_var log_softmax_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)x;
    ag_var size = ag_abs(dy);
    return ag_add(size, ag_mul(ag_exp(y), ag_sum(size, -1, AG_KEEP_DIM)));
}

static ag_var last_axis_normal(ag_var x, ag_random *random)
{
    ag_shape shape = ag_shape_of(x);
    return ag_normal(x.context, random, AG_SHAPE(shape.dims[shape.rank - 1]));
}

static ag_var apply_layer_norm(ag_var x, ag_random *random)
{
    ag_var gain = last_axis_normal(x, random);
    return ag_layer_norm(x, gain, last_axis_normal(x, random), 0);
}

static ag_var apply_layer_norm_plain(ag_var x, ag_random *random)
{
    (void)random;
    return ag_layer_norm(x, AG_NONE, AG_NONE, 1e-3);
}

static ag_var apply_rms_norm(ag_var x, ag_random *random)
{
    return ag_rms_norm(x, last_axis_normal(x, random), 0);
}

/* r (g, mean g and h mean(g h)), with gains of up to 5, and h only as exact as
 * the row's largest numbers times r. */
static ag_var norm_terms(ag_var x, bool centred, ag_var dy)
{
    ag_var mean = ag_mean(x, -1, AG_KEEP_DIM), c = centred ? ag_sub(x, mean) : x;
    ag_var r = ag_rsqrt(ag_shift(ag_mean(ag_square(c), -1, AG_KEEP_DIM), 1e-5));
    ag_var h = ag_mul(ag_add(ag_abs(x), ag_abs(mean)), r), g = ag_scale(ag_abs(dy), 5);
    ag_var means =
        ag_add(ag_mean(g, -1, AG_KEEP_DIM), ag_mul(h, ag_mean(ag_mul(g, h), -1, AG_KEEP_DIM)));
    return ag_mul(r, ag_add(g, means));
}

static ag_var layer_norm_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)y;
    return norm_terms(x, true, dy);
}

static ag_var rms_norm_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)y;
    return norm_terms(x, false, dy);
}

/* A third of the labels is 0, which may be the one that is ignored. */
static ag_var cross_entropy_of(ag_var x, ag_random *random, bool ignore, ag_reduction reduction)
{
    ag_shape shape = ag_shape_of(x);
    int64_t classes = shape.dims[--shape.rank];
    ag_tensor *labels = ag_tensor_new(x.context, AG_STEP, AG_I64, shape);
    ag_random_fill_integer(x.context, random, labels, classes);
    for (int64_t i = 0; i < ag_tensor_count(labels); i += 3)
        ag_tensor_put(labels, i, 0);
    ag_cross_entropy_options options = { .ignore = ignore, .reduction = reduction };
    return ag_cross_entropy_with(x, ag_from_tensor(x.context, labels), &options);
}

static ag_var apply_cross_entropy_mean(ag_var x, ag_random *random)
{
    return cross_entropy_of(x, random, false, AG_MEAN);
}

static ag_var apply_cross_entropy_ignore(ag_var x, ag_random *random)
{
    return cross_entropy_of(x, random, true, AG_MEAN);
}

static ag_var apply_cross_entropy_sum(ag_var x, ag_random *random)
{
    return cross_entropy_of(x, random, true, AG_SUM);
}

static ag_var cross_entropy_terms(ag_var x, ag_var loss, ag_var dloss)
{
    (void)loss;
    return ag_mul(ag_softmax(x, -1), ag_abs(dloss));
}

/* The same matrix for the result and for its terms; test_affine.c checks the other gradients. */
static ag_var affine_matrix(ag_var x)
{
    ag_shape shape = ag_shape_of(x);
    ag_random random = ag_random_stream(13, "affine", 0);
    return ag_normal(x.context, &random, AG_SHAPE(shape.dims[shape.rank - 1], 9));
}

static ag_var apply_affine(ag_var x, ag_random *random)
{
    return ag_affine(x, affine_matrix(x), ag_normal(x.context, random, AG_SHAPE(9)));
}

static ag_var affine_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)y;
    return ag_affine(ag_abs(dy), ag_transpose(ag_abs(affine_matrix(x)), 0, 1), AG_NONE);
}

static ag_var apply_affine_gelu(ag_var x, ag_random *random)
{
    return ag_affine_gelu(x, affine_matrix(x), ag_normal(x.context, random, AG_SHAPE(9)));
}

/* x as queries of seven keys, which are also the values; test_attend.c checks the rest. */
static ag_var attend_keys(ag_var x)
{
    ag_shape shape = ag_shape_of(x);
    ag_random random = ag_random_stream(13, "attend", 0);
    shape.dims[shape.rank - 2] = 7;
    return ag_normal(x.context, &random, shape);
}

static ag_var at_least_a_matrix(ag_var x)
{
    return ag_shape_of(x).rank == 1 ? ag_unsqueeze(x, 0) : x;
}

static ag_var apply_attend(ag_var x, ag_random *random)
{
    (void)random;
    x = at_least_a_matrix(x);
    return ag_attend(x, attend_keys(x), attend_keys(x), NULL);
}

/* sum of P |dP| |k|, where P has the scores' error: their terms times the precision. */
static ag_var attend_terms(ag_var x, ag_var y, ag_var dy)
{
    (void)y;
    ag_var q = ag_abs(at_least_a_matrix(x)), k = ag_abs(attend_keys(q)),
           turned = ag_transpose(k, -2, -1);
    ag_var scores = ag_sum(ag_matmul(q, turned), -1, AG_KEEP_DIM);
    ag_var dp = ag_sum(ag_matmul(ag_abs(dy), turned), -1, AG_KEEP_DIM);
    ag_var terms = ag_mul(ag_mul(dp, ag_shift(scores, 1)), ag_sum(k, -2, AG_KEEP_DIM));
    return ag_reshape(terms, ag_shape_of(x));
}

static const fused_case cases[] = {
    { "sub", apply_sub, elementwise_terms },
    { "mul", apply_mul, mul_terms },
    { "scale", apply_scale, elementwise_terms },
    { "tanh", apply_tanh, elementwise_terms },
    { "sigmoid", apply_sigmoid, elementwise_terms },
    { "relu", apply_relu, elementwise_terms },
    { "gelu", apply_gelu, elementwise_terms },
    { "gelu_tanh", apply_gelu_tanh, elementwise_terms },
    { "silu", apply_silu, elementwise_terms },
    { "affine", apply_affine, affine_terms },
    { "affine_gelu", apply_affine_gelu, affine_terms },
    { "softmax", apply_softmax, softmax_terms },
    { "log_softmax", apply_log_softmax, log_softmax_terms },
    { "layer_norm", apply_layer_norm, layer_norm_terms },
    { "layer_norm", apply_layer_norm_plain, layer_norm_terms },
    { "rms_norm", apply_rms_norm, rms_norm_terms },
    { "attend", apply_attend, attend_terms },
    { "cross_entropy", apply_cross_entropy_mean, cross_entropy_terms },
    { "cross_entropy", apply_cross_entropy_ignore, cross_entropy_terms },
    { "cross_entropy", apply_cross_entropy_sum, cross_entropy_terms },
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* ---- The comparison ---- */

/* 1e-12 in f64; 4 ulp times the root of the row's length in f32. */
static double tolerance(ag_dtype dtype, int64_t length)
{
    return dtype == AG_F64 ? 1e-12 : 4.0 * (double)FLT_EPSILON * sqrt((double)(length + 1));
}

static void compare(const fused_case *c, ag_var x, ag_var y, ag_var dy)
{
    char text[128];
    ag_context *ctx = x.context;
    ag_var composed;
    cr_assert_str_eq(ag_op_name(y), c->op, "the case does not end in its operation");
    ag_var terms = c->terms(x, y, dy);
    ag_grad_from(y, dy, &x, 1, &composed, AG_CREATE_GRAPH);
    ag_backward_from(y, dy);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    const ag_tensor *fused = ag_gradient(x), *rule = ag_value(composed);
    ag_shape shape = ag_shape_of(x);
    double allowed = tolerance(ag_dtype_of(x), shape.dims[shape.rank - 1]);
    for (int64_t k = 0; k < ag_tensor_count(rule); k++) {
        double a = ag_tensor_at(fused, k), b = ag_tensor_at(rule, k);
        double size = fabs(b) + ag_tensor_at(ag_value(terms), k) + DBL_MIN;
        if (ag_dtype_of(x) == AG_F32)
            size += (double)FLT_MIN / allowed; /* f32 has no finer numbers */
        cr_assert(fabs(a - b) <= allowed * size,
                  "%s of %s in %s, entry %lld: fused %.17g, composed %.17g", c->op,
                  ag_describe(x, text, sizeof text), ag_dtype_name(ag_dtype_of(x)), (long long)k, a,
                  b);
    }
}

/* x near 0 or saturated, dy of random or equal numbers, dense or a view. */
static void check_point(ag_context *ctx, const fused_case *c, ag_shape shape, ag_random *random)
{
    static const double scales[] = { 1.0, 10.0, 100.0, 0.0 };
    double scale = scales[ag_random_integer(random, 4)];
    ag_var x = ag_scale(ag_normal(ctx, random, shape), scale);
    x = ag_require_gradient(ag_from_tensor(ctx, ag_value(x)));
    ag_var y = c->apply(x, random), dy = ag_normal(ctx, random, ag_shape_of(y));
    int64_t kind = ag_random_integer(random, 4);
    if (kind == 0)
        dy = ag_broadcast_to(ag_scalar(ctx, -1.7), ag_shape_of(y));
    if (kind == 1 && ag_shape_of(y).rank > 0)
        dy = ag_flip(dy, -1);
    cr_assert_eq(ag_status(ctx), AG_OK, "%s: %s", c->op, ag_error_message(ctx));
    compare(c, x, y, dy);
    ag_tape_reset(ctx);
}

/* Labels need at least one class. */
static ag_shape random_shape(ag_random *random, const fused_case *c)
{
    static const int64_t sizes[] = { 0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65, 257 };
    ag_shape shape = { .rank = 1 + (int)ag_random_integer(random, 3) };
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = sizes[ag_random_integer(random, i + 1 == shape.rank ? 15 : 8)];
    if (!strcmp(c->op, "cross_entropy") && shape.dims[shape.rank - 1] == 0)
        shape.dims[shape.rank - 1] = 1;
    return shape;
}

static void check_case(const fused_case *c, ag_dtype dtype)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_random random = ag_random_stream(11, c->op, (uint64_t)dtype);
    for (int64_t size = 0; size < 20; size++)
        if (size > 0 || strcmp(c->op, "cross_entropy"))
            check_point(ctx, c, AG_SHAPE(3, size), &random);
    check_point(ctx, c, AG_SHAPE(0, 4), &random);
    for (int i = 0; i < 100; i++)
        check_point(ctx, c, random_shape(&random, c), &random);
    ag_context_free(ctx);
}

Test(fused, every_fused_rule_agrees_with_its_composed_rule)
{
    for (int i = 0; i < ag_op_count(); i++) {
        const ag_op *op = ag_op_at(i);
        int found = 0;
        for (int k = 0; op->vjp_fused && k < CASES; k++)
            if (!strcmp(cases[k].op, op->name)) {
                check_case(&cases[k], AG_F64);
                check_case(&cases[k], AG_F32);
                found++;
            }
        cr_expect(!op->vjp_fused || found, "%s has a fused rule and no case here", op->name);
    }
}

Test(fused, no_case_is_idle)
{
    for (int k = 0; k < CASES; k++) {
        bool fused = false;
        for (int i = 0; i < ag_op_count(); i++)
            fused = fused || (ag_op_at(i)->vjp_fused && !strcmp(ag_op_at(i)->name, cases[k].op));
        cr_expect(fused, "%s has no fused rule", cases[k].op);
    }
}

/* Kinks, masked rows, and scores so large that exp would overflow. */
Test(fused, special_numbers)
{
    static const double rows[] = { 0.0,       -0.0,      1.0,       -1.0, /* the kink of relu */
                                   -INFINITY, -INFINITY, -INFINITY, -INFINITY, /* all masked */
                                   2.0,       -INFINITY, 3.0,       -INFINITY, /* partly masked */
                                   80000.0,   -80000.0,  79999.0,   0.0,       /* huge */
                                   5.0,       5.0,       5.0,       5.0 };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(12, "special", 0);
    for (int k = 0; k < CASES; k++) {
        bool is_finite = strcmp(cases[k].op, "softmax") && strcmp(cases[k].op, "log_softmax");
        for (int row = 0; row < 5; row++) {
            if (is_finite && (row == 1 || row == 2))
                continue; /* recorded rules have inf - inf or 0 inf in the slope of gelu, in norms
                           */
            ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(1, 4), rows + 4 * row));
            ag_var y = cases[k].apply(x, &random);
            compare(&cases[k], x, y, ag_normal(ctx, &random, ag_shape_of(y)));
            ag_tape_reset(ctx);
        }
    }
    ag_context_free(ctx);
}

/* ---- Which rule is used when ---- */

static int composed_calls, fused_calls;

static void twice_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, x->dtype, ag_tensor_shape(x));
    for (int64_t k = 0; y && k < ag_tensor_count(y); k++)
        ag_tensor_put(y, k, 2.0 * ag_tensor_at(x, k));
}

static void twice_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    composed_calls++;
    dx[0] = ag_scale(dy, 2.0);
}

static void twice_vjp_fused(const ag_node *node, ag_var dy, ag_var *dx)
{
    (void)node;
    fused_calls++;
    dx[0] = ag_scale(dy, 2.0);
}

Test(fused, stands_in_only_where_nothing_is_recorded)
{
    static const ag_op twice = {
        .name = "twice", .forward = twice_forward, .vjp = twice_vjp, .vjp_fused = twice_vjp_fused
    };
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_require_gradient(ag_scalar(ctx, 3)), g;
    ag_var y = ag_apply(&twice, &x, 1, NULL);
    ag_grad(y, &x, 1, &g, AG_CREATE_GRAPH);
    cr_expect(composed_calls == 1 && fused_calls == 0);
    ag_grad(y, &x, 1, &g, 0);
    cr_expect(composed_calls == 1 && fused_calls == 1);
    ag_backward(y);
    cr_expect(composed_calls == 1 && fused_calls == 2);
    cr_expect_eq(ag_tensor_at(ag_gradient(x), 0), 2.0);
    ag_context_free(ctx);
}
