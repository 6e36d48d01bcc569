/* Convolution backward with respect to its weight and bias:
 *
 *   dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] * x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *   dbias[k]    = sum over n, p, q of dy[n,p,q,k]
 *
 * x N,H,W,C   dy N,P,Q,K   dw K,R,S,C/G, overwritten   dbias K, overwritten, or null. No aliasing.
 * chunks: into how many parts the N*P output rows are cut, >= 1; chosen from the shape alone, because it decides the order
 * of the sum. transposed: 1 takes the form of conv2d_weight_taps.c, for filters of which a row makes bad vectors; its workspace is
 * described there. Else 1x1 filters without groups and padding take that of linear_tall.c: chunks of N*P*Q pixels, its workspace and error.
 * workspace: if chunks > 1, chunks * (K*R*S*(C/G) + K) floats; then for each thread of the team
 * workspace_stride >= block_rows * R * strip_row + CONV2D_PIXEL_BLOCK * ceil(rows/gemm_rows) * up(gemm_rows, lanes) floats, rows =
 * min(K/G, CONV2D_ROW_BLOCK), up: rounded up; block_rows and strip_row as in plan_blocks.
 *
 * A product of dy (transposed, rows: output channels) by patches (columns: r, s, c in the order of dw). Patches lie in strips
 * (conv2d_strip.h) of at most CONV2D_CHANNEL_BLOCK channels, a block of output rows at a time. A run of columns, those that lie side
 * by side in a strip, is a filter row (S*C; all channels, dilation_w = 1) or a
 * tap; a slice is the part of a run that fits the register tile. dy is read in place, or, where its
 * pixels lie far apart and some slices use it, packed for tiles of rows. Each chunk is summed in equal blocks of at most CONV2D_PIXEL_BLOCK
 * pixels (at least one row, or an equal part of a longer one), blocks and then chunks in order.
 *
 * Parallel over (group, chunk, block of output channels, slice).
 * Error bound: gamma_D * sum |dy||x|, D = 192 + blocks in a chunk + chunks (scalar: 2*192 + ...).
 */
#include "conv2d_strip.h"
#include "conv2d_weight_taps.h"
#include "gemm_outer.h"
#include "lanes.h"
#include "linear.h"
#include "partial_sums.h"
#include "pixel_blocks.h"

enum {
    CONV2D_PIXEL_BLOCK = 192, /* a slice of a strip (AVX-512: 24 KB) and the rows of dy fit the first-level cache */
    CONV2D_ROW_BLOCK = 256, /* output channels in a unit of work */
    CONV2D_CHANNEL_BLOCK = 128, /* input channels in a strip */
    CONV2D_STRIP_BLOCK = 96 * 1024 /* floats of strips: a part of the second-level cache */
};

struct backward_weight {
    const struct fnn_conv2d_backward_weight_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_strip strip;
    ptrdiff_t group_channels, group_out_channels, columns; /* columns: R*S*C/G */
    ptrdiff_t rows; /* output rows */
    struct pixel_blocks blocks;
    bool by_tap; /* a run is a tap, else a filter row */
    ptrdiff_t channel_blocks, row_blocks, slices;
    float *strips, *copy; /* this thread's workspace; copy: of dy */
};

/* A block of pixels: where it lies in dy, and where each pixel's patch begins in the strips. The block after it is asked for
 * meanwhile, a share with each tile. */
struct pixel_block {
    ptrdiff_t first, count;
    ptrdiff_t next_first, next_count, share, shares;
    const float *dy; /* of the first pixel and output channel of the unit */
    ptrdiff_t dy_stride;
    bool packed; /* dy: for one tile of rows after the other */
    ptrdiff_t at[CONV2D_PIXEL_BLOCK];
    const float *columns[CONV2D_PIXEL_BLOCK]; /* the right operand */
};

/* A unit of work but for its slices: rows are output channels. */
struct unit {
    ptrdiff_t group;
    struct fnn_range rows, slices;
    float *dw, *dbias;
};

/* The shape of strips and blocks. */
static void plan_blocks(struct backward_weight *b) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t channels = fnn_min(b->group_channels, CONV2D_CHANNEL_BLOCK);
    b->channel_blocks = fnn_ceil_div(b->group_channels, CONV2D_CHANNEL_BLOCK);
    b->by_tap = g->dilation_w > 1 || b->channel_blocks > 1 || channels % FNN_GEMM_COLUMNS == 0;
    b->blocks.width = g->out_width;
    b->blocks.pieces = fnn_max(fnn_ceil_div(g->out_width, CONV2D_PIXEL_BLOCK), 1);
    /* by taps, an odd number of vectors: pixels side by side spread over the sets of the cache */
    b->strip = conv2d_strip_of(g, b->args->x, b->by_tap ? gemm_width(channels) + FNN_LANES : channels);
    const ptrdiff_t longest = pixel_blocks_longest(&b->blocks);
    b->strip.row_stride = conv2d_strip_row(&b->strip, longest);
    b->blocks.rows =
        fnn_min(CONV2D_PIXEL_BLOCK / longest, CONV2D_STRIP_BLOCK / (g->kernel_height * b->strip.row_stride));
    b->blocks.rows = b->blocks.pieces > 1 ? 1 : fnn_max(b->blocks.rows, 1);
}

