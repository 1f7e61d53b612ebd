/* A pool of threads that share the tasks of one job at a time.
 *
 * The caller of ag_parallel writes the job down, wakes the threads, takes tasks
 * itself, and waits until every task is done: not until every thread is back,
 * so a thread that wakes up late costs nothing.
 *
 * Each worker has a share of the tasks, and helps the others when it has done its
 * own. In every job of so many tasks a worker's share is the same: so the rows that
 * it wrote in one job, it reads in the next, from its own processor's cache.
 *
 * Tickets are handed out by counting a share's tasks down: whoever takes left from
 * n to n - 1 with n > 0 has one. A ticket is what makes it safe to read the job:
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

/* Worker 0 is the caller of ag_parallel; the others are the pool's threads. */
typedef struct worker {
    struct ag_pool *pool;
    pthread_t thread;
    int index;
    _Alignas(AG_ALIGNMENT) _Atomic int64_t left; /* tickets of its share; below 1 there are none */
} worker;

struct ag_pool {
    ag_task *run;
    void *job;
    int64_t tasks;
    _Atomic int64_t unfinished; /* tasks, of those taken and of those left */
    _Atomic uint64_t round;     /* counts the jobs: a change means that there is a new one */

    pthread_mutex_t mutex; /* for falling asleep and waking up */
    pthread_cond_t wake, done;
    int asleep; /* threads that wait for wake */
    bool caller_asleep;
    _Atomic bool stop;

    int shares;  /* as many as workers were wanted */
    int started; /* workers, the caller among them */
    worker workers[];
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

/* The first task of a share, or behind the last one of the share before. */
static int64_t first_task(const struct ag_pool *pool, int share)
{
    return pool->tasks * share / pool->shares;
}

static void wake_caller(struct ag_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    if (pool->caller_asleep)
        pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->mutex);
}

static void take_tasks_of(struct ag_pool *pool, int share, int index)
{
    for (;;) {
        _Atomic int64_t *left = &pool->workers[share].left;
        int64_t ticket = atomic_fetch_sub_explicit(left, 1, memory_order_acquire);
        if (ticket < 1)
            return;
        pool->run(pool->job, first_task(pool, share + 1) - ticket, index);
        if (atomic_fetch_sub_explicit(&pool->unfinished, 1, memory_order_acq_rel) == 1)
            wake_caller(pool);
    }
}

static void take_tasks(struct ag_pool *pool, int index)
{
    for (int i = 0; i < pool->shares; i++)
        take_tasks_of(pool, (index + i) % pool->shares, index);
}

static bool has_news(struct ag_pool *pool, uint64_t seen)
{
    return atomic_load_explicit(&pool->round, memory_order_acquire) != seen ||
           atomic_load_explicit(&pool->stop, memory_order_acquire);
}

static void *work(void *argument)
{
    worker *self = argument;
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
        take_tasks(pool, self->index);
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
    pool->tasks = tasks;
    atomic_store_explicit(&pool->unfinished, tasks, memory_order_relaxed);
    for (int i = 0; i < pool->shares; i++)
        atomic_store_explicit(&pool->workers[i].left, first_task(pool, i + 1) - first_task(pool, i),
                              memory_order_release);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    if (pool->asleep > 0)
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    take_tasks(pool, 0);
    wait_for_all(pool);
}

/* Signals are for the program's own threads, so the pool's block them all. */
static int start_worker(worker *self)
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
    int threads = context->threads;
    if (threads <= 1)
        return true;
    size_t bytes = sizeof(struct ag_pool) + (size_t)threads * sizeof(worker);
    struct ag_pool *pool = ag_memory_new(context, AG_KEEP, bytes);
    if (pool == NULL)
        return false;
    memset(pool, 0, bytes);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    context->pool = pool;
    pool->shares = threads;
    for (pool->started = 1; pool->started < threads; pool->started++) {
        worker *next = &pool->workers[pool->started];
        next->pool = pool;
        next->index = pool->started;
        int failure = start_worker(next);
        if (failure != 0) {
            int number = pool->started + 1;
            ag_pool_stop(context);
            return ag_fail(context, AG_ERR_THREAD, "thread %d of %d cannot be started: %s", number,
                           threads, strerror(failure));
        }
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
    for (int i = 1; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    context->pool = NULL;
}

#endif
