/* Packs filters of r x r taps, r = `kernel_size`, for winograd_forward: U of winograd.h.
 *
 * source K,r,r,C (the weight parameter), packed is overwritten. planes = (tile + r - 1)^2.
 *   winograd_pack_weight:          columns are the K output channels, depth is C
 *   winograd_pack_weight_backward: columns are the C input channels, depth is K, and the taps are in reverse order, so that
 *                                  winograd_forward on dy gives the gradient of the input
 * packed: panel, plane, depth, width; planes * ceil(columns / gemm_columns) * (depth * gemm_columns + 16) floats at most.
 * Columns that do not exist are zeros. packed may not alias source. Parallel over (panel, block of depths).
 * Error: that of U in winograd.h.
 */
#include "winograd_weight.h"

/* `columns` columns, `depth` steps. */
FNN_INLINE void pack(const float *source, enum winograd_form form, int m, int r, ptrdiff_t columns, ptrdiff_t depth,
                     float *packed, const struct fnn_team *team) {
    const struct winograd_weight weight = winograd_weight(source, form, r * r, columns, depth, 0);
    const ptrdiff_t planes = (m + r - 1) * (m + r - 1), blocks = fnn_ceil_div(depth, WINOGRAD_DEPTH);
    struct fnn_range range = fnn_share(gemm_panels(columns) * blocks, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t panel = i / blocks, d = i % blocks * WINOGRAD_DEPTH;
        const ptrdiff_t first = panel * FNN_GEMM_COLUMNS, count = gemm_panel_columns(columns, panel);
        const struct fnn_range steps = {d, fnn_min(d + WINOGRAD_DEPTH, depth)};
        const ptrdiff_t width = gemm_width(count);
        winograd_transform_panel(&weight, m, r, winograd_whole(), first, count, steps,
                                 winograd_plane_stride(depth, width),
                                 packed + winograd_panel_offset(planes, depth, first) + d * width);
    }
}

/* A body for each size, all of its sizes constants. */
static void pack_any(const float *source, enum winograd_form form, ptrdiff_t m, ptrdiff_t r, ptrdiff_t columns,
                     ptrdiff_t depth, float *packed, const struct fnn_team *team) {
    if (r == 5)
        pack(source, form, 2, 5, columns, depth, packed, team);
    else if (m == 4)
        pack(source, form, 4, 3, columns, depth, packed, team);
    else
        pack(source, form, 2, 3, columns, depth, packed, team);
}

void FNN_FUNCTION(winograd_pack_weight)(const struct fnn_winograd_pack_weight_args *args, const struct fnn_team *team) {
    pack_any(args->source, WINOGRAD_FILTERS, args->tile, args->kernel_size, args->out_channels, args->channels,
             args->packed, team);
}

void FNN_FUNCTION(winograd_pack_weight_backward)(const struct fnn_winograd_pack_weight_backward_args *args,
                                                 const struct fnn_team *team) {
    pack_any(args->source, WINOGRAD_ROTATED, args->tile, args->kernel_size, args->channels, args->out_channels,
             args->packed, team);
}
