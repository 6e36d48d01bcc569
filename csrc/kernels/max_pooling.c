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

/* Vectors that are worked on side by side: three registers each forward, one backward. */
enum { FORWARD_VECTORS = 4, BACKWARD_VECTORS = FNN_LANES == 8 ? 8 : 4, BESIDE = 4 };

/* The taps of one window that lie inside the image, as offsets from tap (0, 0), which may lie outside. */
struct taps_inside {
    struct fnn_range rows, columns;
    ptrdiff_t row_step, column_step, kernel_width;
};

/* Positions of one row of the output that have the same taps inside, one or more; x at tap (0, 0) of the first of them. */
struct run {
    const float *x;
    float *y;
    uint8_t *index; /* null: not wanted */
    ptrdiff_t count, channels, x_step; /* x_step: from one position's x to the next one's */
    ptrdiff_t room;                    /* of the first `room` positions a vector may run over into the next ones */
    struct taps_inside taps;
};

/* Vectors of one position's channels, or of some channels of positions side by side. x at tap (0, 0). */
struct vectors {
    const float *x;
    float *y;
    uint8_t *index;
    ptrdiff_t x_step, y_step; /* from one vector to the next, in floats; index has y_step elements */
};

FNN_INLINE struct vectors vectors_at(const bool wide, const bool numbered, const struct run *run, ptrdiff_t position,
                                     ptrdiff_t channel) {
    ptrdiff_t out = position * run->channels + channel;
    return (struct vectors){.x = run->x + position * run->x_step + channel,
                            .y = run->y + out,
                            .index = run->index + (!numbered ? 0
                                                   : wide    ? 4
                                                             : 1) *
                                                      out,
                            .x_step = run->x_step,
                            .y_step = run->channels};
}

/* Sums that are kept: one a vector, but two in all where registers are short, for the vectors' numbers and the tap's. */
FNN_INLINE int sums_of(const bool numbered, const int square) { return numbered && !square ? 2 : FORWARD_VECTORS; }

/* Largest tap and, if `numbered`, its number, of `count` vectors, and sums of all taps: one of them is NaN if a tap is (or of
 * infinities), and then the others are worth nothing. */
FNN_INLINE void largest_taps(const bool numbered, const int count, const ptrdiff_t n, const struct vectors *of,
                             const struct taps_inside *taps, vec *best, ivec *where, vec *sum) {
    const float *first = of->x + taps->rows.begin * taps->row_step + taps->columns.begin * taps->column_step;
    const int sums = sums_of(numbered, 0);
    ptrdiff_t number = taps->rows.begin * taps->kernel_width + taps->columns.begin;
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        best[v] = load_lanes(first + v * of->x_step, n);
        where[v] = ivec_set1((uint32_t)number); /* so that a window of -inf alone reports its first element */
        if (v < sums) sum[v] = vec_zero();
    }
    for (ptrdiff_t r = taps->rows.begin; r < taps->rows.end; r++) {
        ivec tap = ivec_set1((uint32_t)(r * taps->kernel_width + taps->columns.begin));
        for (ptrdiff_t s = taps->columns.begin; s < taps->columns.end; s++) {
            const float *from = of->x + r * taps->row_step + s * taps->column_step;
#pragma GCC unroll 4
            for (int v = 0; v < count; v++) {
                vec seen = load_lanes(from + v * of->x_step, n);
                if (numbered) where[v] = ivec_select(vec_less(best[v], seen), tap, where[v]);
                best[v] = vec_max(seen, best[v]);
                sum[v % sums] = vec_add(sum[v % sums], seen);
            }
            tap = ivec_add(tap, ivec_set1(1));
        }
    }
}

/* The same for windows of K x K taps, all of them inside. */
FNN_INLINE void largest_of_square(const int K, const bool numbered, const int count, const ptrdiff_t n,
                                  const struct vectors *of, const struct taps_inside *taps, vec *best, ivec *where,
                                  vec *sum) {
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        best[v] = sum[v] = load_lanes(of->x + v * of->x_step, n);
        where[v] = ivec_set1(0);
    }
#pragma GCC unroll 8
    for (int tap = 1; tap < K * K; tap++) {
        const float *from = of->x + tap / K * taps->row_step + tap % K * taps->column_step;
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            vec seen = load_lanes(from + v * of->x_step, n);
            if (numbered) where[v] = ivec_select(vec_less(best[v], seen), ivec_set1((uint32_t)tap), where[v]);
            best[v] = vec_max(seen, best[v]);
            sum[v] = vec_add(sum[v], seen);
        }
    }
}

