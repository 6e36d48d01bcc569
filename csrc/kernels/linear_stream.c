/* Linear forward and backward data for few rows: each weight is read once, at the speed of memory.
 *
 *   y[n,k] = activation(bias[k] + sum over c of x[n,c] * w[k,c])      shapes and aliasing in linear.c
 *
 *   dx[n,c] = sum over k of dy[n,k] * w[k,c]
 *
 * Forward: dot products with vectors along c, OUTPUTS outputs at a time so that as many streams of w are in flight, and up to
 * DOT_ROWS rows against each vector of weights. The lanes of a dot product are summed apart, then added in halves:
 * |error| <= gamma_(ceil(C/lanes) + log2(lanes)) * sum |x||w| (first term twice on the scalar ISA) and one rounding for the bias.
 *
 * Parallel over blocks of outputs; a dot product is never cut.
 *
 * Backward: OUTPUTS_BACK rows of w at a time are added to dx, which stays in cache, in the order of k: |error| <= gamma_K * sum |dy||w|
 * (2*K on the scalar ISA). Parallel over blocks of columns.
 */
#include "linear.h"

enum { OUTPUTS = 4, DOT_ROWS = FNN_GEMM_ROWS >= 14 ? 6 : 2 };

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* One step along c: vectors of `lanes` floats, whole ones if `whole`. */
ALWAYS_INLINE void dot_step(const float *x, const float *const w[OUTPUTS], ptrdiff_t depth, ptrdiff_t c, bool whole,
                            ptrdiff_t lanes, int rows, vec sum[DOT_ROWS][OUTPUTS]) {
    vec weight[OUTPUTS];
#pragma GCC unroll 4
    for (int j = 0; j < OUTPUTS; j++) weight[j] = whole ? vec_load(w[j] + c) : vec_load_partial(w[j] + c, lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        vec a = whole ? vec_load(x + i * depth + c) : vec_load_partial(x + i * depth + c, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < OUTPUTS; j++) sum[i][j] = vec_fma(a, weight[j], sum[i][j]);
    }
}

/* Dot products of `rows` rows and OUTPUTS outputs. x: row stride `depth`; w[j]: the weights of output j. */
ALWAYS_INLINE void dot_tile(const float *x, const float *const w[OUTPUTS], ptrdiff_t depth, int rows,
                            float dot[DOT_ROWS][OUTPUTS]) {
    vec sum[DOT_ROWS][OUTPUTS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < OUTPUTS; j++) sum[i][j] = vec_zero();
    }
    ptrdiff_t c = 0;
    for (; c + FNN_LANES <= depth; c += FNN_LANES) dot_step(x, w, depth, c, true, FNN_LANES, rows, sum);
    if (c < depth) dot_step(x, w, depth, c, false, depth - c, rows, sum);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < OUTPUTS; j++) dot[i][j] = vec_sum(sum[i][j]);
    }
}

static void dot_rows(const float *x, const float *const w[OUTPUTS], ptrdiff_t depth, ptrdiff_t rows,
                     float dot[DOT_ROWS][OUTPUTS]) {
    switch (rows) {
    case 1: dot_tile(x, w, depth, 1, dot); break;
    case 2: dot_tile(x, w, depth, 2, dot); break;
#if FNN_GEMM_ROWS >= 14
    case 3: dot_tile(x, w, depth, 3, dot); break;
    case 4: dot_tile(x, w, depth, 4, dot); break;
    case 5: dot_tile(x, w, depth, 5, dot); break;
    case 6: dot_tile(x, w, depth, 6, dot); break;
#endif
    default: break;
    }
}

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    const ptrdiff_t depth = args->channels, tiles = fnn_ceil_div(args->batch, DOT_ROWS);
    const enum fnn_activation activation = (enum fnn_activation)args->activation;
    struct fnn_range range = fnn_share_blocks(args->out_channels, 4 * OUTPUTS, team);
    for (ptrdiff_t k = range.begin; k < range.end; k += OUTPUTS) {
        ptrdiff_t outputs = fnn_min(range.end - k, OUTPUTS);
        const float *w[OUTPUTS]; /* an output that does not exist repeats the last one */
        for (ptrdiff_t j = 0; j < OUTPUTS; j++) w[j] = args->weight + (k + fnn_min(j, outputs - 1)) * depth;
        for (ptrdiff_t i = 0; i < tiles; i++) {
            ptrdiff_t row = i * args->batch / tiles, rows = (i + 1) * args->batch / tiles - row;
            float dot[DOT_ROWS][OUTPUTS];
            dot_rows(args->x + row * depth, w, depth, rows, dot);
            vec bias = args->bias ? vec_load_partial(args->bias + k, fnn_min(outputs, FNN_LANES)) : vec_zero();
            for (ptrdiff_t n = 0; n < rows; n++) {
                vec y = vec_add(vec_load_partial(dot[n], OUTPUTS), bias);
                vec_store_partial(args->y + (row + n) * args->out_channels + k, gemm_activate(y, activation), outputs);
            }
        }
    }
}

enum { OUTPUTS_BACK = 8 };

/* dx[c...] (+)= the sum of `outputs` rows of w, which are args->channels apart, times dy. */
ALWAYS_INLINE void add_rows(const float *w, ptrdiff_t channels, const float *dy, ptrdiff_t rows, ptrdiff_t dy_stride,
                            int outputs, bool first, struct fnn_range range, float *dx) {
    for (ptrdiff_t c = range.begin; c < range.end; c += FNN_LANES) {
        const ptrdiff_t lanes = fnn_min(range.end - c, FNN_LANES);
        vec weight[OUTPUTS_BACK];
#pragma GCC unroll 8
        for (int j = 0; j < outputs; j++) weight[j] = vec_load_partial(w + j * channels + c, lanes);
        for (ptrdiff_t n = 0; n < rows; n++) {
            vec sum = first ? vec_zero() : vec_load_partial(dx + n * channels + c, lanes);
#pragma GCC unroll 8
            for (int j = 0; j < outputs; j++) sum = vec_fma(vec_set1(dy[n * dy_stride + j]), weight[j], sum);
            vec_store_partial(dx + n * channels + c, sum, lanes);
        }
    }
}

void FNN_FUNCTION(linear_stream_backward)(const struct fnn_linear_backward_data_args *args,
                                          const struct fnn_team *team) {
    const ptrdiff_t channels = args->channels, outputs = args->out_channels;
    const struct fnn_range range = fnn_share_blocks(channels, 4 * FNN_LANES, team);
    ptrdiff_t k = 0;
    for (; k + OUTPUTS_BACK <= outputs; k += OUTPUTS_BACK)
        add_rows(args->weight + k * channels, channels, args->dy + k, args->batch, outputs, OUTPUTS_BACK, k == 0, range,
                 args->dx);
    for (; k < outputs; k++)
        add_rows(args->weight + k * channels, channels, args->dy + k, args->batch, outputs, 1, k == 0, range, args->dx);
}
