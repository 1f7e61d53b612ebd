/* Operations on c128, and what they are there for: the derivative is Im f(x + i h u) / h. */
#include "../../autograd/internal.h"
#include "../../examples/attograd/cases.h"
#include "world.h"

#define H 1e-30

/* ---- Functions of one number against known derivatives ---- */

typedef struct known {
    ag_var (*f)(ag_var x);
    double (*slope)(double x);
    double from, to;
} known;

static ag_var power(ag_var x)
{
    return ag_pow(x, 2.5);
}

static ag_var fifth_power(ag_var x)
{
    return ag_pow(x, 5.0);
}

static ag_var cube(ag_var x)
{
    return ag_pow(x, 3.0);
}

static double square_slope(double x)
{
    return 2.0 * x;
}

static double sqrt_slope(double x)
{
    return 0.5 / sqrt(x);
}

static double rsqrt_slope(double x)
{
    return -0.5 / (x * sqrt(x));
}

static double reciprocal_slope(double x)
{
    return -1.0 / (x * x);
}

static double log_slope(double x)
{
    return 1.0 / x;
}

static double cos_slope(double x)
{
    return -sin(x);
}

static double tanh_slope(double x)
{
    return 1.0 / (cosh(x) * cosh(x));
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double sigmoid_slope(double x)
{
    return sigmoid(x) * sigmoid(-x);
}

static double silu_slope(double x)
{
    return sigmoid(x) * (1.0 + x * sigmoid(-x));
}

static double gelu_tanh_slope(double x)
{
    double a = 0.79788456080286535588, c = 0.044715, u = 2.0 * a * x * (1.0 + c * x * x);
    return sigmoid(u) * (1.0 + x * sigmoid(-u) * 2.0 * a * (1.0 + 3.0 * c * x * x));
}

static double power_slope(double x)
{
    return 2.5 * x * sqrt(x);
}

static double fifth_slope(double x)
{
    return 5.0 * x * x * x * x;
}

static double cube_slope(double x)
{
    return 3.0 * x * x;
}

static double relu_slope(double x)
{
    return x > 0.0;
}

static double abs_slope(double x)
{
    return (x > 0.0) - (x < 0.0);
}

static const known functions[] = {
    { ag_square, square_slope, -30, 30 },
    { ag_sqrt, sqrt_slope, 1e-6, 30 },
    { ag_rsqrt, rsqrt_slope, 1e-6, 30 },
    { ag_reciprocal, reciprocal_slope, -30, 30 },
    { ag_exp, exp, -100, 100 },
    { ag_log, log_slope, 1e-6, 30 },
    { ag_sin, cos, -30, 30 },
    { ag_cos, cos_slope, -30, 30 },
    { ag_tanh, tanh_slope, -30, 30 },
    { ag_sigmoid, sigmoid_slope, -50, 50 },
    { ag_softplus, sigmoid, -50, 50 },
    { ag_silu, silu_slope, -1, 50 },
    { ag_gelu_tanh, gelu_tanh_slope, -0.5, 10 },
    { power, power_slope, 1e-6, 30 },
    { fifth_power, fifth_slope, -30, 30 },
    { cube, cube_slope, -30, 30 },
    { ag_relu, relu_slope, -30, 30 },
    { ag_abs, abs_slope, -30, 30 },
};

/* A leaf of c128: x and, if u is given, the imaginary part H u. */
static ag_var complex_leaf(ag_context *ctx, const ag_tensor *x, const double *u)
{
    ag_tensor *z = ag_tensor_new(ctx, AG_STEP, AG_C128, ag_tensor_shape(x));
    for (int64_t k = 0; z && k < ag_tensor_count(x); k++)
        ag_tensor_put_complex(z, k, (ag_complex){ ag_tensor_at(x, k), u ? H * u[k] : 0.0 });
    return ag_from_tensor(ctx, z);
}

static bool is_near(double a, double b, double relative)
{
    return a == b || fabs(a - b) <= relative * fmax(fabs(a), fabs(b));
}

Test(complex, functions_of_one_number)
{
    enum { N = 998 }; /* even: none of them is 0 */
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    double x[N], one[N];
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        const known *f = &functions[i];
        for (int k = 0; k < N; k++) {
            x[k] = f->from + (f->to - f->from) * k / (N - 1);
            one[k] = 1.0;
        }
        ag_var real = ag_constant(ctx, AG_SHAPE(N), x);
        const ag_tensor *y = ag_value(f->f(complex_leaf(ctx, ag_value(real), one)));
        const ag_tensor *want = ag_value(f->f(real));
        cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
        for (int k = 0; k < N; k++) {
            double slope = ag_tensor_imaginary_at(y, k) / H;
            cr_expect(is_near(ag_tensor_at(y, k), ag_tensor_at(want, k), 1e-13),
                      "function %zu at %g: %.17g, not %.17g", i, x[k], ag_tensor_at(y, k),
                      ag_tensor_at(want, k));
            cr_expect(is_near(slope, f->slope(x[k]), 1e-13), "slope %zu at %g: %.17g, not %.17g", i,
                      x[k], slope, f->slope(x[k]));
        }
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
}

/* ---- Every operation ---- */

static double direction_of(int64_t k)
{
    return k % 3 == 0 ? 1.0 : k % 3 == 1 ? -0.75 : 0.5;
}

/* Numbers of 0.3 to 2.3, all of them different and none next to a kink. */
static void fill(ag_tensor *x, ag_random *random)
{
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        ag_tensor_put(x, k, 0.3 + 2.0 * ag_random_uniform(random));
}

/* The derivative along a direction by backward, each result weighed by c = 1, -3/4, 1/2, ..; scale:
 * the sum of its terms. */
static double by_backward(ag_var y, const ag_var *inputs, int n, double *scale)
{
    ag_var gradients[AG_CASE_INPUTS], c = ag_full(y.context, ag_shape_of(y), 0.0);
    double sum = *scale = 0.0;
    for (int64_t k = 0; k < ag_tensor_count(ag_value(c)); k++)
        ag_tensor_put(ag_value_mutable(c), k, direction_of(k));
    cr_assert(ag_grad_from(y, c, inputs, n, gradients, 0), "%s", ag_error_message(y.context));
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < ag_tensor_count(ag_value(inputs[i])); k++) {
            double term = direction_of(k) * ag_tensor_at(ag_value(gradients[i]), k);
            sum += term;
            *scale += fabs(term);
        }
    return sum;
}

