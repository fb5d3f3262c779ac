/* resolve_memo.h - the file that remembers what every task was made of, and what came out.
 *
 *   head (MEMO_HEAD_BYTES) | stage ids | sources | tasks | outputs | crc32c of all before it, u32        in this machine's byte order
 *
 * Rows of stages, sources and tasks are numbered as in the pipeline that had this origin; of another one only the pairs key -> result
 * are of use.  It is a cache: lost, damaged or of another version it costs time.  So it is not synced: what a power cut leaves of it
 * fails the crc.
 *
 * Life:     memo_open -> rows -> memo_close; memo_write replaces the file by rename.
 * Owns:     the mapping.  A file is never changed in place, so a mapping never shrinks.
 * Threads:  one.
 * Errors:   memo_open has none: what is not good is not there.  memo_write: as os.h.
 */
#ifndef WEIR_ORCHESTRATOR_RESOLVE_MEMO_H
#define WEIR_ORCHESTRATOR_RESOLVE_MEMO_H

#include "base/hash.h"

#define MEMO_MAGIC "weirmem1"

enum memo_flag { MEMO_KEYED = 1, MEMO_KNOWN = 2 };

struct memo_head {
    char magic[8];
    uint32_t order, head_bytes; /* 0x01020304 as this machine writes it */
    struct digest origin;       /* of the pipeline, its options, this version of weir */
    uint64_t epoch;             /* store_removal_epoch under which every known result was whole */
    uint64_t stages, sources, tasks, outputs;
    struct digest results; /* the tree {TASK: result}; zero: not made */
    int64_t results_size;
};
struct memo_source {
    struct digest digest;
    uint64_t kind; /* 0: was not looked at */
};
struct memo_task {
    struct digest key, result;
    uint32_t first, count; /* of outputs */
    uint32_t flags, spare;
};
struct memo_output {
    struct digest digest;
    int64_t size;
    uint64_t kind;
};
_Static_assert(sizeof(struct memo_head) == 128 && sizeof(struct memo_task) == 80, "file format");
_Static_assert(sizeof(struct memo_source) == 40 && sizeof(struct memo_output) == 48, "file format");

struct memo {
    struct memo_head head;
    const struct digest *stages;
    const struct memo_source *sources;
    const struct memo_task *tasks;
    const struct memo_output *outputs;
    void *map; /* NULL: there is none */
    size_t map_bytes;
};
/* dir: path of the folder. */
void memo_open(const char *dir, const char *name, struct memo *out);
void memo_close(struct memo *m); /* fine on zeroed storage */
/* From memory, for memo_open and for the fuzzer: false when it is not one.  The rows point into p, which is 8-aligned; n without the crc,
 * which has been looked at. */
bool memo_view(const void *p, size_t n, struct memo *out);
/* The rows are the caller's; head's magic, order and head_bytes are filled in here. */
MUST_USE enum err_code memo_write(const char *dir, const char *name, const struct memo *m,
                                  struct err *err);

#endif
