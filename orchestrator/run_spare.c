/* Folders of attempts, each with its card: made, or taken over from an attempt that left its own empty (cluster/attempt.h).
 *
 * A spare folder keeps the name of the attempt that left it, which tells nobody anything: what that one made is in the store.  It gets its
 * new card first and its new name then, so that a folder with a name that somebody looks for never holds half a card, or another one's. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "orchestrator/run_internal.h"

#define SPARES_MAX 256 /* as many as a few residents leave in one commit */

/* Not synced: after a power cut there is no attempt to go on with.  0600: it may hold values of declared variables. */
static enum err_code write_card(const char *dir, const struct buf *text, struct err *err)
{
    struct buf path;
    enum err_code rc;

    buf_init(&path, 1 << 16);
    buf_printf(&path, "%s/%s", dir, CARD_ATTEMPT);
    rc = buf_check(&path, "the path of a task directory", err);
    if (!rc)
        rc = card_overwrite(AT_FDCWD, path.p, text->p, text->n, 0600, err);
    buf_release(&path);
    return rc;
}

static void remove_folder(char *dir)
{
    struct err err = ERR_INIT;

    if (os_remove_tree(AT_FDCWD, dir, &err))
        log_line(LOG_WARN, "%s", err.text); /* the next run sweeps it */
    free(dir);
}

void run_spare_folder(struct run *r, char *dir)
{
    if (r->spare_count == SPARES_MAX) {
        remove_folder(dir);
        return;
    }
    if (!r->spares)
        r->spares = mem_zero(SPARES_MAX, sizeof(*r->spares));
    r->spares[r->spare_count++] = dir;
}

void run_free_spares(struct run *r)
{
    while (r->spare_count > 0)
        remove_folder(r->spares[--r->spare_count]);
    free(r->spares);
}

static bool use_spare(struct run *r, const char *dir, const struct buf *text)
{
    struct err ignored = ERR_INIT;
    char *spare;

    if (r->spare_count == 0 || !r->executor->ops->start_again)
        return false;
    spare = r->spares[--r->spare_count];
    if (write_card(spare, text, &ignored) == OK &&
        os_rename(AT_FDCWD, spare, AT_FDCWD, dir, &ignored) == OK) {
        free(spare);
        return true;
    }
    remove_folder(spare);
    return false;
}

enum err_code run_make_folder(struct run *r, const char *dir, const json_t *card, bool *again,
                              struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, CARD_BYTES_MAX);
    rc = json_canonical(card, &text, err);
    if (!rc)
        rc = buf_check(&text, CARD_ATTEMPT, err);
    *again = !rc && use_spare(r, dir, &text);
    if (!rc && !*again) {
        rc = os_mkdir(AT_FDCWD, dir, 0755, err);
        if (rc == ERR_NOT_FOUND) {
            *err = (struct err)ERR_INIT;
            rc = os_mkdirs(dir, 0755, err);
        }
        if (!rc)
            rc = write_card(dir, &text, err);
    }
    buf_release(&text);
    return rc;
}
