/* One row of outputs of a depthwise convolution, forward or backward data: vectors along the channels.
 *
 *   y[j*output_step + c] = activation(bias[c] + residual[j*output_step + c] + start + sum over t < rows, s < taps of
 *       row[t][(j*step + position + s*position_step)*channels + c] * filter[t][s*filter_step + c]),   j < outputs
 *
 * start is y as it was with `accumulate`, else zero; a tap outside of the input row reads zero. The sum runs over t, then s.
 *
 * Filters of common widths have an inner loop of their own: up to PIXELS outputs at a time, each pixel of the input loaded
 * once for all of its taps, the filter's row in registers. Any other filter goes tap by tap. */
#ifndef FASTNN_CONV2D_DEPTHWISE_ROW_H
#define FASTNN_CONV2D_DEPTHWISE_ROW_H

#include "block_moments.h"
#include "conv2d_indirect.h"
#include "gradient_sums.h"

enum {
    DEPTHWISE_PIXELS = FNN_LANES == 8 || FNN_LANES == 1 ? 4 : 8, /* sums, pixels and filters fit the registers */
    DEPTHWISE_ROWS = 64
};

struct depthwise_row {
    const float *row[DEPTHWISE_ROWS];    /* channel 0 of pixel 0 of an input row */
    const float *filter[DEPTHWISE_ROWS]; /* channel 0 of the row's first tap */
    ptrdiff_t rows, taps, filter_step;
    ptrdiff_t position, position_step;
    ptrdiff_t width, step, channels; /* width: pixels in an input row */
    ptrdiff_t outputs, output_step;
    float *y;
    bool accumulate;
    bool stream;                  /* y goes past the caches (lanes.h); channels in whole vectors */
    const float *bias, *residual; /* residual is laid out as y */
    enum fnn_activation activation;
    float
        *moments; /* of a block of outputs (block_moments.h), which begins moment_rows_seen before output 0; or null */
    ptrdiff_t moment_rows_seen;
    const struct gradient_sums *gradient; /* or null: y is a gradient that is added to `sums` (gradient_sums.h) */
    ptrdiff_t gradient_at; /* the place of channel 0 of output 0 */
    float *sums;
    const float *ahead[2]; /* rows that the next row of outputs reads first, or null */
};

/* Stores outputs [j, j + pixels). */
FNN_INLINE void depthwise_store(const struct depthwise_row *r, vec *sum, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes,
                                int pixels) {
    const ptrdiff_t at = j * r->output_step + c, step = r->output_step;
    if (r->bias) {
        const vec bias = load_lanes(r->bias + c, lanes);
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) sum[i] = vec_add(sum[i], bias);
    }
    if (r->residual) {
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) sum[i] = vec_add(sum[i], load_lanes(r->residual + at + i * step, lanes));
    }
    if (r->activation != FNN_ACTIVATION_NONE) {
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) sum[i] = gemm_activate(sum[i], r->activation);
    }
    float *y = r->y + at;
    if (r->stream) {
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) put_lanes(true, y + i * step, sum[i], lanes);
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) store_lanes(y + i * step, sum[i], lanes);
    }
    if (r->gradient) add_gradient_sums(r->gradient, sum, pixels, r->gradient_at + at, step, c, lanes, r->sums);
    if (r->moments) add_moments(sum, pixels, r->moment_rows_seen + j, r->moments + c, r->channels, lanes);
}

/* One output, tap by tap. */
static void depthwise_output(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes) {
    vec sum = r->accumulate ? load_lanes(r->y + j * r->output_step + c, lanes) : vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++)
        for (ptrdiff_t s = 0; s < r->taps; s++) {
            ptrdiff_t pixel = j * r->step + r->position + s * r->position_step;
            if (!conv2d_inside(pixel, r->width)) continue;
            vec x = load_lanes(r->row[t] + pixel * r->channels + c, lanes);
            sum = vec_fma(x, load_lanes(r->filter[t] + s * r->filter_step + c, lanes), sum);
        }
    depthwise_store(r, &sum, j, c, lanes, 1);
}

