/* Functions of autograd.h with arguments that they must refuse: wrong shapes,
 * dtypes, axes, indices, options, NULL. Each gives its own error, in a sentence
 * that names the operation and the variables with their shapes. */
#include "world.h"

typedef struct argument_case {
    const char *operation, *call;
    ag_error error;
    const char *words; /* in the message */
    const char *text;  /* of the call */
    bool (*run)(const world *w);
} argument_case;

static bool grad_n(ag_var y, const ag_var *inputs, int n, ag_var *gradients)
{
    return ag_grad(y, inputs, n, gradients, 0);
}

static ag_var cross_entropy_reduced(const world *w, int reduction)
{
    ag_cross_entropy_options options = { .reduction = (ag_reduction)reduction };
    return ag_cross_entropy_with(w->x, w->labels, &options);
}

#define UNARY(X, name) X(name##_i64, #name, DTYPE, "i [2,3] is i64", valid(ag_##name(w->i)))

/* clang-format off */
#define ARGUMENTS(X) \
    UNARY(X, neg) UNARY(X, square) UNARY(X, sqrt) UNARY(X, rsqrt) UNARY(X, reciprocal) UNARY(X, exp) \
    UNARY(X, log) UNARY(X, sin) UNARY(X, cos) UNARY(X, tanh) UNARY(X, erf) UNARY(X, sigmoid) \
    UNARY(X, softplus) UNARY(X, relu) UNARY(X, gelu) UNARY(X, gelu_tanh) UNARY(X, silu) UNARY(X, abs) \
    UNARY(X, sign) \
    X(scale_i64, "scale", DTYPE, "i [2,3] is i64", valid(ag_scale(w->i, 2))) \
    X(shift_i64, "shift", DTYPE, "i [2,3] is i64", valid(ag_shift(w->i, 2))) \
    X(pow_i64, "pow", DTYPE, "i [2,3] is i64", valid(ag_pow(w->i, 2))) \
    X(sum_i64, "sum", DTYPE, "i [2,3] is i64", valid(ag_sum(w->i, 0, 0))) \
    X(max_i64, "max", DTYPE, "i [2,3] is i64", valid(ag_max(w->i, 0, 0))) \
    X(logsumexp_i64, "logsumexp", DTYPE, "i [2,3] is i64", valid(ag_logsumexp(w->i, 0, 0))) \
    X(cumsum_i64, "cumsum", DTYPE, "i [2,3] is i64", valid(ag_cumsum(w->i, 0))) \
    X(argmax_i64, "argmax", DTYPE, "i [2,3] is i64", valid(ag_argmax(w->i, 0))) \
    X(softmax_i64, "softmax", DTYPE, "i [2,3] is i64", valid(ag_softmax(w->i, -1))) \
    X(log_softmax_i64, "log_softmax", DTYPE, "i [2,3] is i64", valid(ag_log_softmax(w->i, -1))) \
    X(sum_to_i64, "sum_to", DTYPE, "i [2,3] is i64", valid(ag_sum_to(w->i, AG_SHAPE(3)))) \
    X(add_i64, "add", DTYPE, "i [2,3] is i64", valid(ag_add(w->i, w->i))) \
    X(add_dtypes, "add", DTYPE, "x [2,3] is f32, d [2,3] is f64", valid(ag_add(w->x, w->d))) \
    X(mul_dtypes, "mul", DTYPE, "x [2,3] is f32, d [2,3] is f64", valid(ag_mul(w->x, w->d))) \
    X(equal_dtypes, "equal", DTYPE, "x [2,3] is f32, i [2,3] is i64", valid(ag_equal(w->x, w->i))) \
    X(greater_dtypes, "greater", DTYPE, "x [2,3] is f32, i [2,3] is i64", valid(ag_greater(w->x, w->i))) \
    X(where_dtypes, "where", DTYPE, "x [2,3] is f32, d [2,3] is f64", valid(ag_where(w->i, w->x, w->d))) \
    X(matmul_dtypes, "matmul", DTYPE, "x [2,3] is f32", valid(ag_matmul(w->x, w->d))) \
    X(matmul_i64, "matmul", DTYPE, "i [2,3] is i64", valid(ag_matmul(w->i, w->i))) \
    X(dot_dtypes, "mul", DTYPE, "x [2,3] is f32", valid(ag_dot(w->x, w->d))) \
    X(concat_dtypes, "concat", DTYPE, "x [2,3] is f32, d [2,3] is f64", valid(ag_concat(LIST(w->x, w->d), 0))) \
    X(gather_dtype, "gather_rows", DTYPE, "y [2,3] are f32", valid(ag_gather_rows(w->x, w->y))) \
    X(scatter_dtype, "scatter_add_rows", DTYPE, "y [2,3] are f32", valid(ag_scatter_add_rows(w->x, w->y, 2))) \
    X(scatter_rows_i64, "scatter_add_rows", DTYPE, "i [2,3] is i64", valid(ag_scatter_add_rows(w->i, w->i, 2))) \
    X(labels_dtype, "cross_entropy", DTYPE, "y [2,3] are f32", valid(ag_cross_entropy(w->x, w->y))) \
    X(logits_dtype, "cross_entropy", DTYPE, "i [2,3] is i64", valid(ag_cross_entropy(w->i, w->i))) \
    X(cast_dtype, "cast", DTYPE, "x [2,3] to an unknown dtype", valid(ag_cast(w->x, (ag_dtype)99))) \
    X(require_i64, "require_gradient", DTYPE, "i [2,3] is i64", valid(ag_require_gradient(w->i))) \
    X(backward_i64, "backward", DTYPE, "i [2,3] is i64", ag_backward(w->i)) \
    X(gradcheck_f32, "gradcheck", DTYPE, "x [2,3] is f32", checked(w, w->x, false)) \
    X(parameter_i64, "parameter", DTYPE, "p is i64", valid(ag_parameter(w->ctx, "p", AG_I64, AG_SHAPE(2)))) \
    X(parameter_dtype, "parameter", DTYPE, "unknown dtype", valid(ag_parameter(w->ctx, "p", (ag_dtype)99, AG_SHAPE(2)))) \
    \
    X(add_shapes, "add", SHAPE, "x [2,3] and wide [4,5]", valid(ag_add(w->x, w->wide))) \
    X(sub_shapes, "sub", SHAPE, "x [2,3] and wide [4,5]", valid(ag_sub(w->x, w->wide))) \
    X(mul_shapes, "mul", SHAPE, "x [2,3] and wide [4,5]", valid(ag_mul(w->x, w->wide))) \
    X(div_shapes, "div", SHAPE, "x [2,3] and wide [4,5]", valid(ag_div(w->x, w->wide))) \
    X(maximum_shapes, "maximum", SHAPE, "x [2,3] and wide [4,5]", valid(ag_maximum(w->x, w->wide))) \
    X(minimum_shapes, "minimum", SHAPE, "x [2,3] and wide [4,5]", valid(ag_minimum(w->x, w->wide))) \
    X(equal_shapes, "equal", SHAPE, "x [2,3] and wide [4,5]", valid(ag_equal(w->x, w->wide))) \
    X(greater_shapes, "greater", SHAPE, "x [2,3] and wide [4,5]", valid(ag_greater(w->x, w->wide))) \
    X(where_shapes, "where", SHAPE, "i [2,3], wide [4,5] and wide [4,5]", valid(ag_where(w->i, w->wide, w->wide))) \
    X(where_shapes_2, "where", SHAPE, "i [2,3], x [2,3] and wide [4,5]", valid(ag_where(w->i, w->x, w->wide))) \
    X(mask_shape, "masked_fill", SHAPE, "wide [4,5] does not broadcast to x [2,3]", valid(ag_masked_fill(w->x, w->wide, 0))) \
    X(mask_larger, "masked_fill", SHAPE, "x [2,3] does not broadcast to scalar []", valid(ag_masked_fill(w->scalar, w->x, 0))) \
    X(matmul_inner, "matmul", SHAPE, "x [2,3] times wide [4,5]", valid(ag_matmul(w->x, w->wide))) \
    X(matmul_rank, "matmul", SHAPE, "scalar [] times x [2,3]", valid(ag_matmul(w->scalar, w->x))) \
    X(dot_shapes, "dot", SHAPE, "x [2,3] and wide [4,5]", valid(ag_dot(w->x, w->wide))) \
    X(outer_ranks, "outer", SHAPE, "x [2,3] and y [2,3]", valid(ag_outer(w->x, w->y))) \
    X(reshape_count, "reshape", SHAPE, "[2,3] cannot become [4]", valid(ag_reshape(w->x, AG_SHAPE(4)))) \
    X(reshape_rest, "reshape", SHAPE, "[2,3] cannot become [4,-1]", valid(ag_reshape(w->x, AG_SHAPE(4, -1)))) \
    X(reshape_twice, "reshape", SHAPE, "[-1,-1]", valid(ag_reshape(w->x, AG_SHAPE(-1, -1)))) \
    X(reshape_zero, "reshape", SHAPE, "[0,-1]", valid(ag_reshape(w->x, AG_SHAPE(0, -1)))) \
    X(reshape_negative, "reshape", SHAPE, "[-2,-3]", valid(ag_reshape(w->x, AG_SHAPE(-2, -3)))) \
    X(reshape_rank, "reshape", SHAPE, "[2,3]", valid(ag_reshape(w->x, ag_shape_make(9, NULL)))) \
    X(broadcast_shape, "broadcast_to", SHAPE, "x [2,3] does not broadcast to [2,4]", valid(ag_broadcast_to(w->x, AG_SHAPE(2, 4)))) \
    X(broadcast_smaller, "broadcast_to", SHAPE, "x [2,3] does not broadcast to [3]", valid(ag_broadcast_to(w->x, AG_SHAPE(3)))) \
    X(broadcast_rank, "broadcast_to", SHAPE, "x [2,3]", valid(ag_broadcast_to(w->x, ag_shape_make(9, NULL)))) \
    X(sum_to_shape, "sum_to", SHAPE, "x [2,3] is no broadcast of [2]", valid(ag_sum_to(w->x, AG_SHAPE(2)))) \
    X(sum_to_rank, "sum_to", SHAPE, "x [2,3]", valid(ag_sum_to(w->x, ag_shape_make(-3, NULL)))) \
    X(squeeze_size, "squeeze", SHAPE, "axis 1 of x [2,3]", valid(ag_squeeze(w->x, 1))) \
    X(unsqueeze_rank, "unsqueeze", SHAPE, "all the axes", valid(ag_unsqueeze(w->full, 0))) \
    X(concat_shapes, "concat", SHAPE, "x [2,3] and wide [4,5]", valid(ag_concat(LIST(w->x, w->wide), 0))) \
    X(concat_ranks, "concat", SHAPE, "x [2,3] and scalar []", valid(ag_concat(LIST(w->x, w->scalar), 0))) \
    X(gather_rank, "gather_rows", SHAPE, "scalar [] at i [2,3]", valid(ag_gather_rows(w->scalar, w->i))) \
    X(gather_too_many, "gather_rows", SHAPE, "full [1,1,1,1,1,1,1,1] at i [2,3]", valid(ag_gather_rows(w->full, w->i))) \
    X(scatter_shapes, "scatter_add_rows", SHAPE, "wide [4,5]", valid(ag_scatter_add_rows(w->wide, w->i, 2))) \
    X(scatter_rank, "scatter_add_rows", SHAPE, "scalar []", valid(ag_scatter_add_rows(w->scalar, w->i, 2))) \
    X(labels_shape, "cross_entropy", SHAPE, "x [2,3]", valid(ag_cross_entropy(w->x, w->i))) \
    X(logits_rank, "cross_entropy", SHAPE, "scalar []", valid(ag_cross_entropy(w->scalar, w->i))) \
    X(bce_shapes, "binary_cross_entropy", SHAPE, "x [2,3] and scalar []", valid(ag_binary_cross_entropy(w->x, w->scalar, AG_MEAN))) \
    X(mse_shapes, "mean_squared_error", SHAPE, "x [2,3] and scalar []", valid(ag_mean_squared_error(w->x, w->scalar))) \
    X(item_shape, "item", SHAPE, "x [2,3]", !isnan(ag_item(w->x))) \
    X(backward_shape, "backward", SHAPE, "x [2,3] does not have one element", ag_backward(w->x)) \
    X(cotangent_shape, "backward", SHAPE, "the cotangent of x [2,3] is wide [4,5]", ag_backward_from(w->x, w->wide)) \
    X(cotangent_dtype, "backward", SHAPE, "d [2,3] f64, not f32", ag_backward_from(w->x, w->d)) \
    X(grad_shape, "grad", SHAPE, "x [2,3] does not have one element", valid(gradient_of(w->x, w->x, w->x, false))) \
    X(grad_cotangent, "grad", SHAPE, "is wide [4,5]", valid(gradient_of(w->x, w->wide, w->x, true))) \
    X(max_empty, "max", SHAPE, "of no elements", valid(ag_max(ag_slice(w->x, 0, 0, 0, 1), 0, 0))) \
    X(argmax_empty, "argmax", SHAPE, "of no elements", valid(ag_argmax(ag_slice(w->x, 0, 0, 0, 1), 0))) \
    \
    X(sum_axis, "sum", INDEX, "x [2,3] has no axis 2", valid(ag_sum(w->x, 2, 0))) \
    X(mean_axis, "sum", INDEX, "axis -3", valid(ag_mean(w->x, -3, 0))) \
    X(max_axis, "max", INDEX, "axis 2", valid(ag_max(w->x, 2, 0))) \
    X(logsumexp_axis, "logsumexp", INDEX, "axis 2", valid(ag_logsumexp(w->x, 2, 0))) \
    X(sum_over_twice, "sum", INDEX, "axis 1 of x [2,3] is named twice", valid(ag_sum_over(w->x, AXES(1, -1), 0))) \
    X(max_over_all, "max", INDEX, "axis -1000", valid(ag_max_over(w->x, AXES(0, AG_ALL), 0))) \
    X(argmax_axis, "argmax", INDEX, "axis 2", valid(ag_argmax(w->x, 2))) \
    X(cumsum_axis, "cumsum", INDEX, "axis 2", valid(ag_cumsum(w->x, 2))) \
    X(softmax_axis, "softmax", INDEX, "axis 2", valid(ag_softmax(w->x, 2))) \
    X(softmax_scalar, "softmax", INDEX, "scalar [] has no axis -1", valid(ag_softmax(w->scalar, -1))) \
    X(log_softmax_axis, "log_softmax", INDEX, "axis -3", valid(ag_log_softmax(w->x, -3))) \
    X(transpose_axis, "transpose", INDEX, "axis 2", valid(ag_transpose(w->x, 0, 2))) \
    X(permute_axis, "permute", INDEX, "axis 2", valid(ag_permute(w->x, AXES(0, 2)))) \
    X(permute_twice, "permute", INDEX, "axis 0 is named twice", valid(ag_permute(w->x, AXES(0, -2)))) \
    X(permute_count, "permute", INDEX, "3 axes for x [2,3]", valid(ag_permute(w->x, AXES(0, 1, 2)))) \
    X(slice_axis, "slice", INDEX, "axis 2", valid(ag_slice(w->x, 2, 0, 1, 1))) \
    X(flip_axis, "flip", INDEX, "axis -3", valid(ag_flip(w->x, -3))) \
    X(squeeze_axis, "squeeze", INDEX, "axis 2", valid(ag_squeeze(w->x, 2))) \
    X(unsqueeze_axis, "unsqueeze", INDEX, "axis 3", valid(ag_unsqueeze(w->x, 3))) \
    X(concat_axis, "concat", INDEX, "axis 2", valid(ag_concat(LIST(w->x, w->x), 2))) \
    X(concat_scalar, "concat", INDEX, "scalar [] has no axis 0", valid(ag_concat(LIST(w->scalar), 0))) \
    X(stack_axis, "stack", INDEX, "axis 3", valid(ag_stack(LIST(w->x, w->x), 3))) \
    X(gather_index, "gather_rows", INDEX, "index 1 at [0,1]", valid(ag_gather_rows(ag_slice(w->x, 0, 0, 1, 1), w->i))) \
    X(scatter_index, "scatter_add_rows", INDEX, "index 1 at [0,1]", valid(ag_scatter_add_rows(w->x, w->i, 1))) \
    X(label_index, "cross_entropy", INDEX, "label 1", valid(ag_cross_entropy(ag_reshape(w->x, AG_SHAPE(2, 3, 1)), w->i))) \
    \
    X(values_null, "constant", ARGUMENT, "NULL", valid(ag_constant(w->ctx, AG_SHAPE(2), NULL))) \
    X(integers_null, "indices", ARGUMENT, "NULL", valid(ag_indices(w->ctx, AG_SHAPE(2), NULL))) \
    X(tensor_null, "from_tensor", ARGUMENT, "NULL", valid(ag_from_tensor(w->ctx, NULL))) \
    X(assign_null, "assign", ARGUMENT, "NULL", ag_assign(w->x, NULL)) \
    X(axes_null, "sum", ARGUMENT, "NULL", valid(ag_sum_over(w->x, NULL, 1, 0))) \
    X(axes_negative, "max", ARGUMENT, "NULL", valid(ag_max_over(w->x, NULL, -1, 0))) \
    X(order_null, "permute", INDEX, "x [2,3]", valid(ag_permute(w->x, NULL, 2))) \
    X(slice_step, "slice", ARGUMENT, "step 0", valid(ag_slice(w->x, 0, 0, 2, 0))) \
    X(slice_backwards, "slice", ARGUMENT, "step -1", valid(ag_slice(w->x, 0, 0, 2, -1))) \
    X(reduction, "cross_entropy", ARGUMENT, "an unknown reduction", valid(cross_entropy_reduced(w, 7))) \
    X(bce_reduction, "binary_cross_entropy", ARGUMENT, "an unknown reduction", valid(ag_binary_cross_entropy(w->x, w->y, (ag_reduction)7))) \
    X(grad_inputs_null, "grad", ARGUMENT, "NULL", grad_n(w->s, NULL, 1, &(ag_var){ 0 })) \
    X(grad_result_null, "grad", ARGUMENT, "NULL", grad_n(w->s, &w->x, 1, NULL)) \
    X(grad_negative, "grad", ARGUMENT, "", grad_n(w->s, &w->x, -1, &(ag_var){ 0 })) \
    X(gradcheck_f_null, "gradcheck", ARGUMENT, "function", ag_gradcheck(w->ctx, NULL, NULL, &w->d, 1, NULL, NULL)) \
    X(gradcheck_null, "gradcheck", ARGUMENT, "inputs", ag_gradcheck(w->ctx, same, NULL, NULL, 1, NULL, NULL)) \
    X(gradcheck_none, "gradcheck", ARGUMENT, "inputs", ag_gradcheck(w->ctx, same, NULL, &w->d, 0, NULL, NULL)) \
    X(second_f_null, "gradcheck", ARGUMENT, "function", ag_gradcheck_second(w->ctx, NULL, NULL, &w->d, 1, NULL, NULL)) \
    X(second_none, "gradcheck", ARGUMENT, "inputs", ag_gradcheck_second(w->ctx, same, NULL, &w->d, 0, NULL, NULL)) \
    X(dot_file, "tape_write_dot", ARGUMENT, "NULL", ag_tape_write_dot(w->s, NULL)) \
    X(apply_null, "apply", ARGUMENT, "name", valid(ag_apply(NULL, &w->x, 1, NULL))) \
    X(apply_empty, "apply", ARGUMENT, "forward", valid(ag_apply(&(ag_op){ .name = "empty" }, &w->x, 1, NULL))) \
    X(apply_options, "mine", ARGUMENT, "options", valid(ag_apply(&idle_with_options, &w->x, 1, NULL))) \
    X(apply_idle, "mine", STATE, "forward made no output", valid(ag_apply(&idle, &w->x, 1, NULL))) \
    X(random_null, "random_fill_normal", ARGUMENT, "NULL", valid(ag_normal(w->ctx, NULL, AG_SHAPE(2)))) \
    X(random_null_2, "random_fill_uniform", ARGUMENT, "NULL", valid(ag_uniform(w->ctx, NULL, AG_SHAPE(2), 0, 1))) \
    \
    X(require_result, "require_gradient", STATE, "sum#", valid(ag_require_gradient(w->s))) \
    X(mutable_result, "value_mutable", STATE, "sum#", ag_value_mutable(w->s) != NULL) \
    X(assign_result, "value_mutable", STATE, "sum#", ag_assign(w->s, (double[]){ 1 })) \
    X(backward_nothing, "backward", STATE, "scalar [] depends on nothing", ag_backward(w->scalar)) \
    X(grad_nothing, "grad", STATE, "y [2,3] does not ask", valid(gradient_of(w->s, w->s, w->y, false))) \
    X(gradcheck_leaf, "gradcheck", STATE, "d [2,3] is not a leaf that asks", checked(w, w->d, false))
