/* .npy files: what NumPy wrote, what goes out and comes back, files that lie. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- A directory for each test, and what must be true after it --------- */

static ag_context *ctx;
static char directory[64], path[96];
static int first_free_descriptor;

static int free_descriptor(void)
{
    int descriptor = dup(0);
    close(descriptor);
    return descriptor;
}

static int files_in_directory(void)
{
    int count = 0;
    DIR *dir = opendir(directory);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void begin(void)
{
    strcpy(directory, "/tmp/attograd-npy-XXXXXX");
    cr_assert(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/x.npy", directory);
    ctx = ag_context_new(NULL);
    first_free_descriptor = free_descriptor();
}

/* Criterion has given its verdict before this, and does not count an
 * assertion that fails here; but the run fails when the test's process does. */
static void end(void)
{
    bool open = free_descriptor() != first_free_descriptor;
    ag_context_free(ctx);
    unlink(path);
    rmdir(path); /* whichever it was */
    bool left = rmdir(directory) != 0;
    if (open || left) {
        fprintf(stderr, "a file was left %s\n", open ? "open" : "behind");
        abort();
    }
}

TestSuite(npy, .init = begin, .fini = end, .timeout = 20);

/* A new file each time: some file systems take their time to truncate one. */
static void write_bytes(const void *bytes, size_t count)
{
    unlink(path);
    FILE *file = fopen(path, "wb");
    cr_assert(file);
    cr_assert_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static size_t read_bytes(unsigned char *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    cr_assert(file);
    size_t count = fread(bytes, 1, room, file);
    fclose(file);
    return count;
}

/* A file with this version and header (as it stands) and this data. */
static void write_npy(int version, const char *header, const void *data, size_t count)
{
    unsigned char bytes[1024] = { 0x93, 'N', 'U', 'M', 'P', 'Y', (unsigned char)version };
    size_t length = strlen(header), start = version == 1 ? 10 : 12;
    bytes[8] = (unsigned char)(length & 255);
    bytes[9] = (unsigned char)(length >> 8);
    memcpy(bytes + start, header, length);
    if (count)
        memcpy(bytes + start + length, data, count);
    write_bytes(bytes, start + length + count);
}

/* Reading fails with a sentence that holds the path and the words. */
static void expect_refusal(ag_error error, const char *words)
{
    cr_assert_null(ag_npy_read(ctx, path, AG_STEP), "%s", words);
    cr_assert_eq(ag_status(ctx), error, "%s", ag_error_message(ctx));
    cr_assert(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    cr_assert(strstr(ag_error_message(ctx), path), "%s", ag_error_message(ctx));
    ag_error_clear(ctx);
}

static ag_tensor *expect_tensor(ag_dtype dtype, ag_shape shape, const double *values)
{
    ag_tensor *x = ag_npy_read(ctx, path, AG_STEP);
    cr_assert(x, "%s", ag_error_message(ctx));
    cr_assert_eq(x->dtype, dtype);
    cr_assert(ag_shape_equal(ag_tensor_shape(x), shape));
    cr_assert(ag_tensor_is_contiguous(x));
    for (int64_t k = 0; k < ag_shape_count(shape); k++) {
        double value = ag_tensor_at(x, k);
        cr_assert(value == values[k] || (isnan(value) && isnan(values[k])), "element %lld is %g",
                  (long long)k, value);
    }
    return x;
}

/* ---- Files that NumPy 2.4 wrote ---------------------------------------- */

/* clang-format off */
#define SPACES_58 "                             " "                             "
static const char numpy_f4[] = /* [[1, -2.5, 3], [4, 5, 0.1]] */
    "\x93NUMPY\x01\x00\x76\x00"
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" SPACES_58 "\n"
    "\x00\x00\x80\x3f\x00\x00\x20\xc0\x00\x00\x40\x40"
    "\x00\x00\x80\x40\x00\x00\xa0\x40\xcd\xcc\xcc\x3d";
static const char numpy_f8_columns[] = /* [[1, 2, 3], [4, 5, 6]], column by column */
    "\x93NUMPY\x01\x00\x76\x00"
    "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3), }" SPACES_58 " \n"
    "\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\x10\x40"
    "\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x14\x40"
    "\x00\x00\x00\x00\x00\x00\x08\x40\x00\x00\x00\x00\x00\x00\x18\x40";
static const char numpy_version_2[] = /* [1.5] */
    "\x93NUMPY\x02\x00\x74\x00\x00\x00"
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" SPACES_58 "\n"
    "\x00\x00\x00\x00\x00\x00\xf8\x3f";
/* clang-format on */

Test(npy, reads_what_numpy_wrote)
{
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    expect_tensor(AG_F32, AG_SHAPE(2, 3), (double[]){ 1, -2.5, 3, 4, 5, (double)0.1f });
    write_bytes(numpy_f8_columns, sizeof numpy_f8_columns - 1);
    expect_tensor(AG_F64, AG_SHAPE(2, 3), (double[]){ 1, 2, 3, 4, 5, 6 });
    write_bytes(numpy_version_2, sizeof numpy_version_2 - 1);
    expect_tensor(AG_F64, AG_SHAPE(1), (double[]){ 1.5 });
}

Test(npy, writes_the_bytes_that_numpy_writes)
{
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    ag_tensor *x = ag_npy_read(ctx, path, AG_STEP);
    cr_assert(ag_npy_write(ctx, path, x));
    unsigned char bytes[1024];
    cr_assert_eq(read_bytes(bytes, sizeof bytes), sizeof numpy_f4 - 1);
    cr_assert_eq(memcmp(bytes, numpy_f4, sizeof numpy_f4 - 1), 0);
}

#define HEADER(descr, shape) \
    "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }      \n"

Test(npy, every_number_type)
{
    const struct {
        const char *header;
        ag_dtype dtype;
        size_t bytes;
        unsigned char data[12];
        double value[2];
    } cases[] = {
        { HEADER("<f2", "(2,)"), AG_F32, 4, { 0x00, 0x3c, 0x00, 0xc0 }, { 1, -2 } },
        { HEADER("<f2", "(2,)"), AG_F32, 4, { 0xff, 0x7b, 0x01, 0x00 }, { 65504, 0x1p-24 } },
        { HEADER("<f2", "(2,)"), AG_F32, 4, { 0x00, 0xfc, 0x00, 0x7e }, { -INFINITY, NAN } },
        { HEADER(">f2", "(2,)"),
          AG_F32,
          4,
          { 0x35, 0x55, 0x83, 0xff },
          { 0x1.554p-2, -0x3ffp-24 } },
        { HEADER("=f4", "(1,)"), AG_F32, 4, { 0, 0, 0xc0, 0x7f }, { NAN } },
        { HEADER(">f4", "(1,)"), AG_F32, 4, { 0xc0, 0x20, 0, 0 }, { -2.5 } },
        { HEADER(">f8", "(1,)"), AG_F64, 8, { 0x3f, 0xf8 }, { 1.5 } },
        { HEADER("|i1", "(2,)"), AG_I64, 2, { 0x80, 0x7f }, { -128, 127 } },
        { HEADER(">i2", "(2,)"), AG_I64, 4, { 0xff, 0xfe, 0x01, 0x2c }, { -2, 300 } },
        { HEADER("<i4", "(2,)"), AG_I64, 8, { 0, 0, 0, 0x80, 1 }, { -2147483648.0, 1 } },
        { HEADER(">i8", "(1,)"), AG_I64, 8, { 0x80 }, { -0x1p63 } },
        { HEADER("|u1", "(2,)"), AG_I64, 2, { 0, 255 }, { 0, 255 } },
        { HEADER("<u2", "(1,)"), AG_I64, 2, { 0xff, 0xff }, { 65535 } },
        { HEADER("<u4", "(1,)"), AG_I64, 4, { 0xff, 0xff, 0xff, 0xff }, { 4294967295.0 } },
        { HEADER("<u8", "(1,)"), AG_I64, 8, { 0, 0, 0, 0, 0, 0, 0, 0x40 }, { 0x1p62 } },
        { HEADER("|b1", "(2,)"), AG_I64, 2, { 0, 1 }, { 0, 1 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_npy(1, cases[i].header, cases[i].data, cases[i].bytes);
        int64_t count = strstr(cases[i].header, "(2,)") ? 2 : 1;
        expect_tensor(cases[i].dtype, AG_SHAPE(count), cases[i].value);
    }
}

Test(npy, other_ways_to_write_a_header)
{
    const char *headers[] = {
        "{'shape':(2,1),'fortran_order':False,'descr':'|u1'}",
        "{ \"descr\" : \"|u1\" , \"shape\" : ( 2 , 1 , ) , \"fortran_order\" : True , } \n",
        "\n{'fortran_order': False,\n 'shape': (2, 1), 'descr': 'u1'}   ",
    };
    for (int version = 1; version <= 3; version++)
        for (int i = 0; i < 3; i++) {
            write_npy(version, headers[i], "\x07\x09", 2);
            expect_tensor(AG_I64, AG_SHAPE(2, 1), (double[]){ 7, 9 });
        }
    write_npy(1, HEADER("|u1", "()"), "\x07", 1);
    expect_tensor(AG_I64, AG_SCALAR, (double[]){ 7 });
    write_npy(1, HEADER("<f4", "(3, 0)"), NULL, 0);
    expect_tensor(AG_F32, AG_SHAPE(3, 0), NULL);
}

Test(npy, column_major_of_rank_3)
{
    unsigned char data[24];
    for (int i = 0; i < 24; i++)
        data[i] = (unsigned char)i;
    write_npy(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }", data, 24);
    double values[24];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++)
                values[12 * i + 4 * j + k] = i + 2 * j + 6 * k;
    expect_tensor(AG_I64, AG_SHAPE(2, 3, 4), values);
}

Test(npy, lifetime)
{
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    size_t kept = ag_context_memory(ctx).kept;
    ag_tensor *x = ag_npy_read(ctx, path, AG_KEEP);
    cr_assert_gt(ag_context_memory(ctx).kept, kept);
    cr_assert_eq(ag_context_memory(ctx).step, 0u, "nothing else stays");
    ag_memory_reset_step(ctx);
    cr_assert_eq(ag_tensor_at(x, 1), -2.5);
}

/* ---- Out and back ------------------------------------------------------ */

static bool same_bits(const ag_tensor *a, const ag_tensor *b)
{
    ag_tensor x, y;
    if (a->dtype != b->dtype || !ag_shape_equal(ag_tensor_shape(a), ag_tensor_shape(b)) ||
        !ag_tensor_dense(ctx, a, &x) || !ag_tensor_dense(ctx, b, &y))
        return false;
    size_t bytes = (size_t)ag_tensor_count(a) * ag_dtype_size(a->dtype);
    return memcmp(x.data, y.data, bytes) == 0;
}

Test(npy, round_trips_of_random_shapes_and_strides)
{
    ag_random r = ag_random_stream(1, "npy", 0);
    for (int round = 0; round < 300; round++) {
        ag_shape shape = { .rank = (int)ag_random_integer(&r, AG_MAX_RANK + 1) };
        int64_t order[AG_MAX_RANK];
        int axes[AG_MAX_RANK];
        ag_random_permutation(&r, shape.rank, order);
        for (int i = 0; i < shape.rank; i++) {
            shape.dims[i] = ag_random_integer(&r, 10) ? 1 + ag_random_integer(&r, 3) : 0;
            axes[i] = (int)order[i];
        }
        ag_dtype dtype = (ag_dtype)(AG_F32 + ag_random_integer(&r, 3));
        ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtype, shape), view;
        unsigned char *bytes = x->data; /* any bits at all, NaN with its payload too */
        for (size_t i = 0; i < (size_t)ag_tensor_count(x) * ag_dtype_size(dtype); i++)
            bytes[i] = (unsigned char)ag_random_bits(&r);
        cr_assert(ag_tensor_permute(ctx, x, axes, &view));
        if (shape.rank > 0) {
            cr_assert(ag_tensor_flip(ctx, &view, 0, &view));
            cr_assert(ag_tensor_slice(ctx, &view, -1, 0, AG_END, 2, &view));
        }
        size_t before = ag_context_memory(ctx).step;
        unlink(path);
        cr_assert(ag_npy_write(ctx, path, &view), "%s", ag_error_message(ctx));
        cr_assert_eq(ag_context_memory(ctx).step, before, "writing keeps no memory");
        ag_tensor *back = ag_npy_read(ctx, path, AG_STEP);
        cr_assert(back, "%s", ag_error_message(ctx));
        cr_assert(same_bits(&view, back));
        ag_memory_reset_step(ctx);
    }
}

Test(npy, data_starts_at_a_multiple_of_64)
{
    int64_t size = 1;
    for (int rank = 0; rank <= AG_MAX_RANK; rank++) {
        ag_shape shape = { .rank = rank };
        for (int i = 0; i < rank; i++)
            shape.dims[i] = i == 0 ? 0 : size;
        ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, shape);
        cr_assert(x, "%s", ag_error_message(ctx));
        cr_assert(ag_npy_write(ctx, path, x));
        unsigned char bytes[1024];
        size_t length = read_bytes(bytes, sizeof bytes) - (rank == 0 ? 4 : 0);
        cr_assert_eq(length % 64, 0u);
        cr_assert_eq(bytes[length - 1], '\n');
        cr_assert(ag_npy_read(ctx, path, AG_STEP));
        size = 100;
    }
}

/* More than is converted at once, and not a multiple of it. */
Test(npy, large_tensors)
{
    ag_dtype dtypes[] = { AG_F32, AG_F64, AG_I64 };
    ag_random r = ag_random_stream(1, "large", 0);
    for (int d = 0; d < 3; d++) {
        ag_tensor *x = ag_tensor_new(ctx, AG_STEP, dtypes[d], AG_SHAPE(101, 103));
        cr_assert(ag_random_fill_integer(ctx, &r, x, 1000000));
        cr_assert(ag_npy_write(ctx, path, x));
        cr_assert(same_bits(x, ag_npy_read(ctx, path, AG_STEP)));
    }
}

Test(npy, writing_a_broadcast_view)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SCALAR), view;
    ag_tensor_fill(ctx, x, 3);
    cr_assert(ag_tensor_broadcast(ctx, x, AG_SHAPE(2, 2), &view));
    cr_assert(ag_npy_write(ctx, path, &view));
    expect_tensor(AG_F64, AG_SHAPE(2, 2), (double[]){ 3, 3, 3, 3 });
}

/* ---- Files that lie ---------------------------------------------------- */

Test(npy, truncated_anywhere)
{
    const struct {
        const char *bytes;
        size_t count;
    } files[] = { { numpy_f4, sizeof numpy_f4 - 1 },
                  { numpy_f8_columns, sizeof numpy_f8_columns - 1 },
                  { numpy_version_2, sizeof numpy_version_2 - 1 } };
    for (int i = 0; i < 3; i++)
        for (size_t length = 0; length < files[i].count; length++) {
            write_bytes(files[i].bytes, length);
            expect_refusal(AG_ERR_FORMAT, "npy_read: ");
        }
    cr_assert_eq(ag_context_memory(ctx).step, 0u);
}

/* Any byte may be wrong: then there is a tensor or an error, and no crash. */
Test(npy, damaged_anywhere)
{
    char bytes[sizeof numpy_f8_columns];
    int refused = 0;
    for (size_t i = 0; i < sizeof bytes - 1; i++)
        for (int with = 0; with < 256; with += with < 128 ? 7 : 37) {
            memcpy(bytes, numpy_f8_columns, sizeof bytes);
            bytes[i] = (char)with;
            write_bytes(bytes, sizeof bytes - 1);
            ag_tensor *x = ag_npy_read(ctx, path, AG_STEP);
            cr_assert_eq(x == NULL, ag_status(ctx) == AG_ERR_FORMAT);
            refused += x == NULL;
            ag_error_clear(ctx);
            ag_memory_reset_step(ctx);
        }
    cr_assert_gt(refused, 1000);
}

Test(npy, too_many_bytes)
{
    write_npy(1, HEADER("|u1", "(2,)"), "\x07\x09\x0a", 3);
    expect_refusal(AG_ERR_FORMAT, "needs 2 bytes of data, the file has 3");
    write_npy(1, HEADER("|u1", "(0,)"), "\x07", 1);
    expect_refusal(AG_ERR_FORMAT, "needs 0 bytes");
}

Test(npy, wrong_starts)
{
    write_bytes("", 0);
    expect_refusal(AG_ERR_FORMAT, "not a .npy file");
    write_bytes("this is a text and nothing else", 31);
    expect_refusal(AG_ERR_FORMAT, "not a .npy file");
    write_npy(4, HEADER("|u1", "(1,)"), "\x07", 1);
    expect_refusal(AG_ERR_FORMAT, "version 4.0");
    write_npy(0, HEADER("|u1", "(1,)"), "\x07", 1);
    expect_refusal(AG_ERR_FORMAT, "version 0.0");
    write_bytes("\x93NUMPY\x01\x07\x02\x00{}", 12);
    expect_refusal(AG_ERR_FORMAT, "version 1.7");
    write_bytes("\x93NUMPY\x01\x00\x03\x00{}", 12);
    expect_refusal(AG_ERR_FORMAT, "longer than the file");
    write_bytes("\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14);
    expect_refusal(AG_ERR_FORMAT, "4294967295 bytes is not believed");
    write_bytes("\x93NUMPY\x02\x00\x01\x00\x10\x00{}", 14);
    expect_refusal(AG_ERR_FORMAT, "not believed");
}

Test(npy, headers_that_lie)
{
    const struct {
        const char *header, *words;
    } cases[] = {
        { "", "not a dictionary" },
        { "[1, 2]", "not a dictionary" },
        { "{", "not a dictionary" },
        { "{}", "no 'descr'" },
        { "{'descr': '|u1', 'shape': (1,)}", "no 'fortran_order'" },
        { "{'descr': '|u1', 'fortran_order': False}", "no 'shape'" },
        { "{'descr': '|u1', 'descr': '|u1'}", "'descr' is there twice" },
        { "{'order': '|u1'}", "'order' is unknown" },
        { "{'descr' '|u1'}", "not a dictionary" },
        { "{'descr': '|u1' 'fortran_order': False}", "not a dictionary" },
        { "{,}", "not a dictionary" },
        { "{'descr': '|u1', 'fortran_order': 0, 'shape': (1,)}", "neither True nor False" },
        { "{'descr': '|u1', 'fortran_order': Falsehood, 'shape': (1,)}", "not a dictionary" },
        { "{'descr': '|u1, 'fortran_order': False, 'shape': (1,)}", "'|u1, '" },
        { HEADER("|u1", "[1]"), "not a tuple" },
        { HEADER("|u1", "1"), "not a tuple" },
        { HEADER("|u1", "(1)"), "not a tuple" },
        { HEADER("|u1", "(,)"), "other than sizes" },
        { HEADER("|u1", "(1 1)"), "lacks a comma" },
        { HEADER("|u1", "(1,,1)"), "other than sizes" },
        { HEADER("|u1", "(-1,)"), "other than sizes: -1" },
        { HEADER("|u1", "(1.0,)"), "lacks a comma" },
        { HEADER("|u1", "(9223372036854775808,)"), "too large" },
        { HEADER("|u1", "(99999999999999999999999,)"), "too large" },
        { HEADER("|u1", "(9223372036854775807,)"), "overflows" },
        { HEADER("<f8", "(4294967296, 4294967296)"), "[4294967296,4294967296] overflows" },
        { HEADER("<f8", "(4294967296, 0, 4294967296)"), "overflows" },
        { HEADER("<f8", "(1000000, 1000000)"), "needs 8000000000000 bytes" },
        { HEADER("|u1", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), "rank is larger than 8" },
        { HEADER("|u1", "(1,"), "other than sizes" },
        { HEADER("|u1", "(1,)") "}", "follows the dictionary" },
        { HEADER("|u1", "(1,)") "# a comment", "follows the dictionary" },
        { HEADER("<c16", "(1,)"), "'<c16'" },
        { HEADER("<U2", "(1,)"), "'<U2'" },
        { HEADER("|S1", "(1,)"), "'|S1'" },
        { HEADER("|O", "(1,)"), "'|O'" },
        { HEADER("<M8[ns]", "(1,)"), "'<M8[ns]'" },
        { HEADER("<f16", "(1,)"), "'<f16'" },
        { HEADER("", "(1,)"), "dtype ''" },
        { HEADER("<", "(1,)"), "dtype '<'" },
        { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "[('a', '<f4')]" },
        { "{'descr': ", "cannot be read" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_npy(1, cases[i].header, "\x07", 1);
        expect_refusal(AG_ERR_FORMAT, cases[i].words);
    }
    write_npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}", "\x07", 1);
    cr_assert(ag_npy_read(ctx, path, AG_STEP), "the same without a lie");
}

Test(npy, a_nul_within_the_header)
{
    write_bytes("\x93NUMPY\x01\x00\x39\x00{'descr': '|u1', 'fortran_order': False, "
                "'shape': (1,)} \0\x07",
                10 + 57 + 1);
    expect_refusal(AG_ERR_FORMAT, "follows the dictionary");
}

Test(npy, unsigned_numbers_beyond_i64)
{
    write_npy(1, HEADER("<u8", "(1,)"), "\0\0\0\0\0\0\0\x80", 8);
    expect_refusal(AG_ERR_FORMAT, "element 0 does not fit into i64");
    write_npy(1, "{'descr': '<u8', 'fortran_order': True, 'shape': (1, 1)}", "\0\0\0\0\0\0\0\x80",
              8);
    expect_refusal(AG_ERR_FORMAT, "does not fit");
}

/* ---- Paths and disks --------------------------------------------------- */

Test(npy, not_a_file)
{
    expect_refusal(AG_ERR_IO, "No such file");
    cr_assert_eq(mkdir(path, 0700), 0);
    expect_refusal(AG_ERR_IO, "is a directory");
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(mkfifo(path, 0700), 0); /* opening it would wait for ever */
    expect_refusal(AG_ERR_IO, "not a regular file");
}

Test(npy, unreadable_file)
{
    if (geteuid() == 0)
        cr_skip_test("root may read everything");
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    cr_assert_eq(chmod(path, 0), 0);
    expect_refusal(AG_ERR_IO, "Permission denied");
}

/* Writing fails, says so, and leaves the files of the directory alone. */
static void expect_not_written(const char *to, const ag_tensor *x, ag_error error,
                               const char *words)
{
    int files = files_in_directory();
    size_t step = ag_context_memory(ctx).step;
    cr_assert_not(ag_npy_write(ctx, to, x));
    cr_assert_eq(ag_status(ctx), error, "%s", ag_error_message(ctx));
    cr_assert(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    cr_assert_eq(files_in_directory(), files);
    ag_error_clear(ctx);
    cr_assert_eq(ag_context_memory(ctx).step, step);
}

Test(npy, places_that_cannot_be_written)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2));
    char inside[160];
    snprintf(inside, sizeof inside, "%s/missing/x.npy", directory);
    expect_not_written(inside, x, AG_ERR_IO, "No such file");
    expect_not_written(directory, x, AG_ERR_IO, "is a directory");
    cr_assert_eq(mkfifo(path, 0700), 0);
    expect_not_written(path, x, AG_ERR_IO, "not a regular file");
    expect_not_written("", x, AG_ERR_IO, "npy_write");
    char name[400];
    memset(name, 'n', sizeof name);
    memcpy(name, "/tmp/", 5);
    name[sizeof name - 1] = '\0';
    expect_not_written(name, x, AG_ERR_IO, "too long");
}

