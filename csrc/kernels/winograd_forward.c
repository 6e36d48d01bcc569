/* Winograd convolution forward: y = activation(conv(x, w) + bias + residual), r x r taps, stride 1; see winograd.h.
 *
 * x N,H,W,C   weight: see weight_form (enum winograd_form)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing. P <= H + r - 1 and so on: any padding from 0 to r-1 on each side.
 * With `pool` y is the maxima of 2 x 2 pixels, windows side by side: N,floor(P/2),floor(Q/2),K; residual is null then. The first
 * of equal ones wins, NaN is the largest: the bits are those of max_pool2d_forward on the convolution's result.
 * The gradient of the input is this kernel on dy (height and width are P and Q, out_height and out_width H and W,
 * channels and out_channels exchanged, padding r-1 - pad_top and r-1 - pad_left) with weights of the backward form.
 *
 * kernel_size: r, 3 or 5; tile: 4 or 2 if r = 3, else 2. A block of `block` tiles goes through three stages: V of its
 * patches; for each group of 64 output channels and 70 tiles the products of all planes; their outputs. With `shared` the whole
 * team works on one block, with a barrier between the first two stages, in smaller groups where there would be too few for it;
 * else each thread works on blocks of its own, and block <= 70.
 * workspace: with V = planes * ceil(C / 64) * (block * min(64, roundup(C, lanes)) + 16), M = min(block, 70) * (planes * 64 + 16),
 * and U = planes * 64 / gemm_columns * (64 * gemm_columns + 16) if weight_form is not WINOGRAD_PACKED, else 0:
 *   shared: V + team size * (M + U) floats; else team size * (V + M + U). Its contents do not matter.
 *
 * Parallel over blocks of tiles, or over (tiles, channels) and then over (groups of tiles, groups of output channels). The sum of
 * an element runs over c in order whatever the block, the weight form and the team: the bits depend on `tile` alone.
 * Error bound: winograd.h.
 */
#include "winograd_gemm.h"
#include "winograd_patch.h"
#include "winograd_weight.h"

struct forward;
struct unit;

/* The stages for one size of tiles and filters. */
struct stages {
    void (*transform_inputs)(const struct forward *f, ptrdiff_t block_begin, struct fnn_range tiles, ptrdiff_t chunk);
    void (*transform_filters)(const struct forward *f, const struct unit *unit, ptrdiff_t chunk);
    void (*transform_outputs)(const struct forward *f, const struct unit *unit);
};

struct forward {
    const struct fnn_winograd_forward_args *args;
    const struct stages *stages;
    struct winograd_shape shape;
    enum winograd_form form;
    ptrdiff_t channels, out_channels;
    struct winograd_patches layout; /* of V */
    ptrdiff_t group_columns; /* columns of M, at most */
    float *patches; /* V */
    float *products; /* M: this thread's */
    float *filters; /* U: this thread's, when it is made on the way */
};

/* Stage 1: one chunk of V, of tiles [tiles.begin, tiles.end) in the block that begins at block_begin. */
FNN_INLINE void transform_inputs(const struct forward *f, int m, int r, ptrdiff_t block_begin, struct fnn_range tiles,
                                 ptrdiff_t chunk) {
    const struct fnn_winograd_forward_args *args = f->args;
    const ptrdiff_t c = chunk * WINOGRAD_DEPTH, channels = fnn_min(f->channels - c, WINOGRAD_DEPTH);
    const int size = m + r - 1;
    struct winograd_tile tile = winograd_tile_at(&f->shape, tiles.begin);
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        struct winograd_patch patch;
        winograd_find_patch(args->x, tile.image, args->height, args->width, f->channels, tile.row * m - args->pad_top,
                            tile.column * m - args->pad_left, size, &patch);
        float *v = f->patches + chunk * f->layout.chunk_stride + (i - block_begin) * f->layout.width;
        if (patch.interior)
            winograd_transform_patch(&patch, winograd_input, m, r, size, size, true, c, channels,
                                     f->layout.plane_stride, v);
        else
            winograd_transform_patch(&patch, winograd_input, m, r, size, size, false, c, channels,
                                     f->layout.plane_stride, v);
    }
}