/* By complex step, and whether the real parts are the f64 result. */
static double by_step(const ag_op_case *op, ag_var y, const ag_var *inputs)
{
    ag_context *ctx = y.context;
    ag_var z[AG_CASE_INPUTS];
    double u[256], sum = 0.0;
    for (int64_t k = 0; k < 256; k++)
        u[k] = direction_of(k);
    for (int i = 0; i < op->n; i++)
        z[i] = complex_leaf(ctx, ag_value(inputs[i]), u);
    const ag_tensor *result = ag_value(op->f(ctx, z, op->n, NULL));
    cr_assert(result && result->dtype == AG_C128, "%s: %s", op->name, ag_error_message(ctx));
    for (int64_t k = 0; k < ag_tensor_count(result); k++) {
        double real = ag_tensor_at(result, k), want = ag_tensor_at(ag_value(y), k);
        cr_expect(fabs(real - want) <= 1e-13 * fmax(1.0, fabs(want)), "%s: %.17g is not %.17g",
                  op->name, real, want);
        sum += direction_of(k) * ag_tensor_imaginary_at(result, k) / H;
    }
    return sum;
}

static bool has_no_complex_form(const ag_op_case *op)
{
    static const char *const without[] = { "erf", "erfc", "gelu", "affine_gelu", "cast" };
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++)
        if (!strcmp(op->covers, without[i]))
            return true;
    return false;
}

