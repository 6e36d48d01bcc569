/* Linear forward for some rows: the transposed product, in which weights are broadcast from where they stand.
 *
 *   y[n,k] = activation(bias[k] + sum over c of x[n,c] * w[k,c])      shapes and aliasing in linear.c
 *
 * Rows and columns change places: x, the small operand, is packed in the panels of gemm.h, columns n, by the whole team; w is
 * neither copied nor transposed, and read from memory once. Groups of GROUP outputs: for each block of inputs, a tile of
 * the group's weights, which stays in the first-level cache, meets all panels while the weights of the next block are asked for;
 * the sums stand in a scratch of GROUP x batch floats, and are transposed into y at the end.
 *
 * The sum over c is cut into equal blocks of at most LINEAR_DEPTH_BLOCK steps (in whole lines of 16) by its length alone; each
 * block is summed in order, one fused multiply-add a step, and the sums of the blocks are added in order:
 * |error| <= gamma_D * sum |x||w|, D = min(C, LINEAR_DEPTH_BLOCK) + blocks (twice the first term on the scalar ISA), and one
 * rounding for the bias.
 *
 * workspace: C * up floats, and workspace_stride = GROUP * up for each thread, up = N rounded up to FNN_LANES.
 * Parallel over outputs; a sum is never cut by a share.
 */
#include "gemm_pack.h"
#include "linear.h"
#include "linear_tile.h"

enum { GROUP = 4 * FNN_GEMM_ROWS };

/* The layer, its packed x and this thread's sums: output i of a group, row n, at [i*width + n]. */
struct product {
    const struct fnn_linear_forward_args *args;
    ptrdiff_t width;
    const float *packed;
    float *sums;
};

/* The inputs [c, c + depth) of outputs [k, k + outputs); `fetch` as in linear_tile.h. */
struct block {
    ptrdiff_t c, depth, k, outputs, fetch;
};

static ptrdiff_t tile_rows(ptrdiff_t left, ptrdiff_t batch) {
    if (batch <= FNN_LANES && left >= LINEAR_TILE_TALL) return LINEAR_TILE_TALL;
    return fnn_ceil_div(left, fnn_ceil_div(left, FNN_GEMM_ROWS));
}

static void run_block(const struct product *p, const struct block *b) {
    const ptrdiff_t batch = p->args->batch, channels = p->args->channels;
    struct linear_tile tile = {
        .w_row = channels,
        .depth = b->depth,
        .sum_row = p->width,
        .accumulate = b->c > 0,
    };
    for (ptrdiff_t i = 0; i < b->outputs; i += tile.row_count) {
        tile.w = p->args->weight + (b->k + i) * channels + b->c;
        tile.row_count = tile_rows(b->outputs - i, batch);
        for (ptrdiff_t n = 0; n < batch; n += FNN_GEMM_COLUMNS) {
            tile.columns = fnn_min(batch - n, FNN_GEMM_COLUMNS);
            tile.panel = p->packed + n * channels + b->c * gemm_width(tile.columns);
            tile.sum = p->sums + i * p->width + n;
            tile.fetch = n == 0 ? b->fetch : 0;
            FNN_FUNCTION(linear_tile)(&tile);
        }
    }
}

/* y of rows [n, n + rows) and `outputs` outputs from k on, at most FNN_LANES of each, from their sums. */
static void finish_square(const struct product *p, const float *sums, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t k,
                          ptrdiff_t outputs) {
    const struct fnn_linear_forward_args *args = p->args;
    const vec bias = args->bias ? vec_load_partial(args->bias + k, outputs) : vec_zero();
    vec square[FNN_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < FNN_LANES; i++) square[i] = i < outputs ? vec_load(sums + i * p->width + n) : vec_zero();
    vec_transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < FNN_LANES; i++) {
        if (i >= rows) continue;
        const vec y = args->bias ? vec_add(square[i], bias) : square[i];
        vec_store_partial(args->y + (n + i) * args->out_channels + k,
                          gemm_activate(y, (enum fnn_activation)args->activation), outputs);
    }
}

static void run_group(const struct product *p, ptrdiff_t k, ptrdiff_t outputs) {
    const ptrdiff_t batch = p->args->batch, channels = p->args->channels;
    const ptrdiff_t blocks = fnn_ceil_div(channels, LINEAR_DEPTH_BLOCK);
    const ptrdiff_t depth = fnn_ceil_div(channels, blocks * FNN_LINE) * FNN_LINE;
    for (ptrdiff_t c = 0; c < channels; c += depth) {
        const bool last = c + depth >= channels;
        const struct block b = {
            .c = c,
            .depth = fnn_min(depth, channels - c),
            .k = k,
            .outputs = outputs,
            .fetch = last ? outputs * channels - c : depth,
        };
        run_block(p, &b);
    }
    for (ptrdiff_t i = 0; i < outputs; i += FNN_LANES)
        for (ptrdiff_t n = 0; n < batch; n += FNN_LANES)
            finish_square(p, p->sums + i * p->width, n, fnn_min(batch - n, FNN_LANES), k + i,
                          fnn_min(outputs - i, FNN_LANES));
}

void FNN_FUNCTION(linear_transposed)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    const ptrdiff_t width = gemm_width(args->batch);
    float *packed = args->workspace;
    const struct product p = {
        .args = args,
        .width = width,
        .packed = packed,
        .sums = packed + width * args->channels + team->rank * args->workspace_stride,
    };
    gemm_pack_by_team(args->x, args->batch, args->channels, packed, team);
    fnn_barrier(team);
    struct fnn_range range;
    for (struct fnn_work work = fnn_work(args->out_channels, FNN_LINE, team); fnn_take(&work, &range);)
        for (ptrdiff_t k = range.begin; k < range.end; k += GROUP) run_group(&p, k, fnn_min(range.end - k, GROUP));
}
