/* The matrix product inside a direct convolution: a tile's rows point into an image, a run for each filter tap.
 *
 * Forward and backward data are the same loop. An output pixel is an origin in the image that is read plus, for each tap, a
 * displacement: forward the image is x, origin (p*stride - pad) and displacement r*dilation; backward the image is
 * dy, and the pixels of one phase (h mod stride) meet every stride-th tap or so, at (h + pad - r*dilation) / stride. */
#ifndef FASTNN_CONV2D_INDIRECT_H
#define FASTNN_CONV2D_INDIRECT_H

#include "conv2d.h"

/* Floats of packed weights that are walked through for each tile of pixels: about a quarter of a second-level cache. */
enum { CONV2D_PANEL_BLOCK = 128 * 1024 };

/* The taps met along one axis: first, first + step, ...; `count` of them, displaced by position, position +
 * position_step, ... */
struct conv2d_axis {
    ptrdiff_t first, step, count;
    ptrdiff_t position, position_step;
};

struct conv2d_window {
    const float *image; /* N,height,width,channels */
    ptrdiff_t height, width, channels;
    struct conv2d_axis vertical, horizontal;
    ptrdiff_t kernel_width;
};

/* The pixels of the result that a convolution computes: height x width of each image, numbered row by row. Pixel (i, j) sees the
 * image from (i*stride_h - pad_top, j*stride_w - pad_left) on, and stands at (first_h + i*step_h, first_w + j*step_w) of the
 * result. */
struct conv2d_pixels {
    ptrdiff_t batch, height, width;
    ptrdiff_t stride_h, stride_w, pad_top, pad_left;
    ptrdiff_t first_h, first_w, step_h, step_w;
    ptrdiff_t result_height, result_width, result_channels;
};

/* Origins of a tile's pixels; any of them may lie outside of the image. */
struct conv2d_origins {
    ptrdiff_t offset[FNN_GEMM_ROWS], h[FNN_GEMM_ROWS], w[FNN_GEMM_ROWS];
};

/* One group's part of the product: `steps` x `columns` packed weights, and what the epilogue needs. */
struct conv2d_product {
    const float *packed;
    ptrdiff_t columns, steps, depth; /* depth: channels of the image in a group, steps = taps * depth */
    float *y;
    const float *bias, *residual;
    enum fnn_activation activation;
};

/* Backward: the taps r < kernel that pixel `first` of an axis, and every stride-th after it, meets: those where first + pad - r*dilation is a multiple of stride. */
static inline struct conv2d_axis conv2d_phase_axis(ptrdiff_t first, ptrdiff_t pad, ptrdiff_t kernel, ptrdiff_t stride,
                                                   ptrdiff_t dilation) {
    struct conv2d_axis axis = {0};
    ptrdiff_t previous = 0;
    for (ptrdiff_t r = 0; r < kernel && axis.count < 2; r++) {
        if ((first + pad - r * dilation) % stride != 0) continue;
        if (axis.count == 0) axis.first = r;
        axis.step = r - previous;
        previous = r;
        axis.count++;
    }
    if (axis.count == 2) axis.count = (kernel - 1 - axis.first) / axis.step + 1;
    axis.position = (first + pad - axis.first * dilation) / stride;
    axis.position_step = -(axis.step * dilation / stride);
    return axis;
}

