/* The sums that a batch normalisation's backward pass begins with, taken by the kernel that makes its gradient dy, while
 * that is in registers.
 *
 *     sums (blocks, 2, C): for each block of `sum_rows` rows of dy, x (rows, C), the last one maybe shorter, and each
 *     channel   sum g   and   sum g * (x - mean),   g = dy where the normalisation's ReLU or ReLU6 was open, else 0
 *
 * Where it was is found from x, by the forward pass's own arithmetic. A few rows are summed in registers, then added: with
 * n such additions of up to r rows to a block the errors are at most (n + r + 4) * eps * sum |g|, and as much of
 * sum |g * (x - mean)|, eps = 2^-24. */
#ifndef FASTNN_KERNELS_GRADIENT_SUMS_H
#define FASTNN_KERNELS_GRADIENT_SUMS_H

#include "batch_norm.h"

/* The normalisation: its input, its forward pass's statistics, its parameters (or null) and activation: batch_norm_forward.c. */
struct gradient_sums {
    const float *x, *statistics, *weight, *bias;
    ptrdiff_t channels, activation;
};

static inline void clear_sums(float *sums, ptrdiff_t channels, struct fnn_range range) {
    for (ptrdiff_t c = range.begin; c < range.end; c++) sums[c] = sums[channels + c] = 0.0f;
}

/* Sets dy to g for `rows` rows, at most 16, of the vector of channels that begins with c; x holds x - mean. */
FNN_INLINE void close_gradients(const struct gradient_sums *s, vec *dy, const vec *x, int rows, ptrdiff_t c,
                                ptrdiff_t lanes) {
    vec scale = load_lanes(s->statistics + 2 * s->channels + c, lanes);
    if (s->weight) scale = vec_mul(load_lanes(s->weight + c, lanes), scale);
    const vec remainder = load_lanes(s->statistics + s->channels + c, lanes);
    const vec bias = s->bias ? load_lanes(s->bias + c, lanes) : vec_zero();
    const vec shift = vec_sub(bias, vec_mul(remainder, scale));
    if (s->activation == 2) {
        for (int i = 0; i < rows; i++) dy[i] = open_gradient_6(dy[i], vec_fma(x[i], scale, shift));
    } else {
        for (int i = 0; i < rows; i++) dy[i] = open_gradient(dy[i], vec_fma(x[i], scale, shift));
    }
}

/* Adds `rows` rows, at most 16, of the vector of channels that begins with c, whose elements stand at `at`, `step` apart. */
FNN_INLINE void add_gradient_sums(const struct gradient_sums *s, const vec *dy, int rows, ptrdiff_t at, ptrdiff_t step,
                                  ptrdiff_t c, ptrdiff_t lanes, float *sums) {
    const float *x = s->x + at;
    const vec mean = load_lanes(s->statistics + c, lanes);
    vec g[16], centred[16], sum = vec_zero(), product = vec_zero();
    for (int i = 0; i < rows; i++) {
        g[i] = dy[i];
        fetch_ahead(x, (rows + i) * step);
    }
    if (lanes == FNN_LANES) {
        for (int i = 0; i < rows; i++) centred[i] = vec_sub(vec_load(x + i * step), mean);
    } else {
        for (int i = 0; i < rows; i++) centred[i] = vec_sub(vec_load_partial(x + i * step, lanes), mean);
    }
    if (s->activation) close_gradients(s, g, centred, rows, c, lanes);
    for (int i = 0; i < rows; i++) {
        sum = vec_add(sum, g[i]);
        product = vec_fma(g[i], centred[i], product);
    }
    product = vec_fnma(load_lanes(s->statistics + s->channels + c, lanes), sum, product); /* of x - mean - remainder */
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), sum), lanes);
    sums += s->channels;
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), product), lanes);
}

/* The same for any number of rows that lie in memory, one pass over them; x is asked for ahead by `ahead` elements. */
FNN_INLINE void add_gradient_run(const struct gradient_sums *s, const vec *dy, ptrdiff_t rows, ptrdiff_t at,
                                 ptrdiff_t step, ptrdiff_t ahead, ptrdiff_t c, ptrdiff_t lanes, float *sums) {
    const ptrdiff_t channels = s->channels, activation = s->activation;
    const vec mean = load_lanes(s->statistics + c, lanes), remainder = load_lanes(s->statistics + channels + c, lanes);
    const vec deviation = load_lanes(s->statistics + 2 * channels + c, lanes);
    const vec scale = s->weight ? vec_mul(load_lanes(s->weight + c, lanes), deviation) : deviation;
    const vec bias = s->bias ? load_lanes(s->bias + c, lanes) : vec_zero();
    const vec shift = vec_sub(bias, vec_mul(remainder, scale));
    const float *x = s->x + at;
    vec sum = vec_zero(), product = vec_zero();
    for (ptrdiff_t i = 0; i < rows; i++, x += step) {
        fetch_ahead(x, ahead);
        const vec centred = vec_sub(load_lanes(x, lanes), mean);
        vec g = dy[i];
        if (activation) {
            const vec y = vec_fma(centred, scale, shift);
            g = activation == 2 ? open_gradient_6(g, y) : open_gradient(g, y);
        }
        sum = vec_add(sum, g);
        product = vec_fma(g, centred, product);
    }
    product = vec_fnma(remainder, sum, product); /* of x - mean - remainder */
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), sum), lanes);
    sums += channels;
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), product), lanes);
}

#endif
