/* From argv to a command that runs: find its name among the words, read its options, run it, report. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/cli.h"

const struct cli_option cli_common[] = {
    {"dir", 'C', "DIR", "look for .weir in DIR and the folders above it"},
    {"json", 0, NULL, "answer with lines of canonical JSON"},
    {"quiet", 'q', NULL, "no progress and no notes, only answers and errors"},
    {"help", 'h', NULL, "show this text"},
    {0},
};

/* ---- the words of a command -------------------------------------------------------------------- */

/* Does name start with these words?  *whole: and does it end there? */
static bool name_has(const char *name, const char *const *words, size_t count, bool *whole)
{
    for (size_t i = 0; i < count; i++) {
        const size_t n = strlen(words[i]);

        if (i > 0 && *name++ != ' ')
            return false;
        if (strncmp(name, words[i], n) != 0)
            return false;
        name += n;
    }
    *whole = *name == '\0';
    return *name == '\0' || *name == ' ';
}

static const struct cli_command *command_named(const char *const *words, size_t count)
{
    bool whole;

    for (size_t i = 0; cli_commands[i]; i++) {
        const struct cli_command *command = cli_commands[i];

        if (name_has(command->name, words, count, &whole) && whole)
            return command;
        if (command->alias && count == 1 && strcmp(command->alias, words[0]) == 0)
            return command;
    }
    return NULL;
}

static const char *group_named(const char *const *words, size_t count)
{
    bool whole;

    for (size_t i = 0; cli_commands[i]; i++)
        if (name_has(cli_commands[i]->name, words, count, &whole))
            return cli_commands[i]->name;
    return NULL;
}

/* By letter when there is one, else by name. */
static bool is_called(const struct cli_option *o, const char *name, size_t n, char letter)
{
    if (letter || !name)
        return letter && o->letter == letter;
    return strlen(o->name) == n && memcmp(o->name, name, n) == 0;
}

/* The option of that name, or letter, in any command. */
static const struct cli_option *option_anywhere(const char *name, size_t n, char letter)
{
    for (size_t i = 0; cli_commands[i]; i++)
        for (const struct cli_option *o = cli_commands[i]->options; o && o->name; o++)
            if (is_called(o, name, n, letter))
                return o;
    for (const struct cli_option *o = cli_common; o->name; o++)
        if (is_called(o, name, n, letter))
            return o;
    return NULL;
}

/* Does this option argument eat the next argument? */
static bool takes_next(const char *arg)
{
    const struct cli_option *o;

    if (arg[1] == '-') {
        if (strchr(arg, '='))
            return false;
        o = option_anywhere(arg + 2, strlen(arg + 2), 0);
        return o && o->value;
    }
    for (size_t i = 1; arg[i]; i++) {
        o = option_anywhere(NULL, 0, arg[i]);
        if (o && o->value)
            return arg[i + 1] == '\0';
    }
    return false;
}

static bool is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

#define CANDIDATES_MAX 256

static const char *words_from(const char *name, size_t depth)
{
    for (; depth > 0 && *name; depth--) {
        name += strcspn(name, " ");
        name += *name == ' ';
    }
    return name;
}

/* Of every name's next word after the first depth words, and of whole last words, the nearest to word. */
static const char *nearest_command(const char *const *words, size_t depth, char out[64])
{
    char *copies[CANDIDATES_MAX] = {NULL};
    const char *found;
    size_t count = 0;
    bool whole;

    for (size_t i = 0; cli_commands[i] && count + 2 < CANDIDATES_MAX; i++) {
        const struct cli_command *command = cli_commands[i];

        if (command->alias && depth == 0)
            copies[count++] = mem_strdup(command->alias);
        if (!name_has(command->name, words, depth, &whole) && depth > 0)
            continue;

        const char *rest = words_from(command->name, depth);

        if (*rest)
            copies[count++] = mem_strndup(rest, strcspn(rest, " "));
    }
    found = str_nearest(words[depth], (const char *const *)copies, count);
    if (found)
        (void)snprintf(out, 64, "%s", found);
    for (size_t i = 0; i < count; i++)
        free(copies[i]);
    return found ? out : NULL;
}

/* "weir add" is not there, but "weir store add" is; nor is "weir store init", but "weir init". */
static const char *same_last_word(const char *word)
{
    for (size_t i = 0; cli_commands[i]; i++) {
        const char *last = strrchr(cli_commands[i]->name, ' ');

        if (strcmp(last ? last + 1 : cli_commands[i]->name, word) == 0)
            return cli_commands[i]->name;
    }
    return NULL;
}

static enum err_code unknown_command(const char *const *words, size_t depth, struct err *err)
{
    char near[64], head[128] = "";
    const char *nearest = nearest_command(words, depth, near);
    const char *elsewhere = same_last_word(words[depth]);

