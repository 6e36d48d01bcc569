/* Sliding windows along one axis: which taps of a window lie inside the image, which windows hold an element. */
#ifndef FASTNN_KERNELS_WINDOW_H
#define FASTNN_KERNELS_WINDOW_H

#include <string.h>

#include "kernel.h"

struct window_axis {
    ptrdiff_t size, out_size, kernel, stride, dilation, pad;
};

/* The taps r of window p with 0 <= p*stride - pad + r*dilation < size. */
static inline struct fnn_range window_taps(const struct window_axis *axis, ptrdiff_t p) {
    ptrdiff_t start = p * axis->stride - axis->pad;
    ptrdiff_t begin = fnn_max(-start, 0), end = fnn_max(axis->size - start, 0);
    if (axis->dilation > 1) { /* a division costs as much as a small window */
        begin = fnn_ceil_div(begin, axis->dilation);
        end = fnn_ceil_div(end, axis->dilation);
    }
    end = fnn_min(end, axis->kernel);
    return (struct fnn_range){begin, fnn_max(begin, end)};
}

/* One past the last window whose last tap lies before the end, if there is one such window. */
static inline ptrdiff_t window_whole_end(const struct window_axis *axis) {
    ptrdiff_t last = axis->size - 1 + axis->pad - (axis->kernel - 1) * axis->dilation;
    return fnn_min(axis->out_size, last / axis->stride + 1);
}

/* One past the last window of which at least `pixels` elements lie from its last tap on, and `pixels` windows from it on. */
static inline ptrdiff_t window_room_end(const struct window_axis *axis, ptrdiff_t pixels) {
    ptrdiff_t last = axis->size - pixels + axis->pad - (axis->kernel - 1) * axis->dilation;
    return last < 0 ? 0 : fnn_min(axis->out_size - pixels, last / axis->stride) + 1;
}

/* Windows that lie side by side without a gap: those all inside the image with `pixels` elements from their last one on, and as
 * many windows from it on; else none. */
static inline struct fnn_range window_gapless(const struct window_axis *axis, ptrdiff_t pixels) {
    if (axis->stride != axis->kernel || axis->dilation > 1) return (struct fnn_range){0, 0};
    ptrdiff_t begin = fnn_ceil_div(axis->pad, axis->stride);
    return (struct fnn_range){begin, fnn_max(begin, window_room_end(axis, pixels))};
}

/* A range of windows that holds every window with a tap on element h. Without dilation each of them has one. */
static inline struct fnn_range window_positions(const struct window_axis *axis, ptrdiff_t h) {
    ptrdiff_t reach = h + axis->pad - (axis->kernel - 1) * axis->dilation;
    ptrdiff_t begin = reach <= 0 ? 0 : fnn_ceil_div(reach, axis->stride);
    ptrdiff_t end = fnn_min((h + axis->pad) / axis->stride + 1, axis->out_size);
    return (struct fnn_range){begin, end};
}

/* The tap of window p that lies on element h, or -1. */
static inline ptrdiff_t window_tap(const struct window_axis *axis, ptrdiff_t p, ptrdiff_t h) {
    ptrdiff_t distance = h + axis->pad - p * axis->stride;
    if (axis->dilation == 1) return distance;
    return distance % axis->dilation ? -1 : distance / axis->dilation;
}

/* Sets the elements `from` to `to` of a row of pixels to 0 and returns `to`, or `from` if there are none. */
static inline ptrdiff_t clear_to(float *row, ptrdiff_t channels, ptrdiff_t from, ptrdiff_t to) {
    if (to <= from) return from;
    memset(row + from * channels, 0, (size_t)((to - from) * channels) * sizeof(float));
    return to;
}

#endif
