/* NumPy's .npy files: the format, and reading it. Writing is in npy_write.c.
 *
 *   "\x93NUMPY", major, minor          8 bytes
 *   header length                      2 bytes (version 1) or 4 (2 and 3), little-endian
 *   header                             {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
 *   data                               the elements, nothing else
 *
 * Reading believes nothing: the sizes that the header promises are held
 * against the file's length before memory is taken. Numbers are put together
 * from bytes, so the machine's own byte order does not matter. */
#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_HEADER ((uint32_t)1 << 20)
#define PIECE 16384 /* bytes that are converted at a time */

/* What the header says. */
typedef struct npy_header {
    bool big_endian, fortran_order;
    char kind; /* f, i, u or b */
    int bytes; /* of one element */
    ag_shape shape;
} npy_header;

/* ---- The header: a Python dictionary with three keys ------------------- */

typedef struct parser {
    ag_context *context;
    const char *path, *at; /* at ends with a NUL */
    npy_header *header;
} parser;

AG_PRINTF(2, 3) static bool refuse(const parser *p, const char *format, ...)
{
    char reason[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return ag_fail(p->context, AG_ERR_FORMAT, "npy_read: %s: %s", p->path, reason);
}

static void skip_space(parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

/* Takes the text if it comes next. */
static bool take(parser *p, const char *text)
{
    skip_space(p);
    size_t length = strlen(text);
    if (strncmp(p->at, text, length) != 0)
        return false;
    p->at += length;
    return true;
}

/* A string in single or double quotes, without escapes. */
static bool take_string(parser *p, char *text, size_t size)
{
    skip_space(p);
    char quote = *p->at;
    if (quote != '\'' && quote != '"')
        return false;
    const char *start = p->at + 1, *end = strchr(start, quote);
    if (!end || (size_t)(end - start) >= size)
        return false;
    memcpy(text, start, (size_t)(end - start));
    text[end - start] = '\0';
    p->at = end + 1;
    return true;
}

/* A byte order and a type, such as <f4. */
static bool parse_descr(parser *p)
{
    npy_header *header = p->header;
    const char *start = p->at;
    char text[32];
    if (!take_string(p, text, sizeof text))
        return refuse(p, "the dtype %.40s cannot be read: only plain numbers can", start);
    const char *type = text + (strchr("<>=|", text[0]) && text[0] ? 1 : 0);
    header->big_endian = text[0] == '>';
    static const char known[][3] = { "f2", "f4", "f8", "i1", "i2", "i4",
                                     "i8", "u1", "u2", "u4", "u8", "b1" };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i]) == 0) {
            header->kind = type[0];
            header->bytes = type[1] - '0';
            return true;
        }
    }
    return refuse(p, "the dtype '%s' cannot be read: only f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 can",
                  text);
}

static bool parse_order(parser *p)
{
    p->header->fortran_order = take(p, "True");
    if (!p->header->fortran_order && !take(p, "False"))
        return refuse(p, "fortran_order in the header is neither True nor False");
    return true;
}

static bool parse_size(parser *p, int64_t *size)
{
    skip_space(p);
    if (!isdigit((unsigned char)*p->at))
        return refuse(p, "the shape in the header holds something other than sizes: %.20s", p->at);
    *size = 0;
    for (; isdigit((unsigned char)*p->at); p->at++) {
        int digit = *p->at - '0';
        if (*size > (INT64_MAX - digit) / 10)
            return refuse(p, "a size in the header is too large");
        *size = *size * 10 + digit;
    }
    return true;
}

/* () or (3,) or (3, 4) or (3, 4,): as in Python, (3) is not a tuple. */
static bool parse_shape(parser *p)
{
    ag_shape *shape = &p->header->shape;
    if (!take(p, "("))
        return refuse(p, "the shape in the header is not a tuple");
    bool comma = true;
    shape->rank = 0;
    while (!take(p, ")")) {
        if (!comma)
            return refuse(p, "the shape in the header lacks a comma or its end");
        if (shape->rank == AG_MAX_RANK)
            return refuse(p, "the rank is larger than %d", AG_MAX_RANK);
        if (!parse_size(p, &shape->dims[shape->rank]))
            return false;
        shape->rank++;
        comma = take(p, ",");
    }
    if (shape->rank == 1 && !comma)
        return refuse(p, "the shape in the header is not a tuple");
    return true;
}

