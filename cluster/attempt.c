#include "cluster/attempt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt_internal.h"
#include "store/store.h"

#define EXIT_BAD_CARD 64
#define EXIT_BAD_DATA 65
#define EXIT_STOPPED 75
#define FULL_BYTES                                                                                 \
    (64 << 10)              /* with so little left a disk is full, whatever made the program fail */
#define LOG_LOOK_BYTES 4096 /* of the log's end, for what a program said about its death */

/* ---- saying ------------------------------------------------------------------------------------ */

void attempt_say(struct attempt *a, enum attempt_status status, const char *fmt, ...)
{
    va_list ap;

    a->result.status = status;
    va_start(ap, fmt);
    (void)vsnprintf(a->result.reason, sizeof(a->result.reason), fmt, ap);
    va_end(ap);
}

void attempt_lost(struct attempt *a, const struct err *err)
{
    attempt_say(a, ATTEMPT_LOST, "%s%s", err->code == ERR_FULL ? "scratch disk full: " : "",
                err->text);
    a->result.error = err_word(err->code);
}

static void add_reason(struct attempt *a, const char *text)
{
    const size_t n = strlen(a->result.reason);

    (void)snprintf(a->result.reason + n, sizeof(a->result.reason) - n, "%s", text);
}

/* ---- judge ------------------------------------------------------------------------------------- */

static bool log_says(struct attempt *a, const char *const *words, size_t n)
{
    char end[LOG_LOOK_BYTES + 1];
    struct err ignored = ERR_INIT;
    struct stat st;
    size_t got = 0;
    bool says = false;
    int fd = -1;

    if (!os_open(a->dir, RUNLOG, O_RDONLY, 0, &fd, &ignored) && !os_stat(fd, &st, &ignored) &&
        os_pread(fd, end, LOG_LOOK_BYTES,
                 st.st_size > LOG_LOOK_BYTES ? st.st_size - LOG_LOOK_BYTES : 0, &got, &ignored))
        got = 0;
    os_close_quiet(&fd);
    for (size_t i = 0; i < n; i++)
        says |= memmem(end, got, words[i], strlen(words[i])) != NULL;
    return says;
}

static bool disk_is_full(struct attempt *a)
{
    struct statvfs fs;

    return fstatvfs(a->dir, &fs) == 0 &&
           (fs.f_bavail * fs.f_frsize < FULL_BYTES || (fs.f_files > 0 && fs.f_favail == 0));
}

/* The limit of memory makes allocations fail, and what a program does then is its own affair: all that can be known is what it
 * said and how much it used. */
static void tell_of_memory(struct attempt *a)
{
    static const char *const words[] = {"Cannot allocate memory", "bad_alloc", "MemoryError",
                                        "out of memory", "Out of memory"};
    const int64_t limit = a->card.memory_bytes, peak = a->ended.memory_peak;
    char used[16], allowed[16], text[128];

    if (a->ended.signal == SIGKILL && !a->ended.killed_after_grace && !a->ended.killed_on_request)
        add_reason(a, "; it was not weir: perhaps the kernel ran out of memory");
    if (limit <= 0 ||
        (peak < limit / 10 * 8 && !log_says(a, words, sizeof(words) / sizeof(words[0]))))
        return;
    str_from_bytes(peak, used);
    str_from_bytes(limit, allowed);
    (void)snprintf(text, sizeof(text),
                   "; probably out of memory: it held %s of the %s allowed (resources.memory)",
                   used, allowed);
    add_reason(a, text);
}

