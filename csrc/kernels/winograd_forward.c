/* Winograd convolution forward: y = activation(conv(x, w) + bias + residual), 3x3, stride 1; formula and layouts in winograd.h.
 *
 * x N,H,W,C   weight: see weight_form (enum winograd_form)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing. P <= H + 4 - 2 and so on: any padding from 0 to 2 on each side.
 * The gradient of the input is this kernel on dy (height and width are P and Q, out_height and out_width H and W,
 * channels and out_channels exchanged, padding 2 - pad_top and 2 - pad_left) with weights of the backward form.
 *
 * tile: 4 or 2. A block of `block` tiles goes through three stages: V of its patches; for each group of 64 output channels and
 * 56 tiles the products of all planes; their outputs. With `shared` the whole team works on one block, with a barrier between
 * the first two stages; else each thread works on blocks of its own, and block <= 56.
 * workspace: with V = block * (planes * roundup(C, lanes) + lanes), M = min(block, 56) * (planes * 64 + lanes), and
 * U = planes * 64 * 64 if weight_form is not WINOGRAD_PACKED, else 0:
 *   shared: V + team size * (M + U) floats; else team size * (V + M + U). Its contents do not matter.
 *
 * Parallel over blocks of tiles, or over (tiles, channels) and then over (groups of tiles, groups of output channels). The sum of
 * an element runs over c in order whatever the block, the weight form and the team: the bits depend on `tile` alone.
 * Error bound: winograd.h.
 */
#include "winograd_patch.h"
#include "winograd_weight.h"

enum { CHANNEL_BLOCK = 128 }; /* channels of a patch that one thread transforms, when the team shares a block */

struct forward;
struct unit;

/* The stages for one size of tiles. */
struct stages {
    void (*transform_inputs)(const struct forward *f, ptrdiff_t block_begin, struct fnn_range tiles,
                             struct fnn_range channels);
    void (*transform_filters)(const struct forward *f, const struct unit *unit, struct fnn_range depth);
    void (*transform_outputs)(const struct forward *f, const struct unit *unit);
};

struct forward {
    const struct fnn_winograd_forward_args *args;
    const struct stages *stages;
    struct winograd_shape shape;
    enum winograd_form form;
    ptrdiff_t channels, out_channels;
    ptrdiff_t width, tile_stride; /* of V */
    ptrdiff_t group_columns;      /* columns of M, at most */
    float *patches;               /* V */
    float *products;              /* M: this thread's */
    float *filters;               /* U: this thread's, when it is made on the way */
};

/* Stage 1: V of tiles [tiles.begin, tiles.end), of which patches + 0 is the first of the block. */
FNN_INLINE void transform_inputs(const struct forward *f, int m, ptrdiff_t block_begin, struct fnn_range tiles,
                                 struct fnn_range channels) {
    const struct fnn_winograd_forward_args *args = f->args;
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++) {
        const struct winograd_tile tile = winograd_tile_at(&f->shape, i);
        struct winograd_patch patch;
        winograd_find_patch(args->x, tile.image, args->height, args->width, f->channels, tile.row * m - args->pad_top,
                            tile.column * m - args->pad_left, m + 2, &patch);
        float *v = f->patches + (i - block_begin) * f->tile_stride;
        if (patch.interior)
            winograd_transform_patch(&patch, winograd_input, m, m + 2, m + 2, true, channels, f->width, v);
        else
            winograd_transform_patch(&patch, winograd_input, m, m + 2, m + 2, false, channels, f->width, v);
    }
}

/* A unit of stages 2 and 3. */
struct unit {
    const float *patches;       /* V of its first tile */
    struct fnn_range tiles;
    ptrdiff_t first, columns;   /* of the output channels */
    ptrdiff_t width, stride;    /* of M: columns rounded up, and from a tile to the next */
};

/* M += V U for one plane, one panel, steps `depth` of the sum. */
static void multiply_panel(const struct forward *f, const struct unit *unit, ptrdiff_t plane, const float *panel,
                           ptrdiff_t column, struct fnn_range depth, struct gemm_tile *tile) {
    const ptrdiff_t count = unit->tiles.end - unit->tiles.begin, parts = fnn_ceil_div(count, FNN_GEMM_ROWS);
    tile->runs = 1;
    tile->step[0] = 0;
    tile->depth = depth.end - depth.begin;
    tile->panel = panel;
    tile->columns = fnn_min(unit->width - column, FNN_GEMM_COLUMNS);
    tile->accumulate = depth.begin > 0;
    for (ptrdiff_t part = 0; part < parts; part++) {
        const ptrdiff_t begin = part * count / parts;
        tile->row_count = (part + 1) * count / parts - begin;
        tile->y = f->products + begin * unit->stride + plane * unit->width + column;
        const float *row = unit->patches + begin * f->tile_stride + plane * f->width + depth.begin;
        for (ptrdiff_t i = 0; i < tile->row_count; i++) {
            tile->rows[0][i] = row + i * f->tile_stride;
            tile->offset[i] = i * unit->stride;
        }
        FNN_FUNCTION(gemm_tile)(tile);
    }
}

