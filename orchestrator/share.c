/* share.c - processes, claims, and parts of the machine, in a table that does not outlive the boot. */
#include "orchestrator/share.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/ledger_internal.h"

#define SHARE_FORMAT 1
#define PROCESS_BYTES 56
#define CLAIM_HEAD 16
#define TASK_MAX 255 /* as much of a task's name as a claim keeps */
#define GPUS_MAX 64
#define RELEASED_MAX 256 /* claims whose end waits to be written */

enum share_table { T_PROCESS, T_CLAIM, T_SHARE_META };
static const char *const tables[] = {"process", "claim", "meta", NULL};

struct share {
    struct ledger *l;
    int64_t id, run;
    struct share_limits limits;
    struct share_take given; /* back, and not on record yet */
    struct digest *released; /* nor are these claims' ends */
    size_t released_count, released_room;
    int64_t alone_ns; /* when there was nobody else; 0: there was */
};
struct process {
    int64_t id, pid, start, run, cpus, memory_bytes, gpus;
    uint64_t mask;
};

/* ---- processes ---- */

/* The text of /proc/PID/stat from its third field on, or NULL; out holds it. */
static char *read_stat(int64_t pid, struct buf *out)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *room = buf_room(out, 2048);
    const ssize_t n = room ? read(fd, room, 2048) : 0;
    (void)close(fd);
    if (n <= 0)
        return NULL;
    room[n] = '\0';
    /* The second field is the program's name in brackets and may hold anything. */
    char *at = memrchr(room, ')', (size_t)n);
    return at && at + 2 < room + n ? at + 2 : NULL;
}

/* Is there such a process?  *start: field 22, or 0 where nothing can be learned of it (no /proc, no right to look, no descriptor
 * left): then it counts as alive, for to take a live one for dead would be to do its work twice.  Not through the fault seam
 * for the same reason. */
static bool look_at(int64_t pid, int64_t *start)
{
    struct err ignored = ERR_INIT;
    struct buf text;
    char *at, *end;
    bool alive;

    *start = 0;
    buf_init(&text, 4096);
    at = read_stat(pid, &text);
    /* A zombie has ended; it only waits for its parent to notice. */
    alive = at ? *at != 'Z' && *at != 'X' : kill((pid_t)pid, 0) == 0 || errno == EPERM;
    for (int field = 3; field < 22 && at; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    end = at ? strchr(at, ' ') : NULL;
    if (end && str_to_i64((struct str){at, (size_t)(end - at)}, 0, INT64_MAX, start, &ignored))
        *start = 0;
    buf_release(&text);
    return alive;
}

static bool same_process(int64_t pid, int64_t start)
{
    int64_t now;

    return pid > 0 && look_at(pid, &now) && (now == start || now == 0 || start == 0);
}

static void boot_id(char out[37])
{
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, out, 36) : 0;

    if (fd >= 0)
        (void)close(fd);
    out[n == 36 ? 36 : 0] = '\0';
    for (char *p = out; *p; p++)
        if (!strchr("0123456789abcdef-", *p)) /* it becomes part of a path */
            out[0] = '\0';
    if (!out[0])
        (void)snprintf(out, 37, "unknown");
}

void process_self(struct process_id *out)
{
    *out = (struct process_id){.pid = getpid()};
    boot_id(out->boot);
    (void)look_at(out->pid, &out->start);
}

bool process_alive(const struct process_id *p)
{
    char boot[37];

    boot_id(boot);
    return strcmp(boot, p->boot) == 0 && same_process(p->pid, p->start);
}

/* ---- rows ---- */

static void process_encode(const struct process *p, uint8_t out[PROCESS_BYTES])
{
    const int64_t numbers[] = {p->pid,          p->start, p->run,          p->cpus,
                               p->memory_bytes, p->gpus,  (int64_t)p->mask};

    for (size_t i = 0; i < 7; i++)
        env_i64(out + 8 * i, numbers[i]);
}

static enum err_code process_decode(struct str key, struct str value, struct process *p,
                                    struct err *err)
{
    if (key.n != 8 || value.n != PROCESS_BYTES)
        return err_set(err, ERR_DAMAGED, "share: a row of \"process\" makes no sense");
    *p = (struct process){.id = env_key_number(key.p),
                          .pid = env_i64_of(value.p),
                          .start = env_i64_of(value.p + 8),
                          .run = env_i64_of(value.p + 16),
                          .cpus = env_i64_of(value.p + 24),
                          .memory_bytes = env_i64_of(value.p + 32),
                          .gpus = env_i64_of(value.p + 40),
                          .mask = (uint64_t)env_i64_of(value.p + 48)};
    return OK;
}

