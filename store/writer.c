/* The session.  Three kinds of records leave it: contents go to the open pack as they come; notes
 * (recipes, announcements of loose files) and journal records (binds, refs) wait in memory for the
 * last pack of the commit.  So a pack that becomes visible early, or is all that a crash leaves,
 * holds nothing that refers to something that is not there. */
#include "store/writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "store/loose.h"
#include "store/pack_cache.h"
#include "store/reader.h"
#include "store/tree.h"
#include "store/writer_internal.h"

void writer_lock(struct writer *w)
{
    CHECK(pthread_mutex_lock(&w->lock) == 0);
}

void writer_unlock(struct writer *w)
{
    CHECK(pthread_mutex_unlock(&w->lock) == 0);
}

void *writer_roomy(void *array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return array;
    *cap = *cap ? 2 * *cap : 16;
    return mem_grow(array, *cap, size);
}

/* ---- life -------------------------------------------------------------------------------------- */

enum err_code writer_open(struct store *st, struct writer **out, struct err *err)
{
    struct index_stat stat = {0};

    CHECK(st);
    CHECK(out);
    *out = NULL;
    if (st->mode == STORE_READ)
        return err_set(err, ERR_BUG, "store %s is open for reading only", st->root);
    if (st->index) {
        const enum err_code rc = index_stat(st->index, &stat, err);

        if (rc)
            return rc;
    }

    struct writer *w = mem_zero(1, sizeof(*w));

    CHECK(pthread_mutex_init(&w->lock, NULL) == 0);
    CHECK(pthread_cond_init(&w->freed, NULL) == 0);
    CHECK(pthread_cond_init(&w->sealer.work, NULL) == 0);
    CHECK(pthread_cond_init(&w->sealer.done, NULL) == 0);
    w->st = st;
    w->epoch = stat.epoch;
    w->ids_max = WRITER_IDS_MAX;
    w->pack_bytes_max = PACK_TARGET_BYTES;
    w->packs_pending_max = PACKS_PENDING_MAX;
    w->ids = claims_new();
    w->stream_max = st->threads / 2;
    if (w->stream_max < 1)
        w->stream_max = 1;
    if (w->stream_max > STREAMS_MAX)
        w->stream_max = STREAMS_MAX;
    *out = w;
    return OK;
}

static void free_packs(struct writer *w)
{
    if (w->open) {
        pack_writer_release(w->open->pack);
        free(w->open);
    }
    for (size_t i = 0; i < w->full_count; i++) {
        pack_writer_release(w->full[i]->pack);
        free(w->full[i]);
    }
    free(w->full);
}

static void free_notes(struct writer *w)
{
    for (size_t i = 0; i < w->note_count; i++)
        buf_release(&w->notes[i].payload);
    for (size_t i = 0; i < w->ref_count; i++)
        free(w->refs[i].name);
    free(w->notes);
    free(w->refs);
    free(w->binds);
    free(w->touch);
    free(w->memo);
}

