/* Finding programs, entering them, asking each build once what it is. */
#include "orchestrator/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/enter.h"
#include "orchestrator/program_internal.h"
#include "orchestrator/tool.h"
#include "store/action.h"
#include "store/ingest.h"
#include "store/reader.h"

#define DESCRIBE_MS 30000
#define PATH_BYTES 4096

struct known {
    struct known *next;
    struct program prog;
    const char *pinned; /* NULL: none */
    json_t *root;
};
struct programs {
    struct store *st;
    struct arena arena;
    const char *dir;
    struct known *list;
};

/* ---- where they are ------------------------------------------------------------------------------- */

static enum err_code find_dir(struct programs *ps, struct err *err)
{
    const char *told = getenv("WEIR_LIBEXEC");
    char self[PATH_BYTES];
    ssize_t n;
    char *slash;

    if (told && *told) {
        ps->dir = arena_strdup(&ps->arena, told);
        return OK;
    }
    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return err_sys(err, errno, "read /proc/self/exe");
    self[n] = '\0';
    slash = strrchr(self, '/');
    CHECK(slash);
    *slash = '\0';
    slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    ps->dir = arena_printf(&ps->arena, "%s/libexec/weir", self);
    return OK;
}

enum err_code programs_new(struct store *st, struct programs **out, struct err *err)
{
    struct programs *ps = mem_zero(1, sizeof(*ps));
    enum err_code rc;

    CHECK(st);
    CHECK(out);
    arena_init(&ps->arena);
    ps->st = st;
    rc = find_dir(ps, err);
    if (rc) {
        programs_free(ps);
        ps = NULL;
    }
    *out = ps;
    return rc;
}

void programs_free(struct programs *ps)
{
    if (!ps)
        return;
    for (struct known *k = ps->list; k; k = k->next)
        json_decref(k->root);
    arena_release(&ps->arena);
    free(ps);
}

const char *programs_dir(const struct programs *ps)
{
    return ps->dir;
}

static enum err_code no_such(const struct programs *ps, const char *uses, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    const char **names, *near;
    size_t count = 0, n = 0;
    int fd = -1;

    if (os_open_dir(AT_FDCWD, ps->dir, &fd, &ignored) == OK)
        (void)!os_list(fd, &entries, &count, &ignored);
    os_close_quiet(&fd);
    names = mem_alloc((count + 1) * sizeof(*names));
    for (size_t i = 0; i < count; i++)
        if (strncmp(entries[i].name, "weir-", 5) != 0)
            names[n++] = entries[i].name;
    near = str_nearest(uses, names, n);
    if (near)
        err_set(err, ERR_NOT_FOUND, "there is no program '%s' in %s; did you mean %s?", uses,
                ps->dir, near);
    else
        err_set(err, ERR_NOT_FOUND,
                "there is no program '%s' in %s; weir ships what is there, any other program goes "
                "under run:",
                uses, ps->dir);
    free((void *)names);
    free(entries);
    return ERR_NOT_FOUND;
}

/* ---- what they say -------------------------------------------------------------------------------- */

struct asking {
    struct programs *ps;
    struct known *k;
    const char *pinned;
};

/* A program's libraries may be replaced beneath it.  Whatever installs one runs ldconfig, which writes this file anew; and then there are
 * the folders that people name themselves. */
