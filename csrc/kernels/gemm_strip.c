/* The register tile of gemm_strip.h. */
#include "gemm_strip.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { MOST_ROWS = GEMM_STRIP_TALL, QUADS = (MOST_ROWS + 3) / 4 };

/* One run. Rows are addressed in quads, at 0, 1, 2 and 3 row steps from one pointer, so that all addresses fit in registers. */
ALWAYS_INLINE const float *multiply_run(const float *x, ptrdiff_t row_step, ptrdiff_t depth, const float *b,
                                        bool fetching, uintptr_t fetch, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows,
                                        int vectors) {
    const ptrdiff_t three_steps = 3 * row_step;
    const float *quad[QUADS];
#pragma GCC unroll 4
    for (int i = 0; i < (rows + 3) / 4; i++) quad[i] = x + 4 * i * row_step;
    for (ptrdiff_t d = 0; d < depth; d++, b += vectors * FNN_LANES) {
        vec column[FNN_GEMM_VECTORS];
        if (fetching) {
            __builtin_prefetch((const void *)fetch, 0, 2);
            fetch += FNN_GEMM_ROWS * sizeof(float);
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) column[v] = vec_load(b + v * FNN_LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            vec row = vec_set1(quad[i / 4][i % 4 == 3 ? three_steps : i % 4 * row_step]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = vec_fma(row, column[v], sum[i][v]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < (rows + 3) / 4; i++) quad[i]++;
    }
    return b;
}

ALWAYS_INLINE void store_sums(const struct gemm_strip *tile, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows,
                              int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        ptrdiff_t lanes = v == vectors - 1 ? last : FNN_LANES;
        vec bias = tile->bias ? vec_load_partial(tile->bias + v * FNN_LANES, lanes) : vec_zero();
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            ptrdiff_t at = i * tile->y_step + v * FNN_LANES;
            vec a = tile->bias ? vec_add(sum[i][v], bias) : sum[i][v];
            if (tile->residual) a = vec_add(a, vec_load_partial(tile->residual + at, lanes));
            a = gemm_activate(a, tile->activation);
            if (tile->stream)
                vec_stream(tile->y + at, a);
            else
                vec_store_partial(tile->y + at, a, lanes);
        }
    }
}

ALWAYS_INLINE void start_sums(const struct gemm_strip *tile, vec sum[MOST_ROWS][FNN_GEMM_VECTORS], int rows,
                              int vectors) {
    const ptrdiff_t last = tile->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const float *y = tile->y + i * tile->y_step + v * FNN_LANES;
            sum[i][v] = vec_zero();
            if (tile->accumulate) sum[i][v] = vec_load_partial(y, v == vectors - 1 ? last : FNN_LANES);
        }
    }
}

ALWAYS_INLINE void run_tile(const struct gemm_strip *tile, int rows, int vectors) {
    vec sum[MOST_ROWS][FNN_GEMM_VECTORS];
    start_sums(tile, sum, rows, vectors);
    const float *b = tile->panel;
    if (tile->fetch) {
        multiply_run(tile->x, tile->row_step, tile->depth, b, true, tile->fetch, sum, rows, vectors);
    } else {
        for (ptrdiff_t r = 0; r < tile->runs; r++)
            for (ptrdiff_t s = 0; s < tile->inner_runs; s++)
                b = multiply_run(tile->x + r * tile->run_step + s * tile->inner_step, tile->row_step, tile->depth, b,
                                 false, 0, sum, rows, vectors);
    }
    store_sums(tile, sum, rows, vectors);
}

#define RUN_TILE run_tile
#define TILE_STRUCT gemm_strip
#include "gemm_tiles.h"

static void tall_tile(const struct gemm_strip *tile) { run_tile(tile, GEMM_STRIP_TALL, 1); }

void FNN_FUNCTION(gemm_strip)(const struct gemm_strip *tile) {
    if (tile->row_count > FNN_GEMM_ROWS)
        tall_tile(tile);
    else
        tiles[tile->row_count - 1][fnn_ceil_div(tile->columns, FNN_LANES) - 1](tile);
}
