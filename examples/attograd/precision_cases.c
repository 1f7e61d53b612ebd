/* Fast kernels against slow ones: every instruction set that this processor has, in f32 and f64,
 * forward and backward, against the portable kernels in f64, at sizes around the blocks in
 * which the loops are cut.
 *
 * A result may be off by its own rounding and by what its operands' last bits do to it. Both are
 * measured: the f64 function is evaluated where the operands differ by one rounding of the dtype,
 * and an error is counted in units of
 *
 *   bound_i = 2 eps |y_i| + the spread of y_i over these places,
 *
 * and alike for each entry of the gradients. Where a formula subtracts what is nearly equal
 * whatever the operands (a norm's mean, softmax's backward: exactly 0 for rows of one), rounding
 * is relative to what is subtracted, which does not show; there eps / 2 of the largest number is
 * added. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "cases.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALLOWED 16.0 /* bounds; sums of many roundings scatter by a few */
enum { PLACES = 6, MOST_INPUTS = 4, N = -1 };

/* A function of inputs whose sizes depend on one number: N stands for it in dims. */
typedef struct precision_case {
    const char *name;
    ag_function f;
    int n;
    ag_case_input inputs[MOST_INPUTS];
    bool subtracts; /* what is nearly equal */
} precision_case;

#define F(name, result) AG_CASE_FUNCTION(p_##name, result)

F(add, ag_add(x[0], x[1]))
F(mul, ag_mul(x[0], x[1]))
F(div, ag_div(x[0], x[1]))
F(square, ag_square(x[0]))
F(sqrt, ag_sqrt(x[0]))
F(exp, ag_exp(x[0]))
F(log, ag_log(x[0]))
F(sin, ag_sin(x[0]))
F(tanh, ag_tanh(x[0]))
F(erf, ag_erf(x[0]))
F(sigmoid, ag_sigmoid(x[0]))
F(softplus, ag_softplus(x[0]))
F(relu, ag_relu(x[0]))
F(gelu, ag_gelu(x[0]))
F(gelu_tanh, ag_gelu_tanh(x[0]))
F(silu, ag_silu(x[0]))
F(sum, ag_sum(x[0], 1, 0))
F(sum_rows, ag_sum(x[0], 0, 0))
F(cumsum, ag_cumsum(x[0], 1))
F(logsumexp, ag_logsumexp(x[0], -1, 0))
F(softmax, ag_softmax(x[0], -1))
F(log_softmax, ag_log_softmax(x[0], -1))
F(layer_norm, ag_layer_norm(x[0], x[1], x[2], 0.1)) /* a row of one has no variance at all */
F(rms_norm, ag_rms_norm(x[0], x[1], 0.1))
F(matmul, ag_matmul(x[0], x[1]))
F(affine, ag_affine_add(x[0], x[1], x[2], x[3]))
F(affine_gelu, ag_affine_gelu(x[0], x[1], x[2]))
F(attend, ag_attend(x[0], x[1], x[2], &(ag_attend_options){ .heads = 2, .causal = true }))
F(attend_wide, ag_attend(x[0], x[1], x[2], NULL))

static ag_var p_cross_entropy(ag_context *c, const ag_var *x, int n, void *user)
{
    (void)n, (void)user;
    int64_t classes = ag_shape_of(x[0]).dims[1], labels[3] = { 0, classes / 2, classes - 1 };
    return ag_cross_entropy(x[0], ag_indices(c, AG_SHAPE(3), labels));
}

#define ROW        \
    {              \
        AG_ANY, 1, \
        {          \
            N      \
        }          \
    }
#define FIVE       \
    {              \
        AG_ANY, 1, \
        {          \
            5      \
        }          \
    }
#define POSITIVE_ROW    \
    {                   \
        AG_POSITIVE, 1, \
        {               \
            N           \
        }               \
    }
#define TABLE(rows, columns) \
    {                        \
        AG_ANY, 2,           \
        {                    \
            rows, columns    \
        }                    \
    }

