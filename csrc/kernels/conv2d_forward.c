/* Convolution forward, direct: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual; no other aliasing.
 * workspace: team size times workspace_stride floats; workspace_stride >= gemm_rows * roundup(R*S*C/G, lanes) + lanes where
 * C/G < 8 (CONV2D_FEW_CHANNELS), else 0 and workspace may be null. Its contents do not matter.
 *
 * A matrix product of patches (rows: output pixels) by packed weights (columns: output channels) that never builds
 * the patches: the rows of the register tile point into the image, a run for each tap. With few channels a tap
 * is too short a run; there the patches of one tile are copied side by side.
 *
 * Parallel over tiles of output pixels and panels of output channels; the sum of an element is the same in any tile.
 * Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d.h"

/* Bytes of packed weights that are walked through for each tile of pixels: about half of a second-level cache. */
enum { PANEL_BLOCK = 512 * 1024 / (int)sizeof(float) };

struct forward {
    const struct fnn_conv2d_forward_args *args;
    struct conv2d_geometry geometry;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*C/G */
    ptrdiff_t pixels, tiles, panels, panels_per_block;
    float *patches; /* rows, roundup(steps, lanes): this thread's workspace */
};

/* Where the pixels of a tile look in the image: position of the first tap, which may lie in the padding. */
struct origins {
    ptrdiff_t offset[FNN_GEMM_ROWS], h[FNN_GEMM_ROWS], w[FNN_GEMM_ROWS];
};

static void find_origins(const struct conv2d_geometry *g, ptrdiff_t pixel, ptrdiff_t count, struct origins *origins) {
    ptrdiff_t q = pixel % g->out_width, p = pixel / g->out_width % g->out_height;
    ptrdiff_t n = pixel / g->out_width / g->out_height;
    for (ptrdiff_t i = 0; i < count; i++) {
        ptrdiff_t h = p * g->stride_h - g->pad_top, w = q * g->stride_w - g->pad_left;
        origins->h[i] = h;
        origins->w[i] = w;
        origins->offset[i] = ((n * g->height + h) * g->width + w) * g->channels;
        if (++q == g->out_width) {
            q = 0;
            if (++p == g->out_height) p = 0, n++;
        }
    }
}

/* Points the runs of a tile at taps [first, first + tile->runs), channels from `channel` of the whole image on. */
static void point_at_taps(const struct forward *f, const struct origins *origins, ptrdiff_t first, ptrdiff_t channel,
                          struct gemm_tile *tile) {
    const struct conv2d_geometry *g = &f->geometry;
    for (ptrdiff_t t = 0; t < tile->runs; t++) {
        ptrdiff_t dh = (first + t) / g->kernel_width * g->dilation_h;
        ptrdiff_t dw = (first + t) % g->kernel_width * g->dilation_w;
        ptrdiff_t offset = (dh * g->width + dw) * g->channels + channel;
        for (ptrdiff_t i = 0; i < tile->row_count; i++) {
            bool inside = conv2d_inside(origins->h[i] + dh, g->height) & conv2d_inside(origins->w[i] + dw, g->width);
            tile->rows[t][i] = inside ? f->args->x + (origins->offset[i] + offset) : FNN_FUNCTION(gemm_zeros);
        }
    }
}

/* Multiplies a tile that points at its patches with the panels [begin, end) of a group. */
static void multiply_panels(const struct forward *f, ptrdiff_t group, ptrdiff_t begin, ptrdiff_t end, bool first,
                            bool last, struct gemm_tile *tile) {
    const float *packed = f->args->packed + group * gemm_packed_size(f->group_out_channels, f->steps);
    tile->accumulate = !first;
    tile->activation = last ? (enum fnn_activation)f->args->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t panel = begin; panel < end; panel++) {
        ptrdiff_t column = panel * FNN_GEMM_COLUMNS, k = group * f->group_out_channels + column;
        tile->panel = packed + column * f->steps;
        tile->columns = gemm_panel_columns(f->group_out_channels, panel);
        tile->y = f->args->y + k;
        tile->bias = last && f->args->bias ? f->args->bias + k : NULL;
        tile->residual = last && f->args->residual ? f->args->residual + k : NULL;
        FNN_FUNCTION(gemm_tile)(tile);
    }
}

/* Runs as long as a group has channels, a run for each tap: no copy. */
static void run_taps(const struct forward *f, const struct origins *origins, ptrdiff_t group, ptrdiff_t begin,
                     ptrdiff_t end, struct gemm_tile *tile) {
    const ptrdiff_t taps = f->geometry.kernel_height * f->geometry.kernel_width;
    for (ptrdiff_t channel = 0; channel < f->group_channels; channel += GEMM_DEPTH) {
        tile->depth = fnn_min(f->group_channels - channel, GEMM_DEPTH);
        for (ptrdiff_t tap = 0; tap < taps; tap += GEMM_RUNS) {
            tile->runs = fnn_min(taps - tap, GEMM_RUNS);
            for (ptrdiff_t t = 0; t < tile->runs; t++) tile->step[t] = (tap + t) * f->group_channels + channel;
            point_at_taps(f, origins, tap, group * f->group_channels + channel, tile);
            bool first = channel == 0 && tap == 0;
            bool last = channel + tile->depth == f->group_channels && tap + tile->runs == taps;
            multiply_panels(f, group, begin, end, first, last, tile);
        }
    }
}

