/* tarball.h - a tar file whose bytes depend on names and contents only.
 *
 * ustar: mode 0644, owner 0, time 0; ends with two empty blocks, without further padding.
 *
 * Life:     tarball_create -> tarball_add ... -> tarball_finish -> tarball_release (at any point gives up).
 * Owns:     its descriptor.
 * Threads:  one tarball, one thread.
 * Errors:   ERR_LIMIT: a name over TARBALL_NAME_MAX bytes, a member over 8 GiB; what the disk says.
 * Paper:    POSIX.1-2017, pax, "ustar Interchange Format".
 */
#ifndef WEIR_STAGES_DATA_TARBALL_H
#define WEIR_STAGES_DATA_TARBALL_H

#include "base/hash.h"

#define TARBALL_NAME_MAX 100

struct tarball {
    int fd;
    int64_t bytes;
    struct sha256 hash;
};
MUST_USE enum err_code tarball_create(int dir, const char *name, struct tarball *out,
                                      struct err *err);
MUST_USE enum err_code tarball_add(struct tarball *t, const char *name, const void *p, size_t n,
                                   struct err *err);
MUST_USE enum err_code tarball_finish(struct tarball *t, struct digest *digest, struct err *err);
void tarball_release(struct tarball *t);

#endif
