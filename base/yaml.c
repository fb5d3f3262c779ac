/* libyaml turns text into events (here is a scalar, here a list ends); this file turns events into
 * nodes.  An alias is the node of its anchor once more, not a copy, so a file of a few lines could
 * stand for billions of nodes (the "billion laughs").  Therefore every node knows how many nodes
 * it stands for when aliases are written out, and how deep it is, and the bounds count those.
 *
 * A mistake that leaves the structure clear (a key given twice, a tag) is noted and reading goes
 * on; after a syntax error there is nothing to go on with. */
#include "base/yaml.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/arena.h"
#include "base/yaml_scalar.h"

#define ANCHORS_MAX 256    /* each alias looks through all of them */
#define COMPLAINTS_MAX 100 /* a person fixes the first few and tries again */

struct node {
    struct yaml_node pub; /* first: a struct yaml_node * is a struct node * */
    size_t expanded;      /* nodes in it, itself included, aliases written out */
    int height;           /* 0 for a scalar, 1 for a list of scalars */
    bool open;            /* its end has not been read yet */
};

struct frame { /* of a list or map that is being read */
    struct node *node;
    struct yaml_node **items, **keys; /* keys: one more than items while a value is awaited */
    size_t count, room;
    bool value_next;
};

struct anchor {
    const char *name;
    struct node *node;
};

struct complaint {
    int line, column;
    size_t order;
    const char *text;
};

struct yaml_doc {
    struct arena arena;
    const struct yaml_node *root;
};

struct builder {
    struct yaml_doc *doc;
    struct frame frames[YAML_DEPTH_MAX];
    int depth;
    size_t nodes; /* as expanded */
    struct anchor anchors[ANCHORS_MAX];
    size_t anchor_count;
    struct complaint complaints[COMPLAINTS_MAX];
    size_t complaint_count;
    bool stop;
};

/* ---- complaints -------------------------------------------------------------------------------- */

PRINTF_LIKE(4, 5)
static void complain(struct builder *b, int line, int column, const char *fmt, ...)
{
    struct complaint *c = &b->complaints[b->complaint_count];
    struct buf text;
    va_list ap;

    if (b->complaint_count == COMPLAINTS_MAX)
        return;
    buf_init(&text, ERR_TEXT_MAX);
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f)
            text.p[i] = '?'; /* one line each, and no commands to the terminal */
    c->line = line;
    c->column = column;
    c->order = b->complaint_count++;
    c->text = arena_strndup(&b->doc->arena, text.p, text.n);
    buf_release(&text);
    if (b->complaint_count == COMPLAINTS_MAX)
        b->stop = true;
}

/* For "%.*s": a whole paragraph does not help a message. */
#define SHOWN(s) (int)((s).n < 60 ? (s).n : 60), (s).p

