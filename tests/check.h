/* check.h - the few words that every C test here is written in, over cmocka.
 *
 * Life:     TEST(name) { ... } for each test, then RUN(name, ...) once: it is main.  The first argument of the program,
 *           if any, is a pattern (cmocka's, with * and ?) of the tests to run.
 * Owns:     tmpdir_new makes a directory, tmpdir_free removes it with everything in it, read-only parts included.
 * Threads:  EXPECT only in the thread that runs the test: it leaves the test by longjmp.
 * Errors:   a failed EXPECT prints file:line, the expression and both values, and ends that test only.
 *
 *     TEST(adds)
 *     {
 *         EXPECT_EQ(1 + 1, 2);
 *     }
 *     RUN(adds)
 */
#ifndef WEIR_TESTS_CHECK_H
#define WEIR_TESTS_CHECK_H

/* cmocka.h uses what these declare, so it comes last. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/err.h"

typedef void (*check_test_fn)(void **state);

/* A test left out of RUN is an unused function, which -Werror refuses. */
#define TEST(name) static void name(__attribute__((unused)) void **state)

#define RUN(...)                                                                                   \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        static const check_test_fn tests[] = {__VA_ARGS__};                                        \
        return check_run(#__VA_ARGS__, tests, sizeof(tests) / sizeof(tests[0]), argc, argv);       \
    }

#define EXPECT(cond) check_true((cond), #cond, __FILE__, __LINE__)
/* rc is OK; otherwise the error's text is printed.  err is a struct err * and may be NULL. */
#define EXPECT_OK(rc, err) check_ok((rc), (err), #rc, __FILE__, __LINE__)
/* The code, and that err carries the same one with a text. */
#define EXPECT_ERR(rc, expected, err) check_err((rc), (expected), (err), #rc, __FILE__, __LINE__)
#define EXPECT_EQ(a, b) check_eq((intmax_t)(a), (intmax_t)(b), #a, #b, __FILE__, __LINE__)
#define EXPECT_STR(a, b) check_str((a), (b), #a, #b, __FILE__, __LINE__)
#define EXPECT_MEM(a, b, n) check_mem((a), (b), (n), #a, #b, __FILE__, __LINE__)

#define TMPDIR_MAX 256
void tmpdir_new(char out[TMPDIR_MAX]); /* below $TMPDIR or /tmp */
void tmpdir_free(const char *dir);

int check_run(const char *names, const check_test_fn *tests, size_t count, int argc, char **argv);
void check_true(bool ok, const char *what, const char *file, int line);
void check_ok(enum err_code rc, const struct err *err, const char *what, const char *file,
              int line);
void check_err(enum err_code rc, enum err_code expected, const struct err *err, const char *what,
               const char *file, int line);
void check_eq(intmax_t a, intmax_t b, const char *a_text, const char *b_text, const char *file,
              int line);
void check_str(const char *a, const char *b, const char *a_text, const char *b_text,
               const char *file, int line);
void check_mem(const void *a, const void *b, size_t n, const char *a_text, const char *b_text,
               const char *file, int line);

#endif
