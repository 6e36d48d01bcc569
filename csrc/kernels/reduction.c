/* Sums along one axis, and the way back.
 *
 *     sum:        y[o,i] = scale * sum over m of x[o,m,i]          x (outer, middle, inner), y (outer, inner)
 *     broadcast:  y[o,m,i] = scale * x[o,i]                        x (outer, inner), y (outer, middle, inner)
 *
 * outer = 1 sums the rows of a matrix (bias gradient), inner = 1 each row, (N, H*W, C) the positions of an image; scale = 1 /
 * middle makes means. Outputs must not overlap inputs.
 *
 * The middle axis is cut by shape alone into sum_blocks blocks, combined in order; workspace (optional when sum_blocks is 1)
 * max(outer, 64) * inner floats. Error of a sum: (ceil(middle / blocks) + blocks + 1) eps * sum |x|, eps = 2^-24.
 * Parallel over outer * blocks, the way back over rows of y. */
#include "lanes.h"

enum {
    UNITS = 64,
    BLOCK_MIN = 16,
    CHAINS = 4,
    GROUP = FNN_LANES == 8 ? 8 : 4, /* vectors that are summed in registers: 64 columns */
    ROWS_BESIDE = 4,
    TILE = 4096, /* columns whose sums stand in the L1 cache */
    BROADCAST_BLOCK = 4096
};

/* Enough blocks for UNITS units of work, of BLOCK_MIN vectors at least. */
static inline ptrdiff_t sum_blocks(ptrdiff_t outer, ptrdiff_t middle, ptrdiff_t inner) {
    ptrdiff_t least = BLOCK_MIN * fnn_max(1, 64 / fnn_max(inner, 1));
    return fnn_max(1, fnn_min(UNITS / fnn_max(outer, 1), middle / least));
}

/* y = scale * sum of `count` columns of x, GROUP vectors or less. */
FNN_INLINE void sum_columns(const int vectors, const float *x, ptrdiff_t stride, ptrdiff_t rows, vec scale, float *y) {
    vec sum[GROUP];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
    for (ptrdiff_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[v] = vec_add(sum[v], vec_load(x + r * stride + v * FNN_LANES));
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) vec_store(y + v * FNN_LANES, vec_mul(sum[v], scale));
}

/* y, or 0 if they are the first, plus `rows` rows of x, one after the other. */
FNN_INLINE void add_rows(const int rows, bool first, const float *x, ptrdiff_t stride, ptrdiff_t count, float *y) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        vec sum = first ? vec_zero() : load_lanes(y + i, n);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum = vec_add(sum, load_lanes(x + r * stride + i, n));
        store_lanes(y + i, sum, n);
    }
}

/* The same as sum_columns for any number of columns, row by row, as the memory streams best. */
static void sum_tile(const float *x, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t count, vec scale, float *y) {
    add_rows(0, true, x, stride, rows ? 0 : count, y);
    ptrdiff_t r = 0;
    for (; r + ROWS_BESIDE <= rows; r += ROWS_BESIDE) add_rows(ROWS_BESIDE, r == 0, x + r * stride, stride, count, y);
    for (; r < rows; r++) add_rows(1, r == 0, x + r * stride, stride, count, y);
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        store_lanes(y + i, vec_mul(load_lanes(y + i, n), scale), n);
    }
}

static float sum_row(const float *x, ptrdiff_t count) {
    vec sum[CHAINS];
    for (int v = 0; v < CHAINS; v++) sum[v] = vec_zero();
    ptrdiff_t i = 0;
    for (; i + CHAINS * FNN_LANES <= count; i += CHAINS * FNN_LANES)
        for (int v = 0; v < CHAINS; v++) sum[v] = vec_add(sum[v], vec_load(x + i + v * FNN_LANES));
    for (; i < count; i += FNN_LANES) sum[0] = vec_add(sum[0], load_lanes(x + i, lanes_left(count - i)));
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

/* y (inner) = scale * sum of x (rows, inner) over its rows. */
static void sum_matrix(const float *x, ptrdiff_t rows, ptrdiff_t inner, float scale, float *y) {
    if (inner == 1) {
        y[0] = scale * sum_row(x, rows);
        return;
    }
    const vec factor = vec_set1(scale);
    ptrdiff_t i = 0;
    if (inner % FNN_LANES == 0) { /* else rows begin within vectors, and lines are read twice */
        for (; i + GROUP * FNN_LANES <= inner; i += GROUP * FNN_LANES)
            sum_columns(GROUP, x + i, inner, rows, factor, y + i);
        for (; i + GROUP / 2 * FNN_LANES <= inner; i += GROUP / 2 * FNN_LANES)
            sum_columns(GROUP / 2, x + i, inner, rows, factor, y + i);
    }
    for (; i < inner; i += TILE) sum_tile(x + i, inner, rows, fnn_min(TILE, inner - i), factor, y + i);
}

void FNN_FUNCTION(sum_axis)(const struct fnn_sum_axis_args *args, const struct fnn_team *team) {
    ptrdiff_t outer = args->outer, middle = args->middle, inner = args->inner;
    ptrdiff_t blocks = sum_blocks(outer, middle, inner), each = fnn_ceil_div(middle, blocks);
    float scale = (float)args->scale;
    float *partial = blocks == 1 ? args->y : args->workspace;
    struct fnn_range range = fnn_share(outer * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t begin = fnn_min(i % blocks * each, middle), end = fnn_min(begin + each, middle);
        sum_matrix(args->x + (i / blocks * middle + begin) * inner, end - begin, inner, blocks == 1 ? scale : 1.0f,
                   partial + i * inner);
    }
    if (blocks == 1) return;
    fnn_barrier(team);
    range = fnn_share(outer, team);
    for (ptrdiff_t o = range.begin; o < range.end; o++)
        sum_matrix(partial + o * blocks * inner, blocks, inner, scale, args->y + o * inner);
}

/* Each element of x `middle` times in a row. */
static void broadcast_values(const struct fnn_broadcast_axis_args *args, const struct fnn_team *team) {
    const ptrdiff_t middle = args->middle, blocks = fnn_ceil_div(middle, BROADCAST_BLOCK);
    const vec scale = vec_set1((float)args->scale);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->outer * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            ptrdiff_t o = i / blocks, begin = i % blocks * BROADCAST_BLOCK;
            ptrdiff_t end = fnn_min(begin + BROADCAST_BLOCK, middle);
            const vec value = vec_mul(vec_set1(args->x[o]), scale);
            for (ptrdiff_t m = begin; m < end; m += FNN_LANES)
                store_lanes(args->y + o * middle + m, value, lanes_left(end - m));
        }
}

/* Each row of x `middle` times. */
static void broadcast_rows(const struct fnn_broadcast_axis_args *args, const struct fnn_team *team) {
    const ptrdiff_t middle = args->middle, inner = args->inner;
    const vec scale = vec_set1((float)args->scale);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->outer * middle, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t row = range.begin; row < range.end; row++) {
            const float *x = args->x + row / middle * inner;
            float *y = args->y + row * inner;
            for (ptrdiff_t c = 0; c < inner; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(inner - c);
                store_lanes(y + c, vec_mul(load_lanes(x + c, n), scale), n);
            }
        }
}

void FNN_FUNCTION(broadcast_axis)(const struct fnn_broadcast_axis_args *args, const struct fnn_team *team) {
    if (args->inner == 1)
        broadcast_values(args, team);
    else
        broadcast_rows(args, team);
}
