/* weir store ls */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/cut.h"
#include "store/reader.h"
#include "store/tree.h"

struct listing {
    struct cli *c;
    struct store *st;
    bool deep, wide;
};

static const char *mode_word(enum tree_mode mode)
{
    static const char *const words[] = {
        [TREE_FILE] = "file", [TREE_EXEC] = "exec", [TREE_DIR] = "dir", [TREE_LINK] = "link"};

    return words[mode];
}

/* ---- trees ------------------------------------------------------------------------------------- */

static enum err_code json_entry(const struct tree_entry *e, const struct buf *path, struct err *err)
{
    json_t *line =
        json_pack("{s:s,s:o}", "mode", mode_word(e->mode), "path", cli_json_name(path->p, path->n));

    CHECK(line);
    if (e->mode == TREE_LINK) {
        CHECK(json_object_set_new(line, "target", cli_json_name(e->target.p, e->target.n)) == 0);
    } else {
        CHECK(json_object_set_new(line, "digest", cli_json_digest(&e->digest)) == 0);
        CHECK(json_object_set_new(line, "size", json_integer(e->size)) == 0);
    }
    return cli_json(line, err);
}

static enum err_code show_entry(const struct listing *l, const struct tree_entry *e,
                                const struct buf *path, struct err *err)
{
    char text[DIGEST_TEXT + 1] = "";

    if (l->c->json)
        return json_entry(e, path, err);
    if (l->wide) {
        if (e->mode == TREE_LINK)
            printf("%-4s %14s  %-*s  ", "link", "", DIGEST_TEXT, "");
        else {
            digest_text(&e->digest, text);
            printf("%-4s %14lld  %s  ", mode_word(e->mode), (long long)e->size, text);
        }
    }
    cli_name(path->p, path->n);
    if (e->mode == TREE_DIR)
        printf("/");
    if (e->mode == TREE_LINK && l->wide) {
        printf(" -> ");
        cli_name(e->target.p, e->target.n);
    }
    printf("\n");
    return OK;
}

static enum err_code list_tree(const struct listing *l, const struct digest *id, int depth,
                               struct buf *path, struct err *err)
{
    char what[DIGEST_TEXT + 8] = "tree ";
    struct buf manifest;
    struct tree t;
    enum err_code rc;

    digest_text(id, what + strlen(what));
    if (depth > TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s: nested deeper than %d", what, TREE_DEPTH_MAX);
    tree_init(&t);
    buf_init(&manifest, TREE_BYTES_MAX);
    rc = object_read(l->st, id, TREE_BYTES_MAX, &manifest, err);
    if (rc == OK)
        rc = tree_decode(manifest.p, manifest.n, -1, what, &t, err);
    buf_release(&manifest);
    for (size_t i = 0; rc == OK && i < t.count; i++) {
        const struct tree_entry *e = &t.entries[i];
        const size_t mark = path->n;

        if (mark)
            buf_char(path, '/');
        buf_add(path, e->name.p, e->name.n);
        rc = buf_check(path, "path", err);
        if (rc == OK)
            rc = show_entry(l, e, path, err);
        if (rc == OK && l->deep && e->mode == TREE_DIR)
            rc = list_tree(l, &e->digest, depth + 1, path, err);
        path->n = mark;
    }
    tree_release(&t);
    return rc;
}

/* ---- blobs ------------------------------------------------------------------------------------- */

static enum err_code show_tensor(const struct listing *l, const char *name,
                                 const struct tensor_span *s, struct err *err)
{
    if (l->c->json) {
        json_t *shape = json_array();

        for (int i = 0; i < s->rank; i++)
            CHECK(json_array_append_new(shape, json_integer(s->shape[i])) == 0);
        return cli_json(json_pack("{s:I,s:s,s:o,s:o}", "bytes", (json_int_t)s->len, "dtype",
                                  s->dtype, "name", cli_json_name(name, strlen(name)), "shape",
                                  shape),
                        err);
    }
    printf("%-6s %14lld  (", s->dtype, (long long)s->len);
    for (int i = 0; i < s->rank; i++)
        printf("%s%lld", i ? ", " : "", (long long)s->shape[i]);
    printf(")  ");
    cli_name(name, strlen(name));
    printf("\n");
    return OK;
}

static enum err_code list_tensors(const struct listing *l, const struct digest *id, struct err *err)
{
    struct object *o = NULL;
    struct tensor_span *spans = NULL;
    char **names = NULL;
    size_t count = 0;
    struct buf head;
    enum err_code rc;

