/* Pull: the remote's refs, then everything below them (intake.h), then action results whose objects came along, and last the refs
 * here, in one commit with what they need.
 *
 * A gc that deletes while this runs raises the index's epoch.  What it may have taken is found by doing it all again, which is quick
 * when little is missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/intake.h"
#include "store/transfer.h"

#define TRIES 3 /* each needs another gc to delete something meanwhile */

struct pull_root {
    struct digest id;
    enum obj_kind kind;
    char *ref; /* NULL: a digest was given */
};
struct pull {
    struct store *st;
    const struct transfer_options *o;
    struct transfer_report *report;
    struct tocs tocs;
    struct intake in;
    struct pull_root *roots;
    size_t root_count, root_cap;
    struct remote_note *results; /* to be bound here */
    size_t result_count;
    struct err refused; /* a ref that was asked for by name is newer here */
};

static void add_root(struct pull *p, const struct digest *id, enum obj_kind kind, const char *ref)
{
    if (p->root_count == p->root_cap) {
        p->root_cap = p->root_cap ? p->root_cap * 2 : 16;
        p->roots = mem_grow(p->roots, p->root_cap, sizeof(*p->roots));
    }
    p->roots[p->root_count++] =
        (struct pull_root){.id = *id, .kind = kind, .ref = ref ? mem_strdup(ref) : NULL};
}

static void describe(void *arg, uint32_t root, char out[512])
{
    const struct pull *p = arg;

    if (root < p->root_count && p->roots[root].ref)
        (void)snprintf(out, 512, "ref %s", p->roots[root].ref);
}

/* ---- refs -------------------------------------------------------------------------------------- */

static void keep(struct pull *p, const struct remote_note *note, const struct ref_row *row)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&note->target, text);
    p->report->refs_kept++;
    if (p->o->notes)
        buf_printf(p->o->notes, "ref %s is %s and was left alone; %s has %s\n", note->name,
                   row->kind == OBJ_NONE ? "removed here" : "newer here", p->tocs.remote->name,
                   text);
    if (p->o->ref_count > 0 && !p->refused.code)
        (void)!err_set(&p->refused, ERR_CHANGED,
                       "ref %s is newer here and was left alone; to have the one of %s: weir ref "
                       "rm %s, then pull",
                       note->name, p->tocs.remote->name, note->name);
}

static bool is_set_once(const struct transfer_options *o, const char *name)
{
    return o->once && strncmp(name, o->once, strlen(o->once)) == 0;
}

/* Two that were made independently under one name: neither gives way, whichever is newer. */
static void keep_both(struct pull *p, const struct remote_note *note)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&note->target, text);
    p->report->refs_kept++;
    if (p->o->notes)
        buf_printf(p->o->notes,
                   "%s here is another one than on %s and was left alone; to have theirs: weir "
                   "pull %s %s, then weir ref set NAME %s\n",
                   note->name, p->tocs.remote->name, p->tocs.remote->name, text, text);
    if (p->o->ref_count > 0 && !p->refused.code)
        (void)!err_set(&p->refused, ERR_CHANGED,
                       "%s here is another one than on %s and was left alone; to have theirs: weir "
                       "pull %s %s, then weir ref set NAME %s",
                       note->name, p->tocs.remote->name, p->tocs.remote->name, text, text);
}

/* Also what is left of a removed one. */
static enum err_code ref_here(struct store *st, const char *name, bool *found, struct ref_row *out,
                              struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, str_of(name), REF_ALL, &rows, &n, err);

    *found = !rc && n > 0 && strcmp(rows[0].name, name) == 0; /* sorted: the shortest first */
    if (*found)
        *out = rows[0];
    free(rows); /* and the name in out with it */
    return rc;
}

/* The newer one wins.  A removed one gives way to somebody who asks for the name. */
static enum err_code consider(struct pull *p, const struct remote_note *note, struct err *err)
{
    const bool named = p->o->ref_count > 0;
    struct ref_row row = {0};
    bool found;
    enum err_code rc = ref_here(p->st, note->name, &found, &row, err);

