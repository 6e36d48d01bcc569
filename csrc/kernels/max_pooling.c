/* Max pooling, forward and backward, channels-last.
 *
 *     y[n,p,q,c] = max over (r,s) of x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *
 * over the taps inside the image. x, dx (N,H,W,C); y, dy (N,P,Q,C). The first of equal maxima wins; NaN propagates, the
 * last of several giving the index. A window without a tap inside yields -inf and no gradient.
 *
 * index (N,P,Q,C): r*S + s of each maximum; NO_TAP for none. One byte each when R*S <= 255, else uint32.
 * All kernels are exact but for the additions of max_pool2d_backward, where windows overlap: at most
 * ceil(R/stride_h) * ceil(S/stride_w) terms, added in the order of p, then q. Outputs must not overlap inputs.
 * Parallel over rows of the image that is written. */
#include "lanes.h"
#include "window.h"

enum { BYTE_TAPS = 255, NO_TAP_BYTE = 255 };
#define NO_TAP 0xffffffffu

FNN_INLINE ivec load_index(const bool wide, const uint8_t *index, ptrdiff_t i, ptrdiff_t n) {
    if (!wide) return n == FNN_LANES ? ivec_load_u8(index + i) : ivec_load_u8_partial(index + i, n);
    return ivec_from_float_bits(load_lanes((const float *)(const void *)index + i, n));
}

FNN_INLINE void store_index(const bool wide, uint8_t *index, ptrdiff_t i, ivec taps, ptrdiff_t n) {
    if (wide)
        store_lanes((float *)(void *)index + i, vec_from_bits(taps), n);
    else if (n == FNN_LANES)
        ivec_store_u8(index + i, taps);
    else
        ivec_store_u8_partial(index + i, taps, n);
}

/* Vectors of channels that are worked on side by side: three registers each forward, one backward. */
enum { FORWARD_VECTORS = 4, BACKWARD_VECTORS = FNN_LANES == 8 ? 8 : 4 };

/* The taps of one window that lie inside the image, as offsets from tap (0, 0), which may lie outside. */
struct taps_inside {
    struct fnn_range rows, columns;
    ptrdiff_t row_step, column_step, kernel_width;
};

/* Largest tap and, if `numbered`, its number, for `vectors` vectors of channels, the last one of n lanes. `exact` minds NaN, the
 * other way costs half as much and gives the sum of all taps, which is NaN if one of them is (or of infinities). */
FNN_INLINE void largest_taps(const bool exact, const bool numbered, const int vectors, ptrdiff_t n, const float *x,
                             const struct taps_inside *taps, vec *best, ivec *where, vec *sum) {
    const float *first = x + taps->rows.begin * taps->row_step + taps->columns.begin * taps->column_step;
    ptrdiff_t number = taps->rows.begin * taps->kernel_width + taps->columns.begin;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        best[v] = load_lanes(first + v * FNN_LANES, n);
        where[v] = ivec_set1((uint32_t)number); /* so that a window of -inf alone reports its first element */
        sum[v] = vec_zero();
    }
    for (ptrdiff_t r = taps->rows.begin; r < taps->rows.end; r++) {
        ivec tap = ivec_set1((uint32_t)(r * taps->kernel_width + taps->columns.begin));
        for (ptrdiff_t s = taps->columns.begin; s < taps->columns.end; s++) {
            const float *from = x + r * taps->row_step + s * taps->column_step;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                vec seen = load_lanes(from + v * FNN_LANES, n);
                mask better = vec_less(best[v], seen);
                if (exact) {
                    better = mask_or(better, vec_is_nan(seen));
                    best[v] = vec_select(better, seen, best[v]);
                } else {
                    best[v] = vec_max(seen, best[v]);
                    sum[v] = vec_add(sum[v], seen);
                }
                if (numbered) where[v] = ivec_select(better, tap, where[v]);
            }
            tap = ivec_add(tap, ivec_set1(1));
        }
    }
}

/* Some channels of one output position, x at its tap (0, 0). */
FNN_INLINE void pool_channels(const bool wide, const bool numbered, const int vectors, ptrdiff_t n, const float *x,
                              const struct taps_inside *taps, float *y, uint8_t *index) {
    vec best[FORWARD_VECTORS], sum[FORWARD_VECTORS], all = vec_zero();
    ivec where[FORWARD_VECTORS];
    largest_taps(false, numbered, vectors, n, x, taps, best, where, sum);
    for (int v = 0; v < vectors; v++) all = vec_add(all, sum[v]);
    if (mask_bits(vec_is_nan(all))) largest_taps(true, numbered, vectors, n, x, taps, best, where, sum);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        store_lanes(y + v * FNN_LANES, best[v], n);
        if (numbered) store_index(wide, index, v * FNN_LANES, where[v], n);
    }
}

