/* attograd, the autograd floor: what has a gradient.
 *
 *   1  variables: making them, looking into them
 *   2  backward: gradients, of any order
 *   3  the operations
 *   4  an operation of your own
 *   5  gradient checks
 *   6  looking at the tape
 *
 * Conventions of section 3. Shapes are row-major; ".." stands for any number
 * of leading axes. Floats mean AG_F32, AG_F64 or AG_C128; the operands of an
 * operation have one dtype (ag_cast converts), but f64 next to c128 becomes
 * c128. "Broadcast" is NumPy's: aligned at the last axis, sizes equal or 1, and
 * the gradient of a broadcast operand has that operand's own shape. Negative
 * axes count from the end. dy is the gradient of the result, dx that of the
 * operand. Every operation can give
 *   AG_ERR_ARGUMENT  a NULL or poisoned variable, variables of two contexts
 *   AG_ERR_STATE     a variable of a step that was reset
 *   AG_ERR_DTYPE     a dtype the operation does not take, or two that differ
 *   AG_ERR_MEMORY    memory ran out
 * and what else is named beside it. After an error it returns a poisoned
 * variable.
 */
#ifndef AG_AUTOGRAD_H
#define AG_AUTOGRAD_H

#include "../tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1  Variables ------------------------------------------------------ */

/* A tensor with a story: its value, the operation that made it, its gradient.
 * This is a handle, passed by value. A variable of a step (all but parameters)
 * lives until ag_tape_reset; a handle from before is recognised and refused.
 * (Generations are counted in 32 bits: a handle kept through exactly 2^32 of
 * them would be taken for a new one. Resets count, and so do evaluations by
 * ag_gradcheck, failed operations and backward rules of your own.) */
typedef struct ag_var {
    ag_context *context;
    uint32_t index;
    uint32_t generation;
} ag_var;

/* The absent variable, for optional arguments. */
#ifdef __cplusplus
#define AG_NONE (ag_var())
#else
#define AG_NONE ((ag_var){ NULL, 0, 0 })
#endif
AG_API bool ag_is_none(ag_var v);

/* True if v stands for a value: not absent, not poisoned, not of a past step. */
AG_API bool ag_is_valid(ag_var v);

/* New variables of this step, without a gradient of their own. dtype is the
 * context's unless it is named. */
AG_API ag_var ag_zeros(ag_context *context, ag_shape shape);
AG_API ag_var ag_full(ag_context *context, ag_shape shape, double value);
AG_API ag_var ag_scalar(ag_context *context, double value); /* rank 0 */
AG_API ag_var ag_uniform(ag_context *context, ag_random *random, ag_shape shape, double low,
                         double high);
AG_API ag_var ag_normal(ag_context *context, ag_random *random, ag_shape shape);
AG_API ag_var ag_arange(ag_context *context, int64_t end); /* i64: 0 .. end - 1 */

/* From doubles in row-major order, converted to the context's dtype:
 * ag_constant(ctx, AG_SHAPE(2, 2), (double[]){ 1, 2, 3, 4 }). */
AG_API ag_var ag_constant(ag_context *context, ag_shape shape, const double *values);

/* From integers in row-major order, as AG_I64: indices and labels. */
AG_API ag_var ag_indices(ag_context *context, ag_shape shape, const int64_t *values);

/* A copy of any tensor; its dtype is kept. */
AG_API ag_var ag_from_tensor(ag_context *context, const ag_tensor *tensor);

/* Asks for the gradient of a leaf (a variable that no operation made).
 * Returns it. AG_ERR_STATE for the result of an operation, AG_ERR_DTYPE for i64. */
AG_API ag_var ag_require_gradient(ag_var leaf);

/* A variable that stays until the context ends and asks for its gradient:
 * what learns. Zeros. dtype AG_DEFAULT_DTYPE is the context's. name is copied
 * and may be NULL. (A layer makes its parameters through ag_params instead,
 * so that optimisers find them.) */
AG_API ag_var ag_parameter(ag_context *context, const char *name, ag_dtype dtype, ag_shape shape);

/* The value, or NULL (with the error recorded) if there is none. Its memory
 * goes when the variable goes. */
AG_API const ag_tensor *ag_value(ag_var v);

/* The value of a leaf, to be written to. This counts as a change: a backward
 * through anything computed from the old value is refused (AG_ERR_STATE). Ask
 * again for each writing: one through a pointer that was kept is not noticed. */
AG_API ag_tensor *ag_value_mutable(ag_var leaf);

/* Writes values, in row-major order, into a leaf. */
AG_API bool ag_assign(ag_var leaf, const double *values);

