/* Ties and kinks: where a derivative does not exist, the documented one is used. Differences
 * accept any subgradient there, so these cases say the gradient itself, and are compared with
 * it bit for bit, by the fused and by the recorded rules. */
#include "cases.h"

#include <string.h>

enum { MOST = 8, OPERANDS = 2 };

typedef struct tie_case {
    const char *name;
    ag_function f;
    int n;
    ag_case_input inputs[OPERANDS]; /* of which domains do not count */
    double values[OPERANDS][MOST], result[MOST], dy[MOST], gradients[OPERANDS][MOST];
} tie_case;

#define F(name, result) AG_CASE_FUNCTION(t_##name, result)

F(relu, ag_relu(x[0]))
F(abs, ag_abs(x[0]))
F(maximum, ag_maximum(x[0], x[1]))
F(minimum, ag_minimum(x[0], x[1]))
F(max, ag_max(x[0], -1, 0))
F(max_first, ag_max(x[0], 0, AG_KEEP_DIM))
F(max_all, ag_max(x[0], AG_ALL, 0))
F(square_of_relu, ag_square(ag_relu(x[0])))
F(sign, ag_mul(ag_sign(x[0]), x[0]))

#define VECTOR(n)  \
    {              \
        AG_ANY, 1, \
        {          \
            n      \
        }          \
    }
#define MATRIX(m, n) \
    {                \
        AG_ANY, 2,   \
        {            \
            m, n     \
        }            \
    }

static const tie_case cases[] = {
    /* 0 at 0, whichever 0 */
    { "relu",
      t_relu,
      1,
      { VECTOR(5) },
      { { -1, -0.0, 0, 1, 2 } },
      { 0, 0, 0, 1, 2 },
      { 3, 5, 7, 2, -4 },
      { { 0, 0, 0, 2, -4 } } },
    { "relu/square",
      t_square_of_relu,
      1,
      { VECTOR(3) },
      { { -2, 0, 3 } },
      { 0, 0, 9 },
      { 5, 7, 1 },
      { { 0, 0, 6 } } },
    { "abs",
      t_abs,
      1,
      { VECTOR(5) },
      { { -1, -0.0, 0, 1, -2 } },
      { 1, 0, 0, 1, 2 },
      { 3, 5, 7, 2, -4 },
      { { -3, 0, 0, 2, 4 } } },
    { "sign",
      t_sign,
      1,
      { VECTOR(3) },
      { { -2, 0, 3 } },
      { 2, 0, 3 },
      { 5, 7, 1 },
      { { -5, 0, 1 } } },
    /* each half where equal */
    { "maximum",
      t_maximum,
      2,
      { VECTOR(4), VECTOR(4) },
      { { 1, 2, 0, -3 }, { 1, 1, -0.0, -2 } },
      { 1, 2, 0, -2 },
      { 2, 3, 5, 7 },
      { { 1, 3, 2.5, 0 }, { 1, 0, 2.5, 7 } } },
    { "maximum/broadcast",
      t_maximum,
      2,
      { MATRIX(2, 3), VECTOR(1) },
      { { 1, 2, 3, 2, 2, 0 }, { 2 } },
      { 2, 2, 3, 2, 2, 2 },
      { 1, 2, 4, 8, 16, 32 },
      { { 0, 1, 4, 4, 8, 0 }, { 46 } } },
    { "minimum",
      t_minimum,
      2,
      { VECTOR(4), VECTOR(4) },
      { { 1, 2, 0, -3 }, { 1, 1, -0.0, -2 } },
      { 1, 1, 0, -3 },
      { 2, 3, 5, 7 },
      { { 1, 0, 2.5, 7 }, { 1, 3, 2.5, 0 } } },
    { "minimum/broadcast",
      t_minimum,
      2,
      { VECTOR(3), MATRIX(2, 1) },
      { { 1, 2, 3 }, { 2, 1 } },
      { 1, 2, 2, 1, 1, 1 },
      { 1, 2, 4, 8, 16, 32 },
      { { 5, 1, 0 }, { 5, 52 } } },
    /* equal winners share evenly */
    { "max",
      t_max,
      1,
      { MATRIX(2, 4) },
      { { 1, 3, 3, 2, 5, 5, 5, 5 } },
      { 3, 5 },
      { 6, 12 },
      { { 0, 3, 3, 0, 3, 3, 3, 3 } } },
    { "max/three", t_max, 1, { VECTOR(4) }, { { 2, -1, 2, 2 } }, { 2 }, { 6 }, { { 2, 0, 2, 2 } } },
    { "max/first",
      t_max_first,
      1,
      { MATRIX(3, 2) },
      { { 0, 1, -0.0, 1, -1, 2 } },
      { 0, 2 },
      { 8, 4 },
      { { 4, 0, 4, 0, 0, 4 } } },
    { "max/all",
      t_max_all,
      1,
      { MATRIX(2, 3) },
      { { 7, 1, 7, 0, 7, 7 } },
      { 7 },
      { 4 },
      { { 1, 0, 1, 0, 1, 1 } } },
};
enum { CASES = sizeof cases / sizeof cases[0] };

int ag_tie_case_count(void)
{
    return CASES;
}

const char *ag_tie_case_name(int i)
{
    return i >= 0 && i < CASES ? cases[i].name : NULL;
}

/* 0 and -0 are one number here. */
static void expect(ag_var got, const double *want, const char *what, ag_case_result *result)
{
    const ag_tensor *x = ag_value(got);
    if (!x)
        ag_case_complain(result, "%s: %s", what, ag_error_message(got.context));
    for (int64_t k = 0; x && k < ag_tensor_count(x); k++, result->entries++)
        if (ag_tensor_at(x, k) != want[k]) {
            result->failures++;
            ag_case_complain(result, "%s: number %lld is %.9g instead of %.9g", what, (long long)k,
                             ag_tensor_at(x, k), want[k]);
        }
}

void ag_tie_case_run(int i, ag_case_result *result)
{
    static const ag_dtype dtypes[] = { AG_F32, AG_F64 };
    const tie_case *tie = &cases[i];
    for (int d = 0; d < 2; d++) {
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtypes[d] });
        ag_var x[OPERANDS], gradients[OPERANDS];
        for (int k = 0; k < tie->n; k++)
            x[k] = ag_require_gradient(ag_constant(
                ctx, ag_shape_make(tie->inputs[k].rank, tie->inputs[k].dims), tie->values[k]));
        ag_var y = tie->f(ctx, x, tie->n, NULL), dy = ag_constant(ctx, ag_shape_of(y), tie->dy);
        expect(y, tie->result, "the result", result);
        for (int recorded = 0; recorded < 2; recorded++) {
            ag_grad_from(y, dy, x, tie->n, gradients, recorded ? AG_CREATE_GRAPH : 0);
            for (int k = 0; k < tie->n; k++)
                expect(gradients[k], tie->gradients[k],
                       recorded ? "a gradient (recorded)" : "a gradient", result);
        }
        ag_context_free(ctx);
    }
}
