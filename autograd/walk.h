/* The walk over the tape that computes gradients: what walk.c offers to
 * ag_backward and ag_grad. */
#ifndef AG_AUTOGRAD_WALK_H
#define AG_AUTOGRAD_WALK_H

#include "internal.h"

typedef struct ag_slot {
    union {
        void *data;        /* contiguous, of the node's dtype and shape, the slot's own */
        ag_node *variable; /* recording */
    };
    bool full;
    bool needed;  /* does it depend on a variable whose gradient is asked for? */
    bool kept;    /* is it asked for itself? */
    bool at_home; /* a parameter without a gradient: its memory is used at once */
    bool given;   /* ag_grad: a variable for it was handed out */
} ag_slot;

struct ag_walk {
    ag_context *context;
    ag_tape *tape;
    ag_slot *step, *parameters;
    uint32_t n_step, n_parameters; /* the nodes up to the root, and all parameters */
    bool recording;
    bool releases; /* what forward saved for fused rules may be used up */
};

/* The node's slot; NULL for one that came after the root. */
static inline ag_slot *ag_walk_slot(const struct ag_walk *walk, const ag_node *node)
{
    uint32_t i = node->self.index & ~AG_PARAMETER_BIT;
    if (node->self.index & AG_PARAMETER_BIT)
        return i < walk->n_parameters ? &walk->parameters[i] : NULL;
    return i < walk->n_step ? &walk->step[i] : NULL;
}

/* Is the gradient of this node asked for? */
static inline bool ag_walk_needs(const struct ag_walk *walk, const ag_node *node)
{
    ag_slot *s = ag_walk_slot(walk, node);
    return s && s->needed;
}

/* Makes empty slots for the nodes up to root. False with an error recorded. */
bool ag_walk_begin(struct ag_walk *walk, ag_context *context, ag_node *root, bool recording);

/* Puts the cotangent into the root's slot, copied unless recording. */
bool ag_walk_set_root(struct ag_walk *walk, ag_node *root, ag_node *cotangent);

/* Walks from the root to the beginning. False with an error recorded. */
bool ag_walk_run(struct ag_walk *walk);

/* A tensor like value. NULL with an error recorded. */
ag_tensor *ag_walk_new_gradient(ag_context *context, ag_lifetime lifetime, const ag_tensor *value);

/* Gives back the slots, but not the gradients in them. */
void ag_walk_end(struct ag_walk *walk);

#endif
