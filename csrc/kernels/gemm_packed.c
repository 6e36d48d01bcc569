/* The register tiles of gemm_packed.h. */
#include "gemm_packed.h"
#include "gemm_step.h"

/* Asks for the lines of one chunk. */
FNN_INLINE void fetch_lines(struct gemm_fetch *fetch) {
    for (ptrdiff_t l = fetch->rows > 0 ? fetch->count : 0; l > 0; l--) {
        __builtin_prefetch((const void *)fetch->line, 0, 2);
        fetch->line += GEMM_LINE;
        if (--fetch->left > 0) continue;
        fetch->left = fetch->lines;
        fetch->line += fetch->skip;
        if (--fetch->rows == 0) return;
    }
}

/* b: steps b_step apart; copied to `copy`, step by step, if that is not null. */
FNN_INLINE void multiply(const struct gemm_packed *strip, const float *a, const float *b, ptrdiff_t b_step, float *copy,
                         vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const ptrdiff_t a_step = strip->a_step;
    for (ptrdiff_t left = strip->depth; left > 0; left -= GEMM_CHUNK) {
        fetch_lines(strip->fetch);
        for (ptrdiff_t d = fnn_min(left, GEMM_CHUNK); d > 0; d--, a += a_step, b += b_step) {
            gemm_step(a, b, sum, rows, vectors);
            if (!copy) continue;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) vec_store(copy + v * FNN_LANES, vec_load(b + v * FNN_LANES));
            copy += vectors * FNN_LANES;
        }
    }
}

/* Sums of zero; y is asked for meanwhile, unless it is only written. */
FNN_INLINE void start_sums(const struct gemm_packed *strip, const float *y, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                           int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (!strip->stream) __builtin_prefetch(y + i * strip->y_step + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
        }
    }
}

/* Adds what y holds. */
FNN_INLINE void add_y(const struct gemm_packed *strip, const float *first, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                      int rows, int vectors) {
    const ptrdiff_t last = strip->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        const float *y = first + i * strip->y_step;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec before = v == vectors - 1 ? vec_load_partial(y + v * FNN_LANES, last) : vec_load(y + v * FNN_LANES);
            sum[i][v] = vec_add(before, sum[i][v]);
        }
    }
}

/* Bias and activation. */
FNN_INLINE void finish_sums(const struct gemm_packed *strip, const float *first,
                            vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const ptrdiff_t last = strip->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        if (!first) continue;
        const vec bias = vec_load_partial(first + v * FNN_LANES, v == vectors - 1 ? last : FNN_LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) sum[i][v] = vec_add(sum[i][v], bias);
    }
    if (strip->activation == FNN_ACTIVATION_NONE) return;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = gemm_activate(sum[i][v], strip->activation);
    }
}

FNN_INLINE void store_sums(const struct gemm_packed *strip, float *first, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                           int rows, int vectors) {
    const ptrdiff_t last = strip->columns - (vectors - 1) * FNN_LANES;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        float *y = first + i * strip->y_step;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (v < vectors - 1)
                vec_store(y + v * FNN_LANES, sum[i][v]);
            else
                vec_store_partial(y + v * FNN_LANES, sum[i][v], last);
        }
    }
}

FNN_INLINE void stream_sums(const struct gemm_packed *strip, float *first, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                            int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_stream(first + i * strip->y_step + v * FNN_LANES, sum[i][v]);
    }
}

FNN_INLINE void run_tiles(const struct gemm_packed *strip, int rows, int vectors) {
    const float *a = strip->a, *panel = strip->panel, *bias = strip->bias;
    float *y = strip->y;
    for (ptrdiff_t t = 0; t < strip->tile_count; t++) {
        vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
        start_sums(strip, y, sum, rows, vectors);
        if (strip->source && t == 0)
            multiply(strip, a, strip->source, strip->source_step, strip->panel, sum, rows, vectors);
        else
            multiply(strip, a, panel, vectors * FNN_LANES, NULL, sum, rows, vectors);
        if (strip->accumulate) add_y(strip, y, sum, rows, vectors);
        if (bias || strip->activation) finish_sums(strip, bias, sum, rows, vectors);
        if (strip->stream)
            stream_sums(strip, y, sum, rows, vectors);
        else
            store_sums(strip, y, sum, rows, vectors);
        a += strip->a_next;
        panel += strip->panel_next;
        y += strip->y_next;
        if (bias) bias += strip->bias_next;
    }
}

#define RUN_TILE run_tiles
#define TILE_STRUCT gemm_packed
#include "gemm_tiles.h"

void FNN_FUNCTION(gemm_packed)(const struct gemm_packed *strip) {
    tiles[strip->row_count - 1][fnn_ceil_div(strip->columns, FNN_LANES) - 1](strip);
}
