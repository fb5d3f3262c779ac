/* Folders under tasks/: attempts that nobody listens to any more, and what is left of others.
 *
 * A killed run leaves its supervisors at work, and what they make counts.  So before an action is begun here, an attempt at it that is
 * alive without its run is waited for; its result, if it comes to one, is a hit.  What such attempts use of the machine is counted by the
 * run that met them first: it claims the folder. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/os.h"
#include "orchestrator/run_internal.h"

#define YOUNG_S 3600

struct run_orphan {
    char *dir;
    struct digest key;
    struct digest folder;   /* the claim on it */
    struct share_take take; /* what it uses, if we are the ones to count it */
    bool mine, taken;
};

/* ---- whose folder ------------------------------------------------------------------------------ */

/* The run in the folder's name, tasks/run-N.TASK.ATTEMPT; 0: it has none. */
static int64_t run_of(const char *dir)
{
    struct err ignored = ERR_INIT;
    const char *dot = strchr(dir, '.');
    int64_t number;

    if (!dot || strncmp(dir, "run-", 4) != 0 ||
        str_to_i64((struct str){dir + 4, (size_t)(dot - dir - 4)}, 1, INT64_MAX, &number, &ignored))
        return 0;
    return number;
}

/* Is there a process that runs this run, or may there be one? */
static bool is_run(struct run *r, int64_t number)
{
    struct err ignored = ERR_INIT;
    struct process_id runner;
    bool alive = false;

    return share_runner(r->ledger, number, &runner, &alive, &ignored) || alive;
}

/* Of this run: an attempt that was not adopted, since its action was another one then, or nothing durable tells of its start.  The folder of
 * the next attempt is left to who starts that: it adopts what is there. */
static bool is_own_orphan(const struct run *r, const char *name)
{
    int task, attempt;
    const struct run_slot *s;

    if (sscanf(name, "run-%*d.%d.%d", &task, &attempt) != 2 || task < 0 ||
        (size_t)task >= r->p->task_count)
        return false;
    s = &r->slots[task];
    return attempt != s->attempt + 1 && !(attempt == s->attempt && s->live);
}

typedef void (*folder_fn)(struct run *r, int fd, const char *name, const char *path);

static void each_folder(struct run *r, folder_fn fn)
{
    struct err ignored = ERR_INIT;
    struct os_entry *entries = NULL;
    struct buf path = {0};
    size_t n = 0;
    int fd = -1;

    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/tasks", r->st->root);
    if (os_open_dir(AT_FDCWD, path.p, &fd, &ignored) == OK &&
        os_list(fd, &entries, &n, &ignored) == OK)
        for (size_t i = 0; i < n; i++) {
            buf_clear(&path);
            buf_printf(&path, "%s/tasks/%s", r->st->root, entries[i].name);
            if (!path.failed)
                fn(r, fd, entries[i].name, path.p);
        }
    free(entries);
    buf_release(&path);
    os_close_quiet(&fd);
}

/* ---- orphans ----------------------------------------------------------------------------------- */

static void count_orphan(struct run *r, struct run_orphan *o, const struct attempt_card *card)
{
    struct err ignored = ERR_INIT;
    struct share_owner owner;
    bool got = false;

    sha256_of(o->dir, strlen(o->dir), &o->folder);
    if (share_claim(r->share, &o->folder, card->task, &o->mine, &owner, &ignored) || !o->mine)
        return;
    o->take = (struct share_take){
        .cpus = card->cpus, .memory_bytes = card->memory_bytes, .gpus = card->gpus};
    o->taken = share_take(r->share, &o->take, &got, &ignored) == OK && got;
}