/* The keys come in any order, each exactly once. */
static bool parse_header(parser *p)
{
    static const char *const keys[] = { "descr", "fortran_order", "shape" };
    static bool (*const parse[])(parser *) = { parse_descr, parse_order, parse_shape };
    bool seen[3] = { false, false, false }, comma = true;
    if (!take(p, "{"))
        return refuse(p, "the header is not a dictionary");
    while (!take(p, "}")) {
        char key[32];
        int k = 0;
        if (!comma || !take_string(p, key, sizeof key) || !take(p, ":"))
            return refuse(p, "the header is not a dictionary of descr, fortran_order and shape");
        while (k < 3 && strcmp(key, keys[k]) != 0)
            k++;
        if (k == 3 || seen[k])
            return refuse(p, "the key '%s' is %s", key, k == 3 ? "unknown" : "there twice");
        seen[k] = true;
        skip_space(p);
        if (!parse[k](p))
            return false;
        comma = take(p, ",");
    }
    for (int k = 0; k < 3; k++)
        if (!seen[k])
            return refuse(p, "the header has no '%s'", keys[k]);
    return true;
}

/* ---- Reading ----------------------------------------------------------- */

/* An open file and what is known of it. */
typedef struct npy_file {
    parser parser;
    npy_header header;
    FILE *stream;
    uint64_t size, data_start;
} npy_file;

