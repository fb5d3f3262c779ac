/* A folder whose attempt has ended well, emptied for the next one.
 *
 * What the next attempt finds must not depend on what this one did: files go, and a folder or card that is anything else than what was made
 * (another mode or owner, extended attributes and with them access lists, a link to or from elsewhere) is not used again. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
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

static bool empty_folder(const struct attempt *a, const char *name)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    size_t n = 0;
    bool good = false;
    int fd = -1;

    if (os_open(a->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &fd, &ignored) == OK)
        good = is_as_made(a, fd, S_IFDIR | 0755) && os_list(fd, &entries, &n, &ignored) == OK;
    for (size_t i = 0; good && i < n; i++)
        good = os_remove_tree(fd, entries[i].name, &ignored) == OK;
    free(entries);
    os_close_quiet(&fd);
    return good;
}

/* out, work, ckpt and tmp; "in" is made by who has inputs. */
#define NEEDED 4

static bool clear_entry(const struct attempt *a, const char *name, int *needed)
{
    static const char *const folders[] = {"out", "work", "ckpt", "tmp", "in"};
    struct err ignored = ERR_INIT;

    if (strcmp(name, CARD_ATTEMPT) == 0)
        return card_is_as_made(a, name, 0600);
    if (strcmp(name, TASK_CARD) == 0)
        return card_is_as_made(a, name, 0644);
    for (int i = 0; i <= NEEDED; i++)
        if (strcmp(name, folders[i]) == 0) {
            *needed += i < NEEDED;
            return empty_folder(a, name);
        }
    return os_remove_tree(a->dir, name, &ignored) == OK;
}

bool attempt_clear(struct attempt *a)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    size_t n = 0;
    int needed = 0;
    bool good = is_as_made(a, a->dir, S_IFDIR | 0755) &&
                os_list(a->dir, &entries, &n, &ignored) == OK;

    for (size_t i = 0; good && i < n; i++)
        good = clear_entry(a, entries[i].name, &needed);
    free(entries);
    return good && needed == NEEDED;
}
