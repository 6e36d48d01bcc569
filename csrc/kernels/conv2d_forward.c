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
    ptrdiff_t pixels, tiles, panels, panels_per_block;
};

/* Unit of work: (group, block of panels, tile of pixels). */
static void run_unit(const struct forward *f, ptrdiff_t unit, struct gemm_tile *tile) {
    const struct fnn_conv2d_forward_args *args = f->args;
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t blocks = fnn_ceil_div(f->panels, f->panels_per_block);
    const ptrdiff_t index = unit % f->tiles, block = unit / f->tiles % blocks, group = unit / f->tiles / blocks;
    const ptrdiff_t pixel = index * f->pixels / f->tiles, k = group * f->group_out_channels;
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
    struct fnn_range panels = {block * f->panels_per_block, fnn_min((block + 1) * f->panels_per_block, f->panels)};
    tile->row_count = (index + 1) * f->pixels / f->tiles - pixel;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) tile->offset[i] = (pixel + i) * g->out_channels;
    conv2d_find_origins(&f->window, g->out_height, g->out_width, g->stride_h, g->stride_w, g->pad_top, g->pad_left,
                        pixel, tile->row_count, &origins);
    conv2d_run_taps(&f->window, &product, &origins, group * f->group_channels, panels, tile);
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
    f.tiles = fnn_ceil_div(f.pixels, FNN_GEMM_ROWS);
    f.panels = gemm_panels(f.group_out_channels);
    f.panels_per_block = conv2d_panels_per_block(f.panels, f.steps, g->groups * f.tiles, team);
    struct gemm_tile tile;
    const ptrdiff_t blocks = fnn_ceil_div(f.panels, f.panels_per_block);
    struct fnn_range range = fnn_share(g->groups * blocks * f.tiles, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) run_unit(&f, unit, &tile);
}
