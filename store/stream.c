/* Everybody moves through the file in the same direction; positions are file offsets, and the ring
 * holds [oldest position, filled).  Reading has a thread of its own, so that the hashing ones have work
 * while the caller waits for the disk it writes to: without it the digest of the whole, which is the
 * longest chain, stood still for a quarter of the time.  One lock: it is taken once per megabyte or
 * chunk. */
#include "store/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash_pair.h"
#include "base/os.h"

#define STREAM_THREADS 3
#define READ_STEP ((int64_t)1 << 20)
#define HASH_STEP ((int64_t)1 << 20)
#define LONE_STEP ((uint32_t)256 << 10) /* one chunk alone: look soon whether another has come */

struct lane {
    bool active;
    uint64_t number; /* of its chunk */
    uint32_t pos;    /* bytes hashed */
};

struct stream {
    uint8_t *ring; /* 2 * STREAM_RING of address space, STREAM_RING of memory */
    pthread_mutex_t lock;
    pthread_cond_t room;     /* for the reader */
    pthread_cond_t work;     /* for the two that hash */
    pthread_cond_t progress; /* for the caller */
    pthread_t threads[STREAM_THREADS];
    int thread_count;
    int busy; /* threads that are at work without the lock */
    bool running, ending;
    struct err failure; /* of the reader */

    /* The caller's side. */
    int fd;
    int64_t size;
    size_t lent; /* chunks handed out and not yet released */

    /* The reader's side. */
    struct cutter *cutter;
    int64_t cut_off; /* where the next chunk starts */

    /* Shared. */
    int64_t filled;
    int64_t released_off; /* the caller is done with everything before */
    int64_t whole_off;    /* hashed into whole */
    struct sha256 whole;
    /* Chunks by number: [first, ready) hashed, [first, hashing) taken by a lane, [first, cut) known.  Entry number % STREAM_CHUNKS. */
    uint64_t first, ready, hashing, cut;
    struct stream_chunk chunks[STREAM_CHUNKS];
    bool done[STREAM_CHUNKS];
    struct lane lanes[2];
    struct hash_pair pair;
};

static void enter(struct stream *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
}

static void leave(struct stream *s)
{
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
}

static uint8_t *at(struct stream *s, int64_t off)
{
    return s->ring + off % STREAM_RING;
}

/* ---- the reader --------------------------------------------------------------------------------- */

/* With the lock.  How many bytes can be read now? */
static int64_t readable(const struct stream *s)
{
    const int64_t oldest = s->whole_off < s->released_off ? s->whole_off : s->released_off;
    const int64_t room = oldest / STREAM_PAGE * STREAM_PAGE + STREAM_RING - s->filled;
    const int64_t left = s->size - s->filled;
    const int64_t n = left < READ_STEP ? left : READ_STEP;

    return n <= room && s->cut - s->first < STREAM_CHUNKS ? n : 0;
}

/* Has the cutter a whole window of what lies before filled, and the table room for a chunk? */
static bool cuttable(const struct stream *s, int64_t filled, uint64_t cut, uint64_t first)
{
    const int64_t have = filled - s->cut_off, left = s->size - s->cut_off;

    return have > 0 && (have == left || have >= CUT_CHUNK_MAX) && cut - first < STREAM_CHUNKS;
}

/* first: of a while ago, there may be more room by now. */
static uint64_t cut_chunks(struct stream *s, int64_t filled, uint64_t cut, uint64_t first)
{
    for (; cuttable(s, filled, cut, first); cut++) {
        const int64_t left = s->size - s->cut_off;
        struct stream_chunk *c = &s->chunks[cut % STREAM_CHUNKS];

        c->p = at(s, s->cut_off);
        c->off = s->cut_off;
        c->len = (uint32_t)cut_next(
            s->cutter, c->p, (size_t)(left < CUT_CHUNK_MAX ? left : CUT_CHUNK_MAX), &c->hint);
        CHECK(c->len > 0);
        s->done[cut % STREAM_CHUNKS] = false;
        s->cut_off += c->len;
    }
    return cut;
}

static enum err_code fill(struct stream *s, int64_t filled, int64_t n, struct err *err)
{
    size_t got;
    enum err_code rc = os_pread(s->fd, at(s, filled), (size_t)n, filled, &got, err);

    if (!rc && (int64_t)got < n)
        rc = err_set(err, ERR_CHANGED, "ends at byte %lld, it had %lld when it was opened",
                     (long long)filled + (long long)got, (long long)s->size);
    return rc;
}

static void *read_ahead(void *arg)
{
    struct stream *s = arg;

    enter(s);
    while (!s->ending) {
        const bool idle = !s->running || s->failure.code != OK;
        const int64_t n = idle ? 0 : readable(s), filled = s->filled;
        const uint64_t first = s->first;
        uint64_t cut = s->cut;
        struct err err = ERR_INIT;
        enum err_code rc = OK;

        if (n == 0 && (idle || !cuttable(s, filled, cut, first))) {
            pthread_cond_wait(&s->room, &s->lock);
            continue;
        }
        s->busy++;
        leave(s);
        if (n > 0)
            rc = fill(s, filled, n, &err);
        if (!rc)
            cut = cut_chunks(s, filled + n, cut, first);
        enter(s);
        s->busy--;
        if (rc) {
            s->failure = err;
        } else {
            s->filled = filled + n;
            s->cut = cut;
            pthread_cond_broadcast(&s->work);
        }
        if (rc || !s->running)
            pthread_cond_signal(&s->progress);
    }
    leave(s);
    return NULL;
}

