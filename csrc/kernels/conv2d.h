/* What the convolution kernels share: the geometry, and the layout of packed weights.
 *
 * x  N,H,W,C   image, channels last          y  N,P,Q,K
 * w  K,R,S,C/G weight parameter              G  groups; C and K are multiples of G
 *
 *   y[n,p,q,k] = sum over r, s, c of x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c] * w[k,r,s,c]
 *
 * with c over the channels of k's group and zeros outside the image. */
#ifndef FASTNN_CONV2D_H
#define FASTNN_CONV2D_H

#include <string.h>

#include "gemm.h"

#define FNN_SIZE(name) ptrdiff_t name;
struct conv2d_geometry {
    FNN_CONV2D_GEOMETRY
};
#undef FNN_SIZE

/* The geometry part of a kernel's arguments: the same slots in the same order. */
#define CONV2D_GEOMETRY(args) conv2d_geometry_at((const char *)(args) + offsetof(__typeof__(*(args)), batch))

static inline struct conv2d_geometry conv2d_geometry_at(const char *slots) {
    struct conv2d_geometry geometry;
    memcpy(&geometry, slots, sizeof geometry);
    return geometry;
}

/* Whether output pixel i is a product of the weights and input pixel i. */
static inline bool conv2d_is_product(const struct conv2d_geometry *g) {
    const bool one = g->kernel_height == 1 && g->kernel_width == 1 && g->stride_h == 1 && g->stride_w == 1;
    return one && g->groups == 1 && g->out_height == g->height && g->out_width == g->width && g->pad_top == 0 &&
           g->pad_left == 0;
}

/* Whether output pixel (p, q) is a product of the weights and input pixel (p*stride_h, q*stride_w). */
static inline bool conv2d_is_strided_product(const struct conv2d_geometry *g) {
    const bool inside = (g->out_height - 1) * g->stride_h < g->height && (g->out_width - 1) * g->stride_w < g->width;
    return inside && g->kernel_height == 1 && g->kernel_width == 1 && g->groups == 1 && g->pad_top == 0 &&
           g->pad_left == 0;
}

/* A place in an image that may lie in the padding: inside tells. */
static inline bool conv2d_inside(ptrdiff_t position, ptrdiff_t size) { return (size_t)position < (size_t)size; }

/* The i of [0, count) with 0 <= position + i*step < size, step > 0. Divides where it has to. */
static inline struct fnn_range conv2d_steps_inside(ptrdiff_t position, ptrdiff_t step, ptrdiff_t size,
                                                   ptrdiff_t count) {
    struct fnn_range inside = {0, count};
    if (position < 0) inside.begin = fnn_min(fnn_ceil_div(-position, step), count);
    if (position + (count - 1) * step >= size) inside.end = position < size ? fnn_ceil_div(size - position, step) : 0;
    return inside;
}

#endif
