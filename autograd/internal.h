/* What the autograd floor keeps to itself and to the layers above it.
 *
 * The tape is the list of nodes in the order in which they ran. An operation's
 * inputs exist before it runs, so this order is topological: backward is one
 * walk over the list from its end.
 */
#ifndef AG_AUTOGRAD_INTERNAL_H
#define AG_AUTOGRAD_INTERNAL_H

#include "autograd.h"
#include "../tensor/internal.h"

/* ---- Nodes ------------------------------------------------------------- */

#define AG_FEW_INPUTS 3
#define AG_SMALL_OPTIONS 48

/* An operand. Nodes never move while their step lasts, so a pointer is enough. */
typedef struct ag_input {
    ag_node *node;
    uint32_t version; /* of its base when the operation ran */
} ag_input;

struct ag_node {
    ag_var self; /* the handle that stands for this node */

    const ag_op *op;        /* NULL for a leaf */
    const ag_input *inputs; /* n_inputs of them, here or in the step arena */
    const void *options;
    int n_inputs;

    uint32_t version;     /* of a base: counts the writes into its value */
    uint32_t made_at;     /* the base's version when op ran */
    ag_node *base;        /* the node whose data it shows, for a view; else itself */
    ag_tensor *gradient;  /* memory for it; NULL if there never was one */
    ag_tensor *saved;     /* what forward keeps for the backward rule; NULL without */
    ag_node *promised_to; /* in backward: the input whose gradient its buffer will become */
    const char *name;     /* NULL without */
    bool has_gradient;
    bool requires_gradient;
    bool retains_gradient;
    bool owns_data;     /* value.data was allocated for this node */
    bool backward_done; /* ag_backward has started here */
    bool users_op;      /* op is not of the library: its rule may keep handles */
    bool is_complex;    /* an operand is c128 */

    /* From here on nothing is set when a node is made, but that there is no value. */
    ag_tensor value; /* data is NULL until there is one */
    ag_input few_inputs[AG_FEW_INPUTS];
    union {
        double align;
        char bytes[AG_SMALL_OPTIONS];
    } small_options;
};

/* ---- The tape (tape.c) ------------------------------------------------- */

/* A list whose elements never move: pointers to nodes stay good. */
#define AG_NODES_PER_BLOCK 256
typedef struct ag_node_list {
    ag_node **blocks;
    uint32_t n_blocks, room; /* blocks there are, and room for pointers to them */
    uint32_t count;
} ag_node_list;

/* What a gradient check wants to know of the operations that run. */
typedef struct ag_watch {
    bool on;
    uint64_t branches; /* all that were taken, as one number */
    bool seen_f32;     /* whether anything was f32 .. */
    bool in_f32;       /* .. and computed with, more than being cast, moved or compared */
    ag_random *jiggle; /* if it is given, every result is rounded differently */
} ag_watch;

typedef struct ag_tape {
    ag_node_list step;       /* of this step, in the order in which they ran */
    ag_node_list parameters; /* stay until the context ends */
    uint32_t generation;     /* of the nodes being made now */
    int no_grad;             /* depth of ag_no_grad_begin */
    int locked;              /* depth of users' functions that must not reset the tape .. */
    uint32_t locked_below;   /* .. nor name the nodes before this one */
    struct ag_walk *walk;    /* the backward that is under way, if there is one */
    struct ag_tried *tried;  /* rules in place of operations' own; NULL without */
    ag_watch watch;
    const char *not_complex; /* the operation that was last refused c128 */
} ag_tape;

/* The handle's top bit says in which list its index counts. */
#define AG_PARAMETER_BIT (UINT32_C(1) << 31)
#define AG_POISONED UINT32_MAX

/* The context's tape, made at its first use. NULL with an error recorded. */
ag_tape *ag_tape_of(ag_context *context);

/* The same where an error may be recorded already. */
ag_tape *ag_tape_make(ag_context *context);