/* Reads all values, in row-major order: room for as many as v has elements. AG_ERR_DTYPE: v is
 * c128. */
AG_API bool ag_read(ag_var v, double *values);

/* The gradient, or NULL where none was computed, which is not zero (or where
 * there is an error). */
AG_API const ag_tensor *ag_gradient(ag_var v);

/* A single number; NaN if v does not have one element (AG_ERR_SHAPE), or is c128
 * (AG_ERR_DTYPE). */
AG_API double ag_item(ag_var v);

AG_API ag_shape ag_shape_of(ag_var v); /* rank -1 if v is not valid */
AG_API ag_dtype ag_dtype_of(ag_var v);
AG_API bool ag_requires_gradient(ag_var v);
AG_API const char *ag_name(ag_var v); /* "" without a name */

/* Names a variable, for messages and pictures. The text is copied. Returns v. */
AG_API ag_var ag_set_name(ag_var v, const char *name);

/* "attn.w_q [16,8]" into text, which is returned: how messages call v. */
AG_API char *ag_describe(ag_var v, char *text, size_t size);

/* Prints name, shape and numbers. */
AG_API void ag_print(ag_var v, FILE *file);

/* ---- 2  Backward ------------------------------------------------------- */

/* Forgets this step: every variable but the parameters, and the tape. */
AG_API void ag_tape_reset(ag_context *context);

/* Adds d loss / d v to the gradient of each parameter and leaf that asks for
 * one, and of each variable named to ag_retain_gradient. loss has one element.
 * On error nothing has changed.
 * AG_ERR_SHAPE: loss has several elements (see ag_backward_from).
 * AG_ERR_STATE: backward from this loss was already run; a value that is
 * needed was changed since; loss depends on nothing that asks for a gradient. */
AG_API bool ag_backward(ag_var loss);

/* The same for a result of any shape and the gradient that arrives there (its
 * cotangent, of the same shape, left unchanged): adds cotangent^T d y / d v. */
AG_API bool ag_backward_from(ag_var y, ag_var cotangent);

/* Keep the gradient of an operation's result in the backwards to come. Returns v. */
AG_API ag_var ag_retain_gradient(ag_var v);

/* Makes the gradient absent. */
AG_API void ag_clear_gradient(ag_var v);

enum { AG_CREATE_GRAPH = 2 };

/* gradients[i] = d y / d inputs[i] as new variables, zeros where y does not
 * depend on inputs[i]; y has one element. Nothing is accumulated, it may be
 * called again, and gradients may be the array of the inputs. With
 * AG_CREATE_GRAPH the gradients are themselves recorded and can be
 * differentiated: that is what second order needs (outside of no-grad regions).
 * AG_ERR_STATE: an input that does not ask for a gradient.
 * AG_ERR_ARGUMENT: an unknown flag. */
AG_API bool ag_grad(ag_var y, const ag_var *inputs, int n, ag_var *gradients, unsigned flags);

/* The same from a cotangent of y's shape. */
AG_API bool ag_grad_from(ag_var y, ag_var cotangent, const ag_var *inputs, int n, ag_var *gradients,
                         unsigned flags);

/* Between these two, operations compute but are not recorded. They nest. */
AG_API void ag_no_grad_begin(ag_context *context);
AG_API void ag_no_grad_end(ag_context *context);

/* The same value as a constant: no gradient flows through. Copies nothing. */
AG_API ag_var ag_detach(ag_var x);

/* ---- 3  The operations ------------------------------------------------- */

/* Two operands, with broadcasting. AG_ERR_SHAPE if they do not fit. */
AG_API ag_var ag_add(ag_var a, ag_var b);
AG_API ag_var ag_sub(ag_var a, ag_var b);
AG_API ag_var ag_mul(ag_var a, ag_var b);
AG_API ag_var ag_div(ag_var a, ag_var b);
AG_API ag_var ag_maximum(ag_var a, ag_var b); /* where equal, each gets dy / 2 */
AG_API ag_var ag_minimum(ag_var a, ag_var b); /* likewise */

/* With a number. */
AG_API ag_var ag_scale(ag_var x, double factor);  /* factor x */
AG_API ag_var ag_shift(ag_var x, double summand); /* x + summand */
AG_API ag_var ag_pow(ag_var x, double exponent);  /* dx = dy exponent x^(exponent - 1) */

/* One operand, element by element. Where a derivative does not exist, the
 * one used is named. Outside of a function's domain the result is NaN or
 * infinite, as in C. */
