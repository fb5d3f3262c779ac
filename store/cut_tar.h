/* cut_tar.h - rule 2 of cut.h: where a tar archive is cut.
 *
 * A member is its header with the extension headers (pax, GNU long names) before it and the data
 * after it.  The boundary before a member is taken when at least 256 KiB are gathered and the
 * CRC32C of its 512 header bytes is a multiple of 4, or when 4 MiB are gathered.  Inside a member
 * of more than 1 MiB, and after the last header that can be read (the zero blocks at the end, or
 * damage), boundaries are those of gear.h, counted from the start of the chunk like the others; so
 * chunks differ only near what differs, and a long member leaves no tiny chunks around it.
 *
 * Life:     tar_looks decides, tar_start, then tar_cut per chunk.
 * Owns:     nothing.
 * Threads:  one walk, one thread.
 * Errors:   none: what cannot be read is cut by content.
 * Format:   POSIX.1-2017 pax "Interchange Format" (ustar and pax); GNU tar manual, "Basic Tar
 *           Format".
 */
#ifndef WEIR_STORE_CUT_TAR_H
#define WEIR_STORE_CUT_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/gear.h"

#define TAR_BLOCK 512
#define TAR_CHUNK_MIN ((int64_t)256 << 10)
#define TAR_CHUNK_MAX ((int64_t)4 << 20)
#define TAR_LONG ((int64_t)1 << 20) /* longer members are cut inside */

struct tar_walk {
    const struct gear *gear;
    int64_t inside; /* bytes left of a long member; INT64_MAX once headers have ended */
};

bool tar_looks(const void *head, size_t n); /* is the first block a header? */
void tar_start(struct tar_walk *t, const struct gear *gear);
/* p[0..n): from the chunk's start, n = min(CUT_CHUNK_MAX, left) and at least 1.  Returns the
 * chunk's length. */
size_t tar_cut(struct tar_walk *t, const uint8_t *p, size_t n, int64_t left);

#endif
