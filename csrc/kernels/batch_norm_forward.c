/* Batch normalisation forward, with an optional residual input and ReLU or ReLU6 in the same pass:
 *
 *     y = activation((x - mean) * weight / sqrt(variance + eps) + bias + residual)
 *
 * x, y, residual (rows, C), rows = N*H*W in channels-last memory; weight, bias, running_mean, running_variance (C), each
 * may be null; statistics (3, C) as in batch_norm.h; workspace FNN_BATCH_NORM_ROWS * C floats. y may be x or residual.
 * moments: those of blocks of moment_rows rows of x, where the kernel that made x took them (block_moments.h), or null.
 * activation: 0 none, 1 ReLU, 2 ReLU6 (at most 6).
 *
 * Mean and variance are those of Chan, Golub and LeVeque (1983): each chunk of rows is read from memory once, its mean
 * and its centred squares are summed (the second time from the L1 cache), chunks and blocks are merged by weight. All
 * values are taken relative to the first row, so that a common offset costs no digits. x is read twice, or
 * once with moments, y written once.
 * Error: |y - exact| <= 4 eps (|x_hat * weight| + |bias|) + eps * (chunk + 80) * |weight|, eps = 2^-24, chunk <= 256.
 *
 * Parallel over blocks of rows, whose number depends on the shape alone; blocks are merged in order, in double.
 * Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015. */
#include "batch_norm.h"
#include "block_moments.h"

static void set_coefficients(const float *weight, const float *bias, const float *statistics, float *workspace,
                             ptrdiff_t channels, ptrdiff_t c) {
    float scale = batch_norm_scale(weight, statistics, channels, c);
    workspace[FNN_BATCH_NORM_SCALE * channels + c] = scale;
    workspace[FNN_BATCH_NORM_SHIFT * channels + c] = batch_norm_shift(bias, scale, statistics, channels, c);
}

/* Channel c: statistics, coefficients, running statistics with weight `momentum` for this batch. */
static void finish_channel(const struct fnn_batch_norm_train_forward_args *args, double momentum, ptrdiff_t c,
                           double mean, double squares) {
    ptrdiff_t channels = args->channels;
    const double rows = (double)args->rows;
    double variance = args->rows ? squares / rows : 0;
    args->statistics[c] = (float)mean;
    args->statistics[channels + c] = (float)(mean - (double)(float)mean);
    args->statistics[2 * channels + c] = (float)(1.0 / __builtin_sqrt(variance + args->eps));
    set_coefficients(args->weight, args->bias, args->statistics, args->workspace, channels, c);
    if (!args->rows) return;
    double kept_variance = args->unbiased ? squares / (rows - 1) : variance;
    if (args->running_mean) args->running_mean[c] = (float)((1 - momentum) * args->running_mean[c] + momentum * mean);
    if (args->running_variance)
        args->running_variance[c] = (float)((1 - momentum) * args->running_variance[c] + momentum * kept_variance);
}

/* `count` <= FNN_LANES channels from c on. */
FNN_INLINE void finish_lanes(const struct fnn_batch_norm_train_forward_args *args, const struct row_blocks *blocks,
                             double momentum, ptrdiff_t c, ptrdiff_t count) {
    double mean[FNN_LANES] = {0}, squares[FNN_LANES] = {0};
    if (args->rows && args->moments) {
        merge_moments(args->moments, args->channels, blocks, c, count, mean, squares);
    } else if (args->rows) {
        merge_blocks(args->workspace, args->channels, blocks, c, count, mean, squares);
        for (ptrdiff_t i = 0; i < count; i++) mean[i] += args->x[c + i];
    }
    for (ptrdiff_t i = 0; i < count; i++) finish_channel(args, momentum, c + i, mean[i], squares[i]);
}

static void finish_channels(const struct fnn_batch_norm_train_forward_args *args, const struct row_blocks *blocks,
                            double momentum, struct fnn_range some) {
    ptrdiff_t c = some.begin;
    for (; c + FNN_LANES <= some.end; c += FNN_LANES) finish_lanes(args, blocks, momentum, c, FNN_LANES);
    if (c < some.end) finish_lanes(args, blocks, momentum, c, some.end - c);
}

/* Channels [c, c + n) of a row: i is c's place in the arrays. */
FNN_INLINE void normalize_vector(const bool has_residual, const int activation, bool stream, const float *x,
                                 const float *residual, float *y, const float *mean, const float *scale,
                                 const float *shift, ptrdiff_t i, ptrdiff_t c, ptrdiff_t n) {
    vec centred = vec_sub(load_lanes(x + i, n), load_lanes(mean + c, n));
    vec value = vec_fma(centred, load_lanes(scale + c, n), load_lanes(shift + c, n));
    if (has_residual) value = vec_add(value, load_lanes(residual + i, n));
    if (activation) value = vec_max(vec_zero(), value);
    if (activation == 2) value = vec_min(vec_set1(6.0f), value);
    put_lanes(stream, y + i, value, n);
}

FNN_INLINE void normalize_rows(const bool has_residual, const int activation, bool stream, const float *x,
                               const float *residual, float *y, const float *mean, const float *scale,
                               const float *shift, ptrdiff_t channels, struct fnn_range rows) {
    const ptrdiff_t whole = channels / FNN_LANES * FNN_LANES;
    for (ptrdiff_t r = rows.begin; r < rows.end; r++) {
        for (ptrdiff_t c = 0; c < whole; c += FNN_LANES)
            normalize_vector(has_residual, activation, stream, x, residual, y, mean, scale, shift, r * channels + c, c,
                             FNN_LANES);
        if (whole < channels)
            normalize_vector(has_residual, activation, stream, x, residual, y, mean, scale, shift, r * channels + whole,
                             whole, channels - whole);
    }
}

