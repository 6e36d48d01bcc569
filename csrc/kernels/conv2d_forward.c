/* Convolution forward, direct: y = activation(conv(x, w) + bias + residual), formula in conv2d.h.
 *
 * x N,H,W,C   packed (conv2d_pack_weight)   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * y may be the same array as residual if R*S <= 64 and C/G <= 1024; no other aliasing.
 * activation: enum fnn_activation of gemm.h.
 * workspace: team size times workspace_stride floats; workspace_stride >= gemm_rows * roundup(R*S*C/G, lanes) + lanes where
 * C/G < 32 (CONV2D_FEW_CHANNELS), else 0 and workspace may be null. Its contents do not matter.
 *
 * A matrix product of patches (rows: output pixels) by packed weights (columns: output channels) that never builds
 * the patches: the rows of the register tile point into the image. A run of the sum is
 *   one tap (r, s), C/G long, where there are many channels;
 *   one filter row r, S*C long, where there are few and the taps of a row lie side by side (dilation_w = 1, G = 1): only runs
 *   that look over the left or right end of the image are copied;
 *   the whole patch, copied, where there are very few and they do not.
 *
 * Parallel over tiles of output pixels and panels of output channels; the sum of an element is the same in any tile.
 * Error bound: gemm.h with D = R*S*C/G.
 */
#include "conv2d_indirect.h"

enum run_kind { RUNS_OF_TAPS, RUNS_OF_ROWS, RUNS_OF_PATCHES };

struct forward {
    const struct fnn_conv2d_forward_args *args;
    struct conv2d_geometry geometry;
    struct conv2d_window window;
    enum run_kind kind;
    ptrdiff_t group_channels, group_out_channels, steps; /* steps: R*S*C/G */
    ptrdiff_t pixels, tiles, panels, panels_per_block;
    float *patches; /* this thread's workspace */
};

/* Copies `count` floats with whole vectors; up to FNN_LANES - 1 floats after the end of `to` are overwritten too. */
static inline void copy_run(float *to, const float *from, ptrdiff_t count) {
    for (; count > FNN_LANES; count -= FNN_LANES, to += FNN_LANES, from += FNN_LANES) vec_store(to, vec_load(from));
    vec_store(to, vec_load_partial(from, count));
}

static inline void clear_run(float *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) vec_store(to + i, vec_zero());
}

/* One filter row of one patch: S taps of C/G channels; (h, w) and offset say where the first tap lies. */
static void copy_filter_row(const struct forward *f, ptrdiff_t h, ptrdiff_t w, ptrdiff_t offset, float *to) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t channels = f->group_channels, taps = g->kernel_width;
    const float *x = f->args->x;
    if (!conv2d_inside(h, g->height)) {
        clear_run(to, taps * channels);
    } else if (g->dilation_w == 1 && g->groups == 1) {
        ptrdiff_t begin = fnn_min(fnn_max(-w, 0), taps), end = fnn_max(fnn_min(g->width - w, taps), begin);
        if (begin > 0) clear_run(to, begin * channels);
        if (end > begin) copy_run(to + begin * channels, x + (offset + begin * channels), (end - begin) * channels);
        if (end < taps) clear_run(to + end * channels, (taps - end) * channels);
    } else {
        for (ptrdiff_t s = 0; s < taps; s++) {
            ptrdiff_t tap = s * g->dilation_w;
            if (conv2d_inside(w + tap, g->width))
                copy_run(to + s * channels, x + (offset + tap * g->channels), channels);
            else
                clear_run(to + s * channels, channels);
        }
    }
}

/* Copies the patches of a tile side by side, and multiplies them: one run of R*S*C/G steps. */
static void run_patches(const struct forward *f, const struct conv2d_product *product,
                        const struct conv2d_origins *origins, ptrdiff_t channel, struct fnn_range panels,
                        struct gemm_tile *tile) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t stride = gemm_width(f->steps), row_steps = g->kernel_width * f->group_channels;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) {
        for (ptrdiff_t r = 0; r < g->kernel_height; r++) {
            ptrdiff_t dh = r * g->dilation_h, offset = origins->offset[i] + dh * g->width * g->channels + channel;
            copy_filter_row(f, origins->h[i] + dh, origins->w[i], offset, f->patches + i * stride + r * row_steps);
        }
        tile->rows[0][i] = f->patches + i * stride;
    }
    tile->runs = 1;
    tile->depth = f->steps;
    tile->step[0] = 0;
    conv2d_multiply_panels(product, panels, true, true, 0, tile);
}

/* The rows of a tile whose filter rows look over the left or right end of the image. */
struct edge_rows {
    ptrdiff_t count, index[FNN_GEMM_ROWS];
};

static void find_edge_rows(const struct conv2d_geometry *g, const struct conv2d_origins *origins, ptrdiff_t rows,
                           struct edge_rows *edges) {
    edges->count = 0;
    for (ptrdiff_t i = 0; i < rows; i++) {
        edges->index[edges->count] = i;
        edges->count += origins->w[i] < 0 || origins->w[i] > g->width - g->kernel_width;
    }
}

/* Points run t of a tile at filter row r of its patches; those at the edges are copied to `copies`. */
static void point_at_filter_row(const struct forward *f, const struct conv2d_origins *origins,
                                const struct edge_rows *edges, ptrdiff_t r, ptrdiff_t t, float *copies,
                                struct gemm_tile *tile) {
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t dh = r * g->dilation_h, offset = dh * g->width * g->channels;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) {
        bool inside = conv2d_inside(origins->h[i] + dh, g->height);
        tile->rows[t][i] = inside ? f->args->x + (origins->offset[i] + offset) : FNN_FUNCTION(gemm_zeros);
    }
    for (ptrdiff_t e = 0; e < edges->count; e++) {
        ptrdiff_t i = edges->index[e], h = origins->h[i] + dh;
        if (!conv2d_inside(h, g->height)) continue;
        copy_filter_row(f, h, origins->w[i], origins->offset[i] + offset, copies + e * tile->depth);
        tile->rows[t][i] = copies + e * tile->depth;
    }
}

