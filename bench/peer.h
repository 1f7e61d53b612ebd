/* Others that are measured in turn with attograd. Each is a process of its own, so
 * that it has its own threads and environment, and may fail without harm.
 *
 * It reads requests, a line each, from its standard input, and answers each
 * with a line: "ok ..", or "no" and the reason. Its first line, without a
 * request, is such an answer too: what it is, or why it is absent. */
#ifndef AG_BENCH_PEER_H
#define AG_BENCH_PEER_H

#include "measure.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { BENCH_ANSWER = 200 };

typedef struct bench_peer {
    pid_t pid; /* 0: there is none */
    int to, from;
    char about[BENCH_ANSWER]; /* what it is; once it is absent, why */
} bench_peer;

/* Starts a process that runs child(subject). Its first line is to be received yet. */
bool bench_peer_start(bench_peer *peer, void (*child)(void *subject), void *subject);

/* Sends a request; waits for at most limit seconds and puts what follows "ok " into
 * answer, of BENCH_ANSWER bytes; both. Where that fails the process is ended: from then on the
 * peer is absent, and about says why. */
bool bench_peer_send(bench_peer *peer, const char *request);
bool bench_peer_receive(bench_peer *peer, double limit, char *answer);
bool bench_peer_ask(bench_peer *peer, const char *request, double limit, char *answer);

/* The first line, into about. */
bool bench_peer_greet(bench_peer *peer);

/* Ends the process, if there is one. */
void bench_peer_stop(bench_peer *peer);

/* One that takes turns: bench_peer_sample asks for "request SECONDS", and the
 * answer is the seconds of one call. */
typedef struct bench_peer_turn {
    bench_peer *peer;
    char request[BENCH_ANSWER];
} bench_peer_turn;

double bench_peer_sample(void *turn, double seconds);

/* OpenBLAS with the kernels of one core type, on one thread; its requests are
 * "f32 M K N SECONDS" and "f64 ..". core is a const char *. */
void bench_openblas_child(void *core);

/* PyTorch, by peer_torch.py, with so many threads; its requests are described there.
 * isa is the library's: where it is avx512, PyTorch is told to use that too. */
typedef struct bench_torch {
    bool compiled; /* with torch.compile; otherwise eager */
    int threads;
    const char *isa;
} bench_torch;

void bench_torch_child(void *torch); /* a bench_torch * */

#endif
