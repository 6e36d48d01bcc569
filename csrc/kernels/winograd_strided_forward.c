/* Winograd convolution forward, 3x3 taps, stride 2: y = activation(conv(x, w) + bias + residual); see winograd_strided.h.
 *
 * x N,H,W,C   weight: see weight_form (enum winograd_form)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing. Any padding from 0 to 2 on each side.
 *
 * Stages, block and shared as in winograd_forward.c, and its workspace with planes = 25 and four times as large a V: with
 * V = 100 * ceil(C / 64) * (block * min(64, roundup(C, lanes)) + 16), M = min(block, 70) * (25 * 64 + 16), and
 * U = 25 * 64 / gemm_columns * (64 * gemm_columns + 16) if weight_form is not WINOGRAD_PACKED, else 0:
 *   shared: V + team size * (M + U) floats; else team size * (V + M + U). Its contents do not matter.
 *
 * The bits depend on nothing but the arrays. Error bound: winograd_strided.h.
 */
#include "winograd_output.h"
#include "winograd_strided_input.h"

enum { TILE = WINOGRAD_STRIDED_TILE, TAPS = WINOGRAD_STRIDED_TAPS };

static void transform_inputs(const struct winograd_convolution *f, ptrdiff_t begin, struct fnn_range tiles,
                             ptrdiff_t chunk) {
    struct winograd_tile tile = winograd_tile_at(&f->shape, tiles.begin);
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        float *v[2][2];
        for (ptrdiff_t phase = 0; phase < WINOGRAD_PHASES; phase++)
            v[winograd_odd_row(phase)][winograd_odd_column(phase)] =
                f->patches + (i - begin) * f->layout.width + winograd_slot(f, phase, chunk) * f->layout.chunk_stride;
        winograd_strided_transform(f, PHASES_PATCH, 2, &tile, chunk, v);
    }
}

static void transform_outputs(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    winograd_transform_outputs(f, TILE, TAPS, 1, unit);
}

static const struct winograd_stages stages = {transform_inputs, FNN_FUNCTION(winograd_strided_panel), transform_outputs,
                                              winograd_strided_presence};

void FNN_FUNCTION(winograd_strided_forward)(const struct fnn_winograd_strided_forward_args *args,
                                            const struct fnn_team *team) {
    struct winograd_convolution f = {
        .stages = &stages,
        .shape = winograd_strided_shape(args->batch, args->out_height, args->out_width),
        .in_phases = WINOGRAD_PHASES,
        .out_phases = 1,
        .taps = 9,
        WINOGRAD_ARGUMENTS(args),
    };
    FNN_FUNCTION(winograd_convolve)(&f, team);
}
