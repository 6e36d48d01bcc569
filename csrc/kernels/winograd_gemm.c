/* The register tiles of winograd_gemm.h. */
#include "winograd_gemm.h"

enum { LINE = 16 }; /* floats of a cache line */

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The first of the tiles. */
ALWAYS_INLINE void multiply(const struct winograd_gemm *tile, int rows, int vectors) {
    vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = tile->accumulate ? vec_load(tile->m + i * tile->m_stride + v * FNN_LANES) : vec_zero();
    }
    const float *u = tile->u;
    uintptr_t next_u = tile->next_u;
    for (ptrdiff_t t = 0; t < tile->runs; t++) {
        const float *row[FNN_GEMM_ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) row[i] = tile->v + t * tile->run_stride + i * tile->row_stride;
        uintptr_t next_v = tile->next_v + (size_t)(t * tile->run_stride) * sizeof(float);
        for (ptrdiff_t d = 0; d < tile->depth; d++, u += vectors * FNN_LANES) {
            __builtin_prefetch((const void *)(next_v + (size_t)d * LINE * sizeof(float)), 0, 2);
            __builtin_prefetch((const void *)next_u, 0, 2);
            next_u += (size_t)tile->next_u_step * sizeof(float);
            vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) column[v] = vec_load(u + v * FNN_LANES);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
                const vec a = vec_set1(row[i][d]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(a, column[v], sum[i][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(tile->m + i * tile->m_stride + v * FNN_LANES, sum[i][v]);
    }
}

/* All of them. */
ALWAYS_INLINE void run_tiles(const struct winograd_gemm *given, int rows, int vectors) {
    struct winograd_gemm tile = *given;
    const size_t next_u_bytes = (size_t)(tile.runs * tile.depth * tile.next_u_step) * sizeof(float);
    for (ptrdiff_t i = 0; i < given->tiles; i++) {
        multiply(&tile, rows, vectors);
        tile.v += rows * tile.row_stride;
        tile.m += rows * tile.m_stride;
        tile.next_v += (size_t)(rows * tile.row_stride) * sizeof(float);
        tile.next_u += next_u_bytes;
    }
}

#define RUN_TILE run_tiles
#define TILE_STRUCT winograd_gemm
#include "gemm_tiles.h"

void FNN_FUNCTION(winograd_gemm)(const struct winograd_gemm *tile) {
    tiles[tile->rows - 1][tile->columns / FNN_LANES - 1](tile);
}
