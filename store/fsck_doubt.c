/* fsck_doubt.c - what is wrong with a pack?  Asked of the few that are not whole, record by record, without believing any length. */
#include <stdlib.h>
#include <string.h>

#include "store/fsck_internal.h"
#include "store/pack_internal.h"

/* ---- the table of contents, in the order of the file ---------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct pack_entry *x = *(const struct pack_entry *const *)a;
    const struct pack_entry *y = *(const struct pack_entry *const *)b;

    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    if (x->pos != y->pos)
        return x->pos < y->pos ? -1 : 1;
    return x->raw < y->raw ? -1 : x->raw > y->raw;
}

enum err_code toc_by_offset(struct pack *pack, const struct pack_entry ***out, size_t *count,
                            struct err *err)
{
    const struct pack_entry *toc;
    enum err_code rc = pack_toc(pack, &toc, count, err);

    if (rc) {
        *count = 0;
        return rc;
    }
    *out = mem_alloc((*count + 1) * sizeof(**out));
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = &toc[i];
    qsort(*out, *count, sizeof(**out), by_offset);
    return OK;
}

bool toc_matches(const struct pack_entry *h, const struct pack_entry *t, size_t n)
{
    if (h->type != t->type || h->enc != t->enc || h->stored != t->stored || h->crc != t->crc ||
        h->stamp != t->stamp)
        return false;
    return h->type == REC_FRAME ||
           (n == 1 && h->flags == t->flags && h->raw == t->raw && digest_eq(&h->id, &t->id));
}

/* ---- record by record ------------------------------------------------------------------------------- */

struct diagnosis {
    struct checker *c;
    const char *file;
    const struct pack_entry **toc; /* by offset; NULL when there is none to believe */
    size_t count;
    bool *visited; /* of each entry */
    size_t findings;
};

static void report(struct diagnosis *d, const struct digest *id, uint32_t off, const char *what)
{
    fsck_found(checker_fsck(d->c), FOUND_PACK, d->file, id, "pack %s, record at %u: %s", d->file,
               off, what);
    d->findings++;
}

/* The first entry at or after off. */
static size_t entry_at(const struct diagnosis *d, uint32_t off)
{
    size_t low = 0, high = d->toc ? d->count : 0;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (d->toc[mid]->off < off)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Entry i, when the toc has one and puts it at off. */
static const struct pack_entry *at_off(const struct diagnosis *d, size_t i, uint32_t off)
{
    return d->toc && i < d->count && d->toc[i]->off == off ? d->toc[i] : NULL;
}

/* Every object that the toc puts at this offset, or, when there is none, the one that the record itself names. */
static void report_all(struct diagnosis *d, uint32_t off, const struct digest *otherwise,
                       const char *what)
{
    size_t i = entry_at(d, off);

    const struct pack_entry *t = at_off(d, i, off);

    if (!t)
        report(d, otherwise, off, what);
    for (; t; t = at_off(d, ++i, off)) {
        report(d, &t->id, off, what);
        d->visited[i] = true;
    }
}

static void compare_with_toc(struct diagnosis *d, const struct pack_entry *e)
{
    size_t i = entry_at(d, e->off);

    const struct pack_entry *t = at_off(d, i, e->off);

    if (d->toc && !t)
        report(d, NULL, e->off, "the table of contents does not know it");
    for (; t; t = at_off(d, ++i, e->off)) {
        d->visited[i] = true;
        if (!toc_matches(e, t, 1))
            report(d, &t->id, e->off, "the table of contents describes another record");
    }
}

static enum err_code judge_record(struct diagnosis *d, const struct pack_entry *e,
                                  const struct buf *payload, struct err *err)
{
    const struct frame_member *members;
    const char *why, *raw;
    size_t count;
    bool good;
    enum err_code rc;

    rc = checker_record(d->c, e, payload->p ? payload->p : "", payload->n,
                        checker_fsck(d->c)->o->level, &good, &why, err);
    if (rc)
        return rc;
    if (good) {
        compare_with_toc(d, e);
        return OK;
    }
    members = checker_members(d->c, &count, &raw);
    if (e->type != REC_FRAME || !members) {
        report_all(d, e->off, e->type == REC_FRAME ? NULL : &e->id, why);
        return OK;
    }
    compare_with_toc(d, e);
    for (size_t i = 0; i < count; i++)
        if (!checker_member_good(d->c, i))
            report(d, &members[i].id, e->off, why);
    return OK;
}

static enum err_code walk_slowly(struct diagnosis *d, struct pack *pack, struct err *err)
{
    uint32_t off = PACK_HEADER_BYTES;
    struct buf payload;
    enum err_code rc = OK;
    bool end = false;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    while (!rc && !end) {
        const uint32_t at = off;
        struct pack_entry e = {0};

        rc = pack_scan(pack, &off, &e, &payload, &end, err);
        if (rc == ERR_DAMAGED) {
            report_all(d, at, NULL, err->text);
            *err = (struct err)ERR_INIT;
            rc = OK;
        } else if (!rc && !end) {
            rc = judge_record(d, &e, &payload, err);
        }
    }
    for (size_t i = 0; !rc && d->toc && i < d->count; i++)
        if (!d->visited[i])
            report(d, &d->toc[i]->id, d->toc[i]->off, "no record is there");
    buf_release(&payload);
    return rc;
}

enum err_code fsck_doubt(struct checker *c, const char *file, const struct digest *name,
                         struct err *err)
{
    struct diagnosis d = {.c = c, .file = file};
    struct pack *pack = NULL, *damaged = NULL;
    enum err_code rc;

    rc = pack_open(checker_fsck(c)->st->packs, name, &pack, err);
    if (!rc)
        rc = toc_by_offset(pack, &d.toc, &d.count, err);
    if (rc == ERR_DAMAGED || rc == ERR_VERSION) {
        fsck_found(checker_fsck(c), FOUND_PACK, file, NULL, "%s", err->text);
        d.findings++;
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    d.visited = mem_zero(d.count + 1, sizeof(*d.visited));
    if (!rc && (checker_fsck(c)->o->level > FSCK_QUICK || !d.toc)) {
        rc = pack_open_damaged(checker_fsck(c)->st->packs, file, &damaged, err);
        if (rc == ERR_DAMAGED) { /* not even a regular file */
            *err = (struct err)ERR_INIT;
            rc = OK;
        } else if (!rc) {
            rc = walk_slowly(&d, damaged, err);
        }
    }
    /* The first pass had a doubt, and that is enough. */
    if (!rc && d.findings == 0)
        fsck_found(checker_fsck(c), FOUND_PACK, file, NULL,
                   "pack %s: its parts do not fit together", file);
    free(d.visited);
    free(d.toc);
    pack_close(damaged);
    pack_close(pack);
    return rc;
}
