/* The register tile of products whose left operand has its rows at equal distances: strips (conv2d_strip.h), matrices.
 *
 *   y[i][j] = activation(bias[j] + residual[i][j] + start[i][j] + sum over r < runs, s < inner_runs, d < depth of
 *                        x[r*run_step + s*inner_step + i*row_step + d] * panel[((r*inner_runs + s)*depth + d)*width + j])
 *
 * panel: steps, width (gemm.h)   y, residual: element (i, j) at [i*y_step + j]   bias: columns, or null   residual may be null or y
 *
 * start is y as it was with `accumulate`, else zero. The sum runs over r, s, d in this order, one fused multiply-add each: error bound and tile invariance as in gemm.h. */
#ifndef FASTNN_GEMM_STRIP_H
#define FASTNN_GEMM_STRIP_H

#include "gemm.h"
#include "lanes.h"

/* Whether y, rows x columns, all written, should go past the caches and can: whole lines of a cache at a time. */
static inline bool gemm_streams(const float *residual, const float *y, ptrdiff_t rows, ptrdiff_t columns) {
    enum { LINE = 16 }; /* floats */
    return streams(residual, y, rows * columns) && columns % LINE == 0 && (uintptr_t)y % (LINE * sizeof(float)) == 0;
}

/* Where six rows of a single vector would wait for their own sums, a tile may have twice as many. The height of the next tile: at
 * most `left` rows, of `columns` columns. */
enum { GEMM_STRIP_TALL = FNN_GEMM_ROWS < 8 ? 2 * FNN_GEMM_ROWS : FNN_GEMM_ROWS };
static inline ptrdiff_t gemm_strip_rows(ptrdiff_t left, ptrdiff_t columns) {
    if (columns <= FNN_LANES && left >= GEMM_STRIP_TALL) return GEMM_STRIP_TALL;
    return fnn_ceil_div(left, fnn_ceil_div(left, FNN_GEMM_ROWS));
}

struct gemm_strip {
    const float *x;
    ptrdiff_t row_step, runs, run_step, inner_runs, inner_step, depth;
    const float *panel;
    ptrdiff_t row_count, columns; /* at most FNN_GEMM_ROWS and FNN_GEMM_COLUMNS, or GEMM_STRIP_TALL and FNN_LANES */
    float *y;
    ptrdiff_t y_step;
    bool accumulate;
    bool stream; /* y is written past the caches: gemm_streams, and only without `accumulate` */
    const float *bias, *residual;
    enum fnn_activation activation;
    uintptr_t
        fetch; /* not 0, for one run: at step d the line at fetch + d*FNN_GEMM_ROWS*4 is asked for; need not be in bounds */
};

void FNN_FUNCTION(gemm_strip)(const struct gemm_strip *tile);

#endif
