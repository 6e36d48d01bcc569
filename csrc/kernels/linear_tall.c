/* A linear layer's weight gradient where x and dy are tall: a long sum over their rows makes a small matrix.
 *
 *   dw[k,c] = sum over n of dy[n,k] * x[n,c],  dbias[k] = sum over n of dy[n,k]
 *
 * x N,C   dy N,K   dw K,C, overwritten   dbias K, overwritten, or null. No aliasing.
 * chunks: into how many parts the N rows are cut, >= 1; chosen from the shape alone, because it decides the order of the sum.
 * transposed: 1 makes dw with its rows and columns swapped, to have vectors along the output channels.
 * workspace: for each thread of the team workspace_stride >= TALL_BLOCK * FNN_GEMM_COLUMNS + TALL_GAP floats; then, if chunks > 1 or
 * transposed, chunks * (K*C + K) floats.
 *
 * Both operands are read where they stand, a block of rows at a time: tiles of the product, `rows` channels of one operand by a
 * slice of the other. The first tile copies its slice side by side if many use it, or if its steps would meet in few sets of the
 * first-level cache; a slice whose vectors would end behind the operand is copied before. There is little to do with each line of
 * memory, and what there is takes lines from all over the block: so tiles ask for the next block meanwhile, in the order of memory.
 * Rows of x that are pixels some strides apart (linear.h) are copied, slice by slice, in any case but within one row of an image.
 * Each chunk is summed in equal blocks of at most TALL_BLOCK rows, blocks and then chunks in order.
 *
 * Parallel over (some slices, chunk).
 * Error bound: gamma_D * sum |dy||x|, D = TALL_BLOCK + blocks in a chunk + chunks (first term twice on the scalar ISA).
 */
#include "gemm_pack.h"
#include "gemm_packed.h"
#include "lanes.h"
#include "linear.h"
#include "partial_sums.h"

enum {
    TALL_BLOCK = 128, /* a slice of so many rows (AVX-512: 16 KB) fits the first-level cache, the block the second */
    COPY_ROWS = 128,  /* from which on a copy saves time */
    FEW_SETS = 64,    /* floats; likewise if steps are a multiple of them apart */
    ENOUGH = 4,       /* units of work for a thread, so that others can help it */
    TALL_GAP =
        1024   /* floats between what threads write: lines next to another's come and go as processors read ahead */
};

struct tall {
    const struct fnn_linear_backward_weight_args *args;
    const float *a, *b; /* N,rows and N,columns */
    struct tall_pixels pixels; /* where b's rows lie */
    ptrdiff_t rows, columns, tiles, slices;
    float *panel; /* this thread's copy of a slice */
    float *parts; /* of the sum, rows,columns and a bias each, or null */
};

/* A unit of work for one block: rows [first, first + depth) of both operands. */
struct tall_block {
    struct fnn_range slices;
    ptrdiff_t first, depth;
    float *y; /* rows,columns */
    float *sums; /* of dy, or null */
    bool accumulate;
};

/* The lines of `rows` rows of `width` floats, `step` apart. */
static struct gemm_fetch lines_of(const float *first, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t step) {
    const ptrdiff_t floats = GEMM_LINE / (ptrdiff_t)sizeof(float);
    if (width == step) {
        width *= rows;
        rows = fnn_min(rows, 1);
    }
    const ptrdiff_t lines = fnn_ceil_div(width, floats);
    return (struct gemm_fetch){
        .line = (uintptr_t)first,
        .left = lines,
        .lines = lines,
        .rows = rows,
        .skip = (size_t)step * sizeof(float) - (size_t)(lines * GEMM_LINE),
    };
}

/* Rows of b from `index` on, at most `most`, that lie pixels.step apart. */
struct tall_run {
    const float *first;
    ptrdiff_t count;
};

static struct tall_run run_at(const struct tall *t, ptrdiff_t index, ptrdiff_t most) {
    const struct tall_pixels *p = &t->pixels;
    const ptrdiff_t row = index / p->width, place = index % p->width;
    return (struct tall_run){
        .first = t->b + row / p->height * p->image + row % p->height * p->row + place * p->step,
        .count = fnn_min(p->width - place, most),
    };
}

/* The lines that the next block's rows take of b's slices, then those of a: asked for while this block's tiles run. Behind the last row
 * other slices begin. */
static void find_next_lines(const struct tall *t, const struct tall_block *block, struct gemm_fetch *lines) {
    struct fnn_range slices = block->slices;
    ptrdiff_t next = block->first + block->depth;
    if (next == t->args->batch) {
        next = 0;
        slices = (struct fnn_range){slices.end, fnn_min(2 * slices.end - slices.begin, t->slices)};
    }
    const ptrdiff_t depth = slices.begin < t->slices ? fnn_min(t->args->batch - next, block->depth) : 0;
    const ptrdiff_t column = slices.begin * FNN_GEMM_COLUMNS;
    const ptrdiff_t width = fnn_min(slices.end * FNN_GEMM_COLUMNS, t->columns) - column;
    const ptrdiff_t chunks = fnn_max(fnn_ceil_div(block->depth, GEMM_CHUNK), 1);
    const ptrdiff_t tiles = (block->slices.end - block->slices.begin) * t->tiles;
    struct gemm_fetch *last = lines;
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < depth; last++) {
        const struct tall_run run = run_at(t, next + i, depth - i);
        *last = lines_of(run.first + column, run.count, width, t->pixels.step);
        last->next = last + 1;
        count += last->rows * last->lines;
        i += run.count;
    }
    *last = lines_of(t->a + next * t->rows, depth, t->rows, t->rows);
    count = fnn_ceil_div(count + last->rows * last->lines, chunks * tiles);
    for (; last >= lines; last--) last->count = count;
}

