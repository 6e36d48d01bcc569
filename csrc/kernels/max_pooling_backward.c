/* Max pooling backward, channels-last.
 *
 *     dx = sum over the windows whose maximum the element was of dy
 *
 * dy, index (N,P,Q,C); dx (N,H,W,C), overwritten; index as max_pool2d_forward leaves it (max_pool_index.h). Exact but for the additions
 * where windows overlap: at most ceil(R/stride_h) * ceil(S/stride_w) terms, in the order of p, then q. Outputs must not overlap
 * inputs. Parallel over rows of dx. */
#include "lanes.h"
#include "max_pool_index.h"
#include "window.h"

/* Vectors that are worked on side by side, a register each, and neighbouring elements. */
enum { GROUP_VECTORS = FNN_LANES == 8 ? 8 : 4, BESIDE = 4 };

/* The windows of one image that hold one of its elements: p in rows, q in columns, those that dilation skips among them. */
struct holders {
    struct window_axis vertical, horizontal;
    struct fnn_range rows, columns;
    ptrdiff_t h, w;
};

/* `vectors` vectors of dx, dx_step apart, from dy and index of its image, dy_step apart: of one element's channels, or of some
 * channels of elements `stride_w` apart, which lie in the same taps of windows side by side. Reads n lanes, writes `kept`. */
FNN_INLINE void gather_channels(const bool wide, const int vectors, ptrdiff_t n, ptrdiff_t kept,
                                const struct holders *of, const float *dy, const uint8_t *index, ptrdiff_t dy_step,
                                ptrdiff_t channels, bool stream, float *dx, ptrdiff_t dx_step) {
    vec sum[GROUP_VECTORS];
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
                ptrdiff_t i = at + v * dy_step;
                mask won = ivec_equal(load_index(wide, index, i, n), tap);
                sum[v] = vec_add(sum[v], vec_select(won, load_lanes(dy + i, n), vec_zero()));
            }
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) put_lanes(stream, dx + v * dx_step, sum[v], kept);
}

/* One element of dx. `roomy`: from its last window on, rows of dy have as many floats as a vector. */
FNN_INLINE void gather_position(const bool wide, const struct holders *of, const float *dy, const uint8_t *index,
                                ptrdiff_t channels, bool roomy, bool stream, float *dx) {
    const ptrdiff_t group = GROUP_VECTORS * FNN_LANES, index_bytes = wide ? 4 : 1;
    ptrdiff_t c = 0;
    for (; c + group <= channels; c += group)
        gather_channels(wide, GROUP_VECTORS, FNN_LANES, FNN_LANES, of, dy + c, index + c * index_bytes, FNN_LANES,
                        channels, stream, dx + c, FNN_LANES);
    for (; c < channels && channels >= FNN_LANES; c += FNN_LANES) {
        ptrdiff_t at = fnn_min(c, channels - FNN_LANES); /* the last vector ends with the last channel */
        gather_channels(wide, 1, FNN_LANES, FNN_LANES, of, dy + at, index + at * index_bytes, 0, channels, stream,
                        dx + at, 0);
    }
    if (c < channels)
        gather_channels(wide, 1, roomy ? FNN_LANES : channels, channels, of, dy, index, 0, channels, false, dx, 0);
}

/* As gather_position, for BESIDE elements stride_w apart. */
FNN_INLINE void gather_positions(const bool wide, const struct holders *of, const float *dy, const uint8_t *index,
                                 ptrdiff_t channels, bool roomy, float *dx) {
    const ptrdiff_t dx_step = of->horizontal.stride * channels;
    for (ptrdiff_t c0 = 0; c0 < channels && channels >= FNN_LANES; c0 += FNN_LANES) {
        ptrdiff_t c = fnn_min(c0, channels - FNN_LANES);
        gather_channels(wide, BESIDE, FNN_LANES, FNN_LANES, of, dy + c, index + c * (wide ? 4 : 1), channels, channels,
                        false, dx + c, dx_step);
    }
    if (channels < FNN_LANES)
        gather_channels(wide, BESIDE, roomy ? FNN_LANES : channels, channels, of, dy, index, channels, channels, false,
                        dx, dx_step);
}

