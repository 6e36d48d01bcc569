/* The small linear maps of Winograd's minimal filtering, in registers, one channel a lane.
 *
 * F(m x m, r x r) makes m x m outputs of a filter of r x r taps from a patch of (m+r-1) x (m+r-1) inputs, with one product
 * for each input:
 *
 *   Y = A^T [ (G g G^T) . (B^T d B) ] A        d patch, g filter, Y outputs, . elementwise
 *
 * It evaluates polynomials at 0, +-a, +-b and infinity (patches of 6: F(4x4, 3x3), F(2x2, 5x5)), at +-c, +-d and infinity
 * (patches of 5: F(4x4, 2x2)), or at 0, +-1 and infinity (patches of 4: F(2x2, 3x3)). a = 3/4, b = 3/2: every entry of A and B is
 * a float, and the error on random data is half of that of the usual 1, 2 (see winograd.h). B depends on the points alone, A has
 * a row for each of the powers 0 to m-1 of a point and G a column for each of the powers 0 to r-1. Rows +-a of
 *
 *   B^T:  (d4 - b^2 d2) +- a (d3 - b^2 d1)      A^T, columns +-a:  1, +-a, a^2, +-a^3, ...
 *   G:    (1, +-a, a^2, ...) / (2 a^2 (a^2 - b^2))
 *
 * and for +-b with a and b exchanged; 0: a^2 b^2 d0 - (a^2 + b^2) d2 + d4; infinity: a^2 b^2 d1 - (a^2 + b^2) d3 + d5.
 * With c = 1/2 and d = 5/4 in patches of 5, rows +-c of B^T are (d3 - d^2 d1) +- c (d2 - d^2 d0), its last row
 * c^2 d^2 d0 - (c^2 + d^2) d2 + d4, and rows +-c of G (+-1, c) / (2 c (c^2 - d^2)). G's row of infinity is (0, 1): where the
 * second tap is zero, there is no product at infinity. Tiles of fewer outputs need fewer points: with the first m of c, -c, d, -d
 * and with infinity, B and A are those of F(m, 2), and G's rows stay as they are (Toom-Cook with any points; Barabasz et al.).
 *
 * The gradient of the filter is the same identity transposed: dg = G^T [ (A dY A^T) . (B^T d B) ] G.
 *
 * Sources: Winograd, Arithmetic Complexity of Computations (1980); Lavin & Gray, "Fast Algorithms for Convolutional Neural
 * Networks" (2016); choice of points: Barabasz, Anderson, Soodhalter & Gregg, "Error Analysis and Improving the Accuracy of
 * Winograd Convolution for Deep Neural Networks" (2020).
 */
#ifndef FASTNN_WINOGRAD_TRANSFORM_H
#define FASTNN_WINOGRAD_TRANSFORM_H

#include "lanes.h"

enum {
    WINOGRAD_PATCH = 9, /* pixels of the largest patch, in one direction: with stride 2, see winograd_strided.h */
    WINOGRAD_TAPS = 5 /* of the largest filter, in one direction */
};

#define POINT_A 0.75f
#define POINT_B 1.5f
#define A_SQUARE (POINT_A * POINT_A)
#define B_SQUARE (POINT_B * POINT_B)
/* What G divides the rows of +-a and +-b by, inverted. */
#define A_SHARE (1.0 / (2.0 * A_SQUARE * (A_SQUARE - B_SQUARE)))
#define B_SHARE (1.0 / (2.0 * B_SQUARE * (B_SQUARE - A_SQUARE)))
#define ZERO_SHARE (1.0 / (A_SQUARE * B_SQUARE))
/* Likewise in patches of 5: what the row of +c is multiplied by; that of -c has the other sign. */
#define POINT_C 0.5f
#define POINT_D 1.25f
#define C_SQUARE (POINT_C * POINT_C)
#define D_SQUARE (POINT_D * POINT_D)
#define C_SHARE (1.0 / (2.0 * POINT_C * (C_SQUARE - D_SQUARE)))
#define D_SHARE (1.0 / (2.0 * POINT_D * (D_SQUARE - C_SQUARE)))

