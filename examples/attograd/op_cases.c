/* The gradient-check cases of the operations. */
#include "cases.h"

#include <math.h>
#include <stdlib.h>

#define F(name, result) AG_CASE_FUNCTION(f_##name, result)

/* ---- Indices and masks, made for the operand's sizes ---- */

/* The size of x along an axis, 0 for one that there is not. */
static int64_t size_of(ag_var x, int axis)
{
    ag_shape shape = ag_shape_of(x);
    axis += axis < 0 ? shape.rank : 0;
    return axis >= 0 && axis < shape.rank ? shape.dims[axis] : 0;
}

/* The pattern of n numbers again and again, each but below end. */
static ag_var indices_like(ag_context *c, ag_shape shape, const int64_t *pattern, int n,
                           int64_t end)
{
    int64_t indices[64], count = ag_shape_count(shape);
    if (count > 64)
        ag_fail(c, AG_ERR_ARGUMENT, "check: room for 64 indices only");
    for (int64_t k = 0; k < count && count <= 64; k++)
        indices[k] = end > 0 ? pattern[k % n] % end : 0;
    return ag_indices(c, shape, indices);
}

#define PATTERN(...) (int64_t[]){ __VA_ARGS__ }, sizeof((int64_t[]){ __VA_ARGS__ }) / 8

/* Of x's first and last size, the same for all axes between. */
static ag_var mask_of(ag_context *c, ag_var x)
{
    ag_shape shape = ag_shape_of(x);
    for (int i = 1; i < shape.rank - 1; i++)
        shape.dims[i] = 1;
    return indices_like(c, shape, PATTERN(1, 0, 0, 1, 0, 1, 0, 0), 2);
}

/* A choice between operands that broadcast to each other. */
static ag_var choice_of(ag_context *c, ag_var a, ag_var b)
{
    return mask_of(c, ag_detach(ag_add(a, b)));
}

/* Rows of a table, some several times, one not at all; none if there are none. */
static ag_var rows_of(ag_context *c, ag_var table)
{
    int64_t v = size_of(table, 0);
    return indices_like(c, AG_SHAPE(2, v > 0 ? 3 : 0), PATTERN(3, 0, 3, 1, 3, 0), v);
}

/* For each row of x, or stretch of rows: the leading axes without the last few. */
static ag_var labels_below(ag_context *c, ag_var x, int without, int64_t end)
{
    ag_shape shape = ag_shape_of(x);
    shape.rank = shape.rank > without ? shape.rank - without : 0;
    return indices_like(c, shape, PATTERN(0, 3, 1, 2, 2, 0), end);
}

static ag_var labels_of(ag_context *c, ag_var x)
{
    return labels_below(c, x, 1, size_of(x, -1));
}

/* ---- The functions ---- */

static ag_var contiguous_times(ag_var x)
{
    return ag_mul(ag_contiguous(x), x);
}

