/* Rules that are tried in the place of operations' own. */
#include "internal.h"

/* A short list: one for each operation that was ever named. */
struct ag_tried {
    const ag_op *op;
    ag_rule rule; /* NULL: its own was put back */
    struct ag_tried *next;
};

static struct ag_tried *find(const ag_tape *tape, const ag_op *op)
{
    struct ag_tried *tried = tape->tried;
    while (tried && tried->op != op)
        tried = tried->next;
    return tried;
}

ag_rule ag_tried_rule_of(const ag_tape *tape, const ag_op *op)
{
    const struct ag_tried *tried = find(tape, op);
    return tried ? tried->rule : NULL;
}

static bool check_call(ag_context *context, const ag_op *op)
{
    if (!op || !op->name)
        return ag_fail(context, AG_ERR_ARGUMENT, "try_rule: there is no such operation");
    if (!op->vjp)
        return ag_fail(context, AG_ERR_ARGUMENT, "try_rule: %s has no gradient", op->name);
    if (context->tape->walk)
        return ag_fail(context, AG_ERR_STATE, "try_rule: called from inside of a backward rule");
    return true;
}

bool ag_try_rule(ag_context *context, const ag_op *op, ag_rule rule)
{
    ag_tape *tape = ag_tape_of(context);
    if (!tape || !check_call(context, op))
        return false;
    struct ag_tried *tried = find(tape, op);
    if (!tried && !rule)
        return true;
    if (!tried) {
        tried = ag_memory_new(context, AG_KEEP, sizeof *tried);
        if (!tried)
            return false;
        *tried = (struct ag_tried){ .op = op, .next = tape->tried };
        tape->tried = tried;
    }
    tried->rule = rule;
    return true;
}