/* Outputs [j, j + pixels) of a row whose taps lie side by side; pixels, taps and step are constants. */
FNN_INLINE void depthwise_block(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes, int pixels,
                                int taps, int step, bool whole) {
    const int columns = (pixels - 1) * step + taps;
    const ptrdiff_t first = j * step + r->position, channels = r->channels;
    for (int i = 0; i < 2; i++)
        if (whole && r->ahead[i])
            for (int k = 0; k < pixels * step; k++)
                __builtin_prefetch(r->ahead[i] + (first + taps - step + k) * channels + c, 0, 2);
    vec sum[DEPTHWISE_PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++)
        sum[i] = r->accumulate ? load_lanes(r->y + (j + i) * r->output_step + c, lanes) : vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++) {
        const float *x = r->row[t] + first * channels + c;
        vec filter[8];
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) filter[s] = load_lanes(r->filter[t] + s * r->filter_step + c, lanes);
        vec pixel[2 * DEPTHWISE_PIXELS + 5]; /* first all loads: each once */
#pragma GCC unroll 32
        for (int i = 0; i < columns; i++) {
            bool inside = whole || conv2d_inside(first + i, r->width);
            pixel[i] = inside ? load_lanes(x + i * channels, lanes) : vec_zero();
        }
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) {
#pragma GCC unroll 8
            for (int i = 0; i < pixels; i++) sum[i] = vec_fma(pixel[i * step + s], filter[s], sum[i]);
        }
    }
    depthwise_store(r, sum, j, c, lanes, pixels);
}

/* Outputs [j, j + pixels) of all the channels. */
FNN_INLINE void depthwise_blocks(const struct depthwise_row *r, ptrdiff_t j, struct fnn_range channels, int pixels,
                                 int taps, int step, bool whole) {
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES)
        depthwise_block(r, j, c, FNN_LANES, pixels, taps, step, whole);
    if (c < channels.end)
        for (int i = 0; i < pixels; i++) depthwise_block(r, j + i, c, channels.end - c, 1, taps, step, false);
}

FNN_INLINE void depthwise_run(const struct depthwise_row *r, struct fnn_range channels, int taps, int step) {
    ptrdiff_t j = 0;
    while (j < r->outputs) {
        const ptrdiff_t left = r->outputs - j, first = j * step + r->position;
        const bool whole = first >= 0 && first + (DEPTHWISE_PIXELS - 1) * step + taps <= r->width;
        if (left >= DEPTHWISE_PIXELS && whole)
            depthwise_blocks(r, j, channels, DEPTHWISE_PIXELS, taps, step, true), j += DEPTHWISE_PIXELS;
        else if (left >= 7 && DEPTHWISE_PIXELS > 7)
            depthwise_blocks(r, j, channels, 7, taps, step, false), j += 7;
        else if (left >= 4)
            depthwise_blocks(r, j, channels, 4, taps, step, false), j += 4;
        else
            depthwise_blocks(r, j, channels, 1, taps, step, false), j += 1;
    }
}

/* Functions for the common widths of filters and strides. */
#define DEPTHWISE_RUN(taps, step)                                                                         \
    static void depthwise_run_##taps##_##step(const struct depthwise_row *r, struct fnn_range channels) { \
        depthwise_run(r, channels, taps, step);                                                           \
    }
DEPTHWISE_RUN(1, 1)
DEPTHWISE_RUN(2, 1)
DEPTHWISE_RUN(3, 1)
DEPTHWISE_RUN(5, 1)
DEPTHWISE_RUN(7, 1)
DEPTHWISE_RUN(3, 2)
DEPTHWISE_RUN(5, 2)

static void depthwise_run_any(const struct depthwise_row *r, struct fnn_range channels) {
    for (ptrdiff_t j = 0; j < r->outputs; j++)
        for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES)
            depthwise_output(r, j, c, lanes_left(channels.end - c));
}

/* Channels [channels.begin, channels.end) of a row of outputs. */
static void depthwise_row(const struct depthwise_row *r, struct fnn_range channels) {
    static void (*const run[8][3])(const struct depthwise_row *, struct fnn_range) = {
        [1] = {[1] = depthwise_run_1_1},
        [2] = {[1] = depthwise_run_2_1},
        [3] = {[1] = depthwise_run_3_1, [2] = depthwise_run_3_2},
        [5] = {[1] = depthwise_run_5_1, [2] = depthwise_run_5_2},
        [7] = {[1] = depthwise_run_7_1},
    };
    const bool common = r->position_step == 1 && r->taps < 8 && r->step < 3 && run[r->taps][r->step];
    (common ? run[r->taps][r->step] : depthwise_run_any)(r, channels);
}

#endif
