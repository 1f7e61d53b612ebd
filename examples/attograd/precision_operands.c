/* The operands of the comparison of kernels: their sizes, their numbers, and how they lie in
 * memory. */
#include "precision_cases.h"

#include <stdlib.h>
#include <string.h>

/* ---- Sizes ---- */

static int around(int64_t *sizes, int n, int64_t edge)
{
    for (int64_t size = edge - 1; size <= edge + 1; size++)
        sizes[n++] = size;
    return n;
}

int ag_precision_list_sizes(ag_precision_sizes kind, int64_t *sizes)
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

ag_shape ag_precision_shape(const ag_precision_subject *s, int i)
{
    ag_shape shape = ag_shape_make(s->p->inputs[i].rank, s->p->inputs[i].dims);
    for (int axis = 0; axis < shape.rank; axis++)
        if (shape.dims[axis] == AG_PRECISION_N)
            shape.dims[axis] = s->size;
    return shape;
}

/* A variable of a shape as a view of a leaf that asks for a gradient. */
ag_var ag_precision_seen_as(ag_context *ctx, ag_precision_view kind, ag_shape shape)
{
    int order[AG_MAX_RANK], last = shape.rank - 1;
    ag_shape leaf = shape;
    for (int axis = 0; axis <= last; axis++) {
        order[axis] = last - axis;
        leaf.dims[axis] = kind == AG_VIEW_TRANSPOSED ? shape.dims[last - axis]
                          : kind == AG_VIEW_STEPPED  ? 2 * shape.dims[axis]
                                                     : shape.dims[axis];
    }
    ag_var x = ag_require_gradient(ag_zeros(ctx, leaf));
    if (kind == AG_VIEW_TRANSPOSED)
        return ag_permute(x, order, shape.rank);
    for (int axis = 0; axis <= last && kind != AG_VIEW_DENSE; axis++)
        x = kind == AG_VIEW_STEPPED ? ag_slice(x, axis, 1, AG_END, 2) : ag_flip(x, axis);
    return x;
}

static void write_row(const ag_tensor *x, int64_t n, int64_t stride, int64_t offset,
                      const double *numbers)
{
    float *f32 = (float *)x->data + offset;
    double *f64 = (double *)x->data + offset;
    if (x->dtype == AG_F32)
        for (int64_t i = 0; i < n; i++)
            f32[i * stride] = (float)numbers[i];
    else
        for (int64_t i = 0; i < n; i++)
            f64[i * stride] = numbers[i];
}

/* Writes numbers in row-major order from an axis on; what follows them. */
static const double *write_from(const ag_tensor *x, int axis, int64_t offset, const double *numbers)
{
    int64_t n = axis < x->rank ? x->dims[axis] : 1, stride = axis < x->rank ? x->strides[axis] : 1;
    for (int64_t i = 0; axis + 1 < x->rank && i < n; i++)
        numbers = write_from(x, axis + 1, offset + i * stride, numbers);
    if (axis + 1 < x->rank)
        return numbers;
    write_row(x, n, stride, offset, numbers);
    return numbers + n;
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
void ag_precision_put(ag_var x, const double *numbers, double eps, ag_random *signs)
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
    bool normal = domain == AG_ANY;
    ag_var x = normal ? ag_normal(ctx, random, shape) : ag_zeros(ctx, shape);
    if (!normal)
        ag_op_case_draw(x, domain, random);
    int64_t count = ag_shape_count(shape);
    double *numbers = malloc((size_t)(count + 1) * sizeof *numbers);
    if (numbers && ag_read(x, numbers))
        for (int64_t k = 0; k < count; k++)
            numbers[k] = (double)(float)numbers[k];
    return numbers;
}

void ag_precision_open(const ag_precision_case *p, int64_t size, uint64_t seed,
                       ag_precision_subject *s)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_random random = ag_random_stream(seed, p->name, (uint64_t)size);
    *s = (ag_precision_subject){ .p = p, .size = size };
    for (int i = 0; i < p->n; i++)
        s->inputs[i] = draw(ctx, ag_precision_shape(s, i), p->inputs[i].domain, &random);
    ag_var x[AG_PRECISION_INPUTS];
    for (int i = 0; i < p->n; i++)
        ag_precision_put(x[i] = ag_precision_seen_as(ctx, AG_VIEW_DENSE, ag_precision_shape(s, i)),
                         s->inputs[i], 0.0, NULL);
    ag_var y = p->f(ctx, x, p->n, NULL);
    if (ag_is_valid(y))
        s->dy = draw(ctx, ag_shape_of(y), AG_ANY, &random);
    ag_context_free(ctx);
}

void ag_precision_close(ag_precision_subject *s)
{
    for (int i = 0; i < AG_PRECISION_INPUTS; i++)
        free(s->inputs[i]);
    free(s->dy);
}
