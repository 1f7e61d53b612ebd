/* Contexts: options, errors, memory. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

/* ---- An allocator that counts, and can run out ------------------------- */

#define LARGEST ((size_t)1 << 30) /* more than this is never there */

typedef struct counting {
    int calls, live; /* successful calls to allocate; of those, not released */
    int left;        /* before it runs out; negative: never */
    size_t bytes;    /* of all successful calls */
} counting;

static void *counting_allocate(size_t bytes, void *user)
{
    counting *count = user;
    void *memory = count->left != 0 && bytes <= LARGEST ? malloc(bytes) : NULL;
    if (memory) {
        count->left -= count->left > 0;
        count->calls++;
        count->live++;
        count->bytes += bytes;
        memset(memory, 0xA5, bytes); /* nobody may hope for zeros */
    }
    return memory;
}

static void counting_release(void *memory, void *user)
{
    ((counting *)user)->live -= memory != NULL;
    free(memory);
}

static ag_context *counted_context(counting *count)
{
    return ag_context_new(
        &(ag_context_options){ .allocator = { counting_allocate, counting_release, count } });
}

/* ---- Options ----------------------------------------------------------- */

Test(context, defaults)
{
    const ag_context_options zero = { 0 };
    for (int i = 0; i < 2; i++) {
        ag_context *ctx = ag_context_new(i ? &zero : NULL);
        cr_assert(ctx);
        cr_assert_eq(ag_status(ctx), AG_OK);
        cr_assert_str_eq(ag_error_message(ctx), "");
        cr_assert_eq(ag_context_dtype(ctx), AG_F32);
        cr_assert_eq(ag_context_seed(ctx), 0u);
        cr_assert_eq(ag_context_threads(ctx), 1);
        cr_assert_eq(ag_context_memory(ctx).kept, 0u);
        cr_assert_eq(ag_context_memory(ctx).step, 0u);
        ag_context_free(ctx);
    }
}

Test(context, options_are_taken)
{
    ag_context *ctx =
        ag_context_new(&(ag_context_options){ .dtype = AG_F64, .seed = UINT64_MAX, .threads = 2 });
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    cr_assert_eq(ag_context_dtype(ctx), AG_F64);
    cr_assert_eq(ag_context_seed(ctx), UINT64_MAX);
    cr_assert_eq(ag_context_threads(ctx), 2);
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_DEFAULT_DTYPE, AG_SHAPE(1));
    cr_assert_eq(x->dtype, AG_F64);
    ag_context_free(ctx);
}

/* Wrong options give a context that says so, and that still can be freed. */
Test(context, wrong_options)
{
    const struct {
        ag_context_options options;
        ag_error error;
        const char *words;
    } cases[] = {
        { { .dtype = AG_I64 }, AG_ERR_DTYPE, "dtype" },
        { { .dtype = (ag_dtype)77 }, AG_ERR_DTYPE, "dtype" },
        { { .threads = -1 }, AG_ERR_ARGUMENT, "-1 threads" },
        { { .threads = 257 }, AG_ERR_ARGUMENT, "257 threads" },
        { { .allocator = { .allocate = counting_allocate } }, AG_ERR_ARGUMENT, "release" },
        { { .allocator = { .release = counting_release } }, AG_ERR_ARGUMENT, "allocate" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ag_context *ctx = ag_context_new(&cases[i].options);
        cr_assert(ctx);
        cr_assert_eq(ag_status(ctx), cases[i].error);
        cr_assert(strstr(ag_error_message(ctx), cases[i].words), "%s", ag_error_message(ctx));
        cr_assert_null(ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2)));
        ag_error_clear(ctx);
        cr_assert(ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2)), "usable once cleared");
        ag_context_free(ctx);
    }
}

Test(context, instruction_set_from_the_environment)
{
    setenv("AG_ISA", "generic", 1);
    ag_context *ctx = ag_context_new(NULL);
    cr_assert_eq(ag_status(ctx), AG_OK);
    cr_assert_str_eq(ag_context_isa(ctx), "generic");
    ag_context_free(ctx);
    setenv("AG_ISA", "abacus", 1);
    ctx = ag_context_new(NULL);
    cr_assert_eq(ag_status(ctx), AG_ERR_ARGUMENT);
    cr_assert(strstr(ag_error_message(ctx), "abacus"), "%s", ag_error_message(ctx));
    ag_context_free(ctx);
    unsetenv("AG_ISA");
    ctx = ag_context_new(NULL);
    cr_assert_eq(ag_status(ctx), AG_OK);
    cr_assert_gt(strlen(ag_context_isa(ctx)), 0u);
    ag_context_free(ctx);
}

