/* One pass over the parsed YAML.  Every problem goes to a list with its place, so that a person mends
 * a file once and not key by key. */
#include "store/config.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/yaml.h"
#include "store/store.h"

#define CONFIG_BYTES_MAX (1 << 20) /* some ten thousand remotes */
#define CONFIG_NAME "config.yaml"
#define KEEP_RUNS_DEFAULT 100
#define THREADS_MAX 256
#define SLOTS_MAX 65536
#define REMOTE_NAME_MAX 64 /* it names a folder in .weir/remotes */

const char config_template[] =
    "# weir store: https://yaml.org syntax; every key is optional, what is commented out shows the "
    "default.\n"
    "\n"
    "# Where the objects lie: absolute, or relative to this folder.  May be on a shared file "
    "system.\n"
    "# objects: objects\n"
    "\n"
    "# What tasks may use on this machine.  Default: what it has.\n"
    "# slots: {cpus: 8, memory: 32GiB, gpus: 1}\n"
    "\n"
    "# Threads for hashing and packing.  Default: the processors, at most 16.\n"
    "# threads: 8\n"
    "\n"
    "# Other places that keep objects, for weir push and weir pull.\n"
    "# A dir may be absolute, or relative to this folder.\n"
    "# remotes:\n"
    "#   backup: {dir: /mnt/backup/weir}\n"
    "#   lab: {s3: \"https://s3.example.org\", bucket: weir, region: eu-1, prefix: store}\n"
    "\n"
    "# What is younger than grace is never deleted; so many runs of each pipeline are kept.\n"
    "# retention: {grace: 24h, runs: 100}\n";

struct loader {
    const char *file;
    struct buf problems; /* joined by "; ": an error text is one line */
    int count;
    struct config *config;
};

PRINTF_LIKE(3, 4)
static void problem(struct loader *l, const struct yaml_node *at, const char *fmt, ...)
{
    va_list ap;

    if (l->count++ > 0)
        buf_str(&l->problems, "; ");
    buf_printf(&l->problems, "%s:%d:%d: ", l->file, at->line, at->column);
    va_start(ap, fmt);
    buf_vprintf(&l->problems, fmt, ap);
    va_end(ap);
}

/* ---- scalars ----------------------------------------------------------------------------------- */

static char *read_text(struct loader *l, const struct yaml_node *n, const char *key)
{
    if (n->type != YAML_STRING || n->text.n == 0) {
        problem(l, n, "%s: a text is wanted", key);
        return NULL;
    }
    if (memchr(n->text.p, '\0', n->text.n)) {
        problem(l, n, "%s: has a NUL in it", key);
        return NULL;
    }
    return mem_strndup(n->text.p, n->text.n);
}

static int64_t read_number(struct loader *l, const struct yaml_node *n, const char *key,
                           int64_t min, int64_t max, int64_t otherwise)
{
    if (n->type == YAML_INT && n->integer >= min && n->integer <= max)
        return n->integer;
    problem(l, n, "%s: a whole number from %lld to %lld is wanted", key, (long long)min,
            (long long)max);
    return otherwise;
}

/* "8GiB" is a string in YAML, 8589934592 an integer; both have their text. */
typedef enum err_code (*unit_fn)(struct str s, int64_t *out, struct err *err);

static int64_t read_unit(struct loader *l, const struct yaml_node *n, const char *key, unit_fn fn,
                         int64_t otherwise)
{
    struct err err = ERR_INIT;
    int64_t v;

    if (n->type != YAML_STRING && n->type != YAML_INT) {
        problem(l, n, "%s: a text like 8GiB or 24h is wanted", key);
        return otherwise;
    }
    if (fn(n->text, &v, &err)) {
        problem(l, n, "%s: %s", key, err.text);
        return otherwise;
    }
    return v;
}

/* ---- maps -------------------------------------------------------------------------------------- */

struct member {
    const char *key;
    void (*read)(struct loader *l, const struct yaml_node *value, void *arg);
};
#define MEMBERS_MAX 8

static void unknown_key(struct loader *l, const struct yaml_node *key, const char *where,
                        const struct member *members, size_t count)
{
    const char *names[MEMBERS_MAX];
    struct buf known;

    CHECK(count <= MEMBERS_MAX);
    buf_init(&known, 1024);
    for (size_t i = 0; i < count; i++) {
        names[i] = members[i].key;
        buf_printf(&known, "%s%s", i ? ", " : "", names[i]);
    }

    const char *nearest = str_nearest(key->text.p, names, count);

    if (nearest)
        problem(l, key, "unknown key \"%s\"%s; did you mean \"%s\"?", key->text.p, where, nearest);
    else
        problem(l, key, "unknown key \"%s\"%s; known are %s", key->text.p, where, known.p);
    buf_release(&known);
}

