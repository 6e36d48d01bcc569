/* Depthwise convolution (G = C = K) backward with respect to its weight and bias:
 *
 *   dw[c,r,s] = sum over n, p, q of dy[n,p,q,c] * x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *   dbias[c]  = sum over n, p, q of dy[n,p,q,c]
 *
 * x N,H,W,C   dy N,P,Q,C   dw C,R,S, overwritten   dbias C, overwritten, or null. No aliasing.
 * chunks: into how many parts the N*P output rows are cut, >= 1; chosen from the shape alone, because it decides the order of
 * the sum. workspace: chunks * (R*S + 1) * C floats.
 *
 * Vectors along the channels; the sums of up to TAPS taps stay in registers while a chunk of rows goes by. A tap outside of
 * the image reads zeros.
 * Parallel over (chunk, vector of channels), then over channels to add the chunks in order.
 * Error bound: gamma_D * sum |dy||x|, D = pixels in a chunk + chunks (first term twice on the scalar ISA).
 */
#include "conv2d.h"

enum { TAPS = 9 };

struct depthwise_weight {
    const struct fnn_conv2d_depthwise_backward_weight_args *args;
    struct conv2d_geometry geometry;
};

/* Taps [first, first + count) for one vector of channels. */
struct tap_group {
    ptrdiff_t first, count, c, lanes;
    ptrdiff_t row[TAPS], column[TAPS]; /* displacements of the taps: r*dilation_h - pad_top, s*dilation_w - pad_left */
    vec sum[TAPS];
};

/* For each tap of the group: where output pixel (n, p, 0) finds its input; the row of zeros if it is above or below. */
static void find_rows(const struct depthwise_weight *b, const struct tap_group *taps, ptrdiff_t n, ptrdiff_t p,
                      bool inside[TAPS], const float *row[TAPS]) {
    const struct conv2d_geometry *g = &b->geometry;
    for (ptrdiff_t t = 0; t < TAPS; t++) {
        ptrdiff_t h = p * g->stride_h + taps->row[t];
        inside[t] = t < taps->count && conv2d_inside(h, g->height);
        row[t] =
            inside[t] ? b->args->x + (n * g->height + h) * g->width * g->channels + taps->c : FNN_FUNCTION(gemm_zeros);
    }
}

/* Adds output pixels [q, end), none of whose taps is left or right of the image. */
static void add_inner(const struct depthwise_weight *b, struct tap_group *taps, const float *dy, ptrdiff_t q,
                      ptrdiff_t end, const bool inside[TAPS], const float *const row[TAPS]) {
    const struct conv2d_geometry *g = &b->geometry;
    const float *x[TAPS];
    ptrdiff_t step[TAPS];
#pragma GCC unroll 9
    for (ptrdiff_t t = 0; t < TAPS; t++) {
        ptrdiff_t w = q * g->stride_w + taps->column[t];
        x[t] = inside[t] ? row[t] + w * g->channels : row[t];
        step[t] = inside[t] ? g->stride_w * g->channels : 0;
    }
    vec sum[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) sum[t] = taps->sum[t];
    for (ptrdiff_t i = 0; i < end - q; i++) {
        vec gradient = vec_load(dy + (q + i) * g->channels);
#pragma GCC unroll 9
        for (int t = 0; t < TAPS; t++) sum[t] = vec_fma(gradient, vec_load(x[t] + i * step[t]), sum[t]);
    }
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; t++) taps->sum[t] = sum[t];
}

/* Adds output pixels [q, end), looking at each tap. */
static void add_edge(const struct depthwise_weight *b, struct tap_group *taps, const float *dy, ptrdiff_t q,
                     ptrdiff_t end, const bool inside[TAPS], const float *const row[TAPS]) {
    const struct conv2d_geometry *g = &b->geometry;
    for (; q < end; q++) {
        vec gradient = vec_load_partial(dy + q * g->channels, taps->lanes);
        for (ptrdiff_t t = 0; t < taps->count; t++) {
            ptrdiff_t w = q * g->stride_w + taps->column[t];
            if (inside[t] && conv2d_inside(w, g->width))
                taps->sum[t] = vec_fma(gradient, vec_load_partial(row[t] + w * g->channels, taps->lanes), taps->sum[t]);
        }
    }
}

