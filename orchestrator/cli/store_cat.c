/* weir store cat: bytes to stdout, whole or a part, without more memory than one piece. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "store/cut.h"
#include "store/reader.h"

#define PIECE (4 << 20)
#define FIRST 512 /* what cut_head_wanted looks at */

static enum err_code copy_range(struct object *o, int64_t off, int64_t n, struct err *err)
{
    char *piece = mem_alloc(PIECE);
    enum err_code rc = OK;

    while (n > 0 && rc == OK) {
        const size_t now = n < PIECE ? (size_t)n : PIECE;

        rc = object_pread(o, piece, now, off, err);
        if (rc == OK)
            rc = cli_write(piece, now, err);
        off += (int64_t)now;
        n -= (int64_t)now;
    }
    free(piece);
    return rc;
}

/* "OFF:LEN", "OFF:" to the end */
static enum err_code parse_range(const char *text, int64_t size, int64_t *off, int64_t *n,
                                 struct err *err)
{
    const char *colon = strchr(text, ':');
    struct err inner = ERR_INIT;

    if (!colon ||
        str_to_i64((struct str){text, (size_t)(colon - text)}, 0, INT64_MAX, off, &inner) ||
        (colon[1] && str_to_i64(str_of(colon + 1), 0, INT64_MAX, n, &inner)))
        return err_set(err, ERR_USAGE,
                       "--range %s: write OFFSET:LENGTH in bytes, or OFFSET: for the rest", text);
    if (*off > size)
        return err_set(err, ERR_INPUT, "--range %s: the object has %lld bytes", text,
                       (long long)size);
    if (!colon[1])
        *n = size - *off;
    if (*n > size - *off)
        return err_set(err, ERR_INPUT, "--range %s: the object has %lld bytes", text,
                       (long long)size);
    return OK;
}

enum err_code cli_read_head(struct object *o, struct buf *head, struct err *err)
{
    const int64_t size = object_bytes(o);
    const size_t first = size < FIRST ? (size_t)size : FIRST;
    char start[FIRST];
    enum err_code rc = object_pread(o, start, first, 0, err);

    if (rc)
        return rc;

    const size_t wanted = cut_head_wanted(start, first, size);
    const size_t n = wanted > first ? wanted : first;
    void *room = buf_room(head, (int64_t)n < size ? n : (size_t)size);

    if (!room)
        return buf_check(head, "safetensors header", err);
    return object_pread(o, room, head->n, 0, err);
}

static enum err_code find_tensor(struct object *o, const char *name, int64_t *off, int64_t *n,
                                 struct err *err)
{
    struct tensor_span span;
    struct buf head;
    enum err_code rc;

    buf_init(&head, CUT_HEADER_MAX + 64);
    rc = cli_read_head(o, &head, err);
    if (rc == OK)
        rc = safetensors_find(head.p, head.n, object_bytes(o), name, &span, err);
    if (rc == OK) {
        *off = span.off;
        *n = span.len;
    }
    buf_release(&head);
    return rc;
}

static enum err_code cat_run(struct cli *c, struct err *err)
{
    static const char *const parts[] = {"range", "tensor"};
    const char *range = cli_value(c, "range"), *tensor = cli_value(c, "tensor");
    struct store *st = NULL;
    struct object *o = NULL;
    struct digest d;
    enum obj_kind kind;
    int64_t off = 0, n = 0;
    enum err_code rc = cli_one_of(c, parts, 2, err);

    if (rc == OK)
        rc = cli_open(c, STORE_READ, &st, err);
    if (rc == OK)
        rc = cli_resolve(st, c->args[0], &d, &kind, err);
    if (rc == OK)
        rc = object_open(st, &d, &o, err);
    if (rc)
        goto out;
    n = object_bytes(o);
    if (range)
        rc = parse_range(range, n, &off, &n, err);
    else if (tensor)
        rc = find_tensor(o, tensor, &off, &n, err);
    if (rc == OK)
        rc = copy_range(o, off, n, err);
    else if (rc != ERR_USAGE)
        err_prefix(err, "%s", c->args[0]);
out:
    object_close(o);
    store_close(st);
    return rc;
}

static const struct cli_option cat_options[] = {
    {"range", 0, "OFF:LEN", "only these bytes; OFF: reads to the end"},
    {"tensor", 't', "NAME", "only this tensor of a safetensors file"},
    {0},
};

const struct cli_command cli_store_cat = {
    .name = "store cat",
    .args = "WHAT",
    .args_min = 1,
    .args_max = 1,
    .summary = "write an object's bytes to standard output",
    .text = "WHAT: " CLI_WHAT ".\n"
            "What is written was verified.  Of a large object only the chunks that are needed are "
            "read.\n"
            "A tree's bytes are its manifest.",
    .example = "weir store cat data/captions:0001.json\n"
               "weir store cat best:model.safetensors --tensor embed.weight > embed.bin",
    .json = "the same bytes",
    .options = cat_options,
    .run = cat_run,
};
