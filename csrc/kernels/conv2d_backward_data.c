/* Convolution backward with respect to its input, which is also the transposed convolution of dy:
 *
 *   dx[n,h,w,c] = activation(bias[c] + residual[n,h,w,c] + sum over (r, p) with p*stride_h + r*dilation_h - pad_top = h,
 *                 (s, q) likewise, and k, of dy[n,p,q,k] * w[k,r,s,c])
 *
 * dy N,P,Q,K   packed (conv2d_pack_weight_backward)   bias C or null   residual N,H,W,C or null   dx N,H,W,C, overwritten
 * dx may be the same array as residual if R*S <= 64 and K/G <= 1024; no other aliasing.
 *
 * The pixels with the same (h mod stride_h, w mod stride_w), a phase, meet the same taps: each phase is a convolution of
 * stride one over dy with its share of the taps, so that nothing is multiplied by the zeros between strides. The sum of
 * a phase that meets no tap is zero.
 *
 * Parallel over tiles of pixels of a phase and panels of channels; the sum of an element is the same in any tile.
 * Error bound: gemm.h with D = R*S*K/G.
 */
#include "conv2d_indirect.h"
#include "gemm_rows.h"

struct backward_data {
    const struct fnn_conv2d_backward_data_args *args;
    struct conv2d_geometry geometry;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*K/G */
};

/* The pixels of one phase: first_h, first_h + stride_h, ... */
struct phase {
    struct conv2d_window window;
    ptrdiff_t first_h, first_w, height, width; /* height x width pixels in each image */
    ptrdiff_t pixels;
    struct gemm_walk walk;
};

/* A tile of pixels and some panels of a group. */
static void run_piece(const struct backward_data *b, const struct phase *phase, ptrdiff_t group,
                      const struct gemm_piece *piece, struct gemm_tile *tile) {
    const struct fnn_conv2d_backward_data_args *args = b->args;
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t pixel = piece->tile * phase->pixels / phase->walk.tiles, c = group * b->group_channels;
    const struct conv2d_product product = {
        .packed = args->packed + group * gemm_packed_size(b->group_channels, b->steps),
        .columns = b->group_channels,
        .steps = b->steps,
        .depth = b->group_out_channels,
        .y = args->dx + c,
        .bias = args->bias ? args->bias + c : NULL,
        .residual = args->residual ? args->residual + c : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    struct conv2d_origins origins;
    tile->row_count = (piece->tile + 1) * phase->pixels / phase->walk.tiles - pixel;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) {
        ptrdiff_t column = (pixel + i) % phase->width, row = (pixel + i) / phase->width % phase->height;
        ptrdiff_t n = (pixel + i) / phase->width / phase->height;
        ptrdiff_t h = phase->first_h + row * g->stride_h, w = phase->first_w + column * g->stride_w;
        tile->offset[i] = ((n * g->height + h) * g->width + w) * g->channels;
    }
    conv2d_find_origins(&phase->window, phase->height, phase->width, 1, 1, 0, 0, pixel, tile->row_count, &origins);
    conv2d_run_taps(&phase->window, &product, &origins, group * b->group_out_channels, piece->panels, tile);
}

static void run_phase(const struct backward_data *b, ptrdiff_t first_h, ptrdiff_t first_w,
                      const struct fnn_team *team) {
    const struct conv2d_geometry *g = &b->geometry;
    struct phase phase = {
        .window =
            {
                .image = b->args->dy,
                .height = g->out_height,
                .width = g->out_width,
                .channels = g->out_channels,
                .vertical = conv2d_phase_axis(first_h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h),
                .horizontal = conv2d_phase_axis(first_w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w),
                .kernel_width = g->kernel_width,
            },
        .first_h = first_h,
        .first_w = first_w,
        .height = (g->height - first_h + g->stride_h - 1) / g->stride_h,
        .width = (g->width - first_w + g->stride_w - 1) / g->stride_w,
    };
    phase.pixels = g->batch * phase.height * phase.width;
    ptrdiff_t steps = phase.window.vertical.count * phase.window.horizontal.count * b->group_out_channels;
    phase.walk = conv2d_walk(fnn_ceil_div(phase.pixels, FNN_GEMM_ROWS), gemm_panels(b->group_channels), steps);
    struct gemm_tile tile;
    const ptrdiff_t products = phase.walk.tiles * phase.walk.panels;
    struct fnn_range range = fnn_share(g->groups * products, team);
    while (range.begin < range.end) {
        const ptrdiff_t group = range.begin / products, before = group * products;
        const struct gemm_piece piece =
            gemm_piece_at(&phase.walk, range.begin - before, fnn_min(range.end - before, products));
        run_piece(b, &phase, group, &piece, &tile);
        range.begin += piece.panels.end - piece.panels.begin;
    }
}

void FNN_FUNCTION(conv2d_backward_data)(const struct fnn_conv2d_backward_data_args *args, const struct fnn_team *team) {
    struct backward_data b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &b.geometry;
    if (conv2d_is_product(g)) {
        const struct gemm_rows product = {
            .x = args->dy,
            .packed = args->packed,
            .bias = args->bias,
            .residual = args->residual,
            .y = args->dx,
            .rows = g->batch * g->height * g->width,
            .columns = g->channels,
            .depth = g->out_channels,
            .activation = (enum fnn_activation)args->activation,
        };
        FNN_FUNCTION(gemm_rows)(&product, team);
        return;
    }
    b.group_channels = g->channels / g->groups;
    b.group_out_channels = g->out_channels / g->groups;
    b.steps = g->kernel_height * g->kernel_width * b.group_out_channels;
    for (ptrdiff_t h = 0; h < fnn_min(g->stride_h, g->height); h++)
        for (ptrdiff_t w = 0; w < fnn_min(g->stride_w, g->width); w++) run_phase(&b, h, w, team);
}
