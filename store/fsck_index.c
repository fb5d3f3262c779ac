/* fsck_index.c - the index against a fresh one made from the packs.
 *
 * LMDB trusts its pages, so a damaged one may crash whoever reads it: all of this runs in a child, which writes what it finds into a
 * file in memory that both have open.  Writers may be at work meanwhile; what differs because of them is told from damage by looking again,
 * and by which of the two knows the pack in question.
 *
 * What the index has and no pack confirms is not the index's fault when a pack is damaged or gone: those packs are reported by others.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "store/fsck_internal.h"
#include "store/loose.h"

#define SCAN 4096
#define FRESH_PREFIX "index.fsck."
#define LINES_MAX 10000
#define OUT_MAX ((size_t)16 << 20)

/* ---- in the child ------------------------------------------------------------------------------ */

struct side {
    struct index *ix;
    struct pack_row *packs; /* by number */
    size_t pack_count;
    struct idlist names; /* of the packs, sorted */
    struct digest *ids, cursor;
    struct loc *locs;
    size_t n, at;
    bool started, end;
};

struct comparison {
    struct store *st;
    struct side live, fresh;
    struct idlist
        condemned; /* packs that a gc, killed perhaps, is deleting: the index does not count them any more */
    bool moved;  /* somebody committed while we looked */
    bool behind; /* there are packs that the index does not know yet, or not any more */
    struct buf out;
    int lines;
};

