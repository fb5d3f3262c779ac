/* Attempts on this machine: resident weir-exec processes (serve.h), one per slot, started when there is something for them to do.
 *
 * Requests go over a socket, because a write to one whose reader has died can be told not to raise SIGPIPE; answers come back over
 * a pipe.  A resident that ends takes its attempts along: those with a result are over, the rest is lost; the slot gets another one
 * when something is started there.
 *
 * An adopted attempt belongs to a resident of an earlier orchestrator: its lock says whether it is alive, looked at every ADOPT_NS, and
 * its supervisor's pid, valid as long as the lock is held, takes the signals, as soon as it is known. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "cluster/executor.h"
#include "cluster/serve.h"

#define ADOPT_NS 50000000LL
#define SLOTS_MAX 1024

extern char **environ;

struct resident {
    pid_t pid; /* 0: none */
    int in, out;
    struct buf answers; /* a partial line */
    size_t running;     /* attempts that it has been given and that have not exited */
    size_t uncommitted; /* that have, and whose results are to come */
    bool hurried;       /* it knows that nothing else comes soon */
};
struct job {
    struct job *next;
    uint64_t id;
    char *dir;
    bool exited;
    struct resident *by;       /* NULL: adopted */
    enum supervise_ask wanted; /* of an adopted one whose supervisor is not known yet */
};
struct queued_event {
    struct queued_event *next;
    struct executor_event e;
};
struct local {
    struct executor base;
    char *exec_path, *store;
    struct resident *residents;
    int slots;
    bool tell_exits;
    struct job *jobs;
    size_t adopted;
    int64_t looked_ns;          /* at adopted ones */
    char *parent, *real_parent; /* of the last folder that was started in */
    struct queued_event *first, **last;
};

/* ---- events ------------------------------------------------------------------------------------ */

static struct executor_event *post(struct local *l, enum executor_event_kind kind, uint64_t id)
{
    struct queued_event *q = mem_zero(1, sizeof(*q));

    q->e.kind = kind;
    q->e.id = id;
    *l->last = q;
    l->last = &q->next;
    return &q->e;
}

static struct job **find_dir(struct local *l, const char *dir)
{
    struct job **j = &l->jobs;

    while (*j && strcmp((*j)->dir, dir) != 0)
        j = &(*j)->next;
    return j;
}

static struct job *find_id(const struct local *l, uint64_t id)
{
    struct job *j = l->jobs;

    while (j && j->id != id)
        j = j->next;
    return j;
}

static void forget(struct local *l, struct job **at)
{
    struct job *j = *at;

    *at = j->next;
    if (!j->by)
        l->adopted--;
    else if (j->exited)
        j->by->uncommitted--;
    else
        j->by->running--;
    free(j->dir);
    free(j);
}

static void post_lost(struct local *l, struct job **at, const char *reason)
{
    struct executor_event *e = post(l, EXEC_LOST, (*at)->id);

    (void)snprintf(e->reason, sizeof(e->reason), "%s", reason);
    forget(l, at);
}

/* Its supervisor is gone, or not ours: the folder says what became of it.  *over = false: it is alive. */
static void look(struct local *l, struct job **at, const char *if_lost, bool *over)
{
    struct result_card card = {0};
    struct err err = ERR_INIT;
    enum attempt_life life = ATTEMPT_GONE;
    enum err_code rc = attempt_life((*at)->dir, &life, &err);
    int dir = -1;

    *over = true;
    if (!rc && life == ATTEMPT_ALIVE) {
        *over = false;
        return;
    }
    if (!rc && life == ATTEMPT_OVER) {
        rc = os_open_dir(AT_FDCWD, (*at)->dir, &dir, &err);
        if (!rc)
            rc = result_card_read(dir, &card, &err);
        os_close_quiet(&dir);
        if (!rc) {
            post(l, EXEC_ENDED, (*at)->id)->card = card;
            forget(l, at);
            return;
        }
    }
    post_lost(l, at, rc ? err.text : if_lost);
}

