/* Every request for memory can be refused, one at a time: then there is an error,
 * no crash, no leak, and nothing half done. And sizes that no memory can hold.
 *
 * The library takes memory from the allocator in large chunks, so refusing the
 * allocator's calls reaches only few places. The other tests here therefore let
 * the arenas run dry: they use up a chunk but for a rest, refuse another one, and
 * enlarge the rest step by step until the work gets done. */
#include "../../examples/attograd/cases.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- An allocator that can be told to refuse ---- */

typedef struct refusing {
    int calls, refuse_at;
    bool once;
    bool all; /* from now on */
    int live;
} refusing;

/* Beyond this there never is any: sanitizers stop a program that asks malloc. */
#define MOST ((size_t)1 << 32)

static void *allocate(size_t bytes, void *user)
{
    refusing *r = user;
    int call = r->calls++;
    if (bytes > MOST || r->all || (r->once ? call == r->refuse_at : call >= r->refuse_at))
        return NULL;
    void *memory = malloc(bytes);
    r->live += memory != NULL;
    return memory;
}

static void release(void *memory, void *user)
{
    refusing *r = user;
    r->live -= memory != NULL;
    free(memory);
}

static ag_context *new_context(refusing *r)
{
    return ag_context_new(
        &(ag_context_options){ .dtype = AG_F64, .seed = 1, .allocator = { allocate, release, r } });
}

/* ---- The work: attention, cross-entropy, backward, Adam, a gradient check ---- */

enum { MAX_PARAMETERS = 8, MAX_NUMBERS = 64 };

typedef struct model {
    ag_context *ctx;
    ag_params *params;
    ag_attention attention;
    ag_optimizer *adam;
} model;

static bool model_new(model *m, ag_context *ctx)
{
    *m = (model){ .ctx = ctx };
    m->params = ag_params_new(ctx);
    const ag_attention_options options = { .d_in = 3, .d_k = 2, .d_v = 4, .bias = true };
    if (!ag_attention_init(&m->attention, m->params, "attn", &options))
        return false;
    m->adam = ag_adam_new(m->params, &(ag_adam_options){ .lr = 1e-2 });
    return m->adam != NULL;
}

/* The loss of one batch of so many sequences of four tokens. */
static ag_var model_loss(const model *m, int64_t batch)
{
    ag_random random = ag_random_stream(2, "x", 0);
    ag_var x = ag_normal(m->ctx, &random, AG_SHAPE(batch, 4, 3));
    ag_var labels = ag_argmax(x, -1);
    ag_var y = ag_attention_forward(&m->attention, x, NULL);
    y = ag_concat((ag_var[]){ y, y, y, y }, 4, -1); /* more than a node has room for */
    return ag_cross_entropy(y, labels);
}

static ag_var checked(ag_context *ctx, const ag_var *inputs, int n, void *user)
{
    (void)ctx, (void)n, (void)user;
    return ag_softmax(ag_mul(ag_tanh(inputs[0]), inputs[0]), -1);
}

/* True if the input was put back. */
static bool check_gradient(ag_context *ctx)
{
    static const double numbers[] = { 0.3, -1.1 };
    ag_gradcheck_report report;
    ag_var x = ag_require_gradient(ag_constant(ctx, AG_SHAPE(2), numbers));
    const ag_tensor *value = ag_value(x);
    bool passed = ag_gradcheck(ctx, checked, NULL, &x, 1, NULL, &report);
    cr_expect_eq(passed, ag_status(ctx) == AG_OK, "%s", report.message);
    return !value || !memcmp(value->data, numbers, sizeof numbers);
}

/* One step of training; whether all of it was done. */
static bool model_step(model *m, int64_t batch)
{
    bool done = ag_backward(model_loss(m, batch));
    done = ag_optimizer_step(m->adam) && done;
    cr_assert(check_gradient(m->ctx), "the check leaves its input changed");
    ag_tape_reset(m->ctx);
    return done;
}

/* ---- The allocator refuses ---- */

/* The second step needs more than all the memory that the first one took, and
 * needs it at once. */
