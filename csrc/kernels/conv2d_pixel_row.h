/* Convolutions with filters of one pixel and strides: a row of pixels at equal distances times packed weights, read and written where
 * they stand.
 *
 *   y[i*y_step + j] = activation(bias[j] + residual[i*y_step + j] + sum over d < depth of x[i*x_step + d] * b(d, j)),   i < pixels
 *
 * for each group, whose channels stand behind those of the one before in x, y and bias. packed: b of each group in the panels of gemm.h.
 * residual may be null or y. Error bound and tile invariance as in gemm.h. */
#ifndef FASTNN_CONV2D_PIXEL_ROW_H
#define FASTNN_CONV2D_PIXEL_ROW_H

#include "conv2d.h"
#include "gemm_strip.h"

struct conv2d_pixel_row {
    const float *x, *packed, *bias, *residual;
    float *y;
    ptrdiff_t pixels, x_step, y_step, groups, depth, columns; /* depth, columns: of a group */
    enum fnn_activation activation;
};

/* Whether each output pixel is a product of the weights and an input pixel that exists, and rows are the better way: pixels found one by one
 * fill tiles better where rows are short, and large weights should be walked through seldom. */
static inline bool conv2d_has_pixel_rows(const struct conv2d_geometry *g) {
    enum { MOST_WEIGHTS = 64 * 1024, LEAST_PIXELS = 2 * FNN_GEMM_ROWS };
    const bool inside = (g->out_height - 1) * g->stride_h < g->height && (g->out_width - 1) * g->stride_w < g->width;
    const bool one = g->kernel_height == 1 && g->kernel_width == 1 && g->pad_top == 0 && g->pad_left == 0;
    return one && inside && g->out_width >= LEAST_PIXELS && g->channels / g->groups * g->out_channels <= MOST_WEIGHTS;
}

static inline void conv2d_run_pixel_row(const struct conv2d_pixel_row *row) {
    struct gemm_strip tiles = {
        .row_step = row->x_step,
        .depth = row->depth,
        .row_count = row->pixels,
        .y_step = row->y_step,
        .activation = row->activation,
    };
    const ptrdiff_t panels = gemm_panels(row->columns);
    for (ptrdiff_t i = 0; i < row->groups * panels; i++) {
        const ptrdiff_t group = i / panels, panel = i % panels, first = panel * FNN_GEMM_COLUMNS;
        const ptrdiff_t column = group * row->columns + first;
        tiles.x = row->x + group * row->depth;
        tiles.panel = row->packed + group * gemm_packed_size(row->columns, row->depth) + first * row->depth;
        tiles.columns = gemm_panel_columns(row->columns, panel);
        tiles.y = row->y + column;
        tiles.bias = row->bias ? row->bias + column : NULL;
        tiles.residual = row->residual ? row->residual + column : NULL;
        FNN_FUNCTION(gemm_strip)(&tiles);
    }
}

#endif