AG_API ag_var ag_neg(ag_var x);
AG_API ag_var ag_square(ag_var x);
AG_API ag_var ag_sqrt(ag_var x);
AG_API ag_var ag_rsqrt(ag_var x);      /* 1 / sqrt x */
AG_API ag_var ag_reciprocal(ag_var x); /* 1 / x */
AG_API ag_var ag_exp(ag_var x);
AG_API ag_var ag_log(ag_var x);
AG_API ag_var ag_sin(ag_var x);
AG_API ag_var ag_cos(ag_var x);
AG_API ag_var ag_tanh(ag_var x);
AG_API ag_var ag_erf(ag_var x);
AG_API ag_var ag_erfc(ag_var x);      /* 1 - erf x, without cancellation */
AG_API ag_var ag_sigmoid(ag_var x);   /* 1 / (1 + exp -x), without overflow */
AG_API ag_var ag_softplus(ag_var x);  /* log(1 + exp x), without overflow */
AG_API ag_var ag_relu(ag_var x);      /* max(x, 0); derivative 0 at 0 */
AG_API ag_var ag_gelu(ag_var x);      /* x (1 + erf(x / sqrt 2)) / 2 */
AG_API ag_var ag_gelu_tanh(ag_var x); /* x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 */
AG_API ag_var ag_silu(ag_var x);      /* x sigmoid x */
AG_API ag_var ag_abs(ag_var x);       /* derivative 0 at 0 */
AG_API ag_var ag_sign(ag_var x);      /* -1, 0 or 1; no gradient */

/* 1 where it is so, else 0, in the operands' dtype; no gradient. i64 too. */
AG_API ag_var ag_equal(ag_var a, ag_var b);
AG_API ag_var ag_greater(ag_var a, ag_var b);

/* condition ? a : b, all three broadcast. condition is of any dtype, true
 * where not 0, and gets no gradient. */
AG_API ag_var ag_where(ag_var condition, ag_var a, ag_var b);

/* value where mask (broadcast to x, any dtype) is not 0, else x. */
AG_API ag_var ag_masked_fill(ag_var x, ag_var mask, double value);

/* To another float dtype, with gradient, or to or from i64, without. From c128 there is none. */
AG_API ag_var ag_cast(ag_var x, ag_dtype dtype);

/* Reductions over one axis, or over all with AG_ALL. The axis disappears, or
 * stays with size 1 under AG_KEEP_DIM. The .._over forms take n axes.
 * AG_ERR_INDEX: no such axis, or one named twice. AG_ERR_SHAPE: maximum over
 * no elements. An empty sum is 0, mean NaN, logsumexp -inf. */
#define AG_ALL (-1000)
enum { AG_KEEP_DIM = 1 };
AG_API ag_var ag_sum(ag_var x, int axis, unsigned flags);
AG_API ag_var ag_mean(ag_var x, int axis, unsigned flags);
AG_API ag_var ag_max(ag_var x, int axis, unsigned flags);       /* equal winners share dy evenly */
AG_API ag_var ag_logsumexp(ag_var x, int axis, unsigned flags); /* log sum exp x; -inf of -infs */
AG_API ag_var ag_sum_over(ag_var x, const int *axes, int n, unsigned flags);
AG_API ag_var ag_mean_over(ag_var x, const int *axes, int n, unsigned flags);
AG_API ag_var ag_max_over(ag_var x, const int *axes, int n, unsigned flags);
AG_API ag_var ag_logsumexp_over(ag_var x, const int *axes, int n, unsigned flags);

/* The index of the first maximum along an axis, as i64; no gradient. */
AG_API ag_var ag_argmax(ag_var x, int axis);

/* y_i = x_0 + .. + x_i along an axis. */
AG_API ag_var ag_cumsum(ag_var x, int axis);

/* [.., m, k] x [.., k, n] -> [.., m, n], the leading axes broadcast:
 * c_ij = sum_p a_ip b_pj; da = dc b^T, db = a^T dc.
 * AG_ERR_SHAPE: rank below 2, inner sizes differ, leading axes do not fit. */
AG_API ag_var ag_matmul(ag_var a, ag_var b);

/* x w + b, and x w + b + residual, in one pass: x [.., k], w [k, n], b [n] or
 * AG_NONE, residual [.., n] -> [.., n]. dx = dy w^T, dw = x^T dy over all rows,
 * db is the sum of the rows of dy, dresidual = dy.
 * AG_ERR_SHAPE: any of these shapes does not fit the others. */
AG_API ag_var ag_affine(ag_var x, ag_var w, ag_var b);
AG_API ag_var ag_affine_add(ag_var x, ag_var w, ag_var b, ag_var residual);

/* gelu(x w + b), the same numbers in less time and memory: what is kept for backward
 * is not a = x w + b but the slope of gelu there. da = gelu'(a) dy, then as above.
 * ag_backward uses the slope up; from a second loss it is computed again. */
