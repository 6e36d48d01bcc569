/* What the linear kernels share. */
#ifndef FASTNN_LINEAR_H
#define FASTNN_LINEAR_H

#include "gemm.h"

enum {
    LINEAR_STREAM_ROWS = 16, /* at most this many rows: stream the weights */
    /* likewise for the gradients: AVX2's sixteen registers are too few to use a weight for several rows at once (NEON, which has
     * more, and scalar follow it unmeasured) */
    LINEAR_STREAM_ROWS_BACK = FNN_GEMM_ROWS >= 14 ? 16 : 1,
    LINEAR_STREAM_STORES = 1 << 23 /* gradients of this many floats and more are written past the caches */
};

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_backward)(const struct fnn_linear_backward_data_args *args,
                                          const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_weight)(const struct fnn_linear_backward_weight_args *args,
                                        const struct fnn_team *team);

#endif