static int by_number(const void *a, const void *b)
{
    const struct pack_row *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

static enum err_code side_open(struct side *s, const char *dir, struct err *err)
{
    enum err_code rc;

    s->ids = mem_alloc(SCAN * sizeof(*s->ids));
    s->locs = mem_alloc(SCAN * sizeof(*s->locs));
    rc = index_open(dir, INDEX_READ, &s->ix, err);
    if (!rc)
        rc = index_packs(s->ix, &s->packs, &s->pack_count, err);
    if (rc)
        return rc;
    if (s->pack_count > 0)
        qsort(s->packs, s->pack_count, sizeof(*s->packs), by_number);
    for (size_t i = 0; i < s->pack_count; i++)
        if (s->packs[i].records > 0) /* else it is being merged */
            idlist_add(&s->names, &s->packs[i].name);
    idlist_sort(&s->names);
    return OK;
}

/* NULL: the index names a pack that it does not have. */
static const struct digest *pack_of(const struct side *s, const struct loc *loc)
{
    const struct pack_row wanted = {.number = loc->pack};
    const struct pack_row *row =
        s->pack_count == 0 ? NULL
                           : bsearch(&wanted, s->packs, s->pack_count, sizeof(wanted), by_number);

    return row ? &row->name : NULL;
}

static void add_line(struct comparison *c, char kind, const struct digest *id, const char *text)
{
    char hex[DIGEST_HEX + 1] = "-";

    if (c->lines++ >= LINES_MAX)
        return;
    if (id)
        digest_hex(id, hex);
    buf_printf(&c->out, "%c %s %s\n", kind, hex, text);
}

/* A damaged page above the rows may hide them from whoever asks for one, and not from whoever walks past. */
static enum err_code look_up_too(struct comparison *c, struct side *s, struct err *err)
{
    struct loc *found = mem_alloc((s->n + 1) * sizeof(*found));
    const enum err_code rc = index_get(s->ix, s->ids, s->n, found, err);

    for (size_t i = 0; !rc && i < s->n; i++)
        if (found[i].type == 0 && !c->moved)
            add_line(c, 'I', &s->ids[i], "the index has an object and does not find it");
    free(found);
    return rc;
}

/* The next object; ids go up. */
static enum err_code side_next(struct comparison *c, struct side *s, struct err *err)
{
    enum err_code rc = OK;

    if (++s->at < s->n)
        return OK;
    s->at = 0;
    rc = index_scan(s->ix, &s->cursor, &s->started, s->ids, s->locs, SCAN, &s->n, err);
    s->end = rc || s->n == 0;
    return rc || s != &c->live ? rc : look_up_too(c, s, err);
}

static bool same_place(const struct comparison *c, const struct loc *a, const struct loc *b)
{
    const struct digest *x = pack_of(&c->live, a), *y = pack_of(&c->fresh, b);

    return a->type == b->type && a->off == b->off && a->pos == b->pos && a->raw == b->raw &&
           a->stored == b->stored && a->enc == b->enc && a->flags == b->flags && x && y &&
           digest_eq(x, y);
}

static enum err_code loose_is_there(struct comparison *c, const struct digest *id, bool *there,
                                    struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(id, name);
    rc = os_stat_at(c->st->loose, name, &info, err);
    *there = rc == OK;
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    return OK;
}

/* live, fresh: NULL when that side does not have it. */
static enum err_code differs(struct comparison *c, const struct digest *id, const struct loc *live,
                             const struct loc *fresh, struct err *err)
{
    const struct digest *from = live ? pack_of(&c->live, live) : NULL;
    const struct digest *to = fresh ? pack_of(&c->fresh, fresh) : NULL;
    struct loc now = {0};
    bool there = true;
    enum err_code rc;

    /* The pack is newer than the fresh index, or damaged, or gone; or it is being merged. */
    if (from && (!idlist_has(&c->fresh.names, from) || !idlist_has(&c->live.names, from)))
        return OK;
    /* Sealed, and not known to the index yet; or on its way out. */
    if (to && (!idlist_has(&c->live.names, to) || idlist_has(&c->condemned, to)))
        return OK;
    /* Its loose file is gone: the rows are looked at by fsck_places. */
    if (live && !fresh && live->type == LOC_SLICE)
        return OK;
    /* A loose file that was deleted is there again, under an old announcement: a writer was killed before it could commit.  The
     * index learns of it when somebody adds it once more. */
    if (fresh && (fresh->type == LOC_LOOSE || fresh->type == LOC_SLICE))
        return OK;
    rc = index_get(c->live.ix, id, 1, &now, err);
    if (!rc && live && !fresh && live->type == LOC_LOOSE)
        rc = loose_is_there(c, id, &there, err);
    if (rc || !there)
        return rc;
    if (fresh ? same_place(c, &now, fresh) : now.type == 0)
        return OK; /* caught up meanwhile */
    if (c->moved && now.type && !pack_of(&c->live, &now))
        return OK; /* in a pack that is newer than our list */
    add_line(c, 'I', id,
             !live    ? "the index does not know an object that a pack has"
             : !fresh ? "the index knows an object that no pack has"
                      : "the index and the packs put an object into different places");
    return OK;
}

static enum err_code compare_objects(struct comparison *c, struct err *err)
{
    enum err_code rc;

    rc = side_next(c, &c->live, err);
    if (!rc)
        rc = side_next(c, &c->fresh, err);
    while (!rc && (!c->live.end || !c->fresh.end)) {
        const struct digest *a = &c->live.ids[c->live.at], *b = &c->fresh.ids[c->fresh.at];
        const struct loc *x = &c->live.locs[c->live.at], *y = &c->fresh.locs[c->fresh.at];
        const int order = c->live.end ? 1 : c->fresh.end ? -1 : digest_cmp(a, b);

        if (order < 0)
            rc = differs(c, a, x, NULL, err);
        else if (order > 0)
            rc = differs(c, b, NULL, y, err);
        else if (!same_place(c, x, y))
            rc = differs(c, a, x, y, err);
        if (!rc && order <= 0)
            rc = side_next(c, &c->live, err);
        if (!rc && order >= 0)
            rc = side_next(c, &c->fresh, err);
    }
    return rc;
}

/* live_stamp, fresh_stamp: 0 when that side does not have it. */
static void compare_stamps(struct comparison *c, const char *what, int64_t live, int64_t fresh,
                           bool same)
{
    char text[ERR_TEXT_MAX];

    if (live == fresh && same)
        return;
    if ((live > fresh && c->moved) || (live < fresh && c->behind))
        return; /* set just now */
    snprintf(text, sizeof(text),
             live > fresh   ? "no pack holds the record of %.400s any more"
             : live < fresh ? "the index does not know the newest record of %.400s"
                            : "the index and the packs disagree about %.400s",
             what);
    add_line(c, live > fresh ? 'J' : 'I', NULL, text);
}

static enum err_code look_up_action(struct comparison *c, const struct action_row *a,
                                    const char *text, struct err *err)
{
    struct digest result;
    int64_t stamp;
    const enum err_code rc = index_action(c->live.ix, &a->key, &result, &stamp, err);

    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    compare_stamps(c, text, a->stamp, a->stamp, c->moved);
    return OK;
}

static enum err_code look_up_ref(struct comparison *c, const struct ref_row *r, const char *text,
                                 struct err *err)
{
    struct ref_row found;
    enum err_code rc;

    if (r->kind == OBJ_NONE)
        return OK;
    rc = index_ref(c->live.ix, str_of(r->name), &found, err);
    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    compare_stamps(c, text, r->stamp, r->stamp, c->moved);
    return OK;
}

static void action_text(const struct digest *key, char out[DIGEST_TEXT + 16])
{
    memcpy(out, "action ", sizeof("action "));
    digest_text(key, out + 7);
}

static enum err_code compare_actions(struct comparison *c, struct err *err)
{
    struct action_row *a = NULL, *b = NULL;
    char text[DIGEST_TEXT + 16];
    size_t n = 0, m = 0;
    enum err_code rc;

    rc = index_actions(c->live.ix, &a, &n, err);
    if (!rc)
        rc = index_actions(c->fresh.ix, &b, &m, err);
    for (size_t i = 0, k = 0; !rc && (i < n || k < m);) {
        const int order = i == n ? 1 : k == m ? -1 : digest_cmp(&a[i].key, &b[k].key);

        action_text(order <= 0 ? &a[i].key : &b[k].key, text);
        /* One that only the packs have was forgotten when its result went, and its record was not worth rewriting a pack: should the
         * result have come back, it is true, and no more needed than before. */
        if (order <= 0)
            compare_stamps(c, text, a[i].stamp, order >= 0 ? b[k].stamp : 0,
                           order == 0 && digest_eq(&a[i].result, &b[k].result));
        if (order <= 0)
            rc = look_up_action(c, &a[i], text, err);
        i += order <= 0;
        k += order >= 0;
    }
    free(a);
    free(b);
    return rc;
}

static enum err_code compare_refs(struct comparison *c, struct err *err)
{
    struct ref_row *a = NULL, *b = NULL;
    char text[ERR_TEXT_MAX];
    size_t n = 0, m = 0;
    enum err_code rc;

    rc = index_refs(c->live.ix, STR(""), REF_ALL, &a, &n, err);
    if (!rc)
        rc = index_refs(c->fresh.ix, STR(""), REF_ALL, &b, &m, err);
    for (size_t i = 0, k = 0; !rc && (i < n || k < m);) {
        const int order = i == n ? 1 : k == m ? -1 : strcmp(a[i].name, b[k].name);

        snprintf(text, sizeof(text), "ref %.400s", order <= 0 ? a[i].name : b[k].name);
        compare_stamps(c, text, order <= 0 ? a[i].stamp : 0, order >= 0 ? b[k].stamp : 0,
                       order == 0 && a[i].kind == b[k].kind &&
                           digest_eq(&a[i].digest, &b[k].digest));
        if (order <= 0)
            rc = look_up_ref(c, &a[i], text, err);
        i += order <= 0;
        k += order >= 0;
    }
    free(a);
    free(b);
    return rc;
}

/* Every page that a row is on, also of the tables that are not compared. */
static enum err_code read_all(struct comparison *c, struct err *err)
{
    struct index *ix = c->live.ix;
    struct condemned condemned = {0};
    struct touch_row *touches = NULL;
    struct lease_row *leases = NULL;
    enum err_code rc;
    int fd = -1;
    size_t n;

    rc = os_open(AT_FDCWD, "/dev/null", O_WRONLY, 0, &fd, err);
    if (!rc)
        rc = index_dump(ix, fd, err);
    if (!rc)
        rc = index_touches(ix, &touches, &n, err);
    if (!rc)
        rc = index_leases(ix, &leases, &n, err);
    if (!rc)
        rc = index_condemned(ix, &condemned, err);
    os_close_quiet(&fd);
    for (size_t i = 0; !rc && i < condemned.pack_count; i++)
        idlist_add(&c->condemned, &condemned.packs[i]);
    idlist_sort(&c->condemned);
    c->behind = condemned.pack_count + condemned.loose_count > 0;
    free(touches);
    free(leases);
    free(condemned.packs);
    free(condemned.loose);
    return rc;
}

/* Rows that are there for a walk and not for a question, see look_up_too. */
static enum err_code look_up_packs(struct comparison *c, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < c->live.pack_count; i++) {
        const struct pack_row *row = &c->live.packs[i];
        struct pack_row found;

        rc = index_pack(c->live.ix, row->number, &found, err);
        if (!rc && row->records > 0)
            rc = index_pack_by_name(c->live.ix, &row->name, &found, err);
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = OK;
            if (!c->moved)
                add_line(c, 'I', NULL, "the index has a pack and does not find it");
        }
    }
    return rc;
}