AG_API ag_var ag_affine_gelu(ag_var x, ag_var w, ag_var b);

/* sum of a_i b_i over all elements of two variables of one shape; rank 0. */
AG_API ag_var ag_dot(ag_var a, ag_var b);

/* [m] and [n] -> [m, n]: a_i b_j. */
AG_API ag_var ag_outer(ag_var a, ag_var b);

/* Shapes. Views where the strides allow it; see tensor.h for each. */
AG_API ag_var ag_permute(ag_var x, const int *order, int n);
AG_API ag_var ag_transpose(ag_var x, int axis_a, int axis_b);
AG_API ag_var ag_reshape(ag_var x, ag_shape shape); /* one size may be -1 */
AG_API ag_var ag_slice(ag_var x, int axis, int64_t start, int64_t stop, int64_t step);
AG_API ag_var ag_flip(ag_var x, int axis);
AG_API ag_var ag_broadcast_to(ag_var x, ag_shape shape);
AG_API ag_var ag_squeeze(ag_var x, int axis);   /* removes an axis of size 1 */
AG_API ag_var ag_unsqueeze(ag_var x, int axis); /* a new axis of size 1 before axis */
AG_API ag_var ag_contiguous(ag_var x);          /* x itself, or a row-major copy */

/* The sum over the axes along which shape would be broadcast to x: the
 * opposite of ag_broadcast_to. */
AG_API ag_var ag_sum_to(ag_var x, ag_shape shape);

/* Joins n variables along an axis; their other sizes are equal. n >= 1. */
AG_API ag_var ag_concat(const ag_var *x, int n, int axis);
AG_API ag_var ag_stack(const ag_var *x, int n, int axis); /* along a new axis */

/* Rows of table [v, ..] at indices (i64, any shape): [indices.., ..], an
 * embedding lookup. AG_ERR_INDEX for an index outside 0 .. v - 1. */
AG_API ag_var ag_gather_rows(ag_var table, ag_var indices);

/* The same plus z, which broadcasts to it, in one pass; dz = dy, summed where z was
 * broadcast. AG_ERR_SHAPE: z does not broadcast. AG_ERR_DTYPE: not of one float dtype. */
AG_API ag_var ag_gather_rows_add(ag_var table, ag_var indices, ag_var z);

/* The opposite: zeros [v, ..] to which row k of rows [indices.., ..] is added
 * at indices_k. */
AG_API ag_var ag_scatter_add_rows(ag_var rows, ag_var indices, int64_t v);

/* softmax p_i = exp(x_i - max x) / sum_j exp(x_j - max x) along an axis, and
 * its logarithm. Where every x is -inf, p is 0 and so is its gradient, and
 * log-softmax is -inf. */
AG_API ag_var ag_softmax(ag_var x, int axis);
AG_API ag_var ag_log_softmax(ag_var x, int axis);

/* y = (x - mean x) / sqrt(var x + epsilon) gain + bias along the last axis, of
 * size d, var the mean of (x - mean x)^2 (Ba, Kiros, Hinton 2016). gain and bias
 * are [d]; either may be absent (AG_NONE). epsilon 0 stands for 1e-5.
 * AG_ERR_SHAPE: gain or bias does not fit. AG_ERR_ARGUMENT: epsilon is negative
 * or not finite. */
AG_API ag_var ag_layer_norm(ag_var x, ag_var gain, ag_var bias, double epsilon);

/* y = x / sqrt(mean x^2 + epsilon) gain (Zhang, Sennrich 2019); otherwise the same. */
AG_API ag_var ag_rms_norm(ag_var x, ag_var gain, double epsilon);

typedef struct ag_attend_options {
    int64_t heads;  /* default 1 */
    double scale;   /* of the scores; default (0) 1 / sqrt(d) */
    bool causal;    /* query i sees the keys j <= i + t - s: the last one sees all */
    ag_var lengths; /* i64 [..], the leading axes: keys from lengths on are not seen; default all */
} ag_attend_options;

/* Attention: each query gathers from the values, by how well their keys fit it. Of one head,
 * q [.., s, d], k [.., t, d], v [.., t, d_v] -> y [.., s, d_v]:
 *
 *   S_ij = scale q_i . k_j     P_i = softmax of the S_ij that query i sees     y_i = sum_j P_ij v_j
 *
 *   dv = P^T dy    dP = dy v^T    dS_ij = P_ij (dP_ij - sum_k P_ik dP_ik)
 *   dq = scale dS k    dk = scale dS^T q
 *
 * With h heads the last axes are h d and h d_v, one head after the other, each for itself. Where
 * a query sees no key, or all its scores are -inf, y is 0, and so are its gradients. Keys beyond
 * lengths may hold anything; those that causal hides should be finite, for 0 times them is added.
 * Memory grows with s + t, not with their product (Milakov, Gimelshein 2018, arXiv 1805.02867;
 * Dao et al. 2022, arXiv 2205.14135). options may be NULL.
 * AG_ERR_SHAPE: sizes or leading axes that differ, heads that do not divide the last axes, no axis
 * left for the heads of rank 8. AG_ERR_DTYPE: dtypes that differ, lengths that are not i64.
 * AG_ERR_INDEX: a length outside of 0 .. t. AG_ERR_ARGUMENT: heads below 0, a scale that is
 * not finite. */
