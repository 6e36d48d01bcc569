/* Average pooling over sliding windows and to a given size, forward and backward, channels-last.
 *
 * x, dx (N,H,W,C); y, dy (N,P,Q,C). Windows are ranges of rows times ranges of columns:
 *   sliding:  window p covers p*stride_h - pad_top and the R - 1 rows after it; the divisor is, per axis, the extent clipped to
 *             the padded image (count_include_pad) or to the image, or the given one where divisor is not 0;
 *   adaptive: window p covers floor(p*H/P) to ceil((p+1)*H/P), end excluded; the divisor is its size.
 * Rows of a window are summed one by one, then their sums: with a window of R*S elements the error of y is at most
 * (R + S + 1) eps * mean |x|, that of dx (windows that hold the element + 2) eps * sum |dy| / divisor, eps = 2^-24.
 * Outputs must not overlap inputs. Parallel over rows (and, forward, groups of channels) of the image that is written. */
#include "lanes.h"
#include "window.h"

/* Vectors that are summed side by side: all of a pixel's 64 channels, if they are so many; else those of POSITIONS windows. */
enum { GROUP_VECTORS = FNN_LANES == 8 ? 8 : 4, CHANNEL_GROUP = GROUP_VECTORS * FNN_LANES, POSITIONS = 4 };

/* One axis of either kind: begin, end of window p within the image, and its extent for the divisor. */
struct pool_axis {
    struct window_axis window; /* kernel 0: adaptive */
    bool include_pad;
};

static inline struct fnn_range pool_window(const struct pool_axis *axis, ptrdiff_t p) {
    ptrdiff_t size = axis->window.size, out_size = axis->window.out_size;
    if (axis->window.kernel == 0)
        return (struct fnn_range){p * size / out_size, fnn_ceil_div((p + 1) * size, out_size)};
    ptrdiff_t start = p * axis->window.stride - axis->window.pad;
    ptrdiff_t begin = fnn_max(start, 0), end = fnn_min(start + axis->window.kernel, size);
    return (struct fnn_range){begin, fnn_max(begin, end)};
}

static inline ptrdiff_t pool_extent(const struct pool_axis *axis, ptrdiff_t p) {
    if (axis->window.kernel == 0 || !axis->include_pad) {
        struct fnn_range window = pool_window(axis, p);
        return window.end - window.begin;
    }
    ptrdiff_t start = p * axis->window.stride - axis->window.pad;
    return fnn_min(start + axis->window.kernel, axis->window.size + axis->window.pad) - start;
}

/* The windows that hold element h. */
static inline struct fnn_range pool_holders(const struct pool_axis *axis, ptrdiff_t h) {
    ptrdiff_t size = axis->window.size, out_size = axis->window.out_size;
    if (axis->window.kernel == 0)
        return (struct fnn_range){h * out_size / size, fnn_ceil_div((h + 1) * out_size, size)};
    return window_positions(&axis->window, h);
}

/* Whether no two windows share an element. */
static inline bool written_once(const struct pool_axis *axis) {
    if (axis->window.kernel == 0) return axis->window.size % axis->window.out_size == 0;
    return axis->window.kernel <= axis->window.stride;
}

struct pool {
    struct pool_axis vertical, horizontal;
    ptrdiff_t batch, channels, divisor;
};

/* Positions of one row of the output whose windows have the same size, x at the first element of the first of them; `group` of
 * their channels. */
struct run {
    const float *x;
    float *y;
    ptrdiff_t count, group, channels, row_step, x_step; /* x_step: from one window to the next */
    ptrdiff_t room; /* of the first `room` positions a vector may run over into the next ones */
    ptrdiff_t rows, columns;
    float divisor;
    bool exact; /* 1 / divisor is */
};

/* Windows of `vectors` vectors, n lanes each, x_step and y_step apart; square: 0, or the rows and columns of each. Vectors are
 * stored in their order: what one runs over is written again by the next. */
FNN_INLINE void average_vectors(const int square, const int vectors, const ptrdiff_t n, const struct run *restrict run,
                                const float *x, ptrdiff_t x_step, float *y, ptrdiff_t y_step) {
    const ptrdiff_t rows = square ? square : run->rows, columns = square ? square : run->columns;
    vec total[GROUP_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) total[v] = vec_zero();
#pragma GCC unroll 3
    for (ptrdiff_t h = 0; h < rows; h++) {
        vec sum[GROUP_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
#pragma GCC unroll 3
        for (ptrdiff_t w = 0; w < columns; w++) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[v] = vec_add(sum[v], load_lanes(x + h * run->row_step + w * run->channels + v * x_step, n));
        }
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) total[v] = vec_add(total[v], sum[v]);
    }
    const vec divisor = vec_set1(run->divisor), factor = vec_set1(1.0f / run->divisor);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        vec mean = run->exact ? vec_mul(total[v], factor) : vec_div(total[v], divisor);
        store_lanes(y + v * y_step, mean, n);
    }
}

