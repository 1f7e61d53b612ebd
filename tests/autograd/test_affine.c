/* The affine maps y = x w + b and y = x w + b + residual. Their gradient checks are among the
 * cases of the table, their refusals in wrong_calls.def. */
#include "../reference.h"

#include <attograd.h>

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>

/* Any of these may be absent but x and w. */
typedef struct operands {
    ag_var x, w, b, residual;
} operands;

static ag_var affine(const operands *o)
{
    return ag_is_none(o->residual) ? ag_affine(o->x, o->w, o->b)
                                   : ag_affine_add(o->x, o->w, o->b, o->residual);
}

/* The same from a product of matrices and sums. */
static ag_var composed(const operands *o)
{
    bool vector = ag_shape_of(o->x).rank == 1;
    ag_var y = ag_matmul(vector ? ag_unsqueeze(o->x, 0) : o->x, o->w);
    if (vector)
        y = ag_squeeze(y, 0);
    if (!ag_is_none(o->b))
        y = ag_add(y, o->b);
    return ag_is_none(o->residual) ? y : ag_add(y, o->residual);
}

static void expect_values(ag_var y, ag_shape shape, const double *values)
{
    cr_assert(ag_is_valid(y));
    cr_assert(ag_shape_equal(ag_shape_of(y), shape));
    for (int64_t i = 0; i < ag_shape_count(shape); i++)
        cr_expect_eq(ag_tensor_at(ag_value(y), i), values[i], "at %d", (int)i);
}

Test(affine, by_hand)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_constant(ctx, AG_SHAPE(2, 2), (double[]){ 1, 1, 0, 2 });
    ag_var w = ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ 1, 2, 3, 4, 5, 6 });
    ag_var b = ag_constant(ctx, AG_SHAPE(3), (double[]){ 10, 20, 30 });
    ag_var r = ag_constant(ctx, AG_SHAPE(2, 3), (double[]){ 100, 200, 300, 400, 500, 600 });
    expect_values(ag_affine(x, w, AG_NONE), AG_SHAPE(2, 3), (double[]){ 5, 7, 9, 8, 10, 12 });
    expect_values(ag_affine(x, w, b), AG_SHAPE(2, 3), (double[]){ 15, 27, 39, 18, 30, 42 });
    expect_values(ag_affine_add(x, w, AG_NONE, r), AG_SHAPE(2, 3),
                  (double[]){ 105, 207, 309, 408, 510, 612 });
    expect_values(ag_affine_add(x, w, b, r), AG_SHAPE(2, 3),
                  (double[]){ 115, 227, 339, 418, 530, 642 });
    expect_values(ag_affine(ag_constant(ctx, AG_SHAPE(2), (double[]){ 0, 2 }), w, b), AG_SHAPE(3),
                  (double[]){ 18, 30, 42 });
    cr_expect_eq(ag_context_finish(ctx), 0);
}

/* A sum of no products leaves the bias and the residual; no rows leave nothing. */
Test(affine, empty_sizes)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var b = ag_constant(ctx, AG_SHAPE(2), (double[]){ 1, 2 });
    ag_var r = ag_constant(ctx, AG_SHAPE(3, 2), (double[]){ 10, 20, 30, 40, 50, 60 });
    ag_var none = ag_zeros(ctx, AG_SHAPE(3, 0)), w = ag_zeros(ctx, AG_SHAPE(0, 2));
    expect_values(ag_affine(none, w, AG_NONE), AG_SHAPE(3, 2), (double[]){ 0, 0, 0, 0, 0, 0 });
    expect_values(ag_affine_add(none, w, b, r), AG_SHAPE(3, 2),
                  (double[]){ 11, 22, 31, 42, 51, 62 });
    ag_var x = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(0, 5)));
    w = ag_require_gradient(ag_full(ctx, AG_SHAPE(5, 2), 7));
    b = ag_require_gradient(b);
    ag_var y = ag_affine(x, w, b);
    cr_expect(ag_shape_equal(ag_shape_of(y), AG_SHAPE(0, 2)));
    ag_backward(ag_sum(y, AG_ALL, 0));
    for (int k = 0; k < 10; k++)
        cr_expect_eq(ag_tensor_at(ag_gradient(w), k), 0.0);
    cr_expect_eq(ag_tensor_at(ag_gradient(b), 1), 0.0);
    cr_expect_eq(ag_context_finish(ctx), 0);
}

Test(affine, is_one_node)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_zeros(ctx, AG_SHAPE(4, 2)), w = ag_zeros(ctx, AG_SHAPE(2, 3));
    ag_var b = ag_zeros(ctx, AG_SHAPE(3)), r = ag_zeros(ctx, AG_SHAPE(4, 3));
    int64_t before = ag_tape_length(ctx);
    ag_var y = ag_affine_add(x, w, b, r);
    ag_affine(x, w, AG_NONE);
    cr_expect_eq(ag_tape_length(ctx), before + 2);
    cr_expect_str_eq(ag_op_name(y), "affine");
    cr_expect_eq(ag_context_finish(ctx), 0);
}

