/* Debian packages: fetched as anybody may, unpacked into a folder, never installed.
 *
 * Links of a package are meant for the root of a system, so many are absolute; in a folder that can be anywhere they are made relative,
 * read as if the folder were that root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/source_internal.h"
#include "orchestrator/tool.h"
#include "store/ingest.h"
#include "store/reader.h"

#define FETCH_MS ((int64_t)60 * 60 * 1000)
#define UNPACK_MS ((int64_t)30 * 60 * 1000)
#define LINK_MAX_BYTES 4096
#define DEPTH_MAX 200

struct package {
    struct sources *s;
    int number;
    const struct lock_row *lock; /* NULL: the newest */
    struct lock_row row;         /* what was found */
    const char *folder;          /* of this fetch, removed afterwards */
    const char *deb, *tree;      /* in it */
};

/* ---- apt-get and dpkg-deb ------------------------------------------------------------------------- */

static enum err_code download(struct package *g, struct err *err)
{
    const char *other = getenv("WEIR_APT_GET"), *name = g->s->p->sources[g->number].location;
    const char *what = g->lock ? arena_printf(&g->s->arena, "%s=%s", name, g->lock->version) : name;
    /* As root it would become a user who may not write here. */
    const char *const root[] = {"apt-get",  "-q", "-o", "APT::Sandbox::User=root",
                                "download", what, NULL};
    const char *const user[] = {"apt-get", "-q", "download", what, NULL};
    const char *const told[] = {other, "download", what, NULL};
    const struct tool t = {.argv = other && *other  ? told
                                   : geteuid() == 0 ? root
                                                    : user,
                           .dir = g->folder,
                           .timeout_ms = FETCH_MS};
    struct tool_end end;
    enum err_code rc = tool_run(&t, &end, err);

    if (rc == ERR_MISSING)
        return err_prefix(err, "deb: sources need apt-get, as Debian and its relatives have it");
    if (rc || end.status == 0)
        return rc;
    if (g->lock)
        return err_set(err, ERR_MISSING,
                       "apt-get download %s: %s; the lock file pins this version; weir lock "
                       "--update takes the one that is offered now",
                       what, end.said);
    return err_set(err, ERR_MISSING,
                   "apt-get download %s: %s; is the package in this release, and was apt-get "
                   "update run?",
                   what, end.said);
}

static enum err_code find_deb(struct package *g, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0, found = 0;
    int fd = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, g->folder, &fd, err);

    if (!rc)
        rc = os_list(fd, &entries, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        const size_t n = strlen(entries[i].name);

        if (n > 4 && strcmp(entries[i].name + n - 4, ".deb") == 0 && entries[i].type == DT_REG) {
            g->deb = arena_printf(&g->s->arena, "%s/%s", g->folder, entries[i].name);
            found++;
        }
    }
    if (!rc && found != 1)
        rc = err_set(err, ERR_MISSING, "apt-get download left %zu packages, not one", found);
    os_close_quiet(&fd);
    free(entries);
    return rc;
}

static enum err_code dpkg(struct package *g, const char *const *argv, struct buf *out,
                          struct err *err)
{
    const struct tool t = {.argv = argv, .timeout_ms = UNPACK_MS, .out = out};
    struct tool_end end;
    enum err_code rc = tool_run(&t, &end, err);

    (void)g;
    if (!rc && end.status)
        rc = err_set(err, ERR_INPUT, "dpkg-deb ends with status %d: %s", end.status, end.said);
    return rc;
}

static enum err_code field(struct package *g, const char *name, const char **out, struct err *err)
{
    const char *const argv[] = {"dpkg-deb", "--field", g->deb, name, NULL};
    struct buf text;
    enum err_code rc;

    buf_init(&text, 4096);
    rc = dpkg(g, argv, &text, err);
    while (text.n && text.p[text.n - 1] == '\n')
        text.p[--text.n] = '\0';
    if (!rc && text.n == 0)
        rc = err_set(err, ERR_INPUT, "the package has no %s", name);
    *out = arena_strdup(&g->s->arena, text.p ? text.p : "");
    buf_release(&text);
    return rc;
}

static enum err_code hash_file(const char *path, struct digest *out, struct err *err)
{
    uint8_t *p = mem_alloc(1 << 20);
    struct sha256 sum = {0};
    int fd = -1;
    size_t got = 1;
    enum err_code rc = os_open(AT_FDCWD, path, O_RDONLY | O_NOFOLLOW, 0, &fd, err);

    sha256_init(&sum);
    while (!rc && got) {
        rc = os_read(fd, p, 1 << 20, &got, err);
        if (!rc)
            sha256_update(&sum, p, got);
    }
    sha256_final(&sum, out);
    sha256_release(&sum);
    os_close_quiet(&fd);
    free(p);
    return rc;
}

