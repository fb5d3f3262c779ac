#include "cluster/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "store/store.h"

#define HOLD_NS 3000000 /* an answer that nobody waits for may wait so long for company */
#define NO_START SIZE_MAX
#define AGAIN "again "
#define AGAIN_N 6

struct serve {
    struct store *store;
    int in, out, signals;
    bool in_ended, ending, exits, commit;
    struct buf input;  /* a partial line */
    struct buf answer; /* not yet written */
    int64_t answer_ns; /* since when; 0: empty */
    size_t quiet;      /* its length before a "started" that it ends with; NO_START: it does not */
    char **queue;
    size_t queued, queue_cap;
    struct attempt *group[SERVE_GROUP_MAX];
    size_t grouped;
    int64_t group_ns; /* when the first of them ended */
    int64_t lag_ns;   /* how long the group may wait */
    const char *current;
    enum supervise_ask ask; /* for the current one */
};

/* ---- answers ----------------------------------------------------------------------------------- */

/* Whoever listens may be gone; then the cards have to do. */
static void flush_answers(struct serve *s)
{
    struct err ignored = ERR_INIT;

    if (s->out >= 0 && s->answer.n > 0 && os_write(s->out, s->answer.p, s->answer.n, &ignored))
        s->out = -1;
    buf_clear(&s->answer);
    s->answer_ns = 0;
    s->quiet = NO_START;
}

static void answer(struct serve *s, json_t *v)
{
    struct err ignored = ERR_INIT;

    if (s->answer.n == 0)
        s->answer_ns = os_monotonic_ns();
    s->quiet = NO_START;
    if (!json_canonical(v, &s->answer, &ignored))
        buf_char(&s->answer, '\n');
    json_decref(v);
}

static void answer_lost(struct serve *s, const char *dir, const char *reason)
{
    json_t *v = json_pack("{s:s, s:s, s:s}", "event", "lost", "dir", dir, "reason", reason);

    if (!v)
        v = json_pack("{s:s, s:s, s:s}", "event", "lost", "dir", dir, "reason",
                      "for a reason that is not UTF-8");
    CHECK(v);
    answer(s, v);
}

/* ---- requests ---------------------------------------------------------------------------------- */

/* Of a line of the queue. */
static const char *folder_of(const char *line)
{
    return line[0] == '/' ? line : line + AGAIN_N;
}

static void end_queued(struct serve *s, const char *dir)
{
    for (size_t i = 0; i < s->queued; i++)
        if (strcmp(folder_of(s->queue[i]), dir) == 0) {
            answer_lost(s, dir, "stopped before it began");
            free(s->queue[i]);
            memmove(s->queue + i, s->queue + i + 1, (s->queued - i - 1) * sizeof(*s->queue));
            s->queued--;
            return;
        }
}

static void request(struct serve *s, const char *line)
{
    const bool stop = strncmp(line, "stop ", 5) == 0, kill = strncmp(line, "kill ", 5) == 0;
    const bool again = strncmp(line, AGAIN, AGAIN_N) == 0;
    const char *dir = stop || kill ? line + 5 : again ? line + AGAIN_N : line;
    json_t *probe;
    bool good;

    s->exits = s->exits || strcmp(line, "exits") == 0;
    s->commit = s->commit || strcmp(line, "commit") == 0;
    if (dir[0] != '/')
        return;
    probe = json_string(dir);
    good = probe != NULL;
    json_decref(probe);
    if (!good) /* none that we could answer about */
        return;
    if (stop || kill) {
        if (s->current && strcmp(s->current, dir) == 0)
            s->ask = kill ? ASK_KILL : ASK_STOP;
        else
            end_queued(s, dir);
        return;
    }
    if (s->queued >= SERVE_QUEUE_MAX) {
        answer_lost(s, dir, "too many attempts wait");
        return;
    }
    if (s->queued == s->queue_cap) {
        s->queue_cap = s->queue_cap ? 2 * s->queue_cap : 16;
        s->queue = mem_grow(s->queue, s->queue_cap, sizeof(*s->queue));
    }
    s->queue[s->queued++] = mem_strdup(line);
}

