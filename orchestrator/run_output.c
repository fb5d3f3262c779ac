/* What kept runs hold: the newest one with a result of a task; and runs that the ledger does not know. */
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

/* ---- runs from elsewhere ----------------------------------------------------------------------- */

static int by_run_down(const void *a, const void *b)
{
    const struct ledger_run *x = a, *y = b;

    return (x->run < y->run) - (x->run > y->run);
}

static bool has_row(const struct ledger_run *rows, size_t n, int64_t run)
{
    const struct ledger_run key = {.run = run};

    return n > 0 && bsearch(&key, rows, n, sizeof(*rows), by_run_down) != NULL;
}

enum err_code run_rows(struct store *st, struct ledger *l, size_t max, struct ledger_run **rows,
                       size_t *n, struct err *err)
{
    int64_t *kept = NULL;
    size_t kept_count = 0, known;
    enum err_code rc = OK;

    *rows = NULL;
    *n = 0;
    if (l)
        rc = ledger_list_runs(l, max, rows, n, err);
    known = *n;
    if (!rc)
        rc = run_kept(st, &kept, &kept_count, err);
    for (size_t i = 0; !rc && i < kept_count && *n < known + max; i++) {
        struct ledger_run row;
        struct buf events;

        if (has_row(*rows, known, kept[i]) || (known == max && kept[i] < (*rows)[max - 1].run))
            continue;
        rc = run_from_tree(st, kept[i], &row, &events, err);
        buf_release(&events);
        if (rc)
            break;
        *rows = mem_grow(*rows, *n + 1, sizeof(**rows));
        (*rows)[(*n)++] = row;
    }
    free(kept);
    if (*n > 1)
        qsort(*rows, *n, sizeof(**rows), by_run_down);
    if (*n > max)
        *n = max;
    return rc;
}

static enum err_code import_one(struct store *st, struct ledger *l, int64_t run, int64_t *imported,
                                struct buf *notes, struct err *err)
{
    struct ledger_run row;
    struct err why = ERR_INIT;
    enum err_code rc = ledger_get_run(l, run, &row, &why);

    if (rc != ERR_NOT_FOUND)
        return rc ? err_set(err, rc, "%s", why.text) : OK;
    why = (struct err)ERR_INIT;
    rc = run_import(st, l, run, &why);
    *imported += rc == OK;
    if (!rc)
        return OK;
    if (rc == ERR_FULL || rc == ERR_IO)
        return err_set(err, rc, "%s", why.text);
    /* One run that is damaged or of another format must not hide the others. */
    if (notes)
        buf_printf(notes, "run-%lld could not be brought back: %s\n", (long long)run, why.text);
    return OK;
}

enum err_code run_import_kept(struct store *st, int64_t *imported, struct buf *notes,
                              struct err *err)
{
    struct ledger *l = NULL;
    int64_t *kept = NULL;
    size_t n = 0;
    enum err_code rc = run_kept(st, &kept, &n, err);

    *imported = 0;
    if (!rc && n > 0)
        rc = ledger_open(st->root, LEDGER_WRITE, &l, err);
    /* The oldest first, so that the newest is the last one in the ledger too. */
    for (size_t i = n; !rc && i-- > 0;)
        rc = import_one(st, l, kept[i], imported, notes, err);
    ledger_close(l);
    free(kept);
    return rc;
}
