/* The register tiles of winograd_gemm.h. */
#include "winograd_gemm.h"

/* One vector wide, two tiles of the full height have no more sums than one of two vectors, and load less for each. */
enum { TALL_ROWS = 2 * FNN_GEMM_ROWS };

/* Addresses of many rows at one distance, in bytes: each of GROUP_ROWS rows is that of the first and a multiple of 1, 3 or 5 times the
 * distance, which the load makes itself. As many pointers as rows do not fit the registers. */
enum { GROUP_ROWS = 7, GROUPS = (TALL_ROWS + GROUP_ROWS - 1) / GROUP_ROWS };
struct groups {
    const char *first[GROUPS];
    ptrdiff_t once, thrice, five;
};

FNN_INLINE struct groups groups_of(const float *v, ptrdiff_t row_stride, int rows) {
    const ptrdiff_t once = row_stride * (ptrdiff_t)sizeof(float);
    struct groups groups = {.once = once, .thrice = 3 * once, .five = 5 * once};
#pragma GCC unroll 4
    for (int i = 0; i * GROUP_ROWS < rows; i++) groups.first[i] = (const char *)v + i * GROUP_ROWS * once;
    return groups;
}

/* The element of each row at this step; those of the next one come after it. */
FNN_INLINE vec group_element(const struct groups *groups, int row) {
    const int i = row % GROUP_ROWS;
    const ptrdiff_t offset = i == 3   ? groups->thrice
                             : i == 5 ? groups->five
                             : i == 6 ? 2 * groups->thrice
                                      : i * groups->once;
    return vec_set1(*(const float *)(const void *)(groups->first[row / GROUP_ROWS] + offset));
}
FNN_INLINE void next_elements(struct groups *groups, int rows) {
    groups->once = fnn_hidden(groups->once);
    groups->thrice = fnn_hidden(groups->thrice);
    groups->five = fnn_hidden(groups->five);
#pragma GCC unroll 4
    for (int i = 0; i * GROUP_ROWS < rows; i++)
        groups->first[i] = (const char *)fnn_hidden((ptrdiff_t)groups->first[i] + (ptrdiff_t)sizeof(float));
}

/* The steps of one run. */
FNN_INLINE void multiply_run(const struct winograd_gemm *tile, const float *v, const float *u, uintptr_t next_v,
                             uintptr_t next_u, vec sum[TALL_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const bool many = rows > GROUP_ROWS;
    const float *row[GROUP_ROWS];
    struct groups groups = groups_of(v, tile->row_stride, rows);
#pragma GCC unroll 16
    for (int i = 0; i < rows && !many; i++) row[i] = v + i * tile->row_stride;
    for (ptrdiff_t d = 0; d < tile->depth; d++, u += vectors * FNN_LANES) {
#pragma GCC unroll 2
        for (int i = 0; i < rows; i += FNN_GEMM_ROWS, next_v += FNN_LINE * sizeof(float))
            __builtin_prefetch((const void *)next_v, 0, 2);
        __builtin_prefetch((const void *)next_u, 0, 2);
        next_u += (size_t)tile->next_u_step * sizeof(float);
        vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
        for (int k = 0; k < vectors; k++) column[k] = vec_load(u + k * FNN_LANES);
#pragma GCC unroll 28
        for (int i = 0; i < rows; i++) {
            const vec a = many ? group_element(&groups, i) : vec_set1(row[i][d]);
#pragma GCC unroll 4
            for (int k = 0; k < vectors; k++) sum[i][k] = vec_fma(a, column[k], sum[i][k]);
        }
        if (many) next_elements(&groups, rows);
    }
}

/* The first of the tiles. */
FNN_INLINE void multiply(const struct winograd_gemm *tile, int rows, int vectors) {
    vec sum[TALL_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 28
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = tile->accumulate ? vec_load(tile->m + i * tile->m_stride + v * FNN_LANES) : vec_zero();
    }
    for (ptrdiff_t t = 0; t < tile->runs; t++) {
        const ptrdiff_t run = t * tile->run_stride, done = t * tile->depth;
        multiply_run(tile, tile->v + run, tile->u + done * vectors * FNN_LANES,
                     tile->next_v + (size_t)run * sizeof(float),
                     tile->next_u + (size_t)(done * tile->next_u_step) * sizeof(float), sum, rows, vectors);
    }
#pragma GCC unroll 28
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(tile->m + i * tile->m_stride + v * FNN_LANES, sum[i][v]);
    }
}

/* `count` tiles of so many rows; *tile is then the one below. */
FNN_INLINE void multiply_tiles(struct winograd_gemm *tile, ptrdiff_t count, int rows, int vectors) {
    const size_t next_u_bytes = (size_t)(tile->runs * tile->depth * tile->next_u_step) * sizeof(float);
    for (; count > 0; count--) {
        multiply(tile, rows, vectors);
        tile->v += rows * tile->row_stride;
        tile->m += rows * tile->m_stride;
        tile->next_v += (size_t)(rows * tile->row_stride) * sizeof(float);
        tile->next_u += next_u_bytes;
    }
}

/* All of them. */
FNN_INLINE void run_tiles(const struct winograd_gemm *given, int rows, int vectors) {
    struct winograd_gemm tile = *given;
    const ptrdiff_t pairs = vectors == 1 && rows == FNN_GEMM_ROWS ? given->tiles / 2 : 0;
    if (vectors == 1 && rows == FNN_GEMM_ROWS) {
        tile.next_u_step *= 2;
        multiply_tiles(&tile, pairs, TALL_ROWS, 1);
        tile.next_u_step = given->next_u_step;
    }
    multiply_tiles(&tile, given->tiles - 2 * pairs, rows, vectors);
}

#define RUN_TILE run_tiles
#define TILE_STRUCT winograd_gemm
#include "gemm_tiles.h"

void FNN_FUNCTION(winograd_gemm)(const struct winograd_gemm *tile) {
    tiles[tile->rows - 1][tile->columns / FNN_LANES - 1](tile);
}
