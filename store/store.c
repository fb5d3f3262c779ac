/* Making a store, and the steps from a path to an open one.  Refs are in store_ref.c, the checks in store_check.c. */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "store/claims.h"
#include "store/gc.h"
#include "store/reader.h"
#include "store/store_migrate.h"

#define PATH_BYTES_MAX ((size_t)1 << 16)
#define DIR_MODE 0777 /* and the umask: who shares a store with a group sets it so */
#define THREADS_DEFAULT_MAX 16
#define LOSE_ENV "WEIR_LOSE"

/* free() it. */
PRINTF_LIKE(1, 2) static char *path_of(const char *fmt, ...)
{
    struct buf path;
    va_list ap;

    buf_init(&path, PATH_BYTES_MAX);
    va_start(ap, fmt);
    buf_vprintf(&path, fmt, ap);
    va_end(ap);
    return buf_take(&path);
}

static char *objects_path(const char *root, const struct config *c)
{
    if (c->objects[0] == '/')
        return mem_strdup(c->objects);
    return path_of("%s/%s", root, c->objects);
}

/* ---- store_init -------------------------------------------------------------------------------- */

static enum err_code sync_dir(const char *path, struct err *err)
{
    enum err_code rc;
    int fd = -1;

    rc = os_open_dir(AT_FDCWD, path, &fd, err);
    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    return rc;
}

/* The template, with the line for objects put in.  A JSON string is a YAML string, so any path can be written. */
static enum err_code write_config(const char *root, const char *objects, struct err *err)
{
    char *path = path_of("%s/config.yaml", root);
    struct buf text;
    struct stat info;
    enum err_code rc;

    buf_init(&text, PATH_BYTES_MAX * 8);
    buf_str(&text, config_template);
    if (objects) {
        buf_str(&text, "\nobjects: \"");
        for (const char *c = objects; *c; c++) {
            if (*c == '"' || *c == '\\')
                buf_char(&text, '\\');
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                buf_printf(&text, "\\x%02X", (unsigned char)*c);
            else
                buf_char(&text, *c);
        }
        buf_str(&text, "\"\n");
    }
    /* A config without a format file was left by an interrupted init, or laid out by a person beforehand. */
    rc = os_stat_at(AT_FDCWD, path, &info, err);
    if (rc == ERR_NOT_FOUND || (!rc && objects))
        rc = os_write_file(AT_FDCWD, path, text.p, text.n, 0666, err);
    buf_release(&text);
    free(path);
    return rc;
}

static enum err_code make_folders(const char *objects, struct err *err)
{
    static const char *const folders[] = {"packs", "loose", "tmp", "condemned", "quarantine"};
    enum err_code rc;
    int dir = -1, loose = -1;

    rc = os_mkdirs(objects, DIR_MODE, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, objects, &dir, err);
    for (size_t i = 0; !rc && i < sizeof(folders) / sizeof(folders[0]); i++)
        rc = os_mkdir(dir, folders[i], DIR_MODE, err);
    if (!rc)
        rc = os_open_dir(dir, "loose", &loose, err);
    for (int i = 0; !rc && i < 256; i++) {
        char name[3];

        snprintf(name, sizeof(name), "%02x", (unsigned)i);
        rc = os_mkdir(loose, name, DIR_MODE, err);
    }
    if (!rc)
        rc = os_fsync(loose, err);
    if (!rc)
        rc = os_fsync(dir, err);
    os_close_quiet(&loose);
    os_close_quiet(&dir);
    return rc;
}

/* The folder that will hold the objects, relative paths being the caller's and not .weir's. */
static enum err_code absolute_path(const char *path, char **out, struct err *err)
{
    char *cwd = NULL;

    *out = NULL;
    if (!path)
        return OK;
    if (path[0] == '/') {
        *out = mem_strdup(path);
        return OK;
    }
    cwd = getcwd(NULL, 0);
    if (!cwd)
        return err_sys(err, errno, "find the current directory");
    *out = path_of("%s/%s", cwd, path);
    free(cwd);
    return OK;
}

static enum err_code open_dirs(struct store *st, struct err *err);
static enum err_code make_index(struct store *st, struct err *err);

