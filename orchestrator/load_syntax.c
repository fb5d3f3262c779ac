/* The YAML reader says what its grammar missed; a person wants to know what to type.  Its lines "file:line:column: text"
 * become problems here, those of common mistakes in other words. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

/* The line (from 1) of a text, its end included. */
static struct str line_of(const char *text, size_t n, int line)
{
    const char *end = text + n;

    for (; line > 1 && text < end; line--) {
        const char *next = memchr(text, '\n', (size_t)(end - text));

        text = next ? next + 1 : end;
    }

    const char *stop = memchr(text, '\n', (size_t)(end - text));

    return (struct str){text, (size_t)((stop ? stop : end) - text)};
}

static bool has(const char *said, const char *phrase)
{
    return strstr(said, phrase) != NULL;
}

/* Is there a ${ on the line outside of quotes? */
static bool bare_template(struct str s)
{
    char quote = '\0';

    for (size_t i = 0; i + 1 < s.n; i++) {
        if (quote && s.p[i] == quote)
            quote = '\0';
        else if (quote)
            continue;
        else if (s.p[i] == '"' || s.p[i] == '\'')
            quote = s.p[i];
        else if (s.p[i] == '$' && s.p[i + 1] == '{')
            return true;
    }
    return false;
}

/* What to do about it; NULL when the reader's own words have to do. */
static const char *advice(const char *said, struct str line, int column)
{
    const int at = column > 0 && (size_t)column <= line.n ? line.p[column - 1] : 0;

    if (has(said, "cannot start any token"))
        return at == '\t' ? "a tab; YAML is indented with blanks"
               : at == '`' || at == '@' || at == '%'
                   ? "text that starts with @, ` or % must be in quotes"
                   : NULL;
    if (bare_template(line) && (has(said, "expected ',' or") || has(said, "expected key")))
        return "${...} must be in quotes inside { } and [ ]";
    if (has(said, "expected ',' or '}'"))
        return "a ',' or '}' is missing here or before";
    if (has(said, "expected ',' or ']'"))
        return "a ',' or ']' is missing here or before";
    if (has(said, "mapping values are not allowed"))
        return "a ':' too much; text with ': ' in it must be in quotes";
    if (has(said, "expected node content"))
        return "a value is missing here or before";
    if (has(said, "could not find expected ':'"))
        return "the line before has a key without ':'";
    if (has(said, "expected key") || has(said, "expected '-' indicator"))
        return "this does not fit what is around it; look at the indentation and at quotes";
    return NULL;
}

void take_syntax_errors(struct loader *l, char *lines, const char *text, size_t n, const char *file)
{
    const size_t prefix = strlen(file);

    for (char *line = lines, *end; line && *line; line = end) {
        struct pos pos = {file, 0, 0};
        const char *better = NULL;

        end = strchrnul(line, '\n');
        if (*end)
            *end++ = '\0';
        if (strncmp(line, file, prefix) == 0 && line[prefix] == ':') {
            char *rest = line + prefix + 1;
            const int row = (int)strtol(rest, &rest, 10);
            const int column = *rest == ':' ? (int)strtol(rest + 1, &rest, 10) : 0;

            if (strncmp(file, "--", 2) != 0) /* a place within an option helps nobody */
                pos = (struct pos){file, row, column};
            line = *rest == ':' ? rest + 1 + strspn(rest + 1, " ") : rest;
            better = advice(line, line_of(text, n, row), column);
        }
        problem_add(&l->problems, pos, "%s", better ? better : line);
    }
}