Test(complex, every_operation)
{
    int compared = 0;
    for (int i = 0; i < ag_op_case_count(); i++) {
        const ag_op_case *op = ag_op_case_at(i);
        if (op->no_gradient || has_no_complex_form(op))
            continue;
        ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
        ag_random random = ag_random_stream(3, op->name, 0);
        ag_var inputs[AG_CASE_INPUTS];
        double scale;
        for (int k = 0; k < op->n; k++) {
            ag_shape shape = ag_shape_make(op->inputs[k].rank, op->inputs[k].dims);
            inputs[k] = ag_require_gradient(ag_zeros(ctx, shape));
            fill(ag_value_mutable(inputs[k]), &random);
        }
        ag_var y = op->f(ctx, inputs, op->n, NULL);
        double want = by_backward(y, inputs, op->n, &scale), got = by_step(op, y, inputs);
        cr_expect(fabs(got - want) <= 1e-12 * fmax(scale, 1e-3), "%s: %.17g, not %.17g", op->name,
                  got, want);
        compared++;
        ag_context_free(ctx);
    }
    cr_expect(compared > 80, "%d", compared);
}

Test(complex, operations_without_a_complex_form_say_so)
{
    static const struct {
        ag_var (*f)(ag_var x);
        const char *name;
    } without[] = { { ag_erf, "erf" }, { ag_erfc, "erfc" }, { ag_gelu, "gelu" } };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_full(ctx, AG_SHAPE(2, 2), 0.5), z = ag_cast(x, AG_C128);
    int64_t length = ag_tape_length(ctx);
    for (size_t i = 0; i < 3; i++) {
        cr_expect(!ag_is_valid(without[i].f(z)));
        expect_message(ctx, without[i].name, without[i].name, AG_ERR_DTYPE, "has no complex form");
        ag_error_clear(ctx);
        cr_expect_eq(ag_tape_length(ctx), length);
    }
    cr_expect(!ag_is_valid(ag_affine_gelu(x, z, AG_NONE)));
    expect_message(ctx, "affine_gelu", "affine_gelu", AG_ERR_DTYPE, "has no complex form");
    ag_error_clear(ctx);
    cr_expect_eq(ag_tape_length(ctx), length, "operands that were promoted are gone too");
    cr_expect(!ag_is_valid(ag_cast(z, AG_F64)));
    expect_message(ctx, "cast", "cast", AG_ERR_DTYPE, "has no complex form");
    ag_context_free(ctx);
}

/* ---- Promotion, and users' operations ---- */

Test(complex, f64_beside_c128_becomes_c128)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_full(ctx, AG_SHAPE(2, 3), 0.5), one = ag_full(ctx, AG_SHAPE(3), 1.0);
    ag_var z = complex_leaf(ctx, ag_value(x), (double[]){ 1, 2, 3, 4, 5, 6 });
    ag_var y = ag_mul(one, z),
           rows = ag_gather_rows(z, ag_indices(ctx, AG_SHAPE(1), (int64_t[]){ 1 }));
    cr_expect_eq(ag_dtype_of(y), AG_C128);
    cr_expect_eq(ag_dtype_of(one), AG_F64, "the operand itself stays");
    cr_expect_eq(ag_tensor_imaginary_at(ag_value(y), 4), 5 * H);
    cr_expect_eq(ag_tensor_imaginary_at(ag_value(rows), 0), 4 * H);
    y = ag_where(ag_greater(z, x), z, ag_scale(z, 2.0));
    cr_expect_eq(ag_tensor_imaginary_at(ag_value(y), 0), 2 * H, "real parts are equal");
    ag_tensor *f32 = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3));
    cr_expect(!ag_is_valid(ag_add(z, ag_from_tensor(ctx, f32))));
    expect_message(ctx, "add", "add", AG_ERR_DTYPE, "c128");
    ag_context_free(ctx);
}

