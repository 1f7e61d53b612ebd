/* SGD, Adam and AdamW against their formulas, and what a step promises. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void expect_error(ag_context *ctx, ag_error error, const char *where)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", where, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    ag_error_clear(ctx);
}

static ag_context *new_context(void)
{
    return ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
}

/* A parameter of two numbers that start at (1, -2). */
static ag_var new_parameter(ag_params *params, const char *name)
{
    ag_var p = ag_params_add(params, NULL, name, AG_SHAPE(2), (ag_init){ .kind = AG_INIT_ZEROS });
    cr_assert(ag_assign(p, (double[]){ 1, -2 }));
    return p;
}

/* Gives p the gradient g. */
static void give_gradient(ag_var p, const double *g)
{
    cr_assert(ag_backward(ag_dot(p, ag_constant(p.context, AG_SHAPE(2), g))), "%s",
              ag_error_message(p.context));
}

static double at(ag_var v, int64_t k)
{
    return ag_tensor_at(ag_value(v), k);
}

static const double GRADIENTS[3][2] = { { 0.5, -3 }, { 0.25, 4 }, { -1, 0 } };

Test(optimizer, sgd_by_hand)
{
    for (int m = 0; m < 2; m++) {
        const double lr = 0.1, momentum = m ? 0.9 : 0;
        ag_context *ctx = new_context();
        ag_params *params = ag_params_new(ctx);
        ag_var p = new_parameter(params, "p");
        ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = lr, .momentum = momentum });
        double expected[2] = { 1, -2 }, u[2] = { 0, 0 };
        for (int step = 0; step < 3; step++) {
            give_gradient(p, GRADIENTS[step]);
            cr_assert(ag_optimizer_step(sgd), "%s", ag_error_message(ctx));
            for (int k = 0; k < 2; k++) {
                u[k] = momentum * u[k] + GRADIENTS[step][k];
                expected[k] -= lr * u[k];
                cr_expect_float_eq(at(p, k), expected[k], 1e-15, "step %d", step);
            }
            cr_expect_eq(ag_optimizer_steps(sgd), step + 1);
        }
        ag_context_free(ctx);
    }
}

/* Three steps of Adam written with pow, as in the paper. */
static void adam_by_hand(const ag_adam_options *o, double decay, int steps, double *p)
{
    double m[2] = { 0, 0 }, v[2] = { 0, 0 };
    for (int t = 1; t <= steps; t++)
        for (int k = 0; k < 2; k++) {
            double g = GRADIENTS[t - 1][k];
            m[k] = o->beta1 * m[k] + (1 - o->beta1) * g;
            v[k] = o->beta2 * v[k] + (1 - o->beta2) * g * g;
            double m_hat = m[k] / (1 - pow(o->beta1, t)), v_hat = v[k] / (1 - pow(o->beta2, t));
            p[k] = p[k] - o->lr * decay * p[k] - o->lr * m_hat / (sqrt(v_hat) + o->epsilon);
        }
}

static void expect_adam(bool decoupled, const ag_adam_options *given,
                        const ag_adam_options *effective, double decay)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p");
    ag_optimizer *adam = decoupled ? ag_adamw_new(params, given) : ag_adam_new(params, given);
    cr_assert_not_null(adam, "%s", ag_error_message(ctx));
    for (int steps = 1; steps <= 3; steps++) {
        give_gradient(p, GRADIENTS[steps - 1]);
        cr_assert(ag_optimizer_step(adam), "%s", ag_error_message(ctx));
        double expected[2] = { 1, -2 };
        adam_by_hand(effective, decay, steps, expected);
        cr_expect_float_eq(at(p, 0), expected[0], 1e-14, "step %d: %g", steps, at(p, 0));
        cr_expect_float_eq(at(p, 1), expected[1], 1e-14, "step %d: %g", steps, at(p, 1));
    }
    ag_context_free(ctx);
}

Test(optimizer, adam_by_hand)
{
    const ag_adam_options defaults = { .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8 };
    const ag_adam_options own = { .lr = 0.01, .beta1 = 0.5, .beta2 = 0.8, .epsilon = 0.1 };
    expect_adam(false, &(ag_adam_options){ .lr = 0.1 }, &defaults, 0);
    expect_adam(false, &own, &own, 0);
}

