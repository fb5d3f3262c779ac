/* index_commit.c - merging packs, and all that is committed with them.
 *
 * A small commit is one transaction.  A larger one is several: first its packs get their numbers
 * and rows that say "incomplete" (no records), so that every location that follows can be resolved;
 * then sorted batches of locations, harmless by themselves, because the pack files are durable; and
 * last the transaction that counts, with everything that can be refused: reused ids are verified,
 * pack rows completed, refs, binds and touches set, "commits" raised.  After a crash in between
 * index_sync finds the packs unknown and merges them again.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "base/os.h"
#include "store/index_internal.h"

#define SYNC_OBJECTS                                                                               \
    (1 << 20)          /* candidates merged at a time: about 100 MiB while they are sorted */
#define SYNC_PACKS 256 /* open files at a time */
#define SYNC_TRIES 3   /* a gc condemning things while packs are merged sends us back so often */
#define MTIME_MARGIN_NS 20000000

struct merging { /* a pack of the commit */
    struct pack *pack;
    struct digest name;
    uint32_t number;
    bool known; /* merged already, by us before or by somebody's index_sync */
};

struct job {
    const struct index_commit *c;
    struct merging *packs;
    size_t pack_count;
    struct journal j;
    size_t objects_done, batch; /* of the batches before the last transaction */
    bool in_one;                /* transaction */
    bool touch_binds;
    size_t memo_done;
    int64_t now;
};

static int merging_cmp(const void *a, const void *b)
{
    return digest_cmp(&((const struct merging *)a)->name, &((const struct merging *)b)->name);
}

/* ---- the steps of a write transaction ---- */

static enum err_code number_pack(struct view *v, struct merging *m, bool complete, size_t records,
                                 int64_t *next, struct err *err)
{
    struct pack_row row = {.name = m->name,
                           .bytes = pack_bytes(m->pack),
                           .records = complete ? (int64_t)records : 0,
                           .created_ns = pack_created_ns(m->pack)};
    bool found, was_complete;
    enum err_code rc = pack_number(v, &m->name, &row.number, &was_complete, &found, err);

    if (rc)
        return rc;
    if (!found) {
        if (*next > UINT32_MAX)
            return err_set(err, ERR_LIMIT, "index: out of pack numbers; run weir store rebuild");
        row.number = (uint32_t)(*next)++;
    }
    m->number = row.number;
    if (found && (was_complete || !complete))
        return OK;
    return pack_row_put(v, &row, err);
}

/* Rows of all packs that are not known yet; numbers into packs[].number. */
static enum err_code number_packs(struct view *v, struct job *job, bool complete, struct err *err)
{
    const struct pack_entry *toc;
    int64_t next;
    size_t records;
    enum err_code rc = meta_get(v, "next_pack", &next, err);

    const int64_t before = next;
    for (size_t i = 0; i < job->pack_count && !rc; i++) {
        if (job->packs[i].known)
            continue;
        rc = pack_toc(job->packs[i].pack, &toc, &records, err);
        if (!rc)
            rc = number_pack(v, &job->packs[i], complete, records, &next, err);
    }
    if (!rc && next != before)
        rc = meta_put(v, "next_pack", next, err);
    return rc;
}

static enum err_code put_objects(struct view *v, const struct job *job, size_t from, size_t to,
                                 struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = from; i < to && !rc; i++) {
        struct loc l = job->j.objects[i].loc;

        l.pack = job->packs[l.pack].number;
        rc = merge_object(v, &job->j.objects[i].id, &l, err);
    }
    return rc;
}

static enum err_code put_loose(struct view *v, const struct job *job, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < job->j.loose_count && !rc; i++) {
        struct announced a = job->j.loose[i];

        a.pack = job->packs[a.pack].number;
        rc = merge_loose(v, &a, err);
    }
    return rc;
}

static enum err_code refuse_condemned(struct view *v, char kind, const struct digest *d,
                                      struct err *err)
{
    uint8_t key[CONDEMNED_KEY], p[ROW_MAX];
    char hex[DIGEST_HEX + 1];
    bool found;
    enum err_code rc;