/* A unit of stages 2 and 3. */
struct unit {
    const float *patches; /* V of its first tile */
    struct fnn_range tiles;
    ptrdiff_t first, columns; /* of the output channels */
    ptrdiff_t width, stride; /* of M: columns rounded up, and from a tile to the next */
};

/* Channels that are multiplied in one go: `runs` chunks of `depth`, from chunk `first` on. */
struct steps {
    ptrdiff_t first, runs, depth;
};

/* M += V U for one plane and one panel, whose channels begin with those of the steps; panel_stride: to that of the next plane.
 * Rows are cut evenly: some register tiles have one less. */
static void multiply_panel(const struct forward *f, const struct unit *unit, const struct steps *steps, ptrdiff_t plane,
                           const float *panel, ptrdiff_t panel_stride, ptrdiff_t column) {
    const ptrdiff_t count = unit->tiles.end - unit->tiles.begin, parts = fnn_ceil_div(count, FNN_GEMM_ROWS);
    const ptrdiff_t rows = fnn_ceil_div(count, parts), full = parts - (parts * rows - count);
    const struct winograd_patches *layout = &f->layout;
    struct winograd_gemm tile = {
        .v = unit->patches + steps->first * layout->chunk_stride + plane * layout->plane_stride,
        .u = panel,
        .m = f->products + plane * unit->width + column,
        .row_stride = layout->width,
        .run_stride = layout->chunk_stride,
        .m_stride = unit->stride,
        .tiles = full,
        .rows = rows,
        .columns = fnn_min(unit->width - column, FNN_GEMM_COLUMNS),
        .runs = steps->runs,
        .depth = steps->depth,
        .accumulate = steps->first > 0,
    };
    tile.next_u_step = fnn_ceil_div(tile.columns, parts);
    tile.next_v = (uintptr_t)tile.v + (size_t)layout->plane_stride * sizeof(float);
    tile.next_u = (uintptr_t)panel + (size_t)panel_stride * sizeof(float);
    FNN_FUNCTION(winograd_gemm)(&tile);
    if (full == parts) return;
    const ptrdiff_t done = full * rows;
    tile.v += done * layout->width;
    tile.m += done * unit->stride;
    tile.next_v += (size_t)(done * layout->width) * sizeof(float);
    tile.next_u += (size_t)(full * tile.runs * tile.depth * tile.next_u_step) * sizeof(float);
    tile.tiles = parts - full;
    tile.rows--;
    FNN_FUNCTION(winograd_gemm)(&tile);
}

/* U of one unit and one chunk. */
FNN_INLINE void transform_filters(const struct forward *f, int m, int r, const struct unit *unit, ptrdiff_t chunk) {
    const ptrdiff_t c = chunk * WINOGRAD_DEPTH;
    const struct fnn_range depth = {c, fnn_min(c + WINOGRAD_DEPTH, f->channels)};
    for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t columns = fnn_min(unit->columns - j, FNN_GEMM_COLUMNS), width = gemm_width(columns);
        const struct winograd_weight weight =
            winograd_weight(f->args->weight, f->form, r * r, f->out_channels, f->channels, width);
        winograd_transform_panel(&weight, m, r, unit->first + j, columns, depth,
                                 winograd_plane_stride(depth.end - c, width),
                                 f->filters + winograd_panel_offset(f->shape.planes, depth.end - c, j));
    }
}

/* Stage 2: M of one unit. */
static void multiply(const struct forward *f, const struct unit *unit) {
    const bool packed = f->form == WINOGRAD_PACKED;
    const ptrdiff_t whole = f->channels / WINOGRAD_DEPTH, chunks = fnn_ceil_div(f->channels, WINOGRAD_DEPTH);
    for (struct steps steps = {0}; steps.first < chunks; steps.first += steps.runs) {
        const ptrdiff_t c = steps.first * WINOGRAD_DEPTH;
        steps.runs = packed ? fnn_max(whole - steps.first, 1) : 1;
        steps.depth = fnn_min(f->channels - c, WINOGRAD_DEPTH);
        if (!packed) f->stages->transform_filters(f, unit, steps.first);
        const float *filters = packed ? f->args->weight : f->filters;
        const ptrdiff_t first = packed ? unit->first : 0, depth = packed ? f->channels : steps.depth;
        for (ptrdiff_t p = 0; p < f->shape.planes; p++) {
            for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
                const ptrdiff_t width = fnn_min(unit->width - j, FNN_GEMM_COLUMNS);
                const ptrdiff_t stride = winograd_plane_stride(depth, width);
                const float *panel = filters + winograd_panel_offset(f->shape.planes, depth, first + j) + p * stride +
                                     (packed ? c * width : 0);
                multiply_panel(f, unit, &steps, p, panel, stride, j);
            }
        }
    }
}

