/* err.h - a code for programs, a line for people.
 *
 * Life:     the caller owns a struct err (on its stack), starts it as ERR_INIT and passes it down.
 * Owns:     nothing on the heap: it still works when memory is gone.
 * Threads:  one struct err, one thread.
 * Errors:   the list is err.def; OK is 0.  During clean-up the first error wins.
 *
 * Every fallible function returns enum err_code and takes struct err * as its last argument, which may not be NULL.
 * CHECK is for our own mistakes and stays on in every build; err_set is for the world's.
 */
#ifndef WEIR_BASE_ERR_H
#define WEIR_BASE_ERR_H

#include <stdbool.h>
#include <stdint.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

enum err_code {
    OK = 0,
#define X(code, word, exit_status, http, retry) code,
#include "base/err.def"
#undef X
    ERR_CODE_COUNT
};

#define ERR_TEXT_MAX 512
struct err {
    enum err_code code; /* the same value that the function returned */
    int sys;            /* errno, else 0 */
    char text[ERR_TEXT_MAX];
};
#define ERR_INIT                                                                                   \
    {                                                                                              \
        .code = OK                                                                                 \
    }

/* Fill err and return code.  The text says what was tried, on which thing, and what the world answered. */
enum err_code err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same from errno: ": strerror" is appended, err->sys is kept, ENOSPC/EDQUOT become ERR_FULL,
 * ENOENT/ENOTDIR ERR_NOT_FOUND, EACCES/EPERM/EROFS ERR_DENIED, EEXIST ERR_EXISTS, all else ERR_IO. */
enum err_code err_sys(struct err *err, int sys, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Put "context: " in front, once, on the way up.  Returns err->code. */
enum err_code err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

const char *err_word(enum err_code code);
int err_exit_status(enum err_code code);
int err_http_status(enum err_code code);
bool err_retry(enum err_code code);

/* Our own mistakes end the process with file and line, whatever the build. */
#define CHECK(x) ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))
__attribute__((noreturn)) void check_failed(const char *what, const char *file, int line);
#ifdef WEIR_DEBUG
#define DCHECK(x) CHECK(x)
#else
#define DCHECK(x) ((void)0)
#endif

#endif
