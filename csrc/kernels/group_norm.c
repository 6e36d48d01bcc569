/* Group normalisation of images, forward and backward, channels-last; with one channel a group, instance normalisation.
 *
 *     y = x_hat * weight + bias,  x_hat = (x - mean) * inverse_deviation      mean, variance of image n, channel group g
 *     g = dy * weight    dx = inverse_deviation * (g - mean(g) - x_hat * mean(g * x_hat))    means over the group
 *     dweight = sum dy * x_hat      dbias = sum dy      (sums over images and positions)
 *
 * x, y, dy, dx (N, P, C), P = H*W positions; weight, bias, dweight, dbias (C), each may be null; statistics (3, N, groups): mean,
 * remainder of the mean (see batch_norm.h), inverse_deviation. y may be x, dx may be dy; dx may be null. Gradients are overwritten.
 * workspace: for each thread FNN_GROUP_NORM_ROWS * C floats, workspace_stride apart; behind them, backward, 2 * N * C floats.
 * x (backward dy and x) is read twice, the second time from the cache if an image fits, and y (dx) written once.
 *
 * Each channel's moments are those of batch_norm_forward.c, merged over a group in double. Error of y, eps = 2^-24:
 * 4 eps (|x_hat * weight| + |bias|) + eps * (chunk + 80) * |weight|, chunk <= 256; of dbias and dweight eps * (chunk + 80) times
 * the sum of magnitudes. Parallel over images; dweight and dbias over channels, images in order.
 * Source: Wu and He, "Group normalization", ECCV 2018; Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016. */
#include "moments.h"

enum {
    FNN_GROUP_NORM_FIRST = 2 * FNN_ROW_BLOCKS, /* partial results of the blocks, then coefficients of the channels */
    FNN_GROUP_NORM_ROWS = FNN_GROUP_NORM_FIRST + 4
};

enum { MERGED_CHANNELS = 64 }; /* at a time */

/* As merge_blocks, for `count` channels from c on side by side. */
static void merge_channels(const float *moments, ptrdiff_t channels, const struct row_blocks *blocks, ptrdiff_t c,
                           ptrdiff_t count, double *mean, double *squares) {
    for (ptrdiff_t i = 0; i < count; i++) mean[i] = squares[i] = 0;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *means = moments + 2 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) mean[i] += rows * means[i];
    }
    for (ptrdiff_t i = 0; i < count; i++) mean[i] /= (double)blocks->rows;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *means = moments + 2 * b * channels + c, *centred = means + channels;
        for (ptrdiff_t i = 0; i < count; i++) {
            double delta = means[i] - mean[i];
            squares[i] += centred[i] + rows * delta * delta;
        }
    }
}

/* Statistics of the groups (3, all groups of all images) of an image whose blocks' moments are known. */
static void finish_groups(const float *moments, const struct row_blocks *blocks, const float *pivot, ptrdiff_t channels,
                          ptrdiff_t width, ptrdiff_t all, double eps, float *statistics) {
    const double rows = (double)blocks->rows;
    double mean = 0, squares = 0; /* of the group so far */
    for (ptrdiff_t first = 0; first < channels; first += MERGED_CHANNELS) {
        double means[MERGED_CHANNELS], centred[MERGED_CHANNELS];
        ptrdiff_t count = fnn_min(MERGED_CHANNELS, channels - first);
        merge_channels(moments, channels, blocks, first, count, means, centred);
        for (ptrdiff_t i = 0; i < count; i++) {
            ptrdiff_t c = first + i, seen = c % width;
            double delta = means[i] + pivot[c] - (seen ? mean : 0), share = 1 / (double)(seen + 1);
            mean = (seen ? mean : 0) + delta * share;
            squares = (seen ? squares : 0) + centred[i] + rows * delta * delta * (double)seen * share;
            if (seen + 1 < width) continue;
            float *of = statistics + c / width;
            of[0] = (float)mean;
            of[all] = (float)(mean - (double)of[0]);
            of[2 * all] = (float)(1.0 / __builtin_sqrt(squares / (rows * (double)width) + eps));
        }
    }
}

/* y = (x - mean) * scale + shift, each of the channel, for `vectors` vectors of channels, the last one of n lanes. */
FNN_INLINE void scale_channels(const int vectors, ptrdiff_t n, bool stream, const float *x, float *y, const float *mean,
                               const float *scale, const float *shift, ptrdiff_t rows, ptrdiff_t channels) {
    vec origin[FNN_CHANNEL_GROUP], factor[FNN_CHANNEL_GROUP], offset[FNN_CHANNEL_GROUP];
    for (int v = 0; v < vectors; v++) {
        origin[v] = load_lanes(mean + v * FNN_LANES, n);
        factor[v] = load_lanes(scale + v * FNN_LANES, n);
        offset[v] = load_lanes(shift + v * FNN_LANES, n);
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            ptrdiff_t i = r * channels + v * FNN_LANES;
            put_lanes(stream, y + i, vec_fma(vec_sub(load_lanes(x + i, n), origin[v]), factor[v], offset[v]), n);
        }
}

