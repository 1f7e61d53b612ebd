/* Every public function of autograd.h with variables that it must refuse: absent,
 * poisoned, of a past step, of another context, and any at all after an error.
 * Wrong shapes, dtypes and so on are in test_bad_arguments.c. */
#include "world.h"

/* ---- 1  A variable that is none ----
 *
 * Each line calls one function with the bad variable v in one place; the value
 * of a call is whether it pretends to have a result. alone: no other operand
 * could tell the context. */
typedef struct variable_case {
    const char *operation; /* what the message begins with */
    const char *call;
    bool (*run)(const world *w, ag_var v);
    bool alone;
} variable_case;

static bool cleared(ag_var v)
{
    ag_clear_gradient(v);
    return false;
}

/* One operand. */
#define ALONE(X)                                                               \
    X(require_gradient, "require_gradient", valid(ag_require_gradient(v)))     \
    X(value, "value", ag_value(v) != NULL)                                     \
    X(value_mutable, "value_mutable", ag_value_mutable(v) != NULL)             \
    X(assign, "assign", ag_assign(v, (double[]){ 0, 0, 0, 0, 0, 0 }))          \
    X(gradient, "gradient", ag_gradient(v) != NULL)                            \
    X(item, "item", !isnan(ag_item(v)))                                        \
    X(set_name, "set_name", valid(ag_set_name(v, "new")))                      \
    X(backward, "backward", ag_backward(v))                                    \
    X(retain_gradient, "retain_gradient", valid(ag_retain_gradient(v)))        \
    X(clear_gradient, "clear_gradient", cleared(v))                            \
    X(grad_of, "grad", valid(gradient_of(v, v, w->x, false)))                  \
    X(detach, "detach", valid(ag_detach(v)))                                   \
    X(scale, "scale", valid(ag_scale(v, 2)))                                   \
    X(shift, "shift", valid(ag_shift(v, 2)))                                   \
    X(pow, "pow", valid(ag_pow(v, 2)))                                         \
    X(neg, "neg", valid(ag_neg(v)))                                            \
    X(square, "square", valid(ag_square(v)))                                   \
    X(sqrt, "sqrt", valid(ag_sqrt(v)))                                         \
    X(rsqrt, "rsqrt", valid(ag_rsqrt(v)))                                      \
    X(reciprocal, "reciprocal", valid(ag_reciprocal(v)))                       \
    X(exp, "exp", valid(ag_exp(v)))                                            \
    X(log, "log", valid(ag_log(v)))                                            \
    X(sin, "sin", valid(ag_sin(v)))                                            \
    X(cos, "cos", valid(ag_cos(v)))                                            \
    X(tanh, "tanh", valid(ag_tanh(v)))                                         \
    X(erf, "erf", valid(ag_erf(v)))                                            \
    X(sigmoid, "sigmoid", valid(ag_sigmoid(v)))                                \
    X(softplus, "softplus", valid(ag_softplus(v)))                             \
    X(relu, "relu", valid(ag_relu(v)))                                         \
    X(gelu, "gelu", valid(ag_gelu(v)))                                         \
    X(gelu_tanh, "gelu_tanh", valid(ag_gelu_tanh(v)))                          \
    X(silu, "silu", valid(ag_silu(v)))                                         \
    X(abs, "abs", valid(ag_abs(v)))                                            \
    X(sign, "sign", valid(ag_sign(v)))                                         \
    X(cast, "cast", valid(ag_cast(v, AG_F64)))                                 \
    X(sum, "sum", valid(ag_sum(v, 0, 0)))                                      \
    X(mean, "sum", valid(ag_mean(v, 0, 0)))                                    \
    X(max, "max", valid(ag_max(v, 0, 0)))                                      \
    X(logsumexp, "logsumexp", valid(ag_logsumexp(v, 0, 0)))                    \
    X(sum_over, "sum", valid(ag_sum_over(v, AXES(0), 0)))                      \
    X(mean_over, "sum", valid(ag_mean_over(v, AXES(0), 0)))                    \
    X(max_over, "max", valid(ag_max_over(v, AXES(0), 0)))                      \
    X(logsumexp_over, "logsumexp", valid(ag_logsumexp_over(v, AXES(0), 0)))    \
    X(argmax, "argmax", valid(ag_argmax(v, 0)))                                \
    X(cumsum, "cumsum", valid(ag_cumsum(v, 0)))                                \
    X(permute, "permute", valid(ag_permute(v, AXES(1, 0))))                    \
    X(transpose, "transpose", valid(ag_transpose(v, 0, 1)))                    \
    X(reshape, "reshape", valid(ag_reshape(v, AG_SHAPE(6))))                   \
    X(slice, "slice", valid(ag_slice(v, 0, 0, 1, 1)))                          \
    X(flip, "flip", valid(ag_flip(v, 0)))                                      \
    X(broadcast_to, "broadcast_to", valid(ag_broadcast_to(v, AG_SHAPE(2, 3)))) \
    X(squeeze, "squeeze", valid(ag_squeeze(v, 0)))                             \
    X(unsqueeze, "unsqueeze", valid(ag_unsqueeze(v, 0)))                       \
    X(contiguous, "contiguous", valid(ag_contiguous(v)))                       \
    X(sum_to, "sum_to", valid(ag_sum_to(v, AG_SHAPE(3))))                      \
    X(softmax, "softmax", valid(ag_softmax(v, 0)))                             \
    X(log_softmax, "log_softmax", valid(ag_log_softmax(v, 0)))                 \
    X(layer_norm, "layer_norm", valid(ag_layer_norm(v, AG_NONE, AG_NONE, 0)))  \
    X(rms_norm, "rms_norm", valid(ag_rms_norm(v, AG_NONE, 0)))                 \
    X(concat_one, "concat", valid(ag_concat(&v, 1, 0)))                        \
    X(stack_one, "stack", valid(ag_stack(&v, 1, 0)))                           \
    X(tape_write_dot, "tape_write_dot", ag_tape_write_dot(v, stderr))

