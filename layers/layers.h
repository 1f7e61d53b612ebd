/* attograd, the layers floor: what has parameters.
 *
 *   1  parameters and how they start
 *   2  linear
 *   3  attention
 *   4  embeddings: tokens and learned positions
 *   5  norms
 *   6  feed-forward
 *   7  the transformer block
 *   8  the transformer
 *   9  optimisers
 */
#ifndef AG_LAYERS_H
#define AG_LAYERS_H

#include "../autograd/autograd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1  Parameters ----------------------------------------------------- */

/* The ordered, named list of what learns. Layers register into it; optimisers
 * and gradient checks walk it. It lives until the context ends. */
typedef struct ag_params ag_params;

AG_API ag_params *ag_params_new(ag_context *context);

/* How a parameter starts. The numbers depend on the context's seed and the
 * parameter's name, not on the order in which parameters are made. For a
 * matrix [d_in, d_out], fan_in is d_in and fan_out d_out; leading axes are
 * stacked matrices; a vector [d] has both equal to d. */
typedef enum ag_init_kind {
    AG_INIT_LECUN_NORMAL = 0, /* N(0, 1 / fan_in) */
    AG_INIT_ZEROS,
    AG_INIT_CONSTANT,       /* value */
    AG_INIT_NORMAL,         /* N(0, value^2) */
    AG_INIT_UNIFORM,        /* U(-value, value) */
    AG_INIT_XAVIER_NORMAL,  /* N(0, 2 / (fan_in + fan_out)); Glorot, Bengio 2010 */
    AG_INIT_XAVIER_UNIFORM, /* U(-a, a), a = sqrt(6 / (fan_in + fan_out)) */
    AG_INIT_HE_NORMAL,      /* N(0, 2 / fan_in); He et al. 2015 */
    AG_INIT_HE_UNIFORM      /* U(-a, a), a = sqrt(6 / fan_in) */
} ag_init_kind;

typedef struct ag_init {
    ag_init_kind kind;
    double value;
} ag_init;

/* A new parameter called prefix.name (or name, if prefix is NULL or ""), of
 * the context's dtype. AG_ERR_ARGUMENT: a name that the list already has. */
AG_API ag_var ag_params_add(ag_params *params, const char *prefix, const char *name, ag_shape shape,
                            ag_init init);

AG_API int ag_params_count(const ag_params *params);
AG_API ag_var ag_params_at(const ag_params *params, int i);
AG_API ag_var ag_params_find(const ag_params *params, const char *name); /* absent if not there */
AG_API int64_t ag_params_size(const ag_params *params);                  /* numbers in all */
AG_API void ag_params_clear_gradients(ag_params *params);

/* The Euclidean norm of all gradients together; absent ones count as 0. NaN
 * while there is an error. */
AG_API double ag_params_gradient_norm(const ag_params *params);

/* Where that norm exceeds max_norm, multiplies every gradient by max_norm /
 * norm. Returns the norm before. A norm that is not finite is an error
 * (AG_ERR_ARGUMENT), and so is max_norm <= 0; nothing is changed then. */
AG_API double ag_params_clip_gradients(ag_params *params, double max_norm);

/* ---- 2  Linear --------------------------------------------------------- */

typedef struct ag_linear_options {
    int64_t d_in, d_out;
    bool bias;    /* default none */
    ag_init init; /* of the weight; default LECUN_NORMAL */
} ag_linear_options;

/* y = x W + b: x [.., d_in], W [d_in, d_out], b [d_out]. Parameters w and b. */
typedef struct ag_linear {
    ag_linear_options options;
    ag_var w, b; /* b is absent without bias */
} ag_linear;

AG_API bool ag_linear_init(ag_linear *linear, ag_params *params, const char *name,
                           const ag_linear_options *options);
AG_API ag_var ag_linear_forward(const ag_linear *linear, ag_var x);

/* ---- 3  Attention ------------------------------------------------------ */

/* What makes weights of a row of n scores. A masked score gets weight 0 with
 * each of them; n counts the masked ones too. */
typedef enum ag_normalizer {
    AG_SOFTMAX = 0,
    AG_SIGMOID, /* 1 / (1 + exp(log n - s)): sums to about 1 where scores are small */
    AG_RELU,    /* max(s, 0) / n */
    AG_LINEAR   /* s itself: linear attention */
} ag_normalizer;

typedef struct ag_attention_options {
    int64_t d_in;     /* size of a token */
    int64_t d_memory; /* of a token that keys and values come from; default d_in */
    int64_t d_k;      /* size of a query and key, per head */
    int64_t d_v;      /* size of a value, per head */
    int64_t heads;    /* default 1 */
    int64_t d_out;    /* with output projection: its size; default none */
    bool bias;        /* of q, k, v (and the projection); default none. Softmax undoes b_k */
    bool causal;      /* token i attends to tokens 0 .. i only, or, of s tokens to a
                       * memory of t, to 0 .. i + t - s; default all */
    double scale;     /* of the scores; default (0) 1 / sqrt(d_k); 1 is the tutorial's */
    ag_normalizer normalizer;
    ag_init init; /* of the matrices; default LECUN_NORMAL */
} ag_attention_options;

