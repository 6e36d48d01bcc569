/* Elementary functions on vectors, without libm. Largest error over every fifth float32 argument (swept), in units in the last
 * place of the result, with / without fused multiply-add; results below 2^-126 are 0, arguments there count as 0.
 *
 *   vec_exp         1.01 / 0.98    overflow gives infinity; exp(-inf) = 0
 *   vec_exp_below_88  0.64 / 0.99
 *   vec_log         0.81 / 0.82    log(0) = -inf, log of a negative number is NaN, log(inf) = inf
 *   vec_expm1       1.53 / 1.62    arguments up to 88
 *   vec_log1p       1.05 / 1.32    arguments from 0 to 1, NaN gives anything
 *   vec_sigmoid     2.50 / 2.50    below 2^-125 it may be 0
 *   vec_tanh        4.6 / 5.5    never above 1, and 1 from 9.02 on
 *   vec_softplus    1.97 / 2.1
 *   vec_gelu        5.8 / 6.1
 *
 * Else NaN gives NaN. exp, log: polynomials of the Cephes library's reduction intervals (S. Moshier, "Methods and Programs for
 * Mathematical Functions", 1989), coefficients rounded to float32; log1p, tanh, gelu and all of
 * curves_table.h: own fits. */
#ifndef FASTNN_KERNELS_VECTOR_MATH_H
#define FASTNN_KERNELS_VECTOR_MATH_H

#include "exp_polynomial.h"
#if defined(FNN_HAS_LOOK_UP)
#include "curves_table.h"
#else
#include "curves_polynomial.h"
#endif

/* a * b rounded to a whole number, below 2^22: adding 1.5 * 2^23 leaves no room for a fraction. */
FNN_INLINE vec vec_round_product(vec a, vec b) {
    const vec limit = vec_set1(12582912.0f);
    return vec_sub(vec_fma(a, b, limit), limit);
}

/* exp(x) = 2^n * exp(r), |r| <= ln(2)/2 */
FNN_INLINE vec vec_exp(vec x) {
    vec clamped = vec_max(vec_set1(-104.0f), vec_min(vec_set1(89.0f), x)); /* keeps a NaN */
    vec n = vec_round_product(clamped, vec_set1(1.44269504f));
    vec r = vec_fnma(n, vec_set1(0.693359375f), clamped);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec square = vec_mul(r, r);
    vec p = vec_add(vec_fma(vec_exp_polynomial(r, square), square, r), vec_set1(1.0f));
    return vec_scale(p, n);
}

/* exp(x) for x <= 88; below -88 the result is 0. */
FNN_INLINE vec vec_exp_below_88(vec x) {
    vec power, e = vec_exp_parts(vec_max(vec_set1(-88.0f), x), &power); /* keeps a NaN */
    return vec_exp_join(e, power);
}

/* Positive finite x = 2^e * (1 + f), sqrt(1/2) <= 1 + f < sqrt(2): returns e. */
FNN_INLINE vec vec_log_split(vec x, vec *f) {
    ivec bits = ivec_from_float_bits(x);
    ivec shifted = ivec_sub(bits, ivec_set1(0x3f3504f3u)); /* bits of sqrt(1/2) */
    ivec mantissa = ivec_add(ivec_and(shifted, ivec_set1(0x007fffffu)), ivec_set1(0x3f3504f3u));
    *f = vec_sub(vec_from_bits(mantissa), vec_set1(1.0f));
    return vec_from_int(ivec_shift_right_arithmetic(shifted, 23));
}

/* e*ln(2) + log(1 + f) */
FNN_INLINE vec vec_log_combine(vec e, vec f) {
    vec square = vec_mul(f, f);
    vec p = vec_fma(vec_set1(-1.1514610310e-1f), f, vec_set1(1.1676998740e-1f));
    p = vec_fma(vec_set1(7.0376836292e-2f), square, p);
    p = vec_fma(p, square, vec_fma(vec_set1(-1.2420140846e-1f), f, vec_set1(1.4249322787e-1f)));
    p = vec_fma(p, square, vec_fma(vec_set1(-1.6668057665e-1f), f, vec_set1(2.0000714765e-1f)));
    p = vec_fma(p, square, vec_fma(vec_set1(-2.4999993993e-1f), f, vec_set1(3.3333331174e-1f)));
    vec tail = vec_mul(vec_mul(p, f), square);
    tail = vec_fma(e, vec_set1(-2.12194440e-4f), tail);
    tail = vec_fnma(square, vec_set1(0.5f), tail);
    return vec_fma(e, vec_set1(0.693359375f), vec_add(f, tail));
}

FNN_INLINE vec vec_log_positive(vec x) {
    vec f, e = vec_log_split(x, &f);
    return vec_log_combine(e, f);
}

FNN_INLINE vec vec_log(vec x) {
    vec result = vec_log_positive(x);
    const vec infinity = vec_set1(__builtin_inff());
    result = vec_select(vec_equal(x, infinity), infinity, result);
    result = vec_select(vec_less(x, vec_set1(1.17549435e-38f)), vec_neg(infinity), result);
    mask invalid = mask_or(vec_less(x, vec_zero()), vec_is_nan(x));
    return vec_select(invalid, vec_set1(__builtin_nanf("")), result);
}

/* exp(x) - 1 for x <= 88 (larger ones count as 88): 2^n * (exp(r) - 1) + (2^n - 1), |r| <= ln(2)/2. The exponent n + 127 stands in the
 * low bits of a sum. */
