/* exp and the tail of the normal distribution where the ISA looks nothing up: one polynomial, or quotient of two, for all arguments. */
#ifndef FASTNN_KERNELS_CURVES_POLYNOMIAL_H
#define FASTNN_KERNELS_CURVES_POLYNOMIAL_H

#include "exp_polynomial.h"

/* n = a * b rounded to a whole number from -127 to 127; *power receives 2^n, 0 for n = -127: the exponent n + 127 stands in the low
 * bits of the sum. */
FNN_INLINE vec vec_round_power(vec a, vec b, vec *power) {
    const vec limit = vec_set1(12582912.0f + 127.0f);
    vec sum = vec_fma(a, b, limit);
    *power = vec_from_bits(ivec_shift_left(ivec_from_float_bits(sum), 23));
    return vec_sub(sum, limit);
}

/* (1 + e) * power: the sum first, for a product may be lost below 2^-126. */
FNN_INLINE vec vec_exp_join(vec e, vec power) { return vec_mul(vec_add(e, vec_set1(1.0f)), power); }

/* exp(x) = 2^n * (1 + e) for -88 <= x <= 88: returns e, at most sqrt(2) - 1; *power receives 2^n, 0 for n = -127. */
FNN_INLINE vec vec_exp_parts(vec x, vec *power) {
    vec n = vec_round_power(x, vec_set1(1.44269504f), power);
    vec r = vec_fnma(n, vec_set1(0.693359375f), x);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f), r);
    vec square = vec_mul(r, r);
    return vec_fma(vec_exp_polynomial(r, square), square, r);
}

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

#endif
