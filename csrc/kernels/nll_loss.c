/* Negative log-likelihood of class indices, forward and backward.
 *
 * For row i with label t and class weights w (1 where absent):
 *
 *     loss_i = -w[t] * x[i,t]
 *     mean: sum loss_i / sum w[t_i]        sum: sum loss_i        none: loss_i
 *     dx[i,t] = -w[t] * g_i, all other elements of the row 0;    g_i = dloss / sum w[t_i], dloss, or dloss[i]
 *
 * Rows whose label is ignore_index count nowhere: loss and gradient 0. (So do labels outside [0, C), which the caller
 * has refused.) Log-probabilities x, dx (rows, classes); labels (rows); class_weight (C); loss, dloss (1), or (rows) for
 * none; total_weight (1): sum w[t_i]. reduction: 0 none, 1 mean, 2 sum.
 * Error: of a loss 1 rounding, of a total 2 (it is summed in double), of a gradient 2, relative eps = 2^-24.
 * workspace: 2 * ceil(rows / 1024) doubles. Parallel over blocks of 1024 rows, combined in order; backward over rows. */
#include "class_loss.h"

enum { BLOCK = 1024 };

static void block_loss(const struct fnn_nll_loss_forward_args *args, struct fnn_range rows, double *sums) {
    double loss = 0, weight = 0;
    for (ptrdiff_t row = rows.begin; row < rows.end; row++) {
        int64_t label = args->labels[row];
        float one = 0.0f;
        if (is_counted(label, args->classes, args->ignore_index)) {
            float w = class_weight_of(args->class_weight, label);
            one = -(w * args->x[row * args->classes + label]);
            weight += w;
        }
        if (args->reduction == REDUCTION_NONE) args->loss[row] = one;
        loss += one;
    }
    sums[0] = loss;
    sums[1] = weight;
}

void FNN_FUNCTION(nll_loss_forward)(const struct fnn_nll_loss_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t blocks = fnn_ceil_div(args->rows, BLOCK);
    struct fnn_range range = fnn_share(blocks, team);
    for (ptrdiff_t b = range.begin; b < range.end; b++) {
        struct fnn_range rows = {b * BLOCK, fnn_min((b + 1) * BLOCK, args->rows)};
        block_loss(args, rows, args->workspace + 2 * b);
    }
    fnn_barrier(team);
    if (team->rank == 0) combine_blocks(args->workspace, blocks, args->reduction, args->loss, args->total_weight);
}

void FNN_FUNCTION(nll_loss_backward)(const struct fnn_nll_loss_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t classes = args->classes;
    struct fnn_range range = fnn_share(args->rows, team);
    for (ptrdiff_t row = range.begin; row < range.end; row++) {
        float *dx = args->dx + row * classes;
        clear_row(dx, classes);
        int64_t label = args->labels[row];
        if (!is_counted(label, classes, args->ignore_index)) continue;
        float gradient = row_dloss(args->dloss, args->total_weight, args->reduction, row);
        dx[label] = -(class_weight_of(args->class_weight, label) * gradient);
    }
}