/* U of one unit, steps `depth` of the sum: plane, panel, step, width. */
FNN_INLINE void transform_filters(const struct forward *f, int m, const struct unit *unit, struct fnn_range depth) {
    const ptrdiff_t steps = depth.end - depth.begin;
    for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t columns = fnn_min(unit->columns - j, FNN_GEMM_COLUMNS);
        const struct winograd_weight weight =
            winograd_weight(f->args->weight, f->form, f->out_channels, f->channels, gemm_width(columns));
        winograd_transform_panel(&weight, m, unit->first + j, columns, depth, steps * unit->width, f->filters + j * steps);
    }
}

/* Stage 2: M of one unit. */
static void multiply(const struct forward *f, const struct unit *unit) {
    const bool packed = f->form == WINOGRAD_PACKED;
    const ptrdiff_t chunk = packed ? GEMM_DEPTH : WINOGRAD_DEPTH, out_channels = f->out_channels;
    struct gemm_tile tile = {.activation = FNN_ACTIVATION_NONE};
    for (ptrdiff_t c = 0; c < f->channels; c += chunk) {
        const struct fnn_range depth = {c, fnn_min(c + chunk, f->channels)};
        const ptrdiff_t steps = packed ? f->channels : depth.end - c;
        const ptrdiff_t plane_stride = packed ? gemm_packed_size(out_channels, steps) : steps * unit->width;
        if (!packed) f->stages->transform_filters(f, unit, depth);
        for (ptrdiff_t p = 0; p < f->shape.planes; p++) {
            for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
                const ptrdiff_t width = fnn_min(unit->width - j, FNN_GEMM_COLUMNS);
                const float *panel = packed ? f->args->weight + p * plane_stride + (unit->first + j) * steps + c * width
                                            : f->filters + p * plane_stride + j * steps;
                multiply_panel(f, unit, p, panel, j, depth, &tile);
            }
        }
    }
}

/* The m x m outputs of one vector of channels of one tile, as far as they exist. at: element (0, 0) of the tile in y. */
FNN_INLINE void store_outputs(const struct forward *f, int m, const vec *outputs, ptrdiff_t at, ptrdiff_t k, ptrdiff_t rows,
                              ptrdiff_t columns, ptrdiff_t lanes) {
    const struct fnn_winograd_forward_args *args = f->args;
    const vec bias = args->bias ? load_lanes(args->bias + k, lanes) : vec_zero();
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        if (i >= rows) break;
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) {
            if (j >= columns) break;
            const ptrdiff_t to = at + (i * args->out_width + j) * f->out_channels + k;
            vec y = args->bias ? vec_add(outputs[i * m + j], bias) : outputs[i * m + j];
            if (args->residual) y = vec_add(y, load_lanes(args->residual + to, lanes));
            store_lanes(args->y + to, gemm_activate(y, (enum fnn_activation)args->activation), lanes);
        }
    }
}

/* Stage 3: y of one unit. */
FNN_INLINE void transform_outputs(const struct forward *f, int m, const struct unit *unit) {
    const struct fnn_winograd_forward_args *args = f->args;
    const int patch = m + 2;
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++) {
        const struct winograd_tile tile = winograd_tile_at(&f->shape, i);
        const ptrdiff_t row = tile.row * m, column = tile.column * m;
        const ptrdiff_t at = ((tile.image * args->out_height + row) * args->out_width + column) * f->out_channels;
        const float *products = f->products + (i - unit->tiles.begin) * unit->stride;
        for (ptrdiff_t j = 0; j < unit->columns; j += FNN_LANES) {
            vec planes[WINOGRAD_PLANES], outputs[WINOGRAD_PLANES];
#pragma GCC unroll 36
            for (int p = 0; p < patch * patch; p++) planes[p] = vec_load(products + p * unit->width + j);
            winograd_map_square(winograd_output, m, patch, m, planes, outputs);
            store_outputs(f, m, outputs, at, unit->first + j, args->out_height - row, args->out_width - column,
                          lanes_left(unit->columns - j));
        }
    }
}

static void run_unit(const struct forward *f, ptrdiff_t block_begin, struct fnn_range tiles, ptrdiff_t first) {
    struct unit unit = {.tiles = tiles, .first = first};
    unit.patches = f->patches + (tiles.begin - block_begin) * f->tile_stride;
    unit.columns = fnn_min(f->out_channels - first, f->group_columns);
    unit.width = gemm_width(unit.columns);
    unit.stride = winograd_tile_stride(&f->shape, unit.width);
    multiply(f, &unit);
    f->stages->transform_outputs(f, &unit);
}

