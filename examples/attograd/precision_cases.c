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
 * is relative to what is subtracted, which does not show; there eps / 2 of the largest number of
 * the same tensor is added (of all tensors, where the case says so; where it is all 0, 2 eps).
 *
 * Then the same with operands that are views of other memory: that must give the same bits.
 *
 * What is wrong in all instruction sets alike, such as how work is cut into blocks, is seen at a
 * large size by a gradient check along a direction. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "precision_cases.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = AG_PRECISION_INPUTS + 1 };

/* ---- Evaluating ---- */

/* The result and the gradients, one after another, as f64. */
typedef struct answer {
    double *numbers;
    int64_t count, ends[TENSORS]; /* of each of them */
    int tensors;
} answer;

static void add_tensor(answer *a, const ag_tensor *x)
{
    int64_t count = ag_tensor_count(x);
    double *more = realloc(a->numbers, (size_t)(a->count + count + 1) * sizeof *more);
    if (!more)
        return;
    a->numbers = more;
    bool dense = ag_tensor_is_contiguous(x) && (x->dtype == AG_F32 || x->dtype == AG_F64);
    for (int64_t k = 0; k < count; k++)
        more[a->count + k] = !dense               ? ag_tensor_at(x, k)
                             : x->dtype == AG_F32 ? (double)((const float *)x->data)[k]
                                                  : ((const double *)x->data)[k];
    a->count += count;
    a->ends[a->tensors++] = a->count;
}

/* Where numbers are moved: the place chooses the signs. */
typedef struct place {
    uint64_t number;
    double eps;
} place;

static ag_context *new_context(const ag_precision_case *p, ag_dtype dtype)
{
    bool shared = p->sizes == AG_SIZES_SHARED || p->sizes == AG_SIZES_HALF;
    return ag_context_new(&(ag_context_options){ .dtype = dtype, .threads = shared ? 2 : 1 });
}

