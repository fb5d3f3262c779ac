#include "cluster/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/supervise_start.h"

#define STRAY_ROUNDS_MAX 100 /* kill, reap, look again: a fork bomb may need a few rounds */
#define SECOND_NS 1000000000LL

struct watch {
    const struct supervise_options *o;
    struct supervise_result *result;
    struct child child;
    int signals;
    bool own_signals;
    struct buf line; /* a partial event line */
    bool line_too_long, exited, deaf;
    bool childless; /* nobody is below us any more */
    int status;
    int64_t term_ns; /* when SIGTERM was sent; 0: not yet */
    int64_t start_ns;
};

/* ---- events ------------------------------------------------------------------------------------ */

static enum err_code event_line(struct watch *w, struct err *err)
{
    const struct supervise_hooks *h = w->o->hooks;
    bool taken = false;
    enum err_code rc = OK;

    CHECK(w->line.n > 0 && w->line.p[w->line.n - 1] == '\n');
    w->line.p[w->line.n - 1] = '\0';
    if (h && h->event)
        rc = h->event(h->ctx, w->line.p, w->line.n - 1, &taken, err);
    w->line.p[w->line.n - 1] = '\n';
    return rc || taken ? rc : runlog_add(w->o->log, w->line.p, w->line.n, err);
}

/* Whole lines of a bounded length go to the hook, everything else to the log, as the contract says. */
static enum err_code events_add(struct watch *w, const char *p, size_t n, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && n > 0) {
        const char *nl = memchr(p, '\n', n);
        const size_t part = nl ? (size_t)(nl - p) + 1 : n;

        if (!w->line_too_long && w->line.n + part > EVENT_LINE_MAX + 1) {
            rc = runlog_add(w->o->log, w->line.p ? w->line.p : "", w->line.n, err);
            buf_clear(&w->line);
            w->line_too_long = true;
        }
        if (w->line_too_long && !rc)
            rc = runlog_add(w->o->log, p, part, err);
        else if (!rc)
            buf_add(&w->line, p, part);
        if (nl && !rc && !w->line_too_long)
            rc = event_line(w, err);
        if (nl) {
            buf_clear(&w->line);
            w->line_too_long = false;
        }
        p += part;
        n -= part;
    }
    return rc;
}

/* ---- watching ---------------------------------------------------------------------------------- */

typedef enum err_code (*sink_fn)(struct watch *w, const char *p, size_t n, struct err *err);

static enum err_code to_log(struct watch *w, const char *p, size_t n, struct err *err)
{
    return runlog_add(w->o->log, p, n, err);
}

/* Read what is there, but not for ever: a program that writes as fast as we read must not keep us from its deadlines. */
#define DRAIN_MAX (4 << 20)
static enum err_code drain(struct watch *w, int *fd, bool all, sink_fn sink, struct err *err)
{
    static char bytes[1 << 16];
    enum err_code rc = OK;
    int64_t total = 0;

    while (!rc && *fd >= 0 && (all || total < DRAIN_MAX)) {
        const ssize_t n = read(*fd, bytes, sizeof(bytes));

        if (n > 0) {
            rc = sink(w, bytes, (size_t)n, err);
            total += n;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && errno == EAGAIN) {
            break;
        } else {
            os_close_quiet(fd);
        }
    }
    return rc;
}

static void reap(struct watch *w)
{
    struct rusage usage;
    int status;
    pid_t pid;

    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        if (pid == w->child.pid) {
            w->exited = true;
            w->status = status;
            w->result->memory_peak = (int64_t)usage.ru_maxrss * 1024;
        }
    w->childless = pid < 0 && errno == ECHILD; /* nor can there be again */
}

static void ask_to_stop(struct watch *w)
{
    if (w->term_ns || w->exited)
        return;
    w->result->asked_to_stop = true;
    w->term_ns = os_monotonic_ns();
    (void)kill(-w->child.pid, SIGTERM);
}

static void kill_now(struct watch *w)
{
    if (w->exited)
        return;
    w->result->asked_to_stop = w->result->killed_on_request = true;
    (void)kill(-w->child.pid, SIGKILL);
}