Test(affine, the_sentences)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var w = ag_parameter(ctx, "lin.w", AG_F32, AG_SHAPE(4, 3));
    ag_var b = ag_parameter(ctx, "lin.b", AG_F32, AG_SHAPE(4));
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(2, 5)), "x");
    ag_var z = ag_set_name(ag_zeros(ctx, AG_SHAPE(2, 4)), "z");
    ag_affine(x, w, AG_NONE);
    cr_expect_str_eq(ag_error_message(ctx),
                     "affine: inner sizes differ: x [2,5] times lin.w [4,3]");
    ag_error_clear(ctx);
    ag_affine(z, w, b);
    cr_expect_str_eq(ag_error_message(ctx),
                     "affine: the bias does not fit: z [2,4] times lin.w [4,3] plus lin.b [4]");
    ag_error_clear(ctx);
    ag_affine_add(z, w, AG_NONE, z);
    cr_expect_str_eq(ag_error_message(ctx),
                     "affine: the residual does not fit: z [2,4] times lin.w [4,3] plus z [2,4]");
    ag_error_clear(ctx);
    ag_affine(z, x, AG_NONE);
    cr_expect_str_eq(ag_error_message(ctx), "affine: inner sizes differ: z [2,4] times x [2,5]");
    ag_error_clear(ctx);
    ag_affine(z, b, AG_NONE);
    cr_expect_str_eq(ag_error_message(ctx), "affine: needs rows [.., k] and a matrix [k, n]: "
                                            "z [2,4] times lin.b [4]");
    ag_error_clear(ctx);
    ag_affine_add(z, w, AG_NONE, AG_NONE);
    cr_expect(strstr(ag_error_message(ctx), "affine: ") && strstr(ag_error_message(ctx), "absent"));
    ag_context_free(ctx);
}

/* A bias that had failed is not one that is absent. */
Test(affine, poisoned_bias)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_var x = ag_zeros(ctx, AG_SHAPE(2, 2)), b = ag_add(x, ag_zeros(ctx, AG_SHAPE(3)));
    ag_error_clear(ctx);
    cr_expect_not(ag_is_valid(ag_affine(x, x, b)));
    cr_expect_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    ag_error_clear(ctx);
    cr_expect_not(ag_is_valid(ag_affine(x, x, ag_zeros(other, AG_SHAPE(2)))));
    cr_expect_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    ag_context_free(ctx);
    ag_context_free(other);
}

/* ---- Against a product and sums, both rules ---- */

enum { PLAIN, TRANSPOSED, STEPPED, LAYOUTS };

/* A random leaf that asks for a gradient, or a view of one. */
static ag_var draw(ag_context *ctx, ag_random *random, ag_shape shape)
{
    int64_t layout = ag_random_integer(random, LAYOUTS);
    ag_shape source = shape;
    int last = shape.rank - 1;
    if (layout == TRANSPOSED) {
        source.dims[0] = shape.dims[last];
        source.dims[last] = shape.dims[0];
    }
    if (layout == STEPPED)
        source.dims[last] = 2 * shape.dims[last];
    ag_var leaf = ag_require_gradient(ag_normal(ctx, random, source));
    if (layout == TRANSPOSED)
        return ag_transpose(leaf, 0, -1);
    return layout == STEPPED ? ag_slice(ag_flip(leaf, -1), -1, 0, AG_END, 2) : leaf;
}

static operands draw_operands(ag_context *ctx, ag_random *random)
{
    static const int64_t sizes[] = { 0, 1, 2, 3, 5, 8, 13, 16, 17, 33, 70 };
    ag_shape x = { .rank = 1 + (int)ag_random_integer(random, 3) };
    for (int i = 0; i < x.rank; i++)
        x.dims[i] = sizes[ag_random_integer(random, i + 1 < x.rank ? 7 : 11)];
    int64_t k = x.dims[x.rank - 1], n = sizes[ag_random_integer(random, 11)];
    ag_shape y = x;
    y.dims[y.rank - 1] = n;
    operands o = { .x = draw(ctx, random, x), .w = draw(ctx, random, AG_SHAPE(k, n)) };
    o.b = ag_random_integer(random, 2) ? draw(ctx, random, AG_SHAPE(n)) : AG_NONE;
    o.residual = ag_random_integer(random, 2) ? draw(ctx, random, y) : AG_NONE;
    return o;
}

