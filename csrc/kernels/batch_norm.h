/* What the batch normalisation kernels share.
 *
 * For channel c:  y = (x - mean) * scale + bias,  scale = weight * inverse_deviation.
 * The mean of float32 data is seldom a float32: with mean 1e4 and deviation 1 the nearest one is off by 5e-4 deviations.
 * It is therefore kept as two floats, mean + remainder, and  y = (x - mean) * scale + shift  with
 * shift = bias - remainder * scale  costs nothing more.
 *
 * statistics (3, C): mean, remainder, inverse_deviation = 1 / sqrt(variance + eps). */
#ifndef FASTNN_KERNELS_BATCH_NORM_H
#define FASTNN_KERNELS_BATCH_NORM_H

#include "moments.h"

/* Workspace of every batch normalisation kernel: FNN_BATCH_NORM_ROWS * C floats. */
enum {
    FNN_BATCH_NORM_SCALE = 2 * FNN_ROW_BLOCKS, /* rows of the workspace: two partial results for each block, then */
    FNN_BATCH_NORM_SHIFT,
    FNN_BATCH_NORM_SLOPE,
    FNN_BATCH_NORM_OFFSET,
    FNN_BATCH_NORM_ROWS
};

/* Channel c's scale and shift: the same bits wherever they are computed. weight, bias (C) may be null. */
static inline float batch_norm_scale(const float *weight, const float *statistics, ptrdiff_t channels, ptrdiff_t c) {
    float inverse_deviation = statistics[2 * channels + c];
    return weight ? weight[c] * inverse_deviation : inverse_deviation;
}
static inline float batch_norm_shift(const float *bias, float scale, const float *statistics, ptrdiff_t channels,
                                     ptrdiff_t c) {
    return (bias ? bias[c] : 0.0f) - statistics[channels + c] * scale;
}

/* dy where the ReLU, or the ReLU6, with result y was open, else 0. */
FNN_INLINE vec open_gradient(vec dy, vec y) { return vec_select(vec_less_equal(y, vec_zero()), vec_zero(), dy); }
FNN_INLINE vec open_gradient_6(vec dy, vec y) {
    return vec_select(vec_less_equal(vec_set1(6.0f), y), vec_zero(), open_gradient(dy, y));
}

#endif
