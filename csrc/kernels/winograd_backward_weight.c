/* Winograd convolution backward with respect to its weight and bias, r x r taps, stride 1; layouts in winograd.h:
 *
 *   dw[k] = G^T [ sum over tiles of (A dY A^T) . (B^T X B) ] G        dbias[k] = sum over n, p, q of dy[n,p,q,k]
 *
 * x N,H,W,C   dy N,P,Q,K   dw K,r,r,C, overwritten   dbias K, overwritten, or null. No aliasing. Padding, tile and
 * kernel_size as in winograd_forward.
 *
 * A block of `block` <= 256 tiles goes through two stages: E = A dY A^T and V = B^T X B of each tile, then for each plane
 * U[k][c] += sum over tiles of E[tile][k] V[tile][c]. When all blocks are done, dw is made of U. The tiles are cut into
 * `parts` parts with a U each, parts into blocks. With `shared` parts is 1 and the team works on one block after the other, barriers
 * between the stages; else each thread works on parts of its own.
 * workspace, with L = roundup(K, lanes), E and V as V of winograd_forward with K and C channels:
 *   parts * (planes * K * roundup(C, lanes) + L), and once if shared, else for each thread of the team, E + V + block * L floats.
 *
 * Parallel over parts; or over (chunk, tile) and then over (plane, chunk of K); at last over K. tile, block and parts decide
 * the order of the sum, and so must depend on the shape alone.
 * Error bound, as in winograd.h: |error| <= gamma_n |G^T| [ sum over tiles of (|A| |dY| |A^T|) . (|B^T| |X| |B|) ] |G|,
 * n = 25 + block + blocks in a part + parts; dbias: gamma_n * sum |dy|, n = 16 + the same three.
 */
#include "gemm_outer.h"
#include "winograd_patch.h"

enum { BLOCK_TILES = 256 };

struct backward_weight;

/* The maps for one size of tiles and filters. */
struct stages {
    void (*transform_inputs)(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                             float *v);
    void (*transform_outputs)(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                              float *e);
    void (*transform_weight)(const struct backward_weight *b, ptrdiff_t k);
};

struct backward_weight {
    const struct fnn_winograd_backward_weight_args *args;
    const struct stages *stages;
    struct winograd_shape shape;
    struct winograd_patches in, out; /* layouts of V and E */
    ptrdiff_t width, out_width;      /* C and K rounded up: rows of U and of tile sums */
    ptrdiff_t part_size;             /* floats of U and of the sum of dy */
    float *patches, *errors;         /* V, E */
    float *sums;                     /* block, out_width: the sum of dy over each tile */
};

FNN_INLINE void transform(const float *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t channels,
                          const struct winograd_tile *tile, ptrdiff_t top, ptrdiff_t left, winograd_map map, int m,
                          int r, int in, ptrdiff_t chunk, ptrdiff_t plane_stride, float *to) {
    const ptrdiff_t c = chunk * WINOGRAD_DEPTH, count = fnn_min(channels - c, WINOGRAD_DEPTH);
    struct winograd_patch patch;
    winograd_find_patch(image, tile->image, height, width, channels, top, left, in, &patch);
    if (patch.interior)
        winograd_transform_patch(&patch, map, m, r, in, m + r - 1, true, c, count, plane_stride, to);
    else
        winograd_transform_patch(&patch, map, m, r, in, m + r - 1, false, c, count, plane_stride, to);
}

/* V of one tile and one chunk. */
FNN_INLINE void transform_inputs(const struct backward_weight *b, int m, int r, const struct winograd_tile *tile,
                                 ptrdiff_t chunk, float *v) {
    const struct fnn_winograd_backward_weight_args *args = b->args;
    transform(args->x, args->height, args->width, args->channels, tile, tile->row * m - args->pad_top,
              tile->column * m - args->pad_left, winograd_input, m, r, m + r - 1, chunk, b->in.plane_stride, v);
}

/* E of one tile and one chunk. */
FNN_INLINE void transform_outputs(const struct backward_weight *b, int m, int r, const struct winograd_tile *tile,
                                  ptrdiff_t chunk, float *e) {
    const struct fnn_winograd_backward_weight_args *args = b->args;
    transform(args->dy, args->out_height, args->out_width, args->out_channels, tile, tile->row * m, tile->column * m,
              winograd_output_transposed, m, r, m, chunk, b->out.plane_stride, e);
}

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

/* Stage 1 of one tile, number `index` of its block, of one chunk: those of V come first, then those of E. */
static void transform_tile(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t index,
                           ptrdiff_t chunk) {
    const ptrdiff_t in_chunks = fnn_ceil_div(b->args->channels, WINOGRAD_DEPTH);
    if (chunk < in_chunks) {
        b->stages->transform_inputs(b, tile, chunk, b->patches + chunk * b->in.chunk_stride + index * b->in.width);
        return;
    }
    chunk -= in_chunks;
    b->stages->transform_outputs(b, tile, chunk, b->errors + chunk * b->out.chunk_stride + index * b->out.width);
    if (b->args->dbias) sum_tile(b, tile, chunk, b->sums + index * b->out_width);
}

