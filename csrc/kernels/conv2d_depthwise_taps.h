/* The inner loops of conv2d_depthwise_row.h for filter rows of known width: the filter in registers, the pixels of a block go
 * by, each loaded once and added to all outputs that see it. */
#ifndef FASTNN_CONV2D_DEPTHWISE_TAPS_H
#define FASTNN_CONV2D_DEPTHWISE_TAPS_H

#include "conv2d_depthwise_row.h"
#include "conv2d_indirect.h"

enum {
    DEPTHWISE_TAP_ROWS = 3, /* filter rows at a time, at most */
    DEPTHWISE_TAPS = 7, /* of a filter row, at most */
    DEPTHWISE_MARGIN = 8 /* outputs on both sides of a block that may be read and summed in vain */
};

/* Outputs [j, j + count) of channels [c, c + lanes):
 * to[i*to_step] = activation(start[i*start_step] + their sum over filter rows from `first` on + end), in whole vectors. start may
 * be to. */
struct depthwise_outputs {
    ptrdiff_t j, count, c, lanes, first;
    bool whole; /* whole vectors may be read of each pixel */
    const float *start, *end;
    float *to;
    ptrdiff_t start_step, to_step;
    enum fnn_activation activation;
};

/* What the loops look at all the time, where their stores cannot change it. In all that follows rows, taps and step are
 * constants, and lanes and weights, which are read of each pixel and of the filter, where they are FNN_LANES. */
struct taps {
    const float *x[DEPTHWISE_TAP_ROWS];
    ptrdiff_t width, channels, lanes;
    vec filter[DEPTHWISE_TAP_ROWS][DEPTHWISE_TAPS];
};

FNN_INLINE void load_taps(const struct depthwise_row *r, const struct depthwise_outputs *o, ptrdiff_t lanes,
                          ptrdiff_t weights, int rows, int taps, struct taps *w) {
    w->lanes = lanes;
    w->width = r->width;
    w->channels = r->channels;
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
        w->x[t] = r->row[o->first + t] + o->c;
        const float *filter = r->filter[o->first + t] + o->c;
#pragma GCC unroll 8
        for (int s = 0; s < taps; s++) w->filter[t][s] = load_lanes(filter + s * r->filter_step, weights);
    }
}

/* Adds a pixel, whose first channel is x[t][at], to sum[a] with tap - a*step for a < count, as far as there is such a tap. */
FNN_INLINE void add_pixel(const struct taps *w, ptrdiff_t at, int tap, int rows, int taps, int step, vec *sum,
                          int count) {
#pragma GCC unroll 4
    for (int t = 0; t < rows; t++) {
        const vec value = load_lanes(w->x[t] + at, w->lanes);
#pragma GCC unroll 8
        for (int a = 0; a < count; a++) {
            const int s = tap - a * step;
            if (s >= 0 && s < taps) sum[a] = vec_fma(value, w->filter[t][s], sum[a]);
        }
    }
}

/* pixel(j, s) = j*step + position + s. Outputs i, i + 1, ... are in progress: `step` pixels end output i and belong to others. */
FNN_INLINE void gather(const struct depthwise_row *r, const struct depthwise_outputs *o, ptrdiff_t lanes,
                       ptrdiff_t weights, int rows, int taps, int step) {
    const int kept = (taps - 1) / step + 1;
    const ptrdiff_t start_step = o->start_step, to_step = o->to_step;
    const float *start = o->start;
    float *to = o->to;
    const vec end = load_lanes(o->end, weights);
    const enum fnn_activation activation = o->activation;
    struct taps w;
    vec sum[DEPTHWISE_TAPS];
    load_taps(r, o, lanes, weights, rows, taps, &w);
    ptrdiff_t pixel = (o->j - kept + 1) * step + r->position + taps - step, at = pixel * w.channels;
#pragma GCC unroll 8
    for (int a = 0; a < kept - 1; a++, start += start_step) sum[a] = vec_load(start);
#pragma GCC unroll 8
    for (int before = kept - 1; before > 0; before--) { /* outputs that see the pixel, but not as their last */
#pragma GCC unroll 2
        for (int k = 0; k < step; k++)
            if (conv2d_inside(pixel + k, w.width))
                add_pixel(&w, at + k * w.channels, taps - step + k - before * step, rows, taps, step, sum,
                          kept - before);
        pixel += step, at += step * w.channels;
    }
    for (ptrdiff_t left = o->count; left > 0; left--) {
        sum[kept - 1] = vec_load(start);
#pragma GCC unroll 2
        for (int k = 0; k < step; k++)
            if (conv2d_inside(pixel + k, w.width))
                add_pixel(&w, at + k * w.channels, taps - step + k, rows, taps, step, sum, kept);
        vec_store(to, gemm_activate(vec_add(sum[0], end), activation));
#pragma GCC unroll 8
        for (int a = 1; a < kept; a++) sum[a - 1] = sum[a];
        pixel += step, at += step * w.channels;
        start += start_step, to += to_step;
    }
}

/* Pixel q is added to outputs q*step + position + s. */
FNN_INLINE void scatter(const struct depthwise_row *r, const struct depthwise_outputs *o, ptrdiff_t lanes,
                        ptrdiff_t weights, int rows, int taps, int step) {
    const ptrdiff_t start_step = o->start_step, to_step = o->to_step, count = o->count;
    const vec end = load_lanes(o->end, weights);
    const enum fnn_activation activation = o->activation;
    struct taps w;
    vec sum[DEPTHWISE_TAPS];
    load_taps(r, o, lanes, weights, rows, taps, &w);
    /* From the first pixel that output j sees on; i is its first output, counted from j. */
    const ptrdiff_t distance = o->j - r->position - taps + step;
    ptrdiff_t pixel = distance >= 0 ? distance / step : -((step - 1 - distance) / step);
    ptrdiff_t i = pixel * step + r->position - o->j;
    const float *start = o->start + i * start_step;
    float *to = o->to + i * to_step;
#pragma GCC unroll 8
    for (int a = 0; a < taps - step; a++, start += start_step) sum[a] = vec_load(start);
    for (; i < count; i += step) {
#pragma GCC unroll 4
        for (int a = taps - step; a < taps; a++, start += start_step) sum[a] = vec_load(start);
        if (conv2d_inside(pixel, w.width)) {
#pragma GCC unroll 8
            for (int t = 0; t < rows; t++) {
                const vec value = load_lanes(w.x[t] + pixel * w.channels, lanes);
#pragma GCC unroll 8
                for (int s = 0; s < taps; s++) sum[s] = vec_fma(value, w.filter[t][s], sum[s]);
            }
        }
        const bool whole = i >= 0 && i + step <= count;
#pragma GCC unroll 2
        for (int k = 0; k < step; k++)
            if (whole || conv2d_inside(i + k, count))
                vec_store(to + k * to_step, gemm_activate(vec_add(sum[k], end), activation));
#pragma GCC unroll 8
        for (int a = step; a < taps; a++) sum[a - step] = sum[a];
        pixel++;
        to += step * to_step;
    }
}

#endif
