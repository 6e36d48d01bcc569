/* Mean and centred squares of the columns of a matrix (rows, channels), by the method of Chan, Golub and LeVeque (1983):
 * chunk by chunk, block by block, as row_blocks.h cuts it; see batch_norm_forward.c for the error. */
#ifndef FASTNN_KERNELS_MOMENTS_H
#define FASTNN_KERNELS_MOMENTS_H

#include "lanes.h"
#include "row_blocks.h"

/* Vectors of channels that are summed at a time: as many as there are registers, since memory streams best row by row. */
enum { FNN_MOMENT_GROUP = 8 };

/* While a chunk in the cache is worked on, the same columns of one to come are fetched: memory is never left idle. */
FNN_INLINE void fetch_columns(const float *ahead, const int vectors) {
    for (int line = 0; line < vectors * FNN_LANES; line += FNN_LINE) __builtin_prefetch(ahead + line);
}

/* Moments of `rows` rows for `vectors` vectors of channels (the last one of `n` lanes), merged into mean, squares (C),
 * which already stand for `seen` rows. All relative to pivot (C). Fetches as many rows from `ahead` on. */
FNN_INLINE void merge_chunk(const int vectors, ptrdiff_t n, const float *x, ptrdiff_t channels, ptrdiff_t rows,
                            const float *ahead, const float *pivot, ptrdiff_t seen, float *mean, float *squares) {
    vec origin[FNN_MOMENT_GROUP], sum[FNN_MOMENT_GROUP], centre[FNN_MOMENT_GROUP];
    for (int v = 0; v < vectors; v++) {
        origin[v] = load_lanes(pivot + v * FNN_LANES, n);
        sum[v] = vec_zero();
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[v] = vec_add(sum[v], vec_sub(load_lanes(x + r * channels + v * FNN_LANES, n), origin[v]));
    for (int v = 0; v < vectors; v++) {
        centre[v] = vec_mul(sum[v], vec_set1(1.0f / (float)rows));
        sum[v] = vec_zero();
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        fetch_columns(ahead + r * channels, vectors);
        for (int v = 0; v < vectors; v++) {
            vec d = vec_sub(vec_sub(load_lanes(x + r * channels + v * FNN_LANES, n), origin[v]), centre[v]);
            sum[v] = vec_fma(d, d, sum[v]);
        }
    }
    vec share = vec_set1((float)rows / (float)(seen + rows)), weight = vec_set1((float)seen);
    for (int v = 0; v < vectors; v++) {
        ptrdiff_t c = v * FNN_LANES;
        vec old_mean = seen ? load_lanes(mean + c, n) : vec_zero();
        vec old_squares = seen ? load_lanes(squares + c, n) : vec_zero();
        vec delta = vec_sub(centre[v], old_mean), step = vec_mul(delta, share);
        store_lanes(mean + c, vec_add(old_mean, step), n);
        store_lanes(squares + c, vec_fma(vec_mul(delta, weight), step, vec_add(old_squares, sum[v])), n);
    }
}

/* Where a chunk lies in x (whose first row is the pivot), and the one to come. */
struct moment_chunk {
    const float *x, *from, *ahead;
    ptrdiff_t channels, rows, seen;
};

/* The groups of `vectors` whole vectors that there are from channel c on; returns the first channel behind them. */
FNN_INLINE ptrdiff_t merge_groups(const int vectors, const struct moment_chunk *of, ptrdiff_t c, float *mean,
                                  float *squares) {
    for (; c + vectors * FNN_LANES <= of->channels; c += vectors * FNN_LANES)
        merge_chunk(vectors, FNN_LANES, of->from + c, of->channels, of->rows, of->ahead + c, of->x + c, of->seen,
                    mean + c, squares + c);
    return c;
}

/* Mean and sum of centred squares (channels), relative to the first row of x, of the rows of a block. x has rows up to `end`. */
static inline void block_moments(const float *x, ptrdiff_t channels, struct fnn_range block, ptrdiff_t chunk,
                                 ptrdiff_t end, float *mean, float *squares) {
    for (ptrdiff_t row = block.begin; row < block.end; row += chunk) {
        ptrdiff_t rows = fnn_min(chunk, block.end - row), c = 0;
        const float *from = x + row * channels, *ahead = row + 2 * rows <= end ? from + rows * channels : from;
        const struct moment_chunk of = {x, from, ahead, channels, rows, row - block.begin};
        c = merge_groups(FNN_MOMENT_GROUP, &of, c, mean, squares);
        c = merge_groups(FNN_MOMENT_GROUP / 2, &of, c, mean, squares);
        c = merge_groups(1, &of, c, mean, squares);
        if (c < channels)
            merge_chunk(1, channels - c, from + c, channels, rows, ahead + c, x + c, of.seen, mean + c, squares + c);
    }
}

/* The means relative to the pivot and the sums of centred squares of `count` <= FNN_LANES channels from c on, side by side, over all
 * blocks, in order. */
FNN_INLINE void merge_blocks(const float *workspace, ptrdiff_t channels, const struct row_blocks *blocks, ptrdiff_t c,
                             ptrdiff_t count, double *mean, double *squares) {
    for (ptrdiff_t i = 0; i < FNN_LANES; i++) mean[i] = squares[i] = 0;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *at = workspace + 2 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) mean[i] += rows * at[i];
    }
    for (ptrdiff_t i = 0; i < count; i++) mean[i] /= (double)blocks->rows;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *at = workspace + 2 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) {
            const double delta = at[i] - mean[i];
            squares[i] += at[channels + i] + rows * delta * delta;
        }
    }
}

#endif
