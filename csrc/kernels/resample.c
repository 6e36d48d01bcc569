/* Each axis of an image by itself: padding, cropping, interpolation, and the gradients of all of them.
 *
 *     y[n,p,q,c] = sum over h of R[p,h] * sum over w of C[q,w] * x[n,h,w,c]
 *
 * x (N,H,W,channels), y (N,P,Q,channels); R (P,H) and C (Q,W) are sparse. Nearest neighbours, reflection and the like have one 1 a
 * row, linear interpolation has two weights, constant padding a row without any: there y = value. The backward pass is
 * the same kernel with R and C transposed.
 *
 * Tables rows and columns: output + 1 slots that say where the weights of each output element begin, then for each weight two
 * slots: the source element (size) and the weight (real). workspace: a row of x, W * channels floats, for each thread.
 *
 * Copies are exact. Error of a sum of a weights by b: (a + b + 2) eps * sum |R| |C| |x|, eps = 2^-24, the weights' own
 * rounding to float included. Outputs must not overlap inputs. Parallel over rows of the output. */
#include <string.h>

#include "lanes.h"

enum { GROUP = 4, FEW_CHANNELS = 3 };

static inline ptrdiff_t weights_begin(const union fnn_slot *taps, ptrdiff_t i) { return taps[i].size; }
static inline ptrdiff_t tap_source(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t k) {
    return taps[out_size + 1 + 2 * k].size;
}
static inline float tap_weight(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t k) {
    return (float)taps[out_size + 2 + 2 * k].real;
}

/* The only source of output element i when it is a copy of it, else -1. */
static inline ptrdiff_t copied_source(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i) {
    ptrdiff_t k = weights_begin(taps, i);
    bool copy = weights_begin(taps, i + 1) == k + 1 && tap_weight(taps, out_size, k) == 1.0f;
    return copy ? tap_source(taps, out_size, k) : -1;
}

static bool is_identity(const union fnn_slot *taps, ptrdiff_t size, ptrdiff_t out_size) {
    for (ptrdiff_t i = 0; i < out_size; i++)
        if (copied_source(taps, out_size, i) != i) return false;
    return size == out_size;
}

/* Whether output elements i and i - 1 are the same sum. */
static bool is_repeated(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i) {
    ptrdiff_t before = weights_begin(taps, i - 1), begin = weights_begin(taps, i), end = weights_begin(taps, i + 1);
    if (end - begin != begin - before) return false;
    for (ptrdiff_t k = begin; k < end; k++) {
        ptrdiff_t other = k - (begin - before);
        if (tap_source(taps, out_size, k) != tap_source(taps, out_size, other)) return false;
        if (tap_weight(taps, out_size, k) != tap_weight(taps, out_size, other)) return false;
    }
    return true;
}

FNN_INLINE void copy_floats(const float *from, float *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) {
        ptrdiff_t n = lanes_left(count - i);
        store_lanes(to + i, load_lanes(from + i, n), n);
    }
}

static void set_floats(float *to, ptrdiff_t count, float value) {
    for (ptrdiff_t i = 0; i < count; i += FNN_LANES) store_lanes(to + i, vec_set1(value), lanes_left(count - i));
}

/* to = sum of weight * (the stretch at from + source * stride) for one output element, `vectors` vectors, the last of n lanes. */
FNN_INLINE void sum_taps(const int vectors, ptrdiff_t n, const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i,
                         const float *from, ptrdiff_t stride, float *to) {
    ptrdiff_t k = weights_begin(taps, i), end = weights_begin(taps, i + 1);
    vec sum[GROUP], weight = vec_set1(tap_weight(taps, out_size, k));
    const float *source = from + tap_source(taps, out_size, k) * stride;
    for (int v = 0; v < vectors; v++) sum[v] = vec_mul(weight, load_lanes(source + v * FNN_LANES, n));
    for (k++; k < end; k++) {
        weight = vec_set1(tap_weight(taps, out_size, k));
        source = from + tap_source(taps, out_size, k) * stride;
        for (int v = 0; v < vectors; v++) sum[v] = vec_fma(weight, load_lanes(source + v * FNN_LANES, n), sum[v]);
    }
    for (int v = 0; v < vectors; v++) store_lanes(to + v * FNN_LANES, sum[v], n);
}