Test(npy, operands_that_cannot_be_written)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2)), broken = *x;
    expect_not_written(NULL, x, AG_ERR_ARGUMENT, "path is NULL");
    expect_not_written(path, NULL, AG_ERR_ARGUMENT, "tensor is NULL");
    broken.data = NULL;
    expect_not_written(path, &broken, AG_ERR_ARGUMENT, "no data");
    broken = *x;
    broken.dtype = AG_DEFAULT_DTYPE;
    expect_not_written(path, &broken, AG_ERR_DTYPE, "default");
    broken = *x;
    broken.rank = 9;
    expect_not_written(path, &broken, AG_ERR_SHAPE, "rank 9");
    broken = *x;
    broken.dims[0] = -1;
    expect_not_written(path, &broken, AG_ERR_SHAPE, "[-1]");
    cr_assert_null(ag_npy_read(ctx, NULL, AG_STEP));
    cr_assert_eq(ag_status(ctx), AG_ERR_ARGUMENT);
}

/* A full disk, played by a limit on the size of files. */
Test(npy, a_full_disk_leaves_the_old_file)
{
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(10000));
    ag_tensor *small = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(2)); /* fails when closed */
    signal(SIGXFSZ, SIG_IGN);
    rlim_t limits[] = { 0, 100, 4096, 70000 };
    struct rlimit usual;
    getrlimit(RLIMIT_FSIZE, &usual);
    for (int i = 0; i < 4; i++) {
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ limits[i], usual.rlim_max });
        expect_not_written(path, x, AG_ERR_IO, "File too large");
        if (limits[i] <= 100)
            expect_not_written(path, small, AG_ERR_IO, "File too large");
    }
    setrlimit(RLIMIT_FSIZE, &usual);
    unsigned char bytes[1024];
    cr_assert_eq(read_bytes(bytes, sizeof bytes), sizeof numpy_f4 - 1);
    cr_assert_eq(memcmp(bytes, numpy_f4, sizeof numpy_f4 - 1), 0);
    cr_assert(ag_npy_write(ctx, path, x));
}

