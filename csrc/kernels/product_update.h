/* Part of optimizer.h. A gradient that is made where it is used, and that nothing keeps: that of a linear layer's weight,
 *
 *   gradient[k][c] = sum over n < batch of dy[n][k] * x[n][c]
 *
 * dy batch, outputs   x batch, channels   outputs = count / channels   panels: batch * channels floats, channels rounded up to FNN_LANES
 *
 * The team packs x into the panels of gemm.h first. Then the gradient is made in pieces, a register tile of rows by as many columns
 * as leave x and the piece in the second-level cache: long runs of parameters and states, which are asked for while the sums run, and
 * updated where the piece still is. The sum is that of gemm_packed.h, in the order of n: the bits are those of
 * linear_backward_weight where it sums in one block.
 * workspace of a thread: PRODUCT_FLOATS + 2 * gemm_rows * gemm_columns + batch * PRODUCT_LEFT floats. */
#ifndef FASTNN_KERNELS_PRODUCT_UPDATE_H
#define FASTNN_KERNELS_PRODUCT_UPDATE_H

#include "gemm.h"

enum {
    PRODUCT_FLOATS = 1 << 16, /* of a piece */
    PRODUCT_PANELS = 5 << 15, /* floats of x that a row of pieces meets */
    PRODUCT_LEFT = (FNN_GEMM_ROWS + FNN_LANES - 1) / FNN_LANES * FNN_LANES /* from step to step of packed rows of dy */
};

/* Columns of a piece: whole panels. */
static inline ptrdiff_t product_columns(ptrdiff_t batch, ptrdiff_t channels) {
    const ptrdiff_t most = fnn_max(fnn_min(PRODUCT_FLOATS / FNN_GEMM_ROWS, PRODUCT_PANELS / batch), FNN_GEMM_COLUMNS);
    return gemm_panels(fnn_ceil_div(channels, fnn_ceil_div(channels, most))) * FNN_GEMM_COLUMNS;
}

/* The pieces of a segment's gradient. */
static inline ptrdiff_t product_pieces(const union fnn_slot *segment) {
    const ptrdiff_t channels = segment[SEGMENT_CHANNELS].size, rows = segment[SEGMENT_COUNT].size / channels;
    const ptrdiff_t columns = product_columns(segment[SEGMENT_BATCH].size, channels);
    return fnn_ceil_div(rows, FNN_GEMM_ROWS) * fnn_ceil_div(channels, columns);
}

/* This thread's share of packing x for all segments. */
void FNN_FUNCTION(pack_products)(const union fnn_slot *segments, ptrdiff_t segment_count, const struct fnn_team *team);

/* Makes one piece of a segment's gradient, and calls update for each of its rows. */
void FNN_FUNCTION(update_product)(const union fnn_slot *segment, ptrdiff_t piece, update_block *update,
                                  const void *settings, float *workspace);

#endif
