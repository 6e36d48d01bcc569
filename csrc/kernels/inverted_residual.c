/* Inverted residual block forward, without the wide images in between:
 *
 *   e[n,h,w,i] = expand_activation(expand_bias[i] + sum over c of x[n,h,w,c] * expand_weight[i,c])
 *   d[n,p,q,i] = depthwise_activation(depthwise_bias[i] + sum over r, s of
 *                    e[n, p*stride_h - pad_top + r, q*stride_w - pad_left + s, i] * depthwise_weight[i,r,s])
 *   y[n,p,q,k] = activation(bias[k] + residual[n,p,q,k] + sum over i of d[n,p,q,i] * weight[k,i])
 *
 * with zeros for e outside of the image. i runs over I hidden channels.
 *
 * x N,H,W,C   expand_weight I,C and weight K,I, as conv2d_pack_weight packs them   expand_bias, depthwise_bias I or null
 * depthwise_weight R,S,I (conv2d_depthwise_pack), R <= 64   bias K or null   residual N,P,Q,K or null   y N,P,Q,K, overwritten
 * residual may be x; y may be neither, no other aliasing. pad_top and pad_left may be negative.
 * workspace: for each thread of the team workspace_stride >= (((band - 1)*stride_h + R)*W + band*Q)*I floats.
 *
 * A thread makes `band` rows of y at a time. It expands the rows of x that they look at, but for those that the band before has
 * left: row h of e stands at row h mod ((band - 1)*stride_h + R) of a ring. Then it makes their rows of d and multiplies these.
 * While a band and the weights fit into a second-level cache, only x and y go through memory.
 *
 * Parallel over the rows of y, a contiguous share for each thread; where two shares meet, both expand the rows that both look
 * at. Every sum is that of conv2d_forward or conv2d_depthwise_forward, whatever the band and the share: the bits are those of
 * three steps. Error bound: that of the three convolutions, one after the other.
 *
 * Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), section 5.
 */
#include "conv2d_depthwise_row.h"
#include "gemm_rows.h"

struct block {
    const struct fnn_inverted_residual_forward_args *args;
    float *ring, *band; /* rows of e, of d */
    ptrdiff_t ring_rows;
};

static const struct fnn_team ALONE = {.rank = 0, .size = 1};

/* Rows [h, end) of e, of image n. */
static void expand_rows(const struct block *block, ptrdiff_t n, ptrdiff_t h, ptrdiff_t end) {
    const struct fnn_inverted_residual_forward_args *a = block->args;
    while (h < end) {
        const ptrdiff_t slot = h % block->ring_rows, count = fnn_min(end - h, block->ring_rows - slot);
        const struct gemm_rows product = {
            .x = a->x + (n * a->height + h) * a->width * a->channels,
            .packed = a->expand_weight,
            .bias = a->expand_bias,
            .y = block->ring + slot * a->width * a->hidden_channels,
            .rows = count * a->width,
            .columns = a->hidden_channels,
            .depth = a->channels,
            .activation = (enum fnn_activation)a->expand_activation,
        };
        FNN_FUNCTION(gemm_rows)(&product, &ALONE);
        h += count;
    }
}

/* The row of d with its first tap at row h of e. */
static void depthwise(const struct block *block, ptrdiff_t h, float *to) {
    const struct fnn_inverted_residual_forward_args *a = block->args;
    const ptrdiff_t channels = a->hidden_channels, first = fnn_max(-h, 0);
    struct depthwise_row r = {
        .rows = fnn_max(fnn_min(a->kernel_height, a->height - h) - first, 0),
        .taps = a->kernel_width,
        .filter_step = channels,
        .position = -a->pad_left,
        .position_step = 1,
        .width = a->width,
        .step = a->stride_w,
        .channels = channels,
        .outputs = a->out_width,
        .output_step = channels,
        .y = to,
        .bias = a->depthwise_bias,
        .activation = (enum fnn_activation)a->depthwise_activation,
    };
    for (ptrdiff_t t = 0; t < r.rows; t++) {
        r.row[t] = block->ring + (h + first + t) % block->ring_rows * a->width * channels;
        r.filter[t] = a->depthwise_weight + (first + t) * a->kernel_width * channels;
    }
    FNN_FUNCTION(conv2d_depthwise_row)(&r, (struct fnn_range){0, channels});
}

/* `count` rows of y, from row `row` of all images on. */
static void project(const struct block *block, ptrdiff_t row, ptrdiff_t count) {
    const struct fnn_inverted_residual_forward_args *a = block->args;
    const ptrdiff_t offset = row * a->out_width * a->out_channels;
    const struct gemm_rows product = {
        .x = block->band,
        .packed = a->weight,
        .bias = a->bias,
        .residual = a->residual ? a->residual + offset : NULL,
        .y = a->y + offset,
        .rows = count * a->out_width,
        .columns = a->out_channels,
        .depth = a->hidden_channels,
        .activation = (enum fnn_activation)a->activation,
    };
    FNN_FUNCTION(gemm_rows)(&product, &ALONE);
}

/* Rows of y of image n, band by band. */
static void run_image(const struct block *block, ptrdiff_t n, struct fnn_range rows) {
    const struct fnn_inverted_residual_forward_args *a = block->args;
    ptrdiff_t next = 0; /* row of e that is neither made nor passed by */
    for (ptrdiff_t p = rows.begin; p < rows.end; p += a->band) {
        const ptrdiff_t count = fnn_min(a->band, rows.end - p), h = p * a->stride_h - a->pad_top;
        const ptrdiff_t end = fnn_min(h + (count - 1) * a->stride_h + a->kernel_height, a->height);
        next = fnn_max(next, h);
        expand_rows(block, n, next, end);
        next = fnn_max(next, end);
        for (ptrdiff_t i = 0; i < count; i++)
            depthwise(block, h + i * a->stride_h, block->band + i * a->out_width * a->hidden_channels);
        project(block, n * a->out_height + p, count);
    }
}

void FNN_FUNCTION(inverted_residual_forward)(const struct fnn_inverted_residual_forward_args *args,
                                             const struct fnn_team *team) {
    struct block block = {.args = args, .ring_rows = (args->band - 1) * args->stride_h + args->kernel_height};
    block.ring = args->workspace + team->rank * args->workspace_stride;
    block.band = block.ring + block.ring_rows * args->width * args->hidden_channels;
    /* Every cut of an image repeats some of the expansion. */
    const ptrdiff_t count = args->batch * args->out_height;
    struct fnn_range rows;
    for (struct fnn_work work = fnn_work(count, fnn_whole_units(count, args->out_height, team), team);
         fnn_take(&work, &rows);)
        while (rows.begin < rows.end) {
            const ptrdiff_t n = rows.begin / args->out_height, before = n * args->out_height;
            const ptrdiff_t end = fnn_min(rows.end, before + args->out_height);
            run_image(&block, n, (struct fnn_range){rows.begin - before, end - before});
            rows.begin = end;
        }
}
