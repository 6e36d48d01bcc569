/* The rows of conv2d_depthwise_row.h.
 *
 * Filters of common widths have an inner loop of their own: up to PIXELS outputs at a time, each pixel of the input loaded
 * once for all of its taps, the filter's row in registers. Any other filter goes tap by tap. */
#include "conv2d_depthwise_row.h"
#include "block_moments.h"
#include "conv2d_indirect.h"

enum { PIXELS = FNN_LANES == 8 || FNN_LANES == 1 ? 4 : 8 }; /* sums, pixels and filters fit the registers */

/* Outputs [j, j + pixels), added to the sums of gradients that are asked for. */
FNN_INLINE void add_gradients(const struct depthwise_row *r, const vec *value, ptrdiff_t j, ptrdiff_t c,
                              ptrdiff_t lanes, int pixels) {
    const ptrdiff_t step = r->output_step, at = r->gradient_at + j * step + c;
    if (r->gradient) add_gradient_sums(r->gradient, value, pixels, at, step, c, lanes, r->sums);
}

/* And to the moments. */
FNN_INLINE void add_row_moments(const struct depthwise_row *r, const vec *value, ptrdiff_t j, ptrdiff_t c,
                                ptrdiff_t lanes, int pixels) {
    if (r->moments) add_moments(value, pixels, r->moment_rows_seen + j, r->moments + c, r->channels, lanes);
}

/* Both, for any number of outputs. */
static __attribute__((noinline)) void pass_sums(const struct depthwise_row *r, const vec *value, ptrdiff_t j,
                                                ptrdiff_t c, ptrdiff_t lanes, int pixels) {
    add_gradients(r, value, j, c, lanes, pixels);
    add_row_moments(r, value, j, c, lanes, pixels);
}

/* Both, of a block. Through memory they add up to a sixth to its time; from registers they are a third of its code. So the
 * likely ones are taken from registers: moments of filters of 3 and 5 taps, and gradients, whose rows have step 1, of these
 * and of their phases. */
FNN_INLINE void take_sums(const struct depthwise_row *r, const vec *value, ptrdiff_t j, ptrdiff_t c, int pixels,
                          int taps, int step) {
    const bool moments = taps == 3 || taps == 5, gradients = taps <= 5 && step == 1;
    if ((r->moments && !moments) || (r->gradient && !gradients)) {
        vec copy[PIXELS];
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++) copy[i] = value[i];
        pass_sums(r, copy, j, c, FNN_LANES, pixels);
    } else {
        if (gradients) add_gradients(r, value, j, c, FNN_LANES, pixels);
        if (moments) add_row_moments(r, value, j, c, FNN_LANES, pixels);
    }
}

/* Finishes and stores outputs [j, j + pixels). */
FNN_INLINE void store_outputs(const struct depthwise_row *r, vec *sum, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes,
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
}

/* Outputs [j, j + pixels) of a row whose taps lie side by side; pixels, taps and step are constants. */
FNN_INLINE void make_outputs(const struct depthwise_row *r, vec *sum, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes,
                             int pixels, int taps, int step, bool whole) {
    const int columns = (pixels - 1) * step + taps;
    const ptrdiff_t first = j * step + r->position, channels = r->channels;
    for (int i = 0; i < 2; i++)
        if (whole && r->ahead[i])
            for (int k = 0; k < pixels * step; k++)
                __builtin_prefetch(r->ahead[i] + (first + taps - step + k) * channels + c, 0, 2);
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++)
        sum[i] = r->accumulate ? load_lanes(r->y + (j + i) * r->output_step + c, lanes) : vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++) {
        const float *x = r->row[t] + first * channels + c;
        vec filter[8];
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) filter[s] = load_lanes(r->filter[t] + s * r->filter_step + c, lanes);
        vec pixel[2 * PIXELS + 5]; /* first all loads: each once */
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
    store_outputs(r, sum, j, c, lanes, pixels);
}

/* Outputs [j, end), at most PIXELS, of one vector of channels: one by one, or four at a time where it is not whole. */
FNN_INLINE void make_few(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t end, ptrdiff_t c, ptrdiff_t lanes,
                         int taps, int step) {
    vec value[PIXELS];
    const int count = (int)(end - j);
    int i = 0;
    for (; i + 4 <= count && lanes < FNN_LANES; i += 4)
        make_outputs(r, value + i, j + i, c, lanes, 4, taps, step, false);
    for (; i < count; i++) make_outputs(r, value + i, j + i, c, lanes, 1, taps, step, false);
    if (r->gradient || r->moments) pass_sums(r, value, j, c, lanes, count);
}