/* One row of dx, of fewer channels than a group: elements stride_w apart share the loop over their windows. */
FNN_INLINE void gather_row(const bool wide, struct holders *of, const float *dy, const uint8_t *index,
                           ptrdiff_t channels, float *dx) {
    const struct window_axis *axis = &of->horizontal;
    const ptrdiff_t reach = (axis->kernel - 1) * axis->dilation, pixels = fnn_ceil_div(FNN_LANES, channels);
    for (ptrdiff_t first = 0; first < fnn_min(axis->stride, axis->size); first++) {
        /* the windows that hold element w: from ceil((w + pad - reach) / stride) on, up to floor((w + pad) / stride) */
        ptrdiff_t begin = fnn_ceil_div(first + axis->pad + axis->stride * reach - reach, axis->stride) - reach;
        ptrdiff_t end = (first + axis->pad) / axis->stride + 1, count;
        for (of->w = first; of->w < axis->size; of->w += count * axis->stride, begin += count, end += count) {
            bool beside =
                begin >= 0 && end + BESIDE - 1 <= axis->out_size && of->w + (BESIDE - 1) * axis->stride < axis->size;
            count = beside ? BESIDE : 1;
            of->columns = (struct fnn_range){fnn_max(begin, 0), fnn_min(end, axis->out_size)};
            bool roomy = of->columns.end - 1 + count - 1 + pixels <= axis->out_size;
            if (beside)
                gather_positions(wide, of, dy, index, channels, roomy, dx + of->w * channels);
            else
                gather_position(wide, of, dy, index, channels, roomy, false, dx + of->w * channels);
        }
    }
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
        if (!stream && channels > 0 && channels < GROUP_VECTORS * FNN_LANES) {
            gather_row(wide, &of, args->dy + image * out_size, args->index + image * out_size * (wide ? 4 : 1),
                       channels, args->dx + i * width * channels);
            continue;
        }
        for (of.w = 0; of.w < width; of.w++) { /* window_positions, without its divisions */
            while (of.columns.end < args->out_width && of.columns.end * args->stride_w - args->pad_left <= of.w)
                of.columns.end++;
            while (of.columns.begin < of.columns.end &&
                   of.columns.begin * args->stride_w - args->pad_left + reach < of.w)
                of.columns.begin++;
            gather_position(wide, &of, args->dy + image * out_size, args->index + image * out_size * (wide ? 4 : 1),
                            channels, false, stream, args->dx + (i * width + of.w) * channels);
        }
    }
    vec_fence();
}

/* Channels of one element that belongs to one window, as its tap; `roomy`: from it on, rows have a vector of floats. */
FNN_INLINE void scatter_position(const bool wide, const float *dy, const uint8_t *index, ptrdiff_t channels, bool roomy,
                                 const ivec tap, bool stream, float *dx) {
    for (ptrdiff_t c0 = 0; c0 < channels; c0 += FNN_LANES) {
        ptrdiff_t c = channels < FNN_LANES ? 0 : fnn_min(c0, channels - FNN_LANES);
        if (channels < FNN_LANES && !roomy) {
            vec gradient = vec_add(vec_zero(), vec_load_partial(dy, channels));
            mask won = ivec_equal(load_index(wide, index, 0, channels), tap);
            vec_store_partial(dx, vec_select(won, gradient, vec_zero()), channels);
        } else {
            vec gradient = vec_add(vec_zero(), vec_load(dy + c)); /* a sum of one term: -0 becomes 0 */
            mask won = ivec_equal(load_index(wide, index, c, FNN_LANES), tap);
            put_lanes(stream, dx + c, vec_select(won, gradient, vec_zero()), FNN_LANES);
        }
    }
}

