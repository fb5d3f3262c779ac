/* fsck_loose.c - whole files, and the rows of the index against what is on disk. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/pool.h"
#include "store/fsck_internal.h"
#include "store/fsck_read.h"
#include "store/loose.h"

#define SCAN 8192
#define FOLDERS 256

/* ---- files ------------------------------------------------------------------------------------- */

struct folder_job {
    struct fsck *f;
    unsigned first;
    int64_t files, bytes;
};

/* Checking is no use: the atime, by which cold files are told, stays.  Only the owner of a file may ask for that. */
static enum err_code open_quietly(struct fsck *f, const char *name, int *fd, struct err *err)
{
    enum err_code rc;

    rc = os_open(f->st->loose, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME, 0, fd, err);
    if (rc == ERR_DENIED) {
        *err = (struct err)ERR_INIT;
        rc = os_open(f->st->loose, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, fd, err);
    }
    return rc;
}

static void note_progress(void *progress, int64_t bytes)
{
    progress_add(progress, bytes);
}

static enum err_code hash_file(struct folder_job *job, int fd, int64_t bytes, struct digest *out,
                               struct err *err)
{
    struct scan scan;

    scan_init(&scan, fd, bytes);
    return scan_hash(&scan, bytes, out, note_progress, job->f->o->progress, err);
}

static bool was_touched(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec != LOOSE_MTIME_NS;
}

static enum err_code check_file(struct folder_job *job, const char *name, const struct digest *id,
                                struct err *err)
{
    struct fsck *f = job->f;
    struct digest is = *id;
    struct stat info;
    enum err_code rc;
    int fd = -1;

    rc = open_quietly(f, name, &fd, err);
    if (rc == ERR_NOT_FOUND) { /* a reader has just put it into quarantine */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc)
        rc = os_stat(fd, &info, err);
    if (!rc && !S_ISREG(info.st_mode)) {
        fsck_found(f, FOUND_LOOSE, name, id, "loose/%s is no regular file", name);
        goto out;
    }
    if (rc)
        goto out;
    job->files++;
    job->bytes += info.st_size;
    /* A file whose time has moved is read at any level. */
    if ((f->o->level >= FSCK_FULL && fsck_in_part(f, id)) || was_touched(&info))
        rc = hash_file(job, fd, info.st_size, &is, err);
    if (!rc && !digest_eq(&is, id))
        fsck_found(f, FOUND_LOOSE, name, id, "loose/%s holds other bytes than its name says", name);
    else if (!rc && was_touched(&info))
        fsck_found(f, FOUND_LOOSE_TOUCHED, name, id,
                   "loose/%s was opened for writing: its time has moved, its bytes are right",
                   name);
out:
    os_close_quiet(&fd);
    return rc;
}

static enum err_code check_folder(void *arg, bool cancelled, struct err *err)
{
    struct folder_job *job = arg;
    struct os_entry *entries = NULL;
    size_t count = 0;
    char folder[3];
    enum err_code rc;
    int dir = -1;

    if (cancelled)
        return OK;
    snprintf(folder, sizeof(folder), "%02x", job->first & 0xff);
    rc = os_open_dir(job->f->st->loose, folder, &dir, err);
    if (!rc)
        rc = os_list(dir, &entries, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        char hex[DIGEST_HEX + 1], name[LOOSE_NAME];
        struct err ignored = ERR_INIT;
        struct digest id;

        snprintf(hex, sizeof(hex), "%s%.62s", folder, entries[i].name);
        if (strlen(entries[i].name) == DIGEST_HEX - 2 &&
            digest_parse(hex, DIGEST_HEX, &id, &ignored) == OK) {
            loose_name(&id, name);
            rc = check_file(job, name, &id, err);
        } else if (entries[i].name[0] != '.') { /* what NFS keeps of open files begins with a dot */
            char path[264];

            snprintf(path, sizeof(path), "%s/%s", folder, entries[i].name);
            fsck_found(job->f, FOUND_STRANGER, path, NULL, "loose/%s is no object of weir's", path);
        }
    }
    free(entries);
    os_close_quiet(&dir);
    return rc;
}

enum err_code fsck_loose(struct fsck *f, struct err *err)
{
    struct folder_job *jobs = mem_zero(FOLDERS, sizeof(*jobs));
    struct pool *pool = NULL;
    enum err_code rc;

    rc = pool_new(f->st->threads, FOLDERS, &pool, err);
    for (unsigned i = 0; !rc && i < FOLDERS; i++) {
        jobs[i].f = f;
        jobs[i].first = i;
        pool_submit(pool, check_folder, &jobs[i]);
    }
    if (!rc)
        rc = pool_wait(pool, err);
    pool_free(pool);
    for (unsigned i = 0; i < FOLDERS; i++) {
        f->report->loose += jobs[i].files;
        f->report->bytes += jobs[i].bytes;
    }
    free(jobs);
    return rc;
}

/* ---- rows of the index ------------------------------------------------------------------------- */

static enum err_code loose_row(struct fsck *f, const struct digest *id, const struct loc *loc,
                               struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(id, name);
    rc = os_stat_at(f->st->loose, name, &info, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        fsck_found(f, FOUND_LOOSE_MISSING, NULL, id, "loose/%s is gone", name);
        return OK;
    }
    if (!rc && (uint64_t)info.st_size != loc->raw)
        fsck_found(f, FOUND_LOOSE, name, id, "loose/%s has %lld bytes, it should have %llu", name,
                   (long long)info.st_size, (unsigned long long)loc->raw);
    return rc;
}

static enum err_code object_rows(struct fsck *f, struct err *err)
{
    struct digest *ids = mem_alloc(SCAN * sizeof(*ids)), cursor = {{0}};
    struct loc *locs = mem_alloc(SCAN * sizeof(*locs));
    bool started = false;
    size_t n = 1;
    enum err_code rc = OK;

    while (!rc && n > 0) {
        rc = index_scan(f->st->index, &cursor, &started, ids, locs, SCAN, &n, err);
        for (size_t i = 0; !rc && i < n; i++)
            if (locs[i].type == LOC_LOOSE)
                rc = loose_row(f, &ids[i], &locs[i], err);
    }
    free(ids);
    free(locs);
    return rc;
}

static enum err_code pack_rows(struct fsck *f, struct err *err)
{
    struct pack_row *rows = NULL;
    char hex[DIGEST_HEX + 1];
    struct stat info;
    size_t n = 0;
    enum err_code rc = index_packs(f->st->index, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++) {
        digest_hex(&rows[i].name, hex);
        rc = os_stat_at(f->st->packs, hex, &info, err);
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = OK;
            fsck_found(f, FOUND_PACK_MISSING, hex, NULL, "pack %s is gone", hex);
        }
    }
    free(rows);
    return rc;
}

enum err_code fsck_places(struct fsck *f, struct err *err)
{
    enum err_code rc = pack_rows(f, err);

    return rc ? rc : object_rows(f, err);
}
