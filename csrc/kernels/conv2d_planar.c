/* Convolution backward with respect to its input, for very few channels: dx as in conv2d_backward_data.c, without groups and residual.
 *
 * Where C is a small part of a vector, vectors lie along the pixels of a row instead: dy is turned into planes, one for each output
 * channel, a band of rows at a time, and the pixels with the same (h mod stride_h, w mod stride_w), a phase, are
 *
 *   t[c][j] = sum over r, k, s of w[k,r,s,c] * plane[p(h, r)][k][q(phase, s) + j]
 *   dx[n, h, phase + j*stride_w, c] = activation(bias[c] + t[c][j])
 *
 * over the taps that meet the phase. No lane is empty but at the end of a row.
 *
 * dy N,P,Q,K   weight K,R,S,C   bias C or null   dx N,H,W,C, overwritten   activation: enum fnn_activation of gemm.h
 * C <= PLANES_ROWS   pad_top, pad_left >= 0. No aliasing.
 * bands: parts that the rows of each image are cut into, >= 1; no bit depends on it.
 * workspace: for each thread of the team workspace_stride >= rows * K * plane + C * up(ceil(W/stride_w)) +
 * R*S*K * (C + 1) floats, up: rounded up to whole vectors, rows = (ceil(H/bands) - 1 + (R - 1)*dilation_h) / stride_h + 1, plane =
 * up(left + max(Q, (W - 1 + pad_left) / stride_w + 1 + lanes)) + lanes, left = max(ceil(((S - 1)*dilation_w - pad_left) / stride_w), 0).
 *
 * Parallel over bands.
 * Error bound: gemm.h with D = R*S*K.
 */
#include "conv2d_indirect.h"
#include "gemm_planes.h"
#include "lanes.h"

struct planar {
    const struct fnn_conv2d_planar_backward_data_args *args;
    struct conv2d_geometry geometry;
    ptrdiff_t left, plane; /* zeros before a plane's first pixel; floats of a plane's row */
    ptrdiff_t row_width; /* of a phase's sums, in whole vectors */
    float *planes, *sums, *packed; /* this thread's: planes [p][k][plane], sums [c][row_width], weights by phases */
    int32_t *offsets; /* of the weights' steps in the planes */
};

/* What the next band reads of dy, asked for while the products of this one are made: a share with each of them. */
struct ahead {
    uintptr_t at;
    ptrdiff_t share; /* bytes */
};

/* The taps of a pair of phases, in the order (r, k, s): where they begin among all steps. */
struct phase {
    struct conv2d_axis vertical, horizontal;
    ptrdiff_t first;
};

static struct conv2d_axis vertical_axis(const struct conv2d_geometry *g, ptrdiff_t h) {
    return conv2d_phase_axis(h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h);
}

static struct conv2d_axis horizontal_axis(const struct conv2d_geometry *g, ptrdiff_t w) {
    return conv2d_phase_axis(w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w);
}

/* The steps of one pair of phases: weights side by side, and where they find their pixels. */
static void pack_phase(const struct planar *s, const struct phase *phase) {
    const struct conv2d_geometry *g = &s->geometry;
    const struct conv2d_axis *v = &phase->vertical, *u = &phase->horizontal;
    float *packed = s->packed + phase->first * g->channels;
    int32_t *offset = s->offsets + phase->first;
    for (ptrdiff_t i = 0; i < v->count; i++)
        for (ptrdiff_t k = 0; k < g->out_channels; k++)
            for (ptrdiff_t j = 0; j < u->count; j++, packed += g->channels) {
                const ptrdiff_t r = v->first + i * v->step, tap = u->first + j * u->step;
                const float *weight =
                    s->args->weight + ((k * g->kernel_height + r) * g->kernel_width + tap) * g->channels;
                for (ptrdiff_t c = 0; c < g->channels; c++) packed[c] = weight[c];
                *offset++ = (int32_t)((i * v->position_step * g->out_channels + k) * s->plane + j * u->position_step);
            }
}

/* Phase (h mod stride_h, w mod stride_w); the steps of one follow those of the one before. */
static struct phase phase_at(const struct planar *s, ptrdiff_t h, ptrdiff_t w) {
    const struct conv2d_geometry *g = &s->geometry;
    struct phase phase = {vertical_axis(g, h), horizontal_axis(g, w), 0};
    ptrdiff_t rows_before = 0, taps_before = 0;
    for (ptrdiff_t i = 0; i < h; i++) rows_before += vertical_axis(g, i).count;
    for (ptrdiff_t i = 0; i < w; i++) taps_before += horizontal_axis(g, i).count;
    phase.first = (rows_before * g->kernel_width + phase.vertical.count * taps_before) * g->out_channels;
    return phase;
}

