/* Random numbers: the known answers of Philox, the distributions, the places. */
#include "../../tensor/internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Philox and what is made of its words ------------------------------ */

/* Uniform and normal numbers from the words of a block, by the C library. */
static double uniform_of(uint64_t first)
{
    return (double)(first >> 11) * 0x1p-53;
}

static double normal_of(uint64_t first, uint64_t second)
{
    double u = (double)((first >> 11) + 1) * 0x1p-53, v = (double)(second >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586477 * v);
}

/* The three known answers that the Random123 distribution gives for
 * philox4x32-10. Words 0 and 1 are what ag_random_bits returns; 2 and 3 are
 * seen through the normal numbers, which take their angle from them. */
static const struct {
    uint64_t seed, stream, position;
    uint64_t first, second;
} known[] = {
    { 0, 0, 0, 0xe169c58d6627e8d5, 0x9b00dbd8bc57ac4c },
    { UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x41c83b0e408f276d, 0x6d5451fda20bc7c6 },
    { 0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, 0x94fdccebd16cfe09,
      0x24126ea15001e420 },
};

Test(random, philox_known_answers)
{
    for (int i = 0; i < 3; i++) {
        ag_random start = { known[i].seed, known[i].stream, known[i].position };
        ag_random r = start;
        cr_assert_eq(ag_random_bits(&r), known[i].first);
        cr_assert_eq(r.position, start.position + 1);
        r = start;
        cr_assert_eq(ag_random_uniform(&r), uniform_of(known[i].first));
        r = start;
        double normal = ag_random_normal(&r);
        cr_assert_float_eq(normal, normal_of(known[i].first, known[i].second), 1e-14);
        cr_assert_eq(r.position, start.position + 1);
    }
}

/* The same numbers for ever: from an independent program. */
Test(random, streams_stay_what_they_are)
{
    cr_assert_eq(ag_random_stream(0, "", 0).stream, 0x813f0174a2367c13u);
    cr_assert_eq(ag_random_stream(0, NULL, 0).stream, 0x813f0174a2367c13u);
    ag_random r = ag_random_stream(42, "attn.w_q", 3);
    cr_assert_eq(r.seed, 42u);
    cr_assert_eq(r.position, 0u);
    cr_assert_eq(r.stream, 0x87317ed1545e7523u);
    r.position = 5;
    ag_random again = r, integer = r;
    double normal = ag_random_normal(&again);
    again = r;
    cr_assert_eq(ag_random_bits(&r), 0x2c41459326eb94b4u);
    cr_assert_eq(ag_random_uniform(&again), 0.1728709682710543);
    cr_assert_float_eq(normal, 0.8906686716815982, 1e-15);
    cr_assert_eq(ag_random_integer(&integer, 1000), 172);
}

/* Philox once more, written differently, so that the log and the cos of
 * random.c meet those of the C library at many places. */
static void reference_philox(uint32_t *c, uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)c[0] * 0xD2511F53u, b = (uint64_t)c[2] * 0xCD9E8D57u;
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ (key0 + (uint32_t)round * 0x9E3779B9u);
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ (key1 + (uint32_t)round * 0xBB67AE85u);
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
    }
}