static inline ag_node *ag_list_at(const ag_node_list *list, uint32_t i)
{
    return &list->blocks[i / AG_NODES_PER_BLOCK][i % AG_NODES_PER_BLOCK];
}

/* The node behind a handle that is known to be good, such as a rule's dy. */
static inline ag_node *ag_node_behind(ag_var v)
{
    const ag_tape *tape = v.context->tape;
    const ag_node_list *list = v.index & AG_PARAMETER_BIT ? &tape->parameters : &tape->step;
    return ag_list_at(list, v.index & ~AG_PARAMETER_BIT);
}

/* The node behind a handle; NULL if there is none, without an error. (AG_POISONED
 * is beyond the end of the parameters.) */
static inline ag_node *ag_node_find(ag_var v)
{
    if (!v.context || !v.context->tape)
        return NULL;
    const ag_tape *tape = v.context->tape;
    const ag_node_list *list = v.index & AG_PARAMETER_BIT ? &tape->parameters : &tape->step;
    uint32_t i = v.index & ~AG_PARAMETER_BIT;
    if (i >= list->count)
        return NULL;
    ag_node *node = ag_list_at(list, i);
    return node->self.generation == v.generation ? node : NULL;
}

/* The same; records an error in context: "operation: what is wrong with v". */
ag_node *ag_node_require(ag_context *context, const char *operation, ag_var v);

/* A new leaf of this step around a tensor. */
ag_var ag_leaf(ag_context *context, const ag_tensor *value, bool owns_data);

/* A new empty node at the end of a list; NULL with an error recorded. */
ag_node *ag_list_push(ag_context *context, ag_node_list *list, uint32_t flag);

ag_var ag_poisoned(ag_context *context);

/* Applies an operation of the library. */
ag_var ag_run(const ag_op *op, const ag_var *inputs, int n, const void *options);

/* Applies a node's operation with its options to other inputs. */
ag_var ag_run_again(const ag_node *node, const ag_var *inputs);

/* While a user's function runs, the tape is locked. */
typedef struct ag_tape_lock {
    int no_grad;
    uint32_t below;
} ag_tape_lock;
ag_tape_lock ag_tape_lock_now(ag_tape *tape);

/* Also puts the depth of no-grad regions back; AG_ERR_STATE if it had changed. */
void ag_tape_unlock(ag_context *context, const char *operation, ag_tape_lock lock);

/* Whether a gradient can flow from node to its input i. */
static inline bool ag_input_is_constant(const ag_node *node, int i)
{
    return i < 32 && (node->op->constant_inputs >> i & 1);
}

/* Forgets the nodes from count on. Their handles stay refused, because later
 * nodes get a new generation. */
void ag_tape_truncate(ag_tape *tape, uint32_t count);

/* The step back to where it was: nodes and memory. */
typedef struct ag_tape_mark {
    uint32_t count;
    ag_memory_mark memory;
} ag_tape_mark;
ag_tape_mark ag_tape_mark_now(ag_context *context);
void ag_tape_rewind(ag_context *context, ag_tape_mark mark);

/* The gradient's memory, to be written to; NULL where it is absent. */
ag_tensor *ag_gradient_mutable(ag_var v);

/* ---- Rules that are tried (try_rule.c) ---------------------------------- */

/* The rule in place of op's own; NULL if that is to be used. */
ag_rule ag_tried_rule_of(const ag_tape *tape, const ag_op *op);
static inline ag_rule ag_tried_rule(const ag_tape *tape, const ag_op *op)
{
    return tape->tried ? ag_tried_rule_of(tape, op) : NULL;
}

/* ---- Helpers of the operations (helpers.c) ------------------------------ */

/* The value of input i, which there is. */
static inline const ag_tensor *ag_input_value(const ag_node *node, int i)
{
    return &node->inputs[i].node->value;
}

