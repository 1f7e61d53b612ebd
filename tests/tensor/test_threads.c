/* The thread pool: every task once, nothing left behind. And the choice of an
 * instruction set, which happens at the same moment. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "../../tensor/internal.h"

enum { TASKS = 1000 };

typedef struct counts {
    int task[TASKS];
    _Atomic int worker[256];
} counts;

static void count(void *job, int64_t task, int worker)
{
    counts *c = job;
    c->task[task]++;
    atomic_fetch_add(&c->worker[worker], 1);
}

Test(tensor_threads, every_task_runs_once)
{
    for (int threads = 1; threads <= 5; threads++) {
        ag_context *context = ag_context_new(&(ag_context_options){ .threads = threads });
        static counts c;
        memset(&c, 0, sizeof c);
        for (int round = 1; round <= 200; round++) {
            int64_t tasks = round % 7 == 0 ? TASKS : round % 7;
            ag_parallel(context, tasks, count, &c);
        }
        int total = 0, by_worker = 0;
        for (int task = 0; task < TASKS; task++)
            total += c.task[task];
        for (int worker = 0; worker < 256; worker++) {
            cr_assert(worker < threads || c.worker[worker] == 0, "worker %d", worker);
            by_worker += c.worker[worker];
        }
        /* 200 rounds: 28 with TASKS, 172 with 1 to 6 */
        int expected = 28 * TASKS;
        for (int round = 1; round <= 200; round++)
            expected += round % 7;
        cr_assert_eq(total, expected, "%d threads: %d tasks", threads, total);
        cr_assert_eq(by_worker, expected);
        cr_assert_eq(c.task[TASKS - 1], 28);
        cr_assert_eq(ag_context_finish(context), 0);
    }
}

Test(tensor_threads, no_task_no_call)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = 3 });
    static counts c;
    ag_parallel(context, 0, count, &c);
    cr_assert_eq(c.task[0], 0);
    cr_assert_eq(ag_context_finish(context), 0);
}

/* Tasks wait for each other, so this ends only if the threads really run at once. */
static void meet(void *job, int64_t task, int worker)
{
    (void)task;
    (void)worker;
    pthread_barrier_wait(job);
}

Test(tensor_threads, threads_run_at_once, .timeout = 20)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = 4 });
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, 4);
    for (int round = 0; round < 50; round++)
        ag_parallel(context, 4, meet, &barrier);
    pthread_barrier_destroy(&barrier);
    cr_assert_eq(ag_context_finish(context), 0);
}

/* What tasks wrote is there when ag_parallel returns, and what the caller
 * wrote before is there for the tasks. */
static void add_one(void *job, int64_t task, int worker)
{
    (void)worker;
    ((int *)job)[task]++;
}

Test(tensor_threads, writes_are_seen)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = 3 });
    int numbers[16] = { 0 };
    for (int round = 0; round < 2000; round++) {
        ag_parallel(context, 16, add_one, numbers);
        for (int i = 0; i < 16; i++)
            cr_assert_eq(numbers[i]++, 2 * round + 1);
    }
    cr_assert_eq(ag_context_finish(context), 0);
}

static void add_one_slowly(void *job, int64_t task, int worker)
{
    nanosleep(&(struct timespec){ .tv_nsec = worker == 0 ? 0 : 1000000 }, NULL);
    add_one(job, task, worker);
}

Test(tensor_threads, the_slowest_thread_is_waited_for)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = 3 });
    int numbers[300] = { 0 };
    for (int round = 1; round <= 100; round++) {
        ag_parallel(context, 300, add_one_slowly, numbers);
        for (int i = 0; i < 300; i++)
            cr_assert_eq(numbers[i], round);
    }
    cr_assert_eq(ag_context_finish(context), 0);
}

Test(tensor_threads, two_contexts_have_their_own_threads)
{
    ag_context *a = ag_context_new(&(ag_context_options){ .threads = 2 });
    ag_context *b = ag_context_new(&(ag_context_options){ .threads = 2 });
    int numbers[2][16] = { { 0 } };
    for (int round = 0; round < 100; round++) {
        ag_parallel(a, 16, add_one, numbers[0]);
        ag_parallel(b, 16, add_one, numbers[1]);
    }
    cr_assert_eq(numbers[0][15] + numbers[1][3], 200);
    cr_assert_eq(ag_context_finish(b), 0);
    cr_assert_eq(ag_context_finish(a), 0);
}

/* Room for the stacks of a few threads, but not of 200. */
Test(tensor_threads, threads_that_cannot_start_are_an_error)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer needs more address space than this test leaves");
#endif
    struct rlimit before, limit;
    getrlimit(RLIMIT_AS, &before);
    limit = before;
    limit.rlim_cur = (rlim_t)512 << 20;
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    ag_context *context = ag_context_new(&(ag_context_options){ .threads = 200 });
    setrlimit(RLIMIT_AS, &before);
    cr_assert_eq(ag_status(context), AG_ERR_THREAD);
    cr_assert(strstr(ag_error_message(context), "of 200 cannot be started"), "%s",
              ag_error_message(context));
    cr_assert_eq(ag_context_threads(context), 1, "it goes on with one thread");
    static counts c;
    ag_parallel(context, 3, count, &c);
    cr_assert_eq(c.task[2], 1);
    ag_context_free(context);
}

Test(tensor_threads, an_instruction_set_can_be_forced)
{
    setenv("AG_ISA", "generic", 1);
    ag_context *context = ag_context_new(NULL);
    cr_assert_str_eq(ag_context_isa(context), "generic");
    cr_assert_eq(ag_context_finish(context), 0);
    setenv("AG_ISA", "", 1);
    context = ag_context_new(NULL);
    cr_assert_eq(ag_context_finish(context), 0);
}

Test(tensor_threads, an_unknown_instruction_set_is_an_error)
{
    setenv("AG_ISA", "avx1024", 1);
    ag_context *context = ag_context_new(NULL);
    cr_assert_eq(ag_status(context), AG_ERR_ARGUMENT);
    cr_assert_str_eq(ag_error_message(context),
                     "AG_ISA=avx1024: unknown instruction set; there are "
                     "generic, avx2, avx512 and neon");
    ag_context_free(context);
}