static void answer(struct local *l, const char *line, size_t n)
{
    struct result_card card = {0};
    struct err err = ERR_INIT;
    const char *event, *dir;
    json_t *v = NULL;
    struct job **at;

    if (json_parse(line, n, n, "answer of weir-exec", &v, &err) ||
        json_get_string(v, "event", "answer of weir-exec", &event, &err) ||
        json_get_string(v, "dir", "answer of weir-exec", &dir, &err) || !*(at = find_dir(l, dir))) {
        json_decref(v);
        return;
    }
    if (strcmp(event, "started") == 0) {
        post(l, EXEC_STARTED, (*at)->id)->pid = json_integer_value(json_object_get(v, "pid"));
    } else if (strcmp(event, "exited") == 0) {
        (*at)->by->running -= !(*at)->exited;
        (*at)->by->uncommitted += !(*at)->exited;
        (*at)->exited = true;
        post(l, EXEC_EXITED, (*at)->id);
    } else if (strcmp(event, "ended") == 0) {
        if (result_card_of(json_incref(json_object_get(v, "result")), &card, &err)) {
            post_lost(l, at, err.text);
        } else {
            struct executor_event *e = post(l, EXEC_ENDED, (*at)->id);

            e->card = card;
            e->spare = json_is_true(json_object_get(v, "spare"));
            forget(l, at);
        }
    } else if (strcmp(event, "lost") == 0) {
        const char *reason = json_string_value(json_object_get(v, "reason"));

        post_lost(l, at, reason ? reason : "weir-exec did not say why");
    }
    json_decref(v);
}

/* ---- residents --------------------------------------------------------------------------------- */

static void bury(struct local *l, struct resident *r)
{
    char reason[128];
    int status = 0;

    os_close_quiet(&r->in);
    os_close_quiet(&r->out);
    (void)kill(r->pid, SIGKILL); /* it has closed its answers: it is dead, or as good as */
    while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status))
        (void)snprintf(reason, sizeof(reason), "its supervisor was killed by signal %d",
                       WTERMSIG(status));
    else
        (void)snprintf(reason, sizeof(reason),
                       "its supervisor ended with status %d; see weir-exec.log beside the store",
                       WEXITSTATUS(status));
    buf_release(&r->answers);
    r->pid = 0;
    r->hurried = false;
    for (struct job **at = &l->jobs; *at;) {
        bool over = (*at)->by == r;

        if (over)
            look(l, at, reason, &over);
        if (!over)
            at = &(*at)->next;
    }
}

static enum err_code spawn(struct local *l, int in, int out, int log, pid_t *pid, struct err *err)
{
    char *const argv[] = {l->exec_path, (char *)(uintptr_t) "--serve", l->store, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, usual;
    int sys;

    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGINT);
    sigaddset(&usual, SIGTERM);
    sigaddset(&usual, SIGCHLD);
    CHECK(posix_spawn_file_actions_init(&files) == 0);
    CHECK(posix_spawnattr_init(&how) == 0);
    (void)posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                             POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigmask(&how, &none);
    (void)posix_spawnattr_setsigdefault(&how, &usual);
    sys = posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    if (!sys)
        sys = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    if (!sys)
        sys = posix_spawn_file_actions_adddup2(&files, log, STDERR_FILENO);
    if (!sys && !fault_hit(&sys))
        sys = posix_spawn(pid, l->exec_path, &files, &how, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    return sys ? err_sys(err, sys, "start %s", l->exec_path) : OK;
}

/* One line, whole or not at all: they are far shorter than a socket's buffer. */
static bool tell(const struct resident *r, const char *verb, const char *dir)
{
    char line[SERVE_LINE_MAX];
    const int n = snprintf(line, sizeof(line), "%s%s\n", verb, dir);

    return n > 0 && (size_t)n < sizeof(line) &&
           send(r->in, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n;
}

static enum err_code hire(struct local *l, struct resident *r, struct err *err)
{
    int requests[2] = {-1, -1}, answers[2] = {-1, -1}, log = -1, store = -1;
    enum err_code rc = OK;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, requests) || pipe2(answers, O_CLOEXEC))
        rc = err_sys(err, errno, "make pipes for %s", l->exec_path);
    if (!rc)
        rc = os_open_dir(AT_FDCWD, l->store, &store, err);
    if (!rc)
        rc = os_open(store, "weir-exec.log", O_WRONLY | O_CREAT | O_APPEND, 0644, &log, err);
    if (!rc)
        rc = spawn(l, requests[1], answers[1], log, &r->pid, err);
    if (!rc) {
        r->in = requests[0];
        r->out = answers[0];
        requests[0] = answers[0] = -1;
        (void)fcntl(r->in, F_SETFL, O_NONBLOCK);
        (void)fcntl(r->out, F_SETFL, O_NONBLOCK);
        buf_init(&r->answers, (size_t)2 * CARD_BYTES_MAX);
        if (l->tell_exits)
            (void)tell(r, "", "exits"); /* should this fail, so will the next one */
    } else {
        r->pid = 0;
    }
    os_close_quiet(&requests[0]);
    os_close_quiet(&requests[1]);
    os_close_quiet(&answers[0]);
    os_close_quiet(&answers[1]);
    os_close_quiet(&store);
    os_close_quiet(&log);
    return rc;
}

