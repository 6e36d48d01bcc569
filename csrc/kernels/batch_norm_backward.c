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
 * dy and x are read twice, or once with sums, dx written once; both times row by row, as the memory streams best. Parallel over
 * blocks of rows as in the forward pass.
 * Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015. */
#include "batch_norm.h"

enum mask_source { OPEN_ALWAYS, OPEN_BY_OUTPUT, OPEN_BY_INPUT, OPEN_BY_OUTPUT_6, OPEN_BY_INPUT_6 };

/* Channels whose sums stand in the L1 cache; and rows that are summed side by side where they are narrow, since a chain of
 * additions to an element in the cache is a long one. Wide rows follow each other: memory streams best so. */
enum { TILE_CHANNELS = 1024, NARROW_CHANNELS = 64, NARROW_ROWS = 4 };

/* Of a vector of channels: the mean, and the forward pass's coefficients where they say whether the ReLU was open. */
struct normalization {
    vec mean, scale, shift;
};

FNN_INLINE struct normalization normalization(const enum mask_source source,
                                              const struct fnn_batch_norm_backward_args *args, ptrdiff_t c,
                                              ptrdiff_t n) {
    const float *scale = args->workspace + FNN_BATCH_NORM_SCALE * args->channels;
    const float *shift = args->workspace + FNN_BATCH_NORM_SHIFT * args->channels;
    const bool from_input = source == OPEN_BY_INPUT || source == OPEN_BY_INPUT_6;
    return (struct normalization){load_lanes(args->statistics + c, n),
                                  from_input ? load_lanes(scale + c, n) : vec_zero(),
                                  from_input ? load_lanes(shift + c, n) : vec_zero()};
}

/* g at element i; `centred` is x - mean there. */
FNN_INLINE vec masked_gradient(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                               ptrdiff_t i, ptrdiff_t n, vec centred, const struct normalization *of) {
    vec dy = load_lanes(args->dy + i, n);
    if (source == OPEN_ALWAYS) return dy;
    const bool from_output = source == OPEN_BY_OUTPUT || source == OPEN_BY_OUTPUT_6;
    vec y = from_output ? load_lanes(args->y + i, n) : vec_fma(centred, of->scale, of->shift);
    return source == OPEN_BY_OUTPUT || source == OPEN_BY_INPUT ? open_gradient(dy, y) : open_gradient_6(dy, y);
}

/* Adds g and g * (x - mean - remainder) of n channels of `rows` rows, the first at element i, to whole vectors of sums. */
FNN_INLINE void add_lanes(const int rows, const enum mask_source source,
                          const struct fnn_batch_norm_backward_args *args, ptrdiff_t i, ptrdiff_t c, ptrdiff_t n,
                          float *sums, float *products) {
    const struct normalization of = normalization(source, args, c, n);
    const vec remainder = load_lanes(args->statistics + args->channels + c, n);
    vec sum = vec_load(sums), product = vec_load(products);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++, i += args->channels) {
        vec centred = vec_sub(load_lanes(args->x + i, n), of.mean);
        vec g = masked_gradient(source, args, i, n, centred, &of);
        sum = vec_add(sum, g);
        product = vec_fma(g, vec_sub(centred, remainder), product);
    }
    vec_store(sums, sum);
    vec_store(products, product);
}

FNN_INLINE void add_rows(const int rows, const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                         ptrdiff_t row, struct fnn_range tile, float *sums, float *products) {
    ptrdiff_t first = row * args->channels, rest = (tile.end - tile.begin) % FNN_LANES, c = tile.begin;
    for (; c < tile.end - rest; c += FNN_LANES)
        add_lanes(rows, source, args, first + c, c, FNN_LANES, sums + c - tile.begin, products + c - tile.begin);
    if (rest) add_lanes(rows, source, args, first + c, c, rest, sums + c - tile.begin, products + c - tile.begin);
}

/* Adds a chunk of rows, some channels of it, to sums, products (C), or sets them if it is the first of its block. */
FNN_INLINE void add_chunk(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                          struct fnn_range rows, struct fnn_range tile, bool first, float *sums, float *products) {
    float sum[TILE_CHANNELS], product[TILE_CHANNELS];
    ptrdiff_t count = tile.end - tile.begin, r = rows.begin;
    for (ptrdiff_t c = 0; c < count; c += FNN_LANES) {
        vec_store(sum + c, vec_zero());
        vec_store(product + c, vec_zero());
    }
    for (; count <= NARROW_CHANNELS && r + NARROW_ROWS <= rows.end; r += NARROW_ROWS)
        add_rows(NARROW_ROWS, source, args, r, tile, sum, product);
    for (; r < rows.end; r++) add_rows(1, source, args, r, tile, sum, product);
    sums += tile.begin;
    products += tile.begin;
    for (ptrdiff_t c = 0; c < count; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - c);
        vec old_sum = first ? vec_zero() : load_lanes(sums + c, n);
        vec old_product = first ? vec_zero() : load_lanes(products + c, n);
        store_lanes(sums + c, vec_add(old_sum, vec_load(sum + c)), n);
        store_lanes(products + c, vec_add(old_product, vec_load(product + c)), n);
    }
}