/* where: "" or " in slots".  An empty value (slots: with nothing behind it) is like an absent key. */
static void read_map(struct loader *l, const struct yaml_node *map, const char *where,
                     const struct member *members, size_t count, void *arg)
{
    if (map->type == YAML_NULL)
        return;
    if (map->type != YAML_MAP) {
        problem(l, map, "a map of keys and values is wanted%s", where);
        return;
    }
    for (size_t i = 0; i < map->count; i++) {
        size_t m = 0;

        while (m < count && !str_eq(map->keys[i]->text, str_of(members[m].key)))
            m++;
        if (m < count)
            members[m].read(l, map->items[i], arg);
        else
            unknown_key(l, map->keys[i], where, members, count);
    }
}
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- remotes ----------------------------------------------------------------------------------- */

static void read_kind(struct loader *l, const struct yaml_node *n, struct remote_config *r,
                      const char *type)
{
    char *url = read_text(l, n, type);

    if (r->type) {
        problem(l, n, "remote %s: is %s already; one of dir, s3 and oci is wanted", r->name,
                r->type);
        free(url);
        return;
    }
    r->type = mem_strdup(type);
    r->url = url;
}

static void read_dir(struct loader *l, const struct yaml_node *n, void *arg)
{
    read_kind(l, n, arg, "dir");
}

static void read_s3(struct loader *l, const struct yaml_node *n, void *arg)
{
    read_kind(l, n, arg, "s3");
}

static void read_oci(struct loader *l, const struct yaml_node *n, void *arg)
{
    read_kind(l, n, arg, "oci");
}

static void read_bucket(struct loader *l, const struct yaml_node *n, void *arg)
{
    ((struct remote_config *)arg)->bucket = read_text(l, n, "bucket");
}

static void read_region(struct loader *l, const struct yaml_node *n, void *arg)
{
    ((struct remote_config *)arg)->region = read_text(l, n, "region");
}

static void read_prefix(struct loader *l, const struct yaml_node *n, void *arg)
{
    ((struct remote_config *)arg)->prefix = read_text(l, n, "prefix");
}

static bool remote_name_good(struct str name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return name.n > 0 && name.n <= REMOTE_NAME_MAX && name.p[0] != '.' && name.p[0] != '-' &&
           strspn(name.p, good) == name.n;
}

static void read_remote(struct loader *l, const struct yaml_node *key,
                        const struct yaml_node *value)
{
    static const struct member members[] = {{"dir", read_dir},       {"s3", read_s3},
                                            {"oci", read_oci},       {"bucket", read_bucket},
                                            {"region", read_region}, {"prefix", read_prefix}};
    struct config *c = l->config;
    char where[REMOTE_NAME_MAX + 32] = "";

    if (!remote_name_good(key->text)) {
        problem(l, key,
                "remote name \"%s\": 1 to %d letters, digits, '.', '_' and '-' are wanted, not "
                "starting with '.' or '-'",
                key->text.p, REMOTE_NAME_MAX);
        return;
    }
    c->remotes = mem_grow(c->remotes, c->remote_count + 1, sizeof(*c->remotes));

    struct remote_config *r = &c->remotes[c->remote_count++];

    *r = (struct remote_config){.name = mem_strndup(key->text.p, key->text.n)};
    snprintf(where, sizeof(where), " in remote %s", r->name);
    read_map(l, value, where, members, COUNT(members), r);
    if (!r->type)
        problem(l, value, "remote %s: has no place; one of dir, s3 and oci is wanted", r->name);
    else if (strcmp(r->type, "s3") == 0 && !r->bucket)
        problem(l, value, "remote %s: s3 needs a bucket", r->name);
    else if (strcmp(r->type, "s3") != 0 && (r->bucket || r->region))
        problem(l, value, "remote %s: bucket and region are for s3, this is %s", r->name, r->type);
}

