/* The small linear maps of Winograd's minimal filtering, in registers, one channel a lane.
 *
 * F(m x m, 3x3) makes m x m outputs from a patch of (m+2) x (m+2) inputs with (m+2)^2 products:
 *
 *   Y = A^T [ (G g G^T) . (B^T d B) ] A        d patch, g filter, Y outputs, . elementwise
 *
 * It evaluates polynomials at 0, +-a, +-b and infinity (m = 4), or 0, +-1 and infinity (m = 2). a = 3/4, b = 3/2: every entry
 * of A and B is a float, and the error on random data is half of that of the usual 1, 2 (see winograd.h). Rows +-a of
 *
 *   B^T:  (d4 - b^2 d2) +- a (d3 - b^2 d1)      A^T, columns +-a:  1, +-a, a^2, +-a^3
 *   G:    (1, +-a, a^2) / (2 a^2 (a^2 - b^2))
 *
 * and for +-b with a and b exchanged; 0: a^2 b^2 d0 - (a^2 + b^2) d2 + d4; infinity: a^2 b^2 d1 - (a^2 + b^2) d3 + d5.
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
    WINOGRAD_PATCH = 6, /* pixels of the largest patch, in one direction */
    WINOGRAD_PLANES = WINOGRAD_PATCH * WINOGRAD_PATCH
};

#define POINT_A 0.75f
#define POINT_B 1.5f
#define A_SQUARE (POINT_A * POINT_A)
#define B_SQUARE (POINT_B * POINT_B)
/* What G divides the rows of +-a and +-b by, inverted. */
#define A_SHARE (1.0 / (2.0 * A_SQUARE * (A_SQUARE - B_SQUARE)))
#define B_SHARE (1.0 / (2.0 * B_SQUARE * (B_SQUARE - A_SQUARE)))
#define ZERO_SHARE (1.0 / (A_SQUARE * B_SQUARE))

/* Rows of one pair of points: (even + point * odd, even - point * odd). */
FNN_INLINE void winograd_pair(vec even, vec odd, float point, vec *plus, vec *minus) {
    *plus = vec_fma(vec_set1(point), odd, even);
    *minus = vec_fnma(vec_set1(point), odd, even);
}

/* v = B^T d, both m+2 long. Roundings on any path: 2 (scalar: 4). */
FNN_INLINE void winograd_input(int m, const vec *d, vec *v) {
    if (m == 2) {
        v[0] = vec_sub(d[0], d[2]);
        v[1] = vec_add(d[2], d[1]);
        v[2] = vec_sub(d[2], d[1]);
        v[3] = vec_sub(d[3], d[1]);
        return;
    }
    const vec a = vec_set1(A_SQUARE), b = vec_set1(B_SQUARE);
    const vec product = vec_set1(A_SQUARE * B_SQUARE), sum = vec_set1(A_SQUARE + B_SQUARE);
    v[0] = vec_fma(product, d[0], vec_fnma(sum, d[2], d[4]));
    winograd_pair(vec_fnma(b, d[2], d[4]), vec_fnma(b, d[1], d[3]), POINT_A, &v[1], &v[2]);
    winograd_pair(vec_fnma(a, d[2], d[4]), vec_fnma(a, d[1], d[3]), POINT_B, &v[3], &v[4]);
    v[5] = vec_fma(product, d[1], vec_fnma(sum, d[3], d[5]));
}

/* y = A^T v, m+2 in, m out. Roundings on any path: 3 (scalar: 4). */
FNN_INLINE void winograd_output(int m, const vec *v, vec *y) {
    const vec sum = vec_add(v[1], v[2]), difference = vec_sub(v[1], v[2]);
    if (m == 2) {
        y[0] = vec_add(v[0], sum);
        y[1] = vec_add(difference, v[3]);
        return;
    }
    const vec sum_b = vec_add(v[3], v[4]), difference_b = vec_sub(v[3], v[4]);
    y[0] = vec_add(vec_add(v[0], sum), sum_b);
    y[1] = vec_fma(vec_set1(POINT_A), difference, vec_mul(vec_set1(POINT_B), difference_b));
    y[2] = vec_fma(vec_set1(A_SQUARE), sum, vec_mul(vec_set1(B_SQUARE), sum_b));
    const vec last = vec_fma(vec_set1(B_SQUARE * POINT_B), difference_b, v[5]);
    y[3] = vec_fma(vec_set1(A_SQUARE * POINT_A), difference, last);
}

