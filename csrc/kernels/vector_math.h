/* Elementary functions on vectors, without libm. Largest error over every fifth float32 argument (swept), in units in the last
 * place of the result, with / without fused multiply-add; results below 2^-126 are 0, arguments there count as 0.
 *
 *   vec_exp         1.01 / 0.98    overflow gives infinity; exp(-inf) = 0
 *   vec_log         0.81 / 0.82    log(0) = -inf, log of a negative number is NaN, log(inf) = inf
 *   vec_expm1       1.53 / 1.62    arguments up to 88
 *   vec_log1p       1.05 / 1.32    arguments from 0 to 1, NaN gives anything
 *   vec_sigmoid     2.50 / 2.50    below 2^-125 it may be 0
 *   vec_tanh        4.6 / 5.5    never above 1, and 1 from 9.02 on
 *   vec_softplus    1.97 / 2.1
 *   vec_normal_cdf  5.2 / 6.1
 *
 * Else NaN gives NaN. exp, log: polynomials of the Cephes library's reduction intervals (S. Moshier, "Methods and Programs for
 * Mathematical Functions", 1989), coefficients rounded to float32; log1p, tanh, normal_cdf: own fits. */
#ifndef FASTNN_KERNELS_VECTOR_MATH_H
#define FASTNN_KERNELS_VECTOR_MATH_H

#include "lanes.h"

/* a * b rounded to a whole number, below 2^22: adding 1.5 * 2^23 leaves no room for a fraction. */
FNN_INLINE vec vec_round_product(vec a, vec b) {
    const vec limit = vec_set1(12582912.0f);
    return vec_sub(vec_fma(a, b, limit), limit);
}

/* n = a * b rounded to a whole number from -127 to 127; *power receives 2^n, 0 for n = -127: the exponent n + 127 stands in the low
 * bits of the sum. */
FNN_INLINE vec vec_round_power(vec a, vec b, vec *power) {
    const vec limit = vec_set1(12582912.0f + 127.0f);
    vec sum = vec_fma(a, b, limit);
    *power = vec_from_bits(ivec_shift_left(ivec_from_float_bits(sum), 23));
    return vec_sub(sum, limit);
}

