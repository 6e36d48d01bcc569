/* Convolution backward with respect to its weight and bias:
 *
 *   dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *   dbias[k]    = sum over n, p, q of dy[n,p,q,k]
 *
 * x N,H,W,C   dy N,P,Q,K   dw K,R,S,C/G, overwritten   dbias K, overwritten, or null. No aliasing.
 * chunks: into how many parts the N*P*Q pixels are cut, >= 1; chosen from the shape alone, because it decides the order of the
 * sum. workspace: chunks * (K*R*S*(C/G) + K) floats if chunks > 1, then for each thread of the team
 * CONV2D_PIXEL_BLOCK (192) * gemm_columns floats.
 *
 * A product of dy (transposed, rows: output channels) by patches (columns: r, s, c in the order of dw). dy is read in place. A
 * run of columns, those that lie side by side in x, is a filter row (S*C; dilation_w = 1, G = 1) or a tap (C/G). Where a run is
 * whole vectors, panels start with runs and patches are read in place, but for those over an end of the image; else
 * patches are copied panel by panel. Each chunk is summed in equal blocks of at most 192
 * pixels, blocks and then chunks in order.
 *
 * Parallel over (group, chunk, block of output channels, panel of columns).
 * Error bound: gamma_D * sum |dy||x|, D = 192 + blocks in a chunk + chunks (scalar: 2*192 + ...).
 */
#include "conv2d.h"
#include "gemm_outer.h"

enum {
    CONV2D_PIXEL_BLOCK = 192, /* a panel of patches (AVX-512: 24 KB) and the rows of dy fit the first-level cache */
    ROW_BLOCK = 128           /* output channels in a unit of work */
};

struct backward_weight {
    const struct fnn_conv2d_backward_weight_args *args;
    struct conv2d_geometry geometry;
    ptrdiff_t group_channels, group_out_channels, columns; /* columns: R*S*C/G */
    ptrdiff_t pixels;
    bool merged;              /* a run is a filter row, else a tap */
    bool in_place;            /* panels start with runs, else they are cut from all columns */
    ptrdiff_t run_columns;
    ptrdiff_t panels, row_blocks;
    float *scratch;            /* CONV2D_PIXEL_BLOCK, FNN_GEMM_COLUMNS: this thread's copy of patches */
};

/* A block of pixels: its origins in x, and where each step of the product finds its columns. */
struct pixel_block {
    ptrdiff_t first, count;
    ptrdiff_t offset[CONV2D_PIXEL_BLOCK], h[CONV2D_PIXEL_BLOCK], w[CONV2D_PIXEL_BLOCK];
    const float *columns[CONV2D_PIXEL_BLOCK];
};

static void find_origins(const struct conv2d_geometry *g, struct pixel_block *block) {
    ptrdiff_t q = block->first % g->out_width, p = block->first / g->out_width % g->out_height;
    ptrdiff_t n = block->first / g->out_width / g->out_height;
    for (ptrdiff_t i = 0; i < block->count;) { /* a row of the image, or what the block has of it */
        const ptrdiff_t end = fnn_min(i + g->out_width - q, block->count), h = p * g->stride_h - g->pad_top, shift = q - i;
        for (; i < end; i++) {
            ptrdiff_t w = (i + shift) * g->stride_w - g->pad_left;
            block->h[i] = h;
            block->w[i] = w;
            block->offset[i] = ((n * g->height + h) * g->width + w) * g->channels;
        }
        q = 0;
        if (++p == g->out_height) p = 0, n++;
    }
}

/* Columns of one panel. */
static struct fnn_range panel_columns(const struct backward_weight *b, ptrdiff_t panel) {
    if (!b->in_place) {
        ptrdiff_t first = panel * FNN_GEMM_COLUMNS;
        return (struct fnn_range){first, fnn_min(first + FNN_GEMM_COLUMNS, b->columns)};
    }
    ptrdiff_t panels = gemm_panels(b->run_columns), run = panel / panels * b->run_columns;
    ptrdiff_t first = panel % panels * FNN_GEMM_COLUMNS;
    return (struct fnn_range){run + first, run + fnn_min(first + FNN_GEMM_COLUMNS, b->run_columns)};
}

