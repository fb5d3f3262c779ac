/* Every help text, made from the one table of commands. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli.h"

#define NAME_COLUMN 20
#define OPTION_COLUMN 26

static void add_row(struct buf *out, int column, const char *name, const char *text)
{
    buf_printf(out, "  %-*s  %s\n", column, name, text);
}

/* Each line of text, indented. */
static void add_indented(struct buf *out, const char *text)
{
    while (*text) {
        const size_t n = strcspn(text, "\n");

        buf_printf(out, "  %.*s\n", (int)n, text);
        text += n;
        text += *text == '\n';
    }
}

static void add_options(struct buf *out, const struct cli_option *o)
{
    for (; o && o->name; o++) {
        char left[80], letter[8] = "    ";

        if (o->letter)
            (void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                       o->value ? o->value : "");
        add_row(out, OPTION_COLUMN, left, o->help);
    }
}

static bool in_group(const struct cli_command *command, const char *group, size_t n)
{
    return strncmp(command->name, group, n) == 0 && command->name[n] == ' ';
}

void cli_help_all(struct buf *out)
{
    buf_str(out,
            "weir - a content-addressed store for artifacts, and the pipelines that make them\n"
            "\n"
            "usage: weir COMMAND [OPTION...] [ARGUMENT...]\n"
            "\n"
            "Commands:\n");
    for (size_t i = 0; cli_commands[i]; i++)
        add_row(out, NAME_COLUMN, cli_commands[i]->name, cli_commands[i]->summary);
    buf_str(out, "\nShort forms: ");
    for (size_t i = 0, shown = 0; cli_commands[i]; i++)
        if (cli_commands[i]->alias)
            buf_printf(out, "%sweir %s", shown++ ? ", " : "", cli_commands[i]->alias);
    buf_str(out, "\n\nOptions of every command:\n");
    add_options(out, cli_common);
    buf_str(
        out,
        "\n'weir help COMMAND' tells more about one, 'weir help exit' what exit statuses mean.\n"
        "Start with 'weir init'.\n");
}

void cli_help_group(const char *group, struct buf *out)
{
    const size_t n = strcspn(group, " ");

    buf_printf(out, "usage: weir %.*s COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n", (int)n,
               group);
    for (size_t i = 0; cli_commands[i]; i++)
        if (in_group(cli_commands[i], group, n))
            add_row(out, NAME_COLUMN, cli_commands[i]->name, cli_commands[i]->summary);
    buf_printf(out, "\n'weir help %.*s COMMAND' tells more about one.\n", (int)n, group);
}

void cli_help_command(const struct cli_command *command, struct buf *out)
{
    buf_printf(out, "weir %s - %s\n\nusage: weir %s%s%s%s\n", command->name, command->summary,
               command->name, command->options ? " [OPTION...]" : "", *command->args ? " " : "",
               command->args);
    if (command->alias)
        buf_printf(out, "       weir %s%s%s%s\n", command->alias,
                   command->options ? " [OPTION...]" : "", *command->args ? " " : "",
                   command->args);
    if (command->text)
        buf_printf(out, "\n%s\n", command->text);
    buf_str(out, "\nOptions:\n");
    add_options(out, command->options);
    add_options(out, cli_common);
    buf_str(out, "\nExample:\n");
    add_indented(out, command->example);
    buf_str(out, "\nWith --json:\n");
    add_indented(out, command->json);
}

void cli_help_exit(struct buf *out)
{
    static const char *const notes[] = {
        [1] = "",
        [64] = "the command line is wrong; the message names what and the nearest right one",
        [65] = "a file, name or object that was given is wrong or not there",
        [69] = "something that this machine or build lacks",
        [70] = "our mistake: please report it",
        [74] = "input or output failed, or stored bytes are damaged ('weir fsck')",
        [75] = "stopped or busy: run it again",
        [77] = "refused by rights or policy",
        [78] = "the configuration is wrong, or a newer weir wrote this",
    };
    const int count = (int)(sizeof(notes) / sizeof(notes[0]));

    buf_str(out, "Exit statuses:\n   0  done\n");
    for (int status = 1; status < count; status++) {
        size_t shown = 0;

        for (int code = OK + 1; code < ERR_CODE_COUNT; code++) {
            if (err_exit_status((enum err_code)code) != status)
                continue;
            if (shown++ == 0)
                buf_printf(out, "  %2d  ", status);
            else
                buf_str(out, ", ");
            buf_str(out, err_word((enum err_code)code));
        }
        if (shown && notes[status] && *notes[status])
            buf_printf(out, "\n      %s", notes[status]);
        if (shown)
            buf_char(out, '\n');
    }
    buf_str(out, "The words are those of --json errors: "
                 "{\"error\":{\"text\":\"...\",\"word\":\"not found\"}}.\n"
                 "A signal ends weir as it ends any program: 130 after Ctrl-C, 143 after TERM.\n");
}
