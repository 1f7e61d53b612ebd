/* The cases of the gradient check: at least one for each operation in the
 * library's table, and the layers. `attograd check` runs them, and so do the
 * tests, which fail for an operation that has none. */
#ifndef AG_EXAMPLES_CASES_H
#define AG_EXAMPLES_CASES_H

#include <attograd.h>

#define AG_CASE_INPUTS 4
#define AG_SETUP_INPUTS 32

/* A function to check: its inputs are x[0], x[1], .. */
#define AG_CASE_FUNCTION(name, result)                                    \
    static ag_var name(ag_context *c, const ag_var *x, int n, void *user) \
    {                                                                     \
        (void)c, (void)n, (void)user;                                     \
        return result;                                                    \
    }

/* Where the numbers of an input come from. Difference quotients cannot be
 * taken across a kink, so operations that have one get numbers away from it. */
typedef enum ag_domain {
    AG_ANY,      /* normal; also three and eight times as large: saturated */
    AG_POSITIVE, /* 0.3 to 2.3 */
    AG_NONZERO,  /* 0.2 to 2.2 in size, of either sign */
    AG_SEPARATE, /* no two closer than 0.05 */
    AG_DYADIC    /* multiples of 1/64 up to 1: exact in f32, and so are the probes around them */
} ag_domain;

typedef struct ag_case_input {
    ag_domain domain;
    int rank;
    int64_t dims[4];
} ag_case_input;

/* Operands of other sizes than the case's: every axis 0 or 1, and one variable for all of them. */
enum { AG_REFUSES_SIZE_0 = 1, AG_REFUSES_SIZE_1 = 2, AG_REFUSES_SAME = 4 };

/* A case of kind "op": f of n inputs; without f, an operation without a
 * gradient, whose result must not ask for one. */
typedef struct ag_op_case {
    const char *name;   /* the operation's, and after a slash what is special */
    const char *covers; /* the operation of the table */
    ag_function f;
    bool no_gradient;
    int n;
    ag_case_input inputs[AG_CASE_INPUTS];
    unsigned refuses; /* what has no result, such as the largest of nothing; else 0 */
} ag_op_case;

typedef enum ag_case_mask {
    AG_MASK_NONE,
    AG_MASK_LENGTHS,
    AG_MASK_ADDITIVE,
    AG_MASK_INFINITE /* additive, and -inf for some keys */
} ag_case_mask;

/* A case of kind "layer": the one whose options are given. */
typedef struct ag_layer_case {
    const char *name;
    ag_attention_options attention;
    ag_linear_options linear;
    ag_embedding_options embedding;
    ag_norm_options norm;
    ag_feed_forward_options feed_forward;
    ag_block_options block;
    ag_transformer_options transformer;
    int64_t memory; /* of attention: so many tokens of another sequence; 0: x itself */
    bool positions; /* of an embedding: added to an input */
    ag_case_mask mask;
    int trained;    /* so many steps of training before the check */
    double enlarge; /* then the parameters times this, unless 0: saturated scores */
} ag_layer_case;

typedef struct ag_case_result {
    const char *name, *kind;
    ag_verdict verdict; /* the most serious of its checks */
    int64_t entries, failures, inconclusive, kinks;
    bool differences;  /* one of its checks was without complex steps */
    double floor;      /* of its checks: the largest median of relative errors that are seen */
    double worst;      /* the largest disagreement, in units of the bound there */
    char at[128];      /* where that is */
    char detail[256];  /* of a fail: what came from backward there, what it should be; or "" */
    char message[512]; /* why there was nothing to compare, or "" */
} ag_case_result;

/* A case in a context of its own, its numbers drawn: what is called and what with. */
typedef struct ag_case_setup {
    ag_context *context;
    ag_function f;
    void *user; /* freed by ag_case_close, if there is one */
    int n;
    int leaves; /* so many of the inputs; the others are parameters, which a layer holds itself */
    ag_var inputs[AG_SETUP_INPUTS];
} ag_case_setup;

/* The tables (op_cases.c, layer_cases.c). */
int ag_op_case_count(void);
const ag_op_case *ag_op_case_at(int i);
int ag_layer_case_count(void);
const ag_layer_case *ag_layer_case_at(int i);