static enum err_code rebuild_and_compare(struct comparison *c, const char *live, const char *fresh,
                                         struct err *err)
{
    struct rebuild_report report = {0};
    struct index_stat before = {0}, after = {0};
    enum err_code rc;

    rc = side_open(&c->live, live, err);
    if (!rc)
        rc = read_all(c, err);
    if (!rc)
        rc = index_stat(c->live.ix, &before, err);
    if (!rc)
        rc = index_rebuild(fresh, c->st->packs, c->st->loose, &report, err);
    buf_release(&report.problems);
    if (!rc)
        rc = side_open(&c->fresh, fresh, err);
    if (!rc)
        rc = index_stat(c->live.ix, &after, err);
    c->moved = before.commits != after.commits;
    for (size_t i = 0; !rc && i < c->fresh.names.n; i++)
        c->behind = c->behind || !idlist_has(&c->live.names, &c->fresh.names.v[i]);
    if (!rc)
        rc = look_up_packs(c, err);
    if (!rc)
        rc = compare_objects(c, err);
    if (!rc)
        rc = compare_actions(c, err);
    if (!rc)
        rc = compare_refs(c, err);
    return rc;
}

/* A crash is an answer here: no handler of the program's may run, and no core is wanted. */
static void die_of_crashes(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    const struct rlimit none = {0, 0};

    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        (void)!signal(crashes[i], SIG_DFL);
    (void)!setrlimit(RLIMIT_CORE, &none);
}

