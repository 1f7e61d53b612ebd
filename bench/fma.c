/* The multiply-adds of one instruction set; see peak.h. Without fused ones
 * (generic) a product and a sum are two instructions, as in the kernels. */
#include "peak.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* So many independent sums keep every unit busy (latency times units is 8 to 16), and fit into
 * 32 registers, or 16, beside x and y. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { CHAINS = 20 };
#else
enum { CHAINS = 12 };
#endif
enum { REPEATS = 10000 };

#ifdef __clang__
#define UNROLL_FULLY _Pragma("clang loop unroll(full)")
#else
#define UNROLL_FULLY _Pragma("GCC unroll 32")
#endif

#define T double
#define NAME(name) name##_f64
#include "fma.inc"
#undef T
#undef NAME

#define T float
#define NAME(name) name##_f32
#include "fma.inc"
#undef T
#undef NAME

#define TEXT_OF(word) #word
#define TEXT(macro) TEXT_OF(macro)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

extern const bench_fma JOIN(bench_fma_, AG_KERNELS_ISA);

const bench_fma JOIN(bench_fma_, AG_KERNELS_ISA) = {
    .isa = TEXT(AG_KERNELS_ISA),
    .operations_f32 = 2.0 * REPEATS * CHAINS * (VECTOR_BYTES / sizeof(float)),
    .operations_f64 = 2.0 * REPEATS * CHAINS * (VECTOR_BYTES / sizeof(double)),
    .f32 = multiply_add_f32,
    .f64 = multiply_add_f64,
};
