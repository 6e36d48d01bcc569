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

/* y = (x - mean) * scale + shift of n channels, each of the channel. */
FNN_INLINE void scale_lanes(bool stream, ptrdiff_t n, const float *x, float *y, const float *mean, const float *scale,
                            const float *shift) {
    vec centred = vec_sub(load_lanes(x, n), load_lanes(mean, n));
    put_lanes(stream, y, vec_fma(centred, load_lanes(scale, n), load_lanes(shift, n)), n);
}

FNN_INLINE void scale_row(const bool stream, const float *x, float *y, const float *mean, const float *scale,
                          const float *shift, ptrdiff_t channels) {
    ptrdiff_t c = 0, rest = channels % FNN_LANES;
    for (; c < channels - rest; c += FNN_LANES)
        scale_lanes(stream, FNN_LANES, x + c, y + c, mean + c, scale + c, shift + c);
    if (rest) scale_lanes(stream, rest, x + c, y + c, mean + c, scale + c, shift + c);
}

/* The rows of an image are scaled the last ones first, what was read last being in the cache yet, and STRIDE_ROWS forwards. */
enum { STRIDE_ROWS = 16 };

FNN_INLINE void scale_rows(const bool stream, const float *x, float *y, const float *mean, const float *scale,
                           const float *shift, ptrdiff_t rows, ptrdiff_t channels) {
    for (ptrdiff_t end = rows, begin; end > 0; end = begin) {
        begin = fnn_max(end - STRIDE_ROWS, 0);
        for (ptrdiff_t r = begin; r < end; r++)
            scale_row(stream, x + r * channels, y + r * channels, mean, scale, shift, channels);
    }
}

void FNN_FUNCTION(group_norm_forward)(const struct fnn_group_norm_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, positions = args->positions, groups = args->groups, width = channels / groups;
    ptrdiff_t size = positions * channels, all = args->batch * groups;
    const bool stream = channels % FNN_LANES == 0 && streams(args->x, args->y, args->batch * size);
    float *moments = args->workspace + team->rank * args->workspace_stride;
    float *mean = moments + FNN_GROUP_NORM_FIRST * channels, *scale = mean + channels, *shift = scale + channels;
    struct row_blocks blocks = row_blocks(positions, channels);
    struct fnn_range images;
    for (struct fnn_work work = fnn_work(positions ? args->batch : 0, 1, team); fnn_take(&work, &images);)
        for (ptrdiff_t n = images.begin; n < images.end; n++) {
            const float *x = args->x + n * size;
            ptrdiff_t rows_left = (args->batch - n) * positions;
            for (ptrdiff_t b = 0; b < blocks.count; b++)
                block_moments(x, channels, row_block(&blocks, b), blocks.chunk, rows_left, moments + 2 * b * channels,
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
            if (stream)
                scale_rows(true, x, args->y + n * size, mean, scale, shift, positions, channels);
            else
                scale_rows(false, x, args->y + n * size, mean, scale, shift, positions, channels);
        }
    vec_fence();
}

/* dy and dy * (x - mean) of n channels of a row, added to sums, products. */
FNN_INLINE void add_lanes(ptrdiff_t n, const float *dy, const float *x, const float *mean, float *sums,
                          float *products) {
    vec gradient = load_lanes(dy, n), centred = vec_sub(load_lanes(x, n), load_lanes(mean, n));
    vec_store(sums, vec_add(vec_load(sums), gradient));
    vec_store(products, vec_fma(gradient, centred, vec_load(products)));
}

enum { TILE_CHANNELS = 1024 }; /* whose sums stand in the L1 cache */

/* sum dy and sum dy * (x - mean) over a chunk of rows, for `count` <= TILE_CHANNELS channels, added to sums, products (C), or set
 * if it is the first. Row by row, as the memory streams best. */
static void chunk_products(const float *dy, const float *x, const float *mean, ptrdiff_t rows, ptrdiff_t channels,
                           ptrdiff_t count, bool first, float *sums, float *products) {
    float sum[TILE_CHANNELS] = {0}, product[TILE_CHANNELS] = {0};
    ptrdiff_t rest = count % FNN_LANES, c;
    for (ptrdiff_t r = 0; r < rows; r++, dy += channels, x += channels) {
        for (c = 0; c < count - rest; c += FNN_LANES)
            add_lanes(FNN_LANES, dy + c, x + c, mean + c, sum + c, product + c);
        if (rest) add_lanes(rest, dy + c, x + c, mean + c, sum + c, product + c);
    }
    for (c = 0; c < count; c++) {
        sums[c] = first ? sum[c] : sums[c] + sum[c];
        products[c] = first ? product[c] : products[c] + product[c];
    }
}

static void block_products(const float *dy, const float *x, const float *mean, ptrdiff_t channels,
                           struct fnn_range block, ptrdiff_t chunk, float *sums, float *products) {
    for (ptrdiff_t row = block.begin; row < block.end; row += chunk)
        for (ptrdiff_t c = 0; c < channels; c += TILE_CHANNELS) {
            ptrdiff_t at = row * channels + c;
            chunk_products(dy + at, x + at, mean + c, fnn_min(chunk, block.end - row), channels,
                           fnn_min(TILE_CHANNELS, channels - c), row == block.begin, sums + c, products + c);
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

/* dx of n channels of a row. */
FNN_INLINE void gradient_lanes(bool stream, ptrdiff_t n, const float *dy, const float *x, float *dx, ptrdiff_t c,
                               const struct coefficients *of) {
    vec centred = vec_sub(load_lanes(x + c, n), load_lanes(of->mean + c, n));
    vec rest = vec_fma(centred, load_lanes(of->slope + c, n), load_lanes(of->offset + c, n));
    put_lanes(stream, dx + c, vec_fma(load_lanes(dy + c, n), load_lanes(of->scale + c, n), rest), n);
}

FNN_INLINE void gradient_rows(const bool stream, const float *dy, const float *x, float *dx, ptrdiff_t rows,
                              ptrdiff_t channels, const struct coefficients of) {
    ptrdiff_t rest = channels % FNN_LANES;
    for (ptrdiff_t end = rows, begin; end > 0; end = begin) {
        begin = fnn_max(end - STRIDE_ROWS, 0);
        for (ptrdiff_t r = begin; r < end; r++) {
            ptrdiff_t at = r * channels, c = 0;
            for (; c < channels - rest; c += FNN_LANES)
                gradient_lanes(stream, FNN_LANES, dy + at, x + at, dx + at, c, &of);
            if (rest) gradient_lanes(stream, rest, dy + at, x + at, dx + at, c, &of);
        }
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
    if (stream)
        gradient_rows(true, dy, x, dx, args->positions, channels, of);
    else
        gradient_rows(false, dy, x, dx, args->positions, channels, of);
}

void FNN_FUNCTION(group_norm_backward)(const struct fnn_group_norm_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, count = args->batch * args->positions * channels;
    const bool stream = channels % FNN_LANES == 0 && args->dx != args->x && streams(args->dy, args->dx, count);
    float *partial = args->workspace + team->rank * args->workspace_stride;
    float *parts = args->workspace + args->threads * args->workspace_stride;
    struct row_blocks blocks = row_blocks(args->positions, channels);
    struct fnn_range images;
    for (struct fnn_work work = fnn_work(args->batch, 1, team); fnn_take(&work, &images);)
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
