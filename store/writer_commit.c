/* From tmp/ to the index, each step durable before the next:
 *
 *   frames flushed; loose files linked, their folders fsynced; notes and journal records appended to
 *   the last pack; full packs sealed, packs/ fsynced; the last pack sealed, packs/ fsynced; the index
 *   told.
 *
 * A crash before the last seal leaves garbage, after it a pack that index_sync finds. */
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/loose.h"
#include "store/writer_internal.h"

/* ---- packs ------------------------------------------------------------------------------------- */

static void drop_packs(struct writer *w, struct out_pack **packs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sealer_wait(w, packs[i]);
        pack_writer_release(packs[i]->pack);
        free(packs[i]);
    }
}

/* The last one is the commit: on some file systems two new names of one folder may become durable in any order. */
static enum err_code seal(struct writer *w, struct out_pack **packs, size_t n, struct digest *names,
                          struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < n; i++) {
        writer_lock(w);
        packs[i]->finished = true; /* the sealer need not begin with it any more */
        writer_unlock(w);
        if (i > 0 && i + 1 == n)
            rc = os_fsync(w->st->packs, err);
        if (!rc)
            rc = pack_seal(packs[i]->pack, PACK_SYNC_DIR_LATER, &names[i], err);
    }
    if (!rc && n > 0)
        rc = os_fsync(w->st->packs, err);
    return rc;
}

/* Tell the index about sealed packs, and all else of c. */
static enum err_code tell_index(struct writer *w, const struct digest *names, size_t n,
                                struct index_commit *c, struct err *err)
{
    struct pack **packs = mem_zero(n + 1, sizeof(*packs));
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < n; i++)
        rc = pack_open(w->st->packs, &names[i], &packs[i], err);
    c->packs = packs;
    c->pack_count = n;
    if (!rc)
        rc = index_commit(w->st->index, c, err);
    for (size_t i = 0; i < n; i++)
        pack_close(packs[i]);
    free(packs);
    return rc;
}

/* ---- part of a session ------------------------------------------------------------------------- */

/* Full packs that nobody is writing to any more leave the list. */
static size_t take_full(struct writer *w, struct out_pack ***out)
{
    size_t taken = 0, kept = 0;

    writer_lock(w);
    *out = mem_zero(w->full_count + 1, sizeof(**out));
    for (size_t i = 0; i < w->full_count; i++) {
        if (w->full[i]->users == 0)
            (*out)[taken++] = w->full[i];
        else
            w->full[kept++] = w->full[i];
    }
    w->full_count = kept;
    writer_unlock(w);
    return taken;
}

/* A gc keeps packs that are younger than its grace period.  Should one with no grace at all come between now and the commit, a
 * few ids of each pack, checked with the reused ones, will tell. */
#define SAMPLES_PER_PACK 8

struct part {
    struct touch_row *touch;
    struct digest *reused;
    size_t reused_count;
    struct memo_row *memo;
    size_t memo_count;
};

static void collect_reused(struct writer *w, struct part *p)
{
    const int64_t now = os_now_ns();

    if (w->reuse_count < w->ids_max)
        return;
    claims_list(w->ids, ID_REUSED, &p->reused, &p->reused_count);
    p->touch = mem_zero(p->reused_count + 1, sizeof(*p->touch));
    /* Trees are touched as plain bytes: what is below them may not have been written yet. */
    for (size_t i = 0; i < p->reused_count; i++)
        p->touch[i] = (struct touch_row){.id = p->reused[i], .kind = OBJ_BLOB, .time_ns = now};
}

/* What is in the index now need not be remembered here. */
static void forget_part(struct writer *w, struct out_pack **packs, size_t n, const struct part *p)
{
    for (size_t i = 0; i < p->reused_count; i++)
        claims_remove(w->ids, &p->reused[i]);
    w->reuse_count -= (int64_t)p->reused_count;
    for (size_t i = 0; i < n; i++) {
        size_t count;
        const struct pack_entry *toc = pack_writer_toc(packs[i]->pack, &count);
        const size_t step = count / SAMPLES_PER_PACK + 1;

        for (size_t k = 0; k < count; k++) {
            claims_remove(w->ids, &toc[k].id);
            if (k % step == 0)
                w->reuse_count += claims_add(w->ids, &toc[k].id, ID_REUSED);
        }
    }
}

/* Memo rows whose object is in the index by now may go there too. */
static void take_memo(struct writer *w, struct part *p)
{
    size_t kept = 0;

    writer_lock(w);
    p->memo = mem_alloc((w->memo_count + 1) * sizeof(*p->memo));
    for (size_t i = 0; i < w->memo_count; i++) {
        if (claims_get(w->ids, &w->memo[i].id) == ID_ABSENT)
            p->memo[p->memo_count++] = w->memo[i];
        else
            w->memo[kept++] = w->memo[i];
    }
    w->memo_count = kept;
    writer_unlock(w);
}