    condemned_key(kind, d, key);
    rc = row_get(v, DB_CONDEMNED, key, sizeof(key), p, &found, err);
    if (rc || !found)
        return rc;
    digest_hex(d, hex);
    return err_set(err, ERR_CHANGED, "%s %s is being deleted by a gc",
                   kind == 'P' ? "pack" : "loose object", hex);
}

static enum err_code refuse_all_condemned(struct view *v, const struct job *job, struct err *err)
{
    int64_t rows;
    enum err_code rc = row_count(v, DB_CONDEMNED, &rows, err);

    if (rc || rows == 0)
        return rc;
    for (size_t i = 0; i < job->pack_count && !rc; i++)
        rc = refuse_condemned(v, 'P', &job->packs[i].name, err);
    for (size_t i = 0; i < job->j.loose_count && !rc; i++)
        rc = refuse_condemned(v, 'L', &job->j.loose[i].id, err);
    return rc;
}

/* Between the seal of a pack and this moment somebody's index_sync may have made it known, and a gc
 * without grace have deleted it. The gc unlinks before it absolves, so what is neither condemned
 * nor unlinked now is there. */
static enum err_code refuse_lost(struct view *v, const struct job *job, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    enum err_code rc = OK;

    for (size_t i = 0; i < job->pack_count && !rc; i++) {
        bool there = false, complete = false;
        uint32_t number;

        rc = pack_linked(job->packs[i].pack, &there, err);
        if (!rc && there && job->packs[i].known) {
            rc = pack_number(v, &job->packs[i].name, &number, &complete, &there, err);
            there = there && complete;
        }
        if (rc || there)
            continue;
        digest_hex(&job->packs[i].name, hex);
        rc = err_set(err, ERR_CHANGED, "pack %s was deleted by a gc", hex);
    }
    return rc;
}

static bool is_own(const struct job *job, const struct loc *l)
{
    for (size_t i = 0; i < job->pack_count; i++)
        if (job->packs[i].number == l->pack)
            return true;
    return false;
}

/* Is there a place of the object, not in the packs of this commit, that may be relied on?  A recipe
 * that came with the commit must not vouch for the very bytes that it was going to reuse. */
static enum err_code is_elsewhere(struct view *v, const struct job *job, const struct digest *id,
                                  bool *elsewhere, struct err *err)
{
    struct loc best, *others;
    size_t n;
    enum err_code rc = loc_best(v, id, &best, err);

    *elsewhere = !rc && best.type != 0 && !is_own(job, &best);
    if (rc || best.type == 0 || *elsewhere)
        return rc;
    rc = loc_others(v, id, &others, &n, err);
    for (size_t i = 0; i < n && !rc && !*elsewhere; i++)
        if (!is_own(job, &others[i]))
            rc = loc_visible(v, id, &others[i], elsewhere, err);
    free(others);
    return rc;
}

static enum err_code verify_reused(struct view *v, const struct job *job, struct err *err)
{
    const struct index_commit *c = job->c;
    char hex[DIGEST_HEX + 1];
    bool elsewhere;

    for (size_t i = 0; i < c->reused_count; i++) {
        const enum err_code rc = is_elsewhere(v, job, &c->reused[i], &elsewhere, err);

        if (rc)
            return rc;
        if (elsewhere)
            continue;
        digest_hex(&c->reused[i], hex);
        return err_set(err, ERR_CHANGED, "object %s, found before, was deleted by a gc meanwhile",
                       hex);
    }
    return OK;
}

/* Results of actions that a node brought are roots for the grace period, like what is added
 * here. */
static enum err_code touch_result(struct view *v, const struct job *job, const struct action_row *a,
                                  struct err *err)
{
    struct touch_row t = {.id = a->result, .time_ns = job->now};
    struct loc l;
    const enum err_code rc = loc_best(v, &a->result, &l, err);

    if (rc || !l.type)
        return rc;
    t.kind = l.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB;
    return merge_touch(v, &t, err);
}

static enum err_code put_binds(struct view *v, const struct job *job, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < job->j.bind_count && !rc; i++) {
        rc = merge_bind(v, &job->j.binds[i], err);
        if (!rc && job->touch_binds)
            rc = touch_result(v, job, &job->j.binds[i], err);
    }
    return rc;
}