    if (rc)
        return rc;
    if (found && row.kind == note->kind && digest_eq(&row.digest, &note->target)) {
        add_root(p, &note->target, note->kind, NULL); /* nothing to set, but is it all here? */
        return OK;
    }
    if (found && row.kind != OBJ_NONE && note->kind != OBJ_NONE && is_set_once(p->o, note->name)) {
        keep_both(p, note);
        return OK;
    }
    if (found && row.stamp >= note->stamp && !(named && row.kind == OBJ_NONE)) {
        keep(p, note, &row);
        return OK;
    }
    add_root(p, &note->target, note->kind, note->name);
    return OK;
}

static enum err_code unknown_ref(struct pull *p, const struct remote_note *notes, size_t n,
                                 const char *name, struct err *err)
{
    const char **names = mem_zero(n + 1, sizeof(*names)), *nearest;
    size_t live = 0;

    for (size_t i = 0; i < n; i++)
        if (notes[i].kind != OBJ_NONE)
            names[live++] = notes[i].name;
    nearest = str_nearest(name, names, live);
    err_set(err, ERR_NOT_FOUND, "remote %s has no ref %s%s%s%s", p->tocs.remote->name, name,
            nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
    free(names);
    return ERR_NOT_FOUND;
}

static enum err_code add_digest(struct pull *p, const struct digest *id, struct err *err)
{
    struct toc_want want = {.entry = {.id = *id}};
    struct loc loc;
    char text[DIGEST_TEXT + 1];
    enum err_code rc = tocs_find(&p->tocs, &want, 1, err);

    if (!rc && want.entry.type == 0) {
        rc = index_get(p->st->index, id, 1, &loc, err);
        want.entry.type = loc.type;
        want.entry.flags = loc.flags;
    }
    if (rc)
        return rc;
    if (want.entry.type == 0) {
        digest_text(id, text);
        return err_set(err, ERR_NOT_FOUND, "remote %s has no object %s", p->tocs.remote->name,
                       text);
    }
    add_root(p, id, want.entry.flags & REC_TREE ? OBJ_TREE : OBJ_BLOB, NULL);
    return OK;
}

static enum err_code add_named(struct pull *p, const struct remote_note *notes, size_t n,
                               const char *what, struct err *err)
{
    struct err ignored = ERR_INIT;
    const struct remote_note *note;
    struct digest id;

    sha256_of(what, strlen(what), &id);
    note = note_find(notes, n, &id);
    if (note && note->kind != OBJ_NONE)
        return consider(p, note, err);
    if (digest_parse(what, strlen(what), &id, &ignored) == OK)
        return add_digest(p, &id, err);
    return unknown_ref(p, notes, n, what, err);
}

static enum err_code find_roots(struct pull *p, struct err *err)
{
    struct remote_note *notes = NULL;
    size_t n = 0;
    enum err_code rc = notes_read(&p->tocs, REC_REF, NULL, NULL, &notes, &n, err);

    for (size_t i = 0; i < p->o->ref_count && !rc; i++)
        rc = add_named(p, notes, n, p->o->refs[i], err);
    for (size_t i = 0; i < n && !rc && p->o->ref_count == 0; i++)
        if (notes[i].kind != OBJ_NONE)
            rc = consider(p, &notes[i], err);
    notes_free(notes, n);
    return rc;
}

static enum err_code walk_roots(struct pull *p, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; i < p->root_count && !rc; i++) {
        const bool tree = p->roots[i].kind == OBJ_TREE;
        const struct reach_item item = {.id = p->roots[i].id,
                                        .root = (uint32_t)i,
                                        .depth = p->roots[i].ref ? 0 : -1,
                                        .kind = tree ? REACH_TREE : REACH_BLOB};

        rc = reach_add(&p->in.reach, &item, err);
    }
    return rc ? rc : intake_run(&p->in, err);
}

/* ---- results ----------------------------------------------------------------------------------- */

struct bind_filter {
    struct store *st;
    struct err err;
};

