/* What the linear kernels share. */
#ifndef FASTNN_LINEAR_H
#define FASTNN_LINEAR_H

#include "gemm.h"
#include "lanes.h"

enum {
    /* at most this many rows: stream the weights */
    LINEAR_STREAM_ROWS = FNN_GEMM_ROWS >= 14 ? 6 : 4,
    LINEAR_STREAM_ROWS_NARROW = 16, /* likewise, where outputs are few */
    /* at most this many rows, but not more than outputs: weights are broadcast from where they stand */
    LINEAR_TRANSPOSED_ROWS = 128,
    LINEAR_TRANSPOSED_OUTPUTS = 64, /* at least */
    LINEAR_DEPTH_BLOCK = 256,     /* a panel of this depth (AVX-512: 32 KB) fits the first-level cache */
    LINEAR_DATA_ROWS = FNN_GEMM_ROWS >= 14 ? 16 : 8, /* likewise for the gradient of the input, from two rows on */
    LINEAR_DATA_SUMS = 4096, /* sums of a block of its columns: half of the first-level cache */
    /* at most this many rows: the gradient of the weights is not packed for. AVX2's sixteen registers are too few to use a row for
     * several outputs at once (NEON, which has more, and scalar follow it unmeasured) */
    LINEAR_WEIGHT_ROWS = FNN_GEMM_ROWS >= 14 ? 16 : 1,
    LINEAR_STREAM_STORES = 1 << 23 /* gradients of this many floats and more are written past the caches */
};

/* sums[k] (+)= sum over n < rows of dy[n*stride + k] for columns [begin, end), some vectors side by side: what one
 * line holds is used at once. */
static inline void linear_sum_rows(const float *dy, ptrdiff_t stride, ptrdiff_t rows, struct fnn_range columns,
                                   bool accumulate, float *sums) {
    enum { VECTORS = 4 };
    for (ptrdiff_t k = columns.begin; k < columns.end; k += VECTORS * FNN_LANES) {
        vec sum[VECTORS];
        for (int v = 0; v < VECTORS; v++) sum[v] = vec_zero();
        for (ptrdiff_t n = 0; n < rows; n++)
            for (int v = 0; v < VECTORS; v++) {
                const ptrdiff_t j = k + v * FNN_LANES;
                if (j < columns.end)
                    sum[v] = vec_add(sum[v], load_lanes(dy + n * stride + j, lanes_left(columns.end - j)));
            }
        for (int v = 0; v < VECTORS; v++) {
            const ptrdiff_t j = k + v * FNN_LANES, lanes = lanes_left(columns.end - j);
            if (j >= columns.end) break;
            store_lanes(sums + j, accumulate ? vec_add(load_lanes(sums + j, lanes), sum[v]) : sum[v], lanes);
        }
    }
}

/* Whether the forward pass is the transposed product: linear_transposed.c. */
static inline bool linear_is_transposed(ptrdiff_t batch, ptrdiff_t out_channels) {
    return batch > LINEAR_STREAM_ROWS && batch <= LINEAR_TRANSPOSED_ROWS &&
           out_channels >= fnn_max(batch, LINEAR_TRANSPOSED_OUTPUTS);
}

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_transposed)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_backward)(const struct fnn_linear_backward_data_args *args,
                                          const struct fnn_team *team);
void FNN_FUNCTION(linear_backward_rows)(const struct fnn_linear_backward_data_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_weight)(const struct fnn_linear_backward_weight_args *args,
                                        const struct fnn_team *team);
void FNN_FUNCTION(linear_tall_weight)(const struct fnn_linear_backward_weight_args *args, const struct fnn_team *team);

#endif
