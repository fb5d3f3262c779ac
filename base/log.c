/* Every line goes out in one write, so lines of several processes on one terminal do not mix.  The
 * progress line has no line end: it is wiped before anything else is printed and drawn again with
 * the next count. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/str.h"

#define LOG_LINE_MAX 4096
#define NS_PER_S 1000000000.0
#define SHOW_EVERY_NS 100000000 /* ten times a second */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_level log_level = LOG_INFO;
static bool log_terminal, log_colour;
static bool log_progress_shown; /* the cursor is behind a progress line */

static const struct {
    const char *label, *colour;
} log_rows[] = {
    [LOG_ERROR] = {"error: ", "\033[31m"},
    [LOG_WARN] = {"warning: ", "\033[33m"},
    [LOG_INFO] = {"", ""},
    [LOG_DEBUG] = {"debug: ", "\033[2m"},
};

static void lock(void)
{
    CHECK(pthread_mutex_lock(&log_lock) == 0);
}

static void unlock(void)
{
    CHECK(pthread_mutex_unlock(&log_lock) == 0);
}

void log_setup(enum log_level level)
{
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    const bool terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;

    lock();
    log_level = level;
    log_terminal = terminal;
    log_colour = terminal && !(no_colour && *no_colour); /* no-color.org: set and not empty */
    unlock();
}

/* stderr is the last resort: where it cannot be written there is nobody left to tell. */
static void put(const struct buf *b)
{
    size_t done = 0;

    while (done < b->n) {
        const ssize_t n = write(STDERR_FILENO, b->p + done, b->n - done);

        if (n <= 0)
            return;
        done += (size_t)n;
    }
}

static void wipe_progress(struct buf *b)
{
    if (log_progress_shown)
        buf_str(b, "\r\033[K");
    log_progress_shown = false;
}

/* A control byte in a file name must not move the cursor.  Lists of errors keep their lines. */
static void tidy(char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\n' && *text != '\t') || *text == 0x7f)
            *text = '?';
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char text[LOG_LINE_MAX];
    struct buf b;
    va_list ap;

    CHECK((unsigned)level < sizeof(log_rows) / sizeof(log_rows[0]));
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    tidy(text);

    lock();
    if (level <= log_level) {
        const char *colour = log_colour ? log_rows[level].colour : "";

        buf_init(&b, LOG_LINE_MAX + 64);
        wipe_progress(&b);
        buf_printf(&b, "weir: %s%s%s%s\n", colour, log_rows[level].label, *colour ? "\033[0m" : "",
                   text);
        put(&b);
        buf_release(&b);
    }
    unlock();
}

/* ---- progress ---------------------------------------------------------------------------------- */

static void add_count(struct buf *b, const struct progress *p, double count)
{
    char size[16];

    if (strcmp(p->unit, "bytes") == 0) {
        str_from_bytes((int64_t)count, size);
        buf_str(b, size);
    } else {
        buf_printf(b, "%.0f", count);
    }
}

static void add_duration(struct buf *b, double seconds)
{
    const long s = (long)seconds;

    if (s < 60)
        buf_printf(b, "%lds", s);
    else if (s < 3600)
        buf_printf(b, "%ldm%02lds", s / 60, s % 60);
    else
        buf_printf(b, "%ldh%02ldm", s / 3600, s / 60 % 60);
}

/* "adding 12.0 MiB/48.0 MiB, 4.0 MiB/s, 9s left" */
static void draw(struct progress *p, int64_t now_ns)
{
    const double done = (double)atomic_load(&p->done), total = (double)atomic_load(&p->total);
    const double seconds = (double)(now_ns - p->started_ns) / NS_PER_S;
    const double rate = seconds > 0 ? done / seconds : 0;
    struct buf b;

    buf_init(&b, LOG_LINE_MAX);
    buf_printf(&b, "\r\033[K%s ", p->verb);
    add_count(&b, p, done);
    if (total > 0) {
        buf_char(&b, '/');
        add_count(&b, p, total);
    }
    if (strcmp(p->unit, "bytes") != 0)
        buf_printf(&b, " %s", p->unit);
    buf_str(&b, ", ");
    add_count(&b, p, rate);
    buf_str(&b, "/s");
    if (rate > 0 && total > done) {
        buf_str(&b, ", ");
        add_duration(&b, (total - done) / rate);
        buf_str(&b, " left");
    }
    put(&b);
    buf_release(&b);
    log_progress_shown = true;
}

void progress_begin(struct progress *p, const char *verb, const char *unit, int64_t total)
{
    if (!p)
        return;
    CHECK(verb);
    CHECK(unit);
    p->verb = verb;
    p->unit = unit;
    atomic_init(&p->done, 0);
    atomic_init(&p->total, total);
    p->started_ns = os_monotonic_ns();
    /* The first line after a tenth of a second: what is done by then needs none. */
    atomic_init(&p->shown_ns, p->started_ns);
}

void progress_add(struct progress *p, int64_t n)
{
    if (!p)
        return;
    atomic_fetch_add(&p->done, n);

    const int64_t now_ns = os_monotonic_ns();
    int64_t shown_ns = atomic_load(&p->shown_ns);

    /* Of several threads that find it is time, the one that moves shown_ns draws. */
    if (now_ns - shown_ns < SHOW_EVERY_NS ||
        !atomic_compare_exchange_strong(&p->shown_ns, &shown_ns, now_ns))
        return;
    lock();
    if (log_terminal && log_level >= LOG_INFO)
        draw(p, now_ns);
    unlock();
}

void progress_end(struct progress *p)
{
    struct buf b;

    if (!p)
        return;
    lock();
    buf_init(&b, 16);
    wipe_progress(&b);
    put(&b);
    buf_release(&b);
    unlock();
}