    buf_init(&head, CUT_HEADER_MAX + 64);
    rc = object_open(l->st, id, &o, err);
    if (rc == OK)
        rc = cli_read_head(o, &head, err);
    if (rc == OK)
        rc = safetensors_list(head.p, head.n, object_bytes(o), &names, &spans, &count, err);
    for (size_t i = 0; i < count && rc == OK; i++)
        rc = show_tensor(l, names[i], &spans[i], err);
    free(names);
    free(spans);
    object_close(o);
    buf_release(&head);
    return rc;
}

static enum err_code show_blob(const struct listing *l, const char *what, const struct digest *id,
                               struct err *err)
{
    struct tree_entry e = {.mode = TREE_FILE, .digest = *id};
    struct buf path;
    enum err_code rc = object_size(l->st, id, &e.size, err);

    if (rc)
        return rc;
    buf_init(&path, 1 << 20);
    buf_str(&path, what);
    rc = buf_check(&path, "name", err);
    if (rc == OK)
        rc = show_entry(l, &e, &path, err);
    buf_release(&path);
    return rc;
}

static enum err_code list(const struct listing *l, const char *what, struct err *err)
{
    struct digest id;
    enum obj_kind kind;
    struct buf path;
    enum err_code rc = cli_resolve(l->st, what, &id, &kind, err);

    if (rc)
        return rc;
    if (cli_flag(l->c, "tensors")) {
        if (kind == OBJ_TREE)
            return err_set(
                err, ERR_INPUT,
                "%s is a tree; name a safetensors file in it, as in %s:model.safetensors", what,
                what);
        rc = list_tensors(l, &id, err);
        return rc ? err_prefix(err, "%s", what) : OK;
    }
    if (kind != OBJ_TREE)
        return show_blob(l, what, &id, err);
    buf_init(&path, 1 << 20);
    rc = list_tree(l, &id, 0, &path, err);
    buf_release(&path);
    return rc;
}

static enum err_code ls_run(struct cli *c, struct err *err)
{
    struct listing l = {.c = c, .deep = cli_flag(c, "recursive"), .wide = cli_flag(c, "long")};
    enum err_code rc = cli_open(c, STORE_READ, &l.st, err);

    if (rc == OK && c->arg_count == 0)
        rc = cli_list_refs(c, l.st, "", err);
    else if (rc == OK)
        rc = list(&l, c->args[0], err);
    store_close(l.st);
    return rc;
}

static const struct cli_option ls_options[] = {
    {"recursive", 'r', NULL, "the folders below, too"},
    {"long", 'l', NULL, "mode, size and digest of each entry (size of a folder: its manifest's)"},
    {"tensors", 0, NULL, "of a safetensors file: name, type, shape and bytes of each tensor"},
    {0},
};

const struct cli_command cli_store_ls = {
    .name = "store ls",
    .args = "[WHAT]",
    .args_max = 1,
    .summary = "list a tree, or the tensors of a file; without WHAT: all refs",
    .text = "WHAT: " CLI_WHAT ".",
    .example = "weir store ls\nweir store ls data/captions -rl\nweir store ls "
               "best:model.safetensors --tensors",
    .json = "{\"digest\":\"sha256:...\",\"mode\":\"file\"|\"exec\"|\"dir\",\"path\":\"sub/"
            "a.txt\",\"size\":N} or\n"
            "{\"mode\":\"link\",\"path\":\"l\",\"target\":\"sub/a.txt\"}, a line per entry;\n"
            "{\"bytes\":N,\"dtype\":\"BF16\",\"name\":\"embed.weight\",\"shape\":[N,...]}, a line "
            "per tensor;\n"
            "without WHAT as 'weir ref ls'",
    .options = ls_options,
    .run = ls_run,
};
