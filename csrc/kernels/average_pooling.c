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

/* Vectors of channels that are summed side by side: all of a pixel's 64 channels, if they are so many. */
enum { GROUP_VECTORS = FNN_LANES == 8 ? 8 : 4, CHANNEL_GROUP = GROUP_VECTORS * FNN_LANES };

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

/* Sum of a window for `vectors` vectors of channels, the last one of n lanes. */
FNN_INLINE void average_window(const int vectors, ptrdiff_t n, const float *x, ptrdiff_t row_stride, ptrdiff_t channels,
                               struct fnn_range rows, struct fnn_range columns, float divisor, float *y) {
    vec total[GROUP_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) total[v] = vec_zero();
    for (ptrdiff_t h = rows.begin; h < rows.end; h++) {
        vec sum[GROUP_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
        for (ptrdiff_t w = columns.begin; w < columns.end; w++) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[v] = vec_add(sum[v], load_lanes(x + h * row_stride + w * channels + v * FNN_LANES, n));
        }
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) total[v] = vec_add(total[v], sum[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) store_lanes(y + v * FNN_LANES, vec_div(total[v], vec_set1(divisor)), n);
}

/* Units of work are (image, p, group of channels): a global pool of one image still has work for several threads. */
static void average_forward(const struct pool *pool, const float *x, float *y, const struct fnn_team *team) {
    ptrdiff_t height = pool->vertical.window.size, width = pool->horizontal.window.size, channels = pool->channels;
    ptrdiff_t out_height = pool->vertical.window.out_size, out_width = pool->horizontal.window.out_size;
    ptrdiff_t groups = fnn_ceil_div(channels, CHANNEL_GROUP);
    struct fnn_range range = fnn_share(pool->batch * out_height * groups, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t c0 = i % groups * CHANNEL_GROUP, p = i / groups % out_height, image = i / groups / out_height;
        ptrdiff_t c1 = fnn_min(c0 + CHANNEL_GROUP, channels);
        struct fnn_range rows = pool_window(&pool->vertical, p);
        const float *from = x + image * height * width * channels;
        for (ptrdiff_t q = 0; q < out_width; q++) {
            struct fnn_range columns = pool_window(&pool->horizontal, q);
            ptrdiff_t extent = pool_extent(&pool->vertical, p) * pool_extent(&pool->horizontal, q);
            float divisor = (float)(pool->divisor ? pool->divisor : extent);
            float *to = y + ((image * out_height + p) * out_width + q) * channels;
            if (c1 - c0 == CHANNEL_GROUP)
                average_window(GROUP_VECTORS, FNN_LANES, from + c0, width * channels, channels, rows, columns, divisor,
                               to + c0);
            else
                for (ptrdiff_t c = c0; c < c1; c += FNN_LANES)
                    average_window(1, lanes_left(c1 - c), from + c, width * channels, channels, rows, columns, divisor,
                                   to + c);
        }
    }
}

/* dx += share * dy for the elements of one window in one row of the image; those from `fresh` on are set instead. */
FNN_INLINE void spread_window(bool stream, const float *dy, float share, float *dx, ptrdiff_t channels,
                              struct fnn_range columns, ptrdiff_t fresh) {
    for (ptrdiff_t w = columns.begin; w < columns.end; w++)
        for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
            ptrdiff_t i = w * channels + c, n = lanes_left(channels - c);
            vec gradient = vec_mul(load_lanes(dy + c, n), vec_set1(share));
            if (w < fresh) gradient = vec_add(load_lanes(dx + i, n), gradient);
            put_lanes(stream, dx + i, gradient, n);
        }
}

/* Each row of the image gathers from the windows that hold it; its elements before `written` have their first term. */
static void average_backward(const struct pool *pool, const float *dy, float *dx, const struct fnn_team *team) {
    ptrdiff_t height = pool->vertical.window.size, width = pool->horizontal.window.size, channels = pool->channels;
    ptrdiff_t out_height = pool->vertical.window.out_size, out_width = pool->horizontal.window.out_size;
    struct fnn_range range = fnn_share(pool->batch * height, team);
    const bool once = written_once(&pool->vertical) && written_once(&pool->horizontal);
    const bool stream = once && channels % FNN_LANES == 0 && streams(dy, dx, pool->batch * height * width * channels);
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
                spread_window(stream, dy + ((image * out_height + p) * out_width + q) * channels, share, row, channels,
                              columns, fresh);
                written = fnn_max(written, columns.end);
            }
            written = clear_to(row, channels, written, width);
        }
        clear_to(row, channels, written, width);
    }
    vec_fence();
}

#define SLIDING_POOL(args)                                                                                 \
    {.vertical = {{args->height, args->out_height, args->kernel_height, args->stride_h, 1, args->pad_top}, \
                  args->count_include_pad != 0},                                                           \
     .horizontal = {{args->width, args->out_width, args->kernel_width, args->stride_w, 1, args->pad_left}, \
                    args->count_include_pad != 0},                                                         \
     .batch = args->batch,                                                                                 \
     .channels = args->channels,                                                                           \
     .divisor = args->divisor}

#define ADAPTIVE_POOL(args)                                                        \
    {.vertical = {.window = {.size = args->height, .out_size = args->out_height}}, \
     .horizontal = {.window = {.size = args->width, .out_size = args->out_width}}, \
     .batch = args->batch,                                                         \
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
