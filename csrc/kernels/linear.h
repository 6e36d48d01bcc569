/* What the linear kernels share. */
#ifndef FASTNN_LINEAR_H
#define FASTNN_LINEAR_H

#include "gemm.h"

enum {
    /* at most this many rows: stream the weights */
    LINEAR_STREAM_ROWS = FNN_GEMM_ROWS >= 14 ? 6 : 4,
    LINEAR_STREAM_ROWS_NARROW = 16, /* likewise, where outputs are few */
    LINEAR_FEW_OUTPUTS = 4,
    LINEAR_LONG = 64,    /* so few outputs of so many channels: dot products in any number of rows */
    LINEAR_SHALLOW =
        16, /* so many outputs of fewer channels: weights are packed, dot products would take longer to add up */
    /* at most this many rows, but not more than outputs: weights are broadcast from where they stand */
    LINEAR_TRANSPOSED_ROWS = 128,
    LINEAR_TRANSPOSED_OUTPUTS = 64, /* at least */
    LINEAR_PACKED_WEIGHTS = 1 << 21, /* with more rows: at most so many weights are packed at once */
    LINEAR_DEPTH_BLOCK = 256,     /* a panel of this depth (AVX-512: 32 KB) fits the first-level cache */
    LINEAR_DATA_ROWS = 16, /* likewise for the gradient of the input, from two rows on */
    LINEAR_DATA_SUMS = 4096, /* sums of a block of its columns: half of the first-level cache */
    /* at most this many rows: the gradient of the weights is not packed for. AVX2's sixteen registers are too few to use a row for
     * several outputs at once (NEON, which has more, and scalar follow it unmeasured) */
    LINEAR_WEIGHT_ROWS = FNN_GEMM_ROWS >= 14 ? 16 : 1,
    LINEAR_STREAM_STORES = 1 << 23 /* gradients of this many floats and more are written past the caches */
};

/* Whether the forward pass is the transposed product: linear_transposed.c. */
static inline bool linear_is_transposed(ptrdiff_t batch, ptrdiff_t out_channels) {
    return batch > LINEAR_STREAM_ROWS && batch <= LINEAR_TRANSPOSED_ROWS &&
           out_channels >= fnn_max(batch, LINEAR_TRANSPOSED_OUTPUTS);
}

/* Whether it is dot products: linear_stream.c. */
static inline bool linear_is_streamed(ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t out_channels) {
    if (out_channels <= LINEAR_FEW_OUTPUTS && channels >= LINEAR_LONG) return true;
    return batch <= LINEAR_STREAM_ROWS_NARROW && (channels >= LINEAR_SHALLOW || out_channels < LINEAR_LONG);
}

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_transposed)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_rows)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_backward)(const struct fnn_linear_backward_data_args *args,
                                          const struct fnn_team *team);
void FNN_FUNCTION(linear_backward_rows)(const struct fnn_linear_backward_data_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_weight)(const struct fnn_linear_backward_weight_args *args,
                                        const struct fnn_team *team);

/* Rows of x that are pixels of images: row ((n*height + p)*width + q) lies n*image + p*row + q*step floats behind the first. */
struct tall_pixels {
    ptrdiff_t height, width, image, row, step;
};

/* pixels: null where x is a plain matrix; else it is not transposed. */
void FNN_FUNCTION(linear_tall_weight)(const struct fnn_linear_backward_weight_args *args,
                                      const struct tall_pixels *pixels, const struct fnn_team *team);

#endif