Test(optimizer, adamw_decays_beside_the_gradient)
{
    const ag_adam_options effective = { .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8 };
    expect_adam(true, &(ag_adam_options){ .lr = 0.1 }, &effective, 0.01);
    expect_adam(true, &(ag_adam_options){ .lr = 0.1, .weight_decay = 0.3 }, &effective, 0.3);
    expect_adam(true, &(ag_adam_options){ .lr = 0.1, .weight_decay = -1 }, &effective, 0);
}

Test(optimizer, options_are_checked)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    new_parameter(params, "p");
    const ag_sgd_options sgd[] = { { .lr = 0 },
                                   { .lr = -1 },
                                   { .lr = NAN },
                                   { .lr = INFINITY },
                                   { .lr = 1, .momentum = 1 },
                                   { .lr = 1, .momentum = -0.1 },
                                   { .lr = 1, .momentum = NAN } };
    for (size_t i = 0; i < sizeof sgd / sizeof *sgd; i++) {
        cr_expect_null(ag_sgd_new(params, &sgd[i]));
        expect_error(ctx, AG_ERR_ARGUMENT, "sgd");
    }
    const ag_adam_options adam[] = { { .lr = 0 },
                                     { .lr = NAN },
                                     { .lr = 1, .beta1 = 1 },
                                     { .lr = 1, .beta2 = -0.5 },
                                     { .lr = 1, .beta2 = NAN },
                                     { .lr = 1, .epsilon = -1 },
                                     { .lr = 1, .epsilon = INFINITY },
                                     { .lr = 1, .weight_decay = NAN } };
    for (size_t i = 0; i < sizeof adam / sizeof *adam; i++) {
        cr_expect_null(ag_adam_new(params, &adam[i]));
        expect_error(ctx, AG_ERR_ARGUMENT, "adam");
        cr_expect_null(ag_adamw_new(params, &adam[i]));
        expect_error(ctx, AG_ERR_ARGUMENT, "adamw");
    }
    cr_expect_null(ag_adam_new(params, &(ag_adam_options){ .lr = 1, .weight_decay = 0.1 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "a weight decay that adam would ignore");
    cr_expect_null(ag_sgd_new(params, NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "no sgd options");
    cr_expect_null(ag_adam_new(params, NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "no adam options");
    cr_expect_null(ag_adamw_new(params, NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "no adamw options");
    cr_expect_null(ag_sgd_new(NULL, &(ag_sgd_options){ .lr = 1 }));
    ag_context_free(ctx);
}

Test(optimizer, learning_rate_can_be_set)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p");
    ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = 1 });
    cr_expect(ag_optimizer_set_lr(sgd, 0.5));
    cr_expect_eq(ag_optimizer_lr(sgd), 0.5);
    give_gradient(p, (double[]){ 1, 1 });
    ag_optimizer_step(sgd);
    cr_expect_eq(at(p, 0), 0.5);
    cr_expect(ag_optimizer_set_lr(sgd, 0));
    give_gradient(p, (double[]){ 1, 1 });
    ag_optimizer_step(sgd);
    cr_expect_eq(at(p, 0), 0.5);
    cr_expect_not(ag_optimizer_set_lr(sgd, -1));
    expect_error(ctx, AG_ERR_ARGUMENT, "a negative rate");
    cr_expect_not(ag_optimizer_set_lr(sgd, NAN));
    expect_error(ctx, AG_ERR_ARGUMENT, "a rate that is no number");
    cr_expect_eq(ag_optimizer_lr(sgd), 0);
    cr_expect(isnan(ag_optimizer_lr(NULL)));
    cr_expect_not(ag_optimizer_set_lr(NULL, 1));
    cr_expect_not(ag_optimizer_step(NULL));
    cr_expect_eq(ag_optimizer_steps(NULL), 0);
    ag_context_free(ctx);
}

Test(optimizer, a_step_needs_a_gradient)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p");
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 0.1 });
    cr_expect_not(ag_optimizer_step(adam));
    expect_error(ctx, AG_ERR_STATE, "nothing was run backward");
    cr_expect_eq(ag_optimizer_steps(adam), 0);
    give_gradient(p, (double[]){ 1, 1 });
    cr_expect(ag_optimizer_step(adam));
    cr_expect_null(ag_gradient(p), "a step clears the gradients");
    cr_expect_not(ag_optimizer_step(adam));
    expect_error(ctx, AG_ERR_STATE, "a second step with the same gradients");
    cr_expect_eq(ag_optimizer_steps(adam), 1);
    ag_context_free(ctx);
}