Test(random, normal_agrees_with_the_c_library)
{
    for (uint32_t i = 0; i < 50000; i++) {
        ag_random r = { i, 3, 7 * (uint64_t)i };
        uint32_t c[4] = { 7 * i, 0, 3, 0 };
        reference_philox(c, i, 0);
        double expected = normal_of(c[0] | (uint64_t)c[1] << 32, c[2] | (uint64_t)c[3] << 32);
        double normal = ag_random_normal(&r);
        cr_assert_float_eq(normal, expected, 4e-15);
    }
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void assert_all_different(uint64_t *numbers, size_t count)
{
    qsort(numbers, count, sizeof *numbers, compare_numbers);
    for (size_t i = 1; i < count; i++)
        if (numbers[i - 1] == numbers[i])
            cr_assert_fail("%llx is there twice", (unsigned long long)numbers[i]);
}

/* Names and numbers that differ give streams that differ. */
Test(random, streams_differ)
{
    enum { NAMES = 6, NUMBERS = 500 };
    const char *names[NAMES] = { "", "a", "b", "ab", "ba", "attn.w_q" };
    static uint64_t streams[NAMES * NUMBERS];
    for (int i = 0; i < NAMES; i++)
        for (int j = 0; j < NUMBERS; j++)
            streams[i * NUMBERS + j] = ag_random_stream(1, names[i], (uint64_t)j).stream;
    assert_all_different(streams, NAMES * NUMBERS);
}

/* Seeds, streams and positions in a row: 64 bits each, none twice. */
Test(random, no_repetitions)
{
    enum { SEEDS = 4, STREAMS = 4, POSITIONS = 10000 };
    static uint64_t bits[SEEDS * STREAMS * POSITIONS];
    size_t n = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        for (uint64_t stream = 0; stream < STREAMS; stream++) {
            ag_random r = { seed, stream, 0 };
            for (int i = 0; i < POSITIONS; i++)
                bits[n++] = ag_random_bits(&r);
        }
    assert_all_different(bits, n);
}

/* A number depends on its place, not on who asked before. */
Test(random, order_of_asking_does_not_matter)
{
    enum { N = 100 };
    ag_random r = ag_random_stream(7, "order", 0);
    double forwards[N];
    for (int i = 0; i < N; i++)
        forwards[i] = ag_random_normal(&r);
    cr_assert_eq(r.position, (uint64_t)N);
    for (int i = N - 1; i >= 0; i--) {
        ag_random there = ag_random_stream(7, "order", 0);
        there.position = (uint64_t)i;
        cr_assert_eq(ag_random_normal(&there), forwards[i]);
    }
}

/* ---- Distributions ----------------------------------------------------- */

enum { DRAWS = 200000 };

Test(random, uniform_moments)
{
    ag_random r = ag_random_stream(1, "uniform", 0);
    double sum = 0, squares = 0, neighbours = 0, previous = 0.5;
    for (int i = 0; i < DRAWS; i++) {
        double x = ag_random_uniform(&r);
        if (!(x >= 0 && x < 1))
            cr_assert_fail("%g", x);
        sum += x;
        squares += x * x;
        neighbours += (x - 0.5) * (previous - 0.5);
        previous = x;
    }
    cr_assert_float_eq(sum / DRAWS, 0.5, 0.003);
    cr_assert_float_eq(squares / DRAWS, 1.0 / 3, 0.003);
    cr_assert_float_eq(neighbours / DRAWS, 0, 0.001);
}

Test(random, normal_moments)
{
    ag_random r = ag_random_stream(1, "normal", 0);
    double moment[5] = { 0 };
    int beyond_two = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = ag_random_normal(&r), power = 1;
        if (!(fabs(x) < 9))
            cr_assert_fail("%g", x);
        beyond_two += fabs(x) > 2;
        for (int k = 0; k < 5; k++, power *= x)
            moment[k] += power / DRAWS;
    }
    cr_assert_float_eq(moment[1], 0, 0.01);
    cr_assert_float_eq(moment[2], 1, 0.015);
    cr_assert_float_eq(moment[3], 0, 0.04);
    cr_assert_float_eq(moment[4], 3, 0.12);
    cr_assert_float_eq((double)beyond_two / DRAWS, 0.0455, 0.003);
}

Test(random, integers)
{
    enum { END = 7 };
    ag_random r = ag_random_stream(1, "integer", 0);
    int counts[END] = { 0 };
    for (int i = 0; i < DRAWS; i++) {
        int64_t x = ag_random_integer(&r, END);
        if (x < 0 || x >= END)
            cr_assert_fail("%lld", (long long)x);
        counts[x]++;
    }
    for (int i = 0; i < END; i++)
        cr_assert_float_eq((double)counts[i] * END / DRAWS, 1, 0.03);

    uint64_t position = r.position;
    cr_assert_eq(ag_random_integer(&r, 1), 0);
    cr_assert_eq(ag_random_integer(&r, 0), 0);
    cr_assert_eq(ag_random_integer(&r, INT64_MIN), 0);
    cr_assert_eq(r.position, position + 3, "every call takes a position");
}

/* bits * end / 2^64: two worked out in Python, and for end = 2^32 + 1 the sum
 * of the upper half and the carry of (bits << 32) + bits. */