/* A window without a tap inside. */
FNN_INLINE void pool_nothing(const bool wide, const bool numbered, ptrdiff_t channels, float *y, uint8_t *index) {
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(channels - c);
        store_lanes(y + c, vec_set1(-__builtin_inff()), n);
        if (numbered) store_index(wide, index, c, ivec_set1(NO_TAP), n);
    }
}

/* One output position. From it on, a row has `room` floats, of the input and of the output: the last vector may run over into
 * the positions that follow, which are written after this one. */
FNN_INLINE void pool_position(const bool wide, const bool numbered, const float *x, ptrdiff_t channels, ptrdiff_t room,
                              const struct taps_inside *taps, float *y, uint8_t *index) {
    const ptrdiff_t group = FORWARD_VECTORS * FNN_LANES, index_bytes = !numbered ? 0 : wide ? 4 : 1;
    if (taps->rows.begin == taps->rows.end || taps->columns.begin == taps->columns.end) {
        pool_nothing(wide, numbered, channels, y, index);
        return;
    }
    ptrdiff_t c = 0;
    for (; c + group <= channels; c += group)
        pool_channels(wide, numbered, FORWARD_VECTORS, FNN_LANES, x + c, taps, y + c, index + c * index_bytes);
    for (; c < channels && c + FNN_LANES <= room; c += FNN_LANES)
        pool_channels(wide, numbered, 1, FNN_LANES, x + c, taps, y + c, index + c * index_bytes);
    if (c < channels) pool_channels(wide, numbered, 1, channels - c, x + c, taps, y + c, index + c * index_bytes);
}

FNN_INLINE void pool_rows(const bool wide, const bool numbered, const struct fnn_max_pool2d_forward_args *args,
                          struct fnn_range range) {
    const struct window_axis vertical = {args->height,   args->out_height, args->kernel_height,
                                         args->stride_h, args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width,    args->out_width,  args->kernel_width,
                                           args->stride_w, args->dilation_w, args->pad_left};
    ptrdiff_t channels = args->channels, index_bytes = !numbered ? 0 : wide ? 4 : 1;
    struct taps_inside taps = {.row_step = args->dilation_h * args->width * channels,
                               .column_step = args->dilation_w * channels,
                               .kernel_width = args->kernel_width};
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->out_height, p = i % args->out_height;
        taps.rows = window_taps(&vertical, p);
        const float *x = args->x + (image * args->height + p * args->stride_h - args->pad_top) * args->width * channels;
        for (ptrdiff_t q = 0; q < args->out_width; q++) {
            ptrdiff_t out = (i * args->out_width + q) * channels, left = q * args->stride_w - args->pad_left;
            taps.columns = window_taps(&horizontal, q);
            ptrdiff_t last = left + (taps.columns.end - 1) * args->dilation_w;
            ptrdiff_t room = fnn_min(args->out_width - q, args->width - last) * channels;
            pool_position(wide, numbered, x + left * channels, channels, room, &taps, args->y + out,
                          args->index + out * index_bytes);
        }
    }
}

/* index may be null. */
void FNN_FUNCTION(max_pool2d_forward)(const struct fnn_max_pool2d_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->batch * args->out_height, team);
    if (!args->index)
        pool_rows(false, false, args, range);
    else if (args->kernel_height * args->kernel_width > BYTE_TAPS)
        pool_rows(true, true, args, range);
    else
        pool_rows(false, true, args, range);
}

/* The windows of one image that hold one of its elements: p in rows, q in columns, those that dilation skips among them. */
struct holders {
    struct window_axis vertical, horizontal;
    struct fnn_range rows, columns;
    ptrdiff_t h, w;
};

