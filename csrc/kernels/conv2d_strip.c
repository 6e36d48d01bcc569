/* Convolution forward on strips: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C, or with `planar` N,C,H,W   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null
 * y N,P,Q,K, overwritten; it may be the same array as residual; no other aliasing. pad_top and pad_left may be negative.
 * activation: enum fnn_activation of gemm.h. rows: output rows that are made from one strip; 1 where dilation_h > 1.
 * workspace: for each thread of the team workspace_stride >= R*S*C/G + strip rows * row floats, strip rows = (rows - 1)*stride_h + R,
 * row floats = roundup(span * C/G, lanes) + lanes, planar C/G * (roundup(span, lanes) + lanes), span =
 * (longest - 1)*stride_w + (S - 1)*dilation_w + 1, longest = Q cut into ceil(Q / CONV2D_PIECE) equal parts, rounded up.
 *
 * With stride 1 it is the gradient of the input too: x is dy, C and K change places, the padding is (R - 1)*dilation_h - pad_top
 * and so on, and packed is conv2d_pack_weight_backward's with rotated filters.
 *
 * A piece, some pixels of some output rows, is made from one strip: the patch of each pixel lies in it at the same distances, which
 * are listed once, in the order r, s, c of the sum. So an image that lies in planes is read as it is: its strip has planes too.
 * The sum leaves out filter rows that lie outside of the image. A large y goes past the caches (lanes.h).
 *
 * Where the output channels leave much of a vector empty and neighbouring pixels lie side by side in the strip, vectors lie along the
 * pixels instead (gemm_planes.h), and the results are turned. The sums are the same.
 *
 * Parallel over pieces, and over groups and panels where there are few; the sum of an element is the same in any tile, and in either
 * memory order of x. Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d_strip.h"
#include "gemm_planes.h"
#include "gemm_strip.h"

enum {
    CONV2D_PIECE = 112, /* output pixels of one row of a piece */
    ALONG_GAIN = 7      /* vectors lie along the pixels where that saves one product in so many */
};

struct strip_forward {
    const struct fnn_conv2d_strip_forward_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_strip strip;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*C/G */
    ptrdiff_t plane_stride;                              /* planar: floats of a plane in the strip */
    ptrdiff_t pieces, blocks, panels;                    /* of an output row, of an image's output rows, of a group */
    float *floats;                                       /* this thread's strip */
    int32_t *offsets;                                    /* this thread's: of each step in a patch */
    bool stream;
    bool along;                                          /* vectors lie along the pixels */
};

/* `rows` x `count` pixels from (n, p, q) on. */
struct piece {
    ptrdiff_t n, p, q, rows, count;
};

/* The filter rows of an output row that meet the image; the others' taps are zeros. */
static struct fnn_range rows_inside(const struct conv2d_geometry *g, ptrdiff_t p) {
    const ptrdiff_t h = p * g->stride_h - g->pad_top;
    const ptrdiff_t begin = fnn_min(fnn_ceil_div(fnn_max(-h, 0), g->dilation_h), g->kernel_height);
    const ptrdiff_t end = fnn_min(fnn_ceil_div(fnn_max(g->height - h, 0), g->dilation_h), g->kernel_height);
    return (struct fnn_range){begin, fnn_max(begin, end)};
}

/* Up to FNN_LANES channels, planes `from_step` apart, of the first of the `left` pixels of a row, to where pixels are `to_step` apart.
 * Where they follow each other whole vectors are written, as long as later pixels overwrite what is too much. */
static void turn_pixels(const float *from, ptrdiff_t from_step, ptrdiff_t channels, ptrdiff_t left, float *to,
                        ptrdiff_t to_step) {
    vec square[FNN_LANES];
#pragma GCC unroll 16
    for (ptrdiff_t c = 0; c < FNN_LANES; c++) square[c] = c < channels ? vec_load(from + c * from_step) : vec_zero();
    vec_transpose(square);
    const ptrdiff_t whole = to_step > channels ? 0 : left - (FNN_LANES - 1) / channels;
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < FNN_LANES; i++) {
        if (i < whole)
            vec_store(to + i * to_step, square[i]);
        else if (i < left)
            vec_store_partial(to + i * to_step, square[i], channels);
    }
}