Test(context, no_context_at_all)
{
    ag_tensor x = { 0 };
    cr_assert_neq(ag_status(NULL), AG_OK);
    cr_assert_gt(strlen(ag_error_message(NULL)), 0u);
    cr_assert_not(ag_fail(NULL, AG_ERR_STATE, "nobody hears this"));
    ag_error_clear(NULL);
    ag_context_free(NULL);
    cr_assert_eq(ag_context_dtype(NULL), AG_F32);
    cr_assert_eq(ag_context_seed(NULL), 0u);
    cr_assert_eq(ag_context_threads(NULL), 1);
    cr_assert(ag_context_isa(NULL));
    cr_assert_eq(ag_context_memory(NULL).reserved, 0u);
    cr_assert_null(ag_tensor_new(NULL, AG_STEP, AG_F32, AG_SCALAR));
    cr_assert_not(ag_tensor_fill(NULL, &x, 1));
    cr_assert_not(ag_tensor_copy(NULL, &x, &x));
    cr_assert_not(ag_tensor_flip(NULL, &x, 0, &x));
    cr_assert_not(ag_tensor_reshape(NULL, &x, AG_SCALAR, &x));
}

/* ---- Errors ------------------------------------------------------------ */

Test(errors, the_first_one_is_kept)
{
    ag_context *ctx = ag_context_new(NULL);
    cr_assert_not(ag_fail(ctx, AG_ERR_SHAPE, "first: %d by %s", 3, "four"));
    cr_assert_not(ag_fail(ctx, AG_ERR_IO, "second"));
    cr_assert_eq(ag_status(ctx), AG_ERR_SHAPE);
    cr_assert_str_eq(ag_error_message(ctx), "first: 3 by four");
    ag_error_clear(ctx);
    cr_assert_eq(ag_status(ctx), AG_OK);
    cr_assert_str_eq(ag_error_message(ctx), "");
    ag_fail(ctx, AG_ERR_IO, "third");
    cr_assert_eq(ag_status(ctx), AG_ERR_IO);
    ag_context_free(ctx);
}

Test(errors, ok_is_no_error)
{
    ag_context *ctx = ag_context_new(NULL);
    cr_assert_not(ag_fail(ctx, AG_OK, "not an error"));
    cr_assert_eq(ag_status(ctx), AG_OK);
    cr_assert_str_eq(ag_error_message(ctx), "");
    ag_context_free(ctx);
}

Test(errors, long_messages_are_cut)
{
    ag_context *ctx = ag_context_new(NULL);
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ag_fail(ctx, AG_ERR_IO, "%s", text);
    size_t length = strlen(ag_error_message(ctx));
    cr_assert(length > 100 && length < sizeof text);
    cr_assert_eq(strncmp(ag_error_message(ctx), text, length), 0);
    ag_context_free(ctx);
}

Test(errors, every_code_has_a_name)
{
    for (int error = AG_OK; error <= AG_ERR_THREAD; error++) {
        const char *name = ag_error_name((ag_error)error);
        cr_assert_eq(strncmp(name, error ? "AG_ERR_" : "AG_OK", 5), 0, "%s", name);
        for (int other = AG_OK; other < error; other++)
            cr_assert_str_neq(name, ag_error_name((ag_error)other));
    }
    cr_assert(ag_error_name((ag_error)99));
}

typedef struct heard {
    int times;
    ag_error error;
    char message[64];
} heard;

static void listen(ag_error error, const char *message, void *user)
{
    heard *h = user;
    h->times++;
    h->error = error;
    snprintf(h->message, sizeof h->message, "%s", message);
}

