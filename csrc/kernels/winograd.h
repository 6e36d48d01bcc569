/* Winograd convolution, 3x3 filters, stride 1, dilation 1, one group: geometry, layouts, error bound. Maps: winograd_transform.h.
 *
 * Output is cut into tiles of m x m pixels, m = `tile` = 4 or 2, numbered row by row, image by image; tile (i, j) reads the
 * patch of (m+2) x (m+2) pixels of x from (i*m - pad_top, j*m - pad_left) on, zeros outside of the image. Each of the
 * (m+2)^2 places of a transformed patch is a plane, and convolution is one matrix product for each plane:
 *
 *   M[plane][tile][k] = sum over c of V[plane][tile][c] * U[plane][c][k],   V = B^T d B, U = G g G^T, Y = A^T M A
 *
 * In memory, a tile's planes stand together: V tile, plane, roundup(C, lanes); M tile, plane, columns. Between tiles there is one
 * vector more, so that rows of a plane do not fall on the same lines of a cache.
 *
 * Error bound, with absolute values elementwise, gamma_n = n*u / (1 - n*u), u = 2^-24, barring underflow:
 *
 *   |error of Y| <= gamma_n * |A^T| [ sum over c of (|G| |g| |G^T|) . (|B^T| |d| |B|) ] |A|,   n = C + 25
 *
 * and one rounding each for the bias and the residual. n counts the roundings on any path from an input to an output: twice those
 * stated at G (4), B (4) and A (4), and C + 1 of the sum. For m = 4 the bound is about 12 times that of the direct sum,
 * the error on random data 2 to 4 times as large. Such a bound is derived for any points in section 3 of Barabasz et al. (2020).
 */
#ifndef FASTNN_WINOGRAD_H
#define FASTNN_WINOGRAD_H

#include "gemm.h"
#include "winograd_transform.h"

/* How the kernel is given its weights (argument weight_form). */
enum winograd_form {
    WINOGRAD_PACKED,  /* U, by winograd_pack_weight or winograd_pack_weight_backward */
    WINOGRAD_FILTERS, /* K,3,3,C: the parameter itself; U is made on the way */
    WINOGRAD_ROTATED, /* C,3,3,K: likewise, for the gradient of the input: k and c exchanged, taps in reverse order */
    WINOGRAD_PANELS   /* as conv2d_pack_weight leaves them; likewise */
};

enum {
    WINOGRAD_GROUP_COLUMNS = 64, /* output channels in a unit of work, a multiple of every FNN_GEMM_COLUMNS */
    WINOGRAD_GROUP_TILES = 56,   /* tiles in a unit of work, at most */
    WINOGRAD_DEPTH = 64          /* input channels for which U is made at a time */
};

struct winograd_shape {
    int m, patch, planes;
    ptrdiff_t tile_rows, tile_columns; /* of one image */
    ptrdiff_t tiles;                   /* of all images */
};

static inline struct winograd_shape winograd_shape(ptrdiff_t tile, ptrdiff_t batch, ptrdiff_t out_height,
                                                   ptrdiff_t out_width) {
    struct winograd_shape shape = {.m = (int)tile, .patch = (int)tile + 2, .planes = (int)((tile + 2) * (tile + 2))};
    shape.tile_rows = fnn_ceil_div(out_height, tile);
    shape.tile_columns = fnn_ceil_div(out_width, tile);
    shape.tiles = batch * shape.tile_rows * shape.tile_columns;
    return shape;
}

/* Floats from a tile to the next when each plane has `width` floats. */
static inline ptrdiff_t winograd_tile_stride(const struct winograd_shape *shape, ptrdiff_t width) {
    return shape->planes * width + FNN_LANES;
}

struct winograd_tile {
    ptrdiff_t image, row, column;
};

static inline struct winograd_tile winograd_tile_at(const struct winograd_shape *shape, ptrdiff_t tile) {
    ptrdiff_t row = tile / shape->tile_columns;
    return (struct winograd_tile){row / shape->tile_rows, row % shape->tile_rows, tile % shape->tile_columns};
}

#endif
