/* The register tile of linear_tile.h. */
#include "linear_tile.h"

enum { MOST_ROWS = LINEAR_TILE_TALL, QUADS = (MOST_ROWS + 3) / 4 };

/* Rows of w, in quads: at 0, 1, 2 and 3 row steps from one pointer, so that all addresses fit in registers. */
struct rows {
    const float *quad[QUADS];
    ptrdiff_t step, three_steps;
};

FNN_INLINE const float *row_at(const struct rows *w, int i) {
    return w->quad[i / 4] + (i % 4 == 3 ? w->three_steps : i % 4 * w->step);
}

/* At most FNN_LINE steps. */
FNN_INLINE const float *multiply_line(struct rows *w, ptrdiff_t steps, const float *b,
                                      vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    for (; steps > 0; steps--, b += vectors * FNN_LANES) {
        vec column[FNN_GEMM_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vec weight = vec_set1(*row_at(w, i));
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(weight, column[v], sum[i][v]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) w->quad[i]++;
    }
    return b;
}

FNN_INLINE void multiply(const struct linear_tile *tile, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    struct rows w = {.step = tile->w_row, .three_steps = 3 * tile->w_row};
#pragma GCC unroll 4
    for (int i = 0; i < (rows + 3) / 4; i++) w.quad[i] = tile->w + 4 * i * tile->w_row;
    const float *b = tile->panel;
    const size_t fetch = (size_t)tile->fetch * sizeof(float);
    for (ptrdiff_t left = tile->depth; left > 0; left -= FNN_LINE) {
        if (fetch) {
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) __builtin_prefetch((const void *)((uintptr_t)row_at(&w, i) + fetch), 0, 2);
        }
        b = multiply_line(&w, fnn_min(left, FNN_LINE), b, sum, rows, vectors);
    }
}

FNN_INLINE void add_sums(const float *place, ptrdiff_t step, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows,
                         int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_add(vec_load(place + i * step + v * FNN_LANES), sum[i][v]);
    }
}

FNN_INLINE void run_tile(const struct linear_tile *tile, int rows, int vectors) {
    vec sum[MOST_ROWS][FNN_GEMM_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vec_zero();
    }
    multiply(tile, sum, rows, vectors);
    const ptrdiff_t step = tile->sum_row;
    float *place = tile->sum;
    if (tile->accumulate) add_sums(place, step, sum, rows, vectors);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_store(place + i * step + v * FNN_LANES, sum[i][v]);
    }
}

#define RUN_TILE run_tile
#define TILE_STRUCT linear_tile
#include "gemm_tiles.h"

static void tall_tile(const struct linear_tile *tile) { run_tile(tile, LINEAR_TILE_TALL, 1); }

void FNN_FUNCTION(linear_tile)(const struct linear_tile *tile) {
    if (LINEAR_TILE_TALL > FNN_GEMM_ROWS && tile->row_count > FNN_GEMM_ROWS)
        tall_tile(tile);
    else
        tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