static void add_machine(struct buf *b)
{
    const char *path = getenv("LD_LIBRARY_PATH");
    struct stat st;

    if (stat("/etc/ld.so.cache", &st) == 0)
        buf_printf(b, "%lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    for (const char *p = path ? path : ""; *p;) {
        const size_t n = strcspn(p, ":");
        char *dir = mem_strndup(p, n);

        buf_printf(b, ":%s", dir);
        if (stat(dir, &st) == 0)
            buf_printf(b, "@%lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        free(dir);
        p += n + (p[n] == ':');
    }
}

static enum err_code describe_action(const struct digest *program, json_t **out, struct err *err)
{
    char text[DIGEST_TEXT + 1], machine[DIGEST_TEXT + 1];
    struct digest d;
    struct buf b;
    enum err_code rc;

    buf_init(&b, 1 << 20);
    add_machine(&b);
    rc = buf_check(&b, "LD_LIBRARY_PATH", err);
    if (!rc) {
        sha256_of(b.p ? b.p : "", b.n, &d);
        digest_text(&d, machine);
        digest_text(program, text);
        *out =
            json_pack("{s:s,s:s,s:s}", "weir", "describe/1", "program", text, "libraries", machine);
    }
    buf_release(&b);
    return rc;
}

static enum err_code ask(const char *path, struct buf *out, struct err *err)
{
    const char *const argv[] = {path, "--describe", NULL};
    const struct tool t = {.argv = argv, .timeout_ms = DESCRIBE_MS, .out = out};
    struct tool_end end;
    enum err_code rc = tool_run(&t, &end, err);

    if (!rc && end.status)
        rc = err_set(err, ERR_INPUT, "it ends with status %d%s%s", end.status,
                     *end.said ? ": " : "", end.said);
    if (rc == ERR_TASK || rc == ERR_LIMIT)
        err->code = rc = ERR_INPUT;
    return rc ? err_prefix(err, "ask %s --describe", path) : OK;
}

static enum err_code parse(struct asking *q, const struct buf *text, struct err *err)
{
    enum err_code rc;

    json_decref(q->k->root);
    q->k->root = NULL;
    q->k->prog.param_count = q->k->prog.input_count = q->k->prog.output_count = 0;
    rc = describe_parse(text->p, text->n, &q->ps->arena, &q->k->prog, &q->k->root, err);
    return rc ? err_prefix(err, "what %s --describe says", q->k->prog.path) : OK;
}

/* Another build may have said so once: then what it said is here. */
static enum err_code known_description(struct enter *e, const struct digest *key, struct buf *text,
                                       struct digest *result, struct err *err)
{
    enum err_code rc = action_lookup(e->st, key, result, err);

    return rc ? rc : object_read(e->st, result, PROGRAM_DESCRIBE_MAX, text, err);
}

static enum err_code describe(struct asking *q, struct enter *e, struct err *err)
{
    struct digest key, result;
    json_t *action = NULL;
    struct buf text, canonical;
    enum err_code rc;

    buf_init(&text, PROGRAM_DESCRIBE_MAX);
    buf_init(&canonical, PROGRAM_DESCRIBE_MAX);
    rc = describe_action(&q->k->prog.digest, &action, err);
    if (!rc)
        rc = action_key(action, &key, &canonical, err);
    if (!rc)
        rc = known_description(e, &key, &text, &result, err);
    if (!rc) {
        rc = parse(q, &text, err);
    } else if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        rc = ask(q->k->prog.path, &text, err);
        if (!rc)
            rc = parse(q, &text, err);
        buf_clear(&canonical);
        if (!rc)
            rc = json_canonical(q->k->root, &canonical, err);
        if (!rc)
            rc = buf_check(&canonical, "description", err);
        if (!rc)
            rc = writer_put(e->w, OBJ_BLOB, canonical.p, canonical.n, &result, err);
        if (!rc)
            rc = action_put(e->w, action, &result, &key, err);
    }
    if (!rc)
        enter_keep(e, &result);
    json_decref(action);
    buf_release(&text);
    buf_release(&canonical);
    return rc;
}

/* ---- entering ------------------------------------------------------------------------------------- */

/* A build that is not installed any more, but kept by the runs that used it, becomes a file again. */
static enum err_code old_build(struct asking *q, const struct digest *want, struct err *err)
{
    struct store *st = q->ps->st;
    char hex[DIGEST_HEX + 1], aside[DIGEST_HEX + 32];
    struct buf dir;
    int folder = -1, fd = -1;
    struct loc loc;
    enum err_code rc = object_locate(st, want, 1, &loc, err);