static bool train_refused(int refuse_at, bool once)
{
    model m;
    refusing r = { .refuse_at = refuse_at, .once = once };
    ag_context *ctx = new_context(&r);
    bool done = ctx && model_new(&m, ctx) && model_step(&m, 2) && model_step(&m, 4000) &&
                model_step(&m, 30000);
    if (ctx)
        cr_expect_eq(ag_status(ctx), done ? AG_OK : AG_ERR_MEMORY, "call %d: %s", refuse_at,
                     ag_error_message(ctx));
    bool reached = r.calls > refuse_at;
    cr_expect(done || reached, "call %d", refuse_at);
    ag_context_free(ctx);
    cr_assert_eq(r.live, 0, "call %d leaves %d blocks", refuse_at, r.live);
    return reached;
}

Test(memory_failure, each_call_of_the_allocator)
{
    int calls = 0;
    while (train_refused(calls, false))
        calls++;
    cr_expect_gt(calls, 6, "only %d calls", calls);
    for (int i = 0; i < calls; i++)
        train_refused(i, true);
}

/* Memory of a step that comes after ag_tape_reset may need a larger first chunk. */
Test(memory_failure, chunks_are_not_lost_between_steps)
{
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    for (int64_t n = 1; n < 10000000; n *= 100) {
        cr_expect(ag_is_valid(ag_zeros(ctx, AG_SHAPE(n))));
        ag_tape_reset(ctx);
    }
    ag_context_free(ctx);
    cr_expect_eq(r.live, 0, "%d blocks are lost", r.live);
}

/* ---- The step's memory runs dry ---- */

/* Takes 64 bytes, the smallest piece, of the arena in which v lives. */
static bool take_piece(ag_var v)
{
    return ag_is_valid(ag_set_name(v, "ballast"));
}

/* How many pieces are left. */
static int count_pieces(ag_var v)
{
    int n = 0;
    while (take_piece(v))
        n++;
    ag_error_clear(v.context);
    return n;
}

typedef struct snapshot {
    double numbers[MAX_PARAMETERS][MAX_NUMBERS];
} snapshot;

static snapshot snapshot_of(const model *m)
{
    snapshot s = { { { 0 } } };
    cr_assert_leq(ag_params_count(m->params), MAX_PARAMETERS);
    for (int i = 0; i < ag_params_count(m->params); i++) {
        const ag_tensor *p = ag_value(ag_params_at(m->params, i));
        for (int64_t k = 0; k < ag_tensor_count(p); k++)
            s.numbers[i][k] = ag_tensor_at(p, k);
    }
    return s;
}

/* Loss and backward with so many pieces of memory; on failure nothing has changed. */
static bool backward_with(model *m, int pieces, int rest)
{
    snapshot before = snapshot_of(m);
    ag_var ballast = ag_scalar(m->ctx, 0);
    for (int i = rest; i < pieces; i++)
        cr_assert(take_piece(ballast), "%s", ag_error_message(m->ctx));
    bool done = ag_backward(model_loss(m, 2));
    if (!done) {
        cr_assert_eq(ag_status(m->ctx), AG_ERR_MEMORY, "%s", ag_error_message(m->ctx));
        cr_assert_not(ag_optimizer_step(m->adam));
        ag_error_clear(m->ctx);
        for (int i = 0; i < ag_params_count(m->params); i++)
            cr_assert_null(ag_gradient(ag_params_at(m->params, i)), "half a gradient");
    }
    snapshot after = snapshot_of(m);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0, "a parameter was changed");
    return done;
}

Test(memory_failure, every_place_of_a_step)
{
    model m, other;
    refusing r = { .refuse_at = 1000 }, generous = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r), *plain = new_context(&generous);
    cr_assert(model_new(&m, ctx) && model_step(&m, 2));
    cr_assert(model_new(&other, plain) && model_step(&other, 2));
    r.all = true;
    int rest = 0, pieces = count_pieces(ag_scalar(ctx, 0));
    ag_tape_reset(ctx);
    while (!backward_with(&m, pieces, rest)) {
        ag_tape_reset(ctx);
        rest++;
    }
    cr_expect(rest > 50 && rest < pieces, "%d places", rest);
    cr_expect(ag_optimizer_step(m.adam), "%s", ag_error_message(ctx));
    ag_tape_reset(ctx);
    cr_assert(model_step(&m, 2), "%s", ag_error_message(ctx));
    cr_assert(model_step(&other, 2) && model_step(&other, 2));
    snapshot a = snapshot_of(&m), b = snapshot_of(&other);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0, "failures left a trace in the training");
    ag_context_free(ctx);
    ag_context_free(plain);
    cr_expect(r.live == 0 && generous.live == 0);
}