/* Every token a_i gives a query q_i, a key k_i and a value v_i; alpha_ij =
 * q_i . k_j says how much token i cares for token j; normalised over j they
 * weight the values: b_i = sum_j alpha'_ij v_j. With one token a row:
 *
 *   Q = X W_q   K = X W_k   V = X W_v        X [.., t, d_in], Q, K [.., t, d_k], V [.., t, d_v]
 *   S = scale Q K^T                          [.., t, t], row i: the scores of query i
 *   A = normalizer of each row of S          [.., t, t]
 *   O = A V                                  [.., t, d_v]
 *
 * Only W_q, W_k and W_v learn, unless biases (b_q, b_k, b_v) or an output
 * projection (w_o, b_o) are asked for. With h heads the columns of W_q hold
 * one head after the other, the heads run side by side, and their outputs
 * are joined: O [.., t, h d_v].
 *
 * In cross-attention keys and values come from another sequence, a memory M
 * [.., t, d_memory]: K = M W_k, V = M W_v, while X has s tokens; scores are [.., s, t]. */
typedef struct ag_attention {
    ag_attention_options options;
    ag_var w_q, w_k, w_v,
        w_o; /* [d_in, h d_k], [d_memory, h d_k], [d_memory, h d_v], [h d_v, d_out] */
    ag_var b_q, b_k, b_v, b_o;
} ag_attention;

/* Everything it computed: q [.., h, s, d_k], k [.., h, t, d_k], v [.., h, t, d_v], scores
 * (scaled and masked) and weights [.., h, s, t], mixed = weights v [.., h, s, d_v]. Without
 * the axis h for one head; s = t where the memory is x. */
typedef struct ag_attention_trace {
    ag_var q, k, v, scores, weights, mixed;
} ag_attention_trace;

/* Which scores count. Absent members mask nothing. */
typedef struct ag_attention_mask {
    ag_var lengths;  /* i64 [..], x's leading axes: keys from lengths on are masked */
    ag_var additive; /* broadcast to the scores and added to them; -inf masks. It
                      * may ask for a gradient itself */
} ag_attention_mask;

/* AG_ERR_ARGUMENT: d_in, d_k or d_v below 1, other sizes negative, an unknown
 * normalizer, a scale that is not finite. After an error the layer is empty,
 * and the list of parameters as it was. */
AG_API bool ag_attention_init(ag_attention *attention, ag_params *params, const char *name,
                              const ag_attention_options *options);

/* x [.., t, d_in] -> [.., t, h d_v] or [.., t, d_out]. trace may be NULL: without one, with
 * softmax and no additive mask, the scores are never held (see ag_attend), memory grows with
 * t instead of t^2, and the last bits differ. */
AG_API ag_var ag_attention_forward(const ag_attention *attention, ag_var x,
                                   ag_attention_trace *trace);
AG_API ag_var ag_attention_forward_masked(const ag_attention *attention, ag_var x,
                                          const ag_attention_mask *mask, ag_attention_trace *trace);

/* x [.., s, d_in] looks into memory [.., t, d_memory], of the same leading axes: -> [.., s, h d_v]
 * or [.., s, d_out]. Masks are about the memory's tokens. mask and trace may be NULL.
 * AG_ERR_SHAPE: sizes or leading axes that do not fit. */
AG_API ag_var ag_attention_forward_cross(const ag_attention *attention, ag_var x, ag_var memory,
                                         const ag_attention_mask *mask, ag_attention_trace *trace);

/* ---- 4  Embeddings ----------------------------------------------------- */

typedef struct ag_embedding_options {
    int64_t count; /* how many things: tokens of a vocabulary, positions */
    int64_t d;     /* numbers for each of them */
    ag_init init;  /* default N(0, 0.02^2), as in GPT-2; LECUN_NORMAL, which is the
                    * zero of ag_init, stands for it: count is no fan-in */
} ag_embedding_options;

/* A table of what is known of each of count things: y_k = row index_k of w.
 * Parameter w [count, d]. */
typedef struct ag_embedding {
    ag_embedding_options options;
    ag_var w;
} ag_embedding;

/* AG_ERR_ARGUMENT: count or d below 1. */
AG_API bool ag_embedding_init(ag_embedding *embedding, ag_params *params, const char *name,
                              const ag_embedding_options *options);