/* A part of a run: `count` <= FNN_GEMM_COLUMNS columns from `first` on. */
struct piece {
    ptrdiff_t h, w, offset; /* displacement of the run; offset: of the piece, in floats */
    ptrdiff_t first, count;
    ptrdiff_t least_w, w_span; /* the whole piece is in the image's width where 0 <= pixel's w - least_w < w_span */
};

static struct piece piece_at(const struct backward_weight *b, ptrdiff_t group, ptrdiff_t column, ptrdiff_t count) {
    const struct conv2d_geometry *g = &b->geometry;
    ptrdiff_t run = column / b->run_columns;
    struct piece piece = {.first = column % b->run_columns, .count = count};
    piece.h = (b->merged ? run : run / g->kernel_width) * g->dilation_h;
    piece.w = b->merged ? 0 : run % g->kernel_width * g->dilation_w;
    piece.offset = (piece.h * g->width + piece.w) * g->channels + group * b->group_channels + piece.first;
    ptrdiff_t first_tap = b->merged ? piece.first / g->channels : 0;
    ptrdiff_t last_tap = b->merged ? (piece.first + count - 1) / g->channels : 0;
    piece.least_w = -(piece.w + first_tap);
    piece.w_span = fnn_max(g->width - (last_tap - first_tap), 0);
    return piece;
}

static inline bool piece_inside(const struct backward_weight *b, const struct pixel_block *block,
                                const struct piece *piece, ptrdiff_t i) {
    return conv2d_inside(block->h[i] + piece->h, b->geometry.height) &
           conv2d_inside(block->w[i] - piece->least_w, piece->w_span);
}

/* Column j of a piece for pixel i, where part of the piece may be outside of the image. */
static float edge_column(const struct backward_weight *b, const struct pixel_block *block, const struct piece *piece,
                         ptrdiff_t i, ptrdiff_t j) {
    const struct conv2d_geometry *g = &b->geometry;
    ptrdiff_t tap = b->merged ? (piece->first + j) / g->channels : 0;
    bool inside = conv2d_inside(block->h[i] + piece->h, g->height) &
                  conv2d_inside(block->w[i] + piece->w + tap, g->width);
    return inside ? b->args->x[block->offset[i] + piece->offset + j] : 0.0f;
}

/* Panels of whole runs of vectors: in place but at the ends of the image. */
static void point_at_columns(const struct backward_weight *b, const struct piece *piece, struct pixel_block *block) {
    for (ptrdiff_t i = 0; i < block->count; i++) {
        bool inside = piece_inside(b, block, piece, i);
        block->columns[i] = inside ? b->args->x + (block->offset[i] + piece->offset) : FNN_FUNCTION(gemm_zeros);
    }
    if (!b->merged) return; /* a tap is inside or outside as a whole */
    for (ptrdiff_t i = 0; i < block->count; i++) {
        if (piece_inside(b, block, piece, i) || !conv2d_inside(block->h[i] + piece->h, b->geometry.height)) continue;
        float *row = b->scratch + i * FNN_GEMM_COLUMNS;
        for (ptrdiff_t j = 0; j < piece->count; j++) row[j] = edge_column(b, block, piece, i, j);
        block->columns[i] = row;
    }
}

/* Copies a piece for all pixels to columns [at, at + count) of the scratch panel. Columns behind it may be
 * overwritten, but none behind the row. */