/* One of several operands, or a context beside it. */
#define BESIDE(X)                                                                            \
    X(cotangent, "backward", ag_backward_from(w->s, v))                                      \
    X(grad_input, "grad", valid(gradient_of(w->s, v, v, false)))                             \
    X(grad_from_cotangent, "grad", valid(gradient_of(w->s, v, w->x, true)))                  \
    X(grad_from_input, "grad", valid(gradient_of(w->s, w->scalar, v, true)))                 \
    X(add_left, "add", valid(ag_add(v, w->y)))                                               \
    X(add_right, "add", valid(ag_add(w->y, v)))                                              \
    X(sub, "sub", valid(ag_sub(w->y, v)))                                                    \
    X(mul, "mul", valid(ag_mul(w->y, v)))                                                    \
    X(div, "div", valid(ag_div(w->y, v)))                                                    \
    X(maximum, "maximum", valid(ag_maximum(w->y, v)))                                        \
    X(minimum, "minimum", valid(ag_minimum(w->y, v)))                                        \
    X(equal, "equal", valid(ag_equal(w->y, v)))                                              \
    X(greater, "greater", valid(ag_greater(w->y, v)))                                        \
    X(where_condition, "where", valid(ag_where(v, w->x, w->y)))                              \
    X(where_left, "where", valid(ag_where(w->i, v, w->y)))                                   \
    X(where_right, "where", valid(ag_where(w->i, w->y, v)))                                  \
    X(masked_fill, "masked_fill", valid(ag_masked_fill(w->x, v, 0)))                         \
    X(masked_fill_of, "masked_fill", valid(ag_masked_fill(v, w->i, 0)))                      \
    X(matmul_left, "matmul", valid(ag_matmul(v, w->x)))                                      \
    X(matmul_right, "matmul", valid(ag_matmul(w->x, v)))                                     \
    X(affine_x, "affine", valid(ag_affine(v, w->x, AG_NONE)))                                \
    X(affine_w, "affine", valid(ag_affine(w->x, v, AG_NONE)))                                \
    X(affine_residual, "affine", valid(ag_affine_add(w->x, w->x, AG_NONE, v)))               \
    X(dot_left, "dot", valid(ag_dot(v, w->x)))                                               \
    X(dot_right, "dot", valid(ag_dot(w->x, v)))                                              \
    X(outer_left, "outer", valid(ag_outer(v, w->x)))                                         \
    X(outer_right, "outer", valid(ag_outer(w->x, v)))                                        \
    X(concat_first, "concat", valid(ag_concat(LIST(v, w->x), 0)))                            \
    X(concat_last, "concat", valid(ag_concat(LIST(w->x, w->x, w->x, w->x, v), 0)))           \
    X(stack_first, "stack", valid(ag_stack(LIST(v, w->x), 0)))                               \
    X(stack_last, "stack", valid(ag_stack(LIST(w->x, v), 0)))                                \
    X(gather_table, "gather_rows", valid(ag_gather_rows(v, w->i)))                           \
    X(gather_indices, "gather_rows", valid(ag_gather_rows(w->x, v)))                         \
    X(scatter_rows, "scatter_add_rows", valid(ag_scatter_add_rows(v, w->i, 2)))              \
    X(scatter_indices, "scatter_add_rows", valid(ag_scatter_add_rows(w->x, v, 2)))           \
    X(cross_entropy_logits, "cross_entropy", valid(ag_cross_entropy(v, w->i)))               \
    X(cross_entropy_labels, "cross_entropy", valid(ag_cross_entropy(w->x, v)))               \
    X(bce_logits, "binary_cross_entropy", valid(ag_binary_cross_entropy(v, w->x, AG_MEAN)))  \
    X(bce_targets, "binary_cross_entropy", valid(ag_binary_cross_entropy(w->x, v, AG_MEAN))) \
    X(mse_left, "mean_squared_error", valid(ag_mean_squared_error(v, w->x)))                 \
    X(mse_right, "mean_squared_error", valid(ag_mean_squared_error(w->x, v)))                \
    X(gradcheck, "gradcheck", checked(w, v, false))                                          \
    X(gradcheck_second, "gradcheck", checked(w, v, true))