/* |a - b| is within a few units of the last place of terms of about size. */
static void expect_close(ag_var a, ag_var b, double size, const char *what)
{
    cr_assert(ag_shape_equal(ag_shape_of(a), ag_shape_of(b)), "%s", what);
    double unit = ag_dtype_of(a) == AG_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
    for (int64_t k = 0; k < ag_tensor_count(ag_value(a)); k++) {
        double x = ag_tensor_at(ag_value(a), k), y = ag_tensor_at(ag_value(b), k);
        cr_assert(fabs(x - y) <= 4 * unit * (size + fabs(y)), "%s, entry %d: %.17g and %.17g", what,
                  (int)k, x, y);
    }
}

static int present(const operands *o, ag_var *inputs)
{
    const ag_var all[] = { o->x, o->w, o->b, o->residual };
    int n = 0;
    for (int i = 0; i < 4; i++)
        if (!ag_is_none(all[i]))
            inputs[n++] = all[i];
    return n;
}

Test(affine, is_a_product_and_sums)
{
    for (int round = 0; round < 400; round++) {
        ag_context *ctx =
            ag_context_new(&(ag_context_options){ .dtype = round % 2 ? AG_F32 : AG_F64 });
        ag_random random = ag_random_stream(1, "affine", (uint64_t)round);
        operands o = draw_operands(ctx, &random);
        ag_var y = affine(&o), z = composed(&o), inputs[4], fused[4], recorded[4], wanted[4];
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        ag_var dy = draw(ctx, &random, ag_shape_of(y));
        int n = present(&o, inputs);
        ag_grad_from(y, dy, inputs, n, fused, 0);
        ag_grad_from(y, dy, inputs, n, recorded, AG_CREATE_GRAPH);
        ag_grad_from(z, dy, inputs, n, wanted, 0);
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        double size = 16 * 70; /* terms of up to 16, at most 70 of them or rows */
        expect_close(y, z, size, "y");
        for (int i = 0; i < n; i++) {
            expect_close(fused[i], wanted[i], size, "fused");
            expect_close(recorded[i], wanted[i], size, "recorded");
        }
        ag_context_free(ctx);
    }
}

static void expect_same_bits(ag_var a, ag_var b)
{
    cr_assert(ag_shape_equal(ag_shape_of(a), ag_shape_of(b)));
    size_t bytes = (size_t)ag_tensor_count(ag_value(a)) * ag_dtype_size(ag_dtype_of(a));
    cr_expect_eq(memcmp(ag_value(a)->data, ag_value(b)->data, bytes), 0);
}

/* affine_gelu is affine and gelu, bit for bit, whether or not the slope is kept; so are its
 * gradients, but for the rounding of the slope. */
Test(affine, gelu_is_gelu_of_affine)
{
    for (int round = 0; round < 200; round++) {
        ag_context *ctx =
            ag_context_new(&(ag_context_options){ .dtype = round % 2 ? AG_F32 : AG_F64 });
        ag_random random = ag_random_stream(3, "affine", (uint64_t)round);
        operands o = draw_operands(ctx, &random);
        o.residual = AG_NONE;
        ag_var y = ag_affine_gelu(o.x, o.w, o.b), z = ag_gelu(affine(&o)), inputs[4];
        ag_var fused[4], recorded[4], wanted[4], dy = draw(ctx, &random, ag_shape_of(y));
        ag_no_grad_begin(ctx);
        expect_same_bits(ag_affine_gelu(o.x, o.w, o.b), z);
        ag_no_grad_end(ctx);
        expect_same_bits(y, z);
        int n = present(&o, inputs);
        ag_grad_from(y, dy, inputs, n, fused, 0);
        ag_grad_from(y, dy, inputs, n, recorded, AG_CREATE_GRAPH);
        ag_grad_from(z, dy, inputs, n, wanted, 0);
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        for (int i = 0; i < n; i++) {
            expect_close(fused[i], wanted[i], 16 * 70, "fused");
            expect_close(recorded[i], wanted[i], 16 * 70, "recorded");
        }
        ag_context_free(ctx);
    }
}

/* Beyond the result and the slope, a forward keeps nothing. */
Test(affine, gelu_keeps_the_slope_alone)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var x = ag_zeros(ctx, AG_SHAPE(1 << 12, 4)), w = ag_zeros(ctx, AG_SHAPE(4, 64));
    size_t before = ag_context_memory(ctx).step, result = sizeof(float) * 64 << 12;
    ag_affine_gelu(x, w, AG_NONE);
    size_t plain = ag_context_memory(ctx).step - before;
    cr_expect(plain >= result && plain < result + result / 4);
    before = ag_context_memory(ctx).step;
    ag_affine_gelu(ag_require_gradient(x), w, AG_NONE);
    size_t kept = ag_context_memory(ctx).step - before;
    cr_expect(kept >= 2 * result && kept < 2 * result + result / 4);
    cr_expect_eq(ag_context_finish(ctx), 0);
}

