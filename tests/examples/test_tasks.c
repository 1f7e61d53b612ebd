/* The generators: every sequence has the form that its task promises, the
 * answers are right, and what is random has the distribution it should have. */
#include "../../examples/attograd/generators.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { SEQUENCES = 2000 };

static ag_batch draw(const char *name, bool positions)
{
    ag_batch batch;
    const ag_task *task = ag_task_find(name);
    cr_assert(task != NULL, "no task %s", name);
    cr_assert(ag_batch_new(&batch, task, positions, SEQUENCES));
    ag_random random = ag_random_stream(7, name, 3);
    ag_batch_draw(&batch, AG_TO_LEARN, &random);
    return batch;
}

static const double *token(const ag_sequence *s, int64_t t)
{
    return s->x + t * s->width;
}

/* The place of the only 1 among n features that are 0 or 1; -1 if all are 0. */
static int64_t only_one(const double *x, int64_t n)
{
    int64_t place = -1;
    for (int64_t i = 0; i < n; i++) {
        cr_assert(x[i] == 0 || x[i] == 1, "a feature is %g", x[i]);
        cr_assert(x[i] == 0 || place < 0, "two features are set");
        if (x[i] == 1)
            place = i;
    }
    return place;
}

/* How often each of n outcomes came, against total / n: within five standard
 * deviations of a binomial count. */
static void expect_even(const int64_t *counts, int64_t n, int64_t total)
{
    double p = 1.0 / (double)n, mean = (double)total * p;
    double deviation = sqrt((double)total * p * (1 - p));
    for (int64_t i = 0; i < n; i++)
        cr_expect(fabs((double)counts[i] - mean) < 5 * deviation, "outcome %d came %d times of %d",
                  (int)i, (int)counts[i], (int)total);
}

/* The mean of a sample against what it should be, given the deviation of one. */
static void expect_mean(double sum, int64_t n, double mean, double deviation)
{
    double found = sum / (double)n;
    cr_expect(fabs(found - mean) < 5 * deviation / sqrt((double)n), "the mean is %g, not %g", found,
              mean);
}

Test(tasks, table_is_complete)
{
    for (int i = 0; i < ag_task_count(); i++) {
        const ag_task *t = ag_task_at(i);
        cr_expect(t->draw && t->token_name && t->goes_in && t->comes_out, "%s", t->name);
        cr_expect(t->batch > 0 && t->fresh >= (t->inputs ? 256 : 1024) && t->last >= 1024 &&
                      t->adam_lr > 0 && t->sgd_lr > 0,
                  "%s", t->name);
        cr_expect(t->promise.low <= t->promise.high && t->promise.steps > 0, "%s", t->name);
        cr_expect(t->tokens <= AG_MOST_TOKENS && t->answers >= 1 && t->answers <= t->tokens);
        cr_expect(t->transformer.blocks <= AG_MOST_BLOCKS &&
                  (t->inputs == 0) == (t->input == NULL));
        cr_expect(!t->promise.failure || t->promise.reason, "%s", t->name);
        cr_expect(ag_task_find(t->name) == t);
    }
    cr_expect(ag_task_find("revers") == NULL);
    cr_expect(ag_task_at(-1) == NULL && ag_task_at(ag_task_count()) == NULL);
}

Test(tasks, sizes_are_those_of_the_table)
{
    static const struct {
        const char *name;
        bool positions;
        int64_t d_in, params;
    } sizes[] = { { "reverse", true, 26, 1924 },  { "reverse", false, 11, 814 },
                  { "lookup", false, 32, 1536 },  { "nearest", false, 24, 768 },
                  { "adding", false, 3, 51 },     { "majority", false, 2, 20 },
                  { "regression", false, 6, 78 }, { "parity", true, 18, 612 } };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const ag_task *t = ag_task_find(sizes[i].name);
        int64_t width = ag_task_width(t, sizes[i].positions);
        cr_expect(width == sizes[i].d_in, "%s", t->name);
        cr_expect(width * (2 * t->d_k + t->d_v) == sizes[i].params, "%s", t->name);
    }
}

Test(tasks, reverse)
{
    ag_batch batch = draw("reverse", true);
    int64_t counts[10] = { 0 };
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        for (int64_t t = 0; t < 16; t++) {
            int64_t digit = only_one(token(&s, t), 10);
            cr_assert(digit >= 0);
            cr_assert(s.labels[15 - t] == digit);
            cr_assert(only_one(token(&s, t) + 10, 16) == t);
            counts[digit]++;
        }
    }
    expect_even(counts, 10, 16 * SEQUENCES);
    ag_batch_free(&batch);
}