#define DEFINE(name, operation, expression)           \
    static bool call_##name(const world *w, ag_var v) \
    {                                                 \
        (void)w;                                      \
        return expression;                            \
    }
ALONE(DEFINE)
BESIDE(DEFINE)

#define ENTRY_ALONE(name, operation, expression) { operation, #name, call_##name, true },
#define ENTRY_BESIDE(name, operation, expression) { operation, #name, call_##name, false },
static const variable_case variable_cases[] = { ALONE(ENTRY_ALONE) BESIDE(ENTRY_BESIDE) };
enum { VARIABLE_CASES = sizeof variable_cases / sizeof variable_cases[0] };

typedef enum badness { ABSENT, POISONED, STALE, FOREIGN, PENDING } badness;

static ag_var bad_variable(badness kind, const world *w, ag_var stale, ag_var foreign)
{
    ag_var v = kind == ABSENT    ? AG_NONE
               : kind == STALE   ? stale
               : kind == FOREIGN ? foreign
               : kind == PENDING ? w->x
                                 : ag_add(w->x, w->wide);
    ag_error_clear(w->ctx);
    return v;
}

static void expect_refused(const variable_case *c, badness kind, const world *w, ag_var v)
{
    static const char *const words[] = { "absent", "had failed", "was reset", "another context",
                                         "pending" };
    state before = state_of(w);
    if (kind == PENDING)
        ag_fail(w->ctx, AG_ERR_IO, "an error is pending");
    cr_expect_not(c->run(w, v), "%s has a result", c->call);
    ag_context *where = w->ctx; /* the first operand's context gets to know */
    if (kind == FOREIGN && ag_status(w->ctx) == AG_OK)
        where = v.context;
    if (kind == PENDING)
        cr_expect_str_eq(ag_error_message(where), "an error is pending", "%s", c->call);
    else if (kind == ABSENT && c->alone)
        cr_expect_eq(ag_status(where), AG_OK, "%s", c->call); /* nobody to tell */
    else
        expect_message(where, c->call, c->operation, kind == STALE ? AG_ERR_STATE : AG_ERR_ARGUMENT,
                       words[kind]);
    ag_error_clear(where);
    expect_unchanged(w, &before, c->call);
}

static void every_call_with(badness kind)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_var stale = ag_zeros(ctx, AG_SHAPE(2, 3)), foreign = ag_zeros(other, AG_SHAPE(2, 3));
    ag_tape_reset(ctx);
    world w = world_new(ctx);
    for (int k = 0; k < VARIABLE_CASES; k++)
        if (kind != FOREIGN || !variable_cases[k].alone)
            expect_refused(&variable_cases[k], kind, &w, bad_variable(kind, &w, stale, foreign));
    ag_context_free(ctx);
    ag_context_free(other);
}

