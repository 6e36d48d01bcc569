/* Gated linear unit and ReLU with learned slopes, forward and backward.
 *
 *     glu:    y = a * sigmoid(b)        da = dy * s      db = dy * a * s * (1 - s),  s = sigmoid(b)
 *     prelu:  y = x > 0 ? x : w * x     dx = x > 0 ? dy : w * dy      dw = sum of dy * x where x <= 0
 *
 * glu: x, dx (rows, 2, columns), a the first half of a row and b the second; y, dy (rows, columns).
 * prelu: x, y, dy, dx (rows, channels); slopes, dslopes (slope_count): one for each channel, or a single one for all.
 * workspace FNN_ROW_BLOCKS * channels floats. dx and dslopes may be null. y may be x, dx may be dy (prelu alone).
 * Errors, eps = 2^-24: glu 3.5 units in the last place of y, 8 eps |dy| and 8 eps |dy a| of da and db; prelu one rounding; dslopes
 * eps * (chunk + 80) * sum |dy * x|, chunk <= 256, and as many roundings of double as there are channels.
 * Parallel over blocks of elements, prelu's gradient over blocks of rows that depend on the shape alone, combined in order.
 * Sources: Dauphin et al., "Language modeling with gated convolutional networks", ICML 2017; He et al., "Delving deep into
 * rectifiers", ICCV 2015. */
#include "row_blocks.h"
#include "vector_math.h"

enum { BLOCK = 4096 };

void FNN_FUNCTION(glu_forward)(const struct fnn_glu_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns, blocks = fnn_ceil_div(columns, BLOCK);
    /* x, twice as large as y, passes through the cache as well */
    const bool stream = columns % FNN_LANES == 0 && streams(args->x, args->y, 2 * args->rows * columns);
    struct fnn_range range = fnn_share(args->rows * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t row = i / blocks, begin = i % blocks * BLOCK, end = fnn_min(begin + BLOCK, columns);
        const float *a = args->x + 2 * row * columns, *b = a + columns;
        float *y = args->y + row * columns;
        for (ptrdiff_t c = begin; c < end; c += FNN_LANES) {
            ptrdiff_t n = lanes_left(end - c);
            put_lanes(stream, y + c, vec_mul(load_lanes(a + c, n), vec_sigmoid(load_lanes(b + c, n))), n);
        }
    }
    vec_fence();
}

void FNN_FUNCTION(glu_backward)(const struct fnn_glu_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns, blocks = fnn_ceil_div(columns, BLOCK);
    const bool stream = columns % FNN_LANES == 0 && streams(args->x, args->dx, 2 * args->rows * columns);
    struct fnn_range range = fnn_share(args->rows * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t row = i / blocks, begin = i % blocks * BLOCK, end = fnn_min(begin + BLOCK, columns);
        const float *a = args->x + 2 * row * columns, *b = a + columns, *dy = args->dy + row * columns;
        float *da = args->dx + 2 * row * columns, *db = da + columns;
        for (ptrdiff_t c = begin; c < end; c += FNN_LANES) {
            ptrdiff_t n = lanes_left(end - c);
            vec gate = vec_sigmoid(load_lanes(b + c, n)), first = load_lanes(a + c, n);
            vec gradient = vec_mul(load_lanes(dy + c, n), gate);
            vec closed = vec_sub(vec_set1(1.0f), gate);
            put_lanes(stream, da + c, gradient, n);
            put_lanes(stream, db + c, vec_mul(vec_mul(gradient, first), closed), n);
        }
    }
    vec_fence();
}

/* The slopes of the channels from c on. */
FNN_INLINE vec load_slopes(const float *slopes, ptrdiff_t slope_count, ptrdiff_t c, ptrdiff_t n) {
    return slope_count == 1 ? vec_set1(slopes[0]) : load_lanes(slopes + c, n);
}

void FNN_FUNCTION(prelu_forward)(const struct fnn_prelu_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, slope_count = args->slope_count;
    const float *slopes = args->slopes;
    const bool stream = channels % FNN_LANES == 0 && streams(args->x, args->y, args->rows * channels);
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(args->rows, 1, team); fnn_take(&work, &rows);)
        for (ptrdiff_t r = rows.begin; r < rows.end; r++) {
            const float *x = args->x + r * channels;
            float *y = args->y + r * channels;
            for (ptrdiff_t c = 0; c < channels; c += FNN_LANES) {
                ptrdiff_t n = lanes_left(channels - c);
                vec value = load_lanes(x + c, n), below = vec_mul(load_slopes(slopes, slope_count, c, n), value);
                put_lanes(stream, y + c, vec_select(vec_less(vec_zero(), value), value, below), n);
            }
        }
    vec_fence();
}

