/* Depthwise convolution (G = C = K) backward with respect to its weight and bias:
 *
 *   dw[c,r,s] = sum over n, p, q of dy[n,p,q,c] * x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c]
 *   dbias[c]  = sum over n, p, q of dy[n,p,q,c]
 *
 * x N,H,W,C   dy N,P,Q,C   dw C,R,S, overwritten   dbias C, overwritten, or null. No aliasing.
 * chunks: into how many parts the N*P output rows are cut, >= 1; chosen from the shape alone, because it decides the order of
 * the sum. workspace: chunks * (R*S + 1) * C floats.
 *
 * Vectors along the channels, row by row of dy: the sums of a few filter rows stay in registers while a row goes by, and are
 * added to the chunk's part in between. Filters of common widths load each pixel once for all of its taps; others
 * go tap by tap. A tap outside of the image is left out, or reads zeros.
 * Parallel over (chunk, block of channels), then over channels to add the chunks in order.
 * Error bound: gamma_D * sum |dy||x|, D = pixels in a chunk + chunks (first term twice on the scalar ISA).
 */
#include "conv2d.h"
#include "lanes.h"

enum {
    PIXELS = 4, /* outputs at a time */
    ROWS = 3,   /* filter rows at a time, at most */
    TAPS = 7    /* taps of a filter row at a time, at most */
};

struct depthwise_weight {
    const struct fnn_conv2d_depthwise_backward_weight_args *args;
    struct conv2d_geometry geometry;
};

/* A row of dy against some filter rows, or against some taps of one. */
struct dy_row {
    const float *dy, *image[ROWS]; /* channel 0 of the first pixel; image: for each filter row, null if it is outside */
    ptrdiff_t position; /* output 0's first tap: pixel of an image row */
    float *sums, *bias; /* added to: [filter row][tap][channel]; bias may be null */
};

typedef void add_function(const struct conv2d_geometry *g, const struct dy_row *r, ptrdiff_t c, ptrdiff_t lanes);

/* Adds outputs [q, q + pixels), taps side by side. All numbers but q are constants. */
FNN_INLINE void add_pixels(const struct conv2d_geometry *g, const struct dy_row *r, ptrdiff_t c, ptrdiff_t lanes,
                           ptrdiff_t q, int pixels, int rows, int taps, int step, vec sum[ROWS][TAPS], vec *bias) {
    const int columns = (pixels - 1) * step + taps;
    const ptrdiff_t first = q * step + r->position, channels = g->channels;
    const bool whole = first >= 0 && first + columns <= g->width;
    vec gradient[PIXELS];
#pragma GCC unroll 4
    for (int i = 0; i < pixels; i++) gradient[i] = load_lanes(r->dy + (q + i) * channels + c, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < pixels; i++) *bias = vec_add(*bias, gradient[i]);
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
        if (!r->image[t]) continue;
        const float *x = r->image[t] + first * channels + c;
        vec pixel[(PIXELS - 1) * 2 + TAPS]; /* first all loads: each once */
#pragma GCC unroll 16
        for (int i = 0; i < columns; i++)
            pixel[i] = whole || conv2d_inside(first + i, g->width) ? load_lanes(x + i * channels, lanes) : vec_zero();
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) {
#pragma GCC unroll 8
            for (int s = 0; s < taps; s++) sum[t][s] = vec_fma(gradient[i], pixel[i * step + s], sum[t][s]);
        }
    }
}

/* One output, any taps of one filter row; their number is a constant. */
FNN_INLINE void add_scattered(const struct conv2d_geometry *g, const struct dy_row *r, ptrdiff_t c, ptrdiff_t lanes,
                              ptrdiff_t q, int taps, vec sum[ROWS][TAPS], vec *bias) {
    const vec gradient = load_lanes(r->dy + q * g->channels + c, lanes);
    *bias = vec_add(*bias, gradient);
    if (!r->image[0]) return;
#pragma GCC unroll 8
    for (int s = 0; s < taps; s++) {
        ptrdiff_t w = q * g->stride_w + r->position + s * g->dilation_w;
        if (!conv2d_inside(w, g->width)) continue;
        sum[0][s] = vec_fma(gradient, load_lanes(r->image[0] + w * g->channels + c, lanes), sum[0][s]);
    }
}

/* The whole row; step 0: any taps. */
FNN_INLINE void add_row(const struct conv2d_geometry *g, const struct dy_row *r, ptrdiff_t c, ptrdiff_t lanes, int rows,
                        int taps, int step) {
    vec sum[ROWS][TAPS], bias = r->bias ? load_lanes(r->bias + c, lanes) : vec_zero();
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) sum[t][s] = load_lanes(r->sums + (t * taps + s) * g->channels + c, lanes);
    }
    ptrdiff_t q = 0;
    for (; step && q + PIXELS <= g->out_width; q += PIXELS)
        add_pixels(g, r, c, lanes, q, PIXELS, rows, taps, step, sum, &bias);
    for (; step && q < g->out_width; q++) add_pixels(g, r, c, lanes, q, 1, rows, taps, step, sum, &bias);
    for (; q < g->out_width; q++) add_scattered(g, r, c, lanes, q, taps, sum, &bias);
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) store_lanes(r->sums + (t * taps + s) * g->channels + c, sum[t][s], lanes);
    }
    if (r->bias) store_lanes(r->bias + c, bias, lanes);
}

/* One function for each number of filter rows and taps. */
#define ADD(rows, taps, step)                                                                                      \
    static void add_##rows##_##taps##_##step(const struct conv2d_geometry *g, const struct dy_row *r, ptrdiff_t c, \
                                             ptrdiff_t lanes) {                                                    \
        if (lanes == FNN_LANES)                                                                                    \
            add_row(g, r, c, FNN_LANES, rows, taps, step);                                                         \
        else                                                                                                       \
            add_row(g, r, c, lanes, rows, taps, step);                                                             \
    }