static enum err_code process_put(struct txn *t, const struct process *p, struct err *err)
{
    uint8_t key[8], value[PROCESS_BYTES];

    env_key(key, p->id);
    process_encode(p, value);
    return env_put(t, T_PROCESS, env_bytes(key, 8), env_bytes(value, sizeof(value)), err);
}

static enum err_code process_get(struct txn *t, int64_t id, struct process *p, bool *found,
                                 struct err *err)
{
    struct str value;
    uint8_t key[8];
    enum err_code rc;

    env_key(key, id);
    rc = env_get(t, T_PROCESS, env_bytes(key, 8), &value, found, err);
    return rc || !*found ? rc : process_decode(env_bytes(key, 8), value, p, err);
}

/* The process and all its claims. */
static enum err_code drop_process(struct txn *t, int64_t id, struct err *err)
{
    uint8_t key[DIGEST_BYTES] = {0}, row[8];
    struct str k, v, from = env_bytes(key, sizeof(key));
    enum env_seek how = ENV_FROM;
    bool found = true;
    enum err_code rc = OK;

    while (!rc) {
        rc = env_seek(t, T_CLAIM, from, how, &k, &v, &found, err);
        if (rc || !found)
            break;
        how = ENV_AFTER;
        if (k.n != DIGEST_BYTES || v.n < CLAIM_HEAD)
            return err_set(err, ERR_DAMAGED, "share: a row of \"claim\" makes no sense");
        memcpy(key, k.p, sizeof(key));
        if (env_i64_of(v.p) == id)
            rc = env_del(t, T_CLAIM, from, err);
    }
    env_key(row, id);
    return rc ? rc : env_del(t, T_PROCESS, env_bytes(row, 8), err);
}

/* The next process after *id; those that are gone are dropped on the way (in a write transaction).  self: that one lives. */
static enum err_code next_process(struct txn *t, int64_t *id, int64_t self, bool drop,
                                  struct process *p, bool *found, struct err *err)
{
    struct str k, v;
    uint8_t key[8];
    enum err_code rc = OK;

    for (;;) {
        env_key(key, *id);
        rc = env_seek(t, T_PROCESS, env_bytes(key, 8), ENV_AFTER, &k, &v, found, err);
        if (rc || !*found)
            return rc;
        rc = process_decode(k, v, p, err);
        if (rc)
            return rc;
        *id = p->id;
        if (p->id == self || same_process(p->pid, p->start))
            return OK;
        if (drop)
            rc = drop_process(t, p->id, err);
        if (rc)
            return rc;
    }
}

/* ---- the environment ---- */

/* Folders of earlier boots: no process of theirs is left. */
static enum err_code remove_others(const char *dir, const char *keep, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    int fd = -1;
    enum err_code rc = os_open_dir(AT_FDCWD, dir, &fd, err);

    if (!rc)
        rc = os_list(fd, &entries, &count, err);
    for (size_t i = 0; i < count && !rc; i++)
        if (strncmp(entries[i].name, "share-", 6) == 0 && strcmp(entries[i].name, keep) != 0)
            rc = os_remove_tree(fd, entries[i].name, err);
    free(entries);
    os_close_quiet(&fd);
    return rc;
}

static enum err_code open_share(struct ledger *l, struct err *err)
{
    const struct env_options o = {.what = "share",
                                  .tables = tables,
                                  .write = l->mode == LEDGER_WRITE,
                                  .sync = false,
                                  .format = SHARE_FORMAT};
    char boot[37], name[64];
    struct buf path;
    enum err_code rc;

    if (l->share)
        return OK;
    boot_id(boot);
    (void)snprintf(name, sizeof(name), "share-%s", boot);
    buf_init(&path, 65536);
    buf_printf(&path, "%s/%s", l->path, name);
    rc = buf_check(&path, "path", err);
    if (!rc && o.write)
        rc = remove_others(l->path, name, err);
    if (!rc)
        rc = env_open(path.p, &o, &l->share, err);
    buf_release(&path);
    return rc;
}

/* ---- join and leave ---- */

struct joining {
    struct process p;
};