FNN_INLINE void block_sums(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                           struct fnn_range block, ptrdiff_t chunk, float *sums, float *products) {
    ptrdiff_t channels = args->channels;
    for (ptrdiff_t row = block.begin; row < block.end; row += chunk) {
        struct fnn_range rows = {row, fnn_min(row + chunk, block.end)};
        for (ptrdiff_t c = 0; c < channels; c += TILE_CHANNELS)
            add_chunk(source, args, rows, (struct fnn_range){c, fnn_min(c + TILE_CHANNELS, channels)},
                      row == block.begin, sums, products);
    }
}

/* Sums over the blocks, in order, of `count` <= FNN_LANES channels from c on, side by side. */
FNN_INLINE void merge_sums(const float *sums, ptrdiff_t blocks, ptrdiff_t channels, ptrdiff_t c, ptrdiff_t count,
                           double *sum, double *product) {
    for (ptrdiff_t i = 0; i < FNN_LANES; i++) sum[i] = product[i] = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const float *of = sums + 2 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) {
            sum[i] += of[i];
            product[i] += of[channels + i];
        }
    }
}

/* dweight, dbias, and the coefficients of dx = scale * g + slope * (x - mean) + offset, for channel c. */
static void finish_channel(const struct fnn_batch_norm_backward_args *args, ptrdiff_t c, double sum, double product) {
    ptrdiff_t channels = args->channels;
    float *workspace = args->workspace;
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

static void finish_channels(const struct fnn_batch_norm_backward_args *args, ptrdiff_t blocks, struct fnn_range some) {
    const float *sums = args->sums ? args->sums : args->workspace;
    for (ptrdiff_t c = some.begin; c < some.end; c += FNN_LANES) {
        double sum[FNN_LANES], product[FNN_LANES];
        ptrdiff_t count = lanes_left(some.end - c);
        if (count == FNN_LANES)
            merge_sums(sums, blocks, args->channels, c, FNN_LANES, sum, product);
        else
            merge_sums(sums, blocks, args->channels, c, count, sum, product);
        for (ptrdiff_t i = 0; i < count; i++) finish_channel(args, c + i, sum[i], product[i]);
    }
}

/* Which results there are, and whether they pass the caches. */
struct gradient_targets {
    float *dx, *dresidual;
    bool stream, stream_residual;
};

/* n channels of dx and dresidual from element i, channel c, on. */
FNN_INLINE void put_gradients(const enum mask_source source, const struct fnn_batch_norm_backward_args *args,
                              const struct gradient_targets *to, ptrdiff_t i, ptrdiff_t c, ptrdiff_t n) {
    const float *workspace = args->workspace + c;
    const struct normalization of = normalization(source, args, c, n);
    vec centred = vec_sub(load_lanes(args->x + i, n), of.mean);
    vec g = masked_gradient(source, args, i, n, centred, &of);
    vec dx = vec_fma(centred, load_lanes(workspace + FNN_BATCH_NORM_SLOPE * args->channels, n),
                     load_lanes(workspace + FNN_BATCH_NORM_OFFSET * args->channels, n));
    dx = vec_fma(g, load_lanes(workspace + FNN_BATCH_NORM_SCALE * args->channels, n), dx);
    if (to->dx) put_lanes(to->stream, to->dx + i, dx, n);
    if (to->dresidual) put_lanes(to->stream_residual, to->dresidual + i, g, n);
}

FNN_INLINE void input_gradient(const enum mask_source source, const struct fnn_batch_norm_backward_args *arguments,
                               struct fnn_range rows) {
    const struct fnn_batch_norm_backward_args own = *arguments, *args = &own; /* that no store seems to change */
    ptrdiff_t channels = args->channels, count = args->rows * channels, rest = channels % FNN_LANES;
    const bool whole = rest == 0; /* then rows keep the alignment of the first */
    const bool stream = whole && args->dx != args->x && args->dx != args->y && streams(args->dy, args->dx, count);
    const bool stream_residual = whole && args->dresidual != args->y && streams(args->dy, args->dresidual, count);
    const struct gradient_targets to = {args->dx, args->dresidual, stream, stream_residual};
    for (ptrdiff_t r = rows.begin; r < rows.end; r++) {
        ptrdiff_t c = 0;
        for (; c < channels - rest; c += FNN_LANES) put_gradients(source, args, &to, r * channels + c, c, FNN_LANES);
        if (rest) put_gradients(source, args, &to, r * channels + c, c, rest);
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
    struct fnn_range range;
    if (!args->sums) {
        fnn_barrier(team);
        for (struct fnn_work work = fnn_work(blocks.count, 1, team); fnn_take(&work, &range);)
            for (ptrdiff_t b = range.begin; b < range.end; b++)
                block_sums(source, args, row_block(&blocks, b), blocks.chunk, workspace + 2 * b * channels,
                           workspace + (2 * b + 1) * channels);
        fnn_barrier(team);
    }
    finish_channels(args, blocks.count, some);
    fnn_barrier(team);
    if (!args->dx && !args->dresidual) return;
    struct fnn_work work = fnn_work(blocks.count, 1, team);
    work.backwards = true; /* what was read last is still in the cache */
    while (fnn_take(&work, &range))
        for (ptrdiff_t b = range.end - 1; b >= range.begin; b--) input_gradient(source, args, row_block(&blocks, b));
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
