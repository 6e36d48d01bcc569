/* The third stage of winograd_convolution.h: A^T M A of a tile, and what is done to it on its way to memory. */
#ifndef FASTNN_WINOGRAD_OUTPUT_H
#define FASTNN_WINOGRAD_OUTPUT_H

#include "winograd_convolution.h"

/* One row of a tile's outputs, a vector of channels, those from `begin` to `end`. at: element of y of the first of all m;
 * distance: floats from one to the next. */
FNN_INLINE void winograd_store_outputs(const struct winograd_convolution *f, int m, const vec *outputs, ptrdiff_t at,
                                       ptrdiff_t distance, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t lanes, vec bias) {
#pragma GCC unroll 4
    for (int j = 0; j < m; j++, at += distance) {
        if (j >= end) break;
        if (j < begin) continue;
        vec y = f->bias ? vec_add(outputs[j], bias) : outputs[j];
        if (f->residual) y = vec_add(y, load_lanes(f->residual + at, lanes));
        store_lanes(f->y + at, gemm_activate(y, f->activation), lanes);
    }
}

/* Likewise a whole row of whole vectors: what is done to all of them is asked once. */
FNN_INLINE void winograd_store_row(const struct winograd_convolution *f, int m, const vec *outputs, ptrdiff_t at,
                                   ptrdiff_t distance, vec bias) {
    vec y[WINOGRAD_PATCH];
#pragma GCC unroll 4
    for (int j = 0; j < m; j++) y[j] = f->bias ? vec_add(outputs[j], bias) : outputs[j];
    if (f->residual) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) y[j] = vec_add(y[j], vec_load(f->residual + at + j * distance));
    }
    if (f->activation != FNN_ACTIVATION_NONE) {
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) y[j] = gemm_activate(y[j], f->activation);
    }
#pragma GCC unroll 4
    for (int j = 0; j < m; j++) vec_store(f->y + at + j * distance, y[j]);
}

/* The larger one; best if they are equal; NaN if one is. */
FNN_INLINE vec winograd_larger(vec best, vec seen) { return vec_select(vec_is_nan(seen), seen, vec_max(seen, best)); }

/* Likewise the maxima of each two columns of two rows. */
FNN_INLINE void winograd_store_maxima(const struct winograd_convolution *f, int m, const vec *upper, const vec *lower,
                                      ptrdiff_t at, ptrdiff_t columns, ptrdiff_t lanes, vec bias) {
#pragma GCC unroll 2
    for (int j = 0; j < m; j += 2, at += f->out_channels) {
        if (j + 1 >= columns) break;
        vec window[4] = {upper[j], upper[j + 1], lower[j], lower[j + 1]};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (f->bias) window[i] = vec_add(window[i], bias);
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

/* A whole tile of whole vectors, to which nothing is done: y = half A. */
FNN_INLINE void winograd_store_plain(int m, int r, const vec half[][WINOGRAD_PATCH], float *y, ptrdiff_t row_stride,
                                     ptrdiff_t distance) {
#pragma GCC unroll 1
    for (int p = 0; p < m; p++, y += row_stride) {
        vec row[WINOGRAD_PATCH];
        winograd_output(m, r, half[p], row);
#pragma GCC unroll 4
        for (int j = 0; j < m; j++) vec_store(y + j * distance, row[j]);
    }
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

/* y of one unit. step: pixels of the convolution for one of y, in each direction: 1, or 2 for maxima. */
FNN_INLINE void winograd_transform_outputs(const struct winograd_convolution *f, int m, int r, int step,
                                           const struct winograd_unit *unit) {
    const ptrdiff_t row_stride = f->out_width / step * f->out_channels;
    const bool plain = step == 1 && r != 2 && !f->bias && !f->residual && f->activation == FNN_ACTIVATION_NONE;
    vec half[WINOGRAD_PATCH][WINOGRAD_PATCH], rows[2][WINOGRAD_PATCH];
    struct winograd_tile tile = winograd_tile_at(&f->shape, unit->tiles.begin);
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        const ptrdiff_t row = tile.row * m, column = tile.column * m;
        const ptrdiff_t corner = (tile.image * (f->out_height / step) + row / step) * row_stride +
                                 column / step * f->out_channels + unit->first;
        const ptrdiff_t count = fnn_min(f->out_height - row, m), columns = f->out_width - column;
        const int few_rows = r == 2 ? (int)count : m, few_columns = r == 2 ? (int)fnn_min(columns, m) : m;
        for (ptrdiff_t k = 0; k < unit->columns; k += FNN_LANES) {
            const ptrdiff_t lanes = lanes_left(unit->columns - k);
            const vec bias = f->bias ? load_lanes(f->bias + unit->first + k, lanes) : vec_zero();
            winograd_transform_columns(unit->products + (i - unit->tiles.begin) * unit->stride + k, unit->plane_stride,
                                       m, r, few_rows, m + r - 1, m + r - 1, half);
            ptrdiff_t at = corner + k;
            if (step == 1 && r != 2 && k % WINOGRAD_LINE == 0)
                winograd_prefetch_outputs(f->y + at, m, row_stride, f->out_channels);
            if (plain && count == m && columns >= m && lanes == FNN_LANES) {
                winograd_store_plain(m, r, half, f->y + at, row_stride, f->out_channels);
                continue;
            }
#pragma GCC unroll 4
            for (ptrdiff_t p = 0; p + step <= count; p += step, at += row_stride) {
                winograd_output(few_columns, r, half[p], rows[0]);
                if (step == 2) winograd_output(few_columns, r, half[p + 1], rows[1]);
                if (step == 1 && columns >= m && lanes == FNN_LANES)
                    winograd_store_row(f, m, rows[0], at, f->out_channels, bias);
                else if (step == 2)
                    winograd_store_maxima(f, m, rows[0], rows[1], at, columns, lanes, bias);
                else
                    winograd_store_outputs(f, m, rows[0], at, f->out_channels, 0, columns, lanes, bias);
            }
        }
    }
}

#endif
