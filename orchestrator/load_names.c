/* An open table with linear probing, filled once and never emptied.  A pipeline may have 100,000 stages: at 16 bytes a name
 * this is a fifth of what chained tables take. */
#include <string.h>

#include "orchestrator/pipeline_internal.h"

static uint32_t hash(const char *p, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 16777619u;
    return h ^ h >> 15;
}

void names_init(struct names *t, struct arena *a, size_t room)
{
    size_t slots = 4;

    CHECK(room < UINT32_MAX / 2);
    while (slots < 2 * room)
        slots *= 2;
    *t = (struct names){.list = arena_array(a, room + 1, sizeof(*t->list)),
                        .room = room,
                        .slots = arena_array(a, slots, sizeof(*t->slots)),
                        .mask = slots - 1};
}

/* The slot that holds the name, or the empty one where it would go. */
static size_t slot_of(const struct names *t, const char *name, size_t n)
{
    size_t at = hash(name, n) & t->mask;

    while (t->slots[at]) {
        const char *other = t->list[t->slots[at] - 1];

        if (strncmp(other, name, n) == 0 && other[n] == '\0')
            break;
        at = (at + 1) & t->mask;
    }
    return at;
}

bool names_add(struct names *t, const char *name)
{
    const size_t at = slot_of(t, name, strlen(name));

    if (t->slots[at])
        return false;
    CHECK(t->count < t->room);
    t->list[t->count++] = name;
    t->slots[at] = (uint32_t)t->count;
    return true;
}

int names_find(const struct names *t, const char *name, size_t n)
{
    return t->count == 0 ? -1 : (int)t->slots[slot_of(t, name, n)] - 1;
}
