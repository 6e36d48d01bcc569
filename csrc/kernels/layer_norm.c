/* Layer normalisation of the rows of a matrix, forward and backward.
 *
 *     y = x_hat * weight + bias,  x_hat = (x - mean) * inverse_deviation,  inverse_deviation = 1 / sqrt(variance + eps)
 *     g = dy * weight      dx = inverse_deviation * (g - mean(g) - x_hat * mean(g * x_hat))      (means over the row)
 *     dweight = sum dy * x_hat      dbias = sum dy      (sums over the rows)
 *
 * x, y, dy, dx (rows, columns); weight, bias, dweight, dbias (columns), each may be null; statistics (3, rows): mean, remainder of
 * the mean (see batch_norm.h), inverse_deviation. y may be x, dx may be dy. Gradients are overwritten.
 * workspace of the backward pass: 2 * min(64, ceil(rows / 8)) * columns floats.
 * The mean is taken relative to the row's first element and the variance from centred values. Error, eps = 2^-24,
 * s = columns / (4 lanes) + 12: of y (4 |x_hat| + s + (s + 4) |x_hat|) eps |weight| + eps |bias|; of dbias and dweight
 * (rows / 64 + 72) eps * sum of magnitudes, and the error of x_hat.
 * Parallel over rows, in the backward pass over blocks of rows that depend on the shape alone, combined in order.
 * Source: Ba, Kiros and Hinton, "Layer Normalization", 2016. */
#include <string.h>

#include "lanes.h"
#include "row_blocks.h"

enum { CHAINS = 4, STEP = CHAINS * FNN_LANES, AHEAD_COLUMNS = 4096 };

/* While a row in the cache is worked on at column c, half of a row to come is fetched, evenly: memory is never left idle. */
FNN_INLINE void fetch_half(const float *ahead, ptrdiff_t c) {
    for (int line = 0; line < STEP / 2; line += FNN_LINE) __builtin_prefetch(ahead + c / 2 + line);
}

/* sum of (x - origin), or of its square, over a row; `remainder` is subtracted as well. With squares, fetches from `ahead` on. */
FNN_INLINE float row_sum(const bool squares, const float *x, ptrdiff_t columns, float origin, float remainder,
                         const float *ahead) {
    vec sum[CHAINS];
    for (int v = 0; v < CHAINS; v++) sum[v] = vec_zero();
    const vec first = vec_set1(origin), rest = vec_set1(remainder);
    ptrdiff_t c = 0;
    for (; c + STEP <= columns; c += STEP) {
        if (squares) fetch_half(ahead, c);
        for (int v = 0; v < CHAINS; v++) {
            vec d = vec_sub(vec_sub(vec_load(x + c + v * FNN_LANES), first), rest);
            sum[v] = squares ? vec_fma(d, d, sum[v]) : vec_add(sum[v], d);
        }
    }
    if (c < columns)
        for (int v = 0; v < CHAINS; v++) {
            ptrdiff_t at = c + v * FNN_LANES, n = lanes_left(columns - at);
            if (n <= 0) break;
            vec d = vec_sub(vec_sub(load_lanes(x + at, n), first), rest);
            if (n < FNN_LANES) d = vec_select(mask_first(n), d, vec_zero());
            sum[v] = squares ? vec_fma(d, d, sum[v]) : vec_add(sum[v], d);
        }
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

FNN_INLINE vec normalized(const float *x, ptrdiff_t n, float mean, float remainder, float inverse) {
    vec centred = vec_sub(vec_sub(load_lanes(x, n), vec_set1(mean)), vec_set1(remainder));
    return vec_mul(centred, vec_set1(inverse));
}

struct row_statistics {
    float mean, remainder, inverse;
};

/* y of one row, fetching from `ahead` on; weights and biases may be null. */
FNN_INLINE void normalize_row(bool stream, const float *x, float *y, ptrdiff_t columns, const float *weights,
                              const float *biases, struct row_statistics of, const float *ahead) {
    const vec one = vec_set1(1.0f);
    ptrdiff_t c = 0;
    for (; c + STEP <= columns; c += STEP) {
        fetch_half(ahead, c);
        for (int v = 0; v < CHAINS; v++) {
            ptrdiff_t at = c + v * FNN_LANES;
            vec value = normalized(x + at, FNN_LANES, of.mean, of.remainder, of.inverse);
            vec weight = weights ? vec_load(weights + at) : one, bias = biases ? vec_load(biases + at) : vec_zero();
            put_lanes(stream, y + at, vec_fma(value, weight, bias), FNN_LANES);
        }
    }
    for (; c < columns; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns - c);
        vec value = normalized(x + c, n, of.mean, of.remainder, of.inverse);
        vec weight = weights ? load_lanes(weights + c, n) : one, bias = biases ? load_lanes(biases + c, n) : vec_zero();
        put_lanes(stream, y + c, vec_fma(value, weight, bias), n);
    }
}