/* The same, if it is f32 or f64; NULL with AG_ERR_DTYPE recorded. */
const ag_tensor *ag_node_refuse_input(const ag_node *node, int i);
static inline const ag_tensor *ag_node_float_input(const ag_node *node, int i)
{
    const ag_tensor *x = ag_input_value(node, i);
    return ag_dtype_is_float(x->dtype) ? x : ag_node_refuse_input(node, i);
}

/* In forward: fails with "operation: has no complex form". Returns false. */
bool ag_node_refuse_complex(const ag_node *node);

/* Whether variables of these dtypes are operands of one operation: c128 goes with f64, which
 * ag_run promotes. */
static inline bool ag_dtypes_agree(ag_dtype a, ag_dtype b)
{
    return a == b || (a == AG_C128 && b == AG_F64) || (a == AG_F64 && b == AG_C128);
}

/* Input i's name and shape, for messages. */
char *ag_node_describe(const ag_node *node, int i, char *text, size_t size);

/* Fails with "operation: reason: INPUT i joint INPUT j". Returns false. */
bool ag_node_fail_operands(const ag_node *node, ag_error error, const char *reason, int i,
                           const char *joint, int j);

/* Whether inputs i and j have one dtype; if not, with the error recorded. */
bool ag_node_refuse_dtypes(const ag_node *node, int i, int j);
static inline bool ag_node_same_dtype(const ag_node *node, int i, int j)
{
    return ag_input_value(node, i)->dtype == ag_input_value(node, j)->dtype ||
           ag_node_refuse_dtypes(node, i, j);
}

/* In forward: a new output with the dtype and shape of x, and one of rank sizes. */
ag_tensor *ag_node_output_like(ag_node *node, const ag_tensor *x);
ag_tensor *ag_node_output_dims(ag_node *node, ag_dtype dtype, int rank, const int64_t *dims);

/* In forward: fills a whole output with elementwise results. */
void ag_node_unary(ag_node *node, ag_unary kind, double parameter);
void ag_node_binary(ag_node *node, ag_binary kind);

/* In forward: room for numbers that only the fused backward rule reads, such as the
 * statistics of rows. They live as long as the node. NULL with an error recorded. */
ag_tensor *ag_node_save(ag_node *node, ag_dtype dtype, ag_shape shape);

/* In forward: whether backward may come here, so that something is worth saving. */
bool ag_node_will_need(const ag_node *node);

/* What forward saved; NULL if it saved nothing. */
const ag_tensor *ag_node_saved(const ag_node *node);

/* In a fused rule: saved will not be read any more. In ag_backward, other than in ag_grad, its
 * memory is used again at once, and a rule that is called once more, from another loss, finds
 * that there is none: it has to be able to compute it again. */
void ag_node_release_saved(const ag_node *node);

/* In a fused backward rule: a new variable, its numbers not yet set, like x. */
ag_var ag_empty_like(ag_var x, ag_tensor **value);

/* In a fused backward rule: dx_i, its numbers not yet set, if it is asked for; gradient is
 * NULL if it is not. False with an error recorded. */
bool ag_new_gradient(const ag_node *node, int i, ag_var *dx, ag_tensor **gradient);

/* In a fused backward rule: kind(a, b) in a's shape, to which b broadcasts, and
 * kind(x), without the bookkeeping of an operation that could be recorded. */
ag_var ag_fused_binary(ag_binary kind, ag_var a, ag_var b);
ag_var ag_fused_unary(ag_unary kind, double parameter, ag_var x);

/* kind(saved, dy) and kind(dy), saved of dy's shape, written over dy where dy owns its
 * buffer: the last thing that a fused rule may do with dy. */
ag_var ag_fused_binary_onto(ag_binary kind, ag_var saved, ag_var dy);
ag_var ag_fused_unary_onto(ag_unary kind, double parameter, ag_var dy);

/* The same for saved dy, where saved is what forward saved. */
ag_var ag_fused_mul_onto(const ag_tensor *saved, ag_var dy);

