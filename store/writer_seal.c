/* A full pack is made durable while its successor is being filled: an fdatasync takes milliseconds of
 * waiting and next to no work, and eight of them one after the other are a good part of the time in
 * which a GiB is hashed.  Nothing becomes visible by it: names are given at the commit.
 *
 * The thread looks for its work in the list of full packs; what it works on is marked as sealing, and
 * may be sealed by another thread meanwhile (the pack's own lock makes that one wait), but not freed. */
#include <signal.h>
#include <string.h>

#include "base/os.h"
#include "store/writer_internal.h"

/* With the lock. */
static struct out_pack *next_pack(const struct writer *w)
{
    for (size_t i = 0; i < w->full_count; i++)
        if (w->full[i]->users == 0 && !w->full[i]->sealing && !w->full[i]->finished)
            return w->full[i];
    return NULL;
}

static void *seal_full(void *arg)
{
    struct writer *w = arg;

    writer_lock(w);
    while (!w->sealer.ending) {
        struct out_pack *p = next_pack(w);
        struct err err = ERR_INIT;

        if (!p) {
            pthread_cond_wait(&w->sealer.work, &w->lock);
            continue;
        }
        p->sealing = true;
        writer_unlock(w);
        if (pack_finish(p->pack, &err) != OK)
            (void)writer_fail(w, &err);
        writer_lock(w);
        p->sealing = false;
        p->finished = true; /* or failed: then the session has */
        pthread_cond_broadcast(&w->sealer.done);
    }
    writer_unlock(w);
    return NULL;
}

/* Threads start with every signal blocked: signals belong to the main thread. */
enum err_code sealer_start(struct writer *w, struct err *err)
{
    sigset_t all, before;
    int sys = 0;

    writer_lock(w);
    if (!w->sealer.running) {
        sigfillset(&all);
        CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
        if (!fault_hit(&sys))
            sys = pthread_create(&w->sealer.thread, NULL, seal_full, w);
        CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
        w->sealer.running = sys == 0;
    }
    writer_unlock(w);
    return sys ? err_sys(err, sys, "start a thread that seals packs") : OK;
}

void sealer_wait(struct writer *w, const struct out_pack *p)
{
    writer_lock(w);
    while (p->sealing)
        pthread_cond_wait(&w->sealer.done, &w->lock);
    writer_unlock(w);
}

void sealer_stop(struct writer *w)
{
    writer_lock(w);
    w->sealer.ending = true;
    pthread_cond_signal(&w->sealer.work);
    writer_unlock(w);
    if (w->sealer.running)
        CHECK(pthread_join(w->sealer.thread, NULL) == 0);
    w->sealer.running = false;
}
