#include "orchestrator/resolve_memo.h"

#include <string.h>
#include <sys/mman.h>

#include "orchestrator/cache_file.h"

#define ORDER 0x01020304
#define ROWS_MAX ((uint64_t)1 << 28) /* so that no product below overflows */

/* ---- reading ----------------------------------------------------------------------------------- */

static uint64_t bytes_of(const struct memo_head *h)
{
    return sizeof(*h) + h->stages * sizeof(struct digest) +
           h->sources * sizeof(struct memo_source) + h->tasks * sizeof(struct memo_task) +
           h->outputs * sizeof(struct memo_output);
}

static bool rows_fit(const struct memo *m)
{
    for (uint64_t i = 0; i < m->head.tasks; i++) {
        const struct memo_task *t = &m->tasks[i];

        if (t->first > m->head.outputs || t->count > m->head.outputs - t->first ||
            t->flags > (MEMO_KEYED | MEMO_KNOWN) || t->flags == MEMO_KNOWN)
            return false;
    }
    for (uint64_t i = 0; i < m->head.outputs; i++)
        if (m->outputs[i].kind != 1 && m->outputs[i].kind != 2)
            return false;
    for (uint64_t i = 0; i < m->head.sources; i++)
        if (m->sources[i].kind > 2)
            return false;
    return true;
}

bool memo_view(const void *p, size_t n, struct memo *out)
{
    struct memo_head h;
    const char *at = p;

    *out = (struct memo){0};
    if (n < sizeof(h))
        return false;
    memcpy(&h, p, sizeof(h));
    if (memcmp(h.magic, MEMO_MAGIC, sizeof(h.magic)) != 0 || h.order != ORDER ||
        h.head_bytes != sizeof(h))
        return false;
    if (h.stages > ROWS_MAX || h.sources > ROWS_MAX || h.tasks > ROWS_MAX || h.outputs > ROWS_MAX ||
        bytes_of(&h) != n)
        return false;
    out->head = h;
    at += sizeof(h);
    out->stages = (const void *)at;
    at += h.stages * sizeof(struct digest);
    out->sources = (const void *)at;
    at += h.sources * sizeof(struct memo_source);
    out->tasks = (const void *)at;
    at += h.tasks * sizeof(struct memo_task);
    out->outputs = (const void *)at;
    if (rows_fit(out))
        return true;
    *out = (struct memo){0};
    return false;
}

void memo_open(const char *dir, const char *name, struct memo *out)
{
    size_t n = 0;
    void *map = cache_file_map(dir, name, &n);

    *out = (struct memo){0};
    if (map && memo_view(map, n, out)) {
        out->map = map;
        out->map_bytes = n + sizeof(uint32_t);
    } else if (map) {
        (void)munmap(map, n + sizeof(uint32_t));
    }
}

void memo_close(struct memo *m)
{
    if (m->map)
        (void)munmap(m->map, m->map_bytes);
    *m = (struct memo){0};
}

/* ---- writing ----------------------------------------------------------------------------------- */

enum err_code memo_write(const char *dir, const char *name, const struct memo *m, struct err *err)
{
    struct memo_head h = m->head;
    const struct cache_part parts[] = {{&h, sizeof(h)},
                                       {m->stages, h.stages * sizeof(*m->stages)},
                                       {m->sources, h.sources * sizeof(*m->sources)},
                                       {m->tasks, h.tasks * sizeof(*m->tasks)},
                                       {m->outputs, h.outputs * sizeof(*m->outputs)}};

    CHECK(h.tasks <= ROWS_MAX && h.outputs <= ROWS_MAX);
    memcpy(h.magic, MEMO_MAGIC, sizeof(h.magic));
    h.order = ORDER;
    h.head_bytes = sizeof(h);
    return cache_file_write(dir, name, parts, sizeof(parts) / sizeof(parts[0]), err);
}
