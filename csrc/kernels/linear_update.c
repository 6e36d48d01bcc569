/* The register tile of linear_update.h. */
#include "linear_update.h"

/* Weights of the tile. */
FNN_INLINE void load_weights(const struct linear_update *tile, vec weight[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                             int vectors) {
    enum { LINE = 64 };
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int k = 0; k < rows; k++) {
        const float *w = tile->w + k * tile->w_row;
        const uintptr_t next = (uintptr_t)w + (size_t)(rows * tile->w_row) * sizeof(float);
#pragma GCC unroll 4
        for (int line = 0; line * LINE < vectors * FNN_LANES * 4; line++)
            __builtin_prefetch((const void *)(next + (size_t)(line * LINE)), 0, 2);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            weight[k][v] = v == vectors - 1 ? vec_load_partial(w + v * FNN_LANES, last) : vec_load(w + v * FNN_LANES);
    }
}

FNN_INLINE void update_rows(const struct linear_update *tile, const vec weight[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                            bool accumulate, int rows, int vectors) {
    const float *dy = tile->dy;
    float *place = tile->sum;
    for (ptrdiff_t n = tile->batch; n > 0; n--, dy += rows, place += vectors * FNN_LANES) {
        vec sum[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[v] = accumulate ? vec_load(place + v * FNN_LANES) : vec_zero();
#pragma GCC unroll 16
        for (int k = 0; k < rows; k++) {
            const vec factor = vec_set1(dy[k]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[v] = vec_fma(factor, weight[k][v], sum[v]);
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(place + v * FNN_LANES, sum[v]);
    }
}

FNN_INLINE void run_tile(const struct linear_update *tile, int rows, int vectors) {
    vec weight[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
    load_weights(tile, weight, rows, vectors);
    if (tile->accumulate)
        update_rows(tile, weight, true, rows, vectors);
    else
        update_rows(tile, weight, false, rows, vectors);
}

#define RUN_TILE run_tile
#define TILE_STRUCT linear_update
#include "gemm_tiles.h"

void FNN_FUNCTION(linear_update)(const struct linear_update *tile) {
    tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
