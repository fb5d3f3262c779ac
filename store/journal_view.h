/* journal_view.h - which bind and ref records still count.
 *
 * The newest bind of each key counts as long as its result is in the store; the newest of each ref name counts always, also when it
 * removes the name, because its tombstone must win over older packs that may turn up.
 *
 * Life:     journal_view_new -> journal_counts ... -> journal_view_free.
 * Owns:     a copy of the index's action and ref tables: about 80 bytes a row.
 * Threads:  any number of readers.
 * Errors:   what the index says.
 */
#ifndef WEIR_STORE_JOURNAL_VIEW_H
#define WEIR_STORE_JOURNAL_VIEW_H

#include "store/store.h"

struct journal_view;
MUST_USE enum err_code journal_view_new(struct store *st, struct journal_view **out,
                                        struct err *err);
void journal_view_free(struct journal_view *j); /* NULL is fine */
/* e is the toc entry of a REC_BIND or REC_REF. */
bool journal_counts(const struct journal_view *j, const struct pack_entry *e);

#endif
