/* A pool of threads that share the tasks of one job at a time.
 *
 * The caller of ag_parallel writes the job down, wakes the threads, takes
 * tasks itself, and waits until every thread is back. Tasks are handed out by
 * an atomic counter. Everything else in the pool is guarded by its mutex,
 * which also makes what the tasks wrote visible to the caller. */
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

typedef struct member {
    struct ag_pool *pool;
    pthread_t thread;
    int worker; /* 1 .. threads - 1; the caller of ag_parallel is worker 0 */
} member;

struct ag_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    uint64_t round; /* counts the jobs: a change means that there is a new one */
    int busy;       /* threads that are not back from this round */
    bool stop;

    ag_task *run;
    void *job;
    int64_t tasks;
    _Atomic int64_t next; /* the first task that nobody has taken */

    int count; /* of members */
    member members[];
};

static void take_tasks(struct ag_pool *pool, int worker)
{
    for (;;) {
        int64_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks)
            return;
        pool->run(pool->job, task, worker);
    }
}

static void *work(void *argument)
{
    member *self = argument;
    struct ag_pool *pool = self->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->round == seen && !pool->stop)
            pthread_cond_wait(&pool->wake, &pool->mutex);
        if (pool->stop)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->mutex);
        take_tasks(pool, self->worker);
        pthread_mutex_lock(&pool->mutex);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

void ag_parallel(ag_context *context, int64_t tasks, ag_task *run, void *job)
{
    struct ag_pool *pool = context->pool;
    if (pool == NULL || tasks <= 1) {
        for (int64_t task = 0; task < tasks; task++)
            run(job, task, 0);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->run = run;
    pool->job = job;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->busy = pool->count;
    pool->round++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);

    take_tasks(pool, 0);

    pthread_mutex_lock(&pool->mutex);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
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
    pool->stop = true;
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
