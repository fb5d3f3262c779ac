/* sched_queue.h - the two queues of the scheduler: tasks by a number, and ready tasks by what fits.
 *
 * A task_heap holds tasks ordered by a key (a time, a rank), each at most once; it can be taken out from the middle.
 *
 * A ready_set answers "the first task, in an order fixed for ever, that needs no more than this".  Tasks with the same cpus and gpus form a
 * group, and there are few groups, because both are bounded by the machine; within a group the only question left is memory, so a tree over
 * the group's tasks in their order, each node with the smallest memory below it, gives the first that fits in log n steps.
 *
 * Life:     x_init -> calls -> x_release, which is fine on zeroed storage.
 * Owns:     its arrays.
 * Threads:  one.
 * Errors:   none.
 */
#ifndef WEIR_ORCHESTRATOR_SCHED_QUEUE_H
#define WEIR_ORCHESTRATOR_SCHED_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct task_heap {
    int n;
    int *at;      /* heap order -> task */
    int *pos;     /* task -> heap order + 1; 0: not in it */
    int64_t *key; /* of each task; ties by task number */
};
void task_heap_init(struct task_heap *h, size_t tasks);
void task_heap_release(struct task_heap *h);
void task_heap_put(struct task_heap *h, int task, int64_t key); /* in it already: moves it */
void task_heap_remove(struct task_heap *h, int task);           /* not in it: fine */
int task_heap_first(const struct task_heap *h);                 /* -1: empty */
bool task_heap_has(const struct task_heap *h, int task);
bool task_heap_check(const struct task_heap *h, size_t tasks);

struct demand {
    int64_t cpus, memory_bytes, gpus; /* none negative */
};
struct ready_group {
    int64_t cpus, gpus;
    size_t first, count; /* its tasks: by_slot[first ..] in their order */
    size_t leaves;       /* a power of two >= count */
    int64_t *tree;       /* 1: root; smallest memory below, INT64_MAX: nobody is ready there */
    int64_t least;       /* tree[1], and */
    int first_rank; /* of its first ready task, INT_MAX: none; so that most groups are passed over at a glance */
};
struct ready_set {
    struct ready_group *groups;
    size_t group_count;
    int *by_slot;      /* slot -> task; slots are grouped, then in the order of rank */
    int *group_of;     /* task -> group */
    size_t *slot_of;   /* task -> slot */
    const int *rank;   /* the caller's: task -> place in the order */
    int64_t *memory;   /* task -> memory_bytes */
    int64_t *tree_all; /* what the groups' trees are cut from */
    size_t n, count;   /* tasks; how many are ready now */
};
/* by_rank: all tasks in their order; rank its inverse, both borrowed (by_rank only during the call). */
void ready_set_init(struct ready_set *r, const struct demand *d, const int *by_rank,
                    const int *rank, size_t n);
void ready_set_release(struct ready_set *r);
void ready_set_put(struct ready_set *r, int task);
void ready_set_remove(struct ready_set *r, int task);
bool ready_set_has(const struct ready_set *r, int task);
int ready_set_first(const struct ready_set *r); /* -1: empty */
int ready_set_first_fit(const struct ready_set *r,
                        const struct demand *free_now); /* -1: none fits */

#endif