/* For WEIR_LOSE: what was written is there again. */
static void found_again(struct writer *w)
{
    struct digest *ids = NULL;
    size_t n = 0;

    if (w->st->lose_percent == 0)
        return;
    claims_list(w->ids, ID_WRITTEN, &ids, &n);
    for (size_t i = 0; i < n; i++)
        (void)!claims_add(w->st->found_again, &ids[i], ID_WRITTEN);
    free(ids);
}

static enum err_code part_to_index(struct writer *w, struct out_pack **packs, size_t n,
                                   const struct digest *names, struct err *err)
{
    struct index_commit c = {0};
    struct part p = {0};
    enum err_code rc;

    take_memo(w, &p); /* before new ids leave the set: their rows come with the next part */
    collect_reused(w, &p);
    c.touch = p.touch;
    c.touch_count = c.reused_count = p.reused_count;
    c.reused = p.reused;
    c.memo = p.memo;
    c.memo_count = p.memo_count;
    rc = tell_index(w, names, n, &c, err);
    if (!rc) {
        found_again(w);
        forget_part(w, packs, n, &p);
    }
    free(p.touch);
    free(p.reused);
    free(p.memo);
    return rc;
}

enum err_code commit_part(struct writer *w, struct err *err)
{
    struct out_pack **packs = NULL;
    const size_t n = take_full(w, &packs);
    struct digest *names = mem_zero(n + 1, sizeof(*names));
    enum err_code rc;

    rc = seal(w, packs, n, names, err);
    if (!rc && w->st->index)
        rc = part_to_index(w, packs, n, names, err);
    w->raced |= rc == ERR_CHANGED;
    drop_packs(w, packs, n);
    free(packs);
    free(names);
    writer_lock(w);
    w->committing = false;
    writer_unlock(w);
    return rc ? writer_fail(w, err) : OK;
}

/* ---- the whole session ------------------------------------------------------------------------- */

/* Before the journal records of this session are on disk, and with lock.commit held: from there on index_sync would believe them, whatever
 * becomes of us. */
static enum err_code check_reused(struct writer *w, const struct digest *ids, size_t n,
                                  struct err *err)
{
    struct index_stat now;
    struct loc *locs;
    enum err_code rc;

    if (n == 0 && !w->relies)
        return OK;
    rc = index_stat(w->st->index, &now, err);
    if (rc || (now.epoch == w->epoch && now.condemned == 0))
        return rc;
    if (w->relies)
        return err_set(err, ERR_CHANGED, "a gc has been at work since this was looked at");
    locs = mem_zero(n, sizeof(*locs));
    rc = index_get(w->st->index, ids, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (locs[i].type == 0)
            rc = err_set(err, ERR_CHANGED, "a gc has removed objects that this add relied on");
    free(locs);
    return rc;
}

static enum err_code publish_loose(struct writer *w, struct err *err)
{
    uint8_t dirs[32] = {0};
    enum err_code rc = OK;
    size_t i = 0;

    for (; !rc && i < w->loose_count; i++) {
        const struct loose_note *l = &w->loose[i];
        bool existed;

        rc = loose_publish(w->st, l->tmp, &l->id, l->size, &existed, err);
        dirs[l->id.b[0] / 8] |= (uint8_t)(1u << (l->id.b[0] % 8));
    }
    if (rc)
        return rc;
    w->loose_count = 0; /* nothing in tmp/ any more */
    return loose_sync(w->st, dirs, err);
}

static enum err_code put_notes(struct writer *w, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < w->note_count; i++) {
        struct note *n = &w->notes[i];

        rc = buf_check(&n->payload, "recipe", err);
        if (!rc)
            rc = writer_pack(w, &n->entry, n->payload.p, n->payload.n, err);
        buf_release(&n->payload);
    }
    w->note_count = 0;
    return rc;
}

/* The greatest stamp wins, also when the clock was set back since the last one. */
static uint64_t later_than(int64_t before)
{
    const int64_t now = os_now_ns();

    return (uint64_t)(now > before ? now : before + 1);
}

static enum err_code put_bind(struct writer *w, const struct bind_note *b, struct err *err)
{
    struct pack_entry e = {.id = b->key, .type = REC_BIND};
    struct digest present;
    int64_t stamp = 0;
    enum err_code rc = ERR_NOT_FOUND;

    if (w->st->index)
        rc = index_action(w->st->index, &b->key, &present, &stamp, err);
    if (!rc && digest_eq(&present, &b->result))
        return OK;
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    e.stamp = later_than(stamp);
    return writer_pack(w, &e, b->result.b, DIGEST_BYTES, err);
}

