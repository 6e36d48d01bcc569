/* The second stage and the order of the work of winograd_convolution.h. */
#include "winograd_convolution.h"
#include "winograd_gemm.h"

/* Chunks that are multiplied in one go: those from `first` to `end` in the order of the sum, of `depth` channels each. */
struct steps {
    ptrdiff_t first, end, depth;
};

/* A right operand: that of one plane and one panel, and floats to that of the next plane. */
struct panel {
    const float *filters;
    ptrdiff_t stride;
};

/* M += V U of some tiles for one plane and one panel; accumulate: else M = V U. Rows are cut evenly: some register tiles have
 * one less. */
static void multiply_panel(const struct winograd_convolution *f, const struct winograd_unit *unit,
                           struct fnn_range tiles, const struct steps *steps, bool accumulate, ptrdiff_t plane,
                           struct panel panel, ptrdiff_t column) {
    const ptrdiff_t count = tiles.end - tiles.begin, parts = fnn_ceil_div(count, FNN_GEMM_ROWS);
    const ptrdiff_t rows = fnn_ceil_div(count, parts), full = parts - (parts * rows - count);
    const struct winograd_patches *layout = &f->layout;
    struct winograd_gemm tile = {
        .v = unit->patches + (tiles.begin - unit->tiles.begin) * layout->width + steps->first * layout->chunk_stride +
             plane * layout->plane_stride,
        .u = panel.filters,
        .m = unit->products + (tiles.begin - unit->tiles.begin) * unit->stride + plane * unit->plane_stride + column,
        .row_stride = layout->width,
        .run_stride = layout->chunk_stride,
        .m_stride = unit->stride,
        .tiles = full,
        .rows = rows,
        .columns = fnn_min(unit->width - column, FNN_GEMM_COLUMNS),
        .runs = steps->end - steps->first,
        .depth = steps->depth,
        .accumulate = accumulate,
    };
    tile.next_u_step = fnn_ceil_div(tile.columns, parts);
    tile.next_v = (uintptr_t)tile.v + (size_t)layout->plane_stride * sizeof(float);
    tile.next_u = (uintptr_t)panel.filters + (size_t)panel.stride * sizeof(float);
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

/* The phases of x whose products one plane of a unit sums, and for which tiles. */
static struct winograd_presence presence(const struct winograd_convolution *f, const struct winograd_unit *unit,
                                         ptrdiff_t plane) {
    if (!f->stages->presence) return (struct winograd_presence){{0, 1}, unit->tiles};
    struct winograd_presence present = f->stages->presence(&f->shape, plane);
    present.tiles.begin = fnn_max(present.tiles.begin, unit->tiles.begin);
    present.tiles.end = fnn_min(present.tiles.end, unit->tiles.end);
    if (f->in_phases == 1)
        present.phases = (struct fnn_range){0, present.phases.begin <= unit->phase && unit->phase < present.phases.end};
    return present;
}

/* The products of one go in one plane: those of its steps that the plane's phases have. */
static void multiply_plane(const struct winograd_convolution *f, const struct winograd_unit *unit,
                           const struct steps *steps, ptrdiff_t plane) {
    const ptrdiff_t whole = f->channels / WINOGRAD_DEPTH, left = f->in_phases * whole;
    const struct winograd_presence present = presence(f, unit, plane);
    const struct fnn_range phases = present.phases;
    const ptrdiff_t base = steps->first < left ? 0 : left, each = steps->first < left ? whole : 1;
    const struct steps own = {fnn_max(steps->first, base + phases.begin * each),
                              fnn_min(steps->end, base + phases.end * each), steps->depth};
    if (own.first >= own.end || present.tiles.begin >= present.tiles.end) return;
    const bool accumulate = own.first > phases.begin * (whole ? whole : 1), packed = f->form == WINOGRAD_PACKED;
    const ptrdiff_t depth = packed ? f->in_phases * f->channels : own.depth;
    const ptrdiff_t before = packed ? base * WINOGRAD_DEPTH + (own.first - base) * own.depth : 0;
    const float *filters =
        packed ? f->weight + unit->phase * winograd_packed_size(f->shape.planes, f->out_channels, depth) : f->filters;
    for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t width = fnn_min(unit->width - j, FNN_GEMM_COLUMNS);
        const ptrdiff_t stride = winograd_plane_stride(depth, width);
        const ptrdiff_t at = winograd_panel_offset(f->shape.planes, depth, (packed ? unit->first : 0) + j);
        const struct panel panel = {filters + at + plane * stride + before * width, stride};
        multiply_panel(f, unit, present.tiles, &own, accumulate, plane, panel, j);
    }
}

/* U of the columns of a unit, one phase and one chunk of channels. */
static void make_filters(const struct winograd_convolution *f, const struct winograd_unit *unit, ptrdiff_t phase,
                         struct fnn_range depth) {
    const ptrdiff_t count = depth.end - depth.begin;
    for (ptrdiff_t j = 0; j < unit->columns; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t columns = fnn_min(unit->columns - j, FNN_GEMM_COLUMNS), width = gemm_width(columns);
        const struct winograd_weight weight =
            winograd_weight(f->weight, f->form, f->taps, f->out_channels, f->channels, width);
        f->stages->transform_panel(&weight, phase, unit->first + j, columns, depth, winograd_plane_stride(count, width),
                                   f->filters + winograd_panel_offset(f->shape.planes, count, j));
    }
}