static bool open_file(npy_file *file)
{
    ag_context *context = file->parser.context;
    const char *path = file->parser.path;
    struct stat info;
    /* Asked before opening, which would wait for a pipe's other end. */
    if (stat(path, &info) != 0)
        return ag_fail(context, AG_ERR_IO, "npy_read: cannot open %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return ag_fail(context, AG_ERR_IO, "npy_read: %s is %s", path,
                       S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    file->size = (uint64_t)info.st_size;
    file->stream = fopen(path, "rb");
    if (!file->stream)
        return ag_fail(context, AG_ERR_IO, "npy_read: cannot open %s: %s", path, strerror(errno));
    return true;
}

static bool read_bytes(npy_file *file, void *bytes, size_t count)
{
    if (fread(bytes, 1, count, file->stream) == count)
        return true;
    if (ferror(file->stream))
        return ag_fail(file->parser.context, AG_ERR_IO, "npy_read: cannot read %s: %s",
                       file->parser.path, strerror(errno));
    return refuse(&file->parser, "the file ends too early");
}

static uint64_t number_of_bytes(const unsigned char *bytes, int count, bool big_endian)
{
    uint64_t number = 0;
    for (int i = 0; i < count; i++)
        number = number << 8 | bytes[big_endian ? i : count - 1 - i];
    return number;
}

static bool read_header(npy_file *file)
{
    parser *p = &file->parser;
    unsigned char start[12] = { 0 };
    if (file->size < 10)
        return refuse(p, "not a .npy file: only %" PRIu64 " bytes", file->size);
    if (!read_bytes(file, start, 8))
        return false;
    if (memcmp(start, "\x93NUMPY", 6) != 0)
        return refuse(p, "not a .npy file: it does not begin with \\x93NUMPY");
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        return refuse(p, "version %d.%d of the format is not known", start[6], start[7]);
    int width = start[6] == 1 ? 2 : 4;
    if (!read_bytes(file, start + 8, (size_t)width))
        return false;
    uint32_t length = (uint32_t)number_of_bytes(start + 8, width, false);
    if (length > MAX_HEADER)
        return refuse(p, "a header of %" PRIu32 " bytes is not believed", length);
    file->data_start = 8 + (uint64_t)width + length;
    if (file->data_start > file->size)
        return refuse(p, "the header of %" PRIu32 " bytes is longer than the file", length);

    char *text = ag_memory_new(p->context, AG_STEP, length + 1);
    if (!text)
        return false;
    p->at = text;
    bool good = read_bytes(file, text, length);
    text[length] = '\0';
    good = good && parse_header(p);
    if (good) {
        skip_space(p);
        if (p->at != text + length)
            good = refuse(p, "something follows the dictionary in the header");
    }
    ag_memory_recycle(p->context, text, length + 1);
    return good;
}

/* Holds the promised elements against the bytes that are there. */
static bool check_size(const npy_file *file)
{
    const npy_header *header = &file->header;
    char text[256];
    ag_shape_text(header->shape, text, sizeof text);
    int64_t product = 1; /* without the zeros, as strides are made from it */
    bool empty = false;
    for (int i = 0; i < header->shape.rank; i++) {
        int64_t size = header->shape.dims[i];
        empty = empty || size == 0;
        if (size > 0 && product > INT64_MAX / 8 / size)
            return refuse(&file->parser, "the shape %s overflows", text);
        product *= size > 0 ? size : 1;
    }
    uint64_t promised = empty ? 0 : (uint64_t)product * (uint64_t)header->bytes;
    uint64_t there = file->size - file->data_start;
    if (promised != there)
        return refuse(&file->parser,
                      "the shape %s needs %" PRIu64 " bytes of data, the file has %" PRIu64, text,
                      promised, there);
    return true;
}

/* IEEE half precision: 1 sign, 5 exponent, 10 fraction bits. */
static float float_of_half(unsigned bits)
{
    int exponent = (int)(bits >> 10 & 31);
    float fraction = (float)(bits & 1023), value;
    if (exponent == 31)
        value = fraction > 0 ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf(fraction, -24);
    else
        value = ldexpf(1024 + fraction, exponent - 25);
    return bits >> 15 ? -value : value;
}

/* One element of the file into element k of dense; false if it does not fit. */
static bool convert_element(const npy_header *header, const unsigned char *bytes, ag_tensor *dense,
                            int64_t k)
{
    uint64_t bits = number_of_bytes(bytes, header->bytes, header->big_endian);
    if (header->kind == 'f') {
        uint32_t half_of_bits = (uint32_t)bits;
        if (header->bytes == 8)
            memcpy((double *)dense->data + k, &bits, 8);
        else if (header->bytes == 4)
            memcpy((float *)dense->data + k, &half_of_bits, 4);
        else
            ((float *)dense->data)[k] = float_of_half((unsigned)bits);
        return true;
    }
    if (header->kind == 'b')
        bits = bits != 0;
    if (header->kind == 'u' && bits > INT64_MAX)
        return false;
    if (header->kind == 'i') { /* copy the sign bit upwards */
        uint64_t sign = (uint64_t)1 << (8 * header->bytes - 1);
        bits = (bits ^ sign) - sign;
    }
    memcpy((int64_t *)dense->data + k, &bits, 8);
    return true;
}

/* The elements in the order of the file. */
static bool read_data(npy_file *file, ag_tensor *dense)
{
    unsigned char piece[PIECE];
    int64_t count = ag_tensor_count(dense), at_once = PIECE / file->header.bytes;
    for (int64_t start = 0; start < count; start += at_once) {
        int64_t n = count - start < at_once ? count - start : at_once;
        if (!read_bytes(file, piece, (size_t)(n * file->header.bytes)))
            return false;
        for (int64_t i = 0; i < n; i++)
            if (!convert_element(&file->header, piece + i * file->header.bytes, dense, start + i))
                return refuse(&file->parser, "element %" PRId64 " does not fit into i64",
                              start + i);
    }
    return true;
}

/* Column-major is row-major with the axes in reverse. */
static bool read_reversed(npy_file *file, ag_tensor *tensor)
{
    ag_context *context = file->parser.context;
    ag_tensor reversed, view;
    ag_shape shape = { .rank = tensor->rank };
    int order[AG_MAX_RANK];
    for (int i = 0; i < tensor->rank; i++) {
        order[i] = tensor->rank - 1 - i;
        shape.dims[i] = tensor->dims[order[i]];
    }
    if (!ag_tensor_allocate(context, AG_STEP, tensor->dtype, shape, &reversed))
        return false;
    bool good = read_data(file, &reversed) && ag_tensor_permute(context, &reversed, order, &view) &&
                ag_tensor_copy(context, tensor, &view);
    ag_memory_recycle(context, reversed.data, ag_tensor_bytes(&reversed));
    return good;
}

static ag_tensor *read_tensor(npy_file *file, ag_lifetime lifetime)
{
    const npy_header *header = &file->header;
    if (!read_header(file) || !check_size(file))
        return NULL;
    ag_dtype dtype = header->kind != 'f' ? AG_I64 : header->bytes == 8 ? AG_F64 : AG_F32;
    ag_tensor *tensor = ag_tensor_new(file->parser.context, lifetime, dtype, header->shape);
    if (!tensor)
        return NULL;
    bool good = header->fortran_order && tensor->rank > 1 ? read_reversed(file, tensor)
                                                          : read_data(file, tensor);
    return good ? tensor : NULL;
}

ag_tensor *ag_npy_read(ag_context *context, const char *path, ag_lifetime lifetime)
{
    if (!context || ag_status(context) != AG_OK)
        return NULL;
    if (!path) {
        ag_fail(context, AG_ERR_ARGUMENT, "npy_read: the path is NULL");
        return NULL;
    }
    npy_file file = { .parser = { .context = context, .path = path } };
    file.parser.header = &file.header;
    if (!open_file(&file))
        return NULL;
    ag_tensor *tensor = read_tensor(&file, lifetime);
    fclose(file.stream);
    return tensor;
}
