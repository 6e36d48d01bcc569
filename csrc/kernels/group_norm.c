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

/* Statistics of the channels `first` to first + width, one group, of an image whose blocks' moments are known. */
static void finish_group(const float *moments, const struct row_blocks *blocks, const float *pivot, ptrdiff_t channels,
                         ptrdiff_t first, ptrdiff_t width, double eps, float *mean, float *remainder, float *inverse) {
    double sum = 0, centred = 0, total = (double)blocks->rows * (double)width;
    for (ptrdiff_t c = first; c < first + width; c++) {
        double channel_mean, squares;
        merge_blocks(moments, channels, blocks, c, &channel_mean, &squares);
        sum += channel_mean + pivot[c];
    }
    double exact = sum / (double)width;
    for (ptrdiff_t c = first; c < first + width; c++) {
        double channel_mean, squares;
        merge_blocks(moments, channels, blocks, c, &channel_mean, &squares);
        double delta = channel_mean + pivot[c] - exact;
        centred += squares + (double)blocks->rows * delta * delta;
    }
    *mean = (float)exact;
    *remainder = (float)(exact - (double)*mean);
    *inverse = (float)(1.0 / __builtin_sqrt(centred / total + eps));
}

/* y = (x - mean) * scale + shift, each of the channel. */
static void scale_rows(bool stream, const float *x, float *y, const float *mean, const float *scale, const float *shift,
                       ptrdiff_t rows, ptrdiff_t channels) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
            ptrdiff_t i = r * channels + c, n = lanes_left(channels - c);
            vec centred = vec_sub(load_lanes(x + i, n), load_lanes(mean + c, n));
            put_lanes(stream, y + i, vec_fma(centred, load_lanes(scale + c, n), load_lanes(shift + c, n)), n);
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
        for (ptrdiff_t g = 0; g < groups; g++) {
            float *statistics = args->statistics + n * groups + g;
            finish_group(moments, &blocks, x, channels, g * width, width, args->eps, statistics, statistics + all,
                         statistics + 2 * all);
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
