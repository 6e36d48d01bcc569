/* Elementary functions on vectors, without libm. Largest error over every fifth float32 argument (swept), in units in the last
 * place of the result, with / without fused multiply-add; results below 2^-126 are 0, arguments there count as 0.
 *
 *   vec_exp         1.01 / 0.98    overflow gives infinity; exp(-inf) = 0
 *   vec_log         0.81 / 0.82    log(0) = -inf, log of a negative number is NaN, log(inf) = inf
 *   vec_expm1       1.44 / 1.57    arguments up to 88
 *   vec_log1p       1.25 / 1.25    arguments from 0 to 1, NaN gives anything
 *   vec_sigmoid     2.50 / 2.50
 *   vec_tanh        2.42 / 2.42
 *   vec_softplus    1.97 / 1.97
 *   vec_normal_cdf  5.9 / 6.0
 *
 * Else NaN gives NaN. exp, log: polynomials of the Cephes library's reduction intervals (S. Moshier, "Methods and Programs for
 * Mathematical Functions", 1989), coefficients rounded to float32. */
#ifndef FASTNN_KERNELS_VECTOR_MATH_H
#define FASTNN_KERNELS_VECTOR_MATH_H

#include "lanes.h"

/* 2^n for -126 <= n <= 127. */
FNN_INLINE vec vec_power_of_two(ivec n) { return vec_from_bits(ivec_shift_left(ivec_add(n, ivec_set1(127)), 23)); }

/* (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2. */
FNN_INLINE vec vec_exp_polynomial(vec r) {
    vec p = vec_set1(1.9875691500e-4f);
    p = vec_fma(p, r, vec_set1(1.3981999507e-3f));
    p = vec_fma(p, r, vec_set1(8.3334519073e-3f));
    p = vec_fma(p, r, vec_set1(4.1665795894e-2f));
    p = vec_fma(p, r, vec_set1(1.6666665459e-1f));
    return vec_fma(p, r, vec_set1(5.0000001201e-1f));
}

/* exp(x) = 2^n * exp(r), |r| <= ln(2)/2 */
FNN_INLINE vec vec_exp(vec x) {
    vec clamped = vec_max(vec_set1(-104.0f), vec_min(vec_set1(89.0f), x)); /* keeps a NaN */
    vec n = vec_round(vec_mul(clamped, vec_set1(1.44269504f)));
    vec r = vec_fnma(n, vec_set1(0.693359375f), clamped);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec p = vec_add(vec_fma(vec_exp_polynomial(r), vec_mul(r, r), r), vec_set1(1.0f));
    return vec_scale(p, n);
}

/* log(x) = e*ln(2) + log(1 + f), sqrt(1/2) <= 1 + f < sqrt(2), for positive finite x. */
FNN_INLINE vec vec_log_positive(vec x) {
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
    return vec_fma(e, vec_set1(0.693359375f), vec_add(f, tail));
}

FNN_INLINE vec vec_log(vec x) {
    vec result = vec_log_positive(x);
    const vec infinity = vec_set1(__builtin_inff());
    result = vec_select(vec_equal(x, infinity), infinity, result);
    result = vec_select(vec_less(x, vec_set1(1.17549435e-38f)), vec_neg(infinity), result);
    mask invalid = mask_or(vec_less(x, vec_zero()), vec_is_nan(x));
    return vec_select(invalid, vec_set1(__builtin_nanf("")), result);
}

/* exp(x) - 1 for x <= 88 (larger ones count as 88): 2^n * (exp(r) - 1) + (2^n - 1). */
FNN_INLINE vec vec_expm1(vec x) {
    vec clamped = vec_max(vec_set1(-30.0f), vec_min(vec_set1(88.0f), x)); /* exp(-30) - 1 rounds to -1 */
    vec n = vec_round(vec_mul(clamped, vec_set1(1.44269504f)));
    vec r = vec_fnma(n, vec_set1(0.693359375f), clamped);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec less_one = vec_fma(vec_exp_polynomial(r), vec_mul(r, r), r);
    vec power = vec_power_of_two(ivec_from_vec(n));
    return vec_fma(power, less_one, vec_sub(power, vec_set1(1.0f)));
}