/* n channels from c on, of all positions from `i` on. */
FNN_INLINE void average_positions(const int square, const ptrdiff_t n, const struct run *restrict run, ptrdiff_t c,
                                  ptrdiff_t i, ptrdiff_t end) {
    const float *x = run->x + i * run->x_step + c;
    float *y = run->y + i * run->channels + c;
    for (; i + POSITIONS <= end; i += POSITIONS, x += POSITIONS * run->x_step, y += POSITIONS * run->channels)
        average_vectors(square, POSITIONS, n, run, x, run->x_step, y, run->channels);
    for (; i < end; i++, x += run->x_step, y += run->channels) average_vectors(square, 1, n, run, x, 0, y, 0);
}

FNN_INLINE void average_run(const int square, const struct run *restrict run) {
    if (run->group == CHANNEL_GROUP) {
        for (ptrdiff_t i = 0; i < run->count; i++)
            average_vectors(square, GROUP_VECTORS, FNN_LANES, run, run->x + i * run->x_step, FNN_LANES,
                            run->y + i * run->channels, FNN_LANES);
    } else if (run->group >= FNN_LANES) { /* the last vector ends with the last channel */
        for (ptrdiff_t c = 0; c < run->group; c += FNN_LANES)
            average_positions(square, FNN_LANES, run, fnn_min(c, run->group - FNN_LANES), 0, run->count);
    } else {
        average_positions(square, FNN_LANES, run, 0, 0, run->room);
        average_positions(square, run->group, run, 0, run->room, run->count);
    }
}

/* Functions of their own, lest the loops of one take registers from another's. */
static __attribute__((noinline)) void average_2x2(const struct run *restrict run) { average_run(2, run); }
static __attribute__((noinline)) void average_3x3(const struct run *restrict run) { average_run(3, run); }
static __attribute__((noinline)) void average_any(const struct run *restrict run) { average_run(0, run); }

/* The columns from q on whose windows have the same size, and that size. */
static struct fnn_range average_columns(const struct pool_axis *axis, ptrdiff_t q, ptrdiff_t whole_end,
                                        struct run *run) {
    struct fnn_range columns = pool_window(axis, q);
    run->columns = columns.end - columns.begin;
    run->count = axis->window.kernel && run->columns == axis->window.kernel ? whole_end - q : 1;
    return columns;
}

/* Units of work are (image, p, group of channels): a global pool of one image still has work for several threads. */
static ptrdiff_t channel_groups(const struct pool *pool) { return fnn_ceil_div(pool->channels, CHANNEL_GROUP); }

/* Groups of channels of rows of y. */
FNN_INLINE void average_rows(const struct pool *pool, const float *x, float *y, struct fnn_range range) {
    const struct pool_axis *vertical = &pool->vertical, *horizontal = &pool->horizontal;
    ptrdiff_t height = vertical->window.size, width = horizontal->window.size, channels = pool->channels;
    ptrdiff_t out_height = vertical->window.out_size, out_width = horizontal->window.out_size;
    const ptrdiff_t groups = channel_groups(pool);
    const ptrdiff_t whole_end = horizontal->window.kernel ? window_whole_end(&horizontal->window) : 0;
    const ptrdiff_t roomy = channels < FNN_LANES && horizontal->window.kernel && groups
                                ? window_room_end(&horizontal->window, fnn_ceil_div(FNN_LANES, channels))
                                : 0;
    struct run run = {.channels = channels, .row_step = width * channels};
    run.x_step = horizontal->window.stride * channels;
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t c0 = i % groups * CHANNEL_GROUP, p = i / groups % out_height, image = i / groups / out_height;
        struct fnn_range rows = pool_window(vertical, p);
        ptrdiff_t row_extent = pool_extent(vertical, p);
        run.group = fnn_min(CHANNEL_GROUP, channels - c0);
        run.rows = rows.end - rows.begin;
        for (ptrdiff_t q = 0; q < out_width; q += run.count) {
            struct fnn_range columns = average_columns(horizontal, q, whole_end, &run);
            ptrdiff_t divisor = pool->divisor ? pool->divisor : row_extent * pool_extent(horizontal, q);
            run.room = fnn_max(0, fnn_min(roomy - q, run.count));
            run.divisor = (float)divisor;
            run.exact = divisor > 0 && (divisor & (divisor - 1)) == 0;
            run.x = x + ((image * height + rows.begin) * width + columns.begin) * channels + c0;
            run.y = y + ((image * out_height + p) * out_width + q) * channels + c0;
            if (run.rows == 2 && run.columns == 2)
                average_2x2(&run);
            else if (run.rows == 3 && run.columns == 3)
                average_3x3(&run);
            else
                average_any(&run);
        }
    }
}