/* Copies `count` floats with whole vectors; up to FNN_LANES - 1 floats after the end of `to` are overwritten too. */
static inline void copy_run(float *to, const float *from, ptrdiff_t count) {
    for (; count > FNN_LANES; count -= FNN_LANES, to += FNN_LANES, from += FNN_LANES) vec_store(to, vec_load(from));
    vec_store(to, vec_load_partial(from, count));
}

static inline void clear_run(float *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) vec_store(to + i, vec_zero());
}

/* One filter row of one patch: S taps of C/G channels; w, h is where the first tap lies. */
static void copy_filter_row(const struct forward *f, ptrdiff_t h, ptrdiff_t w, ptrdiff_t offset, float *to) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t channels = f->group_channels, taps = g->kernel_width;
    if (!conv2d_inside(h, g->height)) {
        clear_run(to, taps * channels);
    } else if (g->dilation_w == 1 && g->groups == 1) {
        ptrdiff_t begin = fnn_min(fnn_max(-w, 0), taps), end = fnn_max(fnn_min(g->width - w, taps), begin);
        if (begin > 0) clear_run(to, begin * channels);
        if (end > begin) copy_run(to + begin * channels, f->args->x + (offset + begin * channels), (end - begin) * channels);
        if (end < taps) clear_run(to + end * channels, (taps - end) * channels);
    } else {
        for (ptrdiff_t s = 0; s < taps; s++) {
            ptrdiff_t tap = s * g->dilation_w;
            if (conv2d_inside(w + tap, g->width))
                copy_run(to + s * channels, f->args->x + (offset + tap * g->channels), channels);
            else
                clear_run(to + s * channels, channels);
        }
    }
}

/* Copies the patches of a tile side by side: one run of R*S*C/G steps, cut where it is longer than a run may be. */
static void run_patches(const struct forward *f, const struct origins *origins, ptrdiff_t group, ptrdiff_t begin,
                        ptrdiff_t end, struct gemm_tile *tile) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t stride = gemm_width(f->steps), row_steps = g->kernel_width * f->group_channels;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) {
        for (ptrdiff_t r = 0; r < g->kernel_height; r++) {
            ptrdiff_t dh = r * g->dilation_h, offset = origins->offset[i] + dh * g->width * g->channels;
            copy_filter_row(f, origins->h[i] + dh, origins->w[i], offset + group * f->group_channels,
                            f->patches + i * stride + r * row_steps);
        }
        tile->rows[0][i] = f->patches + i * stride;
    }
    tile->runs = 1;
    tile->depth = f->steps;
    tile->step[0] = 0;
    multiply_panels(f, group, begin, end, true, true, tile);
}

/* Unit of work: (group, block of panels, tile of pixels). */
static void run_unit(const struct forward *f, ptrdiff_t unit, struct gemm_tile *tile) {
    const ptrdiff_t blocks = fnn_ceil_div(f->panels, f->panels_per_block);
    ptrdiff_t index = unit % f->tiles, block = unit / f->tiles % blocks, group = unit / f->tiles / blocks;
    ptrdiff_t pixel = index * f->pixels / f->tiles;
    struct origins origins;
    tile->row_count = (index + 1) * f->pixels / f->tiles - pixel;
    find_origins(&f->geometry, pixel, tile->row_count, &origins);
    for (ptrdiff_t i = 0; i < tile->row_count; i++) tile->offset[i] = (pixel + i) * f->geometry.out_channels;
    ptrdiff_t begin = block * f->panels_per_block, end = fnn_min(begin + f->panels_per_block, f->panels);
    if (f->group_channels < CONV2D_FEW_CHANNELS)
        run_patches(f, &origins, group, begin, end, tile);
    else
        run_taps(f, &origins, group, begin, end, tile);
}

void FNN_FUNCTION(conv2d_forward)(const struct fnn_conv2d_forward_args *args, const struct fnn_team *team) {
    struct forward f = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &f.geometry;
    f.group_channels = g->channels / g->groups;
    f.group_out_channels = g->out_channels / g->groups;
    f.steps = g->kernel_height * g->kernel_width * f.group_channels;
    f.pixels = g->batch * g->out_height * g->out_width;
    f.tiles = fnn_ceil_div(f.pixels, FNN_GEMM_ROWS);
    f.panels = gemm_panels(f.group_out_channels);
    f.panels_per_block = fnn_min(fnn_max(PANEL_BLOCK / (f.steps * FNN_GEMM_COLUMNS), 1), f.panels);
    if (g->groups * f.tiles < 8 * team->size) f.panels_per_block = 1;
    f.patches = args->workspace + team->rank * args->workspace_stride;
    struct gemm_tile tile;
    const ptrdiff_t blocks = fnn_ceil_div(f.panels, f.panels_per_block);
    struct fnn_range range = fnn_share(g->groups * blocks * f.tiles, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) run_unit(&f, unit, &tile);
}
