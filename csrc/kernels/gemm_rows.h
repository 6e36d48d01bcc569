/* Products of a matrix as it stands by packed panels: convolutions with filters of one pixel.
 *
 *   y[i][j] = activation(bias[j] + residual[i][j] + sum over d < depth of x[i*depth + d] * b(d, j)),   i < rows, j < columns
 *
 * x rows, depth   packed: b in the panels of gemm.h, whole depth   bias: columns, or null
 * y, residual rows, columns; residual may be null, or y if depth <= GEMM_DEPTH
 *
 * A strip of rows, some tiles, stays in the first-level cache while it goes by all panels. The rows of the next one are
 * fetched meanwhile: they lie side by side, but a tile reads them abreast, which hardware does not foresee. A large y goes
 * past the caches (lanes.h). Parallel over strips of rows, or blocks whose moments are asked for, and panels. Error bound and
 * tile invariance as in gemm.h.
 */
#ifndef FASTNN_GEMM_ROWS_H
#define FASTNN_GEMM_ROWS_H

#include "gemm.h"

struct gemm_rows {
    const float *x, *packed, *bias, *residual;
    float *y;
    ptrdiff_t rows, columns, depth;
    enum fnn_activation activation;
    ptrdiff_t block_rows; /* rows of y whose moments or sums are taken at a time, or 0 */
    float *moments;       /* block_moments.h, or null */
    const struct gradient_sums *gradient; /* with sums (gradient_sums.h), or null */
    float *sums;
};

void FNN_FUNCTION(gemm_rows)(const struct gemm_rows *product, const struct fnn_team *team);

#endif
