/* Channels to pixels and back: sub-pixel convolution's last step (Shi et al., CVPR 2016), exact.
 *
 *     shuffle:    y[n, h*r + i, w*r + j, c] = x[n, h, w, (c*r + i)*r + j]        x (N,H,W,C*r*r), y (N,H*r,W*r,C), r = factor
 *     unshuffle:  x from y, the same with `inverse`; then the argument x is (N,H*r,W*r,C) and y (N,H,W,C*r*r)
 *
 * height, width, channels: H, W, C. Either is the other's gradient. x and y must not overlap. Parallel over rows h. */
#include "kernel.h"

/* One pixel: the matrix (C, r*r) becomes r rows of r*C floats, `stride` apart. */
FNN_INLINE void shuffle_pixel(const ptrdiff_t factor, const float *x, float *y, ptrdiff_t stride, ptrdiff_t channels) {
    for (ptrdiff_t i = 0; i < factor; i++)
        for (ptrdiff_t j = 0; j < factor; j++)
            for (ptrdiff_t c = 0; c < channels; c++)
                y[i * stride + j * channels + c] = x[(c * factor + i) * factor + j];
}

FNN_INLINE void unshuffle_pixel(const ptrdiff_t factor, const float *x, float *y, ptrdiff_t stride,
                                ptrdiff_t channels) {
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t i = 0; i < factor; i++)
            for (ptrdiff_t j = 0; j < factor; j++) y[(c * factor + i) * factor + j] = x[i * stride + j * channels + c];
}

FNN_INLINE void shuffle_rows(const ptrdiff_t factor, const struct fnn_pixel_shuffle_args *args,
                             struct fnn_range range) {
    ptrdiff_t channels = args->channels, stride = args->width * factor * channels, pixel = factor * factor * channels;
    for (ptrdiff_t i = range.begin; i < range.end; i++)
        for (ptrdiff_t w = 0; w < args->width; w++) {
            ptrdiff_t deep = (i * args->width + w) * pixel, wide = i * factor * stride + w * factor * channels;
            if (args->inverse)
                unshuffle_pixel(factor, args->x + wide, args->y + deep, stride, channels);
            else
                shuffle_pixel(factor, args->x + deep, args->y + wide, stride, channels);
        }
}

void FNN_FUNCTION(pixel_shuffle)(const struct fnn_pixel_shuffle_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->batch * args->height, team);
    if (args->factor == 2)
        shuffle_rows(2, args, range);
    else if (args->factor == 3)
        shuffle_rows(3, args, range);
    else if (args->factor == 4)
        shuffle_rows(4, args, range);
    else
        shuffle_rows(args->factor, args, range);
}
