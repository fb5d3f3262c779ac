/* A list of blocks, newest first; only the newest has room.  A mark is the newest block and how
 * full it was, so a rewind frees blocks until it is back there. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"

#define ARENA_ALIGN 16
#define ARENA_BLOCK ((size_t)64 << 10) /* a run's state takes tens of these, a small one few */

struct arena_block {
    struct arena_block *older;
    size_t used, cap;
    alignas(ARENA_ALIGN) unsigned char bytes[];
};

void arena_init(struct arena *a)
{
    CHECK(a);
    *a = (struct arena){0};
}

void arena_release(struct arena *a)
{
    arena_rewind(a, (struct arena_mark){0});
}

static void add_block(struct arena *a, size_t n)
{
#ifdef WEIR_ARENA_DEBUG
    const size_t cap = n; /* exactly one allocation: a byte past it is a byte past the malloc */
#else
    const size_t cap = n > ARENA_BLOCK ? n : ARENA_BLOCK;
#endif
    struct arena_block *b = mem_alloc(sizeof(*b) + cap);

    b->older = a->head;
    b->used = 0;
    b->cap = cap;
    a->head = b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    CHECK(a);
    CHECK(n < SIZE_MAX / 2);

    struct arena_block *b = a->head;
    /* Aligned by rounding up where the last one ended, so that the last byte of a block is used. */
    size_t at = b ? (b->used + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1) : 0;

#ifdef WEIR_ARENA_DEBUG
    b = NULL;
#endif
    if (!b || at > b->cap || n > b->cap - at) {
        add_block(a, n);
        b = a->head;
        at = 0;
    }
    b->used = at + n;
    a->total += n;
    return memset(b->bytes + at, 0, n);
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    size_t n;

    CHECK(!__builtin_mul_overflow(count, size, &n));
    return arena_alloc(a, n);
}

char *arena_strdup(struct arena *a, const char *s)
{
    CHECK(s);
    return arena_strndup(a, s, strlen(s));
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = arena_alloc(a, n + 1);

    if (n)
        memcpy(copy, s, n);
    return copy;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;

    va_start(ap, fmt);
    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    CHECK(n >= 0);

    char *text = arena_alloc(a, (size_t)n + 1);

    CHECK(vsnprintf(text, (size_t)n + 1, fmt, ap) == n);
    va_end(ap);
    return text;
}

struct arena_mark arena_mark(const struct arena *a)
{
    CHECK(a);
    return (struct arena_mark){
        .block = a->head, .used = a->head ? a->head->used : 0, .total = a->total};
}

void arena_rewind(struct arena *a, struct arena_mark m)
{
    CHECK(a);
    while (a->head != m.block) {
        struct arena_block *b = a->head;

        CHECK(b); /* else the mark was of another arena, or already rewound past */
        a->head = b->older;
        free(b);
    }
    if (a->head)
        a->head->used = m.used;
    a->total = m.total;
}