static int by_place(const void *x, const void *y)
{
    const struct complaint *a = x, *b = y;

    if (a->line != b->line)
        return a->line < b->line ? -1 : 1;
    if (a->column != b->column)
        return a->column < b->column ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

static enum err_code report(struct builder *b, const char *file, struct buf *errors,
                            struct err *err)
{
    const struct complaint *c = b->complaints;

    qsort(b->complaints, b->complaint_count, sizeof(*c), by_place);
    for (size_t i = 0; errors && i < b->complaint_count; i++)
        buf_printf(errors, "%s:%d:%d: %s\n", file, c[i].line, c[i].column, c[i].text);
    return err_set(err, ERR_INPUT, "%s:%d:%d: %s", file, c->line, c->column, c->text);
}

/* ---- building ---------------------------------------------------------------------------------- */

static struct node *new_node(struct builder *b, enum yaml_type type, const yaml_event_t *e)
{
    struct node *n = arena_alloc(&b->doc->arena, sizeof(*n));

    n->pub.type = type;
    n->pub.line = (int)e->start_mark.line + 1;
    n->pub.column = (int)e->start_mark.column + 1;
    n->pub.text.p = "";
    n->expanded = 1;
    return n;
}

static bool count_nodes(struct builder *b, size_t n, const yaml_event_t *e)
{
    b->nodes += n; /* both are at most YAML_NODES_MAX, so this cannot overflow */
    if (b->nodes <= YAML_NODES_MAX)
        return true;
    complain(b, (int)e->start_mark.line + 1, (int)e->start_mark.column + 1,
             "more than %d values, with aliases written out", YAML_NODES_MAX);
    b->stop = true;
    return false;
}

static void make_room(struct frame *f)
{
    if (f->count < f->room)
        return;
    f->room = f->room ? f->room * 2 : 8;
    f->items = mem_grow(f->items, f->room, sizeof(struct yaml_node *));
    f->keys = mem_grow(f->keys, f->room, sizeof(struct yaml_node *));
}

/* The text of a scalar, whatever its type: 8, 0x8 and "8" are keys like any other.  A key that
 * cannot be used has been complained about; it stays in its place as a YAML_NULL. */
static struct yaml_node *as_key(struct builder *b, const struct node *n, const yaml_event_t *e)
{
    const bool plain =
        e->type == YAML_SCALAR_EVENT && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    struct yaml_node *key = &new_node(b, YAML_NULL, e)->pub;

    key->text = n->pub.text;
    if (n->pub.type == YAML_LIST || n->pub.type == YAML_MAP)
        complain(b, n->pub.line, n->pub.column, "a list or map cannot be a key");
    else if (plain && key->text.n == 0)
        complain(b, key->line, key->column, "the key is missing before ':'");
    else if (plain && strcmp(key->text.p, "<<") == 0)
        complain(b, key->line, key->column,
                 "merge keys (<<) are not supported; write the members out");
    else
        key->type = YAML_STRING;
    return key;
}

/* A finished node, or an alias, into the list or map around it. */
static void attach(struct builder *b, struct node *n, const yaml_event_t *e)
{
    if (b->depth == 0) {
        b->doc->root = &n->pub;
        return;
    }

    struct frame *f = &b->frames[b->depth - 1];

    make_room(f);
    f->node->expanded += n->expanded;
    if (n->height >= f->node->height)
        f->node->height = n->height + 1;
    if (f->node->pub.type == YAML_MAP && !f->value_next) {
        f->keys[f->count] = as_key(b, n, e);
        f->value_next = true;
        return;
    }
    f->items[f->count++] = &n->pub;
    f->value_next = false;
}

static void refuse_tag(struct builder *b, const struct node *n, const yaml_char_t *tag)
{
    if (tag)
        complain(b, n->pub.line, n->pub.column, "tags such as %.60s are not supported",
                 (const char *)tag);
}

static void set_anchor(struct builder *b, struct node *n, const yaml_char_t *name)
{
    size_t i = 0;

    if (!name)
        return;
    while (i < b->anchor_count && strcmp(b->anchors[i].name, (const char *)name) != 0)
        i++; /* a name given again means the later one from here on */
    if (i == ANCHORS_MAX) {
        complain(b, n->pub.line, n->pub.column, "more than %d anchors", ANCHORS_MAX);
        b->stop = true;
        return;
    }
    if (i == b->anchor_count)
        b->anchor_count++;
    b->anchors[i].name = arena_strdup(&b->doc->arena, (const char *)name);
    b->anchors[i].node = n;
}

static void read_scalar(struct builder *b, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;
    const size_t size = e->data.scalar.length;
    struct node *n = new_node(b, YAML_STRING, e);

    if (!count_nodes(b, 1, e))
        return;
    n->pub.text.p = arena_strndup(&b->doc->arena, text, size);
    n->pub.text.n = size;
    refuse_tag(b, n, e->data.scalar.tag);
    set_anchor(b, n, e->data.scalar.anchor);
    if (memchr(text, '\0', size))
        complain(b, n->pub.line, n->pub.column, "text with a zero byte (\\0) in it");

    const bool is_key = b->depth > 0 && b->frames[b->depth - 1].node->pub.type == YAML_MAP &&
                        !b->frames[b->depth - 1].value_next;

    /* A key is text.  With an anchor it may also become a value further on. */
    if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (!is_key || e->data.scalar.anchor) &&
        !yaml_scalar_type(&n->pub))
        complain(b, n->pub.line, n->pub.column,
                 "%.*s is too large for a number; quote it if it is text", SHOWN(n->pub.text));
    if (!b->stop)
        attach(b, n, e);
}