static void judge_failure(struct attempt *a)
{
    const struct supervise_result *s = &a->ended;

    if (s->not_started)
        attempt_say(a, ATTEMPT_FAILED, "could not start %s: %s", a->program,
                    strerror(s->start_errno));
    else if (s->signal)
        attempt_say(a, ATTEMPT_FAILED, "killed by signal %d (%s)", s->signal, strsignal(s->signal));
    else if (s->exit_status == EXIT_BAD_CARD)
        attempt_say(a, ATTEMPT_FAILED,
                    "exit status 64: its card or a parameter is wrong; see the log");
    else if (s->exit_status == EXIT_BAD_DATA)
        attempt_say(a, ATTEMPT_FAILED, "exit status 65: its input data is wrong; see the log");
    else
        attempt_say(a, ATTEMPT_FAILED, "exit status %d; see the log", s->exit_status);
    if (s->exit_status == EXIT_BAD_CARD || s->exit_status == EXIT_BAD_DATA)
        return;
    if (!s->not_started)
        tell_of_memory(a);
    if (disk_is_full(a)) {
        struct err full = ERR_INIT;

        (void)err_set(&full, ERR_FULL, "%s (%.300s)", a->path, a->result.reason);
        attempt_lost(a, &full);
    }
}

/* A shell that was told to stop reports its child's signal as a status. */
static bool ended_as_asked(const struct supervise_result *s)
{
    return s->signal || s->exit_status == EXIT_STOPPED || s->exit_status == 128 + SIGTERM ||
           s->exit_status == 128 + SIGKILL;
}

/* What the program's end means, before its outputs are looked at. */
static void judge(struct attempt *a)
{
    const struct supervise_result *s = &a->ended;
    struct result_card *r = &a->result;

    r->exit_status = s->exit_status;
    r->signal = s->signal;
    r->strays = s->strays;
    r->log_bytes = a->log.seen;
    r->wall_ms = s->wall_ms;
    if (s->timed_out && (s->signal || s->exit_status))
        attempt_say(a, ATTEMPT_FAILED, "its timeout of %lld s was up%s",
                    (long long)a->card.timeout_s,
                    s->killed_after_grace ? "; it ignored SIGTERM and was killed" : "");
    else if (s->asked_to_stop && !s->not_started && ended_as_asked(s))
        attempt_say(a, ATTEMPT_STOPPED, "%s%s",
                    s->time_up             ? "its time was up"
                    : s->killed_on_request ? "killed on request"
                                           : "asked to stop",
                    s->killed_after_grace ? "; it ignored SIGTERM and was killed" : "");
    else if (s->exit_status == EXIT_STOPPED && !s->not_started)
        attempt_say(a, ATTEMPT_STOPPED, "stopped by itself with status 75");
    else if (s->not_started || s->signal || s->exit_status)
        judge_failure(a);
    else
        attempt_say(a, ATTEMPT_DONE, "%s", "");
}

/* ---- run --------------------------------------------------------------------------------------- */

static enum err_code on_event(void *ctx, const char *line, size_t n, bool *taken, struct err *err)
{
    struct attempt *a = ctx;

    return capture_event(&a->capture, line, n, taken, err);
}

static void on_started(void *ctx, pid_t pid)
{
    struct attempt *a = ctx;
    const struct supervise_hooks *h = a->control->hooks;

    a->pid = pid;
    a->begun_ns = os_monotonic_ns();
    if (h && h->started)
        h->started(h->ctx, pid);
}

static enum supervise_ask on_control(void *ctx)
{
    const struct supervise_hooks *h = ((struct attempt *)ctx)->control->hooks;

    return h->on_control(h->ctx);
}

static int64_t on_tick(void *ctx)
{
    struct attempt *a = ctx;
    const struct supervise_hooks *h = a->control->hooks;
    const int64_t due = h && h->tick ? h->tick(h->ctx) : -1;
    int64_t note;

    if (!a->begun_ns)
        return due;
    note = a->begun_ns + ATTEMPT_NOTE_NS - os_monotonic_ns();
    if (note > 0)
        return due < 0 || note < due ? note : due;
    struct err ignored = ERR_INIT;
    (void)!attempt_note_pid(a->dir, a->pid, &ignored); /* without it nobody else can stop it */
    a->begun_ns = 0;
    return due;
}

