/* A linear layer's weight gradient where x and dy are tall: a long sum over their rows makes a small matrix.
 *
 *   dw[k,c] = sum over n of dy[n,k] * x[n,c],  dbias[k] = sum over n of dy[n,k]
 *
 * x N,C   dy N,K   dw K,C, overwritten   dbias K, overwritten, or null. No aliasing.
 * chunks: into how many parts the N rows are cut, >= 1; chosen from the shape alone, because it decides the order of the sum.
 * transposed: 1 makes dw with its rows and columns swapped, to have vectors along the output channels.
 * workspace: if chunks > 1 or transposed, chunks * (K*C + K) floats; then for each thread of the team
 * workspace_stride >= TALL_BLOCK * FNN_GEMM_COLUMNS floats.
 *
 * Both operands are read where they stand, a block of rows at a time: tiles of the product, `rows` channels of one operand by a
 * slice of the other, which lies in the first-level cache while all tiles use it, copied if its vectors would end behind the operand or
 * it is used often. There is little to do with each line of memory, and what there is takes lines from all over the block: so tiles
 * ask for the next block meanwhile, in the order of memory. Each chunk is summed in equal blocks of at most TALL_BLOCK rows,
 * blocks and then chunks in order.
 *
 * Parallel over (chunk, slice).
 * Error bound: gamma_D * sum |dy||x|, D = TALL_BLOCK + blocks in a chunk + chunks (first term twice on the scalar ISA).
 */
#include "gemm_step.h"
#include "lanes.h"
#include "linear.h"
#include "partial_sums.h"

enum {
    TALL_BLOCK =
        128, /* a slice of so many rows (AVX-512: 16 KB) fits the first-level cache, the block the second one */
    COPY_ROWS = 96,   /* from which on copying a slice takes less time than reading it from where it stands */
    FETCH_STEPS = 8,  /* between requests for lines */
    LINE = 64         /* bytes */
};

struct tall {
    const struct fnn_linear_backward_weight_args *args;
    const float *a, *b; /* N,rows and N,columns */
    ptrdiff_t rows, columns, tiles, slices;
    bool parts, copies;
    float *panel; /* this thread's workspace */
};

/* A unit of work for one block: rows [first, first + depth) of both operands. */
struct tall_block {
    struct fnn_range slices;
    ptrdiff_t first, depth;
    float *y; /* rows,columns */
    float *sums; /* of dy, or null */
    bool accumulate;
};

/* Lines to ask for: `count` every FETCH_STEPS steps, `left` of them up to the end of a row of `lines`, `skip` bytes before the next. */
struct tall_fetch {
    uintptr_t line;
    ptrdiff_t count, left, lines;
    size_t skip;
};

struct tall_tile {
    const float *a, *b;
    ptrdiff_t a_step, b_step, depth;
    ptrdiff_t row_count, columns;
    float *y;
    ptrdiff_t y_step;
    bool accumulate;
    struct tall_fetch fetch;
};

FNN_INLINE void multiply(const struct tall_tile *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                         int vectors) {
    const float *a = tile->a, *b = tile->b;
    const ptrdiff_t a_step = tile->a_step, b_step = tile->b_step;
    struct tall_fetch fetch = tile->fetch;
    for (ptrdiff_t left = tile->depth; left > 0; left -= FETCH_STEPS) {
        for (ptrdiff_t l = fetch.count; l > 0; l--) {
            __builtin_prefetch((const void *)fetch.line, 0, 2);
            fetch.line += LINE;
            if (--fetch.left > 0) continue;
            fetch.left = fetch.lines;
            fetch.line += fetch.skip;
        }
        for (ptrdiff_t d = fnn_min(left, FETCH_STEPS); d > 0; d--, a += a_step, b += b_step)
            gemm_step(a, b, sum, rows, vectors);
    }
}

