/* Batch normalisation backward, with the backward of ReLU or ReLU6 and of the residual addition in the same passes.
 *
 *     g = dy where the ReLU was open, else 0 (no ReLU: g = dy)          x_hat = (x - mean) * inverse_deviation
 *     dbias = sum g      dweight = sum g * x_hat      dresidual = g
 *     dx = weight * inverse_deviation * (g - dbias / rows - x_hat * dweight / rows)      with the batch's statistics
 *     dx = weight * inverse_deviation * g                                                with constant statistics
 *
 * dy, x, y, dx, dresidual (rows, C); statistics (3, C) as the forward pass wrote them; weight, bias, dweight, dbias (C);
 * workspace FNN_BATCH_NORM_ROWS * C floats. sums: those of blocks of sum_rows rows, where the kernel that made dy took them
 * (gradient_sums.h; without y), or null. Gradients are overwritten; each of them, weight and bias may be null. dx and
 * dresidual may be dy.
 * activation: 0 none, 1 ReLU, 2 ReLU6. It was open where y > 0 (and y < 6); without y (possible when there was no residual input) it is
 * found from x by the forward pass's own arithmetic, which saves reading and keeping y.
 * Error of dbias: eps * (chunk + 80) * sum |g|, of dweight likewise with |g * x_hat|, eps = 2^-24, chunk <= 256.
 *
 * dy and x are read twice, or once with sums, dx written once. Parallel over blocks of rows as in the forward pass.
 * Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015. */
#include "batch_norm.h"

enum mask_source { OPEN_ALWAYS, OPEN_BY_OUTPUT, OPEN_BY_INPUT, OPEN_BY_OUTPUT_6, OPEN_BY_INPUT_6 };

/* g at element i, channel c; `centred` is x - mean there. */
FNN_INLINE vec masked_gradient(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                               ptrdiff_t i, ptrdiff_t c, ptrdiff_t n, vec centred) {
    vec dy = load_lanes(args->dy + i, n);
    if (source == OPEN_ALWAYS) return dy;
    vec y;
    if (source == OPEN_BY_OUTPUT || source == OPEN_BY_OUTPUT_6) {
        y = load_lanes(args->y + i, n);
    } else {
        const float *scale = args->workspace + FNN_BATCH_NORM_SCALE * args->channels;
        const float *shift = args->workspace + FNN_BATCH_NORM_SHIFT * args->channels;
        y = vec_fma(centred, load_lanes(scale + c, n), load_lanes(shift + c, n));
    }
    return source == OPEN_BY_OUTPUT || source == OPEN_BY_INPUT ? open_gradient(dy, y) : open_gradient_6(dy, y);
}

/* Adds sum g and sum g * (x - mean - remainder) over a chunk of rows to sums, products (C). */
FNN_INLINE void add_chunk(const int vectors, const enum mask_source source, ptrdiff_t n,
                          const struct fnn_batch_norm_backward_args *args, struct fnn_range rows, ptrdiff_t c,
                          bool first, float *sums, float *products) {
    ptrdiff_t channels = args->channels;
    vec mean[FNN_CHANNEL_GROUP], remainder[FNN_CHANNEL_GROUP], sum[FNN_CHANNEL_GROUP], product[FNN_CHANNEL_GROUP];
    for (int v = 0; v < vectors; v++) {
        mean[v] = load_lanes(args->statistics + c + v * FNN_LANES, n);
        remainder[v] = load_lanes(args->statistics + channels + c + v * FNN_LANES, n);
        sum[v] = product[v] = vec_zero();
    }
    for (ptrdiff_t r = rows.begin; r < rows.end; r++)
        for (int v = 0; v < vectors; v++) {
            ptrdiff_t channel = c + v * FNN_LANES, i = r * channels + channel;
            vec centred = vec_sub(load_lanes(args->x + i, n), mean[v]);
            vec g = masked_gradient(source, args, i, channel, n, centred);
            sum[v] = vec_add(sum[v], g);
            product[v] = vec_fma(g, vec_sub(centred, remainder[v]), product[v]);
        }
    for (int v = 0; v < vectors; v++) {
        ptrdiff_t channel = c + v * FNN_LANES;
        vec old_sum = first ? vec_zero() : load_lanes(sums + channel, n);
        vec old_product = first ? vec_zero() : load_lanes(products + channel, n);
        store_lanes(sums + channel, vec_add(old_sum, sum[v]), n);
        store_lanes(products + channel, vec_add(old_product, product[v]), n);
    }
}

FNN_INLINE void block_sums(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                           struct fnn_range block, ptrdiff_t chunk, float *sums, float *products) {
    ptrdiff_t channels = args->channels;
    for (ptrdiff_t row = block.begin; row < block.end; row += chunk) {
        struct fnn_range rows = {row, fnn_min(row + chunk, block.end)};
        bool first = row == block.begin;
        ptrdiff_t c = 0;
        for (; c + FNN_CHANNEL_GROUP * FNN_LANES <= channels; c += FNN_CHANNEL_GROUP * FNN_LANES)
            add_chunk(FNN_CHANNEL_GROUP, source, FNN_LANES, args, rows, c, first, sums, products);
        for (; c < channels; c += FNN_LANES)
            add_chunk(1, source, lanes_left(channels - c), args, rows, c, first, sums, products);
    }
}