static void read_remotes(struct loader *l, const struct yaml_node *map, void *arg)
{
    (void)arg;
    if (map->type != YAML_NULL && map->type != YAML_MAP) {
        problem(l, map, "remotes: a map of names is wanted, such as {backup: {dir: /mnt/backup}}");
        return;
    }
    for (size_t i = 0; i < map->count; i++)
        read_remote(l, map->keys[i], map->items[i]);
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static void read_cpus(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->cpus = (int)read_number(l, n, "cpus", 1, SLOTS_MAX, 0);
}

static void read_gpus(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->gpus = (int)read_number(l, n, "gpus", 0, SLOTS_MAX, 0);
}

static void read_memory(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->memory_bytes = read_unit(l, n, "memory", str_to_bytes, 0);
}

static void read_slots(struct loader *l, const struct yaml_node *n, void *arg)
{
    static const struct member members[] = {
        {"cpus", read_cpus}, {"memory", read_memory}, {"gpus", read_gpus}};

    read_map(l, n, " in slots", members, COUNT(members), arg);
}

static void read_grace(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->grace_s = read_unit(l, n, "grace", str_to_seconds, STORE_GRACE_DEFAULT_S);
    if (l->config->grace_s > INT64_MAX / 1000000000)
        problem(l, n, "grace: longer than 292 years");
}

static void read_runs(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->keep_runs = read_number(l, n, "runs", 0, INT32_MAX, KEEP_RUNS_DEFAULT);
}

static void read_retention(struct loader *l, const struct yaml_node *n, void *arg)
{
    static const struct member members[] = {{"grace", read_grace}, {"runs", read_runs}};

    read_map(l, n, " in retention", members, COUNT(members), arg);
}

static void read_objects(struct loader *l, const struct yaml_node *n, void *arg)
{
    char *objects = read_text(l, n, "objects");

    (void)arg;
    if (!objects)
        return;
    free(l->config->objects);
    l->config->objects = objects;
}

static void read_threads(struct loader *l, const struct yaml_node *n, void *arg)
{
    (void)arg;
    l->config->threads = (int)read_number(l, n, "threads", 1, THREADS_MAX, 0);
}

static const struct member top[] = {{"objects", read_objects},
                                    {"slots", read_slots},
                                    {"threads", read_threads},
                                    {"remotes", read_remotes},
                                    {"retention", read_retention}};

/* A dir remote is opened by code that does not know the store: its path must stand on its own. */
static void anchor_dirs(struct config *c, const char *weir_dir)
{
    struct buf path;

    for (size_t i = 0; i < c->remote_count; i++) {
        struct remote_config *r = &c->remotes[i];

        if (strcmp(r->type, "dir") != 0 || r->url[0] == '/')
            continue;
        buf_init(&path, (size_t)1 << 16);
        buf_printf(&path, "%s/%s", weir_dir, r->url);
        free(r->url);
        r->url = buf_take(&path);
    }
}

/* The text of an error holds a few problems; that there are more must not be lost. */
static enum err_code fail(const struct loader *l, struct err *err)
{
    const int shown = ERR_TEXT_MAX - 64;

    if (l->problems.n <= (size_t)shown)
        return err_set(err, ERR_CONFIG, "%s", l->problems.p);
    return err_set(err, ERR_CONFIG, "%.*s... (%d problems in all)", shown, l->problems.p, l->count);
}

static enum err_code load_text(const char *file, const struct buf *text, struct config *out,
                               struct err *err)
{
    struct loader l = {.file = file, .config = out};
    struct yaml_doc *doc = NULL;
    struct buf errors;
    enum err_code rc;

    buf_init(&errors, (size_t)1 << 20);
    buf_init(&l.problems, (size_t)1 << 20);
    rc = yaml_parse(text->p ? text->p : "", text->n, file, &doc, &errors, err);
    if (rc == ERR_INPUT) {
        /* One per line; the text of an error is a single one. */
        for (size_t i = 0; i < errors.n; i++) {
            if (errors.p[i] != '\n')
                buf_char(&l.problems, errors.p[i]);
            else if (i + 1 < errors.n)
                buf_str(&l.problems, "; ");
            l.count += errors.p[i] == '\n';
        }
        if (l.problems.n > 0)
            rc = fail(&l, err);
        else
            rc = err->code = ERR_CONFIG; /* the text is that of the parser */
    }
    if (!rc) {
        read_map(&l, yaml_root(doc), "", top, COUNT(top), NULL);
        rc = l.count ? fail(&l, err) : OK;
    }
    yaml_free(doc);
    buf_release(&errors);
    buf_release(&l.problems);
    return rc;
}

enum err_code config_load(const char *weir_dir, struct config *out, struct err *err)
{
    struct buf text, path;
    enum err_code rc;

    CHECK(weir_dir);
    CHECK(out);
    *out = (struct config){.grace_s = STORE_GRACE_DEFAULT_S, .keep_runs = KEEP_RUNS_DEFAULT};
    buf_init(&text, CONFIG_BYTES_MAX);
    buf_init(&path, (size_t)1 << 16);
    buf_printf(&path, "%s/%s", weir_dir, CONFIG_NAME);
    rc = os_read_file(AT_FDCWD, path.p, CONFIG_BYTES_MAX, &text, err);
    if (rc == ERR_NOT_FOUND)
        rc = OK;
    else if (!rc)
        rc = load_text(path.p, &text, out, err);
    if (!rc && !out->objects)
        out->objects = mem_strdup("objects");
    if (!rc)
        anchor_dirs(out, weir_dir);
    else
        config_release(out);
    buf_release(&text);
    buf_release(&path);
    return rc;
}

void config_release(struct config *c)
{
    CHECK(c);
    for (size_t i = 0; i < c->remote_count; i++) {
        struct remote_config *r = &c->remotes[i];

        free(r->name);
        free(r->type);
        free(r->url);
        free(r->bucket);
        free(r->region);
        free(r->prefix);
    }
    free(c->remotes);
    free(c->objects);
    *c = (struct config){0};
}

const struct remote_config *config_remote(const struct config *c, const char *name)
{
    CHECK(c);
    CHECK(name);
    for (size_t i = 0; i < c->remote_count; i++)
        if (strcmp(c->remotes[i].name, name) == 0)
            return &c->remotes[i];
    return NULL;
}
