/* Convolutions backward with respect to their input, where that is the result of a batch normalisation: its gradient, and
 * the sums that the normalisation's own backward pass begins with, taken from registers (gradient_sums.h).
 *
 *   conv2d_pointwise_sums:   dx[i][c] = residual[i][c] + sum over k of dy[i][k] * w[k][c],   i < rows
 *
 * dy rows, K   packed (conv2d_pack_weight_backward)   residual rows, C or null   dx rows, C
 * sums ceil(rows / sum_rows), 2, C   normalized rows, C: the normalisation's input   statistics 3, C, norm_weight, norm_bias C
 * or null, norm_activation: as batch_norm_backward.c takes them
 * dx and sums are overwritten; dx may be residual if K <= 1024; no other aliasing.
 *
 * Parallel over blocks of sum_rows rows and panels of channels. Error bounds: gemm.h with D = K, gradient_sums.h. */
#include "gemm_rows.h"
#include "gradient_sums.h"

void FNN_FUNCTION(conv2d_pointwise_sums)(const struct fnn_conv2d_pointwise_sums_args *args,
                                         const struct fnn_team *team) {
    const struct gradient_sums gradient = {
        .x = args->normalized,
        .statistics = args->statistics,
        .weight = args->norm_weight,
        .bias = args->norm_bias,
        .channels = args->channels,
        .activation = args->norm_activation,
    };
    const struct gemm_rows product = {
        .x = args->dy,
        .packed = args->packed,
        .residual = args->residual,
        .y = args->dx,
        .rows = args->rows,
        .columns = args->channels,
        .depth = args->out_channels,
        .block_rows = args->sum_rows,
        .gradient = &gradient,
        .sums = args->sums,
    };
    FNN_FUNCTION(gemm_rows)(&product, team);
}
