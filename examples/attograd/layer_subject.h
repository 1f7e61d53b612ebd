/* The layer of a case, whichever it is. */
#ifndef AG_EXAMPLES_LAYER_SUBJECT_H
#define AG_EXAMPLES_LAYER_SUBJECT_H

#include "cases.h"

typedef struct ag_layer_subject {
    const ag_layer_case *layer;
    uint64_t seed;
    ag_attention attention;
    ag_linear linear;
    ag_embedding embedding;
    ag_norm norm;
    ag_feed_forward feed_forward;
    ag_block block;
    ag_transformer transformer;
} ag_layer_subject;

bool ag_layer_subject_init(ag_layer_subject *s, ag_params *params);

#endif
