/* What commands print: lines of JSON, names that cannot drive a terminal, raw bytes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli.h"

#define LINE_MAX_BYTES (64 << 20) /* one answer as JSON */

enum err_code cli_write(const void *p, size_t n, struct err *err)
{
    if (n > 0 && fwrite(p, 1, n, stdout) != n)
        return err_sys(err, errno, "write to standard output");
    return OK;
}

enum err_code cli_json(json_t *v, struct err *err)
{
    struct buf line;
    enum err_code rc;

    CHECK(v); /* out of memory, or a name that was not escaped */
    buf_init(&line, LINE_MAX_BYTES);
    rc = json_canonical(v, &line, err);
    buf_char(&line, '\n');
    if (rc == OK)
        rc = buf_check(&line, "answer", err);
    if (rc == OK)
        rc = cli_write(line.p, line.n, err);
    buf_release(&line);
    json_decref(v);
    return rc;
}

/* json_name_escape leaves U+0080..U+009F alone, which are C2 80..C2 9F in UTF-8. */
void cli_escape(struct buf *out, const char *name, size_t n)
{
    struct buf plain;

    buf_init(&plain, out->max);
    json_name_escape(&plain, name, n);
    for (size_t i = 0; i < plain.n; i++) {
        const unsigned char c = (unsigned char)plain.p[i];
        const unsigned char d = i + 1 < plain.n ? (unsigned char)plain.p[i + 1] : 0;

        if (c == 0xc2 && d >= 0x80 && d <= 0x9f) {
            buf_printf(out, "%%%02X%%%02X", c, d);
            i++;
        } else {
            buf_char(out, (char)c);
        }
    }
    buf_release(&plain);
}

json_t *cli_json_name(const char *name, size_t n)
{
    struct buf text;
    json_t *v;

    buf_init(&text, LINE_MAX_BYTES);
    json_name_escape(&text, name, n);
    v = json_stringn(text.n ? text.p : "", text.n);
    buf_release(&text);
    return v;
}

json_t *cli_json_digest(const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    digest_text(d, text);
    return json_string(text);
}

void cli_name(const char *name, size_t n)
{
    struct buf text;

    buf_init(&text, LINE_MAX_BYTES);
    cli_escape(&text, name, n);
    /* A failed write shows at the end, when stdout is flushed. */
    (void)fwrite(text.n ? text.p : "", 1, text.n, stdout);
    buf_release(&text);
}

const char *cli_kind(enum obj_kind kind)
{
    return kind == OBJ_TREE ? "tree" : kind == OBJ_BLOB ? "blob" : "none";
}

bool cli_next_line(const struct buf *list, size_t *at, struct str *line)
{
    const char *end;

    if (*at >= list->n)
        return false;
    line->p = list->p + *at;
    end = memchr(line->p, '\n', list->n - *at);
    line->n = end ? (size_t)(end - line->p) : list->n - *at;
    *at += line->n + 1;
    return true;
}
