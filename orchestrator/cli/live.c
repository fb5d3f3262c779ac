#include "orchestrator/cli/live.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/os.h"

#define TAIL_BYTES (16 << 10)
#define NAME_MAX_WIDTH 44
#define RUNNING_LINES_MAX 12
#define METRICS_SHOWN 3

/* ---- numbers ----------------------------------------------------------------------------------- */

void live_duration(int64_t ms, char out[24])
{
    const long long s = ms / 1000;

    if (ms < 10000)
        (void)snprintf(out, 24, "%lld.%02llds", s, (long long)(ms % 1000 / 10));
    else if (s < 60)
        (void)snprintf(out, 24, "%llds", s);
    else if (s < 3600)
        (void)snprintf(out, 24, "%lldm%02llds", s / 60, s % 60);
    else
        (void)snprintf(out, 24, "%lldh%02lldm", s / 3600, s / 60 % 60);
}

static void add_metrics(const json_t *values, struct live_progress *out)
{
    const char *name;
    json_t *value;
    size_t n = 0;
    int shown = 0;

    out->metrics[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)values, name, value)
    {
        int wrote;

        if (shown == METRICS_SHOWN || n + 48 > sizeof(out->metrics))
            break;
        if (json_is_number(value))
            wrote = snprintf(out->metrics + n, sizeof(out->metrics) - n, "%s%.24s %.4g",
                             shown ? "  " : "", name, json_number_value(value));
        else
            wrote = snprintf(out->metrics + n, sizeof(out->metrics) - n, "%s%.24s nan",
                             shown ? "  " : "", name);
        n += (size_t)wrote;
        shown++;
    }
}

static void take_line(const char *line, size_t n, struct live_progress *out)
{
    json_t *v = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL);
    const char *kind = json_string_value(json_object_get(v, "event"));

    if (kind && strcmp(kind, "progress") == 0) {
        const char *unit = json_string_value(json_object_get(v, "unit"));

        out->known = true;
        out->done = json_number_value(json_object_get(v, "done"));
        out->total = json_number_value(json_object_get(v, "total"));
        (void)snprintf(out->unit, sizeof(out->unit), "%s", unit ? unit : "");
    } else if (kind && strcmp(kind, "metric") == 0 &&
               json_is_object(json_object_get(v, "values"))) {
        add_metrics(json_object_get(v, "values"), out);
    }
    json_decref(v);
}

void live_progress_parse(const char *text, size_t n, struct live_progress *out)
{
    *out = (struct live_progress){0};
    while (n > 0) {
        const char *end = memchr(text, '\n', n);
        const size_t line = end ? (size_t)(end - text) : n;

        if (end)
            take_line(text, line, out);
        text += line + (end ? 1 : 0);
        n -= line + (end ? 1 : 0);
    }
}

void live_progress_read(const char *dir, struct live_progress *out)
{
    struct err ignored = ERR_INIT;
    char text[TAIL_BYTES], *from = text;
    struct stat st;
    size_t got = 0;
    int fd = -1, file = -1;

    *out = (struct live_progress){0};
    if (os_open_dir(AT_FDCWD, dir, &fd, &ignored) == OK &&
        os_open(fd, "events.jsonl", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &file, &ignored) == OK &&
        os_stat(file, &st, &ignored) == OK) {
        const int64_t off = st.st_size > TAIL_BYTES ? st.st_size - TAIL_BYTES : 0;

        if (os_pread(file, text, sizeof(text), off, &got, &ignored) != OK)
            got = 0;
        if (off > 0 && got > 0) { /* the first line is cut */
            from = memchr(text, '\n', got);
            got = from ? got - (size_t)(++from - text) : 0;
        }
        if (got > 0)
            live_progress_parse(from, got, out);
    }
    os_close_quiet(&file);
    os_close_quiet(&fd);
}

/* ---- drawing ----------------------------------------------------------------------------------- */

