/* Softmax and log-softmax along the last axis of x (rows, columns), forward and backward.
 *
 *     softmax:       y = exp(x - max) / sum exp(x - max)        dx = y * (dy - sum dy * y)
 *     log-softmax:   y = x - max - log(sum exp(x - max))        dx = dy - exp(y) * sum dy
 *
 * All arrays (rows, columns); y may be x, dx may be dy. Sums of a row run over its lanes, then across them.
 * Errors, eps = 2^-24, l = lanes: softmax, relative, (columns / l + 12 + |x - max|) eps; log-softmax, absolute,
 * (columns / l + 12 + 2 |x - max| + 2 log columns) eps; dx (columns / l + 8) eps times |y| (|dy| + sum |dy * y|) and
 * |dy| + sum |dy| respectively. Parallel over rows. */
#include "softmax.h"

enum {
    ROW_FLOATS = 2048
}; /* of a row whose exponentials do not stand in y until they are divided: y may pass the caches */

/* The exponentials of a row x take the place of those of the row before, whose quotients pass the caches to y meanwhile: so that
 * memory is never idle. Returns their sum, in the order of row_exponentials. */
static float next_exponentials(const float *x, float *exponentials, ptrdiff_t columns, float maximum,
                               const float *ahead, float *y, float inverse_sum) {
    const vec inverse = vec_set1(inverse_sum);
    vec sum = vec_zero();
    ptrdiff_t c = 0;
    for (; c + EXPONENTIALS * FNN_LANES <= columns; c += EXPONENTIALS * FNN_LANES) {
        vec e[EXPONENTIALS];
#pragma GCC unroll 4
        for (int v = 0; v < EXPONENTIALS; v++) {
            __builtin_prefetch(ahead + c + v * FNN_LANES);
            e[v] = shifted_exponential(x + c + v * FNN_LANES, FNN_LANES, maximum);
        }
#pragma GCC unroll 4
        for (int v = 0; v < EXPONENTIALS; v++) {
            float *place = exponentials + c + v * FNN_LANES;
            sum = vec_add(sum, e[v]);
            vec_stream(y + c + v * FNN_LANES, vec_mul(vec_load(place), inverse));
            vec_store(place, e[v]);
        }
    }
    for (; c < columns; c += FNN_LANES) {
        vec e = shifted_exponential(x + c, FNN_LANES, maximum);
        sum = vec_add(sum, e);
        vec_stream(y + c, vec_mul(vec_load(exponentials + c), inverse));
        vec_store(exponentials + c, e);
    }
    return vec_sum(sum);
}

FNN_INLINE void divide_row(bool stream, const float *exponentials, float *y, ptrdiff_t columns, float sum) {
    const vec inverse = vec_set1(1.0f / sum);
    for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns - c);
        put_lanes(stream, y + c, vec_mul(load_lanes(exponentials + c, n), inverse), n);
    }
}

/* Rows of whole vectors, ROW_FLOATS at most. */
static void softmax_rows_streamed(const float *x, float *y, ptrdiff_t rows, ptrdiff_t columns) {
    float exponentials[ROW_FLOATS];
    float sum = row_exponentials(x, exponentials, columns, row_maximum(x, columns), rows > 1 ? x + columns : x);
    for (ptrdiff_t r = 1; r < rows; r++) {
        const float *row = x + r * columns, *ahead = r + 1 < rows ? row + columns : row;
        sum = next_exponentials(row, exponentials, columns, row_maximum(row, columns), ahead, y + (r - 1) * columns,
                                1.0f / sum);
    }
    divide_row(true, exponentials, y + (rows - 1) * columns, columns, sum);
}

static void softmax_rows(const float *x, float *y, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        const float *row = x + r * columns, *ahead = r + 1 < rows ? row + columns : row;
        float *to = y + r * columns;
        divide_row(false, to, to, columns, row_exponentials(row, to, columns, row_maximum(row, columns), ahead));
    }
}

void FNN_FUNCTION(softmax_forward)(const struct fnn_softmax_forward_args *args, const struct fnn_team *team) {
    const ptrdiff_t columns = args->columns;
    const bool stream =
        columns % FNN_LANES == 0 && columns <= ROW_FLOATS && streams(args->x, args->y, args->rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &range);) {
        const ptrdiff_t begin = range.begin * columns, rows = range.end - range.begin;
        (stream ? softmax_rows_streamed : softmax_rows)(args->x + begin, args->y + begin, rows, columns);
    }
    vec_fence();
}

void FNN_FUNCTION(softmax_backward)(const struct fnn_softmax_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns;
    const bool stream =
        columns % FNN_LANES == 0 && args->y != args->dx && streams(args->dy, args->dx, args->rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t r = range.begin; r < range.end; r++) {
            const float *dy = args->dy + r * columns, *y = args->y + r * columns;
            float *to = args->dx + r * columns;
            vec sum = vec_zero();
            for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(columns - c);
                sum = vec_fma(load_lanes(dy + c, n), load_lanes(y + c, n), sum);
            }
            vec total = vec_set1(vec_sum(sum));
            for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(columns - c);
                vec dx = vec_mul(load_lanes(y + c, n), vec_sub(load_lanes(dy + c, n), total));
                put_lanes(stream, to + c, dx, n);
            }
        }
    vec_fence();
}

void FNN_FUNCTION(log_softmax_forward)(const struct fnn_log_softmax_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns;
    const bool stream = columns % FNN_LANES == 0 && streams(args->x, args->y, args->rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t r = range.begin; r < range.end; r++) {
            const float *x = args->x + r * columns, *ahead = r + 1 < range.end ? x + columns : x;
            float *y = args->y + r * columns, maximum = row_maximum(x, columns);
            const vec log_sum = vec_log(vec_set1(row_exponentials(x, NULL, columns, maximum, ahead)));
            for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(columns - c);
                vec shifted = vec_sub(load_lanes(x + c, n), vec_set1(maximum));
                put_lanes(stream, y + c, vec_sub(shifted, log_sum), n);
            }
        }
    vec_fence();
}

/* y are logarithms of probabilities, not above 0 but for rounding. */
void FNN_FUNCTION(log_softmax_backward)(const struct fnn_log_softmax_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns;
    const bool stream =
        columns % FNN_LANES == 0 && args->y != args->dx && streams(args->dy, args->dx, args->rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t r = range.begin; r < range.end; r++) {
            const float *dy = args->dy + r * columns, *y = args->y + r * columns;
            float *dx = args->dx + r * columns;
            vec sum = vec_zero();
            for (ptrdiff_t c = 0; c < columns; c += FNN_LANES)
                sum = vec_add(sum, load_lanes(dy + c, lanes_left(columns - c)));
            const vec total = vec_set1(vec_sum(sum));
            for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(columns - c);
                put_lanes(stream, dx + c,
                          vec_fnma(vec_exp_below_88(load_lanes(y + c, n)), total, load_lanes(dy + c, n)), n);
            }
        }
    vec_fence();
}