void writer_release(struct writer *w)
{
    struct err ignored = ERR_INIT;

    if (!w)
        return;
    sealer_stop(w);
    large_free_streams(w);
    small_free_all(w);
    free_packs(w);
    /* What cannot be removed is garbage that gc finds by its age. */
    for (size_t i = 0; i < w->loose_count; i++)
        (void)!os_unlink(w->st->tmp, w->loose[i].tmp, &ignored);
    adopt_give_up(w);
    free(w->loose);
    free_notes(w);
    claims_free(w->ids);
    pthread_cond_destroy(&w->sealer.done);
    pthread_cond_destroy(&w->sealer.work);
    pthread_cond_destroy(&w->freed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

enum err_code writer_alive(struct writer *w, struct err *err)
{
    CHECK(w);
    if (!atomic_load(&w->failed))
        return OK;
    writer_lock(w);
    *err = w->failure;
    writer_unlock(w);
    return err->code;
}

enum err_code writer_fail(struct writer *w, const struct err *err)
{
    CHECK(err->code != OK);
    writer_lock(w);
    if (!atomic_load(&w->failed)) {
        w->failure = *err;
        atomic_store(&w->failed, true);
    }
    writer_unlock(w);
    return err->code;
}

bool writer_raced(const struct writer *w)
{
    return w->raced;
}

enum err_code writer_of_itself(struct writer *w, const struct digest *id, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    writer_lock(w);
    w->raced = true; /* trying again helps: then it is written as what it is */
    writer_unlock(w);
    digest_text(id, text);
    return err_set(err, ERR_CHANGED,
                   "object %s would be a recipe of itself: what it was to be made of has gone",
                   text);
}

void writer_get_stats(const struct writer *w, struct writer_stats *out)
{
    CHECK(w);
    CHECK(out);
    *out = (struct writer_stats){.files = w->files,
                                 .bytes = w->bytes,
                                 .new_objects = w->new_objects,
                                 .new_bytes = w->new_bytes,
                                 .reused_objects = w->reused_objects};
}

void writer_add_progress(struct writer *w, int64_t bytes, int64_t files)
{
    if (w->progress)
        progress_add(w->progress, strcmp(w->progress->unit, "files") == 0 ? files : bytes);
}

/* ---- files ------------------------------------------------------------------------------------- */

void writer_tmp_name(const char *suffix, char out[TMP_NAME])
{
    char host[33] = {0};
    uint64_t random;

    if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
        host[0] = 'h';
    for (char *c = host; *c; c++)
        if (*c == '/' || *c == '.' || *c < 0x21 || *c > 0x7e)
            *c = '-';
    os_random(&random, sizeof(random));
    snprintf(out, TMP_NAME, "%s.%ld.%016llx.%s", host, (long)getpid(), (unsigned long long)random,
             suffix);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool writer_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(&a->st_mtim, &b->st_mtim) && same_time(&a->st_ctim, &b->st_ctim);
}

enum err_code writer_changed(const char *path, struct err *err)
{
    return err_set(err, ERR_CHANGED,
                   "%s changed while it was being read; add it when nobody writes to it", path);
}

/* ---- ids --------------------------------------------------------------------------------------- */

static enum err_code loose_is_there(struct writer *w, const struct digest *id, uint64_t size,
                                    bool *there, struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(id, name);
    rc = os_stat_at(w->st->loose, name, &info, err);
    *there = !rc && S_ISREG(info.st_mode) && (uint64_t)info.st_size == size;
    return rc == ERR_NOT_FOUND ? OK : rc;
}

/* The slices of one file are looked up one after the other: the last answer is kept. */
struct slice_memory {
    uint32_t pack, off;
    bool asked, there;
};

static enum err_code slice_is_there(struct writer *w, const struct loc *loc, struct slice_memory *m,
                                    bool *there, struct err *err)
{
    const struct record *announcement = NULL;
    enum err_code rc = OK;

    if (!m->asked || m->pack != loc->pack || m->off != loc->off) {
        *m = (struct slice_memory){.pack = loc->pack, .off = loc->off, .asked = true};
        rc = record_get(w->st, loc->pack, loc->off, &announcement, err);
        if (!rc)
            rc = loose_is_there(w, &announcement->id, announcement->raw, &m->there, err);
        record_put(w->st, announcement);
    }
    *there = m->there;
    return rc == ERR_NOT_FOUND || rc == ERR_DAMAGED ? OK : rc;
}

/* Under WEIR_LOSE: a recipe is not relied on either before it was written anew, since its chunks may be lost. */
static bool pretend_gone(const struct store *st, const struct digest *id, const struct loc *loc)
{
    return object_is_lost(st, id) || (st->lose_percent > 0 && loc->type == LOC_RECIPE &&
                                      claims_get(st->found_again, id) == ID_ABSENT);
}

#define LOOKUP_MAX 256

static enum err_code lookup_step(struct writer *w, const struct digest *ids, size_t n,
                                 uint8_t *known, struct slice_memory *m, struct err *err)
{
    struct digest ask[LOOKUP_MAX];
    struct loc locs[LOOKUP_MAX];
    size_t which[LOOKUP_MAX], count = 0;
    enum err_code rc;

    for (size_t i = 0; i < n; i++) {
        known[i] = (uint8_t)claims_get(w->ids, &ids[i]);
        if (known[i] == ID_ABSENT) {
            which[count] = i;
            ask[count++] = ids[i];
        }
    }
    if (!w->st->index || count == 0)
        return OK;
    rc = index_get(w->st->index, ask, count, locs, err);
    for (size_t i = 0; !rc && i < count; i++) {
        bool there = locs[i].type != 0 && !pretend_gone(w->st, &ask[i], &locs[i]);

        if (there && locs[i].type == LOC_LOOSE)
            rc = loose_is_there(w, &ask[i], locs[i].raw, &there, err);
        else if (there && locs[i].type == LOC_SLICE)
            rc = slice_is_there(w, &locs[i], m, &there, err);
        if (there)
            known[which[i]] = ID_REUSED;
    }
    return rc;
}

enum err_code writer_lookup(struct writer *w, const struct digest *ids, size_t n, uint8_t *known,
                            struct err *err)
{
    struct slice_memory m = {0};
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < n; i += LOOKUP_MAX)
        rc = lookup_step(w, ids + i, n - i < LOOKUP_MAX ? n - i : LOOKUP_MAX, known + i, &m, err);
    return rc;
}

enum err_code writer_has(struct writer *w, const struct digest *id, bool *has, struct err *err)
{
    uint8_t known;
    enum err_code rc;

    CHECK(w);
    CHECK(has);
    *has = false;
    rc = writer_alive(w, err);
    if (!rc)
        rc = writer_lookup(w, id, 1, &known, err);
    if (rc)
        return rc;
    *has = known != ID_ABSENT;
    return known == ID_REUSED ? writer_reuse(w, id, 1, err) : OK;
}

enum err_code writer_reuse(struct writer *w, const struct digest *ids, size_t n, struct err *err)
{
    bool part = false;

    for (size_t i = 0; i < n; i++)
        w->reuse_count += claims_add(w->ids, &ids[i], ID_REUSED);
    if (w->reuse_count < w->ids_max)
        return OK;
    writer_lock(w);
    part = !w->committing;
    w->committing |= part;
    writer_unlock(w);
    return part ? commit_part(w, err) : OK;
}

/* ---- packs ------------------------------------------------------------------------------------- */

/* What a pack is begun with, the rest of it will mostly be. */
enum bulk { BULK_SMALL, BULK_CHUNKS };

static enum err_code hold_pack(struct writer *w, enum bulk bulk, struct out_pack **out,
                               struct err *err)
{
    enum err_code rc = OK;

    writer_lock(w);
    if (!w->open) {
        struct pack_writer *pack;

        rc = pack_writer_open(w->st->objects, &pack, err);
        if (!rc) {
            w->open = mem_zero(1, sizeof(*w->open));
            w->open->pack = pack;
            if (bulk == BULK_CHUNKS)
                pack_writer_bypass(pack);
        }
    }
    if (!rc)
        w->open->users++;
    *out = w->open;
    writer_unlock(w);
    return rc;
}

/* Full: another one will be opened for the next record. */
static bool put_aside(struct writer *w, struct out_pack *p)
{
    if (p != w->open || (pack_writer_bytes(p->pack) < w->pack_bytes_max &&
                         pack_writer_records(p->pack) < PACK_RECORDS_TARGET))
        return false;
    w->full = writer_roomy(w->full, w->full_count, &w->full_cap, sizeof(*w->full));
    w->full[w->full_count++] = p;
    w->open = NULL;
    return true;
}

/* The pack is given back.  Too many full ones are committed by the one who noticed. */
static enum err_code let_go(struct writer *w, struct out_pack *p, struct err *err)
{
    enum err_code rc = OK;
    bool full, part;

    writer_lock(w);
    full = put_aside(w, p);
    writer_unlock(w);
    if (full)
        rc = pack_writer_rest(p->pack, err);
    if (full && !rc)
        rc = sealer_start(w, err);
    writer_lock(w);
    p->users--;
    if (p != w->open && p->users == 0)
        pthread_cond_signal(&w->sealer.work);
    part = !rc && !w->committing &&
           ((int64_t)w->full_count >= w->packs_pending_max ||
            (w->full_count > 0 && claims_count(w->ids, ID_WRITTEN) >= w->ids_max));
    w->committing |= part;
    writer_unlock(w);
    return part ? commit_part(w, err) : rc;
}

static enum err_code packed(struct writer *w, struct out_pack *p, enum err_code rc, int64_t objects,
                            int64_t bytes, struct err *err)
{
    struct err later = ERR_INIT;
    const enum err_code part_rc = let_go(w, p, &later);

    if (!rc && part_rc) {
        rc = part_rc;
        *err = later;
    }
    if (rc)
        return writer_fail(w, err);
    w->new_objects += objects;
    w->new_bytes += bytes;
    return OK;
}

static enum err_code put_record(struct writer *w, enum bulk bulk, struct pack_entry *e,
                                const void *p, size_t n, struct err *err)
{
    struct out_pack *pack;
    enum err_code rc;

    rc = hold_pack(w, bulk, &pack, err);
    if (rc)
        return writer_fail(w, err);
    rc = pack_put(pack->pack, e, p, n, err);
    return packed(w, pack, rc, e->type != REC_BIND && e->type != REC_REF, (int64_t)n, err);
}

enum err_code writer_pack(struct writer *w, struct pack_entry *e, const void *p, size_t n,
                          struct err *err)
{
    return put_record(w, BULK_SMALL, e, p, n, err);
}

enum err_code writer_pack_chunk(struct writer *w, struct pack_entry *e, const void *p, size_t n,
                                struct err *err)
{
    return put_record(w, BULK_CHUNKS, e, p, n, err);
}

enum err_code writer_pack_frame(struct writer *w, const struct frame_member *members, size_t count,
                                const void *zstd, size_t n, size_t raw_n, struct err *err)
{
    struct out_pack *pack;
    enum err_code rc;

    rc = hold_pack(w, BULK_SMALL, &pack, err);
    if (rc)
        return writer_fail(w, err);
    rc = pack_put_frame(pack->pack, members, count, zstd, n, raw_n, NULL, err);
    return packed(w, pack, rc, (int64_t)count, (int64_t)n, err);
}

enum err_code writer_put_encoded(struct writer *w, const struct digest *id, uint8_t flags,
                                 enum enc enc, uint64_t raw, const void *p, size_t n,
                                 struct err *err)
{
    struct pack_entry e = {
        .id = *id, .type = REC_BLOB, .enc = (uint8_t)enc, .flags = flags, .raw = raw};
    enum err_code rc;

    CHECK(w);
    CHECK(p || n == 0);
    rc = writer_alive(w, err);
    if (rc || !claims_add(w->ids, id, ID_WRITTEN))
        return rc;
    return writer_pack(w, &e, p, n, err);
}

/* ---- notes ------------------------------------------------------------------------------------- */

void writer_note(struct writer *w, enum rec_type type, const struct digest *id, uint8_t flags,
                 uint64_t raw, const struct recipe_chunk *chunks, size_t count)
{
    struct note note = {.entry = {.id = *id, .type = (uint8_t)type, .flags = flags, .raw = raw}};

    buf_init(&note.payload, PACK_PAYLOAD_MAX);
    if (count > 0)
        recipe_encode(id, chunks, count, &note.payload);
    writer_lock(w);
    w->notes = writer_roomy(w->notes, w->note_count, &w->note_cap, sizeof(*w->notes));
    w->notes[w->note_count++] = note;
    writer_unlock(w);
}

enum err_code writer_put_recipe(struct writer *w, const struct digest *id, uint8_t flags,
                                uint64_t raw, const struct recipe_chunk *chunks, size_t count,
                                struct err *err)
{
    enum err_code rc;

    CHECK(w);
    CHECK(chunks);
    CHECK(count > 0);
    rc = writer_alive(w, err);
    for (size_t i = 0; !rc && i < count; i++)
        if (digest_eq(&chunks[i].id, id))
            rc = writer_of_itself(w, id, err);
    if (!rc && claims_add(w->ids, id, ID_WRITTEN))
        writer_note(w, REC_RECIPE, id, flags, raw, chunks, count);
    return rc;
}

enum err_code writer_bind(struct writer *w, const struct digest *key, const struct digest *result,
                          struct err *err)
{
    enum err_code rc;

    CHECK(w);
    CHECK(key);
    CHECK(result);
    rc = writer_alive(w, err);
    if (rc)
        return rc;
    writer_lock(w);
    w->binds = writer_roomy(w->binds, w->bind_count, &w->bind_cap, sizeof(*w->binds));
    w->binds[w->bind_count++] = (struct bind_note){.key = *key, .result = *result};
    writer_unlock(w);
    return OK;
}

enum err_code writer_ref(struct writer *w, struct str name, enum obj_kind kind,
                         const struct digest *d, struct err *err)
{
    struct ref_note ref = {.kind = kind};
    enum err_code rc;

    CHECK(w);
    CHECK(d || kind == OBJ_NONE);
    rc = writer_alive(w, err);
    if (!rc)
        rc = store_ref_check(name, err);
    if (rc)
        return rc;
    ref.name = mem_strndup(name.p, name.n);
    if (kind != OBJ_NONE)
        ref.digest = *d;
    writer_lock(w);
    w->refs = writer_roomy(w->refs, w->ref_count, &w->ref_cap, sizeof(*w->refs));
    w->refs[w->ref_count++] = ref;
    writer_unlock(w);
    return OK;
}

void writer_rely(struct writer *w)
{
    CHECK(w);
    w->relies = true;
}

void writer_touch(struct writer *w, enum obj_kind kind, const struct digest *d)
{
    CHECK(w);
    CHECK(d);
    CHECK(kind != OBJ_NONE);
    writer_lock(w);
    w->touch = writer_roomy(w->touch, w->touch_count, &w->touch_cap, sizeof(*w->touch));
    w->touch[w->touch_count++] = (struct touch_row){.id = *d, .kind = kind};
    writer_unlock(w);
}

bool writer_has_news(const struct writer *w)
{
    CHECK(w);
    return claims_count(w->ids, ID_WRITTEN) > 0 || w->new_objects > 0 || w->ref_count > 0 ||
           w->bind_count > 0 || w->adopt_count > 0 || w->memo_count > 0;
}

void writer_memo(struct writer *w, const struct memo_row *row)
{
    CHECK(w);
    CHECK(row);
    if (!w->st->index)
        return;
    writer_lock(w);
    w->memo = writer_roomy(w->memo, w->memo_count, &w->memo_cap, sizeof(*w->memo));
    w->memo[w->memo_count++] = *row;
    writer_unlock(w);
}

/* ---- putting ----------------------------------------------------------------------------------- */

static enum err_code put_big(struct writer *w, struct small *s, struct small_item *item,
                             struct err *err)
{
    uint8_t known;
    enum err_code rc;

    sha256_of(item->p, item->n, &item->id);
    rc = writer_lookup(w, &item->id, 1, &known, err);
    if (rc)
        return writer_fail(w, err);
    if (known != ID_ABSENT || !claims_add(w->ids, &item->id, ID_WRITTEN)) {
        w->reused_objects++;
        return known == ID_REUSED ? writer_reuse(w, &item->id, 1, err) : OK;
    }
    if (item->n > CODEC_RAW_MAX)
        return large_tree(w, item->p, item->n, &item->id, err);
    return small_write(w, s, item, err);
}

enum err_code writer_put(struct writer *w, enum obj_kind kind, const void *p, size_t n,
                         struct digest *out, struct err *err)
{
    struct small_item item = {.p = p, .n = n, .kind = kind};
    struct small *s;
    enum err_code rc;

    CHECK(w);
    CHECK(p || n == 0);
    CHECK(out);
    CHECK(kind == OBJ_BLOB || kind == OBJ_TREE);
    if (n > (kind == OBJ_TREE ? (size_t)TREE_BYTES_MAX : (size_t)CODEC_RAW_MAX))
        return err_set(err, ERR_LIMIT, "an object of %zu bytes in memory: at most %d", n,
                       kind == OBJ_TREE ? TREE_BYTES_MAX : CODEC_RAW_MAX);
    rc = writer_alive(w, err);
    if (!rc)
        rc = small_get(w, &s, err);
    if (rc)
        return rc;
    rc = n < LOOSE_MIN_BYTES ? small_items(w, s, &item, 1, err) : put_big(w, s, &item, err);
    small_put(w, s);
    w->bytes += (int64_t)n;
    *out = item.id;
    return rc;
}

static enum err_code put_small_file(struct writer *w, int fd, const char *path, struct digest *out,
                                    int64_t *size, struct err *err)
{
    struct small_item item = {.kind = OBJ_BLOB};
    struct stat before;
    struct small *s;
    enum err_code rc;

    rc = small_get(w, &s, err);
    if (rc)
        return rc;
    rc = small_read(fd, path, s->read, SMALL_READ_BYTES, &before, &item.n, err);
    if (rc == ERR_LIMIT) /* it was small a moment ago */
        rc = writer_changed(path, err);
    if (!rc) {
        item.p = s->read;
        rc = small_items(w, s, &item, 1, err);
    }
    small_put(w, s);
    *out = item.id;
    *size = (int64_t)item.n;
    return rc;
}

enum err_code writer_put_file(struct writer *w, int fd, const char *path, struct digest *out,
                              int64_t *size, struct err *err)
{
    struct stat before;
    enum err_code rc;

    CHECK(w);
    CHECK(path);
    CHECK(out);
    CHECK(size);
    rc = writer_alive(w, err);
    if (!rc)
        rc = os_stat(fd, &before, err);
    if (rc)
        return rc;
    if (!S_ISREG(before.st_mode))
        return err_set(err, ERR_INPUT, "%s is no regular file", path);
    if (before.st_size < LOOSE_MIN_BYTES) {
        rc = put_small_file(w, fd, path, out, size, err);
    } else {
        const struct large_source from = {.fd = fd, .path = path, .before = &before};

        *size = before.st_size;
        rc = large_put(w, &from, out, err);
    }
    if (rc)
        return rc;
    w->files++;
    w->bytes += *size;
    writer_add_progress(w, before.st_size < LOOSE_MIN_BYTES ? *size : 0, 1);
    return OK;
}