enum { SCALED_ROWS = 16 }; /* at a time: what a store past the caches writes of a memory page stays together */

static void scale_rows(bool stream, const float *x, float *y, const float *mean, const float *scale, const float *shift,
                       ptrdiff_t rows, ptrdiff_t channels) {
    for (ptrdiff_t row = 0; row < rows; row += SCALED_ROWS) {
        ptrdiff_t count = fnn_min(SCALED_ROWS, rows - row), at = row * channels, c = 0;
        for (; c + FNN_CHANNEL_GROUP * FNN_LANES <= channels; c += FNN_CHANNEL_GROUP * FNN_LANES)
            scale_channels(FNN_CHANNEL_GROUP, FNN_LANES, stream, x + at + c, y + at + c, mean + c, scale + c, shift + c,
                           count, channels);
        for (; c < channels; c += FNN_LANES)
            scale_channels(1, lanes_left(channels - c), stream, x + at + c, y + at + c, mean + c, scale + c, shift + c,
                           count, channels);
    }
}

void FNN_FUNCTION(group_norm_forward)(const struct fnn_group_norm_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, positions = args->positions, groups = args->groups, width = channels / groups;
    ptrdiff_t size = positions * channels, all = args->batch * groups;
    const bool stream = channels % FNN_LANES == 0 && streams(args->x, args->y, args->batch * size);
    float *moments = args->workspace + team->rank * args->workspace_stride;
    float *mean = moments + FNN_GROUP_NORM_FIRST * channels, *scale = mean + channels, *shift = scale + channels;
    struct row_blocks blocks = row_blocks(positions, channels);
    struct fnn_range images = fnn_share(positions ? args->batch : 0, team);
    for (ptrdiff_t n = images.begin; n < images.end; n++) {
        const float *x = args->x + n * size;
        for (ptrdiff_t b = 0; b < blocks.count; b++)
            block_moments(x, channels, row_block(&blocks, b), blocks.chunk, moments + 2 * b * channels,
                          moments + (2 * b + 1) * channels);
        finish_groups(moments, &blocks, x, channels, width, all, args->eps, args->statistics + n * groups);
        for (ptrdiff_t g = 0; g < groups; g++) {
            const float *statistics = args->statistics + n * groups + g;
            for (ptrdiff_t c = g * width; c < (g + 1) * width; c++) {
                mean[c] = statistics[0];
                scale[c] = args->weight ? args->weight[c] * statistics[2 * all] : statistics[2 * all];
                shift[c] = (args->bias ? args->bias[c] : 0.0f) - statistics[all] * scale[c];
            }
        }
        scale_rows(stream, x, args->y + n * size, mean, scale, shift, positions, channels);
    }
    vec_fence();
}

/* sum dy and sum dy * (x - mean) over a chunk of rows, for `vectors` vectors of channels, the last one of n lanes, added to
 * sums, products (C), or set if it is the first. */
FNN_INLINE void add_products(const int vectors, ptrdiff_t n, const float *dy, const float *x, const float *mean,
                             ptrdiff_t rows, ptrdiff_t channels, bool first, float *sums, float *products) {
    vec origin[FNN_CHANNEL_GROUP], sum[FNN_CHANNEL_GROUP], product[FNN_CHANNEL_GROUP];
    for (int v = 0; v < vectors; v++) {
        origin[v] = load_lanes(mean + v * FNN_LANES, n);
        sum[v] = product[v] = vec_zero();
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            ptrdiff_t i = r * channels + v * FNN_LANES;
            vec gradient = load_lanes(dy + i, n);
            sum[v] = vec_add(sum[v], gradient);
            product[v] = vec_fma(gradient, vec_sub(load_lanes(x + i, n), origin[v]), product[v]);
        }
    for (int v = 0; v < vectors; v++) {
        ptrdiff_t c = v * FNN_LANES;
        if (!first) {
            sum[v] = vec_add(load_lanes(sums + c, n), sum[v]);
            product[v] = vec_add(load_lanes(products + c, n), product[v]);
        }
        store_lanes(sums + c, sum[v], n);
        store_lanes(products + c, product[v], n);
    }
}

static void block_products(const float *dy, const float *x, const float *mean, ptrdiff_t channels,
                           struct fnn_range block, ptrdiff_t chunk, float *sums, float *products) {
    for (ptrdiff_t row = block.begin; row < block.end; row += chunk) {
        ptrdiff_t rows = fnn_min(chunk, block.end - row), at = row * channels, c = 0;
        bool first = row == block.begin;
        for (; c + FNN_CHANNEL_GROUP * FNN_LANES <= channels; c += FNN_CHANNEL_GROUP * FNN_LANES)
            add_products(FNN_CHANNEL_GROUP, FNN_LANES, dy + at + c, x + at + c, mean + c, rows, channels, first,
                         sums + c, products + c);
        for (; c < channels; c += FNN_LANES)
            add_products(1, lanes_left(channels - c), dy + at + c, x + at + c, mean + c, rows, channels, first,
                         sums + c, products + c);
    }
}

