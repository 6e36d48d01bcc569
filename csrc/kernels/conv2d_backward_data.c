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
 * All phases of some images are made before those of the next ones: they read the same dy, and write lines of dx side by side.
 *
 * Parallel over tiles of pixels of a phase and panels of channels; the sum of an element is the same in any tile,
 * but for products of the padding: taps that meet nothing else in a tile are left out.
 * Error bound: gemm.h with D = R*S*K/G.
 */
#include <string.h>

#include "conv2d_indirect.h"
#include "conv2d_pixel_row.h"
#include "gemm_rows.h"

enum { PHASE_FLOATS = 256 * 1024 }; /* of dx and dy between phases: a part of two second-level caches */

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

/* The pixels of one phase of some images: first_h, first_h + stride_h, ... */
static void run_phase(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                      struct fnn_range images, ptrdiff_t first_h, ptrdiff_t first_w, const struct fnn_team *team) {
    const ptrdiff_t at = images.begin * g->height * g->width * g->channels;
    const struct conv2d_window window = {
        .image = args->dy + images.begin * g->out_height * g->out_width * g->out_channels,
        .height = g->out_height,
        .width = g->out_width,
        .channels = g->out_channels,
        .vertical = conv2d_phase_axis(first_h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h),
        .horizontal = conv2d_phase_axis(first_w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w),
        .kernel_width = g->kernel_width,
    };
    const struct conv2d_pixels pixels = {
        .batch = images.end - images.begin,
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
        .y = args->dx + at,
        .bias = args->bias,
        .residual = args->residual ? args->residual + at : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    conv2d_run(&window, &pixels, &product, g->groups, team);
}

static bool row_meets_taps(const struct conv2d_geometry *g, ptrdiff_t first_h) {
    return conv2d_phase_axis(first_h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h).count > 0;
}

static bool column_meets_taps(const struct conv2d_geometry *g, ptrdiff_t first_w) {
    return conv2d_phase_axis(first_w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w).count > 0;
}

/* All phases of some images; with `fill` those that meet no tap are left out. Says whether there are none. */
static bool run_phases(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                       struct fnn_range images, bool fill, const struct fnn_team *team) {
    bool complete = true;
    for (ptrdiff_t h = 0; h < fnn_min(g->stride_h, g->height); h++)
        for (ptrdiff_t w = 0; w < fnn_min(g->stride_w, g->width); w++) {
            const bool taps = row_meets_taps(g, h) && column_meets_taps(g, w);
            if (taps || !fill) run_phase(args, g, images, h, w, team);
            complete = complete && taps;
        }
    return complete;
}

/* Into how many parts the batch is cut: each walks through the weights once, so they are no smaller than those. One phase needs
 * one part. By the shape alone, since the cut decides which pixels share a tile, hence which taps are left out. */
static ptrdiff_t image_blocks(const struct conv2d_geometry *g) {
    if (g->stride_h == 1 && g->stride_w == 1) return 1;
    const ptrdiff_t weights = g->kernel_height * g->kernel_width * g->channels / g->groups * g->out_channels;
    const ptrdiff_t image = g->height * g->width * g->channels + g->out_height * g->out_width * g->out_channels;
    return fnn_ceil_div(g->batch, fnn_max(fnn_max(PHASE_FLOATS, weights) / image, 1));
}

/* Neighbouring pixels that meet no tap: dx is the residual or zero there. */
static void fill_pixels(const struct fnn_conv2d_backward_data_args *args, ptrdiff_t at, ptrdiff_t count) {
    if (!args->residual)
        memset(args->dx + at, 0, (size_t)count * sizeof(float));
    else if (args->residual != args->dx)
        memcpy(args->dx + at, args->residual + at, (size_t)count * sizeof(float));
}

/* All pixels that meet no tap. */
static void fill_phases(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                        const struct fnn_team *team) {
    struct fnn_range rows = fnn_share(g->batch * g->height, team);
    for (ptrdiff_t row = rows.begin; row < rows.end; row++) {
        const ptrdiff_t at = row * g->width * g->channels;
        if (!row_meets_taps(g, row % g->height % g->stride_h)) {
            fill_pixels(args, at, g->width * g->channels);
            continue;
        }
        for (ptrdiff_t first = 0; first < fnn_min(g->stride_w, g->width); first++)
            for (ptrdiff_t w = column_meets_taps(g, first) ? g->width : first; w < g->width; w += g->stride_w)
                fill_pixels(args, at + w * g->channels, g->channels);
    }
}

/* Filters of one pixel with strides, without bias and activation: each row of dx is filled, then written where it meets dy. */
static void run_pixel_rows(const struct fnn_conv2d_backward_data_args *args, const struct conv2d_geometry *g,
                           const struct fnn_team *team) {
    struct conv2d_pixel_row row = {
        .packed = args->packed,
        .pixels = g->out_width,
        .x_step = g->out_channels,
        .y_step = g->stride_w * g->channels,
        .groups = g->groups,
        .depth = g->out_channels / g->groups,
        .columns = g->channels / g->groups,
        .activation = FNN_ACTIVATION_NONE,
    };
    const bool covered = g->stride_w == 1 && g->out_width == g->width;
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(g->batch * g->height, 1, team); fnn_take(&work, &rows);)
        for (ptrdiff_t i = rows.begin; i < rows.end; i++) {
            const ptrdiff_t n = i / g->height, h = i % g->height, p = h / g->stride_h, at = i * g->width * g->channels;
            const bool meets = h % g->stride_h == 0 && p < g->out_height;
            if (!meets || !covered) fill_pixels(args, at, g->width * g->channels);
            if (!meets) continue;
            row.x = args->dy + (n * g->out_height + p) * g->out_width * g->out_channels;
            row.y = args->dx + at;
            row.residual = args->residual ? args->residual + at : NULL;
            conv2d_run_pixel_row(&row);
        }
}

void FNN_FUNCTION(conv2d_backward_data)(const struct fnn_conv2d_backward_data_args *args, const struct fnn_team *team) {
    const struct conv2d_geometry g = CONV2D_GEOMETRY(args);
    if (conv2d_is_product(&g)) {
        run_product(args, &g, team);
        return;
    }
    const bool fill = !args->bias && args->activation == FNN_ACTIVATION_NONE;
    if (fill && conv2d_has_pixel_rows(&g)) {
        run_pixel_rows(args, &g, team);
        return;
    }
    const ptrdiff_t blocks = image_blocks(&g);
    bool complete = true;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const struct fnn_range images = {i * g.batch / blocks, (i + 1) * g.batch / blocks};
        complete = run_phases(args, &g, images, fill, team);
    }
    if (fill && !complete) fill_phases(args, &g, team);
}
