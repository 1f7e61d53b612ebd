/* Gradients where only some of the inputs ask for one: they are those that all get when all ask,
 * bit for bit. A rule computes only what is asked for (ag_node_needs), a forward call saves only
 * what may be needed, so there are as many paths as subsets.
 *
 * An input does not ask when it is a constant (ag_detach) or when ag_grad is called for others. */
#include "cases.h"

#include <stdlib.h>

/* A function, what it is called with when all inputs ask, and the gradients then, by the usual
 * rules and by those that are recorded. */
typedef struct whole {
    ag_case_setup *setup;
    ag_case_result *result;
    ag_var cotangent;
    ag_var gradients[2][AG_SETUP_INPUTS];
} whole;

static const unsigned ways[] = { 0, AG_CREATE_GRAPH };

static ag_var call(const whole *w, const ag_var *inputs)
{
    const ag_case_setup *setup = w->setup;
    return setup->f(setup->context, inputs, setup->n, setup->user);
}

static bool all_ask(ag_case_setup *setup, uint64_t seed, ag_case_result *result, whole *w)
{
    *w = (whole){ .setup = setup, .result = result };
    ag_var y = call(w, setup->inputs);
    w->cotangent = ag_gradcheck_cotangent(seed, y);
    for (int way = 0; way < 2; way++)
        ag_grad_from(y, w->cotangent, setup->inputs, setup->n, w->gradients[way], ways[way]);
    if (ag_status(setup->context) == AG_OK)
        return true;
    ag_case_complain(result, "%s", ag_error_message(setup->context));
    return false;
}

/* The members of a subset, and their places. */
static int members(const ag_case_setup *setup, const bool *asks, ag_var *asked, int *places)
{
    int n = 0;
    for (int i = 0; i < setup->n; i++)
        if (asks[i]) {
            places[n] = i;
            asked[n++] = setup->inputs[i];
        }
    return n;
}

static void expect(const whole *w, int way, ag_var got, int place, const char *how)
{
    const ag_tensor *want = ag_value(w->gradients[way][place]);
    w->result->entries += want ? ag_tensor_count(want) : 0;
    if (want && ag_is_valid(got) && ag_case_same_bits(ag_value(got), want))
        return;
    ag_case_complain(w->result, "input %d%s%.40s gets another gradient%s %s", place,
                     ag_name(w->setup->inputs[place])[0] ? " " : "",
                     ag_name(w->setup->inputs[place]), way ? " (recorded)" : "", how);
}

/* y's gradients with respect to a subset are those of the whole. */
static void check_asked(const whole *w, ag_var y, const bool *asks, const char *how)
{
    ag_var asked[AG_SETUP_INPUTS], got[AG_SETUP_INPUTS];
    int places[AG_SETUP_INPUTS], n = members(w->setup, asks, asked, places);
    for (int way = 0; way < 2; way++) {
        ag_grad_from(y, w->cotangent, asked, n, got, ways[way]);
        for (int i = 0; i < n; i++)
            expect(w, way, got[i], places[i], how);
    }
    if (ag_status(w->setup->context) != AG_OK)
        ag_case_complain(w->result, "%s: %s", how, ag_error_message(w->setup->context));
}

/* The same by ag_backward_from, which leaves those alone that do not ask. */
static void check_backward(const whole *w, ag_var y, const bool *asks, const char *how)
{
    if (!ag_requires_gradient(y))
        return;
    for (int i = 0; i < w->setup->n; i++)
        ag_clear_gradient(w->setup->inputs[i]);
    ag_backward_from(y, w->cotangent);
    for (int i = 0; i < w->setup->n; i++) {
        const ag_tensor *got = ag_gradient(w->setup->inputs[i]);
        if (got && asks[i])
            expect(w, 0, ag_from_tensor(w->setup->context, got), i, how);
        else if (got)
            ag_case_complain(w->result, "input %d does not ask for a gradient and gets one", i);
    }
}

/* Every proper subset that is not empty. */
void ag_subset_op_run(const ag_op_case *op, uint64_t seed, ag_case_result *result)
{
    whole w;
    ag_case_setup setup;
    ag_op_case_open(op, 0, seed, AG_F64, &setup);
    bool good = all_ask(&setup, seed, result, &w);
    for (unsigned set = 1; good && set + 1 < 1u << op->n; set++) {
        bool asks[AG_SETUP_INPUTS];
        ag_var inputs[AG_SETUP_INPUTS];
        for (int i = 0; i < op->n; i++) {
            asks[i] = set >> i & 1;
            inputs[i] = asks[i] ? setup.inputs[i] : ag_detach(setup.inputs[i]);
        }
        check_asked(&w, call(&w, setup.inputs), asks, "if it is called for some only");
        ag_var y = call(&w, inputs);
        check_asked(&w, y, asks, "beside constants");
        check_backward(&w, y, asks, "by ag_backward beside constants");
    }
    ag_case_close(&setup);
}

/* One input or parameter a constant, or all that are no parameters: then the weights learn. */
static void check_frozen(const whole *w, int first, int end)
{
    ag_case_setup *setup = w->setup;
    bool asks[AG_SETUP_INPUTS];
    ag_var inputs[AG_SETUP_INPUTS], constants[AG_SETUP_INPUTS];
    for (int i = 0; i < setup->n; i++) {
        asks[i] = i < first || i >= end;
        inputs[i] = setup->inputs[i];
        constants[i] = asks[i] ? inputs[i] : ag_detach(inputs[i]);
        if (!asks[i] && i < setup->leaves)
            inputs[i] = constants[i];
        else if (!asks[i] && !ag_layer_case_replace(setup, setup->inputs[i], constants[i]))
            ag_case_complain(w->result, "no layer holds %s", ag_name(setup->inputs[i]));
    }
    ag_var y = call(w, inputs);
    check_asked(w, y, asks, "beside constants");
    check_backward(w, y, asks, "by ag_backward beside constants");
    for (int i = first; i < end; i++)
        if (i >= setup->leaves)
            ag_layer_case_replace(setup, constants[i], setup->inputs[i]);
    check_asked(w, call(w, setup->inputs), asks, "if it is called for some only");
}

void ag_subset_layer_run(const ag_layer_case *layer, uint64_t seed, ag_case_result *result)
{
    whole w;
    ag_case_setup setup;
    ag_layer_case_open(layer, seed, AG_F64, &setup);
    bool good = all_ask(&setup, seed, result, &w);
    for (int i = 0; good && setup.n > 1 && i < setup.n; i++)
        check_frozen(&w, i, i + 1);
    if (good && setup.leaves > 1)
        check_frozen(&w, 0, setup.leaves);
    ag_case_close(&setup);
}
