/* The register tile of gemm.h, one function for each number of rows and vectors, so that a partial tile costs what it
 * does and no more. */
#include "gemm.h"
#include "lanes.h"

const float FNN_FUNCTION(gemm_zeros)[GEMM_DEPTH] = {0};

FNN_INLINE void load_sums(const struct gemm_tile *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                          int vectors) {
    ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        const float *y = tile->y + tile->offset[i];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = v == vectors - 1 ? vec_load_partial(y + v * FNN_LANES, last) : vec_load(y + v * FNN_LANES);
    }
}

/* `steps` steps of the sum, a constant: each row pointer is fetched once for all of them. */
FNN_INLINE void multiply_steps(const float *const *a, ptrdiff_t d, const float *b, int steps,
                               vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < steps * vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int step = 0; step < steps; step++) {
            vec row = vec_set1(a[i][d + step]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(row, column[step * vectors + v], sum[i][v]);
        }
    }
}

FNN_INLINE void multiply(const struct gemm_tile *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                         int vectors) {
    const int steps = FNN_GEMM_VECTORS / vectors; /* narrow panels leave registers for several */
    const ptrdiff_t width = vectors * FNN_LANES;
    for (ptrdiff_t t = 0; t < tile->runs; t++) {
        const float *a[FNN_GEMM_ROWS], *b = tile->panel + tile->step[t] * width;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) a[i] = tile->rows[t][i];
        ptrdiff_t d = 0;
        for (; d + steps <= tile->depth; d += steps, b += steps * width)
            multiply_steps(a, d, b, steps, sum, rows, vectors);
        if (steps > 1)
            for (; d < tile->depth; d++, b += width) multiply_steps(a, d, b, 1, sum, rows, vectors);
    }
}

/* Bias, residual and activation: each is asked for once. */
FNN_INLINE void finish_sums(const struct gemm_tile *tile, ptrdiff_t last, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                            int rows, int vectors) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        const ptrdiff_t lanes = v == vectors - 1 ? last : FNN_LANES;
        if (tile->bias) {
            const vec bias = load_lanes(tile->bias + v * FNN_LANES, lanes);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) sum[i][v] = vec_add(sum[i][v], bias);
        }
        if (tile->residual) {
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++)
                sum[i][v] =
                    vec_add(sum[i][v], vec_load_partial(tile->residual + tile->offset[i] + v * FNN_LANES, lanes));
        }
    }
    if (tile->activation == FNN_ACTIVATION_NONE) return;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = gemm_activate(sum[i][v], tile->activation);
    }
}

FNN_INLINE void store_sums(const struct gemm_tile *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                           int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
    if (tile->bias || tile->residual || tile->activation) finish_sums(tile, last, sum, rows, vectors);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *y = tile->y + tile->offset[i];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            if (v < vectors - 1)
                vec_store(y + v * FNN_LANES, sum[i][v]);
            else
                vec_store_partial(y + v * FNN_LANES, sum[i][v], last);
    }
}

FNN_INLINE void run_tile(const struct gemm_tile *tile, int rows, int vectors) {
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
    if (tile->accumulate) {
        load_sums(tile, sum, rows, vectors);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = vec_zero();
        }
    }
    multiply(tile, sum, rows, vectors);
    store_sums(tile, sum, rows, vectors);
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_tile
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_tile)(const struct gemm_tile *tile) {
    ptrdiff_t vectors = fnn_ceil_div(tile->columns, FNN_LANES);
    tiles[tile->row_count - 1][vectors - 1](tile);
}
