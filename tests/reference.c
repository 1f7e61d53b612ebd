/* Loads reference numbers and compares; see reference.h. */
#include "reference.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TOLERANCE 1e-10
#define ROUNDING 1e-13
#define MAX_GRADIENTS 32

ag_context *ag_reference_context(void)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    cr_assert_eq(ag_status(context), AG_OK, "%s", ag_error_message(context));
    return context;
}

void ag_reference_finish(ag_context *context)
{
    cr_expect_eq(ag_status(context), AG_OK, "%s", ag_error_message(context));
    ag_context_free(context);
}

const ag_tensor *ag_reference_read(ag_context *context, const char *name, ...)
{
    char file[128], path[1024];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(file, sizeof file, name, arguments);
    va_end(arguments);
    snprintf(path, sizeof path, "%s/reference/%s.npy", AG_TEST_DATA, file);
    const ag_tensor *tensor = ag_npy_read(context, path, AG_KEEP);
    cr_assert(tensor != NULL, "%s", ag_error_message(context));
    return tensor;
}

ag_var ag_reference_constant(ag_context *context, const char *name)
{
    return ag_set_name(ag_from_tensor(context, ag_reference_read(context, "%s", name)), name);
}

ag_var ag_reference_input(ag_context *context, const char *name)
{
    return ag_require_gradient(ag_reference_constant(context, name));
}

ag_tensor ag_reference_part(const ag_tensor *tensor, int axis, int64_t i)
{
    cr_assert(axis < tensor->rank && i < tensor->dims[axis], "no part %" PRId64 " of axis %d", i,
              axis);
    ag_tensor part = *tensor;
    int64_t offset = i * tensor->strides[axis];
    part.data = (char *)tensor->data + offset * (int64_t)ag_dtype_size(tensor->dtype);
    part.rank = tensor->rank - 1;
    for (int k = axis; k < part.rank; k++) {
        part.dims[k] = tensor->dims[k + 1];
        part.strides[k] = tensor->strides[k + 1];
    }
    return part;
}

/* Root mean square of the finite entries. */
static double rms_of(const ag_tensor *tensor)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t k = 0; k < ag_tensor_count(tensor); k++) {
        double value = ag_tensor_at(tensor, k);
        if (isfinite(value)) {
            sum += value * value;
            n++;
        }
    }
    return n > 0 ? sqrt(sum / (double)n) : 0;
}

/* "[1,2,0]": the index of the k-th entry in row-major order. */
static void index_text(const ag_tensor *tensor, int64_t k, char *text, size_t size)
{
    int64_t index[AG_MAX_RANK];
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        index[axis] = k % tensor->dims[axis];
        k /= tensor->dims[axis];
    }
    ag_shape_text(ag_shape_make(tensor->rank, index), text, size);
}

static bool same_form(const ag_tensor *got, const ag_tensor *want, char *message, size_t size)
{
    if (got == NULL) {
        snprintf(message, size, "there is none");
        return false;
    }
    char got_shape[96], want_shape[96];
    ag_shape_text(ag_tensor_shape(got), got_shape, sizeof got_shape);
    ag_shape_text(ag_tensor_shape(want), want_shape, sizeof want_shape);
    snprintf(message, size, "got %s %s, want %s %s", ag_dtype_name(got->dtype), got_shape,
             ag_dtype_name(want->dtype), want_shape);
    return got->dtype == want->dtype && strcmp(got_shape, want_shape) == 0;
}

bool ag_reference_agrees(const ag_tensor *got, const ag_tensor *want, char *message, size_t size)
{
    if (!same_form(got, want, message, size))
        return false;
    double floor = fmin(rms_of(want), 1);
    int64_t differ = 0, first = 0;
    for (int64_t k = 0; k < ag_tensor_count(want); k++) {
        double g = ag_tensor_at(got, k), w = ag_tensor_at(want, k);
        double allowed = TOLERANCE * fmax(fabs(w), floor) + ROUNDING;
        bool close = isfinite(w) && fabs(g - w) <= allowed;
        if (g != w && !close && differ++ == 0)
            first = k;
    }
    if (differ > 0) {
        char index[96];
        index_text(want, first, index, sizeof index);
        snprintf(message, size,
                 "at %s: got %.17g, want %.17g (and %" PRId64 " of %" PRId64 " entries differ)",
                 index, ag_tensor_at(got, first), ag_tensor_at(want, first), differ,
                 ag_tensor_count(want));
    }
    return differ == 0;
}

void ag_reference_expect(const char *name, const ag_tensor *got, const ag_tensor *want)
{
    char message[512];
    cr_expect(ag_reference_agrees(got, want, message, sizeof message), "%s %s", name, message);
}

static void expect_gradient(const char *case_name, const char *how, const char *name,
                            const ag_tensor *got, const ag_tensor *want)
{
    char text[256];
    snprintf(text, sizeof text, "%s: %s gradient of %s", case_name, how, name);
    ag_reference_expect(text, got, want);
}

void ag_reference_expect_gradients(const char *case_name, ag_var y, ag_var cotangent,
                                   const ag_reference_gradient *gradients, int n)
{
    ag_var inputs[MAX_GRADIENTS], composed[MAX_GRADIENTS];
    cr_assert_leq(n, MAX_GRADIENTS);
    for (int i = 0; i < n; i++)
        inputs[i] = gradients[i].input;
    bool done = ag_grad_from(y, cotangent, inputs, n, composed, AG_CREATE_GRAPH);
    cr_assert(done, "%s: %s", case_name, ag_error_message(y.context));
    for (int i = 0; i < n; i++)
        expect_gradient(case_name, "composed", gradients[i].name, ag_value(composed[i]),
                        gradients[i].want);
    done = ag_backward_from(y, cotangent);
    cr_assert(done, "%s: %s", case_name, ag_error_message(y.context));
    for (int i = 0; i < n; i++)
        expect_gradient(case_name, "accumulated", gradients[i].name,
                        ag_gradient(gradients[i].input), gradients[i].want);
}
