/* Second order: the gradients of a function are a function too, and are checked as one. */
#include "gradcheck.h"

typedef struct gradient_function {
    ag_function f;
    void *user;
    uint64_t seed;
} gradient_function;

/* inputs -> d/d inputs of sum(c f(inputs)), joined into one vector. */
static ag_var gradients_of(ag_context *context, const ag_var *inputs, int n, void *user)
{
    const gradient_function *g = user;
    ag_var *gradients = ag_memory_new(context, AG_STEP, (size_t)n * sizeof *gradients);
    ag_var y = gradients ? g->f(context, inputs, n, g->user) : AG_NONE;
    if (!ag_is_valid(y) || !ag_grad_from(y, ag_gradcheck_cotangent(g->seed + 1, y), inputs, n,
                                         gradients, AG_CREATE_GRAPH))
        return ag_poisoned(context);
    for (int i = 0; i < n; i++)
        gradients[i] = ag_reshape(gradients[i], AG_SHAPE(ag_shape_count(ag_shape_of(inputs[i]))));
    /* A gradient that does not depend on the inputs has the derivative 0. */
    ag_var joined = ag_concat(gradients, n, 0);
    for (int i = 0; i < n; i++)
        joined = ag_add(joined, ag_scale(ag_sum(inputs[i], AG_ALL, 0), 0.0));
    return joined;
}

bool ag_gradcheck_second(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                         int n, const ag_gradcheck_options *options, ag_gradcheck_report *report)
{
    gradient_function g = { f, user, options ? options->seed : 0 };
    if (!f)
        ag_fail(context, AG_ERR_ARGUMENT, "gradcheck: a function and inputs are needed");
    return ag_gradcheck(context, gradients_of, &g, inputs, n, options, report);
}
