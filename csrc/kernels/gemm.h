/* The register tile of every matrix product: up to FNN_GEMM_ROWS rows by one panel of up to FNN_GEMM_COLUMNS columns.
 *
 *   y[i][j] = activation(bias[j] + residual[i][j] + sum over runs t, steps d of
 *                        rows[t][i][d] * panel[(step[t] + d) * width + j])
 *
 * Rows are plain pointers, one for each run and row: pixels of an image, rows of a matrix, or a row of zeros where a
 * filter tap falls into the padding. So no kernel copies its left operand unless it wants to. The right operand is packed in
 * panels: for each step of the reduction, `width` columns side by side, width a multiple of FNN_LANES, zero filled.
 *
 * The sum runs over t, then d, one fused multiply-add each into one accumulator: it is the same sum in whatever tile the
 * element falls. |error| <= gamma_D * sum |a||b|, gamma_D = D*u / (1 - D*u), u = 2^-24, D = number of steps (2*D on the
 * scalar ISA, which rounds twice a step), and one rounding each for the bias and the residual.
 *
 * Source: the micro-kernel / packing split of Goto & van de Geijn, "Anatomy of High-Performance Matrix
 * Multiplication" (2008); row pointers after Dukhan, "The Indirect Convolution Algorithm" (2019).
 */
#ifndef FASTNN_GEMM_H
#define FASTNN_GEMM_H

#include "kernel.h"

/* What is done to a finished sum. The numbers are part of the kernels' arguments. */
enum fnn_activation { FNN_ACTIVATION_NONE, FNN_ACTIVATION_RELU, FNN_ACTIVATION_RELU6 };

enum {
    GEMM_RUNS = 64,   /* most runs in one call */
    GEMM_DEPTH = 1024 /* most steps in one run */
};

/* A row of the padding. */
extern const float FNN_FUNCTION(gemm_zeros)[GEMM_DEPTH];

struct gemm_tile {
    const float *rows[GEMM_RUNS][FNN_GEMM_ROWS];
    ptrdiff_t step[GEMM_RUNS];           /* where run t starts in the panel, in steps */
    ptrdiff_t runs, depth;               /* depth: steps in each run */
    const float *panel;                  /* steps, width */
    ptrdiff_t row_count, columns;        /* rows and columns that exist; width = columns rounded up to FNN_LANES */
    float *y;                            /* element (i, j) at y[offset[i] + j] */
    ptrdiff_t offset[FNN_GEMM_ROWS];
    bool accumulate;                     /* the sum starts from what y holds */
    const float *bias;                   /* columns, or null */
    const float *residual;               /* element (i, j) at residual[offset[i] + j], or null */
    enum fnn_activation activation;
};

void FNN_FUNCTION(gemm_tile)(const struct gemm_tile *tile);

/* NaN passes through, as everywhere in this library. */
static inline vec gemm_activate(vec a, enum fnn_activation activation) {
    if (activation == FNN_ACTIVATION_NONE) return a;
    a = vec_max(vec_zero(), a);
    return activation == FNN_ACTIVATION_RELU6 ? vec_min(vec_set1(6.0f), a) : a;
}

/* Panels of a packed right operand with `columns` columns and `steps` steps: all are FNN_GEMM_COLUMNS wide but the last,
 * which is as wide as its columns need, in whole vectors. The operand takes gemm_packed_size floats. */
static inline ptrdiff_t gemm_width(ptrdiff_t columns) { return fnn_ceil_div(columns, FNN_LANES) * FNN_LANES; }
static inline ptrdiff_t gemm_packed_size(ptrdiff_t columns, ptrdiff_t steps) { return gemm_width(columns) * steps; }
static inline ptrdiff_t gemm_panels(ptrdiff_t columns) { return fnn_ceil_div(columns, FNN_GEMM_COLUMNS); }
static inline ptrdiff_t gemm_panel_columns(ptrdiff_t columns, ptrdiff_t panel) {
    return fnn_min(columns - panel * FNN_GEMM_COLUMNS, FNN_GEMM_COLUMNS);
}

/* Products of tiles of rows by panels, in an order that finds panels in the cache: one block of panels after the other, each by all
 * tiles, a tile by all panels of the block. Counted product by product, so that threads share them evenly wherever a block ends. */
struct gemm_walk {
    ptrdiff_t tiles, panels, blocks;
};

/* Some neighbouring products of one tile. */
struct gemm_piece {
    ptrdiff_t tile;
    struct fnn_range panels;
};

/* `most`: panels in a block. */
static inline struct gemm_walk gemm_walk(ptrdiff_t tiles, ptrdiff_t panels, ptrdiff_t most) {
    return (struct gemm_walk){tiles, panels, fnn_ceil_div(panels, fnn_max(most, 1))};
}

/* The piece that begins with product `index`, without those from `end` on. */
static inline struct gemm_piece gemm_piece_at(const struct gemm_walk *walk, ptrdiff_t index, ptrdiff_t end) {
    const ptrdiff_t block = ((index / walk->tiles + 1) * walk->blocks - 1) / walk->panels;
    const ptrdiff_t first = block * walk->panels / walk->blocks, last = (block + 1) * walk->panels / walk->blocks;
    const ptrdiff_t place = index - first * walk->tiles, panel = first + place % (last - first);
    return (struct gemm_piece){place / (last - first), {panel, fnn_min(last, panel + end - index)}};
}

#endif