Test(tasks, reverse_without_positions_has_a_constant_instead)
{
    ag_batch with = draw("reverse", true), without = draw("reverse", false);
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence a = ag_batch_sequence(&with, i), b = ag_batch_sequence(&without, i);
        cr_assert(!memcmp(a.labels, b.labels, 16 * sizeof *a.labels));
        for (int64_t t = 0; t < 16; t++) {
            cr_assert(!memcmp(token(&a, t), token(&b, t), 10 * sizeof(double)));
            cr_assert(token(&b, t)[10] == 1);
        }
    }
    ag_batch_free(&with);
    ag_batch_free(&without);
}

/* The bound of reverse without positions, measured: guess the most frequent of
 * the symbols, of all 16 or of the 15 others. */
Test(tasks, bound_of_a_bag)
{
    ag_batch batch = draw("reverse", true);
    double all = 0, others = 0;
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        int counts[10] = { 0 }, most = 0, most_others = 0;
        for (int64_t t = 0; t < 16; t++)
            counts[s.labels[t]]++;
        for (int c = 0; c < 10; c++) {
            int left = counts[c] - (c == s.labels[0]);
            most = counts[c] > most ? counts[c] : most;
            most_others = left > most_others ? left : most_others;
        }
        all += most / 16.0;
        others += most_others / 15.0;
    }
    expect_mean(all, SEQUENCES, 0.236, 0.05);
    expect_mean(others, SEQUENCES, 0.241, 0.05);
    ag_batch_free(&batch);
}

Test(tasks, lookup)
{
    ag_batch batch = draw("lookup", false);
    int64_t keys[16] = { 0 }, values[16] = { 0 }, asked[8] = { 0 };
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        int64_t question = only_one(token(&s, 8), 16), found = -1;
        cr_assert(only_one(token(&s, 8) + 16, 16) == -1, "the question has a value");
        for (int64_t t = 0; t < 8; t++) {
            int64_t key = only_one(token(&s, t), 16), value = only_one(token(&s, t) + 16, 16);
            cr_assert(key >= 0 && value >= 0);
            keys[key]++;
            values[value]++;
            if (key == question) {
                cr_assert(found < 0, "two items have one key");
                found = t;
                cr_assert(value == s.labels[0]);
            }
        }
        cr_assert(found >= 0, "the key that is asked for is not there");
        asked[found]++;
    }
    expect_even(keys, 16, 8 * SEQUENCES);
    expect_even(values, 16, 8 * SEQUENCES);
    expect_even(asked, 8, SEQUENCES);
    ag_batch_free(&batch);
}

static double squared_distance(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

Test(tasks, nearest)
{
    ag_batch batch = draw("nearest", false);
    double sum_of_firsts = 0, zero[8] = { 0 };
    int64_t close = 0;
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        int64_t best = 0;
        for (int64_t t = 0; t < 9; t++)
            cr_assert(fabs(squared_distance(token(&s, t), zero) - 1) < 1e-12);
        for (int64_t t = 0; t < 8; t++)
            if (squared_distance(token(&s, t), token(&s, 8)) <
                squared_distance(token(&s, best), token(&s, 8)))
                best = t;
        cr_assert(only_one(token(&s, best) + 8, 16) == s.labels[0]);
        cr_assert(only_one(token(&s, 8) + 8, 16) == -1, "the question has a value");
        sum_of_firsts += token(&s, 0)[0];
        close += squared_distance(token(&s, best), token(&s, 8)) < 0.5 * 0.5;
    }
    expect_mean(sum_of_firsts, SEQUENCES, 0, sqrt(1.0 / 8));
    /* noise of 0.1 in each of 8 directions: a distance of about 0.28 */
    cr_expect(close > SEQUENCES * 95 / 100, "%d of %d queries are close", (int)close, SEQUENCES);
    ag_batch_free(&batch);
}

Test(tasks, adding)
{
    ag_batch batch = draw("adding", false);
    double sum = 0, targets = 0, squares = 0;
    int64_t marks[50] = { 0 };
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        double marked = 0;
        int number = 0;
        for (int64_t t = 0; t < 50; t++) {
            const double *x = token(&s, t);
            cr_assert(x[0] >= 0 && x[0] < 1 && (x[1] == 0 || x[1] == 1) && x[2] == 1);
            sum += x[0];
            marked += x[0] * x[1];
            number += x[1] == 1;
            marks[t] += x[1] == 1;
        }
        cr_assert(number == 2);
        cr_assert(fabs(marked - s.targets[0]) < 1e-15);
        targets += marked;
        squares += (marked - 1) * (marked - 1);
    }
    expect_mean(sum, 50 * SEQUENCES, 0.5, sqrt(1.0 / 12));
    expect_mean(targets, SEQUENCES, 1, sqrt(1.0 / 6));
    expect_mean(squares, SEQUENCES, 1.0 / 6, 0.2); /* what a constant answer costs */
    expect_even(marks, 50, 2 * SEQUENCES);
    ag_batch_free(&batch);
}

