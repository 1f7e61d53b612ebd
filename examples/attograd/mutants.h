/* Mutants: backward rules that are wrong on purpose, to see whether the check cases notice.
 *
 * A case that every mutant of an operation survives proves nothing about that operation. Most
 * faults are the same for all operations (mutants.c): they take what the right rule gives for one
 * input and spoil it. Operations with more structure have faults of their own, such as a softmax
 * without its centring. All stand in tables, and an operation that is in none of them is an
 * error, so that a new one cannot be forgotten. */
#ifndef AG_EXAMPLES_MUTANTS_H
#define AG_EXAMPLES_MUTANTS_H

#include <attograd.h>

/* Fewer than so many for an operation are an error. */
#define AG_FEWEST_MUTANTS 5

/* The faults that every operation can have. */
typedef enum ag_fault {
    AG_FAULT_SIGN,
    AG_FAULT_DOUBLED,
    AG_FAULT_SLIGHT, /* times 1 + 1e-6 */
    AG_FAULT_ZERO,
    AG_FAULT_TRANSPOSED, /* the last two axes in the other order, a vector backwards */
    AG_FAULT_ROLLED,     /* every entry where the one before it should be */
    AG_FAULT_DROPPED,    /* the last entry that is not 0 becomes 0 */
    AG_FAULT_TERM,       /* what comes from the last entries of dy is left out of all sums */
    AG_FAULT_OVERWRITES, /* what arrived from later operations is lost: += as = */
    AG_FAULT_STALE,      /* the rule reads values rolled by one entry .. */
    AG_FAULT_DRIFTED,    /* .. or times 1.001, as after a step of learning */
    /* Wrong in one of two uses: where nothing is recorded, as in ag_backward, which is done by
     * fused rules if there are any; and where gradients are recorded, by AG_CREATE_GRAPH. */
    AG_FAULT_SIGN_FUSED,
    AG_FAULT_SIGN_RECORDED,
    AG_FAULT_SLIGHT_FUSED,
    AG_FAULT_SLIGHT_RECORDED,
    AG_FAULT_ZERO_FUSED,
    AG_FAULT_ZERO_RECORDED,
    AG_FAULTS
} ag_fault;

/* Where no entry of dx is a sum over entries of dy, a term dropped is an entry dropped. */
#define ONE_TERM (1u << AG_FAULT_TERM)

/* One row of a table: an operation. */
typedef struct ag_mutated_op {
    const char *op;
    unsigned inputs;     /* bit i: input i has a gradient, and every fault in it is a mutant */
    unsigned equivalent; /* bit f: fault f changes nothing, or is another one .. */
    const char *because; /* .. and why; the reason for ONE_TERM is known */
    struct {
        const char *name;
        ag_rule rule;
    } own[9]; /* faults of its own, ended by one without a name */
} ag_mutated_op;

/* The tables; each ends with a row without an operation. */
extern const ag_mutated_op ag_mutated_functions[]; /* mutants_functions.c */
extern const ag_mutated_op ag_mutated_shapes[];    /* mutants_shapes.c */
extern const ag_mutated_op ag_mutated_matrices[];  /* mutants_matrices.c */
extern const ag_mutated_op ag_mutated_rows[];      /* mutants_rows.c */

typedef struct ag_mutant {
    const char *op, *name;
    int input; /* whose gradient is wrong; -1 if the fault is one of the rule as a whole */
    ag_rule rule;
} ag_mutant;

/* All mutants, in the order of the tables; op is NULL beyond the last. */
ag_mutant ag_mutant_at(int i);
int ag_mutant_count(const char *op); /* NULL: of all operations */

/* The faults that are left out for an operation, and why; NULL if fault is not. */
const char *ag_mutant_left_out(const char *op, ag_fault fault);
ag_mutant ag_mutant_of(const char *op, ag_fault fault, int input);

/* Entries 0 of the axes over which ag_sum_to would sum: a sum forgotten. */
ag_var ag_first_of(ag_var g, ag_shape shape);

/* The right rule of the node's operation. */
void ag_right_rule(const ag_node *node, ag_var dy, ag_var *dx);

/* The derivatives of gelu and gelu_tanh. */
ag_var ag_slope_of_gelu(ag_var x);
ag_var ag_slope_of_gelu_tanh(ag_var x);

/* Checks each mutant until a case notices it, with a line for each into file (mutants_run.c).
 * A mutant is killed by a verdict about its gradient. One that only raises an error is refused: it
 * says nothing about the checks, and does not count among those that an operation needs. The exit
 * status: 1 if one survived, or if refusals leave an operation with too few. */
int ag_mutants_run(const ag_mutant *mutants, int n, uint64_t seed, bool json, FILE *file);

/* `attograd check --mutants [asked]`: those of one operation, or of all if asked is NULL. */
int ag_mutants_check(const char *asked, uint64_t seed, bool json);

#endif
