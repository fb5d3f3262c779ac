/* config.h - .weir/config.yaml: where objects live, slots, remotes, retention.
 *
 *   objects: /shared/weir/objects       # default: objects (inside .weir)
 *   slots: {cpus: 2, memory: 8GiB, gpus: 0}   # default: what the machine has
 *   threads: 2                          # hashing and packing; default: processors, at most 16
 *   remotes:
 *     backup: {dir: /mnt/backup/weir}
 *     lab: {s3: "https://...", bucket: b, region: r}     # parsed and kept; s3 and oci come with their issue
 *   retention: {grace: 24h, runs: 100}  # what is younger than grace is never deleted; how many runs per pipeline stay roots
 *
 * Life:     config_load -> config_release (fine on zeroed storage).
 * Owns:     all strings.
 * Threads:  a value.
 * Errors:   ERR_CONFIG with file:line:column, all problems in one message list; nearest-name hints for unknown keys.
 */
#ifndef WEIR_STORE_CONFIG_H
#define WEIR_STORE_CONFIG_H

#include "base/str.h"

struct remote_config {
    char *name;
    char *type;                     /* "dir", "s3", "oci" */
    char *url;                      /* the value of that member */
    char *bucket, *region, *prefix; /* s3; NULL when absent */
};
struct config {
    char *objects;           /* absolute or relative to .weir */
    int cpus, gpus, threads; /* 0: not said */
    int64_t memory_bytes;    /* 0: not said */
    struct remote_config *remotes;
    size_t remote_count;
    int64_t grace_s;
    int64_t keep_runs;
};
/* A missing file gives the defaults.  weir_dir: path of .weir */
MUST_USE enum err_code config_load(const char *weir_dir, struct config *out, struct err *err);
void config_release(struct config *c);
const struct remote_config *config_remote(const struct config *c,
                                          const char *name); /* NULL when absent */
extern const char config_template[]; /* what weir init writes: every key, commented */

#endif