static bool evaluate(const ag_precision_subject *s, ag_dtype dtype, ag_precision_view kind,
                     place where, answer *a)
{
    const ag_precision_case *p = s->p;
    ag_context *ctx = new_context(p, dtype);
    ag_random signs = ag_random_stream(1, "signs", where.number);
    ag_var x[AG_PRECISION_INPUTS], gradients[AG_PRECISION_INPUTS];
    for (int i = 0; i < p->n; i++)
        ag_precision_put(x[i] = ag_precision_seen_as(ctx, kind, ag_precision_shape(s, i)),
                         s->inputs[i], where.eps, &signs);
    ag_var y = p->f(ctx, x, p->n, NULL);
    bool differentiable = ag_is_valid(y) && ag_requires_gradient(y);
    if (differentiable) {
        ag_var dy = ag_zeros(ctx, ag_shape_of(y));
        ag_precision_put(dy, s->dy, where.eps, &signs);
        ag_grad_from(y, dy, x, p->n, gradients, 0);
    }
    *a = (answer){ 0 };
    bool good = ag_is_valid(y) && ag_status(ctx) == AG_OK;
    if (good)
        add_tensor(a, ag_value(y));
    for (int i = 0; good && differentiable && i < p->n; i++)
        add_tensor(a, ag_value(gradients[i]));
    ag_context_free(ctx);
    return good && a->tensors == (differentiable ? p->n + 1 : 1);
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

static double largest_of(const answer *a, int64_t first, int64_t end)
{
    double largest = 0.0;
    for (int64_t k = first; k < end; k++)
        largest = fmax(largest, fabs(a->numbers[k]));
    return largest;
}

/* Adds to the bounds what rounding by eps of a tensor's largest number may do. */
static void add_subtraction(const answer *exact, bool elsewhere, double eps, double *bounds)
{
    int64_t k = 0;
    for (int t = 0; t < exact->tensors; t++) {
        double own = largest_of(exact, k, exact->ends[t]), all = largest_of(exact, 0, exact->count);
        double terms = own == 0.0 ? 4.0 * all : elsewhere ? all : own;
        for (; k < exact->ends[t]; k++)
            bounds[k] += eps / 2.0 * terms;
    }
}

/* The bounds of what the portable f64 kernels give; NULL if that cannot be done. */
static double *bounds_of(const ag_precision_subject *s, const answer *exact, double eps)
{
    double *bounds = calloc((size_t)exact->count + 1, sizeof *bounds);
    uint64_t places = s->size > 1025 ? 4 : 8;
    for (uint64_t i = 0; bounds && i < places; i++) {
        answer moved;
        bool good = evaluate(s, AG_F64, AG_VIEW_DENSE, (place){ i, eps }, &moved);
        for (int64_t k = 0; good && k < exact->count; k++) {
            double difference = moved.numbers[k] - exact->numbers[k];
            bounds[k] += difference * difference / (double)places;
        }
        free(moved.numbers);
        if (!good) {
            free(bounds);
            return NULL;
        }
    }
    double tiny = eps == FLT_EPSILON ? (double)FLT_MIN : DBL_MIN; /* below it digits are lost */
    for (int64_t k = 0; bounds && k < exact->count; k++)
        bounds[k] = sqrt(bounds[k]) + 2.0 * eps * fabs(exact->numbers[k]) + tiny * eps;
    if (bounds && s->p->terms != AG_TERMS_ALIKE)
        add_subtraction(exact, s->p->terms == AG_TERMS_ELSEWHERE, eps, bounds);
    return bounds;
}

static void compare(const ag_precision_subject *s, const answer *exact, const double *bounds,
                    const answer *a, const char *where, ag_case_result *result)
{
    for (int64_t k = 0; k < a->count; k++) {
        double units = fabs(a->numbers[k] - exact->numbers[k]) / bounds[k];
        result->entries++;
        if (!(units <= s->p->limit)) {
            result->failures++;
            ag_case_complain(result, "%s: number %lld is %.9g instead of %.9g, %.3g bounds off",
                             where, (long long)k, a->numbers[k], exact->numbers[k], units);
        }
        if (units > result->worst) {
            result->worst = units;
            snprintf(result->at, sizeof result->at, "%s", where);
        }
    }
}

/* Operands that lie otherwise in memory give the same bits. */
static void compare_view(const ag_precision_subject *s, ag_dtype dtype, ag_precision_view kind,
                         const answer *dense, const char *where, ag_case_result *result)
{
    static const char *const names[AG_VIEWS] = { "", "transposed", "reversed", "every other one" };
    answer seen;
    bool good = evaluate(s, dtype, kind, (place){ 0, 0.0 }, &seen);
    if (!good)
        ag_case_complain(result, "%s, %s: failed", where, names[kind]);
    for (int64_t k = 0; good && k < dense->count; k++)
        if (memcmp(&seen.numbers[k], &dense->numbers[k], sizeof(double))) {
            result->failures++;
            ag_case_complain(result, "%s, %s: number %lld is %.17g instead of %.17g", where,
                             names[kind], (long long)k, seen.numbers[k], dense->numbers[k]);
        }
    free(seen.numbers);
}

/* One dtype, all instruction sets. Which view it is goes round with the sizes. */
static void check_dtype(const ag_precision_subject *s, const answer *exact, ag_dtype dtype,
                        ag_case_result *result)
{
    use("generic");
    double *bounds = bounds_of(s, exact, dtype == AG_F32 ? FLT_EPSILON : DBL_EPSILON);
    if (!bounds)
        ag_case_complain(result, "size %lld: no bounds", (long long)s->size);
    for (int i = 0; i < INSTRUCTION_SETS && bounds; i++) {
        answer a;
        char where[64];
        if (!use(instruction_sets[i]))
            continue;
        snprintf(where, sizeof where, "%s, %s, n = %lld", ag_dtype_name(dtype), instruction_sets[i],
                 (long long)s->size);
        ag_precision_view kind =
            (ag_precision_view)(AG_VIEW_TRANSPOSED +
                                (s->size + i + (dtype == AG_F32)) % (AG_VIEWS - 1));
        if (evaluate(s, dtype, AG_VIEW_DENSE, (place){ 0, 0.0 }, &a)) {
            compare(s, exact, bounds, &a, where, result);
            compare_view(s, dtype, kind, &a, where, result);
        } else {
            ag_case_complain(result, "%s: failed", where);
        }
        free(a.numbers);
    }
    free(bounds);
}

/* c . f(x): one number, which is all that the check then has to look at. */
typedef struct weighted {
    const ag_precision_case *p;
    ag_var c;
} weighted;

static ag_var weighted_sum(ag_context *ctx, const ag_var *x, int n, void *user)
{
    const weighted *w = user;
    return ag_dot(w->c, w->p->f(ctx, x, n, NULL));
}

/* Forward and backward against each other, in f64. */
static void check_gradient(const ag_precision_subject *s, uint64_t seed, ag_case_result *result)
{
    const ag_precision_case *p = s->p;
    const ag_gradcheck_options options = { .seed = seed,
                                           .directions = 1,
                                           .method = AG_GRADCHECK_DIFFERENCES };
    use("generic");
    ag_context *ctx = new_context(p, AG_F64);
    ag_gradcheck_report report;
    ag_var x[AG_PRECISION_INPUTS];
    for (int i = 0; i < p->n; i++)
        ag_precision_put(x[i] = ag_precision_seen_as(ctx, AG_VIEW_DENSE, ag_precision_shape(s, i)),
                         s->inputs[i], 0.0, NULL);
    ag_var y = p->f(ctx, x, p->n, NULL);
    weighted w = { p, ag_gradcheck_cotangent(seed, y) };
    bool rounds = !strcmp(p->covers, "cast"); /* to f32: no differences can be taken */
    if (ag_status(ctx) == AG_OK && ag_requires_gradient(y) && !rounds) {
        ag_gradcheck(ctx, weighted_sum, &w, x, p->n, &options, &report);
        if (report.failures > 0 || report.message[0])
            ag_case_complain(result, "n = %lld: along a direction got %.12g, want %.12g +- %.2g %s",
                             (long long)s->size, report.analytic, report.numeric, report.bound,
                             report.message);
    }
    if (ag_status(ctx) != AG_OK)
        ag_case_complain(result, "n = %lld: %s", (long long)s->size, ag_error_message(ctx));
    ag_context_free(ctx);
}

/* Functions of single numbers are cut into blocks by one piece of code, which those of two
 * operands go through as well. */
static bool checks_gradient(const ag_precision_case *p, int64_t size, bool last)
{
    if (p->sizes == AG_SIZES_LONG)
        return size == 1025 && p->inputs[0].rank > 1;
    return last;
}

const char *ag_precision_case_name(int i)
{
    const ag_precision_case *p = ag_precision_case_at(i);
    return p ? p->name : NULL;
}

void ag_precision_case_run(int i, uint64_t seed, ag_case_result *result)
{
    const ag_precision_case *p = ag_precision_case_at(i);
    const char *before = getenv("AG_ISA");
    char *kept = before ? strdup(before) : NULL;
    int64_t sizes[AG_PRECISION_SIZES];
    int n = ag_precision_list_sizes(p->sizes, sizes);
    for (int k = 0; k < n; k++) {
        ag_precision_subject s;
        answer exact;
        use("generic");
        ag_precision_open(p, sizes[k], seed, &s);
        if (evaluate(&s, AG_F64, AG_VIEW_DENSE, (place){ 0, 0.0 }, &exact)) {
            check_dtype(&s, &exact, AG_F32, result);
            check_dtype(&s, &exact, AG_F64, result);
        } else {
            ag_case_complain(result, "size %lld: no reference", (long long)sizes[k]);
        }
        if (checks_gradient(p, sizes[k], k == n - 1))
            check_gradient(&s, seed, result);
        free(exact.numbers);
        ag_precision_close(&s);
    }
    if (kept)
        setenv("AG_ISA", kept, 1);
    else
        unsetenv("AG_ISA");
    free(kept);
}
