/* What kept runs hold: the newest one with a result of a task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/record.h"
#include "orchestrator/run.h"

static int by_number_down(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x < y) - (x > y);
}

enum err_code run_kept(struct store *st, int64_t **numbers, size_t *count, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_refs(st->index, STR("runs/run-"), REF_LIVE, &rows, &n, err);

    *numbers = mem_zero(n + 1, sizeof(**numbers));
    *count = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        struct err ignored = ERR_INIT;

        if (str_to_i64(str_of(rows[i].name + strlen("runs/run-")), 1, INT64_MAX - 1,
                       &(*numbers)[*count], &ignored) == OK)
            ++*count;
    }
    qsort(*numbers, *count, sizeof(**numbers), by_number_down);
    free(rows);
    return rc;
}

static enum err_code look(struct store *st, int64_t run, const char *task, const char *output,
                          struct digest *out, enum obj_kind *kind, struct err *err)
{
    struct buf what = {0};
    enum err_code rc;

    buf_init(&what, 8192);
    buf_printf(&what, "runs/run-%lld:tasks/", (long long)run);
    rc = record_name_escape(task, &what, err);
    if (!rc && output)
        buf_printf(&what, "/out/%s", output);
    if (!rc)
        rc = buf_check(&what, "name of an output", err);
    if (!rc)
        rc = store_resolve(st, (struct str){what.p, what.n}, out, kind, err);
    buf_release(&what);
    return rc;
}

enum err_code run_output_run(struct store *st, const char *task, int64_t *run, struct err *err)
{
    struct digest d;
    enum obj_kind kind;
    int64_t *numbers = NULL;
    size_t n = 0;
    bool found = false;
    enum err_code rc = run_kept(st, &numbers, &n, err);

    for (size_t i = 0; !rc && !found && i < n; i++) {
        rc = look(st, numbers[i], strncmp(task, "sources.", 8) == 0 ? "" : task, NULL, &d, &kind,
                  err);
        found = rc == OK;
        *run = numbers[i];
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = OK;
        }
    }
    if (!rc && n == 0)
        rc = err_set(err, ERR_NOT_FOUND, "no run is kept here yet; weir run makes one");
    else if (!rc && !found)
        rc = err_set(err, ERR_NOT_FOUND, "no kept run has a result of %s; weir runs lists runs",
                     task);
    free(numbers);
    return rc;
}

enum err_code run_output(struct store *st, const char *task, const char *output, int64_t number,
                         struct digest *out, enum obj_kind *kind, struct err *err)
{
    enum err_code rc = number ? OK : run_output_run(st, task, &number, err);

    return rc ? rc : look(st, number, task, output, out, kind, err);
}
