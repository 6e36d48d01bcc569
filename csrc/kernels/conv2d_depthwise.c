/* Depthwise convolution (G = C = K, each channel has a filter of its own), forward and backward data.
 *
 *   conv2d_depthwise_pack:          packed[r,s,c] = source[c,r,s]
 *   conv2d_depthwise_forward:       y[n,p,q,c] = activation(bias[c] + residual[n,p,q,c] + sum over r, s of
 *                                       x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c] * w[c,r,s])
 *   conv2d_depthwise_backward_data: dx[n,h,w,c] = activation(bias[c] + residual[n,h,w,c] + sum over the (r, p), (s, q)
 *                                       that lead to (h, w) of dy[n,p,q,c] * w[c,r,s])
 *
 * source, w C,R,S (the weight parameter)   packed R,S,C   x, dx, residual of dx N,H,W,C   y, dy, residual of y N,P,Q,C   bias C or null
 * y or dx is overwritten; it may be its residual if R*S <= 64; no other aliasing.
 *
 * Vectors along the channels, PIXELS outputs of a row at a time against each filter vector. Backward, the
 * outputs of a row are taken by phase (w mod stride_w), so that nothing is multiplied by the zeros between strides.
 * Parallel over the rows of the output (and over channels, where rows are few); an output is never cut.
 * Error bound: gamma_D * sum |x||w|, D = R*S (2*D on the scalar ISA), and one rounding each for bias and residual.
 */
#include "conv2d_indirect.h"

enum { PIXELS = 8, TAPS = 64 };

/* One row of outputs: output j reads pixel j*step + position[t] of input row row[t] for each tap t. */
struct depthwise_row {
    const float *row[TAPS], *filter[TAPS]; /* channels of the first pixel; channels of the tap */
    ptrdiff_t position[TAPS];
    ptrdiff_t taps, width, step, channels; /* width: pixels in an input row */
    ptrdiff_t columns;                     /* positions repeat with this period */
    ptrdiff_t outputs, output_step;        /* output j stands at y[j * output_step] */
    float *y;
    bool accumulate;
    const float *bias, *residual; /* residual is laid out as y */
    enum fnn_activation activation;
};

static inline vec finish(const struct depthwise_row *r, vec sum, ptrdiff_t at, ptrdiff_t c, ptrdiff_t lanes) {
    if (r->bias) sum = vec_add(sum, vec_load_partial(r->bias + c, lanes));
    if (r->residual) sum = vec_add(sum, vec_load_partial(r->residual + at, lanes));
    return gemm_activate(sum, r->activation);
}

/* Output j, which may look over the ends of the input row. */
static void edge_output(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes) {
    const ptrdiff_t at = j * r->output_step + c;
    vec sum = r->accumulate ? vec_load_partial(r->y + at, lanes) : vec_zero();
    for (ptrdiff_t t = 0; t < r->taps; t++) {
        ptrdiff_t pixel = j * r->step + r->position[t];
        if (!conv2d_inside(pixel, r->width)) continue;
        vec x = vec_load_partial(r->row[t] + pixel * r->channels + c, lanes);
        sum = vec_fma(x, vec_load_partial(r->filter[t] + c, lanes), sum);
    }
    vec_store_partial(r->y + at, finish(r, sum, at, c, lanes), lanes);
}

/* Outputs j to j + pixels - 1, all taps of which are inside. */
static inline __attribute__((always_inline)) void inner_outputs(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c,
                                                                int pixels) {
    const ptrdiff_t stride = r->step * r->channels;
    vec sum[PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++)
        sum[i] = r->accumulate ? vec_load(r->y + (j + i) * r->output_step + c) : vec_zero();
    for (ptrdiff_t t = 0; t < r->taps; t++) {
        const float *x = r->row[t] + (j * r->step + r->position[t]) * r->channels + c;
        vec filter = vec_load(r->filter[t] + c);
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) sum[i] = vec_fma(vec_load(x + i * stride), filter, sum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
        ptrdiff_t at = (j + i) * r->output_step + c;
        vec_store(r->y + at, finish(r, sum[i], at, c, FNN_LANES));
    }
}

