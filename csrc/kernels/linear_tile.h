/* The register tile of a linear layer's forward pass whose weights are read as they stand (linear_transposed.c):
 *
 *   sum[i*sum_row + j] = start + sum over d < depth of w[i*w_row + d] * panel[d*width + j],   i < row_count, j < columns
 *
 * w: outputs, inputs   panel: steps, width (gemm.h)   sum: whole vectors, columns of the last one without meaning included
 *
 * start is what sum held with `accumulate`, else nothing. The sum runs over d, one fused multiply-add each, from zero: the
 * same sum in whatever tile the element falls. While it runs, the line of w `fetch` floats behind each one it reads is asked for,
 * if fetch is not 0: it need not be in bounds.
 */
#ifndef FASTNN_LINEAR_TILE_H
#define FASTNN_LINEAR_TILE_H

#include "gemm.h"

/* Where six rows of a single vector would wait for their own sums, a tile may have twice as many. */
enum { LINEAR_TILE_TALL = FNN_GEMM_ROWS < 8 ? FNN_GEMM_ROWS + 2 : FNN_GEMM_ROWS };

struct linear_tile {
    const float *w;
    ptrdiff_t w_row, depth, fetch;
    const float *panel;
    ptrdiff_t row_count, columns; /* at most FNN_GEMM_ROWS and FNN_GEMM_COLUMNS, or LINEAR_TILE_TALL and FNN_LANES */
    float *sum;
    ptrdiff_t sum_row;
    bool accumulate;
};

void FNN_FUNCTION(linear_tile)(const struct linear_tile *tile);

#endif