/* One row of a tile's outputs, a vector of channels, as far as they exist. at: its first element in y. */
FNN_INLINE void store_outputs(const struct forward *f, int m, const vec *outputs, ptrdiff_t at, ptrdiff_t columns,
                              ptrdiff_t lanes, vec bias) {
    const struct fnn_winograd_forward_args *args = f->args;
#pragma GCC unroll 4
    for (int j = 0; j < m; j++, at += f->out_channels) {
        if (j >= columns) break;
        vec y = args->bias ? vec_add(outputs[j], bias) : outputs[j];
        if (args->residual) y = vec_add(y, load_lanes(args->residual + at, lanes));
        store_lanes(args->y + at, gemm_activate(y, (enum fnn_activation)args->activation), lanes);
    }
}

/* Likewise a whole row of whole vectors: what is done to all of them is asked once. */
FNN_INLINE void store_row(const struct forward *f, int m, const vec *outputs, ptrdiff_t at, vec bias) {
    const struct fnn_winograd_forward_args *args = f->args;
    vec y[WINOGRAD_PATCH];
#pragma GCC unroll 4
    for (int j = 0; j < m; j++) y[j] = args->bias ? vec_add(outputs[j], bias) : outputs[j];
    if (args->residual) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) y[j] = vec_add(y[j], vec_load(args->residual + at + j * f->out_channels));
    }
    if (args->activation != FNN_ACTIVATION_NONE) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) y[j] = gemm_activate(y[j], (enum fnn_activation)args->activation);
    }
#pragma GCC unroll 4
    for (int j = 0; j < m; j++) vec_store(args->y + at + j * f->out_channels, y[j]);
}

/* The larger one; best if they are equal; NaN if one is. */
FNN_INLINE vec larger(vec best, vec seen) { return vec_select(vec_is_nan(seen), seen, vec_max(seen, best)); }

/* Likewise the maxima of each two columns of two rows. */
FNN_INLINE void store_maxima(const struct forward *f, int m, const vec *upper, const vec *lower, ptrdiff_t at,
                             ptrdiff_t columns, ptrdiff_t lanes, vec bias) {
    const struct fnn_winograd_forward_args *args = f->args;
#pragma GCC unroll 2
    for (int j = 0; j < m; j += 2, at += f->out_channels) {
        if (j + 1 >= columns) break;
        vec window[4] = {upper[j], upper[j + 1], lower[j], lower[j + 1]};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (args->bias) window[i] = vec_add(window[i], bias);
            window[i] = gemm_activate(window[i], (enum fnn_activation)args->activation);
        }
        store_lanes(args->y + at, larger(larger(larger(window[0], window[1]), window[2]), window[3]), lanes);
    }
}

/* A^T M of one tile and one vector of channels: half[row][column]. */
FNN_INLINE void transform_columns(const float *from, ptrdiff_t width, int m, int r, vec half[][WINOGRAD_PATCH]) {
    const int patch = m + r - 1;
#pragma GCC unroll 6
    for (int q = 0; q < patch; q++, from += width) {
        vec planes[WINOGRAD_PATCH], mapped[WINOGRAD_PATCH];
#pragma GCC unroll 6
        for (int p = 0; p < patch; p++) planes[p] = vec_load(from + p * patch * width);
        winograd_output(m, r, planes, mapped);
#pragma GCC unroll 4
        for (int p = 0; p < m; p++) half[p][q] = mapped[p];
    }
}