/* ---- Every operation, with a gradient that may not be overwritten, and recorded ---- */

/* Its own numbers, so that an index or a length among the inputs is as the case makes it. */
static int case_inputs(ag_context *ctx, const ag_op_case *c, ag_var *inputs)
{
    ag_random random = ag_random_stream(1, c->name, 0);
    for (int i = 0; i < c->n; i++) {
        ag_shape shape = { .rank = c->inputs[i].rank };
        for (int axis = 0; axis < shape.rank; axis++)
            shape.dims[axis] = c->inputs[i].dims[axis];
        inputs[i] = ag_require_gradient(ag_uniform(ctx, &random, shape, 0.5, 2));
    }
    return c->n;
}

/* Forward and one of three ways back; false where memory had run out. */
static bool case_works(ag_context *ctx, const ag_op_case *c, int way)
{
    ag_var inputs[AG_CASE_INPUTS], gradients[AG_CASE_INPUTS];
    int n = case_inputs(ctx, c, inputs);
    ag_var y = c->f(ctx, inputs, n, NULL);
    if (way == 0)
        ag_backward(ag_sum(ag_square(y), AG_ALL, 0));
    if (way == 1)
        ag_backward_from(ag_retain_gradient(y), ag_full(ctx, ag_shape_of(y), 0.7));
    if (way == 2)
        ag_grad(ag_sum(ag_square(y), AG_ALL, 0), inputs, n, gradients, AG_CREATE_GRAPH);
    if (ag_status(ctx) == AG_OK)
        return true;
    cr_assert_eq(ag_status(ctx), AG_ERR_MEMORY, "%s: %s", c->name, ag_error_message(ctx));
    ag_error_clear(ctx);
    return false;
}

static void starve(const ag_op_case *c, int way)
{
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    cr_assert(case_works(ctx, c, way), "%s", c->name);
    ag_tape_reset(ctx);
    r.all = true;
    int pieces = count_pieces(ag_scalar(ctx, 0)), rest = 0;
    for (bool done = false; !done; rest++) {
        ag_tape_reset(ctx);
        ag_var ballast = ag_scalar(ctx, 0);
        for (int i = rest; i < pieces; i++)
            take_piece(ballast);
        done = case_works(ctx, c, way);
    }
    cr_expect_gt(rest, 5, "%s: %d places", c->name, rest);
    ag_context_free(ctx);
    cr_expect_eq(r.live, 0, "%s leaks", c->name);
}

Test(memory_failure, every_operation)
{
    for (int i = 0; i < ag_op_case_count(); i++)
        for (int way = 0; ag_op_case_at(i)->f && way < 3; way++)
            if (!ag_op_case_at(i)->no_gradient)
                starve(ag_op_case_at(i), way);
}

Test(memory_failure, every_place_of_a_gradient_check)
{
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    cr_assert(check_gradient(ctx));
    ag_tape_reset(ctx);
    r.all = true;
    int pieces = count_pieces(ag_scalar(ctx, 0)), failures = 0;
    for (int rest = 0; rest < pieces; rest++) {
        ag_tape_reset(ctx);
        ag_var ballast = ag_scalar(ctx, 0);
        for (int i = rest; i < pieces; i++)
            take_piece(ballast);
        cr_assert(check_gradient(ctx), "the check leaves its input changed");
        if (ag_status(ctx) == AG_OK)
            break;
        failures++;
        cr_assert_eq(ag_status(ctx), AG_ERR_MEMORY, "%s", ag_error_message(ctx));
        ag_error_clear(ctx);
    }
    cr_expect_gt(failures, 5);
    ag_context_free(ctx);
    cr_expect_eq(r.live, 0);
}

