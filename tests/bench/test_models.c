/* The models of bench are those that they are said to be. */
#include "bench/models.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>

static const bench_model *find(const char *name)
{
    int i = 0;
    while (i < BENCH_MODEL_COUNT && strcmp(bench_models[i].name, name) != 0)
        i++;
    cr_assert_lt(i, BENCH_MODEL_COUNT, "no model %s", name);
    return &bench_models[i];
}

Test(bench_models, parameters)
{
    cr_expect_eq(find("tiny")->parameters, 3696);
    cr_expect_eq(find("small")->parameters, 14176);
    cr_expect_eq(find("toy GPT")->parameters, 120064);
    cr_expect_eq(find("mid")->parameters, 109824);
    cr_expect_eq(find("char")->parameters, 816128);
    cr_expect_eq(find("gpt-256")->parameters, 10786560);
    for (int i = 0; i < BENCH_MODEL_COUNT; i++) { /* which looks whether they are that many */
        bench_training training;
        cr_expect(bench_training_begin(&training, &bench_models[i], 1));
        cr_expect_eq(ag_params_size(training.params), bench_models[i].parameters);
        bench_training_end(&training);
    }
}

/* 6 parameters tokens + 12 blocks t d tokens */
Test(bench_models, work)
{
    cr_expect_eq(bench_model_work(find("tiny")), 6.0 * 3696 * 64 + 12.0 * 1 * 8 * 16 * 64);
    cr_expect_eq(bench_model_work(find("toy GPT")), 209584128.0);
    cr_expect_eq(bench_model_work(find("gpt-256")), 294081527808.0);
}

Test(bench_models, another_number_of_parameters_is_refused, .init = cr_redirect_stderr)
{
    bench_model model = *find("tiny");
    model.parameters++;
    bench_training training;
    cr_expect_not(bench_training_begin(&training, &model, 1));
    bench_training_end(&training);
    cr_assert_stderr_eq_str("attograd bench: tiny: 3696 parameters instead of 3697\n");
}

Test(bench_models, a_warm_step_learns_and_allocates_nothing)
{
    for (int threads = 1; threads <= 2; threads++) {
        bench_training training;
        cr_assert(bench_training_begin(&training, find("small"), threads));
        cr_expect_gt(training.allocations, 0, "they are counted");
        double before = ag_tensor_at(ag_value(training.transformer.unembedding.w), 0);
        for (int step = 0; step < 3; step++)
            bench_training_step(&training);
        cr_expect_neq(ag_tensor_at(ag_value(training.transformer.unembedding.w), 0), before);
        bench_step_memory memory = bench_training_memory(&training);
        cr_expect_eq(memory.allocations, 0);
        cr_expect_gt(memory.peak, (size_t)(32 * 16 * 32) * sizeof(float), "one activation");
        cr_expect(bench_training_good(&training));
        bench_training_end(&training);
    }
}
