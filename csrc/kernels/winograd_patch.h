/* Patches of an image, a vector of channels at a time: reading one with zeros outside of the image. */
#ifndef FASTNN_WINOGRAD_PATCH_H
#define FASTNN_WINOGRAD_PATCH_H

#include "winograd.h"

/* A square of `size` x `size` pixels of an image N,H,W,C. */
struct winograd_patch {
    const float *corner;                       /* the first pixel; read only where it is inside */
    ptrdiff_t row_stride, column_stride;       /* floats */
    bool interior;                             /* every pixel is inside; else: */
    const float *pixel[WINOGRAD_PLANES];       /* each pixel, or zeros */
    ptrdiff_t channel_mask[WINOGRAD_PLANES];   /* all ones, or zero: channels of zeros are all the same */
};

/* The patch whose first pixel is (top, left) of image n. */
static inline void winograd_find_patch(const float *image, ptrdiff_t n, ptrdiff_t height, ptrdiff_t width,
                                       ptrdiff_t channels, ptrdiff_t top, ptrdiff_t left, int size,
                                       struct winograd_patch *patch) {
    const ptrdiff_t offset = ((n * height + top) * width + left) * channels;
    patch->row_stride = width * channels;
    patch->column_stride = channels;
    patch->interior = top >= 0 && left >= 0 && top + size <= height && left + size <= width;
    patch->corner = patch->interior ? image + offset : image;
    if (patch->interior) return;
    for (int i = 0; i < size; i++) {
        for (int j = 0; j < size; j++) {
            bool inside = top + i >= 0 && top + i < height && left + j >= 0 && left + j < width;
            const ptrdiff_t at = offset + i * patch->row_stride + j * channels;
            patch->pixel[i * size + j] = inside ? image + at : FNN_FUNCTION(gemm_zeros);
            patch->channel_mask[i * size + j] = -(ptrdiff_t)inside;
        }
    }
}

/* Channels [c, c + lanes) of every pixel. `whole`: lanes is FNN_LANES. */
FNN_INLINE void winograd_load_patch(const struct winograd_patch *patch, int size, bool interior, bool whole, ptrdiff_t c,
                                    ptrdiff_t lanes, vec *pixels) {
#pragma GCC unroll 6
    for (int i = 0; i < size; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < size; j++) {
            const int at = i * size + j;
            const float *from = interior ? patch->corner + i * patch->row_stride + j * patch->column_stride + c
                                         : patch->pixel[at] + (c & patch->channel_mask[at]);
            pixels[at] = whole ? vec_load(from) : vec_load_partial(from, lanes);
        }
    }
}

/* V of one patch, all channels: v plane, stride. */
FNN_INLINE void winograd_transform_patch(const struct winograd_patch *patch, winograd_map map, int m, int in, int out,
                                         bool interior, struct fnn_range channels, ptrdiff_t stride, float *v) {
    for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES) {
        const ptrdiff_t lanes = lanes_left(channels.end - c);
        vec pixels[WINOGRAD_PLANES], planes[WINOGRAD_PLANES];
        if (lanes == FNN_LANES) winograd_load_patch(patch, in, interior, true, c, lanes, pixels);
        else winograd_load_patch(patch, in, interior, false, c, lanes, pixels);
        winograd_map_square(map, m, in, out, pixels, planes);
#pragma GCC unroll 36
        for (int p = 0; p < out * out; p++) vec_store(v + p * stride + c, planes[p]);
    }
}

#endif