/* Everything but the format file. */
static enum err_code init_parts(struct store *st, const char *objects, struct err *err)
{
    char *chosen = NULL, *absolute = NULL;
    enum err_code rc;

    rc = absolute_path(objects, &absolute, err);
    if (!rc)
        rc = write_config(st->root, absolute, err);
    if (!rc)
        rc = config_load(st->root, &st->config, err);
    if (!rc) {
        chosen = objects_path(st->root, &st->config);
        rc = make_folders(chosen, err);
    }
    if (!rc)
        rc = open_dirs(st, err);
    if (!rc)
        rc = make_index(st, err);
    free(chosen);
    free(absolute);
    return rc;
}

static struct store *store_new(void)
{
    struct store *st = mem_zero(1, sizeof(*st));

    st->objects = st->packs = st->loose = st->tmp = st->condemned = st->quarantine = -1;
    return st;
}

/* An empty folder name would make /.weir, and a path that the kernel cannot take would be cut. */
static enum err_code check_paths(const char *dir, const char *objects, struct err *err)
{
    if (!*dir || (objects && !*objects))
        return err_set(err, ERR_INPUT, "make a store: the path of %s is empty",
                       *dir ? "the objects" : "its folder");
    if (strlen(dir) >= PATH_MAX || (objects && strlen(objects) >= PATH_MAX))
        return err_set(err, ERR_LIMIT, "make a store: a path may have %d bytes at most",
                       PATH_MAX - 1);

    json_t *text = objects ? json_string(objects) : NULL;
    const bool bad = objects && !text;

    json_decref(text);
    return bad ? err_set(err, ERR_INPUT,
                         "make a store: the path of the objects is not UTF-8, as config.yaml is; "
                         "give another")
               : OK;
}

enum err_code store_init(const char *dir, const char *objects, struct err *err)
{
    struct store *st = store_new();
    char *format = NULL;
    struct stat info;
    enum err_code rc;

    CHECK(dir);
    rc = check_paths(dir, objects, err);
    if (rc)
        goto out;
    st->root = path_of("%s/.weir", dir);
    format = path_of("%s/format", st->root);
    rc = os_stat_at(AT_FDCWD, format, &info, err);
    if (!rc) {
        rc = err_set(err, ERR_EXISTS, "%s is a store already", st->root);
        goto out;
    }
    if (rc != ERR_NOT_FOUND)
        goto out;
    rc = os_mkdirs(st->root, DIR_MODE, err);
    if (rc == ERR_EXISTS)
        err_prefix(err, "make a store: something that is no folder is in the way; move it, or "
                        "choose another folder");
    if (!rc)
        rc = sync_dir(dir, err);
    if (!rc)
        rc = init_parts(st, objects, err);
    /* Last: before this file is there the folder is a half-made store, which this function completes. */
    if (!rc)
        rc = store_write_format(st, STORE_FORMAT, err);
out:
    free(format);
    store_close(st);
    return rc;
}

/* ---- finding it -------------------------------------------------------------------------------- */

/* *found: there is something called dir/.weir.  Only a definite answer counts: an I/O error must not lead to another store further
 * up. */
