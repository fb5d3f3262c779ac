#include "store/fsck_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "base/pool.h"

#define PAGE 4096
#define DIRECT_MIN (1 << 20)          /* bytes; what is smaller hurts no cache */
#define SAMPLES 64                    /* pages looked for in the cache */
#define AHEAD_MIN ((int64_t)4 << 20)  /* a thread for less would cost more than it saves */
#define HASH_STEP ((size_t)256 << 10) /* hashed while it is still in the processor's cache */

/* Are most of its pages in memory?  A question about speed alone: when the kernel does not tell, the answer is yes. */
static bool is_cached(int fd, int64_t bytes)
{
    const int64_t pages = bytes / PAGE;
    void *map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
    int present = 0;

    if (map == MAP_FAILED)
        return true;
    for (int64_t i = 0; i < SAMPLES; i++) {
        unsigned char in_core = 1;

        if (mincore((char *)map + pages * i / SAMPLES * PAGE, PAGE, &in_core) != 0)
            in_core = 1;
        present += in_core & 1;
    }
    munmap(map, (size_t)bytes);
    return 2 * present >= SAMPLES;
}

static bool set_direct(int fd, bool on)
{
    const int flags = fcntl(fd, F_GETFL);

    CHECK(flags >= 0);
    return fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

void scan_init(struct scan *s, int fd, int64_t file_bytes)
{
    s->fd = fd;
    atomic_init(&s->direct, false);
    if (file_bytes >= DIRECT_MIN && sysconf(_SC_PAGESIZE) == PAGE && !is_cached(fd, file_bytes))
        atomic_store(&s->direct, set_direct(fd, true));
}

void span_init(struct span *s, struct scan *file)
{
    s->file = file;
    s->from = 0;
    s->n = 0;
}

void span_release(struct span *s)
{
    free(s->p);
    *s = (struct span){0};
}

static enum err_code fill(struct span *s, int64_t from, size_t wanted, struct err *err)
{
    const size_t usual = atomic_load(&s->file->direct) ? SPAN_BYTES : HASH_STEP;
    enum err_code rc;

    if (wanted > s->size || usual > s->size) {
        free(s->p);
        s->size = wanted > usual ? (wanted + PAGE - 1) / PAGE * PAGE : usual;
        s->p = aligned_alloc(PAGE, s->size);
        CHECK(s->p);
    }
    s->from = from;
    s->n = 0;
    rc = os_pread(s->file->fd, s->p, s->size, from, &s->n, err);
    /* The flag may be accepted and reads refused, at the latest at an end of the file that is no page's. */
    if (rc && err->sys == EINVAL && atomic_exchange(&s->file->direct, false)) {
        *err = (struct err)ERR_INIT;
        (void)set_direct(s->file->fd, false);
        rc = os_pread(s->file->fd, s->p, s->size, from, &s->n, err);
    }
    if (rc)
        s->n = 0;
    return rc;
}

static bool holds(const struct span *s, int64_t off, size_t n)
{
    return off >= s->from && off + (int64_t)n <= s->from + (int64_t)s->n;
}

enum err_code span_at(struct span *s, int64_t off, size_t n, const uint8_t **out, struct err *err)
{
    const size_t before = (size_t)(off % PAGE);
    enum err_code rc = OK;

    if (!holds(s, off, n))
        rc = fill(s, off - (int64_t)before, before + n, err);
    if (!rc && !holds(s, off, n))
        rc = err_set(err, ERR_DAMAGED, "the file is shorter than it was");
    *out = rc ? NULL : s->p + (off - s->from);
    return rc;
}

enum err_code span_some(struct span *s, int64_t off, size_t max, const uint8_t **out, size_t *n,
                        struct err *err)
{
    enum err_code rc = OK;

    *n = 0;
    *out = NULL;
    if (!holds(s, off, 1))
        rc = fill(s, off - off % PAGE, 1, err);
    if (rc || !holds(s, off, 1))
        return rc;
    *n = s->n - (size_t)(off - s->from);
    *n = *n < max ? *n : max;
    *out = s->p + (off - s->from);
    return OK;
}

/* ---- a whole file -------------------------------------------------------------------------------- */

struct ahead {
    struct span span;
    int64_t off;
    const uint8_t *p; /* what was read there */
    size_t n;
};

static enum err_code read_ahead(void *arg, bool cancelled, struct err *err)
{
    struct ahead *a = arg;

    a->n = 0;
    return cancelled ? OK : span_some(&a->span, a->off, SPAN_BYTES, &a->p, &a->n, err);
}

/* While one span is hashed the other is filled.  pool: NULL when reading does not wait for a disk. */
static enum err_code hash_spans(struct ahead spans[2], struct pool *pool, struct sha256 *sha,
                                void (*step)(void *arg, int64_t bytes), void *arg, struct err *err)
{
    enum err_code rc = read_ahead(&spans[0], false, err);

    for (int now = 0; !rc && spans[now].n > 0; now = !now) {
        const struct ahead *this = &spans[now];
        struct ahead *next = &spans[!now];

        next->off = this->off + (int64_t)this->n;
        if (pool)
            pool_submit(pool, read_ahead, next);
        for (size_t at = 0; at < this->n; at += HASH_STEP)
            sha256_update(sha, this->p + at, this->n - at < HASH_STEP ? this->n - at : HASH_STEP);
        if (step)
            step(arg, (int64_t)this->n);
        rc = pool ? pool_wait(pool, err) : read_ahead(next, false, err);
    }
    return rc;
}

enum err_code scan_hash(struct scan *s, int64_t file_bytes, struct digest *out,
                        void (*step)(void *arg, int64_t bytes), void *arg, struct err *err)
{
    struct ahead spans[2] = {0};
    struct sha256 sha = {0};
    struct pool *pool = NULL;
    enum err_code rc = OK;

    span_init(&spans[0].span, s);
    span_init(&spans[1].span, s);
    sha256_init(&sha);
    if (file_bytes >= AHEAD_MIN && atomic_load(&s->direct))
        rc = pool_new(1, 1, &pool, err);
    if (!rc)
        rc = hash_spans(spans, pool, &sha, step, arg, err);
    pool_free(pool);
    sha256_final(&sha, out);
    sha256_release(&sha);
    span_release(&spans[0].span);
    span_release(&spans[1].span);
    return rc;
}