AG_API ag_var ag_attend(ag_var q, ag_var k, ag_var v, const ag_attend_options *options);

typedef enum ag_reduction { AG_MEAN = 0, AG_SUM } ag_reduction;

typedef struct ag_cross_entropy_options {
    bool ignore;          /* leave out the rows labelled .. */
    int64_t ignore_index; /* .. with this */
    ag_reduction reduction;
} ag_cross_entropy_options;

/* -log softmax(logits)[label], logits [.., classes], labels i64 [..]; the
 * mean or sum over the rows that count, 0 if there are none.
 * AG_ERR_INDEX: a label outside 0 .. classes - 1. */
AG_API ag_var ag_cross_entropy(ag_var logits, ag_var labels);
AG_API ag_var ag_cross_entropy_with(ag_var logits, ag_var labels,
                                    const ag_cross_entropy_options *options);

/* -t log s(x) - (1 - t) log(1 - s(x)) with s the sigmoid, computed as
 * t softplus(-x) + (1 - t) softplus(x): the mean or sum over all elements. targets
 * have the shape of logits, values in [0, 1]. */
AG_API ag_var ag_binary_cross_entropy(ag_var logits, ag_var targets, ag_reduction reduction);

/* The mean of (x - target)^2 over all elements, of two variables of one shape. */
AG_API ag_var ag_mean_squared_error(ag_var x, ag_var target);

/* ---- 4  An operation of your own --------------------------------------- */

/* One application of an operation: its inputs, its output, its options. */
typedef struct ag_node ag_node;

/* A backward rule gets dy, the gradient of the output, and sets dx[i], the gradient of
 * input i, in that input's shape, where ag_node_needs(node, i). It is written with the
 * operations above, so that it can be differentiated again. On trouble call ag_node_fail
 * and return. */
typedef void (*ag_rule)(const ag_node *node, ag_var dy, ag_var *dx);

/* forward reads its inputs and makes its output; on trouble likewise. An operation
 * without vjp has no gradient. vjp_fused, if there is one, computes the same as vjp with
 * kernels and stands in where nothing is being recorded. */
typedef struct ag_op {
    const char *name;
    void (*forward)(ag_node *node);
    ag_rule vjp, vjp_fused;
    size_t options_size;      /* bytes copied from what ag_apply is given */
    int n_inputs;             /* how many it takes; 0 for any number */
    unsigned constant_inputs; /* bit i: input i gets no gradient, though it may ask for one */
    void (*branches)(const ag_node *node); /* if the function has kinks: after forward, while
                                              a gradient check watches; see ag_note_branch */
    bool complex_form; /* forward takes c128 inputs too: it is written with the operations above,
                          or reads and writes both parts. Without it c128 is refused
                          (AG_ERR_DTYPE, "name: has no complex form"), as it is by erf, erfc, gelu,
                          affine_gelu, and by casts from c128 */
} ag_op;

/* Runs op, which is not one of the library's own, on n >= 1 inputs (without any
 * there is no context, and the result is absent). op must live as long as the context. options may
 * be NULL if options_size is 0. */
AG_API ag_var ag_apply(const ag_op *op, const ag_var *inputs, int n, const void *options);

AG_API ag_context *ag_node_context(const ag_node *node);
AG_API int ag_node_input_count(const ag_node *node);
AG_API ag_var ag_node_input(const ag_node *node, int i);
AG_API const ag_tensor *ag_node_input_value(const ag_node *node, int i);
AG_API ag_var ag_node_output(const ag_node *node);
AG_API const void *ag_node_options(const ag_node *node);

AG_API const ag_op *ag_node_op(const ag_node *node);

/* In a rule: whether the gradient of input i is asked for. */
AG_API bool ag_node_needs(const ag_node *node, int i);

/* In a rule: what has arrived at input i from the operations that ran after this one, in their
 * sum; absent if nothing has. A rule need not care: its dx[i] is added to it. */
AG_API ag_var ag_node_arrived(const ag_node *node, int i);