/* All cases: the operations and the layers in first and then in second order, what goes back by
 * other ways, and where only some inputs ask for a gradient; then the operations with other
 * layouts, ties, and the kernels of all instruction sets. */
int ag_case_count(void);
const char *ag_case_name(int i);
const char *ag_case_kind(int i);
const char *ag_case_suffix(int i); /* "", "/second", "/backward", "/subsets", "/layouts",
                                      "/ties", "/kernels" */
bool ag_case_has_gradient(int i);

/* The first ag_case_first_count() are those in first order. The place of a name among them, -1 if
 * there is none. */
int ag_case_first_count(void);
int ag_case_find(const char *name);

/* The first operation of the library that no case covers; NULL if there is none. */
const char *ag_case_first_without(void);

/* Checks case i; what is random depends on the seed. */
void ag_case_run(int i, uint64_t seed, ag_case_result *result);

/* A case made ready to be called in a dtype; of an operation, the first of its points. */
void ag_case_open(int i, uint64_t seed, ag_dtype dtype, ag_case_setup *setup);
void ag_case_close(ag_case_setup *setup);

/* The operation's inputs at one of its points, those of AG_ANY larger at each; the layer with
 * its inputs and parameters. What is random depends on the seed. */
void ag_op_case_open(const ag_op_case *op, int point, uint64_t seed, ag_dtype dtype,
                     ag_case_setup *setup);
void ag_layer_case_open(const ag_layer_case *layer, uint64_t seed, ag_dtype dtype,
                        ag_case_setup *setup);

/* Checks the operation at all points, the layer at its one. */
void ag_op_case_run(const ag_op_case *op, bool second, uint64_t seed, ag_case_result *result);
void ag_layer_case_run(const ag_layer_case *layer, bool second, uint64_t seed,
                       ag_case_result *result);

/* The check of what was set up, added to a result; options may be NULL. */
void ag_case_check(ag_case_setup *setup, bool second, const ag_gradcheck_options *options,
                   ag_case_result *result);

/* One of a case's checks, at one of several points. With a rule, that is tried instead of the
 * right one of the operation that the case covers. */
int ag_op_case_points(bool second);
void ag_op_case_check(const ag_op_case *op, bool second, int point, uint64_t seed, ag_rule rule,
                      ag_gradcheck_report *report);

/* Whether something is wrong: a fail, or no verdict. */
bool ag_case_failed(const ag_case_result *result);

/* Fills an operand with numbers of its domain. */
void ag_op_case_draw(ag_var leaf, ag_domain domain, ag_random *random);

/* Checks the operation with operands that are views (layout_cases.c). */
void ag_layout_case_run(const ag_op_case *op, uint64_t seed, ag_case_result *result);

/* What passes back must give and may not do (backward_cases.c). */
void ag_backward_case_run(ag_case_setup *setup, uint64_t seed, ag_case_result *result);

/* Gradients where only some inputs ask for one (subset_cases.c). */
void ag_subset_op_run(const ag_op_case *op, uint64_t seed, ag_case_result *result);
void ag_subset_layer_run(const ag_layer_case *layer, uint64_t seed, ag_case_result *result);

/* Puts another variable in the place of a parameter that the layer holds; false if it holds
 * none such (layer_subject.c). */
bool ag_layer_case_replace(ag_case_setup *setup, ag_var parameter, ag_var by);

/* The documented gradients on ties and kinks (tie_cases.c). */
int ag_tie_case_count(void);
const char *ag_tie_case_name(int i);
void ag_tie_case_run(int i, ag_case_result *result);

/* Whether there are two, of one size, with the same numbers bit for bit. */
bool ag_case_same_bits(const ag_tensor *a, const ag_tensor *b);

/* Fast kernels against slow ones (precision_cases.c). */
int ag_precision_case_count(void);
const char *ag_precision_case_name(int i);
void ag_precision_case_run(int i, uint64_t seed, ag_case_result *result);

/* Makes the result a failure that is no wrong entry; the first message stays. */
void ag_case_complain(ag_case_result *result, const char *format, ...);

/* Adds what one check found to a result. */
void ag_case_note(ag_case_result *result, const ag_gradcheck_report *report);

#endif
