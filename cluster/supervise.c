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
#include "store/materialise.h"

#define STRAY_ROUNDS_MAX 100 /* kill, reap, look again: a fork bomb may need a few rounds */

struct log {
    int fd;
    int64_t seen;    /* bytes the child wrote */
    char *tail;      /* ring of LOG_TAIL_MAX, made when the head is full */
    int64_t in_tail; /* bytes that went into the ring */
};

struct watch {
    const struct supervise_options *o;
    struct supervise_result *result;
    pid_t pid;
    int out, events, signals, events_file;
    struct log log;
    struct buf line; /* a partial event line */
    bool line_too_long, exited;
    int status;
    int64_t term_ns; /* when SIGTERM was sent; 0: not yet */
    int64_t start_ns;
};

/* ---- the log ----------------------------------------------------------------------------------- */

static enum err_code log_add(struct log *l, const char *p, size_t n, struct err *err)
{
    const int64_t room = LOG_HEAD_MAX - l->seen;
    const size_t head = room <= 0 ? 0 : room < (int64_t)n ? (size_t)room : n;

    l->seen += (int64_t)n;
    for (size_t i = head; i < n; i++) {
        if (!l->tail)
            l->tail = mem_alloc(LOG_TAIL_MAX);
        l->tail[l->in_tail++ % LOG_TAIL_MAX] = p[i];
    }
    return head ? os_write(l->fd, p, head, err) : OK;
}

static enum err_code log_finish(struct log *l, struct err *err)
{
    const int64_t lost = l->in_tail - LOG_TAIL_MAX, at = l->in_tail % LOG_TAIL_MAX;
    char note[128];
    enum err_code rc;

    if (!l->tail)
        return OK;
    if (lost <= 0)
        return os_write(l->fd, l->tail, (size_t)l->in_tail, err);
    (void)snprintf(note, sizeof(note), "\n[weir: %lld bytes of log left out here]\n",
                   (long long)lost);
    rc = os_write(l->fd, note, strlen(note), err);
    if (!rc)
        rc = os_write(l->fd, l->tail + at, (size_t)(LOG_TAIL_MAX - at), err);
    if (!rc)
        rc = os_write(l->fd, l->tail, (size_t)at, err);
    return rc;
}

/* ---- events ------------------------------------------------------------------------------------ */

/* Whole lines that look like JSON objects go to events.jsonl, everything else to the log, as the contract says. */
static enum err_code event_line(struct watch *w, const char *p, size_t n, struct err *err)
{
    const bool event = !w->line_too_long && n > 1 && p[0] == '{' && p[n - 2] == '}';

    return event ? os_write(w->events_file, p, n, err) : log_add(&w->log, p, n, err);
}

static enum err_code events_add(struct watch *w, const char *p, size_t n, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && n > 0) {
        const char *nl = memchr(p, '\n', n);
        const size_t part = nl ? (size_t)(nl - p) + 1 : n;

        if (w->line.n + part > EVENT_LINE_MAX) {
            rc = log_add(&w->log, w->line.p ? w->line.p : "", w->line.n, err);
            buf_clear(&w->line);
            w->line_too_long = true;
        }
        if (w->line_too_long && !rc)
            rc = log_add(&w->log, p, part, err);
        else if (!rc)
            buf_add(&w->line, p, part);
        if (nl && !rc && w->line.n)
            rc = event_line(w, w->line.p, w->line.n, err);
        if (nl) {
            buf_clear(&w->line);
            w->line_too_long = false;
        }
        p += part;
        n -= part;
    }
    return rc;
}

/* ---- starting ---------------------------------------------------------------------------------- */

static void child_limits(const struct supervise_options *o)
{
    const struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (o->memory_bytes > 0) {
        const struct rlimit memory = {(rlim_t)o->memory_bytes, (rlim_t)o->memory_bytes};

        (void)setrlimit(RLIMIT_DATA, &memory);
    }
}