/* Rows of one pair of points: (even + point * odd, even - point * odd). */
FNN_INLINE void winograd_pair(vec even, vec odd, float point, vec *plus, vec *minus) {
    *plus = vec_fma(vec_set1(point), odd, even);
    *minus = vec_fnma(vec_set1(point), odd, even);
}

/* winograd_input for two taps and m < 4: the points left are c; +-c; or +-c and d. Rows are multiplied by what those of G lack,
 * which divide by the differences to all four points; rows of points that are not left are zero. Roundings: 3 (scalar: 4). */
FNN_INLINE void winograd_input_few(int m, const vec *d, vec *v) {
    const vec c = vec_set1(POINT_C), c_square = vec_set1(C_SQUARE), point_d = vec_set1(POINT_D);
    const vec others = vec_set1(C_SQUARE - D_SQUARE), product = vec_set1(POINT_C * POINT_D);
    v[1] = v[2] = v[3] = vec_zero();
    if (m == 1) {
        v[0] = vec_mul(vec_set1(2.0f * POINT_C * (C_SQUARE - D_SQUARE)), d[0]);
        v[4] = vec_fnma(c, d[0], d[1]);
        return;
    }
    if (m == 2) {
        v[0] = vec_mul(others, vec_fma(c, d[0], d[1]));
        v[1] = vec_mul(others, vec_fnma(c, d[0], d[1]));
        v[4] = vec_fnma(c_square, d[0], d[2]);
        return;
    }
    const vec plus = vec_fma(vec_set1(POINT_C - POINT_D), d[1], vec_fnma(product, d[0], d[2]));
    const vec minus = vec_fnma(vec_set1(POINT_C + POINT_D), d[1], vec_fma(product, d[0], d[2]));
    v[0] = vec_mul(vec_set1(POINT_C + POINT_D), plus);
    v[1] = vec_mul(vec_set1(POINT_D - POINT_C), minus);
    v[2] = vec_mul(vec_set1(2.0f * POINT_D), vec_fnma(c_square, d[0], d[2]));
    v[4] = vec_fma(vec_set1(C_SQUARE * POINT_D), d[0], vec_fnma(c_square, d[1], vec_fnma(point_d, d[2], d[3])));
}

/* v = B^T d, both m+r-1 long. Roundings on any path: 2 (scalar: 4). With r = 2 and m < 4 some of five are left, see above. */
FNN_INLINE void winograd_input(int m, int r, const vec *d, vec *v) {
    if (r == 2 && m < 4) {
        winograd_input_few(m, d, v);
        return;
    }
    if (m + r - 1 == 4) {
        v[0] = vec_sub(d[0], d[2]);
        v[1] = vec_add(d[2], d[1]);
        v[2] = vec_sub(d[2], d[1]);
        v[3] = vec_sub(d[3], d[1]);
        return;
    }
    if (r == 2) {
        const vec c_square = vec_set1(C_SQUARE), d_square = vec_set1(D_SQUARE);
        winograd_pair(vec_fnma(d_square, d[1], d[3]), vec_fnma(d_square, d[0], d[2]), POINT_C, &v[0], &v[1]);
        winograd_pair(vec_fnma(c_square, d[1], d[3]), vec_fnma(c_square, d[0], d[2]), POINT_D, &v[2], &v[3]);
        v[4] = vec_fma(vec_set1(C_SQUARE * D_SQUARE), d[0], vec_fnma(vec_set1(C_SQUARE + D_SQUARE), d[2], d[4]));
        return;
    }
    const vec a = vec_set1(A_SQUARE), b = vec_set1(B_SQUARE);
    const vec product = vec_set1(A_SQUARE * B_SQUARE), sum = vec_set1(A_SQUARE + B_SQUARE);
    v[0] = vec_fma(product, d[0], vec_fnma(sum, d[2], d[4]));
    winograd_pair(vec_fnma(b, d[2], d[4]), vec_fnma(b, d[1], d[3]), POINT_A, &v[1], &v[2]);
    winograd_pair(vec_fnma(a, d[2], d[4]), vec_fnma(a, d[1], d[3]), POINT_B, &v[3], &v[4]);
    v[5] = vec_fma(product, d[1], vec_fnma(sum, d[3], d[5]));
}