/* ---- The memory that is kept runs dry: making parameters, gradients, moments ---- */

/* All that is done with so much of it; 0 pieces: counts what there is. */
static bool train_with(int *pieces, int rest)
{
    model m;
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    ag_var p = ag_parameter(ctx, "p", AG_F64, AG_SCALAR), first = ag_scalar(ctx, 0);
    r.all = true;
    if (*pieces == 0)
        *pieces = count_pieces(p);
    else
        for (int i = rest; i < *pieces; i++)
            take_piece(p);
    cr_assert(ag_is_valid(p) && ag_is_valid(first) && ag_status(ctx) == AG_OK);
    const ag_op *op = ag_op_find("matmul");
    bool done = ag_try_rule(ctx, op, op->vjp) && model_new(&m, ctx) && model_step(&m, 1) &&
                model_step(&m, 1);
    cr_assert_eq(ag_status(ctx), done ? AG_OK : AG_ERR_MEMORY, "%s", ag_error_message(ctx));
    ag_context_free(ctx);
    cr_assert_eq(r.live, 0);
    return done;
}

Test(memory_failure, every_place_that_keeps_memory)
{
    int pieces = 0, rest = 0;
    train_with(&pieces, 0);
    while (rest < pieces && !train_with(&pieces, rest))
        rest++;
    cr_expect(rest > 30 && rest < pieces, "%d places", rest);
}

/* ---- Sizes that are too large, or no sizes ---- */

#define HUGE (INT64_C(1) << 62)
#define LARGE (INT64_C(1) << 32)

static const struct {
    ag_shape shape;
    ag_error error;
} wrong_shapes[] = {
    { { 1, { HUGE } }, AG_ERR_MEMORY },
    { { 1, { INT64_MAX } }, AG_ERR_MEMORY },
    { { 1, { INT64_C(1) << 60 } }, AG_ERR_MEMORY },
    { { 2, { LARGE, LARGE } }, AG_ERR_MEMORY },
    { { 2, { HUGE, 4 } }, AG_ERR_MEMORY },
    { { 3, { LARGE / 2, LARGE / 2, 2 } }, AG_ERR_MEMORY },
    { { 3, { 0, LARGE, LARGE } }, AG_ERR_MEMORY }, /* no elements, but no strides either */
    { { 3, { LARGE, LARGE, 0 } }, AG_ERR_MEMORY },
    { { 8, { LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE } }, AG_ERR_MEMORY },
    { { 1, { -1 } }, AG_ERR_SHAPE },
    { { 2, { 3, INT64_MIN } }, AG_ERR_SHAPE },
    { { 9, { 1, 1, 1, 1, 1, 1, 1, 1 } }, AG_ERR_SHAPE },
    { { -1, { 0 } }, AG_ERR_SHAPE },
    { { INT32_MAX, { 1 } }, AG_ERR_SHAPE },
    { { INT32_MIN, { 1 } }, AG_ERR_SHAPE },
};

static void expect_refused(ag_var v, ag_context *ctx, ag_error error, const char *what)
{
    cr_expect_not(ag_is_valid(v), "%s", what);
    cr_expect_eq(ag_status(ctx), error, "%s: %s: %s", what, ag_error_name(ag_status(ctx)),
                 ag_error_message(ctx));
    cr_expect_neq(ag_error_message(ctx)[0], '\0');
    ag_error_clear(ctx);
    cr_expect_eq(ag_item(ag_scalar(ctx, 2)), 2, "the context works on after %s", what);
}