/* Stage 3: y of one unit. step: pixels of the convolution for one of y, in each direction. */
FNN_INLINE void transform_outputs(const struct forward *f, int m, int r, int step, const struct unit *unit) {
    const struct fnn_winograd_forward_args *args = f->args;
    const ptrdiff_t row_stride = args->out_width / step * f->out_channels;
    vec half[WINOGRAD_PATCH][WINOGRAD_PATCH], rows[2][WINOGRAD_PATCH];
    struct winograd_tile tile = winograd_tile_at(&f->shape, unit->tiles.begin);
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        const ptrdiff_t row = tile.row * m, column = tile.column * m;
        const ptrdiff_t corner = (tile.image * (args->out_height / step) + row / step) * row_stride +
                                 column / step * f->out_channels + unit->first;
        const ptrdiff_t count = fnn_min(args->out_height - row, m), columns = args->out_width - column;
        for (ptrdiff_t k = 0; k < unit->columns; k += FNN_LANES) {
            const ptrdiff_t lanes = lanes_left(unit->columns - k);
            const vec bias = args->bias ? load_lanes(args->bias + unit->first + k, lanes) : vec_zero();
            transform_columns(f->products + (i - unit->tiles.begin) * unit->stride + k, unit->width, m, r, half);
            ptrdiff_t at = corner + k;
#pragma GCC unroll 4
            for (ptrdiff_t p = 0; p + step <= count; p += step, at += row_stride) {
                winograd_output(m, r, half[p], rows[0]);
                if (step == 2) winograd_output(m, r, half[p + 1], rows[1]);
                if (step == 1 && columns >= m && lanes == FNN_LANES)
                    store_row(f, m, rows[0], at, bias);
                else if (step == 2)
                    store_maxima(f, m, rows[0], rows[1], at, columns, lanes, bias);
                else
                    store_outputs(f, m, rows[0], at, columns, lanes, bias);
            }
        }
    }
}

static void run_unit(const struct forward *f, ptrdiff_t block_begin, struct fnn_range tiles, ptrdiff_t first) {
    struct unit unit = {.tiles = tiles, .first = first};
    unit.patches = f->patches + (tiles.begin - block_begin) * f->layout.width;
    unit.columns = fnn_min(f->out_channels - first, f->group_columns);
    unit.width = gemm_width(unit.columns);
    unit.stride = winograd_tile_stride(&f->shape, unit.width);
    multiply(f, &unit);
    f->stages->transform_outputs(f, &unit);
}

