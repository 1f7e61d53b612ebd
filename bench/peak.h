/* What the processor could do at most: multiply-adds, and copying of memory. */
#ifndef AG_BENCH_PEAK_H
#define AG_BENCH_PEAK_H

#include "measure.h"

#include <stddef.h>

/* Runs multiply-adds, a = a x + y, that wait neither for memory nor for each
 * other. fma.c is compiled once for each instruction set that the library's
 * kernels are, with the same flags. */
typedef struct bench_fma {
    const char *isa;
    double operations_f32, operations_f64; /* floating-point operations of one call */
    void (*f32)(void *unused);
    void (*f64)(void *unused);
} bench_fma;

/* That of an instruction set by the name the library gives it; NULL if there is none. */
const bench_fma *bench_fma_of(const char *isa);

/* What per cents refer to: operations per second of one core, the fastest sample. */
typedef struct bench_peak {
    double f32, f64;
    bench_times f32_times, f64_times;
    const bench_fma *fma;
} bench_peak;

bench_peak bench_peak_measure(const char *isa, const bench_plan *plan);

/* The times of copying bytes from one array to another. n = 0 without memory. */
bench_times bench_copy_times(size_t bytes, const bench_plan *plan);

#endif