enum { TILE_CHANNELS = 1024 }; /* whose sums stand in the L1 cache */

/* Of n channels of one row: dx, and dy * x where x <= 0 added to sums. */
FNN_INLINE void prelu_lanes(bool stream, const float *dy, const float *x, vec slope, float *dx, ptrdiff_t n,
                            float *sums) {
    vec value = load_lanes(x, n), gradient = load_lanes(dy, n);
    mask above = vec_less(vec_zero(), value);
    vec_store(sums, vec_add(vec_load(sums), vec_select(above, vec_zero(), vec_mul(gradient, value))));
    if (dx) put_lanes(stream, dx, vec_select(above, gradient, vec_mul(slope, gradient)), n);
}

FNN_INLINE void prelu_row(const bool stream, const bool single, const float *dy, const float *x, const float *slopes,
                          float *dx, ptrdiff_t count, float *sums) {
    const vec shared = vec_set1(slopes[0]);
    ptrdiff_t c = 0, rest = count % FNN_LANES;
    for (; c < count - rest; c += FNN_LANES)
        prelu_lanes(stream, dy + c, x + c, single ? shared : vec_load(slopes + c), dx ? dx + c : NULL, FNN_LANES,
                    sums + c);
    if (rest)
        prelu_lanes(stream, dy + c, x + c, single ? shared : load_lanes(slopes + c, rest), dx ? dx + c : NULL, rest,
                    sums + c);
}

/* Of a chunk of rows, for `count` <= TILE_CHANNELS channels from c on: dx, and sum of dy * x where x <= 0 added to sums, or set if
 * the chunk is the first. Row by row: stores past the caches are fast where they follow each other. */
static void prelu_chunk(const struct fnn_prelu_backward_args *args, bool stream, struct fnn_range rows, ptrdiff_t c,
                        ptrdiff_t count, bool first, float *sums) {
    const bool single = args->slope_count == 1;
    const float *slopes = single ? args->slopes : args->slopes + c;
    float of_chunk[TILE_CHANNELS] = {0};
    for (ptrdiff_t r = rows.begin; r < rows.end; r++) {
        ptrdiff_t at = r * args->channels + c;
        const float *dy = args->dy + at, *x = args->x + at;
        float *dx = args->dx ? args->dx + at : NULL;
        if (single)
            prelu_row(stream, true, dy, x, slopes, dx, count, of_chunk);
        else
            prelu_row(stream, false, dy, x, slopes, dx, count, of_chunk);
    }
    for (ptrdiff_t i = 0; i < count; i++) sums[c + i] = first ? of_chunk[i] : sums[c + i] + of_chunk[i];
}

void FNN_FUNCTION(prelu_backward)(const struct fnn_prelu_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t channels = args->channels;
    const bool stream =
        channels % FNN_LANES == 0 && args->dx != args->x && streams(args->dy, args->dx, args->rows * channels);
    struct row_blocks blocks = row_blocks(args->rows, channels);
    struct fnn_range mine;
    for (struct fnn_work work = fnn_work(blocks.count, 1, team); fnn_take(&work, &mine);)
        for (ptrdiff_t b = mine.begin; b < mine.end; b++) {
            struct fnn_range block = row_block(&blocks, b);
            for (ptrdiff_t row = block.begin; row < block.end; row += blocks.chunk) {
                struct fnn_range rows = {row, fnn_min(row + blocks.chunk, block.end)};
                for (ptrdiff_t c = 0; c < channels; c += TILE_CHANNELS)
                    prelu_chunk(args, stream, rows, c, fnn_min(TILE_CHANNELS, channels - c), row == block.begin,
                                args->workspace + b * channels);
            }
        }
    vec_fence();
    fnn_barrier(team);
    if (!args->dslopes || team->rank != 0) return;
    double shared = 0;
    for (ptrdiff_t c = 0; c < channels; c++) {
        double sum = 0;
        for (ptrdiff_t b = 0; b < blocks.count; b++) sum += args->workspace[b * channels + c];
        if (args->slope_count > 1) args->dslopes[c] = (float)sum;
        shared += sum;
    }
    if (args->slope_count == 1) args->dslopes[0] = (float)shared;
}