Test(bad_input, absent_variables)
{
    every_call_with(ABSENT);
}

Test(bad_input, poisoned_variables)
{
    every_call_with(POISONED);
}

Test(bad_input, variables_of_a_step_that_was_reset)
{
    every_call_with(STALE);
}

Test(bad_input, variables_of_another_context)
{
    every_call_with(FOREIGN);
}

Test(bad_input, after_an_error)
{
    every_call_with(PENDING);
}

/* ---- 2  No context, no variables at all, and questions that are always allowed ---- */

static void idle_forward(ag_node *node)
{
    (void)node;
}

static const ag_op idle = { .name = "mine", .forward = idle_forward };

Test(bad_input, no_context)
{
    ag_random random = ag_random_stream(1, "x", 0);
    ag_gradcheck_report report;
    double number = 1;
    const ag_var made[] = {
        ag_zeros(NULL, AG_SHAPE(2)),
        ag_full(NULL, AG_SHAPE(2), 1),
        ag_scalar(NULL, 1),
        ag_uniform(NULL, &random, AG_SHAPE(2), 0, 1),
        ag_normal(NULL, &random, AG_SHAPE(2)),
        ag_arange(NULL, 3),
        ag_constant(NULL, AG_SHAPE(1), &number),
        ag_indices(NULL, AG_SHAPE(1), (int64_t[]){ 1 }),
        ag_from_tensor(NULL, NULL),
        ag_parameter(NULL, "p", AG_F32, AG_SHAPE(2)),
        ag_first_nonfinite(NULL),
        ag_concat(NULL, 2, 0),
        ag_stack(NULL, 2, 0),
        ag_concat(&(ag_var){ 0 }, 0, 0),
        ag_stack(&(ag_var){ 0 }, -1, 0),
        ag_apply(&idle, NULL, 0, NULL),
    };
    for (size_t k = 0; k < sizeof made / sizeof made[0]; k++)
        cr_expect(!ag_is_valid(made[k]) && ag_is_none(made[k]), "call %zu", k);
    cr_expect_eq(random.position, 0);
    ag_tape_reset(NULL);
    ag_no_grad_begin(NULL);
    ag_no_grad_end(NULL);
    cr_expect_eq(ag_tape_length(NULL), 0);
    cr_expect_not(ag_gradcheck(NULL, same, NULL, made, 1, NULL, &report));
    cr_expect_not(ag_gradcheck_second(NULL, NULL, NULL, NULL, -1, NULL, NULL));
    ag_gradcheck_print(NULL, stderr);
    ag_gradcheck_print(&report, NULL);
    ag_print(AG_NONE, NULL);
}

Test(bad_input, questions_give_an_answer)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_var stale = ag_zeros(ctx, AG_SHAPE(2));
    ag_tape_reset(ctx);
    ag_var bad = ag_add(ag_zeros(ctx, AG_SHAPE(2)), ag_zeros(ctx, AG_SHAPE(3)));
    const ag_var none[] = { AG_NONE, stale, bad, { ctx, 77, 1 }, { ctx, UINT32_MAX - 1, 1 } };
    ag_error_clear(ctx);
    for (size_t k = 0; k < sizeof none / sizeof none[0]; k++) {
        char text[64];
        cr_expect_not(ag_is_valid(none[k]));
        cr_expect_eq(ag_shape_of(none[k]).rank, -1);
        cr_expect_eq(ag_dtype_of(none[k]), AG_DEFAULT_DTYPE);
        cr_expect_not(ag_requires_gradient(none[k]));
        cr_expect_str_eq(ag_name(none[k]), "");
        cr_expect_str_eq(ag_op_name(none[k]), "");
        cr_expect_str_eq(ag_describe(none[k], text, sizeof text), "an invalid variable");
        cr_expect_eq(ag_status(ctx), AG_OK, "a question is no error");
    }
    cr_expect_null(ag_op_at(-1));
    cr_expect_null(ag_op_at(ag_op_count()));
    cr_expect_null(ag_node_context(NULL));
    cr_expect_eq(ag_node_input_count(NULL), 0);
    cr_expect(ag_is_none(ag_node_input(NULL, 0)) && ag_is_none(ag_node_output(NULL)));
    cr_expect(!ag_node_input_value(NULL, 0) && !ag_node_options(NULL) && !ag_node_needs(NULL, 0));
    cr_expect_null(ag_node_new_output(NULL, AG_F32, AG_SCALAR));
    ag_node_set_view(NULL, NULL);
    cr_expect_not(ag_node_fail(NULL, AG_ERR_STATE, "nobody hears this"));
    ag_context_free(ctx);
}

