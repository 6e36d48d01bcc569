/* The third stage of winograd_convolution.h: A^T M A of a tile, and what is done to it on its way to memory. */
#ifndef FASTNN_WINOGRAD_OUTPUT_H
#define FASTNN_WINOGRAD_OUTPUT_H

#include "winograd_convolution.h"

/* Whether A^T M of a tile, and a few vectors more, fits the registers: all rows of outputs are then made at once. */
#define WINOGRAD_HALF_FITS(m, r) ((m) * ((m) + (r) - 1) + 4 <= FNN_GEMM_ROWS * FNN_GEMM_VECTORS)

/* One row of a tile's outputs, a vector of channels, those from `begin` to `end`. at: element of y of the first of all;
 * distance: floats from one to the next. */
static __attribute__((noinline)) void winograd_store_outputs(const struct winograd_convolution *f, const vec *outputs,
                                                             ptrdiff_t at, ptrdiff_t distance, struct fnn_range some,
                                                             ptrdiff_t lanes, const float *bias) {
    const vec added = bias ? load_lanes(bias, lanes) : vec_zero();
    for (ptrdiff_t j = some.begin; j < some.end; j++) {
        const ptrdiff_t place = at + j * distance;
        vec y = bias ? vec_add(outputs[j], added) : outputs[j];
        if (f->residual) y = vec_add(y, load_lanes(f->residual + place, lanes));
        store_lanes(f->y + place, gemm_activate(y, f->activation), lanes);
    }
}

/* Likewise whole rows of whole vectors, row_stride floats apart: what is done to all of them is asked once. */
FNN_INLINE void winograd_store_rows(const struct winograd_convolution *f, int m, int rows,
                                    vec y[WINOGRAD_PATCH][WINOGRAD_PATCH], ptrdiff_t at, ptrdiff_t row_stride,
                                    ptrdiff_t distance, const float *bias) {
    if (bias) {
        const vec added = vec_load(bias);
#pragma GCC unroll 16
        for (int i = 0; i < rows * m; i++) y[i / m][i % m] = vec_add(y[i / m][i % m], added);
    }
    const float *residual = f->residual ? f->residual + at : NULL;
    float *to = f->y + at;
#pragma GCC unroll 4
    for (int i = 0; i < rows && residual; i++, residual += row_stride) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) y[i][j] = vec_add(y[i][j], vec_load(residual + j * distance));
    }
    if (f->activation != FNN_ACTIVATION_NONE) {
#pragma GCC unroll 16
        for (int i = 0; i < rows * m; i++) y[i / m][i % m] = gemm_activate(y[i / m][i % m], f->activation);
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++, to += row_stride) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) vec_store(to + j * distance, y[i][j]);
    }
}

/* The larger one; best if they are equal; NaN if one is. */
FNN_INLINE vec winograd_larger(vec best, vec seen) { return vec_select(vec_is_nan(seen), seen, vec_max(seen, best)); }

/* Likewise the maxima of each two columns of two rows. */
FNN_INLINE void winograd_store_maxima(const struct winograd_convolution *f, int m, const vec *upper, const vec *lower,
                                      ptrdiff_t at, ptrdiff_t columns, ptrdiff_t lanes, const float *bias) {
    const vec added = bias ? load_lanes(bias, lanes) : vec_zero();
#pragma GCC unroll 2
    for (int j = 0; j < m; j += 2, at += f->out_channels) {
        if (j + 1 >= columns) break;
        vec window[4] = {upper[j], upper[j + 1], lower[j], lower[j + 1]};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (bias) window[i] = vec_add(window[i], added);
            window[i] = gemm_activate(window[i], f->activation);
        }
        const vec first_row = winograd_larger(window[0], window[1]);
        store_lanes(f->y + at, winograd_larger(winograd_larger(first_row, window[2]), window[3]), lanes);
    }
}

/* A^T M of one tile and one vector of channels: half[row][column]; stride: floats from a plane to the next. count: rows of
 * outputs, m at most. Of the planes `rows` x `columns` are there, the others zero. */
FNN_INLINE void winograd_transform_columns(const float *from, ptrdiff_t stride, int m, int r, int count, int rows,
                                           int columns, vec half[][WINOGRAD_PATCH]) {
    const int patch = m + r - 1;
#pragma GCC unroll 6
    for (int q = 0; q < patch; q++, from += stride) {
        vec planes[WINOGRAD_PATCH], mapped[WINOGRAD_PATCH];
#pragma GCC unroll 6
        for (int p = 0; p < patch; p++)
            planes[p] = p < rows && q < columns ? vec_load(from + p * patch * stride) : vec_zero();
        winograd_output(count, r, planes, mapped);
#pragma GCC unroll 4
        for (int p = 0; p < m; p++) half[p][q] = q < columns ? mapped[p] : vec_zero();
    }
}

