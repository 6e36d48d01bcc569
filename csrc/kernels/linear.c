/* Linear layer forward and backward with respect to its input, on weights as they stand:
 *
 *   linear_forward:        y[n,k]  = activation(bias[k] + sum over c of x[n,c] * w[k,c])
 *   linear_backward_data:  dx[n,c] = sum over k of dy[n,k] * w[k,c]
 *
 * x N,C   w K,C (out, in)   bias K or null   y N,K   dy N,K   dx N,C; y and dx are overwritten; no aliasing.
 * workspace: for each thread of the team workspace_stride floats, at least
 *   min(D, DEPTH_BLOCK) * min(panels, PANEL_GROUP) * gemm_columns + min(N, ROW_BLOCK) * (min(D, DEPTH_BLOCK) + 2 * lanes),
 * D = C (forward), K (backward), panels = ceil(K / gemm_columns) (forward), ceil(C / gemm_columns) (backward).
 *
 * Forward with at most LINEAR_STREAM_ROWS rows, each weight is used so rarely that the product is bound by reading w:
 * linear_stream.c; so it is backward with at most LINEAR_STREAM_BACK_ROWS. Else both are the blocked product of Goto & van de Geijn:
 * a block of w is packed into panels by the thread that uses it, while the block after it is fetched; where the rows of the
 * left operand lie so far apart that they meet in the same sets of the cache, they are copied too.
 *
 * Parallel over (block of rows, group of panels). The sum of an element runs over its reduction in order, in whatever
 * block: gemm.h with D = C (forward), K (backward); linear_stream.c for few rows.
 */
#include "gemm_pack.h"
#include "gemm_strip.h"
#include "linear.h"

enum {
    DEPTH_BLOCK = 192, /* a panel of this depth (AVX-512: 24 KB) fits the first-level cache */
    PANEL_GROUP = 8,   /* panels packed at a time: memory is read in runs long enough to be fetched ahead */
    ROW_BLOCK = 256,   /* rows x DEPTH_BLOCK of the left operand fit the second-level cache beside the panels */
    FAR = 512          /* rows at least this far apart are copied */
};

/* y[i][j] = sum over d of a[i][d] * b(d, j); b(d, j) is w[j][d] if transposed, else w[d][j]. */
struct linear_product {
    const float *a, *w, *bias;
    float *y, *panels, *copy; /* copy: of the left operand */
    ptrdiff_t rows, columns, depth, w_stride;
    bool transposed;
    enum fnn_activation activation;
};

static const float *block_of_weights(const struct linear_product *p, ptrdiff_t column, ptrdiff_t d) {
    return p->transposed ? p->w + column * p->w_stride + d : p->w + d * p->w_stride + column;
}

/* Fetches part `part` of `parts` of a block of weights towards the second-level cache. */
static void fetch_weights(const struct linear_product *p, struct fnn_range columns, ptrdiff_t d, ptrdiff_t depth,
                          ptrdiff_t part, ptrdiff_t parts) {
    enum { LINE = 64 / sizeof(float) };
    ptrdiff_t runs = p->transposed ? columns.end - columns.begin : depth;
    ptrdiff_t length = p->transposed ? depth : columns.end - columns.begin;
    const float *w = block_of_weights(p, columns.begin, d);
    for (ptrdiff_t i = part * runs / parts; i < (part + 1) * runs / parts; i++)
        for (ptrdiff_t j = 0; j < length; j += LINE) __builtin_prefetch(w + i * p->w_stride + j, 0, 2);
}

static void pack_panel(const struct linear_product *p, ptrdiff_t column, ptrdiff_t count, ptrdiff_t d, ptrdiff_t depth,
                       float *packed) {
    const float *w = block_of_weights(p, column, d);
    if (p->transposed)
        gemm_pack_transposed(w, p->w_stride, count, depth, gemm_width(count), packed);
    else
        gemm_pack_rows(w, p->w_stride, count, depth, gemm_width(count), packed);
}

/* A block of the left operand: rows [begin, end), found `step` floats apart. */
struct left_block {
    ptrdiff_t begin, end;
    const float *a;
    ptrdiff_t step;
};

static struct left_block find_left(const struct linear_product *p, struct fnn_range rows, ptrdiff_t d,
                                   ptrdiff_t depth) {
    struct left_block left = {rows.begin, rows.end, p->a + rows.begin * p->depth + d, p->depth};
    if (p->depth < FAR) return left;
    const ptrdiff_t step = gemm_width(depth) + FNN_LANES;
    for (ptrdiff_t i = 0; i < rows.end - rows.begin; i++)
        for (ptrdiff_t j = 0; j < depth; j += FNN_LANES)
            vec_store(p->copy + i * step + j,
                      vec_load_partial(left.a + i * left.step + j, fnn_min(depth - j, FNN_LANES)));
    left.a = p->copy;
    left.step = step;
    return left;
}

/* One panel of a packed block times a block of the left operand. `next` columns of the depth block after this one are
 * fetched meanwhile. */
static void multiply_panel(const struct linear_product *p, const struct left_block *left, ptrdiff_t column, ptrdiff_t d,
                           struct gemm_strip *tile) {
    const ptrdiff_t rows = left->end - left->begin, tiles = fnn_ceil_div(rows, FNN_GEMM_ROWS);
    const ptrdiff_t next = fnn_min(p->depth - d - tile->depth, DEPTH_BLOCK);
    tile->bias = p->bias && next == 0 ? p->bias + column : NULL;
    tile->activation = next == 0 ? p->activation : FNN_ACTIVATION_NONE;
    for (ptrdiff_t i = 0; i < tiles; i++) {
        ptrdiff_t begin = i * rows / tiles;
        tile->row_count = (i + 1) * rows / tiles - begin;
        tile->x = left->a + begin * left->step;
        tile->y = p->y + (left->begin + begin) * p->columns + column;
        if (next > 0)
            fetch_weights(p, (struct fnn_range){column, column + tile->columns}, d + tile->depth, next, i, tiles);
        FNN_FUNCTION(gemm_strip)(tile);
    }
}