/* Copies a slice of some columns of a block. */
static void copy_slice(const struct tall *t, const struct tall_block *block, ptrdiff_t column, ptrdiff_t columns) {
    const ptrdiff_t width = gemm_width(columns);
    for (ptrdiff_t i = 0; i < block->depth;) {
        const struct tall_run run = run_at(t, block->first + i, block->depth - i);
        gemm_pack_rows(run.first + column, t->pixels.step, columns, run.count, width, t->panel + i * width);
        i += run.count;
    }
}

/* All tiles of one slice, as even as they come; strip: what all have in common. */
static void multiply_slice(const struct tall *t, const struct tall_block *block, ptrdiff_t slice,
                           struct gemm_packed *strip) {
    const ptrdiff_t column = slice * FNN_GEMM_COLUMNS, rows = t->rows / t->tiles, higher = t->rows % t->tiles;
    const struct tall_run run = run_at(t, block->first, block->depth);
    strip->columns = fnn_min(t->columns - column, FNN_GEMM_COLUMNS);
    strip->source = run.first + column;
    strip->panel = t->rows >= COPY_ROWS || t->pixels.step % FEW_SETS == 0 ? t->panel : NULL;
    if (run.count < block->depth || strip->columns % FNN_LANES != 0) {
        copy_slice(t, block, column, strip->columns);
        strip->source = NULL;
        strip->panel = t->panel;
    }
    strip->a = t->a + block->first * t->rows;
    strip->y = block->y + column;
    for (ptrdiff_t i = 0; i < t->tiles; i += strip->tile_count) {
        strip->row_count = rows + (i < higher);
        strip->tile_count = i < higher ? higher : t->tiles - i;
        strip->a_next = strip->row_count;
        strip->y_next = strip->row_count * strip->y_step;
        FNN_FUNCTION(gemm_packed)(strip);
        if (strip->panel) strip->source = NULL; /* copied by now */
        strip->a += strip->tile_count * strip->a_next;
        strip->y += strip->tile_count * strip->y_next;
    }
}

static void multiply_block(const struct tall *t, const struct tall_block *block) {
    struct gemm_fetch lines[TALL_BLOCK + 1]; /* runs of b, and a */
    find_next_lines(t, block, lines);
    struct gemm_packed strip = {
        .a_step = t->rows,
        .depth = block->depth,
        .source_step = t->pixels.step,
        .y_step = t->columns,
        .accumulate = block->accumulate,
        .activation = FNN_ACTIVATION_NONE,
        .fetch = lines,
    };
    for (ptrdiff_t s = block->slices.begin; s < block->slices.end; s++) multiply_slice(t, block, s, &strip);
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
        block.y = t->parts + chunk * (weights + args->out_channels);
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
            add_parts_transposed(t->parts, args->chunks, part, t->rows, t->columns, i * FNN_LANES, args->dw);
    } else {
        add_parts(t->parts, args->chunks, part, fnn_share_blocks(weights, 1024, team), args->dw);
    }
    if (args->dbias && team->rank == team->size - 1)
        add_parts(t->parts + weights, args->chunks, part, (struct fnn_range){0, args->out_channels}, args->dbias);
}

void FNN_FUNCTION(linear_tall_weight)(const struct fnn_linear_backward_weight_args *args,
                                      const struct tall_pixels *pixels, const struct fnn_team *team) {
    struct tall t = {
        .args = args,
        .a = args->transposed ? args->x : args->dy,
        .b = args->transposed ? args->dy : args->x,
        .rows = args->transposed ? args->channels : args->out_channels,
        .columns = args->transposed ? args->out_channels : args->channels,
        .panel = args->workspace + team->rank * args->workspace_stride,
    };
    t.pixels = pixels ? *pixels : (struct tall_pixels){1, fnn_max(args->batch, 1), 0, 0, t.columns};
    t.tiles = fnn_ceil_div(t.rows, FNN_GEMM_ROWS);
    t.slices = fnn_ceil_div(t.columns, FNN_GEMM_COLUMNS);
    if (args->chunks > 1 || args->transposed) t.parts = args->workspace + team->size * args->workspace_stride;
    const ptrdiff_t groups = fnn_min(fnn_ceil_div(ENOUGH * team->size, args->chunks), t.slices);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(groups * args->chunks, 1, team); fnn_take(&work, &range);)
        for (; range.begin < range.end; range.begin++) {
            const ptrdiff_t group = range.begin / args->chunks;
            const struct fnn_range slices = {group * t.slices / groups, (group + 1) * t.slices / groups};
            run_chunk(&t, range.begin % args->chunks, slices);
        }
    if (!t.parts) return;
    fnn_barrier(team);
    combine(&t, team);
}
