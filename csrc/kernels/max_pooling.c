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

/* The taps of one window that lie inside the image, as offsets from tap (0, 0), which may lie outside. */
struct taps_inside {
    struct fnn_range rows, columns;
    ptrdiff_t row_step, column_step, kernel_width;
};

/* Largest tap and its number, for one vector of channels. `exact` minds NaN, the other way costs half as much. */
FNN_INLINE vec largest_tap(const bool exact, const float *x, const struct taps_inside *taps, ptrdiff_t n, ivec *where,
                           vec *sum) {
    vec best = load_lanes(x + taps->rows.begin * taps->row_step + taps->columns.begin * taps->column_step, n);
    ptrdiff_t first = taps->rows.begin * taps->kernel_width + taps->columns.begin;
    *where = ivec_set1((uint32_t)first); /* so that a window of -inf alone reports its first element */
    *sum = vec_zero();
    for (ptrdiff_t r = taps->rows.begin; r < taps->rows.end; r++)
        for (ptrdiff_t s = taps->columns.begin; s < taps->columns.end; s++) {
            vec seen = load_lanes(x + r * taps->row_step + s * taps->column_step, n);
            mask better = vec_less(best, seen);
            if (exact) {
                better = mask_or(better, vec_is_nan(seen));
                best = vec_select(better, seen, best);
            } else {
                best = vec_max(seen, best);
                *sum = vec_add(*sum, seen);
            }
            *where = ivec_select(better, ivec_set1((uint32_t)(r * taps->kernel_width + s)), *where);
        }
    return best;
}

/* One output position, x at its tap (0, 0). The sum of all taps is NaN if one of them is (or of infinities). */
FNN_INLINE void pool_position(const bool wide, const float *x, ptrdiff_t channels, const struct taps_inside *taps,
                              float *y, uint8_t *index) {
    bool empty = taps->rows.begin == taps->rows.end || taps->columns.begin == taps->columns.end;
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(channels - c);
        vec best = vec_set1(-__builtin_inff()), sum = vec_zero();
        ivec where = ivec_set1(NO_TAP);
        if (!empty) best = largest_tap(false, x + c, taps, n, &where, &sum);
        if (mask_bits(vec_is_nan(sum))) best = largest_tap(true, x + c, taps, n, &where, &sum);
        store_lanes(y + c, best, n);
        if (index) store_index(wide, index, c, where, n);
    }
}

FNN_INLINE void pool_rows(const bool wide, const struct fnn_max_pool2d_forward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height,   args->out_height, args->kernel_height,
                                         args->stride_h, args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width,    args->out_width,  args->kernel_width,
                                           args->stride_w, args->dilation_w, args->pad_left};
    ptrdiff_t channels = args->channels, index_bytes = wide ? 4 : 1;
    struct taps_inside taps = {.row_step = args->dilation_h * args->width * channels,
                               .column_step = args->dilation_w * channels,
                               .kernel_width = args->kernel_width};
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->out_height, p = i % args->out_height;
        taps.rows = window_taps(&vertical, p);
        const float *x = args->x + (image * args->height + p * args->stride_h - args->pad_top) * args->width * channels;
        for (ptrdiff_t q = 0; q < args->out_width; q++) {
            ptrdiff_t out = (i * args->out_width + q) * channels;
            taps.columns = window_taps(&horizontal, q);
            pool_position(wide, x + (q * args->stride_w - args->pad_left) * channels, channels, &taps, args->y + out,
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

/* dx += dy where the tap was the maximum, for the taps s of one window in one row of the image: dx is at tap 0 of the
 * row, whose taps from `fresh` on are written for the first time and set instead. `tap` is the number of tap 0. */
FNN_INLINE void spread_window(const bool wide, const float *dy, const uint8_t *index, float *dx, ptrdiff_t channels,
                              ptrdiff_t step, struct fnn_range columns, ptrdiff_t fresh, ptrdiff_t tap) {
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(channels - c), s = columns.begin;
        ivec winner = ivec_sub(load_index(wide, index, c, n), ivec_set1((uint32_t)tap));
        vec gradient = load_lanes(dy + c, n);
        for (; s < fresh; s++) {
            vec won = vec_select(ivec_equal(winner, ivec_set1((uint32_t)s)), gradient, vec_zero());
            store_lanes(dx + s * step + c, vec_add(load_lanes(dx + s * step + c, n), won), n);
        }
        for (; s < columns.end; s++)
            store_lanes(dx + s * step + c, vec_select(ivec_equal(winner, ivec_set1((uint32_t)s)), gradient, vec_zero()),
                        n);
    }
}

/* Each row of the image gathers from the windows that hold it: threads never write the same element. Within the row, the
 * elements before `written` have their first term; with dilation, windows leave gaps, so the row starts as zeros. */
FNN_INLINE void gather_rows(const bool wide, const struct fnn_max_pool2d_backward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height,   args->out_height, args->kernel_height,
                                         args->stride_h, args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width,    args->out_width,  args->kernel_width,
                                           args->stride_w, args->dilation_w, args->pad_left};
    ptrdiff_t channels = args->channels, width = args->width, index_bytes = wide ? 4 : 1;
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->height, h = i % args->height, written = 0;
        struct fnn_range rows = window_positions(&vertical, h);
        float *dx = args->dx + i * width * channels;
        if (args->dilation_w > 1) written = clear_to(dx, channels, written, width);
        for (ptrdiff_t p = rows.begin; p < rows.end; p++) {
            ptrdiff_t r = window_tap(&vertical, p, h);
            if (r < 0) continue;
            for (ptrdiff_t q = 0; q < args->out_width; q++) {
                struct fnn_range columns = window_taps(&horizontal, q);
                ptrdiff_t left = q * args->stride_w - args->pad_left;
                ptrdiff_t out = ((image * args->out_height + p) * args->out_width + q) * channels;
                written = clear_to(dx, channels, written, left + columns.begin);
                ptrdiff_t fresh = args->dilation_w > 1 ? columns.end : written - left;
                fresh = fnn_max(columns.begin, fnn_min(fresh, columns.end));
                spread_window(wide, args->dy + out, args->index + out * index_bytes, dx + left * channels, channels,
                              args->dilation_w * channels, columns, fresh, r * args->kernel_width);
                written = fnn_max(written, fnn_min(left + columns.end, width));
            }
            written = clear_to(dx, channels, written, width);
        }
        clear_to(dx, channels, written, width);
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
