/* Looking at the tape: where numbers went wrong, and the graph as a picture. */
#include "internal.h"

#include <math.h>

/* ---- The first value that is not finite ---- */

typedef struct flaws {
    bool nan, infinite;
} flaws;

static flaws flaws_of(const ag_tensor *x)
{
    flaws found = { false, false };
    if (!ag_dtype_is_float(x->dtype) || ag_tensor_all_finite(x))
        return found;
    for (int64_t k = 0; k < ag_tensor_count(x) && !(found.nan && found.infinite); k++) {
        double value = ag_tensor_at(x, k);
        found.nan = found.nan || isnan(value);
        found.infinite = found.infinite || isinf(value);
    }
    return found;
}

/* Did this node make a flaw that none of its inputs has? A masked fill, and a
 * leaf, may hold infinities on purpose. */
static bool makes_flaw(const ag_node *node)
{
    flaws own = flaws_of(&node->value), given = { false, false };
    bool parameter = node->self.index & AG_PARAMETER_BIT;
    if (node->op == &ag_op_masked_fill || (!node->op && !parameter))
        own.infinite = false;
    if (!own.nan && !own.infinite)
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        flaws input = flaws_of(ag_node_input_value(node, i));
        given.nan = given.nan || input.nan;
        given.infinite = given.infinite || input.infinite;
    }
    return (own.nan && !given.nan) || (own.infinite && !given.infinite && !given.nan);
}

ag_var ag_first_nonfinite(ag_context *context)
{
    const ag_tape *tape = context ? context->tape : NULL;
    if (!tape)
        return AG_NONE;
    for (uint32_t i = 0; i < tape->parameters.count; i++)
        if (makes_flaw(ag_list_at(&tape->parameters, i)))
            return ag_list_at(&tape->parameters, i)->self;
    for (uint32_t i = 0; i < tape->step.count; i++)
        if (makes_flaw(ag_list_at(&tape->step, i)))
            return ag_list_at(&tape->step, i)->self;
    return AG_NONE;
}

/* ---- Graphviz ---- */

#define FEW_NUMBERS 12

/* Names may hold what means something to Graphviz. */
static void write_escaped(const char *text, FILE *file)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        fputc(*text == '\n' ? ' ' : *text, file);
    }
}

static void write_numbers(const char *title, const ag_tensor *x, FILE *file)
{
    if (ag_tensor_count(x) > FEW_NUMBERS)
        return;
    fprintf(file, "\\n%s", title);
    int64_t row = x->rank > 0 ? x->dims[x->rank - 1] : 1;
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        fprintf(file, "%s%.4g", k > 0 && k % row == 0 ? "; " : " ", ag_tensor_at(x, k));
}

static void node_id(ag_var v, char *id, size_t size)
{
    bool parameter = v.index & AG_PARAMETER_BIT;
    snprintf(id, size, "%s%u", parameter ? "p" : "n", (unsigned)(v.index & ~AG_PARAMETER_BIT));
}

static void write_node(const ag_node *node, FILE *file)
{
    char id[32], other[32], text[160];
    node_id(node->self, id, sizeof id);
    bool parameter = node->self.index & AG_PARAMETER_BIT;
    fprintf(file, "  %s [shape=%s, label=\"", id,
            node->op    ? "box, style=rounded"
            : parameter ? "box, style=bold"
                        : "ellipse");
    if (node->op) {
        write_escaped(node->op->name, file);
        fprintf(file, "\\n");
    }
    write_escaped(ag_describe(node->self, text, sizeof text), file);
    fprintf(file, " %s", ag_dtype_name(node->value.dtype));
    write_numbers("value", &node->value, file);
    if (node->has_gradient)
        write_numbers("gradient", node->gradient, file);
    else if (node->requires_gradient)
        fprintf(file, "\\ngradient absent");
    fprintf(file, "\"];\n");
    for (int i = 0; i < node->n_inputs; i++) {
        node_id(node->inputs[i].node->self, other, sizeof other);
        fprintf(file, "  %s -> %s;\n", other, id);
    }
}

/* Marks what root was computed from: one walk from the end, as in backward. */
static void mark_sources(const ag_tape *tape, ag_var root, bool *step, bool *parameters)
{
    bool *own = root.index & AG_PARAMETER_BIT ? parameters : step;
    own[root.index & ~AG_PARAMETER_BIT] = true;
    for (uint32_t i = tape->step.count; i-- > 0;) {
        const ag_node *node = ag_list_at(&tape->step, i);
        for (int k = 0; step[i] && k < node->n_inputs; k++) {
            ag_var input = node->inputs[k].node->self;
            bool *list = input.index & AG_PARAMETER_BIT ? parameters : step;
            list[input.index & ~AG_PARAMETER_BIT] = true;
        }
    }
}

static bool *new_marks(ag_context *context, uint32_t count)
{
    bool *marks = ag_memory_new(context, AG_STEP, count);
    for (uint32_t i = 0; marks && i < count; i++)
        marks[i] = false;
    return marks;
}

bool ag_tape_write_dot(ag_var root, FILE *file)
{
    ag_context *context = root.context;
    if (!ag_node_require(context, "tape_write_dot", root))
        return false;
    if (!file)
        return ag_fail(context, AG_ERR_ARGUMENT, "tape_write_dot: the file is NULL");
    const ag_tape *tape = context->tape;
    bool *step = new_marks(context, tape->step.count);
    bool *parameters = step ? new_marks(context, tape->parameters.count) : NULL;
    if (!parameters)
        return false;
    mark_sources(tape, root, step, parameters);
    fprintf(file, "digraph tape {\n  rankdir=LR;\n  node [fontname=\"Helvetica\", fontsize=11];\n");
    for (uint32_t i = 0; i < tape->parameters.count; i++)
        if (parameters[i])
            write_node(ag_list_at(&tape->parameters, i), file);
    for (uint32_t i = 0; i < tape->step.count; i++)
        if (step[i])
            write_node(ag_list_at(&tape->step, i), file);
    fprintf(file, "}\n");
    ag_memory_recycle(context, step, tape->step.count);
    ag_memory_recycle(context, parameters, tape->parameters.count);
    if (ferror(file))
        return ag_fail(context, AG_ERR_IO, "tape_write_dot: the file cannot be written");
    return true;
}
