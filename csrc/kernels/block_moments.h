/* Moments of blocks of rows, taken by the kernel that makes the rows, while they are in registers.
 *
 *     moments (blocks, 3, C): for each block of `moment_rows` rows of a matrix (rows, C), the last one maybe shorter, and
 *     each channel a pivot, the mean less the pivot, and the sum of centred squares
 *
 * The pivot is the block's first row, so that an offset common to all rows costs no digits. A few rows at a time are added,
 * by the method of Chan, Golub and LeVeque (1983): their own mean and centred squares first, then the merge by weight.
 *
 * Errors of a block of N rows, added in n goes of up to r, with D the largest distance from the pivot, S the sum of squares
 * and eps = 2^-24: of the mean (2*n + r + 12) * eps * D, of S (2*n + r + 16) * eps * (S + 2 * D * sqrt(N * S)). */
#ifndef FASTNN_KERNELS_BLOCK_MOMENTS_H
#define FASTNN_KERNELS_BLOCK_MOMENTS_H

#include "lanes.h"
#include "row_blocks.h"

/* Adds `rows` rows of one vector of channels to the moments of `seen` rows, which lie `channels` apart. value: one vector a row. */
FNN_INLINE void add_moments(const vec *value, ptrdiff_t rows, ptrdiff_t seen, float *moments, ptrdiff_t channels,
                            ptrdiff_t lanes) {
    vec sum[2] = {vec_zero(), vec_zero()}, squares[2] = {vec_zero(), vec_zero()};
    const vec pivot = seen ? load_lanes(moments, lanes) : value[0];
    const ptrdiff_t even = rows - rows % 2; /* two chains of additions: even rows, odd rows */
    for (ptrdiff_t i = 0; i < even; i += 2) {
        sum[0] = vec_add(sum[0], vec_sub(value[i], pivot));
        sum[1] = vec_add(sum[1], vec_sub(value[i + 1], pivot));
    }
    if (even < rows) sum[0] = vec_add(sum[0], vec_sub(value[even], pivot));
    const vec mean = vec_mul(vec_add(sum[0], sum[1]), vec_set1(1.0f / (float)rows));
    for (ptrdiff_t i = 0; i < even; i += 2) {
        const vec first = vec_sub(vec_sub(value[i], pivot), mean), second = vec_sub(vec_sub(value[i + 1], pivot), mean);
        squares[0] = vec_fma(first, first, squares[0]);
        squares[1] = vec_fma(second, second, squares[1]);
    }
    if (even < rows) {
        const vec last = vec_sub(vec_sub(value[even], pivot), mean);
        squares[0] = vec_fma(last, last, squares[0]);
    }
    squares[0] = vec_add(squares[0], squares[1]);
    if (!seen) {
        store_lanes(moments, pivot, lanes);
        store_lanes(moments + channels, mean, lanes);
        store_lanes(moments + 2 * channels, squares[0], lanes);
        return;
    }
    const vec old_mean = load_lanes(moments + channels, lanes), delta = vec_sub(mean, old_mean);
    const vec step = vec_mul(delta, vec_set1((float)rows / (float)(seen + rows)));
    const vec between = vec_mul(vec_mul(delta, vec_set1((float)seen)), step);
    store_lanes(moments + channels, vec_add(old_mean, step), lanes);
    store_lanes(moments + 2 * channels,
                vec_add(load_lanes(moments + 2 * channels, lanes), vec_add(squares[0], between)), lanes);
}

/* Mean and sum of centred squares of one channel, over all blocks, in order. */
static inline void merge_moments(const float *moments, ptrdiff_t channels, const struct row_blocks *blocks, ptrdiff_t c,
                                 double *mean, double *squares) {
    double sum = 0, centred = 0;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const float *at = moments + 3 * b * channels + c;
        sum += (double)(block.end - block.begin) * ((double)at[0] + at[channels]);
    }
    *mean = sum / (double)blocks->rows;
    for (ptrdiff_t b = 0; b < blocks->count; b++) {
        const struct fnn_range block = row_block(blocks, b);
        const float *at = moments + 3 * b * channels + c;
        const double delta = (double)at[0] + at[channels] - *mean;
        centred += at[2 * channels] + (double)(block.end - block.begin) * delta * delta;
    }
    *squares = centred;
}

#endif