/* ---- thread 1: the whole ----------------------------------------------------------------------- */

static void *hash_whole(void *arg)
{
    struct stream *s = arg;

    enter(s);
    while (!s->ending) {
        int64_t n = s->running ? s->filled - s->whole_off : 0;

        if (n == 0) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        if (n > HASH_STEP)
            n = HASH_STEP;

        const uint8_t *p = at(s, s->whole_off);

        s->busy++;
        leave(s);
        sha256_update(&s->whole, p, (size_t)n);
        enter(s);
        s->busy--;
        s->whole_off += n;
        pthread_cond_signal(&s->room);
        if (s->whole_off == s->size || !s->running)
            pthread_cond_signal(&s->progress);
    }
    leave(s);
    return NULL;
}

/* ---- thread 2: the chunks ---------------------------------------------------------------------- */

/* How far may this lane go before the other one could do something else? */
static void choose_steps(const struct stream *s, uint32_t n[2])
{
    uint32_t left[2];

    for (int i = 0; i < 2; i++) {
        const struct lane *l = &s->lanes[i];

        left[i] = l->active ? s->chunks[l->number % STREAM_CHUNKS].len - l->pos : 0;
    }
    for (int i = 0; i < 2; i++) {
        const uint32_t most = left[1 - i] > 0 ? left[1 - i] : LONE_STEP;

        n[i] = left[i] < most ? left[i] : most;
    }
}

static void fill_lanes(struct stream *s)
{
    for (int i = 0; i < 2 && s->running; i++) {
        if (s->lanes[i].active || s->hashing == s->cut)
            continue;
        s->lanes[i] = (struct lane){.active = true, .number = s->hashing++};
        hash_pair_start(&s->pair, i);
    }
}

/* With the lock: the lanes moved on by n. */
static void advance_lanes(struct stream *s, const uint32_t n[2], const struct digest ids[2])
{
    for (int i = 0; i < 2; i++) {
        struct lane *l = &s->lanes[i];

        if (!l->active)
            continue;

        const size_t slot = l->number % STREAM_CHUNKS;

        l->pos += n[i];
        if (l->pos == s->chunks[slot].len) {
            s->chunks[slot].id = ids[i];
            s->done[slot] = true;
            l->active = false;
        }
    }
    while (s->ready < s->hashing && s->done[s->ready % STREAM_CHUNKS])
        s->ready++;
}

/* Is it worth waiting for a second chunk?  The reader is at it, unless there is no room. */
static bool partner_comes(const struct stream *s)
{
    return s->failure.code == OK && readable(s) > 0;
}

