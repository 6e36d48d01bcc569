/* Patches of an image, a vector of channels at a time: reading one with zeros outside of the image. */
#ifndef FASTNN_WINOGRAD_PATCH_H
#define FASTNN_WINOGRAD_PATCH_H

#include "winograd.h"

/* A square of `size` x `size` pixels of an image N,H,W,C. */
struct winograd_patch {
    const float *corner;                  /* the first pixel; read only where all are inside */
    ptrdiff_t row_stride, column_stride;  /* floats */
    bool interior;                        /* every pixel is inside; else: */
    ptrdiff_t left;                       /* column of the first pixel in the image */
    ptrdiff_t width;                      /* of the image */
    const float *row[WINOGRAD_PATCH];     /* the image's row, or zeros */
    ptrdiff_t row_mask[WINOGRAD_PATCH];   /* all ones, or zero: rows of zeros are as long as a vector */
};

/* The patch whose first pixel is (top, left) of image n. */
FNN_INLINE void winograd_find_patch(const float *image, ptrdiff_t n, ptrdiff_t height, ptrdiff_t width,
                                    ptrdiff_t channels, ptrdiff_t top, ptrdiff_t left, int size,
                                    struct winograd_patch *patch) {
    patch->row_stride = width * channels;
    patch->column_stride = channels;
    patch->interior = top >= 0 && left >= 0 && top + size <= height && left + size <= width;
    patch->corner = patch->interior ? image + ((n * height + top) * width + left) * channels : image;
    if (patch->interior) return;
    patch->left = left;
    patch->width = width;
#pragma GCC unroll 9
    for (int i = 0; i < size; i++) {
        const bool inside = top + i >= 0 && top + i < height;
        patch->row[i] = inside ? image + (n * height + top + i) * patch->row_stride : FNN_FUNCTION(gemm_zeros);
        patch->row_mask[i] = -(ptrdiff_t)inside;
    }
}

/* Channels [c, c + lanes) of column j: `size` pixels, one below the other. Returns whether the column is in the image; one that is
 * not is not loaded. */
FNN_INLINE bool winograd_load_column(const struct winograd_patch *patch, int size, bool interior, int j, ptrdiff_t c,
                                     ptrdiff_t lanes, vec *pixels) {
    if (interior) {
        const float *column = patch->corner + j * patch->column_stride + c;
#pragma GCC unroll 9
        for (int i = 0; i < size; i++) pixels[i] = load_lanes(column + i * patch->row_stride, lanes);
        return true;
    }
    const ptrdiff_t column = patch->left + j, at = column * patch->column_stride + c;
    if (column < 0 || column >= patch->width) return false;
#pragma GCC unroll 9
    for (int i = 0; i < size; i++) pixels[i] = load_lanes(patch->row[i] + (at & patch->row_mask[i]), lanes);
    return true;
}

/* Asks for what the next tile, `ahead` columns to the right, has more than this one: a line of channels from c on of each pixel.
 * Hardware prefetchers do not follow so many short rows. */
FNN_INLINE void winograd_prefetch_patch(const struct winograd_patch *patch, int size, int ahead, ptrdiff_t c) {
    uintptr_t row = (uintptr_t)(patch->corner + size * patch->column_stride + c);
    const size_t row_bytes = (size_t)patch->row_stride * sizeof(float);
    const size_t column_bytes = (size_t)patch->column_stride * sizeof(float);
#pragma GCC unroll 1
    for (int i = 0; i < size; i++, row += row_bytes) {
#pragma GCC unroll 4
        for (int j = 0; j < ahead; j++) __builtin_prefetch((const void *)(row + (size_t)j * column_bytes), 0, 3);
    }
}

#endif