static enum err_code join_in(struct txn *t, void *arg, struct err *err)
{
    struct joining *j = arg;
    struct process other;
    struct str value;
    uint8_t next[8];
    int64_t id = 0;
    bool found = true;
    enum err_code rc = OK;

    while (!rc && found) {
        rc = next_process(t, &id, 0, true, &other, &found, err);
        if (!rc && found && other.run == j->p.run)
            return err_set(err, ERR_AGAIN, "process %lld runs it already", (long long)other.pid);
    }
    if (!rc)
        rc = env_get(t, T_SHARE_META, STR("next"), &value, &found, err);
    if (rc)
        return rc;
    j->p.id = found && value.n == 8 ? env_i64_of(value.p) : 1;
    env_i64(next, j->p.id + 1);
    rc = env_put(t, T_SHARE_META, STR("next"), env_bytes(next, sizeof(next)), err);
    return rc ? rc : process_put(t, &j->p, err);
}

enum err_code share_join(struct ledger *l, int64_t run, const struct share_limits *limits,
                         struct share **out, struct err *err)
{
    struct process_id self;
    struct joining j;
    enum err_code rc;

    CHECK(l->mode == LEDGER_WRITE);
    *out = NULL;
    process_self(&self);
    j.p = (struct process){.pid = self.pid, .start = self.start, .run = run};
    rc = open_share(l, err);
    if (!rc)
        rc = env_write(l->share, join_in, &j, err);
    if (rc)
        return err_prefix(err, "run-%lld: join the other runs of this machine", (long long)run);
    *out = mem_zero(1, sizeof(**out));
    **out = (struct share){.l = l, .id = j.p.id, .run = run, .limits = *limits};
    return OK;
}

static enum err_code leave_in(struct txn *t, void *arg, struct err *err)
{
    const struct share *s = arg;

    return drop_process(t, s->id, err);
}

void share_leave(struct share *s)
{
    struct err ignored = ERR_INIT;

    if (!s)
        return;
    /* What cannot be written now is dropped by the next one who meets it: this process ends. */
    (void)!env_write(s->l->share, leave_in, s, &ignored);
    free(s->released);
    free(s);
}

/* ---- claims ---- */

struct claiming {
    struct share *s;
    const struct digest *key;
    const char *task;
    bool mine;
    struct share_owner owner;
};

/* Who has it: *id = 0 when nobody who is alive. */
static enum err_code claim_owner(struct txn *t, const struct digest *key, struct process *p,
                                 struct share_owner *owner, struct err *err)
{
    struct str value;
    bool found = false;
    enum err_code rc = env_get(t, T_CLAIM, env_bytes(key->b, DIGEST_BYTES), &value, &found, err);

    p->id = 0;
    if (rc || !found)
        return rc;
    if (value.n < CLAIM_HEAD || value.n > CLAIM_HEAD + TASK_MAX)
        return err_set(err, ERR_DAMAGED, "share: a row of \"claim\" makes no sense");
    rc = process_get(t, env_i64_of(value.p), p, &found, err);
    if (rc || !found) {
        p->id = 0;
        return rc;
    }
    *owner = (struct share_owner){.run = p->run, .pid = p->pid};
    memcpy(owner->task, value.p + CLAIM_HEAD, value.n - CLAIM_HEAD);
    return OK;
}

static enum err_code release_one(struct txn *t, const struct share *s, const struct digest *key,
                                 struct err *err)
{
    struct share_owner owner;
    struct process p;
    enum err_code rc = claim_owner(t, key, &p, &owner, err);

    return rc || p.id != s->id ? rc : env_del(t, T_CLAIM, env_bytes(key->b, DIGEST_BYTES), err);
}

static enum err_code find_self(struct txn *t, const struct share *s, struct process *p,
                               struct err *err)
{
    bool found = false;
    const enum err_code rc = process_get(t, s->id, p, &found, err);

    if (!rc && !found)
        return err_set(err, ERR_CHANGED, "run-%lld: its place among the runs is gone",
                       (long long)s->run);
    return rc;
}

static int64_t less(int64_t have, int64_t give)
{
    return have > give ? have - give : 0;
}

