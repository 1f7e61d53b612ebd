/* Shapes and tensors: sizes, elements, making and filling. Views are in
 * views.c, copies in copy.c. */
#include "internal.h"

#include <math.h>
#include <string.h>

/* ---- Dtypes ---- */

size_t ag_dtype_size(ag_dtype dtype)
{
    switch (dtype) {
    case AG_F32:
        return 4;
    case AG_F64:
    case AG_I64:
        return 8;
    case AG_C128:
        return 16;
    case AG_DEFAULT_DTYPE:
        break;
    }
    return 0;
}

const char *ag_dtype_name(ag_dtype dtype)
{
    switch (dtype) {
    case AG_F32:
        return "f32";
    case AG_F64:
        return "f64";
    case AG_I64:
        return "i64";
    case AG_C128:
        return "c128";
    case AG_DEFAULT_DTYPE:
        return "default";
    }
    return "unknown dtype";
}

/* ---- Shapes ---- */

ag_shape ag_shape_make(int rank, const int64_t *dims)
{
    ag_shape shape = { .rank = rank };
    for (int i = 0; i < rank && i < AG_MAX_RANK && dims; i++)
        shape.dims[i] = dims[i];
    return shape;
}

int64_t ag_shape_count(ag_shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank && i < AG_MAX_RANK; i++)
        if (shape.dims[i] <= 0)
            return 0;
    for (int i = 0; i < shape.rank && i < AG_MAX_RANK; i++)
        count = count > INT64_MAX / shape.dims[i] ? INT64_MAX : count * shape.dims[i];
    return count;
}

bool ag_shape_equal(ag_shape a, ag_shape b)
{
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank && i < AG_MAX_RANK; i++)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

