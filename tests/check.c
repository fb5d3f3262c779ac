#include "tests/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* names is the text between RUN's parentheses; it is cut at its commas. */
int check_run(const char *names, const check_test_fn *tests, size_t count, int argc, char **argv)
{
    struct CMUnitTest *units = calloc(count, sizeof(*units));
    char *copy = strdup(names);

    if (!units || !copy)
        abort();
    char *name = copy + strspn(copy, " \t\n");
    for (size_t i = 0; i < count; i++) {
        units[i].name = name;
        units[i].test_func = tests[i];
        name += strcspn(name, ", \t\n");
        if (*name)
            *name++ = '\0';
        name += strspn(name, ", \t\n");
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    int failed = _cmocka_run_group_tests(argv[0], units, count, NULL, NULL);
    free(copy);
    free(units);
    return failed ? 1 : 0;
}

static __attribute__((format(printf, 3, 4))) void fail_at(const char *file, int line,
                                                          const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    print_error("%s:%d: %s\n", file, line, text);
    _fail(file, line);
}

void check_true(bool ok, const char *what, const char *file, int line)
{
    if (!ok)
        fail_at(file, line, "not true: %s", what);
}

void check_ok(enum err_code rc, const struct err *err, const char *what, const char *file, int line)
{
    if (rc != OK)
        fail_at(file, line, "%s: error %d: %s", what, (int)rc, err ? err->text : "(no text)");
}

void check_err(enum err_code rc, enum err_code expected, const struct err *err, const char *what,
               const char *file, int line)
{
    if (rc != expected)
        fail_at(file, line, "%s: got error %d, expected %d: %s", what, (int)rc, (int)expected,
                err ? err->text : "(no text)");
    if (err && err->code != rc)
        fail_at(file, line, "%s: returned error %d, but err holds %d", what, (int)rc,
                (int)err->code);
    if (err && rc != OK && err->text[0] == '\0')
        fail_at(file, line, "%s: error %d without a text", what, (int)rc);
}

void check_eq(intmax_t a, intmax_t b, const char *a_text, const char *b_text, const char *file,
              int line)
{
    if (a != b)
        fail_at(file, line,
                "%s == %s: %" PRIdMAX " (0x%" PRIxMAX ") != %" PRIdMAX " (0x%" PRIxMAX ")", a_text,
                b_text, a, (uintmax_t)a, b, (uintmax_t)b);
}

void check_str(const char *a, const char *b, const char *a_text, const char *b_text,
               const char *file, int line)
{
    if (a == b) /* both NULL counts as equal */
        return;
    if (!a || !b || strcmp(a, b) != 0)
        fail_at(file, line, "%s == %s:\n  \"%s\"\n  \"%s\"", a_text, b_text, a ? a : "(null)",
                b ? b : "(null)");
}

void check_mem(const void *a, const void *b, size_t n, const char *a_text, const char *b_text,
               const char *file, int line)
{
    const unsigned char *p = a, *q = b;

    for (size_t i = 0; i < n; i++) {
        if (p[i] != q[i])
            fail_at(file, line, "%s == %s: byte %zu of %zu: 0x%02x != 0x%02x", a_text, b_text, i, n,
                    p[i], q[i]);
    }
}

void tmpdir_new(char out[TMPDIR_MAX])
{
    const char *base = getenv("TMPDIR");

    if (!base || !base[0])
        base = "/tmp";
    int n = snprintf(out, TMPDIR_MAX, "%s/weir-test-XXXXXX", base);
    if (n < 0 || n >= TMPDIR_MAX || !mkdtemp(out)) {
        print_error("cannot make a temporary directory below %s: %s\n", base, strerror(errno));
        abort(); /* a test that goes on without one would write into the current directory */
    }
}

/* Empties and closes the open directory fd.  Read-only folders are made writable first: only root could empty them. */
static void empty_dir(int fd)
{
    (void)fchmod(fd, 0700);
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0)
            continue;
        int child = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0 && errno == EACCES && fchmodat(dirfd(d), e->d_name, 0700, 0) == 0)
            child = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child >= 0)
            empty_dir(child);
        if (unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) != 0)
            print_error("cannot remove %s: %s\n", e->d_name, strerror(errno));
    }
    closedir(d);
}

void tmpdir_free(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        empty_dir(fd);
    if (rmdir(dir) != 0)
        print_error("cannot remove %s: %s\n", dir, strerror(errno));
}

/* LLVM's OpenMP library keeps what it made for threads that are gone: not ours to free.  Weak: a test may have a list of its own. */
const char *__lsan_default_suppressions(void);
__attribute__((weak)) const char *__lsan_default_suppressions(void)
{
    return "leak:libomp";
}
