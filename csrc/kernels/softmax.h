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

/* max x[c], or NaN if there is one. */
static inline float row_maximum(const float *x, ptrdiff_t columns) {
    vec best = vec_set1(-__builtin_inff());
    mask bad = mask_first(0);
    for (ptrdiff_t c = 0; c < columns; c += FNN_LANES) {
        vec seen = load_or_minus_infinity(x + c, lanes_left(columns - c));
        bad = mask_or(bad, vec_is_nan(seen));
        best = vec_max(best, seen);
    }
    return mask_bits(bad) ? __builtin_nanf("") : vec_max_across(best);
}

/* exp(x[c] - maximum), for n values; arguments are 0 at most. */
FNN_INLINE vec shifted_exponential(const float *x, ptrdiff_t n, float maximum) {
    return vec_exp_below_88(vec_sub(load_or_minus_infinity(x, n), vec_set1(maximum)));
}

/* sum of exp(x[c] - maximum): each term within 2 ulp, `columns` / FNN_LANES + 4 additions. Meanwhile the row at `ahead` is fetched. */
static inline float row_exponential_sum(const float *x, ptrdiff_t columns, float maximum, const float *ahead) {
    vec sum = vec_zero();
    ptrdiff_t rest = columns % FNN_LANES, c = 0;
    for (; c < columns - rest; c += FNN_LANES) {
        __builtin_prefetch(ahead + c);
        sum = vec_add(sum, shifted_exponential(x + c, FNN_LANES, maximum));
    }
    if (rest) sum = vec_add(sum, shifted_exponential(x + c, rest, maximum));
    return vec_sum(sum);
}

#endif
