/* A folder whose attempt has ended well, emptied for the next one.
 *
 * What the next attempt finds must not depend on what this one did: files go, and a folder or card that is anything else than what was made
 * (another mode or owner, extended attributes and with them access lists, a link to or from elsewhere) is not used again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt_internal.h"

/* A security module's label comes with every file. */
static bool has_attributes(int fd)
{
    static const char label[] = "security.selinux";
    char names[256];
    const ssize_t n = flistxattr(fd, names, sizeof(names));

    if (n < 0)
        return errno != ENOTSUP;
    return n > 0 && !(n == (ssize_t)sizeof(label) && memcmp(names, label, sizeof(label)) == 0);
}

static bool is_as_made(const struct attempt *a, int fd, mode_t mode)
{
    struct err ignored = ERR_INIT;
    struct stat st;

    return os_stat(fd, &st, &ignored) == OK && st.st_mode == mode && st.st_uid == geteuid() &&
           st.st_gid == a->group && (S_ISDIR(mode) || st.st_nlink == 1) && !has_attributes(fd);
}

static bool card_is_as_made(const struct attempt *a, const char *name, mode_t mode)
{
    struct err ignored = ERR_INIT;
    bool good = false;
    int fd = -1;

    if (os_open(a->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, &ignored) == OK)
        good = is_as_made(a, fd, S_IFREG | mode);
    os_close_quiet(&fd);
    return good;
}

struct counts {
    int needed, removed;
};
typedef bool (*entry_fn)(const struct attempt *a, int fd, const char *name, struct counts *n);

/* Without a descriptor and a list of its own, unlike os_list: most folders are empty. */
static bool each_entry(const struct attempt *a, int fd, entry_fn fn, struct counts *counts)
{
    _Alignas(struct dirent64) char bytes[4096];
    ssize_t n;

    if (lseek(fd, 0, SEEK_SET) < 0)
        return false;
    while ((n = getdents64(fd, bytes, sizeof(bytes))) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(bytes + at);

            at += d->d_reclen;
            if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 &&
                !fn(a, fd, d->d_name, counts))
                return false;
        }
    return n == 0;
}

static bool remove_entry(const struct attempt *a, int fd, const char *name, struct counts *n)
{
    struct err ignored = ERR_INIT;

    (void)a;
    n->removed++;
    return unlinkat(fd, name, 0) == 0 || os_remove_tree(fd, name, &ignored) == OK;
}

/* A folder that changes while it is read may keep an entry from us: it is looked at again. */
static bool empty_folder(const struct attempt *a, const char *name)
{
    struct err ignored = ERR_INIT;
    struct counts first = {0}, second = {0};
    bool good = false;
    int fd = -1;

    if (os_open(a->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &fd, &ignored) == OK)
        good = is_as_made(a, fd, S_IFDIR | 0755) && each_entry(a, fd, remove_entry, &first);
    if (good && first.removed)
        good = each_entry(a, fd, remove_entry, &second) && second.removed == 0;
    os_close_quiet(&fd);
    return good;
}

/* out, work, ckpt and tmp; "in" is made by who has inputs. */
#define NEEDED 4

static bool clear_entry(const struct attempt *a, int fd, const char *name, struct counts *n)
{
    static const char *const folders[] = {"out", "work", "ckpt", "tmp", "in"};
    if (strcmp(name, CARD_ATTEMPT) == 0)
        return card_is_as_made(a, name, 0600);
    if (strcmp(name, TASK_CARD) == 0)
        return card_is_as_made(a, name, 0644);
    for (int i = 0; i <= NEEDED; i++)
        if (strcmp(name, folders[i]) == 0) {
            n->needed += i < NEEDED;
            return empty_folder(a, name);
        }
    return remove_entry(a, fd, name, n);
}

bool attempt_clear(struct attempt *a)
{
    struct counts first = {0}, second = {0};
    bool good = is_as_made(a, a->dir, S_IFDIR | 0755) && each_entry(a, a->dir, clear_entry, &first);

    if (good && first.removed)
        good = each_entry(a, a->dir, clear_entry, &second) && second.removed == 0;
    return good && first.needed == NEEDED;
}