/* The slices of one block of channels, numbered run by run. */
struct slicing {
    ptrdiff_t first_channel, channels, run_columns, run_slices;
};

static struct slicing slicing_of(const struct backward_weight *b, ptrdiff_t channel_block) {
    struct slicing s = {.first_channel = channel_block * CONV2D_CHANNEL_BLOCK};
    s.channels = fnn_min(b->group_channels - s.first_channel, CONV2D_CHANNEL_BLOCK);
    s.run_columns = b->by_tap ? s.channels : s.channels * b->geometry.kernel_width;
    s.run_slices = fnn_ceil_div(s.run_columns, FNN_GEMM_COLUMNS);
    return s;
}

static ptrdiff_t slices_in_block(const struct backward_weight *b, ptrdiff_t channel_block) {
    ptrdiff_t runs = b->geometry.kernel_height * (b->by_tap ? b->geometry.kernel_width : 1);
    return runs * slicing_of(b, channel_block).run_slices;
}

/* A slice: `count` columns from `column` on in the order of dw, found `at` floats behind a patch's begin. */
struct slice {
    ptrdiff_t at, column, count;
};

static struct slice slice_at(const struct backward_weight *b, const struct slicing *s, ptrdiff_t index) {
    const struct conv2d_strip *strip = &b->strip;
    const ptrdiff_t run = index / s->run_slices, part = index % s->run_slices;
    ptrdiff_t r = b->by_tap ? run / strip->filter_columns : run, tap = b->by_tap ? run % strip->filter_columns : 0;
    ptrdiff_t first = part * FNN_GEMM_COLUMNS, end = fnn_min(first + FNN_GEMM_COLUMNS, s->run_columns);
    return (struct slice){
        .at = r * strip->row_stride + tap * strip->dilation_w * strip->pixel_stride + first,
        .column = (r * strip->filter_columns + tap) * b->group_channels + s->first_channel + first,
        .count = end - first,
    };
}

/* Strips for a block of pixels, one for each output row. */
static void fill_strips(const struct backward_weight *b, struct fnn_range channels, struct pixel_block *block) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t size = b->strip.filter_rows * b->strip.row_stride, step = b->strip.stride_w * b->strip.pixel_stride;
    float *to = b->strips;
    for (ptrdiff_t i = 0; i < block->count; to += size) {
        ptrdiff_t q = (block->first + i) % g->out_width, row = (block->first + i) / g->out_width;
        ptrdiff_t p = row % g->out_height, count = fnn_min(g->out_width - q, block->count - i);
        conv2d_fill_strip(&b->strip, row / g->out_height, p * g->stride_h - g->pad_top, q * g->stride_w - g->pad_left,
                          channels, count, to);
        for (ptrdiff_t j = 0; j < count; j++) block->at[i + j] = to - b->strips + j * step;
        i += count;
    }
}

/* Copies dy for one tile of rows after the other: [tile][pixel][gemm_width(FNN_GEMM_ROWS)]. */
static void pack_tiles(const float *dy, ptrdiff_t stride, ptrdiff_t channels, ptrdiff_t count, float *packed) {
    const ptrdiff_t tiles = fnn_ceil_div(channels, FNN_GEMM_ROWS), width = gemm_width(FNN_GEMM_ROWS);
    for (ptrdiff_t i = 0; i < count; i++, dy += stride, packed += width)
        for (ptrdiff_t t = 0; t < tiles; t++) {
            const ptrdiff_t k = t * channels / tiles, rows = (t + 1) * channels / tiles - k;
            for (ptrdiff_t j = 0; j < rows; j += FNN_LANES)
                vec_store(packed + t * count * width + j, load_lanes(dy + k + j, lanes_left(channels - k - j)));
        }
}

/* Finds dy for the channels of a unit: in place, or, if its pixels lie far apart and some slices use them, packed, so that a tile of rows
 * finds them side by side. */
static void find_gradient(const struct backward_weight *b, const struct unit *unit, struct pixel_block *block) {
    enum { FAR = 192, SOME_SLICES = 4 };
    const ptrdiff_t channels = unit->rows.end - unit->rows.begin, out_channels = b->geometry.out_channels;
    const float *dy = b->args->dy + block->first * out_channels + unit->rows.begin;
    block->dy = dy;
    block->dy_stride = out_channels;
    block->packed = out_channels >= FAR && unit->slices.end - unit->slices.begin >= SOME_SLICES;
    if (block->packed) {
        pack_tiles(dy, out_channels, channels, block->count, b->copy);
        block->dy = b->copy;
        block->dy_stride = gemm_width(FNN_GEMM_ROWS);
    }
}

