/* Printing tensors, for people.
 *
 *   [[ 0.5000 -1.2500  3.0000]
 *    [ 1.0000  0.0000  2.0000]]
 *
 * One format for the whole tensor, so that columns line up: integers as they
 * are; floats with four decimals where the largest of them is neither huge nor
 * tiny, and otherwise with four significant digits. Imaginary parts, which may be tiny beside
 * the real ones, have four significant digits: 0.5000+1e-30i. Long axes show only their ends. */
#include "internal.h"

#include <inttypes.h>
#include <math.h>

#define LONGEST_AXIS 8
#define ENDS 3 /* elements shown at each end of a longer axis */

typedef struct printer {
    const ag_tensor *tensor;
    FILE *file;
    double largest; /* of the absolute values shown */
    bool fixed;     /* four decimals */
    int width;      /* of a column */
} printer;

/* The index to show after i, which leaps over the middle of a long axis. */
static int64_t next_shown(int64_t i, int64_t size)
{
    return size > LONGEST_AXIS && i == ENDS - 1 ? size - ENDS : i + 1;
}

/* Calls look for every element that will be shown. */
static void each_shown(printer *p, int axis, int64_t offset, void (*look)(printer *, int64_t))
{
    if (axis == p->tensor->rank) {
        look(p, offset);
        return;
    }
    int64_t size = p->tensor->dims[axis];
    for (int64_t i = 0; i < size; i = next_shown(i, size))
        each_shown(p, axis + 1, offset + i * p->tensor->strides[axis], look);
}

static double float_at(const ag_tensor *tensor, int64_t offset)
{
    if (tensor->dtype == AG_C128)
        return ((const ag_complex *)tensor->data)[offset].re;
    return tensor->dtype == AG_F32 ? (double)((const float *)tensor->data)[offset]
                                   : ((const double *)tensor->data)[offset];
}

static void look_at_size(printer *p, int64_t offset)
{
    double size = fabs(float_at(p->tensor, offset));
    if (!isfinite(size))
        return;
    p->largest = fmax(p->largest, size);
}

/* The text of one element. */
static int element_text(const printer *p, int64_t offset, char *text, size_t room)
{
    if (p->tensor->dtype == AG_I64)
        return snprintf(text, room, "%" PRId64, ((const int64_t *)p->tensor->data)[offset]);
    double value = float_at(p->tensor, offset);
    int used = isnan(value) ? snprintf(text, room, "nan") /* whose sign means nothing */
                            : snprintf(text, room, p->fixed ? "%.4f" : "%.4g", value);
    if (p->tensor->dtype == AG_C128)
        used += snprintf(text + used, room - (size_t)used, "%+.4gi",
                         ((const ag_complex *)p->tensor->data)[offset].im);
    return used;
}

static void look_at_width(printer *p, int64_t offset)
{
    char text[64];
    int width = element_text(p, offset, text, sizeof text);
    if (width > p->width)
        p->width = width;
}

static void print_element(const printer *p, int64_t offset)
{
    char text[64];
    element_text(p, offset, text, sizeof text);
    fprintf(p->file, "%*s", p->width, text);
}

/* Between two numbers a space; between two rows a new line, indented to the
 * bracket that is open; between two matrices an empty line as well. */
static void print_gap(const printer *p, int axis)
{
    int deeper = p->tensor->rank - 1 - axis;
    for (int i = 0; i < deeper && i < 2; i++)
        fputc('\n', p->file);
    fprintf(p->file, "%*s", deeper > 0 ? axis + 1 : 1, "");
}

static void print_axis(const printer *p, int axis, int64_t offset)
{
    if (axis == p->tensor->rank) {
        print_element(p, offset);
        return;
    }
    int64_t size = p->tensor->dims[axis];
    fputc('[', p->file);
    for (int64_t i = 0, next; i < size; i = next) {
        print_axis(p, axis + 1, offset + i * p->tensor->strides[axis]);
        next = next_shown(i, size);
        if (next > i + 1) { /* some are left out */
            print_gap(p, axis);
            fputs("..", p->file);
        }
        if (next < size)
            print_gap(p, axis);
    }
    fputc(']', p->file);
}

void ag_tensor_print(const ag_tensor *tensor, FILE *file)
{
    if (!file)
        return;
    if (!ag_tensor_is_valid(tensor)) {
        fputs(tensor ? "(not a tensor)\n" : "(null)\n", file);
        return;
    }
    if (ag_tensor_count(tensor) == 0) {
        char text[256];
        fprintf(file, "[] shape %s\n", ag_shape_text(ag_tensor_shape(tensor), text, sizeof text));
        return;
    }
    printer p = { .tensor = tensor, .file = file };
    if (tensor->dtype != AG_I64)
        each_shown(&p, 0, 0, look_at_size);
    p.fixed = p.largest == 0 || (p.largest < 1e5 && p.largest >= 1e-2);
    each_shown(&p, 0, 0, look_at_width);
    print_axis(&p, 0, 0);
    fputc('\n', file);
}