/* What was only noted so far.  A transaction may run twice: it is forgotten when one has succeeded. */
static enum err_code settle_in(struct txn *t, const struct share *s, struct err *err)
{
    const struct share_take *g = &s->given;
    struct process p;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < s->released_count; i++)
        rc = release_one(t, s, &s->released[i], err);
    if (rc || (g->cpus == 0 && g->memory_bytes == 0 && g->gpu_mask == 0))
        return rc;
    rc = find_self(t, s, &p, err);
    if (rc)
        return rc;
    p.cpus = less(p.cpus, g->cpus);
    p.memory_bytes = less(p.memory_bytes, g->memory_bytes);
    p.mask &= ~g->gpu_mask;
    p.gpus = __builtin_popcountll(p.mask);
    return process_put(t, &p, err);
}

static enum err_code settled(struct share *s, enum err_code rc)
{
    if (!rc) {
        s->given = (struct share_take){0};
        s->released_count = 0;
    }
    return rc;
}

static enum err_code settle_alone_in(struct txn *t, void *arg, struct err *err)
{
    return settle_in(t, arg, err);
}

bool share_unsettled(const struct share *s)
{
    const struct share_take *g = &s->given;

    return s->released_count > 0 || g->cpus > 0 || g->memory_bytes > 0 || g->gpu_mask;
}

enum err_code share_settle(struct share *s, struct err *err)
{
    enum err_code rc = OK;

    if (share_unsettled(s))
        rc = settled(s, env_write(s->l->share, settle_alone_in, s, err));
    return rc ? err_prefix(err, "give back a part of the machine") : OK;
}

static enum err_code claim_in(struct txn *t, void *arg, struct err *err)
{
    struct claiming *c = arg;
    uint8_t value[CLAIM_HEAD + TASK_MAX];
    const size_t task_n = strnlen(c->task, TASK_MAX);
    struct process p;
    enum err_code rc = settle_in(t, c->s, err);

    if (!rc)
        rc = claim_owner(t, c->key, &p, &c->owner, err);

    if (rc)
        return rc;
    c->mine = p.id == c->s->id;
    if (c->mine)
        return OK;
    if (p.id && same_process(p.pid, p.start))
        return OK;
    if (p.id)
        rc = drop_process(t, p.id, err);
    if (rc)
        return rc;
    env_i64(value, c->s->id);
    env_i64(value + 8, os_now_ns());
    memcpy(value + CLAIM_HEAD, c->task, task_n);
    c->mine = true;
    return env_put(t, T_CLAIM, env_bytes(c->key->b, DIGEST_BYTES),
                   env_bytes(value, CLAIM_HEAD + task_n), err);
}

enum err_code share_claim(struct share *s, const struct digest *key, const char *task, bool *mine,
                          struct share_owner *owner, struct err *err)
{
    struct claiming c = {.s = s, .key = key, .task = task};
    enum err_code rc = settled(s, env_write(s->l->share, claim_in, &c, err));

    *mine = !rc && c.mine;
    *owner = c.owner;
    return rc ? err_prefix(err, "claim %s", task) : OK;
}

enum err_code share_release(struct share *s, const struct digest *key, struct err *err)
{
    if (s->released_count == s->released_room) {
        s->released_room = s->released_room ? 2 * s->released_room : 64;
        s->released = mem_grow(s->released, s->released_room, sizeof(*s->released));
    }
    s->released[s->released_count++] = *key;
    return s->released_count < RELEASED_MAX ? OK : share_settle(s, err);
}

/* ---- parts of the machine ---- */

struct taking {
    struct share *s;
    const struct share_take *asked;
    struct share_take want; /* out */
    struct process mine;
    int64_t others;
    bool got;
};

static enum err_code sum_others(struct txn *t, const struct share *s, struct process *sum,
                                struct err *err)
{
    struct process p;
    int64_t id = 0;
    bool found = true;
    enum err_code rc = OK;

    *sum = (struct process){0};
    while (!rc) {
        rc = next_process(t, &id, s->id, true, &p, &found, err);
        if (rc || !found)
            break;
        if (p.id == s->id)
            continue;
        sum->id++;
        sum->cpus += p.cpus;
        sum->memory_bytes += p.memory_bytes;
        sum->gpus += p.gpus;
        sum->mask |= p.mask;
    }
    return rc;
}

static bool fits(int64_t others, int64_t mine, int64_t want, int64_t limit)
{
    return want == 0 ||
           (others <= limit && mine <= limit - others && want <= limit - others - mine);
}

/* The lowest `want` devices that nobody has; fewer when there are fewer. */
static uint64_t pick_gpus(uint64_t taken, int64_t want, int64_t limit)
{
    uint64_t mask = 0;

    for (int64_t i = 0; i < limit && i < GPUS_MAX && want > 0; i++) {
        if (taken >> i & 1)
            continue;
        mask |= (uint64_t)1 << i;
        want--;
    }
    return mask;
}