/* indices i64 [..] -> [.., d]. AG_ERR_INDEX: one outside of 0 .. count - 1. */
AG_API ag_var ag_embedding_forward(const ag_embedding *embedding, ag_var indices);

/* Learned positions: adds row i of w to token i of x [.., t, d].
 * AG_ERR_SHAPE: another d, or more than count tokens. */
AG_API ag_var ag_embedding_add_positions(const ag_embedding *positions, ag_var x);

/* ---- 5  Norms ---------------------------------------------------------- */

typedef enum ag_norm_kind {
    AG_LAYER_NORM = 0, /* (x - mean x) / sqrt(var x + epsilon) gain + bias; see ag_layer_norm */
    AG_RMS_NORM        /* x / sqrt(mean x^2 + epsilon) gain; see ag_rms_norm */
} ag_norm_kind;

typedef struct ag_norm_options {
    int64_t d; /* size of the last axis */
    ag_norm_kind kind;
    double epsilon; /* default 1e-5 */
} ag_norm_options;

/* Parameters gain [d], ones at first, and, of a layer norm, bias [d], zeros. */
typedef struct ag_norm {
    ag_norm_options options;
    ag_var gain, bias; /* bias is absent in an RMS norm */
} ag_norm;

/* AG_ERR_ARGUMENT: d below 1, an unknown kind, an epsilon that is negative or
 * not finite. */
AG_API bool ag_norm_init(ag_norm *norm, ag_params *params, const char *name,
                         const ag_norm_options *options);
AG_API ag_var ag_norm_forward(const ag_norm *norm, ag_var x); /* [.., d] -> [.., d] */

/* ---- 6  Feed-forward --------------------------------------------------- */

typedef enum ag_activation { AG_GELU = 0, AG_GELU_TANH, AG_RELU_ACTIVATION, AG_SILU } ag_activation;

typedef struct ag_feed_forward_options {
    int64_t d;
    int64_t d_ff; /* size of the hidden layer; default 4 d */
    ag_activation activation;
    bool no_bias;
    ag_init init; /* of the matrices; default LECUN_NORMAL */
} ag_feed_forward_options;

/* Every token by itself: y = activation(x W_1 + b_1) W_2 + b_2 with
 * W_1 [d, d_ff], b_1 [d_ff], W_2 [d_ff, d], b_2 [d] (Vaswani et al. 2017).
 * Parameters w_1, b_1, w_2, b_2. */
typedef struct ag_feed_forward {
    ag_feed_forward_options options;
    ag_var w_1, b_1, w_2, b_2; /* the biases are absent with no_bias */
} ag_feed_forward;

/* AG_ERR_ARGUMENT: d below 1, a negative d_ff, an unknown activation. */
AG_API bool ag_feed_forward_init(ag_feed_forward *layer, ag_params *params, const char *name,
                                 const ag_feed_forward_options *options);
AG_API ag_var ag_feed_forward_forward(const ag_feed_forward *layer,
                                      ag_var x); /* [.., d] likewise */

/* ---- 7  The transformer block ------------------------------------------ */

typedef struct ag_block_options {
    int64_t d;     /* size of a token */
    int64_t heads; /* default 1; d_k = d_v = d / heads */
    int64_t d_ff;  /* default 4 d */
    bool causal;   /* token i attends to tokens 0 .. i only; default all */
    ag_norm_kind norm;
    ag_activation activation;
    ag_init init;          /* of the matrices; default LECUN_NORMAL */
    double residual_scale; /* attn.w_o and ff.w_2, whose results are added to x, start
                            * so many times as large; default 1 */
} ag_block_options;

/* The pre-norm transformer block (Vaswani et al. 2017; the norms in front as
 * in GPT-2, Radford et al. 2019):
 *
 *   h = x + attention(norm_1(x))
 *   y = h + feed_forward(norm_2(h))        x, h, y [.., t, d]
 *
 * Parameters norm_1.*, attn.w_q, w_k, w_v and w_o (no biases there), norm_2.*,
 * ff.*. */
typedef struct ag_block {
    ag_block_options options;
    ag_norm norm_1, norm_2;
    ag_attention attention;
    ag_feed_forward feed_forward;
} ag_block;

/* AG_ERR_ARGUMENT: d below 1, heads that do not divide it, and what the parts
 * refuse. After an error the block is empty and the list as it was. */
AG_API bool ag_block_init(ag_block *block, ag_params *params, const char *name,
                          const ag_block_options *options);

/* mask and trace are those of the attention; either may be NULL. */
AG_API ag_var ag_block_forward(const ag_block *block, ag_var x, const ag_attention_mask *mask,
                               ag_attention_trace *trace);

/* ---- 8  The transformer ------------------------------------------------ */