F(add, ag_add(x[0], x[1]))
F(sub, ag_sub(x[0], x[1]))
F(mul, ag_mul(x[0], x[1]))
F(div, ag_div(x[0], x[1]))
F(maximum, ag_maximum(x[0], x[1]))
F(minimum, ag_minimum(x[0], x[1]))
F(scale, ag_scale(x[0], -1.7))
F(shift, ag_mul(x[0], ag_shift(x[0], 0.3)))
F(pow, ag_pow(x[0], 2.7))
F(pow_0, ag_pow(x[0], 0.0))
F(pow_1, ag_pow(x[0], 1.0))
F(pow_3, ag_pow(x[0], 3.0))
F(pow_2, ag_pow(x[0], 2.0))
F(pow_4, ag_pow(x[0], 4.0))
F(pow_minus_1, ag_pow(x[0], -1.0))
F(pow_minus_2, ag_pow(x[0], -2.0))
F(pow_half, ag_pow(x[0], 0.5))
F(pow_negative, ag_pow(x[0], -1.5))
F(neg, ag_neg(x[0]))
F(square, ag_square(x[0]))
F(sqrt, ag_sqrt(x[0]))
F(rsqrt, ag_rsqrt(x[0]))
F(reciprocal, ag_reciprocal(x[0]))
F(exp, ag_exp(x[0]))
F(log, ag_log(x[0]))
F(sin, ag_sin(x[0]))
F(cos, ag_cos(x[0]))
F(tanh, ag_tanh(x[0]))
F(erf, ag_erf(x[0]))
F(erfc, ag_erfc(x[0]))
F(sigmoid, ag_sigmoid(x[0]))
F(softplus, ag_softplus(x[0]))
F(relu, ag_relu(x[0]))
F(gelu, ag_gelu(x[0]))
F(gelu_tanh, ag_gelu_tanh(x[0]))
F(silu, ag_silu(x[0]))
F(abs, ag_abs(x[0]))
F(sign, ag_sign(x[0]))
F(equal, ag_equal(x[0], x[1]))
F(greater, ag_greater(x[0], x[1]))
F(argmax, ag_argmax(x[0], -1))
F(cast, ag_cast(ag_cast(x[0], AG_F32), AG_F64))
F(sum, ag_sum(x[0], 1, 0))
F(sum_all, ag_sum(x[0], AG_ALL, 0))
F(sum_keep, ag_sum_over(x[0], (int[]){ 0, -1 }, 2, AG_KEEP_DIM))
F(mean, ag_mean_over(x[0], (int[]){ 0, 2 }, 2, 0))
F(max, ag_max(x[0], 1, 0))
F(max_over, ag_max_over(x[0], (int[]){ 0, 2 }, 2, AG_KEEP_DIM))
F(logsumexp, ag_logsumexp(x[0], -1, 0))
F(logsumexp_over, ag_logsumexp_over(x[0], (int[]){ 0, 2 }, 2, AG_KEEP_DIM))
F(cumsum, ag_cumsum(x[0], 1))
F(cumsum_last, ag_cumsum(x[0], -1))
F(matmul, ag_matmul(x[0], x[1]))
F(matmul_transposed, ag_matmul(ag_transpose(x[0], -1, -2), x[1]))
F(affine, ag_affine(x[0], x[1], x[2]))
F(affine_plain, ag_affine(x[0], x[1], AG_NONE))
F(affine_transposed, ag_affine(ag_transpose(x[0], -1, -2), ag_transpose(x[1], 0, 1), x[2]))
F(affine_add, ag_affine_add(x[0], x[1], x[2], x[3]))
F(affine_add_plain, ag_affine_add(x[0], x[1], AG_NONE, x[2]))
F(affine_gelu, ag_affine_gelu(x[0], x[1], x[2]))
F(affine_gelu_plain, ag_affine_gelu(x[0], x[1], AG_NONE))
F(affine_itself,
  ag_affine_add(x[0], x[0], ag_slice(x[1], 0, 0, AG_END, 2), ag_transpose(x[0], 0, 1)))