/* What the backward pass of one image needs of each channel: dx = dy * scale + (x - mean) * slope + offset. */
struct coefficients {
    float *mean, *scale, *slope, *offset;
};

/* Group g of image n: coefficients, and the image's part of dbias and dweight (2, C). */
static void finish_gradients(const struct fnn_group_norm_backward_args *args, const struct row_blocks *blocks,
                             const float *partial, ptrdiff_t n, ptrdiff_t g, const struct coefficients *of,
                             float *parts) {
    ptrdiff_t channels = args->channels, width = channels / args->groups, all = args->batch * args->groups;
    const float *statistics = args->statistics + n * args->groups + g;
    double inverse = statistics[2 * all], remainder = statistics[all], sum_g = 0, sum_gx = 0;
    for (ptrdiff_t c = g * width; c < (g + 1) * width; c++) {
        double sum = 0, product = 0, weight = args->weight ? args->weight[c] : 1.0;
        for (ptrdiff_t b = 0; b < blocks->count; b++) {
            sum += partial[2 * b * channels + c];
            product += partial[(2 * b + 1) * channels + c];
        }
        product = (product - remainder * sum) * inverse;
        parts[c] = (float)sum;
        parts[channels + c] = (float)product;
        sum_g += weight * sum;
        sum_gx += weight * product;
        of->scale[c] = (float)(weight * inverse);
    }
    double total = (double)args->positions * (double)width;
    double slope = -inverse * inverse * sum_gx / total, offset = -inverse * sum_g / total - slope * remainder;
    for (ptrdiff_t c = g * width; c < (g + 1) * width; c++) {
        of->slope[c] = (float)slope;
        of->offset[c] = (float)offset;
    }
}

static void image_gradient(const struct fnn_group_norm_backward_args *args, const struct row_blocks *blocks,
                           ptrdiff_t n, float *partial, float *parts, bool stream) {
    ptrdiff_t channels = args->channels, width = channels / args->groups, size = args->positions * channels;
    float *mean = partial + FNN_GROUP_NORM_FIRST * channels;
    const struct coefficients of = {mean, mean + channels, mean + 2 * channels, mean + 3 * channels};
    const float *dy = args->dy + n * size, *x = args->x + n * size;
    for (ptrdiff_t c = 0; c < channels; c++) mean[c] = args->statistics[n * args->groups + c / width];
    for (ptrdiff_t b = 0; b < blocks->count; b++)
        block_products(dy, x, mean, channels, row_block(blocks, b), blocks->chunk, partial + 2 * b * channels,
                       partial + (2 * b + 1) * channels);
    for (ptrdiff_t g = 0; g < args->groups; g++) finish_gradients(args, blocks, partial, n, g, &of, parts);
    if (!args->dx) return;
    float *dx = args->dx + n * size;
    for (ptrdiff_t r = 0; r < args->positions; r++)
        for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
            ptrdiff_t i = r * channels + c, lanes = lanes_left(channels - c);
            vec centred = vec_sub(load_lanes(x + i, lanes), load_lanes(of.mean + c, lanes));
            vec rest = vec_fma(centred, load_lanes(of.slope + c, lanes), load_lanes(of.offset + c, lanes));
            put_lanes(stream, dx + i, vec_fma(load_lanes(dy + i, lanes), load_lanes(of.scale + c, lanes), rest), lanes);
        }
}

void FNN_FUNCTION(group_norm_backward)(const struct fnn_group_norm_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, count = args->batch * args->positions * channels;
    const bool stream = channels % FNN_LANES == 0 && args->dx != args->x && streams(args->dy, args->dx, count);
    float *partial = args->workspace + team->rank * args->workspace_stride;
    float *parts = args->workspace + args->threads * args->workspace_stride;
    struct row_blocks blocks = row_blocks(args->positions, channels);
    struct fnn_range images = fnn_share(args->batch, team);
    for (ptrdiff_t n = images.begin; n < images.end; n++)
        image_gradient(args, &blocks, n, partial, parts + 2 * n * channels, stream);
    vec_fence();
    fnn_barrier(team);
    struct fnn_range some = fnn_share_blocks(channels, FNN_LANES, team);
    for (ptrdiff_t c = some.begin; c < some.end; c++) {
        double sum = 0, product = 0;
        for (ptrdiff_t n = 0; n < args->batch; n++) {
            sum += parts[2 * n * channels + c];
            product += parts[(2 * n + 1) * channels + c];
        }
        if (args->dbias) args->dbias[c] = (float)sum;
        if (args->dweight) args->dweight[c] = (float)product;
    }
}
