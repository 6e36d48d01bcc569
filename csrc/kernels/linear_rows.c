/* Linear forward for many rows: w is packed by the whole team, x is read where it stands.
 *
 *   y[n,k] = activation(bias[k] + sum over c of x[n,c] * w[k,c])      shapes and aliasing in linear.c
 *
 * Rows by packed panels as in gemm_rows.h, with its error bound, D = C; the bits are those of weights packed beforehand.
 *
 * workspace: C * up floats, up = K rounded up to FNN_LANES. Parallel over panels, then tiles of rows and panels.
 */
#include "gemm_pack.h"
#include "gemm_rows.h"
#include "linear.h"

void FNN_FUNCTION(linear_rows)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    gemm_pack_by_team(args->weight, args->out_channels, args->channels, args->workspace, team);
    fnn_barrier(team);
    const struct gemm_rows product = {
        .x = args->x,
        .packed = args->workspace,
        .bias = args->bias,
        .y = args->y,
        .rows = args->batch,
        .columns = args->out_channels,
        .depth = args->channels,
        .activation = (enum fnn_activation)args->activation,
    };
    FNN_FUNCTION(gemm_rows)(&product, team);
}