/* clang-format on */

static void idle_forward(ag_node *node)
{
    (void)node;
}

static const ag_op idle = { .name = "mine", .forward = idle_forward };
static const ag_op idle_with_options = { .name = "mine",
                                         .forward = idle_forward,
                                         .options_size = 8 };

#define DEFINE_ARGUMENT(name, operation, error, words, expression) \
    static bool argument_##name(const world *w)                    \
    {                                                              \
        (void)w;                                                   \
        return expression;                                         \
    }
ARGUMENTS(DEFINE_ARGUMENT)

#define ENTRY_ARGUMENT(name, operation, error, words, expression) \
    { operation, #name, AG_ERR_##error, words, #expression, argument_##name },
static const argument_case argument_cases[] = { ARGUMENTS(ENTRY_ARGUMENT) };

/* valid(ag_max(ag_slice(.. puts the slice on the tape, and rightly so. */
static bool has_operand_of_its_own(const argument_case *c)
{
    const char *outer = strstr(c->text, "(ag_");
    return outer && strstr(outer + 1, "(ag_");
}

Test(bad_arguments, wrong_arguments)
{
    for (size_t k = 0; k < sizeof argument_cases / sizeof argument_cases[0]; k++) {
        const argument_case *c = &argument_cases[k];
        world w = world_new(ag_context_new(NULL));
        cr_expect_not(c->run(&w), "%s has a result", c->call);
        expect_message(w.ctx, c->call, c->operation, c->error, c->words);
        ag_error_clear(w.ctx);
        state before = state_of(&w);
        cr_expect_not(c->run(&w), "%s has a result the second time", c->call);
        if (has_operand_of_its_own(c))
            before.length = ag_tape_length(w.ctx);
        expect_unchanged(&w, &before, c->call);
        ag_context_free(w.ctx);
    }
}

Test(bad_arguments, the_sentence)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var w = ag_parameter(ctx, "attn.w_q", AG_F32, AG_SHAPE(16, 8));
    ag_var x = ag_set_name(ag_zeros(ctx, AG_SHAPE(4, 32, 12)), "x");
    ag_matmul(w, x);
    cr_expect_str_eq(ag_error_message(ctx),
                     "matmul: inner sizes differ: attn.w_q [16,8] times x [4,32,12]");
    ag_error_clear(ctx);
    ag_var q = ag_zeros(ctx, AG_SHAPE(2, 1, 8)), k = ag_zeros(ctx, AG_SHAPE(3, 8, 1));
    ag_matmul(q, ag_set_name(k, "k"));
    cr_expect_str_eq(ag_error_message(ctx),
                     "matmul: leading axes do not broadcast: input#1 [2,1,8] times k [3,8,1]");
    ag_context_free(ctx);
}
