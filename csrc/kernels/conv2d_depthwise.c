/* Depthwise convolution (G = C = K, each channel has a filter of its own), forward and backward data.
 *
 *   conv2d_depthwise_pack:          packed[r,s,c] = source[c,r,s]
 *   conv2d_depthwise_forward:       y[n,p,q,c] = activation(bias[c] + residual[n,p,q,c] + sum over r, s of
 *                                       x[n, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w, c] * w[c,r,s])
 *   conv2d_depthwise_backward_data: dx[n,h,w,c] = activation(bias[c] + residual[n,h,w,c] + sum over the (r, p), (s, q)
 *                                       that lead to (h, w) of dy[n,p,q,c] * w[c,r,s])
 *
 * source, w C,R,S (the weight parameter)   packed R,S,C   x, dx, residual of dx N,H,W,C   y, dy, residual of y N,P,Q,C   bias C or null
 * moments ceil(N*P*Q / moment_rows), 3, K as in block_moments.h, or null; moment_rows a multiple of Q.
 * sums ceil(N*H*W / sum_rows), 2, C as in gradient_sums.h, or null, of the batch normalisation whose input was
 * `normalized` N,H,W,C, with statistics 3, C, norm_weight, norm_bias C or null and norm_activation; sum_rows a multiple of W.
 * y or dx is overwritten; it may be its residual if R*S <= 64; no other aliasing.
 *
 * Vectors along the channels, row by row of the output (conv2d_depthwise_row.h); what the next row reads and writes is fetched
 * meanwhile. Backward nothing is multiplied by the zeros between strides: with stride_w 2 pixels of dy are added to the outputs
 * that they lead to, so that a row of dx is written once, in order; with others outputs are taken by phase (w mod stride_w).
 * Limit: memory.
 * A part of a vector of channels is read as a whole one where there is something behind it: what is too much is not written.
 * Parallel over the rows of the output, or over blocks of them whose moments or sums are asked for (and over channels,
 * where these are few); an output is never cut.
 * Error bound: gamma_D * sum |x||w|, D = R*S (2*D on the scalar ISA), and one rounding each for bias and residual.
 */
#include "conv2d_depthwise_row.h"
#include "conv2d_indirect.h"

/* The part of a row that follows from the window, for the output row with its first tap at row h of image n; `ahead` rows of
 * the image more than this row looks at are fetched for the next. DEPTHWISE_ROWS filter rows at a time. */