static enum err_code put_memo(struct view *v, const struct index_commit *c, size_t from, size_t to,
                              struct err *err)
{
    int64_t epoch;
    enum err_code rc = meta_get(v, "epoch", &epoch, err);

    for (size_t i = from; i < to && !rc; i++) {
        const struct memo_row *m = &c->memo[i];
        uint8_t key[16], p[ROW_MAX];

        be64_put(key, m->key.dev);
        be64_put(key + 8, m->key.ino);
        le64_put(p, (uint64_t)m->key.size);
        le64_put(p + 8, (uint64_t)m->key.mtime_ns);
        le64_put(p + 16, (uint64_t)m->key.ctime_ns);
        memcpy(p + 24, m->id.b, DIGEST_BYTES);
        le64_put(p + 56, (uint64_t)epoch);
        rc = row_put(v, DB_MEMO, key, sizeof(key), p, err);
    }
    return rc;
}

static enum err_code raise_number(struct view *v, const char *name, struct err *err)
{
    int64_t n;
    const enum err_code rc = meta_get(v, name, &n, err);

    return rc ? rc : meta_put(v, name, n + 1, err);
}

/* ---- the transactions ---- */

static enum err_code write_numbers(struct view *v, void *arg, struct err *err)
{
    struct job *job = arg;
    enum err_code rc = refuse_all_condemned(v, job, err);

    if (!rc)
        rc = refuse_lost(v, job, err);
    return rc ? rc : number_packs(v, job, false, err);
}

/* Between two batches a gc without grace may have met the packs, and deleted them: rows that name a
 * number which is no longer theirs must not be written. */
static enum err_code refuse_renumbered(struct view *v, const struct job *job, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    enum err_code rc = refuse_all_condemned(v, job, err);

    for (size_t i = 0; i < job->pack_count && !rc; i++) {
        bool found = true, complete;
        uint32_t number = job->packs[i].number;

        if (!job->packs[i].known)
            rc = pack_number(v, &job->packs[i].name, &number, &complete, &found, err);
        if (rc || (found && number == job->packs[i].number))
            continue;
        digest_hex(&job->packs[i].name, hex);
        rc = err_set(err, ERR_CHANGED, "pack %s was deleted by a gc", hex);
    }
    return rc;
}

static enum err_code write_batch(struct view *v, void *arg, struct err *err)
{
    const struct job *job = arg;
    enum err_code rc = refuse_renumbered(v, job, err);

    return rc ? rc : put_objects(v, job, job->objects_done, job->objects_done + job->batch, err);
}

static enum err_code write_last(struct view *v, void *arg, struct err *err)
{
    struct job *job = arg;
    const struct index_commit *c = job->c;
    enum err_code rc = refuse_all_condemned(v, job, err);

    if (!rc)
        rc = refuse_lost(v, job, err);
    if (!rc)
        rc = number_packs(v, job, true, err);
    if (!rc && job->in_one)
        rc = put_objects(v, job, 0, job->j.object_count, err);
    if (!rc)
        rc = put_loose(v, job, err);
    if (!rc)
        rc = verify_reused(v, job, err);
    if (!rc)
        rc = put_binds(v, job, err);
    for (size_t i = 0; i < job->j.ref_count && !rc; i++)
        rc = merge_ref(v, &job->j.refs[i], err);
    for (size_t i = 0; i < c->touch_count && !rc; i++)
        rc = merge_touch(v, &c->touch[i], err);
    if (!rc && job->in_one)
        rc = put_memo(v, c, 0, c->memo_count, err);
    return rc ? rc : raise_number(v, "commits", err);
}

static enum err_code write_memo(struct view *v, void *arg, struct err *err)
{
    const struct job *job = arg;

    return put_memo(v, job->c, job->memo_done, job->memo_done + job->batch, err);
}

/* ---- one commit ---- */

/* Which packs are merged already?  Their journals need not be read. */
static enum err_code look_up_packs(struct index *ix, struct job *job, size_t *batch,
                                   struct err *err)
{
    bool found, complete = false;
    uint32_t number;
    struct view v;
    enum err_code rc = view_begin(ix, &v, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < job->pack_count && !rc; i++) {
        rc = pack_number(&v, &job->packs[i].name, &number, &complete, &found, err);
        job->packs[i].known = !rc && found && complete;
        if (job->packs[i].known)
            job->packs[i].number = number;
    }
    if (!rc)
        rc = batch_rows(&v, DB_OBJECT, batch, err);
    view_end(&v);
    return rc;
}