FNN_INLINE vec vec_expm1(vec x) {
    const vec limit = vec_set1(12582912.0f + 127.0f);
    vec clamped = vec_max(vec_set1(-30.0f), vec_min(vec_set1(88.0f), x)); /* exp(-30) - 1 rounds to -1 */
    vec sum = vec_fma(clamped, vec_set1(1.44269504f), limit), n = vec_sub(sum, limit);
    vec power = vec_from_bits(ivec_shift_left(ivec_from_float_bits(sum), 23));
    vec r = vec_fnma(n, vec_set1(0.693359375f), clamped);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec square = vec_mul(r, r), less_one = vec_fma(vec_exp_polynomial(r, square), square, r);
    return vec_fma(power, less_one, vec_sub(power, vec_set1(1.0f)));
}

/* log(1 + u) for 0 <= u <= 1, s = u / (2 + u): it is 2 artanh(s) = u - s * (u - r), r = s^2 * p(s^2). The last subtraction takes
 * off less than half of u. p: a minimax fit over s <= 1/3, relative error of the logarithm 4.5e-9. */
FNN_INLINE vec vec_log1p(vec u) {
    vec s = vec_quotient(u, vec_add(u, vec_set1(2.0f))), z = vec_mul(s, s);
    vec high = vec_fma(vec_set1(2.801199257e-01f), z, vec_set1(2.800180316e-01f));
    vec p = vec_fma(vec_fma(high, z, vec_set1(4.002152681e-01f)), z, vec_set1(6.666641831e-01f));
    return vec_fnma(s, vec_fnma(z, p, u), u);
}

/* log(1 - u) for 0 <= u <= 1: log(w), w = 1 - u rounded, plus what the rounding lost, over w; -inf for u = 1. */
FNN_INLINE vec vec_log1m(vec u) {
    const vec one = vec_set1(1.0f);
    vec rest = vec_sub(one, u), lost = vec_sub(vec_sub(one, rest), u);
    vec logarithm = vec_add(vec_log(rest), vec_div(lost, rest));
    return vec_select(vec_less_equal(rest, vec_zero()), vec_set1(-__builtin_inff()), logarithm);
}

/* 1 / (1 + exp(-x)); exp(88) is finite, as vec_reciprocal wants it, and 1 / exp(88) below 2^-126. */
FNN_INLINE vec vec_sigmoid(vec x) {
    vec clamped = vec_max(vec_set1(-88.0f), vec_min(vec_set1(88.0f), vec_neg(x)));
    vec power, e = vec_exp_parts(clamped, &power);
    return vec_reciprocal(vec_add(vec_set1(1.0f), vec_exp_join(e, power)));
}

/* tanh |x| = |x| p(x^2) / q(x^2): a minimax fit over |x| <= 9.02, from where on tanh rounds to 1; relative error 2.2e-8. */
FNN_INLINE vec vec_tanh(vec x) {
    const vec one = vec_set1(1.0f);
    vec magnitude = vec_min(vec_set1(9.02f), vec_abs(x)), square = vec_mul(magnitude, magnitude);
    vec fourth = vec_mul(square, square);
    vec p = vec_fma(vec_set1(1.338429889e-08f), square, vec_set1(2.063583300e-05f));
    p = vec_fma(p, square, vec_set1(3.497458559e-03f));
    p = vec_fma(p, fourth, vec_fma(vec_set1(1.338268810e-01f), square, one));
    vec q = vec_fma(vec_set1(7.790253814e-07f), square, vec_set1(3.288518617e-04f));
    q = vec_fma(q, square, vec_set1(2.588436456e-02f));
    q = vec_fma(q, fourth, vec_fma(vec_set1(4.671600935e-01f), square, one));
    vec result = vec_min(one, vec_mul(magnitude, vec_quotient(p, q)));
    ivec sign = ivec_and(ivec_from_float_bits(x), ivec_set1(0x80000000u));
    return vec_from_bits(ivec_or(ivec_from_float_bits(result), sign));
}

/* log(1 + exp(-|x|)) */
FNN_INLINE vec vec_softplus_below(vec x) {
    vec power, e = vec_exp_parts(vec_max(vec_set1(-88.0f), vec_neg(vec_abs(x))), &power);
    return vec_log1p(vec_exp_join(e, power));
}

/* log(1 + exp(x)) */
FNN_INLINE vec vec_softplus(vec x) { return vec_add(vec_max(vec_zero(), x), vec_softplus_below(x)); }

/* |x|, but 13.27 at most: from there on exp(-x^2 / 2) is 0. */
FNN_INLINE vec vec_tail_argument(vec x) { return vec_min(vec_set1(13.27f), vec_abs(x)); }

/* x * P(standard normal < x) = max(x, 0) - |x| * P(standard normal < -|x|) */
FNN_INLINE vec vec_gelu(vec x) {
    vec m = vec_tail_argument(x), tail = vec_mul(vec_bell(m), vec_mills_ratio(m));
    return vec_fnma(m, tail, vec_max(vec_zero(), x));
}

/* P(standard normal < x) + x * exp(-x^2 / 2) / sqrt(2 pi): at -|x| it is w, at |x| 1 - w. NaN at infinity. */
FNN_INLINE vec vec_gelu_slope(vec x) {
    vec m = vec_tail_argument(x);
    vec w = vec_mul(vec_bell(m), vec_fnma(vec_set1(0.398942280f), vec_abs(x), vec_mills_ratio(m)));
    ivec sign = ivec_and(ivec_from_float_bits(x), ivec_set1(0x80000000u));
    vec turned = vec_from_bits(ivec_xor(ivec_from_float_bits(w), sign)); /* -w below 0 */
    return vec_sub(vec_keep(ivec_equal(sign, ivec_set1(0)), vec_set1(1.0f)), turned);
}

/* The same bits as a lane of vec_log. */
static inline float scalar_log(float x) {
    float lanes[FNN_LANES];
    vec_store(lanes, vec_log(vec_set1(x)));
    return lanes[0];
}

#endif
