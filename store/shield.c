/* The two answers to a task that writes through a hard link: a mount that forbids it, and a look afterwards (materialise.h). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "store/loose.h"
#include "store/mat_plan.h"
#include "store/materialise.h"
#include "store/reader.h"

/* ---- the mount --------------------------------------------------------------------------------- */

/* Between fork and exec: no allocation, no lock. */
static bool put_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const ssize_t n = (ssize_t)strlen(text);
    bool good;

    if (fd < 0)
        return false;
    good = write(fd, text, (size_t)n) == n;
    return close(fd) == 0 && good;
}

/* Ourselves as ourselves: whoever the task was outside, it is inside. */
static bool map_ids(uid_t uid, gid_t gid)
{
    char text[64];

    /* Without this the kernel refuses a group map from a process without rights; it is missing before Linux 3.19. */
    if (!put_text("/proc/self/setgroups", "deny") && errno != ENOENT)
        return false;
    snprintf(text, sizeof(text), "%u %u 1", (unsigned)uid, (unsigned)uid);
    if (!put_text("/proc/self/uid_map", text))
        return false;
    snprintf(text, sizeof(text), "%u %u 1", (unsigned)gid, (unsigned)gid);
    return put_text("/proc/self/gid_map", text);
}

static bool enter_namespace(void)
{
    const uid_t uid = geteuid();
    const gid_t gid = getegid();

    if (uid == 0 && unshare(CLONE_NEWNS) == 0)
        return true;
    return unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0 && map_ids(uid, gid);
}

/* A user namespace may not drop restrictions of the mount that it copies. */
static unsigned long kept_flags(const struct statvfs *fs)
{
    static const struct {
        unsigned long st, ms;
    } flags[] = {{ST_NOSUID, MS_NOSUID},         {ST_NODEV, MS_NODEV},
                 {ST_NOEXEC, MS_NOEXEC},         {ST_NOATIME, MS_NOATIME},
                 {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME}};
    unsigned long kept = 0;

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (fs->f_flag & flags[i].st)
            kept |= flags[i].ms;
    return kept;
}

enum err_code materialise_shield(const char *dir, struct err *err)
{
    struct statvfs fs;
    int sys = 0;

    CHECK(dir);
    /* Private first, so that nothing of this is seen outside; a bind mount takes its flags only when it is mounted again. */
    if (fault_hit(&sys))
        return err_sys(err, sys, "shield %s", dir);
    if (enter_namespace() && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount(dir, dir, NULL, MS_BIND | MS_REC, NULL) == 0 && statvfs(dir, &fs) == 0 &&
        mount(NULL, dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | kept_flags(&fs), NULL) == 0)
        return OK;
    sys = errno;
    if (sys == ENOENT || sys == ENOTDIR)
        return err_sys(err, sys, "shield %s", dir);
    err_sys(err, sys, "mount %s read only in a namespace of its own", dir);
    return err->code = ERR_MISSING;
}

static pthread_once_t works_once = PTHREAD_ONCE_INIT;
static bool works;

static void probe(const char *dir)
{
    struct err err = ERR_INIT;
    struct stat info;

    if (materialise_shield(dir, &err) != OK)
        _exit(1);
    /* Believed only when it is seen to hold. */
    if (chmod(dir, 0700) == 0 || errno != EROFS || stat(dir, &info) != 0)
        _exit(1);
    _exit(0);
}

static void find_out(void)
{
    const char *tmp = getenv("TMPDIR");
    char dir[4096];
    int status = -1;
    pid_t child;

    if (snprintf(dir, sizeof(dir), "%s/weir-shield-XXXXXX", tmp && tmp[0] ? tmp : "/tmp") >=
            (int)sizeof(dir) ||
        !mkdtemp(dir))
        return;
    child = fork();
    if (child == 0)
        probe(dir);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    works = child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    rmdir(dir);
}

bool materialise_shield_works(void)
{
    CHECK(pthread_once(&works_once, find_out) == 0);
    return works;
}

/* ---- the look afterwards ----------------------------------------------------------------------- */

struct audit {
    struct store *st;
    int changed;
    struct buf names;
};

static enum err_code audit_file(struct audit *a, const struct digest *id, int64_t size,
                                struct err *err)
{
    char text[DIGEST_TEXT + 1];
    enum err_code rc;
    int fd = -1;

    if (size < LOOSE_MIN_BYTES)
        return OK;
    rc = loose_open(a->st, id, size, &fd, err);
    os_close_quiet(&fd);
    if (rc == ERR_DAMAGED) {
        digest_text(id, text);
        buf_printf(&a->names, "%s%s", a->changed++ ? ", " : "", text);
    }
    return rc == ERR_NOT_FOUND || rc == ERR_DAMAGED ? OK : rc;
}

static enum err_code audit_tree(struct audit *a, const struct digest *id, struct err *err)
{
    struct mat_plan plan = {0};
    enum err_code rc;

    mat_plan_init(&plan);
    rc = mat_plan_walk(&plan, a->st, id, err);
    for (size_t i = 0; !rc && i < plan.file_count; i++)
        rc = audit_file(a, &plan.files[i].id, plan.files[i].size, err);
    mat_plan_release(&plan);
    return rc;
}

static enum err_code audit_blob(struct audit *a, const struct digest *id, struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    struct loc loc;
    enum err_code rc;

    rc = object_locate(a->st, id, 1, &loc, err);
    if (rc)
        return rc;
    if (loc.type != 0)
        return audit_file(a, id, (int64_t)loc.raw, err);
    /* Not known (any more): any file of that name is looked at. */
    loose_name(id, name);
    rc = os_stat_at(a->st->loose, name, &info, err);
    if (rc)
        return rc == ERR_NOT_FOUND ? OK : rc;
    return audit_file(a, id, info.st_size, err);
}

enum err_code materialise_audit(struct store *st, enum obj_kind kind, const struct digest *id,
                                struct err *err)
{
    struct audit a = {.st = st};
    enum err_code rc;

    CHECK(st);
    buf_init(&a.names, (size_t)64 << 20);
    rc = (kind == OBJ_TREE ? audit_tree : audit_blob)(&a, id, err);
    if (!rc && a.changed > 0)
        rc = err_set(err, ERR_DAMAGED,
                     "%d hard-linked object%s changed in place and %s in quarantine now: %.300s",
                     a.changed, a.changed == 1 ? " was" : "s were", a.changed == 1 ? "is" : "are",
                     a.names.p);
    buf_release(&a.names);
    return rc;
}
