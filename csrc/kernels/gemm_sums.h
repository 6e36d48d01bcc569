/* Where the sums of a register tile meet memory: y[i*step + v*lanes ...], `last` columns of the last vector. What is asked once, not
 * for each vector, is whether that vector is whole. All of rows and vectors are constants after inlining. */
#ifndef FASTNN_GEMM_SUMS_H
#define FASTNN_GEMM_SUMS_H

#include "gemm.h"
#include "lanes.h"

FNN_INLINE void gemm_add_lanes(const float *y, ptrdiff_t step, ptrdiff_t last, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                               int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++, y += step) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = vec_add(load_lanes(y + v * FNN_LANES, v == vectors - 1 ? last : FNN_LANES), sum[i][v]);
    }
}

FNN_INLINE void gemm_store_lanes(float *y, ptrdiff_t step, ptrdiff_t last, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                                 int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++, y += step) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            store_lanes(y + v * FNN_LANES, sum[i][v], v == vectors - 1 ? last : FNN_LANES);
    }
}

/* sum[i][v] = y + sum[i][v]. */
FNN_INLINE void gemm_add(const float *y, ptrdiff_t step, ptrdiff_t last, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                         int rows, int vectors) {
    if (last == FNN_LANES)
        gemm_add_lanes(y, step, FNN_LANES, sum, rows, vectors);
    else
        gemm_add_lanes(y, step, last, sum, rows, vectors);
}

/* y = sum[i][v]. */
FNN_INLINE void gemm_store(float *y, ptrdiff_t step, ptrdiff_t last, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                           int vectors) {
    if (last == FNN_LANES)
        gemm_store_lanes(y, step, FNN_LANES, sum, rows, vectors);
    else
        gemm_store_lanes(y, step, last, sum, rows, vectors);
}

#endif
