/* The register tile of products whose left operand has its rows at equal distances: strips (conv2d_strip.h), matrices.
 *
 *   y[i][j] = activation(bias[j] + residual[i][j] + start[i][j] + sum over d < depth of
 *                        x[i*row_step + offset(d)] * panel[d*width + j])
 *
 * offset(d) is offsets[d], or d where there are none.
 * panel: depth, width (gemm.h)   y, residual: element (i, j) at [i*y_step + j]   bias: columns, or null   residual may be null or y
 *
 * start is y as it was with `accumulate`, else zero. The sum runs over d in this order, one fused multiply-add each: error bound and
 * tile invariance as in gemm.h. */
#ifndef FASTNN_GEMM_STRIP_H
#define FASTNN_GEMM_STRIP_H

#include "gemm.h"
#include "lanes.h"

struct gradient_sums;

/* Whether y, rows x columns, all written, should go past the caches and can: whole lines of a cache at a time. */
static inline bool gemm_streams(const float *residual, const float *y, ptrdiff_t rows, ptrdiff_t columns) {
    return streams(residual, y, rows * columns) && columns % FNN_LINE == 0 &&
           (uintptr_t)y % (FNN_LINE * sizeof(float)) == 0;
}

struct gemm_strip {
    const float *x;
    ptrdiff_t row_step, depth;
    const int32_t *offsets; /* depth, or null */
    const float *panel;
    ptrdiff_t row_count, columns; /* any number of rows, at most FNN_GEMM_COLUMNS columns */
    float *y;
    ptrdiff_t y_step;
    bool accumulate;
    bool stream; /* y is written past the caches: gemm_streams, and only without `accumulate` */
    const float *bias, *residual;
    enum fnn_activation activation;
    float *moments; /* of the columns, y_step apart, to which the rows of y are added (block_moments.h); or null */
    ptrdiff_t moment_rows_seen;
    const struct gradient_sums *gradient; /* or null: y is a gradient, added to `sums` (gradient_sums.h) */
    ptrdiff_t gradient_at, gradient_channel; /* of element (0, 0): its place, and its channel */
    ptrdiff_t
        gradient_ahead; /* from an element of gradient->x to the one that is asked for meanwhile; need not be in bounds */
    float *sums;
    uintptr_t
        fetch; /* not 0, with rows side by side: while a tile runs, as many floats as it reads are asked for; they stand as far
                        from here as its own from x, and need not be in bounds */
};

void FNN_FUNCTION(gemm_strip)(const struct gemm_strip *strip);

#endif