Test(random, integers_with_large_ends)
{
    ag_random r = { 0, 0, 0 }; /* bits e169c58d6627e8d5 */
    cr_assert_eq(ag_random_integer(&r, (int64_t)1 << 62), 0x385a71635989fa35);
    r.position = 0;
    cr_assert_eq(ag_random_integer(&r, INT64_MAX), 0x70b4e2c6b313f469);
    for (uint64_t position = 0; position < 1000; position++) {
        ag_random a = { 1, 2, position }, b = a;
        uint64_t bits = ag_random_bits(&a), carry = (bits << 32) + bits < bits;
        int64_t integer = ag_random_integer(&b, ((int64_t)1 << 32) + 1);
        cr_assert_eq(integer, (int64_t)((bits >> 32) + carry));
    }
}

Test(random, permutations_are_equally_likely)
{
    enum { ROUNDS = 24000 };
    int counts[256] = { 0 }, kinds = 0;
    ag_random r = ag_random_stream(3, "permutation", 0);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t p[4] = { -1, -1, -1, -1 };
        unsigned seen = 0;
        ag_random_permutation(&r, 4, p);
        for (int i = 0; i < 4; i++)
            seen |= p[i] >= 0 && p[i] < 4 ? 1u << p[i] : 0;
        cr_assert_eq(seen, 15u, "every number once");
        counts[p[0] | p[1] << 2 | p[2] << 4 | p[3] << 6]++;
    }
    cr_assert_eq(r.position, 4u * ROUNDS);
    for (int i = 0; i < 256; i++) {
        kinds += counts[i] > 0;
        if (counts[i] > 0) /* 1000 expected, standard deviation 31 */
            cr_assert(counts[i] > 850 && counts[i] < 1150, "%d", counts[i]);
    }
    cr_assert_eq(kinds, 24);
}

Test(random, permutation_of_little)
{
    ag_random r = { 1, 2, 3 };
    int64_t p[2] = { -7, -7 };
    ag_random_permutation(&r, 0, p);
    ag_random_permutation(&r, -1, p);
    cr_assert_eq(p[0], -7);
    cr_assert_eq(r.position, 3u);
    ag_random_permutation(&r, 1, p);
    cr_assert_eq(p[0], 0);
    cr_assert_eq(p[1], -7);
}

/* ---- Filling tensors --------------------------------------------------- */

static ag_context *ctx;
static ag_tensor *f32, *f64, *i64; /* 2 x 3 zeros */
static ag_random generator;

static void begin(void)
{
    ctx = ag_context_new(NULL);
    f32 = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(2, 3));
    f64 = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(2, 3));
    i64 = ag_tensor_new(ctx, AG_STEP, AG_I64, AG_SHAPE(2, 3));
    generator = (ag_random){ 1, 2, 3 };
}

static void end(void)
{
    ag_context_free(ctx);
}

TestSuite(random_fill, .init = begin, .fini = end);

Test(random_fill, kth_element_gets_the_kth_number)
{
    ag_tensor *dense[] = { f32, f64 };
    for (int d = 0; d < 2; d++) {
        ag_random r = generator, one = generator;
        cr_assert(ag_random_fill_uniform(ctx, &r, dense[d], -2, 6));
        cr_assert_eq(r.position, 9u);
        for (int64_t k = 0; k < 6; k++) {
            double x = -2 + 8 * ag_random_uniform(&one);
            cr_assert_eq(ag_tensor_at(dense[d], k), d ? x : (double)(float)x);
        }
        cr_assert(ag_random_fill_normal(ctx, &r, dense[d], 3, 0.5));
        for (int64_t k = 0; k < 6; k++) {
            double x = 3 + 0.5 * ag_random_normal(&one);
            cr_assert_eq(ag_tensor_at(dense[d], k), d ? x : (double)(float)x);
        }
        cr_assert_eq(r.position, one.position);
    }
}

