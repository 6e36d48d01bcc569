/* Winograd convolution backward with respect to its input, 3x3 taps, stride 2; see winograd_strided.h:
 *
 *   dx[n,h,w,c] = activation(bias[c] + residual[n,h,w,c] + sum over k, r, s of dy[n,p,q,k] * weight[k,r,s,c]),
 *   h = 2p + r - pad_top, w = 2q + s - pad_left
 *
 * dy N,P,Q,K   weight: see weight_form (enum winograd_form; WINOGRAD_ROTATED is the parameter itself)   bias C or null
 * residual N,H,W,C or null   dx N,H,W,C, overwritten. dx may be the same array as residual; no other aliasing. Geometry and
 * padding are those of the convolution.
 *
 * Stages, block and shared as in winograd_forward.c, and its workspace with planes = 25 and with K for C. Tiles are
 * ceil((H + s) / 8) rows, s = 1 if pad_top is even, else 0, and likewise columns.
 *
 * The bits depend on nothing but the arrays. Error bound: winograd_strided.h.
 */
#include "winograd_output.h"
#include "winograd_strided_input.h"

enum { TILE = WINOGRAD_STRIDED_TILE, TAPS = WINOGRAD_STRIDED_TAPS, SIDE = 2 * WINOGRAD_STRIDED_TILE };

/* Odd pixels of a tile come before even ones: o[i0 - 1], e[i0], ... where the tile's patch begins with dy[i0 - 1]. With even
 * padding the first of all lies before the image. */
static ptrdiff_t pixels_before(ptrdiff_t pad) { return pad % 2 == 0; }
/* Pixels of padding of dy, so that tiles begin there: -floor((pad - 1) / 2). */
static ptrdiff_t patch_padding(ptrdiff_t pad) { return 1 - (pad + 1) / 2; }

static void transform_inputs(const struct winograd_convolution *f, ptrdiff_t begin, struct fnn_range tiles,
                             ptrdiff_t chunk) {
    struct winograd_tile tile = winograd_tile_at(&f->shape, tiles.begin);
    for (ptrdiff_t i = tiles.begin; i < tiles.end; i++, winograd_next_tile(&f->shape, &tile)) {
        float *to = f->patches + chunk * f->layout.chunk_stride + (i - begin) * f->layout.width;
        float *v[2][2] = {{to}};
        winograd_strided_transform(f, PHASES_PLANES, 1, &tile, chunk, v);
    }
}

/* One phase of dx of one tile, whose first pixel of that phase is (row, column). */
FNN_INLINE void transform_tile(const struct winograd_convolution *f, bool odd_row, bool odd_column,
                               const struct winograd_unit *unit, const float *products,
                               const struct winograd_tile *tile, ptrdiff_t row, ptrdiff_t column) {
    const struct winograd_extent outputs = winograd_tile_outputs(&f->shape, tile);
    const ptrdiff_t distance = 2 * f->out_channels, row_stride = f->out_width * f->out_channels;
    const struct fnn_range rows = {row < 0, fnn_min((f->out_height - row + 1) / 2, TILE)};
    const struct fnn_range columns = {column < 0, fnn_min((f->out_width - column + 1) / 2, TILE)};
    const bool whole = rows.end - rows.begin == TILE && columns.end - columns.begin == TILE && outputs.rows == TILE &&
                       outputs.columns == TILE;
    const int patch_rows = TILE + TAPS - 1 - odd_row, patch_columns = TILE + TAPS - 1 - odd_column;
    const ptrdiff_t corner =
        ((tile->image * f->out_height + row) * f->out_width + column) * f->out_channels + unit->first;
    for (ptrdiff_t k = 0; k < unit->columns; k += FNN_LANES) {
        const ptrdiff_t lanes = lanes_left(unit->columns - k);
        const float *bias = f->bias ? f->bias + unit->first + k : NULL;
        if (whole && lanes == FNN_LANES) {
            vec half[WINOGRAD_PATCH][WINOGRAD_PATCH];
            winograd_transform_columns(products + k, unit->plane_stride, TILE, TAPS, TILE, patch_rows, patch_columns,
                                       half);
            winograd_finish_tile(f, TILE, TAPS, 1, half, corner + k, 2 * row_stride, distance, bias);
            continue;
        }
        vec half[WINOGRAD_PATCH][WINOGRAD_PATCH];
        winograd_transform_columns(products + k, unit->plane_stride, TILE, TAPS, outputs.rows, patch_rows,
                                   patch_columns, half);
#pragma GCC unroll 1
        for (ptrdiff_t p = rows.begin; p < rows.end; p++) {
            vec y[WINOGRAD_PATCH];
            winograd_output(outputs.columns, TAPS, half[p], y);
            winograd_store_outputs(f, y, corner + k + 2 * p * row_stride, distance, columns, lanes, bias);
        }
    }
}

FNN_INLINE void transform_phase(const struct winograd_convolution *f, bool odd_row, bool odd_column,
                                const struct winograd_unit *unit) {
    const ptrdiff_t above = f->rows_before - !odd_row, before = f->columns_before - !odd_column;
    struct winograd_tile tile = winograd_tile_at(&f->shape, unit->tiles.begin);
    for (ptrdiff_t i = unit->tiles.begin; i < unit->tiles.end; i++, winograd_next_tile(&f->shape, &tile))
        transform_tile(f, odd_row, odd_column, unit, unit->products + (i - unit->tiles.begin) * unit->stride, &tile,
                       tile.row * SIDE - above, tile.column * SIDE - before);
}

static void transform_outputs(const struct winograd_convolution *f, const struct winograd_unit *unit) {
    if (unit->phase == 0) transform_phase(f, winograd_odd_row(0), winograd_odd_column(0), unit);
    if (unit->phase == 1) transform_phase(f, winograd_odd_row(1), winograd_odd_column(1), unit);
    if (unit->phase == 2) transform_phase(f, winograd_odd_row(2), winograd_odd_column(2), unit);
    if (unit->phase == 3) transform_phase(f, winograd_odd_row(3), winograd_odd_column(3), unit);
}

static const struct winograd_stages stages = {transform_inputs, FNN_FUNCTION(winograd_strided_panel), transform_outputs,
                                              winograd_strided_presence};

void FNN_FUNCTION(winograd_strided_backward_data)(const struct fnn_winograd_strided_backward_data_args *args,
                                                  const struct fnn_team *team) {
    struct winograd_convolution f = {
        .stages = &stages,
        .in_phases = 1,
        .out_phases = WINOGRAD_PHASES,
        .taps = 9,
        .x = args->dy,
        .weight = args->weight,
        .bias = args->bias,
        .residual = args->residual,
        .y = args->dx,
        .workspace = args->workspace,
        .form = (enum winograd_form)args->weight_form,
        .activation = (enum fnn_activation)args->activation,
        .block = args->block,
        .shared = args->shared != 0,
        .height = args->out_height,
        .width = args->out_width,
        .channels = args->out_channels,
        .out_height = args->height,
        .out_width = args->width,
        .out_channels = args->channels,
        .pad_top = patch_padding(args->pad_top),
        .pad_left = patch_padding(args->pad_left),
        .rows_before = pixels_before(args->pad_top),
        .columns_before = pixels_before(args->pad_left),
    };
    const ptrdiff_t height = args->height + f.rows_before, width = args->width + f.columns_before;
    f.shape = winograd_strided_shape(args->batch, fnn_ceil_div(height, 2), fnn_ceil_div(width, 2));
    FNN_FUNCTION(winograd_convolve)(&f, team);
}