/* Between fork and exec: only what is safe there.  A failure is told through the pipe and ends in _exit. */
__attribute__((noreturn)) static void child(const struct supervise_options *o, int out, int events,
                                            int failure)
{
    struct err err = ERR_INIT;
    sigset_t none;
    int null, sys;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* weir-exec killed: nobody may go on unwatched */
    if (o->shield && o->read_only_dir && materialise_shield(o->read_only_dir, &err))
        _exit(126); /* hard links are out there and nothing protects them: better not to start */
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    umask(022);
    child_limits(o);
    /* failure and events must not be overwritten by the dup2 calls below */
    failure = fcntl(failure, F_DUPFD_CLOEXEC, 10);
    events = fcntl(events, F_DUPFD_CLOEXEC, 10);
    out = fcntl(out, F_DUPFD_CLOEXEC, 10);
    if (null >= 0 && failure >= 0 && dup2(null, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2 &&
        dup2(events, 3) == 3 && chdir(o->work_dir) == 0) {
        (void)close_range(4, (unsigned)failure - 1, 0);
        (void)close_range((unsigned)failure + 1, ~0u, 0);
        execvpe(o->argv[0], (char *const *)(uintptr_t)o->argv, (char *const *)(uintptr_t)o->envp);
    }
    sys = errno;
    if (write(failure, &sys, sizeof(sys)) < 0)
        _exit(126);
    _exit(127);
}

static void close_pair(int p[2])
{
    os_close_quiet(&p[0]);
    os_close_quiet(&p[1]);
}

static enum err_code start(struct watch *w, struct err *err)
{
    int out[2] = {-1, -1}, events[2] = {-1, -1}, failure[2] = {-1, -1};
    enum err_code rc = OK;
    int sys = 0;

    if (fault_hit(&sys) || pipe2(out, O_CLOEXEC) || pipe2(events, O_CLOEXEC) ||
        pipe2(failure, O_CLOEXEC)) {
        rc = err_sys(err, sys ? sys : errno, "make pipes for %s", w->o->argv[0]);
        goto done;
    }
    w->pid = fork();
    if (w->pid < 0) {
        rc = err_sys(err, errno, "start %s", w->o->argv[0]);
        goto done;
    }
    if (w->pid == 0)
        child(w->o, out[1], events[1], failure[1]);
    (void)setpgid(w->pid, w->pid); /* both sides do it, so neither has to wait */
    os_close_quiet(&failure[1]);
    if (read(failure[0], &sys, sizeof(sys)) == (ssize_t)sizeof(sys)) {
        w->result->not_started = true;
        w->result->start_errno = sys;
    }
    w->out = out[0];
    w->events = events[0];
    out[0] = events[0] = -1;
    (void)fcntl(w->out, F_SETFL, O_NONBLOCK);
    (void)fcntl(w->events, F_SETFL, O_NONBLOCK);
done:
    close_pair(out);
    close_pair(events);
    close_pair(failure);
    return rc;
}

/* ---- watching ---------------------------------------------------------------------------------- */

typedef enum err_code (*sink_fn)(struct watch *w, const char *p, size_t n, struct err *err);

static enum err_code to_log(struct watch *w, const char *p, size_t n, struct err *err)
{
    return log_add(&w->log, p, n, err);
}

/* Read what is there; *fd is closed at its end. */
static enum err_code drain(struct watch *w, int *fd, sink_fn sink, struct err *err)
{
    static char bytes[1 << 16];
    enum err_code rc = OK;

    while (!rc && *fd >= 0) {
        const ssize_t n = read(*fd, bytes, sizeof(bytes));

        if (n > 0)
            rc = sink(w, bytes, (size_t)n, err);
        else if (n < 0 && errno == EINTR)
            continue;
        else if (n < 0 && errno == EAGAIN)
            break;
        else
            os_close_quiet(fd);
    }
    return rc;
}

static void reap(struct watch *w)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == w->pid) {
            w->exited = true;
            w->status = status;
        }
}

static void ask_to_stop(struct watch *w)
{
    if (w->term_ns || w->exited)
        return;
    w->result->asked_to_stop = true;
    w->term_ns = os_monotonic_ns();
    (void)kill(-w->pid, SIGTERM);
}

