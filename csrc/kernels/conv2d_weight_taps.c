/* The weight gradient of a convolution whose filter row makes bad vectors (few channels: 3*C = 9 floats say): the vectors lie along
 * the output channels, and each tap of the filter, a column of dw, is a row of a register tile (gemm_taps.h).
 *
 *   part[chunk][group][panel of k][column][k] = sum over the chunk's pixels of x[pixel + tap(column)] * dy[pixel][k]
 *   dw[k][column] = sum over chunks of part
 *
 * and, where dbias is asked for, a last column in each part for which x is 1.
 *
 * Shapes, chunks and what there is to sum: conv2d_backward_weight.c. columns: R*S*C/G, in the order of dw   width: K/G rounded up to
 * whole vectors. workspace: chunks * G * width * (columns + 1) floats, then for each thread of the team workspace_stride >=
 * block_rows * R * strip_row + TAPS_PIXELS * up(min(K/G, panel)) + columns floats, block_rows and strip_row as in plan_blocks.
 *
 * Pixels are found in strips (conv2d_strip.h), which neighbouring output rows share where they can, or in x itself where there is no
 * padding. dy is read in place if a pixel's channels are one panel, else packed in panels.
 *
 * Parallel over (group, chunk, block of output channels, tile of columns).
 * Error bound: gamma_D * sum |dy||x|, D = TAPS_PIXELS + 1 + blocks in a chunk + chunks (scalar: 2*TAPS_PIXELS + ...).
 */
#include "conv2d_weight_taps.h"
#include "conv2d_strip.h"
#include "gemm_taps.h"
#include "partial_sums.h"
#include "pixel_blocks.h"

enum {
    TAPS_PIXELS = FNN_GEMM_COLUMNS <= 16 ? 256 : 192, /* in a block: a panel of dy is half of a first-level cache */
    TAPS_ROW_BLOCK = 256, /* output channels in a unit of work */
    TAPS_STRIP_BLOCK = 96 * 1024 /* floats of strips: a part of the second-level cache */
};

struct weight_taps {
    const struct fnn_conv2d_backward_weight_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_strip strip;
    struct pixel_blocks blocks;
    ptrdiff_t group_channels, group_out_channels, columns, sums, width; /* sums: columns, and 1 for dbias */
    ptrdiff_t rows, row_blocks, tiles; /* output rows; blocks of output channels and tiles of columns in a group */
    bool in_place, shared; /* x is read in place; else, neighbouring output rows share a strip */
    ptrdiff_t part; /* floats of a chunk's */
    float *strips, *copy; /* this thread's; copy: of dy */
    int32_t *taps; /* where each column's tap lies behind a patch's begin */
};

/* A unit of work. */
struct unit {
    ptrdiff_t group;
    struct fnn_range outputs; /* channels, counted within the group */
    struct fnn_range tiles;
    float *sums; /* of the group */
};

/* Memory that will be read soon, asked for step by step. */
struct ahead {
    const char *at, *end;
    ptrdiff_t step; /* bytes */
};

/* A block of pixels, and where their patches begin. What the next one needs of dy and x is asked for meanwhile, a share with each tile. */
struct block {
    struct fnn_range pixels;
    struct ahead dy, x;
    const float *patches[TAPS_PIXELS];
};

/* Whether no patch of any pixel leaves the image, and offsets of taps in it fit 32 bits. */
static bool has_no_padding(const struct conv2d_geometry *g) {
    const ptrdiff_t last_h = (g->out_height - 1) * g->stride_h + (g->kernel_height - 1) * g->dilation_h - g->pad_top;
    const ptrdiff_t last_w = (g->out_width - 1) * g->stride_w + (g->kernel_width - 1) * g->dilation_w - g->pad_left;
    return g->pad_top <= 0 && g->pad_left <= 0 && last_h < g->height && last_w < g->width &&
           g->kernel_height * g->dilation_h * g->width * g->channels < INT32_MAX;
}

/* The shape of strips and blocks. */
static void plan_blocks(struct weight_taps *t) {
    const struct conv2d_geometry *g = &t->geometry;
    t->blocks.width = g->out_width;
    t->blocks.pieces = fnn_max(fnn_ceil_div(g->out_width, TAPS_PIXELS), 1);
    t->strip = conv2d_strip_of(g, t->args->x, t->group_channels);
    const ptrdiff_t longest = pixel_blocks_longest(&t->blocks), strip_row = conv2d_strip_row(&t->strip, longest);
    t->strip.row_stride = strip_row;
    t->blocks.rows = fnn_min(TAPS_PIXELS / longest, TAPS_STRIP_BLOCK / (g->kernel_height * strip_row));
    t->blocks.rows = t->blocks.pieces > 1 ? 1 : fnn_max(t->blocks.rows, 1);
    t->copy = t->strips + t->blocks.rows * g->kernel_height * strip_row;
    t->in_place = has_no_padding(g);
    t->shared = g->dilation_h == 1 && g->stride_h <= g->kernel_height; /* no larger than strips of each row's own */
    if (!t->in_place) return;
    t->strip.pixel_stride = g->channels;
    t->strip.row_stride = g->width * g->channels;
}