/* The one with the least to do; an idle one before a new one. */
static struct resident *pick(struct local *l)
{
    struct resident *best = NULL, *empty = NULL;

    for (int i = 0; i < l->slots; i++) {
        struct resident *r = &l->residents[i];

        if (r->pid == 0)
            empty = empty ? empty : r;
        else if (!best || r->running < best->running)
            best = r;
    }
    return best && (best->running == 0 || !empty) ? best : empty;
}

static void read_answers(struct local *l, struct resident *r)
{
    char bytes[1 << 14];
    ssize_t n = -1;

    while (r->pid && ((n = read(r->out, bytes, sizeof(bytes))) > 0 || (n < 0 && errno == EINTR))) {
        size_t from = 0;

        if (n < 0)
            continue;
        buf_add(&r->answers, bytes, (size_t)n);
        if (r->answers.failed) /* nothing that weir-exec would say */
            break;
        for (const char *nl; (nl = memchr(r->answers.p + from, '\n', r->answers.n - from));) {
            answer(l, r->answers.p + from, (size_t)(nl - r->answers.p) - from);
            from = (size_t)(nl - r->answers.p) + 1;
        }
        memmove(r->answers.p, r->answers.p + from, r->answers.n - from);
        r->answers.n -= from;
    }
    if (r->pid && (n == 0 || r->answers.failed))
        bury(l, r);
}

/* ---- the table --------------------------------------------------------------------------------- */

static struct job *add_job(struct local *l, uint64_t id, const char *dir, struct resident *by)
{
    struct job *j = mem_zero(1, sizeof(*j));

    j->id = id;
    j->dir = mem_strdup(dir);
    j->by = by;
    j->next = l->jobs;
    l->jobs = j;
    if (by)
        by->running++;
    else
        l->adopted++;
    return j;
}

/* Of the folder that holds it, asked for once. */
static bool real_parent(struct local *l, const char *task_dir, size_t n)
{
    if (l->parent && strlen(l->parent) == n && memcmp(l->parent, task_dir, n) == 0)
        return true;
    free(l->parent);
    free(l->real_parent);
    l->parent = mem_strdup(task_dir);
    l->parent[n] = '\0';
    l->real_parent = realpath(l->parent, NULL);
    if (l->real_parent)
        return true;
    free(l->parent);
    l->parent = NULL;
    return false;
}

/* Folders are known by their real path: that is what weir-exec says. */
static enum err_code real_dir(struct local *l, const char *task_dir, char out[PATH_MAX],
                              struct err *err)
{
    const char *name = strrchr(task_dir, '/');
    struct stat st;
    int n = -1;

