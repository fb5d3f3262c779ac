/* weir-exec - runs attempts, wherever it lands: one (cluster/attempt.h), or those that it is told to (cluster/serve.h). */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/attempt.h"
#include "cluster/serve.h"

static const char usage[] = "usage: weir-exec TASKDIR\n"
                            "       weir-exec --serve STORE\n"
                            "Runs the attempt that TASKDIR/attempt.json describes and leaves "
                            "TASKDIR/result.json; with --serve,\n"
                            "those whose directories are read from standard input, one a line, "
                            "telling about them on standard\n"
                            "output.  Started by weir; the exit status is 0 when a result card was "
                            "written, whatever it says.\n";

static enum err_code run(int argc, char **argv, struct err *err)
{
    struct result_card result;
    enum err_code rc;

    fault_from_env();
    /* No terminal may end or stop us; a process group leader, who cannot do this, has a session or a job already. */
    (void)setsid();
    (void)signal(SIGHUP, SIG_IGN);
    if (argc == 3)
        return serve(argv[2], STDIN_FILENO, STDOUT_FILENO, err);
    rc = attempt_run(argv[1], &result, err);
    return rc;
}

int main(int argc, char **argv)
{
    const bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    const bool serves = argc == 3 && strcmp(argv[1], "--serve") == 0;
    struct err err = ERR_INIT;
    enum err_code rc;

    os_hold_stdio();
    if (help || !(serves || (argc == 2 && argv[1][0] != '-'))) {
        (void)fputs(usage, help ? stdout : stderr);
        return help ? 0 : err_exit_status(ERR_USAGE);
    }
    rc = run(argc, argv, &err);
    if (rc)
        (void)fprintf(stderr, "weir-exec: %s\n", err.text);
    return rc ? err_exit_status(rc) : 0;
}