/* The whole team works on one block after the other. */
static void run_shared(struct forward *f, const struct fnn_team *team) {
    const ptrdiff_t block = f->args->block, chunks = fnn_ceil_div(f->channels, WINOGRAD_DEPTH);
    for (ptrdiff_t begin = 0; begin < f->shape.tiles; begin += block) {
        const ptrdiff_t count = fnn_min(f->shape.tiles - begin, block);
        ptrdiff_t tile_groups = fnn_ceil_div(count, WINOGRAD_GROUP_TILES);
        if (begin > 0) fnn_barrier(team);
        struct fnn_range range;
        for (struct fnn_work work = fnn_work(count * chunks, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t i = range.begin, end; i < range.end; i = end) {
                const ptrdiff_t chunk = i / count, first = begin - chunk * count;
                end = fnn_min((chunk + 1) * count, range.end);
                f->stages->transform_inputs(f, begin, (struct fnn_range){first + i, first + end}, chunk);
            }
        fnn_barrier(team);
        /* Few units: smaller ones. No sum is cut. */
        const bool few = tile_groups * fnn_ceil_div(f->out_channels, WINOGRAD_GROUP_COLUMNS) < 4 * team->size;
        f->group_columns = few ? FNN_GEMM_COLUMNS : WINOGRAD_GROUP_COLUMNS;
        const ptrdiff_t column_groups = fnn_ceil_div(f->out_channels, f->group_columns);
        if (few && column_groups < 2 * team->size)
            tile_groups = fnn_max(tile_groups, fnn_min(fnn_ceil_div(2 * team->size, column_groups),
                                                       fnn_ceil_div(count, 2 * FNN_GEMM_ROWS)));
        for (struct fnn_work work = fnn_work(tile_groups * column_groups, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t i = range.begin; i < range.end; i++) {
                const ptrdiff_t group = i % tile_groups, k = i / tile_groups * f->group_columns;
                const struct fnn_range tiles = {begin + group * count / tile_groups,
                                                begin + (group + 1) * count / tile_groups};
                run_unit(f, begin, tiles, k);
            }
    }
}

/* Each thread works on blocks of its own, cut evenly. */
static void run_alone(const struct forward *f, const struct fnn_team *team) {
    const ptrdiff_t tiles = f->shape.tiles, blocks = fnn_ceil_div(tiles, f->args->block);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const struct fnn_range block = {i * tiles / blocks, (i + 1) * tiles / blocks};
            for (ptrdiff_t chunk = 0; chunk * WINOGRAD_DEPTH < f->channels; chunk++)
                f->stages->transform_inputs(f, block.begin, block, chunk);
            for (ptrdiff_t k = 0; k < f->out_channels; k += f->group_columns) run_unit(f, block.begin, block, k);
        }
}

static void transform_inputs_4_3(const struct forward *f, ptrdiff_t begin, struct fnn_range tiles, ptrdiff_t chunk) {
    transform_inputs(f, 4, 3, begin, tiles, chunk);
}
static void transform_inputs_2_3(const struct forward *f, ptrdiff_t begin, struct fnn_range tiles, ptrdiff_t chunk) {
    transform_inputs(f, 2, 3, begin, tiles, chunk);
}
static void transform_inputs_2_5(const struct forward *f, ptrdiff_t begin, struct fnn_range tiles, ptrdiff_t chunk) {
    transform_inputs(f, 2, 5, begin, tiles, chunk);
}
static void transform_filters_4_3(const struct forward *f, const struct unit *unit, ptrdiff_t chunk) {
    transform_filters(f, 4, 3, unit, chunk);
}
static void transform_filters_2_3(const struct forward *f, const struct unit *unit, ptrdiff_t chunk) {
    transform_filters(f, 2, 3, unit, chunk);
}
static void transform_filters_2_5(const struct forward *f, const struct unit *unit, ptrdiff_t chunk) {
    transform_filters(f, 2, 5, unit, chunk);
}
static void transform_outputs_4_3(const struct forward *f, const struct unit *unit) {
    if (f->args->pool)
        transform_outputs(f, 4, 3, 2, unit);
    else
        transform_outputs(f, 4, 3, 1, unit);
}
static void transform_outputs_2_3(const struct forward *f, const struct unit *unit) {
    if (f->args->pool)
        transform_outputs(f, 2, 3, 2, unit);
    else
        transform_outputs(f, 2, 3, 1, unit);
}
static void transform_outputs_2_5(const struct forward *f, const struct unit *unit) {
    if (f->args->pool)
        transform_outputs(f, 2, 5, 2, unit);
    else
        transform_outputs(f, 2, 5, 1, unit);
}

static const struct stages stages_4_3 = {transform_inputs_4_3, transform_filters_4_3, transform_outputs_4_3};
static const struct stages stages_2_3 = {transform_inputs_2_3, transform_filters_2_3, transform_outputs_2_3};
static const struct stages stages_2_5 = {transform_inputs_2_5, transform_filters_2_5, transform_outputs_2_5};

void FNN_FUNCTION(winograd_forward)(const struct fnn_winograd_forward_args *args, const struct fnn_team *team) {
    struct forward f = {.args = args, .form = (enum winograd_form)args->weight_form};
    f.stages = args->kernel_size == 5 ? &stages_2_5 : args->tile == 4 ? &stages_4_3 : &stages_2_3;
    f.shape = winograd_shape(args->tile, args->kernel_size, args->batch, args->out_height, args->out_width);
    f.channels = args->channels;
    f.out_channels = args->out_channels;
    f.layout = winograd_patches(&f.shape, args->channels, args->block);
    f.group_columns = WINOGRAD_GROUP_COLUMNS;
    const ptrdiff_t patches = f.layout.size;
    const ptrdiff_t products =
        fnn_min(args->block, WINOGRAD_GROUP_TILES) * winograd_tile_stride(&f.shape, WINOGRAD_GROUP_COLUMNS);
    const ptrdiff_t filters =
        f.form == WINOGRAD_PACKED ? 0 : winograd_panel_offset(f.shape.planes, WINOGRAD_DEPTH, WINOGRAD_GROUP_COLUMNS);
    const ptrdiff_t each = products + filters + (args->shared ? 0 : patches);
    float *own = args->workspace + (args->shared ? patches : 0) + team->rank * each;
    f.products = own;
    f.filters = own + products;
    f.patches = args->shared ? args->workspace : own + products + filters;
    if (args->shared)
        run_shared(&f, team);
    else
        run_alone(&f, team);
}
