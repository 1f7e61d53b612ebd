/* What a pass back must give, whatever the rules: ag_backward what ag_grad gives, the second
 * time the same bits, twice as much where a gradient is added to. And what it may not do: change
 * the inputs, the result, the gradient that it is given, or one that was asked to be kept. */
#include "cases.h"

#include <stdlib.h>
#include <string.h>

static ag_var call(const ag_case_setup *setup)
{
    return setup->f(setup->context, setup->inputs, setup->n, setup->user);
}

/* ---- Bits ---- */

static bool same_double(double x, double y)
{
    return !memcmp(&x, &y, sizeof x);
}

bool ag_case_same_bits(const ag_tensor *a, const ag_tensor *b)
{
    int64_t count = a && b ? ag_tensor_count(a) : -1;
    for (int64_t k = 0; k < count; k++)
        if (!same_double(ag_tensor_at(a, k), ag_tensor_at(b, k)))
            return false;
    return count >= 0 && count == ag_tensor_count(b);
}

/* A gradient that is absent is one of zeros. */
static bool same_gradient(const ag_tensor *got, const ag_tensor *want)
{
    if (got)
        return ag_case_same_bits(got, want);
    for (int64_t k = 0; want && k < ag_tensor_count(want); k++)
        if (ag_tensor_at(want, k) != 0.0)
            return false;
    return want != NULL;
}

/* The numbers of a tensor, to see whether they change. */
typedef struct memory {
    const ag_tensor *tensor;
    double *numbers;
} memory;

static memory remember(const ag_tensor *x)
{
    int64_t count = x ? ag_tensor_count(x) : 0;
    double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    for (int64_t k = 0; numbers && k < count; k++)
        numbers[k] = ag_tensor_at(x, k);
    return (memory){ x, numbers };
}

/* Whether each number is now factor times what it was; forgets it. */
static bool is_now(memory m, double factor)
{
    bool good = m.numbers != NULL;
    for (int64_t k = 0; good && m.tensor && k < ag_tensor_count(m.tensor); k++)
        good = same_double(ag_tensor_at(m.tensor, k), factor * m.numbers[k]);
    free(m.numbers);
    return good;
}

/* ---- Purity ---- */

static void check_twice(const ag_case_setup *setup, uint64_t seed, unsigned flags,
                        ag_case_result *result)
{
    ag_var first[AG_SETUP_INPUTS], second[AG_SETUP_INPUTS], y = call(setup);
    memory before[AG_SETUP_INPUTS + 2];
    const int n = setup->n;
    ag_var dy = ag_gradcheck_cotangent(seed, y);
    for (int i = 0; i < n + 2; i++)
        before[i] = remember(ag_value(i < n ? setup->inputs[i] : i == n ? y : dy));
    ag_grad_from(y, dy, setup->inputs, n, first, flags);
    ag_grad_from(y, dy, setup->inputs, n, second, flags);
    for (int i = 0; i < n; i++)
        if (!ag_case_same_bits(ag_value(first[i]), ag_value(second[i])))
            ag_case_complain(result, "backward gives other bits the second time");
    for (int i = 0; i < n + 2; i++)
        if (!is_now(before[i], 1.0))
            ag_case_complain(result, "backward changes %s",
                             i < n    ? "an input"
                             : i == n ? "the result"
                                      : "the gradient that it is given");
}

/* ---- ag_backward against ag_grad ---- */

static void clear(const ag_case_setup *setup)
{
    for (int i = 0; i < setup->n; i++)
        ag_clear_gradient(setup->inputs[i]);
}

static void expect(const ag_case_setup *setup, const ag_var *want, const char *how,
                   ag_case_result *result)
{
    for (int i = 0; i < setup->n; i++) {
        result->entries += ag_tensor_count(ag_value(setup->inputs[i]));
        if (!same_gradient(ag_gradient(setup->inputs[i]), ag_value(want[i])))
            ag_case_complain(result, "input %d: %s", i, how);
    }
}

/* From a cotangent c, and from the one number L = c . y, whose gradients are the same: checks
 * by differences know ag_grad_from only. */
