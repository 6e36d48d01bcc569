/* Some filter taps of a depthwise weight gradient at any distance from each other, of one or several filter rows:
 *
 *   sums[k][c] += sum over outputs i whose pixel of tap k is inside of dy[i*channels + c] * x[k][i*step + c],   c < lanes
 *
 * in the order of i. */
#ifndef FASTNN_CONV2D_DEPTHWISE_SCATTERED_H
#define FASTNN_CONV2D_DEPTHWISE_SCATTERED_H

#include "conv2d.h"
#include "lanes.h"

enum { SCATTERED = 8 }; /* taps at a time, at most: as many sums do not wait for each other */

struct scattered {
    const float *dy, *x[SCATTERED]; /* channel 0 of output 0 and of its pixels, which may lie outside of the image */
    struct fnn_range inside[SCATTERED]; /* the outputs whose pixels do not; never empty */
    ptrdiff_t taps, channels, step; /* step: floats between the pixels of neighbours */
    bool behind; /* whole vectors may be read of a part of one */
    float *sums[SCATTERED];         /* of channel 0 */
};

/* Outputs that find some of their pixels, channels [c, c + lanes). Taps, in all that follows, are a constant, and lanes where it is
 * FNN_LANES. */
FNN_INLINE void add_some(const struct scattered *p, struct fnn_range outputs, ptrdiff_t c, ptrdiff_t lanes, vec *sum,
                         int taps) {
    for (ptrdiff_t i = outputs.begin; i < outputs.end; i++) {
        const vec gradient = load_lanes(p->dy + i * p->channels + c, lanes);
#pragma GCC unroll 8
        for (int k = 0; k < taps; k++)
            if (conv2d_inside(i - p->inside[k].begin, p->inside[k].end - p->inside[k].begin))
                sum[k] = vec_fma(gradient, load_lanes(p->x[k] + i * p->step + c, lanes), sum[k]);
    }
}

/* Outputs that find all of them. */
FNN_INLINE void add_all(const struct scattered *p, struct fnn_range outputs, ptrdiff_t c, ptrdiff_t lanes, vec *sum,
                        int taps) {
    const ptrdiff_t channels = p->channels, step = p->step;
    const float *dy = p->dy + outputs.begin * channels + c, *x[SCATTERED];
#pragma GCC unroll 8
    for (int k = 0; k < taps; k++) x[k] = p->x[k] + c;
    for (ptrdiff_t i = outputs.begin * step; i < outputs.end * step; i += step, dy += channels) {
        const vec gradient = load_lanes(dy, lanes);
#pragma GCC unroll 8
        for (int k = 0; k < taps; k++) sum[k] = vec_fma(gradient, load_lanes(x[k] + i, lanes), sum[k]);
    }
}

/* lanes, sums: channels that are read, and summed. */
FNN_INLINE void add_outputs(const struct scattered *p, struct fnn_range any, struct fnn_range all, ptrdiff_t c,
                            ptrdiff_t lanes, ptrdiff_t sums, int taps) {
    vec sum[SCATTERED];
#pragma GCC unroll 8
    for (int k = 0; k < taps; k++) sum[k] = load_lanes(p->sums[k] + c, sums);
    add_some(p, (struct fnn_range){any.begin, all.begin}, c, lanes, sum, taps);
    add_all(p, all, c, lanes, sum, taps);
    add_some(p, (struct fnn_range){all.end, any.end}, c, lanes, sum, taps);
#pragma GCC unroll 8
    for (int k = 0; k < taps; k++) store_lanes(p->sums[k] + c, sum[k], sums);
}

FNN_INLINE void add_channels(const struct scattered *p, struct fnn_range channels, int taps) {
    struct fnn_range any = p->inside[0], all = p->inside[0];
#pragma GCC unroll 8
    for (int k = 1; k < taps; k++) {
        any = (struct fnn_range){fnn_min(any.begin, p->inside[k].begin), fnn_max(any.end, p->inside[k].end)};
        all = (struct fnn_range){fnn_max(all.begin, p->inside[k].begin), fnn_min(all.end, p->inside[k].end)};
    }
    all.begin = fnn_min(all.begin, any.end);
    all.end = fnn_max(all.end, all.begin);
    ptrdiff_t c = channels.begin;
    for (; c + FNN_LANES <= channels.end; c += FNN_LANES) add_outputs(p, any, all, c, FNN_LANES, FNN_LANES, taps);
    const ptrdiff_t left = channels.end - c;
    if (left > 0 && p->behind)
        add_outputs(p, any, all, c, FNN_LANES, left, taps);
    else if (left > 0)
        add_outputs(p, any, all, c, left, left, taps);
}

#define SCATTERED_EACH(each) each(1) each(2) each(3) each(4) each(5) each(6) each(7) each(8)
#define SCATTERED_TAPS(taps)                                                                \
    static void add_channels_##taps(const struct scattered *p, struct fnn_range channels) { \
        add_channels(p, channels, taps);                                                    \
    }
#define SCATTERED_ENTRY(taps) add_channels_##taps,
SCATTERED_EACH(SCATTERED_TAPS)

static void add_scattered(const struct scattered *p, struct fnn_range channels) {
    static void (*const add[])(const struct scattered *p,
                               struct fnn_range channels) = {SCATTERED_EACH(SCATTERED_ENTRY)};
    add[p->taps - 1](p, channels);
}

#endif