static enum err_code look_at(struct package *g, struct err *err)
{
    const struct source *source = &g->s->p->sources[g->number];
    char was[DIGEST_HEX + 1], is[DIGEST_HEX + 1];
    const char *name;
    enum err_code rc = hash_file(g->deb, &g->row.sha256, err);

    if (!rc && g->lock && !digest_eq(&g->lock->sha256, &g->row.sha256)) {
        digest_hex(&g->lock->sha256, was);
        digest_hex(&g->row.sha256, is);
        return err_set(err, ERR_CHANGED,
                       "%s %s has sha256 %s, the lock file says %s; somebody replaced the package; "
                       "weir lock --update takes the new one",
                       source->location, g->lock->version, is, was);
    }
    if (!rc)
        rc = field(g, "Package", &name, err);
    if (!rc && strcmp(name, source->location) != 0)
        rc = err_set(err, ERR_INPUT, "asked for %s, got the package %s", source->location, name);
    if (!rc)
        rc = field(g, "Version", &g->row.version, err);
    if (!rc)
        rc = field(g, "Architecture", &g->row.arch, err);
    return rc;
}

/* ---- links ---------------------------------------------------------------------------------------- */

/* Where target leads, seen from a folder whose path below the root is dir ("usr/share/"), with all . and .. taken out; a .. at the root
 * stays there, as in a system.  Empty: the root itself. */
static const char *led_to(struct arena *a, const char *dir, const char *target)
{
    const char *whole = target[0] == '/' ? target : arena_printf(a, "%s%s", dir, target);
    char *out = arena_alloc(a, strlen(whole) + 2), *end = out;

    for (const char *p = whole; *p;) {
        const size_t n = strcspn(p, "/");

        if (n == 2 && p[0] == '.' && p[1] == '.') {
            while (end > out && *--end != '/')
                ;
        } else if (n > 0 && !(n == 1 && p[0] == '.')) {
            if (end > out)
                *end++ = '/';
            memcpy(end, p, n);
            end += n;
        }
        p += n + (p[n] == '/');
    }
    *end = '\0';
    return out;
}

static const char *relative(struct arena *a, const char *dir, const char *to)
{
    size_t same = 0;
    const char *out = "";

    for (size_t i = 0; dir[i] && dir[i] == to[i]; i++)
        if (dir[i] == '/')
            same = i + 1;
    for (const char *p = dir + same; *p; p++)
        if (*p == '/')
            out = arena_printf(a, "%s../", out);
    return arena_printf(a, "%s%s", out, to + same);
}

static enum err_code mend_link(struct package *g, int fd, const char *dir, const char *name,
                               struct err *err)
{
    struct arena *a = &g->s->arena;
    const struct arena_mark mark = arena_mark(a);
    struct buf target;
    const char *to;
    size_t n;
    enum err_code rc;

