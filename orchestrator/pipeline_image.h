/* pipeline_image.h - a pipeline as it was expanded, kept in a file, so that the same file with the same options is not read again.
 *
 * Reading and expanding 10,000 stages takes a tenth of a second, mapping what came out a few milliseconds.  The file is the structures
 * themselves: pointers are offsets, listed in a table, and become pointers again when it is mapped; JSON values are made anew.
 *
 *   struct image_head | bytes of the structures | u32 places of pointers | places and numbers of values | values | crc32c
 *
 * It holds for the bytes of the file and of all param files, for the options, and for the very program that wrote it (its file's inode,
 * size and time), since the layout is the compiler's.  Anything else about it that is not right, and the file is read as ever.
 *
 * Life:     pipeline_load_kept -> as pipeline_load.
 * Owns:     the pipeline owns the mapping.
 * Threads:  one.
 * Errors:   as pipeline_load; none of the cache's.
 */
#ifndef WEIR_ORCHESTRATOR_PIPELINE_IMAGE_H
#define WEIR_ORCHESTRATOR_PIPELINE_IMAGE_H

#include "orchestrator/pipeline.h"

#define IMAGE_TASKS_MIN 200 /* smaller ones are read as fast */

#define IMAGE_MAGIC "weirimg1"

struct image_head {
    char magic[8];
    uint64_t data_bytes, pointers, slots, values, value_bytes; /* data: this head included */
    uint64_t root;                                             /* of struct pipeline */
    struct digest key;
    uint64_t spare;
};
struct image_slot {
    uint32_t at, value;
};
_Static_assert(sizeof(struct image_head) == 96, "structures begin on 16 bytes");

/* weir_dir: path of .weir; NULL: pipeline_load. */
MUST_USE enum err_code pipeline_load_kept(const char *path, const struct pipeline_options *o,
                                          const char *weir_dir, struct pipeline **out,
                                          struct buf *errors, struct err *err);
/* For tests: the file's bytes for a pipeline, and back (*out = NULL when they are not good).  key: 32 bytes that must be equal. */
void image_encode(const struct pipeline *p, const struct digest *key, struct buf *out);
void image_decode(void *map, size_t n, const struct digest *key, struct pipeline **out);

#endif