static void pack_phases(const struct planar *s) {
    const struct conv2d_geometry *g = &s->geometry;
    for (ptrdiff_t h = 0; h < g->stride_h; h++)
        for (ptrdiff_t w = 0; w < g->stride_w; w++) {
            const struct phase phase = phase_at(s, h, w);
            pack_phase(s, &phase);
        }
}

/* Up to FNN_LANES channels of up to FNN_LANES pixels of dy, turned; zeros stand for pixels that do not exist. */
FNN_INLINE void turn_square(const float *dy, ptrdiff_t stride, ptrdiff_t pixels, ptrdiff_t channels, float *to,
                            ptrdiff_t plane) {
    vec square[FNN_LANES];
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < FNN_LANES; i++)
        square[i] = i < pixels ? load_lanes(dy + i * stride, channels) : vec_zero();
    vec_transpose(square);
#pragma GCC unroll 16
    for (ptrdiff_t k = 0; k < FNN_LANES; k++)
        if (k < channels) vec_store(to + k * plane, square[k]);
}

/* Planes of one row of dy. */
static void turn_row(const struct planar *s, const float *dy, float *to) {
    const ptrdiff_t channels = s->geometry.out_channels, width = s->geometry.out_width, plane = s->plane;
    for (ptrdiff_t q = 0; q < width; q += FNN_LANES) {
        const float *next = dy + (q + FNN_LANES) * channels;
        for (ptrdiff_t i = 0; i < FNN_LANES * channels; i += FNN_LINE) __builtin_prefetch(next + i);
        for (ptrdiff_t k = 0; k < channels; k += FNN_LANES) {
            const ptrdiff_t pixels = lanes_left(width - q), exist = lanes_left(channels - k);
            const float *from = dy + q * channels + k;
            float *square = to + k * plane + s->left + q;
            if (pixels == FNN_LANES && exist == FNN_LANES)
                turn_square(from, channels, FNN_LANES, FNN_LANES, square, plane);
            else
                turn_square(from, channels, pixels, exist, square, plane);
        }
    }
}

/* Zeros on both sides of the planes of `rows` rows; pixels never reach them. */
static void clear_sides(const struct planar *s, ptrdiff_t rows) {
    const ptrdiff_t right = s->left + s->geometry.out_width;
    for (ptrdiff_t i = 0; i < rows * s->geometry.out_channels; i++) {
        float *plane = s->planes + i * s->plane;
        for (ptrdiff_t j = 0; j < s->left; j++) plane[j] = 0.0f;
        for (ptrdiff_t j = right; j < s->plane; j++) plane[j] = 0.0f;
    }
}

/* The sums of `pixels` pixels to their places in dx, `step` floats apart. Copied as bytes: more of them are stored in a cycle than
 * floats. */
FNN_INLINE void interleave(const struct planar *s, ptrdiff_t pixels, ptrdiff_t step, ptrdiff_t channels, float *to) {
    const float *from = s->sums;
    for (ptrdiff_t i = 0; i < pixels; i++, to += step)
        for (ptrdiff_t c = 0; c < channels; c++) memcpy(to + c, from + c * s->row_width + i, sizeof *to);
}

/* The sums of a phase of a row: `steps` of its taps, of which the first finds its pixels at x. */
static void multiply_row(const struct planar *s, const float *x, ptrdiff_t first, ptrdiff_t steps, ptrdiff_t pixels,
                         struct ahead *ahead) {
    const ptrdiff_t channels = s->geometry.channels, vectors = fnn_ceil_div(pixels, FNN_LANES);
    const ptrdiff_t tiles = fnn_ceil_div(vectors, planes_vectors(channels));
    struct gemm_planes tile = {
        .weights = s->packed + first * channels,
        .weight_step = channels,
        .offsets = s->offsets + first,
        .depth = steps,
        .rows = channels,
        .bias = s->args->bias,
        .activation = (enum fnn_activation)s->args->activation,
        .y_stride = s->row_width,
        .fetch_step = fnn_ceil_div(ahead->share, fnn_max(tiles * steps, 1)),
    };
    for (ptrdiff_t i = 0; i < tiles; i++) {
        const ptrdiff_t begin = i * vectors / tiles;
        tile.vectors = (i + 1) * vectors / tiles - begin;
        tile.x = x + begin * FNN_LANES;
        tile.y = s->sums + begin * FNN_LANES;
        tile.fetch = ahead->at;
        ahead->at += (uintptr_t)(ahead->share / tiles);
        FNN_FUNCTION(gemm_planes)(&tile);
    }
}

/* The pixels of a phase in one row of dx: of w, w + stride_w, ..., whose first tap finds its pixels in row `position` of dy, row p being
 * the first of the planes. */
