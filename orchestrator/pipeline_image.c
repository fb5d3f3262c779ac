#include "orchestrator/pipeline_image.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/cache_file.h"
#include "orchestrator/pipeline_internal.h"

/* ---- writing ----------------------------------------------------------------------------------- */

struct known { /* address -> offset or number, open addressing */
    const void **keys;
    uint32_t *at;
    size_t count, mask;
};
struct encoder {
    struct buf data, values;
    uint32_t *pointers;
    struct image_slot *slots;
    size_t pointer_count, pointer_room, slot_count, slot_room, value_count;
    struct known places, numbers;
};

static size_t known_slot(const struct known *k, const void *p)
{
    uint64_t h = (uint64_t)(uintptr_t)p * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(h >> 20) & k->mask;

    while (k->keys[at] && k->keys[at] != p)
        at = (at + 1) & k->mask;
    return at;
}

static void known_add(struct known *k, const void *p, uint32_t value)
{
    size_t at;

    if (2 * k->count >= k->mask) {
        struct known more = {.mask = k->mask ? 2 * k->mask + 1 : 1023};

        more.keys = mem_zero(more.mask + 1, sizeof(*more.keys));
        more.at = mem_zero(more.mask + 1, sizeof(*more.at));
        for (size_t i = 0; k->keys && i <= k->mask; i++)
            if (k->keys[i])
                known_add(&more, k->keys[i], k->at[i]);
        free(k->keys);
        free(k->at);
        *k = more;
    }
    at = known_slot(k, p);
    k->count += !k->keys[at];
    k->keys[at] = p;
    k->at[at] = value;
}

/* 0 when it is new. */
static uint32_t known_get(const struct known *k, const void *p)
{
    return k->keys ? k->at[known_slot(k, p)] : 0;
}

static void pad(struct buf *b, size_t to)
{
    while (b->n % to)
        buf_char(b, '\0');
}

/* A copy of n bytes, once; its offset.  Nothing has an address of its own when it is empty, so it is not remembered. */
static uint32_t put(struct encoder *e, const void *p, size_t n, size_t align, bool *fresh)
{
    uint32_t at = p && n ? known_get(&e->places, p) : 0;

    *fresh = false;
    if (!p || at)
        return at;
    pad(&e->data, align);
    at = (uint32_t)e->data.n;
    if (n) {
        buf_add(&e->data, p, n);
        known_add(&e->places, p, at);
        *fresh = true;
    } else {
        buf_add(&e->data, "\0\0\0\0\0\0\0\0", 8);
    }
    return at;
}

static void point(struct encoder *e, size_t field, uint32_t target)
{
    const uint64_t value = target;

    if (e->data.failed)
        return;
    memcpy(e->data.p + field, &value, sizeof(value));
    if (!target)
        return;
    if (e->pointer_count == e->pointer_room) {
        e->pointer_room = e->pointer_room * 2 + 1024;
        e->pointers = mem_grow(e->pointers, e->pointer_room, sizeof(*e->pointers));
    }
    e->pointers[e->pointer_count++] = (uint32_t)field;
}

static void text(struct encoder *e, size_t field, const char *s)
{
    bool fresh;

    point(e, field, put(e, s, s ? strlen(s) + 1 : 0, 1, &fresh));
}

static void texts(struct encoder *e, size_t field, const char *const *list)
{
    size_t n = 0;
    uint32_t at;
    bool fresh;

    while (list && list[n])
        n++;
    at = put(e, list, (n + 1) * sizeof(*list), 16, &fresh);
    for (size_t i = 0; fresh && i < n; i++)
        text(e, at + i * sizeof(*list), list[i]);
    point(e, field, at);
}

static void put_u32(struct buf *b, size_t v)
{
    const uint32_t n = (uint32_t)v;

    buf_add(b, &n, sizeof(n));
}

