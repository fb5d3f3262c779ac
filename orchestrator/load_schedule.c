/* When runs start by themselves, and who is told.  weir serve acts on both; here they are only checked. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

/* ---- cron -------------------------------------------------------------------------------------- */

struct cron_field {
    const char *name;
    int min, max;
    const char *words; /* three letters each, the first is min */
};
static const struct cron_field cron_fields[] = {
    {"minute", 0, 59, ""},
    {"hour", 0, 23, ""},
    {"day of month", 1, 31, ""},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"day of week", 0, 7, "sunmontuewedthufrisat"}, /* 7 is Sunday too */
};

/* A number or name of the field; *p moves behind it. */
static bool cron_value(const struct cron_field *f, const char **p, const char *end, int *out)
{
    size_t digits = 0;

    *out = 0;
    while (*p + digits < end && (*p)[digits] >= '0' && (*p)[digits] <= '9' && digits < 3)
        *out = *out * 10 + ((*p)[digits++] - '0');
    if (digits > 0) {
        *p += digits;
        return *out >= f->min && *out <= f->max;
    }
    for (size_t i = 0; f->words[i] && end - *p >= 3; i += 3) {
        if (strncasecmp(f->words + i, *p, 3) == 0) {
            *out = f->min + (int)(i / 3);
            *p += 3;
            return true;
        }
    }
    return false;
}

/* ( * | value [- value] ) [/ step], once or more, with commas between. */
static bool cron_field_ok(const struct cron_field *f, const char *p, const char *end)
{
    for (;;) {
        int low, high;

        if (p < end && *p == '*') {
            p++;
        } else {
            if (!cron_value(f, &p, end, &low))
                return false;
            if (p < end && *p == '-') {
                p++;
                if (!cron_value(f, &p, end, &high) || high < low)
                    return false;
            }
        }
        if (p < end && *p == '/') {
            const char *digits = ++p;

            while (p < end && *p >= '0' && *p <= '9' && p - digits < 3)
                p++;
            if (p == digits || strspn(digits, "0") >= (size_t)(p - digits))
                return false;
        }
        if (p == end)
            return true;
        if (*p++ != ',')
            return false;
    }
}

static void check_cron(struct loader *l, const char *s, struct pos pos)
{
    int fields = 0;

    for (const char *p = s + strspn(s, " "); *p; p += strspn(p, " ")) {
        const size_t n = strcspn(p, " ");

        if (fields < 5 && !cron_field_ok(&cron_fields[fields], p, p + n)) {
            const struct cron_field *f = &cron_fields[fields];

            problem_add(&l->problems, pos,
                        "'%.*s' is no %s in cron; write *, a value from %d to %d, a range 1-5, a "
                        "list 1,3 or steps */2",
                        (int)n, p, f->name, f->min, f->max);
            return;
        }
        fields++;
        p += n;
    }
    if (fields != 5)
        problem_add(&l->problems, pos,
                    "cron has five fields, minute hour day month weekday, not %d; \"0 2 * * 1-5\" "
                    "is two o'clock on weekdays",
                    fields);
}

/* As in Asia/Shanghai; whether this machine knows it is not the file's fault. */
static bool timezone_ok(const char *s)
{
    for (const char *p = s; *p; p++) {
        const bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z');

        if (!letter && (p == s || p[-1] == '/' || !strchr("0123456789_+-/", *p)))
            return false;
    }
    return *s && s[strlen(s) - 1] != '/' && strlen(s) <= 64;
}

/* ---- schedules --------------------------------------------------------------------------------- */

static void decode_schedule_params(struct loader *l, struct schedule *s, const struct node *n)
{
    const struct scope scope = {.sources = true};

    if (!want_map(l, n, "params", "of a schedule"))
        return;
    s->params = arena_array(l->arena, n->count + 1, sizeof(*s->params));
    for (size_t i = 0; i < n->count; i++) {
        const struct node_member *m = &n->members[i];
        struct named_value *v = &s->params[s->param_count];

        if (names_find(&l->param_names, m->key, strlen(m->key)) < 0) {
            problem_add_near(&l->problems, m->pos, m->key, l->param_names.list,
                             l->param_names.count, "the pipeline has no param '%s'", m->key);
            continue;
        }
        *v = (struct named_value){arena_strdup(l->arena, m->key),
                                  template_json(l, &scope, m->value), m->value->pos};
        s->param_count++;
        check_param_type(l, v);
    }
}

static void decode_watch(struct loader *l, struct schedule *s, const struct node *n)
{
    const char *watch = n ? want_string(l, n, "watch") : NULL;

    if (!watch)
        return;
    if (strncmp(watch, "sources.", 8) != 0) {
        problem_add(&l->problems, n->pos, "watch names a source, as in sources.NAME; '%s' is none",
                    watch);
        return;
    }
    s->watch = watch + 8;
    if (pipeline_find_source(l->p, s->watch) < 0)
        problem_add_near(&l->problems, n->pos, s->watch, l->p->source_names->list,
                         l->p->source_names->count, "there is no source '%s' to watch", s->watch);
}

