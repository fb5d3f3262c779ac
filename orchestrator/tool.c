#include "orchestrator/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

#define POLL_MS 20
#define TAIL_BYTES 4096

extern char **environ;

struct running {
    const struct tool *t;
    pid_t pid;
    int out, say; /* our ends of the pipes; -1: closed */
    char tail[TAIL_BYTES];
    size_t tail_n;
    int status;
    bool ended;
};

/* ---- starting ------------------------------------------------------------------------------------- */

static enum err_code make_pipe(int ends[2], struct err *err)
{
    int sys = 0;

    if (!fault_hit(&sys) && pipe2(ends, O_CLOEXEC) == 0)
        return OK;
    return err_sys(err, sys ? sys : errno, "make a pipe");
}

static int set_up(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, const char *dir,
                  int out, int say)
{
    sigset_t all, none;
    int sys = posix_spawn_file_actions_init(files);

    sigemptyset(&none);
    sigfillset(&all);
    if (!sys)
        sys = posix_spawnattr_init(attr);
    if (!sys && dir)
        sys = posix_spawn_file_actions_addchdir_np(files, dir);
    if (!sys)
        sys = posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDONLY, 0);
    if (!sys)
        sys = posix_spawn_file_actions_adddup2(files, out, 1);
    if (!sys)
        sys = posix_spawn_file_actions_adddup2(files, say, 2);
    if (!sys)
        sys = posix_spawnattr_setsigdefault(attr, &all);
    if (!sys)
        sys = posix_spawnattr_setsigmask(attr, &none);
    if (!sys)
        sys = posix_spawnattr_setpgroup(attr, 0);
    if (!sys)
        sys = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                                 POSIX_SPAWN_SETPGROUP);
    return sys;
}

static enum err_code start(struct running *r, int out, int say, struct err *err)
{
    const struct tool *t = r->t;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int sys = 0;

    if (!fault_hit(&sys)) {
        sys = set_up(&files, &attr, t->dir, out, say);
        if (!sys)
            sys = posix_spawnp(&r->pid, t->argv[0], &files, &attr,
                               (char *const *)(uintptr_t)t->argv, environ);
        posix_spawn_file_actions_destroy(&files);
        posix_spawnattr_destroy(&attr);
    }
    if (sys == ENOENT || sys == EACCES || sys == ENOEXEC)
        return err_set(err, ERR_MISSING, "%s cannot be run: %s", t->argv[0], strerror(sys));
    return sys ? err_sys(err, sys, "start %s", t->argv[0]) : OK;
}

/* ---- listening ------------------------------------------------------------------------------------ */

/* The last bytes are what tells why. */
static void add_tail(struct running *r, const char *p, size_t n)
{
    if (n >= TAIL_BYTES) {
        p += n - TAIL_BYTES;
        n = TAIL_BYTES;
    }
    if (r->tail_n + n > TAIL_BYTES) {
        const size_t drop = r->tail_n + n - TAIL_BYTES;

        memmove(r->tail, r->tail + drop, r->tail_n - drop);
        r->tail_n -= drop;
    }
    memcpy(r->tail + r->tail_n, p, n);
    r->tail_n += n;
}

static enum err_code hear(struct running *r, int *fd, bool is_out, struct err *err)
{
    char p[16384];
    ssize_t n;

    do
        n = read(*fd, p, sizeof(p));
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return OK;
    if (n <= 0) {
        os_close_quiet(fd);
        return OK;
    }
    if (!is_out || !r->t->out) {
        add_tail(r, p, (size_t)n);
        return OK;
    }
    buf_add(r->t->out, p, (size_t)n);
    if (r->t->out->failed)
        return err_set(err, ERR_LIMIT, "%s prints more than %zu bytes", r->t->argv[0],
                       r->t->out->max);
    return OK;
}

/* It may leave children that hold the pipes: when it has ended, only what is in them already counts. */
static enum err_code listen_to(struct running *r, struct err *err)
{
    const int64_t end_ns = os_monotonic_ns() + r->t->timeout_ms * 1000000;
    enum err_code rc = OK;
    bool last = false;

    while (!rc && !(r->ended && last)) {
        struct pollfd fds[2] = {{r->out, POLLIN, 0}, {r->say, POLLIN, 0}};

        last = r->ended;
        if (!r->ended && waitpid(r->pid, &r->status, WNOHANG) == r->pid)
            r->ended = true;
        if (poll(fds, 2, r->ended ? 0 : POLL_MS) > 0) {
            last = false;
            if (fds[0].revents)
                rc = hear(r, &r->out, true, err);
            if (!rc && fds[1].revents)
                rc = hear(r, &r->say, false, err);
        }
        if (!rc && !r->ended && os_monotonic_ns() > end_ns)
            rc = err_set(err, ERR_TASK, "%s did not end within %lld seconds", r->t->argv[0],
                         (long long)(r->t->timeout_ms / 1000));
        if (r->ended && os_monotonic_ns() > end_ns)
            last = true; /* somebody else goes on writing */
    }
    return rc;
}

static void end_it(struct running *r)
{
    if (r->ended)
        return;
    (void)kill(-r->pid, SIGKILL);
    (void)kill(r->pid, SIGKILL); /* it may not be in its group yet */
    while (waitpid(r->pid, &r->status, 0) < 0 && errno == EINTR)
        ;
}

static void take_words(const struct running *r, struct tool_end *end)
{
    size_t from = r->tail_n > sizeof(end->said) - 1 ? r->tail_n - sizeof(end->said) + 1 : 0;
    size_t n = r->tail_n;

    while (n > from && strchr("\r\n \t", r->tail[n - 1]) && r->tail[n - 1])
        n--;
    while (from < n && ((unsigned char)r->tail[from] & 0xc0) == 0x80)
        from++; /* half a character */
    for (size_t i = from; i < n; i++) {
        const unsigned char c = (unsigned char)r->tail[i];

        end->said[i - from] = r->tail[i];
        if (c == '\n')
            end->said[i - from] = ';';
        else if (c < 0x20 || c == 0x7f)
            end->said[i - from] = ' ';
    }
    end->said[n - from] = '\0';
}

enum err_code tool_run(const struct tool *t, struct tool_end *end, struct err *err)
{
    struct running r = {.t = t, .out = -1, .say = -1};
    int out[2] = {-1, -1}, say[2] = {-1, -1};
    enum err_code rc;

    CHECK(t);
    CHECK(t->timeout_ms > 0);
    CHECK(end);
    *end = (struct tool_end){0};
    rc = make_pipe(out, err);
    if (!rc)
        rc = make_pipe(say, err);
    if (!rc)
        rc = start(&r, t->out ? out[1] : say[1], say[1], err);
    os_close_quiet(&out[1]);
    os_close_quiet(&say[1]);
    r.out = out[0];
    r.say = say[0];
    if (!rc) {
        (void)fcntl(r.out, F_SETFL, O_NONBLOCK);
        (void)fcntl(r.say, F_SETFL, O_NONBLOCK);
        rc = listen_to(&r, err);
        end_it(&r);
        take_words(&r, end);
    }
    os_close_quiet(&r.out);
    os_close_quiet(&r.say);
    if (!rc && WIFSIGNALED(r.status))
        rc = err_set(err, ERR_TASK, "%s was ended by signal %d (%s)%s%s", t->argv[0],
                     WTERMSIG(r.status), strsignal(WTERMSIG(r.status)), *end->said ? ": " : "",
                     end->said);
    end->status = rc ? -1 : WEXITSTATUS(r.status);
    return rc;
}
