/* The maps of a convolution of 3 x 3 taps with stride 2, as sums over the phases of the image; see winograd_transform.h.
 *
 * In one direction the even and the odd pixels of a patch d are images of their own: y[i] = g0 d[2i] + g2 d[2i+2] + g1 d[2i+1]
 * is a convolution of two taps (g0, g2) of the even ones plus one of (g1, 0) of the odd ones, F(4x4, 2x2) both. Their products
 * are summed before A^T maps them: M is that of patches of 5, V and U have a plane for each product of the two phases, those at
 * +-c, +-d and infinity of the even one, then those at +-c and +-d of the odd one, whose filter has nothing at infinity.
 * In both directions: 81 products for 16 outputs, of patches of 9 x 9 pixels.
 *
 *   V = B^T d B   81 planes of 9 x 9 pixels       U = G g G^T   81 planes of 3 x 3 taps       plane (i, j) of both is for
 *   plane (i mod 5, j mod 5) of M, 25 planes of 4 x 4 outputs.
 *
 * |B^T| |d|, |G| |g| and their roundings are those of each phase. */
#ifndef FASTNN_WINOGRAD_PHASES_H
#define FASTNN_WINOGRAD_PHASES_H

#include "winograd_transform.h"

enum {
    PHASES_PATCH = 9, /* pixels of a patch, and planes, in one direction */
    PHASES_PLANES = 5 /* of a phase: those of M, in one direction */
};

/* v = B^T d of 9 pixels; m: pixels from a patch to the next, r: taps of a phase. Roundings: those of winograd_input. */
FNN_INLINE void winograd_phases_input(int m, int r, const vec *d, vec *v) {
    const vec even[] = {d[0], d[2], d[4], d[6], d[8]}, odd[] = {d[1], d[3], d[5], d[7], vec_zero()};
    vec odd_planes[PHASES_PLANES];
    winograd_input(m / 2, r, even, v);
    winograd_input(m / 2, r, odd, odd_planes);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) v[PHASES_PLANES + i] = odd_planes[i];
}

/* g = G^T u, 9 in, 3 out. Roundings: those of winograd_filter_transposed. */
FNN_INLINE void winograd_phases_filter_transposed(int m, int r, const vec *u, vec *g) {
    const vec odd_planes[] = {u[5], u[6], u[7], u[8], vec_zero()};
    vec even[2], odd[2];
    winograd_filter_transposed(m / 2, r, u, even);
    winograd_filter_transposed(m / 2, r, odd_planes, odd);
    g[0] = even[0];
    g[1] = odd[0];
    g[2] = even[1];
}

#endif
