/* Attention of one head, without its matrix of weights; see attention.inc. */
#ifndef AG_KERNELS_ATTENTION_H
#define AG_KERNELS_ATTENTION_H

#include "matmul.h"

/* Some queries and some keys of one head. Query i sees the keys j <= i + shift. */
typedef struct ag_attention_head {
    int64_t s, t, d, d_v; /* queries, keys; sizes of a key and of a value */
    int64_t shift;        /* AG_SEES_ALL without causal mask */
    double scale;
    ag_matrix q, k, v; /* [s, d], [t, d], [t, d_v] */
} ag_attention_head;

#define AG_SEES_ALL (INT64_MAX / 4)

/* y [s, d_v], its rows y_row apart; of each query, the largest score and one over the sum of
 * the exponentials: 0 and 0 where it sees nothing. */
typedef struct ag_attention_forward_job {
    ag_attention_head head; /* with s <= query_block */
    void *y, *largest, *factors;
    int64_t y_row;
} ag_attention_forward_job;

/* y, largest and factors as forward left them. Of dq, dk and dv, like q, k and v, those that are
 * not asked for have no data. */
typedef struct ag_attention_backward_job {
    ag_attention_head head;
    const void *y, *dy, *largest, *factors;
    int64_t y_row;
    void *dq, *dk, *dv;
    int64_t dk_row, dv_row; /* dk_row also of dq */
} ag_attention_backward_job;

typedef struct ag_attention_kernels {
    int64_t query_block, key_block; /* where threads may share out queries and keys */

    /* The bytes of scratch for a head of at most these sizes. */
    size_t (*forward_scratch)(const ag_attention_head *head);
    size_t (*backward_scratch)(const ag_attention_head *head);

    /* scratch is aligned to AG_ALIGNMENT. */
    void (*forward)(const ag_attention_forward_job *job, void *scratch);
    void (*backward)(const ag_attention_backward_job *job, void *scratch);
} ag_attention_kernels;

#endif