    if (name > task_dir && name[1] && strcmp(name, "/.") != 0 && strcmp(name, "/..") != 0 &&
        lstat(task_dir, &st) == 0 && S_ISDIR(st.st_mode) &&
        real_parent(l, task_dir, (size_t)(name - task_dir)))
        n = snprintf(out, PATH_MAX, "%s%s", l->real_parent[1] ? l->real_parent : "", name);
    if ((n < 0 || n >= PATH_MAX) && !realpath(task_dir, out))
        return err_sys(err, errno, "task directory %s", task_dir);
    if (strchr(out, '\n') || strlen(out) + 8 > SERVE_LINE_MAX)
        return err_set(err, ERR_INPUT, "task directory %s has a name that cannot be used",
                       task_dir);
    return OK;
}

static enum err_code give(struct local *l, uint64_t id, const char *task_dir, const char *verb,
                          struct err *err)
{
    char dir[PATH_MAX];
    enum err_code rc = real_dir(l, task_dir, dir, err);

    CHECK(!find_id(l, id));
    for (int i = 0; !rc && i < 2; i++) { /* the second one is for a resident that has just died */
        struct resident *r = pick(l);

        if (r->pid == 0)
            rc = hire(l, r, err);
        if (rc)
            break;
        if (tell(r, verb, dir)) {
            (void)add_job(l, id, dir, r);
            r->hurried = false;
            return OK;
        }
        bury(l, r);
    }
    return rc ? rc : err_set(err, ERR_IO, "%s does not take requests", l->exec_path);
}

static enum err_code local_start(struct executor *e, uint64_t id, const char *task_dir,
                                 struct err *err)
{
    return give((struct local *)e, id, task_dir, "", err);
}

static enum err_code local_start_again(struct executor *e, uint64_t id, const char *task_dir,
                                       struct err *err)
{
    return give((struct local *)e, id, task_dir, "again ", err);
}

static enum err_code local_adopt(struct executor *e, uint64_t id, const char *task_dir,
                                 struct err *err)
{
    struct local *l = (struct local *)e;
    char dir[PATH_MAX];

    (void)err;
    CHECK(!find_id(l, id));
    (void)add_job(l, id, realpath(task_dir, dir) ? dir : task_dir, NULL);
    l->looked_ns = 0;
    return OK;
}

static void signal_adopted(struct job *j)
{
    const pid_t pid = j->wanted == ASK_NOTHING ? 0 : attempt_supervisor(j->dir);

    if (pid > 1 && kill(pid, j->wanted == ASK_KILL ? SIGQUIT : SIGTERM) == 0)
        j->wanted = ASK_NOTHING;
}

static void local_stop(struct executor *e, uint64_t id, bool kill_it)
{
    struct local *l = (struct local *)e;
    struct job *j = find_id(l, id);

    if (!j)
        return;
    if (j->by) {
        (void)tell(j->by, kill_it ? "kill " : "stop ", j->dir);
        return;
    }
    j->wanted = kill_it ? ASK_KILL : ASK_STOP;
    signal_adopted(j);
}

static void look_at_adopted(struct local *l)
{
    const int64_t now = os_monotonic_ns();

    if (l->adopted == 0 || now - l->looked_ns < ADOPT_NS)
        return;
    l->looked_ns = now;
    for (struct job **at = &l->jobs; *at;) {
        bool over = (*at)->by == NULL;

        if (over)
            look(l, at, "its supervisor is gone and left no result", &over);
        if (!over) {
            signal_adopted(*at);
            at = &(*at)->next;
        }
    }
}

/* The caller has nothing more to start for now: results need not wait for company. */
static void hurry(struct local *l)
{
    for (int i = 0; l->tell_exits && i < l->slots; i++) {
        struct resident *r = &l->residents[i];

        if (r->pid && r->running == 0 && r->uncommitted > 0 && !r->hurried)
            r->hurried = tell(r, "", "commit");
    }
}

static int wait_ms(const struct local *l, int64_t until_ns)
{
    const int64_t now = os_monotonic_ns();
    int64_t wait = until_ns < 0 ? INT64_MAX : until_ns - now;

    if (l->adopted && l->looked_ns + ADOPT_NS - now < wait)
        wait = l->looked_ns + ADOPT_NS - now;
    if (wait == INT64_MAX)
        return -1;
    return wait <= 0 ? 0 : (int)(wait / 1000000 + 1 > INT_MAX ? INT_MAX : wait / 1000000 + 1);
}