static void average_forward(const struct pool *pool, const float *x, float *y, const struct fnn_team *team) {
    const ptrdiff_t rows = pool->batch * pool->vertical.window.out_size;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(rows * channel_groups(pool), 1, team); fnn_take(&work, &range);)
        average_rows(pool, x, y, range);
}

/* dx += share * dy for the elements of one window in one row of the image; those from `fresh` on are set instead. */
FNN_INLINE void spread_window(const float *dy, float share, float *dx, ptrdiff_t channels, struct fnn_range columns,
                              ptrdiff_t fresh) {
    for (ptrdiff_t w = columns.begin; w < columns.end; w++)
        for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
            ptrdiff_t i = w * channels + c, n = lanes_left(channels - c);
            vec gradient = vec_mul(load_lanes(dy + c, n), vec_set1(share));
            if (w < fresh) gradient = vec_add(load_lanes(dx + i, n), gradient);
            store_lanes(dx + i, gradient, n);
        }
}

/* Channels of one element that belongs to one window: dx = share * dy. */
FNN_INLINE void spread_position(const float *dy, float share, ptrdiff_t channels, bool roomy, bool stream, float *dx) {
    const vec factor = vec_set1(share);
    if (channels < FNN_LANES) {
        if (roomy)
            vec_store(dx, vec_mul(vec_load(dy), factor));
        else
            vec_store_partial(dx, vec_mul(vec_load_partial(dy, channels), factor), channels);
        return;
    }
    for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) { /* the last vector ends with the last channel */
        ptrdiff_t at = fnn_min(c, channels - FNN_LANES);
        put_lanes(stream, dx + at, vec_mul(vec_load(dy + at), factor), FNN_LANES);
    }
}

/* Windows side by side, less than a vector of channels and room for one. */
static void spread_run(const float *dy, float share, ptrdiff_t channels, ptrdiff_t count, ptrdiff_t columns,
                       float *dx) {
    for (ptrdiff_t q = 0; q < count; q++, dy += channels) {
        const vec gradient = vec_mul(vec_load(dy), vec_set1(share));
        for (ptrdiff_t w = 0; w < columns; w++, dx += channels) vec_store(dx, gradient);
    }
}

/* average_backward where no two windows share an element: every one is written once, in order, so that a vector may run over
 * into those that follow. */
FNN_INLINE void average_backward_once(const struct pool *pool, const float *dy, float *dx, struct fnn_range range) {
    const struct pool_axis *vertical = &pool->vertical, *horizontal = &pool->horizontal;
    ptrdiff_t height = vertical->window.size, width = horizontal->window.size, channels = pool->channels;
    ptrdiff_t out_height = vertical->window.out_size, out_width = horizontal->window.out_size;
    const ptrdiff_t pixels = fnn_ceil_div(FNN_LANES, channels);
    const struct fnn_range run = channels < FNN_LANES && horizontal->window.kernel
                                     ? window_gapless(&horizontal->window, pixels)
                                     : (struct fnn_range){0, 0};
    const bool stream = channels % FNN_LANES == 0 && streams(dy, dx, pool->batch * height * width * channels);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t written = 0, p = pool_holders(vertical, i % height).begin, last_divisor = 0;
        bool held = p < pool_holders(vertical, i % height).end;
        const float *from = dy + (i / height * out_height + p) * out_width * channels;
        float *row = dx + i * width * channels, share = 0.0f;
        for (ptrdiff_t q = 0; held && q < out_width; q++) {
            struct fnn_range columns = pool_window(horizontal, q);
            ptrdiff_t divisor = pool->divisor;
            if (!divisor) divisor = pool_extent(vertical, p) * pool_extent(horizontal, q);
            if (divisor != last_divisor) share = 1.0f / (float)divisor;
            last_divisor = divisor;
            if (q == run.begin && run.begin < run.end) {
                spread_run(from + q * channels, share, channels, run.end - q, horizontal->window.kernel,
                           row + columns.begin * channels);
                q = run.end - 1;
                written = pool_window(horizontal, q).end;
                continue;
            }
            clear_to(row, channels, written, columns.begin);
            for (ptrdiff_t w = columns.begin; w < columns.end; w++)
                spread_position(from + q * channels, share, channels, fnn_min(width - w, out_width - q) >= pixels,
                                stream, row + w * channels);
            written = fnn_max(written, columns.end);
        }
        clear_to(row, channels, written, width);
    }
    vec_fence();
}