    if (!rc && loc.type == 0)
        return err_set(err, ERR_INPUT,
                       "%s@%s is pinned, but the one in %s is another build, and the pinned one is "
                       "not in this store",
                       q->k->prog.name, q->pinned, q->ps->dir);
    digest_hex(want, hex);
    buf_init(&dir, 1 << 16);
    buf_printf(&dir, "%s/cache/program", st->root);
    q->k->prog.path = arena_printf(&q->ps->arena, "%s/%s", dir.p, hex);
    if (!rc && access(q->k->prog.path, X_OK) != 0) {
        uint32_t random;

        os_random(&random, sizeof(random));
        (void)snprintf(aside, sizeof(aside), "%s.%08x", hex, random);
        rc = os_mkdirs(dir.p, 0755, err);
        if (!rc)
            rc = os_open_dir(AT_FDCWD, dir.p, &folder, err);
        if (!rc)
            rc = os_open(folder, aside, O_WRONLY | O_CREAT | O_EXCL, 0700, &fd, err);
        if (!rc)
            rc = object_copy(st, want, fd, NULL, err);
        if (!rc)
            rc = os_chmod(fd, 0555, err);
        if (!rc)
            rc = os_fsync(fd, err);
        if (!rc)
            rc = os_close(&fd, err);
        if (!rc)
            rc = os_rename(folder, aside, folder, hex, err);
    }
    os_close_quiet(&fd);
    os_close_quiet(&folder);
    buf_release(&dir);
    return rc;
}

static enum err_code enter_program(struct enter *e, void *arg, struct err *err)
{
    struct asking *q = arg;
    struct program *prog = &q->k->prog;
    struct ingest_item item;
    const struct ingest_options o = {.how = INGEST_COPY, .no_memo = e->no_memo};
    struct digest pinned;
    enum err_code rc;

    prog->path = arena_printf(&q->ps->arena, "%s/%s", q->ps->dir, prog->name);
    item = (struct ingest_item){.path = prog->path};
    rc = ingest_many(e->w, AT_FDCWD, &item, 1, &o, NULL, err);
    if (rc && (rc != ERR_NOT_FOUND || !q->pinned))
        return rc == ERR_NOT_FOUND ? no_such(q->ps, prog->name, err) : rc;
    if (!rc && (item.result.kind != OBJ_BLOB || !item.executable))
        return err_set(err, ERR_INPUT, "%s is no program: not an executable file", prog->path);
    prog->digest = item.result.digest;
    if (q->pinned) {
        *err = (struct err)ERR_INIT;
        rc = digest_parse(q->pinned, strlen(q->pinned), &pinned, err);
        if (!rc && !digest_eq(&pinned, &prog->digest)) {
            prog->digest = pinned;
            rc = old_build(q, &pinned, err);
        }
    }
    if (!rc)
        rc = describe(q, e, err);
    if (!rc)
        enter_keep(e, &prog->digest);
    return rc;
}

enum err_code program_get(struct programs *ps, const char *uses, const char *pinned,
                          const struct program **out, struct err *err)
{
    struct asking q = {.ps = ps, .pinned = pinned};
    struct stat st;
    enum err_code rc;

    CHECK(ps);
    CHECK(uses);
    CHECK(out);
    for (struct known *k = ps->list; k; k = k->next)
        if (strcmp(k->prog.name, uses) == 0 &&
            (pinned ? k->pinned && strcmp(k->pinned, pinned) == 0 : !k->pinned)) {
            *out = &k->prog;
            return OK;
        }
    if (!*uses || strchr(uses, '/') || uses[0] == '.')
        return err_set(err, ERR_INPUT, "'%s' is no name of a program", uses);
    q.k = arena_alloc(&ps->arena, sizeof(*q.k));
    q.k->prog.name = arena_strdup(&ps->arena, uses);
    q.k->pinned = pinned ? arena_strdup(&ps->arena, pinned) : NULL;
    rc = enter_run(ps->st, enter_program, &q, err);
    if (!rc)
        rc = os_stat_at(AT_FDCWD, q.k->prog.path, &st, err);
    if (rc) {
        json_decref(q.k->root);
        return rc;
    }
    q.k->prog.size = st.st_size;
    q.k->prog.mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    q.k->prog.ino = st.st_ino;
    q.k->next = ps->list;
    ps->list = q.k;
    *out = &q.k->prog;
    return OK;
}
