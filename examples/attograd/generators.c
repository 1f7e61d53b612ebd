/* How the sequences of each task are drawn, and what their tokens are called
 * in pictures. A token is a row of x; the features it is made of are set one by
 * one, as everything was 0 before. */
#include "generators.h"

#include <math.h>
#include <string.h>

static double *token(const ag_sequence *s, int64_t t)
{
    return s->x + t * s->width;
}

/* Which of n features is set. */
static int64_t one_hot(const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] == 1)
            return i;
    return -1;
}

/* ---- reverse: x_t in 0 .. 9; the answer at t is x_(T - 1 - t) ---- */

void ag_draw_reverse(ag_random *random, ag_sequence *s)
{
    for (int64_t t = 0; t < s->tokens; t++) {
        int64_t digit = ag_random_integer(random, 10);
        token(s, t)[digit] = 1;
        s->labels[s->tokens - 1 - t] = digit;
    }
}

void ag_name_digit(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    snprintf(text, size, "%d", (int)one_hot(token(s, t), 10));
}

/* ---- lookup: 8 tokens (key, value), keys all different; the last token is
 * one of the keys, the answer is its value ---- */

void ag_draw_lookup(ag_random *random, ag_sequence *s)
{
    int64_t keys[LOOKUP_KEYS], values[LOOKUP_ITEMS];
    ag_random_permutation(random, LOOKUP_KEYS, keys);
    for (int64_t t = 0; t < LOOKUP_ITEMS; t++) {
        values[t] = ag_random_integer(random, LOOKUP_VALUES);
        token(s, t)[keys[t]] = 1;
        token(s, t)[LOOKUP_KEYS + values[t]] = 1;
    }
    int64_t asked = ag_random_integer(random, LOOKUP_ITEMS);
    token(s, LOOKUP_ITEMS)[keys[asked]] = 1;
    s->labels[0] = values[asked];
}

/* "C7" is key C with value 7, "C?" asks for it. */
void ag_name_item(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    char key = (char)('A' + one_hot(token(s, t), LOOKUP_KEYS));
    int64_t value = one_hot(token(s, t) + LOOKUP_KEYS, LOOKUP_VALUES);
    if (value < 0)
        snprintf(text, size, "%c?", key);
    else
        snprintf(text, size, "%c%d", key, (int)value);
}

/* ---- nearest: 8 tokens (key in R^8 of length 1, value); the last token is a
 * key with noise, the answer is the value of the key that is nearest to it ---- */

static void scale_to_length_1(double *x, int64_t n)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    for (int64_t i = 0; i < n; i++)
        x[i] /= sqrt(squares);
}

