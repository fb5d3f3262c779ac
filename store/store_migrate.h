/* store_migrate.h - an older store becomes one of this format.
 *
 * Life:     store_migrate, called by store_open(STORE_WRITE) with lock.gc held and the folders open, the index not.
 * Owns:     nothing.
 * Threads:  one; others are kept out by lock.gc.
 * Errors:   ERR_VERSION when there is no way from that format; what a step says.  The store stays as it was, or at the format of the
 *           last step that was done: each step is followed by a new "format" file and may be repeated after a crash.
 */
#ifndef WEIR_STORE_STORE_MIGRATE_H
#define WEIR_STORE_STORE_MIGRATE_H

#include "store/store.h"

struct migration {
    int from; /* to from + 1 */
    enum err_code (*run)(struct store *st, struct err *err);
};
/* Before the first step "format" and the index are copied to .weir/backup-format-FROM, once. */
MUST_USE enum err_code store_migrate(struct store *st, int from, int to,
                                     const struct migration *steps, size_t count, struct err *err);
MUST_USE enum err_code store_write_format(const struct store *st, int format, struct err *err);

#endif
