/* weir ref set, ls, rm: names for objects, which also keep them from gc. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"

/* ---- set --------------------------------------------------------------------------------------- */

static enum err_code ref_line(const struct cli *c, const char *name, enum obj_kind kind,
                              const struct digest *d, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    if (c->json)
        return cli_json(json_pack("{s:o,s:s,s:o}", "digest", cli_json_digest(d), "kind",
                                  cli_kind(kind), "name", cli_json_name(name, strlen(name))),
                        err);
    digest_text(d, text);
    printf("%s  %s  ", text, cli_kind(kind));
    cli_name(name, strlen(name));
    printf("\n");
    return OK;
}

static enum err_code ref_set_run(struct cli *c, struct err *err)
{
    const struct str name = str_of(c->args[0]);
    struct store *st = NULL;
    struct digest d;
    enum obj_kind kind;
    enum err_code rc = store_ref_check(name, err);

    if (rc == OK)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (rc == OK)
        rc = cli_resolve(st, c->args[1], &d, &kind, err);
    if (rc == OK)
        rc = store_ref_set(st, name, kind, &d, err);
    if (rc == OK && (c->json || !c->quiet))
        rc = ref_line(c, c->args[0], kind, &d, err);
    store_close(st);
    return rc;
}

const struct cli_command cli_ref_set = {
    .name = "ref set",
    .args = "NAME WHAT",
    .args_min = 2,
    .args_max = 2,
    .summary = "name an object; what a name reaches is never deleted",
    .text = "NAME: letters, digits and . _ @ = , / [ ] + -, not starting or ending with /.  An "
            "existing name is moved.\n"
            "WHAT: " CLI_WHAT,
    .example =
        "weir ref set data/captions sha256:5b1f...\nweir ref set best exp-12:checkpoints/600",
    .json = "{\"digest\":\"sha256:...\",\"kind\":\"blob\"|\"tree\",\"name\":\"data/captions\"}",
    .run = ref_set_run,
};

/* ---- ls ---------------------------------------------------------------------------------------- */

enum err_code cli_list_refs(struct cli *c, struct store *st, const char *prefix, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, str_of(prefix), REF_LIVE, &rows, &n, err);

    for (size_t i = 0; i < n && rc == OK; i++)
        rc = ref_line(c, rows[i].name, rows[i].kind, &rows[i].digest, err);
    free(rows);
    return rc;
}

static enum err_code ref_ls_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    enum err_code rc = cli_open(c, STORE_READ, &st, err);

    if (rc == OK)
        rc = cli_list_refs(c, st, c->arg_count ? c->args[0] : "", err);
    store_close(st);
    return rc;
}

const struct cli_command cli_ref_ls = {
    .name = "ref ls",
    .args = "[PREFIX]",
    .args_max = 1,
    .summary = "list names, or those that start with PREFIX",
    .example = "weir ref ls data/",
    .json = "{\"digest\":\"sha256:...\",\"kind\":\"blob\"|\"tree\",\"name\":\"data/captions\"}, a "
            "line per name",
    .run = ref_ls_run,
};

/* ---- rm ---------------------------------------------------------------------------------------- */

/* A name that is not there is more likely misspelt than done already. */
enum err_code cli_unknown_ref(struct store *st, const char *name, struct err *err)
{
    struct ref_row *rows = NULL;
    const char **names, *nearest;
    struct err ignored = ERR_INIT;
    size_t n = 0;

    if (index_refs(st->index, STR(""), REF_LIVE, &rows, &n, &ignored))
        return err_set(err, ERR_NOT_FOUND, "there is no ref %s", name);
    names = mem_zero(n + 1, sizeof(*names));
    for (size_t i = 0; i < n; i++)
        names[i] = rows[i].name;
    nearest = str_nearest(name, names, n);
    if (nearest)
        err_set(err, ERR_NOT_FOUND, "there is no ref %s; did you mean %s?", name, nearest);
    else
        err_set(err, ERR_NOT_FOUND, "there is no ref %s; 'weir ref ls' lists them", name);
    free(names);
    free(rows);
    return ERR_NOT_FOUND;
}

static enum err_code ref_rm_run(struct cli *c, struct err *err)
{
    const struct str name = str_of(c->args[0]);
    struct store *st = NULL;
    struct ref_row row = {0};
    enum err_code rc = store_ref_check(name, err);

    if (rc == OK)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (rc)
        goto out;
    rc = index_ref(st->index, name, &row, err);
    if (rc == ERR_NOT_FOUND || (rc == OK && row.kind == OBJ_NONE))
        rc = cli_unknown_ref(st, c->args[0], err);
    if (rc == OK)
        rc = store_ref_set(st, name, OBJ_NONE, &row.digest, err);
    if (rc == OK && (c->json || !c->quiet))
        rc = ref_line(c, c->args[0], row.kind, &row.digest, err);
out:
    store_close(st);
    return rc;
}

const struct cli_command cli_ref_rm = {
    .name = "ref rm",
    .args = "NAME",
    .args_min = 1,
    .args_max = 1,
    .summary = "remove a name; its objects stay until a gc finds nothing else that needs them",
    .text = "The line printed says what the name stood for, so that it can be set again.",
    .example = "weir ref rm data/captions",
    .json = "{\"digest\":\"sha256:...\",\"kind\":\"blob\"|\"tree\",\"name\":\"data/captions\"}, as "
            "it was",
    .run = ref_rm_run,
};
