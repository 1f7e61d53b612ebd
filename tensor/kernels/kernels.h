/* The table of loops of one instruction set, and how it is made.
 *
 * kernels.c is compiled once per instruction set (AG_KERNELS_ISA names it) and
 * includes each template (*.inc) once per type. A template is ordinary C
 * written for a type T: the loops stand in one place, whatever the type and
 * the processor. kernels/dispatch.c picks a table at run time.
 */
#ifndef AG_KERNELS_H
#define AG_KERNELS_H

#include "../internal.h"
#include "attention.h"
#include "elementwise.h"
#include "matmul.h"
#include "norms.h"
#include "rows.h"

/* One loop table for each float type. Of c128 there are elementwise loops only, the same for
 * every instruction set (complex.c); all else is in compute_complex.c. */
enum { AG_KERNELS_F32, AG_KERNELS_F64, AG_KERNELS_C128, AG_KERNELS_TYPES };

typedef struct ag_kernels {
    const char *isa;
    const ag_attention_kernels *attention[AG_KERNELS_TYPES];
    const ag_elementwise_kernels *elementwise[AG_KERNELS_TYPES];
    const ag_matmul_kernels *matmul[AG_KERNELS_TYPES];
    const ag_norm_kernels *norms[AG_KERNELS_TYPES];
    const ag_row_kernels *rows[AG_KERNELS_TYPES];
} ag_kernels;

/* The table that every build has and every processor runs. */
extern const ag_kernels ag_kernels_generic;

extern const ag_elementwise_kernels ag_elementwise_kernels_c128;

static inline int ag_kernels_type(ag_dtype dtype)
{
    return dtype == AG_F64 ? AG_KERNELS_F64 : dtype == AG_F32 ? AG_KERNELS_F32 : AG_KERNELS_C128;
}

#endif
