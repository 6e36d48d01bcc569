/* The register tiles of products whose operands are both packed (gemm_blocked.h): a strip of tiles of the same size.
 *
 *   y[i][j] = activation(bias[j] + (start[i][j] + sum over d < depth of a[d*a_step + i] * panel[d*width + j]))
 *
 * a: `row_count` neighbours at each step   panel: steps, width (gemm.h)
 * y: element (i, j) at [i*y_step + j]   bias: columns, or null
 *
 * Tile t of `tile_count` finds its a, panel, y and bias t times their `_next` behind the first tile's: tiles of rows below each other by
 * one panel, or one tile of rows by panels side by side.
 *
 * start is y as it was with `accumulate`, else nothing. The sum runs over d, one fused multiply-add each, from zero: the same
 * sum in whatever tile the element falls. |error| <= gamma_depth * sum |a||b| (2*depth on the scalar ISA), and one rounding
 * each for the start and the bias.
 *
 * With a `source` the first tile reads its panel from there, in steps of source_step and whole vectors, and packs it at `panel` for the
 * tiles after it: a copy that costs no time beside the sum. Without a panel all tiles read the source.
 *
 * While it runs it asks for memory that is needed soon, a few lines every GEMM_CHUNK steps: asking for all at once stalls.
 */
#ifndef FASTNN_GEMM_PACKED_H
#define FASTNN_GEMM_PACKED_H

#include "gemm.h"

enum { GEMM_CHUNK = 16, GEMM_LINE = 64 /* bytes */ };

/* Lines to ask for: `count` every GEMM_CHUNK steps, `left` of them up to the end of a row of `lines`, `skip` bytes before the next of
 * `rows`, this one included; then those of `next`, if there is one. They need not be in bounds. */
struct gemm_fetch {
    uintptr_t line;
    ptrdiff_t count, left, lines, rows;
    size_t skip;
    const struct gemm_fetch *next;
};

struct gemm_packed {
    const float *a;
    ptrdiff_t a_step, a_next, depth;
    float *panel; /* only read without a source; or null */
    ptrdiff_t panel_next;
    const float *source; /* or null; columns are then whole vectors, and panel_next is 0 */
    ptrdiff_t source_step;
    ptrdiff_t tile_count, row_count, columns; /* of each tile, at most FNN_GEMM_ROWS and FNN_GEMM_COLUMNS */
    float *y;
    ptrdiff_t y_step, y_next;
    bool accumulate;
    bool stream; /* y is written past the caches: only without `accumulate`, y and its rows aligned, in whole vectors */
    const float *bias;
    ptrdiff_t bias_next;
    enum fnn_activation activation;
    struct gemm_fetch *fetch; /* goes on where the strip before has stopped */
};

void FNN_FUNCTION(gemm_packed)(const struct gemm_packed *strip);

#endif
