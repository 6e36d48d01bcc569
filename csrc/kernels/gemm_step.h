/* One step of the register tiles whose left operand lies side by side. All sizes are constants after inlining. */
#ifndef FASTNN_GEMM_STEP_H
#define FASTNN_GEMM_STEP_H

#include "gemm.h"
#include "lanes.h"

/* sum[i][j] += a[i] * b[j], one fused multiply-add each. */
FNN_INLINE void gemm_step(const float *a, const float *b, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                          int vectors) {
    vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        const vec row = vec_set1(a[i]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(row, column[v], sum[i][v]);
    }
}

#endif
