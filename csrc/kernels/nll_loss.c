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
#include "lanes.h"

enum { BLOCK = 1024, REDUCTION_NONE = 0, REDUCTION_MEAN = 1 };

static inline bool is_counted(int64_t label, ptrdiff_t classes, ptrdiff_t ignore_index) {
    return label != ignore_index && label >= 0 && label < classes;
}

static inline float weight_of(const float *class_weight, int64_t label) {
    return class_weight ? class_weight[label] : 1.0f;
}

static void block_loss(const struct fnn_nll_loss_forward_args *args, struct fnn_range rows, double *sums) {
    double loss = 0, weight = 0;
    for (ptrdiff_t row = rows.begin; row < rows.end; row++) {
        int64_t label = args->labels[row];
        float one = 0.0f;
        if (is_counted(label, args->classes, args->ignore_index)) {
            float w = weight_of(args->class_weight, label);
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
    if (team->rank != 0) return;
    double loss = 0, weight = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        loss += args->workspace[2 * b];
        weight += args->workspace[2 * b + 1];
    }
    args->total_weight[0] = (float)weight;
    if (args->reduction == REDUCTION_NONE) return;
    args->loss[0] = (float)(args->reduction == REDUCTION_MEAN ? loss / weight : loss);
}

void FNN_FUNCTION(nll_loss_backward)(const struct fnn_nll_loss_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t classes = args->classes;
    struct fnn_range range = fnn_share(args->rows, team);
    for (ptrdiff_t row = range.begin; row < range.end; row++) {
        float *dx = args->dx + row * classes;
        for (ptrdiff_t c = 0; c < classes; c += FNN_LANES) store_lanes(dx + c, vec_zero(), lanes_left(classes - c));
        int64_t label = args->labels[row];
        if (!is_counted(label, classes, args->ignore_index)) continue;
        float gradient = args->dloss[args->reduction == REDUCTION_NONE ? row : 0];
        if (args->reduction == REDUCTION_MEAN) gradient /= args->total_weight[0];
        dx[label] = -(weight_of(args->class_weight, label) * gradient);
    }
}