static void copy_piece(const struct backward_weight *b, const struct pixel_block *block, const struct piece *piece,
                       ptrdiff_t at) {
    for (ptrdiff_t j = 0; j < piece->count; j += FNN_LANES) {
        const ptrdiff_t lanes = fnn_min(piece->count - j, FNN_LANES), room = fnn_min(FNN_GEMM_COLUMNS - at - j, FNN_LANES);
        const float *x = b->args->x;
        for (ptrdiff_t i = 0; i < block->count; i++) {
            float *row = b->scratch + i * FNN_GEMM_COLUMNS + at + j;
            if (piece_inside(b, block, piece, i)) {
                vec_store_partial(row, vec_load_partial(x + (block->offset[i] + piece->offset + j), lanes), room);
            } else {
                for (ptrdiff_t lane = 0; lane < lanes; lane++) row[lane] = edge_column(b, block, piece, i, j + lane);
            }
        }
    }
}

static void copy_columns(const struct backward_weight *b, ptrdiff_t group, struct fnn_range columns,
                         struct pixel_block *block) {
    for (ptrdiff_t column = columns.begin; column < columns.end;) {
        ptrdiff_t count = fnn_min(b->run_columns - column % b->run_columns, columns.end - column);
        const struct piece piece = piece_at(b, group, column, count);
        copy_piece(b, block, &piece, column - columns.begin);
        column += count;
    }
    for (ptrdiff_t i = 0; i < block->count; i++) block->columns[i] = b->scratch + i * FNN_GEMM_COLUMNS;
}

/* dbias of `count` channels from `k` on, over one block. */
static void sum_bias(const struct backward_weight *b, const struct pixel_block *block, ptrdiff_t k, ptrdiff_t count,
                     bool first, float *dbias) {
    const ptrdiff_t stride = b->geometry.out_channels;
    const float *dy = b->args->dy + block->first * stride + k;
    for (ptrdiff_t j = 0; j < count; j += FNN_LANES) {
        ptrdiff_t lanes = fnn_min(count - j, FNN_LANES);
        vec sum = vec_zero();
        for (ptrdiff_t i = 0; i < block->count; i++) sum = vec_add(sum, vec_load_partial(dy + i * stride + j, lanes));
        if (!first) sum = vec_add(vec_load_partial(dbias + k + j, lanes), sum);
        vec_store_partial(dbias + k + j, sum, lanes);
    }
}

/* Everything that panels [panels.begin, panels.end) of one block of output channels get from one block of pixels. */
static void add_block(const struct backward_weight *b, ptrdiff_t group, struct fnn_range rows, struct fnn_range panels,
                      bool first, struct pixel_block *block, float *dw, float *dbias) {
    const ptrdiff_t stride = b->geometry.out_channels, tiles = fnn_ceil_div(rows.end - rows.begin, FNN_GEMM_ROWS);
    find_origins(&b->geometry, block);
    if (panels.begin == 0 && dbias) sum_bias(b, block, rows.begin, rows.end - rows.begin, first, dbias);
    for (ptrdiff_t panel = panels.begin; panel < panels.end; panel++) {
        struct fnn_range columns = panel_columns(b, panel);
        const struct piece piece = piece_at(b, group, columns.begin, columns.end - columns.begin);
        if (b->in_place) point_at_columns(b, &piece, block);
        else copy_columns(b, group, columns, block);
        for (ptrdiff_t i = 0; i < tiles; i++) {
            ptrdiff_t k = rows.begin + i * (rows.end - rows.begin) / tiles;
            const struct gemm_outer tile = {
                .a = b->args->dy + block->first * stride + k,
                .a_stride = stride,
                .b = block->columns,
                .depth = block->count,
                .row_count = rows.begin + (i + 1) * (rows.end - rows.begin) / tiles - k,
                .columns = columns.end - columns.begin,
                .y = dw + k * b->columns + columns.begin,
                .y_stride = b->columns,
                .accumulate = !first,
            };
            FNN_FUNCTION(gemm_outer)(&tile);
        }
    }
}