FNN_INLINE void run_tile(const struct tall_tile *tile, int rows, int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(tile->y + i * tile->y_step + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
    multiply(tile, sum, rows, vectors);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *y = tile->y + i * tile->y_step + v * FNN_LANES;
            const ptrdiff_t lanes = v == vectors - 1 ? last : FNN_LANES;
            store_lanes(y, tile->accumulate ? vec_add(load_lanes(y, lanes), sum[i][v]) : sum[i][v], lanes);
        }
    }
}

#define RUN_TILE run_tile
#define TILE_STRUCT tall_tile
#include "gemm_tiles.h"

/* Share `index` of `shares` of the lines of the next block: those of b's slices, then those of a. */
static struct tall_fetch next_lines(const struct tall *t, const struct tall_block *block, ptrdiff_t index,
                                    ptrdiff_t shares) {
    const ptrdiff_t next = block->first + block->depth, depth = fnn_min(t->args->batch - next, block->depth);
    const ptrdiff_t column = block->slices.begin * FNN_GEMM_COLUMNS;
    const ptrdiff_t width = fnn_min(block->slices.end * FNN_GEMM_COLUMNS, t->columns) - column;
    const ptrdiff_t floats = LINE / (ptrdiff_t)sizeof(float), whole = width == t->columns;
    const ptrdiff_t row = whole ? fnn_ceil_div(depth * width, floats) : fnn_ceil_div(width, floats);
    const ptrdiff_t b_lines = whole ? row : depth * row, all = b_lines + fnn_ceil_div(depth * t->rows, floats);
    const ptrdiff_t begin = index * all / shares, end = (index + 1) * all / shares;
    if (depth == 0 || begin == end) return (struct tall_fetch){.left = 1};
    struct tall_fetch fetch = {.count = fnn_ceil_div(end - begin, fnn_ceil_div(block->depth, FETCH_STEPS))};
    if (begin < b_lines) {
        fetch.line = (uintptr_t)(t->b + (next + begin / row) * t->columns + column) + (size_t)(begin % row * LINE);
        fetch.left = row - begin % row;
        fetch.lines = row;
        fetch.skip = sizeof(float) * (size_t)t->columns - (size_t)(row * LINE);
    } else {
        fetch.line = (uintptr_t)(t->a + next * t->rows) + (size_t)((begin - b_lines) * LINE);
        fetch.left = end - begin;
    }
    return fetch;
}

/* A slice of b, `columns` wide, side by side in whole vectors. */
static void copy_slice(const struct tall *t, const float *from, ptrdiff_t depth, ptrdiff_t columns) {
    const ptrdiff_t width = gemm_width(columns);
    float *to = t->panel;
    for (ptrdiff_t d = 0; d < depth; d++, from += t->columns, to += width)
        for (ptrdiff_t j = 0; j < columns; j += FNN_LANES)
            vec_store(to + j, load_lanes(from + j, lanes_left(columns - j)));
}

static void multiply_block(const struct tall *t, const struct tall_block *block) {
    const ptrdiff_t shares = (block->slices.end - block->slices.begin) * t->tiles;
    struct tall_tile tile = {
        .a_step = t->rows,
        .b_step = t->columns,
        .depth = block->depth,
        .y_step = t->columns,
        .accumulate = block->accumulate,
    };
    for (ptrdiff_t s = block->slices.begin; s < block->slices.end; s++) {
        tile.columns = fnn_min(t->columns - s * FNN_GEMM_COLUMNS, FNN_GEMM_COLUMNS);
        tile.b = t->b + block->first * t->columns + s * FNN_GEMM_COLUMNS;
        if (t->copies) {
            copy_slice(t, tile.b, block->depth, tile.columns);
            tile.b = t->panel;
            tile.b_step = gemm_width(tile.columns);
        }
        for (ptrdiff_t i = 0; i < t->tiles; i++) {
            const ptrdiff_t first = i * t->rows / t->tiles;
            tile.row_count = (i + 1) * t->rows / t->tiles - first;
            tile.a = t->a + block->first * t->rows + first;
            tile.y = block->y + first * t->columns + s * FNN_GEMM_COLUMNS;
            tile.fetch = next_lines(t, block, (s - block->slices.begin) * t->tiles + i, shares);
            tiles[tile.row_count - 1][fnn_ceil_div(tile.columns, FNN_LANES) - 1](&tile);
        }
    }
}

