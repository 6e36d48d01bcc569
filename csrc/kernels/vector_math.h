/* Elementary functions on vectors, without libm. Largest error over all float32 arguments (swept), in units in the last
 * place of the result, with / without fused multiply-add; results below 2^-126 are 0, arguments there count as 0.
 *
 *   vec_exp    1.01 / 0.98    overflow gives infinity; exp(-inf) = 0
 *   vec_log    0.81 / 0.82    log(0) = -inf, log of a negative number is NaN, log(inf) = inf
 *
 * NaN gives NaN. Polynomials: Remez fits of the Cephes library's reduction intervals (S. Moshier, "Methods and Programs for
 * Mathematical Functions", 1989), coefficients rounded to float32. */
#ifndef FASTNN_KERNELS_VECTOR_MATH_H
#define FASTNN_KERNELS_VECTOR_MATH_H

#include "lanes.h"

/* 2^n for whole -126 <= n <= 127. */
FNN_INLINE vec vec_power_of_two(vec n) {
    return vec_from_bits(ivec_shift_left(ivec_add(ivec_from_vec(n), ivec_set1(127)), 23));
}

/* exp(x) = 2^n * exp(r), |r| <= ln(2)/2; 2^n in two factors, so that only the result overflows or underflows. */
FNN_INLINE vec vec_exp(vec x) {
    vec clamped = vec_max(vec_set1(-104.0f), vec_min(vec_set1(89.0f), x)); /* keeps a NaN */
    vec n = vec_round(vec_mul(clamped, vec_set1(1.44269504f)));
    vec r = vec_fnma(n, vec_set1(0.693359375f), clamped);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec p = vec_set1(1.9875691500e-4f);
    p = vec_fma(p, r, vec_set1(1.3981999507e-3f));
    p = vec_fma(p, r, vec_set1(8.3334519073e-3f));
    p = vec_fma(p, r, vec_set1(4.1665795894e-2f));
    p = vec_fma(p, r, vec_set1(1.6666665459e-1f));
    p = vec_fma(p, r, vec_set1(5.0000001201e-1f));
    p = vec_add(vec_fma(p, vec_mul(r, r), r), vec_set1(1.0f));
    vec half = vec_floor(vec_mul(n, vec_set1(0.5f)));
    vec result = vec_mul(vec_mul(p, vec_power_of_two(half)), vec_power_of_two(vec_sub(n, half)));
    return vec_select(vec_is_nan(x), x, result);
}

/* log(x) = e*ln(2) + log(1 + f), sqrt(1/2) <= 1 + f < sqrt(2). */
FNN_INLINE vec vec_log(vec x) {
    ivec bits = ivec_from_float_bits(x);
    ivec shifted = ivec_sub(bits, ivec_set1(0x3f3504f3u)); /* bits of sqrt(1/2) */
    vec e = vec_from_int(ivec_shift_right_arithmetic(shifted, 23));
    ivec mantissa = ivec_add(ivec_and(shifted, ivec_set1(0x007fffffu)), ivec_set1(0x3f3504f3u));
    vec f = vec_sub(vec_from_bits(mantissa), vec_set1(1.0f)), square = vec_mul(f, f);
    vec p = vec_set1(7.0376836292e-2f);
    p = vec_fma(p, f, vec_set1(-1.1514610310e-1f));
    p = vec_fma(p, f, vec_set1(1.1676998740e-1f));
    p = vec_fma(p, f, vec_set1(-1.2420140846e-1f));
    p = vec_fma(p, f, vec_set1(1.4249322787e-1f));
    p = vec_fma(p, f, vec_set1(-1.6668057665e-1f));
    p = vec_fma(p, f, vec_set1(2.0000714765e-1f));
    p = vec_fma(p, f, vec_set1(-2.4999993993e-1f));
    p = vec_fma(p, f, vec_set1(3.3333331174e-1f));
    vec tail = vec_mul(vec_mul(p, f), square);
    tail = vec_fma(e, vec_set1(-2.12194440e-4f), tail);
    tail = vec_fnma(square, vec_set1(0.5f), tail);
    vec result = vec_fma(e, vec_set1(0.693359375f), vec_add(f, tail));
    const vec infinity = vec_set1(__builtin_inff());
    result = vec_select(vec_equal(x, infinity), infinity, result);
    result = vec_select(vec_less(x, vec_set1(1.17549435e-38f)), vec_neg(infinity), result);
    mask invalid = mask_or(vec_less(x, vec_zero()), vec_is_nan(x));
    return vec_select(invalid, vec_set1(__builtin_nanf("")), result);
}

/* The same bits as a lane of vec_log. */
static inline float scalar_log(float x) {
    float lanes[FNN_LANES];
    vec_store(lanes, vec_log(vec_set1(x)));
    return lanes[0];
}

#endif