static void *hash_chunks(void *arg)
{
    struct stream *s = arg;

    enter(s);
    while (!s->ending) {
        const uint8_t *p[2] = {NULL, NULL};
        struct digest ids[2];
        bool last[2] = {false, false};
        uint32_t n[2];

        fill_lanes(s);
        choose_steps(s, n);
        if (!s->running || n[0] + n[1] == 0 || ((n[0] == 0 || n[1] == 0) && partner_comes(s))) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        for (int i = 0; i < 2; i++) {
            const struct lane *l = &s->lanes[i];
            const struct stream_chunk *c = &s->chunks[l->number % STREAM_CHUNKS];

            if (l->active) {
                p[i] = c->p + l->pos;
                last[i] = l->pos + n[i] == c->len;
            }
        }
        s->busy++;
        leave(s);
        hash_pair_update(&s->pair, p[0], n[0], p[1], n[1]);
        for (int i = 0; i < 2; i++)
            if (last[i])
                hash_pair_final(&s->pair, i, &ids[i]);
        enter(s);
        s->busy--;
        advance_lanes(s, n, ids);
        pthread_cond_signal(&s->progress);
    }
    leave(s);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

static enum err_code map_ring(struct stream *s, struct err *err)
{
    const int rw = PROT_READ | PROT_WRITE;
    uint8_t *p = MAP_FAILED;
    int sys = 0, fd = -1;

    if (!fault_hit(&sys)) {
        fd = memfd_create("weir ring", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, STREAM_RING) != 0)
            sys = errno;
    }
    if (!sys) {
        /* Twice the address space, whose second half is then the memory of the first again. */
        p = mmap(NULL, 2 * (size_t)STREAM_RING, rw, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            sys = errno;
        else
            s->ring = p;
    }
    /* cppcheck-suppress leakReturnValNotUsed ; it lies within p */
    if (!sys && mmap(p + STREAM_RING, STREAM_RING, rw, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        sys = errno;
    os_close_quiet(&fd);
    return sys ? err_sys(err, sys, "map a buffer of %d MiB", STREAM_RING >> 20) : OK;
}

/* Threads start with every signal blocked: signals belong to the main thread. */
static enum err_code start_threads(struct stream *s, struct err *err)
{
    void *(*const work[STREAM_THREADS])(void *) = {read_ahead, hash_whole, hash_chunks};
    sigset_t all, before;
    int sys = 0;

    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    while (!sys && s->thread_count < STREAM_THREADS) {
        if (!fault_hit(&sys))
            sys = pthread_create(&s->threads[s->thread_count], NULL, work[s->thread_count], s);
        if (!sys)
            s->thread_count++;
    }
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return sys ? err_sys(err, sys, "start a thread that reads or hashes") : OK;
}

enum err_code stream_new(struct stream **out, struct err *err)
{
    struct stream *s = mem_zero(1, sizeof(*s));
    enum err_code rc;

    CHECK(out);
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    CHECK(pthread_cond_init(&s->room, NULL) == 0);
    CHECK(pthread_cond_init(&s->work, NULL) == 0);
    CHECK(pthread_cond_init(&s->progress, NULL) == 0);
    rc = map_ring(s, err);
    if (!rc)
        rc = start_threads(s, err);
    if (rc) {
        stream_free(s);
        s = NULL;
    }
    *out = s;
    return rc;
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    enter(s);
    s->ending = true;
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->room);
    leave(s);
    for (int i = 0; i < s->thread_count; i++)
        CHECK(pthread_join(s->threads[i], NULL) == 0);
    if (s->ring)
        munmap(s->ring, 2 * (size_t)STREAM_RING);
    sha256_release(&s->whole);
    hash_pair_release(&s->pair);
    pthread_cond_destroy(&s->progress);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->room);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

enum err_code stream_start(struct stream *s, int fd, int64_t size, struct cutter *cutter,
                           struct err *err)
{
    int sys = 0;

    CHECK(s);
    CHECK(size > 0);
    CHECK(cutter);
    if (fault_hit(&sys))
        return err_sys(err, sys, "start reading");
    /* Only a hint, and only for files that are not in memory yet. */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    enter(s);
    CHECK(!s->running);
    s->fd = fd;
    s->size = size;
    s->cutter = cutter;
    s->cut_off = s->released_off = s->filled = s->whole_off = 0;
    s->lent = 0;
    s->first = s->ready = s->hashing = s->cut = 0;
    s->lanes[0].active = s->lanes[1].active = false;
    s->failure = (struct err)ERR_INIT;
    sha256_init(&s->whole);
    s->running = true;
    pthread_cond_signal(&s->room);
    leave(s);
    return OK;
}

void stream_stop(struct stream *s)
{
    CHECK(s);
    enter(s);
    s->running = false;
    while (s->busy > 0)
        pthread_cond_wait(&s->progress, &s->lock);
    leave(s);
}

/* ---- the caller's side ------------------------------------------------------------------------- */

/* With the lock: what was handed out last time is free now. */
static void release(struct stream *s)
{
    if (s->lent > 0) {
        const struct stream_chunk *c = &s->chunks[(s->first + s->lent - 1) % STREAM_CHUNKS];

        s->released_off = c->off + c->len;
        s->first += s->lent;
        s->lent = 0;
        pthread_cond_signal(&s->room);
    }
}

/* With the lock.  True when the caller can be given s->lent chunks, or there are none left. */
static bool hand_out(struct stream *s, size_t want)
{
    const uint64_t ready = s->ready - s->first, known = s->cut - s->first;
    const uint64_t wrap = STREAM_CHUNKS - s->first % STREAM_CHUNKS;

    if (s->released_off == s->size)
        return true;
    if (ready == 0 || (ready < want && ready < known))
        return false;
    s->lent = (size_t)(ready < wrap ? ready : wrap);
    return true;
}

enum err_code stream_take(struct stream *s, size_t want, const struct stream_chunk **chunks,
                          size_t *count, struct err *err)
{
    enum err_code rc;

    CHECK(s);
    CHECK(want > 0);
    CHECK(chunks);
    CHECK(count);
    *count = 0;
    enter(s);
    CHECK(s->running);
    release(s);
    while (s->failure.code == OK && !hand_out(s, want))
        pthread_cond_wait(&s->progress, &s->lock);
    rc = s->failure.code;
    if (rc)
        *err = s->failure;
    *chunks = &s->chunks[s->first % STREAM_CHUNKS];
    *count = rc ? 0 : s->lent;
    leave(s);
    return rc;
}

void stream_finish(struct stream *s, struct digest *whole)
{
    CHECK(s);
    CHECK(whole);
    enter(s);
    CHECK(s->running);
    CHECK(s->released_off == s->size);
    while (s->whole_off < s->size)
        pthread_cond_wait(&s->progress, &s->lock);
    s->running = false;
    while (s->busy > 0)
        pthread_cond_wait(&s->progress, &s->lock);
    leave(s);
    sha256_final(&s->whole, whole);
}