/* Likewise tiles [tiles.begin, tiles.end) of the block that begins at tile `begin`. */
static void transform_tiles(const struct backward_weight *b, ptrdiff_t begin, struct fnn_range tiles, ptrdiff_t chunk) {
    struct winograd_tile tile = winograd_tile_at(&b->shape, begin + tiles.begin);
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++, winograd_next_tile(&b->shape, &tile))
        transform_tile(b, &tile, i, chunk);
}

/* Stage 2 for one plane and one chunk of K. */
static void multiply(const struct backward_weight *b, ptrdiff_t plane, ptrdiff_t chunk, ptrdiff_t count,
                     bool accumulate, float *part) {
    const ptrdiff_t k = chunk * WINOGRAD_DEPTH, rows = fnn_min(b->args->out_channels - k, WINOGRAD_DEPTH);
    const ptrdiff_t row_tiles = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    const float *errors = b->errors + chunk * b->out.chunk_stride + plane * b->out.plane_stride;
    const float *columns[BLOCK_TILES];
    struct gemm_outer tile = {.a_stride = b->out.width, .b = columns, .depth = count, .y_stride = b->width};
    tile.accumulate = accumulate;
    for (ptrdiff_t c = 0; c < b->width; c += tile.columns) {
        const ptrdiff_t in_chunk = c / WINOGRAD_DEPTH, column = c % WINOGRAD_DEPTH;
        const float *row = b->patches + in_chunk * b->in.chunk_stride + plane * b->in.plane_stride + column;
        for (ptrdiff_t i = 0; i < count; i++) columns[i] = row + i * b->in.width;
        tile.columns = fnn_min(b->width - c, FNN_GEMM_COLUMNS);
        for (ptrdiff_t i = 0; i < row_tiles; i++) {
            const ptrdiff_t first = i * rows / row_tiles;
            tile.row_count = (i + 1) * rows / row_tiles - first;
            tile.a = errors + first;
            tile.y = part + (plane * b->args->out_channels + k + first) * b->width + c;
            FNN_FUNCTION(gemm_outer)(&tile);
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

/* dw[k]: the sum of the parts' U, in order, mapped. */
FNN_INLINE void transform_weight(const struct backward_weight *b, int m, int r, ptrdiff_t k) {
    const ptrdiff_t channels = b->args->channels, plane_stride = b->args->out_channels * b->width;
    const int patch = m + r - 1;
    float *dw = b->args->dw + k * r * r * channels;
    vec half[WINOGRAD_TAPS][WINOGRAD_PATCH];
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        const float *from = b->args->workspace + k * b->width + c;
#pragma GCC unroll 1
        for (int j = 0; j < patch; j++, from += plane_stride) {
            vec planes[WINOGRAD_PATCH], mapped[WINOGRAD_TAPS];
#pragma GCC unroll 6
            for (int i = 0; i < patch; i++) {
                planes[i] = vec_load(from + i * patch * plane_stride);
                for (ptrdiff_t part = 1; part < b->args->parts; part++)
                    planes[i] = vec_add(planes[i], vec_load(from + part * b->part_size + i * patch * plane_stride));
            }
            winograd_filter_transposed(m, r, planes, mapped);
#pragma GCC unroll 5
            for (int i = 0; i < r; i++) half[i][j] = mapped[i];
        }
#pragma GCC unroll 1
        for (int i = 0; i < r; i++) {
            vec taps[WINOGRAD_TAPS];
            winograd_filter_transposed(m, r, half[i], taps);
#pragma GCC unroll 5
            for (int s = 0; s < r; s++) store_lanes(dw + (i * r + s) * channels + c, taps[s], lanes_left(channels - c));
        }
    }
}

/* One part, by one thread. At least one block: a part without tiles is a sum of zero. */
static void run_part(const struct backward_weight *b, ptrdiff_t index) {
    const ptrdiff_t parts = b->args->parts, tiles = b->shape.tiles, begin = index * tiles / parts;
    const ptrdiff_t count = (index + 1) * tiles / parts - begin,
                    blocks = fnn_max(fnn_ceil_div(count, b->args->block), 1);
    const ptrdiff_t out_chunks = fnn_ceil_div(b->args->out_channels, WINOGRAD_DEPTH);
    const ptrdiff_t chunks = fnn_ceil_div(b->args->channels, WINOGRAD_DEPTH) + out_chunks;
    float *part = b->args->workspace + index * b->part_size;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const ptrdiff_t first = begin + i * count / blocks, size = begin + (i + 1) * count / blocks - first;
        for (ptrdiff_t chunk = 0; chunk < chunks; chunk++)
            transform_tiles(b, first, (struct fnn_range){0, size}, chunk);
        for (ptrdiff_t p = 0; p < b->shape.planes; p++)
            for (ptrdiff_t chunk = 0; chunk < out_chunks; chunk++) multiply(b, p, chunk, size, i > 0, part);
        if (b->args->dbias) add_sums(b, size, i > 0, part);
    }
}

/* All blocks, the whole team working on one after the other. */
static void run_shared(const struct backward_weight *b, const struct fnn_team *team) {
    const ptrdiff_t tiles = b->shape.tiles, blocks = fnn_max(fnn_ceil_div(tiles, b->args->block), 1);
    const ptrdiff_t out_chunks = fnn_ceil_div(b->args->out_channels, WINOGRAD_DEPTH);
    const ptrdiff_t chunks = fnn_ceil_div(b->args->channels, WINOGRAD_DEPTH) + out_chunks;
    float *part = b->args->workspace;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const ptrdiff_t first = i * tiles / blocks, size = (i + 1) * tiles / blocks - first;
        if (i > 0) fnn_barrier(team);
        struct fnn_range range;
        for (struct fnn_work work = fnn_work(chunks * size, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t u = range.begin, end; u < range.end; u = end) {
                const ptrdiff_t chunk = u / size;
                end = fnn_min((chunk + 1) * size, range.end);
                transform_tiles(b, first, (struct fnn_range){u - chunk * size, end - chunk * size}, chunk);
            }
        fnn_barrier(team);
        for (struct fnn_work work = fnn_work(b->shape.planes * out_chunks, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t u = range.begin; u < range.end; u++)
                multiply(b, u / out_chunks, u % out_chunks, size, i > 0, part);
        if (b->args->dbias && team->rank == team->size - 1) add_sums(b, size, i > 0, part);
    }
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

static void transform_inputs_4_3(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                 float *v) {
    transform_inputs(b, 4, 3, tile, chunk, v);
}
static void transform_inputs_2_3(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                 float *v) {
    transform_inputs(b, 2, 3, tile, chunk, v);
}
static void transform_inputs_2_5(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                 float *v) {
    transform_inputs(b, 2, 5, tile, chunk, v);
}
static void transform_outputs_4_3(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                  float *e) {
    transform_outputs(b, 4, 3, tile, chunk, e);
}
static void transform_outputs_2_3(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                  float *e) {
    transform_outputs(b, 2, 3, tile, chunk, e);
}
static void transform_outputs_2_5(const struct backward_weight *b, const struct winograd_tile *tile, ptrdiff_t chunk,
                                  float *e) {
    transform_outputs(b, 2, 5, tile, chunk, e);
}
static void transform_weight_4_3(const struct backward_weight *b, ptrdiff_t k) { transform_weight(b, 4, 3, k); }
static void transform_weight_2_3(const struct backward_weight *b, ptrdiff_t k) { transform_weight(b, 2, 3, k); }
static void transform_weight_2_5(const struct backward_weight *b, ptrdiff_t k) { transform_weight(b, 2, 5, k); }

static const struct stages stages_4_3 = {transform_inputs_4_3, transform_outputs_4_3, transform_weight_4_3};
static const struct stages stages_2_3 = {transform_inputs_2_3, transform_outputs_2_3, transform_weight_2_3};
static const struct stages stages_2_5 = {transform_inputs_2_5, transform_outputs_2_5, transform_weight_2_5};

void FNN_FUNCTION(winograd_backward_weight)(const struct fnn_winograd_backward_weight_args *args,
                                            const struct fnn_team *team) {
    struct backward_weight b = {.args = args};
    b.stages = args->kernel_size == 5 ? &stages_2_5 : args->tile == 4 ? &stages_4_3 : &stages_2_3;
    b.shape = winograd_shape(args->tile, args->kernel_size, args->batch, args->out_height, args->out_width);
    b.in = winograd_patches(&b.shape, args->channels, args->block);
    b.out = winograd_patches(&b.shape, args->out_channels, args->block);
    b.width = gemm_width(args->channels);
    b.out_width = gemm_width(args->out_channels);
    b.part_size = b.shape.planes * args->out_channels * b.width + b.out_width;
    const ptrdiff_t each = b.in.size + b.out.size + args->block * b.out_width;
    b.patches = args->workspace + args->parts * b.part_size + (args->shared ? 0 : team->rank * each);
    b.errors = b.patches + b.in.size;
    b.sums = b.errors + b.out.size;
    struct fnn_range range;
    if (args->shared) {
        run_shared(&b, team);
    } else {
        for (struct fnn_work work = fnn_work(args->parts, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t part = range.begin; part < range.end; part++) run_part(&b, part);
    }
    fnn_barrier(team);
    for (struct fnn_work work = fnn_work(args->out_channels, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t k = range.begin; k < range.end; k++) b.stages->transform_weight(&b, k);
    if (args->dbias && team->rank == team->size - 1) finish_bias(&b);
}