/* Elements before their list: a matrix value is the same one in the stage's list and in the task.  Its number + 1. */
static uint32_t value(struct encoder *e, json_t *v)
{
    struct buf *b = &e->values, inner;
    uint32_t number = known_get(&e->numbers, v);
    const json_int_t integer = json_integer_value(v);
    const double real = json_real_value(v);
    const char *key;
    json_t *member;

    if (number)
        return number;
    buf_init(&inner, (size_t)CACHE_BYTES_MAX);
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        put_u32(&inner, value(e, json_array_get(v, i)));
    json_object_foreach(v, key, member)
    {
        put_u32(&inner, value(e, member));
        put_u32(&inner, strlen(key));
        buf_str(&inner, key);
    }
    buf_char(b, (char)('0' + (int)json_typeof(v)));
    if (json_is_integer(v))
        buf_add(b, &integer, sizeof(integer));
    else if (json_is_real(v))
        buf_add(b, &real, sizeof(real));
    else if (json_is_string(v))
        put_u32(b, json_string_length(v));
    else if (json_is_array(v) || json_is_object(v))
        put_u32(b, json_is_array(v) ? json_array_size(v) : json_object_size(v));
    if (json_is_string(v))
        buf_add(b, json_string_value(v), json_string_length(v));
    buf_add(b, inner.p ? inner.p : "", inner.n);
    e->data.failed = e->data.failed || inner.failed || b->failed;
    buf_release(&inner);
    number = (uint32_t)++e->value_count;
    known_add(&e->numbers, v, number);
    return number;
}

static void slot(struct encoder *e, size_t field, json_t *v)
{
    if (!v || e->data.failed) {
        point(e, field, 0);
        return;
    }
    if (e->slot_count == e->slot_room) {
        e->slot_room = e->slot_room * 2 + 1024;
        e->slots = mem_grow(e->slots, e->slot_room, sizeof(*e->slots));
    }
    e->slots[e->slot_count++] = (struct image_slot){(uint32_t)field, value(e, v)};
}

#define FIELD(at, type, member) ((at) + offsetof(struct type, member))

static void named(struct encoder *e, size_t field, const struct named_value *list, size_t count)
{
    bool fresh;
    const uint32_t at = put(e, list, count * sizeof(*list), 16, &fresh);

    for (size_t i = 0; fresh && i < count; i++) {
        const size_t one = at + i * sizeof(*list);

        text(e, FIELD(one, named_value, name), list[i].name);
        slot(e, FIELD(one, named_value, value), list[i].value);
        text(e, FIELD(one, named_value, pos.file), list[i].pos.file);
    }
    point(e, field, at);
}

static void names_at(struct encoder *e, size_t at, const struct names *t)
{
    bool fresh;
    const uint32_t list = put(e, t->list, t->count * sizeof(*t->list), 16, &fresh);

    for (size_t i = 0; fresh && i < t->count; i++)
        text(e, list + i * sizeof(*t->list), t->list[i]);
    point(e, FIELD(at, names, list), list);
    point(e, FIELD(at, names, slots),
          put(e, t->slots, (t->mask + 1) * sizeof(*t->slots), 16, &fresh));
}

static void name_table(struct encoder *e, size_t field, const struct names *t, size_t count)
{
    bool fresh;
    const uint32_t at = put(e, t, count * sizeof(*t), 16, &fresh);

    for (size_t i = 0; fresh && i < count; i++)
        if (t[i].slots)
            names_at(e, at + i * sizeof(*t), &t[i]);
    point(e, field, at);
}

static void put_stages(struct encoder *e, size_t root, const struct pipeline *p)
{
    bool fresh;
    const uint32_t at = put(e, p->stages, p->stage_count * sizeof(*p->stages), 16, &fresh);

    for (size_t i = 0; fresh && i < p->stage_count; i++) {
        const struct stage *s = &p->stages[i];
        const size_t one = at + i * sizeof(*s);

        text(e, FIELD(one, stage, name), s->name);
        text(e, FIELD(one, stage, pos.file), s->pos.file);
        text(e, FIELD(one, stage, uses), s->uses);
        text(e, FIELD(one, stage, uses_digest), s->uses_digest);
        texts(e, FIELD(one, stage, code), s->code);
        texts(e, FIELD(one, stage, env), s->env);
        texts(e, FIELD(one, stage, outputs), s->outputs);
        named(e, FIELD(one, stage, matrix), s->matrix, s->matrix_count);
        name_table(e, FIELD(one, stage, matrix_values), s->matrix_values, s->matrix_count);
    }
    point(e, FIELD(root, pipeline, stages), at);
}

