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

/* One output position: x points at the image's (h, w) of tap (0, 0), which may lie outside; rows, columns: taps inside. */
FNN_INLINE void pool_position(const bool wide, const struct fnn_max_pool2d_forward_args *args, const float *x,
                              struct fnn_range rows, struct fnn_range columns, float *y, uint8_t *index) {
    ptrdiff_t channels = args->channels, taps_wide = args->kernel_width;
    ptrdiff_t row_step = args->dilation_h * args->width * channels, column_step = args->dilation_w * channels;
    bool empty = rows.begin == rows.end || columns.begin == columns.end;
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(channels - c);
        vec best = vec_set1(-__builtin_inff());
        ivec where = ivec_set1(NO_TAP);
        if (!empty) { /* so that a window of -inf alone reports its first element */
            where = ivec_set1((uint32_t)(rows.begin * taps_wide + columns.begin));
            best = load_lanes(x + rows.begin * row_step + columns.begin * column_step + c, n);
        }
        for (ptrdiff_t r = rows.begin; r < rows.end; r++)
            for (ptrdiff_t s = columns.begin; s < columns.end; s++) {
                vec seen = load_lanes(x + r * row_step + s * column_step + c, n);
                mask better = mask_or(vec_less(best, seen), vec_is_nan(seen));
                best = vec_select(better, seen, best);
                where = ivec_select(better, ivec_set1((uint32_t)(r * taps_wide + s)), where);
            }
        store_lanes(y + c, best, n);
        if (index) store_index(wide, index, c, where, n);
    }
}

FNN_INLINE void pool_rows(const bool wide, const struct fnn_max_pool2d_forward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height, args->out_height, args->kernel_height, args->stride_h,
                                         args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width, args->out_width, args->kernel_width, args->stride_w,
                                           args->dilation_w, args->pad_left};
    ptrdiff_t channels = args->channels, index_bytes = wide ? 4 : 1;
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->out_height, p = i % args->out_height;
        struct fnn_range rows = window_taps(&vertical, p);
        const float *x = args->x + (image * args->height + p * args->stride_h - args->pad_top) * args->width * channels;
        for (ptrdiff_t q = 0; q < args->out_width; q++) {
            ptrdiff_t out = (i * args->out_width + q) * channels;
            pool_position(wide, args, x + (q * args->stride_w - args->pad_left) * channels, rows,
                          window_taps(&horizontal, q), args->y + out,
                          args->index ? args->index + out * index_bytes : NULL);
        }
    }
}

/* index may be null. */
void FNN_FUNCTION(max_pool2d_forward)(const struct fnn_max_pool2d_forward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->batch * args->out_height, team);
    if (args->kernel_height * args->kernel_width > BYTE_TAPS)
        pool_rows(true, args, range);
    else
        pool_rows(false, args, range);
}

/* dx (=, or += unless first) dy where `tap` was the maximum. */
FNN_INLINE void take_gradient(const bool wide, const float *dy, const uint8_t *index, float *dx, ptrdiff_t channels,
                              ptrdiff_t tap, bool first) {
    const ivec wanted = ivec_set1((uint32_t)tap);
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(channels - c);
        mask hit = ivec_equal(load_index(wide, index, c, n), wanted);
        vec gradient = vec_select(hit, load_lanes(dy + c, n), vec_zero());
        if (!first) gradient = vec_add(load_lanes(dx + c, n), gradient);
        store_lanes(dx + c, gradient, n);
    }
}

/* Each element gathers from the windows that hold it: nothing is scattered, so threads never write the same element. */
FNN_INLINE void gather_rows(const bool wide, const struct fnn_max_pool2d_backward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height, args->out_height, args->kernel_height, args->stride_h,
                                         args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width, args->out_width, args->kernel_width, args->stride_w,
                                           args->dilation_w, args->pad_left};
    ptrdiff_t channels = args->channels, index_bytes = wide ? 4 : 1;
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->height, h = i % args->height;
        struct fnn_range rows = window_positions(&vertical, h);
        for (ptrdiff_t w = 0; w < args->width; w++) {
            float *dx = args->dx + (i * args->width + w) * channels;
            struct fnn_range columns = window_positions(&horizontal, w);
            bool first = true;
            for (ptrdiff_t p = rows.begin; p < rows.end; p++) {
                ptrdiff_t r = window_tap(&vertical, p, h);
                for (ptrdiff_t q = columns.begin; r >= 0 && q < columns.end; q++) {
                    ptrdiff_t s = window_tap(&horizontal, q, w);
                    if (s < 0) continue;
                    ptrdiff_t out = ((image * args->out_height + p) * args->out_width + q) * channels;
                    take_gradient(wide, args->dy + out, args->index + out * index_bytes, dx, channels,
                                  r * args->kernel_width + s, first);
                    first = false;
                }
            }
            if (first)
                for (ptrdiff_t c = 0; c < channels; c++) dx[c] = 0.0f;
        }
    }
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
