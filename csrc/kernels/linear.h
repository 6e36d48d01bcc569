/* What the linear kernels share. */
#ifndef FASTNN_LINEAR_H
#define FASTNN_LINEAR_H

#include "gemm.h"

/* At most this many rows: stream the weights, forward and backward. */
enum { LINEAR_STREAM_ROWS = 16, LINEAR_STREAM_BACK_ROWS = 4 };

void FNN_FUNCTION(linear_stream)(const struct fnn_linear_forward_args *args, const struct fnn_team *team);
void FNN_FUNCTION(linear_stream_backward)(const struct fnn_linear_backward_data_args *args,
                                          const struct fnn_team *team);

#endif
