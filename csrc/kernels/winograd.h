/* Winograd convolution, stride 1, dilation 1, one group: geometry, layouts, error bound. Maps: winograd_transform.h.
 *
 * Filters have r x r taps, r = `kernel_size`; output is cut into tiles of m x m pixels, m = `tile`: (m, r) is (4, 3), (2, 3) or
 * (2, 5). Tiles are numbered row by row, image by image; tile (i, j) reads the patch of (m+r-1) x (m+r-1) pixels of x from
 * (i*m - pad_top, j*m - pad_left) on, zeros outside of the image. Each of the (m+r-1)^2 places of a transformed patch is a
 * plane, and convolution is one matrix product for each plane:
 *
 *   M[plane][tile][k] = sum over c of V[plane][tile][c] * U[plane][c][k],   V = B^T d B, U = G g G^T, Y = A^T M A
 *
 * In memory: V chunk, plane, tile, width: a chunk is 64 channels, width is 64, or C rounded up to lanes if that is less.
 * U panel, plane, c, columns of the panel as in gemm.h. M tile, plane, columns; where there is one chunk of V and no more
 * columns, each plane of M takes the place of V's plane before it, in its layout: half as much to hold in the caches. After each
 * plane of V and U, and each tile of M, there is one line of a cache more, so that what is used together does not fall on the
 * same lines.
 *
 * Error bound, with absolute values elementwise, gamma_n = n*u / (1 - n*u), u = 2^-24, barring underflow:
 *
 *   |error of Y| <= gamma_n * |A^T| [ sum over c of (|G| |g| |G^T|) . (|B^T| |d| |B|) ] |A|,   n = C + 22 + r
 *
 * and one rounding each for the bias and the residual. n counts the roundings on any path from an input to an output: twice those
 * stated at G (4, or 5 if r = 5), B (4) and A (4), and C + 1 of the sum. On random data of 64 channels the bound is about 9 times
 * that of the direct sum for (m, r) = (4, 3), as large for (2, 3) and 3 times for (2, 5), the error 2, 0.6 and 1.4 times as
 * large. Such a bound is derived for any points in section 3 of Barabasz et al. (2020).
 */
#ifndef FASTNN_WINOGRAD_H
#define FASTNN_WINOGRAD_H

#include "gemm.h"
#include "winograd_transform.h"

/* How the kernel is given its weights (argument weight_form). */
enum winograd_form {
    WINOGRAD_PACKED, /* U, by winograd_pack_weight or winograd_pack_weight_backward */
    WINOGRAD_FILTERS, /* K,r,r,C: the parameter itself; U is made on the way */
    WINOGRAD_ROTATED, /* C,r,r,K: likewise, for the gradient of the input: k and c exchanged, taps in reverse order */
    WINOGRAD_PANELS /* as conv2d_pack_weight leaves them; likewise */
};

enum {
    WINOGRAD_DEPTH = 64, /* channels in a chunk */
    WINOGRAD_GROUP_COLUMNS = 64, /* output channels in a unit of work, a multiple of every FNN_GEMM_COLUMNS */
    WINOGRAD_GROUP_TILES = 70, /* tiles in a unit of work, at most */
    WINOGRAD_LINE = 16 /* floats */
};

/* Every `step`-th row and column of a filter, from (row, column) on. With step 2 the taps and planes of the odd ones, row 1 or
 * column 1, are one less in that direction (winograd_strided.h). */
struct winograd_phase {
    int step, row, column;
};
static inline struct winograd_phase winograd_whole(void) { return (struct winograd_phase){.step = 1}; }

struct winograd_shape {
    int m, patch, planes;
    ptrdiff_t tile_rows, tile_columns; /* of one image */
    ptrdiff_t tiles; /* of all images */
    ptrdiff_t full_rows, full_columns; /* of tiles that come in the usual order: all, but see winograd_strided.h */
    ptrdiff_t last_rows, last_columns; /* rows of outputs of the last row of tiles, and columns */
};