/* In forward: a new output, its numbers not yet set; NULL on error. */
AG_API ag_tensor *ag_node_new_output(ag_node *node, ag_dtype dtype, ag_shape shape);

/* In forward: the output is this view of an input, or of a variable that
 * forward itself made. AG_ERR_ARGUMENT if it reaches beyond. */
AG_API void ag_node_set_view(ag_node *node, const ag_tensor *view);

/* Records an error as "op: message". Returns false. */
AG_API bool ag_node_fail(const ag_node *node, ag_error error, const char *format, ...)
    AG_PRINTF(3, 4);

/* Tells a gradient check that is under way which way was taken where a function
 * is made of pieces: a function may call it for decisions of its own, and an
 * operation's branches for its operands'. A difference between values that took
 * different ways says nothing about a derivative. */
AG_API void ag_note_branch(ag_context *context, int64_t decision);

/* The library's own operations: a table that tests and tools walk. */
AG_API int ag_op_count(void);
AG_API const ag_op *ag_op_at(int i);
AG_API const ag_op *ag_op_find(const char *name); /* NULL if there is none */

/* In this context another rule takes the place of op's own, fused and recorded, from the next
 * backward on; NULL puts op's own back. Thus a rule for softmax can be tried out with
 * ag_try_rule(ctx, ag_op_find("softmax"), mine), and so can what a check says to a wrong one.
 * The rule may call op->vjp and change what it gives. (The options of the library's operations
 * are their own affair, except that those of scale, shift and pow are their number, a double,
 * and those of attend and cross_entropy are of the types declared above.)
 * AG_ERR_ARGUMENT: op is NULL or has no gradient. AG_ERR_STATE: called from inside of a rule. */
AG_API bool ag_try_rule(ag_context *context, const ag_op *op, ag_rule rule);

/* ---- 5  Gradient checks ------------------------------------------------ */

/* Any function of the inputs, of any result; the same result for the same
 * inputs. It must not reset the tape. */
typedef ag_var (*ag_function)(ag_context *context, const ag_var *inputs, int n, void *user);

/* What a check finds out about an entry, and about the whole. Each numeric derivative
 * comes with a bound on its own error, so that no tolerance has to be guessed. */
typedef enum ag_verdict {
    AG_VERDICT_PASS,         /* the gradient lies within the bound, and the bound is small */
    AG_VERDICT_FAIL,         /* it lies outside; if the bound is wide, outside of four times it */
    AG_VERDICT_INCONCLUSIVE, /* the bound is too wide to say much, or there is none */
    AG_VERDICT_KINK,         /* there is no derivative here; it is a valid subgradient */
    /* about the function as a whole, with the evidence in the report's message */
    AG_VERDICT_NOT_DETERMINISTIC, /* the same inputs gave other results */
    AG_VERDICT_NOT_FINITE,        /* the result holds a NaN or an infinity */
    AG_VERDICT_CHANGES_INPUT,     /* the function writes to its inputs */
    AG_VERDICT_UNCONNECTED,       /* no gradient leads from the result to any input */
    AG_VERDICT_ERROR              /* the function or the call failed */
} ag_verdict;

/* "pass", "fail", "inconclusive", "kink", "not deterministic", .. */
AG_API const char *ag_verdict_name(ag_verdict verdict);

/* Where the numeric derivatives come from. */
typedef enum ag_gradcheck_method {
    AG_GRADCHECK_BOTH = 0,    /* as an option: both of these, if the function has a complex form */
    AG_GRADCHECK_DIFFERENCES, /* (f(x + h) - f(x - h)) / 2 h, refined */
    AG_GRADCHECK_COMPLEX      /* Im f(x + i h) / h with h = 1e-30 */
} ag_gradcheck_method;

/* All 0, or NULL in place of the options: the defaults. A value out of its range is
 * AG_ERR_ARGUMENT. */
typedef struct ag_gradcheck_options {
    double tolerance;  /* finite, 0 or more: relative, allowed on top of the bound; default none */
    double resolution; /* above 0: a bound above this part of the derivative's terms is too wide to
                          conclude from; default 1e-6 */
    uint64_t seed;     /* of the cotangent and the directions */
    int directions;    /* 0: every entry. k: the derivatives along k directions, in each of which
                          all entries of all inputs move, by +t or -t */
    FILE *log;         /* a line for every entry that fails; default none */
    ag_gradcheck_method method;
    double complex_h; /* of complex steps, 1e-100 to 1; default 1e-30 */
} ag_gradcheck_options;

