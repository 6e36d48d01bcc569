/* Average pooling over sliding windows and to a given size, backward, channels-last: windows as in average_pooling.h.
 *
 *     dx[h,w] = sum over the windows (p,q) that hold the element of dy[p,q] / divisor
 *
 * Where windows overlap, the sums over p are made first, a row of them in `workspace`, then those over q: the error of dx is at
 * most (windows that hold the element + 2) eps * sum |dy| / divisor, eps = 2^-24. Outputs must not overlap inputs.
 * workspace: for each thread a row of dy and a vector. Parallel over rows of dx. */
#include <string.h>

#include "average_pooling.h"
#include "lanes.h"

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

/* Elements a window up to which dx is streamed: past the caches memory takes no more where there is little to read besides. */
enum { STREAMED_AREA = 8 };

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
    const ptrdiff_t size = pool->batch * height * width * channels;
    const bool stream =
        channels % FNN_LANES == 0 && height * width <= STREAMED_AREA * out_height * out_width && streams(dy, dx, size);
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

/* Rows of dy that are added at a time. */
enum { ROWS_BESIDE = 4 };

/* sum = (0, or sum as it was) + shares[0] * dy[0] + shares[1] * dy[1] + ... for `count` floats of `rows` rows, dy_step apart. */
FNN_INLINE void add_rows(const int rows, const bool first, const float *dy, ptrdiff_t dy_step, const float *shares,
                         ptrdiff_t count, float *sum) {
    vec share[ROWS_BESIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) share[r] = vec_set1(shares[r]);
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        const ptrdiff_t n = lanes_left(count - i);
        vec total = first ? vec_mul(share[0], load_lanes(dy + i, n)) : load_lanes(sum + i, n);
#pragma GCC unroll 4
        for (int r = first; r < rows; r++) total = vec_fma(share[r], load_lanes(dy + r * dy_step + i, n), total);
        store_lanes(sum + i, total, n);
    }
}

typedef void add_rows_function(const float *dy, ptrdiff_t dy_step, const float *shares, ptrdiff_t count, float *sum);

#define ADD_ROWS(rows, first, name)                                                                          \
    static void name(const float *dy, ptrdiff_t dy_step, const float *shares, ptrdiff_t count, float *sum) { \
        add_rows(rows, first, dy, dy_step, shares, count, sum);                                              \
    }
ADD_ROWS(1, true, set_1)
ADD_ROWS(2, true, set_2)
ADD_ROWS(3, true, set_3)
ADD_ROWS(4, true, set_4)
ADD_ROWS(1, false, add_1)
ADD_ROWS(2, false, add_2)
ADD_ROWS(3, false, add_3)
ADD_ROWS(4, false, add_4)

/* sum (Q,C) = sum over p of dy[p] / divisor, dy being its image. */
static void sum_rows(const struct pool *pool, const float *dy, struct fnn_range rows, float *sum) {
    static add_rows_function *const functions[2][ROWS_BESIDE] = {{add_1, add_2, add_3, add_4},
                                                                 {set_1, set_2, set_3, set_4}};
    const ptrdiff_t channels = pool->channels, out_width = pool->horizontal.window.out_size;
    for (ptrdiff_t q = 0, next; q < out_width; q = next) { /* windows of the same extent together */
        const ptrdiff_t extent = pool_extent(&pool->horizontal, q);
        for (next = q + 1; next < out_width && pool_extent(&pool->horizontal, next) == extent;) next++;
        for (ptrdiff_t p = rows.begin, count; p < rows.end; p += count) {
            float shares[ROWS_BESIDE];
            count = fnn_min(ROWS_BESIDE, rows.end - p);
            for (ptrdiff_t r = 0; r < count; r++) {
                ptrdiff_t divisor = pool->divisor;
                if (!divisor) divisor = pool_extent(&pool->vertical, p + r) * extent;
                shares[r] = 1.0f / (float)divisor;
            }
            functions[p == rows.begin][count - 1](dy + (p * out_width + q) * channels, out_width * channels, shares,
                                                  (next - q) * channels, sum + q * channels);
        }
    }
}

/* dx[i] = sum[i] + sum[i + step] + ..., `terms` of them, for i < count; up to `room` floats of dx may be written. */
FNN_INLINE void add_columns(const ptrdiff_t terms, const float *sum, ptrdiff_t step, ptrdiff_t count, ptrdiff_t room,
                            bool stream, float *dx) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        vec total = vec_load(sum + i);
        for (ptrdiff_t t = 1; t < terms; t++) total = vec_add(total, vec_load(sum + t * step + i));
        put_lanes(stream, dx + i, total, lanes_left(room - i));
    }
}