static enum err_code run_batches(struct index *ix, struct job *job, size_t batch, struct err *err)
{
    enum err_code rc = index_write(ix, write_numbers, job, err);

    while (!rc && job->objects_done < job->j.object_count) {
        const size_t left = job->j.object_count - job->objects_done;

        job->batch = left < batch ? left : batch;
        rc = index_write(ix, write_batch, job, err);
        job->objects_done += job->batch;
    }
    return rc;
}

static enum err_code run_memo(struct index *ix, struct job *job, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && job->memo_done < job->c->memo_count) {
        const size_t left = job->c->memo_count - job->memo_done;
        struct view v;

        rc = view_begin(ix, &v, err);
        if (rc)
            return rc;
        rc = batch_rows(&v, DB_MEMO, &job->batch, err);
        view_end(&v);
        if (rc)
            return rc;
        job->batch = left < job->batch ? left : job->batch;
        rc = index_write(ix, write_memo, job, err);
        job->memo_done += job->batch;
    }
    return rc;
}

/* packs and journal are filled in, objects sorted. */
static enum err_code run(struct index *ix, struct job *job, size_t batch, struct err *err)
{
    const size_t rows = job->j.object_count + job->j.loose_count + job->j.bind_count +
                        job->j.ref_count + job->c->touch_count;
    enum err_code rc = OK;

    job->in_one = rows + job->c->memo_count <= batch;
    if (!job->in_one && job->j.object_count > 0)
        rc = run_batches(ix, job, batch, err);
    if (!rc)
        rc = index_write(ix, write_last, job, err);
    if (!rc && !job->in_one)
        rc = run_memo(ix, job, err);
    return rc;
}

static int memo_cmp(const void *a, const void *b)
{
    const struct memo_key *x = &((const struct memo_row *)a)->key;
    const struct memo_key *y = &((const struct memo_row *)b)->key;

    if (x->dev != y->dev)
        return x->dev < y->dev ? -1 : 1;
    return (x->ino > y->ino) - (x->ino < y->ino);
}

/* Sorted keys share pages, which is most of what a transaction costs. */
static struct memo_row *sorted_memo(const struct index_commit *c)
{
    struct memo_row *rows = mem_grow(NULL, c->memo_count + 1, sizeof(*rows));

    if (c->memo_count)
        memcpy(rows, c->memo, c->memo_count * sizeof(*rows));
    qsort(rows, c->memo_count, sizeof(*rows), memo_cmp);
    return rows;
}

enum err_code index_commit(struct index *ix, const struct index_commit *c, struct err *err)
{
    struct index_commit copy;
    struct memo_row *memo;
    struct job job = {.c = &copy, .now = os_now_ns()};
    size_t batch;
    enum err_code rc;

    CHECK(ix);
    CHECK(c);
    copy = *c;
    copy.memo = memo = sorted_memo(c);
    job.packs = mem_zero(c->pack_count + 1, sizeof(*job.packs));
    job.pack_count = c->pack_count;
    for (size_t i = 0; i < c->pack_count; i++)
        job.packs[i] = (struct merging){.pack = c->packs[i], .name = *pack_name(c->packs[i])};
    qsort(job.packs, job.pack_count, sizeof(*job.packs), merging_cmp);
    rc = look_up_packs(ix, &job, &batch, err);
    for (size_t i = 0; i < job.pack_count && !rc; i++)
        if (!job.packs[i].known)
            rc = journal_add(&job.j, job.packs[i].pack, (uint32_t)i, err);
    if (!rc)
        rc = journal_sort(&job.j, err);
    if (!rc)
        rc = run(ix, &job, batch, err);
    journal_release(&job.j);
    free(job.packs);
    free(memo);
    return rc ? err_prefix(err, "commit") : OK;
}

/* ---- sync ---- */

struct sync {
    int packs_dir;
    struct digest *unknown;
    size_t count, next;
    bool left_over; /* something could not be merged: look again next time */
    int64_t merged;
};