void FNN_FUNCTION(layer_norm_forward)(const struct fnn_layer_norm_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns, rows = args->rows;
    const bool stream = columns % FNN_LANES == 0 && streams(args->x, args->y, rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(rows, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t r = range.begin; r < range.end; r++) {
            const float *x = args->x + r * columns;
            const float *next = r + 1 < range.end && columns <= AHEAD_COLUMNS ? x + columns : x;
            float *y = args->y + r * columns, pivot = columns ? x[0] : 0.0f;
            float relative = columns ? row_sum(false, x, columns, pivot, 0.0f, x) / (float)columns : 0.0f;
            double squares = row_sum(true, x, columns, pivot, relative, next),
                   exact_mean = (double)pivot + (double)relative;
            float mean = (float)exact_mean, remainder = (float)(exact_mean - (double)mean);
            float inverse = (float)(1.0 / __builtin_sqrt((columns ? squares / (double)columns : 0.0) + args->eps));
            args->statistics[r] = mean;
            args->statistics[rows + r] = remainder;
            args->statistics[2 * rows + r] = inverse;
            const struct row_statistics of = {mean, remainder, inverse};
            normalize_row(stream, x, y, columns, args->weight, args->bias, of, next + columns / 2);
        }
    vec_fence();
}

/* dx of one row; adds its share to dweight, dbias (columns), or sets them if it is the first. */
static void row_gradient(const struct fnn_layer_norm_backward_args *args, ptrdiff_t row, bool first, float *dweight,
                         float *dbias) {
    ptrdiff_t columns = args->columns;
    const float *x = args->x + row * columns, *dy = args->dy + row * columns;
    float mean = args->statistics[row], remainder = args->statistics[args->rows + row];
    float inverse = args->statistics[2 * args->rows + row];
    const float *weights = args->weight;
    vec sum = vec_zero(), product = vec_zero();
    for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns - c);
        vec gradient = load_lanes(dy + c, n), value = normalized(x + c, n, mean, remainder, inverse);
        vec with_value = vec_mul(gradient, value); /* 0 in the missing lanes, where the gradient is */
        vec g = weights ? vec_mul(gradient, load_lanes(weights + c, n)) : gradient;
        sum = vec_add(sum, g);
        product = vec_fma(g, value, product);
        if (!first) {
            gradient = vec_add(gradient, load_lanes(dbias + c, n));
            with_value = vec_add(with_value, load_lanes(dweight + c, n));
        }
        store_lanes(dbias + c, gradient, n);
        store_lanes(dweight + c, with_value, n);
    }
    const vec mean_gradient = vec_set1(vec_sum(sum) / (float)columns);
    const vec mean_product = vec_set1(vec_sum(product) / (float)columns);
    const bool stream =
        columns % FNN_LANES == 0 && args->dx != args->x && streams(args->dy, args->dx, args->rows * columns);
    float *to = args->dx + row * columns;
    for (ptrdiff_t c = 0; c < columns && args->dx; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns - c);
        vec g = load_lanes(dy + c, n), value = normalized(x + c, n, mean, remainder, inverse);
        if (weights) g = vec_mul(g, load_lanes(weights + c, n));
        vec dx = vec_fnma(value, mean_product, vec_sub(g, mean_gradient));
        put_lanes(stream, to + c, vec_mul(dx, vec_set1(inverse)), n);
    }
}

static void combine(const float *partial, ptrdiff_t stride, ptrdiff_t blocks, struct fnn_range columns, float *sum) {
    for (ptrdiff_t c = columns.begin; c < columns.end; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns.end - c);
        vec total = vec_zero();
        for (ptrdiff_t b = 0; b < blocks; b++) total = vec_add(total, load_lanes(partial + b * stride + c, n));
        store_lanes(sum + c, total, n);
    }
}

/* dx may be null. */
void FNN_FUNCTION(layer_norm_backward)(const struct fnn_layer_norm_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns, rows = args->rows;
    ptrdiff_t count = fnn_min(FNN_ROW_BLOCKS, fnn_ceil_div(rows, FNN_CHUNK_ROWS_MIN));
    ptrdiff_t each = fnn_ceil_div(rows, fnn_max(count, 1));
    struct fnn_range mine;
    for (struct fnn_work work = fnn_work(count, 1, team); fnn_take(&work, &mine);)
        for (ptrdiff_t b = mine.begin; b < mine.end; b++) {
            float *dweight = args->workspace + 2 * b * columns, *dbias = dweight + columns;
            ptrdiff_t begin = fnn_min(b * each, rows), end = fnn_min(begin + each, rows);
            if (begin == end) memset(dweight, 0, (size_t)(2 * columns) * sizeof(float));
            for (ptrdiff_t r = begin; r < end; r++) row_gradient(args, r, r == begin, dweight, dbias);
        }
    vec_fence();
    fnn_barrier(team);
    struct fnn_range some = fnn_share_blocks(columns, FNN_LANES, team);
    if (args->dweight) combine(args->workspace, 2 * columns, count, some, args->dweight);
    if (args->dbias) combine(args->workspace + columns, 2 * columns, count, some, args->dbias);
}