Test(errors, callback)
{
    heard h = { 0 };
    ag_context *ctx =
        ag_context_new(&(ag_context_options){ .on_error = listen, .on_error_user = &h });
    ag_fail(ctx, AG_ERR_INDEX, "row %d", 7);
    ag_fail(ctx, AG_ERR_IO, "not heard: only the first");
    cr_assert_eq(h.times, 1);
    cr_assert_eq(h.error, AG_ERR_INDEX);
    cr_assert_str_eq(h.message, "row 7");
    ag_error_clear(ctx);
    ag_fail(ctx, AG_ERR_IO, "again");
    cr_assert_eq(h.times, 2);
    ag_context_free(ctx);

    ctx = ag_context_new(
        &(ag_context_options){ .on_error = listen, .on_error_user = &h, .threads = -1 });
    cr_assert_eq(h.times, 3, "wrong options are heard too");
    ag_context_free(ctx);
}

Test(errors, two_contexts_do_not_meet)
{
    ag_context *a = ag_context_new(NULL), *b = ag_context_new(NULL);
    ag_fail(a, AG_ERR_STATE, "of a");
    cr_assert_eq(ag_status(b), AG_OK);
    cr_assert(ag_tensor_new(b, AG_STEP, AG_F32, AG_SHAPE(2)));
    ag_context_free(a);
    cr_assert_eq(ag_status(b), AG_OK);
    ag_context_free(b);
}

Test(errors, finish, .init = cr_redirect_stderr)
{
    cr_assert_eq(ag_context_finish(ag_context_new(NULL)), 0);
    ag_context *ctx = ag_context_new(NULL);
    ag_fail(ctx, AG_ERR_SHAPE, "matmul: inner sizes differ");
    cr_assert_eq(ag_context_finish(ctx), 1);
    cr_assert_eq(ag_context_finish(NULL), 1);
    fflush(stderr);
    cr_assert_stderr_eq_str("error: matmul: inner sizes differ\n"
                            "error: there was no memory for a context\n");
}

/* ---- Memory ------------------------------------------------------------ */

static ag_context *ctx;
static counting count;

static void begin(void)
{
    count = (counting){ .left = -1 };
    ctx = counted_context(&count);
}

/* Criterion has given its verdict before this, and does not count an
 * assertion that fails here; but the run fails when the test's process does. */
static void end(void)
{
    ag_context_free(ctx);
    if (count.live != 0) {
        fprintf(stderr, "%d chunks were not given back to the allocator\n", count.live);
        abort();
    }
}

TestSuite(memory, .init = begin, .fini = end);

Test(memory, the_account_is_right)
{
    for (size_t bytes = 1; bytes < 10000000; bytes = 3 * bytes + 1)
        for (int lifetime = AG_STEP; lifetime <= AG_KEEP; lifetime++) {
            ag_memory_usage before = ag_context_memory(ctx);
            cr_assert(ag_memory_new(ctx, (ag_lifetime)lifetime, bytes));
            ag_memory_usage now = ag_context_memory(ctx);
            size_t step = now.step - before.step, kept = now.kept - before.kept;
            size_t grown = lifetime == AG_STEP ? step : kept;
            cr_assert_eq(lifetime == AG_STEP ? kept : step, 0u);
            cr_assert_geq(grown, bytes);
            cr_assert_leq(grown, bytes + bytes / 8 + 64, "little is wasted");
            cr_assert_geq(now.reserved, now.kept + now.step);
            cr_assert_eq(now.reserved, count.bytes);
            cr_assert_eq(now.allocations, (uint64_t)count.calls);
            cr_assert_eq(now.step_peak, now.step);
        }
    size_t peak = ag_context_memory(ctx).step;
    ag_memory_reset_step(ctx);
    cr_assert_eq(ag_context_memory(ctx).step, 0u);
    cr_assert_eq(ag_context_memory(ctx).step_peak, peak);
    cr_assert_gt(ag_context_memory(ctx).kept, 0u);
}

Test(memory, alignment)
{
    for (size_t bytes = 0; bytes < 3000; bytes += 13)
        for (int lifetime = AG_STEP; lifetime <= AG_KEEP; lifetime++) {
            void *memory = ag_memory_new(ctx, (ag_lifetime)lifetime, bytes);
            cr_assert(memory, "0 bytes too");
            cr_assert_eq((uintptr_t)memory % AG_ALIGNMENT, 0u);
        }
}

