/* The register tiles of gemm_packed.h. */
#include "gemm_packed.h"
#include "gemm_step.h"
#include "gemm_sums.h"

/* Asks for the lines of one chunk. */
FNN_INLINE void fetch_lines(struct gemm_fetch *fetch) {
    for (ptrdiff_t l = fetch->rows > 0 ? fetch->count : 0; l > 0; l--) {
        __builtin_prefetch((const void *)fetch->line, 0, 2);
        fetch->line += GEMM_LINE;
        if (--fetch->left > 0) continue;
        fetch->left = fetch->lines;
        fetch->line += fetch->skip;
        if (--fetch->rows > 0) continue;
        if (!fetch->next) return;
        *fetch = *fetch->next;
    }
}

/* b: steps b_step apart; copied to `copy`, step by step, if that is not null. It is asked at each step, and chunks of any length are one
 * loop, for a loop of its own for each case would be most of the code and no faster. */
FNN_INLINE void multiply(const struct gemm_packed *strip, const float *a, const float *b, ptrdiff_t b_step, float *copy,
                         vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows, int vectors) {
    const ptrdiff_t a_step = strip->a_step, copies = copy != NULL;
    for (ptrdiff_t left = strip->depth; left > 0; left -= GEMM_CHUNK) {
        fetch_lines(strip->fetch);
        for (ptrdiff_t d = fnn_hidden(fnn_min(left, GEMM_CHUNK)); d > 0; d--, a += a_step, b += b_step) {
            gemm_step(a, b, sum, rows, vectors);
            if (!fnn_hidden(copies)) continue;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) vec_store(copy + v * FNN_LANES, vec_load(b + v * FNN_LANES));
            copy += vectors * FNN_LANES;
        }
    }
}

/* Sums of zero; y is asked for meanwhile, unless it is only written. */
FNN_INLINE void start_sums(const float *y, ptrdiff_t y_step, bool ask, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS],
                           int rows, int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (ask) __builtin_prefetch(y + i * y_step + v * FNN_LANES, 1);
            sum[i][v] = vec_zero();
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

FNN_INLINE void stream_sums(float *y, ptrdiff_t y_step, vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS], int rows,
                            int vectors) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vec_stream(y + i * y_step + v * FNN_LANES, sum[i][v]);
    }
}

FNN_INLINE void run_tiles(const struct gemm_packed *strip, int rows, int vectors) {
    const ptrdiff_t y_step = strip->y_step;
    const bool accumulate = strip->accumulate, stream = strip->stream;
    const bool in_place = strip->source && !strip->panel;
    const float *panel = in_place ? strip->source : strip->panel;
    const ptrdiff_t panel_step = in_place ? strip->source_step : vectors * FNN_LANES;
    const float *a = strip->a, *bias = strip->bias;
    float *y = strip->y;
    for (ptrdiff_t t = 0; t < strip->tile_count; t++) {
        vec sum[FNN_GEMM_ROWS][FNN_GEMM_VECTORS];
        start_sums(y, y_step, !stream, sum, rows, vectors);
        const bool copies = strip->source && strip->panel && t == 0;
        multiply(strip, a, copies ? strip->source : panel, copies ? strip->source_step : panel_step,
                 copies ? strip->panel : NULL, sum, rows, vectors);
        const ptrdiff_t last =
            strip->columns - (vectors - 1) * FNN_LANES; /* not before: its mask would take a register */
        if (accumulate) gemm_add(y, y_step, last, sum, rows, vectors);
        if (bias || strip->activation) finish_sums(strip, bias, sum, rows, vectors);
        if (stream)
            stream_sums(y, y_step, sum, rows, vectors);
        else
            gemm_store(y, y_step, last, sum, rows, vectors);
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