    for (size_t i = 0; i < depth; i++)
        (void)snprintf(head + strlen(head), sizeof(head) - strlen(head), "%s ", words[i]);
    if (elsewhere)
        return err_set(err, ERR_USAGE, "there is no command '%s%s'; did you mean 'weir %s'?", head,
                       words[depth], elsewhere);
    if (nearest)
        return err_set(err, ERR_USAGE, "there is no command '%s%s'; did you mean 'weir %s%s'?",
                       head, words[depth], head, nearest);
    return err_set(err, ERR_USAGE, "there is no command '%s%s'; 'weir help' lists them", head,
                   words[depth]);
}

/* The command is the longest name that the first words make.  used: which arguments those words were. */
static enum err_code find_command(int argc, char **argv, struct cli *c, bool *used, struct err *err)
{
    const char *words[CLI_WORDS_MAX];
    int places[CLI_WORDS_MAX];
    size_t count = 0;

    /* What other programs understand, typed by habit. */
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        words[0] = "version";
        c->command = command_named(words, 1);
        used[1] = true;
        return OK;
    }
    for (int i = 1; i < argc && count < CLI_WORDS_MAX; i++) {
        if (strcmp(argv[i], "--") == 0)
            break;
        if (is_option(argv[i])) {
            i += takes_next(argv[i]);
            continue;
        }
        words[count] = argv[i];
        places[count++] = i;
    }
    for (size_t n = count; n > 0 && !c->command; n--) {
        c->command = command_named(words, n);
        for (size_t i = 0; c->command && i < n; i++)
            used[places[i]] = true;
    }
    if (c->command || count == 0)
        return OK;

    size_t known = 0;

    while (known < count && group_named(words, known + 1))
        known++;
    if (known < count)
        return unknown_command(words, known, err);
    c->group = group_named(words, known);
    for (size_t i = 0; i < known; i++)
        used[places[i]] = true;
    return OK;
}

/* ---- options ----------------------------------------------------------------------------------- */

static enum err_code unknown_option(const struct cli *c, const char *shown, const char *name,
                                    struct err *err)
{
    const char *candidates[CLI_OPTIONS_MAX + 8], *nearest;
    size_t count = 0;

    if (!c->command)
        return err_set(err, ERR_USAGE,
                       "there is no command, and no option %s without one; see 'weir help'", shown);

    for (const struct cli_option *o = c->command->options; o && o->name; o++)
        candidates[count++] = o->name;
    for (const struct cli_option *o = cli_common; o->name; o++)
        candidates[count++] = o->name;
    nearest = str_nearest(name, candidates, count);
    if (nearest)
        return err_set(err, ERR_USAGE, "weir %s has no option %s; did you mean --%s?",
                       c->command->name, shown, nearest);
    return err_set(err, ERR_USAGE, "weir %s has no option %s; see 'weir %s --help'",
                   c->command->name, shown, c->command->name);
}

static const struct cli_option *option_of(const struct cli *c, const char *name, size_t n,
                                          char letter, size_t *place)
{
    const struct cli_option *lists[2] = {c->command ? c->command->options : NULL, cli_common};

    for (size_t l = 0; l < 2; l++) {
        *place = l == 0 ? 0 : CLI_OPTIONS_MAX;
        for (const struct cli_option *o = lists[l]; o && o->name; o++, ++*place)
            if (is_called(o, name, n, letter))
                return o;
    }
    return NULL;
}

static bool may_repeat(const struct cli_option *o)
{
    const size_t n = strlen(o->value);

    return n > 3 && strcmp(o->value + n - 3, "...") == 0;
}

static enum err_code take_option(struct cli *c, const struct cli_option *o, size_t place,
                                 const char *value, struct err *err)
{
    if (place < CLI_OPTIONS_MAX) {
        if (c->values[place] && o->value && !may_repeat(o))
            return err_set(err, ERR_USAGE, "--%s is given twice", o->name);
        c->values[place] = value;
        c->given[c->given_count++] = (struct cli_given){place, value};
    } else if (strcmp(o->name, "dir") == 0) {
        c->dir = value;
    } else if (strcmp(o->name, "json") == 0) {
        c->json = true;
    } else if (strcmp(o->name, "quiet") == 0) {
        c->quiet = true;
    } else {
        c->help = true;
    }
    return OK;
}

/* "--name", "--name=value".  *next: the following argument was its value. */
static enum err_code long_option(struct cli *c, const char *arg, const char *following, bool *next,
                                 struct err *err)
{
    const char *equals = strchr(arg, '='), *value = equals ? equals + 1 : NULL;
    const size_t n = equals ? (size_t)(equals - arg - 2) : strlen(arg + 2);
    char name[64];
    size_t place;
    const struct cli_option *o = option_of(c, arg + 2, n, 0, &place);

