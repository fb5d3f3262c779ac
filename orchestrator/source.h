/* source.h - what enters from outside: files, Debian packages, downloads, artifacts; each with its licence, pinned by a lock file.
 *
 *   path      file, directory or glob, relative to the pipeline's file; read through the stat memo
 *   deb       apt-get download into a temporary folder, unpacked with dpkg-deb -x, not installed; the artifact is the unpacked tree without
 *             what differs between two downloads.  Version and digest are pinned in the lock file; a locked version that is in the store
 *             already is never fetched again
 *   url       libcurl, SHA-256 required, resumed after a cut, bounded; an object with that digest in the store is never fetched
 *   artifact  [PIPELINE/]STAGE.OUTPUT@NAME | ...@run-N, or a ref, or sha256:..
 *
 * The lock file, NAME.lock beside NAME.yaml, canonical JSON with sorted names and a line per source, made to be committed:
 *   {"weir":"lock/1","sources":{"noto-emoji":{"kind":"deb","deb":"fonts-noto-color-emoji","version":"2.042-0+deb12u1","architecture":"all","sha256":"..of the .deb",
 *    "digest":"sha256:..","size":1},...}}
 *
 * How a source entered (licence, attribution, url, time, records file) is a blob of its own, "entry record", stored once per content and
 * licence and named by run events; it is never an input of a task, so no time reaches a key.
 *
 * Life:     sources_new -> source_enter ... -> sources_free.
 * Owns:     what was found out so far; each source is entered once.
 * Threads:  one.
 * Errors:   with file:line:column of the source: ERR_NOT_FOUND, ERR_MISSING (apt-get or network; says what to do), ERR_CHANGED (a download with
 *           another digest than locked or declared), ERR_DENIED where a licence is missing.
 */
#ifndef WEIR_ORCHESTRATOR_SOURCE_H
#define WEIR_ORCHESTRATOR_SOURCE_H

#include "orchestrator/pipeline.h"
#include "store/store.h"

#define SOURCE_LOCK_BYTES_MAX (16 << 20)

struct source_object {
    enum obj_kind kind;
    struct digest digest;
    int64_t size;
    struct digest entry; /* the entry record; zero for artifacts */
};
struct sources;
struct source_options {
    bool update;  /* weir lock --update: resolve deb and url anew */
    bool offline; /* never fetch: what is neither locked in the store nor a path is ERR_MISSING */
    struct progress *progress;
};
MUST_USE enum err_code sources_new(struct store *st, const struct pipeline *p,
                                   const struct source_options *o, struct sources **out,
                                   struct err *err);
void sources_free(struct sources *s); /* NULL is fine */
/* --input: instead of what the file says.  text: PATH, REF, DIGEST or RUN:STAGE.OUTPUT ("run-41:vae.model"). */
MUST_USE enum err_code source_resolve_text(struct store *st, const char *dir, const char *text,
                                           struct source_object *out, struct err *err);
/* All path sources that are wanted are read together, so that ten thousand files cost one look at the memo. */
MUST_USE enum err_code
sources_enter(struct sources *s, const bool *wanted /* per source; NULL: all */, struct err *err);
/* After sources_enter; NULL for one that was not wanted. */
const struct source_object *source_get(const struct sources *s, int source);
/* The pipeline's policy over the licences that wanted sources declare and, for those that have been entered, over those of single files.
 * ERR_DENIED; lines (may be NULL) gets "file:line:column: source x: CC-BY-NC-4.0 is denied" for each that does not pass. */
MUST_USE enum err_code sources_policy(struct sources *s, const bool *wanted, struct buf *lines,
                                      struct err *err);
/* Files beside the pipeline that stages name under code:, the same way. */
MUST_USE enum err_code source_code(struct sources *s, const char *path, struct source_object *out,
                                   struct err *err);
/* Writes NAME.lock when it differs; *changed says so. */
MUST_USE enum err_code sources_lock(struct sources *s, bool *changed, struct err *err);

#endif
