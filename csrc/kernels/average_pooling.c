/* Average pooling over sliding windows and to a given size, forward, channels-last: windows as in average_pooling.h.
 *
 * Rows of a window are summed one by one, then their sums: with a window of R*S elements the error of y is at most
 * (R + S + 1) eps * mean |x|, eps = 2^-24. Outputs must not overlap inputs. Parallel over rows and groups of channels of y. */
#include "average_pooling.h"
#include "lanes.h"

/* Vectors that are summed side by side: all of a pixel's 64 channels, if they are so many; else those of POSITIONS windows. */
enum { GROUP_VECTORS = FNN_LANES == 8 ? 8 : 4, CHANNEL_GROUP = GROUP_VECTORS * FNN_LANES, POSITIONS = 4 };

/* Positions of one row of the output whose windows have the same size, x at the first element of the first of them; `group` of
 * their channels. */
struct run {
    const float *x;
    float *y;
    ptrdiff_t count, group, channels, row_step, x_step; /* x_step: from one window to the next */
    ptrdiff_t room; /* of the first `room` positions a vector may run over into the next ones */
    ptrdiff_t rows, columns;
    float divisor;
    bool exact;  /* 1 / divisor is */
    bool stream; /* y past the caches */
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
        put_lanes(run->stream, y + v * y_step, mean, n);
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
    run.stream = channels % FNN_LANES == 0 && streams(x, y, pool->batch * out_height * out_width * channels);
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
    vec_fence();
}

void FNN_FUNCTION(avg_pool2d_forward)(const struct fnn_avg_pool2d_forward_args *args, const struct fnn_team *team) {
    const struct pool pool = SLIDING_POOL(args);
    average_forward(&pool, args->x, args->y, team);
}

void FNN_FUNCTION(adaptive_avg_pool2d_forward)(const struct fnn_adaptive_avg_pool2d_forward_args *args,
                                               const struct fnn_team *team) {
    const struct pool pool = ADAPTIVE_POOL(args);
    average_forward(&pool, args->x, args->y, team);
}
