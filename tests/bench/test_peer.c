/* Peers answer, refuse, end or are late; none of it harms. */
#include "bench/peer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Answers requests by their first word. */
static void child(void *greeting)
{
    char line[64];
    puts(greeting);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "echo", 4))
            printf("ok %s", line);
        else if (!strncmp(line, "half", 4))
            printf("ok 0.5\n");
        else if (!strncmp(line, "late", 4))
            sleep(60);
        else if (!strncmp(line, "crash", 5))
            abort();
        else
            printf("no such word\n");
        fflush(stdout);
    }
}

static void start(bench_peer *peer, const char *greeting)
{
    cr_assert(bench_peer_start(peer, child, (void *)greeting));
}

static void expect_absent(const bench_peer *peer, const char *why)
{
    char answer[BENCH_ANSWER];
    bench_peer copy = *peer;
    cr_expect_eq(peer->pid, 0);
    cr_expect_str_eq(peer->about, why);
    cr_expect_not(bench_peer_ask(&copy, "echo", 10, answer), "and stays so");
    cr_expect_str_eq(copy.about, why);
}

Test(bench_peer, requests_and_answers)
{
    bench_peer peer;
    char answer[BENCH_ANSWER];
    start(&peer, "ok I am here");
    cr_assert(bench_peer_greet(&peer));
    cr_expect_str_eq(peer.about, "I am here");
    cr_expect(bench_peer_ask(&peer, "echo 1", 10, answer));
    cr_expect_str_eq(answer, "echo 1");
    cr_expect(bench_peer_send(&peer, "echo 2"));
    cr_expect(bench_peer_receive(&peer, 10, answer));
    cr_expect_str_eq(answer, "echo 2");
    bench_peer_turn turn = { &peer, "half" };
    cr_expect_eq(bench_peer_sample(&turn, 0.25), 0.5);
    bench_peer_stop(&peer);
    cr_expect_eq(peer.pid, 0);
    cr_expect_lt(bench_peer_sample(&turn, 0.25), 0);
    bench_peer_stop(&peer);
}

Test(bench_peer, absent_with_a_reason, .timeout = 60)
{
    const struct {
        const char *greeting, *request, *why;
    } cases[] = {
        { "no library", NULL, "library" }, { "hello", NULL, "gave no answer" },
        { "ok", NULL, "gave no answer" },  { "ok here", "what", "such word" },
        { "ok here", "crash", "ended" },   { "ok here", "late", "took too long" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench_peer peer;
        char answer[BENCH_ANSWER];
        start(&peer, cases[i].greeting);
        bool good = bench_peer_greet(&peer);
        cr_expect_eq(good, cases[i].request != NULL);
        if (good)
            cr_expect_not(bench_peer_ask(&peer, cases[i].request, 0.2, answer));
        expect_absent(&peer, cases[i].why);
    }
}

Test(bench_peer, pytorch_without_a_python_is_absent)
{
    bench_peer peer;
    bench_torch torch = { .threads = 1, .isa = "generic" };
    setenv("AG_BENCH_PYTHON", "/no/such/python", 1);
    cr_assert(bench_peer_start(&peer, bench_torch_child, &torch));
    cr_expect_not(bench_peer_greet(&peer));
    expect_absent(&peer, "/no/such/python cannot be run");
}

/* Where there is no such library it says so; where there is, it multiplies. */
Test(bench_peer, openblas_is_there_or_absent)
{
    bench_peer peer;
    cr_assert(bench_peer_start(&peer, bench_openblas_child, "Haswell"));
    if (!bench_peer_greet(&peer)) {
        expect_absent(&peer, "libopenblas.so.0 is not there");
        return;
    }
    bench_peer_turn turn = { &peer, "f32 3 4 5" };
    cr_expect_gt(bench_peer_sample(&turn, 1e-4), 0);
    snprintf(turn.request, sizeof turn.request, "f64 5 4 3");
    cr_expect_gt(bench_peer_sample(&turn, 1e-4), 0);
    snprintf(turn.request, sizeof turn.request, "f64 5");
    cr_expect_lt(bench_peer_sample(&turn, 1e-4), 0);
}