static int columns(void)
{
    struct winsize w;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

void live_begin(struct live *v, const struct cli *c, const struct pipeline *p)
{
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    int width = 16;

    *v = (struct live){.c = c, .tasks = (int64_t)p->task_count};
    v->terminal =
        !c->json && !c->quiet && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    v->colour = v->terminal && !(no_colour && no_colour[0]);
    for (size_t i = 0; i < p->task_count && width < NAME_MAX_WIDTH; i++) {
        const int n = (int)strlen(p->tasks[i].name);

        if (n > width)
            width = n < NAME_MAX_WIDTH ? n : NAME_MAX_WIDTH;
    }
    v->width = width;
}

/* Takes the lines of what runs off the screen, so that a line that stays can be written. */
static void erase(struct live *v)
{
    if (v->drawn > 0)
        printf("\033[%dA\033[J", v->drawn);
    v->drawn = 0;
}

static const char *paint(const struct live *v, const char *code)
{
    return v->colour ? code : "";
}

static void put_name(const struct live *v, const char *name)
{
    struct buf text = {0};

    buf_init(&text, 4096);
    cli_escape(&text, name, strlen(name));
    printf(" %-*s ", v->width, text.p ? text.p : "");
    buf_release(&text);
}

static const char *sign(const struct live *v, enum sched_state s)
{
    if (!v->terminal)
        return s == SCHED_FAILED ? "FAILED" : sched_state_words[s];
    if (s == SCHED_CACHED)
        return "\u2713 cached";
    if (s == SCHED_DONE)
        return "\u2713";
    return s == SCHED_FAILED ? "\u2717 failed" : sched_state_words[s];
}

static void put_tail(const struct live *v, const char *tail)
{
    struct str line;
    struct buf text = {0};
    size_t at = 0;
    const struct buf list = {.p = (char *)(uintptr_t)tail, .n = strlen(tail)};

    buf_init(&text, 1 << 16);
    while (cli_next_line(&list, &at, &line)) {
        buf_clear(&text);
        cli_escape(&text, line.p, line.n);
        printf("   %s|%s %s\n", paint(v, "\033[2m"), paint(v, "\033[0m"), text.p ? text.p : "");
    }
    buf_release(&text);
}

static void put_ended(struct live *v, const struct run_event *e)
{
    const char *colour = e->state == SCHED_FAILED                             ? "\033[31m"
                         : e->state == SCHED_DONE || e->state == SCHED_CACHED ? "\033[32m"
                                                                              : "\033[2m";
    char took[24] = "";

    put_name(v, e->task->name);
    printf("%s%s%s", paint(v, colour), sign(v, e->state), paint(v, "\033[0m"));
    if (e->state == SCHED_DONE || e->state == SCHED_FAILED) {
        live_duration(e->wall_ms, took);
        printf(" %s", took);
    }
    if (e->reason)
        printf("  %s", e->reason);
    printf("\n");
    if (e->log_tail)
        put_tail(v, e->log_tail);
}

static void put_running(const struct live *v, const struct run_running *r, int width)
{
    struct live_progress p;
    char took[24], line[512], eta[40] = "";
    const int64_t ms = (os_now_ns() - r->started_ns) / 1000000;

    live_progress_read(r->dir, &p);
    live_duration(ms, took);
    if (p.known && p.total > 0 && p.done > 0 && p.done < p.total) {
        char left[24];

        live_duration((int64_t)((double)ms * (p.total - p.done) / p.done), left);
        (void)snprintf(eta, sizeof(eta), "  eta %s", left);
    }
    if (p.known && p.total > 0)
        (void)snprintf(line, sizeof(line), "\u25b6 %3.0f%%  %.0f/%.0f %s  %s%s",
                       100 * p.done / p.total, p.done, p.total, p.unit, p.metrics, eta);
    else
        (void)snprintf(line, sizeof(line), "\u25b6 %s  %s", took, p.metrics);
    put_name(v, r->task->name);
    printf("%.*s\n", width > v->width + 4 ? (width - v->width - 4) : 8, line);
}

static void draw_running(struct live *v, const struct run_event *e)
{
    const int width = columns();

    erase(v);
    for (size_t i = 0; i < e->running_count && i < RUNNING_LINES_MAX; i++) {
        put_running(v, &e->running[i], width);
        v->drawn++;
    }
    if (e->running_count > RUNNING_LINES_MAX) {
        printf(" ... and %zu more\n", e->running_count - RUNNING_LINES_MAX);
        v->drawn++;
    }
}

static const char *const kind_words[] = {"begun", "adopted", "started", "ended",
                                         "retry", "waits",   "tick"};

static enum err_code as_json(const struct run_event *e, struct err *err)
{
    json_t *v = json_pack("{s:s, s:I}", "kind", kind_words[e->kind], "run", (json_int_t)e->run);

    if (e->task) {
        json_object_set_new(v, "task", cli_json_name(e->task->name, strlen(e->task->name)));
        json_object_set_new(v, "state", json_string(sched_state_words[e->state]));
        json_object_set_new(v, "attempt", json_integer(e->attempt));
    }
    if (e->kind == RUN_ENDED) {
        json_object_set_new(v, "wall_ms", json_integer(e->wall_ms));
        if (!digest_is_zero(&e->result))
            json_object_set_new(v, "result", cli_json_digest(&e->result));
    }
    if (e->reason)
        json_object_set_new(v, "reason", json_string(e->reason));
    return cli_json(v, err);
}

enum err_code live_event(void *live, const struct run_event *e, struct err *err)
{
    struct live *v = live;

    if (v->c->json)
        return e->kind == RUN_TICK ? OK : as_json(e, err);
    if (v->c->quiet && !(e->kind == RUN_ENDED && e->state == SCHED_FAILED))
        return OK;
    switch (e->kind) {
    case RUN_ENDED:
        erase(v);
        put_ended(v, e);
        break;
    case RUN_RETRY:
    case RUN_WAITS:
    case RUN_ADOPTED:
        erase(v);
        put_name(v, e->task->name);
        printf("%s%s%s\n", kind_words[e->kind], e->reason ? "  " : "", e->reason ? e->reason : "");
        break;
    case RUN_TICK:
        if (v->terminal)
            draw_running(v, e);
        break;
    case RUN_BEGUN:
    case RUN_STARTED:
        return OK;
    }
    (void)fflush(stdout);
    return OK;
}

void live_end(struct live *v)
{
    erase(v);
    (void)fflush(stdout);
}

void live_summary(const struct live *v, const struct run_report *r)
{
    static const struct {
        enum sched_state state;
        const char *word;
    } parts[] = {{SCHED_SKIPPED, "skipped"},
                 {SCHED_FAILED, "failed"},
                 {SCHED_BLOCKED, "not tried"},
                 {SCHED_STOPPED, "stopped"},
                 {SCHED_UNSELECTED, "left out"}};
    char took[24];

    if (v->c->json || v->c->quiet)
        return;
    printf("%lld run, %lld reused", (long long)r->counts[SCHED_DONE],
           (long long)r->counts[SCHED_CACHED]);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (r->counts[parts[i].state])
            printf(", %lld %s", (long long)r->counts[parts[i].state], parts[i].word);
    if (r->retries)
        printf(", %lld tried again", (long long)r->retries);
    live_duration(r->wall_ms, took);
    printf("  (run-%lld%s, %s)\n", (long long)r->run, r->resumed ? " went on" : "", took);
}