/* As pool_vectors, for any values. */
static __attribute__((noinline)) void pool_exactly(bool wide, bool numbered, int count, ptrdiff_t n, struct vectors of,
                                                   struct taps_inside taps) {
    ptrdiff_t first = taps.rows.begin * taps.kernel_width + taps.columns.begin;
    for (int v = 0; v < count; v++) {
        vec best = vec_set1(-__builtin_inff());
        ivec where = ivec_set1((uint32_t)first);
        for (ptrdiff_t r = taps.rows.begin; r < taps.rows.end; r++)
            for (ptrdiff_t s = taps.columns.begin; s < taps.columns.end; s++) {
                vec seen = load_lanes(of.x + v * of.x_step + r * taps.row_step + s * taps.column_step, n);
                mask better = mask_or(vec_less(best, seen), vec_is_nan(seen));
                best = vec_select(better, seen, best);
                where = ivec_select(better, ivec_set1((uint32_t)(r * taps.kernel_width + s)), where);
            }
        store_lanes(of.y + v * of.y_step, best, n);
        if (numbered) store_index(wide, of.index, v * of.y_step, where, n);
    }
}

/* Windows with one tap inside or more; square: 0, or all of them have square x square taps, all inside. Vectors are stored in
 * their order: what one runs over is written again by the next. */
FNN_INLINE void pool_vectors(const bool wide, const bool numbered, const int square, const int count, const ptrdiff_t n,
                             const struct vectors *of, const struct taps_inside *taps) {
    vec best[FORWARD_VECTORS], sum[FORWARD_VECTORS], all;
    ivec where[FORWARD_VECTORS];
    if (square)
        largest_of_square(square, numbered, count, n, of, taps, best, where, sum);
    else
        largest_taps(numbered, count, n, of, taps, best, where, sum);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        store_lanes(of->y + v * of->y_step, best[v], n);
        if (numbered) store_index(wide, of->index, v * of->y_step, where[v], n);
    }
    all = count == 1 ? sum[0] : vec_add(sum[0], sum[1]);
    if (count > 1 && sums_of(numbered, square) > 2) all = vec_add(all, vec_add(sum[2], sum[3]));
    if (mask_bits(vec_is_nan(all))) pool_exactly(wide, numbered, count, n, *of, *taps);
}

/* Groups of FORWARD_VECTORS vectors of one position's channels; returns the first channel that is left. Nine taps without numbers
 * are faster as a loop. */
FNN_INLINE ptrdiff_t pool_many_channels(const bool wide, const bool numbered, const int square, const struct run *run) {
    const ptrdiff_t group = FORWARD_VECTORS * FNN_LANES, end = run->channels / group * group;
    const int unrolled = numbered || square == 2 ? square : 0;
    for (ptrdiff_t i = 0; i < run->count && end; i++)
        for (ptrdiff_t c = 0; c < end; c += group) {
            struct vectors of = vectors_at(wide, numbered, run, i, c);
            of.x_step = of.y_step = FNN_LANES;
            pool_vectors(wide, numbered, unrolled, FORWARD_VECTORS, FNN_LANES, &of, &run->taps);
        }
    return end;
}

/* Channels from `begin` on, in FORWARD_VECTORS positions at a time; the last vector ends with the last channel. */
FNN_INLINE void pool_some_channels(const bool wide, const bool numbered, const int square, const struct run *run,
                                   ptrdiff_t begin) {
    for (ptrdiff_t c0 = begin; c0 < run->channels; c0 += FNN_LANES) {
        ptrdiff_t i = 0, c = fnn_min(c0, run->channels - FNN_LANES);
        for (; i + FORWARD_VECTORS <= run->count; i += FORWARD_VECTORS) {
            const struct vectors of = vectors_at(wide, numbered, run, i, c);
            pool_vectors(wide, numbered, square, FORWARD_VECTORS, FNN_LANES, &of, &run->taps);
        }
        for (; i < run->count; i++) {
            const struct vectors of = vectors_at(wide, numbered, run, i, c);
            pool_vectors(wide, numbered, square, 1, FNN_LANES, &of, &run->taps);
        }
    }
}

/* Less than a vector of channels: whole vectors where there is room. */
FNN_INLINE void pool_few_channels(const bool wide, const bool numbered, const int square, const struct run *run) {
    ptrdiff_t i = 0;
    for (; i + FORWARD_VECTORS <= run->room; i += FORWARD_VECTORS) {
        const struct vectors of = vectors_at(wide, numbered, run, i, 0);
        pool_vectors(wide, numbered, square, FORWARD_VECTORS, FNN_LANES, &of, &run->taps);
    }
    for (; i < run->room; i++) {
        const struct vectors of = vectors_at(wide, numbered, run, i, 0);
        pool_vectors(wide, numbered, square, 1, FNN_LANES, &of, &run->taps);
    }
    for (; i < run->count; i++) {
        const struct vectors of = vectors_at(wide, numbered, run, i, 0);
        pool_vectors(wide, numbered, square, 1, run->channels, &of, &run->taps);
    }
}

/* A run whose windows have a tap inside. */
FNN_INLINE void pool_run(const bool wide, const bool numbered, const int square, const struct run *restrict run) {
    if (run->channels < FNN_LANES)
        pool_few_channels(wide, numbered, square, run);
    else
        pool_some_channels(wide, numbered, square, run, pool_many_channels(wide, numbered, square, run));
}

