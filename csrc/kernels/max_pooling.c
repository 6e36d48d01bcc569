/* Max pooling forward, channels-last.
 *
 *     y[n,p,q,c] = max over (r,s) of x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *
 * over the taps inside the image. x (N,H,W,C); y (N,P,Q,C). The first of equal maxima wins; NaN propagates, the last of several
 * giving the index (max_pool_index.h), which may be null. A window without a tap inside yields -inf. Exact. Outputs must not overlap
 * inputs. Parallel over rows of y. */
#include "lanes.h"
#include "max_pool_index.h"
#include "window.h"

/* Vectors that are worked on side by side, three registers each. */
enum { FORWARD_VECTORS = 4 };

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
    bool wide;      /* an index of four bytes, else of one */
    bool stream;    /* y past the caches */
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

/* Vectors of the channels from `channel` on: of one position, or (`beside`) of positions from that one on. */
FNN_INLINE struct vectors vectors_at(const bool wide, const bool numbered, const bool beside, const struct run *run,
                                     ptrdiff_t position, ptrdiff_t channel) {
    const ptrdiff_t out = position * run->channels + channel;
    return (struct vectors){.x = run->x + position * run->x_step + channel,
                            .y = run->y + out,
                            .index = numbered ? run->index + (wide ? 4 : 1) * out : NULL,
                            .x_step = beside ? run->x_step : FNN_LANES,
                            .y_step = beside ? run->channels : FNN_LANES};
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
static __attribute__((noinline)) void pool_exactly(const struct run *run, bool beside, int count, ptrdiff_t n,
                                                   ptrdiff_t position, ptrdiff_t channel) {
    const struct taps_inside *taps = &run->taps;
    const struct vectors of = vectors_at(run->wide, run->index, beside, run, position, channel);
    for (int v = 0; v < count; v++) {
        vec best = vec_set1(-__builtin_inff());
        ivec where = ivec_set1((uint32_t)(taps->rows.begin * taps->kernel_width + taps->columns.begin));
        for (ptrdiff_t r = taps->rows.begin; r < taps->rows.end; r++)
            for (ptrdiff_t s = taps->columns.begin; s < taps->columns.end; s++) {
                vec seen = load_lanes(of.x + v * of.x_step + r * taps->row_step + s * taps->column_step, n);
                mask better = mask_or(vec_less(best, seen), vec_is_nan(seen));
                best = vec_select(better, seen, best);
                where = ivec_select(better, ivec_set1((uint32_t)(r * taps->kernel_width + s)), where);
            }
        store_lanes(of.y + v * of.y_step, best, n);
        if (run->index) store_index(run->wide, of.index, v * of.y_step, where, n);
    }
}

/* Windows with one tap inside or more; square: 0, or all of them have square x square taps, all inside. Vectors are stored in
 * their order: what one runs over is written again by the next. */
FNN_INLINE void pool_vectors(const bool numbered, const int square, const bool beside, const int count,
                             const ptrdiff_t n, const struct run *run, ptrdiff_t position, ptrdiff_t channel) {
    const bool wide = !square && run->wide;
    const struct vectors of = vectors_at(wide, numbered, beside, run, position, channel);
    vec best[FORWARD_VECTORS], sum[FORWARD_VECTORS], all;
    ivec where[FORWARD_VECTORS];
    if (square)
        largest_of_square(square, numbered, count, n, &of, &run->taps, best, where, sum);
    else
        largest_taps(numbered, count, n, &of, &run->taps, best, where, sum);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        put_lanes(run->stream, of.y + v * of.y_step, best[v], n);
        if (numbered) store_index(wide, of.index, v * of.y_step, where[v], n);
    }
    all = count == 1 ? sum[0] : vec_add(sum[0], sum[1]);
    if (count > 1 && sums_of(numbered, square) > 2) all = vec_add(all, vec_add(sum[2], sum[3]));
    if (mask_bits(vec_is_nan(all))) pool_exactly(run, beside, count, n, position, channel);
}

/* Groups of FORWARD_VECTORS vectors of one position's channels; returns the first channel that is left. Nine taps without numbers
 * are faster as a loop. */