/* Some slices over all rows of a chunk. */
static void run_chunk(const struct tall *t, ptrdiff_t chunk, struct fnn_range slices) {
    const struct fnn_linear_backward_weight_args *args = t->args;
    const ptrdiff_t begin = chunk * args->batch / args->chunks;
    const ptrdiff_t count = (chunk + 1) * args->batch / args->chunks - begin;
    const ptrdiff_t blocks = fnn_max(fnn_ceil_div(count, TALL_BLOCK), 1); /* without rows: a sum of zero */
    const ptrdiff_t weights = t->rows * t->columns;
    struct tall_block block = {.slices = slices, .y = args->dw, .sums = args->dbias};
    if (t->parts) {
        block.y = args->workspace + chunk * (weights + args->out_channels);
        block.sums = args->dbias ? block.y + weights : NULL;
    }
    if (slices.begin > 0) block.sums = NULL;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        block.first = begin + i * count / blocks;
        block.depth = begin + (i + 1) * count / blocks - block.first;
        block.accumulate = i > 0;
        multiply_block(t, &block);
        if (block.sums)
            sum_rows(args->dy + block.first * args->out_channels, args->out_channels, block.depth,
                     (struct fnn_range){0, args->out_channels}, block.accumulate, block.sums);
    }
}

/* Adds the chunks' parts. */
static void combine(const struct tall *t, const struct fnn_team *team) {
    const struct fnn_linear_backward_weight_args *args = t->args;
    const ptrdiff_t weights = t->rows * t->columns, part = weights + args->out_channels;
    if (args->transposed) {
        const struct fnn_range range = fnn_share(fnn_ceil_div(t->rows, FNN_LANES), team);
        for (ptrdiff_t i = range.begin; i < range.end; i++)
            add_parts_transposed(args->workspace, args->chunks, part, t->rows, t->columns, i * FNN_LANES, args->dw);
    } else {
        add_parts(args->workspace, args->chunks, part, fnn_share_blocks(weights, 1024, team), args->dw);
    }
    if (args->dbias && team->rank == team->size - 1)
        add_parts(args->workspace + weights, args->chunks, part, (struct fnn_range){0, args->out_channels},
                  args->dbias);
}

void FNN_FUNCTION(linear_tall_weight)(const struct fnn_linear_backward_weight_args *args, const struct fnn_team *team) {
    struct tall t = {
        .args = args,
        .a = args->transposed ? args->x : args->dy,
        .b = args->transposed ? args->dy : args->x,
        .rows = args->transposed ? args->channels : args->out_channels,
        .columns = args->transposed ? args->out_channels : args->channels,
        .parts = args->chunks > 1 || args->transposed,
    };
    t.tiles = fnn_ceil_div(t.rows, FNN_GEMM_ROWS);
    t.slices = fnn_ceil_div(t.columns, FNN_GEMM_COLUMNS);
    t.copies = t.rows >= COPY_ROWS || t.columns % FNN_LANES != 0;
    const ptrdiff_t parts = t.parts ? args->chunks * (t.rows * t.columns + args->out_channels) : 0;
    t.panel = args->workspace + parts + team->rank * args->workspace_stride;
    const ptrdiff_t count = args->chunks * t.slices;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(count, fnn_whole_units(count, t.slices, team), team); fnn_take(&work, &range);)
        while (range.begin < range.end) {
            const ptrdiff_t chunk = range.begin / t.slices, slice = range.begin % t.slices;
            const ptrdiff_t end = fnn_min(slice + range.end - range.begin, t.slices);
            run_chunk(&t, chunk, (struct fnn_range){slice, end});
            range.begin += end - slice;
        }
    if (!t.parts) return;
    fnn_barrier(team);
    combine(&t, team);
}
