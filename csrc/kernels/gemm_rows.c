/* The product of gemm_rows.h. */
#include "gemm_rows.h"
#include "gemm_strip.h"
#include "gradient_sums.h"

enum {
    PANEL_FLOATS = 128 * 1024, /* panels that a strip walks through: a part of the second-level cache */
    STRIP_FLOATS = 4 * 1024,   /* rows of x that stay in the first-level cache from panel to panel: half of one */
    STRIP_TILES = 8,           /* more need not be set up at once */
    THREAD_PARTS = 8           /* of the work, at least, where strips can be shorter */
};

/* Rows of a strip, panels [begin, end), steps [d, d + strip->depth). */
static void run_strip(const struct gemm_rows *p, struct fnn_range rows, struct fnn_range panels, ptrdiff_t d,
                      struct gemm_strip *strip) {
    const ptrdiff_t row = rows.begin;
    const bool last = d + strip->depth == p->depth;
    strip->x = p->x + row * p->depth + d;
    strip->row_count = rows.end - row;
    strip->gradient_ahead = strip->row_count * p->columns; /* the next strip's */
    strip->accumulate = d > 0;
    strip->activation = last ? p->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t panel = panels.begin; panel < panels.end; panel++) {
        const ptrdiff_t column = panel * FNN_GEMM_COLUMNS;
        strip->columns = gemm_panel_columns(p->columns, panel);
        strip->panel = p->packed + column * p->depth + d * gemm_width(strip->columns);
        strip->y = p->y + row * p->columns + column;
        strip->bias = last && p->bias ? p->bias + column : NULL;
        strip->residual = last && p->residual ? p->residual + row * p->columns + column : NULL;
        strip->moments = last && p->moments ? p->moments + row / p->block_rows * 3 * p->columns + column : NULL;
        strip->gradient = last ? p->gradient : NULL;
        strip->gradient_at = row * p->columns + column;
        strip->gradient_channel = column;
        strip->fetch = panel == panels.begin && d == 0
                           ? (uintptr_t)(p->x + row * p->depth) + (size_t)(strip->row_count * p->depth) * sizeof(float)
                           : 0;
        FNN_FUNCTION(gemm_strip)(strip);
    }
}

/* Tiles of a strip. */
static ptrdiff_t strip_tiles(const struct gemm_rows *p) {
    return fnn_max(fnn_min(STRIP_FLOATS / (p->depth * FNN_GEMM_ROWS), STRIP_TILES), 1);
}

/* Rows that are cut evenly into tiles, some of which at a time are a strip. */
static void run_rows(const struct gemm_rows *p, struct fnn_range rows, struct fnn_range panels,
                     struct gemm_strip *strip) {
    const ptrdiff_t count = rows.end - rows.begin, tiles = fnn_ceil_div(count, FNN_GEMM_ROWS);
    const ptrdiff_t strips = fnn_ceil_div(tiles, strip_tiles(p));
    if (p->gradient) {
        strip->sums = p->sums + rows.begin / p->block_rows * 2 * p->columns;
        clear_sums(
            strip->sums, p->columns,
            (struct fnn_range){panels.begin * FNN_GEMM_COLUMNS, fnn_min(panels.end * FNN_GEMM_COLUMNS, p->columns)});
    }
    for (ptrdiff_t i = 0; i < strips; i++) {
        const ptrdiff_t first = i * tiles / strips, last = (i + 1) * tiles / strips;
        const struct fnn_range some = {rows.begin + first * count / tiles, rows.begin + last * count / tiles};
        strip->moment_rows_seen = some.begin - rows.begin;
        for (ptrdiff_t d = 0; d < p->depth; d += strip->depth) {
            strip->depth = fnn_min(p->depth - d, GEMM_DEPTH);
            run_strip(p, some, panels, d, strip);
        }
    }
}

/* Tiles of a part: a strip that leaves enough parts for all threads. */
static ptrdiff_t part_tiles(const struct gemm_rows *p, ptrdiff_t panels, const struct fnn_team *team) {
    const ptrdiff_t tiles = fnn_ceil_div(p->rows, FNN_GEMM_ROWS), most = strip_tiles(p);
    return team->size == 1 ? most : fnn_max(fnn_min(tiles * panels / (THREAD_PARTS * team->size), most), 1);
}

/* Rows of a part; or those of a block whose moments or sums are asked for, since the tiles of a block are added in order. */
static struct fnn_range part_rows(const struct gemm_rows *p, ptrdiff_t part, ptrdiff_t parts) {
    if (p->block_rows) return (struct fnn_range){part * p->block_rows, fnn_min((part + 1) * p->block_rows, p->rows)};
    const ptrdiff_t tiles = fnn_ceil_div(p->rows, FNN_GEMM_ROWS);
    return (struct fnn_range){part * tiles / parts * p->rows / tiles, (part + 1) * tiles / parts * p->rows / tiles};
}

/* Threads share parts and panels. */
void FNN_FUNCTION(gemm_rows)(const struct gemm_rows *p, const struct fnn_team *team) {
    const ptrdiff_t panels = gemm_panels(p->columns);
    const ptrdiff_t most = p->block_rows ? p->block_rows : part_tiles(p, panels, team) * FNN_GEMM_ROWS;
    const ptrdiff_t parts = fnn_ceil_div(p->rows, most);
    const struct gemm_walk walk = gemm_walk(parts, panels, PANEL_FLOATS / (p->depth * FNN_GEMM_COLUMNS));
    struct gemm_strip strip = {.row_step = p->depth, .y_step = p->columns};
    strip.stream = p->depth <= GEMM_DEPTH && gemm_streams(p->residual, p->y, p->rows, p->columns);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(parts * panels, 1, team); fnn_take(&work, &range);)
        while (range.begin < range.end) {
            const struct gemm_piece piece = gemm_piece_at(&walk, range.begin, range.end);
            run_rows(p, part_rows(p, piece.tile, parts), piece.panels, &strip);
            range.begin += piece.panels.end - piece.panels.begin;
        }
    if (strip.stream) vec_fence();
}
