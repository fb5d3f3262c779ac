/* The table of commands, how a line is taken apart, and what help makes of the table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli.h"
#include "tests/check.h"

/* ---- the table --------------------------------------------------------------------------------- */

static size_t count_words(const char *name)
{
    size_t words = 1;

    for (; *name; name++)
        words += *name == ' ';
    return words;
}

TEST(every_command_is_complete)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];
        size_t options = 0;

        EXPECT(count_words(c->name) <= CLI_WORDS_MAX);
        EXPECT(c->run);
        EXPECT(c->args);
        EXPECT(strlen(c->summary) > 0);
        EXPECT(strlen(c->summary) <= 90);
        EXPECT(c->summary[strlen(c->summary) - 1] != '.');
        EXPECT(strchr(c->summary, '\n') == NULL);
        EXPECT(strncmp(c->example, "weir ", 5) == 0);
        EXPECT(strstr(c->example, c->alias ? c->alias : c->name));
        EXPECT(strlen(c->json) > 0);
        EXPECT(c->args_min >= 0);
        EXPECT(c->args_max == -1 || c->args_max >= c->args_min);
        for (const struct cli_option *o = c->options; o && o->name; o++, options++)
            EXPECT(strlen(o->help) > 0);
        EXPECT(options <= CLI_OPTIONS_MAX);
        for (size_t j = 0; j < i; j++) {
            EXPECT(strcmp(c->name, cli_commands[j]->name) != 0);
            EXPECT(!c->alias || !cli_commands[j]->alias ||
                   strcmp(c->alias, cli_commands[j]->alias) != 0);
        }
    }
}

/* Options may stand before the command, so what they are cannot depend on it. */
static void expect_agree(const struct cli_option *a, const struct cli_option *b)
{
    if (strcmp(a->name, b->name) == 0) {
        EXPECT_EQ(a->letter, b->letter);
        EXPECT_EQ(a->value != NULL, b->value != NULL);
    }
    if (a->letter && a->letter == b->letter)
        EXPECT_EQ(a->value != NULL, b->value != NULL);
}

TEST(options_mean_the_same_everywhere)
{
    for (size_t i = 0; cli_commands[i]; i++)
        for (const struct cli_option *a = cli_commands[i]->options; a && a->name; a++) {
            for (const struct cli_option *b = cli_common; b->name; b++) {
                EXPECT(strcmp(a->name, b->name) != 0);
                EXPECT(!a->letter || a->letter != b->letter);
            }
            for (size_t j = 0; cli_commands[j]; j++)
                for (const struct cli_option *b = cli_commands[j]->options; b && b->name; b++)
                    expect_agree(a, b);
        }
}

/* ---- lines ------------------------------------------------------------------------------------- */

#define WORDS_MAX 12

/* Takes a line apart at its spaces and parses it.  words keeps the strings alive. */
struct line {
    char text[256];
    char *argv[WORDS_MAX + 2];
    int argc;
    struct cli c;
    struct err err;
    enum err_code rc;
};

