/* Strips: rows of an image, copied with their padding, so that the patches of neighbouring output pixels lie in them whole.
 *
 * A strip serves `count` outputs side by side in one output row. For each filter row r it holds the pixels that they look at,
 * one after the other, zeros where they lie outside of the image:
 *
 *   strip[r*row_stride + i*pixel_stride + c] = image[n, h + r*dilation_h, w + i, channel + c],   i < conv2d_strip_pixels(count)
 *
 * Output j's tap (r, s) starts at r*row_stride + (j*stride_w + s*dilation_w)*pixel_stride: no tap has to be asked whether it is inside,
 * and where pixel_stride = channels and dilation_w = 1 a filter row of S*channels steps is one run. Copies only: exact. */
#ifndef FASTNN_CONV2D_STRIP_H
#define FASTNN_CONV2D_STRIP_H

#include "conv2d.h"
#include "lanes.h"

struct conv2d_strip {
    const float *image; /* N,height,width,image_channels */
    ptrdiff_t height, width, image_channels;
    ptrdiff_t filter_rows, filter_columns, dilation_h, dilation_w, stride_w;
    ptrdiff_t pixel_stride, row_stride; /* in floats */
};

/* The strips that a convolution's outputs look at; row_stride is left to the caller. */
static inline struct conv2d_strip conv2d_strip_of(const struct conv2d_geometry *g, const float *image,
                                                  ptrdiff_t pixel_stride) {
    return (struct conv2d_strip){
        .image = image,
        .height = g->height,
        .width = g->width,
        .image_channels = g->channels,
        .filter_rows = g->kernel_height,
        .filter_columns = g->kernel_width,
        .dilation_h = g->dilation_h,
        .dilation_w = g->dilation_w,
        .stride_w = g->stride_w,
        .pixel_stride = pixel_stride,
    };
}

/* Pixels of an image row that `count` outputs look at. */
static inline ptrdiff_t conv2d_strip_pixels(const struct conv2d_strip *strip, ptrdiff_t count) {
    return (count - 1) * strip->stride_w + (strip->filter_columns - 1) * strip->dilation_w + 1;
}

/* A row_stride for strips of up to `count` outputs: copies may overwrite FNN_LANES floats behind a row, and vectors read them. */
static inline ptrdiff_t conv2d_strip_row(const struct conv2d_strip *strip, ptrdiff_t count) {
    return gemm_width(conv2d_strip_pixels(strip, count) * strip->pixel_stride) + FNN_LANES;
}

/* Copies `count` floats in whole vectors; up to FNN_LANES - 1 floats behind the end of `to` are overwritten too. */
static inline void conv2d_copy_run(float *to, const float *from, ptrdiff_t count) {
    for (; count > FNN_LANES; count -= FNN_LANES, to += FNN_LANES, from += FNN_LANES) vec_store(to, vec_load(from));
    vec_store(to, vec_load_partial(from, count));
}

/* Copies pixels of `channels` floats, a constant. */
FNN_INLINE void conv2d_copy_small(float *to, ptrdiff_t to_step, const float *from, ptrdiff_t from_step,
                                  ptrdiff_t pixels, ptrdiff_t channels) {
    const size_t size = (size_t)channels * sizeof *to;
    for (ptrdiff_t i = 0; i < pixels; i++) memcpy(to + i * to_step, from + i * from_step, size);
}

/* The same for the sizes of small groups; says whether `channels` is one. */
static inline bool conv2d_copied_small(float *to, ptrdiff_t to_step, const float *from, ptrdiff_t from_step,
                                       ptrdiff_t pixels, ptrdiff_t channels) {
    if (channels == 1)
        conv2d_copy_small(to, to_step, from, from_step, pixels, 1);
    else if (channels == 2)
        conv2d_copy_small(to, to_step, from, from_step, pixels, 2);
    else if (channels == 4)
        conv2d_copy_small(to, to_step, from, from_step, pixels, 4);
    else if (channels == 8)
        conv2d_copy_small(to, to_step, from, from_step, pixels, 8);
    else
        return false;
    return true;
}

static inline void conv2d_clear_run(float *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) vec_store(to + i, vec_zero());
}

/* One row of a strip: `pixels` pixels of image row `row` (null: outside) from pixel w on. */
static inline void conv2d_fill_strip_row(const struct conv2d_strip *strip, const float *row, ptrdiff_t w,
                                         ptrdiff_t pixels, ptrdiff_t channels, float *to) {
    const ptrdiff_t step = strip->pixel_stride;
    ptrdiff_t begin = row ? fnn_min(fnn_max(-w, 0), pixels) : pixels,
              end = fnn_max(fnn_min(strip->width - w, pixels), begin);
    conv2d_clear_run(to, begin * step);
    if (end > begin) {
        const float *from = row + (w + begin) * strip->image_channels;
        if (step == channels && channels == strip->image_channels) {
            conv2d_copy_run(to + begin * step, from, (end - begin) * step);
        } else if (!conv2d_copied_small(to + begin * step, step, from, strip->image_channels, end - begin, channels)) {
            for (ptrdiff_t i = begin; i < end; i++, from += strip->image_channels)
                conv2d_copy_run(to + i * step, from, channels);
        }
    }
    conv2d_clear_run(to + end * step, (pixels - end) * step);
}

/* The strip of some channels for `count` outputs, the first of which has its first tap at (h, w) of image n. */
static inline void conv2d_fill_strip(const struct conv2d_strip *strip, ptrdiff_t n, ptrdiff_t h, ptrdiff_t w,
                                     struct fnn_range channels, ptrdiff_t count, float *to) {
    const ptrdiff_t pixels = conv2d_strip_pixels(strip, count);
    for (ptrdiff_t r = 0; r < strip->filter_rows; r++) {
        ptrdiff_t row = h + r * strip->dilation_h;
        const float *from =
            conv2d_inside(row, strip->height)
                ? strip->image + (n * strip->height + row) * strip->width * strip->image_channels + channels.begin
                : NULL;
        conv2d_fill_strip_row(strip, from, w, pixels, channels.end - channels.begin, to + r * strip->row_stride);
    }
}

#endif