/* The whole team works on one block after the other. */
static void run_shared(struct forward *f, const struct fnn_team *team) {
    const ptrdiff_t block = f->args->block, channel_blocks = fnn_ceil_div(f->channels, CHANNEL_BLOCK);
    for (ptrdiff_t begin = 0; begin < f->shape.tiles; begin += block) {
        const ptrdiff_t count = fnn_min(f->shape.tiles - begin, block);
        const ptrdiff_t tile_groups = fnn_ceil_div(count, WINOGRAD_GROUP_TILES);
        if (begin > 0) fnn_barrier(team);
        struct fnn_range range = fnn_share(count * channel_blocks, team);
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const ptrdiff_t tile = begin + i / channel_blocks, c = i % channel_blocks * CHANNEL_BLOCK;
            f->stages->transform_inputs(f, begin, (struct fnn_range){tile, tile + 1},
                                        (struct fnn_range){c, fnn_min(c + CHANNEL_BLOCK, f->channels)});
        }
        fnn_barrier(team);
        /* Few units: smaller ones. No sum is cut. */
        const bool few = tile_groups * fnn_ceil_div(f->out_channels, WINOGRAD_GROUP_COLUMNS) < 4 * team->size;
        f->group_columns = few ? FNN_GEMM_COLUMNS : WINOGRAD_GROUP_COLUMNS;
        range = fnn_share(tile_groups * fnn_ceil_div(f->out_channels, f->group_columns), team);
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const ptrdiff_t group = i % tile_groups, k = i / tile_groups * f->group_columns;
            const struct fnn_range tiles = {begin + group * count / tile_groups, begin + (group + 1) * count / tile_groups};
            run_unit(f, begin, tiles, k);
        }
    }
}

/* Each thread works on blocks of its own, cut evenly. */
static void run_alone(const struct forward *f, const struct fnn_team *team) {
    const ptrdiff_t tiles = f->shape.tiles, blocks = fnn_ceil_div(tiles, f->args->block);
    struct fnn_range range = fnn_share(blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const struct fnn_range block = {i * tiles / blocks, (i + 1) * tiles / blocks};
        f->stages->transform_inputs(f, block.begin, block, (struct fnn_range){0, f->channels});
        for (ptrdiff_t k = 0; k < f->out_channels; k += f->group_columns) run_unit(f, block.begin, block, k);
    }
}

static void transform_inputs_4(const struct forward *f, ptrdiff_t begin, struct fnn_range tiles, struct fnn_range channels) {
    transform_inputs(f, 4, begin, tiles, channels);
}
static void transform_inputs_2(const struct forward *f, ptrdiff_t begin, struct fnn_range tiles, struct fnn_range channels) {
    transform_inputs(f, 2, begin, tiles, channels);
}
static void transform_filters_4(const struct forward *f, const struct unit *unit, struct fnn_range depth) {
    transform_filters(f, 4, unit, depth);
}
static void transform_filters_2(const struct forward *f, const struct unit *unit, struct fnn_range depth) {
    transform_filters(f, 2, unit, depth);
}
static void transform_outputs_4(const struct forward *f, const struct unit *unit) { transform_outputs(f, 4, unit); }
static void transform_outputs_2(const struct forward *f, const struct unit *unit) { transform_outputs(f, 2, unit); }

static const struct stages stages_4 = {transform_inputs_4, transform_filters_4, transform_outputs_4};
static const struct stages stages_2 = {transform_inputs_2, transform_filters_2, transform_outputs_2};

void FNN_FUNCTION(winograd_forward)(const struct fnn_winograd_forward_args *args, const struct fnn_team *team) {
    struct forward f = {.args = args, .form = (enum winograd_form)args->weight_form};
    f.stages = args->tile == 4 ? &stages_4 : &stages_2;
    f.shape = winograd_shape(args->tile, args->batch, args->out_height, args->out_width);
    f.channels = args->channels;
    f.out_channels = args->out_channels;
    f.width = gemm_width(args->channels);
    f.tile_stride = winograd_tile_stride(&f.shape, f.width);
    f.group_columns = WINOGRAD_GROUP_COLUMNS;
    const ptrdiff_t patches = args->block * f.tile_stride;
    const ptrdiff_t products = fnn_min(args->block, WINOGRAD_GROUP_TILES) *
                               winograd_tile_stride(&f.shape, WINOGRAD_GROUP_COLUMNS);
    const ptrdiff_t filters = f.form == WINOGRAD_PACKED ? 0 : f.shape.planes * WINOGRAD_GROUP_COLUMNS * WINOGRAD_DEPTH;
    const ptrdiff_t each = products + filters + (args->shared ? 0 : patches);
    float *own = args->workspace + (args->shared ? patches : 0) + team->rank * each;
    f.products = own;
    f.filters = own + products;
    f.patches = args->shared ? args->workspace : own + products + filters;
    if (args->shared) run_shared(&f, team);
    else run_alone(&f, team);
}