/* log(1 + u) for 0 <= u <= 1: log(w), w = 1 + u rounded, plus the part of u that the rounding lost, over w. */
FNN_INLINE vec vec_log1p(vec u) {
    vec w = vec_add(vec_set1(1.0f), u);
    vec lost = vec_sub(u, vec_sub(w, vec_set1(1.0f)));
    return vec_add(vec_log_positive(w), vec_div(lost, w));
}

/* log(1 - u) for 0 <= u <= 1, likewise; -inf for u = 1. */
FNN_INLINE vec vec_log1m(vec u) {
    const vec one = vec_set1(1.0f);
    vec rest = vec_sub(one, u), lost = vec_sub(vec_sub(one, rest), u);
    vec logarithm = vec_add(vec_log(rest), vec_div(lost, rest));
    return vec_select(vec_less_equal(rest, vec_zero()), vec_set1(-__builtin_inff()), logarithm);
}

/* 1 / (1 + exp(-x)) */
FNN_INLINE vec vec_sigmoid(vec x) { return vec_div(vec_set1(1.0f), vec_add(vec_set1(1.0f), vec_exp(vec_neg(x)))); }

/* tanh |x| = m / (m + 2), m = exp(2|x|) - 1. */
FNN_INLINE vec vec_tanh(vec x) {
    vec magnitude = vec_min(vec_set1(10.0f), vec_abs(x)); /* tanh(10) rounds to 1 */
    vec m = vec_expm1(vec_add(magnitude, magnitude));
    vec result = vec_div(m, vec_add(m, vec_set1(2.0f)));
    ivec sign = ivec_and(ivec_from_float_bits(x), ivec_set1(0x80000000u));
    return vec_from_bits(ivec_or(ivec_from_float_bits(result), sign));
}

/* log(1 + exp(x)) */
FNN_INLINE vec vec_softplus(vec x) { return vec_add(vec_max(vec_zero(), x), vec_log1p(vec_exp(vec_neg(vec_abs(x))))); }

/* P(standard normal < x) = erfc(z) / 2 or 1 - that, z = |x| / sqrt(2), with erfc(z) = exp(-z^2) * p(t) / (1 + 2z),
 * t = (z - 2) / (z + 2): relative precision in the lower tail as well. p: a minimax fit over 0 <= z <= 9.5.
 * bell receives exp(-x^2 / 2). */
FNN_INLINE vec vec_normal_cdf(vec x, vec *bell) {
    vec magnitude = vec_min(vec_set1(15.0f), vec_abs(x));
    vec z = vec_mul(magnitude, vec_set1(0.707106781f)), one = vec_set1(1.0f), two = vec_set1(2.0f);
    vec above = vec_add(z, two), slope = vec_fma(two, z, one), inverse = vec_div(one, vec_mul(above, slope));
    vec t = vec_mul(vec_sub(z, two), vec_mul(slope, inverse));
    vec p = vec_set1(-4.075475154e-04f);
    p = vec_fma(p, t, vec_set1(-1.241963706e-03f));
    p = vec_fma(p, t, vec_set1(1.314488007e-03f));
    p = vec_fma(p, t, vec_set1(8.641264401e-03f));
    p = vec_fma(p, t, vec_set1(-8.058088832e-03f));
    p = vec_fma(p, t, vec_set1(-5.420672894e-02f));
    p = vec_fma(p, t, vec_set1(1.640548557e-01f));
    p = vec_fma(p, t, vec_set1(-1.660312265e-01f));
    p = vec_fma(p, t, vec_set1(-9.276395291e-02f));
    p = vec_fma(p, t, vec_set1(1.276978374e+00f));
    vec square = vec_mul(magnitude, magnitude), rest = vec_square_error(magnitude, square);
    *bell = vec_exp(vec_mul(square, vec_set1(-0.5f)));
    *bell = vec_mul(*bell, vec_fnma(rest, vec_set1(0.5f), one)); /* what rounding the square lost */
    vec tail = vec_mul(vec_mul(vec_mul(*bell, vec_set1(0.5f)), p), vec_mul(above, inverse));
    return vec_select(vec_less(x, vec_zero()), tail, vec_sub(one, tail));
}

/* The same bits as a lane of vec_log. */
static inline float scalar_log(float x) {
    float lanes[FNN_LANES];
    vec_store(lanes, vec_log(vec_set1(x)));
    return lanes[0];
}

#endif
