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

/* Filters of one pixel. */
static void run_product(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                        const struct fnn_team *team) {
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
}

/* The pixels of one phase: first_h, first_h + stride_h, ... */
static void run_phase(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                      ptrdiff_t first_h, ptrdiff_t first_w, const struct fnn_team *team) {
    const struct conv2d_window window = {
        .image = args->dy,
        .height = g->out_height,
        .width = g->out_width,
        .channels = g->out_channels,
        .vertical = conv2d_phase_axis(first_h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h),
        .horizontal = conv2d_phase_axis(first_w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w),
        .kernel_width = g->kernel_width,
    };
    const struct conv2d_pixels pixels = {
        .batch = g->batch,
        .height = (g->height - first_h + g->stride_h - 1) / g->stride_h,
        .width = (g->width - first_w + g->stride_w - 1) / g->stride_w,
        .stride_h = 1,
        .stride_w = 1,
        .first_h = first_h,
        .first_w = first_w,
        .step_h = g->stride_h,
        .step_w = g->stride_w,
        .result_height = g->height,
        .result_width = g->width,
        .result_channels = g->channels,
    };
    const struct conv2d_product product = {
        .packed = args->packed,
        .columns = g->channels / g->groups,
        .steps = g->kernel_height * g->kernel_width * (g->out_channels / g->groups),
        .depth = g->out_channels / g->groups,
        .y = args->dx,
        .bias = args->bias,
        .residual = args->residual,
        .activation = (enum fnn_activation)args->activation,
    };
    conv2d_run(&window, &pixels, &product, g->groups, team);
}

void FNN_FUNCTION(conv2d_backward_data)(const struct fnn_conv2d_backward_data_args *args, const struct fnn_team *team) {
    const struct conv2d_geometry g = CONV2D_GEOMETRY(args);
    if (conv2d_is_product(&g)) {
        run_product(args, &g, team);
        return;
    }
    for (ptrdiff_t h = 0; h < fnn_min(g.stride_h, g.height); h++)
        for (ptrdiff_t w = 0; w < fnn_min(g.stride_w, g.width); w++) run_phase(args, &g, h, w, team);
}
