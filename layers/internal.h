/* What the files of the layers floor share, but users do not see. */
#ifndef AG_LAYERS_INTERNAL_H
#define AG_LAYERS_INTERNAL_H

#include "../autograd/internal.h"
#include "layers.h"

/* ---- Parameters (params.c) ---- */

/* One parameter and the name it is registered under. */
typedef struct ag_params_entry {
    const char *name;
    ag_var var;
} ag_params_entry;

struct ag_params {
    ag_context *context;
    int count, capacity;
    ag_params_entry *entries;
};

/* Forgets all parameters from the count-th on: how a layer that could not
 * register all of its parameters takes back those that it did. */
void ag_params_truncate(ag_params *params, int count);

/* ---- Initialisers (init.c) ---- */

/* False, with AG_ERR_ARGUMENT recorded, for an unknown kind or a value that
 * the kind cannot use. name is the parameter's, for the message. */
bool ag_init_check(ag_context *context, const char *name, ag_init init);

/* Fills value, the tensor of the parameter called name. */
bool ag_init_fill(ag_context *context, const char *name, ag_init init, ag_tensor *value);

/* ---- What layers have in common (common.c) ---- */

/* What the init call of a layer ends with: false after an error, with the
 * parameters from the count-th on taken back. */
bool ag_layer_done(ag_params *params, int count);

/* "prefix.part" into text, or part alone without a prefix. False, with
 * AG_ERR_ARGUMENT recorded, for a name that is too long. */
#define AG_LAYER_NAME 256
bool ag_layer_name(ag_context *context, const char *prefix, const char *part,
                   char text[AG_LAYER_NAME]);

/* A forward call begins: a layer that was initialised has parameter, and its
 * input x is valid, of that dtype, with the last axis d. */
bool ag_layer_takes(const char *operation, ag_var parameter, ag_var x, int64_t d);

/* The poisoned result of such a call. */
ag_var ag_layer_refused(ag_var parameter, ag_var x);

/* The two steps embedding_forward and embedding_add_positions in one, for indices
 * [.., t] (embedding.c). */
ag_var ag_embedding_with_positions(const ag_embedding *tokens, const ag_embedding *positions,
                                   ag_var indices);

/* ---- What layers have in common (linear.c) ---- */

/* False if an init call of a layer cannot start: NULL arguments, or an error
 * that is already there. operation and name are for the message. */
bool ag_layer_can_start(const ag_params *params, const char *operation, const void *layer,
                        const char *name, const void *options);

/* What goes into attention: queries come from x, keys and values from memory, which may be
 * x itself; to the result residual is added, if there is one (attention.c). */
typedef struct ag_attention_input {
    ag_var x, memory, residual;
    const ag_attention_mask *mask; /* NULL without */
} ag_attention_input;
ag_var ag_attention_forward_add(const ag_attention *attention, const ag_attention_input *input,
                                ag_attention_trace *trace);

/* activation(x W_1 + b_1); x has been checked (feed_forward.c). */
ag_var ag_feed_forward_hidden(const ag_feed_forward *layer, ag_var x);

#endif