static enum err_code run(struct attempt *a, const struct attempt_control *control, struct err *err)
{
    const struct attempt_card *c = &a->card;
    const struct supervise_hooks *theirs = control->hooks;
    const struct supervise_hooks ours = {.ctx = a,
                                         .started = on_started,
                                         .event = on_event,
                                         .control = theirs ? theirs->control : -1,
                                         .on_control =
                                             theirs && theirs->on_control ? on_control : NULL,
                                         .tick = on_tick};
    const size_t count = c->argv ? json_array_size(c->argv) : 3;
    const char **argv = arena_array(&a->arena, count + 1, sizeof(*argv));
    const struct supervise_options o = {
        .argv = argv,
        .envp = a->envp,
        .work_dir = arena_printf(&a->arena, "%s/work", a->path),
        .read_only = a->linked ? arena_printf(&a->arena, "%s/in", a->path) : NULL,
        .log = &a->log,
        .memory_bytes = c->memory_bytes,
        .time_s = c->time_s,
        .timeout_s = c->timeout_s,
        .grace_s = c->grace_s,
        .signals = control->signals,
        .hooks = &ours};

    a->control = control;
    if (c->shell) {
        argv[1] = "-c";
        argv[2] = c->shell;
    }
    for (size_t i = 1; c->argv && i < count; i++)
        argv[i] = json_string_value(json_array_get(c->argv, i));
    argv[0] = a->program;
    return supervise(&o, &a->ended, err);
}

void attempt_execute(struct attempt *a, const struct attempt_control *control, bool *asked)
{
    struct err err = ERR_INIT;
    enum err_code rc = OK;

    *asked = false;
    if (a->result.status == ATTEMPT_LOST) /* begun badly */
        return;
    runlog_init(&a->log, a->dir, a->card.log_max);
    capture_init(&a->capture, a->store, &a->card, a->path, a->dir, &a->log);
    a->ready = true;
    rc = attempt_prepare(a, &err);
    if (!rc)
        rc = run(a, control, &err);
    *asked = a->ended.asked_from_outside;
    if (rc)
        attempt_lost(a, &err);
    else
        judge(a);
    if (a->result.status != ATTEMPT_DONE)
        (void)!runlog_make(&a->log, &err); /* people are sent there */
    a->result.step = a->capture.step;
}

/* ---- life -------------------------------------------------------------------------------------- */

/* A card that cannot be read, or a store that cannot be opened, is a lost attempt: there is a folder to say so in. */
static void open_parts(struct attempt *a, struct store *st)
{
    struct err err = ERR_INIT;
    size_t count = 0;
    enum err_code rc = attempt_card_read(a->dir, &a->card, &err);

    a->store = st;
    if (!rc && !st) {
        a->own_store = true;
        rc = store_open(a->card.store, STORE_WRITE, &a->store, &err);
    }
    if (rc) {
        attempt_lost(a, &err);
        return;
    }
    while (a->card.outputs[count])
        count++;
    a->result.outputs = mem_zero(count + 1, sizeof(*a->result.outputs));
}

/* The folder: its path, what is known of it, its lock. */
static enum err_code open_folder(struct attempt *a, const char *task_dir, struct err *err)
{
    struct err ignored = ERR_INIT;
    struct stat info = {0};
    char *path;
    enum err_code rc = os_open_dir(AT_FDCWD, task_dir, &a->dir, err);

    if (rc)
        return rc;
    if (a->again) { /* who says so knows its path */
        a->path = arena_strdup(&a->arena, task_dir);
    } else {
        a->fresh = os_stat_at(a->dir, "out", &info, &ignored) == ERR_NOT_FOUND;
        path = realpath(task_dir, NULL);
        a->path = arena_strdup(&a->arena, path ? path : task_dir);
        free(path);
    }
    if (os_stat(a->dir, &info, &ignored) == OK)
        a->group = info.st_gid;
    return attempt_lock(a->dir, err);
}