static const precision_case cases[] = {
    { "add", p_add, 2, { TABLE(3, N), ROW }, false },
    { "mul", p_mul, 2, { TABLE(3, N), ROW }, false },
    { "div", p_div, 2, { TABLE(3, N), POSITIVE_ROW }, false },
    { "square", p_square, 1, { ROW }, false },
    { "sqrt", p_sqrt, 1, { POSITIVE_ROW }, false },
    { "exp", p_exp, 1, { ROW }, false },
    { "log", p_log, 1, { POSITIVE_ROW }, false },
    { "sin", p_sin, 1, { ROW }, false },
    { "tanh", p_tanh, 1, { ROW }, false },
    { "erf", p_erf, 1, { ROW }, false },
    { "sigmoid", p_sigmoid, 1, { ROW }, false },
    { "softplus", p_softplus, 1, { ROW }, false },
    { "relu", p_relu, 1, { ROW }, false },
    { "gelu", p_gelu, 1, { ROW }, false },
    { "gelu_tanh", p_gelu_tanh, 1, { ROW }, false },
    { "silu", p_silu, 1, { ROW }, false },
    { "sum", p_sum, 1, { TABLE(3, N) }, false },
    { "sum/rows", p_sum_rows, 1, { TABLE(N, 5) }, false },
    { "cumsum", p_cumsum, 1, { TABLE(3, N) }, false },
    { "logsumexp", p_logsumexp, 1, { TABLE(3, N) }, false },
    { "softmax", p_softmax, 1, { TABLE(3, N) }, false },
    { "log_softmax", p_log_softmax, 1, { TABLE(3, N) }, false },
    { "cross_entropy", p_cross_entropy, 1, { TABLE(3, N) }, false },
    { "layer_norm", p_layer_norm, 3, { TABLE(3, N), ROW, ROW }, true },
    { "rms_norm", p_rms_norm, 2, { TABLE(3, N), ROW }, true },
    { "matmul", p_matmul, 2, { TABLE(N, N), TABLE(N, N) }, false },
    { "matmul/row", p_matmul, 2, { TABLE(1, N), TABLE(N, 19) }, false },
    { "matmul/column", p_matmul, 2, { TABLE(19, N), TABLE(N, 1) }, false },
    { "matmul/long", p_matmul, 2, { TABLE(5, 300), TABLE(300, N) }, false },
    { "affine", p_affine, 4, { TABLE(7, N), TABLE(N, 5), FIVE, TABLE(7, 5) }, false },
    { "affine_gelu", p_affine_gelu, 3, { TABLE(3, 5), TABLE(5, N), ROW }, false },
    { "attend", p_attend, 3, { TABLE(N, 6), TABLE(N, 6), TABLE(N, 6) }, true },
    { "attend/wide", p_attend_wide, 3, { TABLE(9, N), TABLE(9, N), TABLE(9, N) }, true },
};
enum { CASES = sizeof cases / sizeof cases[0] };

static const int64_t sizes[] = { 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129 };
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* ---- Evaluating ---- */

/* The result and the gradients of a case at a size, one after another, as f64. */
typedef struct answer {
    double *numbers;
    int64_t count;
} answer;

static void add_tensor(answer *a, const ag_tensor *x)
{
    for (int64_t k = 0; a->numbers && x && k < ag_tensor_count(x); k++)
        a->numbers[a->count++] = ag_tensor_at(x, k);
}

/* The nearest f32, moved up or down by a rounding of eps, unless eps is 0. */
static double move(ag_random *signs, double number, double eps)
{
    double sign = ag_random_uniform(signs) < 0.5 ? -1.0 : 1.0;
    return (double)(float)number * (1.0 + sign * eps);
}

static ag_var draw_input(ag_context *ctx, const ag_case_input *input, int64_t size,
                         ag_random *random, ag_random *signs, double eps)
{
    int64_t dims[4];
    for (int i = 0; i < input->rank; i++)
        dims[i] = input->dims[i] == N ? size : input->dims[i];
    ag_var x = ag_require_gradient(ag_zeros(ctx, ag_shape_make(input->rank, dims)));
    ag_tensor *value = ag_value_mutable(x);
    ag_op_case_draw(x, input->domain, random);
    for (int64_t k = 0; value && k < ag_tensor_count(value); k++) {
        ag_tensor_put(value, k, move(signs, ag_tensor_at(value, k), eps));
    }
    return x;
}

static bool evaluate(const precision_case *p, int64_t size, ag_dtype dtype, uint64_t place,
                     double eps, uint64_t seed, answer *a)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_random random = ag_random_stream(seed, p->name, (uint64_t)size);
    ag_random signs = ag_random_stream(seed, "signs", place);
    ag_var x[MOST_INPUTS], gradients[MOST_INPUTS];
    for (int i = 0; i < p->n; i++)
        x[i] = draw_input(ctx, &p->inputs[i], size, &random, &signs, eps);
    ag_var y = p->f(ctx, x, p->n, NULL);
    ag_var dy = ag_is_valid(y) ? ag_zeros(ctx, ag_shape_of(y)) : AG_NONE;
    for (int64_t k = 0; ag_is_valid(dy) && k < ag_tensor_count(ag_value(dy)); k++)
        ag_tensor_put(ag_value_mutable(dy), k, move(&signs, ag_random_normal(&random), eps));
    bool good = ag_is_valid(y) && ag_grad_from(y, dy, x, p->n, gradients, 0);
    int64_t count = good ? ag_tensor_count(ag_value(y)) : 0;
    for (int i = 0; good && i < p->n; i++)
        count += ag_tensor_count(ag_value(gradients[i]));
    *a = (answer){ .numbers = good ? malloc((size_t)(count + 1) * sizeof(double)) : NULL };
    add_tensor(a, good ? ag_value(y) : NULL);
    for (int i = 0; good && i < p->n; i++)
        add_tensor(a, ag_value(gradients[i]));
    ag_context_free(ctx);
    return a->numbers != NULL;
}

