/* loose.h - whole files, named by their hash, handed out without a copy.
 *
 * A loose object is immutable by agreement: mode 0444, mtime LOOSE_MTIME_NS.  A task that got it as a hard link and wrote to it all the
 * same moves the mtime, which loose_verify sees; then it is hashed again and, if changed, moved to quarantine/.
 *
 * Life:     loose_publish links a finished temporary into place; loose_open hands out a read-only descriptor.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   ERR_NOT_FOUND; ERR_DAMAGED after quarantining; ERR_CHANGED when a file to be adopted is still open for writing elsewhere.
 */
#ifndef WEIR_STORE_LOOSE_H
#define WEIR_STORE_LOOSE_H

#include "store/store.h"

#define LOOSE_NAME (2 + 1 + 62 + 1)
void loose_name(const struct digest *id, char out[LOOSE_NAME]); /* "xx/<62 hex>" under loose/ */

/* tmp_name in tmp/, complete and fdatasynced: sets mode and mtime, links it into loose/, EEXIST is success (sizes compared, atime set to
 * now, a short or empty file that is there already is replaced), unlinks the temporary.  The directory is synced by
 * loose_sync.  *existed tells. */
MUST_USE enum err_code loose_publish(struct store *st, const char *tmp_name,
                                     const struct digest *id, int64_t size, bool *existed,
                                     struct err *err);
/* fsync the folders whose bit is set (bit = first byte of the id). */
MUST_USE enum err_code loose_sync(struct store *st, const uint8_t dirs[32], struct err *err);
/* Found, of the right size and untouched since it was published: *fd.  A moved mtime means hash it again: the same -> mtime is
 * set back; changed -> quarantine and ERR_DAMAGED. */
MUST_USE enum err_code loose_open(struct store *st, const struct digest *id, int64_t size, int *fd,
                                  struct err *err);
MUST_USE enum err_code loose_quarantine(struct store *st, const struct digest *id, struct err *err);
/* gc: rename into condemned/; if its atime is at or after since_ns, put it back (*kept = true), else unlink. */
MUST_USE enum err_code loose_delete(struct store *st, const struct digest *id, int64_t since_ns,
                                    bool *kept, struct err *err);

#endif