/* The same for a stretch of `count` floats. */
static void sum_stretches(const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i, const float *from,
                          ptrdiff_t stride, ptrdiff_t count, float *to) {
    ptrdiff_t j = 0;
    for (; j + GROUP * FNN_LANES <= count; j += GROUP * FNN_LANES)
        sum_taps(GROUP, FNN_LANES, taps, out_size, i, from + j, stride, to + j);
    for (; j < count; j += FNN_LANES) sum_taps(1, lanes_left(count - j), taps, out_size, i, from + j, stride, to + j);
}

/* The same for a pixel of few channels, where a vector would be mostly empty. */
FNN_INLINE void sum_pixel(const ptrdiff_t channels, const union fnn_slot *taps, ptrdiff_t out_size, ptrdiff_t i,
                          const float *row, float *to) {
    ptrdiff_t end = weights_begin(taps, i + 1);
    float sum[FEW_CHANNELS] = {0};
    for (ptrdiff_t k = weights_begin(taps, i); k < end; k++) {
        const float *source = row + tap_source(taps, out_size, k) * channels;
        float weight = tap_weight(taps, out_size, k);
        for (ptrdiff_t c = 0; c < channels; c++) sum[c] += weight * source[c];
    }
    for (ptrdiff_t c = 0; c < channels; c++) to[c] = sum[c];
}

/* One row of y from one row of pixels, whose channels are `few`, or any number when that is 0. Neighbours that are copies
 * of neighbours are copied together. */
FNN_INLINE void resample_row(const ptrdiff_t few, const struct fnn_resample_args *args, const float *row, float *y) {
    const union fnn_slot *taps = args->columns;
    ptrdiff_t channels = few ? few : args->channels, out_width = args->out_width;
    for (ptrdiff_t q = 0, next; q < out_width; q = next) {
        float *to = y + q * channels;
        next = q + 1;
        if (weights_begin(taps, q) == weights_begin(taps, next)) {
            set_floats(to, channels, (float)args->value);
            continue;
        }
        ptrdiff_t source = copied_source(taps, out_width, q);
        if (source < 0) {
            if (few)
                sum_pixel(few, taps, out_width, q, row, to);
            else
                sum_stretches(taps, out_width, q, row, channels, channels, to);
            continue;
        }
        while (next < out_width && copied_source(taps, out_width, next) == source + (next - q)) next++;
        copy_floats(row + source * channels, to, (next - q) * channels);
    }
}

static void resample_row_of(const struct fnn_resample_args *args, const float *row, float *y) {
    if (args->channels == 1)
        resample_row(1, args, row, y);
    else if (args->channels == 2)
        resample_row(2, args, row, y);
    else if (args->channels == 3)
        resample_row(3, args, row, y);
    else
        resample_row(0, args, row, y);
}

void FNN_FUNCTION(resample)(const struct fnn_resample_args *args, const struct fnn_team *team) {
    const union fnn_slot *rows = args->rows;
    ptrdiff_t stride = args->width * args->channels, out_stride = args->out_width * args->channels;
    bool same_columns = is_identity(args->columns, args->width, args->out_width);
    float *buffer = args->workspace + team->rank * stride;
    struct fnn_range range = fnn_share(args->batch * args->out_height, team);
    for (ptrdiff_t i = range.begin; i < range.end; i++) {
        ptrdiff_t p = i % args->out_height, source = copied_source(rows, args->out_height, p);
        const float *x = args->x + i / args->out_height * args->height * stride;
        float *y = args->y + i * out_stride;
        if (weights_begin(rows, p) == weights_begin(rows, p + 1)) {
            set_floats(y, out_stride, (float)args->value);
            continue;
        }
        if (p > 0 && i > range.begin && is_repeated(rows, args->out_height, p)) {
            copy_floats(y - out_stride, y, out_stride);
            continue;
        }
        if (source < 0) sum_stretches(rows, args->out_height, p, x, stride, stride, same_columns ? y : buffer);
        if (source >= 0 && same_columns) copy_floats(x + source * stride, y, stride);
        if (!same_columns) resample_row_of(args, source < 0 ? buffer : x + source * stride, y);
    }
}
