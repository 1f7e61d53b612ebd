/* The kernels that are compared with slow ones: each operation of the library, and optimisers. */
#include "precision_cases.h"

#include <stdlib.h>

enum { N = AG_PRECISION_N };

/* ---- What the functions below need ---- */

static ag_dtype other_float(ag_var x)
{
    return ag_dtype_of(x) == AG_F32 ? AG_F64 : AG_F32;
}

/* Indices below end: some several times, some perhaps never. */
static ag_var indices_below(ag_context *c, ag_shape shape, int64_t end)
{
    int64_t count = ag_shape_count(shape);
    int64_t *indices = malloc((size_t)(count + 1) * sizeof *indices);
    for (int64_t k = 0; indices && k < count; k++)
        indices[k] = end > 0 ? (3 * k * k + 5 * k + 1) % end : 0;
    ag_var v = ag_indices(c, shape, indices);
    free(indices);
    return v;
}

static ag_var some_rows(ag_context *c, ag_var table)
{
    return indices_below(c, AG_SHAPE(2, 3), ag_shape_of(table).dims[0]);
}

static ag_var places_of_rows(ag_context *c, ag_var rows)
{
    return indices_below(c, AG_SHAPE(ag_shape_of(rows).dims[0]), 5);
}

static ag_var two_lengths(ag_context *c, ag_var keys)
{
    int64_t t = ag_shape_of(keys).dims[1];
    return ag_indices(c, AG_SHAPE(2), (int64_t[]){ t, (t + 1) / 2 });
}

/* The first label is the one that may be ignored. */
static ag_var cross_entropy(ag_context *c, ag_var x, const ag_cross_entropy_options *options)
{
    int64_t classes = ag_shape_of(x).dims[1], labels[3] = { 0, classes / 2, classes - 1 };
    return ag_cross_entropy_with(x, ag_indices(c, AG_SHAPE(3), labels), options);
}

typedef enum optimiser { SGD, MOMENTUM, ADAM, ADAMW } optimiser;

static ag_optimizer *optimiser_of(ag_params *params, optimiser kind)
{
    const ag_adam_options adam = { .lr = 0.1 };
    if (kind == SGD || kind == MOMENTUM)
        return ag_sgd_new(params,
                          &(ag_sgd_options){ .lr = 0.1, .momentum = kind == SGD ? 0 : 0.9 });
    return (kind == ADAM ? ag_adam_new : ag_adamw_new)(params, &adam);
}

/* The parameters x[0] after three steps with gradients x[1]. */
static ag_var optimised(ag_context *c, const ag_var *x, optimiser kind)
{
    ag_params *params = ag_params_new(c);
    ag_var w = ag_params_add(params, NULL, "w", ag_shape_of(x[0]), (ag_init){ AG_INIT_ZEROS, 0 });
    ag_tensor_copy(c, ag_value_mutable(w), ag_value(x[0]));
    ag_optimizer *o = optimiser_of(params, kind);
    for (int step = 0; step < 3; step++) {
        ag_backward_from(ag_scale(w, 1.0), ag_detach(x[1]));
        ag_optimizer_step(o);
    }
    return ag_value(w) ? ag_from_tensor(c, ag_value(w)) : AG_NONE;
}

/* ---- The functions ---- */

#define F(name, result) AG_CASE_FUNCTION(p_##name, result)

