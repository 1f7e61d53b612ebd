/* The task sort: its split and its answers, what is counted as right, what the
 * transformer sees when it answers, and a short training. */
#include "../../examples/attograd/generators.h"
#include "../../examples/attograd/picture.h"
#include "program.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 20000 };

static ag_batch draw(int64_t sequences, ag_split split, uint64_t seed)
{
    ag_batch batch;
    cr_assert(ag_batch_new(&batch, ag_task_find("sort"), false, sequences));
    ag_random random = ag_random_stream(seed, "sort", 3);
    ag_batch_draw(&batch, split, &random);
    return batch;
}

Test(sort, a_quarter_of_the_inputs_is_held_out)
{
    int held_out = 0;
    for (int64_t i = 0; i < SORT_INPUTS; i++)
        held_out += ag_sort_held_out(i);
    cr_expect(held_out > SORT_INPUTS * 20 / 100 && held_out < SORT_INPUTS * 30 / 100, "%d are",
              held_out);
}

/* Each split draws all of its inputs, equally often, and none of the other's:
 * no input is favoured for its repeats. */
static void expect_split(ag_split split)
{
    int64_t counts[SORT_INPUTS] = { 0 }, inputs = 0;
    ag_batch batch = draw(SEQUENCES, split, 7);
    for (int64_t i = 0; i < SEQUENCES; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        counts[ag_sort_input(&s)]++;
    }
    for (int64_t i = 0; i < SORT_INPUTS; i++)
        inputs += ag_sort_held_out(i) == (split == AG_HELD_OUT);
    double mean = (double)SEQUENCES / (double)inputs;
    for (int64_t i = 0; i < SORT_INPUTS; i++)
        if (ag_sort_held_out(i) != (split == AG_HELD_OUT))
            cr_expect(counts[i] == 0, "input %d is in both splits", (int)i);
        else
            cr_expect(fabs((double)counts[i] - mean) < 5 * sqrt(mean), "input %d came %d times",
                      (int)i, (int)counts[i]);
    ag_batch_free(&batch);
}

Test(sort, splits_are_disjoint_and_even)
{
    expect_split(AG_TO_LEARN);
    expect_split(AG_HELD_OUT);
}

Test(sort, answers_are_the_digits_in_order)
{
    ag_batch batch = draw(2000, AG_TO_LEARN, 7);
    for (int64_t i = 0; i < 2000; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        int in[SORT_DIGITS] = { 0 }, out[SORT_DIGITS] = { 0 };
        for (int64_t k = 0; k < SORT_LENGTH; k++) {
            cr_assert(s.ids[k] >= 0 && s.ids[k] < SORT_DIGITS);
            cr_assert(s.labels[k] >= 0 && s.labels[k] < SORT_DIGITS);
            cr_assert(k == 0 || s.labels[k - 1] <= s.labels[k]);
            cr_assert(k == 0 || s.ids[SORT_LENGTH - 1 + k] == s.labels[k - 1]);
            in[s.ids[k]]++;
            out[s.labels[k]]++;
        }
        cr_assert(!memcmp(in, out, sizeof in));
    }
    ag_batch_free(&batch);
}

/* ---- What counts ---- */

static ag_var zeros(const ag_model *model, const ag_batch *batch, int64_t n)
{
    (void)batch;
    return ag_zeros(model->context, AG_SHAPE(n, SORT_LENGTH, SORT_DIGITS));
}

/* The right answers of n sequences, but for each digit that is marked as wrong in
 * every step-th sequence. */
static ag_var answers(const ag_model *model, const ag_batch *batch, int64_t n, const bool *wrong,
                      int64_t step)
{
    int64_t *labels = malloc((size_t)(n * SORT_LENGTH) * sizeof *labels);
    cr_assert(labels != NULL);
    for (int64_t k = 0; k < n * SORT_LENGTH; k++) {
        bool change = wrong[k % SORT_LENGTH] && k / SORT_LENGTH % step == 0;
        labels[k] = (batch->labels[k] + change) % SORT_DIGITS;
    }
    ag_var given = ag_indices(model->context, AG_SHAPE(n, SORT_LENGTH), labels);
    free(labels);
    return given;
}

