/* U = G g G^T of a part of the weights, in panels of gemm.h, from whatever form the weights have. */
#ifndef FASTNN_WINOGRAD_WEIGHT_H
#define FASTNN_WINOGRAD_WEIGHT_H

#include "winograd.h"

/* Filters as a right operand: `columns` x `depth` filters of nine taps. Element (column, tap, d) of a panel that begins at
 * column `first` is at source[first*panel_stride + (column - first)*column_stride + tap*tap_stride + d*depth_stride]; one
 * of the two strides, of columns or of depth, is 1. With `rotated` tap 8 comes first. */
struct winograd_weight {
    const float *source;
    ptrdiff_t columns, depth;
    ptrdiff_t panel_stride, column_stride, tap_stride, depth_stride;
    bool rotated;
};

/* The strides in a panel of the given width. */
static inline struct winograd_weight winograd_weight(const float *source, enum winograd_form form, ptrdiff_t columns,
                                                     ptrdiff_t depth, ptrdiff_t width) {
    struct winograd_weight weight = {.source = source, .columns = columns, .depth = depth};
    weight.rotated = form == WINOGRAD_ROTATED;
    weight.column_stride = form == WINOGRAD_FILTERS ? 9 * depth : 1;
    weight.panel_stride = form == WINOGRAD_PANELS ? 9 * depth : weight.column_stride;
    weight.tap_stride = form == WINOGRAD_FILTERS ? depth : form == WINOGRAD_ROTATED ? columns : depth * width;
    weight.depth_stride = form == WINOGRAD_FILTERS ? 1 : form == WINOGRAD_ROTATED ? 9 * columns : width;
    return weight;
}

/* U of one vector of columns at one depth: its planes at to, to + plane_stride, ... taps: nine vectors, stride apart. */
FNN_INLINE void winograd_transform_filter(const vec *taps, int stride, int m, ptrdiff_t plane_stride, float *to) {
    vec half[WINOGRAD_PATCH][3];
#pragma GCC unroll 3
    for (int s = 0; s < 3; s++) {
        const vec column[3] = {taps[s * stride], taps[(3 + s) * stride], taps[(6 + s) * stride]};
        vec mapped[WINOGRAD_PATCH];
        winograd_filter(m, column, mapped);
#pragma GCC unroll 6
        for (int i = 0; i < m + 2; i++) half[i][s] = mapped[i];
    }
#pragma GCC unroll 1
    for (int i = 0; i < m + 2; i++, to += (m + 2) * plane_stride) {
        vec planes[WINOGRAD_PATCH];
        winograd_filter(m, half[i], planes);
#pragma GCC unroll 6
        for (int j = 0; j < m + 2; j++) vec_store(to + j * plane_stride, planes[j]);
    }
}

/* A square of FNN_LANES columns by up to FNN_LANES steps of depth. */
FNN_INLINE void winograd_transform_filters(const struct winograd_weight *weight, int m, const float *corner,
                                           ptrdiff_t columns, ptrdiff_t steps, ptrdiff_t width, ptrdiff_t plane_stride,
                                           float *to) {
    vec square[9][FNN_LANES];
    const bool transposed = weight->depth_stride == 1;
    const ptrdiff_t stride = transposed ? weight->column_stride : weight->depth_stride;
    const ptrdiff_t rows = transposed ? columns : steps, lanes = transposed ? steps : columns;
    for (int tap = 0; tap < 9; tap++) {
        const float *from = corner + (weight->rotated ? 8 - tap : tap) * weight->tap_stride;
        for (ptrdiff_t i = 0; i < rows; i++) square[tap][i] = load_lanes(from + i * stride, lanes);
        for (ptrdiff_t i = rows; i < FNN_LANES; i++) square[tap][i] = vec_zero();
        if (transposed) vec_transpose(square[tap]);
    }
    for (ptrdiff_t d = 0; d < steps; d++)
        winograd_transform_filter(&square[0][d], FNN_LANES, m, plane_stride, to + d * width);
}

/* U of depths [depth.begin, depth.end) of the panel that begins at column `first`, `columns` of which exist:
 * element (plane, d, column) at to[plane*plane_stride + (d - depth.begin)*width + column - first]. */
FNN_INLINE void winograd_transform_panel(const struct winograd_weight *weight, int m, ptrdiff_t first,
                                         ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride, float *to) {
    const ptrdiff_t width = gemm_width(columns);
    const float *panel = weight->source + first * weight->panel_stride;
    for (ptrdiff_t j = 0; j < columns; j += FNN_LANES) {
        for (ptrdiff_t d = depth.begin; d < depth.end; d += FNN_LANES) {
            const float *corner = panel + j * weight->column_stride + d * weight->depth_stride;
            winograd_transform_filters(weight, m, corner, lanes_left(columns - j), lanes_left(depth.end - d), width,
                                       plane_stride, to + (d - depth.begin) * width + j);
        }
    }
}

#endif
