/* Random numbers that depend on their place, not on who asked first.
 *
 * Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) is a cipher: it turns a
 * counter of four 32-bit words, under a key of two, into four words that look
 * random. Here the key is the seed and the counter is (position, stream), so
 * there is no state to advance and any number can be computed by itself.
 *
 * log and cos are written out below, because those of C libraries differ in
 * the last bit, and the same seed is to give the same numbers everywhere. */
#include "internal.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>

/* ---- Philox ------------------------------------------------------------ */

typedef struct block {
    uint32_t word[4];
} block;

static block philox_round(block c, uint32_t key0, uint32_t key1)
{
    uint64_t product0 = (uint64_t)0xD2511F53u * c.word[0];
    uint64_t product1 = (uint64_t)0xCD9E8D57u * c.word[2];
    return (block){ {
        (uint32_t)(product1 >> 32) ^ c.word[1] ^ key0,
        (uint32_t)product1,
        (uint32_t)(product0 >> 32) ^ c.word[3] ^ key1,
        (uint32_t)product0,
    } };
}

/* The four words of one place. */
static block philox(const ag_random *random)
{
    uint32_t key0 = (uint32_t)random->seed, key1 = (uint32_t)(random->seed >> 32);
    block c = { { (uint32_t)random->position, (uint32_t)(random->position >> 32),
                  (uint32_t)random->stream, (uint32_t)(random->stream >> 32) } };
    for (int round = 0; round < 10; round++) {
        c = philox_round(c, key0, key1);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

static uint64_t first_bits(block c)
{
    return c.word[0] | (uint64_t)c.word[1] << 32;
}

static uint64_t second_bits(block c)
{
    return c.word[2] | (uint64_t)c.word[3] << 32;
}

/* ---- Streams ----------------------------------------------------------- */

/* FNV-1a over the name and the eight bytes of the number, then a final mix
 * (the one of splitmix64), since FNV leaves the upper bits of short names alike. */
ag_random ag_random_stream(uint64_t seed, const char *name, uint64_t number)
{
    const uint64_t prime = 0x100000001B3u;
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char *c = name ? name : ""; *c; c++)
        hash = (hash ^ (unsigned char)*c) * prime;
    for (int byte = 0; byte < 8; byte++)
        hash = (hash ^ (number >> (8 * byte) & 0xFF)) * prime;
    hash = (hash ^ hash >> 30) * 0xBF58476D1CE4E5B9u;
    hash = (hash ^ hash >> 27) * 0x94D049BB133111EBu;
    return (ag_random){ .seed = seed, .stream = hash ^ hash >> 31, .position = 0 };
}

/* ---- One number -------------------------------------------------------- */

uint64_t ag_random_bits(ag_random *random)
{
    if (!random)
        return 0;
    uint64_t bits = first_bits(philox(random));
    random->position++;
    return bits;
}

double ag_random_uniform(ag_random *random)
{
    return (double)(ag_random_bits(random) >> 11) * 0x1p-53;
}

/* log u for 0 < u <= 1: with u = 2^e m, sqrt(1/2) <= m < sqrt(2), and
 * s = (m - 1) / (m + 1):  log u = e log 2 + 2 (s + s^3/3 + s^5/5 + ..). */
static double log_of(double u)
{
    int e;
    double m = frexp(u, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    static const double term[] = { 1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                                   1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23 };
    double s = (m - 1) / (m + 1), square = s * s, series = 0;
    for (int i = 10; i >= 0; i--)
        series = (series + term[i]) * square;
    return e * 0.69314718055994531 + 2 * (s + s * series);
}

/* cos(2 pi u) for 0 <= u < 1: u is moved to the nearest quarter turn, which
 * loses nothing, and Taylor's series of cos or sin does the rest. */
static double cos_of_turns(double u)
{
    int quarter = (int)(4 * u + 0.5);
    double x = 6.2831853071795865 * (u - 0.25 * quarter), square = x * x;
    bool odd = quarter % 2 == 1; /* cos(x + pi/2) = -sin x */
    /* Each term is the one before it times -x^2 / (k (k - 1)). */
    static const double even_term[] = { 1.0 / 2,   1.0 / 12,  1.0 / 30,  1.0 / 56, 1.0 / 90,
                                        1.0 / 132, 1.0 / 182, 1.0 / 240, 1.0 / 306 };
    static const double odd_term[] = { 1.0 / 6,   1.0 / 20,  1.0 / 42,  1.0 / 72, 1.0 / 110,
                                       1.0 / 156, 1.0 / 210, 1.0 / 272, 1.0 / 342 };
    const double *term = odd ? odd_term : even_term;
    double series = 1;
    for (int i = 8; i >= 0; i--)
        series = 1 - series * square * term[i];
    if (odd)
        series *= x;
    return quarter == 1 || quarter == 2 ? -series : series;
}

/* Box and Muller: sqrt(-2 log u) cos(2 pi v), u in (0, 1], v in [0, 1). */
double ag_random_normal(ag_random *random)
{
    if (!random)
        return 0;
    block c = philox(random);
    random->position++;
    double u = (double)((first_bits(c) >> 11) + 1) * 0x1p-53;
    double v = (double)(second_bits(c) >> 11) * 0x1p-53;
    return sqrt(-2 * log_of(u)) * cos_of_turns(v);
}

/* floor(a b / 2^64), from products of 32-bit halves. */
static uint64_t multiply_high(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    uint64_t carry = a0 * b1 + (uint32_t)middle;
    return a1 * b1 + (middle >> 32) + (carry >> 32);
}

/* 64 random bits as a fraction of 2^64, times end. Some numbers are more
 * likely than others by at most end / 2^64 of their share: below 2^-32 for
 * any end below 2^32. In return every call takes exactly one position. */
int64_t ag_random_integer(ag_random *random, int64_t end)
{
    uint64_t bits = ag_random_bits(random);
    return end < 1 ? 0 : (int64_t)multiply_high(bits, (uint64_t)end);
}

/* Fisher and Yates, growing: i joins at the end and changes places with a
 * random one of 0 .. i, itself included. */
void ag_random_permutation(ag_random *random, int64_t n, int64_t *result)
{
    if (!random || !result)
        return;
    for (int64_t i = 0; i < n; i++) {
        int64_t j = ag_random_integer(random, i + 1);
        result[i] = i;
        result[i] = result[j];
        result[j] = i;
    }
}

/* ---- Filling tensors --------------------------------------------------- */

/* Writes the next number of the stream to one element. */
typedef struct filling filling;
struct filling {
    void (*draw)(const filling *rule, ag_random *random, void *element);
    ag_dtype dtype;
    double low, high; /* or mean and deviation */
    int64_t end;
};

static void draw_uniform(const filling *rule, ag_random *random, void *element)
{
    double value = rule->low + (rule->high - rule->low) * ag_random_uniform(random);
    if (rule->dtype == AG_F64) {
        /* Rounding may reach high, which is to stay outside. */
        bool outside = value >= rule->high && rule->low < rule->high;
        *(double *)element = outside ? nextafter(rule->high, rule->low) : value;
    } else {
        float high = (float)rule->high, low = (float)rule->low, rounded = (float)value;
        *(float *)element = rounded >= high && low < high ? nextafterf(high, low) : rounded;
    }
}

static void draw_normal(const filling *rule, ag_random *random, void *element)
{
    double value = rule->low + rule->high * ag_random_normal(random);
    if (rule->dtype == AG_F64)
        *(double *)element = value;
    else
        *(float *)element = (float)value;
}

static void draw_integer(const filling *rule, ag_random *random, void *element)
{
    int64_t value = ag_random_integer(random, rule->end);
    if (rule->dtype == AG_I64)
        *(int64_t *)element = value;
    else if (rule->dtype == AG_F64)
        *(double *)element = (double)value;
    else
        *(float *)element = (float)value;
}

/* Is there anything to fill, and only once? */
static bool check_target(ag_context *context, const char *operation, const ag_random *random,
                         const ag_tensor *tensor, bool integers)
{
    if (!context || ag_status(context) != AG_OK)
        return false;
    if (!random || !tensor)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: %s is NULL", operation,
                       random ? "the tensor" : "the random generator");
    if (tensor->rank < 0 || tensor->rank > AG_MAX_RANK)
        return ag_fail(context, AG_ERR_SHAPE, "%s: the tensor's rank is %d, not 0 to %d", operation,
                       tensor->rank, AG_MAX_RANK);
    if (!ag_dtype_is_real(tensor->dtype) && !(integers && tensor->dtype == AG_I64))
        return ag_fail(context, AG_ERR_DTYPE, "%s: cannot fill a tensor of dtype %s", operation,
                       ag_dtype_name(tensor->dtype));
    char text[256];
    ag_shape_text(ag_tensor_shape(tensor), text, sizeof text);
    bool empty = false;
    for (int i = 0; i < tensor->rank; i++) {
        empty = empty || tensor->dims[i] == 0;
        if (tensor->dims[i] < 0)
            return ag_fail(context, AG_ERR_SHAPE, "%s: %s has a negative size", operation, text);
        if (tensor->dims[i] > 1 && tensor->strides[i] == 0)
            return ag_fail(context, AG_ERR_ARGUMENT,
                           "%s: axis %d of %s is broadcast: its elements share one place",
                           operation, i, text);
    }
    if (!empty && !tensor->data)
        return ag_fail(context, AG_ERR_ARGUMENT, "%s: the tensor %s has no data", operation, text);
    return true;
}

/* The elements in row-major order, whatever the strides. */
static void fill(ag_random *random, ag_tensor *tensor, const filling *rule)
{
    const int64_t size = (int64_t)ag_dtype_size(tensor->dtype);
    int64_t index[AG_MAX_RANK] = { 0 }, count = ag_tensor_count(tensor);
    char *element = tensor->data;
    for (int64_t k = 0; k < count; k++) {
        rule->draw(rule, random, element);
        for (int axis = tensor->rank - 1; axis >= 0; axis--) {
            int64_t step = tensor->strides[axis] * size;
            if (++index[axis] < tensor->dims[axis]) {
                element += step;
                break;
            }
            element -= step * (tensor->dims[axis] - 1); /* back to 0 and on to the next axis */
            index[axis] = 0;
        }
    }
}

/* Do both numbers exist in the tensor's dtype? */
static bool both_finite(const ag_tensor *tensor, double a, double b)
{
    double limit = tensor->dtype == AG_F32 ? (double)FLT_MAX : DBL_MAX;
    return fabs(a) <= limit && fabs(b) <= limit;
}

bool ag_random_fill_uniform(ag_context *context, ag_random *random, ag_tensor *tensor, double low,
                            double high)
{
    if (!check_target(context, "random_fill_uniform", random, tensor, false))
        return false;
    if (!both_finite(tensor, low, high) || !isfinite(high - low))
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "random_fill_uniform: the range %g to %g is not finite in %s", low, high,
                       ag_dtype_name(tensor->dtype));
    if (low > high)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "random_fill_uniform: low %g is larger than high %g", low, high);
    fill(random, tensor,
         &(filling){ .draw = draw_uniform, .dtype = tensor->dtype, .low = low, .high = high });
    return true;
}

