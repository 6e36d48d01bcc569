/* One row of outputs of a depthwise convolution, forward or backward data: vectors along the channels.
 *
 *   y[j*output_step + c] = activation(bias[c] + residual[j*output_step + c] + start + sum over t < rows, s < taps of
 *       row[t][pixel(j, s)*channels + c] * filter[t][s*filter_step + c]),   j < outputs
 *
 * pixel(j, s) = j*step + position + s*position_step or, with `scatter`, (j - position - s) / step where that is whole: there
 * pixel q is added to outputs q*step + position + s. start is y as it was with `accumulate`, else zero; a pixel outside of the
 * input row reads zero. The order of the sum follows from rows, taps and step; an output's bits do not depend on which outputs
 * and channels are made with it. */
#ifndef FASTNN_CONV2D_DEPTHWISE_ROW_H
#define FASTNN_CONV2D_DEPTHWISE_ROW_H

#include "gemm.h"
#include "gradient_sums.h"

enum { DEPTHWISE_ROWS = 64 };

struct depthwise_row {
    const float *row[DEPTHWISE_ROWS];    /* channel 0 of pixel 0 of an input row */
    const float *filter[DEPTHWISE_ROWS]; /* channel 0 of the row's first tap */
    const float *input_end; /* of the array that holds the input rows; or null */
    ptrdiff_t rows, taps, filter_step;
    ptrdiff_t position, position_step;
    ptrdiff_t width, step, channels; /* width: pixels in an input row */
    bool scatter;                    /* only if depthwise_scatters */
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

/* Channels [channels.begin, channels.end) of the row; `begin` is a multiple of FNN_LANES. */
void FNN_FUNCTION(conv2d_depthwise_row)(const struct depthwise_row *r, struct fnn_range channels);

/* Whether a row of so many taps side by side, each input pixel `step` outputs from the next, may be made by `scatter`. */
static inline bool depthwise_scatters(ptrdiff_t taps, ptrdiff_t step) { return step == 2 && taps >= 2 && taps <= 5; }

#endif