/* The outputs of a row, [begin, end), that see no end of the input row. */
static struct fnn_range inner_range(const struct depthwise_row *r) {
    struct fnn_range inner = {0, r->outputs};
    for (ptrdiff_t t = 0; t < fnn_min(r->taps, r->columns); t++) {
        ptrdiff_t begin = fnn_max(-r->position[t], 0),
                  room = r->width - 1 - r->position[t]; /* j*step must not be more */
        ptrdiff_t end = room < 0 ? 0 : r->step == 1 ? room + 1 : room / r->step + 1;
        inner.begin = fnn_max(inner.begin, r->step == 1 ? begin : fnn_ceil_div(begin, r->step));
        inner.end = fnn_min(inner.end, end);
    }
    inner.begin = fnn_min(inner.begin, r->outputs);
    return inner;
}

static void run_edges(const struct depthwise_row *r, struct fnn_range outputs, struct fnn_range channels) {
    for (ptrdiff_t j = outputs.begin; j < outputs.end; j++)
        for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES)
            edge_output(r, j, c, fnn_min(channels.end - c, FNN_LANES));
}

static inline __attribute__((always_inline)) void run_inner(const struct depthwise_row *r, ptrdiff_t j,
                                                            struct fnn_range channels, int pixels) {
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES) inner_outputs(r, j, c, pixels);
    if (c < channels.end) run_edges(r, (struct fnn_range){j, j + pixels}, (struct fnn_range){c, channels.end});
}

/* Channels [channels.begin, channels.end) of a row of outputs. */
static void run_row(const struct depthwise_row *r, struct fnn_range channels) {
    const struct fnn_range inner = inner_range(r);
    run_edges(r, (struct fnn_range){0, inner.begin}, channels);
    ptrdiff_t j = inner.begin;
    for (; j + PIXELS <= inner.end; j += PIXELS) run_inner(r, j, channels, PIXELS);
    if (j + 4 <= inner.end) run_inner(r, j, channels, 4), j += 4;
    if (j + 2 <= inner.end) run_inner(r, j, channels, 2), j += 2;
    if (j < inner.end) run_inner(r, j, channels, 1), j++;
    run_edges(r, (struct fnn_range){j, r->outputs}, channels);
}

/* The taps of `window` that an output row with its first tap at row h of image n meets, TAPS at a time. */
static void run_taps(const struct conv2d_window *window, const float *packed, ptrdiff_t n, ptrdiff_t h,
                     struct fnn_range channels, struct depthwise_row *r) {
    const struct conv2d_axis *vertical = &window->vertical, *horizontal = &window->horizontal;
    const float *bias = r->bias, *residual = r->residual;
    const enum fnn_activation activation = r->activation;
    const ptrdiff_t all = vertical->count * horizontal->count;
    ptrdiff_t tap = 0;
    r->accumulate = false;
    r->columns = horizontal->count;
    do {
        for (r->taps = 0; tap < all && r->taps < TAPS; tap++) {
            ptrdiff_t i = tap / horizontal->count, j = tap % horizontal->count;
            ptrdiff_t row = h + vertical->position + i * vertical->position_step;
            if (!conv2d_inside(row, window->height)) continue;
            r->row[r->taps] = window->image + (n * window->height + row) * window->width * window->channels;
            r->position[r->taps] = horizontal->position + j * horizontal->position_step;
            r->filter[r->taps] = packed + ((vertical->first + i * vertical->step) * window->kernel_width +
                                           horizontal->first + j * horizontal->step) *
                                              window->channels;
            r->taps++;
        }
        r->bias = tap == all ? bias : NULL;
        r->residual = tap == all ? residual : NULL;
        r->activation = tap == all ? activation : FNN_ACTIVATION_NONE;
        run_row(r, channels);
        r->accumulate = true;
    } while (tap < all);
}

/* Units of work are (row, block of channels); blocks are cut only where rows are few. */
static ptrdiff_t channel_blocks(ptrdiff_t rows, ptrdiff_t channels, const struct fnn_team *team) {
    return rows >= 8 * team->size ? 1 : fnn_min(fnn_ceil_div(channels, FNN_LANES), 8);
}

