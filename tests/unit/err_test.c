#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

TEST(rows_are_complete_and_distinct)
{
    for (int a = OK; a < ERR_CODE_COUNT; a++) {
        const int status = err_exit_status(a), http = err_http_status(a);

        EXPECT(err_word(a)[0] != '\0');
        EXPECT(a == OK ? status == 0 : status == 1 || (status >= 64 && status <= 78));
        EXPECT(a == OK ? http == 200 : http >= 400 && http <= 599);
        EXPECT(!err_retry(a) || a != OK);
        for (int b = OK; b < a; b++)
            EXPECT(strcmp(err_word(a), err_word(b)) != 0);
    }
    EXPECT_EQ(err_exit_status(ERR_INPUT), 65);
    EXPECT_EQ(err_http_status(ERR_NOT_FOUND), 404);
    EXPECT(err_retry(ERR_IO));
    EXPECT(!err_retry(ERR_DAMAGED));
}

TEST(set_fills_and_returns)
{
    struct err err = ERR_INIT;

    err.sys = 7;
    errno = ERANGE;
    EXPECT_ERR(err_set(&err, ERR_INPUT, "stage %s: %d", "a", 3), ERR_INPUT, &err);
    EXPECT_STR(err.text, "stage a: 3");
    EXPECT_EQ(err.sys, 0);
    EXPECT_EQ(errno, ERANGE);

    /* Its own text as an argument. */
    EXPECT_ERR(err_set(&err, ERR_LIMIT, "again: %s", err.text), ERR_LIMIT, &err);
    EXPECT_STR(err.text, "again: stage a: 3");
}

TEST(errno_becomes_a_code)
{
    static const struct {
        int sys;
        enum err_code code;
    } cases[] = {
        {EIO, ERR_IO},           {ENOSPC, ERR_FULL},        {EDQUOT, ERR_FULL},
        {ENOENT, ERR_NOT_FOUND}, {ENOTDIR, ERR_NOT_FOUND},  {EACCES, ERR_DENIED},
        {EPERM, ERR_DENIED},     {EROFS, ERR_DENIED},       {EEXIST, ERR_EXISTS},
        {ELOOP, ERR_INPUT},      {ENAMETOOLONG, ERR_LIMIT}, {EMFILE, ERR_IO},
        {99999, ERR_IO},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;

        errno = ERANGE;
        EXPECT_ERR(err_sys(&err, cases[i].sys, "open %s", "x"), cases[i].code, &err);
        EXPECT_EQ(err.sys, cases[i].sys);
        EXPECT_EQ(errno, ERANGE);
        EXPECT_EQ(strncmp(err.text, "open x: ", 8), 0);
    }
    struct err err = ERR_INIT;

    err_sys(&err, ENOENT, "open %s", "x");
    EXPECT_STR(err.text, "open x: No such file or directory");
}

TEST(prefix_goes_in_front_and_changes_nothing_else)
{
    struct err err = ERR_INIT;

    err_sys(&err, ENOSPC, "write a");
    EXPECT_EQ(err_prefix(&err, "task %d", 4), ERR_FULL);
    EXPECT_EQ(err_prefix(&err, "run"), ERR_FULL);
    EXPECT_STR(err.text, "run: task 4: write a: No space left on device");
    EXPECT_EQ(err.sys, ENOSPC);
}

TEST(control_bytes_never_reach_a_terminal)
{
    struct err err = ERR_INIT;

    err_set(&err, ERR_INPUT, "name \"%s\"", "a\033[2J\nb\x7f\tc");
    EXPECT_STR(err.text, "name \"a?[2J?b??c\"");
    err_prefix(&err, "\r");
    EXPECT_STR(err.text, "?: name \"a?[2J?b??c\"");
}

TEST(long_texts_are_cut_where_it_shows)
{
    struct err err = ERR_INIT;
    char name[2 * ERR_TEXT_MAX];

    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    err_set(&err, ERR_INPUT, "%s", name);
    EXPECT_EQ(strlen(err.text), ERR_TEXT_MAX - 1);
    EXPECT_STR(err.text + ERR_TEXT_MAX - 5, "x...");

    /* The reason stays whole, and so do characters of several bytes. */
    for (size_t shift = 0; shift < 4; shift++) {
        memset(name, 'x', sizeof(name));
        for (size_t i = shift; i + 4 < sizeof(name); i += 4)
            memcpy(name + i, "\xf0\x9f\x98\x80", 4);
        name[sizeof(name) - 1] = '\0';
        err_sys(&err, ENOENT, "open %s", name);

        const char *dots = strstr(err.text, "...");

        EXPECT(dots);
        EXPECT_STR(dots, "...: No such file or directory");
        EXPECT_MEM(dots - 4, "\xf0\x9f\x98\x80", 4);
        EXPECT(strlen(err.text) < ERR_TEXT_MAX);
    }

    /* Many prefixes never overflow. */
    for (int i = 0; i < 400; i++)
        err_prefix(&err, "level %d", i);
    EXPECT_EQ(strncmp(err.text, "level 399: level 398: ", 22), 0);
    EXPECT(strlen(err.text) < ERR_TEXT_MAX);
}

TEST(a_failed_check_says_where_and_ends_the_process)
{
    char said[256] = "";
    int pipes[2], status;

    EXPECT_EQ(pipe(pipes), 0);

    const pid_t child = fork();

    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        CHECK(1 + 1 == 2);
        CHECK(1 + 1 == 3);
        _exit(0);
    }
    close(pipes[1]);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT(read(pipes[0], said, sizeof(said) - 1) > 0);
    close(pipes[0]);
    EXPECT(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGABRT);
    EXPECT(strstr(said, "CHECK(1 + 1 == 3)"));
    EXPECT(strstr(said, "err_test.c:"));
}

RUN(rows_are_complete_and_distinct, set_fills_and_returns, errno_becomes_a_code,
    prefix_goes_in_front_and_changes_nothing_else, control_bytes_never_reach_a_terminal,
    long_texts_are_cut_where_it_shows, a_failed_check_says_where_and_ends_the_process)