Test(optimizer, does_nothing_after_an_error)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p");
    ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = 1 });
    give_gradient(p, (double[]){ 1, 1 });
    ag_fail(ctx, AG_ERR_IO, "planted");
    cr_expect_not(ag_optimizer_step(sgd));
    cr_expect_not(ag_optimizer_set_lr(sgd, 2));
    cr_expect_null(ag_sgd_new(params, &(ag_sgd_options){ .lr = 1 }));
    expect_error(ctx, AG_ERR_IO, "the first error stays");
    cr_expect_eq(at(p, 0), 1);
    cr_expect_eq(ag_optimizer_lr(sgd), 1);
    cr_expect(ag_optimizer_step(sgd), "the gradient is still there");
    cr_expect_eq(at(p, 0), 0);
    ag_context_free(ctx);
}

Test(optimizer, a_parameter_without_gradient_stays_with_its_moments)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var a = new_parameter(params, "a"), b = new_parameter(params, "b");
    ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = 1, .momentum = 0.5 });
    give_gradient(a, (double[]){ 1, 0 });
    give_gradient(b, (double[]){ 1, 0 });
    ag_optimizer_step(sgd);
    give_gradient(a, (double[]){ 1, 0 });
    cr_expect(ag_optimizer_step(sgd));
    cr_expect_eq(at(a, 0), 0 - 1.5);
    cr_expect_eq(at(b, 0), 0, "b had no gradient");
    give_gradient(b, (double[]){ 1, 0 });
    ag_optimizer_step(sgd);
    cr_expect_eq(at(b, 0), -1.5, "b's momentum was kept, not decayed");
    ag_context_free(ctx);
}

Test(optimizer, parameters_may_come_later)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 0.1 });
    cr_assert_not_null(adam, "an empty list is no error");
    ag_var first = new_parameter(params, "first");
    give_gradient(first, (double[]){ 1, 1 });
    cr_expect(ag_optimizer_step(adam), "%s", ag_error_message(ctx));
    for (int i = 0; i < 5; i++) {
        char name[] = { 'p', (char)('0' + i), '\0' };
        new_parameter(params, name);
    }
    for (int i = 0; i < ag_params_count(params); i++)
        give_gradient(ag_params_at(params, i), (double[]){ 1, 1 });
    cr_expect(ag_optimizer_step(adam), "%s", ag_error_message(ctx));
    cr_expect_lt(at(ag_params_find(params, "p4"), 0), 1);
    cr_expect_float_eq(at(first, 0), 0.8, 1e-6, "equal gradients: a step of lr each time");
    ag_context_free(ctx);
}

Test(optimizer, a_step_makes_earlier_forwards_stale)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p");
    ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = 0.1 });
    ag_var old = ag_sum(ag_square(p), AG_ALL, 0);
    give_gradient(p, (double[]){ 1, 1 });
    ag_optimizer_step(sgd);
    cr_expect_not(ag_backward(old));
    expect_error(ctx, AG_ERR_STATE, "p is not what it was when old was computed");
    cr_expect_null(ag_gradient(p));
    ag_context_free(ctx);
}

