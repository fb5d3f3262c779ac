/* A child that shares our memory until it has called exec starts in the time of one system call, whatever our size; one that must be
 * put behind a read-only mount needs memory of its own first (a user namespace refuses processes that share it). */
#include "cluster/supervise_start.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "store/materialise.h"

struct start {
    const struct supervise_options *o;
    int out, events, null;
    int failure; /* -1: memory is shared */
    int sys;     /* errno of what failed, when memory is shared */
    size_t stack;
};

static void child_limits(const struct supervise_options *o)
{
    const struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (o->memory_bytes > 0) {
        const struct rlimit memory = {(rlim_t)o->memory_bytes, (rlim_t)o->memory_bytes};

        (void)setrlimit(RLIMIT_DATA, &memory);
    }
}

static bool child_files(struct start *s)
{
    /* what is kept must not be overwritten by the dup2 calls below */
    const int events = fcntl(s->events, F_DUPFD_CLOEXEC, 10);
    const int out = fcntl(s->out, F_DUPFD_CLOEXEC, 10);
    const int null = fcntl(s->null, F_DUPFD_CLOEXEC, 10);

    if (s->failure >= 0)
        s->failure = fcntl(s->failure, F_DUPFD_CLOEXEC, 10);
    if (events < 0 || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
        dup2(out, 2) < 0 || dup2(events, 3) < 0)
        return false;
    /* All of ours are close-on-exec; what somebody else left open in us is not (and stays open before Linux 5.11). */
    (void)close_range(4, ~0u, CLOSE_RANGE_CLOEXEC);
    return true;
}

/* Between fork and exec: only what is safe there.  A failure is told and ends in _exit. */
static int child(void *arg)
{
    struct start *s = arg;
    const struct supervise_options *o = s->o;
    struct err err = ERR_INIT;
    sigset_t none;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* we are killed: nobody may go on unwatched */
    s->sys = 0;
    /* Without the shield hard links are out there and nothing protects them: better not to start. */
    if (o->read_only && materialise_shield(o->read_only, &err)) {
        s->sys = errno ? errno : EPERM;
    } else {
        sigemptyset(&none);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)signal(SIGHUP, SIG_DFL);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        umask(022);
        child_limits(o);
        if (child_files(s) && chdir(o->work_dir) == 0)
            execvpe(o->argv[0], (char *const *)(uintptr_t)o->argv,
                    (char *const *)(uintptr_t)o->envp);
        s->sys = errno;
    }
    if (s->failure >= 0 && write(s->failure, &s->sys, sizeof(s->sys)) < 0)
        _exit(126);
    _exit(127);
}

static pid_t start_sharing(struct start *s)
{
    size_t words = 0;
    char *stack;
    pid_t pid;

    while (s->o->argv[words])
        words++;
    /* execvpe copies the words' addresses when it has to try /bin/sh, and a path */
    s->stack = ((words + 8) * sizeof(char *) + (64 << 10)) & ~(size_t)15;
    stack = mem_alloc(s->stack);
    pid = clone(child, stack + s->stack, CLONE_VM | CLONE_VFORK | SIGCHLD, s);
    free(stack);
    return pid;
}

static pid_t start_apart(struct start *s)
{
    int failure[2] = {-1, -1}, sys = 0;
    pid_t pid = -1;

    if (pipe2(failure, O_CLOEXEC) == 0) {
        s->failure = failure[1];
        pid = fork();
        if (pid == 0)
            (void)child(s);
        sys = errno;
        os_close_quiet(&failure[1]);
        if (pid > 0) {
            int told = 0;

            if (read(failure[0], &told, sizeof(told)) == (ssize_t)sizeof(told))
                s->sys = told;
        }
        os_close_quiet(&failure[0]);
        errno = sys;
    }
    return pid;
}

/* The sanitizers keep records of stacks, which a child on a stack of its own in our memory would confuse. */
static pid_t start_child(struct start *s)
{
#if defined(WEIR_ARENA_DEBUG)
    const bool share = false;
#else
    const bool share = s->o->read_only == NULL;
#endif
    return share ? start_sharing(s) : start_apart(s);
}

static void close_pair(int p[2])
{
    os_close_quiet(&p[0]);
    os_close_quiet(&p[1]);
}

enum err_code supervise_start(const struct supervise_options *o, struct child *c, struct err *err)
{
    int out[2] = {-1, -1}, events[2] = {-1, -1}, sys = 0;
    struct start s = {.o = o, .failure = -1, .null = -1};
    enum err_code rc = OK;

    *c = (struct child){.out = -1, .events = -1};
    if (fault_hit(&sys) || pipe2(out, O_CLOEXEC) || pipe2(events, O_CLOEXEC)) {
        rc = err_sys(err, sys ? sys : errno, "make pipes for %s", o->argv[0]);
        goto done;
    }
    rc = os_open(AT_FDCWD, "/dev/null", O_RDONLY, 0, &s.null, err);
    if (rc)
        goto done;
    s.out = out[1];
    s.events = events[1];
    c->pid = fault_hit(&sys) ? -1 : start_child(&s);
    if (c->pid < 0) {
        c->pid = 0;
        rc = err_sys(err, sys ? sys : errno, "start %s", o->argv[0]);
        goto done;
    }
    (void)setpgid(c->pid, c->pid); /* both sides do it, so neither has to wait */
    c->start_errno = s.sys;
    c->out = out[0];
    c->events = events[0];
    out[0] = events[0] = -1;
    (void)fcntl(c->out, F_SETFL, O_NONBLOCK);
    (void)fcntl(c->events, F_SETFL, O_NONBLOCK);
done:
    os_close_quiet(&s.null);
    close_pair(out);
    close_pair(events);
    return rc;
}