/* The output pixels of a row for which no tap is left or right of the image. */
static struct fnn_range inner_pixels(const struct conv2d_geometry *g) {
    ptrdiff_t begin = fnn_min(fnn_ceil_div(fnn_max(g->pad_left, 0), g->stride_w), g->out_width);
    ptrdiff_t room = g->width - 1 + g->pad_left - (g->kernel_width - 1) * g->dilation_w;
    ptrdiff_t end = room < 0 ? 0 : fnn_min(room / g->stride_w + 1, g->out_width);
    return (struct fnn_range){begin, fnn_max(begin, end)};
}

static void run_group(const struct depthwise_weight *b, struct fnn_range rows, struct tap_group *taps) {
    for (ptrdiff_t t = 0; t < TAPS; t++) {
        ptrdiff_t tap = taps->first + t;
        taps->row[t] = tap / b->geometry.kernel_width * b->geometry.dilation_h - b->geometry.pad_top;
        taps->column[t] = tap % b->geometry.kernel_width * b->geometry.dilation_w - b->geometry.pad_left;
    }
    const struct conv2d_geometry *g = &b->geometry;
    const struct fnn_range inner = inner_pixels(g);
    for (int t = 0; t < TAPS; t++) taps->sum[t] = vec_zero();
    for (ptrdiff_t i = rows.begin; i < rows.end; i++) {
        bool inside[TAPS];
        const float *row[TAPS], *dy = b->args->dy + i * g->out_width * g->channels + taps->c;
        find_rows(b, taps, i / g->out_height, i % g->out_height, inside, row);
        add_edge(b, taps, dy, 0, inner.begin, inside, row);
        if (taps->lanes == FNN_LANES)
            add_inner(b, taps, dy, inner.begin, inner.end, inside, row);
        else
            add_edge(b, taps, dy, inner.begin, inner.end, inside, row);
        add_edge(b, taps, dy, inner.end, g->out_width, inside, row);
    }
}

/* One vector of channels of one chunk: its part is [tap][channel], with the bias gradient behind the taps. */
static void run_unit(const struct depthwise_weight *b, ptrdiff_t chunk, ptrdiff_t c) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t taps = g->kernel_height * g->kernel_width, all_rows = g->batch * g->out_height;
    const struct fnn_range rows = {chunk * all_rows / b->args->chunks, (chunk + 1) * all_rows / b->args->chunks};
    float *part = b->args->workspace + chunk * (taps + 1) * g->channels + c;
    struct tap_group group = {.c = c, .lanes = fnn_min(g->channels - c, FNN_LANES)};
    for (ptrdiff_t first = 0; first < taps; first += TAPS) {
        group.first = first;
        group.count = fnn_min(taps - first, TAPS);
        run_group(b, rows, &group);
        for (ptrdiff_t t = 0; t < group.count; t++)
            vec_store_partial(part + (first + t) * g->channels, group.sum[t], group.lanes);
    }
    if (!b->args->dbias) return;
    vec sum = vec_zero();
    const float *dy = b->args->dy + c;
    for (ptrdiff_t i = rows.begin * g->out_width; i < rows.end * g->out_width; i++)
        sum = vec_add(sum, vec_load_partial(dy + i * g->channels, group.lanes));
    vec_store_partial(part + taps * g->channels, sum, group.lanes);
}

void FNN_FUNCTION(conv2d_depthwise_backward_weight)(const struct fnn_conv2d_depthwise_backward_weight_args *args,
                                                    const struct fnn_team *team) {
    const struct depthwise_weight b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const ptrdiff_t channels = args->channels, taps = args->kernel_height * args->kernel_width;
    const ptrdiff_t vectors = fnn_ceil_div(channels, FNN_LANES);
    struct fnn_range range = fnn_share(args->chunks * vectors, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++)
        run_unit(&b, unit / vectors, unit % vectors * FNN_LANES);
    fnn_barrier(team);
    range = fnn_share_blocks(channels, 16, team);
    for (ptrdiff_t tap = 0; tap <= taps; tap++) {
        if (tap == taps && !args->dbias) break;
        for (ptrdiff_t c = range.begin; c < range.end; c++) {
            float sum = 0.0f;
            for (ptrdiff_t chunk = 0; chunk < args->chunks; chunk++)
                sum += args->workspace[(chunk * (taps + 1) + tap) * channels + c];
            *(tap < taps ? args->dw + c * taps + tap : args->dbias + c) = sum;
        }
    }
}