/* ---- Instruction sets ---- */

static const char *const instruction_sets[] = { "generic", "avx2", "avx512", "neon" };
enum { INSTRUCTION_SETS = 4 };

/* Contexts from here on use this one; false if the processor or the build lacks it. */
static bool use(const char *instruction_set)
{
    setenv("AG_ISA", instruction_set, 1);
    ag_context *ctx = ag_context_new(NULL);
    bool there = ctx && ag_status(ctx) == AG_OK;
    ag_context_free(ctx);
    return there;
}

/* ---- Comparing ---- */

typedef struct reference {
    answer exact;
    double *bounds;
} reference;

static bool refer(const precision_case *p, int64_t size, double eps, uint64_t seed, reference *r)
{
    *r = (reference){ 0 };
    if (!use("generic") || !evaluate(p, size, AG_F64, 0, 0.0, seed, &r->exact))
        return false;
    r->bounds = calloc((size_t)r->exact.count + 1, sizeof(double));
    for (uint64_t place = 0; r->bounds && place < PLACES; place++) {
        answer moved;
        if (!evaluate(p, size, AG_F64, place, eps, seed, &moved))
            return false;
        for (int64_t k = 0; k < moved.count; k++) {
            double move = moved.numbers[k] - r->exact.numbers[k];
            r->bounds[k] += move * move / PLACES;
        }
        free(moved.numbers);
    }
    double largest = 0.0;
    for (int64_t k = 0; k < r->exact.count; k++)
        largest = fmax(largest, fabs(r->exact.numbers[k]));
    for (int64_t k = 0; r->bounds && k < r->exact.count; k++)
        r->bounds[k] = sqrt(r->bounds[k]) + 2.0 * eps * fabs(r->exact.numbers[k]) +
                       (p->subtracts ? eps / 2.0 * largest : DBL_MIN);
    return r->bounds != NULL;
}

static void compare(const reference *r, const answer *a, const char *where, ag_case_result *result)
{
    for (int64_t k = 0; k < a->count; k++) {
        double units = fabs(a->numbers[k] - r->exact.numbers[k]) / r->bounds[k];
        result->entries++;
        if (!(units <= ALLOWED)) {
            result->failures++;
            ag_case_complain(result, "%s: number %lld is %.9g instead of %.9g, %.3g bounds off",
                             where, (long long)k, a->numbers[k], r->exact.numbers[k], units);
        }
        if (units > result->worst) {
            result->worst = units;
            snprintf(result->at, sizeof result->at, "%s", where);
        }
    }
}

static void check_size(const precision_case *p, int64_t size, ag_dtype dtype, uint64_t seed,
                       ag_case_result *result)
{
    reference r;
    double eps = dtype == AG_F32 ? FLT_EPSILON : DBL_EPSILON;
    if (!refer(p, size, eps, seed, &r))
        ag_case_complain(result, "size %lld: no reference", (long long)size);
    for (int i = 0; i < INSTRUCTION_SETS && r.bounds; i++) {
        answer a;
        char where[64];
        if (!use(instruction_sets[i]))
            continue;
        snprintf(where, sizeof where, "%s, %s, n = %lld", ag_dtype_name(dtype), instruction_sets[i],
                 (long long)size);
        if (evaluate(p, size, dtype, 0, 0.0, seed, &a))
            compare(&r, &a, where, result);
        else
            ag_case_complain(result, "%s: failed", where);
        free(a.numbers);
    }
    free(r.exact.numbers);
    free(r.bounds);
}

int ag_precision_case_count(void)
{
    return CASES;
}

const char *ag_precision_case_name(int i)
{
    return i >= 0 && i < CASES ? cases[i].name : NULL;
}

void ag_precision_case_run(int i, uint64_t seed, ag_case_result *result)
{
    const char *before = getenv("AG_ISA");
    char *kept = before ? strdup(before) : NULL;
    for (int k = 0; k < SIZES; k++)
        for (int d = 0; d < 2; d++)
            check_size(&cases[i], sizes[k], d ? AG_F64 : AG_F32, seed, result);
    if (kept)
        setenv("AG_ISA", kept, 1);
    else
        unsetenv("AG_ISA");
    free(kept);
}