Test(memory_failure, wrong_sizes)
{
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    ag_random random = ag_random_stream(1, "x", 0);
    const double number = 0;
    const int64_t integer = 0;
    for (size_t i = 0; i < sizeof wrong_shapes / sizeof wrong_shapes[0]; i++) {
        ag_shape s = wrong_shapes[i].shape;
        ag_error error = wrong_shapes[i].error;
        expect_refused(ag_zeros(ctx, s), ctx, error, "zeros");
        expect_refused(ag_full(ctx, s, 1), ctx, error, "full");
        expect_refused(ag_uniform(ctx, &random, s, 0, 1), ctx, error, "uniform");
        expect_refused(ag_normal(ctx, &random, s), ctx, error, "normal");
        expect_refused(ag_constant(ctx, s, &number), ctx, error, "constant");
        expect_refused(ag_indices(ctx, s, &integer), ctx, error, "indices");
        expect_refused(ag_parameter(ctx, "p", AG_F32, s), ctx, error, "parameter");
        ag_tensor x = { (void *)(uintptr_t)&number, AG_F64, s.rank, { 0 }, { 0 } };
        memcpy(x.dims, s.dims, sizeof x.dims);
        expect_refused(ag_from_tensor(ctx, &x), ctx, error, "from_tensor");
        x.data = NULL;
        expect_refused(ag_from_tensor(ctx, &x), ctx, error, "from_tensor of nothing");
        if (s.rank != 1 || s.dims[0] != -1) /* -1 asks reshape to work it out */
            expect_refused(ag_reshape(ag_zeros(ctx, AG_SHAPE(0)), s), ctx, AG_ERR_SHAPE, "reshape");
        ag_tape_reset(ctx);
    }
    cr_expect_eq(random.position, 0, "no random number was taken");
    ag_context_free(ctx);
}

/* Views with strides of 0 may have any size that can be counted; what would
 * have to be written down may not. */
Test(memory_failure, results_too_large)
{
    refusing r = { .refuse_at = 1000 };
    ag_context *ctx = new_context(&r);
    const int64_t n = INT64_C(1) << 29;
    ag_var one = ag_full(ctx, AG_SHAPE(1, 1), 1), none = ag_zeros(ctx, AG_SHAPE(1, 0));
    ag_var wide = ag_broadcast_to(one, AG_SHAPE(1, n)), tall = ag_broadcast_to(one, AG_SHAPE(n, 1));
    ag_var all = ag_broadcast_to(one, AG_SHAPE(n, n)), labels = ag_arange(ctx, 1);
    ag_var thin = ag_broadcast_to(none, AG_SHAPE(INT64_C(1) << 40, 0));
    cr_assert_eq(ag_status(ctx), AG_OK, "%s", ag_error_message(ctx));
    expect_refused(ag_broadcast_to(one, AG_SHAPE(LARGE, LARGE)), ctx, AG_ERR_MEMORY, "broadcast");
    expect_refused(ag_add(wide, tall), ctx, AG_ERR_MEMORY, "add");
    expect_refused(ag_neg(all), ctx, AG_ERR_MEMORY, "neg");
    expect_refused(ag_contiguous(all), ctx, AG_ERR_MEMORY, "contiguous");
    expect_refused(ag_softmax(all, -1), ctx, AG_ERR_MEMORY, "softmax");
    expect_refused(ag_matmul(tall, wide), ctx, AG_ERR_MEMORY, "matmul");
    expect_refused(ag_matmul(thin, ag_transpose(thin, 0, 1)), ctx, AG_ERR_MEMORY, "matmul");
    expect_refused(ag_concat((ag_var[]){ all, all }, 2, 0), ctx, AG_ERR_MEMORY, "concat");
    expect_refused(ag_cast(all, AG_F32), ctx, AG_ERR_MEMORY, "cast");
    ag_var row = ag_broadcast_to(one, AG_SHAPE(1, INT64_C(1) << 58)),
           flat = ag_zeros(ctx, AG_SHAPE(4, 0));
    expect_refused(ag_attend(row, row, one, NULL), ctx, AG_ERR_MEMORY, "attend");
    expect_refused(ag_attend(flat, flat, flat, &(ag_attend_options){ .heads = INT64_C(1) << 62 }),
                   ctx, AG_ERR_SHAPE, "attend");
    expect_refused(ag_where(wide, tall, tall), ctx, AG_ERR_MEMORY, "where");
    expect_refused(ag_arange(ctx, HUGE), ctx, AG_ERR_MEMORY, "arange");
    expect_refused(ag_scatter_add_rows(one, labels, HUGE), ctx, AG_ERR_MEMORY, "scatter");
    expect_refused(ag_gather_rows(all, ag_broadcast_to(labels, AG_SHAPE(n))), ctx, AG_ERR_MEMORY,
                   "gather");
    ag_context_free(ctx);
}
