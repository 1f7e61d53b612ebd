/* Embeddings: a table with a row for each token, or for each position.
 *
 *   forward    y_k = w[index_k]
 *   backward   dw[i] = sum of dy_k over the k with index_k = i
 */
#include "internal.h"

bool ag_embedding_init(ag_embedding *embedding, ag_params *params, const char *name,
                       const ag_embedding_options *options)
{
    if (embedding)
        *embedding = (ag_embedding){ .w = AG_NONE };
    if (!ag_layer_can_start(params, "embedding_init", embedding, name, options))
        return false;
    ag_embedding made = { .options = *options };
    ag_embedding_options *o = &made.options;
    if (o->count < 1 || o->d < 1)
        return ag_fail(params->context, AG_ERR_ARGUMENT,
                       "embedding_init: %s: count is %lld and d %lld, but both must be at least 1",
                       name, (long long)o->count, (long long)o->d);
    if (o->init.kind == AG_INIT_LECUN_NORMAL)
        o->init = (ag_init){ AG_INIT_NORMAL, 0.02 };
    int count = ag_params_count(params);
    made.w = ag_params_add(params, name, "w", AG_SHAPE(o->count, o->d), o->init);
    if (!ag_layer_done(params, count))
        return false;
    *embedding = made;
    return true;
}

ag_var ag_embedding_forward(const ag_embedding *embedding, ag_var indices)
{
    if (!embedding || !embedding->w.context) {
        ag_fail(indices.context, AG_ERR_ARGUMENT,
                "embedding_forward: the layer was not initialised");
        return ag_poisoned(indices.context);
    }
    return ag_gather_rows(embedding->w, indices);
}

/* The rows for t positions; absent with an error recorded if there are not so many.
 * x is what they are for: [.., t, d], or [.., t] of indices. */
static ag_var rows_for(const char *operation, ag_var w, ag_var x, int64_t t)
{
    char x_text[160], w_text[160];
    const int64_t count = ag_shape_of(w).dims[0];
    if (t >= 0 && t <= count)
        return t == count ? w : ag_slice(w, 0, 0, t, 1);
    ag_fail(w.context, AG_ERR_SHAPE, "%s: %s should be [.., tokens%s], with no more than %s",
            operation, ag_describe(x, x_text, sizeof x_text), ag_dtype_of(x) == AG_I64 ? "" : ", d",
            ag_describe(w, w_text, sizeof w_text));
    return ag_poisoned(w.context);
}

ag_var ag_embedding_add_positions(const ag_embedding *positions, ag_var x)
{
    static const char name[] = "embedding_add_positions";
    ag_var w = positions ? positions->w : AG_NONE;
    if (!ag_layer_takes(name, w, x, positions ? positions->options.d : 0))
        return ag_layer_refused(w, x);
    const ag_shape shape = ag_shape_of(x);
    return ag_add(x, rows_for(name, w, x, shape.rank < 2 ? -1 : shape.dims[shape.rank - 2]));
}

ag_var ag_embedding_with_positions(const ag_embedding *tokens, const ag_embedding *positions,
                                   ag_var indices)
{
    const ag_shape shape = ag_shape_of(indices);
    const int64_t t = shape.rank < 1 ? -1 : shape.dims[shape.rank - 1];
    return ag_gather_rows_add(tokens->w, indices,
                              rows_for("embedding_with_positions", positions->w, indices, t));
}