static void add_columns_of(ptrdiff_t terms, const float *sum, ptrdiff_t step, ptrdiff_t count, ptrdiff_t room,
                           bool stream, float *dx) {
    switch (terms) {
    case 1: add_columns(1, sum, step, count, room, stream, dx); break;
    case 2: add_columns(2, sum, step, count, room, stream, dx); break;
    case 3: add_columns(3, sum, step, count, room, stream, dx); break;
    default: add_columns(terms, sum, step, count, room, stream, dx); break;
    }
}

/* Makes `held`, the windows that hold an element before w, those that hold element w: pool_holders without its divisions. */
static void advance_holders(const struct pool_axis *axis, ptrdiff_t w, struct fnn_range *held) {
    const ptrdiff_t start = w + axis->window.pad, stride = axis->window.stride;
    if (axis->window.kernel == 0) {
        *held = pool_holders(axis, w);
        return;
    }
    while (held->end < axis->window.out_size && held->end * stride <= start) held->end++;
    while (held->begin < held->end && held->begin * stride + axis->window.kernel <= start) held->begin++;
}

/* One past the last element of those from w on that are held by as many windows, each by the next ones. */
static ptrdiff_t run_end(const struct window_axis *axis, ptrdiff_t w) {
    const ptrdiff_t first = axis->kernel - 1 - axis->pad, last = axis->out_size - axis->pad;
    return axis->kernel && axis->stride == 1 && w >= first && w < last ? fnn_min(last, axis->size) : w + 1;
}

/* A row of dx from the sums (Q,C) over rows of dy, behind which is a vector. Elements are written in order, so that a vector may run
 * over into those that follow. */
static void spread_row(const struct pool *pool, const float *sum, bool stream, float *dx) {
    const ptrdiff_t width = pool->horizontal.window.size, channels = pool->channels;
    struct fnn_range columns = {0, 0};
    for (ptrdiff_t w = 0, end; w < width; w = end) {
        advance_holders(&pool->horizontal, w, &columns);
        end = run_end(&pool->horizontal.window, w);
        if (columns.begin < columns.end)
            add_columns_of(columns.end - columns.begin, sum + columns.begin * channels, channels, (end - w) * channels,
                           (width - w) * channels, stream, dx + w * channels);
        else
            clear_to(dx, channels, w, end);
    }
}

/* Each row of the image gathers from the windows that hold it. */
static void average_backward_overlapping(const struct pool *pool, const float *dy, float *dx, float *sum,
                                         struct fnn_range range) {
    const ptrdiff_t height = pool->vertical.window.size, width = pool->horizontal.window.size;
    const ptrdiff_t row = width * pool->channels, sums = pool->horizontal.window.out_size * pool->channels;
    const bool stream = pool->channels % FNN_LANES == 0 && streams(dy, dx, pool->batch * height * row);
    vec_store(sum + sums, vec_zero());
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const struct fnn_range rows = pool_holders(&pool->vertical, i % height);
        if (rows.begin < rows.end) {
            sum_rows(pool, dy + i / height * pool->vertical.window.out_size * sums, rows, sum);
            spread_row(pool, sum, stream, dx + i * row);
        } else {
            clear_to(dx + i * row, pool->channels, 0, width);
        }
    }
    vec_fence();
}

static void average_backward(const struct pool *pool, const float *dy, float *dx, float *workspace,
                             const struct fnn_team *team) {
    const bool once = written_once(&pool->vertical) && written_once(&pool->horizontal) && pool->channels > 0;
    float *sum = workspace + team->rank * (pool->horizontal.window.out_size * pool->channels + FNN_LANES);
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(pool->batch * pool->vertical.window.size, 1, team); fnn_take(&work, &rows);)
        if (once)
            average_backward_once(pool, dy, dx, rows);
        else
            average_backward_overlapping(pool, dy, dx, sum, rows);
}

void FNN_FUNCTION(avg_pool2d_backward)(const struct fnn_avg_pool2d_backward_args *args, const struct fnn_team *team) {
    const struct pool pool = SLIDING_POOL(args);
    average_backward(&pool, args->dy, args->dx, args->workspace, team);
}

void FNN_FUNCTION(adaptive_avg_pool2d_backward)(const struct fnn_adaptive_avg_pool2d_backward_args *args,
                                                const struct fnn_team *team) {
    const struct pool pool = ADAPTIVE_POOL(args);
    average_backward(&pool, args->dy, args->dx, args->workspace, team);
}
