/* Convolution backward with respect to its input, for few channels: dx as in conv2d_backward_data.c.
 *
 * Where C/G is a small part of a vector, vectors along the channels of dx are mostly empty. Here the taps of a filter row stand beside
 * the channels. For each row h of dx, with r over the filter rows that meet a row p = (h + pad_top - r*dilation_h) / stride_h of dy,
 *
 *   t[q][s,c] = sum over r, k of dy[n,p,q,k] * w[k,r,s,c]
 *   dx[n,h,w,c] = activation(bias[c] + residual[n,h,w,c] + sum over (q, s) with q*stride_w + s*dilation_w - pad_left = w of t[q][s,c])
 *
 * so that each pixel of dy makes S*C/G neighbours, which are spread over the row.
 *
 * dy N,P,Q,K   packed (conv2d_spread_pack)   bias C or null   residual N,H,W,C or null   dx N,H,W,C, overwritten
 * dx may be the same array as residual; no other aliasing. activation: enum fnn_activation of gemm.h. pad_top and pad_left may
 * be negative.
 * workspace: for each thread of the team workspace_stride >= min(Q, SPREAD_PIXELS) * roundup(S*C/G, lanes) +
 * roundup(pixels*C/G, lanes) + roundup(W*C, lanes) + R*K/G, pixels = max(-pad_left, 0) + max((Q - 1)*stride_w + (S - 1)*dilation_w + 1, W + pad_left).
 *
 * With stride 1 it is the convolution forward for few output channels too: dy is x, C and K change places, the padding is
 * (R - 1)*dilation_h - pad_top and so on, and the filters are packed rotated.
 *
 * Parallel over rows of dx; each is made by one thread in an order that follows from the shape.
 * Error bound: gemm.h with D = R*K/G + S.
 */
#include "conv2d_indirect.h"
#include "conv2d_strip.h"
#include "gemm_strip.h"
#include "lanes.h"

enum { SPREAD_PIXELS = 128 }; /* pixels of dy whose t is made at a time */

struct spread {
    const struct fnn_conv2d_spread_backward_data_args *args;
    struct conv2d_geometry geometry;
    ptrdiff_t group_channels, group_out_channels, columns, steps; /* columns: S*C/G, steps: R*K/G */
    ptrdiff_t product_stride;                                     /* of t */
    ptrdiff_t origin; /* where the first tap of pixel q = 0 falls in the row, in pixels */
    ptrdiff_t up;     /* filter rows that meet one row of dx meet rows of dy that are so far apart */
    ptrdiff_t row_floats;
    /* this thread's: t, a row of dx with what lies beside it, the bias of each of its pixels, offsets of the steps of t in dy */
    float *products, *row, *bias;
    int32_t *offsets;
};

/* Where filter row r stands among the packed ones: those that meet the same rows of dx lie side by side. */
static ptrdiff_t packed_row(ptrdiff_t r, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t dilation) {
    ptrdiff_t before = 0, phase = r * dilation % stride;
    for (ptrdiff_t i = 0; i < rows; i++) {
        ptrdiff_t other = i * dilation % stride;
        before += other < phase || (other == phase && i < r);
    }
    return before;
}

/* The filter rows that meet a row of dx: `count` from packed row `first` on, the first at row p of dy. */
struct meeting {
    ptrdiff_t first, count, p;
};

static struct meeting meet(const struct spread *s, ptrdiff_t h) {
    const struct conv2d_geometry *g = &s->geometry;
    const struct conv2d_axis axis = conv2d_phase_axis(h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h);
    struct meeting m = {0};
    if (axis.count == 0 || axis.position < 0) return m;
    const ptrdiff_t below = fnn_max(axis.position - (g->out_height - 1), 0), begin = fnn_ceil_div(below, s->up);
    const ptrdiff_t end = fnn_min(axis.position / s->up + 1, axis.count);
    if (begin >= end) return m;
    m.first = packed_row(axis.first, g->kernel_height, g->stride_h, g->dilation_h) + begin;
    m.count = end - begin;
    m.p = axis.position - begin * s->up;
    return m;
}

/* Filter rows that meet one row of dx are stride / gcd apart, rows of dy dilation / gcd, gcd of stride and dilation. */
static ptrdiff_t rows_apart(ptrdiff_t stride, ptrdiff_t dilation) {
    ptrdiff_t apart = 1;
    while (apart * dilation % stride != 0) apart++;
    return apart * dilation / stride;
}

