/* Copies that change places only, exact; x and y must not overlap.
 *
 * copy_rows: between a tensor and a contiguous stretch of one of its axes: slices, concatenations, and their gradients.
 *
 *     y[i*y_stride + j] = x[i*x_stride + j]          i < rows, j < columns
 *
 * A part of an axis of a contiguous tensor is such a matrix: rows are the axes before it, columns the part times the axes
 * behind it, the stride is the whole axis times those. x and y point at the first element.
 * Parallel over rows, cut into blocks of BLOCK elements.
 *
 * transpose_int64: y (batch, columns, rows) = x (batch, rows, columns) with the last two axes swapped, for positions and labels
 * (layout.c does it for floats). In tiles of TILE x TILE elements, parallel over them. */
#include <string.h>

#include "lanes.h"

enum { BLOCK = 4096, TILE = 8 };

/* Whole vectors, past the caches. */
static void stream_row(const float *x, ptrdiff_t count, float *y) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) vec_stream(y + i, vec_load(x + i));
}

void FNN_FUNCTION(copy_rows)(const struct fnn_copy_rows_args *args, const struct fnn_team *team) {
    const ptrdiff_t columns = args->columns, blocks = fnn_ceil_div(columns, BLOCK);
    const bool stream = (columns | args->y_stride) % FNN_LANES == 0 && streams(args->x, args->y, args->rows * columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->rows * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            ptrdiff_t row = blocks == 1 ? i : i / blocks, begin = blocks == 1 ? 0 : i % blocks * BLOCK;
            const ptrdiff_t count = fnn_min(BLOCK, columns - begin);
            const float *x = args->x + row * args->x_stride + begin;
            float *y = args->y + row * args->y_stride + begin;
            if (stream)
                stream_row(x, count, y);
            else
                memcpy(y, x, (size_t)count * sizeof(float));
        }
    vec_fence();
}

void FNN_FUNCTION(transpose_int64)(const struct fnn_transpose_int64_args *args, const struct fnn_team *team) {
    ptrdiff_t rows = args->rows, columns = args->columns;
    ptrdiff_t across = fnn_ceil_div(columns, TILE), tiles = fnn_ceil_div(rows, TILE) * across;
    struct fnn_range range = fnn_share(args->batch * tiles, team);
    for (ptrdiff_t t = range.begin; t < range.end; t++) {
        const int64_t *x = args->x + t / tiles * rows * columns;
        int64_t *y = args->y + t / tiles * rows * columns;
        ptrdiff_t top = t % tiles / across * TILE, left = t % tiles % across * TILE;
        for (ptrdiff_t j = left; j < fnn_min(left + TILE, columns); j++)
            for (ptrdiff_t i = top; i < fnn_min(top + TILE, rows); i++) y[j * rows + i] = x[i * columns + j];
    }
}
