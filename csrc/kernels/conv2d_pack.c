/* Packs convolution weights into the panels that the register tile of gemm.h reads.
 *
 * source K,R,S,C/G (the weight parameter), packed is overwritten.
 *   conv2d_pack_weight:          [group][panel of k][r][s][c][width]; columns are the K/G output channels of a group
 *                                size G * roundup(K/G, lanes) * R*S*(C/G) floats
 *   conv2d_pack_weight_backward: [group][panel of c][r][s][k][width]; columns are the C/G input channels of a group
 *                                size G * roundup(C/G, lanes) * R*S*(K/G) floats
 *                                with `rotated`, r and s count from the last tap down
 * width is gemm_columns but in the last panel of a group, where it is what is left, rounded up to lanes; columns that do not
 * exist are zeros. Copies only: exact. packed may not alias source. Parallel over (group, panel, tap).
 */
#include "gemm_pack.h"

void FNN_FUNCTION(conv2d_pack_weight)(const struct fnn_conv2d_pack_weight_args *args, const struct fnn_team *team) {
    const ptrdiff_t depth = args->channels / args->groups, columns = args->out_channels / args->groups;
    const ptrdiff_t taps = args->kernel_height * args->kernel_width, stride = taps * depth;
    const ptrdiff_t panels = gemm_panels(columns), group_size = gemm_packed_size(columns, stride);
    struct fnn_range range = fnn_share(args->groups * panels * taps, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t tap = i % taps, panel = i / taps % panels, group = i / taps / panels;
        ptrdiff_t first = panel * FNN_GEMM_COLUMNS, count = gemm_panel_columns(columns, panel),
                  width = gemm_width(count);
        const float *corner = args->source + ((group * columns + first) * taps + tap) * depth;
        float *packed = args->packed + group * group_size + first * stride + tap * depth * width;
        gemm_pack_transposed(corner, stride, count, depth, width, packed);
    }
}

void FNN_FUNCTION(conv2d_pack_weight_backward)(const struct fnn_conv2d_pack_weight_backward_args *args,
                                               const struct fnn_team *team) {
    const ptrdiff_t depth = args->out_channels / args->groups, columns = args->channels / args->groups;
    const ptrdiff_t taps = args->kernel_height * args->kernel_width;
    const ptrdiff_t panels = gemm_panels(columns), group_size = gemm_packed_size(columns, taps * depth);
    struct fnn_range range = fnn_share(args->groups * panels * taps, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t tap = i % taps, panel = i / taps % panels, group = i / taps / panels;
        ptrdiff_t first = panel * FNN_GEMM_COLUMNS, count = gemm_panel_columns(columns, panel),
                  width = gemm_width(count);
        const ptrdiff_t source_tap = args->rotated ? taps - 1 - tap : tap;
        const float *corner = args->source + (group * depth * taps + source_tap) * columns + first;
        float *packed = args->packed + group * group_size + first * taps * depth + tap * depth * width;
        gemm_pack_rows(corner, taps * columns, count, depth, width, packed);
    }
}
