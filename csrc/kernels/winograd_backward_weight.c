/* Winograd convolution backward with respect to its weight and bias; layouts in winograd.h, maps in winograd_gradient.h:
 *
 *   dw[k] = G^T [ sum over tiles of (A dY A^T) . (B^T X B) ] G        dbias[k] = sum over n, p, q of dy[n,p,q,k]
 *
 * x N,H,W,C   dy N,P,Q,K   dw K,r,r,C, overwritten   dbias K, overwritten, or null. No aliasing.
 * stride 1: r x r taps; padding, tile and kernel_size as in winograd_forward. stride 2: kernel_size 3, tile 4, the maps of
 * winograd_phases.h; any padding from 0 to 2 on each side.
 *
 * A block of `block` <= 256 tiles goes through two stages: E = A dY A^T and V = B^T X B of each tile, then for each plane
 * U[k][c] += sum over tiles of E[tile][k] V[tile][c]; with stride 2 E has 25 planes, V and U have 81, each with a plane of E.
 * When all blocks are done, dw is made of U. The tiles are cut into `parts` parts with a U each, parts into blocks. With `shared`
 * parts is 1 and the team works on one block after the other, barriers between the stages; else each thread works on parts of its
 * own. If one shared block is all there is and U is large, a thread makes U and dw for some rows and columns at a time, while that
 * U is in its cache: it need not go to memory and back.
 * workspace, with L = roundup(K, lanes), E and V as V of winograd_forward with K and C channels and their planes:
 *   parts * (planes * (K * roundup(C, lanes) + 16) + L), and once if shared, else for each thread of the team, E + V + block * L
 *   floats; of one shared block whose planes * (K * roundup(C, lanes) + 16) are more than LARGE_FLOATS, L + E + V + block * L, and
 *   for each thread UNIT_FLOATS + planes * 16.
 *
 * Parallel over parts; or over (chunk, tile) and then over (plane, chunk of K), at last over K; or then over (chunk of C, rows of K).
 * tile, block and parts decide the order of the sum, and so must depend on the shape alone.
 * Error bound, as in winograd.h: |error| <= gamma_n |G^T| [ sum over tiles of (|A| |dY| |A^T|) . (|B^T| |X| |B|) ] |G|,
 * n = 27 + block + blocks in a part + parts; dbias: gamma_n * sum |dy|, n = 16 + the same three.
 */
#include "gemm_outer.h"
#include "winograd_gradient.h"

enum {
    UNIT_FLOATS = 128 * 1024, /* of U that a thread makes at a time, about: a part of the second-level cache */
    LARGE_FLOATS = 4 * UNIT_FLOATS /* of U from which on it is made so, if it can be */
};

static ptrdiff_t chunks_of(ptrdiff_t channels) { return fnn_ceil_div(channels, WINOGRAD_DEPTH); }

/* The sum of dy over one tile, one chunk of channels. */
static void sum_tile(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk, float *sums) {
    const struct fnn_winograd_backward_weight_args *args = b->args;
    const ptrdiff_t m = b->shape.m, channels = args->out_channels, row_stride = args->out_width * channels;
    const ptrdiff_t rows = fnn_min(args->out_height - tile->row * m, m),
                    columns = fnn_min(args->out_width - tile->column * m, m);
    const ptrdiff_t first = chunk * WINOGRAD_DEPTH, end = fnn_min(first + WINOGRAD_DEPTH, channels);
    const float *corner =
        args->dy + (tile->image * args->out_height + tile->row * m) * row_stride + tile->column * m * channels;
    for (ptrdiff_t k = first; k < end; k += FNN_LANES) {
        vec sum = vec_zero();
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t j = 0; j < columns; j++)
                sum = vec_add(sum, load_lanes(corner + i * row_stride + j * channels + k, lanes_left(end - k)));
        vec_store(sums + k, sum);
    }
}

/* Stage 1 of tiles [tiles.begin, tiles.end) of the block that begins at tile `begin`, of one chunk: those of V come first, then
 * those of E. */
static void transform_tiles(const struct backward_weight *b, ptrdiff_t begin, struct fnn_range tiles, ptrdiff_t chunk) {
    const struct fnn_range all = {begin + tiles.begin, begin + tiles.end};
    const ptrdiff_t in_chunks = chunks_of(b->args->channels);
    if (chunk < in_chunks) {
        b->stages->transform_inputs(b, all, chunk, b->patches + tiles.begin * b->in.width);
        return;
    }
    chunk -= in_chunks;
    b->stages->transform_outputs(b, all, chunk, b->errors + tiles.begin * b->out.width);
    if (!b->args->dbias) return;
    struct winograd_tile tile = winograd_tile_at(&b->shape, all.begin);
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++, winograd_next_tile(&b->shape, &tile))
        sum_tile(b, &tile, chunk, b->sums + i * b->out_width);
}

