#include "orchestrator/sched_replay.h"

#include <string.h>

#include "base/err.h"

#define MS_PER_DAY INT64_C(86400000)

enum sched_end sched_end_of(enum attempt_status status, int exit_status, bool timed_out)
{
    switch (status) {
    case ATTEMPT_DONE:
        return END_DONE;
    case ATTEMPT_FAILED:
        return timed_out || exit_status == 64 || exit_status == 65 ? END_FATAL : END_FAILED;
    case ATTEMPT_STOPPED:
        return timed_out ? END_FATAL : END_STOPPED;
    case ATTEMPT_LOST:
    case ATTEMPT_STATUS_COUNT:
        break;
    }
    return END_LOST;
}

static bool digits(const char *p, int n, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        *out = *out * 10 + (p[i] - '0');
    }
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar: years that begin in March, so that the day of a leap year comes last. */
static int64_t days(int64_t year, int64_t month, int64_t day)
{
    const int64_t y = month > 2 ? year : year - 1;
    const int64_t m = month > 2 ? month - 3 : month + 9;

    return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719468;
}

/* "2026-01-02T03:04:05.678Z", as the ledger writes it; 0 when it is not that. */
static int64_t time_ms(const char *p)
{
    int64_t year, month, day, hour, minute, second, ms;

    if (!p || strlen(p) != 24 || p[4] != '-' || p[7] != '-' || p[10] != 'T' || p[13] != ':' ||
        p[16] != ':' || p[19] != '.' || p[23] != 'Z')
        return 0;
    if (!digits(p, 4, &year) || !digits(p + 5, 2, &month) || !digits(p + 8, 2, &day) ||
        !digits(p + 11, 2, &hour) || !digits(p + 14, 2, &minute) || !digits(p + 17, 2, &second) ||
        !digits(p + 20, 3, &ms))
        return 0;
    return days(year, month, day) * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + ms;
}

static int64_t number(const json_t *body, const char *key, int64_t otherwise)
{
    const json_t *v = json_object_get(body, key);

    return json_is_integer(v) ? (int64_t)json_integer_value(v) : otherwise;
}

static bool end_of(const json_t *body, struct sched_event *out)
{
    const char *status = json_string_value(json_object_get(body, "status"));
    const bool final = json_is_true(json_object_get(body, "final"));
    enum attempt_status s;

    for (s = ATTEMPT_DONE; s < ATTEMPT_STATUS_COUNT; s++)
        if (status && strcmp(status, attempt_status_words[s]) == 0)
            break;
    if (s == ATTEMPT_STATUS_COUNT)
        return false;
    out->end = sched_end_of(s, (int)number(body, "exit", 0), final);
    out->wall_ms = number(body, "wall_ms", 0);
    out->checkpoint_step = number(body, "step", -1);
    return true;
}

bool sched_event_of(const json_t *body, int (*find_task)(void *, const char *), void *arg,
                    struct sched_event *out)
{
    static const struct {
        const char *name;
        enum sched_event_kind kind;
        bool task;
    } kinds[] = {{"task.cached", EV_HIT, true},    {"task.refused", EV_KEY_FAILED, true},
                 {"task.start", EV_STARTED, true}, {"task.end", EV_ENDED, true},
                 {"run.stop", EV_STOP, false},     {"run.cancel", EV_CANCEL, false},
                 {"run.resume", EV_RESUME, false}};
    const char *name = json_string_value(json_object_get(body, "event"));
    const char *task = json_string_value(json_object_get(body, "task"));
    int64_t attempt = number(body, "attempt", 0);
    size_t k;

    for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        if (name && strcmp(name, kinds[k].name) == 0)
            break;
    if (k == sizeof(kinds) / sizeof(kinds[0]) || (kinds[k].task && !task))
        return false;
    *out =
        (struct sched_event){.kind = kinds[k].kind,
                             .task = -1,
                             .checkpoint_step = -1,
                             .now_ms = time_ms(json_string_value(json_object_get(body, "time")))};
    if (task && (kinds[k].task || kinds[k].kind == EV_CANCEL)) {
        out->task = find_task(arg, task);
        if (out->task < 0)
            return false;
    }
    if (out->kind != EV_STARTED && out->kind != EV_ENDED)
        return true;
    if (attempt < 1 || attempt > INT32_MAX)
        return false;
    out->attempt = (int)attempt;
    return out->kind == EV_STARTED || end_of(body, out);
}
