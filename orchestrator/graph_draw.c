/* Boxes in layers, lines between them: the method of Sugiyama, Tagawa and Toda (1981) on a grid of characters.
 *
 * 1. An edge over several layers gets a point ("slot") in each layer between, so that lines join neighbouring layers only.
 * 2. Slots of a layer are ordered by the mean place of their neighbours, up and down in turns, keeping the order with the
 *    fewest crossings.
 * 3. Columns: each slot moves towards its neighbours as far as the slots beside it allow.
 * 4. Between two layers, each slot above that does not lead straight down gets a horizontal track; tracks that do not
 *    overlap share a row.  Columns where lines leave boxes and columns where they enter never coincide (an entry moves
 *    one to the side), so vertical lines of different edges cannot run into each other.  Lines that only cross do not touch:
 *    the vertical one goes through. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/graph.h"

#define SLOTS_MAX 1500 /* of a picture that somebody could still read */
#define SWEEPS 24
#define GAP 2 /* columns between neighbours */

struct slot {
    int node; /* -1: a line passes */
    int layer, place;
    int width, x;    /* x: the middle */
    int exit, entry; /* columns */
    double mean;
};
struct line { /* between slots of neighbouring layers */
    int from, to;
};
struct drawing {
    const struct graph *g;
    struct slot *slots;
    int slot_count;
    struct line *lines;
    int line_count;
    int **layers; /* slot numbers by place */
    int *sizes;
    int columns;
};

/* ---- 1: slots and lines ------------------------------------------------------------------------ */

