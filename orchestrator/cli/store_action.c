/* weir store action put, get: the action cache, for scripts. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "store/action.h"

static enum err_code show(const struct cli *c, const struct digest *key,
                          const struct digest *result, const struct digest *printed,
                          struct err *err)
{
    char text[DIGEST_TEXT + 1];

    if (c->json)
        return cli_json(
            json_pack("{s:o,s:o}", "key", cli_json_digest(key), "result", cli_json_digest(result)),
            err);
    digest_text(printed, text);
    printf("%s\n", text);
    return OK;
}

static enum err_code read_action(const char *file, json_t **out, struct err *err)
{
    struct buf text;
    enum err_code rc;

    buf_init(&text, ACTION_BYTES_MAX);
    rc = os_read_file(AT_FDCWD, file, ACTION_BYTES_MAX, &text, err);
    if (rc == OK)
        rc = json_parse(text.p ? text.p : "", text.n, ACTION_BYTES_MAX, file, out, err);
    buf_release(&text);
    return rc;
}

static enum err_code put_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    struct writer *w = NULL;
    json_t *action = NULL;
    struct digest key, result;
    enum obj_kind kind;
    enum err_code rc = read_action(c->args[0], &action, err);

    if (rc == OK)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (rc == OK)
        rc = cli_resolve(st, c->args[1], &result, &kind, err);
    if (rc == OK)
        rc = writer_open(st, &w, err);
    if (rc == OK)
        rc = action_put(w, action, &result, &key, err);
    if (rc == OK)
        rc = writer_commit(w, err);
    if (rc == OK)
        rc = show(c, &key, &result, &key, err);
    writer_release(w);
    store_close(st);
    json_decref(action);
    return rc;
}

static enum err_code get_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    struct digest key, result;
    enum err_code rc = digest_parse(c->args[0], strlen(c->args[0]), &key, err);

    if (rc == OK)
        rc = cli_open(c, STORE_READ, &st, err);
    if (rc == OK)
        rc = action_lookup(st, &key, &result, err);
    if (rc == OK)
        rc = show(c, &key, &result, &result, err);
    store_close(st);
    return rc;
}

const struct cli_command cli_store_action_put = {
    .name = "store action put",
    .args = "FILE RESULT",
    .args_min = 2,
    .args_max = 2,
    .summary = "note that the action in FILE (JSON) has this result, and print its key",
    .text =
        "The key is the SHA-256 of the action in canonical form (RFC 8785).  RESULT: " CLI_WHAT ".",
    .example = "weir store action put action.json sha256:5b1f...",
    .json = "{\"key\":\"sha256:...\",\"result\":\"sha256:...\"}",
    .run = put_run,
};

const struct cli_command cli_store_action_get = {
    .name = "store action get",
    .args = "KEY",
    .args_min = 1,
    .args_max = 1,
    .summary = "print the result that an action is known to have",
    .text = "Exits 65 when there is none, or when something below it is missing, so that it has to "
            "run again.",
    .example = "weir store action get sha256:77ab...",
    .json = "{\"key\":\"sha256:...\",\"result\":\"sha256:...\"}",
    .run = get_run,
};
