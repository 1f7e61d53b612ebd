/* PyTorch as a peer: Python runs peer_torch.py. */
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bench_torch_child(void *torch_)
{
    const bench_torch *torch = torch_;
    const char *python = getenv("AG_BENCH_PYTHON");
    char threads[16];
    if (!python || !*python)
        python = "python3";
    if (!strcmp(torch->isa, "avx512")) { /* the fastest of what they may choose */
        setenv("ATEN_CPU_CAPABILITY", "avx512", 1);
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    }
    setenv("TORCHINDUCTOR_COMPILE_THREADS", "1", 1); /* no processes of its own */
    snprintf(threads, sizeof threads, "%d", torch->threads);
    execlp(python, python, AG_BENCH_SOURCE "/peer_torch.py", torch->compiled ? "compiled" : "eager",
           threads, (char *)NULL);
    printf("no %.150s cannot be run\n", python);
}
