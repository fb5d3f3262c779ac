/* The way back from a kept image, and when it is taken. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/os.h"
#include "orchestrator/cache_file.h"
#include "orchestrator/pipeline_image.h"
#include "orchestrator/pipeline_internal.h"

/* ---- reading ----------------------------------------------------------------------------------- */

struct cursor {
    const char *p;
    size_t n;
};

static bool take(struct cursor *c, void *out, size_t n)
{
    if (c->n < n)
        return false;
    memcpy(out, c->p, n);
    c->p += n;
    c->n -= n;
    return true;
}

static bool take_text(struct cursor *c, const char **text, uint32_t n)
{
    if (c->n < n)
        return false;
    *text = c->p;
    c->p += n;
    c->n -= n;
    return true;
}

/* A new reference, or NULL. */
static json_t *read_members(struct cursor *c, json_type type, uint32_t count, json_t *values)
{
    json_t *v = type == JSON_ARRAY ? json_array() : json_object();

    for (uint32_t i = 0; v && i < count; i++) {
        uint32_t number, n = 0;
        const char *key = "";
        bool good =
            take(c, &number, sizeof(number)) && number >= 1 && number <= json_array_size(values);

        if (good && type == JSON_OBJECT)
            good = take(c, &n, sizeof(n)) && take_text(c, &key, n);
        if (good && type == JSON_ARRAY)
            good = json_array_append(v, json_array_get(values, number - 1)) == 0;
        else if (good) {
            char *copy = mem_strndup(key, n);

            good = json_object_set(v, copy, json_array_get(values, number - 1)) == 0;
            free(copy);
        }
        if (!good) {
            json_decref(v);
            v = NULL;
        }
    }
    return v;
}

static json_t *read_value(struct cursor *c, json_t *values)
{
    char tag;
    json_int_t integer;
    double real;
    uint32_t n;
    const char *text;

    if (!take(c, &tag, 1))
        return NULL;
    switch ((json_type)(tag - '0')) {
    case JSON_NULL:
        return json_null();
    case JSON_TRUE:
        return json_true();
    case JSON_FALSE:
        return json_false();
    case JSON_INTEGER:
        return take(c, &integer, sizeof(integer)) ? json_integer(integer) : NULL;
    case JSON_REAL:
        return take(c, &real, sizeof(real)) ? json_real(real) : NULL;
    case JSON_STRING:
        return take(c, &n, sizeof(n)) && take_text(c, &text, n) ? json_stringn_nocheck(text, n)
                                                                : NULL;
    case JSON_ARRAY:
    case JSON_OBJECT:
        return take(c, &n, sizeof(n)) ? read_members(c, (json_type)(tag - '0'), n, values) : NULL;
    }
    return NULL;
}

static json_t *read_values(struct cursor c, uint64_t count)
{
    json_t *values = json_array();
    bool good = values != NULL;

    for (uint64_t i = 0; good && i < count; i++)
        good = json_array_append_new(values, read_value(&c, values)) == 0;
    if (good && c.n == 0)
        return values;
    json_decref(values);
    return NULL;
}

static bool join(char *base, const struct image_head *h, json_t **values)
{
    const char *at = base + h->data_bytes;
    const uint32_t *pointers = (const void *)at;
    const struct image_slot *slots = (const void *)(at + h->pointers * sizeof(uint32_t));
    const struct cursor c = {(const char *)(slots + h->slots), h->value_bytes};

    *values = read_values(c, h->values);
    if (!*values)
        return false;
    for (uint64_t i = 0; i < h->pointers; i++) {
        uint64_t *field = (void *)(base + pointers[i]);

        if (pointers[i] % 8 || pointers[i] + sizeof(*field) > h->data_bytes ||
            *field >= h->data_bytes)
            return false;
        *field += (uint64_t)(uintptr_t)base;
    }
    for (uint64_t i = 0; i < h->slots; i++) {
        json_t **field = (void *)(base + slots[i].at);

        if (slots[i].at % 8 || slots[i].at + sizeof(*field) > h->data_bytes || slots[i].value < 1 ||
            slots[i].value > h->values)
            return false;
        *field = json_array_get(*values, slots[i].value - 1);
    }
    return true;
}

void image_decode(void *map, size_t n, const struct digest *key, struct pipeline **out)
{
    const uint64_t many = (uint64_t)CACHE_BYTES_MAX;
    struct image_head h;
    json_t *values = NULL;

    *out = NULL;
    if (n < sizeof(h))
        return;
    memcpy(&h, map, sizeof(h));
    if (memcmp(h.magic, IMAGE_MAGIC, sizeof(h.magic)) != 0 || !digest_eq(&h.key, key))
        return;
    if (h.data_bytes > many || h.pointers > many || h.slots > many || h.value_bytes > many ||
        h.data_bytes % 16 || h.root % 16 || h.root < sizeof(h) ||
        h.root + sizeof(struct pipeline) > h.data_bytes ||
        h.data_bytes + h.pointers * sizeof(uint32_t) + h.slots * sizeof(struct image_slot) +
                h.value_bytes !=
            n)
        return;
    if (join(map, &h, &values)) {
        *out = mem_zero(1, sizeof(**out));
        memcpy(*out, (const char *)map + h.root, sizeof(**out));
        arena_init(&(*out)->arena);
        (*out)->values = values;
    } else {
        json_decref(values);
    }
}