/* u = G g, 3 in, m+2 out. Roundings on any path: 4, that of G's entries included. */
FNN_INLINE void winograd_filter(int m, const vec *g, vec *u) {
    if (m == 2) {
        const vec half = vec_set1(0.5f), even = vec_mul(half, vec_add(g[0], g[2]));
        u[0] = g[0];
        winograd_pair(even, g[1], 0.5f, &u[1], &u[2]);
        u[3] = g[2];
        return;
    }
    const vec a = vec_mul(vec_set1((float)A_SHARE), g[0]), b = vec_mul(vec_set1((float)B_SHARE), g[0]);
    u[0] = vec_mul(vec_set1((float)ZERO_SHARE), g[0]);
    winograd_pair(vec_fma(vec_set1((float)(A_SHARE * A_SQUARE)), g[2], a), g[1], (float)(A_SHARE * POINT_A), &u[1],
                  &u[2]);
    winograd_pair(vec_fma(vec_set1((float)(B_SHARE * B_SQUARE)), g[2], b), g[1], (float)(B_SHARE * POINT_B), &u[3],
                  &u[4]);
    u[5] = g[2];
}

/* v = A y, m in, m+2 out: the transpose of winograd_output. Roundings on any path: 3. */
FNN_INLINE void winograd_output_transposed(int m, const vec *y, vec *v) {
    v[0] = y[0];
    if (m == 2) {
        v[1] = vec_add(y[0], y[1]);
        v[2] = vec_sub(y[0], y[1]);
        v[3] = y[1];
        return;
    }
    const vec a = vec_set1(A_SQUARE), b = vec_set1(B_SQUARE);
    winograd_pair(vec_fma(a, y[2], y[0]), vec_fma(a, y[3], y[1]), POINT_A, &v[1], &v[2]);
    winograd_pair(vec_fma(b, y[2], y[0]), vec_fma(b, y[3], y[1]), POINT_B, &v[3], &v[4]);
    v[5] = y[3];
}

/* g = G^T u, m+2 in, 3 out: the transpose of winograd_filter. Roundings on any path: 5, that of G's entries included. */
FNN_INLINE void winograd_filter_transposed(int m, const vec *u, vec *g) {
    const vec sum = vec_add(u[1], u[2]), difference = vec_sub(u[1], u[2]);
    if (m == 2) {
        const vec half = vec_set1(0.5f);
        g[0] = vec_fma(half, sum, u[0]);
        g[1] = vec_mul(half, difference);
        g[2] = vec_fma(half, sum, u[3]);
        return;
    }
    const vec sum_b = vec_add(u[3], u[4]), difference_b = vec_sub(u[3], u[4]);
    const vec zero = vec_mul(vec_set1((float)ZERO_SHARE), u[0]);
    g[0] = vec_fma(vec_set1((float)B_SHARE), sum_b, vec_fma(vec_set1((float)A_SHARE), sum, zero));
    g[1] = vec_fma(vec_set1((float)(B_SHARE * POINT_B)), difference_b,
                   vec_mul(vec_set1((float)(A_SHARE * POINT_A)), difference));
    g[2] = vec_fma(vec_set1((float)(B_SHARE * B_SQUARE)), sum_b,
                   vec_fma(vec_set1((float)(A_SHARE * A_SQUARE)), sum, u[5]));
}

typedef void winograd_map(int m, const vec *from, vec *to);

#endif
