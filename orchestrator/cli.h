/* cli.h - the command line: one table of commands, from which parsing, help and hints all come.
 *
 * Life:     main calls cli_main.  For tests: cli_parse -> look -> cli_release (fine on zeroed storage).
 * Owns:     struct cli owns its arrays; the strings are argv's and the table's.
 * Threads:  one.
 * Errors:   ERR_USAGE with the nearest name; a command returns what it met, and cli_main prints it once.
 *
 * Options may stand anywhere; "--" ends them; "--opt=value", "--opt value", "-o value" and "-ovalue" are the same.
 * Whether an option takes a value must not depend on the command (a test sees to it), because options may stand
 * before the command's name.
 *
 * Answers go to stdout, everything else to stderr.  With --json an answer is lines of canonical JSON, and an error is
 * also one: {"error":{"text":"...","word":"..."}}.  Names are escaped as json_name_escape says, in text too, so that a
 * hostile file name cannot drive the terminal.
 */
#ifndef WEIR_ORCHESTRATOR_CLI_H
#define WEIR_ORCHESTRATOR_CLI_H

#include <stddef.h>

#include "base/json.h"
#include "store/store.h"

#define CLI_WORDS_MAX 3    /* of a command's name: "store action put" */
#define CLI_OPTIONS_MAX 24 /* of one command, the common ones included */

struct cli_option {
    const char *name; /* without dashes; NULL ends a list */
    char letter;      /* 0: none */
    const char
        *value; /* how help calls the value; NULL: a flag.  "NAME..." may be given several times */
    const char *help;
};
struct cli;
struct cli_command {
    const char *name;       /* "store add" */
    const char *alias;      /* "gc", or NULL */
    const char *args;       /* "PATH..." */
    int args_min, args_max; /* -1: any number */
    bool raw;               /* all that follows the first argument belongs to another program */
    const char *summary;    /* one line, for lists */
    const char *text;       /* what else there is to say; NULL: nothing */
    const char *example;    /* lines a person could type */
    const char *json;       /* shape of one line of --json output */
    const struct cli_option *options; /* NULL: only the common ones */
    enum err_code (*run)(struct cli *c, struct err *err);
};
struct cli {
    const struct cli_command *command; /* NULL: none was named */
    const char *group; /* "store" when only the first words of commands were given, else NULL */
    const char **args; /* what is neither command nor option */
    size_t arg_count;
    bool json, quiet, help;
    const char *dir;                     /* --dir; NULL: not given */
    const char *values[CLI_OPTIONS_MAX]; /* by place in the command's options; flags hold "" */
    struct cli_given {
        size_t place;
        const char *value;
    } * given; /* all of them, as they came */
    size_t given_count;
};

extern const struct cli_command *const cli_commands[]; /* in the order of help; NULL ends it */
extern const struct cli_option cli_common[];

int cli_main(int argc, char **argv); /* the exit status */
/* c is filled as far as possible even on error, so that the caller knows about --json. */
MUST_USE enum err_code cli_parse(int argc, char **argv, struct cli *c, struct err *err);
void cli_release(struct cli *c);

/* NULL when the option was not given.  Asking for an option that the table lacks is a CHECK. */
const char *cli_value(const struct cli *c, const char *option);
bool cli_flag(const struct cli *c, const char *option);
/* The option of the command at a place of cli.given; NULL: a common one. */
const struct cli_option *cli_option_at(const struct cli *c, size_t place);
/* All values of an option that may be given several times, in their order, NULL at the end.  free() the array. */
const char **cli_values(const struct cli *c, const char *option);
/* "90s", "15m", "24h", "7d"; absent when the option was not given. */
MUST_USE enum err_code cli_seconds(const struct cli *c, const char *option, int64_t absent,
                                   int64_t *out, struct err *err);
/* At most one of these flags. */
MUST_USE enum err_code cli_one_of(const struct cli *c, const char *const *flags, size_t count,
                                  struct err *err);
MUST_USE enum err_code cli_open(const struct cli *c, enum store_mode mode, struct store **out,
                                struct err *err);
MUST_USE enum err_code cli_resolve(struct store *st, const char *what, struct digest *out,
                                   enum obj_kind *kind, struct err *err);
/* A progress line, or NULL with --quiet; progress_end(NULL) is fine. */
struct progress *cli_progress(const struct cli *c, struct progress *p, const char *verb,
                              const char *unit);

/* ---- output ---- */
/* Takes v.  NULL is out of memory. */
MUST_USE enum err_code cli_json(json_t *v, struct err *err);
/* New references; names and digests as every JSON shape here has them. */
json_t *cli_json_name(const char *name, size_t n);
json_t *cli_json_digest(const struct digest *d);
void cli_name(const char *name, size_t n); /* to stdout, escaped */
const char *cli_kind(enum obj_kind kind);  /* "blob", "tree" */
/* To a buffer: the same escapes, and those of C1 controls, which terminals obey as well. */
void cli_escape(struct buf *out, const char *name, size_t n);
/* The next line of a list that a library gave; false at the end.  *at starts at 0. */
bool cli_next_line(const struct buf *list, size_t *at, struct str *line);
MUST_USE enum err_code cli_write(const void *p, size_t n, struct err *err); /* bytes to stdout */

/* ---- help ---- */
void cli_help_all(struct buf *out);
void cli_help_group(const char *group, struct buf *out);
void cli_help_command(const struct cli_command *command, struct buf *out);
void cli_help_exit(struct buf *out);

#endif