static ag_var all_wrong(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    (void)prediction;
    return answers(model, batch, n, (bool[]){ true, true, true, true, true, true }, 1);
}

static ag_var last_wrong(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    (void)prediction;
    return answers(model, batch, n, (bool[SORT_LENGTH]){ [SORT_LENGTH - 1] = true }, 1);
}

static ag_var some_wrong(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    (void)prediction;
    return answers(model, batch, n, (bool[SORT_LENGTH]){ [2] = true }, 4);
}

static ag_var all_right(const ag_model *model, const ag_batch *batch, int64_t n, ag_var prediction)
{
    (void)prediction;
    return answers(model, batch, n, (bool[SORT_LENGTH]){ false }, 1);
}

Test(sort, a_sequence_counts_if_every_answer_is_right)
{
    const ag_model_kind kinds[] = { { .predict = zeros, .answer = all_wrong },
                                    { .predict = zeros, .answer = last_wrong },
                                    { .predict = zeros, .answer = some_wrong },
                                    { .predict = zeros, .answer = all_right } };
    const double values[] = { 0, 0, 0.75, 1 };
    ag_batch batch = draw(64, AG_HELD_OUT, 1);
    for (int i = 0; i < 4; i++) {
        ag_context *context = ag_context_new(NULL);
        ag_model model = { .kind = &kinds[i], .task = batch.task, .context = context };
        ag_score score = ag_model_score(&model, &batch, 32);
        cr_expect(score.value == values[i], "%d: %g", i, score.value);
        cr_expect(fabs(score.loss - log(3)) < 1e-6, "%g", score.loss);
        cr_expect(ag_context_finish(context) == 0);
    }
    ag_batch_free(&batch);
}

/* ---- The transformer ---- */

static ag_context *begin(ag_model *model, ag_settings *settings, const char *threads)
{
    char *words[] = { "train", "sort", "--dtype", "f64", "--threads", (char *)threads };
    cr_assert(ag_settings_read(6, words, settings));
    ag_context *context = ag_context_new(
        &(ag_context_options){ .dtype = AG_F64, .seed = 5, .threads = (int)settings->threads });
    cr_assert(ag_model_init(model, context, settings));
    return context;
}

/* The loss of the six answers is that of all eleven tokens when the first five
 * are ignored. */
Test(sort, only_answers_have_a_loss)
{
    enum { N = 16 };
    int64_t labels[N * SORT_TOKENS];
    ag_model model;
    ag_settings settings;
    ag_context *context = begin(&model, &settings, "1");
    ag_batch batch = draw(N, AG_TO_LEARN, 1);
    for (int64_t k = 0; k < N * SORT_TOKENS; k++) {
        int64_t answer = k % SORT_TOKENS - (SORT_LENGTH - 1);
        labels[k] = answer < 0 ? -1 : batch.labels[k / SORT_TOKENS * SORT_LENGTH + answer];
    }
    ag_var ids = ag_indices(context, AG_SHAPE(N, SORT_TOKENS), batch.ids);
    ag_var loss =
        ag_cross_entropy_with(ag_transformer_forward(&model.transformer, ids),
                              ag_indices(context, AG_SHAPE(N, SORT_TOKENS), labels),
                              &(ag_cross_entropy_options){ .ignore = true, .ignore_index = -1 });
    double difference = ag_item(loss) - ag_item(ag_model_loss(&model, &batch));
    cr_expect(fabs(difference) < 1e-14, "%g", difference);
    ag_batch_free(&batch);
    cr_expect(ag_context_finish(context) == 0);
}

/* An answer is what is most likely after the input and the answers generated
 * before it, whatever the batch has in their places. */
