/* weir store add */
#include <stdio.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/ingest.h"

static enum err_code show(const struct cli *c, const char *path, const struct ingest_result *r,
                          struct err *err)
{
    char text[DIGEST_TEXT + 1], size[16];

    if (c->json) {
        json_t *line = json_pack(
            "{s:I,s:o,s:I,s:I,s:s,s:I,s:I,s:o,s:I,s:I}", "bytes", (json_int_t)r->bytes, "digest",
            cli_json_digest(&r->digest), "files", (json_int_t)r->files, "hashed_files",
            (json_int_t)r->hashed_files, "kind", cli_kind(r->kind), "new_bytes",
            (json_int_t)r->stats.new_bytes, "new_objects", (json_int_t)r->stats.new_objects, "path",
            cli_json_name(path, strlen(path)), "reused_objects",
            (json_int_t)r->stats.reused_objects, "size", (json_int_t)r->size);

        return cli_json(line, err);
    }
    digest_text(&r->digest, text);
    str_from_bytes(r->bytes, size);
    printf("%s  %s  %s in %lld %s  ", text, cli_kind(r->kind), size, (long long)r->files,
           r->files == 1 ? "file" : "files");
    cli_name(path, strlen(path));
    printf("\n");
    return OK;
}

static enum err_code add_run(struct cli *c, struct err *err)
{
    struct progress line;
    struct ingest_options o = {
        .how = cli_flag(c, "adopt") ? INGEST_ADOPT : INGEST_COPY,
        .ref = cli_value(c, "ref"),
        .no_memo = cli_flag(c, "no-memo"),
    };
    struct store *st = NULL;
    enum err_code rc;

    if (o.ref && c->arg_count > 1)
        return err_set(err, ERR_USAGE,
                       "--ref names one thing, %zu paths are given; add them one by one, "
                       "or put them into a folder",
                       c->arg_count);
    if (o.ref) {
        rc = store_ref_check(str_of(o.ref), err);
        if (rc)
            return rc;
    }
    rc = cli_open(c, STORE_WRITE, &st, err);
    for (size_t i = 0; i < c->arg_count && rc == OK; i++) {
        struct ingest_result result = {0};

        o.progress = cli_progress(c, &line, "adding", "bytes");
        rc = store_add(st, c->args[i], &o, &result, err);
        progress_end(o.progress);
        if (rc == OK)
            rc = show(c, c->args[i], &result, err);
    }
    store_close(st);
    return rc;
}

static const struct cli_option add_options[] = {
    {"ref", 0, "NAME", "name the object, in the same step"},
    {"adopt", 0, NULL, "move the files in: they are gone from PATH afterwards"},
    {"no-memo", 0, NULL,
     "read every file, also those that look unchanged since they were last read"},
    {0},
};

const struct cli_command cli_store_add = {
    .name = "store add",
    .args = "PATH...",
    .args_min = 1,
    .args_max = -1,
    .summary = "copy files and folders into the store, and print what they are called",
    .text = "A file becomes a blob, named by the SHA-256 of its bytes; a folder becomes a tree.  "
            "When the line is\n"
            "printed, the object is safe on disk.  Without --ref or another root it is kept for "
            "the grace period.\n"
            "Links must stay inside the folder; sockets, devices and fifos are refused.",
    .example =
        "weir store add data/ --ref data/captions\nweir store add model.safetensors notes.txt",
    .json = "{\"bytes\":N,\"digest\":\"sha256:...\",\"files\":N,\"hashed_files\":N,\"kind\":"
            "\"blob\"|\"tree\",\n"
            " \"new_bytes\":N,\"new_objects\":N,\"path\":\"data/"
            "\",\"reused_objects\":N,\"size\":N}, a line per path\n"
            "bytes and files are those below the path, size is that of the object itself (a tree's "
            "is its manifest's);\n"
            "hashed_files had to be read; new_bytes is what the store grew by",
    .options = add_options,
    .run = add_run,
};
