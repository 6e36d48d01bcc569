/* The maps of Winograd's weight gradient, from x and dy to V and E and from U to dw; see winograd_backward_weight.c. */
#ifndef FASTNN_WINOGRAD_GRADIENT_H
#define FASTNN_WINOGRAD_GRADIENT_H

#include "winograd_phases.h"
#include "winograd_run.h"

enum { BLOCK_TILES = 256 };

struct backward_weight;
struct unit;

/* The maps for one size of tiles and filters. */
struct stages {
    void (*transform_inputs)(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *v);
    void (*transform_outputs)(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *e);
    void (*transform_weight)(const struct backward_weight *b, const struct unit *unit, ptrdiff_t k);
};

struct backward_weight {
    const struct fnn_winograd_backward_weight_args *args;
    const struct stages *stages;
    struct winograd_shape shape;
    int error_patch; /* planes of E in one direction */
    struct winograd_patches in, out; /* layouts of V and E */
    ptrdiff_t width, out_width; /* C and K rounded up: rows of U and of tile sums */
    ptrdiff_t part_size; /* floats of U and of the sum of dy */
    float *patches, *errors; /* V, E */
    const float *rows[BLOCK_TILES]; /* of each tile of a block, in V's first plane */
    float *sums; /* block, out_width: the sum of dy over each tile */
};

/* A part of U: element (plane, k, c) stands at u[plane*plane_stride + (k - rows.begin)*row_stride + c - columns.begin]. All of its
 * rows lie in one chunk of K. */
struct unit {
    float *u;
    ptrdiff_t plane_stride, row_stride;
    struct fnn_range rows, columns;
};

/* V of one chunk of tiles [tiles.begin, tiles.end) of all; v: of the first. m: pixels of x from a tile to the next. */
FNN_INLINE void transform_inputs(const struct backward_weight *b, winograd_map map, int m, int r,
                                 struct fnn_range tiles, ptrdiff_t chunk, float *v) {
    const struct fnn_winograd_backward_weight_args *args = b->args;
    const struct winograd_image image = {args->x,        args->height,  args->width,
                                         args->channels, args->pad_top, args->pad_left};
    winograd_transform_tiles(&image, &b->shape, map, m, r, m + r - 1, m + r - 1, tiles, chunk, &b->in, v);
}

/* E likewise. */
FNN_INLINE void transform_outputs(const struct backward_weight *b, int m, int r, struct fnn_range tiles,
                                  ptrdiff_t chunk, float *e) {
    const struct fnn_winograd_backward_weight_args *args = b->args;
    const struct winograd_image image = {args->dy, args->out_height, args->out_width, args->out_channels, 0, 0};
    winograd_transform_tiles(&image, &b->shape, winograd_output_transposed, m, r, m, m + r - 1, tiles, chunk, &b->out,
                             e);
}

/* The unit's part of dw[k], `taps` x `taps`: the sum of the parts' U, in order, mapped. */
FNN_INLINE void transform_weight(const struct backward_weight *b, winograd_map map, int m, int r, int taps,
                                 const struct unit *unit, ptrdiff_t k) {
    const ptrdiff_t channels = b->args->channels, plane_stride = unit->plane_stride;
    const int patch = m + r - 1;
    float *dw = b->args->dw + k * taps * taps * channels;
    vec half[WINOGRAD_TAPS][WINOGRAD_PATCH];
    const float *row = unit->u + (k - unit->rows.begin) * unit->row_stride;
    for (ptrdiff_t c = unit->columns.begin; c < unit->columns.end; c += FNN_LANES) {
        const float *from = row + c - unit->columns.begin;
#pragma GCC unroll 1
        for (int j = 0; j < patch; j++, from += plane_stride) {
            vec planes[WINOGRAD_PATCH], mapped[WINOGRAD_TAPS];
#pragma GCC unroll 9
            for (int i = 0; i < patch; i++) {
                planes[i] = vec_load(from + i * patch * plane_stride);
                for (ptrdiff_t part = 1; part < b->args->parts; part++)
                    planes[i] = vec_add(planes[i], vec_load(from + part * b->part_size + i * patch * plane_stride));
            }
            map(m, r, planes, mapped);
#pragma GCC unroll 5
            for (int i = 0; i < taps; i++) half[i][j] = mapped[i];
        }
#pragma GCC unroll 1
        for (int i = 0; i < taps; i++) {
            vec g[WINOGRAD_TAPS];
            map(m, r, half[i], g);
#pragma GCC unroll 5
            for (int s = 0; s < taps; s++)
                store_lanes(dw + (i * taps + s) * channels + c, g[s], lanes_left(channels - c));
        }
    }
}

static void transform_inputs_4_3(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *v) {
    transform_inputs(b, winograd_input, 4, 3, tiles, chunk, v);
}
static void transform_inputs_2_3(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *v) {
    transform_inputs(b, winograd_input, 2, 3, tiles, chunk, v);
}
static void transform_inputs_2_5(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *v) {
    transform_inputs(b, winograd_input, 2, 5, tiles, chunk, v);
}
static void transform_inputs_phases(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk,
                                    float *v) {
    transform_inputs(b, winograd_phases_input, 8, 2, tiles, chunk, v);
}
static void transform_outputs_4_3(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *e) {
    transform_outputs(b, 4, 3, tiles, chunk, e);
}
static void transform_outputs_2_3(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *e) {
    transform_outputs(b, 2, 3, tiles, chunk, e);
}
static void transform_outputs_2_5(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk, float *e) {
    transform_outputs(b, 2, 5, tiles, chunk, e);
}
static void transform_outputs_phases(const struct backward_weight *b, struct fnn_range tiles, ptrdiff_t chunk,
                                     float *e) {
    transform_outputs(b, 4, 2, tiles, chunk, e);
}
static void transform_weight_4_3(const struct backward_weight *b, const struct unit *unit, ptrdiff_t k) {
    transform_weight(b, winograd_filter_transposed, 4, 3, 3, unit, k);
}
static void transform_weight_2_3(const struct backward_weight *b, const struct unit *unit, ptrdiff_t k) {
    transform_weight(b, winograd_filter_transposed, 2, 3, 3, unit, k);
}
static void transform_weight_2_5(const struct backward_weight *b, const struct unit *unit, ptrdiff_t k) {
    transform_weight(b, winograd_filter_transposed, 2, 5, 5, unit, k);
}
static void transform_weight_phases(const struct backward_weight *b, const struct unit *unit, ptrdiff_t k) {
    transform_weight(b, winograd_phases_filter_transposed, 8, 2, 3, unit, k);
}

static const struct stages stages_4_3 = {transform_inputs_4_3, transform_outputs_4_3, transform_weight_4_3};
static const struct stages stages_2_3 = {transform_inputs_2_3, transform_outputs_2_3, transform_weight_2_3};
static const struct stages stages_2_5 = {transform_inputs_2_5, transform_outputs_2_5, transform_weight_2_5};
static const struct stages stages_phases = {transform_inputs_phases, transform_outputs_phases, transform_weight_phases};

static const struct stages *winograd_gradient_stages(const struct fnn_winograd_backward_weight_args *args) {
    if (args->stride == 2) return &stages_phases;
    return args->kernel_size == 5 ? &stages_2_5 : args->tile == 4 ? &stages_4_3 : &stages_2_3;
}

#endif
