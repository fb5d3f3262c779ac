/* capture.h - what a running program says on descriptor 3, and what is kept because of it.
 *
 * An event is a line of JSON whose "event" is progress, metric, checkpoint or image, with the fields of the stage contract.  It goes to
 * TASKDIR/events.jsonl (made by the first one), stamped: {"t_ms":since the start,"time_ms":since 1970, ..the program's members}.
 *   checkpoint   the file or directory at path goes into the store at once; a tree {"step-N": checkpoint} of the newest `keep` ones (and
 *                as many of later steps, left by an attempt that was to go further) is what the ref names, in the same commit: killed
 *                at any instant, the newest complete one is there.
 *   image        the file at path is copied to TASKDIR/images/ at once; capture_put puts it into the store.
 * A path is relative to the task directory, or absolute and below it; one that leads out of it, also by a link, is refused.  What cannot
 * be kept is a line in the log: losing a checkpoint does not end a training.
 *
 * Life:     capture_init -> capture_event ... -> capture_put -> capture_release.
 * Owns:     the events file, the lists.
 * Threads:  one.
 * Errors:   only what writing the log and events.jsonl says.
 */
#ifndef WEIR_CLUSTER_CAPTURE_H
#define WEIR_CLUSTER_CAPTURE_H

#include "cluster/card.h"
#include "cluster/runlog.h"
#include "store/writer.h"

#define CAPTURE_EVENTS "events.jsonl"
#define CAPTURE_EVENTS_MAX                                                                         \
    ((int64_t)64 << 20) /* more than that goes to the log, which is bounded */
#define CAPTURE_IMAGES_MAX 1000
#define CAPTURE_IMAGE_BYTES_MAX ((int64_t)64 << 20)
#define CAPTURE_STEP_MAX ((int64_t)1 << 53)

struct capture {
    struct store *store;
    const struct attempt_card *card;
    const char *path; /* of the task directory, absolute, without links */
    int dir;
    struct runlog *log;
    int events; /* -1: none yet */
    int64_t events_bytes, start_ns;
    int64_t step;   /* newest in the store: taken, or resumed from; -1 */
    bool has_taken; /* at least one in this attempt */
    struct card_image *images;
    char **image_names; /* in images/ */
    size_t image_count;
};
void capture_init(struct capture *c, struct store *st, const struct attempt_card *card,
                  const char *path, int dir, struct runlog *log);
/* One line without its newline, NUL-terminated.  *taken = false: no event. */
MUST_USE enum err_code capture_event(struct capture *c, const char *line, size_t n, bool *taken,
                                     struct err *err);
/* Log, events and images become objects of this session; r gets log, events, images (borrowed) and step. */
MUST_USE enum err_code capture_put(struct capture *c, struct writer *w, struct result_card *r,
                                   struct err *err);
void capture_release(struct capture *c); /* fine on zeroed storage */

#endif
