/* What Winograd's convolutions have in common: three stages over blocks of tiles (layouts: winograd.h, winograd_strided.h).
 *
 *   1. V of the patches of a block of tiles, a chunk of channels at a time
 *   2. for each unit, a group of output channels and tiles, M: the products of all planes
 *   3. the outputs of the unit
 *
 * A kernel gives the stages that depend on its maps and its image. With stride 2 an image is four phases, each with channels of
 * its own: forward those of the input add up, so that V has `in_phases` times as many chunks; for the gradient of the input
 * those of the output are `out_phases` times as many groups of output channels. Phases and tiles may lack planes (`presence`):
 * those that have one are neighbours.
 *
 * Chunks of V, and steps of packed filters, come in the order of the sum: the whole chunks of the first phase, of the second and
 * so on; then, where channels are left, a chunk of those for each phase.
 */
#ifndef FASTNN_WINOGRAD_CONVOLUTION_H
#define FASTNN_WINOGRAD_CONVOLUTION_H

#include "winograd_weight.h"

struct winograd_convolution;
struct winograd_unit;

typedef void winograd_panel_maker(const struct winograd_weight *weight, ptrdiff_t phase, ptrdiff_t first,
                                  ptrdiff_t columns, struct fnn_range depth, ptrdiff_t plane_stride, float *to);

struct winograd_presence {
    struct fnn_range phases, tiles;
};

struct winograd_stages {
    /* One chunk of V, all phases, of tiles [tiles.begin, tiles.end) in the block that begins at block_begin. */
    void (*transform_inputs)(const struct winograd_convolution *f, ptrdiff_t block_begin, struct fnn_range tiles,
                             ptrdiff_t chunk);
    /* winograd_transform_panel for one phase. */
    winograd_panel_maker *transform_panel;
    /* y of one unit. */
    void (*transform_outputs)(const struct winograd_convolution *f, const struct winograd_unit *unit);
    /* What has a product in a plane; null: there is one phase, and all tiles have. */
    struct winograd_presence (*presence)(const struct winograd_shape *shape, ptrdiff_t plane);
};

struct winograd_convolution {
    const struct winograd_stages *stages;
    struct winograd_shape shape;
    ptrdiff_t in_phases, out_phases; /* one of them, or both, 1 */
    ptrdiff_t taps; /* of a filter as the weights have it, both directions */
    const float *x, *weight, *bias, *residual;
    float *y, *workspace;
    enum winograd_form form;
    enum fnn_activation activation;
    ptrdiff_t block;
    bool shared;
    ptrdiff_t height, width, channels, out_height, out_width, out_channels;
    ptrdiff_t pad_top, pad_left; /* the first patch begins so far outside of x, */
    ptrdiff_t rows_before, columns_before; /* the first tile so far outside of y */
    /* Set by winograd_convolve. */
    struct winograd_patches layout; /* of V */
    ptrdiff_t group_columns; /* columns of M, at most */
    bool in_place; /* a plane of M takes the place of V's plane before it: there is one chunk, one group */
    float *patches; /* V */
    float *products; /* M: this thread's */
    float *filters; /* U: this thread's, when it is made on the way */
};

/* The members that kernels with arguments of the same names fill alike. */
#define WINOGRAD_ARGUMENTS(args)                                                                                      \
    .x = (args)->x, .weight = (args)->weight, .bias = (args)->bias, .residual = (args)->residual, .y = (args)->y,     \
    .workspace = (args)->workspace, .form = (enum winograd_form)(args)->weight_form,                                  \
    .activation = (enum fnn_activation)(args)->activation, .block = (args)->block, .shared = (args)->shared != 0,     \
    .height = (args)->height, .width = (args)->width, .channels = (args)->channels, .out_height = (args)->out_height, \
    .out_width = (args)->out_width, .out_channels = (args)->out_channels, .pad_top = (args)->pad_top,                 \
    .pad_left = (args)->pad_left

/* A unit of stages 2 and 3. */
struct winograd_unit {
    const float *patches; /* V of its first tile */
    struct fnn_range tiles;
    ptrdiff_t phase; /* of y */
    ptrdiff_t first, columns; /* of the output channels */
    float *products; /* M of its first tile */
    ptrdiff_t width; /* columns rounded up */
    ptrdiff_t stride, plane_stride; /* of M: from a tile to the next, and from a plane */
};

/* Where the chunk of a phase comes in the order of the sum. */
static inline ptrdiff_t winograd_slot(const struct winograd_convolution *f, ptrdiff_t phase, ptrdiff_t chunk) {
    const ptrdiff_t whole = f->channels / WINOGRAD_DEPTH;
    return chunk < whole ? phase * whole + chunk : f->in_phases * whole + phase;
}

/* Rows and columns. */
struct winograd_extent {
    int rows, columns;
};

/* Those of outputs that a tile has. */
static inline struct winograd_extent winograd_tile_outputs(const struct winograd_shape *shape,
                                                           const struct winograd_tile *tile) {
    return (struct winograd_extent){tile->row + 1 < shape->tile_rows ? shape->m : (int)shape->last_rows,
                                    tile->column + 1 < shape->tile_columns ? shape->m : (int)shape->last_columns};
}

/* Floats of packed filters of one phase of y, with `depth` channels of all phases of x. */
static inline ptrdiff_t winograd_packed_size(ptrdiff_t planes, ptrdiff_t columns, ptrdiff_t depth) {
    return planes * gemm_panels(columns) * winograd_plane_stride(depth, FNN_GEMM_COLUMNS);
}

/* All of it. Workspace, sharing and order of the sums: winograd_forward.c. */
void FNN_FUNCTION(winograd_convolve)(struct winograd_convolution *f, const struct fnn_team *team);

#endif
