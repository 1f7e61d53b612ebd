#include "peak.h"

#include <stdlib.h>
#include <string.h>

/* The instruction sets that this build has: see tensor/kernels/meson.build. */
extern const bench_fma bench_fma_generic;
#ifdef AG_HAVE_AVX2
extern const bench_fma bench_fma_avx2, bench_fma_avx512;
#endif
#ifdef AG_HAVE_NEON
extern const bench_fma bench_fma_neon;
#endif

const bench_fma *bench_fma_of(const char *isa)
{
    const bench_fma *all[] = {
        &bench_fma_generic,
#ifdef AG_HAVE_AVX2
        &bench_fma_avx2,
        &bench_fma_avx512,
#endif
#ifdef AG_HAVE_NEON
        &bench_fma_neon,
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->isa, isa))
            return all[i];
    return NULL;
}

bench_peak bench_peak_measure(const char *isa, const bench_plan *plan)
{
    const bench_fma *fma = bench_fma_of(isa);
    bench_peak peak = { .fma = fma };
    if (!fma)
        return peak;
    peak.f32_times = bench_time(fma->f32, NULL, plan);
    peak.f64_times = bench_time(fma->f64, NULL, plan);
    peak.f32 = fma->operations_f32 / peak.f32_times.best;
    peak.f64 = fma->operations_f64 / peak.f64_times.best;
    return peak;
}

typedef struct copying {
    char *from, *to;
    size_t bytes;
} copying;

static void copy(void *subject)
{
    copying *c = subject;
    memcpy(c->to, c->from, c->bytes);
    *(volatile char *)c->to; /* is read: the copy has to be made */
}

bench_times bench_copy_times(size_t bytes, const bench_plan *plan)
{
    copying c = { malloc(bytes), malloc(bytes), bytes };
    bench_times times = { .n = 0 };
    if (c.from && c.to) {
        memset(c.from, 1, bytes);
        memset(c.to, 2, bytes);
        times = bench_time(copy, &c, plan);
    }
    free(c.from);
    free(c.to);
    return times;
}