static enum err_code put_ref(struct writer *w, const struct ref_note *r, struct err *err)
{
    struct pack_entry e = {.type = REC_REF};
    struct ref_row present = {0};
    enum err_code rc = ERR_NOT_FOUND;
    struct buf payload;

    if (w->st->index)
        rc = index_ref(w->st->index, str_of(r->name), &present, err);
    if (!rc && present.kind == r->kind && digest_eq(&present.digest, &r->digest))
        return OK;
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    sha256_of(r->name, strlen(r->name), &e.id);
    e.stamp = later_than(present.stamp);
    buf_init(&payload, ERR_TEXT_MAX + PACK_RECORD_HEADER);
    ref_encode(&r->digest, (uint8_t)r->kind, str_of(r->name), &payload);
    rc = buf_check(&payload, "ref", err);
    if (!rc)
        rc = writer_pack(w, &e, payload.p, payload.n, err);
    buf_release(&payload);
    return rc;
}

static enum err_code put_journal(struct writer *w, struct err *err)
{
    enum err_code rc = put_notes(w, err);

    for (size_t i = 0; !rc && i < w->bind_count; i++)
        rc = put_bind(w, &w->binds[i], err);
    for (size_t i = 0; !rc && i < w->ref_count; i++)
        rc = put_ref(w, &w->refs[i], err);
    return rc;
}

/* Everything there is.  The sealer, where there is one, makes the last pack durable while the names of the others are given. */
static size_t last_packs(struct writer *w, struct out_pack ***out)
{
    struct out_pack **packs;
    size_t n;

    writer_lock(w);
    if (w->open) {
        w->full = writer_roomy(w->full, w->full_count, &w->full_cap, sizeof(*w->full));
        w->full[w->full_count++] = w->open;
        w->open = NULL;
        pthread_cond_signal(&w->sealer.work);
    }
    n = w->full_count;
    packs = mem_zero(n + 1, sizeof(*packs));
    for (size_t i = 0; i < n; i++)
        packs[i] = w->full[i];
    writer_unlock(w);
    *out = packs;
    return n;
}

static enum err_code seal_all(struct writer *w, const struct digest *reused, size_t reused_count,
                              struct err *err)
{
    struct out_pack **packs = NULL;
    const size_t n = last_packs(w, &packs);
    struct digest *names = mem_zero(n + 1, sizeof(*names));
    enum err_code rc;

    rc = seal(w, packs, n, names, err);
    writer_lock(w);
    w->full_count = 0; /* ours now, to be freed */
    writer_unlock(w);
    if (!rc && w->st->index) {
        struct index_commit c = {
            .reused = reused,
            .reused_count = reused_count,
            .touch = w->touch,
            .touch_count = w->touch_count,
            .memo = w->memo,
            .memo_count = w->memo_count,
        };
        const int64_t now = os_now_ns();

        for (size_t i = 0; i < w->touch_count; i++)
            w->touch[i].time_ns = now;
        rc = tell_index(w, names, n, &c, err);
    }
    drop_packs(w, packs, n);
    free(packs);
    free(names);
    return rc;
}

/* Ready for the next puts. */
static enum err_code begin_again(struct writer *w, struct err *err)
{
    struct index_stat now = {0};
    enum err_code rc = OK;

    adopt_finish(w);
    for (size_t i = 0; i < w->ref_count; i++)
        free(w->refs[i].name);
    w->ref_count = w->bind_count = w->touch_count = w->memo_count = 0;
    w->reuse_count = 0;
    w->relies = false;
    found_again(w);
    claims_clear(w->ids);
    if (w->st->index)
        rc = index_stat(w->st->index, &now, err);
    w->epoch = now.epoch;
    return rc;
}

enum err_code writer_commit(struct writer *w, struct err *err)
{
    struct digest *reused = NULL;
    size_t reused_count = 0;
    enum err_code rc;
    int lock = -1;

    CHECK(w);
    CHECK(!w->committing);
    rc = writer_alive(w, err);
    if (rc)
        return rc;
    w->committing = true; /* no partial ones on the way */
    claims_list(w->ids, ID_REUSED, &reused, &reused_count);
    if (w->st->index)
        rc = store_lock_commit(w->st, COMMIT_WITH_OTHERS, &lock, err);
    if (!rc && w->st->index)
        rc = check_reused(w, reused, reused_count, err);
    if (!rc)
        rc = small_flush_all(w, err);
    if (!rc)
        rc = publish_loose(w, err);
    if (!rc)
        rc = put_journal(w, err);
    if (!rc)
        rc = seal_all(w, reused, reused_count, err);
    os_close_quiet(&lock);
    w->raced |= rc == ERR_CHANGED;
    free(reused);
    w->committing = false;
    if (rc)
        return writer_fail(w, err);
    return begin_again(w, err);
}
