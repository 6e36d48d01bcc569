/* The first stage for tiles side by side in one row of an image: what their patches share is mapped once. */
#ifndef FASTNN_WINOGRAD_RUN_H
#define FASTNN_WINOGRAD_RUN_H

#include "winograd.h"

enum { WINOGRAD_RUN_VECTORS = 204 }; /* of a run's mapped columns, at most: those of eight tiles of F(4x4, 3x3) */

/* An image N,H,W,C. The patch of the first tile begins `pad_top` rows above it and `pad_left` columns left of it. */
struct winograd_image {
    const float *pixels;
    ptrdiff_t height, width, channels, pad_top, pad_left;
};

/* The pixels of some neighbouring patches: zeros outside of the image. */
struct winograd_run {
    const float *row[WINOGRAD_PATCH];   /* the image's row, or zeros */
    ptrdiff_t row_mask[WINOGRAD_PATCH]; /* all ones, or zero: rows of zeros are as long as a vector */
    bool inside;                        /* every row is in the image */
    uintptr_t below;                    /* address of the first pixel in the row below, which need not be in bounds */
    ptrdiff_t row_stride, column_stride; /* floats */
    ptrdiff_t left;                     /* column of the first pixel in the image */
    struct fnn_range columns;           /* those in the image, counted from the first pixel */
    ptrdiff_t count;                    /* of columns */
};

/* Rows [top, top + in) and columns [left, left + count) of image n. */
FNN_INLINE void winograd_find_run(const struct winograd_image *image, ptrdiff_t n, ptrdiff_t top, ptrdiff_t left,
                                  int in, ptrdiff_t count, struct winograd_run *run) {
    const ptrdiff_t begin = fnn_min(fnn_max(-left, 0), count);
    run->row_stride = image->width * image->channels;
    run->column_stride = image->channels;
    run->inside = top >= 0 && top + in <= image->height;
    run->below = (uintptr_t)image->pixels + (size_t)((n * image->height + top + in) * run->row_stride) * sizeof(float);
    run->left = left;
    run->columns = (struct fnn_range){begin, fnn_max(fnn_min(image->width - left, count), begin)};
    run->count = count;
#pragma GCC unroll 9
    for (int i = 0; i < in; i++) {
        const bool inside = top + i >= 0 && top + i < image->height;
        run->row[i] =
            inside ? image->pixels + (n * image->height + top + i) * run->row_stride : FNN_FUNCTION(gemm_zeros);
        run->row_mask[i] = -(ptrdiff_t)inside;
    }
}

/* Asks for a line, `at` floats on, of those m rows that the tiles below these have more. */
FNN_INLINE void winograd_prefetch_below(const struct winograd_run *run, int m, ptrdiff_t at) {
    const size_t row_bytes = (size_t)run->row_stride * sizeof(float);
    uintptr_t line = run->below + (size_t)at * sizeof(float);
#pragma GCC unroll 8
    for (int i = 0; i < m; i++, line += row_bytes) __builtin_prefetch((const void *)line, 0, 2);
}

/* half[column][i] = map of the columns, channels [c, c + lanes). inside: the run's rows are; asks: see above. */
FNN_INLINE void winograd_map_columns(const struct winograd_run *run, winograd_map map, int m, int r, int in, int out,
                                     bool inside, bool asks, ptrdiff_t c, ptrdiff_t lanes, vec *half) {
    ptrdiff_t at = (run->left + run->columns.begin) * run->column_stride + c;
    half += run->columns.begin * out;
    for (ptrdiff_t j = run->columns.begin; j < run->columns.end; j++, at += run->column_stride, half += out) {
        vec column[WINOGRAD_PATCH], mapped[WINOGRAD_PATCH];
        if (asks) winograd_prefetch_below(run, m, at);
#pragma GCC unroll 9
        for (int i = 0; i < in; i++) {
            const float *pixel =
                inside ? run->row[0] + at + i * run->row_stride : run->row[i] + (at & run->row_mask[i]);
            column[i] = load_lanes(pixel, lanes);
        }
        map(m, r, column, mapped);
#pragma GCC unroll 9
        for (int i = 0; i < out; i++) half[i] = mapped[i];
    }
}

/* Channels [first, first + channels) of `tiles` patches: v[tile*width + plane*plane_stride + c] = map of channel first + c of a
 * patch, first applied to columns, then to rows. */
FNN_INLINE void winograd_transform_run(const struct winograd_run *run, winograd_map map, int m, int r, int in, int out,
                                       ptrdiff_t tiles, ptrdiff_t first, ptrdiff_t channels,
                                       const struct winograd_patches *layout, float *v) {
    const ptrdiff_t stride = layout->plane_stride;
    vec half[WINOGRAD_RUN_VECTORS];
    for (ptrdiff_t j = 0; j < run->columns.begin * out; j++) half[j] = vec_zero(); /* as of columns of zeros */
    for (ptrdiff_t j = run->columns.end * out; j < run->count * out; j++) half[j] = vec_zero();
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        const ptrdiff_t lanes = lanes_left(channels - c);
        const bool asks = c % WINOGRAD_LINE == 0;
        if (lanes < FNN_LANES)
            winograd_map_columns(run, map, m, r, in, out, false, asks, first + c, lanes, half);
        else if (run->inside)
            winograd_map_columns(run, map, m, r, in, out, true, asks, first + c, FNN_LANES, half);
        else
            winograd_map_columns(run, map, m, r, in, out, false, asks, first + c, FNN_LANES, half);
        for (ptrdiff_t tile = 0; tile < tiles; tile++) {
            const vec *from = half + tile * m * out;
            float *to = v + tile * layout->width + c;
#pragma GCC unroll 1
            for (int i = 0; i < out; i++, from++, to += out * stride) {
                vec row[WINOGRAD_PATCH], planes[WINOGRAD_PATCH];
#pragma GCC unroll 9
                for (int j = 0; j < in; j++) row[j] = from[j * out];
                map(m, r, row, planes);
#pragma GCC unroll 9
                for (int j = 0; j < out; j++) vec_store(to + j * stride, planes[j]);
            }
        }
    }
}

/* One chunk of channels of tiles [tiles.begin, tiles.end), m pixels from a tile to the next, patches of in x in pixels that
 * become out x out planes. v: of the first tile, chunk 0. */
FNN_INLINE void winograd_transform_tiles(const struct winograd_image *image, const struct winograd_shape *shape,
                                         winograd_map map, int m, int r, int in, int out, struct fnn_range tiles,
                                         ptrdiff_t chunk, const struct winograd_patches *layout, float *v) {
    const ptrdiff_t first = chunk * WINOGRAD_DEPTH, channels = fnn_min(image->channels - first, WINOGRAD_DEPTH);
    const ptrdiff_t most = (WINOGRAD_RUN_VECTORS / out - in) / m + 1;
    struct winograd_tile tile = winograd_tile_at(shape, tiles.begin);
    v += chunk * layout->chunk_stride;
    for (ptrdiff_t i = tiles.begin, count; i < tiles.end; i += count, v += count * layout->width) {
        struct winograd_run run;
        count = fnn_min(fnn_min(shape->tile_columns - tile.column, tiles.end - i), most);
        winograd_find_run(image, tile.image, tile.row * m - image->pad_top, tile.column * m - image->pad_left, in,
                          (count - 1) * m + in, &run);
        winograd_transform_run(&run, map, m, r, in, out, count, first, channels, layout, v);
        tile = winograd_tile_at(shape, i + count);
    }
}

#endif