/* The rows of E that belong to a unit and a plane of V. */
static const float *errors_of(const struct backward_weight *b, const struct unit *unit, ptrdiff_t plane) {
    const ptrdiff_t k = unit->rows.begin, size = b->error_patch;
    const ptrdiff_t error_plane = plane / b->shape.patch % size * size + plane % b->shape.patch % size;
    return b->errors + k / WINOGRAD_DEPTH * b->out.chunk_stride + error_plane * b->out.plane_stride +
           k % WINOGRAD_DEPTH;
}

/* Where those of V begin in the row of a tile, from column c on. */
static ptrdiff_t patch_offset(const struct backward_weight *b, ptrdiff_t plane, ptrdiff_t c) {
    return c / WINOGRAD_DEPTH * b->in.chunk_stride + plane * b->in.plane_stride + c % WINOGRAD_DEPTH;
}

/* What tile number `index` of a unit asks for: line `index` of each row of V and E of the next plane. */
static void ask_for_next(const struct backward_weight *b, const struct unit *unit, ptrdiff_t plane, ptrdiff_t index,
                         struct gemm_outer *tile) {
    const ptrdiff_t of_v = fnn_ceil_div(unit->columns.end - unit->columns.begin, WINOGRAD_LINE);
    const ptrdiff_t of_e = fnn_ceil_div(unit->rows.end - unit->rows.begin, WINOGRAD_LINE);
    const ptrdiff_t next = plane + 1 < b->shape.planes ? plane + 1 : 0;
    tile->next = 0;
    if (index < of_v) {
        tile->next = (uintptr_t)(b->patches + patch_offset(b, next, unit->columns.begin + index * WINOGRAD_LINE));
        tile->next_stride = b->in.width;
    } else if (index < of_v + of_e) {
        tile->next = (uintptr_t)(errors_of(b, unit, next) + (index - of_v) * WINOGRAD_LINE);
        tile->next_stride = b->out.width;
    }
}

/* Stage 2 for one plane of a unit. */
static void multiply(const struct backward_weight *b, const struct unit *unit, ptrdiff_t plane, ptrdiff_t count,
                     bool accumulate) {
    const ptrdiff_t rows = unit->rows.end - unit->rows.begin, row_tiles = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    const float *errors = errors_of(b, unit, plane);
    struct gemm_outer tile = {.a_stride = b->out.width, .b = b->rows, .depth = count, .y_stride = unit->row_stride};
    tile.accumulate = accumulate;
    ptrdiff_t index = 0;
    for (ptrdiff_t c = unit->columns.begin; c < unit->columns.end; c += tile.columns) {
        tile.b_first = patch_offset(b, plane, c);
        tile.columns = fnn_min(unit->columns.end - c, FNN_GEMM_COLUMNS);
        tile.y = unit->u + plane * unit->plane_stride + c - unit->columns.begin;
        for (ptrdiff_t i = 0, k = 0; i < row_tiles; i++, k += tile.row_count) {
            tile.row_count = (i + 1) * rows / row_tiles - k;
            tile.a = errors + k;
            ask_for_next(b, unit, plane, index++, &tile);
            FNN_FUNCTION(gemm_outer)(&tile);
            tile.y += tile.row_count * unit->row_stride;
        }
    }
}

/* The sums of dy over the tiles of a block, added to those of the part. */
static void add_sums(const struct backward_weight *b, ptrdiff_t count, bool accumulate, float *part) {
    float *total = part + b->part_size - b->out_width;
    for (ptrdiff_t k = 0; k < b->out_width; k += FNN_LANES) {
        vec sum = vec_zero();
        for (ptrdiff_t i = 0; i < count; i++) sum = vec_add(sum, vec_load(b->sums + i * b->out_width + k));
        vec_store(total + k, accumulate ? vec_add(vec_load(total + k), sum) : sum);
    }
}

/* All of U of one part and one chunk of K, which is where U begins in the workspace. */
static struct unit whole_unit(const struct backward_weight *b, ptrdiff_t part, ptrdiff_t chunk) {
    const ptrdiff_t k = chunk * WINOGRAD_DEPTH;
    return (struct unit){.u = b->args->workspace + part * b->part_size + k * b->width,
                         .plane_stride = b->args->out_channels * b->width + WINOGRAD_LINE,
                         .row_stride = b->width,
                         .rows = {k, fnn_min(k + WINOGRAD_DEPTH, b->args->out_channels)},
                         .columns = {0, b->width}};
}