char *ag_shape_text(ag_shape shape, char *text, size_t size)
{
    size_t used = 0;
    if (size == 0)
        return text;
    for (int i = -1; i < shape.rank && i < AG_MAX_RANK && used < size; i++) {
        int n = i < 0 ? snprintf(text, size, "[")
                      : snprintf(text + used, size - used, i ? ",%lld" : "%lld",
                                 (long long)shape.dims[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

int ag_broadcast_dims(int a_rank, const int64_t *a, int b_rank, const int64_t *b, int64_t *dims)
{
    int rank = a_rank > b_rank ? a_rank : b_rank;
    for (int i = 1; i <= rank; i++) {
        int64_t x = i <= a_rank ? a[a_rank - i] : 1;
        int64_t y = i <= b_rank ? b[b_rank - i] : 1;
        if (x != y && x != 1 && y != 1)
            return -1;
        dims[rank - i] = x == 1 ? y : x;
    }
    return rank;
}

bool ag_shape_broadcast(ag_shape a, ag_shape b, ag_shape *result)
{
    ag_shape shape = { .rank = 0 };
    if (a.rank < 0 || b.rank < 0 || a.rank > AG_MAX_RANK || b.rank > AG_MAX_RANK)
        return false;
    shape.rank = ag_broadcast_dims(a.rank, a.dims, b.rank, b.dims, shape.dims);
    if (shape.rank >= 0)
        *result = shape;
    return shape.rank >= 0;
}

/* a b <= limit, for a, b > 0; a division only where one of them is large. */
static bool product_fits(int64_t a, int64_t b, int64_t limit)
{
    return (a | b) >> 31 ? a <= limit / b : a * b <= limit;
}

/* Says why no tensor can have these sizes. Returns false. */
AG_SELDOM static bool refuse_sizes(ag_context *context, int rank, const int64_t *dims)
{
    char text[128];
    bool negative = false;
    for (int i = 0; i < rank; i++)
        negative = negative || dims[i] < 0;
    return ag_fail(context, negative ? AG_ERR_SHAPE : AG_ERR_MEMORY, "tensor: %s%s%s",
                   negative ? "a size in " : "",
                   ag_shape_text(ag_shape_make(rank, dims), text, sizeof text),
                   negative ? " is negative" : " has more elements than fit");
}

/* The product of the sizes other than 0 must fit too: strides are made from them. */
static bool bytes_of(ag_context *context, ag_dtype dtype, int rank, const int64_t *dims,
                     size_t *bytes)
{
    if (rank < 0 || rank > AG_MAX_RANK)
        return ag_fail(context, AG_ERR_SHAPE, "tensor: rank %d is not in 0 .. %d", rank,
                       AG_MAX_RANK);
    size_t item = ag_dtype_size(dtype);
    if (item == 0)
        return ag_fail(context, AG_ERR_DTYPE, "tensor: %s", ag_dtype_name(dtype));
    bool empty = false;
    int64_t limit = item == 4 ? PTRDIFF_MAX / 4 : item == 8 ? PTRDIFF_MAX / 8 : PTRDIFF_MAX / 16;
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0 || (dims[i] > 0 && !product_fits(count, dims[i], limit)))
            return refuse_sizes(context, rank, dims);
        empty = empty || dims[i] == 0;
        count *= dims[i] > 0 ? dims[i] : 1;
    }
    *bytes = empty ? 0 : (size_t)count * item;
    return true;
}

bool ag_shape_bytes(ag_context *context, ag_dtype dtype, ag_shape shape, size_t *bytes)
{
    return bytes_of(context, dtype, shape.rank, shape.dims, bytes);
}

/* ---- Tensors ---- */

/* Row-major strides. Everything is written where it is to be, because copying
 * a struct whose members were written one by one stalls the processor. */
static void put_over(ag_tensor *tensor, void *data, ag_dtype dtype, int rank, const int64_t *dims)
{
    tensor->data = data;
    tensor->dtype = dtype;
    tensor->rank = rank;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        int64_t dim = dims[i];
        tensor->dims[i] = dim;
        tensor->strides[i] = stride;
        stride *= dim > 0 ? dim : 1;
    }
}

ag_tensor ag_tensor_over(void *data, ag_dtype dtype, ag_shape shape)
{
    ag_tensor tensor;
    put_over(&tensor, data, dtype, shape.rank, shape.dims);
    return tensor;
}

void ag_tensor_put_over(ag_tensor *tensor, void *data, const ag_tensor *like)
{
    put_over(tensor, data, like->dtype, like->rank, like->dims);
}

bool ag_tensor_allocate_dims(ag_context *context, ag_lifetime lifetime, ag_dtype dtype, int rank,
                             const int64_t *dims, ag_tensor *tensor)
{
    size_t bytes;
    if (!bytes_of(context, dtype, rank, dims, &bytes))
        return false;
    void *data = ag_memory_new(context, lifetime, bytes);
    if (!data)
        return false;
    put_over(tensor, data, dtype, rank, dims);
    return true;
}

bool ag_tensor_allocate(ag_context *context, ag_lifetime lifetime, ag_dtype dtype, ag_shape shape,
                        ag_tensor *tensor)
{
    return ag_tensor_allocate_dims(context, lifetime, dtype, shape.rank, shape.dims, tensor);
}

/* What lies in memory as it is has a size that fits. */
bool ag_tensor_allocate_like(ag_context *context, ag_lifetime lifetime, const ag_tensor *like,
                             ag_tensor *tensor)
{
    int64_t count = 1;
    for (int i = like->rank - 1; i >= 0; i--) {
        if (like->strides[i] != count)
            return ag_tensor_allocate_dims(context, lifetime, like->dtype, like->rank, like->dims,
                                           tensor);
        tensor->dims[i] = like->dims[i];
        tensor->strides[i] = count;
        count *= like->dims[i];
    }
    tensor->dtype = like->dtype;
    tensor->rank = like->rank;
    size_t bytes = (size_t)count * ag_item_size(like->dtype);
    tensor->data = ag_memory_new(context, lifetime, bytes);
    return tensor->data != NULL;
}

ag_tensor *ag_tensor_new(ag_context *context, ag_lifetime lifetime, ag_dtype dtype, ag_shape shape)
{
    if (!context || context->error)
        return NULL;
    if (dtype == AG_DEFAULT_DTYPE)
        dtype = context->dtype;
    size_t bytes = 0;
    if (!ag_shape_bytes(context, dtype, shape, &bytes))
        return NULL;
    ag_tensor *tensor = ag_memory_new(context, lifetime, sizeof *tensor);
    if (!tensor || !ag_tensor_allocate(context, lifetime, dtype, shape, tensor))
        return NULL;
    memset(tensor->data, 0, bytes);
    return tensor;
}

ag_shape ag_tensor_shape(const ag_tensor *tensor)
{
    if (!tensor)
        return (ag_shape){ .rank = -1 };
    ag_shape shape;
    shape.rank = tensor->rank;
    for (int i = 0; i < shape.rank && i < AG_MAX_RANK; i++)
        shape.dims[i] = tensor->dims[i];
    return shape;
}

int64_t ag_tensor_count(const ag_tensor *tensor)
{
    return tensor ? ag_tensor_elements(tensor) : 0;
}

bool ag_tensor_is_valid(const ag_tensor *x)
{
    if (!x || x->rank < 0 || x->rank > AG_MAX_RANK || ag_dtype_size(x->dtype) == 0)
        return false;
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] < 0)
            return false;
    return x->data || ag_tensor_count(x) == 0;
}

