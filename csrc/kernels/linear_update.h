/* The register tile of a linear layer's gradient of its input, on weights as they stand (linear_backward_rows.c):
 *
 *   sum[n*width + c] = start + sum over k < row_count of dy[n*row_count + k] * w[k*w_row + c],   n < batch, c < columns
 *
 * w: outputs, inputs   dy: batch, row_count   sum: batch, width; width = columns rounded up to FNN_LANES
 *
 * start is what sum held with `accumulate`, else zero. The weights stay in registers while all rows pass. The sum runs over k, one
 * fused multiply-add each. The same columns of the next row_count outputs are asked for; they need not be in bounds.
 */
#ifndef FASTNN_LINEAR_UPDATE_H
#define FASTNN_LINEAR_UPDATE_H

#include "gemm.h"

struct linear_update {
    const float *w;
    ptrdiff_t w_row, row_count, columns; /* outputs, at most FNN_GEMM_ROWS; at most FNN_GEMM_COLUMNS */
    const float *dy;
    ptrdiff_t batch;
    float *sum;
    bool accumulate;
};

void FNN_FUNCTION(linear_update)(const struct linear_update *tile);

#endif
