/* The register tile of gemm_outer.h. */
#include "gemm_outer.h"
#include "gemm_step.h"
#include "lanes.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void multiply(const struct gemm_outer *tile, bool scattered, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                            int rows, int vectors) {
    for (ptrdiff_t d = 0; d < tile->depth; d++) {
        const float *a = tile->a + (scattered ? tile->a_at[d] : d * tile->a_stride), *b = tile->b[d] + tile->b_first;
        gemm_step(a, b, sum, rows, vectors);
    }
}

ALWAYS_INLINE void run_tile(const struct gemm_outer *tile, int rows, int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(tile->y + i * tile->y_stride + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
    if (tile->a_at)
        multiply(tile, true, sum, rows, vectors);
    else
        multiply(tile, false, sum, rows, vectors);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *y = tile->y + i * tile->y_stride + v * FNN_LANES;
            ptrdiff_t lanes = v == vectors - 1 ? last : FNN_LANES;
            store_lanes(y, tile->accumulate ? vec_add(load_lanes(y, lanes), sum[i][v]) : sum[i][v], lanes);
        }
    }
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_outer
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_outer)(const struct gemm_outer *tile) {
    tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