static int64_t ones_of(const ag_sequence *s, int64_t *ones_before)
{
    int64_t ones = 0;
    for (int64_t t = 0; t < s->tokens; t++) {
        int64_t bit = only_one(token(s, t), 2);
        cr_assert(bit >= 0);
        ones += bit;
    }
    *ones_before += ones;
    return ones;
}

Test(tasks, majority)
{
    ag_batch batch = draw("majority", false);
    int64_t ones = 0, yes = 0;
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        cr_assert(s.labels[0] == (ones_of(&s, &ones) >= 17));
        yes += s.labels[0];
    }
    expect_mean((double)ones, 33 * SEQUENCES, 0.5, 0.5);
    expect_mean((double)yes, SEQUENCES, 0.5, 0.5);
    ag_batch_free(&batch);
}

Test(tasks, parity)
{
    ag_batch batch = draw("parity", true);
    int64_t ones = 0, yes = 0;
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        cr_assert(s.labels[0] == (ones_of(&s, &ones) & 1));
        yes += s.labels[0];
        for (int64_t t = 0; t < 16; t++)
            cr_assert(only_one(token(&s, t) + 2, 16) == t);
    }
    expect_mean((double)ones, 16 * SEQUENCES, 0.5, 0.5);
    expect_mean((double)yes, SEQUENCES, 0.5, 0.5);
    ag_batch_free(&batch);
}

/* w from the first five points by elimination; it must explain all the others. */
static void solve(const ag_sequence *s, double *w)
{
    double a[5][6];
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 6; j++)
            a[i][j] = token(s, i)[j];
    for (int i = 0; i < 5; i++) {
        int pivot = i;
        for (int k = i; k < 5; k++)
            if (fabs(a[k][i]) > fabs(a[pivot][i]))
                pivot = k;
        for (int j = 0; j < 6; j++) {
            double keep = a[i][j];
            a[i][j] = a[pivot][j];
            a[pivot][j] = keep;
        }
        for (int k = 0; k < 5; k++)
            for (int j = 5; k != i && j >= i; j--)
                a[k][j] -= a[i][j] * a[k][i] / a[i][i];
    }
    for (int i = 0; i < 5; i++)
        w[i] = a[i][5] / a[i][i];
}

Test(tasks, regression)
{
    ag_batch batch = draw("regression", false);
    double targets = 0, squares = 0, step = 0;
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        double w[5], one_step = 0;
        solve(&s, w);
        for (int64_t t = 0; t < 11; t++) {
            const double *x = token(&s, t);
            double y = 0, nearness = 0;
            for (int j = 0; j < 5; j++) {
                cr_assert(x[j] >= -1 && x[j] < 1);
                y += w[j] * x[j];
                nearness += x[j] * token(&s, 10)[j];
            }
            cr_assert(fabs(y - (t < 10 ? x[5] : s.targets[0])) < 1e-6);
            one_step += 0.2 * x[5] * nearness;
        }
        cr_assert(token(&s, 10)[5] == 0);
        targets += s.targets[0];
        squares += s.targets[0] * s.targets[0];
        step += (one_step - s.targets[0]) * (one_step - s.targets[0]);
    }
    expect_mean(targets, SEQUENCES, 0, sqrt(5.0 / 3));
    expect_mean(squares, SEQUENCES, 5.0 / 3, 2.7);
    expect_mean(step, SEQUENCES, 0.5405, 1.0); /* the best single step of gradient descent */
    ag_batch_free(&batch);
}

Test(tasks, the_same_stream_gives_the_same_batch)
{
    ag_batch a = draw("nearest", false), b = draw("nearest", false);
    cr_expect(!memcmp(a.x, b.x, (size_t)(SEQUENCES * 9 * 24) * sizeof(double)));
    ag_random other = ag_random_stream(8, "nearest", 3);
    ag_batch_draw(&b, AG_TO_LEARN, &other);
    cr_expect(memcmp(a.x, b.x, (size_t)(SEQUENCES * 9 * 24) * sizeof(double)));
    ag_batch_free(&a);
    ag_batch_free(&b);
}
