/* tree.h - directory manifests, in one canonical form.
 *
 * A tree is the canonical JSON (RFC 8785)
 *   {"entries":[E, ...],"weir":"tree/1"}
 * with the entries sorted by the bytes of their (unescaped) names, no name twice, each E one of
 *   {"digest":"sha256:..","mode":"file","name":"a.txt","size":12}      a blob, mode 0644
 *   {"digest":"sha256:..","mode":"exec","name":"run.sh","size":12}     a blob, mode 0755
 *   {"digest":"sha256:..","mode":"dir","name":"sub","size":98}         a tree; size is the length of its manifest
 *   {"mode":"link","name":"l","target":"../sub/x"}                     a symbolic link that stays inside
 * Names and targets are any bytes but NUL (names: and '/'), escaped as json_name_escape says.  "", "." and ".." are no names.
 * A target is relative and normal: leading ".." (at most as many as the link's directory is deep in the whole tree), then
 * plain names.  With no ".." after a name, no chain of such links can leave the tree.
 *
 * Life:     tree_init -> tree_add ... -> tree_encode; or tree_decode; then tree_release (fine on zeroed storage).
 * Owns:     names and targets are copied into the tree's arena.
 * Threads:  one tree, one thread.
 * Errors:   ERR_INPUT for anything that tree_encode would not have written (so one directory has one id);
 *           ERR_LIMIT past TREE_ENTRIES_MAX or TREE_BYTES_MAX.
 */
#ifndef WEIR_STORE_TREE_H
#define WEIR_STORE_TREE_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/str.h"

#define TREE_ENTRIES_MAX 4000000
#define TREE_BYTES_MAX (1 << 30)
#define TREE_DEPTH_MAX 256
#define TREE_NAME_MAX 255
#define TREE_TARGET_MAX 4095

enum tree_mode { TREE_FILE, TREE_EXEC, TREE_DIR, TREE_LINK };

struct tree_entry {
    enum tree_mode mode;
    struct str name;      /* raw bytes, NUL-terminated */
    struct digest digest; /* not for links */
    int64_t size;         /* bytes of the object; not for links */
    struct str target;    /* links only; raw bytes, NUL-terminated */
};
struct tree {
    struct tree_entry *entries; /* sorted after encode and decode */
    size_t count, cap;
    struct arena arena;
};

void tree_init(struct tree *t);
void tree_release(struct tree *t);
/* depth: of this directory in the whole tree, 0 at the root; used to judge links. */
MUST_USE enum err_code tree_add(struct tree *t, const struct tree_entry *e, int depth,
                                struct err *err);
/* Sorts, refuses duplicate names, appends the manifest to out. */
MUST_USE enum err_code tree_encode(struct tree *t, struct buf *out, struct err *err);
/* what names the tree in messages.  depth as in tree_add; -1: unknown, links are checked for form only.  Meant to run at
 * >= 300 MB/s, since gc decodes every tree: not through jansson. */
MUST_USE enum err_code tree_decode(const char *p, size_t n, int depth, const char *what,
                                   struct tree *out, struct err *err);
const struct tree_entry *tree_find(const struct tree *t, struct str name); /* NULL when absent */
/* Is target relative, normal, and inside a tree when its directory is depth deep? */
MUST_USE enum err_code tree_check_target(struct str target, int depth, struct err *err);

#endif