void ag_tensor_extent(const ag_tensor *x, uintptr_t *first, uintptr_t *end)
{
    int64_t low = 0, high = 0, size = (int64_t)ag_dtype_size(x->dtype);
    for (int i = 0; i < x->rank; i++) {
        int64_t reach = (x->dims[i] - 1) * x->strides[i];
        low += reach < 0 ? reach : 0;
        high += reach > 0 ? reach : 0;
    }
    *first = (uintptr_t)x->data + (uintptr_t)(low * size);
    *end = (uintptr_t)x->data + (uintptr_t)((high + 1) * size);
}

bool ag_tensor_is_contiguous(const ag_tensor *tensor)
{
    if (!tensor)
        return false;
    int64_t stride = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->dims[i] == 0)
            return true;
        if (tensor->dims[i] != 1 && tensor->strides[i] != stride)
            return false;
        stride *= tensor->dims[i];
    }
    return true;
}

/* ---- Elements ---- */

static double read_element(const ag_tensor *tensor, int64_t offset)
{
    switch (tensor->dtype) {
    case AG_F32:
        return (double)((const float *)tensor->data)[offset];
    case AG_F64:
        return ((const double *)tensor->data)[offset];
    case AG_I64:
        return (double)((const int64_t *)tensor->data)[offset];
    case AG_C128:
        return ((const ag_complex *)tensor->data)[offset].re;
    case AG_DEFAULT_DTYPE:
        break;
    }
    return NAN;
}

static void write_element(ag_tensor *tensor, int64_t offset, double value)
{
    switch (tensor->dtype) {
    case AG_F32:
        ((float *)tensor->data)[offset] = (float)value;
        break;
    case AG_F64:
        ((double *)tensor->data)[offset] = value;
        break;
    case AG_I64:
        ((int64_t *)tensor->data)[offset] = ag_to_int64(value);
        break;
    case AG_C128:
        ((ag_complex *)tensor->data)[offset] = (ag_complex){ value, 0.0 };
        break;
    case AG_DEFAULT_DTYPE:
        break;
    }
}

static bool offset_of_index(const ag_tensor *tensor, const int64_t *index, int64_t *offset)
{
    if (!ag_tensor_is_valid(tensor) || (!index && tensor->rank > 0))
        return false;
    *offset = 0;
    for (int i = 0; i < tensor->rank; i++) {
        if (index[i] < 0 || index[i] >= tensor->dims[i])
            return false;
        *offset += index[i] * tensor->strides[i];
    }
    return true;
}

static bool offset_of_place(const ag_tensor *tensor, int64_t k, int64_t *offset)
{
    if (!ag_tensor_is_valid(tensor) || k < 0 || k >= ag_tensor_count(tensor))
        return false;
    *offset = 0;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        *offset += k % tensor->dims[i] * tensor->strides[i];
        k /= tensor->dims[i];
    }
    return true;
}

double ag_tensor_get(const ag_tensor *tensor, const int64_t *index)
{
    int64_t offset;
    return offset_of_index(tensor, index, &offset) ? read_element(tensor, offset) : NAN;
}

bool ag_tensor_set(ag_tensor *tensor, const int64_t *index, double value)
{
    int64_t offset;
    if (!offset_of_index(tensor, index, &offset))
        return false;
    write_element(tensor, offset, value);
    return true;
}

double ag_tensor_at(const ag_tensor *tensor, int64_t k)
{
    int64_t offset;
    return offset_of_place(tensor, k, &offset) ? read_element(tensor, offset) : NAN;
}

bool ag_tensor_put(ag_tensor *tensor, int64_t k, double value)
{
    int64_t offset;
    if (!offset_of_place(tensor, k, &offset))
        return false;
    write_element(tensor, offset, value);
    return true;
}

double ag_tensor_imaginary_at(const ag_tensor *tensor, int64_t k)
{
    int64_t offset;
    if (!offset_of_place(tensor, k, &offset))
        return NAN;
    return tensor->dtype == AG_C128 ? ((const ag_complex *)tensor->data)[offset].im : 0.0;
}

bool ag_tensor_put_complex(ag_tensor *tensor, int64_t k, ag_complex value)
{
    int64_t offset;
    if (!offset_of_place(tensor, k, &offset))
        return false;
    if (tensor->dtype == AG_C128)
        ((ag_complex *)tensor->data)[offset] = value;
    else
        write_element(tensor, offset, value.re);
    return true;
}

int ag_axis(ag_context *context, const char *operation, int axis, int rank)
{
    if (axis < -rank || axis >= rank) {
        ag_fail(context, AG_ERR_INDEX, "%s: axis %d of a tensor of rank %d", operation, axis, rank);
        return -1;
    }
    return axis < 0 ? axis + rank : axis;
}