/* Asks for this tile's share of the gradients of the next block. */
static void fetch_share(const struct backward_weight *b, const struct unit *unit, struct pixel_block *block) {
    const ptrdiff_t begin = block->share * block->next_count / block->shares;
    const ptrdiff_t end = ++block->share * block->next_count / block->shares;
    for (ptrdiff_t i = block->next_first + begin; i < block->next_first + end; i++)
        for (ptrdiff_t k = unit->rows.begin; k < unit->rows.end; k += FNN_LINE)
            __builtin_prefetch(b->args->dy + i * b->geometry.out_channels + k, 0, 2);
}

/* One slice of one block: rows of dw are output channels, tile by tile. */
static void multiply_slice(const struct backward_weight *b, const struct unit *unit, const struct slice *slice,
                           struct pixel_block *block, bool first) {
    const ptrdiff_t rows = unit->rows.end - unit->rows.begin, tiles = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    struct gemm_outer tile = {
        .a_stride = block->dy_stride,
        .b = block->columns,
        .b_first = slice->at,
        .depth = block->count,
        .columns = slice->count,
        .y_stride = b->columns,
        .accumulate = !first,
    };
    for (ptrdiff_t i = 0; i < tiles; i++) {
        ptrdiff_t k = i * rows / tiles;
        tile.a = block->dy + (block->packed ? i * block->count * block->dy_stride : k);
        tile.row_count = (i + 1) * rows / tiles - k;
        tile.y = unit->dw + (unit->rows.begin + k) * b->columns + slice->column;
        fetch_share(b, unit, block);
        FNN_FUNCTION(gemm_outer)(&tile);
    }
}

/* Some slices of one block. */
static void multiply_slices(const struct backward_weight *b, const struct unit *unit, const struct slicing *slicing,
                            struct fnn_range slices, struct pixel_block *block, bool first) {
    for (ptrdiff_t i = slices.begin; i < slices.end; i++) {
        const struct slice slice = slice_at(b, slicing, i);
        multiply_slice(b, unit, &slice, block, first);
    }
}

/* The output channels whose dbias a unit makes: in whole lines, those that begin with one of its own. Small groups share a vector. */
static struct fnn_range bias_channels(const struct backward_weight *b, const struct unit *unit) {
    const ptrdiff_t begin = fnn_ceil_div(unit->rows.begin, FNN_LINE), end = fnn_ceil_div(unit->rows.end, FNN_LINE);
    return (struct fnn_range){begin * FNN_LINE, fnn_min(end * FNN_LINE, b->geometry.out_channels)};
}

/* Everything that the slices of a unit get from one block of pixels. */
static void add_block(const struct backward_weight *b, const struct unit *unit, bool first, struct pixel_block *block) {
    const ptrdiff_t rows = unit->rows.end - unit->rows.begin, slices = unit->slices.end - unit->slices.begin;
    ptrdiff_t done = 0; /* slices of the channel blocks gone by */
    block->share = 0;
    block->shares = slices * fnn_ceil_div(rows, FNN_GEMM_ROWS);
    find_gradient(b, unit, block);
    if (unit->slices.begin == 0 && unit->dbias)
        sum_rows(b->args->dy + block->first * b->geometry.out_channels, b->geometry.out_channels, block->count,
                 bias_channels(b, unit), !first, unit->dbias);
    for (ptrdiff_t c = 0; c < b->channel_blocks; c++) {
        const struct slicing slicing = slicing_of(b, c);
        const ptrdiff_t count = slices_in_block(b, c);
        const struct fnn_range range = {fnn_max(unit->slices.begin - done, 0), fnn_min(unit->slices.end - done, count)};
        done += count;
        if (range.begin >= range.end) continue;
        const ptrdiff_t channel = unit->group * b->group_channels + slicing.first_channel;
        fill_strips(b, (struct fnn_range){channel, channel + slicing.channels}, block);
        for (ptrdiff_t i = 0; i < block->count; i++) block->columns[i] = b->strips + block->at[i];
        multiply_slices(b, unit, &slicing, range, block, first);
    }
}

