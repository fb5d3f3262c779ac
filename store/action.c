#include "store/action.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/os.h"
#include "store/reader.h"

#define NS INT64_C(1000000000)
#define KEEP_STEP_NS (60 * NS)
#define TICK_NS                                                                                    \
    (20 * NS / 1000) /* of a file system's clock: two changes within one may show one time */
#define TICKS_MAX 3

enum err_code action_key(const json_t *action, struct digest *key, struct buf *canonical,
                         struct err *err)
{
    const size_t before = canonical->n;
    enum err_code rc;

    CHECK(action);
    CHECK(key);
    rc = json_canonical(action, canonical, err);
    if (!rc)
        rc = buf_check(canonical, "action", err);
    if (!rc && canonical->n - before > ACTION_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "the action has %zu bytes, at most %d are allowed",
                     canonical->n - before, ACTION_BYTES_MAX);
    if (!rc)
        sha256_of(canonical->p + before, canonical->n - before, key);
    return rc;
}

enum err_code action_put(struct writer *w, const json_t *action, const struct digest *result,
                         struct digest *key, struct err *err)
{
    struct digest stored;
    struct buf text;
    enum err_code rc;

    CHECK(w);
    CHECK(result);
    buf_init(&text, ACTION_BYTES_MAX);
    rc = action_key(action, key, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_BLOB, text.p, text.n, &stored, err);
    if (!rc) {
        CHECK(digest_eq(&stored, key));
        rc = writer_bind(w, key, result, err);
    }
    buf_release(&text);
    return rc;
}

static enum err_code no_result(const struct digest *key, const struct digest *missing,
                               struct err *err)
{
    char key_text[DIGEST_TEXT + 1], text[DIGEST_TEXT + 1];

    digest_text(key, key_text);
    digest_text(missing, text);
    return err_set(err, ERR_NOT_FOUND,
                   "action %s has a result, but object %s of it is not in the store any more",
                   key_text, text);
}

static enum err_code index_wanted(struct err *err)
{
    return err_set(err, ERR_CONFIG, "results of actions are known on the index host only");
}

enum err_code action_lookup(struct store *st, const struct digest *key, struct digest *result,
                            struct err *err)
{
    struct digest found, missing;
    struct loc loc;
    bool complete;
    int64_t stamp;
    enum err_code rc;

    CHECK(st);
    CHECK(key);
    CHECK(result);
    if (!st->index)
        return index_wanted(err);
    rc = index_action(st->index, key, &found, &stamp, err);
    if (!rc)
        rc = object_locate(st, &found, 1, &loc, err);
    if (rc)
        return rc;
    if (loc.type == 0)
        return no_result(key, &found, err);
    rc = store_complete(st, loc.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB, &found, &complete, &missing,
                        err);
    if (!rc && !complete)
        rc = no_result(key, &missing, err);
    if (!rc)
        *result = found;
    return rc;
}

enum err_code action_lookup_many(struct store *st, const struct digest *keys, size_t n,
                                 struct digest *results, bool *hits, struct err *err)
{
    CHECK(st);
    return st->index ? index_action_many(st->index, keys, n, results, hits, err)
                     : index_wanted(err);
}

/* ---- what was there, is it still? ---------------------------------------------------------------- */

/* Each move into quarantine/ changes the folder's time, also that of a node, which cannot tell the index.  The kernel's clock, not
 * os_now_ns, which tests freeze: the file's time comes from there. */
static enum err_code quarantine_time(struct store *st, uint64_t *out, struct err *err)
{
    enum err_code rc = OK;

    for (int i = 0; !rc && i < TICKS_MAX; i++) {
        struct timespec now, pause = {0};
        struct stat info;
        int64_t mtime, age;

        rc = os_stat(st->quarantine, &info, err);
        if (rc)
            return rc;
        CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
        mtime = (int64_t)info.st_mtim.tv_sec * NS + info.st_mtim.tv_nsec;
        age = (int64_t)now.tv_sec * NS + now.tv_nsec - mtime;
        *out = (uint64_t)mtime;
        if (age >= TICK_NS)
            return OK;
        pause.tv_nsec = age > 0 ? TICK_NS - age : TICK_NS;
        nanosleep(&pause, NULL);
    }
    os_random(out,
              sizeof(*out)); /* it goes on, or the file server's clock is ahead: equal to nothing */
    return rc;
}

