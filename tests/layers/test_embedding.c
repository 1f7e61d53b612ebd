/* Embeddings: rows of a table, and learned positions. */
#include <attograd.h>

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void expect_error(ag_context *ctx, ag_error error, const char *words)
{
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", words, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    cr_expect(strstr(ag_error_message(ctx), words), "'%s' has no '%s'", ag_error_message(ctx),
              words);
    ag_error_clear(ctx);
}

/* w = [[0, 1], [10, 11], [20, 21]] */
static ag_embedding known_layer(ag_params *params)
{
    ag_embedding e;
    cr_assert(ag_embedding_init(&e, params, "emb", &(ag_embedding_options){ .count = 3, .d = 2 }));
    cr_assert(ag_assign(e.w, (double[]){ 0, 1, 10, 11, 20, 21 }));
    return e;
}

static void expect_values(ag_var y, ag_shape shape, const double *values)
{
    cr_assert(ag_is_valid(y), "%s", ag_error_message(y.context));
    cr_assert(ag_shape_equal(ag_shape_of(y), shape));
    for (int64_t i = 0; i < ag_shape_count(shape); i++)
        cr_expect_eq(ag_tensor_at(ag_value(y), i), values[i], "at %d", (int)i);
}

Test(embedding, rows_by_hand)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_embedding e = known_layer(ag_params_new(ctx));
    ag_var indices = ag_indices(ctx, AG_SHAPE(2, 2), (int64_t[]){ 2, 0, 1, 2 });
    expect_values(ag_embedding_forward(&e, indices), AG_SHAPE(2, 2, 2),
                  (double[]){ 20, 21, 0, 1, 10, 11, 20, 21 });
    expect_values(ag_embedding_forward(&e, ag_indices(ctx, AG_SCALAR, (int64_t[]){ 1 })),
                  AG_SHAPE(2), (double[]){ 10, 11 });
    expect_values(ag_embedding_forward(&e, ag_indices(ctx, AG_SHAPE(0), NULL)), AG_SHAPE(0, 2),
                  NULL);
    ag_context_free(ctx);
}

/* A row that is used three times gets three gradients, one that is not used gets 0. */
Test(embedding, gradients_meet_in_the_table)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_embedding e = known_layer(ag_params_new(ctx));
    ag_var y = ag_embedding_forward(&e, ag_indices(ctx, AG_SHAPE(4), (int64_t[]){ 2, 0, 2, 2 }));
    const double dy[] = { 1, 2, 3, 4, 5, 6, 7, 8 }, dw[] = { 3, 4, 0, 0, 13, 16 };
    cr_assert(ag_backward_from(y, ag_constant(ctx, AG_SHAPE(4, 2), dy)));
    for (int64_t k = 0; k < 6; k++)
        cr_expect_eq(ag_tensor_at(ag_gradient(e.w), k), dw[k]);
    ag_context_free(ctx);
}

Test(embedding, positions_by_hand)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_embedding e = known_layer(ag_params_new(ctx));
    ag_var x = ag_constant(ctx, AG_SHAPE(2, 2, 2), (double[]){ 1, 2, 3, 4, 5, 6, 7, 8 });
    ag_var y = ag_embedding_add_positions(&e, x);
    expect_values(y, AG_SHAPE(2, 2, 2), (double[]){ 1, 3, 13, 15, 5, 7, 17, 19 });
    cr_assert(ag_backward_from(y, x));
    const double dw[] = { 6, 8, 10, 12, 0, 0 };
    for (int64_t k = 0; k < 6; k++)
        cr_expect_eq(ag_tensor_at(ag_gradient(e.w), k), dw[k]);
    expect_values(ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(3, 2))), AG_SHAPE(3, 2),
                  (double[]){ 0, 1, 10, 11, 20, 21 });
    expect_values(ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(4, 0, 2))),
                  AG_SHAPE(4, 0, 2), NULL);
    ag_context_free(ctx);
}

static double deviation(ag_var w)
{
    double squares = 0;
    const ag_tensor *value = ag_value(w);
    for (int64_t k = 0; k < ag_tensor_count(value); k++)
        squares += ag_tensor_at(value, k) * ag_tensor_at(value, k);
    return sqrt(squares / (double)ag_tensor_count(value));
}

