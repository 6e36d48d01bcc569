/* exp and the tail of the normal distribution where the ISA looks floats up in a table: short polynomials, one for each entry. */
#ifndef FASTNN_KERNELS_CURVES_TABLE_H
#define FASTNN_KERNELS_CURVES_TABLE_H

#include "lanes.h"

/* n = a * b rounded to a whole number from -1016 to 1023; *power receives 1.02402 * 2^(n/8), the factor being one for which the eight
 * fractions are almost floats: 0.06 units in the last place off. With n = 8 k + j, 0 <= j < 8, the sum ends in the bits of n; shifted
 * they add k to the exponent of table[j] and j/8 to its fraction, which the table has less that. From n = -1009 down *power is below
 * 2^-126: as kernels run, it counts as 0. */
FNN_INLINE vec vec_round_power(vec a, vec b, vec *power) {
    static const float table[8] = {1.02402031f,  0.99585104f,  0.983886123f, 0.976495028f,
                                   0.974091709f, 0.977127612f, 0.986095011f, 1.00306153f};
    const vec limit = vec_set1(12582912.0f);
    vec sum = vec_fma(a, b, limit);
    ivec bits = ivec_from_float_bits(sum);
    *power = vec_from_bits(ivec_add(ivec_shift_left(bits, 20), ivec_from_float_bits(vec_look_up(table, bits))));
    return vec_sub(sum, limit);
}

/* (1 + e) * power */
FNN_INLINE vec vec_exp_join(vec e, vec power) { return vec_fma(power, e, power); }

/* exp(x) = *power * (1 + e) for -88 <= x <= 88: returns e = exp(r) / 1.02402 - 1, |r| <= ln(2)/16; *power of vec_round_power. A
 * minimax fit, relative error of exp 7.9e-10. */
FNN_INLINE vec vec_exp_parts(vec x, vec *power) {
    vec n = vec_round_power(x, vec_set1(11.5415603f), power);
    vec r = vec_fnma(n, vec_set1(0.693359375f / 8), x);
    r = vec_fnma(n, vec_set1(-2.12194440e-4f / 8), r);
    vec p = vec_fma(vec_set1(4.198913649e-02f), r, vec_set1(1.627631187e-01f));
    p = vec_fma(vec_fma(p, r, vec_set1(4.882687628e-01f)), r, vec_set1(9.765431285e-01f));
    return vec_fma(p, r, vec_set1(-2.345687337e-02f));
}

/* exp(-m^2 / 2) for 0 <= m <= 13.28: *power * (1 + e), r = m^2 + n * ln(2)/4, |r| <= ln(2)/8, together with what rounding
 * the square lost; e = exp(-r / 2) / 1.02402 - 1: a minimax fit, relative error 1.9e-8. 0 from 13.27 on. */
FNN_INLINE vec vec_bell(vec m) {
    vec square = vec_mul(m, m), lost = vec_square_error(m, square), power;
    vec n = vec_round_power(square, vec_set1(-5.77078016f), &power);
    vec r = vec_add(vec_fma(n, vec_set1(1.38671875f / 8), square), vec_fma(n, vec_set1(-4.24388880e-4f / 8), lost));
    vec p = vec_fma(vec_set1(-2.034121007e-02f), r, vec_set1(1.220869645e-01f));
    p = vec_fma(p, r, vec_set1(-4.882715940e-01f));
    return vec_exp_join(vec_fma(p, r, vec_set1(-2.345689200e-02f)), power);
}

/* P(standard normal < -m) / exp(-m^2 / 2) for 0 <= m <= 13.28: a polynomial in u = t - i for each whole number i that t = 29.875 /
 * (m + 3.15625) may be next to, 2 to 9, found by its last three bits. Minimax fits, relative error 3.8e-8. */
FNN_INLINE vec vec_mills_ratio(vec m) {
    static const float table[5][8] = {{3.328080475e-01f, 4.410164058e-01f, 3.362359852e-02f, 5.745684728e-02f,
                                       8.817674965e-02f, 1.280642152e-01f, 1.799195111e-01f, 2.469876111e-01f},
                                      {9.641115367e-02f, 1.205957308e-01f, 2.101911977e-02f, 2.694065310e-02f,
                                       3.487915918e-02f, 4.536373913e-02f, 5.889028683e-02f, 7.583928108e-02f},
                                      {1.119884476e-02f, 1.296764798e-02f, 2.541040536e-03f, 3.421566915e-03f,
                                       4.561665468e-03f, 5.964872427e-03f, 7.593857124e-03f, 9.372130968e-03f},
                                      {6.044712500e-04f, 5.685238866e-04f, 2.534499799e-04f, 3.356597736e-04f,
                                       4.247160978e-04f, 5.084122531e-04f, 5.725402152e-04f, 6.063218461e-04f},
                                      {-4.888564035e-06f, -1.291176704e-05f, 1.949245234e-05f, 2.179186959e-05f,
                                       2.221619434e-05f, 1.930809049e-05f, 1.260819045e-05f, 4.035495749e-06f}};
    const vec limit = vec_set1(12582912.0f);
    vec t = vec_quotient(vec_set1(29.875f), vec_add(m, vec_set1(3.15625f))), sum = vec_add(t, limit);
    ivec i = ivec_from_float_bits(sum);
    vec u = vec_sub(t, vec_sub(sum, limit));
    vec p = vec_fma(vec_look_up(table[4], i), u, vec_look_up(table[3], i));
    p = vec_fma(p, u, vec_look_up(table[2], i));
    p = vec_fma(p, u, vec_look_up(table[1], i));
    return vec_fma(p, u, vec_look_up(table[0], i));
}

#endif
