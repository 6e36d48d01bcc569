/* How a sum over the rows of a matrix (rows, channels) is cut, by shape alone: rows -> at most FNN_ROW_BLOCKS blocks,
 * whose partial results stand in a workspace and are combined in order; block -> chunks that stay in the L1 cache, each
 * summed in registers. The error of a sum is thus that of `chunk` + 64 + rows/64/chunk additions, not of `rows`. */
#ifndef FASTNN_KERNELS_ROW_BLOCKS_H
#define FASTNN_KERNELS_ROW_BLOCKS_H

#include "kernel.h"

enum { FNN_ROW_BLOCKS = 64, FNN_CHUNK_FLOATS = 4096, FNN_CHUNK_ROWS_MIN = 8, FNN_CHUNK_ROWS_MAX = 256 };

struct row_blocks {
    ptrdiff_t rows;  /* of the matrix */
    ptrdiff_t chunk; /* rows of a chunk */
    ptrdiff_t block; /* rows of a block, a multiple of chunk */
    ptrdiff_t count; /* blocks */
};

static inline struct row_blocks row_blocks(ptrdiff_t rows, ptrdiff_t channels) {
    ptrdiff_t chunk = fnn_min(fnn_max(FNN_CHUNK_FLOATS / fnn_max(channels, 1), FNN_CHUNK_ROWS_MIN), FNN_CHUNK_ROWS_MAX);
    ptrdiff_t block = chunk * fnn_max(fnn_ceil_div(fnn_ceil_div(rows, chunk), FNN_ROW_BLOCKS), 1);
    return (struct row_blocks){rows, chunk, block, fnn_ceil_div(rows, block)};
}

/* Blocks of `block` rows, the last one maybe shorter. */
static inline struct row_blocks equal_blocks(ptrdiff_t rows, ptrdiff_t block) {
    return (struct row_blocks){rows, block, block, fnn_ceil_div(rows, block)};
}

static inline struct fnn_range row_block(const struct row_blocks *blocks, ptrdiff_t index) {
    ptrdiff_t begin = index * blocks->block;
    return (struct fnn_range){begin, fnn_min(begin + blocks->block, blocks->rows)};
}

#endif