/* dweight, dbias, and the coefficients of dx = scale * g + slope * (x - mean) + offset, for channel c. */
static void finish_channel(const struct fnn_batch_norm_backward_args *args, const struct row_blocks *blocks,
                           ptrdiff_t c) {
    ptrdiff_t channels = args->channels;
    float *workspace = args->workspace;
    const float *sums = args->sums ? args->sums : workspace;
    double sum = 0, product = 0;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        sum += sums[2 * b * channels + c];
        product += sums[(2 * b + 1) * channels + c];
    }
    double inverse_deviation = args->statistics[2 * channels + c];
    if (args->dbias) args->dbias[c] = (float)sum;
    if (args->dweight) args->dweight[c] = (float)(product * inverse_deviation);
    double slope = 0, offset = 0;
    if (args->batch_statistics && args->rows) {
        double scale = (double)workspace[FNN_BATCH_NORM_SCALE * channels + c] / (double)args->rows;
        slope = -scale * inverse_deviation * inverse_deviation * product;
        offset = -scale * sum - slope * (double)args->statistics[channels + c];
    }
    workspace[FNN_BATCH_NORM_SLOPE * channels + c] = (float)slope;
    workspace[FNN_BATCH_NORM_OFFSET * channels + c] = (float)offset;
}

FNN_INLINE void input_gradient(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                               struct fnn_range rows) {
    ptrdiff_t channels = args->channels, count = args->rows * channels;
    const bool whole = channels % FNN_LANES == 0; /* then rows keep the alignment of the first */
    const bool stream = whole && args->dx != args->x && args->dx != args->y && streams(args->dy, args->dx, count);
    const bool stream_residual = whole && args->dresidual != args->y && streams(args->dy, args->dresidual, count);
    float *dx_array = args->dx, *dresidual = args->dresidual;
    const float *scale = args->workspace + FNN_BATCH_NORM_SCALE * channels;
    const float *slope = args->workspace + FNN_BATCH_NORM_SLOPE * channels;
    const float *offset = args->workspace + FNN_BATCH_NORM_OFFSET * channels;
    for (ptrdiff_t r = rows.begin; r < rows.end; r++)
        for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
            ptrdiff_t i = r * channels + c, n = lanes_left(channels - c);
            vec centred = vec_sub(load_lanes(args->x + i, n), load_lanes(args->statistics + c, n));
            vec g = masked_gradient(source, args, i, c, n, centred);
            vec dx = vec_fma(centred, load_lanes(slope + c, n), load_lanes(offset + c, n));
            if (dx_array) put_lanes(stream, dx_array + i, vec_fma(g, load_lanes(scale + c, n), dx), n);
            if (dresidual) put_lanes(stream_residual, dresidual + i, g, n);
        }
    vec_fence();
}

FNN_INLINE void backward(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                         const struct fnn_team *team) {
    ptrdiff_t channels = args->channels;
    float *workspace = args->workspace;
    struct fnn_range some = fnn_share_blocks(channels, FNN_LANES, team);
    for (ptrdiff_t c = some.begin; c < some.end; c++) {
        float scale = batch_norm_scale(args->weight, args->statistics, channels, c);
        workspace[FNN_BATCH_NORM_SCALE * channels + c] = scale;
        workspace[FNN_BATCH_NORM_SHIFT * channels + c] =
            batch_norm_shift(args->bias, scale, args->statistics, channels, c);
    }
    struct row_blocks blocks = args->sums ? equal_blocks(args->rows, args->sum_rows) : row_blocks(args->rows, channels);
    struct fnn_range mine = fnn_share(blocks.count, team);
    if (!args->sums) fnn_barrier(team);
    for (ptrdiff_t b = mine.begin; b < mine.end && !args->sums; b++)
        block_sums(source, args, row_block(&blocks, b), blocks.chunk, workspace + 2 * b * channels,
                   workspace + (2 * b + 1) * channels);
    if (!args->sums) fnn_barrier(team);
    for (ptrdiff_t c = some.begin; c < some.end; c++) finish_channel(args, &blocks, c);
    fnn_barrier(team);
    if (!args->dx && !args->dresidual) return;
    for (ptrdiff_t b = mine.end - 1; b >= mine.begin; b--) input_gradient(source, args, row_block(&blocks, b));
}

void FNN_FUNCTION(batch_norm_backward)(const struct fnn_batch_norm_backward_args *args, const struct fnn_team *team) {
    if (!args->activation)
        backward(OPEN_ALWAYS, args, team);
    else if (args->activation == 2 && args->y)
        backward(OPEN_BY_OUTPUT_6, args, team);
    else if (args->activation == 2)
        backward(OPEN_BY_INPUT_6, args, team);
    else if (args->y)
        backward(OPEN_BY_OUTPUT, args, team);
    else
        backward(OPEN_BY_INPUT, args, team);
}