/* What has come, without waiting for more. */
static void read_requests(struct serve *s)
{
    char bytes[4096];

    while (!s->in_ended) {
        struct pollfd p = {s->in, POLLIN, 0};
        ssize_t n;

        if (poll(&p, 1, 0) <= 0)
            return;
        n = read(s->in, bytes, sizeof(bytes));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        s->in_ended = n <= 0;
        const bool all = n < (ssize_t)sizeof(bytes);
        for (ssize_t i = 0; i < n; i++) {
            buf_char(&s->input, bytes[i]);
            if (bytes[i] != '\n')
                continue;
            if (!s->input.failed) {
                s->input.p[s->input.n - 1] = '\0';
                request(s, s->input.p);
            }
            buf_clear(&s->input);
        }
        if (all)
            return;
    }
}

/* ---- commits ----------------------------------------------------------------------------------- */

/* The answer is made before the attempt's end, because the card dies with it, and sent after it. */
static void end_attempt(struct serve *s, struct attempt *a)
{
    json_t *v = json_pack("{s:s, s:s, s:o}", "event", "ended", "dir", attempt_dir(a), "result",
                          result_card_json(attempt_result(a)));
    const bool failed = attempt_result(a)->status == ATTEMPT_FAILED;
    char *dir = mem_strdup(attempt_dir(a));
    struct err err = ERR_INIT;
    bool spare = false;
    const enum err_code rc =
        s->out < 0 || s->in_ended ? attempt_end(a, &err) : attempt_hand_over(a, &spare, &err);

    CHECK(v);
    if (spare)
        json_object_set_new(v, "spare", json_true());
    if (rc && !(rc == ERR_NOT_FOUND && failed)) {
        answer_lost(s, dir, err.text);
        json_decref(v);
    } else {
        answer(s, v);
    }
    free(dir);
}

static void commit_group(struct serve *s)
{
    const int64_t begun = os_monotonic_ns();

    if (s->grouped == 0)
        return;
    attempts_commit(s->store, s->group, s->grouped);
    s->lag_ns = SERVE_COMMIT_SHARE * (os_monotonic_ns() - begun);
    if (s->lag_ns < SERVE_COMMIT_NS)
        s->lag_ns = SERVE_COMMIT_NS;
    if (s->lag_ns > SERVE_COMMIT_MAX_NS)
        s->lag_ns = SERVE_COMMIT_MAX_NS;
    for (size_t i = 0; i < s->grouped; i++)
        end_attempt(s, s->group[i]);
    s->grouped = 0;
    flush_answers(s);
}

/* ---- hooks of the running attempt -------------------------------------------------------------- */

static void on_started(void *ctx, pid_t pid)
{
    struct serve *s = ctx;
    const size_t before = s->answer.n;

    answer(s, json_pack("{s:s, s:s, s:I}", "event", "started", "dir", s->current, "pid",
                        (json_int_t)pid));
    s->quiet = before;
}

/* That it has started is no news when it has ended. */
static void take_back_start(struct serve *s)
{
    if (s->quiet == NO_START || s->answer.failed)
        return;
    s->answer.n = s->quiet;
    s->quiet = NO_START;
}

static enum supervise_ask on_control(void *ctx)
{
    struct serve *s = ctx;
    enum supervise_ask ask;

    read_requests(s);
    ask = s->ask;
    s->ask = ASK_NOTHING;
    return ask == ASK_NOTHING && s->in_ended ? ASK_NEVER : ask;
}

static int64_t on_tick(void *ctx)
{
    struct serve *s = ctx;
    const int64_t now = os_monotonic_ns();
    int64_t wait = INT64_MAX;

    if (s->grouped && now - s->group_ns >= s->lag_ns)
        commit_group(s);
    if (s->answer_ns && now - s->answer_ns >= HOLD_NS)
        flush_answers(s);
    if (s->grouped)
        wait = s->group_ns + s->lag_ns - now;
    if (s->answer_ns && s->answer_ns + HOLD_NS - now < wait)
        wait = s->answer_ns + HOLD_NS - now;
    return wait == INT64_MAX ? -1 : wait > 0 ? wait : 0;
}

