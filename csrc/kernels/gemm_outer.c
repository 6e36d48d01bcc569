/* The register tile of gemm_outer.h. */
#include "gemm_outer.h"
#include "gemm_step.h"
#include "gemm_sums.h"

FNN_INLINE void multiply(const struct gemm_outer *tile, bool asks, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                         int vectors) {
    const ptrdiff_t depth = tile->depth, stride = tile->a_stride, first = tile->b_first;
    const float *a = tile->a;
    uintptr_t next = tile->next;
    for (ptrdiff_t d = 0; d < depth; d++) {
        if (asks) {
            __builtin_prefetch((const void *)next);
            next += (size_t)tile->next_stride * sizeof(float);
        }
        gemm_step(a, tile->b[d] + first, sum, rows, vectors);
        a += stride;
    }
}

FNN_INLINE void run_tile(const struct gemm_outer *tile, int rows, int vectors) {
    float *y = tile->y;
    const ptrdiff_t y_stride = tile->y_stride;
    const bool accumulate = tile->accumulate;
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(y + i * y_stride + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
    if (tile->next)
        multiply(tile, true, sum, rows, vectors);
    else
        multiply(tile, false, sum, rows, vectors);
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
    if (accumulate) gemm_add(y, y_stride, last, sum, rows, vectors);
    gemm_store(y, y_stride, last, sum, rows, vectors);
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_outer
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_outer)(const struct gemm_outer *tile) {
    tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