static void read_alias(struct builder *b, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    const int line = (int)e->start_mark.line + 1, column = (int)e->start_mark.column + 1;
    struct node *n = NULL;

    for (size_t i = 0; i < b->anchor_count; i++)
        if (strcmp(b->anchors[i].name, name) == 0)
            n = b->anchors[i].node;
    if (!n) {
        complain(b, line, column, "no anchor &%.60s before this alias", name);
    } else if (n->open) {
        complain(b, line, column, "alias *%.60s inside the value that it names", name);
        n = NULL;
    } else if (b->depth + n->height > YAML_DEPTH_MAX) {
        complain(b, line, column, "nested deeper than %d, with aliases written out",
                 YAML_DEPTH_MAX);
        n = NULL;
    }
    if (b->stop || !count_nodes(b, n ? n->expanded : 1, e))
        return;
    attach(b, n ? n : new_node(b, YAML_NULL, e), e);
}

static void begin(struct builder *b, enum yaml_type type, const yaml_event_t *e)
{
    const bool map = type == YAML_MAP;
    struct node *n = new_node(b, type, e);

    if (!count_nodes(b, 1, e))
        return;
    refuse_tag(b, n, map ? e->data.mapping_start.tag : e->data.sequence_start.tag);
    set_anchor(b, n, map ? e->data.mapping_start.anchor : e->data.sequence_start.anchor);
    if (b->stop)
        return;
    if (b->depth == YAML_DEPTH_MAX) {
        complain(b, n->pub.line, n->pub.column, "nested deeper than %d", YAML_DEPTH_MAX);
        b->stop = true;
        return;
    }
    n->open = true;
    n->height = 1;
    b->frames[b->depth++] = (struct frame){.node = n};
}

static int by_text(const void *x, const void *y)
{
    const struct yaml_node *a = *(struct yaml_node *const *)x, *b = *(struct yaml_node *const *)y;
    const int order = str_cmp(a->text, b->text);

    if (order)
        return order;
    if (a->line != b->line)
        return a->line < b->line ? -1 : 1;
    return (a->column > b->column) - (a->column < b->column);
}

static void refuse_duplicates(struct builder *b, const struct frame *f)
{
    struct yaml_node **sorted = mem_alloc(f->count * sizeof(struct yaml_node *));
    size_t n = 0;

    for (size_t i = 0; i < f->count; i++)
        if (f->keys[i]->type == YAML_STRING)
            sorted[n++] = f->keys[i];
    qsort(sorted, n, sizeof(struct yaml_node *), by_text);
    for (size_t i = 1; i < n && !b->stop; i++)
        if (str_eq(sorted[i]->text, sorted[i - 1]->text))
            complain(b, sorted[i]->line, sorted[i]->column, "\"%.*s\" is already given on line %d",
                     SHOWN(sorted[i]->text), sorted[i - 1]->line);
    free(sorted);
}

static void release_frame(struct frame *f)
{
    free(f->items);
    free(f->keys);
    *f = (struct frame){0};
}

static void end(struct builder *b, const yaml_event_t *e)
{
    CHECK(b->depth > 0);

    struct frame *f = &b->frames[b->depth - 1];
    struct node *n = f->node;
    const size_t bytes = f->count * sizeof(struct yaml_node *);

    CHECK(!f->value_next); /* libyaml makes an empty scalar of a missing value */
    n->pub.count = f->count;
    if (f->count > 0) {
        n->pub.items = arena_alloc(&b->doc->arena, bytes);
        memcpy(n->pub.items, f->items, bytes);
    }
    if (f->count > 0 && n->pub.type == YAML_MAP) {
        n->pub.keys = arena_alloc(&b->doc->arena, bytes);
        memcpy(n->pub.keys, f->keys, bytes);
        refuse_duplicates(b, f);
    }
    release_frame(f);
    b->depth--;
    n->open = false;
    if (!b->stop)
        attach(b, n, e);
}