/* t of `count` pixels from q on. */
static void multiply(const struct spread *s, const struct meeting *m, ptrdiff_t n, ptrdiff_t group, ptrdiff_t q,
                     ptrdiff_t count) {
    const struct conv2d_geometry *g = &s->geometry;
    const ptrdiff_t row = g->out_width * g->out_channels;
    const float *dy =
        s->args->dy + (n * g->out_height + m->p) * row + q * g->out_channels + group * s->group_out_channels;
    struct gemm_strip tiles = {
        .row_step = g->out_channels,
        .depth = m->count * s->group_out_channels,
        .offsets = s->offsets,
        .x = dy,
        .row_count = count,
        .y_step = s->product_stride,
        .activation = FNN_ACTIVATION_NONE,
    };
    for (ptrdiff_t column = 0; column < s->product_stride; column += FNN_GEMM_COLUMNS) {
        tiles.columns = fnn_min(s->product_stride - column, FNN_GEMM_COLUMNS); /* those that are too many are zeros */
        tiles.panel = s->args->packed + group * gemm_packed_size(s->columns, s->steps) + column * s->steps +
                      m->first * s->group_out_channels * tiles.columns;
        tiles.y = s->products + column;
        FNN_FUNCTION(gemm_strip)(&tiles);
    }
}

static inline void add_run(float *to, const float *from, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        const ptrdiff_t n = lanes_left(count - i);
        store_lanes(to + i, vec_add(load_lanes(to + i, n), load_lanes(from + i, n)), n);
    }
}

/* Adds t of `count` pixels from q on to the row. Neighbours overlap; those that do not are added one after the other, so that none
 * waits for the store of the one before. */
static void spread_products(const struct spread *s, ptrdiff_t q, ptrdiff_t count) {
    const struct conv2d_geometry *g = &s->geometry;
    const ptrdiff_t step = g->stride_w * s->group_channels, tap = g->dilation_w * s->group_channels;
    const ptrdiff_t apart = fnn_ceil_div((g->kernel_width - 1) * g->dilation_w + 1, g->stride_w);
    float *row = s->row + s->origin * s->group_channels + q * step;
    for (ptrdiff_t first = 0; first < apart; first++)
        for (ptrdiff_t i = first; i < count; i += apart) {
            const float *from = s->products + i * s->product_stride;
            if (g->dilation_w == 1)
                add_run(row + i * step, from, s->columns);
            else
                for (ptrdiff_t t = 0; t < g->kernel_width; t++)
                    add_run(row + i * step + t * tap, from + t * s->group_channels, s->group_channels);
        }
}

/* dx[at...] = activation(row + bias + residual), `count` floats. */
static inline void finish(const struct spread *s, const float *row, const float *bias, ptrdiff_t at, ptrdiff_t count) {
    const struct fnn_conv2d_spread_backward_data_args *args = s->args;
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        const ptrdiff_t n = lanes_left(count - i);
        vec a = load_lanes(row + i, n);
        if (bias) a = vec_add(a, load_lanes(bias + i, n));
        if (args->residual) a = vec_add(a, load_lanes(args->residual + at + i, n));
        store_lanes(args->dx + at + i, gemm_activate(a, (enum fnn_activation)args->activation), n);
    }
}

/* The same for the channels of one group, pixel by pixel. */
static void finish_group(const struct spread *s, const float *row, ptrdiff_t group, ptrdiff_t at) {
    const struct fnn_conv2d_spread_backward_data_args *args = s->args;
    const struct conv2d_geometry *g = &s->geometry;
    const ptrdiff_t channels = s->group_channels;
    const bool plain = !args->bias && !args->residual && args->activation == FNN_ACTIVATION_NONE;
    float *dx = args->dx + at + group * channels;
    if (plain && conv2d_copied_small(dx, g->channels, row, channels, g->width, channels)) return;
    const float *bias = args->bias ? args->bias + group * channels : NULL;
    for (ptrdiff_t w = 0; w < g->width; w++)
        finish(s, row + w * channels, bias, at + w * g->channels + group * channels, channels);
}