/* Slices of one (group, chunk, block of output channels), over all pixels of the chunk. */
static void run_unit(const struct backward_weight *b, ptrdiff_t index, struct fnn_range slices) {
    const ptrdiff_t chunks = b->args->chunks, out_channels = b->geometry.out_channels;
    ptrdiff_t row_block = index % b->row_blocks, chunk = index / b->row_blocks % chunks;
    struct unit unit = {
        .group = index / b->row_blocks / chunks, .slices = slices, .dw = b->args->dw, .dbias = b->args->dbias};
    unit.rows.begin = unit.group * b->group_out_channels + row_block * b->group_out_channels / b->row_blocks;
    unit.rows.end = unit.group * b->group_out_channels + (row_block + 1) * b->group_out_channels / b->row_blocks;
    if (chunks > 1) {
        unit.dw = b->args->workspace + chunk * (out_channels * b->columns + out_channels);
        unit.dbias = unit.dbias ? unit.dw + out_channels * b->columns : NULL;
    }
    const struct fnn_range rows = {chunk * b->rows / chunks, (chunk + 1) * b->rows / chunks};
    const ptrdiff_t blocks = pixel_blocks_of(&b->blocks, rows);
    struct pixel_block block;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const struct fnn_range pixels = pixel_block_at(&b->blocks, rows, i, blocks);
        block.first = pixels.begin;
        block.count = pixels.end - pixels.begin;
        block.next_first = block.first + block.count;
        block.next_count = fnn_min(b->rows * b->geometry.out_width - block.next_first, block.count);
        if (b->geometry.groups > 1) block.next_count = 0; /* a line holds several groups */
        add_block(b, &unit, i == 0, &block);
    }
}

/* Adds the chunks' parts, if there are any. */
static void combine(const struct backward_weight *b, const struct fnn_team *team) {
    const struct fnn_conv2d_backward_weight_args *args = b->args;
    const ptrdiff_t out_channels = b->geometry.out_channels, weights = out_channels * b->columns,
                    part = weights + out_channels;
    if (args->chunks == 1) return;
    fnn_barrier(team);
    add_parts(args->workspace, args->chunks, part, fnn_share_blocks(weights, 1024, team), args->dw);
    if (args->dbias && team->rank == team->size - 1)
        add_parts(args->workspace + weights, args->chunks, part, (struct fnn_range){0, out_channels}, args->dbias);
}

/* 1x1 filters: the weight gradient of a linear layer, of the pixels that they look at. */
static void strided_product(const struct fnn_conv2d_backward_weight_args *args, const struct conv2d_geometry *g,
                            const struct fnn_team *team) {
    const ptrdiff_t row = g->width * g->channels;
    const struct tall_pixels pixels = {
        .height = g->out_height,
        .width = g->out_width,
        .image = g->height * row,
        .row = g->stride_h * row,
        .step = g->stride_w * g->channels,
    };
    const struct fnn_linear_backward_weight_args product = {
        .x = args->x,
        .dy = args->dy,
        .dw = args->dw,
        .dbias = args->dbias,
        .workspace = args->workspace,
        .workspace_stride = args->workspace_stride,
        .chunks = args->chunks,
        .batch = g->batch * g->out_height * g->out_width,
        .channels = g->channels,
        .out_channels = g->out_channels,
    };
    FNN_FUNCTION(linear_tall_weight)(&product, &pixels, team);
}

void FNN_FUNCTION(conv2d_backward_weight)(const struct fnn_conv2d_backward_weight_args *args,
                                          const struct fnn_team *team) {
    if (args->transposed) {
        FNN_FUNCTION(conv2d_weight_taps)(args, team);
        return;
    }
    struct backward_weight b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &b.geometry;
    if (conv2d_is_strided_product(g)) {
        strided_product(args, g, team);
        return;
    }
    b.group_channels = g->channels / g->groups;
    b.group_out_channels = g->out_channels / g->groups;
    b.columns = g->kernel_height * g->kernel_width * b.group_channels;
    b.rows = g->batch * g->out_height;
    plan_blocks(&b);
    b.row_blocks = fnn_ceil_div(b.group_out_channels, CONV2D_ROW_BLOCK);
    for (ptrdiff_t c = 0; c < b.channel_blocks; c++) b.slices += slices_in_block(&b, c);
    const ptrdiff_t parts = args->chunks > 1 ? args->chunks * (b.columns + 1) * g->out_channels : 0;
    b.strips = args->workspace + parts + team->rank * args->workspace_stride;
    b.copy = b.strips + b.blocks.rows * g->kernel_height * b.strip.row_stride;

    const ptrdiff_t count = g->groups * args->chunks * b.row_blocks * b.slices;
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(count, fnn_whole_units(count, b.slices, team), team); fnn_take(&work, &range);)
        while (range.begin < range.end) {
            ptrdiff_t unit = range.begin / b.slices, slice = range.begin % b.slices;
            ptrdiff_t end = fnn_min(slice + range.end - range.begin, b.slices);
            run_unit(&b, unit, (struct fnn_range){slice, end});
            range.begin += end - slice;
        }
    combine(&b, team);
}
