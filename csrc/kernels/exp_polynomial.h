/* The polynomial of the functions that are made of exp. */
#ifndef FASTNN_KERNELS_EXP_POLYNOMIAL_H
#define FASTNN_KERNELS_EXP_POLYNOMIAL_H

#include "lanes.h"

/* (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2. In pairs of terms, here and below: a short chain of dependent operations. */
FNN_INLINE vec vec_exp_polynomial(vec r, vec square) {
    vec high = vec_fma(vec_set1(1.9875691500e-4f), r, vec_set1(1.3981999507e-3f));
    vec middle = vec_fma(vec_set1(8.3334519073e-3f), r, vec_set1(4.1665795894e-2f));
    vec low = vec_fma(vec_set1(1.6666665459e-1f), r, vec_set1(5.0000001201e-1f));
    return vec_fma(vec_fma(high, square, middle), square, low);
}

#endif