/* Windows side by side, less than a vector of channels and room for one; r: the row of the windows' taps. */
FNN_INLINE void scatter_run(const bool wide, const float *dy, const uint8_t *index, ptrdiff_t channels, ptrdiff_t count,
                            ptrdiff_t r, ptrdiff_t kernel_width, float *dx) {
    for (ptrdiff_t q = 0; q < count; q++, dy += channels, index += channels * (wide ? 4 : 1)) {
        const vec gradient = vec_add(vec_zero(), vec_load(dy));
        const ivec winner = load_index(wide, index, 0, FNN_LANES);
        ivec tap = ivec_set1((uint32_t)(r * kernel_width));
        for (ptrdiff_t s = 0; s < kernel_width; s++, dx += channels) {
            vec_store(dx, vec_select(ivec_equal(winner, tap), gradient, vec_zero()));
            tap = ivec_add(tap, ivec_set1(1));
        }
    }
}

/* The same gradient where no two windows overlap: every element of dx is written as the tap of one window, or is 0. */
FNN_INLINE void scatter_rows(const bool wide, const struct fnn_max_pool2d_backward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height,   args->out_height, args->kernel_height,
                                         args->stride_h, args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width,    args->out_width,  args->kernel_width,
                                           args->stride_w, args->dilation_w, args->pad_left};
    const ptrdiff_t channels = args->channels, width = args->width, pixels = fnn_ceil_div(FNN_LANES, channels);
    const struct fnn_range run = channels < FNN_LANES ? window_gapless(&horizontal, pixels) : (struct fnn_range){0, 0};
    const bool stream =
        channels % FNN_LANES == 0 && streams(args->dy, args->dx, args->batch * args->height * width * channels);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->height, h = i % args->height, p = (h + args->pad_top) / args->stride_h;
        ptrdiff_t r = window_tap(&vertical, p, h), written = 0;
        bool held = p < args->out_height && r >= 0 && r < args->kernel_height;
        float *dx = args->dx + i * width * channels;
        for (ptrdiff_t q = 0; held && q < args->out_width; q++) {
            ptrdiff_t from = ((image * args->out_height + p) * args->out_width + q) * channels;
            if (q == run.begin && run.begin < run.end) {
                scatter_run(wide, args->dy + from, args->index + from * (wide ? 4 : 1), channels, run.end - q, r,
                            args->kernel_width, dx + (q * args->stride_w - args->pad_left) * channels);
                q = run.end - 1;
                written = run.end * args->stride_w - args->pad_left;
                continue;
            }
            struct fnn_range taps = window_taps(&horizontal, q);
            for (ptrdiff_t s = taps.begin; s < taps.end; s++) {
                ptrdiff_t w = q * args->stride_w - args->pad_left + s * args->dilation_w;
                clear_to(dx, channels, written, w);
                scatter_position(wide, args->dy + from, args->index + from * (wide ? 4 : 1), channels,
                                 fnn_min(width - w, args->out_width - q) >= pixels,
                                 ivec_set1((uint32_t)(r * args->kernel_width + s)), stream, dx + w * channels);
                written = w + 1;
            }
        }
        clear_to(dx, channels, written, width);
    }
    vec_fence();
}

void FNN_FUNCTION(max_pool2d_backward)(const struct fnn_max_pool2d_backward_args *args, const struct fnn_team *team) {
    const bool wide = args->kernel_height * args->kernel_width > BYTE_TAPS;
    const bool apart = (args->kernel_height - 1) * args->dilation_h < args->stride_h &&
                       (args->kernel_width - 1) * args->dilation_w < args->stride_w && args->channels > 0;
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(args->batch * args->height, 1, team); fnn_take(&work, &rows);)
        if (wide && apart)
            scatter_rows(true, args, rows);
        else if (wide)
            gather_rows(true, args, rows);
        else if (apart)
            scatter_rows(false, args, rows);
        else
            gather_rows(false, args, rows);
}