/* Reversed axes, every third place, backwards: the numbers do not mind. */
Test(random_fill, strides_do_not_matter)
{
    ag_tensor *dense = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(2, 3, 4));
    ag_tensor *other = ag_tensor_new(ctx, AG_STEP, AG_F64, AG_SHAPE(4, 3, 6)), view;
    cr_assert(ag_tensor_permute(ctx, other, (int[]){ 2, 1, 0 }, &view));
    cr_assert(ag_tensor_slice(ctx, &view, 0, 1, 6, 3, &view));
    cr_assert(ag_tensor_flip(ctx, &view, 2, &view));
    cr_assert(ag_shape_equal(ag_tensor_shape(&view), AG_SHAPE(2, 3, 4)));
    ag_random r = generator, s = generator;
    cr_assert(ag_random_fill_normal(ctx, &r, dense, 0, 1));
    cr_assert(ag_random_fill_normal(ctx, &s, &view, 0, 1));
    cr_assert_eq(s.position, r.position);
    for (int64_t k = 0; k < 24; k++)
        cr_assert_eq(ag_tensor_at(&view, k), ag_tensor_at(dense, k));
    int untouched = 0;
    for (int64_t k = 0; k < 72; k++)
        untouched += ag_tensor_at(other, k) == 0;
    cr_assert_eq(untouched, 48);
}

Test(random_fill, integers_in_every_dtype)
{
    ag_tensor *all[] = { f32, f64, i64 };
    for (int d = 0; d < 3; d++) {
        ag_random r = generator, one = generator;
        cr_assert(ag_random_fill_integer(ctx, &r, all[d], 1000));
        for (int64_t k = 0; k < 6; k++)
            cr_assert_eq(ag_tensor_at(all[d], k), (double)ag_random_integer(&one, 1000));
        cr_assert_eq(r.position, one.position);
    }
    ag_random r = { 0, 0, 0 };
    cr_assert(ag_random_fill_integer(ctx, &r, i64, INT64_MAX));
    cr_assert_eq(*(int64_t *)i64->data, 0x70b4e2c6b313f469, "no double on the way");
}

/* In f32 the numbers just below high round up to it. */
Test(random_fill, uniform_stays_below_high)
{
    enum { N = 10000 };
    ag_tensor *x = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(N));
    float low = 1, high = nextafterf(nextafterf(1, 2), 2);
    cr_assert(ag_random_fill_uniform(ctx, &generator, x, (double)low, (double)high));
    for (int64_t k = 0; k < N; k++)
        if (!(((float *)x->data)[k] >= low && ((float *)x->data)[k] < high))
            cr_assert_fail("element %lld", (long long)k);
    cr_assert(ag_random_fill_uniform(ctx, &generator, x, 2.5, 2.5));
    cr_assert_eq(ag_tensor_at(x, N - 1), 2.5);
}

Test(random_fill, empty_and_scalar)
{
    ag_tensor *empty = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SHAPE(3, 0));
    ag_tensor *scalar = ag_tensor_new(ctx, AG_STEP, AG_F32, AG_SCALAR);
    cr_assert(ag_random_fill_normal(ctx, &generator, empty, 0, 1));
    cr_assert_eq(generator.position, 3u);
    cr_assert(ag_random_fill_normal(ctx, &generator, scalar, 5, 0));
    cr_assert_eq(ag_tensor_at(scalar, 0), 5);
    cr_assert_eq(generator.position, 4u);
}

/* ---- Failures ---------------------------------------------------------- */

/* The call failed as it should, said so, and took no number. */
static void expect(bool result, ag_error error, const char *words)
{
    cr_assert_not(result);
    cr_assert_eq(ag_status(ctx), error, "%s", ag_error_name(ag_status(ctx)));
    cr_assert(strstr(ag_error_message(ctx), words), "%s", ag_error_message(ctx));
    cr_assert_eq(generator.position, 3u);
    for (int64_t k = 0; k < 6; k++)
        cr_assert(ag_tensor_at(f32, k) == 0 && ag_tensor_at(f64, k) == 0);
    ag_error_clear(ctx);
}

