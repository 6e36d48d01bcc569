/* Convolution forward, direct: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual if R*S <= 64 and C/G <= 1024; no other aliasing.
 * activation: enum fnn_activation of gemm.h.
 *
 * A matrix product of patches (rows: output pixels) by packed weights (columns: output channels) that never builds
 * the patches: the rows of the register tile point into the image. A run of the sum is one tap (r, s), C/G long. Where images
 * are wide or channels few, conv2d_strip.c is faster. Filters of one pixel are a plain product, gemm_rows.h,
 * or with strides a product for each row of y, conv2d_pixel_row.h.
 *
 * Parallel over tiles of output pixels and panels of output channels; the sum of an element is the same in any tile,
 * but for products of the padding: taps that meet nothing else in a tile are left out.
 * Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d_indirect.h"
#include "conv2d_pixel_row.h"
#include "gemm_rows.h"

/* Filters of one pixel. */
static void run_product(const struct fnn_conv2d_forward_args *args, const struct conv2d_geometry *g,
                        const struct fnn_team *team) {
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
}

/* Filters of one pixel with strides. */
static void run_pixel_rows(const struct fnn_conv2d_forward_args *args, const struct conv2d_geometry *g,
                           const struct fnn_team *team) {
    struct conv2d_pixel_row row = {
        .packed = args->packed,
        .bias = args->bias,
        .pixels = g->out_width,
        .x_step = g->stride_w * g->channels,
        .y_step = g->out_channels,
        .groups = g->groups,
        .depth = g->channels / g->groups,
        .columns = g->out_channels / g->groups,
        .activation = (enum fnn_activation)args->activation,
    };
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(g->batch * g->out_height, 1, team); fnn_take(&work, &rows);)
        for (ptrdiff_t i = rows.begin; i < rows.end; i++) {
            const ptrdiff_t n = i / g->out_height, h = i % g->out_height * g->stride_h;
            const ptrdiff_t at = i * g->out_width * g->out_channels;
            row.x = args->x + (n * g->height + h) * g->width * g->channels;
            row.y = args->y + at;
            row.residual = args->residual ? args->residual + at : NULL;
            conv2d_run_pixel_row(&row);
        }
}

void FNN_FUNCTION(conv2d_forward)(const struct fnn_conv2d_forward_args *args, const struct fnn_team *team) {
    const struct conv2d_geometry g = CONV2D_GEOMETRY(args);
    if (conv2d_is_product(&g)) {
        run_product(args, &g, team);
        return;
    }
    if (conv2d_has_pixel_rows(&g)) {
        run_pixel_rows(args, &g, team);
        return;
    }
    const struct conv2d_window window = {
        .image = args->x,
        .height = g.height,
        .width = g.width,
        .channels = g.channels,
        .vertical = {.step = 1, .count = g.kernel_height, .position_step = g.dilation_h},
        .horizontal = {.step = 1, .count = g.kernel_width, .position_step = g.dilation_w},
        .kernel_width = g.kernel_width,
    };
    const struct conv2d_pixels pixels = {
        .batch = g.batch,
        .height = g.out_height,
        .width = g.out_width,
        .stride_h = g.stride_h,
        .stride_w = g.stride_w,
        .pad_top = g.pad_top,
        .pad_left = g.pad_left,
        .step_h = 1,
        .step_w = 1,
        .result_height = g.out_height,
        .result_width = g.out_width,
        .result_channels = g.out_channels,
    };
    const struct conv2d_product product = {
        .packed = args->packed,
        .columns = g.out_channels / g.groups,
        .steps = g.kernel_height * g.kernel_width * (g.channels / g.groups),
        .depth = g.channels / g.groups,
        .y = args->y,
        .bias = args->bias,
        .residual = args->residual,
        .activation = (enum fnn_activation)args->activation,
    };
    conv2d_run(&window, &pixels, &product, g.groups, team);
}