/* Rows 1 to 3 of A^T v, of the sums and differences of two pairs of points. */
FNN_INLINE void winograd_output_pairs(const vec *sums, const vec *differences, float first, float second, vec infinity,
                                      vec *y) {
    y[1] = vec_fma(vec_set1(first), differences[0], vec_mul(vec_set1(second), differences[1]));
    y[2] = vec_fma(vec_set1(first * first), sums[0], vec_mul(vec_set1(second * second), sums[1]));
    const vec last = vec_fma(vec_set1(second * second * second), differences[1], infinity);
    y[3] = vec_fma(vec_set1(first * first * first), differences[0], last);
}

/* winograd_output for two taps and m < 4, of the points that winograd_input_few leaves; outputs from m on are zero. */
FNN_INLINE void winograd_output_few(int m, const vec *v, vec *y) {
    y[1] = y[2] = y[3] = vec_zero();
    if (m == 1) {
        y[0] = vec_add(v[0], v[4]);
        return;
    }
    const vec c = vec_set1(POINT_C), d = vec_set1(POINT_D);
    const vec sum = vec_add(v[0], v[1]), difference = vec_sub(v[0], v[1]);
    if (m == 2) {
        y[0] = sum;
        y[1] = vec_fma(c, difference, v[4]);
        return;
    }
    y[0] = vec_add(sum, v[2]);
    y[1] = vec_fma(c, difference, vec_mul(d, v[2]));
    y[2] = vec_fma(vec_set1(C_SQUARE), sum, vec_fma(vec_set1(D_SQUARE), v[2], v[4]));
}

/* y = A^T v, m+r-1 in, m out. Roundings on any path: 3 (scalar: 4). */
FNN_INLINE void winograd_output(int m, int r, const vec *v, vec *y) {
    if (r == 2 && m < 4) {
        winograd_output_few(m, v, y);
        return;
    }
    if (r == 2) {
        const vec sums[2] = {vec_add(v[0], v[1]), vec_add(v[2], v[3])};
        const vec differences[2] = {vec_sub(v[0], v[1]), vec_sub(v[2], v[3])};
        y[0] = vec_add(sums[0], sums[1]);
        winograd_output_pairs(sums, differences, POINT_C, POINT_D, v[4], y);
        return;
    }
    if (m + r - 1 == 4) {
        y[0] = vec_add(v[0], vec_add(v[1], v[2]));
        y[1] = vec_add(vec_sub(v[1], v[2]), v[3]);
        return;
    }
    const vec sums[2] = {vec_add(v[1], v[2]), vec_add(v[3], v[4])};
    const vec differences[2] = {vec_sub(v[1], v[2]), vec_sub(v[3], v[4])};
    y[0] = vec_add(vec_add(v[0], sums[0]), sums[1]);
    if (m == 2)
        y[1] = vec_fma(vec_set1(POINT_A), differences[0], vec_fma(vec_set1(POINT_B), differences[1], v[5]));
    else
        winograd_output_pairs(sums, differences, POINT_A, POINT_B, v[5], y);
}

/* Rows +-point of G g; share: what G multiplies the rows of this pair of points by. */
FNN_INLINE void winograd_filter_pair(int r, const vec *g, double point, double share, vec *plus, vec *minus) {
    const double square = point * point;
    vec even = vec_mul(vec_set1((float)share), g[0]), odd = g[1];
    even = vec_fma(vec_set1((float)(share * square)), g[2], even);
    if (r == 5) {
        even = vec_fma(vec_set1((float)(share * square * square)), g[4], even);
        odd = vec_fma(vec_set1((float)square), g[3], odd);
    }
    winograd_pair(even, odd, (float)(share * point), plus, minus);
}

/* u = G g, r in, m+r-1 out. Roundings on any path, that of G's entries included: 4, or 5 if r = 5. */
FNN_INLINE void winograd_filter(int m, int r, const vec *g, vec *u) {
    if (m + r - 1 == 4) {
        const vec half = vec_set1(0.5f), even = vec_mul(half, vec_add(g[0], g[2]));
        u[0] = g[0];
        winograd_pair(even, g[1], 0.5f, &u[1], &u[2]);
        u[3] = g[2];
        return;
    }
    if (r == 2) {
        winograd_pair(vec_mul(vec_set1((float)(C_SHARE * POINT_C)), g[1]), g[0], (float)C_SHARE, &u[0], &u[1]);
        winograd_pair(vec_mul(vec_set1((float)(D_SHARE * POINT_D)), g[1]), g[0], (float)D_SHARE, &u[2], &u[3]);
        u[4] = g[1];
        return;
    }
    u[0] = vec_mul(vec_set1((float)ZERO_SHARE), g[0]);
    winograd_filter_pair(r, g, POINT_A, A_SHARE, &u[1], &u[2]);
    winograd_filter_pair(r, g, POINT_B, B_SHARE, &u[3], &u[4]);
    u[5] = g[r - 1];
}