F(dot, ag_dot(x[0], x[1]))
F(outer, ag_outer(x[0], x[1]))
F(permute, ag_mul(ag_permute(x[0], (int[]){ 2, 0, 1 }, 3), x[1]))
F(transpose, ag_mul(ag_transpose(x[0], 0, 1), x[1]))
F(reshape, ag_mul(ag_reshape(ag_transpose(x[0], 0, 1), ag_shape_of(x[1])), x[1]))
F(reshape_rest, ag_mul(ag_reshape(ag_transpose(x[0], 0, 1), AG_SHAPE(3, -1)), x[1]))
F(slice, ag_slice(x[0], 1, 1, AG_END, 2))
F(unslice, ag_square(ag_add(ag_slice(x[0], 0, 0, AG_END, 2), ag_slice(x[0], 0, 1, 3, 1))))
F(flip, ag_mul(ag_flip(x[0], 1), x[0]))
F(broadcast_to, ag_mul(ag_broadcast_to(x[0], ag_shape_of(x[1])), x[1]))
F(sum_to, ag_sum_to(x[0], AG_SHAPE(size_of(x[0], 1), 1)))
F(squeeze, ag_squeeze(ag_unsqueeze(x[0], 1), 1))
F(contiguous, ag_contiguous(ag_transpose(x[0], 0, 1)))
F(contiguous_again, contiguous_times(ag_transpose(x[0], 0, 1)))
F(concat, ag_concat((ag_var[]){ x[0], x[1], x[0], x[2] }, 4, 1))
F(stack, ag_stack((ag_var[]){ x[0], x[1] }, 2, 1))
F(softmax, ag_softmax(x[0], -1))
F(softmax_first, ag_softmax(x[0], 0))
F(log_softmax, ag_log_softmax(x[0], -1))
F(log_softmax_first, ag_log_softmax(x[0], 0))
F(layer_norm, ag_layer_norm(x[0], x[1], x[2], 0))
F(layer_norm_plain, ag_layer_norm(x[0], AG_NONE, AG_NONE, 1e-3))
F(layer_norm_gain, ag_layer_norm(x[0], x[1], AG_NONE, 0))
F(layer_norm_bias, ag_layer_norm(x[0], AG_NONE, x[1], 0))
F(rms_norm, ag_rms_norm(x[0], x[1], 0))
F(rms_norm_plain, ag_rms_norm(ag_transpose(x[0], 0, 1), AG_NONE, 0.1))
F(binary_cross_entropy, ag_binary_cross_entropy(x[0], ag_sigmoid(x[1]), AG_MEAN))
F(binary_cross_entropy_sum, ag_binary_cross_entropy(x[0], ag_sigmoid(x[1]), AG_SUM))
F(mean_squared_error, ag_mean_squared_error(x[0], x[1]))
F(twice, ag_add(ag_mul(x[0], x[0]), ag_add(x[0], x[0])))

F(where, ag_where(choice_of(c, x[0], x[1]), x[0], x[1]))
F(where_itself, ag_where(ag_relu(x[0]), x[0], x[1]))
F(masked_fill_itself, ag_masked_fill(x[0], ag_relu(x[0]), 0.7))
F(masked_fill, ag_masked_fill(x[0], mask_of(c, x[0]), 0.7))
F(masked_softmax, ag_softmax(ag_masked_fill(x[0], mask_of(c, x[0]), -INFINITY), -1))
F(gather_rows, ag_gather_rows(x[0], rows_of(c, x[0])))
F(gather_rows_add, ag_gather_rows_add(x[0], rows_of(c, x[0]), x[1]))
F(scatter_add_rows, ag_scatter_add_rows(x[0], labels_below(c, x[0], 1, 5), 5))
F(scatter_add_cubes, ag_scatter_add_rows(x[0], labels_below(c, x[0], 2, 5), 5))
F(cross_entropy, ag_cross_entropy(x[0], labels_of(c, x[0])))
F(cross_entropy_sum,
  ag_cross_entropy_with(x[0], labels_of(c, x[0]),
                        &(ag_cross_entropy_options){
                            .ignore = true, .ignore_index = 2, .reduction = AG_SUM }))
F(cross_entropy_ignore,
  ag_cross_entropy_with(x[0], labels_of(c, x[0]),
                        &(ag_cross_entropy_options){ .ignore = true, .ignore_index = 0 }))

static ag_var attend(const ag_var *x, int64_t heads, bool causal, ag_var lengths)
{
    return ag_attend(x[0], x[1], x[2],
                     &(ag_attend_options){ .heads = heads, .causal = causal, .lengths = lengths });
}

/* Of keys [.., t, d], a number for each leading place, at most t: for t = 3 all, some, none. */
static ag_var lengths_of(ag_context *c, ag_var keys)
{
    ag_shape shape = ag_shape_of(keys);
    shape.rank = shape.rank > 2 ? shape.rank - 2 : 0;
    return indices_like(c, shape, PATTERN(3, 2, 0, 4, 1, 3), size_of(keys, -2) + 1);
}

