/* The register tile of gemm_taps.h. */
#include "gemm_taps.h"
#include "lanes.h"

enum { FEW_SUMS = 8 }; /* two multiply-adds a cycle that take four cycles each */

/* sum[i][v] += a[taps[i]] * vector v of b; with `ones` the last sum is one of b alone. */
FNN_INLINE void multiply_step(const float *a, const ptrdiff_t taps[FNN_GEMM_ROWS], const float *b, bool ones,
                              vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows - ones; i++) {
        const vec tap = vec_set1(a[taps[i]]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(tap, column[v], sum[i][v]);
    }
    if (!ones) return;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[rows - 1][v] = vec_add(sum[rows - 1][v], column[v]);
}

/* The steps one after the other. */
FNN_INLINE void multiply(const struct gemm_taps *tile, const ptrdiff_t taps[FNN_GEMM_ROWS], bool ones,
                         vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const float *const *a = tile->a, *const *end = a + tile->depth, *b = tile->b;
    const ptrdiff_t b_step = tile->b_step, fetch_step = tile->fetch_step;
    uintptr_t fetch = tile->fetch;
    for (; a < end; a++, b += b_step, fetch += (uintptr_t)fetch_step) {
        __builtin_prefetch((const void *)fetch, 0, 2);
        multiply_step(*a, taps, b, ones, sum, rows, vectors);
    }
}

/* Two steps of one vector, for more rows than registers: a tap that comes from memory serves both. */
FNN_INLINE void multiply_pair(const float *const a[2], const ptrdiff_t taps[FNN_GEMM_ROWS], const float *const b[2],
                              bool ones, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows) {
    const float *const pixel = a[0], *const next = a[1];
    const vec column = vec_load(b[0]), next_column = vec_load(b[1]);
#pragma GCC unroll 16
    for (int i = 0; i < rows - ones; i++) {
        const ptrdiff_t tap = fnn_hidden(taps[i]);
        sum[i][0] = vec_fma(vec_set1(pixel[tap]), column, sum[i][0]);
        sum[i][0] = vec_fma(vec_set1(next[tap]), next_column, sum[i][0]);
    }
    if (ones) sum[rows - 1][0] = vec_add(vec_add(sum[rows - 1][0], column), next_column);
}

/* The steps in pairs, for one vector. Few rows: even and odd steps have sums of their own, which are added in the end. */
FNN_INLINE void multiply_pairs(const struct gemm_taps *tile, const ptrdiff_t taps[FNN_GEMM_ROWS], bool ones,
                               vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows) {
    const bool apart = FNN_GEMM_ROWS < FEW_SUMS;
    const float *const *a = tile->a, *const *end = a + tile->depth, *b = tile->b;
    const ptrdiff_t b_step = tile->b_step, fetch_step = 2 * tile->fetch_step;
    uintptr_t fetch = tile->fetch;
    vec odd[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) odd[i][0] = vec_zero();
    for (; end - a > 1; a += 2, b += 2 * b_step, fetch += (uintptr_t)fetch_step) {
        __builtin_prefetch((const void *)fetch, 0, 2);
        if (apart) {
            multiply_step(a[0], taps, b, ones, sum, rows, 1);
            multiply_step(a[1], taps, b + b_step, ones, odd, rows, 1);
        } else {
            multiply_pair(a, taps, (const float *const[2]){b, b + b_step}, ones, sum, rows);
        }
    }
    if (a < end) multiply_step(*a, taps, b, ones, sum, rows, 1);
#pragma GCC unroll 16
    for (int i = 0; i < rows && apart; i++) sum[i][0] = vec_add(sum[i][0], odd[i][0]);
}

FNN_INLINE void multiply_all(const struct gemm_taps *tile, const ptrdiff_t taps[FNN_GEMM_ROWS], bool ones,
                             vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    if (vectors == 1 && (FNN_GEMM_ROWS < FEW_SUMS || rows > FEW_SUMS))
        multiply_pairs(tile, taps, ones, sum, rows);
    else
        multiply(tile, taps, ones, sum, rows, vectors);
}

FNN_INLINE void run_tile(const struct gemm_taps *tile, int rows, int vectors) {
    const ptrdiff_t y_stride = tile->y_stride;
    float *y = tile->y;
    ptrdiff_t taps[FNN_GEMM_ROWS];
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        taps[i] = tile->taps[i];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(y + i * y_stride + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
    if (tile->ones)
        multiply_all(tile, taps, true, sum, rows, vectors);
    else
        multiply_all(tile, taps, false, sum, rows, vectors);
    const bool accumulate = tile->accumulate;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *to = y + i * y_stride + v * FNN_LANES;
            vec_store(to, accumulate ? vec_add(vec_load(to), sum[i][v]) : sum[i][v]);
        }
    }
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_taps
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_taps)(const struct gemm_taps *tile) {
    tiles[tile->tap_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