/* The slope of gelu at x, as operations that can be recorded. */
ag_var ag_gelu_slope(ag_var x);

/* A scalar of x's dtype. */
ag_var ag_scalar_like(ag_var x, double value);

/* The gradient g summed to the shape of the operand it belongs to. */
ag_var ag_unbroadcast(ag_var g, ag_var operand);

/* An axis of x, which is valid, counted from the end if negative; rank is x's,
 * or one more where a new axis is meant. -1 with AG_ERR_INDEX recorded. */
int ag_axis_of(ag_var x, const char *operation, int axis, int rank);

/* A set of axes of x: bit i stands for axis i. False with AG_ERR_INDEX recorded. */
bool ag_axes_set(ag_var x, const char *operation, const int *axes, int n, unsigned *set);

/* shape without the axes of a set, or with 1 in their place. */
ag_shape ag_shape_reduced(ag_shape shape, unsigned set, bool keep);

/* Softmax over several axes taken together. */
ag_var ag_softmax_over(ag_var x, unsigned axes);

/* ---- Branches that were taken (branches.c) ------------------------------ */

/* Starts anew. Who watches puts the tape's watch back as it was. */
void ag_branches_watch(ag_context *context);

/* While watching: the operation that has just run. Where the tape says so, its result is moved,
 * each element by a factor of up to 1 +- 3 DBL_EPSILON. */
void ag_branches_note(const ag_node *node);

/* For an operation's .branches: it decides by the sign of input 0, by which of inputs 0
 * and 1 is larger, or its result is the decision. */
void ag_branches_by_sign(const ag_node *node);
void ag_branches_by_order(const ag_node *node);
void ag_branches_by_result(const ag_node *node);

/* By the signs of x; by where x equals y, which broadcasts to it. */
void ag_branches_note_signs(const ag_node *node, const ag_tensor *x);
void ag_branches_note_winners(const ag_node *node, const ag_tensor *x, const ag_tensor *y);

/* ---- What attention is composed of (attention.c) ------------------------ */

/* [.., t, h d] -> [.., h, t, d] and back; for one head nothing to do. */
ag_var ag_split_heads(ag_var x, int64_t heads);
ag_var ag_join_heads(ag_var x, int64_t heads);

/* Where query i may not see key j. */
typedef struct ag_key_mask {
    bool causal;    /* j > i + t - s */
    ag_var lengths; /* i64 [..]: j >= lengths of its sequence; may be absent */
} ag_key_mask;

/* scores [.., h, s, t] with value there; without the axis h for one head. */
ag_var ag_mask_keys(ag_var scores, const ag_key_mask *mask, int64_t heads, double value);

/* ---- The table of operations (table.c) ---------------------------------- */

/* clang-format off */
#define AG_OPERATIONS(X) \
    X(add) X(sub) X(mul) X(div) X(maximum) X(minimum) \
    X(scale) X(shift) X(pow) \
    X(neg) X(square) X(sqrt) X(rsqrt) X(reciprocal) X(exp) X(log) X(sin) X(cos) X(tanh) X(erf) X(erfc) \
    X(sigmoid) X(softplus) X(relu) X(gelu) X(gelu_tanh) X(silu) X(abs) \
    X(sign) X(equal) X(greater) X(argmax) \
    X(where) X(masked_fill) X(cast) \
    X(sum) X(max) X(logsumexp) X(cumsum) \
    X(matmul) X(affine) X(affine_gelu) \
    X(permute) X(reshape) X(slice) X(unslice) X(flip) X(broadcast_to) X(sum_to) X(contiguous) \
    X(concat) X(gather_rows) X(scatter_add_rows) \
    X(softmax) X(log_softmax) X(layer_norm) X(rms_norm) X(cross_entropy) \
    X(attend)
/* clang-format on */

#define AG_DECLARE_OPERATION(name) extern const ag_op ag_op_##name;
AG_OPERATIONS(AG_DECLARE_OPERATION)

#endif