static void parse(struct line *l, const char *text)
{
    char *save = NULL;

    memset(l, 0, sizeof(*l));
    snprintf(l->text, sizeof(l->text), "%s", text);
    for (char *w = strtok_r(l->text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        EXPECT(l->argc < WORDS_MAX);
        l->argv[l->argc++] = w;
    }
    l->rc = cli_parse(l->argc, l->argv, &l->c, &l->err);
}

TEST(commands_are_found)
{
    static const struct {
        const char *line, *name; /* name NULL: none */
        size_t args;
    } cases[] = {
        {"weir init", "init", 0},
        {"weir init here", "init", 1},
        {"weir store add a b c", "store add", 3},
        {"weir store action put a b", "store action put", 2},
        {"weir gc", "store gc", 0},
        {"weir store gc", "store gc", 0},
        {"weir push backup", "store push", 1},
        {"weir --json gc", "store gc", 0},
        {"weir store --json gc", "store gc", 0},
        {"weir -C dir gc", "store gc", 0},
        {"weir --dir dir store add x", "store add", 1},
        {"weir --dir=dir store add x", "store add", 1},
        {"weir --grace 1h gc", "store gc", 0},
        {"weir --ref store store add add", "store add", 1},
        {"weir store add -- --json", "store add", 1},
        {"weir store add -", "store add", 1},
        {"weir help store add", "help", 2},
        {"weir", NULL, 0},
        {"weir store", NULL, 0},
        {"weir store action", NULL, 0},
        {"weir --help", NULL, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct line l;

        parse(&l, cases[i].line);
        EXPECT_OK(l.rc, &l.err);
        EXPECT_EQ(l.c.command != NULL, cases[i].name != NULL);
        if (cases[i].name)
            EXPECT_STR(l.c.command->name, cases[i].name);
        EXPECT_EQ(l.c.arg_count, cases[i].args);
        cli_release(&l.c);
    }
}

TEST(options_are_read)
{
    struct line l;

    parse(&l, "weir store ls -rl x --json -q");
    EXPECT_OK(l.rc, &l.err);
    EXPECT(cli_flag(&l.c, "recursive"));
    EXPECT(cli_flag(&l.c, "long"));
    EXPECT(!cli_flag(&l.c, "tensors"));
    EXPECT(l.c.json);
    EXPECT(l.c.quiet);
    EXPECT_EQ(l.c.arg_count, 1);
    cli_release(&l.c);

    parse(&l, "weir store cat x --tensor=a=b -Csome/dir");
    EXPECT_OK(l.rc, &l.err);
    EXPECT_STR(cli_value(&l.c, "tensor"), "a=b");
    EXPECT(cli_value(&l.c, "range") == NULL);
    EXPECT_STR(l.c.dir, "some/dir");
    cli_release(&l.c);

    parse(&l, "weir store cat -t name x --range=");
    EXPECT_OK(l.rc, &l.err);
    EXPECT_STR(cli_value(&l.c, "tensor"), "name");
    EXPECT_STR(cli_value(&l.c, "range"), "");
    cli_release(&l.c);

    parse(&l, "weir store add a -- -b --json");
    EXPECT_OK(l.rc, &l.err);
    EXPECT_EQ(l.c.arg_count, 3);
    EXPECT_STR(l.c.args[2], "--json");
    EXPECT(!l.c.json);
    cli_release(&l.c);
}

TEST(some_options_may_be_repeated)
{
    struct line l;
    const char **sets;

    parse(&l, "weir run x --set a=1 -k --set=b=2 --profile p");
    EXPECT_OK(l.rc, &l.err);
    sets = cli_values(&l.c, "set");
    EXPECT_STR(sets[0], "a=1");
    EXPECT_STR(sets[1], "b=2");
    EXPECT(sets[2] == NULL);
    free(sets);
    cli_release(&l.c);
    parse(&l, "weir run x -kkkk");
    EXPECT_OK(l.rc, &l.err);
    sets = cli_values(&l.c, "set");
    EXPECT(sets[0] == NULL);
    free(sets);
    EXPECT(cli_flag(&l.c, "keep-going"));
    cli_release(&l.c);
}

TEST(durations_are_read)
{
    struct line l;
    int64_t s;

    parse(&l, "weir gc --grace 2h");
    EXPECT_OK(cli_seconds(&l.c, "grace", 5, &s, &l.err), &l.err);
    EXPECT_EQ(s, 7200);
    cli_release(&l.c);
    parse(&l, "weir gc");
    EXPECT_OK(cli_seconds(&l.c, "grace", 5, &s, &l.err), &l.err);
    EXPECT_EQ(s, 5);
    cli_release(&l.c);
    parse(&l, "weir gc --grace=soon");
    EXPECT_ERR(cli_seconds(&l.c, "grace", 5, &s, &l.err), ERR_USAGE, &l.err);
    EXPECT(strstr(l.err.text, "--grace soon"));
    cli_release(&l.c);
}

TEST(flags_that_exclude_each_other)
{
    static const char *const ways[] = {"link", "copy", "reflink"};
    struct line l;

    parse(&l, "weir store get a b --copy");
    EXPECT_OK(cli_one_of(&l.c, ways, 3, &l.err), &l.err);
    cli_release(&l.c);
    parse(&l, "weir store get a b --reflink --link");
    EXPECT_ERR(cli_one_of(&l.c, ways, 3, &l.err), ERR_USAGE, &l.err);
    EXPECT(strstr(l.err.text, "--link"));
    EXPECT(strstr(l.err.text, "--reflink"));
    cli_release(&l.c);
}

TEST(wrong_lines_say_what_is_right)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"weir stroe", "did you mean 'weir store'"},
        {"weir stroe add x", "did you mean 'weir store'"},
        {"weir store ad x", "did you mean 'weir store add'"},
        {"weir add x", "did you mean 'weir store add'"},
        {"weir store action pt", "did you mean 'weir store action put'"},
        {"weir fsk", "did you mean 'weir fsck'"},
        {"weir frobnicate", "weir help"},
        {"weir gc --dry-rnu", "did you mean --dry-run"},
        {"weir gc --jsno", "did you mean --json"},
        {"weir gc --frobnicate", "weir store gc --help"},
        {"weir gc -z", "-z"},
        {"weir gc --grace", "--grace DURATION"},
        {"weir gc --dry-run=yes", "takes no value"},
        {"weir gc --grace 1h --grace 2h", "given twice"},
        {"weir gc now", "too many arguments, from 'now'"},
        {"weir store add", "weir store add PATH..."},
        {"weir store get a", "WHAT DEST"},
        {"weir -C", "-C DIR"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct line l;

        parse(&l, cases[i].line);
        EXPECT_ERR(l.rc, ERR_USAGE, &l.err);
        if (!strstr(l.err.text, cases[i].says))
            print_message("%s: %s\n", cases[i].line, l.err.text);
        EXPECT(strstr(l.err.text, cases[i].says));
        cli_release(&l.c);
    }
}

