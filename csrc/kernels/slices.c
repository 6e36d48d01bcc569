/* Copies between a tensor and a contiguous stretch of one of its axes: slices, concatenations, and their gradients.
 *
 *     y[i*y_stride + j] = x[i*x_stride + j]          i < rows, j < columns
 *
 * A part of an axis of a contiguous tensor is such a matrix: rows are the axes before it, columns the part times the axes
 * behind it, the stride is the whole axis times those. x and y point at the first element. Exact; must not overlap.
 * Parallel over rows, cut into blocks of BLOCK elements. */
#include <string.h>

#include "kernel.h"

enum { BLOCK = 4096 };

void FNN_FUNCTION(copy_rows)(const struct fnn_copy_rows_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns, blocks = fnn_ceil_div(columns, BLOCK);
    struct fnn_range range = fnn_share(args->rows * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t row = i / blocks, begin = i % blocks * BLOCK;
        size_t count = (size_t)fnn_min(BLOCK, columns - begin);
        memcpy(args->y + row * args->y_stride + begin, args->x + row * args->x_stride + begin, count * sizeof(float));
    }
}
