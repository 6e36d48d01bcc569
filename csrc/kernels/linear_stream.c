/* Linear forward and backward for few rows, or few outputs: each weight is read, or written, once, at the speed of memory.
 *
 *   y[n,k] = activation(bias[k] + sum over c of x[n,c] * w[k,c])      shapes and aliasing in linear.c
 *
 *   dx[n,c] = sum over k of dy[n,k] * w[k,c]
 *
 * Forward: dot products with vectors along c, OUTPUTS outputs at a time so that as many streams of w are in flight, and up to
 * DOT_ROWS rows against each vector of weights. The lanes of a dot product are summed apart, then added in halves:
 * |error| <= gamma_(ceil(C/lanes) + log2(lanes)) * sum |x||w| (first term twice on the scalar ISA) and one rounding for the bias.
 *
 * Parallel over blocks of outputs, or of rows where outputs are few; a dot product is never cut.
 *
 * Backward: OUTPUTS_BACK rows of w at a time are added to dx, which stays in cache, in the order of k: |error| <= gamma_K * sum |dy||w|
 * (2*K on the scalar ISA). Parallel over blocks of columns.
 *
 *   dw[k,c] = sum over n of dy[n,k] * x[n,c]
 *
 * Weight gradient: dw is written once, row by row, and past the caches where it is large: |error| <= gamma_N * sum |dy||x| (2*N on the
 * scalar ISA). Parallel over blocks of outputs.
 */
#include "linear.h"

enum { OUTPUTS = 4, DOT_ROWS = FNN_GEMM_ROWS >= 14 ? 6 : 2 };

/* One step along c: vectors of `lanes` floats, whole ones if `whole`. */
FNN_INLINE void dot_step(const float *x, const float *const w[OUTPUTS], ptrdiff_t depth, ptrdiff_t c, bool whole,
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
FNN_INLINE void dot_tile(const float *x, const float *const w[OUTPUTS], ptrdiff_t depth, int rows,
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

static void run_outputs(const struct fnn_linear_forward_args *args, struct fnn_range range, struct fnn_range some) {
    const ptrdiff_t depth = args->channels, count = some.end - some.begin, tiles = fnn_ceil_div(count, DOT_ROWS);
    const enum fnn_activation activation = (enum fnn_activation)args->activation;
    for (ptrdiff_t k = range.begin; k < range.end; k += OUTPUTS) {
        ptrdiff_t outputs = fnn_min(range.end - k, OUTPUTS);
        const float *w[OUTPUTS]; /* an output that does not exist repeats the last one */
        for (ptrdiff_t j = 0; j < OUTPUTS; j++) w[j] = args->weight + (k + fnn_min(j, outputs - 1)) * depth;
        for (ptrdiff_t i = 0; i < tiles; i++) {
            ptrdiff_t row = some.begin + i * count / tiles, rows = some.begin + (i + 1) * count / tiles - row;
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

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    const struct fnn_range rows = {0, args->batch}, outputs = {0, args->out_channels};
    struct fnn_range range;
    if (args->out_channels <= LINEAR_FEW_OUTPUTS) {
        for (struct fnn_work work = fnn_work(args->batch, 2 * DOT_ROWS, team); fnn_take(&work, &range);)
            run_outputs(args, outputs, range);
        return;
    }
    for (struct fnn_work work = fnn_work(args->out_channels, 4 * OUTPUTS, team); fnn_take(&work, &range);)
        run_outputs(args, range, rows);
}

enum { OUTPUTS_BACK = 8 };

/* One vector of add_rows. */
FNN_INLINE void add_vector(const float *w, ptrdiff_t channels, const float *dy, ptrdiff_t rows, ptrdiff_t dy_stride,
                           int outputs, bool first, ptrdiff_t lanes, float *dx) {
    vec weight[OUTPUTS_BACK];
#pragma GCC unroll 8
    for (int j = 0; j < outputs; j++) weight[j] = vec_load_partial(w + j * channels, lanes);
    for (ptrdiff_t n = 0; n < rows; n++) {
        vec sum = first ? vec_zero() : vec_load_partial(dx + n * channels, lanes);
#pragma GCC unroll 8
        for (int j = 0; j < outputs; j++) sum = vec_fma(vec_set1(dy[n * dy_stride + j]), weight[j], sum);
        vec_store_partial(dx + n * channels, sum, lanes);
    }
}

/* dx[c...] (+)= the sum of `outputs` rows of w, which are args->channels apart, times dy. */
FNN_INLINE void add_rows(const float *w, ptrdiff_t channels, const float *dy, ptrdiff_t rows, ptrdiff_t dy_stride,
                         int outputs, bool first, struct fnn_range range, float *dx) {
    ptrdiff_t c = range.begin;
    for (; c + FNN_LANES <= range.end; c += FNN_LANES)
        add_vector(w + c, channels, dy, rows, dy_stride, outputs, first, FNN_LANES, dx + c);
    if (c < range.end) add_vector(w + c, channels, dy, rows, dy_stride, outputs, first, range.end - c, dx + c);
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

enum { OUTPUTS_WEIGHT = 4 };

/* Vector c of `outputs` rows of dw. `streamed`: past the caches, which needs whole, aligned vectors. */
FNN_INLINE void outer_vector(const struct fnn_linear_backward_weight_args *args, ptrdiff_t k, ptrdiff_t c, int outputs,
                             ptrdiff_t lanes, bool streamed) {
    const ptrdiff_t channels = args->channels;
    vec sum[OUTPUTS_WEIGHT];
#pragma GCC unroll 4
    for (int j = 0; j < outputs; j++) sum[j] = vec_zero();
    for (ptrdiff_t n = 0; n < args->batch; n++) {
        const vec x = vec_load_partial(args->x + n * channels + c, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < outputs; j++)
            sum[j] = vec_fma(vec_set1(args->dy[n * args->out_channels + k + j]), x, sum[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < outputs; j++) {
        float *dw = args->dw + (k + j) * channels + c;
        if (streamed)
            vec_stream(dw, sum[j]);
        else
            vec_store_partial(dw, sum[j], lanes);
    }
}

FNN_INLINE void outer_rows(const struct fnn_linear_backward_weight_args *args, ptrdiff_t k, int outputs,
                           bool streamed) {
    ptrdiff_t c = 0;
    for (; c + FNN_LANES <= args->channels; c += FNN_LANES) outer_vector(args, k, c, outputs, FNN_LANES, streamed);
    if (c < args->channels) outer_vector(args, k, c, outputs, args->channels - c, false);
}

void FNN_FUNCTION(linear_stream_weight)(const struct fnn_linear_backward_weight_args *args,
                                        const struct fnn_team *team) {
    const size_t vector = FNN_LANES * sizeof(float);
    const bool aligned = (uintptr_t)args->dw % vector == 0 && args->channels % FNN_LANES == 0;
    const bool streamed = aligned && args->channels * args->out_channels >= LINEAR_STREAM_STORES;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->out_channels, 4 * OUTPUTS_WEIGHT, team); fnn_take(&work, &range);) {
        ptrdiff_t k = range.begin;
        for (; k + OUTPUTS_WEIGHT <= range.end; k += OUTPUTS_WEIGHT) {
            if (streamed)
                outer_rows(args, k, OUTPUTS_WEIGHT, true);
            else
                outer_rows(args, k, OUTPUTS_WEIGHT, false);
        }
        for (; k < range.end; k++) outer_rows(args, k, 1, false);
    }
    if (streamed) vec_fence();
}