static double inner(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Among vectors of length 1 the nearest has the largest inner product. */
static int64_t nearest_key(const ag_sequence *s, const double *query)
{
    int64_t best = 0;
    for (int64_t t = 1; t < NEAREST_ITEMS; t++)
        if (inner(token(s, t), query, NEAREST_SIZE) > inner(token(s, best), query, NEAREST_SIZE))
            best = t;
    return best;
}

void ag_draw_nearest(ag_random *random, ag_sequence *s)
{
    int64_t values[NEAREST_ITEMS];
    for (int64_t t = 0; t < NEAREST_ITEMS; t++) {
        for (int64_t i = 0; i < NEAREST_SIZE; i++)
            token(s, t)[i] = ag_random_normal(random);
        scale_to_length_1(token(s, t), NEAREST_SIZE);
        values[t] = ag_random_integer(random, NEAREST_VALUES);
        token(s, t)[NEAREST_SIZE + values[t]] = 1;
    }
    double *query = token(s, NEAREST_ITEMS);
    const double *key = token(s, ag_random_integer(random, NEAREST_ITEMS));
    for (int64_t i = 0; i < NEAREST_SIZE; i++)
        query[i] = key[i] + 0.1 * ag_random_normal(random);
    scale_to_length_1(query, NEAREST_SIZE);
    s->labels[0] = values[nearest_key(s, query)];
}

/* "0.97:3" is a key whose inner product with the query is 0.97, and its value. */
void ag_name_neighbour(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    double nearness = inner(token(s, t), token(s, NEAREST_ITEMS), NEAREST_SIZE);
    if (t == NEAREST_ITEMS)
        snprintf(text, size, "?");
    else
        snprintf(text, size, "%.2f:%d", nearness,
                 (int)one_hot(token(s, t) + NEAREST_SIZE, NEAREST_VALUES));
}

/* ---- adding: tokens (u, mark, 1) with u in [0, 1) and two marks; the answer
 * is the sum of the two u that are marked ---- */

void ag_draw_adding(ag_random *random, ag_sequence *s)
{
    for (int64_t t = 0; t < s->tokens; t++) {
        token(s, t)[0] = ag_random_uniform(random);
        token(s, t)[2] = 1;
    }
    int64_t first = ag_random_integer(random, s->tokens);
    int64_t second = ag_random_integer(random, s->tokens - 1);
    second += second >= first; /* any place but the first one's */
    token(s, first)[1] = token(s, second)[1] = 1;
    s->targets[0] = token(s, first)[0] + token(s, second)[0];
}

void ag_name_summand(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    snprintf(text, size, "%.2f%s", token(s, t)[0], token(s, t)[1] == 1 ? "*" : "");
}

/* ---- majority and parity: bits; the answer is whether most of them are 1, or
 * whether an odd number of them is ---- */

static int64_t draw_bits(ag_random *random, ag_sequence *s)
{
    int64_t ones = 0;
    for (int64_t t = 0; t < s->tokens; t++) {
        int64_t bit = ag_random_integer(random, 2);
        token(s, t)[bit] = 1;
        ones += bit;
    }
    return ones;
}

void ag_draw_majority(ag_random *random, ag_sequence *s)
{
    s->labels[0] = 2 * draw_bits(random, s) > s->tokens;
}

void ag_draw_parity(ag_random *random, ag_sequence *s)
{
    s->labels[0] = draw_bits(random, s) % 2;
}

void ag_name_bit(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    snprintf(text, size, "%d", (int)one_hot(token(s, t), 2));
}

/* ---- regression: 10 tokens (x, y = w . x), x in (-1, 1)^5, w ~ N(0, 1)^5 new
 * for each sequence; the last token is (x, 0), the answer w . x ---- */

void ag_draw_regression(ag_random *random, ag_sequence *s)
{
    double w[REGRESSION_SIZE];
    for (int i = 0; i < REGRESSION_SIZE; i++)
        w[i] = ag_random_normal(random);
    for (int64_t t = 0; t < s->tokens; t++) {
        double *x = token(s, t), *y = x + REGRESSION_SIZE;
        for (int i = 0; i < REGRESSION_SIZE; i++)
            x[i] = 2 * ag_random_uniform(random) - 1;
        *(t < REGRESSION_EXAMPLES ? y : s->targets) = inner(w, x, REGRESSION_SIZE);
    }
}

void ag_name_example(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    if (t == REGRESSION_EXAMPLES)
        snprintf(text, size, "?");
    else
        snprintf(text, size, "%.1f", token(s, t)[REGRESSION_SIZE]);
}

/* ---- sort: 6 digits of 0 to 2, then the same digits in order, of which the
 * last one is not shown; from the last digit of the input on, the answer at a
 * token is the one that follows it (minGPT's demo) ---- */

/* The digits as a number of base 3. */
int64_t ag_sort_input(const ag_sequence *s)
{
    int64_t input = 0;
    for (int64_t t = 0; t < SORT_LENGTH; t++)
        input = SORT_DIGITS * input + s->ids[t];
    return input;
}

/* A quarter of the inputs, whatever the seed: a counter-based random number is
 * a hash of its counter. */
bool ag_sort_held_out(int64_t input)
{
    ag_random hash = ag_random_stream(0, "sort.test", (uint64_t)input);
    return ag_random_integer(&hash, 4) == 0;
}

/* The input's digits in order, then the others as they stand: what answers with
 * the digits that it attends to makes a staircase. */
void ag_order_sorted(const ag_sequence *s, int64_t *order)
{
    int64_t place = 0;
    for (int64_t digit = 0; digit < SORT_DIGITS; digit++)
        for (int64_t t = 0; t < SORT_LENGTH; t++)
            if (s->ids[t] == digit)
                order[place++] = t;
    for (int64_t t = SORT_LENGTH; t < SORT_TOKENS; t++)
        order[t] = t;
}

/* All inputs of the split are equally frequent. minGPT redraws, half of the time,
 * inputs with more than length / 2 different digits, so as to see more repeats;
 * of 6 digits that would be more than 3 different ones, which 3 digits cannot
 * have: the rule changes nothing here, and is left out. */
void ag_draw_sort(ag_random *random, ag_sequence *s)
{
    do
        for (int64_t t = 0; t < SORT_LENGTH; t++)
            s->ids[t] = ag_random_integer(random, SORT_DIGITS);
    while (ag_sort_held_out(ag_sort_input(s)) != (s->split == AG_HELD_OUT));
    int64_t order[SORT_TOKENS];
    ag_order_sorted(s, order);
    for (int64_t k = 0; k < SORT_LENGTH; k++)
        s->labels[k] = s->ids[order[k]];
    memcpy(s->ids + SORT_LENGTH, s->labels, (SORT_LENGTH - 1) * sizeof *s->labels);
}

void ag_name_id(const ag_sequence *s, int64_t t, char *text, size_t size)
{
    snprintf(text, size, "%d", (int)s->ids[t]);
}
