#include "orchestrator/cache_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hash.h"
#include "base/os.h"

struct aged {
    const char *name;
    int64_t mtime_ns;
};

static int by_age(const void *a, const void *b)
{
    const int64_t x = ((const struct aged *)a)->mtime_ns, y = ((const struct aged *)b)->mtime_ns;

    return x < y ? -1 : x > y;
}

/* Each set of options has files of its own: a sweep would fill the folder. */
static enum err_code prune(int dir, const char *name, struct err *err)
{
    const size_t kind = strcspn(name, "-") + 1;
    struct os_entry *entries = NULL;
    struct aged *list;
    size_t count = 0, n = 0;
    struct stat info;
    enum err_code rc = os_list(dir, &entries, &count, err);

    list = mem_zero(count + 1, sizeof(*list));
    for (size_t i = 0; !rc && i < count; i++) {
        struct err gone = ERR_INIT;

        if (strncmp(entries[i].name, name, kind) != 0 ||
            os_stat_at(dir, entries[i].name, &info, &gone))
            continue;
        list[n].name = entries[i].name;
        list[n++].mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    }
    if (n > 1)
        qsort(list, n, sizeof(*list), by_age);
    for (size_t i = 0; !rc && i + CACHE_FILES_MAX < n; i++) {
        struct err gone = ERR_INIT;

        if (os_unlink(dir, list[i].name, &gone) && gone.code != ERR_NOT_FOUND)
            rc = err_set(err, gone.code, "%s", gone.text);
    }
    free(list);
    free(entries);
    return rc;
}

static enum err_code write_parts(int fd, const struct cache_part *parts, size_t count,
                                 struct err *err)
{
    uint32_t crc = 0;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < count; i++) {
        crc = crc32c(crc, parts[i].p, parts[i].n);
        if (parts[i].n)
            rc = os_write(fd, parts[i].p, parts[i].n, err);
    }
    return rc ? rc : os_write(fd, &crc, sizeof(crc), err);
}

enum err_code cache_file_write(const char *dir, const char *name, const struct cache_part *parts,
                               size_t count, struct err *err)
{
    char aside[128];
    uint64_t random;
    int at = -1, fd = -1;
    enum err_code rc;

    os_random(&random, sizeof(random));
    (void)snprintf(aside, sizeof(aside), "%.60s.tmp.%016llx", name, (unsigned long long)random);
    rc = os_mkdirs(dir, 0755, err);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, dir, &at, err);
    if (!rc)
        rc = prune(at, name, err);
    if (!rc)
        rc = os_open(at, aside, O_WRONLY | O_CREAT | O_EXCL, 0644, &fd, err);
    if (!rc) {
        struct err ignored = ERR_INIT;

        rc = write_parts(fd, parts, count, err);
        if (!rc)
            rc = os_close(&fd, err);
        if (!rc)
            rc = os_rename(at, aside, at, name, err);
        if (rc)
            (void)!os_unlink(at, aside, &ignored);
    }
    os_close_quiet(&fd);
    os_close_quiet(&at);
    return rc;
}

void *cache_file_map(const char *dir, const char *name, size_t *n)
{
    struct err ignored = ERR_INIT;
    struct stat info;
    int fd = -1, at = -1, sys = 0;
    uint32_t crc;
    void *map = NULL;

    if (os_open_dir(AT_FDCWD, dir, &at, &ignored) == OK &&
        os_open(at, name, O_RDONLY, 0, &fd, &ignored) == OK && os_stat(fd, &info, &ignored) == OK &&
        S_ISREG(info.st_mode) && info.st_size > (off_t)sizeof(crc) &&
        info.st_size <= CACHE_BYTES_MAX && !fault_hit(&sys)) {
        map = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            map = NULL;
    }
    os_close_quiet(&fd);
    os_close_quiet(&at);
    if (!map)
        return NULL;
    *n = (size_t)info.st_size - sizeof(crc);
    memcpy(&crc, (const char *)map + *n, sizeof(crc));
    if (crc32c(0, map, *n) == crc)
        return map;
    (void)munmap(map, (size_t)info.st_size);
    return NULL;
}