/* Where each column's tap lies. */
static void find_taps(const struct weight_taps *t) {
    const struct conv2d_geometry *g = &t->geometry;
    const ptrdiff_t down = t->strip.row_stride * (t->in_place ? g->dilation_h : 1);
    int32_t *to = t->taps;
    for (ptrdiff_t r = 0; r < g->kernel_height; r++)
        for (ptrdiff_t s = 0; s < g->kernel_width; s++)
            for (ptrdiff_t c = 0; c < t->group_channels; c++)
                *to++ = (int32_t)(r * down + s * g->dilation_w * t->strip.pixel_stride + c);
}

/* Finds the patches of a block, row by row of one image after the other; those that share a strip at once. */
static void find_patches(const struct weight_taps *t, ptrdiff_t group, struct block *block) {
    const struct conv2d_geometry *g = &t->geometry;
    const ptrdiff_t count = block->pixels.end - block->pixels.begin, width = fnn_min(g->out_width, count);
    const ptrdiff_t row_stride = t->strip.row_stride, step = g->stride_w * t->strip.pixel_stride;
    const struct fnn_range channels = {group * t->group_channels, (group + 1) * t->group_channels};
    struct conv2d_strip strip = t->strip;
    float *to = t->strips;
    for (ptrdiff_t i = 0; i < count;) {
        const ptrdiff_t q = (block->pixels.begin + i) % g->out_width, row = (block->pixels.begin + i) / g->out_width;
        const ptrdiff_t n = row / g->out_height, p = row % g->out_height;
        const ptrdiff_t h = p * g->stride_h - g->pad_top, w = q * g->stride_w - g->pad_left;
        const ptrdiff_t rows = t->in_place || t->shared ? fnn_min((count - i) / width, g->out_height - p) : 1;
        const float *first = to;
        if (t->in_place) {
            first = t->args->x + (n * g->height + h) * row_stride + w * g->channels + channels.begin;
        } else {
            strip.filter_rows = (rows - 1) * g->stride_h + g->kernel_height;
            conv2d_fill_strip(&strip, n, h, w, channels, width, to);
            to += strip.filter_rows * row_stride;
        }
        for (ptrdiff_t j = 0; j < rows; j++, first += g->stride_h * row_stride) {
            const float *patch = first;
            for (ptrdiff_t end = i + width; i < end; patch += step) block->patches[i++] = patch;
        }
    }
}

/* Channels side by side of a block's dy, those of one register tile. */
struct panel {
    const float *dy;
    ptrdiff_t step, first, columns; /* first: channel of the group */
};

/* Whether dy can be read in place, whole vectors of it: its channels are one panel, and no vector ends behind it. */
static bool reads_in_place(const struct weight_taps *t, const struct unit *unit, const struct block *block) {
    const ptrdiff_t outputs = unit->outputs.end - unit->outputs.begin, all = t->geometry.out_channels;
    const ptrdiff_t first = unit->group * t->group_out_channels + unit->outputs.begin;
    return outputs <= FNN_GEMM_COLUMNS &&
           (block->pixels.end - 1) * all + first + gemm_width(outputs) <= t->rows * t->geometry.out_width * all;
}

/* Copies a panel, pixel by pixel, in whole vectors. */
FNN_INLINE void copy_pixels(const float *dy, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t columns, float *to) {
    for (ptrdiff_t d = 0; d < count; d++, dy += stride)
        for (ptrdiff_t k = 0; k < columns; k += FNN_LANES, to += FNN_LANES)
            vec_store(to, load_lanes(dy + k, lanes_left(columns - k)));
}