static bool newer_there(void *arg, const struct digest *id, int64_t stamp)
{
    struct bind_filter *f = arg;
    struct digest result;
    int64_t ours;
    const enum err_code rc = index_action(f->st->index, id, &result, &ours, &f->err);

    if (rc == OK)
        return ours < stamp;
    if (rc == ERR_NOT_FOUND)
        f->err = (struct err)ERR_INIT;
    return rc == ERR_NOT_FOUND;
}

/* The texts of actions whose result came along; they may be missing there. */
static enum err_code find_results(struct pull *p, struct err *err)
{
    struct bind_filter filter = {.st = p->st, .err = ERR_INIT};
    size_t kept = 0;
    enum err_code rc =
        notes_read(&p->tocs, REC_BIND, newer_there, &filter, &p->results, &p->result_count, err);

    if (!rc && filter.err.code) {
        *err = filter.err;
        rc = err->code;
    }
    for (size_t i = 0; i < p->result_count && !rc; i++) {
        const struct remote_note *note = &p->results[i];
        const struct reach_item item = {
            .id = note->id, .root = INTAKE_OPTIONAL, .kind = REACH_BLOB};

        if (!reach_is(&p->in.reach, &note->target, REACH_PLAIN | REACH_AS_TREE))
            continue;
        rc = reach_add(&p->in.reach, &item, err);
        p->results[kept++] = *note;
    }
    if (!rc)
        p->result_count = kept;
    return rc ? rc : intake_run(&p->in, err);
}

/* ---- all of it --------------------------------------------------------------------------------- */

/* A name must not point at nothing, whatever a remote came up with. */
static enum err_code check_root(struct pull *p, const struct pull_root *r, struct err *err)
{
    bool here = false;
    const enum err_code rc = writer_has(p->in.writer, &r->id, &here, err);

    if (rc || here)
        return rc;
    return err_set(err, ERR_DAMAGED, "remote %s: what ref %s names did not arrive",
                   p->tocs.remote->name, r->ref);
}

/* Only here does anything get a name. */
static enum err_code publish(struct pull *p, struct err *err)
{
    struct writer *w = p->in.writer;
    enum err_code rc = OK;

    for (size_t i = 0; i < p->result_count && !rc && w; i++)
        rc = writer_bind(w, &p->results[i].id, &p->results[i].target, err);
    for (size_t i = 0; i < p->root_count && !rc; i++) {
        const struct pull_root *r = &p->roots[i];

        if (!r->ref) {
            if (w)
                writer_touch(w, r->kind, &r->id);
            continue;
        }
        p->report->refs++;
        if (w)
            rc = check_root(p, r, err);
        if (w && !rc)
            rc = writer_ref(w, str_of(r->ref), r->kind, &r->id, err);
    }
    return !rc && w ? writer_commit(w, err) : rc;
}

static void forget_roots(struct pull *p)
{
    for (size_t i = 0; i < p->root_count; i++)
        free(p->roots[i].ref);
    free(p->roots);
    free(p->results);
    p->roots = NULL;
    p->results = NULL;
    p->root_count = p->root_cap = p->result_count = 0;
}

static enum err_code pull_once(struct pull *p, struct err *err)
{
    enum err_code rc;

    p->report->refs = p->report->refs_kept = 0;
    p->refused = (struct err)ERR_INIT;
    if (p->o->notes)
        buf_clear(p->o->notes);
    rc = intake_init(p->st, &p->tocs, p->o->dry_run, &p->in, err);
    if (rc)
        return rc;
    p->in.commit_bytes = p->o->commit_bytes ? p->o->commit_bytes : TRANSFER_COMMIT_BYTES;
    p->in.describe = describe;
    p->in.describe_arg = p;
    rc = find_roots(p, err);
    if (!rc)
        rc = walk_roots(p, err);
    if (!rc)
        rc = find_results(p, err);
    if (!rc)
        rc = intake_finish(&p->in, err);
    if (!rc)
        rc = publish(p, err);
    p->report->objects = (int64_t)p->in.reach.n;
    p->report->objects_moved += p->in.objects_moved;
    p->report->bytes_moved += p->in.dry_bytes;
    p->report->packs = 0;
    for (size_t i = 0; i < p->tocs.count; i++)
        p->report->packs += p->in.packs_read[i];
    intake_release(&p->in);
    forget_roots(p);
    return rc;
}

