/* The register tile of gemm_packed.h. */
#include "gemm_packed.h"
#include "gemm_step.h"

FNN_INLINE void multiply(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                         int vectors) {
    const ptrdiff_t width = vectors * FNN_LANES, a_step = tile->a_step;
    const float *a = tile->a, *b = tile->panel;
    const size_t second = tile->fetch_second;
    uintptr_t fetch = tile->fetch;
    for (ptrdiff_t left = tile->depth; left > 0; left -= GEMM_CHUNK, fetch += tile->fetch_chunk) {
        uintptr_t line = fetch;
        for (ptrdiff_t l = 0; l < tile->fetch_count; l++, line += tile->fetch_line) {
            __builtin_prefetch((const void *)line, 0, 2);
            __builtin_prefetch((const void *)(line + second), 0, 2);
        }
        for (ptrdiff_t d = fnn_min(left, GEMM_CHUNK); d > 0; d--, a += a_step, b += width)
            gemm_step(a, b, sum, rows, vectors);
    }
}

/* Sums of zero; y is asked for meanwhile, unless it is only written. */
FNN_INLINE void start_sums(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                           int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (!tile->stream) __builtin_prefetch(tile->y + i * tile->y_step + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
}

/* Adds what y holds. */
FNN_INLINE void add_y(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        const float *y = tile->y + i * tile->y_step;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec before = v == vectors - 1 ? vec_load_partial(y + v * FNN_LANES, last) : vec_load(y + v * FNN_LANES);
            sum[i][v] = vec_add(before, sum[i][v]);
        }
    }
}

/* Bias and activation. */
FNN_INLINE void finish_sums(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                            int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        if (!tile->bias) continue;
        const vec bias = vec_load_partial(tile->bias + v * FNN_LANES, v == vectors - 1 ? last : FNN_LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) sum[i][v] = vec_add(sum[i][v], bias);
    }
    if (tile->activation == FNN_ACTIVATION_NONE) return;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = gemm_activate(sum[i][v], tile->activation);
    }
}

FNN_INLINE void store_sums(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                           int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *y = tile->y + i * tile->y_step;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (v < vectors - 1)
                vec_store(y + v * FNN_LANES, sum[i][v]);
            else
                vec_store_partial(y + v * FNN_LANES, sum[i][v], last);
        }
    }
}

FNN_INLINE void stream_sums(const struct gemm_packed *tile, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                            int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_stream(tile->y + i * tile->y_step + v * FNN_LANES, sum[i][v]);
    }
}

FNN_INLINE void run_tile(const struct gemm_packed *tile, int rows, int vectors) {
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
    start_sums(tile, sum, rows, vectors);
    multiply(tile, sum, rows, vectors);
    if (tile->accumulate) add_y(tile, sum, rows, vectors);
    if (tile->bias || tile->activation) finish_sums(tile, sum, rows, vectors);
    if (tile->stream)
        stream_sums(tile, sum, rows, vectors);
    else
        store_sums(tile, sum, rows, vectors);
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_packed
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_packed)(const struct gemm_packed *tile) {
    tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