/* Each row of the image gathers from the windows that hold it; its elements before `written` have their first term. */
FNN_INLINE void average_backward_gathered(const struct pool *pool, const float *dy, float *dx, struct fnn_range range) {
    ptrdiff_t height = pool->vertical.window.size, width = pool->horizontal.window.size, channels = pool->channels;
    ptrdiff_t out_height = pool->vertical.window.out_size, out_width = pool->horizontal.window.out_size;
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t image = i / height, written = 0;
        struct fnn_range rows = pool_holders(&pool->vertical, i % height);
        float *row = dx + i * width * channels;
        for (ptrdiff_t p = rows.begin; p < rows.end; p++) {
            for (ptrdiff_t q = 0; q < out_width; q++) {
                struct fnn_range columns = pool_window(&pool->horizontal, q);
                ptrdiff_t extent = pool_extent(&pool->vertical, p) * pool_extent(&pool->horizontal, q);
                float share = 1.0f / (float)(pool->divisor ? pool->divisor : extent);
                written = clear_to(row, channels, written, columns.begin);
                ptrdiff_t fresh = fnn_max(columns.begin, fnn_min(written, columns.end));
                spread_window(dy + ((image * out_height + p) * out_width + q) * channels, share, row, channels, columns,
                              fresh);
                written = fnn_max(written, columns.end);
            }
            written = clear_to(row, channels, written, width);
        }
        clear_to(row, channels, written, width);
    }
}

static void average_backward(const struct pool *pool, const float *dy, float *dx, const struct fnn_team *team) {
    const bool once = written_once(&pool->vertical) && written_once(&pool->horizontal) && pool->channels > 0;
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(pool->batch * pool->vertical.window.size, 1, team); fnn_take(&work, &rows);)
        if (once)
            average_backward_once(pool, dy, dx, rows);
        else
            average_backward_gathered(pool, dy, dx, rows);
}

/* Where the sizes divide, a sliding window. */
static struct pool_axis adaptive_axis(ptrdiff_t size, ptrdiff_t out_size) {
    const ptrdiff_t kernel = size % out_size == 0 ? size / out_size : 0;
    return (struct pool_axis){
        .window = {.size = size, .out_size = out_size, .kernel = kernel, .stride = kernel, .dilation = 1}};
}

#define SLIDING_POOL(args)                                                                                 \
    {.vertical = {{args->height, args->out_height, args->kernel_height, args->stride_h, 1, args->pad_top}, \
                  args->count_include_pad != 0},                                                           \
     .horizontal = {{args->width, args->out_width, args->kernel_width, args->stride_w, 1, args->pad_left}, \
                    args->count_include_pad != 0},                                                         \
     .batch = args->batch,                                                                                 \
     .channels = args->channels,                                                                           \
     .divisor = args->divisor}

#define ADAPTIVE_POOL(args)                                     \
    {.vertical = adaptive_axis(args->height, args->out_height), \
     .horizontal = adaptive_axis(args->width, args->out_width), \
     .batch = args->batch,                                      \
     .channels = args->channels}

void FNN_FUNCTION(avg_pool2d_forward)(const struct fnn_avg_pool2d_forward_args *args, const struct fnn_team *team) {
    const struct pool pool = SLIDING_POOL(args);
    average_forward(&pool, args->x, args->y, team);
}

void FNN_FUNCTION(avg_pool2d_backward)(const struct fnn_avg_pool2d_backward_args *args, const struct fnn_team *team) {
    const struct pool pool = SLIDING_POOL(args);
    average_backward(&pool, args->dy, args->dx, team);
}

void FNN_FUNCTION(adaptive_avg_pool2d_forward)(const struct fnn_adaptive_avg_pool2d_forward_args *args,
                                               const struct fnn_team *team) {
    const struct pool pool = ADAPTIVE_POOL(args);
    average_forward(&pool, args->x, args->y, team);
}

void FNN_FUNCTION(adaptive_avg_pool2d_backward)(const struct fnn_adaptive_avg_pool2d_backward_args *args,
                                                const struct fnn_team *team) {
    const struct pool pool = ADAPTIVE_POOL(args);
    average_backward(&pool, args->dy, args->dx, team);
}
