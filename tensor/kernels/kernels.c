/* The loops of one instruction set: every template, once for f32 and once for
 * f64. Compiled once per instruction set, with that set's compiler flags and
 * AG_KERNELS_ISA = generic, avx2, avx512 or neon. The only symbol that leaves this
 * file is the table ag_kernels_<isa> at its end.
 *
 * A template knows T (the type), T_IS_F32, T_IS_COMPLEX, NAME(x) (x_f32 or x_f64) and
 * VECTOR_BYTES, the width of the processor's registers. The tables with fused
 * multiply-add want -ffp-contract=fast, the generic one -ffp-contract=off: so
 * it rounds alike on every platform. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "coefficients.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__FMA__) || defined(__aarch64__)
#define HAS_FMA 1
#else
#define HAS_FMA 0
#endif

/* Before a loop of constant length: nothing is left of the loop, so that the loop
 * around it can become a vector loop. */
#ifdef __clang__
#define UNROLL_FULLY _Pragma("clang loop unroll(full)")
#else
#define UNROLL_FULLY _Pragma("GCC unroll 32")
#endif

/* Before a loop whose element i of what it writes is read, if at all, by step i. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define T_IS_COMPLEX 0

#define T double
#define T_IS_F32 0
#define NAME(name) name##_f64
#include "functions.inc"
#include "elementwise.inc"
#include "matmul.inc"
#include "norms.inc"
#include "rows.inc"
#include "attention.inc"
#undef T
#undef T_IS_F32
#undef NAME

#define T float
#define T_IS_F32 1
#define NAME(name) name##_f32
#include "functions.inc"
#include "elementwise.inc"
#include "matmul.inc"
#include "norms.inc"
#include "rows.inc"
#include "attention.inc"
#undef T
#undef T_IS_F32
#undef NAME

#define TEXT_OF(word) #word
#define TEXT(macro) TEXT_OF(macro)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

extern const ag_kernels JOIN(ag_kernels_, AG_KERNELS_ISA);

const ag_kernels JOIN(ag_kernels_, AG_KERNELS_ISA) = {
    .isa = TEXT(AG_KERNELS_ISA),
    .attention = { &attention_kernels_f32, &attention_kernels_f64 },
    .elementwise = { &elementwise_kernels_f32, &elementwise_kernels_f64,
                     &ag_elementwise_kernels_c128 },
    .matmul = { &matmul_kernels_f32, &matmul_kernels_f64 },
    .norms = { &norm_kernels_f32, &norm_kernels_f64 },
    .rows = { &row_kernels_f32, &row_kernels_f64 },
};
