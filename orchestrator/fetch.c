#include "orchestrator/fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"

#define CONNECT_S 30L
#define SILENCE_S 60L /* a server that sends nothing for so long is as good as gone */

struct transfer {
    const struct fetch *f;
    CURL *curl;
    int fd;
    int64_t have;   /* bytes in the file */
    int64_t asked;  /* where this try began */
    bool begun;     /* the first bytes of this answer have come */
    struct err err; /* of the callback */
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_started;

static void curl_start(void)
{
    curl_started = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- what arrives --------------------------------------------------------------------------------- */

/* We asked for the rest, and this is all of it again. */
static enum err_code from_start(struct transfer *t, struct err *err)
{
    t->have = 0;
    return os_truncate(t->fd, 0, err);
}

static size_t arrives(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long status = 0;
    enum err_code rc = OK;

    n *= size;
    if (!t->begun) {
        t->begun = true;
        (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
        if (status == 200 && t->asked > 0)
            rc = from_start(t, &t->err);
    }
    if (!rc && t->have + (int64_t)n > t->f->bytes_max)
        rc =
            err_set(&t->err, ERR_LIMIT, "it is larger than %lld bytes", (long long)t->f->bytes_max);
    if (!rc)
        rc = os_pwrite(t->fd, p, n, t->have, &t->err);
    if (rc)
        return n == 0 ? 1 : 0; /* any other number than n ends the transfer */
    t->have += (int64_t)n;
    progress_add(t->f->progress, (int64_t)n);
    return n;
}

/* ---- one try -------------------------------------------------------------------------------------- */

static bool begins(const char *s, const char *prefix)
{
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

/* A redirect may not lead from the net to a file of ours, nor from a private line to a public one. */
static CURLcode set_schemes(CURL *c, const char *url)
{
    CURLcode rc = curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https,http,file");

    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR,
                              begins(url, "https:") ? "https" : "https,http");
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, begins(url, "file:") ? 0L : 1L);
    return rc;
}

static CURLcode set_up(struct transfer *t, char *text)
{
    CURL *c = t->curl;
    CURLcode rc = set_schemes(c, t->f->url);
    const struct {
        CURLoption option;
        long value;
    } numbers[] = {
        {CURLOPT_MAXREDIRS, FETCH_REDIRECTS_MAX},
        {CURLOPT_NOSIGNAL, 1},
        {CURLOPT_FAILONERROR, 1},
        {CURLOPT_CONNECTTIMEOUT, CONNECT_S},
        {CURLOPT_LOW_SPEED_LIMIT, 1},
        {CURLOPT_LOW_SPEED_TIME, SILENCE_S},
    };

    for (size_t i = 0; !rc && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        rc = curl_easy_setopt(c, numbers[i].option, numbers[i].value);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_URL, t->f->url);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_ERRORBUFFER, text);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->have);
    if (!rc)
        rc =
            curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)(t->f->bytes_max - t->have));
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, arrives);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    return rc;
}

enum outcome { ARRIVED, AGAIN, GIVE_UP };

static enum outcome judge(struct transfer *t, CURLcode rc, const char *text, struct err *err)
{
    long status = 0;

    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->err.code) {
        *err = t->err;
        return GIVE_UP;
    }
    if (rc == CURLE_OK)
        return ARRIVED;
    if (status == 416 || rc == CURLE_RANGE_ERROR || rc == CURLE_BAD_DOWNLOAD_RESUME) {
        /* No such rest: the file is complete already, or it is another one. */
        err_set(err, ERR_MISSING, "the server has no rest of it");
        return t->asked > 0 && from_start(t, err) == OK ? AGAIN : GIVE_UP;
    }
    switch ((int)rc) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        err_set(err, ERR_INPUT, "%s; https, http and file are followed", text);
        return GIVE_UP;
    case CURLE_TOO_MANY_REDIRECTS:
        err_set(err, ERR_MISSING, "more than %d redirects", FETCH_REDIRECTS_MAX);
        return GIVE_UP;
    case CURLE_FILESIZE_EXCEEDED:
        err_set(err, ERR_LIMIT, "it is larger than %lld bytes", (long long)t->f->bytes_max);
        return GIVE_UP;
    case CURLE_FILE_COULDNT_READ_FILE:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        err_set(err, ERR_MISSING, "%s", text);
        return GIVE_UP;
    default:
        break;
    }
    err_set(err, ERR_MISSING, "%s", text);
    return status >= 400 && status < 500 && status != 408 && status != 429 ? GIVE_UP : AGAIN;
}

