/* weir-exec TASKDIR - runs one attempt, wherever it lands.  See cluster/attempt.h. */
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "cluster/attempt.h"

int main(int argc, char **argv)
{
    struct result_card result;
    struct err err = ERR_INIT;
    enum err_code rc;

    if (argc != 2 || strcmp(argv[1], "--help") == 0) {
        (void)fprintf(
            argc == 2 ? stdout : stderr,
            "usage: weir-exec TASKDIR\n"
            "Runs the attempt that TASKDIR/attempt.json describes and leaves TASKDIR/result.json.\n"
            "Started by weir; the exit status is 0 when a result card was written, whatever it "
            "says.\n");
        return argc == 2 ? 0 : err_exit_status(ERR_USAGE);
    }
    fault_from_env();
    rc = attempt_run(argv[1], &result, &err);
    result_card_release(&result);
    if (rc)
        (void)fprintf(stderr, "weir-exec: %s\n", err.text);
    return rc ? err_exit_status(rc) : 0;
}