/* What gemm_strip does, with vectors along the rows of the strip. */
static void multiply_along(const struct gemm_strip *strip) {
    const ptrdiff_t parts = fnn_ceil_div(strip->columns, PLANES_ROWS);
    const ptrdiff_t vectors = fnn_ceil_div(strip->row_count, FNN_LANES);
    const ptrdiff_t tiles = fnn_ceil_div(vectors, planes_vectors(fnn_ceil_div(strip->columns, parts)));
    float sums[FNN_LANES * PLANES_VECTORS * FNN_LANES];
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const ptrdiff_t first = i * vectors / tiles, end = (i + 1) * vectors / tiles;
        struct gemm_planes tile = {
            .x = strip->x + first * FNN_LANES,
            .offsets = strip->offsets,
            .depth = strip->depth,
            .weight_step = FNN_LANES,
            .vectors = end - first,
            .activation = strip->activation,
            .y_stride = PLANES_VECTORS * FNN_LANES,
        };
        for (ptrdiff_t part = 0; part < parts; part++) {
            const ptrdiff_t channel = part * strip->columns / parts;
            tile.rows = (part + 1) * strip->columns / parts - channel;
            tile.weights = strip->panel + channel;
            tile.bias = strip->bias ? strip->bias + channel : NULL;
            tile.y = sums + channel * tile.y_stride;
            FNN_FUNCTION(gemm_planes)(&tile);
        }
        for (ptrdiff_t v = first; v < end; v++)
            turn_pixels(sums + (v - first) * FNN_LANES, tile.y_stride, strip->columns, strip->row_count - v * FNN_LANES,
                        strip->y + v * FNN_LANES * strip->y_step, strip->y_step);
    }
}

/* One panel of output channels of one group, for all pixels of a piece. */
static void run_panel(const struct strip_forward *f, const struct piece *piece, ptrdiff_t group, ptrdiff_t panel) {
    const struct fnn_conv2d_strip_forward_args *args = f->args;
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t first = panel * FNN_GEMM_COLUMNS, k = group * f->group_out_channels + first;
    const ptrdiff_t columns = gemm_panel_columns(f->group_out_channels, panel);
    const ptrdiff_t row_steps = g->kernel_width * f->group_channels; /* of a filter row */
    const float *packed = args->packed + group * gemm_packed_size(f->group_out_channels, f->steps) + first * f->steps;
    struct gemm_strip tiles = {
        .row_step = g->stride_w * f->strip.pixel_stride,
        .row_count = piece->count,
        .columns = columns,
        .y_step = g->out_channels,
        .stream = f->stream,
        .bias = args->bias ? args->bias + k : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    for (ptrdiff_t row = 0; row < piece->rows; row++) {
        const ptrdiff_t pixel = (piece->n * g->out_height + piece->p + row) * g->out_width + piece->q;
        const ptrdiff_t offset = pixel * g->out_channels + k;
        const struct fnn_range inside = rows_inside(g, piece->p + row);
        tiles.depth = (inside.end - inside.begin) * row_steps;
        tiles.offsets = f->offsets + inside.begin * row_steps;
        tiles.panel = packed + inside.begin * row_steps * gemm_width(columns);
        tiles.x = f->floats + row * g->stride_h * f->strip.row_stride;
        tiles.y = args->y + offset;
        tiles.residual = args->residual ? args->residual + offset : NULL;
        if (f->along)
            multiply_along(&tiles);
        else
            FNN_FUNCTION(gemm_strip)(&tiles);
    }
}

/* The strip of a piece: the channels of one group. */
static void fill_strip(const struct strip_forward *f, const struct piece *piece, ptrdiff_t group) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t h = piece->p * g->stride_h - g->pad_top, w = piece->q * g->stride_w - g->pad_left;
    const ptrdiff_t begin = group * f->group_channels, end = begin + f->group_channels;
    struct conv2d_strip strip = f->strip;
    strip.filter_rows += (piece->rows - 1) * g->stride_h;
    if (!f->args->planar) {
        conv2d_fill_strip(&strip, piece->n, h, w, (struct fnn_range){begin, end}, piece->count, f->floats);
        return;
    }
    for (ptrdiff_t c = begin; c < end; c++) /* a plane is an image of one channel */
        conv2d_fill_strip(&strip, piece->n * g->channels + c, h, w, (struct fnn_range){0, 1}, piece->count,
                          f->floats + (c - begin) * f->plane_stride);
}

