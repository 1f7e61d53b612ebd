/* Which table of kernels a context uses: the best that was built and that the
 * processor can run, or the one that AG_ISA names in the environment. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

typedef struct candidate {
    const char *isa;
    const ag_kernels *kernels; /* NULL: this build does not have it */
    bool runs;                 /* the processor (and the system) can run it */
} candidate;

/* What this build has: kernels/meson.build compiles the tables and says so. */
#ifdef AG_HAVE_AVX512
extern const ag_kernels ag_kernels_avx512;
#define AVX512 &ag_kernels_avx512
#else
#define AVX512 NULL
#endif
#ifdef AG_HAVE_AVX2
extern const ag_kernels ag_kernels_avx2;
#define AVX2 &ag_kernels_avx2
#else
#define AVX2 NULL
#endif
#ifdef AG_HAVE_NEON
extern const ag_kernels ag_kernels_neon;
#define NEON &ag_kernels_neon
#else
#define NEON NULL
#endif

enum { CANDIDATES = 4 };

/* The best first. */
static void list_candidates(candidate *list)
{
    list[0] = (candidate){ .isa = "avx512", .kernels = AVX512 };
    list[1] = (candidate){ .isa = "avx2", .kernels = AVX2 };
    list[2] = (candidate){ .isa = "neon", .kernels = NEON };
    list[3] = (candidate){ "generic", &ag_kernels_generic, true };
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    list[0].runs = avx2 && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
    list[1].runs = avx2;
#elif defined(__aarch64__)
    list[2].runs = true;
#endif
}

const ag_kernels *ag_kernels_choose(ag_context *context)
{
    candidate list[CANDIDATES];
    list_candidates(list);
    const char *wanted = getenv("AG_ISA");
    bool any = wanted == NULL || wanted[0] == '\0';
    for (int i = 0; i < CANDIDATES; i++) {
        const candidate *c = &list[i];
        if (!any && strcmp(wanted, c->isa) != 0)
            continue;
        if (c->kernels != NULL && c->runs)
            return c->kernels;
        if (!any) {
            ag_fail(context, AG_ERR_ARGUMENT, "AG_ISA=%s: %s", c->isa,
                    c->runs ? "this build of attograd has no kernels for it"
                            : "this processor cannot run it");
            return NULL;
        }
    }
    ag_fail(context, AG_ERR_ARGUMENT,
            "AG_ISA=%.40s: unknown instruction set; there are generic, avx2, avx512 and neon",
            wanted);
    return NULL;
}
