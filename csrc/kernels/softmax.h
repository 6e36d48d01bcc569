/* Row by row sums of exponentials, for softmax, log-softmax and cross-entropy.
 *
 * A missing lane of a tail reads as 0, so it is set to -inf, whose exponential is 0. */
#ifndef FASTNN_KERNELS_SOFTMAX_H
#define FASTNN_KERNELS_SOFTMAX_H

#include "vector_math.h"

FNN_INLINE vec load_or_minus_infinity(const float *p, ptrdiff_t n) {
    if (n == FNN_LANES) return vec_load(p);
    return vec_select(mask_first(n), vec_load_partial(p, n), vec_set1(-__builtin_inff()));
}

enum { EXPONENTIALS = 4 }; /* vectors whose chains of operations run side by side */

/* max x[c], or NaN if there is one. */
static inline float row_maximum(const float *x, ptrdiff_t columns) {
    const vec least = vec_set1(-__builtin_inff());
    vec best[EXPONENTIALS] = {least, least, least, least};
    mask bad = mask_first(0);
    ptrdiff_t c = 0;
    for (; c + EXPONENTIALS * FNN_LANES <= columns; c += EXPONENTIALS * FNN_LANES)
        for (int v = 0; v < EXPONENTIALS; v++) {
            vec seen = vec_load(x + c + v * FNN_LANES);
            bad = mask_or(bad, vec_is_nan(seen));
            best[v] = vec_max(best[v], seen);
        }
    for (; c < columns; c += FNN_LANES) {
        vec seen = load_or_minus_infinity(x + c, lanes_left(columns - c));
        bad = mask_or(bad, vec_is_nan(seen));
        best[0] = vec_max(best[0], seen);
    }
    vec all = vec_max(vec_max(best[0], best[1]), vec_max(best[2], best[3]));
    return mask_bits(bad) ? __builtin_nanf("") : vec_max_across(all);
}

/* exp(x[c] - maximum), for n values; arguments are 0 at most. */
FNN_INLINE vec shifted_exponential(const float *x, ptrdiff_t n, float maximum) {
    return vec_exp_below_88(vec_sub(load_or_minus_infinity(x, n), vec_set1(maximum)));
}

/* sum of exp(x[c] - maximum), which `to` receives unless it is null: each term within 2 ulp, `columns` / FNN_LANES + 4 additions.
 * Meanwhile the row at `ahead` is fetched. */
FNN_INLINE float row_exponentials(const float *x, float *to, ptrdiff_t columns, float maximum, const float *ahead) {
    vec sum = vec_zero();
    ptrdiff_t c = 0;
    for (; c + EXPONENTIALS * FNN_LANES <= columns; c += EXPONENTIALS * FNN_LANES) {
        vec e[EXPONENTIALS];
#pragma GCC unroll 4
        for (int v = 0; v < EXPONENTIALS; v++) {
            __builtin_prefetch(ahead + c + v * FNN_LANES);
            e[v] = shifted_exponential(x + c + v * FNN_LANES, FNN_LANES, maximum);
        }
#pragma GCC unroll 4
        for (int v = 0; v < EXPONENTIALS; v++) {
            sum = vec_add(sum, e[v]);
            if (to) vec_store(to + c + v * FNN_LANES, e[v]);
        }
    }
    for (; c < columns; c += FNN_LANES) {
        ptrdiff_t n = lanes_left(columns - c);
        vec e = shifted_exponential(x + c, n, maximum);
        sum = vec_add(sum, e);
        if (to) store_lanes(to + c, e, n);
    }
    return vec_sum(sum);
}

#endif
