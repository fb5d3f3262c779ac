/* Sources through libarchive. */
#include "stages/data/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

#define READ_BYTES (256 << 10)
#define DEPTH_MAX 64
#define NESTED_MAX 1 /* archives in archives; a .deb's data.tar does not count */

struct walk {
    const struct unpack_rules *r;
    int64_t members, bytes;
};

bool unpack_sniff(const void *p, size_t n)
{
    static const struct {
        size_t at, n;
        const char *magic;
    } list[] = {{257, 5, "ustar"},
                {0, 4, "PK\3\4"},
                {0, 8, "!<arch>\n"},
                {0, 3, "\x1f\x8b\x08"},
                {0, 6,
                 "\xfd"
                 "7zXZ\0"},
                {0, 3, "BZh"},
                {0, 4, "\x28\xb5\x2f\xfd"}};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (n >= list[i].at + list[i].n &&
            memcmp((const char *)p + list[i].at, list[i].magic, list[i].n) == 0)
            return true;
    return false;
}

const char *unpack_version(void)
{
    return archive_version_details();
}

/* Without "./" in front; NULL where it leads out. */
static const char *clean(const char *name)
{
    while (strncmp(name, "./", 2) == 0)
        name += 2;
    if (!*name || *name == '/')
        return NULL;
    for (const char *p = name; *p;) {
        const size_t n = strcspn(p, "/");

        if (n == 2 && p[0] == '.' && p[1] == '.')
            return NULL;
        p += n + (p[n] == '/');
    }
    return name;
}

static enum err_code deliver(struct walk *w, const char *member, const void *p, size_t n, int depth,
                             struct err *err);

/* ---- archives ------------------------------------------------------------------------------------- */

static enum err_code read_member(struct archive *a, struct walk *w, const char *member,
                                 struct buf *out, bool *too_large, struct err *err)
{
    *too_large = false;
    buf_clear(out);
    for (;;) {
        char *room;
        la_ssize_t n;

        if ((int64_t)out->n > w->r->member_bytes_max) {
            *too_large = true;
            return OK;
        }
        room = buf_room(out, READ_BYTES);
        if (!room)
            return err_set(err, ERR_LIMIT, "%s: no memory for it", member);
        n = archive_read_data(a, room, READ_BYTES);
        out->n -= READ_BYTES - (n > 0 ? (size_t)n : 0);
        if (n < 0)
            return err_set(err, ERR_INPUT, "%s: %s", member,
                           archive_error_string(a) ? archive_error_string(a) : "it cannot be read");
        w->bytes += n;
        if (w->bytes > w->r->total_bytes_max)
            return err_set(err, ERR_LIMIT, "%s: the source unpacks to more than %lld bytes", member,
                           (long long)w->r->total_bytes_max);
        if (n == 0)
            return OK;
    }
}

struct nested { /* data.tar inside a .deb, read as it comes */
    struct archive *outer;
    struct walk *w;
    char block[READ_BYTES];
};

static la_ssize_t read_outer(struct archive *a, void *arg, const void **p)
{
    struct nested *s = arg;
    la_ssize_t n = archive_read_data(s->outer, s->block, sizeof(s->block));

    (void)a;
    *p = s->block;
    return n;
}

static struct archive *reader(void)
{
    struct archive *a = archive_read_new();

    CHECK(a);
    archive_read_support_filter_all(a);
    archive_read_support_format_tar(a);
    archive_read_support_format_zip(a);
    archive_read_support_format_ar(a);
    archive_read_support_format_raw(a);
    return a;
}

static enum err_code walk_archive(struct walk *w, struct archive *a, const char *name,
                                  bool plain_names, int depth, struct err *err);

static enum err_code open_data_tar(struct walk *w, struct archive *outer, const char *name,
                                   int depth, struct err *err)
{
    struct nested *s = mem_zero(1, sizeof(*s));
    struct archive *a = reader();
    enum err_code rc;

    s->outer = outer;
    s->w = w;
    if (archive_read_open(a, s, NULL, read_outer, NULL) != ARCHIVE_OK)
        rc = err_set(err, ERR_INPUT, "%s: data.tar: %s", name, archive_error_string(a));
    else
        rc = walk_archive(w, a, name, true, depth, err);
    archive_read_free(a);
    free(s);
    return rc;
}

