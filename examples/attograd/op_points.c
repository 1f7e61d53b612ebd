/* Drawing the numbers of an operation's case, and checking it at all its points. */
#include "cases.h"

#include <math.h>
#include <stdlib.h>

/* The k-th number of a domain; scale enlarges those of AG_ANY, order[k] is the place of
 * AG_SEPARATE's among n. */
static double number(ag_domain domain, double scale, const int64_t *order, int64_t k, int64_t n,
                     ag_random *random)
{
    double u = ag_random_uniform(random);
    switch (domain) {
    case AG_ANY:
        return scale * ag_random_normal(random);
    case AG_POSITIVE:
        return 0.3 + 2.0 * u;
    case AG_NONZERO:
        return (u < 0.5 ? -1.0 : 1.0) * (0.2 + 4.0 * fmin(u, 1.0 - u));
    case AG_DYADIC:
        return floor(128.0 * u - 64.0) / 64.0;
    case AG_SEPARATE:
        break;
    }
    return 0.1 * (double)(order[k] - n / 2) + 0.05 * u;
}

static void draw(ag_var leaf, ag_domain domain, double scale, ag_random *random)
{
    ag_tensor *x = ag_value_mutable(leaf);
    int64_t n = x ? ag_tensor_count(x) : 0, *order = NULL;
    if (domain == AG_SEPARATE && n > 0) {
        order = malloc((size_t)n * sizeof *order);
        if (!order) {
            ag_fail(leaf.context, AG_ERR_MEMORY, "check: no memory for %lld numbers", (long long)n);
            return;
        }
        ag_random_permutation(random, n, order);
    }
    for (int64_t k = 0; k < n; k++)
        ag_tensor_put(x, k, number(domain, scale, order, k, n, random));
    free(order);
}

void ag_op_case_draw(ag_var leaf, ag_domain domain, ag_random *random)
{
    draw(leaf, domain, 1.0, random);
}

/* AG_ANY's numbers are enlarged at each, and at the last one every input is used again. */
static const double scales[] = { 1.0, 3.0, 8.0, 1.0 };
enum { POINTS = sizeof scales / sizeof scales[0], AGAIN = POINTS - 1 };

int ag_op_case_points(bool second)
{
    return second ? AGAIN : POINTS;
}

/* f of the inputs, which have more uses afterwards: the gradients are sums of contributions. */
static ag_var used_again(ag_context *c, const ag_var *x, int n, void *user)
{
    const ag_op_case *op = user;
    ag_var y = op->f(c, x, n, NULL), more = ag_scalar(c, 1.0);
    for (int i = 0; i < n; i++)
        more = ag_add(more, ag_mean(x[i], AG_ALL, 0));
    return ag_mul(y, more);
}

void ag_op_case_open(const ag_op_case *op, int point, uint64_t seed, ag_dtype dtype,
                     ag_case_setup *setup)
{
    ag_context *ctx = ag_context_new(&(ag_context_options){ .dtype = dtype });
    ag_random random = ag_random_stream(seed, op->name, (uint64_t)point);
    *setup = (ag_case_setup){ .context = ctx, .f = op->f, .n = op->n, .leaves = op->n };
    for (int i = 0; i < op->n; i++) {
        const ag_case_input *input = &op->inputs[i];
        ag_var x = ag_require_gradient(ag_zeros(ctx, ag_shape_make(input->rank, input->dims)));
        draw(x, input->domain, scales[point], &random);
        setup->inputs[i] = x;
    }
    ag_op_case *copy = point == AGAIN ? malloc(sizeof *copy) : NULL;
    if (copy) {
        *copy = *op;
        setup->f = used_again;
        setup->user = copy;
    }
}

static void check_no_gradient(const ag_case_setup *setup, ag_gradcheck_report *report)
{
    ag_var y = setup->f(setup->context, setup->inputs, setup->n, setup->user);
    *report = (ag_gradcheck_report){ .verdict = AG_VERDICT_PASS };
    if (ag_is_valid(y) && !ag_requires_gradient(y))
        return;
    report->verdict = AG_VERDICT_ERROR;
    snprintf(report->message, sizeof report->message, "the result asks for a gradient");
}

void ag_op_case_check(const ag_op_case *op, bool second, int point, uint64_t seed, ag_rule rule,
                      ag_gradcheck_report *report)
{
    ag_case_setup setup;
    ag_gradcheck_options options = { .seed = seed + (uint64_t)point };
    ag_op_case_open(op, op->no_gradient ? 0 : point, seed, AG_F64, &setup);
    if (rule)
        ag_try_rule(setup.context, ag_op_find(op->covers), rule);
    if (op->no_gradient)
        check_no_gradient(&setup, report);
    else
        (second ? ag_gradcheck_second : ag_gradcheck)(setup.context, setup.f, setup.user,
                                                      setup.inputs, setup.n, &options, report);
    ag_case_close(&setup);
}

void ag_op_case_run(const ag_op_case *op, bool second, uint64_t seed, ag_case_result *result)
{
    ag_gradcheck_report report;
    for (int point = 0; point < ag_op_case_points(second); point++) {
        ag_op_case_check(op, second, point, seed, NULL, &report);
        ag_case_note(result, &report);
    }
}
