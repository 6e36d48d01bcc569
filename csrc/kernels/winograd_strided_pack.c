/* Packs filters of 3x3 taps for winograd_strided_forward and winograd_strided_backward_data: U of winograd_strided.h.
 *
 * source K,3,3,C (the weight parameter), packed is overwritten.
 *   winograd_strided_pack_weight: columns are the K output channels, depth is the C channels of each of the four phases in the
 *     order of winograd_convolution.h: those of whole chunks of 64 of one phase after the other, then those that are left;
 *     packed: panel, plane, depth, width; 25 * ceil(K / gemm_columns) * (4 * C * gemm_columns + 16) floats at most
 *   winograd_strided_pack_weight_backward: columns are the C input channels, depth is K, and taps are in reverse order;
 *     packed: phase, panel, plane, depth, width; 4 * 25 * ceil(C / gemm_columns) * (K * gemm_columns + 16) floats at most
 * Columns that do not exist are zeros. Planes that a phase lacks are not written. packed may not alias source. Parallel over
 * (panel, block of depths). Error: that of U in winograd.h.
 */
#include "winograd_strided.h"

enum { TILE = WINOGRAD_STRIDED_TILE, TAPS = WINOGRAD_STRIDED_TAPS, PLANES = WINOGRAD_STRIDED_PLANES };

static const struct winograd_phase even_odd = {2, 0, 1}, even_even = {2, 0, 0}, odd_even = {2, 1, 0},
                                   odd_odd = {2, 1, 1};

void FNN_FUNCTION(winograd_strided_panel)(const struct winograd_weight *weight, ptrdiff_t phase, ptrdiff_t first,
                                          ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride,
                                          float *to) {
    if (phase == 0) winograd_transform_panel(weight, TILE, TAPS, even_odd, first, columns, depth, plane_stride, to);
    if (phase == 1) winograd_transform_panel(weight, TILE, TAPS, even_even, first, columns, depth, plane_stride, to);
    if (phase == 2) winograd_transform_panel(weight, TILE, TAPS, odd_even, first, columns, depth, plane_stride, to);
    if (phase == 3) winograd_transform_panel(weight, TILE, TAPS, odd_odd, first, columns, depth, plane_stride, to);
}

/* All panels of all phases. Forward the phases of x are more depth of a panel, in the order of winograd_slot; backward each phase of dx
 * has panels of its own. */
static void pack(const struct winograd_weight *weight, bool backward, float *packed, const struct fnn_team *team) {
    const ptrdiff_t depth = weight->depth, blocks = fnn_ceil_div(depth, WINOGRAD_DEPTH);
    const ptrdiff_t whole = depth / WINOGRAD_DEPTH * WINOGRAD_DEPTH, all = backward ? depth : WINOGRAD_PHASES * depth;
    const ptrdiff_t size = winograd_packed_size(PLANES, weight->columns, depth);
    struct fnn_range range = fnn_share(gemm_panels(weight->columns) * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t panel = i / blocks, d = i % blocks * WINOGRAD_DEPTH, first = panel * FNN_GEMM_COLUMNS;
        const ptrdiff_t count = gemm_panel_columns(weight->columns, panel), width = gemm_width(count);
        const struct fnn_range steps = {d, fnn_min(d + WINOGRAD_DEPTH, depth)};
        float *to = packed + winograd_panel_offset(PLANES, all, first);
        for (ptrdiff_t phase = 0; phase < WINOGRAD_PHASES; phase++) {
            const ptrdiff_t slot = d < whole ? phase * whole + d : WINOGRAD_PHASES * whole + phase * (depth - whole);
            FNN_FUNCTION(winograd_strided_panel)
            (weight, phase, first, count, steps, winograd_plane_stride(all, width),
             to + (backward ? phase * size + d * width : slot * width));
        }
    }
}

void FNN_FUNCTION(winograd_strided_pack_weight)(const struct fnn_winograd_strided_pack_weight_args *args,
                                                const struct fnn_team *team) {
    const struct winograd_weight weight =
        winograd_weight(args->source, WINOGRAD_FILTERS, 9, args->out_channels, args->channels, 0);
    pack(&weight, false, args->packed, team);
}

void FNN_FUNCTION(winograd_strided_pack_weight_backward)(
    const struct fnn_winograd_strided_pack_weight_backward_args *args, const struct fnn_team *team) {
    const struct winograd_weight weight =
        winograd_weight(args->source, WINOGRAD_ROTATED, 9, args->channels, args->out_channels, 0);
    pack(&weight, true, args->packed, team);
}