F(add, ag_add(x[0], x[1]))
F(sub, ag_sub(x[0], x[1]))
F(mul, ag_mul(x[0], x[1]))
F(div, ag_div(x[0], x[1]))
F(maximum, ag_maximum(x[0], x[1]))
F(minimum, ag_minimum(x[0], x[1]))
F(scale, ag_scale(x[0], 1.7))
F(shift, ag_shift(x[0], 0.3))
F(pow, ag_pow(x[0], 2.7))
F(pow_2, ag_pow(x[0], 2.0))
F(pow_3, ag_pow(x[0], 3.0))
F(pow_4, ag_pow(x[0], 4.0))
F(pow_half, ag_pow(x[0], 0.5))
F(pow_minus_1, ag_pow(x[0], -1.0))
F(pow_minus_2, ag_pow(x[0], -2.0))
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
F(equal, ag_equal(x[0], ag_relu(x[0])))
F(greater, ag_greater(x[0], x[1]))
F(argmax, ag_argmax(x[0], 1))
F(argmax_first, ag_argmax(x[0], 0))
F(where, ag_where(ag_relu(x[0]), x[1], x[2]))
F(masked_fill, ag_masked_fill(x[0], ag_relu(x[1]), 0.7))
F(cast, ag_cast(ag_cast(x[0], other_float(x[0])), ag_dtype_of(x[0])))
F(cast_integer, ag_cast(ag_cast(ag_scale(x[0], 8.0), AG_I64), ag_dtype_of(x[0])))
F(sum, ag_sum(x[0], 1, 0))
F(sum_first, ag_sum(x[0], 0, 0))
F(sum_all, ag_sum(x[0], AG_ALL, 0))
F(max, ag_max(x[0], 1, 0))
F(max_first, ag_max(x[0], 0, 0))
F(logsumexp, ag_logsumexp(x[0], -1, 0))
F(logsumexp_first, ag_logsumexp(x[0], 0, 0))
F(cumsum, ag_cumsum(x[0], 1))
F(cumsum_first, ag_cumsum(x[0], 0))
F(matmul, ag_matmul(x[0], x[1]))
F(affine, ag_affine_add(x[0], x[1], x[2], x[3]))
F(affine_gelu, ag_affine_gelu(x[0], x[1], x[2]))
F(permute, ag_contiguous(ag_transpose(x[0], 0, 1)))
F(reshape, ag_reshape(ag_transpose(x[0], 0, 1), AG_SHAPE(-1)))
F(slice, ag_slice(x[0], -1, 1, AG_END, 2))
F(unslice, ag_add(ag_slice(x[0], -1, 0, -1, 1), ag_slice(x[0], -1, 1, AG_END, 1)))
F(flip, ag_mul(ag_flip(x[0], -1), x[0]))
F(broadcast_to, ag_contiguous(ag_broadcast_to(x[0], ag_shape_of(x[1]))))
F(sum_to, ag_sum_to(x[0], ag_shape_of(x[1])))
F(concat, ag_concat((ag_var[]){ x[0], x[1], x[0] }, 3, 1))
F(accumulate, ag_add(ag_scale(x[0], 1.5), ag_scale(x[0], 0.7)))
F(accumulate_views, ag_add(ag_transpose(x[0], 0, 1), ag_transpose(ag_square(x[0]), 0, 1)))
F(gather_rows, ag_gather_rows(x[0], some_rows(c, x[0])))
F(gather_rows_add, ag_gather_rows_add(x[0], some_rows(c, x[0]), x[1]))
F(scatter_add_rows, ag_scatter_add_rows(x[0], places_of_rows(c, x[0]), 5))
F(softmax, ag_softmax(x[0], -1))
F(softmax_first, ag_softmax(x[0], 0))
F(log_softmax, ag_log_softmax(x[0], -1))
F(layer_norm, ag_layer_norm(x[0], x[1], x[2], 0.1))
F(rms_norm, ag_rms_norm(x[0], x[1], 0.1))
F(cross_entropy, cross_entropy(c, x[0], NULL))
F(cross_entropy_ignore,
  cross_entropy(c, x[0], &(ag_cross_entropy_options){ .ignore = true, .reduction = AG_SUM }))
F(attend, ag_attend(x[0], x[1], x[2], &(ag_attend_options){ .heads = 2, .causal = true }))
F(attend_lengths,
  ag_attend(x[0], x[1], x[2], &(ag_attend_options){ .lengths = two_lengths(c, x[1]) }))
F(attend_wide, ag_attend(x[0], x[1], x[2], NULL))
F(sgd, optimised(c, x, SGD))
F(momentum, optimised(c, x, MOMENTUM))
F(adam, optimised(c, x, ADAM))
F(adamw, optimised(c, x, ADAMW))

/* clang-format off */
#define ROW { AG_ANY, 1, { N } }
#define POSITIVE { AG_POSITIVE, 1, { N } }
#define NONZERO { AG_NONZERO, 1, { N } }
#define VECTOR(n) { AG_ANY, 1, { n } }
#define TABLE(rows, columns) { AG_ANY, 2, { rows, columns } }
#define CUBE(l, m, n) { AG_ANY, 3, { l, m, n } }