static void run_taps(const struct conv2d_window *window, const float *packed, ptrdiff_t batch, ptrdiff_t n, ptrdiff_t h,
                     ptrdiff_t ahead, struct fnn_range channels, struct depthwise_row *r) {
    const struct conv2d_axis *vertical = &window->vertical, *horizontal = &window->horizontal;
    float *const moments = r->moments;
    const struct gradient_sums *const gradient = r->gradient;
    const float *bias = r->bias, *residual = r->residual,
                *image = window->image + n * window->height * window->width * window->channels;
    const enum fnn_activation activation = r->activation;
    const ptrdiff_t row_floats = window->width * window->channels, last = horizontal->count - 1;
    const bool leftward = horizontal->position_step < 0;
    ptrdiff_t i = 0, newest = -1; /* the lowest row of the image that is looked at */
    r->input_end = window->image + batch * window->height * window->width * window->channels;
    r->width = window->width;
    r->channels = window->channels;
    r->accumulate = false;
    r->taps = horizontal->count;
    r->position = horizontal->position + (leftward ? last * horizontal->position_step : 0);
    r->position_step = leftward ? -horizontal->position_step : horizontal->position_step;
    r->filter_step = (leftward ? -horizontal->step : horizontal->step) * window->channels;
    if (r->taps == 1) r->position_step = 1;
    do {
        for (r->rows = 0; i < vertical->count && r->rows < DEPTHWISE_ROWS; i++) {
            ptrdiff_t row = h + vertical->position + i * vertical->position_step;
            if (!conv2d_inside(row, window->height)) continue;
            newest = fnn_max(newest, row);
            ptrdiff_t tap = (vertical->first + i * vertical->step) * window->kernel_width + horizontal->first;
            r->row[r->rows] = image + row * row_floats;
            r->filter[r->rows] = packed + (tap + (leftward ? last * horizontal->step : 0)) * window->channels;
            r->rows++;
        }
        const bool end = i == vertical->count;
        r->bias = end ? bias : NULL;
        r->moments = end ? moments : NULL;
        r->gradient = end ? gradient : NULL;
        r->residual = end ? residual : NULL;
        r->activation = end ? activation : FNN_ACTIVATION_NONE;
        for (ptrdiff_t k = 0; k < 2; k++) {
            const bool fetch = end && k < ahead; /* beyond the image: the next one */
            r->ahead[k] = fetch ? image + (newest + 1 + k) * row_floats : NULL;
        }
        FNN_FUNCTION(conv2d_depthwise_row)(r, channels);
        r->accumulate = true;
    } while (i < vertical->count);
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

/* One row of y. */
static void run_forward_row(const struct fnn_conv2d_depthwise_forward_args *args, const struct conv2d_geometry *g,
                            const struct conv2d_window *window, ptrdiff_t row, struct fnn_range channels,
                            struct depthwise_row *r) {
    const ptrdiff_t offset = row * g->out_width * g->channels;
    float *const moments = r->moments;
    r->step = g->stride_w;
    r->outputs = g->out_width;
    r->output_step = g->channels;
    r->y = args->y + offset;
    r->bias = args->bias;
    r->residual = args->residual ? args->residual + offset : NULL;
    r->activation = (enum fnn_activation)args->activation;
    run_taps(window, args->packed, g->batch, row / g->out_height, row % g->out_height * g->stride_h,
             g->dilation_h == 1 ? g->stride_h : 0, channels, r);
    r->moments = moments;
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
    const ptrdiff_t rows = g.batch * g.out_height, part = args->moments ? args->moment_rows / g.out_width : 1;
    const ptrdiff_t parts = fnn_ceil_div(rows, part), blocks = channel_blocks(parts, g.channels, team);
    struct depthwise_row r = {.stream = g.channels % FNN_LANES == 0 &&
                                        streams(args->residual, args->y, rows * g.out_width * g.channels)};
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(parts * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
            const struct fnn_range some = channel_block(unit % blocks, blocks, g.channels);
            const ptrdiff_t first = unit / blocks * part, end = fnn_min(first + part, rows);
            r.moments = args->moments ? args->moments + unit / blocks * 3 * g.channels : NULL;
            for (ptrdiff_t row = first; row < end; row++) {
                r.moment_rows_seen = (row - first) * g.out_width;
                run_forward_row(args, &g, &window, row, some, &r);
            }
        }
    if (r.stream) vec_fence();
}

/* What a row of dx begins with: its outputs from pixel w on, every `step`th. */
static void begin_backward_row(const struct fnn_conv2d_depthwise_backward_data_args *args, ptrdiff_t row, ptrdiff_t w,
                               ptrdiff_t step, struct depthwise_row *r) {
    const ptrdiff_t offset = (row * args->width + w) * args->channels;
    r->outputs = (args->width - w + step - 1) / step;
    r->output_step = step * args->channels;
    r->y = args->dx + offset;
    r->bias = args->bias;
    r->residual = args->residual ? args->residual + offset : NULL;
    r->activation = (enum fnn_activation)args->activation;
    r->gradient_at = offset;
}

/* One row of dx, in one go or phase by phase. `window` lacks its axes, r the places of the row. */
static void run_backward_row(const struct fnn_conv2d_depthwise_backward_data_args *args,
                             const struct conv2d_geometry *g, struct conv2d_window *window, ptrdiff_t row,
                             struct fnn_range channels, struct depthwise_row *r) {
    const ptrdiff_t n = row / g->height, h = row % g->height, ahead = g->dilation_h == 1;
    const struct gradient_sums *const gradient = r->gradient;
    window->vertical = conv2d_phase_axis(h, g->pad_top, g->kernel_height, g->stride_h, g->dilation_h);
    r->scatter = g->dilation_w == 1 && depthwise_scatters(g->kernel_width, g->stride_w);
    if (r->scatter) {
        window->horizontal =
            (struct conv2d_axis){.step = 1, .count = g->kernel_width, .position = -g->pad_left, .position_step = 1};
        r->step = g->stride_w;
        begin_backward_row(args, row, 0, 1, r);
        run_taps(window, args->packed, g->batch, n, 0, ahead, channels, r);
        return;
    }
    for (ptrdiff_t w = 0; w < fnn_min(g->stride_w, g->width); w++) {
        window->horizontal = conv2d_phase_axis(w, g->pad_left, g->kernel_width, g->stride_w, g->dilation_w);
        r->step = 1;
        r->gradient = gradient;
        begin_backward_row(args, row, w, g->stride_w, r);
        run_taps(window, args->packed, g->batch, n, 0, ahead, channels, r);
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
    const struct gradient_sums gradient = {
        .x = args->normalized,
        .statistics = args->statistics,
        .weight = args->norm_weight,
        .bias = args->norm_bias,
        .channels = g.channels,
        .activation = args->norm_activation,
    };
    const ptrdiff_t rows = g.batch * g.height, part = args->sums ? args->sum_rows / g.width : 1;
    const ptrdiff_t parts = fnn_ceil_div(rows, part), blocks = channel_blocks(parts, g.channels, team);
    struct depthwise_row r = {.stream = g.channels % FNN_LANES == 0 &&
                                        streams(args->residual, args->dx, rows * g.width * g.channels)};
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(parts * blocks, 1, team); fnn_take(&work, &range);)
        for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
            const struct fnn_range some = channel_block(unit % blocks, blocks, g.channels);
            const ptrdiff_t first = unit / blocks * part, end = fnn_min(first + part, rows);
            if (args->sums) {
                r.sums = args->sums + unit / blocks * 2 * g.channels;
                clear_sums(r.sums, g.channels, some);
            }
            for (ptrdiff_t row = first; row < end; row++) {
                r.gradient = args->sums ? &gradient : NULL;
                run_backward_row(args, &g, &window, row, some, &r);
            }
        }
    if (r.stream) vec_fence();
}

void FNN_FUNCTION(conv2d_depthwise_pack)(const struct fnn_conv2d_depthwise_pack_args *args,
                                         const struct fnn_team *team) {
    const ptrdiff_t taps = args->kernel_height * args->kernel_width;
    struct fnn_range range = fnn_share_blocks(args->channels, 16, team);
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t c = range.begin; c < range.end; c++)
            args->packed[tap * args->channels + c] = args->source[c * taps + tap];
}