typedef struct ag_transformer_options {
    int64_t vocab;      /* how many tokens there are */
    int64_t max_tokens; /* in a sequence */
    int64_t d_model;    /* size of a token */
    int64_t heads;      /* default 1; they divide d_model */
    int64_t blocks;
    int64_t d_ff;       /* default 4 d_model */
    bool bidirectional; /* default causal */
    ag_norm_kind norm;
    ag_activation activation;
} ag_transformer_options;

/* A language model: what comes after (or, bidirectional, stands at) each token.
 *
 *   x = tokens.w[token] + positions.w[0 .. t - 1]      [.., t, d_model]
 *   x = block(x)                                       blocks of them
 *   logits = norm(x) W                                 [.., t, vocab], W = unembedding.w
 *
 * Parameters tokens.w, positions.w, block.0.*, block.1.*, .., norm.*,
 * unembedding.w (not tied to tokens.w). Matrices and embeddings start as
 * N(0, 0.02^2); attn.w_o and ff.w_2 of each block as N(0, 0.02^2 / (2 blocks)),
 * because 2 blocks of their results are added up (GPT-2). */
typedef struct ag_transformer {
    ag_transformer_options options;
    ag_embedding tokens, positions;
    ag_block *blocks; /* options.blocks of them; they live until the context ends */
    ag_norm norm;
    ag_linear unembedding;
} ag_transformer;

/* name may be "". AG_ERR_ARGUMENT: a size below 1, d_model that is no multiple
 * of heads, and what the parts refuse. After an error the model is empty and
 * the list as it was. */
AG_API bool ag_transformer_init(ag_transformer *model, ag_params *params, const char *name,
                                const ag_transformer_options *options);

/* tokens i64 [.., t] -> logits [.., t, vocab]. AG_ERR_SHAPE: t above max_tokens.
 * AG_ERR_INDEX: a token outside of 0 .. vocab - 1. */
AG_API ag_var ag_transformer_forward(const ag_transformer *model, ag_var tokens);

/* The same with a mask for every block's attention, and with what each block's
 * attention computed: traces has room for options.blocks. Either may be NULL. */
AG_API ag_var ag_transformer_forward_masked(const ag_transformer *model, ag_var tokens,
                                            const ag_attention_mask *mask,
                                            ag_attention_trace *traces);

/* ---- 9  Optimisers ----------------------------------------------------- */

/* An optimiser lives until the context ends. */
typedef struct ag_optimizer ag_optimizer;

typedef struct ag_sgd_options {
    double lr;       /* required */
    double momentum; /* u = momentum u + g; p -= lr u; default 0 */
} ag_sgd_options;

/* Kingma, Ba 2015:  m = beta1 m + (1 - beta1) g     v = beta2 v + (1 - beta2) g^2
 *   p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 * with t the number of this parameter's updates. An option of 0 stands for its
 * default. */
typedef struct ag_adam_options {
    double lr;           /* required */
    double beta1, beta2; /* default 0.9, 0.999 */
    double epsilon;      /* default 1e-8 */
    double weight_decay; /* ag_adamw_new only, default 0.01: p -= lr weight_decay p
                          * (Loshchilov, Hutter 2019). A negative one stands for 0. ag_adam_new
                          * refuses one above 0. */
} ag_adam_options;

/* AG_ERR_ARGUMENT: lr <= 0, a beta or momentum outside [0, 1), a negative epsilon. */
AG_API ag_optimizer *ag_sgd_new(ag_params *params, const ag_sgd_options *options);
AG_API ag_optimizer *ag_adam_new(ag_params *params, const ag_adam_options *options);
AG_API ag_optimizer *ag_adamw_new(ag_params *params, const ag_adam_options *options);

/* Moves every parameter that has a gradient and clears those gradients.
 * AG_ERR_STATE if none has one: ag_backward was forgotten. */
AG_API bool ag_optimizer_step(ag_optimizer *optimizer);

AG_API double ag_optimizer_lr(const ag_optimizer *optimizer);
AG_API bool ag_optimizer_set_lr(ag_optimizer *optimizer, double lr); /* lr >= 0 */
AG_API int64_t ag_optimizer_steps(const ag_optimizer *optimizer);

/* A weight decay of its own for one parameter, from the next step on.
 * AG_ERR_ARGUMENT: the optimiser is not AdamW, the parameter is not in its list,
 * weight_decay is negative or not finite. */
AG_API bool ag_optimizer_set_weight_decay(ag_optimizer *optimizer, ag_var parameter,
                                          double weight_decay);

/* The usual rule for a transformer: of its parameters, only the matrices that
 * multiply (attention, feed-forward, unembedding) decay; embeddings, gains and
 * biases do not. The same errors. */
AG_API bool ag_transformer_decay_matrices_only(const ag_transformer *model,
                                               ag_optimizer *optimizer);

#ifdef __cplusplus
}
#endif

#endif