/* Panels of one (group, chunk, block of rows), over all pixels of the chunk. */
static void run_chunk(const struct backward_weight *b, ptrdiff_t unit, struct fnn_range panels) {
    const ptrdiff_t chunks = b->args->chunks, out_channels = b->geometry.out_channels;
    ptrdiff_t row_block = unit % b->row_blocks, chunk = unit / b->row_blocks % chunks, group = unit / b->row_blocks / chunks;
    struct fnn_range rows = {row_block * b->group_out_channels / b->row_blocks,
                             (row_block + 1) * b->group_out_channels / b->row_blocks};
    rows.begin += group * b->group_out_channels;
    rows.end += group * b->group_out_channels;
    float *dw = b->args->dw, *dbias = b->args->dbias;
    if (chunks > 1) {
        dw = b->args->workspace + chunk * (out_channels * b->columns + out_channels);
        dbias = dbias ? dw + out_channels * b->columns : NULL;
    }
    struct fnn_range pixels = {chunk * b->pixels / chunks, (chunk + 1) * b->pixels / chunks};
    const ptrdiff_t count = pixels.end - pixels.begin;
    const ptrdiff_t blocks = fnn_max(fnn_ceil_div(count, CONV2D_PIXEL_BLOCK), 1); /* without pixels: a sum of zero */
    struct pixel_block block;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        block.first = pixels.begin + i * count / blocks;
        block.count = pixels.begin + (i + 1) * count / blocks - block.first;
        add_block(b, group, rows, panels, i == 0, &block, dw, dbias);
    }
}

/* total[i] = sum of the chunks' parts [chunk][stride], in order. */
static void sum_chunks(const float *parts, ptrdiff_t chunks, ptrdiff_t stride, struct fnn_range range, float *total) {
    for (ptrdiff_t i = range.begin; i < range.end; i += FNN_LANES) {
        ptrdiff_t lanes = fnn_min(range.end - i, FNN_LANES);
        vec sum = vec_load_partial(parts + i, lanes);
        for (ptrdiff_t chunk = 1; chunk < chunks; chunk++)
            sum = vec_add(sum, vec_load_partial(parts + chunk * stride + i, lanes));
        vec_store_partial(total + i, sum, lanes);
    }
}

void FNN_FUNCTION(conv2d_backward_weight)(const struct fnn_conv2d_backward_weight_args *args,
                                          const struct fnn_team *team) {
    struct backward_weight b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &b.geometry;
    b.group_channels = g->channels / g->groups;
    b.group_out_channels = g->out_channels / g->groups;
    b.columns = g->kernel_height * g->kernel_width * b.group_channels;
    b.pixels = g->batch * g->out_height * g->out_width;
    b.merged = g->groups == 1 && g->dilation_w == 1;
    b.run_columns = b.merged ? g->kernel_width * b.group_channels : b.group_channels;
    b.in_place = b.run_columns % FNN_LANES == 0;
    b.panels = b.in_place ? b.columns / b.run_columns * gemm_panels(b.run_columns) : gemm_panels(b.columns);
    b.row_blocks = fnn_ceil_div(b.group_out_channels, ROW_BLOCK);
    const ptrdiff_t part = g->out_channels * b.columns + g->out_channels;
    b.scratch = args->workspace + (args->chunks > 1 ? args->chunks * part : 0) +
                team->rank * (CONV2D_PIXEL_BLOCK * FNN_GEMM_COLUMNS);

    struct fnn_range range = fnn_share(g->groups * args->chunks * b.row_blocks * b.panels, team);
    while (range.begin < range.end) {
        ptrdiff_t unit = range.begin / b.panels, panel = range.begin % b.panels;
        ptrdiff_t end = fnn_min(panel + range.end - range.begin, b.panels);
        run_chunk(&b, unit, (struct fnn_range){panel, end});
        range.begin += end - panel;
    }
    if (args->chunks == 1) return;
    fnn_barrier(team);
    ptrdiff_t weights = g->out_channels * b.columns;
    sum_chunks(args->workspace, args->chunks, part, fnn_share_blocks(weights, 1024, team), args->dw);
    if (args->dbias && team->rank == team->size - 1)
        sum_chunks(args->workspace + weights, args->chunks, part, (struct fnn_range){0, g->out_channels}, args->dbias);
}