/* Nothing to do is no error. */
Test(bad_input, empty_requests)
{
    world w = world_new(ag_context_new(NULL));
    cr_expect(ag_grad(w.s, NULL, 0, NULL, 0));
    cr_expect(ag_is_valid(ag_sum_over(w.x, NULL, 0, 0)));
    cr_expect(ag_is_valid(ag_permute(w.scalar, NULL, 0)));
    cr_expect(ag_is_valid(ag_slice(w.x, 0, INT64_MIN, INT64_MIN, INT64_MAX)));
    cr_expect(ag_is_valid(ag_slice(w.x, 0, INT64_MAX, INT64_MIN, 1)));
    cr_expect(ag_is_valid(ag_constant(w.ctx, AG_SHAPE(0), NULL)));
    cr_expect_eq(ag_status(w.ctx), AG_OK, "%s", ag_error_message(w.ctx));
    ag_context_free(w.ctx);
}

/* ---- 3  Rules of the user's that go wrong ---- */

typedef enum fault { NO_RESULT, WRONG_SHAPE, WRONG_DTYPE, FAILS, RESETS, FAULTS } fault;
static fault current_fault;

static void faulty_forward(ag_node *node)
{
    const ag_tensor *x = ag_node_input_value(node, 0);
    ag_tensor *y = ag_node_new_output(node, x->dtype, ag_tensor_shape(x));
    if (y)
        ag_tensor_fill(ag_node_context(node), y, 1);
}

static void faulty_vjp(const ag_node *node, ag_var dy, ag_var *dx)
{
    if (current_fault == WRONG_SHAPE)
        dx[0] = ag_sum(dy, 0, 0);
    if (current_fault == WRONG_DTYPE)
        dx[0] = ag_cast(dy, AG_F64);
    if (current_fault == FAILS)
        ag_node_fail(node, AG_ERR_ARGUMENT, "no rule for %d", 42);
    if (current_fault == RESETS)
        ag_tape_reset(ag_node_context(node));
}

Test(bad_input, faulty_rules)
{
    static const ag_op faulty = { .name = "faulty", .forward = faulty_forward, .vjp = faulty_vjp };
    static const ag_error errors[] = { AG_ERR_STATE, AG_ERR_SHAPE, AG_ERR_DTYPE, AG_ERR_ARGUMENT,
                                       AG_ERR_STATE };
    static const char *const messages[] = {
        "faulty: the backward rule gave no gradient for x [2,3]",
        "faulty: the backward rule gave f32 [3] as gradient of x [2,3]",
        "faulty: the backward rule gave f64 [2,3] as gradient of x [2,3]",
        "faulty: no rule for 42",
        "tape_reset: called from inside of a backward rule",
    };
    world w = world_new(ag_context_new(NULL));
    for (int k = 0; k < FAULTS; k++) {
        ag_var g, loss = ag_sum(ag_mul(w.x, ag_apply(&faulty, &w.x, 1, NULL)), AG_ALL, 0);
        current_fault = k;
        cr_expect_not(ag_backward(loss));
        cr_expect_eq(ag_status(w.ctx), errors[k]);
        cr_expect_str_eq(ag_error_message(w.ctx), messages[k]);
        ag_error_clear(w.ctx);
        cr_expect_null(ag_gradient(w.x), "nothing is accumulated");
        cr_expect_not(ag_grad(loss, &w.x, 1, &g, AG_CREATE_GRAPH));
        cr_expect_str_eq(ag_error_message(w.ctx), messages[k]);
        ag_error_clear(w.ctx);
        cr_expect(ag_grad(w.s, &w.x, 1, &g, 0), "the context works on");
    }
    ag_context_free(w.ctx);
}
