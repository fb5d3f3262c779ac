/* Which kinds of remotes there are, and from a name to an open one. */
#include "store/remote.h"

#include <stdlib.h>
#include <string.h>

/* A kind without ops is known, so that a config may name it, but is not built. */
static const struct {
    const char *type;
    const struct remote_ops *ops;
} remote_kinds[] = {{"dir", &remote_dir_ops}, {"s3", NULL}, {"oci", NULL}};

static enum err_code unknown(const struct store *st, const char *name, struct err *err)
{
    const size_t count = st->config.remote_count;
    const char **names = mem_zero(count + 1, sizeof(*names)), *nearest;

    for (size_t i = 0; i < count; i++)
        names[i] = st->config.remotes[i].name;
    nearest = str_nearest(name, names, count);
    if (nearest)
        err_set(err, ERR_NOT_FOUND, "there is no remote %s; did you mean %s?", name, nearest);
    else if (count > 0)
        err_set(err, ERR_NOT_FOUND, "there is no remote %s among the %zu in %s/config.yaml", name,
                count, st->root);
    else
        err_set(err, ERR_NOT_FOUND,
                "there is no remote %s: name one under remotes: in %s/config.yaml, or give the "
                "path of a folder (with a '/' in it)",
                name, st->root);
    free(names);
    return ERR_NOT_FOUND;
}

static enum err_code open_kind(const struct remote_config *c, bool create, struct remote **out,
                               struct err *err)
{
    for (size_t i = 0; i < sizeof(remote_kinds) / sizeof(remote_kinds[0]); i++) {
        if (strcmp(remote_kinds[i].type, c->type) != 0)
            continue;
        if (!remote_kinds[i].ops)
            break;
        return remote_kinds[i].ops->open(c, create, out, err);
    }
    return err_set(err, ERR_MISSING,
                   "remote %s: %s remotes are not built yet; dir remotes work: {dir: /path}",
                   c->name, c->type);
}

static enum err_code open_path(const char *path, bool create, struct remote **out, struct err *err)
{
    char type[] = "dir", *text = mem_strdup(path);
    const struct remote_config c = {.name = text, .type = type, .url = text};
    const enum err_code rc = open_kind(&c, create, out, err);

    free(text);
    return rc;
}

enum err_code remote_open(struct store *st, const char *name, bool create, struct remote **out,
                          struct err *err)
{
    const struct remote_config *c;

    CHECK(st);
    CHECK(name);
    CHECK(out);
    *out = NULL;
    if (strstr(name, "://"))
        return err_set(err, ERR_MISSING,
                       "remote %s: only folders are remotes so far; give the path of one", name);
    if (strchr(name, '/'))
        return open_path(name, create, out, err);
    c = config_remote(&st->config, name);
    return c ? open_kind(c, create, out, err) : unknown(st, name, err);
}

void remote_close(struct remote *r)
{
    if (r)
        r->ops->close(r);
}