static enum outcome try_once(struct transfer *t, struct err *err)
{
    char text[CURL_ERROR_SIZE] = "";
    enum outcome outcome;
    CURLcode rc = CURLE_OUT_OF_MEMORY;
    int sys;

    t->asked = t->have;
    t->begun = false;
    t->curl = curl_easy_init();
    if (fault_hit(&sys))
        rc = CURLE_RECV_ERROR;
    else if (t->curl)
        rc = set_up(t, text);
    if (!rc)
        rc = curl_easy_perform(t->curl);
    outcome = judge(t, rc, *text ? text : curl_easy_strerror(rc), err);
    curl_easy_cleanup(t->curl);
    t->curl = NULL;
    return outcome;
}

static void pause_for(int64_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static enum err_code transfer(struct transfer *t, struct err *err)
{
    int64_t pause_ms = t->f->pause_ms ? t->f->pause_ms : 500;

    for (int failed = 0;;) {
        struct err why = ERR_INIT;
        const int64_t before = t->have;
        const enum outcome o = try_once(t, &why);

        if (o == ARRIVED)
            return OK;
        failed = t->have > before ? 1 : failed + 1;
        if (o == GIVE_UP || failed >= FETCH_TRIES_MAX) {
            *err = why;
            return err_prefix(err, "fetch %s", t->f->url);
        }
        pause_for(pause_ms);
        pause_ms = pause_ms < 8000 ? pause_ms * 2 : pause_ms;
    }
}

/* ---- the door ------------------------------------------------------------------------------------- */

static void lock_name(const struct fetched *f, char out[DIGEST_HEX + 8])
{
    (void)snprintf(out, DIGEST_HEX + 8, "%.64s.lock", f->name);
}

/* Another process may be fetching the same: wait for it, then go on with what it left.  A file of its own is locked, because the store takes
 * no file that somebody has open for writing. */
static enum err_code lock_part(int dir, struct fetched *out, struct err *err)
{
    char name[DIGEST_HEX + 8];
    struct stat mine, now;

    lock_name(out, name);
    for (;;) {
        enum err_code rc = os_open(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0644, &out->fd, err);

        if (rc)
            return rc;
        while (flock(out->fd, LOCK_EX) != 0)
            if (errno != EINTR)
                return err_sys(err, errno, "lock %s", name);
        rc = os_stat(out->fd, &mine, err);
        if (rc)
            return rc;
        if (fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == mine.st_ino)
            return OK;
        os_close_quiet(&out->fd); /* it was taken away when the other one was done */
    }
}

enum err_code fetch_file(int dir, const struct fetch *f, struct fetched *out, struct err *err)
{
    struct transfer t = {.f = f, .fd = -1, .err = ERR_INIT};
    char hex[DIGEST_HEX + 1];
    struct stat st;
    enum err_code rc;

    CHECK(f->bytes_max > 0);
    *out = (struct fetched){.fd = -1};
    digest_hex(&f->want, hex);
    (void)snprintf(out->name, sizeof(out->name), "%s.part", hex);
    CHECK(pthread_once(&curl_once, curl_start) == 0);
    if (curl_started)
        return err_set(err, ERR_MISSING, "start libcurl: %s", curl_easy_strerror(curl_started));
    rc = lock_part(dir, out, err);
    if (!rc)
        rc = os_open(dir, out->name, O_RDWR | O_CREAT | O_NOFOLLOW, 0644, &t.fd, err);
    if (!rc)
        rc = os_stat(t.fd, &st, err);
    if (!rc) {
        t.have = st.st_size;
        out->resumed = t.have > 0;
        if (t.have >= f->bytes_max)
            rc = from_start(&t, err);
    }
    if (!rc)
        rc = transfer(&t, err);
    if (!rc)
        rc = os_fdatasync(t.fd, err);
    if (!rc)
        rc = os_close(&t.fd, err);
    os_close_quiet(&t.fd);
    if (rc)
        fetch_done(dir, out, rc == ERR_LIMIT ? FETCH_REMOVE : FETCH_KEEP);
    return rc;
}

void fetch_done(int dir, struct fetched *f, enum fetch_end end)
{
    char name[DIGEST_HEX + 8];

    if (f->fd < 0)
        return;
    lock_name(f, name);
    if (end == FETCH_REMOVE)
        (void)unlinkat(dir, f->name, 0);
    (void)unlinkat(dir, name, 0);
    os_close_quiet(&f->fd);
}