static enum err_code epoch_of(struct store *st, int64_t *epoch, struct err *err)
{
    struct index_stat stat;
    const enum err_code rc = index_stat(st->index, &stat, err);

    *epoch = rc ? 0 : stat.epoch;
    return rc;
}

static enum err_code pull_until_it_holds(struct pull *p, struct err *err)
{
    int64_t before, after;
    enum err_code rc = OK;

    for (int i = 0; i < TRIES; i++) {
        rc = epoch_of(p->st, &before, err);
        if (!rc)
            rc = pull_once(p, err);
        if (rc == ERR_CHANGED)
            continue;
        if (rc)
            return rc;
        rc = epoch_of(p->st, &after, err);
        if (rc || before == after)
            return rc;
        rc = err_set(err, ERR_AGAIN, "gc deleted objects all the while; pull again");
    }
    return rc;
}

enum err_code store_pull(struct store *st, const char *remote, const struct transfer_options *o,
                         struct transfer_report *out, struct err *err)
{
    struct pull p = {.st = st, .o = o, .report = out};
    enum err_code rc;

    CHECK(st->index);
    *out = (struct transfer_report){0};
    rc = tocs_open(st, remote, false, &p.tocs, err);
    p.tocs.progress = o->progress;
    if (!rc)
        rc = pull_until_it_holds(&p, err);
    out->bytes_moved += p.tocs.moved_bytes;
    if (!rc && p.refused.code) {
        *err = p.refused;
        rc = err->code;
    }
    tocs_close(&p.tocs);
    return rc;
}

/* ---- for fsck ---------------------------------------------------------------------------------- */

static enum err_code fetch_from(struct store *st, const char *remote, const struct digest *ids,
                                size_t n, const bool *found, struct err *err)
{
    struct tocs tocs = {0};
    struct intake in = {0};
    enum err_code rc = tocs_open(st, remote, false, &tocs, err);

    if (!rc)
        rc = intake_init(st, &tocs, false, &in, err);
    in.commit_bytes = TRANSFER_COMMIT_BYTES;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct reach_item item = {.id = ids[i], .root = INTAKE_OPTIONAL, .kind = REACH_BLOB};

        if (!found[i])
            rc = reach_add(&in.reach, &item, err);
    }
    if (!rc)
        rc = intake_run(&in, err);
    if (!rc)
        rc = intake_finish(&in, err);
    intake_release(&in);
    tocs_close(&tocs);
    return rc;
}

/* One damaged object must not keep the others away: halves, and halves of halves, find it. */
static void fetch_what_can_be(struct store *st, const char *remote, const struct digest *ids,
                              size_t n, const bool *found)
{
    struct err ignored = ERR_INIT;
    const size_t half = n / 2;

    if (fetch_from(st, remote, ids, n, found, &ignored) != ERR_DAMAGED || n < 2)
        return;
    fetch_what_can_be(st, remote, ids, half, found);
    fetch_what_can_be(st, remote, ids + half, n - half, found + half);
}

static enum err_code look_again(struct store *st, const struct digest *ids, size_t n, bool *found,
                                struct err *err)
{
    struct loc loc;
    enum err_code rc = OK;

    for (size_t i = 0; i < n && !rc; i++) {
        rc = index_get(st->index, &ids[i], 1, &loc, err);
        found[i] = !rc && loc.type != 0;
    }
    return rc;
}

enum err_code transfer_fetch(struct store *st, const struct digest *ids, size_t n, bool *found,
                             struct err *err)
{
    enum err_code rc = look_again(st, ids, n, found, err);

    for (size_t r = 0; r < st->config.remote_count && !rc; r++) {
        size_t left = 0;

        for (size_t i = 0; i < n; i++)
            left += !found[i];
        if (left == 0)
            break;
        /* A remote that is away is one that has nothing. */
        fetch_what_can_be(st, st->config.remotes[r].name, ids, n, found);
        rc = look_again(st, ids, n, found, err);
    }
    return rc;
}
