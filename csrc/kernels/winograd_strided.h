/* Winograd convolution with 3x3 taps and stride 2, dilation 1, one group: phases, layouts, error bound.
 *
 * Even and odd pixels e[i] = x[2i - pad], o[i] = x[2i + 1 - pad] make of it convolutions with stride 1 and two taps:
 *
 *   y[i] = g0 e[i] + g2 e[i+1]  +  g1 o[i]         dx_e[i] = g2 dy[i-1] + g0 dy[i]      dx_o[i] = g1 dy[i]
 *
 * In two dimensions an image has four phases: rows even or odd, columns even or odd, with 2x2, 2x1, 1x2 and 1 taps. Each is
 * F(4x4, 2x2) of winograd_transform.h: 25 planes. A second tap that is zero has no product at infinity, so that phases of odd
 * rows lack the planes of the last row, phases of odd columns those of the last column, and the pixel that only those would read:
 * 16 planes have the products of four phases, 8 of two, one has one, which makes 81 instead of 144 for 16 outputs.
 *
 * Forward the phases of x add up, tiles are 4x4 pixels of y, and V and U have four times the channels of winograd.h, in the
 * order of winograd_convolution.h. Backward V is that of dy, a unit makes one phase of dx, and a tile is 8x8 pixels of dx. The last
 * row of tiles, and the last column, may have less: m of 4 (backward 2*m of 8), and are F(m, 2) there with as many products as
 * that needs: an image of 7x7 outputs takes 256, not 324. So they come in regions of their own (winograd.h).
 *
 * Error bound as in winograd.h: |error of y| <= gamma_n * |A^T| [ sum over phases and c of (|G| |g| |G^T|) . (|B^T| |x| |B|) ] |A|,
 * n = 4*C + 25, the maps those of each tile; of dx the sum is over k and n = K + 25. On random data of 64 channels the error is
 * about twice that of the direct sum. Source of the phases: Yepez & Ko, "Stride 2 1-D, 2-D, and 3-D Winograd for Convolutional
 * Neural Networks" (2020).
 */
#ifndef FASTNN_WINOGRAD_STRIDED_H
#define FASTNN_WINOGRAD_STRIDED_H

#include "winograd_convolution.h"

enum { WINOGRAD_STRIDED_TILE = 4, WINOGRAD_STRIDED_TAPS = 2, WINOGRAD_STRIDED_PLANES = 25, WINOGRAD_PHASES = 4 };

/* Rows and columns of phases 0 to 3: even odd, even even, odd even, odd odd. Those that share a plane are neighbours. */
static inline bool winograd_odd_row(ptrdiff_t phase) { return phase >= 2; }
static inline bool winograd_odd_column(ptrdiff_t phase) { return phase == 0 || phase == 3; }

/* Of the products of tiles of 4x4 outputs, those of phases and tiles that have them: a tile of m < 4 rows has the first m points
 * and infinity. */
static inline struct winograd_presence winograd_strided_presence(const struct winograd_shape *shape, ptrdiff_t plane) {
    const ptrdiff_t i = plane / 5, j = plane % 5, images = shape->tiles / (shape->tile_rows * shape->tile_columns);
    const ptrdiff_t full = images * shape->full_rows * (shape->tile_columns - shape->full_columns);
    const ptrdiff_t last = images * shape->full_rows * shape->tile_columns;
    const ptrdiff_t corner = last + images * (shape->tile_rows - shape->full_rows) * shape->full_columns;
    struct winograd_presence present = {{0, WINOGRAD_PHASES}, {0, shape->tiles}};
    if (j == 4)
        present.phases = (struct fnn_range){1, 3};
    else if (j >= shape->last_columns)
        present.tiles = (struct fnn_range){full, corner};
    if (i == 4)
        present.phases.end = 2;
    else if (i >= shape->last_rows)
        present.tiles.end = last;
    return present;
}

/* Shape of tiles, those that are not full in regions of their own. */
static inline struct winograd_shape winograd_strided_shape(ptrdiff_t batch, ptrdiff_t out_height, ptrdiff_t out_width) {
    struct winograd_shape shape =
        winograd_shape(WINOGRAD_STRIDED_TILE, WINOGRAD_STRIDED_TAPS, batch, out_height, out_width);
    shape.full_rows -= shape.last_rows < shape.m;
    shape.full_columns -= shape.last_columns < shape.m;
    return shape;
}

/* The stage transform_panel. */
winograd_panel_maker FNN_FUNCTION(winograd_strided_panel);

#endif
