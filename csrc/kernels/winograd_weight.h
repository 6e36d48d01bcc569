/* U = G g G^T of a part of the weights, in panels of gemm.h, from whatever form the weights have. */
#ifndef FASTNN_WINOGRAD_WEIGHT_H
#define FASTNN_WINOGRAD_WEIGHT_H

#include "winograd.h"

/* Filters as a right operand: `columns` x `depth` filters of r x r taps. Element (column, tap, d) of a panel that begins at
 * column `first` is at source[first*panel_stride + (column - first)*column_stride + tap*tap_stride + d*depth_stride]; one
 * of the two strides, of columns or of depth, is 1. With `rotated` the last tap comes first. */
struct winograd_weight {
    const float *source;
    ptrdiff_t columns, depth;
    ptrdiff_t panel_stride, column_stride, tap_stride, depth_stride;
    bool rotated;
};

/* The strides in a panel of the given width; taps: r*r. */
static inline struct winograd_weight winograd_weight(const float *source, enum winograd_form form, ptrdiff_t taps,
                                                     ptrdiff_t columns, ptrdiff_t depth, ptrdiff_t width) {
    struct winograd_weight weight = {.source = source, .columns = columns, .depth = depth};
    weight.rotated = form == WINOGRAD_ROTATED;
    weight.column_stride = form == WINOGRAD_FILTERS ? taps * depth : 1;
    weight.panel_stride = form == WINOGRAD_PANELS ? taps * depth : weight.column_stride;
    weight.tap_stride = form == WINOGRAD_FILTERS ? depth : form == WINOGRAD_ROTATED ? columns : depth * width;
    weight.depth_stride = form == WINOGRAD_FILTERS ? 1 : form == WINOGRAD_ROTATED ? taps * columns : width;
    return weight;
}

/* One tap of a square: square[d][column]. Asks for the line behind each row: hardware prefetchers do not follow so many. */
FNN_INLINE void winograd_load_square(const struct winograd_weight *weight, const float *from, ptrdiff_t columns,
                                     ptrdiff_t steps, vec *square) {
    const bool transposed = weight->depth_stride == 1;
    const ptrdiff_t stride = transposed ? weight->column_stride : weight->depth_stride;
    const ptrdiff_t rows = transposed ? columns : steps, lanes = transposed ? steps : columns;
    const size_t ahead = WINOGRAD_LINE * sizeof(float);
    for (ptrdiff_t i = 0; i < rows; i++) {
        square[i] = load_lanes(from + i * stride, lanes);
        if (transposed) __builtin_prefetch((const void *)((uintptr_t)(from + i * stride) + ahead), 0, 3);
    }
    for (ptrdiff_t i = rows; i < FNN_LANES; i++) square[i] = vec_zero();
    if (transposed) vec_transpose(square);
}

/* Column s of a phase of the filters of a square, mapped: plane (i, s) of U becomes (G g)(i, s) for the time being. */
FNN_INLINE void winograd_transform_column(const struct winograd_weight *weight, int m, int r,
                                          struct winograd_phase phase, int s, const float *corner, ptrdiff_t columns,
                                          ptrdiff_t steps, ptrdiff_t width, ptrdiff_t plane_stride, float *to) {
    const int patch = m + r - 1, side = (r - 1) * phase.step + 1, rows = r - phase.row;
    vec square[WINOGRAD_TAPS][FNN_LANES];
    for (int i = 0; i < rows; i++) {
        const int tap = (phase.row + i * phase.step) * side + phase.column + s * phase.step;
        winograd_load_square(weight, corner + (weight->rotated ? side * side - 1 - tap : tap) * weight->tap_stride,
                             columns, steps, square[i]);
    }
    for (ptrdiff_t d = 0; d < steps; d++) {
        vec column[WINOGRAD_TAPS], mapped[WINOGRAD_PATCH];
#pragma GCC unroll 5
        for (int i = 0; i < r; i++) column[i] = i < rows ? square[i][d] : vec_zero();
        winograd_filter(m, r, column, mapped);
#pragma GCC unroll 6
        for (int i = 0; i < patch - phase.row; i++)
            vec_store(to + (i * patch + s) * plane_stride + d * width, mapped[i]);
    }
}

/* A square of FNN_LANES columns by up to FNN_LANES steps of depth: its planes at to, to + plane_stride, ... */
FNN_INLINE void winograd_transform_filters(const struct winograd_weight *weight, int m, int r,
                                           struct winograd_phase phase, const float *corner, ptrdiff_t columns,
                                           ptrdiff_t steps, ptrdiff_t width, ptrdiff_t plane_stride, float *to) {
    const int patch = m + r - 1, taps = r - phase.column;
    for (int s = 0; s < taps; s++)
        winograd_transform_column(weight, m, r, phase, s, corner, columns, steps, width, plane_stride, to);
    for (int i = 0; i < patch - phase.row; i++, to += patch * plane_stride) {
        for (ptrdiff_t d = 0; d < steps; d++) {
            float *row = to + d * width;
            vec half[WINOGRAD_TAPS], planes[WINOGRAD_PATCH];
#pragma GCC unroll 5
            for (int s = 0; s < r; s++) half[s] = s < taps ? vec_load(row + s * plane_stride) : vec_zero();
            winograd_filter(m, r, half, planes);
#pragma GCC unroll 6
            for (int j = 0; j < patch - phase.column; j++) vec_store(row + j * plane_stride, planes[j]);
        }
    }
}

/* U of one phase and depths [depth.begin, depth.end) of the panel that begins at column `first`, `columns` of which exist:
 * element (plane, d, column) at to[plane*plane_stride + (d - depth.begin)*width + column - first]. */
FNN_INLINE void winograd_transform_panel(const struct winograd_weight *weight, int m, int r,
                                         struct winograd_phase phase, ptrdiff_t first, ptrdiff_t columns,
                                         struct fnn_range depth, ptrdiff_t plane_stride, float *to) {
    const ptrdiff_t width = gemm_width(columns);
    const float *panel = weight->source + first * weight->panel_stride;
    for (ptrdiff_t d = depth.begin; d < depth.end; d += FNN_LANES) {
        for (ptrdiff_t j = 0; j < columns; j += FNN_LANES) {
            const float *corner = panel + j * weight->column_stride + d * weight->depth_stride;
            winograd_transform_filters(weight, m, r, phase, corner, lanes_left(columns - j), lanes_left(depth.end - d),
                                       width, plane_stride, to + (d - depth.begin) * width + j);
        }
    }
}

#endif
