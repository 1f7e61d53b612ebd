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
 * the same tensor is added (of all tensors, where that one is all 0 or the case says so).
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

enum { PLACES = 8, MOST_INPUTS = AG_PRECISION_INPUTS, TENSORS = MOST_INPUTS + 1 };

/* ---- Sizes ---- */

enum { MOST_SIZES = 64 };

static int around(int64_t *sizes, int n, int64_t edge)
{
    for (int64_t size = edge - 1; size <= edge + 1; size++)
        sizes[n++] = size;
    return n;
}

static int list_sizes(ag_precision_sizes kind, int64_t *sizes)
{
    static const int64_t edges[] = { 64, 128, 256, 512, 1024, 4096, 16384 };
    static const int so_many[] = { [AG_SIZES_SMALL] = 2,
                                   [AG_SIZES_MEDIUM] = 3,
                                   [AG_SIZES_EDGES] = 5,
                                   [AG_SIZES_LONG] = 7,
                                   [AG_SIZES_TALL] = 1 };
    int n = 0;
    if (kind == AG_SIZES_SHARED || kind == AG_SIZES_HALF)
        return around(sizes, 0, kind == AG_SIZES_HALF ? 800 : 65536);
    for (int64_t size = 1; size <= 33; size++)
        sizes[n++] = size;
    for (int i = 0; i < so_many[kind]; i++)
        n = around(sizes, n, edges[i]);
    if (kind == AG_SIZES_TALL) {
        n = around(sizes, n, 2048);
        sizes[n++] = 4100;
    }
    return n;
}

/* ---- Operands ---- */

/* A case at a size, and its numbers, each of which is an f32. */
typedef struct subject {
    const ag_precision_case *p;
    int64_t size;
    double *inputs[MOST_INPUTS], *dy;
} subject;

/* How operands lie in memory. */
typedef enum view { DENSE, TRANSPOSED, REVERSED, STEPPED, VIEWS } view;

static ag_shape shape_of(const subject *s, int i)
{
    ag_shape shape = ag_shape_make(s->p->inputs[i].rank, s->p->inputs[i].dims);
    for (int axis = 0; axis < shape.rank; axis++)
        if (shape.dims[axis] == AG_PRECISION_N)
            shape.dims[axis] = s->size;
    return shape;
}

/* A variable of a shape as a view of a leaf that asks for a gradient. */
static ag_var seen_as(ag_context *ctx, view kind, ag_shape shape)
{
    int order[AG_MAX_RANK], last = shape.rank - 1;
    ag_shape leaf = shape;
    for (int axis = 0; axis <= last; axis++) {
        order[axis] = last - axis;
        leaf.dims[axis] = kind == TRANSPOSED ? shape.dims[last - axis]
                          : kind == STEPPED  ? 2 * shape.dims[axis]
                                             : shape.dims[axis];
    }
    ag_var x = ag_require_gradient(ag_zeros(ctx, leaf));
    if (kind == TRANSPOSED)
        return ag_permute(x, order, shape.rank);
    for (int axis = 0; axis <= last && kind != DENSE; axis++)
        x = kind == STEPPED ? ag_slice(x, axis, 1, AG_END, 2) : ag_flip(x, axis);
    return x;
}

/* Writes numbers in row-major order from an axis on; what follows them. */
static const double *write_from(const ag_tensor *x, int axis, int64_t offset, const double *numbers)
{
    if (axis < x->rank) {
        for (int64_t i = 0; i < x->dims[axis]; i++)
            numbers = write_from(x, axis + 1, offset + i * x->strides[axis], numbers);
        return numbers;
    }
    if (x->dtype == AG_F32)
        ((float *)x->data)[offset] = (float)*numbers;
    else
        ((double *)x->data)[offset] = *numbers;
    return numbers + 1;
}

/* Each number moved up or down by a rounding of eps. */
static void move(double *numbers, int64_t count, double eps, ag_random *signs)
{
    uint64_t bits = 0;
    for (int64_t k = 0; k < count; k++, bits >>= 1) {
        if (k % 64 == 0)
            bits = ag_random_bits(signs);
        numbers[k] *= bits & 1 ? 1.0 + eps : 1.0 - eps;
    }
}

/* Sets a new variable, which nothing has been computed from yet; eps 0 moves nothing. */
static void put(ag_var x, const double *numbers, double eps, ag_random *signs)
{
    const ag_tensor *value = ag_value(x);
    int64_t count = value ? ag_tensor_count(value) : 0;
    double *moved = malloc((size_t)(count + 1) * sizeof *moved);
    if (!moved || !numbers)
        ag_fail(x.context, AG_ERR_MEMORY, "check: no memory for numbers");
    if (moved && numbers && value) {
        memcpy(moved, numbers, (size_t)count * sizeof *moved);
        if (eps > 0.0)
            move(moved, count, eps, signs);
        write_from(value, 0, 0, moved);
    }
    free(moved);
}

static double *draw(ag_context *ctx, ag_shape shape, ag_domain domain, ag_random *random)
{
    ag_var x = ag_zeros(ctx, shape);
    ag_op_case_draw(x, domain, random);
    int64_t count = ag_shape_count(shape);
    double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    if (numbers && ag_read(x, numbers))
        for (int64_t k = 0; k < count; k++)
            numbers[k] = (double)(float)numbers[k];
    return numbers;
}