ADD(3, 3, 1)
ADD(3, 3, 2)
ADD(1, 5, 1)
ADD(1, 5, 2)
ADD(1, 7, 1)
ADD(1, 7, 0)
ADD(1, 4, 0)
ADD(1, 1, 0)

/* How the taps are taken: `rows` filter rows or, if it is 1, `taps` taps of one at a time. */
struct manner {
    ptrdiff_t rows, taps;
    add_function *add;
};

static struct manner manner_of(const struct conv2d_geometry *g, ptrdiff_t taps_left) {
    const bool close = g->dilation_w == 1 && g->stride_w <= 2, single = g->stride_w == 1;
    if (close && g->kernel_width == 3 && g->kernel_height == 3)
        return (struct manner){3, 3, single ? add_3_3_1 : add_3_3_2};
    if (close && g->kernel_width == 5) return (struct manner){1, 5, single ? add_1_5_1 : add_1_5_2};
    if (close && single && g->kernel_width == 7) return (struct manner){1, 7, add_1_7_1};
    if (taps_left >= 7) return (struct manner){1, 7, add_1_7_0};
    if (taps_left >= 4) return (struct manner){1, 4, add_1_4_0};
    return (struct manner){1, 1, add_1_1_0};
}

/* Row i of the N*P rows of dy, added to a chunk's part. */
static void add_dy_row(const struct depthwise_weight *b, ptrdiff_t i, struct fnn_range channels, float *part) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t taps = g->kernel_height * g->kernel_width, n = i / g->out_height, p = i % g->out_height;
    struct manner manner;
    for (ptrdiff_t tap = 0; tap < taps; tap += manner.rows * manner.taps) {
        const ptrdiff_t first = tap / g->kernel_width, s = tap % g->kernel_width;
        struct dy_row r = {.dy = b->args->dy + i * g->out_width * g->channels, .sums = part + tap * g->channels};
        manner = manner_of(g, g->kernel_width - s);
        for (ptrdiff_t t = 0; t < manner.rows; t++) {
            ptrdiff_t h = p * g->stride_h - g->pad_top + (first + t) * g->dilation_h;
            bool inside = conv2d_inside(h, g->height);
            r.image[t] = inside ? b->args->x + (n * g->height + h) * g->width * g->channels : NULL;
        }
        r.position = s * g->dilation_w - g->pad_left;
        r.bias = tap == 0 && b->args->dbias ? part + taps * g->channels : NULL;
        for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES)
            manner.add(g, &r, c, lanes_left(channels.end - c));
    }
}

/* Some channels of one chunk: its part is [tap][channel], with the bias gradient behind the taps. */
static void run_unit(const struct depthwise_weight *b, ptrdiff_t chunk, struct fnn_range channels) {
    const struct conv2d_geometry *g = &b->geometry;
    const ptrdiff_t taps = g->kernel_height * g->kernel_width, all_rows = g->batch * g->out_height;
    const ptrdiff_t end = (chunk + 1) * all_rows / b->args->chunks;
    float *part = b->args->workspace + chunk * (taps + 1) * g->channels;
    for (ptrdiff_t tap = 0; tap <= taps; tap++)
        memset(part + tap * g->channels + channels.begin, 0, (size_t)(channels.end - channels.begin) * sizeof *part);
    for (ptrdiff_t i = chunk * all_rows / b->args->chunks; i < end; i++) add_dy_row(b, i, channels, part);
}

/* Adds the chunks' parts in order, for one vector of channels. */
static void combine(const struct depthwise_weight *b, ptrdiff_t c) {
    const struct fnn_conv2d_depthwise_backward_weight_args *args = b->args;
    const ptrdiff_t channels = args->channels, taps = args->kernel_height * args->kernel_width;
    const ptrdiff_t lanes = lanes_left(channels - c);
    for (ptrdiff_t tap = 0; tap < taps + (args->dbias != NULL); tap++) {
        const float *part = args->workspace + tap * channels + c;
        vec sum = vec_zero();
        for (ptrdiff_t chunk = 0; chunk < args->chunks; chunk++)
            sum = vec_add(sum, load_lanes(part + chunk * (taps + 1) * channels, lanes));
        float sums[FNN_LANES];
        vec_store(sums, sum);
        for (ptrdiff_t i = 0; i < lanes; i++)
            *(tap < taps ? args->dw + (c + i) * taps + tap : args->dbias + c + i) = sums[i];
    }
}

void FNN_FUNCTION(conv2d_depthwise_backward_weight)(const struct fnn_conv2d_depthwise_backward_weight_args *args,
                                                    const struct fnn_team *team) {
    const struct depthwise_weight b = {.args = args, .geometry = CONV2D_GEOMETRY(args)};
    const ptrdiff_t vectors = fnn_ceil_div(args->channels, FNN_LANES);
    const ptrdiff_t blocks = args->chunks >= 4 * team->size ? 1 : fnn_min(vectors, 8);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->chunks * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
            ptrdiff_t block = unit % blocks, end = fnn_min((block + 1) * vectors / blocks * FNN_LANES, args->channels);
            run_unit(&b, unit / blocks, (struct fnn_range){block * vectors / blocks * FNN_LANES, end});
        }
    fnn_barrier(team);
    range = fnn_share(vectors, team);
    for (ptrdiff_t v = range.begin; v < range.end; v++) combine(&b, v * FNN_LANES);
}