static enum err_code one_member(struct walk *w, struct archive *a, struct archive_entry *e,
                                const char *name, bool plain_names, int depth, struct buf *bytes,
                                struct err *err)
{
    const char *stored = archive_entry_pathname(e), *member;
    const bool raw = archive_format(a) == ARCHIVE_FORMAT_RAW;
    const bool ar = (archive_format(a) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_AR;
    char full[4096];
    bool too_large;
    enum err_code rc;

    if (ar && stored && strncmp(stored, "data.tar", 8) == 0)
        return open_data_tar(w, a, name, depth, err);
    if (ar || (!raw && archive_entry_filetype(e) != AE_IFREG) || archive_entry_hardlink(e))
        return OK; /* control.tar, directories, links: a linked file is there once already */
    member = raw ? "" : clean(stored ? stored : "");
    if (!member) {
        w->r->skipped(w->r->arg, stored ? stored : "?", "its path leads out of the archive");
        return OK;
    }
    if (snprintf(full, sizeof(full), "%s%s%s", plain_names ? "" : name,
                 plain_names || raw ? "" : "/", member) >= (int)sizeof(full)) {
        w->r->skipped(w->r->arg, member, "its path is too long");
        return OK;
    }
    if (raw && plain_names)
        (void)snprintf(full, sizeof(full), "%s", name);
    if (w->r->wanted && !w->r->wanted(w->r->arg, full))
        return OK;
    rc = read_member(a, w, full, bytes, &too_large, err);
    if (!rc && too_large) {
        w->r->skipped(w->r->arg, full, "it has more bytes than member_bytes_max");
        return OK;
    }
    return rc ? rc : deliver(w, full, bytes->p ? bytes->p : "", bytes->n, depth, err);
}

static enum err_code walk_archive(struct walk *w, struct archive *a, const char *name,
                                  bool plain_names, int depth, struct err *err)
{
    struct archive_entry *e;
    struct buf bytes;
    enum err_code rc = OK;
    int status;

    buf_init(&bytes, (size_t)w->r->member_bytes_max + 2 * READ_BYTES);
    while (!rc) {
        status = archive_read_next_header(a, &e);
        if (status == ARCHIVE_EOF)
            break;
        if (status < ARCHIVE_WARN) {
            rc = err_set(err, ERR_INPUT, "%s: the archive is damaged: %s", name,
                         archive_error_string(a) ? archive_error_string(a) : "no reason given");
            break;
        }
        if (++w->members > w->r->members_max)
            rc = err_set(err, ERR_LIMIT, "%s: more than %lld members", name,
                         (long long)w->r->members_max);
        else
            rc = one_member(w, a, e, name, plain_names, depth, &bytes, err);
    }
    buf_release(&bytes);
    return rc;
}

enum err_code unpack_memory(const char *name, const void *p, size_t n,
                            const struct unpack_rules *rules, struct err *err)
{
    struct walk w = {.r = rules};
    struct archive *a = reader();
    enum err_code rc;

    if (archive_read_open_memory(a, p, n) != ARCHIVE_OK)
        rc = err_set(err, ERR_INPUT, "%s: %s", name, archive_error_string(a));
    else
        rc = walk_archive(&w, a, name, true, 1, err);
    archive_read_free(a);
    return rc;
}

/* A file's bytes: to the caller, or opened when they are an archive. */
static enum err_code deliver(struct walk *w, const char *member, const void *p, size_t n, int depth,
                             struct err *err)
{
    struct archive *a;
    struct err damaged = ERR_INIT;
    enum err_code rc;