Test(embedding, how_it_starts)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 1 });
    ag_params *params = ag_params_new(ctx);
    ag_embedding e;
    ag_embedding_options options = { .count = 100, .d = 50 };
    ag_embedding_init(&e, params, "a", &options);
    cr_expect_float_eq(deviation(e.w), 0.02, 0.001);
    cr_expect_str_eq(ag_name(e.w), "a.w");
    options.init = (ag_init){ AG_INIT_NORMAL, 0.5 };
    ag_embedding_init(&e, params, "b", &options);
    cr_expect_float_eq(deviation(e.w), 0.5, 0.025);
    options.init = (ag_init){ AG_INIT_CONSTANT, 3 };
    ag_embedding_init(&e, params, "c", &options);
    cr_expect_eq(ag_tensor_at(ag_value(e.w), 7), 3);
    ag_context_free(ctx);
}

Test(embedding, init_is_checked)
{
    ag_context *ctx = ag_context_new(NULL);
    ag_params *params = ag_params_new(ctx);
    const ag_embedding_options good = { .count = 3, .d = 2 };
    ag_embedding e;
    cr_expect_not(ag_embedding_init(&e, params, "e", &(ag_embedding_options){ .d = 2 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_init: e: count is 0");
    cr_expect_not(ag_embedding_init(&e, params, "e", &(ag_embedding_options){ .count = 2 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "d 0");
    cr_expect_not(ag_embedding_init(
        &e, params, "e",
        &(ag_embedding_options){ .count = 3, .d = 2, .init = { AG_INIT_NORMAL, -1 } }));
    expect_error(ctx, AG_ERR_ARGUMENT, "negative");
    cr_expect_not(ag_embedding_init(
        &e, params, "e", &(ag_embedding_options){ .count = INT64_MAX / 2, .d = INT64_MAX / 2 }));
    expect_error(ctx, AG_ERR_MEMORY, "");
    cr_expect_not(ag_embedding_init(NULL, params, "e", &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_init: layer is NULL");
    cr_expect_not(ag_embedding_init(&e, params, NULL, &good));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_init: name is NULL");
    cr_expect_not(ag_embedding_init(&e, params, "e", NULL));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_init: options is NULL");
    cr_expect_not(ag_embedding_init(&e, NULL, "e", &good));
    cr_expect_eq(ag_params_count(params), 0);
    ag_embedding_forward(&e, ag_indices(ctx, AG_SHAPE(1), (int64_t[]){ 0 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_forward: the layer was not initialised");
    ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(1, 2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_add_positions: the layer was not initialised");
    ag_context_free(ctx);
}

Test(embedding, forward_is_checked)
{
    ag_context *ctx = ag_context_new(NULL), *other = ag_context_new(NULL);
    ag_embedding e = known_layer(ag_params_new(ctx));
    ag_embedding_forward(&e, ag_indices(ctx, AG_SHAPE(2), (int64_t[]){ 0, 3 }));
    expect_error(ctx, AG_ERR_INDEX, "index 3 at [1]");
    ag_embedding_forward(&e, ag_indices(ctx, AG_SHAPE(1), (int64_t[]){ -1 }));
    expect_error(ctx, AG_ERR_INDEX, "index -1");
    ag_embedding_forward(&e, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_DTYPE, "");
    ag_embedding_forward(&e, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "");
    ag_embedding_forward(&e, ag_indices(other, AG_SHAPE(1), (int64_t[]){ 0 }));
    expect_error(ctx, AG_ERR_ARGUMENT, "");
    ag_embedding_forward(NULL, AG_NONE);
    ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(2, 4, 2)));
    expect_error(ctx, AG_ERR_SHAPE, "no more than emb.w [3,2]");
    ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(2, 3)));
    expect_error(ctx, AG_ERR_SHAPE, "the last axis of");
    ag_embedding_add_positions(&e, ag_zeros(ctx, AG_SHAPE(2)));
    expect_error(ctx, AG_ERR_SHAPE, "should be [.., tokens, d]");
    ag_embedding_add_positions(&e, ag_scalar(ctx, 1));
    expect_error(ctx, AG_ERR_SHAPE, "");
    ag_embedding_add_positions(&e, ag_cast(ag_zeros(ctx, AG_SHAPE(1, 2)), AG_F64));
    expect_error(ctx, AG_ERR_DTYPE, "is f64, emb.w [3,2] is f32");
    ag_embedding_add_positions(NULL, ag_zeros(ctx, AG_SHAPE(1, 2)));
    expect_error(ctx, AG_ERR_ARGUMENT, "not initialised");
    ag_embedding_add_positions(&e, AG_NONE);
    expect_error(ctx, AG_ERR_ARGUMENT, "embedding_add_positions: ");
    ag_context_free(ctx);
    ag_context_free(other);
}