static void twice_forward(ag_node *node)
{
    ag_var y = ag_scale(ag_node_input(node, 0), 2.0);
    if (ag_is_valid(y))
        ag_node_set_view(node, ag_value(y));
}

Test(complex, users_operations_have_to_say_that_they_have_a_complex_form)
{
    static const ag_op plain = { .name = "plain", .forward = twice_forward };
    static const ag_op able = { .name = "able", .forward = twice_forward, .complex_form = true };
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var x = ag_full(ctx, AG_SHAPE(1), 0.5);
    ag_var z = complex_leaf(ctx, ag_value(x), (double[]){ 1 });
    ag_var y = ag_apply(&able, &z, 1, NULL);
    cr_expect_eq(ag_tensor_imaginary_at(ag_value(y), 0), 2 * H);
    cr_expect(!ag_is_valid(ag_apply(&plain, &z, 1, NULL)));
    expect_message(ctx, "plain", "plain", AG_ERR_DTYPE, "has no complex form");
    ag_context_free(ctx);
}

/* ---- Tensors ---- */

Test(complex, tensors)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_tensor *z = ag_tensor_new(ctx, AG_STEP, AG_C128, AG_SHAPE(2, 3)), view;
    ag_tensor *f64 = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(3, 2));
    cr_assert(z && f64 && ag_dtype_size(AG_C128) == 16);
    cr_expect_str_eq(ag_dtype_name(AG_C128), "c128");
    for (int k = 0; k < 6; k++) {
        cr_expect(ag_tensor_put_complex(z, k, (ag_complex){ k, -k }));
        ag_tensor_put(f64, k, 0.1 * k);
    }
    cr_expect(ag_tensor_transpose(ctx, z, 0, 1, &view));
    cr_expect(ag_tensor_at(&view, 1) == 3 && ag_tensor_imaginary_at(&view, 1) == -3);
    cr_expect(isnan(ag_tensor_imaginary_at(z, 6)) && ag_tensor_imaginary_at(f64, 1) == 0.0);
    cr_expect(ag_tensor_copy(ctx, &view, f64), "f64 becomes c128");
    cr_expect(ag_tensor_at(z, 3) == 0.1 && ag_tensor_imaginary_at(z, 3) == 0.0);
    ag_tensor_put_complex(z, 0, (ag_complex){ 0.5, INFINITY });
    cr_expect(!ag_tensor_all_finite(z));
    cr_expect(!ag_tensor_copy(ctx, f64, &view));
    expect_message(ctx, "copy", "copy", AG_ERR_DTYPE, "c128 does not become f64");
    ag_error_clear(ctx);
    cr_expect(!ag_npy_write(ctx, "no-such-file.npy", z));
    cr_expect_eq(ag_status(ctx), AG_ERR_DTYPE);
    ag_error_clear(ctx);
    cr_expect(!ag_is_valid(ag_require_gradient(ag_from_tensor(ctx, z))), "no leaf of c128 learns");
    cr_expect_eq(ag_status(ctx), AG_ERR_DTYPE);
    ag_context_free(ctx);
}

/* Where several win, each has its share of the imaginary part, as it has of the gradient. */
Test(complex, ties_are_shared_as_in_backward)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_var real = ag_constant(ctx, AG_SHAPE(3), (double[]){ 2, 1, 2 });
    ag_var x = complex_leaf(ctx, ag_value(real), (double[]){ 3, 5, 9 });
    ag_var first = ag_slice(x, 0, 0, 1, 1), last = ag_slice(x, 0, 2, 3, 1);
    ag_var results[] = { ag_max(x, 0, 0), ag_maximum(first, last), ag_minimum(last, first) };
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(ag_tensor_at(ag_value(results[i]), 0), 2.0);
        cr_expect_float_eq(ag_tensor_imaginary_at(ag_value(results[i]), 0) / H, 6.0, 1e-12);
    }
    ag_context_free(ctx);
}