/* Functions of their own, lest the loops of one take registers from another's. */
typedef void pool_run_function(const struct run *restrict run);
static __attribute__((noinline)) void pool_2x2(const struct run *restrict run) { pool_run(false, false, 2, run); }
static __attribute__((noinline)) void pool_3x3(const struct run *restrict run) { pool_run(false, false, 3, run); }
static __attribute__((noinline)) void pool_any(const struct run *restrict run) { pool_run(false, false, 0, run); }
static __attribute__((noinline)) void pool_2x2_index(const struct run *restrict run) { pool_run(false, true, 2, run); }
static __attribute__((noinline)) void pool_3x3_index(const struct run *restrict run) { pool_run(false, true, 3, run); }
static __attribute__((noinline)) void pool_any_index(const struct run *restrict run) { pool_run(false, true, 0, run); }
static __attribute__((noinline)) void pool_any_wide(const struct run *restrict run) { pool_run(true, true, 0, run); }

/* Windows without a tap inside. */
static void pool_nothing(const struct run *run, bool wide) {
    const ptrdiff_t count = run->count * run->channels;
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        store_lanes(run->y + i, vec_set1(-__builtin_inff()), n);
        if (run->index) store_index(wide, run->index, i, ivec_set1(NO_TAP), n);
    }
}

static pool_run_function *function_for(const struct fnn_max_pool2d_forward_args *args, bool whole) {
    const ptrdiff_t height = args->kernel_height, width = args->kernel_width;
    const ptrdiff_t square = whole && height == width ? height : 0;
    if (!args->index) return square == 2 ? pool_2x2 : square == 3 ? pool_3x3 : pool_any;
    if (height * width > BYTE_TAPS) return pool_any_wide;
    return square == 2 ? pool_2x2_index : square == 3 ? pool_3x3_index : pool_any_index;
}

static void pool_rows(const struct fnn_max_pool2d_forward_args *args, struct fnn_range range) {
    const struct window_axis vertical = {args->height,   args->out_height, args->kernel_height,
                                         args->stride_h, args->dilation_h, args->pad_top};
    const struct window_axis horizontal = {args->width,    args->out_width,  args->kernel_width,
                                           args->stride_w, args->dilation_w, args->pad_left};
    const ptrdiff_t channels = args->channels, whole_end = window_whole_end(&horizontal);
    const ptrdiff_t roomy =
        channels < FNN_LANES && channels > 0 ? window_room_end(&horizontal, fnn_ceil_div(FNN_LANES, channels)) : 0;
    const bool wide = args->kernel_height * args->kernel_width > BYTE_TAPS;
    struct run run = {.channels = channels,
                      .x_step = args->stride_w * channels,
                      .taps = {.row_step = args->dilation_h * args->width * channels,
                               .column_step = args->dilation_w * channels,
                               .kernel_width = args->kernel_width}};
    pool_run_function *const whole = function_for(args, true), *const part = function_for(args, false);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / args->out_height, p = i % args->out_height;
        struct fnn_range rows = run.taps.rows = window_taps(&vertical, p);
        const float *x = args->x + (image * args->height + p * args->stride_h - args->pad_top) * args->width * channels;
        for (ptrdiff_t q = 0; q < args->out_width; q += run.count) {
            ptrdiff_t out = (i * args->out_width + q) * channels;
            struct fnn_range columns = run.taps.columns = window_taps(&horizontal, q);
            bool whole_columns = columns.end - columns.begin == args->kernel_width;
            run.count = whole_columns ? whole_end - q : 1;
            run.room = fnn_min(roomy - q, run.count);
            run.x = x + (q * args->stride_w - args->pad_left) * channels;
            run.y = args->y + out;
            run.index = args->index ? args->index + (wide ? 4 : 1) * out : NULL;
            if (rows.begin == rows.end || columns.begin == columns.end)
                pool_nothing(&run, wide);
            else
                (whole_columns && rows.end - rows.begin == args->kernel_height ? whole : part)(&run);
        }
    }
}

/* index may be null. */
void FNN_FUNCTION(max_pool2d_forward)(const struct fnn_max_pool2d_forward_args *args, const struct fnn_team *team) {
    pool_rows(args, fnn_share(args->batch * args->out_height, team));
}

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
    const ptrdiff_t group = BACKWARD_VECTORS * FNN_LANES, index_bytes = wide ? 4 : 1;
    ptrdiff_t c = 0;
    for (; c + group <= channels; c += group)
        gather_channels(wide, BACKWARD_VECTORS, FNN_LANES, FNN_LANES, of, dy + c, index + c * index_bytes, FNN_LANES,
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
        if (!stream && channels > 0 && channels < BACKWARD_VECTORS * FNN_LANES) {
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

/* dx = sum over the windows whose maximum the element was of dy. */
void FNN_FUNCTION(max_pool2d_backward)(const struct fnn_max_pool2d_backward_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share(args->batch * args->height, team);
    const bool wide = args->kernel_height * args->kernel_width > BYTE_TAPS;
    const bool apart = (args->kernel_height - 1) * args->dilation_h < args->stride_h &&
                       (args->kernel_width - 1) * args->dilation_w < args->stride_w && args->channels > 0;
    if (wide && apart)
        scatter_rows(true, args, range);
    else if (wide)
        gather_rows(true, args, range);
    else if (apart)
        scatter_rows(false, args, range);
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
