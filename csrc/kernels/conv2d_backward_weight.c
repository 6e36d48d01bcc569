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
 * A product of dy (transposed, rows: output channels) by patches (columns: r, s, c in the order of dw), both read in place
 * where a panel of columns is whole vectors of one tap, else patches are copied panel by panel. Each chunk is summed in blocks of
 * 192 pixels, blocks and then chunks in order.
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
    bool in_place;             /* a panel is whole vectors of one tap */
    ptrdiff_t panels_per_tap;  /* in place */
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
    for (ptrdiff_t i = 0; i < block->count; i++) {
        ptrdiff_t h = p * g->stride_h - g->pad_top, w = q * g->stride_w - g->pad_left;
        block->h[i] = h;
        block->w[i] = w;
        block->offset[i] = ((n * g->height + h) * g->width + w) * g->channels;
        if (++q == g->out_width) {
            q = 0;
            if (++p == g->out_height) p = 0, n++;
        }
    }
}

/* Columns of one panel: first and number. */
static struct fnn_range panel_columns(const struct backward_weight *b, ptrdiff_t panel) {
    if (!b->in_place) {
        ptrdiff_t first = panel * FNN_GEMM_COLUMNS;
        return (struct fnn_range){first, fnn_min(first + FNN_GEMM_COLUMNS, b->columns)};
    }
    ptrdiff_t tap = panel / b->panels_per_tap, c = panel % b->panels_per_tap * FNN_GEMM_COLUMNS;
    ptrdiff_t end = fnn_min(c + FNN_GEMM_COLUMNS, b->group_channels);
    return (struct fnn_range){tap * b->group_channels + c, tap * b->group_channels + end};
}

/* Displacement of a tap, and whether it is inside the image for pixel i. */
struct tap {
    ptrdiff_t h, w, offset;
};

static struct tap tap_at(const struct conv2d_geometry *g, ptrdiff_t tap) {
    ptrdiff_t h = tap / g->kernel_width * g->dilation_h, w = tap % g->kernel_width * g->dilation_w;
    return (struct tap){h, w, (h * g->width + w) * g->channels};
}

static inline bool tap_inside(const struct conv2d_geometry *g, const struct pixel_block *block, const struct tap *tap,
                              ptrdiff_t i) {
    return conv2d_inside(block->h[i] + tap->h, g->height) & conv2d_inside(block->w[i] + tap->w, g->width);
}

static void point_at_columns(const struct backward_weight *b, ptrdiff_t group, struct fnn_range columns,
                             struct pixel_block *block) {
    const struct conv2d_geometry *g = &b->geometry;
    const struct tap tap = tap_at(g, columns.begin / b->group_channels);
    const ptrdiff_t offset = tap.offset + group * b->group_channels + columns.begin % b->group_channels;
    for (ptrdiff_t i = 0; i < block->count; i++) {
        bool inside = tap_inside(g, block, &tap, i);
        block->columns[i] = inside ? b->args->x + (block->offset[i] + offset) : FNN_FUNCTION(gemm_zeros);
    }
}

/* Copies `count` <= FNN_GEMM_COLUMNS floats of one tap for every pixel of the block, into rows of the scratch panel from
 * column `at` on. Up to FNN_LANES - 1 floats behind are overwritten, but none behind the row. */
static void copy_tap(const struct backward_weight *b, const struct pixel_block *block, const struct tap *tap,
                     ptrdiff_t channel, ptrdiff_t at, ptrdiff_t count) {
    const struct conv2d_geometry *g = &b->geometry;
    for (ptrdiff_t i = 0; i < block->count; i++) {
        bool inside = tap_inside(g, block, tap, i);
        const float *from = inside ? b->args->x + (block->offset[i] + tap->offset + channel) : FNN_FUNCTION(gemm_zeros);
        float *to = b->scratch + i * FNN_GEMM_COLUMNS + at;
        ptrdiff_t done = 0;
        for (; done + FNN_LANES <= count; done += FNN_LANES) vec_store(to + done, vec_load(from + done));
        vec rest = vec_load_partial(from + done, count - done);
        ptrdiff_t room = fnn_min(FNN_GEMM_COLUMNS - at - done, FNN_LANES);
        if (count > done) vec_store_partial(to + done, rest, room);
    }
}

static void copy_columns(const struct backward_weight *b, ptrdiff_t group, struct fnn_range columns,
                         struct pixel_block *block) {
    for (ptrdiff_t column = columns.begin; column < columns.end;) {
        ptrdiff_t c = column % b->group_channels, count = fnn_min(b->group_channels - c, columns.end - column);
        const struct tap tap = tap_at(&b->geometry, column / b->group_channels);
        copy_tap(b, block, &tap, group * b->group_channels + c, column - columns.begin, count);
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
        if (b->in_place) point_at_columns(b, group, columns, block);
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
    struct pixel_block block;
    bool first = true;
    do { /* at least once: a chunk without pixels is a sum of zero */
        block.first = pixels.begin;
        block.count = fnn_min(pixels.end - pixels.begin, CONV2D_PIXEL_BLOCK);
        add_block(b, group, rows, panels, first, &block, dw, dbias);
        first = false;
        pixels.begin += block.count;
    } while (pixels.begin < pixels.end);
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
    b.in_place = b.group_channels % FNN_GEMM_COLUMNS == 0 ||
                 (b.group_channels % FNN_LANES == 0 && b.group_channels > 2 * FNN_GEMM_COLUMNS);
    b.panels_per_tap = gemm_panels(b.group_channels);
    b.panels = b.in_place ? g->kernel_height * g->kernel_width * b.panels_per_tap : gemm_panels(b.columns);
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