    if (!o) {
        (void)snprintf(name, sizeof(name), "%.*s", (int)(n < 60 ? n : 60), arg + 2);
        return unknown_option(c, arg, name, err);
    }
    if (!o->value && value)
        return err_set(err, ERR_USAGE, "--%s takes no value", o->name);
    if (o->value && !value) {
        if (!following)
            return err_set(err, ERR_USAGE, "--%s needs a value: --%s %s", o->name, o->name,
                           o->value);
        value = following;
        *next = true;
    }
    return take_option(c, o, place, value ? value : "", err);
}

/* "-r", "-rl", "-C DIR", "-CDIR" */
static enum err_code short_options(struct cli *c, const char *arg, const char *following,
                                   bool *next, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 1; arg[i] && rc == OK; i++) {
        size_t place;
        const struct cli_option *o = option_of(c, NULL, 0, arg[i], &place);
        const char *value = "";

        if (!o)
            return unknown_option(c, arg, arg + i, err);
        if (o->value && arg[i + 1]) {
            value = arg + i + 1;
            return take_option(c, o, place, value, err);
        }
        if (o->value) {
            if (!following)
                return err_set(err, ERR_USAGE, "-%c needs a value: -%c %s", o->letter, o->letter,
                               o->value);
            value = following;
            *next = true;
        }
        rc = take_option(c, o, place, value, err);
    }
    return rc;
}

static enum err_code check_args(const struct cli *c, struct err *err)
{
    const struct cli_command *command = c->command;
    const size_t count = c->arg_count;

    if (!command && !c->group && count > 0) /* weir -- store ls */
        return err_set(err, ERR_USAGE, "the command comes before '--'; see 'weir help'");
    if (!command || c->help)
        return OK;
    if (count < (size_t)command->args_min)
        return err_set(err, ERR_USAGE, "too few arguments: weir %s %s", command->name,
                       command->args);
    if (command->args_max >= 0 && count > (size_t)command->args_max)
        return err_set(err, ERR_USAGE, "too many arguments, from '%s' on: weir %s%s%s",
                       c->args[command->args_max], command->name, *command->args ? " " : "",
                       command->args);
    return OK;
}

/* --json and --help count even when something else on the line is wrong. */
static void notice_common(int argc, char **argv, struct cli *c)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        c->json |= strcmp(argv[i], "--json") == 0;
}

/* As many options as there can be: a bundle such as -rl has one in each letter. */
static size_t letters_in(int argc, char **argv)
{
    size_t n = 0;

    for (int i = 1; i < argc; i++)
        n += argv[i][0] == '-' ? strlen(argv[i]) : 0;
    return n;
}

enum err_code cli_parse(int argc, char **argv, struct cli *c, struct err *err)
{
    bool *used = mem_zero((size_t)argc + 1, sizeof(*used)), options = true;
    enum err_code rc;

    CHECK(argc >= 0);
    memset(c, 0, sizeof(*c));
    c->args = mem_zero((size_t)argc + 1, sizeof(*c->args));
    c->given = mem_zero(letters_in(argc, argv) + 1, sizeof(*c->given));
    notice_common(argc, argv, c);
    rc = find_command(argc, argv, c, used, err);
    for (int i = 1; i < argc && rc == OK; i++) {
        const char *following = i + 1 < argc ? argv[i + 1] : NULL;
        bool next = false;

        if (used[i])
            continue;
        if (c->command && c->command->raw && c->arg_count > 0)
            options = false;
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (!options || !is_option(argv[i]))
            c->args[c->arg_count++] = argv[i];
        else if (argv[i][1] == '-')
            rc = long_option(c, argv[i], following, &next, err);
        else
            rc = short_options(c, argv[i], following, &next, err);
        i += next;
    }
    free(used);
    return rc ? rc : check_args(c, err);
}

void cli_release(struct cli *c)
{
    free(c->args);
    free(c->given);
    memset(c, 0, sizeof(*c));
}

/* ---- what commands ask ------------------------------------------------------------------------- */

const char *cli_value(const struct cli *c, const char *option)
{
    size_t place;
    const struct cli_option *o = option_of(c, option, strlen(option), 0, &place);

    CHECK(o);
    CHECK(place < CLI_OPTIONS_MAX);
    return c->values[place];
}

const struct cli_option *cli_option_at(const struct cli *c, size_t place)
{
    return place < CLI_OPTIONS_MAX ? &c->command->options[place] : NULL;
}