/* Finds a panel of a block's dy: in place, or, with `packed`, in a copy. */
static struct panel find_panel(const struct weight_taps *t, const struct unit *unit, const struct block *block,
                               bool packed, ptrdiff_t index) {
    const ptrdiff_t all = t->geometry.out_channels, count = block->pixels.end - block->pixels.begin;
    struct panel panel = {.first = unit->outputs.begin + index * FNN_GEMM_COLUMNS, .step = all};
    panel.columns = fnn_min(unit->outputs.end - panel.first, FNN_GEMM_COLUMNS);
    panel.dy = t->args->dy + block->pixels.begin * all + unit->group * t->group_out_channels + panel.first;
    if (!packed) return panel;
    if (panel.columns == FNN_GEMM_COLUMNS)
        copy_pixels(panel.dy, all, count, FNN_GEMM_COLUMNS, t->copy);
    else
        copy_pixels(panel.dy, all, count, panel.columns, t->copy);
    panel.dy = t->copy;
    panel.step = gemm_width(panel.columns);
    return panel;
}

/* `count` floats of an array of `size` from `first` on, asked for in so many steps. */
static struct ahead ahead_of(const float *array, ptrdiff_t size, ptrdiff_t first, ptrdiff_t count, ptrdiff_t steps) {
    const ptrdiff_t begin = fnn_min(first, size), end = fnn_min(first + count, size), bytes = sizeof *array;
    return (struct ahead){(const char *)(array + begin), (const char *)(array + end),
                          fnn_ceil_div((end - begin) * bytes, steps)};
}

/* What the block after this one reads that this one does not: as many pixels of dy, and the rows of x below those of its last pixel.
 * Groups, whose pixels lie between others, ask for nothing. */
static void find_ahead(const struct weight_taps *t, ptrdiff_t steps, struct block *block) {
    const struct conv2d_geometry *g = &t->geometry;
    const ptrdiff_t count = block->pixels.end - block->pixels.begin, last = fnn_max(block->pixels.end - 1, 0);
    const ptrdiff_t row = last / g->out_width, h = row % g->out_height * g->stride_h - g->pad_top;
    const ptrdiff_t below = h + (g->kernel_height - 1) * g->dilation_h + 1, rows = fnn_ceil_div(count, g->out_width);
    const ptrdiff_t x_row = row / g->out_height * g->height + fnn_max(fnn_min(below, g->height), 0);
    const ptrdiff_t row_floats = g->width * g->channels, wanted = g->groups == 1;
    block->dy = ahead_of(t->args->dy, t->rows * g->out_width * g->out_channels, block->pixels.end * g->out_channels,
                         wanted * count * g->out_channels, steps);
    block->x = ahead_of(t->args->x, g->batch * g->height * row_floats, x_row * row_floats,
                        wanted * rows * g->stride_h * row_floats, steps);
}

/* The next step's bytes. */
static inline ptrdiff_t take_share(struct ahead *ahead, const char **from) {
    const ptrdiff_t bytes = fnn_min(ahead->end - ahead->at, ahead->step);
    *from = ahead->at;
    ahead->at += bytes;
    return bytes;
}

/* Asks for this tile's share: what it is of x at once, what it is of dy while the tile runs. */
static void fetch_share(struct block *block, struct gemm_taps *tile) {
    enum { LINE = 64 };
    const char *x, *dy;
    for (ptrdiff_t left = take_share(&block->x, &x); left > 0; left -= LINE, x += LINE) __builtin_prefetch(x, 0, 2);
    tile->fetch_step = fnn_ceil_div(take_share(&block->dy, &dy), fnn_max(tile->depth, 1));
    tile->fetch = (uintptr_t)dy;
}

/* The unit's tiles of columns by one panel of a block. */
static void multiply_panel(const struct weight_taps *t, const struct unit *unit, const struct panel *panel, bool first,
                           struct block *block) {
    const ptrdiff_t rows = t->sums / t->tiles, higher = t->sums % t->tiles;
    struct gemm_taps tile = {
        .a = block->patches,
        .b = panel->dy,
        .b_step = panel->step,
        .depth = block->pixels.end - block->pixels.begin,
        .columns = panel->columns,
        .y_stride = gemm_width(panel->columns),
        .accumulate = !first,
    };
    float *sums = unit->sums + panel->first * t->sums;
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++) {
        const ptrdiff_t column = i * rows + fnn_min(i, higher);
        tile.taps = t->taps + column;
        tile.tap_count = rows + (i < higher);
        tile.y = sums + column * tile.y_stride;
        tile.ones = column + tile.tap_count > t->columns;
        fetch_share(block, &tile);
        FNN_FUNCTION(gemm_taps)(&tile);
    }
}

/* Everything that a unit gets from one block. */
static void add_block(const struct weight_taps *t, const struct unit *unit, bool first, struct block *block) {
    const ptrdiff_t panels = gemm_panels(unit->outputs.end - unit->outputs.begin);
    const bool packed = !reads_in_place(t, unit, block);
    find_ahead(t, panels * (unit->tiles.end - unit->tiles.begin), block);
    find_patches(t, unit->group, block);
    for (ptrdiff_t j = 0; j < panels; j++) {
        const struct panel panel = find_panel(t, unit, block, packed, j);
        multiply_panel(t, unit, &panel, first, block);
    }
}