/* ---- the loop ---------------------------------------------------------------------------------- */

static void attempt_next(struct serve *s)
{
    const struct supervise_hooks hooks = {.ctx = s,
                                          .started = on_started,
                                          .control = s->in,
                                          .on_control = on_control,
                                          .tick = on_tick};
    const struct attempt_control control = {.signals = s->signals, .hooks = &hooks};
    char *line = s->queue[0];
    const char *dir = folder_of(line);
    struct attempt *a = NULL;
    struct err err = ERR_INIT;
    bool asked = false;

    memmove(s->queue, s->queue + 1, --s->queued * sizeof(*s->queue));
    s->commit = false;
    if (dir == line ? attempt_begin(dir, s->store, &a, &err)
                    : attempt_begin_again(dir, s->store, &a, &err)) {
        answer_lost(s, dir, err.text);
        free(line);
        return;
    }
    s->current = dir;
    s->ask = ASK_NOTHING;
    attempt_execute(a, &control, &asked);
    s->current = NULL;
    s->ending |= asked;
    if (s->grouped == 0)
        s->group_ns = os_monotonic_ns();
    s->group[s->grouped++] = a;
    take_back_start(s);
    if (s->exits) {
        answer(s, json_pack("{s:s, s:s}", "event", "exited", "dir", dir));
        flush_answers(s);
    }
    free(line);
}

static void take_signals(struct serve *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        s->ending |= info.ssi_signo != SIGCHLD;
}

/* Who knows of the exit has the next request ready soon, or says that there is none. */
static void wait_for_next(const struct serve *s)
{
    struct pollfd p = {s->in, POLLIN, 0};
    const struct timespec next = {.tv_nsec = SERVE_NEXT_NS};

    if (s->exits && s->queued == 0 && !s->ending && !s->in_ended && !s->commit)
        (void)ppoll(&p, 1, &next, NULL);
}

static enum err_code loop(struct serve *s, struct err *err)
{
    for (;;) {
        read_requests(s);
        take_signals(s);
        if (s->ending || s->in_ended)
            return OK;
        if (s->queued > 0) {
            attempt_next(s);
            wait_for_next(s);
            read_requests(s);
        }
        if (s->grouped > 0 && (s->queued == 0 || s->grouped == SERVE_GROUP_MAX ||
                               os_monotonic_ns() - s->group_ns >= s->lag_ns))
            commit_group(s);
        if (s->queued == 0) {
            struct pollfd fds[] = {{s->in, POLLIN, 0}, {s->signals, POLLIN, 0}};

            flush_answers(s);
            if (poll(fds, 2, -1) < 0 && errno != EINTR)
                return err_sys(err, errno, "wait for requests");
        }
    }
}

enum err_code serve(const char *store, int in, int out, struct err *err)
{
    struct serve s = {
        .in = in, .out = out, .signals = -1, .quiet = NO_START, .lag_ns = SERVE_COMMIT_NS};
    enum err_code rc;

    buf_init(&s.input, SERVE_LINE_MAX);
    buf_init(&s.answer, (size_t)SERVE_GROUP_MAX * CARD_BYTES_MAX);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    rc = supervise_signals(&s.signals, err);
    if (!rc)
        rc = store_open(store, STORE_WRITE, &s.store, err);
    if (!rc)
        rc = loop(&s, err);
    commit_group(&s);
    flush_answers(&s);
    for (size_t i = 0; i < s.queued; i++)
        free(s.queue[i]);
    free(s.queue);
    buf_release(&s.input);
    buf_release(&s.answer);
    store_close(s.store);
    os_close_quiet(&s.signals);
    return rc;
}