Test(sort, answers_are_generated_one_after_the_other)
{
    ag_model model;
    ag_settings settings;
    double given[SORT_LENGTH], logits[SORT_TOKENS * SORT_DIGITS];
    ag_context *context = begin(&model, &settings, "1");
    ag_batch batch = draw(8, AG_HELD_OUT, 1);
    for (int64_t i = 0; i < 8; i++) {
        ag_sequence s = ag_batch_sequence(&batch, i);
        ag_batch one = batch;
        one.ids = s.ids;
        for (int64_t k = 0; k < SORT_LENGTH; k++) {
            s.labels[k] = 0;
            if (k > 0)
                s.ids[SORT_LENGTH - 1 + k] = 2;
        }
        ag_var generated = model.kind->answer(&model, &one, 1, AG_NONE);
        cr_assert(ag_read(generated, given));
        for (int64_t k = 0; k < SORT_LENGTH; k++) {
            int64_t tokens = SORT_LENGTH + k, best = 0;
            const double *last = logits + (tokens - 1) * SORT_DIGITS;
            ag_var ids = ag_indices(context, AG_SHAPE(1, tokens), s.ids);
            cr_assert(ag_read(ag_transformer_forward(&model.transformer, ids), logits));
            for (int64_t digit = 1; digit < SORT_DIGITS; digit++)
                best = last[digit] > last[best] ? digit : best;
            cr_expect(given[k] == (double)best, "answer %d of sequence %d", (int)k, (int)i);
            if (k + 1 < SORT_LENGTH)
                s.ids[tokens] = best;
        }
    }
    ag_batch_free(&batch);
    cr_expect(ag_context_finish(context) == 0);
}

/* Some steps of training; all parameters, one after the other. */
static double *train(const char *threads, int64_t *size, double *first_loss, double *last_loss)
{
    enum { STEPS = 30 };
    ag_model model;
    ag_settings settings;
    ag_context *context = begin(&model, &settings, threads);
    ag_optimizer *optimizer = ag_model_optimizer(&model, &settings);
    for (uint64_t step = 1; step <= STEPS; step++) {
        ag_batch batch = draw(64, AG_TO_LEARN, step);
        ag_var loss = ag_model_loss(&model, &batch);
        *(step == 1 ? first_loss : last_loss) = ag_item(loss);
        ag_backward(loss);
        ag_optimizer_step(optimizer);
        ag_tape_reset(context);
        ag_batch_free(&batch);
    }
    *size = ag_params_size(model.params);
    double *numbers = malloc((size_t)*size * sizeof *numbers), *place = numbers;
    cr_assert(numbers != NULL);
    for (int i = 0; i < ag_params_count(model.params); i++) {
        ag_var parameter = ag_params_at(model.params, i);
        cr_assert(ag_read(parameter, place));
        place += ag_tensor_count(ag_value(parameter));
    }
    cr_expect(ag_context_finish(context) == 0);
    return numbers;
}

Test(sort, learns_with_the_same_bits_for_any_number_of_threads)
{
    int64_t size[2];
    double first[2], last[2], *numbers[2];
    for (int i = 0; i < 2; i++)
        numbers[i] = train(i ? "3" : "1", &size[i], &first[i], &last[i]);
    cr_expect(fabs(first[0] - log(3)) < 0.1, "the loss begins at %g", first[0]);
    cr_expect(last[0] < 0.7, "the loss ends at %g", last[0]);
    cr_expect(size[0] == size[1] && size[0] == 85152);
    cr_expect(first[0] == first[1] && last[0] == last[1]);
    cr_expect(!memcmp(numbers[0], numbers[1], (size_t)size[0] * sizeof *numbers[0]));
    free(numbers[0]);
    free(numbers[1]);
}

