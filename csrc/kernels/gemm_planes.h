/* The register tile of products whose vectors lie along neighbouring pixels of a plane, by a few rows of weights:
 *
 *   y[i*y_stride + j] = activation(bias[i] + sum over d < depth of weights[d*weight_step + i] * x[offsets[d] + j]),
 *                       i < rows, j < vectors*FNN_LANES
 *
 * bias: rows, or null   rows <= PLANES_ROWS, vectors <= planes_vectors(rows); x + offsets[d] has that many whole vectors. No aliasing.
 *
 * The sum runs over d, one fused multiply-add each into one accumulator: error bound and tile invariance as in gemm.h. */
#ifndef FASTNN_GEMM_PLANES_H
#define FASTNN_GEMM_PLANES_H

#include "gemm.h"

enum { PLANES_ROWS = 4, PLANES_VECTORS = 8 };

/* Vectors side by side: as many sums as registers hold. */
static inline ptrdiff_t planes_vectors(ptrdiff_t rows) {
    return fnn_min(FNN_GEMM_ROWS * FNN_GEMM_VECTORS / rows, PLANES_VECTORS);
}

struct gemm_planes {
    const float *weights, *x;
    const int32_t *offsets;
    ptrdiff_t weight_step, depth, rows, vectors;
    const float *bias;
    enum fnn_activation activation;
    float *y;
    ptrdiff_t y_stride;
    uintptr_t fetch; /* at step d the line at fetch + d*fetch_step is asked for; need not be in bounds */
    ptrdiff_t fetch_step; /* bytes */
};

void FNN_FUNCTION(gemm_planes)(const struct gemm_planes *tile);

#endif
