/* Downloads and packages: against a server of a few lines in a thread of its own, and an apt-get that copies. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "orchestrator/fetch.h"
#include "orchestrator/tool.h"
#include "tests/source_rig.h"

/* ---- the server ----------------------------------------------------------------------------------- */

#define BODY_BYTES 300000
struct server {
    int listener, port;
    pthread_t thread;
    atomic_int requests, ranges, fails; /* fails: so many answers are cut or refused first */
    atomic_bool stop;
    char body[BODY_BYTES];
};

static void say(int fd, const void *p, size_t n)
{
    const char *at = p;

    while (n) {
        const ssize_t done = send(fd, at, n, MSG_NOSIGNAL);

        if (done <= 0)
            return;
        at += done;
        n -= (size_t)done;
    }
}

static void answer(int fd, const char *status, const char *more, const char *body, size_t n,
                   size_t sent)
{
    char head[400];

    (void)snprintf(head, sizeof(head),
                   "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n", status,
                   more, n);
    say(fd, head, strlen(head));
    say(fd, body, sent);
}

/* /ok, /cut and /norange serve the body; the first answers of /cut end in the middle. */
static void serve(struct server *s, int fd)
{
    char request[4096] = "", more[200];
    const char *range;
    size_t got = 0, from = 0;

    while (got < sizeof(request) - 1 && !strstr(request, "\r\n\r\n")) {
        const ssize_t n = recv(fd, request + got, sizeof(request) - 1 - got, 0);

        if (n <= 0)
            return;
        got += (size_t)n;
        request[got] = '\0';
    }
    s->requests++;
    range = strstr(request, "Range: bytes=");
    if (range) {
        from = strtoul(range + strlen("Range: bytes="), NULL, 10);
        s->ranges++;
    }
    if (strstr(request, "GET /missing"))
        answer(fd, "404 Not Found", "", "no", 2, 2);
    else if (strstr(request, "GET /busy") && s->fails-- > 0)
        answer(fd, "503 Busy", "", "no", 2, 2);
    else if (strstr(request, "GET /loop"))
        answer(fd, "302 Found", "Location: /loop\r\n", "", 0, 0);
    else if (strstr(request, "GET /away"))
        answer(fd, "302 Found", "Location: file:///etc/passwd\r\n", "", 0, 0);
    else if (strstr(request, "GET /here"))
        answer(fd, "302 Found", "Location: /ok\r\n", "", 0, 0);
    else if (strstr(request, "GET /norange"))
        answer(fd, "200 OK", "", s->body, BODY_BYTES, s->fails-- > 0 ? 100000 : BODY_BYTES);
    else if (from >= BODY_BYTES)
        answer(fd, "416 Range Not Satisfiable", "", "", 0, 0);
    else {
        const size_t rest = BODY_BYTES - from;

        (void)snprintf(more, sizeof(more), "Content-Range: bytes %zu-%d/%d\r\n", from,
                       BODY_BYTES - 1, BODY_BYTES);
        answer(fd, from ? "206 Partial Content" : "200 OK", from ? more : "", s->body + from, rest,
               strstr(request, "GET /cut") && s->fails-- > 0 ? rest / 2 : rest);
    }
}

static void *serving(void *arg)
{
    struct server *s = arg;

    for (;;) {
        const int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0 || s->stop) {
            close(fd);
            return NULL;
        }
        serve(s, fd);
        (void)shutdown(fd, SHUT_WR);
        close(fd);
    }
}