/* Rows +-point of A y. */
FNN_INLINE void winograd_error_pair(int m, const vec *y, float point, vec *plus, vec *minus) {
    const vec square = vec_set1(point * point);
    const vec even = m == 4 ? vec_fma(square, y[2], y[0]) : y[0], odd = m == 4 ? vec_fma(square, y[3], y[1]) : y[1];
    winograd_pair(even, odd, point, plus, minus);
}

/* v = A y, m in, m+r-1 out: the transpose of winograd_output. Roundings on any path: 3 (scalar: 4). */
FNN_INLINE void winograd_output_transposed(int m, int r, const vec *y, vec *v) {
    if (r == 2) {
        winograd_error_pair(m, y, POINT_C, &v[0], &v[1]);
        winograd_error_pair(m, y, POINT_D, &v[2], &v[3]);
        v[4] = y[m - 1];
        return;
    }
    v[0] = y[0];
    if (m + r - 1 == 4) {
        v[1] = vec_add(y[0], y[1]);
        v[2] = vec_sub(y[0], y[1]);
        v[3] = y[1];
        return;
    }
    winograd_error_pair(m, y, POINT_A, &v[1], &v[2]);
    winograd_error_pair(m, y, POINT_B, &v[3], &v[4]);
    v[5] = y[m - 1];
}

/* weight_a*a + weight_b*b + rest. */
FNN_INLINE vec winograd_weigh(double weight_a, vec a, double weight_b, vec b, vec rest) {
    return vec_fma(vec_set1((float)weight_b), b, vec_fma(vec_set1((float)weight_a), a, rest));
}

/* g = G^T u, m+r-1 in, r out: the transpose of winograd_filter. Roundings on any path: 5, that of G's entries included. */
FNN_INLINE void winograd_filter_transposed(int m, int r, const vec *u, vec *g) {
    if (r == 2) {
        const vec of_d = vec_mul(vec_set1((float)D_SHARE), vec_sub(u[2], u[3]));
        g[0] = vec_fma(vec_set1((float)C_SHARE), vec_sub(u[0], u[1]), of_d);
        g[1] = winograd_weigh(C_SHARE * POINT_C, vec_add(u[0], u[1]), D_SHARE * POINT_D, vec_add(u[2], u[3]), u[4]);
        return;
    }
    const vec sum = vec_add(u[1], u[2]), difference = vec_sub(u[1], u[2]);
    if (m + r - 1 == 4) {
        const vec half = vec_set1(0.5f);
        g[0] = vec_fma(half, sum, u[0]);
        g[1] = vec_mul(half, difference);
        g[2] = vec_fma(half, sum, u[3]);
        return;
    }
    const vec sum_b = vec_add(u[3], u[4]), difference_b = vec_sub(u[3], u[4]);
    double power_a = A_SHARE, power_b = B_SHARE; /* times the point to the power of the tap */
#pragma GCC unroll 5
    for (int tap = 0; tap < r; tap++, power_a *= POINT_A, power_b *= POINT_B) {
        const vec of_a = tap % 2 ? difference : sum, of_b = tap % 2 ? difference_b : sum_b;
        if (tap == 0)
            g[tap] = winograd_weigh(power_a, of_a, power_b, of_b, vec_mul(vec_set1((float)ZERO_SHARE), u[0]));
        else if (tap == r - 1)
            g[tap] = winograd_weigh(power_a, of_a, power_b, of_b, u[5]);
        else
            g[tap] = vec_fma(vec_set1((float)power_b), of_b, vec_mul(vec_set1((float)power_a), of_a));
    }
}

typedef void winograd_map(int m, int r, const vec *from, vec *to);

#endif
