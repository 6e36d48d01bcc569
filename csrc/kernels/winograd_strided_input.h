/* The first stage of winograd_convolution.h with stride 2: V of one tile, forward of all phases, backward of dy. */
#ifndef FASTNN_WINOGRAD_STRIDED_INPUT_H
#define FASTNN_WINOGRAD_STRIDED_INPUT_H

#include "winograd_patch.h"
#include "winograd_phases.h"
#include "winograd_strided.h"

/* B^T of a tile of m outputs in one direction: of 9 pixels, those of both phases, or of the 5 of one. */
FNN_INLINE void winograd_strided_map(int m, int size, const vec *d, vec *v) {
    if (size == PHASES_PATCH)
        winograd_phases_input(2 * m, WINOGRAD_STRIDED_TAPS, d, v);
    else
        winograd_input(m, WINOGRAD_STRIDED_TAPS, d, v);
}

/* Channels [first, first + channels) of a patch of size x size pixels; v: of each phase [row odd][column odd]. */
FNN_INLINE void winograd_strided_patch(const struct winograd_patch *patch, int size, bool interior,
                                       struct winograd_extent outputs, ptrdiff_t first, ptrdiff_t channels,
                                       ptrdiff_t stride, float *const v[2][2]) {
    vec half[PHASES_PATCH][PHASES_PATCH];
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        const ptrdiff_t lanes = lanes_left(channels - c);
        if (interior && c % WINOGRAD_LINE == 0) winograd_prefetch_patch(patch, size, size - 1, first + c);
#pragma GCC unroll 1
        for (int j = 0; j < size; j++) {
            vec column[PHASES_PATCH], mapped[PHASES_PATCH];
            if (!winograd_load_column(patch, size, interior, j, first + c, lanes, column)) {
#pragma GCC unroll 9
                for (int i = 0; i < size; i++) half[i][j] = vec_zero(); /* as of a column of zeros */
                continue;
            }
            winograd_strided_map(outputs.rows, size, column, mapped);
#pragma GCC unroll 9
            for (int i = 0; i < size; i++) half[i][j] = mapped[i];
        }
#pragma GCC unroll 1
        for (int i = 0; i < size; i++) {
            const bool odd = i >= PHASES_PLANES;
            const ptrdiff_t at = (odd ? i - PHASES_PLANES : i) * PHASES_PLANES * stride + c;
            vec planes[PHASES_PATCH];
            winograd_strided_map(outputs.columns, size, half[i], planes);
#pragma GCC unroll 5
            for (int j = 0; j < PHASES_PLANES; j++) vec_store(v[odd][0] + at + j * stride, planes[j]);
            if (size == PHASES_PLANES) continue;
#pragma GCC unroll 4
            for (int j = PHASES_PLANES; j < PHASES_PATCH; j++)
                vec_store(v[odd][1] + at + (j - PHASES_PLANES) * stride, planes[j]);
        }
    }
}

/* One chunk of a tile; step: pixels from one output to the next. */
FNN_INLINE void winograd_strided_transform(const struct winograd_convolution *f, int size, int step,
                                           const struct winograd_tile *tile, ptrdiff_t chunk, float *const v[2][2]) {
    const ptrdiff_t c = chunk * WINOGRAD_DEPTH, channels = fnn_min(f->channels - c, WINOGRAD_DEPTH);
    const ptrdiff_t distance = WINOGRAD_STRIDED_TILE * step;
    const struct winograd_extent outputs = winograd_tile_outputs(&f->shape, tile);
    struct winograd_patch patch;
    winograd_find_patch(f->x, tile->image, f->height, f->width, f->channels, tile->row * distance - f->pad_top,
                        tile->column * distance - f->pad_left, size, &patch);
    if (patch.interior)
        winograd_strided_patch(&patch, size, true, outputs, c, channels, f->layout.plane_stride, v);
    else
        winograd_strided_patch(&patch, size, false, outputs, c, channels, f->layout.plane_stride, v);
}

#endif
