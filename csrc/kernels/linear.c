/* Linear layer forward and backward, on weights as they stand:
 *
 *   linear_forward:          y[n,k]   = activation(bias[k] + sum over c of x[n,c] * w[k,c])
 *   linear_backward_data:    dx[n,c]  = sum over k of dy[n,k] * w[k,c]
 *   linear_backward_weight:  dw[k,c]  = sum over n of dy[n,k] * x[n,c],  dbias[k] = sum over n of dy[n,k]
 *   linear_backward_bias:    the second of these alone, where dw is made by an optimizer (product_update.h)
 *
 * x N,C   w K,C (out, in)   bias, dbias K or null   y N,K   dy N,K   dx N,C   dw K,C; results are overwritten; no aliasing.
 * workspace: as in gemm_blocked.h, linear_rows.c, linear_transposed.c or linear_backward_rows.c; for linear_backward_weight with
 * chunks > 0 as in linear_tall.c.
 *
 * With few rows, each weight is used so rarely that the products are bound by reading w or writing dw (linear_stream.c, which also
 * makes few outputs of many channels, and dx of a single channel). With some
 * more, packing w takes longer than it saves: linear_transposed.c for y, linear_backward_rows.c for dx; with many rows w is packed for y,
 * unless it is large: linear_rows.c. linear.h has the numbers. Else all three are the blocked product of gemm_blocked.h, with its error
 * bound, depth = C, K and N; but for a weight gradient with few channels on either side (chunks > 0): linear_tall.c.
 */
#include "gemm_blocked.h"
#include "linear.h"
#include "partial_sums.h"

void FNN_FUNCTION(linear_forward)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    if (linear_is_transposed(args->batch, args->out_channels)) {
        FNN_FUNCTION(linear_transposed)(args, team);
        return;
    }
    if (linear_is_streamed(args->batch, args->channels, args->out_channels)) {
        FNN_FUNCTION(linear_stream)(args, team);
        return;
    }
    if (args->channels * args->out_channels <= LINEAR_PACKED_WEIGHTS) {
        FNN_FUNCTION(linear_rows)(args, team);
        return;
    }
    const struct gemm_product product = {
        .a = args->x,
        .a_row = args->channels,
        .a_step = 1,
        .b = args->weight,
        .b_column = args->channels,
        .b_step = 1,
        .bias = args->bias,
        .y = args->y,
        .y_step = args->out_channels,
        .rows = args->batch,
        .columns = args->out_channels,
        .depth = args->channels,
        .activation = (enum fnn_activation)args->activation,
        .workspace = args->workspace,
        .workspace_stride = args->workspace_stride,
    };
    FNN_FUNCTION(gemm_blocked)(&product, team);
}

void FNN_FUNCTION(linear_backward_data)(const struct fnn_linear_backward_data_args *args, const struct fnn_team *team) {
    if (args->channels == 1 && args->out_channels >= LINEAR_LONG) {
        const struct fnn_linear_forward_args dot = {
            .x = args->dy,
            .weight = args->weight,
            .y = args->dx,
            .batch = args->batch,
            .channels = args->out_channels,
            .out_channels = 1,
            .activation = FNN_ACTIVATION_NONE,
        };
        FNN_FUNCTION(linear_stream)(&dot, team);
        return;
    }
    if (args->batch <= 1) {
        FNN_FUNCTION(linear_stream_backward)(args, team);
        return;
    }
    if (args->batch <= LINEAR_DATA_ROWS) {
        FNN_FUNCTION(linear_backward_rows)(args, team);
        return;
    }
    const struct gemm_product product = {
        .a = args->dy,
        .a_row = args->out_channels,
        .a_step = 1,
        .b = args->weight,
        .b_column = 1,
        .b_step = args->channels,
        .y = args->dx,
        .y_step = args->channels,
        .rows = args->batch,
        .columns = args->channels,
        .depth = args->out_channels,
        .activation = FNN_ACTIVATION_NONE,
        .workspace = args->workspace,
        .workspace_stride = args->workspace_stride,
    };
    FNN_FUNCTION(gemm_blocked)(&product, team);
}

/* In blocks of as many rows as a product has steps. */
void FNN_FUNCTION(linear_backward_bias)(const struct fnn_linear_backward_bias_args *args, const struct fnn_team *team) {
    const struct fnn_range range = fnn_share_blocks(args->out_channels, 4 * FNN_LANES, team);
    for (ptrdiff_t n = 0; n == 0 || n < args->batch; n += GEMM_DEPTH_BLOCK)
        sum_rows(args->dy + n * args->out_channels, args->out_channels, fnn_min(args->batch - n, GEMM_DEPTH_BLOCK),
                 range, n > 0, args->dbias);
}

static void sum_bias(const struct fnn_linear_backward_weight_args *args, const struct fnn_team *team) {
    const struct fnn_linear_backward_bias_args sum = {
        .dy = args->dy, .dbias = args->dbias, .batch = args->batch, .out_channels = args->out_channels};
    if (args->dbias) FNN_FUNCTION(linear_backward_bias)(&sum, team);
}

void FNN_FUNCTION(linear_backward_weight)(const struct fnn_linear_backward_weight_args *args,
                                          const struct fnn_team *team) {
    if (args->batch > 0 && args->batch <= LINEAR_WEIGHT_ROWS) {
        FNN_FUNCTION(linear_stream_weight)(args, team);
        sum_bias(args, team);
        return;
    }
    if (args->chunks > 0) {
        FNN_FUNCTION(linear_tall_weight)(args, NULL, team);
        return;
    }
    const struct gemm_product product = {
        .a = args->dy,
        .a_row = 1,
        .a_step = args->out_channels,
        .b = args->x,
        .b_column = 1,
        .b_step = args->channels,
        .y = args->dw,
        .y_step = args->channels,
        .rows = args->out_channels,
        .columns = args->channels,
        .depth = args->batch,
        .activation = FNN_ACTIVATION_NONE,
        .workspace = args->workspace,
        .workspace_stride = args->workspace_stride,
    };
    FNN_FUNCTION(gemm_blocked)(&product, team);
    sum_bias(args, team);
}