enum err_code store_removal_epoch(struct store *st, uint64_t *epoch, struct err *err)
{
    struct index_stat stat;
    uint64_t quarantined = 0;
    enum err_code rc;

    CHECK(st);
    CHECK(epoch);
    if (!st->index)
        return index_wanted(err);
    rc = quarantine_time(st, &quarantined, err);
    if (!rc)
        rc = index_stat(st->index, &stat, err);
    if (rc)
        return rc;
    /* Both only grow, so their sum is equal when both are.  A store that pretends to have lost objects is another one. */
    *epoch = (uint64_t)stat.epoch + quarantined;
    if (st->lose_percent)
        *epoch ^= ((uint64_t)st->lose_seed << 8 | (uint64_t)st->lose_percent) * 0x9E3779B97F4A7C15;
    return OK;
}

/* ---- keeping --------------------------------------------------------------------------------------- */

/* The first bytes decide nearly always, and a call for each of n log n pairs would cost as much as the commit. */
static int digest_order(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    if (x != y)
        return be64toh(x) < be64toh(y) ? -1 : 1;
    return digest_cmp(a, b);
}

/* With lock.commit held: nothing is condemned between this look and the commit. */
static enum err_code keep_sorted(struct store *st, const struct digest *ids, size_t n,
                                 int64_t until_ns, uint64_t epoch, struct err *err)
{
    struct touch_row *touch = mem_alloc((n + 1) * sizeof(*touch));
    struct loc *locs = mem_alloc((n + 1) * sizeof(*locs));
    const struct index_commit c = {.touch = touch, .touch_count = n};
    char text[DIGEST_TEXT + 1];
    uint64_t now = 0;
    enum err_code rc = store_removal_epoch(st, &now, err);

    if (!rc && now != epoch)
        rc = err_set(err, ERR_CHANGED,
                     "something was removed from the store since these results were looked up");
    if (!rc)
        rc = index_get(st->index, ids, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++) {
        touch[i] = (struct touch_row){.id = ids[i],
                                      .kind = locs[i].flags & REC_TREE ? OBJ_TREE : OBJ_BLOB,
                                      .time_ns = until_ns};
        if (locs[i].type == 0) {
            digest_text(&ids[i], text);
            rc = err_set(err, ERR_CHANGED, "result %s, to be kept, is not in the store", text);
        }
    }
    if (!rc)
        rc = index_commit(st->index, &c, err);
    free(touch);
    free(locs);
    return rc;
}

enum err_code action_keep(struct store *st, const struct digest *results, size_t n, int64_t seconds,
                          uint64_t epoch, struct err *err)
{
    struct digest *ids;
    int64_t until;
    int lock = -1;
    enum err_code rc;

    CHECK(st);
    CHECK(results || n == 0);
    if (!st->index)
        return index_wanted(err);
    CHECK(st->mode == STORE_WRITE);
    if (seconds < 0 || seconds > ACTION_KEEP_MAX_S)
        return err_set(
            err, ERR_LIMIT,
            "results can be kept for 0 to %lld seconds, not for %lld; give the run a ref",
            (long long)ACTION_KEEP_MAX_S, (long long)seconds);
    /* Up to the next full minute: who asks again and again changes one row a minute. */
    until = ((os_now_ns() + seconds * NS) / KEEP_STEP_NS + 1) * KEEP_STEP_NS;
    ids = mem_alloc((n + 1) * sizeof(*ids));
    if (n)
        memcpy(ids, results, n * sizeof(*ids));
    qsort(ids, n, sizeof(*ids), digest_order); /* neighbours share pages */
    rc = store_lock_commit(st, COMMIT_WITH_OTHERS, &lock, err);
    if (!rc)
        rc = keep_sorted(st, ids, n, until, epoch, err);
    os_close_quiet(&lock);
    free(ids);
    return rc;
}