/* Never returns: a child of a program with threads may do little else than its work. */
__attribute__((noreturn)) static void run_child(struct store *st, const char *live,
                                                const char *fresh, int out)
{
    struct comparison c = {.st = st};
    struct err err = ERR_INIT, write_err = ERR_INIT;
    enum err_code rc;

    die_of_crashes();
    buf_init(&c.out, OUT_MAX);
    rc = rebuild_and_compare(&c, live, fresh, &err);
    if (rc)
        buf_printf(&c.out, "E %d %s\n", (int)rc, err.text);
    buf_str(&c.out, "end\n");
    rc = os_write(out, c.out.p, c.out.n, &write_err);
    _exit(rc ? 1 : 0);
}

/* ---- in the parent ----------------------------------------------------------------------------- */

/* One line of the child. */
static enum err_code take_line(struct fsck *f, char *line, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct digest id;
    char *text = strchr(line + 2, ' ');
    int64_t code = 0;

    if (!text)
        return err_set(err, ERR_BUG, "the child that compared the index said \"%.100s\"", line);
    *text++ = '\0';
    if (line[0] == 'E') {
        if (str_to_i64(str_of(line + 2), 1, ERR_CODE_COUNT - 1, &code, &ignored))
            code = ERR_BUG;
        if (code != ERR_DAMAGED && code != ERR_VERSION)
            return err_set(err, (enum err_code)code, "%s", text);
        f->index_bad = f->index_unusable = true;
        fsck_found(f, FOUND_INDEX, NULL, NULL, "%s", text);
    } else if (line[0] == 'J') {
        fsck_found(f, FOUND_JOURNAL, NULL, NULL, "%s", text);
    } else {
        const bool one = digest_parse(line + 2, strlen(line + 2), &id, &ignored) == OK;

        f->index_bad = true;
        fsck_found(f, FOUND_INDEX, NULL, one ? &id : NULL, "%s", text);
    }
    return OK;
}