/* Some channels of one element of dx, from dy and index of its image. */
FNN_INLINE void gather_channels(const bool wide, const int vectors, ptrdiff_t n, const struct holders *of,
                                const float *dy, const uint8_t *index, ptrdiff_t channels, bool stream, float *dx) {
    vec sum[BACKWARD_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
    for (ptrdiff_t p = of->rows.begin; p < of->rows.end; p++) {
        ptrdiff_t r = window_tap(&of->vertical, p, of->h);
        if (r < 0) continue;
        for (ptrdiff_t q = of->columns.begin; q < of->columns.end; q++) {
            ptrdiff_t s = window_tap(&of->horizontal, q, of->w), at = (p * of->horizontal.out_size + q) * channels;
            if (s < 0) continue;
            const ivec tap = ivec_set1((uint32_t)(r * of->horizontal.kernel + s));
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) {
                ptrdiff_t i = at + v * FNN_LANES;
                mask won = ivec_equal(load_index(wide, index, i, n), tap);
                sum[v] = vec_add(sum[v], vec_select(won, load_lanes(dy + i, n), vec_zero()));
            }
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) put_lanes(stream, dx + v * FNN_LANES, sum[v], n);
}

/* One element of dx. From it on, rows have `room` floats, of dx and of dy (see pool_position). */
FNN_INLINE void gather_position(const bool wide, const struct holders *of, const float *dy, const uint8_t *index,
                                ptrdiff_t channels, ptrdiff_t room, bool stream, float *dx) {
    const ptrdiff_t group = BACKWARD_VECTORS * FNN_LANES, index_bytes = wide ? 4 : 1;
    ptrdiff_t c = 0;
    for (; c + group <= channels; c += group)
        gather_channels(wide, BACKWARD_VECTORS, FNN_LANES, of, dy + c, index + c * index_bytes, channels, stream,
                        dx + c);
    for (; c < channels && c + FNN_LANES <= room; c += FNN_LANES)
        gather_channels(wide, 1, FNN_LANES, of, dy + c, index + c * index_bytes, channels, stream, dx + c);
    if (c < channels)
        gather_channels(wide, 1, channels - c, of, dy + c, index + c * index_bytes, channels, false, dx + c);
}

/* Each element of dx gathers from the windows that hold it: threads never write the same one, and each is written once. */
FNN_INLINE void gather_rows(const bool wide, const struct fnn_max_pool2d_backward_args *args, struct fnn_range range) {
    struct holders of = {.vertical = {args->height, args->out_height, args->kernel_height, args->stride_h,
                                      args->dilation_h, args->pad_top},
                         .horizontal = {args->width, args->out_width, args->kernel_width, args->stride_w,
                                        args->dilation_w, args->pad_left}};
    ptrdiff_t channels = args->channels, width = args->width, out_size = args->out_height * args->out_width * channels;
    const ptrdiff_t reach = (args->kernel_width - 1) * args->dilation_w; /* of a window beyond its tap 0 */
    const bool stream =
        channels % FNN_LANES == 0 && streams(args->dy, args->dx, args->batch * args->height * width * channels);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->height;
        of.h = i % args->height;
        of.rows = window_positions(&of.vertical, of.h);
        of.columns = (struct fnn_range){0, 0};
        for (of.w = 0; of.w < width; of.w++) { /* window_positions, without its divisions */
            while (of.columns.end < args->out_width && of.columns.end * args->stride_w - args->pad_left <= of.w)
                of.columns.end++;
            while (of.columns.begin < of.columns.end &&
                   of.columns.begin * args->stride_w - args->pad_left + reach < of.w)
                of.columns.begin++;
            ptrdiff_t room = fnn_min(width - of.w, args->out_width - of.columns.end + 1) * channels;
            gather_position(wide, &of, args->dy + image * out_size, args->index + image * out_size * (wide ? 4 : 1),
                            channels, room, stream, args->dx + (i * width + of.w) * channels);
        }
    }
    vec_fence();
}

/* dx = sum over the windows whose maximum the element was of dy. */
void FNN_FUNCTION(max_pool2d_backward)(const struct fnn_max_pool2d_backward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->batch * args->height, team);
    if (args->kernel_height * args->kernel_width > BYTE_TAPS)
        gather_rows(true, args, range);
    else
        gather_rows(false, args, range);
}

/* positions (N,P,Q,C) = h*W + w of each maximum, from its window index; -1 for none. */
void FNN_FUNCTION(max_pool2d_positions)(const struct fnn_max_pool2d_positions_args *args, const struct fnn_team *team) {
    bool wide = args->kernel_height * args->kernel_width > BYTE_TAPS;
    struct fnn_range range = fnn_share(args->batch * args->out_height, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t top = i % args->out_height * args->stride_h - args->pad_top;
        for (ptrdiff_t q = 0; q < args->out_width; q++) {
            ptrdiff_t left = q * args->stride_w - args->pad_left;
            for (ptrdiff_t c = 0; c < args->channels; c++) {
                ptrdiff_t at = (i * args->out_width + q) * args->channels + c;
                uint32_t tap = wide ? ((const uint32_t *)(const void *)args->index)[at] : args->index[at];
                ptrdiff_t h = top + tap / args->kernel_width * args->dilation_h;
                ptrdiff_t w = left + tap % args->kernel_width * args->dilation_w;
                args->positions[at] = tap == (wide ? NO_TAP : NO_TAP_BYTE) ? -1 : h * args->width + w;
            }
        }
    }
}