/* One part, by one thread. At least one block: a part without tiles is a sum of zero. */
static void run_part(const struct backward_weight *b, ptrdiff_t index) {
    const ptrdiff_t parts = b->args->parts, tiles = b->shape.tiles, begin = index * tiles / parts;
    const ptrdiff_t count = (index + 1) * tiles / parts - begin,
                    blocks = fnn_max(fnn_ceil_div(count, b->args->block), 1);
    const ptrdiff_t out_chunks = chunks_of(b->args->out_channels), chunks = chunks_of(b->args->channels) + out_chunks;
    float *part = b->args->workspace + index * b->part_size;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const ptrdiff_t first = begin + i * count / blocks, size = begin + (i + 1) * count / blocks - first;
        for (ptrdiff_t chunk = 0; chunk < chunks; chunk++)
            transform_tiles(b, first, (struct fnn_range){0, size}, chunk);
        for (ptrdiff_t p = 0; p < b->shape.planes; p++)
            for (ptrdiff_t chunk = 0; chunk < out_chunks; chunk++) {
                const struct unit unit = whole_unit(b, index, chunk);
                multiply(b, &unit, p, size, i > 0);
            }
        if (b->args->dbias) add_sums(b, size, i > 0, part);
    }
}

/* Stage 1 of `count` tiles from `first` on, by the whole team. */
static void transform_block(const struct backward_weight *b, ptrdiff_t first, ptrdiff_t count,
                            const struct fnn_team *team) {
    const ptrdiff_t chunks = chunks_of(b->args->channels) + chunks_of(b->args->out_channels);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(chunks * count, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin, end; i < range.end; i = end) {
            const ptrdiff_t chunk = i / count;
            end = fnn_min((chunk + 1) * count, range.end);
            transform_tiles(b, first, (struct fnn_range){i - chunk * count, end - chunk * count}, chunk);
        }
    fnn_barrier(team);
}

/* Several blocks, the whole team working on one after the other. */
static void run_blocks(const struct backward_weight *b, ptrdiff_t blocks, const struct fnn_team *team) {
    const ptrdiff_t tiles = b->shape.tiles, chunks = chunks_of(b->args->out_channels);
    struct fnn_range range;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const ptrdiff_t first = i * tiles / blocks, size = (i + 1) * tiles / blocks - first;
        if (i > 0) fnn_barrier(team);
        transform_block(b, first, size, team);
        for (struct fnn_work work = fnn_work(b->shape.planes * chunks, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t j = range.begin; j < range.end; j++) {
                const struct unit unit = whole_unit(b, 0, j % chunks);
                multiply(b, &unit, j / chunks, size, i > 0);
            }
        if (b->args->dbias && team->rank == team->size - 1) add_sums(b, size, i > 0, b->args->workspace);
    }
}

/* How the units of run_units are cut: tiles of rows in one, units in a chunk of K, columns in one, units side by side. */
struct units {
    ptrdiff_t tiles, groups, width, columns;
};

static struct units cut_units(const struct backward_weight *b, const struct fnn_team *team) {
    const ptrdiff_t rows = fnn_min(b->args->out_channels, WINOGRAD_DEPTH), all = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    struct units units = {.width = fnn_min(b->width, WINOGRAD_DEPTH)};
    units.columns = fnn_ceil_div(b->width, units.width);
    units.tiles = UNIT_FLOATS / (b->shape.planes * units.width * FNN_GEMM_ROWS);
    const ptrdiff_t count = chunks_of(b->args->out_channels) * fnn_ceil_div(all, units.tiles) * units.columns;
    if (count < 4 * team->size) units.tiles = 1; /* no sum is cut */
    units.groups = fnn_ceil_div(all, units.tiles);
    return units;
}

/* Unit `index`: neighbours share a chunk of C. */
static struct unit unit_at(const struct backward_weight *b, const struct units *units, ptrdiff_t index, float *u) {
    const ptrdiff_t chunks = chunks_of(b->args->out_channels), column = index / units->groups / chunks * units->width;
    struct unit unit = whole_unit(b, 0, index / units->groups % chunks);
    const ptrdiff_t k = unit.rows.begin, rows = unit.rows.end - k, all = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    const ptrdiff_t first = fnn_min(index % units->groups * units->tiles, all),
                    end = fnn_min(first + units->tiles, all);
    unit.rows = (struct fnn_range){k + first * rows / all, k + end * rows / all};
    unit.columns = (struct fnn_range){column, fnn_min(column + units->width, b->width)};
    unit.row_stride = unit.columns.end - column;
    unit.plane_stride = (unit.rows.end - unit.rows.begin) * unit.row_stride + WINOGRAD_LINE;
    unit.u = u;
    return unit;
}

