/* Rows of a table by their numbers, and integers as floats.
 *
 *     embedding_forward:   y[i,:] = weight[indices[i],:]                                            exact
 *     embedding_backward:  dweight[v,:] = sum over i with indices[i] = v of dy[i,:], in the order of i
 *     convert_int64:       y[i] = x[i], rounded to nearest
 *
 * indices (count); weight, dweight (rows, columns); y, dy (count, columns). Row padding_index (-1: none) gets no gradient. An
 * index outside of the table, which the caller has refused, reads zeros and adds nothing. Error of a sum of n rows:
 * (n - 1) eps * sum |dy|, eps = 2^-24. Outputs must not overlap inputs.
 *
 * Backward, each thread adds to a stretch of columns of every row (and, when there are more threads than stretches of a
 * cache line, to every so-manieth row only): all have the same number of rows to add, however often any index comes. Each
 * element's terms come in the order of i whatever the team, so its bits do not depend on the team. */
#include <string.h>

#include "lanes.h"

enum { ROWS_BLOCK = 64, CONVERT_BLOCK = 1024 };

static inline bool is_row(int64_t index, ptrdiff_t rows) { return index >= 0 && index < rows; }

void FNN_FUNCTION(embedding_forward)(const struct fnn_embedding_forward_args *args, const struct fnn_team *team) {
    ptrdiff_t columns = args->columns;
    const bool stream = columns % FNN_LANES == 0 && streams(args->weight, args->y, args->count * columns);
    struct fnn_range range = fnn_share_blocks(args->count, ROWS_BLOCK, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        float *y = args->y + i * columns;
        bool inside = is_row(args->indices[i], args->rows);
        const float *row = args->weight + (inside ? args->indices[i] : 0) * columns;
        for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
            ptrdiff_t n = lanes_left(columns - c);
            put_lanes(stream, y + c, inside ? load_lanes(row + c, n) : vec_zero(), n);
        }
    }
    vec_fence();
}

void FNN_FUNCTION(embedding_backward)(const struct fnn_embedding_backward_args *args, const struct fnn_team *team) {
    ptrdiff_t rows = args->rows, columns = args->columns;
    struct fnn_range own = fnn_share(rows, team);
    memset(args->dweight + own.begin * columns, 0, (size_t)((own.end - own.begin) * columns) * sizeof(float));
    fnn_barrier(team);
    ptrdiff_t across = fnn_max(1, fnn_min(team->size, fnn_ceil_div(columns, FNN_LINE))), down = team->size / across;
    ptrdiff_t residue = team->rank / across;
    if (residue >= down) return;
    const struct fnn_team part = {.rank = (int)(team->rank % across), .size = (int)across};
    struct fnn_range stretch = fnn_share_blocks(columns, FNN_LINE, &part);
    for (ptrdiff_t i = 0; i < args->count; i++) {
        int64_t row = args->indices[i];
        if (!is_row(row, rows) || row == args->padding_index || (down > 1 && row % down != residue)) continue;
        const float *dy = args->dy + i * columns;
        float *dweight = args->dweight + row * columns;
        for (ptrdiff_t c = stretch.begin; c < stretch.end; c += FNN_LANES) {
            ptrdiff_t n = lanes_left(stretch.end - c);
            store_lanes(dweight + c, vec_add(load_lanes(dweight + c, n), load_lanes(dy + c, n)), n);
        }
    }
}

void FNN_FUNCTION(convert_int64)(const struct fnn_convert_int64_args *args, const struct fnn_team *team) {
    struct fnn_range range = fnn_share_blocks(args->count, CONVERT_BLOCK, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) args->y[i] = (float)args->x[i];
}
