/* Running statistics of an instance normalisation: those of a batch are the means over its samples.
 *
 *     running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean over n of mean[n,c]
 *     running_variance[c] likewise, with variance[n,c] * positions / (positions - 1), the unbiased one
 *
 * statistics (3, batch * channels) as layer_norm_forward writes them: mean, what rounding took off it, 1 / sqrt(variance + eps).
 * running_mean, running_variance (channels), changed. positions > 1; an empty batch changes nothing.
 * Error: mean 2 roundings; variance 2^-22 (variance + eps), as it is found from its root. Parallel over channels.
 * Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016; the update is PyTorch's. */
#include "kernel.h"

void FNN_FUNCTION(instance_norm_track)(const struct fnn_instance_norm_track_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, rows = args->batch * channels;
    double unbiased = (double)args->positions / (double)(args->positions - 1), momentum = args->momentum;
    struct fnn_range range = fnn_share_blocks(args->batch ? channels : 0, FNN_LANES, team);
    for (ptrdiff_t c = range.begin; c < range.end; c++) {
        double mean = 0, variance = 0;
        for (ptrdiff_t row = c; row < rows; row += channels) {
            double inverse_root = args->statistics[2 * rows + row];
            mean += (double)args->statistics[row] + args->statistics[rows + row];
            variance += 1.0 / (inverse_root * inverse_root) - args->eps;
        }
        mean /= (double)args->batch;
        variance = variance > 0 ? variance / (double)args->batch * unbiased : variance * 0;
        args->running_mean[c] = (float)((1 - momentum) * args->running_mean[c] + momentum * mean);
        args->running_variance[c] = (float)((1 - momentum) * args->running_variance[c] + momentum * variance);
    }
}