/* Rows x columns of the product; columns start at a panel. */
static void run_unit(const struct linear_product *p, struct fnn_range rows, struct fnn_range columns) {
    struct gemm_strip tile = {.runs = 1, .inner_runs = 1, .y_step = p->columns};
    ptrdiff_t d = 0;
    do {
        tile.depth = fnn_min(p->depth - d, DEPTH_BLOCK);
        tile.accumulate = d > 0;
        const struct left_block left = find_left(p, rows, d, tile.depth);
        tile.row_step = left.step;
        for (ptrdiff_t j = columns.begin; j < columns.end; j += FNN_GEMM_COLUMNS)
            pack_panel(p, j, fnn_min(columns.end - j, FNN_GEMM_COLUMNS), d, tile.depth,
                       p->panels + (j - columns.begin) * tile.depth);
        for (ptrdiff_t j = columns.begin; j < columns.end; j += FNN_GEMM_COLUMNS) {
            tile.panel = p->panels + (j - columns.begin) * tile.depth;
            tile.columns = fnn_min(columns.end - j, FNN_GEMM_COLUMNS);
            multiply_panel(p, &left, j, d, &tile);
        }
        d += tile.depth;
    } while (d < p->depth);
}

static void run_product(struct linear_product *p, const struct fnn_team *team) {
    enum { UNITS_PER_THREAD = 4 };
    const ptrdiff_t wanted = UNITS_PER_THREAD * team->size, panels = gemm_panels(p->columns);
    const ptrdiff_t group = fnn_min(fnn_max(panels / wanted, 1), PANEL_GROUP), groups = fnn_ceil_div(panels, group);
    ptrdiff_t row_blocks = fnn_ceil_div(p->rows, ROW_BLOCK);
    if (team->size > 1 && groups * row_blocks < wanted) /* too few units: cut rows, but not below a few tiles */
        row_blocks = fnn_max(fnn_min(fnn_ceil_div(wanted, groups), p->rows / (8 * FNN_GEMM_ROWS)), row_blocks);
    p->copy = p->panels + fnn_min(p->depth, DEPTH_BLOCK) * fnn_min(panels, PANEL_GROUP) * FNN_GEMM_COLUMNS;
    struct fnn_range range = fnn_share(row_blocks * groups, team);
    for (ptrdiff_t unit = range.begin; unit < range.end; unit++) {
        ptrdiff_t block = unit / groups, column = unit % groups * group * FNN_GEMM_COLUMNS;
        struct fnn_range rows = {block * p->rows / row_blocks, (block + 1) * p->rows / row_blocks};
        struct fnn_range columns = {column, fnn_min(column + group * FNN_GEMM_COLUMNS, p->columns)};
        run_unit(p, rows, columns);
    }
}

void FNN_FUNCTION(linear_forward)(const struct fnn_linear_forward_args *args, const struct fnn_team *team) {
    if (args->batch <= LINEAR_STREAM_ROWS) {
        FNN_FUNCTION(linear_stream)(args, team);
        return;
    }
    struct linear_product product = {
        .a = args->x,
        .w = args->weight,
        .bias = args->bias,
        .y = args->y,
        .panels = args->workspace + team->rank * args->workspace_stride,
        .rows = args->batch,
        .columns = args->out_channels,
        .depth = args->channels,
        .w_stride = args->channels,
        .transposed = true,
        .activation = (enum fnn_activation)args->activation,
    };
    run_product(&product, team);
}

void FNN_FUNCTION(linear_backward_data)(const struct fnn_linear_backward_data_args *args, const struct fnn_team *team) {
    if (args->batch <= LINEAR_STREAM_BACK_ROWS) {
        FNN_FUNCTION(linear_stream_backward)(args, team);
        return;
    }
    struct linear_product product = {
        .a = args->dy,
        .w = args->weight,
        .y = args->dx,
        .panels = args->workspace + team->rank * args->workspace_stride,
        .rows = args->batch,
        .columns = args->channels,
        .depth = args->out_channels,
        .w_stride = args->channels,
        .activation = FNN_ACTIVATION_NONE,
    };
    run_product(&product, team);
}

/* dw[k,c] = sum over n of dy[n,k] * x[n,c], dbias[k] = sum over n of dy[n,k]: the weight gradient of a convolution
 * over images of one pixel; arguments, workspace and error bound as in conv2d_backward_weight.c. */
void FNN_FUNCTION(linear_backward_weight)(const struct fnn_linear_backward_weight_args *args,
                                          const struct fnn_team *team) {
    const struct fnn_conv2d_backward_weight_args convolution = {
        .x = args->x,
        .dy = args->dy,
        .dw = args->dw,
        .dbias = args->dbias,
        .workspace = args->workspace,
        .workspace_stride = args->workspace_stride,
        .chunks = args->chunks,
        .transposed = args->transposed,
        .batch = args->batch,
        .height = 1,
        .width = 1,
        .channels = args->channels,
        .out_height = 1,
        .out_width = 1,
        .out_channels = args->out_channels,
        .kernel_height = 1,
        .kernel_width = 1,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = 1,
    };
    FNN_FUNCTION(conv2d_backward_weight)(&convolution, team);
}
