#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_row {
    const char *word;
    int exit_status, http_status;
    bool retry;
};

static const struct err_row err_rows[ERR_CODE_COUNT] = {
    [OK] = {"ok", 0, 200, false},
#define X(code, word, exit_status, http, retry) [code] = {word, exit_status, http, retry},
#include "base/err.def"
#undef X
};

static const struct err_row *row_of(enum err_code code)
{
    CHECK((unsigned)code < ERR_CODE_COUNT);
    return &err_rows[code];
}

/* Texts hold file names and bits of user files.  A control byte in them could move the cursor of
 * a terminal or forge a second log line, so none gets through.  Where the text was cut, the last
 * character may be half of a UTF-8 sequence: it gives way to dots. */
static void tidy(char *text, size_t size, bool cut)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (!cut || size < 4)
        return;

    size_t end = size - 4;

    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
        end--;
    memcpy(text + end, "...", 4);
}

PRINTF_LIKE(3, 0) static void format(char *text, size_t size, const char *fmt, va_list ap)
{
    const int n = vsnprintf(text, size, fmt, ap);

    CHECK(n >= 0);
    tidy(text, size, (size_t)n >= size);
}

enum err_code err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX]; /* apart: an argument may point into err->text */
    const int saved = errno;
    va_list ap;

    CHECK(err);
    CHECK(code != OK);
    CHECK((unsigned)code < ERR_CODE_COUNT);
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    err->code = code;
    err->sys = 0;
    memcpy(err->text, text, sizeof(text));
    errno = saved;
    return code;
}

static enum err_code code_of(int sys)
{
    switch (sys) {
    case ENOSPC:
    case EDQUOT:
        return ERR_FULL;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case EEXIST:
        return ERR_EXISTS;
    case ELOOP: /* the last two: a path that was given is wrong, the world is fine */
        return ERR_INPUT;
    case ENAMETOOLONG:
        return ERR_LIMIT;
    default:
        return ERR_IO;
    }
}

enum err_code err_sys(struct err *err, int sys, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX], scratch[64];
    const int saved = errno;
    /* The GNU variant, which is safe in threads and may not use the scratch space at all. */
    const char *why = strerror_r(sys, scratch, sizeof(scratch));
    const size_t tail = strlen(why) + 2; /* ": " */
    va_list ap;

    CHECK(err);
    CHECK(tail < sizeof(text) / 2);
    va_start(ap, fmt);
    format(text, sizeof(text) - tail, fmt, ap); /* a long path is cut, its reason is not */
    va_end(ap);
    err->code = code_of(sys);
    err->sys = sys;

    const size_t head = strlen(text);

    (void)snprintf(text + head, sizeof(text) - head, ": %s", why);
    memcpy(err->text, text, sizeof(text));
    errno = saved;
    return err->code;
}

enum err_code err_prefix(struct err *err, const char *fmt, ...)
{
    char head[ERR_TEXT_MAX], text[ERR_TEXT_MAX];
    const int saved = errno;
    va_list ap;

    CHECK(err);
    CHECK(err->code != OK);
    va_start(ap, fmt);
    format(head, sizeof(head), fmt, ap);
    va_end(ap);

    const int n = snprintf(text, sizeof(text), "%s: %s", head, err->text);

    tidy(text, sizeof(text), (size_t)n >= sizeof(text));
    memcpy(err->text, text, sizeof(text));
    errno = saved;
    return err->code;
}

const char *err_word(enum err_code code)
{
    return row_of(code)->word;
}

int err_exit_status(enum err_code code)
{
    return row_of(code)->exit_status;
}

int err_http_status(enum err_code code)
{
    return row_of(code)->http_status;
}

bool err_retry(enum err_code code)
{
    return row_of(code)->retry;
}

void check_failed(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "weir: %s: %s:%d: CHECK(%s)\n", err_rows[ERR_BUG].word, file, line, what);
    abort();
}