const char **cli_values(const struct cli *c, const char *option)
{
    const char **list = mem_zero(c->given_count + 1, sizeof(*list));
    size_t place, n = 0;
    const struct cli_option *o = option_of(c, option, strlen(option), 0, &place);

    CHECK(o);
    CHECK(place < CLI_OPTIONS_MAX);
    for (size_t i = 0; i < c->given_count; i++)
        if (c->given[i].place == place)
            list[n++] = c->given[i].value;
    return list;
}

bool cli_flag(const struct cli *c, const char *option)
{
    return cli_value(c, option) != NULL;
}

enum err_code cli_seconds(const struct cli *c, const char *option, int64_t absent, int64_t *out,
                          struct err *err)
{
    const char *value = cli_value(c, option);

    *out = absent;
    if (!value)
        return OK;
    if (str_to_seconds(str_of(value), out, err) == OK)
        return OK;
    return err_set(err, ERR_USAGE, "--%s %s: write a whole number and s, m, h or d, as in 24h",
                   option, value);
}

enum err_code cli_one_of(const struct cli *c, const char *const *flags, size_t count,
                         struct err *err)
{
    const char *first = NULL;

    for (size_t i = 0; i < count; i++) {
        if (!cli_flag(c, flags[i]))
            continue;
        if (first)
            return err_set(err, ERR_USAGE, "--%s and --%s exclude each other", first, flags[i]);
        first = flags[i];
    }
    return OK;
}

enum err_code cli_open(const struct cli *c, enum store_mode mode, struct store **out,
                       struct err *err)
{
    return store_open(c->dir, mode, out, err);
}

enum err_code cli_resolve(struct store *st, const char *what, struct digest *out,
                          enum obj_kind *kind, struct err *err)
{
    return store_resolve(st, str_of(what), out, kind, err);
}

struct progress *cli_progress(const struct cli *c, struct progress *p, const char *verb,
                              const char *unit)
{
    memset(p, 0, sizeof(*p));
    if (c->quiet)
        return NULL;
    progress_begin(p, verb, unit, 0);
    return p;
}

/* ---- main -------------------------------------------------------------------------------------- */

static void report(const struct cli *c, const struct err *err)
{
    struct err ignored = ERR_INIT;

    (void)fflush(stdout);
    log_line(LOG_ERROR, "%s", err->text);
    if (!c->json)
        return;

    json_t *text = json_string(err->text);

    if (!text) /* a file name in it is not UTF-8 */
        text = cli_json_name(err->text, strlen(err->text));

    json_t *line = json_pack("{s:{s:o,s:s}}", "error", "text", text, "word", err_word(err->code));

    if (cli_json(line, &ignored))
        log_line(LOG_ERROR, "%s", ignored.text);
}

static enum err_code show_help(const struct cli *c, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, 1 << 20);
    if (c->command)
        cli_help_command(c->command, &text);
    else if (c->group)
        cli_help_group(c->group, &text);
    else
        cli_help_all(&text);
    rc = buf_check(&text, "help", err);
    if (rc == OK)
        rc = cli_write(text.p, text.n, err);
    buf_release(&text);
    return rc;
}

static enum err_code run(struct cli *c, struct err *err)
{
    if (c->help || (!c->command && !c->group))
        return show_help(c, err);
    if (!c->command)
        return err_set(err, ERR_USAGE, "'weir %.*s' needs a command; see 'weir help %.*s'",
                       (int)strcspn(c->group, " "), c->group, (int)strcspn(c->group, " "),
                       c->group);
    return c->command->run(c, err);
}

/* The index and its lock are mapped files: one that is shorter than it says, or whose disk fails or is full, ends in this
 * signal and not in an error. */
static void on_bus_error(int signal_number)
{
    static const char text[] =
        "weir: error: read a mapped file: its disk is full or fails (then make room), or "
        "the index is cut short (then run weir store rebuild)\n";
    const ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

    (void)signal_number;
    (void)n;
    _exit(EX_IOERR);
}

int cli_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct cli c = {0};
    enum err_code rc;

    /* Whoever started us may have ignored SIGPIPE; a reader that has seen enough ends us quietly. */
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGBUS, on_bus_error);
    log_setup(LOG_INFO);
    rc = cli_parse(argc, argv, &c, &err);
    if (c.quiet)
        log_setup(LOG_ERROR);
    if (rc == OK)
        rc = run(&c, &err);
    errno = 0;
    /* An earlier write that failed may have left nothing to flush. */
    if (rc == OK && (fflush(stdout) != 0 || ferror(stdout)))
        rc = err_sys(&err, errno ? errno : EIO, "write to standard output");
    if (rc)
        report(&c, &err);
    cli_release(&c);
    return err_exit_status(rc);
}
