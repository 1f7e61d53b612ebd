/* A first self-attention layer: it learns to reverse a sequence.
 *
 * A token says which symbol it is and where it stands, both one-hot. W_q and
 * W_k have to find out that token t should look at token T - 1 - t, and W_v
 * that the symbol found there is the answer. Nothing else learns. */
#include <attograd.h>

enum { BATCH = 32, T = 6, SYMBOLS = 8, WIDTH = SYMBOLS + T };

/* Fresh sequences: x [BATCH, T, WIDTH], and as answer the symbols backwards. */
static void draw_batch(ag_context *ctx, ag_random *random, ag_var *x, ag_var *answer)
{
    static double tokens[BATCH][T][WIDTH];
    static int64_t answers[BATCH][T];
    for (int b = 0; b < BATCH; b++)
        for (int t = 0; t < T; t++) {
            int64_t symbol = ag_random_integer(random, SYMBOLS);
            for (int i = 0; i < WIDTH; i++)
                tokens[b][t][i] = i == symbol || i == SYMBOLS + t;
            answers[b][T - 1 - t] = symbol;
        }
    *x = ag_constant(ctx, AG_SHAPE(BATCH, T, WIDTH), &tokens[0][0][0]);
    *answer = ag_indices(ctx, AG_SHAPE(BATCH, T), &answers[0][0]);
}

/* The share of tokens whose largest logit is the answer's. */
static double accuracy(ag_var logits, ag_var answer)
{
    ag_var right = ag_equal(ag_argmax(logits, -1), answer);
    return ag_item(ag_mean(ag_cast(right, AG_F32), AG_ALL, 0));
}

int main(void)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .seed = 1 });
    ag_random random = ag_random_stream(1, "sequences", 0);
    ag_params *params = ag_params_new(ctx);

    ag_attention attn; /* W_q, W_k [14, 16], W_v [14, 8]: straight to the logits */
    ag_attention_init(&attn, params, "attn",
                      &(ag_attention_options){ .d_in = WIDTH, .d_k = 16, .d_v = SYMBOLS });
    ag_optimizer *adam = ag_adam_new(params, &(ag_adam_options){ .lr = 2e-2 });

    for (int step = 1; step <= 100 && ag_status(ctx) == AG_OK; step++) {
        ag_var x, answer;
        draw_batch(ctx, &random, &x, &answer);
        ag_var logits = ag_attention_forward(&attn, x, NULL);
        ag_var loss = ag_cross_entropy(logits, answer);
        ag_backward(loss);
        ag_optimizer_step(adam);
        if (step == 1 || step % 20 == 0)
            printf("step %3d  loss %.3f  accuracy %.2f\n", step, ag_item(loss),
                   accuracy(logits, answer));
        ag_tape_reset(ctx); /* forget this step; parameters and optimiser stay */
    }

    ag_var x, answer;
    ag_attention_trace trace; /* everything the layer computed */
    draw_batch(ctx, &random, &x, &answer);
    ag_attention_forward(&attn, x, &trace);
    printf("\nWhere each token of one sequence looks (a row each): at its mirror image.\n");
    for (int i = 0; i < T * T && ag_value(trace.weights); i++)
        printf("%6.2f%s", ag_tensor_at(ag_value(trace.weights), i), i % T == T - 1 ? "\n" : "");
    return ag_context_finish(ctx); /* frees everything; an error is printed, and makes it 1 */
}