static enum err_code begin(const char *task_dir, struct store *st, bool again, struct attempt **out,
                           struct err *err)
{
    struct attempt *a = mem_zero(1, sizeof(*a));
    enum err_code rc;

    *out = NULL;
    a->again = again;
    a->dir = a->log.fd = a->capture.events = -1;
    a->result.step = a->capture.step = -1;
    a->result.error = "";
    arena_init(&a->arena);
    rc = open_folder(a, task_dir, err);
    if (!rc && faccessat(a->dir, CARD_RESULT, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        rc = err_set(err, ERR_EXISTS, "%s: this attempt is over already", task_dir);
    if (rc) {
        os_close_quiet(&a->dir);
        arena_release(&a->arena);
        free(a);
        return rc;
    }
    a->result.status = ATTEMPT_DONE;
    open_parts(a, st);
    *out = a;
    return OK;
}

enum err_code attempt_begin(const char *task_dir, struct store *st, struct attempt **out,
                            struct err *err)
{
    return begin(task_dir, st, false, out, err);
}

enum err_code attempt_begin_again(const char *task_dir, struct store *st, struct attempt **out,
                                  struct err *err)
{
    return begin(task_dir, st, true, out, err);
}

const struct result_card *attempt_result(const struct attempt *a)
{
    return &a->result;
}

const char *attempt_dir(const struct attempt *a)
{
    return a->path;
}

struct store *attempt_store(struct attempt *a)
{
    return a->store;
}

/* On a full disk what nobody will look at makes room for the card. */
static enum err_code write_result(struct attempt *a, struct err *err)
{
    static const char *const rooms[] = {"out", "tmp", "work", "ckpt", "in"};
    struct err ignored = ERR_INIT;
    enum err_code rc = result_card_write(a->dir, &a->result, err);

    if (rc == ERR_FULL && a->result.status != ATTEMPT_DONE) {
        for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++)
            (void)!os_remove_tree(a->dir, rooms[i], &ignored);
        *err = (struct err)ERR_INIT;
        rc = result_card_write(a->dir, &a->result, err);
    }
    if (rc == ERR_NOT_FOUND)
        rc = err_set(err, rc, "%s is not there any more; did the program delete it?", a->path);
    return rc;
}

static void release(struct attempt *a)
{
    capture_release(&a->capture);
    runlog_release(&a->log);
    if (a->own_store)
        store_close(a->store);
    free(a->result.outputs);
    attempt_card_release(&a->card);
    arena_release(&a->arena);
    free(a->envp);
    os_close_quiet(&a->dir);
    free(a);
}

enum err_code attempt_end(struct attempt *a, struct err *err)
{
    const enum err_code rc = write_result(a, err);

    release(a);
    return rc;
}

/* Whoever looks the action up learns all that the card would say. */
static bool store_says_it_all(const struct attempt *a)
{
    const struct result_card *r = &a->result;

    return r->status == ATTEMPT_DONE && a->card.bind && !r->log.kind && !r->events.kind &&
           r->image_count == 0 && r->step < 0 && !a->own_store;
}

enum err_code attempt_hand_over(struct attempt *a, bool *spare, struct err *err)
{
    enum err_code rc = OK;

    *spare = false;
    if (store_says_it_all(a))
        *spare = attempt_clear(a);
    else
        rc = write_result(a, err);
    release(a);
    return rc;
}

enum err_code attempt_run(const char *task_dir, struct result_card *out, struct err *err)
{
    const struct attempt_control control = {.signals = -1};
    struct attempt *a = NULL;
    bool asked;
    enum err_code rc = attempt_begin(task_dir, NULL, &a, err);

    *out = (struct result_card){.error = "", .step = -1};
    if (rc)
        return rc;
    attempt_execute(a, &control, &asked);
    if (attempt_store(a))
        attempts_commit(attempt_store(a), &a, 1);
    *out = a->result;
    out->outputs = NULL;
    out->images = NULL;
    out->output_count = out->image_count = 0;
    return attempt_end(a, err);
}