/* Where all gradients are 0, a step of AdamW is the weight decay: of matrices only. */
Test(sort, only_matrices_decay)
{
    ag_model model;
    ag_settings settings;
    ag_context *context = begin(&model, &settings, "1");
    ag_optimizer *optimizer = ag_model_optimizer(&model, &settings);
    const ag_block *block = &model.transformer.blocks[2];
    const ag_var watched[] = { block->attention.w_q, block->norm_1.gain,
                               model.transformer.tokens.w };
    const double factors[] = { 1 - 5e-4 * 0.1, 1, 1 };
    ag_batch batch = draw(2, AG_TO_LEARN, 1);
    double before[3];
    for (int i = 0; i < 3; i++)
        before[i] = ag_tensor_at(ag_value(watched[i]), 0);
    ag_backward(ag_mul(ag_model_loss(&model, &batch), ag_scalar(context, 0)));
    cr_assert(ag_optimizer_step(optimizer));
    for (int i = 0; i < 3; i++) {
        double after = ag_tensor_at(ag_value(watched[i]), 0);
        cr_expect(fabs(after / before[i] - factors[i]) < 1e-14, "%d: %g to %g", i, before[i],
                  after);
    }
    ag_batch_free(&batch);
    cr_expect(ag_context_finish(context) == 0);
}

/* The picture shows one head: its rows answer, its columns are the tokens, and a
 * row's weights add up to 1. */
Test(sort, picture)
{
    ag_model model;
    ag_settings settings;
    ag_heatmap map;
    ag_context *context = begin(&model, &settings, "1");
    ag_batch batch = draw(3, AG_HELD_OUT, 1);
    cr_assert(ag_picture_new(&map, batch.task));
    ag_look look = ag_model_look(&model, &batch);
    ag_picture_fill(&map, &batch, &look);
    cr_expect(map.first_row == 5 && !map.last_row_answers && strstr(map.note, "block "));
    cr_expect(look.layer == &model.transformer.blocks[look.block].attention);
    for (int64_t i = 0; i < SORT_TOKENS; i++) {
        double sum = 0;
        for (int64_t j = 0; j < SORT_TOKENS; j++)
            sum += map.weights[i * SORT_TOKENS + j];
        cr_expect(fabs(sum - 1) < 1e-12, "row %d adds up to %g", (int)i, sum);
    }
    for (int64_t j = 0; j < SORT_LENGTH; j++)
        cr_expect(atoi(map.columns[j]) == batch.labels[j], "column %d", (int)j);
    for (int64_t k = 0; k < SORT_LENGTH; k++)
        cr_expect(map.rows[5 + k][1] == '>' && atoi(map.rows[5 + k] + 2) == batch.labels[k]);
    ag_picture_free(&map);
    ag_batch_free(&batch);
    cr_expect(ag_context_finish(context) == 0);
}

/* ---- The program ---- */

Test(sort, program)
{
    double loss = 0;
    int right = 0, all = 0, inputs = 0;
    ag_test_run ran = ag_test_program("train sort --steps 60", NULL);
    cr_assert(ran.status == 0 && !*ran.errors, "%s", ran.errors);
    cr_expect(!strncmp(ran.output, "sort: adamw, lr 0.0005, batch 64, seed 1\n", 41), "%s",
              ran.output);
    const char *evaluation = strstr(ran.output, "step    60  loss");
    cr_assert(evaluation && sscanf(evaluation, "step 60 loss %lf", &loss) == 1, "%s", ran.output);
    cr_expect(loss < 0.5, "the loss is %g", loss);
    const char *last = strrchr(ran.output, ';');
    while (last && last > ran.output && last[-1] != '\n')
        last--;
    cr_assert(last && sscanf(last,
                             "%d of %d test sequences are right from the first answer to the "
                             "last; %d of them differ\n",
                             &right, &all, &inputs) == 3,
              "%s", ran.output);
    cr_expect(right > 500 && right <= 5000 && all == 5000, "%d of %d", right, all);
    cr_expect(inputs > 140 && inputs < 220, "%d inputs", inputs);
    ag_test_run_free(&ran);
}

static void expect_refused(const char *words, const char *part)
{
    ag_test_run ran = ag_test_program(words, NULL);
    cr_expect(ran.status == 2 && strstr(ran.errors, part), "'%s' said: %s", words, ran.errors);
    ag_test_run_free(&ran);
}

Test(sort, options_that_make_no_sense)
{
    expect_refused("train sort --no-positions", "no positions that can be left out");
    expect_refused("train sort --normalizer relu", "always a softmax");
    expect_refused("explain sort", "one word too many: 'sort'");
}
