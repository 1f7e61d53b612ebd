#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_LIMIT = 120, SAMPLE_LIMIT = 120 }; /* seconds */

/* The standard input and output of the new process are the two pipes; what it
 * complains about is not shown. A processor that lacks an instruction ends it,
 * which needs no core file. */
static void become_child(int in, int out, void (*child)(void *subject), void *subject)
{
    signal(SIGPIPE, SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        freopen("/dev/null", "w", stderr))
        child(subject);
    fflush(stdout);
    _exit(0);
}

static bool absent(bench_peer *peer, const char *why)
{
    bench_peer_stop(peer);
    snprintf(peer->about, sizeof peer->about, "%s", why);
    return false;
}

/* One line, without its end, within the seconds. */
static bool read_line(bench_peer *peer, double limit, char *line, size_t size)
{
    double end = bench_now() + limit;
    size_t used = 0;
    for (;;) {
        double left = end - bench_now();
        struct pollfd ready = { .fd = peer->from, .events = POLLIN };
        if (left <= 0 || poll(&ready, 1, (int)(1000 * left) + 1) == 0)
            return absent(peer, "took too long");
        char c;
        ssize_t n = read(peer->from, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return absent(peer, "ended");
        if (c == '\n')
            break;
        if (used + 1 < size)
            line[used++] = c;
    }
    line[used] = '\0';
    return true;
}

bool bench_peer_receive(bench_peer *peer, double limit, char *answer)
{
    char line[BENCH_ANSWER];
    if (peer->pid == 0 || !read_line(peer, limit, line, sizeof line))
        return false;
    if (strncmp(line, "ok ", 3) != 0)
        return absent(peer, strncmp(line, "no ", 3) ? "gave no answer" : line + 3);
    snprintf(answer, BENCH_ANSWER, "%s", line + 3);
    return true;
}

bool bench_peer_start(bench_peer *peer, void (*child)(void *subject), void *subject)
{
    int requests[2], answers[2];
    *peer = (bench_peer){ .pid = 0 };
    if (pipe(requests) != 0)
        return absent(peer, "no pipe");
    if (pipe(answers) != 0) {
        close(requests[0]);
        close(requests[1]);
        return absent(peer, "no pipe");
    }
    fflush(stdout); /* or the child would have it too */
    pid_t pid = fork();
    if (pid == 0) {
        close(requests[1]);
        close(answers[0]);
        become_child(requests[0], answers[1], child, subject);
    }
    close(requests[0]);
    close(answers[1]);
    *peer = (bench_peer){ .pid = pid > 0 ? pid : 0, .to = requests[1], .from = answers[0] };
    if (pid < 0) {
        close(requests[1]);
        close(answers[0]);
        return absent(peer, "no process");
    }
    fcntl(peer->to, F_SETFD, FD_CLOEXEC); /* a program that a later peer runs has no use for them */
    fcntl(peer->from, F_SETFD, FD_CLOEXEC);
    return true;
}

bool bench_peer_greet(bench_peer *peer)
{
    char about[BENCH_ANSWER];
    if (!bench_peer_receive(peer, START_LIMIT, about))
        return false;
    memcpy(peer->about, about, sizeof about);
    return true;
}

bool bench_peer_send(bench_peer *peer, const char *request)
{
    char line[BENCH_ANSWER + 1];
    if (peer->pid == 0)
        return false;
    int length = snprintf(line, sizeof line, "%s\n", request);
    if (write(peer->to, line, (size_t)length) != length) /* shorter than a pipe's smallest buffer */
        return absent(peer, "ended");
    return true;
}

bool bench_peer_ask(bench_peer *peer, const char *request, double limit, char *answer)
{
    return bench_peer_send(peer, request) && bench_peer_receive(peer, limit, answer);
}

void bench_peer_stop(bench_peer *peer)
{
    if (peer->pid == 0)
        return;
    close(peer->to);
    close(peer->from);
    kill(peer->pid, SIGKILL);
    waitpid(peer->pid, NULL, 0);
    peer->pid = 0;
}

double bench_peer_sample(void *turn, double seconds)
{
    bench_peer_turn *t = turn;
    char request[BENCH_ANSWER], answer[BENCH_ANSWER];
    snprintf(request, sizeof request, "%.150s %g", t->request, seconds);
    if (!bench_peer_ask(t->peer, request, SAMPLE_LIMIT, answer))
        return -1;
    double taken = strtod(answer, NULL);
    return taken > 0 ? taken : -1;
}