static void check_backward(const ag_case_setup *setup, uint64_t seed, ag_case_result *result)
{
    ag_var want[AG_SETUP_INPUTS], got[AG_SETUP_INPUTS], y = call(setup);
    ag_var c = ag_gradcheck_cotangent(seed, y), one = ag_scalar(setup->context, 1.0);
    ag_grad_from(y, c, setup->inputs, setup->n, want, 0);
    clear(setup);
    ag_backward_from(y, c);
    expect(setup, want, "ag_backward_from gives another gradient than ag_grad_from", result);
    ag_var loss = ag_dot(c, call(setup));
    ag_grad_from(loss, one, setup->inputs, setup->n, want, 0);
    ag_grad(loss, setup->inputs, setup->n, got, 0);
    clear(setup);
    ag_backward(loss);
    expect(setup, want, "ag_backward gives another gradient than ag_grad_from 1", result);
    for (int i = 0; i < setup->n; i++)
        if (!ag_case_same_bits(ag_value(got[i]), ag_value(want[i])))
            ag_case_complain(result, "ag_grad gives another gradient than ag_grad_from 1");
}

/* A gradient that is there is added to: twice the same loss gives exactly twice the gradient. */
static void check_accumulation(const ag_case_setup *setup, uint64_t seed, ag_case_result *result)
{
    memory once[AG_SETUP_INPUTS];
    clear(setup);
    for (int pass = 0; pass < 2; pass++) {
        ag_var y = call(setup);
        ag_backward_from(y, ag_gradcheck_cotangent(seed, y));
        for (int i = 0; pass == 0 && i < setup->n; i++)
            once[i] = remember(ag_gradient(setup->inputs[i]));
    }
    for (int i = 0; i < setup->n; i++)
        if (!is_now(once[i], 2.0))
            ag_case_complain(result, "a second backward does not add to the gradient");
}

/* ---- Gradients of results that are kept ---- */

/* Operations that use the result h, among them some that hand the gradient on as it is. */
AG_CASE_FUNCTION(use_neg, ag_neg(x[0]))
AG_CASE_FUNCTION(use_scale, ag_scale(x[0], 1.5))
AG_CASE_FUNCTION(use_shift, ag_shift(x[0], 1.5))
AG_CASE_FUNCTION(use_square, ag_mul(x[0], x[0]))
AG_CASE_FUNCTION(use_relu, ag_relu(x[0]))
AG_CASE_FUNCTION(use_tanh, ag_tanh(x[0]))
AG_CASE_FUNCTION(use_twice, ag_add(x[0], ag_sigmoid(x[0])))
AG_CASE_FUNCTION(use_flat, ag_reshape(x[0], AG_SHAPE(-1)))

/* h's own rule runs after its gradient is complete and may not write over it. */
static void check_kept(const ag_case_setup *setup, ag_function use, uint64_t seed,
                       ag_case_result *result)
{
    ag_context *ctx = setup->context;
    ag_var want[AG_SETUP_INPUTS], want_h, h = ag_retain_gradient(call(setup));
    ag_var z = use(ctx, &h, 1, NULL), c = ag_gradcheck_cotangent(seed, z);
    ag_grad_from(z, c, &h, 1, &want_h, 0);
    ag_grad_from(z, c, setup->inputs, setup->n, want, 0);
    clear(setup);
    ag_backward_from(z, c);
    result->entries += ag_tensor_count(ag_value(h));
    if (!same_gradient(ag_gradient(h), ag_value(want_h)))
        ag_case_complain(result, "the gradient of a result that is kept changes");
    expect(setup, want, "another gradient where that of the result is kept", result);
}

void ag_backward_case_run(ag_case_setup *setup, uint64_t seed, ag_case_result *result)
{
    static const ag_function uses[] = { use_neg,  use_scale, use_shift, use_square,
                                        use_relu, use_tanh,  use_twice, use_flat };
    ag_var y = call(setup);
    if (ag_is_valid(y) && ag_requires_gradient(y)) {
        check_twice(setup, seed, 0, result);
        check_twice(setup, seed, AG_CREATE_GRAPH, result);
        check_backward(setup, seed, result);
        check_accumulation(setup, seed, result);
        for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
            check_kept(setup, uses[i], seed, result);
    }
    if (ag_status(setup->context) != AG_OK)
        ag_case_complain(result, "backward: %s", ag_error_message(setup->context));
}
