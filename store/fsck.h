/* fsck.h - is every byte what its name says?
 *
 * Levels: FSCK_QUICK sizes, tocs, index against packs and loose files, everything reachable is there; FSCK_CRC also the CRC32C of every record;
 * FSCK_FULL (default) decodes and hashes every stored byte once (chunks by their id, loose files by theirs, recipes by their
 * check digest); FSCK_LOGICAL also hashes each recipe object end to end.  The index is compared with a fresh rebuild in a child process, since
 * LMDB may crash on damaged pages.
 *
 * Damage: with repair, damaged loose files go to quarantine/; the good records of a damaged pack are copied to a new one and the
 * old pack goes to quarantine/; lost objects are fetched from the remotes named in the config that have them; for the rest
 * the report names the refs and paths they were part of.  Without repair nothing is changed.
 *
 * Life:     one call.  Owns: the report's strings; fsck_report_release.  Threads: twice st->threads of its own at most.
 * Memory:   a thread holds two decoded blobs, which are hashed side by side, and one as it is stored: 50 MiB at most (CODEC_RAW_MAX
 *           each), 25 MiB with chunks of 8 MiB; a recipe up to PACK_PAYLOAD_MAX instead.  And the table of contents of its pack.
 * Errors:   ERR_DAMAGED when anything is damaged or missing and was not repaired; the report tells all of it.
 */
#ifndef WEIR_STORE_FSCK_H
#define WEIR_STORE_FSCK_H

#include "store/store.h"

enum fsck_level { FSCK_QUICK, FSCK_CRC, FSCK_FULL, FSCK_LOGICAL };
struct fsck_options {
    enum fsck_level level;
    bool repair;
    int part,
        parts; /* rolling: only records whose id's first bytes fall in part of parts; 0, 0: all */
    struct progress *progress;
};
struct fsck_problem {
    char *what;       /* "pack 5b1f.. record at 123: checksum" */
    struct digest id; /* zero when not about one object */
    char *part_of;    /* "ref runs/41: model/x.safetensors", NULL when unreachable */
    bool repaired;
};
struct fsck_report {
    int64_t objects, packs, loose, bytes;
    struct fsck_problem *problems;
    size_t problem_count, problem_cap;
};
MUST_USE enum err_code store_fsck(struct store *st, const struct fsck_options *o,
                                  struct fsck_report *out, struct err *err);
void fsck_report_release(struct fsck_report *r);

#endif
