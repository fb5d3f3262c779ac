/* fetch.h - one file from a URL, by its SHA-256.
 *
 * What has arrived lies in DIR/<hex>.part, which one process at a time works on (DIR/<hex>.lock); a cut connection, a kill or another day goes on from there
 * (Range).  A server that cannot go on sends everything anew.  Only the digest says that a file is right, so http is as good as https.
 *
 * Life:     fetch_file -> take the .part file -> fetch_done.
 * Owns:     fd, from fetch_file to fetch_done: the lock.
 * Threads:  any.
 * Errors:   ERR_MISSING when the server cannot be reached, or says 4xx or 5xx (which one); ERR_LIMIT past bytes_max; ERR_INPUT for
 *           schemes other than https, http and file, also after a redirect.  The digest is the caller's to compare: whoever takes the file
 *           in hashes it anyway.
 */
#ifndef WEIR_ORCHESTRATOR_FETCH_H
#define WEIR_ORCHESTRATOR_FETCH_H

#include "base/hash.h"
#include "base/log.h"

#define FETCH_REDIRECTS_MAX 5
#define FETCH_TRIES_MAX 5 /* in a row that brought nothing new */

struct fetch {
    const char *url;
    struct digest want; /* names the .part file */
    int64_t bytes_max;
    int64_t pause_ms; /* before the second try, then twice as long each time; 0: 500 */
    struct progress *progress;
};
struct fetched {
    char name[DIGEST_HEX + 8]; /* in the folder */
    bool
        resumed; /* its first part is from an earlier time: when the digest is wrong, once more from the start may help */
    int fd;
};
MUST_USE enum err_code fetch_file(int dir, const struct fetch *f, struct fetched *out,
                                  struct err *err);
/* keep: leave what there is for another time; else it is removed. */
enum fetch_end { FETCH_KEEP, FETCH_REMOVE };
void fetch_done(int dir, struct fetched *f, enum fetch_end end);

#endif
