/* The product of gemm_rows.h. */
#include "gemm_rows.h"
#include "gemm_strip.h"

enum { PANEL_FLOATS = 128 * 1024 }; /* panels that a tile walks through: a part of the second-level cache */

/* Tile `index` of `tiles`, panels [begin, end), steps [d, d + tile->depth). */
static void run_tile(const struct gemm_rows *p, ptrdiff_t index, ptrdiff_t tiles, struct fnn_range panels, ptrdiff_t d,
                     struct gemm_strip *tile) {
    const ptrdiff_t row = index * p->rows / tiles, next = (index + 1) * p->rows / tiles;
    const bool last = d + tile->depth == p->depth;
    tile->x = p->x + row * p->depth + d;
    tile->row_count = next - row;
    tile->accumulate = d > 0;
    tile->activation = last ? p->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t panel = panels.begin; panel < panels.end; panel++) {
        const ptrdiff_t column = panel * FNN_GEMM_COLUMNS;
        tile->columns = gemm_panel_columns(p->columns, panel);
        tile->panel = p->packed + column * p->depth + d * gemm_width(tile->columns);
        tile->y = p->y + row * p->columns + column;
        tile->bias = last && p->bias ? p->bias + column : NULL;
        tile->residual = last && p->residual ? p->residual + row * p->columns + column : NULL;
        tile->fetch = panel == panels.begin && d == 0
                          ? (uintptr_t)(p->x + row * p->depth) + (size_t)((next - row) * p->depth) * sizeof(float)
                          : 0;
        FNN_FUNCTION(gemm_strip)(tile);
    }
}

void FNN_FUNCTION(gemm_rows)(const struct gemm_rows *p, const struct fnn_team *team) {
    const ptrdiff_t tiles = fnn_ceil_div(p->rows, FNN_GEMM_ROWS), panels = gemm_panels(p->columns);
    const struct gemm_walk walk = gemm_walk(tiles, panels, PANEL_FLOATS / (p->depth * FNN_GEMM_COLUMNS));
    struct gemm_strip tile = {.row_step = p->depth, .y_step = p->columns};
    tile.stream = p->depth <= GEMM_DEPTH && gemm_streams(p->residual, p->y, p->rows, p->columns);
    struct fnn_range range = fnn_share(tiles * panels, team);
    while (range.begin < range.end) {
        const struct gemm_piece piece = gemm_piece_at(&walk, range.begin, range.end);
        for (ptrdiff_t d = 0; d < p->depth; d += tile.depth) {
            tile.depth = fnn_min(p->depth - d, GEMM_DEPTH);
            run_tile(p, piece.tile, tiles, piece.panels, d, &tile);
        }
        range.begin += piece.panels.end - piece.panels.begin;
    }
    if (tile.stream) vec_fence();
}
