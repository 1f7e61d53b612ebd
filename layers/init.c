/* How parameters start. A sum of fan_in products keeps the variance of its
 * inputs if the weights have variance 1 / fan_in (LeCun); the other rules weigh
 * in the way back (Xavier) or the half that a ReLU cuts away (He).
 *
 * The k-th number comes from the stream of (seed, name) at position k, so it
 * does not matter which parameters were made before. */
#include "internal.h"

#include <math.h>

typedef struct fans {
    double in, out;
} fans;

/* matrix [.., d_in, d_out]; a vector [d] has both equal to d, a number 1. */
static fans fans_of(ag_shape shape)
{
    if (shape.rank == 0)
        return (fans){ 1, 1 };
    double out = (double)shape.dims[shape.rank - 1];
    double in = shape.rank == 1 ? out : (double)shape.dims[shape.rank - 2];
    return (fans){ in, out };
}

bool ag_init_check(ag_context *context, const char *name, ag_init init)
{
    if (init.kind < AG_INIT_LECUN_NORMAL || init.kind > AG_INIT_HE_UNIFORM) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: there is no initialiser %d", name,
                       (int)init.kind);
    }
    bool spread = init.kind == AG_INIT_NORMAL || init.kind == AG_INIT_UNIFORM;
    if ((spread || init.kind == AG_INIT_CONSTANT) && !isfinite(init.value)) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: the initialiser's value is %g, not finite",
                       name, init.value);
    }
    if (spread && init.value < 0) {
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: the initialiser's value %g is negative", name,
                       init.value);
    }
    return true;
}

static bool normal(ag_context *context, ag_random random, ag_tensor *value, double variance)
{
    return ag_random_fill_normal(context, &random, value, 0, sqrt(variance));
}

static bool uniform(ag_context *context, ag_random random, ag_tensor *value, double bound)
{
    return ag_random_fill_uniform(context, &random, value, -bound, bound);
}

bool ag_init_fill(ag_context *context, const char *name, ag_init init, ag_tensor *value)
{
    if (ag_tensor_count(value) == 0)
        return true;
    const ag_random random = ag_random_stream(ag_context_seed(context), name, 0);
    const fans fan = fans_of(ag_tensor_shape(value));
    switch (init.kind) {
    case AG_INIT_LECUN_NORMAL:
        return normal(context, random, value, 1 / fan.in);
    case AG_INIT_ZEROS:
        return ag_tensor_fill(context, value, 0);
    case AG_INIT_CONSTANT:
        return ag_tensor_fill(context, value, init.value);
    case AG_INIT_NORMAL:
        return normal(context, random, value, init.value * init.value);
    case AG_INIT_UNIFORM:
        return uniform(context, random, value, init.value);
    case AG_INIT_XAVIER_NORMAL:
        return normal(context, random, value, 2 / (fan.in + fan.out));
    case AG_INIT_XAVIER_UNIFORM:
        return uniform(context, random, value, sqrt(6 / (fan.in + fan.out)));
    case AG_INIT_HE_NORMAL:
        return normal(context, random, value, 2 / fan.in);
    case AG_INIT_HE_UNIFORM:
        return uniform(context, random, value, sqrt(6 / fan.in));
    }
    return false;
}
