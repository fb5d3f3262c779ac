#include "store/loose.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

#define HASH_STEP ((size_t)1 << 18)
#define PUBLISH_TRIES 4 /* each needs a gc or a repair at the same name in the same moment */

void loose_name(const struct digest *id, char out[LOOSE_NAME])
{
    char hex[DIGEST_HEX + 1];

    digest_hex(id, hex);
    snprintf(out, LOOSE_NAME, "%.2s/%.62s", hex, hex + 2);
}

static int64_t mtime_of(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

static int64_t atime_of(const struct stat *info)
{
    return (int64_t)info->st_atim.tv_sec * 1000000000 + info->st_atim.tv_nsec;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static enum err_code hash_file(int fd, struct digest *out, struct err *err)
{
    void *step = mem_alloc(HASH_STEP);
    struct sha256 hash = {0};
    enum err_code rc;
    int64_t off = 0;
    size_t got;

    sha256_init(&hash);
    do {
        rc = os_pread(fd, step, HASH_STEP, off, &got, err);
        if (!rc)
            sha256_update(&hash, step, got);
        off += (int64_t)got;
    } while (!rc && got == HASH_STEP);
    sha256_final(&hash, out);
    sha256_release(&hash);
    free(step);
    return rc;
}

static enum err_code condemn_changed(struct store *st, const struct digest *id, const char *what,
                                     struct err *err)
{
    char text[DIGEST_TEXT + 1];
    struct err move_err = ERR_INIT;
    const enum err_code rc = loose_quarantine(st, id, &move_err);

    if (rc && rc != ERR_NOT_FOUND) {
        *err = move_err;
        return rc;
    }
    digest_text(id, text);
    return err_set(err, ERR_DAMAGED,
                   "object %s: its loose file %s; it is in quarantine now, run weir fsck", text,
                   what);
}

/* Somebody touched it: only its bytes can tell whether they are still those of its name. */
static enum err_code check_touched(struct store *st, const struct digest *id, int fd,
                                   struct err *err)
{
    struct digest now;
    enum err_code rc;

    rc = hash_file(fd, &now, err);
    if (rc)
        return rc;
    if (!digest_eq(&now, id))
        return condemn_changed(st, id, "was changed", err);
    rc = os_set_mtime(fd, LOOSE_MTIME_NS, err);
    /* Another user's file on a shared file system: it will be hashed each time, which is slow but right. */
    return rc == ERR_DENIED ? OK : rc;
}

enum err_code loose_open(struct store *st, const struct digest *id, int64_t size, int *fd,
                         struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    CHECK(st);
    CHECK(fd);
    loose_name(id, name);
    rc = os_open(st->loose, name, O_RDONLY | O_NOFOLLOW, 0, fd, err);
    if (rc)
        return rc;
    rc = os_stat(*fd, &info, err);
    if (!rc && !S_ISREG(info.st_mode))
        rc = condemn_changed(st, id, "is no regular file", err);
    else if (!rc && size >= 0 && info.st_size != size)
        rc = condemn_changed(st, id, "has the wrong size", err);
    else if (!rc && mtime_of(&info) != LOOSE_MTIME_NS)
        rc = check_touched(st, id, *fd, err);
    if (rc)
        os_close_quiet(fd);
    return rc;
}

/* ---- publishing -------------------------------------------------------------------------------- */

/* The name is taken.  A good file there is as good as ours, provided that its atime says that it is wanted (loose_delete asks for
 * that).  A bad one is out of the way afterwards: *existed stays false. */
static enum err_code take_existing(struct store *st, const struct digest *id, int64_t size,
                                   bool *existed, struct err *err)
{
    char name[LOOSE_NAME], byte;
    enum err_code rc;
    size_t got;
    int fd = -1;

    loose_name(id, name);
    rc = loose_open(st, id, size, &fd, err);
    if (rc == ERR_NOT_FOUND || rc == ERR_DAMAGED)
        return OK;
    if (!rc)
        rc = os_touch_atime(st->loose, name, err);
    /* Only its owner may set the time; for anybody else reading moves it, where it is older than a day (relatime). */
    if (rc == ERR_DENIED)
        rc = os_pread(fd, &byte, 1, 0, &got, err);
    os_close_quiet(&fd);
    if (rc == ERR_NOT_FOUND) /* a gc took it between the two: link again */
        return OK;
    *existed = rc == OK;
    return rc;
}

enum err_code loose_publish(struct store *st, const char *tmp_name, const struct digest *id,
                            int64_t size, bool *existed, struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;
    int fd = -1;

    CHECK(st);
    CHECK(existed);
    *existed = false;
    loose_name(id, name);
    rc = os_open(st->tmp, tmp_name, O_RDONLY | O_NOFOLLOW, 0, &fd, err);
    if (!rc)
        rc = os_stat(fd, &info, err);
    if (!rc && info.st_size != size)
        rc = err_set(err, ERR_CHANGED, "%s has %lld bytes where %lld were written", tmp_name,
                     (long long)info.st_size, (long long)size);
    if (!rc)
        rc = os_chmod(fd, 0444, err);
    if (!rc)
        rc = os_set_mtime(fd, LOOSE_MTIME_NS, err);
    os_close_quiet(&fd);
    if (rc)
        return rc;
    for (int i = 0; i < PUBLISH_TRIES; i++) {
        rc = os_link(st->tmp, tmp_name, st->loose, name, err);
        if (rc != ERR_EXISTS)
            break;
        rc = take_existing(st, id, size, existed, err);
        if (rc || *existed)
            break;
        rc = err_set(err, ERR_AGAIN, "publish loose file %s: the name is taken and lost in turns",
                     name);
    }
    return rc ? rc : os_unlink(st->tmp, tmp_name, err);
}

static enum err_code sync_folder(struct store *st, unsigned first, struct err *err)
{
    char name[3];
    enum err_code rc;
    int fd = -1;

    snprintf(name, sizeof(name), "%02x", first & 0xff);
    rc = os_open_dir(st->loose, name, &fd, err);
    if (!rc)
        rc = os_fsync(fd, err);
    os_close_quiet(&fd);
    return rc;
}

enum err_code loose_sync(struct store *st, const uint8_t dirs[32], struct err *err)
{
    enum err_code rc = OK;

    for (unsigned i = 0; !rc && i < 256; i++)
        if (dirs[i / 8] >> (i % 8) & 1)
            rc = sync_folder(st, i, err);
    return rc;
}

/* ---- taking away ------------------------------------------------------------------------------- */

/* The index must not offer what is not there: a new add of the same bytes would be taken for a duplicate of them.  A packed copy goes
 * on being offered; the slices that were read from the file go with it. */
static enum err_code forget(struct store *st, const struct digest *id, struct err *err)
{
    struct loc loc;
    enum err_code rc;

    if (!st->index || st->mode != STORE_WRITE)
        return OK;
    rc = index_get(st->index, id, 1, &loc, err);
    if (rc || loc.type != LOC_LOOSE)
        return rc;
    return index_drop_objects(st->index, id, 1, err);
}

enum err_code loose_quarantine(struct store *st, const struct digest *id, struct err *err)
{
    char name[LOOSE_NAME], hex[DIGEST_HEX + 1], aside[DIGEST_HEX + 32];
    uint64_t random;
    enum err_code rc;

    CHECK(st);
    loose_name(id, name);
    digest_hex(id, hex);
    os_random(&random, sizeof(random)); /* the same object may be damaged twice */
    snprintf(aside, sizeof(aside), "%s.%016" PRIx64, hex, random);
    rc = os_rename(st->loose, name, st->quarantine, aside, err);
    if (!rc)
        rc = os_fsync(st->quarantine, err);
    if (!rc)
        rc = sync_folder(st, id->b[0], err);
    if (!rc)
        rc = forget(st, id, err);
    return rc;
}

/* A killed gc may have put the file back and not yet removed its second name.  Renaming one name of a file to another of the same file
 * does nothing at all, so the second one has to go first. */
static enum err_code drop_second_name(struct store *st, const char *name, const char *hex,
                                      struct err *err)
{
    struct stat loose, condemned;
    enum err_code rc;

    rc = os_stat_at(st->condemned, hex, &condemned, err);
    if (!rc)
        rc = os_stat_at(st->loose, name, &loose, err);
    if (rc == ERR_NOT_FOUND)
        return OK;
    if (!rc && loose.st_ino == condemned.st_ino && loose.st_dev == condemned.st_dev)
        rc = os_unlink(st->condemned, hex, err);
    return rc;
}

/* Renamed first, looked at afterwards: who linked or used the file before the rename has moved its atime, and who comes after it
 * does not find it. */
enum err_code loose_delete(struct store *st, const struct digest *id, int64_t since_ns, bool *kept,
                           struct err *err)
{
    char name[LOOSE_NAME], hex[DIGEST_HEX + 1];
    struct stat info;
    enum err_code rc;

    CHECK(st);
    CHECK(kept);
    *kept = false;
    loose_name(id, name);
    digest_hex(id, hex);
    rc = drop_second_name(st, name, hex, err);
    if (!rc)
        rc = os_rename(st->loose, name, st->condemned, hex, err);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    rc = os_stat_at(st->condemned, hex, &info, err); /* there already when a gc was killed here */
    if (rc)
        return rc;
    if (atime_of(&info) >= since_ns) {
        /* link, not rename: somebody may have published the same bytes again meanwhile. */
        rc = os_link(st->condemned, hex, st->loose, name, err);
        if (rc == ERR_EXISTS)
            rc = OK;
        if (!rc)
            rc = sync_folder(st, id->b[0], err);
        *kept = rc == OK;
    }
    return rc ? rc : os_unlink(st->condemned, hex, err);
}