static void begin_document(struct builder *b, const yaml_event_t *e)
{
    if (!b->doc->root)
        return;
    complain(b, (int)e->start_mark.line + 1, (int)e->start_mark.column + 1,
             "a second document; one file holds one");
    b->stop = true;
}

static void take_event(struct builder *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        begin_document(b, e);
        break;
    case YAML_SCALAR_EVENT:
        read_scalar(b, e);
        break;
    case YAML_ALIAS_EVENT:
        read_alias(b, e);
        break;
    case YAML_SEQUENCE_START_EVENT:
        begin(b, YAML_LIST, e);
        break;
    case YAML_MAPPING_START_EVENT:
        begin(b, YAML_MAP, e);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        end(b, e);
        break;
    case YAML_STREAM_END_EVENT:
        b->stop = true;
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
}

/* ---- the door ---------------------------------------------------------------------------------- */

static void complain_syntax(struct builder *b, const yaml_parser_t *parser, const char *p)
{
    size_t line = parser->problem_mark.line, column = parser->problem_mark.column;

    CHECK(parser->error != YAML_MEMORY_ERROR);
    if (parser->error == YAML_READER_ERROR) { /* has an offset instead */
        line = column = 0;
        for (size_t i = 0; i < parser->problem_offset; i++) {
            column++;
            if (p[i] == '\n') {
                line++;
                column = 0;
            }
        }
    }
    if (parser->context)
        complain(b, (int)line + 1, (int)column + 1, "%s (%s that starts on line %zu)",
                 parser->problem, parser->context, parser->context_mark.line + 1);
    else
        complain(b, (int)line + 1, (int)column + 1, "%s", parser->problem);
}

static void read_events(struct builder *b, const char *p, size_t n)
{
    yaml_parser_t parser;
    yaml_event_t event;

    CHECK(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const yaml_char_t *)(n ? p : ""), n);
    while (!b->stop) {
        if (!yaml_parser_parse(&parser, &event)) {
            complain_syntax(b, &parser, p);
            break;
        }
        take_event(b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
}

enum err_code yaml_parse(const char *p, size_t n, const char *file, struct yaml_doc **out,
                         struct buf *errors, struct err *err)
{
    static const struct yaml_node nothing = {
        .type = YAML_NULL, .line = 1, .column = 1, .text = {"", 0}};
    enum err_code rc = OK;

    CHECK(p || n == 0);
    CHECK(file);
    CHECK(out);
    *out = NULL;
    if (n > YAML_BYTES_MAX) {
        if (errors)
            buf_printf(errors, "%s:1:1: longer than %d bytes\n", file, YAML_BYTES_MAX);
        return err_set(err, ERR_LIMIT, "%s:1:1: longer than %d bytes", file, YAML_BYTES_MAX);
    }

    struct yaml_doc *doc = mem_zero(1, sizeof(*doc));
    struct builder *b = mem_zero(1, sizeof(*b)); /* too big for some stacks */

    b->doc = doc;
    read_events(b, p, n);
    while (b->depth > 0)
        release_frame(&b->frames[--b->depth]);
    if (b->complaint_count > 0) {
        rc = report(b, file, errors, err);
        yaml_free(doc);
    } else {
        if (!doc->root)
            doc->root = &nothing;
        *out = doc;
    }
    free(b);
    return rc;
}

void yaml_free(struct yaml_doc *d)
{
    if (!d)
        return;
    arena_release(&d->arena);
    free(d);
}

const struct yaml_node *yaml_root(const struct yaml_doc *d)
{
    CHECK(d);
    return d->root;
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    CHECK(key);
    if (!map || map->type != YAML_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->keys[i]->text.p, key) == 0)
            return map->items[i];
    return NULL;
}