static enum err_code take_lines(struct fsck *f, int fd, struct err *err)
{
    struct buf text;
    struct stat info;
    bool complete = false;
    enum err_code rc;
    char *room;

    buf_init(&text, 2 * OUT_MAX);
    rc = os_stat(fd, &info, err);
    room = rc ? NULL : buf_room(&text, (size_t)info.st_size + 1);
    if (room) {
        room[info.st_size] = '\0';
        rc = os_pread_all(fd, room, (size_t)info.st_size, 0, err);
    }
    for (char *line = room, *end; !rc && line && *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end)
            break;
        *end = '\0';
        complete = strcmp(line, "end") == 0;
        if (!complete)
            rc = take_line(f, line, err);
    }
    if (!rc && !complete)
        rc = err_set(err, ERR_IO, "the child that compared the index ended early");
    buf_release(&text);
    return rc;
}

/* Then a mapped file that is new has pages that nobody can touch, which says nothing about the index. */
static bool disk_full(const char *path)
{
    struct statvfs info;

    return statvfs(path, &info) == 0 && info.f_bavail == 0;
}

static enum err_code wait_for(struct fsck *f, pid_t child, bool *ended, struct err *err)
{
    int status = 0;
    pid_t got;

    do
        got = waitpid(child, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_sys(err, errno, "wait for the child that compares the index");
    *ended = WIFEXITED(status);
    if (*ended)
        return OK;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS && disk_full(f->st->root))
        return err_set(
            err, ERR_FULL,
            "compare the index of %s: its disk is full, and the file of its readers needs "
            "room; make some and try again",
            f->st->root);
    f->index_bad = f->index_unusable = true;
    fsck_found(f, FOUND_INDEX, NULL, NULL,
               "the index crashes whoever reads it (signal %d); weir store rebuild makes it again",
               WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return OK;
}

static enum err_code compare(struct fsck *f, const char *live, const char *fresh, int out,
                             struct err *err)
{
    enum err_code rc;
    bool ended = false;
    pid_t child;
    int sys = 0;

    if (fault_hit(&sys))
        return err_sys(err, sys, "start a child to compare the index");
    child = fork();
    if (child < 0)
        return err_sys(err, errno, "start a child to compare the index");
    if (child == 0)
        run_child(f->st, live, fresh, out);
    rc = wait_for(f, child, &ended, err);
    return rc || !ended ? rc : take_lines(f, out, err);
}

/* The fresh indexes of this run, and those that a killed one left: we hold the lock. */
static enum err_code remove_fresh(struct fsck *f, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    enum err_code rc;
    int root = -1;

    rc = os_open_dir(AT_FDCWD, f->st->root, &root, err);
    if (!rc)
        rc = os_list(root, &entries, &count, err);
    for (size_t i = 0; !rc && i < count; i++)
        if (str_starts(str_of(entries[i].name), STR(FRESH_PREFIX)))
            rc = os_remove_tree(root, entries[i].name, err);
    free(entries);
    os_close_quiet(&root);
    return rc;
}

enum err_code fsck_index(struct fsck *f, struct err *err)
{
    struct err remove_err = ERR_INIT;
    struct buf live, fresh;
    enum err_code rc, removed;
    int out = -1;

    buf_init(&live, 1 << 16);
    buf_init(&fresh, 1 << 16);
    buf_printf(&live, "%s/index", f->st->root);
    buf_printf(&fresh, "%s/" FRESH_PREFIX "%ld", f->st->root, (long)getpid());
    rc = buf_check(&fresh, "path of the index", err);
    if (!rc)
        rc = remove_fresh(f, err);
    if (!rc) {
        out = memfd_create("weir fsck", MFD_CLOEXEC);
        if (out < 0)
            rc = err_sys(err, errno, "make a file in memory");
    }
    if (!rc)
        rc = compare(f, live.p, fresh.p, out, err);
    removed = remove_fresh(f, &remove_err);
    if (!rc && removed) {
        rc = removed;
        *err = remove_err;
    }
    os_close_quiet(&out);
    buf_release(&live);
    buf_release(&fresh);
    return rc;
}
