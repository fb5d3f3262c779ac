/* ustar, written. */
#include "stages/data/tarball.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"

#define BLOCK 512
#define MEMBER_MAX (((int64_t)8 << 30) - 1) /* eleven octal digits */

static const uint8_t zeros[2 * BLOCK];

static enum err_code put(struct tarball *t, const void *p, size_t n, struct err *err)
{
    sha256_update(&t->hash, p, n);
    t->bytes += (int64_t)n;
    return os_write(t->fd, p, n, err);
}

enum err_code tarball_create(int dir, const char *name, struct tarball *out, struct err *err)
{
    *out = (struct tarball){.fd = -1};
    sha256_init(&out->hash);
    return os_open(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644, &out->fd, err);
}

enum err_code tarball_add(struct tarball *t, const char *name, const void *p, size_t n,
                          struct err *err)
{
    char head[BLOCK] = {0};
    unsigned sum = 0;
    enum err_code rc;

    if (strlen(name) > TARBALL_NAME_MAX)
        return err_set(err, ERR_LIMIT, "tar member '%.120s': a name has at most %d bytes", name,
                       TARBALL_NAME_MAX);
    if ((int64_t)n > MEMBER_MAX)
        return err_set(err, ERR_LIMIT, "tar member '%s' has %zu bytes", name, n);
    memcpy(head, name, strlen(name));
    memcpy(head + 100, "0000644", 7);
    memcpy(head + 108, "0000000", 7);
    memcpy(head + 116, "0000000", 7);
    (void)snprintf(head + 124, 12, "%011llo", (unsigned long long)n);
    memcpy(head + 136, "00000000000", 11);
    memset(head + 148, ' ', 8);
    head[156] = '0';
    memcpy(head + 257, "ustar\00000", 8);
    for (int i = 0; i < BLOCK; i++)
        sum += (unsigned char)head[i];
    (void)snprintf(head + 148, 8, "%06o", sum);
    head[155] = ' ';
    rc = put(t, head, sizeof(head), err);
    if (!rc && n > 0)
        rc = put(t, p, n, err);
    if (!rc && n % BLOCK != 0)
        rc = put(t, zeros, BLOCK - n % BLOCK, err);
    return rc;
}

enum err_code tarball_finish(struct tarball *t, struct digest *digest, struct err *err)
{
    enum err_code rc = put(t, zeros, sizeof(zeros), err);

    sha256_final(&t->hash, digest);
    return rc ? rc : os_close(&t->fd, err);
}

void tarball_release(struct tarball *t)
{
    os_close_quiet(&t->fd);
    sha256_release(&t->hash);
}