/* (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2. In pairs of terms, here and below: a short chain of dependent operations. */
FNN_INLINE vec vec_exp_polynomial(vec r, vec square) {
    vec high = vec_fma(vec_set1(1.9875691500e-4f), r, vec_set1(1.3981999507e-3f));
    vec middle = vec_fma(vec_set1(8.3334519073e-3f), r, vec_set1(4.1665795894e-2f));
    vec low = vec_fma(vec_set1(1.6666665459e-1f), r, vec_set1(5.0000001201e-1f));
    return vec_fma(vec_fma(high, square, middle), square, low);
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

/* exp(x) = 2^n * (1 + e) for -88 <= x <= 88: returns e, at most sqrt(2) - 1; *power receives 2^n, 0 for n = -127. */
FNN_INLINE vec vec_exp_parts(vec x, vec *power) {
    vec n = vec_round_power(x, vec_set1(1.44269504f), power);
    vec r = vec_fnma(n, vec_set1(0.693359375f), x);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec square = vec_mul(r, r);
    return vec_fma(vec_exp_polynomial(r, square), square, r);
}

/* The same bits as vec_exp's for x <= 88, where 2^n is a float: below exp(-88) as well the result is 0. */
FNN_INLINE vec vec_exp_below_88(vec x) {
    vec power, e = vec_exp_parts(vec_max(vec_set1(-88.0f), x), &power); /* keeps a NaN */
    return vec_mul(vec_add(e, vec_set1(1.0f)), power);
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

/* exp(x) - 1 for x <= 88 (larger ones count as 88): 2^n * (exp(r) - 1) + (2^n - 1). */
FNN_INLINE vec vec_expm1(vec x) {
    vec clamped = vec_max(vec_set1(-30.0f), vec_min(vec_set1(88.0f), x)); /* exp(-30) - 1 rounds to -1 */
    vec power, less_one = vec_exp_parts(clamped, &power);
    return vec_fma(power, less_one, vec_sub(power, vec_set1(1.0f)));
}

/* log(1 + u) for 0 <= u <= 1, s = u / (2 + u): it is 2 artanh(s) = u - s * (u - r), r = s^2 * p(s^2). The last subtraction takes
 * off less than half of u. p: a minimax fit over s <= 1/3, relative error of the logarithm 4.5e-9. */
FNN_INLINE vec vec_log1p_of_quotient(vec u, vec s) {
    vec z = vec_mul(s, s);
    vec high = vec_fma(vec_set1(2.801199257e-01f), z, vec_set1(2.800180316e-01f));
    vec p = vec_fma(vec_fma(high, z, vec_set1(4.002152681e-01f)), z, vec_set1(6.666641831e-01f));
    return vec_fnma(s, vec_fnma(z, p, u), u);
}

FNN_INLINE vec vec_log1p(vec u) { return vec_log1p_of_quotient(u, vec_quotient(u, vec_add(u, vec_set1(2.0f)))); }

/* log(1 - u) for 0 <= u <= 1: log(w), w = 1 - u rounded, plus what the rounding lost, over w; -inf for u = 1. */
FNN_INLINE vec vec_log1m(vec u) {
    const vec one = vec_set1(1.0f);
    vec rest = vec_sub(one, u), lost = vec_sub(vec_sub(one, rest), u);
    vec logarithm = vec_add(vec_log(rest), vec_div(lost, rest));
    return vec_select(vec_less_equal(rest, vec_zero()), vec_set1(-__builtin_inff()), logarithm);
}

/* 1 / (1 + exp(-x)), 1 + 2^n + 2^n * e below; exp(88) is finite, as vec_reciprocal wants it, and 1 / exp(88) below 2^-126. */
FNN_INLINE vec vec_sigmoid(vec x) {
    vec clamped = vec_max(vec_set1(-88.0f), vec_min(vec_set1(88.0f), vec_neg(x)));
    vec power, e = vec_exp_parts(clamped, &power);
    return vec_reciprocal(vec_fma(power, e, vec_add(vec_set1(1.0f), power)));
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
    vec u = vec_mul(vec_add(e, vec_set1(1.0f)), power); /* with few roundings where it is small */
    vec s = vec_quotient(u, vec_fma(power, e, vec_add(vec_set1(2.0f), power)));
    return vec_log1p_of_quotient(u, s);
}

/* log(1 + exp(x)) */
FNN_INLINE vec vec_softplus(vec x) { return vec_add(vec_max(vec_zero(), x), vec_softplus_below(x)); }

/* exp(-m^2 / 2) for 0 <= m <= 13.29: 2^n * exp(-r / 2), r = m^2 + n * 2 ln(2), |r| <= ln(2), together with what rounding the
 * square lost; a minimax fit, relative error 3.1e-9. */
FNN_INLINE vec vec_bell(vec m) {
    vec square = vec_mul(m, m), lost = vec_square_error(m, square), power;
    vec n = vec_round_power(square, vec_set1(-0.721347520f), &power);
    vec r = vec_add(vec_fma(n, vec_set1(1.38671875f), square), vec_fma(n, vec_set1(-4.24388880e-4f), lost));
    vec r_square = vec_mul(r, r);
    vec e = vec_fma(vec_set1(-2.615211706e-04f), r, vec_set1(2.604266629e-03f));
    e = vec_fma(vec_set1(2.159489668e-05f), r_square, e);
    e = vec_fma(e, r_square, vec_fma(vec_set1(-2.083315141e-02f), r, vec_set1(1.249999851e-01f)));
    e = vec_fma(e, r_square, vec_fma(r, vec_set1(-0.5f), vec_set1(1.0f)));
    return vec_mul(e, power);
}

/* P(standard normal < -m) / exp(-m^2 / 2) for 0 <= m <= 13.28: a minimax fit, relative error 5e-9. Even and odd powers apart: short
 * chains, and beside the polynomials that vec_bell is made of, for which the quotient does not wait. */
FNN_INLINE vec vec_mills_ratio(vec m) {
    vec square = vec_mul(m, m);
    vec p = vec_fma(vec_set1(4.018492471e-03f), square, vec_set1(1.812724446e-01f));
    vec p_odd = vec_fma(vec_set1(3.997265395e-02f), square, vec_set1(4.356397366e-01f));
    p = vec_fma(p_odd, m, vec_fma(p, square, vec_set1(0.5f)));
    vec q = vec_fma(vec_set1(1.002039833e-01f), square, vec_set1(1.194341261e+00f));
    vec q_odd = vec_fma(vec_set1(1.007272318e-02f), square, vec_set1(4.642897746e-01f));
    q_odd = vec_fma(q_odd, square, vec_set1(1.669164391e+00f));
    q = vec_fma(q_odd, m, vec_fma(q, square, vec_set1(1.0f)));
    return vec_quotient(p, q);
}

/* |x|, but 13.27 at most: from there on exp(-x^2 / 2) is 0. */
FNN_INLINE vec vec_tail_argument(vec x) { return vec_min(vec_set1(13.27f), vec_abs(x)); }

/* P(standard normal < x): a lower tail or 1 - that, with relative precision in the lower tail as well. bell receives exp(-x^2 / 2). */
FNN_INLINE vec vec_normal_cdf(vec x, vec *bell) {
    vec m = vec_tail_argument(x);
    *bell = vec_bell(m);
    vec tail = vec_mul(*bell, vec_mills_ratio(m));
    return vec_select(vec_less(x, vec_zero()), tail, vec_sub(vec_set1(1.0f), tail));
}

/* x * P(standard normal < x) = max(x, 0) - |x| * P(standard normal < -|x|) */
FNN_INLINE vec vec_gelu(vec x) {
    vec m = vec_tail_argument(x), tail = vec_mul(vec_bell(m), vec_mills_ratio(m));
    return vec_fnma(m, tail, vec_max(vec_zero(), x));
}

/* The same bits as a lane of vec_log. */
static inline float scalar_log(float x) {
    float lanes[FNN_LANES];
    vec_store(lanes, vec_log(vec_set1(x)));
    return lanes[0];
}

#endif
