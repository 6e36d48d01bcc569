/* Convolution forward for few channels, on strips: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing. pad_top and pad_left may be negative.
 * activation: enum fnn_activation of gemm.h.
 * workspace: for each thread of the team workspace_stride >= R * (roundup(span * C/G, lanes) + lanes) floats, span =
 * (longest - 1)*stride_w + (S - 1)*dilation_w + 1, longest = Q cut into ceil(Q / CONV2D_PIECE) equal parts, rounded up.
 *
 * With stride 1 it is the gradient of the input too: x is dy, C and K change places, the padding is (R - 1)*dilation_h - pad_top
 * and so on, and packed is conv2d_pack_weight_backward's with rotated filters.
 *
 * A piece of an output row is made from one strip: for each tile of its pixels and panel of channels the sum runs over the
 * filter rows, S*C/G steps each where dilation_w = 1, else over the taps.
 *
 * Parallel over pieces of output rows, and over groups and panels where there are few; the sum of an element is the same in
 * any tile. Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d_strip.h"
#include "gemm_strip.h"

enum { CONV2D_PIECE = 112 }; /* output pixels of one strip */

struct strip_forward {
    const struct fnn_conv2d_strip_forward_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_strip strip;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*C/G */
    ptrdiff_t pieces, panels;
};

/* Part of an output row: `count` pixels from (n, p, q) on, the first of which is number `pixel`. */
struct piece {
    ptrdiff_t n, p, q, pixel, count;
};

/* One panel of output channels of one group, for all pixels of a piece. */
static void run_panel(const struct strip_forward *f, const struct piece *piece, ptrdiff_t group, ptrdiff_t panel,
                      const float *strip) {
    const struct fnn_conv2d_strip_forward_args *args = f->args;
    const struct conv2d_geometry *g = &f->geometry;
    const bool by_tap = g->dilation_w > 1;
    const ptrdiff_t first = panel * FNN_GEMM_COLUMNS, k = group * f->group_out_channels + first;
    struct gemm_strip tile = {
        .row_step = g->stride_w * f->group_channels,
        .runs = g->kernel_height,
        .run_step = f->strip.row_stride,
        .inner_runs = by_tap ? g->kernel_width : 1,
        .inner_step = g->dilation_w * f->group_channels,
        .depth = by_tap ? f->group_channels : g->kernel_width * f->group_channels,
        .panel = args->packed + group * gemm_packed_size(f->group_out_channels, f->steps) + first * f->steps,
        .columns = gemm_panel_columns(f->group_out_channels, panel),
        .y_step = g->out_channels,
        .bias = args->bias ? args->bias + k : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    for (ptrdiff_t begin = 0; begin < piece->count; begin += tile.row_count) {
        const ptrdiff_t offset = (piece->pixel + begin) * g->out_channels + k;
        tile.row_count = gemm_strip_rows(piece->count - begin, tile.columns);
        tile.x = strip + begin * tile.row_step;
        tile.y = args->y + offset;
        tile.residual = args->residual ? args->residual + offset : NULL;
        FNN_FUNCTION(gemm_strip)(&tile);
    }
}

/* Panels [panels.begin, panels.end) of all groups' panels, for one piece. */
static void run_piece(const struct strip_forward *f, const struct piece *piece, struct fnn_range panels, float *strip) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t h = piece->p * g->stride_h - g->pad_top, w = piece->q * g->stride_w - g->pad_left;
    for (ptrdiff_t i = panels.begin; i < panels.end; i++) {
        ptrdiff_t group = i / f->panels, panel = i % f->panels, channel = group * f->group_channels;
        if (i == panels.begin || panel == 0)
            conv2d_fill_strip(&f->strip, piece->n, h, w, (struct fnn_range){channel, channel + f->group_channels},
                              piece->count, strip);
        run_panel(f, piece, group, panel, strip);
    }
}

void FNN_FUNCTION(conv2d_strip_forward)(const struct fnn_conv2d_strip_forward_args *args, const struct fnn_team *team) {
    struct strip_forward f = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &f.geometry;
    f.group_channels = g->channels / g->groups;
    f.group_out_channels = g->out_channels / g->groups;
    f.steps = g->kernel_height * g->kernel_width * f.group_channels;
    f.pieces = fnn_ceil_div(g->out_width, CONV2D_PIECE);
    f.panels = gemm_panels(f.group_out_channels);
    f.strip = (struct conv2d_strip){
        .image = args->x,
        .height = g->height,
        .width = g->width,
        .image_channels = g->channels,
        .filter_rows = g->kernel_height,
        .filter_columns = g->kernel_width,
        .dilation_h = g->dilation_h,
        .dilation_w = g->dilation_w,
        .stride_w = g->stride_w,
        .pixel_stride = f.group_channels,
    };
    f.strip.row_stride = conv2d_strip_row(&f.strip, fnn_ceil_div(g->out_width, f.pieces));
    float *strip = args->workspace + team->rank * args->workspace_stride;

    const ptrdiff_t rows = g->batch * g->out_height, all_panels = g->groups * f.panels;
    const ptrdiff_t parts = rows * f.pieces >= 8 * team->size ? 1 : all_panels; /* of the panels */
    struct fnn_range range = fnn_share(rows * f.pieces * parts, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
        ptrdiff_t part = unit % parts, index = unit / parts % f.pieces, row = unit / parts / f.pieces;
        struct piece piece = {.n = row / g->out_height, .p = row % g->out_height, .q = index * g->out_width / f.pieces};
        piece.count = (index + 1) * g->out_width / f.pieces - piece.q;
        piece.pixel = row * g->out_width + piece.q;
        run_piece(&f, &piece, (struct fnn_range){part * all_panels / parts, (part + 1) * all_panels / parts}, strip);
    }
}
