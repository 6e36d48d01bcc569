/* Convolution forward, direct: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual if R*S <= 64 and C/G <= 1024; no other aliasing.
 * activation: enum fnn_activation of gemm.h.
 *
 * A matrix product of patches (rows: output pixels) by packed weights (columns: output channels) that never builds
 * the patches: the rows of the register tile point into the image. A run of the sum is one tap (r, s), C/G long. Where images
 * are wide or channels few, conv2d_strip.c is faster. Filters of one pixel are a plain product, gemm_rows.h.
 *
 * Parallel over tiles of output pixels and panels of output channels; the sum of an element is the same in any tile.
 * Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d_indirect.h"
#include "gemm_rows.h"

struct forward {
    const struct fnn_conv2d_forward_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_window window;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*C/G */
    ptrdiff_t pixels;
    struct gemm_walk walk;
};

/* A tile of pixels and some panels of a group. */
static void run_piece(const struct forward *f, ptrdiff_t group, const struct gemm_piece *piece,
                      struct gemm_tile *tile) {
    const struct fnn_conv2d_forward_args *args = f->args;
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t pixel = piece->tile * f->pixels / f->walk.tiles, k = group * f->group_out_channels;
    const struct conv2d_product product = {
        .packed = args->packed + group * gemm_packed_size(f->group_out_channels, f->steps),
        .columns = f->group_out_channels,
        .steps = f->steps,
        .depth = f->group_channels,
        .y = args->y + k,
        .bias = args->bias ? args->bias + k : NULL,
        .residual = args->residual ? args->residual + k : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    struct conv2d_origins origins;
    tile->row_count = (piece->tile + 1) * f->pixels / f->walk.tiles - pixel;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) tile->offset[i] = (pixel + i) * g->out_channels;
    conv2d_find_origins(&f->window, g->out_height, g->out_width, g->stride_h, g->stride_w, g->pad_top, g->pad_left,
                        pixel, tile->row_count, &origins);
    conv2d_run_taps(&f->window, &product, &origins, group * f->group_channels, piece->panels, tile);
}

static struct conv2d_window window_of(const float *x, const struct conv2d_geometry *g) {
    return (struct conv2d_window){
        .image = x,
        .height = g->height,
        .width = g->width,
        .channels = g->channels,
        .vertical = {.step = 1, .count = g->kernel_height, .position_step = g->dilation_h},
        .horizontal = {.step = 1, .count = g->kernel_width, .position_step = g->dilation_w},
        .kernel_width = g->kernel_width,
    };
}

void FNN_FUNCTION(conv2d_forward)(const struct fnn_conv2d_forward_args *args, const struct fnn_team *team) {
    struct forward f = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &f.geometry;
    if (conv2d_is_product(g)) {
        const struct gemm_rows product = {
            .x = args->x,
            .packed = args->packed,
            .bias = args->bias,
            .residual = args->residual,
            .y = args->y,
            .rows = g->batch * g->height * g->width,
            .columns = g->out_channels,
            .depth = g->channels,
            .activation = (enum fnn_activation)args->activation,
        };
        FNN_FUNCTION(gemm_rows)(&product, team);
        return;
    }
    f.window = window_of(args->x, g);
    f.group_channels = g->channels / g->groups;
    f.group_out_channels = g->out_channels / g->groups;
    f.steps = g->kernel_height * g->kernel_width * f.group_channels;
    f.pixels = g->batch * g->out_height * g->out_width;
    f.walk = conv2d_walk(fnn_ceil_div(f.pixels, FNN_GEMM_ROWS), gemm_panels(f.group_out_channels), f.steps);
    struct gemm_tile tile;
    const ptrdiff_t products = f.walk.tiles * f.walk.panels;
    struct fnn_range range = fnn_share(g->groups * products, team);
    while (range.begin < range.end) {
        const ptrdiff_t group = range.begin / products, before = group * products;
        const struct gemm_piece piece =
            gemm_piece_at(&f.walk, range.begin - before, fnn_min(range.end - before, products));
        run_piece(&f, group, &piece, &tile);
        range.begin += piece.panels.end - piece.panels.begin;
    }
}