static enum err_code take_in(struct txn *t, void *arg, struct err *err)
{
    struct taking *k = arg;
    const struct share_limits *limits = &k->s->limits;
    const int64_t gpus = limits->gpus < GPUS_MAX ? limits->gpus : GPUS_MAX;
    struct share_take *w = &k->want;
    struct process o;
    enum err_code rc = settle_in(t, k->s, err);

    if (!rc)
        rc = sum_others(t, k->s, &o, err);
    *w = *k->asked;
    if (!rc)
        rc = find_self(t, k->s, &k->mine, err);
    if (rc)
        return rc;
    /* This process minds its own limits; here it only must not take what others have. */
    k->others = o.id;
    const bool alone = o.cpus == 0 && o.memory_bytes == 0 && o.gpus == 0;
    k->got = alone ||
             (fits(o.cpus, k->mine.cpus, w->cpus, limits->cpus) &&
              fits(o.memory_bytes, k->mine.memory_bytes, w->memory_bytes, limits->memory_bytes) &&
              fits(o.gpus, k->mine.gpus, w->gpus, gpus));
    w->gpu_mask = pick_gpus(o.mask | k->mine.mask, w->gpus, gpus);
    /* A device is never given twice, except that who asks for more than there are gets all. */
    if (__builtin_popcountll(w->gpu_mask) < w->gpus && (w->gpus <= gpus || k->mine.gpus > 0))
        k->got = false;
    if (!k->got)
        return OK;
    w->gpus = __builtin_popcountll(w->gpu_mask);
    k->mine.cpus += w->cpus;
    k->mine.memory_bytes += w->memory_bytes;
    k->mine.gpus += w->gpus;
    k->mine.mask |= w->gpu_mask;
    return process_put(t, &k->mine, err);
}

static bool is_alone(const struct share *s)
{
    return s->alone_ns && os_monotonic_ns() - s->alone_ns < SHARE_ALONE_NS;
}

/* What an attempt gave back is taken by the next one, and nothing has to be written. */
static bool take_given(struct share *s, struct share_take *want)
{
    struct share_take *g = &s->given;

    if (!is_alone(s) || want->gpus > 0 || want->cpus > g->cpus ||
        want->memory_bytes > g->memory_bytes)
        return false;
    g->cpus -= want->cpus;
    g->memory_bytes -= want->memory_bytes;
    want->gpu_mask = 0;
    return true;
}

enum err_code share_take(struct share *s, struct share_take *take, bool *got, struct err *err)
{
    struct taking k = {.s = s, .asked = take};
    enum err_code rc;

    CHECK(take->cpus >= 0);
    CHECK(take->memory_bytes >= 0);
    CHECK(take->gpus >= 0);
    *got = take_given(s, take);
    if (*got)
        return OK;
    rc = settled(s, env_write(s->l->share, take_in, &k, err));
    s->alone_ns = !rc && k.others == 0 ? os_monotonic_ns() : 0;
    *got = !rc && k.got;
    if (*got)
        *take = k.want;
    else
        take->gpu_mask = 0;
    return rc ? err_prefix(err, "take a part of the machine") : OK;
}

enum err_code share_give(struct share *s, const struct share_take *take, struct err *err)
{
    s->given.cpus += take->cpus;
    s->given.memory_bytes += take->memory_bytes;
    s->given.gpu_mask |= take->gpu_mask;
    return is_alone(s) ? OK : share_settle(s, err);
}

/* ---- who runs a run ---- */

enum err_code share_runner(struct ledger *l, int64_t run, struct process_id *out, bool *alive,
                           struct err *err)
{
    struct process p;
    struct txn t;
    int64_t id = 0;
    bool found = true;
    enum err_code rc = open_share(l, err);

    *alive = false;
    if (rc == ERR_NOT_FOUND) { /* nobody has joined since the machine was started */
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc)
        rc = env_read(l->share, &t, err);
    if (rc)
        return rc;
    while (!rc && !*alive) {
        rc = next_process(&t, &id, 0, false, &p, &found, err);
        if (rc || !found)
            break;
        *alive = p.run == run;
    }
    env_done(&t);
    if (rc || !*alive)
        return rc;
    *out = (struct process_id){.pid = p.pid, .start = p.start};
    boot_id(out->boot);
    return OK;
}