typedef struct ag_gradcheck_report {
    ag_verdict verdict; /* fail if an entry fails, otherwise inconclusive, kink or pass, in this
                           order, if there is such an entry */
    bool passed;        /* pass or kink */
    int64_t entries;    /* compared, over all inputs; or directions */
    int64_t failures, inconclusive, kinks;
    int64_t contradictions; /* of the inconclusive ones: differences and complex steps are both
                               sharp and do not agree, so that one of them saw another function */
    int64_t insensitive;    /* along so many of them not a bit of the result moves (by complex
                               steps alone: each term of the derivative is 0), so that the
                               gradient could only be compared with 0 */
    double floor; /* median of bound / |derivative|: the relative error that is seen in half of
                     the entries; those that are zero within their bound are left out, and it
                     is 0 if all are */
    double worst_floor; /* the largest of these */
    /* the entry that is worst, one that fails if any does: its disagreement in units of its bound
     * (what fails is above 1, or above 4 where the bound is wide), and where it is */
    double worst;
    int input; /* -1 if more than one entry moved */
    char name[64];
    int rank;
    int64_t index[AG_MAX_RANK];
    int64_t from, to; /* the entries that moved, counted through all inputs from 0: it, all of
                         them, or what a direction that fails was narrowed to; to is one beyond */
    double analytic, numeric, ratio; /* ratio = analytic / numeric */
    double bound;                    /* the derivative is within this of numeric; infinite, and
                                        numeric NaN, if none was found */
    double step;                     /* of the differences that numeric comes from; 0 if it comes
                                        from a complex step, or none was found */
    bool recorded;                   /* that analytic value came with AG_CREATE_GRAPH */
    bool by_directions;              /* entries counts directions; the first that fails is cut in
                                        halves, down to an entry that fails or to the smallest
                                        range that does, which is the worst then */
    ag_gradcheck_method method;      /* that numeric and bound came from; 0 if there is no entry */
    double complex_step;             /* what the complex step said there; NaN if it was not
                                        taken, 0 if there is no entry */
    char no_complex_form[64];        /* the operation for which no complex step could be taken */
    int64_t node;                    /* of a failure: the first operation that f runs, counted .. */
    char op[32];                     /* .. from 0, whose own rule fails; if this is "", there is
                                        none, and node means nothing */
    char suspect[64];                /* what the input that fails looks like: "zero", "sign",
                                        "factor 2", "factor 1 + 2e-10", "transposed",
                                        "3 of 12 entries", .. */
    double asymmetry;  /* in second order: |u' H v - v' H u| of the second derivatives H and random
                          u, v, in units of what is allowed: 1e-9 of the terms and the
                          measured rounding; above 1 fails */
    char message[512]; /* why there was nothing to compare, or "" */
    uint64_t seed;     /* that of the options */
    int64_t calls;     /* so often f was called */
} ag_gradcheck_report;

/* Compares the gradients of L = sum(c * f(inputs)), c random and never uniform, with
 * differences, entry by entry or along directions.
 *
 * The derivative is taken from central differences of order 8 with steps h, h / 2, h / 4, .. .
 * How far neighbours and orders differ bounds the truncation error; the rounding error
 * of f is measured. The step with the smallest sum of both is taken: the derivative is
 * within that bound, and a gradient outside of it fails. Probes that took another branch (a
 * ReLU switched, another maximum won) are no evidence; next to a kink the differences
 * are taken on the side away from it, and at a kink a gradient passes that lies between
 * the derivatives from the left and from the right.
 *
 * A function of the operations above can also be computed with complex numbers, and its derivative
 * is Im f(x + i h) / h with h = 1e-30: without truncation or cancellation, so that relative errors
 * of 1e-13 are seen (Squire, Trapp 1998). An entry fails if either says so. Where differences are
 * inconclusive the complex step decides; where the two contradict each other, one of them saw
 * something else than the function, and the entry is inconclusive (or fails, if the differences
 * are sharp and say so). At a kink the complex step tells what the operations' conventions make of
 * it, such as a slope of 0 for ReLU at 0: where many kinks meet, and along directions, a gradient
 * that agrees is accepted, and one that lies outside of the two derivatives is inconclusive.
 * Differences alone judge where an operation has no complex form. For a check by complex steps
 * alone that is an error: AG_VERDICT_ERROR. f is then called with its inputs as c128, whose numbers
 * ag_read and ag_item refuse.
 *
 * Both ways to the gradient are compared: the usual one, by fused rules where there
 * are any, and the one with AG_CREATE_GRAPH, by the rules that are recorded. inputs are f64
 * leaves that ask for gradients, each given once; they are moved and put back, bit for bit, and
 * nothing stays on the tape. f may call ag_grad, but not ag_backward; names that it gives to
 * its inputs are not kept. f is called some 150 times at first, and then some 40 times for an
 * entry, 150 times for one that fails, but only three times by complex steps alone.
 *
 * Returns report->passed; options and report may be NULL. Where there is nothing to compare
 * report->message says why. These are errors too, which stay in the context, with the verdict
 * AG_VERDICT_ERROR if no other is named:
 *   AG_ERR_ARGUMENT  no f, no inputs, one that is absent, poisoned or of another context, two that
 *                    share memory, or an option out of its range
 *   AG_ERR_DTYPE     an input or the result is not f64
 *   AG_ERR_STATE     an input is no contiguous leaf that asks for a gradient, or of a step that was
 *                    reset; f resets the tape; no gradient leads from the result to the inputs
 *                    (AG_VERDICT_UNCONNECTED), as inside of ag_no_grad
 *   any              of f's, or of a rule's; AG_ERR_MEMORY
 * In a context that has an error already nothing is called. */
