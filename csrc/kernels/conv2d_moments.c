/* Convolutions whose result goes to a batch normalisation with statistics of its own, forward: y, and its moments, which
 * are taken from registers, so that the normalisation need not read y for them.
 *
 *   conv2d_pointwise_moments:   y[i][k] = bias[k] + sum over c of x[i][c] * w[k][c],   i < rows
 *
 * x rows, C   packed (conv2d_pack_weight)   bias K or null   y rows, K   moments ceil(rows / moment_rows), 3, K as in
 * block_moments.h; y and moments are overwritten; no aliasing.
 *
 * Parallel over blocks of moment_rows rows and panels of channels. Error bounds: gemm.h with D = C, block_moments.h. */
#include "gemm_rows.h"

void FNN_FUNCTION(conv2d_pointwise_moments)(const struct fnn_conv2d_pointwise_moments_args *args,
                                            const struct fnn_team *team) {
    const struct gemm_rows product = {
        .x = args->x,
        .packed = args->packed,
        .bias = args->bias,
        .y = args->y,
        .rows = args->rows,
        .columns = args->out_channels,
        .depth = args->channels,
        .moments = args->moments,
        .block_rows = args->moment_rows,
    };
    FNN_FUNCTION(gemm_rows)(&product, team);
}