/* Buffers come and go at random; each is filled to its last byte with a mark
 * of its own, which must still be there when it goes. */
Test(memory, buffers_never_overlap)
{
    enum { SLOTS = 200, ROUNDS = 20000 };
    static struct {
        unsigned char *memory;
        size_t bytes;
    } slot[SLOTS];
    ag_random r = ag_random_stream(1, "memory", 0);
    for (int round = 0; round < ROUNDS; round++) {
        int i = (int)ag_random_integer(&r, SLOTS);
        for (size_t k = 0; slot[i].memory && k < slot[i].bytes; k++)
            if (slot[i].memory[k] != (unsigned char)i)
                cr_assert_fail("byte %zu of %zu", k, slot[i].bytes);
        if (slot[i].memory)
            ag_memory_recycle(ctx, slot[i].memory, slot[i].bytes);
        slot[i].bytes = (size_t)ag_random_integer(&r, (int64_t)1 << ag_random_integer(&r, 14));
        slot[i].memory = ag_memory_new(ctx, AG_STEP, slot[i].bytes);
        memset(slot[i].memory, i, slot[i].bytes);
    }
    for (int i = 0; i < SLOTS; i++)
        ag_memory_recycle(ctx, slot[i].memory, slot[i].bytes);
    cr_assert_eq(ag_context_memory(ctx).step, 0u);
    cr_assert_lt(ag_context_memory(ctx).reserved, (size_t)16 << 20, "they were used again");
}

/* What is reset is used again, with no call to the allocator. */
Test(memory, steps_after_the_first_allocate_nothing)
{
    uint64_t allocations = 0;
    for (int step = 0; step < 10; step++) {
        for (int i = 0; i < 50; i++)
            cr_assert(ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(40 * (50 - i), 20)));
        if (step == 0)
            allocations = ag_context_memory(ctx).allocations;
        ag_memory_reset_step(ctx);
    }
    cr_assert_eq(ag_context_memory(ctx).allocations, allocations);
    cr_assert_eq(ag_context_memory(ctx).step_peak < ag_context_memory(ctx).reserved, true);
}

/* A later step whose first request is larger than the first chunk. */
Test(memory, steps_that_grow)
{
    for (size_t bytes = 1000; bytes < 40000000; bytes *= 7) {
        unsigned char *memory = ag_memory_new(ctx, AG_STEP, bytes);
        cr_assert(memory);
        memory[0] = memory[bytes - 1] = 1;
        ag_memory_reset_step(ctx);
    }
    uint64_t allocations = ag_context_memory(ctx).allocations;
    for (size_t bytes = 1000; bytes < 40000000; bytes *= 7) {
        cr_assert(ag_memory_new(ctx, AG_STEP, bytes));
        ag_memory_reset_step(ctx);
    }
    cr_assert_eq(ag_context_memory(ctx).allocations, allocations);
}

Test(memory, keep_survives_a_reset)
{
    ag_tensor *kept = ag_tensor_new(ctx, AG_KEEP, AG_I64, AG_SHAPE(1000));
    for (int64_t k = 0; k < 1000; k++)
        ag_tensor_put(kept, k, (double)k);
    for (int step = 0; step < 5; step++) {
        memset(ag_memory_new(ctx, AG_STEP, 100000), 0xFF, 100000);
        ag_memory_reset_step(ctx);
    }
    for (int64_t k = 0; k < 1000; k++)
        cr_assert_eq(ag_tensor_at(kept, k), (double)k);
}

Test(memory, recycling)
{
    void *first = ag_memory_new(ctx, AG_STEP, 1000);
    size_t step = ag_context_memory(ctx).step;
    ag_memory_recycle(ctx, first, 1000);
    cr_assert_eq(ag_context_memory(ctx).step, 0u);
    cr_assert_neq(ag_memory_new(ctx, AG_KEEP, 1000), first, "what stays is never recycled");
    cr_assert_neq(ag_memory_new(ctx, AG_STEP, 5000), first, "another size");
    cr_assert_eq(ag_memory_new(ctx, AG_STEP, 1000), first);
    cr_assert_neq(ag_memory_new(ctx, AG_STEP, 1000), first, "only once");
    cr_assert_gt(ag_context_memory(ctx).step, 2 * step);
    ag_memory_recycle(ctx, NULL, 1000);

    ag_memory_recycle(ctx, first, 1000);
    ag_memory_reset_step(ctx);
    void *a = ag_memory_new(ctx, AG_STEP, 1000), *b = ag_memory_new(ctx, AG_STEP, 1000);
    cr_assert_neq(a, b, "a reset forgets what was recycled");
}