static const ag_precision_case cases[] = {
    { "add", "add", p_add, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "sub", "sub", p_sub, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "mul", "mul", p_mul, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "maximum", "maximum", p_maximum, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "minimum", "minimum", p_minimum, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "div", "div", p_div, 2, { TABLE(3, N), POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "add/flat", "add", p_add, 2, { ROW, ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "mul/flat", "mul", p_mul, 2, { ROW, ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "mul/column", "mul", p_mul, 2, { TABLE(N, 3), TABLE(N, 1) }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "mul/number", "mul", p_mul, 2, { ROW, VECTOR(1) }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "maximum/flat", "maximum", p_maximum, 2, { ROW, ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "scale", "scale", p_scale, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "shift", "shift", p_shift, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow", "pow", p_pow, 1, { POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/2", "pow", p_pow_2, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/3", "pow", p_pow_3, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/4", "pow", p_pow_4, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/0.5", "pow", p_pow_half, 1, { POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/-1", "pow", p_pow_minus_1, 1, { NONZERO }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "pow/-2", "pow", p_pow_minus_2, 1, { NONZERO }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "neg", "neg", p_neg, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "square", "square", p_square, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "sqrt", "sqrt", p_sqrt, 1, { POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "rsqrt", "rsqrt", p_rsqrt, 1, { POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "reciprocal", "reciprocal", p_reciprocal, 1, { NONZERO }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "exp", "exp", p_exp, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "log", "log", p_log, 1, { POSITIVE }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "sin", "sin", p_sin, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "cos", "cos", p_cos, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "tanh", "tanh", p_tanh, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "erf", "erf", p_erf, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "erfc", "erfc", p_erfc, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "sigmoid", "sigmoid", p_sigmoid, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "softplus", "softplus", p_softplus, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "relu", "relu", p_relu, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "gelu", "gelu", p_gelu, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "gelu_tanh", "gelu_tanh", p_gelu_tanh, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "silu", "silu", p_silu, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "abs", "abs", p_abs, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "sign", "sign", p_sign, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "equal", "equal", p_equal, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "greater", "greater", p_greater, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "argmax", "argmax", p_argmax, 1, { TABLE(3, N) }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "argmax/first", "argmax", p_argmax_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "where", "where", p_where, 3, { TABLE(3, N), ROW, TABLE(3, N) }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "masked_fill", "masked_fill", p_masked_fill, 2, { TABLE(3, N), ROW }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "cast", "cast", p_cast, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "cast/integer", "cast", p_cast_integer, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "sum", "sum", p_sum, 1, { TABLE(3, N) }, AG_SIZES_LONG, 8, AG_TERMS_CANCEL },
    { "sum/first", "sum", p_sum_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "sum/rows", "sum", p_sum_first, 1, { TABLE(N, 5) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "sum/all", "sum", p_sum_all, 1, { TABLE(3, N) }, AG_SIZES_LONG, 8, AG_TERMS_CANCEL },
    { "max", "max", p_max, 1, { TABLE(3, N) }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "max/first", "max", p_max_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "max/rows", "max", p_max_first, 1, { TABLE(N, 5) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "logsumexp", "logsumexp", p_logsumexp, 1, { TABLE(3, N) }, AG_SIZES_LONG, 4, AG_TERMS_CANCEL },
    { "logsumexp/first", "logsumexp", p_logsumexp_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "cumsum", "cumsum", p_cumsum, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "cumsum/first", "cumsum", p_cumsum_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "matmul", "matmul", p_matmul, 2, { TABLE(N, N), TABLE(N, N) }, AG_SIZES_SMALL, 8, AG_TERMS_CANCEL },
    { "matmul/row", "matmul", p_matmul, 2, { TABLE(1, N), TABLE(N, 19) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "matmul/column", "matmul", p_matmul, 2, { TABLE(19, N), TABLE(N, 1) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "matmul/inner", "matmul", p_matmul, 2, { TABLE(5, N), TABLE(N, 19) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "matmul/long", "matmul", p_matmul, 2, { TABLE(5, 300), TABLE(300, N) }, AG_SIZES_SMALL, 8, AG_TERMS_CANCEL },
    { "matmul/wide", "matmul", p_matmul, 2, { TABLE(5, 9), TABLE(9, N) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "matmul/batch", "matmul", p_matmul, 2, { CUBE(2, N, 5), CUBE(2, 5, 7) }, AG_SIZES_TALL, 8, AG_TERMS_CANCEL },
    { "matmul/shared", "matmul", p_matmul, 2, { CUBE(3, N, 24), CUBE(3, 24, 40) }, AG_SIZES_HALF, 8, AG_TERMS_CANCEL },
    { "matmul/pieces", "matmul", p_matmul, 2, { TABLE(40, N), TABLE(N, 40) }, AG_SIZES_HALF, 8, AG_TERMS_CANCEL },
    { "affine", "affine", p_affine, 4, { TABLE(7, N), TABLE(N, 5), VECTOR(5), TABLE(7, 5) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "affine_gelu", "affine_gelu", p_affine_gelu, 3, { TABLE(3, 5), TABLE(5, N), ROW }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "permute", "permute", p_permute, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "contiguous", "contiguous", p_permute, 1, { CUBE(2, N, 3) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "reshape", "reshape", p_reshape, 1, { TABLE(N, 3) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "slice", "slice", p_slice, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_ALIKE },
    { "unslice", "unslice", p_unslice, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "flip", "flip", p_flip, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "broadcast_to", "broadcast_to", p_broadcast_to, 2, { ROW, TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "sum_to", "sum_to", p_sum_to, 2, { TABLE(3, N), ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "concat", "concat", p_concat, 2, { TABLE(3, N), TABLE(3, 5) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "accumulate", "add", p_accumulate, 1, { ROW }, AG_SIZES_LONG, 4, AG_TERMS_ALIKE },
    { "accumulate/views", "add", p_accumulate_views, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "gather_rows", "gather_rows", p_gather_rows, 1, { TABLE(4, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "gather_rows/tall", "gather_rows", p_gather_rows, 1, { TABLE(N, 3) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "gather_rows/cube", "gather_rows", p_gather_rows, 1, { CUBE(4, 3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "gather_rows/add", "gather_rows", p_gather_rows_add, 2, { TABLE(4, N), ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "scatter_add_rows", "scatter_add_rows", p_scatter_add_rows, 1, { TABLE(7, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "scatter_add_rows/cube", "scatter_add_rows", p_scatter_add_rows, 1, { CUBE(N, 2, 3) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "softmax", "softmax", p_softmax, 1, { TABLE(3, N) }, AG_SIZES_LONG, 8, AG_TERMS_CANCEL },
    { "softmax/first", "softmax", p_softmax_first, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 8, AG_TERMS_CANCEL },
    { "log_softmax", "log_softmax", p_log_softmax, 1, { TABLE(3, N) }, AG_SIZES_LONG, 8, AG_TERMS_CANCEL },
    { "layer_norm", "layer_norm", p_layer_norm, 3, { TABLE(3, N), ROW, ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "rms_norm", "rms_norm", p_rms_norm, 2, { TABLE(3, N), ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "cross_entropy", "cross_entropy", p_cross_entropy, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "cross_entropy/ignore", "cross_entropy", p_cross_entropy_ignore, 1, { TABLE(3, N) }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "attend", "attend", p_attend, 3, { TABLE(N, 6), TABLE(N, 6), TABLE(N, 6) }, AG_SIZES_MEDIUM, 8, AG_TERMS_ELSEWHERE },
    { "attend/lengths", "attend", p_attend_lengths, 3, { CUBE(2, 5, 4), CUBE(2, N, 4), CUBE(2, N, 3) }, AG_SIZES_EDGES, 8, AG_TERMS_ELSEWHERE },
    { "attend/wide", "attend", p_attend_wide, 3, { TABLE(9, N), TABLE(9, N), TABLE(9, N) }, AG_SIZES_SMALL, 8, AG_TERMS_ELSEWHERE },
    { "optimiser/sgd", "sgd", p_sgd, 2, { ROW, ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "optimiser/momentum", "momentum", p_momentum, 2, { ROW, ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "optimiser/adam", "adam", p_adam, 2, { ROW, ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "optimiser/adamw", "adamw", p_adamw, 2, { ROW, ROW }, AG_SIZES_EDGES, 4, AG_TERMS_CANCEL },
    { "add/shared", "add", p_add, 2, { ROW, ROW }, AG_SIZES_SHARED, 4, AG_TERMS_ALIKE },
    { "exp/shared", "exp", p_exp, 1, { ROW }, AG_SIZES_SHARED, 4, AG_TERMS_ALIKE },
    { "sum/shared", "sum", p_sum_all, 1, { ROW }, AG_SIZES_SHARED, 8, AG_TERMS_CANCEL },
};
/* clang-format on */
enum { CASES = sizeof cases / sizeof cases[0] };

int ag_precision_case_count(void)
{
    return CASES;
}

const ag_precision_case *ag_precision_case_at(int i)
{
    return i >= 0 && i < CASES ? &cases[i] : NULL;
}
