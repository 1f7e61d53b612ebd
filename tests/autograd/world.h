/* What the tests of bad input share: a context with variables of many kinds, and
 * what a refusal looks like: a status, a sentence that begins with the operation,
 * a result that is no result, and nothing else. The tape and the variables are as
 * before, and once the error is cleared the context works on. */
#ifndef TESTS_AUTOGRAD_WORLD_H
#define TESTS_AUTOGRAD_WORLD_H

#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* What the calls below are made with. */
typedef struct world {
    ag_context *ctx;
    ag_var x, y, wide;      /* [2,3], [2,3] and [4,5] of f32 */
    ag_var i, d, scalar, s; /* [2,3] of i64; [2,3] of f64; []; f(x) of one element */
    ag_var labels;          /* [2] of i64 */
    ag_var w, full;         /* a parameter [16,8] called attn.w_q; rank 8 */
} world;

static inline world world_new(ag_context *ctx)
{
    world w = { .ctx = ctx };
    const double numbers[] = { 1, 2, 3, 4, 5, 6 };
    ag_tensor d = { (void *)(uintptr_t)numbers, AG_F64, 2, { 2, 3 }, { 3, 1 } };
    w.x = ag_set_name(ag_require_gradient(ag_constant(w.ctx, AG_SHAPE(2, 3), numbers)), "x");
    w.y = ag_set_name(ag_constant(w.ctx, AG_SHAPE(2, 3), numbers), "y");
    w.wide = ag_set_name(ag_zeros(w.ctx, AG_SHAPE(4, 5)), "wide");
    w.i = ag_set_name(ag_indices(w.ctx, AG_SHAPE(2, 3), (int64_t[]){ 0, 1, 0, 1, 0, 1 }), "i");
    w.labels = ag_set_name(ag_indices(w.ctx, AG_SHAPE(2), (int64_t[]){ 0, 1 }), "labels");
    w.d = ag_set_name(ag_from_tensor(w.ctx, &d), "d");
    w.scalar = ag_set_name(ag_scalar(w.ctx, 1), "scalar");
    w.s = ag_sum(w.x, AG_ALL, 0);
    w.w = ag_parameter(w.ctx, "attn.w_q", AG_F32, AG_SHAPE(16, 8));
    w.full = ag_set_name(ag_zeros(w.ctx, AG_SHAPE(1, 1, 1, 1, 1, 1, 1, 1)), "full");
    cr_assert_eq(ag_status(w.ctx), AG_OK, "%s", ag_error_message(w.ctx));
    return w;
}

/* What a refused call must leave as it is. */
typedef struct state {
    int64_t length;
    double numbers[6];
    bool gradient;
} state;

static inline state state_of(const world *w)
{
    state s = { .length = ag_tape_length(w->ctx), .gradient = ag_gradient(w->x) != NULL };
    for (int k = 0; k < 6; k++)
        s.numbers[k] = ag_tensor_at(ag_value(w->x), k);
    return s;
}

static inline void expect_unchanged(const world *w, const state *before, const char *what)
{
    ag_error_clear(w->ctx);
    state after = state_of(w);
    cr_expect_eq(before->length, after.length, "%s leaves something on the tape", what);
    cr_expect_eq(before->gradient, after.gradient, "%s leaves a gradient", what);
    cr_expect(!memcmp(before->numbers, after.numbers, sizeof after.numbers), "%s writes", what);
    cr_expect_str_eq(ag_name(w->x), "x", "%s", what);
    cr_expect_eq(ag_item(ag_sum(w->y, AG_ALL, 0)), 21, "the context works on after %s", what);
    cr_expect_eq(ag_status(w->ctx), AG_OK, "%s: %s", what, ag_error_message(w->ctx));
}

static inline bool begins_with(const char *message, const char *operation)
{
    size_t n = strlen(operation);
    return !strncmp(message, operation, n) && !strncmp(message + n, ": ", 2);
}

static inline void expect_message(ag_context *ctx, const char *call, const char *operation,
                                  ag_error error, const char *words)
{
    const char *message = ag_error_message(ctx);
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", call, ag_error_name(ag_status(ctx)), message);
    cr_expect(begins_with(message, operation), "%s: '%s' names no '%s'", call, message, operation);
    cr_expect(strstr(message, words), "%s: '%s' has no '%s'", call, message, words);
}

/* ---- Calls, with whether they pretend to have a result ---- */

static inline bool valid(ag_var v)
{
    return ag_is_valid(v);
}

static inline ag_var gradient_of(ag_var y, ag_var cotangent, ag_var input, bool given)
{
    ag_var g = AG_NONE;
    bool done = given ? ag_grad_from(y, cotangent, &input, 1, &g, 0) : ag_grad(y, &input, 1, &g, 0);
    cr_expect_eq(done, ag_is_valid(g));
    return g;
}

static inline ag_var same(ag_context *ctx, const ag_var *inputs, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_square(inputs[0]);
}

static inline bool checked(const world *w, ag_var v, bool second)
{
    ag_gradcheck_report report;
    bool passed = second ? ag_gradcheck_second(w->ctx, same, NULL, &v, 1, NULL, &report)
                         : ag_gradcheck(w->ctx, same, NULL, &v, 1, NULL, &report);
    cr_expect(passed || report.message[0], "a report without a reason");
    cr_expect_eq(passed, report.passed);
    return passed;
}

#define LIST(...) (ag_var[]){ __VA_ARGS__ }, sizeof((ag_var[]){ __VA_ARGS__ }) / sizeof(ag_var)
#define AXES(...) (int[]){ __VA_ARGS__ }, sizeof((int[]){ __VA_ARGS__ }) / sizeof(int)

#endif
