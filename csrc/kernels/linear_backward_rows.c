/* Linear backward with respect to the input for some rows: weights are read as they stand, from memory once.
 *
 *   dx[n,c] = sum over k of dy[n,k] * w[k,c]      shapes and aliasing in linear.c
 *
 * A block of columns, so narrow that its sums for all rows stay in the first-level cache, is the sum of updates by FNN_GEMM_ROWS
 * outputs each, whose weights stay in registers while all rows pass (linear_update.h). dy, the small operand, is packed by the
 * whole team: for each FNN_GEMM_ROWS outputs their dy of all rows, side by side.
 *
 * The sum over k is cut into ceil(K / LINEAR_DEPTH_BLOCK) equal blocks (in whole FNN_GEMM_ROWS) by its length alone; each is summed in
 * order, one fused multiply-add a step, and the sums of the blocks are added in order: |error| <= gamma_D * sum |dy||w|,
 * D = min(K, LINEAR_DEPTH_BLOCK + FNN_GEMM_ROWS) + blocks (twice the first term on the scalar ISA).
 *
 * workspace: N * K floats, rounded up to FNN_LANES, and workspace_stride = LINEAR_DATA_SUMS for each thread. N <= LINEAR_DATA_ROWS.
 * Parallel over columns; a sum is never cut by a share.
 */
#include "linear.h"
#include "linear_update.h"

/* The gradient, its packed dy and this thread's sums: [panel][row][FNN_GEMM_COLUMNS]. */
struct gradient {
    const struct fnn_linear_backward_data_args *args;
    const float *packed;
    float *sums;
};

/* This thread's share of the packed outputs. */
static void pack_gradient(const struct fnn_linear_backward_data_args *args, float *packed,
                          const struct fnn_team *team) {
    const ptrdiff_t outputs = args->out_channels;
    const struct fnn_range range = fnn_share_blocks(outputs, LINEAR_DEPTH_BLOCK / 8 * FNN_GEMM_ROWS, team);
    for (ptrdiff_t k = range.begin; k < range.end; k += FNN_GEMM_ROWS) {
        const ptrdiff_t count = fnn_min(range.end - k, FNN_GEMM_ROWS);
        float *tile = packed + k * args->batch;
        for (ptrdiff_t n = 0; n < args->batch; n++)
            for (ptrdiff_t i = 0; i < count; i++) tile[n * count + i] = args->dy[n * outputs + k + i];
    }
}

/* Sums of the columns over outputs [k, end). */
static void sum_block(const struct gradient *g, struct fnn_range columns, ptrdiff_t k, ptrdiff_t end) {
    struct linear_update tile = {.w_row = g->args->channels, .batch = g->args->batch};
    for (; k < end; k += tile.row_count) {
        tile.row_count = fnn_min(end - k, FNN_GEMM_ROWS);
        tile.dy = g->packed + k * tile.batch;
        tile.sum = g->sums;
        for (ptrdiff_t c = columns.begin; c < columns.end; c += FNN_GEMM_COLUMNS) {
            tile.w = g->args->weight + k * tile.w_row + c;
            tile.columns = fnn_min(columns.end - c, FNN_GEMM_COLUMNS);
            FNN_FUNCTION(linear_update)(&tile);
            tile.sum += tile.batch * FNN_GEMM_COLUMNS;
        }
        tile.accumulate = true;
    }
}

/* dx of the columns is, or grows by, their sums. */
static void add_block(const struct gradient *g, struct fnn_range columns, bool first) {
    const ptrdiff_t batch = g->args->batch, channels = g->args->channels;
    const float *panel = g->sums;
    for (ptrdiff_t c = columns.begin; c < columns.end; c += FNN_GEMM_COLUMNS, panel += batch * FNN_GEMM_COLUMNS) {
        const ptrdiff_t count = fnn_min(columns.end - c, FNN_GEMM_COLUMNS), width = gemm_width(count);
        for (ptrdiff_t n = 0; n < batch; n++) {
            for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
                const ptrdiff_t lanes = fnn_min(count - i, FNN_LANES);
                float *dx = g->args->dx + n * channels + c + i;
                const vec sum = vec_load(panel + n * width + i);
                vec_store_partial(dx, first ? sum : vec_add(vec_load_partial(dx, lanes), sum), lanes);
            }
        }
    }
}

static void run_columns(const struct gradient *g, struct fnn_range columns) {
    const ptrdiff_t outputs = g->args->out_channels, blocks = fnn_ceil_div(outputs, LINEAR_DEPTH_BLOCK);
    const ptrdiff_t depth = fnn_ceil_div(outputs, blocks * FNN_GEMM_ROWS) * FNN_GEMM_ROWS;
    for (ptrdiff_t k = 0; k < outputs; k += depth) {
        sum_block(g, columns, k, fnn_min(k + depth, outputs));
        add_block(g, columns, k == 0);
    }
}

void FNN_FUNCTION(linear_backward_rows)(const struct fnn_linear_backward_data_args *args, const struct fnn_team *team) {
    const ptrdiff_t packed = fnn_ceil_div(args->batch * args->out_channels, FNN_LANES) * FNN_LANES;
    const struct gradient g = {
        .args = args,
        .packed = args->workspace,
        .sums = args->workspace + packed + team->rank * args->workspace_stride,
    };
    pack_gradient(args, args->workspace, team);
    fnn_barrier(team);
    const ptrdiff_t most = LINEAR_DATA_SUMS / (args->batch * FNN_GEMM_COLUMNS) * FNN_GEMM_COLUMNS;
    const struct fnn_range range = fnn_share_blocks(args->channels, FNN_GEMM_COLUMNS, team);
    struct fnn_range columns = {range.begin, range.begin};
    for (; columns.begin < range.end; columns.begin = columns.end) {
        columns.end = fnn_min(columns.begin + most, range.end);
        run_columns(&g, columns);
    }
}