F(attend, ag_attend(x[0], x[1], x[2], NULL))
F(attend_heads, attend(x, 2, false, AG_NONE))
F(attend_causal, attend(x, 2, true, AG_NONE))
F(attend_lengths, attend(x, 1, false, lengths_of(c, x[1])))
F(attend_both, attend(x, 2, true, lengths_of(c, x[1])))
F(attend_itself,
  ag_attend(x[0], ag_transpose(x[0], 0, 1), x[0], &(ag_attend_options){ .scale = 1 }))

#define VECTOR(domain, n) \
    {                     \
        domain, 1,        \
        {                 \
            n             \
        }                 \
    }
#define MATRIX(domain, m, n) \
    {                        \
        domain, 2,           \
        {                    \
            m, n             \
        }                    \
    }
#define CUBE(domain, l, m, n) \
    {                         \
        domain, 3,            \
        {                     \
            l, m, n           \
        }                     \
    }

/* clang-format off */
static const ag_op_case cases[] = {
    { "add", "add", f_add, false, 2, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "add/broadcast", "add", f_add, false, 2, { CUBE(AG_ANY, 2, 1, 4), MATRIX(AG_ANY, 3, 1) }, 0 },
    { "sub", "sub", f_sub, false, 2, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "sub/broadcast", "sub", f_sub, false, 2, { VECTOR(AG_ANY, 4), CUBE(AG_ANY, 2, 3, 1) }, 0 },
    { "mul", "mul", f_mul, false, 2, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "mul/broadcast", "mul", f_mul, false, 2, { CUBE(AG_ANY, 2, 1, 4), MATRIX(AG_ANY, 3, 1) }, 0 },
    { "mul/twice", "mul", f_twice, false, 1, { MATRIX(AG_ANY, 2, 3) }, 0 },
    { "div", "div", f_div, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "div/broadcast", "div", f_div, false, 2, { MATRIX(AG_ANY, 3, 1), CUBE(AG_NONZERO, 2, 1, 4) }, 0 },
    { "maximum", "maximum", f_maximum, false, 2, { MATRIX(AG_SEPARATE, 3, 4), MATRIX(AG_SEPARATE, 3, 4) }, 0 },
    { "maximum/broadcast", "maximum", f_maximum, false, 2, { MATRIX(AG_SEPARATE, 3, 4), VECTOR(AG_SEPARATE, 1) }, 0 },
    { "minimum", "minimum", f_minimum, false, 2, { MATRIX(AG_SEPARATE, 3, 4), MATRIX(AG_SEPARATE, 3, 4) }, 0 },
    { "minimum/broadcast", "minimum", f_minimum, false, 2, { VECTOR(AG_SEPARATE, 1), MATRIX(AG_SEPARATE, 3, 4) }, 0 },
    { "scale", "scale", f_scale, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "shift", "shift", f_shift, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow", "pow", f_pow, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "pow/0", "pow", f_pow_0, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow/1", "pow", f_pow_1, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow/2", "pow", f_pow_2, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow/3", "pow", f_pow_3, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow/4", "pow", f_pow_4, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "pow/-1", "pow", f_pow_minus_1, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "pow/-2", "pow", f_pow_minus_2, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "pow/0.5", "pow", f_pow_half, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "pow/negative", "pow", f_pow_negative, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "neg", "neg", f_neg, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "square", "square", f_square, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "sqrt", "sqrt", f_sqrt, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "rsqrt", "rsqrt", f_rsqrt, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "reciprocal", "reciprocal", f_reciprocal, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "exp", "exp", f_exp, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "log", "log", f_log, false, 1, { MATRIX(AG_POSITIVE, 3, 4) }, 0 },
    { "sin", "sin", f_sin, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "cos", "cos", f_cos, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "tanh", "tanh", f_tanh, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "erf", "erf", f_erf, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "erfc", "erfc", f_erfc, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "sigmoid", "sigmoid", f_sigmoid, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "softplus", "softplus", f_softplus, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "relu", "relu", f_relu, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "gelu", "gelu", f_gelu, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "gelu_tanh", "gelu_tanh", f_gelu_tanh, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "silu", "silu", f_silu, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "abs", "abs", f_abs, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "sign", "sign", f_sign, true, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "equal", "equal", f_equal, true, 2, { MATRIX(AG_ANY, 3, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "greater", "greater", f_greater, true, 2, { MATRIX(AG_ANY, 3, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "argmax", "argmax", f_argmax, true, 1, { MATRIX(AG_ANY, 3, 4) }, AG_REFUSES_SIZE_0 },
    { "where", "where", f_where, false, 2, { MATRIX(AG_ANY, 3, 4), CUBE(AG_ANY, 2, 1, 1) }, 0 },
    { "where/itself", "where", f_where_itself, false, 2, { MATRIX(AG_NONZERO, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "masked_fill/itself", "masked_fill", f_masked_fill_itself, false, 1, { MATRIX(AG_NONZERO, 3, 4) }, 0 },
    { "masked_fill", "masked_fill", f_masked_fill, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "cast", "cast", f_cast, false, 1, { MATRIX(AG_DYADIC, 3, 4) }, 0 },
    { "sum", "sum", f_sum, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "sum/all", "sum", f_sum_all, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "sum/keep", "sum", f_sum_keep, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "mean", "sum", f_mean, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "max", "max", f_max, false, 1, { CUBE(AG_SEPARATE, 2, 3, 4) }, 0 },
    { "max/over", "max", f_max_over, false, 1, { CUBE(AG_SEPARATE, 2, 3, 4) }, 0 },
    { "logsumexp", "logsumexp", f_logsumexp, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "logsumexp/over", "logsumexp", f_logsumexp_over, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "cumsum", "cumsum", f_cumsum, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "cumsum/last", "cumsum", f_cumsum_last, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "matmul", "matmul", f_matmul, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 4, 5) }, 0 },
    { "matmul/square", "matmul", f_matmul, false, 2, { MATRIX(AG_ANY, 3, 3), MATRIX(AG_ANY, 3, 3) }, 0 },
    { "matmul/rows", "matmul", f_matmul, false, 2, { CUBE(AG_ANY, 2, 3, 4), MATRIX(AG_ANY, 4, 5) }, 0 },
    { "matmul/batch", "matmul", f_matmul, false, 2, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 4, 5) }, 0 },
    { "matmul/broadcast", "matmul", f_matmul, false, 2, { CUBE(AG_ANY, 1, 3, 4), CUBE(AG_ANY, 2, 4, 3) }, 0 },
    { "matmul/left", "matmul", f_matmul, false, 2, { MATRIX(AG_ANY, 3, 4), CUBE(AG_ANY, 2, 4, 3) }, 0 },
    { "matmul/transposed", "matmul", f_matmul_transposed, false, 2, { CUBE(AG_ANY, 2, 4, 3), MATRIX(AG_ANY, 4, 2) }, 0 },
    { "affine", "affine", f_affine, false, 3, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 4, 5), VECTOR(AG_ANY, 5) }, AG_REFUSES_SAME },
    { "affine/vector", "affine", f_affine, false, 3, { VECTOR(AG_ANY, 4), MATRIX(AG_ANY, 4, 5), VECTOR(AG_ANY, 5) }, AG_REFUSES_SAME },
    { "affine/rows", "affine", f_affine, false, 3, { CUBE(AG_ANY, 2, 3, 4), MATRIX(AG_ANY, 4, 2), VECTOR(AG_ANY, 2) }, AG_REFUSES_SAME },
    { "affine/plain", "affine", f_affine_plain, false, 2, { CUBE(AG_ANY, 2, 3, 4), MATRIX(AG_ANY, 4, 2) }, 0 },
    { "affine/transposed", "affine", f_affine_transposed, false, 3, { CUBE(AG_ANY, 2, 4, 3), MATRIX(AG_ANY, 2, 4), VECTOR(AG_ANY, 2) }, AG_REFUSES_SAME },
    { "affine/residual", "affine", f_affine_add, false, 4, { CUBE(AG_ANY, 2, 3, 4), MATRIX(AG_ANY, 4, 2), VECTOR(AG_ANY, 2), CUBE(AG_ANY, 2, 3, 2) }, AG_REFUSES_SAME },
    { "affine/residual_vector", "affine", f_affine_add, false, 4, { VECTOR(AG_ANY, 4), MATRIX(AG_ANY, 4, 2), VECTOR(AG_ANY, 2), VECTOR(AG_ANY, 2) }, AG_REFUSES_SAME },
    { "affine/residual_plain", "affine", f_affine_add_plain, false, 3, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 4, 2), MATRIX(AG_ANY, 3, 2) }, 0 },
    { "affine_gelu", "affine_gelu", f_affine_gelu, false, 3, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 4, 5), VECTOR(AG_ANY, 5) }, AG_REFUSES_SAME },
    { "affine_gelu/rows", "affine_gelu", f_affine_gelu, false, 3, { CUBE(AG_ANY, 2, 3, 4), MATRIX(AG_ANY, 4, 2), VECTOR(AG_ANY, 2) }, AG_REFUSES_SAME },
    { "affine_gelu/vector", "affine_gelu", f_affine_gelu_plain, false, 2, { VECTOR(AG_ANY, 4), MATRIX(AG_ANY, 4, 2) }, 0 },
    { "affine/itself", "affine", f_affine_itself, false, 2, { MATRIX(AG_ANY, 3, 3), VECTOR(AG_ANY, 6) }, AG_REFUSES_SAME },
    { "dot", "mul", f_dot, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "outer", "mul", f_outer, false, 2, { VECTOR(AG_ANY, 3), VECTOR(AG_ANY, 4) }, 0 },
    { "permute", "permute", f_permute, false, 2, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 4, 2, 3) }, 0 },
    { "permute/cube", "permute", f_permute, false, 2, { CUBE(AG_ANY, 3, 3, 3), CUBE(AG_ANY, 3, 3, 3) }, 0 },
    { "transpose", "permute", f_transpose, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 4, 3) }, 0 },
    { "reshape", "reshape", f_reshape, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "reshape/rest", "reshape", f_reshape_rest, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, AG_REFUSES_SIZE_0 | AG_REFUSES_SIZE_1 },
    { "slice", "slice", f_slice, false, 1, { CUBE(AG_ANY, 2, 4, 3) }, 0 },
    { "unslice", "unslice", f_unslice, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "flip", "flip", f_flip, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "broadcast_to", "broadcast_to", f_broadcast_to, false, 2, { MATRIX(AG_ANY, 3, 1), CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "broadcast_to/front", "broadcast_to", f_broadcast_to, false, 2, { MATRIX(AG_ANY, 3, 4), CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "sum_to", "sum_to", f_sum_to, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "squeeze", "reshape", f_squeeze, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "contiguous", "contiguous", f_contiguous, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "contiguous/again", "contiguous", f_contiguous_again, false, 1, { MATRIX(AG_ANY, 3, 4) }, 0 },
    { "concat", "concat", f_concat, false, 3, { MATRIX(AG_ANY, 3, 2), MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 3) }, 0 },
    { "stack", "concat", f_stack, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "gather_rows", "gather_rows", f_gather_rows, false, 1, { MATRIX(AG_ANY, 4, 3) }, 0 },
    { "gather_rows/add", "gather_rows", f_gather_rows_add, false, 2, { MATRIX(AG_ANY, 4, 3), VECTOR(AG_ANY, 3) }, 0 },
    { "gather_rows/cube", "gather_rows", f_gather_rows, false, 1, { CUBE(AG_ANY, 4, 2, 3) }, 0 },
    { "gather_rows/cube_add", "gather_rows", f_gather_rows_add, false, 2, { CUBE(AG_ANY, 4, 2, 3), MATRIX(AG_ANY, 2, 1) }, 0 },
    { "scatter_add_rows", "scatter_add_rows", f_scatter_add_rows, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "scatter_add_rows/cube", "scatter_add_rows", f_scatter_add_cubes, false, 1, { CUBE(AG_ANY, 3, 2, 4) }, 0 },
    { "softmax", "softmax", f_softmax, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "softmax/first", "softmax", f_softmax_first, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "softmax/masked", "softmax", f_masked_softmax, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "log_softmax", "log_softmax", f_log_softmax, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "log_softmax/first", "log_softmax", f_log_softmax_first, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "layer_norm", "layer_norm", f_layer_norm, false, 3, { CUBE(AG_ANY, 2, 3, 4), VECTOR(AG_ANY, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "layer_norm/plain", "layer_norm", f_layer_norm_plain, false, 1, { MATRIX(AG_ANY, 3, 5) }, 0 },
    { "layer_norm/gain", "layer_norm", f_layer_norm_gain, false, 2, { MATRIX(AG_ANY, 3, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "layer_norm/bias", "layer_norm", f_layer_norm_bias, false, 2, { MATRIX(AG_ANY, 3, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "rms_norm", "rms_norm", f_rms_norm, false, 2, { CUBE(AG_ANY, 2, 3, 4), VECTOR(AG_ANY, 4) }, 0 },
    { "rms_norm/plain", "rms_norm", f_rms_norm_plain, false, 1, { MATRIX(AG_ANY, 4, 3) }, 0 },
    { "cross_entropy", "cross_entropy", f_cross_entropy, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "cross_entropy/sum", "cross_entropy", f_cross_entropy_sum, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "cross_entropy/ignore", "cross_entropy", f_cross_entropy_ignore, false, 1, { CUBE(AG_ANY, 2, 3, 4) }, 0 },
    { "attend", "attend", f_attend, false, 3, { MATRIX(AG_ANY, 3, 2), MATRIX(AG_ANY, 4, 2), MATRIX(AG_ANY, 4, 3) }, 0 },
    { "attend/heads", "attend", f_attend_heads, false, 3, { CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 2, 4), CUBE(AG_ANY, 2, 2, 6) }, AG_REFUSES_SIZE_0 | AG_REFUSES_SIZE_1 },
    { "attend/causal", "attend", f_attend_causal, false, 3, { CUBE(AG_ANY, 2, 4, 4), CUBE(AG_ANY, 2, 3, 4), CUBE(AG_ANY, 2, 3, 2) }, AG_REFUSES_SIZE_0 | AG_REFUSES_SIZE_1 },
    { "attend/lengths", "attend", f_attend_lengths, false, 3, { CUBE(AG_ANY, 3, 2, 2), CUBE(AG_ANY, 3, 3, 2), CUBE(AG_ANY, 3, 3, 2) }, 0 },
    { "attend/both", "attend", f_attend_both, false, 3, { CUBE(AG_ANY, 2, 3, 2), CUBE(AG_ANY, 2, 4, 2), CUBE(AG_ANY, 2, 4, 2) }, AG_REFUSES_SIZE_0 | AG_REFUSES_SIZE_1 },
    { "attend/itself", "attend", f_attend_itself, false, 1, { MATRIX(AG_ANY, 3, 3) }, 0 },
    { "binary_cross_entropy", "softplus", f_binary_cross_entropy, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "binary_cross_entropy/sum", "softplus", f_binary_cross_entropy_sum, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
    { "mean_squared_error", "square", f_mean_squared_error, false, 2, { MATRIX(AG_ANY, 3, 4), MATRIX(AG_ANY, 3, 4) }, 0 },
};
/* clang-format on */

int ag_op_case_count(void)
{
    return (int)(sizeof cases / sizeof cases[0]);
}

const ag_op_case *ag_op_case_at(int i)
{
    return i >= 0 && i < ag_op_case_count() ? &cases[i] : NULL;
}