/* Rows p to p + rows of a whole tile of whole vectors. */
FNN_INLINE void winograd_finish_rows(const struct winograd_convolution *f, int m, int r, int step, int rows,
                                     const vec half[][WINOGRAD_PATCH], ptrdiff_t at, ptrdiff_t row_stride,
                                     ptrdiff_t distance, const float *bias) {
    vec y[WINOGRAD_PATCH][WINOGRAD_PATCH];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) winograd_output(m, r, half[i], y[i]);
    if (step == 1) {
        winograd_store_rows(f, m, rows, y, at, row_stride, distance, bias);
        return;
    }
#pragma GCC unroll 2
    for (int i = 0; i < rows; i += 2, at += row_stride)
        winograd_store_maxima(f, m, y[i], y[i + 1], at, m, FNN_LANES, bias);
}

/* All of them. */
FNN_INLINE void winograd_finish_tile(const struct winograd_convolution *f, int m, int r, int step,
                                     const vec half[][WINOGRAD_PATCH], ptrdiff_t at, ptrdiff_t row_stride,
                                     ptrdiff_t distance, const float *bias) {
    if (WINOGRAD_HALF_FITS(m, r)) {
        winograd_finish_rows(f, m, r, step, m, half, at, row_stride, distance, bias);
        return;
    }
#pragma GCC unroll 1
    for (int p = 0; p < m; p += step, at += row_stride)
        winograd_finish_rows(f, m, r, step, step, half + p, at, row_stride, distance, bias);
}

/* Asks for the lines that the tile below this one will write, a line of channels of each pixel. */
FNN_INLINE void winograd_prefetch_outputs(const float *y, int m, ptrdiff_t row_stride, ptrdiff_t distance) {
    const size_t row_bytes = (size_t)row_stride * sizeof(float), bytes = (size_t)distance * sizeof(float);
    uintptr_t row = (uintptr_t)y + (size_t)m * row_bytes;
#pragma GCC unroll 1
    for (int i = 0; i < m; i++, row += row_bytes) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) __builtin_prefetch((const void *)(row + (size_t)j * bytes), 1, 2);
    }
}

/* Outputs of a tile at the edge, or of a part of a vector: `count` rows of `columns`. */
FNN_INLINE void winograd_finish_part(const struct winograd_convolution *f, int m, int r, int step,
                                     const vec half[][WINOGRAD_PATCH], ptrdiff_t count, ptrdiff_t columns, ptrdiff_t at,
                                     ptrdiff_t row_stride, ptrdiff_t lanes, const float *bias) {
    const int few_columns = r == 2 ? (int)columns : m;
#pragma GCC unroll 1
    for (ptrdiff_t p = 0; p + step <= count; p += step, at += row_stride) {
        vec rows[2][WINOGRAD_PATCH];
        winograd_output(few_columns, r, half[p], rows[0]);
        if (step == 2) winograd_output(few_columns, r, half[p + 1], rows[1]);
        if (step == 2)
            winograd_store_maxima(f, m, rows[0], rows[1], at, columns, lanes, bias);
        else
            winograd_store_outputs(f, rows[0], at, f->out_channels, (struct fnn_range){0, columns}, lanes, bias);
    }
}

/* y of one unit. step: pixels of the convolution for one of y, in each direction: 1, or 2 for maxima. */
FNN_INLINE void winograd_transform_outputs(const struct winograd_convolution *f, int m, int r, int step,
                                           const struct winograd_unit *unit) {
    const ptrdiff_t row_stride = f->out_width / step * f->out_channels;
    struct winograd_tile tile = winograd_tile_at(&f->shape, unit->tiles.begin);
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        const ptrdiff_t row = tile.row * m, column = tile.column * m;
        const ptrdiff_t corner = (tile.image * (f->out_height / step) + row / step) * row_stride +
                                 column / step * f->out_channels + unit->first;
        const ptrdiff_t count = fnn_min(f->out_height - row, m), columns = fnn_min(f->out_width - column, m);
        for (ptrdiff_t k = 0; k < unit->columns; k += FNN_LANES) {
            const ptrdiff_t lanes = lanes_left(unit->columns - k), at = corner + k;
            const float *bias = f->bias ? f->bias + unit->first + k : NULL;
            const float *from = unit->products + (i - unit->tiles.begin) * unit->stride + k;
            if (step == 1 && r != 2 && k % WINOGRAD_LINE == 0)
                winograd_prefetch_outputs(f->y + at, m, row_stride, f->out_channels);
            if (count == m && columns == m && lanes == FNN_LANES) {
                vec half[WINOGRAD_PATCH][WINOGRAD_PATCH];
                winograd_transform_columns(from, unit->plane_stride, m, r, m, m + r - 1, m + r - 1, half);
                winograd_finish_tile(f, m, r, step, half, at, row_stride, f->out_channels, bias);
            } else {
                vec half[WINOGRAD_PATCH][WINOGRAD_PATCH];
                winograd_transform_columns(from, unit->plane_stride, m, r, r == 2 ? (int)count : m, m + r - 1,
                                           m + r - 1, half);
                winograd_finish_part(f, m, r, step, half, count, columns, at, row_stride, lanes, bias);
            }
        }
    }
}

#endif