static enum err_code list_unknown(struct index *ix, struct sync *s, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct os_entry *names;
    bool found, complete;
    uint32_t number;
    struct view v;
    size_t n;
    enum err_code rc = os_list(s->packs_dir, &names, &n, err);

    if (rc)
        return rc;
    s->unknown = mem_grow(NULL, n + 1, sizeof(*s->unknown));
    rc = view_begin(ix, &v, err);
    for (size_t i = 0; i < n && !rc; i++) {
        struct digest d;

        if (strlen(names[i].name) != DIGEST_HEX ||
            digest_parse(names[i].name, DIGEST_HEX, &d, &ignored) != OK)
            continue;
        rc = pack_number(&v, &d, &number, &complete, &found, err);
        if (!rc && !(found && complete))
            s->unknown[s->count++] = d;
    }
    view_end(&v);
    free(names);
    return rc;
}

/* Is the pack, or a loose file that it announces (in the journal from first on), condemned? */
static enum err_code is_refused(struct index *ix, const struct digest *name,
                                const struct journal *j, size_t first, bool *refused,
                                struct err *err)
{
    struct view v;
    enum err_code rc = view_begin(ix, &v, err);

    *refused = false;
    if (rc)
        return rc;
    rc = refuse_condemned(&v, 'P', name, err);
    for (size_t i = first; i < j->loose_count && !rc; i++)
        rc = refuse_condemned(&v, 'L', &j->loose[i].id, err);
    view_end(&v);
    *refused = rc == ERR_CHANGED;
    return *refused ? OK : rc;
}

/* Open the next unknown pack and add what it says.  Gone, damaged and condemned ones are passed
 * over: a gc is deleting them, fsck names them, and one bad pack must not keep the store from
 * opening.  A pack that announces a loose file which a gc has condemned waits for the gc's end:
 * then the file is either back or gone for good. */
static enum err_code take_pack(struct index *ix, struct sync *s, struct job *job, struct err *err)
{
    const struct digest *name = &s->unknown[s->next];
    const struct journal before = job->j;
    struct pack *p = NULL;
    bool refused = false;
    enum err_code rc = pack_open(s->packs_dir, name, &p, err);

    if (rc == ERR_NOT_FOUND)
        return OK;
    if (!rc)
        rc = journal_add(&job->j, p, (uint32_t)job->pack_count, err);
    if (!rc)
        rc = is_refused(ix, name, &job->j, before.loose_count, &refused, err);
    if (!rc && !refused) {
        job->packs[job->pack_count++] = (struct merging){.pack = p, .name = *name};
        return OK;
    }
    journal_rewind(&job->j, &before);
    pack_close(p);
    s->left_over = true;
    return rc == ERR_DAMAGED ? OK : rc;
}

static enum err_code sync_group(struct index *ix, struct sync *s, struct err *err)
{
    const struct index_commit nothing = {0};
    struct job job = {.c = &nothing, .touch_binds = true, .now = os_now_ns()};
    struct buf passed_over;
    size_t batch;
    enum err_code rc = OK;

    buf_init(&passed_over, 1 << 16); /* fsck reports them; here they only must not stop the rest */
    job.j.problems = &passed_over;
    job.packs = mem_zero(SYNC_PACKS, sizeof(*job.packs));
    for (; s->next < s->count && job.pack_count < SYNC_PACKS && !rc; s->next++) {
        if (job.j.object_count >= SYNC_OBJECTS)
            break;
        rc = take_pack(ix, s, &job, err);
    }
    if (!rc && job.pack_count > 0) {
        rc = look_up_packs(ix, &job, &batch, err);
        /* What they say is in the journal already: one that another process has merged since is
         * merged again, under its number. */
        for (size_t i = 0; i < job.pack_count; i++)
            job.packs[i].known = false;
        if (!rc)
            rc = journal_sort(&job.j, err);
        if (!rc)
            rc = run(ix, &job, batch, err);
        if (!rc)
            s->merged += (int64_t)job.pack_count;
    }
    for (size_t i = 0; i < job.pack_count; i++)
        pack_close(job.packs[i].pack);
    buf_release(&passed_over);
    journal_release(&job.j);
    free(job.packs);
    return rc;
}