static void note_orphan(struct run *r, int fd, const char *name, const char *path)
{
    struct attempt_card card = {0};
    struct err ignored = ERR_INIT;
    const int64_t number = run_of(name);
    enum attempt_life life;
    int dir = -1;

    if (number == 0 || (number == r->number && !is_own_orphan(r, name)) ||
        attempt_life(path, &life, &ignored) || life != ATTEMPT_ALIVE ||
        (number != r->number && is_run(r, number)))
        return;
    if (os_open_dir(fd, name, &dir, &ignored) == OK &&
        attempt_card_read(dir, &card, &ignored) == OK) {
        struct run_orphan *o;

        r->orphans = mem_grow(r->orphans, r->orphan_count + 1, sizeof(*r->orphans));
        o = &r->orphans[r->orphan_count++];
        *o = (struct run_orphan){.dir = mem_strdup(path), .key = card.key};
        count_orphan(r, o, &card);
    }
    attempt_card_release(&card);
    os_close_quiet(&dir);
}

/* Claims that cannot be given back now go with the process. */
static void release(struct run *r, struct run_orphan *o)
{
    struct err ignored = ERR_INIT;

    if (o->taken)
        (void)!share_give(r->share, &o->take, &ignored);
    if (o->mine)
        (void)!share_release(r->share, &o->folder, &ignored);
    free(o->dir);
}

void run_free_orphans(struct run *r)
{
    for (size_t i = 0; i < r->orphan_count; i++)
        release(r, &r->orphans[i]);
    free(r->orphans);
    r->orphans = NULL;
    r->orphan_count = 0;
}

void run_find_orphans(struct run *r)
{
    run_free_orphans(r);
    each_folder(r, note_orphan);
}

static void forget_dead(struct run *r)
{
    for (size_t i = 0; i < r->orphan_count;) {
        struct err ignored = ERR_INIT;
        enum attempt_life life;

        if (attempt_life(r->orphans[i].dir, &life, &ignored) == OK && life == ATTEMPT_ALIVE) {
            i++;
            continue;
        }
        release(r, &r->orphans[i]);
        r->orphans[i] = r->orphans[--r->orphan_count];
    }
}

bool run_orphan_alive(struct run *r, const struct digest *key)
{
    forget_dead(r);
    for (size_t i = 0; i < r->orphan_count; i++)
        if (digest_eq(&r->orphans[i].key, key))
            return true;
    return false;
}

bool run_orphans_leave(struct run *r, const struct share_take *want)
{
    int64_t cpus = want->cpus, memory = want->memory_bytes, gpus = want->gpus;

    if (r->orphan_count == 0)
        return true;
    forget_dead(r);
    if (r->orphan_count == 0)
        return true;
    for (size_t i = 0; i < r->orphan_count; i++) {
        cpus += r->orphans[i].take.cpus;
        memory += r->orphans[i].take.memory_bytes;
        gpus += r->orphans[i].take.gpus;
    }
    for (size_t i = 0; i < r->live_count; i++) {
        cpus += r->live[i]->taken ? r->live[i]->take.cpus : 0;
        memory += r->live[i]->taken ? r->live[i]->take.memory_bytes : 0;
        gpus += r->live[i]->taken ? r->live[i]->take.gpus : 0;
    }
    return cpus <= r->limits.cpus && memory <= r->limits.memory_bytes &&
           (gpus <= r->limits.gpus || want->gpus == 0);
}

/* ---- leftovers --------------------------------------------------------------------------------- */

/* What weir reproduce makes has no run's number: it may be at work in a folder that it has not locked yet. */
static bool is_young(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && os_now_ns() / 1000000000 - st.st_mtime < YOUNG_S;
}

static void sweep_folder(struct run *r, int fd, const char *name, const char *path)
{
    struct err err = ERR_INIT;
    const int64_t number = run_of(name);
    enum attempt_life life;

    if (number == 0 ? is_young(path) : number != r->number && is_run(r, number))
        return;
    if (attempt_life(path, &life, &err) || life == ATTEMPT_ALIVE)
        return;
    if (os_remove_tree(fd, name, &err))
        log_line(LOG_WARN, "%s", err.text);
}

void run_sweep(struct run *r)
{
    each_folder(r, sweep_folder);
}