static struct fnn_range channel_block(ptrdiff_t block, ptrdiff_t blocks, ptrdiff_t channels) {
    ptrdiff_t vectors = fnn_ceil_div(channels, FNN_LANES);
    return (struct fnn_range){block * vectors / blocks * FNN_LANES,
                              fnn_min((block + 1) * vectors / blocks * FNN_LANES, channels)};
}

void FNN_FUNCTION(conv2d_depthwise_forward)(const struct fnn_conv2d_depthwise_forward_args *args,
                                            const struct fnn_team *team) {
    const struct conv2d_geometry g = CONV2D_GEOMETRY(args);
    const struct conv2d_window window = {
        .image = args->x,
        .height = g.height,
        .width = g.width,
        .channels = g.channels,
        .vertical = {.step = 1, .count = g.kernel_height, .position = -g.pad_top, .position_step = g.dilation_h},
        .horizontal = {.step = 1, .count = g.kernel_width, .position = -g.pad_left, .position_step = g.dilation_w},
        .kernel_width = g.kernel_width,
    };
    const ptrdiff_t rows = g.batch * g.out_height, blocks = channel_blocks(rows, g.channels, team);
    struct depthwise_row r;
    struct fnn_range range = fnn_share(rows * blocks, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
        ptrdiff_t row = unit / blocks, offset = row * g.out_width * g.channels;
        r.width = g.width;
        r.step = g.stride_w;
        r.channels = g.channels;
        r.outputs = g.out_width;
        r.output_step = g.channels;
        r.y = args->y + offset;
        r.bias = args->bias;
        r.residual = args->residual ? args->residual + offset : NULL;
        r.activation = (enum fnn_activation)args->activation;
        run_taps(&window, args->packed, row / g.out_height, row % g.out_height * g.stride_h,
                 channel_block(unit % blocks, blocks, g.channels), &r);
    }
}

void FNN_FUNCTION(conv2d_depthwise_backward_data)(const struct fnn_conv2d_depthwise_backward_data_args *args,
                                                  const struct fnn_team *team) {
    const struct conv2d_geometry g = CONV2D_GEOMETRY(args);
    struct conv2d_window window = {
        .image = args->dy,
        .height = g.out_height,
        .width = g.out_width,
        .channels = g.channels,
        .kernel_width = g.kernel_width,
    };
    const ptrdiff_t rows = g.batch * g.height, blocks = channel_blocks(rows, g.channels, team);
    struct depthwise_row r;
    struct fnn_range range = fnn_share(rows * blocks, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
        ptrdiff_t row = unit / blocks, n = row / g.height, h = row % g.height;
        window.vertical = conv2d_phase_axis(h, g.pad_top, g.kernel_height, g.stride_h, g.dilation_h);
        for (ptrdiff_t w = 0; w < fnn_min(g.stride_w, g.width); w++) {
            ptrdiff_t offset = (row * g.width + w) * g.channels;
            window.horizontal = conv2d_phase_axis(w, g.pad_left, g.kernel_width, g.stride_w, g.dilation_w);
            r.width = g.out_width;
            r.step = 1;
            r.channels = g.channels;
            r.outputs = (g.width - w + g.stride_w - 1) / g.stride_w;
            r.output_step = g.stride_w * g.channels;
            r.y = args->dx + offset;
            r.bias = args->bias;
            r.residual = args->residual ? args->residual + offset : NULL;
            r.activation = (enum fnn_activation)args->activation;
            run_taps(&window, args->packed, n, 0, channel_block(unit % blocks, blocks, g.channels), &r);
        }
    }
}

void FNN_FUNCTION(conv2d_depthwise_pack)(const struct fnn_conv2d_depthwise_pack_args *args,
                                         const struct fnn_team *team) {
    const ptrdiff_t taps = args->kernel_height * args->kernel_width;
    struct fnn_range range = fnn_share_blocks(args->channels, 16, team);
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t c = range.begin; c < range.end; c++)
            args->packed[tap * args->channels + c] = args->source[c * taps + tap];
}
