/* Products of matrices of any size, blocked for the caches:
 *
 *   y[i][j] = activation(bias[j] + sum over d < depth of a(i, d) * b(d, j)),   i < rows, j < columns
 *
 * a(i, d) = a[i*a_row + d*a_step]   b(d, j) = b[d*b_step + j*b_column]; one step of each is 1
 * y: element (i, j) at [i*y_step + j]   bias: columns, or null
 * workspace: for each thread of the team workspace_stride floats, at least
 *   steps * (min(ceil(rows / gemm_rows), GEMM_TILE_STEPS / steps) * up(gemm_rows, lanes) +
 *            min(ceil(columns / gemm_columns), GEMM_PANEL_STEPS / steps) * gemm_columns),
 *   steps = min(depth, GEMM_DEPTH_BLOCK); up: rounded up.
 *
 * Each thread makes a rectangle of y, and packs what it needs of both operands: blocks of columns, the panels of gemm.h, just
 * before their first use, while the source of the panel after it is fetched; blocks of rows likewise. The reduction is cut into
 * equal blocks of at most GEMM_DEPTH_BLOCK steps (in whole chunks of 16) by its length alone; each block is summed in order, one
 * fused multiply-add a step, and the sums of the blocks are added in order. So |error| <= gamma_D * sum |a||b|,
 * D = min(depth, GEMM_DEPTH_BLOCK) + blocks (twice the first term on the scalar ISA), and one rounding for the bias; the bits are
 * the same for any team.
 *
 * A y that is written in one go, its depth being one block, is made tile by tile instead of panel by panel where it is large and sums are
 * short: pieces of rows as long as a block of columns. A very large one goes past the caches (lanes.h) as well.
 *
 * Source: Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008); Van Zee & van de Geijn, "BLIS" (2015).
 */
#ifndef FASTNN_GEMM_BLOCKED_H
#define FASTNN_GEMM_BLOCKED_H

#include "gemm.h"

enum {
    GEMM_DEPTH_BLOCK = 256,       /* a panel of this depth (AVX-512: 32 KB) fits the first-level cache */
    GEMM_TILE_STEPS = 32 * 256, /* steps of tiles of rows packed at a time (AVX-512: 448 rows of 256 steps, 512 KB) */
    GEMM_PANEL_STEPS = 32 * 256 /* steps of panels packed at a time (AVX-512: 1 MB): both fit the second-level cache */
};

/* Most tiles and panels of a block. */
static inline ptrdiff_t gemm_block_tiles(ptrdiff_t depth) {
    return GEMM_TILE_STEPS / fnn_max(fnn_min(depth, GEMM_DEPTH_BLOCK), 1);
}
static inline ptrdiff_t gemm_block_panels(ptrdiff_t depth) {
    return GEMM_PANEL_STEPS / fnn_max(fnn_min(depth, GEMM_DEPTH_BLOCK), 1);
}

struct gemm_product {
    const float *a;
    ptrdiff_t a_row, a_step;
    const float *b;
    ptrdiff_t b_column, b_step;
    const float *bias;
    float *y;
    ptrdiff_t y_step, rows, columns, depth;
    enum fnn_activation activation;
    float *workspace;
    ptrdiff_t workspace_stride;
};

void FNN_FUNCTION(gemm_blocked)(const struct gemm_product *product, const struct fnn_team *team);

#endif