/* Panels [panels.begin, panels.end) of all groups' panels, for one piece. */
static void run_piece(const struct strip_forward *f, const struct piece *piece, struct fnn_range panels) {
    for (ptrdiff_t i = panels.begin; i < panels.end; i++) {
        const ptrdiff_t group = i / f->panels, panel = i % f->panels;
        if (i == panels.begin || panel == 0) fill_strip(f, piece, group);
        run_panel(f, piece, group, panel);
    }
}

static struct piece piece_at(const struct strip_forward *f, ptrdiff_t index) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t column = index % f->pieces, rows = index / f->pieces, block = rows % f->blocks;
    struct piece piece = {
        .n = rows / f->blocks,
        .p = block * g->out_height / f->blocks,
        .q = column * g->out_width / f->pieces,
    };
    piece.rows = (block + 1) * g->out_height / f->blocks - piece.p;
    piece.count = (column + 1) * g->out_width / f->pieces - piece.q;
    return piece;
}

/* Where each step of a sum finds its factor, from the first of a patch on. */
static void list_offsets(const struct strip_forward *f) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t channel_step = f->args->planar ? f->plane_stride : 1;
    int32_t *offset = f->offsets;
    for (ptrdiff_t r = 0; r < g->kernel_height; r++)
        for (ptrdiff_t s = 0; s < g->kernel_width; s++) {
            const ptrdiff_t tap = r * f->strip.row_stride + s * g->dilation_w * f->strip.pixel_stride;
            for (ptrdiff_t c = 0; c < f->group_channels; c++) *offset++ = (int32_t)(tap + c * channel_step);
        }
}

/* Whether vectors along the pixels save enough products. */
static bool lies_along(const struct strip_forward *f, ptrdiff_t longest) {
    const bool side_by_side = f->strip.pixel_stride == 1 && f->strip.stride_w == 1;
    if (!side_by_side || f->group_out_channels > FNN_LANES || f->args->residual || f->stream) return false;
    return ALONG_GAIN * f->group_out_channels * gemm_width(longest) <= (ALONG_GAIN - 1) * longest * FNN_LANES;
}

static struct strip_forward plan_strips(const struct fnn_conv2d_strip_forward_args *args, const struct fnn_team *team) {
    struct strip_forward f = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &f.geometry;
    f.group_channels = g->channels / g->groups;
    f.group_out_channels = g->out_channels / g->groups;
    f.steps = g->kernel_height * g->kernel_width * f.group_channels;
    f.pieces = fnn_ceil_div(g->out_width, CONV2D_PIECE);
    f.blocks = fnn_ceil_div(g->out_height, args->rows);
    f.panels = gemm_panels(f.group_out_channels);
    f.strip = conv2d_strip_of(g, args->x, args->planar ? 1 : f.group_channels);
    if (args->planar) f.strip.image_channels = 1;
    const ptrdiff_t longest = fnn_ceil_div(g->out_width, f.pieces);
    f.strip.row_stride = conv2d_strip_row(&f.strip, longest);
    f.plane_stride = ((args->rows - 1) * g->stride_h + g->kernel_height) * f.strip.row_stride;
    f.floats = args->workspace + team->rank * args->workspace_stride;
    f.offsets = (int32_t *)(void *)(f.floats + (args->planar ? f.group_channels : 1) * f.plane_stride);
    f.stream = gemm_streams(args->residual, args->y, g->batch * g->out_height * g->out_width * g->groups,
                            f.group_out_channels); /* each group's pixels are whole lines */
    f.along = lies_along(&f, longest);
    return f;
}

void FNN_FUNCTION(conv2d_strip_forward)(const struct fnn_conv2d_strip_forward_args *args, const struct fnn_team *team) {
    const struct strip_forward f = plan_strips(args, team);
    const struct conv2d_geometry *g = &f.geometry;
    list_offsets(&f);
    const ptrdiff_t count = g->batch * f.blocks * f.pieces, all_panels = g->groups * f.panels;
    const bool even = count >= 8 * team->size || count % team->size == 0;
    const ptrdiff_t parts = even ? 1 : all_panels; /* of the panels */
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(count * parts, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
            const struct piece piece = piece_at(&f, unit / parts);
            const ptrdiff_t part = unit % parts;
            run_piece(&f, &piece, (struct fnn_range){part * all_panels / parts, (part + 1) * all_panels / parts});
        }
    if (f.stream) vec_fence();
}