static enum err_code local_poll(struct executor *e, int64_t timeout_ms, int wake,
                                struct executor_event *out, bool *got, struct err *err)
{
    struct local *l = (struct local *)e;
    const int64_t until = timeout_ms < 0 ? -1 : os_monotonic_ns() + timeout_ms * 1000000;
    struct pollfd *fds = mem_zero((size_t)l->slots + 1, sizeof(*fds));
    bool woken = false;
    enum err_code rc = OK;

    for (;;) {
        look_at_adopted(l);
        if (l->first || woken)
            break;
        hurry(l);
        for (int i = 0; i < l->slots; i++)
            fds[i] = (struct pollfd){l->residents[i].pid ? l->residents[i].out : -1, POLLIN, 0};
        fds[l->slots] = (struct pollfd){wake, POLLIN, 0};
        if (poll(fds, (nfds_t)l->slots + 1, wait_ms(l, until)) < 0) {
            if (errno != EINTR)
                rc = err_sys(err, errno, "wait for weir-exec");
            break; /* whoever has signal handlers wants to look at what they noted */
        }
        for (int i = 0; i < l->slots; i++)
            if (fds[i].revents)
                read_answers(l, &l->residents[i]);
        woken = fds[l->slots].revents != 0 || (until >= 0 && os_monotonic_ns() >= until);
    }
    free(fds);
    *got = !rc && l->first;
    if (*got) {
        struct queued_event *q = l->first;

        *out = q->e;
        l->first = q->next;
        if (!l->first)
            l->last = &l->first;
        free(q);
    }
    return rc;
}

/* Residents see the end of their requests, finish what they have begun and go. */
static void local_close(struct executor *e)
{
    struct local *l = (struct local *)e;

    for (int i = 0; i < l->slots; i++) {
        struct resident *r = &l->residents[i];

        if (!r->pid)
            continue;
        os_close_quiet(&r->in);
        os_close_quiet(&r->out);
        buf_release(&r->answers);
        (void)waitpid(r->pid, NULL, WNOHANG);
    }
    while (l->jobs)
        forget(l, &l->jobs);
    while (l->first) {
        struct queued_event *q = l->first;

        l->first = q->next;
        if (q->e.kind == EXEC_ENDED)
            result_card_release(&q->e.card);
        free(q);
    }
    free(l->residents);
    free(l->exec_path);
    free(l->store);
    free(l->parent);
    free(l->real_parent);
    free(l);
}

enum err_code executor_local(const struct executor_local_options *o, struct executor **out,
                             struct err *err)
{
    static const struct executor_ops ops = {.name = "local",
                                            .start = local_start,
                                            .start_again = local_start_again,
                                            .adopt = local_adopt,
                                            .stop = local_stop,
                                            .poll = local_poll,
                                            .close = local_close};
    struct local *l;

    *out = NULL;
    if (o->slots < 1 || o->slots > SLOTS_MAX)
        return err_set(err, ERR_USAGE, "%d attempts at once: it must be 1 to %d", o->slots,
                       SLOTS_MAX);
    if (o->exec_path[0] != '/')
        return err_set(err, ERR_CONFIG, "%s, which starts every task, has to be an absolute path",
                       o->exec_path);
    if (access(o->exec_path, X_OK) != 0)
        return err_set(err, ERR_MISSING,
                       "%s is not there, and it starts every task; 'make install' puts it beside "
                       "the program",
                       o->exec_path);
    l = mem_zero(1, sizeof(*l));
    l->base.ops = &ops;
    l->exec_path = mem_strdup(o->exec_path);
    l->store = mem_strdup(o->store);
    l->slots = o->slots;
    l->tell_exits = o->tell_exits;
    l->residents = mem_zero((size_t)o->slots, sizeof(*l->residents));
    for (int i = 0; i < o->slots; i++)
        l->residents[i].in = l->residents[i].out = -1;
    l->last = &l->first;
    *out = &l->base;
    return OK;
}
