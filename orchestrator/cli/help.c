/* weir help, weir version */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli.h"
#include "orchestrator/cli/commands.h"

static enum err_code help_run(struct cli *c, struct err *err)
{
    char **words = mem_zero(c->arg_count + 2, sizeof(*words));
    struct cli about = {0};
    struct buf text;
    enum err_code rc = OK;

    buf_init(&text, 1 << 20);
    words[0] = mem_strdup("weir");
    for (size_t i = 0; i < c->arg_count; i++)
        words[i + 1] = mem_strdup(c->args[i]);
    if (c->arg_count == 0) {
        cli_help_all(&text);
    } else if (c->arg_count == 1 && strcmp(c->args[0], "exit") == 0) {
        cli_help_exit(&text);
    } else {
        /* Too few arguments of the command asked about are no mistake here. */
        rc = cli_parse((int)c->arg_count + 1, words, &about, err);
        if (about.command && rc == ERR_USAGE && about.arg_count == 0)
            rc = OK;
        if (rc == OK && about.command)
            cli_help_command(about.command, &text);
        else if (rc == OK)
            cli_help_group(about.group, &text);
    }
    if (rc == OK)
        rc = buf_check(&text, "help", err);
    if (rc == OK)
        rc = cli_write(text.p, text.n, err);
    for (size_t i = 0; i <= c->arg_count; i++)
        free(words[i]);
    free(words);
    cli_release(&about);
    buf_release(&text);
    return rc;
}

const struct cli_command cli_help = {
    .name = "help",
    .args = "[COMMAND | exit]",
    .args_max = CLI_WORDS_MAX,
    .summary = "tell about a command, or about exit statuses",
    .example = "weir help store add\nweir help exit",
    .json = "the same text",
    .run = help_run,
};

static enum err_code version_run(struct cli *c, struct err *err)
{
    if (c->json)
        return cli_json(
            json_pack("{s:s,s:i}", "version", WEIR_VERSION, "store_format", STORE_FORMAT), err);
    printf("weir %s (store format %d)\n", WEIR_VERSION, STORE_FORMAT);
    return OK;
}

const struct cli_command cli_version = {
    .name = "version",
    .args = "",
    .summary = "tell this program's version and that of the stores it writes",
    .example = "weir version",
    .json = "{\"store_format\":1,\"version\":\"0.1.0\"}",
    .run = version_run,
};