static int label_width(const char *s)
{
    int n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int add_slot(struct drawing *d, int node, int layer)
{
    struct slot *s = &d->slots[d->slot_count];

    *s = (struct slot){.node = node, .layer = layer, .width = 1};
    if (node >= 0)
        s->width = label_width(d->g->nodes[node].label) + 4;
    return d->slot_count++;
}

/* False when there would be too many. */
static bool add_lines(struct drawing *d)
{
    const struct graph *g = d->g;

    for (int e = 0; e < g->edge_count; e++) {
        const struct graph_edge *edge = &g->edges[e];
        const int last = g->nodes[edge->to].layer;
        int from = edge->from;

        if (e > 0 && edge->from == edge[-1].from && edge->to == edge[-1].to)
            continue;
        for (int layer = g->nodes[edge->from].layer + 1; layer <= last; layer++) {
            int to = edge->to;

            if (d->slot_count == SLOTS_MAX || d->line_count == SLOTS_MAX)
                return false;
            if (layer < last)
                to = add_slot(d, -1, layer);
            d->lines[d->line_count++] = (struct line){from, to};
            from = to;
        }
    }
    return true;
}

static bool start(struct drawing *d)
{
    const struct graph *g = d->g;

    if (g->node_count > SLOTS_MAX / 2)
        return false;
    d->slots = mem_zero(SLOTS_MAX, sizeof(*d->slots));
    d->lines = mem_zero(SLOTS_MAX, sizeof(*d->lines));
    for (int i = 0; i < g->node_count; i++)
        add_slot(d, i, g->nodes[i].layer);
    if (!add_lines(d))
        return false;
    d->layers = mem_zero((size_t)g->layer_count + 1, sizeof(*d->layers));
    d->sizes = mem_zero((size_t)g->layer_count + 1, sizeof(*d->sizes));
    for (int i = 0; i < d->slot_count; i++)
        d->sizes[d->slots[i].layer]++;
    for (int i = 0; i < g->layer_count; i++) {
        d->layers[i] = mem_zero((size_t)d->sizes[i], sizeof(int));
        d->sizes[i] = 0;
    }
    for (int i = 0; i < d->slot_count; i++) {
        struct slot *s = &d->slots[i];

        s->place = d->sizes[s->layer];
        d->layers[s->layer][d->sizes[s->layer]++] = i;
    }
    return true;
}

/* ---- 2: order ---------------------------------------------------------------------------------- */

static int count_crossings(const struct drawing *d)
{
    int n = 0;

    for (int i = 0; i < d->line_count; i++)
        for (int k = 0; k < i; k++) {
            const struct slot *a = &d->slots[d->lines[i].from], *b = &d->slots[d->lines[k].from];
            const struct slot *x = &d->slots[d->lines[i].to], *y = &d->slots[d->lines[k].to];

            if (a->layer == b->layer)
                n += (a->place - b->place) * (x->place - y->place) < 0;
        }
    return n;
}

/* The mean place, or column, of the neighbours above or below; where it is now when there are none. */
static double mean_of(const struct drawing *d, int slot, bool above, bool columns)
{
    double sum = 0;
    int n = 0;

    for (int i = 0; i < d->line_count; i++) {
        const int here = above ? d->lines[i].to : d->lines[i].from;
        const struct slot *there = &d->slots[above ? d->lines[i].from : d->lines[i].to];

        if (here != slot)
            continue;
        sum += columns ? there->x : there->place;
        n++;
    }
    if (n > 0)
        return sum / n;
    return columns ? d->slots[slot].x : d->slots[slot].place;
}

/* Insertion sort: stable, so that equal ones keep the order of the file. */
static void sort_layer(struct drawing *d, int layer)
{
    int *list = d->layers[layer];

    for (int i = 1; i < d->sizes[layer]; i++) {
        const int slot = list[i];
        int k = i;

        for (; k > 0 && d->slots[list[k - 1]].mean > d->slots[slot].mean; k--)
            list[k] = list[k - 1];
        list[k] = slot;
    }
    for (int i = 0; i < d->sizes[layer]; i++)
        d->slots[list[i]].place = i;
}

static void order(struct drawing *d)
{
    int best = count_crossings(d), *places = mem_zero((size_t)d->slot_count, sizeof(*places));

    for (int i = 0; i < d->slot_count; i++)
        places[i] = d->slots[i].place;
    for (int sweep = 0; sweep < SWEEPS && best > 0; sweep++) {
        const bool down = sweep % 2 == 0;

        for (int k = 0; k < d->g->layer_count; k++) {
            const int layer = down ? k : d->g->layer_count - 1 - k;

            for (int i = 0; i < d->sizes[layer]; i++)
                d->slots[d->layers[layer][i]].mean = mean_of(d, d->layers[layer][i], down, false);
            sort_layer(d, layer);
        }

        const int crossings = count_crossings(d);

        if (crossings >= best)
            continue;
        best = crossings;
        for (int i = 0; i < d->slot_count; i++)
            places[i] = d->slots[i].place;
    }
    for (int i = 0; i < d->slot_count; i++)
        d->layers[d->slots[i].layer][places[i]] = i;
    for (int i = 0; i < d->slot_count; i++)
        d->slots[i].place = places[i];
    free(places);
}

/* ---- 3: columns -------------------------------------------------------------------------------- */

static int distance(const struct slot *left, const struct slot *right)
{
    return left->width / 2 + (right->width + 1) / 2 + GAP;
}

/* Towards the wanted columns, from the left and from the right, and the middle of both. */
static void settle_layer(struct drawing *d, int layer, bool above)
{
    const int n = d->sizes[layer], *list = d->layers[layer];
    int *left = mem_zero((size_t)n, sizeof(int)), *right = mem_zero((size_t)n, sizeof(int));

    for (int i = 0; i < n; i++)
        left[i] = right[i] = (int)(mean_of(d, list[i], above, true) + 0.5);
    for (int i = 1; i < n; i++) {
        const int least = left[i - 1] + distance(&d->slots[list[i - 1]], &d->slots[list[i]]);

        left[i] = left[i] < least ? least : left[i];
    }
    for (int i = n - 2; i >= 0; i--) {
        const int most = right[i + 1] - distance(&d->slots[list[i]], &d->slots[list[i + 1]]);

        right[i] = right[i] > most ? most : right[i];
    }
    for (int i = 0; i < n; i++)
        d->slots[list[i]].x = (left[i] + right[i]) / 2;
    for (int i = 1; i < n; i++) { /* the halves were rounded */
        const int least =
            d->slots[list[i - 1]].x + distance(&d->slots[list[i - 1]], &d->slots[list[i]]);

        if (d->slots[list[i]].x < least)
            d->slots[list[i]].x = least;
    }
    free(left);
    free(right);
}

/* The width, with the leftmost box at column 0. */
static int set_columns(struct drawing *d)
{
    int low = 0, high = 0;

    for (int layer = 0; layer < d->g->layer_count; layer++)
        for (int i = 0, x = 0; i < d->sizes[layer]; i++) {
            struct slot *s = &d->slots[d->layers[layer][i]];

            x = i ? x + distance(&d->slots[d->layers[layer][i - 1]], s) : s->width / 2;
            s->x = x;
        }
    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (int k = 0; k < d->g->layer_count; k++)
            settle_layer(d, sweep % 2 ? d->g->layer_count - 1 - k : k, sweep % 2 == 0);
    for (int i = 0; i < d->slot_count; i++) {
        const struct slot *s = &d->slots[i];

        low = i == 0 || s->x - s->width / 2 < low ? s->x - s->width / 2 : low;
        high = i == 0 || s->x + s->width / 2 + 1 > high ? s->x + s->width / 2 + 1 : high;
    }
    for (int i = 0; i < d->slot_count; i++)
        d->slots[i].x -= low;
    return high - low + 1;
}

/* ---- 4: lines between two layers ---------------------------------------------------------------- */

static bool is_exit(const struct drawing *d, int layer, int column)
{
    for (int i = 0; i < d->sizes[layer]; i++)
        if (d->slots[d->layers[layer][i]].exit == column)
            return true;
    return false;
}

/* The only line into a slot, when it comes from right above. */
static bool is_straight(const struct drawing *d, int slot)
{
    int from = -1, n = 0;

    for (int i = 0; i < d->line_count; i++)
        if (d->lines[i].to == slot) {
            from = d->lines[i].from;
            n++;
        }
    return n == 1 && d->slots[from].exit == d->slots[slot].x;
}

static void set_ports(struct drawing *d, int upper)
{
    for (int i = 0; i < d->sizes[upper]; i++)
        d->slots[d->layers[upper][i]].exit = d->slots[d->layers[upper][i]].x;
    for (int i = 0; i < d->sizes[upper + 1]; i++) {
        const int slot = d->layers[upper + 1][i];
        struct slot *s = &d->slots[slot];

        s->entry = s->x;
        if (is_straight(d, slot))
            continue;
        if (is_exit(d, upper, s->entry))
            s->entry = is_exit(d, upper, s->x + 1) ? s->x - 1 : s->x + 1;
    }
    /* A line that passes goes on where it came in. */
    for (int i = 0; i < d->sizes[upper + 1]; i++)
        if (d->slots[d->layers[upper + 1][i]].node < 0)
            d->slots[d->layers[upper + 1][i]].x = d->slots[d->layers[upper + 1][i]].entry;
}

struct track {
    int slot; /* whose lines it carries */
    int low, high, row;
};

/* One per slot above with a line that is not straight; returns how many rows they take. */
static int set_tracks(const struct drawing *d, int upper, struct track *tracks, int *count)
{
    int rows = 0;

    *count = 0;
    for (int i = 0; i < d->sizes[upper]; i++) {
        const int slot = d->layers[upper][i];
        struct track t = {slot, d->slots[slot].exit, d->slots[slot].exit, 0};
        bool taken = true;

        for (int k = 0; k < d->line_count; k++) {
            const int entry = d->slots[d->lines[k].to].entry;

            if (d->lines[k].from != slot)
                continue;
            t.low = entry < t.low ? entry : t.low;
            t.high = entry > t.high ? entry : t.high;
        }
        if (t.low == t.high)
            continue;
        for (t.row = -1; taken;) {
            t.row++;
            taken = false;
            for (int k = 0; k < *count; k++)
                taken = taken || (tracks[k].row == t.row && tracks[k].low <= t.high + 1 &&
                                  t.low <= tracks[k].high + 1);
        }
        rows = t.row + 1 > rows ? t.row + 1 : rows;
        tracks[(*count)++] = t;
    }
    return rows;
}

/* ---- characters -------------------------------------------------------------------------------- */

enum { UP = 1, DOWN = 2, LEFT = 4, RIGHT = 8 };
static const char *const glyphs[16] = {
    " ",      "\u2575", "\u2577", "\u2502", "\u2574", "\u2518", "\u2510", "\u2524",
    "\u2576", "\u2514", "\u250c", "\u251c", "\u2500", "\u2534", "\u252c", "\u253c",
};

static void print_row(const unsigned char *cells, int width, struct buf *out)
{
    while (width > 0 && cells[width - 1] == 0)
        width--;
    for (int x = 0; x < width; x++)
        buf_str(out, glyphs[cells[x]]);
    buf_char(out, '\n');
}

static void vertical(unsigned char *cells, int width, int x, int from, int to)
{
    for (int row = from; row <= to; row++)
        cells[row * width + x] |= (unsigned char)((row > from ? UP : 0) | (row < to ? DOWN : 0));
}

/* Does a line of the slot enter at this column? */
static bool enters(const struct drawing *d, int slot, int column)
{
    for (int i = 0; i < d->line_count; i++)
        if (d->lines[i].from == slot && d->slots[d->lines[i].to].entry == column)
            return true;
    return false;
}

static void draw_track(const struct drawing *d, const struct track *t, unsigned char *cells,
                       int row)
{
    for (int x = t->low; x <= t->high; x++) {
        unsigned char *c = &cells[row * d->columns + x];
        const bool own = x == d->slots[t->slot].exit || enters(d, t->slot, x);

        if (own || (*c & (UP | DOWN)) == 0)
            *c |= (unsigned char)((x > t->low ? LEFT : 0) | (x < t->high ? RIGHT : 0));
    }
}

/* Rows 0 .. rows + 1: the first leaves the boxes above, the last enters those below. */
static void draw_gap(struct drawing *d, int upper, struct buf *out)
{
    struct track *tracks = mem_zero((size_t)d->sizes[upper], sizeof(*tracks));
    unsigned char *cells;
    int count, rows;

    set_ports(d, upper);
    rows = set_tracks(d, upper, tracks, &count);
    cells = mem_zero((size_t)(rows + 2) * (size_t)d->columns, 1);
    for (int i = 0; i < d->line_count; i++) {
        const struct slot *from = &d->slots[d->lines[i].from], *to = &d->slots[d->lines[i].to];
        int row = rows + 1;

        if (from->layer != upper)
            continue;
        for (int k = 0; k < count; k++)
            row = tracks[k].slot == d->lines[i].from ? tracks[k].row + 1 : row;
        vertical(cells, d->columns, from->exit, 0, row);
        vertical(cells, d->columns, to->entry, row, rows + 1);
    }
    for (int k = 0; k < count; k++)
        draw_track(d, &tracks[k], cells, tracks[k].row + 1);
    for (int row = 1; row <= rows; row++)
        print_row(cells + (size_t)row * (size_t)d->columns, d->columns, out);
    free(cells);
    free(tracks);
}

static bool has_line(const struct drawing *d, int slot, bool above)
{
    for (int i = 0; i < d->line_count; i++)
        if ((above ? d->lines[i].to : d->lines[i].from) == slot)
            return true;
    return false;
}

/* A border of the boxes of a layer, with its ports; passing lines go through. */
static void draw_border(const struct drawing *d, int layer, bool top, struct buf *out)
{
    unsigned char *cells = mem_zero((size_t)d->columns, 1);

    for (int i = 0; i < d->sizes[layer]; i++) {
        const int slot = d->layers[layer][i];
        const struct slot *s = &d->slots[slot];
        const int left = s->x - s->width / 2, right = left + s->width - 1;

        if (s->node < 0) {
            cells[s->x] = UP | DOWN;
            continue;
        }
        for (int x = left; x <= right; x++)
            cells[x] = LEFT | RIGHT;
        cells[left] = (unsigned char)(RIGHT | (top ? DOWN : UP));
        cells[right] = (unsigned char)(LEFT | (top ? DOWN : UP));
        if (top && has_line(d, slot, true))
            cells[s->entry] |= UP;
        if (!top && has_line(d, slot, false))
            cells[s->x] |= DOWN;
    }
    print_row(cells, d->columns, out);
    free(cells);
}

static void draw_labels(const struct drawing *d, int layer, struct buf *out)
{
    int x = 0;

    for (int i = 0; i < d->sizes[layer]; i++) {
        const struct slot *s = &d->slots[d->layers[layer][i]];
        const int left = s->x - s->width / 2;

        for (; x < left; x++)
            buf_char(out, ' ');
        if (s->node < 0)
            buf_str(out, glyphs[UP | DOWN]);
        else if (d->g->nodes[s->node].source)
            buf_printf(out, "( %s )", d->g->nodes[s->node].label);
        else
            buf_printf(out, "%s %s %s", glyphs[UP | DOWN], d->g->nodes[s->node].label,
                       glyphs[UP | DOWN]);
        x += s->width;
    }
    buf_char(out, '\n');
}

/* Edges that would go up or stay in a layer are told in words. */
static void tell_rest(const struct graph *g, struct buf *out)
{
    for (int e = 0; e < g->edge_count; e++)
        if (g->nodes[g->edges[e].from].layer >= g->nodes[g->edges[e].to].layer)
            buf_printf(out, "and instances of %s need %s\n", g->nodes[g->edges[e].to].name,
                       g->nodes[g->edges[e].from].name);
}

bool graph_draw(const struct graph *g, int columns, struct buf *out)
{
    struct drawing d = {.g = g};
    bool fits = start(&d);

    if (fits) {
        order(&d);
        d.columns = set_columns(&d) + 2; /* an entry may stand one column further */
        fits = d.columns <= columns;
    }
    for (int layer = 0; fits && layer < g->layer_count; layer++) {
        if (layer > 0)
            draw_gap(&d, layer - 1, out);
        draw_border(&d, layer, true, out);
        draw_labels(&d, layer, out);
        draw_border(&d, layer, false, out);
    }
    if (fits)
        tell_rest(g, out);
    for (int i = 0; d.layers && i < g->layer_count; i++)
        free(d.layers[i]);
    free(d.layers);
    free(d.sizes);
    free(d.slots);
    free(d.lines);
    return fits;
}