static void open_subject(const ag_precision_case *p, int64_t size, uint64_t seed, subject *s)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(seed, p->name, (uint64_t)size);
    *s = (subject){ .p = p, .size = size };
    for (int i = 0; i < p->n; i++)
        s->inputs[i] = draw(ctx, shape_of(s, i), p->inputs[i].domain, &random);
    ag_var x[MOST_INPUTS];
    for (int i = 0; i < p->n; i++)
        put(x[i] = seen_as(ctx, DENSE, shape_of(s, i)), s->inputs[i], 0.0, NULL);
    ag_var y = p->f(ctx, x, p->n, NULL);
    if (ag_is_valid(y))
        s->dy = draw(ctx, ag_shape_of(y), AG_ANY, &random);
    ag_context_free(ctx);
}

static void close_subject(subject *s)
{
    for (int i = 0; i < MOST_INPUTS; i++)
        free(s->inputs[i]);
    free(s->dy);
}

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

static bool evaluate(const subject *s, ag_dtype dtype, view kind, place where, answer *a)
{
    const ag_precision_case *p = s->p;
    ag_context *ctx = new_context(p, dtype);
    ag_random signs = ag_random_stream(1, "signs", where.number);
    ag_var x[MOST_INPUTS], gradients[MOST_INPUTS];
    for (int i = 0; i < p->n; i++)
        put(x[i] = seen_as(ctx, kind, shape_of(s, i)), s->inputs[i], where.eps, &signs);
    ag_var y = p->f(ctx, x, p->n, NULL);
    bool differentiable = ag_is_valid(y) && ag_requires_gradient(y);
    if (differentiable) {
        ag_var dy = ag_zeros(ctx, ag_shape_of(y));
        put(dy, s->dy, where.eps, &signs);
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
        double largest = largest_of(exact, k, exact->ends[t]);
        if (elsewhere || largest == 0.0)
            largest = largest_of(exact, 0, exact->count);
        for (; k < exact->ends[t]; k++)
            bounds[k] += eps / 2.0 * largest;
    }
}

/* The bounds of what the portable f64 kernels give; NULL if that cannot be done. */
static double *bounds_of(const subject *s, const answer *exact, double eps)
{
    double *bounds = calloc((size_t)exact->count + 1, sizeof *bounds);
    for (uint64_t i = 0; bounds && i < PLACES; i++) {
        answer moved;
        bool good = evaluate(s, AG_F64, DENSE, (place){ i, eps }, &moved);
        for (int64_t k = 0; good && k < exact->count; k++) {
            double difference = moved.numbers[k] - exact->numbers[k];
            bounds[k] += difference * difference / PLACES;
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

static void compare(const subject *s, const answer *exact, const double *bounds, const answer *a,
                    const char *where, ag_case_result *result)
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
static void compare_view(const subject *s, ag_dtype dtype, view kind, const answer *dense,
                         const char *where, ag_case_result *result)
{
    static const char *const names[VIEWS] = { "", "transposed", "reversed", "every other one" };
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
static void check_dtype(const subject *s, const answer *exact, ag_dtype dtype,
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
        view kind = (view)(TRANSPOSED + (s->size + i + (dtype == AG_F32)) % (VIEWS - 1));
        if (evaluate(s, dtype, DENSE, (place){ 0, 0.0 }, &a)) {
            compare(s, exact, bounds, &a, where, result);
            compare_view(s, dtype, kind, &a, where, result);
        } else {
            ag_case_complain(result, "%s: failed", where);
        }
        free(a.numbers);
    }
    free(bounds);
}

/* Forward and backward against each other, in f64. */
static void check_gradient(const subject *s, uint64_t seed, ag_case_result *result)
{
    const ag_precision_case *p = s->p;
    const ag_gradcheck_options options = { .seed = seed,
                                           .directions = 1,
                                           .method = AG_GRADCHECK_DIFFERENCES };
    use("generic");
    ag_context *ctx = new_context(p, AG_F64);
    ag_gradcheck_report report;
    ag_var x[MOST_INPUTS];
    for (int i = 0; i < p->n; i++)
        put(x[i] = seen_as(ctx, DENSE, shape_of(s, i)), s->inputs[i], 0.0, NULL);
    ag_var y = p->f(ctx, x, p->n, NULL);
    bool rounds = !strcmp(p->covers, "cast"); /* to f32: no differences can be taken */
    if (ag_status(ctx) != AG_OK)
        ag_case_complain(result, "n = %lld: %s", (long long)s->size, ag_error_message(ctx));
    else if (ag_requires_gradient(y) && !rounds) {
        ag_gradcheck(ctx, p->f, NULL, x, p->n, &options, &report);
        if (report.failures > 0 || report.message[0])
            ag_case_complain(result, "n = %lld: along a direction got %.12g, want %.12g +- %.2g %s",
                             (long long)s->size, report.analytic, report.numeric, report.bound,
                             report.message);
    }
    ag_context_free(ctx);
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
    int64_t sizes[MOST_SIZES];
    int n = list_sizes(p->sizes, sizes);
    for (int k = 0; k < n; k++) {
        subject s;
        answer exact;
        use("generic");
        open_subject(p, sizes[k], seed, &s);
        if (evaluate(&s, AG_F64, DENSE, (place){ 0, 0.0 }, &exact)) {
            check_dtype(&s, &exact, AG_F32, result);
            check_dtype(&s, &exact, AG_F64, result);
        } else {
            ag_case_complain(result, "size %lld: no reference", (long long)sizes[k]);
        }
        if (sizes[k] == 1025 || (k == n - 1 && p->sizes != AG_SIZES_LONG))
            check_gradient(&s, seed, result);
        free(exact.numbers);
        close_subject(&s);
    }
    if (kept)
        setenv("AG_ISA", kept, 1);
    else
        unsetenv("AG_ISA");
    free(kept);
}
