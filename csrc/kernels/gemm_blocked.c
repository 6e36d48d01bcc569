/* The blocked product of gemm_blocked.h. */
#include "gemm_blocked.h"
#include "gemm_pack.h"
#include "gemm_packed.h"
#include "lanes.h"

/* A thread's rectangle of y and its workspace. */
struct rectangle {
    struct fnn_range rows, columns; /* columns begin at a panel */
    float *left, *right;
    bool stream; /* y is written once, and past the caches */
};

/* A block of the reduction, and which tiles of the rectangle it is multiplied with. */
struct block {
    ptrdiff_t d, depth;            /* steps [d, d + depth) */
    ptrdiff_t tiles;               /* of all rows */
    struct fnn_range tile, column; /* tiles and columns of this block */
    bool first, last;              /* block of tiles */
};

static ptrdiff_t left_width(void) { return fnn_ceil_div(FNN_GEMM_ROWS, FNN_LANES) * FNN_LANES; }

/* packed[d][i] = source[i*row + d*step], i < count, padded with zeros to `width`; one of row and step is 1. */
static void pack(const float *source, ptrdiff_t row, ptrdiff_t step, ptrdiff_t count, ptrdiff_t depth, ptrdiff_t width,
                 float *packed) {
    if (step == 1)
        gemm_pack_transposed(source, row, count, depth, width, packed);
    else
        gemm_pack_rows(source, step, count, depth, width, packed);
}

/* The rows of tile `index` of the rectangle. */
static struct fnn_range tile_rows(const struct rectangle *r, ptrdiff_t index, ptrdiff_t tiles) {
    const ptrdiff_t rows = r->rows.end - r->rows.begin;
    return (struct fnn_range){r->rows.begin + index * rows / tiles, r->rows.begin + (index + 1) * rows / tiles};
}

/* Part `part` of `parts` of the panel that is packed next is asked for while a tile runs. */
static void fetch_part(const struct gemm_product *p, const float *next, ptrdiff_t depth, ptrdiff_t columns,
                       ptrdiff_t part, ptrdiff_t parts, struct gemm_packed *tile) {
    enum { LINE = 64 };
    const ptrdiff_t chunks = fnn_ceil_div(tile->depth, GEMM_CHUNK);
    tile->fetch_count = 0;
    if (!next || chunks == 0) return;
    if (p->b_step == 1) { /* a line of each of two columns a time */
        ptrdiff_t begin = part * columns / parts, end = (part + 1) * columns / parts;
        tile->fetch = (uintptr_t)(next + begin * p->b_column);
        tile->fetch_chunk = LINE;
        tile->fetch_second = (size_t)p->b_column * sizeof(float);
        tile->fetch_line = 2 * tile->fetch_second;
        tile->fetch_count = fnn_ceil_div(end - begin, 2);
    } else { /* two lines of each step */
        ptrdiff_t begin = part * depth / parts, end = (part + 1) * depth / parts;
        tile->fetch = (uintptr_t)(next + begin * p->b_step);
        tile->fetch_line = (size_t)p->b_step * sizeof(float);
        tile->fetch_second = LINE;
        tile->fetch_count = fnn_ceil_div(end - begin, chunks);
        tile->fetch_chunk = (size_t)tile->fetch_count * tile->fetch_line;
    }
}

/* One packed panel times the block's rows, which are packed as well if this is the first
 * panel that meets them. */
static void multiply_panel(const struct gemm_product *p, const struct rectangle *r, const struct block *b,
                           const float *next, ptrdiff_t next_depth, bool pack_left, struct gemm_packed *tile,
                           ptrdiff_t column) {
    const ptrdiff_t width = left_width(), tiles = b->tile.end - b->tile.begin;
    tile->columns = fnn_min(r->columns.end - column, FNN_GEMM_COLUMNS);
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const struct fnn_range rows = tile_rows(r, b->tile.begin + i, b->tiles);
        float *left = r->left + i * b->depth * width;
        tile->row_count = rows.end - rows.begin;
        if (pack_left)
            pack(p->a + rows.begin * p->a_row + b->d * p->a_step, p->a_row, p->a_step, tile->row_count, b->depth, width,
                 left);
        tile->a = left;
        tile->y = p->y + rows.begin * p->y_step + column;
        fetch_part(p, next, next_depth, FNN_GEMM_COLUMNS, i, tiles, tile);
        FNN_FUNCTION(gemm_packed)(tile);
    }
}

/* All panels of a block of columns times one block of rows. */
static void run_block(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    const bool alone = b->first && b->last, last_block = b->d + b->depth == p->depth;
    const ptrdiff_t next_depth = fnn_min(p->depth - b->d - b->depth, b->depth);
    struct gemm_packed tile = {
        .a_step = left_width(),
        .depth = b->depth,
        .y_step = p->y_step,
        .accumulate = b->d > 0,
        .stream = r->stream,
        .activation = last_block ? p->activation : FNN_ACTIVATION_NONE,
    };
    for (ptrdiff_t j = b->column.begin; j < b->column.end; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t count = fnn_min(r->columns.end - j, FNN_GEMM_COLUMNS);
        const float *source = p->b + j * p->b_column + b->d * p->b_step, *next = NULL;
        float *panel = r->right + (alone ? 0 : j - b->column.begin) * b->depth;
        if (b->first) pack(source, p->b_column, p->b_step, count, b->depth, gemm_width(count), panel);
        if (b->first && j + FNN_GEMM_COLUMNS < b->column.end)
            next = source + FNN_GEMM_COLUMNS * p->b_column;
        else if (b->last && next_depth > 0 && j + FNN_GEMM_COLUMNS >= b->column.end)
            next = p->b + b->column.begin * p->b_column + (b->d + b->depth) * p->b_step;
        tile.panel = panel;
        tile.bias = last_block && p->bias ? p->bias + j : NULL;
        multiply_panel(p, r, b, next, b->depth, j == b->column.begin, &tile, j);
    }
}

