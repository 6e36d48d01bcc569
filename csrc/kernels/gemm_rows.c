/* The product of gemm_rows.h. */
#include "gemm_rows.h"
#include "gemm_strip.h"
#include "gradient_sums.h"

enum {
    PANEL_FLOATS = 128 * 1024, /* panels that a tile walks through: a part of the second-level cache */
    SHALLOW = 64,              /* steps: a tile of fewer takes hardly longer than finding it */
    SHALLOW_TILES = 8          /* so many follow each other then */
};

/* Rows of a tile, panels [begin, end), steps [d, d + tile->depth). */
static void run_tile(const struct gemm_rows *p, struct fnn_range rows, struct fnn_range panels, ptrdiff_t d,
                     struct gemm_strip *tile) {
    const ptrdiff_t row = rows.begin;
    const bool last = d + tile->depth == p->depth;
    tile->x = p->x + row * p->depth + d;
    tile->row_count = rows.end - row;
    tile->accumulate = d > 0;
    tile->activation = last ? p->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t panel = panels.begin; panel < panels.end; panel++) {
        const ptrdiff_t column = panel * FNN_GEMM_COLUMNS;
        tile->columns = gemm_panel_columns(p->columns, panel);
        tile->panel = p->packed + column * p->depth + d * gemm_width(tile->columns);
        tile->y = p->y + row * p->columns + column;
        tile->bias = last && p->bias ? p->bias + column : NULL;
        tile->residual = last && p->residual ? p->residual + row * p->columns + column : NULL;
        tile->moments = last && p->moments ? p->moments + row / p->block_rows * 3 * p->columns + column : NULL;
        tile->gradient = last ? p->gradient : NULL;
        tile->gradient_at = row * p->columns + column;
        tile->gradient_channel = column;
        tile->fetch = panel == panels.begin && d == 0 && p->depth > SHALLOW
                          ? (uintptr_t)(p->x + row * p->depth) + (size_t)(tile->row_count * p->depth) * sizeof(float)
                          : 0;
        FNN_FUNCTION(gemm_strip)(tile);
    }
}

/* Rows that are cut into tiles evenly. */
static void run_rows(const struct gemm_rows *p, struct fnn_range rows, struct fnn_range panels,
                     struct gemm_strip *tile) {
    const ptrdiff_t count = rows.end - rows.begin, tiles = fnn_ceil_div(count, FNN_GEMM_ROWS);
    if (p->gradient) {
        tile->sums = p->sums + rows.begin / p->block_rows * 2 * p->columns;
        clear_sums(
            tile->sums, p->columns,
            (struct fnn_range){panels.begin * FNN_GEMM_COLUMNS, fnn_min(panels.end * FNN_GEMM_COLUMNS, p->columns)});
    }
    if (p->depth <= SHALLOW && !p->block_rows) {
        tile->depth = p->depth;
        run_tile(p, rows, panels, 0, tile);
        return;
    }
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const struct fnn_range some = {rows.begin + i * count / tiles, rows.begin + (i + 1) * count / tiles};
        tile->moment_rows_seen = some.begin - rows.begin;
        for (ptrdiff_t d = 0; d < p->depth; d += tile->depth) {
            tile->depth = fnn_min(p->depth - d, GEMM_DEPTH);
            run_tile(p, some, panels, d, tile);
        }
    }
}

/* Rows of a part of the work. Tiles with few steps lie close together: hardware foresees what they read. */
static ptrdiff_t part_rows(const struct gemm_rows *p, const struct fnn_team *team) {
    enum { PARTS = 16 }; /* a thread, at least */
    if (p->block_rows) return p->block_rows;
    if (p->depth > SHALLOW) return FNN_GEMM_ROWS;
    const ptrdiff_t tiles = p->rows / (PARTS * FNN_GEMM_ROWS * team->size);
    return FNN_GEMM_ROWS * fnn_max(fnn_min(tiles, SHALLOW_TILES), 1);
}

/* Threads share tiles of rows, or blocks whose moments or sums are asked for: the tiles of a block are added in order. */
void FNN_FUNCTION(gemm_rows)(const struct gemm_rows *p, const struct fnn_team *team) {
    const ptrdiff_t panels = gemm_panels(p->columns);
    const ptrdiff_t parts = fnn_ceil_div(p->rows, part_rows(p, team));
    const struct gemm_walk walk = gemm_walk(parts, panels, PANEL_FLOATS / (p->depth * FNN_GEMM_COLUMNS));
    struct gemm_strip tile = {.row_step = p->depth, .y_step = p->columns};
    tile.stream = p->depth <= GEMM_DEPTH && gemm_streams(p->residual, p->y, p->rows, p->columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(parts * panels, 1, team); fnn_take(&work, &range);)
        while (range.begin < range.end) {
            const struct gemm_piece piece = gemm_piece_at(&walk, range.begin, range.end);
            struct fnn_range rows = {piece.tile * p->rows / parts, (piece.tile + 1) * p->rows / parts};
            if (p->block_rows)
                rows =
                    (struct fnn_range){piece.tile * p->block_rows, fnn_min((piece.tile + 1) * p->block_rows, p->rows)};
            run_rows(p, rows, piece.panels, &tile);
            range.begin += piece.panels.end - piece.panels.begin;
        }
    if (tile.stream) vec_fence();
}
