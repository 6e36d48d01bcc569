/* The blocked product of gemm_blocked.h. */
#include "gemm_blocked.h"
#include "gemm_pack.h"
#include "gemm_packed.h"
#include "lanes.h"

/* A thread's rectangle of y and its workspace. */
struct rectangle {
    struct fnn_range rows, columns; /* columns begin at a panel */
    float *left, *right;
    bool by_rows; /* y is made tile by tile of rows, not panel by panel */
    bool stream;  /* and past the caches */
};

/* A block of the reduction, and which rows and columns of the rectangle it is multiplied with. */
struct block {
    ptrdiff_t d, depth; /* steps [d, d + depth) */
    struct fnn_range rows, columns;
    bool first, last; /* block of rows */
};

/* Rows are cut into tiles as even as they come: `higher` ones of rows + 1, then those of `rows`. */
struct cut {
    ptrdiff_t tiles, rows, higher;
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

static struct cut cut_rows(struct fnn_range rows) {
    const ptrdiff_t count = rows.end - rows.begin, tiles = fnn_ceil_div(count, FNN_GEMM_ROWS);
    return (struct cut){tiles, count / tiles, count % tiles};
}

static float *left_tile(const struct rectangle *r, const struct block *b, ptrdiff_t index) {
    return r->left + index * b->depth * left_width();
}

/* Rows of tile `index` from `row` on. */
static void pack_tile(const struct gemm_product *p, const struct block *b, ptrdiff_t row, ptrdiff_t count,
                      float *packed) {
    pack(p->a + row * p->a_row + b->d * p->a_step, p->a_row, p->a_step, count, b->depth, left_width(), packed);
}

/* All tiles of the block, from rows that lie side by side: step by step, in the order of memory, two steps a time since those of AVX2
 * share a line of the packed tile. */
static void pack_left_steps(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    const struct cut cut = cut_rows(b->rows);
    const ptrdiff_t width = left_width();
    for (ptrdiff_t d = 0; d < b->depth; d += 2) {
        const float *source = p->a + (b->d + d) * p->a_step + b->rows.begin;
        float *packed = r->left + d * width;
        ptrdiff_t left = b->rows.end - b->rows.begin;
        for (ptrdiff_t i = 0; left > 0; i++, packed += b->depth * width) {
            for (ptrdiff_t j = 0; j < width; j += FNN_LANES) {
                const ptrdiff_t lanes = lanes_left(left - j);
                vec_store(packed + j, load_lanes(source + j, lanes));
                if (d + 1 < b->depth) vec_store(packed + width + j, load_lanes(source + p->a_step + j, lanes));
            }
            const ptrdiff_t count = cut.rows + (i < cut.higher);
            source += count;
            left -= count;
        }
    }
}

static void pack_left(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    if (p->a_row == 1) {
        pack_left_steps(p, r, b);
        return;
    }
    const struct cut cut = cut_rows(b->rows);
    ptrdiff_t row = b->rows.begin;
    for (ptrdiff_t i = 0; i < cut.tiles; i++) {
        const ptrdiff_t count = cut.rows + (i < cut.higher);
        pack_tile(p, b, row, count, left_tile(r, b, i));
        row += count;
    }
}

/* The source of a panel, to be asked for while `tiles` tiles of `depth` steps run. */
static struct gemm_fetch panel_lines(const struct gemm_product *p, const float *source, ptrdiff_t depth,
                                     ptrdiff_t tiles) {
    const ptrdiff_t chunks = tiles * fnn_max(fnn_ceil_div(depth, GEMM_CHUNK), 1),
                    floats = GEMM_LINE / (ptrdiff_t)sizeof(float);
    const bool steps = p->b_step != 1; /* a step is a row of memory, else a column is */
    const ptrdiff_t rows = steps ? depth : FNN_GEMM_COLUMNS,
                    lines = fnn_ceil_div(steps ? FNN_GEMM_COLUMNS : depth, floats);
    return (struct gemm_fetch){
        .line = (uintptr_t)source,
        .count = fnn_ceil_div(rows * lines, chunks),
        .left = lines,
        .lines = lines,
        .rows = rows,
        .skip = (size_t)(steps ? p->b_step : p->b_column) * sizeof(float) - (size_t)(lines * GEMM_LINE),
    };
}

/* One panel times the block's rows. */
static void multiply_panel(const struct gemm_product *p, const struct rectangle *r, const struct block *b,
                           struct gemm_packed *strip, ptrdiff_t column) {
    const struct cut cut = cut_rows(b->rows);
    ptrdiff_t row = b->rows.begin;
    for (ptrdiff_t i = 0; i < cut.tiles; i += strip->tile_count) {
        strip->row_count = cut.rows + (i < cut.higher);
        strip->tile_count = i < cut.higher ? cut.higher : cut.tiles - i;
        strip->a = left_tile(r, b, i);
        strip->y = p->y + row * p->y_step + column;
        strip->y_next = strip->row_count * p->y_step;
        FNN_FUNCTION(gemm_packed)(strip);
        strip->source = NULL; /* packed by now */
        row += strip->tile_count * strip->row_count;
    }
}

/* All panels of a block of columns times one block of rows. */
static void run_block(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    const bool alone = b->first && b->last, last_block = b->d + b->depth == p->depth;
    const ptrdiff_t next_depth = fnn_min(p->depth - b->d - b->depth, b->depth);
    const ptrdiff_t tiles = cut_rows(b->rows).tiles;
    struct gemm_fetch fetch;
    struct gemm_packed strip = {
        .a_step = left_width(),
        .a_next = b->depth * left_width(),
        .depth = b->depth,
        .source_step = p->b_step,
        .y_step = p->y_step,
        .accumulate = b->d > 0,
        .activation = last_block ? p->activation : FNN_ACTIVATION_NONE,
        .fetch = &fetch,
    };
    pack_left(p, r, b);
    for (ptrdiff_t j = b->columns.begin; j < b->columns.end; j += FNN_GEMM_COLUMNS) {
        const float *source = p->b + j * p->b_column + b->d * p->b_step;
        strip.columns = fnn_min(b->columns.end - j, FNN_GEMM_COLUMNS);
        strip.panel = r->right + (alone ? 0 : j - b->columns.begin) * b->depth;
        if (b->first && p->b_step != 1 && strip.columns % FNN_LANES == 0)
            strip.source = source;
        else if (b->first)
            pack(source, p->b_column, p->b_step, strip.columns, b->depth, gemm_width(strip.columns), strip.panel);
        fetch = (struct gemm_fetch){.rows = 0};
        if (b->first && j + FNN_GEMM_COLUMNS < b->columns.end)
            fetch = panel_lines(p, source + FNN_GEMM_COLUMNS * p->b_column, b->depth, tiles);
        else if (b->last && next_depth > 0 && j + FNN_GEMM_COLUMNS >= b->columns.end)
            fetch =
                panel_lines(p, p->b + b->columns.begin * p->b_column + (b->d + b->depth) * p->b_step, b->depth, tiles);
        strip.bias = last_block && p->bias ? p->bias + j : NULL;
        multiply_panel(p, r, b, &strip, j);
    }
}

/* One tile of rows times all panels of a block of columns. */
static void multiply_row(const struct gemm_product *p, const struct rectangle *r, const struct block *b,
                         struct gemm_packed *strip, ptrdiff_t row) {
    strip->tile_count = (b->columns.end - b->columns.begin) / FNN_GEMM_COLUMNS;
    strip->columns = FNN_GEMM_COLUMNS;
    strip->panel = r->right;
    strip->y = p->y + row * p->y_step + b->columns.begin;
    strip->bias = p->bias ? p->bias + b->columns.begin : NULL;
    FNN_FUNCTION(gemm_packed)(strip);
    const ptrdiff_t column = strip->tile_count * FNN_GEMM_COLUMNS;
    strip->columns = b->columns.end - b->columns.begin - column;
    if (strip->columns == 0) return;
    strip->tile_count = 1;
    strip->panel += column * b->depth;
    strip->y += column;
    if (strip->bias) strip->bias += column;
    FNN_FUNCTION(gemm_packed)(strip);
}

/* As run_block, for a y that is large: tile by tile, so that pieces of its rows are written that are as long as a block of columns. */
static void run_block_by_rows(const struct gemm_product *p, const struct rectangle *r, const struct block *b) {
    const struct cut cut = cut_rows(b->rows);
    struct gemm_fetch fetch = {.rows = 0};
    struct gemm_packed strip = {
        .a = r->left,
        .a_step = left_width(),
        .depth = b->depth,
        .panel_next = FNN_GEMM_COLUMNS * b->depth,
        .y_step = p->y_step,
        .y_next = FNN_GEMM_COLUMNS,
        .bias_next = FNN_GEMM_COLUMNS,
        .stream = r->stream,
        .activation = p->activation,
        .fetch = &fetch,
    };
    for (ptrdiff_t j = b->columns.begin; b->first && j < b->columns.end; j += FNN_GEMM_COLUMNS) {
        const ptrdiff_t count = fnn_min(b->columns.end - j, FNN_GEMM_COLUMNS);
        pack(p->b + j * p->b_column, p->b_column, p->b_step, count, b->depth, gemm_width(count),
             r->right + (j - b->columns.begin) * b->depth);
    }
    ptrdiff_t row = b->rows.begin;
    for (ptrdiff_t i = 0; i < cut.tiles; i++, row += strip.row_count) {
        strip.row_count = cut.rows + (i < cut.higher);
        pack_tile(p, b, row, strip.row_count, r->left);
        multiply_row(p, r, b, &strip, row);
    }
}

/* Whether y is written in one go and waited for more than the sums are: it fits no second-level cache, and they are short. */
static bool writes_much(const struct gemm_product *p) {
    enum { SHORT = 48, MUCH = 1 << 19 /* floats */ };
    return p->depth <= SHORT && p->rows * p->columns >= MUCH;
}

/* Whether y is written in one go, in whole vectors, and is too large to be found in a cache by whoever reads it. */
static bool writes_past_caches(const struct gemm_product *p) {
    const bool whole = p->columns % FNN_LANES == 0 && p->y_step % FNN_LANES == 0;
    return whole && p->depth <= GEMM_DEPTH_BLOCK && streams(NULL, p->y, p->rows * p->columns);
}

static void run_rectangle(const struct gemm_product *p, const struct rectangle *r) {
    const ptrdiff_t depth_blocks = fnn_max(fnn_ceil_div(p->depth, GEMM_DEPTH_BLOCK), 1);
    const ptrdiff_t chunks = fnn_ceil_div(p->depth, depth_blocks * GEMM_CHUNK), depth = fnn_max(chunks, 1) * GEMM_CHUNK;
    const ptrdiff_t rows = r->rows.end - r->rows.begin;
    const ptrdiff_t blocks = fnn_ceil_div(fnn_ceil_div(rows, FNN_GEMM_ROWS), gemm_block_tiles(p->depth));
    struct block b;
    for (b.columns.begin = r->columns.begin; b.columns.begin < r->columns.end; b.columns.begin = b.columns.end) {
        b.columns.end = fnn_min(b.columns.begin + gemm_block_panels(p->depth) * FNN_GEMM_COLUMNS, r->columns.end);
        for (b.d = 0; b.d == 0 || b.d < p->depth; b.d += depth) {
            b.depth = fnn_min(depth, p->depth - b.d);
            for (ptrdiff_t i = 0; i < blocks; i++) {
                b.rows = (struct fnn_range){r->rows.begin + i * rows / blocks, r->rows.begin + (i + 1) * rows / blocks};
                b.first = i == 0;
                b.last = i == blocks - 1;
                if (r->by_rows)
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
    r.by_rows = r.stream || writes_much(p);
    r.right = r.left + fnn_min(tiles, gemm_block_tiles(p->depth)) * left_width() * fnn_min(p->depth, GEMM_DEPTH_BLOCK);
    if (r.rows.begin < r.rows.end && r.columns.begin < r.columns.end) run_rectangle(p, &r);
    if (r.stream) vec_fence();
}
