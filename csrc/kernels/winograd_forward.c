/* Winograd convolution forward: y = activation(conv(x, w) + bias + residual), r x r taps, stride 1; see winograd.h.
 *
 * x N,H,W,C   weight: see weight_form (enum winograd_form)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing. P <= H + r - 1 and so on: any padding from 0 to r-1 on each side.
 * With `pool` y is the maxima of 2 x 2 pixels, windows side by side: N,floor(P/2),floor(Q/2),K; residual is null then. The first
 * of equal ones wins, NaN is the largest: the bits are those of max_pool2d_forward on the convolution's result.
 * The gradient of the input is this kernel on dy (height and width are P and Q, out_height and out_width H and W,
 * channels and out_channels exchanged, padding r-1 - pad_top and r-1 - pad_left) with weights of the backward form.
 *
 * kernel_size: r, 3 or 5; tile: 4 or 2 if r = 3, else 2. A block of `block` tiles goes through three stages: V of its
 * patches; for each group of 64 output channels and 70 tiles the products of all planes; their outputs. With `shared` the whole
 * team works on one block, with a barrier between the first two stages, in smaller groups where there would be too few for it;
 * else each thread works on blocks of its own, and block <= 70.
 * workspace: with V = planes * ceil(C / 64) * (block * min(64, roundup(C, lanes)) + 16), M = min(block, 70) * (planes * 64 + 16),
 * and U = planes * 64 / gemm_columns * (64 * gemm_columns + 16) if weight_form is not WINOGRAD_PACKED, else 0:
 *   shared: V + team size * (M + U) floats; else team size * (V + M + U). Its contents do not matter.
 *
 * Parallel over blocks of tiles, or over (tiles, channels) and then over (groups of tiles, groups of output channels). The sum of
 * an element runs over c in order whatever the block, the weight form and the team: the bits depend on `tile` alone.
 * Error bound: winograd.h.
 */
#include "winograd_output.h"
#include "winograd_run.h"

/* Stage 1. */
FNN_INLINE void transform_inputs(const struct winograd_convolution *f, int m, int r, ptrdiff_t block_begin,
                                 struct fnn_range tiles, ptrdiff_t chunk) {
    const struct winograd_image image = {f->x, f->height, f->width, f->channels, f->pad_top, f->pad_left};
    winograd_transform_tiles(&image, &f->shape, winograd_input, m, r, m + r - 1, m + r - 1, tiles, chunk, &f->layout,
                             f->patches + (tiles.begin - block_begin) * f->layout.width);
}

static void transform_inputs_4_3(const struct winograd_convolution *f, ptrdiff_t begin, struct fnn_range tiles,
                                 ptrdiff_t chunk) {
    transform_inputs(f, 4, 3, begin, tiles, chunk);
}
static void transform_inputs_2_3(const struct winograd_convolution *f, ptrdiff_t begin, struct fnn_range tiles,
                                 ptrdiff_t chunk) {
    transform_inputs(f, 2, 3, begin, tiles, chunk);
}
static void transform_inputs_2_5(const struct winograd_convolution *f, ptrdiff_t begin, struct fnn_range tiles,
                                 ptrdiff_t chunk) {
    transform_inputs(f, 2, 5, begin, tiles, chunk);
}
static void transform_panel_4_3(const struct winograd_weight *weight, ptrdiff_t phase, ptrdiff_t first,
                                ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride, float *to) {
    (void)phase;
    winograd_transform_panel(weight, 4, 3, winograd_whole(), first, columns, depth, plane_stride, to);
}
static void transform_panel_2_3(const struct winograd_weight *weight, ptrdiff_t phase, ptrdiff_t first,
                                ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride, float *to) {
    (void)phase;
    winograd_transform_panel(weight, 2, 3, winograd_whole(), first, columns, depth, plane_stride, to);
}
static void transform_panel_2_5(const struct winograd_weight *weight, ptrdiff_t phase, ptrdiff_t first,
                                ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride, float *to) {
    (void)phase;
    winograd_transform_panel(weight, 2, 5, winograd_whole(), first, columns, depth, plane_stride, to);
}
static void transform_outputs_4_3(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 4, 3, 1, unit);
}
static void transform_outputs_2_3(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 2, 3, 1, unit);
}
static void transform_outputs_2_5(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 2, 5, 1, unit);
}
static void transform_maxima_4_3(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 4, 3, 2, unit);
}
static void transform_maxima_2_3(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 2, 3, 2, unit);
}
static void transform_maxima_2_5(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, 2, 5, 2, unit);
}

/* The stages for one size of tiles and filters, without and with `pool`. */
static const struct winograd_stages stages_4_3[2] = {
    {transform_inputs_4_3, transform_panel_4_3, transform_outputs_4_3, NULL},
    {transform_inputs_4_3, transform_panel_4_3, transform_maxima_4_3, NULL},
};
static const struct winograd_stages stages_2_3[2] = {
    {transform_inputs_2_3, transform_panel_2_3, transform_outputs_2_3, NULL},
    {transform_inputs_2_3, transform_panel_2_3, transform_maxima_2_3, NULL},
};
static const struct winograd_stages stages_2_5[2] = {
    {transform_inputs_2_5, transform_panel_2_5, transform_outputs_2_5, NULL},
    {transform_inputs_2_5, transform_panel_2_5, transform_maxima_2_5, NULL},
};

void FNN_FUNCTION(winograd_forward)(const struct fnn_winograd_forward_args *args, const struct fnn_team *team) {
    const struct winograd_stages *stages = args->kernel_size == 5 ? stages_2_5
                                           : args->tile == 4      ? stages_4_3
                                                                  : stages_2_3;
    struct winograd_convolution f = {
        .stages = &stages[args->pool != 0],
        .shape = winograd_shape(args->tile, args->kernel_size, args->batch, args->out_height, args->out_width),
        .in_phases = 1,
        .out_phases = 1,
        .taps = args->kernel_size * args->kernel_size,
        WINOGRAD_ARGUMENTS(args),
    };
    FNN_FUNCTION(winograd_convolve)(&f, team);
}
