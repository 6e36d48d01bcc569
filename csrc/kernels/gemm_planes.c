/* The register tile of gemm_planes.h. */
#include "gemm_planes.h"
#include "lanes.h"

enum { MOST_SUMS = FNN_GEMM_ROWS * FNN_GEMM_VECTORS };

/* All weights of a step stay in registers while its vectors pass by, one after the other. */
FNN_INLINE void run_tile(const struct gemm_planes *tile, int rows, int vectors) {
    if (rows * vectors > MOST_SUMS) return; /* nobody asks for it */
    const float *weights = tile->weights, *x = tile->x;
    const int32_t *offsets = tile->offsets, *end = offsets + tile->depth;
    const ptrdiff_t weight_step = tile->weight_step, y_stride = tile->y_stride, fetch_step = tile->fetch_step;
    const enum fnn_activation activation = tile->activation;
    uintptr_t fetch = tile->fetch;
    float *y = tile->y;
    vec sum[PLANES_ROWS][PLANES_VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_zero();
    }
    for (; offsets < end; offsets++, weights += weight_step, fetch += (uintptr_t)fetch_step) {
        const float *from = x + *offsets;
        vec weight[PLANES_ROWS];
        __builtin_prefetch((const void *)fetch, 0, 2);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) weight[i] = vec_set1(weights[i]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            const vec pixels = vec_load(from + v * FNN_LANES);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) sum[i][v] = vec_fma(weight[i], pixels, sum[i][v]);
        }
    }
    if (tile->bias) {
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            const vec bias = vec_set1(tile->bias[i]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[i][v] = vec_add(sum[i][v], bias);
        }
    }
    if (activation != FNN_ACTIVATION_NONE) {
#pragma GCC unroll 32
        for (int i = 0; i < rows * vectors; i++)
            sum[i / vectors][i % vectors] = gemm_activate(sum[i / vectors][i % vectors], activation);
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++, y += y_stride) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) vec_store(y + v * FNN_LANES, sum[i][v]);
    }
}

#define TILE(rows, vectors) \
    static void tile_##rows##_##vectors(const struct gemm_planes *tile) { run_tile(tile, rows, vectors); }
#define TILES(vectors) TILE(1, vectors) TILE(2, vectors) TILE(3, vectors) TILE(4, vectors)
#define ENTRY(vectors) {tile_1_##vectors, tile_2_##vectors, tile_3_##vectors, tile_4_##vectors},
#define ALL_VECTORS(each) each(1) each(2) each(3) each(4) each(5) each(6) each(7) each(8)

ALL_VECTORS(TILES)

/* tiles[vectors - 1][rows - 1] */
static void (*const tiles[PLANES_VECTORS][PLANES_ROWS])(const struct gemm_planes *) = {ALL_VECTORS(ENTRY)};

void FNN_FUNCTION(gemm_planes)(const struct gemm_planes *tile) { tiles[tile->vectors - 1][tile->rows - 1](tile); }