/* Runs of one filter row each. */
static void run_filter_rows(const struct forward *f, const struct conv2d_product *product,
                            const struct conv2d_origins *origins, struct fnn_range panels, struct gemm_tile *tile) {
    const ptrdiff_t filter_rows = f->geometry.kernel_height;
    struct edge_rows edges;
    find_edge_rows(&f->geometry, origins, tile->row_count, &edges);
    tile->depth = f->geometry.kernel_width * f->group_channels;
    for (ptrdiff_t r = 0; r < filter_rows; r += tile->runs) {
        tile->runs = fnn_min(filter_rows - r, GEMM_RUNS);
        for (ptrdiff_t t = 0; t < tile->runs; t++) {
            tile->step[t] = (r + t) * tile->depth;
            point_at_filter_row(f, origins, &edges, r + t, t, f->patches + t * FNN_GEMM_ROWS * tile->depth, tile);
        }
        conv2d_multiply_panels(product, panels, r == 0, r + tile->runs == filter_rows, 0, tile);
    }
}

/* How the sum is cut into runs: from the shape alone, though no bit depends on it. */
static enum run_kind kind_of_runs(const struct conv2d_geometry *g, ptrdiff_t group_channels) {
    enum { VERY_FEW = 8 };
    bool side_by_side = g->groups == 1 && g->dilation_w == 1;
    if (side_by_side && group_channels < CONV2D_FEW_CHANNELS && g->kernel_width * group_channels <= GEMM_DEPTH)
        return g->kernel_width > 1 ? RUNS_OF_ROWS : RUNS_OF_TAPS;
    bool short_patch = g->kernel_height * g->kernel_width * group_channels <= GEMM_DEPTH;
    return group_channels < VERY_FEW && short_patch ? RUNS_OF_PATCHES : RUNS_OF_TAPS;
}

/* Unit of work: (group, block of panels, tile of pixels). */
static void run_unit(const struct forward *f, ptrdiff_t unit, struct gemm_tile *tile) {
    const struct fnn_conv2d_forward_args *args = f->args;
    const struct conv2d_geometry *g = &f->geometry;
    const ptrdiff_t blocks = fnn_ceil_div(f->panels, f->panels_per_block);
    const ptrdiff_t index = unit % f->tiles, block = unit / f->tiles % blocks, group = unit / f->tiles / blocks;
    const ptrdiff_t pixel = index * f->pixels / f->tiles, k = group * f->group_out_channels;
    const struct conv2d_product product = {
        .packed = args->packed + group * gemm_packed_size(f->group_out_channels, f->steps),
        .columns = f->group_out_channels,
        .steps = f->steps,
        .depth = f->group_channels,
        .y = args->y + k,
        .bias = args->bias ? args->bias + k : NULL,
        .residual = args->residual ? args->residual + k : NULL,
        .activation = (enum fnn_activation)args->activation,
    };
    struct conv2d_origins origins;
    struct fnn_range panels = {block * f->panels_per_block, fnn_min((block + 1) * f->panels_per_block, f->panels)};
    tile->row_count = (index + 1) * f->pixels / f->tiles - pixel;
    for (ptrdiff_t i = 0; i < tile->row_count; i++) tile->offset[i] = (pixel + i) * g->out_channels;
    conv2d_find_origins(&f->window, g->out_height, g->out_width, g->stride_h, g->stride_w, g->pad_top, g->pad_left, pixel,
                        tile->row_count, &origins);
    switch (f->kind) {
    case RUNS_OF_TAPS:
        conv2d_run_taps(&f->window, &product, &origins, group * f->group_channels, panels, tile);
        break;
    case RUNS_OF_ROWS: run_filter_rows(f, &product, &origins, panels, tile); break;
    case RUNS_OF_PATCHES: run_patches(f, &product, &origins, group * f->group_channels, panels, tile); break;
    }
}

static struct conv2d_window window_of(const float *x, const struct conv2d_geometry *g) {
    return (struct conv2d_window){
        .image = x,
        .height = g->height,
        .width = g->width,
        .channels = g->channels,
        .vertical = {.step = 1, .count = g->kernel_height, .position_step = g->dilation_h},
        .horizontal = {.step = 1, .count = g->kernel_width, .position_step = g->dilation_w},
        .kernel_width = g->kernel_width,
    };
}

void FNN_FUNCTION(conv2d_forward)(const struct fnn_conv2d_forward_args *args, const struct fnn_team *team) {
    struct forward f = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &f.geometry;
    f.window = window_of(args->x, g);
    f.group_channels = g->channels / g->groups;
    f.group_out_channels = g->out_channels / g->groups;
    f.kind = kind_of_runs(g, f.group_channels);
    f.steps = g->kernel_height * g->kernel_width * f.group_channels;
    f.pixels = g->batch * g->out_height * g->out_width;
    f.tiles = fnn_ceil_div(f.pixels, FNN_GEMM_ROWS);
    f.panels = gemm_panels(f.group_out_channels);
    f.panels_per_block = conv2d_panels_per_block(f.panels, f.steps, g->groups * f.tiles, team);
    f.patches = args->workspace + team->rank * args->workspace_stride;
    struct gemm_tile tile;
    const ptrdiff_t blocks = fnn_ceil_div(f.panels, f.panels_per_block);
    struct fnn_range range = fnn_share(g->groups * blocks * f.tiles, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) run_unit(&f, unit, &tile);
}