static void put_inputs(struct encoder *e, size_t field, const struct task *t)
{
    bool fresh;
    const uint32_t at = put(e, t->inputs, t->input_count * sizeof(*t->inputs), 16, &fresh);

    for (size_t i = 0; fresh && i < t->input_count; i++) {
        const struct task_input *in = &t->inputs[i];
        const size_t one = at + i * sizeof(*in);
        bool new_refs;
        const uint32_t refs = put(e, in->refs, in->ref_count * sizeof(*in->refs), 16, &new_refs);

        for (size_t k = 0; new_refs && k < in->ref_count; k++) {
            const size_t ref = refs + k * sizeof(*in->refs);

            text(e, FIELD(ref, task_input_ref, output), in->refs[k].output);
            text(e, FIELD(ref, task_input_ref, entry), in->refs[k].entry);
        }
        text(e, FIELD(one, task_input, name), in->name);
        text(e, FIELD(one, task_input, pos.file), in->pos.file);
        point(e, FIELD(one, task_input, refs), refs);
    }
    point(e, field, at);
}

static void put_tasks(struct encoder *e, size_t root, const struct pipeline *p)
{
    bool fresh;
    const uint32_t at = put(e, p->tasks, p->task_count * sizeof(*p->tasks), 16, &fresh);

    for (size_t i = 0; fresh && i < p->task_count; i++) {
        const struct task *t = &p->tasks[i];
        const size_t one = at + i * sizeof(*t);

        text(e, FIELD(one, task, name), t->name);
        text(e, FIELD(one, task, instance), t->instance);
        named(e, FIELD(one, task, params), t->params, t->param_count);
        named(e, FIELD(one, task, matrix), t->matrix, t->matrix_count);
        text(e, FIELD(one, task, run), t->run);
        texts(e, FIELD(one, task, argv), t->argv);
        put_inputs(e, FIELD(one, task, inputs), t);
        text(e, FIELD(one, task, skip_reason), t->skip_reason);
        text(e, FIELD(one, task, when_pos.file), t->when_pos.file);
    }
    point(e, FIELD(root, pipeline, tasks), at);
    point(e, FIELD(root, pipeline, order),
          put(e, p->order, p->task_count * sizeof(*p->order), 16, &fresh));
}

static void put_sources(struct encoder *e, size_t root, const struct pipeline *p)
{
    bool fresh;
    const uint32_t at = put(e, p->sources, p->source_count * sizeof(*p->sources), 16, &fresh);

    for (size_t i = 0; fresh && i < p->source_count; i++) {
        const struct source *s = &p->sources[i];
        const size_t one = at + i * sizeof(*s);

        text(e, FIELD(one, source, name), s->name);
        text(e, FIELD(one, source, location), s->location);
        text(e, FIELD(one, source, sha256), s->sha256);
        text(e, FIELD(one, source, license), s->license);
        text(e, FIELD(one, source, attribution), s->attribution);
        text(e, FIELD(one, source, records), s->records);
        text(e, FIELD(one, source, pos.file), s->pos.file);
        text(e, FIELD(one, source, license_pos.file), s->license_pos.file);
    }
    point(e, FIELD(root, pipeline, sources), at);
}

static void put_schedules(struct encoder *e, size_t root, const struct pipeline *p)
{
    bool fresh;
    const uint32_t at = put(e, p->schedules, p->schedule_count * sizeof(*p->schedules), 16, &fresh);

    for (size_t i = 0; fresh && i < p->schedule_count; i++) {
        const struct schedule *s = &p->schedules[i];
        const size_t one = at + i * sizeof(*s);

        text(e, FIELD(one, schedule, cron), s->cron);
        text(e, FIELD(one, schedule, timezone), s->timezone);
        text(e, FIELD(one, schedule, watch), s->watch);
        named(e, FIELD(one, schedule, params), s->params, s->param_count);
        text(e, FIELD(one, schedule, pos.file), s->pos.file);
    }
    point(e, FIELD(root, pipeline, schedules), at);
}

