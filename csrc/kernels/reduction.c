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
 * Parallel over outer * blocks. */
#include "lanes.h"

enum { UNITS = 64, BLOCK_MIN = 16, GROUP = 4, BROADCAST_BLOCK = 64 };

/* Enough blocks for UNITS units of work, of BLOCK_MIN vectors at least. */
static inline ptrdiff_t sum_blocks(ptrdiff_t outer, ptrdiff_t middle, ptrdiff_t inner) {
    ptrdiff_t least = BLOCK_MIN * fnn_max(1, 64 / fnn_max(inner, 1));
    return fnn_max(1, fnn_min(UNITS / fnn_max(outer, 1), middle / least));
}

FNN_INLINE void sum_columns(const int vectors, ptrdiff_t n, const float *x, ptrdiff_t stride, ptrdiff_t rows, vec scale,
                            float *y) {
    vec sum[GROUP];
    for (int v = 0; v < vectors; v++) sum[v] = vec_zero();
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[v] = vec_add(sum[v], load_lanes(x + r * stride + v * FNN_LANES, n));
    for (int v = 0; v < vectors; v++) store_lanes(y + v * FNN_LANES, vec_mul(sum[v], scale), n);
}

static float sum_row(const float *x, ptrdiff_t count) {
    vec sum[GROUP];
    for (int v = 0; v < GROUP; v++) sum[v] = vec_zero();
    ptrdiff_t i = 0;
    for (; i + GROUP * FNN_LANES <= count; i += GROUP * FNN_LANES)
        for (int v = 0; v < GROUP; v++) sum[v] = vec_add(sum[v], vec_load(x + i + v * FNN_LANES));
    for (; i < count; i += FNN_LANES) sum[0] = vec_add(sum[0], load_lanes(x + i, lanes_left(count - i)));
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
}

/* y (inner) = scale * sum of x (rows, inner) over its rows. */
static void sum_matrix(const float *x, ptrdiff_t rows, ptrdiff_t inner, float scale, float *y) {
    if (inner == 1) {
        y[0] = scale * sum_row(x, rows);
        return;
    }
    ptrdiff_t i = 0;
    for (; i + GROUP * FNN_LANES <= inner; i += GROUP * FNN_LANES)
        sum_columns(GROUP, FNN_LANES, x + i, inner, rows, vec_set1(scale), y + i);
    for (; i < inner; i += FNN_LANES) sum_columns(1, lanes_left(inner - i), x + i, inner, rows, vec_set1(scale), y + i);
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

void FNN_FUNCTION(broadcast_axis)(const struct fnn_broadcast_axis_args *args, const struct fnn_team *team) {
    ptrdiff_t middle = args->middle, inner = args->inner, tiles = fnn_ceil_div(middle, BROADCAST_BLOCK);
    vec scale = vec_set1((float)args->scale);
    struct fnn_range range = fnn_share(args->outer * tiles, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t o = i / tiles, begin = i % tiles * BROADCAST_BLOCK, end = fnn_min(begin + BROADCAST_BLOCK, middle);
        const float *x = args->x + o * inner;
        float *y = args->y + o * middle * inner;
        if (inner == 1) {
            vec value = vec_mul(vec_set1(x[0]), scale);
            for (ptrdiff_t m = begin; m < end; m += FNN_LANES) store_lanes(y + m, value, lanes_left(end - m));
            continue;
        }
        for (ptrdiff_t m = begin; m < end; m++)
            for (ptrdiff_t c = 0; c < inner; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(inner - c);
                store_lanes(y + m * inner + c, vec_mul(load_lanes(x + c, n), scale), n);
            }
    }
}