/* ag_backward uses the slope up; whoever comes later computes it again, to the same bits. */
Test(affine, gelu_serves_two_losses)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(4, "affine", 0);
    ag_var x = ag_normal(ctx, &random, AG_SHAPE(300, 3)),
           c = ag_normal(ctx, &random, AG_SHAPE(3, 5));
    ag_var w = ag_require_gradient(c), wanted, again;
    ag_var y = ag_affine_gelu(x, w, AG_NONE), first = ag_sum(y, AG_ALL, 0);
    ag_var second = ag_sum(ag_square(y), AG_ALL, 0), both = ag_add(first, second);
    ag_grad(both, &w, 1, &wanted, 0);
    ag_grad(both, &w, 1, &again, 0); /* ag_grad uses up nothing */
    expect_same_bits(wanted, again);
    size_t before = ag_context_memory(ctx).step;
    ag_backward(first);
    cr_expect(ag_context_memory(ctx).step + 300 * 5 * sizeof(double) <= before + 1024);
    ag_grad(both, &w, 1, &again, 0);
    expect_same_bits(wanted, again);
    ag_backward(second);
    expect_close(ag_from_tensor(ctx, ag_gradient(w)), wanted, 300, "dw");
    cr_expect_eq(ag_context_finish(ctx), 0);
}

/* Backward into leaves, some of which are used twice or ask for nothing. */
Test(affine, a_block_with_its_own_input_as_residual)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(2, "affine", 0);
    ag_var x = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(3, 4)));
    ag_var w = ag_normal(ctx, &random, AG_SHAPE(4, 4)), c = ag_normal(ctx, &random, AG_SHAPE(3, 4));
    ag_var b = ag_require_gradient(ag_normal(ctx, &random, AG_SHAPE(4)));
    ag_backward_from(ag_affine_add(x, w, b, x), c);
    cr_expect_null(ag_gradient(w));
    ag_var dx = ag_add(ag_matmul(c, ag_transpose(w, 0, 1)), c), db = ag_sum(c, 0, 0);
    expect_close(ag_from_tensor(ctx, ag_gradient(x)), dx, 16, "dx");
    expect_close(ag_from_tensor(ctx, ag_gradient(b)), db, 16, "db");
    cr_expect_eq(ag_context_finish(ctx), 0);
}

/* The gradient of the residual is dy's own buffer: no other one of that size was ever there. */
Test(affine, hands_the_residuals_gradient_on)
{
    ag_context *ctx = ag_context_new(NULL);
    const int64_t rows = 1 << 16;
    ag_var x = ag_zeros(ctx, AG_SHAPE(rows, 1)), w = ag_zeros(ctx, AG_SHAPE(1, 4));
    ag_var r = ag_require_gradient(ag_zeros(ctx, AG_SHAPE(rows, 4)));
    ag_var y = ag_affine_add(x, w, AG_NONE, r), c = ag_full(ctx, AG_SHAPE(rows, 4), 1);
    size_t before = ag_context_memory(ctx).step, one = (size_t)rows * 4 * sizeof(float);
    ag_backward_from(y, c);
    cr_expect_lt(ag_context_memory(ctx).step, before + one + one / 2);
    cr_expect_lt(ag_context_memory(ctx).step_peak, before + one + one / 2);
    cr_expect_eq(ag_tensor_at(ag_gradient(r), 5), 1.0);
    cr_expect_eq(ag_context_finish(ctx), 0);
}

Test(affine, reference_numbers)
{
    ag_context *ctx = ag_reference_context();
    operands o = { ag_reference_input(ctx, "affine_x"), ag_reference_input(ctx, "affine_w"),
                   ag_reference_input(ctx, "affine_b"),
                   ag_reference_input(ctx, "affine_residual") };
    ag_var y = affine(&o), c = ag_reference_constant(ctx, "affine_cotangent");
    const ag_reference_gradient gradients[] = {
        { "x", o.x, ag_reference_read(ctx, "affine_dx") },
        { "w", o.w, ag_reference_read(ctx, "affine_dw") },
        { "b", o.b, ag_reference_read(ctx, "affine_db") },
        { "residual", o.residual, ag_reference_read(ctx, "affine_dresidual") },
    };
    ag_reference_expect("affine", ag_value(y), ag_reference_read(ctx, "affine_y"));
    ag_reference_expect_gradients("affine", y, c, gradients, 4);
    ag_reference_expect("affine without b", ag_value(ag_affine(o.x, o.w, AG_NONE)),
                        ag_reference_read(ctx, "affine_plain_y"));
    ag_reference_finish(ctx);
}
