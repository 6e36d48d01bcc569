/* The register tile of products whose operands are both packed (gemm_blocked.h).
 *
 *   y[i][j] = activation(bias[j] + (start[i][j] + sum over d < depth of a[d*a_step + i] * panel[d*width + j]))
 *
 * a: `row_count` neighbours at each step   panel: steps, width (gemm.h)
 * y: element (i, j) at [i*y_step + j]   bias: columns, or null
 *
 * start is y as it was with `accumulate`, else nothing. The sum runs over d, one fused multiply-add each, from zero: the same
 * sum in whatever tile the element falls. |error| <= gamma_depth * sum |a||b| (2*depth on the scalar ISA), and one rounding
 * each for the start and the bias.
 *
 * While it runs it asks for memory that is needed soon, a few lines every GEMM_CHUNK steps: asking for all at once stalls.
 */
#ifndef FASTNN_GEMM_PACKED_H
#define FASTNN_GEMM_PACKED_H

#include "gemm.h"

enum { GEMM_CHUNK = 16 };

struct gemm_packed {
    const float *a;
    ptrdiff_t a_step, depth;
    const float *panel;
    ptrdiff_t row_count, columns; /* at most FNN_GEMM_ROWS and FNN_GEMM_COLUMNS */
    float *y;
    ptrdiff_t y_step;
    bool accumulate;
    bool stream; /* y is written past the caches: only without `accumulate`, y and its rows aligned, in whole vectors */
    const float *bias;
    enum fnn_activation activation;
    /* In chunk c: the lines at fetch + c*fetch_chunk + l*fetch_line, and those
   * fetch_second behind them, l < fetch_count. In bytes; need not be in bounds.
   */
    uintptr_t fetch;
    size_t fetch_chunk, fetch_line, fetch_second;
    ptrdiff_t fetch_count;
};

void FNN_FUNCTION(gemm_packed)(const struct gemm_packed *tile);

#endif