/* As run_block, for a y that goes past the caches: tile by tile, so that pieces of its rows are written that are as long as a block
 * of columns. */
static void run_block_by_rows(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    struct gemm_packed tile = {
        .a = r->left,
        .a_step = left_width(),
        .depth = b->depth,
        .y_step = p->y_step,
        .stream = true,
        .activation = p->activation,
    };
    for (ptrdiff_t j = b->column.begin; b->first && j < b->column.end; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t count = fnn_min(b->column.end - j, FNN_GEMM_COLUMNS);
        pack(p->b + j * p->b_column, p->b_column, p->b_step, count, b->depth, gemm_width(count),
             r->right + (j - b->column.begin) * b->depth);
    }
    for (ptrdiff_t i = b->tile.begin; i < b->tile.end; i++) {
        const struct fnn_range rows = tile_rows(r, i, b->tiles);
        tile.row_count = rows.end - rows.begin;
        pack(p->a + rows.begin * p->a_row, p->a_row, p->a_step, tile.row_count, b->depth, left_width(), r->left);
        for (ptrdiff_t j = b->column.begin; j < b->column.end; j += FNN_GEMM_COLUMNS) {
            tile.columns = fnn_min(b->column.end - j, FNN_GEMM_COLUMNS);
            tile.panel = r->right + (j - b->column.begin) * b->depth;
            tile.bias = p->bias ? p->bias + j : NULL;
            tile.y = p->y + rows.begin * p->y_step + j;
            FNN_FUNCTION(gemm_packed)(&tile);
        }
    }
}

/* Whether y is written in one go, in whole vectors, and is too large to be found in a cache by whoever reads it. */
static bool writes_past_caches(const struct gemm_product *p) {
    const bool whole = p->columns % FNN_LANES == 0 && p->y_step % FNN_LANES == 0;
    return whole && p->depth <= GEMM_DEPTH_BLOCK && streams(NULL, p->y, p->rows * p->columns);
}

static void run_rectangle(const struct gemm_product *p, const struct rectangle *r) {
    const ptrdiff_t depth_blocks = fnn_max(fnn_ceil_div(p->depth, GEMM_DEPTH_BLOCK), 1);
    const ptrdiff_t chunks = fnn_ceil_div(p->depth, depth_blocks * GEMM_CHUNK), depth = fnn_max(chunks, 1) * GEMM_CHUNK;
    struct block b = {.tiles = fnn_ceil_div(r->rows.end - r->rows.begin, FNN_GEMM_ROWS)};
    const ptrdiff_t blocks = fnn_ceil_div(b.tiles, GEMM_TILE_BLOCK);
    for (b.column.begin = r->columns.begin; b.column.begin < r->columns.end; b.column.begin = b.column.end) {
        b.column.end = fnn_min(b.column.begin + GEMM_PANEL_BLOCK * FNN_GEMM_COLUMNS, r->columns.end);
        for (b.d = 0; b.d == 0 || b.d < p->depth; b.d += depth) {
            b.depth = fnn_min(depth, p->depth - b.d);
            for (ptrdiff_t i = 0; i < blocks; i++) {
                b.tile = (struct fnn_range){i * b.tiles / blocks, (i + 1) * b.tiles / blocks};
                b.first = i == 0;
                b.last = i == blocks - 1;
                if (r->stream)
                    run_block_by_rows(p, r, &b);
                else
                    run_block(p, r, &b);
            }
        }
    }
}

/* About the time of a grid of down x across threads: its largest rectangle, and packing for it. */
static ptrdiff_t grid_cost(ptrdiff_t tiles, ptrdiff_t panels, ptrdiff_t down, ptrdiff_t across) {
    enum {
        TILE = FNN_GEMM_ROWS * FNN_GEMM_VECTORS,
        PACK_LEFT = 10 * FNN_GEMM_ROWS / FNN_LANES + 1,
        PACK_RIGHT = 10 * FNN_GEMM_VECTORS
    };
    tiles = fnn_ceil_div(tiles, down);
    panels = fnn_ceil_div(panels, across);
    return tiles * panels * TILE + tiles * PACK_LEFT + panels * PACK_RIGHT;
}

void FNN_FUNCTION(gemm_blocked)(const struct gemm_product *p, const struct fnn_team *team) {
    const ptrdiff_t tiles = fnn_ceil_div(p->rows, FNN_GEMM_ROWS), panels = gemm_panels(p->columns);
    ptrdiff_t down = 1;
    for (ptrdiff_t i = 2; i <= team->size; i++)
        if (grid_cost(tiles, panels, i, team->size / i) < grid_cost(tiles, panels, down, team->size / down)) down = i;
    const ptrdiff_t across = team->size / down, row = team->rank / across, column = team->rank % across;
    if (row >= down) return;
    const ptrdiff_t first = column * panels / across, end = (column + 1) * panels / across;
    struct rectangle r = {
        .rows = {row * p->rows / down, (row + 1) * p->rows / down},
        .columns = {first * FNN_GEMM_COLUMNS, fnn_min(end * FNN_GEMM_COLUMNS, p->columns)},
        .left = p->workspace + team->rank * p->workspace_stride,
        .stream = writes_past_caches(p),
    };
    r.right = r.left + fnn_min(tiles, GEMM_TILE_BLOCK) * left_width() * fnn_min(p->depth, GEMM_DEPTH_BLOCK);
    if (r.rows.begin < r.rows.end && r.columns.begin < r.columns.end) run_rectangle(p, &r);
    if (r.stream) vec_fence();
}