AG_API bool ag_gradcheck(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                         int n, const ag_gradcheck_options *options, ag_gradcheck_report *report);

/* The same for the gradients of the gradients: checks the function
 * inputs -> (d/d inputs) sum(c * f(inputs)), and that its derivatives are symmetric. With
 * directions these are Hessian-vector products. */
AG_API bool ag_gradcheck_second(ag_context *context, ag_function f, void *user,
                                const ag_var *inputs, int n, const ag_gradcheck_options *options,
                                ag_gradcheck_report *report);

/* The check of one entry alone, counted through all inputs from 0, which becomes the report's
 * worst: with its derivative, the bound and the step that was chosen. AG_ERR_ARGUMENT if there
 * is no such entry; directions in the options are not looked at. */
AG_API bool ag_gradcheck_entry(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                               int n, int64_t entry, const ag_gradcheck_options *options,
                               ag_gradcheck_report *report);

/* The c that checks with this seed use for a result like y: of y's shape and dtype, a constant,
 * each entry from -3/2 to -1/2 or from 1/2 to 3/2. y is read for its shape alone. */
AG_API ag_var ag_gradcheck_cotangent(uint64_t seed, ag_var y);

/* An operation whose own rule fails. */
typedef struct ag_node_fault {
    int64_t node; /* which of the variables that f makes, from 0 on */
    char op[32];
    ag_gradcheck_report report; /* its input, entry and numbers are those of the operation alone */
} ag_node_fault;

/* Runs f and checks the rule of every operation in it by itself: the operation alone, on copies
 * of the operands that it has there, laid out in memory like them. Writes the first so many faults,
 * and returns how many there are; -1 on error, as of ag_gradcheck. A fault is a rule that fails.
 * Operations that cannot be judged are not counted: where the result holds an infinity, as that of
 * a masked fill with -INFINITY does, or where a check is inconclusive. Of the options, which may be
 * NULL, tolerance, seed, method and log are looked at; log gets a line for each fault. Where a
 * report has no index, from and to count through the copies as they lie in memory. Nothing stays on
 * the tape. */
AG_API int ag_gradcheck_nodes(ag_context *context, ag_function f, void *user, const ag_var *inputs,
                              int n, const ag_gradcheck_options *options, ag_node_fault *faults,
                              int room);

/* "node 17 softmax, input 0 x [2,5] got .., want .. +- .., ratio ..; looks like: .." */
AG_API void ag_node_fault_print(const ag_node_fault *fault, FILE *file);

/* A line: "PASS: 30 entries; worst: input 3 attn.w_v [2,0] got .., want .. +- .., ratio ..; .." */
AG_API void ag_gradcheck_print(const ag_gradcheck_report *report, FILE *file);

/* The same for programs: a JSON object in a line. Its members are named like the report's, but got
 * and want are analytic and numeric; what is not finite or was not found is null. */
AG_API void ag_gradcheck_print_json(const ag_gradcheck_report *report, FILE *file);

/* ---- 6  Looking at the tape -------------------------------------------- */

/* How many variables this step has made. */
AG_API int64_t ag_tape_length(const ag_context *context);

/* The first parameter, or variable of this step, with a NaN or an infinity that
 * its operands did not have; absent if there is none. Infinities that were put
 * in on purpose, as a leaf or by a masked fill, are not counted. */
AG_API ag_var ag_first_nonfinite(ag_context *context);

/* The name of the operation that made v, "" for a leaf. */
AG_API const char *ag_op_name(ag_var v);

/* Writes what root was computed from as a Graphviz graph: operations, names
 * and shapes; values and gradients of tensors of up to 12 elements. A gradient
 * that was not computed is shown as absent. */
AG_API bool ag_tape_write_dot(ag_var root, FILE *file);

#ifdef __cplusplus
}
#endif

#endif
