/* Views: another shape and other strides over the same data. */
#include "internal.h"

/* Every view begins with the same question: is there something to view? */
static bool ready(ag_context *context, const char *operation, const ag_tensor *x, const void *view)
{
    if (!context || context->error)
        return false;
    if (!x || !view)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: the tensor is NULL", operation);
    if (!ag_tensor_is_valid(x))
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: this is no tensor", operation);
    return true;
}

static char *byte_at(const ag_tensor *x, int64_t offset)
{
    return (char *)x->data + offset * (int64_t)ag_dtype_size(x->dtype);
}

bool ag_tensor_permute(ag_context *context, const ag_tensor *x, const int *order, ag_tensor *view)
{
    if (!ready(context, "permute", x, view))
        return false;
    unsigned seen = 0;
    ag_tensor result = *x;
    for (int i = 0; i < x->rank; i++) {
        int axis = order ? ag_axis(context, "permute", order[i], x->rank) : -1;
        if (axis < 0)
            return ag_fail(context, AG_ERR_ARGUMENT, "permute: the order is NULL");
        if (seen >> axis & 1)
            return ag_fail(context, AG_ERR_INDEX, "permute: axis %d is named twice", axis);
        seen |= 1u << axis;
        result.dims[i] = x->dims[axis];
        result.strides[i] = x->strides[axis];
    }
    *view = result;
    return true;
}

bool ag_tensor_transpose(ag_context *context, const ag_tensor *x, int axis_a, int axis_b,
                         ag_tensor *view)
{
    if (!ready(context, "transpose", x, view))
        return false;
    int a = ag_axis(context, "transpose", axis_a, x->rank);
    int b = a < 0 ? -1 : ag_axis(context, "transpose", axis_b, x->rank);
    if (b < 0)
        return false;
    ag_tensor result = *x;
    result.dims[a] = x->dims[b];
    result.strides[a] = x->strides[b];
    result.dims[b] = x->dims[a];
    result.strides[b] = x->strides[a];
    *view = result;
    return true;
}

/* Where a slice bound falls: from the end if negative, clamped to 0 .. size. */
static int64_t bound(int64_t at, int64_t size)
{
    if (at < 0)
        at = at < -size ? 0 : at + size;
    return at > size ? size : at;
}

bool ag_tensor_slice(ag_context *context, const ag_tensor *x, int axis, int64_t start, int64_t stop,
                     int64_t step, ag_tensor *view)
{
    if (!ready(context, "slice", x, view))
        return false;
    axis = ag_axis(context, "slice", axis, x->rank);
    if (axis < 0)
        return false;
    if (step < 1)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "slice: step %lld; it must be at least 1 (flip goes backwards)",
                       (long long)step);
    int64_t from = bound(start, x->dims[axis]), to = bound(stop, x->dims[axis]);
    int64_t size = from < to ? (to - from - 1) / step + 1 : 0;
    ag_tensor result = *x;
    result.dims[axis] = size;
    if (size > 0)
        result.data = byte_at(x, from * x->strides[axis]);
    if (size > 1)
        result.strides[axis] = x->strides[axis] * step;
    *view = result;
    return true;
}

bool ag_tensor_flip(ag_context *context, const ag_tensor *x, int axis, ag_tensor *view)
{
    if (!ready(context, "flip", x, view))
        return false;
    axis = ag_axis(context, "flip", axis, x->rank);
    if (axis < 0)
        return false;
    ag_tensor result = *x;
    if (ag_tensor_count(x) > 0)
        result.data = byte_at(x, (x->dims[axis] - 1) * x->strides[axis]);
    result.strides[axis] = -x->strides[axis];
    *view = result;
    return true;
}

