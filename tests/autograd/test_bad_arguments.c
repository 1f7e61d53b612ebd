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

static ag_var attend_with(ag_var x, ag_attend_options options)
{
    return ag_attend(x, x, x, &options);
}

static void idle_forward(ag_node *node)
{
    (void)node;
}

static const ag_op idle = { .name = "mine", .forward = idle_forward };
static const ag_op idle_with_options = { .name = "mine",
                                         .forward = idle_forward,
                                         .options_size = 8 };

/* The calls as functions, and then as a table. */
#define UNARY(name) ARGUMENT(name##_i64, #name, DTYPE, "i [2,3] is i64", valid(ag_##name(w->i)))
#define ARGUMENT(name, operation, error, words, expression) \
    static bool argument_##name(const world *w)             \
    {                                                       \
        (void)w;                                            \
        return expression;                                  \
    }
#include "wrong_calls.def"
#undef ARGUMENT

#define ARGUMENT(name, operation, error, words, expression) \
    { operation, #name, AG_ERR_##error, words, #expression, argument_##name },
static const argument_case argument_cases[] = {
#include "wrong_calls.def"
};

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