static void normalize(const float *x, const float *residual, float *y, const float *mean, const float *workspace,
                      ptrdiff_t channels, struct fnn_range rows, ptrdiff_t activation, bool stream) {
    const float *scale = workspace + FNN_BATCH_NORM_SCALE * channels,
                *shift = workspace + FNN_BATCH_NORM_SHIFT * channels;
    if (residual && activation == 2)
        normalize_rows(true, 2, stream, x, residual, y, mean, scale, shift, channels, rows);
    else if (residual && activation)
        normalize_rows(true, 1, stream, x, residual, y, mean, scale, shift, channels, rows);
    else if (residual)
        normalize_rows(true, 0, stream, x, residual, y, mean, scale, shift, channels, rows);
    else if (activation == 2)
        normalize_rows(false, 2, stream, x, residual, y, mean, scale, shift, channels, rows);
    else if (activation)
        normalize_rows(false, 1, stream, x, residual, y, mean, scale, shift, channels, rows);
    else
        normalize_rows(false, 0, stream, x, residual, y, mean, scale, shift, channels, rows);
}

/* Rows that are whole vectors keep the alignment of the first. */
static bool streams_rows(const float *x, const float *residual, const float *y, ptrdiff_t rows, ptrdiff_t channels) {
    return channels % FNN_LANES == 0 && residual != y && streams(x, y, rows * channels);
}

/* Normalises with the statistics of x, which it writes, and updates the running ones (unless rows is 0):
 * running = (1 - momentum) * running + momentum * batch; the variance kept is squares / (rows - 1) if unbiased.
 * momentum < 0: the average over all batches so far, 1 / (batches + 1). batches (1) counts one up; all three may be null. */
void FNN_FUNCTION(batch_norm_train_forward)(const struct fnn_batch_norm_train_forward_args *args,
                                            const struct fnn_team *team) {
    ptrdiff_t channels = args->channels;
    struct row_blocks blocks =
        args->moments ? equal_blocks(args->rows, args->moment_rows) : row_blocks(args->rows, channels);
    struct fnn_range range;
    if (!args->moments) {
        for (struct fnn_work work = fnn_work(blocks.count, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t b = range.begin; b < range.end; b++)
                block_moments(args->x, channels, row_block(&blocks, b), blocks.chunk, args->rows,
                              args->workspace + 2 * b * channels, args->workspace + (2 * b + 1) * channels);
        fnn_barrier(team);
    }
    double momentum = args->momentum;
    if (momentum < 0) momentum = args->batches ? 1.0 / (double)(*args->batches + 1) : 1.0;
    finish_channels(args, &blocks, momentum, fnn_share_blocks(channels, FNN_LANES, team));
    fnn_barrier(team);
    if (team->rank == 0 && args->batches && args->rows) *args->batches += 1;
    const bool stream = streams_rows(args->x, args->residual, args->y, args->rows, channels);
    struct fnn_work work = fnn_work(blocks.count, 1, team);
    work.backwards = true; /* what was read last is still in the cache */
    while (fnn_take(&work, &range))
        for (ptrdiff_t b = range.end - 1; b >= range.begin; b--)
            normalize(args->x, args->residual, args->y, args->statistics, args->workspace, channels,
                      row_block(&blocks, b), args->activation, stream);
    vec_fence();
}

/* Normalises with running_mean, running_variance (C), which are not changed; writes the statistics used. */
void FNN_FUNCTION(batch_norm_eval_forward)(const struct fnn_batch_norm_eval_forward_args *args,
                                           const struct fnn_team *team) {
    ptrdiff_t channels = args->channels;
    struct fnn_range some = fnn_share_blocks(channels, FNN_LANES, team);
    for (ptrdiff_t c = some.begin; c < some.end; c++) {
        args->statistics[c] = args->running_mean[c];
        args->statistics[channels + c] = 0.0f;
        args->statistics[2 * channels + c] =
            (float)(1.0 / __builtin_sqrt((double)args->running_variance[c] + args->eps));
        set_coefficients(args->weight, args->bias, args->statistics, args->workspace, channels, c);
    }
    fnn_barrier(team);
    const bool stream = streams_rows(args->x, args->residual, args->y, args->rows, channels);
    normalize(args->x, args->residual, args->y, args->statistics, args->workspace, channels,
              fnn_share(args->rows, team), args->activation, stream);
    vec_fence();
}

/* Folds a normalisation with running statistics into the convolution or linear layer before it:
 * folded_weight[k][i] = conv_weight[k][i] * scale[k], folded_bias[k] = (conv_bias[k] - mean[k]) * scale[k] + bias[k],
 * scale = weight / sqrt(variance + eps); conv_weight (K, inner), inner = R*S*C; all others (K), the optional ones may be
 * null (bias 0, weight 1). Each within 2 roundings. Parallel over K. */
void FNN_FUNCTION(batch_norm_fold)(const struct fnn_batch_norm_fold_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->out_channels, team);
    for (ptrdiff_t k = range.begin; k < range.end; k++) {
        double scale =
            (args->weight ? args->weight[k] : 1.0) / __builtin_sqrt((double)args->running_variance[k] + args->eps);
        double centred = (args->conv_bias ? args->conv_bias[k] : 0.0) - (double)args->running_mean[k];
        args->folded_bias[k] = (float)(centred * scale + (args->bias ? args->bias[k] : 0.0));
        const float *from = args->conv_weight + k * args->inner;
        float *to = args->folded_weight + k * args->inner;
        for (ptrdiff_t i = 0; i < args->inner; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(args->inner - i);
            store_lanes(to + i, vec_mul(load_lanes(from + i, n), vec_set1((float)scale)), n);
        }
    }
}
