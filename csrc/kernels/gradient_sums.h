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

/* add_gradient_sums with the activation a constant. */
FNN_INLINE void add_gradient_rows(const struct gradient_sums *s, const ptrdiff_t activation, const vec *dy,
                                  ptrdiff_t rows, ptrdiff_t at, ptrdiff_t step, ptrdiff_t ahead, ptrdiff_t c,
                                  ptrdiff_t lanes, float *sums) {
    const ptrdiff_t channels = s->channels;
    const vec mean = load_lanes(s->statistics + c, lanes), remainder = load_lanes(s->statistics + channels + c, lanes);
    vec scale = vec_zero(), shift = vec_zero();
    if (activation) {
        scale = load_lanes(s->statistics + 2 * channels + c, lanes);
        if (s->weight) scale = vec_mul(load_lanes(s->weight + c, lanes), scale);
        shift = vec_sub(s->bias ? load_lanes(s->bias + c, lanes) : vec_zero(), vec_mul(remainder, scale));
    }
    const float *x = s->x + at;
    vec sum = vec_zero(), product = vec_zero();
    for (ptrdiff_t i = 0; i < rows; i++, x += step) {
        fetch_ahead(x, ahead);
        const vec centred = vec_sub(load_lanes(x, lanes), mean);
        vec g = dy[i];
        if (activation == 2) g = open_gradient_6(g, vec_fma(centred, scale, shift));
        if (activation == 1) g = open_gradient(g, vec_fma(centred, scale, shift));
        sum = vec_add(sum, g);
        product = vec_fma(g, centred, product);
    }
    product = vec_fnma(remainder, sum, product); /* of x - mean - remainder */
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), sum), lanes);
    sums += channels;
    store_lanes(sums + c, vec_add(load_lanes(sums + c, lanes), product), lanes);
}

/* Adds `rows` rows of the vector of channels that begins with c, whose elements stand at `at`, `step` apart. x is asked for ahead by
 * `ahead` elements. */
FNN_INLINE void add_gradient_sums(const struct gradient_sums *s, const vec *dy, ptrdiff_t rows, ptrdiff_t at,
                                  ptrdiff_t step, ptrdiff_t ahead, ptrdiff_t c, ptrdiff_t lanes, float *sums) {
    if (s->activation == 2)
        add_gradient_rows(s, 2, dy, rows, at, step, ahead, c, lanes, sums);
    else if (s->activation)
        add_gradient_rows(s, 1, dy, rows, at, step, ahead, c, lanes, sums);
    else
        add_gradient_rows(s, 0, dy, rows, at, step, ahead, c, lanes, sums);
}

#endif