static enum err_code look_in(const char *dir, const char *name, bool *found, struct err *err)
{
    char *path = path_of("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name);
    struct stat info;
    enum err_code rc = os_stat_at(AT_FDCWD, path, &info, err);

    *found = rc == OK;
    free(path);
    return rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code find_above(const char *start, char **root, struct err *err)
{
    char *at = realpath(start, NULL);
    enum err_code rc = OK;
    bool found = false;

    if (!at)
        return err_sys(err, errno, "look for a store in %s", *start ? start : "\"\"");
    while (!rc) {
        rc = look_in(at, ".weir", &found, err);
        if (rc || found || strcmp(at, "/") == 0)
            break;

        char *slash = strrchr(at, '/');

        slash[slash == at] = '\0'; /* "/x" becomes "/" */
    }
    if (!rc && found)
        *root = path_of("%s/.weir", strcmp(at, "/") == 0 ? "" : at);
    else if (!rc)
        rc = err_set(err, ERR_NOT_FOUND,
                     "no .weir in %s or above; run weir init, or name a folder that has one with "
                     "--dir",
                     start);
    free(at);
    return rc;
}

/* WEIR_DIR names a .weir, or the folder that has one. */
static enum err_code find_named(const char *dir, char **root, struct err *err)
{
    char *at = realpath(dir, NULL);
    bool inside = false, itself = false;
    enum err_code rc;

    if (!at)
        return err_sys(err, errno, "look for a store in WEIR_DIR %s", dir);
    rc = look_in(at, ".weir", &inside, err);
    if (!rc && !inside)
        rc = look_in(at, "format", &itself, err);
    if (!rc && !inside && !itself)
        rc = err_set(err, ERR_NOT_FOUND, "WEIR_DIR is %s, and no store is there; run weir init",
                     dir);
    if (!rc)
        *root = inside ? path_of("%s/.weir", at) : mem_strdup(at);
    free(at);
    return rc;
}

static enum err_code find_root(const char *start, char **root, struct err *err)
{
    const char *named = start ? NULL : getenv("WEIR_DIR");

    if (named && named[0])
        return find_named(named, root, err);
    return find_above(start ? start : ".", root, err);
}

/* ---- format ------------------------------------------------------------------------------------ */

static enum err_code read_format(const struct store *st, int *format, struct err *err)
{
    const struct str head = STR("weir store ");
    char *path = path_of("%s/format", st->root);
    struct err number_err = ERR_INIT;
    struct buf text;
    int64_t v = 0;
    enum err_code rc;

    buf_init(&text, 4096);
    rc = os_read_file(AT_FDCWD, path, 4096, &text, err);
    if (rc == ERR_NOT_FOUND)
        rc = err_set(err, ERR_CONFIG,
                     "%s has no file \"format\": weir init was interrupted there; "
                     "run it again",
                     st->root);
    else if (rc == ERR_LIMIT)
        rc = err_set(err, ERR_DAMAGED, "%s is not a format file of weir", path);
    if (rc)
        goto out;

    const struct str all = {text.p ? text.p : "", text.n};
    struct str number = {all.p + head.n, all.n - head.n};

    if (str_starts(all, head) && number.n > 0 && number.p[number.n - 1] == '\n')
        number.n--;
    else
        number.n = 0;
    if (str_to_i64(number, 0, INT_MAX, &v, &number_err))
        rc = err_set(err, ERR_DAMAGED,
                     "%s does not say \"weir store N\"; restore it (this weir writes N = %d)", path,
                     STORE_FORMAT);
    else if (v > STORE_FORMAT)
        rc = err_set(err, ERR_VERSION,
                     "%s has format %d, this weir knows formats up to %d; use a newer weir",
                     st->root, (int)v, STORE_FORMAT);
    *format = (int)v;
out:
    buf_release(&text);
    free(path);
    return rc;
}

static enum err_code migrate(struct store *st, int format, struct err *err)
{
    /* Format 1 is the first; the steps that later formats need go here, oldest first. */
    static const struct migration steps[] = {{.from = -1, .run = NULL}};
    enum err_code rc;
    int lock = -1;

    if (st->mode != STORE_WRITE)
        return err_set(err, ERR_VERSION,
                       "%s has the older format %d; a command that writes, such as weir gc, brings "
                       "it to format %d",
                       st->root, format, STORE_FORMAT);
    rc = store_lock_gc(st, &lock, err);
    if (!rc)
        rc = store_migrate(st, format, STORE_FORMAT, steps, sizeof(steps) / sizeof(steps[0]), err);
    os_close_quiet(&lock);
    return rc;
}

/* ---- folders ----------------------------------------------------------------------------------- */

static enum err_code open_dirs(struct store *st, struct err *err)
{
    char *path = objects_path(st->root, &st->config);
    const struct {
        const char *name;
        int *fd;
    } dirs[] = {{"packs", &st->packs},
                {"loose", &st->loose},
                {"tmp", &st->tmp},
                {"condemned", &st->condemned},
                {"quarantine", &st->quarantine}};
    enum err_code rc;

    rc = os_open_dir(AT_FDCWD, path, &st->objects, err);
    for (size_t i = 0; !rc && i < sizeof(dirs) / sizeof(dirs[0]); i++)
        rc = os_open_dir(st->objects, dirs[i].name, dirs[i].fd, err);
    if (rc == ERR_NOT_FOUND) {
        err->code = rc = ERR_CONFIG;
        err_prefix(err,
                   "the objects of %s are not there (is their file system mounted? config.yaml "
                   "says where they are)",
                   st->root);
    }
    free(path);
    return rc;
}

/* ---- index ------------------------------------------------------------------------------------- */

static enum err_code index_there(const struct store *st, bool *there, struct err *err)
{
    char *path = path_of("%s/index/data.mdb", st->root);
    struct stat info;
    const enum err_code rc = os_stat_at(AT_FDCWD, path, &info, err);

    /* An empty file is what a crash leaves that came before LMDB's first page. */
    *there = rc == OK && info.st_size > 0;
    free(path);
    return rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code any_pack(const struct store *st, bool *any, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    const enum err_code rc = os_list(st->packs, &entries, &count, err);

    *any = count > 0;
    free(entries);
    return rc;
}

/* An index for a store that has none: an empty one, or, when there are packs already, what they say. */
static enum err_code make_index(struct store *st, struct err *err)
{
    char *path = path_of("%s/index", st->root);
    struct rebuild_report report = {0};
    struct index *index = NULL;
    bool there, packs = false;
    enum err_code rc;
    int lock = -1;

    rc = index_there(st, &there, err);
    if (!rc && !there)
        rc = any_pack(st, &packs, err);
    if (rc || there)
        goto out;
    if (!packs) {
        rc = index_open(path, INDEX_WRITE, &index, err);
        index_close(index);
        goto out;
    }
    rc = store_lock_gc(st, &lock, err);
    if (!rc)
        rc = index_there(st, &there, err); /* another process may just have made it */
    if (!rc && !there)
        rc = index_rebuild(path, st->packs, st->loose, &report, err);
    if (rc)
        err_prefix(err, "make the index of %s again", st->root);
out:
    os_close_quiet(&lock);
    buf_release(&report.problems);
    free(path);
    return rc;
}

static enum err_code open_index(struct store *st, struct err *err)
{
    char *path = path_of("%s/index", st->root);
    enum err_code rc;
    bool there;

    rc = index_there(st, &there, err);
    if (!rc && !there && st->mode == STORE_READ)
        rc = err_set(err, ERR_CONFIG, "%s has no index; run weir store rebuild", st->root);
    else if (!rc && !there)
        rc = make_index(st, err);
    if (!rc)
        rc = index_open(path, st->mode == STORE_WRITE ? INDEX_WRITE : INDEX_READ, &st->index, err);
    free(path);
    return rc;
}

/* A gc that was killed left files condemned.  Whoever holds lock.gc goes on with that; when somebody does, there is nothing to do
 * for us. */
static enum err_code finish_gc(struct store *st, struct err *err)
{
    struct index_stat stat;
    enum err_code rc;
    int64_t merged;
    int lock = -1;

    rc = index_stat(st->index, &stat, err);
    if (rc || stat.condemned == 0)
        return rc;
    rc = store_lock_gc(st, &lock, err);
    if (rc == ERR_AGAIN)
        return OK;
    /* What was used within the grace period is put back: keeping too much costs only space. */
    if (!rc)
        rc = gc_finish_condemned(st, os_now_ns() - st->config.grace_s * 1000000000, err);
    /* Packs that announce a file which was condemned had to wait. */
    if (!rc)
        rc = index_sync(st->index, st->packs, &merged, err);
    os_close_quiet(&lock);
    return rc;
}

/* ---- store_open -------------------------------------------------------------------------------- */

static enum err_code read_lose(struct store *st, struct err *err)
{
    const char *spec = getenv(LOSE_ENV);
    const char *comma = spec ? strchr(spec, ',') : NULL;
    struct err number_err = ERR_INIT;
    int64_t percent = 0;

    if (!spec || !spec[0])
        return OK;
    if (!comma ||
        str_to_i64((struct str){spec, (size_t)(comma - spec)}, INT64_MIN, INT64_MAX, &st->lose_seed,
                   &number_err) ||
        str_to_i64(str_of(comma + 1), 0, 100, &percent, &number_err))
        return err_set(err, ERR_CONFIG, LOSE_ENV " is \"%s\"; SEED,PERCENT is wanted, such as 7,10",
                       spec);
    st->lose_percent = (int)percent;
    st->found_again = claims_new();
    return OK;
}

static int thread_count(const struct config *c)
{
    const int cpus = os_cpu_count();

    if (c->threads > 0)
        return c->threads;
    return cpus < THREADS_DEFAULT_MAX ? cpus : THREADS_DEFAULT_MAX;
}

static enum err_code open_parts(struct store *st, struct err *err)
{
    int format = 0;
    int64_t merged;
    enum err_code rc;

    rc = read_format(st, &format, err);
    if (!rc)
        rc = config_load(st->root, &st->config, err);
    if (!rc)
        rc = read_lose(st, err);
    if (!rc)
        rc = open_dirs(st, err);
    if (!rc && format < STORE_FORMAT)
        rc = migrate(st, format, err);
    if (rc)
        return rc;
    st->threads = thread_count(&st->config);
    rc = pack_cache_new(st, &st->cache, err);
    if (rc || st->mode == STORE_NODE)
        return rc;
    rc = open_index(st, err);
    if (rc || st->mode == STORE_READ)
        return rc;
    rc = index_sync(st->index, st->packs, &merged, err);
    if (!rc)
        rc = finish_gc(st, err);
    return rc;
}

enum err_code store_open(const char *start, enum store_mode mode, struct store **out,
                         struct err *err)
{
    struct store *st = store_new();
    enum err_code rc;

    CHECK(out);
    *out = NULL;
    st->mode = mode;
    rc = find_root(start, &st->root, err);
    if (!rc)
        rc = open_parts(st, err);
    if (rc) {
        store_close(st);
        return rc;
    }
    *out = st;
    return OK;
}

void store_close(struct store *st)
{
    if (!st)
        return;
    pack_cache_free(st->cache);
    claims_free(st->found_again);
    index_close(st->index);
    os_close_quiet(&st->quarantine);
    os_close_quiet(&st->condemned);
    os_close_quiet(&st->tmp);
    os_close_quiet(&st->loose);
    os_close_quiet(&st->packs);
    os_close_quiet(&st->objects);
    config_release(&st->config);
    free(st->root);
    free(st);
}

enum err_code store_lock_gc(struct store *st, int *fd, struct err *err)
{
    char *path = path_of("%s/lock.gc", st->root);
    enum err_code rc;

    CHECK(fd);
    rc = os_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0666, fd, err);
    if (!rc && flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK
                 ? err_set(err, ERR_AGAIN,
                           "another weir gc, pack, fsck --repair or rebuild works on %s; try again "
                           "when it is done",
                           st->root)
                 : err_sys(err, errno, "lock %s", path);
        os_close_quiet(fd);
    }
    free(path);
    return rc;
}

/* Two bytes: the first is a turnstile, which a gc keeps while it waits for the second, so that writers who come later queue behind it. */
static enum err_code lock_byte(int fd, int byte, short type, struct err *err)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int sys = 0;

    if (fault_hit(&sys))
        return err_sys(err, sys, "lock lock.commit");
    while (fcntl(fd, F_OFD_SETLKW, &lock) != 0)
        if (errno != EINTR)
            return err_sys(err, errno, "lock lock.commit");
    return OK;
}

enum err_code store_lock_commit(struct store *st, enum commit_lock how, int *fd, struct err *err)
{
    char *path = path_of("%s/lock.commit", st->root);
    enum err_code rc;

    CHECK(fd);
    rc = os_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0666, fd, err);
    if (!rc)
        rc = lock_byte(*fd, 0, F_WRLCK, err);
    if (!rc)
        rc = lock_byte(*fd, 1, how == COMMIT_ALONE ? F_WRLCK : F_RDLCK, err);
    if (!rc && how == COMMIT_WITH_OTHERS)
        rc = lock_byte(*fd, 0, F_UNLCK, err);
    if (rc)
        os_close_quiet(fd);
    free(path);
    return rc;
}