bool ag_tensor_broadcast(ag_context *context, const ag_tensor *x, ag_shape shape, ag_tensor *view)
{
    if (!ready(context, "broadcast", x, view))
        return false;
    char from[128], to[128];
    ag_shape both;
    if (!ag_shape_broadcast(ag_tensor_shape(x), shape, &both) || !ag_shape_equal(both, shape))
        return ag_fail(context, AG_ERR_SHAPE, "broadcast: %s does not broadcast to %s",
                       ag_shape_text(ag_tensor_shape(x), from, sizeof from),
                       ag_shape_text(shape, to, sizeof to));
    size_t bytes;
    if (!ag_shape_bytes(context, x->dtype, shape, &bytes)) /* a stride of 0 saves memory, */
        return false;                                      /* but its count must not overflow */
    ag_tensor result = { .data = x->data, .dtype = x->dtype, .rank = shape.rank };
    for (int i = 0; i < shape.rank; i++) {
        int j = i - (shape.rank - x->rank);
        bool repeated = j < 0 || x->dims[j] != shape.dims[i];
        result.dims[i] = shape.dims[i];
        result.strides[i] = repeated ? 0 : x->strides[j];
    }
    *view = result;
    return true;
}

/* ---- Reshape ---- */

/* Works out the size written as -1 and checks that the elements are as many. */
static bool complete_shape(ag_context *context, const ag_tensor *x, ag_shape *shape)
{
    char from[128], to[128];
    int unknown = -1;
    int64_t known = 1, count = ag_tensor_count(x);
    int64_t strides = 1; /* the product of the sizes other than 0 must fit too */
    bool fits = shape->rank >= 0 && shape->rank <= AG_MAX_RANK;
    for (int i = 0; fits && i < shape->rank; i++) {
        int64_t size = shape->dims[i];
        if (size == -1 && unknown < 0)
            unknown = i;
        else if (size < 0 || (size > 0 && strides > INT64_MAX / size))
            fits = false;
        else {
            known *= size;
            strides *= size > 0 ? size : 1;
        }
    }
    if (fits && unknown >= 0)
        fits = known > 0 && count % known == 0;
    if (fits && unknown >= 0)
        shape->dims[unknown] = count / known;
    if (!fits || ag_shape_count(*shape) != count)
        return ag_fail(context, AG_ERR_SHAPE, "reshape: %s cannot become %s",
                       ag_shape_text(ag_tensor_shape(x), from, sizeof from),
                       ag_shape_text(*shape, to, sizeof to));
    return true;
}

/* Strides under which the elements of x, in row-major order, have the given
 * shape; false if there are none. Both shapes are cut into the shortest groups
 * of axes with equal counts; a group of x must then be evenly spaced in memory. */
static bool reshaped_strides(const ag_tensor *x, ag_shape shape, int64_t *strides)
{
    int64_t dims[AG_MAX_RANK], steps[AG_MAX_RANK]; /* x without its axes of size 1 */
    int rank = 0;
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] != 1) {
            dims[rank] = x->dims[i];
            steps[rank++] = x->strides[i];
        }
    int i = 0, j = 0;
    while (i < rank && j < shape.rank) {
        int64_t have = dims[i], want = shape.dims[j];
        int i_end = i + 1, j_end = j + 1;
        while (have != want) {
            if (have < want)
                have *= dims[i_end++];
            else
                want *= shape.dims[j_end++];
        }
        for (int k = i; k + 1 < i_end; k++)
            if (steps[k] != steps[k + 1] * dims[k + 1])
                return false;
        int64_t stride = steps[i_end - 1];
        for (int k = j_end - 1; k >= j; k--) {
            strides[k] = stride;
            stride *= shape.dims[k];
        }
        i = i_end;
        j = j_end;
    }
    for (; j < shape.rank; j++) /* trailing axes of size 1 */
        strides[j] = 1;
    return true;
}

bool ag_tensor_reshape(ag_context *context, const ag_tensor *x, ag_shape shape, ag_tensor *view)
{
    if (!ready(context, "reshape", x, view) || !complete_shape(context, x, &shape))
        return false;
    ag_tensor result = *x;
    if (ag_tensor_count(x) == 0) {
        result = ag_tensor_over(x->data, x->dtype, shape);
    } else if (reshaped_strides(x, shape, result.strides)) {
        result.rank = shape.rank;
        for (int i = 0; i < shape.rank; i++)
            result.dims[i] = shape.dims[i];
    } else {
        ag_tensor dense;
        if (!ag_tensor_dense(context, x, &dense))
            return false;
        result = ag_tensor_over(dense.data, x->dtype, shape);
    }
    *view = result;
    return true;
}
