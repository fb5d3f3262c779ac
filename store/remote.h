/* remote.h - another place that keeps packs: one table of functions, one row per kind.
 *
 * A remote holds keys with immutable bytes: "packs/<64 hex>" in the format of pack.h, so a dir remote is itself an objects folder from which
 * an index can be rebuilt.  Refs travel as REC_REF records in packs.  Nothing else is asked of a remote than list, has, put, get
 * with ranges, which S3 and OCI registries can do.
 *
 * Life:     remote_open -> table's functions -> remote_close.
 * Owns:     a remote its connection or directory.
 * Threads:  one remote, one thread.
 * Errors:   ERR_NOT_FOUND, ERR_IO, ERR_FULL, ERR_DENIED; ERR_EXISTS from put is success for the caller (immutable, same key).
 */
#ifndef WEIR_STORE_REMOTE_H
#define WEIR_STORE_REMOTE_H

#include "store/store.h"

struct remote;
typedef enum err_code (*remote_key_fn)(void *arg, const char *key, int64_t size, struct err *err);
struct remote_ops {
    const char *type; /* "dir" */
    enum err_code (*open)(const struct remote_config *c, bool create, struct remote **out,
                          struct err *err);
    void (*close)(struct remote *r);
    /* Every key that starts with prefix, in any order. */
    enum err_code (*list)(struct remote *r, const char *prefix, remote_key_fn fn, void *arg,
                          struct err *err);
    enum err_code (*has)(struct remote *r, const char *key, bool *has, int64_t *size,
                         struct err *err);
    /* The whole file fd (size bytes) under key; durable and complete, or not there at all; never replaces. */
    enum err_code (*put)(struct remote *r, const char *key, int fd, int64_t size, struct err *err);
    /* Exactly n bytes at off, into p. */
    enum err_code (*range)(struct remote *r, const char *key, void *p, size_t n, int64_t off,
                           struct err *err);
    /* The whole value into the file fd. */
    enum err_code (*get)(struct remote *r, const char *key, int fd, struct err *err);
};
struct remote {
    const struct remote_ops *ops;
    char *name;
};
extern const struct remote_ops remote_dir_ops;
/* By name from the config, or a path (contains '/') as a dir remote.  ERR_MISSING for kinds that are not built yet. */
MUST_USE enum err_code remote_open(struct store *st, const char *name, bool create,
                                   struct remote **out, struct err *err);
void remote_close(struct remote *r); /* NULL is fine */

#endif