/* ---- which image ------------------------------------------------------------------------------- */

/* Another build may lay out structures otherwise. */
static bool hash_program(struct sha256 *h)
{
    struct stat info;

    if (stat("/proc/self/exe", &info) != 0)
        return false;
    const uint64_t who[] = {info.st_dev, info.st_ino, (uint64_t)info.st_size,
                            (uint64_t)info.st_mtim.tv_sec, (uint64_t)info.st_mtim.tv_nsec};

    sha256_update(h, who, sizeof(who));
    return true;
}

static bool image_key(const char *path, const struct digest *origin, struct digest *key)
{
    struct sha256 h = {0};
    bool good;

    sha256_init(&h);
    good = hash_program(&h);
    sha256_update(&h, path, strlen(path) + 1); /* messages name the file as the user did */
    sha256_update(&h, origin, sizeof(*origin));
    sha256_final(&h, key);
    sha256_release(&h);
    return good;
}

/* The origin that pipeline_load would find; false when something cannot be read. */
static bool find_origin(const char *path, const struct pipeline_options *o,
                        const struct digest *options, struct digest *origin)
{
    struct sha256 h = {0};
    struct err ignored = ERR_INIT;
    struct buf text = {0};
    bool good;

    buf_init(&text, PIPELINE_BYTES_MAX);
    sha256_init(&h);
    good = os_read_file(AT_FDCWD, path, PIPELINE_BYTES_MAX, &text, &ignored) == OK;
    if (good)
        origin_text(&h, text.p ? text.p : "", text.n);
    for (size_t i = 0; good && o->param_files && o->param_files[i]; i++) {
        buf_clear(&text);
        good = os_read_file(AT_FDCWD, o->param_files[i], PIPELINE_BYTES_MAX, &text, &ignored) == OK;
        if (good)
            origin_text(&h, text.p ? text.p : "", text.n);
    }
    origin_end(&h, options, origin);
    sha256_release(&h);
    buf_release(&text);
    return good;
}

static void image_name(const char *path, const struct digest *options, char name[24])
{
    char *full = realpath(path, NULL), hex[DIGEST_HEX + 1];
    struct sha256 h = {0};
    struct digest d;

    sha256_init(&h);
    sha256_update(&h, full ? full : "", full ? strlen(full) + 1 : 0);
    sha256_update(&h, options, sizeof(*options));
    sha256_final(&h, &d);
    sha256_release(&h);
    digest_hex(&d, hex);
    memcpy(name, "pipe-", 5);
    memcpy(name + 5, hex, 16);
    name[21] = '\0';
    free(full);
}

static void take_kept(const char *dir, const char *name, const struct digest *key,
                      struct pipeline **out)
{
    size_t n = 0;
    void *map = cache_file_map(dir, name, &n);

    if (!map)
        return;
    image_decode(map, n, key, out);
    if (*out) {
        (*out)->image = map;
        (*out)->image_bytes = n + sizeof(uint32_t);
    } else {
        (void)munmap(map, n + sizeof(uint32_t));
    }
}

static void keep(const char *dir, const char *name, const struct digest *key,
                 const struct pipeline *p)
{
    struct err ignored = ERR_INIT;
    struct buf image;

    buf_init(&image, (size_t)CACHE_BYTES_MAX);
    image_encode(p, key, &image);
    if (!image.failed) {
        const struct cache_part part = {image.p, image.n};

        (void)!cache_file_write(dir, name, &part, 1,
                                &ignored); /* then it is read again next time */
    }
    buf_release(&image);
}

enum err_code pipeline_load_kept(const char *path, const struct pipeline_options *o,
                                 const char *weir_dir, struct pipeline **out, struct buf *errors,
                                 struct err *err)
{
    static const struct pipeline_options nothing = {0};
    struct digest options, origin, key;
    struct buf dir;
    char name[24];
    enum err_code rc = OK;

    o = o ? o : &nothing;
    if (!weir_dir || o->tasks_max || o->value_bytes_max)
        return pipeline_load(path, o, out, errors, err);
    *out = NULL;
    buf_init(&dir, 8192);
    buf_printf(&dir, "%s/cache", weir_dir);
    options_digest(o, &options);
    image_name(path, &options, name);
    if (!dir.failed && find_origin(path, o, &options, &origin) && image_key(path, &origin, &key))
        take_kept(dir.p, name, &key, out);
    if (!*out) {
        rc = pipeline_load(path, o, out, errors, err);
        if (!rc && !dir.failed && (*out)->task_count >= IMAGE_TASKS_MIN &&
            image_key(path, &(*out)->origin, &key))
            keep(dir.p, name, &key, *out);
    }
    buf_release(&dir);
    return rc;
}