/* One block that is all there is: U is made and mapped unit by unit, while it is in the second-level cache. */
static void run_units(const struct backward_weight *b, const struct fnn_team *team) {
    const ptrdiff_t size = b->shape.tiles, planes = b->shape.planes;
    const struct units units = cut_units(b, team);
    float *own = b->sums + b->args->block * b->out_width + team->rank * (UNIT_FLOATS + planes * WINOGRAD_LINE);
    transform_block(b, 0, size, team);
    const ptrdiff_t count = chunks_of(b->args->out_channels) * units.groups * units.columns;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(count, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const struct unit unit = unit_at(b, &units, i, own);
            for (ptrdiff_t p = 0; p < planes; p++) multiply(b, &unit, p, size, false);
            for (ptrdiff_t k = unit.rows.begin; k < unit.rows.end; k++) b->stages->transform_weight(b, &unit, k);
        }
    if (b->args->dbias && team->rank == team->size - 1) add_sums(b, size, false, b->args->workspace);
}

static void finish_bias(const struct backward_weight *b) {
    const float *sums = b->args->workspace + b->part_size - b->out_width;
    for (ptrdiff_t k = 0; k < b->args->out_channels; k += FNN_LANES) {
        vec sum = vec_load(sums + k);
        for (ptrdiff_t part = 1; part < b->args->parts; part++)
            sum = vec_add(sum, vec_load(sums + part * b->part_size + k));
        store_lanes(b->args->dbias + k, sum, lanes_left(b->args->out_channels - k));
    }
}

/* All parts, and then dw of their sum. */
static void run_parts(const struct backward_weight *b, ptrdiff_t blocks, const struct fnn_team *team) {
    struct fnn_range range;
    if (b->args->shared) {
        run_blocks(b, blocks, team);
    } else {
        for (struct fnn_work work = fnn_work(b->args->parts, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t part = range.begin; part < range.end; part++) run_part(b, part);
    }
    fnn_barrier(team);
    for (struct fnn_work work = fnn_work(b->args->out_channels, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t k = range.begin; k < range.end; k++) {
            const struct unit unit = whole_unit(b, 0, k / WINOGRAD_DEPTH);
            b->stages->transform_weight(b, &unit, k);
        }
}

void FNN_FUNCTION(winograd_backward_weight)(const struct fnn_winograd_backward_weight_args *args,
                                            const struct fnn_team *team) {
    struct backward_weight b = {.args = args, .stages = winograd_gradient_stages(args)};
    b.shape = winograd_shape(args->tile, args->kernel_size, args->batch, args->out_height, args->out_width);
    struct winograd_shape errors = b.shape;
    if (args->stride == 2) {
        b.shape.patch = PHASES_PATCH;
        b.shape.planes = PHASES_PATCH * PHASES_PATCH;
        errors.patch = PHASES_PLANES;
        errors.planes = PHASES_PLANES * PHASES_PLANES;
    }
    b.error_patch = errors.patch;
    b.in = winograd_patches(&b.shape, args->channels, args->block);
    b.out = winograd_patches(&errors, args->out_channels, args->block);
    b.width = gemm_width(args->channels);
    b.out_width = gemm_width(args->out_channels);
    const ptrdiff_t blocks = fnn_max(fnn_ceil_div(b.shape.tiles, args->block), 1);
    const ptrdiff_t u_size = b.shape.planes * (args->out_channels * b.width + WINOGRAD_LINE);
    const bool by_units = args->shared && blocks == 1 && u_size > LARGE_FLOATS;
    b.part_size = (by_units ? 0 : u_size) + b.out_width;
    const ptrdiff_t each = b.in.size + b.out.size + args->block * b.out_width;
    b.patches = args->workspace + args->parts * b.part_size + (args->shared ? 0 : team->rank * each);
    b.errors = b.patches + b.in.size;
    b.sums = b.errors + b.out.size;
    for (ptrdiff_t i = 0; i < args->block; i++) b.rows[i] = b.patches + i * b.in.width;
    if (by_units)
        run_units(&b, team);
    else
        run_parts(&b, blocks, team);
    if (args->dbias && team->rank == team->size - 1) finish_bias(&b);
}
