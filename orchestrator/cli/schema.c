/* weir schema */
#include "orchestrator/schema.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"

static enum err_code schema_run(struct cli *c, struct err *err)
{
    json_t *v;
    char *text;
    enum err_code rc = schema_json(&v, err);

    if (rc)
        return rc;
    if (c->json)
        return cli_json(v, err);
    text = json_dumps(v, JSON_INDENT(2));
    json_decref(v);
    CHECK(text);
    rc = cli_write(text, strlen(text), err);
    if (rc == OK)
        rc = cli_write("\n", 1, err);
    free(text);
    return rc;
}

const struct cli_command cli_schema = {
    .name = "schema",
    .args = "",
    .summary = "print the JSON Schema of pipeline files, for editors",
    .text = "Most editors complete and check YAML by it: save it, and put this line on top of a "
            "pipeline:\n"
            "# yaml-language-server: $schema=weir.schema.json",
    .example = "weir schema > weir.schema.json",
    .json = "the same on one line, in canonical form",
    .run = schema_run,
};