bool ag_random_fill_normal(ag_context *context, ag_random *random, ag_tensor *tensor, double mean,
                           double deviation)
{
    if (!check_target(context, "random_fill_normal", random, tensor, false))
        return false;
    if (!both_finite(tensor, mean, deviation) || deviation < 0)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "random_fill_normal: mean %g and deviation %g: both must be finite in %s, "
                       "and the deviation not negative",
                       mean, deviation, ag_dtype_name(tensor->dtype));
    fill(random, tensor,
         &(filling){ .draw = draw_normal, .dtype = tensor->dtype, .low = mean, .high = deviation });
    return true;
}

/* Floats hold integers exactly only up to 2^24 (f32) and 2^53 (f64). */
bool ag_random_fill_integer(ag_context *context, ag_random *random, ag_tensor *tensor, int64_t end)
{
    if (!check_target(context, "random_fill_integer", random, tensor, true))
        return false;
    int64_t limit = tensor->dtype == AG_I64   ? INT64_MAX
                    : tensor->dtype == AG_F64 ? (int64_t)1 << 53
                                              : (int64_t)1 << 24;
    if (end < 1 || end > limit)
        return ag_fail(context, AG_ERR_ARGUMENT,
                       "random_fill_integer: end %" PRId64 " is not in 1 to %" PRId64
                       ", the range for %s",
                       end, limit, ag_dtype_name(tensor->dtype));
    fill(random, tensor, &(filling){ .draw = draw_integer, .dtype = tensor->dtype, .end = end });
    return true;
}