/* t is a parameter's own: its first update has full size, however late it comes. */
Test(optimizer, adam_corrects_a_late_parameter_by_its_own_steps)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_params *params = ag_params_new(ctx);
    const ag_init zeros = { .kind = AG_INIT_ZEROS };
    ag_var a = ag_params_add(params, NULL, "a", AG_SHAPE(1), zeros);
    ag_var b = ag_params_add(params, NULL, "b", AG_SHAPE(1), zeros);
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 0.1 });
    for (int step = 0; step < 100; step++) {
        ag_backward(ag_sum(a, AG_ALL, 0));
        cr_assert(ag_optimizer_step(adam));
        ag_tape_reset(ctx);
    }
    ag_backward(ag_sum(b, AG_ALL, 0));
    cr_assert(ag_optimizer_step(adam));
    cr_expect(fabs(ag_item(b) + 0.1) < 1e-8, "the first step is lr: %g", ag_item(b));
    ag_context_free(ctx);
}

/* With gradients of 0, only the decay moves a parameter. */
static void step_without_gradient(ag_optimizer *optimizer, ag_params *params)
{
    for (int i = 0; i < ag_params_count(params); i++)
        give_gradient(ag_params_at(params, i), (double[]){ 0, 0 });
    cr_assert(ag_optimizer_step(optimizer));
}

Test(optimizer, weight_decay_of_its_own)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx);
    ag_var a = new_parameter(params, "a"), b = new_parameter(params, "b");
    ag_optimizer *adamw =
        ag_adamw_new(params, &(ag_adam_options){ .lr = 0.5, .weight_decay = 0.5 });
    cr_expect(ag_optimizer_set_weight_decay(adamw, b, 0));
    step_without_gradient(adamw, params);
    cr_expect_eq(at(a, 0), 0.75);
    cr_expect_eq(at(b, 0), 1);
    cr_expect(ag_optimizer_set_weight_decay(adamw, b, 1));
    step_without_gradient(adamw, params);
    cr_expect_eq(at(a, 0), 0.5625, "a keeps its own");
    cr_expect_eq(at(b, 0), 0.5);
    ag_var late = new_parameter(params, "late"), later = new_parameter(params, "later");
    cr_expect(ag_optimizer_set_weight_decay(adamw, later, 0), "one that came after the optimiser");
    step_without_gradient(adamw, params);
    cr_expect_eq(at(late, 0), 0.75);
    cr_expect_eq(at(later, 0), 1);
    ag_context_free(ctx);
}

Test(optimizer, weight_decay_is_checked)
{
    ag_context *ctx = new_context();
    ag_params *params = ag_params_new(ctx), *others = ag_params_new(ctx);
    ag_var p = new_parameter(params, "p"), stranger = new_parameter(others, "stranger");
    ag_optimizer *adamw = ag_adamw_new(params, &(ag_adam_options){ .lr = 1, .weight_decay = 0.5 });
    static const double wrong[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) {
        cr_expect_not(ag_optimizer_set_weight_decay(adamw, p, wrong[i]));
        expect_error(ctx, AG_ERR_ARGUMENT, "a decay that is none");
    }
    cr_expect_not(ag_optimizer_set_weight_decay(adamw, stranger, 0));
    cr_expect(strstr(ag_error_message(ctx), "stranger [2]"), "%s", ag_error_message(ctx));
    expect_error(ctx, AG_ERR_ARGUMENT, "a parameter of another list");
    cr_expect_not(ag_optimizer_set_weight_decay(adamw, AG_NONE, 0));
    expect_error(ctx, AG_ERR_ARGUMENT, "no parameter");
    cr_expect_not(ag_optimizer_set_weight_decay(adamw, ag_scalar(ctx, 1), 0));
    expect_error(ctx, AG_ERR_ARGUMENT, "a variable of the step");
    cr_expect_not(ag_optimizer_set_weight_decay(NULL, p, 0));
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 1 });
    cr_expect_not(ag_optimizer_set_weight_decay(adam, p, 0));
    expect_error(ctx, AG_ERR_ARGUMENT, "Adam");
    ag_optimizer *sgd = ag_sgd_new(params, &(ag_sgd_options){ .lr = 1 });
    cr_expect_not(ag_optimizer_set_weight_decay(sgd, p, 0));
    expect_error(ctx, AG_ERR_ARGUMENT, "SGD");
    step_without_gradient(adamw, params);
    cr_expect_eq(at(p, 0), 0.5, "a refused call changes nothing");
    ag_context_free(ctx);
}