FNN_INLINE ptrdiff_t pool_many_channels(const bool numbered, const int square, const struct run *run) {
    const ptrdiff_t group = FORWARD_VECTORS * FNN_LANES, end = run->channels / group * group;
    const int unrolled = numbered || square == 2 ? square : 0;
    for (ptrdiff_t i = 0; i < run->count && end; i++)
        for (ptrdiff_t c = 0; c < end; c += group)
            pool_vectors(numbered, unrolled, false, FORWARD_VECTORS, FNN_LANES, run, i, c);
    return end;
}

/* Channels from `begin` on, in FORWARD_VECTORS positions at a time; the last vector ends with the last channel. */
FNN_INLINE void pool_some_channels(const bool numbered, const int square, const struct run *run, ptrdiff_t begin) {
    for (ptrdiff_t c0 = begin; c0 < run->channels; c0 += FNN_LANES) {
        ptrdiff_t i = 0, c = fnn_min(c0, run->channels - FNN_LANES);
        for (; i + FORWARD_VECTORS <= run->count; i += FORWARD_VECTORS)
            pool_vectors(numbered, square, true, FORWARD_VECTORS, FNN_LANES, run, i, c);
        for (; i < run->count; i++) pool_vectors(numbered, square, true, 1, FNN_LANES, run, i, c);
    }
}

/* Less than a vector of channels: whole vectors where there is room. */
FNN_INLINE void pool_few_channels(const bool numbered, const int square, const struct run *run) {
    ptrdiff_t i = 0;
    for (; i + FORWARD_VECTORS <= run->room; i += FORWARD_VECTORS)
        pool_vectors(numbered, square, true, FORWARD_VECTORS, FNN_LANES, run, i, 0);
    for (; i < run->room; i++) pool_vectors(numbered, square, true, 1, FNN_LANES, run, i, 0);
    for (; i < run->count; i++) pool_vectors(numbered, square, true, 1, run->channels, run, i, 0);
}

/* A run whose windows have a tap inside. */
FNN_INLINE void pool_run(const bool numbered, const int square, const struct run *restrict run) {
    if (run->channels < FNN_LANES)
        pool_few_channels(numbered, square, run);
    else
        pool_some_channels(numbered, square, run, pool_many_channels(numbered, square, run));
}

/* Functions of their own, lest the loops of one take registers from another's. */
typedef void pool_run_function(const struct run *restrict run);
static __attribute__((noinline)) void pool_2x2(const struct run *restrict run) { pool_run(false, 2, run); }
static __attribute__((noinline)) void pool_3x3(const struct run *restrict run) { pool_run(false, 3, run); }
static __attribute__((noinline)) void pool_any(const struct run *restrict run) { pool_run(false, 0, run); }
static __attribute__((noinline)) void pool_2x2_index(const struct run *restrict run) { pool_run(true, 2, run); }
static __attribute__((noinline)) void pool_3x3_index(const struct run *restrict run) { pool_run(true, 3, run); }
static __attribute__((noinline)) void pool_any_index(const struct run *restrict run) { pool_run(true, 0, run); }

/* Windows without a tap inside. */
static void pool_nothing(const struct run *run) {
    const ptrdiff_t count = run->count * run->channels;
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        store_lanes(run->y + i, vec_set1(-__builtin_inff()), n);
        if (run->index) store_index(run->wide, run->index, i, ivec_set1(NO_TAP), n);
    }
}

static pool_run_function *function_for(const struct fnn_max_pool2d_forward_args *args, bool whole) {
    const ptrdiff_t height = args->kernel_height, width = args->kernel_width;
    const ptrdiff_t square = whole && height == width ? height : 0;
    if (!args->index) return square == 2 ? pool_2x2 : square == 3 ? pool_3x3 : pool_any;
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
    const ptrdiff_t size = args->batch * args->out_height * args->out_width * channels;
    struct run run = {.wide = wide,
                      .stream = channels % FNN_LANES == 0 && streams(args->x, args->y, size),
                      .channels = channels,
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
                pool_nothing(&run);
            else
                (whole_columns && rows.end - rows.begin == args->kernel_height ? whole : part)(&run);
        }
    }
}

void FNN_FUNCTION(max_pool2d_forward)(const struct fnn_max_pool2d_forward_args *args, const struct fnn_team *team) {
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(args->batch * args->out_height, 1, team); fnn_take(&work, &rows);)
        pool_rows(args, rows);
    vec_fence();
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
