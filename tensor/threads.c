/* A pool of threads that share the tasks of one job at a time.
 *
 * The caller of ag_parallel writes the job down, wakes the threads, takes tasks
 * itself, and waits until every task is done: not until every thread is back,
 * so a thread that wakes up late costs nothing.
 *
 * Tickets are handed out by counting down: whoever takes left from n to n - 1
 * with n > 0 has task n - 1. A ticket is what makes it safe to read the job:
 * while one of its tasks is not finished the caller waits, and writes no other.
 *
 * The jobs of a training step follow each other within microseconds, which is
 * less than it takes to wake a thread. So a thread without work looks for more
 * SPINS times before it goes to sleep, and so does a caller that waits. */
#include "internal.h"

#ifdef AG_NO_THREADS

bool ag_pool_start(ag_context *context)
{
    return context->threads <= 1 ||
           ag_fail(context, AG_ERR_THREAD, "%d threads wanted, but this build has no threads",
                   context->threads);
}

void ag_pool_stop(ag_context *context)
{
    (void)context;
}

void ag_parallel(ag_context *context, int64_t tasks, ag_task *run, void *job)
{
    (void)context;
    for (int64_t task = 0; task < tasks; task++)
        run(job, task, 0);
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum { SPINS = 2000 }; /* some 20 microseconds */

typedef struct member {
    struct ag_pool *pool;
    pthread_t thread;
    int worker; /* 1 .. threads - 1; the caller of ag_parallel is worker 0 */
} member;

struct ag_pool {
    ag_task *run;
    void *job;
    _Atomic int64_t left;       /* tickets; below 1 there are none */
    _Atomic int64_t unfinished; /* tasks, of those taken and of those left */
    _Atomic uint64_t round;     /* counts the jobs: a change means that there is a new one */

    pthread_mutex_t mutex; /* for falling asleep and waking up */
    pthread_cond_t wake, done;
    int asleep; /* threads that wait for wake */
    bool caller_asleep;
    _Atomic bool stop;

    int count; /* of members */
    member members[];
};

/* Tells the processor that this thread only waits. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(struct ag_pool *pool, int worker)
{
    for (;;) {
        int64_t ticket = atomic_fetch_sub_explicit(&pool->left, 1, memory_order_acquire);
        if (ticket < 1)
            return;
        pool->run(pool->job, ticket - 1, worker);
        if (atomic_fetch_sub_explicit(&pool->unfinished, 1, memory_order_acq_rel) > 1)
            continue;
        pthread_mutex_lock(&pool->mutex);
        if (pool->caller_asleep)
            pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->mutex);
        return;
    }
}

static bool has_news(struct ag_pool *pool, uint64_t seen)
{
    return atomic_load_explicit(&pool->round, memory_order_acquire) != seen ||
           atomic_load_explicit(&pool->stop, memory_order_acquire);
}

static void *work(void *argument)
{
    member *self = argument;
    struct ag_pool *pool = self->pool;
    uint64_t seen = 0;
    while (!atomic_load_explicit(&pool->stop, memory_order_acquire)) {
        for (int i = 0; i < SPINS && !has_news(pool, seen); i++)
            relax();
        if (!has_news(pool, seen)) {
            pthread_mutex_lock(&pool->mutex);
            pool->asleep++;
            while (!has_news(pool, seen))
                pthread_cond_wait(&pool->wake, &pool->mutex);
            pool->asleep--;
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = atomic_load_explicit(&pool->round, memory_order_acquire);
        take_tasks(pool, self->worker);
    }
    return NULL;
}

static int64_t unfinished(struct ag_pool *pool)
{
    return atomic_load_explicit(&pool->unfinished, memory_order_acquire);
}

static void wait_for_all(struct ag_pool *pool)
{
    for (int i = 0; i < SPINS && unfinished(pool) > 0; i++)
        relax();
    if (unfinished(pool) == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->caller_asleep = true;
    while (unfinished(pool) > 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    pool->caller_asleep = false;
    pthread_mutex_unlock(&pool->mutex);
}

void ag_parallel(ag_context *context, int64_t tasks, ag_task *run, void *job)
{
    struct ag_pool *pool = context->pool;
    if (pool == NULL || tasks <= 1) {
        for (int64_t task = 0; task < tasks; task++)
            run(job, task, 0);
        return;
    }
    pool->run = run;
    pool->job = job;
    atomic_store_explicit(&pool->unfinished, tasks, memory_order_relaxed);
    atomic_store_explicit(&pool->left, tasks, memory_order_release);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    if (pool->asleep > 0)
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    take_tasks(pool, 0);
    wait_for_all(pool);
}

/* Signals are for the program's own threads, so the pool's block them all. */
static int start_member(member *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&self->thread, NULL, work, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

bool ag_pool_start(ag_context *context)
{
    int wanted = context->threads - 1;
    if (wanted < 1)
        return true;
    size_t bytes = sizeof(struct ag_pool) + (size_t)wanted * sizeof(member);
    struct ag_pool *pool = ag_memory_new(context, AG_KEEP, bytes);
    if (pool == NULL)
        return false;
    memset(pool, 0, bytes);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    context->pool = pool;
    for (int i = 0; i < wanted; i++) {
        pool->members[i].pool = pool;
        pool->members[i].worker = i + 1;
        int failure = start_member(&pool->members[i]);
        if (failure != 0) {
            ag_pool_stop(context);
            return ag_fail(context, AG_ERR_THREAD, "thread %d of %d cannot be started: %s", i + 2,
                           context->threads, strerror(failure));
        }
        pool->count = i + 1;
    }
    return true;
}

/* The pool's memory belongs to the keep arena and goes with it. */
void ag_pool_stop(ag_context *context)
{
    struct ag_pool *pool = context->pool;
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store_explicit(&pool->stop, true, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->count; i++)
        pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    context->pool = NULL;
}

#endif