static enum err_code note_mtime(struct view *v, void *arg, struct err *err)
{
    const int64_t *mtime = arg;

    return meta_put(v, "packs_mtime", *mtime, err);
}

enum err_code packs_mtime(int packs_dir, int64_t *mtime, struct err *err)
{
    struct stat st;
    const enum err_code rc = os_stat(packs_dir, &st, err);

    *mtime = rc ? 0 : (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return rc;
}

/* A folder may change twice within one tick of its file system's clock, 10 ms at most, and show one
 * mtime for both. */
bool packs_mtime_settled(int64_t mtime)
{
    return os_now_ns() - mtime >= MTIME_MARGIN_NS;
}

static enum err_code sync_once(struct index *ix, struct sync *s, struct err *err)
{
    enum err_code rc = list_unknown(ix, s, err);

    while (!rc && s->next < s->count)
        rc = sync_group(ix, s, err);
    return rc;
}

enum err_code index_sync(struct index *ix, int packs_dir, int64_t *merged, struct err *err)
{
    struct sync s = {.packs_dir = packs_dir};
    struct index_stat st;
    int64_t mtime = 0;
    bool settled;
    enum err_code rc;

    CHECK(ix);
    CHECK(merged);
    *merged = 0;
    rc = packs_mtime(packs_dir, &mtime, err);
    settled = !rc && packs_mtime_settled(mtime); /* before the list: it may take long */
    if (!rc)
        rc = index_stat(ix, &st, err);
    if (rc || st.packs_mtime == mtime)
        return rc;
    /* The mtime was read before the list: a pack linked meanwhile leaves another one, and the next
     * sync looks again. */
    for (int i = 0; i < SYNC_TRIES; i++) {
        s.count = s.next = 0;
        s.left_over = false;
        rc = sync_once(ix, &s, err);
        free(s.unknown);
        s.unknown = NULL;
        if (rc != ERR_CHANGED)
            break;
    }
    *merged = s.merged;
    if (!rc && !s.left_over && settled)
        rc = index_write(ix, note_mtime, &mtime, err);
    return rc ? err_prefix(err, "merge new packs") : OK;
}

/* ---- leases and memo ---- */

static enum err_code write_lease(struct view *v, void *arg, struct err *err)
{
    const struct lease_row *row = arg;
    const size_t n = strlen(row->name);
    char hex[DIGEST_HEX + 1];
    uint8_t p[ROW_MAX] = {0};
    struct loc l;
    enum err_code rc;

    if (row->expiry_ns == 0)
        return row_del(v, DB_LEASE, row->name, n, err);
    if (row->kind != OBJ_NONE) {
        rc = loc_best(v, &row->digest, &l, err);
        digest_hex(&row->digest, hex);
        if (!rc && !l.type)
            rc = err_set(err, ERR_NOT_FOUND, "lease %s: no object %s", row->name, hex);
        if (rc)
            return rc;
    }
    le64_put(p, (uint64_t)row->expiry_ns);
    p[8] = (uint8_t)row->kind;
    memcpy(p + 10, row->digest.b, DIGEST_BYTES);
    rc = row_put(v, DB_LEASE, row->name, n, p, err);
    /* A new root: a gc that marked before must notice. */
    return rc ? rc : raise_number(v, "commits", err);
}

enum err_code index_lease(struct index *ix, const struct lease_row *row, struct err *err)
{
    struct lease_row copy;

    CHECK(ix);
    CHECK(row);
    CHECK(row->name);
    CHECK(row->name[0]);
    if (strlen(row->name) > KEY_MAX)
        return err_set(err, ERR_LIMIT, "lease name of more than %d bytes", KEY_MAX);
    copy = *row;
    return index_write(ix, write_lease, &copy, err);
}

static enum err_code drop_memo(struct view *v, void *arg, struct err *err)
{
    (void)arg;
    const int mdb = mdb_drop(v->txn, v->ix->dbi[DB_MEMO], 0);

    if (mdb == MDB_MAP_FULL)
        v->map_full = true;
    return mdb ? index_fail(err, mdb, "drop the memo") : OK;
}

enum err_code index_drop_memo(struct index *ix, struct err *err)
{
    CHECK(ix);
    return index_write(ix, drop_memo, NULL, err);
}