Test(random_fill, wrong_operands)
{
    expect(ag_random_fill_uniform(ctx, NULL, f32, 0, 1), AG_ERR_ARGUMENT, "generator is NULL");
    expect(ag_random_fill_normal(ctx, &generator, NULL, 0, 1), AG_ERR_ARGUMENT, "tensor is NULL");
    expect(ag_random_fill_uniform(ctx, &generator, i64, 0, 1), AG_ERR_DTYPE, "i64");
    expect(ag_random_fill_normal(ctx, &generator, i64, 0, 1), AG_ERR_DTYPE, "i64");
    ag_tensor broken = *f32;
    broken.dtype = AG_DEFAULT_DTYPE;
    expect(ag_random_fill_integer(ctx, &generator, &broken, 3), AG_ERR_DTYPE, "fill_integer");
    broken = *f32;
    broken.rank = 9;
    expect(ag_random_fill_integer(ctx, &generator, &broken, 3), AG_ERR_SHAPE, "rank");
    broken = *f32;
    broken.dims[1] = -3;
    expect(ag_random_fill_integer(ctx, &generator, &broken, 3), AG_ERR_SHAPE, "[2,-3]");
    broken = *f32;
    broken.data = NULL;
    expect(ag_random_fill_integer(ctx, &generator, &broken, 3), AG_ERR_ARGUMENT, "no data");
}

Test(random_fill, broadcast_target_is_refused)
{
    ag_tensor row, view;
    cr_assert(ag_tensor_slice(ctx, f32, 0, 0, 1, 1, &row));
    cr_assert(ag_tensor_broadcast(ctx, &row, AG_SHAPE(4, 3), &view));
    expect(ag_random_fill_uniform(ctx, &generator, &view, 0, 1), AG_ERR_ARGUMENT, "broadcast");
}

Test(random_fill, wrong_numbers)
{
    double bad[] = { NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3; i++) {
        expect(ag_random_fill_uniform(ctx, &generator, f64, bad[i], 1), AG_ERR_ARGUMENT, "finite");
        expect(ag_random_fill_uniform(ctx, &generator, f64, 0, bad[i]), AG_ERR_ARGUMENT, "finite");
        expect(ag_random_fill_normal(ctx, &generator, f64, bad[i], 1), AG_ERR_ARGUMENT, "finite");
        expect(ag_random_fill_normal(ctx, &generator, f64, 0, bad[i]), AG_ERR_ARGUMENT, "finite");
    }
    expect(ag_random_fill_uniform(ctx, &generator, f64, 2, 1), AG_ERR_ARGUMENT, "larger");
    expect(ag_random_fill_uniform(ctx, &generator, f64, -1e308, 1e308), AG_ERR_ARGUMENT, "finite");
    expect(ag_random_fill_uniform(ctx, &generator, f32, 0, 1e39), AG_ERR_ARGUMENT, "f32");
    expect(ag_random_fill_normal(ctx, &generator, f64, 0, -1), AG_ERR_ARGUMENT, "negative");
    expect(ag_random_fill_integer(ctx, &generator, i64, 0), AG_ERR_ARGUMENT, "end 0");
    expect(ag_random_fill_integer(ctx, &generator, i64, -5), AG_ERR_ARGUMENT, "end -5");
    expect(ag_random_fill_integer(ctx, &generator, f32, (1 << 24) + 1), AG_ERR_ARGUMENT, "f32");
}

Test(random_fill, nothing_happens_after_an_error_or_without_a_context)
{
    ag_fail(ctx, AG_ERR_STATE, "an earlier error");
    expect(ag_random_fill_uniform(ctx, &generator, f32, 1, 2), AG_ERR_STATE, "earlier");
    cr_assert_not(ag_random_fill_uniform(NULL, &generator, f32, 1, 2));
    cr_assert_not(ag_random_fill_normal(NULL, &generator, f32, 1, 2));
    cr_assert_not(ag_random_fill_integer(NULL, &generator, f32, 2));
    cr_assert_eq(ag_random_bits(NULL), 0u);
    cr_assert_eq(ag_random_uniform(NULL), 0);
    cr_assert_eq(ag_random_normal(NULL), 0);
    cr_assert_eq(ag_random_integer(NULL, 5), 0);
    int64_t p[3] = { 4, 4, 4 };
    ag_random_permutation(NULL, 3, p);
    ag_random_permutation(&generator, 3, NULL);
    cr_assert_eq(p[0], 4);
    cr_assert_eq(generator.position, 3u);
}
