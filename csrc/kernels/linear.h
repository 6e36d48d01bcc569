/* What the linear kernels share. */
#ifndef FASTNN_LINEAR_H
#define FASTNN_LINEAR_H

#include "gemm.h"

enum {
    LINEAR_STREAM_ROWS = 16,                       /* at most this many rows: stream the weights */
    LINEAR_SCRATCH = 256 * 4 * FNN_GEMM_COLUMNS    /* floats of workspace a thread: 4 panels, 256 steps deep */
};

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);

#endif