    buf_init(&target, LINK_MAX_BYTES);
    rc = os_readlink(fd, name, &target, err);
    if (!rc) {
        to = relative(a, dir, led_to(a, dir, target.p));
        n = strlen(to);
        if (n && to[n - 1] == '/')
            to = arena_strndup(a, to, n - 1);
        if (strcmp(to, target.p) != 0) {
            rc = os_unlink(fd, name, err);
            if (!rc &&
                *to) /* a link to the folder it is in, or to the root beside it, says nothing */
                rc = os_symlink(to, fd, name, err);
        }
    }
    buf_release(&target);
    arena_rewind(a, mark);
    return rc;
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded by DEPTH_MAX */
static enum err_code mend_links(struct package *g, int parent, const char *folder, const char *dir,
                                int depth, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    int fd = -1;
    enum err_code rc;

    if (depth > DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s has folders more than %d deep", g->deb, DEPTH_MAX);
    rc = os_open(parent, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &fd, err);
    if (!rc)
        rc = os_list(fd, &entries, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        const struct os_entry *e = &entries[i];

        if (e->type == DT_LNK)
            rc = mend_link(g, fd, dir, e->name, err);
        else if (e->type == DT_DIR)
            rc = mend_links(g, fd, e->name, arena_printf(&g->s->arena, "%s%s/", dir, e->name),
                            depth + 1, err);
    }
    os_close_quiet(&fd);
    free(entries);
    return rc;
}

static enum err_code unpack(struct package *g, struct err *err)
{
    const char *const argv[] = {"dpkg-deb", "--extract", g->deb, g->tree, NULL};
    enum err_code rc = os_mkdirs(g->tree, 0755, err);

    if (!rc)
        rc = dpkg(g, argv, NULL, err);
    if (!rc)
        rc = mend_links(g, AT_FDCWD, g->tree, "", 0, err);
    return rc;
}

/* ---- entering ------------------------------------------------------------------------------------- */

static enum err_code enter(struct enter *e, void *arg, struct err *err)
{
    struct package *g = arg;
    const struct source *source = &g->s->p->sources[g->number];
    struct source_object *o = &g->s->list[g->number].object;
    const struct ingest_options options = {.how = INGEST_ADOPT, .progress = g->s->o.progress};
    struct entry_wanted entry = {
        .source = source,
        .object = o,
        .url = arena_printf(&g->s->arena, "deb:%s=%s", g->row.location, g->row.version),
        .row = &g->row};
    char was[DIGEST_TEXT + 1], is[DIGEST_TEXT + 1];
    struct ingest_result got;
    enum err_code rc;

    *o = (struct source_object){.kind = OBJ_TREE, .digest = g->row.digest};
    if (g->tree) {
        rc = ingest_path(e->w, AT_FDCWD, g->tree, &options, &got, err);
        o->digest = got.digest;
        o->size = got.size;
        if (!rc && g->lock && !digest_eq(&g->lock->digest, &got.digest)) {
            digest_text(&g->lock->digest, was);
            digest_text(&got.digest, is);
            rc =
                err_set(err, ERR_CHANGED,
                        "%s unpacks to %s, the lock file says %s; weir lock --update takes the new "
                        "one",
                        source->location, is, was);
        }
    } else {
        rc = object_size(e->st, &o->digest, &o->size, err);
    }
    if (rc)
        return rc;
    g->row.digest = o->digest;
    g->row.size = o->size;
    enter_keep(e, &o->digest);
    return source_entries(g->s, e, &entry, 1, err);
}

/* Of processes that were killed. */
static void sweep(int cache)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    size_t count = 0;

    if (os_list(cache, &entries, &count, &ignored) != OK)
        return;
    for (size_t i = 0; i < count; i++) {
        int64_t pid;
        const char *name = entries[i].name;
        const struct str number = {name + 4, strncmp(name, "deb.", 4) ? 0 : strcspn(name + 4, ".")};

        if (number.n && str_to_i64(number, 2, INT32_MAX, &pid, &ignored) == OK &&
            kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            (void)!os_remove_tree(cache, name, &ignored);
    }
    free(entries);
}

static enum err_code fetch_and_enter(struct package *g, struct err *err)
{
    struct err ignored = ERR_INIT;
    uint32_t random;
    const char *name;
    int cache = -1;
    enum err_code rc = source_cache_dir(g->s->st, "", &cache, err);

    if (rc)
        return rc;
    sweep(cache);
    os_random(&random, sizeof(random));
    name = arena_printf(&g->s->arena, "deb.%d.%08x", (int)getpid(), random);
    g->folder = arena_printf(&g->s->arena, "%s/cache/%s", g->s->st->root, name);
    g->tree = arena_printf(&g->s->arena, "%s/tree", g->folder);
    rc = os_mkdirs(g->folder, 0755, err);
    if (!rc)
        rc = download(g, err);
    if (!rc)
        rc = find_deb(g, err);
    if (!rc)
        rc = look_at(g, err);
    if (!rc)
        rc = unpack(g, err);
    if (!rc)
        rc = enter_run(g->s->st, enter, g, err);
    (void)!os_remove_tree(cache, name, &ignored);
    os_close_quiet(&cache);
    return rc;
}

enum err_code source_enter_deb(struct sources *s, int number, struct err *err)
{
    const struct source *source = &s->p->sources[number];
    const struct lock_row *row = lock_find(&s->lock, source->name);
    struct package g = {.s = s, .number = number};
    enum obj_kind kind;
    bool there = false;
    enum err_code rc = OK;

    if (!s->o.update && row && row->kind == SOURCE_DEB &&
        strcmp(row->location, source->location) == 0)
        g.lock = row;
    g.row = g.lock ? *g.lock : (struct lock_row){.kind = SOURCE_DEB, .location = source->location};
    g.row.name = source->name;
    if (g.lock)
        rc = source_there(s->st, &g.lock->digest, &there, &kind, err);
    if (rc)
        return rc;
    if (there)
        rc = enter_run(s->st, enter, &g, err);
    else if (s->o.offline)
        rc = err_set(err, ERR_MISSING,
                     "package %s%s%s is not in the store, and nothing is to be fetched now",
                     source->location, g.lock ? " " : "", g.lock ? g.lock->version : "");
    else
        rc = fetch_and_enter(&g, err);
    s->list[number].locked = rc == OK;
    s->list[number].row = g.row;
    return rc;
}
