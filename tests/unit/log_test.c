#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "tests/check.h"

/* stderr goes to fd between capture and captured. */
static int saved_stderr;

static void capture(int fd)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    EXPECT(saved_stderr >= 0);
    EXPECT(dup2(fd, STDERR_FILENO) >= 0);
}

static void release(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    log_setup(LOG_INFO);
}

/* What was written to the other end.  A terminal passes bytes on in its own time, so a mark is sent
 * after them, and what comes before the mark is all there was. */
static void read_back(int from, int to, char *out, size_t size)
{
    struct pollfd ready = {.fd = from, .events = POLLIN};
    char *mark = NULL;
    size_t n = 0;

    EXPECT_EQ(write(to, "<end>", 5), 5);
    for (out[0] = '\0'; !mark; mark = strstr(out, "<end>")) {
        EXPECT_EQ(poll(&ready, 1, 10000), 1);

        const ssize_t got = read(from, out + n, size - 1 - n);

        EXPECT(got > 0);
        n += (size_t)got;
        out[n] = '\0';
    }
    *mark = '\0';
}

TEST(lines_have_their_level)
{
    static const struct {
        enum log_level level;
        const char *expected;
    } cases[] = {
        {LOG_ERROR, "weir: error: e 1\n"},
        {LOG_WARN, "weir: error: e 1\nweir: warning: w\n"},
        {LOG_INFO, "weir: error: e 1\nweir: warning: w\nweir: i\n"},
        {LOG_DEBUG, "weir: error: e 1\nweir: warning: w\nweir: i\nweir: debug: d\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct progress progress;
        char said[512];
        int pipes[2];

        EXPECT_EQ(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
        capture(pipes[1]);
        log_setup(cases[i].level);
        log_line(LOG_ERROR, "e %d", 1);
        log_line(LOG_WARN, "w");
        log_line(LOG_INFO, "i");
        log_line(LOG_DEBUG, "d");
        progress_begin(&progress, "adding", "files", 2); /* no terminal: nothing */
        atomic_store(&progress.shown_ns, 0);
        progress_add(&progress, 1);
        progress_end(&progress);
        release();
        read_back(pipes[0], pipes[1], said, sizeof(said));
        EXPECT_STR(said, cases[i].expected);
        close(pipes[0]);
        close(pipes[1]);
    }
}

TEST(control_bytes_are_shown_and_long_lines_cut)
{
    static char longer[10000], said[20000];
    int pipes[2];

    memset(longer, 'x', sizeof(longer) - 1);
    EXPECT_EQ(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
    capture(pipes[1]);
    log_setup(LOG_INFO);
    log_line(LOG_INFO, "%s", "a\033[2Jb\rc\td\ne");
    release();
    read_back(pipes[0], pipes[1], said, sizeof(said));
    EXPECT_STR(said, "weir: a?[2Jb?c\td\ne\n");

    capture(pipes[1]);
    log_line(LOG_INFO, "%s", longer);
    release();
    read_back(pipes[0], pipes[1], said, sizeof(said));
    EXPECT(strlen(said) > 4000);
    EXPECT(strlen(said) < 4200);
    EXPECT_EQ(said[strlen(said) - 1], '\n');
    close(pipes[0]);
    close(pipes[1]);
}

/* A pair of terminal ends that change no byte. */
static void open_terminal(int *master, int *slave)
{
    struct termios plain;

    *master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    EXPECT(*master >= 0);
    EXPECT_EQ(grantpt(*master), 0);
    EXPECT_EQ(unlockpt(*master), 0);
    *slave = open(ptsname(*master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    EXPECT(*slave >= 0);
    EXPECT_EQ(tcgetattr(*slave, &plain), 0);
    cfmakeraw(&plain);
    EXPECT_EQ(tcsetattr(*slave, TCSANOW, &plain), 0);
}

TEST(colours_only_where_they_are_wanted)
{
    static const struct {
        const char *term, *no_colour, *expected;
    } cases[] = {
        {"xterm", NULL, "weir: \033[31merror: \033[0me\n"},
        {"xterm", "", "weir: \033[31merror: \033[0me\n"},
        {"xterm", "1", "weir: error: e\n"},
        {"dumb", NULL, "weir: error: e\n"},
        {NULL, NULL, "weir: error: e\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char said[256];
        int master, slave;

        open_terminal(&master, &slave);
        unsetenv("TERM");
        unsetenv("NO_COLOR");
        if (cases[i].term)
            setenv("TERM", cases[i].term, 1);
        if (cases[i].no_colour)
            setenv("NO_COLOR", cases[i].no_colour, 1);
        capture(slave);
        log_setup(LOG_INFO);
        log_line(LOG_ERROR, "e");
        release();
        read_back(master, slave, said, sizeof(said));
        EXPECT_STR(said, cases[i].expected);
        close(master);
        close(slave);
    }
    unsetenv("NO_COLOR");
}

/* As if it had begun seconds ago and not been shown since. */
static void age(struct progress *p, int64_t seconds)
{
    p->started_ns = os_monotonic_ns() - seconds * 1000000000;
    atomic_store(&p->shown_ns, p->started_ns);
}

/* The clock is the real one: times and counts are such that some seconds more change no digit. */
TEST(progress_is_drawn_wiped_and_not_too_often)
{
    struct progress p;
    char said[512];
    int master, slave;

    open_terminal(&master, &slave);
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    capture(slave);
    log_setup(LOG_INFO);
    progress_begin(&p, "adding", "bytes", 11 << 10);
    progress_add(&p, 1); /* too early */
    age(&p, 1003);
    progress_add(&p, 5119);
    progress_add(&p, 5120); /* again too early */
    log_line(LOG_INFO, "a line");
    age(&p, 1003);
    progress_add(&p, 0);
    progress_end(&p);
    progress_end(&p);
    release();
    read_back(master, slave, said, sizeof(said));
    EXPECT_STR(said, "\r\033[Kadding 5.0 KiB/11.0 KiB, 5 B/s, 20m03s left"
                     "\r\033[Kweir: a line\n"
                     "\r\033[Kadding 10.0 KiB/11.0 KiB, 10 B/s, 1m40s left"
                     "\r\033[K");

    capture(slave);
    log_setup(LOG_INFO);
    progress_begin(&p, "checking", "files", 0); /* how many is not known */
    age(&p, 1000);
    progress_add(&p, 7200);
    progress_end(&p);
    progress_begin(&p, "checking", "files", 100000);
    age(&p, 36020);
    progress_add(&p, 50000);
    progress_end(&p);
    log_setup(LOG_ERROR); /* --quiet */
    progress_begin(&p, "checking", "files", 0);
    age(&p, 1000);
    progress_add(&p, 1);
    progress_end(&p);
    progress_begin(NULL, "x", "y", 1);
    progress_add(NULL, 1);
    progress_end(NULL);
    release();
    read_back(master, slave, said, sizeof(said));
    EXPECT_STR(said, "\r\033[Kchecking 7200 files, 7/s"
                     "\r\033[K"
                     "\r\033[Kchecking 50000/100000 files, 1/s, 10h00m left"
                     "\r\033[K");
    close(master);
    close(slave);
    unsetenv("NO_COLOR");
}

static void *add_many(void *arg)
{
    for (int i = 0; i < 10000; i++)
        progress_add(arg, 3);
    return NULL;
}

TEST(threads_count_together)
{
    struct progress p;
    pthread_t threads[4];

    progress_begin(&p, "adding", "bytes", 120000);
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(pthread_create(&threads[i], NULL, add_many, &p), 0);
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(pthread_join(threads[i], NULL), 0);
    progress_end(&p);
    EXPECT_EQ(atomic_load(&p.done), 120000);
}

RUN(lines_have_their_level, control_bytes_are_shown_and_long_lines_cut,
    colours_only_where_they_are_wanted, progress_is_drawn_wiped_and_not_too_often,
    threads_count_together)