/* Stage 2: M of one unit. Packed filters are multiplied by all whole chunks at once, others as they are made. */
static void multiply(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    const ptrdiff_t whole = f->channels / WINOGRAD_DEPTH, chunks = fnn_ceil_div(f->channels, WINOGRAD_DEPTH);
    const ptrdiff_t left = f->in_phases * whole, slots = f->in_phases * chunks;
    const bool packed = f->form == WINOGRAD_PACKED;
    for (struct steps steps = {0}; steps.first < slots; steps.first = steps.end) {
        const bool tail = steps.first >= left;
        steps.depth = tail ? f->channels - whole * WINOGRAD_DEPTH : WINOGRAD_DEPTH;
        steps.end = !packed ? steps.first + 1 : tail ? slots : left;
        if (!packed) {
            const ptrdiff_t c = tail ? whole * WINOGRAD_DEPTH : steps.first % whole * WINOGRAD_DEPTH;
            const ptrdiff_t phase = tail ? steps.first - left : steps.first / whole;
            make_filters(f, unit, phase + unit->phase, (struct fnn_range){c, c + steps.depth});
        }
        for (ptrdiff_t p = 0; p < f->shape.planes; p++) multiply_plane(f, unit, &steps, p);
    }
}

/* Stages 2 and 3 of some tiles and one of the groups of output channels, those of all phases counted. */
static void run_unit(const struct winograd_convolution *f, ptrdiff_t block_begin, struct fnn_range tiles,
                     ptrdiff_t group) {
    struct winograd_unit unit = {.tiles = tiles, .phase = group % f->out_phases};
    unit.first = group / f->out_phases * f->group_columns;
    unit.patches = f->patches + (tiles.begin - block_begin) * f->layout.width;
    unit.columns = fnn_min(f->out_channels - unit.first, f->group_columns);
    unit.width = gemm_width(unit.columns);
    unit.products = f->products;
    unit.stride = winograd_tile_stride(&f->shape, unit.width);
    unit.plane_stride = unit.width;
    if (f->in_place) {
        unit.products = f->patches - f->layout.plane_stride + (tiles.begin - block_begin) * f->layout.width;
        unit.stride = f->layout.width;
        unit.plane_stride = f->layout.plane_stride;
    }
    multiply(f, &unit);
    f->stages->transform_outputs(f, &unit);
}

static ptrdiff_t groups(const struct winograd_convolution *f) {
    return fnn_ceil_div(f->out_channels, f->group_columns) * f->out_phases;
}

/* The whole team works on one block after the other. */
static void run_shared(struct winograd_convolution *f, const struct fnn_team *team) {
    const ptrdiff_t block = f->block, chunks = fnn_ceil_div(f->channels, WINOGRAD_DEPTH);
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
        f->group_columns = WINOGRAD_GROUP_COLUMNS;
        const bool few = tile_groups * groups(f) < 4 * team->size;
        if (few) f->group_columns = FNN_GEMM_COLUMNS;
        const ptrdiff_t column_groups = groups(f);
        if (few && column_groups < 2 * team->size)
            tile_groups = fnn_max(tile_groups, fnn_min(fnn_ceil_div(2 * team->size, column_groups),
                                                       fnn_ceil_div(count, 2 * FNN_GEMM_ROWS)));
        for (struct fnn_work work = fnn_work(tile_groups * column_groups, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t i = range.begin; i < range.end; i++) {
                const ptrdiff_t group = i % tile_groups;
                const struct fnn_range tiles = {begin + group * count / tile_groups,
                                                begin + (group + 1) * count / tile_groups};
                run_unit(f, begin, tiles, i / tile_groups);
            }
    }
}

/* Each thread works on blocks of its own, cut evenly. */
static void run_alone(const struct winograd_convolution *f, const struct fnn_team *team) {
    const ptrdiff_t tiles = f->shape.tiles, blocks = fnn_ceil_div(tiles, f->block);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const struct fnn_range block = {i * tiles / blocks, (i + 1) * tiles / blocks};
            for (ptrdiff_t chunk = 0; chunk * WINOGRAD_DEPTH < f->channels; chunk++)
                f->stages->transform_inputs(f, block.begin, block, chunk);
            for (ptrdiff_t group = 0; group < groups(f); group++) run_unit(f, block.begin, block, group);
        }
}

void FNN_FUNCTION(winograd_convolve)(struct winograd_convolution *f, const struct fnn_team *team) {
    f->layout = winograd_patches(&f->shape, f->channels, f->block);
    f->group_columns = WINOGRAD_GROUP_COLUMNS;
    f->in_place = !f->shared && f->in_phases == 1 && f->out_phases == 1 && f->channels <= WINOGRAD_DEPTH &&
                  gemm_width(f->out_channels) <= f->layout.width;
    const ptrdiff_t patches = f->in_phases * f->layout.size;
    const ptrdiff_t products =
        fnn_min(f->block, WINOGRAD_GROUP_TILES) * winograd_tile_stride(&f->shape, WINOGRAD_GROUP_COLUMNS);
    const ptrdiff_t filters =
        f->form == WINOGRAD_PACKED ? 0 : winograd_panel_offset(f->shape.planes, WINOGRAD_DEPTH, WINOGRAD_GROUP_COLUMNS);
    const ptrdiff_t each = products + filters + (f->shared ? 0 : patches);
    float *own = f->workspace + (f->shared ? patches : 0) + team->rank * each;
    f->filters = own;
    f->products = own + filters;
    f->patches = f->shared ? f->workspace : own + products + filters;
    if (f->shared)
        run_shared(f, team);
    else
        run_alone(f, team);
}
