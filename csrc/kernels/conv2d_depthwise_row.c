/* The rows of conv2d_depthwise_row.h.
 *
 * Filters of common widths have an inner loop of their own: up to PIXELS outputs at a time, each pixel of the input loaded
 * once for all of its taps, the filter's row in registers. Any other filter goes tap by tap. */
#include "conv2d_depthwise_row.h"
#include "block_moments.h"
#include "conv2d_indirect.h"

enum { PIXELS = FNN_LANES == 8 || FNN_LANES == 1 ? 4 : 8 }; /* sums, pixels and filters fit the registers */

/* Moments and sums of gradients of `pixels` outputs from j on. */
FNN_INLINE void add_sums(const struct depthwise_row *r, const vec *value, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes,
                         int pixels) {
    const ptrdiff_t step = r->output_step, at = r->gradient_at + j * step + c;
    if (r->gradient) add_gradient_sums(r->gradient, value, pixels, at, step, c, lanes, r->sums);
    if (r->moments) add_moments(value, pixels, r->moment_rows_seen + j, r->moments + c, r->channels, lanes);
}

/* One body for most outputs, whose values stay in registers, and one for any. */
static __attribute__((noinline)) void take_sums(const struct depthwise_row *r, const vec *value, ptrdiff_t j,
                                                ptrdiff_t c, ptrdiff_t lanes, int pixels) {
    if (pixels == PIXELS && lanes == FNN_LANES)
        add_sums(r, value, j, c, FNN_LANES, PIXELS);
    else
        add_sums(r, value, j, c, lanes, pixels);
}

/* Through memory: in each of the blocks this would be most of the code. */
FNN_INLINE void pass_sums(const struct depthwise_row *r, const vec *sum, ptrdiff_t j, ptrdiff_t c, ptrdiff_t lanes,
                          int pixels) {
    vec value[PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) value[i] = sum[i];
    take_sums(r, value, j, c, lanes, pixels);
}

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
    if (r->gradient || r->moments) pass_sums(r, sum, j, c, lanes, pixels);
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
    const ptrdiff_t first = j * r->step + r->position, channels = r->channels;
    for (int i = 0; i < 2; i++)
        if (whole && r->ahead[i])
            for (int k = 0; k < pixels * step; k++)
                __builtin_prefetch(r->ahead[i] + (first + taps - step + k) * channels + c, 0, 2);
    vec sum[PIXELS];
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
    depthwise_store(r, sum, j, c, lanes, pixels);
}

/* Output j, channels from c on. */
FNN_INLINE void depthwise_single(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t end, int taps) {
    for (; c + FNN_LANES <= end; c += FNN_LANES) depthwise_block(r, j, c, FNN_LANES, 1, taps, 1, false);
    if (c < end) depthwise_block(r, j, c, end - c, 1, taps, 1, false);
}

typedef void single_function(const struct depthwise_row *r, ptrdiff_t j, ptrdiff_t c, ptrdiff_t end);

/* Outputs [j, j + pixels) of all the channels. */
FNN_INLINE void depthwise_blocks(const struct depthwise_row *r, ptrdiff_t j, struct fnn_range channels, int pixels,
                                 int taps, int step, bool whole, single_function *single) {
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES)
        depthwise_block(r, j, c, FNN_LANES, pixels, taps, step, whole);
    for (ptrdiff_t i = 0; i < pixels && c < channels.end; i++) single(r, j + i, c, channels.end);
}

FNN_INLINE void depthwise_run(const struct depthwise_row *r, struct fnn_range channels, int taps, int step,
                              single_function *single) {
    ptrdiff_t j = 0;
    while (j < r->outputs) {
        const ptrdiff_t left = r->outputs - j, first = j * step + r->position;
        const bool whole = first >= 0 && first + (PIXELS - 1) * step + taps <= r->width;
        if (left >= PIXELS && whole)
            depthwise_blocks(r, j, channels, PIXELS, taps, step, true, single), j += PIXELS;
        else if (left >= 7 && PIXELS > 7)
            depthwise_blocks(r, j, channels, 7, taps, step, false, single), j += 7;
        else if (left >= 4)
            depthwise_blocks(r, j, channels, 4, taps, step, false, single), j += 4;
        else
            single(r, j, channels.begin, channels.end), j += 1;
    }
}

/* Functions for the common widths of filters and strides. */
#define DEPTHWISE_SINGLE(taps)                                                                                \
    static __attribute__((noinline)) void depthwise_single_##taps(const struct depthwise_row *r, ptrdiff_t j, \
                                                                  ptrdiff_t c, ptrdiff_t end) {               \
        depthwise_single(r, j, c, end, taps);                                                                 \
    }
DEPTHWISE_SINGLE(1)
DEPTHWISE_SINGLE(2)
DEPTHWISE_SINGLE(3)
DEPTHWISE_SINGLE(5)
DEPTHWISE_SINGLE(7)

#define DEPTHWISE_RUN(taps, step)                                                                         \
    static void depthwise_run_##taps##_##step(const struct depthwise_row *r, struct fnn_range channels) { \
        depthwise_run(r, channels, taps, step, depthwise_single_##taps);                                  \
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

void FNN_FUNCTION(conv2d_depthwise_row)(const struct depthwise_row *r, struct fnn_range channels) {
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
