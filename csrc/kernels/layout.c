/* Copies of memory: transposes between channels-first and channels-last, plain copies, constants.
 *
 * Every kernel is exact. Outputs must not overlap inputs. Parallel over blocks of the output. */
#include "lanes.h"

enum { TILE = 64, COPY_BLOCK = 4096 };

/* y[c][r] = x[r][c] for up to FNN_LANES rows and columns. */
FNN_INLINE void transpose_lanes(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride, ptrdiff_t rows,
                                ptrdiff_t columns) {
    vec tile[FNN_LANES];
#pragma GCC unroll 16
    for (int r = 0; r < FNN_LANES; r++) tile[r] = r < rows ? load_lanes(x + r * x_stride, columns) : vec_zero();
    vec_transpose(tile);
#pragma GCC unroll 16
    for (int c = 0; c < FNN_LANES; c++)
        if (c < columns) store_lanes(y + c * y_stride, tile[c], rows);
}

static void transpose_tile(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride, ptrdiff_t rows,
                           ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r += FNN_LANES)
        for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
            const float *from = x + r * x_stride + c;
            float *to = y + c * y_stride + r;
            if (rows - r >= FNN_LANES && columns - c >= FNN_LANES)
                transpose_lanes(from, x_stride, to, y_stride, FNN_LANES, FNN_LANES);
            else
                transpose_lanes(from, x_stride, to, y_stride, lanes_left(rows - r), lanes_left(columns - c));
        }
}

/* y (batch, columns, rows) = x (batch, rows, columns) with the last two axes exchanged.
 * N,C,HW -> N,HW,C is rows = C, columns = HW; the way back is rows = HW, columns = C. */
void FNN_FUNCTION(transpose)(const struct fnn_transpose_args *args, const struct fnn_team *team) {
    ptrdiff_t rows = args->rows, columns = args->columns, plane = rows * columns;
    ptrdiff_t row_tiles = fnn_ceil_div(rows, TILE), column_tiles = fnn_ceil_div(columns, TILE);
    struct fnn_range range = fnn_share(args->batch * column_tiles * row_tiles, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t r = i % row_tiles * TILE, c = i / row_tiles % column_tiles * TILE;
        ptrdiff_t image = i / (row_tiles * column_tiles) * plane;
        transpose_tile(args->x + image + r * columns + c, columns, args->y + image + c * rows + r, rows,
                       fnn_min(rows - r, TILE), fnn_min(columns - c, TILE));
    }
}

/* y (count) = x (count) */
void FNN_FUNCTION(copy)(const struct fnn_copy_args *args, const struct fnn_team *team) {
    const bool stream = streams(args->x, args->y, args->count);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->count, COPY_BLOCK, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
            ptrdiff_t n = lanes_left(range.end - i);
            put_lanes(stream, args->y + i, load_lanes(args->x + i, n), n);
        }
    vec_fence();
}

/* y (count) = value */
void FNN_FUNCTION(fill)(const struct fnn_fill_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, COPY_BLOCK, team);
    vec value = vec_set1((float)args->value);
    for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES)
        store_lanes(args->y + i, value, lanes_left(range.end - i));
}