static inline struct winograd_shape winograd_shape(ptrdiff_t tile, ptrdiff_t kernel_size, ptrdiff_t batch,
                                                   ptrdiff_t out_height, ptrdiff_t out_width) {
    struct winograd_shape shape = {.m = (int)tile, .patch = (int)(tile + kernel_size - 1)};
    shape.planes = shape.patch * shape.patch;
    shape.full_rows = shape.tile_rows = fnn_ceil_div(out_height, tile);
    shape.full_columns = shape.tile_columns = fnn_ceil_div(out_width, tile);
    shape.tiles = batch * shape.tile_rows * shape.tile_columns;
    shape.last_rows = out_height - (shape.tile_rows - 1) * tile;
    shape.last_columns = out_width - (shape.tile_columns - 1) * tile;
    return shape;
}

/* V of a block of tiles. */
struct winograd_patches {
    ptrdiff_t width, plane_stride, chunk_stride, size; /* floats */
};

static inline struct winograd_patches winograd_patches(const struct winograd_shape *shape, ptrdiff_t channels,
                                                       ptrdiff_t block) {
    struct winograd_patches patches = {.width = gemm_width(fnn_min(channels, WINOGRAD_DEPTH))};
    patches.plane_stride = block * patches.width + WINOGRAD_LINE;
    patches.chunk_stride = shape->planes * patches.plane_stride;
    patches.size = fnn_ceil_div(channels, WINOGRAD_DEPTH) * patches.chunk_stride;
    return patches;
}

/* M: floats from a tile to the next. */
static inline ptrdiff_t winograd_tile_stride(const struct winograd_shape *shape, ptrdiff_t columns) {
    return shape->planes * columns + WINOGRAD_LINE;
}

/* U of `depth` channels: floats from a plane to the next in a panel of the given width, and before column `first`, the first
 * of a panel; that of roundup(K, FNN_GEMM_COLUMNS) is at least the size of all. */
static inline ptrdiff_t winograd_plane_stride(ptrdiff_t depth, ptrdiff_t width) {
    return depth * width + WINOGRAD_LINE;
}
static inline ptrdiff_t winograd_panel_offset(ptrdiff_t planes, ptrdiff_t depth, ptrdiff_t first) {
    return planes * (first / FNN_GEMM_COLUMNS) * winograd_plane_stride(depth, FNN_GEMM_COLUMNS);
}

struct winograd_tile {
    ptrdiff_t index, image, row, column;
};

/* Some rows and columns of tiles of each image; `first` is the index of the first. */
struct winograd_region {
    ptrdiff_t first, row, rows, column, columns;
};

/* Tiles come row by row, image by image, but in four regions: the last column if it is not full, the full tiles, the last row if
 * it is not full, the corner. So those of full rows, those of full columns and those of both are neighbours. */
static inline struct winograd_region winograd_region_of(const struct winograd_shape *shape, ptrdiff_t index) {
    const ptrdiff_t rows = shape->full_rows, columns = shape->full_columns;
    const ptrdiff_t below = shape->tile_rows - rows, beside = shape->tile_columns - columns;
    const ptrdiff_t images = shape->tiles / (shape->tile_rows * shape->tile_columns);
    const ptrdiff_t full = images * rows * beside, last = full + images * rows * columns;
    const ptrdiff_t corner = last + images * below * columns;
    if (index < full) return (struct winograd_region){0, 0, rows, columns, beside};
    if (index < last) return (struct winograd_region){full, 0, rows, 0, columns};
    if (index < corner) return (struct winograd_region){last, rows, below, 0, columns};
    return (struct winograd_region){corner, rows, below, columns, beside};
}

static inline struct winograd_tile winograd_tile_at(const struct winograd_shape *shape, ptrdiff_t index) {
    if (index >= shape->tiles) return (struct winograd_tile){.index = index};
    const struct winograd_region region = winograd_region_of(shape, index);
    const ptrdiff_t place = index - region.first, row = place / region.columns;
    return (struct winograd_tile){index, row / region.rows, region.row + row % region.rows,
                                  region.column + place % region.columns};
}

/* The tile after it, without the divisions of winograd_tile_at where there is one region. */
static inline void winograd_next_tile(const struct winograd_shape *shape, struct winograd_tile *tile) {
    tile->index++;
    if (shape->full_rows < shape->tile_rows || shape->full_columns < shape->tile_columns) {
        *tile = winograd_tile_at(shape, tile->index);
        return;
    }
    if (++tile->column < shape->tile_columns) return;
    tile->column = 0;
    if (++tile->row < shape->tile_rows) return;
    tile->row = 0;
    tile->image++;
}

#endif
