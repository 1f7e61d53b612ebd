/* Writing NumPy's .npy files, whose format npy.c describes.
 *
 * The file is written under another name beside its place and renamed when it
 * is complete: whatever goes wrong, there is the old file or the new one, and
 * never half of one. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 16384 /* bytes that are converted at a time */

static bool write_header(FILE *stream, const ag_tensor *tensor)
{
    const char *descr = tensor->dtype == AG_F32 ? "<f4" : tensor->dtype == AG_F64 ? "<f8" : "<i8";
    char text[320]; /* at most 8 sizes of 19 digits */
    int n =
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < tensor->rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%" PRId64, i ? ", " : "",
                      tensor->dims[i]);
    n += snprintf(text + n, sizeof text - (size_t)n, "%s), }", tensor->rank == 1 ? "," : "");
    /* 10 bytes stand before the header; it ends with a newline at a multiple of 64. */
    int length = (10 + n + 1 + 63) / 64 * 64 - 10;
    unsigned char start[10] = { 0x93,
                                'N',
                                'U',
                                'M',
                                'P',
                                'Y',
                                1,
                                0,
                                (unsigned char)(length & 255),
                                (unsigned char)(length >> 8) };
    return fwrite(start, 1, sizeof start, stream) == sizeof start &&
           fprintf(stream, "%-*s\n", length - 1, text) == length;
}

static bool write_data(FILE *stream, const ag_tensor *dense)
{
    unsigned char piece[PIECE];
    const int size = (int)ag_dtype_size(dense->dtype);
    int64_t count = ag_tensor_count(dense), at_once = PIECE / size;
    for (int64_t start = 0; start < count; start += at_once) {
        int64_t n = count - start < at_once ? count - start : at_once;
        for (int64_t i = 0; i < n; i++) {
            uint32_t word = 0;
            uint64_t bits = 0;
            if (size == 4)
                memcpy(&word, (const char *)dense->data + (start + i) * 4, 4);
            else
                memcpy(&bits, (const char *)dense->data + (start + i) * 8, 8);
            bits |= word;
            for (int byte = 0; byte < size; byte++)
                piece[i * size + byte] = (unsigned char)(bits >> (8 * byte));
        }
        if (fwrite(piece, (size_t)size, (size_t)n, stream) != (size_t)n)
            return false;
    }
    return true;
}

/* Opens a new file beside path, in the same directory so that it can be
 * renamed: path.tmp-PROCESS-NUMBER. */
static FILE *open_beside(const char *path, char *name, size_t size)
{
    int descriptor = -1;
    for (int number = 0; number < 100 && descriptor < 0; number++) {
        snprintf(name, size, "%s.tmp-%ld-%d", path, (long)getpid(), number);
        descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (descriptor < 0 && errno != EEXIST)
            return NULL;
    }
    FILE *stream = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (!stream && descriptor >= 0) {
        int reason = errno;
        close(descriptor);
        unlink(name);
        errno = reason;
    }
    return stream;
}

/* Writes name completely, then puts it in the place of path. */
static bool write_file(ag_context *context, const char *path, char *name, size_t size,
                       const ag_tensor *dense)
{
    FILE *stream = open_beside(path, name, size);
    if (!stream)
        return ag_fail(context, AG_ERR_IO, "npy_write: cannot create %s: %s", name,
                       strerror(errno));
    bool good = write_header(stream, dense) && write_data(stream, dense);
    int reason = good ? 0 : errno;
    if (fclose(stream) != 0 && good) {
        good = false;
        reason = errno;
    }
    if (good && rename(name, path) != 0) {
        good = false;
        reason = errno;
    }
    if (good)
        return true;
    unlink(name);
    return ag_fail(context, AG_ERR_IO, "npy_write: cannot write %s: %s", path, strerror(reason));
}

bool ag_npy_write(ag_context *context, const char *path, const ag_tensor *tensor)
{
    if (!context || ag_status(context) != AG_OK)
        return false;
    if (!path || !tensor)
        return ag_fail(context, AG_ERR_ARGUMENT, "npy_write: the %s is NULL",
                       path ? "tensor" : "path");
    if (tensor->dtype == AG_C128)
        return ag_fail(context, AG_ERR_DTYPE, "npy_write: c128 cannot be written");
    size_t bytes;
    if (!ag_shape_bytes(context, tensor->dtype, ag_tensor_shape(tensor), &bytes))
        return false;
    if (bytes > 0 && !tensor->data)
        return ag_fail(context, AG_ERR_ARGUMENT, "npy_write: the tensor has no data");
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) /* do not replace a device or directory */
        return ag_fail(context, AG_ERR_IO, "npy_write: %s is %s", path,
                       S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    ag_tensor dense;
    if (!ag_tensor_dense(context, tensor, &dense))
        return false;
    size_t size = strlen(path) + 40;
    char *name = ag_memory_new(context, AG_STEP, size);
    bool good = name && write_file(context, path, name, size, &dense);
    if (name)
        ag_memory_recycle(context, name, size);
    if (dense.data != tensor->data)
        ag_memory_recycle(context, dense.data, bytes);
    return good;
}