static struct server *server_new(void)
{
    struct server *s = mem_zero(1, sizeof(*s));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);

    (void)setenv("no_proxy", "*", 1);
    for (size_t i = 0; i < BODY_BYTES; i++)
        s->body[i] = (char)('a' + (i * 7919 >> 5) % 26);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(s->listener >= 0);
    EXPECT_EQ(bind(s->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    EXPECT_EQ(listen(s->listener, 8), 0);
    EXPECT_EQ(getsockname(s->listener, (struct sockaddr *)&at, &n), 0);
    s->port = ntohs(at.sin_port);
    EXPECT_EQ(pthread_create(&s->thread, NULL, serving, s), 0);
    return s;
}

static void server_free(struct server *s)
{
    s->stop = true;
    (void)shutdown(s->listener, SHUT_RDWR);
    EXPECT_EQ(pthread_join(s->thread, NULL), 0);
    close(s->listener);
    free(s);
}

/* ---- fetch ---------------------------------------------------------------------------------------- */

struct world {
    struct rig g;
    struct server *s;
    int dir;
    struct fetched got;
    char url[200];
};

static void world_new(struct world *w)
{
    *w = (struct world){.dir = -1};
    rig_new(&w->g);
    w->s = server_new();
    EXPECT_OK(os_open_dir(AT_FDCWD, w->g.dir, &w->dir, &w->g.err), &w->g.err);
}

static void world_free(struct world *w)
{
    server_free(w->s);
    os_close_quiet(&w->dir);
    rig_free(&w->g);
}

static enum err_code fetch(struct world *w, const char *path, int64_t max)
{
    struct fetch f = {.url = w->url, .bytes_max = max, .pause_ms = 1};

    (void)snprintf(w->url, sizeof(w->url), "http://127.0.0.1:%d%s", w->s->port, path);
    sha256_of(w->s->body, BODY_BYTES, &f.want);
    w->g.err = (struct err)ERR_INIT;
    return fetch_file(w->dir, &f, &w->got, &w->g.err);
}

static void expect_body(struct world *w)
{
    struct buf text;

    buf_init(&text, 1 << 20);
    EXPECT_OK(os_read_file(w->dir, w->got.name, 1 << 20, &text, &w->g.err), &w->g.err);
    EXPECT_EQ(text.n, BODY_BYTES);
    EXPECT_MEM(text.p, w->s->body, BODY_BYTES);
    buf_release(&text);
    fetch_done(w->dir, &w->got, FETCH_REMOVE);
}

TEST(a_file_arrives_also_through_a_redirect)
{
    struct world w;

    world_new(&w);
    EXPECT_OK(fetch(&w, "/ok", 1 << 20), &w.g.err);
    expect_body(&w);
    EXPECT_OK(fetch(&w, "/here", 1 << 20), &w.g.err);
    expect_body(&w);
    world_free(&w);
}

TEST(a_cut_connection_is_taken_up_where_it_was_cut)
{
    struct world w;

    world_new(&w);
    w.s->fails = 3;
    EXPECT_OK(fetch(&w, "/cut", 1 << 20), &w.g.err);
    EXPECT_EQ(w.s->requests, 4);
    EXPECT_EQ(w.s->ranges, 3);
    EXPECT(!w.got.resumed);
    expect_body(&w);
    world_free(&w);
}

TEST(what_an_earlier_time_left_is_used)
{
    struct world w;

    world_new(&w);
    EXPECT_OK(fetch(&w, "/ok", 1 << 20), &w.g.err);
    EXPECT_EQ(truncate(rig_path(&w.g, w.got.name), 1000), 0);
    fetch_done(w.dir, &w.got, FETCH_KEEP);
    EXPECT_OK(fetch(&w, "/ok", 1 << 20), &w.g.err);
    EXPECT_EQ(w.s->ranges, 1);
    EXPECT(w.got.resumed);
    expect_body(&w);
    /* all of it was there: the server says that there is no rest, and sends it again */
    EXPECT_OK(fetch(&w, "/ok", 1 << 20), &w.g.err);
    fetch_done(w.dir, &w.got, FETCH_KEEP);
    EXPECT_OK(fetch(&w, "/ok", 1 << 20), &w.g.err);
    expect_body(&w);
    world_free(&w);
}

TEST(a_server_without_ranges_sends_it_anew)
{
    struct world w;

    world_new(&w);
    w.s->fails = 2;
    EXPECT_OK(fetch(&w, "/norange", 1 << 20), &w.g.err);
    expect_body(&w);
    world_free(&w);
}

TEST(a_busy_server_is_asked_again_and_not_for_ever)
{
    struct world w;

    world_new(&w);
    w.s->fails = 2;
    EXPECT_OK(fetch(&w, "/busy", 1 << 20), &w.g.err);
    expect_body(&w);
    w.s->fails = 1000;
    w.s->requests = 0;
    EXPECT_ERR(fetch(&w, "/busy", 1 << 20), ERR_MISSING, &w.g.err);
    EXPECT_SAYS(&w.g.err, "503");
    EXPECT_EQ(w.s->requests, FETCH_TRIES_MAX);
    world_free(&w);
}

TEST(what_cannot_be_fetched_says_why)
{
    struct world w;
    struct fetch f = {.bytes_max = 100, .pause_ms = 1, .url = "ftp://127.0.0.1/x"};

    world_new(&w);
    EXPECT_ERR(fetch(&w, "/missing", 1 << 20), ERR_MISSING, &w.g.err);
    EXPECT_SAYS(&w.g.err, "404");
    EXPECT_SAYS(&w.g.err, w.url);
    EXPECT_EQ(w.s->requests, 1);
    EXPECT_ERR(fetch(&w, "/loop", 1 << 20), ERR_MISSING, &w.g.err);
    EXPECT_SAYS(&w.g.err, "more than 5 redirects");
    EXPECT_ERR(fetch(&w, "/away", 1 << 20), ERR_INPUT, &w.g.err);
    EXPECT_ERR(fetch(&w, "/ok", 1000), ERR_LIMIT, &w.g.err);
    EXPECT_SAYS(&w.g.err, "larger than 1000 bytes");
    EXPECT(access(rig_path(&w.g, w.got.name), F_OK) != 0); /* nothing useless stays */
    w.g.err = (struct err)ERR_INIT;
    EXPECT_ERR(fetch_file(w.dir, &f, &w.got, &w.g.err), ERR_INPUT, &w.g.err);
    world_free(&w);
}

/* ---- url sources ---------------------------------------------------------------------------------- */

static void url_source(struct world *w, const char *path, const struct digest *want)
{
    char hex[DIGEST_HEX + 1], text[600];

    digest_hex(want, hex);
    (void)snprintf(text, sizeof(text),
                   "  a: {url: \"http://u:p@127.0.0.1:%d%s\", sha256: %s, license: MIT}\n",
                   w->s->port, path, hex);
    rig_pipeline(&w->g, text);
}

TEST(a_url_source_is_fetched_once_and_locked)
{
    const struct source_options offline = {.offline = true};
    struct world w;
    struct digest want;
    struct buf lock;
    bool changed;
    char *entry;

    world_new(&w);
    sha256_of(w.s->body, BODY_BYTES, &want);
    url_source(&w, "/ok", &want);
    EXPECT_ERR(rig_enter(&w.g, &offline), ERR_MISSING, &w.g.err);
    EXPECT_EQ(w.s->requests, 0);
    EXPECT_OK(rig_enter(&w.g, NULL), &w.g.err);
    EXPECT(digest_eq(&source_get(w.g.s, 0)->digest, &want));
    EXPECT_EQ(source_get(w.g.s, 0)->size, BODY_BYTES);
    entry = rig_text(&w.g, &source_get(w.g.s, 0)->entry, "");
    EXPECT(strstr(entry, "\"url\":\"http://127.0.0.1:") != NULL); /* the password is gone */
    free(entry);
    EXPECT_OK(sources_lock(w.g.s, &changed, &w.g.err), &w.g.err);
    EXPECT(changed);
    EXPECT_OK(sources_lock(w.g.s, &changed, &w.g.err), &w.g.err);
    EXPECT(!changed);
    buf_init(&lock, 1 << 16);
    EXPECT_OK(os_read_file(w.dir, "pipe.lock", 1 << 16, &lock, &w.g.err), &w.g.err);
    EXPECT(strstr(lock.p, "\"kind\":\"url\"") != NULL);
    buf_release(&lock);
    EXPECT_OK(rig_enter(&w.g, &offline), &w.g.err);
    EXPECT_EQ(w.s->requests, 1);
    world_free(&w);
}

TEST(another_file_than_the_one_meant_is_refused)
{
    struct world w;
    struct digest want, got;
    char text[DIGEST_TEXT + 1];
    struct loc loc;

    world_new(&w);
    sha256_of("other", 5, &want);
    sha256_of(w.s->body, BODY_BYTES, &got);
    url_source(&w, "/ok", &want);
    EXPECT_ERR(rig_enter(&w.g, NULL), ERR_CHANGED, &w.g.err);
    digest_text(&want, text);
    EXPECT_SAYS(&w.g.err, text);
    digest_text(&got, text);
    EXPECT_SAYS(&w.g.err, text);
    EXPECT_SAYS(&w.g.err, "pipe.yaml:4:3: source a: ");
    EXPECT_OK(object_locate(w.g.st, &got, 1, &loc, &w.g.err), &w.g.err);
    EXPECT_EQ(loc.type, 0); /* and is not in the store */
    world_free(&w);
}

TEST(half_of_another_file_is_no_reason_to_give_up)
{
    struct world w;
    struct digest want;
    char name[200], hex[DIGEST_HEX + 1];

    world_new(&w);
    sha256_of(w.s->body, BODY_BYTES, &want);
    digest_hex(&want, hex);
    (void)snprintf(name, sizeof(name), ".weir/cache/download/%s.part", hex);
    rig_file(&w.g, name, "what an earlier version began with");
    url_source(&w, "/ok", &want);
    EXPECT_OK(rig_enter(&w.g, NULL), &w.g.err);
    EXPECT(digest_eq(&source_get(w.g.s, 0)->digest, &want));
    EXPECT_EQ(w.s->requests, 2);
    EXPECT(access(rig_path(&w.g, name), F_OK) != 0);
    world_free(&w);
}

TEST(a_url_may_be_a_file)
{
    struct world w;
    struct digest want;
    char hex[DIGEST_HEX + 1], text[600];

    world_new(&w);
    rig_file(&w.g, "there.txt", "on this machine");
    sha256_of("on this machine", 15, &want);
    digest_hex(&want, hex);
    (void)snprintf(text, sizeof(text), "  a: {url: \"file://%s\", sha256: %s, license: MIT}\n",
                   rig_path(&w.g, "there.txt"), hex);
    rig_expect_text(&w.g, &rig_sources(&w.g, text)->digest, "", "on this machine");
    EXPECT_EQ(access(rig_path(&w.g, "there.txt"), F_OK), 0);
    world_free(&w);
}

/* ---- packages ------------------------------------------------------------------------------------- */

static void shell(const struct rig *g, const char *command)
{
    const char *const argv[] = {"sh", "-ec", command, NULL};
    const struct tool t = {.argv = argv, .dir = g->dir, .timeout_ms = 60000};
    struct tool_end end;
    struct err err = ERR_INIT;

    EXPECT_OK(tool_run(&t, &end, &err), &err);
    if (end.status)
        print_error("%s\n", end.said);
    EXPECT_EQ(end.status, 0);
}

/* pool/weir-pictures_VERSION_all.deb with this text in it */
static void make_deb(const struct rig *g, const char *version, const char *text)
{
    char command[4000];

    (void)snprintf(command, sizeof(command),
                   "rm -rf build && mkdir -p build/DEBIAN build/usr/share/pictures build/etc pool\n"
                   "printf 'Package: weir-pictures\\nVersion: %s\\nArchitecture: all\\n"
                   "Maintainer: n <n@example.org>\\nDescription: test\\n' >build/DEBIAN/control\n"
                   "printf %%s '%s' >build/usr/share/pictures/a.txt\n"
                   "ln -s /usr/share/pictures/a.txt build/etc/absolute\n"
                   "ln -s ../../../../../usr/./share/pictures/a.txt build/usr/share/outside\n"
                   "ln -s a.txt build/usr/share/pictures/plain\n"
                   "ln -s / build/etc/root\n"
                   "dpkg-deb --root-owner-group --build build pool >/dev/null\n",
                   version, text);
    shell(g, command);
}

static void apt(struct rig *g)
{
    char text[2000];

    (void)snprintf(text, sizeof(text),
                   "#!/bin/sh\n"
                   "echo \"$@\" >>'%s/apt.log'\n"
                   "[ \"$1\" = download ] || exit 2\n"
                   "v=${2#*=}; [ \"$v\" = \"$2\" ] && v=$(cat '%s/newest')\n"
                   "cp '%s/pool/'\"${2%%%%=*}_${v}_all.deb\" . || {\n"
                   "echo \"E: Version '$v' for '${2%%%%=*}' was not found\" >&2; exit 100; }\n",
                   g->dir, g->dir, g->dir);
    rig_file(g, "fake-apt", text);
    EXPECT_EQ(chmod(rig_path(g, "fake-apt"), 0755), 0);
    EXPECT_EQ(setenv("WEIR_APT_GET", rig_path(g, "fake-apt"), 1), 0);
    make_deb(g, "1.0-1", "first");
    rig_file(g, "newest", "1.0-1");
}

static int64_t fetches(const struct rig *g)
{
    struct buf log;
    struct err err = ERR_INIT;
    int64_t n = 0;

    buf_init(&log, 1 << 16);
    (void)!os_read_file(AT_FDCWD, rig_path(g, "apt.log"), 1 << 16, &log, &err);
    for (size_t i = 0; i < log.n; i++)
        n += log.p[i] == '\n';
    buf_release(&log);
    return n;
}

static void expect_link(struct rig *g, const struct digest *tree, const char *dir, const char *name,
                        const char *target)
{
    char *text = rig_text(g, tree, dir), want[300];

    (void)snprintf(want, sizeof(want), "{\"mode\":\"link\",\"name\":\"%s\",\"target\":\"%s\"}",
                   name, target);
    check_true(strstr(text, want) != NULL, text, __FILE__, __LINE__);
    free(text);
}

static const char deb_source[] = "  a: {deb: weir-pictures, license: CC0-1.0}\n";

TEST(a_package_is_unpacked_and_locked)
{
    struct rig g;
    struct digest tree;
    bool changed;
    char *entry;

    rig_new(&g);
    apt(&g);
    tree = rig_sources(&g, deb_source)->digest;
    rig_expect_text(&g, &tree, "usr/share/pictures/a.txt", "first");
    expect_link(&g, &tree, "etc", "absolute", "../usr/share/pictures/a.txt");
    expect_link(&g, &tree, "usr/share", "outside", "pictures/a.txt");
    expect_link(&g, &tree, "usr/share/pictures", "plain", "a.txt");
    entry = rig_text(&g, &source_get(g.s, 0)->entry, "");
    EXPECT(strstr(entry, "\"url\":\"deb:weir-pictures=1.0-1\"") != NULL);
    EXPECT(strstr(entry, "\"architecture\":\"all\"") != NULL);
    free(entry);
    EXPECT_OK(sources_lock(g.s, &changed, &g.err), &g.err);
    EXPECT(changed);
    EXPECT_EQ(fetches(&g), 1);
    /* a newer one is there, but the lock file pins; and what the store has is not fetched */
    make_deb(&g, "2.0-1", "second");
    rig_file(&g, "newest", "2.0-1");
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    EXPECT(digest_eq(&source_get(g.s, 0)->digest, &tree));
    EXPECT_EQ(fetches(&g), 1);
    /* --update looks again */
    EXPECT_OK(rig_enter(&g, &(struct source_options){.update = true}), &g.err);
    rig_expect_text(&g, &source_get(g.s, 0)->digest, "usr/share/pictures/a.txt", "second");
    EXPECT_EQ(fetches(&g), 2);
    EXPECT_OK(sources_lock(g.s, &changed, &g.err), &g.err);
    EXPECT(changed);
    shell(&g, "test -z \"$(find .weir/cache -name 'deb.*')\""); /* nothing is left lying about */
    EXPECT_EQ(unsetenv("WEIR_APT_GET"), 0);
    rig_free(&g);
}

/* Another store, as on a colleague's machine, with the lock file that was committed. */
static void other_store(struct rig *g)
{
    sources_free(g->s);
    g->s = NULL;
    store_close(g->st);
    shell(g, "rm -rf .weir");
    EXPECT_OK(store_init(g->dir, NULL, &g->err), &g->err);
    EXPECT_OK(store_open(g->dir, STORE_WRITE, &g->st, &g->err), &g->err);
}

TEST(a_locked_version_is_what_is_fetched)
{
    struct rig g;
    struct digest tree;
    bool changed;

    rig_new(&g);
    apt(&g);
    tree = rig_sources(&g, deb_source)->digest;
    EXPECT_OK(sources_lock(g.s, &changed, &g.err), &g.err);
    make_deb(&g, "2.0-1", "second");
    rig_file(&g, "newest", "2.0-1");
    other_store(&g);
    EXPECT_OK(rig_enter(&g, NULL), &g.err);
    EXPECT(digest_eq(&source_get(g.s, 0)->digest, &tree));
    EXPECT_OK(sources_lock(g.s, &changed, &g.err), &g.err);
    EXPECT(!changed);
    /* somebody replaces the package under its old version */
    make_deb(&g, "1.0-1", "replaced");
    other_store(&g);
    EXPECT_ERR(rig_enter(&g, NULL), ERR_CHANGED, &g.err);
    EXPECT_SAYS(&g.err, "the lock file says");
    EXPECT_SAYS(&g.err, "weir lock --update");
    /* and takes it away */
    shell(&g, "rm pool/weir-pictures_1.0-1_all.deb");
    EXPECT_ERR(rig_enter(&g, NULL), ERR_MISSING, &g.err);
    EXPECT_SAYS(&g.err, "was not found");
    EXPECT_SAYS(&g.err, "weir lock --update");
    EXPECT_ERR(rig_enter(&g, &(struct source_options){.offline = true}), ERR_MISSING, &g.err);
    EXPECT_EQ(unsetenv("WEIR_APT_GET"), 0);
    rig_free(&g);
}

TEST(a_package_that_cannot_be_had_says_what_to_do)
{
    struct rig g;

    rig_new(&g);
    apt(&g);
    rig_pipeline(&g, "  a: {deb: weir-nothing, license: MIT}\n");
    EXPECT_ERR(rig_enter(&g, NULL), ERR_MISSING, &g.err);
    EXPECT_SAYS(&g.err, "apt-get update");
    EXPECT_SAYS(&g.err, "pipe.yaml:4:3: source a: ");
    EXPECT_EQ(setenv("WEIR_APT_GET", "/nonexistent/apt-get", 1), 0);
    EXPECT_ERR(rig_enter(&g, NULL), ERR_MISSING, &g.err);
    EXPECT_SAYS(&g.err, "deb: sources need apt-get");
    EXPECT_EQ(unsetenv("WEIR_APT_GET"), 0);
    rig_free(&g);
}

RUN(a_file_arrives_also_through_a_redirect, a_cut_connection_is_taken_up_where_it_was_cut,
    what_an_earlier_time_left_is_used, a_server_without_ranges_sends_it_anew,
    a_busy_server_is_asked_again_and_not_for_ever, what_cannot_be_fetched_says_why,
    a_url_source_is_fetched_once_and_locked, another_file_than_the_one_meant_is_refused,
    half_of_another_file_is_no_reason_to_give_up, a_url_may_be_a_file,
    a_package_is_unpacked_and_locked, a_locked_version_is_what_is_fetched,
    a_package_that_cannot_be_had_says_what_to_do)