static void take_signals(struct watch *w)
{
    struct signalfd_siginfo info;

    while (read(w->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo != SIGCHLD) {
            w->result->asked_from_outside = true;
            if (info.ssi_signo == SIGQUIT)
                kill_now(w);
            else
                ask_to_stop(w);
        }
    reap(w);
}

static void take_control(struct watch *w)
{
    const struct supervise_hooks *h = w->o->hooks;

    CHECK(h); /* without hooks nobody watches the descriptor that brings us here */
    switch (h->on_control(h->ctx)) {
    case ASK_STOP:
        ask_to_stop(w);
        break;
    case ASK_KILL:
        kill_now(w);
        break;
    case ASK_NEVER:
        w->deaf = true; /* else its end would wake us for ever */
        break;
    case ASK_NOTHING:
        break;
    }
}

/* Nanoseconds left of a limit of so many seconds, at most wait. */
static int64_t left_of(struct watch *w, int64_t limit_s, bool *passed, int64_t now, int64_t wait)
{
    int64_t left;

    if (limit_s <= 0 || w->term_ns)
        return wait;
    left = w->start_ns + limit_s * SECOND_NS - now;
    if (left > 0)
        return left < wait ? left : wait;
    *passed = true;
    ask_to_stop(w);
    return wait;
}

/* Milliseconds until something is due, and what is due now. */
static int deadlines(struct watch *w)
{
    const struct supervise_hooks *h = w->o->hooks;
    const int64_t now = os_monotonic_ns();
    int64_t wait = 60 * SECOND_NS;

    if (h && h->tick) {
        const int64_t due = h->tick(h->ctx);

        wait = due >= 0 && due < wait ? due : wait;
    }
    wait = left_of(w, w->o->timeout_s, &w->result->timed_out, now, wait);
    wait = left_of(w, w->o->time_s, &w->result->time_up, now, wait);
    if (w->term_ns && !w->result->killed_after_grace) {
        const int64_t left = w->term_ns + w->o->grace_s * SECOND_NS - now;

        if (left <= 0) {
            w->result->killed_after_grace = true;
            (void)kill(-w->child.pid, SIGKILL);
        } else if (left < wait) {
            wait = left;
        }
    }
    return (int)((wait + 999999) / 1000000);
}

static enum err_code watch_loop(struct watch *w, struct err *err)
{
    const struct supervise_hooks *h = w->o->hooks;
    enum err_code rc = OK;

    while (!rc && !w->exited) {
        struct pollfd fds[] = {{w->signals, POLLIN, 0},
                               {w->child.out, POLLIN, 0},
                               {w->child.events, POLLIN, 0},
                               {h && h->on_control && !w->deaf ? h->control : -1, POLLIN, 0}};

        if (poll(fds, 4, deadlines(w)) < 0 && errno != EINTR)
            return err_sys(err, errno, "wait for %s", w->o->argv[0]);
        if (fds[3].revents)
            take_control(w);
        if (fds[0].revents)
            take_signals(w);
        if (fds[1].revents)
            rc = drain(w, &w->child.out, false, to_log, err);
        if (!rc && fds[2].revents)
            rc = drain(w, &w->child.events, false, events_add, err);
    }
    return rc;
}

/* ---- the end ----------------------------------------------------------------------------------- */

/* The pids below us, as /proc lists them; 0 when there are none. */
static size_t list_children(char *list, size_t size)
{
    struct err err = ERR_INIT;
    char path[64];
    size_t got = 0;
    int fd = -1;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    if (os_open(AT_FDCWD, path, O_RDONLY, 0, &fd, &err) || os_read(fd, list, size - 1, &got, &err))
        got = 0;
    os_close_quiet(&fd);
    list[got] = '\0';
    return got;
}

/* Whatever is still below us was left behind; daemons, too, are our children now. */
static void kill_strays(struct watch *w)
{
    for (int round = 0; round < STRAY_ROUNDS_MAX; round++) {
        char list[4096];

        if (!w->childless)
            reap(w);
        if (w->exited && w->childless)
            return;
        if (list_children(list, sizeof(list)) == 0)
            return;
        (void)kill(-w->child.pid, SIGKILL); /* at once, before they see each other die */
        for (char *p = list, *end; *p; p = end) {
            const long pid = strtol(p, &end, 10);
            int status = 0;

            if (end == p)
                break;
            if (kill((pid_t)pid, SIGKILL) == 0 && waitpid((pid_t)pid, &status, 0) > 0) {
                if (pid == w->child.pid) {
                    w->exited = true;
                    w->status = status;
                } else {
                    w->result->strays++;
                }
            }
            end += strspn(end, " ");
        }
    }
}

enum err_code supervise_signals(int *fd, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (*fd < 0)
        return err_sys(err, errno, "make a signalfd");
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    return OK;
}

static enum err_code watch_child(struct watch *w, struct err *err)
{
    const struct supervise_hooks *h = w->o->hooks;
    enum err_code rc;

    w->result->not_started = w->child.start_errno != 0;
    w->result->start_errno = w->child.start_errno;
    if (h && h->started && !w->result->not_started)
        h->started(h->ctx, w->child.pid);
    rc = watch_loop(w, err);
    kill_strays(w); /* they hold the pipes open, too */
    if (!rc)
        rc = drain(w, &w->child.out, true, to_log, err);
    if (!rc)
        rc = drain(w, &w->child.events, true, events_add, err);
    if (!rc && w->line.n) /* a line without an end is no event */
        rc = runlog_add(w->o->log, w->line.p, w->line.n, err);
    if (!rc)
        rc = runlog_finish(w->o->log, err);
    if (w->exited) {
        w->result->signal = WIFSIGNALED(w->status) ? WTERMSIG(w->status) : 0;
        w->result->exit_status = WIFEXITED(w->status) ? WEXITSTATUS(w->status) : 0;
    }
    return rc;
}

enum err_code supervise(const struct supervise_options *o, struct supervise_result *out,
                        struct err *err)
{
    struct watch w = {.o = o,
                      .result = out,
                      .child = {.out = -1, .events = -1},
                      .signals = o->signals,
                      .own_signals = o->signals < 0};
    enum err_code rc = OK;

    *out = (struct supervise_result){0};
    buf_init(&w.line, EVENT_LINE_MAX + 1);
    if (w.own_signals)
        rc = supervise_signals(&w.signals, err);
    w.start_ns = os_monotonic_ns();
    if (!rc)
        rc = supervise_start(o, &w.child, err);
    if (!rc)
        rc = watch_child(&w, err);
    out->wall_ms = (os_monotonic_ns() - w.start_ns) / 1000000;
    buf_release(&w.line);
    os_close_quiet(&w.child.out);
    os_close_quiet(&w.child.events);
    if (w.own_signals)
        os_close_quiet(&w.signals);
    return rc;
}