Test(npy, nothing_happens_after_an_error_or_without_a_context)
{
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2));
    cr_assert_not(ag_npy_write(NULL, path, x));
    cr_assert_null(ag_npy_read(NULL, path, AG_STEP));
    ag_fail(ctx, AG_ERR_STATE, "an earlier error");
    cr_assert_not(ag_npy_write(ctx, path, x));
    cr_assert_eq(files_in_directory(), 0);
    write_bytes(numpy_f4, sizeof numpy_f4 - 1);
    cr_assert_null(ag_npy_read(ctx, path, AG_STEP));
    cr_assert_str_eq(ag_error_message(ctx), "an earlier error");
}

/* ---- Memory that runs out ---------------------------------------------- */

static int allocations_left;

static void *scarce_allocate(size_t bytes, void *user)
{
    (void)user;
    return allocations_left-- > 0 ? malloc(bytes) : NULL;
}

static void scarce_release(void *memory, void *user)
{
    (void)user;
    free(memory);
}

/* Writes a transposed tensor and reads it again, with room for
 * so many allocations. */
static bool write_and_read(int allocations)
{
    ag_context_options options = { .allocator = { scarce_allocate, scarce_release, NULL } };
    allocations_left = allocations;
    ag_context *scarce = ag_context_new(&options);
    ag_tensor *x = ag_tensor_new(scarce, AG_KEEP, AG_F32, AG_SHAPE(300, 400)), view;
    bool good = x && ag_tensor_transpose(scarce, x, 0, 1, &view) &&
                ag_npy_write(scarce, path, &view) && ag_npy_read(scarce, path, AG_KEEP);
    cr_assert(good || !scarce || ag_status(scarce) == AG_ERR_MEMORY);
    cr_assert_leq(files_in_directory(), 1);
    ag_context_free(scarce);
    return good;
}

Test(npy, memory_runs_out)
{
    int allocations = 0;
    while (!write_and_read(allocations))
        cr_assert_lt(++allocations, 20);
    cr_assert_geq(allocations, 4);
}
