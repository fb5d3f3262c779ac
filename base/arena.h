/* arena.h - many small allocations, one release.
 *
 * Life:     arena_init -> arena_alloc ... -> arena_rewind(mark) or arena_release; all fine on zeroed storage.
 * Owns:     the arena owns what it hands out; pointers die at the rewind or release.
 * Threads:  one arena, one thread.
 * Errors:   none: arenas are for small bounded things, running out of memory ends the process (the ledger replays).
 *           With WEIR_ARENA_DEBUG defined each allocation is a malloc of its own, so sanitizers see through it.
 */
#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *head;
    size_t total; /* bytes handed out since init, for budgets */
};
struct arena_mark {
    struct arena_block *block;
    size_t used;
    size_t total;
};

void arena_init(struct arena *a);
void arena_release(struct arena *a);
void *arena_alloc(struct arena *a, size_t n); /* zeroed, aligned to 16 */
void *arena_array(struct arena *a, size_t count, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct arena_mark arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, struct arena_mark m);

#endif