static void take_signals(struct watch *w)
{
    struct signalfd_siginfo info;

    while (read(w->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
            ask_to_stop(w);
    reap(w);
}

/* Milliseconds until something is due, and what is due now. */
static int deadlines(struct watch *w)
{
    const int64_t now = os_monotonic_ns(), second = 1000000000LL;
    int64_t wait = 60 * second;

    if (w->o->time_s > 0 && !w->term_ns) {
        const int64_t left = w->start_ns + w->o->time_s * second - now;

        if (left <= 0) {
            w->result->timed_out = true;
            ask_to_stop(w);
        } else if (left < wait) {
            wait = left;
        }
    }
    if (w->term_ns) {
        const int64_t left = w->term_ns + w->o->grace_s * second - now;

        if (left <= 0 && !w->result->killed_after_grace) {
            w->result->killed_after_grace = true;
            (void)kill(-w->pid, SIGKILL);
        } else if (left > 0 && left < wait) {
            wait = left;
        }
    }
    return (int)(wait / 1000000) + 1;
}

static enum err_code watch_loop(struct watch *w, struct err *err)
{
    enum err_code rc = OK;

    while (!rc && !w->exited) {
        struct pollfd fds[] = {
            {w->signals, POLLIN, 0}, {w->out, POLLIN, 0}, {w->events, POLLIN, 0}};

        if (poll(fds, 3, deadlines(w)) < 0 && errno != EINTR)
            return err_sys(err, errno, "wait for %s", w->o->argv[0]);
        take_signals(w);
        rc = drain(w, &w->out, to_log, err);
        if (!rc)
            rc = drain(w, &w->events, events_add, err);
    }
    return rc;
}

/* Whatever is still below us was left behind: the group first, then daemons, which are our children now. */
static void kill_strays(struct watch *w)
{
    (void)kill(-w->pid, SIGKILL);
    for (int round = 0; round < STRAY_ROUNDS_MAX; round++) {
        char path[64], list[4096] = "";
        struct err err = ERR_INIT;
        size_t got = 0;
        int fd = -1;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
        if (os_open(AT_FDCWD, path, O_RDONLY, 0, &fd, &err) ||
            os_read(fd, list, sizeof(list) - 1, &got, &err))
            got = 0;
        os_close_quiet(&fd);
        if (got == 0)
            return;
        list[got] = '\0';
        for (char *p = list, *end; (void)(end = p), *p; p = end) {
            const long pid = strtol(p, &end, 10);

            if (end == p)
                break;
            if (kill((pid_t)pid, SIGKILL) == 0 && waitpid((pid_t)pid, NULL, 0) > 0)
                w->result->strays++;
            end += strspn(end, " ");
        }
    }
}

static enum err_code open_files(struct watch *w, struct err *err)
{
    sigset_t set;
    enum err_code rc =
        os_open(w->o->task_dir, "log", O_WRONLY | O_CREAT | O_TRUNC, 0644, &w->log.fd, err);

    if (!rc)
        rc = os_open(w->o->task_dir, "events.jsonl", O_WRONLY | O_CREAT | O_TRUNC, 0644,
                     &w->events_file, err);
    if (rc)
        return rc;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    w->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (w->signals < 0)
        return err_sys(err, errno, "make a signalfd");
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    return OK;
}

enum err_code supervise(const struct supervise_options *o, struct supervise_result *out,
                        struct err *err)
{
    struct watch w = {.o = o,
                      .result = out,
                      .out = -1,
                      .events = -1,
                      .signals = -1,
                      .events_file = -1,
                      .log = {.fd = -1}};
    enum err_code rc;

    *out = (struct supervise_result){0};
    buf_init(&w.line, EVENT_LINE_MAX + 1);
    rc = open_files(&w, err);
    w.start_ns = os_monotonic_ns();
    if (!rc)
        rc = start(&w, err);
    if (!rc)
        rc = watch_loop(&w, err);
    if (w.pid > 0)
        kill_strays(&w); /* they hold the pipes open, too */
    if (!rc)
        rc = drain(&w, &w.out, to_log, err);
    if (!rc)
        rc = drain(&w, &w.events, events_add, err);
    if (!rc && w.line.n)
        rc = log_add(&w.log, w.line.p, w.line.n, err); /* a line without an end is no event */
    if (!rc)
        rc = log_finish(&w.log, err);
    out->log_bytes = w.log.seen;
    out->wall_ms = (os_monotonic_ns() - w.start_ns) / 1000000;
    if (w.exited) {
        out->signal = WIFSIGNALED(w.status) ? WTERMSIG(w.status) : 0;
        out->exit_status = WIFEXITED(w.status) ? WEXITSTATUS(w.status) : 0;
    }
    free(w.log.tail);
    buf_release(&w.line);
    os_close_quiet(&w.out);
    os_close_quiet(&w.events);
    os_close_quiet(&w.signals);
    os_close_quiet(&w.events_file);
    os_close_quiet(&w.log.fd);
    return rc;
}