/* Origins of the tile's pixels, from `pixel` on, and their places in the result. */
static inline void conv2d_find_pixels(const struct conv2d_window *window, const struct conv2d_pixels *pixels,
                                      ptrdiff_t pixel, struct gemm_tile *tile, struct conv2d_origins *origins) {
    const ptrdiff_t count = tile->row_count;
    ptrdiff_t j = pixel % pixels->width, i = pixel / pixels->width % pixels->height;
    ptrdiff_t n = pixel / pixels->width / pixels->height;
    for (ptrdiff_t t = 0; t < count;) { /* a row of the image, or what the tile has of it */
        const ptrdiff_t end = fnn_min(t + pixels->width - j, count), shift = j - t;
        const ptrdiff_t h = i * pixels->stride_h - pixels->pad_top, row = (n * window->height + h) * window->width;
        const ptrdiff_t result_h = n * pixels->result_height + pixels->first_h + i * pixels->step_h;
        for (; t < end; t++) {
            const ptrdiff_t w = (t + shift) * pixels->stride_w - pixels->pad_left;
            const ptrdiff_t result_w = pixels->first_w + (t + shift) * pixels->step_w;
            origins->h[t] = h;
            origins->w[t] = w;
            origins->offset[t] = (row + w) * window->channels;
            tile->offset[t] = (result_h * pixels->result_width + result_w) * pixels->result_channels;
        }
        j = 0;
        if (++i == pixels->height) i = 0, n++;
    }
}

/* Points run tile->runs at a tap, which is `offset` floats behind a pixel's origin, for the rows that find it inside; the others are
 * zeros. Says whether there is any; else the run is not counted. */
static inline bool conv2d_point_at_tap(const struct conv2d_window *window, const struct conv2d_origins *origins,
                                       const int *inside_h, ptrdiff_t w, ptrdiff_t offset, struct gemm_tile *tile) {
    int any = 0;
    for (ptrdiff_t row = 0; row < tile->row_count; row++) {
        /* & of numbers: no branch between the two */
        const int inside = inside_h[row] & (int)conv2d_inside(origins->w[row] + w, window->width);
        tile->rows[tile->runs][row] =
            inside ? window->image + (origins->offset[row] + offset) : FNN_FUNCTION(gemm_zeros);
        any |= inside;
    }
    return any;
}

/* Points the runs of a tile at those of the window's taps [taps.begin, taps.end) that find one of its pixels inside of the image, from
 * `channel` of the image on. */
static inline void conv2d_point_at_taps(const struct conv2d_window *window, const struct conv2d_origins *origins,
                                        struct fnn_range taps, ptrdiff_t depth, ptrdiff_t channel,
                                        struct gemm_tile *tile) {
    const struct conv2d_axis *vertical = &window->vertical, *horizontal = &window->horizontal;
    tile->runs = 0;
    for (ptrdiff_t t = taps.begin, end; t < taps.end; t = end) { /* a filter row, or what there is of it */
        const ptrdiff_t i = t / horizontal->count, first = t - i * horizontal->count;
        const ptrdiff_t h = vertical->position + i * vertical->position_step;
        int inside_h[FNN_GEMM_ROWS], any = 0;
        end = fnn_min(taps.end, t + horizontal->count - first);
        for (ptrdiff_t row = 0; row < tile->row_count; row++)
            any |= inside_h[row] = conv2d_inside(origins->h[row] + h, window->height);
        for (ptrdiff_t j = first; any && j < first + end - t; j++) {
            const ptrdiff_t w = horizontal->position + j * horizontal->position_step;
            const ptrdiff_t offset = (h * window->width + w) * window->channels + channel;
            const ptrdiff_t tap = (vertical->first + i * vertical->step) * window->kernel_width + horizontal->first +
                                  j * horizontal->step;
            tile->step[tile->runs] = tap * depth;
            tile->runs += conv2d_point_at_tap(window, origins, inside_h, w, offset, tile);
        }
    }
}

/* Multiplies a tile that points at its patches with panels [begin, end). `first` and `last` say whether these runs begin
 * and end the sum; tile->step counts from the start of the packed weights plus `skip` steps. */
static inline void conv2d_multiply_panels(const struct conv2d_product *product, struct fnn_range panels, bool first,
                                          bool last, ptrdiff_t skip, struct gemm_tile *tile) {
    tile->accumulate = !first;
    tile->activation = last ? product->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t panel = panels.begin; panel < panels.end; panel++) {
        ptrdiff_t column = panel * FNN_GEMM_COLUMNS;
        tile->columns = gemm_panel_columns(product->columns, panel);
        tile->panel = product->packed + column * product->steps + skip * gemm_width(tile->columns);
        tile->y = product->y + column;
        tile->bias = last && product->bias ? product->bias + column : NULL;
        tile->residual = last && product->residual ? product->residual + column : NULL;
        FNN_FUNCTION(gemm_tile)(tile);
    }
}