static void put_ends(struct encoder *e, size_t root, const struct pipeline *p)
{
    bool fresh;
    uint32_t at = put(e, p->publishes, p->publish_count * sizeof(*p->publishes), 16, &fresh);

    for (size_t i = 0; fresh && i < p->publish_count; i++) {
        const size_t one = at + i * sizeof(*p->publishes);

        text(e, FIELD(one, publish, name), p->publishes[i].name);
        text(e, FIELD(one, publish, output), p->publishes[i].output);
        text(e, FIELD(one, publish, pos.file), p->publishes[i].pos.file);
    }
    point(e, FIELD(root, pipeline, publishes), at);
    at = put(e, p->notifies, p->notify_count * sizeof(*p->notifies), 16, &fresh);
    for (size_t i = 0; fresh && i < p->notify_count; i++) {
        const size_t one = at + i * sizeof(*p->notifies);

        texts(e, FIELD(one, notify, events), p->notifies[i].events);
        text(e, FIELD(one, notify, webhook), p->notifies[i].webhook);
        text(e, FIELD(one, notify, pos.file), p->notifies[i].pos.file);
    }
    point(e, FIELD(root, pipeline, notifies), at);
    texts(e, FIELD(root, pipeline, policy.deny), p->policy.deny);
    texts(e, FIELD(root, pipeline, policy.allow_only), p->policy.allow_only);
    text(e, FIELD(root, pipeline, policy.pos.file), p->policy.pos.file);
}

static uint32_t put_pipeline(struct encoder *e, const struct pipeline *p)
{
    bool fresh;
    const uint32_t root = put(e, p, sizeof(*p), 16, &fresh);

    memset(e->data.p + FIELD(root, pipeline, arena), 0, sizeof(p->arena));
    point(e, FIELD(root, pipeline, values), 0);
    point(e, FIELD(root, pipeline, image), 0);
    text(e, FIELD(root, pipeline, file), p->file);
    text(e, FIELD(root, pipeline, dir), p->dir);
    text(e, FIELD(root, pipeline, name), p->name);
    text(e, FIELD(root, pipeline, description), p->description);
    texts(e, FIELD(root, pipeline, profiles), p->profiles);
    named(e, FIELD(root, pipeline, params), p->params, p->param_count);
    put_sources(e, root, p);
    put_stages(e, root, p);
    put_tasks(e, root, p);
    put_schedules(e, root, p);
    put_ends(e, root, p);
    name_table(e, FIELD(root, pipeline, stage_names), p->stage_names, 1);
    name_table(e, FIELD(root, pipeline, source_names), p->source_names, 1);
    return root;
}

void image_encode(const struct pipeline *p, const struct digest *key, struct buf *out)
{
    struct image_head h = {.key = *key};
    struct encoder e = {0};

    buf_init(&e.data, (size_t)CACHE_BYTES_MAX);
    buf_init(&e.values, (size_t)CACHE_BYTES_MAX);
    memcpy(h.magic, IMAGE_MAGIC, sizeof(h.magic));
    buf_add(&e.data, &h, sizeof(h));
    h.root = put_pipeline(&e, p);
    pad(&e.data, 16);
    h.data_bytes = e.data.n;
    h.pointers = e.pointer_count;
    h.slots = e.slot_count;
    h.values = e.value_count;
    h.value_bytes = e.values.n;
    if (!e.data.failed)
        memcpy(e.data.p, &h, sizeof(h));
    buf_add(out, e.data.p ? e.data.p : "", e.data.n);
    buf_add(out, e.pointers ? (const void *)e.pointers : "", e.pointer_count * sizeof(*e.pointers));
    buf_add(out, e.slots ? (const void *)e.slots : "", e.slot_count * sizeof(*e.slots));
    buf_add(out, e.values.p ? e.values.p : "", e.values.n);
    out->failed = out->failed || e.data.failed;
    free(e.pointers);
    free(e.slots);
    free(e.places.keys);
    free(e.places.at);
    free(e.numbers.keys);
    free(e.numbers.at);
    buf_release(&e.data);
    buf_release(&e.values);
}