static void decode_schedule(struct loader *l, const struct node *n, struct schedule *s)
{
    static const char *const keys[] = {"cron", "timezone", "watch", "settle", "params", NULL};
    const struct node *cron, *watch, *zone, *settle;

    s->pos = n->pos;
    if (!want_map(l, n, "an entry of schedule", ""))
        return;
    n = check_keys(l, n, keys, "schedule", "");
    cron = node_get(n, "cron");
    watch = node_get(n, "watch");
    zone = node_get(n, "timezone");
    settle = node_get(n, "settle");
    if (!cron == !watch)
        problem_add(&l->problems, n->pos, "a schedule has %s cron %s watch",
                    cron ? "either" : "one of", cron ? "or" : "and");
    s->cron = want_string(l, cron, "cron");
    if (cron && s->cron)
        check_cron(l, s->cron, cron->pos);
    s->timezone = want_string(l, zone, "timezone");
    if (s->timezone && !timezone_ok(s->timezone))
        problem_add(&l->problems, zone->pos,
                    "'%s' is no time zone; write its name as in Europe/Berlin", s->timezone);
    if (zone && !cron && watch)
        problem_add(&l->problems, zone->pos, "timezone goes with cron, not with watch");
    decode_watch(l, s, watch);
    s->settle_s = want_seconds(l, settle, 0, 0, "settle");
    if (settle && !watch && cron)
        problem_add(&l->problems, settle->pos, "settle goes with watch, not with cron");
    decode_schedule_params(l, s, node_get(n, "params"));
}

void decode_schedules(struct loader *l)
{
    const struct node *n = node_get(l->root, "schedule");
    struct pipeline *p = l->p;

    if (!want_list(l, n, "schedule"))
        return;
    p->schedules = arena_array(l->arena, n->count + 1, sizeof(*p->schedules));
    for (size_t i = 0; i < n->count; i++)
        decode_schedule(l, &n->items[i], &p->schedules[p->schedule_count++]);
}

/* ---- notify ------------------------------------------------------------------------------------ */

/* A URL, in which ${env.NAME} may stand: secrets belong in the environment. */
static void check_webhook(struct loader *l, const char *s, struct pos pos)
{
    for (const char *at = strstr(s, "${"); at; at = strstr(at + 2, "${")) {
        const size_t n = strcspn(at, "}");

        if (strncmp(at + 2, "env.", 4) != 0 || !at[n] || n == 6 ||
            strspn(at + 6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") !=
                n - 6) {
            problem_add(&l->problems, pos, "'%.*s' in webhook: only ${env.NAME} can stand there",
                        (int)n + 1, at);
            return;
        }
    }
    if (strncmp(s, "https://", 8) != 0 && strncmp(s, "http://", 7) != 0 &&
        strncmp(s, "${env.", 6) != 0)
        problem_add(&l->problems, pos, "webhook must start with https://, http:// or ${env.NAME}");
}

static void decode_notify(struct loader *l, const struct node *n, struct notify *o)
{
    static const char *const keys[] = {"events", "webhook", NULL};
    static const char *const known[] = {"started", "succeeded", "failed", "stopped"};
    const struct node *list, *hook, **items;

    o->pos = n->pos;
    o->events = arena_array(l->arena, 1, sizeof(char *));
    if (!want_map(l, n, "an entry of notify", ""))
        return;
    n = check_keys(l, n, keys, "notify", "");
    list = node_get(n, "events");
    hook = node_get(n, "webhook");
    o->events = want_strings(l, list, "events", &items);
    for (size_t i = 0; o->events[i]; i++) {
        bool good = false;

        for (size_t k = 0; k < 4; k++)
            good = good || strcmp(known[k], o->events[i]) == 0;
        if (!good)
            problem_add_near(&l->problems, items[i]->pos, o->events[i], known, 4,
                             "unknown event '%s'", o->events[i]);
    }
    if (!list || (list->type == YAML_LIST && list->count == 0))
        problem_add(&l->problems, list ? list->pos : n->pos,
                    "an entry of notify needs events, as in [failed, succeeded]");
    o->webhook = want_text(l, hook, "webhook");
    if (!hook)
        problem_add(&l->problems, n->pos, "an entry of notify needs webhook");
    if (hook && o->webhook)
        check_webhook(l, o->webhook, hook->pos);
}

void decode_notifies(struct loader *l)
{
    const struct node *n = node_get(l->root, "notify");
    struct pipeline *p = l->p;

    if (!want_list(l, n, "notify"))
        return;
    p->notifies = arena_array(l->arena, n->count + 1, sizeof(*p->notifies));
    for (size_t i = 0; i < n->count; i++)
        decode_notify(l, &n->items[i], &p->notifies[p->notify_count++]);
}
