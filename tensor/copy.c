/* Copying and filling: any strides, any pair of dtypes. */
#include "internal.h"

#include <math.h>
#include <string.h>

int64_t ag_to_int64(double value)
{
    if (isnan(value))
        return 0;
    if (value >= 9223372036854775808.0)
        return INT64_MAX;
    if (value < -9223372036854775808.0)
        return INT64_MIN;
    return (int64_t)value;
}

/* One row of n elements between two dtypes. */
typedef void copy_row(int64_t n, char *to, int64_t to_stride, const char *from,
                      int64_t from_stride);

#define COPY_ROW(name, TO, FROM, convert)                                      \
    static void name(int64_t n, char *to, int64_t to_stride, const char *from, \
                     int64_t from_stride)                                      \
    {                                                                          \
        TO *y = (TO *)(void *)to;                                              \
        const FROM *x = (const FROM *)(const void *)from;                      \
        for (int64_t i = 0; i < n; i++)                                        \
            y[i * to_stride] = convert(x[i * from_stride]);                    \
    }

COPY_ROW(f32_from_f32, float, float, (float))
COPY_ROW(f32_from_f64, float, double, (float))
COPY_ROW(f32_from_i64, float, int64_t, (float))
COPY_ROW(f64_from_f32, double, float, (double))
COPY_ROW(f64_from_f64, double, double, (double))
COPY_ROW(f64_from_i64, double, int64_t, (double))
COPY_ROW(i64_from_f32, int64_t, float, ag_to_int64)
COPY_ROW(i64_from_f64, int64_t, double, ag_to_int64)
COPY_ROW(i64_from_i64, int64_t, int64_t, (int64_t))

static ag_complex complex_of(double value)
{
    return (ag_complex){ value, 0.0 };
}

static ag_complex complex_of_integer(int64_t value)
{
    return complex_of((double)value);
}

COPY_ROW(c128_from_f32, ag_complex, float, complex_of)
COPY_ROW(c128_from_f64, ag_complex, double, complex_of)
COPY_ROW(c128_from_i64, ag_complex, int64_t, complex_of_integer)
COPY_ROW(c128_from_c128, ag_complex, ag_complex, )

/* There is none from c128 to real numbers: an imaginary part would be lost without a word. */
static copy_row *const copy_rows[5][5] = {
    [AG_F32] = { [AG_F32] = f32_from_f32, [AG_F64] = f32_from_f64, [AG_I64] = f32_from_i64 },
    [AG_F64] = { [AG_F32] = f64_from_f32, [AG_F64] = f64_from_f64, [AG_I64] = f64_from_i64 },
    [AG_I64] = { [AG_F32] = i64_from_f32, [AG_F64] = i64_from_f64, [AG_I64] = i64_from_i64 },
    [AG_C128] = { [AG_F32] = c128_from_f32,
                  [AG_F64] = c128_from_f64,
                  [AG_I64] = c128_from_i64,
                  [AG_C128] = c128_from_c128 },
};

/* to and from have one shape and at least one element. */
static void copy_elements(ag_tensor *to, const ag_tensor *from)
{
    if (to->dtype == from->dtype && ag_tensor_is_contiguous(to) && ag_tensor_is_contiguous(from)) {
        memcpy(to->data, from->data, ag_tensor_bytes(to));
        return;
    }
    copy_row *row = copy_rows[to->dtype][from->dtype];
    int64_t to_size = (int64_t)ag_dtype_size(to->dtype);
    int64_t from_size = (int64_t)ag_dtype_size(from->dtype);
    int last = to->rank - 1;
    int64_t n = last < 0 ? 1 : to->dims[last];
    int64_t to_stride = last < 0 ? 0 : to->strides[last];
    int64_t from_stride = last < 0 ? 0 : from->strides[last];

    int64_t index[AG_MAX_RANK] = { 0 }, to_offset = 0, from_offset = 0;
    for (;;) {
        row(n, (char *)to->data + to_offset * to_size, to_stride,
            (const char *)from->data + from_offset * from_size, from_stride);
        int axis = last - 1;
        for (; axis >= 0; axis--) { /* the next row, counting like an odometer */
            to_offset += to->strides[axis];
            from_offset += from->strides[axis];
            if (++index[axis] < to->dims[axis])
                break;
            to_offset -= to->strides[axis] * to->dims[axis];
            from_offset -= from->strides[axis] * to->dims[axis];
            index[axis] = 0;
        }
        if (axis < 0)
            return;
    }
}

static bool overlap(const ag_tensor *a, const ag_tensor *b)
{
    uintptr_t a_first, a_end, b_first, b_end;
    ag_tensor_extent(a, &a_first, &a_end);
    ag_tensor_extent(b, &b_first, &b_end);
    return a_first < b_end && b_first < a_end;
}

static bool dense_copy(ag_context *context, const ag_tensor *x, ag_tensor *dense)
{
    if (!ag_tensor_allocate_like(context, AG_STEP, x, dense))
        return false;
    if (ag_tensor_count(x) > 0)
        copy_elements(dense, x);
    return true;
}

bool ag_tensor_dense(ag_context *context, const ag_tensor *x, ag_tensor *dense)
{
    if (!ag_tensor_is_contiguous(x))
        return dense_copy(context, x, dense);
    ag_tensor_put_over(dense, x->data, x);
    return true;
}

/* A tensor may be a struct of the caller's own making. */
static bool check_operand(ag_context *context, const ag_tensor *x)
{
    size_t bytes;
    if (!ag_shape_bytes(context, x->dtype, ag_tensor_shape(x), &bytes))
        return false;
    if (!x->data && bytes > 0)
        return ag_fail(context, AG_ERR_ARGUMENT, "copy: a tensor has no data");
    return true;
}

bool ag_tensor_copy(ag_context *context, ag_tensor *to, const ag_tensor *from)
{
    if (!context || context->error)
        return false;
    if (!to || !from)
        return ag_fail(context, AG_ERR_ARGUMENT, "copy: the tensor is NULL");
    if (!check_operand(context, to) || !check_operand(context, from))
        return false;
    if (!copy_rows[to->dtype][from->dtype])
        return ag_fail(context, AG_ERR_DTYPE, "copy: %s does not become %s",
                       ag_dtype_name(from->dtype), ag_dtype_name(to->dtype));
    for (int i = 0; i < to->rank; i++)
        if (to->strides[i] == 0 && to->dims[i] > 1)
            return ag_fail(context, AG_ERR_SHAPE,
                           "copy: the target repeats its elements (stride 0)");
    ag_tensor source;
    if (!ag_tensor_broadcast(context, from, ag_tensor_shape(to), &source))
        return false;
    if (ag_tensor_count(to) == 0)
        return true;
    ag_tensor copy;
    bool shared = overlap(to, &source);
    if (shared && !dense_copy(context, &source, &copy))
        return false;
    copy_elements(to, shared ? &copy : &source);
    if (shared)
        ag_memory_recycle(context, copy.data, ag_tensor_bytes(&copy));
    return true;
}

bool ag_tensor_fill(ag_context *context, ag_tensor *tensor, double value)
{
    ag_tensor number = ag_tensor_over(&value, AG_F64, AG_SCALAR);
    return ag_tensor_copy(context, tensor, &number);
}
