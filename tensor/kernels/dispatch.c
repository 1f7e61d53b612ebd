/* Which table of kernels a context uses: the best that was built and that the
 * processor can run, or the one that AG_ISA names in the environment. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#ifdef AG_HAVE_AVX2
extern const ag_kernels ag_kernels_avx2;
#endif
#ifdef AG_HAVE_AVX512
extern const ag_kernels ag_kernels_avx512;
#endif

typedef struct candidate {
    const char *isa;
    const ag_kernels *kernels; /* NULL: this build does not have it */
    bool runs;                 /* the processor (and the system) can run it */
} candidate;

enum { CANDIDATES = 3 };

/* The best first. */
static void list_candidates(candidate *list)
{
    list[0] = (candidate){ .isa = "avx512" };
    list[1] = (candidate){ .isa = "avx2" };
    list[2] = (candidate){ "generic", &ag_kernels_generic, true };
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    list[0].runs = avx2 && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
    list[1].runs = avx2;
#endif
#ifdef AG_HAVE_AVX512
    list[0].kernels = &ag_kernels_avx512;
#endif
#ifdef AG_HAVE_AVX2
    list[1].kernels = &ag_kernels_avx2;
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
            "AG_ISA=%.40s: unknown instruction set; there are generic, avx2 and avx512", wanted);
    return NULL;
}