/* The whole sum of a tile over the taps of a window, channels [channel, channel + product->depth) of the image. A tap that finds
 * none of the tile's pixels is left out; without any the sum is zero. */
static inline void conv2d_run_taps(const struct conv2d_window *window, const struct conv2d_product *product,
                                   const struct conv2d_origins *origins, ptrdiff_t channel, struct fnn_range panels,
                                   struct gemm_tile *tile) {
    const ptrdiff_t taps = window->vertical.count * window->horizontal.count, depth = product->depth;
    ptrdiff_t done = 0; /* channels */
    bool begun = false;
    do {
        tile->depth = fnn_min(depth - done, GEMM_DEPTH);
        struct fnn_range some = {0, 0};
        do {
            some = (struct fnn_range){some.end, fnn_min(some.end + GEMM_RUNS, taps)};
            conv2d_point_at_taps(window, origins, some, depth, channel + done, tile);
            const bool last = done + tile->depth == depth && some.end == taps;
            if (tile->runs == 0 && !last) continue;
            conv2d_multiply_panels(product, panels, !begun, last, done, tile);
            begun = true;
        } while (some.end < taps);
        done += tile->depth;
    } while (done < depth);
}

/* Products [range.begin, range.end) of a convolution's walk, counted over its groups. */
static inline void conv2d_run_range(const struct conv2d_window *window, const struct conv2d_pixels *pixels,
                                    const struct conv2d_product *product, const struct gemm_walk *walk,
                                    struct fnn_range range) {
    const ptrdiff_t count = pixels->batch * pixels->height * pixels->width, columns = product->columns;
    const ptrdiff_t size = walk->tiles * walk->panels; /* products of a group */
    struct gemm_tile tile;
    struct conv2d_origins origins;
    while (range.begin < range.end) {
        const ptrdiff_t group = range.begin / size, before = group * size;
        const struct gemm_piece piece = gemm_piece_at(walk, range.begin - before, fnn_min(range.end - before, size));
        const ptrdiff_t pixel = piece.tile * count / walk->tiles, k = group * columns;
        struct conv2d_product part = *product;
        part.packed += group * gemm_packed_size(columns, product->steps);
        part.y += k;
        if (part.bias) part.bias += k;
        if (part.residual) part.residual += k;
        tile.row_count = (piece.tile + 1) * count / walk->tiles - pixel;
        conv2d_find_pixels(window, pixels, pixel, &tile, &origins);
        conv2d_run_taps(window, &part, &origins, group * product->depth, piece.panels, &tile);
        range.begin += piece.panels.end - piece.panels.begin;
    }
}

/* A convolution of `groups` groups, each `product->columns` channels of the result from product->depth of the image;
 * `product` is the first one. Parallel over tiles of pixels and panels of channels. Many panels are walked through for each tile, so
 * that its pointers are found once, but not more than stay in cache. */
static inline void conv2d_run(const struct conv2d_window *window, const struct conv2d_pixels *pixels,
                              const struct conv2d_product *product, ptrdiff_t groups, const struct fnn_team *team) {
    const ptrdiff_t taps = window->vertical.count * window->horizontal.count;
    const ptrdiff_t count = pixels->batch * pixels->height * pixels->width, panels = gemm_panels(product->columns);
    const struct gemm_walk walk = gemm_walk(fnn_ceil_div(count, FNN_GEMM_ROWS), panels,
                                            CONV2D_PANEL_BLOCK / fnn_max(taps * product->depth, 1) / FNN_GEMM_COLUMNS);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(groups * walk.tiles * panels, 1, team); fnn_take(&work, &range);)
        conv2d_run_range(window, pixels, product, &walk, range);
}

#endif
