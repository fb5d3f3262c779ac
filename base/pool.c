/* One mutex, two conditions: work for the threads, room for the submitter (who also waits on it
 * for the end).  Jobs are files and chunks, tens of microseconds at least, so the lock is cold. */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/os.h"
#include "base/str.h"

struct job {
    pool_fn fn;
    void *arg;
    int64_t number; /* of submission */
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, room;
    pthread_t *threads;
    int thread_count;

    struct job *ring;
    int ring_size, first, queued;
    int running;
    int64_t submitted;
    bool stopping;

    struct err failure; /* of the lowest failed submission so far; code OK while there is none */
    int64_t failure_number;
};

static void lock(struct pool *p)
{
    CHECK(pthread_mutex_lock(&p->lock) == 0);
}

static void unlock(struct pool *p)
{
    CHECK(pthread_mutex_unlock(&p->lock) == 0);
}

/* Called and returns with the lock held. */
static void run_job(struct pool *p, struct job job)
{
    const bool cancelled = p->failure.code != OK;
    struct err err = ERR_INIT;
    enum err_code rc;

    p->running++;
    unlock(p);
    rc = job.fn(job.arg, cancelled, &err);
    lock(p);
    p->running--;
    /* What a cancelled job answers is a consequence of the failure that is already known. */
    if (cancelled || rc == OK)
        return;
    CHECK(err.code == rc);
    if (p->failure.code == OK || job.number < p->failure_number) {
        p->failure = err;
        p->failure_number = job.number;
    }
}

static void *work(void *arg)
{
    struct pool *p = arg;

    lock(p);
    for (;;) {
        while (p->queued == 0 && !p->stopping)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->queued == 0)
            break;

        const struct job job = p->ring[p->first];

        p->first = (p->first + 1) % p->ring_size;
        p->queued--;
        pthread_cond_signal(&p->room);
        run_job(p, job);
        if (p->queued == 0 && p->running == 0)
            pthread_cond_signal(&p->room);
    }
    unlock(p);
    return NULL;
}

/* Threads start with every signal blocked: signals belong to the main thread. */
static enum err_code start_threads(struct pool *p, int threads, struct err *err)
{
    sigset_t all, before;
    int sys = 0;

    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    while (!sys && p->thread_count < threads) {
        if (!fault_hit(&sys))
            sys = pthread_create(&p->threads[p->thread_count], NULL, work, p);
        if (!sys)
            p->thread_count++;
    }
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return sys ? err_sys(err, sys, "start thread %d of %d", p->thread_count + 1, threads) : OK;
}

enum err_code pool_new(int threads, int queue_max, struct pool **out, struct err *err)
{
    CHECK(threads > 0);
    CHECK(queue_max > 0);
    CHECK(out);

    struct pool *p = mem_zero(1, sizeof(*p));
    enum err_code rc;

    CHECK(pthread_mutex_init(&p->lock, NULL) == 0);
    CHECK(pthread_cond_init(&p->work, NULL) == 0);
    CHECK(pthread_cond_init(&p->room, NULL) == 0);
    p->threads = mem_zero((size_t)threads, sizeof(*p->threads));
    p->ring = mem_zero((size_t)queue_max, sizeof(*p->ring));
    p->ring_size = queue_max;
    rc = start_threads(p, threads, err);
    if (rc) {
        pool_free(p);
        p = NULL;
    }
    *out = p;
    return rc;
}

void pool_submit(struct pool *p, pool_fn fn, void *arg)
{
    CHECK(p);
    CHECK(fn);
    lock(p);
    while (p->queued == p->ring_size)
        pthread_cond_wait(&p->room, &p->lock);
    p->ring[(p->first + p->queued) % p->ring_size] =
        (struct job){.fn = fn, .arg = arg, .number = p->submitted++};
    p->queued++;
    pthread_cond_signal(&p->work);
    unlock(p);
}

enum err_code pool_wait(struct pool *p, struct err *err)
{
    enum err_code rc;

    CHECK(p);
    CHECK(err);
    lock(p);
    while (p->queued > 0 || p->running > 0)
        pthread_cond_wait(&p->room, &p->lock);
    rc = p->failure.code;
    if (rc)
        *err = p->failure;
    p->failure = (struct err)ERR_INIT; /* the next batch starts afresh */
    unlock(p);
    return rc;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    lock(p);
    p->stopping = true; /* threads leave once the queue is empty */
    pthread_cond_broadcast(&p->work);
    unlock(p);
    for (int i = 0; i < p->thread_count; i++)
        CHECK(pthread_join(p->threads[i], NULL) == 0);
    CHECK(p->queued == 0);
    pthread_cond_destroy(&p->room);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p->ring);
    free(p->threads);
    free(p);
}