/* Tiles of one (group, chunk, block of output channels), over all pixels of the chunk. */
static void run_unit(const struct weight_taps *t, ptrdiff_t index, struct fnn_range tiles) {
    const ptrdiff_t chunks = t->args->chunks, row_block = index % t->row_blocks, chunk = index / t->row_blocks % chunks;
    struct unit unit = {.group = index / t->row_blocks / chunks, .tiles = tiles};
    /* in whole panels */
    const ptrdiff_t panels = gemm_panels(t->group_out_channels);
    unit.outputs.begin = row_block * panels / t->row_blocks * FNN_GEMM_COLUMNS;
    unit.outputs.end = fnn_min((row_block + 1) * panels / t->row_blocks * FNN_GEMM_COLUMNS, t->group_out_channels);
    unit.sums = t->args->workspace + chunk * t->part + unit.group * t->sums * t->width;
    const struct fnn_range rows = {chunk * t->rows / chunks, (chunk + 1) * t->rows / chunks};
    const ptrdiff_t blocks = pixel_blocks_of(&t->blocks, rows);
    struct block block;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        block.pixels = pixel_block_at(&t->blocks, rows, i, blocks);
        add_block(t, &unit, i == 0, &block);
    }
}

/* Adds the chunks' parts and turns them, some columns of a panel at a time. */
static void combine(const struct weight_taps *t, const struct fnn_team *team) {
    const struct fnn_conv2d_backward_weight_args *args = t->args;
    const ptrdiff_t squares = fnn_ceil_div(t->columns, FNN_LANES), outputs = t->group_out_channels;
    const ptrdiff_t panels = gemm_panels(outputs);
    fnn_barrier(team);
    const struct fnn_range range = fnn_share(t->geometry.groups * panels * squares, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t group = i / squares / panels, panel = i / squares % panels, first = panel * FNN_GEMM_COLUMNS;
        const ptrdiff_t width = gemm_panel_columns(outputs, panel);
        add_padded_parts_transposed(args->workspace + (group * t->width + first) * t->sums, args->chunks, t->part,
                                    gemm_width(width), t->columns, width, i % squares * FNN_LANES,
                                    args->dw + (group * outputs + first) * t->columns);
    }
    if (!args->dbias || team->rank != team->size - 1) return;
    for (ptrdiff_t i = 0; i < t->geometry.groups * panels; i++) {
        const ptrdiff_t group = i / panels, first = i % panels * FNN_GEMM_COLUMNS;
        const ptrdiff_t width = gemm_panel_columns(outputs, i % panels);
        add_parts(args->workspace + (group * t->width + first) * t->sums + t->columns * gemm_width(width), args->chunks,
                  t->part, (struct fnn_range){0, width}, args->dbias + group * outputs + first);
    }
}

void FNN_FUNCTION(conv2d_weight_taps)(const struct fnn_conv2d_backward_weight_args *args, const struct fnn_team *team) {
    struct weight_taps t = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &t.geometry;
    t.group_channels = g->channels / g->groups;
    t.group_out_channels = g->out_channels / g->groups;
    t.columns = g->kernel_height * g->kernel_width * t.group_channels;
    t.width = gemm_width(t.group_out_channels);
    t.rows = g->batch * g->out_height;
    t.row_blocks = fnn_ceil_div(t.group_out_channels, TAPS_ROW_BLOCK);
    t.sums = t.columns + (args->dbias != NULL);
    t.tiles = fnn_ceil_div(t.sums, FNN_GEMM_ROWS);
    t.part = g->groups * t.width * t.sums;
    t.strips = args->workspace + args->chunks * t.part + team->rank * args->workspace_stride;
    plan_blocks(&t);
    t.taps = (int32_t *)(void *)(t.copy + TAPS_PIXELS * fnn_min(t.width, FNN_GEMM_COLUMNS));
    find_taps(&t);

    const ptrdiff_t count = g->groups * args->chunks * t.row_blocks * t.tiles;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(count, fnn_whole_units(count, t.tiles, team), team); fnn_take(&work, &range);)
        while (range.begin < range.end) {
            const ptrdiff_t unit = range.begin / t.tiles, tile = range.begin % t.tiles;
            const ptrdiff_t end = fnn_min(tile + range.end - range.begin, t.tiles);
            run_unit(&t, unit, (struct fnn_range){tile, end});
            range.begin += end - tile;
        }
    combine(&t, team);
}
