/* unpack.h - every file of a source: a directory, a single file, a tar, zip or .deb, packed by whatever libarchive knows.
 *
 * What a file is, its first bytes say, not its name: weir hands over files under names of its own.  Directories are walked in the order of
 * names; archives in their own order; a .deb is opened down to the files of data.tar; a packed single file (x.gz) counts as the file in it.
 * Archives inside archives or inside directories are opened too, one level: "shard-000.tar/000017.png".
 *
 * Nothing is ever written, so a hostile path can do no harm; one that leads out (/, ..) is skipped all the same, and told.
 *
 * Life:     one call.
 * Owns:     bytes are the walker's: valid during the call back.
 * Threads:  one walk, one thread.
 * Errors:   what the call back returns ends the walk; ERR_INPUT for an archive that is damaged (what came before it was delivered), ERR_LIMIT.
 */
#ifndef WEIR_STAGES_DATA_UNPACK_H
#define WEIR_STAGES_DATA_UNPACK_H

#include "base/str.h"

struct unpack_rules {
    int64_t member_bytes_max; /* larger members are skipped */
    int64_t members_max,
        total_bytes_max; /* past these the walk ends with ERR_LIMIT: an archive bomb */
    enum err_code (*file)(void *arg, const char *member, const void *p, size_t n, struct err *err);
    void (*skipped)(void *arg, const char *member, const char *why);
    bool (*wanted)(void *arg, const char *member); /* NULL: all; asked before a member is read */
    void *arg;
};
MUST_USE enum err_code unpack_walk(const char *path, const struct unpack_rules *rules,
                                   struct err *err);
/* The members of an archive in memory. */
MUST_USE enum err_code unpack_memory(const char *name, const void *p, size_t n,
                                     const struct unpack_rules *rules, struct err *err);
bool unpack_sniff(const void *p, size_t n); /* an archive or packed file? */
const char *unpack_version(void);

#endif
