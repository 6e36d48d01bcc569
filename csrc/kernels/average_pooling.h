/* Average pooling: its windows along each axis, and what divides their sums.
 *
 * x, dx (N,H,W,C); y, dy (N,P,Q,C). Windows are ranges of rows times ranges of columns:
 *   sliding:  window p covers p*stride_h - pad_top and the R - 1 rows after it; the divisor is, per axis, the extent clipped to
 *             the padded image (count_include_pad) or to the image, or the given one where divisor is not 0;
 *   adaptive: window p covers floor(p*H/P) to ceil((p+1)*H/P), end excluded; the divisor is its size. */
#ifndef FASTNN_KERNELS_AVERAGE_POOLING_H
#define FASTNN_KERNELS_AVERAGE_POOLING_H

#include "window.h"

/* One axis of either kind: begin, end of window p within the image, and its extent for the divisor. */
struct pool_axis {
    struct window_axis window; /* kernel 0: adaptive */
    bool include_pad;
};

static inline struct fnn_range pool_window(const struct pool_axis *axis, ptrdiff_t p) {
    ptrdiff_t size = axis->window.size, out_size = axis->window.out_size;
    if (axis->window.kernel == 0)
        return (struct fnn_range){p * size / out_size, fnn_ceil_div((p + 1) * size, out_size)};
    ptrdiff_t start = p * axis->window.stride - axis->window.pad;
    ptrdiff_t begin = fnn_max(start, 0), end = fnn_min(start + axis->window.kernel, size);
    return (struct fnn_range){begin, fnn_max(begin, end)};
}

static inline ptrdiff_t pool_extent(const struct pool_axis *axis, ptrdiff_t p) {
    if (axis->window.kernel == 0 || !axis->include_pad) {
        struct fnn_range window = pool_window(axis, p);
        return window.end - window.begin;
    }
    ptrdiff_t start = p * axis->window.stride - axis->window.pad;
    return fnn_min(start + axis->window.kernel, axis->window.size + axis->window.pad) - start;
}

struct pool {
    struct pool_axis vertical, horizontal;
    ptrdiff_t batch, channels, divisor;
};

/* Where the sizes divide, a sliding window. */
static struct pool_axis adaptive_axis(ptrdiff_t size, ptrdiff_t out_size) {
    const ptrdiff_t kernel = size % out_size == 0 ? size / out_size : 0;
    return (struct pool_axis){
        .window = {.size = size, .out_size = out_size, .kernel = kernel, .stride = kernel, .dilation = 1}};
}

#define SLIDING_POOL(args)                                                                                 \
    {.vertical = {{args->height, args->out_height, args->kernel_height, args->stride_h, 1, args->pad_top}, \
                  args->count_include_pad != 0},                                                           \
     .horizontal = {{args->width, args->out_width, args->kernel_width, args->stride_w, 1, args->pad_left}, \
                    args->count_include_pad != 0},                                                         \
     .batch = args->batch,                                                                                 \
     .channels = args->channels,                                                                           \
     .divisor = args->divisor}

#define ADAPTIVE_POOL(args)                                     \
    {.vertical = adaptive_axis(args->height, args->out_height), \
     .horizontal = adaptive_axis(args->width, args->out_width), \
     .batch = args->batch,                                      \
     .channels = args->channels}

#endif