/* A program that asked for JSON gets its error as JSON, whatever else is wrong. */
TEST(json_is_noticed_on_wrong_lines)
{
    struct line l;

    parse(&l, "weir stroe --json");
    EXPECT_EQ(l.rc, ERR_USAGE);
    EXPECT(l.c.json);
    cli_release(&l.c);
    parse(&l, "weir store add --jsn x --json");
    EXPECT_EQ(l.rc, ERR_USAGE);
    EXPECT(l.c.json);
    cli_release(&l.c);
}

/* ---- help -------------------------------------------------------------------------------------- */

TEST(help_has_everything)
{
    struct buf all, one;

    buf_init(&all, 1 << 20);
    buf_init(&one, 1 << 20);
    cli_help_all(&all);
    for (size_t i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];

        EXPECT(strstr(all.p, c->name));
        EXPECT(strstr(all.p, c->summary));
        buf_clear(&one);
        cli_help_command(c, &one);
        EXPECT(strstr(one.p, c->summary));
        EXPECT(strstr(one.p, "Example:"));
        EXPECT(strstr(one.p, "With --json:"));
        for (const struct cli_option *o = c->options; o && o->name; o++) {
            EXPECT(strstr(one.p, o->name));
            EXPECT(strstr(one.p, o->help));
        }
        for (const struct cli_option *o = cli_common; o->name; o++)
            EXPECT(strstr(one.p, o->name));
    }
    buf_clear(&one);
    cli_help_group("store add", &one);
    EXPECT(strstr(one.p, "store fsck"));
    EXPECT(!strstr(one.p, "ref set"));
    buf_release(&all);
    buf_release(&one);
}

TEST(exit_statuses_are_all_explained)
{
    struct buf text;

    buf_init(&text, 1 << 16);
    cli_help_exit(&text);
    for (int code = OK + 1; code < ERR_CODE_COUNT; code++) {
        char status[8];

        snprintf(status, sizeof(status), "%2d  ", err_exit_status((enum err_code)code));
        EXPECT(strstr(text.p, status));
        EXPECT(strstr(text.p, err_word((enum err_code)code)));
    }
    buf_release(&text);
}

/* ---- names ------------------------------------------------------------------------------------- */

TEST(names_cannot_drive_a_terminal)
{
    static const struct {
        const char *name, *shown;
    } cases[] = {
        {"plain.txt", "plain.txt"},
        {"gr\xc3\xbc\xc3\x9f"
         "e",
         "gr\xc3\xbc\xc3\x9f"
         "e"},
        {"\033[2Jgone", "%1B[2Jgone"},
        {"two\nlines", "two%0Alines"},
        {"100%", "100%25"},
        {"\xff\xfe", "%FF%FE"},
        {"\xc2\x9b"
         "2J",
         "%C2%9B2J"}, /* the one-byte form of ESC [ */
        {"\x7f", "%7F"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text;

        buf_init(&text, 1024);
        cli_escape(&text, cases[i].name, strlen(cases[i].name));
        EXPECT_STR(text.p, cases[i].shown);
        buf_release(&text);
    }
}

RUN(every_command_is_complete, options_mean_the_same_everywhere, commands_are_found,
    options_are_read, some_options_may_be_repeated, durations_are_read,
    flags_that_exclude_each_other, wrong_lines_say_what_is_right, json_is_noticed_on_wrong_lines,
    help_has_everything, exit_statuses_are_all_explained, names_cannot_drive_a_terminal)
