/* Moments of blocks of rows, taken by the kernel that makes the rows, while they are in registers.
 *
 *     moments (blocks, 3, C): for each block of `moment_rows` rows of a matrix (rows, C), the last one maybe shorter, and
 *     each channel a pivot, the mean less the pivot, and the sum of centred squares
 *
 * The pivot is the block's first row, so that an offset common to all rows costs no digits. A few rows at a time are added:
 * the first ones' own mean and centred squares, then, with d the distances of r rows from the mean m of the N before them,
 *
 *     m += sum d / (N + r)      S += sum d^2 - (sum d)^2 / (N + r)
 *
 * which is Welford's method (1962) for several rows; since N >= r, or about, no more than half of sum d^2 is taken off again.
 *
 * Errors of a block of N rows, added in n goes of up to r, with D the largest distance from the pivot, S the sum of squares
 * and eps = 2^-24: of the mean (2*n + r + 12) * eps * D, of S (2*n + r + 16) * eps * (S + 2 * D * sqrt(N * S)). */
#ifndef FASTNN_KERNELS_BLOCK_MOMENTS_H
#define FASTNN_KERNELS_BLOCK_MOMENTS_H

#include "lanes.h"
#include "row_blocks.h"

/* The moments of a block's first `rows` rows, of one vector of channels: value, one vector a row. */
FNN_INLINE void first_moments(const vec *value, ptrdiff_t rows, float *moments, ptrdiff_t channels, ptrdiff_t lanes) {
    vec sum = vec_zero(), squares = vec_zero();
    const vec pivot = value[0];
    for (ptrdiff_t i = 1; i < rows; i++) sum = vec_add(sum, vec_sub(value[i], pivot));
    const vec mean = vec_mul(sum, vec_set1(1.0f / (float)rows));
    for (ptrdiff_t i = 0; i < rows; i++) {
        const vec centred = vec_sub(vec_sub(value[i], pivot), mean);
        squares = vec_fma(centred, centred, squares);
    }
    store_lanes(moments, pivot, lanes);
    store_lanes(moments + channels, mean, lanes);
    store_lanes(moments + 2 * channels, squares, lanes);
}

/* One more row: its distance from the mean, and the square of that. */
FNN_INLINE void add_distance(vec value, vec pivot, vec mean, vec *sum, vec *squares) {
    const vec distance = vec_sub(vec_sub(value, pivot), mean);
    *sum = vec_add(*sum, distance);
    *squares = vec_fma(distance, distance, *squares);
}

/* Adds `rows` rows to the moments of `seen` rows, at least one, which lie `channels` apart. Even rows and odd rows are summed apart. */
FNN_INLINE void more_moments(const vec *value, ptrdiff_t rows, ptrdiff_t seen, float *moments, ptrdiff_t channels,
                             ptrdiff_t lanes) {
    vec sum[2] = {vec_zero(), vec_zero()}, squares[2] = {vec_zero(), vec_zero()};
    const vec pivot = load_lanes(moments, lanes), mean = load_lanes(moments + channels, lanes);
    const ptrdiff_t even = rows - rows % 2;
    for (ptrdiff_t i = 0; i < even; i += 2) {
        add_distance(value[i], pivot, mean, &sum[0], &squares[0]);
        add_distance(value[i + 1], pivot, mean, &sum[1], &squares[1]);
    }
    if (even < rows) add_distance(value[even], pivot, mean, &sum[0], &squares[0]);
    const vec total = vec_add(sum[0], sum[1]), step = vec_mul(total, vec_set1(1.0f / (float)(seen + rows)));
    const vec more = vec_fnma(total, step, vec_add(squares[0], squares[1]));
    store_lanes(moments + channels, vec_add(mean, step), lanes);
    store_lanes(moments + 2 * channels, vec_add(load_lanes(moments + 2 * channels, lanes), more), lanes);
}

FNN_INLINE void add_moments(const vec *value, ptrdiff_t rows, ptrdiff_t seen, float *moments, ptrdiff_t channels,
                            ptrdiff_t lanes) {
    if (seen)
        more_moments(value, rows, seen, moments, channels, lanes);
    else
        first_moments(value, rows, moments, channels, lanes);
}

/* Means and sums of centred squares of `count` <= FNN_LANES channels from c on, side by side, over all blocks, in order. */
FNN_INLINE void merge_moments(const float *moments, ptrdiff_t channels, const struct row_blocks *blocks, ptrdiff_t c,
                              ptrdiff_t count, double *mean, double *squares) {
    for (ptrdiff_t i = 0; i < FNN_LANES; i++) mean[i] = squares[i] = 0;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *at = moments + 3 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) mean[i] += rows * ((double)at[i] + at[channels + i]);
    }
    for (ptrdiff_t i = 0; i < count; i++) mean[i] /= (double)blocks->rows;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const double rows = (double)(block.end - block.begin);
        const float *at = moments + 3 * b * channels + c;
        for (ptrdiff_t i = 0; i < count; i++) {
            const double delta = (double)at[i] + at[channels + i] - mean[i];
            squares[i] += at[2 * channels + i] + rows * delta * delta;
        }
    }
}

#endif