static void run_row(const struct planar *s, const struct phase *phase, ptrdiff_t position, ptrdiff_t p, ptrdiff_t w,
                    struct ahead *ahead, float *dx) {
    const struct conv2d_geometry *g = &s->geometry;
    const struct conv2d_axis *v = &phase->vertical, *u = &phase->horizontal;
    const ptrdiff_t up = fnn_max(-v->position_step, 1), each = g->out_channels * u->count; /* steps of a filter row */
    const ptrdiff_t begin = fnn_ceil_div(fnn_max(position - (g->out_height - 1), 0), up);
    const ptrdiff_t end = position < 0 ? 0 : fnn_min(position / up + 1, v->count);
    const ptrdiff_t pixels = fnn_ceil_div(g->width - w, g->stride_w), step = g->stride_w * g->channels;
    const float *x = s->planes + (position - p) * g->out_channels * s->plane + s->left + u->position;
    multiply_row(s, x, phase->first + begin * each, fnn_max(end - begin, 0) * each, pixels, ahead);
    if (g->channels == 3)
        interleave(s, pixels, step, 3, dx + w * 3);
    else
        interleave(s, pixels, step, g->channels, dx + w * g->channels);
}

/* Rows [rows.begin, rows.end) of image n: first the rows of dy that they meet. */
static void run_band(const struct planar *s, ptrdiff_t n, struct fnn_range rows) {
    const struct conv2d_geometry *g = &s->geometry;
    const ptrdiff_t above = fnn_max(rows.begin + g->pad_top - (g->kernel_height - 1) * g->dilation_h, 0);
    const ptrdiff_t first = fnn_ceil_div(above, g->stride_h);
    const ptrdiff_t end = fnn_min((rows.end - 1 + g->pad_top) / g->stride_h + 1, g->out_height);
    for (ptrdiff_t p = first; p < end; p++)
        turn_row(s, s->args->dy + (n * g->out_height + p) * g->out_width * g->out_channels,
                 s->planes + (p - first) * g->out_channels * s->plane);
    const ptrdiff_t row_bytes = g->out_width * g->out_channels * (ptrdiff_t)sizeof(float);
    const ptrdiff_t products = (rows.end - rows.begin) * fnn_min(g->stride_w, g->width);
    struct ahead ahead = {
        .at = (uintptr_t)(s->args->dy + (n * g->out_height + end) * g->out_width * g->out_channels),
        .share = fnn_ceil_div(rows.end - rows.begin, g->stride_h) * row_bytes / products,
    };
    for (ptrdiff_t i = 0; i < fnn_min(g->stride_h, rows.end - rows.begin); i++)
        for (ptrdiff_t w = 0; w < fnn_min(g->stride_w, g->width); w++) {
            const ptrdiff_t phase_h = (rows.begin + i) % g->stride_h;
            const struct phase phase = phase_at(s, phase_h, w);
            for (ptrdiff_t h = rows.begin + i; h < rows.end; h += g->stride_h)
                run_row(s, &phase, phase.vertical.position + (h - phase_h) / g->stride_h, first, w, &ahead,
                        s->args->dx + (n * g->height + h) * g->width * g->channels);
        }
}

void FNN_FUNCTION(conv2d_planar_backward_data)(const struct fnn_conv2d_planar_backward_data_args *args,
                                               const struct fnn_team *team) {
    struct planar s = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const struct conv2d_geometry *g = &s.geometry;
    const ptrdiff_t longest = fnn_ceil_div(g->height, args->bands), span = (g->kernel_height - 1) * g->dilation_h;
    s.left = fnn_ceil_div(fnn_max((g->kernel_width - 1) * g->dilation_w - g->pad_left, 0), g->stride_w);
    s.plane = gemm_width(s.left + fnn_max(g->out_width, (g->width - 1 + g->pad_left) / g->stride_w + 1 + FNN_LANES)) +
              FNN_LANES;
    s.row_width = gemm_width(fnn_ceil_div(g->width, g->stride_w));
    s.planes = args->workspace + team->rank * args->workspace_stride;
    const ptrdiff_t rows = (longest - 1 + span) / g->stride_h + 1;
    s.sums = s.planes + rows * g->out_channels * s.plane;
    s.packed = s.sums + g->channels * s.row_width;
    s.offsets = (int32_t *)(void *)(s.packed + g->kernel_height * g->kernel_width * g->out_channels * g->channels);
    clear_sides(&s, rows);
    pack_phases(&s);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(g->batch * args->bands, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t i = range.begin; i < range.end; i++) {
            const ptrdiff_t n = i / args->bands, band = i % args->bands;
            run_band(&s, n, (struct fnn_range){band * g->height / args->bands, (band + 1) * g->height / args->bands});
        }
}