    if (depth >= NESTED_MAX + 1 || !unpack_sniff(p, n))
        return w->r->file(w->r->arg, member, p, n, err);
    a = reader();
    rc = archive_read_open_memory(a, p, n) == ARCHIVE_OK
             ? walk_archive(w, a, member, false, depth + 1, &damaged)
             : err_set(&damaged, ERR_INPUT, "%s", archive_error_string(a));
    archive_read_free(a);
    if (rc == ERR_INPUT) { /* one bad archive among many files costs its own members only */
        w->r->skipped(w->r->arg, member, damaged.text);
        return OK;
    }
    if (rc)
        *err = damaged;
    return rc;
}

/* ---- files and directories ------------------------------------------------------------------------ */

static enum err_code walk_file(struct walk *w, int dir, const char *name, const char *member,
                               bool top, struct err *err)
{
    struct buf bytes;
    struct stat st;
    char head[512];
    size_t got = 0;
    int fd = -1;
    enum err_code rc = os_open(dir, name, O_RDONLY | O_NONBLOCK, 0, &fd, err);

    buf_init(&bytes, (size_t)w->r->member_bytes_max + 1);
    if (!rc)
        rc = os_stat(fd, &st, err);
    if (!rc)
        rc = os_pread(fd, head, sizeof(head), 0, &got, err);
    if (!rc && ++w->members > w->r->members_max)
        rc = err_set(err, ERR_LIMIT, "more than %lld files", (long long)w->r->members_max);
    if (rc)
        goto out;
    if (unpack_sniff(head, got)) { /* read from the file, for archives may be larger than memory */
        struct archive *a = reader();

        if (archive_read_open_fd(a, fd, READ_BYTES) != ARCHIVE_OK)
            rc = err_set(err, ERR_INPUT, "%s: %s", member, archive_error_string(a));
        else
            rc = walk_archive(w, a, member, top, 1, err);
        archive_read_free(a);
        if (rc == ERR_INPUT && !top) {
            w->r->skipped(w->r->arg, member, err->text);
            *err = (struct err)ERR_INIT;
            rc = OK;
        }
    } else if (st.st_size > w->r->member_bytes_max) {
        w->r->skipped(w->r->arg, member, "it has more bytes than member_bytes_max");
    } else {
        rc = os_read_file(dir, name, (size_t)w->r->member_bytes_max, &bytes, err);
        if (!rc)
            rc = w->r->file(w->r->arg, member, bytes.p ? bytes.p : "", bytes.n, err);
    }
out:
    os_close_quiet(&fd);
    buf_release(&bytes);
    return rc;
}

static enum err_code walk_dir(struct walk *w, int parent, const char *name, const char *prefix,
                              int depth, struct err *err)
{
    struct os_entry *list = NULL;
    size_t count = 0;
    int fd = -1;
    enum err_code rc;

    if (depth > DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s: deeper than %d directories", prefix, DEPTH_MAX);
    rc = os_open_dir(parent, name, &fd, err);
    if (!rc)
        rc = os_list(fd, &list, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        char member[4096];

        if (snprintf(member, sizeof(member), "%s%s%s", prefix, *prefix ? "/" : "", list[i].name) >=
            (int)sizeof(member)) {
            w->r->skipped(w->r->arg, list[i].name, "its path is too long");
            continue;
        }
        if (list[i].type == DT_DIR)
            rc = walk_dir(w, fd, list[i].name, member, depth + 1, err);
        else if (list[i].type == DT_REG && (!w->r->wanted || w->r->wanted(w->r->arg, member)))
            rc = walk_file(w, fd, list[i].name, member, false, err);
        else if (list[i].type == DT_LNK)
            w->r->skipped(w->r->arg, member, "it is a symbolic link");
    }
    os_close_quiet(&fd);
    free(list);
    return rc;
}

enum err_code unpack_walk(const char *path, const struct unpack_rules *rules, struct err *err)
{
    struct walk w = {.r = rules};
    const char *slash = strrchr(path, '/');
    struct stat st;
    int fd = -1;
    enum err_code rc = os_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);

    if (!rc)
        rc = os_stat(fd, &st, err);
    os_close_quiet(&fd);
    if (rc)
        return rc;
    if (S_ISDIR(st.st_mode))
        return walk_dir(&w, AT_FDCWD, path, "", 0, err);
    return walk_file(&w, AT_FDCWD, path, slash ? slash + 1 : path, true, err);
}
