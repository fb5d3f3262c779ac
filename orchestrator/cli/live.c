#include "orchestrator/cli/live.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/os.h"

#define TAIL_BYTES (16 << 10)
#define NAME_MAX_WIDTH 44
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

void live_clean(struct buf *out, const char *text, size_t n)
{
    struct buf escaped;

    buf_init(&escaped, 8 * n + 16);
    cli_escape(&escaped, text, n);
    for (size_t i = 0; i < escaped.n; i++) {
        buf_char(out, escaped.p[i]);
        if (escaped.n - i >= 3 && memcmp(escaped.p + i, "%25", 3) == 0)
            i += 2;
    }
    buf_release(&escaped);
}

/* Into storage of room bytes, cut at a whole character. */
static void clean_into(char *out, size_t room, const char *text)
{
    struct buf clean;
    size_t n;

    buf_init(&clean, 1 << 20);
    live_clean(&clean, text, strnlen(text, 4 * room));
    for (n = clean.n < room ? clean.n : room - 1; n > 0 && n < clean.n; n--)
        if (((unsigned char)clean.p[n] & 0xC0) != 0x80)
            break;
    if (n > 0)
        memcpy(out, clean.p, n);
    out[n] = '\0';
    buf_release(&clean);
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
        char label[25];
        int wrote;

        clean_into(label, sizeof(label), name);
        if (shown == METRICS_SHOWN || n + 48 > sizeof(out->metrics))
            break;
        if (json_is_number(value))
            wrote = snprintf(out->metrics + n, sizeof(out->metrics) - n, "%s%s %.4g",
                             shown ? "  " : "", label, json_number_value(value));
        else
            wrote = snprintf(out->metrics + n, sizeof(out->metrics) - n, "%s%s nan",
                             shown ? "  " : "", label);
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
        clean_into(out->unit, sizeof(out->unit), unit ? unit : "");
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

/* ---- one line ---------------------------------------------------------------------------------- */

void live_progress_text(const struct live_progress *p, int64_t ms, double rate, struct buf *out)
{
    const bool known = p->known && p->total > 0 && p->done >= 0;
    char took[24];

    if (known) {
        const double part = p->done < p->total ? p->done / p->total : 1;

        buf_printf(out, "\u25b6 %3.0f%%  %.10g/%.10g%s%s", floor(100 * part), p->done, p->total,
                   p->unit[0] ? " " : "", p->unit);
    } else {
        live_duration(ms, took);
        buf_printf(out, "\u25b6 %s", took);
    }
    if (rate > 0)
        buf_printf(out, "  %.3g/s", rate);
    if (p->metrics[0])
        buf_printf(out, "  %s", p->metrics);
    /* Past a month it is no estimate any more. */
    if (known && rate > 0 && p->done < p->total && (p->total - p->done) / rate < 2.6e6) {
        live_duration((int64_t)((p->total - p->done) / rate * 1000), took);
        buf_printf(out, "  eta %s", took);
    }
}

/* The character at p: its bytes, and the columns it takes.  The text is clean UTF-8 (live_clean). */
static size_t character(const char *p, size_t n, int *columns)
{
    const unsigned char c = (unsigned char)*p;
    const size_t length = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    uint32_t u = length == 1 ? c : c & (0x7Fu >> length);

    for (size_t i = 1; i < length && i < n; i++)
        u = u << 6 | ((unsigned char)p[i] & 0x3F);
    /* Combining marks take none; East Asian scripts and pictures two. */
    *columns =
        (u >= 0x300 && u < 0x370) || u == 0x200B || u == 0x200D || (u >= 0xFE00 && u < 0xFE10) ? 0
        : (u >= 0x1100 && u < 0x1160) || (u >= 0x2E80 && u < 0xA4D0) ||
                (u >= 0xAC00 && u < 0xD7A4) || (u >= 0xF900 && u < 0xFB00) ||
                (u >= 0xFE30 && u < 0xFE70) || (u >= 0xFF00 && u < 0xFF61) ||
                (u >= 0x1F300 && u < 0x1FB00) || (u >= 0x20000 && u < 0x40000)
            ? 2
            : 1;
    return length < n ? length : n;
}

int live_cut(struct buf *text, int columns)
{
    int used = 0, fits_columns = 0;
    size_t fits = 0; /* what leaves room for the sign that it was cut */

    for (size_t i = 0; i < text->n;) {
        int wide;
        const size_t n = character(text->p + i, text->n - i, &wide);

        if (used + wide > columns) {
            text->n = fits;
            text->p[fits] = '\0';
            buf_str(text, "\u2026");
            return fits_columns + 1;
        }
        used += wide;
        i += n;
        if (used < columns) {
            fits = i;
            fits_columns = used;
        }
    }
    return used;
}

/* ---- drawing ----------------------------------------------------------------------------------- */

static void size_of_terminal(int *columns, int *rows)
{
    struct winsize w;
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0;

    *columns = known ? w.ws_col : 80;
    *rows = known && w.ws_row > 0 ? w.ws_row : 24;
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
    int columns, rows, up = 0;

    if (v->drawn == 0)
        return;
    size_of_terminal(&columns, &rows);
    for (int i = 0; i < v->drawn; i++)
        up += 1 + (v->drawn_width[i] > 0 ? (v->drawn_width[i] - 1) / columns : 0);
    printf("\033[%dA\r\033[J", up < rows ? up : rows);
    v->drawn = 0;
}

static const char *paint(const struct live *v, const char *code)
{
    return v->colour ? code : "";
}

static void add_name(const struct live *v, const char *name, struct buf *out)
{
    struct buf text = {0};
    int used;

    buf_init(&text, 4096);
    cli_escape(&text, name, strlen(name));
    used = live_cut(&text, 4096);
    buf_printf(out, " %s%*s ", text.p ? text.p : "", used < v->width ? v->width - used : 0, "");
    buf_release(&text);
}

static void put_name(const struct live *v, const char *name)
{
    struct buf text = {0};

    buf_init(&text, 1 << 16);
    add_name(v, name, &text);
    printf("%s", text.p ? text.p : "");
    buf_release(&text);
}

static void put_text(const char *before, const char *text, const char *after)
{
    struct buf clean = {0};

    buf_init(&clean, 1 << 20);
    live_clean(&clean, text, strlen(text));
    printf("%s%s%s", before, clean.p ? clean.p : "", after);
    buf_release(&clean);
}

static const char *sign(const struct live *v, enum sched_state s)
{
    if (!v->terminal)
        return s == SCHED_FAILED       ? "FAILED"
               : s == SCHED_UNSELECTED ? "left out"
                                       : sched_state_words[s];
    if (s == SCHED_CACHED)
        return "\u2713 cached";
    if (s == SCHED_DONE)
        return "\u2713";
    if (s == SCHED_FAILED)
        return "\u2717 failed";
    return s == SCHED_UNSELECTED ? "left out" : sched_state_words[s];
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
        live_clean(&text, line.p, line.n);
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
        put_text("  ", e->reason, "");
    printf("\n");
    if (e->log_tail)
        put_tail(v, e->log_tail);
}

/* Units a second since this attempt was first looked at; 0: not known yet. */
static double rate_of(struct live *v, const struct run_running *r, const struct live_progress *p)
{
    struct live_seen *s = NULL;
    const int64_t now = os_now_ns();

    for (int i = 0; i < LIVE_LINES_MAX && !s; i++)
        if (v->seen[i].task == r->task && v->seen[i].attempt == r->attempt)
            s = &v->seen[i];
    if (s)
        return now > s->at_ns && p->done > s->done
                   ? (p->done - s->done) / ((double)(now - s->at_ns) / 1e9)
                   : 0;
    s = &v->seen[0];
    for (int i = 1; i < LIVE_LINES_MAX; i++)
        if (v->seen[i].at_ns < s->at_ns)
            s = &v->seen[i];
    *s = (struct live_seen){r->task, r->attempt, p->done, now};
    return 0;
}

static void put_line(struct live *v, struct buf *line, int columns)
{
    /* The last column stays free: some terminals wrap when it is written. */
    v->drawn_width[v->drawn++] = live_cut(line, columns > 1 ? columns - 1 : 1);
    printf("%s\n", line->p ? line->p : "");
}

static void put_running(struct live *v, const struct run_running *r, int columns)
{
    struct live_progress p;
    struct buf line = {0};
    double rate;

    buf_init(&line, 1 << 16);
    live_progress_read(r->dir, &p);
    rate = p.known ? rate_of(v, r, &p) : 0;
    add_name(v, r->task->name, &line);
    live_progress_text(&p, (os_now_ns() - r->started_ns) / 1000000, rate, &line);
    put_line(v, &line, columns);
    buf_release(&line);
}

/* How far the whole run is. */
static void put_count(struct live *v, const struct run_event *e, size_t hidden, int columns)
{
    struct buf line = {0};
    int64_t ended = 0;

    for (int i = 0; i < SCHED_STATE_COUNT; i++)
        if (e->counts && i >= SCHED_CACHED) /* states from there on are final */
            ended += e->counts[i];
    buf_init(&line, 4096);
    buf_str(&line, " ");
    if (hidden > 0)
        buf_printf(&line, "... and %zu more; ", hidden);
    buf_printf(&line, "%lld of %lld tasks done, %zu running", (long long)ended, (long long)v->tasks,
               e->running_count);
    put_line(v, &line, columns);
    buf_release(&line);
}

static void draw_running(struct live *v, const struct run_event *e)
{
    int columns, rows;
    size_t lines = LIVE_LINES_MAX - 1;

    erase(v);
    size_of_terminal(&columns, &rows);
    /* More than the screen holds cannot be taken off it again. */
    if (rows < LIVE_LINES_MAX + 2)
        lines = rows > 4 ? (size_t)rows - 3 : 1;
    if (e->running_count < lines)
        lines = e->running_count;
    for (size_t i = 0; i < lines; i++)
        put_running(v, &e->running[i], columns);
    if (v->tasks > 1)
        put_count(v, e, e->running_count - lines, columns);
}

static const char *const kind_words[] = {"begun", "adopted", "started", "ended",
                                         "retry", "waits",   "tick"};

static const char *const kind_phrases[] = {"", "goes on  ", "", "", "tries again  ", "waits  ", ""};

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
    if (e->reason) {
        struct buf clean = {0};

        buf_init(&clean, 1 << 20);
        live_clean(&clean, e->reason, strlen(e->reason));
        json_object_set_new(v, "reason", json_string(clean.p ? clean.p : ""));
        buf_release(&clean);
    }
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
        put_text(kind_phrases[e->kind], e->reason ? e->reason : "", "\n");
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

static enum err_code summary_json(const struct run_report *r, struct err *err)
{
    json_t *counts = json_object();

    for (int i = 0; i < SCHED_STATE_COUNT; i++)
        if (r->counts[i])
            json_object_set_new(counts, sched_state_words[i], json_integer(r->counts[i]));
    return cli_json(json_pack("{s:s, s:I, s:o, s:I, s:b, s:b, s:I}", "kind", "summary", "run",
                              (json_int_t)r->run, "counts", counts, "retries",
                              (json_int_t)r->retries, "resumed", r->resumed, "detached",
                              r->detached, "wall_ms", (json_int_t)r->wall_ms),
                    err);
}

enum err_code live_summary(const struct live *v, const struct run_report *r, struct err *err)
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
    int64_t rest = v->tasks;

    if (v->c->json)
        return summary_json(r, err);
    if (v->c->quiet)
        return OK;
    for (int i = 0; i < SCHED_STATE_COUNT; i++)
        rest -= r->counts[i];
    printf("%lld run, %lld reused", (long long)r->counts[SCHED_DONE],
           (long long)r->counts[SCHED_CACHED]);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (r->counts[parts[i].state])
            printf(", %lld %s", (long long)r->counts[parts[i].state], parts[i].word);
    if (rest > 0)
        printf(", %lld %s", (long long)rest, r->detached ? "left as they are" : "not finished");
    if (r->retries)
        printf(", %lld tried again", (long long)r->retries);
    live_duration(r->wall_ms, took);
    printf("  (run-%lld%s, %s)\n", (long long)r->run, r->resumed ? " went on" : "", took);
    return OK;
}