/* Tensors are zeros, also where recycled memory was something else. */
Test(memory, new_tensors_are_zeros)
{
    for (int round = 0; round < 3; round++) {
        ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(33, 3));
        for (int64_t k = 0; k < 99; k++) {
            cr_assert_eq(ag_tensor_at(x, k), 0);
            ag_tensor_put(x, k, 7);
        }
        ag_memory_recycle(ctx, x->data, 99 * sizeof(double));
    }
}

Test(memory, marks)
{
    for (int round = 0; round < 2; round++) { /* in an empty arena, and in one that is not */
        ag_memory_mark mark = ag_memory_mark_step(ctx);
        size_t before = ag_context_memory(ctx).step;
        void *first = ag_memory_new(ctx, AG_STEP, 300);
        for (int i = 0; i < 30; i++) /* over several chunks */
            cr_assert(ag_memory_new(ctx, AG_STEP, 100000));
        uint64_t allocations = ag_context_memory(ctx).allocations;
        ag_memory_rewind_step(ctx, mark);
        cr_assert_eq(ag_context_memory(ctx).step, before);
        cr_assert_eq(ag_memory_new(ctx, AG_STEP, 300), first);
        for (int i = 0; i < 30; i++)
            cr_assert(ag_memory_new(ctx, AG_STEP, 100000));
        cr_assert_eq(ag_context_memory(ctx).allocations, allocations);
    }
}

Test(memory, sizes_that_cannot_be)
{
    const size_t sizes[] = { SIZE_MAX,    SIZE_MAX - 63,      SIZE_MAX / 2 + 1, SIZE_MAX / 2,
                             PTRDIFF_MAX, PTRDIFF_MAX - 5000, LARGEST + 1 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ag_memory_usage before = ag_context_memory(ctx);
        cr_assert_null(ag_memory_new(ctx, i % 2 ? AG_KEEP : AG_STEP, sizes[i]));
        cr_assert_eq(ag_status(ctx), AG_ERR_MEMORY);
        cr_assert_eq(ag_context_memory(ctx).reserved, before.reserved);
        cr_assert_eq(ag_context_memory(ctx).step, before.step);
        ag_error_clear(ctx);
        cr_assert(ag_memory_new(ctx, AG_STEP, 100), "the context still works");
    }
}

/* ---- Memory that runs out ---------------------------------------------- */

/* A few large tensors, views and copies; false as soon as one fails. */
static bool use(ag_context *context)
{
    ag_tensor view;
    ag_tensor *x = ag_tensor_new(context, AG_KEEP, AG_F32, AG_SHAPE(300, 500));
    ag_tensor *y = ag_tensor_new(context, AG_STEP, AG_F64, AG_SHAPE(150000));
    return x && y && ag_tensor_transpose(context, x, 0, 1, &view) &&
           ag_tensor_reshape(context, &view, AG_SHAPE(-1), &view) &&
           ag_tensor_copy(context, y, &view) && ag_tensor_flip(context, y, 0, &view) &&
           ag_tensor_copy(context, y, &view);
}

Test(memory, every_allocation_can_fail)
{
    int failures = 0;
    for (int left = 0;; left++, failures++) {
        counting scarce = { .left = left };
        ag_context *context = counted_context(&scarce);
        bool good = use(context);
        if (context && !good) {
            cr_assert_eq(ag_status(context), AG_ERR_MEMORY);
            cr_assert_gt(strlen(ag_error_message(context)), 0u);
            scarce.left = -1; /* memory is there again */
            ag_error_clear(context);
            cr_assert(use(context));
        }
        cr_assert_eq(context == NULL, left == 0);
        ag_context_free(context);
        cr_assert_eq(scarce.live, 0);
        if (good)
            break;
    }
    cr_assert_geq(failures, 4);
}