/* Row h of image n. */
static void run_row(const struct spread *s, ptrdiff_t n, ptrdiff_t h) {
    const struct conv2d_geometry *g = &s->geometry;
    const struct meeting m = meet(s, h);
    const ptrdiff_t channels = s->group_channels, at = (n * g->height + h) * g->width * g->channels;
    const float *first = s->row + (s->origin + g->pad_left) * channels; /* pixel 0 of dx */
    for (ptrdiff_t group = 0; group < g->groups; group++) {
        for (ptrdiff_t i = 0; i < s->row_floats; i += FNN_LANES) vec_store(s->row + i, vec_zero());
        for (ptrdiff_t q = 0; q < g->out_width && m.count > 0; q += SPREAD_PIXELS) {
            const ptrdiff_t count = fnn_min(g->out_width - q, SPREAD_PIXELS);
            multiply(s, &m, n, group, q, count);
            spread_products(s, q, count);
        }
        if (g->groups == 1)
            finish(s, first, s->args->bias ? s->bias : NULL, at, g->width * channels);
        else
            finish_group(s, first, group, at);
    }
}

void FNN_FUNCTION(conv2d_spread_backward_data)(const struct fnn_conv2d_spread_backward_data_args *args,
                                               const struct fnn_team *team) {
    struct spread s = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &s.geometry;
    s.group_channels = g->channels / g->groups;
    s.group_out_channels = g->out_channels / g->groups;
    s.columns = g->kernel_width * s.group_channels;
    s.steps = g->kernel_height * s.group_out_channels;
    s.product_stride = gemm_width(s.columns);
    s.origin = fnn_max(-g->pad_left, 0);
    const ptrdiff_t span = (g->out_width - 1) * g->stride_w + (g->kernel_width - 1) * g->dilation_w + 1;
    s.row_floats = gemm_width((s.origin + fnn_max(span, g->width + g->pad_left)) * s.group_channels);
    s.products = args->workspace + team->rank * args->workspace_stride;
    s.row = s.products + fnn_min(g->out_width, SPREAD_PIXELS) * s.product_stride;
    s.bias = s.row + s.row_floats;
    s.up = rows_apart(g->stride_h, g->dilation_h);
    s.offsets = (int32_t *)(void *)(s.bias + gemm_width(g->width * g->channels));
    for (ptrdiff_t i = 0; i < s.steps; i++)
        s.offsets[i] =
            (int32_t)(i % s.group_out_channels - i / s.group_out_channels * s.up * g->out_width * g->out_channels);
    if (g->groups == 1 && args->bias)
        for (ptrdiff_t i = 0; i < g->width * g->channels; i++) s.bias[i] = args->bias[i % g->channels];
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(g->batch * g->height, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t row = range.begin; row < range.end; row++) run_row(&s, row / g->height, row % g->height);
}

/* packed[group][panel of (s, c)][row of the filter][k][width] in the panels of gemm.h; rows in the order of packed_row; rotated: k and c
 * change places and r and s count from the last tap down. Size: G * roundup(S*C/G, lanes) * R*K/G floats (rotated: K and C exchanged).
 * source K,R,S,C/G. Copies only: exact. Parallel over (group, row). */
void FNN_FUNCTION(conv2d_spread_pack)(const struct fnn_conv2d_spread_pack_args *args, const struct fnn_team *team) {
    const ptrdiff_t rows = args->kernel_height, taps = args->kernel_width;
    const ptrdiff_t inputs = args->channels / args->groups, outputs = args->out_channels / args->groups;
    const ptrdiff_t channels = args->rotated ? outputs : inputs, depth = args->rotated ? inputs : outputs;
    const ptrdiff_t columns = taps * channels, size = gemm_packed_size(columns, rows * depth);
    const struct fnn_range range = fnn_share(args->groups * rows, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        const ptrdiff_t group = i / rows, r = i % rows;
        const ptrdiff_t step = packed_row(r, rows, args->stride_h, args->dilation_h) * depth;
        for (ptrdiff_t column = 0; column < gemm_width(columns); column++) {
            const ptrdiff_t first = column / FNN_GEMM_COLUMNS * FNN_GEMM_COLUMNS;
            const ptrdiff_t width = gemm_width(fnn_min(columns - first, FNN_GEMM_COLUMNS));
            float *to = args->packed + group * size + first * rows * depth + step * width + column - first;
            const ptrdiff_t s = column / channels, c = column % channels;
            for (ptrdiff_t d = 0; d < depth; d++) {
                const ptrdiff_t k = args->rotated ? c : d, input = args->rotated ? d : c;
                const ptrdiff_t tap = args->rotated ? (rows - 1 - r) * taps + taps - 1 - s : r * taps + s;
                const ptrdiff_t from = ((group * outputs + k) * rows * taps + tap) * inputs + input;
                to[d * width] = column < columns ? args->source[from] : 0.0f;
            }
        }
    }
}