/* Outputs [j, end) of all the channels. */
FNN_INLINE void run_few(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t end, struct fnn_range channels, int taps,
                        int step) {
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES) make_few(r, j, end, c, FNN_LANES, taps, step);
    if (FNN_LANES > 1 && c < channels.end) make_few(r, j, end, c, channels.end - c, taps, step);
}

typedef void few_function(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t end, struct fnn_range channels);

/* Outputs [j, j + pixels) of all the channels. */
FNN_INLINE void run_block(const struct depthwise_row *r, ptrdiff_t j, struct fnn_range channels, int pixels, int taps,
                          int step, bool whole, few_function *few) {
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES) {
        vec sum[PIXELS];
        make_outputs(r, sum, j, c, FNN_LANES, pixels, taps, step, whole);
        take_sums(r, sum, j, c, pixels, taps, step);
    }
    if (c < channels.end) few(r, j, j + pixels, (struct fnn_range){c, channels.end});
}

FNN_INLINE void run(const struct depthwise_row *r, struct fnn_range channels, int taps, int step, few_function *few) {
    ptrdiff_t j = 0;
    while (j < r->outputs) {
        const ptrdiff_t left = r->outputs - j, first = j * step + r->position;
        const bool whole = first >= 0 && first + (PIXELS - 1) * step + taps <= r->width;
        if (left >= PIXELS && whole)
            run_block(r, j, channels, PIXELS, taps, step, true, few), j += PIXELS;
        else if (left >= 7 && PIXELS > 7)
            run_block(r, j, channels, 7, taps, step, false, few), j += 7;
        else if (left >= 4)
            run_block(r, j, channels, 4, taps, step, false, few), j += 4;
        else
            few(r, j, r->outputs, channels), j += left;
    }
}

/* Functions for the common widths of filters and strides. */
#define RUN(taps, step)                                                                                   \
    static __attribute__((noinline)) void few_##taps##_##step(const struct depthwise_row *r, ptrdiff_t j, \
                                                              ptrdiff_t end, struct fnn_range channels) { \
        run_few(r, j, end, channels, taps, step);                                                         \
    }                                                                                                     \
    static void run_##taps##_##step(const struct depthwise_row *r, struct fnn_range channels) {           \
        run(r, channels, taps, step, few_##taps##_##step);                                                \
    }
RUN(1, 1)
RUN(2, 1)
RUN(3, 1)
RUN(5, 1)
RUN(7, 1)
RUN(3, 2)
RUN(5, 2)

/* One output, tap by tap. */
static void make_output(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes) {
    vec sum = r->accumulate ? load_lanes(r->y + j * r->output_step + c, lanes) : vec_zero();
    for (ptrdiff_t t = 0; t < r->rows; t++)
        for (ptrdiff_t s = 0; s < r->taps; s++) {
            ptrdiff_t pixel = j * r->step + r->position + s * r->position_step;
            if (!conv2d_inside(pixel, r->width)) continue;
            vec x = load_lanes(r->row[t] + pixel * r->channels + c, lanes);
            sum = vec_fma(x, load_lanes(r->filter[t] + s * r->filter_step + c, lanes), sum);
        }
    store_outputs(r, &sum, j, c, lanes, 1);
    if (r->gradient || r->moments) pass_sums(r, &sum, j, c, lanes, 1);
}

static void run_any(const struct depthwise_row *r, struct fnn_range channels) {
    for (ptrdiff_t j = 0; j < r->outputs; j++)
        for (ptrdiff_t c = channels.begin; c < channels.end; c += FNN_LANES)
            make_output(r, j, c, lanes_left(channels.end - c));
}

void FNN_FUNCTION(conv2d_depthwise_row)(const struct depthwise_row *r, struct fnn_range channels) {
    static void (*const runs[8][3])(const struct depthwise_row *, struct fnn_range) = {
        [1] = {[1] = run_1_1},
        [2] = {[1] = run_2_1},
        [3] = {[1] = run_3_1, [2] = run_3_2},
        [5] = {[1] = run_5_1, [2] = run_5_2},
        [7] = {[1] = run_7_1},
    };
    const bool common = r->position_step == 1 && r->taps < 8 && r->step < 3 && runs[r->taps][r->step];
    (common ? runs[r->taps][r->step] : run_any)(r, channels);
}
