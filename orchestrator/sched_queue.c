#include "orchestrator/sched_queue.h"

#include <limits.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/str.h"

/* ---- tasks by a number ------------------------------------------------------------------------- */

void task_heap_init(struct task_heap *h, size_t tasks)
{
    *h = (struct task_heap){.at = mem_zero(tasks + 1, sizeof(*h->at)),
                            .pos = mem_zero(tasks + 1, sizeof(*h->pos)),
                            .key = mem_zero(tasks + 1, sizeof(*h->key))};
}

void task_heap_release(struct task_heap *h)
{
    free(h->at);
    free(h->pos);
    free(h->key);
    *h = (struct task_heap){0};
}

static bool before(const struct task_heap *h, int a, int b)
{
    return h->key[a] != h->key[b] ? h->key[a] < h->key[b] : a < b;
}

static void place(struct task_heap *h, int at, int task)
{
    h->at[at] = task;
    h->pos[task] = at + 1;
}

static void sift_up(struct task_heap *h, int at)
{
    const int task = h->at[at];

    while (at > 0 && before(h, task, h->at[(at - 1) / 2])) {
        place(h, at, h->at[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(h, at, task);
}

static void sift_down(struct task_heap *h, int at)
{
    const int task = h->at[at];

    for (int64_t child = 2 * (int64_t)at + 1; child < h->n; child = 2 * (int64_t)at + 1) {
        if (child + 1 < h->n && before(h, h->at[child + 1], h->at[child]))
            child++;
        if (!before(h, h->at[child], task))
            break;
        place(h, at, h->at[child]);
        at = (int)child;
    }
    place(h, at, task);
}

void task_heap_put(struct task_heap *h, int task, int64_t key)
{
    h->key[task] = key;
    if (!h->pos[task])
        place(h, h->n++, task);
    sift_up(h, h->pos[task] - 1);
    sift_down(h, h->pos[task] - 1);
}

void task_heap_remove(struct task_heap *h, int task)
{
    const int at = h->pos[task] - 1;
    int last;

    if (at < 0)
        return;
    h->pos[task] = 0;
    last = h->at[--h->n];
    if (last == task)
        return;
    place(h, at, last);
    sift_up(h, at);
    sift_down(h, h->pos[last] - 1);
}

int task_heap_first(const struct task_heap *h)
{
    return h->n ? h->at[0] : -1;
}

bool task_heap_has(const struct task_heap *h, int task)
{
    return h->pos[task] != 0;
}

bool task_heap_check(const struct task_heap *h, size_t tasks)
{
    size_t in = 0;

    for (int i = 0; i < h->n; i++)
        if (h->pos[h->at[i]] != i + 1 || (i && before(h, h->at[i], h->at[(i - 1) / 2])))
            return false;
    for (size_t i = 0; i < tasks; i++)
        in += h->pos[i] != 0;
    return in == (size_t)h->n;
}

/* ---- ready tasks by what fits ------------------------------------------------------------------ */

struct slot_key {
    int64_t cpus, gpus;
    int rank, task;
};

static int by_group(const void *a, const void *b)
{
    const struct slot_key *x = a;
    const struct slot_key *y = b;

    if (x->cpus != y->cpus)
        return x->cpus < y->cpus ? -1 : 1;
    if (x->gpus != y->gpus)
        return x->gpus < y->gpus ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static bool same_group(const struct slot_key *a, const struct slot_key *b)
{
    return a->cpus == b->cpus && a->gpus == b->gpus;
}

static void cut_groups(struct ready_set *r, const struct slot_key *keys)
{
    size_t used = 0;

    for (size_t i = 0; i < r->n; i++)
        r->group_count += i == 0 || !same_group(&keys[i], &keys[i - 1]);
    r->groups = mem_zero(r->group_count + 1, sizeof(*r->groups));
    r->group_count = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (i == 0 || !same_group(&keys[i], &keys[i - 1]))
            r->groups[r->group_count++] =
                (struct ready_group){.cpus = keys[i].cpus, .gpus = keys[i].gpus, .first = i};
        r->groups[r->group_count - 1].count++;
        r->by_slot[i] = keys[i].task;
        r->slot_of[keys[i].task] = i;
        r->group_of[keys[i].task] = (int)r->group_count - 1;
    }
    for (size_t g = 0; g < r->group_count; g++) {
        for (r->groups[g].leaves = 1; r->groups[g].leaves < r->groups[g].count;)
            r->groups[g].leaves *= 2;
        used += 2 * r->groups[g].leaves;
    }
    r->tree_all = mem_zero(used + 1, sizeof(*r->tree_all));
    for (size_t i = 0; i < used; i++)
        r->tree_all[i] = INT64_MAX;
    used = 0;
    for (size_t g = 0; g < r->group_count; g++) {
        r->groups[g].tree = r->tree_all + used;
        r->groups[g].least = INT64_MAX;
        r->groups[g].first_rank = INT_MAX;
        used += 2 * r->groups[g].leaves;
    }
}

void ready_set_init(struct ready_set *r, const struct demand *d, const int *by_rank,
                    const int *rank, size_t n)
{
    struct slot_key *keys = mem_zero(n + 1, sizeof(*keys));

    *r = (struct ready_set){.by_slot = mem_zero(n + 1, sizeof(*r->by_slot)),
                            .group_of = mem_zero(n + 1, sizeof(*r->group_of)),
                            .slot_of = mem_zero(n + 1, sizeof(*r->slot_of)),
                            .memory = mem_zero(n + 1, sizeof(*r->memory)),
                            .rank = rank,
                            .n = n};
    for (size_t i = 0; i < n; i++) {
        const int t = by_rank[i];

        keys[i] =
            (struct slot_key){.cpus = d[t].cpus, .gpus = d[t].gpus, .rank = (int)i, .task = t};
        r->memory[t] = d[t].memory_bytes < INT64_MAX ? d[t].memory_bytes : INT64_MAX - 1;
    }
    qsort(keys, n, sizeof(*keys), by_group);
    cut_groups(r, keys);
    free(keys);
}

void ready_set_release(struct ready_set *r)
{
    free(r->groups);
    free(r->by_slot);
    free(r->group_of);
    free(r->slot_of);
    free(r->memory);
    free(r->tree_all);
    *r = (struct ready_set){0};
}

static int64_t *leaf_of(const struct ready_set *r, int task)
{
    const struct ready_group *g = &r->groups[r->group_of[task]];

    return &g->tree[g->leaves + (r->slot_of[task] - g->first)];
}

/* The first task of the group that needs at most this memory. */
static int first_of(const struct ready_set *r, const struct ready_group *g, int64_t memory)
{
    size_t i = 1;

    if (memory == INT64_MAX)
        memory--; /* INT64_MAX says that nobody is there */
    if (g->least > memory)
        return -1;
    while (i < g->leaves)
        i = g->tree[2 * i] <= memory ? 2 * i : 2 * i + 1;
    return r->by_slot[g->first + (i - g->leaves)];
}

static void set_leaf(struct ready_set *r, int task, int64_t value)
{
    struct ready_group *g = &r->groups[r->group_of[task]];
    int64_t *tree = g->tree;
    size_t i = g->leaves + (r->slot_of[task] - g->first);

    tree[i] = value;
    for (i /= 2; i; i /= 2) {
        const int64_t least = tree[2 * i] < tree[2 * i + 1] ? tree[2 * i] : tree[2 * i + 1];

        if (tree[i] == least)
            break;
        tree[i] = least;
    }
    g->least = tree[1];
    if (value != INT64_MAX) {
        g->first_rank = r->rank[task] < g->first_rank ? r->rank[task] : g->first_rank;
    } else if (r->rank[task] == g->first_rank) {
        const int next = first_of(r, g, INT64_MAX);

        g->first_rank = next >= 0 ? r->rank[next] : INT_MAX;
    }
}

bool ready_set_has(const struct ready_set *r, int task)
{
    return *leaf_of(r, task) != INT64_MAX;
}

void ready_set_put(struct ready_set *r, int task)
{
    if (ready_set_has(r, task))
        return;
    set_leaf(r, task, r->memory[task]);
    r->count++;
}

void ready_set_remove(struct ready_set *r, int task)
{
    if (!ready_set_has(r, task))
        return;
    set_leaf(r, task, INT64_MAX);
    r->count--;
}

int ready_set_first_fit(const struct ready_set *r, const struct demand *free_now)
{
    int best = -1;

    for (size_t i = 0; r->count && i < r->group_count; i++) {
        const struct ready_group *g = &r->groups[i];
        int t;

        if (g->least > free_now->memory_bytes || g->cpus > free_now->cpus ||
            g->gpus > free_now->gpus || (best >= 0 && g->first_rank > r->rank[best]))
            continue;
        t = first_of(r, g, free_now->memory_bytes);
        if (t >= 0 && (best < 0 || r->rank[t] < r->rank[best]))
            best = t;
    }
    return best;
}

int ready_set_first(const struct ready_set *r)
{
    const struct demand all = {INT64_MAX, INT64_MAX, INT64_MAX};

    return ready_set_first_fit(r, &all);
}
