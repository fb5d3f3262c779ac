/* weir init */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"

static enum err_code init_run(struct cli *c, struct err *err)
{
    const char *dir = c->arg_count ? c->args[0] : c->dir ? c->dir : ".";
    const char *objects = cli_value(c, "objects");
    struct store *st = NULL;
    enum err_code rc;

    if (c->arg_count && c->dir)
        return err_set(err, ERR_USAGE, "weir init: give DIR or --dir, not both");
    rc = store_init(dir, objects, err);
    if (rc == OK)
        rc = store_open(dir, STORE_WRITE, &st, err);
    if (rc == OK && c->json)
        rc = cli_json(json_pack("{s:o}", "path", cli_json_name(st->root, strlen(st->root))), err);
    else if (rc == OK && !c->quiet) {
        printf("made ");
        cli_name(st->root, strlen(st->root));
        printf("\n");
    }
    store_close(st);
    return rc;
}

static const struct cli_option init_options[] = {
    {"objects", 0, "PATH", "keep objects in PATH, which several hosts may share, not inside .weir"},
    {0},
};

const struct cli_command cli_init = {
    .name = "init",
    .args = "[DIR]",
    .args_max = 1,
    .summary = "make a store: .weir in DIR, or here",
    .text = "Commands find it from any folder below, as git finds .git.  The settings are in "
            ".weir/config.yaml,\n"
            "with a comment for each.  An init that was cut short is completed by the next one.",
    .example = "weir init\nweir init ~/project --objects /shared/weir/objects",
    .json = "{\"path\":\"/home/a/project/.weir\"}",
    .options = init_options,
    .run = init_run,
};
