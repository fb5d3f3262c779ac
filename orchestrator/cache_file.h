/* cache_file.h - files of .weir/cache: replaced by rename, never synced, few.
 *
 * What a power cut leaves of one fails its reader's crc, and then it is as if there were none.
 *
 * Life:     cache_file_write; cache_file_map -> munmap.
 * Owns:     the caller owns the mapping.
 * Threads:  any.
 * Errors:   as os.h; mapping has none.
 */
#ifndef WEIR_ORCHESTRATOR_CACHE_FILE_H
#define WEIR_ORCHESTRATOR_CACHE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define CACHE_FILES_MAX 32 /* of one kind ("plan-", "pipe-"); the least recently written goes */
#define CACHE_BYTES_MAX ((int64_t)1 << 30)

struct cache_part {
    const void *p;
    size_t n;
};
/* dir: path, made when missing.  name: KIND-WHAT.  A crc32c of all parts is added at the end. */
MUST_USE enum err_code cache_file_write(const char *dir, const char *name,
                                        const struct cache_part *parts, size_t count,
                                        struct err *err);
/* Private and writable, or NULL.  *n without the crc, which has been checked. */
void *cache_file_map(const char *dir, const char *name, size_t *n);

#endif
