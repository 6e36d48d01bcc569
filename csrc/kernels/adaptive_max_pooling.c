/* Max pooling to a given size, channels-last.
 *
 *     y[n,p,q,c] = max of x[n,h,w,c] over floor(p*H/P) <= h < ceil((p+1)*H/P), floor(q*W/Q) <= w < ceil((q+1)*W/Q)
 *
 * x, dx (N,H,W,C); y, dy (N,P,Q,C); positions (N,P,Q,C): h*W + w of each maximum, H*W < 2^32. The first of equal maxima wins;
 * NaN propagates, the last of several giving the position. Exact but for the additions of the backward pass where windows
 * overlap: an element gets at most ceil(P/H + 1) * ceil(Q/W + 1) terms, in the order of p, then q.
 * Outputs must not overlap inputs. Parallel over groups of channels, forward also over rows of y, backward over images. */
#include <string.h>

#include "lanes.h"

enum { CHANNEL_GROUP = 64 };

static inline struct fnn_range adaptive_window(ptrdiff_t size, ptrdiff_t out_size, ptrdiff_t p) {
    return (struct fnn_range){p * size / out_size, fnn_ceil_div((p + 1) * size, out_size)};
}

/* n channels of one window; x at the first of them in pixel (0, 0) of the image. */
FNN_INLINE void largest(const float *x, ptrdiff_t width, ptrdiff_t channels, struct fnn_range rows,
                        struct fnn_range columns, ptrdiff_t n, float *y, int64_t *positions) {
    vec best = load_lanes(x + (rows.begin * width + columns.begin) * channels, n);
    ivec where = ivec_set1((uint32_t)(rows.begin * width + columns.begin));
    for (ptrdiff_t h = rows.begin; h < rows.end; h++)
        for (ptrdiff_t w = columns.begin; w < columns.end; w++) {
            vec seen = load_lanes(x + (h * width + w) * channels, n);
            mask better = mask_or(vec_less(best, seen), vec_is_nan(seen));
            best = vec_select(better, seen, best);
            where = ivec_select(better, ivec_set1((uint32_t)(h * width + w)), where);
        }
    store_lanes(y, best, n);
    uint32_t found[FNN_LANES];
    ivec_store(found, where);
    for (ptrdiff_t c = 0; c < n; c++) positions[c] = found[c];
}

void FNN_FUNCTION(adaptive_max_pool2d_forward)(const struct fnn_adaptive_max_pool2d_forward_args *args,
                                               const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, groups = fnn_ceil_div(channels, CHANNEL_GROUP);
    struct fnn_range range = fnn_share(args->batch * args->out_height * groups, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t row = i / groups, begin = i % groups * CHANNEL_GROUP, end = fnn_min(begin + CHANNEL_GROUP, channels);
        struct fnn_range rows = adaptive_window(args->height, args->out_height, row % args->out_height);
        const float *x = args->x + row / args->out_height * args->height * args->width * channels;
        for (ptrdiff_t q = 0; q < args->out_width; q++) {
            struct fnn_range columns = adaptive_window(args->width, args->out_width, q);
            ptrdiff_t out = (row * args->out_width + q) * channels;
            for (ptrdiff_t c = begin; c < end; c += FNN_LANES)
                largest(x + c, args->width, channels, rows, columns, lanes_left(end - c), args->y + out + c,
                        args->positions + out + c);
        }
    }
}

/* dx = sum over the windows whose maximum the element was of dy. */
void FNN_FUNCTION(adaptive_max_pool2d_backward)(const struct fnn_adaptive_max_pool2d_backward_args *args,
                                                const struct fnn_team *team) {
    ptrdiff_t channels = args->channels, groups = fnn_ceil_div(channels, CHANNEL_GROUP);
    ptrdiff_t pixels = args->height * args->width, out_pixels = args->out_height * args->out_width;
    struct fnn_range range = fnn_share(args->batch * groups, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t begin = i % groups * CHANNEL_GROUP, end = fnn_min(begin + CHANNEL_GROUP, channels);
        float *dx = args->dx + i / groups * pixels * channels;
        for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
            memset(dx + pixel * channels + begin, 0, (size_t)(end - begin) * sizeof(float));
        for (ptrdiff_t pixel = 0; pixel < out_pixels; pixel++) {
            ptrdiff_t out = (i / groups * out_pixels + pixel) * channels;
            for (ptrdiff_t c = begin; c < end; c++) dx[args->positions[out + c] * channels + c] += args->dy[out + c];
        }
    }
}
